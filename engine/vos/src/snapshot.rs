//! Snapshots: made of now, listed, destroyed. The history that they keep is swept in the background.

use std::ops::ControlFlow;

use daos_types::rpc::{Reply, SnapshotInfo};
use daos_types::{ContainerId, Epoch, Error, Noun, Result};

use crate::btree::Tree;
use crate::container::{SNAPSHOTS_MAX, snapshot_key, snapshots_prefix};
use crate::kv::Kv;
use crate::pages::{Abort, Pages};
use crate::roots::Roots;
use crate::store::{Claim, Tx, TxOptions, View};
use crate::vos::Vos;

impl Roots {
    /// The snapshots of a container, oldest first.
    pub fn snapshots<P: Pages + ?Sized>(
        &self,
        pages: &P,
        id: ContainerId,
    ) -> Result<Vec<SnapshotInfo>, Abort> {
        let prefix = snapshots_prefix(id);
        let mut found = Vec::new();
        self.containers.view(pages).scan(&prefix, &mut |key, value| {
            let Some(epoch) = key.strip_prefix(&prefix) else { return ControlFlow::Break(()) };
            let epoch = u64::from_be_bytes(epoch.try_into().expect("snapshots have 8-byte epochs"));
            let name = value.split_first().and_then(|(named, name)| {
                (*named == 1).then(|| String::from_utf8_lossy(name).into_owned())
            });
            found.push(SnapshotInfo { epoch: Epoch(epoch), name });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Is there a snapshot of this epoch?
    pub fn has_snapshot<P: Pages + ?Sized>(
        &self,
        pages: &P,
        id: ContainerId,
        epoch: Epoch,
    ) -> Result<bool, Abort> {
        Ok(self.containers.value(pages, &snapshot_key(id, epoch))?.is_some())
    }
}

impl Vos {
    /// The snapshot's epoch is its transaction's: what came before is in it, what comes after is not.
    pub(crate) async fn snapshot_create(
        &self,
        id: ContainerId,
        name: Option<String>,
    ) -> Result<Reply> {
        let create = |tx: &mut Tx<'_>| {
            let mut record = self.roots.container(tx, id)?;
            let there = self.roots.snapshots(tx, id)?;
            if name.is_some() && there.iter().any(|snapshot| snapshot.name == name) {
                return Err(Error::Exists(Noun::Snapshot).into());
            }
            if there.len() >= SNAPSHOTS_MAX {
                let max = SNAPSHOTS_MAX as u64;
                return Err(Error::TooLarge { what: "number of snapshots", max }.into());
            }
            if record.history.is_none() {
                record.history = Some(Tree::create(tx)?);
            }
            let epoch = tx.epoch();
            record.newest_snapshot = epoch;
            self.roots.put_container(tx, id, &record)?;
            let value = match &name {
                Some(name) => [&[1], name.as_bytes()].concat(),
                None => vec![0],
            };
            self.roots.containers.put(tx, &snapshot_key(id, epoch), &value)?;
            Ok(epoch)
        };
        let done = self.store.transact(TxOptions::default(), create).await?;
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Snapshot(SnapshotInfo { epoch: done.value, name: name.clone() }))
    }

    pub(crate) async fn snapshot_destroy(&self, id: ContainerId, epoch: Epoch) -> Result<Reply> {
        let destroy = |tx: &mut Tx<'_>| {
            let mut record = self.roots.container(tx, id)?;
            if !self.roots.containers.remove(tx, &snapshot_key(id, epoch))? {
                return Err(Error::NonExistent(Noun::Snapshot).into());
            }
            let left = self.roots.snapshots(tx, id)?;
            record.newest_snapshot = left.last().map_or(Epoch::ZERO, |newest| newest.epoch);
            self.roots.remove_losses(tx, id, left.first().map(|oldest| oldest.epoch))?;
            record.sweep_due = true;
            self.roots.put_container(tx, id, &record)
        };
        let options = TxOptions { claim: Claim::GiveBack, ..TxOptions::default() };
        let done = self.store.transact(options, destroy).await?;
        self.sweeps.borrow_mut().remove(&id);
        self.background.notify_all();
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Done)
    }

    pub(crate) async fn snapshot_list(&self, id: ContainerId) -> Result<Reply> {
        let list = |pages: &View<'_>| {
            self.roots.container(pages, id)?;
            self.roots.snapshots(pages, id)
        };
        let (snapshots, lsn) = self.store.view(list).await?;
        self.store.acknowledged(lsn).await?;
        Ok(Reply::Snapshots(snapshots))
    }
}
