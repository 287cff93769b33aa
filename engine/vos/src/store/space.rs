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
//! 3. Only *granted* segments are given out: those whose space the host has promised. A free one may be returned to the
//!    host (`trim`), and is not granted from then on.
//! 4. What a [`Claim`] may not touch is left: `delete` segments for what gives back, `meta` segments for buckets, and of
//!    these `replace` segments for what takes the place of something.
//!
//! # Reserves
//! A bucket needs four aligned blocks. When files of single blocks are deleted or holes are punched, free space may have none,
//! and could not be used for want of metadata that says where it is. So data leaves some segments to buckets (one in
//! [`META_SHARE`]), and everything that grows leaves some to deletes (one in [`DELETE_SHARE`]). What replaces data that is
//! there gives back what it takes, a little later: it may take a part of the former in the meantime. Buckets that grow leave it
//! that part: names alone do not keep a full store from being overwritten.
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
/// Segments that the host is asked for at a time; when it has not so many, for fewer.
pub(super) const GRANT_SEGMENTS: u32 = 64;
/// Free segments that are not returned to the host: they will be needed soon. Tests have small devices.
const TRIM_KEEP: u32 = if cfg!(test) { 8 } else { 64 };
/// One segment in so many is for deletes, and one in so many for buckets; and at most this many segments are.
const DELETE_SHARE: u32 = 256;
const DELETE_SEGMENTS_MAX: u32 = 64;
/// Segments that are kept for deletes, at most, when the host has no more to give; twice as many for buckets.
const FULL_KEEP: u32 = 4;
const META_SHARE: u32 = 40;
const META_SEGMENTS_MAX: u32 = 2048;
/// Segments for buckets that data may take while what it replaces is not free yet, at most.
const REPLACE_SEGMENTS_MAX: u32 = 16;
/// Blocks of the longest extent: a shorter rest of a segment is not worth a run of its own.
const RUN_BLOCKS_WISHED: u32 = 32;

// The host is asked for more while there are so many.
const _: () = assert!(3 * FULL_KEEP < GRANT_SEGMENTS / 4);
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

/// Which part of the space a transaction may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Claim {
    /// Something new.
    #[default]
    Grow,
    /// Takes the place of something that is given back with it.
    Replace,
    /// Gives back more than it takes: deletes, truncates, reclaim.
    GiveBack,
}

/// What memory knows of a segment.
#[derive(Clone, Copy, Debug)]
struct Summary {
    free: u16,
    groups: u8,
    kind: SegmentKind,
    /// Invariant 3.
    granted: bool,
}

impl Summary {
    fn is_spare(&self) -> bool {
        self.granted && self.kind == SegmentKind::Free
    }
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
    /// Blocks that are held, for whatever reason.
    held_blocks: u64,
    available: u64,
    free_segments: u32,
    /// Available groups in segments of kind `Meta`.
    meta_groups: u64,
    /// Blocks in segments of kind `Meta` that are not available.
    meta_blocks: u64,
    /// Available blocks in segments that are granted.
    granted_available: u64,
    /// Free segments that are granted, and the fewest of them since [`Space::trim`] was asked last.
    spare_segments: u32,
    spare_low: u32,
    /// The host gave nothing when it was asked last.
    host_full: bool,
    data_cursor: u32,
    meta_cursor: u32,
    /// Segments for deletes, for buckets, and the part of the latter for data that replaces data.
    delete_segments: u32,
    meta_segments: u32,
    replace_segments: u32,
}

impl Space {
    /// With nothing available: the entries are yet to be told by [`Space::learn`].
    pub(super) fn new(area: Area) -> Self {
        let segments = u32::try_from(area.bytes / SEGMENT_BYTES).expect("devices end at 64 TiB");
        let nothing = Summary { free: 0, groups: 0, kind: SegmentKind::Meta, granted: true };
        let meta_segments = segments.div_ceil(META_SHARE).clamp(1, META_SEGMENTS_MAX);
        Self {
            area,
            table: BucketId((area.start / BUCKET_BYTES as u64) as u32),
            segments,
            summaries: vec![nothing; segments as usize],
            held: IdMap::default(),
            quarantine: VecDeque::new(),
            quarantined_blocks: 0,
            held_blocks: 0,
            available: 0,
            free_segments: 0,
            meta_groups: 0,
            meta_blocks: u64::from(segments) * u64::from(SEGMENT_BLOCKS),
            granted_available: 0,
            spare_segments: 0,
            spare_low: 0,
            host_full: false,
            data_cursor: 0,
            meta_cursor: 0,
            delete_segments: segments.div_ceil(DELETE_SHARE).min(DELETE_SEGMENTS_MAX),
            meta_segments,
            replace_segments: (meta_segments / 2).clamp(1, REPLACE_SEGMENTS_MAX),
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
        let groups = groups(available);
        self.set(segment, Summary { free: free as u16, groups, kind, granted: true });
    }

    fn set(&mut self, segment: u32, new: Summary) {
        let old = std::mem::replace(&mut self.summaries[segment as usize], new);
        self.available = self.available + u64::from(new.free) - u64::from(old.free);
        self.free_segments -= u32::from(old.kind == SegmentKind::Free);
        self.free_segments += u32::from(new.kind == SegmentKind::Free);
        let granted = |summary: Summary| u64::from(summary.free) * u64::from(summary.granted);
        self.granted_available = self.granted_available + granted(new) - granted(old);
        self.spare_segments += u32::from(new.is_spare());
        self.spare_segments -= u32::from(old.is_spare());
        self.spare_low = self.spare_low.min(self.spare_segments);
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

    /// Blocks that new data may not take.
    pub(super) fn reserve_blocks(&self) -> u64 {
        let floors = self.floors(Self::data_floor(Claim::Grow));
        floors.0.max(floors.1)
    }

    /// Segments for deletes, for buckets, and the part of the latter for data that replaces data.
    fn kept(&self) -> [u32; 3] {
        [self.delete_segments, self.meta_segments, self.replace_segments]
    }

    /// The same of what is granted: so much is at hand when the host turns out to be full. With more a large store could not even be
    /// overwritten then.
    fn kept_granted(&self) -> [u32; 3] {
        let [delete, meta, replace] = self.kept();
        [delete.min(FULL_KEEP), meta.min(2 * FULL_KEEP), replace.min(FULL_KEEP)]
    }

    /// What data, or buckets, of this claim have to leave: of all space, and of what is granted. If the host is full there is no other.
    fn floors(&self, floor: impl Fn([u32; 3]) -> u64) -> (u64, u64) {
        let granted = floor(self.kept_granted());
        (if self.host_full { 0 } else { floor(self.kept()) }, granted)
    }

    /// Whether so many blocks can be had beyond the floors.
    fn is_beyond(&self, (all, granted): (u64, u64), wanted: u64) -> bool {
        self.available >= all + wanted && self.granted_available >= granted + wanted
    }

    /// Whether a free segment may be opened.
    fn may_open(&self, (all, granted): (u64, u64)) -> bool {
        let blocks = |segments: u32| u64::from(segments) * u64::from(SEGMENT_BLOCKS);
        blocks(self.free_segments) > all && blocks(self.spare_segments) > granted
    }

    /// Blocks that data of this claim leaves.
    fn data_floor(claim: Claim) -> impl Fn([u32; 3]) -> u64 {
        move |[delete, meta, replace]| {
            let segments = match claim {
                Claim::Grow => delete + meta,
                Claim::Replace => delete + meta - replace,
                Claim::GiveBack => 0,
            };
            u64::from(segments) * u64::from(SEGMENT_BLOCKS)
        }
    }

    fn delete_floor([delete, ..]: [u32; 3]) -> u64 {
        u64::from(delete) * u64::from(SEGMENT_BLOCKS)
    }

    /// Blocks of the part for what replaces data. It is never all that buckets have.
    fn replace_blocks([_, meta, replace]: [u32; 3]) -> u64 {
        let blocks = u64::from(replace) * u64::from(SEGMENT_BLOCKS);
        blocks.min(u64::from(meta) * u64::from(SEGMENT_BLOCKS) / 2)
    }

    /// What data of this claim has to leave now. Where buckets have taken what data leaves to them, so that waiting for
    /// everything that is held would not help, what replaces goes on with the part that buckets left to it.
    fn data_floors(&self, claim: Claim, wanted: u64) -> (u64, u64) {
        let floors = self.floors(Self::data_floor(claim));
        let (all, granted) = floors;
        let will_be = self.available + self.held_blocks >= all + wanted
            && self.granted_available + self.held_blocks >= granted + wanted;
        match claim {
            Claim::Replace if !will_be => self.floors(Self::delete_floor),
            _ => floors,
        }
    }

    /// Blocks that buckets of this claim leave.
    fn bucket_floor(claim: Claim) -> impl Fn([u32; 3]) -> u64 {
        move |kept| {
            let delete = Self::delete_floor(kept);
            match claim {
                Claim::Grow => delete + Self::replace_blocks(kept),
                Claim::Replace => delete / 2,
                Claim::GiveBack => 0,
            }
        }
    }

    /// The segment to take data blocks from; `None` when there is none at hand.
    pub(super) fn choose_data(&mut self, wanted: u32, claim: Claim) -> Option<u32> {
        let floors = self.data_floors(claim, u64::from(wanted));
        if !self.is_beyond(floors, u64::from(wanted)) {
            return None;
        }
        let open_free = self.may_open(floors);
        let wish = wanted.min(RUN_BLOCKS_WISHED) as u16;
        let fits = |summary: &Summary, wish: u16, meta: bool| {
            summary.free >= wish
                && summary.granted
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
        let (before, after) = self.summaries.split_at(cursor as usize);
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
    pub(super) fn choose_bucket(&mut self, claim: Claim) -> Option<u32> {
        let floors = self.floors(Self::bucket_floor(claim));
        if !self.is_beyond(floors, BUCKET_BLOCKS) {
            return None;
        }
        let current = self.summaries[self.meta_cursor as usize];
        if current.kind == SegmentKind::Meta && current.groups > 0 {
            return Some(self.meta_cursor);
        }
        let open_free = self.may_open(floors);
        let meta = |summary: &Summary| summary.kind == SegmentKind::Meta && summary.groups > 0;
        let found = (self.meta_groups > 0).then(|| self.find(self.meta_cursor, meta)).flatten();
        let found = found.or_else(|| {
            let free = |summary: &Summary| open_free && summary.is_spare();
            self.find(0, free)
        });
        let found = found.or_else(|| {
            let any = |summary: &Summary| {
                let opens = summary.kind == SegmentKind::Free;
                summary.groups > 0 && summary.granted && (open_free || !opens)
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
        self.held_blocks += u64::from(count(bits));
        let held = self.held.entry(segment).or_default();
        for (word, bit) in held.iter_mut().zip(bits) {
            assert_eq!(*word & bit, 0, "a block of segment {segment} is held twice");
            *word |= bit;
        }
    }

    /// The table speaks for these blocks again.
    pub(super) fn unhold(&mut self, run: BlockRun) {
        self.held_blocks -= u64::from(run.blocks);
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

    /// The host has promised nothing but what is used. Told at open; the runs of segments that are.
    pub(super) fn grant_used(&mut self) -> Vec<(u32, u32)> {
        for segment in 0..self.segments {
            let summary = self.summaries[segment as usize];
            let granted = summary.kind != SegmentKind::Free;
            self.set(segment, Summary { granted, ..summary });
        }
        self.runs(|summary| summary.granted)
    }

    /// Runs of segments (first, count) for which `is`.
    fn runs(&self, is: impl Fn(&Summary) -> bool) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (summary, segment) in self.summaries.iter().zip(0..) {
            match runs.last_mut() {
                _ if !is(summary) => {}
                Some((first, count)) if *first + *count == segment => *count += 1,
                _ => runs.push((segment, 1)),
            }
        }
        runs
    }

    /// Whether the host should be asked for more soon.
    pub(super) fn grant_wanted(&self) -> bool {
        self.spare_segments < GRANT_SEGMENTS / 4
            && self.spare_segments < self.free_segments
            && !self.host_full
    }

    /// The segments that the host is asked for next, at most `most`: first and count.
    pub(super) fn next_grant(&self, most: u32) -> Option<(u32, u32)> {
        let first = self.summaries.iter().position(|summary| !summary.granted)?;
        let rest = self.summaries[first..].iter().take(most as usize);
        let count = rest.take_while(|summary| !summary.granted).count();
        (count > 0).then_some((first as u32, count as u32))
    }

    /// The host has promised the space of these segments.
    pub(super) fn granted(&mut self, first: u32, count: u32) {
        self.set_granted(first, count, true);
        self.host_full = false;
    }

    fn set_granted(&mut self, first: u32, count: u32, granted: bool) {
        for segment in first..first + count {
            let summary = self.summaries[segment as usize];
            self.set(segment, Summary { granted, ..summary });
        }
    }

    /// The host has no space left, not even for one segment.
    pub(super) fn set_host_full(&mut self) {
        self.host_full = true;
    }

    pub(super) fn host_full(&self) -> bool {
        self.host_full
    }

    /// Free segments that were not needed since this was asked last, beyond those that are kept: they are not granted from now on,
    /// and their space is the host's. At most `most` runs.
    pub(super) fn trim(&mut self, most: usize) -> Vec<(u32, u32)> {
        let mut excess = self.spare_low.saturating_sub(TRIM_KEEP);
        self.spare_low = self.spare_segments;
        let mut trimmed = Vec::new();
        if excess == 0 {
            return trimmed;
        }
        for (first, count) in self.runs(Summary::is_spare).into_iter().rev().take(most) {
            let some = count.min(excess);
            trimmed.push((first + count - some, some));
            self.set_granted(first + count - some, some, false);
            excess -= some;
            if excess == 0 {
                break;
            }
        }
        trimmed
    }

    /// Free segments that are not granted: what the host may have back if it has it not yet.
    pub(super) fn not_granted(&self) -> Vec<(u32, u32)> {
        self.runs(|summary| !summary.granted)
    }

    pub(super) fn is_not_granted(&self, (first, count): (u32, u32)) -> bool {
        let run = &self.summaries[first as usize..(first + count) as usize];
        run.iter().all(|summary| !summary.granted)
    }

    /// Whether free segments are kept that [`Space::trim`] may return.
    pub(super) fn trim_wanted(&self) -> bool {
        self.spare_segments > TRIM_KEEP
    }

    /// Bytes of the device that segments take.
    pub(super) fn bytes_of(&self, (first, count): (u32, u32)) -> (u64, u64) {
        let bytes = |segments: u32| u64::from(segments) * SEGMENT_BYTES;
        (self.area.start + bytes(first), bytes(count))
    }

    // Looking.

    /// Segments that may hold aligned groups that are not counted.
    pub(super) fn uncounted(&self, from: u32) -> Option<u32> {
        let hidden =
            |summary: &Summary| summary.groups == 0 && u64::from(summary.free) >= BUCKET_BLOCKS;
        let rest = self.summaries.get(from as usize..)?;
        rest.iter().position(hidden).map(|index| from + index as u32)
    }

    pub(super) fn has_groups(&self, segment: u32) -> bool {
        self.summaries[segment as usize].groups > 0
    }

    /// All blocks.
    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.segments) * u64::from(SEGMENT_BLOCKS)
    }

    /// Blocks that can be given out; if the host is full, without those that it would have to give first.
    pub(super) fn available(&self) -> u64 {
        if self.host_full { self.granted_available } else { self.available }
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
        let segment = space.choose_data(10, Claim::Grow).unwrap();
        let run = space.take_data(segment, [0; 4], 10);
        assert_eq!(run.blocks, 10);
        assert!(space.is_held(run));
        let other = space.choose_bucket(Claim::Grow).unwrap();
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
    fn data_leaves_room_for_buckets_and_both_for_deletes() {
        let mut space = space();
        let mut taken = 0;
        while let Some(segment) = space.choose_data(256, Claim::Grow) {
            space.take_data(segment, [0; 4], 256);
            taken += 1;
        }
        assert_eq!(taken, 6, "one of eight segments is for buckets, one for deletes");
        let (mut buckets, mut allocated) = (0, [0; 4]);
        while let Some(segment) = space.choose_bucket(Claim::Grow) {
            let bucket = space.take_bucket(segment, allocated);
            let (_, index) = space.segment_of(bucket.run().addr);
            mask(index, 4).iter().zip(&mut allocated).for_each(|(bits, word)| *word |= bits);
            buckets += 1;
        }
        assert_eq!(buckets, 32, "half a segment of them");
        assert!(space.choose_data(1, Claim::Grow).is_none());
        for _ in 0..3 {
            // Of a transaction after the other, each of which gives back what it took.
            let segment = space.choose_data(128, Claim::Replace).unwrap();
            let run = space.take_data(segment, allocated, 128);
            assert!(space.choose_data(1, Claim::Replace).is_none(), "the rest is for deletes");
            space.release(run);
        }
        let segment = space.choose_bucket(Claim::GiveBack).unwrap();
        space.take_bucket(segment, [0; 4]);
    }

    #[test]
    fn what_replaces_may_go_ahead_of_what_it_gives_back() {
        let mut space = space();
        while let Some(segment) = space.choose_data(256, Claim::Grow) {
            space.take_data(segment, [0; 4], 256);
        }
        let segment = space.choose_data(100, Claim::Replace).unwrap();
        space.take_data(segment, [0; 4], 100);
        assert!(space.choose_data(200, Claim::Replace).is_none(), "deletes need theirs");
    }

    #[test]
    fn free_segments_that_stay_free_are_returned_but_for_some() {
        let area = Area { start: 16 << 20, bytes: 200 << 20 };
        let mut space = Space::new(area);
        for segment in 0..200 {
            let allocated = [if segment == 90 { 1 } else { 0 }; 4];
            space.learn(segment, Entry { allocated, kind: SegmentKind::Data });
        }
        assert_eq!(space.grant_used(), [(90, 1)]);
        assert_eq!(space.next_grant(64), Some((0, 64)));
        space.granted(0, 64);
        assert_eq!(space.next_grant(64), Some((64, 26)), "up to what is used");
        space.granted(64, 26);
        space.granted(91, 20);
        assert!(space.trim(8).is_empty(), "they were not free for long");
        assert_eq!(space.trim(1), [(91, 20)]);
        assert_eq!(space.trim(8), [(8, 82)]);
        assert!(space.trim(8).is_empty() && !space.trim_wanted(), "some are kept");
        assert_eq!(space.next_grant(64), Some((8, 64)));
    }

    #[test]
    fn freed_blocks_wait_for_mark_strip_and_readers() {
        let mut space = space();
        let segment = space.choose_data(5, Claim::Grow).unwrap();
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
        space.grant_used();
        assert_eq!(space.choose_data(1, Claim::Grow), None);
        space.granted(3, 2);
        let mut segments = Vec::new();
        while let Some(segment) = space.choose_data(256, Claim::Grow) {
            space.take_data(segment, [0; 4], 256);
            segments.push(segment);
        }
        assert_eq!(segments, [], "two are for buckets and deletes, and the host has to be asked");
        while let Some(segment) = space.choose_data(256, Claim::GiveBack) {
            space.take_data(segment, [0; 4], 256);
            segments.push(segment);
        }
        assert_eq!(segments, [3, 4]);
        assert_eq!(space.next_grant(64), Some((0, 3)));
        assert_eq!(space.bytes_of((5, 2)), ((16 << 20) + (5 << 20), 2 << 20));
        assert_eq!(space.available(), 6 * 256);
        space.set_host_full();
        assert_eq!(space.available(), 0);
    }

    #[test]
    fn a_full_host_leaves_something_for_deletes_and_for_overwrites() {
        let mut space = Space::new(Area { start: 16 << 20, bytes: 8 << 30 });
        for segment in 0..8192 {
            space.learn(segment, Entry { allocated: [0; 4], kind: SegmentKind::Free });
        }
        space.grant_used();
        space.granted(0, 64);
        space.set_host_full();
        let mut left = 64;
        for (claim, leaves) in [(Claim::Grow, 12), (Claim::Replace, 8), (Claim::GiveBack, 0)] {
            assert_eq!(space.choose_bucket(Claim::Grow).is_some(), left > 8);
            while let Some(segment) = space.choose_data(256, claim) {
                space.take_data(segment, [0; 4], 256);
                left -= 1;
            }
            assert_eq!(left, leaves, "{claim:?}");
        }
        assert_eq!(space.choose_bucket(Claim::GiveBack), None);
        space.granted(64, 64);
        assert!(space.choose_data(256, Claim::Grow).is_some());
    }

    #[test]
    fn groups_hidden_between_single_blocks_are_found_by_a_recount() {
        let mut space = space();
        let segment = space.choose_data(256, Claim::Grow).unwrap();
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
