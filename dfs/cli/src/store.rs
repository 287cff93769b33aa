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
    /// Of the mount by which it was named: `st_dev` of what is in it.
    device: Option<(u32, u32)>,
}

impl Store {
    pub fn open(path: Option<&Path>, read_only: bool) -> Result<Self, Failure> {
        let (path, device) = match path {
            Some(path) => store_of(path)?,
            None => (only_mounted()?, None),
        };
        let mut config = EngineConfig::new(&path, "the daos command");
        config.read_only = read_only;
        let door = Door::open(config).map_err(|e| status::of_start(&e))?;
        Ok(Self { door, path, device })
    }

    /// Is this the store at `path`?
    pub fn is_at(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        real(&self.path) == real(path)
    }

    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        self.door.ask(ask)
    }

    /// Asks the mount by which the store was named; with several, the one that the daemon was started for.
    pub fn ask_mount(&mut self, verb: &str, mut arguments: Value) -> Result<Value, Failure> {
        if arguments.is_null() {
            arguments = serde_json::json!({});
        }
        arguments["device"] = serde_json::json!(self.device);
        match self.ask(Ask::Filesystem { verb: verb.into(), arguments })? {
            Answer::Filesystem(value) => Ok(value),
            other => Err(commands::unexpected(&other)),
        }
    }

    /// What `dfuse` says about its mount; of a store that nobody holds, what can be read here.
    pub fn filesystem(&mut self, pool: &str, container: &str) -> Result<Value, Failure> {
        let Some(client) = self.door.client() else {
            return self.ask_mount("query", Value::Null);
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

    /// What the filesystems' own checker finds in every container that has one.
    pub fn check_filesystems(&mut self) -> Result<Vec<CheckedFilesystem>, Failure> {
        let Some(client) = self.door.client() else {
            return match self.ask_mount("check", Value::Null) {
                // The holder has mounted nothing.
                Err(failure) if failure.kind == FailureKind::Unsupported => Ok(Vec::new()),
                Err(failure) => Err(failure),
                Ok(value) => serde_json::from_value(value).map_err(|e| {
                    Failure::new(FailureKind::Protocol, format!("the mount's answer: {e}"))
                }),
            };
        };
        block_on(check_all(client)).map_err(|e| Failure::new(kind(&e), e.to_string()))
    }

    /// Mends the store and every filesystem in it.
    pub fn repair(&mut self) -> Result<Mended, Failure> {
        let Some(client) = self.door.client() else {
            let holder = match self.ask(Ask::About)? {
                Answer::About(about) => about.holder,
                other => return Err(commands::unexpected(&other)),
            };
            let message = format!(
                "the store is in use by {holder}; unmount it first (fusermount3 -u MOUNTPOINT), then run \
                 daos filesystem check --repair --embedded {}",
                self.path.display()
            );
            return Err(Failure::new(FailureKind::InUse, message));
        };
        let mut mended = match self.ask(Ask::Check { repair: true })? {
            Answer::Checked(report) => Mended { done: report.mended, undone: report.unmended },
            other => return Err(commands::unexpected(&other)),
        };
        let all = block_on(repair_all(client, &mut mended));
        all.map_err(|e| Failure::new(kind(&e), e.to_string()))?;
        Ok(mended)
    }

    /// Another process holds the store, and serves users meanwhile.
    pub fn is_mounted(&self) -> bool {
        self.door.is_daemon()
    }

    /// As [`Store::whose`], with pool and container before it.
    pub fn whose_in_full(&mut self, number: u16, object: [u64; 2]) -> Result<String, Failure> {
        let whose = self.whose(number, object)?;
        let pools = match self.ask(Ask::PoolList)? {
            Answer::Pools(pools) => pools,
            other => return Err(commands::unexpected(&other)),
        };
        for pool in pools {
            let containers = match self.ask(Ask::ContainerList { pool: pool.uuid.to_string() })? {
                Answer::Containers(containers) => containers,
                other => return Err(commands::unexpected(&other)),
            };
            if let Some(found) = containers.iter().find(|entry| entry.number == number) {
                return Ok(format!("{}/{}: {whose}", pool.label, found.label));
            }
        }
        Ok(whose)
    }

    /// Whose an object is, in words: its path, if it has one.
    pub fn whose(&mut self, container: u16, object: [u64; 2]) -> Result<String, Failure> {
        let [hi, lo] = object;
        let Some(client) = self.door.client() else {
            let arguments = serde_json::json!({ "container": container, "object": object });
            return match self.ask(Ask::Filesystem { verb: "whose".into(), arguments }) {
                Ok(Answer::Filesystem(value)) => {
                    Ok(value["whose"].as_str().unwrap_or("a file").to_owned())
                }
                Ok(other) => Err(commands::unexpected(&other)),
                // The holder has mounted nothing.
                Err(failure) if failure.kind == FailureKind::Unsupported => {
                    Ok(format!("object {hi}.{lo} of container {container}"))
                }
                Err(failure) => Err(failure),
            };
        };
        let whose = async {
            for pool in client.pools().await? {
                let pool = client.pool(&pool.id.0.to_string()).await?;
                let found = pool.containers().await?.into_iter().find(|c| c.id.0 == container);
                if let Some(info) = found {
                    let container = pool.container(&info.uuid.to_string()).await?;
                    let whose = dfs::whose(&container, daos_types::ObjectId { hi, lo }).await?;
                    return Ok(whose.to_string());
                }
            }
            Ok(format!("object {hi}.{lo} of container {container}"))
        };
        block_on(whose).map_err(|e: dfs::Error| Failure::new(kind(&e), e.to_string()))
    }

    pub fn close(self) -> Result<(), Failure> {
        self.door.close().map_err(|e| status::of_start(&e))
    }
}

/// A filesystem that was checked.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct CheckedFilesystem {
    pub pool: String,
    pub container: String,
    pub report: dfs::Report,
}

/// What a repair has done, and what it could not do.
pub struct Mended {
    pub done: Vec<String>,
    pub undone: Vec<String>,
}

async fn repair_all(client: daos_client::Client, mended: &mut Mended) -> dfs::Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos() as u64);
    for pool in client.pools().await? {
        let pool = client.pool(&pool.id.0.to_string()).await?;
        for info in pool.containers().await? {
            let container = pool.container(&info.uuid.to_string()).await?;
            match dfs::repair(&container, now).await {
                Err(dfs::Error::NotFormatted) => {}
                Err(error) => {
                    mended.undone.push(format!("{}/{}: {error}", pool.label(), info.label));
                }
                Ok(repaired) => {
                    let all = repaired.mended.into_iter();
                    mended
                        .done
                        .extend(all.map(|what| format!("{}/{}: {what}", pool.label(), info.label)));
                }
            }
        }
    }
    Ok(())
}

async fn check_all(client: daos_client::Client) -> dfs::Result<Vec<CheckedFilesystem>> {
    let mut checked = Vec::new();
    for pool in client.pools().await? {
        let pool = client.pool(&pool.id.0.to_string()).await?;
        for container in pool.containers().await? {
            let label = container.label;
            let container = pool.container(&container.uuid.to_string()).await?;
            let report = match dfs::check(&container).await {
                Ok(Some(report)) => report,
                Ok(None) => continue,
                // What else there is to say of the store is said.
                Err(error) if error.is_damage() => {
                    let findings = vec![format!("it cannot be checked: {error}")];
                    dfs::Report { findings, ..dfs::Report::default() }
                }
                Err(error) => return Err(error),
            };
            checked.push(CheckedFilesystem { pool: pool.label().into(), container: label, report });
        }
    }
    Ok(checked)
}

fn kind(error: &dfs::Error) -> FailureKind {
    match error {
        dfs::Error::Damaged { .. } => FailureKind::Damaged,
        dfs::Error::Engine(error) => Failure::from(error.clone()).kind,
        _ => FailureKind::Failed,
    }
}

fn store_of(path: &Path) -> Result<(PathBuf, Option<(u32, u32)>), Failure> {
    let shown = path.display();
    if let Some(mount) = mounts::containing(path).filter(mounts::Mount::is_dfuse) {
        return Ok((mount.source, Some(mount.device)));
    }
    match std::fs::metadata(path) {
        Ok(_) => Ok((path.to_path_buf(), None)),
        Err(e) => Err(Failure::new(FailureKind::NotFound, format!("{shown}: {e}"))),
    }
}

/// The store of a command that names its container by a path: the one that is mounted there; else the named or mounted one.
pub fn store_by_path(path: &Path, named: Option<&PathBuf>) -> Option<PathBuf> {
    let near = path.ancestors().find(|a| !a.as_os_str().is_empty() && a.exists());
    let mount = mounts::containing(near.unwrap_or(Path::new("."))).filter(mounts::Mount::is_dfuse);
    named.cloned().or_else(|| mount.map(|mount| mount.source))
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
