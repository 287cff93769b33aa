//! Doors for `tests/fuzz` to what reads bytes of a device: each takes any bytes and asserts what must hold.

use daos_types::ObjectId;

use crate::btree::{Fingers, Tree, Way};
use crate::container::ContainerRecord;
use crate::flat;
use crate::kv::Kv;
use crate::object::{Body, ObjectKey, Record as ObjectRecord};
use crate::pages::{Abort, BUCKET_BYTES, BucketId, BucketKind, Pages};
use crate::record::Record;

pub use crate::store::fuzz::{header, wal_block};

/// One bucket: a tree of which the root is all there is.
struct OnePage(Vec<u8>, Fingers);

impl Pages for OnePage {
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort> {
        if bucket == BucketId(1) { Ok(&self.0) } else { Err(Abort::Fault(bucket)) }
    }

    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort> {
        if bucket == BucketId(1) { Ok(BucketKind::Node) } else { Err(Abort::Fault(bucket)) }
    }

    fn fingers(&self) -> &Fingers {
        &self.1
    }
}

/// A node of a tree: refused, or every key is found where it is.
pub fn bucket(data: &[u8]) {
    let mut page = vec![0; BUCKET_BYTES];
    // The node's head, and cells at the end, where they are.
    let (head, cells) = data.split_at(data.len().min(BUCKET_BYTES / 2) / 2);
    let head_len = head.len().min(BUCKET_BYTES / 2);
    page[64..64 + head_len].copy_from_slice(&head[..head_len]);
    let cells = &cells[..cells.len().min(BUCKET_BYTES / 2 - 64)];
    page[BUCKET_BYTES - cells.len()..].copy_from_slice(cells);
    let (pages, tree) = (OnePage(page, Fingers::default()), Tree { root: BucketId(1) });
    let mut way = Way::default();
    let Ok(pairs) = tree.leaf_at(&pages, b"", &mut way) else { return };
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "keys are in order");
    for (key, value) in &pairs {
        assert_eq!(tree.value(&pages, key).expect("one page"), Some(value.as_slice()));
    }
    let mut seen = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    };
    tree.view(&pages).scan(b"", count).expect("one page");
    assert_eq!(seen, pairs.len());
}

/// A flat run: refused, or the same when it is put together again.
pub fn flat_record(data: &[u8]) {
    if let Some(record) = ObjectRecord::parse(data)
        && let Body::Flat(run) = record.body
    {
        run_of(run);
    }
    run_of(data);
}

fn run_of(run: &[u8]) {
    if flat::verify(run).is_err() {
        return;
    }
    let pairs = flat::pairs(run);
    assert_eq!(flat::count(run), pairs.len());
    let mut again = Vec::new();
    for (key, value) in &pairs {
        assert_eq!(flat::value(run, key).map(|(_, value)| value), Some(value.as_slice()));
        let splice = flat::put(&again, key, value);
        again.splice(splice.at..splice.at + splice.removed, splice.inserted);
    }
    assert_eq!(flat::pairs(&again), pairs);
}

/// Values and keys of every table.
pub fn record(data: &[u8]) {
    if let Some(record) = Record::decode(data) {
        let again = Record::decode(&record.encode()).expect("an encoded record is one");
        assert_eq!(again, record);
        let blocks: u64 = record.runs().iter().map(|run| u64::from(run.blocks)).sum();
        assert!(blocks <= 4096 + u64::from(crate::record::UNWRITTEN_BLOCKS_MAX));
    }
    if let Some(record) = ContainerRecord::decode(data) {
        assert_eq!(ContainerRecord::decode(&record.encode()), Some(record));
    }
    let _parsed = ObjectKey::from_bytes(data);
    let _parsed = crate::reclaim::Entry::parse(data);
    let _parsed = crate::history::parse(data);
    if let Some((oid, rest)) = data.split_first_chunk::<16>()
        && let Ok(ordering) = crate::key::Ordering::of(ObjectId::from_bytes(*oid))
    {
        let _parsed = crate::key::parse(ordering, rest);
    }
}
