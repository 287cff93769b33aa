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
use daos_types::{ContainerId, Csum, Epoch, Error, ObjectId, Result};

use crate::btree::Tree;
use crate::check::Audit;
use crate::container::record_key;
use crate::kv::KvMut;
use crate::loss::{self, Loss};
use crate::object::ObjectKey;
use crate::pages::{Abort, BucketId};
use crate::record::Run;
use crate::store::{BlockAddr, BlockRun, Claim, Tx, TxOptions, View};
use crate::vos::Vos;

/// Rounds of cutting; each goes a level deeper, or meets damage that was not there before.
const ROUNDS_MAX: usize = 64;
/// Containers whose losses one transaction notes: each may change leaves of its own in the container table.
const NOTED_MAX: usize = 4;
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
    fn told(&self, how: &str) -> String {
        format!("{}: bucket {}: {how}", self.what, self.bucket.0)
    }

    fn loss(&self, objects: RangeInclusive<ObjectId>, before: Epoch) -> Loss {
        let (address, (expected, found)) = (self.bucket.byte_address(), self.sums);
        Loss { objects, before, address, expected, found }
    }

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
    /// Mends what can be mended; the report is of the first audit, with what was done, and what could not be.
    pub(crate) async fn check_and_repair(&self) -> Result<CheckReport> {
        let (mut report, mut found) = self.audit().await?;
        self.store.mend_fixed_places().await?;
        let put_right = self.store.put_right_at_open().await?.into_iter();
        let mut done: Vec<String> =
            put_right.map(|damage| format!("{damage}: a flipped bit was put right")).collect();
        let mut undone = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if found.lost.is_empty() {
                break;
            }
            let mut progress = false;
            // Without a part of the container table its containers seem to be destroyed, and their objects to be taken apart.
            let containers = self.roots.containers;
            let containers_lost = found.lost.iter().any(|lost| lost.tree == containers);
            let mut to_cut = Vec::new();
            for lost in &found.lost {
                let unsure = containers_lost || found.unread && lost.owner == Owner::Detached;
                if unsure && lost.tree != containers {
                    continue;
                }
                if self.store.mend_home(lost.bucket).await? {
                    progress = true;
                    done.push(lost.told("a flipped bit was put right"));
                } else {
                    to_cut.push(lost);
                }
            }
            // The last first: `note_lost_losses`.
            for lost in to_cut.into_iter().rev() {
                let (mended, how) = self.cut_lost(lost).await?;
                progress |= mended;
                if mended { &mut done } else { &mut undone }.push(lost.told(how));
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
        if found.is_read_whole() {
            self.correct(&found, &mut done).await?;
        } else {
            let why = "counts and space are left as they are: part of them cannot be read";
            undone.push(why.into());
        }
        self.store.force().await?;
        (report.mended, report.unmended) = (done, undone);
        Ok(report)
    }

    async fn cut_lost(&self, lost: &Lost) -> Result<(bool, &'static str)> {
        self.note_losses(lost).await?;
        if lost.bucket != lost.tree.root {
            return Ok(match self.cut_out(lost).await? {
                true => (true, "it was cut out of its tree, and what it held is lost"),
                false => (true, "it is not there any more"),
            });
        }
        match lost.owner {
            Owner::Object(key) => {
                let forget = |tx: &mut Tx<'_>| {
                    let object = self.roots.objects.object(key.container(), key.oid(), key.shard());
                    object.take(tx).map(drop)
                };
                self.store.transact(OPTIONS, forget).await?;
                Ok((true, "it was the root of the object, which is lost"))
            }
            Owner::History(_) | Owner::Hidden(..) => {
                // Not without one: a container with a snapshot has a history.
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

    async fn cut_out(&self, lost: &Lost) -> Result<bool> {
        let only_cut = |tx: &mut Tx<'_>| lost.tree.cut(tx, &lost.low, lost.bucket);
        if lost.tree == self.roots.containers {
            let cut = |tx: &mut Tx<'_>| {
                let cut = only_cut(tx)?;
                self.note_lost_losses(tx, lost)?;
                Ok(cut)
            };
            match self.store.transact(OPTIONS, cut).await {
                Err(Error::Damaged(_)) => {}
                done => return Ok(done?.value),
            }
        }
        Ok(self.store.transact(OPTIONS, only_cut).await?.value)
    }

    /// Snapshots do not show what lost something with this any more. In steps, because a part of the object table may be of any
    /// number of containers, and before it is cut out: nobody makes a snapshot in between, a check runs alone.
    async fn note_losses(&self, lost: &Lost) -> Result<()> {
        let of_store = lost.owner == Owner::Store && lost.tree != self.roots.objects.tree;
        if of_store || lost.owner == Owner::Detached {
            return Ok(());
        }
        let all = |pages: &View<'_>| self.roots.all_containers(pages);
        let mut concerned = Vec::new();
        for (id, record) in self.store.view(all).await?.0 {
            let objects = lost.objects(id).filter(|_| record.newest_snapshot != Epoch::ZERO);
            concerned.extend(objects.map(|objects| (id, objects)));
        }
        for some in concerned.chunks(NOTED_MAX) {
            let note = |tx: &mut Tx<'_>| {
                for (id, objects) in some {
                    let record = self.roots.container(tx, *id)?;
                    let loss = lost.loss(objects.clone(), tx.epoch());
                    self.roots.add_loss(tx, (*id, &record), &loss)?;
                }
                Ok(())
            };
            self.store.transact(OPTIONS, note).await?;
        }
        Ok(())
    }

    /// A part of the container table that was cut out may have had losses in it: of the container that it begins in, whose
    /// record lies before it. (Those of all others were there with their records.) So that one may have lost anything.
    ///
    /// If what this needs is damaged, nothing need be noted, as long as what lies behind is cut out before what lies in
    /// front: a record that cannot be read is cut out next, with its container; and if it is the place where the loss would
    /// be put, that is in the same container, and its cut notes it.
    fn note_lost_losses(&self, tx: &mut Tx<'_>, lost: &Lost) -> Result<(), Abort> {
        let Some(number) = lost.low.first_chunk() else { return Ok(()) };
        let id = ContainerId(u16::from_be_bytes(*number));
        let has_record = lost.low[..] <= record_key(id)[..];
        let ends_before = lost.high.as_ref().is_some_and(|high| high[..] <= loss::prefix(id)[..]);
        if has_record || ends_before || !self.roots.has_container(tx, id)? {
            return Ok(());
        }
        let record = self.roots.container(tx, id)?;
        let loss = lost.loss(loss::all_objects(), tx.epoch());
        self.roots.put_loss(tx, (id, &record), &loss)
    }

    async fn correct(&self, found: &Mendable, done: &mut Vec<String>) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    use daos_media::{Device, How, MemDevice};
    use daos_types::rpc::{ContainerInfo, Request};
    use daos_types::{PoolId, StoreId, TargetId};
    use daos_xstream::{Handle, sim};
    use uuid::Uuid;

    use crate::btree::{Reached, TreeCheck};
    use crate::store::{FormatOptions, Store};
    use crate::testing;
    use crate::vos::VosOptions;

    const POOL: PoolId = PoolId(Uuid::from_u128(1));

    async fn open(device: &Rc<MemDevice>, handle: &Handle) -> Rc<Vos> {
        let store = Store::open(device.clone(), handle.clone(), testing::options(64));
        Vos::open(store.await.unwrap(), handle.clone(), VosOptions::default()).await.unwrap()
    }

    /// Containers with these numbers, each with a snapshot.
    async fn fixture(handle: &Handle, ids: impl Iterator<Item = u16>) -> (Rc<MemDevice>, Rc<Vos>) {
        let device = MemDevice::new(64 << 20);
        let options = FormatOptions { store: StoreId(Uuid::from_u128(2)), wal_bytes: None };
        Store::format(device.clone(), handle.clone(), options).await.unwrap();
        let vos = open(&device, handle).await;
        vos.handle(Request::PoolCreate { id: POOL, label: "pool".into() }).await.unwrap();
        for number in ids {
            let (id, label) = (ContainerId(number), number.to_string());
            let uuid = Uuid::from_u128(u128::from(number) + 10);
            let info = ContainerInfo { id, uuid, label, created: Epoch(1) };
            vos.handle(Request::ContainerCreate { pool: POOL, info }).await.unwrap();
            vos.handle(Request::SnapshotCreate { container: id, name: None }).await.unwrap();
        }
        (device, vos)
    }

    /// Whether a container's snapshot has lost any of its objects.
    async fn is_lost(vos: &Vos, id: ContainerId) -> bool {
        let check = |pages: &View<'_>| {
            let epoch = vos.roots.container(pages, id)?.newest_snapshot;
            vos.roots.check_losses(pages, TargetId(0), (id, epoch), &loss::all_objects())
        };
        match vos.store.view(check).await {
            Err(Error::Damaged(_)) => true,
            found => found.map(|_| false).unwrap(),
        }
    }

    /// Leaves of the container table that have losses of a container and not its record.
    async fn leaves_of_losses(vos: &Vos, id: ContainerId) -> Vec<BucketId> {
        let mut check = TreeCheck::new(vos.roots.containers, "test");
        let (mut reached, mut leaves) = (Reached::default(), Vec::new());
        loop {
            let bucket = check.next().map(|(bucket, _, _)| bucket);
            let (mut losses, mut records) = (false, false);
            let step = |pages: &View<'_>| {
                (losses, records) = (false, false);
                check.step(pages, &mut reached, &mut |key: &[u8], _: &[u8]| {
                    losses |= key.starts_with(&loss::prefix(id));
                    records |= *key == record_key(id)[..];
                })
            };
            if !vos.store.view(step).await.unwrap().0 {
                return leaves;
            }
            leaves.extend(bucket.filter(|_| losses && !records));
        }
    }

    #[test]
    fn losses_that_are_lost_are_a_loss_of_everything() {
        sim::run(1, |handle| async move {
            let (device, vos) = fixture(&handle, [1, 2, 3].into_iter()).await;
            let two = ContainerId(2);
            // Attributes push the losses into leaves of their own: two are ruined, next to each other.
            let object = |n: u32| {
                let id = ObjectId::from_bytes(u128::from(n).to_be_bytes());
                id..=id
            };
            for n in 0..600_u32 {
                let add = |tx: &mut Tx<'_>| {
                    let name = [&two.0.to_be_bytes()[..], &[2], &n.to_be_bytes()].concat();
                    vos.roots.containers.put(tx, &name, &[7; 100])?;
                    let record = vos.roots.container(tx, two)?;
                    let loss = Loss {
                        objects: object(n + 1),
                        before: tx.epoch(),
                        address: 16384,
                        expected: Csum(1),
                        found: Csum(2),
                    };
                    vos.roots.put_loss(tx, (two, &record), &loss)
                };
                vos.store.transact(TxOptions::default(), add).await.unwrap();
            }
            let leaves = leaves_of_losses(&vos, two).await;
            assert!(leaves.len() >= 2, "{leaves:?}");
            vos.stop().await.unwrap();
            drop(vos);
            for ruined in [&leaves[..1], &leaves[leaves.len() - 1..], &leaves[..2], &leaves[..]] {
                let device = device.copy();
                for bucket in ruined {
                    let at = bucket.byte_address() + 4096;
                    device.write(vec![0x5a; 4096].into(), at, How::Buffered).await.unwrap();
                }
                let vos = open(&device, &handle).await;
                vos.check(true).await.unwrap();
                let left = vos.check(false).await.unwrap().findings;
                assert!(left.is_empty(), "{left:?}");
                assert!(is_lost(&vos, two).await, "{ruined:?} of {leaves:?}");
                assert!(!is_lost(&vos, ContainerId(1)).await);
                vos.stop().await.unwrap();
            }
        });
    }

    #[test]
    fn a_part_of_the_object_table_may_be_of_a_thousand_containers() {
        sim::run(1, |handle| async move {
            let (_, vos) = fixture(&handle, 1..=1000).await;
            let lost = Lost {
                owner: Owner::Store,
                tree: vos.roots.objects.tree,
                bucket: BucketId(7),
                low: 5_u16.to_be_bytes().to_vec(),
                high: None,
                what: "object table".into(),
                sums: (Csum(1), Csum(2)),
            };
            vos.note_losses(&lost).await.unwrap();
            for (id, is) in [(1, false), (4, false), (5, true), (500, true), (1000, true)] {
                assert_eq!(is_lost(&vos, ContainerId(id)).await, is, "{id}");
            }
            vos.stop().await.unwrap();
        });
    }
}
