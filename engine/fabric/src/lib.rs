//! Messages between clients and targets. Two ways to travel so far: within a process ([`inproc`]), and between two processes of one host
//! through memory that they share ([`shm`]); libfabric joins them.
//!
//! # Invariants
//! 1. A call is answered exactly once: by the service, or with [`Error::Stopped`](daos_types::Error::Stopped) when
//!    the service, or the responder that held it, is gone.
//! 2. A call that the service has received is finished by it even if the caller has dropped its future.
//! 3. At most `calls_max` calls wait in a queue; the next one waits for its turn.
//!
//! # Not here
//! What a body means. The fabric moves bodies and never looks inside.
pub mod inproc;
pub mod shm;

use daos_types::rpc;

/// The client's end of the way to one target.
pub type Caller = inproc::Caller<rpc::Request, rpc::Reply>;
/// One answer that is under way.
pub type Call = inproc::Call<rpc::Reply>;
/// The target's end.
pub type Service = inproc::Service<rpc::Request, rpc::Reply>;
/// What the target owes for one request.
pub type Responder = inproc::Responder<rpc::Reply>;
