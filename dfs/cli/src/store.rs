//! Which store a command means, and the way to it.
//!
//! A path is a store's own directory or device, or lies in a mount, whose source is the store. Without a path it is the one store
//! that is mounted.

use std::path::{Path, PathBuf};

use daos_server::control::{Answer, Ask, Failure, FailureKind};
use daos_server::{Door, EngineConfig, mounts};
use dfs::{Dfs, MountOptions};
use futures_lite::future::block_on;
use serde_json::Value;

use crate::{commands, status};

pub struct Store {
    door: Door,
    path: PathBuf,
}

impl Store {
    pub fn open(path: Option<&Path>, read_only: bool) -> Result<Self, Failure> {
        let path = match path {
            Some(path) => store_of(path)?,
            None => only_mounted()?,
        };
        let mut config = EngineConfig::new(&path, "the daos command");
        config.read_only = read_only;
        let door = Door::open(config).map_err(|e| status::of_start(&e))?;
        Ok(Self { door, path })
    }

    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        self.door.ask(ask)
    }

    /// What `dfuse` says about its mount; of a store that nobody holds, what can be read here.
    pub fn filesystem(&mut self, pool: &str, container: &str) -> Result<Value, Failure> {
        let Some(client) = self.door.client() else {
            let ask = Ask::Filesystem { verb: "query".into(), arguments: Value::Null };
            return match self.ask(ask)? {
                Answer::Filesystem(value) => Ok(value),
                other => Err(commands::unexpected(&other)),
            };
        };
        // The same words as the service's for pools and containers that are not there.
        let ask = Ask::ContainerQuery { pool: pool.into(), container: container.into() };
        self.ask(ask)?;
        let space = block_on(async {
            let container = client.pool(pool).await?.container(container).await?;
            let options = MountOptions { read_only: true, ..MountOptions::default() };
            Dfs::mount(container, options).await?.statfs().await
        });
        let space = space.map_err(|e| Failure::new(kind(&e), e.to_string()))?;
        Ok(commands::unmounted(&self.path, pool, container, &space))
    }

    pub fn close(self) -> Result<(), Failure> {
        self.door.close().map_err(|e| status::of_start(&e))
    }
}

fn kind(error: &dfs::Error) -> FailureKind {
    match error {
        dfs::Error::Damaged { .. } => FailureKind::Damaged,
        dfs::Error::Engine(error) => Failure::from(error.clone()).kind,
        _ => FailureKind::Failed,
    }
}

fn store_of(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    if let Some(mount) = mounts::containing(path).filter(mounts::Mount::is_dfuse) {
        return Ok(mount.source);
    }
    match std::fs::metadata(path) {
        Ok(_) => Ok(path.to_path_buf()),
        Err(e) => Err(Failure::new(FailureKind::NotFound, format!("{shown}: {e}"))),
    }
}

fn only_mounted() -> Result<PathBuf, Failure> {
    let mut stores: Vec<_> =
        mounts::all().into_iter().filter(mounts::Mount::is_dfuse).map(|m| m.source).collect();
    stores.sort();
    stores.dedup();
    match stores.as_slice() {
        [store] => Ok(store.clone()),
        [] => Err(Failure::new(
            FailureKind::NotFound,
            "no store is mounted; name one with --embedded DIR",
        )),
        several => {
            let list: Vec<_> = several.iter().map(|s| s.display().to_string()).collect();
            let message = format!(
                "several stores are mounted; name one with --embedded: {}",
                list.join(", ")
            );
            Err(Failure::new(FailureKind::Invalid, message))
        }
    }
}
