//! Streams and random 4 KiB: what one large file can do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use daos_media::IoBuf;

use crate::Scale;
use crate::mounted::{Mounted, drop_caches};
use crate::report::{Report, Unit};

const STREAM_BYTES: usize = 1 << 20;
const PAGE: usize = 4096;

pub fn measure(mounts: &[Mounted], scale: Scale, report: &mut Report) {
    stream(mounts, scale, report);
    for (name, how, threads) in [
        ("random read 4 KiB direct", How { write: false, direct: true, fsync: false }, 1),
        (
            "random read 4 KiB direct, 4 threads",
            How { write: false, direct: true, fsync: false },
            4,
        ),
        ("random read 4 KiB cached", How { write: false, direct: false, fsync: false }, 1),
        ("random write 4 KiB", How { write: true, direct: false, fsync: false }, 1),
        ("random write 4 KiB, 4 threads", How { write: true, direct: false, fsync: false }, 4),
        ("random write 4 KiB direct", How { write: true, direct: true, fsync: false }, 1),
        ("random write 4 KiB, each fsynced", How { write: true, direct: false, fsync: true }, 1),
    ] {
        for mount in mounts {
            // What another one's measurement dropped from the page cache is put back: no more, no less than for that one.
            if !how.direct {
                let _ = read_stream(&mount.work.join("file"));
            }
            match random(&mount.work.join("file"), how, threads, scale) {
                Ok((rate, p99)) => {
                    report.put(&mount.kind, name, rate, Unit::PerSecond);
                    report.put(&mount.kind, &format!("  p99 of {name}"), p99, Unit::Microseconds);
                }
                Err(error) => report.error(&mount.kind, name, error),
            }
        }
    }
    for mount in mounts {
        let _ = std::fs::remove_file(mount.work.join("file"));
    }
}

fn stream(mounts: &[Mounted], scale: Scale, report: &mut Report) {
    let megabytes = scale.file_bytes as f64 / 1e6;
    let mut put = |mount: &Mounted, name: &str, result: io::Result<Duration>| match result {
        Ok(time) => {
            report.put(&mount.kind, name, megabytes / time.as_secs_f64(), Unit::MegabytesPerSecond)
        }
        Err(error) => report.error(&mount.kind, name, error),
    };
    let mut amplification = Vec::new();
    for mount in mounts {
        let before = mount.bytes_written();
        put(mount, "sequential write 1 MiB, fsync", write_stream(&mount.work.join("file"), scale));
        if let (Some(before), Some(after)) = (before, mount.bytes_written()) {
            amplification
                .push((mount.kind.clone(), (after - before) as f64 / scale.file_bytes as f64));
        }
    }
    for mount in mounts {
        if drop_caches() {
            put(mount, "sequential read 1 MiB, first", read_stream(&mount.work.join("file")));
        }
        put(mount, "sequential read 1 MiB, again", read_stream(&mount.work.join("file")));
    }
    for (kind, ratio) in amplification {
        report.put(&kind, "  bytes written / accepted", ratio, Unit::Ratio);
    }
}

fn write_stream(path: &Path, scale: Scale) -> io::Result<Duration> {
    let mut rng = Rng(1);
    let data: Vec<u8> = (0..STREAM_BYTES).map(|_| rng.next() as u8).collect();
    let file = File::create(path)?;
    let begin = Instant::now();
    for at in (0..scale.file_bytes).step_by(STREAM_BYTES) {
        file.write_all_at(&data, at)?;
    }
    file.sync_all()?;
    Ok(begin.elapsed())
}

fn read_stream(path: &Path) -> io::Result<Duration> {
    let file = File::open(path)?;
    let mut buffer = vec![0; STREAM_BYTES];
    let begin = Instant::now();
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(begin.elapsed()),
            n => at += n as u64,
        }
    }
}

#[derive(Clone, Copy)]
struct How {
    write: bool,
    direct: bool,
    fsync: bool,
}

/// Calls a second of all threads together, and the 99th percentile in microseconds.
fn random(path: &Path, how: How, threads: u64, scale: Scale) -> io::Result<(f64, f64)> {
    let begin = Instant::now();
    let handles: Vec<_> = (0..threads)
        .map(|seed| {
            let path = path.to_owned();
            thread::spawn(move || random_thread(&path, how, seed + 1, scale))
        })
        .collect();
    let mut latencies = Vec::new();
    for handle in handles {
        latencies.extend(handle.join().expect("a bench thread does not panic")?);
    }
    let seconds = begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let p99 = f64::from(latencies[latencies.len() * 99 / 100]) / 1e3;
    Ok((latencies.len() as f64 / seconds, p99))
}

fn random_thread(path: &Path, how: How, seed: u64, scale: Scale) -> io::Result<Vec<u32>> {
    let flags = if how.direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().read(true).write(how.write).custom_flags(flags).open(path)?;
    let pages = file.metadata()?.len() / PAGE as u64;
    let mut buffer = IoBuf::zeroed(PAGE);
    let mut rng = Rng(seed);
    rng.fill(&mut buffer);
    let limit = Duration::from_secs_f64(scale.seconds);
    let begin = Instant::now();
    let mut latencies = Vec::with_capacity(1 << 20);
    while latencies.is_empty() || begin.elapsed() < limit {
        let at = rng.next() % pages * PAGE as u64;
        let start = Instant::now();
        if how.write {
            buffer[..8].copy_from_slice(&rng.next().to_le_bytes());
            file.write_all_at(&buffer, at)?;
            if how.fsync {
                file.sync_data()?;
            }
        } else {
            file.read_exact_at(&mut buffer, at)?;
        }
        latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    if how.write {
        file.sync_data()?;
    }
    Ok(latencies)
}

/// xorshift64*: fast, and the same on every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}
