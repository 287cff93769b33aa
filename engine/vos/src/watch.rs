//! Objects that must not change between a look at them, which may take several steps, and the transaction that rests on it.
//!
//! # Invariants
//! 1. A watch that is not disturbed: no transaction that names its object was committed since it was set.
//! 2. A transaction looks at its watches in its closure, before it changes anything: from then on nobody comes between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use daos_types::{ContainerId, ObjectId};

type Entry = (ContainerId, ObjectId, Rc<Cell<bool>>);

/// All watches of a target.
#[derive(Clone, Default)]
pub(crate) struct Watches(Rc<RefCell<Vec<Entry>>>);

impl Watches {
    pub fn set(&self, container: ContainerId, object: ObjectId) -> Watch {
        let disturbed = Rc::new(Cell::new(false));
        self.0.borrow_mut().push((container, object, disturbed.clone()));
        Watch { watches: self.clone(), disturbed }
    }

    /// Nobody watches: nothing needs to be told.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// A transaction that may have changed the object was committed.
    pub fn disturb(&self, container: ContainerId, object: ObjectId) {
        for (_, _, disturbed) in
            self.0.borrow().iter().filter(|(c, o, _)| (*c, *o) == (container, object))
        {
            disturbed.set(true);
        }
    }
}

/// One of them, until it is dropped.
pub(crate) struct Watch {
    watches: Watches,
    disturbed: Rc<Cell<bool>>,
}

impl Watch {
    pub fn is_disturbed(&self) -> bool {
        self.disturbed.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.0.borrow_mut().retain(|(_, _, other)| !Rc::ptr_eq(other, &self.disturbed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_watched_object_disturb_and_only_while_it_is_watched() {
        let watches = Watches::default();
        let object = |lo| ObjectId { hi: 0, lo };
        watches.disturb(ContainerId(1), object(1));
        let (one, two) =
            (watches.set(ContainerId(1), object(1)), watches.set(ContainerId(1), object(2)));
        watches.disturb(ContainerId(2), object(1));
        watches.disturb(ContainerId(1), object(3));
        assert!(!one.is_disturbed() && !two.is_disturbed());
        watches.disturb(ContainerId(1), object(1));
        assert!(one.is_disturbed() && !two.is_disturbed());
        drop((one, two));
        assert!(watches.is_empty());
    }
}
