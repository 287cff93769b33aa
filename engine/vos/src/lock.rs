//! First come, first served locks on the arrays of a dkey, from Reserve to Commit.
//!
//! # Invariants
//! 1. Two holders never share a key. A request waits for all earlier requests that share a key with it, and for no others.
//! 2. All keys of a request are asked for at once, so nobody waits while holding some of them: no deadlock.
//! 3. Never held while waiting for the commit mark.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use daos_types::{ContainerId, Dkey, ObjectId};

/// A dkey of an object.
pub(crate) type LockKey = (ContainerId, ObjectId, Dkey);

/// All locks of a target.
#[derive(Clone, Default)]
pub(crate) struct Locks(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    next: u64,
    /// For each key, who asked for it and has not let go, oldest first: the front holds it.
    queues: HashMap<LockKey, VecDeque<u64>>,
    waiting: HashMap<u64, Waker>,
}

impl Locks {
    /// Asks for all of `keys` now; resolves when they are held. No key twice.
    pub fn acquire(&self, keys: Vec<LockKey>) -> Acquire {
        let mut state = self.0.borrow_mut();
        state.next += 1;
        let ticket = state.next;
        for key in &keys {
            state.queues.entry(key.clone()).or_default().push_back(ticket);
        }
        Acquire { held: Some(Held { locks: self.clone(), ticket, keys }) }
    }

    /// Nobody holds or waits for any of these.
    pub fn are_free(&self, keys: impl Iterator<Item = LockKey>) -> bool {
        let state = self.0.borrow();
        state.queues.is_empty() || !keys.into_iter().any(|key| state.queues.contains_key(&key))
    }

    #[cfg(test)]
    fn is_free(&self) -> bool {
        let state = self.0.borrow();
        state.queues.is_empty() && state.waiting.is_empty()
    }
}

/// Future of [`Locks::acquire`]; dropped, it leaves the queues.
pub(crate) struct Acquire {
    held: Option<Held>,
}

impl Future for Acquire {
    type Output = Held;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Held> {
        let held = self.held.as_ref().expect("not polled after it resolved");
        let mut state = held.locks.0.borrow_mut();
        if held.keys.iter().all(|key| state.queues[key].front() == Some(&held.ticket)) {
            state.waiting.remove(&held.ticket);
            drop(state);
            return Poll::Ready(self.held.take().expect("it was there just now"));
        }
        state.waiting.insert(held.ticket, context.waker().clone());
        drop(state);
        Poll::Pending
    }
}

/// Held keys, let go when dropped.
pub(crate) struct Held {
    locks: Locks,
    ticket: u64,
    keys: Vec<LockKey>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.locks.0.borrow_mut();
        let mut wake = Vec::new();
        state.waiting.remove(&self.ticket);
        for key in &self.keys {
            let queue = state.queues.get_mut(key).expect("a held key has a queue");
            queue.retain(|ticket| *ticket != self.ticket);
            match queue.front().copied() {
                Some(next) => wake.push(next),
                None => drop(state.queues.remove(key)),
            }
        }
        let wakers: Vec<Waker> =
            wake.into_iter().filter_map(|ticket| state.waiting.remove(&ticket)).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_types::ObjectId;
    use daos_xstream::sim;
    use std::cell::Cell;

    fn key(number: u64) -> LockKey {
        (ContainerId(1), ObjectId { hi: 0, lo: number }, Dkey::from_u64(number))
    }

    #[test]
    fn holders_exclude_each_other_in_the_order_of_asking() {
        for seed in 0..30 {
            sim::run(seed, |handle| async move {
                let locks = Locks::default();
                let inside: Rc<[Cell<bool>; 4]> = Rc::default();
                let order = Rc::new(RefCell::new(Vec::new()));
                let mut tasks = Vec::new();
                for number in 0..40u64 {
                    let mine = vec![number % 4, (number / 4 + 1) % 4];
                    let mut mine: Vec<u64> = mine;
                    mine.sort_unstable();
                    mine.dedup();
                    let acquire = locks.acquire(mine.iter().map(|n| key(*n)).collect());
                    let (inside, order, handle) = (inside.clone(), order.clone(), handle.clone());
                    let task = handle.clone().spawn(async move {
                        let held = acquire.await;
                        for n in &mine {
                            assert!(!inside[*n as usize].replace(true), "two inside");
                            order.borrow_mut().push((*n, number));
                        }
                        handle.yield_now().await;
                        for n in &mine {
                            inside[*n as usize].set(false);
                        }
                        drop(held);
                    });
                    tasks.push(task);
                }
                for task in tasks {
                    task.await;
                }
                for n in 0..4 {
                    let order = order.borrow();
                    let mine = order.iter().filter(|(key, _)| *key == n);
                    assert!(mine.is_sorted_by_key(|(_, number)| *number), "overtaken");
                }
                assert!(locks.is_free());
            });
        }
    }

    #[test]
    fn a_dropped_request_lets_the_next_one_in() {
        sim::run(1, |handle| async move {
            let locks = Locks::default();
            let held = locks.acquire(vec![key(1)]).await;
            let given_up = locks.acquire(vec![key(1), key(2)]);
            let next = handle.spawn(locks.acquire(vec![key(2)]));
            handle.yield_now().await;
            drop(given_up);
            drop(next.await);
            drop(held);
            assert!(locks.is_free());
        });
    }
}
