//! What is known of each descriptor.
//!
//! # Invariants
//! 1. A child of vfork has its parent's memory and other descriptors: it changes nothing here.
//! 2. Words of one entry may be read while another thread closes it and opens something else: then they do not fit together, which the door
//!    (a token that nobody has) or the look at the inode finds out.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};

use daos_types::door::Token;
use rustix::process::getpid;
use rustix::thread::{gettid, sched_yield};

/// As many as a process may have here; those above are the kernel's.
const FDS_MAX: usize = 1 << 16;

/// Nothing is known: the kernel's.
const UNKNOWN: u8 = 0;
/// Opened here for the door, and not used yet.
const OPENED: u8 = 1;
/// The door knows it.
const READY: u8 = 2;
/// The door has refused it: the kernel's, but its offset may be moved by duplicates that do not know that yet.
const REFUSED: u8 = 3;

pub(crate) struct Fd {
    state: AtomicU8,
    door: AtomicU8,
    /// Calls that still go through the kernel, because a pass costs as much as two of them and few files get many.
    patience: AtomicU8,
    /// How often anything was shared when it was opened: somebody else may have its offset since.
    era: AtomicU32,
    device: AtomicU64,
    inode: AtomicU64,
    token: [AtomicU64; 2],
    /// The thread that moves the offset; of a duplicate, what is in the entry of the first.
    moving: AtomicU32,
    first: AtomicU32,
}

const NEW: Fd = Fd {
    state: AtomicU8::new(UNKNOWN),
    door: AtomicU8::new(0),
    patience: AtomicU8::new(0),
    era: AtomicU32::new(0),
    device: AtomicU64::new(0),
    inode: AtomicU64::new(0),
    token: [const { AtomicU64::new(0) }; 2],
    moving: AtomicU32::new(0),
    first: AtomicU32::new(0),
};

static FDS: [Fd; FDS_MAX] = [NEW; FDS_MAX];
/// The process whose descriptors these are.
static OWNER: AtomicI32 = AtomicI32::new(0);
static ERA: AtomicU32 = AtomicU32::new(0);
/// Highest descriptor that was ever known.
static HIGHEST: AtomicU32 = AtomicU32::new(0);
/// Turns that somebody waits for another who moves an offset: one who left by a jump out of a signal handler never ends.
const TURNS_MAX: u32 = 1_000_000;

/// Beside the thread: it is in a call of the kernel, which moves the offset in one step for everybody.
const BY_KERNEL: u32 = 1 << 31;

/// What a descriptor is, as far as the door is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) door: usize,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) token: Option<Token>,
    /// Nobody else has its offset.
    pub(crate) is_own: bool,
    /// Only its offset is of interest.
    pub(crate) is_kernels: bool,
}

fn entry(fd: i32) -> Option<&'static Fd> {
    usize::try_from(fd).ok().and_then(|fd| FDS.get(fd))
}

/// From now on these are the descriptors of this process.
pub(crate) fn inherit() {
    OWNER.store(getpid().as_raw_nonzero().get(), Relaxed);
}

pub(crate) fn are_ours() -> bool {
    OWNER.load(Relaxed) == getpid().as_raw_nonzero().get()
}

/// The era in which a file that is about to be opened has its offset to itself.
pub(crate) fn era() -> u32 {
    ERA.load(Acquire)
}

/// A file was opened for the door.
pub(crate) fn opened(fd: i32, era: u32, door: usize, (device, inode): (u64, u64), patience: u8) {
    let Some(entry) = entry(fd) else { return };
    HIGHEST.fetch_max(fd as u32, Relaxed);
    entry.state.store(UNKNOWN, Relaxed);
    entry.door.store(door as u8, Relaxed);
    entry.patience.store(patience, Relaxed);
    entry.era.store(era, Relaxed);
    entry.device.store(device, Relaxed);
    entry.inode.store(inode, Relaxed);
    entry.first.store(fd as u32, Relaxed);
    entry.state.store(OPENED, Release);
}

/// The door has given a token.
pub(crate) fn ready(fd: i32, token: Token) {
    let Some(entry) = entry(fd) else { return };
    entry.token[0].store(token.0, Relaxed);
    entry.token[1].store(token.1, Relaxed);
    let _ = entry.state.compare_exchange(OPENED, READY, AcqRel, Relaxed);
}

/// Whether this call, the next of a descriptor that has no token yet, still goes through the kernel.
pub(crate) fn is_patient(fd: i32) -> bool {
    let one_less = |patience: u8| patience.checked_sub(1);
    entry(fd).is_some_and(|entry| entry.patience.fetch_update(Relaxed, Relaxed, one_less).is_ok())
}

/// It is the kernel's from now on.
pub(crate) fn refused(fd: i32) {
    let Some(entry) = entry(fd) else { return };
    for state in [OPENED, READY] {
        let _ = entry.state.compare_exchange(state, REFUSED, AcqRel, Relaxed);
    }
}

/// It is closed, or another file.
pub(crate) fn forget(fd: i32) {
    if let Some(entry) = entry(fd)
        && entry.state.load(Relaxed) != UNKNOWN
        && are_ours()
    {
        entry.state.store(UNKNOWN, Release);
    }
}

pub(crate) fn forget_range(first: u32, last: u32) {
    let last = (last as usize).min(FDS_MAX - 1);
    (first as usize..=last).for_each(|fd| forget(fd as i32));
}

/// `new` is a duplicate of `fd`, with the same offset.
pub(crate) fn duplicated(fd: i32, new: i32) {
    if fd == new {
        return;
    }
    forget(new);
    let (Some(from), Some(to)) = (entry(fd), entry(new)) else { return };
    let state = from.state.load(Acquire);
    if state == UNKNOWN || !are_ours() {
        return;
    }
    HIGHEST.fetch_max(new as u32, Relaxed);
    to.door.store(from.door.load(Relaxed), Relaxed);
    to.patience.store(from.patience.load(Relaxed), Relaxed);
    to.era.store(from.era.load(Relaxed), Relaxed);
    to.device.store(from.device.load(Relaxed), Relaxed);
    to.inode.store(from.inode.load(Relaxed), Relaxed);
    to.first.store(from.first.load(Relaxed), Relaxed);
    for (to, from) in to.token.iter().zip(&from.token) {
        to.store(from.load(Relaxed), Relaxed);
    }
    to.state.store(state, Release);
}

/// All that is open now is also a child's. Who has begun to move an offset, as one that was his own, comes to his end before.
pub(crate) fn share_all() {
    ERA.fetch_add(1, AcqRel);
    let (highest, me) = (HIGHEST.load(Relaxed) as usize, me());
    for entry in &FDS[..=highest.min(FDS_MAX - 1)] {
        for _ in 0..TURNS_MAX {
            let moving = entry.moving.load(Acquire);
            if moving == 0 || moving == me || moving & BY_KERNEL != 0 {
                break;
            }
            sched_yield();
        }
    }
}

fn me() -> u32 {
    gettid().as_raw_nonzero().get() as u32
}

/// In a child of fork: the threads that were moving offsets are its parent's.
pub(crate) fn nobody_moves() {
    let highest = HIGHEST.load(Relaxed) as usize;
    FDS[..=highest.min(FDS_MAX - 1)].iter().for_each(|entry| entry.moving.store(0, Relaxed));
}

pub(crate) fn known(fd: i32) -> Option<Known> {
    let entry = entry(fd)?;
    let state = entry.state.load(Acquire);
    if state == UNKNOWN {
        return None;
    }
    let token = || Token(entry.token[0].load(Relaxed), entry.token[1].load(Relaxed));
    Some(Known {
        door: entry.door.load(Relaxed).into(),
        device: entry.device.load(Relaxed),
        inode: entry.inode.load(Relaxed),
        token: (state == READY).then(token),
        is_own: entry.era.load(Relaxed) == ERA.load(Acquire),
        is_kernels: state == REFUSED,
    })
}

/// The right to move a descriptor's offset, among the threads of this process.
pub(crate) struct Moving(&'static Fd);

impl Moving {
    /// `None`: this very thread has it, and a signal has come in between; or somebody who does not come back.
    pub(crate) fn begin(fd: i32) -> Option<Self> {
        let first = entry(fd)?.first.load(Relaxed);
        let (entry, me) = (entry(first as i32)?, me());
        for _ in 0..TURNS_MAX {
            match entry.moving.compare_exchange(0, me, Acquire, Relaxed) {
                Ok(_) => return Some(Self(entry)),
                Err(other) if other & !BY_KERNEL == me => return None,
                Err(_) => sched_yield(),
            }
        }
        None
    }

    /// The call is the kernel's.
    pub(crate) fn by_kernel(self) -> Self {
        self.0.moving.fetch_or(BY_KERNEL, Relaxed);
        self
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.moving.store(0, Release);
    }
}
