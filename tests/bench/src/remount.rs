//! What a daemon needs after it was killed with a full log, and the memory of one that knows very many files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::timed;
use crate::mounted::Mounted;
use crate::report::{Report, Unit};

const WAL_BLOCK_BYTES: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(40);
const WRITERS: usize = 4;
/// A million, in directories of this many.
const FOLDER_FILES: usize = 10_000;

pub fn measure(mounts: &[Mounted], rounds: usize, report: &mut Report) {
    for mount in mounts.iter().filter(|mount| mount.kind == "dfuse") {
        for round in 0..rounds {
            let folder = mount.work.join(format!("load{round}"));
            match after_kill(mount, &folder) {
                Ok((seconds, log_bytes)) => {
                    let name = "remount after kill -9, full WAL";
                    report.put(&mount.kind, name, seconds, Unit::Seconds);
                    report.put(&mount.kind, "  bytes of log then", log_bytes, Unit::Bytes);
                }
                Err(error) => report.error(&mount.kind, "remount after kill -9", error),
            }
        }
    }
}

fn after_kill(mount: &Mounted, folder: &Path) -> io::Result<(f64, f64)> {
    fs::create_dir(folder)?;
    let stop = AtomicBool::new(false);
    let log_blocks = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let stop = &stop;
            scope.spawn(move || load(folder, writer, stop));
        }
        let full = fill_log(mount);
        let killed = mount.kill();
        stop.store(true, Ordering::Relaxed);
        killed.and(full)
    })?;
    let took = timed(|| mount.again())?;
    fs::remove_dir_all(folder)?;
    Ok((took.as_secs_f64(), (log_blocks * WAL_BLOCK_BYTES) as f64))
}

/// Creates small files until it is told to stop, or the filesystem is gone.
fn load(folder: &Path, writer: usize, stop: &AtomicBool) {
    for i in 0.. {
        let path = folder.join(format!("file{writer}.{i}"));
        let made = File::create(path).and_then(|mut file| file.write_all(&[7; 4096]));
        if made.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Until the log is as full as it was before a checkpoint emptied it. The answer is the blocks in it then.
fn fill_log(mount: &Mounted) -> io::Result<u64> {
    let begin = Instant::now();
    let (mut most, mut last, mut emptied) = (0, 0, false);
    loop {
        let used = mount.pool("wal_blocks_used").ok_or_else(|| io::Error::other("no counter"))?;
        emptied |= used < last / 2;
        most = most.max(used);
        last = used;
        if emptied && used * 10 >= most * 9 {
            return Ok(used);
        }
        if begin.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("the log had at most {most} blocks")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Makes `files` files of 4 KiB in a mount of its own with `--memory 128M` and tells its memory.
pub fn measure_million(scratch: &Path, files: usize, report: &mut Report) {
    let run = |report: &mut Report| -> io::Result<()> {
        let mount = Mounted::up("dfuse", &scratch.join("million"), "--memory=128M")?;
        let before = mount.pool("metadata").unwrap_or(0);
        let took = timed(|| make(&mount.work, files))?;
        let kib = |name: &str| mount.status_kib(name).unwrap_or(0) as f64 * 1024.0 / files as f64;
        let mut put = |name: &str, value, unit| report.put("dfuse", name, value, unit);
        put(
            "create and write 4 KiB, in a million",
            files as f64 / took.as_secs_f64(),
            Unit::PerSecond,
        );
        put("resident bytes per file, --memory 128M", kib("VmRSS"), Unit::Bytes);
        put("  at its highest", kib("VmHWM"), Unit::Bytes);
        let metadata = mount.pool("metadata").unwrap_or(0).saturating_sub(before);
        put("  metadata bytes per file, a million", metadata as f64 / files as f64, Unit::Bytes);
        Ok(())
    };
    if let Err(error) = run(report) {
        report.error("dfuse", "a million files", error);
    }
}

fn make(work: &Path, files: usize) -> io::Result<()> {
    for number in 0..files {
        let folder = work.join(format!("folder{}", number / FOLDER_FILES));
        if number % FOLDER_FILES == 0 {
            fs::create_dir(&folder)?;
        }
        File::create_new(folder.join(format!("file{number}")))?.write_all(&[7; 4096])?;
    }
    Ok(())
}
