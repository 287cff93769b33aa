//! The device: requests come in by read, replies go out by writev.
//!
//! # Invariants
//! 1. A request is answered on the [`Device`] that it was read from: each has its own list of requests in progress in the kernel, so that
//!    threads do not meet at one lock.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const PATH: &str = "/dev/fuse";

/// An open `/dev/fuse`.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// One that mount(2) connects to a mount.
    pub fn open() -> io::Result<Self> {
        open(OFlags::empty())
    }

    /// Another way to the same mount. `nonblocking`: `receive` answers WouldBlock where it would wait.
    pub fn another(&self, nonblocking: bool) -> io::Result<Self> {
        let other = open(if nonblocking { OFlags::NONBLOCK } else { OFlags::empty() })?;
        clone_connection(&other.0, self.0.as_raw_fd())?;
        Ok(other)
    }

    /// Reads one request; `None` once the mount is gone. Interrupted reads and requests that vanished are repeated.
    pub fn receive(&self, room: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(&self.0, &mut *room) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::NODEV) => return Ok(None),
                // The request was interrupted before we had it, or we were.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends one reply.
    pub fn send(&self, parts: &[IoSlice<'_>]) {
        match rustix::io::writev(&self.0, parts) {
            // Nobody waits for it any more: the mount is gone.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(e) => tracing::error!("the kernel does not take a reply: {e}"),
        }
    }

    /// Sends one notice; false: it is of what the kernel does not know.
    pub fn notify(&self, parts: &[IoSlice<'_>]) -> bool {
        match rustix::io::writev(&self.0, parts) {
            Ok(_) => return true,
            Err(Errno::NOENT | Errno::NODEV) => {}
            // The kernel does not know the directory as one, or it is going at this moment.
            Err(e) => tracing::debug!("the kernel does not take a notice: {e}"),
        }
        false
    }

    /// Whether the kernel still has the mount.
    pub fn is_connected(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::empty())];
        match poll(&mut polled, Some(&rustix::event::Timespec::default())) {
            Ok(_) => !polled[0].revents().contains(PollFlags::ERR),
            Err(_) => true,
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

fn open(flags: OFlags) -> io::Result<Device> {
    let fd = rustix::fs::open(PATH, OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty())
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{PATH}: {e}")))?;
    Ok(Device(fd))
}

/// `FUSE_DEV_IOC_CLONE`
#[allow(unsafe_code)]
fn clone_connection(new: &OwnedFd, connected: RawFd) -> io::Result<()> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);
    let mut connected = connected as u32;
    // SAFETY: the kernel reads one u32, the number of a connected device, from where the argument points, and writes nothing
    // (fuse_dev_ioctl_clone).
    unsafe { ioctl(new, Updater::<CLONE, u32>::new(&mut connected)) }.map_err(io::Error::from)
}
