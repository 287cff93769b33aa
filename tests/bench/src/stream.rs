//! Streams of 1 MiB: what one large file can do.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::bench::{Bench, Sample, timed};
use crate::mounted::Mounted;
use crate::report::Unit;
use crate::rng::Rng;

const STREAM_BYTES: usize = 1 << 20;
const FILE: &str = "stream";

pub fn measure(bench: &mut Bench<'_>) {
    let bytes = bench.scale.stream_bytes;
    let sample = |took: Duration| Sample {
        value: bytes as f64 / 1e6 / took.as_secs_f64(),
        operations: bytes / STREAM_BYTES as u64,
    };
    let mut data = vec![0; STREAM_BYTES];
    Rng(1).fill(&mut data);
    let path = |mount: &Mounted| mount.work.join(FILE);
    let unit = Unit::MegabytesPerSecond;
    for round in 0..bench.scale.rounds {
        let before: Vec<_> = bench.mounts.iter().map(Mounted::bytes_written).collect();
        let remove = |mount: &Mounted| match fs::remove_file(path(mount)) {
            Err(error) if round > 0 => Err(error),
            _ => Ok(()),
        };
        bench.prepared("sequential write 1 MiB, fsync", unit, remove, |mount| {
            timed(|| write(&path(mount), &data, bytes)).map(sample)
        });
        for (mount, before) in bench.mounts.iter().zip(before) {
            if let (Some(before), Some(after)) = (before, mount.bytes_written()) {
                let ratio = (after - before) as f64 / bytes as f64;
                let name = "  bytes written / accepted";
                bench.report.put(&mount.kind, name, ratio, Unit::Ratio);
            }
        }
        bench.prepared("sequential read 1 MiB, cold", unit, Mounted::cool, |mount| {
            timed(|| read(&path(mount))).map(sample)
        });
        bench.prepared(
            "sequential read 1 MiB, warm",
            unit,
            |mount| read(&path(mount)),
            |mount| timed(|| read(&path(mount))).map(sample),
        );
    }
    for mount in bench.mounts {
        let _ = fs::remove_file(path(mount));
    }
}

pub fn write(path: &Path, data: &[u8], bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    for at in (0..bytes).step_by(data.len()) {
        file.write_all_at(data, at)?;
    }
    file.sync_all()
}

pub fn read(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let mut buffer = vec![0; STREAM_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            n => at += n as u64,
        }
    }
}
