//! The control socket: how another process asks an engine, one JSON object per line.
//!
//! ```text
//! > {"version":1,"request":"container-query","arguments":{"pool":"default","container":"home"}}
//! < {"version":1,"answer":"container","value":{"label":"home", ...}}
//! > nonsense
//! < {"version":1,"error":{"kind":"protocol","message":"..."}}
//! ```
//!
//! # Invariants
//! 1. Every line that is not longer than [`LINE_BYTES_MAX`] gets exactly one line back, whatever is in it.
//! 2. A longer line gets an error and the connection ends.
//! 3. Only the owner of the socket and root can connect (mode 0600).

mod client;
#[cfg(feature = "fuzz")]
mod fuzz;
mod protocol;
mod scrub;
mod server;

pub use client::Connection;
#[cfg(feature = "fuzz")]
pub use fuzz::control_line;
pub use protocol::{
    About, Answer, Ask, Checked, ContainerDetails, ContainerEntry, Failure, FailureKind,
    LINE_BYTES_MAX, Limits, PoolDetails, PoolEntry, SnapshotEntry, VERSION,
};
pub(crate) use scrub::unhex;
pub use scrub::{ScrubFinding, ScrubStep};
pub use server::ControlServer;
