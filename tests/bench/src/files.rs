//! Many files in one directory: what metadata can do.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::Scale;
use crate::mounted::{Mounted, drop_caches};
use crate::report::{Report, Unit};

type Call = fn(&Path) -> io::Result<()>;

pub fn measure(mounts: &[Mounted], scale: Scale, report: &mut Report) {
    for threads in [1, 4] {
        let label = |name: &str| {
            if threads == 1 { name.to_owned() } else { format!("{name}, {threads} threads") }
        };
        let phases: [(&str, Call); 6] = [
            ("create", |path| File::create_new(path).map(drop)),
            ("stat", |path| fs::symlink_metadata(path).map(drop)),
            ("open and close", |path| File::open(path).map(drop)),
            ("rename", |path| fs::rename(path, path.with_extension("moved"))),
            ("rename back", |path| fs::rename(path.with_extension("moved"), path)),
            ("unlink", |path| fs::remove_file(path)),
        ];
        for (name, call) in phases {
            for mount in mounts {
                let rate = each(&mount.work.join("many"), threads, scale, call);
                put(report, mount, &label(name), rate);
                if name == "stat" && threads == 1 {
                    let folder = mount.work.join("many");
                    if drop_caches() {
                        put(report, mount, "stat, cold", each(&folder, 1, scale, call));
                    }
                    put(report, mount, "readdir, entries", readdir(&folder));
                }
            }
        }
    }
    let small: [(&str, Call); 3] = [
        ("create and write 4 KiB", |path| File::create_new(path)?.write_all(&[7; 4096])),
        ("open and read 4 KiB, cold", |path| File::open(path)?.read_exact(&mut [0; 4096])),
        ("unlink 4 KiB", |path| fs::remove_file(path)),
    ];
    for (name, call) in small {
        for mount in mounts {
            if name.ends_with("cold") && !drop_caches() {
                continue;
            }
            let before = mount.bytes_written();
            put(report, mount, name, each(&mount.work.join("small"), 1, scale, call));
            if let (Some(before), Some(after), true) =
                (before, mount.bytes_written(), name.starts_with("create"))
            {
                let ratio = (after - before) as f64 / (scale.files * 4096) as f64;
                report.put(
                    &mount.kind,
                    "  bytes written / accepted, small files",
                    ratio,
                    Unit::Ratio,
                );
            }
        }
    }
}

fn put(report: &mut Report, mount: &Mounted, name: &str, rate: io::Result<f64>) {
    match rate {
        Ok(rate) => report.put(&mount.kind, name, rate, Unit::PerSecond),
        Err(error) => report.error(&mount.kind, name, error),
    }
}

/// Calls a second, over all names, split between the threads.
fn each(folder: &Path, threads: usize, scale: Scale, call: Call) -> io::Result<f64> {
    fs::create_dir_all(folder)?;
    let names: Vec<PathBuf> =
        (0..scale.files).map(|i| folder.join(format!("file{i:06}"))).collect();
    let share = names.len().div_ceil(threads);
    let begin = Instant::now();
    thread::scope(|scope| {
        let handles: Vec<_> = names
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().try_for_each(|path| call(path))))
            .collect();
        handles.into_iter().try_for_each(|h| h.join().expect("a bench thread does not panic"))
    })?;
    Ok(names.len() as f64 / begin.elapsed().as_secs_f64())
}

fn readdir(folder: &Path) -> io::Result<f64> {
    let begin = Instant::now();
    let mut entries = 0;
    for entry in fs::read_dir(folder)? {
        entry?;
        entries += 1;
    }
    Ok(f64::from(entries) / begin.elapsed().as_secs_f64())
}
