//! One leaf at a time by key, for walks that go on while the tree changes, past what cannot be read.
//!
//! # Not here
//! A proof of the whole tree, which has to stay as it is meanwhile: `check`.

use daos_types::Error;

use super::node::Node;
use super::tree::{HEIGHT_MAX, Tree};
use crate::kv::Pair;
use crate::pages::{Abort, BucketId, BucketKind, Pages};

/// How far a look at a leaf came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// From the root on. The last one is the leaf, or what could not be read.
    pub buckets: Vec<BucketId>,
    /// Keys from here on are not below the last bucket; `None`: it is the last one of the tree.
    pub high: Option<Vec<u8>>,
}

impl Tree {
    /// The pairs with keys `>= from` of the leaf that has, or would have, `from`. Every node on the way is verified. `way` says
    /// how far it came also when it aborts.
    pub fn leaf_at<P: Pages + ?Sized>(
        self,
        pages: &P,
        from: &[u8],
        way: &mut Way,
    ) -> Result<Vec<Pair>, Abort> {
        *way = Way::default();
        let (mut bucket, mut level) = (self.root, None);
        loop {
            way.buckets.push(bucket);
            if pages.kind(bucket)? != BucketKind::Node {
                return Err(Error::Invalid("a bucket is no tree node").into());
            }
            let node = Node::read(pages, bucket)?;
            node.verify().map_err(|_| Error::Invalid("a tree node makes no sense"))?;
            let fits = level.map_or(usize::from(node.level()) < HEIGHT_MAX, |above: u8| {
                above == node.level() + 1
            });
            if !fits || (!node.is_leaf() && node.count() == 0) {
                return Err(Error::Invalid("a tree node does not fit the one above it").into());
            }
            if node.is_leaf() {
                let slots = node.lower_bound(from)..node.count();
                return Ok(slots.map(|slot| (node.key(slot), node.value(slot).to_vec())).collect());
            }
            let slot = node.child_index(from);
            if slot + 1 < node.count() {
                way.high = Some(node.key(slot + 1));
            }
            (bucket, level) = (node.child(slot), Some(node.level()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryPages;

    #[test]
    fn leaves_one_after_the_other_are_the_whole_tree() {
        let mut pages = MemoryPages::new();
        let tree = Tree::create(&mut pages).unwrap();
        let mut all = Vec::new();
        for n in 0..3000_u32 {
            let pair = (format!("key{n:06}").into_bytes(), vec![n as u8; 40]);
            tree.put(&mut pages, &pair.0, &pair.1).unwrap();
            all.push(pair);
        }
        let (mut found, mut from, mut leaves) = (Vec::new(), Vec::new(), 0);
        loop {
            let mut way = Way::default();
            found.extend(tree.leaf_at(&pages, &from, &mut way).unwrap());
            leaves += 1;
            assert_eq!(way.buckets[0], tree.root);
            let Some(high) = way.high else { break };
            assert!(high > from, "it goes on");
            from = high;
        }
        assert_eq!(found, all);
        assert!(leaves > 5);
        let mut way = Way::default();
        let rest = tree.leaf_at(&pages, b"key002999", &mut way).unwrap();
        assert_eq!((rest.len(), way.high), (1, None));
    }
}
