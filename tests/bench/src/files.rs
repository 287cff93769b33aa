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
const WARM_PASSES: usize = 20;
const METADATA: &str = "metadata bytes per 4 KiB file, of dfs";

pub fn measure(bench: &mut Bench<'_>, scratch: &Path) {
    if bench.mounts.iter().any(|mount| mount.kind == "dfuse") {
        match metadata_bytes(&scratch.join("fresh"), bench.scale.files) {
            Ok(each) => bench.report.put("dfuse", METADATA, each, Unit::Bytes),
            Err(error) => bench.report.error("dfuse", METADATA, error),
        }
    }
    for _ in 0..bench.scale.rounds {
        for threads in [1, 4] {
            empty_files(bench, threads);
        }
        small_files(bench);
    }
}

fn empty_files(bench: &mut Bench<'_>, threads: usize) {
    each(bench, "create", threads, |path| File::create_new(path).map(drop));
    stat_warm(bench, threads);
    if threads == 1 {
        let folder = |mount: &Mounted| mount.work.join("many");
        let entries = Unit::PerSecond;
        bench.turn("readdir, first, entries", entries, |mount| readdir(&folder(mount)));
        bench.turn("readdir, again, entries", entries, |mount| readdir(&folder(mount)));
        let names = names(bench.scale.files);
        let cold = |_: &Mounted| drop_caches();
        bench.prepared("stat, cold", Unit::PerSecond, cold, |mount| {
            spread(&folder(mount), &names, 1, stat)
        });
    }
    warm(bench);
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
    let before: Vec<_> = bench.mounts.iter().map(Mounted::bytes_written).collect();
    let names = names(bench.scale.files);
    let folder = |mount: &Mounted| mount.work.join("many");
    bench.turn("create and write 4 KiB", Unit::PerSecond, |mount| {
        spread(&folder(mount), &names, 1, |path| {
            File::create_new(path)?.write_all(&[7; SMALL_BYTES])
        })
    });
    for (mount, before) in bench.mounts.iter().zip(before) {
        if let (Some(before), Some(after)) = (before, mount.bytes_written()) {
            let ratio = (after - before) as f64 / (names.len() * SMALL_BYTES) as f64;
            let name = "  bytes written / accepted, small files";
            bench.report.put(&mount.kind, name, ratio, Unit::Ratio);
        }
    }
    let cold = |_: &Mounted| drop_caches();
    bench.prepared("open and read 4 KiB, cold", Unit::PerSecond, cold, |mount| {
        spread(&folder(mount), &names, 1, |path| {
            File::open(path)?.read_exact(&mut [0; SMALL_BYTES])
        })
    });
    warm(bench);
    each(bench, "unlink 4 KiB", 1, |path| fs::remove_file(path));
}

fn stat(path: &Path) -> io::Result<()> {
    fs::symlink_metadata(path).map(drop)
}

/// Names that another one's cold measurement has dropped are put back.
fn warm(bench: &mut Bench<'_>) {
    let names = names(bench.scale.files);
    for mount in bench.mounts {
        if let Err(error) = spread(&mount.work.join("many"), &names, 1, stat) {
            bench.report.error(&mount.kind, "names in the kernel's cache", error);
        }
    }
}

/// Answered by the kernel in a moment: several passes, so that there is something to measure.
fn stat_warm(bench: &mut Bench<'_>, threads: usize) {
    let names = vec![names(bench.scale.files); WARM_PASSES].concat();
    let name = labelled("stat, warm", threads);
    let folder = |mount: &Mounted| mount.work.join("many");
    bench.prepared(
        &name,
        Unit::PerSecond,
        |mount| spread(&folder(mount), &names, threads, stat).map(drop),
        |mount| spread(&folder(mount), &names, threads, stat),
    );
}

/// In a store of its own: what others have freed would be used again.
fn metadata_bytes(scratch: &Path, files: usize) -> io::Result<f64> {
    let mount = Mounted::up("dfuse", scratch, "")?;
    let metadata = || mount.pool("metadata").ok_or_else(|| io::Error::other("no answer"));
    let before = metadata()?;
    spread(&mount.work, &names(files), 1, |path| {
        File::create_new(path)?.write_all(&[7; SMALL_BYTES])
    })?;
    Ok(metadata()?.saturating_sub(before) as f64 / files as f64)
}

fn names(files: usize) -> Vec<String> {
    (0..files).map(|i| format!("file{i:06}")).collect()
}

fn each(bench: &mut Bench<'_>, name: &str, threads: usize, call: Call) {
    let name = labelled(name, threads);
    let names = names(bench.scale.files);
    let folder = |mount: &Mounted| mount.work.join("many");
    let prepare = |mount: &Mounted| fs::create_dir_all(folder(mount));
    bench.prepared(&name, Unit::PerSecond, prepare, |mount| {
        spread(&folder(mount), &names, threads, call)
    });
}

fn labelled(name: &str, threads: usize) -> String {
    if threads == 1 { name.to_owned() } else { format!("{name}, {threads} threads") }
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
