//! The versioned object store of one target.
#![forbid(unsafe_code)]

mod array;
#[cfg(test)]
mod array_tests;
mod condition;
mod draft;
mod gather;
mod ground;
mod history;
mod key;
pub mod btree;
pub mod kv;
mod lock;
pub mod pages;
mod pieces;
mod plan;
mod punch;
mod record;
mod store;
mod supply;
#[cfg(test)]
pub(crate) mod testing;
mod update;

pub use store::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
