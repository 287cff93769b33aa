//! stat of what the kernel does not know: at the door. What it knows it answers faster than any door.
//!
//! Whether it knows a name the kernel says itself (`RESOLVE_CACHED`), which is asked only while a program is looking at things for the first
//! time. What is answered here the kernel still does not know afterwards, so that it has to ask when the name is used again: such a name is the
//! kernel's, and a program that opens what it has looked at, or looks again, is soon left alone.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64};

use daos_types::door::inodes::{Of, STAT_BYTES, Stat};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::directories::{self, Parent};
use crate::inodes::{self, Path};
use crate::text::Text;
use crate::{doors, report};

/// Of the stats of the kernel, one in so many makes the next one ask whether it is one that the kernel has to ask about; the first does so
/// after fewer, and after each that was in vain four times as many.
const LOOK_FIRST: u32 = 4;
const LOOK_EVERY: u32 = 32;
const LOOK_EVERY_MAX: u32 = 1 << 15;
/// What a name that is used again costs, in names that are not.
const REGRET: i32 = 8;
/// And what is left of names that were not.
const CREDIT_MAX: i32 = 32;
/// So many names in a row that the kernel knows, or that are elsewhere, end that.
const PATIENCE: u32 = 2;
/// Names that are answered here, one bit each; when half of them are set, no more are.
const NAMES: usize = 1 << 22;

/// Stats that are on a mount, until the next look.
static UNTIL: AtomicU32 = AtomicU32::new(LOOK_FIRST);
static EVERY: AtomicU32 = AtomicU32::new(LOOK_EVERY);
static CREDIT: AtomicI32 = AtomicI32::new(REGRET);
/// The path that was answered last.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Each name is looked at.
static LOOKS: AtomicBool = AtomicBool::new(false);
/// Names in a row that the kernel knows, or that are elsewhere.
static OTHERS: AtomicU32 = AtomicU32::new(0);
static ANSWERED: [AtomicU8; NAMES / 8] = [const { AtomicU8::new(0) }; NAMES / 8];
static ANSWERED_BITS: AtomicU32 = AtomicU32::new(0);
/// This kernel does not say what it knows.
static CANNOT: AtomicBool = AtomicBool::new(false);

/// What the door says of a name.
pub(crate) struct Answered {
    pub(crate) stat: Stat,
    pub(crate) device: u64,
    /// Number of its mount.
    pub(crate) mount: u64,
    /// Of statx(2): attributes that this kernel knows of.
    pub(crate) attributes_mask: u64,
}

/// Whether names may be the door's at the moment.
pub(crate) fn are_looked_at() -> bool {
    LOOKS.load(Relaxed)
}

/// The kernel has answered; a device without a disk below it may be a mount.
pub(crate) fn seen(device: u64) {
    let is_anonymous = libc::major(device) == 0;
    if !is_anonymous || CANNOT.load(Relaxed) || doors::door_of(device).is_none() {
        return;
    }
    if UNTIL.fetch_sub(1, Relaxed) <= 1 {
        UNTIL.store(EVERY.load(Relaxed), Relaxed);
        OTHERS.store(0, Relaxed);
        LOOKS.store(true, Relaxed);
    }
}

/// `None`: the kernel is to do it.
pub(crate) fn stat(path: Path<'_>) -> Option<Result<Answered, i32>> {
    let Some(parent) = unknown(path) else {
        if OTHERS.fetch_add(1, Relaxed) + 1 >= PATIENCE {
            LOOKS.store(false, Relaxed);
        }
        return None;
    };
    OTHERS.store(0, Relaxed);
    if is_answered_again(parent.inode, parent.name) {
        regret();
        return None;
    }
    let mut bytes = [0; STAT_BYTES];
    let done = inodes::ask(&parent, (Of::Stat, path.follows), [b"", b""], |slot, len| {
        if len == bytes.len() {
            slot.get_data(0, &mut bytes);
        }
    });
    report::count_done(&done, report::STAT);
    if done.is_some() {
        LAST.store(hash(0, path.path.written()), Relaxed);
        if CREDIT.load(Relaxed) < CREDIT_MAX {
            CREDIT.fetch_add(1, Relaxed);
        }
    }
    Some(done?.map(|_| Answered {
        stat: Stat::decode(&bytes),
        device: parent.device,
        mount: parent.mount,
        attributes_mask: parent.attributes_mask,
    }))
}

/// A program opens something, while names are looked at.
pub(crate) fn opens(path: &Text) {
    if hash(0, path.written()) == LAST.load(Relaxed) {
        regret();
    }
}

/// What was answered here, the kernel has had to be asked as well.
fn regret() {
    if CREDIT.fetch_sub(REGRET, Relaxed) > REGRET {
        return;
    }
    CREDIT.store(REGRET, Relaxed);
    EVERY.store((4 * EVERY.load(Relaxed)).min(LOOK_EVERY_MAX), Relaxed);
    LOOKS.store(false, Relaxed);
}

fn hash(start: u64, text: &[u8]) -> u64 {
    text.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The directory, if this is on a mount and the kernel would have to ask.
fn unknown(path: Path<'_>) -> Option<Parent<'_>> {
    let mut room = Text::new();
    room.push(path.path.written())?;
    if is_cached(directories::borrow(path.dir)?, room.c_str()?, path.follows) {
        return None;
    }
    Parent::find(path.dir, path.path)
}

/// Whether the kernel can say without asking anybody where this leads, or that it leads nowhere.
fn is_cached(dir: BorrowedFd<'_>, path: &CStr, follows: bool) -> bool {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follows);
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Err(Errno::AGAIN) => false,
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            CANNOT.store(true, Relaxed);
            true
        }
        Ok(_) | Err(_) => true,
    }
}

/// Whether this name, or another of the same bit, was answered here before, or no more are.
fn is_answered_again(directory: u64, name: &[u8]) -> bool {
    let hash = hash(directory.wrapping_mul(0x9e37_79b9_7f4a_7c15), name);
    let bit = (hash ^ hash >> 32) as usize % NAMES;
    if ANSWERED_BITS.load(Relaxed) as usize > NAMES / 2 {
        return true;
    }
    let was = ANSWERED[bit / 8].fetch_or(1 << (bit % 8), Relaxed) >> (bit % 8) & 1 == 1;
    if !was {
        ANSWERED_BITS.fetch_add(1, Relaxed);
    }
    was
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_answered_once() {
        let names: Vec<_> = (0..2000).map(|n| format!("name{n}")).collect();
        let again = |directory| {
            names.iter().filter(|name| is_answered_again(directory, name.as_bytes())).count()
        };
        assert!(again(1) < 20, "few share a bit");
        assert!(again(2) < 40);
        assert_eq!(again(1), names.len());
        assert_eq!(again(2), names.len());
    }
}
