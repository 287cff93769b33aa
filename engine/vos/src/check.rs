//! Proof of the whole store: trees, records, who owns which block, counters, and every checksum.
//!
//! # What it holds the store to
//! 1. Every bucket and every block that the segment table has allocated is referred to exactly once, and nothing else is.
//! 2. Every record is one of this version's format, under a key of its kind; extents of an array do not overlap; a hashed
//!    dkey has a record and a value, and sits where its hash says.
//! 3. Counters of objects and containers are what counting gives.
//! 4. Data has its checksums.
//!
//! It takes memory for one bit per block, and one bucket at a time.
//!
//! # Not here
//! The invariants of a tree: `btree::TreeCheck`.

use std::collections::BTreeMap;

use daos_types::rpc::{CheckReport, DamagedData};
use daos_types::{ContainerId, Error, ObjectId, Result};

use crate::btree::{Reached, Tree, TreeCheck};
use crate::container::ContainerRecord;
use crate::flat;
use crate::history::{HistoryKey, decode_state, parse as parse_history, split_hidden};
use crate::key::{DkeyHash, Ordering, Part, parse as parse_key};
use crate::kv::Pair;
use crate::loss::{Loss, object_of};
use crate::object::{Body as ObjectBody, ObjectKey, Record as ObjectRecord};
use crate::pages::BucketId;
use crate::reclaim::{Contents, Entry, EntryBody, roots};
use crate::record::{BLOCK, Body, ExtentBody, Record, Run, Single};
use crate::repair::{Lost, Mendable, Owner};
use crate::store::{BUCKET_BLOCKS, BlockAddr, SegmentUse, View};
use crate::vos::Vos;

/// Findings after which counting goes on in silence.
const FINDINGS_MAX: usize = 200;

impl Vos {
    /// Verifies everything. With `repair`, what can be mended is; the findings are from before, and what was done.
    pub(crate) async fn check(&self, repair: bool) -> Result<CheckReport> {
        let _paused = Paused::new(self);
        match repair {
            true => self.check_and_repair().await,
            false => Ok(Audit::all(self).await?.0),
        }
    }
}

struct Paused<'a>(&'a Vos);

impl<'a> Paused<'a> {
    fn new(vos: &'a Vos) -> Self {
        vos.checking.set(true);
        Self(vos)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.checking.set(false);
        self.0.background.notify_all();
    }
}

/// Whose records a walk meets.
#[derive(Clone, Copy)]
enum Kind {
    /// In the newest view.
    Newest,
    /// Hidden or detached: only what they own counts.
    Hidden,
    /// Detached and to be reclaimed: its data may be anything.
    Reclaim,
}

pub(crate) struct Audit<'v> {
    vos: &'v Vos,
    hash: DkeyHash,
    report: CheckReport,
    silent: u64,
    reached: Reached,
    /// Owned blocks of the space, by segment.
    owned: Vec<[u64; 4]>,
    first_block: u64,
    containers: BTreeMap<ContainerId, ContainerRecord>,
    /// Objects and stored bytes, counted.
    counted: BTreeMap<ContainerId, (u64, u64)>,
    mendable: Mendable,
    /// Whose tree the walk is in.
    owner: Owner,
    /// Data to verify before going on.
    data: Vec<Data>,
}

/// Data that a record owns.
struct Data {
    run: Run,
    csums: Vec<daos_types::Csum>,
    what: String,
    whose: Whose,
}

/// The object that a record is of, where that is known.
type Whose = Option<(ContainerId, ObjectId)>;

/// What is known of the object that a walk is in.
struct ObjectWalk {
    key: ObjectKey,
    name: String,
    ordering: Ordering,
    place: Vec<u8>,
    /// The place has a dkey record.
    has_dkey: bool,
    akeys: u64,
    akey: Vec<u8>,
    is_single: bool,
    end_block: u64,
    stored_bytes: u64,
}

impl<'v> Audit<'v> {
    /// Looks at everything.
    pub(crate) async fn all(vos: &'v Vos) -> Result<(CheckReport, Mendable)> {
        let before = vos.store.newest();
        let mut audit = Self::new(vos);
        let walked = audit.run().await;
        // Also where the walk met a bucket that was freed meanwhile: that is no finding.
        if vos.store.newest() != before {
            return Err(Error::Invalid("the store is in use: a check needs it to stay as it is"));
        }
        walked?;
        audit.mendable.counters = audit.wrong_counters();
        Ok((audit.report, audit.mendable))
    }

    fn new(vos: &'v Vos) -> Self {
        Self {
            vos,
            hash: vos.hash(),
            report: CheckReport::default(),
            silent: 0,
            reached: Reached::default(),
            owned: vec![[0; 4]; vos.store.segments() as usize],
            first_block: vos.store.fixed_buckets().addr.0,
            containers: BTreeMap::new(),
            counted: BTreeMap::new(),
            mendable: Mendable::default(),
            owner: Owner::Store,
            data: Vec::new(),
        }
    }

    fn find(&mut self, finding: String) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        } else {
            self.silent += 1;
        }
    }

    /// What cannot be read may refer to anything: nothing is freed or corrected for the lack of it.
    fn find_unread(&mut self, finding: String) {
        self.mendable.unread = true;
        self.find(finding);
    }

    async fn run(&mut self) -> Result<()> {
        let roots = self.vos.roots;
        self.walk(roots.pools, "pool table", &mut |_, _| Ok(())).await?;
        self.walk_containers(roots.containers).await?;
        self.walk_objects(roots.objects.tree).await?;
        self.walk_reclaim(roots.reclaim.tree).await?;
        for (id, record) in self.containers.clone() {
            if let Some(history) = record.history {
                self.owner = Owner::History(id);
                self.walk_history(history, &format!("history of container {}", id.0)).await?;
                self.owner = Owner::Store;
            }
            let counted = self.counted.get(&id).copied().unwrap_or_default();
            if counted != (record.objects, record.stored_bytes) {
                let stored = (record.objects, record.stored_bytes);
                self.find(format!(
                    "container {}: counters say {stored:?}, there are {counted:?}",
                    id.0
                ));
            }
        }
        self.compare_space().await?;
        for finding in self.vos.store.check_device().await? {
            self.find(finding);
        }
        if self.silent > 0 {
            self.report.findings.push(format!("and {} more", self.silent));
        }
        Ok(())
    }

    /// Containers whose counters are wrong, with the right ones.
    fn wrong_counters(&self) -> Vec<(ContainerId, (u64, u64))> {
        let all = self.containers.iter().map(|(id, record)| {
            let counted = self.counted.get(id).copied().unwrap_or_default();
            (*id, counted, (record.objects, record.stored_bytes))
        });
        all.filter(|(_, counted, stored)| counted != stored).map(|(id, c, _)| (id, c)).collect()
    }

    /// Walks a tree one bucket at a time; after each leaf its data is verified.
    async fn walk(
        &mut self,
        tree: Tree,
        what: &str,
        visit: &mut dyn FnMut(&mut Self, Pair) -> Result<()>,
    ) -> Result<()> {
        let mut check = TreeCheck::new(tree, what);
        loop {
            let mut pairs: Vec<Pair> = Vec::new();
            let reached = &mut self.reached;
            let step = |pages: &View<'_>| {
                pairs.clear();
                let visit =
                    &mut |key: &[u8], value: &[u8]| pairs.push((key.to_vec(), value.to_vec()));
                check.step(pages, reached, visit)
            };
            match self.vos.store.view(step).await {
                Ok((true, _)) => {}
                Ok((false, _)) => break,
                Err(error @ (Error::Damaged(_) | Error::Device { .. })) => {
                    if let (Error::Damaged(damage), Some((bucket, low, high))) =
                        (&error, check.next())
                    {
                        self.mendable.lost.push(Lost {
                            owner: self.owner,
                            tree,
                            bucket,
                            low: low.to_vec(),
                            high: high.map(<[u8]>::to_vec),
                            what: what.to_owned(),
                            sums: (damage.expected, damage.found),
                        });
                    }
                    check.skip(&error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            }
            for pair in pairs {
                visit(self, pair)?;
            }
            self.verify_data().await?;
        }
        self.report.buckets += check.counts.buckets;
        for finding in check.findings {
            self.find_unread(finding);
        }
        Ok(())
    }

    async fn walk_containers(&mut self, tree: Tree) -> Result<()> {
        self.walk(tree, "container table", &mut |audit, (key, value)| {
            if let [high, low, 0] = *key {
                let id = ContainerId(u16::from_be_bytes([high, low]));
                match ContainerRecord::decode(&value) {
                    Some(record) => drop(audit.containers.insert(id, record)),
                    None => {
                        audit.find_unread(format!("container {}: its record cannot be read", id.0));
                    }
                }
            } else if !matches!(*key, [_, _, 1, ref epoch @ ..] if epoch.len() == 8)
                && !matches!(*key, [_, _, 2, _, ..])
                && !matches!(*key, [_, _, 3, ref rest @ ..] if Loss::decode(rest, &value).is_some())
            {
                audit.find_unread(format!("container table: strange key {key:02x?}"));
            }
            Ok(())
        })
        .await
    }

    async fn walk_objects(&mut self, table: Tree) -> Result<()> {
        let (mut trees, mut doomed) = (Vec::new(), Vec::new());
        // The spread object whose pairs the walk is in.
        let mut spread: Option<(ObjectWalk, u64)> = None;
        self.walk(table, "object table", &mut |audit, (key, value)| {
            let Some((key, rest)) = ObjectKey::split(&key) else {
                audit.find_unread(format!("object table: strange pair under {key:02x?}"));
                return Ok(());
            };
            // Objects of a destroyed container are being taken apart.
            let is_whole = audit.containers.contains_key(&key.container());
            if !rest.is_empty() {
                match &mut spread {
                    _ if !is_whole => {
                        audit.own_record("destroyed container", &value, Kind::Reclaim);
                    }
                    Some((walk, _)) if walk.key == key => {
                        audit.visit(walk, (rest.to_vec(), value));
                    }
                    _ => audit.find_orphan(key, &value),
                }
                return Ok(());
            }
            audit.end_spread(spread.take());
            let Some(record) = ObjectRecord::parse(&value) else {
                audit.find_unread(format!(
                    "object table: strange pair under {:02x?}",
                    key.as_bytes()
                ));
                return Ok(());
            };
            audit.report.objects += 1;
            match record.body {
                ObjectBody::Tree(tree) if !is_whole => doomed.push(tree),
                ObjectBody::Flat(run) if !is_whole => {
                    for (_, value) in flat::pairs(run) {
                        audit.own_record("destroyed container", &value, Kind::Reclaim);
                    }
                }
                ObjectBody::Spread if !is_whole => {}
                ObjectBody::Tree(tree) => trees.push((key, record.header.stored_bytes, tree)),
                ObjectBody::Spread => {
                    spread = Some((ObjectWalk::new(key), record.header.stored_bytes));
                }
                ObjectBody::Flat(run) => {
                    if let Err(why) = flat::verify(run) {
                        audit.find_unread(format!("object {}: {why}", key.oid()));
                        return Ok(());
                    }
                    let mut walk = ObjectWalk::new(key);
                    for pair in flat::pairs(run) {
                        audit.visit(&mut walk, pair);
                    }
                    audit.end_object(walk, key, record.header.stored_bytes);
                }
            }
            Ok(())
        })
        .await?;
        self.end_spread(spread);
        self.owner = Owner::Detached;
        for tree in doomed {
            self.walk_hidden(tree, "destroyed container", Kind::Reclaim).await?;
        }
        self.owner = Owner::Store;
        for (key, stored_bytes, tree) in trees {
            let mut walk = ObjectWalk::new(key);
            let what = format!("object {}", key.oid());
            self.owner = Owner::Object(key);
            self.walk(tree, &what, &mut |audit, pair| {
                audit.visit(&mut walk, pair);
                Ok(())
            })
            .await?;
            self.owner = Owner::Store;
            self.end_object(walk, key, stored_bytes);
        }
        Ok(())
    }

    /// A pair in the object table whose object is not there, or is not spread.
    fn find_orphan(&mut self, key: ObjectKey, value: &[u8]) {
        self.own_record("object table", value, Kind::Newest);
        if self.mendable.orphans.last() != Some(&key) {
            self.mendable.orphans.push(key);
            self.find(format!("object {}: it has pairs, but its record is lost", key.oid()));
        }
    }

    fn end_spread(&mut self, spread: Option<(ObjectWalk, u64)>) {
        if let Some((walk, stored_bytes)) = spread {
            let key = walk.key;
            self.end_object(walk, key, stored_bytes);
        }
    }

    async fn walk_reclaim(&mut self, tree: Tree) -> Result<()> {
        let mut trees = Vec::new();
        self.walk(tree, "reclaim list", &mut |audit, (_, value)| {
            let Some(entry) = Entry::parse(&value) else {
                audit.find_unread("reclaim list: an entry cannot be read".to_owned());
                return Ok(());
            };
            let contents = entry.contents;
            match entry.body {
                EntryBody::Trees(bytes) => {
                    trees.extend(roots(bytes).map(|tree| (contents, tree)));
                }
                EntryBody::Run(run) => {
                    for (_, value) in flat::pairs(run) {
                        audit.own_record("reclaim list", &value, Kind::Reclaim);
                    }
                }
                EntryBody::Container(_) => {}
            }
            Ok(())
        })
        .await?;
        self.owner = Owner::Detached;
        for (contents, tree) in trees {
            match contents {
                Contents::Object => self.walk_hidden(tree, "detached tree", Kind::Reclaim).await?,
                Contents::History => self.walk_history(tree, "detached history").await?,
            }
        }
        self.owner = Owner::Store;
        Ok(())
    }

    async fn walk_hidden(&mut self, tree: Tree, what: &str, kind: Kind) -> Result<()> {
        self.walk(tree, what, &mut |audit, (_, value)| {
            audit.own_record(what, &value, kind);
            Ok(())
        })
        .await
    }

    async fn walk_history(&mut self, tree: Tree, what: &str) -> Result<()> {
        let mut trees = Vec::new();
        self.walk(tree, what, &mut |audit, (key, value)| {
            match parse_history(&key) {
                Some(HistoryKey::State { .. }) if decode_state(&value).is_some() => {}
                Some(HistoryKey::Tree { object, tree, .. }) => {
                    trees.push((object_of(&object), tree));
                }
                Some(HistoryKey::Record { epoch, object, .. }) => match split_hidden(&value) {
                    Some((end, record)) if epoch < end => {
                        let whose = match audit.owner {
                            Owner::History(id) => Some((id, object_of(&object))),
                            _ => None,
                        };
                        audit.own_record_of(whose, what, record, Kind::Hidden);
                    }
                    _ => audit
                        .find_unread(format!("{what}: a record of epoch {epoch} ends before it")),
                },
                _ => audit.find_unread(format!("{what}: strange key {key:02x?}")),
            }
            Ok(())
        })
        .await?;
        let owner = self.owner;
        for (object, tree) in trees {
            if let Owner::History(id) = owner {
                self.owner = Owner::Hidden(id, object);
            }
            self.walk_hidden(tree, what, Kind::Hidden).await?;
        }
        self.owner = owner;
        Ok(())
    }

    /// One pair of an object of the newest view.
    fn visit(&mut self, walk: &mut ObjectWalk, (key, value): Pair) {
        let name = walk.name.clone();
        let Some(parsed) = parse_key(walk.ordering, &key) else {
            return self.find_unread(format!("{name}: strange key {key:02x?}"));
        };
        let whose = Some((walk.key.container(), walk.key.oid()));
        let record = self.own_record_of(whose, &name, &value, Kind::Newest);
        let Some(record) = record else { return };
        walk.stored_bytes += record.stored_bytes();
        if walk.place != parsed.place {
            self.end_dkey(walk);
            (walk.place, walk.akeys, walk.has_dkey) = (parsed.place.to_vec(), 0, false);
            walk.akey.clear();
        }
        match (parsed.akey, &record.body) {
            (None, Body::Dkey(dkey)) => {
                walk.has_dkey = true;
                let order = u64::from_be_bytes(parsed.place.try_into().unwrap_or_default());
                if !self.hash.allows(dkey, order) {
                    self.find(format!("{name}: a dkey is not where its hash says"));
                }
            }
            (Some((akey, Part::Single)), Body::Single(_)) => {
                self.enter_akey(walk, akey);
                walk.is_single = true;
            }
            (Some((akey, Part::Extent(offset))), Body::Extent(extent)) => {
                self.report.extents += 1;
                if walk.akey != akey {
                    self.enter_akey(walk, akey);
                } else if walk.is_single {
                    self.find(format!("{name}: an akey holds both kinds of value"));
                }
                if !offset.is_multiple_of(BLOCK) || offset / BLOCK < walk.end_block {
                    self.find(format!("{name}: extents overlap at offset {offset}"));
                }
                walk.end_block = offset / BLOCK + u64::from(extent.blocks());
            }
            _ => self.find(format!("{name}: a value of another kind than its key {key:02x?}")),
        }
    }

    fn enter_akey(&mut self, walk: &mut ObjectWalk, akey: &[u8]) {
        self.report.keys += 1;
        walk.akeys += 1;
        walk.akey = akey.to_vec();
        walk.is_single = false;
        walk.end_block = 0;
    }

    fn end_dkey(&mut self, walk: &ObjectWalk) {
        if walk.ordering != Ordering::Hash || walk.place.is_empty() {
            return;
        }
        if !walk.has_dkey || walk.akeys == 0 {
            self.mendable.broken.push((walk.key, walk.place.clone()));
        }
        if !walk.has_dkey {
            self.find(format!("{}: a dkey has values but no name", walk.name));
        }
        if walk.akeys == 0 {
            self.find(format!("{}: a dkey has no values", walk.name));
        }
    }

    fn end_object(&mut self, walk: ObjectWalk, key: ObjectKey, stored_bytes: u64) {
        self.end_dkey(&walk);
        let counted = self.counted.entry(key.container()).or_default();
        counted.0 += 1;
        counted.1 += stored_bytes;
        if walk.stored_bytes != stored_bytes {
            let found = walk.stored_bytes;
            self.mendable.sizes.push((key, found));
            self.find(format!("{}: stored bytes say {stored_bytes}, there are {found}", walk.name));
        }
    }

    /// Notes what a record owns, and what of it is to be verified.
    fn own_record(&mut self, what: &str, value: &[u8], kind: Kind) -> Option<Record> {
        self.own_record_of(None, what, value, kind)
    }

    fn own_record_of(
        &mut self,
        whose: Whose,
        what: &str,
        value: &[u8],
        kind: Kind,
    ) -> Option<Record> {
        let Some(record) = Record::decode(value) else {
            self.find_unread(format!("{what}: a record cannot be read"));
            return None;
        };
        for run in record.runs() {
            self.own(what, run);
        }
        if !matches!(kind, Kind::Reclaim) {
            self.note_data(whose, what, &record.body);
        }
        Some(record)
    }

    fn note_data(&mut self, whose: Whose, what: &str, body: &Body) {
        let mut note = |run, csums: &[daos_types::Csum]| {
            let (csums, what) = (csums.to_vec(), what.to_owned());
            self.data.push(Data { run, csums, what, whose });
        };
        match body {
            Body::Single(Single::Blocks { runs, csums, .. }) => {
                let mut at = 0;
                for run in runs {
                    let next = at + run.blocks as usize;
                    note(*run, &csums[at..next]);
                    at = next;
                }
            }
            Body::Extent(ExtentBody::Blocks { start, csums, .. }) => {
                let run = Run { start: *start, blocks: csums.len() as u32 };
                note(run, csums);
            }
            Body::Extent(extent @ ExtentBody::Pieces { start, csum, .. })
                if extent.written_end() > 0 =>
            {
                note(Run { start: *start, blocks: 1 }, &[*csum]);
            }
            _ => {}
        }
    }

    async fn verify_data(&mut self) -> Result<()> {
        for Data { run, csums, what, whose } in std::mem::take(&mut self.data) {
            match self.vos.store.read_data(BlockAddr(run.start), &csums).await {
                Ok(_) => {}
                Err(error @ (Error::Damaged(_) | Error::Device { .. })) => {
                    let finding = self.report.findings.len();
                    self.find(format!("{what}: {error}"));
                    let is_told = self.report.findings.len() > finding;
                    if let (Error::Damaged(damage), Some((container, object)), true) =
                        (error, whose, is_told)
                    {
                        let damage = *damage;
                        self.report.data.push(DamagedData { finding, container, object, damage });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn own(&mut self, what: &str, run: Run) {
        self.report.blocks += u64::from(run.blocks);
        for block in run.start..run.start + u64::from(run.blocks) {
            let Some(index) = block.checked_sub(self.first_block) else {
                return self.find(format!("{what}: block {block} is outside the space"));
            };
            let per_segment = u64::from(self.vos.store.segment_blocks());
            let Some(bits) = self.owned.get_mut((index / per_segment) as usize) else {
                return self.find(format!("{what}: block {block} is outside the space"));
            };
            let bit = index % per_segment;
            let word = &mut bits[bit as usize / 64];
            if *word >> (bit % 64) & 1 == 1 {
                self.find(format!("{what}: block {block} has two owners"));
            } else {
                *word |= 1 << (bit % 64);
            }
        }
    }

    async fn compare_space(&mut self) -> Result<()> {
        let fixed = self.vos.store.fixed_buckets();
        self.own("segment table", Run { start: fixed.addr.0, blocks: fixed.blocks });
        self.report.blocks -= u64::from(fixed.blocks);
        let segments = self.vos.store.segments();
        for segment in 0..segments {
            let table = self.vos.store.segment_use(segment).await?;
            for index in 0..self.vos.store.segment_blocks() {
                self.compare_block(segment, index, table);
            }
        }
        Ok(())
    }

    fn compare_block(&mut self, segment: u32, index: u32, table: SegmentUse) {
        let owned = self.owned[segment as usize][index as usize / 64] >> (index % 64) & 1 == 1;
        let block = table.start.0 + u64::from(index);
        let bucket = self.reached.contains(BucketId((block / BUCKET_BLOCKS) as u32));
        match (owned, bucket, table.is_allocated(index)) {
            (true, true, _) => self.find(format!("block {block} is data and part of a bucket")),
            (false, false, true) => {
                self.find(format!("block {block} is allocated but nothing refers to it"));
                self.mendable.leaked.push(Run { start: block, blocks: 1 });
            }
            (true, _, false) | (_, true, false) => {
                self.find(format!("block {block} is in use but not allocated"));
            }
            _ => {}
        }
    }
}

impl ObjectWalk {
    fn new(key: ObjectKey) -> Self {
        Self {
            key,
            name: format!("object {}", key.oid()),
            ordering: Ordering::of(key.oid()).unwrap_or(Ordering::Hash),
            place: Vec::new(),
            has_dkey: false,
            akeys: 0,
            akey: Vec::new(),
            is_single: false,
            end_block: 0,
            stored_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use daos_media::{Device, How, MemDevice};
    use daos_types::StoreId;
    use daos_types::rpc::{ContainerInfo, KeyRef, Op, Reply, Request, Transact};
    use daos_types::{BLOCK_BYTES, Dkey, Epoch, ObjectClass, ObjectId, ObjectType, PoolId};
    use daos_xstream::{Handle, sim};
    use uuid::Uuid;

    use super::*;
    use crate::store::{BlockRun, FormatOptions, Store, Tx, TxOptions};
    use crate::testing;
    use crate::vos::VosOptions;

    const CONTAINER: ContainerId = ContainerId(1);

    /// A store with one array of 64 KiB; its device, and a block of it.
    async fn fixture(handle: Handle) -> (Rc<MemDevice>, Rc<Vos>, BlockAddr) {
        let device = MemDevice::new(64 << 20);
        let options = FormatOptions { store: StoreId(Uuid::from_u128(1)), wal_bytes: None };
        Store::format(device.clone(), handle.clone(), options).await.unwrap();
        let store =
            Store::open(device.clone(), handle.clone(), testing::options(64)).await.unwrap();
        let vos = Vos::open(store, handle, VosOptions::default()).await.unwrap();
        let pool = PoolId(Uuid::from_u128(2));
        vos.handle(Request::PoolCreate { id: pool, label: "p".into() }).await.unwrap();
        let info = ContainerInfo {
            id: CONTAINER,
            uuid: Uuid::from_u128(3),
            label: "c".into(),
            created: Epoch::ZERO,
        };
        vos.handle(Request::ContainerCreate { pool, info }).await.unwrap();
        let object = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
        let key = KeyRef { object, dkey: Dkey::from_u64(1), akey: "0".into() };
        let data = Bytes::from(vec![7; 16 * BLOCK_BYTES]);
        let ops = vec![Op::UpdateArray { key, offset: 0, data }];
        let transact = Transact { container: CONTAINER, conditions: vec![], ops };
        vos.handle(Request::Transact(transact)).await.unwrap();
        let roots = vos.roots;
        let find = |pages: &View<'_>| {
            let object = roots.objects.object(CONTAINER, object, 0).view(pages)?;
            let pairs = crate::kv::Kv::range(&object, &[0], None, 1)?;
            Ok(Record::decode(&pairs[0].1).expect("a record").runs()[0].start)
        };
        let (block, _) = vos.store.view(find).await.unwrap();
        (device, vos, BlockAddr(block))
    }

    async fn findings(vos: &Vos, repair: bool) -> Vec<String> {
        match vos.handle(Request::Check { repair }).await {
            Ok(Reply::Checked(report)) => report.findings,
            other => panic!("{other:?}"),
        }
    }

    fn has(findings: &[String], text: &str) -> bool {
        findings.iter().any(|finding| finding.contains(text))
    }

    #[test]
    fn a_sound_store_has_no_findings_and_a_freed_block_in_use_is_one() {
        sim::run(1, |handle| async move {
            let (_, vos, block) = fixture(handle).await;
            assert!(findings(&vos, false).await.is_empty());
            let free = |tx: &mut Tx<'_>| tx.free_blocks(BlockRun::new(block, 1));
            vos.store.transact(TxOptions::default(), free).await.unwrap();
            assert!(has(&findings(&vos, false).await, "in use but not allocated"));
        });
    }

    #[test]
    fn leaked_blocks_and_wrong_counters_are_found_and_repaired() {
        sim::run(1, |handle| async move {
            let (_, vos, _) = fixture(handle).await;
            let reservation = vos.store.reserve(3, TxOptions::default()).await.unwrap();
            let roots = vos.roots;
            let leak = |tx: &mut Tx<'_>| {
                for run in reservation.runs() {
                    tx.publish(&reservation, *run)?;
                }
                roots.set_counters(tx, CONTAINER, (5, 5))
            };
            vos.store.transact(TxOptions::default(), leak).await.unwrap();
            let found = findings(&vos, true).await;
            assert!(has(&found, "nothing refers to it") && has(&found, "counters say (5, 5)"));
            assert!(findings(&vos, false).await.is_empty(), "repaired");
        });
    }

    #[test]
    fn what_a_record_that_makes_no_sense_may_refer_to_is_not_freed() {
        sim::run(1, |handle| async move {
            let (_, vos, _) = fixture(handle).await;
            let roots = vos.roots;
            let garble = |tx: &mut Tx<'_>| {
                let oid = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
                let object = roots.objects.object(CONTAINER, oid, 0);
                let pairs = crate::kv::Kv::range(&object.view(tx)?, &[0], None, 1)?;
                crate::kv::KvMut::put(&mut object.edit(tx), &pairs[0].0, b"no record")
            };
            vos.store.transact(TxOptions::default(), garble).await.unwrap();
            let report = vos.check(true).await.unwrap();
            assert!(has(&report.unmended, "counts and space are left as they are"), "{report:?}");
            assert!(!has(&report.mended, "were freed"), "{report:?}");
            assert!(has(&findings(&vos, false).await, "nothing refers to it"), "still there");
        });
    }

    #[test]
    fn data_that_changed_on_the_device_is_found() {
        sim::run(1, |handle| async move {
            let (device, vos, block) = fixture(handle).await;
            let rotten = Bytes::from(vec![8; BLOCK_BYTES]);
            device.write(rotten, block.byte_address(), How::Direct).await.unwrap();
            assert!(has(&findings(&vos, false).await, "expected checksum"));
        });
    }
}
