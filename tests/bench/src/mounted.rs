//! A filesystem for the time of a bench, by `scripts/mount.sh`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::cleanup;

/// Requests by kind since the mount.
pub type Requests = BTreeMap<String, u64>;

pub struct Mounted {
    pub kind: String,
    /// An empty directory on it.
    pub work: PathBuf,
    state: PathBuf,
}

impl Mounted {
    pub fn up(kind: &str, scratch: &Path, dfuse_options: &str) -> io::Result<Self> {
        let state = scratch.join(kind.replace('/', "_"));
        cleanup::remember(kind, &state);
        let mut command = Command::new(script());
        command.args(["up".as_ref(), state.as_os_str(), kind.as_ref()]).arg("--size=16G");
        command.args(dfuse_options.split_whitespace());
        let mounted = Self { kind: kind.to_owned(), work: state.join("mnt/bench"), state };
        expect(cleanup::run(&mut command)?)?;
        fs::create_dir(&mounted.work)?;
        Ok(mounted)
    }

    /// Unmounts, mounts, and empties the page cache: what is read next comes from below. What has nothing below (null, tmpfs) stays.
    pub fn cool(&self) -> io::Result<()> {
        self.again()?;
        drop_caches()
    }

    /// The same store mounted again; null and tmpfs would be empty, and are left alone.
    pub fn again(&self) -> io::Result<()> {
        if self.kind != "null" { self.script("again") } else { Ok(()) }
    }

    /// The same store mounted with one more option of dfuse.
    pub fn again_with(&self, option: &str) -> io::Result<()> {
        let options = self.state.join("options");
        let before = fs::read_to_string(&options)?;
        fs::write(&options, format!("{before}{option}\n"))?;
        let again = self.again();
        fs::write(&options, before)?;
        again
    }

    /// kill -9 of the daemon.
    pub fn kill(&self) -> io::Result<()> {
        self.script("kill")
    }

    /// Bytes that the daemon wrote to its device so far; `None` where there is no daemon of ours.
    pub fn bytes_written(&self) -> Option<u64> {
        if self.kind != "dfuse" {
            return None;
        }
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid()?)).ok()?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
    }

    /// A line of the daemon's `/proc/PID/status` in KiB, such as `VmRSS`.
    pub fn status_kib(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn pid(&self) -> Option<String> {
        Some(fs::read_to_string(self.state.join("pid")).ok()?.trim().to_owned())
    }

    /// What the kernel has asked the daemon for; `None` where there is no FUSE.
    pub fn requests(&self) -> Option<Requests> {
        let counts = match self.kind.as_str() {
            "dfuse" => self.daos(&["filesystem", "query"], &["."])?["requests"].clone(),
            "null" => {
                let mut text = String::new();
                let socket = self.state.join("requests");
                UnixStream::connect(socket).ok()?.read_to_string(&mut text).ok()?;
                serde_json::from_str(&text).ok()?
            }
            _ => return None,
        };
        serde_json::from_value(counts).ok()
    }

    /// A number of `daos pool query`: a field of it, or a counter.
    pub fn pool(&self, name: &str) -> Option<u64> {
        if self.kind != "dfuse" {
            return None;
        }
        let pool = self.daos(&["pool", "query"], &[])?;
        let counters = pool["counters"].as_array()?;
        let counter = counters.iter().find(|pair| pair[0] == name).map(|pair| &pair[1]);
        counter.unwrap_or(&pool[name]).as_u64()
    }

    fn daos(&self, verb: &[&str], more: &[&str]) -> Option<Value> {
        let daos = release().join("daos");
        let mut command = Command::new(daos);
        command.args(verb).arg("--json").current_dir(&self.state);
        match more {
            [] => command.arg("--embedded").arg(self.state.join("store")),
            _ => command.arg(self.state.join("mnt")),
        };
        let output = command.stdin(Stdio::null()).output().ok()?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(answer["response"].clone())
    }

    fn script(&self, verb: &str) -> io::Result<()> {
        expect(cleanup::run(Command::new(script()).arg(verb).arg(&self.state))?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.work);
        for verb in ["down", "kill"] {
            match self.script(verb) {
                Ok(()) => break,
                Err(error) => eprintln!("daos-bench: {verb} {}: {error}", self.kind),
            }
        }
        cleanup::forget(&self.state);
    }
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/mount.sh")
}

/// Where `scripts/mount.sh` takes the programs from.
pub fn release() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
        .join("release")
}

fn expect(output: Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Empties the page cache. Only root can.
pub fn drop_caches() -> io::Result<()> {
    let _ = Command::new("sync").status();
    fs::write("/proc/sys/vm/drop_caches", "3")
}
