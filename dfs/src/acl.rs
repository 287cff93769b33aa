//! POSIX access control lists: what the kernel's bytes say, and how a list and a mode follow from each other. Pure functions;
//! who may set one, and what one allows, is the kernel's to judge (`default_permissions` with FUSE_POSIX_ACL).
//!
//! # Invariants
//! 1. A list that is stored says more than a mode can: one that does not is the mode (POSIX.1e 23.1.1, "minimal ACL").
//! 2. The permission bits of an inode with a list are the list's owner, mask and other.
//!
//! # Not here
//! Where lists are stored and when they change: xattr.rs, attr.rs, create.rs. Their bytes: those of the xattr, FORMAT.md.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, Result};

/// Names of the attributes by which the kernel asks for lists.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// `POSIX_ACL_XATTR_VERSION`, before the entries.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// What the kernel reads of a list at most: a page.
const BYTES_MAX: usize = 4096;
/// The id of entries that name nobody.
const NOBODY: u32 = u32::MAX;
/// Read, write and execute, of one class.
const RWX: u32 = 0o7;

/// Whom an entry is about. The values are those of the xattr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    Group = 0x04,
    NamedGroup = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    const ALL: [Self; 6] =
        [Self::Owner, Self::User, Self::Group, Self::NamedGroup, Self::Mask, Self::Other];

    fn of(bits: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u16 == bits)
    }

    /// Entries stand in the order of the tags.
    fn place(self) -> u16 {
        self as u16
    }

    fn names_somebody(self) -> bool {
        matches!(self, Self::User | Self::NamedGroup)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: Tag,
    permissions: u32,
    id: u32,
}

/// A list that is valid: one owner, group and other; a mask if anybody is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// The list in an xattr; `None` for one without entries, which stands for no list.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.len() > BYTES_MAX {
            return Err(Error::AttributeTooLarge { max: BYTES_MAX });
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(INVALID)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(Error::NotSupported("another version of POSIX ACLs"));
        }
        if rest.len() % ENTRY_BYTES != 0 {
            return Err(INVALID);
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let entries = rest.chunks_exact(ENTRY_BYTES).map(parse_entry).collect::<Option<Vec<_>>>();
        let acl = Self { entries: entries.ok_or(INVALID)? };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(INVALID) }
    }

    /// As in `parse`'s argument.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + ENTRY_BYTES * self.entries.len());
        bytes.put_u32_le(VERSION);
        for entry in &self.entries {
            bytes.put_u16_le(entry.tag as u16);
            bytes.put_u16_le(entry.permissions as u16);
            bytes.put_u32_le(entry.id);
        }
        bytes.freeze()
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|entry| entry.tag == tag).count();
        let in_order = self.entries.is_sorted_by_key(|entry| entry.tag.place());
        let one_each = [Tag::Owner, Tag::Group, Tag::Other].into_iter().all(|tag| count(tag) == 1);
        let named = count(Tag::User) + count(Tag::NamedGroup) > 0;
        let masks = count(Tag::Mask);
        in_order && one_each && masks <= 1 && (masks == 1 || !named)
    }

    /// Whether a mode says all of it.
    pub(crate) fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    fn of(&self, tag: Tag) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    fn of_mut(&mut self, tag: Tag) -> &mut Entry {
        let entry = self.entries.iter_mut().find(|entry| entry.tag == tag);
        entry.expect("a valid list has an owner, a group and other; a mask was seen")
    }

    /// What the mode's group bits stand for.
    fn group_class(&self) -> Tag {
        if self.of(Tag::Mask).is_some() { Tag::Mask } else { Tag::Group }
    }

    /// The permission bits that stand for this list.
    pub(crate) fn permissions(&self) -> u32 {
        let bits = |tag| self.of(tag).map_or(0, |entry| entry.permissions);
        bits(Tag::Owner) << 6 | bits(self.group_class()) << 3 | bits(Tag::Other)
    }

    /// The list after a chmod to `mode`.
    pub(crate) fn chmod(&mut self, mode: u32) {
        let group = self.group_class();
        self.of_mut(Tag::Owner).permissions = mode >> 6 & RWX;
        self.of_mut(group).permissions = mode >> 3 & RWX;
        self.of_mut(Tag::Other).permissions = mode & RWX;
    }

    /// What a new inode gets that asks for `mode` in a directory with this default list: its permission bits are those that both
    /// grant, its list is this one with them.
    pub(crate) fn inherit(&self, mode: u32) -> (u32, Self) {
        let mut acl = self.clone();
        let granted = mode & acl.permissions();
        acl.chmod(granted);
        (mode & !0o777 | granted, acl)
    }
}

const INVALID: Error = Error::Invalid("not a POSIX ACL");

fn parse_entry(bytes: &[u8]) -> Option<Entry> {
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let tag = Tag::of(short(0))?;
    let permissions = u32::from(short(2));
    let id = u32::from_le_bytes(bytes[4..8].try_into().expect("8 bytes"));
    if permissions & !RWX != 0 || tag.names_somebody() && id == NOBODY {
        return None;
    }
    Some(Entry { tag, permissions, id: if tag.names_somebody() { id } else { NOBODY } })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An xattr's bytes, from (tag, permissions, id).
    pub(crate) fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    const MINIMAL: [(u16, u16, u32); 3] = [(1, 6, NOBODY), (4, 4, NOBODY), (0x20, 0, NOBODY)];
    const WITH_USER: [(u16, u16, u32); 5] =
        [(1, 7, NOBODY), (2, 6, 5), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 4, NOBODY)];

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&bytes(entries)).unwrap().unwrap()
    }

    #[test]
    fn lists_survive_their_bytes() {
        for entries in [&MINIMAL[..], &WITH_USER] {
            assert_eq!(acl(entries).encode(), bytes(entries));
        }
        assert_eq!(Acl::parse(&bytes(&[])), Ok(None));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let with = |at: usize, entry| {
            let mut entries = WITH_USER;
            entries[at] = entry;
            bytes(&entries)
        };
        let without = |at: usize| {
            let mut entries = WITH_USER.to_vec();
            entries.remove(at);
            bytes(&entries)
        };
        let bad = [
            without(0),
            without(2),
            without(3),
            without(4),
            with(1, (2, 6, NOBODY)),
            with(1, (2, 8, 5)),
            with(1, (3, 6, 5)),
            with(1, (8, 6, 5)),
            with(1, (1, 6, 5)),
            with(4, (0x10, 6, 5)),
            bytes(&MINIMAL)[..27].to_vec(),
            vec![2, 0, 0],
        ];
        for bytes in bad {
            assert_eq!(Acl::parse(&bytes), Err(INVALID), "{bytes:?}");
        }
        assert!(matches!(Acl::parse(&[1, 0, 0, 0]), Err(Error::NotSupported(_))));
        assert!(matches!(Acl::parse(&[2; 4100]), Err(Error::AttributeTooLarge { .. })));
    }

    #[test]
    fn a_minimal_list_is_a_mode() {
        assert!(acl(&MINIMAL).is_minimal());
        assert_eq!(acl(&MINIMAL).permissions(), 0o640);
        // A mask alone is more than a mode: the group's own bits are hidden behind it.
        let masked = [MINIMAL[0], (4, 6, NOBODY), (0x10, 1, NOBODY), MINIMAL[2]];
        assert!(!acl(&masked).is_minimal());
        assert_eq!(acl(&masked).permissions(), 0o610);
    }

    #[test]
    fn chmod_changes_owner_mask_and_other() {
        let mut changed = acl(&WITH_USER);
        changed.chmod(0o6421);
        let mut expected = WITH_USER;
        (expected[0].1, expected[3].1, expected[4].1) = (4, 2, 1);
        assert_eq!(changed, acl(&expected));
        let mut minimal = acl(&MINIMAL);
        minimal.chmod(0o751);
        assert_eq!(minimal.permissions(), 0o751);
    }

    #[test]
    fn what_is_inherited_is_what_both_grant() {
        let (mode, inherited) = acl(&WITH_USER).inherit(0o102_640);
        assert_eq!(mode, 0o102_640);
        let mut expected = WITH_USER;
        (expected[0].1, expected[3].1, expected[4].1) = (6, 4, 0);
        assert_eq!(inherited, acl(&expected));
        assert_eq!(acl(&MINIMAL).inherit(0o777).0, 0o640);
    }
}
