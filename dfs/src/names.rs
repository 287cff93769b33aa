//! What a mount knows of names without asking: where some lead, and which cannot be in a directory that it made itself.
//!
//! # Invariants
//! 1. A hint is only where to look: it counts if the inode's home, which own changes keep right, says the same name.
//! 2. The names of a directory are a superset: a name is added before its transaction is sent and never taken away. So what
//!    is not among them is not in the directory. Only hashes are kept; two names of one hash only cost a question.
//! 3. At most `hints_max` hints, [`DIRECTORIES_MAX`] directories, and [`NAMES_MAX`] names in all of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Ino;

const DIRECTORIES_MAX: usize = 16_384;
const NAMES_MAX: usize = 1 << 20;

pub(crate) struct Names {
    hints_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the hash of the directory and the name.
    hints: HashMap<u64, Ino>,
    /// A million names are 10 MiB.
    whole: HashMap<Ino, HashSet<u32>>,
    /// Directories in `whole`, oldest first.
    order: VecDeque<Ino>,
    /// Names in `whole`.
    count: usize,
}

/// Of a name in its directory.
fn short_hash(name: &[u8]) -> u32 {
    xxh3_64(name) as u32
}

fn hint_hash(parent: Ino, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, parent.0)
}

impl State {
    fn drop_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        self.count -= self.whole.remove(&oldest).map_or(0, |names| names.len());
    }
}

impl Names {
    /// 0: remember nothing.
    pub(crate) fn new(hints_max: usize) -> Self {
        Self { hints_max, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this mutex")
    }

    /// Where `name` led when somebody looked.
    pub(crate) fn hint(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.state().hints.get(&hint_hash(parent, name)).copied()
    }

    pub(crate) fn learn(&self, parent: Ino, name: &[u8], ino: Ino) {
        if self.hints_max == 0 {
            return;
        }
        let mut state = self.state();
        if state.hints.len() >= self.hints_max {
            state.hints.clear();
        }
        state.hints.insert(hint_hash(parent, name), ino);
    }

    /// `directory` was just made: it has no names.
    pub(crate) fn new_directory(&self, directory: Ino) {
        if self.hints_max == 0 {
            return;
        }
        let mut state = self.state();
        if state.order.len() >= DIRECTORIES_MAX {
            state.drop_oldest();
        }
        state.order.push_back(directory);
        state.whole.insert(directory, HashSet::new());
    }

    /// `directory` may have `name` from now on: before it is sent.
    pub(crate) fn may_come(&self, directory: Ino, name: &[u8]) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(names) = state.whole.get_mut(&directory) else { return };
        state.count += usize::from(names.insert(short_hash(name)));
        while state.count > NAMES_MAX {
            state.drop_oldest();
        }
    }

    /// `directory` certainly does not have `name`.
    pub(crate) fn cannot_be(&self, directory: Ino, name: &[u8]) -> bool {
        let state = self.state();
        state.whole.get(&directory).is_some_and(|names| !names.contains(&short_hash(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_directories_are_known_whole() {
        let names = Names::new(10);
        assert!(!names.cannot_be(Ino(1), b"a"));
        names.new_directory(Ino(1));
        assert!(names.cannot_be(Ino(1), b"a"));
        names.may_come(Ino(1), b"a");
        assert!(!names.cannot_be(Ino(1), b"a"));
        assert!(names.cannot_be(Ino(1), b"b"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let names = Names::new(10);
        for ino in 0..30_000 {
            names.new_directory(Ino(ino));
            names.learn(Ino(ino), b"a", Ino(ino));
        }
        assert!(names.state().hints.len() <= 10);
        assert_eq!(names.state().whole.len(), DIRECTORIES_MAX);
        // Some share their hash.
        for i in 0..NAMES_MAX as u64 + 1000 {
            names.may_come(Ino(29_999), &i.to_le_bytes());
        }
        assert!(!names.cannot_be(Ino(29_999), b"x"), "too many to know them all");
        assert!(names.state().count <= NAMES_MAX);
    }

    #[test]
    fn a_mount_without_caches_remembers_nothing() {
        let names = Names::new(0);
        names.new_directory(Ino(1));
        names.learn(Ino(1), b"a", Ino(2));
        assert!(!names.cannot_be(Ino(1), b"a"));
        assert_eq!(names.hint(Ino(1), b"a"), None);
    }
}
