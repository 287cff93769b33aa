//! Requests in flight: each is a future that holds a thread only while it has something to do.
//!
//! A future is polled first on the thread that read the request, and from then on where what it waits for is
//! completed: the waker polls it, with no hop to another thread (a hop costs more than most replies). What it asks of a target
//! that sleeps is done here as well, after the poll ([`Guest`]).
//!
//! # Invariants
//! 1. At most one thread polls a task: whoever moves it from `IDLE` to `RUNNING`. A wake during a poll makes it `NOTIFIED`,
//!    and the poller polls again.
//! 2. A task that is woken while its thread polls another one waits until that poll is over: a wake never nests polls,
//!    so locks held around a wake inside a request cannot deadlock and the stack does not grow.
//! 3. `in flight <= requests_max`: with all credits out, `spawn` waits, and the kernel's queue holds the rest.
//!    Completions come from other threads, so that credits always return.
//!
//! # Order
//! Wakers take no lock but the task's own, which a second poller can never wait for (invariant 1).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use daos_client::Guest;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const NOTIFIED: u8 = 2;
const DONE: u8 = 3;

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs requests; clones share their credits.
#[derive(Clone)]
pub struct Executor {
    credits: Arc<Credits>,
}

impl Executor {
    pub fn new(requests_max: usize) -> Self {
        assert!(requests_max > 0);
        let state = Mutex::new(State { used: 0, waiting: 0, closed: false });
        Self { credits: Arc::new(Credits { requests_max, state, freed: Condvar::new() }) }
    }

    /// Polls `future` here and now; what is left of it goes on where it is woken.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let Some(credit) = self.credits.clone().take() else { return };
        self.spawn_with(credit, future);
    }

    /// The right to run one request, if there is one at this moment: for who must not wait.
    pub fn credit(&self) -> Option<Credit> {
        self.credits.clone().take_now()
    }

    /// As `spawn`, with a right that was taken before.
    pub fn spawn_with(&self, credit: Credit, future: impl Future<Output = ()> + Send + 'static) {
        let future: BoxFuture = Box::pin(async move {
            let _credit = credit;
            future.await;
        });
        let task =
            Arc::new(Task { state: AtomicU8::new(RUNNING), future: Mutex::new(Some(future)) });
        run_or_queue(task);
    }

    pub fn in_flight(&self) -> usize {
        lock(&self.credits.state).used
    }

    /// From now on requests are dropped where they come, which their replies answer with an error.
    pub fn close(&self) {
        lock(&self.credits.state).closed = true;
        self.credits.freed.notify_all();
    }

    /// Waits until no request is in flight, or `patience` is over. The answer is how many are left.
    pub fn drain(&self, patience: Duration) -> usize {
        let until = Instant::now() + patience;
        let mut state = lock(&self.credits.state);
        while state.used > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.waiting += 1;
            let waited = self.credits.freed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.used
    }
}

struct Credits {
    requests_max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    used: usize,
    /// Threads in `freed`, which costs a system call to notify, waited for or not.
    waiting: usize,
    closed: bool,
}

impl Credits {
    /// `None` when no request may start any more.
    fn take(self: Arc<Self>) -> Option<Credit> {
        let mut state = lock(&self.state);
        while !state.closed && state.used >= self.requests_max {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if state.closed {
            return None;
        }
        state.used += 1;
        drop(state);
        Some(Credit(self))
    }

    fn take_now(self: Arc<Self>) -> Option<Credit> {
        let mut state = lock(&self.state);
        if state.closed || state.used >= self.requests_max {
            return None;
        }
        state.used += 1;
        drop(state);
        Some(Credit(self))
    }
}

/// The right of one request to be in flight; returned by dropping it.
pub struct Credit(Arc<Credits>);

impl Drop for Credit {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.used -= 1;
        if state.waiting > 0 {
            self.0.freed.notify_all();
        }
    }
}

struct Task {
    state: AtomicU8,
    /// `None` once it is done.
    future: Mutex<Option<BoxFuture>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.claim() {
            run_or_queue(self.clone());
        }
    }
}

impl Task {
    /// After a wake: is it now this thread's to poll?
    fn claim(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let next = match state {
                IDLE => RUNNING,
                RUNNING => NOTIFIED,
                _ => return false,
            };
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return next == RUNNING,
                Err(now) => state = now,
            }
        }
    }

    /// Polls until the future is done or waits with nothing new. The caller has claimed it.
    fn run(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut slot = lock(&self.future);
        loop {
            if poll(&mut slot, &waker).is_ready() {
                self.state.store(DONE, Ordering::Release);
                return;
            }
            if (self.state)
                .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return;
            }
            self.state.store(RUNNING, Ordering::Release);
        }
    }
}

/// A request that panics is answered by its reply's drop (an I/O error) and written to the log; the others go on.
fn poll(slot: &mut Option<BoxFuture>, waker: &Waker) -> Poll<()> {
    let Some(future) = slot.as_mut() else { return Poll::Ready(()) };
    let mut context = Context::from_waker(waker);
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        future.as_mut().poll(&mut context)
    }));
    match polled {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => {
            *slot = None;
            Poll::Ready(())
        }
        Err(_) => {
            tracing::error!("a request panicked; it is answered with an I/O error");
            *slot = None;
            Poll::Ready(())
        }
    }
}

thread_local! {
    static POLLING: Cell<bool> = const { Cell::new(false) };
    static CLAIMED: RefCell<VecDeque<Arc<Task>>> = const { RefCell::new(VecDeque::new()) };
}

/// Invariant 2: outermost on this thread, run it and then what was claimed meanwhile; else leave it to the outermost.
fn run_or_queue(task: Arc<Task>) {
    if POLLING.get() {
        CLAIMED.with_borrow_mut(|claimed| claimed.push_back(task));
        return;
    }
    POLLING.set(true);
    let guest = Guest::enter();
    task.run();
    loop {
        while let Some(next) = CLAIMED.with_borrow_mut(VecDeque::pop_front) {
            next.run();
        }
        // Targets that were asked something run now, and their answers claim tasks.
        if !guest.help() {
            break;
        }
    }
    POLLING.set(false);
}

/// What is behind a mutex is whole also when somebody panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    /// Ready at the `polls`-th poll; hands out its waker at every one before.
    struct Steps {
        polls: usize,
        wakers: mpsc::Sender<Waker>,
        wake_itself: bool,
    }

    impl Future for Steps {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.polls -= 1;
            if self.polls == 0 {
                return Poll::Ready(());
            }
            if self.wake_itself {
                context.waker().wake_by_ref();
            }
            let _ = self.wakers.send(context.waker().clone());
            Poll::Pending
        }
    }

    fn steps(polls: usize, wake_itself: bool) -> (Steps, mpsc::Receiver<Waker>) {
        let (wakers, receiver) = mpsc::channel();
        (Steps { polls, wakers, wake_itself }, receiver)
    }

    #[test]
    fn a_ready_request_is_finished_by_spawn() {
        let executor = Executor::new(1);
        let (future, _wakers) = steps(1, false);
        executor.spawn(future);
        assert_eq!(executor.in_flight(), 0);
    }

    #[test]
    fn a_waiting_request_is_finished_where_it_is_woken() {
        let executor = Executor::new(1);
        let (ended, end) = mpsc::channel();
        let (future, wakers) = steps(2, false);
        executor.spawn(async move {
            future.await;
            ended.send(std::thread::current().id()).unwrap();
        });
        assert_eq!(executor.in_flight(), 1);
        let waker = wakers.recv().unwrap();
        let thread = std::thread::spawn(move || waker.wake());
        let id = thread.thread().id();
        thread.join().unwrap();
        assert_eq!(end.try_recv(), Ok(id));
        assert_eq!(executor.in_flight(), 0);
    }

    #[test]
    fn a_wake_during_the_poll_polls_again() {
        let executor = Executor::new(1);
        let (future, _wakers) = steps(5, true);
        executor.spawn(future);
        assert_eq!(executor.in_flight(), 0);
    }

    #[test]
    fn wakes_after_the_end_and_twice_are_harmless() {
        let executor = Executor::new(2);
        let (future, wakers) = steps(2, false);
        executor.spawn(future);
        let waker = wakers.recv().unwrap();
        waker.wake_by_ref();
        waker.wake_by_ref();
        waker.wake();
        assert_eq!(executor.in_flight(), 0);
    }

    #[test]
    fn a_wake_never_nests_polls() {
        // Each task wakes the next from inside its poll: ten thousand nested polls would overflow the stack.
        let executor = Executor::new(20_000);
        let depth = Arc::new(AtomicUsize::new(0));
        let mut next: Option<Waker> = None;
        for _ in 0..10_000 {
            let (future, wakers) = steps(2, false);
            let (depth, wake) = (depth.clone(), next.take());
            executor.spawn(async move {
                future.await;
                assert_eq!(depth.fetch_add(1, Ordering::SeqCst), 0);
                if let Some(waker) = wake {
                    waker.wake();
                }
                depth.fetch_sub(1, Ordering::SeqCst);
            });
            next = Some(wakers.recv().unwrap());
        }
        next.unwrap().wake();
        assert_eq!(executor.in_flight(), 0);
    }

    #[test]
    fn spawn_waits_while_all_credits_are_out() {
        let executor = Executor::new(1);
        let (future, wakers) = steps(2, false);
        executor.spawn(future);
        let second = {
            let executor = executor.clone();
            std::thread::spawn(move || executor.spawn(async {}))
        };
        std::thread::sleep(Duration::from_millis(20));
        assert!(!second.is_finished());
        assert_eq!(executor.drain(Duration::from_millis(1)), 1);
        wakers.recv().unwrap().wake();
        second.join().unwrap();
        assert_eq!(executor.drain(Duration::from_secs(5)), 0);
    }

    #[test]
    fn a_closed_executor_drops_what_comes_and_finishes_what_is_there() {
        let executor = Executor::new(1);
        let (future, wakers) = steps(2, false);
        executor.spawn(future);
        executor.close();
        executor.spawn(async { panic!("it must not run") });
        assert_eq!(executor.drain(Duration::ZERO), 1);
        wakers.recv().unwrap().wake();
        assert_eq!(executor.drain(Duration::from_secs(5)), 0);
    }

    #[test]
    fn a_panic_costs_only_its_own_request() {
        let executor = Executor::new(1);
        executor.spawn(async { panic!("expected by the test") });
        assert_eq!(executor.in_flight(), 0);
        executor.spawn(async {});
    }

    #[test]
    fn no_wake_is_lost_under_contention() {
        let executor = Executor::new(64);
        for _ in 0..2_000 {
            let (future, wakers) = steps(3, false);
            executor.spawn(future);
            let waker = wakers.recv().unwrap();
            let threads = [waker.clone(), waker].map(|w| std::thread::spawn(move || w.wake()));
            // The third poll needs a wake after the second began; the second wake may have been merged into the first.
            threads.into_iter().for_each(|t| t.join().unwrap());
            while let Ok(waker) = wakers.try_recv() {
                waker.wake();
            }
            assert_eq!(executor.in_flight(), 0);
        }
    }
}
