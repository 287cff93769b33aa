//! What a person at a shell waits for: tar x, find, cp -a, rm -rf, git clone, git status.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, Sample, timed};
use crate::cleanup;
use crate::mounted::Mounted;
use crate::report::Unit;
use crate::rng::Rng;

pub fn measure(bench: &mut Bench<'_>, scratch: &Path) -> io::Result<()> {
    let (files, rounds) = (bench.scale.tree_files, bench.scale.rounds);
    let inputs = Inputs::make(&scratch.join("inputs"), files)?;
    let clone = ["git", "clone", "-q", "--no-local", &inputs.repository, "clone"];
    // The name, the command, and what is counted.
    let steps: [(&str, &[&str], usize); 8] = [
        ("tar x", &["tar", "xf", &inputs.tar], files),
        ("find -size", &["find", "tree", "-type", "f", "-size", "+1k"], files),
        ("tar c", &["sh", "-c", "tar cf - tree | cat >/dev/null"], files),
        ("cp -a", &["cp", "-a", "tree", "copy"], files),
        ("rm -rf", &["rm", "-rf", "copy"], files),
        ("git clone", &clone, files / 2),
        ("git status", &["git", "-C", "clone", "status", "--porcelain"], files / 2),
        ("git status, again", &["git", "-C", "clone", "status", "--porcelain"], files / 2),
    ];
    for round in 0..rounds {
        for (name, words, operations) in steps {
            bench.turn(name, Unit::Seconds, |mount| {
                let took = timed(|| command(words, &mount.work))?;
                Ok(Sample { value: took.as_secs_f64(), operations: operations as u64 })
            });
        }
        for mount in bench.mounts {
            if round == 0 {
                check(bench.report, mount, &inputs);
            }
            for name in ["tree", "clone"] {
                fs::remove_dir_all(mount.work.join(name))?;
            }
        }
    }
    Ok(())
}

/// A figure of something that went wrong is worth nothing.
fn check(report: &mut crate::report::Report, mount: &Mounted, inputs: &Inputs) {
    if let Err(error) = command(&["diff", "-r", &inputs.tree, "tree"], &mount.work) {
        report.error(&mount.kind, "the tree is what was packed", error);
    }
    if let Err(error) = command(&["git", "-C", "clone", "fsck", "--no-progress"], &mount.work) {
        report.error(&mount.kind, "the clone is sound", error);
    }
}

pub fn command(words: &[&str], folder: &Path) -> io::Result<()> {
    finish(words, &mut prepared(words, folder))
}

/// The command, in words that mean the same everywhere.
pub fn prepared(words: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(folder)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_COUNT", "1")])
        .envs([
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
            ("LC_ALL", "C"),
        ])
        .envs([("GIT_AUTHOR_NAME", "bench"), ("GIT_AUTHOR_EMAIL", "bench@localhost")])
        .envs([("GIT_COMMITTER_NAME", "bench"), ("GIT_COMMITTER_EMAIL", "bench@localhost")]);
    command
}

pub fn finish(words: &[&str], command: &mut Command) -> io::Result<()> {
    let output = cleanup::run(command)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", words.join(" "), text.trim())))
}

/// The same for every filesystem of a run and, but for times, for every run.
struct Inputs {
    tree: String,
    tar: String,
    repository: String,
}

impl Inputs {
    fn make(base: &Path, files: usize) -> io::Result<Self> {
        let tree = base.join("tree");
        make_tree(&tree, files)?;
        command(&["tar", "cf", "tree.tar", "tree"], base)?;
        let repository = repository(base, files)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(Self { tree: text(tree), tar: text(base.join("tree.tar")), repository })
    }
}

/// A history of ten commits below `base`.
pub fn repository(base: &Path, files: usize) -> io::Result<String> {
    fs::create_dir_all(base)?;
    let repository = base.join("repository");
    fs::create_dir(&repository)?;
    command(&["git", "init", "-q"], &repository)?;
    make_tree(&repository.join("source"), files / 2)?;
    for round in 0..10 {
        command(&["git", "add", "-A"], &repository)?;
        command(&["git", "commit", "-qm", &format!("round {round}")], &repository)?;
        fs::write(
            repository.join(format!("source/round{round}")),
            format!("{round}\n").repeat(100),
        )?;
    }
    command(&["git", "gc", "-q"], &repository)?;
    Ok(repository.to_string_lossy().into_owned())
}

/// Sizes as in a source tree: most files of a few KiB, a few large; 50 to a directory.
fn make_tree(root: &Path, files: usize) -> io::Result<()> {
    let mut rng = Rng(7);
    let mut data = Vec::new();
    for i in 0..files {
        let folder = root.join(format!("dir{}/sub{}", i / 500, i / 50 % 10));
        if i % 50 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let size = match rng.next() % 100 {
            0..10 => rng.next() % 300,
            10..85 => rng.next() % 12_000,
            85..99 => rng.next() % 60_000,
            _ => rng.next() % 600_000,
        };
        data.resize(usize::try_from(size).expect("sizes are below a megabyte"), 0);
        // Text-like, so that git has something to compress.
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = if at % 40 == 39 { b'\n' } else { b'a' + (rng.next() % 16) as u8 };
        }
        fs::write(folder.join(format!("file{i}.txt")), &data)?;
    }
    Ok(())
}
