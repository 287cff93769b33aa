//! `D_IL_REPORT`: what went through the door, printed at the end.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64};

use crate::Outcome;

pub(crate) const READ: usize = 0;
pub(crate) const WRITE: usize = 1;
pub(crate) const OPEN: usize = 2;
const NAMES: [&str; 3] = ["read ", "write", "open "];

static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Standard error, kept: coreutils close theirs before they end. -1: nobody wants a report.
static TO: AtomicI32 = AtomicI32::new(-1);
/// Whose report it is: a child of vfork has its parent's memory.
static PID: AtomicI32 = AtomicI32::new(0);

pub(crate) fn count(what: usize) {
    COUNTS[what].fetch_add(1, Relaxed);
}

pub(crate) fn count_if(outcome: &Outcome, what: usize) {
    if !matches!(outcome, Outcome::Bypass(_)) {
        count(what);
    }
}

#[allow(unsafe_code)]
pub(crate) fn prepare() {
    inherit();
    // SAFETY: before main nobody changes the environment.
    let asked = unsafe { libc::getenv(c"D_IL_REPORT".as_ptr()) };
    // SAFETY: not null, so it is a string of the environment.
    if asked.is_null() || unsafe { CStr::from_ptr(asked) } == c"0" {
        return;
    }
    // SAFETY: whether it is open, the kernel says.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    if let Ok(kept) = rustix::io::fcntl_dupfd_cloexec(stderr, 950) {
        TO.store(kept.into_raw_fd(), Relaxed);
    }
}

/// This process reports for itself.
pub(crate) fn inherit() {
    PID.store(rustix::process::getpid().as_raw_nonzero().get(), Relaxed);
}

/// Once.
#[allow(unsafe_code)]
pub(crate) fn print() {
    if PID.load(Relaxed) != rustix::process::getpid().as_raw_nonzero().get() {
        return;
    }
    let to = TO.swap(-1, Relaxed);
    if to < 0 {
        return;
    }
    // SAFETY: it was made by `prepare`; if the program has closed it, the write fails or goes where the program wants its numbers.
    let to = unsafe { BorrowedFd::borrow_raw(to) };
    let mut line = Line { bytes: [0; 512], len: 0 };
    let mut sum = 0;
    line.put(b"libpil4dfs intercepting summary for ops on DFS:\n");
    for (name, count) in NAMES.iter().zip(&COUNTS) {
        let count = count.load(Relaxed);
        sum += count;
        line.row(name, count);
    }
    line.put(b"\n");
    line.row("op_sum", sum);
    let _ = rustix::io::write(to, &line.bytes[..line.len]);
}

/// Text without an allocator.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn put(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    fn row(&mut self, name: &str, count: u64) {
        self.put(b"[");
        self.put(name.as_bytes());
        self.put(b"]  ");
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = count;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
        self.put(b"\n");
    }
}
