//! What a transport asks of a filesystem: the requests of FUSE, in dfs's types and no transport's.
//!
//! A transport (`fuse/` today) parses a request, makes one call here and turns the answer into its reply. Filesystems
//! are [`dfs::Dfs`] (`serve.rs`) and [`crate::null::Null`]. No decision is made on the way.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs::{
    Appended, Attr, Caller, Credentials, DirEntry, Entry, Handle, Ino, Moved, Opened, RenameFlags,
    Result, Right, Seek, SetAttr, Space, XattrSet,
};

use crate::notices::Notices;

/// What the kernel may keep of an inode, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caching {
    pub attr: Duration,
    /// Names of anything but directories.
    pub dentry: Duration,
    /// Names of directories.
    pub dentry_dir: Duration,
    /// Names that do not exist.
    pub ndentry: Duration,
    /// File data, listings and symlinks.
    pub data: DataCaching,
    /// Files whose data is not kept are still read and written through the kernel's pages, so that they can be mapped.
    pub direct_io_disable: bool,
}

/// Whether the kernel's pages of a file outlive its last close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCaching {
    Kept,
    /// They do if it is opened again within this time.
    For(Duration),
    /// There are none.
    Not,
}

impl Caching {
    /// Every change passes through this mount, so nothing that the kernel keeps grows old.
    pub const ALL: Self = Self::of(Duration::from_secs(24 * 3600), DataCaching::Kept);
    pub const NONE: Self = Self::of(Duration::ZERO, DataCaching::Not);

    const fn of(time: Duration, data: DataCaching) -> Self {
        Self {
            attr: time,
            dentry: time,
            dentry_dir: time,
            ndentry: time,
            data,
            direct_io_disable: false,
        }
    }
}

/// A write as the kernel sends it.
#[derive(Debug)]
pub struct Write {
    pub ino: Ino,
    pub handle: Handle,
    pub offset: u64,
    pub data: Bytes,
    /// The file was opened with O_APPEND.
    pub append: bool,
    /// The file was opened with O_SYNC or O_DSYNC: without the kernel's cache it sends no fsync after the write.
    pub sync: bool,
    /// Set-id bits are to be cleared.
    pub kill_priv: bool,
}

/// A range of one file, and where it goes in another.
#[derive(Clone, Copy, Debug)]
pub struct CopyRange {
    pub from: Ino,
    pub from_offset: u64,
    pub to: Ino,
    pub to_offset: u64,
    pub len: u64,
    /// Set-id bits of the target are to be cleared.
    pub kill_priv: bool,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// The calls. Each answers once, on whatever thread completes it.
        pub trait Filesystem: Send + Sync + 'static {
            /// The root directory's number, which transports know as node 1.
            fn root(&self) -> Ino;
            /// What the kernel may keep of `ino`, an inode of a container that is mounted.
            fn caching(&self, ino: Ino) -> Caching;
            /// Some of what is shown may change without this mount, and is not cached then; with others that are.
            fn changes_elsewhere(&self) -> bool {
                false
            }
            /// How many handles of `ino` are open.
            fn opens(&self, _ino: Ino) -> u64 {
                0
            }
            /// What the kernel is to be told beside its answers, of a filesystem that changes in other ways too.
            fn notices(&self) -> Option<Arc<Notices>> {
                None
            }
            /// The kernel knows `ino` by one name more: of `readdir` with attributes, for each entry that went into the
            /// reply. The answers of the other calls count by themselves.
            fn remember(&self, ino: Ino);
            /// The kernel has not forgotten all answers that named `ino`; one may be on its way.
            fn is_looked_up(&self, _ino: Ino) -> bool {
                true
            }
            /// An answer that named `ino` is nothing to the kernel; else as `forget`.
            fn unremember(&self, ino: Ino) -> bool {
                self.forget(ino, 1)
            }
            /// The kernel has forgotten `lookups` of the answers that named `ino`. True: `forgotten` is to be called.
            fn forget(&self, ino: Ino, lookups: u64) -> bool;
            /// Does what is to be done for an inode of which the kernel has forgotten everything.
            fn forgotten(&self, _ino: Ino) -> impl Future<Output = ()> + Send {
                async {}
            }
            $($(#[$doc])*
            fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$answer>> + Send;)*
        }
    };
}

operations! {
    /// Whether `who` surely may do this in `directory`; false: the kernel is to say.
    surely_may(directory: Ino, who: &Credentials, right: Right) -> bool;
    lookup(parent: Ino, name: &[u8]) -> Entry;
    getattr(ino: Ino) -> Attr;
    setattr(ino: Ino, changes: SetAttr) -> Attr;
    readlink(ino: Ino) -> Bytes;
    mknod(parent: Ino, name: &[u8], mode: u32, rdev: u32, caller: Caller) -> Entry;
    mkdir(parent: Ino, name: &[u8], mode: u32, caller: Caller) -> Entry;
    symlink(parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> Entry;
    link(ino: Ino, parent: Ino, name: &[u8]) -> Entry;
    /// What has lost the name.
    unlink(parent: Ino, name: &[u8]) -> Ino;
    /// As `unlink`.
    rmdir(parent: Ino, name: &[u8]) -> Ino;
    rename(parent: Ino, name: &[u8], to_parent: Ino, to_name: &[u8], flags: RenameFlags) -> Moved;
    open(ino: Ino, flags: i32) -> Opened;
    create(parent: Ino, name: &[u8], mode: u32, flags: i32, caller: Caller) -> (Entry, Opened);
    /// A file without a name.
    tmpfile(parent: Ino, mode: u32, flags: i32, caller: Caller) -> (Entry, Opened);
    /// Shorter than `len` only at the end of the file.
    read(ino: Ino, handle: Handle, offset: u64, len: usize) -> Bytes;
    write(write: Write) -> usize;
    /// As a write that says `append`, and where its bytes end.
    append(write: Write) -> Appended;
    release(ino: Ino, handle: Handle) -> ();
    fsync(ino: Ino, data_only: bool) -> ();
    /// At most `entries_max` entries after the one with cookie `after` (0: from the start); none at the end.
    readdir(ino: Ino, after: u64, entries_max: usize, with_attributes: bool) -> Vec<DirEntry>;
    /// Of the container that `ino` is in.
    statfs(ino: Ino) -> Space;
    /// `kill_sgid`: the set-gid bit goes with this change of an ACL.
    setxattr(ino: Ino, name: &[u8], value: &[u8], set: XattrSet, kill_sgid: bool) -> ();
    getxattr(ino: Ino, name: &[u8]) -> Bytes;
    /// Names that the caller may see, each ended by NUL.
    listxattr(ino: Ino, caller: Caller) -> Bytes;
    removexattr(ino: Ino, name: &[u8]) -> ();
    /// `kill_priv`: set-id bits are to be cleared.
    fallocate(ino: Ino, mode: i32, offset: u64, len: u64, kill_priv: bool) -> ();
    lseek(ino: Ino, offset: u64, seek: Seek) -> u64;
    copy_file_range(range: CopyRange) -> usize;
}
