//! A store with one of everything, disks with one bit flipped, and what is still readable on them.
//!
//! The store is made once; each flip is on a copy of its disk, so that thousands of them can be tried.
#![forbid(unsafe_code)]

mod disk;
mod fill;
mod look;

pub use disk::{Machine, Region, flip, race, regions, scrub};
pub use fill::{FILES, Filled, filled};
pub use look::{Seen, look};
