//! Random 4 KiB: each job has a file of its own.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use daos_media::IoBuf;

use crate::bench::{Bench, Sample, Scale};
use crate::mounted::{Mounted, drop_caches};
use crate::report::Unit;
use crate::rng::Rng;
use crate::stream;

const PAGE: usize = 4096;
const JOBS_MAX: usize = 4;
/// Odd, so that it meets every page of a file of a power of two of them; and far, so that it looks random.
const COLD_STEP: u64 = 0x9e37_79b9_7f4a_7c15 >> 20 | 1;
/// More than the files of all jobs.
const DATA_CACHE: &str = "--cache=1G";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Any,
    Warm,
    Cold,
}

#[derive(Clone, Copy)]
struct How {
    write: bool,
    direct: bool,
    fsync: bool,
    cache: Cache,
}

const READ: How = How { write: false, direct: false, fsync: false, cache: Cache::Warm };
const WRITE: How = How { write: true, direct: false, fsync: false, cache: Cache::Warm };
const DIRECT: How = How { direct: true, cache: Cache::Any, ..READ };
const CASES: [(&str, How); 6] = [
    ("random read 4 KiB, warm", READ),
    ("random read 4 KiB, cold", How { cache: Cache::Cold, ..READ }),
    ("random read 4 KiB direct", DIRECT),
    ("random write 4 KiB", WRITE),
    ("random write 4 KiB direct", How { write: true, ..DIRECT }),
    ("write 4 KiB, each fsynced", How { fsync: true, ..WRITE }),
];

pub fn measure(bench: &mut Bench<'_>) {
    let mut data = vec![0; 1 << 20];
    Rng(1).fill(&mut data);
    for mount in bench.mounts {
        for path in files(mount, JOBS_MAX) {
            if let Err(error) = stream::write(&path, &data, bench.scale.random_bytes) {
                return bench.report.error(&mount.kind, "random 4 KiB", error);
            }
        }
    }
    for _ in 0..bench.scale.rounds {
        for (name, how) in CASES {
            for jobs in [1, JOBS_MAX] {
                case(bench, name, how, jobs);
            }
        }
    }
    // dfuse's own cache of data is off unless asked for. The null filesystem has all in memory, as ever.
    let again = |mount: &Mounted| {
        if mount.kind == "dfuse" { mount.again_with(DATA_CACHE) } else { Ok(()) }
    };
    for mount in bench.mounts {
        if let Err(error) = again(mount) {
            return bench.report.error(&mount.kind, "the data cache", error);
        }
    }
    for _ in 0..bench.scale.rounds {
        for jobs in [1, JOBS_MAX] {
            case(
                bench,
                "random read 4 KiB direct, data cache",
                How { cache: Cache::Warm, ..DIRECT },
                jobs,
            );
        }
    }
    for mount in bench.mounts {
        for path in files(mount, JOBS_MAX) {
            let _ = fs::remove_file(path);
        }
        if mount.kind == "dfuse" {
            if let Err(error) = mount.again() {
                bench.report.error(&mount.kind, "mounted again", error);
            }
        }
    }
}

fn files(mount: &Mounted, jobs: usize) -> Vec<PathBuf> {
    (0..jobs).map(|job| mount.work.join(format!("random{job}"))).collect()
}

fn case(bench: &mut Bench<'_>, name: &str, how: How, jobs: usize) {
    let scale = bench.scale;
    let name = if jobs == 1 { name.to_owned() } else { format!("{name}, {jobs} jobs") };
    // What another one's measurement dropped from a cache is put back.
    let prepare = |mount: &Mounted| match how.cache {
        Cache::Any => Ok(()),
        Cache::Cold => drop_caches(),
        Cache::Warm => files(mount, jobs).iter().try_for_each(|path| stream::read(path)),
    };
    let mut p99s = Vec::new();
    bench.prepared(&name, Unit::PerSecond, prepare, |mount| {
        let (sample, p99) = random(&files(mount, jobs), how, scale)?;
        p99s.push((mount.kind.clone(), p99));
        Ok(sample)
    });
    for (kind, p99) in p99s {
        bench.report.put(&kind, &format!("  p99 of {name}"), p99, Unit::Microseconds);
    }
}

/// Calls a second of all jobs together, and the 99th percentile in microseconds.
fn random(files: &[PathBuf], how: How, scale: Scale) -> io::Result<(Sample, f64)> {
    let begin = Instant::now();
    let mut latencies = thread::scope(|scope| {
        let jobs: Vec<_> = files
            .iter()
            .zip(1..)
            .map(|(path, seed)| scope.spawn(move || job(path, how, seed, scale)))
            .collect();
        let mut all = Vec::new();
        for job in jobs {
            all.extend(job.join().expect("a bench thread does not panic")?);
        }
        Ok::<_, io::Error>(all)
    })?;
    let sample = Sample::rate(latencies.len() as u64, begin.elapsed());
    latencies.sort_unstable();
    Ok((sample, f64::from(latencies[latencies.len() * 99 / 100]) / 1e3))
}

fn job(path: &Path, how: How, seed: u64, scale: Scale) -> io::Result<Vec<u32>> {
    let flags = if how.direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().read(true).write(how.write).custom_flags(flags).open(path)?;
    let pages = file.metadata()?.len() / PAGE as u64;
    let mut buffer = IoBuf::zeroed(PAGE);
    let mut rng = Rng(seed);
    rng.fill(&mut buffer);
    let limit = Duration::from_secs_f64(scale.seconds);
    let begin = Instant::now();
    let mut latencies = Vec::with_capacity(1 << 16);
    while latencies.is_empty() || begin.elapsed() < limit {
        let at = match how.cache {
            // Each page once: the second read of one is not cold.
            Cache::Cold if latencies.len() as u64 == pages => break,
            Cache::Cold => (latencies.len() as u64 * COLD_STEP + seed) % pages * PAGE as u64,
            _ => rng.next() % pages * PAGE as u64,
        };
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
    // What is only in the kernel's cache is not written yet.
    if how.write {
        file.sync_data()?;
    }
    Ok(latencies)
}
