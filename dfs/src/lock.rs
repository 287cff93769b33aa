//! One inode's turn-taking: shared for data I/O, exclusive for changes of the record. Waits are futures, in order of arrival.
//!
//! # Invariants
//! 1. `writer` implies `readers == 0`.
//! 2. Somebody who waits is overtaken by nobody who came later.
//! 3. A waiter that was given its turn and is dropped before it saw it gives the turn back.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// The lock. Guards are released by [`Lock::release`]: who holds one is the caller's business (`Turn` in table.rs).
#[derive(Default)]
pub struct Lock {
    state: Mutex<State>,
}

/// Small: there is one for every inode that is known.
#[derive(Default)]
struct State {
    readers: u32,
    writer: bool,
    /// `None`: nobody waits.
    queue: Option<Box<Queue>>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<Waiter>,
    /// Given a turn, not yet seen.
    granted: Vec<u64>,
}

struct Waiter {
    id: u64,
    how: How,
    waker: Waker,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Shared,
    Exclusive,
}

impl State {
    fn open_to(&self, how: How) -> bool {
        !self.writer && (how == How::Shared || self.readers == 0)
    }

    fn take(&mut self, how: How) {
        match how {
            How::Shared => self.readers += 1,
            How::Exclusive => self.writer = true,
        }
        assert!(!self.writer || self.readers == 0);
    }

    fn give_back(&mut self, how: How) {
        match how {
            How::Shared => self.readers -= 1,
            How::Exclusive => self.writer = false,
        }
    }

    fn is_awaited(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.waiting.is_empty())
    }

    fn grant(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let Some(mut queue) = self.queue.take() else { return wakers };
        while queue.waiting.front().is_some_and(|first| self.open_to(first.how)) {
            let first = queue.waiting.pop_front().expect("front was there");
            self.take(first.how);
            queue.granted.push(first.id);
            wakers.push(first.waker);
        }
        self.queue = queue.in_use();
        wakers
    }

    /// Whether a turn was given to `id`; then it is seen now.
    fn see(&mut self, id: u64) -> bool {
        let Some(mut queue) = self.queue.take() else { return false };
        let at = queue.granted.iter().position(|granted| *granted == id);
        at.map(|at| queue.granted.swap_remove(at));
        self.queue = queue.in_use();
        at.is_some()
    }
}

impl Queue {
    /// Numbers begin anew with the next queue: those of this one are nobody's any more.
    fn in_use(self: Box<Self>) -> Option<Box<Self>> {
        (!self.waiting.is_empty() || !self.granted.is_empty()).then_some(self)
    }
}

impl Lock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this mutex")
    }

    pub fn acquire(&self, how: How) -> Acquire<'_> {
        Acquire { lock: self, how, id: None, done: false }
    }

    /// Somebody writes, or waits.
    pub(crate) fn busy(&self) -> bool {
        let state = self.state();
        state.writer || state.is_awaited()
    }

    pub fn release(&self, how: How) {
        let wakers = {
            let mut state = self.state();
            state.give_back(how);
            state.grant()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Waits for a turn.
pub struct Acquire<'a> {
    lock: &'a Lock,
    how: How,
    id: Option<u64>,
    done: bool,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let lock = self.lock;
        let mut state = lock.state();
        let Some(id) = self.id else {
            if !state.is_awaited() && state.open_to(self.how) {
                state.take(self.how);
                self.done = true;
                return Poll::Ready(());
            }
            let queue = state.queue.get_or_insert_default();
            let id = queue.next;
            queue.next += 1;
            let waiter = Waiter { id, how: self.how, waker: context.waker().clone() };
            queue.waiting.push_back(waiter);
            self.id = Some(id);
            return Poll::Pending;
        };
        if state.see(id) {
            self.done = true;
            return Poll::Ready(());
        }
        let mut waiting = state.queue.iter_mut().flat_map(|queue| &mut queue.waiting);
        if let Some(waiter) = waiting.find(|waiter| waiter.id == id) {
            waiter.waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let (Some(id), false) = (self.id, self.done) else { return };
        let wakers = {
            let mut state = self.lock.state();
            if state.see(id) {
                state.give_back(self.how);
            } else if let Some(queue) = &mut state.queue {
                queue.waiting.retain(|waiter| waiter.id != id);
            }
            state.grant()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(acquire).poll(&mut context).is_ready()
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let lock = Lock::default();
        let (mut a, mut b) = (lock.acquire(How::Shared), lock.acquire(How::Shared));
        let mut w = lock.acquire(How::Exclusive);
        assert!(poll(&mut a) && poll(&mut b) && !poll(&mut w));
        lock.release(How::Shared);
        assert!(!poll(&mut w));
        lock.release(How::Shared);
        assert!(poll(&mut w));
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let lock = Lock::default();
        let mut a = lock.acquire(How::Shared);
        let mut w = lock.acquire(How::Exclusive);
        let mut late = lock.acquire(How::Shared);
        assert!(poll(&mut a) && !poll(&mut w) && !poll(&mut late));
        lock.release(How::Shared);
        assert!(!poll(&mut late) && poll(&mut w));
        lock.release(How::Exclusive);
        assert!(poll(&mut late));
    }

    #[test]
    fn a_turn_given_to_nobody_goes_on() {
        let lock = Lock::default();
        let mut a = lock.acquire(How::Exclusive);
        let mut b = lock.acquire(How::Exclusive);
        let mut c = lock.acquire(How::Exclusive);
        assert!(poll(&mut a) && !poll(&mut b) && !poll(&mut c));
        lock.release(How::Exclusive);
        drop(b);
        assert!(poll(&mut c));
    }
}
