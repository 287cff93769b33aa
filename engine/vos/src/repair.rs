//! What a check found, mended as far as it can be: one flipped bit of a bucket is flipped back, what is still unreadable is cut out
//! of its tree with what it held, and then what nothing refers to any more is freed and counts are corrected.
//!
//! # Order
//! Each round ends with another audit, because what one finds hides what is below it. Nothing is freed while any part of a tree
//! cannot be read: what seems to belong to nobody may belong to that.
//!
//! # Not here
//! Names, link counts and what else a filesystem means: `dfs/src/repair.rs`, which runs after this.

use std::ops::RangeInclusive;

use daos_types::rpc::CheckReport;
use daos_types::{ContainerId, Csum, ObjectId, Result};

use crate::btree::Tree;
use crate::check::Audit;
use crate::kv::KvMut;
use crate::loss::{self, Loss};
use crate::object::ObjectKey;
use crate::pages::{Abort, BucketId};
use crate::record::Run;
use crate::store::{BlockAddr, BlockRun, Claim, Tx, TxOptions};
use crate::vos::Vos;

/// Rounds of cutting; each goes a level deeper, or meets damage that was not there before.
const ROUNDS_MAX: usize = 64;
const OPTIONS: TxOptions = TxOptions { claim: Claim::GiveBack, background: true };

/// Whose tree a walk is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The store's own tables, and what is detached: without a root there is nothing.
    #[default]
    Store,
    Object(ObjectKey),
    History(ContainerId),
    /// What was hidden of one object at once, in the history of a container.
    Hidden(ContainerId, ObjectId),
    /// Nobody: it is being taken apart.
    Detached,
}

/// A part of a tree that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub owner: Owner,
    pub tree: Tree,
    pub bucket: BucketId,
    /// A key that leads to the bucket.
    pub low: Vec<u8>,
    /// The first key behind it.
    pub high: Option<Vec<u8>>,
    pub what: String,
    /// Checksums of the bucket: as stored, and of what was there.
    pub sums: (Csum, Csum),
}

impl Lost {
    /// The objects of a container that may have lost something with this.
    fn objects(&self, id: ContainerId) -> Option<RangeInclusive<ObjectId>> {
        let (low, high) = (&self.low, self.high.as_deref());
        match self.owner {
            Owner::Detached => None,
            Owner::Object(key) => (key.container() == id).then(|| key.oid()..=key.oid()),
            Owner::Hidden(of, object) => (of == id).then_some(object..=object),
            Owner::History(of) => (of == id).then(|| loss::objects_of(low, high)),
            Owner::Store => self.objects_in_table(id),
        }
    }

    /// Of a part of the object table, whose keys begin with containers.
    fn objects_in_table(&self, id: ContainerId) -> Option<RangeInclusive<ObjectId>> {
        let prefix = id.0.to_be_bytes();
        let (mut objects, after) = (loss::all_objects(), crate::kv::after_prefix(&prefix));
        let behind = after.is_some_and(|after| self.low >= after);
        if behind || self.high.as_ref().is_some_and(|high| high[..] < prefix[..]) {
            return None;
        }
        if let Some(low) = self.low.strip_prefix(&prefix) {
            objects = loss::object_of(low)..=*objects.end();
        }
        if let Some(high) = self.high.as_ref().and_then(|high| high.strip_prefix(&prefix)) {
            objects = *objects.start()..=loss::object_of(high);
        }
        Some(objects)
    }
}

/// What an audit found that can be mended without knowing more.
#[derive(Default)]
pub(crate) struct Mendable {
    pub lost: Vec<Lost>,
    /// Something in the trees was not read, or made no sense: what seems to be missing, or to belong to nobody, may be in it.
    pub unread: bool,
    pub leaked: Vec<Run>,
    pub counters: Vec<(ContainerId, (u64, u64))>,
    /// Objects whose stored bytes are wrong, with the right ones.
    pub sizes: Vec<(ObjectKey, u64)>,
    /// Objects whose pairs are in the object table without a record that says so.
    pub orphans: Vec<ObjectKey>,
    /// Dkeys that have lost either their name or their values: where they begin.
    pub broken: Vec<(ObjectKey, Vec<u8>)>,
}

impl Mendable {
    fn is_read_whole(&self) -> bool {
        self.lost.is_empty() && !self.unread
    }
}

impl Vos {
    /// Mends what can be mended; the report is of the first audit, and of what was done.
    pub(crate) async fn check_and_repair(&self) -> Result<CheckReport> {
        let (mut report, mut found) = self.audit().await?;
        let mut done = Vec::new();
        self.store.mend_fixed_places().await?;
        for _ in 0..ROUNDS_MAX {
            if found.lost.is_empty() {
                break;
            }
            let mut progress = false;
            // Without a part of the container table its containers seem to be destroyed, and their objects to be taken apart.
            let containers = self.roots.containers;
            let containers_lost = found.lost.iter().any(|lost| lost.tree == containers);
            for lost in &found.lost {
                let unsure = containers_lost || found.unread && lost.owner == Owner::Detached;
                if unsure && lost.tree != containers {
                    continue;
                }
                let (mended, how) = self.mend_lost(lost).await?;
                progress |= mended;
                done.push(format!("{}: bucket {}: {how}", lost.what, lost.bucket.0));
            }
            if !progress {
                break;
            }
            found = self.audit().await?.1;
        }
        if !found.orphans.is_empty() && found.is_read_whole() {
            for key in std::mem::take(&mut found.orphans) {
                let spread = |tx: &mut Tx<'_>| {
                    let object = self.roots.objects.object(key.container(), key.oid(), key.shard());
                    object.spread(tx)
                };
                self.store.transact(OPTIONS, spread).await?;
                done.push(format!("object {}: it has a record again", key.oid()));
            }
            // Only now are its dkeys looked at.
            found = self.audit().await?.1;
        }
        let broken = if found.is_read_whole() { std::mem::take(&mut found.broken) } else { vec![] };
        for (key, place) in broken {
            let remove = |tx: &mut Tx<'_>| {
                let object = self.roots.objects.object(key.container(), key.oid(), key.shard());
                let end = crate::kv::after_prefix(&place);
                object.edit(tx).remove_range(&place, end.as_deref(), usize::MAX)
            };
            self.store.transact(OPTIONS, remove).await?;
            done.push(format!("object {}: the rest of a dkey was removed", key.oid()));
        }
        if !done.is_empty() {
            found = self.audit().await?.1;
        }
        self.correct(&found, &mut done).await?;
        self.store.force().await?;
        report.findings.extend(done);
        Ok(report)
    }

    async fn mend_lost(&self, lost: &Lost) -> Result<(bool, &'static str)> {
        if self.store.mend_home(lost.bucket).await? {
            return Ok((true, "a flipped bit was put right"));
        }
        if lost.bucket != lost.tree.root {
            let cut = |tx: &mut Tx<'_>| {
                self.note_loss(tx, lost)?;
                lost.tree.cut(tx, &lost.low, lost.bucket)
            };
            return Ok(match self.store.transact(OPTIONS, cut).await?.value {
                true => (true, "it was cut out of its tree, and what it held is lost"),
                false => (true, "it is not there any more"),
            });
        }
        match lost.owner {
            Owner::Object(key) => {
                let forget = |tx: &mut Tx<'_>| {
                    self.note_loss(tx, lost)?;
                    let object = self.roots.objects.object(key.container(), key.oid(), key.shard());
                    object.take(tx).map(drop)
                };
                self.store.transact(OPTIONS, forget).await?;
                Ok((true, "it was the root of the object, which is lost"))
            }
            Owner::History(_) | Owner::Hidden(..) => {
                // Not without one: a container with a snapshot has a history.
                self.store.transact(OPTIONS, |tx: &mut Tx<'_>| self.note_loss(tx, lost)).await?;
                self.store.force().await?;
                self.store.empty_node(lost.bucket).await?;
                Ok((true, "it was the root of a history: older snapshots do not show what it held"))
            }
            Owner::Detached => {
                self.store.empty_node(lost.bucket).await?;
                Ok((true, "it was the root of what is being taken apart, and holds nothing now"))
            }
            Owner::Store if lost.tree == self.roots.reclaim.tree => {
                self.store.empty_node(lost.bucket).await?;
                Ok((true, "it was the reclaim list, which is empty now"))
            }
            Owner::Store => Ok((false, "it is the root of all that it leads to; nothing is freed")),
        }
    }

    /// Snapshots do not show what lost something with this any more.
    fn note_loss(&self, tx: &mut Tx<'_>, lost: &Lost) -> Result<(), Abort> {
        let of_store = lost.owner == Owner::Store && lost.tree != self.roots.objects.tree;
        if of_store || lost.owner == Owner::Detached {
            return Ok(());
        }
        for (id, record) in self.roots.all_containers(tx)? {
            let Some(objects) = lost.objects(id) else { continue };
            let (expected, found) = lost.sums;
            let address = lost.bucket.byte_address();
            let loss = Loss { objects, before: tx.epoch(), address, expected, found };
            self.roots.add_loss(tx, (id, &record), &loss)?;
        }
        Ok(())
    }

    async fn correct(&self, found: &Mendable, done: &mut Vec<String>) -> Result<()> {
        if !found.is_read_whole() {
            done.push("counts and space are left as they are: part of them cannot be read".into());
            return Ok(());
        }
        for (key, bytes) in &found.sizes {
            let set = |tx: &mut Tx<'_>| {
                let object = self.roots.objects.object(key.container(), key.oid(), key.shard());
                let Some(mut header) = object.header(tx)? else { return Ok(()) };
                header.stored_bytes = *bytes;
                object.set_header(tx, header)
            };
            self.store.transact(OPTIONS, set).await?;
            done.push(format!("object {}: stored bytes were corrected", key.oid()));
        }
        // A container's are the sum of its objects'.
        let counted = if found.sizes.is_empty() { None } else { Some(self.audit().await?.1) };
        for (id, counts) in &counted.as_ref().unwrap_or(found).counters {
            let set = |tx: &mut Tx<'_>| self.roots.set_counters(tx, *id, *counts);
            self.store.transact(OPTIONS, set).await?;
            done.push(format!("container {}: counters were corrected", id.0));
        }
        for run in &found.leaked {
            let run = BlockRun::new(BlockAddr(run.start), run.blocks);
            self.store.transact(OPTIONS, |tx: &mut Tx<'_>| tx.free_blocks(run)).await?;
        }
        if !found.leaked.is_empty() {
            let blocks: u64 = found.leaked.iter().map(|run| u64::from(run.blocks)).sum();
            done.push(format!("{blocks} blocks that nothing refers to were freed"));
        }
        Ok(())
    }

    async fn audit(&self) -> Result<(CheckReport, Mendable)> {
        Audit::all(self).await
    }
}
