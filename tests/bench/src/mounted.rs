//! A filesystem for the time of a bench, by `scripts/mount.sh`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub struct Mounted {
    pub kind: String,
    /// An empty directory on it.
    pub work: PathBuf,
    state: PathBuf,
    script: PathBuf,
}

impl Mounted {
    pub fn up(kind: &str, scratch: &Path, dfuse_options: &str) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/mount.sh");
        let state = scratch.join(kind.replace('/', "_"));
        let mut command = Command::new(&script);
        command.args(["up".as_ref(), state.as_os_str(), kind.as_ref()]).arg("--size=16G");
        command.args(dfuse_options.split_whitespace());
        expect(command.stdin(Stdio::null()).output()?)?;
        let work = state.join("mnt/bench");
        let mounted = Self { kind: kind.to_owned(), work, state, script };
        std::fs::create_dir(&mounted.work)?;
        Ok(mounted)
    }

    /// Bytes that the daemon wrote to its device so far; `None` where there is no daemon of ours.
    pub fn bytes_written(&self) -> Option<u64> {
        let pid = std::fs::read_to_string(self.state.join("pid")).ok()?;
        let io = std::fs::read_to_string(format!("/proc/{}/io", pid.trim())).ok()?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.work);
        for verb in ["down", "kill"] {
            match Command::new(&self.script).arg(verb).arg(&self.state).output().map(expect) {
                Ok(Ok(())) => break,
                Ok(Err(error)) | Err(error) => {
                    eprintln!("daos-bench: {verb} {}: {error}", self.kind)
                }
            }
        }
    }
}

fn expect(output: Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Empties the page cache, so that what is read next comes from below. Only root can; false otherwise.
pub fn drop_caches() -> bool {
    let _ = Command::new("sync").status();
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}
