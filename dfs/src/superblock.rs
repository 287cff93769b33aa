//! The superblock: what kind of filesystem the container holds, its defaults, and whether this version may mount it.
//! FORMAT.md, "Superblock".
//!
//! # Invariants
//! 1. A container gets its superblock, root directory and counters in one transaction, or not at all.
//! 2. An unknown incompat bit refuses the mount, an unknown ro-compat bit makes it read-only, an unknown compat bit does nothing.

use bytes::Bytes;
use daos_client::Container;
use daos_types::rpc::{Condition, FetchPart, Fetched, Value};
use daos_types::{Akey, Dkey};

use crate::change::{Change, Place};
use crate::keys;
use crate::record::Record;
use crate::{Error, Ino, Result, Time};

/// DAOS's `DFS_MAGIC`.
const MAGIC: u64 = 0xda05_df50_da05_df50;
/// DAOS has 2. 3 says that feature words follow, and keeps DAOS's own client from mounting what it would damage.
const SUPERBLOCK_VERSION: u16 = 3;
const LAYOUT_VERSION: u16 = 3;

pub(crate) const CHUNK_BYTES_DEFAULT: u64 = 1 << 20;

/// Incompat: inode records have the extension; link counts, inode table, orphans and back pointers exist.
const INCOMPAT_EXTENDED: u64 = 1;
const INCOMPAT_KNOWN: u64 = INCOMPAT_EXTENDED;
/// Ro-compat: some inode has a POSIX ACL, which a chmod must keep in step with the mode.
const RO_COMPAT_ACLS: u64 = 1;
const RO_COMPAT_KNOWN: u64 = RO_COMPAT_ACLS;
const RO_COMPAT: &str = "DFS_FEAT_RO_COMPAT";

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) chunk_bytes: u64,
    /// An ro-compat feature is not known here.
    pub(crate) read_only: bool,
    /// Ro-compat features, as they were at mount.
    ro_compat: u64,
}

impl Superblock {
    /// Makes a filesystem in an empty container; does nothing if there is one.
    pub(crate) async fn format(container: &Container, root: &Record) -> Result<()> {
        let place = Self::place();
        let (object, dkey) = (place.object, place.dkey.clone());
        let mut change = Change::new();
        change.expect(Condition::DkeyAbsent { object, dkey });
        for (akey, value) in Self::fields(root.chunk_bytes) {
            change.put_single(place.key(akey), value);
        }
        let counters = Self::counters();
        let first_ino = (Ino::ROOT_COUNTER + 1).to_le_bytes();
        change.put_single(counters.key(keys::NEXT_INO), Bytes::copy_from_slice(&first_ino));
        change.put_single(counters.key(keys::MOVES), Bytes::copy_from_slice(&[0; 8]));
        change.put_record(&Place::root(), root);
        change.put_pointer(root.oid, keys::back_akey(root.ino, b""));
        // `None`: somebody else was faster.
        change.commit(container).await.map(drop)
    }

    /// The superblock of a filesystem that has lost it.
    pub(crate) fn rewrite(chunk_bytes: u64) -> Change {
        let place = Self::place();
        let mut change = Change::new();
        for (akey, value) in Self::fields(chunk_bytes) {
            change.put_single(place.key(akey), value);
        }
        change
    }

    fn place() -> Place {
        Place { object: keys::SUPERBLOCK_OID, dkey: Dkey::from(keys::SUPERBLOCK) }
    }

    pub(crate) fn counters() -> Place {
        Place { object: keys::SUPERBLOCK_OID, dkey: Dkey::from(keys::COUNTERS) }
    }

    fn fields(chunk_bytes: u64) -> Vec<(Akey, Bytes)> {
        let u16s = |n: u16| Bytes::copy_from_slice(&n.to_le_bytes());
        let u32s = |n: u32| Bytes::copy_from_slice(&n.to_le_bytes());
        let u64s = |n: u64| Bytes::copy_from_slice(&n.to_le_bytes());
        vec![
            ("DFS_MAGIC".into(), u64s(MAGIC)),
            ("DFS_SB_VERSION".into(), u16s(SUPERBLOCK_VERSION)),
            ("DFS_LAYOUT_VERSION".into(), u16s(LAYOUT_VERSION)),
            ("DFS_CHUNK_SIZE".into(), u64s(chunk_bytes)),
            ("DFS_OBJ_CLASS".into(), u32s(0)),
            ("DFS_DIR_OBJ_CLASS".into(), u32s(0)),
            ("DFS_FILE_OBJ_CLASS".into(), u32s(0)),
            // Balanced: every change of the namespace is a transaction.
            ("DFS_MODE".into(), u32s(4)),
            ("DFS_FEAT_COMPAT".into(), u64s(0)),
            (RO_COMPAT.into(), u64s(0)),
            ("DFS_FEAT_INCOMPAT".into(), u64s(INCOMPAT_EXTENDED)),
        ]
    }

    pub(crate) async fn read(container: &Container) -> Result<Self> {
        let place = Self::place();
        let part = FetchPart::Akeys {
            object: place.object,
            dkey: place.dkey,
            prefix: Bytes::new(),
            array_bytes_max: 0,
        };
        match container.fetch(vec![part]).await?.pop() {
            Some(Fetched::Akeys(akeys)) => Self::verify(&akeys),
            _ => Err(Error::Protocol { asked: "superblock" }),
        }
    }

    fn verify(akeys: &[(Akey, Value)]) -> Result<Self> {
        if akeys.is_empty() {
            return Err(Error::NotFormatted);
        }
        if number(akeys, "DFS_MAGIC")? != MAGIC {
            return Err(Error::Foreign("its magic number is another one".into()));
        }
        let (version, layout) =
            (number(akeys, "DFS_SB_VERSION")?, number(akeys, "DFS_LAYOUT_VERSION")?);
        if version > u64::from(SUPERBLOCK_VERSION) || layout > u64::from(LAYOUT_VERSION) {
            return Err(Error::Newer(format!("superblock {version}, layout {layout}")));
        }
        if version < u64::from(SUPERBLOCK_VERSION) || layout < u64::from(LAYOUT_VERSION) {
            let found = format!("superblock {version}, layout {layout}, made by DAOS");
            return Err(Error::Foreign(found));
        }
        let incompat = number(akeys, "DFS_FEAT_INCOMPAT")?;
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(Error::Newer(format!("incompat features {incompat:#x}")));
        }
        let chunk_bytes = number(akeys, "DFS_CHUNK_SIZE")?;
        if chunk_bytes == 0 || chunk_bytes > daos_types::rpc::ARRAY_OFFSET_MAX {
            return Err(Error::Foreign(format!("a chunk size of {chunk_bytes}")));
        }
        let ro_compat = number(akeys, RO_COMPAT)?;
        Ok(Self { chunk_bytes, read_only: ro_compat & !RO_COMPAT_KNOWN != 0, ro_compat })
    }

    /// A list is stored with `change`: versions that know of none may not write here any more.
    pub(crate) fn announce_acls(&self, change: &mut Change) {
        if self.ro_compat & RO_COMPAT_ACLS == 0 {
            let features = (self.ro_compat | RO_COMPAT_ACLS).to_le_bytes();
            change.put_single(Self::place().key(RO_COMPAT), Bytes::copy_from_slice(&features));
        }
    }
}

/// The little-endian number, of 2, 4 or 8 bytes, under an akey.
fn number(akeys: &[(Akey, Value)], name: &'static str) -> Result<u64> {
    let foreign = |what| Error::Foreign(format!("{name} {what}"));
    let found = akeys.iter().find(|(akey, _)| akey.as_bytes() == name.as_bytes());
    let Some((_, Value::Single(bytes))) = found else { return Err(foreign("is missing")) };
    let mut wide = [0; 8];
    match bytes.len() {
        2 | 4 | 8 => wide[..bytes.len()].copy_from_slice(bytes),
        _ => return Err(foreign("has another length")),
    }
    Ok(u64::from_le_bytes(wide))
}

/// The root directory's record in a new filesystem.
pub(crate) fn root_record(ino: Ino, uid: u32, gid: u32, chunk_bytes: u64, now: u64) -> Record {
    let time = Time::from_nanos(now);
    Record {
        mode: libc::S_IFDIR | 0o755,
        oid: keys::directory_oid(ino),
        mtime: time,
        ctime: time,
        chunk_bytes,
        class: keys::directory_oid(ino).class().0,
        uid,
        gid,
        value_len: 0,
        mtime_epoch: now,
        version: 1,
        ino,
        size_floor: 0,
        atime: time,
        nlink: 1,
        btime: now,
        flags: 0,
        rdev: 0,
        tail: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields_with(name: &'static str, value: &'static [u8]) -> Vec<(Akey, Value)> {
        let mut fields = Superblock::fields(CHUNK_BYTES_DEFAULT);
        fields.retain(|(akey, _)| akey.as_bytes() != name.as_bytes());
        fields.push((name.into(), Bytes::from_static(value)));
        fields.into_iter().map(|(akey, bytes)| (akey, Value::Single(bytes))).collect()
    }

    #[test]
    fn own_superblock_is_mountable() {
        let own = fields_with("DFS_HINTS", b"file:single\0");
        let read = Superblock::verify(&own).unwrap();
        assert_eq!(
            read,
            Superblock { chunk_bytes: CHUNK_BYTES_DEFAULT, read_only: false, ro_compat: 0 }
        );
    }

    #[test]
    fn an_unknown_incompat_feature_refuses_the_mount() {
        let newer = fields_with("DFS_FEAT_INCOMPAT", &[3, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(Superblock::verify(&newer), Err(Error::Newer(_))));
    }

    #[test]
    fn an_unknown_ro_compat_feature_makes_it_read_only() {
        let newer = fields_with("DFS_FEAT_RO_COMPAT", &[2, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Superblock::verify(&newer).unwrap().read_only);
        let with_acls = fields_with("DFS_FEAT_RO_COMPAT", &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!Superblock::verify(&with_acls).unwrap().read_only);
        let newer = fields_with("DFS_FEAT_COMPAT", &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!Superblock::verify(&newer).unwrap().read_only);
    }

    #[test]
    fn foreign_and_newer_superblocks_are_named() {
        assert_eq!(Superblock::verify(&[]), Err(Error::NotFormatted));
        let foreign = fields_with("DFS_MAGIC", &[0; 8]);
        assert!(matches!(Superblock::verify(&foreign), Err(Error::Foreign(_))));
        let daos = fields_with("DFS_SB_VERSION", &[2, 0]);
        assert!(matches!(Superblock::verify(&daos), Err(Error::Foreign(_))));
        let newer = fields_with("DFS_LAYOUT_VERSION", &[4, 0]);
        assert!(matches!(Superblock::verify(&newer), Err(Error::Newer(_))));
    }
}
