//! Handles on pools, containers, objects and transactions: the only door that dfs uses. Routes every key to its target.
//!
//! # Invariants
//! 1. Every future here is `Send`, and may be dropped at any point: what was sent is then finished by the target, what was not is not.
//! 2. Where a dkey lies is a pure function of its object id, its bytes and the number of targets (`route.rs`).
//! 3. A transaction touches one target, or is refused with [`Error::SeveralTargets`](daos_types::Error::SeveralTargets).
//! 4. A fetch of keys on several targets sees one moment per target.
//!
//! # Not here
//! Retries: a condition that fails is the caller's to understand. Caches. Errno.
#![forbid(unsafe_code)]

mod client;
mod container;
mod merge;
mod object;
mod pool;
mod route;
mod scrub;
mod transaction;

pub use client::Client;
pub use container::{Container, Page};
pub use object::Object;
pub use pool::Pool;
pub use route::{TargetIndex, target_of};
pub use scrub::Scrub;
pub use transaction::Transaction;

/// A scope in which a thread runs sleeping targets of its own process itself, where it would have to wake them.
pub use daos_xstream::Guest;
