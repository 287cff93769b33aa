//! Reading and verifying everything that is stored, step by step, while it is in use.
//!
//! A step begins where the one before ended, by key: nothing is remembered between two of them, and whatever changes meanwhile is
//! seen as it is or was. A bucket that cannot be read is a finding, and the walk goes on behind the keys that it held.
//!
//! # Order
//! What lies at fixed places, then the pool table, the container table, the objects, each container's history, and what waits
//! to be given back. Blocks that a leaf refers to are read under a guard from before the leaf was read.
//!
//! # Not here
//! Who owns which block, counters, order of records: `check`, which needs the store for itself.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use daos_types::rpc::{Finding, Scrub, Scrubbed};
use daos_types::{BLOCK_BYTES, ContainerId, Csum, Damage, Epoch, Error, ObjectId, PoolId, Result};

use crate::btree::{Tree, Way};
use crate::container::ContainerRecord;
use crate::flat;
use crate::history::{HistoryKey, parse as parse_history, split_hidden};
use crate::kv::Pair;
use crate::object::{Body as ObjectBody, ObjectKey, Record as ObjectRecord};
use crate::pages::{Abort, BUCKET_BYTES, BucketId};
use crate::reclaim::{Entry, EntryBody, roots};
use crate::record::{Body, ExtentBody, Record, Run, Single};
use crate::store::{BlockAddr, View};
use crate::vos::Vos;

/// Least and most that one step reads.
const STEP_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
/// Findings that one reply holds; the step ends there.
const FINDINGS_MAX: usize = 500;

/// The parts of a store, in the order of a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Fixed,
    Pools,
    Containers,
    Objects,
    Histories,
    Reclaim,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Fixed, Self::Pools, Self::Containers, Self::Objects, Self::Histories, Self::Reclaim];

    fn after(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// Where a scrub goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    phase: Phase,
    /// First key of the phase's tree that is still to be looked at.
    key: Vec<u8>,
    /// First key in the tree that `key` leads to, while the walk is in it.
    inner: Option<Vec<u8>>,
}

impl Cursor {
    const START: Self = Self { phase: Phase::Fixed, key: Vec::new(), inner: None };

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(self.phase as u8);
        out.put_u16(self.key.len() as u16);
        out.put_slice(&self.key);
        if let Some(inner) = &self.inner {
            out.put_u16(inner.len() as u16);
            out.put_slice(inner);
        }
        out.freeze()
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::START);
        }
        let mut bytes = bytes.clone();
        let phase = *Phase::ALL.get(usize::from(bytes.try_get_u8().ok()?))?;
        let mut run = || {
            let len = usize::from(bytes.try_get_u16().ok()?);
            (len <= bytes.len()).then(|| bytes.split_to(len).to_vec())
        };
        let (key, inner) = (run()?, run());
        bytes.is_empty().then_some(Self { phase, key, inner })
    }

    fn next_phase(&self) -> Option<Self> {
        Some(Self { phase: self.phase.after()?, key: Vec::new(), inner: None })
    }

    fn at(&self, key: Vec<u8>) -> Self {
        Self { phase: self.phase, key, inner: None }
    }

    /// Into the tree that `key` leads to, or on in it.
    fn inside(&self, key: Vec<u8>, inner: Vec<u8>) -> Self {
        Self { phase: self.phase, key, inner: Some(inner) }
    }

    /// Behind `high`, or in the next phase.
    fn behind(&self, high: Option<Vec<u8>>) -> Option<Self> {
        match high {
            Some(high) => Some(self.at(high)),
            None => self.next_phase(),
        }
    }
}

/// The smallest key after this one.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Whose bytes are read.
#[derive(Clone, Copy, Debug, Default)]
struct Whose {
    pool: Option<PoolId>,
    container: Option<ContainerId>,
    object: Option<ObjectId>,
    until: Option<Epoch>,
}

/// A leaf that was looked at.
struct Leaf {
    pairs: Vec<Pair>,
    high: Option<Vec<u8>>,
}

impl Vos {
    /// One step.
    pub(crate) async fn scrub(&self, request: &Scrub) -> Result<Scrubbed> {
        let cursor = Cursor::decode(&request.after);
        let mut cursor = cursor.ok_or(Error::Invalid("a scrub cannot go on from there"))?;
        let bytes_max = request.bytes_max.clamp(*STEP_BYTES.start(), *STEP_BYTES.end());
        let mut step = Step { vos: self, done: Scrubbed::default(), verified: Vec::new() };
        loop {
            let Some(next) = step.advance(&cursor).await? else { return Ok(step.done) };
            cursor = next;
            if step.done.bytes >= bytes_max || step.done.findings.len() >= FINDINGS_MAX {
                step.done.next = Some(cursor.encode());
                return Ok(step.done);
            }
            self.handle.yield_now().await;
        }
    }
}

struct Step<'v> {
    vos: &'v Vos,
    done: Scrubbed,
    /// Buckets that this step has verified: every leaf has the same ones above it.
    verified: Vec<BucketId>,
}

impl Step<'_> {
    async fn advance(&mut self, cursor: &Cursor) -> Result<Option<Cursor>> {
        let vos = self.vos;
        match cursor.phase {
            Phase::Fixed => {
                let (found, bytes) = vos.store.scrub_fixed().await?;
                self.done.bytes += bytes;
                for damage in found {
                    self.find("what lies at a fixed place", Whose::default(), Some(damage));
                }
                Ok(cursor.next_phase())
            }
            Phase::Pools => {
                let _guard = vos.store.read_guard();
                let pools = vos.roots.pools;
                let leaf =
                    self.leaf(&cursor.key, "the pool table", Whose::default(), |_| Ok(Some(pools)));
                Ok(cursor.behind(leaf.await?.and_then(|leaf| leaf.high)))
            }
            Phase::Containers => {
                let _guard = vos.store.read_guard();
                let table = vos.roots.containers;
                let whose = Whose::default();
                let leaf =
                    self.leaf(&cursor.key, "the container table", whose, |_| Ok(Some(table)));
                Ok(cursor.behind(leaf.await?.and_then(|leaf| leaf.high)))
            }
            Phase::Objects => match &cursor.inner {
                None => self.objects(cursor).await,
                Some(inner) => self.object_tree(cursor, inner).await,
            },
            Phase::Histories => match &cursor.inner {
                None => self.history(cursor).await,
                Some(inner) => self.hidden_tree(cursor, inner).await,
            },
            Phase::Reclaim => match &cursor.inner {
                None => self.reclaim(cursor).await,
                Some(inner) => self.detached(cursor, inner).await,
            },
        }
    }

    fn find(&mut self, what: &str, whose: Whose, damage: Option<Damage>) {
        let damage = damage.map(|damage| Damage { pool: damage.pool.or(whose.pool), ..damage });
        let Whose { container, object, until, .. } = whose;
        let what = what.to_owned();
        self.done.findings.push(Finding { what, container, object, until, damage });
    }

    /// A leaf of a tree, all of it verified where it lies. `None`: there is no such tree any more.
    async fn leaf(
        &mut self,
        from: &[u8],
        what: &str,
        whose: Whose,
        mut tree: impl FnMut(&View<'_>) -> Result<Option<Tree>, Abort>,
    ) -> Result<Option<Leaf>> {
        let mut way = Way::default();
        let look = |pages: &View<'_>| match tree(pages)? {
            Some(tree) => tree.leaf_at(pages, from, &mut way).map(Some),
            None => Ok(None),
        };
        let pairs = match self.vos.store.view(look).await {
            Ok((None, _)) => return Ok(None),
            Ok((Some(pairs), _)) => pairs,
            Err(Error::Damaged(damage)) => {
                self.find(&format!("a bucket of {what}"), whose, Some(*damage));
                way.buckets.pop();
                Vec::new()
            }
            Err(Error::Invalid(_)) => {
                self.find(&format!("a bucket of {what}"), whose, None);
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        for bucket in way.buckets {
            if self.verified.contains(&bucket) {
                continue;
            }
            self.verified.push(bucket);
            self.done.bytes += BUCKET_BYTES as u64;
            if let Some(damage) = self.vos.store.scrub_bucket(bucket).await? {
                self.find(&format!("a bucket of {what}"), whose, Some(damage));
            }
        }
        Ok(Some(Leaf { pairs, high: way.high }))
    }

    async fn objects(&mut self, cursor: &Cursor) -> Result<Option<Cursor>> {
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let table = vos.roots.objects.tree;
        let leaf =
            self.leaf(&cursor.key, "the object table", Whose::default(), |_| Ok(Some(table)));
        let Some(leaf) = leaf.await? else { return Ok(cursor.next_phase()) };
        let mut container: Option<(ContainerId, Option<PoolId>)> = None;
        for (key, value) in leaf.pairs {
            let split = ObjectKey::split(&key);
            let is_pair = split.is_some_and(|(_, rest)| !rest.is_empty());
            let record = if is_pair { None } else { ObjectRecord::parse(&value) };
            let Some((object, _)) = split.filter(|_| is_pair || record.is_some()) else {
                self.find("a record of the object table", Whose::default(), None);
                continue;
            };
            let id = object.container();
            if container.is_none_or(|(known, _)| known != id) {
                container = Some((id, self.pool_of(id).await?));
            }
            // What is left of a destroyed container may be anything.
            let Some((_, Some(pool))) = container else { continue };
            let whose = Whose {
                pool: Some(pool),
                container: Some(id),
                object: Some(object.oid()),
                until: None,
            };
            let Some(record) = record else {
                // Of a spread object.
                self.record(&value, whose).await?;
                continue;
            };
            match record.body {
                ObjectBody::Spread => {}
                ObjectBody::Tree(_) => return Ok(Some(cursor.inside(key, Vec::new()))),
                ObjectBody::Flat(run) if flat::verify(run).is_err() => {
                    self.find("an object's record", whose, None);
                }
                ObjectBody::Flat(run) => {
                    for (_, value) in flat::pairs(run) {
                        self.record(&value, whose).await?;
                    }
                }
            }
        }
        Ok(cursor.behind(leaf.high))
    }

    /// The pool of a container; `None`: the container is gone.
    async fn pool_of(&self, id: ContainerId) -> Result<Option<PoolId>> {
        let roots = self.vos.roots;
        match self.vos.store.view(|pages: &View<'_>| roots.container(pages, id)).await {
            Ok((record, _)) => Ok(Some(record.pool)),
            Err(Error::NonExistent(_)) => Ok(None),
            // Told by the walk of the container table: its objects are there all the same.
            Err(Error::Damaged(_) | Error::Invalid(_)) => Ok(Some(PoolId(uuid::Uuid::nil()))),
            Err(error) => Err(error),
        }
    }

    async fn object_tree(&mut self, cursor: &Cursor, inner: &[u8]) -> Result<Option<Cursor>> {
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let key = ObjectKey::from_bytes(&cursor.key).ok_or(Error::Invalid("no object's key"))?;
        let whose = Whose {
            pool: self.pool_of(key.container()).await?,
            container: Some(key.container()),
            object: Some(key.oid()),
            until: None,
        };
        let table = vos.roots.objects.tree;
        let tree = |pages: &View<'_>| {
            let value = table.value(pages, &cursor.key)?;
            Ok(match value.and_then(ObjectRecord::parse).map(|record| record.body) {
                Some(ObjectBody::Tree(tree)) => Some(tree),
                _ => None,
            })
        };
        let Some(leaf) = self.leaf(inner, "an object", whose, tree).await? else {
            return Ok(Some(cursor.at(after(&cursor.key))));
        };
        for (_, value) in leaf.pairs {
            self.record(&value, whose).await?;
        }
        Ok(Some(match leaf.high {
            Some(high) => cursor.inside(cursor.key.clone(), high),
            None => cursor.at(after(&cursor.key)),
        }))
    }

    /// The container that a key of this phase begins with, or the next one that has a history.
    async fn history_of(&self, key: &[u8]) -> Result<Option<(ContainerId, ContainerRecord)>> {
        let roots = self.vos.roots;
        let from = key.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        let all = self.vos.store.view(|pages: &View<'_>| roots.all_containers(pages)).await;
        let all = match all {
            Ok((all, _)) => all,
            // Told by the walk of the container table.
            Err(Error::Damaged(_) | Error::Invalid(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(all.into_iter().find(|(id, record)| id.0 >= from && record.history.is_some()))
    }

    async fn history(&mut self, cursor: &Cursor) -> Result<Option<Cursor>> {
        let Some((id, record)) = self.history_of(&cursor.key).await? else {
            return Ok(cursor.next_phase());
        };
        let prefix = id.0.to_be_bytes();
        let from = cursor.key.strip_prefix(&prefix).unwrap_or_default().to_vec();
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let mut whose = Whose { pool: Some(record.pool), container: Some(id), ..Whose::default() };
        let tree = |pages: &View<'_>| match vos.roots.container(pages, id) {
            Ok(record) => Ok(record.history),
            Err(Abort::Error(Error::NonExistent(_))) => Ok(None),
            Err(abort) => Err(abort),
        };
        let leaf = self.leaf(&from, "a container's history", whose, tree).await?;
        let Some(leaf) = leaf else { return Ok(next_container(cursor, id)) };
        for (key, value) in leaf.pairs {
            let Some(hidden) = parse_history(&key) else {
                self.find("a record of a container's history", whose, None);
                continue;
            };
            whose.object = key.first_chunk().map(|oid| ObjectId::from_bytes(*oid));
            match hidden {
                HistoryKey::State { .. } => {}
                HistoryKey::Record { .. } => match split_hidden(&value) {
                    Some((end, record)) => {
                        whose.until = Some(end);
                        self.record(record, whose).await?;
                    }
                    None => self.find("a record of a container's history", whose, None),
                },
                HistoryKey::Tree { .. } => {
                    let key = [&prefix, &key[..]].concat();
                    return Ok(Some(cursor.inside(key, Vec::new())));
                }
            }
        }
        Ok(match leaf.high {
            Some(high) => Some(cursor.at([&prefix, &high[..]].concat())),
            None => next_container(cursor, id),
        })
    }

    /// A tree of pairs that were hidden together.
    async fn hidden_tree(&mut self, cursor: &Cursor, inner: &[u8]) -> Result<Option<Cursor>> {
        let behind = Some(cursor.at(after(&cursor.key)));
        let Some((prefix, key)) = cursor.key.split_first_chunk() else { return Ok(behind) };
        let id = ContainerId(u16::from_be_bytes(*prefix));
        let Some(HistoryKey::Tree { end, tree, .. }) = parse_history(key) else {
            return Ok(behind);
        };
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let whose = Whose {
            pool: self.pool_of(id).await?,
            container: Some(id),
            object: key.first_chunk().map(|oid| ObjectId::from_bytes(*oid)),
            until: Some(end),
        };
        let there = |pages: &View<'_>| match vos.roots.container(pages, id) {
            Ok(ContainerRecord { history: Some(history), .. }) => {
                Ok(history.value(pages, key)?.map(|_| tree))
            }
            Ok(_) | Err(Abort::Error(Error::NonExistent(_))) => Ok(None),
            Err(abort) => Err(abort),
        };
        let leaf = self.leaf(inner, "a container's history", whose, there).await?;
        let Some(leaf) = leaf else { return Ok(behind) };
        for (_, value) in leaf.pairs {
            self.record(&value, whose).await?;
        }
        Ok(match leaf.high {
            Some(high) => Some(cursor.inside(cursor.key.clone(), high)),
            None => behind,
        })
    }

    async fn reclaim(&mut self, cursor: &Cursor) -> Result<Option<Cursor>> {
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let list = vos.roots.reclaim.tree;
        let leaf = self.leaf(&cursor.key, "the reclaim list", Whose::default(), |_| Ok(Some(list)));
        let Some(leaf) = leaf.await? else { return Ok(None) };
        for (key, value) in leaf.pairs {
            match Entry::parse(&value) {
                Some(Entry { body: EntryBody::Trees(_), .. }) => {
                    return Ok(Some(cursor.inside(key, vec![0, 0])));
                }
                Some(_) => {}
                None => self.find("a record of the reclaim list", Whose::default(), None),
            }
        }
        Ok(cursor.behind(leaf.high))
    }

    /// Trees that wait to be taken apart: their buckets have to be read for that; their data is nobody's any more. `inner`: which
    /// of them (2), then the key in it.
    async fn detached(&mut self, cursor: &Cursor, inner: &[u8]) -> Result<Option<Cursor>> {
        let behind = Some(cursor.at(after(&cursor.key)));
        let Some((number, from)) = inner.split_first_chunk::<2>() else { return Ok(behind) };
        let number = u16::from_be_bytes(*number);
        let vos = self.vos;
        let _guard = vos.store.read_guard();
        let list = vos.roots.reclaim.tree;
        let tree = |pages: &View<'_>| {
            let value = list.value(pages, &cursor.key)?;
            Ok(match value.and_then(Entry::parse).map(|entry| entry.body) {
                Some(EntryBody::Trees(bytes)) => roots(bytes).nth(usize::from(number)),
                _ => None,
            })
        };
        let leaf = self.leaf(from, "the reclaim list", Whose::default(), tree).await?;
        let Some(leaf) = leaf else { return Ok(behind) };
        let (number, from) = match leaf.high {
            Some(high) => (number, high),
            None => (number + 1, Vec::new()),
        };
        let inner = [&number.to_be_bytes(), &from[..]].concat();
        Ok(Some(cursor.inside(cursor.key.clone(), inner)))
    }

    /// Reads what a record keeps in blocks.
    async fn record(&mut self, value: &[u8], whose: Whose) -> Result<()> {
        let Some(record) = Record::decode(value) else {
            self.find("a record", whose, None);
            return Ok(());
        };
        match &record.body {
            Body::Single(Single::Blocks { runs, csums, .. }) => {
                let mut csums = &csums[..];
                for run in runs {
                    let (these, rest) = csums.split_at(csums.len().min(run.blocks as usize));
                    self.data(*run, these, "a value", whose).await?;
                    csums = rest;
                }
                Ok(())
            }
            Body::Extent(ExtentBody::Blocks { start, csums, .. }) => {
                let run = Run { start: *start, blocks: csums.len() as u32 };
                self.data(run, csums, "data", whose).await
            }
            Body::Extent(extent @ ExtentBody::Pieces { start, csum, .. })
                if extent.written_end() > 0 && *start != 0 =>
            {
                self.data(Run { start: *start, blocks: 1 }, &[*csum], "data", whose).await
            }
            _ => Ok(()),
        }
    }

    /// Every block of a run: after a damaged one the others are looked at too.
    async fn data(&mut self, run: Run, csums: &[Csum], what: &str, whose: Whose) -> Result<()> {
        let mut at = 0;
        while at < csums.len() {
            let first = BlockAddr(run.start + at as u64);
            let read = self.vos.store.read_data(first, &csums[at..]).await;
            let damage = match read {
                Ok(_) => break,
                Err(Error::Damaged(damage)) => *damage,
                Err(error) => return Err(error),
            };
            let bad = damage.address.saturating_sub(first.byte_address()) / BLOCK_BYTES as u64;
            at += bad as usize + 1;
            self.find(what, whose, Some(damage));
        }
        self.done.bytes += csums.len() as u64 * BLOCK_BYTES as u64;
        Ok(())
    }
}

/// Where the history of the next container begins.
fn next_container(cursor: &Cursor, id: ContainerId) -> Option<Cursor> {
    match id.0.checked_add(1) {
        Some(next) => Some(cursor.at(next.to_be_bytes().to_vec())),
        None => cursor.next_phase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_bytes_and_nonsense_is_refused() {
        let inside = Cursor { phase: Phase::Objects, key: vec![1, 2], inner: Some(vec![]) };
        let all =
            [Cursor::START, inside.at(vec![9; 1200]), inside.inside(vec![3], vec![4]), inside];
        for cursor in all {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for nonsense in [&b"\x09\0\0"[..], b"\x03", b"\x03\0\x05a", b"\x03\0\0\0\x01ab"] {
            assert_eq!(Cursor::decode(&Bytes::copy_from_slice(nonsense)), None, "{nonsense:?}");
        }
    }
}
