//! The versioned object store of one target.
#![forbid(unsafe_code)]

mod array;
#[cfg(test)]
mod array_tests;
mod draft;
mod history;
mod key;
pub mod btree;
pub mod kv;
pub mod pages;
mod pieces;
mod record;
mod store;
mod supply;
#[cfg(test)]
pub(crate) mod testing;

pub use store::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
