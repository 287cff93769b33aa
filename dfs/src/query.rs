//! What a mount can say of itself without looking at every file.

use crate::mount::Dfs;
use crate::{Ino, Result};

/// Counts of a container and of this mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Objects of the container: one for each inode that has one, and a few of the filesystem's own.
    pub objects: u64,
    pub stored_bytes: u64,
    pub snapshots: u32,
    pub chunk_bytes: u64,
    pub read_only: bool,
    /// Inodes that this mount remembers, and files open at it.
    pub inodes_known: usize,
    pub files_open: usize,
}

impl Dfs {
    /// Inodes that the kernel knows. Of more than fit into the table, those that were used last.
    pub fn looked_up(&self) -> Vec<Ino> {
        self.table.looked_up()
    }

    pub async fn query(&self) -> Result<Status> {
        let usage = self.container.query().await?;
        Ok(Status {
            objects: usage.objects,
            stored_bytes: usage.stored_bytes,
            snapshots: usage.snapshots,
            chunk_bytes: self.superblock.chunk_bytes,
            read_only: self.read_only,
            inodes_known: self.table.len(),
            files_open: self.handles.len(),
        })
    }
}
