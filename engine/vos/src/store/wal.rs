//! The write-ahead log: redo records in chained 4 KiB blocks, in a ring.
//!
//! # Invariants
//! 1. Every record's LSN is its predecessor's plus one; records follow each other in the payload of consecutive blocks,
//!    and only a block that ends its submission is padded after its last record.
//! 2. A block is written once. It carries its predecessor's checksum, which is known as soon as that one is sealed, so
//!    any number of blocks may be in flight.
//! 3. `stable_seq <= written_seq <= next_seq`, `tail_seq <= next_seq`, and `next_seq + open blocks - tail_seq <= blocks`.
//! 4. The mark in a block is the *stable* mark when it was sealed, in every sync mode: a mark that was merely
//!    complete could survive a power cut that its records do not.
//!
//! # On disk
//! FORMAT.md, "WAL".
//!
//! # Not here
//! What a record's operations mean: `redo`. Reading it all back: `recover`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use daos_media::IoBuf;
use daos_types::{Csum, Epoch, StoreId, crc32c};

use super::Lsn;
use super::bytes::{get_store, get_u16, get_u32, get_u64, put_store, put_u16, put_u32, put_u64};

pub(super) const WAL_BLOCK_BYTES: usize = 4096;
pub(super) const BLOCK_HEADER_BYTES: usize = 80;
pub(super) const PAYLOAD_BYTES: usize = WAL_BLOCK_BYTES - BLOCK_HEADER_BYTES;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
/// Largest record.
pub(super) const RECORD_BYTES_MAX: usize = 128 << 10;
/// Blocks that the largest record can touch.
pub(super) const RECORD_BLOCKS_MAX: u64 = (RECORD_BYTES_MAX.div_ceil(PAYLOAD_BYTES) + 1) as u64;
/// Blocks kept for marks without records, so that freed space can always be made usable.
pub(super) const MARK_BLOCKS: u64 = 8;
/// Smallest WAL: the largest record, marks, and as much again.
pub(super) const WAL_BLOCKS_MIN: u64 = 64;
/// Submissions in flight at once; what becomes ready meanwhile shares the next one.
const WRITES_MAX: usize = 8;
/// Blocks in one submission.
const SUBMIT_BLOCKS_MAX: usize = 256;

const _: () = assert!(RECORD_BLOCKS_MAX + MARK_BLOCKS < WAL_BLOCKS_MIN);

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"dWAL");
const AT_CSUM: usize = 4;
const AT_COVERED: usize = 8;
const AT_STORE: usize = 8;
const AT_INCARNATION: usize = 24;
const AT_SEQ: usize = 32;
const AT_MARK: usize = 40;
const AT_EPOCH: usize = 48;
const AT_STRIP_DONE: usize = 56;
const AT_PRED: usize = 64;
const AT_USED: usize = 68;
const AT_FIRST: usize = 70;
/// No record starts in the block.
const NO_RECORD: u16 = u16::MAX;

/// What a verified block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) seq: u64,
    pub(super) csum: Csum,
    pub(super) pred: Csum,
    pub(super) mark: Lsn,
    pub(super) epoch: Epoch,
    pub(super) strip_done: u64,
    /// Payload bytes in use.
    pub(super) used: usize,
    /// Where in the payload the first record starts.
    pub(super) first: Option<usize>,
}

/// The checksum in a block, and that of what is there.
pub(super) fn sums(block: &[u8]) -> (Csum, Csum) {
    (Csum(get_u32(block, AT_CSUM)), crc32c(&block[AT_COVERED..]))
}

impl BlockHeader {
    /// Of which incarnation a block says that it is.
    pub(super) fn incarnation(block: &[u8]) -> u64 {
        get_u64(block, AT_INCARNATION)
    }

    /// Checks that `block` is an unharmed block of this store and incarnation. Whether it is the one that is
    /// expected in its place is the caller's question.
    pub(super) fn verify(block: &[u8], store: StoreId, incarnation: u64) -> Option<Self> {
        assert_eq!(block.len(), WAL_BLOCK_BYTES);
        let csum = Csum(get_u32(block, AT_CSUM));
        let header = Self {
            seq: get_u64(block, AT_SEQ),
            csum,
            pred: Csum(get_u32(block, AT_PRED)),
            mark: Lsn(get_u64(block, AT_MARK)),
            epoch: Epoch(get_u64(block, AT_EPOCH)),
            strip_done: get_u64(block, AT_STRIP_DONE),
            used: usize::from(get_u16(block, AT_USED)),
            first: match get_u16(block, AT_FIRST) {
                NO_RECORD => None,
                at => Some(usize::from(at)),
            },
        };
        let ours = get_u32(block, 0) == MAGIC
            && get_u64(block, AT_INCARNATION) == incarnation
            && get_store(block, AT_STORE) == store
            && header.used <= PAYLOAD_BYTES
            && header.first.is_none_or(|first| first < header.used);
        (ours && crc32c(&block[AT_COVERED..]) == csum).then_some(header)
    }
}

/// A record's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Whole record, with this header.
    pub(super) bytes: usize,
    /// Bytes of the list of data runs that follows the header; the redo operations follow that.
    pub(super) data_bytes: usize,
    pub(super) lsn: Lsn,
    pub(super) epoch: Epoch,
}

impl RecordHeader {
    fn encode(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        put_u32(&mut bytes, 0, self.bytes as u32);
        put_u32(&mut bytes, 4, self.data_bytes as u32);
        put_u64(&mut bytes, 8, self.lsn.0);
        put_u64(&mut bytes, 16, self.epoch.0);
        bytes
    }

    /// `None`: the numbers contradict each other.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = Self {
            bytes: get_u32(bytes, 0) as usize,
            data_bytes: get_u32(bytes, 4) as usize,
            lsn: Lsn(get_u64(bytes, 8)),
            epoch: Epoch(get_u64(bytes, 16)),
        };
        let fits = header.bytes <= RECORD_BYTES_MAX
            && header.bytes >= RECORD_HEADER_BYTES
            && header.data_bytes <= header.bytes - RECORD_HEADER_BYTES;
        fits.then_some(header)
    }
}

/// A block that was sealed and is still needed: to find where a record starts, and which marks are persisted.
struct Sealed {
    seq: u64,
    csum: Csum,
    /// First record that starts in this block or after it.
    first: Lsn,
    mark: Lsn,
    strip_done: u64,
}

/// One write of sealed blocks.
pub(super) struct WalWrite {
    /// Byte address on the device.
    pub(super) address: u64,
    pub(super) data: Bytes,
    /// Sequence number after its last block.
    #[cfg(test)]
    end_seq: u64,
    done: Rc<Cell<bool>>,
}

/// What replay found, or format begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalStart {
    pub(super) store: StoreId,
    pub(super) incarnation: u64,
    /// Byte address of the ring.
    pub(super) address: u64,
    pub(super) blocks: u64,
    pub(super) next_seq: u64,
    pub(super) pred: Csum,
    /// Newest record before `next_seq`.
    pub(super) lsn: Lsn,
}

pub(super) struct Wal {
    start: WalStart,
    next_seq: u64,
    tail_seq: u64,
    /// Checksum of block `next_seq - 1`.
    pred: Csum,
    /// Newest record appended.
    newest: Lsn,
    /// Blocks that are not sealed; headers hold `used` and `first` only.
    open: Vec<u8>,
    /// For each open block, the first record that starts in it or after it.
    open_first: Vec<Lsn>,
    /// Blocks from `tail_seq` on that are sealed.
    sealed: VecDeque<Sealed>,
    in_flight: VecDeque<(u64, Rc<Cell<bool>>)>,
    /// Everything below is written, stable.
    written_seq: u64,
    stable_seq: u64,
    /// A block is wanted for the sake of its mark.
    mark_wanted: bool,
    pub(super) bytes_written: u64,
    pub(super) record_bytes: u64,
    pub(super) submissions: u64,
}

impl Wal {
    pub(super) fn new(start: WalStart) -> Self {
        assert!(start.blocks >= WAL_BLOCKS_MIN);
        Self {
            start,
            next_seq: start.next_seq,
            tail_seq: start.next_seq,
            pred: start.pred,
            newest: start.lsn,
            open: Vec::new(),
            open_first: Vec::new(),
            sealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            written_seq: start.next_seq,
            stable_seq: start.next_seq,
            mark_wanted: false,
            bytes_written: 0,
            record_bytes: 0,
            submissions: 0,
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.start.incarnation
    }

    fn open_blocks(&self) -> u64 {
        self.open_first.len() as u64
    }

    /// Blocks between the tail and the end of what is appended.
    pub(super) fn used_blocks(&self) -> u64 {
        self.next_seq + self.open_blocks() - self.tail_seq
    }

    /// Whether the largest record still fits, with the blocks for marks left over.
    pub(super) fn has_room(&self) -> bool {
        self.used_blocks() + RECORD_BLOCKS_MAX + MARK_BLOCKS <= self.start.blocks
    }

    pub(super) fn half_full(&self) -> bool {
        // A small ring is half full earlier: the largest record has to fit beside what is there.
        self.used_blocks() * 2 >= self.start.blocks - RECORD_BLOCKS_MAX - MARK_BLOCKS
    }

    /// Whether a write of blocks is under way.
    pub(super) fn in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub(super) fn has_open(&self) -> bool {
        !self.open_first.is_empty()
    }

    pub(super) fn written_seq(&self) -> u64 {
        self.written_seq
    }

    /// Appends one record; the answer is the number of the block that holds its last byte.
    pub(super) fn append(&mut self, lsn: Lsn, epoch: Epoch, data: &[u8], redo: &[u8]) -> u64 {
        assert_eq!(lsn, self.newest.next(), "invariant 1");
        let bytes = RECORD_HEADER_BYTES + data.len() + redo.len();
        assert!(bytes <= RECORD_BYTES_MAX, "checked before the transaction succeeded");
        let header = RecordHeader { bytes, data_bytes: data.len(), lsn, epoch };
        self.start_record(lsn);
        self.newest = lsn;
        self.put(&header.encode());
        self.put(data);
        self.put(redo);
        self.record_bytes += bytes as u64;
        assert!(self.used_blocks() <= self.start.blocks, "invariant 3: room is tested first");
        self.next_seq + self.open_blocks() - 1
    }

    /// Notes where the record starts, in a new block if the last one has no byte left.
    fn start_record(&mut self, lsn: Lsn) {
        if self.open.len().is_multiple_of(WAL_BLOCK_BYTES) {
            self.open_block(lsn);
        }
        let block = self.open.len() / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
        if get_u16(&self.open, block + AT_FIRST) == NO_RECORD {
            let at = self.open.len() - block - BLOCK_HEADER_BYTES;
            put_u16(&mut self.open, block + AT_FIRST, at as u16);
            *self.open_first.last_mut().expect("a block is open") = lsn;
        }
    }

    fn open_block(&mut self, first: Lsn) {
        let at = self.open.len();
        self.open.resize(at + BLOCK_HEADER_BYTES, 0);
        put_u16(&mut self.open, at + AT_FIRST, NO_RECORD);
        self.open_first.push(first);
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open.len().is_multiple_of(WAL_BLOCK_BYTES) {
                self.open_block(self.newest.next());
            }
            let room = WAL_BLOCK_BYTES - self.open.len() % WAL_BLOCK_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.open.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Asks for a block with the current mark even if there is no record.
    pub(super) fn want_mark(&mut self) {
        self.mark_wanted = true;
    }

    /// Whether some sealed block carries `mark` and `strip_done` or more.
    pub(super) fn mark_sealed(&self, mark: Lsn, strip_done: u64) -> bool {
        self.carries(self.sealed.len(), mark, strip_done)
    }

    /// Whether some written block does.
    pub(super) fn mark_written(&self, mark: Lsn, strip_done: u64) -> bool {
        let count = self.sealed.partition_point(|block| block.seq < self.written_seq);
        self.carries(count, mark, strip_done)
    }

    fn carries(&self, count: usize, mark: Lsn, strip_done: u64) -> bool {
        let last = count.checked_sub(1).map(|at| &self.sealed[at]);
        last.is_some_and(|last| last.mark >= mark && last.strip_done >= strip_done)
    }

    /// Seals what is open, if more may be in flight; the writes (two where the ring wraps) must start now.
    pub(super) fn seal(&mut self, mark: Lsn, epoch: Epoch, strip_done: u64) -> Vec<WalWrite> {
        if self.in_flight.len() >= WRITES_MAX || (!self.has_open() && !self.mark_wanted) {
            return Vec::new();
        }
        if !self.has_open() {
            if self.used_blocks() >= self.start.blocks {
                return Vec::new();
            }
            self.open_block(self.newest.next());
        }
        self.mark_wanted = false;
        let mut image = self.take_open();
        let blocks = image.len() / WAL_BLOCK_BYTES;
        for index in 0..blocks {
            let block = &mut image[index * WAL_BLOCK_BYTES..][..WAL_BLOCK_BYTES];
            let first = self.open_first[index];
            self.seal_block(block, first, mark, epoch, strip_done);
        }
        self.open_first.drain(..blocks);
        self.submissions += 1;
        self.bytes_written += image.len() as u64;
        self.split_at_wrap(image.into_bytes())
    }

    /// Takes the open blocks, padded; at most [`SUBMIT_BLOCKS_MAX`].
    fn take_open(&mut self) -> IoBuf {
        let taken = self.open.len().min(SUBMIT_BLOCKS_MAX * WAL_BLOCK_BYTES);
        let mut image = IoBuf::scratch(taken.next_multiple_of(WAL_BLOCK_BYTES));
        image[..taken].copy_from_slice(&self.open[..taken]);
        image[taken..].fill(0);
        self.open.drain(..taken);
        let last = image.len() - WAL_BLOCK_BYTES;
        for block in (0..image.len()).step_by(WAL_BLOCK_BYTES) {
            let end = if block == last { taken - block } else { WAL_BLOCK_BYTES };
            put_u16(&mut image, block + AT_USED, (end - BLOCK_HEADER_BYTES) as u16);
        }
        image
    }

    fn seal_block(
        &mut self,
        block: &mut [u8],
        first: Lsn,
        mark: Lsn,
        epoch: Epoch,
        strip_done: u64,
    ) {
        put_u32(block, 0, MAGIC);
        put_store(block, AT_STORE, self.start.store);
        put_u64(block, AT_INCARNATION, self.start.incarnation);
        put_u64(block, AT_SEQ, self.next_seq);
        put_u64(block, AT_MARK, mark.0);
        put_u64(block, AT_EPOCH, epoch.0);
        put_u64(block, AT_STRIP_DONE, strip_done);
        put_u32(block, AT_PRED, self.pred.0);
        let csum = crc32c(&block[AT_COVERED..]);
        put_u32(block, AT_CSUM, csum.0);
        self.sealed.push_back(Sealed { seq: self.next_seq, csum, first, mark, strip_done });
        self.pred = csum;
        self.next_seq += 1;
    }

    /// Cuts sealed blocks that end at `next_seq` where the ring starts over.
    fn split_at_wrap(&mut self, image: Bytes) -> Vec<WalWrite> {
        let count = (image.len() / WAL_BLOCK_BYTES) as u64;
        let first = self.next_seq - count;
        let before_wrap = (self.start.blocks - first % self.start.blocks).min(count);
        let cut = before_wrap as usize * WAL_BLOCK_BYTES;
        let mut writes = Vec::with_capacity(2);
        for (seq, data) in [(first, image.slice(..cut)), (first + before_wrap, image.slice(cut..))]
        {
            if data.is_empty() {
                continue;
            }
            let end_seq = seq + (data.len() / WAL_BLOCK_BYTES) as u64;
            let done = Rc::new(Cell::new(false));
            self.in_flight.push_back((end_seq, done.clone()));
            let address = self.start.address + seq % self.start.blocks * WAL_BLOCK_BYTES as u64;
            writes.push(WalWrite {
                address,
                data,
                #[cfg(test)]
                end_seq,
                done,
            });
        }
        writes
    }

    /// A write of [`Wal::seal`] completed.
    pub(super) fn written(&mut self, write: &WalWrite) {
        write.done.set(true);
        while self.in_flight.front().is_some_and(|(_, done)| done.get()) {
            let (end_seq, _) = self.in_flight.pop_front().expect("front is there");
            self.written_seq = end_seq;
        }
    }

    /// A flush that began when everything below `seq` was written is done. Answers the mark and strip batch that the
    /// stable blocks carry.
    pub(super) fn stable(&mut self, seq: u64) -> Option<(Lsn, u64)> {
        assert!(seq <= self.written_seq);
        self.stable_seq = self.stable_seq.max(seq);
        let count = self.sealed.partition_point(|block| block.seq < self.stable_seq);
        let last = self.sealed.get(count.checked_sub(1)?)?;
        Some((last.mark, last.strip_done))
    }

    /// Where replay has to begin to find record `lsn` and everything after it: a block, and its predecessor's checksum.
    pub(super) fn tail_for(&self, lsn: Lsn) -> (u64, Csum) {
        let count = self.sealed.partition_point(|block| block.first <= lsn);
        if lsn > self.newest || self.open_first.first().is_some_and(|first| *first <= lsn) {
            return (self.next_seq, self.pred);
        }
        let at = count.checked_sub(1).expect("blocks from the tail on are kept");
        let seq = self.sealed[at].seq;
        match at.checked_sub(1) {
            Some(before) => (seq, self.sealed[before].csum),
            None => (seq, self.tail_pred()),
        }
    }

    /// The first block that a replay needs, and the checksum of the one before it.
    pub(super) fn tail(&self) -> (u64, Csum) {
        (self.tail_seq, self.tail_pred())
    }

    fn tail_pred(&self) -> Csum {
        // Only asked for the block at the tail itself, which a checkpoint set, or the open did.
        self.start.pred
    }

    /// Blocks below `seq` may be written over: a checkpoint that begins there is stable.
    pub(super) fn set_tail(&mut self, seq: u64, pred: Csum) {
        assert!(self.tail_seq <= seq && seq <= self.next_seq, "invariant 3");
        self.tail_seq = seq;
        self.start.pred = pred;
        while self.sealed.front().is_some_and(|block| block.seq < seq) {
            self.sealed.pop_front();
        }
    }
}

/// Puts records together again from the payloads of consecutive blocks.
#[derive(Default)]
pub(super) struct RecordReader {
    bytes: Vec<u8>,
    /// Where the next record begins in `bytes`.
    at: usize,
    started: bool,
}

/// A record read back.
pub(super) struct Record<'a> {
    pub(super) header: RecordHeader,
    pub(super) data: &'a [u8],
    pub(super) redo: &'a [u8],
}

/// The payload makes no sense although its checksums hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl RecordReader {
    /// Adds the next block.
    pub(super) fn push(&mut self, header: &BlockHeader, block: &[u8]) -> Result<(), Garbled> {
        let payload = &block[BLOCK_HEADER_BYTES..][..header.used];
        self.bytes.drain(..self.at);
        self.at = 0;
        if !self.started {
            let Some(first) = header.first else { return Ok(()) };
            self.started = true;
            self.bytes.extend_from_slice(&payload[first..]);
            return Ok(());
        }
        let held = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let starts_at = match held {
            0 => Some(0),
            _ => self.length().map(|bytes| bytes - held.min(bytes)),
        };
        match header.first {
            Some(first) if starts_at != Some(first) => Err(Garbled),
            _ => Ok(()),
        }
    }

    /// Length of the record under way, as far as it is known.
    fn length(&self) -> Option<usize> {
        (self.bytes.len() >= self.at + 4).then(|| get_u32(&self.bytes, self.at) as usize)
    }

    /// The next record that is there as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Garbled> {
        let held = self.bytes.len() - self.at;
        if held < RECORD_HEADER_BYTES {
            return Ok(None);
        }
        let header = RecordHeader::decode(&self.bytes[self.at..]).ok_or(Garbled)?;
        if held < header.bytes {
            return Ok(None);
        }
        let record = &self.bytes[self.at..self.at + header.bytes];
        self.at += header.bytes;
        let (data, redo) = record[RECORD_HEADER_BYTES..].split_at(header.data_bytes);
        Ok(Some(Record { header, data, redo }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId(uuid::Uuid::from_u128(3));

    fn wal() -> Wal {
        Wal::new(WalStart {
            store: STORE,
            incarnation: 5,
            address: 8 << 20,
            blocks: 64,
            next_seq: 60,
            pred: Csum(9),
            lsn: Lsn(0),
        })
    }

    /// Splits what was submitted into verified blocks, in order, and checks the chain.
    fn blocks(writes: &[WalWrite], mut seq: u64, mut pred: Csum) -> Vec<(BlockHeader, Vec<u8>)> {
        let mut found = Vec::new();
        for write in writes {
            assert_eq!(write.address, (8 << 20) + seq % 64 * 4096);
            for block in write.data.chunks(WAL_BLOCK_BYTES) {
                let header = BlockHeader::verify(block, STORE, 5).unwrap();
                assert_eq!((header.seq, header.pred), (seq, pred));
                (seq, pred) = (seq + 1, header.csum);
                found.push((header, block.to_vec()));
            }
            assert_eq!(seq, write.end_seq);
        }
        found
    }

    #[test]
    fn records_of_every_size_come_back_across_blocks_and_the_wrap() {
        let mut wal = wal();
        let sizes = [1, 4016 - 24, 100, 4015, 20_000, 3, 4016 - 24 - 10, 7, 8, 9, 30_000];
        for (index, size) in sizes.iter().enumerate() {
            let lsn = Lsn(index as u64 + 1);
            wal.append(lsn, Epoch(lsn.0), &[7; 3][..index % 2 * 3], &vec![index as u8; *size]);
        }
        let writes = wal.seal(Lsn(0), Epoch(99), 4);
        assert_eq!(writes.len(), 2, "it passes the end of the ring");
        let mut reader = RecordReader::default();
        let mut next = 0;
        for (header, block) in blocks(&writes, 60, Csum(9)) {
            assert_eq!((header.mark, header.epoch, header.strip_done), (Lsn(0), Epoch(99), 4));
            reader.push(&header, &block).unwrap();
            while let Some(record) = reader.next().unwrap() {
                assert_eq!(record.header.lsn, Lsn(next as u64 + 1));
                assert_eq!(record.data.len(), next % 2 * 3);
                assert_eq!(record.redo, vec![next as u8; sizes[next]]);
                next += 1;
            }
        }
        assert_eq!(next, sizes.len());
        assert_eq!(reader.at, reader.bytes.len(), "no record is cut");
    }

    #[test]
    fn replay_may_begin_in_the_middle_of_a_record() {
        let mut wal = wal();
        for lsn in 1..=5 {
            wal.append(Lsn(lsn), Epoch(lsn), &[], &[lsn as u8; 6000]);
        }
        let writes = wal.seal(Lsn(0), Epoch(5), 0);
        writes.iter().for_each(|write| wal.written(write));
        wal.stable(wal.written_seq());
        let all = blocks(&writes, 60, Csum(9));
        for lsn in 1..=5 {
            let (seq, pred) = wal.tail_for(Lsn(lsn));
            assert_eq!(pred, all[(seq - 60) as usize].0.pred);
            let mut reader = RecordReader::default();
            let mut found = Vec::new();
            for (header, block) in &all[(seq - 60) as usize..] {
                reader.push(header, block).unwrap();
                while let Some(record) = reader.next().unwrap() {
                    found.push(record.header.lsn.0);
                }
            }
            assert!(found[0] <= lsn && lsn < found[0] + 2, "tail for {lsn}: {found:?}");
            assert_eq!(*found.last().unwrap(), 5);
        }
        assert_eq!(wal.tail_for(Lsn(6)).0, wal.next_seq);
    }

    #[test]
    fn written_is_a_prefix_whatever_the_order_of_completions() {
        let mut wal = wal();
        let mut writes = Vec::new();
        for lsn in 1..=3 {
            wal.append(Lsn(lsn), Epoch(lsn), &[], b"x");
            writes.extend(wal.seal(Lsn(0), Epoch(lsn), 0));
        }
        wal.written(&writes[2]);
        wal.written(&writes[1]);
        assert_eq!(wal.written_seq(), 60);
        wal.written(&writes[0]);
        assert_eq!(wal.written_seq(), 63);
        assert_eq!(wal.stable(62), Some((Lsn(0), 0)));
        assert_eq!(wal.stable_seq, 62);
    }

    #[test]
    fn a_mark_goes_out_without_records_when_wanted() {
        let mut wal = wal();
        assert!(wal.seal(Lsn(0), Epoch(0), 0).is_empty());
        wal.want_mark();
        let writes = wal.seal(Lsn(0), Epoch(0), 7);
        assert_eq!(blocks(&writes, 60, Csum(9))[0].0.used, 0);
        assert!(wal.mark_sealed(Lsn(0), 7) && !wal.mark_sealed(Lsn(1), 7));
    }

    #[test]
    fn blocks_of_another_time_or_store_do_not_pass() {
        let mut wal = wal();
        wal.append(Lsn(1), Epoch(1), &[], b"x");
        let block = wal.seal(Lsn(0), Epoch(1), 0)[0].data.to_vec();
        assert!(BlockHeader::verify(&block, STORE, 5).is_some());
        assert!(BlockHeader::verify(&block, STORE, 4).is_none());
        assert!(BlockHeader::verify(&block, StoreId(uuid::Uuid::nil()), 5).is_none());
        for at in 0..WAL_BLOCK_BYTES {
            let mut torn = block.clone();
            torn[at] ^= 0x10;
            assert!(BlockHeader::verify(&torn, STORE, 5).is_none(), "byte {at}");
        }
    }
}
