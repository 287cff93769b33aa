//! A target that is obviously right: sorted maps, no disk, a whole copy per snapshot.
//!
//! # What may differ from the real store
//! - `stored_bytes` counts exact bytes; the store counts whole blocks where values lie in blocks.
//! - Cursors of hashed dkeys come from a hash of our own, so the order of a listing differs. Compare listings as sets.
//! - Extents are exact to the byte; the store may report written ranges larger, out to block borders.
//! - How many entries fit into `bytes_max`.
//! - Space never ends.

mod array;
mod read;
#[cfg(test)]
mod tests;
mod transact;
mod view;

use std::collections::BTreeMap;

use daos_types::rpc::{
    ATTRIBUTES_MAX, CheckReport, ContainerInfo, ContainerUsage, Fetch, PoolInfo, Quota, Reply,
    Request, SnapshotInfo, TargetUsage, Transact,
};
use daos_types::{ContainerId, Epoch, Error, Noun, PoolId, Result};

use view::View;

/// Answers every request of `rpc.rs`.
pub struct ModelTarget {
    seed: u64,
    clock: Box<dyn FnMut() -> u64>,
    last_epoch: Epoch,
    pools: BTreeMap<PoolId, String>,
    containers: BTreeMap<ContainerId, Container>,
    /// Greatest container number ever given out.
    last_container: u16,
}

struct Container {
    pool: PoolId,
    info: ContainerInfo,
    quota: Quota,
    attributes: BTreeMap<String, String>,
    newest: View,
    snapshots: BTreeMap<Epoch, (Option<String>, View)>,
}

impl ModelTarget {
    /// `seed` is of the dkey hash; `clock` tells nanoseconds since the Unix epoch.
    pub fn new(seed: u64, clock: impl FnMut() -> u64 + 'static) -> Self {
        Self {
            seed,
            clock: Box::new(clock),
            last_epoch: Epoch::ZERO,
            pools: BTreeMap::new(),
            containers: BTreeMap::new(),
            last_container: 0,
        }
    }

    pub fn handle(&mut self, request: Request) -> Result<Reply> {
        request.validate()?;
        match request {
            Request::Transact(request) => self.transact(request),
            Request::Fetch(fetch) => self.fetch(&fetch),
            Request::List(list) => {
                let view = self.container(list.container)?.at(list.epoch)?;
                Ok(Reply::Listed(read::list(view, &list)))
            }
            Request::Extents(asked) => {
                let view = self.container(asked.container)?.at(asked.epoch)?;
                Ok(Reply::Extents(read::extents(view, &asked)))
            }
            Request::Sync => Ok(Reply::Done),
            Request::PoolCreate { id, label } => self.pool_create(id, label),
            Request::PoolList => {
                let pools = self.pools.iter();
                let info =
                    |(id, label): (&PoolId, &String)| PoolInfo { id: *id, label: label.clone() };
                Ok(Reply::Pools(pools.map(info).collect()))
            }
            Request::ContainerCreate { pool, info } => self.container_create(pool, info),
            Request::ContainerDestroy { pool, id } => {
                self.container_in(pool, id)?;
                self.containers.remove(&id);
                Ok(Reply::Done)
            }
            Request::ContainerList { pool } => self.container_list(pool),
            Request::ContainerQuery { pool, id } => {
                Ok(Reply::ContainerUsage(self.container_in(pool, id)?.usage()))
            }
            Request::ContainerSetProps { pool, id, label, quota } => {
                self.set_props(pool, id, label, quota)
            }
            Request::ContainerSetAttributes { container, attributes } => {
                self.set_attributes(container, attributes)
            }
            Request::ContainerAttributes { container } => {
                let attributes = self.container(container)?.attributes.clone();
                Ok(Reply::Attributes(attributes.into_iter().collect()))
            }
            Request::SnapshotCreate { container, name } => self.snapshot_create(container, name),
            Request::SnapshotDestroy { container, epoch } => {
                let snapshots = &mut self.container_mut(container)?.snapshots;
                snapshots.remove(&epoch).ok_or(Error::NonExistent(Noun::Snapshot))?;
                Ok(Reply::Done)
            }
            Request::SnapshotList { container } => {
                let snapshots = self.container(container)?.snapshots.iter();
                let infos = snapshots
                    .map(|(epoch, (name, _))| SnapshotInfo { epoch: *epoch, name: name.clone() });
                Ok(Reply::Snapshots(infos.collect()))
            }
            Request::Query => Ok(Reply::Usage(self.usage())),
            Request::Check { .. } => Ok(Reply::Checked(self.check())),
            // Nothing lies on a device.
            Request::Scrub(_) => Ok(Reply::Scrubbed(daos_types::rpc::Scrubbed::default())),
        }
    }

    fn transact(&mut self, request: Transact) -> Result<Reply> {
        self.container(request.container)?;
        let epoch = self.next_epoch();
        let seed = self.seed;
        let container = self.container_mut(request.container)?;
        let told = request.ops.first().map(daos_types::rpc::Op::object);
        transact::transact(&mut container.newest, seed, epoch, request)?;
        let stored_bytes = told.map(|object| container.newest.stored_bytes(object));
        Ok(Reply::Transacted { epoch, stored_bytes })
    }

    fn fetch(&self, fetch: &Fetch) -> Result<Reply> {
        let view = self.container(fetch.container)?.at(fetch.epoch)?;
        let newest = fetch.epoch == Epoch::MAX;
        let parts = fetch.parts.iter().map(|part| read::fetch(view, self.seed, newest, part));
        Ok(Reply::Fetched(parts.collect::<Result<_>>()?))
    }

    fn pool_create(&mut self, id: PoolId, label: String) -> Result<Reply> {
        if self.pools.contains_key(&id) || self.pools.values().any(|there| *there == label) {
            return Err(Error::Exists(Noun::Pool));
        }
        self.pools.insert(id, label);
        Ok(Reply::Done)
    }

    fn container_create(&mut self, pool: PoolId, mut info: ContainerInfo) -> Result<Reply> {
        self.pool(pool)?;
        let taken = |there: &Container| {
            there.pool == pool && there.info.label == info.label || there.info.uuid == info.uuid
        };
        if self.containers.contains_key(&info.id) || self.containers.values().any(taken) {
            return Err(Error::Exists(Noun::Container));
        }
        if info.id == ContainerId(0) {
            info.id = ContainerId(self.last_container.checked_add(1).ok_or(Error::NoSpace)?);
        }
        self.last_container = self.last_container.max(info.id.0);
        info.created = self.next_epoch();
        let snapshots = BTreeMap::new();
        let container = Container {
            pool,
            info: info.clone(),
            quota: Quota::default(),
            attributes: BTreeMap::new(),
            newest: View::default(),
            snapshots,
        };
        self.containers.insert(info.id, container);
        Ok(Reply::Container(info))
    }

    fn set_props(
        &mut self,
        pool: PoolId,
        id: ContainerId,
        label: Option<String>,
        quota: Option<Quota>,
    ) -> Result<Reply> {
        self.container_in(pool, id)?;
        let others = self.containers.values().filter(|there| there.pool == pool);
        if others
            .clone()
            .any(|there| there.info.id != id && label.as_ref() == Some(&there.info.label))
        {
            return Err(Error::Exists(Noun::Container));
        }
        let container = self.container_mut(id)?;
        container.info.label = label.unwrap_or_else(|| container.info.label.clone());
        container.quota = quota.unwrap_or(container.quota);
        Ok(Reply::Done)
    }

    fn set_attributes(
        &mut self,
        id: ContainerId,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<Reply> {
        let container = self.container_mut(id)?;
        let mut attributes = container.attributes.clone();
        for (name, value) in changes {
            match value {
                Some(value) => drop(attributes.insert(name, value)),
                None if attributes.remove(&name).is_some() => {}
                None => return Err(Error::NonExistent(Noun::Attribute)),
            }
        }
        if attributes.len() > ATTRIBUTES_MAX {
            let max = ATTRIBUTES_MAX as u64;
            return Err(Error::TooLarge { what: "number of attributes", max });
        }
        container.attributes = attributes;
        Ok(Reply::Done)
    }

    fn container_list(&self, pool: PoolId) -> Result<Reply> {
        self.pool(pool)?;
        let containers = self.containers.values().filter(|container| container.pool == pool);
        Ok(Reply::Containers(containers.map(|container| container.info.clone()).collect()))
    }

    fn snapshot_create(&mut self, id: ContainerId, name: Option<String>) -> Result<Reply> {
        let mut there = self.container(id)?.snapshots.values();
        if name.is_some() && there.any(|(its, _)| *its == name) {
            return Err(Error::Exists(Noun::Snapshot));
        }
        let epoch = self.next_epoch();
        let container = self.container_mut(id)?;
        container.snapshots.insert(epoch, (name.clone(), container.newest.clone()));
        Ok(Reply::Snapshot(SnapshotInfo { epoch, name }))
    }

    fn usage(&self) -> TargetUsage {
        let used: u64 =
            self.containers.values().map(|container| container.usage().stored_bytes).sum();
        let capacity = 1 << 40;
        TargetUsage { capacity, free: capacity - used, ..TargetUsage::default() }
    }

    fn check(&self) -> CheckReport {
        let views = self.containers.values().map(|container| &container.newest);
        let objects = views.clone().map(|view| view.records.len() as u64).sum();
        let keys =
            views.flat_map(|view| view.dkeys.values()).map(|held| held.akeys.len() as u64).sum();
        CheckReport { objects, keys, ..CheckReport::default() }
    }

    fn next_epoch(&mut self) -> Epoch {
        self.last_epoch = Epoch((self.clock)().max(self.last_epoch.0 + 1));
        self.last_epoch
    }

    fn pool(&self, id: PoolId) -> Result<()> {
        self.pools.get(&id).map(|_| ()).ok_or(Error::NonExistent(Noun::Pool))
    }

    fn container_in(&self, pool: PoolId, id: ContainerId) -> Result<&Container> {
        self.pool(pool)?;
        let container = self.container(id)?;
        if container.pool == pool {
            Ok(container)
        } else {
            Err(Error::NonExistent(Noun::Container))
        }
    }

    fn container(&self, id: ContainerId) -> Result<&Container> {
        self.containers.get(&id).ok_or(Error::NonExistent(Noun::Container))
    }

    fn container_mut(&mut self, id: ContainerId) -> Result<&mut Container> {
        self.containers.get_mut(&id).ok_or(Error::NonExistent(Noun::Container))
    }
}

impl Container {
    fn at(&self, epoch: Epoch) -> Result<&View> {
        if epoch == Epoch::MAX {
            return Ok(&self.newest);
        }
        let snapshot = self.snapshots.get(&epoch).ok_or(Error::NonExistent(Noun::Snapshot))?;
        Ok(&snapshot.1)
    }

    fn usage(&self) -> ContainerUsage {
        let values = self.newest.dkeys.values().flat_map(|held| held.akeys.values());
        ContainerUsage {
            info: self.info.clone(),
            objects: self.newest.records.len() as u64,
            stored_bytes: values.map(view::Stored::stored_bytes).sum(),
            snapshots: self.snapshots.len() as u32,
            quota: self.quota,
        }
    }
}
