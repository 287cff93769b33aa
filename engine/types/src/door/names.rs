//! Names at the door, and the inodes that they mean: bodies of calls. Bytes: `dfuse/FORMAT.md`.

use super::inodes::OfInode;
use super::{Token, u16_at, u32_at, u64_at};

/// Set on a directory, with a [`Token`] as its value, it is not stored: the kernel has seen that the caller may change the directory,
/// and whoever knows the token may [`Call::Enter`] it to do so. Accepted is said by EALREADY, after which the kernel tells nobody of a
/// change. Asked for, its value is a token with which to enter the directory to look.
pub const XATTR: &[u8] = b"user.daosfs.door";
/// Directories that a client is in at once; who enters another one leaves the one entered first.
pub const DIRECTORIES_MAX: usize = 256;
/// Longest name, or target of a symlink, in bytes.
pub const NAME_BYTES_MAX: usize = 4095;

pub const CALL_BYTES: usize = 40;

/// What is asked. Names are in the slot's data, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// From now on names in the directory of this token may be asked for, and changed if that is what the token is for.
    Enter {
        token: Token,
    },
    Change(Change),
    OfInode(OfInode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    /// Number of the thread that asks, as it knows itself.
    pub thread: u32,
    pub at: Name,
    /// Of link and rename the new name; of symlink the target, in no directory.
    pub to: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Unlink,
    Rmdir,
    /// As mkdir(2).
    Mkdir {
        mode: u32,
        umask: u32,
    },
    Symlink,
    Link,
    /// Of anything but a directory.
    Rename {
        no_replace: bool,
    },
}

/// A name in a directory that the client has entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// As `stat` shows it.
    pub directory: u64,
    /// Of the name.
    pub bytes: u16,
}

const ENTER: u32 = 16;
const UNLINK: u32 = 17;
const RMDIR: u32 = 18;
const MKDIR: u32 = 19;
const SYMLINK: u32 = 20;
const LINK: u32 = 21;
const RENAME: u32 = 22;

impl Call {
    #[must_use]
    pub fn encode(&self) -> [u8; CALL_BYTES] {
        let mut bytes = [0; CALL_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        match self {
            Self::Enter { token: Token(high, low) } => {
                put(0, &ENTER.to_le_bytes());
                put(24, &high.to_le_bytes());
                put(32, &low.to_le_bytes());
            }
            Self::Change(Change { what, thread, at, to }) => {
                let (kind, flags, umask) = match *what {
                    What::Unlink => (UNLINK, 0, 0),
                    What::Rmdir => (RMDIR, 0, 0),
                    What::Mkdir { mode, umask } => (MKDIR, mode, umask),
                    What::Symlink => (SYMLINK, 0, 0),
                    What::Link => (LINK, 0, 0),
                    What::Rename { no_replace } => (RENAME, no_replace.into(), 0),
                };
                put(0, &kind.to_le_bytes());
                put(4, &flags.to_le_bytes());
                put(8, &umask.to_le_bytes());
                put(12, &thread.to_le_bytes());
                put(16, &at.bytes.to_le_bytes());
                put(18, &to.bytes.to_le_bytes());
                put(24, &at.directory.to_le_bytes());
                put(32, &to.directory.to_le_bytes());
            }
            Self::OfInode(asked) => return asked.encode(),
        }
        bytes
    }

    /// `None`: this is nothing that can be asked.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; CALL_BYTES] = bytes.try_into().ok()?;
        let name = |len, directory| Name {
            directory: u64_at(bytes, directory),
            bytes: u16_at(bytes, len),
        };
        let (at, to) = (name(16, 24), name(18, 32));
        let (flags, umask, thread) = (u32_at(bytes, 4), u32_at(bytes, 8), u32_at(bytes, 12));
        let what = match u32_at(bytes, 0) {
            ENTER => {
                let token = Token(u64_at(bytes, 24), u64_at(bytes, 32));
                return Some(Self::Enter { token });
            }
            UNLINK => What::Unlink,
            RMDIR => What::Rmdir,
            MKDIR => What::Mkdir { mode: flags, umask },
            SYMLINK => What::Symlink,
            LINK => What::Link,
            RENAME => What::Rename { no_replace: flags == 1 },
            _ => return OfInode::decode(bytes).map(Self::OfInode),
        };
        Some(Self::Change(Change { what, thread, at, to }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back_and_garbage_does_not() {
        let at = Name { directory: 5, bytes: 255 };
        let to = Name { directory: u64::MAX, bytes: 4095 };
        let enter = Call::Enter { token: Token(u64::MAX, 3) };
        assert_eq!(Call::decode(&enter.encode()), Some(enter));
        for what in [
            What::Unlink,
            What::Rmdir,
            What::Mkdir { mode: 0o7755, umask: 0o22 },
            What::Symlink,
            What::Link,
            What::Rename { no_replace: true },
            What::Rename { no_replace: false },
        ] {
            let call = Call::Change(Change { what, thread: 77, at, to });
            assert_eq!(Call::decode(&call.encode()), Some(call));
        }
        assert_eq!(Call::decode(&[9; CALL_BYTES]), None);
        assert_eq!(Call::decode(&[9; 32]), None);
    }
}
