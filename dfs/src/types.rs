//! What calls take and give: inode numbers, attributes, entries, flags.

use bytes::Bytes;
use daos_types::ContainerId;

/// Longest name of a directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target, in bytes (PATH_MAX less its NUL).
pub const TARGET_BYTES_MAX: usize = 4095;
/// Longest xattr name, in bytes.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Largest xattr value, in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Largest file, in bytes: what an `off_t` can say.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most names of one inode.
pub const LINKS_MAX: u32 = 1 << 24;

/// An inode number: container (16 bits), counter (48 bits). Never reused; generation is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    const COUNTER_BITS: u32 = 48;
    pub(crate) const ROOT_COUNTER: u64 = 1;

    #[must_use]
    pub const fn new(container: ContainerId, counter: u64) -> Self {
        Self((container.0 as u64) << Self::COUNTER_BITS | counter)
    }

    /// The root directory's number.
    #[must_use]
    pub const fn root(container: ContainerId) -> Self {
        Self::new(container, Self::ROOT_COUNTER)
    }

    /// A number that is never given out: for a listed name whose record is damaged.
    pub(crate) const fn nobody(container: ContainerId) -> Self {
        Self::new(container, (1 << Self::COUNTER_BITS) - 1)
    }

    #[must_use]
    pub const fn container(self) -> ContainerId {
        ContainerId((self.0 >> Self::COUNTER_BITS) as u16)
    }

    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & ((1 << Self::COUNTER_BITS) - 1)
    }
}

impl std::fmt::Debug for Ino {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.container().0, self.counter())
    }
}

impl std::fmt::Display for Ino {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in time; `sec` may be negative, `nsec` is below a thousand million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    /// From nanoseconds since the Unix epoch, as epochs and clocks count.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { sec: (nanos / 1_000_000_000) as i64, nsec: (nanos % 1_000_000_000) as u32 }
    }
}

/// What an inode is. The values are `st_mode`'s type bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Kind {
    File = libc::S_IFREG,
    Directory = libc::S_IFDIR,
    Symlink = libc::S_IFLNK,
    Fifo = libc::S_IFIFO,
    Socket = libc::S_IFSOCK,
    CharDevice = libc::S_IFCHR,
    BlockDevice = libc::S_IFBLK,
}

impl Kind {
    /// The kind that the type bits of `mode` say; `None` if they say none.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// What `stat` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    /// Type bits, permission bits, set-id and sticky bits: `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of I/O: the file's chunk, at most 1 MiB.
    pub blksize: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
}

/// A name's inode. Its generation is always 0, because numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub attr: Attr,
}

/// Who asks. Permissions were checked by the kernel (`default_permissions`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Bits of the mode of what the caller makes that are not set, unless the parent's default ACL decides.
    pub umask: u32,
}

impl Caller {
    /// One whose umask was applied, or is none.
    #[must_use]
    pub const fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid, umask: 0 }
    }
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    Now,
    To(Time),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits; type bits are ignored.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Set when somebody without CAP_FSETID changes the size: set-id bits go.
    pub kill_priv: bool,
}

/// `renameat2` flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RenameFlags {
    pub no_replace: bool,
    pub exchange: bool,
}

impl RenameFlags {
    /// From `RENAME_*` bits; `None` for bits that have no meaning here (whiteouts) or exclude each other.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        let known = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
        if bits & !known != 0 || bits & known == known {
            return None;
        }
        Some(Self {
            no_replace: bits & libc::RENAME_NOREPLACE != 0,
            exchange: bits & libc::RENAME_EXCHANGE != 0,
        })
    }
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Goes on after this entry when it is given as `after`: `.` is 1, `..` is 2. Stable over remounts.
    pub cookie: u64,
    pub name: Bytes,
    pub ino: Ino,
    pub kind: Kind,
    /// With `readdir_plus`, except for `.` and `..`.
    pub attr: Option<Attr>,
}

/// How `setxattr` treats a value that is there or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XattrSet {
    #[default]
    Any,
    /// `XATTR_CREATE`
    Create,
    /// `XATTR_REPLACE`
    Replace,
}

impl XattrSet {
    /// From `XATTR_*` bits; `None` for bits that have no meaning or exclude each other.
    #[must_use]
    pub const fn from_bits(bits: i32) -> Option<Self> {
        match bits {
            0 => Some(Self::Any),
            libc::XATTR_CREATE => Some(Self::Create),
            libc::XATTR_REPLACE => Some(Self::Replace),
            _ => None,
        }
    }
}

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// Space and inodes of the filesystem, in bytes where not said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    pub capacity: u64,
    pub free: u64,
    /// Free for users: without what the engine keeps for its metadata and for deletes.
    pub available: u64,
    pub block_bytes: u32,
    /// Inodes that exist and that could.
    pub inodes: u64,
    pub inodes_free: u64,
    pub name_bytes_max: u32,
}

/// An open file. 0 is no handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Handle(pub u64);

/// An answer to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    pub handle: Handle,
    /// Pages that the kernel has of the file may stay.
    pub keep_cache: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_numbers_carry_their_container() {
        let ino = Ino::new(ContainerId(3), 77);
        assert_eq!((ino.container(), ino.counter()), (ContainerId(3), 77));
        assert_eq!(Ino::root(ContainerId(1)).0, 1 << 48 | 1);
    }

    #[test]
    fn rename_flags_that_exclude_each_other_are_refused() {
        assert!(RenameFlags::from_bits(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE).is_none());
        assert!(RenameFlags::from_bits(libc::RENAME_WHITEOUT).is_none());
        assert_eq!(RenameFlags::from_bits(0), Some(RenameFlags::default()));
    }
}
