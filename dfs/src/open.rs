//! Open and release: who keeps an inode's data alive after its last name.

use crate::handles::Open;
use crate::lock::How;
use crate::mount::Dfs;
use crate::table::{Home, Loaded};
use crate::{Error, Handle, Ino, Kind, Opened, Result, SetAttr};

impl Dfs {
    /// `flags` as `open(2)`; O_TRUNC truncates, O_APPEND and O_SYNC are for the caller to pass on with each write.
    pub async fn open(&self, ino: Ino, flags: i32) -> Result<Opened> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        if writes {
            self.writable()?;
        }
        let inode = self.inode(ino)?;
        let turn = inode.turn(How::Shared).await;
        let loaded = match self.load(&inode).await {
            Ok(Loaded { home: Home::Gone, .. }) | Err(Error::Stale) => {
                self.came_late();
                return Err(Error::Stale);
            }
            loaded => loaded?,
        };
        if writes && loaded.record.kind() == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        let handle = self.handles.add(Open { ino, flags })?;
        inode.opened();
        // A read that is answered from the kernel's pages is not seen here.
        let reads = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let keep_cache = !reads || !self.atime_is_due(&inode, &loaded, flags);
        drop(turn);
        if flags & libc::O_TRUNC != 0 && loaded.record.kind() == Kind::File {
            let truncate = SetAttr { size: Some(0), ..SetAttr::default() };
            if let Err(error) = Box::pin(self.setattr(ino, truncate)).await {
                Box::pin(self.release(ino, handle)).await?;
                return Err(error);
            }
        }
        Ok(Opened { handle, keep_cache })
    }

    /// How many handles of this inode are open.
    pub fn opens(&self, ino: Ino) -> u64 {
        self.table.known(ino).map_or(0, |inode| inode.opens())
    }

    /// Ends a handle. The last one of an inode without a name ends the inode.
    pub async fn release(&self, ino: Ino, handle: Handle) -> Result<()> {
        self.handles.remove(ino, handle)?;
        let inode = self.inode(ino)?;
        if inode.closed() > 0 {
            return Ok(());
        }
        // Asked before the record: an unlink that had begun is waited for by the turn that `last_close` takes, one that
        // begins now finds nobody who has the inode open.
        let busy = inode.busy();
        match inode.loaded() {
            Some(loaded) if loaded.record.nlink > 0 && !busy => Ok(()),
            _ => Box::pin(self.last_close(&inode)).await,
        }
    }

    /// A close of one descriptor. Nothing waits here: every write was answered by the engine.
    pub async fn flush(&self, ino: Ino, handle: Handle) -> Result<()> {
        self.handles.get(ino, handle).map(drop)
    }

    /// What was written to this file, and all it depends on, is on stable media.
    pub async fn fsync(&self, ino: Ino, _data_only: bool) -> Result<()> {
        self.own(ino)?;
        self.sync().await
    }
}
