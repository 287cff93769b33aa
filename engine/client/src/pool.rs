//! A pool, and the containers in it.

use std::sync::Arc;

use daos_types::rpc::{ContainerInfo, ContainerUsage, PoolInfo, Quota, Reply, Request};
use daos_types::{ContainerId, Epoch, Error, Noun, PoolId, Result, check_label};
use uuid::Uuid;

use crate::client::{Client, LEADER, unexpected};
use crate::container::Container;
use crate::route::TargetIndex;

/// A pool of the system. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Pool {
    client: Client,
    info: Arc<PoolInfo>,
}

impl Pool {
    pub(crate) fn new(client: Client, info: PoolInfo) -> Self {
        Self { client, info: Arc::new(info) }
    }

    #[must_use]
    pub fn id(&self) -> PoolId {
        self.info.id
    }

    #[must_use]
    pub fn label(&self) -> &str {
        &self.info.label
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub async fn containers(&self) -> Result<Vec<ContainerInfo>> {
        match self.client.call(LEADER, Request::ContainerList { pool: self.info.id }).await? {
            Reply::Containers(containers) => Ok(containers),
            other => unexpected(&other),
        }
    }

    /// The container with this label or UUID.
    pub async fn container(&self, name: &str) -> Result<Container> {
        let info = self.find(name).await?;
        // A creation that was cut short is finished here.
        self.spread(&info).await?;
        Ok(Container::new(self.clone(), info))
    }

    /// The container with this label or UUID; made now if there is none.
    pub async fn container_or_create(&self, label: &str) -> Result<Container> {
        match self.container(label).await {
            Err(Error::NonExistent(Noun::Container)) => {}
            found => return found,
        }
        match self.container_create(label).await {
            // Somebody else was faster.
            Err(Error::Exists(Noun::Container)) => self.container(label).await,
            created => created,
        }
    }

    /// Makes a container. The first target allots its number, so a container that it does not know is nowhere.
    pub async fn container_create(&self, label: &str) -> Result<Container> {
        check_label(label)?;
        let info = ContainerInfo {
            id: ContainerId(0),
            uuid: Uuid::new_v4(),
            label: label.to_owned(),
            created: Epoch::ZERO,
        };
        let request = Request::ContainerCreate { pool: self.info.id, info };
        let info = match self.client.call(LEADER, request).await? {
            Reply::Container(info) => info,
            other => return unexpected(&other),
        };
        self.spread(&info).await?;
        Ok(Container::new(self.clone(), info))
    }

    /// Makes the container known to the targets behind the first, where it is not.
    async fn spread(&self, info: &ContainerInfo) -> Result<()> {
        for target in (1..self.client.targets()).map(TargetIndex) {
            let request = Request::ContainerCreate { pool: self.info.id, info: info.clone() };
            match self.client.call(target, request).await {
                Ok(_) | Err(Error::Exists(Noun::Container)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes the container with this label or UUID and all that is in it.
    pub async fn container_destroy(&self, name: &str) -> Result<()> {
        let id = self.find(name).await?.id;
        // The first target last: until then the container is listed and can be destroyed again.
        for target in (0..self.client.targets()).rev().map(TargetIndex) {
            let request = Request::ContainerDestroy { pool: self.info.id, id };
            match self.client.call(target, request).await {
                Err(Error::NonExistent(Noun::Container)) if target != LEADER => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// What the container with this label or UUID holds, on all targets together.
    pub async fn container_query(&self, name: &str) -> Result<ContainerUsage> {
        let id = self.find(name).await?.id;
        let replies =
            self.client.call_each(Request::ContainerQuery { pool: self.info.id, id }).await?;
        let mut total: Option<ContainerUsage> = None;
        for reply in replies {
            let Reply::ContainerUsage(usage) = reply else { return unexpected(&reply) };
            match &mut total {
                None => total = Some(usage),
                Some(total) => {
                    total.objects += usage.objects;
                    total.stored_bytes += usage.stored_bytes;
                }
            }
        }
        Ok(total.expect("a client has a target"))
    }

    /// Changes the label or the quota of the container with this label or UUID, or both.
    pub async fn container_set_props(
        &self,
        name: &str,
        label: Option<String>,
        quota: Option<Quota>,
    ) -> Result<()> {
        let (pool, id) = (self.info.id, self.find(name).await?.id);
        // One after the other: a label that is taken is refused by the first, before another target changes.
        for target in (0..self.client.targets()).map(TargetIndex) {
            let label = label.clone();
            let request = Request::ContainerSetProps { pool, id, label, quota };
            self.client.call(target, request).await?;
        }
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<ContainerInfo> {
        let uuid = Uuid::parse_str(name).ok();
        let named = |info: &ContainerInfo| info.label == name || Some(info.uuid) == uuid;
        let containers = self.containers().await?;
        containers.into_iter().find(named).ok_or(Error::NonExistent(Noun::Container))
    }
}
