//! Many files in one directory: what metadata can do.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use crate::bench::{Bench, Sample, timed};
use crate::mounted::{Mounted, drop_caches};
use crate::report::Unit;

type Call = fn(&Path) -> io::Result<()>;
const SMALL_BYTES: usize = 4096;

pub fn measure(bench: &mut Bench<'_>) {
    for _ in 0..bench.scale.rounds {
        for threads in [1, 4] {
            empty_files(bench, threads);
        }
        small_files(bench);
    }
}

fn empty_files(bench: &mut Bench<'_>, threads: usize) {
    each(bench, "create", threads, |path| File::create_new(path).map(drop));
    each(bench, "stat, warm", threads, |path| fs::symlink_metadata(path).map(drop));
    if threads == 1 {
        let folder = |mount: &Mounted| mount.work.join("many");
        let entries = Unit::PerSecond;
        bench.turn("readdir, first, entries", entries, |mount| readdir(&folder(mount)));
        bench.turn("readdir, again, entries", entries, |mount| readdir(&folder(mount)));
        let names = names(bench.scale.files);
        let cold = |_: &Mounted| drop_caches();
        bench.prepared("stat, cold", Unit::PerSecond, cold, |mount| {
            spread(&folder(mount), &names, 1, |path| fs::symlink_metadata(path).map(drop))
        });
    }
    each(bench, "open and close", threads, |path| File::open(path).map(drop));
    each(bench, "rename", threads, |path| fs::rename(path, path.with_extension("moved")));
    // Back again, and not told: the next phase needs the names.
    for mount in bench.mounts {
        let names = names(bench.scale.files);
        let back = spread(&mount.work.join("many"), &names, 4, |path| {
            fs::rename(path.with_extension("moved"), path)
        });
        if let Err(error) = back {
            bench.report.error(&mount.kind, "rename back", error);
        }
    }
    each(bench, "unlink", threads, |path| fs::remove_file(path));
    each(bench, "mkdir", threads, |path| fs::create_dir(path));
    each(bench, "rmdir", threads, |path| fs::remove_dir(path));
}

fn small_files(bench: &mut Bench<'_>) {
    let before: Vec<_> =
        bench.mounts.iter().map(|m| (m.bytes_written(), m.pool("metadata"))).collect();
    let names = names(bench.scale.files);
    let folder = |mount: &Mounted| mount.work.join("many");
    bench.turn("create and write 4 KiB", Unit::PerSecond, |mount| {
        spread(&folder(mount), &names, 1, |path| {
            File::create_new(path)?.write_all(&[7; SMALL_BYTES])
        })
    });
    for (mount, (written, metadata)) in bench.mounts.iter().zip(before) {
        if let (Some(before), Some(after)) = (written, mount.bytes_written()) {
            let ratio = (after - before) as f64 / (names.len() * SMALL_BYTES) as f64;
            let name = "  bytes written / accepted, small files";
            bench.report.put(&mount.kind, name, ratio, Unit::Ratio);
        }
        if let (Some(before), Some(after)) = (metadata, mount.pool("metadata")) {
            let each = after.saturating_sub(before) as f64 / names.len() as f64;
            let name = "metadata bytes per 4 KiB file, of dfs";
            bench.report.put(&mount.kind, name, each, Unit::Bytes);
        }
    }
    let cold = |_: &Mounted| drop_caches();
    bench.prepared("open and read 4 KiB, cold", Unit::PerSecond, cold, |mount| {
        spread(&folder(mount), &names, 1, |path| {
            File::open(path)?.read_exact(&mut [0; SMALL_BYTES])
        })
    });
    each(bench, "unlink 4 KiB", 1, |path| fs::remove_file(path));
}

fn names(files: usize) -> Vec<String> {
    (0..files).map(|i| format!("file{i:06}")).collect()
}

fn each(bench: &mut Bench<'_>, name: &str, threads: usize, call: Call) {
    let name = if threads == 1 { name.to_owned() } else { format!("{name}, {threads} threads") };
    let names = names(bench.scale.files);
    let folder = |mount: &Mounted| mount.work.join("many");
    let prepare = |mount: &Mounted| fs::create_dir_all(folder(mount));
    bench.prepared(&name, Unit::PerSecond, prepare, |mount| {
        spread(&folder(mount), &names, threads, call)
    });
}

/// The call on every name, split between the threads.
fn spread(folder: &Path, names: &[String], threads: usize, call: Call) -> io::Result<Sample> {
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    let share = paths.len().div_ceil(threads);
    let took = timed(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = paths
                .chunks(share)
                .map(|part| scope.spawn(move || part.iter().try_for_each(|path| call(path))))
                .collect();
            threads.into_iter().try_for_each(|t| t.join().expect("a bench thread does not panic"))
        })
    })?;
    Ok(Sample::rate(names.len() as u64, took))
}

fn readdir(folder: &Path) -> io::Result<Sample> {
    let mut entries = 0;
    let took = timed(|| {
        for entry in fs::read_dir(folder)? {
            entry?;
            entries += 1;
        }
        Ok(())
    })?;
    Ok(Sample::rate(entries, took))
}
