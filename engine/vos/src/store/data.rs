//! Data blocks: writes in flight, and reads that see them.
//!
//! # Invariants
//! 1. A write is in the pending table from before it starts until it is complete; reads of its blocks are served from
//!    its buffer, which nobody can change.
//! 2. No two writes of a block are in flight at once: a second one (into allocated blocks whose first writer gave up) starts
//!    when the first is complete.
//! 3. What is read is verified, block by block, or is an error that names what was expected and found.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use daos_media::{Io, IoBuf};
use daos_types::{BLOCK_BYTES, Csum, Damage, Error, Place, Result, crc32c};
use daos_xstream::sync::Event;

use super::bytes::{get_u32, get_u64};
use super::store::{Inner, Store};
use super::sync::Sync;
use super::{BlockAddr, BlockRun};

/// Most blocks in one write, so that a search of the pending table knows how far to look back.
pub(super) const WRITE_BLOCKS_MAX: u32 = 1024;

/// A write from this size on is on its way to the medium before anybody asks for it to be stable: a stream does not
/// leave everything to the flush at its end.
const WRITE_OUT_BYTES_MIN: u64 = 512 << 10;

/// A write of data that has started.
pub(super) struct DataState {
    run: BlockRun,
    data: Bytes,
    csums: Box<[Csum]>,
    complete: Cell<bool>,
    done: Event,
}

impl DataState {
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    pub(super) fn blocks(&self) -> u32 {
        self.run.blocks
    }

    /// Appends what replay needs to verify the data.
    pub(super) fn log(&self, log: &mut Vec<u8>) {
        log.extend_from_slice(&self.run.addr.0.to_le_bytes());
        log.extend_from_slice(&self.run.blocks.to_le_bytes());
        for csum in &self.csums {
            log.extend_from_slice(&csum.0.to_le_bytes());
        }
    }
}

/// A write of data that has started: its checksums, and what a transaction depends on.
#[derive(Clone)]
pub struct DataWrite(pub(super) Rc<DataState>);

impl DataWrite {
    #[must_use]
    pub fn run(&self) -> BlockRun {
        self.0.run
    }

    /// One per block.
    #[must_use]
    pub fn csums(&self) -> &[Csum] {
        &self.0.csums
    }
}

/// Splits the data section of a record: runs with their checksums. `None`: it is no such section.
pub(super) fn decode_log(mut log: &[u8]) -> Option<Vec<(BlockRun, Vec<Csum>)>> {
    let mut runs = Vec::new();
    while !log.is_empty() {
        if log.len() < 12 {
            return None;
        }
        let run = BlockRun::new(BlockAddr(get_u64(log, 0)), get_u32(log, 8));
        let csums = log.get(12..12 + 4 * run.blocks as usize)?;
        runs.push((run, csums.chunks(4).map(|bytes| Csum(get_u32(bytes, 0))).collect()));
        log = &log[12 + csums.len()..];
    }
    Some(runs)
}

/// Writes in flight, by address and age.
#[derive(Default)]
pub(super) struct Pending {
    writes: BTreeMap<(u64, u64), Rc<DataState>>,
    next: u64,
}

impl Pending {
    fn insert(&mut self, write: Rc<DataState>) -> u64 {
        self.next += 1;
        self.writes.insert((write.run.addr.0, self.next), write);
        self.next
    }

    fn overlapping(&self, run: BlockRun) -> impl Iterator<Item = (u64, &Rc<DataState>)> {
        let start = run.addr.0.saturating_sub(u64::from(WRITE_BLOCKS_MAX) - 1);
        self.writes
            .range((start, 0)..(run.end().0, 0))
            .filter(move |(_, write)| write.run.end() > run.addr)
            .map(|((_, id), write)| (*id, write))
    }

    pub(super) fn overlaps(&self, run: BlockRun) -> bool {
        self.overlapping(run).next().is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }
}

impl Store {
    /// Starts writing `data` (whole blocks) to `run`, which the caller has reserved, or which is allocated and unwritten.
    ///
    /// # Errors
    /// When the store accepts no changes.
    ///
    /// # Panics
    /// When `data` is not as long as `run`.
    pub fn write_data(&self, run: BlockRun, data: Bytes) -> Result<DataWrite> {
        assert_eq!(data.len() as u64, run.bytes(), "data of {run:?}");
        assert!(run.blocks > 0 && run.blocks <= WRITE_BLOCKS_MAX, "{run:?} is no single write");
        self.inner.check_writable()?;
        let csums = data.chunks(BLOCK_BYTES).map(crc32c).collect();
        let done = Event::new();
        let write = Rc::new(DataState { run, data, csums, complete: Cell::new(false), done });
        let mut state = self.inner.state.borrow_mut();
        assert!(state.space.contains(run), "{run:?} is outside the space");
        let before: Vec<_> =
            state.pending.overlapping(run).map(|(_, other)| other.clone()).collect();
        let id = state.pending.insert(write.clone());
        state.counts.data_bytes_written += run.bytes();
        state.add_unstable(run.bytes());
        drop(state);
        self.inner.clone().start_data(write.clone(), id, before);
        Ok(DataWrite(write))
    }

    /// Reads and verifies blocks from `addr` on, one for each checksum.
    ///
    /// # Errors
    /// `Damaged` with the first block that is not what was written; `Device`.
    pub async fn read_data(&self, addr: BlockAddr, csums: &[Csum]) -> Result<Bytes> {
        let run = BlockRun::new(addr, csums.len() as u32);
        if let Some(bytes) = self.pending_bytes(run) {
            return Ok(bytes);
        }
        let overlay: Vec<_> = {
            let mut state = self.inner.state.borrow_mut();
            state.counts.data_bytes_read += run.bytes();
            state.pending.overlapping(run).map(|(_, write)| write.clone()).collect()
        };
        let mut buffer = self.inner.read(run.addr.byte_address(), run.bytes(), "data").await?;
        for write in overlay {
            lay_over(&mut buffer, run, &write);
        }
        self.inner.verify_data(run, csums, &buffer)?;
        Ok(buffer.into_bytes())
    }

    /// The bytes of a run that lies inside one write in flight, the newest of it.
    fn pending_bytes(&self, run: BlockRun) -> Option<Bytes> {
        let state = self.inner.state.borrow();
        let (_, write) = state.pending.overlapping(run).max_by_key(|(id, _)| *id)?;
        let skip = run.addr.0.checked_sub(write.run.addr.0)? as usize * BLOCK_BYTES;
        let inside = run.end() <= write.run.end();
        inside.then(|| write.data.slice(skip..skip + run.bytes() as usize))
    }
}

/// Copies what a write in flight and `run` have in common.
fn lay_over(buffer: &mut IoBuf, run: BlockRun, write: &DataState) {
    let start = run.addr.max(write.run.addr);
    let end = run.end().min(write.run.end());
    let len = (end.0 - start.0) as usize * BLOCK_BYTES;
    let to = (start.0 - run.addr.0) as usize * BLOCK_BYTES;
    let from = (start.0 - write.run.addr.0) as usize * BLOCK_BYTES;
    buffer[to..to + len].copy_from_slice(&write.data[from..from + len]);
}

impl Inner {
    /// Starts the device write at once, or when the writes of the same blocks before it are complete.
    fn start_data(self: Rc<Self>, write: Rc<DataState>, id: u64, before: Vec<Rc<DataState>>) {
        if !before.is_empty() {
            let handle = self.handle.clone();
            handle.spawn(async move {
                for other in before {
                    other.done.wait().await;
                }
                let result = self.issue_data(&write).await;
                self.data_written(&write, id, result);
            });
            return;
        }
        match self.issue_data(&write).try_complete() {
            Ok(result) => self.data_written(&write, id, result),
            Err(io) => {
                let handle = self.handle.clone();
                handle.spawn(async move {
                    self.data_written(&write, id, io.await);
                    self.write_out(write.run).await;
                });
            }
        }
    }

    fn issue_data(&self, write: &DataState) -> Io<()> {
        self.device.write(write.data.clone(), write.run.addr.byte_address(), self.sync.how())
    }

    /// Has a large write written out. Nobody waits for it.
    async fn write_out(&self, run: BlockRun) {
        if run.bytes() < WRITE_OUT_BYTES_MIN || self.sync == Sync::Always {
            return;
        }
        let address = run.addr.byte_address();
        if let Err(error) = self.device.write_out(address, run.bytes()).await {
            self.latch(&format!("writing out data at byte {address} failed: {error}"));
        }
    }

    fn data_written(&self, write: &DataState, id: u64, result: std::io::Result<()>) {
        if let Err(error) = result {
            // It stays in the table: its buffer is the only sure copy.
            let address = write.run.addr.byte_address();
            self.latch(&format!("writing data at byte {address} failed: {error}"));
            return;
        }
        let mut state = self.state.borrow_mut();
        write.complete.set(true);
        state.pending.writes.remove(&(write.run.addr.0, id));
        let freed = state.drain_cancelled();
        self.frees.set(self.frees.get() + u64::from(freed));
        state.advance();
        let flush_due = self.sync.flush_due(&state.marks);
        drop(state);
        write.done.set();
        if flush_due {
            self.flush_kick.notify_all();
        }
        self.progress.notify_all();
    }

    pub(super) fn verify_data(&self, run: BlockRun, csums: &[Csum], bytes: &[u8]) -> Result<()> {
        for (index, (block, expected)) in bytes.chunks(BLOCK_BYTES).zip(csums).enumerate() {
            let found = crc32c(block);
            if found != *expected {
                let address = run.part(index as u32, 1).addr.byte_address();
                return Err(self.damage(Place::Data, address, *expected, found));
            }
        }
        Ok(())
    }

    pub(super) fn damage(&self, place: Place, address: u64, expected: Csum, found: Csum) -> Error {
        let damage = Damage { pool: None, target: self.target, place, address, expected, found };
        tracing::error!(%damage);
        Error::Damaged(Box::new(damage))
    }
}
