//! copy_file_range within one filesystem: no bytes pass the caller, and large holes stay holes.

use daos_types::rpc::DATA_BYTES_MAX;

use crate::load::file_size;
use crate::mount::Dfs;
use crate::space::{HOLE_BYTES_MIN, Run};
use crate::table::Facts;
use crate::{Error, Handle, Ino, Result};

impl Dfs {
    /// Copies at most `len` bytes, of data at most 4 MiB at a time, and says how many: 0 at the end of the source.
    /// `kill_priv`: set-id bits of the target go.
    pub async fn copy_file_range(
        &self,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: u64,
        kill_priv: bool,
    ) -> Result<usize> {
        self.writable()?;
        let data_len = len.min(DATA_BYTES_MAX as u64);
        let overlaps = from_offset < to_offset.saturating_add(data_len)
            && to_offset < from_offset.saturating_add(data_len);
        if from == to && overlaps && len > 0 {
            return Err(Error::Invalid("the ranges overlap"));
        }
        self.file(&*self.inode(to)?).await?;
        let len = if from == to { data_len } else { len };
        let data_len = match self.source_run(from, from_offset, len).await? {
            Run::Hole(len) => {
                self.dig(to, to_offset..to_offset.saturating_add(len), kill_priv).await?;
                return Ok(len as usize);
            }
            Run::Data(len) => len.min(DATA_BYTES_MAX as u64),
        };
        let data = self.read(from, Handle(0), from_offset, data_len as usize).await?;
        self.write(to, Handle(0), to_offset, data, false, kill_priv).await
    }

    /// What the source begins with; data if there is no room for a large hole.
    async fn source_run(&self, ino: Ino, offset: u64, len: u64) -> Result<Run> {
        let inode = self.inode(ino)?;
        let loaded = self.file(&inode).await?;
        if len < HOLE_BYTES_MIN {
            return Ok(Run::Data(len));
        }
        let known = inode.size_facts().filter(|_| self.cache_attributes);
        let facts = match known {
            Some(facts) => facts,
            None => self.facts(&inode, &loaded).await?,
        };
        let Facts::File(info) = facts else { return Err(Error::IsDirectory) };
        let size = file_size(&loaded.record, &info);
        let end = offset.saturating_add(len).min(size);
        if end < offset.saturating_add(HOLE_BYTES_MIN) {
            return Ok(Run::Data(len));
        }
        self.run_at(&loaded.record, offset..end).await
    }
}
