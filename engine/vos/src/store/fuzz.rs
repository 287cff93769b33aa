//! What bytes of a device can do to the readers of WAL blocks, headers, strip and segment table. For `tests/fuzz`.

use daos_types::{Csum, StoreId, crc32c};

use super::bytes::put_u32;
use super::data::decode_log;
use super::header::{Header, SLOT_BYTES};
use super::redo::Redo;
use super::space::{ENTRY_BYTES, Entry};
use super::strip::{HEADER_BYTES, StripHeader};
use super::wal::{self, BlockHeader, RecordReader, WAL_BLOCK_BYTES};
use crate::pages::BUCKET_BYTES;

const STORE: StoreId = StoreId(uuid::Uuid::from_u128(7));

/// `data` at the start of a structure that its checksum proves: what only a bug, or malice, writes.
pub(crate) fn sealed(data: &[u8], bytes: usize, magic: u32, store_at: Option<usize>) -> Vec<u8> {
    let mut image = vec![0; bytes];
    let len = data.len().min(bytes);
    image[..len].copy_from_slice(&data[..len]);
    put_u32(&mut image, 0, magic);
    if let Some(at) = store_at {
        image[at..at + 16].copy_from_slice(STORE.0.as_bytes());
    }
    let csum = crc32c(&image[8..]);
    put_u32(&mut image, 4, csum.0);
    image
}

/// Blocks of a log, one after the other, and the records in them.
pub fn wal_block(data: &[u8]) {
    let mut records = RecordReader::default();
    let mut page = vec![0; BUCKET_BYTES];
    for chunk in data.chunks(WAL_BLOCK_BYTES) {
        let mut block = sealed(chunk, WAL_BLOCK_BYTES, wal::MAGIC, Some(8));
        let incarnation = BlockHeader::incarnation(&block);
        let Some(header) = BlockHeader::verify(&block, STORE, incarnation) else { return };
        assert!(BlockHeader::verify(&block, STORE, incarnation ^ 1).is_none());
        // One flipped bit is found, and put right.
        let bit = usize::from(chunk[0]) * 128 % (WAL_BLOCK_BYTES * 8);
        block[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(BlockHeader::verify(&block, STORE, incarnation), Some(header));
        assert!(super::mend::mend(&mut block, wal::MAGIC).is_some());
        assert_eq!(BlockHeader::verify(&block, STORE, incarnation), Some(header));
        if records.push(&header, &block).is_err() {
            return;
        }
        while let Ok(Some(record)) = records.next() {
            if let Some(runs) = decode_log(record.data) {
                let bytes: usize = runs.iter().map(|(_, csums)| 12 + 4 * csums.len()).sum();
                assert_eq!(bytes, record.data.len(), "nothing is left over");
            }
            let mut redo = record.redo;
            while let Some(operation) = Redo::decode(&mut redo) {
                let header = page[..64].to_vec();
                if !operation.resets() {
                    operation.apply(&mut page);
                    assert_eq!(page[..64], header, "the header is the arena's");
                }
            }
        }
    }
}

/// A slot of the checkpoint header, the strip's header, an entry of the segment table.
pub fn header(data: &[u8]) {
    let mut slot = sealed(data, SLOT_BYTES, u32::from_le_bytes(*b"dCKP"), Some(8));
    let csum = crc32c(&slot[8..512]);
    put_u32(&mut slot, 4, csum.0);
    if let Some(header) = Header::decode(&slot, STORE) {
        assert_eq!(Header::decode(&header.encode(), STORE), Some(header));
    }
    let strip = sealed(data, HEADER_BYTES, u32::from_le_bytes(*b"dSTR"), Some(8));
    if let Some(header) = StripHeader::decode(&strip, STORE) {
        let again = StripHeader::decode(&header.encode(STORE), STORE).expect("it was one");
        assert_eq!((again.batch, again.buckets), (header.batch, header.buckets));
    }
    if data.len() >= ENTRY_BYTES {
        let _entry = Entry::decode(&data[..ENTRY_BYTES]);
    }
    let _none_or_some = daos_types::flipped_bit(data.len(), Csum(1), crc32c(data));
}
