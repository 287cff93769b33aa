//! The versioned object store of one target.
#![forbid(unsafe_code)]

pub mod kv;
pub mod pages;
mod store;
#[cfg(test)]
pub(crate) mod testing;

pub use store::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
