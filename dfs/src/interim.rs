//! The calls' signatures, for those who build on them while the bodies are written.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Attr, Caller, DirEntry, Entry, Error, Handle, Ino, RenameFlags, Result, Seek, SetAttr, Space,
    XattrSet,
};

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Refuse every change.
    pub read_only: bool,
    /// Mount a snapshot (implies `read_only`).
    pub epoch: Option<daos_types::Epoch>,
    /// Keep inode records and sizes in memory. Right while this process is the container's only writer.
    pub cache_attributes: bool,
    /// Bytes of file data to keep in memory; 0: none.
    pub cache_bytes: usize,
    /// Most inodes to remember.
    pub inodes_max: usize,
    /// Most open files.
    pub handles_max: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            epoch: None,
            cache_attributes: true,
            cache_bytes: 0,
            inodes_max: 262_144,
            handles_max: 1 << 20,
        }
    }
}

/// One mounted container.
pub struct Dfs {}

#[allow(unused_variables, clippy::missing_errors_doc)]
impl Dfs {
    // pub async fn mount(container: daos_client::Container, options: MountOptions) -> Result<Arc<Self>>
    pub async fn unmount(&self) -> Result<()> {
        no()
    }
    pub fn root(&self) -> Ino {
        Ino(1)
    }

    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        no()
    }
    /// The kernel knows `ino` by `count` names or handles more (lookup, create, link, mkdir, mknod, symlink count by themselves;
    /// call this for each entry of `readdir_plus` that went into the reply).
    pub fn remember(&self, ino: Ino, count: u64) {}
    pub fn forget(&self, ino: Ino, count: u64) {}
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        no()
    }
    pub async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        no()
    }
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        no()
    }

    /// Every kind but directories and symlinks, by `mode`'s type bits. `mode` has the umask applied.
    pub async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        no()
    }
    pub async fn mkdir(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<Entry> {
        no()
    }
    pub async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        no()
    }
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        no()
    }
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        no()
    }
    pub async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        no()
    }
    pub async fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Entry> {
        no()
    }

    /// `flags`: as `open(2)`; O_TRUNC truncates.
    pub async fn open(&self, ino: Ino, flags: i32) -> Result<Handle> {
        no()
    }
    /// Makes the file and opens it. Without O_EXCL an existing file is opened (and truncated by O_TRUNC).
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Handle)> {
        no()
    }
    /// At most `len` bytes; fewer only at the end of the file.
    pub async fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize) -> Result<Bytes> {
        no()
    }
    /// All of `data`, atomically. `append`: at the end, wherever that is; `kill_priv`: clear set-id bits.
    pub async fn write(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        data: Bytes,
        append: bool,
        kill_priv: bool,
    ) -> Result<usize> {
        no()
    }
    pub async fn flush(&self, ino: Ino, handle: Handle) -> Result<()> {
        no()
    }
    pub async fn release(&self, ino: Ino, handle: Handle) -> Result<()> {
        no()
    }
    pub async fn fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        no()
    }
    /// `mode`: `FALLOC_FL_*`.
    pub async fn fallocate(&self, ino: Ino, mode: i32, offset: u64, len: u64) -> Result<()> {
        no()
    }
    pub async fn lseek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        no()
    }
    pub async fn copy_file_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<usize> {
        no()
    }

    /// Directories need no handle and no opendir: a cookie says where to go on, for ever.
    /// At most `max` entries after cookie `after` (0: from the start); empty at the end.
    pub async fn readdir(&self, ino: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>> {
        no()
    }
    /// As `readdir`, with attributes.
    pub async fn readdir_plus(&self, ino: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>> {
        no()
    }

    pub async fn statfs(&self) -> Result<Space> {
        no()
    }
    pub async fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        no()
    }
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        no()
    }
    /// Names, each ended by a NUL.
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        no()
    }
    pub async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        no()
    }
    /// Everything acknowledged is on stable media.
    pub async fn sync(&self) -> Result<()> {
        no()
    }
}

fn no<T>() -> Result<T> {
    Err(Error::NotSupported("not built yet"))
}

#[allow(dead_code)]
type Mounted = Arc<Dfs>;
