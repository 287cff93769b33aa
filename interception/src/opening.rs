//! Opening files: through the kernel, always; and what is to go through the door is told to it.

use std::os::fd::BorrowedFd;

use crate::{doors, fds, report};

/// Whether what is opened so goes through the door. The kernel's cache is faster than any door, so what may be read again goes there.
fn is_for_door(flags: i32) -> bool {
    let writes_only = flags & libc::O_ACCMODE == libc::O_WRONLY;
    let other = libc::O_PATH | libc::O_DIRECTORY;
    (writes_only || flags & libc::O_DIRECT != 0) && flags & other == 0
}

/// Writes of a file that was opened to be written that go through the kernel first, which is as good as the door for them.
const PATIENCE: u8 = 2;

/// Opens by `open`, which answers a descriptor, or less than 0. `door`: that of the directory in which that is.
pub(crate) fn open(
    flags: i32,
    door: impl FnOnce() -> Option<usize>,
    open: impl FnOnce() -> i32,
) -> i32 {
    let is_for_door = is_for_door(flags) && fds::are_ours();
    let is_untried = is_for_door && doors::is_any_untried();
    if is_untried && let Some(door) = door() {
        doors::come(door);
    }
    if !is_for_door || !doors::is_at_any() {
        let fd = open();
        fds::forget(fd);
        if is_untried && let Some((_, door)) = file_of_door(fd) {
            // By a symlink from elsewhere. The next one is the door's.
            doors::come(door);
        }
        return fd;
    }
    // Before the file is there: a child that is made from then on may have its offset.
    let era = fds::era();
    let opening = doors::Opening::begin();
    let fd = open();
    drop(opening);
    fds::forget(fd);
    if fd >= 0 {
        // What is read through the kernel, or added to, is the kernel's from then on.
        let writes_only = flags & (libc::O_ACCMODE | libc::O_APPEND) == libc::O_WRONLY;
        note(fd, era, if writes_only { PATIENCE } else { 0 });
    }
    fd
}

fn note(fd: i32, era: u32, patience: u8) {
    if let Some((identity, door)) = file_of_door(fd) {
        if !doors::come(door) {
            return;
        }
        fds::opened(fd, era, door, identity, patience);
        report::count(report::OPEN);
    }
}

/// What this is, if it is a file on a mount, and its door.
#[allow(unsafe_code)]
fn file_of_door(fd: i32) -> Option<((u64, u64), usize)> {
    // SAFETY: it was opened just now, and this call has not given it to anybody yet.
    let file = (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })?;
    let identity = doors::identity_of_file(file)?;
    Some((identity, doors::door_of(identity.0)?))
}
