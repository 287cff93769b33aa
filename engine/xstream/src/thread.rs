//! The real xstream: a thread that runs tasks, polls devices and sleeps when there is nothing to do.
//!
//! # Order
//! One turn: what other threads woke, due timers, pollers, then at most [`TASKS_PER_TURN`] ready tasks. When a turn did
//! nothing the thread spins for a bounded time, because the next message or completion usually comes within
//! microseconds and a sleep costs 10-20 us; then it sleeps in `ppoll` on its eventfd, the pollers' descriptors and
//! the next timer. Spinning that keeps failing is left out, but for one try in [`SPIN_RETRY`].
//!
//! While the thread sleeps, guests may run the xstream, if it lends (`turn.rs`). Such a thread does not spin: whoever has work
//! for it does the work.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Clock;
use crate::executor::Core;
use crate::handle::Handle;
use crate::random::Random;
use crate::turn::{Held, Lending};
use crate::wake::{Entered, Remote};

/// Ready tasks that run before devices and timers are looked at again.
pub(crate) const TASKS_PER_TURN: usize = 64;
/// After this many spins in a row that found nothing, spin only now and then.
const SPIN_FAILURES_MAX: u32 = 8;
/// While spinning is left out, every so many idle moments it is tried again.
const SPIN_RETRY: u32 = 32;

/// Something that an xstream's loop drives: a device, an endpoint.
pub trait Poll {
    /// Submits what is queued and takes what is complete; true if anything was. Never blocks.
    fn poll(&self) -> bool;
    /// Becomes readable when [`Poll::poll`] would make progress.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Whether completions are expected.
    fn pending(&self) -> bool;
    /// Whether something waits for [`Poll::poll`] to submit it. Only the xstream's own thread polls.
    fn queued(&self) -> bool;
}

#[derive(Clone, Debug)]
pub struct XstreamConfig {
    /// Name of the thread (the kernel shows 15 bytes of it).
    pub name: String,
    /// CPU to pin the thread to; `None` lets it move.
    pub core: Option<usize>,
    /// Longest spin before sleeping; 0 for none. An xstream that lends never spins.
    pub spin_us: u32,
    /// Whether other threads may run the xstream while it sleeps; not if it is pinned to a CPU.
    pub lending: Lending,
}

impl Default for XstreamConfig {
    fn default() -> Self {
        Self { name: "xstream".into(), core: None, spin_us: 20, lending: Lending::NONE }
    }
}

/// Starts xstreams.
pub struct Xstream;

impl Xstream {
    /// Starts a thread and runs `main` on it. When `main` ends, every other task is dropped and the thread ends.
    ///
    /// # Errors
    /// When the thread cannot be had, or not be pinned to `config.core`.
    pub fn start<F>(
        config: XstreamConfig,
        main: impl FnOnce(Handle) -> F + Send + 'static,
    ) -> io::Result<JoinHandle>
    where
        F: Future<Output = ()> + 'static,
    {
        let (started_sender, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(config.name.clone()).spawn(move || {
            match prepare(&config) {
                Ok(core) => {
                    let _ = started_sender.send(Ok(()));
                    drive(&core, &config, main);
                }
                Err(error) => {
                    let _ = started_sender.send(Err(error));
                }
            }
        })?;
        started.recv().expect("the thread answers before anything in it can panic")?;
        Ok(JoinHandle(thread))
    }

    /// Runs `main` on the calling thread as an xstream, and returns what it returns.
    ///
    /// # Errors
    /// When the thread cannot be pinned to `config.core`, or no eventfd can be had.
    pub fn run<T: 'static, F>(
        config: &XstreamConfig,
        main: impl FnOnce(Handle) -> F,
    ) -> io::Result<T>
    where
        F: Future<Output = T> + 'static,
    {
        let core = prepare(config)?;
        Ok(drive(&core, config, main))
    }
}

/// Waits for an xstream's end.
#[derive(Debug)]
pub struct JoinHandle(std::thread::JoinHandle<()>);

impl JoinHandle {
    /// # Errors
    /// What the xstream panicked with.
    pub fn join(self) -> std::thread::Result<()> {
        self.0.join()
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

fn prepare(config: &XstreamConfig) -> io::Result<Rc<Core>> {
    if let Some(core) = config.core {
        let mut cpus = rustix::thread::CpuSet::new();
        if core >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
        }
        cpus.set(core);
        rustix::thread::sched_setaffinity(None, &cpus)?;
    }
    let lending = if config.core.is_some() { Lending::NONE } else { config.lending };
    Core::new(Clock::real(), Random::from_entropy(), false, lending)
}

fn drive<T: 'static, F>(
    core: &Rc<Core>,
    config: &XstreamConfig,
    main: impl FnOnce(Handle) -> F,
) -> T
where
    F: Future<Output = T> + 'static,
{
    let remote = core.remote.clone();
    let _entered = Entered::enter(core);
    // Declared after, so dropped before: tasks end, also by a panic, while this is still their xstream.
    let mut owner = Owner::begin(core, &remote);
    let handle = Handle(core.clone());
    let (sender, result) = crate::sync::oneshot();
    let main = main(handle);
    let ends = core.clone();
    core.spawn(Box::pin(async move {
        sender.send(main.await);
        ends.ended.set(true);
    }));

    let spin_us = if remote.turn.lends() { 0 } else { config.spin_us };
    let mut idle = Idle { spin: Duration::from_micros(spin_us.into()), failures: 0 };
    while !result.is_ready() {
        if !turn(core) {
            idle.wait(&mut owner);
        }
        let panicked = core.panicked.take();
        if let Some(panic) = panicked {
            std::panic::resume_unwind(panic);
        }
    }
    result.take().expect("the loop ends when there is a result")
}

/// The thread's hold on its own xstream: it has the turn, but for while it sleeps.
struct Owner<'a> {
    core: &'a Rc<Core>,
    remote: &'a Remote,
    held: Option<Held<'a>>,
}

impl<'a> Owner<'a> {
    fn begin(core: &'a Rc<Core>, remote: &'a Remote) -> Self {
        let mut held = remote.turn.take();
        held.begin(core);
        Self { core, remote, held: Some(held) }
    }

    /// Runs `asleep`, which does not touch the core, while guests may have the turn.
    fn lend_while<T>(&mut self, asleep: impl FnOnce(&Remote) -> T) -> T {
        self.held = None;
        let slept = asleep(self.remote);
        self.held = Some(self.remote.turn.take());
        slept
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        let mut held = self.held.take().unwrap_or_else(|| self.remote.turn.take());
        held.end();
        self.core.stop();
    }
}

/// One turn of the loop; false if there was nothing to do.
fn turn(core: &Core) -> bool {
    let mut progress = core.take_remote();
    progress |= core.fire_timers();
    for _ in 0..TASKS_PER_TURN {
        match core.next_ready() {
            Some(id) => core.run(id),
            None => break,
        }
        progress = true;
    }
    // After the tasks: what they queued is submitted in one go.
    progress | core.poll_pollers()
}

struct Idle {
    spin: Duration,
    failures: u32,
}

impl Idle {
    fn wait(&mut self, owner: &mut Owner<'_>) {
        let core = owner.core;
        if self.spin(core) || !core.remote.prepare_sleep() {
            return;
        }
        sleep(core, owner);
    }

    /// Looks for work for a bounded time; true if there is some.
    fn spin(&mut self, core: &Core) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        if self.failures >= SPIN_FAILURES_MAX {
            self.failures += 1;
            if self.failures < SPIN_FAILURES_MAX + SPIN_RETRY {
                return false;
            }
            self.failures = SPIN_FAILURES_MAX;
        }
        let start = Instant::now();
        while start.elapsed() < self.spin {
            if core.remote.has_woken() || core.poll_pollers() {
                self.failures = 0;
                return true;
            }
            std::hint::spin_loop();
        }
        self.failures = (self.failures + 1).min(SPIN_FAILURES_MAX);
        false
    }
}

/// Sleeps until another thread wakes a task, a poller's descriptor is readable, or the next timer is due. Sleep has been
/// announced.
fn sleep(core: &Core, owner: &mut Owner<'_>) {
    let event = PollFd::from_borrowed_fd(core.remote.event(), PollFlags::IN);
    let pollers: Vec<Rc<dyn Poll>> =
        core.pollers.borrow().iter().filter_map(std::rc::Weak::upgrade).collect();
    let mut fds = vec![event];
    for poller in &pollers {
        match poller.wait_fd() {
            Some(fd) => fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            // Can only be polled: no sleep while it has work.
            None if poller.pending() => return core.remote.finish_sleep(false),
            None => {}
        }
    }
    let deadline_ns = core.timers.next_deadline_ns();
    let timeout = deadline_ns.map(|deadline_ns| {
        let wait = Duration::from_nanos(deadline_ns.saturating_sub(core.clock.monotonic_ns()));
        Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
    });
    core.sleeps_until_ns.set(deadline_ns.unwrap_or(u64::MAX));
    core.pollers_changed.set(false);
    let polled = owner.lend_while(|remote| {
        // Between letting go of the turn and looking at `has_woken` (invariant 2 of `turn.rs`).
        fence(SeqCst);
        let polled = if remote.has_woken() { Ok(0) } else { poll(&mut fds, timeout.as_ref()) };
        remote.finish_sleep(fds[0].revents().contains(PollFlags::IN));
        polled
    });
    match polled {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("waiting for events failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::sync::{Arc, mpsc};

    fn config() -> XstreamConfig {
        XstreamConfig { name: "test".into(), ..Default::default() }
    }

    #[test]
    fn main_and_its_tasks_run_and_the_rest_is_dropped_at_the_end() {
        struct CountDrop(Arc<AtomicU32>);
        impl Drop for CountDrop {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let dropped = Arc::new(AtomicU32::new(0));
        let counter = CountDrop(dropped.clone());
        let (sender, result) = mpsc::channel();
        let thread = Xstream::start(config(), move |handle| async move {
            handle.spawn(async move {
                let _counter = counter;
                std::future::pending::<()>().await;
            });
            let sum: u32 = handle.spawn(async { 40 }).await + 2;
            sender.send(sum).unwrap();
        })
        .unwrap();
        assert_eq!(result.recv().unwrap(), 42);
        thread.join().unwrap();
        assert_eq!(dropped.load(SeqCst), 1);
    }

    #[test]
    fn a_panic_in_a_task_ends_the_thread_and_join_says_so() {
        let thread = Xstream::start(config(), |handle| async move {
            handle.spawn(async { panic!("on purpose") }).await
        })
        .unwrap();
        assert!(thread.join().is_err());
    }

    #[test]
    fn sleep_is_not_short_and_uses_no_cpu() {
        let cpu_before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let start = Instant::now();
        Xstream::run(&config(), |handle| async move {
            handle.sleep(Duration::from_millis(60)).await;
        })
        .unwrap();
        let cpu_after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        assert!(start.elapsed() >= Duration::from_millis(60));
        let cpu = Duration::try_from(cpu_after - cpu_before).unwrap();
        assert!(cpu < Duration::from_millis(20), "60 ms of sleep used {cpu:?} of CPU");
    }

    #[test]
    fn timers_fire_in_order_of_deadline_and_a_dropped_one_never() {
        let order = Xstream::run(&config(), |handle| async move {
            let order = Rc::new(std::cell::RefCell::new(Vec::new()));
            let tasks: Vec<_> = [9u64, 3, 6]
                .into_iter()
                .map(|ms| {
                    let (order, sleep) = (order.clone(), handle.sleep(Duration::from_millis(ms)));
                    handle.spawn(async move {
                        sleep.await;
                        order.borrow_mut().push(ms);
                    })
                })
                .collect();
            drop(handle.sleep(Duration::from_millis(1)));
            for task in tasks {
                task.await;
            }
            order.take()
        })
        .unwrap();
        assert_eq!(order, [3, 6, 9]);
    }

    #[test]
    fn yield_now_lets_the_other_task_run() {
        let order = Xstream::run(&config(), |handle| async move {
            let order = Rc::new(std::cell::RefCell::new(String::new()));
            let other = order.clone();
            let task = handle.spawn(async move { other.borrow_mut().push('b') });
            order.borrow_mut().push('a');
            handle.yield_now().await;
            order.borrow_mut().push('c');
            task.await;
            order.take()
        })
        .unwrap();
        assert_eq!(order, "abc");
    }

    #[test]
    fn pinned_to_a_cpu_that_is_not_there_is_an_error() {
        let config = XstreamConfig { core: Some(1 << 20), ..config() };
        assert!(Xstream::start(config, |_| async {}).is_err());
    }
}
