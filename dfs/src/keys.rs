//! Names inside objects: reserved object ids, dkeys and akeys, and how back pointers are spelled. FORMAT.md, "Keys".

use bytes::{BufMut, Bytes, BytesMut};
use daos_types::rpc::KeyRef;
use daos_types::{Akey, Dkey, ObjectClass, ObjectId, ObjectType};

use crate::{Ino, Kind};

/// dkey of the superblock object that holds the superblock's akeys (DAOS).
pub(crate) const SUPERBLOCK: &str = "DFS_SB_METADATA";
/// dkey of the superblock object that holds the root's inode (DAOS).
pub(crate) const ROOT: &str = "/";
/// dkey of the superblock object that holds counters.
pub(crate) const COUNTERS: &str = "DFS_COUNTERS";
/// The inode record, an array (DAOS).
pub(crate) const INODE: &str = "DFS_INODE";
/// A symlink's target, a single value (DAOS).
pub(crate) const SYMLINK: &str = "DFS_SLINK";
/// Before an xattr's name (DAOS).
pub(crate) const XATTR: &[u8] = b"x:";
/// A file's bytes (DAOS).
pub(crate) const DATA: &str = "0";
/// The reserved dkey of a directory's object: about the directory itself.
pub(crate) const SELF: &str = ".";
/// Begins the akeys of back pointers.
const BACK: u8 = b'b';
/// Begins the akeys of the names of an inode that lives in the inode table.
const NAME: u8 = b'n';
/// How many subdirectories, `i64`, in a directory's [`SELF`].
pub(crate) const SUBDIRECTORIES: &str = "s";
/// When names changed last, `u64` nanoseconds, in a directory's [`SELF`].
pub(crate) const STAMP: &str = "m";
/// The first inode number not yet leased, in [`COUNTERS`].
pub(crate) const NEXT_INO: &str = "NEXT_INO";
/// How many renames moved a directory to another parent, in [`COUNTERS`].
pub(crate) const MOVES: &str = "MOVES";

/// Object ids of DFS's own objects: low word 0, user's high word as in DAOS.
pub(crate) const SUPERBLOCK_OID: ObjectId =
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, 0);
const ROOT_HI: u32 = 1;
pub(crate) const TABLE_OID: ObjectId = ObjectId::new(ObjectType::DkeyUint64, ObjectClass::SX, 2, 0);
pub(crate) const ORPHANS_OID: ObjectId =
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 3, 0);

/// The object of a directory.
pub(crate) const fn directory_oid(ino: Ino) -> ObjectId {
    if ino.counter() == Ino::ROOT_COUNTER {
        return ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, ROOT_HI, 0);
    }
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, ino.counter())
}

/// The object of everything else.
pub(crate) const fn file_oid(ino: Ino) -> ObjectId {
    ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 0, ino.counter())
}

pub(crate) const fn oid(ino: Ino, kind: Kind) -> ObjectId {
    match kind {
        Kind::Directory => directory_oid(ino),
        _ => file_oid(ino),
    }
}

/// dkey that holds what is about the inode itself: `.` in a directory, 0 in the rest.
pub(crate) fn self_dkey(oid: ObjectId) -> Dkey {
    match oid.object_type() {
        Some(ObjectType::MultiHashed) => Dkey::from(SELF),
        _ => Dkey::from_u64(0),
    }
}

/// Everything about a known inode itself, by akey.
pub(crate) fn self_key(oid: ObjectId, akey: Akey) -> KeyRef {
    KeyRef { object: oid, dkey: self_dkey(oid), akey }
}

/// dkey of an orphan: who had it open, and which inode it is.
pub(crate) fn orphan_dkey(lease: u64, ino: Ino) -> Dkey {
    let mut bytes = BytesMut::with_capacity(16);
    bytes.put_u64(lease);
    bytes.put_u64(ino.0);
    Dkey::from_shared(bytes.freeze())
}

/// Lease and inode of an orphan's dkey.
pub(crate) fn orphan_of(dkey: &Dkey) -> Option<(u64, Ino)> {
    let wide = u128::from_be_bytes(dkey.as_bytes().try_into().ok()?);
    Some(((wide >> 64) as u64, Ino(wide as u64)))
}

pub(crate) fn xattr_akey(name: &[u8]) -> Akey {
    Akey::from([XATTR, name].concat())
}

/// akey of the back pointer of an inode with one name.
pub(crate) fn back_akey(parent: Ino, name: &[u8]) -> Akey {
    place(BACK, parent, name)
}

/// akey that says: the record is in the inode table.
pub(crate) fn in_table_akey() -> Akey {
    Akey::from(vec![BACK])
}

/// akey of one name of an inode in the inode table.
pub(crate) fn name_akey(parent: Ino, name: &[u8]) -> Akey {
    place(NAME, parent, name)
}

fn place(first: u8, parent: Ino, name: &[u8]) -> Akey {
    let mut bytes = BytesMut::with_capacity(9 + name.len());
    bytes.put_u8(first);
    bytes.put_u64(parent.0);
    bytes.put_slice(name);
    Akey::from_shared(bytes.freeze())
}

/// What an akey of the self dkey says about the inode's names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pointer {
    /// Its only name.
    Back(Ino, Bytes),
    /// It is in the inode table.
    InTable,
    /// One of its names, while it is in the inode table.
    Name(Ino, Bytes),
}

impl Pointer {
    pub(crate) fn of(akey: &Akey) -> Option<Self> {
        let bytes = akey.as_bytes();
        let (first, rest) = bytes.split_first()?;
        if *first == BACK && rest.is_empty() {
            return Some(Self::InTable);
        }
        let (parent, name) = rest.split_first_chunk::<8>()?;
        let (parent, name) = (Ino(u64::from_be_bytes(*parent)), Bytes::copy_from_slice(name));
        match *first {
            BACK => Some(Self::Back(parent, name)),
            NAME => Some(Self::Name(parent, name)),
            _ => None,
        }
    }
}

/// Begins every back pointer, for fetches by prefix.
pub(crate) const BACK_PREFIX: &[u8] = &[BACK];

#[cfg(test)]
mod tests {
    use daos_types::ContainerId;

    use super::*;

    const C: ContainerId = ContainerId(5);

    #[test]
    fn every_inode_has_objects_of_its_own() {
        let (a, b) = (Ino::new(C, 4711), Ino::new(C, 4712));
        assert_ne!(directory_oid(a), file_oid(a));
        assert_ne!(directory_oid(a), directory_oid(b));
        for own in [SUPERBLOCK_OID, TABLE_OID, ORPHANS_OID] {
            assert_ne!(directory_oid(Ino::root(C)), own);
        }
    }

    #[test]
    fn pointers_survive_their_akeys() {
        let parent = Ino::new(C, 3);
        let name = Bytes::from_static(b"a name");
        assert_eq!(
            Pointer::of(&back_akey(parent, &name)),
            Some(Pointer::Back(parent, name.clone()))
        );
        assert_eq!(Pointer::of(&name_akey(parent, &name)), Some(Pointer::Name(parent, name)));
        assert_eq!(Pointer::of(&in_table_akey()), Some(Pointer::InTable));
        assert_eq!(Pointer::of(&Akey::from(SUBDIRECTORIES)), None);
    }

    #[test]
    fn orphans_survive_their_dkeys() {
        let ino = Ino::new(C, 9);
        assert_eq!(orphan_of(&orphan_dkey(7, ino)), Some((7, ino)));
    }
}
