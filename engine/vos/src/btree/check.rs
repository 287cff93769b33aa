//! Proof of a tree's invariants, one bucket at a time, so that it needs no more DRAM than one bucket and can stop anywhere.
//!
//! # Invariants (of what it accepts)
//! 1. Every node holds its own (`node`): cells without holes, keys in order.
//! 2. Keys of a node lie between the separators above it; levels count down by one to 0 at the leaves.
//! 3. No node but the root is empty, and every bucket is reached once over all trees that share a [`Reached`].

use std::collections::HashSet;

use super::node::{CAPACITY, Node};
use super::tree::Tree;
use crate::pages::{Abort, BucketId, BucketKind, Pages};

/// Buckets that some structure has been found to own.
#[derive(Default)]
pub struct Reached {
    buckets: HashSet<BucketId>,
}

impl Reached {
    /// False: it was reached before.
    pub fn reach(&mut self, bucket: BucketId) -> bool {
        self.buckets.insert(bucket)
    }

    #[must_use]
    pub fn contains(&self, bucket: BucketId) -> bool {
        self.buckets.contains(&bucket)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Compares with what the space map has allocated: one sentence for each bucket that is in only one of both.
    pub fn compare(&self, allocated: impl IntoIterator<Item = BucketId>) -> Vec<String> {
        let mut unallocated = self.buckets.clone();
        let mut findings = Vec::new();
        for bucket in allocated {
            if !unallocated.remove(&bucket) {
                findings.push(format!("bucket {} is allocated but nothing refers to it", bucket.0));
            }
        }
        findings.extend(
            unallocated
                .iter()
                .map(|bucket| format!("bucket {} is in use but not allocated", bucket.0)),
        );
        findings
    }
}

/// What a tree consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounts {
    pub buckets: u64,
    pub leaves: u64,
    pub pairs: u64,
    /// Bytes of leaves that prefix, slots and cells take.
    pub leaf_bytes_used: u64,
    pub height: u8,
}

impl TreeCounts {
    /// How full the leaves are, in percent.
    #[must_use]
    pub fn fill_percent(&self) -> u64 {
        self.leaf_bytes_used * 100 / (self.leaves.max(1) * CAPACITY as u64)
    }
}

/// A node still to be looked at, and what its parent says of it.
struct Todo {
    bucket: BucketId,
    /// `None` for the root.
    level: Option<u8>,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

/// A walk through one tree.
pub struct TreeCheck {
    what: String,
    todo: Vec<Todo>,
    pub counts: TreeCounts,
    /// One sentence each.
    pub findings: Vec<String>,
}

impl TreeCheck {
    /// `what` names the tree in findings.
    #[must_use]
    pub fn new(tree: Tree, what: impl Into<String>) -> Self {
        let root = Todo { bucket: tree.root, level: None, low: Vec::new(), high: None };
        Self {
            what: what.into(),
            todo: vec![root],
            counts: TreeCounts::default(),
            findings: Vec::new(),
        }
    }

    /// Looks at one more node, in key order; false: there was none. Touches one bucket and changes nothing when it aborts,
    /// so it may run again. `visit` is called with the pairs of a leaf.
    pub fn step<P: Pages + ?Sized>(
        &mut self,
        pages: &P,
        reached: &mut Reached,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<bool, Abort> {
        let Some(next) = self.todo.last() else {
            return Ok(false);
        };
        let kind = pages.kind(next.bucket)?;
        let node = Node::read(pages, next.bucket)?;
        let todo = self.todo.pop().expect("looked at above");
        if !reached.reach(todo.bucket) {
            self.find(&todo, "it is part of two structures, or of one twice");
            return Ok(true);
        }
        let verdict =
            if kind == BucketKind::Node { node.verify() } else { Err("it is no tree node") };
        if let Err(why) = verdict.and_then(|()| verify_place(node, &todo)) {
            self.find(&todo, why);
            return Ok(true);
        }
        self.count(node, &todo);
        if node.is_leaf() {
            (0..node.count()).for_each(|slot| visit(&node.key(slot), node.value(slot)));
        } else {
            self.push_children(node, &todo);
        }
        Ok(true)
    }

    /// The node that the next step would look at, and its keys: from one that leads to it, to the first one behind it.
    pub(crate) fn next(&self) -> Option<(BucketId, &[u8], Option<&[u8]>)> {
        self.todo.last().map(|todo| (todo.bucket, todo.low.as_slice(), todo.high.as_deref()))
    }

    /// Gives up the bucket that the next step would look at, for a reason such as a checksum, and what is below it.
    pub fn skip(&mut self, why: &str) {
        if let Some(todo) = self.todo.pop() {
            self.find(&todo, why);
        }
    }

    /// The whole walk, for trees that are resident.
    pub fn run<P: Pages + ?Sized>(
        &mut self,
        pages: &P,
        reached: &mut Reached,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Abort> {
        while self.step(pages, reached, visit)? {}
        Ok(())
    }

    fn find(&mut self, todo: &Todo, why: &str) {
        self.findings.push(format!("{}: bucket {}: {why}", self.what, todo.bucket.0));
    }

    fn count(&mut self, node: Node<'_>, todo: &Todo) {
        self.counts.buckets += 1;
        if todo.level.is_none() {
            self.counts.height = node.level() + 1;
        }
        if node.is_leaf() {
            self.counts.leaves += 1;
            self.counts.pairs += node.count() as u64;
            self.counts.leaf_bytes_used += node.used() as u64;
        }
    }

    fn push_children(&mut self, node: Node<'_>, todo: &Todo) {
        for slot in (0..node.count()).rev() {
            let low = if slot == 0 { todo.low.clone() } else { node.key(slot) };
            let above = slot + 1 < node.count();
            let high = if above { Some(node.key(slot + 1)) } else { todo.high.clone() };
            let level = Some(node.level() - 1);
            self.todo.push(Todo { bucket: node.child(slot), level, low, high });
        }
    }
}

fn verify_place(node: Node<'_>, todo: &Todo) -> Result<(), &'static str> {
    if todo.level.is_some_and(|level| level != node.level()) {
        return Err("its level does not fit the node above");
    }
    if node.count() == 0 && (todo.level.is_some() || !node.is_leaf()) {
        return Err("it is empty");
    }
    if node.count() == 0 {
        return Ok(());
    }
    // The key of slot 0 of an interior node stands for the lower bound.
    let first = usize::from(!node.is_leaf());
    let last = node.count() - 1;
    if first <= last && node.key(first) < todo.low {
        return Err("a key is below the separator above it");
    }
    if first <= last && todo.high.as_ref().is_some_and(|high| node.key(last) >= *high) {
        return Err("a key is not below the next separator above it");
    }
    Ok(())
}
