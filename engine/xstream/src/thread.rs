//! The real xstream: a thread that runs tasks, polls devices and sleeps when there is nothing to do.
//!
//! # Order
//! One turn: what other threads woke, due timers, pollers, then at most [`TASKS_PER_TURN`] ready tasks. When a turn did
//! nothing the thread spins for a bounded time, because the next message or completion usually comes within
//! microseconds and a sleep costs 10-20 us; then it sleeps in `ppoll` on its eventfd, the pollers' descriptors and
//! the next timer. Spinning that keeps failing is left out, but for one try in [`SPIN_RETRY`].

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Clock;
use crate::executor::Core;
use crate::handle::Handle;
use crate::random::Random;
use crate::wake::Entered;

/// Ready tasks that run before devices and timers are looked at again.
const TASKS_PER_TURN: usize = 64;
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
}

#[derive(Clone, Debug)]
pub struct XstreamConfig {
    /// Name of the thread (the kernel shows 15 bytes of it).
    pub name: String,
    /// CPU to pin the thread to; `None` lets it move.
    pub core: Option<usize>,
    /// Longest spin before sleeping; 0 for none.
    pub spin_us: u32,
}

impl Default for XstreamConfig {
    fn default() -> Self {
        Self { name: "xstream".into(), core: None, spin_us: 20 }
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
                    drive(&core, config.spin_us, main);
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
        Ok(drive(&core, config.spin_us, main))
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
    Core::new(Clock::real(), Random::from_entropy(), false)
}

fn drive<T: 'static, F>(core: &Rc<Core>, spin_us: u32, main: impl FnOnce(Handle) -> F) -> T
where
    F: Future<Output = T> + 'static,
{
    let _entered = Entered::enter(core);
    // Declared after, so dropped before: tasks end, also by a panic, while this is still their xstream.
    let _stop = StopOnDrop(core);
    let handle = Handle(core.clone());
    let (sender, result) = crate::sync::oneshot();
    let main = main(handle);
    core.spawn(Box::pin(async move { sender.send(main.await) }));

    let mut idle = Idle { spin: Duration::from_micros(spin_us.into()), failures: 0 };
    let mut scratch = Vec::new();
    while !result.is_ready() {
        if !turn(core, &mut scratch) {
            idle.wait(core);
        }
    }
    result.take().expect("the loop ends when there is a result")
}

struct StopOnDrop<'a>(&'a Core);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// One turn of the loop; false if there was nothing to do.
fn turn(core: &Core, scratch: &mut Vec<crate::wake::TaskId>) -> bool {
    let mut progress = core.take_remote(scratch);
    if let Some(deadline_ns) = core.timers.next_deadline_ns() {
        let now_ns = core.clock.monotonic_ns();
        progress |= deadline_ns <= now_ns && core.timers.fire(now_ns);
    }
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
    fn wait(&mut self, core: &Core) {
        if self.spin(core) || !core.remote.prepare_sleep() {
            return;
        }
        sleep(core);
        core.remote.finish_sleep();
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

/// Sleeps until another thread wakes a task, a poller's descriptor is readable, or the next timer is due.
fn sleep(core: &Core) {
    let pollers: Vec<Rc<dyn Poll>> =
        core.pollers.borrow().iter().filter_map(std::rc::Weak::upgrade).collect();
    let mut fds = vec![PollFd::from_borrowed_fd(core.remote.event(), PollFlags::IN)];
    for poller in &pollers {
        match poller.wait_fd() {
            Some(fd) => fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            None if poller.pending() => return, // Can only be polled: no sleep while it has work.
            None => {}
        }
    }
    let timeout = core.timers.next_deadline_ns().map(|deadline_ns| {
        let wait = Duration::from_nanos(deadline_ns.saturating_sub(core.clock.monotonic_ns()));
        Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
    });
    match poll(&mut fds, timeout.as_ref()) {
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
