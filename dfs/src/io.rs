//! Bytes of files: read and write. A write needs no change of the inode's record; size and mtime follow from the data.
//!
//! # Order
//! Reads and writes take a shared turn, so a truncate is before or after all of each; an append takes an exclusive one,
//! and proves the end that it saw.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use daos_types::Epoch;
use daos_types::rpc::{Condition, DATA_BYTES_MAX, FetchPart, Fetched, OPS_MAX, ObjectInfo, Op};

use crate::attr::data_key;
use crate::cache::whole_pages;
use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::load::{data_end, file_size, object_part, read_object};
use crate::lock::How;
use crate::mount::Dfs;
use crate::privilege::Lost;
use crate::record::Record;
use crate::table::{Facts, Home, Inode, Loaded};
use crate::{Error, FILE_BYTES_MAX, Handle, Ino, Kind, Result};

/// Most pieces in one request: what a request may have, less what else it carries.
const PIECES_MAX: usize = OPS_MAX - 4;

/// What was added to the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub bytes: usize,
    /// Of the file, right behind them.
    pub end: u64,
}

/// A part of a file that lies in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) chunk: u64,
    /// In the chunk.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The parts of `len` bytes from `offset`, chunk by chunk.
pub(crate) fn pieces(chunk_bytes: u64, offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (chunk, offset) = (at / chunk_bytes, at % chunk_bytes);
        let len = (chunk_bytes - offset).min(end - at);
        at += len;
        Some(Piece { chunk, offset, len })
    })
}

impl Dfs {
    /// At most `len` bytes (at most 4 MiB) from `offset`; fewer only at the end of the file. Handle 0 reads without one.
    pub async fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize) -> Result<Bytes> {
        let read = self.read_range(ino, handle, offset, len).await;
        if let Err(error) = &read {
            Box::pin(self.tell_damage(crate::keys::file_oid(ino), error)).await;
        }
        read
    }

    async fn read_range(&self, ino: Ino, handle: Handle, offset: u64, len: usize) -> Result<Bytes> {
        let inode = self.inode(ino)?;
        let turn = inode.turn(How::Shared).await;
        let loaded = self.file(&inode).await?;
        let record = &*loaded.record;
        let len = (len.min(DATA_BYTES_MAX) as u64).min(FILE_BYTES_MAX.saturating_sub(offset));
        let known = match inode.size_facts() {
            Some(Facts::File(info)) if self.cache_attributes => Some(info),
            _ => None,
        };
        // When the size is known only what is there is asked for; else size and data come together.
        let (data, info) = match known {
            None => Box::pin(self.read_with_size(&inode, record, offset, len)).await?,
            Some(info) => {
                let len = len.min(file_size(record, &info).saturating_sub(offset));
                let range = offset..offset + len;
                let data = match self.cache.takes(len) {
                    true => self.read_cached(&inode, record, range).await?,
                    false => self.fetch_range(record, range).await?,
                };
                (data, info)
            }
        };
        let noted = self.was_read(&inode, &loaded, Facts::File(info), handle);
        drop(turn);
        if noted {
            self.store_enough_atimes().await;
        }
        Ok(data)
    }

    async fn read_with_size(
        &self,
        inode: &Inode,
        record: &Record,
        offset: u64,
        len: u64,
    ) -> Result<(Bytes, ObjectInfo)> {
        let generation = inode.generation();
        let pieces: Vec<Piece> = pieces(record.chunk_bytes, offset, len).collect();
        let mut batches = pieces.chunks(PIECES_MAX);
        let mut parts = read_parts(record, batches.next().unwrap_or_default());
        parts.push(object_part(record.oid));
        let mut fetched = self.container.fetch(parts).await?;
        let info = read_object(fetched.pop())?;
        inode.learn_facts(generation, Facts::File(info));
        for batch in batches {
            fetched.extend(self.container.fetch(read_parts(record, batch)).await?);
        }
        let mut data = join(fetched)?;
        let left = file_size(record, &info).saturating_sub(offset);
        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        Ok((data, info))
    }

    /// A read through the data cache; the caller holds a shared turn.
    async fn read_cached(
        &self,
        inode: &Inode,
        record: &Record,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let era = inode.cached_era(&range);
        if let Some(found) = era.and_then(|era| self.cache.read(inode.ino, era, &range)) {
            return Ok(found);
        }
        let generation = inode.generation();
        let pages = whole_pages(&range);
        let data = self.fetch_range(record, pages.clone()).await?;
        inode.cacheable(generation, &range, |era| {
            self.cache.keep(inode.ino, era, pages.start, &data);
        });
        let skip = (range.start - pages.start) as usize;
        Ok(data.slice(skip..skip + (range.end - range.start) as usize))
    }

    async fn fetch_range(&self, record: &Record, range: Range<u64>) -> Result<Bytes> {
        let len = range.end - range.start;
        let pieces: Vec<Piece> = pieces(record.chunk_bytes, range.start, len).collect();
        let mut fetched = Vec::new();
        for batch in pieces.chunks(PIECES_MAX) {
            fetched.extend(self.container.fetch(read_parts(record, batch)).await?);
        }
        join(fetched)
    }

    /// Writes `data` (at most its first 4 MiB, and 60 chunks), all or nothing, and says how much. `append`: at the end, wherever that is;
    /// `kill_priv`: set-id bits go first. Handle 0 writes without one.
    pub async fn write(
        &self,
        ino: Ino,
        _handle: Handle,
        offset: u64,
        data: Bytes,
        append: bool,
        kill_priv: bool,
    ) -> Result<usize> {
        self.writable()?;
        if data.is_empty() {
            return Ok(0);
        }
        let inode = self.inode(ino)?;
        self.lose(&inode, Lost::by_bytes(kill_priv)).await?;
        if append {
            return Ok(self.append_to(&inode, data).await?.bytes);
        }
        let _turn = inode.turn(How::Shared).await;
        let loaded = self.file(&inode).await?;
        let data = fitting(loaded.record.chunk_bytes, offset, data)?;
        let change = write_change(&loaded.record, offset, &data);
        let writing = inode.writing(&self.cache, offset..offset + data.len() as u64);
        let generation = inode.generation();
        let Some((epoch, stored)) = change.commit_and_tell(&self.container).await? else {
            return Err(Error::Protocol { asked: "write without conditions" });
        };
        let end = offset + data.len() as u64;
        note_written(&inode, &loaded.record, end, epoch, (generation, stored));
        drop(writing);
        Ok(data.len())
    }

    /// As `write` with `append`, which also says where that was.
    pub async fn append(&self, ino: Ino, data: Bytes, kill_priv: bool) -> Result<Appended> {
        self.writable()?;
        if data.is_empty() {
            return Err(Error::Invalid("nothing to append"));
        }
        let inode = self.inode(ino)?;
        self.lose(&inode, Lost::by_bytes(kill_priv)).await?;
        self.append_to(&inode, data).await
    }

    async fn append_to(&self, inode: &Arc<Inode>, data: Bytes) -> Result<Appended> {
        let _turn = inode.turn(How::Exclusive).await;
        for _ in 0..TRIES_MAX {
            let loaded = self.file(inode).await?;
            let record = &*loaded.record;
            let Facts::File(info) = self.facts(inode, &loaded).await? else {
                return Err(Error::IsDirectory);
            };
            let offset = file_size(record, &info);
            let data = fitting(record.chunk_bytes, offset, data.clone())?;
            let mut change = write_change(record, offset, &data);
            expect_end(&mut change, record, &info);
            if record.size_floor > data_end(record, &info) {
                let place = Place::of(&loaded.home, inode.ino, self.lease).ok_or(Error::Stale)?;
                change.expect_record(&place, record);
            }
            let writing = inode.writing(&self.cache, offset..offset + data.len() as u64);
            let generation = inode.generation();
            if let Some((epoch, stored)) = change.commit_and_tell(&self.container).await? {
                let end = offset + data.len() as u64;
                note_written(inode, record, end, epoch, (generation, stored));
                return Ok(Appended { bytes: data.len(), end });
            }
            drop(writing);
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// The record of an inode with bytes.
    pub(crate) async fn file(&self, inode: &Inode) -> Result<Loaded> {
        let loaded = self.load(inode).await?;
        match (loaded.record.kind(), &loaded.home) {
            (_, Home::Gone) => Err(Error::Stale),
            (Kind::File, _) => Ok(loaded),
            (Kind::Directory, _) => Err(Error::IsDirectory),
            _ => Err(Error::Invalid("not a regular file")),
        }
    }
}

/// As much of `data` as may be in a file, and in one transaction.
fn fitting(chunk_bytes: u64, offset: u64, mut data: Bytes) -> Result<Bytes> {
    let room = FILE_BYTES_MAX.saturating_sub(offset);
    if room == 0 {
        return Err(Error::FileTooLarge);
    }
    let pieces = chunk_bytes.saturating_mul(PIECES_MAX as u64) - offset % chunk_bytes;
    let most = room.min(pieces).min(DATA_BYTES_MAX as u64);
    data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(data)
}

fn read_parts(record: &Record, batch: &[Piece]) -> Vec<FetchPart> {
    let part = |piece: &Piece| FetchPart::Array {
        key: data_key(record, piece.chunk),
        offset: piece.offset,
        len: piece.len,
    };
    batch.iter().map(part).collect()
}

fn write_change(record: &Record, offset: u64, data: &Bytes) -> Change {
    let mut change = Change::new();
    let mut at = 0;
    for piece in pieces(record.chunk_bytes, offset, data.len() as u64) {
        let end = at + piece.len as usize;
        change.push(Op::UpdateArray {
            key: data_key(record, piece.chunk),
            offset: piece.offset,
            data: data.slice(at..end),
        });
        at = end;
    }
    change
}

/// The data still ends where it did.
pub(crate) fn expect_end(change: &mut Change, record: &Record, info: &ObjectInfo) {
    let (dkey, end) = info.array_end;
    change.expect(Condition::ArrayEnd { object: record.oid, akey: keys::DATA.into(), dkey, end });
}

/// An own write ended at `end`: size and data epoch are known without asking; so is the space, if it was told and nothing else changed
/// the file since `generation`.
fn note_written(
    inode: &Inode,
    record: &Record,
    end: u64,
    epoch: Epoch,
    (generation, stored): (u64, Option<u64>),
) {
    let last = (end - 1) / record.chunk_bytes;
    let array_end = (last + 1, end - last * record.chunk_bytes);
    inode.wrote(generation, stored, |info| ObjectInfo {
        data_epoch: info.data_epoch.max(epoch),
        array_end: info.array_end.max(array_end),
        stored_bytes: info.stored_bytes,
    });
}

/// The pieces of a read in one run; without a copy when there is one.
fn join(fetched: Vec<Fetched>) -> Result<Bytes> {
    let array = |fetched| match fetched {
        Fetched::Array(bytes) => Ok(bytes),
        _ => Err(Error::Protocol { asked: "array" }),
    };
    let mut arrays = fetched.into_iter().map(array).collect::<Result<Vec<Bytes>>>()?;
    if arrays.len() == 1 {
        return Ok(arrays.pop().expect("there is one"));
    }
    let mut joined = BytesMut::with_capacity(arrays.iter().map(Bytes::len).sum());
    arrays.iter().for_each(|array| joined.extend_from_slice(array));
    Ok(joined.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_chunk_borders() {
        let all: Vec<_> = pieces(10, 8, 15).collect();
        let expected = [
            Piece { chunk: 0, offset: 8, len: 2 },
            Piece { chunk: 1, offset: 0, len: 10 },
            Piece { chunk: 2, offset: 0, len: 3 },
        ];
        assert_eq!(all, expected);
        assert_eq!(pieces(10, 8, 0).count(), 0);
    }

    #[test]
    fn writes_stop_at_the_largest_file() {
        let data = Bytes::from_static(b"abcdef");
        assert_eq!(fitting(10, FILE_BYTES_MAX - 2, data.clone()).unwrap().len(), 2);
        assert_eq!(fitting(10, FILE_BYTES_MAX, data), Err(Error::FileTooLarge));
    }

    #[test]
    fn writes_stop_where_a_transaction_is_full() {
        let data = Bytes::from(vec![0; 10_000]);
        let fits = fitting(10, 7, data).unwrap().len() as u64;
        assert_eq!(pieces(10, 7, fits).count(), PIECES_MAX);
    }
}
