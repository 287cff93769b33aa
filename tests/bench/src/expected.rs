//! What is expected of whom: a bound on the ratio to a ceiling, or on the value itself. A missed one fails nothing.

use crate::report::Row;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Of the speed of that filesystem, measured in the same run.
    Speed(&'static str, f64),
    AtLeast(f64),
    AtMost(f64),
}

/// At most 1.5 times its time.
const TIMES_1_5: f64 = 1.0 / 1.5;

pub const EXPECTED: &[(&str, Bound)] = &[
    ("sequential write 1 MiB, fsync", Bound::Speed("ext4", 0.8)),
    ("sequential read 1 MiB, cold", Bound::Speed("ext4", 0.8)),
    ("sequential read 1 MiB, warm", Bound::Speed("null", 0.95)),
    ("random read 4 KiB, warm", Bound::Speed("null", 0.95)),
    ("random read 4 KiB, warm, 4 jobs", Bound::Speed("null", 0.95)),
    ("random read 4 KiB direct, data cache", Bound::Speed("null", 0.7)),
    ("random read 4 KiB direct, data cache, 4 jobs", Bound::Speed("null", 0.7)),
    ("write 4 KiB, each fsynced", Bound::Speed("ext4", 1.0)),
    ("write 4 KiB, each fsynced, 4 jobs", Bound::Speed("ext4", 1.0)),
    ("create", Bound::Speed("null", 0.7)),
    ("create, 4 threads", Bound::Speed("null", 0.7)),
    ("stat, warm", Bound::Speed("null", 0.95)),
    ("stat, warm, 4 threads", Bound::Speed("null", 0.95)),
    ("metadata bytes per 4 KiB file, of dfs", Bound::AtMost(450.0)),
    ("tar x", Bound::Speed("null", TIMES_1_5)),
    ("cp -a", Bound::Speed("null", TIMES_1_5)),
    ("rm -rf", Bound::Speed("null", TIMES_1_5)),
    ("git clone", Bound::Speed("null", TIMES_1_5)),
    ("update a value, 16 at once", Bound::AtLeast(150_000.0)),
    ("overwrite 4 KiB, 16 at once", Bound::AtLeast(150_000.0)),
    ("create with entry, 16 at once", Bound::AtLeast(150_000.0)),
    ("fetch a value, 16 at once", Bound::AtLeast(400_000.0)),
    ("fetch 4 KiB, 16 at once", Bound::AtLeast(400_000.0)),
    ("metadata bytes per 4 KiB file, object", Bound::AtMost(150.0)),
    ("metadata bytes per 4 KiB file, in all", Bound::AtMost(450.0)),
    ("resident bytes per file, --memory 128M", Bound::AtMost((256 << 20) as f64 / 1e6)),
    ("library: random read 4 KiB", Bound::Speed("direct", 3.0)),
    ("library: random read 4 KiB, not direct", Bound::Speed("mount", 0.9)),
    ("library: random write 4 KiB", Bound::Speed("direct", 3.0)),
    ("library: sequential read 1 MiB", Bound::Speed("direct", 1.0)),
    ("library: create", Bound::Speed("mount", 0.9)),
    ("library: stat, warm", Bound::Speed("mount", 0.9)),
    ("library: stat, cold", Bound::Speed("mount", 2.0)),
    ("library: open and close", Bound::Speed("mount", 0.9)),
    ("library: readdir, warm, entries", Bound::Speed("mount", 0.9)),
    ("library: chmod", Bound::Speed("mount", 1.5)),
    ("library: rename", Bound::Speed("mount", 1.5)),
    ("library: unlink", Bound::Speed("mount", 1.5)),
    ("library: mkdir", Bound::Speed("mount", 1.5)),
    ("library: git status", Bound::Speed("mount", 0.9)),
    ("  more than without, true", Bound::AtMost(1000.0)),
    ("  more than without, python3", Bound::AtMost(1000.0)),
    ("remount after kill -9, full WAL", Bound::AtMost(2.0)),
];

pub fn of(name: &str) -> Option<Bound> {
    EXPECTED.iter().find(|(of, _)| *of == name).map(|(_, bound)| *bound)
}

/// A bound and what there is instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub bound: Bound,
    /// How much of the bound is reached: 1 and more is met.
    pub reached: f64,
}

impl Verdict {
    pub fn met(&self) -> bool {
        self.reached >= 1.0
    }

    pub fn of(row: &Row, ours: &str) -> Option<Self> {
        let bound = of(&row.name)?;
        let value = || row.value(ours);
        let reached = match bound {
            Bound::Speed(theirs, least) => row.speed(ours, theirs)? / least,
            Bound::AtLeast(least) => value()? / least,
            Bound::AtMost(most) => most / value()?,
        };
        Some(Self { bound, reached })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Report, Unit};

    #[test]
    fn a_time_of_one_and_a_half_is_met_and_more_is_missed() {
        let verdict = |ours: f64| {
            let mut report = Report::new(vec!["dfuse".into(), "null".into()]);
            report.put("dfuse", "tar x", ours, Unit::Seconds);
            report.put("null", "tar x", 2.0, Unit::Seconds);
            Verdict::of(&report.rows()[0], "dfuse").unwrap().met()
        };
        assert!(verdict(2.99));
        assert!(!verdict(3.02));
    }

    #[test]
    fn a_bound_of_the_value_needs_no_other_filesystem() {
        let mut report = Report::new(vec!["dfuse".into()]);
        report.put("vos", "fetch a value, 16 at once", 200_000.0, Unit::PerSecond);
        let verdict = Verdict::of(&report.rows()[0], "vos").unwrap();
        assert_eq!(verdict.reached, 0.5);
    }
}
