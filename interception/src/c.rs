//! What C's structures mean, and memory that a program points to.
//!
//! # Safety
//! Pointers are what the manual page says of the call that they are from: to so much as it says, for as long as the call takes.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};

use daos_types::door::inodes::{Attributes, SetTime, Stat, Time};
use libc::{iovec, off_t, size_t, timespec, timeval, utimbuf};

use crate::data::{At, Parts};
use crate::stats::Answered;

/// As the kernel's FUSE makes it.
pub(crate) fn stat_of(Answered { stat, device, .. }: &Answered) -> libc::stat {
    // SAFETY: numbers, of which 0 is one.
    let mut to: libc::stat = unsafe { std::mem::zeroed() };
    to.st_dev = *device;
    to.st_ino = stat.inode;
    to.st_nlink = stat.nlink.into();
    to.st_mode = stat.mode;
    to.st_uid = stat.uid;
    to.st_gid = stat.gid;
    to.st_rdev = stat.rdev.into();
    to.st_size = stat.size as i64;
    to.st_blksize = block_size(stat).into();
    to.st_blocks = stat.blocks as i64;
    (to.st_atime, to.st_atime_nsec) = (stat.atime.sec, stat.atime.nsec.into());
    (to.st_mtime, to.st_mtime_nsec) = (stat.mtime.sec, stat.mtime.nsec.into());
    (to.st_ctime, to.st_ctime_nsec) = (stat.ctime.sec, stat.ctime.nsec.into());
    to
}

/// The kernel knows powers of two.
pub(crate) fn block_size(stat: &Stat) -> u32 {
    1 << stat.blksize.max(1).ilog2()
}

/// What statx(2) is asked for that the door knows.
pub(crate) const STATX_KNOWN: c_uint =
    libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

pub(crate) fn statx_of(answered: &Answered, asked: c_uint) -> libc::statx {
    let stat = &answered.stat;
    // SAFETY: numbers, of which 0 is one.
    let mut to: libc::statx = unsafe { std::mem::zeroed() };
    let time = |at: &mut libc::statx_timestamp, time: Time| {
        (at.tv_sec, at.tv_nsec) = (time.sec, time.nsec)
    };
    to.stx_mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID | asked & libc::STATX_BTIME;
    to.stx_blksize = block_size(stat);
    to.stx_attributes_mask = answered.attributes_mask;
    to.stx_nlink = stat.nlink;
    to.stx_uid = stat.uid;
    to.stx_gid = stat.gid;
    to.stx_mode = stat.mode as u16;
    to.stx_ino = stat.inode;
    to.stx_size = stat.size;
    to.stx_blocks = stat.blocks;
    time(&mut to.stx_atime, stat.atime);
    time(&mut to.stx_mtime, stat.mtime);
    time(&mut to.stx_ctime, stat.ctime);
    if asked & libc::STATX_BTIME != 0 {
        time(&mut to.stx_btime, stat.btime);
    }
    (to.stx_rdev_major, to.stx_rdev_minor) =
        (libc::major(stat.rdev.into()), libc::minor(stat.rdev.into()));
    (to.stx_dev_major, to.stx_dev_minor) =
        (libc::major(answered.device), libc::minor(answered.device));
    to.stx_mnt_id = answered.mount;
    to
}

/// Times as utimensat(2) has them; `None`: the kernel is to say what is wrong with them.
pub(crate) fn times(times: *const timespec) -> Option<Attributes> {
    if times.is_null() {
        return Some(now());
    }
    let time = |time: timespec| match time.tv_nsec {
        libc::UTIME_NOW => Some(Some(SetTime::Now)),
        libc::UTIME_OMIT => Some(None),
        0..1_000_000_000 => {
            Some(Some(SetTime::To(Time { sec: time.tv_sec, nsec: time.tv_nsec as u32 })))
        }
        _ => None,
    };
    // SAFETY: as the page has it.
    let [atime, mtime] = unsafe { times.cast::<[timespec; 2]>().read() };
    Some(Attributes { atime: time(atime)?, mtime: time(mtime)?, ..Attributes::default() })
}

fn now() -> Attributes {
    let now = Some(SetTime::Now);
    Attributes { atime: now, mtime: now, ..Attributes::default() }
}

/// As `times`, of microseconds.
pub(crate) fn times_of(times: *const timeval) -> Option<Attributes> {
    if times.is_null() {
        return Some(now());
    }
    let time = |time: timeval| {
        let usec = u32::try_from(time.tv_usec).ok().filter(|usec| *usec < 1_000_000)?;
        Some(Some(SetTime::To(Time { sec: time.tv_sec, nsec: usec * 1000 })))
    };
    // SAFETY: as the page has it.
    let [atime, mtime] = unsafe { times.cast::<[timeval; 2]>().read() };
    Some(Attributes { atime: time(atime)?, mtime: time(mtime)?, ..Attributes::default() })
}

/// As `times`, of utime(2).
pub(crate) fn seconds(times: *const utimbuf) -> Attributes {
    // SAFETY: as the page has it: one, or null.
    let times = unsafe { times.as_ref() };
    let time = |sec: i64| Some(SetTime::To(Time { sec, nsec: 0 }));
    times.map_or_else(now, |utimbuf { actime, modtime }| Attributes {
        atime: time(*actime),
        mtime: time(*modtime),
        ..Attributes::default()
    })
}

/// Room of the program.
pub(crate) fn room<'r>(room: *mut c_void, len: size_t) -> Option<&'r mut [u8]> {
    match len {
        0 => Some(&mut []),
        _ if room.is_null() || len > isize::MAX as usize => None,
        // SAFETY: as the page has it.
        _ => Some(unsafe { std::slice::from_raw_parts_mut(room.cast(), len) }),
    }
}

/// The memory of one call: parts of it, each where the program says.
pub(crate) struct Memory<'m>(&'m [iovec]);

impl Memory<'_> {
    /// Goes through the pieces of `from..from + len`: where each is, how long, and how far from `from`.
    fn pieces(&self, from: usize, len: usize, mut piece: impl FnMut(*mut u8, usize, usize)) {
        let (mut skip, mut done) = (from, 0);
        for part in self.0 {
            if skip >= part.iov_len {
                skip -= part.iov_len;
                continue;
            }
            let here = (part.iov_len - skip).min(len - done);
            piece(part.iov_base.cast::<u8>().wrapping_add(skip), here, done);
            (skip, done) = (0, done + here);
            if done == len {
                return;
            }
        }
    }
}

impl Parts for Memory<'_> {
    fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.iov_len).sum()
    }

    fn read(&self, from: usize, len: usize, take: &mut dyn FnMut(usize, &[u8])) {
        self.pieces(from, len, |base, len, at| {
            // SAFETY: the program gave this memory to be read for as long as the call takes.
            take(at, unsafe { std::slice::from_raw_parts(base, len) });
        });
    }

    fn fill(&mut self, from: usize, len: usize, fill: &mut dyn FnMut(usize, &mut [u8])) {
        self.pieces(from, len, |base, len, at| {
            // SAFETY: the program gave this memory to be written for as long as the call takes; its bytes are any bytes.
            fill(at, unsafe { std::slice::from_raw_parts_mut(base, len) });
        });
    }
}

/// `None`: what the program says of its parts is wrong, which the kernel is to tell it.
pub(crate) fn memory<'m>(parts: *const iovec, count: c_int) -> Option<Memory<'m>> {
    let count = usize::try_from(count)
        .ok()
        .filter(|count| (1..=libc::UIO_MAXIOV as usize).contains(count))?;
    // SAFETY: the program says that so many are there.
    let parts = unsafe { std::slice::from_raw_parts(parts, count) };
    let bytes = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.iov_len))?;
    (bytes <= isize::MAX as usize && parts.iter().all(|part| !part.iov_base.is_null()))
        .then_some(Memory(parts))
}

pub(crate) fn one(base: *mut c_void, len: size_t) -> [iovec; 1] {
    [iovec { iov_base: base, iov_len: len }]
}

/// As preadv2(2) has it.
pub(crate) fn at(offset: off_t) -> At {
    if offset == -1 { At::Offset } else { At::Position(offset) }
}
