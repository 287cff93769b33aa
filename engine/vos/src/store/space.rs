//! Which blocks are free: the segment table and what memory adds to it.
//!
//! A block is *allocated* when its bit is set in the table, *held* when memory says that it may not be given out although
//! its bit is clear (reserved, or freed and in quarantine), else *available*. Buckets are four aligned blocks.
//! Data and metadata keep to segments of their own while there are any, and share when there are none.
//!
//! # Invariants
//! 1. A segment's summary counts its available blocks exactly, and its available aligned groups of four from below.
//! 2. A freed block is available again only when the freeing record is at or below the *persisted* mark (so no replay can
//!    bring back what referred to it, nor verify data in it), no read that began before the free is under way, and, for a
//!    bucket, the strip batch that may have held it is known to be home; and no write of it is in flight (somebody may have
//!    begun to fill allocated blocks, and given up).
//! 3. No segment at or above `granted` is given out: the host has not promised its space yet.
//!
//! # On disk
//! FORMAT.md, "Segment table".

use std::collections::VecDeque;

use daos_media::label::{Area, SEGMENT_BYTES};
use daos_types::BLOCK_BYTES;

use super::arena::IdMap;
use super::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId};

pub(super) const SEGMENT_BLOCKS: u32 = (SEGMENT_BYTES / BLOCK_BYTES as u64) as u32;
pub(super) const ENTRY_BYTES: usize = 48;
/// Bytes of an entry that hold the bitmap; the kind follows.
pub(super) const BITMAP_BYTES: usize = 32;
pub(super) const ENTRIES_PER_BUCKET: u32 =
    ((BUCKET_BYTES - BUCKET_HEADER_BYTES) / ENTRY_BYTES) as u32;
/// Segments that the host is asked for at a time.
pub(super) const GRANT_SEGMENTS: u32 = 64;
/// Blocks of the longest extent: a shorter rest of a segment is not worth a run of its own.
const RUN_BLOCKS_WISHED: u32 = 32;

const _: () = assert!(SEGMENT_BLOCKS as usize == BITMAP_BYTES * 8);

/// One bit per block of a segment.
pub(super) type Bits = [u64; 4];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum SegmentKind {
    Free = 0,
    Data = 1,
    Meta = 2,
}

/// A segment's entry in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) allocated: Bits,
    pub(super) kind: SegmentKind,
}

impl Entry {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| super::bytes::get_u64(bytes, 8 * index);
        let kind = match bytes[BITMAP_BYTES] {
            0 => SegmentKind::Free,
            1 => SegmentKind::Data,
            2 => SegmentKind::Meta,
            _ => return None,
        };
        Some(Self { allocated: [word(0), word(1), word(2), word(3)], kind })
    }
}

/// What memory knows of a segment.
#[derive(Clone, Copy, Debug)]
struct Summary {
    free: u16,
    groups: u8,
    kind: SegmentKind,
}

/// Blocks freed and not available yet; invariant 2.
struct Quarantined {
    lsn: Lsn,
    strip: u64,
    run: BlockRun,
}

pub(super) struct Space {
    area: Area,
    table: BucketId,
    segments: u32,
    summaries: Vec<Summary>,
    held: IdMap<u32, Bits>,
    quarantine: VecDeque<Quarantined>,
    quarantined_blocks: u64,
    available: u64,
    free_segments: u32,
    /// Available groups in segments of kind `Meta`.
    meta_groups: u64,
    /// Blocks in segments of kind `Meta` that are not available.
    meta_blocks: u64,
    granted: u32,
    data_cursor: u32,
    meta_cursor: u32,
    reserve_segments: u32,
}

impl Space {
    /// With nothing available: the entries are yet to be told by [`Space::learn`].
    pub(super) fn new(area: Area) -> Self {
        let segments = u32::try_from(area.bytes / SEGMENT_BYTES).expect("devices end at 64 TiB");
        let nothing = Summary { free: 0, groups: 0, kind: SegmentKind::Meta };
        Self {
            area,
            table: BucketId((area.start / BUCKET_BYTES as u64) as u32),
            segments,
            summaries: vec![nothing; segments as usize],
            held: IdMap::default(),
            quarantine: VecDeque::new(),
            quarantined_blocks: 0,
            available: 0,
            free_segments: 0,
            meta_groups: 0,
            meta_blocks: u64::from(segments) * u64::from(SEGMENT_BLOCKS),
            granted: segments,
            data_cursor: 0,
            meta_cursor: 0,
            reserve_segments: (segments / 64).clamp(1, 64),
        }
    }

    pub(super) fn segments(&self) -> u32 {
        self.segments
    }

    /// Buckets that hold the table: the first of the space.
    pub(super) fn table_buckets(&self) -> u32 {
        self.segments.div_ceil(ENTRIES_PER_BUCKET)
    }

    /// The root bucket: the one after the table.
    pub(super) fn root(&self) -> BucketId {
        BucketId(self.table.0 + self.table_buckets())
    }

    pub(super) fn table_bucket(&self, index: u32) -> BucketId {
        BucketId(self.table.0 + index)
    }

    /// The bucket and offset of a segment's entry.
    pub(super) fn entry_place(&self, segment: u32) -> (BucketId, usize) {
        let bucket = BucketId(self.table.0 + segment / ENTRIES_PER_BUCKET);
        let at = BUCKET_HEADER_BYTES + (segment % ENTRIES_PER_BUCKET) as usize * ENTRY_BYTES;
        (bucket, at)
    }

    fn first_block(&self) -> u64 {
        self.area.start / BLOCK_BYTES as u64
    }

    /// The segment of a block, and the block's index in it.
    pub(super) fn segment_of(&self, block: BlockAddr) -> (u32, u32) {
        let index = block.0.checked_sub(self.first_block()).expect("the block is in the space");
        let segment = (index / u64::from(SEGMENT_BLOCKS)) as u32;
        assert!(segment < self.segments, "{block:?} is past the space");
        (segment, (index % u64::from(SEGMENT_BLOCKS)) as u32)
    }

    pub(super) fn segment_start(&self, segment: u32) -> BlockAddr {
        self.address(segment, 0)
    }

    fn address(&self, segment: u32, index: u32) -> BlockAddr {
        let block = u64::from(segment) * u64::from(SEGMENT_BLOCKS) + u64::from(index);
        BlockAddr(self.first_block() + block)
    }

    /// Cuts a run at segment borders: (segment, first index, blocks).
    pub(super) fn pieces(&self, run: BlockRun) -> impl Iterator<Item = (u32, u32, u32)> + use<> {
        let (mut segment, mut index) = self.segment_of(run.addr);
        let mut left = run.blocks;
        std::iter::from_fn(move || {
            let blocks = left.min(SEGMENT_BLOCKS - index);
            let piece = (segment, index, blocks);
            left -= blocks;
            (segment, index) = (segment + 1, 0);
            (blocks > 0).then_some(piece)
        })
    }

    /// Whether all of a run is in the space.
    pub(super) fn contains(&self, run: BlockRun) -> bool {
        let end = self.first_block() + u64::from(self.segments) * u64::from(SEGMENT_BLOCKS);
        run.addr.0 >= self.first_block() && run.end().0 <= end
    }

    /// Takes over a segment's entry at open; nothing is held then.
    pub(super) fn learn(&mut self, segment: u32, entry: Entry) {
        let available = entry.allocated.map(|word| !word);
        let free = count(available);
        let kind = if free == SEGMENT_BLOCKS { SegmentKind::Free } else { entry.kind };
        self.set(segment, Summary { free: free as u16, groups: groups(available), kind });
    }

    fn set(&mut self, segment: u32, new: Summary) {
        let old = std::mem::replace(&mut self.summaries[segment as usize], new);
        self.available = self.available + u64::from(new.free) - u64::from(old.free);
        self.free_segments -= u32::from(old.kind == SegmentKind::Free);
        self.free_segments += u32::from(new.kind == SegmentKind::Free);
        let meta = |summary: Summary| match summary.kind {
            SegmentKind::Meta => u64::from(summary.groups),
            _ => 0,
        };
        self.meta_groups = self.meta_groups + meta(new) - meta(old);
        let used = |summary: Summary| match summary.kind {
            SegmentKind::Meta => u64::from(SEGMENT_BLOCKS) - u64::from(summary.free),
            _ => 0,
        };
        self.meta_blocks = self.meta_blocks + used(new) - used(old);
    }

    /// Blocks that metadata uses: the table, buckets, and what of their segments is not available yet.
    pub(super) fn meta_blocks(&self) -> u64 {
        self.meta_blocks
    }

    fn available_in(&self, segment: u32, allocated: Bits) -> Bits {
        let held = self.held.get(&segment).copied().unwrap_or_default();
        std::array::from_fn(|word| !allocated[word] & !held[word])
    }

    /// After a visit of its entry: counts afresh what can be given out.
    pub(super) fn recount(&mut self, segment: u32, allocated: Bits) {
        let available = self.available_in(segment, allocated);
        let mut summary = self.summaries[segment as usize];
        assert_eq!(u32::from(summary.free), count(available), "invariant 1, segment {segment}");
        summary.groups = groups(available);
        self.set(segment, summary);
    }

    // Reserving data.

    /// Blocks that only deletes, truncates and reclaim may use.
    pub(super) fn reserve_blocks(&self) -> u64 {
        u64::from(self.reserve_segments) * u64::from(SEGMENT_BLOCKS)
    }

    fn may_open_free(&self, use_reserve: bool) -> bool {
        use_reserve || self.free_segments > self.reserve_segments
    }

    fn may_take(&self, blocks: u32, use_reserve: bool) -> bool {
        use_reserve || self.available >= self.reserve_blocks() + u64::from(blocks)
    }

    /// The segment to take data blocks from; `None` when there is none at hand.
    pub(super) fn choose_data(&mut self, wanted: u32, use_reserve: bool) -> Option<u32> {
        if !self.may_take(wanted, use_reserve) {
            return None;
        }
        let open_free = self.may_open_free(use_reserve);
        let wish = wanted.min(RUN_BLOCKS_WISHED) as u16;
        let fits = |summary: &Summary, wish: u16, meta: bool| {
            summary.free >= wish
                && (meta || summary.kind != SegmentKind::Meta)
                && (open_free || summary.kind != SegmentKind::Free)
        };
        for (wish, meta) in [(wish, false), (1, false), (1, true)] {
            let found = self.find(self.data_cursor, |summary| fits(summary, wish, meta));
            if let Some(segment) = found {
                self.data_cursor = segment;
                return Some(segment);
            }
        }
        None
    }

    /// The first segment from `cursor` on, going around, for which `fits`.
    fn find(&self, cursor: u32, fits: impl Fn(&Summary) -> bool) -> Option<u32> {
        let granted = &self.summaries[..self.granted as usize];
        let (before, after) = granted.split_at((cursor as usize).min(granted.len()));
        let found = after.iter().position(&fits).map(|index| index + before.len());
        found.or_else(|| before.iter().position(&fits)).map(|index| index as u32)
    }

    /// Reserves up to `wanted` blocks in a segment that [`Space::choose_data`] chose.
    pub(super) fn take_data(&mut self, segment: u32, allocated: Bits, wanted: u32) -> BlockRun {
        let available = self.available_in(segment, allocated);
        let (index, blocks) =
            best_run(available, wanted).expect("invariant 1: the segment has free blocks");
        self.hold_bits(segment, mask(index, blocks));
        let mut summary = self.summaries[segment as usize];
        summary.free -= blocks as u16;
        if summary.kind == SegmentKind::Free {
            summary.kind = SegmentKind::Data;
        }
        summary.groups = groups(self.available_in(segment, allocated));
        self.set(segment, summary);
        BlockRun::new(self.address(segment, index), blocks)
    }

    // Buckets.

    /// The segment to take a bucket from; `None` when there is none at hand.
    pub(super) fn choose_bucket(&mut self, use_reserve: bool) -> Option<u32> {
        if !self.may_take(BUCKET_BLOCKS as u32, use_reserve) {
            return None;
        }
        let current = self.summaries[self.meta_cursor as usize];
        if current.kind == SegmentKind::Meta && current.groups > 0 {
            return Some(self.meta_cursor);
        }
        let open_free = self.may_open_free(use_reserve);
        let meta = |summary: &Summary| summary.kind == SegmentKind::Meta && summary.groups > 0;
        let found = (self.meta_groups > 0).then(|| self.find(self.meta_cursor, meta)).flatten();
        let found = found.or_else(|| {
            let free = |summary: &Summary| open_free && summary.kind == SegmentKind::Free;
            self.find(0, free)
        });
        let found = found.or_else(|| {
            let any = |summary: &Summary| {
                summary.groups > 0 && (open_free || summary.kind != SegmentKind::Free)
            };
            self.find(0, any)
        });
        self.meta_cursor = found?;
        found
    }

    /// Takes a bucket in a segment that [`Space::choose_bucket`] chose; its bits are to be set in the table.
    pub(super) fn take_bucket(&mut self, segment: u32, allocated: Bits) -> BucketId {
        let available = self.available_in(segment, allocated);
        let index = first_group(available).expect("invariant 1: groups are counted from below");
        let mut summary = self.summaries[segment as usize];
        summary.free -= BUCKET_BLOCKS as u16;
        summary.groups = groups(available) - 1;
        if summary.kind == SegmentKind::Free {
            summary.kind = SegmentKind::Meta;
        }
        self.set(segment, summary);
        BucketId((self.address(segment, index).0 / BUCKET_BLOCKS) as u32)
    }

    /// A bucket that an undone run took.
    pub(super) fn untake_bucket(&mut self, bucket: BucketId) {
        self.add_available(bucket.run());
    }

    // Holding and releasing.

    /// Nobody may have these blocks although their bits are clear.
    pub(super) fn hold(&mut self, run: BlockRun) {
        for (segment, index, blocks) in self.pieces(run) {
            self.hold_bits(segment, mask(index, blocks));
        }
    }

    fn hold_bits(&mut self, segment: u32, bits: Bits) {
        let held = self.held.entry(segment).or_default();
        for (word, bit) in held.iter_mut().zip(bits) {
            assert_eq!(*word & bit, 0, "a block of segment {segment} is held twice");
            *word |= bit;
        }
    }

    /// The table speaks for these blocks again.
    pub(super) fn unhold(&mut self, run: BlockRun) {
        for (segment, index, blocks) in self.pieces(run) {
            let held = self.held.get_mut(&segment).expect("held");
            for (word, bit) in held.iter_mut().zip(mask(index, blocks)) {
                assert_eq!(*word & bit, bit, "a block of segment {segment} is not held");
                *word &= !bit;
            }
            if *held == [0; 4] {
                self.held.remove(&segment);
            }
        }
    }

    pub(super) fn is_held(&self, run: BlockRun) -> bool {
        self.pieces(run).all(|(segment, index, blocks)| {
            let held = self.held.get(&segment).copied().unwrap_or_default();
            mask(index, blocks).iter().zip(held).all(|(bit, word)| word & bit == *bit)
        })
    }

    /// Held blocks become available: a reservation was cancelled, or a quarantine ended.
    pub(super) fn release(&mut self, run: BlockRun) {
        self.unhold(run);
        self.add_available(run);
    }

    fn add_available(&mut self, run: BlockRun) {
        for (segment, index, blocks) in self.pieces(run) {
            let mut summary = self.summaries[segment as usize];
            summary.free += blocks as u16;
            // Whole groups are certain; parts of groups wait for the next visit of the entry.
            let end = (index + blocks) / BUCKET_BLOCKS as u32;
            let start = index.div_ceil(BUCKET_BLOCKS as u32);
            summary.groups += end.saturating_sub(start) as u8;
            if u32::from(summary.free) == SEGMENT_BLOCKS {
                summary.kind = SegmentKind::Free;
                summary.groups = (SEGMENT_BLOCKS / BUCKET_BLOCKS as u32) as u8;
            }
            self.set(segment, summary);
        }
    }

    /// Blocks freed by transaction `lsn`, held since. `strip`: newest batch that may have an image of it.
    pub(super) fn quarantine(&mut self, run: BlockRun, lsn: Lsn, strip: u64) {
        self.quarantined_blocks += u64::from(run.blocks);
        self.quarantine.push_back(Quarantined { lsn, strip, run });
    }

    /// Lets go of what invariant 2 allows; whether anything was. `busy`: a write of the blocks is in flight still.
    pub(super) fn end_quarantine(
        &mut self,
        persisted: Lsn,
        strip_done: u64,
        reader: Option<Lsn>,
        busy: impl Fn(BlockRun) -> bool,
    ) -> bool {
        let mut any = false;
        while let Some(first) = self.quarantine.front() {
            let read = reader.is_some_and(|reader| reader < first.lsn);
            if first.lsn > persisted || first.strip > strip_done || read || busy(first.run) {
                break;
            }
            let run = first.run;
            self.quarantine.pop_front();
            self.quarantined_blocks -= u64::from(run.blocks);
            self.release(run);
            any = true;
        }
        any
    }

    /// What has to be persisted for the whole quarantine to end: LSN and strip batch.
    pub(super) fn quarantined_up_to(&self) -> Option<(Lsn, u64)> {
        self.quarantine.back().map(|last| (last.lsn, last.strip))
    }

    // The host's promise.

    /// Segments below are the host's promise; the store begins with what it has used.
    pub(super) fn set_granted(&mut self, segments: u32) {
        self.granted = segments.min(self.segments);
    }

    pub(super) fn granted(&self) -> u32 {
        self.granted
    }

    /// One past the last segment with anything in it.
    pub(super) fn used_segments(&self) -> u32 {
        let used = |summary: &Summary| summary.kind != SegmentKind::Free;
        self.summaries.iter().rposition(used).map_or(0, |last| last as u32 + 1)
    }

    /// Whether the host should be asked for more soon.
    pub(super) fn grant_wanted(&self) -> bool {
        let ahead = self.granted.saturating_sub(self.data_cursor.max(self.meta_cursor));
        self.granted < self.segments && ahead < GRANT_SEGMENTS / 4
    }

    /// Byte range of the next step of the host's promise.
    pub(super) fn next_grant(&self) -> Option<(u32, u64, u64)> {
        let end = (self.granted + GRANT_SEGMENTS).min(self.segments);
        let bytes = |segment: u32| u64::from(segment) * SEGMENT_BYTES;
        let start = self.area.start + bytes(self.granted);
        (end > self.granted).then(|| (end, start, bytes(end) - bytes(self.granted)))
    }

    // Looking.

    /// Segments that may hold aligned groups that are not counted.
    pub(super) fn uncounted(&self, from: u32) -> Option<u32> {
        let hidden =
            |summary: &Summary| summary.groups == 0 && u64::from(summary.free) >= BUCKET_BLOCKS;
        let range = from.min(self.granted) as usize..self.granted as usize;
        self.summaries[range].iter().position(hidden).map(|index| from + index as u32)
    }

    pub(super) fn has_groups(&self, segment: u32) -> bool {
        self.summaries[segment as usize].groups > 0
    }

    /// All blocks.
    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.segments) * u64::from(SEGMENT_BLOCKS)
    }

    pub(super) fn available(&self) -> u64 {
        self.available
    }

    pub(super) fn quarantined(&self) -> u64 {
        self.quarantined_blocks
    }

    /// Available blocks and held bits of a segment.
    #[cfg(test)]
    pub(super) fn summary(&self, segment: u32) -> (u32, Bits) {
        let held = self.held.get(&segment).copied().unwrap_or_default();
        (u32::from(self.summaries[segment as usize].free), held)
    }
}

/// `blocks` bits from `index` on.
pub(super) fn mask(index: u32, blocks: u32) -> Bits {
    assert!(index + blocks <= SEGMENT_BLOCKS);
    std::array::from_fn(|word| {
        let start = index.max(word as u32 * 64);
        let end = (index + blocks).min(word as u32 * 64 + 64);
        match end.checked_sub(start) {
            None | Some(0) => 0,
            Some(64) => u64::MAX,
            Some(bits) => ((1 << bits) - 1) << (start % 64),
        }
    })
}

pub(super) fn count(bits: Bits) -> u32 {
    bits.iter().map(|word| word.count_ones()).sum()
}

/// Aligned groups of four set bits, one bit for each at the group's first.
fn group_starts(word: u64) -> u64 {
    word & word >> 1 & word >> 2 & word >> 3 & 0x1111_1111_1111_1111
}

fn groups(bits: Bits) -> u8 {
    bits.iter().map(|word| group_starts(*word).count_ones() as u8).sum()
}

fn first_group(bits: Bits) -> Option<u32> {
    bits.iter().zip(0..).find_map(|(word, index)| {
        let starts = group_starts(*word);
        (starts != 0).then(|| index * 64 + starts.trailing_zeros())
    })
}

/// The first run of at least `wanted` set bits, cut to it, else the longest run.
fn best_run(bits: Bits, wanted: u32) -> Option<(u32, u32)> {
    let mut best: Option<(u32, u32)> = None;
    let mut index = 0;
    while index < SEGMENT_BLOCKS {
        let word = bits[index as usize / 64] >> (index % 64);
        if word == 0 {
            index = (index / 64 + 1) * 64;
            continue;
        }
        if word & 1 == 0 {
            index += word.trailing_zeros();
            continue;
        }
        let start = index;
        while index < SEGMENT_BLOCKS && index - start < wanted {
            let ones = (bits[index as usize / 64] >> (index % 64)).trailing_ones();
            index += ones;
            if ones == 0 || !index.is_multiple_of(64) {
                break;
            }
        }
        let blocks = (index - start).min(wanted);
        if blocks == wanted {
            return Some((start, blocks));
        }
        if best.is_none_or(|(_, longest)| blocks > longest) {
            best = Some((start, blocks));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { start: 16 << 20, bytes: 8 << 20 };

    fn space() -> Space {
        let mut space = Space::new(AREA);
        for segment in 0..8 {
            space.learn(segment, Entry { allocated: [0; 4], kind: SegmentKind::Free });
        }
        space
    }

    #[test]
    fn runs_are_found_like_a_bit_by_bit_search_would() {
        let mut random = daos_xstream::Random::from_seed(4);
        for _ in 0..2000 {
            let spread = random.below(4);
            let bits: Bits = std::array::from_fn(|_| match spread {
                0 => random.next_u64() & random.next_u64(),
                1 => random.next_u64() | random.next_u64() | random.next_u64(),
                2 => u64::MAX,
                _ => random.next_u64() & random.next_u64() & random.next_u64(),
            });
            let wanted = random.below(256) as u32 + 1;
            let set = |index: u32| bits[index as usize / 64] >> (index % 64) & 1 == 1;
            let mut runs = Vec::new();
            let mut start = 0;
            while start < 256 {
                let end = (start..256).find(|index| !set(*index)).unwrap_or(256);
                if end > start {
                    runs.push((start, end - start));
                }
                start = end + 1;
            }
            let enough = runs.iter().find(|run| run.1 >= wanted).map(|run| (run.0, wanted));
            let longest = runs.iter().map(|run| run.1).max();
            let found = best_run(bits, wanted);
            match enough {
                Some(run) => assert_eq!(found, Some(run)),
                None => assert_eq!(found.map(|run| run.1), longest),
            }
        }
    }

    #[test]
    fn reserved_blocks_come_back_and_data_and_buckets_keep_apart() {
        let mut space = space();
        let before = space.available();
        let segment = space.choose_data(10, false).unwrap();
        let run = space.take_data(segment, [0; 4], 10);
        assert_eq!(run.blocks, 10);
        assert!(space.is_held(run));
        let other = space.choose_bucket(false).unwrap();
        assert_ne!(segment, other);
        let bucket = space.take_bucket(other, [0; 4]);
        assert_eq!(space.segment_of(bucket.run().addr).0, other);
        assert_eq!(space.available(), before - 14);
        space.release(run);
        space.untake_bucket(bucket);
        assert_eq!(space.available(), before);
        assert_eq!(space.free_segments, 8);
    }

    #[test]
    fn the_reserve_is_for_deletes_only() {
        let mut space = space();
        let mut taken = Vec::new();
        while let Some(segment) = space.choose_data(256, false) {
            taken.push(space.take_data(segment, [0; 4], 256));
        }
        assert_eq!(taken.len(), 7, "one of eight segments is the reserve");
        assert!(space.choose_bucket(false).is_none());
        let segment = space.choose_bucket(true).unwrap();
        space.take_bucket(segment, [0; 4]);
    }

    #[test]
    fn freed_blocks_wait_for_mark_strip_and_readers() {
        let mut space = space();
        let segment = space.choose_data(5, false).unwrap();
        let run = space.take_data(segment, [0; 4], 5);
        space.quarantine(run, Lsn(7), 3);
        assert!(!space.end_quarantine(Lsn(6), 3, None, |_| false));
        assert!(!space.end_quarantine(Lsn(7), 2, None, |_| false));
        assert!(
            !space.end_quarantine(Lsn(7), 3, Some(Lsn(6)), |_| false),
            "a reader may still see it"
        );
        assert!(!space.end_quarantine(Lsn(7), 3, None, |busy| busy == run));
        assert!(space.is_held(run));
        assert!(space.end_quarantine(Lsn(7), 3, Some(Lsn(7)), |_| false));
        assert!(!space.is_held(run));
    }

    #[test]
    fn nothing_is_given_out_that_the_host_has_not_granted() {
        let mut space = space();
        space.set_granted(2);
        let mut segments = Vec::new();
        while let Some(segment) = space.choose_data(256, false) {
            space.take_data(segment, [0; 4], 256);
            segments.push(segment);
        }
        assert_eq!(segments, [0, 1]);
        assert_eq!(space.next_grant(), Some((8, (16 << 20) + (2 << 20), 6 << 20)));
    }

    #[test]
    fn groups_hidden_between_single_blocks_are_found_by_a_recount() {
        let mut space = space();
        let segment = space.choose_data(256, false).unwrap();
        let run = space.take_data(segment, [0; 4], 256);
        for block in [0, 1, 2, 3] {
            space.release(run.part(block, 1));
        }
        assert_eq!(space.uncounted(0), Some(segment));
        space.recount(segment, [0; 4]);
        assert!(space.has_groups(segment));
        assert_eq!(space.uncounted(0), None);
    }
}
