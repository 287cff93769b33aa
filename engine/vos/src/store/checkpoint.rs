//! Writing buckets home, and checkpoints. The target goes on meanwhile.
//!
//! # Order
//! One batch: images are taken; WAL and data are forced up to the newest change in them; images go to the strip; flush;
//! home; flush. Only then are they clean. A checkpoint is batches until no bucket has a change from before its start, then
//! the header in the older slot, flush, and only then is the WAL below its tail free.
//!
//! Taking images *before* forcing is what lets a bucket that changes all the time go home: the image is
//! stable even though the bucket is ahead of it again.

use bytes::Bytes;
use daos_media::{How, IoBuf};
use daos_types::{Csum, Error, Result};
use daos_xstream::sync::Permit;

use super::Lsn;
use super::bucket;
use super::header::{Header, SLOT_BYTES};
use super::store::Inner;
use super::strip::{BATCH_MAX, HEADER_BYTES, StripHeader};
use crate::pages::{BUCKET_BYTES, BucketId};

/// Images on their way home.
struct Batch {
    /// In the order of their places.
    buckets: Vec<(BucketId, Csum)>,
    /// Strip header and images, as they go to the strip.
    strip: Bytes,
    /// Newest change in any image.
    newest: Lsn,
}

impl Inner {
    /// Whether buckets should be written back to make room in memory.
    pub(super) fn under_pressure(&self) -> bool {
        let state = self.state.borrow();
        let dirty = state.arena.not_clean();
        dirty > state.arena.budget() / 2 || (self.frames_short() && dirty > 0)
    }

    /// Writes the oldest changes back.
    pub(super) async fn write_back_oldest(&self) -> Result<()> {
        let _one = self.clean_alone().await?;
        let (up_to, count) = {
            let state = self.state.borrow();
            (state.marks.newest, (state.arena.budget() / 4).clamp(16, BATCH_MAX))
        };
        self.write_back(up_to, count).await?;
        Ok(())
    }

    /// Writes up to `count` buckets with changes at or below `up_to` back; whether there were any.
    pub(super) async fn write_back(&self, up_to: Lsn, count: usize) -> Result<bool> {
        let Some(batch) = self.take_batch(up_to, count) else { return Ok(false) };
        self.force_to(batch.newest).await?;
        self.write("the strip", batch.strip.clone(), self.areas.strip.start).await?;
        self.flush().await?;
        let mut writes = Vec::with_capacity(batch.buckets.len());
        for (index, (bucket, _)) in batch.buckets.iter().enumerate() {
            let at = HEADER_BYTES + index * BUCKET_BYTES;
            let image = batch.strip.slice(at..at + BUCKET_BYTES);
            writes.push(self.device.write(image, bucket.byte_address(), How::Direct));
        }
        for (io, (bucket, _)) in writes.into_iter().zip(&batch.buckets) {
            if let Err(error) = io.await {
                self.latch(&format!("writing {bucket:?} back failed: {error}"));
            }
        }
        self.flush().await?;
        self.end_batch(&batch);
        Ok(true)
    }

    /// Takes the images of a batch.
    fn take_batch(&self, up_to: Lsn, count: usize) -> Option<Batch> {
        let mut state = self.state.borrow_mut();
        let mut frames = state.arena.oldest_dirty(up_to, count);
        if frames.is_empty() {
            return None;
        }
        frames.sort_unstable_by_key(|at| state.arena.frame(*at).bucket);
        let mut strip = IoBuf::zeroed(HEADER_BYTES + frames.len() * BUCKET_BYTES);
        let mut buckets = Vec::with_capacity(frames.len());
        let mut newest = Lsn::ZERO;
        for (index, at) in frames.into_iter().enumerate() {
            let frame = state.arena.frame(at);
            let image = &mut strip[HEADER_BYTES + index * BUCKET_BYTES..][..BUCKET_BYTES];
            image.copy_from_slice(&frame.bytes[..]);
            let csum = bucket::seal(image, self.id, frame.bucket, frame.kind, frame.lsn);
            buckets.push((frame.bucket, csum));
            newest = newest.max(frame.lsn);
            state.arena.begin_write_back(at);
        }
        state.strip_batch += 1;
        let header = StripHeader { batch: state.strip_batch, buckets };
        strip[..HEADER_BYTES].copy_from_slice(&header.encode(self.id));
        Some(Batch { buckets: header.buckets, strip: strip.into_bytes(), newest })
    }

    fn end_batch(&self, batch: &Batch) {
        let mut state = self.state.borrow_mut();
        for (bucket, _) in &batch.buckets {
            state.arena.end_write_back(*bucket);
        }
        state.strip_done = state.strip_batch;
        state.counts.buckets_written += batch.buckets.len() as u64;
        drop(state);
        self.progress.notify_all();
    }

    /// Writes past the page cache; a failure latches.
    async fn write(&self, what: &str, data: Bytes, address: u64) -> Result<()> {
        if let Err(error) = self.device.write(data, address, How::Direct).await {
            self.latch(&format!("writing {what} at byte {address} failed: {error}"));
        }
        self.state.borrow().check()
    }

    /// The right to write buckets or a header, for one at a time; nobody has it after a stop.
    async fn clean_alone(&self) -> Result<Permit> {
        let one = self.cleaning.acquire(1).await;
        if self.stopping.get() { Err(Error::Stopped) } else { Ok(one) }
    }

    /// A checkpoint of everything up to now.
    pub(super) async fn checkpoint(&self) -> Result<()> {
        let _one = self.clean_alone().await?;
        self.checkpoint_alone().await
    }

    /// The same for who has the right to it.
    pub(super) async fn checkpoint_alone(&self) -> Result<()> {
        let start = {
            let state = self.state.borrow();
            state.check()?;
            state.marks.newest
        };
        while self.write_back(start, BATCH_MAX).await? {}
        self.force_to(start).await?;
        let header = self.next_header();
        self.write_header(header).await
    }

    /// At the very end, when no task and no write is under way and none can begin: lets the next opening know that there is nothing to replay.
    pub(super) async fn end_clean(&self) -> Result<()> {
        let at_rest = {
            let state = self.state.borrow();
            let is_home = state.arena.not_clean() == 0 && !state.wal.has_open();
            is_home && state.marks.stable == state.marks.newest && state.check().is_ok()
        };
        if !at_rest {
            return Ok(());
        }
        let header = Header { clean: true, ..self.next_header() };
        self.write_header(header).await
    }

    /// The header that describes what is home now.
    fn next_header(&self) -> Header {
        let mut state = self.state.borrow_mut();
        let stable = state.marks.stable;
        let needed = state.arena.needed_from(stable).unwrap_or(Lsn(u64::MAX));
        let tail_lsn = needed.min(stable.next());
        let (tail_seq, tail_pred) = state.wal.tail_for(tail_lsn);
        Header {
            store: self.id,
            generation: self.generation.get() + 1,
            incarnation: state.wal.incarnation(),
            tail_seq,
            tail_pred,
            tail_lsn,
            mark: stable,
            epoch: state.last_epoch,
            strip_done: state.strip_done,
            clean: false,
        }
    }

    async fn write_header(&self, header: Header) -> Result<()> {
        let slot = self.areas.header.start + header.generation % 2 * SLOT_BYTES as u64;
        let image = IoBuf::copy_of(&header.encode()).into_bytes();
        self.write("the checkpoint header", image, slot).await?;
        self.flush().await?;
        self.generation.set(header.generation);
        let mut state = self.state.borrow_mut();
        state.wal.set_tail(header.tail_seq, header.tail_pred);
        state.persisted(header.mark, header.strip_done);
        state.counts.checkpoints += 1;
        drop(state);
        self.end_quarantine();
        self.progress.notify_all();
        Ok(())
    }
}
