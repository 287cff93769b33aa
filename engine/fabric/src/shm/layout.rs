//! Where what is in a region. FORMAT.md shows it byte by byte.

use std::io;

/// `dSHM`
pub const MAGIC: u32 = u32::from_le_bytes(*b"dSHM");
pub const VERSION: u32 = 1;

pub(super) const PAGE: usize = 4096;
pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = 4;
pub(super) const SLOTS_AT: usize = 8;
pub(super) const DATA_BYTES_AT: usize = 12;
/// Each on a cache line that only one side writes.
pub(super) const READY_AT: usize = 64;
pub(super) const SERVER_AT: usize = 128;
pub(super) const WORDS_AT: usize = 256;

/// Words that the client may set and the server reads, beside calls.
pub const WORDS: usize = 64;
/// A bit of one word for each.
pub const SLOTS_MAX: usize = 64;
pub const DATA_BYTES_MAX: usize = 1 << 20;

pub(super) const SLOT_BYTES: usize = 1024;
pub(super) const STATE_AT: usize = 0;
pub(super) const BODY_LEN_AT: usize = 4;
pub(super) const BODY_AT: usize = 64;
/// Bytes of a request or an answer, without its data.
pub const BODY_BYTES_MAX: usize = SLOT_BYTES - BODY_AT;

const _: () = assert!(WORDS_AT + 4 * WORDS <= PAGE && READY_AT % 64 == 0 && SERVER_AT % 64 == 0);

/// How many calls are in flight at once, and how many bytes of data each may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub slots: usize,
    pub data_bytes: usize,
}

impl Shape {
    /// # Errors
    /// `InvalidInput` for none, or more than there may be.
    pub fn check(self) -> io::Result<Self> {
        let fits = (1..=SLOTS_MAX).contains(&self.slots)
            && self.data_bytes.is_multiple_of(PAGE)
            && self.data_bytes <= DATA_BYTES_MAX;
        if fits { Ok(self) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    pub(super) fn slot_at(slot: usize) -> usize {
        PAGE + slot * SLOT_BYTES
    }

    pub(super) fn data_at(self, slot: usize) -> usize {
        PAGE + (self.slots * SLOT_BYTES).next_multiple_of(PAGE) + slot * self.data_bytes
    }

    pub(super) fn region_bytes(self) -> usize {
        self.data_at(self.slots)
    }
}
