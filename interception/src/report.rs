//! `D_IL_REPORT`: what went through the door, told at the end: to standard error, or as a line of JSON in a file.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64};

use rustix::fs::{Mode, OFlags};

use crate::{Done, Outcome, doors, environment};

/// In this order, also those that never go through the door.
const NAMES: [&str; 14] = [
    "read", "write", "open", "stat", "opendir", "readdir", "link", "unlink", "rdlink", "seek",
    "mkdir", "rmdir", "rename", "mmap",
];
pub(crate) const READ: usize = 0;
pub(crate) const WRITE: usize = 1;
pub(crate) const OPEN: usize = 2;
pub(crate) const STAT: usize = 3;
pub(crate) const LINK: usize = 6;
pub(crate) const UNLINK: usize = 7;
pub(crate) const MKDIR: usize = 10;
pub(crate) const RMDIR: usize = 11;
pub(crate) const RENAME: usize = 12;

static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
/// Where the report goes, kept from the start: coreutils close standard error before they end. -1: nobody wants one.
static TO: AtomicI32 = AtomicI32::new(-1);
static TO_INODE: AtomicU64 = AtomicU64::new(0);
static FORM: AtomicI32 = AtomicI32::new(TEXT);
const TEXT: i32 = 0;
const JSON: i32 = 1;
/// Whose report it is: a child of vfork has its parent's memory.
static PID: AtomicI32 = AtomicI32::new(0);

pub(crate) fn count(what: usize) {
    COUNTS[what].fetch_add(1, Relaxed);
}

pub(crate) fn count_done(done: &Done, what: usize) {
    if done.is_some() {
        count(what);
    }
}

pub(crate) fn count_if(outcome: &Outcome, what: usize) {
    if !matches!(outcome, Outcome::Bypass(_)) {
        count(what);
    }
}

fn pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub(crate) fn prepare() {
    PID.store(pid(), Relaxed);
    let Some(asked) = environment::variable(c"D_IL_REPORT").filter(|asked| *asked != c"0") else {
        return;
    };
    let kept = match asked.to_bytes().strip_prefix(b"json:") {
        Some(_) => {
            FORM.store(JSON, Relaxed);
            open(asked)
        }
        None => keep(2),
    };
    let kept = kept.unwrap_or(-1);
    TO_INODE.store(inode(kept).unwrap_or(0), Relaxed);
    TO.store(kept, Relaxed);
}

#[allow(unsafe_code)]
fn inode(fd: i32) -> Option<u64> {
    // SAFETY: whether it is open, the kernel says; -1 is not asked.
    let fd = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })?;
    Some(doors::identity(fd)?.1)
}

/// The file behind `json:`, to be added to.
fn open(asked: &'static CStr) -> Option<i32> {
    let path = CStr::from_bytes_with_nul(asked.to_bytes_with_nul().strip_prefix(b"json:")?).ok()?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).ok()?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&file, FD_FROM).ok()?;
    Some(kept.into_raw_fd())
}

/// Out of the way of a program's.
const FD_FROM: i32 = 950;

#[allow(unsafe_code)]
fn keep(fd: i32) -> Option<i32> {
    // SAFETY: whether it is open, the kernel says.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Some(rustix::io::fcntl_dupfd_cloexec(fd, FD_FROM).ok()?.into_raw_fd())
}

/// In a child of fork: it reports for itself, of what it does itself.
pub(crate) fn inherit() {
    PID.store(pid(), Relaxed);
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
}

/// Once.
#[allow(unsafe_code)]
pub(crate) fn print() {
    if PID.load(Relaxed) != pid() {
        return;
    }
    let to = TO.swap(-1, Relaxed);
    // The program may have closed it and opened something else in its place.
    if to < 0 || inode(to) != Some(TO_INODE.load(Relaxed)) {
        return;
    }
    // SAFETY: it was made by `prepare`, and is open, as was just looked at.
    let to = unsafe { BorrowedFd::borrow_raw(to) };
    let mut line = Line { bytes: [0; LINE_BYTES], len: 0 };
    match FORM.load(Relaxed) {
        JSON => line.json(environment::program()),
        _ => line.text(),
    }
    let _ = rustix::io::write(to, &line.bytes[..line.len]);
}

const LINE_BYTES: usize = 1024;
/// Of a program's name; what follows is left away.
const NAME_BYTES_MAX: usize = 64;

/// Text without an allocator.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn text(&mut self) {
        self.put(b"libpil4dfs intercepting summary for ops on DFS:\n");
        for (what, name) in NAMES.iter().enumerate() {
            self.row(name, COUNTS[what].load(Relaxed));
            if what == WRITE {
                self.put(b"\n");
            }
        }
        self.put(b"\n");
        self.row("op_sum", sum());
    }

    fn json(&mut self, program: &[u8]) {
        self.put(b"{\"pid\":");
        self.number(pid() as u64);
        self.put(b",\"program\":\"");
        for byte in &program[..program.len().min(NAME_BYTES_MAX)] {
            match byte {
                b' '..=b'~' if !b"\"\\".contains(byte) => self.put(&[*byte]),
                _ => {
                    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                    self.put(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
        self.put(b"\"");
        let counts = NAMES.iter().zip(COUNTS.each_ref().map(|count| count.load(Relaxed)));
        for (name, count) in counts.chain([(&"op_sum", sum())]) {
            self.put(b",\"");
            self.put(name.as_bytes());
            self.put(b"\":");
            self.number(count);
        }
        self.put(b"}\n");
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    fn row(&mut self, name: &str, count: u64) {
        self.put(b"[");
        self.put(name.as_bytes());
        self.put(&b"       "[name.len()..]);
        self.put(b"]  ");
        self.number(count);
        self.put(b"\n");
    }

    fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }
}

fn sum() -> u64 {
    COUNTS.iter().map(|count| count.load(Relaxed)).sum()
}
