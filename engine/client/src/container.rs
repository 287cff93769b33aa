//! A container: transactions on it, and reads of it now or at a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{
    ContainerInfo, ContainerUsage, Cursor, ExtentInfo, Extents, Fetch, FetchPart, Fetched, KeyRef,
    List, ListWhat, Listed, ObjectInfo, Reply, Request, SnapshotInfo, Value,
};
use daos_types::{Akey, ContainerId, Dkey, Epoch, Error, ObjectId, Result};

use crate::client::{Client, LEADER, unexpected};
use crate::merge;
use crate::object::Object;
use crate::pool::Pool;
use crate::route::{Needs, TargetIndex, target_of, targets_of};
use crate::transaction::Transaction;

/// A container of a pool, as it is now or as a snapshot holds it. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Container {
    pool: Pool,
    info: Arc<ContainerInfo>,
    /// [`Epoch::MAX`]: now.
    epoch: Epoch,
}

/// Where a listing begins and how much of it comes in one reply.
#[derive(Clone, Debug)]
pub struct Page {
    pub after: Cursor,
    /// At least 1.
    pub entries_max: u32,
    pub bytes_max: u32,
}

impl Container {
    pub(crate) fn new(pool: Pool, info: ContainerInfo) -> Self {
        Self { pool, info: Arc::new(info), epoch: Epoch::MAX }
    }

    #[must_use]
    pub fn id(&self) -> ContainerId {
        self.info.id
    }

    #[must_use]
    pub fn info(&self) -> &ContainerInfo {
        &self.info
    }

    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        self.pool.client()
    }

    /// What reads see: [`Epoch::MAX`] for now, else a snapshot's.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The container as the snapshot of this epoch holds it. Changes through it are refused.
    #[must_use]
    pub fn at(&self, epoch: Epoch) -> Self {
        Self { epoch, ..self.clone() }
    }

    /// The target of a dkey. Keys on one target can change in one transaction.
    #[must_use]
    pub fn target_of(&self, object: ObjectId, dkey: &Dkey) -> TargetIndex {
        target_of(object, dkey, self.client().targets())
    }

    #[must_use]
    pub fn object(&self, id: ObjectId) -> Object {
        Object::new(self.clone(), id)
    }

    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.epoch == Epoch::MAX { Ok(()) } else { Err(Error::ReadOnly) }
    }

    /// Reads several things; the answers in the order of `parts`. What lies on one target is read at one moment.
    pub async fn fetch(&self, parts: Vec<FetchPart>) -> Result<Vec<Fetched>> {
        let targets = self.client().targets();
        if targets == 1 {
            return self.fetch_from(TargetIndex(0), parts).await;
        }
        let mut plan: BTreeMap<TargetIndex, Vec<usize>> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            for target in Needs::of_part(part).targets(targets) {
                plan.entry(target).or_default().push(index);
            }
        }
        let ask = |(target, indices): (&TargetIndex, &Vec<usize>)| {
            let parts = indices.iter().map(|index| parts[*index].clone()).collect();
            (*target, self.fetch_request(parts))
        };
        let replies = self.client().call_some(plan.iter().map(ask).collect()).await?;
        let mut answers: Vec<Vec<Fetched>> = parts.iter().map(|_| Vec::new()).collect();
        for (indices, reply) in plan.values().zip(replies) {
            for (index, fetched) in indices.iter().zip(fetched(reply)?) {
                answers[*index].push(fetched);
            }
        }
        answers.into_iter().map(merge::fetched).collect()
    }

    async fn fetch_from(&self, target: TargetIndex, parts: Vec<FetchPart>) -> Result<Vec<Fetched>> {
        fetched(self.client().call(target, self.fetch_request(parts)).await?)
    }

    fn fetch_request(&self, parts: Vec<FetchPart>) -> Request {
        Request::Fetch(Fetch { container: self.info.id, epoch: self.epoch, parts })
    }

    async fn fetch_one(&self, part: FetchPart) -> Result<Fetched> {
        let mut answers = self.fetch(vec![part]).await?;
        match answers.pop() {
            Some(answer) if answers.is_empty() => Ok(answer),
            _ => Err(SHAPE),
        }
    }

    /// A single value, if it is there.
    pub async fn fetch_single(&self, key: KeyRef) -> Result<Option<Bytes>> {
        match self.fetch_one(FetchPart::Single(key)).await? {
            Fetched::Single(value) => Ok(value),
            _ => Err(SHAPE),
        }
    }

    /// `len` bytes of an array from `offset`; zeros where there are none.
    pub async fn fetch_array(&self, key: KeyRef, offset: u64, len: u64) -> Result<Bytes> {
        match self.fetch_one(FetchPart::Array { key, offset, len }).await? {
            Fetched::Array(data) => Ok(data),
            _ => Err(SHAPE),
        }
    }

    /// Akeys that begin with `prefix`, with their values; arrays their first `array_bytes_max` bytes.
    pub async fn fetch_akeys(
        &self,
        object: ObjectId,
        dkey: Dkey,
        prefix: Bytes,
        array_bytes_max: u64,
    ) -> Result<Vec<(Akey, Value)>> {
        match self.fetch_one(FetchPart::Akeys { object, dkey, prefix, array_bytes_max }).await? {
            Fetched::Akeys(akeys) => Ok(akeys),
            _ => Err(SHAPE),
        }
    }

    /// An object's record, if it has one; `akey` names the array whose end is told.
    pub async fn fetch_object(&self, object: ObjectId, akey: Akey) -> Result<Option<ObjectInfo>> {
        match self.fetch_one(FetchPart::Object { object, akey }).await? {
            Fetched::Object(info) => Ok(info),
            _ => Err(SHAPE),
        }
    }

    /// Dkeys in their order, each with the values of those of `akeys` that it has.
    pub async fn list_dkeys(
        &self,
        object: ObjectId,
        akeys: Vec<Akey>,
        array_bytes_max: u64,
        page: Page,
    ) -> Result<Listed> {
        let targets = targets_of(object, self.client().targets()).collect();
        let entries_max = page.entries_max;
        let replies =
            self.list(ListWhat::Dkeys { object, akeys, array_bytes_max }, page, targets).await?;
        Ok(merge::dkeys(replies, entries_max))
    }

    /// Ids of the container's objects, in the order of their bytes.
    pub async fn list_objects(&self, page: Page) -> Result<Listed> {
        let targets = (0..self.client().targets()).map(TargetIndex).collect();
        let entries_max = page.entries_max;
        let replies = self.list(ListWhat::Objects, page, targets).await?;
        Ok(merge::objects(replies, entries_max))
    }

    async fn list(
        &self,
        what: ListWhat,
        page: Page,
        targets: Vec<TargetIndex>,
    ) -> Result<Vec<Listed>> {
        let list = List {
            container: self.info.id,
            epoch: self.epoch,
            what,
            after: page.after,
            entries_max: page.entries_max,
            bytes_max: page.bytes_max,
        };
        let requests =
            targets.into_iter().map(|target| (target, Request::List(list.clone()))).collect();
        let listed = |reply| match reply {
            Reply::Listed(listed) => Ok(listed),
            other => unexpected(&other),
        };
        self.client().call_some(requests).await?.into_iter().map(listed).collect()
    }

    /// Written and allocated ranges of an array from (`dkey`, `offset`) on, at most `extents_max` of them.
    pub async fn extents(
        &self,
        object: ObjectId,
        akey: Akey,
        from: (u64, u64),
        extents_max: u32,
    ) -> Result<Vec<ExtentInfo>> {
        let (container, epoch) = (self.info.id, self.epoch);
        let (dkey, offset) = from;
        let request = Extents { container, epoch, object, akey, dkey, offset, extents_max };
        let targets = targets_of(object, self.client().targets());
        let requests = targets.map(|target| (target, Request::Extents(request.clone()))).collect();
        let extents = |reply| match reply {
            Reply::Extents(extents) => Ok(extents),
            other => unexpected(&other),
        };
        let replies = self.client().call_some(requests).await?;
        let replies = replies.into_iter().map(extents).collect::<Result<_>>()?;
        Ok(merge::extents(replies, extents_max))
    }

    pub async fn query(&self) -> Result<ContainerUsage> {
        self.pool.container_query(&self.info.uuid.to_string()).await
    }

    /// Attributes are the business of people and mounts, not of targets: the first one keeps them.
    pub async fn attributes(&self) -> Result<Vec<(String, String)>> {
        let request = Request::ContainerAttributes { container: self.info.id };
        match self.client().call(LEADER, request).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            other => unexpected(&other),
        }
    }

    /// Sets attributes, and deletes those without a value; all or none.
    pub async fn set_attributes(&self, attributes: Vec<(String, Option<String>)>) -> Result<()> {
        let request = Request::ContainerSetAttributes { container: self.info.id, attributes };
        self.client().call(LEADER, request).await.map(drop)
    }

    /// A snapshot of now.
    pub async fn snapshot_create(&self, name: Option<String>) -> Result<SnapshotInfo> {
        let request = Request::SnapshotCreate { container: self.info.id, name };
        match self.client().call(self.snapshot_target()?, request).await? {
            Reply::Snapshot(info) => Ok(info),
            other => unexpected(&other),
        }
    }

    pub async fn snapshot_destroy(&self, epoch: Epoch) -> Result<()> {
        let request = Request::SnapshotDestroy { container: self.info.id, epoch };
        self.client().call(self.snapshot_target()?, request).await.map(drop)
    }

    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let request = Request::SnapshotList { container: self.info.id };
        match self.client().call(self.snapshot_target()?, request).await? {
            Reply::Snapshots(snapshots) => Ok(snapshots),
            other => unexpected(&other),
        }
    }

    /// A snapshot has one epoch on all targets, which needs a protocol between them that comes with the fabric.
    fn snapshot_target(&self) -> Result<TargetIndex> {
        if self.client().targets() == 1 { Ok(TargetIndex(0)) } else { Err(Error::SeveralTargets) }
    }
}

const SHAPE: Error = Error::Invalid("the target answered another shape than the one asked for");

fn fetched(reply: Reply) -> Result<Vec<Fetched>> {
    match reply {
        Reply::Fetched(parts) => Ok(parts),
        other => unexpected(&other),
    }
}
