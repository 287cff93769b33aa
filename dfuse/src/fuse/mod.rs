//! The FUSE transport, over the crate `fuser`: mounts, parses requests, makes one call, replies.
//!
//! # Not here
//! What a call means: `dfs`. When a request runs: `exec.rs`.

mod adapter;
mod convert;
mod session;

pub use session::{Caching, FuseConfig, Mounted, Unmounted, Unmounter, detach};
