//! Closure runs over buckets: reading (`View`) and changing (`Tx`), with undo until the run succeeds and redo for the WAL.
//!
//! # Invariants
//! 1. A run that ends with an abort leaves no trace but in what is resident.
//! 2. A run that succeeds is one record with the next LSN, appended before anything else runs: WAL order is execution order
//!    is epoch order.
//! 3. Blocks freed in a run are held from that moment, so that the same run cannot get them again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use daos_types::{Epoch, Error};
use smallvec::SmallVec;

use super::arena::Arena;
use super::data::{DataState, DataWrite};
use super::redo::{Redo, in_bucket};
use super::space::{BITMAP_BYTES, Bits, Claim, ENTRY_BYTES, Entry, SegmentKind, mask};
use super::state::{Incomplete, State};
use super::store::Reservation;
use super::wal::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES};
use super::{BlockRun, Lsn};
use crate::btree::Fingers;
use crate::pages::{Abort, BucketId, BucketKind, Pages, PagesMut};

/// Reads buckets in one moment.
pub struct View<'a> {
    arena: &'a Arena,
    read: Cell<Lsn>,
    fingers: Fingers,
}

impl<'a> View<'a> {
    pub(super) fn new(arena: &'a Arena) -> Self {
        Self { arena, read: Cell::new(Lsn::ZERO), fingers: Fingers::default() }
    }

    /// Newest change among the buckets that were read.
    pub(super) fn read(&self) -> Lsn {
        self.read.get()
    }
}

impl Pages for View<'_> {
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort> {
        let frame = self.arena.frame(self.arena.find(bucket).ok_or(Abort::Fault(bucket))?);
        self.read.set(self.read.get().max(frame.lsn));
        Ok(&frame.bytes[..])
    }

    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort> {
        Ok(self.arena.frame(self.arena.find(bucket).ok_or(Abort::Fault(bucket))?).kind)
    }

    fn fingers(&self) -> &Fingers {
        &self.fingers
    }
}

/// Buffers of a run, used again by the next.
#[derive(Default)]
pub(super) struct Scratch {
    redo: Vec<u8>,
    undo: Vec<Undo>,
    undo_bytes: Vec<u8>,
    /// Frames that the run changed.
    changed: Vec<usize>,
    data_log: Vec<u8>,
}

/// Bytes of a frame before a change; they are at the end of `undo_bytes`.
struct Undo {
    frame: usize,
    at: usize,
    len: usize,
}

type Left = Rc<RefCell<Vec<BlockRun>>>;

/// Changes buckets and space; all of it or nothing.
pub struct Tx<'a> {
    state: &'a mut State,
    scratch: Scratch,
    epoch: Epoch,
    claim: Claim,
    /// Most buckets that may change: what recovery can hold at once.
    changed_max: usize,
    read: Cell<Lsn>,
    fingers: Fingers,
    formatted: SmallVec<[(usize, BucketId); 4]>,
    freed: SmallVec<[BucketId; 4]>,
    freed_blocks: SmallVec<[BlockRun; 4]>,
    published: SmallVec<[(Left, BlockRun); 4]>,
    data: SmallVec<[Rc<DataState>; 2]>,
}

/// What a run that succeeded did.
pub(super) struct Outcome {
    /// Newest change that the run made or, if it made none, read.
    pub(super) lsn: Lsn,
    pub(super) changed: bool,
}

impl<'a> Tx<'a> {
    pub(super) fn begin(state: &'a mut State, now: u64, claim: Claim, changed_max: usize) -> Self {
        let epoch = Epoch(now.max(state.last_epoch.0 + 1));
        state.arena.begin_run();
        let scratch = std::mem::take(&mut state.scratch);
        Self {
            state,
            scratch,
            epoch,
            claim,
            changed_max,
            read: Cell::new(Lsn::ZERO),
            fingers: Fingers::default(),
            formatted: SmallVec::new(),
            freed: SmallVec::new(),
            freed_blocks: SmallVec::new(),
            published: SmallVec::new(),
            data: SmallVec::new(),
        }
    }

    /// The epoch of this transaction's changes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Allocates `run` out of a reservation, for good.
    ///
    /// # Errors
    /// `Fault`.
    ///
    /// # Panics
    /// When `run` is not what is left of the reservation.
    pub fn publish(&mut self, reservation: &Reservation, run: BlockRun) -> Result<(), Abort> {
        assert!(reservation.has(run), "{run:?} was not reserved or is published already");
        assert!(self.state.space.is_held(run));
        self.set_bits(run, true, SegmentKind::Data)?;
        self.published.push((reservation.left(), run));
        Ok(())
    }

    /// This transaction refers to the data of `write`: it is complete only when that is, and void if that is torn.
    pub fn depend(&mut self, write: &DataWrite) {
        self.data.push(write.0.clone());
    }

    /// Frees allocated blocks.
    ///
    /// # Errors
    /// `Fault`.
    ///
    /// # Panics
    /// When they are not all allocated: the caller's structures are wrong, and going on would give a block to two.
    pub fn free_blocks(&mut self, run: BlockRun) -> Result<(), Abort> {
        self.set_bits(run, false, SegmentKind::Free)?;
        self.state.space.hold(run);
        self.freed_blocks.push(run);
        Ok(())
    }

    /// Sets or clears the bits of a run in the segment table.
    fn set_bits(&mut self, run: BlockRun, allocated: bool, kind: SegmentKind) -> Result<(), Abort> {
        for (segment, index, blocks) in self.state.space.pieces(run) {
            let (table, at) = self.state.space.entry_place(segment);
            let old = self.entry(table, at)?;
            let bits = mask(index, blocks);
            let new: Bits = std::array::from_fn(|word| {
                let before = if allocated { 0 } else { bits[word] };
                assert_eq!(old.allocated[word] & bits[word], before, "{run:?}: bits of the table");
                old.allocated[word] ^ bits[word]
            });
            for word in (0..4).filter(|word| new[*word] != old.allocated[*word]) {
                self.write(table, at + 8 * word, &new[word].to_le_bytes())?;
            }
            let kind = match (old.kind, new == [0; 4]) {
                (_, true) => SegmentKind::Free,
                (SegmentKind::Free, false) => kind,
                (other, false) => other,
            };
            if kind != old.kind {
                self.write(table, at + BITMAP_BYTES, &[kind as u8])?;
            }
        }
        Ok(())
    }

    fn entry(&self, table: BucketId, at: usize) -> Result<Entry, Abort> {
        let page = self.table_page(table)?;
        Ok(Entry::decode(&page[at..at + ENTRY_BYTES]).expect("verified when the store was opened"))
    }

    /// As `page`, but what is free is no part of what the run has read.
    fn table_page(&self, table: BucketId) -> Result<&[u8], Abort> {
        let at = self.state.arena.find(table).ok_or(Abort::Fault(table))?;
        Ok(&self.state.arena.frame(at).bytes[..])
    }

    /// Saves what is about to change in a frame.
    fn change(&mut self, bucket: BucketId, at: usize, len: usize) -> Result<usize, Abort> {
        assert!(in_bucket(at, len), "{len} bytes at {at} of {bucket:?} are not inside it");
        let index = self.state.arena.find(bucket).ok_or(Abort::Fault(bucket))?;
        self.note_changed(index)?;
        let bytes = &self.state.arena.frame(index).bytes;
        self.scratch.undo_bytes.extend_from_slice(&bytes[at..at + len]);
        self.scratch.undo.push(Undo { frame: index, at, len });
        Ok(index)
    }

    fn note_changed(&mut self, index: usize) -> Result<(), Abort> {
        let run = self.state.arena.run();
        let frame = self.state.arena.frame_mut(index);
        if frame.changed_in != run {
            frame.changed_in = run;
            self.scratch.changed.push(index);
        }
        if self.scratch.changed.len() > self.changed_max {
            let max = self.changed_max as u64;
            return Err(Error::TooLarge { what: "the transaction's buckets", max }.into());
        }
        Ok(())
    }

    /// Logs an operation and does it.
    fn apply(&mut self, index: usize, operation: &Redo<'_>) -> Result<(), Abort> {
        operation.encode(&mut self.scratch.redo);
        if self.scratch.redo.len() > RECORD_BYTES_MAX / 2 {
            self.check_record_size()?;
        }
        operation.apply(&mut self.state.arena.frame_mut(index).bytes[..]);
        Ok(())
    }

    fn check_record_size(&self) -> Result<(), Abort> {
        let data: usize = self.data.iter().map(|write| 12 + 4 * write.blocks() as usize).sum();
        if RECORD_HEADER_BYTES + data + self.scratch.redo.len() > RECORD_BYTES_MAX {
            let max = RECORD_BYTES_MAX as u64;
            return Err(Error::TooLarge { what: "the transaction's log record", max }.into());
        }
        Ok(())
    }

    /// Ends the run: everything is one record of the WAL, or nothing happened.
    pub(super) fn finish<T>(mut self, result: Result<T, Abort>) -> Result<(T, Outcome), Abort> {
        let result = result.and_then(|value| self.check_record_size().map(|()| value));
        let finished = match result {
            Ok(value) => {
                let outcome = self.commit();
                Ok((value, outcome))
            }
            Err(abort) => {
                self.undo();
                Err(abort)
            }
        };
        let Scratch { redo, undo, undo_bytes, changed, data_log } = &mut self.scratch;
        redo.clear();
        undo.clear();
        undo_bytes.clear();
        changed.clear();
        data_log.clear();
        self.state.scratch = std::mem::take(&mut self.scratch);
        self.state.arena.begin_run();
        finished
    }

    fn undo(&mut self) {
        while let Some(Undo { frame, at, len }) = self.scratch.undo.pop() {
            let from = self.scratch.undo_bytes.len() - len;
            let bytes = &self.scratch.undo_bytes[from..];
            self.state.arena.frame_mut(frame).bytes[at..at + len].copy_from_slice(bytes);
            self.scratch.undo_bytes.truncate(from);
        }
        for run in self.freed_blocks.drain(..) {
            self.state.space.unhold(run);
        }
        for bucket in self.freed.drain(..) {
            self.state.space.unhold(bucket.run());
        }
        for (index, bucket) in self.formatted.drain(..) {
            self.state.arena.unformat(index);
            self.state.space.untake_bucket(bucket);
        }
    }

    fn commit(&mut self) -> Outcome {
        if self.scratch.redo.is_empty() && self.data.is_empty() {
            // Its answer names its epoch: nobody else may have the same.
            self.state.last_epoch = self.epoch;
            return Outcome { lsn: self.read.get(), changed: false };
        }
        let state = &mut *self.state;
        let lsn = state.marks.newest.next();
        for index in &self.scratch.changed {
            state.arena.changed(*index, lsn);
        }
        for (left, run) in &self.published {
            state.space.unhold(*run);
            remove_run(&mut left.borrow_mut(), *run);
        }
        for run in &self.freed_blocks {
            state.space.quarantine(*run, lsn, 0);
        }
        for bucket in &self.freed {
            state.arena.freed(*bucket, lsn);
            // Whatever batch has begun may hold an image of it.
            state.space.quarantine(bucket.run(), lsn, state.strip_batch);
        }
        for write in &self.data {
            write.log(&mut self.scratch.data_log);
        }
        let Scratch { data_log, redo, .. } = &self.scratch;
        let end_seq = state.wal.append(lsn, self.epoch, data_log, redo);
        state.add_unstable((data_log.len() + redo.len()) as u64);
        state.incomplete.push_back(Incomplete {
            lsn,
            end_seq,
            data: std::mem::take(&mut self.data),
        });
        state.marks.newest = lsn;
        state.last_epoch = self.epoch;
        state.counts.transactions += 1;
        Outcome { lsn, changed: true }
    }
}

/// Takes `run` out of a list of runs, splitting the one that holds it.
fn remove_run(runs: &mut Vec<BlockRun>, run: BlockRun) {
    let holds = |other: &BlockRun| other.addr <= run.addr && run.end() <= other.end();
    let at = runs.iter().position(holds).expect("checked when it was published");
    let whole = runs.swap_remove(at);
    let before = (run.addr.0 - whole.addr.0) as u32;
    let after = (whole.end().0 - run.end().0) as u32;
    if before > 0 {
        runs.push(whole.part(0, before));
    }
    if after > 0 {
        runs.push(whole.part(before + run.blocks, after));
    }
}

impl Pages for Tx<'_> {
    #[inline]
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort> {
        let at = self.state.arena.find(bucket).ok_or(Abort::Fault(bucket))?;
        let frame = self.state.arena.frame(at);
        self.read.set(self.read.get().max(frame.lsn));
        Ok(&frame.bytes[..])
    }

    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort> {
        let at = self.state.arena.find(bucket).ok_or(Abort::Fault(bucket))?;
        Ok(self.state.arena.frame(at).kind)
    }

    fn fingers(&self) -> &Fingers {
        &self.fingers
    }
}

impl PagesMut for Tx<'_> {
    fn write(&mut self, bucket: BucketId, at: usize, bytes: &[u8]) -> Result<(), Abort> {
        if bytes.is_empty() {
            return Ok(());
        }
        let index = self.change(bucket, at, bytes.len())?;
        self.apply(index, &Redo::Write { bucket, at, bytes })
    }

    fn copy_within(
        &mut self,
        bucket: BucketId,
        from: usize,
        to: usize,
        len: usize,
    ) -> Result<(), Abort> {
        if len == 0 || from == to {
            return Ok(());
        }
        assert!(in_bucket(from, len), "{len} bytes at {from} of {bucket:?} are not inside it");
        let index = self.change(bucket, to, len)?;
        self.apply(index, &Redo::Move { bucket, from, to, len })
    }

    fn fill(&mut self, bucket: BucketId, at: usize, len: usize, byte: u8) -> Result<(), Abort> {
        if len == 0 {
            return Ok(());
        }
        let index = self.change(bucket, at, len)?;
        self.apply(index, &Redo::Fill { bucket, at, len, byte })
    }

    fn alloc(&mut self, kind: BucketKind) -> Result<BucketId, Abort> {
        self.lift_fingers();
        let segment = self.state.space.choose_bucket(self.claim).ok_or(Abort::NoBucket)?;
        let (table, at) = self.state.space.entry_place(segment);
        let entry = self.entry(table, at)?;
        self.state.space.recount(segment, entry.allocated);
        let bucket = self.state.space.take_bucket(segment, entry.allocated);
        let Some(index) = self.state.arena.format(bucket, kind) else {
            self.state.space.untake_bucket(bucket);
            return Err(Abort::NoFrame);
        };
        self.formatted.push((index, bucket));
        self.note_changed(index)?;
        self.apply(index, &Redo::Format { bucket, kind })?;
        self.set_bits(bucket.run(), true, SegmentKind::Meta)?;
        Ok(bucket)
    }

    fn free(&mut self, bucket: BucketId) -> Result<(), Abort> {
        self.lift_fingers();
        // Resident, so that no load of it is under way that would bring it back after it is gone.
        let index = self.state.arena.find(bucket).ok_or(Abort::Fault(bucket))?;
        self.set_bits(bucket.run(), false, SegmentKind::Free)?;
        self.state.space.hold(bucket.run());
        self.freed.push(bucket);
        self.apply(index, &Redo::Free { bucket })
    }

    fn lift_fingers(&mut self) {
        self.fingers.lift();
    }
}
