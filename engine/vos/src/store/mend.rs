//! One flipped bit in a structure that is verified on its own, put right in memory.
//!
//! Only where the store would be lost, or would seem older than it is, for a single bit: the log, the checkpoint header, the
//! root, the segment table, and any bucket that the log has changes for. These carry the store's id, their number and their kind, so that what is put right proves
//! itself; everything else stays damaged until a repair is asked for.
//!
//! All of them begin alike (FORMAT.md): magic number (4), checksum (4) of what follows.

use daos_media::IoBuf;
use daos_types::{Csum, Error, Flip, Place, crc32c, flipped_bit};

use super::bucket::{self, BucketHeader};
use super::bytes::get_u32;
use super::store::Inner;
use crate::pages::BucketId;

const AT_CSUM: usize = 4;
const AT_COVERED: usize = 8;

/// Checksums of a structure that was put right: as stored, and of what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mended {
    pub(super) expected: Csum,
    pub(super) found: Csum,
}

/// Flips the one bit back that keeps `bytes` from beginning with `magic` and having its checksum. Whether it is then the
/// structure that is looked for is the caller's question.
pub(super) fn mend(bytes: &mut [u8], magic: u32) -> Option<Mended> {
    let (expected, found) = (Csum(get_u32(bytes, AT_CSUM)), crc32c(&bytes[AT_COVERED..]));
    let magic_flips = get_u32(bytes, 0) ^ magic;
    let sums = Mended { expected, found };
    if expected == found {
        return (magic_flips.count_ones() == 1).then(|| {
            bytes[..AT_CSUM].copy_from_slice(&magic.to_le_bytes());
            sums
        });
    }
    if magic_flips != 0 {
        return None;
    }
    match flipped_bit(bytes.len() - AT_COVERED, expected, found)? {
        Flip::Covered { byte, bit } => bytes[AT_COVERED + byte] ^= 1 << bit,
        Flip::Checksum => bytes[AT_CSUM..AT_COVERED].copy_from_slice(&found.0.to_le_bytes()),
    }
    Some(sums)
}

impl Inner {
    /// Notes and tells damage that opening does without.
    pub(super) fn found_at_open(&self, place: Place, address: u64, expected: Csum, found: Csum) {
        if let Error::Damaged(damage) = self.damage(place, address, expected, found) {
            let mut all = self.found_at_open.borrow_mut();
            if !all.contains(&damage) {
                all.push(*damage);
            }
        }
    }

    /// Whether this is the root or a bucket of the segment table.
    pub(super) fn is_fixed(&self, bucket: BucketId) -> bool {
        let state = self.state.borrow();
        (state.space.table_bucket(0)..=state.space.root()).contains(&bucket)
    }

    /// The root or a bucket of the segment table with one flipped bit put right: without them there is no store.
    pub(super) fn mend_fixed(
        &self,
        bucket: BucketId,
        image: &[u8],
    ) -> Option<(IoBuf, BucketHeader)> {
        if !self.is_fixed(bucket) {
            return None;
        }
        let mut whole = IoBuf::copy_of(image);
        let Mended { expected, found } = mend(&mut whole, bucket::MAGIC)?;
        let header = bucket::verify(&whole, self.id, bucket).ok()?;
        self.found_at_open(Place::Bucket, bucket.byte_address(), expected, found);
        let mut mended = self.mended.borrow_mut();
        if !mended.contains(&bucket) {
            mended.push(bucket);
        }
        Some((whole, header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_put_right_and_two_are_not() {
        let magic = u32::from_le_bytes(*b"dTST");
        let mut whole = vec![9; 200];
        whole[..4].copy_from_slice(&magic.to_le_bytes());
        let csum = crc32c(&whole[8..]);
        whole[4..8].copy_from_slice(&csum.0.to_le_bytes());
        assert_eq!(mend(&mut whole.clone(), magic), None);
        for bit in 0..whole.len() * 8 {
            let mut rotten = whole.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(mend(&mut rotten, magic).is_some(), "bit {bit}");
            assert_eq!(rotten, whole, "bit {bit}");
            rotten[bit / 8] ^= 1 << (bit % 8);
            rotten[(bit / 8 + 77) % 200] ^= 2;
            let before = rotten.clone();
            assert_eq!(mend(&mut rotten, magic), None, "bit {bit} and another");
            assert_eq!(rotten, before);
        }
    }
}
