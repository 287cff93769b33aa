//! The tree half of the offline checker: walks every tree of a store from its roots, one bucket per step, and proves that each
//! allocated bucket is reached exactly once.
//!
//! # Order
//! 1. [`ForestCheck::add`] every root that is known; object trees and detached trees are found on the way.
//! 2. [`ForestCheck::step`] until it is done, each in a view of its own: a step touches one bucket. A bucket that cannot be
//!    read is given up with [`ForestCheck::skip`].
//! 3. [`ForestCheck::finish`] with the buckets that the space map has allocated.
//!
//! # Not here
//! What pairs mean, blocks (the semantics' checker: it is called with every pair); segment table and bucket checksums
//! (the store).

use std::collections::VecDeque;

use crate::btree::{Reached, Tree, TreeCheck, TreeCounts};
use crate::flat;
use crate::object::{Body, ObjectHeader, ObjectKey, Record};
use crate::pages::{Abort, BucketId, Pages};
use crate::reclaim::{self, Contents, Entry, EntryBody};

/// What a tree is, and so what its pairs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its pairs are objects: [`Seen::Object`], then the pairs of flat ones.
    ObjectTable,
    /// The pairs of one object.
    Object(ObjectKey),
    /// Its pairs are detached structures.
    Reclaim,
    /// Pairs of what was detached.
    Detached(Contents),
    /// Any other, by the caller's number and name.
    Other(u32, &'static str),
}

/// What the walk comes by.
#[derive(Debug)]
pub enum Seen<'s> {
    Object(ObjectKey, ObjectHeader),
    Pair(&'s Role, &'s [u8], &'s [u8]),
}

/// A walk through all trees.
#[derive(Default)]
pub struct ForestCheck {
    trees: VecDeque<(Role, TreeCheck)>,
    reached: Reached,
    /// Over all trees; the height is the greatest.
    pub counts: TreeCounts,
    pub objects: u64,
    /// One sentence each.
    pub findings: Vec<String>,
}

impl ForestCheck {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A bucket that is no tree's, such as the root bucket.
    pub fn reach(&mut self, bucket: BucketId) {
        self.reached.reach(bucket);
    }

    /// One more tree to walk.
    pub fn add(&mut self, role: Role, tree: Tree) {
        let name = match &role {
            Role::ObjectTable => "object table".into(),
            Role::Object(key) => {
                format!("object {} of container {}", key.oid(), key.container().0)
            }
            Role::Reclaim => "reclaim list".into(),
            Role::Detached(Contents::Object) => "detached object".into(),
            Role::Detached(Contents::History) => "detached history".into(),
            Role::Other(_, name) => (*name).to_string(),
        };
        self.trees.push_back((role, TreeCheck::new(tree, name)));
    }

    /// Looks at one more bucket; false: there was none. Changes nothing when it aborts, so it may run again.
    pub fn step<P: Pages + ?Sized>(
        &mut self,
        pages: &P,
        visit: &mut dyn FnMut(Seen<'_>),
    ) -> Result<bool, Abort> {
        let Some((role, check)) = self.trees.front_mut() else {
            return Ok(false);
        };
        let mut found = Found::default();
        let more = check.step(pages, &mut self.reached, &mut |key, value| {
            found.pair(role, key, value, visit);
        })?;
        if !more {
            let (_, check) = self.trees.pop_front().expect("looked at above");
            self.findings.extend(check.findings);
            self.sum(check.counts);
        }
        self.objects += found.objects;
        self.findings.extend(found.findings);
        for (role, tree) in found.trees {
            self.add(role, tree);
        }
        Ok(true)
    }

    /// Gives up the bucket that the next step would look at, which could not be read, and what is below it.
    pub fn skip(&mut self, why: &str) {
        if let Some((_, check)) = self.trees.front_mut() {
            check.skip(why);
        }
    }

    fn sum(&mut self, counts: TreeCounts) {
        self.counts.buckets += counts.buckets;
        self.counts.leaves += counts.leaves;
        self.counts.pairs += counts.pairs;
        self.counts.leaf_bytes_used += counts.leaf_bytes_used;
        self.counts.height = self.counts.height.max(counts.height);
    }

    /// What was found, with a sentence for each bucket that is allocated but not reached, or reached but not allocated.
    #[must_use]
    pub fn finish(mut self, allocated: impl IntoIterator<Item = BucketId>) -> Vec<String> {
        self.findings.extend(self.reached.compare(allocated));
        self.findings
    }
}

/// What the pairs of one leaf lead to.
#[derive(Default)]
struct Found {
    objects: u64,
    trees: Vec<(Role, Tree)>,
    findings: Vec<String>,
}

impl Found {
    fn pair(&mut self, role: &Role, key: &[u8], value: &[u8], visit: &mut dyn FnMut(Seen<'_>)) {
        match role {
            Role::ObjectTable => self.object(key, value, visit),
            Role::Reclaim => self.detached(value, visit),
            _ => visit(Seen::Pair(role, key, value)),
        }
    }

    fn object(&mut self, key: &[u8], value: &[u8], visit: &mut dyn FnMut(Seen<'_>)) {
        let (Some(key), Some(record)) = (ObjectKey::from_bytes(key), Record::parse(value)) else {
            self.findings.push("object table: an entry that is no object".into());
            return;
        };
        self.objects += 1;
        visit(Seen::Object(key, record.header));
        match record.body {
            Body::Tree(tree) => self.trees.push((Role::Object(key), tree)),
            Body::Flat(run) => self.run(&Role::Object(key), run, visit),
        }
    }

    fn detached(&mut self, value: &[u8], visit: &mut dyn FnMut(Seen<'_>)) {
        let Some(entry) = Entry::parse(value) else {
            self.findings.push("reclaim list: an entry of no known form".into());
            return;
        };
        let role = Role::Detached(entry.contents);
        match entry.body {
            EntryBody::Trees(roots) => {
                self.trees.extend(reclaim::roots(roots).map(|tree| (role.clone(), tree)));
            }
            EntryBody::Run(run) => self.run(&role, run, visit),
            EntryBody::Container(_) => {}
        }
    }

    fn run(&mut self, role: &Role, run: &[u8], visit: &mut dyn FnMut(Seen<'_>)) {
        if let Err(why) = flat::verify(run) {
            self.findings.push(format!("{role:?}: {why}"));
            return;
        }
        flat::scan(run, b"", &mut |key, value| {
            visit(Seen::Pair(role, key, value));
            std::ops::ControlFlow::Continue(())
        });
    }
}

#[cfg(test)]
mod tests {
    use daos_types::{ContainerId, ObjectClass, ObjectId, ObjectType};

    use super::*;
    use crate::kv::KvMut;
    use crate::object::ObjectTable;
    use crate::pages::{BucketKind, PagesMut};
    use crate::reclaim::Reclaim;
    use crate::testing::MemoryPages;

    struct Checked {
        findings: Vec<String>,
        objects: usize,
        pairs: usize,
    }

    fn run(pages: &MemoryPages, table: ObjectTable, reclaim: Reclaim) -> Checked {
        let mut check = ForestCheck::new();
        check.add(Role::ObjectTable, table.tree);
        check.add(Role::Reclaim, reclaim.tree);
        let (mut objects, mut pairs) = (0, 0);
        let mut visit = |seen: Seen<'_>| match seen {
            Seen::Object(..) => objects += 1,
            Seen::Pair(..) => pairs += 1,
        };
        while check.step(pages, &mut visit).unwrap() {}
        assert_eq!(check.objects as usize, objects);
        Checked { findings: check.finish(pages.live()), objects, pairs }
    }

    #[test]
    fn every_bucket_is_reached_exactly_once() {
        let mut pages = MemoryPages::new();
        let table = ObjectTable { tree: Tree::create(&mut pages).unwrap() };
        let reclaim = Reclaim { tree: Tree::create(&mut pages).unwrap() };
        let object = |lo| {
            let oid = ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, lo);
            table.object(ContainerId(1), oid, 0)
        };
        for lo in 0..40 {
            for number in 0..(lo * lo) {
                object(lo).edit(&mut pages).put(&number.to_be_bytes(), &[2; 30]).unwrap();
            }
        }
        let pairs = (0..40).map(|lo| lo * lo).sum::<u64>() as usize;
        let checked = run(&pages, table, reclaim);
        assert_eq!(checked.findings, [""; 0]);
        assert_eq!((checked.objects, checked.pairs), (39, pairs));

        // Detached, they are still reached, until they are taken apart.
        for lo in 3..40 {
            object(lo).detach(&mut pages, reclaim, 0).unwrap();
        }
        let checked = run(&pages, table, reclaim);
        assert_eq!(checked.findings, [""; 0]);
        assert_eq!((checked.objects, checked.pairs), (2, pairs));
        while reclaim.step(&mut pages, table, 100).unwrap().is_some() {}
        let checked = run(&pages, table, reclaim);
        assert_eq!(checked.findings, [""; 0]);
        assert_eq!((checked.objects, checked.pairs), (2, 5));

        // A bucket that cannot be read is a finding, and what is below it is missed.
        let mut check = ForestCheck::new();
        check.add(Role::ObjectTable, table.tree);
        check.skip("its checksum is wrong");
        while check.step(&pages, &mut |_| ()).unwrap() {}
        let findings = check.finish([table.tree.root]);
        assert_eq!(findings.len(), 2, "{findings:?}");

        // A bucket that nobody owns, and one that two do.
        let lost = pages.alloc(BucketKind::Node).unwrap();
        let findings = run(&pages, table, reclaim).findings;
        assert_eq!(findings, [format!("bucket {} is allocated but nothing refers to it", lost.0)]);
        pages.free(lost).unwrap();
        reclaim.add_trees(&mut pages, Contents::Object, b"", &[table.tree]).unwrap();
        let findings = run(&pages, table, reclaim).findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains("part of two structures"), "{findings:?}");
    }
}
