//! The daemon itself, as a person starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use daos_server::mounts;

pub const DFUSE: &str = env!("CARGO_BIN_EXE_dfuse");
pub const SIZE: &str = "1G";

/// A store and a mountpoint. Whatever was mounted and started is gone at the end.
pub struct Site {
    pub dir: tempfile::TempDir,
}

pub struct Daemon {
    pub pid: u32,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub fn dfuse(&self, args: &[&str]) -> Output {
        self.dfuse_at(&self.mnt(), &[&["--size", SIZE], args].concat())
    }

    pub fn dfuse_at(&self, mountpoint: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(DFUSE);
        command.arg("--embedded").arg(self.store()).arg(mountpoint).args(args);
        command.output().unwrap()
    }

    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub fn start_with(&self, args: &[&str]) -> Daemon {
        let output = self.dfuse(args);
        assert!(output.status.success(), "{}", text(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        let pid = said.split("process ").nth(1).and_then(|rest| rest.split([',', ')']).next());
        Daemon { pid: pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{said}")) }
    }

    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.mnt())
    }
}

pub fn is_mounted(path: &Path) -> bool {
    mounts::at(path).is_some_and(|m| m.is_dfuse())
}

impl Drop for Site {
    fn drop(&mut self) {
        for mount in mounts::all().iter().filter(|m| m.is_dfuse() && m.source == self.store()) {
            let _gone_already = Command::new("umount").arg("-l").arg(&mount.mountpoint).status();
        }
        // The store's directory goes with us; its daemon must not be in it any more.
        let until = Instant::now() + Duration::from_secs(10);
        while holder(&self.store()).is_some_and(alive) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(pid) = holder(&self.store()).filter(|pid| alive(*pid)) {
            kill(pid, "KILL");
        }
    }
}

impl Daemon {
    /// Fails if it does not end by itself.
    pub fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while alive(self.pid) {
            assert!(Instant::now() < until, "process {} does not end", self.pid);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn holder(store: &Path) -> Option<u32> {
    fs::read_to_string(store.join("lock")).ok()?.lines().next()?.parse().ok()
}

/// A zombie is dead: nobody in the test's container may reap the daemon's orphan.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

pub fn kill(pid: u32, signal: &str) {
    Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap();
}

pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// By umount(8), until its daemon has ended.
pub fn end(site: &Site, daemon: &Daemon) {
    unmount("umount", &[], site);
    daemon.wait();
}

/// A child that another test's thread has just forked holds our descriptors until its exec: so busy may mean in a moment.
pub fn unmount(command: &str, args: &[&str], site: &Site) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let output = Command::new(command).args(args).arg(site.mnt()).output().unwrap();
        if output.status.success() {
            return;
        }
        let busy = text(&output).contains("busy") && Instant::now() < until;
        assert!(busy, "{}", text(&output));
        std::thread::sleep(Duration::from_millis(20));
    }
}
