//! An engine as a library: the lock on a store, its targets, the pool and container services, and the control socket.
//!
//! # Invariants
//! 1. One engine per store, whatever the process dies of: the lock dies with it.
//! 2. A target is one xstream with one store, run by one thread at a time; its requests are bounded (`target.rs`).
//! 3. [`Engine::stop`] returns when everything acknowledged is on stable media and the lock is free.
//!
//! # Order
//! Start: look at the place, lock, make the file, open the targets. Stop: control socket, targets, lock. All of it blocks
//! the calling thread and is not for xstreams.
//!
//! # Not here
//! What a store is (vos), how to reach one (client), what a filesystem is (dfs).

mod config;
pub mod control;
mod door;
mod engine;
mod error;
mod lock;
#[cfg(any(test, feature = "model"))]
mod model;
pub mod mounts;
mod open;
mod place;
mod service;
mod stats;
mod target;

pub use config::{EngineConfig, MEMORY_BYTES_DEFAULT, SIZE_BYTES_DEFAULT_MAX, SyncMode};
pub use door::Door;
pub use engine::Engine;
pub use error::{Error, Result};
pub use service::{Claim, Handler, NoHandler, Services, find_snapshot};
pub use stats::{Latency, TargetStats};
pub use target::{Backend, serve_local};
