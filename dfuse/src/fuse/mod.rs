//! The FUSE transport: mounts, parses requests, makes one call, replies.
//!
//! ```text
//! mount.rs        the mount                     session.rs   handshake, threads, end
//! channel.rs      the device                    buffer.rs    where requests are read into
//! abi.rs          structures on the wire        request.rs   bytes > request       reply.rs   answer > bytes
//! adapter.rs      request > one call > reply    requests.rs  counts
//! notify.rs       what the kernel is to forget  given.rs     attributes that a change overtakes
//! ```
//!
//! # Not here
//! What a call means: `dfs`. When a request runs: `exec.rs`.

mod abi;
mod adapter;
mod buffer;
mod channel;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod given;
mod mount;
mod notify;
mod reply;
mod request;
mod requests;
mod session;

pub use given::{Given, Thread};
pub use mount::{detach, remount};
pub use reply::{Nodes, errno};
pub use requests::Requests;
pub use session::{FuseConfig, Mounted, Unmounted, Unmounter};
