//! Where an xstream's time comes from.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// 2020-09-13: where simulated time begins. Any fixed, plausible moment does.
const SIMULATED_START_NS: u64 = 1_600_000_000_000_000_000;

pub(crate) enum Clock {
    Real {
        start: Instant,
    },
    /// Nanoseconds since the simulation began; moved only by the simulation.
    Virtual {
        elapsed_ns: Cell<u64>,
    },
}

impl Clock {
    pub fn real() -> Self {
        Self::Real { start: Instant::now() }
    }

    pub fn simulated() -> Self {
        Self::Virtual { elapsed_ns: Cell::new(0) }
    }

    /// Nanoseconds since the Unix epoch; may jump when somebody sets the system's clock.
    pub fn unix_ns(&self) -> u64 {
        match self {
            Self::Real { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
            Self::Virtual { elapsed_ns } => SIMULATED_START_NS + elapsed_ns.get(),
        }
    }

    /// Nanoseconds since the xstream started; never falls.
    pub fn monotonic_ns(&self) -> u64 {
        match self {
            Self::Real { start } => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Virtual { elapsed_ns } => elapsed_ns.get(),
        }
    }

    /// Moves simulated time forward to `monotonic_ns`, if it is not there yet.
    pub fn advance_to(&self, monotonic_ns: u64) {
        match self {
            Self::Real { .. } => unreachable!("only a simulation moves its clock"),
            Self::Virtual { elapsed_ns } => elapsed_ns.set(elapsed_ns.get().max(monotonic_ns)),
        }
    }
}
