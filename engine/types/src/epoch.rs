//! Epochs: the order of changes, and their time.

/// A point in a container's history: nanoseconds since the Unix epoch from a hybrid logical clock.
///
/// On one target epochs grow with every change: `epoch = max(clock, last + 1)`; so an epoch is a
/// unique order and a timestamp at once. 0 is before everything, [`Epoch::MAX`] is "newest".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    /// Whole seconds and nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn to_unix(self) -> (i64, u32) {
        ((self.0 / 1_000_000_000) as i64, (self.0 % 1_000_000_000) as u32)
    }
}

impl std::fmt::Debug for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
