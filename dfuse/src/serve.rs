//! A mounted container, behind the calls that transports make.

use bytes::Bytes;
use dfs::{
    Appended, Attr, Caller, Credentials, Dfs, DirEntry, Entry, Handle, Ino, Moved, Opened,
    RenameFlags, Result, Right, Seek, SetAttr, Space, XattrSet,
};

use crate::ops::{Caching, CopyRange, Filesystem, Write};

impl Filesystem for Dfs {
    fn root(&self) -> Ino {
        Dfs::root(self)
    }
    fn caching(&self, _: Ino) -> Caching {
        Caching::ALL
    }
    fn remember(&self, ino: Ino) {
        Dfs::remember(self, ino, 1);
    }
    fn is_looked_up(&self, ino: Ino) -> bool {
        Dfs::is_looked_up(self, ino)
    }
    fn unremember(&self, ino: Ino) -> bool {
        Dfs::unremember(self, ino) && self.is_forsaken(ino)
    }
    fn forget(&self, ino: Ino, lookups: u64) -> bool {
        Dfs::forget(self, ino, lookups) && self.is_forsaken(ino)
    }
    async fn forgotten(&self, ino: Ino) {
        if let Err(error) = Dfs::forgotten(self, ino).await {
            tracing::warn!(%ino, %error, "a file without a name stays until the next mount");
        }
    }
    async fn surely_may(&self, directory: Ino, who: &Credentials, right: Right) -> Result<bool> {
        Dfs::surely_may(self, directory, who, right).await
    }
    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        Dfs::lookup(self, parent, name).await
    }
    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Dfs::getattr(self, ino).await
    }
    async fn setattr(&self, ino: Ino, changes: SetAttr) -> Result<Attr> {
        Dfs::setattr(self, ino, changes).await
    }
    async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        Dfs::readlink(self, ino).await
    }
    async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        Dfs::mknod(self, parent, name, mode, rdev, caller).await
    }
    async fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: Caller) -> Result<Entry> {
        Dfs::mkdir(self, parent, name, mode, caller).await
    }
    async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        Dfs::symlink(self, parent, name, target, caller).await
    }
    async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry> {
        Dfs::link(self, ino, parent, name).await
    }
    async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        Dfs::unlink(self, parent, name).await
    }
    async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        Dfs::rmdir(self, parent, name).await
    }
    async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        to_parent: Ino,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<Moved> {
        Dfs::rename(self, parent, name, to_parent, to_name, flags).await
    }
    async fn open(&self, ino: Ino, flags: i32) -> Result<Opened> {
        Dfs::open(self, ino, flags).await
    }
    async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        Dfs::create(self, parent, name, mode, flags, caller).await
    }
    async fn tmpfile(
        &self,
        parent: Ino,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        Dfs::tmpfile(self, parent, mode, flags, caller).await
    }
    async fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize) -> Result<Bytes> {
        Dfs::read(self, ino, handle, offset, len).await
    }
    async fn write(&self, w: Write) -> Result<usize> {
        let done =
            Dfs::write(self, w.ino, w.handle, w.offset, w.data, w.append, w.kill_priv).await?;
        if w.sync {
            Dfs::fsync(self, w.ino, true).await?;
        }
        Ok(done)
    }
    async fn append(&self, w: Write) -> Result<Appended> {
        let done = Dfs::append(self, w.ino, w.data, w.kill_priv).await?;
        if w.sync {
            Dfs::fsync(self, w.ino, true).await?;
        }
        Ok(done)
    }
    async fn release(&self, ino: Ino, handle: Handle) -> Result<()> {
        Dfs::release(self, ino, handle).await
    }
    async fn fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        Dfs::fsync(self, ino, data_only).await
    }
    async fn readdir(
        &self,
        ino: Ino,
        after: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirEntry>> {
        if with_attributes {
            Dfs::readdir_plus(self, ino, after, entries_max).await
        } else {
            Dfs::readdir(self, ino, after, entries_max).await
        }
    }
    async fn statfs(&self, _: Ino) -> Result<Space> {
        Dfs::statfs(self).await
    }
    async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        set: XattrSet,
        kill_sgid: bool,
    ) -> Result<()> {
        Dfs::setxattr(self, ino, name, value, set, kill_sgid).await
    }
    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        Dfs::getxattr(self, ino, name).await
    }
    async fn listxattr(&self, ino: Ino, caller: Caller) -> Result<Bytes> {
        Dfs::listxattr(self, ino, caller).await
    }
    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        Dfs::removexattr(self, ino, name).await
    }
    async fn fallocate(
        &self,
        ino: Ino,
        mode: i32,
        offset: u64,
        len: u64,
        kill_priv: bool,
    ) -> Result<()> {
        Dfs::fallocate(self, ino, mode, offset, len, kill_priv).await
    }
    async fn lseek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        Dfs::lseek(self, ino, offset, seek).await
    }
    async fn copy_file_range(&self, r: CopyRange) -> Result<usize> {
        let (from, to) = ((r.from, r.from_offset), (r.to, r.to_offset));
        Dfs::copy_file_range(self, from, to, r.len, r.kill_priv).await
    }
}
