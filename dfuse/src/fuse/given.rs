//! Attributes of directories that the kernel may take in after they have changed.
//!
//! The kernel takes in what a LOOKUP, GETATTR, STATX or READDIRPLUS answers when the thread that asked runs again. A MKDIR of another
//! thread may be answered in between: then the kernel first notes that the directory's attributes are to be asked for, and then
//! takes that note off for the older ones, which it believes for as long as it was told (a day). It guards itself against that
//! for writes, truncates, links and whatever SETATTR does (`attr_version`), not for what changes in directories. (Nor for fallocate and
//! xattrs, which are rare: after each the kernel is told.)
//!
//! # Invariants
//! 1. Whoever gives a directory's attributes marks it, then looks whether a change was made since it was asked; if so they are given
//!    for no time at all. Whoever has changed a directory counts the change, then looks for the mark; if it is there the kernel is told
//!    to ask again, which it guards. So of a change and of older attributes one sees the other.
//! 2. A mark lives for [`KEPT`] at least, which is for how long a thread with an answer may have to wait for a CPU.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dfs::Ino;

const KEPT: Duration = Duration::from_secs(1);

/// Changes of directories before something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked(u64);

pub struct Given {
    changes: AtomicU64,
    marks: Mutex<Marks>,
}

/// The younger ones, and those that were made before `turned`.
struct Marks {
    young: HashSet<Ino>,
    old: HashSet<Ino>,
    turned: Instant,
}

impl Default for Given {
    fn default() -> Self {
        let marks = Marks { young: HashSet::new(), old: HashSet::new(), turned: Instant::now() };
        Self { changes: AtomicU64::new(0), marks: Mutex::new(marks) }
    }
}

impl Given {
    /// Before attributes are read.
    pub fn asked(&self) -> Asked {
        Asked(self.changes.load(SeqCst))
    }

    /// A directory's attributes, read since `asked`, will be given; true if they may be believed.
    pub fn give(&self, directory: Ino, asked: Asked) -> bool {
        {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if !marks.young.contains(&directory) {
                marks.turn();
                marks.young.insert(directory);
            }
        }
        self.changes.load(SeqCst) == asked.0
    }

    /// The directory was changed; true if the kernel is to be told.
    pub fn changed(&self, directory: Ino) -> bool {
        self.changes.fetch_add(1, SeqCst);
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let young = marks.young.remove(&directory);
        marks.old.remove(&directory) || young
    }
}

impl Marks {
    fn turn(&mut self) {
        if self.young.is_empty() || self.turned.elapsed() < KEPT {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        self.turned = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_change_and_older_attributes_one_sees_the_other() {
        let given = Given::default();
        let (a, b) = (Ino(7), Ino(8));
        let asked = given.asked();
        assert!(given.give(a, asked), "nothing has changed");
        assert!(given.changed(a) && !given.changed(a), "told once");
        assert!(!given.changed(b), "nobody knows it");
        assert!(!given.give(a, asked), "they may be older than the change");
        assert!(given.give(a, given.asked()));
    }

    #[test]
    fn marks_are_kept_for_a_while_and_not_for_ever() {
        let given = Given::default();
        for ino in 0..3 {
            given.give(Ino(ino), given.asked());
            given.marks.lock().unwrap().turned -= KEPT;
        }
        assert!(!given.changed(Ino(0)), "two turns ago");
        assert!(given.changed(Ino(1)) && given.changed(Ino(2)));
    }
}
