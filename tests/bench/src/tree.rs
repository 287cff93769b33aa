//! What a person at a shell waits for: tar x, cp -a, git clone, git status, rm -rf.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Scale;
use crate::io::Rng;
use crate::mounted::Mounted;
use crate::report::{Report, Unit};

pub fn measure(
    mounts: &[Mounted],
    scale: Scale,
    scratch: &Path,
    report: &mut Report,
) -> io::Result<()> {
    let inputs = Inputs::make(&scratch.join("inputs"), scale)?;
    let steps: [(&str, Vec<&str>); 7] = [
        ("tar x", vec!["tar", "xf", inputs.tar()]),
        ("find -size", vec!["find", "tree", "-type", "f", "-size", "+1k"]),
        ("tar c", vec!["sh", "-c", "tar cf - tree | cat >/dev/null"]),
        ("cp -a", vec!["cp", "-a", "tree", "copy"]),
        ("rm -rf", vec!["rm", "-rf", "copy"]),
        ("git clone", vec!["git", "clone", "-q", "--no-local", inputs.repository(), "clone"]),
        ("git status", vec!["git", "-C", "clone", "status", "--porcelain"]),
    ];
    for (name, words) in &steps {
        for mount in mounts {
            let begin = Instant::now();
            match command(words, &mount.work) {
                Ok(()) => {
                    report.put(&mount.kind, name, begin.elapsed().as_secs_f64(), Unit::Seconds)
                }
                Err(error) => report.error(&mount.kind, name, error),
            }
        }
    }
    for mount in mounts {
        if let Err(error) = command(&["diff", "-r", inputs.tree(), "tree"], &mount.work) {
            report.error(&mount.kind, "the tree is what was packed", error);
        }
        for name in ["tree", "clone"] {
            fs::remove_dir_all(mount.work.join(name))?;
        }
    }
    Ok(())
}

fn command(words: &[&str], folder: &Path) -> io::Result<()> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_COUNT", "1")])
        .envs([
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
            ("LC_ALL", "C"),
        ])
        .envs([("GIT_AUTHOR_NAME", "bench"), ("GIT_AUTHOR_EMAIL", "bench@localhost")])
        .envs([("GIT_COMMITTER_NAME", "bench"), ("GIT_COMMITTER_EMAIL", "bench@localhost")])
        .stdin(Stdio::null())
        .output()?;
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
    fn tree(&self) -> &str {
        &self.tree
    }
    fn tar(&self) -> &str {
        &self.tar
    }
    fn repository(&self) -> &str {
        &self.repository
    }

    fn make(base: &Path, scale: Scale) -> io::Result<Self> {
        let tree = base.join("tree");
        make_tree(&tree, scale.tree_files)?;
        command(&["tar", "cf", "tree.tar", "tree"], base)?;
        let repository = base.join("repository");
        fs::create_dir(&repository)?;
        command(&["git", "init", "-q"], &repository)?;
        make_tree(&repository.join("source"), scale.tree_files / 2)?;
        for round in 0..10 {
            command(&["git", "add", "-A"], &repository)?;
            command(&["git", "commit", "-qm", &format!("round {round}")], &repository)?;
            fs::write(
                repository.join(format!("source/round{round}")),
                format!("{round}\n").repeat(100),
            )?;
        }
        command(&["git", "gc", "-q"], &repository)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok(Self {
            tree: text(tree),
            tar: text(base.join("tree.tar")),
            repository: text(repository),
        })
    }
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
