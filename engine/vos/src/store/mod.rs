//! Buckets and blocks of one target: the arena, the WAL, space, checkpoints and recovery.
//!
//! # Not here
//! What is inside a bucket after its header: `btree` and `object`.

mod address;

pub use address::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
