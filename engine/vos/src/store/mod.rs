//! Buckets and blocks of one target: the arena, the WAL, space, checkpoints and recovery.
//!
//! # Not here
//! What is inside a bucket after its header: `btree` and `object`.

mod address;
mod arena;
mod audit;
mod bucket;
mod bytes;
mod check;
mod checkpoint;
#[cfg(test)]
mod crash_tests;
mod data;
mod flushes;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod header;
mod mend;
#[cfg(test)]
mod recount;
mod recover;
mod redo;
mod scrub;
mod space;
mod state;
#[allow(clippy::module_inception)]
mod store;
mod strip;
mod sync;
#[cfg(test)]
mod tests;
mod tx;
mod wal;

pub use address::{BUCKET_BLOCKS, BlockAddr, BlockRun, Lsn};
pub use arena::MEMORY_BUCKETS_MIN;
pub use audit::SegmentUse;
pub use data::DataWrite;
pub use recover::{FormatOptions, OpenError, OpenOptions};
pub use space::Claim;
pub use store::{Committed, ReadGuard, Reservation, SpaceUsage, Store, TxOptions};
pub use sync::Sync;
pub use tx::{Tx, View};
