//! A bucket's header: what makes 16 KiB on the device a bucket of this store.
//!
//! # On disk
//! FORMAT.md, "Bucket".

use daos_types::{Csum, StoreId, crc32c};

use super::Lsn;
use super::bytes::{get_store, get_u32, get_u64, put_store, put_u32, put_u64};
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind};

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"dBKT");
/// Of a bucket that was given up: more than one bit away, so that nothing puts it right.
const GIVEN_UP: u32 = u32::from_le_bytes(*b"dBAD");

const AT_CSUM: usize = 4;
/// The checksum covers everything from here.
const AT_COVERED: usize = 8;
const AT_STORE: usize = 8;
const AT_LSN: usize = 24;
const AT_NUMBER: usize = 32;
const AT_KIND: usize = 36;

const _: () = assert!(AT_KIND < BUCKET_HEADER_BYTES);
const _: () = assert!((MAGIC ^ GIVEN_UP).count_ones() > 1);

/// What a bucket's header says, once it has been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketHeader {
    pub(super) kind: BucketKind,
    pub(super) lsn: Lsn,
    pub(super) csum: Csum,
}

/// Why bytes are not the bucket that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotABucket {
    pub(super) expected: Csum,
    pub(super) found: Csum,
}

/// Writes the header into an image that is about to go to the device.
pub(super) fn seal(
    image: &mut [u8],
    store: StoreId,
    bucket: BucketId,
    kind: BucketKind,
    lsn: Lsn,
) -> Csum {
    assert_eq!(image.len(), BUCKET_BYTES);
    assert!(lsn > Lsn::ZERO, "{bucket:?} goes to the device without ever having been changed");
    image[..BUCKET_HEADER_BYTES].fill(0);
    put_u32(image, 0, MAGIC);
    put_store(image, AT_STORE, store);
    put_u64(image, AT_LSN, lsn.0);
    put_u32(image, AT_NUMBER, bucket.0);
    image[AT_KIND] = kind as u8;
    let csum = crc32c(&image[AT_COVERED..]);
    put_u32(image, AT_CSUM, csum.0);
    csum
}

/// Changes an image so that it is never again this bucket: it does not verify, and lacks changes besides.
pub(super) fn give_up(image: &mut [u8]) {
    put_u32(image, 0, GIVEN_UP);
}

/// Checks that `image` is this bucket of this store, unharmed.
pub(super) fn verify(
    image: &[u8],
    store: StoreId,
    bucket: BucketId,
) -> Result<BucketHeader, NotABucket> {
    assert_eq!(image.len(), BUCKET_BYTES);
    let found = crc32c(&image[AT_COVERED..]);
    let expected = Csum(get_u32(image, AT_CSUM));
    let ours = get_u32(image, 0) == MAGIC
        && get_store(image, AT_STORE) == store
        && get_u32(image, AT_NUMBER) == bucket.0;
    match BucketKind::from_u8(image[AT_KIND]) {
        Some(kind) if ours && expected == found => {
            Ok(BucketHeader { kind, lsn: Lsn(get_u64(image, AT_LSN)), csum: found })
        }
        _ => Err(NotABucket { expected, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_recognised_only_in_its_own_place() {
        let store = StoreId(uuid::Uuid::from_u128(7));
        let mut image = vec![3; BUCKET_BYTES];
        let csum = seal(&mut image, store, BucketId(9), BucketKind::Node, Lsn(4));
        let header = verify(&image, store, BucketId(9)).unwrap();
        assert_eq!(header, BucketHeader { kind: BucketKind::Node, lsn: Lsn(4), csum });
        assert!(verify(&image, store, BucketId(8)).is_err(), "another number");
        let other = StoreId(uuid::Uuid::from_u128(8));
        assert!(verify(&image, other, BucketId(9)).is_err(), "another store");
        for at in [0, 5, 30, 100, BUCKET_BYTES - 1] {
            let mut torn = image.clone();
            torn[at] ^= 1;
            assert!(verify(&torn, store, BucketId(9)).is_err(), "byte {at} changed");
        }
    }
}
