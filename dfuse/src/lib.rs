//! The mount daemon: the FUSE door of a node's client.
//!
//! # Not here
//! Any rule of a filesystem: `dfs`. Any storage: `daos-server` and below.

pub mod background;
mod beside;
pub mod containers;
mod control;
pub mod daemon;
pub mod door;
pub mod error;
pub mod exec;
pub mod fuse;
pub mod log;
pub mod mountpoint;
pub mod namespace;
pub mod notices;
pub mod null;
pub mod ops;
pub mod options;
pub mod path;
mod serve;
pub mod signals;
