//! Waking tasks, from their own xstream (a push to its ready queue) and from other threads (a push to a shared
//! list, and one write to an eventfd if the xstream sleeps).
//!
//! # Invariants
//! 1. A task is in the ready queue or the shared list at most once: `queued` is set before it enters and cleared
//!    before it is polled.
//! 2. No wake is lost: the sleeper announces `sleeping`, then looks at the list again; the waker pushes, then looks at
//!    `sleeping`. Both are sequentially consistent. A waker inside a scope of `guest.rs` does neither: it tries to run the
//!    xstream itself, and `turn.rs` says why nothing is lost then.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

use crate::executor::Core;
use crate::guest;
use crate::turn::{Lending, Turn};

thread_local! {
    /// The executor that runs on this thread.
    static LOCAL: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// A place in the task table; the generation tells a task from a later one in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskId {
    pub index: u32,
    pub generation: u32,
}

/// The side of an executor that other threads may touch.
pub(crate) struct Remote {
    woken: Mutex<Vec<TaskId>>,
    has_woken: AtomicBool,
    sleeping: AtomicBool,
    event: OwnedFd,
    pub turn: Turn,
}

impl Remote {
    pub fn new(lending: Lending) -> std::io::Result<Self> {
        Ok(Self {
            woken: Mutex::new(Vec::new()),
            has_woken: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            turn: Turn::new(lending),
        })
    }

    fn push(self: &Arc<Self>, id: TaskId) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.has_woken.store(true, SeqCst);
        if !(self.turn.lends() && guest::leave_to_scope(self)) {
            self.wake_owner();
        }
    }

    /// The owner runs a turn after this, even if it sleeps now.
    pub fn wake_owner(&self) {
        if self.sleeping.swap(false, SeqCst) {
            // Fails only when the counter is full, and then the sleeper wakes anyway.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    pub fn has_woken(&self) -> bool {
        self.has_woken.load(SeqCst)
    }

    /// Moves what other threads woke into `into`, which is empty.
    pub fn take(&self, into: &mut Vec<TaskId>) {
        debug_assert!(into.is_empty());
        if self.has_woken.swap(false, SeqCst) {
            std::mem::swap(into, &mut self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Announces sleep; false if something was woken meanwhile and the thread must not sleep.
    pub fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, SeqCst);
        if self.has_woken() {
            self.sleeping.store(false, SeqCst);
            return false;
        }
        true
    }

    /// `event`: whether it was readable. If it becomes so only now, the next sleep is short.
    pub fn finish_sleep(&self, event: bool) {
        self.sleeping.store(false, SeqCst);
        if event {
            let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        }
    }

    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// What a task's `Waker` points to.
pub(crate) struct TaskWaker {
    pub id: TaskId,
    pub queued: AtomicBool,
    pub remote: Arc<Remote>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, SeqCst) {
            return; // Invariant 1.
        }
        let local = LOCAL
            .try_with(|local| match &*local.borrow() {
                Some(core) if Arc::ptr_eq(&core.remote, &self.remote) => {
                    core.push_ready(self.id);
                    true
                }
                _ => false,
            })
            .unwrap_or(false);
        if !local {
            self.remote.push(self.id);
        }
    }
}

/// Makes `core` this thread's executor until dropped.
pub(crate) struct Entered;

impl Entered {
    pub fn enter(core: &Rc<Core>) -> Self {
        LOCAL.with(|local| {
            let old = local.borrow_mut().replace(core.clone());
            assert!(old.is_none(), "an xstream cannot run inside another on the same thread");
        });
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let core = LOCAL.with(|local| local.borrow_mut().take());
        drop(core);
    }
}

/// Whether the calling thread is an xstream: it must not block then.
pub(crate) fn on_xstream() -> bool {
    LOCAL.try_with(|local| local.borrow().is_some()).unwrap_or(false)
}
