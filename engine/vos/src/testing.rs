//! Buckets in a map: the double of a transaction for tests of what lives in buckets.

use std::collections::HashMap;

use daos_types::TargetId;

use crate::btree::Fingers;
use crate::pages::{
    Abort, BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind, Pages, PagesMut,
};
use crate::store::{OpenOptions, Sync};

/// Buckets in memory, numbered from 1. Counts what a transaction would log.
#[derive(Clone, Default)]
pub(crate) struct MemoryPages {
    buckets: HashMap<BucketId, (BucketKind, Vec<u8>)>,
    next: u32,
    /// Bytes of redo operations so far, as the WAL would count them.
    pub(crate) redo_bytes: usize,
    /// Buckets that were freed; touching one panics.
    pub(crate) freed: Vec<BucketId>,
    fingers: Fingers,
}

impl MemoryPages {
    pub(crate) fn new() -> Self {
        Self { next: 1, ..Self::default() }
    }

    /// Buckets in use now.
    pub(crate) fn live(&self) -> impl Iterator<Item = BucketId> {
        self.buckets.keys().copied()
    }

    fn bytes(&mut self, bucket: BucketId, at: usize, len: usize) -> &mut [u8] {
        assert!(at >= BUCKET_HEADER_BYTES, "the header of {bucket:?} is the arena's");
        assert!(at + len <= BUCKET_BYTES, "{at}+{len} is past the end of {bucket:?}");
        &mut self.buckets.get_mut(&bucket).expect("the bucket is allocated").1[at..at + len]
    }
}

/// How tests open a store, with so much memory.
pub(crate) fn options(memory_buckets: usize) -> OpenOptions {
    OpenOptions { target: TargetId(0), memory_buckets, sync: Sync::Posix, read_only: false }
}

/// Random numbers from a seed (splitmix64), for tests that must run again the same.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

impl Pages for MemoryPages {
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort> {
        Ok(&self.buckets.get(&bucket).unwrap_or_else(|| panic!("{bucket:?} is not allocated")).1)
    }

    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort> {
        Ok(self.buckets[&bucket].0)
    }

    fn fingers(&self) -> &Fingers {
        &self.fingers
    }
}

impl PagesMut for MemoryPages {
    fn write(&mut self, bucket: BucketId, at: usize, bytes: &[u8]) -> Result<(), Abort> {
        self.redo_bytes += 9 + bytes.len();
        self.bytes(bucket, at, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn copy_within(
        &mut self,
        bucket: BucketId,
        from: usize,
        to: usize,
        len: usize,
    ) -> Result<(), Abort> {
        self.redo_bytes += 11;
        self.bytes(bucket, from, len);
        self.bytes(bucket, to, len);
        let page = &mut self.buckets.get_mut(&bucket).expect("checked above").1;
        page.copy_within(from..from + len, to);
        Ok(())
    }

    fn fill(&mut self, bucket: BucketId, at: usize, len: usize, byte: u8) -> Result<(), Abort> {
        self.redo_bytes += 10;
        self.bytes(bucket, at, len).fill(byte);
        Ok(())
    }

    fn alloc(&mut self, kind: BucketKind) -> Result<BucketId, Abort> {
        self.redo_bytes += 15;
        self.fingers.lift();
        let bucket = BucketId(self.next);
        self.next += 1;
        self.buckets.insert(bucket, (kind, vec![0; BUCKET_BYTES]));
        Ok(bucket)
    }

    fn free(&mut self, bucket: BucketId) -> Result<(), Abort> {
        self.redo_bytes += 14;
        self.fingers.lift();
        self.buckets.remove(&bucket).expect("a bucket is freed once");
        self.freed.push(bucket);
        Ok(())
    }

    fn lift_fingers(&mut self) {
        self.fingers.lift();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_bytes_may_overlap() {
        let mut pages = MemoryPages::new();
        let bucket = pages.alloc(BucketKind::Node).unwrap();
        pages.write(bucket, 100, b"abcdef").unwrap();
        pages.copy_within(bucket, 100, 102, 6).unwrap();
        assert_eq!(&pages.page(bucket).unwrap()[100..108], b"ababcdef");
        pages.free(bucket).unwrap();
        assert_eq!(pages.live().count(), 0);
        assert_eq!(pages.freed, [bucket]);
        assert!(pages.redo_bytes > 0);
    }
}
