//! Taking a node that cannot be read out of its tree.

use super::node::{self, Node};
use super::tree::Tree;
use crate::pages::{Abort, BucketId, PagesMut};

impl Tree {
    /// Removes the reference to `bucket`, which `key` leads to; nodes that become empty go too. The bucket itself is neither read nor
    /// freed: nothing refers to it any more. False: it is not there.
    pub fn cut<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        key: &[u8],
        bucket: BucketId,
    ) -> Result<bool, Abort> {
        let mut path = Vec::new();
        let mut at = self.root;
        while at != bucket {
            let node = Node::read(pages, at)?;
            if node.is_leaf() {
                return Ok(false);
            }
            let slot = node.child_index(key);
            path.push((at, slot));
            at = node.child(slot);
        }
        while let Some((parent, slot)) = path.pop() {
            node::remove(pages, parent, slot..slot + 1)?;
            if Node::read(pages, parent)?.count() > 0 {
                return Ok(true);
            }
            match path.is_empty() {
                true => node::format(pages, parent, 0, b"")?,
                false => pages.free(parent)?,
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reached, TreeCheck};
    use super::*;
    use crate::testing::MemoryPages;

    #[test]
    fn without_a_leaf_the_rest_of_the_tree_is_sound() {
        for victim in 0..8 {
            let mut pages = MemoryPages::new();
            let tree = Tree::create(&mut pages).unwrap();
            for n in 0..3000_u32 {
                tree.put(&mut pages, format!("{n:06}").as_bytes(), &[n as u8; 40]).unwrap();
            }
            let key = format!("{:06}", victim * 400).into_bytes();
            let mut way = super::super::Way::default();
            let gone = tree.leaf_at(&pages, &key, &mut way).unwrap();
            let leaf = *way.buckets.last().unwrap();
            assert!(tree.cut(&mut pages, &key, leaf).unwrap());
            assert!(!tree.cut(&mut pages, &key, leaf).unwrap());
            let mut check = TreeCheck::new(tree, "tree");
            check.run(&pages, &mut Reached::default(), &mut |_, _| {}).unwrap();
            assert!(check.findings.is_empty(), "{:?}", check.findings);
            assert!(check.counts.pairs < 3000 && !gone.is_empty());
            tree.put(&mut pages, &key, b"again").unwrap();
            assert_eq!(tree.value(&pages, &key).unwrap(), Some(&b"again"[..]));
        }
    }
}
