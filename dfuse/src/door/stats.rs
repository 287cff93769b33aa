//! Counts and latencies of the door's calls, by operation, from taken to answered. Written by whoever answers, read by any.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use daos_types::door::Ask;
use daos_types::door::inodes::{Of, OfInode};
use daos_types::door::names::{Call, Change, What};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Append,
    Sync,
    /// Of directories, the names in which will be asked for or changed.
    Enter,
    Unlink,
    Rmdir,
    Mkdir,
    Symlink,
    Link,
    Rename,
    Stat,
    SetAttr,
    GetXattr,
    ListXattr,
    SetXattr,
    RemoveXattr,
}

impl Operation {
    const ALL: [(Self, &str); 17] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Append, "append"),
        (Self::Sync, "sync"),
        (Self::Enter, "enter"),
        (Self::Unlink, "unlink"),
        (Self::Rmdir, "rmdir"),
        (Self::Mkdir, "mkdir"),
        (Self::Symlink, "symlink"),
        (Self::Link, "link"),
        (Self::Rename, "rename"),
        (Self::Stat, "stat"),
        (Self::SetAttr, "setattr"),
        (Self::GetXattr, "getxattr"),
        (Self::ListXattr, "listxattr"),
        (Self::SetXattr, "setxattr"),
        (Self::RemoveXattr, "removexattr"),
    ];

    pub fn of_data(ask: &Ask) -> Self {
        match ask {
            Ask::Read { .. } => Self::Read,
            Ask::Write { .. } => Self::Write,
            Ask::Append { .. } => Self::Append,
            Ask::Sync { .. } => Self::Sync,
        }
    }

    pub fn of_names(call: &Call) -> Self {
        match call {
            Call::Enter { .. } => Self::Enter,
            Call::Change(Change { what, .. }) => match what {
                What::Unlink => Self::Unlink,
                What::Rmdir => Self::Rmdir,
                What::Mkdir { .. } => Self::Mkdir,
                What::Symlink => Self::Symlink,
                What::Link => Self::Link,
                What::Rename { .. } => Self::Rename,
            },
            Call::OfInode(OfInode { what, .. }) => match what {
                Of::Stat => Self::Stat,
                Of::SetAttr => Self::SetAttr,
                Of::GetXattr { .. } => Self::GetXattr,
                Of::ListXattr { .. } => Self::ListXattr,
                Of::SetXattr { .. } => Self::SetXattr,
                Of::RemoveXattr { .. } => Self::RemoveXattr,
            },
        }
    }
}

/// Each power of two of nanoseconds in so many parts of the same width.
const PARTS: usize = 4;
/// The last takes everything from 2^40 ns (18 minutes) on.
const BUCKETS: usize = 41 * PARTS;

pub struct Stats([Series; Operation::ALL.len()]);

struct Series {
    max_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// How often something was asked and how long it took. Quantiles are upper borders, at most a quarter too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub operation: &'static str,
    pub count: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Series {
            max_ns: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }))
    }
}

impl Stats {
    pub fn record(&self, operation: Operation, spent: Duration) {
        let series = &self.0[operation as usize];
        let ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        series.buckets[bucket(ns)].fetch_add(1, Relaxed);
        series.max_ns.fetch_max(ns, Relaxed);
    }

    /// Of all operations, also those that nobody has asked for.
    pub fn report(&self) -> Vec<Latency> {
        Operation::ALL.iter().zip(&self.0).map(|((_, name), series)| series.report(name)).collect()
    }
}

impl Series {
    fn report(&self, operation: &'static str) -> Latency {
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        let count: u64 = buckets.iter().sum();
        let max_ns = self.max_ns.load(Relaxed);
        let quantile = |hundredths: u64| {
            let wanted = (count * hundredths).div_ceil(100);
            let mut seen = 0;
            let bucket = buckets.iter().position(|bucket| {
                seen += bucket;
                seen >= wanted
            });
            bucket.map_or(0, border).min(max_ns)
        };
        Latency { operation, count, p50_ns: quantile(50), p99_ns: quantile(99), max_ns }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(PARTS as u64);
    let power = ns.ilog2() as usize;
    let part = (ns >> (power - 2)) as usize % PARTS;
    (power * PARTS + part).min(BUCKETS - 1)
}

/// What is in a bucket is below it.
fn border(bucket: usize) -> u64 {
    let (power, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part + 1) as u64) << power >> 2
}

const _: () = assert!(PARTS == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_above_what_is_in_its_bucket_and_at_most_a_quarter() {
        for ns in (4..5000).chain([1 << 30, (1 << 30) - 1, (1 << 30) + 1, 3 << 35]) {
            let border = border(bucket(ns));
            assert!(border > ns && border - ns <= ns / 4 + 1, "{ns}: {border}");
            assert!(bucket(ns) <= bucket(ns + 1));
        }
        for ns in [0, 1, 3, u64::MAX] {
            assert!(bucket(ns) < BUCKETS);
        }
    }

    #[test]
    fn operations_are_where_they_are_looked_for() {
        for (at, (operation, _)) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
    }

    #[test]
    fn quantiles_are_of_one_operation() {
        let stats = Stats::default();
        for us in 1..=100 {
            stats.record(Operation::Write, Duration::from_micros(us));
        }
        let report = stats.report();
        let [read, write, append, ..] = report[..] else { panic!("{report:?}") };
        assert_eq!((read.count, append.count, write.count), (0, 0, 100));
        assert_eq!(read.p99_ns, 0);
        assert!((50_000..63_000).contains(&write.p50_ns), "{write:?}");
        assert!((99_000..=100_000).contains(&write.p99_ns), "{write:?}");
        assert_eq!(write.max_ns, 100_000);
    }
}
