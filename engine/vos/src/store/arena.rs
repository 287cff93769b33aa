//! Resident buckets: which are in memory, which are dirty, which may leave.
//!
//! # Invariants
//! 1. `frames in use <= budget`, but for read-only stores, which cannot write back what replay changed.
//! 2. A frame leaves only when it is clean, not being written and not pinned: what it held is home.
//! 3. `dirty_since` is the first change that no image under way home has; `writing` the first one that only the image
//!    under way has. Replay must begin no later than either.
//! 4. A bucket freed while dirty keeps its place in 3 as a *ghost* until the freeing record is stable: a power cut before that
//!    brings the bucket back.
//!
//! # Not here
//! Loading (`store`), writing back (`checkpoint`), what changes a frame (`tx`).

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Lsn;
use crate::pages::{BUCKET_BYTES, BucketId, BucketKind};

/// Smallest budget: one operation's pins and room for others to go on.
pub const MEMORY_BUCKETS_MIN: usize = 32;

/// Hash of a bucket number: numbers are dense, a multiplication spreads them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// One resident bucket.
pub(super) struct Frame {
    pub(super) bucket: BucketId,
    pub(super) kind: BucketKind,
    /// Newest change.
    pub(super) lsn: Lsn,
    pub(super) dirty_since: Option<Lsn>,
    pub(super) writing: Option<Lsn>,
    pins: u32,
    /// Which of the buckets that were in the frame this is.
    stay: u64,
    /// Used since the clock's hand last passed.
    used: Cell<bool>,
    /// The run that touched it last: it does not leave during that run.
    run: Cell<u64>,
    /// The run that changed it last.
    pub(super) changed_in: u64,
    in_use: bool,
    pub(super) bytes: Box<[u8; BUCKET_BYTES]>,
}

impl Frame {
    fn vacant() -> Self {
        let bytes = vec![0; BUCKET_BYTES].into_boxed_slice();
        Self {
            bucket: BucketId(0),
            kind: BucketKind::Node,
            lsn: Lsn::ZERO,
            dirty_since: None,
            writing: None,
            pins: 0,
            stay: 0,
            used: Cell::new(false),
            run: Cell::new(0),
            changed_in: 0,
            in_use: false,
            bytes: bytes.try_into().expect("BUCKET_BYTES long"),
        }
    }

    fn may_leave(&self, run: u64) -> bool {
        self.in_use && self.is_clean() && self.pins == 0 && self.run.get() != run
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty_since.is_none() && self.writing.is_none()
    }
}

/// A bucket freed while dirty; invariant 4.
struct Ghost {
    needed_from: Lsn,
    freed: Lsn,
}

/// A bucket that stays resident until [`Arena::unpin`].
#[derive(Debug)]
pub(super) struct Pin {
    at: usize,
    stay: u64,
}

pub(super) struct Arena {
    frames: Vec<Frame>,
    vacant: Vec<usize>,
    index: IdMap<BucketId, usize>,
    ghosts: Vec<Ghost>,
    budget: usize,
    /// Frames taken for loads under way.
    loading: usize,
    /// Frames that are dirty or being written.
    not_clean: usize,
    hand: usize,
    /// Number of the closure run under way.
    run: u64,
    /// Whether recency is noted: not for background passes.
    pub(super) note_use: bool,
    pub(super) unbounded: bool,
    pub(super) evicted: u64,
}

impl Arena {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            frames: Vec::new(),
            vacant: Vec::new(),
            index: IdMap::default(),
            ghosts: Vec::new(),
            budget: budget.max(MEMORY_BUCKETS_MIN),
            loading: 0,
            not_clean: 0,
            hand: 0,
            run: 1,
            note_use: true,
            unbounded: false,
            evicted: 0,
        }
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn resident(&self) -> usize {
        self.index.len()
    }

    pub(super) fn not_clean(&self) -> usize {
        self.not_clean
    }

    /// Begins a closure run: what it touches stays until the next one begins.
    pub(super) fn begin_run(&mut self) {
        self.run += 1;
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// The frame of a resident bucket, noted as used.
    #[inline]
    pub(super) fn find(&self, bucket: BucketId) -> Option<usize> {
        let at = *self.index.get(&bucket)?;
        let frame = &self.frames[at];
        frame.run.set(self.run);
        if self.note_use {
            frame.used.set(true);
        }
        Some(at)
    }

    /// The frame of a resident bucket, unnoticed.
    pub(super) fn peek(&self, bucket: BucketId) -> Option<&Frame> {
        self.index.get(&bucket).map(|at| &self.frames[*at])
    }

    #[inline]
    pub(super) fn frame(&self, at: usize) -> &Frame {
        &self.frames[at]
    }

    #[inline]
    pub(super) fn frame_mut(&mut self, at: usize) -> &mut Frame {
        &mut self.frames[at]
    }

    /// Keeps a bucket resident; `None`: it is not.
    pub(super) fn pin(&mut self, bucket: BucketId) -> Option<Pin> {
        let at = *self.index.get(&bucket)?;
        let frame = &mut self.frames[at];
        frame.pins += 1;
        Some(Pin { at, stay: frame.stay })
    }

    pub(super) fn unpin(&mut self, pin: Pin) {
        // A bucket freed by the very operation that pinned it is gone, with its pins, and may even be back as another.
        let frame = &mut self.frames[pin.at];
        if frame.in_use && frame.stay == pin.stay {
            frame.pins -= 1;
        }
    }

    /// Frames that a load or a new bucket could have at once.
    pub(super) fn available(&self) -> usize {
        let taken = self.index.len() + self.loading;
        let leavers = self.frames.iter().filter(|frame| frame.may_leave(self.run)).count();
        (self.budget + leavers).saturating_sub(taken)
    }

    /// Takes a frame for a load; give it to [`Arena::loaded`] or [`Arena::load_failed`].
    pub(super) fn begin_load(&mut self) -> bool {
        if !self.make_room() {
            return false;
        }
        self.loading += 1;
        true
    }

    pub(super) fn load_failed(&mut self) {
        self.loading -= 1;
    }

    pub(super) fn loaded(&mut self, bucket: BucketId, kind: BucketKind, lsn: Lsn, image: &[u8]) {
        self.loading -= 1;
        let at = self.insert(bucket, kind, lsn);
        self.frames[at].bytes.copy_from_slice(image);
    }

    /// A frame of zeros for a bucket that is formatted. `None`: no room.
    pub(super) fn format(&mut self, bucket: BucketId, kind: BucketKind) -> Option<usize> {
        assert!(!self.index.contains_key(&bucket), "{bucket:?} is formatted while resident");
        if !self.make_room() {
            return None;
        }
        let at = self.insert(bucket, kind, Lsn::ZERO);
        self.frames[at].bytes.fill(0);
        Some(at)
    }

    fn insert(&mut self, bucket: BucketId, kind: BucketKind, lsn: Lsn) -> usize {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.frames.push(Frame::vacant());
            self.frames.len() - 1
        });
        let frame = &mut self.frames[at];
        assert!(!frame.in_use && frame.is_clean() && frame.pins == 0);
        frame.in_use = true;
        frame.stay += 1;
        frame.bucket = bucket;
        frame.kind = kind;
        frame.lsn = lsn;
        frame.used.set(self.note_use);
        frame.run.set(self.run);
        frame.changed_in = 0;
        let before = self.index.insert(bucket, at);
        assert!(before.is_none(), "{bucket:?} is resident twice");
        at
    }

    /// Sees to it that one more frame fits in the budget.
    fn make_room(&mut self) -> bool {
        if self.has_room() {
            return true;
        }
        if self.not_clean >= self.index.len() {
            return false;
        }
        // Two rounds: the first takes away the mark of use, the second finds it gone. More than one leaves only after a
        // recovery that needed more than the budget.
        for _ in 0..2 * self.frames.len() {
            self.hand = (self.hand + 1) % self.frames.len();
            let frame = &self.frames[self.hand];
            if !frame.may_leave(self.run) || frame.used.replace(false) {
                continue;
            }
            self.evicted += 1;
            self.remove(self.hand);
            if self.has_room() {
                return true;
            }
        }
        false
    }

    fn has_room(&self) -> bool {
        self.unbounded || self.index.len() + self.loading < self.budget
    }

    fn remove(&mut self, at: usize) {
        let frame = &mut self.frames[at];
        if !frame.is_clean() {
            self.not_clean -= 1;
        }
        frame.in_use = false;
        frame.dirty_since = None;
        frame.writing = None;
        frame.pins = 0;
        let bucket = frame.bucket;
        self.index.remove(&bucket);
        self.vacant.push(at);
    }

    /// Takes back a bucket that an undone run formatted.
    pub(super) fn unformat(&mut self, at: usize) {
        assert!(self.frames[at].is_clean(), "a run that is undone dirtied nothing for good");
        self.remove(at);
    }

    /// The frame was changed by transaction `lsn`.
    pub(super) fn changed(&mut self, at: usize, lsn: Lsn) {
        let frame = &mut self.frames[at];
        frame.lsn = lsn;
        if frame.is_clean() {
            self.not_clean += 1;
        }
        frame.dirty_since.get_or_insert(lsn);
    }

    /// The bucket was freed by transaction `lsn`. Whether an image of it is under way home.
    pub(super) fn freed(&mut self, bucket: BucketId, lsn: Lsn) -> bool {
        let Some(&at) = self.index.get(&bucket) else { return false };
        let frame = &self.frames[at];
        let writing = frame.writing.is_some();
        let needed_from = [frame.writing, frame.dirty_since].into_iter().flatten().min();
        if let Some(needed_from) = needed_from {
            self.ghosts.push(Ghost { needed_from, freed: lsn });
        }
        self.remove(at);
        writing
    }

    /// Where replay must begin so that nothing is lost that is not home; `stable` bounds the ghosts.
    pub(super) fn needed_from(&mut self, stable: Lsn) -> Option<Lsn> {
        self.ghosts.retain(|ghost| ghost.freed > stable);
        let frames = self.frames.iter().filter(|frame| frame.in_use);
        frames
            .flat_map(|frame| [frame.dirty_since, frame.writing])
            .flatten()
            .chain(self.ghosts.iter().map(|ghost| ghost.needed_from))
            .min()
    }

    /// Up to `count` dirty frames whose first change is at or below `up_to`, oldest first.
    pub(super) fn oldest_dirty(&self, up_to: Lsn, count: usize) -> Vec<usize> {
        let mut found: Vec<_> = self
            .frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.in_use && frame.writing.is_none())
            .filter_map(|(at, frame)| Some((frame.dirty_since.filter(|lsn| *lsn <= up_to)?, at)))
            .collect();
        if found.len() > count {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.into_iter().map(|(_, at)| at).collect()
    }

    /// An image of the frame is on its way home.
    pub(super) fn begin_write_back(&mut self, at: usize) {
        let frame = &mut self.frames[at];
        assert!(frame.writing.is_none(), "one image of a bucket at a time");
        frame.writing = Some(frame.dirty_since.take().expect("only dirty frames are written back"));
    }

    /// The image is home and flushed. The bucket may have been freed meanwhile.
    pub(super) fn end_write_back(&mut self, bucket: BucketId) {
        let Some(&at) = self.index.get(&bucket) else { return };
        let frame = &mut self.frames[at];
        if frame.writing.take().is_some() && frame.dirty_since.is_none() {
            self.not_clean -= 1;
        }
    }

    /// Every resident bucket, for the checker.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.in_use)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Arena {
        let mut arena = Arena::new(32);
        for number in 0..32 {
            assert!(arena.begin_load());
            arena.loaded(BucketId(number), BucketKind::Node, Lsn(1), &[7; BUCKET_BYTES]);
        }
        arena.begin_run();
        arena
    }

    #[test]
    fn the_least_recently_used_clean_bucket_leaves_first() {
        let mut arena = full();
        for number in 0..32 {
            let at = arena.find(BucketId(number)).unwrap();
            if number % 2 == 0 {
                arena.changed(at, Lsn(2));
            }
        }
        arena.begin_run();
        // One round of the hand takes the marks; then all but 5 and 7 are used again.
        assert!(arena.begin_load());
        arena.load_failed();
        for number in (0..32).filter(|number| ![5, 7].contains(number)) {
            arena.find(BucketId(number));
        }
        arena.begin_run();
        for _ in 0..3 {
            assert!(arena.begin_load());
        }
        assert!(arena.peek(BucketId(5)).is_none() && arena.peek(BucketId(7)).is_none());
        assert!((0..32).step_by(2).all(|number| arena.peek(BucketId(number)).is_some()));
    }

    #[test]
    fn memory_beyond_the_budget_is_given_back() {
        let mut arena = full();
        arena.unbounded = true;
        for number in 100..140 {
            assert!(arena.begin_load());
            arena.loaded(BucketId(number), BucketKind::Node, Lsn(1), &[7; BUCKET_BYTES]);
        }
        arena.unbounded = false;
        arena.begin_run();
        assert_eq!(arena.resident(), 72);
        assert!(arena.begin_load());
        assert_eq!(arena.resident(), 31);
    }

    #[test]
    fn dirty_pinned_and_just_touched_buckets_stay() {
        let mut arena = full();
        for number in 0..30 {
            let at = arena.find(BucketId(number)).unwrap();
            arena.changed(at, Lsn(2));
        }
        arena.begin_run();
        assert!(arena.pin(BucketId(30)).is_some());
        arena.find(BucketId(31));
        assert!(!arena.begin_load(), "30 are dirty, one is pinned, one is in this run");
        assert_eq!(arena.available(), 0);
        arena.begin_run();
        assert!(arena.begin_load());
        assert!(arena.peek(BucketId(31)).is_none());
        arena.load_failed();
    }

    #[test]
    fn a_pin_ends_with_its_bucket_and_leaves_the_next_one_of_that_number_alone() {
        let mut arena = full();
        let mine = arena.pin(BucketId(3)).unwrap();
        arena.freed(BucketId(3), Lsn(2));
        arena.begin_run();
        assert!(arena.format(BucketId(3), BucketKind::Node).is_some());
        let theirs = arena.pin(BucketId(3)).unwrap();
        arena.begin_run();
        arena.unpin(mine);
        assert!(!arena.peek(BucketId(3)).unwrap().may_leave(arena.run()), "somebody else's pin");
        arena.unpin(theirs);
        assert!(arena.peek(BucketId(3)).unwrap().may_leave(arena.run()));
    }

    #[test]
    fn replay_begins_at_the_oldest_change_that_is_not_home() {
        let mut arena = full();
        let at = arena.find(BucketId(3)).unwrap();
        arena.changed(at, Lsn(5));
        arena.changed(at, Lsn(8));
        assert_eq!(arena.needed_from(Lsn(8)), Some(Lsn(5)));
        arena.begin_write_back(at);
        arena.changed(at, Lsn(9));
        assert_eq!(arena.needed_from(Lsn(9)), Some(Lsn(5)), "the image is not home yet");
        arena.end_write_back(BucketId(3));
        assert_eq!(arena.needed_from(Lsn(9)), Some(Lsn(9)));
        assert_eq!(arena.not_clean(), 1);
        arena.freed(BucketId(3), Lsn(12));
        assert_eq!(arena.needed_from(Lsn(11)), Some(Lsn(9)), "the free may not survive");
        assert_eq!(arena.needed_from(Lsn(12)), None);
        assert_eq!(arena.not_clean(), 0);
    }
}
