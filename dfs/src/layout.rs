//! How an inode's data is laid out: its object, its class, and the bytes of a chunk. `daos fs get-attr|set-attr|reset-attr`.

use std::sync::Arc;

use daos_types::ObjectId;
use daos_types::rpc::{ARRAY_OFFSET_MAX, Condition};

use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::lock::How;
use crate::mount::Dfs;
use crate::record::Record;
use crate::table::Loaded;
use crate::{Error, Ino, Kind, Result, Time};

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
        let inode = self.inode(ino)?;
        let _turn = inode.turn(How::Exclusive).await;
        for _ in 0..TRIES_MAX {
            let old = self.load(&inode).await?;
            let place = Place::of(&old.home, ino, self.lease).ok_or(Error::Stale)?;
            let is_file = before.kind == Kind::File;
            if is_file && old.record.size_floor != 0 {
                return Err(NOT_EMPTY);
            }
            let default = if is_file { self.superblock.chunk_bytes } else { 0 };
            let record = Record {
                version: old.record.version + 1,
                ctime: Time::from_nanos(self.now()),
                chunk_bytes: chunk_bytes.unwrap_or(default),
                ..Record::clone(&old.record)
            };
            let mut change = Change::new();
            change.expect_record(&place, &old.record);
            if is_file {
                let (object, akey) = (record.oid, keys::DATA.into());
                let empty = Condition::ArrayEnd { object, akey, dkey: 0, end: 0 };
                change.demand(empty, NOT_EMPTY);
            }
            change.put_record(&place, &record);
            if change.commit(&self.container).await?.is_some() {
                inode.learn(Loaded { home: old.home, record: Arc::new(record) });
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }
}
