//! Blocks on devices: io_uring on a file or block device, memory, and fault injection around any of them; and the
//! label that says whose a device is.
//!
//! # Not here
//! What the blocks mean. This crate never sees a key.

mod buffer;
mod device;
mod fault;
pub mod label;
mod mem;
mod uring;

pub use buffer::{BUFFER_ALIGN, IoBuf};
pub use device::{Device, How, Io, SECTOR_BYTES};
pub use fault::{Counts, Fault, FaultDevice, Kind};
pub use mem::MemDevice;
pub use uring::{Access, OpenError, OpenOptions, UringDevice, create_file};
