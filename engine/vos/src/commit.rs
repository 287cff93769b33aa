//! The newest view of a container inside a transaction: what operations decide is done here.
//!
//! # Invariants
//! 1. Every block that a record gives up is freed, or kept by the history, in the same transaction; never both.
//! 2. Blocks of this transaction that one of its own later operations hides are freed by a later transaction: the record
//!    of this one names their checksums, so they must not be given out before it is past replay.
//! 3. Object headers and container counters are written once, at the end.

use std::cell::{Cell, RefCell};

use daos_types::{BLOCK_BYTES, ContainerId, Epoch, Error, ObjectId};
use smallvec::SmallVec;

use crate::array::{Edit, Moment};
use crate::btree::Tree;
use crate::container::ContainerRecord;
use crate::flat;
use crate::ground::{Ground, Places, STRANGE};
use crate::history::{ObjectPrefix, decode_state, encode_state, hidden};
use crate::key::DkeyHash;
use crate::kv::{Kv, KvMut, Pair};
use crate::object::{Detached, Keys, Large, Object, ObjectHeader, Taken};
use crate::pages::Abort;
use crate::prepare::Prepared;
use crate::reclaim::Contents;
use crate::record::{Body, ExtentBody, Record, Run, UNWRITTEN_BLOCKS_MAX, epoch_of};
use crate::roots::Roots;
use crate::store::{BlockAddr, BlockRun, Claim, Tx};
use crate::supply::{Filled, Need};

/// Pairs of a punched object that are given back at once; more go to the reclaim list.
const PAIRS_MAX: usize = 16;
/// Buckets of the segment table that frees of one transaction touch; more are freed later.
const FREE_TABLES_MAX: usize = 4;
/// Blocks that one bucket of the segment table speaks for, roughly.
const TABLE_BLOCKS: u64 = 256 * 340;
/// Runs in one entry of the reclaim list.
const DEFERRED_RUNS: usize = 120;
/// The one shard that objects have until placement comes.
pub(crate) const SHARD: u32 = 0;

/// Objects that a transaction changed.
struct Changed {
    object: ObjectId,
    stored_bytes: i64,
    touched: bool,
}

/// What a transaction's closure tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    /// There is something to give back in the background.
    pub detached: bool,
    /// See `Reply::Transacted`.
    pub stored_bytes: Option<u64>,
}

pub(crate) struct Commit<'t, 'a> {
    tx: &'t mut Tx<'a>,
    roots: &'t Roots,
    hash: DkeyHash,
    id: ContainerId,
    record: ContainerRecord,
    moment: Moment,
    claim: Claim,
    prepared: &'t Prepared,
    /// Needs that were answered.
    answered: Cell<usize>,
    stale: &'t Cell<bool>,
    changed: SmallVec<[Changed; 4]>,
    places: Places,
    large: RefCell<SmallVec<[(ObjectId, Large); 4]>>,
    objects: i64,
    stored_bytes: i64,
    freed: Vec<Run>,
    /// Something was left for the background to give back.
    detached: bool,
}

impl<'t, 'a> Commit<'t, 'a> {
    /// `stale` is set when the transaction has to be planned again.
    pub fn begin(
        tx: &'t mut Tx<'a>,
        (roots, hash): (&'t Roots, DkeyHash),
        (id, claim): (ContainerId, Claim),
        prepared: &'t Prepared,
        stale: &'t Cell<bool>,
    ) -> Result<Self, Abort> {
        let record = roots.container(tx, id)?;
        let moment = Moment { epoch: tx.epoch(), snapshot: record.newest_snapshot };
        Ok(Self {
            tx,
            roots,
            hash,
            id,
            record,
            moment,
            claim,
            prepared,
            answered: Cell::new(0),
            stale,
            changed: SmallVec::new(),
            places: Places::default(),
            large: RefCell::default(),
            objects: 0,
            stored_bytes: 0,
            freed: Vec::new(),
            detached: false,
        })
    }

    /// What the plan said is not so any more.
    pub fn stale(&self) -> Abort {
        self.stale.set(true);
        Abort::Error(Error::Stopped)
    }

    /// Writes what was collected. `told`: the object whose stored bytes the answer tells.
    pub fn finish(mut self, told: Option<ObjectId>) -> Result<Finished, Abort> {
        if self.answered.get() != self.prepared.needs.len() {
            return Err(self.stale());
        }
        self.prepared.publish(self.tx)?;
        self.free()?;
        let mut finished = Finished { detached: self.detached, stored_bytes: None };
        for Changed { object: id, stored_bytes, touched } in std::mem::take(&mut self.changed) {
            let object = self.object(id);
            let Some(old) = object.header(self.tx)? else { continue };
            let data_epoch = if touched { self.moment.epoch } else { old.data_epoch };
            let stored_bytes = add(old.stored_bytes, stored_bytes);
            let new = ObjectHeader { data_epoch, stored_bytes };
            if told == Some(id) {
                finished.stored_bytes = Some(stored_bytes);
            }
            if new != old {
                object.change_header(self.tx, new)?;
            }
        }
        if self.objects != 0 || self.stored_bytes != 0 {
            let objects = add(self.record.objects, self.objects);
            let stored_bytes = add(self.record.stored_bytes, self.stored_bytes);
            self.check_quota(objects, stored_bytes)?;
            self.roots.set_counters(self.tx, self.id, (objects, stored_bytes))?;
        }
        Ok(finished)
    }

    /// Refuses growth past the container's quota. Who gives something back goes on, also where a record gets a little longer.
    fn check_quota(&self, objects: u64, stored_bytes: u64) -> Result<(), Abort> {
        let quota = self.record.quota;
        let is_over = |limit, after, change: i64| limit > 0 && after > limit && change > 0;
        let over = is_over(quota.inodes, objects, self.objects)
            || is_over(quota.bytes, stored_bytes, self.stored_bytes);
        if over && self.claim == Claim::Grow { Err(Error::Quota.into()) } else { Ok(()) }
    }

    /// The form of an object that is known to be large: it keeps it, a tree with the same root.
    fn large(&self, object: ObjectId) -> Option<Large> {
        let large = self.large.borrow();
        large.iter().find(|(of, _)| *of == object).map(|(_, large)| *large)
    }

    /// Notes trees of pairs of an object that were hidden now.
    fn hide_trees(&mut self, object: ObjectId, trees: &[Tree], keys: Keys) -> Result<(), Abort> {
        let prefix = ObjectPrefix::new(object, SHARD);
        trees.iter().try_for_each(|tree| {
            self.put_history(&prefix.tree_key(self.moment.epoch, *tree, keys), b"")
        })
    }

    fn object(&self, object: ObjectId) -> Object {
        self.roots.objects.object(self.id, object, SHARD)
    }

    fn has_snapshots(&self) -> bool {
        self.moment.snapshot != Epoch::ZERO
    }

    /// Whether a snapshot can see anything of what the object holds: not when there was none at the newest one, which its making has kept.
    fn was_seen(&self, object: ObjectId) -> Result<bool, Abort> {
        if !self.has_snapshots() {
            return Ok(false);
        }
        let history = self.record.history.expect("a container with a snapshot has a history");
        let history = history.view(&*self.tx);
        let then = ObjectPrefix::new(object, SHARD).state_at(&history, self.moment.snapshot)?;
        let then = then.map(|state| decode_state(&state).ok_or(STRANGE)).transpose()?;
        Ok(then != Some(None))
    }

    fn changed(&mut self, object: ObjectId) -> &mut Changed {
        if let Some(index) = self.changed.iter().position(|changed| changed.object == object) {
            return &mut self.changed[index];
        }
        self.changed.push(Changed { object, stored_bytes: 0, touched: false });
        self.changed.last_mut().expect("just pushed")
    }

    fn add_stored(&mut self, object: ObjectId, bytes: i64) {
        self.changed(object).stored_bytes += bytes;
        self.stored_bytes += bytes;
    }

    fn put_history(&mut self, key: &[u8], value: &[u8]) -> Result<(), Abort> {
        let history = self.record.history.expect("a container with a snapshot has a history");
        history.put(self.tx, key, value)
    }

    /// Keeps the object's record as it was, if a snapshot can see it and has not kept it yet.
    fn keep_state(&mut self, object: ObjectId) -> Result<(), Abort> {
        if !self.has_snapshots() {
            return Ok(());
        }
        let header = self.object(object).header(self.tx)?;
        if header.is_some_and(|header| !self.moment.is_kept(header.data_epoch)) {
            return Ok(());
        }
        let key = ObjectPrefix::new(object, SHARD).state_key(self.moment.epoch);
        let history = self.record.history.expect("a container with a snapshot has a history");
        if history.value(self.tx, &key)?.is_some() {
            return Ok(());
        }
        self.put_history(&key, &encode_state(header.map(|header| header.data_epoch)))
    }

    /// What left the newest view is kept or freed.
    fn hide(&mut self, object: ObjectId, key: &[u8], record: Record) -> Result<(), Abort> {
        if !self.moment.is_kept(record.epoch) {
            self.freed.extend(record.runs());
            return Ok(());
        }
        let key = ObjectPrefix::new(object, SHARD).record_key(key, record.epoch);
        self.put_history(&key, &hidden(self.moment.epoch, &record.encode()))
    }

    fn hide_pairs(&mut self, object: ObjectId, pairs: Vec<Pair>) -> Result<(), Abort> {
        for (key, value) in pairs {
            self.hide(object, &key, Record::decode(&value).ok_or(STRANGE)?)?;
        }
        Ok(())
    }

    /// Frees what was given up: at once if that touches few buckets, else through the reclaim list.
    fn free(&mut self) -> Result<(), Abort> {
        let runs = coalesce(std::mem::take(&mut self.freed));
        let (now, mut later): (Vec<Run>, Vec<Run>) =
            runs.into_iter().partition(|run| !self.prepared.is_fresh(*run));
        let mut tables: SmallVec<[u64; FREE_TABLES_MAX]> = SmallVec::new();
        for run in now {
            let table = run.start / TABLE_BLOCKS;
            if !tables.contains(&table) {
                tables.push(table);
            }
            if tables.len() > FREE_TABLES_MAX {
                later.push(run);
            } else {
                self.tx.free_blocks(BlockRun::new(BlockAddr(run.start), run.blocks))?;
            }
        }
        for some in later.chunks(DEFERRED_RUNS) {
            let entry = deferred(self.moment.epoch, some);
            self.roots.reclaim.add_run(self.tx, Contents::Object, &entry)?;
            self.detached = true;
        }
        Ok(())
    }
}

impl Ground for Commit<'_, '_> {
    fn moment(&self) -> Moment {
        self.moment
    }

    fn hash(&self) -> DkeyHash {
        self.hash
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn kv(&self, object: ObjectId) -> Result<Box<dyn Kv + '_>, Abort> {
        if let Some(large) = self.large(object) {
            return Ok(Box::new(self.object(object).view_large(&*self.tx, large)));
        }
        let view = self.object(object).view(&*self.tx)?;
        if let Some(large) = view.large() {
            self.large.borrow_mut().push((object, large));
        }
        Ok(Box::new(view))
    }

    fn has_record(&self, object: ObjectId) -> Result<bool, Abort> {
        Ok(self.large(object).is_some() || self.object(object).header(&*self.tx)?.is_some())
    }

    fn apply(&mut self, object: ObjectId, edit: Edit) -> Result<(), Abort> {
        self.places.applied(object, &edit);
        if !edit.puts.is_empty() && !self.has_record(object)? {
            self.keep_state(object)?;
            self.objects += 1;
        }
        let map = self.object(object);
        match self.large(object) {
            Some(large) => carry_out(&mut map.edit_large(self.tx, large), &edit)?,
            None => carry_out(&mut map.edit(self.tx), &edit)?,
        }
        for (key, record) in edit.hidden {
            self.hide(object, &key, record)?;
        }
        if edit.stored_bytes != 0 {
            self.add_stored(object, edit.stored_bytes);
        }
        Ok(())
    }

    fn touch(&mut self, object: ObjectId) -> Result<(), Abort> {
        if !self.changed(object).touched {
            self.keep_state(object)?;
            self.changed(object).touched = true;
        }
        Ok(())
    }

    fn remove_object(&mut self, object: ObjectId) -> Result<(), Abort> {
        self.places.forget(object);
        self.large.get_mut().retain(|(of, _)| *of != object);
        let was_seen = self.was_seen(object)?;
        self.keep_state(object)?;
        let there = self.object(object);
        let header = if was_seen {
            let Some((header, taken)) = there.take(self.tx)? else { return Ok(()) };
            match taken {
                Taken::Pairs(pairs) => self.hide_pairs(object, pairs)?,
                Taken::Trees(trees, keys) => self.hide_trees(object, &trees, keys)?,
            }
            header
        } else {
            match there.detach(self.tx, self.roots.reclaim, PAIRS_MAX)? {
                Detached::Absent => return Ok(()),
                Detached::Gone { header, pairs, is_whole } => {
                    self.detached |= !is_whole;
                    self.hide_pairs(object, pairs)?;
                    header
                }
            }
        };
        let before = self.changed.iter().position(|changed| changed.object == object);
        let pending = before.map_or(0, |index| self.changed.swap_remove(index).stored_bytes);
        self.stored_bytes -= header.stored_bytes as i64 + pending;
        self.objects -= 1;
        Ok(())
    }

    fn detach(&mut self, object: ObjectId, from: &[u8], to: Option<&[u8]>) -> Result<(), Abort> {
        self.places.forget(object);
        let need = Need::Count { object, from: from.to_vec(), to: to.map(<[u8]>::to_vec) };
        let index = self.answered.get();
        self.supply(need)?;
        let counted = self.prepared.counted(index).ok_or_else(|| self.stale())?;
        let there = self.object(object);
        if self.was_seen(object)? {
            let (trees, keys) = there.detach_trees(self.tx, from, to)?;
            self.hide_trees(object, &trees, keys)?;
        } else {
            self.detached = true;
            there.detach_range(self.tx, self.roots.reclaim, from, to)?;
        }
        let left = there.edit(self.tx).remove_range(from, to, usize::MAX)?;
        self.hide_pairs(object, left)?;
        self.add_stored(object, -(counted as i64));
        Ok(())
    }

    fn supply(&self, need: Need) -> Result<Vec<Filled>, Abort> {
        let index = self.answered.get();
        if self.prepared.needs.get(index) != Some(&need) {
            return Err(self.stale());
        }
        self.answered.set(index + 1);
        Ok(self.prepared.answers[index].clone())
    }
}

/// Removes and puts what an edit says.
fn carry_out(map: &mut impl KvMut, edit: &Edit) -> Result<(), Abort> {
    for key in &edit.removes {
        map.remove(key)?;
    }
    edit.puts.iter().try_for_each(|(key, value)| map.put(key, value))
}

/// A counter, changed. It never falls below what is counted.
fn add(counter: u64, change: i64) -> u64 {
    counter.checked_add_signed(change).expect("a counter holds what is taken from it")
}

/// Neighbouring runs joined, in order.
fn coalesce(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|run| run.start);
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last)
                if last.start + u64::from(last.blocks) == run.start
                    && last.blocks + run.blocks <= UNWRITTEN_BLOCKS_MAX =>
            {
                last.blocks += run.blocks;
            }
            _ => joined.push(run),
        }
    }
    joined
}

/// A flat run of records that own these blocks, for the reclaim list.
fn deferred(epoch: Epoch, runs: &[Run]) -> Vec<u8> {
    let mut entry = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let body = Body::Extent(ExtentBody::Unwritten { run: *run });
        let value = Record { epoch, body }.encode();
        let splice = flat::put(&entry, &(index as u32).to_be_bytes(), &value);
        entry.splice(splice.at..splice.at + splice.removed, splice.inserted);
    }
    entry
}

/// The records of these pairs own these runs.
pub(crate) fn runs_of(pairs: &[Pair]) -> Result<Vec<Run>, Abort> {
    let mut runs = Vec::new();
    for (_, value) in pairs {
        runs.extend(Record::decode(value).ok_or(STRANGE)?.runs());
    }
    Ok(coalesce(runs))
}

/// Stored bytes of an encoded record.
pub(crate) fn stored_bytes_of(value: &[u8]) -> Result<u64, Abort> {
    let record = Record::decode(value).ok_or(STRANGE)?;
    debug_assert!(epoch_of(value).is_some());
    Ok(record.stored_bytes())
}

const _: () = assert!(DEFERRED_RUNS * 30 < crate::object::RECORD_MAX && BLOCK_BYTES == 4096);
