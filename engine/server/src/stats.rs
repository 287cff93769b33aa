//! Counts and latencies of a target's requests, by kind and by stage. Written by the target's thread, read by any.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use daos_types::rpc::Request;
use daos_xstream::{Stage, Trace};
use serde::{Deserialize, Serialize};

/// Latencies fall into buckets of powers of two microseconds; the last takes everything above 2^30 us (18 minutes).
const BUCKETS: usize = 31;

const KINDS: [&str; 20] = [
    "transact",
    "fetch",
    "list",
    "extents",
    "sync",
    "pool-create",
    "pool-list",
    "container-create",
    "container-destroy",
    "container-list",
    "container-query",
    "snapshot-create",
    "snapshot-destroy",
    "snapshot-list",
    "query",
    "check",
    "container-set-props",
    "container-set-attributes",
    "container-attributes",
    "scrub",
];

/// Index of a request's kind in [`KINDS`].
pub(crate) fn kind(request: &Request) -> usize {
    match request {
        Request::Transact(_) => 0,
        Request::Fetch(_) => 1,
        Request::List(_) => 2,
        Request::Extents(_) => 3,
        Request::Sync => 4,
        Request::PoolCreate { .. } => 5,
        Request::PoolList => 6,
        Request::ContainerCreate { .. } => 7,
        Request::ContainerDestroy { .. } => 8,
        Request::ContainerList { .. } => 9,
        Request::ContainerQuery { .. } => 10,
        Request::SnapshotCreate { .. } => 11,
        Request::SnapshotDestroy { .. } => 12,
        Request::SnapshotList { .. } => 13,
        Request::Query => 14,
        Request::Check { .. } => 15,
        Request::ContainerSetProps { .. } => 16,
        Request::ContainerSetAttributes { .. } => 17,
        Request::ContainerAttributes { .. } => 18,
        Request::Scrub(_) => 19,
    }
}

#[derive(Default)]
pub(crate) struct Stats {
    kinds: [Series; KINDS.len()],
    stages: [Series; Stage::ALL.len()],
    failed: AtomicU64,
}

#[derive(Default)]
struct Series {
    total_us: AtomicU64,
    max_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Stats {
    /// One request of this kind is answered.
    pub(crate) fn record(&self, kind: usize, failed: bool, trace: Trace) {
        let mut total = Duration::ZERO;
        for (stage, spent) in trace.finish() {
            self.stages[stage as usize].record(spent);
            total += spent;
        }
        self.kinds[kind].record(total);
        add(&self.failed, failed.into());
    }

    pub(crate) fn report(&self) -> TargetStats {
        let named = |names: &[&str], series: &[Series]| {
            let reports = names.iter().zip(series).map(|(name, series)| series.report(name));
            reports.filter(|latency| latency.count > 0).collect()
        };
        TargetStats {
            requests: named(&KINDS, &self.kinds),
            stages: named(&Stage::ALL.map(Stage::name), &self.stages),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// One writes at a time, whoever has the target's turn: no locked instruction is needed.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Series {
    fn record(&self, spent: Duration) {
        let us = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        add(&self.total_us, us);
        if us > self.max_us.load(Relaxed) {
            self.max_us.store(us, Relaxed);
        }
        add(&self.buckets[bucket.min(BUCKETS - 1)], 1);
    }

    fn report(&self, name: &str) -> Latency {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count: u64 = buckets.iter().sum();
        let max_us = self.max_us.load(Relaxed);
        // The upper border of the bucket in which the given share of all requests has ended.
        let quantile = |thousandths: u64| {
            let wanted = (count * thousandths).div_ceil(1000);
            let mut seen = 0;
            let bucket = buckets.iter().position(|bucket| {
                seen += bucket;
                seen >= wanted
            });
            bucket.map_or(0, |bucket| (1u64 << bucket).min(max_us))
        };
        Latency {
            name: name.to_owned(),
            count,
            mean_us: self.total_us.load(Relaxed) / count.max(1),
            p50_us: quantile(500),
            p99_us: quantile(990),
            max_us,
        }
    }
}

/// What a target has done since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStats {
    /// By kind of request, from arrival to answer.
    pub requests: Vec<Latency>,
    /// By stage.
    pub stages: Vec<Latency>,
    /// Requests that were answered with an error, failed conditions among them.
    pub failed: u64,
}

/// How often something happened and how long it took. Quantiles are upper borders, at most twice too large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub name: String,
    pub count: u64,
    pub mean_us: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_borders_of_what_was_recorded() {
        let series = Series::default();
        for us in 0..100 {
            series.record(Duration::from_micros(us));
        }
        let report = series.report("x");
        assert_eq!((report.count, report.mean_us, report.max_us), (100, 49, 99));
        assert_eq!((report.p50_us, report.p99_us), (64, 99));
        series.record(Duration::MAX);
        assert_eq!(series.report("x").max_us, u64::MAX);
    }

    #[test]
    fn each_kind_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().collect();
        assert_eq!(names.len(), KINDS.len());
        assert_eq!(KINDS[kind(&Request::Query)], "query");
        assert_eq!(KINDS[kind(&Request::Check { repair: false })], "check");
    }
}
