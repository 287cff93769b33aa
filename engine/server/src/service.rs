//! The pool and container services: what people ask of an engine, whether through its control socket or in its own process.
//!
//! A service is a client of the targets, with the same handles as every other client: so it holds no lock and no state.

use std::path::Path;
use std::sync::Arc;

use daos_client::{Client, Container, Pool, Scrub};
use daos_types::rpc::SnapshotInfo;
use daos_types::{ContainerId, Epoch};
use futures_lite::future::block_on;
use serde_json::Value;

use crate::control::{
    About, Answer, Ask, ContainerDetails, ContainerEntry, Failure, FailureKind, PoolDetails,
    PoolEntry, ScrubStep, SnapshotEntry, unhex,
};
use crate::engine::Running;

type Result<T> = std::result::Result<T, Failure>;

/// What the process that runs an engine knows beyond it. Called on threads that may block.
pub trait Handler: Send + Sync {
    /// How this process uses a container now ("mounted on /mnt/daos"); then it cannot be destroyed.
    fn in_use(&self, container: ContainerId) -> Option<String>;
    /// Keeps a container, or one snapshot of it, out of use for as long as the answer is kept: it is to be destroyed.
    ///
    /// # Errors
    /// How this process uses it now, or is about to.
    fn claim(
        &self,
        container: ContainerId,
        snapshot: Option<Epoch>,
    ) -> std::result::Result<Box<dyn Claim>, String> {
        match self.in_use(container).filter(|_| snapshot.is_none()) {
            Some(how) => Err(how),
            None => Ok(Box::new(())),
        }
    }
    /// Attributes of a container have changed, or it is not there any more.
    fn changed(&self, _container: ContainerId) {}
    /// Answers [`Ask::Filesystem`].
    fn filesystem(&self, verb: &str, arguments: Value) -> Result<Value>;
    /// The process is asked to stop. Returns at once; a process that is stopping already does nothing.
    fn stop(&self);
}

/// What [`Handler::claim`] gives out; it ends when it is dropped.
pub trait Claim {}

impl Claim for () {}

/// A process that only has the engine: nothing is in use, there is no filesystem to ask, and it stops when it is done.
pub struct NoHandler;

impl Handler for NoHandler {
    fn in_use(&self, _container: ContainerId) -> Option<String> {
        None
    }

    fn filesystem(&self, verb: &str, _arguments: Value) -> Result<Value> {
        let message = format!("no filesystem is mounted from here that could answer '{verb}'");
        Err(Failure::new(FailureKind::Unsupported, message))
    }

    fn stop(&self) {}
}

/// Answers what people ask. Clones share the engine.
#[derive(Clone)]
pub struct Services {
    engine: Arc<Running>,
    handler: Arc<dyn Handler>,
}

impl Services {
    pub(crate) fn new(engine: Arc<Running>, handler: Arc<dyn Handler>) -> Self {
        Self { engine, handler }
    }

    pub(crate) fn control_path(&self) -> &Path {
        &self.engine.place.control
    }

    pub(crate) fn stop(&self) {
        self.handler.stop();
    }

    /// Answers one question; blocks until it is answered. Not for an xstream.
    pub fn answer(&self, ask: Ask) -> Result<Answer> {
        match ask {
            Ask::About => Ok(Answer::About(self.about())),
            Ask::Stats => Ok(Answer::Stats(self.engine.stats())),
            Ask::Filesystem { verb, arguments } => {
                self.handler.filesystem(&verb, arguments).map(Answer::Filesystem)
            }
            Ask::Stop => {
                self.handler.stop();
                Ok(Answer::Done)
            }
            ask => block_on(self.answer_from_targets(ask)),
        }
    }

    async fn answer_from_targets(&self, ask: Ask) -> Result<Answer> {
        let client = &self.engine.client;
        match ask {
            Ask::PoolList => {
                let pools = client.pools().await?;
                Ok(Answer::Pools(pools.into_iter().map(PoolEntry::from).collect()))
            }
            Ask::PoolQuery { pool } => {
                self.pool_query(&open_pool(client, &pool).await?).await.map(Answer::Pool)
            }
            Ask::ContainerCreate { pool, label } => {
                let pool = open_pool(client, &pool).await?;
                let created = pool.container_create(&label).await;
                created.map_err(|error| about_container(error, &pool, &label))?;
                self.container_query(&pool, &label).await.map(Answer::Container)
            }
            Ask::ContainerList { pool } => {
                let containers = open_pool(client, &pool).await?.containers().await?;
                Ok(Answer::Containers(containers.into_iter().map(ContainerEntry::from).collect()))
            }
            Ask::ContainerQuery { pool, container } => {
                let pool = open_pool(client, &pool).await?;
                self.container_query(&pool, &container).await.map(Answer::Container)
            }
            Ask::ContainerDestroy { pool, container } => {
                let pool = open_pool(client, &pool).await?;
                self.container_destroy(&pool, &container).await
            }
            Ask::ContainerSetProps { pool, container, label, quota } => {
                let pool = open_pool(client, &pool).await?;
                let name = label.clone().unwrap_or_else(|| container.clone());
                let set = pool.container_set_props(&container, label, quota.map(Into::into)).await;
                set.map_err(|error| match error {
                    daos_types::Error::Exists(_) => about_container(error, &pool, &name),
                    error => about_container(error, &pool, &container),
                })?;
                self.container_query(&pool, &name).await.map(Answer::Container)
            }
            Ask::ContainerAttributes { pool, container } => {
                let container = open_container(client, &pool, &container).await?;
                let attributes = container.attributes().await?;
                Ok(Answer::Attributes(attributes.into_iter().collect()))
            }
            Ask::ContainerSetAttributes { pool, container, attributes } => {
                let container = open_container(client, &pool, &container).await?;
                let set = container.set_attributes(attributes.into_iter().collect()).await;
                set.map_err(|error| match error {
                    daos_types::Error::NonExistent(daos_types::Noun::Attribute) => {
                        let label = &container.info().label;
                        let message = format!(
                            "container '{label}' has no such attribute; `daos container list-attrs` shows those it has"
                        );
                        Failure::new(FailureKind::NotFound, message)
                    }
                    error => error.into(),
                })?;
                self.handler.changed(container.id());
                Ok(Answer::Done)
            }
            Ask::SnapshotCreate { pool, container, name } => {
                let container = open_container(client, &pool, &container).await?;
                let made = container.snapshot_create(name.clone()).await;
                let made = made.map_err(|error| match (error, name) {
                    (daos_types::Error::Exists(_), Some(name)) => {
                        let label = &container.info().label;
                        let message =
                            format!("container '{label}' has a snapshot '{name}' already");
                        Failure::new(FailureKind::Exists, message)
                    }
                    (error, _) => error.into(),
                })?;
                Ok(Answer::Snapshot(made.into()))
            }
            Ask::SnapshotList { pool, container } => {
                let container = open_container(client, &pool, &container).await?;
                let snapshots = container.snapshots().await?;
                Ok(Answer::Snapshots(snapshots.into_iter().map(SnapshotEntry::from).collect()))
            }
            Ask::SnapshotDestroy { pool, container, snapshot } => {
                let container = open_container(client, &pool, &container).await?;
                self.snapshot_destroy(&container, &snapshot).await
            }
            Ask::Check { repair } => Ok(Answer::Checked(client.check(repair).await?.into())),
            Ask::Scrub { place, bytes_max } => {
                let invalid = || Failure::new(FailureKind::Invalid, "a scrub cannot go on there");
                let place = unhex(&place).ok_or_else(invalid)?;
                let mut scrub = Scrub::resume(client.clone(), place)?;
                let step = scrub.step(bytes_max).await?.unwrap_or_default();
                Ok(Answer::Scrubbed(ScrubStep::new(scrub.place(), step)))
            }
            Ask::Sync => {
                client.sync().await?;
                Ok(Answer::Done)
            }
            Ask::About | Ask::Stats | Ask::Filesystem { .. } | Ask::Stop => {
                unreachable!("answered without asking the targets")
            }
        }
    }

    fn about(&self) -> About {
        let config = &self.engine.config;
        About {
            pid: std::process::id(),
            holder: config.holder.clone(),
            path: self.engine.place.path.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            sync: config.sync,
            read_only: config.read_only,
            memory_bytes: config.memory,
            targets: self.engine.client.targets(),
        }
    }

    async fn pool_query(&self, pool: &Pool) -> Result<PoolDetails> {
        let entry = PoolEntry { uuid: pool.id().0, label: pool.label().into() };
        let containers = pool.containers().await?.len();
        let usage = self.engine.client.total_usage().await?;
        Ok(PoolDetails::new(entry, self.engine.client.targets(), containers, usage))
    }

    async fn container_query(&self, pool: &Pool, name: &str) -> Result<ContainerDetails> {
        let usage = pool.container_query(name).await;
        let usage = usage.map_err(|error| about_container(error, pool, name))?;
        let in_use = self.handler.in_use(usage.info.id);
        Ok(ContainerDetails::new(usage, in_use))
    }

    async fn container_destroy(&self, pool: &Pool, name: &str) -> Result<Answer> {
        let usage = pool.container_query(name).await;
        let id = usage.map_err(|error| about_container(error, pool, name))?.info.id;
        let claim = self.handler.claim(id, None).map_err(|how| {
            let message = format!("container '{name}' is {how}; unmount it first");
            Failure::new(FailureKind::InUse, message)
        })?;
        pool.container_destroy(name).await?;
        drop(claim);
        self.handler.changed(id);
        Ok(Answer::Done)
    }

    async fn snapshot_destroy(&self, container: &Container, name: &str) -> Result<Answer> {
        let snapshot = find_snapshot(container, name).await?;
        let _claim = self.handler.claim(container.id(), Some(snapshot.epoch)).map_err(|how| {
            let message = format!("snapshot '{name}' is {how}; unmount it first");
            Failure::new(FailureKind::InUse, message)
        })?;
        container.snapshot_destroy(snapshot.epoch).await?;
        Ok(Answer::Done)
    }
}

async fn open_pool(client: &Client, name: &str) -> Result<Pool> {
    client.pool(name).await.map_err(|error| match error {
        daos_types::Error::NonExistent(_) => {
            let message =
                format!("there is no pool '{name}'; `daos pool list` shows those there are");
            Failure::new(FailureKind::NotFound, message)
        }
        error => error.into(),
    })
}

async fn open_container(client: &Client, pool: &str, name: &str) -> Result<Container> {
    let pool = open_pool(client, pool).await?;
    let found = pool.container(name).await;
    found.map_err(|error| about_container(error, &pool, name))
}

/// The snapshot with this name or epoch.
///
/// # Errors
/// `NotFound` says which there are.
pub async fn find_snapshot(container: &Container, name: &str) -> Result<SnapshotInfo> {
    let epoch = name.parse().ok().map(Epoch);
    let named = |s: &SnapshotInfo| s.name.as_deref() == Some(name);
    let snapshots = container.snapshots().await?;
    let found = snapshots.iter().find(|s| named(s));
    let found = found.or_else(|| snapshots.iter().find(|s| Some(s.epoch) == epoch));
    found.cloned().ok_or_else(|| {
        let label = &container.info().label;
        let message = format!(
            "container '{label}' has no snapshot '{name}'; `daos container list-snap` shows those it has"
        );
        Failure::new(FailureKind::NotFound, message)
    })
}

fn about_container(error: daos_types::Error, pool: &Pool, name: &str) -> Failure {
    use daos_types::Error as E;
    let pool = pool.label();
    match error {
        E::NonExistent(_) => Failure::new(
            FailureKind::NotFound,
            format!(
                "there is no container '{name}' in pool '{pool}'; `daos container list {pool}` shows those there are"
            ),
        ),
        E::Exists(_) => Failure::new(
            FailureKind::Exists,
            format!("pool '{pool}' has a container '{name}' already"),
        ),
        error => error.into(),
    }
}
