//! A B+tree of nodes: search, change, and how it grows and shrinks.
//!
//! # Invariants
//! 1. The root's bucket never changes; a tree grows by moving the root's content one level down and shrinks by pulling
//!    an only child up.
//! 2. No node but the root is empty. A node that is less than a quarter full after a removal is merged with a neighbour
//!    when both together fill at most three quarters, at most [`MERGES_MAX`] times if it is not empty.
//! 3. A change touches one path, two neighbours per level at most, one more per merge, and one new bucket per split.
//! 4. A leaf that overflows shares with a neighbour that is less than three quarters full before it is split, or fills one with what
//!    does not grow any more.
//! 5. A node that overflows at its right end stays full and its neighbour starts empty, so appended keys fill their nodes. Inside of a
//!    leaf the newest cells say where it grows: it is cut beside that, and what has been filled stays filled.
//!
//! # Order
//! A change makes room first, from the topmost node that lacks it, and looks again; then changes one leaf. So every step
//! leaves a whole tree, and there is no state on the way up.

use std::ops::{ControlFlow, Range};

use daos_types::Error;
use smallvec::SmallVec;

use super::finger::{Finger, Path};
use super::node::{self, CAPACITY, Cells, Node, SEPARATOR_MAX};
use crate::kv::{KEY_MAX, Kv, KvMut, Pair, TREE_KEY_MAX, VALUE_MAX, Visit};
use crate::pages::{Abort, BucketId, BucketKind, Pages, PagesMut};

/// More levels than 2^32 buckets can fill.
pub(super) const HEIGHT_MAX: usize = 8;
/// Below this a node looks for a neighbour to merge with.
const UNDERFULL: usize = CAPACITY / 4;
/// Merges of one change, but for those that an empty leaf needs to go.
const MERGES_MAX: usize = 2;
/// A merge fills a node at most so far: the next insert must not split it again.
const MERGED_MAX: usize = CAPACITY / 4 * 3;
/// A value that is so long is one that grows piece by piece.
const LARGE_VALUE: usize = 1024;
/// So many bytes of the newest cells say where a leaf grows.
const GROWN_BYTES: usize = CAPACITY / 8;
/// So many of the newest cells, one after the other, say that keys come in order.
const IN_ORDER: usize = 4;
/// What does not grow is left alone in a leaf if it fills so much of it.
const LEFT_PERCENT: usize = 50;
/// So much that lies idle is worth moving to a neighbour that it fills.
const IDLE_MIN: usize = CAPACITY / 16;
/// A cut where keys stop being alike is made if it saves so much.
const BORDER_SAVES: usize = CAPACITY / 10;
/// Leaves do not share what would make the prefix of one shorter by more.
const PREFIX_LOSS_MAX: usize = 8;
/// A new node takes a longer prefix than its neighbour's only if it saves so much per key.
const PREFIX_GAIN_MIN: usize = 4;

/// A tree by the bucket of its root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tree {
    pub root: BucketId,
}

/// Where a key is in a leaf, or where it belongs.
type Found = Result<usize, usize>;

/// Why a leaf has to be split.
#[derive(Clone, Copy)]
enum Need<'k> {
    /// A pair of `cost` bytes belongs at `index`.
    Insert { index: usize, key: &'k [u8], cost: usize },
    /// The pair at `index` grows.
    Grow { index: usize, by: usize },
}

impl Need<'_> {
    /// Bytes that have to be free.
    fn cost(self) -> usize {
        match self {
            Need::Insert { cost, .. } => cost,
            Need::Grow { by, .. } => by,
        }
    }

    /// At the end of the leaf: as appended keys come.
    fn appends(self, leaf: Node<'_>) -> bool {
        match self {
            Need::Insert { index, .. } => index == leaf.count(),
            Need::Grow { index, .. } => index + 1 == leaf.count(),
        }
    }
}

/// How a leaf is split.
struct Cut {
    /// The first slot of the upper node.
    at: usize,
    /// Keys below go to the lower node, from it on to the upper.
    separator: Vec<u8>,
    /// Prefix of the new node.
    prefix: Vec<u8>,
}

impl Tree {
    /// A new, empty tree.
    pub fn create<P: PagesMut + ?Sized>(pages: &mut P) -> Result<Self, Abort> {
        let root = pages.alloc(BucketKind::Node)?;
        node::format(pages, root, 0, b"")?;
        Ok(Self { root })
    }

    /// A tree of these pairs, in order, which fit in one leaf.
    pub(crate) fn of_one_leaf<P: PagesMut + ?Sized>(
        pages: &mut P,
        pairs: &[Pair],
    ) -> Result<Self, Abort> {
        let tree = Self::create(pages)?;
        if let (Some((first, _)), Some((last, _))) = (pairs.first(), pairs.last()) {
            // Of one pair nothing is known of the keys to come.
            let shared = if pairs.len() > 1 { common_prefix(first, last) } else { 0 };
            let prefix = &first[..shared];
            node::format(pages, tree.root, 0, prefix)?;
            node::insert(pages, tree.root, 0, &Cells::of_pairs(pairs, prefix.len()))?;
        }
        Ok(tree)
    }

    /// To read as a map.
    pub fn view<P: Pages + ?Sized>(self, pages: &P) -> TreeView<'_, P> {
        TreeView { tree: self, pages }
    }

    /// To read and change as a map.
    pub fn edit<P: PagesMut + ?Sized>(self, pages: &mut P) -> TreeEdit<'_, P> {
        TreeEdit { tree: self, pages }
    }

    /// The value of `key`, in place.
    pub fn value<'p, P: Pages + ?Sized>(
        self,
        pages: &'p P,
        key: &[u8],
    ) -> Result<Option<&'p [u8]>, Abort> {
        let (node, found) = self.search(pages, key)?;
        Ok(found.ok().map(|index| node.value(index)))
    }

    /// True when no key is in the tree.
    pub fn is_empty<P: Pages + ?Sized>(self, pages: &P) -> Result<bool, Abort> {
        Ok(Node::read(pages, self.root)?.count() == 0)
    }

    /// Levels, the leaves included.
    pub fn height<P: Pages + ?Sized>(self, pages: &P) -> Result<usize, Abort> {
        Ok(usize::from(Node::read(pages, self.root)?.level()) + 1)
    }

    /// Inserts `key` or replaces its value; of an old value only what differs is written.
    pub fn put<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Abort> {
        check_sizes_up_to(TREE_KEY_MAX, key, value.len())?;
        loop {
            let (path, found) = self.descend(pages, key)?;
            let (leaf, _) = path[path.len() - 1];
            let node = Node::read(pages, leaf)?;
            let index = match found {
                Ok(index) => {
                    let whole = (0, node.value(index).len(), value);
                    if self.splice_at(pages, &path, index, key, whole)? {
                        return Ok(());
                    }
                    continue;
                }
                Err(index) => index,
            };
            if self.insert_at(pages, &path, index, key, value)? {
                return Ok(());
            }
        }
    }

    /// Inserts pairs, in order, that are neighbours in the tree: no key of it lies between two of them. Of a pair that is there all
    /// the same, as damage can leave it, the value is replaced.
    pub(crate) fn put_neighbours<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        mut pairs: &[Pair],
    ) -> Result<(), Abort> {
        while let Some((first, value)) = pairs.first() {
            let (path, found) = self.descend(pages, first)?;
            let fit = match found {
                Ok(_) => 0,
                Err(index) => fit(pages, &path, index, pairs)?,
            };
            if fit > 1 {
                let (leaf, _) = path[path.len() - 1];
                let prefix_len = Node::read(pages, leaf)?.prefix().len();
                let cells = Cells::of_pairs(&pairs[..fit], prefix_len);
                let index = found.expect_err("something fits beside a key that is not there");
                node::insert(pages, leaf, index, &cells)?;
                pairs = &pairs[fit..];
            } else {
                self.put(pages, first, value)?;
                pairs = &pairs[1..];
            }
        }
        Ok(())
    }

    /// Replaces `removed` bytes of the value of `key` at `at` by `inserted`. The key is there, the bytes too.
    pub fn splice<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        key: &[u8],
        at: usize,
        removed: usize,
        inserted: &[u8],
    ) -> Result<(), Abort> {
        loop {
            let (path, found) = self.descend(pages, key)?;
            let node = Node::read(pages, path[path.len() - 1].0)?;
            let index = found.expect("a splice is into a key that is there");
            check_sizes_up_to(
                TREE_KEY_MAX,
                key,
                node.value(index).len() + inserted.len() - removed,
            )?;
            if self.splice_at(pages, &path, index, key, (at, removed, inserted))? {
                return Ok(());
            }
        }
    }

    /// Removes `key`; false when it is not there.
    pub fn remove<P: PagesMut + ?Sized>(self, pages: &mut P, key: &[u8]) -> Result<bool, Abort> {
        let (path, Ok(index)) = self.descend(pages, key)? else {
            return Ok(false);
        };
        let (leaf, _) = path[path.len() - 1];
        node::remove(pages, leaf, index..index + 1)?;
        if path.len() > 1 && Node::read(pages, leaf)?.used() < UNDERFULL {
            self.rebalance(pages, key)?;
        }
        Ok(true)
    }

    /// See [`KvMut::remove_range`].
    pub fn remove_range<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        let mut removed = Vec::new();
        while removed.len() < max {
            let some = self.remove_from_leaf(pages, from, to, max - removed.len())?;
            if some.is_empty() {
                break;
            }
            removed.extend(some);
        }
        Ok(removed)
    }

    /// Removes what one leaf has of the range, up to `max` pairs: of the first leaf that has any.
    fn remove_from_leaf<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        let first = self.view(pages).range(from, to, 1)?;
        let Some((first, _)) = first.first().filter(|_| max > 0) else {
            return Ok(Vec::new());
        };
        let (path, found) = self.descend(pages, first)?;
        let (leaf, _) = path[path.len() - 1];
        let node = Node::read(pages, leaf)?;
        let start = found.expect("it was found just now");
        let end = to.map_or(node.count(), |to| node.lower_bound(to)).min(start.saturating_add(max));
        let pairs = (start..end).map(|slot| (node.key(slot), node.value(slot).to_vec())).collect();
        node::remove(pages, leaf, start..end)?;
        self.rebalance(pages, first)?;
        Ok(pairs)
    }

    /// Takes everything with `from <= key < to` out, however much it is: whole subtrees without reading them, and what
    /// the leaves at the two borders have of it, each as a tree of its own. These trees are to be emptied with
    /// [`Tree::pop_last`] and freed.
    pub fn detach_range<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Vec<Tree>, Abort> {
        let mut detached = Vec::new();
        if to.is_some_and(|to| to <= from) {
            return Ok(detached);
        }
        pages.lift_fingers();
        detach(pages, self.root, Some(from), to, &mut detached)?;
        if !detached.is_empty() {
            self.rebalance(pages, from)?;
            if let Some(to) = to {
                self.rebalance(pages, to)?;
            }
        }
        loop {
            let pairs = self.remove_from_leaf(pages, from, to, usize::MAX)?;
            if pairs.is_empty() {
                return Ok(detached);
            }
            detached.push(Self::of_one_leaf(pages, &pairs)?);
        }
    }

    /// Takes up to `max` pairs from the end of the tree, all from one leaf, and frees what becomes empty but the root;
    /// none: the tree is empty. Nodes are not merged: this is how a tree is taken apart.
    pub fn pop_last<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        let mut path = Path::new();
        let mut bucket = self.root;
        loop {
            let node = Node::read(pages, bucket)?;
            path.push((bucket, node.count().saturating_sub(1) as u16));
            if node.is_leaf() {
                break;
            }
            bucket = node.child(node.count() - 1);
        }
        let node = Node::read(pages, bucket)?;
        let slots = node.count().saturating_sub(max)..node.count();
        let pairs = slots.clone().map(|slot| (node.key(slot), node.value(slot).to_vec())).collect();
        node::remove(pages, bucket, slots)?;
        while let Some((bucket, _)) = path.pop()
            && Node::read(pages, bucket)?.count() == 0
        {
            match path.last() {
                Some(&(parent, slot)) => {
                    let slot = usize::from(slot);
                    node::remove(pages, parent, slot..slot + 1)?;
                    pages.free(bucket)?;
                }
                None => node::format(pages, bucket, 0, b"")?,
            }
        }
        Ok(pairs)
    }

    /// The leaf where `key` is or belongs, and where in it.
    fn search<'p, P: Pages + ?Sized>(
        self,
        pages: &'p P,
        key: &[u8],
    ) -> Result<(Node<'p>, Found), Abort> {
        let near =
            self.near(pages, |node, finger| finger.search(node, key).map(|found| (node, found)))?;
        if let Some(found) = near {
            return Ok(found);
        }
        let leaf = self.descend_from_root(pages, key)?.leaf();
        let node = Node::read(pages, leaf)?;
        Ok((node, node.search(key)))
    }

    /// As [`Tree::search`], with the way there.
    fn descend<P: Pages + ?Sized>(self, pages: &P, key: &[u8]) -> Result<(Path, Found), Abort> {
        let near = self.near(pages, |node, finger| {
            finger.search(node, key).map(|found| (finger.path.clone(), found))
        })?;
        if let Some(found) = near {
            return Ok(found);
        }
        let finger = self.descend_from_root(pages, key)?;
        let found = Node::read(pages, finger.leaf())?.search(key);
        Ok((finger.path, found))
    }

    /// Looks at the leaf where the last search ended.
    fn near<'p, P: Pages + ?Sized, T>(
        self,
        pages: &'p P,
        mut look: impl FnMut(Node<'p>, &Finger) -> Option<T>,
    ) -> Result<Option<T>, Abort> {
        let seen = pages.fingers().with(self.root, |finger| {
            Node::read(pages, finger.leaf()).map(|node| look(node, finger)).transpose()
        });
        seen.transpose()
    }

    fn descend_from_root<P: Pages + ?Sized>(self, pages: &P, key: &[u8]) -> Result<Finger, Abort> {
        let mut finger = Finger { path: Path::new(), is_first: true, is_last: true };
        let mut bucket = self.root;
        loop {
            let node = Node::read(pages, bucket)?;
            if node.is_leaf() {
                finger.path.push((bucket, 0));
                pages.fingers().put(finger.clone());
                return Ok(finger);
            }
            let index = node.child_index(key);
            finger.is_first &= index == 0;
            finger.is_last &= index + 1 == node.count();
            finger.path.push((bucket, index as u16));
            bucket = node.child(index);
        }
    }

    /// Inserts into the leaf at the end of `path`; false: room was made, look again.
    fn insert_at<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        path: &Path,
        index: usize,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, Abort> {
        let (leaf, _) = path[path.len() - 1];
        let node = Node::read(pages, leaf)?;
        let prefix_len = match node.pair_cost(key, value.len()) {
            Some(cost) if cost <= node.free() => node.prefix().len(),
            Some(cost) => {
                self.make_room(pages, path, Need::Insert { index, key, cost })?;
                return Ok(false);
            }
            None => {
                if !shorten_prefix(pages, leaf, key, value.len())? {
                    let cost = node_cost_alone(key, value);
                    self.make_room(pages, path, Need::Insert { index, key, cost })?;
                    return Ok(false);
                }
                Node::read(pages, leaf)?.prefix().len()
            }
        };
        node::insert_pair(pages, leaf, index, &key[prefix_len..], value)?;
        Ok(true)
    }

    /// Splices in the leaf at the end of `path`, only what differs; false: room was made, look again.
    fn splice_at<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        path: &Path,
        index: usize,
        key: &[u8],
        (at, removed, inserted): (usize, usize, &[u8]),
    ) -> Result<bool, Abort> {
        let (leaf, _) = path[path.len() - 1];
        let node = Node::read(pages, leaf)?;
        let (skip, removed, inserted) = difference(&node.value(index)[at..at + removed], inserted);
        let at = at + skip;
        let by = inserted.len().saturating_sub(removed);
        if by > node.free() {
            self.make_room(pages, path, Need::Grow { index, by })?;
            return Ok(false);
        }
        node::splice(pages, leaf, index, at, removed, inserted)?;
        if inserted.len() < removed && path.len() > 1 && Node::read(pages, leaf)?.used() < UNDERFULL
        {
            self.rebalance(pages, key)?;
        }
        Ok(true)
    }

    /// Splits one node: the topmost on the path that must give way before the leaf can.
    fn make_room<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        path: &Path,
        need: Need<'_>,
    ) -> Result<(), Abort> {
        let leaf = path.len() - 1;
        let mut at = leaf;
        while at > 0 && Node::read(pages, path[at - 1].0)?.free() < SEPARATOR_MAX {
            at -= 1;
        }
        if at == 0 {
            self.push_down(pages)
        } else if at == leaf {
            let (parent, slot) = at_slot(path[at - 1]);
            let node = Node::read(pages, path[at].0)?;
            if !need.appends(node) {
                let grown = growth(node, need);
                let ([below, above], cost) = (idle(node, need, &grown), need.cost());
                if share_with_next(pages, parent, slot, true, (above, cost))?
                    || slot > 0 && share_with_next(pages, parent, slot - 1, false, (below, cost))?
                {
                    return Ok(());
                }
            }
            split_leaf(pages, (parent, slot), path[at].0, need)
        } else {
            split_interior(pages, at_slot(path[at - 1]), at_slot(path[at]))
        }
    }

    /// Moves the root's content into a new node, its only child.
    fn push_down<P: PagesMut + ?Sized>(self, pages: &mut P) -> Result<(), Abort> {
        let level = Node::read(pages, self.root)?.level() + 1;
        assert!(usize::from(level) < HEIGHT_MAX, "no tree is that high");
        let child = pages.alloc(BucketKind::Node)?;
        node::copy(pages, self.root, child)?;
        node::format(pages, self.root, level, b"")?;
        node::insert_child(pages, self.root, 0, b"", child)
    }

    /// Merges underfull nodes on the path to `key` with neighbours, and takes levels off the top.
    fn rebalance<P: PagesMut + ?Sized>(self, pages: &mut P, key: &[u8]) -> Result<(), Abort> {
        let mut merges = 0;
        'again: loop {
            let root = Node::read(pages, self.root)?;
            if !root.is_leaf() && root.count() == 1 {
                let child = root.child(0);
                node::copy(pages, child, self.root)?;
                pages.free(child)?;
                continue;
            }
            let (path, _) = self.descend(pages, key)?;
            // Neighbours may be small one after the other: what one change touches stays bounded.
            if merges >= MERGES_MAX && Node::read(pages, path[path.len() - 1].0)?.count() > 0 {
                return Ok(());
            }
            for pair in path.windows(2).rev() {
                if merge_underfull(pages, at_slot(pair[0]), pair[1].0)? {
                    merges += 1;
                    continue 'again;
                }
            }
            return Ok(());
        }
    }
}

/// How many of these pairs belong at `index` of the leaf at the end of `path`, and have room there as it is.
fn fit<P: Pages + ?Sized>(
    pages: &P,
    path: &Path,
    index: usize,
    pairs: &[Pair],
) -> Result<usize, Abort> {
    let node = Node::read(pages, path[path.len() - 1].0)?;
    let end = if index < node.count() { Some(node.key(index)) } else { end_of(pages, path)? };
    let mut free = node.free();
    let fits = |(key, value): &&Pair| {
        let cost = node.pair_cost(key, value.len());
        let left = cost.and_then(|cost| free.checked_sub(cost));
        free = left.unwrap_or(free);
        left.is_some() && end.as_ref().is_none_or(|end| key < end)
    };
    Ok(pairs.iter().take_while(fits).count())
}

/// The first key that does not belong in the leaf at the end of `path`; `None`: it is the last leaf.
fn end_of<P: Pages + ?Sized>(pages: &P, path: &Path) -> Result<Option<Vec<u8>>, Abort> {
    for &above in path[..path.len() - 1].iter().rev() {
        let (bucket, slot) = at_slot(above);
        let node = Node::read(pages, bucket)?;
        if slot + 1 < node.count() {
            return Ok(Some(node.key(slot + 1)));
        }
    }
    Ok(None)
}

fn at_slot((bucket, slot): (BucketId, u16)) -> (BucketId, usize) {
    (bucket, slot.into())
}

/// Refuses what an object's map does not hold.
pub(crate) fn check_sizes(key: &[u8], value_len: usize) -> Result<(), Abort> {
    check_sizes_up_to(KEY_MAX, key, value_len)
}

fn check_sizes_up_to(key_max: usize, key: &[u8], value_len: usize) -> Result<(), Abort> {
    if key.is_empty() {
        return Err(Error::Invalid("a key of the store has at least one byte").into());
    }
    if key.len() > key_max {
        return Err(Error::TooLarge { what: "composed key", max: key_max as u64 }.into());
    }
    if value_len > VALUE_MAX {
        return Err(Error::TooLarge { what: "record", max: VALUE_MAX as u64 }.into());
    }
    Ok(())
}

/// What turns `old` into `new`: at, bytes removed, bytes inserted.
fn difference<'n>(old: &[u8], new: &'n [u8]) -> (usize, usize, &'n [u8]) {
    let at = common_prefix(old, new);
    let (old, new) = (&old[at..], &new[at..]);
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (at, old.len() - same, &new[..new.len() - same])
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key that is greater than `low` and not greater than `high`.
fn shortest_separator(low: &[u8], high: &[u8]) -> Vec<u8> {
    high[..=common_prefix(low, high)].to_vec()
}

/// What a pair takes in a node of its own, at most.
fn node_cost_alone(key: &[u8], value: &[u8]) -> usize {
    2 * key.len() + value.len() + 8
}

/// Cuts the prefix of a leaf to what `key` shares with it; false: then the pair would not fit.
fn shorten_prefix<P: PagesMut + ?Sized>(
    pages: &mut P,
    leaf: BucketId,
    key: &[u8],
    value_len: usize,
) -> Result<bool, Abort> {
    let node = Node::read(pages, leaf)?;
    let len = common_prefix(node.prefix(), key);
    if node.used_with_prefix(len) + node_cost_alone(&key[len..], &[]) + value_len > CAPACITY {
        return Ok(false);
    }
    cut_prefix(pages, leaf, len)?;
    Ok(true)
}

/// Writes a leaf anew with a longer prefix if that saves much.
fn lengthen_prefix<P: PagesMut + ?Sized>(pages: &mut P, leaf: BucketId) -> Result<(), Abort> {
    let node = Node::read(pages, leaf)?;
    let count = node.count();
    let (first, last) = (node.key(0), node.key(count - 1));
    let len = common_prefix(&first, &last);
    if count < 2 || (len - node.prefix().len()) * (count - 1) < BORDER_SAVES {
        return Ok(());
    }
    let mut cells = Cells::default();
    cells.unshift_pairs(node, 0..count, len);
    node::format(pages, leaf, 0, &first[..len])?;
    node::insert(pages, leaf, 0, &cells)
}

/// Writes a leaf anew with a prefix of `len` bytes, if its prefix is longer. There is room.
fn cut_prefix<P: PagesMut + ?Sized>(
    pages: &mut P,
    leaf: BucketId,
    len: usize,
) -> Result<(), Abort> {
    let node = Node::read(pages, leaf)?;
    if node.prefix().len() == len {
        return Ok(());
    }
    let mut cells = Cells::default();
    cells.unshift_pairs(node, 0..node.count(), len);
    let prefix = node.prefix()[..len].to_vec();
    node::format(pages, leaf, 0, &prefix)?;
    node::insert(pages, leaf, 0, &cells)
}

/// Bytes of cells below and above where a leaf grows.
fn idle(node: Node<'_>, need: Need<'_>, grown: &Range<usize>) -> [usize; 2] {
    let end = grown.end - usize::from(matches!(need, Need::Insert { .. }));
    let bytes = |slots: Range<usize>| slots.map(|slot| node.cell_cost(slot)).sum();
    [bytes(0..grown.start), bytes(end..node.count())]
}

/// Evens out the leaves at `slot` and after it, if there is one and the one that did not overflow has much room;
/// false: nothing was moved. Of what lies idle at the border of the full one, `idle` bytes, the other takes all it can.
fn share_with_next<P: PagesMut + ?Sized>(
    pages: &mut P,
    parent: BucketId,
    slot: usize,
    upwards: bool,
    (idle, needed): (usize, usize),
) -> Result<bool, Abort> {
    let above = Node::read(pages, parent)?;
    if slot + 1 == above.count() {
        return Ok(false);
    }
    let (left_id, right_id) = (above.child(slot), above.child(slot + 1));
    let (left, right) = (Node::read(pages, left_id)?, Node::read(pages, right_id)?);
    let (full, roomy) = if upwards { (left, right) } else { (right, left) };
    let idle = idle.min(roomy.free().saturating_sub(CAPACITY / 64));
    if roomy.free() < CAPACITY / 4 && idle < IDLE_MIN {
        return Ok(false);
    }
    // As many cells as bring the two nearest to each other.
    let surplus = (full.used().saturating_sub(roomy.used()) / 2).max(idle);
    let mut moved_bytes = 0;
    let cells_from_border = (0..full.count()).take_while(|&cell| {
        let cell = if upwards { full.count() - 1 - cell } else { cell };
        moved_bytes += full.cell_cost(cell);
        moved_bytes <= surplus
    });
    let moved = cells_from_border.count();
    if moved == 0 || moved == full.count() {
        return Ok(false);
    }
    let cost = |cell| full.cell_cost(if upwards { full.count() - 1 - cell } else { cell });
    if full.free() + (0..moved).map(cost).sum::<usize>() < needed {
        return Ok(false);
    }
    let (slots, low, high) = if upwards {
        let at = left.count() - moved;
        (at..left.count(), left.key(at - 1), left.key(at))
    } else {
        (0..moved, right.key(moved - 1), right.key(moved))
    };
    // What the keys have in common on both sides may be less than what the leaf that takes them has.
    let (first, last) = (full.key(slots.start), full.key(slots.end - 1));
    let common = |key: &[u8]| common_prefix(roomy.prefix(), key);
    let prefix_len = common(&first).min(common(&last));
    if prefix_len + PREFIX_LOSS_MAX < full.prefix().len().max(roomy.prefix().len()) {
        return Ok(false);
    }
    let longer = (full.prefix().len()).saturating_sub(prefix_len) * moved;
    if roomy.used_with_prefix(prefix_len) + surplus + longer > CAPACITY {
        return Ok(false);
    }
    let mut cells = Cells::default();
    cells.unshift_pairs(full, slots.clone(), prefix_len);
    let (full_id, roomy_id) = if upwards { (left_id, right_id) } else { (right_id, left_id) };
    let index = if upwards { 0 } else { roomy.count() };
    cut_prefix(pages, roomy_id, prefix_len)?;
    node::insert(pages, roomy_id, index, &cells)?;
    node::remove(pages, full_id, slots)?;
    // Of the length of the old separator, if it can be, so that it is overwritten in place.
    let old = Node::read(pages, parent)?.suffix(slot + 1);
    let len = high.len().min(old.len()).max(common_prefix(&low, &high) + 1);
    if len == old.len() {
        node::set_separator(pages, parent, slot + 1, &high[..len])?;
    } else {
        node::remove(pages, parent, slot + 1..slot + 2)?;
        node::insert_child(pages, parent, slot + 1, &high[..len], right_id)?;
    }
    Ok(true)
}

fn split_leaf<P: PagesMut + ?Sized>(
    pages: &mut P,
    (parent, slot): (BucketId, usize),
    leaf: BucketId,
    need: Need<'_>,
) -> Result<(), Abort> {
    let node = Node::read(pages, leaf)?;
    let (count, cut) = (node.count(), cut(node, need));
    let mut cells = Cells::default();
    cells.unshift_pairs(node, cut.at..count, cut.prefix.len());
    let new = pages.alloc(BucketKind::Node)?;
    node::format(pages, new, 0, &cut.prefix)?;
    if cut.at == 0 {
        // The pair that needs room goes below all others: the new node is the lower one.
        node::set_child(pages, parent, slot, new)?;
        return node::insert_child(pages, parent, slot + 1, &cut.separator, leaf);
    }
    if cut.at < count {
        node::insert(pages, new, 0, &cells)?;
        node::remove(pages, leaf, cut.at..count)?;
        lengthen_prefix(pages, leaf)?;
    }
    node::insert_child(pages, parent, slot + 1, &cut.separator, new)
}

/// Decides a split, as if the pair that needs room were in the leaf already.
fn cut(node: Node<'_>, need: Need<'_>) -> Cut {
    let count = node.count();
    let (inserted, index) = match need {
        Need::Insert { index, key, .. } => (Some(key), index),
        Need::Grow { index, .. } => (None, index),
    };
    let costs: SmallVec<[usize; 256]> = match need {
        Need::Insert { index, cost, .. } => {
            let mut costs: SmallVec<_> = (0..count).map(|slot| node.cell_cost(slot)).collect();
            costs.insert(index, cost);
            costs
        }
        Need::Grow { index, by } => (0..count)
            .map(|slot| node.cell_cost(slot) + if slot == index { by } else { 0 })
            .collect(),
    };
    let foreign = inserted.is_some_and(|key| !key.starts_with(node.prefix()));
    let border = || border(node);
    let place = if index + 1 == costs.len() {
        index
    } else if let Some(border) = inserted.is_none_or(|_| !foreign).then(border).flatten() {
        // What is at the border may go to either side; it is of the side that is like it.
        match inserted {
            Some(_) if border < index => border,
            Some(_) if border > index => border + 1,
            Some(key) => {
                let like = |slot: usize| common_prefix(key, &node.key(slot));
                if like(border - 1) > like(border) { border + 1 } else { border }
            }
            None => border,
        }
    } else if foreign {
        1
    } else {
        beside_growth(&costs, &growth(node, need)).unwrap_or_else(|| balanced(&costs))
    };
    let key_at = |place: usize| match inserted {
        Some(key) if place == index => key.to_vec(),
        Some(_) if place > index => node.key(place - 1),
        _ => node.key(place),
    };
    let at = if inserted.is_some() && place > index { place - 1 } else { place };
    let separator = shortest_separator(&key_at(place - 1), &key_at(place));
    // The new node's keys, or for a node that begins with one pair, a guess from its neighbours.
    let (first, last) = if at == 0 {
        (key_at(0), key_at(costs.len() - 1))
    } else if at == count {
        (key_at(0), key_at(place))
    } else {
        (key_at(place), key_at(costs.len() - 1))
    };
    let shared = common_prefix(&first, &last);
    let kept = common_prefix(node.prefix(), &first[..shared]);
    let len = if shared >= kept + PREFIX_GAIN_MIN { shared } else { kept };
    Cut { at, separator, prefix: first[..len].to_vec() }
}

/// Where the keys of a leaf stop being alike: on both sides they have so much more in common that a cut there saves a good part of
/// a leaf.
fn border(node: Node<'_>) -> Option<usize> {
    let count = node.count();
    let (first, last) = (node.suffix(0), node.suffix(count - 1));
    let shared = common_prefix(first, last);
    let saved = |slots: Range<usize>| {
        let common = common_prefix(node.suffix(slots.start), node.suffix(slots.end - 1));
        (common - shared) * (slots.len() - 1)
    };
    // Where the byte after what all have in common changes first, and where it changes last.
    let byte = |slot: usize| node.suffix(slot).get(shared).copied();
    let slots = 1..count;
    let up = slots.clone().find(|slot| byte(*slot) != byte(0));
    let down = slots.rev().find(|slot| byte(slot - 1) != byte(count - 1));
    let candidates = [up?, down?].map(|at| (saved(0..at) + saved(at..count), at));
    let (saved, at) = candidates.into_iter().max()?;
    (saved >= BORDER_SAVES).then_some(at)
}

/// Where a leaf that overflows has grown lately, and so will grow on, in slots as if the pair that needs room were there.
fn growth(node: Node<'_>, need: Need<'_>) -> Range<usize> {
    let index = match need {
        Need::Grow { index, .. } if node.value(index).len() >= LARGE_VALUE => {
            return index..index + 1;
        }
        Need::Insert { index, .. } | Need::Grow { index, .. } => index,
    };
    let inserts = usize::from(matches!(need, Need::Insert { .. }));
    // Keys that come in order: what is before the newest one is done with.
    if index >= inserts && node.are_newest(index - inserts, IN_ORDER) {
        return index..index + 1;
    }
    node.newest(GROWN_BYTES).fold(index..index + 1, |grown, slot| {
        let place = if slot >= index { slot + inserts } else { slot };
        grown.start.min(place)..grown.end.max(place + 1)
    })
}

/// A cut at one end of what grows, if what is beyond fills its leaf well enough: it stays as it is, and what grows has the
/// rest of a leaf for itself.
fn beside_growth(costs: &[usize], grown: &Range<usize>) -> Option<usize> {
    let total: usize = costs.iter().sum();
    let below: usize = costs[..grown.start].iter().sum();
    let above: usize = costs[grown.end..].iter().sum();
    if below.max(above) < total * LEFT_PERCENT / 100 {
        return None;
    }
    Some(if below >= above { grown.start } else { grown.end })
}

/// Where to cut so that the larger part is smallest; both have one at least.
fn balanced(costs: &[usize]) -> usize {
    let total: usize = costs.iter().sum();
    let mut below = 0;
    let sizes = costs.iter().map(|cost| {
        below += cost;
        below.max(total - below)
    });
    let cut = sizes.take(costs.len() - 1).enumerate().min_by_key(|&(_, larger)| larger);
    cut.expect("a node that is split has two cells").0 + 1
}

fn split_interior<P: PagesMut + ?Sized>(
    pages: &mut P,
    (parent, slot): (BucketId, usize),
    (bucket, child): (BucketId, usize),
) -> Result<(), Abort> {
    let node = Node::read(pages, bucket)?;
    let (count, level) = (node.count(), node.level());
    let costs: SmallVec<[usize; 256]> = (0..count).map(|slot| node.cell_cost(slot)).collect();
    let at = if child + 1 == count { count - 1 } else { balanced(&costs) };
    let separator = node.key(at);
    let cells = Cells::children(node, at..count, b"");
    let new = pages.alloc(BucketKind::Node)?;
    node::format(pages, new, level, b"")?;
    node::insert(pages, new, 0, &cells)?;
    node::remove(pages, bucket, at..count)?;
    node::insert_child(pages, parent, slot + 1, &separator, new)
}

/// Merges the node at `slot` of `parent` with a neighbour if it is underfull and one is empty enough.
fn merge_underfull<P: PagesMut + ?Sized>(
    pages: &mut P,
    (parent, slot): (BucketId, usize),
    bucket: BucketId,
) -> Result<bool, Abort> {
    if Node::read(pages, bucket)?.used() >= UNDERFULL {
        return Ok(false);
    }
    let neighbours = Node::read(pages, parent)?.count();
    if slot > 0 && merge_if_small(pages, parent, slot - 1)? {
        return Ok(true);
    }
    Ok(slot + 1 < neighbours && merge_if_small(pages, parent, slot)?)
}

/// Merges the nodes at `slot` and after it if together they are small, or one is empty.
fn merge_if_small<P: PagesMut + ?Sized>(
    pages: &mut P,
    parent: BucketId,
    slot: usize,
) -> Result<bool, Abort> {
    let above = Node::read(pages, parent)?;
    let (left_id, right_id) = (above.child(slot), above.child(slot + 1));
    let (left, right) = (Node::read(pages, left_id)?, Node::read(pages, right_id)?);
    let kept_is_left = if left.is_leaf() {
        if left.count() == 0 || right.count() == 0 {
            right.count() == 0
        } else {
            let prefix_len = common_prefix(left.prefix(), right.prefix());
            if left.used_with_prefix(prefix_len) + right.used_with_prefix(prefix_len) > MERGED_MAX {
                return Ok(false);
            }
            merge_leaves(pages, left_id, right_id, prefix_len)?
        }
    } else {
        let separator = above.key(slot + 1);
        if left.used() + right.used() + separator.len() > MERGED_MAX {
            return Ok(false);
        }
        let cells = Cells::children(right, 0..right.count(), &separator);
        let end = left.count();
        node::insert(pages, left_id, end, &cells)?;
        true
    };
    if !kept_is_left {
        node::set_child(pages, parent, slot, right_id)?;
    }
    node::remove(pages, parent, slot + 1..slot + 2)?;
    pages.free(if kept_is_left { right_id } else { left_id })?;
    Ok(true)
}

/// Moves the pairs of the leaf that has fewer bytes to the other; true: the left one has them all.
fn merge_leaves<P: PagesMut + ?Sized>(
    pages: &mut P,
    left_id: BucketId,
    right_id: BucketId,
    prefix_len: usize,
) -> Result<bool, Abort> {
    let (left, right) = (Node::read(pages, left_id)?, Node::read(pages, right_id)?);
    let into_left = left.used() >= right.used();
    let (kept_id, kept, gone) =
        if into_left { (left_id, left, right) } else { (right_id, right, left) };
    let mut cells = Cells::default();
    if kept.prefix().len() == prefix_len {
        cells.unshift_pairs(gone, 0..gone.count(), prefix_len);
        let index = if into_left { kept.count() } else { 0 };
        node::insert(pages, kept_id, index, &cells)?;
    } else {
        cells.unshift_pairs(right, 0..right.count(), prefix_len);
        cells.unshift_pairs(left, 0..left.count(), prefix_len);
        let prefix = left.prefix()[..prefix_len].to_vec();
        node::format(pages, kept_id, 0, &prefix)?;
        node::insert(pages, kept_id, 0, &cells)?;
    }
    Ok(into_left)
}

/// Takes the children that lie wholly in the range out of this node and of those on the two borders below it. `from`
/// `None`: the range begins before this node.
fn detach<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    from: Option<&[u8]>,
    to: Option<&[u8]>,
    detached: &mut Vec<Tree>,
) -> Result<(), Abort> {
    let node = Node::read(pages, bucket)?;
    if node.is_leaf() {
        return Ok(());
    }
    // Children at the borders stay, whatever is left of them.
    let first = from.map(|from| node.child_index(from));
    let last = to.map(|to| node.child_index(to));
    let border = |index: Option<usize>| index.map(|index| node.child(index));
    let (first_child, last_child) = (border(first), border(last));
    if first.is_some() && first == last {
        let child = first_child.expect("there is a first");
        return detach(pages, child, from, to, detached);
    }
    let whole = first.map_or(0, |index| index + 1)..last.unwrap_or(node.count());
    detached.extend(whole.clone().map(|index| Tree { root: node.child(index) }));
    node::remove(pages, bucket, whole)?;
    if let Some(child) = first_child {
        detach(pages, child, from, None, detached)?;
    }
    if let Some(child) = last_child {
        detach(pages, child, None, to, detached)?;
    }
    Ok(())
}

/// A tree to read as a map.
pub struct TreeView<'p, P: ?Sized> {
    tree: Tree,
    pages: &'p P,
}

impl<P: Pages + ?Sized> Kv for TreeView<'_, P> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        Ok(self.tree.value(self.pages, key)?.map(with).is_some())
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        // Most scans end in the leaf where they begin.
        let (node, found) = self.tree.search(self.pages, from)?;
        let start = found.unwrap_or_else(|index| index);
        let mut key = Key::new();
        if visit_slots(node, start..node.count(), &mut key, visit).is_break() {
            return Ok(());
        }
        // After the last key that was visited, or after one that is not there.
        let mut after: Key = if start < node.count() { key.clone() } else { from.into() };
        after.push(0);
        scan_up(self.pages, self.tree.root, Some(&after), &mut key, visit).map(|_| ())
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let mut key = Key::new();
        let Some(below) = below else {
            return scan_down(self.pages, self.tree.root, None, &mut key, visit).map(|_| ());
        };
        let (node, found) = self.tree.search(self.pages, below)?;
        let end = found.unwrap_or_else(|index| index);
        if visit_slots(node, (0..end).rev(), &mut key, visit).is_break() {
            return Ok(());
        }
        let first: Key = if end > 0 { key.clone() } else { below.into() };
        scan_down(self.pages, self.tree.root, Some(&first), &mut key, visit).map(|_| ())
    }
}

fn scan_up<P: Pages + ?Sized>(
    pages: &P,
    bucket: BucketId,
    from: Option<&[u8]>,
    key: &mut Key,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, Abort> {
    let node = Node::read(pages, bucket)?;
    if node.is_leaf() {
        let start = from.map_or(0, |from| node.lower_bound(from));
        return Ok(visit_slots(node, start..node.count(), key, visit));
    }
    let start = from.map_or(0, |from| node.child_index(from));
    for index in start..node.count() {
        let from = from.filter(|_| index == start);
        if scan_up(pages, node.child(index), from, key, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn scan_down<P: Pages + ?Sized>(
    pages: &P,
    bucket: BucketId,
    below: Option<&[u8]>,
    key: &mut Key,
    visit: &mut Visit<'_>,
) -> Result<ControlFlow<()>, Abort> {
    let node = Node::read(pages, bucket)?;
    if node.is_leaf() {
        let end = below.map_or(node.count(), |below| node.lower_bound(below));
        return Ok(visit_slots(node, (0..end).rev(), key, visit));
    }
    let last = below.map_or(node.count() - 1, |below| node.child_index(below));
    for index in (0..=last).rev() {
        let below = below.filter(|_| index == last);
        if scan_down(pages, node.child(index), below, key, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A key that is put together; most are short.
type Key = SmallVec<[u8; 64]>;

fn visit_slots(
    node: Node<'_>,
    mut slots: impl Iterator<Item = usize>,
    key: &mut Key,
    visit: &mut Visit<'_>,
) -> ControlFlow<()> {
    let prefix = node.prefix();
    key.clear();
    key.extend_from_slice(prefix);
    slots.try_for_each(|slot| {
        key.truncate(prefix.len());
        key.extend_from_slice(node.suffix(slot));
        visit(key, node.value(slot))
    })
}

/// A tree to read and change as a map.
pub struct TreeEdit<'p, P: ?Sized> {
    tree: Tree,
    pages: &'p mut P,
}

impl<P: PagesMut + ?Sized> Kv for TreeEdit<'_, P> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        self.tree.view(&*self.pages).with(key, with)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.tree.view(&*self.pages).scan(from, visit)
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.tree.view(&*self.pages).scan_back(below, visit)
    }
}

impl<P: PagesMut + ?Sized> KvMut for TreeEdit<'_, P> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Abort> {
        self.tree.put(self.pages, key, value)
    }

    fn remove(&mut self, key: &[u8]) -> Result<bool, Abort> {
        self.tree.remove(self.pages, key)
    }

    fn patch(&mut self, key: &[u8], at: usize, bytes: &[u8]) -> Result<(), Abort> {
        self.tree.splice(self.pages, key, at, bytes.len(), bytes)
    }

    fn remove_range(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        self.tree.remove_range(self.pages, from, to, max)
    }
}
