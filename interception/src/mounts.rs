//! The table of mounts: which are dfuse's, and whether anything about them is in the way of changing names past the kernel.
//!
//! # Invariants
//! 1. Nothing is mounted on a name of a filesystem, and none of its mounts is read-only, or its names are the kernel's: it alone knows what it shows.
//! 2. A change of the table is seen by the next call (`poll` on mountinfo, proc(5)); so is that this thread has another table now: its
//!    mounts have other numbers. The table that is open keeps those of its own from being given again.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::doors;

const FUSE_SUBTYPE: &[u8] = b"fuse.dfuse";
/// Longest line that is understood.
const LINE_BYTES_MAX: usize = 8192;
/// Mounts of dfuse that are told apart.
const MOUNTS_MAX: usize = 32;

/// A line of mountinfo(5).
pub(crate) struct Mount<'l> {
    pub(crate) number: u64,
    parent: u64,
    pub(crate) device: u64,
    root: &'l [u8],
    /// The mountpoint.
    pub(crate) at: &'l [u8],
    read_only: bool,
    pub(crate) is_dfuse: bool,
}

impl<'l> Mount<'l> {
    fn of(line: &'l [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (number, parent) = (number()?, number()?);
        let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        let (root, at, options) = (fields.next()?, fields.next()?, fields.next()?);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, _source, of_all) = (rest.next()?, rest.next()?, rest.next()?);
        let is_ro = |options: &[u8]| options.split(|byte| *byte == b',').next() == Some(b"ro");
        let read_only = is_ro(options) || is_ro(of_all);
        Some(Self { number, parent, device, root, at, read_only, is_dfuse: kind == FUSE_SUBTYPE })
    }

    /// It shows the filesystem from its root on.
    pub(crate) fn is_whole(&self) -> bool {
        self.root == b"/"
    }
}

/// Room for lines, which is too large for some stacks.
struct Room {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; LINE_BYTES_MAX]>,
}

// SAFETY: `bytes` is used by the one who has set `taken`.
unsafe impl Sync for Room {}

static ROOM: Room =
    Room { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; LINE_BYTES_MAX]) };

/// Goes through the table; false: not all of it could be read, or somebody else is reading it.
pub(crate) fn read(see: impl FnMut(&Mount<'_>)) -> bool {
    if ROOM.taken.swap(true, Acquire) {
        return false;
    }
    // SAFETY: see `Sync`.
    let whole = read_by(unsafe { &mut *ROOM.bytes.get() }, see);
    ROOM.taken.store(false, Release);
    whole
}

fn read_by(room: &mut [u8], mut see: impl FnMut(&Mount<'_>)) -> bool {
    let Some(table) = open() else { return false };
    let mut held = 0;
    while let Ok(len) = rustix::io::read(&table, &mut room[held..]) {
        held += len;
        if len == 0 {
            return held == 0;
        }
        let Some(end) = room[..held].iter().rposition(|byte| *byte == b'\n').map(|at| at + 1)
        else {
            return false;
        };
        for line in room[..end].split(|byte| *byte == b'\n') {
            if let Some(mount) = Mount::of(line) {
                see(&mount);
            }
        }
        room.copy_within(end..held, 0);
        held -= end;
    }
    false
}

fn open() -> Option<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc/thread-self/mountinfo", flags, Mode::empty()).ok()
}

/// What is known of the table.
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);
const UNKNOWN: u32 = 0;
const LOOKING: u32 = 1;
const KNOWN: u32 = 2;

/// The table, to be polled.
static TABLE: AtomicI32 = AtomicI32::new(-1);
static TABLE_INODE: AtomicU64 = AtomicU64::new(0);

/// A mount of dfuse in it.
struct Seen {
    /// 0: none.
    number: AtomicU64,
    device: AtomicU64,
    /// It may be written to, and nothing is mounted on a name in it.
    is_plain: AtomicBool,
}

static SEEN: [Seen; MOUNTS_MAX] = [const {
    Seen { number: AtomicU64::new(0), device: AtomicU64::new(0), is_plain: AtomicBool::new(false) }
}; MOUNTS_MAX];

fn seen(number: u64) -> Option<&'static Seen> {
    SEEN.iter().find(|seen| seen.number.load(Relaxed) == number)
}

/// Invariant 1, at this moment, for names in the mount of this number, of this device.
pub(crate) fn are_plain(mount: u64, device: u64) -> bool {
    let state = STATE.load(Acquire);
    if state == LOOKING {
        return false;
    }
    if state == UNKNOWN || seen(mount).is_none() || has_changed() {
        if STATE.compare_exchange(state, LOOKING, AcqRel, Relaxed).is_err() {
            return false;
        }
        if seen(mount).is_none() {
            close();
        }
        let known = look();
        STATE.store(if known { KNOWN } else { UNKNOWN }, Release);
        if !known {
            return false;
        }
    }
    let mut all = SEEN.iter().filter(|seen| seen.device.load(Relaxed) == device);
    seen(mount).is_some() && all.all(|seen| seen.is_plain.load(Relaxed))
}

/// In a child: the table is its parent's.
pub(crate) fn leave() {
    close();
    STATE.store(UNKNOWN, Release);
}

fn close() {
    if let Some(table) = table() {
        let fd = table.as_raw_fd();
        TABLE.store(-1, Relaxed);
        doors::close_ours(fd);
    }
}

/// The table, if the program has not closed it and opened something else in its place.
fn table() -> Option<BorrowedFd<'static>> {
    let table = doors::borrow_ours(TABLE.load(Relaxed))?;
    (doors::identity(table)?.1 == TABLE_INODE.load(Relaxed)).then_some(table)
}

fn has_changed() -> bool {
    let Some(table) = table() else { return true };
    let mut polled = [PollFd::from_borrowed_fd(table, PollFlags::PRI)];
    let now = rustix::event::Timespec::default();
    poll(&mut polled, Some(&now)) != Ok(0)
}

/// Reads the table; false: not all of it. A change from now on is seen by `has_changed`, which counts from when the table was opened.
fn look() -> bool {
    if table().is_none() {
        let Some(opened) = open().and_then(doors::aside) else { return false };
        let Some((_, inode)) = doors::identity(opened.as_fd()) else { return false };
        TABLE_INODE.store(inode, Relaxed);
        TABLE.store(opened.into_raw_fd(), Relaxed);
    }
    for seen in &SEEN {
        seen.number.store(0, Relaxed);
        seen.device.store(0, Relaxed);
    }
    let mut places = SEEN.iter();
    let mut room = true;
    let whole = read(|mount| {
        if !mount.is_dfuse {
            return;
        }
        let Some(seen) = places.next() else {
            room = false;
            return;
        };
        seen.number.store(mount.number, Relaxed);
        seen.device.store(mount.device, Relaxed);
        seen.is_plain.store(!mount.read_only, Relaxed);
    });
    let above = |mount: &Mount<'_>| {
        if let Some(seen) = seen(mount.parent) {
            seen.is_plain.store(false, Relaxed);
        }
    };
    whole && room && read(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_understood() {
        let line =
            b"41 29 0:45 / /mnt/daos rw,nosuid shared:9 - fuse.dfuse dfuse:/store rw,user_id=0";
        let mount = Mount::of(line).unwrap();
        assert_eq!((mount.number, mount.parent, mount.at), (41, 29, &b"/mnt/daos"[..]));
        assert_eq!(mount.device, rustix::fs::makedev(0, 45));
        assert!(mount.is_dfuse && mount.is_whole() && !mount.read_only);
        let sub = Mount::of(b"41 29 0:45 /sub /mnt/x ro,nosuid - fuse.dfuse d rw").unwrap();
        assert!(sub.is_dfuse && !sub.is_whole() && sub.read_only);
        assert!(
            Mount::of(b"41 29 0:45 / /mnt/x rw - fuse.dfuse d ro,user_id=0").unwrap().read_only
        );
        assert!(!Mount::of(b"41 29 0:45 / /mnt/x rw - fuse.sshfs dfuse rw").unwrap().is_dfuse);
        for other in [&b"41 29 0:45"[..], b"", b"x y 0:45 / /m rw - fuse.dfuse d rw"] {
            assert!(Mount::of(other).is_none());
        }
    }
}
