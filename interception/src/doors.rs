//! The mounts of dfuse, and the way to each one's door.
//!
//! # Invariants
//! 1. A door belongs to the process that came to it: a child made by fork or clone has none of it.
//! 2. Descriptors of ours may be closed by the program (closefrom) and their numbers be another file's: before one is used its inode is looked at.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::mounts::{self, Mount};
use daos_fabric::shm::{BODY_BYTES_MAX, Client, Patience, WORDS};
use daos_types::door::{Answer, IOCTL_PASS, PASS_BYTES, Pass, VERSION, WORD_OPENING, WORD_THREADS};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::fds;

/// Mounts that a program comes to; of others, the kernel is the way.
pub(crate) const DOORS_MAX: usize = 8;
/// Where our descriptors are, out of the way of a program's.
const FD_FROM: RawFd = 900;
/// More of them are not told apart.
const GROUPS_MAX: usize = 64;

const EMPTY: u32 = 0;
/// Its mount is known.
const FOUND: u32 = 1;
const COMING: u32 = 2;
const THERE: u32 = 3;
/// There is no way to it from here.
const CLOSED: u32 = 4;

struct Door {
    state: AtomicU32,
    device: AtomicU64,
    /// Of its mount.
    number: AtomicU64,
    /// The process that came to it.
    pid: AtomicI32,
    /// And as whom ([`who`]).
    who: AtomicU64,
    socket: AtomicI32,
    socket_inode: AtomicU64,
    client: UnsafeCell<MaybeUninit<Client>>,
    root: UnsafeCell<[u8; ROOT_BYTES]>,
}

/// Longer mountpoints are not used.
const ROOT_BYTES: usize = 256;

// SAFETY: `client` and `root` are written by the one thread that has moved the state to COMING, or to FOUND from EMPTY while
// it is alone ([`alone`]), and read by others only after they have seen THERE, or FOUND, which is stored after that.
unsafe impl Sync for Door {}

static DOORS: [Door; DOORS_MAX] = [const {
    Door {
        state: AtomicU32::new(EMPTY),
        device: AtomicU64::new(0),
        number: AtomicU64::new(0),
        pid: AtomicI32::new(0),
        who: AtomicU64::new(0),
        socket: AtomicI32::new(-1),
        socket_inode: AtomicU64::new(0),
        client: UnsafeCell::new(MaybeUninit::uninit()),
        root: UnsafeCell::new([0; ROOT_BYTES]),
    }
}; DOORS_MAX];

/// How far the table of mounts has been read.
static SEARCHED: AtomicU32 = AtomicU32::new(UNREAD);
const UNREAD: u32 = 0;
/// Somebody reads it, or adds a door; nobody else does meanwhile.
const TAKEN: u32 = 1;
const READ: u32 = 2;

/// Does something to the doors, from this state of the table on; false: it is another, or somebody else does, maybe whom a signal has stopped.
fn alone(from: u32, act: impl FnOnce()) -> bool {
    let mine = SEARCHED.compare_exchange(from, TAKEN, AcqRel, Acquire).is_ok();
    if mine {
        act();
        SEARCHED.store(READ, Release);
    }
    mine
}
/// 0: not known yet.
static CPUS: AtomicU32 = AtomicU32::new(0);
static PATIENCE: Patience = Patience::new();

fn pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Device number and inode of a descriptor, as the kernel has them.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    identity_and_mode(fd).map(|(identity, _)| identity)
}

/// The same of a regular file; of nothing else.
pub(crate) fn identity_of_file(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let (identity, mode) = identity_and_mode(fd)?;
    (FileType::from_raw_mode(mode) == FileType::RegularFile).then_some(identity)
}

fn identity_and_mode(fd: BorrowedFd<'_>) -> Option<((u64, u64), u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let statx = rustix::fs::statx(fd, c"", flags, StatxFlags::INO | StatxFlags::TYPE).ok()?;
    let device = rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor);
    Some(((device, statx.stx_ino), statx.stx_mode.into()))
}

/// Where a file of this device would be used, if that is a mount of dfuse. A device that is seen for the first time may be a new one.
pub(crate) fn door_of(device: u64) -> Option<usize> {
    are_found().then_some(())?;
    known(device).or_else(|| {
        (is_new(device) && alone(READ, search)).then_some(())?;
        known(device)
    })
}

/// Of two that have had the same number, the later one.
fn known(device: u64) -> Option<usize> {
    DOORS.iter().rposition(|door| {
        let is_open = ![EMPTY, CLOSED].contains(&door.state.load(Acquire));
        is_open && door.device.load(Relaxed) == device
    })
}

/// Devices without a disk below them that have been looked for among the mounts, by the last digits of their numbers.
static OTHERS: [AtomicU64; OTHERS_MAX / 64] = [const { AtomicU64::new(0) }; OTHERS_MAX / 64];
const OTHERS_MAX: usize = 4096;

fn other(device: u64) -> (&'static AtomicU64, u64) {
    let minor = libc::minor(device) as usize % OTHERS_MAX;
    (&OTHERS[minor / 64], 1 << (minor % 64))
}

/// Whether this may be a mount that nobody has looked for; once of each.
fn is_new(device: u64) -> bool {
    let (others, bit) = other(device);
    libc::major(device) == 0
        && others.load(Relaxed) & bit == 0
        && others.fetch_or(bit, Relaxed) & bit == 0
}

/// Whether the mounts that there are have been looked for; the first who asks looks.
fn are_found() -> bool {
    SEARCHED.load(Acquire) == READ || alone(UNREAD, search)
}

/// Whether there is any mount of dfuse.
pub(crate) fn are_there() -> bool {
    are_found() && DOORS[0].state.load(Acquire) != EMPTY
}

/// This program has none, and finds none.
pub(crate) fn stay_away() {
    SEARCHED.store(READ, Release);
    OTHERS.iter().for_each(|others| others.store(u64::MAX, Relaxed));
}

/// Whether there is a door that this process has not tried.
pub(crate) fn is_any_untried() -> bool {
    are_found() && DOORS.iter().any(|door| door.state.load(Acquire) == FOUND)
}

/// Whether this process is at any door.
pub(crate) fn is_at_any() -> bool {
    DOORS.iter().any(|door| door.client().is_some())
}

/// Comes to a door, if this process has not been there; whether it is there now.
pub(crate) fn come(index: usize) -> bool {
    let Some(door) = DOORS.get(index).filter(|_| fds::are_ours()) else { return false };
    if door.state.compare_exchange(FOUND, COMING, AcqRel, Relaxed).is_ok() {
        let came = door.come().is_some();
        door.state.store(if came { THERE } else { CLOSED }, Release);
    }
    door.client().is_some()
}

/// Before this process is somebody else: who it was, nobody can say for it any more. It may come anew.
pub(crate) fn leave_all() {
    for door in DOORS.iter().filter(|door| door.client().is_some()) {
        if door.socket().is_some() {
            close_ours(door.socket.swap(-1, Relaxed));
        }
        door.lose();
    }
}

/// In a child: the doors are its parent's, whose end dfuse would not see while this process has its socket. It may come to them itself.
pub(crate) fn leave() {
    for door in &DOORS {
        if door.state.load(Acquire) != THERE || door.pid.load(Relaxed) == pid() {
            continue;
        }
        if door.socket().is_some() {
            close_ours(door.socket.load(Relaxed));
        }
        door.socket.store(-1, Relaxed);
        // The memory is not in this process, so what is in `client` is written over, not dropped.
        door.state.store(FOUND, Release);
    }
}

/// Finds mounts of dfuse in the table of mounts, those that are not known yet.
fn search() {
    mounts::read(|mount| {
        let is_free = |door: &&Door| door.state.load(Acquire) == EMPTY;
        let is_known = |door: &Door| !is_free(&door) && door.number.load(Relaxed) == mount.number;
        if mount.is_dfuse
            && mount.is_whole()
            && mount.at.len() < ROOT_BYTES
            && !mount.at.contains(&b'\\')
            && !DOORS.iter().any(is_known)
            && let Some(door) = DOORS.iter().find(is_free)
        {
            door.found(mount);
        }
    });
}

impl Door {
    fn found(&self, mount: &Mount<'_>) {
        // SAFETY: only the thread that searches writes here, before the state says FOUND (see `Sync`).
        let room = unsafe { &mut *self.root.get() };
        room[..mount.at.len()].copy_from_slice(mount.at);
        self.number.store(mount.number, Relaxed);
        self.device.store(mount.device, Relaxed);
        // When this one has gone, another may have its number.
        let (others, bit) = other(mount.device);
        others.fetch_and(!bit, Relaxed);
        self.state.store(FOUND, Release);
    }

    fn come(&self) -> Option<()> {
        // SAFETY: nobody writes it after FOUND (see `Sync`).
        let root = CStr::from_bytes_until_nul(unsafe { &*self.root.get() }).ok()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
        if identity(root.as_fd())?.0 != self.device.load(Relaxed) {
            return None; // Something else is mounted there.
        }
        let pass = ask_pass(root.as_fd())?;
        self.who.store(who()?, Relaxed);
        let (socket, client) = connect(&pass)?;
        let socket = aside(socket)?;
        self.socket_inode.store(identity(socket.as_fd())?.1, Relaxed);
        self.socket.store(socket.into_raw_fd(), Relaxed);
        self.pid.store(pid(), Relaxed);
        // SAFETY: only the thread that moved the state to COMING is here.
        unsafe { (*self.client.get()).write(client) };
        Some(())
    }

    fn client(&self) -> Option<&Client> {
        let there = self.state.load(Acquire) == THERE && self.pid.load(Relaxed) == pid();
        // SAFETY: it was written before the state was THERE, and is never written again.
        there.then(|| unsafe { (*self.client.get()).assume_init_ref() })
    }

    /// The socket, if the program has not closed it and opened something else in its place.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        let socket = borrow_ours(self.socket.load(Relaxed))?;
        (identity(socket)?.1 == self.socket_inode.load(Relaxed)).then_some(socket)
    }

    fn ring(&self) {
        match self.socket() {
            Some(socket) => {
                let _ = rustix::net::send(socket, b"!", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
            None => self.lose(),
        }
    }

    /// Nobody uses this client any more; the mount may be come to anew.
    fn lose(&self) {
        if self.state.swap(CLOSED, AcqRel) != THERE {
            return;
        }
        alone(READ, || {
            let is_free = |door: &&Self| door.state.load(Acquire) == EMPTY;
            let Some(free) = DOORS.iter().find(is_free) else { return };
            // SAFETY: nobody writes it after FOUND, and only who is alone writes to an empty one (see `Sync`).
            unsafe { *free.root.get() = *self.root.get() };
            free.number.store(self.number.load(Relaxed), Relaxed);
            free.device.store(self.device.load(Relaxed), Relaxed);
            free.state.store(FOUND, Release);
        });
    }

    fn is_there(&self) -> bool {
        let Some(socket) = self.socket() else { return false };
        let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
        match poll(&mut polled, Some(&rustix::event::Timespec::default())) {
            Ok(_) => polled[0].revents().is_empty(),
            Err(_) => true,
        }
    }
}

/// What the mount says of an open file or directory of it.
pub(crate) fn ask_pass(fd: BorrowedFd<'_>) -> Option<Pass> {
    let mut bytes = [0u8; PASS_BYTES];
    // SAFETY: the command says that the kernel writes PASS_BYTES to where the argument points, and there is room for them.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            fd.as_raw_fd(),
            IOCTL_PASS as libc::c_ulong,
            bytes.as_mut_ptr(),
        )
    };
    (asked == 0).then(|| Pass::decode(&bytes)).flatten()
}

fn connect(pass: &Pass) -> Option<(OwnedFd, Client)> {
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(pass.name()).ok()?).ok()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut version = [0; 4];
    let mut parts = [IoSliceMut::new(&mut version)];
    rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let memory = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })?;
    if u32::from_le_bytes(version) != VERSION {
        return None;
    }
    let client = Client::new(memory.as_fd()).ok()?;
    Some((socket, client))
}

/// A number of a descriptor that is ours, if there is one; whether it is open, and what it is, is to be looked at before it is used.
pub(crate) fn borrow_ours(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: as the text above says.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Closes a descriptor of ours, which was just looked at, and which nobody here uses.
pub(crate) fn close_ours(fd: RawFd) {
    // SAFETY: as the text above says.
    unsafe { rustix::io::close(fd) };
}

/// Moves a descriptor to where programs have none.
pub(crate) fn aside(fd: OwnedFd) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(&fd, FD_FROM)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&fd, 10))
        .ok()
}

/// How a call is waited for; on one CPU it is not worth to look.
fn patience() -> Option<&'static Patience> {
    if CPUS.load(Relaxed) == 0 {
        let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        CPUS.store(cpus, Relaxed);
    }
    (CPUS.load(Relaxed) > 1).then_some(&PATIENCE)
}

/// Turns that a slot is waited for: they are all in use, by threads that end soon.
const SLOT_TURNS: u32 = 10_000;

/// Whether a call may be done a second time, by the kernel, when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    May,
    MayNot,
}

/// Asks at a door. `put` fills the slot's data before, `get` takes it after; `None`: the kernel is to do it.
pub(crate) fn ask(
    index: usize,
    ask: &[u8],
    again: Again,
    put: impl FnOnce(&daos_fabric::shm::Slot<'_>),
    get: impl FnOnce(&daos_fabric::shm::Slot<'_>, Answer),
) -> Option<Answer> {
    let door = DOORS.get(index)?;
    let client = door.client()?;
    // The program may have closed everything, and dfuse may be another: nothing is lost yet.
    if again == Again::MayNot && !door.is_there() {
        door.lose();
        return None;
    }
    let mut slot = (0..SLOT_TURNS).find_map(|_| {
        let slot = client.claim();
        if slot.is_none() {
            rustix::thread::sched_yield();
        }
        slot
    })?;
    put(&slot);
    let mut room = [0; BODY_BYTES_MAX];
    let called = slot.call(ask, &mut room, patience(), || door.ring(), || door.is_there());
    let Ok(len) = called else {
        door.lose();
        // Whether it was done is unknown.
        return (again == Again::MayNot).then_some(Answer::Failed(libc::EIO as u32));
    };
    let answer = Answer::decode(&room[..len])?;
    get(&slot, answer);
    Some(answer)
}

/// Whether this thread is whom the door knows the process as.
pub(crate) fn is_same_user(index: usize) -> bool {
    DOORS.get(index).is_some_and(|door| who().is_some_and(|who| door.who.load(Relaxed) == who))
}

/// As whom this thread uses files, in short: setfsuid(2) of nobody changes nothing, and tells. `None`: it is in too many groups.
fn who() -> Option<u64> {
    let mut groups = [0u32; GROUPS_MAX];
    // SAFETY: numbers go in and out.
    let of = |call, nobody: u32| unsafe { libc::syscall(call, nobody) } as u64;
    // SAFETY: the kernel writes at most that many numbers to where there is room for them.
    let count = unsafe { libc::syscall(libc::SYS_getgroups, GROUPS_MAX, groups.as_mut_ptr()) };
    let count = usize::try_from(count).ok()?;
    let ids = [of(libc::SYS_setfsuid, u32::MAX), of(libc::SYS_setfsgid, u32::MAX), count as u64];
    let groups = groups[..count].iter().map(|group| u64::from(*group));
    // FNV-1a: nobody is deceived but the process that would deceive itself.
    let all = ids
        .into_iter()
        .chain(groups)
        .fold(0xcbf2_9ce4_8422_2325, |sum, id| (sum ^ id).wrapping_mul(0x0100_0000_01b3));
    Some(all)
}

/// Bytes that one call carries.
pub(crate) fn data_bytes(index: usize) -> Option<usize> {
    Some(DOORS.get(index)?.client()?.shape().data_bytes)
}

/// While it lives, every door knows that this thread is opening a file for it.
pub(crate) struct Opening([Option<u8>; DOORS_MAX]);

impl Opening {
    pub(crate) fn begin() -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        Self(std::array::from_fn(|index| {
            let client = DOORS[index].client()?;
            client.word(WORD_OPENING).fetch_add(1, AcqRel);
            let free = |word: &usize| {
                client.word(*word).compare_exchange(0, thread, AcqRel, Relaxed).is_ok()
            };
            match (WORD_THREADS..WORDS).find(free) {
                Some(word) => Some(word as u8),
                None => {
                    client.word(WORD_OPENING).fetch_sub(1, AcqRel);
                    None
                }
            }
        }))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        for (index, word) in self.0.iter().enumerate() {
            if let (Some(word), Some(client)) = (word, DOORS[index].client()) {
                client.word((*word).into()).store(0, Release);
                client.word(WORD_OPENING).fetch_sub(1, AcqRel);
            }
        }
    }
}
