//! Whose turn an xstream is: its owner's, or for a moment a guest's.
//!
//! All that an xstream consists of ([`Core`], its tasks and what they hold) is used by one thread at a time: whoever holds
//! the turn. The owner holds it for as long as it is awake, and lets go of it only to sleep. An xstream that lends may
//! be found asleep by a thread that has just woken one of its tasks; that thread then takes the turn and runs the task itself,
//! which saves waking the owner and being woken by it (`guest.rs`).
//!
//! # Invariants
//! 1. Only the holder of the turn touches the core.
//! 2. No wake is lost. A waker sets `has_woken`, then tries to take the turn; a holder lets go of the turn, then looks at
//!    `has_woken`, with a full fence between the two on either side. So a waker that finds the turn taken is seen by its
//!    holder, and whoever sees it takes the turn again or wakes the owner. The same holds for a waker that leaves
//!    the turn to an owner that waits for it: that one takes wakes in after it has it.
//! 3. While `sleeping` (`wake.rs`) is not set, the owner runs a turn before it sleeps. So a guest that leaves anything which
//!    the owner does not know of makes sure that it is not set, and that an owner in `ppoll` is woken.
//! 4. An owner that waits for the turn gets it when the present holder lets go: guests stand back.
#![allow(unsafe_code)]

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::executor::Core;

/// Whether other threads may run an xstream while its own one sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lending(bool);

impl Lending {
    /// The xstream runs on its own thread alone.
    pub const NONE: Self = Self(false);

    /// Threads inside a [`Guest`](crate::Guest) scope run the xstream when it sleeps.
    ///
    /// # Safety
    /// Everything that ever runs on the xstream, `!Send` as it is, will be used by several threads, one at a time, each
    /// seeing what the one before it did. Whoever calls this knows that nothing there depends on *which* thread it is
    /// from one poll of a task to the next: no guard of a `std` mutex and no other object that must be dropped where it was
    /// made is kept across an await, nothing in thread-local storage outlives a poll, and no system object wants to be
    /// used by its maker alone. And that nothing of it is shared with a thread that does not hold the turn.
    #[must_use]
    pub const unsafe fn to_guests() -> Self {
        Self(true)
    }
}

pub(crate) struct Turn {
    lends: bool,
    owner_waits: AtomicBool,
    /// The lock is the turn. Empty before the xstream begins and when it has ended, and always if it does not lend.
    core: Mutex<Option<Lent>>,
}

struct Lent(Rc<Core>);

// SAFETY: a `Core` and the tasks in it are `!Send` for three reasons, and none holds between threads that take turns.
// - Cells, `RefCell`s and reference counts without synchronization: they are used by the holder of the turn alone
//   (invariant 1), and the mutex that is the turn orders one holder's uses before the next one's. The owner keeps clones of
//   the `Rc` while it sleeps, but does not touch them: `drive` and `Idle` (thread.rs) clone, drop and look through them with the
//   turn held only. A guest's clones end before its turn does (`guest::run_turns`).
// - This crate's own thread-local state: `wake::LOCAL` is set and cleared within a turn (`Entered`), or belongs to the owner
//   and is not looked at while it sleeps; `stage::CURRENT` is set and cleared within one poll.
// - What tasks hold: whoever made `Lending::to_guests` has promised that it does not depend on its thread.
// Tasks, and the core itself, are dropped by the owner at the end, with the turn held; a task that ends in a guest's turn is
// dropped there, which the same promise covers.
unsafe impl Send for Lent {}

/// The turn, while this lives.
pub(crate) struct Held<'a>(MutexGuard<'a, Option<Lent>>);

impl Held<'_> {
    /// `None` when the xstream has ended, or does not lend.
    pub fn core(&self) -> Option<&Rc<Core>> {
        self.0.as_ref().map(|lent| &lent.0)
    }

    /// The xstream begins: from now on guests find it.
    pub fn begin(&mut self, core: &Rc<Core>) {
        if core.remote.turn.lends {
            *self.0 = Some(Lent(core.clone()));
        }
    }

    /// The xstream has ended.
    pub fn end(&mut self) {
        let _core = self.0.take();
    }
}

impl Turn {
    pub fn new(lending: Lending) -> Self {
        Self { lends: lending.0, owner_waits: AtomicBool::new(false), core: Mutex::new(None) }
    }

    pub fn lends(&self) -> bool {
        self.lends
    }

    /// For the owner.
    pub fn take(&self) -> Held<'_> {
        self.owner_waits.store(true, SeqCst);
        let held = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        self.owner_waits.store(false, SeqCst);
        Held(held)
    }

    /// For guests; `None` if it is taken, or its owner waits for it.
    pub fn try_take(&self) -> Option<Held<'_>> {
        if self.owner_waits() {
            return None;
        }
        match self.core.try_lock() {
            Ok(held) => Some(Held(held)),
            Err(TryLockError::Poisoned(held)) => Some(Held(held.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub fn owner_waits(&self) -> bool {
        self.owner_waits.load(SeqCst)
    }
}
