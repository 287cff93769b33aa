//! `LD_PRELOAD=libpil4dfs.so program`: reads and writes of a program on a dfuse mount, past FUSE.
//!
//! Every descriptor is the kernel's own, so whatever is not taken here works through the mount. `hooks.rs` has the C signatures and nothing else;
//! what they do is safe code, which says whether it has done the call, failed it, or leaves it to the C library (`Outcome`).
//!
//! # Invariants
//! 1. Nothing is allocated, and no lock of the C library is taken: a hook may run in a signal handler, before main and after exit.
//! 2. A descriptor is used through the door only while it is the very file that was opened here (device and inode are looked at in each call), by the
//!    process that opened it. In doubt the call is the kernel's, which is always right.
//! 3. The kernel's offset of a descriptor is the only one. Threads move that of a descriptor which is known here in turns, also where the call is
//!    the kernel's: one that is refused at the door moves it back.
//!
//! # Not here
//! Any rule of a filesystem; who may open what (the kernel).

mod c;
mod data;
mod directories;
mod doors;
mod environment;
mod fds;
mod hooks;
mod inodes;
mod mounts;
mod names;
mod opening;
mod real;
mod report;
mod stats;
mod text;

/// What became of a call about a name: its result, or `errno.h`'s number. `None`: nothing was done; it is the C library's.
pub(crate) type Done = Option<Result<usize, i32>>;

/// What became of a call on a descriptor.
pub(crate) enum Outcome {
    /// It is done, with this result.
    Done(usize),
    /// It failed: `errno.h`'s number.
    Failed(i32),
    /// Nothing was done; it is the C library's, before the turn to move the offset ends.
    Bypass(Option<fds::Moving>),
}
