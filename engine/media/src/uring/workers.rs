//! Worker threads with plain system calls, where the kernel gives no io_uring: containers often forbid it
//! (seccomp), administrators may (sysctl kernel.io_uring_disabled).
//!
//! # Invariants
//! 1. Whoever works on a buffer owns it: it travels to a worker with its job and comes back with the answer.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::engine::Engine;
use super::open::Files;
use super::operation::{Done, Job, Operation, Route};
use super::slots::Slots;

/// Most threads of one device. They wait for the device, not for the CPU.
const WORKERS_MAX: u32 = 8;

pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    slots: Slots,
}

struct Shared {
    jobs: Mutex<Jobs>,
    /// A job, or the end, is there.
    work: Condvar,
    done: Mutex<Vec<(usize, Done)>>,
    /// Readable while `done` is not empty.
    event: OwnedFd,
    buffered: File,
    direct: Option<File>,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<(usize, Job)>,
    closing: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub fn new(depth: u32, files: &Files) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096);
        let shared = Arc::new(Shared {
            jobs: Mutex::default(),
            work: Condvar::new(),
            done: Mutex::default(),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            buffered: files.buffered.try_clone()?,
            direct: files.direct.as_ref().ok().map(File::try_clone).transpose()?,
        });
        let mut workers = Self { shared, threads: Vec::new(), slots: Slots::new(depth as usize) };
        for _ in 0..depth.min(WORKERS_MAX) {
            let shared = workers.shared.clone();
            let thread = std::thread::Builder::new().name("media".into());
            workers.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(workers)
    }

    fn hand_over(&mut self) {
        while let Some((slot, operation)) = self.slots.begin() {
            lock(&self.shared.jobs).queue.push_back((slot, operation.job()));
            self.shared.work.notify_one();
        }
    }

    fn take(&mut self) -> bool {
        let done = std::mem::take(&mut *lock(&self.shared.done));
        if done.is_empty() {
            return false;
        }
        // Below zero is impossible, so the only failure is that somebody emptied it before.
        let _ = rustix::io::read(&self.shared.event, &mut [0; 8]);
        for (slot, done) in done {
            self.slots.under_way(slot).give_back(done.buffer);
            self.slots.answer(slot, done.result);
        }
        true
    }
}

impl Engine for Workers {
    fn start(&mut self, operation: Operation) {
        self.slots.add(operation);
        self.hand_over();
    }

    fn turn(&mut self) -> bool {
        let taken = self.take();
        self.hand_over();
        taken
    }

    fn pending(&self) -> bool {
        !self.slots.is_empty()
    }

    fn queued(&self) -> bool {
        false // Handed over at once, or when a worker is done.
    }

    fn discards(&self) -> bool {
        self.slots.discards
    }

    fn writes_out(&self) -> bool {
        false
    }

    fn event(&self) -> io::Result<OwnedFd> {
        self.shared.event.try_clone()
    }

    fn finish(&mut self) {
        while self.pending() {
            if !self.turn() {
                let mut fds = [PollFd::from_borrowed_fd(self.shared.event.as_fd(), PollFlags::IN)];
                // Interrupted or not: look again.
                let _ = poll(&mut fds, None);
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.jobs).closing = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker of a device panicked");
            }
        }
    }
}

/// A worker's life.
fn work(shared: &Shared) {
    loop {
        let mut jobs = lock(&shared.jobs);
        let (slot, job) = loop {
            if let Some(next) = jobs.queue.pop_front() {
                break next;
            }
            if jobs.closing {
                return;
            }
            jobs = shared.work.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        };
        drop(jobs);
        let file = match (job.route(), &shared.direct) {
            (Route::Direct, Some(direct)) => direct,
            _ => &shared.buffered,
        };
        let done = job.run(file.as_fd());
        lock(&shared.done).push((slot, done));
        // Fails only when the counter is full, and then the descriptor is readable anyway.
        let _ = rustix::io::write(&shared.event, &1u64.to_ne_bytes());
    }
}
