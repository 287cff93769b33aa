//! `daos-bench`: the mount against ext4 on a loop file on the same disk, in the same run; and vos alone on memory.
//!
//! # Order
//! The filesystems take turns, one measurement after the other, so that a busy minute of the machine hits all of them.
//!
//! # Not here
//! Verdicts: a bench prints ratios and fails nothing. Mounting: `scripts/mount.sh`.

mod files;
mod io;
mod mounted;
mod report;
mod tree;
mod vos;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;

/// Measure the mount against ext4, and vos alone.
#[derive(Parser)]
struct CommandLine {
    /// Filesystems to compare: dfuse, ext4, tmpfs, null (the FUSE door with nothing behind it), or a directory
    #[arg(long, value_delimiter = ',', default_value = "dfuse,ext4")]
    on: Vec<String>,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "io,files,tree,vos")]
    groups: Vec<String>,
    /// Seconds for each measurement that runs against time
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Smaller data, for a look
    #[arg(long)]
    quick: bool,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Where stores, images and inputs are made
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// More options for dfuse, as one string
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    dfuse_options: String,
}

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Scale {
    pub seconds: f64,
    pub file_bytes: u64,
    pub files: usize,
    pub tree_files: usize,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let scale = if line.quick {
        Scale { seconds: line.seconds.min(1.0), file_bytes: 64 << 20, files: 1000, tree_files: 500 }
    } else {
        Scale { seconds: line.seconds, file_bytes: 512 << 20, files: 10_000, tree_files: 5000 }
    };
    match run(&line, scale) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("daos-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: &CommandLine, scale: Scale) -> std::io::Result<()> {
    let scratch = tempfile::Builder::new().prefix("daos-bench.").tempdir_in(&line.dir)?;
    let mut report = Report::new(line.on.clone());
    let mut alone = Report::new(vec![vos::COLUMN.to_owned()]);
    let mut mounts = Vec::new();
    // vos alone needs no mount.
    let wanted = line.groups.iter().any(|group| group != "vos");
    for kind in line.on.iter().filter(|_| wanted) {
        mounts.push(mounted::Mounted::up(kind, scratch.path(), &line.dfuse_options)?);
    }
    for group in &line.groups {
        match group.as_str() {
            "io" => io::measure(&mounts, scale, &mut report),
            "files" => files::measure(&mounts, scale, &mut report),
            "tree" => tree::measure(&mounts, scale, scratch.path(), &mut report)?,
            "vos" => vos::measure(scale, &mut alone),
            other => eprintln!("daos-bench: no such group: {other}"),
        }
    }
    drop(mounts);
    report.print();
    alone.print();
    if let Some(folder) = line.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(
        &line.json,
        format!("[{},\n{}]\n", report.json().trim_end(), alone.json().trim_end()),
    )?;
    println!("JSON in {}", line.json.display());
    Ok(())
}
