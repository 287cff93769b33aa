//! A value passed once, between any two threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State {
        value: None,
        waker: None,
        blocked: false,
        sender_gone: false,
        receiver_gone: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), sent: Condvar::new() });
    (Sender(shared.clone()), Receiver(shared))
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// For receivers that block a thread.
    sent: Condvar,
}

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    /// A thread waits in `sent`, which costs a system call to notify, waited for or not.
    blocked: bool,
    sender_gone: bool,
    receiver_gone: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the value; dropped without, the receiver gets `None`.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// The value is dropped if nobody waits for it any more.
    pub fn send(self, value: T) {
        self.0.lock().value = Some(value);
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().receiver_gone
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let (waker, blocked) = {
            let mut state = self.0.lock();
            state.sender_gone = true;
            (state.waker.take(), state.blocked)
        };
        if blocked {
            self.0.sent.notify_one();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Resolves to the value, or `None` if the sender was dropped without sending.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Whether the value is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.lock().value.is_some()
    }

    /// The value, if it is there.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.lock().value.take()
    }

    /// Blocks the calling thread until the value is there.
    ///
    /// # Panics
    /// On an xstream, which must never block.
    #[must_use]
    pub fn wait(self) -> Option<T> {
        assert!(!crate::wake::on_xstream(), "an xstream must not block: await the receiver");
        let mut state = self.0.lock();
        while state.value.is_none() && !state.sender_gone {
            state.blocked = true;
            state = self.0.sent.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.value.take()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if state.value.is_some() || state.sender_gone {
            return Poll::Ready(state.value.take());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        let (value, waker) = (state.value.take(), state.waker.take());
        drop(state); // Destructors of the value run without the lock.
        drop((value, waker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Xstream, XstreamConfig};

    #[test]
    fn a_value_crosses_threads_both_ways() {
        let (question_sender, question) = channel::<u32>();
        let (answer_sender, answer) = channel::<u32>();
        let thread = Xstream::start(XstreamConfig::default(), |_| async move {
            answer_sender.send(question.await.unwrap() + 1);
        })
        .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5)); // So that the xstream sleeps.
        question_sender.send(41);
        assert_eq!(answer.wait(), Some(42));
        thread.join().unwrap();
    }

    #[test]
    fn either_end_sees_the_other_go() {
        let (sender, receiver) = channel::<u32>();
        drop(sender);
        assert_eq!(receiver.wait(), None);
        let (sender, receiver) = channel::<u32>();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        sender.send(1);
    }
}
