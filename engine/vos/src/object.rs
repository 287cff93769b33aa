//! Objects: the object table, and what an object looks like as an ordered map whatever its form.
//!
//! An object is *flat* while it is small (its pairs lie in its record, in a leaf of the object table: one bucket read
//! when cold) and is *spread* when the record outgrows a quarter bucket: its pairs lie in the object table itself, right
//! behind its record, each under the object's key and its own. So objects of any size share leaves, and none begins with
//! a bucket. Stores of version 4 and below made a *tree* of such an object; it stays one.
//!
//! # Invariants
//! 1. A record is at most [`RECORD_MAX`] bytes; a tree or a spread object does not become flat again.
//! 2. The first put creates the record; only [`Object::detach`] and reclaim remove it.
//! 3. An object that is not there reads as an empty map.
//! 4. Pairs in the table stand behind the record of their object, and it says that it is spread. (Damage can take the record
//!    away: then a repair makes it anew.)
//!
//! # On disk
//! FORMAT.md, "Object table", "Object record".
//!
//! # Not here
//! What keys and values mean (`key`, `record`); giving detached buckets back (`reclaim`).

use std::ops::ControlFlow;

use daos_types::{ContainerId, Epoch, ObjectId};
use smallvec::SmallVec;

use crate::btree::{Tree, check_sizes};
use crate::flat::{self, EXPANDED_MAX, Splice};
use crate::kv::{KEY_MAX, Kv, KvMut, Pair, TREE_KEY_MAX, VALUE_MAX, Visit, after_prefix};
use crate::pages::{Abort, BucketId, Pages, PagesMut};
use crate::reclaim::{Contents, Reclaim};

/// Most bytes of an object's record, which stores of version 4 and below filled: a quarter bucket, less what a reclaim entry adds.
pub const RECORD_MAX: usize = 4000;
/// Most bytes of a flat object's record: it is searched from its start, and written again when the object is spread.
const FLAT_MAX: usize = 2000;
const _: () = assert!(RECORD_MAX + 64 <= VALUE_MAX);

const KEY_BYTES: usize = 22;
const _: () = assert!(KEY_BYTES + KEY_MAX <= TREE_KEY_MAX);
const FLAT: u8 = 0;
const TREE: u8 = 1;
const SPREAD: u8 = 2;
const HEADER_AT: usize = 1;
/// Where the flat run or the tree's root begins.
const BODY_AT: usize = HEADER_AT + 16;

/// Key of the object table: container, object id, shard, big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey([u8; KEY_BYTES]);

impl ObjectKey {
    #[must_use]
    pub fn new(container: ContainerId, oid: ObjectId, shard: u32) -> Self {
        let mut key = [0; KEY_BYTES];
        key[..2].copy_from_slice(&container.0.to_be_bytes());
        key[2..18].copy_from_slice(&oid.to_bytes());
        key[18..].copy_from_slice(&shard.to_be_bytes());
        Self(key)
    }

    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Of a key of the object table, which may be that of a spread object's pair: the object, and the rest.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (key, rest) = bytes.split_first_chunk()?;
        Some((Self(*key), rest))
    }

    /// The key of a pair of the object in the object table.
    fn of_pair(&self, key: &[u8]) -> SmallVec<[u8; 96]> {
        let mut whole = SmallVec::from_slice(&self.0);
        whole.extend_from_slice(key);
        whole
    }

    /// The first key that a pair of the object from `key` on can have.
    fn range_start(&self, key: &[u8]) -> SmallVec<[u8; 96]> {
        // An empty key would be the record's.
        self.of_pair(if key.is_empty() { &[0] } else { key })
    }

    /// What ends a range of pairs; `None` ends the table too.
    fn range_end(&self, to: Option<&[u8]>) -> Option<Vec<u8>> {
        match to {
            Some(to) => Some(self.range_start(to).to_vec()),
            None => after_prefix(&self.0),
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn container(&self) -> ContainerId {
        ContainerId(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    #[must_use]
    pub fn oid(&self) -> ObjectId {
        ObjectId::from_bytes(self.0[2..18].try_into().expect("16 bytes"))
    }

    #[must_use]
    pub fn shard(&self) -> u32 {
        u32::from_be_bytes(self.0[18..].try_into().expect("4 bytes"))
    }
}

/// What is kept once per object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ObjectHeader {
    pub data_epoch: Epoch,
    pub stored_bytes: u64,
}

impl ObjectHeader {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.data_epoch.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes
    }
}

/// An object's record, read.
#[derive(Clone, Copy)]
pub(crate) struct Record<'r> {
    pub header: ObjectHeader,
    pub body: Body<'r>,
}

#[derive(Clone, Copy)]
pub(crate) enum Body<'r> {
    Flat(&'r [u8]),
    Tree(Tree),
    /// The pairs are behind the record.
    Spread,
}

impl<'r> Record<'r> {
    /// `None`: the bytes are no record.
    pub fn parse(bytes: &'r [u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let header = ObjectHeader {
            data_epoch: Epoch(number(HEADER_AT)?),
            stored_bytes: number(HEADER_AT + 8)?,
        };
        let body = match bytes[0] {
            FLAT => Body::Flat(&bytes[BODY_AT..]),
            SPREAD if bytes.len() == BODY_AT => Body::Spread,
            TREE => {
                let root = bytes[BODY_AT..].try_into().ok()?;
                Body::Tree(Tree { root: BucketId(u32::from_le_bytes(root)) })
            }
            _ => return None,
        };
        Some(Self { header, body })
    }

    fn of(bytes: &'r [u8]) -> Self {
        Self::parse(bytes).expect("the object table holds object records")
    }
}

/// All objects of a store.
#[derive(Clone, Copy, Debug)]
pub struct ObjectTable {
    pub tree: Tree,
}

impl ObjectTable {
    /// The object of that name, whether it is there or not.
    #[must_use]
    pub fn object(self, container: ContainerId, oid: ObjectId, shard: u32) -> Object {
        Object { table: self, key: ObjectKey::new(container, oid, shard) }
    }

    /// Objects of a container in key order, `after` excluded, at most `max`.
    pub fn list<P: Pages + ?Sized>(
        self,
        pages: &P,
        container: ContainerId,
        after: Option<ObjectKey>,
        max: usize,
    ) -> Result<Vec<(ObjectKey, ObjectHeader)>, Abort> {
        let mut found = Vec::new();
        if max == 0 {
            return Ok(found);
        }
        let prefix = container.0.to_be_bytes();
        let mut from = after.map(|after| after.range_end(None)).unwrap_or(Some(prefix.to_vec()));
        while let Some(first) = from.take() {
            self.tree.view(pages).scan(&first, &mut |key, value| {
                if !key.starts_with(&prefix) {
                    return ControlFlow::Break(());
                }
                let (key, rest) = ObjectKey::split(key).expect("the table holds object keys");
                if !rest.is_empty() {
                    // Past the pairs of a spread object, which may be very many.
                    from = key.range_end(None);
                    return ControlFlow::Break(());
                }
                found.push((key, Record::of(value).header));
                if found.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    /// The first object of a container.
    pub(crate) fn first<P: Pages + ?Sized>(
        self,
        pages: &P,
        container: ContainerId,
    ) -> Result<Option<Object>, Abort> {
        let found = self.list(pages, container, None, 1)?;
        Ok(found.first().map(|&(key, _)| Object { table: self, key }))
    }
}

/// One object by name.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    table: ObjectTable,
    key: ObjectKey,
}

impl Object {
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.key
    }

    fn record<'p, P: Pages + ?Sized>(&self, pages: &'p P) -> Result<Option<Record<'p>>, Abort> {
        Ok(self.table.tree.value(pages, self.key.as_bytes())?.map(Record::of))
    }

    /// `None`: there is no such object.
    pub fn header<P: Pages + ?Sized>(&self, pages: &P) -> Result<Option<ObjectHeader>, Abort> {
        Ok(self.record(pages)?.map(|record| record.header))
    }

    /// Creates the record if need be, and writes what differs.
    pub fn set_header<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        header: ObjectHeader,
    ) -> Result<(), Abort> {
        self.create(pages)?;
        self.change_header(pages, header)
    }

    /// Writes what differs in the header of an object that is there.
    pub(crate) fn change_header<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        header: ObjectHeader,
    ) -> Result<(), Abort> {
        let bytes = header.to_bytes();
        self.table.tree.splice(pages, self.key.as_bytes(), HEADER_AT, bytes.len(), &bytes)
    }

    /// An empty object, if it is not there; true: it was not.
    pub fn create<P: PagesMut + ?Sized>(&self, pages: &mut P) -> Result<bool, Abort> {
        if self.record(pages)?.is_some() {
            return Ok(false);
        }
        self.table.tree.put(pages, self.key.as_bytes(), &[FLAT; BODY_AT])?;
        Ok(true)
    }

    /// To read as a map, looked up once.
    pub fn view<'p, P: Pages + ?Sized>(&self, pages: &'p P) -> Result<ObjectView<'p, P>, Abort> {
        let body = self.record(pages)?.map_or(Body::Flat(&[]), |record| record.body);
        Ok(ObjectView { body, object: *self, pages })
    }

    /// To read as a map, if it is known to be large.
    pub(crate) fn view_large<'p, P: Pages + ?Sized>(
        &self,
        pages: &'p P,
        large: Large,
    ) -> ObjectView<'p, P> {
        let body = match large {
            Large::Tree(tree) => Body::Tree(tree),
            Large::Spread => Body::Spread,
        };
        ObjectView { body, object: *self, pages }
    }

    /// As [`Object::edit`], of an object that is known to be large.
    pub(crate) fn edit_large<'p, P: PagesMut + ?Sized>(
        &self,
        pages: &'p mut P,
        large: Large,
    ) -> ObjectEdit<'p, P> {
        ObjectEdit { object: *self, large: Some(large), pages }
    }

    /// The pairs of the object where it is spread.
    fn pairs(&self) -> SpreadPairs {
        SpreadPairs { tree: self.table.tree, key: self.key }
    }

    /// To read and change as a map.
    pub fn edit<'p, P: PagesMut + ?Sized>(&self, pages: &'p mut P) -> ObjectEdit<'p, P> {
        ObjectEdit { object: *self, large: None, pages }
    }

    /// Removes the record. A flat object of at most `pairs_max` pairs is gone at once and these are its pairs; what a larger
    /// one held goes to the reclaim list.
    pub fn detach<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        reclaim: Reclaim,
        pairs_max: usize,
    ) -> Result<Detached, Abort> {
        let Some(record) = self.record(pages)? else {
            return Ok(Detached::Absent);
        };
        let header = record.header;
        let (pairs, is_whole) = match record.body {
            Body::Flat(run) if flat::count(run) <= pairs_max => (flat::pairs(run), true),
            Body::Flat(run) => {
                let run = run.to_vec();
                reclaim.add_run(pages, Contents::Object, &run)?;
                (Vec::new(), false)
            }
            Body::Tree(tree) => {
                reclaim.add_trees(pages, Contents::Object, &[tree])?;
                (Vec::new(), false)
            }
            Body::Spread => {
                let range = (b"".as_slice(), None);
                if self.pairs().view(pages).range(range.0, range.1, pairs_max + 1)?.len()
                    <= pairs_max
                {
                    (self.pairs().remove_range(pages, range.0, range.1, pairs_max)?, true)
                } else {
                    let trees = self.pairs().detach_range(pages, range.0, range.1)?;
                    reclaim.add_trees(pages, Contents::Object, &trees)?;
                    (Vec::new(), false)
                }
            }
        };
        self.forget(pages)?;
        Ok(Detached::Gone { header, pairs, is_whole })
    }

    /// Moves everything with `from <= key < to`, however much it is, to the reclaim list.
    pub fn detach_range<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        reclaim: Reclaim,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(), Abort> {
        let trees = match self.record(pages)? {
            None => return Ok(()),
            Some(Record { body: Body::Tree(tree), .. }) => tree.detach_range(pages, from, to)?,
            Some(Record { body: Body::Spread, .. }) => {
                self.pairs().detach_range(pages, from, to)?
            }
            Some(Record { body: Body::Flat(run), .. }) => {
                let Some((splice, pairs)) = flat::remove_range(run, from, to, usize::MAX) else {
                    return Ok(());
                };
                self.splice(pages, &splice)?;
                vec![Tree::of_one_leaf(pages, &pairs)?]
            }
        };
        reclaim.add_trees(pages, Contents::Object, &trees)
    }

    /// Removes the record and hands what it held to the caller.
    pub(crate) fn take<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
    ) -> Result<Option<(ObjectHeader, Taken)>, Abort> {
        let Some(record) = self.record(pages)? else {
            return Ok(None);
        };
        let header = record.header;
        let taken = match record.body {
            Body::Flat(run) => Taken::Pairs(flat::pairs(run)),
            Body::Tree(tree) => Taken::Trees(vec![tree], Keys::Own),
            Body::Spread => Taken::Trees(self.pairs().detach_range(pages, b"", None)?, Keys::Whole),
        };
        self.forget(pages)?;
        Ok(Some((header, taken)))
    }

    /// As [`Object::detach_range`], but the subtrees are the caller's.
    pub(crate) fn detach_trees<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<(Vec<Tree>, Keys), Abort> {
        Ok(match self.record(pages)?.map(|record| record.body) {
            Some(Body::Tree(tree)) => (tree.detach_range(pages, from, to)?, Keys::Own),
            Some(Body::Spread) => (self.pairs().detach_range(pages, from, to)?, Keys::Whole),
            _ => (Vec::new(), Keys::Own),
        })
    }

    /// Takes up to `max` pairs from the object's end; none are left: its record and tree go too, and it is true.
    pub(crate) fn take_apart<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        max: usize,
    ) -> Result<(Vec<Pair>, bool), Abort> {
        let Some(record) = self.record(pages)? else {
            return Ok((Vec::new(), true));
        };
        match record.body {
            Body::Tree(tree) => {
                let pairs = tree.pop_last(pages, max)?;
                let empty = tree.is_empty(pages)?;
                if empty {
                    pages.free(tree.root)?;
                    self.forget(pages)?;
                }
                Ok((pairs, empty))
            }
            Body::Spread => {
                let pairs = self.pairs().remove_range(pages, b"", None, max)?;
                let empty = pairs.len() < max;
                if empty {
                    self.forget(pages)?;
                }
                Ok((pairs, empty))
            }
            Body::Flat(run) => {
                let (removed, left) = (flat::remove_range(run, b"", None, max), flat::count(run));
                let Some((splice, pairs)) = removed.filter(|_| left > max) else {
                    let pairs = flat::pairs(run);
                    self.forget(pages)?;
                    return Ok((pairs, true));
                };
                self.splice(pages, &splice)?;
                Ok((pairs, false))
            }
        }
    }

    fn forget<P: PagesMut + ?Sized>(&self, pages: &mut P) -> Result<(), Abort> {
        self.table.tree.remove(pages, self.key.as_bytes()).map(|_| ())
    }

    /// Changes the flat run.
    fn splice<P: PagesMut + ?Sized>(&self, pages: &mut P, splice: &Splice) -> Result<(), Abort> {
        let Splice { at, removed, inserted } = splice;
        self.table.tree.splice(pages, self.key.as_bytes(), BODY_AT + at, *removed, inserted)
    }

    fn put<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Abort> {
        check_sizes(key, value.len())?;
        let run = match self.record(pages)? {
            Some(Record { body: Body::Tree(tree), .. }) => return tree.put(pages, key, value),
            Some(Record { body: Body::Spread, .. }) => return self.pairs().put(pages, key, value),
            Some(Record { body: Body::Flat(run), .. }) => run,
            None => return self.put_first(pages, key, value),
        };
        let splice = flat::put(run, key, value);
        let record_len = BODY_AT + run.len() - splice.removed + splice.inserted.len();
        let expanded = flat::expanded(run) + flat::expanded_pair(key.len(), value.len());
        if record_len <= FLAT_MAX && expanded <= EXPANDED_MAX {
            return self.splice(pages, &splice);
        }
        self.spread(pages)?;
        self.pairs().put(pages, key, value)
    }

    /// Makes the object with its first pair.
    fn put_first<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Abort> {
        let Splice { inserted, .. } = flat::put(b"", key, value);
        if BODY_AT + inserted.len() > FLAT_MAX {
            self.create(pages)?;
            return self.put(pages, key, value);
        }
        let mut record = Vec::with_capacity(BODY_AT + inserted.len());
        record.resize(BODY_AT, FLAT);
        record.extend_from_slice(&inserted);
        self.table.tree.put(pages, self.key.as_bytes(), &record)
    }

    /// Spreads a flat object, or makes the record of one whose pairs are there without it.
    pub(crate) fn spread<P: PagesMut + ?Sized>(&self, pages: &mut P) -> Result<(), Abort> {
        self.create(pages)?;
        let Some(Record { body: Body::Flat(run), .. }) = self.record(pages)? else {
            return Ok(());
        };
        let (run_len, mut pairs) = (run.len(), flat::pairs(run));
        for (key, _) in &mut pairs {
            key.splice(..0, self.key.0);
        }
        // The run goes first: its room is the pairs'.
        let (table, key) = (self.table.tree, self.key.as_bytes());
        table.splice(pages, key, BODY_AT, run_len, b"")?;
        table.splice(pages, key, 0, 1, &[SPREAD])?;
        table.put_neighbours(pages, &pairs)
    }

    /// Makes a flat object a tree, as stores of version 4 and below did with those that outgrew their record.
    #[cfg(test)]
    pub(crate) fn make_tree<P: PagesMut + ?Sized>(&self, pages: &mut P) -> Result<(), Abort> {
        let Some(Record { body: Body::Flat(run), .. }) = self.record(pages)? else {
            return Ok(());
        };
        let (run_len, pairs) = (run.len(), flat::pairs(run));
        let tree = Tree::of_one_leaf(pages, &pairs)?;
        let (table, key) = (self.table.tree, self.key.as_bytes());
        table.splice(pages, key, BODY_AT, run_len, &tree.root.0.to_le_bytes())?;
        table.splice(pages, key, 0, 1, &[TREE])
    }
}

/// Pairs of an object in a tree where they have the object's key before their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpreadPairs {
    pub tree: Tree,
    pub key: ObjectKey,
}

impl SpreadPairs {
    pub fn view<'p, P: Pages + ?Sized>(&self, pages: &'p P) -> SpreadView<'p, P> {
        SpreadView { of: *self, pages }
    }

    fn put<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Abort> {
        check_sizes(key, value.len())?;
        self.tree.put(pages, &self.key.of_pair(key), value)
    }

    fn remove_range<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        let (from, to) = (self.key.range_start(from), self.key.range_end(to));
        let mut pairs = self.tree.remove_range(pages, &from, to.as_deref(), max)?;
        for (key, _) in &mut pairs {
            key.drain(..KEY_BYTES);
        }
        Ok(pairs)
    }

    fn detach_range<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Vec<Tree>, Abort> {
        let (from, to) = (self.key.range_start(from), self.key.range_end(to));
        self.tree.detach_range(pages, &from, to.as_deref())
    }
}

/// Spread pairs to read as the object's map.
pub(crate) struct SpreadView<'p, P: ?Sized> {
    of: SpreadPairs,
    pages: &'p P,
}

impl<P: Pages + ?Sized> Kv for SpreadView<'_, P> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        if key.is_empty() {
            return Ok(false);
        }
        self.of.tree.view(self.pages).with(&self.of.key.of_pair(key), with)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        let prefix = self.of.key.as_bytes();
        let from = self.of.key.range_start(from);
        self.of.tree.view(self.pages).scan(&from, &mut |key, value| {
            key.strip_prefix(prefix).map_or(ControlFlow::Break(()), |key| visit(key, value))
        })
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let prefix = self.of.key.as_bytes();
        let below = self.of.key.range_end(below);
        self.of.tree.view(self.pages).scan_back(below.as_deref(), &mut |key, value| match key
            .strip_prefix(prefix)
        {
            Some(key) if !key.is_empty() => visit(key, value),
            _ => ControlFlow::Break(()),
        })
    }
}

/// The form of an object that has one for good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Large {
    Tree(Tree),
    Spread,
}

/// The keys of pairs in a detached tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// As the object has them.
    Own,
    /// With the object's key before them, as the object table has them.
    Whole,
}

/// What an object held.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    Pairs(Vec<Pair>),
    Trees(Vec<Tree>, Keys),
}

/// What [`Object::detach`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detached {
    Absent,
    /// `pairs`: what the caller has to give back itself; `is_whole`: that is all, nothing is on the reclaim list.
    Gone {
        header: ObjectHeader,
        pairs: Vec<Pair>,
        is_whole: bool,
    },
}

/// An object to read as a map.
pub struct ObjectView<'p, P: ?Sized> {
    body: Body<'p>,
    object: Object,
    pages: &'p P,
}

impl<P: ?Sized> ObjectView<'_, P> {
    /// The form of an object that stays as it is.
    pub(crate) fn large(&self) -> Option<Large> {
        match self.body {
            Body::Tree(tree) => Some(Large::Tree(tree)),
            Body::Spread => Some(Large::Spread),
            Body::Flat(_) => None,
        }
    }
}

impl<P: Pages + ?Sized> Kv for ObjectView<'_, P> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        match self.body {
            Body::Flat(run) => Ok(flat::value(run, key).map(|(_, value)| with(value)).is_some()),
            Body::Tree(tree) => tree.view(self.pages).with(key, with),
            Body::Spread => self.object.pairs().view(self.pages).with(key, with),
        }
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        match self.body {
            Body::Flat(run) => {
                flat::scan(run, from, visit);
                Ok(())
            }
            Body::Tree(tree) => tree.view(self.pages).scan(from, visit),
            Body::Spread => self.object.pairs().view(self.pages).scan(from, visit),
        }
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        match self.body {
            Body::Flat(run) => {
                flat::scan_back(run, below, visit);
                Ok(())
            }
            Body::Tree(tree) => tree.view(self.pages).scan_back(below, visit),
            Body::Spread => self.object.pairs().view(self.pages).scan_back(below, visit),
        }
    }
}

/// An object to read and change as a map.
pub struct ObjectEdit<'p, P: ?Sized> {
    object: Object,
    /// Its form, if that is known and stays.
    large: Option<Large>,
    pages: &'p mut P,
}

impl<P: PagesMut + ?Sized> ObjectEdit<'_, P> {
    /// `None`: there is no such object.
    fn body(&self) -> Result<Option<Body<'_>>, Abort> {
        Ok(match self.large {
            Some(Large::Tree(tree)) => Some(Body::Tree(tree)),
            Some(Large::Spread) => Some(Body::Spread),
            None => self.object.record(&*self.pages)?.map(|record| record.body),
        })
    }

    fn view(&self) -> Result<ObjectView<'_, P>, Abort> {
        let body = self.body()?.unwrap_or(Body::Flat(&[]));
        Ok(ObjectView { body, object: self.object, pages: &*self.pages })
    }
}

impl<P: PagesMut + ?Sized> Kv for ObjectEdit<'_, P> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        self.view()?.with(key, with)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.view()?.scan(from, visit)
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.view()?.scan_back(below, visit)
    }
}

impl<P: PagesMut + ?Sized> KvMut for ObjectEdit<'_, P> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Abort> {
        match self.large {
            Some(Large::Tree(tree)) => tree.put(self.pages, key, value),
            Some(Large::Spread) => self.object.pairs().put(self.pages, key, value),
            None => self.object.put(self.pages, key, value),
        }
    }

    fn remove(&mut self, key: &[u8]) -> Result<bool, Abort> {
        match self.body()? {
            Some(Body::Tree(tree)) => tree.remove(self.pages, key),
            Some(Body::Spread) if !key.is_empty() => {
                let SpreadPairs { tree, key: object } = self.object.pairs();
                tree.remove(self.pages, &object.of_pair(key))
            }
            _ => {
                let after = [key, &[0]].concat();
                Ok(!self.remove_range(key, Some(&after), 1)?.is_empty())
            }
        }
    }

    fn patch(&mut self, key: &[u8], at: usize, bytes: &[u8]) -> Result<(), Abort> {
        match self.body()? {
            Some(Body::Tree(tree)) => tree.edit(self.pages).patch(key, at, bytes),
            Some(Body::Spread) => {
                let SpreadPairs { tree, key: object } = self.object.pairs();
                tree.edit(self.pages).patch(&object.range_start(key), at, bytes)
            }
            Some(Body::Flat(run)) => {
                let (start, value) =
                    flat::value(run, key).expect("a patch is of a key that is there");
                assert!(at + bytes.len() <= value.len(), "a patch lies inside its value");
                let splice =
                    Splice { at: start + at, removed: bytes.len(), inserted: bytes.to_vec() };
                self.object.splice(self.pages, &splice)
            }
            None => panic!("a patch is of an object that is there"),
        }
    }

    fn remove_range(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        match self.body()? {
            None => Ok(Vec::new()),
            Some(Body::Tree(tree)) => tree.remove_range(self.pages, from, to, max),
            Some(Body::Spread) => self.object.pairs().remove_range(self.pages, from, to, max),
            Some(Body::Flat(run)) => {
                let Some((splice, pairs)) = flat::remove_range(run, from, to, max) else {
                    return Ok(Vec::new());
                };
                self.object.splice(self.pages, &splice)?;
                Ok(pairs)
            }
        }
    }
}
