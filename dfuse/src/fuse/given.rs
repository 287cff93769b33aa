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
//! 3. A thread that changes a directory has taken in all that it was given before: its own mark needs no notice. (An unpacking asks for
//!    the directory's attributes after every file that it makes there.)

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dfs::Ino;

const KEPT: Duration = Duration::from_secs(1);

/// A thread, by the number that the kernel gives it in the mount's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(pub u32);

impl Thread {
    /// More than one; or one that has no number there.
    const SEVERAL: Self = Self(0);

    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::SEVERAL }
    }
}

/// Who asks, and the changes of directories before that.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    by: Thread,
    changes: u64,
}

pub struct Given {
    changes: AtomicU64,
    marks: Mutex<Marks>,
}

/// The younger ones, and those that were made before `turned`.
struct Marks {
    young: HashMap<Ino, Thread>,
    old: HashMap<Ino, Thread>,
    turned: Instant,
}

impl Default for Given {
    fn default() -> Self {
        let marks = Marks { young: HashMap::new(), old: HashMap::new(), turned: Instant::now() };
        Self { changes: AtomicU64::new(0), marks: Mutex::new(marks) }
    }
}

impl Given {
    /// Before attributes are read for a thread.
    pub fn asked(&self, by: Thread) -> Asked {
        Asked { by, changes: self.changes.load(SeqCst) }
    }

    /// A directory's attributes, read since `asked`, will be given; true if they may be believed.
    pub fn give(&self, directory: Ino, asked: Asked) -> bool {
        {
            let mut marks = self.marks();
            if !marks.young.contains_key(&directory) {
                marks.turn();
            }
            let mark = marks.young.entry(directory).or_insert(asked.by);
            *mark = mark.and(asked.by);
        }
        self.changes.load(SeqCst) == asked.changes
    }

    /// The directory was changed by a thread; true if the kernel is to be told.
    pub fn changed(&self, directory: Ino, by: Thread) -> bool {
        self.changes.fetch_add(1, SeqCst);
        let mut marks = self.marks();
        let given = [marks.young.remove(&directory), marks.old.remove(&directory)];
        given.into_iter().flatten().any(|to| to != by || to == Thread::SEVERAL)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
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

    const ONE: Thread = Thread(41);
    const OTHER: Thread = Thread(42);

    #[test]
    fn of_a_change_and_older_attributes_one_sees_the_other() {
        let given = Given::default();
        let (a, b) = (Ino(7), Ino(8));
        let asked = given.asked(ONE);
        assert!(given.give(a, asked), "nothing has changed");
        assert!(given.changed(a, OTHER) && !given.changed(a, OTHER), "told once");
        assert!(!given.changed(b, OTHER), "nobody knows it");
        assert!(!given.give(a, asked), "they may be older than the change");
        assert!(given.give(a, given.asked(ONE)));
    }

    #[test]
    fn who_changes_has_taken_in_what_it_was_given_and_nobody_else_has() {
        let given = Given::default();
        let a = Ino(7);
        let give = |to| given.give(a, given.asked(to));
        assert!(give(ONE) && !given.changed(a, ONE), "its own");
        assert!(give(ONE) && give(OTHER) && given.changed(a, ONE), "another's too");
        assert!(give(OTHER) && given.changed(a, ONE), "another's only");
        assert!(give(Thread(0)) && given.changed(a, Thread(0)), "nobody knows who they are");
        given.marks().turned -= KEPT;
        assert!(give(OTHER));
        given.marks().turned -= KEPT;
        assert!(given.give(Ino(8), given.asked(ONE)) && give(ONE));
        assert!(given.changed(a, ONE), "an older one of another's");
    }

    #[test]
    fn marks_are_kept_for_a_while_and_not_for_ever() {
        let given = Given::default();
        for ino in 0..3 {
            given.give(Ino(ino), given.asked(ONE));
            given.marks().turned -= KEPT;
        }
        assert!(!given.changed(Ino(0), OTHER), "two turns ago");
        assert!(given.changed(Ino(1), OTHER) && given.changed(Ino(2), OTHER));
    }
}
