//! The FUSE transport, over the crate `fuser`: mounts, parses requests, makes one call, replies.
//!
//! # Not here
//! What a call means: `dfs`. When a request runs: `exec.rs`.

mod adapter;
mod convert;
mod requests;
mod session;

pub use requests::Requests;
pub use session::{FuseConfig, Mounted, Unmounted, Unmounter, detach};
