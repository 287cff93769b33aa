//! `daos-bench`: the mount against ext4 on a loop file on the same disk and against a FUSE filesystem without a store, in the same
//! run; and vos alone on memory.
//!
//! # Order
//! The filesystems take turns, one measurement after the other (`bench.rs`), round after round.
//!
//! # Not here
//! A failure because something is slow: a bench prints ratios and fails nothing. Mounting: `scripts/mount.sh`.

mod bench;
mod calls;
mod cleanup;
mod expected;
mod files;
mod inside;
mod library;
mod mounted;
mod random;
mod remount;
mod report;
mod rng;
mod stream;
mod svg;
mod tree;
mod vos;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::bench::{Bench, Scale};
use crate::mounted::Mounted;
use crate::report::Report;

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// 1 MiB one after the other
    Stream,
    /// 4 KiB here and there
    Random,
    /// Names: create, stat, rename, ...
    Files,
    /// tar, cp, rm, git
    Tree,
    /// The store alone
    Vos,
    /// After kill -9
    Remount,
    /// Programs under libpil4dfs.so
    Library,
    /// A daemon with a million files; only with --long
    Million,
}

/// Measure the mount against ext4 and a FUSE filesystem without a store, and vos alone.
#[derive(Parser)]
struct CommandLine {
    /// Filesystems to compare, ours first: dfuse, ext4, null (the FUSE door with nothing behind it), tmpfs, or a directory
    #[arg(long, value_delimiter = ',', default_value = "dfuse,ext4,null")]
    on: Vec<String>,
    /// What to measure [default: everything]
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Smaller data and one round, for a look
    #[arg(long)]
    quick: bool,
    /// A million files too, which takes minutes
    #[arg(long)]
    long: bool,
    /// Seconds for each measurement that runs against time [default: 0.7; 0.25 with --quick]
    #[arg(long)]
    seconds: Option<f64>,
    /// How often everything is measured; medians are told [default: 3; 1 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Draw the table
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Where stores, images and inputs are made
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// More options for dfuse, as one string
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    dfuse_options: String,
    /// For the bench itself: tell the resident memory of a store with so many files
    #[arg(long, hide = true, num_args = 2)]
    resident: Option<Vec<String>>,
    #[command(subcommand)]
    alone: Option<Alone>,
}

/// What the bench starts itself for.
#[derive(Subcommand)]
enum Alone {
    /// One workload in a process of its own, by the C library; prints how fast it was, and how many calls
    #[command(hide = true)]
    Calls(calls::Work),
}

impl CommandLine {
    fn scale(&self) -> Scale {
        let mut scale = if self.quick {
            Scale {
                seconds: 0.25,
                stream_bytes: 128 << 20,
                random_bytes: 32 << 20,
                files: 2000,
                tree_files: 1000,
                vos_operations: 20_000,
                rounds: 1,
            }
        } else {
            Scale {
                seconds: 0.7,
                stream_bytes: 512 << 20,
                random_bytes: 128 << 20,
                files: 10_000,
                tree_files: 5000,
                vos_operations: 50_000,
                rounds: 3,
            }
        };
        scale.seconds = self.seconds.unwrap_or(scale.seconds);
        scale.rounds = self.rounds.unwrap_or(scale.rounds).max(1);
        scale
    }

    fn groups(&self) -> Vec<Group> {
        let wanted = |group: &Group| match self.only.as_slice() {
            [] => *group != Group::Million || self.long,
            only => only.contains(group),
        };
        Group::value_variants().iter().copied().filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match (line.resident.as_deref(), &line.alone) {
        (Some([path, files]), _) => resident(Path::new(path), files),
        (_, Some(Alone::Calls(work))) => alone(work).map_err(|error| error.to_string()),
        _ => run(&line).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("daos-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn resident(path: &Path, files: &str) -> Result<(), String> {
    let files = files.parse().map_err(|_| format!("not a number: {files}"))?;
    println!("{}", vos::resident(path, files)?);
    Ok(())
}

fn alone(work: &calls::Work) -> std::io::Result<()> {
    let calls = calls::Libc { folder: work.folder.clone() };
    let done = calls::run(&calls, work)?;
    println!("{} {}", done.value, done.operations);
    Ok(())
}

fn run(line: &CommandLine) -> std::io::Result<()> {
    let scratch = tempfile::Builder::new().prefix("daos-bench.").tempdir_in(&line.dir)?;
    cleanup::watch(scratch.path())?;
    let (scale, groups) = (line.scale(), line.groups());
    let mut report = Report::new(line.on.clone());
    let mut mounts = Vec::new();
    if groups.iter().any(|group| !matches!(group, Group::Vos | Group::Library | Group::Million)) {
        for kind in &line.on {
            mounts.push(Mounted::up(kind, scratch.path(), &line.dfuse_options)?);
        }
    }
    for group in groups {
        measure(group, &mounts, scale, scratch.path(), &mut report)?;
        // Who is stopped keeps what was done.
        write(line, scale, &report)?;
    }
    drop(mounts);
    report.print();
    Ok(())
}

fn write(line: &CommandLine, scale: Scale, report: &Report) -> std::io::Result<()> {
    if let Some(folder) = line.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&line.json, report.json(scale.rounds))?;
    line.svg.as_ref().map_or(Ok(()), |path| std::fs::write(path, svg::draw(report)))
}

fn measure(
    group: Group,
    mounts: &[Mounted],
    scale: Scale,
    scratch: &Path,
    report: &mut Report,
) -> std::io::Result<()> {
    report.begin(&format!("{group:?}").to_lowercase());
    let bench = &mut Bench { mounts, scale, report };
    match group {
        Group::Stream => stream::measure(bench),
        Group::Random => random::measure(bench),
        Group::Files => files::measure(bench, scratch),
        Group::Tree => tree::measure(bench, scratch)?,
        Group::Vos => {
            vos::measure(scale, bench.report);
            vos::measure_memory(scale, scratch, bench.report);
        }
        Group::Remount => remount::measure(mounts, scale.rounds, bench.report),
        Group::Library => {
            bench.report.compare(&library::COLUMNS);
            library::measure(scratch, scale, bench.report)?;
        }
        Group::Million => remount::measure_million(scratch, 1_000_000, bench.report),
    }
    Ok(())
}
