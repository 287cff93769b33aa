//! copy_file_range within one filesystem: no bytes pass the caller.

use daos_types::rpc::DATA_BYTES_MAX;

use crate::mount::Dfs;
use crate::{Error, Handle, Ino, Result};

impl Dfs {
    /// Copies at most `len` bytes, at most 4 MiB at a time, and says how many: 0 at the end of the source.
    /// `kill_priv`: set-id bits of the target go.
    pub async fn copy_file_range(
        &self,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: u64,
        kill_priv: bool,
    ) -> Result<usize> {
        self.writable()?;
        let len = len.min(DATA_BYTES_MAX as u64);
        let overlaps = from_offset < to_offset.saturating_add(len)
            && to_offset < from_offset.saturating_add(len);
        if from == to && overlaps && len > 0 {
            return Err(Error::Invalid("the ranges overlap"));
        }
        self.file(&*self.inode(to)?).await?;
        let data = self.read(from, Handle(0), from_offset, len as usize).await?;
        self.write(to, Handle(0), to_offset, data, false, kill_priv).await
    }
}
