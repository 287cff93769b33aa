//! The versioned object store of one target.
#![forbid(unsafe_code)]

mod array;
#[cfg(test)]
mod array_tests;
pub mod btree;
mod condition;
mod draft;
mod flat;
mod gather;
mod ground;
mod history;
mod key;
pub mod kv;
#[cfg(test)]
mod kv_model;
mod lock;
pub mod object;
#[cfg(test)]
mod object_tests;
pub mod pages;
mod pieces;
mod plan;
mod punch;
pub mod reclaim;
mod record;
mod store;
mod supply;
#[cfg(test)]
pub(crate) mod testing;
mod update;

pub use store::{
    BUCKET_BLOCKS, BlockAddr, BlockRun, Committed, DataWrite, FormatOptions, Lsn,
    MEMORY_BUCKETS_MIN, OpenError, OpenOptions, ReadGuard, Reservation, SpaceUsage, Store, Sync,
    Tx, TxOptions, View,
};
