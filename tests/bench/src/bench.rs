//! One measurement on each filesystem in turn, so that a busy minute of the machine hits all of them.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::mounted::Mounted;
use crate::report::{Report, Unit};

/// For answers that nobody waits for (RELEASE, FORGET) to be counted with the measurement that caused them.
const SETTLE: Duration = Duration::from_millis(3);

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Measurements that run against time.
    pub seconds: f64,
    pub stream_bytes: u64,
    pub random_bytes: u64,
    pub files: usize,
    pub tree_files: usize,
    pub vos_operations: u64,
    /// Every measurement is taken so often; medians are reported.
    pub rounds: usize,
}

/// What one measurement gave.
pub struct Sample {
    pub value: f64,
    /// What requests are divided by.
    pub operations: u64,
}

impl Sample {
    /// Operations a second.
    pub fn rate(operations: u64, took: Duration) -> Self {
        Self { value: operations as f64 / took.as_secs_f64(), operations }
    }
}

pub struct Bench<'a> {
    pub mounts: &'a [Mounted],
    pub scale: Scale,
    pub report: &'a mut Report,
}

impl Bench<'_> {
    pub fn turn(
        &mut self,
        name: &str,
        unit: Unit,
        measure: impl FnMut(&Mounted) -> io::Result<Sample>,
    ) {
        self.prepared(name, unit, |_| Ok(()), measure);
    }

    /// `prepare` is neither in the time nor in the requests.
    pub fn prepared(
        &mut self,
        name: &str,
        unit: Unit,
        mut prepare: impl FnMut(&Mounted) -> io::Result<()>,
        mut measure: impl FnMut(&Mounted) -> io::Result<Sample>,
    ) {
        for mount in self.mounts {
            let result = prepare(mount).and_then(|()| {
                let before = mount.requests();
                let sample = measure(mount)?;
                thread::sleep(SETTLE);
                Ok((sample, before, mount.requests()))
            });
            match result {
                Ok((sample, before, after)) => {
                    self.report.put(&mount.kind, name, sample.value, unit);
                    if let (Some(before), Some(after)) = (before, after) {
                        self.report.requests(&mount.kind, name, &before, &after, sample.operations);
                    }
                }
                Err(error) => self.report.error(&mount.kind, name, error),
            }
        }
    }
}

/// How long a call takes.
pub fn timed(call: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let begin = Instant::now();
    call()?;
    Ok(begin.elapsed())
}
