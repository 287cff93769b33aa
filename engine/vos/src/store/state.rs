//! The state of one target's store, as one value: what a closure run may touch.
//!
//! # Not here
//! Waiting and device I/O: `store`, `checkpoint`, `recover`.

use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use daos_types::{Epoch, Error, Result};
use smallvec::SmallVec;

use super::arena::Arena;
use super::data::{DataState, Pending};
use super::space::Space;
use super::sync::{Marks, Sync};
use super::tx::Scratch;
use super::wal::Wal;
use super::{BlockRun, Lsn};

/// Bytes that may wait for a flush before one is forced.
const UNSTABLE_BYTES_MAX: u64 = 256 << 20;

/// A transaction that is not complete.
pub(super) struct Incomplete {
    pub(super) lsn: Lsn,
    /// The WAL block with its record's last byte.
    pub(super) end_seq: u64,
    pub(super) data: SmallVec<[Rc<DataState>; 2]>,
}

impl Incomplete {
    fn is_complete(&self, wal: &Wal) -> bool {
        self.end_seq < wal.written_seq() && self.data.iter().all(|write| write.is_complete())
    }
}

/// Somebody who waits for a mark to pass `lsn`; the heap's greatest is the lowest LSN.
struct Waiter {
    lsn: Lsn,
    waker: Waker,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.lsn == other.lsn
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.lsn.cmp(&self.lsn)
    }
}

/// Those who wait for a mark.
#[derive(Default)]
pub(super) struct Waiters(BinaryHeap<Waiter>);

impl Waiters {
    pub(super) fn add(&mut self, lsn: Lsn, waker: &Waker) {
        self.0.push(Waiter { lsn, waker: waker.clone() });
    }

    fn wake(&mut self, mark: Lsn) {
        while self.0.peek().is_some_and(|first| first.lsn <= mark) {
            self.0.pop().expect("peeked").waker.wake();
        }
    }

    fn wake_all(&mut self) {
        self.wake(Lsn(u64::MAX));
    }
}

/// Numbers for `counters`.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) transactions: u64,
    pub(super) reruns: u64,
    pub(super) buckets_loaded: u64,
    pub(super) buckets_written: u64,
    pub(super) checkpoints: u64,
    pub(super) flushes: u64,
    pub(super) data_bytes_written: u64,
    pub(super) data_bytes_read: u64,
    pub(super) replayed: u64,
    pub(super) discarded_bytes: u64,
}

pub(super) struct State {
    pub(super) sync: Sync,
    pub(super) arena: Arena,
    pub(super) wal: Wal,
    pub(super) space: Space,
    pub(super) pending: Pending,
    pub(super) marks: Marks,
    pub(super) incomplete: VecDeque<Incomplete>,
    pub(super) acknowledged: Waiters,
    pub(super) stable: Waiters,
    pub(super) last_epoch: Epoch,
    /// Newest strip batch begun, home and flushed, and known on stable media to be home.
    pub(super) strip_batch: u64,
    pub(super) strip_done: u64,
    pub(super) strip_persisted: u64,
    /// Reserved blocks that nobody wants any more; some may still be being written.
    pub(super) cancelled: Vec<BlockRun>,
    pub(super) unstable_bytes: u64,
    pub(super) latch: Option<Arc<str>>,
    pub(super) scratch: Scratch,
    pub(super) counts: Counts,
}

impl State {
    /// The latch, as an error.
    pub(super) fn check(&self) -> Result<()> {
        match &self.latch {
            Some(reason) => Err(Error::Latched { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// What may be answered.
    pub(super) fn commit_mark(&self) -> Lsn {
        self.sync.acknowledged(&self.marks)
    }

    /// Moves the mark over transactions that became complete.
    pub(super) fn advance(&mut self) {
        if self.latch.is_some() {
            return;
        }
        while self.incomplete.front().is_some_and(|first| first.is_complete(&self.wal)) {
            self.marks.complete = self.incomplete.pop_front().expect("front is there").lsn;
        }
        self.acknowledged.wake(self.commit_mark());
    }

    /// A flush is done that began when `complete` and `written_seq` were what they are here.
    pub(super) fn flushed(&mut self, complete: Lsn, written_seq: u64) {
        self.counts.flushes += 1;
        self.marks.stabilized(complete);
        if let Some((mark, strip)) = self.wal.stable(written_seq) {
            self.persisted(mark, strip);
        }
        self.acknowledged.wake(self.commit_mark());
        self.stable.wake(self.marks.stable);
    }

    /// A block or header with this mark is on stable media.
    pub(super) fn persisted(&mut self, mark: Lsn, strip: u64) {
        self.marks.persisted = self.marks.persisted.max(mark);
        self.strip_persisted = self.strip_persisted.max(strip);
    }

    /// Stops for good: nothing above the mark will ever be acknowledged.
    pub(super) fn set_latch(&mut self, reason: &str) {
        if self.latch.is_none() {
            tracing::error!(reason, "the target stops accepting changes");
            self.latch = Some(reason.into());
        }
        self.acknowledged.wake_all();
        self.stable.wake_all();
    }

    /// Gives back cancelled reservations whose device writes are complete; whether there were any.
    pub(super) fn drain_cancelled(&mut self) -> bool {
        let before = self.cancelled.len();
        let (pending, space) = (&self.pending, &mut self.space);
        self.cancelled.retain(|run| {
            let busy = pending.overlaps(*run);
            if !busy {
                space.release(*run);
            }
            busy
        });
        self.cancelled.len() < before
    }

    /// Notes bytes that a power cut would take; when there are too many of them, asks for a flush.
    pub(super) fn add_unstable(&mut self, bytes: u64) {
        self.unstable_bytes += bytes;
        if self.unstable_bytes > UNSTABLE_BYTES_MAX {
            self.unstable_bytes = 0;
            self.marks.want(self.marks.newest);
        }
    }
}
