//! The versioned object store of one target.
#![forbid(unsafe_code)]

mod array;
#[cfg(test)]
mod array_tests;
mod background;
pub mod btree;
mod check;
mod commit;
mod condition;
mod container;
mod draft;
mod fetch;
mod flat;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gather;
mod ground;
mod guess;
mod history;
mod key;
pub mod kv;
#[cfg(test)]
mod kv_model;
mod list;
mod lock;
mod loss;
mod newest;
pub mod object;
#[cfg(test)]
mod object_tests;
pub mod pages;
mod pieces;
mod plan;
mod pool;
mod prepare;
mod props;
mod punch;
pub mod reclaim;
mod record;
mod repair;
mod roots;
mod scrub;
mod snapshot;
mod store;
#[cfg(test)]
mod store_tests;
mod supply;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
mod transact;
mod update;
mod vos;
mod watch;

pub use store::{
    BUCKET_BLOCKS, BlockAddr, BlockRun, Claim, Committed, DataWrite, FormatOptions, Lsn,
    MEMORY_BUCKETS_MIN, OpenError, OpenOptions, ReadGuard, Reservation, SegmentUse, SpaceUsage,
    Store, Sync, Tx, TxOptions, View,
};
pub use vos::{Vos, VosOptions};
