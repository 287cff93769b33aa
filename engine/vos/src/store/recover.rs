//! Making a store, and opening one: the newest checkpoint, and what the WAL has on top of it.
//!
//! # Order of opening
//! 0. After a clean end there is nothing to scan: the header says so, and everything is home.
//! 1. *Scan*: follow the chain of WAL blocks from the checkpoint's tail to its end, which a power cut may have put anywhere
//!    above the persisted mark. Verify the data of the records above the mark. Everything after the first record that does
//!    not verify is discarded.
//! 2. *Repair* buckets that a power cut tore, from the strip. Flush: what was read may have been in a cache only.
//! 3. *Apply* the records to their buckets.
//! 4. Checkpoint with a new incarnation of the WAL. Only this makes discarded blocks harmless for ever.
//!
//! A crash anywhere in between changes nothing that the next opening would decide on.
//!
//! A read-only opening writes nothing: repairs and records are applied in memory only.
//!
//! # Invariants
//! 1. An operation is skipped when the bucket is formatted or freed later in what is applied: its place may hold anything by
//!    now. Formatting starts from zeros, whatever is on the device.
//! 2. No bucket is written back in the middle of a record.
//! 3. A bucket that does not verify when an operation is to be applied to it is put right if one bit explains it, and written
//!    home with what the log has for it. If not, it is given up *at home* before the log moves on: it lacks changes, so nothing
//!    may ever take it for whole again but a format. The store opens, and what was in it is damage, as if it had been
//!    damaged after a clean end. Only the root and the segment table stop the opening: without them there is no store.

use std::collections::VecDeque;
use std::rc::Rc;

use daos_media::label::{self, Areas, LabelError};
use daos_media::{Device, How, IoBuf};
use daos_types::{Csum, Epoch, Error, Place, Result, StoreId, TargetId};
use daos_xstream::Handle;
use smallvec::SmallVec;

use super::arena::{Arena, IdMap, Pin};
use super::bucket::{BucketHeader, NotABucket};
use super::data::{Pending, decode_log};
use super::header::{self, Header, SLOT_BYTES};
use super::mend::{Mended, mend};
use super::redo::Redo;
use super::space::{BITMAP_BYTES, ENTRIES_PER_BUCKET, ENTRY_BYTES, Entry, SegmentKind, Space};
use super::state::{Counts, State, Waiters};
use super::store::{Inner, Store};
use super::strip::{self, StripHeader};
use super::sync::{Marks, Sync};
use super::tx::Scratch;
use super::wal::{self, BlockHeader, Garbled, RecordReader, WAL_BLOCK_BYTES, Wal, WalStart};
use super::{BUCKET_BLOCKS, BlockRun, Lsn, bucket};
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind};

/// Bytes that one read of the WAL takes, and one write of zeros.
const CHUNK_BYTES: u64 = 256 << 10;
/// Change of every bucket that format writes.
const FORMAT_LSN: Lsn = Lsn(1);

/// What a new store is to be like.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    pub store: StoreId,
    /// `None`: by the size of the device.
    pub wal_bytes: Option<u64>,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// For errors: which target this is.
    pub target: TargetId,
    /// Buckets of 16 KiB to keep in memory; at least 32.
    pub memory_buckets: usize,
    pub sync: Sync,
    /// Write nothing at all.
    pub read_only: bool,
}

/// Why there is no open store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error("preparing the device at byte {address} failed: {source}")]
    Prepare { address: u64, source: std::io::Error },
    #[error(
        "the store can only be opened read-only: it uses features that this program may not change"
    )]
    ReadOnlyFeatures,
    #[error(
        "this store has version {version} of its structures, and this program reads up to {}: use a newer one",
        header::VERSION
    )]
    Newer { version: u32 },
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Store {
    /// Makes an empty device a store.
    ///
    /// # Errors
    /// When the device holds anything, is too small, or fails.
    pub async fn format(
        device: Rc<dyn Device>,
        handle: Handle,
        options: FormatOptions,
    ) -> Result<(), OpenError> {
        let created = handle.now();
        let claim =
            label::begin_format(&*device, options.store, created, options.wal_bytes).await?;
        let areas = claim.label().areas;
        let space = Space::new(areas.space);
        prepare(&*device, &areas, &space).await?;
        for index in 0..space.table_buckets() {
            let image = table_image(&space, index);
            let bucket = space.table_bucket(index);
            write_bucket(&*device, options.store, bucket, BucketKind::Segments, image).await?;
        }
        let (root, zeros) = (space.root(), IoBuf::zeroed(BUCKET_BYTES));
        write_bucket(&*device, options.store, root, BucketKind::Root, zeros).await?;
        let header = Header {
            store: options.store,
            generation: 0,
            incarnation: 1,
            tail_seq: 0,
            tail_pred: Csum(0),
            tail_lsn: FORMAT_LSN.next(),
            mark: FORMAT_LSN,
            epoch: Epoch(created),
            strip_done: 0,
            clean: true,
        };
        let image = IoBuf::copy_of(&header.encode());
        write(&*device, image, areas.header.start).await?;
        claim.finish(&*device, root.byte_address()).await?;
        Ok(())
    }

    /// Opens a store, with everything that was acknowledged and survived.
    ///
    /// # Errors
    /// When the device holds no such store, is damaged where the store cannot do without, or fails.
    pub async fn open(
        device: Rc<dyn Device>,
        handle: Handle,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let found = label::read(&*device).await?;
        if found.read_only && !options.read_only {
            return Err(OpenError::ReadOnlyFeatures);
        }
        let (store, areas) = (found.label.store, found.label.areas);
        let inner = Inner::new(
            device,
            handle,
            store,
            options.target,
            areas,
            options.read_only,
            0,
            empty_state(store, &areas, &options),
        );
        // Before anything is written: it may be a newer program's.
        let header = newest_header(&inner).await?;
        if let Some(bad) = found.bad_copy {
            inner.found_at_open(Place::Label, bad.address, bad.expected, bad.found);
            if !options.read_only {
                label::repair(&*inner.device, &found.label).await?;
            }
        }
        recover(&inner, header).await?;
        let store = Self { inner };
        if !options.read_only {
            store.inner.hold_grant().await?;
            store.inner.start();
            store.mend_fixed_places().await?;
        }
        Ok(store)
    }
}

impl Inner {
    /// Has the host promise again what it promised before (a copy of a store's file may have holes), and the next step. What is
    /// free is not needed; that it may have back.
    async fn hold_grant(self: &Rc<Self>) -> Result<(), OpenError> {
        let used = self.state.borrow_mut().space.grant_used();
        let mut ranges = vec![(0, self.areas.space.start)];
        ranges.extend(used.into_iter().map(|run| self.state.borrow().space.bytes_of(run)));
        for (start, bytes) in ranges {
            let held = self.device.allocate(start, bytes).await;
            held.map_err(|source| OpenError::Prepare { address: start, source })?;
        }
        self.grant().await;
        let inner = self.clone();
        self.handle.spawn(async move { inner.trim_all().await });
        Ok(())
    }
}

async fn write(device: &dyn Device, image: IoBuf, address: u64) -> Result<(), OpenError> {
    let written = device.write(image.into_bytes(), address, How::Direct).await;
    written.map_err(|source| OpenError::Prepare { address, source })
}

async fn write_bucket(
    device: &dyn Device,
    store: StoreId,
    number: BucketId,
    kind: BucketKind,
    mut image: IoBuf,
) -> Result<(), OpenError> {
    bucket::seal(&mut image, store, number, kind, FORMAT_LSN);
    write(device, image, number.byte_address()).await
}

/// Takes the space of the fixed areas and of the first segments from the host, and writes zeros where structures are looked
/// for.
async fn prepare(device: &dyn Device, areas: &Areas, space: &Space) -> Result<(), OpenError> {
    let buckets = u64::from(space.root().0 + 1) * BUCKET_BYTES as u64;
    let fixed = areas.space.start.max(buckets);
    let error = |source| OpenError::Prepare { address: 0, source };
    device.allocate(0, fixed).await.map_err(error)?;
    for area in [areas.header, areas.wal] {
        let mut at = area.start;
        while at < area.end() {
            let bytes = CHUNK_BYTES.min(area.end() - at);
            write(device, IoBuf::zeroed(bytes as usize), at).await?;
            at += bytes;
        }
    }
    write(device, IoBuf::zeroed(strip::HEADER_BYTES), areas.strip.start).await
}

/// A bucket of the segment table of an empty store: only the table itself and the root are allocated.
fn table_image(space: &Space, index: u32) -> IoBuf {
    let mut image = IoBuf::zeroed(BUCKET_BYTES);
    let taken = BlockRun::new(
        space.table_bucket(0).run().addr,
        (space.table_buckets() + 1) * BUCKET_BLOCKS as u32,
    );
    for (segment, first, blocks) in space.pieces(taken) {
        if segment / ENTRIES_PER_BUCKET != index {
            continue;
        }
        let (_, at) = space.entry_place(segment);
        let entry = &mut image[at..at + ENTRY_BYTES];
        for (word, bits) in super::space::mask(first, blocks).into_iter().enumerate() {
            super::bytes::put_u64(entry, 8 * word, bits);
        }
        entry[BITMAP_BYTES] = SegmentKind::Meta as u8;
    }
    image
}

/// The state of a store of which only the label is known.
fn empty_state(store: StoreId, areas: &Areas, options: &OpenOptions) -> State {
    let wal = Wal::new(WalStart {
        store,
        incarnation: 0,
        address: areas.wal.start,
        blocks: areas.wal.bytes / WAL_BLOCK_BYTES as u64,
        next_seq: 0,
        pred: Csum(0),
        lsn: Lsn::ZERO,
    });
    State {
        sync: options.sync,
        arena: Arena::new(options.memory_buckets),
        wal,
        space: Space::new(areas.space),
        pending: Pending::default(),
        marks: Marks::all_at(Lsn::ZERO),
        incomplete: VecDeque::new(),
        acknowledged: Waiters::default(),
        stable: Waiters::default(),
        last_epoch: Epoch::ZERO,
        strip_batch: 0,
        strip_done: 0,
        strip_persisted: 0,
        cancelled: Vec::new(),
        unstable_bytes: 0,
        latch: None,
        scratch: Scratch::default(),
        counts: Counts::default(),
    }
}

async fn recover(inner: &Rc<Inner>, header: Header) -> Result<()> {
    inner.generation.set(header.generation);
    let scan = scan(inner, &header).await?;
    settle(inner, &header, &scan);
    repair_from_strip(inner, &scan).await?;
    if !inner.read_only {
        inner.flush().await?;
    }
    apply_all(inner, &header, &scan).await?;
    learn_space(inner).await?;
    if !inner.read_only {
        // Both slots are of this incarnation then: should one be damaged, what follows is found from the other.
        inner.checkpoint().await?;
        inner.checkpoint().await?;
        // Their places say it from now on, until somebody formats them.
        inner.unusable.borrow_mut().clear();
    }
    Ok(())
}

async fn newest_header(inner: &Inner) -> Result<Header, OpenError> {
    let area = inner.areas.header;
    let slots = inner.read(area.start, 2 * SLOT_BYTES as u64, "the checkpoint header").await?;
    // One is enough: the other slot is an older state of the store.
    if let Some(version) = slots.chunks(SLOT_BYTES).find_map(Header::newer_version) {
        return Err(OpenError::Newer { version });
    }
    let mut found = Vec::new();
    for (index, slot) in slots.chunks(SLOT_BYTES).enumerate() {
        let address = area.start + (index * SLOT_BYTES) as u64;
        if let Some(header) = Header::decode(slot, inner.id) {
            found.push(header);
        } else if let Some((header, Mended { expected, found: there })) =
            Header::mended(slot, inner.id)
        {
            inner.found_at_open(Place::Header, address, expected, there);
            found.push(header);
        } else if slot[..header::SECTOR_BYTES].iter().any(|byte| *byte != 0) {
            let (expected, there) = header::sums(slot);
            inner.found_at_open(Place::Header, address, expected, there);
        }
    }
    let (expected, there) = header::sums(&slots);
    let newest = found.into_iter().max_by_key(|header| header.generation);
    newest.ok_or_else(|| inner.damage(Place::Header, area.start, expected, there).into())
}

/// What the scan of the WAL found.
struct Scan {
    /// Sequence number after the last block of the chain, and the checksum of that block.
    end_seq: u64,
    pred: Csum,
    /// Last record that is kept.
    newest: Lsn,
    epoch: Epoch,
    strip_done: u64,
    mark: Lsn,
    /// For each bucket that is formatted or freed, where that happens last: LSN, and the operation's place in it.
    resets: IdMap<BucketId, (Lsn, u32)>,
}

/// Reads WAL blocks in order, many at a time.
struct BlockReader<'a> {
    inner: &'a Inner,
    blocks: u64,
    chunk: Option<(u64, IoBuf)>,
}

impl<'a> BlockReader<'a> {
    fn new(inner: &'a Inner) -> Self {
        let blocks = inner.areas.wal.bytes / WAL_BLOCK_BYTES as u64;
        Self { inner, blocks, chunk: None }
    }

    fn address(&self, seq: u64) -> u64 {
        self.inner.areas.wal.start + seq % self.blocks * WAL_BLOCK_BYTES as u64
    }

    async fn block(&mut self, seq: u64) -> Result<&mut [u8]> {
        let address = self.address(seq);
        let start = address - (address - self.inner.areas.wal.start) % CHUNK_BYTES;
        if self.chunk.as_ref().is_none_or(|(at, _)| *at != start) {
            let bytes = CHUNK_BYTES.min(self.inner.areas.wal.end() - start);
            self.chunk = Some((start, self.inner.read(start, bytes, "the log").await?));
        }
        let (_, chunk) = self.chunk.as_mut().expect("read above");
        Ok(&mut chunk[(address - start) as usize..][..WAL_BLOCK_BYTES])
    }

    /// The next block of the chain, if it is there. One flipped bit does not break the chain: such a block was written whole, and a
    /// chain that ended there would seem to be one that a power cut ended.
    async fn next(&mut self, link: Link) -> Result<Option<(BlockHeader, &[u8])>> {
        let (inner, address) = (self.inner, self.address(link.seq));
        let block = self.block(link.seq).await?;
        if link.leads_to(block, inner.id).is_none() {
            let mut whole = block.to_vec();
            let mended = mend(&mut whole, wal::MAGIC);
            if let Some(mended) = mended.filter(|_| link.leads_to(&whole, inner.id).is_some()) {
                inner.found_at_open(Place::Wal, address, mended.expected, mended.found);
                block.copy_from_slice(&whole);
            }
        }
        Ok(link.leads_to(block, inner.id).map(|next| (next, &*block)))
    }
}

/// What the next block of the chain must say.
#[derive(Clone, Copy)]
struct Link {
    incarnation: u64,
    seq: u64,
    pred: Csum,
}

impl Link {
    fn leads_to(self, block: &[u8], store: StoreId) -> Option<BlockHeader> {
        BlockHeader::verify(block, store, self.incarnation)
            .filter(|next| next.seq == self.seq && next.pred == self.pred)
    }
}

/// A record above the mark that refers to data.
struct Unproven {
    lsn: Lsn,
    runs: Vec<(BlockRun, Vec<Csum>)>,
}

/// Follows the chain of blocks from the tail, and decides where it ends.
async fn scan(inner: &Inner, header: &Header) -> Result<Scan> {
    let mut blocks = BlockReader::new(inner);
    let mut records = RecordReader::default();
    let mut resets = Vec::new();
    let mut unproven = VecDeque::new();
    let mut scan = Scan {
        end_seq: header.tail_seq,
        pred: header.tail_pred,
        newest: Lsn(header.tail_lsn.0 - 1),
        epoch: header.epoch,
        strip_done: header.strip_done,
        mark: header.mark,
        resets: IdMap::default(),
    };
    if header.clean {
        return Ok(scan);
    }
    while scan.end_seq - header.tail_seq < blocks.blocks {
        let seq = scan.end_seq;
        let address = blocks.address(seq);
        let link = Link { incarnation: header.incarnation, seq, pred: scan.pred };
        let Some((next, block)) = blocks.next(link).await? else { break };
        let garbled = |_: Garbled| inner.damage(Place::Wal, address, next.csum, next.csum);
        records.push(&next, block).map_err(garbled)?;
        while let Some(record) = records.next().map_err(garbled)? {
            let lsn = record.header.lsn;
            if lsn < header.tail_lsn {
                continue;
            }
            let runs = decode_log(record.data).filter(|_| lsn == scan.newest.next());
            let runs = runs.ok_or(Garbled).map_err(garbled)?;
            note_resets(record.redo, lsn, &mut resets).ok_or(Garbled).map_err(garbled)?;
            scan.newest = lsn;
            if !runs.is_empty() {
                unproven.push_back(Unproven { lsn, runs });
            }
        }
        scan.note(&next);
        while unproven.front().is_some_and(|first: &Unproven| first.lsn <= scan.mark) {
            unproven.pop_front();
        }
        (scan.end_seq, scan.pred) = (seq + 1, next.csum);
    }
    look_beyond(inner, header, &mut blocks, &mut scan).await?;
    for record in unproven {
        if record.lsn > scan.mark && !data_is_whole(inner, &record).await? {
            scan.newest = Lsn(record.lsn.0 - 1);
            break;
        }
    }
    for (lsn, place, bucket) in resets {
        if lsn <= scan.newest {
            scan.resets.insert(bucket, (lsn, place));
        }
    }
    Ok(scan)
}

impl Scan {
    fn note(&mut self, block: &BlockHeader) {
        self.mark = self.mark.max(block.mark);
        self.epoch = self.epoch.max(block.epoch);
        self.strip_done = self.strip_done.max(block.strip_done);
    }
}

fn note_resets(mut redo: &[u8], lsn: Lsn, resets: &mut Vec<(Lsn, u32, BucketId)>) -> Option<()> {
    let mut place = 0;
    while !redo.is_empty() {
        let operation = Redo::decode(&mut redo)?;
        if operation.resets() {
            resets.push((lsn, place, operation.bucket()));
        }
        place += 1;
    }
    Some(())
}

/// Looks at the rest of the ring. A block there whose mark covers what the chain lacks proves that the chain was whole once.
async fn look_beyond(
    inner: &Inner,
    header: &Header,
    blocks: &mut BlockReader<'_>,
    scan: &mut Scan,
) -> Result<()> {
    let (hole, newest) = (scan.end_seq, scan.newest);
    for seq in hole..header.tail_seq + blocks.blocks {
        let block = blocks.block(seq).await?;
        let incarnation = BlockHeader::incarnation(block).max(header.incarnation);
        let Some(found) = BlockHeader::verify(block, inner.id, incarnation) else { continue };
        if incarnation > header.incarnation || found.seq >= header.tail_seq + blocks.blocks {
            // Only a header that is newer than the newest that can be read allowed this block.
            tracing::error!(incarnation, seq = found.seq, "the newest checkpoint header is lost");
            let slot = (header.generation + 1) % 2 * SLOT_BYTES as u64;
            let address = inner.areas.header.start + slot;
            return Err(inner.damage(Place::Header, address, Csum(0), Csum(0)));
        }
        if found.seq == seq {
            scan.note(&found);
        }
    }
    if scan.mark > newest {
        let address = blocks.address(hole);
        let block = blocks.block(hole).await?;
        let expected = Csum(super::bytes::get_u32(block, 4));
        let found = daos_types::crc32c(&block[8..]);
        tracing::error!(mark = scan.mark.0, newest = newest.0, "the log ends below its mark");
        return Err(inner.damage(Place::Wal, address, expected, found));
    }
    Ok(())
}

async fn data_is_whole(inner: &Inner, record: &Unproven) -> Result<bool> {
    for (run, csums) in &record.runs {
        if !inner.state.borrow().space.contains(*run) {
            return Ok(false);
        }
        let bytes = inner.read(run.addr.byte_address(), run.bytes(), "data of the log").await?;
        // A block with one flipped bit was written whole: it is damage of that block, and no end of the log.
        let whole = bytes.chunks(daos_types::BLOCK_BYTES).zip(csums).all(|(block, csum)| {
            let found = daos_types::crc32c(block);
            found == *csum || daos_types::flipped_bit(block.len(), *csum, found).is_some()
        });
        if !whole {
            tracing::info!(
                lsn = record.lsn.0,
                ?run,
                "the log ends before a record whose data is torn"
            );
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets marks, clock and WAL to where the scan ended.
fn settle(inner: &Inner, header: &Header, scan: &Scan) {
    let mut state = inner.state.borrow_mut();
    state.wal = Wal::new(WalStart {
        store: inner.id,
        incarnation: header.incarnation + 1,
        address: inner.areas.wal.start,
        blocks: inner.areas.wal.bytes / WAL_BLOCK_BYTES as u64,
        next_seq: scan.end_seq,
        pred: scan.pred,
        lsn: scan.newest,
    });
    state.marks = Marks::all_at(scan.newest);
    state.last_epoch = scan.epoch;
    state.strip_batch = scan.strip_done;
    state.strip_done = scan.strip_done;
    state.strip_persisted = scan.strip_done;
}

/// Rewrites buckets that are torn at home and whole in the strip; in memory only when read-only.
async fn repair_from_strip(inner: &Inner, scan: &Scan) -> Result<()> {
    let area = inner.areas.strip;
    let bytes = inner.read(area.start, strip::HEADER_BYTES as u64, "the strip").await?;
    let Some(header) = StripHeader::decode(&bytes, inner.id) else { return Ok(()) };
    {
        let mut state = inner.state.borrow_mut();
        state.strip_batch = state.strip_batch.max(header.batch);
        state.strip_done = state.strip_batch;
    }
    if header.batch <= scan.strip_done {
        return Ok(());
    }
    for (index, (bucket, csum)) in header.buckets.iter().enumerate() {
        let at = area.start + (strip::HEADER_BYTES + index * BUCKET_BYTES) as u64;
        let image = inner.read(at, BUCKET_BYTES as u64, "the strip").await?;
        let Some(found) = strip::image_is(&image, inner.id, *bucket, *csum) else { continue };
        match inner.read_bucket(*bucket).await {
            Err(Error::Damaged(_)) => {}
            Err(error) => return Err(error),
            Ok(_) => continue,
        }
        tracing::info!(?bucket, "a torn bucket is repaired from the strip");
        if inner.read_only {
            inner.repairs.borrow_mut().insert(*bucket, (image.into_bytes(), found));
            continue;
        }
        let address = bucket.byte_address();
        let written = inner.device.write(image.into_bytes(), address, How::Direct).await;
        written.map_err(|error| Error::Device {
            what: "a bucket that is repaired",
            address,
            kind: error.kind(),
        })?;
    }
    Ok(())
}

/// Applies the records that the scan kept.
async fn apply_all(inner: &Inner, header: &Header, scan: &Scan) -> Result<()> {
    let mut blocks = BlockReader::new(inner);
    let mut records = RecordReader::default();
    let mut pred = header.tail_pred;
    for seq in header.tail_seq..scan.end_seq {
        let address = blocks.address(seq);
        let changed = || inner.damage(Place::Wal, address, Csum(0), Csum(0));
        let link = Link { incarnation: header.incarnation, seq, pred };
        let (found, block) = blocks.next(link).await?.ok_or_else(changed)?;
        pred = found.csum;
        records.push(&found, block).map_err(|_| changed())?;
        while let Some(record) = records.next().map_err(|_| changed())? {
            let lsn = record.header.lsn;
            if lsn > scan.newest {
                return Ok(());
            }
            if lsn >= header.tail_lsn {
                apply(inner, lsn, record.redo, scan).await?;
            }
        }
    }
    Ok(())
}

/// Applies one record: first everything it needs is made resident, then it happens at once.
async fn apply(inner: &Inner, lsn: Lsn, redo: &[u8], scan: &Scan) -> Result<()> {
    let mut operations: SmallVec<[Redo<'_>; 16]> = SmallVec::new();
    let mut rest = redo;
    let mut place = 0;
    while let Some(operation) = Redo::decode(&mut rest) {
        let reset = scan.resets.get(&operation.bucket());
        if reset.is_none_or(|reset| *reset <= (lsn, place)) {
            operations.push(operation);
        }
        place += 1;
    }
    let mut pinned: SmallVec<[(BucketId, Pin); 16]> = SmallVec::new();
    let mut formatted = 0;
    for (index, operation) in operations.iter().enumerate() {
        let bucket = operation.bucket();
        let made_here = || {
            operations[..index]
                .iter()
                .any(|other| other.bucket() == bucket && matches!(other, Redo::Format { .. }))
        };
        if matches!(operation, Redo::Format { .. }) {
            formatted += 1;
        } else if !operation.resets()
            && pinned.iter().all(|(other, _)| *other != bucket)
            && !made_here()
        {
            let loaded = load_for_replay(inner, bucket).await?;
            pinned.extend(loaded.map(|pin| (bucket, pin)));
        }
    }
    let unusable = inner.unusable.borrow();
    operations.retain(|operation| !unusable.contains_key(&operation.bucket()));
    drop(unusable);
    make_frames(inner, formatted).await?;
    let mut state = inner.state.borrow_mut();
    state.arena.begin_run();
    for operation in &operations {
        apply_operation(&mut state.arena, lsn, operation);
    }
    for (_, pin) in pinned {
        state.arena.unpin(pin);
    }
    state.counts.replayed += 1;
    state.arena.begin_run();
    Ok(())
}

fn apply_operation(arena: &mut Arena, lsn: Lsn, operation: &Redo<'_>) {
    let bucket = operation.bucket();
    match *operation {
        Redo::Free { .. } => {
            arena.freed(bucket, lsn);
            return;
        }
        Redo::Format { kind, .. } => {
            // Whatever is resident under this number was freed or is from before.
            arena.freed(bucket, lsn);
            arena.format(bucket, kind).expect("room was made");
        }
        _ => {}
    }
    let index = arena.find(bucket).expect("loaded or formatted before");
    let run = arena.run();
    let frame = arena.frame_mut(index);
    if frame.changed_in != run && frame.lsn >= lsn {
        return;
    }
    frame.changed_in = run;
    operation.apply(&mut frame.bytes[..]);
    arena.changed(index, lsn);
}

/// Makes a bucket resident and pins it; `None`: it is unusable.
async fn load_for_replay(inner: &Inner, bucket: BucketId) -> Result<Option<Pin>> {
    loop {
        {
            let mut state = inner.state.borrow_mut();
            state.arena.begin_run();
            if let Some(pin) = state.arena.pin(bucket) {
                return Ok(Some(pin));
            }
        }
        if inner.unusable.borrow().contains_key(&bucket) {
            return Ok(None);
        }
        make_frames(inner, 1).await?;
        let Some((image, header, mended)) = read_for_replay(inner, bucket).await? else {
            continue;
        };
        let mut state = inner.state.borrow_mut();
        assert!(state.arena.begin_load(), "frames were made");
        state.arena.loaded(bucket, header.kind, header.lsn, &image);
        if mended {
            // Home with it, whether or not an operation changes it.
            let index = state.arena.find(bucket).expect("just loaded");
            state.arena.changed(index, header.lsn);
        }
    }
}

/// A bucket that operations are about to be applied to, and whether a flipped bit of it was put right. `None`: it is unusable
/// (invariant 3).
async fn read_for_replay(
    inner: &Inner,
    bucket: BucketId,
) -> Result<Option<(IoBuf, BucketHeader, bool)>> {
    let damage = match inner.read_bucket(bucket).await {
        Ok((image, header)) => return Ok(Some((image, header, false))),
        Err(Error::Damaged(damage)) if !inner.is_fixed(bucket) => damage,
        Err(error) => return Err(error),
    };
    let mut image = inner.read_home(bucket).await?;
    if mend(&mut image, bucket::MAGIC).is_some()
        && let Ok(header) = bucket::verify(&image, inner.id, bucket)
    {
        tracing::warn!(%damage, "a flipped bit is put right");
        inner.found_at_open(Place::Bucket, damage.address, damage.expected, damage.found);
        return Ok(Some((image, header, true)));
    }
    tracing::error!(%damage, "what the log has for this bucket is lost with it");
    if !inner.read_only {
        bucket::give_up(&mut image);
        let sector = IoBuf::copy_of(&image[..header::SECTOR_BYTES]).into_bytes();
        let written = inner.device.write(sector, damage.address, How::Direct).await;
        written.map_err(|error| Error::Device {
            what: "a bucket that is given up",
            address: damage.address,
            kind: error.kind(),
        })?;
    }
    let not = NotABucket { expected: damage.expected, found: damage.found };
    inner.unusable.borrow_mut().insert(bucket, not);
    Ok(None)
}

/// Writes buckets back until `count` frames could be had. A read-only store takes more memory instead.
async fn make_frames(inner: &Inner, count: usize) -> Result<()> {
    loop {
        let (available, newest, batch) = {
            let mut state = inner.state.borrow_mut();
            state.arena.begin_run();
            (state.arena.available(), state.marks.newest, state.arena.budget() / 4)
        };
        if available >= count {
            return Ok(());
        }
        if inner.read_only || !inner.write_back(newest, batch.min(strip::BATCH_MAX)).await? {
            // One record of a store that had more memory: rather more than we were given than no store.
            inner.state.borrow_mut().arena.unbounded = true;
            return Ok(());
        }
    }
}

/// Reads the segment table, through what is resident.
async fn learn_space(inner: &Inner) -> Result<()> {
    let (buckets, segments) = {
        let state = inner.state.borrow();
        (state.space.table_buckets(), state.space.segments())
    };
    for index in 0..buckets {
        let bucket = inner.state.borrow().space.table_bucket(index);
        let resident = inner.state.borrow().arena.peek(bucket).map(|frame| frame.bytes.to_vec());
        let image = match resident {
            Some(image) => image,
            None => inner.read_bucket(bucket).await?.0.to_vec(),
        };
        let first = index * ENTRIES_PER_BUCKET;
        for segment in first..segments.min(first + ENTRIES_PER_BUCKET) {
            let at = BUCKET_HEADER_BYTES + (segment - first) as usize * ENTRY_BYTES;
            let entry = Entry::decode(&image[at..at + ENTRY_BYTES]).ok_or_else(|| {
                inner.damage(Place::Bucket, bucket.byte_address(), Csum(0), Csum(0))
            })?;
            inner.state.borrow_mut().space.learn(segment, entry);
        }
    }
    inner.state.borrow_mut().arena.unbounded = inner.read_only;
    Ok(())
}
