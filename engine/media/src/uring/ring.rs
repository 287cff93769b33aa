//! The ring: operations in the kernel by io_uring, on the xstream's own thread.
//!
//! # Invariants
//! 1. `user_data` is the slot of the operation, which is there from before its entry is pushed until its completion is
//!    taken. So what the kernel points to lives.
//! 2. As many entries fit in both queues as there are slots, so no push fails and no completion overflows.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::IoUring;
use rustix::fs::Advice;

use super::engine::Engine;
use super::open::{FileKind, Files};
use super::operation::Operation;
use super::slots::{Slots, copy_of};

pub(super) struct Ring {
    ring: IoUring,
    slots: Slots,
    /// Pushed, and not submitted yet.
    pushed: usize,
    /// Block devices only: a direct write that the kernel completes asynchronously does not drop what buffered reads
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
        let direct = files.direct.as_ref().map_or(buffered, |file| file.as_raw_fd());
        // Indices are those of `Route`. The kernel keeps the files open until they are unregistered.
        ring.submitter().register_files(&[buffered, direct])?;
        let direct_writes_pass_cache = match files.kind {
            FileKind::Block => Some(files.buffered.try_clone()?),
            FileKind::Regular => None,
        };
        let slots = Slots::new(depth as usize);
        Ok(Self { ring, slots, pushed: 0, direct_writes_pass_cache, broken: None })
    }

    /// Moves waiting operations to the submission queue while there are slots.
    fn push(&mut self) {
        while let Some((slot, operation)) = self.slots.begin() {
            let entry = operation.entry().user_data(slot as u64);
            // SAFETY: the entry points into the buffer that the slot's operation owns, whose memory stays where it is
            // until the completion is taken (invariant 1); its descriptors are registered with the ring.
            unsafe { self.ring.submission().push(&entry) }
                .expect("the submission queue has a place for every slot (invariant 2)");
            self.pushed += 1;
        }
    }

    /// One system call, if there is anything to submit or to wait for. True if there is cause to look again.
    fn submit(&mut self, wait: usize) -> bool {
        // With COOP_TASKRUN completions may appear only when the kernel is entered.
        if self.pushed == 0 && wait == 0 && !self.ring.submission().taskrun() {
            return false;
        }
        match self.ring.submitter().submit_and_wait(wait) {
            Ok(count) => {
                self.pushed -= count;
                count > 0
            }
            // No memory for requests, or interrupted: what was not taken stays in the queue for the next turn.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM)
                ) =>
            {
                true
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
            // In a statement of its own: the queue is borrowed no longer than that.
            let Some(entry) = self.ring.completion().next() else { return taken };
            taken = true;
            let slot = usize::try_from(entry.user_data()).expect("a slot");
            self.drop_cache(slot, entry.result());
            self.slots.answer(slot, entry.result());
        }
    }

    fn drop_cache(&mut self, slot: usize, result: i32) {
        let Some(file) = &self.direct_writes_pass_cache else { return };
        if let Some((offset, len)) = self.slots.under_way(slot).written_directly(result)
            && let Err(error) = rustix::fs::fadvise(file, offset, Some(len), Advice::DontNeed)
        {
            tracing::error!(%error, offset, "the page cache was not dropped");
        }
    }

    fn break_down(&mut self, error: io::Error) {
        tracing::error!(%error, "io_uring broke down");
        self.slots.abandon(&error);
        self.broken = Some(error);
    }
}

impl Engine for Ring {
    fn start(&mut self, operation: Operation) {
        if let Some(error) = &self.broken {
            operation.fail(copy_of(error));
            return;
        }
        self.slots.add(operation);
        self.push();
    }

    fn turn(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let submitted = self.submit(0);
        let taken = self.take();
        self.push();
        submitted || taken
    }

    fn pending(&self) -> bool {
        !self.slots.is_empty()
    }

    fn queued(&self) -> bool {
        self.pushed > 0
    }

    fn discards(&self) -> bool {
        self.slots.discards
    }

    fn writes_out(&self) -> bool {
        true
    }

    fn event(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open while `self.ring` lives, which outlasts this statement.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }.as_fd().try_clone_to_owned()
    }

    /// Also lets go of the files: the kernel takes the ring itself apart later, and would keep them open (and locked)
    /// until then.
    fn finish(&mut self) {
        while self.pending() {
            self.submit(1);
            self.take();
            self.push();
        }
        if let Err(error) = self.ring.submitter().unregister_files() {
            tracing::warn!(%error, "the files of an io_uring were not let go");
        }
    }
}

/// Completions do not interrupt the thread; they wait until it enters the kernel anyway (5.19). Plain where that is not
/// known. Not DEFER_TASKRUN: see README. Not SINGLE_ISSUER: turns are the owner's thread's alone, because the kernel cancels
/// what a thread that ends has submitted, but the last user of a device, who finishes it, may be a guest on the xstream.
fn build(depth: u32) -> io::Result<IoUring> {
    let cooperative = IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(depth);
    match cooperative {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth),
        built => built,
    }
}
