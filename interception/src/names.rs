//! Changes of names: unlink, rename and their like, at the door when the kernel has found the directory.
//!
//! The kernel resolves the directory's path in each call. dfuse knows who may change what is in it, as long as this thread is whom it knows;
//! and where something is mounted over a name is looked at here (`mounts.rs`). Directories that are renamed are the kernel's.
//!
//! # Invariants
//! 1. A directory is known by device and inode, as the kernel has just said; no descriptor of it is kept.
//! 2. A thread that is not whom dfuse knows the process as goes through the kernel.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use daos_types::door::names::{Call, Change, NOT_THIS, Name, What, XATTR};
use daos_types::door::{Answer, Token};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::doors::{self, Again};
use crate::text::Text;
use crate::{Outcome, fds, mounts, report};

const NAME_BYTES_MAX: usize = 255;
/// Calls in a directory that go through the kernel first: to enter it costs as much as one.
const PATIENCE: u32 = 3;
/// Calls that the door has sent to the kernel, after which it is not asked about that directory any more.
const REFUSALS_MAX: u32 = 3;
/// Directories that are remembered: fewer than the door lets a program enter.
const DIRECTORIES_MAX: usize = 64;
/// Places where a directory may be in the table.
const WAYS: usize = 4;
/// Turns that the table is waited for; a signal may have come in between.
const TURNS_MAX: u32 = 64;

const PROC_FDS: &[u8] = b"/proc/self/fd/";

/// A directory, and how it stands with the door.
struct Directory {
    taken: AtomicBool,
    device: AtomicU64,
    inode: AtomicU64,
    calls: AtomicU32,
    refusals: AtomicU32,
    state: AtomicU8,
}

/// Counts its calls.
const NEW: u8 = 0;
/// Somebody is entering it.
const ENTERING: u8 = 1;
const ENTERED: u8 = 2;
const KERNELS: u8 = 3;

static DIRECTORIES: [Directory; DIRECTORIES_MAX] = [const {
    Directory {
        taken: AtomicBool::new(false),
        device: AtomicU64::new(0),
        inode: AtomicU64::new(0),
        calls: AtomicU32::new(0),
        refusals: AtomicU32::new(0),
        state: AtomicU8::new(NEW),
    }
}; DIRECTORIES_MAX];

/// In a child: what is entered is its parent's.
pub(crate) fn leave() {
    mounts::leave();
    for directory in &DIRECTORIES {
        directory.taken.store(false, Relaxed);
        directory.inode.store(0, Relaxed);
        directory.state.store(NEW, Relaxed);
    }
}

impl Directory {
    /// Does something while nobody else does; `None`: somebody else is there for too long.
    fn alone<T>(&self, act: impl FnOnce(&Self) -> T) -> Option<T> {
        let free = || self.taken.compare_exchange_weak(false, true, Acquire, Relaxed).is_ok();
        (0..TURNS_MAX).find(|_| {
            free() || {
                std::hint::spin_loop();
                false
            }
        })?;
        let done = act(self);
        self.taken.store(false, Release);
        Some(done)
    }

    /// The door has sent a call to the kernel.
    fn refused(&self) {
        if self.refusals.fetch_add(1, Relaxed) + 1 >= REFUSALS_MAX {
            self.state.store(KERNELS, Release);
        }
    }

    fn is(&self, device: u64, inode: u64) -> bool {
        self.inode.load(Relaxed) == inode && self.device.load(Relaxed) == device
    }
}

/// A directory that is entered, or that one call more makes worth entering.
fn entered(parent: &Parent<'_>) -> Option<&'static Directory> {
    let (device, inode) = (parent.device, parent.inode);
    let door = doors::door_of(device)?;
    let first = (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
    let places = || (0..WAYS).map(move |way| (first + way) % DIRECTORIES_MAX);
    let found = places().find(|place| DIRECTORIES[*place].is(device, inode));
    let Some(place) = found else {
        let calls = |place: &usize| DIRECTORIES[*place].calls.load(Relaxed);
        let place = places().min_by_key(calls)?;
        places().for_each(|place| {
            let calls = &DIRECTORIES[place].calls;
            calls.store(calls.load(Relaxed) / 2, Relaxed);
        });
        DIRECTORIES[place].alone(|directory| {
            if directory.state.load(Relaxed) == ENTERING {
                return;
            }
            directory.device.store(device, Relaxed);
            directory.inode.store(inode, Relaxed);
            directory.calls.store(1, Relaxed);
            directory.refusals.store(0, Relaxed);
            directory.state.store(NEW, Relaxed);
        });
        return None;
    };
    let enters = DIRECTORIES[place].alone(|directory| {
        if !directory.is(device, inode) {
            return None;
        }
        let calls = directory.calls.load(Relaxed).saturating_add(1);
        directory.calls.store(calls, Relaxed);
        match directory.state.load(Relaxed) {
            ENTERED => Some(false),
            NEW if calls > PATIENCE => {
                directory.state.store(ENTERING, Relaxed);
                Some(true)
            }
            _ => None,
        }
    })??;
    let directory = &DIRECTORIES[place];
    if !enters {
        return Some(directory);
    }
    let entered = enter(parent, door).is_some();
    let state = if entered { ENTERED } else { KERNELS };
    directory.state.store(state, Release);
    entered.then_some(directory)
}

/// Proves to the door, by way of the kernel, that this directory may be changed.
fn enter(parent: &Parent<'_>, door: usize) -> Option<()> {
    if !doors::come() {
        return None;
    }
    let mut random = [0; 16];
    let len = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
    let token = Token::decode(&random[..len])?;
    let name = CStr::from_bytes_with_nul(const { &with_nul(XATTR) }).ok()?;
    let create = rustix::fs::XattrFlags::CREATE;
    let mut path = Text::new();
    parent.to_be_opened(&mut path)?;
    match rustix::fs::setxattr(path.c_str()?, name, &token.encode(), create) {
        Err(rustix::io::Errno::ALREADY) => {}
        _ => return None,
    }
    let call = Call::Enter { token };
    match doors::ask(door, &call.encode(), Again::May, |_| {}, |_, _| {})? {
        Answer::Done(_) => Some(()),
        _ => None,
    }
}

const fn with_nul(text: &[u8]) -> [u8; XATTR.len() + 1] {
    let mut bytes = [0; XATTR.len() + 1];
    let mut at = 0;
    while at < text.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

/// The directory of a path, and its last name.
struct Parent<'p> {
    dir: BorrowedFd<'p>,
    /// Empty: `dir` itself.
    path: &'p [u8],
    name: &'p [u8],
    /// Number of its mount.
    mount: u64,
    device: u64,
    inode: u64,
}

impl<'p> Parent<'p> {
    /// `None`: the kernel is to find it, or this thread may not change it.
    fn find(dir: i32, path: &'p Text) -> Option<Self> {
        fds::are_ours().then_some(())?;
        let dir = borrow(dir)?;
        let bytes = path.written();
        let slash = bytes.iter().rposition(|byte| *byte == b'/');
        let (path, name) = bytes.split_at(slash.map_or(0, |slash| slash + 1));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name == b"." || name == b".." {
            return None;
        }
        let mut room = Text::new();
        room.push(path)?;
        let c_path = room.c_str()?;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let statx =
            rustix::fs::statx(dir, c_path, flags, StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
        let device = rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor);
        let inode = statx.stx_ino;
        doors::door_of(device)?;
        Some(Self { dir, path, name, mount: statx.stx_mnt_id, device, inode })
    }

    /// A path by which a call without a directory's descriptor finds it.
    fn to_be_opened(&self, path: &mut Text) -> Option<()> {
        let absolute = self.path.first() == Some(&b'/');
        if !absolute && self.dir.as_raw_fd() != rustix::fs::CWD.as_raw_fd() {
            path.push(PROC_FDS)?;
            path.push_number(u32::try_from(self.dir.as_raw_fd()).ok()?)?;
            path.push(b"/")?;
        }
        path.push(self.path)?;
        if path.is_empty() { path.push(b".") } else { Some(()) }
    }

    fn named(&self) -> Name {
        Name { directory: self.inode, bytes: self.name.len() as u16 }
    }
}

#[allow(unsafe_code)]
fn borrow(dir: i32) -> Option<BorrowedFd<'static>> {
    match dir {
        libc::AT_FDCWD => Some(rustix::fs::CWD),
        // SAFETY: it is only given to the kernel, which says when nothing is there.
        0.. => Some(unsafe { BorrowedFd::borrow_raw(dir) }),
        _ => None,
    }
}

/// Asks the door to change something; `first` and `second` are the names, or a name and a symlink's target. `parents` have been entered.
fn change(
    parents: [&Parent<'_>; 2],
    directories: [&Directory; 2],
    change: Change,
    second: &[u8],
) -> Outcome {
    let first = parents[0].name;
    let put = |slot: &daos_fabric::shm::Slot<'_>| {
        slot.put_data(0, first);
        slot.put_data(first.len(), second);
    };
    let plain = parents.iter().all(|parent| mounts::are_plain(parent.mount, parent.device));
    let door = doors::door_of(parents[0].device);
    let Some(door) = door.filter(|door| plain && doors::is_same_user(*door)) else {
        return Outcome::Bypass(None);
    };
    let answer = doors::ask(door, &Call::Change(change).encode(), Again::MayNot, put, |_, _| {});
    let outcome = match answer {
        Some(Answer::Done(NOT_THIS)) => Outcome::Bypass(None),
        Some(Answer::Done(_)) => Outcome::Done(0),
        // It has forgotten that they were entered.
        Some(Answer::Failed(errno)) if errno == libc::ESTALE as u32 => {
            directories.iter().for_each(|directory| directory.state.store(NEW, Release));
            Outcome::Bypass(None)
        }
        Some(Answer::Failed(errno)) => Outcome::Failed(errno as i32),
        _ => {
            directories.iter().for_each(|directory| directory.refused());
            Outcome::Bypass(None)
        }
    };
    report::count_if(&outcome, row(change.what));
    outcome
}

/// Where a report counts it.
fn row(what: What) -> usize {
    match what {
        What::Unlink => report::UNLINK,
        What::Rmdir => report::RMDIR,
        What::Mkdir { .. } => report::MKDIR,
        What::Symlink | What::Link => report::LINK,
        What::Rename { .. } => report::RENAME,
    }
}

pub(crate) fn unlink(dir: i32, path: &Text, directory: bool) -> Outcome {
    try_unlink(dir, path, directory).unwrap_or(Outcome::Bypass(None))
}

fn try_unlink(dir: i32, path: &Text, directory: bool) -> Option<Outcome> {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent)?;
    let what = if directory { What::Rmdir } else { What::Unlink };
    let asked = Change { what, thread: thread(), at: parent.named(), to: Name::default() };
    Some(change([&parent; 2], [entered; 2], asked, b""))
}

pub(crate) fn mkdir(dir: i32, path: &Text, mode: u32) -> Outcome {
    try_mkdir(dir, path, mode).unwrap_or(Outcome::Bypass(None))
}

fn try_mkdir(dir: i32, path: &Text, mode: u32) -> Option<Outcome> {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent)?;
    let umask = umask()?;
    let what = What::Mkdir { mode, umask };
    let asked = Change { what, thread: thread(), at: parent.named(), to: Name::default() };
    Some(change([&parent; 2], [entered; 2], asked, b""))
}

pub(crate) fn symlink(target: &Text, dir: i32, path: &Text) -> Outcome {
    try_symlink(target, dir, path).unwrap_or(Outcome::Bypass(None))
}

fn try_symlink(target: &Text, dir: i32, path: &Text) -> Option<Outcome> {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent)?;
    let target = target.written();
    if target.is_empty() || target.len() > daos_types::door::names::NAME_BYTES_MAX {
        return None;
    }
    let to = Name { bytes: target.len() as u16, ..Name::default() };
    let asked = Change { what: What::Symlink, thread: thread(), at: parent.named(), to };
    Some(change([&parent; 2], [entered; 2], asked, target))
}

pub(crate) fn link(dir: i32, path: &Text, to_dir: i32, to_path: &Text, flags: i32) -> Outcome {
    try_link((dir, path), (to_dir, to_path), flags).unwrap_or(Outcome::Bypass(None))
}

fn try_link(
    (dir, path): (i32, &Text),
    (to_dir, to_path): (i32, &Text),
    flags: i32,
) -> Option<Outcome> {
    // The door links files only, so it is the same whether a symlink would be followed.
    if flags & !libc::AT_SYMLINK_FOLLOW != 0 {
        return None;
    }
    let (at, to) = (Parent::find(dir, path)?, Parent::find(to_dir, to_path)?);
    let (at_entered, to_entered) = both_entered(&at, &to)?;
    let asked = Change { what: What::Link, thread: thread(), at: at.named(), to: to.named() };
    Some(change([&at, &to], [at_entered, to_entered], asked, to.name))
}

pub(crate) fn rename(dir: i32, path: &Text, to_dir: i32, to_path: &Text, flags: u32) -> Outcome {
    try_rename((dir, path), (to_dir, to_path), flags).unwrap_or(Outcome::Bypass(None))
}

fn try_rename(
    (dir, path): (i32, &Text),
    (to_dir, to_path): (i32, &Text),
    flags: u32,
) -> Option<Outcome> {
    let no_replace = flags & libc::RENAME_NOREPLACE != 0;
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return None;
    }
    let (at, to) = (Parent::find(dir, path)?, Parent::find(to_dir, to_path)?);
    let (at_entered, to_entered) = both_entered(&at, &to)?;
    let what = What::Rename { no_replace };
    let asked = Change { what, thread: thread(), at: at.named(), to: to.named() };
    Some(change([&at, &to], [at_entered, to_entered], asked, to.name))
}

fn thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

fn both_entered(
    at: &Parent<'_>,
    to: &Parent<'_>,
) -> Option<(&'static Directory, &'static Directory)> {
    if at.device != to.device {
        return None;
    }
    // Both count, also when the first is not entered yet.
    let (at, to) = match at.inode == to.inode {
        true => (entered(at), None),
        false => (entered(at), Some(entered(to))),
    };
    let at = at?;
    Some((at, to.unwrap_or(Some(at))?))
}

/// The umask of this moment, which umask(2) does not tell without changing it. It costs less than a request.
fn umask() -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = rustix::fs::open(c"/proc/thread-self/status", flags, Mode::empty()).ok()?;
    let mut room = [0; 512];
    let len = rustix::io::read(&status, &mut room).ok()?;
    let line = room[..len].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"Umask:"))?;
    let digits = std::str::from_utf8(&line[b"Umask:".len()..]).ok()?.trim();
    u32::from_str_radix(digits, 8).ok()
}
