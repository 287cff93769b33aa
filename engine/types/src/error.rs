//! Errors of the engine, in three families that stay apart:
//! the caller is wrong, the world failed, our data is damaged.

use crate::{Csum, PoolId, TargetId};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the engine answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // The caller is wrong.
    /// Condition `index` of a transaction did not hold; nothing was changed.
    #[error("condition {index} of the transaction does not hold")]
    Condition { index: u32 },
    /// The pool, container or snapshot that was named does not exist.
    #[error("no such {0}")]
    NonExistent(Noun),
    /// The pool, container or snapshot exists already.
    #[error("{0} exists already")]
    Exists(Noun),
    /// The request breaks a rule of the object model; the text names the rule.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// Larger than one request, value or transaction may be.
    #[error("{what} is larger than {max}")]
    TooLarge { what: &'static str, max: u64 },
    /// The keys of one transaction lie on several targets.
    #[error("a transaction over several targets is not supported yet")]
    SeveralTargets,
    /// The store or handle is read-only.
    #[error("read-only")]
    ReadOnly,

    // The world failed.
    /// No space that could be had by waiting for frees in progress.
    #[error("no space left in the store")]
    NoSpace,
    /// The container would hold more than its quota allows.
    #[error("the container's quota is used up")]
    Quota,
    /// A write to the device failed or its outcome is unknown: the target stopped acknowledging.
    #[error("the target stopped accepting changes: {reason}")]
    Latched { reason: std::sync::Arc<str> },
    /// Reading the device failed.
    #[error("device error while reading {what} at byte {address}: {kind}")]
    Device { what: &'static str, address: u64, kind: std::io::ErrorKind },
    /// The engine is stopping or gone. A change that was under way is *unknown*, not failed.
    #[error("the engine has stopped")]
    Stopped,

    // Our data is damaged.
    #[error("{0}")]
    Damaged(Box<Damage>),
}

/// What an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    Pool,
    Container,
    Snapshot,
    Attribute,
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pool => "pool",
            Self::Container => "container",
            Self::Snapshot => "snapshot",
            Self::Attribute => "attribute",
        })
    }
}

/// Bytes that are not what was written. Never returned as data, never a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub pool: Option<PoolId>,
    pub target: TargetId,
    pub place: Place,
    /// Byte address on the device.
    pub address: u64,
    pub expected: Csum,
    pub found: Csum,
}

/// Which structure is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Label,
    Header,
    Wal,
    Strip,
    Bucket,
    Data,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "damage: ")?;
        if let Some(pool) = self.pool {
            write!(f, "pool {}, ", pool.0)?;
        }
        write!(
            f,
            "target {}, {:?} at byte {}: expected checksum {}, found {}",
            self.target.0, self.place, self.address, self.expected, self.found
        )
    }
}
