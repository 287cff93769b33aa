//! Space: statfs, fallocate, and where data and holes are.

use std::ops::Range;
use std::sync::Arc;

use daos_types::rpc::{ExtentInfo, ObjectInfo, Op};

use crate::attr::data_key;
use crate::change::{Change, Place, TRIES_MAX};
use crate::io::{Piece, expect_end, pieces};
use crate::keys;
use crate::load::file_size;
use crate::lock::How;
use crate::mount::Dfs;
use crate::privilege::Lost;
use crate::record::Record;
use crate::table::{Facts, Inode, Loaded};
use crate::{Error, FILE_BYTES_MAX, Ino, NAME_BYTES_MAX, Result, Seek, Space, Time};

/// Unit of `statfs`.
const BLOCK_BYTES: u32 = 4096;
/// Chunks that one transaction of a fallocate touches.
const BATCH: usize = 24;
/// Extents asked for at a time.
const EXTENTS: u32 = 256;

/// What a fallocate does to its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    punch: bool,
    allocate: bool,
    keep_size: bool,
}

impl Dfs {
    /// Space of the store, or the container's quota; without one inodes are bounded by space only.
    pub async fn statfs(&self) -> Result<Space> {
        let usage = self.container.client().total_usage().await?;
        let container = self.container.query().await?;
        let quota = container.quota;
        // An empty file takes this much at least; so many more could be made.
        let mut inodes_free = usage.free / 512;
        if quota.inodes > 0 {
            inodes_free = inodes_free.min(quota.inodes.saturating_sub(container.objects));
        }
        let left = quota.bytes.saturating_sub(container.stored_bytes);
        let (capacity, free, available) = match quota.bytes {
            0 => (usage.capacity, usage.free + usage.reserve, usage.free),
            bytes => (bytes, left, left.min(usage.free)),
        };
        Ok(Space {
            capacity,
            free,
            available,
            block_bytes: BLOCK_BYTES,
            inodes: container.objects + inodes_free,
            inodes_free,
            name_bytes_max: NAME_BYTES_MAX as u32,
        })
    }

    /// `mode`: `FALLOC_FL_*`. Allocate, punch a hole, zero a range, each with or without keeping the size as POSIX allows.
    /// `kill_priv`: set-id bits go.
    pub async fn fallocate(
        &self,
        ino: Ino,
        mode: i32,
        offset: u64,
        len: u64,
        kill_priv: bool,
    ) -> Result<()> {
        self.writable()?;
        let plan = plan(mode)?;
        if len == 0 {
            return Err(Error::Invalid("an empty range"));
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Error::FileTooLarge)?;
        self.reshape(ino, plan, offset..end, kill_priv).await
    }

    /// Makes a hole of a range of a file, which is then at least as long as to its end: the copy of a hole.
    pub(crate) async fn dig(&self, ino: Ino, range: Range<u64>, kill_priv: bool) -> Result<()> {
        if range.end > FILE_BYTES_MAX {
            return Err(Error::FileTooLarge);
        }
        let plan = Plan { punch: true, allocate: false, keep_size: false };
        self.reshape(ino, plan, range, kill_priv).await
    }

    async fn reshape(
        &self,
        ino: Ino,
        plan: Plan,
        range: Range<u64>,
        kill_priv: bool,
    ) -> Result<()> {
        let (offset, end, len) = (range.start, range.end, range.end - range.start);
        let inode = self.inode(ino)?;
        let _turn = inode.turn(How::Exclusive).await;
        let loaded = self.file(&inode).await?;
        if plan.allocate {
            self.check_room(&inode, &loaded, len).await?;
        }
        let ranges = if plan.allocate {
            pieces(loaded.record.chunk_bytes, offset, len).collect()
        } else {
            self.stored_pieces(&loaded.record, offset, end).await?
        };
        // Size and times first: whatever is cut short, no byte that was there moves past the end.
        let mut batches = ranges.chunks(BATCH);
        let first = batches.next().unwrap_or_default();
        let lost = || Lost::by_bytes(kill_priv);
        let mut done = self.fallocate_first(&inode, plan, end, first, lost()).await;
        let is_much = is_too_large(&done);
        if is_much {
            done = self.fallocate_first(&inode, plan, end, &[], lost()).await;
        }
        inode.change_facts(|_| None);
        inode.new_era();
        done?;
        if is_much {
            self.fallocate_pieces(&inode, &loaded.record, plan, first).await?;
        }
        for batch in batches {
            self.fallocate_pieces(&inode, &loaded.record, plan, batch).await?;
        }
        Ok(())
    }

    /// Later batches. One that is too much for one transaction (many small holes) is done in parts.
    async fn fallocate_pieces(
        &self,
        inode: &Inode,
        record: &Record,
        plan: Plan,
        batch: &[Piece],
    ) -> Result<()> {
        let mut waiting = vec![batch.to_vec()];
        while let Some(some) = waiting.pop() {
            let mut change = Change::new();
            push_pieces(&mut change, record, plan, &some);
            let done = change.commit(&self.container).await;
            inode.change_facts(|_| None);
            inode.new_era();
            match (is_too_large(&done), halves(&some)) {
                (true, Some((first, second))) => waiting.extend([second, first]),
                _ => drop(done?),
            }
        }
        Ok(())
    }

    /// Refuses what cannot fit before anything is done. What the file has already may be a part of it.
    async fn check_room(&self, inode: &Arc<Inode>, loaded: &Loaded, len: u64) -> Result<()> {
        let usage = self.container.client().total_usage().await?;
        let container = self.container.query().await?;
        let left = container.quota.bytes.saturating_sub(container.stored_bytes);
        let is_limited = container.quota.bytes > 0;
        if len <= usage.free && (len <= left || !is_limited) {
            return Ok(());
        }
        let Facts::File(info) = self.facts(inode, loaded).await? else { return Ok(()) };
        match len.saturating_sub(info.stored_bytes) {
            more if more > usage.free => Err(daos_types::Error::NoSpace.into()),
            more if more > left && is_limited => Err(daos_types::Error::Quota.into()),
            _ => Ok(()),
        }
    }

    /// The first batch, with the size that the file has in the end.
    async fn fallocate_first(
        &self,
        inode: &Arc<Inode>,
        plan: Plan,
        end: u64,
        batch: &[Piece],
        lost: Lost,
    ) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let old = self.file(inode).await?;
            let Facts::File(info) = self.facts(inode, &old).await? else {
                return Err(Error::IsDirectory);
            };
            let place = Place::of(&old.home, inode.ino, self.lease).ok_or(Error::Stale)?;
            let mut record = sized(&old.record, &info, plan, end, self.now());
            let mut change = Change::new();
            change.expect_record(&place, &old.record);
            expect_end(&mut change, &old.record, &info);
            lost.take(&mut record, &place, &mut change);
            change.put_record(&place, &record);
            push_pieces(&mut change, &record, plan, batch);
            if change.commit(&self.container).await?.is_some() {
                inode.learn(Loaded { home: old.home, record: Arc::new(record) });
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// The parts of a range where something is stored, one per chunk.
    async fn stored_pieces(&self, record: &Record, offset: u64, end: u64) -> Result<Vec<Piece>> {
        let mut found: Vec<Piece> = Vec::new();
        let mut at = offset;
        while at < end {
            let (stored, next) = self.stored_chunks(record, at).await?;
            for chunk in stored {
                let start = (chunk * record.chunk_bytes).max(offset);
                let stop = (chunk + 1).saturating_mul(record.chunk_bytes).min(end);
                let seen = found.last().is_some_and(|last| last.chunk >= chunk);
                if start < stop && !seen {
                    found.extend(pieces(record.chunk_bytes, start, stop - start));
                }
            }
            at = next;
        }
        Ok(found)
    }

    /// Chunks with something stored from `at` on, and where to go on (the end of the file's range when there are no more).
    async fn stored_chunks(&self, record: &Record, at: u64) -> Result<(Vec<u64>, u64)> {
        let extents = self.extents_from(record, at).await?;
        let mut chunks: Vec<u64> = extents.iter().map(|extent| extent.dkey - 1).collect();
        chunks.dedup();
        let more = extents.len() == EXTENTS as usize;
        let next = match chunks.last() {
            Some(last) if more => (last + 1).saturating_mul(record.chunk_bytes),
            _ => u64::MAX,
        };
        Ok((chunks, next))
    }

    async fn extents_from(&self, record: &Record, at: u64) -> Result<Vec<ExtentInfo>> {
        let from = (at / record.chunk_bytes + 1, at % record.chunk_bytes);
        let akey = keys::DATA.into();
        Ok(self.container.extents(record.oid, akey, from, EXTENTS).await?)
    }

    /// What a range of a file, which is inside its size, begins with. Holes that are not large count as data.
    pub(crate) async fn run_at(&self, record: &Record, range: Range<u64>) -> Result<Run> {
        let extents = self.extents_from(record, range.start).await?;
        let written = extents.iter().filter(|extent| extent.written).map(|extent| {
            let start = (extent.dkey - 1) * record.chunk_bytes + extent.offset;
            (start, start + extent.len)
        });
        let more = extents.len() == EXTENTS as usize;
        // Behind the last extent that is known there may be more data, or there is a hole.
        let end = if more { None } else { Some((range.end, range.end)) };
        Ok(first_run(written.chain(end), range))
    }

    /// The first byte at or after `offset` that is data, or in a hole. The end of the file is a hole. Allocated space that
    /// was never written is a hole.
    pub async fn lseek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        let inode = self.inode(ino)?;
        let _turn = inode.turn(How::Shared).await;
        let loaded = self.file(&inode).await?;
        let record = &*loaded.record;
        let Facts::File(info) = self.facts(&inode, &loaded).await? else {
            return Err(Error::IsDirectory);
        };
        let size = file_size(record, &info);
        if offset >= size {
            return Err(Error::NoSuchRange);
        }
        let mut at = offset;
        loop {
            let extents = self.extents_from(record, at).await?;
            for extent in extents.iter().filter(|extent| extent.written) {
                let start = (extent.dkey - 1) * record.chunk_bytes + extent.offset;
                let end = start + extent.len;
                match seek {
                    _ if end <= at => {}
                    Seek::Data if start < size => return Ok(start.max(at)),
                    Seek::Data => return Err(Error::NoSuchRange),
                    Seek::Hole if start > at => return Ok(at.min(size)),
                    Seek::Hole => at = end,
                }
            }
            let more = extents.len() == EXTENTS as usize;
            match (extents.last(), seek) {
                (Some(last), _) if more => {
                    at = at.max((last.dkey - 1) * record.chunk_bytes + last.offset + last.len);
                }
                (_, Seek::Data) => return Err(Error::NoSuchRange),
                (_, Seek::Hole) => return Ok(at.min(size)),
            }
            if at >= size {
                return match seek {
                    Seek::Data => Err(Error::NoSuchRange),
                    Seek::Hole => Ok(size),
                };
            }
        }
    }
}

/// What a range of a file begins with, and how long that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Run {
    Hole(u64),
    Data(u64),
}

/// A hole is worth an operation of its own from this size on.
pub(crate) const HOLE_BYTES_MIN: u64 = 64 << 10;

/// `written`: extents with data, in order.
fn first_run(written: impl Iterator<Item = (u64, u64)>, range: Range<u64>) -> Run {
    let mut at = range.start;
    for (start, end) in written {
        let start = start.min(range.end);
        if start.saturating_sub(at) >= HOLE_BYTES_MIN {
            let before = at - range.start;
            return if before == 0 { Run::Hole(start - at) } else { Run::Data(before) };
        }
        at = at.max(end).min(range.end);
    }
    // Extents that were only allocated may hide where data ends: then it is all taken for data.
    let known = if at > range.start { at } else { range.end };
    Run::Data(known - range.start)
}

fn plan(mode: i32) -> Result<Plan> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok(Plan { punch: false, allocate: true, keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => {
            Ok(Plan { punch: true, allocate: false, keep_size })
        }
        libc::FALLOC_FL_ZERO_RANGE => Ok(Plan { punch: true, allocate: true, keep_size }),
        libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE => {
            Err(Error::NotSupported("collapse and insert of ranges"))
        }
        _ => Err(Error::NotSupported("this mode of fallocate")),
    }
}

/// The record with the size that the file is to have: what it has now, or up to `end`.
fn sized(old: &Record, info: &ObjectInfo, plan: Plan, end: u64, now: u64) -> Record {
    let size = file_size(old, info);
    let size = if plan.keep_size { size } else { size.max(end) };
    let mut record = Record {
        version: old.version + 1,
        ctime: Time::from_nanos(now),
        size_floor: size,
        ..old.clone()
    };
    if plan.punch || size != file_size(old, info) {
        record.mtime = Time::from_nanos(now);
        record.mtime_epoch = info.data_epoch.0;
    }
    record
}

fn is_too_large<T>(done: &Result<T>) -> bool {
    matches!(done, Err(Error::Engine(daos_types::Error::TooLarge { .. })))
}

/// Pieces in two parts; `None`: it is a single block.
fn halves(pieces: &[Piece]) -> Option<(Vec<Piece>, Vec<Piece>)> {
    let [piece] = pieces else {
        let (first, second) = pieces.split_at(pieces.len() / 2);
        return Some((first.to_vec(), second.to_vec()));
    };
    let block = u64::from(BLOCK_BYTES);
    // The border of blocks that is nearest below the middle, or else the first one in the piece.
    let half = (piece.offset + piece.len / 2) / block * block;
    let middle = half.max((piece.offset / block + 1) * block);
    let first = middle - piece.offset;
    if first >= piece.len {
        return None;
    }
    let second = Piece { offset: middle, len: piece.len - first, ..*piece };
    Some((vec![Piece { len: first, ..*piece }], vec![second]))
}

fn push_pieces(change: &mut Change, record: &Record, plan: Plan, batch: &[Piece]) {
    for Piece { chunk, offset, len } in batch.iter().copied() {
        let key = data_key(record, chunk);
        if plan.punch {
            change.push(Op::PunchRange { key: key.clone(), offset, len });
        }
        if plan.allocate {
            change.push(Op::Allocate { key, offset, len });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_halved_down_to_a_block() {
        let mut some = vec![
            Piece { chunk: 3, offset: 100, len: 9000 },
            Piece { chunk: 4, offset: 0, len: 4096 },
        ];
        let mut found = Vec::new();
        let mut waiting = vec![std::mem::take(&mut some)];
        while let Some(pieces) = waiting.pop() {
            match halves(&pieces) {
                Some((first, second)) => waiting.extend([second, first]),
                None => found.extend(pieces.iter().map(|p| (p.chunk, p.offset, p.len))),
            }
        }
        assert_eq!(found, [(3, 100, 3996), (3, 4096, 4096), (3, 8192, 908), (4, 0, 4096)]);
    }

    #[test]
    fn only_large_holes_are_holes() {
        const H: u64 = HOLE_BYTES_MIN;
        let run = |written: &[(u64, u64)], range| first_run(written.iter().copied(), range);
        let end = (10 * H, 10 * H);
        assert_eq!(run(&[end], 0..10 * H), Run::Hole(10 * H));
        assert_eq!(run(&[(H, 2 * H), end], 0..10 * H), Run::Hole(H));
        assert_eq!(run(&[(H - 1, 2 * H), end], 0..10 * H), Run::Data(2 * H));
        assert_eq!(run(&[(0, 5), (H, 9 * H + 1), end], 3..10 * H), Run::Data(10 * H - 3));
        assert_eq!(run(&[(0, 20 * H)], H..2 * H), Run::Data(H));
        assert_eq!(run(&[(30 * H, 31 * H), end], H..3 * H), Run::Hole(2 * H));
        assert_eq!(run(&[], 0..10 * H), Run::Data(10 * H), "256 extents without data");
    }

    #[test]
    fn modes_that_have_no_meaning_are_refused_by_name() {
        assert!(plan(0).unwrap().allocate);
        assert!(plan(libc::FALLOC_FL_PUNCH_HOLE).is_err());
        assert!(plan(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).unwrap().punch);
        let zero = plan(libc::FALLOC_FL_ZERO_RANGE).unwrap();
        assert!(zero.punch && zero.allocate && !zero.keep_size);
        for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, 0x40] {
            assert!(matches!(plan(mode), Err(Error::NotSupported(_))));
        }
    }
}
