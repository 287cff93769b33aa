//! Mounts for tests: a real FUSE mount in a temporary directory, gone again whatever the test does.
#![allow(dead_code)]

pub mod site;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daos_client::{Client, Container};
use dfs::{Dfs, MountOptions};
use dfuse::fuse::{FuseConfig, Mounted, Requests, Unmounter};
use dfuse::ops::Filesystem;
use dfuse::options::MountFlags;
use futures_lite::future::block_on;

/// Why mounts cannot be tested here, if they cannot.
pub fn cannot_mount() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".into());
    }
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .err()
        .map(|e| format!("/dev/fuse: {e}"))
}

/// Leaves the test with its reason printed where mounts cannot be tested.
#[macro_export]
macro_rules! require_fuse {
    () => {
        if let Some(reason) = support::cannot_mount() {
            eprintln!("Skipped({reason})");
            return;
        }
    };
}

pub const FLAGS: MountFlags = MountFlags {
    suid: true,
    dev: true,
    exec: true,
    noatime: false,
    dirsync: false,
    allow_other: true,
    default_permissions: true,
};

pub fn config(mountpoint: &Path) -> FuseConfig {
    FuseConfig {
        mountpoint: mountpoint.to_path_buf(),
        source: "test".into(),
        threads: 2,
        requests_max: 64,
        read_only: false,
        flags: FLAGS,
        caching: true,
        door: true,
    }
}

/// A container of a model target, in memory.
pub fn model_container() -> Container {
    let client = Client::new(vec![daos_model::spawn_model()]);
    block_on(async {
        let pool = client.pool_or_create("default").await.expect("a pool");
        pool.container_or_create("home").await.expect("a container")
    })
}

pub fn dfs_of(container: &Container) -> Arc<Dfs> {
    block_on(Dfs::mount(container.clone(), MountOptions::default())).expect("a filesystem")
}

/// A filesystem over a model target.
pub fn model_dfs() -> Arc<Dfs> {
    dfs_of(&model_container())
}

/// A mount of this process.
pub struct TestMount {
    dir: Option<tempfile::TempDir>,
    unmounter: Unmounter,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl TestMount {
    pub fn of_model() -> Self {
        Self::with(model_dfs(), |_| {})
    }

    /// And how many requests of each kind there were.
    pub fn counted() -> (Self, Arc<Requests>) {
        Self::mounted(model_dfs(), |_| {})
    }

    pub fn with<F: Filesystem>(fs: Arc<F>, change: impl FnOnce(&mut FuseConfig)) -> Self {
        Self::mounted(fs, change).0
    }

    fn mounted<F: Filesystem>(
        fs: Arc<F>,
        change: impl FnOnce(&mut FuseConfig),
    ) -> (Self, Arc<Requests>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = config(dir.path());
        change(&mut config);
        let mut mounted = Mounted::new(fs, &config).expect("a mount");
        let unmounter = mounted.unmounter();
        let requests = mounted.requests();
        let thread = std::thread::spawn(move || mounted.run());
        (Self { dir: Some(dir), unmounter, thread: Some(thread) }, requests)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.as_ref().expect("it is mounted").path().to_path_buf()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        let path = self.path();
        if let Err(e) = self.unmounter.unmount() {
            eprintln!("unmounting {}: {e}", path.display());
        }
        let thread = self.thread.take().expect("it runs until it is dropped");
        let until = Instant::now() + Duration::from_secs(10);
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            // Removing the directory would reach into a mount that is still there.
            std::mem::forget(self.dir.take());
        }
    }
}
