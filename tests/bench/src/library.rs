//! Programs under `libpil4dfs.so` against the same programs without it, on the same files; and against dfs without any way to it.
//!
//! Every figure is of a child process that makes its calls as a C program does (`calls.rs`), but those of dfs, which are made here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::bench::{Sample, Scale};
use crate::calls::{self, What, Work};
use crate::cleanup;
use crate::inside::Inside;
use crate::mounted::{Mounted, drop_caches, release};
use crate::report::{Report, Unit};
use crate::tree;

/// Under the library; O_DIRECT on the mount, for data; the mount with `--disable-caching`; the mount, warm; ext4, warm; dfs in this process.
pub const COLUMNS: [&str; 6] = ["library", "direct", "uncached", "mount", "ext4", "dfs"];
const JOBS_MAX: usize = 4;
/// Of a program that does nothing: the median of so many starts is one sample.
const STARTS: usize = 31;

/// One column's way to files.
struct Way<'a> {
    name: &'static str,
    under_library: bool,
    direct: bool,
    /// `None`: dfs in this process.
    mount: Option<&'a Mounted>,
}

struct Library<'a> {
    ways: Vec<Way<'a>>,
    inside: &'a Inside,
    scale: Scale,
    report: &'a mut Report,
}

/// What one row is, beside its name.
#[derive(Clone, Copy)]
struct Row {
    what: What,
    jobs: usize,
    /// `direct` and the library open with O_DIRECT.
    direct: bool,
    warm: bool,
    cold: bool,
}

const fn row(what: What) -> Row {
    Row { what, jobs: 1, direct: false, warm: false, cold: false }
}
const fn direct(what: What) -> Row {
    Row { direct: true, ..row(what) }
}
const fn warm(what: What) -> Row {
    Row { warm: true, ..row(what) }
}

const DATA: [(&str, Row); 7] = [
    ("library: random read 4 KiB", direct(What::ReadRandom)),
    ("library: random read 4 KiB, 4 jobs", Row { jobs: JOBS_MAX, ..direct(What::ReadRandom) }),
    ("library: random read 4 KiB, not direct", warm(What::ReadRandom)),
    ("library: random write 4 KiB", direct(What::WriteRandom)),
    ("library: random write 4 KiB, 4 jobs", Row { jobs: JOBS_MAX, ..direct(What::WriteRandom) }),
    ("library: sequential read 1 MiB", direct(What::ReadStream)),
    ("library: sequential write 1 MiB", direct(What::WriteStream)),
];
const NAMES: [(&str, Row); 10] = [
    ("library: create", row(What::Create)),
    ("library: stat, warm", warm(What::Stat)),
    ("library: stat, cold", Row { cold: true, ..row(What::StatOnce) }),
    ("library: open and close", warm(What::Open)),
    ("library: readdir, warm, entries", warm(What::Readdir)),
    ("library: chmod", row(What::Chmod)),
    ("library: rename", row(What::Rename)),
    ("library: unlink", row(What::Unlink)),
    ("library: mkdir", row(What::Mkdir)),
    ("library: rmdir", row(What::Rmdir)),
];

pub fn measure(scratch: &Path, scale: Scale, report: &mut Report) -> io::Result<()> {
    let base = scratch.join("library");
    fs::create_dir(&base)?;
    let at = |name: &str| base.join(name);
    let mount = Mounted::up("dfuse", &at("mount"), "")?;
    let uncached = Mounted::up("dfuse", &at("uncached"), "--disable-caching")?;
    let ext4 = Mounted::up("ext4", &at("ext4"), "")?;
    let inside = Inside::start(&at("inside"))?;
    let [library, direct, none, warm, other, dfs] = COLUMNS;
    let way = |name, mount| Way { name, under_library: false, direct: false, mount };
    let ways = vec![
        Way { under_library: true, direct: true, ..way(library, Some(&mount)) },
        Way { direct: true, ..way(direct, Some(&mount)) },
        way(none, Some(&uncached)),
        way(warm, Some(&mount)),
        way(other, Some(&ext4)),
        way(dfs, None),
    ];
    let mut library = Library { ways, inside: &inside, scale, report };
    library.fill()?;
    for _ in 0..library.scale.rounds {
        library.rows(&DATA);
        library.rows(&NAMES);
        for (name, words) in [("true", &["true"][..]), ("python3", &["python3", "-c", "pass"])] {
            library.start_up(name, words);
        }
    }
    library.git(&base.join("inputs"))?;
    drop(library);
    inside.stop()
}

impl Library<'_> {
    fn work(&self, way: &Way<'_>, what: What, jobs: usize) -> Work {
        let (seconds, files, bytes) =
            (self.scale.seconds, self.scale.files, self.scale.random_bytes);
        // Data is the same for all who use a mount; names are each one's own.
        let work = way.mount.map(|mount| mount.work.clone()).unwrap_or_default();
        let of_data = DATA.iter().any(|(_, row)| row.what == what) || what == What::Fill;
        let folder = if of_data { work } else { work.join(way.name) };
        Work { what, folder, jobs, seconds, files, bytes, direct: false, warm: false }
    }

    fn fill(&self) -> io::Result<()> {
        for way in &self.ways {
            let work = self.work(way, What::Fill, JOBS_MAX);
            if way.mount.is_none() {
                calls::run(self.inside, &work)?;
                continue;
            }
            if !work.folder.join("data0").exists() {
                calls::run(&calls::Libc { folder: work.folder.clone() }, &work)?;
            }
            fs::create_dir(work.folder.join(way.name))?;
        }
        Ok(())
    }

    fn rows(&mut self, rows: &[(&str, Row)]) {
        for &(name, row) in rows {
            let data = matches!(
                row.what,
                What::ReadRandom | What::WriteRandom | What::ReadStream | What::WriteStream
            );
            let stream = matches!(row.what, What::ReadStream | What::WriteStream);
            let unit = if stream { Unit::MegabytesPerSecond } else { Unit::PerSecond };
            for way in &self.ways {
                // O_DIRECT says nothing about names; and nothing of dfs is the kernel's.
                let is_other = way.name == "direct" && !row.direct;
                if is_other || (way.mount.is_none() && (row.cold || (data && !row.direct))) {
                    continue;
                }
                let mut work = self.work(way, row.what, row.jobs);
                work.direct = row.direct && way.direct;
                // What the kernel is to have of a file is read before.
                let reads = matches!(row.what, What::ReadRandom | What::ReadStream);
                work.warm = row.warm;
                let measured = match reads && !work.direct && way.mount.is_some() {
                    true => self.read_all(way, row.jobs),
                    false => Ok(()),
                }
                .and_then(|()| if row.cold { drop_caches() } else { Ok(()) })
                .and_then(|()| self.run(way, &work));
                match measured {
                    Ok(sample) => self.report.put(way.name, name, sample.value, unit),
                    Err(error) => self.report.error(way.name, name, error),
                }
            }
        }
    }

    fn read_all(&self, way: &Way<'_>, jobs: usize) -> io::Result<()> {
        let work = self.work(way, What::ReadStream, jobs);
        calls::run(&calls::Libc { folder: work.folder.clone() }, &work).map(drop)
    }

    fn run(&self, way: &Way<'_>, work: &Work) -> io::Result<Sample> {
        if way.mount.is_none() {
            return calls::run(self.inside, work);
        }
        let mut command = Command::new(std::env::current_exe()?);
        let output = cleanup::run(under(way, command.args(work.arguments())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>().as_deref() {
            Ok([value, operations]) if output.status.success() => {
                Ok(Sample { value: *value, operations: *operations as u64 })
            }
            _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    /// Microseconds of a program that does nothing, and what of it is the library's.
    fn start_up(&mut self, name: &str, words: &[&str]) {
        let row = format!("library: start-up of {name}");
        let mut pairs = Vec::new();
        for _ in 0..STARTS {
            match (self.start(words, "library"), self.start(words, "mount")) {
                (Ok(with), Ok(without)) => pairs.push((with, without)),
                (Err(error), _) | (_, Err(error)) => {
                    return self.report.error("library", &row, error);
                }
            }
        }
        let mut put = |column: &str, row: &str, of: fn(&(f64, f64)) -> f64| {
            let mut took: Vec<f64> = pairs.iter().map(of).collect();
            took.sort_by(f64::total_cmp);
            self.report.put(column, row, took[STARTS / 2].max(0.0), Unit::Microseconds);
        };
        put("library", &row, |(with, _)| *with);
        put("mount", &row, |(_, without)| *without);
        put("library", &format!("  more than without, {name}"), |(with, without)| with - without);
    }

    fn start(&self, words: &[&str], column: &str) -> io::Result<f64> {
        let way = self.ways.iter().find(|way| way.name == column);
        let way = way.expect("it is one of the columns");
        let begin = Instant::now();
        tree::finish(words, under(way, Command::new(words[0]).args(&words[1..])))?;
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    }

    fn git(&mut self, inputs: &Path) -> io::Result<()> {
        let repository = tree::repository(inputs, self.scale.tree_files)?;
        let clone = |way: &Way<'_>, mount: &Mounted| mount.work.join(way.name).join("clone");
        for way in &self.ways {
            let Some(mount) = way.mount.filter(|_| way.name != "direct") else { continue };
            let to = clone(way, mount).to_string_lossy().into_owned();
            tree::command(&["git", "clone", "-q", "--no-local", &repository, &to], inputs)?;
        }
        let words = ["git", "status", "--porcelain"];
        for _ in 0..=self.scale.rounds {
            for way in &self.ways {
                let Some(mount) = way.mount.filter(|_| way.name != "direct") else { continue };
                let begin = Instant::now();
                let mut command = tree::prepared(&words, &clone(way, mount));
                let done = tree::finish(&words, under(way, &mut command));
                let name = "library: git status";
                match done {
                    Ok(()) => {
                        let seconds = begin.elapsed().as_secs_f64();
                        self.report.put(way.name, name, seconds, Unit::Seconds);
                    }
                    Err(error) => self.report.error(way.name, name, error),
                }
            }
        }
        Ok(())
    }
}

fn under<'c>(way: &Way<'_>, command: &'c mut Command) -> &'c mut Command {
    if way.under_library { command.env("LD_PRELOAD", library()) } else { command }
}

fn library() -> PathBuf {
    release().join("libpil4dfs.so")
}
