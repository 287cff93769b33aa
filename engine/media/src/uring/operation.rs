//! One operation of the device, from its request to its completion: what the kernel is asked, and what its answer means.
//!
//! # Invariants
//! 1. An operation owns its buffer from start to completion; the kernel's pointers into it stay valid because nobody
//!    else can drop, move or (for reads) look at it.
//! 2. A transfer that was done in part goes on from there; its future sees only the whole.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::IoBuf;
use crate::device::IoSender;

/// One request to the kernel is at most this long (its own limit is a little below 2 GiB).
const TRANSFER_BYTES_MAX: u64 = 1 << 30;
/// How often in a row an operation is asked again after EAGAIN.
const AGAIN_MAX: u32 = 1000;

const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;

/// Which registered descriptor; its index in the ring's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Buffered = 0,
    Direct = 1,
}

pub(super) enum Kind {
    Read(IoBuf, IoSender<IoBuf>),
    Write(Bytes, IoSender<()>),
    Flush(IoSender<()>),
    WriteOut(IoSender<()>),
    Discard(IoSender<()>),
    Allocate(IoSender<()>),
}

pub(super) struct Operation {
    kind: Kind,
    offset: u64,
    len: u64,
    done: u64,
    route: Route,
    again: u32,
}

/// The next system call of an operation, with its buffer, for another thread.
pub(super) struct Job {
    kind: JobKind,
    offset: u64,
    route: Route,
}

enum JobKind {
    /// Into the buffer from this byte on.
    Read(IoBuf, usize),
    Write(Bytes),
    Flush,
    Discard(u64),
    Allocate(u64),
}

/// A job's answer: as the kernel's, and the buffer of a read.
pub(super) struct Done {
    pub result: i32,
    pub buffer: Option<IoBuf>,
}

impl Job {
    pub fn route(&self) -> Route {
        self.route
    }

    pub fn run(self, file: BorrowedFd<'_>) -> Done {
        let (result, buffer) = match self.kind {
            JobKind::Read(mut buffer, from) => {
                (rustix::io::pread(file, &mut buffer[from..], self.offset), Some(buffer))
            }
            JobKind::Write(data) => (rustix::io::pwrite(file, &data, self.offset), None),
            JobKind::Flush => (rustix::fs::fdatasync(file).map(|()| 0), None),
            JobKind::Discard(len) => {
                let punch = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
                (rustix::fs::fallocate(file, punch, self.offset, len).map(|()| 0), None)
            }
            JobKind::Allocate(len) => {
                let keep = FallocateFlags::KEEP_SIZE;
                (rustix::fs::fallocate(file, keep, self.offset, len).map(|()| 0), None)
            }
        };
        let result = match result {
            Ok(count) => i32::try_from(count).expect("one system call transfers less than 2 GiB"),
            Err(errno) => -errno.raw_os_error(),
        };
        Done { result, buffer }
    }
}

/// Answers to SYNC_FILE_RANGE that come before any page is looked at: the call is not there, not for this file, or not now. All
/// others may be those of the pages' writes, ENOMEM too, and the kernel need not tell them again to the next flush.
fn says_nothing_of_bytes(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::AGAIN
            | Errno::NOSYS
            | Errno::OPNOTSUPP
            | Errno::INVAL
            | Errno::SPIPE
            | Errno::CANCELED
    )
}

/// What is to be done after an answer of the kernel.
pub(super) enum Step {
    Complete,
    /// The rest, or the same once more.
    Continue(Operation),
    /// A discard was complete, as a no-op: the device has none.
    NoDiscard,
}

impl Operation {
    pub fn new(kind: Kind, offset: u64, len: u64, route: Route) -> Self {
        Self { kind, offset, len, done: 0, route, again: 0 }
    }

    /// The request for what is not done yet. Valid for as long as `self` lives in its place or is moved, since the buffers do
    /// not move with it (invariant 1).
    pub fn entry(&mut self) -> squeue::Entry {
        let file = types::Fixed(self.route as u32);
        let at = self.offset + self.done;
        let len = (self.len - self.done).min(TRANSFER_BYTES_MAX) as u32;
        match &mut self.kind {
            Kind::Read(buffer, _) => {
                let start = buffer[self.done as usize..].as_mut_ptr();
                opcode::Read::new(file, start, len).offset(at).build()
            }
            Kind::Write(data, _) => {
                let start = data[self.done as usize..].as_ptr();
                opcode::Write::new(file, start, len).offset(at).build()
            }
            Kind::Flush(_) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            Kind::WriteOut(_) => opcode::SyncFileRange::new(file, len)
                .offset(at)
                .flags(libc::SYNC_FILE_RANGE_WRITE)
                .build(),
            Kind::Discard(_) => opcode::Fallocate::new(file, self.len)
                .offset(self.offset)
                .mode(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE)
                .build(),
            Kind::Allocate(_) => opcode::Fallocate::new(file, self.len)
                .offset(self.offset)
                .mode(FALLOC_KEEP_SIZE)
                .build(),
        }
    }

    /// The same request for a worker. A read's buffer leaves with it, until [`Operation::give_back`].
    pub fn job(&mut self) -> Job {
        let from = self.done as usize;
        let kind = match &mut self.kind {
            Kind::Read(buffer, _) => JobKind::Read(std::mem::take(buffer), from),
            Kind::Write(data, _) => JobKind::Write(data.slice(from..)),
            Kind::Flush(_) => JobKind::Flush,
            Kind::WriteOut(_) => unreachable!("workers write nothing out ahead of a flush"),
            Kind::Discard(_) => JobKind::Discard(self.len),
            Kind::Allocate(_) => JobKind::Allocate(self.len),
        };
        Job { kind, offset: self.offset + self.done, route: self.route }
    }

    pub fn give_back(&mut self, returned: Option<IoBuf>) {
        if let (Kind::Read(buffer, _), Some(returned)) = (&mut self.kind, returned) {
            *buffer = returned;
        }
    }

    /// The range that a direct write has written, by the kernel's answer to it.
    pub fn written_directly(&self, result: i32) -> Option<(u64, NonZeroU64)> {
        let written = matches!(self.kind, Kind::Write(..)) && self.route == Route::Direct;
        let len = NonZeroU64::new(u64::try_from(result).ok()?)?;
        written.then_some((self.offset + self.done, len))
    }

    /// Takes the kernel's answer: a count of bytes, or a negative errno.
    pub fn answer(mut self, result: i32) -> Step {
        if result < 0 {
            return self.refused(Errno::from_raw_os_error(-result));
        }
        if !matches!(self.kind, Kind::Read(..) | Kind::Write(..)) {
            self.complete(Ok(()));
            return Step::Complete;
        }
        let count = u64::try_from(result).expect("not negative");
        assert!(count <= self.len - self.done, "the kernel transferred more than it was asked for");
        if count == 0 {
            let kind = match self.kind {
                Kind::Read(..) => io::ErrorKind::UnexpectedEof,
                _ => io::ErrorKind::WriteZero,
            };
            self.complete(Err(kind.into()));
            return Step::Complete;
        }
        self.done += count;
        self.again = 0;
        if self.done == self.len {
            self.complete(Ok(()));
            return Step::Complete;
        }
        if !self.done.is_multiple_of(super::DIRECT_ALIGN) {
            self.route = Route::Buffered;
        }
        Step::Continue(self)
    }

    fn refused(mut self, errno: Errno) -> Step {
        match errno {
            Errno::INTR => Step::Continue(self),
            Errno::AGAIN if self.again < AGAIN_MAX => {
                self.again += 1;
                Step::Continue(self)
            }
            Errno::OPNOTSUPP if matches!(self.kind, Kind::Discard(_)) => {
                self.complete(Ok(()));
                Step::NoDiscard
            }
            errno if matches!(self.kind, Kind::WriteOut(_)) && says_nothing_of_bytes(errno) => {
                self.complete(Ok(()));
                Step::Complete
            }
            errno => {
                self.complete(Err(errno.into()));
                Step::Complete
            }
        }
    }

    /// Ends the operation without the kernel having seen it.
    pub fn fail(self, error: io::Error) {
        self.complete(Err(error));
    }

    /// Fails an operation of which the kernel may still hold the buffer: its memory is never used again.
    pub fn abandon(self, error: io::Error) {
        match self.kind {
            Kind::Read(buffer, sender) => {
                std::mem::forget(buffer);
                sender.send(Err(error));
            }
            Kind::Write(data, sender) => {
                std::mem::forget(data);
                sender.send(Err(error));
            }
            Kind::Flush(sender)
            | Kind::WriteOut(sender)
            | Kind::Discard(sender)
            | Kind::Allocate(sender) => sender.send(Err(error)),
        }
    }

    fn complete(self, result: io::Result<()>) {
        match self.kind {
            Kind::Read(buffer, sender) => sender.send(result.map(|()| buffer)),
            Kind::Write(_, sender)
            | Kind::Flush(sender)
            | Kind::WriteOut(sender)
            | Kind::Discard(sender)
            | Kind::Allocate(sender) => sender.send(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Io;
    use daos_xstream::sim;

    fn write(len: usize) -> (Operation, Io<()>) {
        let (sender, io) = Io::in_flight();
        let kind = Kind::Write(vec![1; len].into(), sender);
        (Operation::new(kind, 4096, len as u64, Route::Direct), io)
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped_and_leaves_the_direct_way_when_unaligned() {
        sim::run(1, |_| async {
            let (operation, io) = write(12288);
            let Step::Continue(operation) = operation.answer(4096) else { panic!("not complete") };
            assert_eq!((operation.done, operation.route), (4096, Route::Direct));
            let Step::Continue(operation) = operation.answer(512) else { panic!("not complete") };
            assert_eq!((operation.done, operation.route), (4608, Route::Buffered));
            assert!(!io.is_complete());
            assert!(matches!(operation.answer(12288 - 4608), Step::Complete));
            io.await.unwrap();
        });
    }

    #[test]
    fn interruptions_are_asked_again_and_errors_carry_their_errno() {
        sim::run(1, |_| async {
            let (operation, io) = write(4096);
            let Step::Continue(operation) = operation.answer(-4) else { panic!("EINTR") };
            let Step::Continue(operation) = operation.answer(-11) else { panic!("EAGAIN") };
            assert!(matches!(operation.answer(-28), Step::Complete));
            assert_eq!(io.await.unwrap_err().raw_os_error(), Some(28));

            let (mut operation, io) = write(4096);
            operation.again = AGAIN_MAX;
            assert!(matches!(operation.answer(-11), Step::Complete));
            assert_eq!(io.await.unwrap_err().kind(), io::ErrorKind::WouldBlock);

            let (operation, io) = write(4096);
            assert!(matches!(operation.answer(0), Step::Complete));
            assert_eq!(io.await.unwrap_err().kind(), io::ErrorKind::WriteZero);
        });
    }

    #[test]
    fn what_could_not_be_written_out_yet_is_no_failed_write() {
        sim::run(1, |_| async {
            let write_out = |again| {
                let (sender, io) = Io::in_flight();
                let mut operation =
                    Operation::new(Kind::WriteOut(sender), 0, 4096, Route::Buffered);
                operation.again = again;
                (operation, io)
            };
            let (operation, _io) = write_out(0);
            assert!(matches!(operation.answer(-Errno::INTR.raw_os_error()), Step::Continue(_)));
            let nothing = [Errno::AGAIN, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
            for errno in nothing.into_iter().chain([Errno::SPIPE, Errno::CANCELED]) {
                let (operation, io) = write_out(AGAIN_MAX);
                assert!(matches!(operation.answer(-errno.raw_os_error()), Step::Complete));
                io.await.unwrap();
            }
            for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::ROFS] {
                let (operation, io) = write_out(0);
                assert!(matches!(operation.answer(-errno.raw_os_error()), Step::Complete));
                assert_eq!(io.await.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
            }
        });
    }

    #[test]
    fn a_discard_that_is_not_supported_is_a_no_op() {
        sim::run(1, |_| async {
            let (sender, io) = Io::in_flight();
            let discard = Operation::new(Kind::Discard(sender), 0, 4096, Route::Buffered);
            assert!(matches!(discard.answer(-95), Step::NoDiscard));
            io.await.unwrap();
        });
    }
}
