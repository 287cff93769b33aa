//! How many inodes the mounts of one process know together: a table that is not used any more gives way to those that are.
//!
//! # Order
//! The list of tables is locked alone: no table's mutex is held with it, nor with another table's.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::table::Inodes;

/// Inodes of which only the lookups are counted, for each one that is known: a full map then, of a power of two.
pub(crate) const DROPPED_PER_INODE: usize = 7;
const INODES_MIN: usize = 16;

/// A bound on what several mounts remember of inodes.
#[derive(Debug)]
pub struct Budget {
    inodes_max: usize,
    known: AtomicUsize,
    dropped: AtomicUsize,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    all: Vec<Weak<Inodes>>,
    /// Whose turn it is to be looked at.
    next: usize,
}

impl Budget {
    #[must_use]
    pub fn new(inodes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inodes_max: inodes_max.max(INODES_MIN),
            known: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            tables: Mutex::default(),
        })
    }

    #[must_use]
    pub fn inodes_max(&self) -> usize {
        self.inodes_max
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn join(&self, table: &Arc<Inodes>) {
        let mut tables = self.tables();
        tables.all.retain(|other| other.strong_count() > 0);
        tables.all.push(Arc::downgrade(table));
    }

    pub(crate) fn came(&self) {
        self.known.fetch_add(1, Relaxed);
    }

    pub(crate) fn went(&self, count: usize) {
        self.known.fetch_sub(count, Relaxed);
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.known.load(Relaxed) > self.inodes_max
    }

    /// Room for one more whose lookups are counted on.
    pub(crate) fn takes_dropped(&self) -> bool {
        let room = self.dropped.load(Relaxed) < DROPPED_PER_INODE * self.inodes_max;
        if room {
            self.dropped.fetch_add(1, Relaxed);
        }
        room
    }

    pub(crate) fn dropped_went(&self, count: usize) {
        self.dropped.fetch_sub(count, Relaxed);
    }

    /// The table that is to drop some for what `own` has taken in: the larger one of it and another in turn. So the largest is found
    /// soon, however many there are.
    pub(crate) fn who_drops(&self, own: &Arc<Inodes>) -> Arc<Inodes> {
        let mut tables = self.tables();
        let next = tables.next.checked_rem(tables.all.len()).unwrap_or(0);
        tables.next = next + 1;
        let other = tables.all.get(next).and_then(Weak::upgrade);
        other.filter(|other| other.len() > own.len()).unwrap_or_else(|| own.clone())
    }
}
