//! Where the last searches of a run ended: a search nearby begins there and not at the root.
//!
//! # Invariants
//! 1. A finger is a path of its tree as the tree is now. Whoever allocates or frees a bucket, or takes a node out of a
//!    tree, lifts all fingers; keys may move between leaves that stay, because a leaf is asked again each time.
//! 2. A key is in the leaf if it belongs there: when it lies between two keys of it, or at a border of the tree.

use std::cell::{Cell, RefCell};

use smallvec::SmallVec;

use super::tree::HEIGHT_MAX;
use crate::pages::BucketId;

/// Trees of which a run keeps a finger: the object table, two objects and the containers.
const FINGERS: usize = 4;

/// Buckets from the root to a leaf, each with the slot that leads on.
pub(super) type Path = SmallVec<[(BucketId, u16); HEIGHT_MAX]>;

/// A path, and whether its leaf is the first or the last of the tree.
#[derive(Clone, Debug)]
pub(super) struct Finger {
    pub(super) path: Path,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Finger {
    pub(super) fn root(&self) -> BucketId {
        self.path[0].0
    }

    pub(super) fn leaf(&self) -> BucketId {
        self.path[self.path.len() - 1].0
    }

    /// Whether a key that was searched for in the leaf with this result belongs there.
    pub(super) fn covers(&self, found: Result<usize, usize>, count: usize) -> bool {
        match found {
            Ok(_) => true,
            Err(index) => (index > 0 || self.is_first) && (index < count || self.is_last),
        }
    }
}

/// The fingers of one run of a closure.
#[derive(Clone, Debug, Default)]
pub struct Fingers {
    fingers: RefCell<[Option<Finger>; FINGERS]>,
    next: Cell<usize>,
}

impl Fingers {
    /// What `with` makes of the finger in this tree.
    pub(super) fn with<T>(
        &self,
        root: BucketId,
        with: impl FnOnce(&Finger) -> Option<T>,
    ) -> Option<T> {
        let fingers = self.fingers.borrow();
        with(fingers.iter().flatten().find(|finger| finger.root() == root)?)
    }

    pub(super) fn put(&self, finger: Finger) {
        let mut fingers = self.fingers.borrow_mut();
        let here = |other: &Option<Finger>| {
            other.as_ref().is_none_or(|other| other.root() == finger.root())
        };
        // A tree has one finger: its place comes before any that is empty.
        let same = fingers.iter().position(|other| other.is_some() && here(other));
        let at = same.or_else(|| fingers.iter().position(here)).unwrap_or_else(|| {
            self.next.set((self.next.get() + 1) % FINGERS);
            self.next.get()
        });
        fingers[at] = Some(finger);
    }

    /// The trees change their shape.
    pub fn lift(&mut self) {
        self.fingers.get_mut().fill(None);
    }
}
