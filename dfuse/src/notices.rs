//! What the kernel is to forget: changes that did not come through its own calls, on their way to it.
//!
//! # Invariants
//! 1. Who answers requests of the kernel never waits here, and nobody sends what is here while he does: a notice waits in the kernel for
//!    pages and locks that requests in progress hold. One thread of its own sends them (`fuse/notify.rs`). (What changes attributes of an inode
//!    that its own request holds may say so at once, `Reply::tell`; and the door's thread answers nobody whom the kernel holds.)
//! 2. A notice that waits already is not queued twice; at most [`WAITING_MAX`] wait.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs::Ino;

const WAITING_MAX: usize = 1 << 16;

/// What is not so any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Where a name leads. Who stands behind it stays there, without a name.
    Name { parent: Ino, name: Bytes },
    /// For how long a name may be believed: it leads to where it led, but is to be asked for.
    NameTime { parent: Ino, name: Bytes },
    /// Attributes and ACLs.
    Attributes(Ino),
    /// These, and its data: pages, or what a directory lists.
    Content(Ino),
}

/// Notices that wait for the kernel.
#[derive(Default)]
pub struct Notices {
    state: Mutex<State>,
    /// Something came, was sent, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Notice>,
    waiting: HashSet<Notice>,
    /// Since the start.
    pushed: u64,
    sent: u64,
    closed: bool,
}

impl State {
    fn push(&mut self, notice: Notice) {
        if self.waiting.insert(notice.clone()) {
            self.queue.push_back(notice);
            self.pushed += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= WAITING_MAX && !self.closed
    }
}

impl Notices {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues without waiting; false if there is no room.
    #[must_use]
    pub fn offer(&self, notice: Notice) -> bool {
        let mut state = self.state();
        let room = !state.is_full();
        if room {
            state.push(notice);
            drop(state);
            self.changed.notify_all();
        }
        room
    }

    /// Queues, and waits for room if there is none: not on a thread that answers the kernel.
    pub fn push(&self, notice: Notice) {
        let full = |state: &mut State| state.is_full();
        let state = self.changed.wait_while(self.state(), full);
        state.unwrap_or_else(PoisonError::into_inner).push(notice);
        self.changed.notify_all();
    }

    /// Waits until the kernel has everything that is queued now. False: it has not, after `patience`. Not on a thread that answers the
    /// kernel.
    pub fn delivered(&self, patience: Duration) -> bool {
        let mut state = self.state();
        let (target, until) = (state.pushed, Instant::now() + patience);
        while state.sent < target && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Hands every notice to `send`, in order, until [`Self::close`].
    pub fn serve(&self, mut send: impl FnMut(&Notice)) {
        loop {
            let idle = |state: &mut State| state.queue.is_empty() && !state.closed;
            let state = self.changed.wait_while(self.state(), idle);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let Some(notice) = state.queue.pop_front().filter(|_| !state.closed) else { return };
            // What changes from here on needs another notice.
            state.waiting.remove(&notice);
            drop(state);
            send(&notice);
            self.state().sent += 1;
            self.changed.notify_all();
        }
    }

    /// The kernel has the mount no more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_notice_that_waits_is_sent_once() {
        let notices = Notices::default();
        let notice = |ino| Notice::Attributes(Ino(ino));
        for ino in [1, 2, 1, 2, 3] {
            assert!(notices.offer(notice(ino)));
        }
        let mut sent = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| notices.serve(|notice| sent.push(notice.clone())));
            assert!(notices.delivered(PATIENCE));
            assert!(notices.offer(notice(1)), "it is sent again once it was sent");
            assert!(notices.delivered(PATIENCE));
            notices.close();
        });
        assert_eq!(sent, [notice(1), notice(2), notice(3), notice(1)]);
    }

    #[test]
    fn a_full_queue_refuses_who_may_not_wait_and_holds_up_who_may() {
        let notices = Arc::new(Notices::default());
        for ino in 0..WAITING_MAX as u64 {
            assert!(notices.offer(Notice::Content(Ino(ino))));
        }
        assert!(!notices.offer(Notice::Content(Ino(u64::MAX))));
        let pushing = notices.clone();
        let pushing = std::thread::spawn(move || pushing.push(Notice::Content(Ino(u64::MAX))));
        assert!(!notices.delivered(Duration::from_millis(20)));
        assert!(!pushing.is_finished());
        let serving = notices.clone();
        let serving = std::thread::spawn(move || serving.serve(|_| {}));
        pushing.join().unwrap();
        assert!(notices.delivered(PATIENCE));
        notices.close();
        serving.join().unwrap();
        assert!(notices.delivered(PATIENCE), "nobody waits for what is over");
    }
}
