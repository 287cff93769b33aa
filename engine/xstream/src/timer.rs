//! Timers of one xstream, in order of their deadlines.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;

/// A timer's place in the order: deadline, then order of registration.
pub(crate) type TimerKey = (u64, u64);

#[derive(Default)]
pub(crate) struct Timers {
    waiting: RefCell<BTreeMap<TimerKey, Waker>>,
    registered: Cell<u64>,
}

impl Timers {
    pub fn register(&self, deadline_ns: u64, waker: Waker) -> TimerKey {
        let key = (deadline_ns, self.registered.get());
        self.registered.set(key.1 + 1);
        self.waiting.borrow_mut().insert(key, waker);
        key
    }

    /// Exchanges the waker of a timer that has not fired.
    pub fn rearm(&self, key: TimerKey, waker: &Waker) {
        if let Some(old) = self.waiting.borrow_mut().get_mut(&key) {
            old.clone_from(waker);
        }
    }

    pub fn cancel(&self, key: TimerKey) {
        let _waker = self.waiting.borrow_mut().remove(&key);
    }

    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.waiting.borrow().keys().next().map(|key| key.0)
    }

    /// Wakes every timer whose deadline is at or before `now_ns`; true if there was one.
    pub fn fire(&self, now_ns: u64) -> bool {
        let mut fired = false;
        loop {
            let waker = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(first) if first.key().0 <= now_ns => first.remove(),
                    _ => return fired,
                }
            };
            waker.wake();
            fired = true;
        }
    }

    pub fn clear(&self) {
        let _wakers = self.waiting.take();
    }
}
