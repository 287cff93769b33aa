//! Attributes of directories that the kernel may take in after they have changed.
//!
//! The kernel takes in what a LOOKUP, GETATTR, STATX or READDIRPLUS answers when the thread that asked runs again. A MKDIR of another
//! thread may be answered in between: then the kernel first notes that the directory's attributes are to be asked for, and then
//! takes that note off for the older ones, which it believes for as long as it was told (a day). It guards itself against that
//! for writes, truncates, links and whatever SETATTR does (`attr_version`), not for what changes in directories. (Nor for fallocate and
//! xattrs, nor for what a rename moves; these are rare: after each the kernel is told.)
//!
//! # Invariants
//! 1. Whoever gives a directory's attributes marks it, then looks whether a change was made since it was asked; if so they are given
//!    for no time at all. Whoever has changed a directory counts the change, then looks for the mark; if it is there the kernel is told
//!    to ask again, which it guards. So of a change and of older attributes one sees the other.
//! 2. A mark lives for [`KEPT`] at least, which is for how long a thread with an answer may have to wait for a CPU.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dfs::Ino;

use crate::notices::{Notice, Notices};

const KEPT: Duration = Duration::from_secs(1);
const PLACES: usize = 256;

/// Changes of directories before something was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked(u64);

pub struct Given {
    notices: Arc<Notices>,
    changes: AtomicU64,
    marks: Mutex<Marks>,
    /// How many marks there are, by directory: most changes find none, and take no lock.
    counts: Box<[AtomicU32; PLACES]>,
}

/// The younger ones, and those that were made before `turned`.
struct Marks {
    young: HashSet<Ino>,
    old: HashSet<Ino>,
    turned: Instant,
}

impl Given {
    /// Of a mount whose kernel is told by these.
    pub fn new(notices: Arc<Notices>) -> Self {
        let marks = Marks { young: HashSet::new(), old: HashSet::new(), turned: Instant::now() };
        let counts = Box::new([const { AtomicU32::new(0) }; PLACES]);
        Self { notices, changes: AtomicU64::new(0), marks: Mutex::new(marks), counts }
    }

    fn count(&self, directory: Ino) -> &AtomicU32 {
        &self.counts[directory.0 as usize % PLACES]
    }

    /// Before attributes are read.
    pub fn asked(&self) -> Asked {
        Asked(self.changes.load(SeqCst))
    }

    /// A directory's attributes, read since `asked`, will be given; true if they may be believed.
    pub fn give(&self, directory: Ino, asked: Asked) -> bool {
        {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if !marks.young.contains(&directory) {
                for gone in marks.turn() {
                    self.count(gone).fetch_sub(1, SeqCst);
                }
                marks.young.insert(directory);
                self.count(directory).fetch_add(1, SeqCst);
            }
        }
        self.changes.load(SeqCst) == asked.0
    }

    /// The directory was changed: the kernel is told, if it may have older attributes.
    pub fn changed(&self, directory: Ino) {
        self.changes.fetch_add(1, SeqCst);
        if self.count(directory).load(SeqCst) > 0 && self.take_marks(directory) {
            self.tell(directory);
        }
    }

    fn take_marks(&self, directory: Ino) -> bool {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let Marks { young, old, .. } = &mut *marks;
        let taken = u32::from(young.remove(&directory)) + u32::from(old.remove(&directory));
        self.count(directory).fetch_sub(taken, SeqCst);
        taken > 0
    }

    /// The kernel is to ask for attributes again.
    pub fn tell(&self, ino: Ino) {
        if !self.notices.offer(Notice::Attributes(ino)) {
            tracing::warn!("too many notices wait: attributes of {ino} may be old");
        }
    }
}

impl Marks {
    /// Those that are not kept any longer.
    fn turn(&mut self) -> HashSet<Ino> {
        if self.young.is_empty() || self.turned.elapsed() < KEPT {
            return HashSet::new();
        }
        self.turned = Instant::now();
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Given {
        /// Whether the kernel is told of this change.
        fn tells(&self, directory: Ino) -> bool {
            self.changes.fetch_add(1, SeqCst);
            self.count(directory).load(SeqCst) > 0 && self.take_marks(directory)
        }
    }

    #[test]
    fn of_a_change_and_older_attributes_one_sees_the_other() {
        let given = Given::new(Arc::default());
        let (a, b) = (Ino(7), Ino(8));
        let asked = given.asked();
        assert!(given.give(a, asked), "nothing has changed");
        assert!(given.tells(a) && !given.tells(a), "told once");
        assert!(!given.tells(b), "nobody knows it");
        assert!(!given.tells(Ino(a.0 + PLACES as u64)), "nor what is counted with another");
        assert!(!given.give(a, asked), "they may be older than the change");
        assert!(given.give(a, given.asked()));
    }

    #[test]
    fn marks_are_kept_for_a_while_and_not_for_ever() {
        let given = Given::new(Arc::default());
        let one = |n: u64| Ino(n * PLACES as u64);
        for n in 0..3 {
            given.give(one(n), given.asked());
            given.marks.lock().unwrap().turned -= KEPT;
        }
        assert_eq!(given.count(one(0)).load(SeqCst), 2, "one has gone two turns ago");
        assert!(!given.tells(one(0)));
        assert!(given.tells(one(1)) && given.tells(one(2)));
        assert_eq!(given.count(one(0)).load(SeqCst), 0);
    }
}
