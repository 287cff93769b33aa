//! The checkpoint header: where replay begins. Two slots, written in turn.
//!
//! # Invariants
//! 1. The valid slot with the greater generation is the newest checkpoint; a write cut off by a power cut leaves the
//!    slot as it was, because a header is one sector. So a slot that is neither valid nor zeros is damage.
//! 2. `tail_lsn <= mark + 1`: everything below the tail is home, and only what is stable goes home.
//!
//! # On disk
//! FORMAT.md, "Checkpoint header".

use daos_types::{Csum, Epoch, StoreId, crc32c};

use super::Lsn;
use super::bytes::{get_store, get_u32, get_u64, put_store, put_u32, put_u64};
use super::mend::{Mended, mend};

/// Bytes of a slot on the device.
pub(super) const SLOT_BYTES: usize = 4096;
/// What the device writes whole or not at all; the header fits.
pub(super) const SECTOR_BYTES: usize = 512;
const MAGIC: u32 = u32::from_le_bytes(*b"dCKP");
/// 2: containers may have a quota and attributes; 3: a clean end is told; 4: snapshots may have lost something;
/// 5: objects may be spread. A store of an older version has none of that, and is read all the same.
pub(super) const VERSION: u32 = 5;
const AT_CSUM: usize = 4;
const AT_COVERED: usize = 8;
const AT_VERSION: usize = 24;
/// No counter gets this far: what says so is no header of ours, and counting on from it would begin again at zero.
const COUNTERS_END: u64 = 1 << 63;
/// Those of the numbers from byte 32 on that are counters; an epoch follows the clock, which may be anywhere.
const COUNTERS: [usize; 6] = [0, 1, 2, 3, 4, 6];

/// The state of the store at one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: StoreId,
    /// Counts checkpoints; its parity is the slot.
    pub(super) generation: u64,
    /// Incarnation of the WAL blocks from `tail_seq` on.
    pub(super) incarnation: u64,
    /// First WAL block that replay reads.
    pub(super) tail_seq: u64,
    /// Checksum of the block before it.
    pub(super) tail_pred: Csum,
    /// Every record below is in the buckets.
    pub(super) tail_lsn: Lsn,
    /// Everything up to here was on stable media when the header was written.
    pub(super) mark: Lsn,
    /// No epoch above was given out.
    pub(super) epoch: Epoch,
    /// Strip batches up to here are home.
    pub(super) strip_done: u64,
    /// The store ended here: the WAL has nothing from the tail on.
    pub(super) clean: bool,
}

/// The checksum in a slot, and that of what is there.
pub(super) fn sums(slot: &[u8]) -> (Csum, Csum) {
    (Csum(get_u32(slot, AT_CSUM)), crc32c(&slot[AT_COVERED..SECTOR_BYTES]))
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(self.tail_lsn.0 <= self.mark.0 + 1, "invariant 2: {self:?}");
        let mut bytes = vec![0; SLOT_BYTES];
        put_u32(&mut bytes, 0, MAGIC);
        put_store(&mut bytes, 8, self.store);
        put_u32(&mut bytes, AT_VERSION, VERSION);
        put_u32(&mut bytes, 28, self.tail_pred.0);
        for (index, value) in [
            self.generation,
            self.incarnation,
            self.tail_seq,
            self.tail_lsn.0,
            self.mark.0,
            self.epoch.0,
            self.strip_done,
            u64::from(self.clean),
        ]
        .into_iter()
        .enumerate()
        {
            put_u64(&mut bytes, 32 + 8 * index, value);
        }
        let csum = crc32c(&bytes[AT_COVERED..SECTOR_BYTES]);
        put_u32(&mut bytes, AT_CSUM, csum.0);
        bytes
    }

    /// `None`: torn, never written, of another store, or with a counter that nobody counted to.
    pub(super) fn decode(bytes: &[u8], store: StoreId) -> Option<Self> {
        let csum = crc32c(&bytes[AT_COVERED..SECTOR_BYTES]);
        let field = |index: usize| get_u64(bytes, 32 + 8 * index);
        let valid = get_u32(bytes, 0) == MAGIC
            && get_u32(bytes, AT_CSUM) == csum.0
            && get_store(bytes, 8) == store
            && (1..=VERSION).contains(&get_u32(bytes, AT_VERSION))
            && COUNTERS.iter().all(|index| field(*index) < COUNTERS_END);
        let header = Self {
            store,
            generation: field(0),
            incarnation: field(1),
            tail_seq: field(2),
            tail_pred: Csum(get_u32(bytes, 28)),
            tail_lsn: Lsn(field(3)),
            mark: Lsn(field(4)),
            epoch: Epoch(field(5)),
            strip_done: field(6),
            clean: field(7) == 1,
        };
        (valid && header.tail_lsn.0 <= header.mark.0 + 1).then_some(header)
    }

    /// The version of a slot that a newer program has written, also if one bit of it was flipped since.
    pub(super) fn newer_version(slot: &[u8]) -> Option<u32> {
        let mut sector = slot[..SECTOR_BYTES].to_vec();
        let (expected, found) = sums(slot);
        let is_right = get_u32(slot, 0) == MAGIC && expected == found;
        let version = (is_right || mend(&mut sector, MAGIC).is_some())
            .then(|| get_u32(&sector, AT_VERSION))
            .filter(|version| *version > VERSION)?;
        Some(version)
    }

    /// What a slot holds, also if one bit of it was flipped: the older slot in its place would be an older store.
    pub(super) fn mended(slot: &[u8], store: StoreId) -> Option<(Self, Mended)> {
        let mut sector = slot[..SECTOR_BYTES].to_vec();
        let mended = mend(&mut sector, MAGIC)?;
        Some((Self::decode(&sector, store)?, mended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(generation: u64) -> Header {
        Header {
            store: StoreId(uuid::Uuid::from_u128(1)),
            generation,
            incarnation: 2,
            tail_seq: 3,
            tail_pred: Csum(4),
            tail_lsn: Lsn(5),
            mark: Lsn(6),
            epoch: Epoch(7),
            strip_done: 8,
            clean: generation % 2 == 1,
        }
    }

    #[test]
    fn a_flipped_bit_is_put_right_and_a_slot_of_another_store_is_none() {
        let header = header(2);
        let slot = header.encode();
        assert_eq!(Header::decode(&slot, header.store), Some(header));
        assert_eq!(Header::decode(&slot, StoreId(uuid::Uuid::from_u128(2))), None);
        assert_eq!(Header::mended(&slot, header.store), None, "nothing is wrong with it");
        for bit in 0..SECTOR_BYTES * 8 {
            let mut rotten = slot.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&rotten, header.store), None, "bit {bit}");
            let mended = Header::mended(&rotten, header.store);
            assert_eq!(mended.map(|(found, _)| found), Some(header), "bit {bit}");
        }
        assert_eq!(Header::mended(&vec![0; SLOT_BYTES], header.store), None, "never written");
    }

    #[test]
    fn older_versions_are_read_and_newer_ones_are_not() {
        let of_version = |version: u32| {
            let mut bytes = header(1).encode();
            put_u32(&mut bytes, AT_VERSION, version);
            let csum = crc32c(&bytes[AT_COVERED..SECTOR_BYTES]);
            put_u32(&mut bytes, AT_CSUM, csum.0);
            Header::decode(&bytes, header(1).store)
        };
        for version in 1..=VERSION {
            assert_eq!(of_version(version), Some(header(1)), "version {version}");
        }
        assert_eq!(of_version(VERSION + 1), None);
        assert_eq!(Header::newer_version(&header(1).encode()), None);
    }

    #[test]
    fn counters_that_could_not_go_on_are_refused() {
        let header = header(2);
        for index in COUNTERS {
            let mut bytes = header.encode();
            put_u64(&mut bytes, 32 + 8 * index, u64::MAX);
            let csum = crc32c(&bytes[AT_COVERED..SECTOR_BYTES]);
            put_u32(&mut bytes, AT_CSUM, csum.0);
            assert_eq!(Header::decode(&bytes, header.store), None, "counter {index}");
        }
    }
}
