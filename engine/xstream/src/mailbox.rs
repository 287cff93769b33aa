//! Bounded queues into an xstream, from any thread.
//!
//! # Invariants
//! 1. At most `bound` values are in a mailbox. Full means that the sender waits, or is told.
//! 2. Values of one sender arrive in the order in which they were sent.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A mailbox for at most `bound` values.
#[must_use]
pub fn mailbox<T: Send + 'static>(bound: usize) -> (Mailbox<T>, Inbox<T>) {
    assert!(bound > 0, "a mailbox for no values passes none");
    let state = State {
        values: VecDeque::new(),
        receiver: None,
        posting: Vec::new(),
        blocked: 0,
        senders: 1,
        closed: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), room: Condvar::new(), bound });
    (Mailbox(shared.clone()), Inbox { shared, not_sync: PhantomData })
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// For senders that block a thread.
    room: Condvar,
    bound: usize,
}

struct State<T> {
    values: VecDeque<T>,
    receiver: Option<Waker>,
    /// Senders that wait for room in a future.
    posting: Vec<Waker>,
    /// Senders that wait in `room`, which costs a system call to notify, waited for or not.
    blocked: usize,
    senders: usize,
    /// The inbox is gone.
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a value was not taken, and the value.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    Full(T),
    Closed(T),
}

/// The sending end. Clones send to the same inbox.
pub struct Mailbox<T>(Arc<Shared<T>>);

impl<T: Send + 'static> Mailbox<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// When the mailbox is full, or its inbox gone; with the value.
    pub fn try_send(&self, value: T) -> Result<(), Refused<T>> {
        let state = self.0.lock();
        if state.closed {
            return Err(Refused::Closed(value));
        }
        if state.values.len() >= self.0.bound {
            return Err(Refused::Full(value));
        }
        Self::put(state, value);
        Ok(())
    }

    /// Sends; blocks the calling thread while the mailbox is full.
    ///
    /// # Errors
    /// When the inbox is gone; with the value.
    ///
    /// # Panics
    /// When it would block an xstream, which must use [`Mailbox::post`].
    pub fn send(&self, value: T) -> Result<(), T> {
        let mut state = self.0.lock();
        while !state.closed && state.values.len() >= self.0.bound {
            assert!(!crate::wake::on_xstream(), "an xstream must not block: use post");
            state.blocked += 1;
            state = self.0.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        if state.closed {
            return Err(value);
        }
        Self::put(state, value);
        Ok(())
    }

    /// Sends; waits while the mailbox is full.
    ///
    /// # Errors
    /// When the inbox is gone; with the value.
    pub fn post(&self, value: T) -> impl Future<Output = Result<(), T>> + Send + 'static {
        let mailbox = self.clone();
        let mut value = Some(value);
        poll_fn(move |context| {
            let taken = value.take().expect("not polled after it resolved");
            let mut state = mailbox.0.lock();
            if state.closed {
                return Poll::Ready(Err(taken));
            }
            if state.values.len() >= mailbox.0.bound {
                value = Some(taken);
                if !state.posting.iter().any(|waiting| waiting.will_wake(context.waker())) {
                    state.posting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            Self::put(state, taken);
            Poll::Ready(Ok(()))
        })
    }

    /// Whether the inbox is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    fn put(mut state: MutexGuard<'_, State<T>>, value: T) {
        state.values.push_back(value);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(waker) = receiver {
            waker.wake();
        }
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let receiver = {
            let mut state = self.0.lock();
            state.senders -= 1;
            if state.senders == 0 { state.receiver.take() } else { None }
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
    }
}

/// Who waits for the room that a value left.
struct Waiting {
    posting: Vec<Waker>,
    blocked: bool,
}

/// The receiving end: one task.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Inbox<T> {
    /// The next value, if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        let (value, waiting) = Self::take(self.shared.lock());
        self.wake_senders(waiting);
        value
    }

    /// No value is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.lock().values.is_empty()
    }

    /// The next value; `None` once every [`Mailbox`] is gone and all values are taken.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.values.is_empty() {
                if state.senders == 0 {
                    return Poll::Ready(None);
                }
                state.receiver = Some(context.waker().clone());
                return Poll::Pending;
            }
            let (value, waiting) = Self::take(state);
            self.wake_senders(waiting);
            Poll::Ready(value)
        })
        .await
    }

    fn take(mut state: MutexGuard<'_, State<T>>) -> (Option<T>, Waiting) {
        let value = state.values.pop_front();
        (value, Waiting { posting: std::mem::take(&mut state.posting), blocked: state.blocked > 0 })
    }

    fn wake_senders(&self, Waiting { posting, blocked }: Waiting) {
        if blocked {
            self.shared.room.notify_one();
        }
        posting.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let (values, posting) = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.receiver = None;
            (std::mem::take(&mut state.values), std::mem::take(&mut state.posting))
        };
        self.shared.room.notify_all();
        posting.into_iter().for_each(Waker::wake);
        drop(values); // Destructors run without the lock: a dropped reply channel may wake its caller.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Xstream, XstreamConfig, oneshot, sim};

    #[test]
    fn requests_from_several_threads_are_all_answered() {
        let (mailbox, mut inbox) = mailbox::<(u64, oneshot::Sender<u64>)>(4);
        let server = Xstream::start(XstreamConfig::default(), |_| async move {
            while let Some((number, reply)) = inbox.recv().await {
                reply.send(number * 2);
            }
        })
        .unwrap();
        let callers: Vec<_> = (0..3u64)
            .map(|caller| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for number in 0..2000 {
                        let (sender, receiver) = oneshot::channel();
                        let number = caller * 10_000 + number;
                        mailbox.send((number, sender)).map_err(drop).unwrap();
                        assert_eq!(receiver.wait(), Some(number * 2));
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        drop(mailbox);
        server.join().unwrap();
    }

    #[test]
    fn two_xstreams_that_never_spin_wake_each_other_every_time() {
        let config = XstreamConfig { spin_us: 0, ..Default::default() };
        let (to_first, mut first) = mailbox::<u32>(1);
        let (to_second, mut second) = mailbox::<u32>(1);
        let echo = Xstream::start(config.clone(), move |_| async move {
            while let Some(number) = second.recv().await {
                if to_first.post(number).await.is_err() {
                    return;
                }
            }
        })
        .unwrap();
        Xstream::run(&config, |_| async move {
            for number in 0..20_000 {
                to_second.post(number).await.unwrap();
                assert_eq!(first.recv().await, Some(number));
            }
        })
        .unwrap();
        echo.join().unwrap();
    }

    #[test]
    fn full_is_told_or_waited_for() {
        for seed in 0..20 {
            sim::run(seed, |handle| async move {
                let (mailbox, mut inbox) = mailbox::<u32>(2);
                mailbox.try_send(1).unwrap();
                mailbox.try_send(2).unwrap();
                assert_eq!(mailbox.try_send(3), Err(Refused::Full(3)));
                let posted = handle.spawn(mailbox.post(3));
                handle.yield_now().await;
                assert_eq!(inbox.try_recv(), Some(1));
                posted.await.unwrap();
                assert_eq!(mailbox.try_send(4), Err(Refused::Full(4)));
                assert_eq!(inbox.recv().await, Some(2));
                assert_eq!(inbox.recv().await, Some(3));
                drop(mailbox);
                assert_eq!(inbox.recv().await, None);
            });
        }
    }

    #[test]
    fn a_closed_inbox_gives_back_the_value_and_drops_what_it_held() {
        let (mailbox, inbox) = mailbox(1);
        let (sender, receiver) = oneshot::channel::<()>();
        mailbox.send(sender).map_err(drop).unwrap();
        drop(inbox);
        assert_eq!(receiver.wait(), None);
        let (sender, _receiver) = oneshot::channel();
        assert!(mailbox.send(sender).is_err());
        assert!(mailbox.is_closed());
    }
}
