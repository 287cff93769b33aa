//! Where everything begins: the trees of a store, in its root bucket.
//!
//! # On disk
//! FORMAT.md, "Root bucket". All little-endian, after the bucket's header:
//! ```text
//! pools (4)  containers (4)  objects (4)  reclaim list (4)  dkey hash seed (8)  last container (2)
//! ```

use daos_types::ContainerId;

use crate::btree::Tree;
use crate::object::ObjectTable;
use crate::pages::{Abort, BUCKET_HEADER_BYTES, BucketId, Pages, PagesMut};
use crate::reclaim::Reclaim;

const SEED_AT: usize = BUCKET_HEADER_BYTES + 16;
const LAST_CONTAINER_AT: usize = SEED_AT + 8;

/// The trees of a store. They never move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roots {
    bucket: BucketId,
    pub pools: Tree,
    pub containers: Tree,
    pub objects: ObjectTable,
    pub reclaim: Reclaim,
    pub seed: u64,
}

impl Roots {
    /// `None`: the store has not been used yet.
    pub fn read<P: Pages + ?Sized>(pages: &P, bucket: BucketId) -> Result<Option<Self>, Abort> {
        let page = pages.page(bucket)?;
        let tree = |index: usize| {
            let at = BUCKET_HEADER_BYTES + 4 * index;
            let root = page[at..at + 4].try_into().expect("4 bytes");
            Tree { root: BucketId(u32::from_le_bytes(root)) }
        };
        if tree(0).root == BucketId(0) {
            return Ok(None);
        }
        let seed = page[SEED_AT..LAST_CONTAINER_AT].try_into().expect("8 bytes");
        Ok(Some(Self {
            bucket,
            pools: tree(0),
            containers: tree(1),
            objects: ObjectTable { tree: tree(2) },
            reclaim: Reclaim { tree: tree(3) },
            seed: u64::from_le_bytes(seed),
        }))
    }

    /// The empty trees of a new store.
    pub fn create<P: PagesMut + ?Sized>(
        pages: &mut P,
        bucket: BucketId,
        seed: u64,
    ) -> Result<(), Abort> {
        for index in 0..4 {
            let tree = Tree::create(pages)?;
            let at = BUCKET_HEADER_BYTES + 4 * index;
            pages.write(bucket, at, &tree.root.0.to_le_bytes())?;
        }
        pages.write(bucket, SEED_AT, &seed.to_le_bytes())
    }

    /// Greatest container number ever given out.
    pub fn last_container<P: Pages + ?Sized>(&self, pages: &P) -> Result<ContainerId, Abort> {
        let page = pages.page(self.bucket)?;
        let number = page[LAST_CONTAINER_AT..LAST_CONTAINER_AT + 2].try_into().expect("2 bytes");
        Ok(ContainerId(u16::from_le_bytes(number)))
    }

    pub fn set_last_container<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        id: ContainerId,
    ) -> Result<(), Abort> {
        pages.write(self.bucket, LAST_CONTAINER_AT, &id.0.to_le_bytes())
    }
}
