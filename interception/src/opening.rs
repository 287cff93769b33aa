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

/// Opens by `open`, which answers a descriptor, or less than 0.
pub(crate) fn open(flags: i32, open: impl FnOnce() -> i32) -> i32 {
    if !is_for_door(flags) || !doors::come() {
        let fd = open();
        fds::forget(fd);
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

#[allow(unsafe_code)]
fn note(fd: i32, era: u32, patience: u8) {
    // SAFETY: it was opened just now, and this call has not given it to anybody yet.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    if let Some((device, inode)) = doors::identity_of_file(file)
        && let Some(door) = doors::door_of(device)
    {
        fds::opened(fd, era, door, (device, inode), patience);
        report::count(report::OPEN);
    }
}
