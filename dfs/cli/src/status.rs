//! Exit codes. Scripts depend on them: they are in `daos --help` and do not change.

use daos_server::Error as ServerError;
use daos_server::control::{Failure, FailureKind};

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const EXISTS: u8 = 4;
pub const IN_USE: u8 = 5;
pub const DAMAGED: u8 = 6;
pub const NO_SPACE: u8 = 7;

/// The kind's name in JSON, and the exit code.
pub fn of_failure(failure: &Failure) -> (&'static str, u8) {
    match failure.kind {
        FailureKind::NotFound => ("not-found", NOT_FOUND),
        FailureKind::Exists => ("exists", EXISTS),
        FailureKind::InUse => ("in-use", IN_USE),
        FailureKind::Damaged => ("damaged", DAMAGED),
        FailureKind::NoSpace => ("no-space", NO_SPACE),
        FailureKind::Invalid => ("invalid", FAILED),
        FailureKind::ReadOnly => ("read-only", FAILED),
        FailureKind::Protocol => ("protocol", FAILED),
        FailureKind::Stopped => ("stopped", FAILED),
        FailureKind::Unsupported => ("unsupported", FAILED),
        FailureKind::Failed => ("failed", FAILED),
    }
}

/// What to do about damage that a command cannot go on with, if its message does not say so; `repairs`: it was the repair.
pub fn advice(failure: &Failure, repairs: bool) -> &'static str {
    let is_told = ["--repair", "backup"].iter().any(|word| failure.message.contains(word));
    match (failure.kind, repairs) {
        (FailureKind::Damaged, false) if !is_told => {
            "; `daos fs check --repair` mends what can be mended, of a store that is not mounted"
        }
        (FailureKind::Damaged, true) if !is_told => {
            "; this cannot be mended: put a backup in its place"
        }
        _ => "",
    }
}

/// As a failure, of an engine that could not be started.
pub fn of_start(error: &ServerError) -> Failure {
    let kind = match error {
        ServerError::Held { .. } | ServerError::DeviceBusy { .. } => FailureKind::InUse,
        ServerError::NoStore { .. } => FailureKind::NotFound,
        ServerError::Damaged { .. } => FailureKind::Damaged,
        ServerError::Engine(inner) => Failure::from(inner.clone()).kind,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}
