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
//! 3. A thread that changes a directory has taken in all that it was given before: its own mark needs no notice. (An unpacking asks for
//!    the directory's attributes after every file that it makes there.)

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dfs::Ino;

use crate::notices::{Notice, Notices};

const KEPT: Duration = Duration::from_secs(1);
const PLACES: usize = 256;

/// A thread, by the number that the kernel gives it in the mount's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(pub u32);

impl Thread {
    /// More than one; or one that has no number there.
    pub const SEVERAL: Self = Self(0);

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
    notices: Arc<Notices>,
    changes: AtomicU64,
    marks: Mutex<Marks>,
    /// How many marks there are, by directory: most changes find none, and take no lock.
    counts: Box<[AtomicU32; PLACES]>,
}

/// The younger ones, and those that were made before `turned`.
struct Marks {
    young: HashMap<Ino, Thread>,
    old: HashMap<Ino, Thread>,
    turned: Instant,
}

impl Given {
    /// Of a mount whose kernel is told by these.
    pub fn new(notices: Arc<Notices>) -> Self {
        let marks = Marks { young: HashMap::new(), old: HashMap::new(), turned: Instant::now() };
        let counts = Box::new([const { AtomicU32::new(0) }; PLACES]);
        Self { notices, changes: AtomicU64::new(0), marks: Mutex::new(marks), counts }
    }

    fn count(&self, directory: Ino) -> &AtomicU32 {
        &self.counts[directory.0 as usize % PLACES]
    }

    /// Before attributes are read for a thread.
    pub fn asked(&self, by: Thread) -> Asked {
        Asked { by, changes: self.changes.load(SeqCst) }
    }

    /// A directory's attributes, read since `asked`, will be given; true if they may be believed.
    pub fn give(&self, directory: Ino, asked: Asked) -> bool {
        {
            let mut marks = self.marks();
            if let Some(mark) = marks.young.get_mut(&directory) {
                *mark = mark.and(asked.by);
            } else {
                for gone in marks.turn().into_keys() {
                    self.count(gone).fetch_sub(1, SeqCst);
                }
                marks.young.insert(directory, asked.by);
                self.count(directory).fetch_add(1, SeqCst);
            }
        }
        self.changes.load(SeqCst) == asked.changes
    }

    /// The directory was changed by a thread: the kernel is told, if another may have older attributes.
    pub fn changed(&self, directory: Ino, by: Thread) {
        if self.is_to_be_told(directory, by) {
            self.tell(directory);
        }
    }

    /// As `changed`; whether the kernel is to be told.
    pub fn is_to_be_told(&self, directory: Ino, by: Thread) -> bool {
        self.changes.fetch_add(1, SeqCst);
        if self.count(directory).load(SeqCst) == 0 {
            return false;
        }
        let mut marks = self.marks();
        let taken = [marks.young.remove(&directory), marks.old.remove(&directory)];
        let taken = || taken.into_iter().flatten();
        self.count(directory).fetch_sub(taken().count() as u32, SeqCst);
        taken().any(|to| to != by || to == Thread::SEVERAL)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn turn(&mut self) -> HashMap<Ino, Thread> {
        if self.young.is_empty() || self.turned.elapsed() < KEPT {
            return HashMap::new();
        }
        self.turned = Instant::now();
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Thread = Thread(41);
    const OTHER: Thread = Thread(42);

    impl Given {
        /// Whether the kernel is told of this change of another thread.
        fn tells(&self, directory: Ino) -> bool {
            self.is_to_be_told(directory, OTHER)
        }
    }

    #[test]
    fn of_a_change_and_older_attributes_one_sees_the_other() {
        let given = Given::new(Arc::default());
        let (a, b) = (Ino(7), Ino(8));
        let asked = given.asked(ONE);
        assert!(given.give(a, asked), "nothing has changed");
        assert!(given.tells(a) && !given.tells(a), "told once");
        assert!(!given.tells(b), "nobody knows it");
        assert!(!given.tells(Ino(a.0 + PLACES as u64)), "nor what is counted with another");
        assert!(!given.give(a, asked), "they may be older than the change");
        assert!(given.give(a, given.asked(ONE)));
    }

    #[test]
    fn who_changes_has_taken_in_what_it_was_given_and_nobody_else_has() {
        let given = Given::new(Arc::default());
        let a = Ino(7);
        let give = |to| given.give(a, given.asked(to));
        let tells = |by| given.is_to_be_told(a, by);
        assert!(give(ONE) && !tells(ONE), "its own");
        assert!(give(ONE) && give(OTHER) && tells(ONE), "another's too");
        assert!(give(OTHER) && tells(ONE), "another's only");
        assert!(give(Thread(0)) && tells(Thread(0)), "nobody knows who they are");
        assert!(give(OTHER));
        given.marks().turned -= KEPT;
        assert!(given.give(Ino(8), given.asked(ONE)) && give(ONE));
        assert!(tells(ONE), "an older one of another's");
    }

    #[test]
    fn marks_are_kept_for_a_while_and_not_for_ever() {
        let given = Given::new(Arc::default());
        let one = |n: u64| Ino(n * PLACES as u64);
        for n in 0..3 {
            given.give(one(n), given.asked(ONE));
            given.marks().turned -= KEPT;
        }
        assert_eq!(given.count(one(0)).load(SeqCst), 2, "one has gone two turns ago");
        assert!(!given.tells(one(0)));
        assert!(given.tells(one(1)) && given.tells(one(2)));
        assert_eq!(given.count(one(0)).load(SeqCst), 0);
    }
}
