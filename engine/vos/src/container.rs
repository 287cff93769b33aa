//! Containers: their records, and the requests that make, list and destroy them.
//!
//! # On disk
//! The container table; FORMAT.md, "Container table":
//! ```text
//! number (2, big-endian) 00              -> pool (16) uuid (16) created (8) objects (8) stored bytes (8)
//!                                           newest snapshot (8) history root (4) flags (1)
//!                                           with a quota: bytes (8) inodes (8); label
//! number (2, big-endian) 01 epoch (8, big-endian) -> has a name (1), name          a snapshot
//! number (2, big-endian) 02 name         -> value                                        an attribute
//! number (2, big-endian) 03 ...          -> what snapshots have lost: loss.rs
//! ```

use std::ops::ControlFlow;

use daos_types::rpc::{ContainerInfo, ContainerUsage, Quota, Reply};
use daos_types::{ContainerId, Epoch, Error, Noun, PoolId, Result};
use uuid::Uuid;

use crate::btree::Tree;
use crate::ground::STRANGE;
use crate::kv::{Kv, KvMut};
use crate::pages::{Abort, BucketId, Pages, PagesMut};
use crate::reclaim::Contents;
use crate::roots::Roots;
use crate::store::{Claim, Tx, TxOptions};
use crate::vos::Vos;

const RECORD: u8 = 0;
const SNAPSHOT: u8 = 1;
const COUNTERS_AT: usize = 40;
const FLAGS_AT: usize = 68;
const QUOTA_AT: usize = 69;
const SWEEP_DUE: u8 = 1;
const HAS_QUOTA: u8 = 2;
/// Most snapshots of a container: their records go in the transaction that destroys it.
pub(crate) const SNAPSHOTS_MAX: usize = 1024;

/// A container's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerRecord {
    pub pool: PoolId,
    pub uuid: Uuid,
    pub created: Epoch,
    pub objects: u64,
    pub stored_bytes: u64,
    /// 0: there is none.
    pub newest_snapshot: Epoch,
    /// `None` until the first snapshot.
    pub history: Option<Tree>,
    /// The history holds records that no snapshot can see.
    pub sweep_due: bool,
    pub quota: Quota,
    pub label: String,
}

impl ContainerRecord {
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let uuid = |at: usize| Some(Uuid::from_bytes(bytes.get(at..at + 16)?.try_into().ok()?));
        let root = u32::from_le_bytes(bytes.get(64..68)?.try_into().ok()?);
        let flags = *bytes.get(FLAGS_AT)?;
        let (quota, label_at) = match flags & HAS_QUOTA {
            0 => (Quota::default(), QUOTA_AT),
            _ => {
                let (bytes, inodes) = (number(QUOTA_AT)?, number(QUOTA_AT + 8)?);
                (Quota { bytes, inodes }, QUOTA_AT + 16)
            }
        };
        Some(Self {
            pool: PoolId(uuid(0)?),
            uuid: uuid(16)?,
            created: Epoch(number(32)?),
            objects: number(COUNTERS_AT)?,
            stored_bytes: number(COUNTERS_AT + 8)?,
            newest_snapshot: Epoch(number(56)?),
            history: (root != 0).then_some(Tree { root: BucketId(root) }),
            sweep_due: flags & SWEEP_DUE != 0,
            quota,
            label: String::from_utf8(bytes.get(label_at..)?.to_vec()).ok()?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(QUOTA_AT + 16 + self.label.len());
        out.extend_from_slice(self.pool.0.as_bytes());
        out.extend_from_slice(self.uuid.as_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&self.objects.to_le_bytes());
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out.extend_from_slice(&self.newest_snapshot.0.to_le_bytes());
        let root = self.history.map_or(0, |tree| tree.root.0);
        out.extend_from_slice(&root.to_le_bytes());
        let has_quota = self.quota != Quota::default();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(flag(self.sweep_due, SWEEP_DUE) | flag(has_quota, HAS_QUOTA));
        if has_quota {
            out.extend_from_slice(&self.quota.bytes.to_le_bytes());
            out.extend_from_slice(&self.quota.inodes.to_le_bytes());
        }
        out.extend_from_slice(self.label.as_bytes());
        out
    }

    pub fn info(&self, id: ContainerId) -> ContainerInfo {
        let label = self.label.clone();
        ContainerInfo { id, uuid: self.uuid, label, created: self.created }
    }
}

pub(crate) fn record_key(id: ContainerId) -> [u8; 3] {
    let [high, low] = id.0.to_be_bytes();
    [high, low, RECORD]
}

pub(crate) fn snapshot_key(id: ContainerId, epoch: Epoch) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], &[SNAPSHOT], &epoch.0.to_be_bytes()].concat()
}

/// Begins the keys of a container's snapshots.
pub(crate) fn snapshots_prefix(id: ContainerId) -> [u8; 3] {
    let [high, low] = id.0.to_be_bytes();
    [high, low, SNAPSHOT]
}

impl Roots {
    pub fn has_container<P: Pages + ?Sized>(
        &self,
        pages: &P,
        id: ContainerId,
    ) -> Result<bool, Abort> {
        Ok(self.containers.value(pages, &record_key(id))?.is_some())
    }

    /// The record of a container that there must be.
    pub fn container<P: Pages + ?Sized>(
        &self,
        pages: &P,
        id: ContainerId,
    ) -> Result<ContainerRecord, Abort> {
        let value = self.containers.value(pages, &record_key(id))?;
        let value = value.ok_or(Error::NonExistent(Noun::Container))?;
        ContainerRecord::decode(value).ok_or_else(|| STRANGE.into())
    }

    pub fn put_container<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        id: ContainerId,
        record: &ContainerRecord,
    ) -> Result<(), Abort> {
        self.containers.put(pages, &record_key(id), &record.encode())
    }

    /// Writes a container's counters only.
    pub fn set_counters<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        id: ContainerId,
        (objects, stored_bytes): (u64, u64),
    ) -> Result<(), Abort> {
        let bytes = [objects.to_le_bytes(), stored_bytes.to_le_bytes()].concat();
        self.containers.edit(pages).patch(&record_key(id), COUNTERS_AT, &bytes)
    }

    /// Every container of the store.
    pub fn all_containers<P: Pages + ?Sized>(
        &self,
        pages: &P,
    ) -> Result<Vec<(ContainerId, ContainerRecord)>, Abort> {
        let mut found = Vec::new();
        let mut strange = false;
        self.containers.view(pages).scan(&[0], &mut |key, value| {
            if let [high, low, RECORD] = *key {
                match ContainerRecord::decode(value) {
                    Some(record) => {
                        found.push((ContainerId(u16::from_be_bytes([high, low])), record));
                    }
                    None => strange = true,
                }
            }
            ControlFlow::Continue(())
        })?;
        if strange { Err(STRANGE.into()) } else { Ok(found) }
    }

    pub fn container_in<P: Pages + ?Sized>(
        &self,
        pages: &P,
        pool: PoolId,
        id: ContainerId,
    ) -> Result<ContainerRecord, Abort> {
        self.pool(pages, pool)?;
        let record = self.container(pages, id)?;
        let is_there = record.pool == pool;
        is_there.then_some(record).ok_or_else(|| Error::NonExistent(Noun::Container).into())
    }
}

impl Vos {
    pub(crate) async fn container_create(
        &self,
        pool: PoolId,
        info: ContainerInfo,
    ) -> Result<Reply> {
        let create = |tx: &mut Tx<'_>| self.create_container(tx, pool, &info);
        let done = self.store.transact(TxOptions::default(), create).await?;
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Container(done.value))
    }

    fn create_container(
        &self,
        tx: &mut Tx<'_>,
        pool: PoolId,
        info: &ContainerInfo,
    ) -> Result<ContainerInfo, Abort> {
        let roots = &self.roots;
        roots.pool(tx, pool)?;
        let taken = |(id, there): &(ContainerId, ContainerRecord)| {
            *id == info.id
                || (there.pool == pool && there.label == info.label)
                || there.uuid == info.uuid
        };
        if roots.all_containers(tx)?.iter().any(taken) {
            return Err(Error::Exists(Noun::Container).into());
        }
        let last = roots.last_container(tx)?;
        let id = match info.id {
            ContainerId(0) => ContainerId(last.0.checked_add(1).ok_or(Error::NoSpace)?),
            id if roots.reclaim.holds_container(tx, id)? => {
                return Err(Error::Exists(Noun::Container).into());
            }
            id => id,
        };
        if id > last {
            roots.set_last_container(tx, id)?;
        }
        let record = ContainerRecord {
            pool,
            uuid: info.uuid,
            created: tx.epoch(),
            objects: 0,
            stored_bytes: 0,
            newest_snapshot: Epoch::ZERO,
            history: None,
            sweep_due: false,
            quota: Quota::default(),
            label: info.label.clone(),
        };
        roots.put_container(tx, id, &record)?;
        Ok(record.info(id))
    }

    pub(crate) async fn container_destroy(&self, pool: PoolId, id: ContainerId) -> Result<Reply> {
        let destroy = |tx: &mut Tx<'_>| {
            let record = self.roots.container_in(tx, pool, id)?;
            let containers = self.roots.containers;
            containers.remove(tx, &record_key(id))?;
            let snapshots =
                containers.edit(tx).remove_prefix(&snapshots_prefix(id), SNAPSHOTS_MAX + 1)?;
            assert!(snapshots.len() <= SNAPSHOTS_MAX, "a container has at most {SNAPSHOTS_MAX}");
            self.roots.remove_attributes(tx, id)?;
            self.roots.remove_losses(tx, id, None)?;
            if let Some(history) = record.history {
                self.roots.reclaim.add_trees(tx, Contents::History, &[history])?;
            }
            self.roots.reclaim.add_container(tx, id)
        };
        let options = TxOptions { claim: Claim::GiveBack, ..TxOptions::default() };
        let done = self.store.transact(options, destroy).await?;
        self.background.notify_all();
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Done)
    }

    pub(crate) async fn container_list(&self, pool: PoolId) -> Result<Reply> {
        let list = |pages: &crate::store::View<'_>| {
            self.roots.pool(pages, pool)?;
            let all = self.roots.all_containers(pages)?.into_iter();
            let here = all.filter(|(_, record)| record.pool == pool);
            Ok(here.map(|(id, record)| record.info(id)).collect())
        };
        let (infos, lsn) = self.store.view(list).await?;
        self.store.acknowledged(lsn).await?;
        Ok(Reply::Containers(infos))
    }

    pub(crate) async fn container_query(&self, pool: PoolId, id: ContainerId) -> Result<Reply> {
        let query = |pages: &crate::store::View<'_>| {
            let record = self.roots.container_in(pages, pool, id)?;
            let snapshots = self.roots.snapshots(pages, id)?.len() as u32;
            let (objects, stored_bytes, quota) =
                (record.objects, record.stored_bytes, record.quota);
            Ok(ContainerUsage { info: record.info(id), objects, stored_bytes, snapshots, quota })
        };
        let (usage, lsn) = self.store.view(query).await?;
        self.store.acknowledged(lsn).await?;
        Ok(Reply::ContainerUsage(usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_records_come_back_from_their_bytes() {
        let record = ContainerRecord {
            pool: PoolId(Uuid::from_u128(1)),
            uuid: Uuid::from_u128(2),
            created: Epoch(3),
            objects: 4,
            stored_bytes: 5,
            newest_snapshot: Epoch(6),
            history: Some(Tree { root: BucketId(7) }),
            sweep_due: true,
            quota: Quota::default(),
            label: "home".into(),
        };
        let bytes = record.encode();
        assert_eq!(bytes.len(), QUOTA_AT + 4);
        assert_eq!(ContainerRecord::decode(&bytes).as_ref(), Some(&record));
        assert_eq!(ContainerRecord::decode(&bytes[..QUOTA_AT - 1]), None);
        let limited = ContainerRecord { quota: Quota { bytes: 8, inodes: 9 }, ..record };
        let bytes = limited.encode();
        assert_eq!(bytes.len(), QUOTA_AT + 16 + 4);
        assert_eq!(ContainerRecord::decode(&bytes), Some(limited));
        assert_eq!(ContainerRecord::decode(&bytes[..QUOTA_AT + 15]), None);
    }
}
