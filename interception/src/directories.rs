//! Directories in which a program uses many names: entered at the door, so that it is asked for what the kernel would have to ask for.
//!
//! The kernel resolves the directory's path in each call.
//!
//! # Invariants
//! 1. A directory is known by device and inode, as the kernel has just said; no descriptor of it is kept.
//! 2. A thread that is not whom dfuse knows the process as goes through the kernel.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use daos_types::door::names::{Call, Name, XATTR};
use daos_types::door::{Answer, Token};
use rustix::fs::{AtFlags, StatxFlags};

use crate::doors::{self, Again};
use crate::text::Text;
use crate::{Done, fds, mounts};

const NAME_BYTES_MAX: usize = 255;
/// Calls in a directory that go through the kernel first: to enter it costs as much as one.
const PATIENCE: u32 = 3;
/// Calls that the door has sent to the kernel, after which it is not asked about that directory any more.
const REFUSALS_MAX: u32 = 3;
/// Directories that are remembered, of each right: fewer than the door lets a program enter.
const DIRECTORIES_MAX: usize = 64;
/// Places where a directory may be in the table.
const WAYS: usize = 4;
/// Turns that the table is waited for; a signal may have come in between.
const TURNS_MAX: u32 = 64;

const PROC_FDS: &[u8] = b"/proc/self/fd/";

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Look,
    Change,
}

/// A directory, and how it stands with the door.
pub(crate) struct Directory {
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

/// By right.
static DIRECTORIES: [[Directory; DIRECTORIES_MAX]; 2] =
    [const { [const { Directory::new() }; DIRECTORIES_MAX] }; 2];

/// In a child: what is entered is its parent's.
pub(crate) fn leave() {
    mounts::leave();
    for directory in DIRECTORIES.as_flattened() {
        directory.taken.store(false, Relaxed);
        directory.inode.store(0, Relaxed);
        directory.state.store(NEW, Relaxed);
    }
}

impl Directory {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            calls: AtomicU32::new(0),
            refusals: AtomicU32::new(0),
            state: AtomicU8::new(NEW),
        }
    }

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
    pub(crate) fn refused(&self) {
        if self.refusals.fetch_add(1, Relaxed) + 1 >= REFUSALS_MAX {
            self.state.store(KERNELS, Release);
        }
    }

    /// The door has forgotten that it was entered.
    pub(crate) fn is_left(&self) {
        self.state.store(NEW, Release);
    }

    fn is(&self, device: u64, inode: u64) -> bool {
        self.inode.load(Relaxed) == inode && self.device.load(Relaxed) == device
    }
}

/// A directory that is entered, or that one call more makes worth entering.
pub(crate) fn entered(parent: &Parent<'_>, right: Right) -> Option<&'static Directory> {
    let table = &DIRECTORIES[right as usize];
    let (device, inode) = (parent.device, parent.inode);
    let door = doors::door_of(device)?;
    let first = (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
    let places = || (0..WAYS).map(move |way| (first + way) % DIRECTORIES_MAX);
    let found = places().find(|place| table[*place].is(device, inode));
    let Some(place) = found else {
        let calls = |place: &usize| table[*place].calls.load(Relaxed);
        let place = places().min_by_key(calls)?;
        places().for_each(|place| {
            let calls = &table[place].calls;
            calls.store(calls.load(Relaxed) / 2, Relaxed);
        });
        table[place].alone(|directory| {
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
    let enters = table[place].alone(|directory| {
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
    let directory = &table[place];
    if !enters {
        return Some(directory);
    }
    let entered = enter(parent, door, right).is_some();
    let state = if entered { ENTERED } else { KERNELS };
    directory.state.store(state, Release);
    entered.then_some(directory)
}

/// Proves to the door, by way of the kernel, what this process may do there.
fn enter(parent: &Parent<'_>, door: usize, right: Right) -> Option<()> {
    doors::come(door).then_some(())?;
    let name = CStr::from_bytes_with_nul(const { &with_nul(XATTR) }).ok()?;
    let mut path = Text::new();
    parent.to_be_opened(&mut path)?;
    let path = path.c_str()?;
    let mut token = [0; 16];
    match right {
        Right::Look => {
            rustix::fs::getxattr(path, name, &mut token).ok()?;
        }
        Right::Change => {
            let random = rustix::rand::GetRandomFlags::empty();
            rustix::rand::getrandom(&mut token, random).ok().filter(|len| *len == 16)?;
            let create = rustix::fs::XattrFlags::CREATE;
            let set = rustix::fs::setxattr(path, name, &token, create);
            (set == Err(rustix::io::Errno::ALREADY)).then_some(())?;
        }
    }
    let call = Call::Enter { token: Token::decode(&token)? };
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
pub(crate) struct Parent<'p> {
    dir: BorrowedFd<'p>,
    /// Empty: `dir` itself.
    path: &'p [u8],
    pub(crate) name: &'p [u8],
    /// Number of its mount.
    pub(crate) mount: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// As statx(2) has it.
    pub(crate) attributes_mask: u64,
}

impl<'p> Parent<'p> {
    /// `None`: the kernel is to find it, or this thread may not change it.
    pub(crate) fn find(dir: i32, path: &'p Text) -> Option<Self> {
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
        let (mount, attributes_mask) = (statx.stx_mnt_id, statx.stx_attributes_mask.bits());
        Some(Self { dir, path, name, mount, device, inode, attributes_mask })
    }

    /// The door to ask about names there, if this thread may be believed and the kernel shows what is below it.
    pub(crate) fn door(&self) -> Option<usize> {
        let plain = mounts::are_plain(self.mount, self.device);
        doors::door_of(self.device).filter(|door| plain && doors::is_same_user(*door))
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

    pub(crate) fn named(&self) -> Name {
        Name { directory: self.inode, bytes: self.name.len() as u16 }
    }
}

#[allow(unsafe_code)]
pub(crate) fn borrow(dir: i32) -> Option<BorrowedFd<'static>> {
    match dir {
        libc::AT_FDCWD => Some(rustix::fs::CWD),
        // SAFETY: it is only given to the kernel, which says when nothing is there.
        0.. => Some(unsafe { BorrowedFd::borrow_raw(dir) }),
        _ => None,
    }
}

/// This one, as the door is told.
pub(crate) fn thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// What the door's answer to a call about names in these directories comes to.
pub(crate) fn done(directories: &[&Directory], answer: Option<Answer>) -> Done {
    match answer {
        Some(Answer::Done(bytes)) => Some(Ok(bytes as usize)),
        Some(Answer::NotThis) => None,
        // It has forgotten that they were entered.
        Some(Answer::Failed(errno)) if errno == libc::ESTALE as u32 => {
            directories.iter().for_each(|directory| directory.is_left());
            None
        }
        Some(Answer::Failed(errno)) => Some(Err(errno as i32)),
        _ => {
            directories.iter().for_each(|directory| directory.refused());
            None
        }
    }
}
