//! Where the last searches of a run ended: a search nearby begins there and not at the root. The object table has several.
//!
//! # Invariants
//! 1. A finger is a path of its tree as the tree is now. Whoever allocates or frees a bucket, or takes a node out of a
//!    tree, lifts all fingers; keys may move between leaves that stay, because a leaf is asked again each time.
//! 2. A key is in the leaf if it belongs there: when it lies between two keys of it, or at a border of the tree.

use std::cell::{Cell, RefCell};

use smallvec::SmallVec;

use super::node::Node;
use super::tree::HEIGHT_MAX;
use crate::pages::BucketId;

/// Fingers that a run keeps: in the object table at the records and the pairs of two objects, and at the container's record.
const FINGERS: usize = 6;

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

    /// Where a key is in the leaf, if it belongs there.
    pub(super) fn search(&self, leaf: Node<'_>, key: &[u8]) -> Option<Result<usize, usize>> {
        leaf.search_inside(key, self.is_first, self.is_last)
    }
}

/// The fingers of one run of a closure.
#[derive(Clone, Debug, Default)]
pub struct Fingers {
    fingers: RefCell<[Option<Finger>; FINGERS]>,
    /// From the one that was of use last to the one that was not for longest.
    order: Cell<Order>,
}

#[derive(Clone, Copy, Debug)]
struct Order([u8; FINGERS]);

impl Default for Order {
    fn default() -> Self {
        Self(std::array::from_fn(|index| index as u8))
    }
}

impl Order {
    /// Moves what is at `at` to the front.
    fn to_front(mut self, at: usize) -> Self {
        self.0[..=at].rotate_right(1);
        self
    }
}

impl Fingers {
    /// The first that `with` makes of a finger in this tree.
    pub(super) fn with<T>(
        &self,
        root: BucketId,
        mut with: impl FnMut(&Finger) -> Option<T>,
    ) -> Option<T> {
        let (fingers, order) = (self.fingers.borrow(), self.order.get());
        for (at, &index) in order.0.iter().enumerate() {
            let finger = fingers[usize::from(index)].as_ref();
            if let Some(found) = finger.filter(|finger| finger.root() == root).and_then(&mut with) {
                if at > 0 {
                    self.order.set(order.to_front(at));
                }
                return Some(found);
            }
        }
        None
    }

    pub(super) fn put(&self, finger: Finger) {
        let (mut fingers, order) = (self.fingers.borrow_mut(), self.order.get());
        // A leaf has one finger: it was not at hand for its last key only because that lies at the leaf's border.
        let here = |other: &Finger| other.leaf() == finger.leaf();
        let same = |index: &u8| fingers[usize::from(*index)].as_ref().is_none_or(here);
        let at = order.0.iter().position(same).unwrap_or(FINGERS - 1);
        fingers[usize::from(order.0[at])] = Some(finger);
        self.order.set(order.to_front(at));
    }

    /// The trees change their shape.
    pub fn lift(&mut self) {
        self.fingers.get_mut().fill(None);
    }
}
