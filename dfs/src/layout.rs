//! How an inode's data is laid out: its object, its class, and the bytes of a chunk. `daos fs get-attr|set-attr|reset-attr`.

use daos_types::ObjectId;
use daos_types::rpc::{ARRAY_OFFSET_MAX, Condition};

use crate::keys;
use crate::mount::Dfs;
use crate::{Error, Ino, Kind, Result};

const NOT_EMPTY: Error = Error::NotPermitted("the chunk size of a file is fixed once it has data");

/// Where an inode's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: Kind,
    pub object: ObjectId,
    /// Of a file: its chunk. Of a directory: what new files in it get.
    pub chunk_bytes: u64,
}

impl Dfs {
    pub async fn layout(&self, ino: Ino) -> Result<Layout> {
        let record = self.load(&*self.inode(ino)?).await?.record;
        let chunk_bytes = match record.chunk_bytes {
            0 => self.superblock.chunk_bytes,
            own => own,
        };
        Ok(Layout { kind: record.kind(), object: record.oid, chunk_bytes })
    }

    /// Sets the bytes of a chunk: of an empty file, or for what is made in a directory from now on. `None`: as the container
    /// has it.
    pub async fn set_chunk(&self, ino: Ino, chunk_bytes: Option<u64>) -> Result<()> {
        self.writable()?;
        let unit = daos_types::BLOCK_BYTES as u64;
        if chunk_bytes.is_some_and(|n| n == 0 || n % unit != 0 || n > ARRAY_OFFSET_MAX) {
            return Err(Error::Invalid("a chunk is a multiple of 4096 bytes, at most 256 TiB"));
        }
        let before = self.getattr(ino).await?;
        if !matches!(before.kind, Kind::File | Kind::Directory) {
            return Err(Error::Invalid("only files and directories have a chunk size"));
        }
        if before.kind == Kind::File && (before.size, before.blocks) != (0, 0) {
            return Err(NOT_EMPTY);
        }
        let is_file = before.kind == Kind::File;
        let default = if is_file { self.superblock.chunk_bytes } else { 0 };
        self.change_record(ino, None, |change, _, record| {
            if is_file {
                if record.size_floor != 0 {
                    return Err(NOT_EMPTY);
                }
                let (object, akey) = (record.oid, keys::DATA.into());
                let empty = Condition::ArrayEnd { object, akey, dkey: 0, end: 0 };
                change.demand(empty, NOT_EMPTY);
            }
            record.chunk_bytes = chunk_bytes.unwrap_or(default);
            Ok(())
        })
        .await
    }
}
