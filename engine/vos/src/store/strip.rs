//! The double-write strip: buckets go here first, so that a torn write at home can be repaired.
//!
//! # Invariants
//! 1. A batch is in the strip, flushed, before the first of its buckets is written home.
//! 2. The strip is overwritten only after the batch in it is home and flushed.
//! 3. A batch is looked at after a crash only if nothing stable says that it is home (`strip_done`). Until that is
//!    stable none of its buckets is used for anything else, so a repair never overwrites newer data.
//!
//! # On disk
//! FORMAT.md, "Strip".

use daos_types::{Csum, StoreId, crc32c};

use super::bucket::{self, BucketHeader};
use super::bytes::{get_store, get_u32, get_u64, put_store, put_u32, put_u64};
use crate::pages::{BUCKET_BYTES, BucketId};

pub(super) const HEADER_BYTES: usize = 4096;
/// Most buckets in one batch.
pub(super) const BATCH_MAX: usize = 255;
/// Length of the strip: header and [`BATCH_MAX`] buckets.
pub(super) const STRIP_BYTES: u64 = 4 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"dSTR");
const AT_CSUM: usize = 4;
const AT_COVERED: usize = 8;
const AT_ENTRIES: usize = 64;
const ENTRY_BYTES: usize = 8;

const _: () = assert!(HEADER_BYTES + BATCH_MAX * BUCKET_BYTES <= STRIP_BYTES as usize);
const _: () = assert!(AT_ENTRIES + BATCH_MAX * ENTRY_BYTES <= HEADER_BYTES);

/// The strip's first block: which buckets follow it.
pub(super) struct StripHeader {
    pub(super) batch: u64,
    pub(super) buckets: Vec<(BucketId, Csum)>,
}

impl StripHeader {
    pub(super) fn encode(&self, store: StoreId) -> Vec<u8> {
        assert!(self.buckets.len() <= BATCH_MAX);
        let mut bytes = vec![0; HEADER_BYTES];
        put_u32(&mut bytes, 0, MAGIC);
        put_store(&mut bytes, 8, store);
        put_u64(&mut bytes, 24, self.batch);
        put_u32(&mut bytes, 32, self.buckets.len() as u32);
        for (index, (bucket, csum)) in self.buckets.iter().enumerate() {
            put_u32(&mut bytes, AT_ENTRIES + index * ENTRY_BYTES, bucket.0);
            put_u32(&mut bytes, AT_ENTRIES + index * ENTRY_BYTES + 4, csum.0);
        }
        let csum = crc32c(&bytes[AT_COVERED..]);
        put_u32(&mut bytes, AT_CSUM, csum.0);
        bytes
    }

    /// `None`: torn, never written, or of another store.
    pub(super) fn decode(bytes: &[u8], store: StoreId) -> Option<Self> {
        let count = get_u32(bytes, 32) as usize;
        let valid = get_u32(bytes, 0) == MAGIC
            && get_u32(bytes, AT_CSUM) == crc32c(&bytes[AT_COVERED..HEADER_BYTES]).0
            && get_store(bytes, 8) == store
            && count <= BATCH_MAX;
        valid.then(|| Self {
            batch: get_u64(bytes, 24),
            buckets: (0..count)
                .map(|index| {
                    let at = AT_ENTRIES + index * ENTRY_BYTES;
                    (BucketId(get_u32(bytes, at)), Csum(get_u32(bytes, at + 4)))
                })
                .collect(),
        })
    }
}

/// The bucket's header, if an image found in the strip is the one that the strip's header lists.
pub(super) fn image_is(
    image: &[u8],
    store: StoreId,
    bucket: BucketId,
    csum: Csum,
) -> Option<BucketHeader> {
    bucket::verify(image, store, bucket).ok().filter(|header| header.csum == csum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_lists_its_buckets_and_a_torn_one_none() {
        let store = StoreId(uuid::Uuid::from_u128(1));
        let buckets: Vec<_> = (0..BATCH_MAX as u32).map(|n| (BucketId(n), Csum(n + 1))).collect();
        let mut bytes = StripHeader { batch: 5, buckets: buckets.clone() }.encode(store);
        let header = StripHeader::decode(&bytes, store).unwrap();
        assert_eq!((header.batch, header.buckets), (5, buckets));
        bytes[2000] ^= 1;
        assert!(StripHeader::decode(&bytes, store).is_none());
        assert!(StripHeader::decode(&[0; HEADER_BYTES], store).is_none());
    }
}
