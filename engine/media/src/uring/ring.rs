//! The ring: operations in the kernel, those that wait for a place, and the two system calls between.
//!
//! # Invariants
//! 1. `slots[user_data]` holds the operation from before its entry is pushed until its completion is taken. So what the
//!    kernel points to lives.
//! 2. At most `slots.len()` operations are in the kernel; as many entries fit in both queues, so no push fails and no
//!    completion overflows.
//! 3. Operations enter the kernel in the order in which they were started.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use io_uring::IoUring;
use rustix::fs::Advice;

use super::open::{FileKind, Files};
use super::operation::{Operation, Step};

pub(super) struct Ring {
    ring: IoUring,
    /// Invariant 1.
    slots: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    queue: VecDeque<Operation>,
    /// Pushed, and not submitted yet.
    pushed: usize,
    discards: bool,
    /// Block devices only: a direct write that the kernel completes asynchronously does not drop what buffered reads or readahead
    /// put into the page cache while it was under way (block/fops.c; files do, in iomap), and later buffered reads
    /// would see the old content for good. So it is dropped here.
    direct_writes_pass_cache: Option<File>,
    /// The kernel refused the ring itself: nothing can be known of what is in it any more.
    broken: Option<io::Error>,
}

impl Ring {
    pub fn new(depth: u32, files: &Files) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096).next_power_of_two();
        let ring = build(depth)?;
        let buffered = files.buffered.as_raw_fd();
        let direct = files.direct.as_ref().map_or(buffered, AsRawFd::as_raw_fd);
        // Indices are those of `Route`. Kept open by the kernel for as long as the ring lives.
        ring.submitter().register_files(&[buffered, direct])?;
        let direct_writes_pass_cache = match files.kind {
            FileKind::Block => Some(files.buffered.try_clone()?),
            FileKind::Regular => None,
        };
        Ok(Self {
            ring,
            direct_writes_pass_cache,
            slots: (0..depth).map(|_| None).collect(),
            vacant: (0..depth as usize).rev().collect(),
            queue: VecDeque::new(),
            pushed: 0,
            discards: true,
            broken: None,
        })
    }

    /// A descriptor that is readable when completions wait.
    pub fn event(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open while `self.ring` lives, which outlasts this statement.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Whether the device is known to support discards, or not known not to.
    pub fn discards(&self) -> bool {
        self.discards
    }

    pub fn start(&mut self, operation: Operation) {
        if let Some(error) = &self.broken {
            operation.fail(copy_of(error));
            return;
        }
        self.queue.push_back(operation);
        self.push();
    }

    pub fn pending(&self) -> bool {
        self.broken.is_none() && (self.in_kernel() > 0 || !self.queue.is_empty())
    }

    /// Submits what was started and takes what is complete; true if there was anything.
    pub fn turn(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let submitted = self.submit(0);
        let taken = self.take();
        self.push();
        submitted || taken
    }

    /// Waits until nothing is in the kernel and nothing waits for a place; then lets go of the files: the kernel takes
    /// the ring itself apart later, and would keep them open (and locked) until then.
    pub fn finish(&mut self) {
        while self.pending() {
            self.submit(1);
            self.take();
            self.push();
        }
        if let Err(error) = self.ring.submitter().unregister_files() {
            tracing::warn!(%error, "the files of an io_uring were not let go");
        }
    }

    fn in_kernel(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Moves operations from the queue to the submission queue while there are places.
    fn push(&mut self) {
        while !self.queue.is_empty() && !self.vacant.is_empty() {
            let slot = self.vacant.pop().expect("not empty");
            let mut operation = self.queue.pop_front().expect("not empty");
            let entry = operation.entry().user_data(slot as u64);
            let old = self.slots[slot].replace(operation);
            assert!(old.is_none(), "a vacant slot is empty");
            // SAFETY: the entry points into the buffer that the slot's operation owns, whose memory stays where it is
            // until the completion is taken (invariant 1); its descriptors are registered with the ring.
            unsafe { self.ring.submission().push(&entry) }
                .expect("the submission queue has a place for every slot (invariant 2)");
            self.pushed += 1;
        }
    }

    /// One system call, if there is anything to submit or to wait for; true if something was submitted.
    fn submit(&mut self, wait: usize) -> bool {
        // Deferred completions appear only when the kernel is entered.
        if self.pushed == 0 && wait == 0 && !self.ring.submission().taskrun() {
            return false;
        }
        match self.ring.submitter().submit_and_wait(wait) {
            Ok(count) => {
                self.pushed -= count;
                count > 0
            }
            // Out of memory for requests, or interrupted: what was not taken stays in the queue for the next turn.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)
                ) =>
            {
                false
            }
            Err(error) => {
                self.break_down(error);
                false
            }
        }
    }

    /// Takes completions; true if there were any.
    fn take(&mut self) -> bool {
        let mut taken = false;
        loop {
            let Some(entry) = self.ring.completion().next() else { return taken };
            taken = true;
            let slot = usize::try_from(entry.user_data()).expect("a slot");
            let operation = self.slots[slot].take().expect("one completion for each operation");
            self.vacant.push(slot);
            self.drop_cache(&operation, entry.result());
            match operation.answer(entry.result()) {
                Step::Complete => {}
                Step::Continue(operation) => self.queue.push_front(operation),
                Step::NoDiscard => self.discards = false,
            }
        }
    }

    fn drop_cache(&self, operation: &Operation, result: i32) {
        let Some(file) = &self.direct_writes_pass_cache else { return };
        if let Some((offset, len)) = operation.written_directly(result)
            && let Err(error) = rustix::fs::fadvise(file, offset, Some(len), Advice::DontNeed)
        {
            tracing::error!(%error, offset, "the page cache was not dropped");
        }
    }

    /// Fails everything. What the kernel may still write to is left to it for good.
    fn break_down(&mut self, error: io::Error) {
        tracing::error!(%error, "io_uring broke down");
        for operation in self.slots.iter_mut().filter_map(Option::take) {
            operation.abandon(copy_of(&error));
        }
        for operation in self.queue.drain(..) {
            operation.fail(copy_of(&error));
        }
        self.broken = Some(error);
    }
}

/// With completions deferred to our own calls, if the kernel (6.1) can; plain otherwise.
fn build(depth: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(depth);
    match deferred {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth),
        built => built,
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}
