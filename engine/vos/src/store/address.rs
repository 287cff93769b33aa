//! Where things are and when they changed: block addresses, bucket numbers, LSNs.
//!
//! # Invariants
//! 1. A bucket's number is its byte address on the device / [`BUCKET_BYTES`]: nothing translates it.
//! 2. A block's address is its byte address on the device / `BLOCK_BYTES`.

use std::fmt;

use daos_types::BLOCK_BYTES;

use crate::pages::{BUCKET_BYTES, BucketId};

/// Blocks in a bucket.
pub const BUCKET_BLOCKS: u64 = (BUCKET_BYTES / BLOCK_BYTES) as u64;

const _: () = assert!(BUCKET_BYTES.is_multiple_of(BLOCK_BYTES));

impl BucketId {
    /// No bucket: 0 is inside the label.
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn byte_address(self) -> u64 {
        self.0 as u64 * BUCKET_BYTES as u64
    }

    /// The four blocks that the bucket occupies.
    #[must_use]
    pub const fn run(self) -> BlockRun {
        BlockRun { addr: BlockAddr(self.0 as u64 * BUCKET_BLOCKS), blocks: BUCKET_BLOCKS as u32 }
    }
}

/// A block's address: byte address on the device / 4096.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BlockAddr(pub u64);

impl BlockAddr {
    #[must_use]
    pub const fn byte_address(self) -> u64 {
        self.0 * BLOCK_BYTES as u64
    }
}

impl fmt::Debug for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// Blocks that follow each other on the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRun {
    pub addr: BlockAddr,
    pub blocks: u32,
}

impl BlockRun {
    #[must_use]
    pub const fn new(addr: BlockAddr, blocks: u32) -> Self {
        Self { addr, blocks }
    }

    /// The address after the last block.
    #[must_use]
    pub const fn end(self) -> BlockAddr {
        BlockAddr(self.addr.0 + self.blocks as u64)
    }

    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.blocks as u64 * BLOCK_BYTES as u64
    }

    /// `blocks` of the run, `skip` blocks from its start.
    ///
    /// # Panics
    /// When that is not inside the run.
    #[must_use]
    pub fn part(self, skip: u32, blocks: u32) -> Self {
        assert!(skip + blocks <= self.blocks, "part of {self:?} from {skip} for {blocks}");
        Self { addr: BlockAddr(self.addr.0 + u64::from(skip)), blocks }
    }
}

impl fmt::Debug for BlockRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {}+{}", self.addr.0, self.blocks)
    }
}

/// A transaction's number on its target, from 1; 0 is before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {}", self.0)
    }
}
