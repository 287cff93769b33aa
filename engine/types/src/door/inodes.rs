//! What is asked about the inode that a name means, at the door: bodies and data of calls. Bytes: `dfuse/FORMAT.md`.

use super::names::{CALL_BYTES, Name};
use super::{u16_at, u32_at, u64_at};

/// About the inode of a name in a directory that the client has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfInode {
    pub what: Of,
    /// Number of the thread that asks, as it knows itself.
    pub thread: u32,
    pub at: Name,
    /// A symlink is not meant, but what it leads to, which the kernel is to find.
    pub follows: bool,
}

/// The slot's data has the name, then what is said here, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Answered by a [`Stat`].
    Stat,
    /// [`Attributes`].
    SetAttr,
    /// An xattr's name. Room 0 asks for the length only, here and with `ListXattr`.
    GetXattr { name: u16, room: u32 },
    /// Answered by names, each ended by NUL.
    ListXattr { room: u32 },
    /// An xattr's name and value.
    SetXattr { name: u16, value: u32, set: Set },
    /// An xattr's name.
    RemoveXattr { name: u16 },
}

/// As the flags of setxattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Any,
    Create,
    Replace,
}

const STAT: u32 = 23;
const SETATTR: u32 = 24;
const GETXATTR: u32 = 25;
const LISTXATTR: u32 = 26;
const SETXATTR: u32 = 27;
const REMOVEXATTR: u32 = 28;

const FOLLOWS: u32 = 1;
const CREATE: u32 = 2;
const REPLACE: u32 = 4;

impl Of {
    /// Whether the directory is to be entered to change it, by a mount that may be written to; else to look.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Stat | Self::GetXattr { .. } | Self::ListXattr { .. } => false,
            Self::SetAttr | Self::SetXattr { .. } | Self::RemoveXattr { .. } => true,
        }
    }
}

impl OfInode {
    pub(super) fn encode(&self) -> [u8; CALL_BYTES] {
        let (kind, flags, name, bytes) = match self.what {
            Of::Stat => (STAT, 0, 0, 0),
            Of::SetAttr => (SETATTR, 0, 0, 0),
            Of::GetXattr { name, room } => (GETXATTR, 0, name, room),
            Of::ListXattr { room } => (LISTXATTR, 0, 0, room),
            Of::SetXattr { name, value, set } => (SETXATTR, set.bits(), name, value),
            Of::RemoveXattr { name } => (REMOVEXATTR, 0, name, 0),
        };
        let flags = if self.follows { flags | FOLLOWS } else { flags };
        let mut body = [0; CALL_BYTES];
        body[0..4].copy_from_slice(&kind.to_le_bytes());
        body[4..8].copy_from_slice(&flags.to_le_bytes());
        body[8..12].copy_from_slice(&bytes.to_le_bytes());
        body[12..16].copy_from_slice(&self.thread.to_le_bytes());
        body[16..18].copy_from_slice(&self.at.bytes.to_le_bytes());
        body[18..20].copy_from_slice(&name.to_le_bytes());
        body[24..32].copy_from_slice(&self.at.directory.to_le_bytes());
        body
    }

    pub(super) fn decode(body: &[u8; CALL_BYTES]) -> Option<Self> {
        let (flags, bytes, name) = (u32_at(body, 4), u32_at(body, 8), u16_at(body, 18));
        let what = match u32_at(body, 0) {
            STAT => Of::Stat,
            SETATTR => Of::SetAttr,
            GETXATTR => Of::GetXattr { name, room: bytes },
            LISTXATTR => Of::ListXattr { room: bytes },
            SETXATTR => Of::SetXattr { name, value: bytes, set: Set::of_bits(flags) },
            REMOVEXATTR => Of::RemoveXattr { name },
            _ => return None,
        };
        let at = Name { directory: u64_at(body, 24), bytes: u16_at(body, 16) };
        Some(Self { what, thread: u32_at(body, 12), at, follows: flags & FOLLOWS != 0 })
    }
}

impl Set {
    fn bits(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Create => CREATE,
            Self::Replace => REPLACE,
        }
    }

    fn of_bits(flags: u32) -> Self {
        match flags {
            flags if flags & CREATE != 0 => Self::Create,
            flags if flags & REPLACE != 0 => Self::Replace,
            _ => Self::Any,
        }
    }
}

/// Seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

/// Attributes of an inode, as statx(2) has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub inode: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// As the kernel's FUSE protocol has it (`new_encode_dev`).
    pub rdev: u32,
    pub blksize: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

pub const STAT_BYTES: usize = 96;

impl Stat {
    #[must_use]
    pub fn encode(&self) -> [u8; STAT_BYTES] {
        let mut bytes = [0; STAT_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        for (at, value) in [(0, self.inode), (8, self.size), (16, self.blocks)] {
            put(at, &value.to_le_bytes());
        }
        let words = [self.mode, self.nlink, self.uid, self.gid, self.rdev, self.blksize];
        for (index, word) in words.into_iter().enumerate() {
            put(24 + 4 * index, &word.to_le_bytes());
        }
        for (index, time) in
            [self.atime, self.mtime, self.ctime, self.btime].into_iter().enumerate()
        {
            put(48 + 8 * index, &time.sec.to_le_bytes());
            put(80 + 4 * index, &time.nsec.to_le_bytes());
        }
        bytes
    }

    #[must_use]
    pub fn decode(bytes: &[u8; STAT_BYTES]) -> Self {
        let word = |index: usize| u32_at(bytes, 24 + 4 * index);
        let time = |index: usize| Time {
            sec: u64_at(bytes, 48 + 8 * index) as i64,
            nsec: u32_at(bytes, 80 + 4 * index),
        };
        Self {
            inode: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            blocks: u64_at(bytes, 16),
            mode: word(0),
            nlink: word(1),
            uid: word(2),
            gid: word(3),
            rdev: word(4),
            blksize: word(5),
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
            btime: time(3),
        }
    }
}

/// What is to be changed; `None`: it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(Time),
}

pub const ATTRIBUTES_BYTES: usize = 40;

/// Of a time; beside the nanoseconds, which are less.
const NOW: u32 = u32::MAX;
const STAYS: u32 = u32::MAX - 1;

impl Attributes {
    #[must_use]
    pub fn encode(&self) -> [u8; ATTRIBUTES_BYTES] {
        let mut bytes = [0; ATTRIBUTES_BYTES];
        let mut there = 0u32;
        for (index, value) in [self.mode, self.uid, self.gid].into_iter().enumerate() {
            let at = 4 + 4 * index;
            bytes[at..at + 4].copy_from_slice(&value.unwrap_or(0).to_le_bytes());
            there |= u32::from(value.is_some()) << index;
        }
        bytes[0..4].copy_from_slice(&there.to_le_bytes());
        for (index, time) in [self.atime, self.mtime].into_iter().enumerate() {
            let (sec, nsec) = match time {
                None => (0, STAYS),
                Some(SetTime::Now) => (0, NOW),
                Some(SetTime::To(Time { sec, nsec })) => (sec, nsec),
            };
            bytes[16 + 8 * index..][..8].copy_from_slice(&sec.to_le_bytes());
            bytes[32 + 4 * index..][..4].copy_from_slice(&nsec.to_le_bytes());
        }
        bytes
    }

    /// `None`: these are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ATTRIBUTES_BYTES] = bytes.try_into().ok()?;
        let there = u32_at(bytes, 0);
        let value = |index: usize| (there & 1 << index != 0).then(|| u32_at(bytes, 4 + 4 * index));
        let time = |index: usize| match u32_at(bytes, 32 + 4 * index) {
            STAYS => Some(None),
            NOW => Some(Some(SetTime::Now)),
            nsec if nsec < 1_000_000_000 => {
                let sec = u64_at(bytes, 16 + 8 * index) as i64;
                Some(Some(SetTime::To(Time { sec, nsec })))
            }
            _ => None,
        };
        let (atime, mtime) = (time(0)?, time(1)?);
        Some(Self { mode: value(0), uid: value(1), gid: value(2), atime, mtime })
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Call;
    use super::*;

    #[test]
    fn what_is_asked_comes_back() {
        for what in [
            Of::Stat,
            Of::SetAttr,
            Of::GetXattr { name: 255, room: u32::MAX },
            Of::ListXattr { room: 0 },
            Of::SetXattr { name: 6, value: 65_536, set: Set::Any },
            Of::SetXattr { name: 6, value: 0, set: Set::Create },
            Of::SetXattr { name: 6, value: 1, set: Set::Replace },
            Of::RemoveXattr { name: 7 },
        ] {
            for follows in [false, true] {
                let at = Name { directory: u64::MAX, bytes: 255 };
                let call = Call::OfInode(OfInode { what, thread: 77, at, follows });
                assert_eq!(Call::decode(&call.encode()), Some(call));
            }
        }
    }

    #[test]
    fn what_is_told_of_an_inode_comes_back() {
        let time = |sec: i64| Time { sec, nsec: sec.unsigned_abs() as u32 };
        let stat = Stat {
            inode: u64::MAX,
            size: 1 << 60,
            blocks: 2,
            mode: 3,
            nlink: 4,
            uid: 5,
            gid: u32::MAX,
            rdev: 7,
            blksize: 8,
            atime: time(-9),
            mtime: time(10),
            ctime: time(11),
            btime: time(12),
        };
        assert_eq!(Stat::decode(&stat.encode()), stat);
    }

    #[test]
    fn attributes_come_back_and_garbage_does_not() {
        let before_1970 = Some(SetTime::To(Time { sec: -1, nsec: 999_999_999 }));
        for mode in [None, Some(0o7777)] {
            for (uid, gid) in [(None, Some(0)), (Some(u32::MAX), None)] {
                for (atime, mtime) in [(None, before_1970), (Some(SetTime::Now), None)] {
                    let attributes = Attributes { mode, uid, gid, atime, mtime };
                    assert_eq!(Attributes::decode(&attributes.encode()), Some(attributes));
                }
            }
        }
        let mut bytes = Attributes::default().encode();
        bytes[32..36].copy_from_slice(&1_000_000_000u32.to_le_bytes());
        assert_eq!(Attributes::decode(&bytes), None);
        assert_eq!(Attributes::decode(&bytes[1..]), None);
    }
}
