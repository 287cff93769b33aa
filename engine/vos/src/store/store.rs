//! The store's door: transactions, views, reservations, forcing; and the tasks that move what they leave behind.
//!
//! # Order
//! `state` is borrowed only between awaits. A closure run borrows it as a whole: closures must not call the store.
//! Tasks: the *submitter* seals WAL blocks, the *flusher* flushes, the *cleaner* writes buckets back and makes
//! checkpoints, the *ticker* forces what is a second old and begins checkpoints when it is time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use daos_media::label::Areas;
use daos_media::{Device, How, IoBuf};
use daos_types::{Damage, Epoch, Error, Place, Result, StoreId, TargetId};
use daos_xstream::Handle;
use daos_xstream::sync::{Event, Notify, Permit, Semaphore};
use smallvec::SmallVec;

use super::arena::{IdMap, Pin};
use super::bucket;
use super::flushes::Flushes;
use super::space::{Claim, ENTRY_BYTES, Entry, GRANT_SEGMENTS};
use super::state::State;
use super::sync::Sync;
use super::tx::{Outcome, Tx, View};
use super::wal::WalWrite;
use super::{BlockRun, Lsn};
use crate::pages::{Abort, BUCKET_BYTES, BucketId};

/// Buckets that an operation may keep resident while others are loaded for it, if memory has so many.
const PINS_WISHED: usize = 96;
/// The same when there is plenty of memory: an eighth of it, up to this.
const PINS_MAX: usize = 512;
/// Buckets that pins never take: others go on with these.
const UNPINNED: usize = 8;
/// What is acknowledged and older than this is on stable media.
const FORCE_AFTER: Duration = Duration::from_millis(500);
/// How long a writer waits for readers who still see what was freed, before it answers `NoSpace`.
const FREES_AFTER_MAX: Duration = Duration::from_secs(10);
/// Time for which a free segment must not have been needed before its space is the host's again.
const TRIM_AFTER: Duration = Duration::from_millis(if cfg!(test) { 600 } else { 4000 });
/// Runs of segments that are returned at a time.
const TRIM_RUNS: usize = 64;
/// Segments that are returned at a time when the store is opened.
const TRIM_PIECE: u32 = 256;
/// Time between checkpoints while there are changes.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(15);

/// One target's buckets and blocks. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Rc<Inner>,
}

pub(super) struct Inner {
    pub(super) device: Rc<dyn Device>,
    pub(super) handle: Handle,
    pub(super) id: StoreId,
    pub(super) target: TargetId,
    pub(super) areas: Areas,
    pub(super) sync: Sync,
    pub(super) read_only: bool,
    pub(super) state: RefCell<State>,
    /// Reads of blocks under way, by the newest LSN when they began.
    guards: RefCell<BTreeMap<Lsn, u32>>,
    loading: RefCell<IdMap<BucketId, Rc<Load>>>,
    /// In a store opened read-only: whole images from the strip of buckets that are torn at home.
    pub(super) repairs: RefCell<IdMap<BucketId, (Bytes, bucket::BucketHeader)>>,
    /// Buckets that replay needed and could not use: damage, whatever is read of them later. Of a store opened read-only
    /// for as long as it is open; else until they are given up at home and the log has moved on.
    pub(super) unusable: RefCell<IdMap<BucketId, bucket::NotABucket>>,
    /// Damage that opening met and could do without.
    pub(super) found_at_open: RefCell<Vec<Damage>>,
    /// Of the root and the segment table: what was put right in memory, and is to be written home again.
    pub(super) mended: RefCell<Vec<BucketId>>,
    /// Those who do that now.
    pub(super) mending: Cell<u32>,
    /// Those who wait for a frame; while there are any, only operations with pins go on.
    frame_waiters: Cell<u32>,
    pins: Semaphore,
    pub(super) pins_max: usize,
    /// One write-back or checkpoint at a time.
    pub(super) cleaning: Semaphore,
    flushing: Flushes,
    granting: Semaphore,
    /// Blocks came free so often, and so many wait for that; reservations that are held.
    pub(super) frees: Cell<u64>,
    free_waiters: Cell<u32>,
    reservations: Cell<u32>,
    /// Times that the host gave something.
    grants: Cell<u64>,
    pub(super) submit_kick: Notify,
    /// Nobody is there to share a log block with: records are submitted by whoever made them.
    alone: Cell<bool>,
    pub(super) flush_kick: Notify,
    pub(super) clean_kick: Notify,
    tick_kick: Notify,
    /// Something came loose: a mark, a frame, WAL room, space.
    pub(super) progress: Notify,
    pub(super) checkpoint_wanted: Cell<bool>,
    pub(super) generation: Cell<u64>,
    pub(super) stopping: Cell<bool>,
}

/// Buckets that one operation may pin, and a transaction change.
fn pins_max(budget: usize) -> usize {
    let all = budget - UNPINNED;
    (all / 8).clamp(PINS_WISHED.min(all), PINS_MAX)
}

/// A load of a bucket under way.
struct Load {
    done: Event,
    error: RefCell<Option<Error>>,
}

/// How a transaction is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct TxOptions {
    /// What it does to the space: who gives back may take what others may not.
    pub claim: Claim,
    /// What it touches is no sign of use by anybody.
    pub background: bool,
}

/// A transaction that succeeded. It is acknowledged when [`Store::acknowledged`] says so.
#[derive(Clone, Copy, Debug)]
pub struct Committed<T> {
    pub value: T,
    pub epoch: Epoch,
    /// What an answer has to wait for: its own number, or, if it changed nothing, that of what it read.
    pub lsn: Lsn,
}

impl Store {
    /// Runs `f` until it neither faults nor errs; then everything it did is one record of the log, submitted at
    /// once and not yet durable.
    ///
    /// `f` may run several times, each time with none of its earlier changes. It must not call the store.
    ///
    /// # Errors
    /// What `f` ended with; `NoSpace`, `Latched`, `ReadOnly`; `Damaged` or `Device` for a bucket it needs.
    pub async fn transact<T>(
        &self,
        options: TxOptions,
        mut f: impl FnMut(&mut Tx<'_>) -> Result<T, Abort>,
    ) -> Result<Committed<T>> {
        let inner = &self.inner;
        let mut pins = Pins::new(inner);
        let mut frames_wanted = 0;
        let mut room = Room::default();
        loop {
            inner.admit(&pins).await?;
            let abort = match inner.run(options, &mut f) {
                Ok(committed) => {
                    if inner.alone.get() {
                        inner.submit();
                    }
                    return Ok(committed);
                }
                Err(abort) => abort,
            };
            match abort {
                Abort::Error(error) => return Err(error),
                Abort::Fault(bucket) => pins.fault(bucket).await?,
                Abort::NoFrame => {
                    frames_wanted += 1;
                    pins.permit().await;
                    inner.wait_for_frames(frames_wanted).await?;
                }
                Abort::NoBucket => {
                    pins = Pins::new(inner);
                    inner.make_room(&mut room, true).await?;
                }
            }
        }
    }

    /// Runs `f` over a state of the store that does not change meanwhile. The LSN is that of the newest change
    /// that `f` read: the answer may go out when it is acknowledged.
    ///
    /// # Errors
    /// What `f` ended with; `Damaged` or `Device` for a bucket it needs.
    pub async fn view<T>(
        &self,
        mut f: impl FnMut(&View<'_>) -> Result<T, Abort>,
    ) -> Result<(T, Lsn)> {
        let mut pins = Pins::new(&self.inner);
        loop {
            let result = {
                self.inner.state.borrow_mut().arena.begin_run();
                let state = self.inner.state.borrow();
                let view = View::new(&state.arena);
                f(&view).map(|value| (value, view.read()))
            };
            // The run is over: what it looked at may make room for what it lacked.
            self.inner.state.borrow_mut().arena.begin_run();
            match result {
                Ok(answer) => return Ok(answer),
                Err(Abort::Error(error)) => return Err(error),
                Err(Abort::Fault(bucket)) => pins.fault(bucket).await?,
                Err(abort @ (Abort::NoFrame | Abort::NoBucket)) => {
                    unreachable!("a view takes nothing: {abort:?}")
                }
            }
        }
    }

    /// Waits until the commit mark has passed `lsn`.
    ///
    /// # Errors
    /// `Latched`: it never will.
    pub async fn acknowledged(&self, lsn: Lsn) -> Result<()> {
        poll_fn(|context| {
            let mut state = self.inner.state.borrow_mut();
            if state.commit_mark() >= lsn {
                return Poll::Ready(Ok(()));
            }
            state.check()?;
            state.acknowledged.add(lsn, context.waker());
            Poll::Pending
        })
        .await
    }

    /// Waits until everything so far is on stable media.
    ///
    /// # Errors
    /// `Latched`: it never will be.
    pub async fn force(&self) -> Result<()> {
        let newest = self.inner.state.borrow().marks.newest;
        self.inner.force_to(newest).await
    }

    /// While `alone`, the record of a transaction is submitted as soon as it is made. Else that waits until everything that is
    /// ready has run, so that records share blocks.
    pub fn set_alone(&self, alone: bool) {
        self.inner.alone.set(alone);
    }

    /// Newest transaction.
    #[must_use]
    pub fn newest(&self) -> Lsn {
        self.inner.state.borrow().marks.newest
    }

    /// Reserves blocks; several runs where no long one is free. Dropped, what is left of it goes back.
    ///
    /// # Errors
    /// `NoSpace`, `Latched`, `ReadOnly`; those of loading the segment table.
    pub async fn reserve(&self, blocks: u32, options: TxOptions) -> Result<Reservation> {
        self.inner.check_writable()?;
        let mut reservation = Reservation::new(&self.inner);
        let mut left = blocks;
        let mut room = Room::default();
        while left > 0 {
            self.inner.drain_cancelled();
            let choice = self.inner.state.borrow_mut().space.choose_data(left, options.claim);
            let Some(segment) = choice else {
                self.inner.make_room(&mut room, false).await?;
                continue;
            };
            let Some(entry) = self.inner.resident_entry(segment) else {
                let (table, _) = self.inner.state.borrow().space.entry_place(segment);
                self.inner.load(table).await?;
                continue;
            };
            let run = self.inner.state.borrow_mut().space.take_data(segment, entry.allocated, left);
            left -= run.blocks;
            reservation.add(run);
        }
        self.inner.grant_ahead();
        Ok(reservation)
    }

    /// Counts what comes free: a number to give to [`Store::wait_for_frees`].
    #[must_use]
    pub fn frees(&self) -> u64 {
        self.inner.frees.get()
    }

    /// Waits until something has come free since `seen` was told by [`Store::frees`], by frees in progress or reservations of others;
    /// false: nothing will, or not soon. The caller holds neither read guard nor reservation: it would wait for itself.
    ///
    /// # Errors
    /// When the store accepts no changes.
    pub async fn wait_for_frees(&self, seen: u64) -> Result<bool> {
        let inner = &self.inner;
        let _waiting = FreeWaiter::new(inner);
        let give_up = inner.handle.monotonic() + FREES_AFTER_MAX.as_nanos() as u64;
        let mut timer = pin!(inner.handle.sleep_until(give_up));
        loop {
            inner.check_writable()?;
            let mut progress = pin!(inner.progress.wait());
            inner.drain_cancelled();
            inner.end_quarantine();
            if inner.frees.get() > seen {
                return Ok(true);
            }
            let (target, persisted, cancelled) = {
                let state = inner.state.borrow();
                let target = state.space.quarantined_up_to();
                let persisted = (state.marks.persisted, state.strip_persisted);
                (target, persisted, !state.cancelled.is_empty())
            };
            match target {
                Some((lsn, strip)) if lsn > persisted.0 || strip > persisted.1 => {
                    inner.persist_to(lsn, strip).await?;
                    continue;
                }
                None if inner.reservations.get() == 0 && !cancelled => return Ok(false),
                _ if inner.handle.monotonic() >= give_up => return Ok(false),
                _ => {}
            }
            // A reader or a writer holds it back, and says when it is done.
            poll_fn(|context| {
                let over = timer.as_mut().poll(context).is_ready();
                match progress.as_mut().poll(context) {
                    Poll::Pending if !over => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            })
            .await;
        }
    }

    /// While it lives, no block that is freed from now on is given to anybody else.
    #[must_use]
    pub fn read_guard(&self) -> ReadGuard {
        ReadGuard::new(&self.inner)
    }

    /// The bucket in which everything begins.
    #[must_use]
    pub fn root(&self) -> BucketId {
        self.inner.state.borrow().space.root()
    }

    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.id
    }

    #[must_use]
    pub fn target(&self) -> TargetId {
        self.inner.target
    }

    /// Writes every changed bucket home, so that the next open replays nothing.
    ///
    /// # Errors
    /// `Latched`.
    pub async fn checkpoint(&self) -> Result<()> {
        self.inner.checkpoint().await
    }

    /// Checkpoint, flush, end of the tasks; no write is under way afterwards. Clones of the store answer `Stopped`
    /// from now on; changes that were made meanwhile are unknown, not lost or kept.
    ///
    /// # Errors
    /// `Latched`: what was above the mark is not there at the next open.
    pub async fn stop(self) -> Result<()> {
        // To the end: a checkpoint of the cleaner would write its header beside the last one, or after it.
        let _one = self.inner.cleaning.acquire(1).await;
        let mut result = match self.inner.read_only {
            true => Ok(()),
            false => self.inner.checkpoint_alone().await,
        };
        self.inner.stopping.set(true);
        self.inner.quiesce().await;
        if result.is_ok() && !self.inner.read_only {
            result = self.inner.end_clean().await;
        }
        for kick in [
            &self.inner.submit_kick,
            &self.inner.flush_kick,
            &self.inner.clean_kick,
            &self.inner.tick_kick,
            &self.inner.progress,
        ] {
            kick.notify_all();
        }
        result
    }

    /// Why the store accepts no changes any more, if that is so.
    #[must_use]
    pub fn latched(&self) -> Option<std::sync::Arc<str>> {
        self.inner.state.borrow().latch.clone()
    }

    /// Space as it is now.
    #[must_use]
    pub fn space(&self) -> SpaceUsage {
        let state = self.inner.state.borrow();
        let asks = state.space.host_full() && self.inner.granting.free() == 1;
        if asks && !self.inner.stopped_as(&state) {
            // The host may have got space meanwhile: the next answer says so.
            let inner = self.inner.clone();
            self.inner.handle.spawn(async move { inner.grant().await });
        }
        let reserve = state.space.reserve_blocks();
        let usable = state.space.available() + state.space.quarantined();
        SpaceUsage {
            capacity_blocks: state.space.capacity(),
            free_blocks: usable.saturating_sub(reserve),
            reserve_blocks: reserve.min(usable),
            metadata_blocks: state.space.meta_blocks(),
        }
    }

    /// Numbers for people and tests.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let state = self.inner.state.borrow();
        let counts = &state.counts;
        vec![
            ("transactions", counts.transactions),
            ("transaction_reruns", counts.reruns),
            ("wal_bytes_written", state.wal.bytes_written),
            ("wal_record_bytes", state.wal.record_bytes),
            ("wal_submissions", state.wal.submissions),
            ("wal_blocks_used", state.wal.used_blocks()),
            ("buckets_resident", state.arena.resident() as u64),
            ("buckets_dirty", state.arena.not_clean() as u64),
            ("buckets_loaded", counts.buckets_loaded),
            ("buckets_evicted", state.arena.evicted),
            ("buckets_written", counts.buckets_written),
            ("checkpoints", counts.checkpoints),
            ("flushes", counts.flushes),
            ("data_bytes_written", counts.data_bytes_written),
            ("data_bytes_read", counts.data_bytes_read),
            ("data_writes_in_flight", state.pending.len() as u64),
            ("blocks_quarantined", state.space.quarantined()),
            ("bytes_discarded", counts.discarded_bytes),
            ("records_replayed", counts.replayed),
        ]
    }
}

/// Blocks of the space by what may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceUsage {
    pub capacity_blocks: u64,
    /// Could be written now or once frees in progress are stable.
    pub free_blocks: u64,
    /// Kept back for deletes.
    pub reserve_blocks: u64,
    /// Used by the segment table and buckets.
    pub metadata_blocks: u64,
}

impl Inner {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        device: Rc<dyn Device>,
        handle: Handle,
        id: StoreId,
        target: TargetId,
        areas: Areas,
        read_only: bool,
        generation: u64,
        state: State,
    ) -> Rc<Self> {
        let budget = state.arena.budget();
        Rc::new(Self {
            device,
            handle,
            id,
            target,
            areas,
            sync: state.sync,
            read_only,
            state: RefCell::new(state),
            guards: RefCell::default(),
            loading: RefCell::default(),
            repairs: RefCell::default(),
            unusable: RefCell::default(),
            found_at_open: RefCell::default(),
            mended: RefCell::default(),
            mending: Cell::new(0),
            frame_waiters: Cell::new(0),
            pins: Semaphore::new(budget - UNPINNED),
            pins_max: pins_max(budget),
            cleaning: Semaphore::new(1),
            flushing: Flushes::default(),
            granting: Semaphore::new(1),
            frees: Cell::new(0),
            free_waiters: Cell::new(0),
            reservations: Cell::new(0),
            grants: Cell::new(0),
            submit_kick: Notify::new(),
            alone: Cell::new(false),
            flush_kick: Notify::new(),
            clean_kick: Notify::new(),
            tick_kick: Notify::new(),
            progress: Notify::new(),
            checkpoint_wanted: Cell::new(false),
            generation: Cell::new(generation),
            stopping: Cell::new(false),
        })
    }

    /// Starts the tasks of a store that may be changed.
    pub(super) fn start(self: &Rc<Self>) {
        self.handle.spawn(submitter(Rc::downgrade(self), self.submit_kick.clone()));
        self.handle.spawn(flusher(Rc::downgrade(self), self.flush_kick.clone()));
        self.handle.spawn(cleaner(Rc::downgrade(self), self.clean_kick.clone()));
        self.handle.spawn(ticker(Rc::downgrade(self), self.tick_kick.clone()));
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.stopping.get() {
            return Err(Error::Stopped);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.state.borrow().check()
    }

    pub(super) fn latch(&self, reason: &str) {
        self.state.borrow_mut().set_latch(reason);
        for kick in [&self.progress, &self.flush_kick, &self.clean_kick, &self.submit_kick] {
            kick.notify_all();
        }
    }

    /// Waits until a run may begin: there is room in the WAL, and nobody waits for frames without whom we can go on.
    async fn admit(&self, pins: &Pins<'_>) -> Result<()> {
        loop {
            self.check_writable()?;
            let room = self.state.borrow().wal.has_room();
            if room && (self.frame_waiters.get() == 0 || pins.permit.is_some()) {
                return Ok(());
            }
            let progress = self.progress.wait();
            if !room {
                self.checkpoint_wanted.set(true);
            }
            self.clean_kick.notify_all();
            progress.await;
        }
    }

    /// One run of a transaction's closure.
    fn run<T>(
        &self,
        options: TxOptions,
        f: &mut impl FnMut(&mut Tx<'_>) -> Result<T, Abort>,
    ) -> Result<Committed<T>, Abort> {
        let mut state = self.state.borrow_mut();
        state.arena.note_use = !options.background;
        let now = self.handle.now();
        let mut tx = Tx::begin(&mut state, now, options.claim, self.pins_max);
        let epoch = tx.epoch();
        let result = f(&mut tx);
        let finished = tx.finish(result);
        state.arena.note_use = true;
        match finished {
            Ok((value, Outcome { lsn, changed })) => {
                drop(state);
                if changed {
                    if !self.alone.get() {
                        self.submit_kick.notify_all();
                    }
                    self.tick_kick.notify_all();
                }
                Ok(Committed { value, epoch, lsn })
            }
            Err(abort) => {
                state.counts.reruns += u64::from(!matches!(abort, Abort::Error(_)));
                Err(abort)
            }
        }
    }

    // Loading.

    /// Makes a bucket resident; it may be gone again by the time of the next await.
    /// Brings a bucket into memory, unless it was freed meanwhile: nothing refers to that one any more, and its frame would
    /// outlive its number.
    pub(super) async fn load(self: &Rc<Self>, bucket: BucketId) -> Result<()> {
        loop {
            if self.state.borrow().arena.peek(bucket).is_some() || self.is_freed(bucket) {
                return Ok(());
            }
            let under_way = self.loading.borrow().get(&bucket).cloned();
            let load = match under_way {
                Some(load) => load,
                None if self.state.borrow_mut().arena.begin_load() => self.start_load(bucket),
                None => {
                    self.wait_for_frames(1).await?;
                    continue;
                }
            };
            load.done.wait().await;
            let error = load.error.borrow().clone();
            if let Some(error) = error {
                return Err(error);
            }
        }
    }

    /// Freed, and not available yet: whoever faulted on it holds it there by a read guard.
    fn is_freed(&self, bucket: BucketId) -> bool {
        self.state.borrow().space.is_held(bucket.run())
    }

    /// Loads in a task of its own: who waits may go away.
    fn start_load(self: &Rc<Self>, bucket: BucketId) -> Rc<Load> {
        let load = Rc::new(Load { done: Event::new(), error: RefCell::new(None) });
        self.loading.borrow_mut().insert(bucket, load.clone());
        let (inner, task) = (self.clone(), load.clone());
        self.handle.spawn(async move {
            let result = inner.read_bucket(bucket).await;
            inner.loading.borrow_mut().remove(&bucket);
            let mut state = inner.state.borrow_mut();
            match result {
                Ok((image, header)) => {
                    state.counts.buckets_loaded += 1;
                    state.arena.loaded(bucket, header.kind, header.lsn, &image);
                }
                Err(error) => {
                    state.arena.load_failed();
                    *task.error.borrow_mut() = Some(error);
                }
            }
            drop(state);
            task.done.set();
            if !inner.mended.borrow().is_empty() && inner.mending.get() == 0 && !inner.read_only {
                // Before a second bit is lost, too.
                let written = Store { inner }.mend_fixed_places().await;
                if let Err(error) = written {
                    tracing::warn!(%error, "a bucket that was put right is not written again yet");
                }
            }
        });
        load
    }

    /// A bucket as it lies on the device.
    pub(super) async fn read_home(&self, bucket: BucketId) -> Result<IoBuf> {
        self.read_how(bucket.byte_address(), BUCKET_BYTES as u64, "a bucket", How::Direct).await
    }

    /// A bucket from the device, verified.
    pub(super) async fn read_bucket(
        &self,
        bucket: BucketId,
    ) -> Result<(IoBuf, bucket::BucketHeader)> {
        let address = bucket.byte_address();
        if let Some(not) = self.unusable.borrow().get(&bucket) {
            return Err(self.damage(Place::Bucket, address, not.expected, not.found));
        }
        let image = self.read_home(bucket).await?;
        match bucket::verify(&image, self.id, bucket) {
            Ok(header) => Ok((image, header)),
            Err(not) => match self.repairs.borrow().get(&bucket) {
                Some((repair, header)) => Ok((IoBuf::copy_of(repair), *header)),
                None => match self.mend_fixed(bucket, &image) {
                    Some(mended) => Ok(mended),
                    None => Err(self.damage(Place::Bucket, address, not.expected, not.found)),
                },
            },
        }
    }

    pub(super) async fn read(&self, address: u64, bytes: u64, what: &'static str) -> Result<IoBuf> {
        self.read_how(address, bytes, what, self.sync.how()).await
    }

    async fn read_how(
        &self,
        address: u64,
        bytes: u64,
        what: &'static str,
        how: How,
    ) -> Result<IoBuf> {
        let buffer = IoBuf::scratch(bytes as usize);
        let read = self.device.read(buffer, address, how).await;
        read.map_err(|error| Error::Device { what, address, kind: error.kind() })
    }

    /// Waits until `count` frames could be had.
    async fn wait_for_frames(&self, count: usize) -> Result<()> {
        let _waiting = Waiting::new(self);
        loop {
            let progress = self.progress.wait();
            let state = self.state.borrow();
            if state.arena.available() >= count {
                return Ok(());
            }
            // Without write-back nothing that is dirty can leave any more.
            state.check()?;
            drop(state);
            self.clean_kick.notify_all();
            progress.await;
        }
    }

    pub(super) fn frames_short(&self) -> bool {
        self.frame_waiters.get() > 0
    }

    // Space.

    /// The entry of a segment, if the table's bucket is resident.
    pub(super) fn resident_entry(&self, segment: u32) -> Option<Entry> {
        let state = self.state.borrow();
        let (table, at) = state.space.entry_place(segment);
        let frame = state.arena.frame(state.arena.find(table)?);
        let entry = Entry::decode(&frame.bytes[at..at + ENTRY_BYTES]);
        Some(entry.expect("verified when the store was opened"))
    }

    /// The next thing that can be done for an allocator that found nothing; `NoSpace` when all is done.
    async fn make_room(self: &Rc<Self>, room: &mut Room, bucket: bool) -> Result<()> {
        self.check_writable()?;
        if self.grant().await || self.end_quarantine() {
            return Ok(());
        }
        if !room.persisted {
            room.persisted = true;
            let target = self.state.borrow().space.quarantined_up_to();
            if let Some((lsn, strip)) = target {
                self.persist_to(lsn, strip).await?;
                return Ok(());
            }
        }
        while bucket && let Some(segment) = self.next_uncounted(room.recounted) {
            room.recounted = segment + 1;
            if self.recount(segment).await? {
                return Ok(());
            }
        }
        Err(Error::NoSpace)
    }

    fn next_uncounted(&self, from: u32) -> Option<u32> {
        self.state.borrow().space.uncounted(from)
    }

    /// Looks a segment's entry up for groups that are not counted; whether there are any.
    async fn recount(self: &Rc<Self>, segment: u32) -> Result<bool> {
        let entry = loop {
            if let Some(entry) = self.resident_entry(segment) {
                break entry;
            }
            let (table, _) = self.state.borrow().space.entry_place(segment);
            self.load(table).await?;
        };
        let mut state = self.state.borrow_mut();
        state.space.recount(segment, entry.allocated);
        Ok(state.space.has_groups(segment))
    }

    /// Asks the host for the next step of space; whether it was given.
    pub(super) async fn grant(&self) -> bool {
        let before = self.grants.get();
        let _one = self.granting.acquire(1).await;
        if self.grants.get() > before {
            return true;
        }
        let mut most = GRANT_SEGMENTS;
        loop {
            let Some(run) = self.state.borrow().space.next_grant(most) else { return false };
            let (start, bytes) = self.state.borrow().space.bytes_of(run);
            match self.device.allocate(start, bytes).await {
                Ok(()) => {
                    self.state.borrow_mut().space.granted(run.0, run.1);
                    self.grants.set(before + 1);
                    self.progress.notify_all();
                    return true;
                }
                // It may have less than that.
                Err(_) if run.1 > 1 => most = run.1 / 4,
                Err(error) => {
                    // The host is full: that is ENOSPC for whoever needs the space, and no more.
                    tracing::warn!(start, %error, "the host has no space for the store to grow");
                    self.state.borrow_mut().space.set_host_full();
                    return false;
                }
            }
        }
    }

    /// Returns the space of free segments to the host that were not needed for some time.
    async fn trim(&self) {
        let _one = self.granting.acquire(1).await;
        let runs = self.state.borrow_mut().space.trim(TRIM_RUNS);
        self.discard(runs).await;
    }

    /// Returns what an earlier life of the store left behind.
    pub(super) async fn trim_all(&self) {
        let runs = self.state.borrow().space.not_granted();
        // In pieces: who asks for space meanwhile waits for one of them.
        let pieces = runs.into_iter().flat_map(|(first, count)| {
            let piece = move |at| (first + at, TRIM_PIECE.min(count - at));
            (0..count).step_by(TRIM_PIECE as usize).map(piece)
        });
        for run in pieces {
            let _one = self.granting.acquire(1).await;
            // What was granted meanwhile is somebody's.
            let is_still = self.state.borrow().space.is_not_granted(run);
            if is_still && !self.stopped() {
                self.discard(vec![run]).await;
            }
        }
    }

    /// Discards free segments that are not granted. Nothing refers to them: quarantine has ended.
    async fn discard(&self, runs: Vec<(u32, u32)>) {
        for run in runs {
            let (start, bytes) = self.state.borrow().space.bytes_of(run);
            if let Err(error) = self.device.discard(start, bytes).await {
                tracing::warn!(start, bytes, %error, "the host does not take space back");
            }
            self.state.borrow_mut().counts.discarded_bytes += bytes;
        }
    }

    /// Keeps the host's promise ahead of the allocator.
    fn grant_ahead(self: &Rc<Self>) {
        if self.granting.free() == 1 && self.state.borrow().space.grant_wanted() {
            let inner = self.clone();
            self.handle.spawn(async move { inner.grant().await });
        }
    }

    /// The oldest read under way.
    fn oldest_reader(&self) -> Option<Lsn> {
        self.guards.borrow().keys().next().copied()
    }

    /// Lets go of freed blocks that nothing needs any more; whether there were any.
    pub(super) fn end_quarantine(&self) -> bool {
        let reader = self.oldest_reader();
        let state = &mut *self.state.borrow_mut();
        let (persisted, strip) = (state.marks.persisted, state.strip_persisted);
        let busy = |run| state.pending.overlaps(run);
        let any = state.space.end_quarantine(persisted, strip, reader, busy);
        self.frees.set(self.frees.get() + u64::from(any));
        any
    }

    /// Gives back reserved blocks that nobody wants any more and nobody is writing still.
    pub(super) fn drain_cancelled(&self) {
        let any = self.state.borrow_mut().drain_cancelled();
        self.frees.set(self.frees.get() + u64::from(any));
    }

    /// Somebody who holds blocks back is done.
    fn tell_free_waiters(&self) {
        if self.free_waiters.get() > 0 {
            self.progress.notify_all();
        }
    }

    // Marks.

    /// Seals and submits what is ready.
    fn submit(self: &Rc<Self>) {
        loop {
            let writes = {
                let mut state = self.state.borrow_mut();
                if state.check().is_err() {
                    return;
                }
                let (stable, epoch, strip) =
                    (state.marks.stable, state.last_epoch, state.strip_done);
                state.wal.seal(stable, epoch, strip)
            };
            if writes.is_empty() {
                break;
            }
            for write in writes {
                self.start_wal_write(write);
            }
            self.progress.notify_all();
        }
        let half_full = self.state.borrow().wal.half_full();
        if half_full {
            self.checkpoint_wanted.set(true);
        }
        if half_full || self.under_pressure() {
            self.clean_kick.notify_all();
        }
    }

    fn start_wal_write(self: &Rc<Self>, write: WalWrite) {
        let io = self.device.write(write.data.clone(), write.address, self.sync.how());
        match io.try_complete() {
            Ok(result) => self.wal_written(&write, result),
            Err(io) => {
                let inner = self.clone();
                self.handle.spawn(async move { inner.wal_written(&write, io.await) });
            }
        }
    }

    fn wal_written(&self, write: &WalWrite, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.latch(&format!("writing the log at byte {} failed: {error}", write.address));
            return;
        }
        let mut state = self.state.borrow_mut();
        state.wal.written(write);
        state.advance();
        let more = state.wal.has_open();
        let flush_due = self.sync.flush_due(&state.marks);
        drop(state);
        if more {
            self.submit_kick.notify_all();
        }
        if flush_due {
            self.flush_kick.notify_all();
        }
        self.progress.notify_all();
    }

    /// Flushes the device, and notes what that made stable. One at a time (`flushes.rs`), and none after one that failed.
    pub(super) async fn flush(&self) -> Result<()> {
        let mut turn = self.flushing.turn(&self.handle).await;
        let (complete, seq) = {
            let state = self.state.borrow();
            state.check()?;
            (state.marks.complete, state.wal.written_seq())
        };
        if let Err(error) = turn.flush(&*self.device).await {
            self.latch(&format!("flushing the device failed: {error}"));
        }
        let mut state = self.state.borrow_mut();
        state.check()?;
        state.flushed(complete, seq);
        drop(state);
        self.end_quarantine();
        self.progress.notify_all();
        self.flush_kick.notify_all();
        Ok(())
    }

    /// Waits until everything up to `lsn` is on stable media.
    pub(super) async fn force_to(&self, lsn: Lsn) -> Result<()> {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.marks.stable >= lsn {
                return Poll::Ready(Ok(()));
            }
            state.check()?;
            if state.marks.wanted() < lsn {
                state.marks.want(lsn);
                self.submit_kick.notify_all();
                self.flush_kick.notify_all();
            }
            state.stable.add(lsn, context.waker());
            Poll::Pending
        })
        .await
    }

    /// Waits until something on stable media says that everything up to `lsn` and strip batch `strip` is done.
    async fn persist_to(&self, lsn: Lsn, strip: u64) -> Result<()> {
        self.force_to(lsn).await?;
        loop {
            let progress = self.progress.wait();
            let mut state = self.state.borrow_mut();
            if state.marks.persisted >= lsn && state.strip_persisted >= strip {
                return Ok(());
            }
            state.check()?;
            if !state.wal.mark_sealed(lsn, strip) && state.strip_done >= strip {
                state.wal.want_mark();
            }
            let written = state.wal.mark_written(lsn, strip);
            let full = !state.wal.has_room();
            drop(state);
            if written {
                self.flush().await?;
                continue;
            }
            if full {
                // A checkpoint's header persists the mark as well.
                self.checkpoint_wanted.set(true);
                self.clean_kick.notify_all();
            }
            self.submit_kick.notify_all();
            progress.await;
        }
    }

    /// Waits until no write is in flight.
    async fn quiesce(&self) {
        loop {
            let progress = self.progress.wait();
            let busy = {
                let state = self.state.borrow();
                // After a latch some will never be complete: their outcome is unknown for good.
                state.latch.is_none() && (state.wal.in_flight() || state.pending.len() > 0)
            };
            if !busy {
                break;
            }
            progress.await;
        }
        // Neither is a grant or a discard.
        let _none = self.granting.acquire(1).await;
    }

    fn stopped(&self) -> bool {
        self.stopped_as(&self.state.borrow())
    }

    fn stopped_as(&self, state: &State) -> bool {
        self.stopping.get() || state.latch.is_some()
    }
}

/// How far an allocator has gone in looking for room.
#[derive(Default)]
struct Room {
    /// The quarantine was ended as far as it could be.
    persisted: bool,
    /// Segments below have been counted afresh.
    recounted: u32,
}

/// Counts somebody who waits for blocks, for as long as it lives.
struct FreeWaiter<'a>(&'a Inner);

impl<'a> FreeWaiter<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.free_waiters.set(inner.free_waiters.get() + 1);
        Self(inner)
    }
}

impl Drop for FreeWaiter<'_> {
    fn drop(&mut self) {
        self.0.free_waiters.set(self.0.free_waiters.get() - 1);
    }
}

/// Counts somebody who waits for frames, for as long as it lives.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.frame_waiters.set(inner.frame_waiters.get() + 1);
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.frame_waiters.set(self.0.frame_waiters.get() - 1);
        // Those who were held back for it go on.
        self.0.progress.notify_all();
    }
}

/// What an operation that faulted keeps in memory until it is done.
struct Pins<'a> {
    inner: &'a Rc<Inner>,
    buckets: SmallVec<[Pin; 8]>,
    /// Faults that ended with a freed bucket.
    freed: usize,
    permit: Option<Permit>,
    /// A bucket freed after the closure saw it must not become something else before it is loaded.
    guard: Option<ReadGuard>,
}

impl<'a> Pins<'a> {
    fn new(inner: &'a Rc<Inner>) -> Self {
        Self { inner, buckets: SmallVec::new(), freed: 0, permit: None, guard: None }
    }

    /// The right to pin, first come first served.
    async fn permit(&mut self) {
        if self.permit.is_none() {
            self.permit = Some(self.inner.pins.acquire(self.inner.pins_max).await);
        }
    }

    /// Loads and pins a bucket; one that was freed meanwhile the next run does not ask for.
    async fn fault(&mut self, bucket: BucketId) -> Result<()> {
        if self.guard.is_none() {
            self.guard = Some(ReadGuard::new(self.inner));
        }
        self.permit().await;
        let max = self.inner.pins_max;
        if self.buckets.len() + self.freed >= max {
            return Err(Error::TooLarge { what: "the operation's buckets", max: max as u64 });
        }
        loop {
            self.inner.load(bucket).await?;
            let pin = self.inner.state.borrow_mut().arena.pin(bucket);
            if let Some(pin) = pin {
                self.buckets.push(pin);
                return Ok(());
            }
            if self.inner.is_freed(bucket) {
                self.freed += 1;
                return Ok(());
            }
        }
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if self.buckets.is_empty() {
            return;
        }
        let mut state = self.inner.state.borrow_mut();
        for pin in self.buckets.drain(..) {
            state.arena.unpin(pin);
        }
        drop(state);
        self.inner.progress.notify_all();
    }
}

/// See [`Store::read_guard`].
pub struct ReadGuard {
    inner: Rc<Inner>,
    lsn: Lsn,
}

impl ReadGuard {
    fn new(inner: &Rc<Inner>) -> Self {
        let lsn = inner.state.borrow().marks.newest;
        *inner.guards.borrow_mut().entry(lsn).or_default() += 1;
        Self { inner: inner.clone(), lsn }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let mut guards = self.inner.guards.borrow_mut();
        let count = guards.get_mut(&self.lsn).expect("counted when it was made");
        *count -= 1;
        if *count == 0 {
            guards.remove(&self.lsn);
        }
        // What it held back is let go with the next flush or allocation.
        self.inner.tell_free_waiters();
    }
}

/// Blocks that nobody else gets. What is not published when it is dropped goes back, once its device writes are done.
pub struct Reservation {
    inner: Rc<Inner>,
    runs: SmallVec<[BlockRun; 2]>,
    left: Rc<RefCell<Vec<BlockRun>>>,
}

impl Reservation {
    fn new(inner: &Rc<Inner>) -> Self {
        inner.reservations.set(inner.reservations.get() + 1);
        Self { inner: inner.clone(), runs: SmallVec::new(), left: Rc::default() }
    }

    fn add(&mut self, run: BlockRun) {
        self.runs.push(run);
        self.left.borrow_mut().push(run);
    }

    /// What was reserved, in the order of the request.
    #[must_use]
    pub fn runs(&self) -> &[BlockRun] {
        &self.runs
    }

    pub(super) fn has(&self, run: BlockRun) -> bool {
        let holds = |other: &BlockRun| other.addr <= run.addr && run.end() <= other.end();
        self.left.borrow().iter().any(holds)
    }

    pub(super) fn left(&self) -> Rc<RefCell<Vec<BlockRun>>> {
        self.left.clone()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.reservations.set(self.inner.reservations.get() - 1);
        let left = self.left.take();
        if !left.is_empty() {
            self.inner.state.borrow_mut().cancelled.extend(left);
            self.inner.drain_cancelled();
        }
        self.inner.tell_free_waiters();
    }
}

/// Seals WAL blocks after everything that is ready has run, so that it shares them.
async fn submitter(inner: Weak<Inner>, kick: Notify) {
    loop {
        let wait = kick.wait();
        match inner.upgrade() {
            Some(inner) if !inner.stopped() => inner.submit(),
            _ => return,
        }
        wait.await;
    }
}

async fn flusher(inner: Weak<Inner>, kick: Notify) {
    loop {
        let wait = kick.wait();
        {
            let Some(inner) = inner.upgrade() else { return };
            if inner.stopped() {
                return;
            }
            let due = {
                let state = inner.state.borrow();
                inner.sync.flush_due(&state.marks)
            };
            if due {
                if inner.flush().await.is_err() {
                    return;
                }
                continue;
            }
        }
        wait.await;
    }
}

async fn cleaner(inner: Weak<Inner>, kick: Notify) {
    loop {
        let wait = kick.wait();
        {
            let Some(inner) = inner.upgrade() else { return };
            if inner.stopped() {
                return;
            }
            let result = if inner.checkpoint_wanted.replace(false) {
                inner.checkpoint().await
            } else if inner.under_pressure() {
                inner.write_back_oldest().await
            } else {
                drop(inner);
                wait.await;
                continue;
            };
            if result.is_err() {
                return;
            }
        }
    }
}

/// Sleeps while nothing changes; then sees to it that nothing stays unforced or unchecked for long.
async fn ticker(inner: Weak<Inner>, kick: Notify) {
    let Some(handle) = inner.upgrade().map(|inner| inner.handle.clone()) else { return };
    let mut checkpoint_at = handle.monotonic() + CHECKPOINT_AFTER.as_nanos() as u64;
    let mut trim_at = handle.monotonic() + TRIM_AFTER.as_nanos() as u64;
    loop {
        let wait = kick.wait();
        {
            let Some(inner) = inner.upgrade() else { return };
            if inner.stopped() {
                return;
            }
            match inner.tick() {
                Tick::Idle => {
                    drop(inner);
                    wait.await;
                }
                Tick::Busy => {}
                Tick::MarkWritten => {
                    if inner.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
        handle.sleep(FORCE_AFTER).await;
        let Some(inner) = inner.upgrade() else { return };
        if handle.monotonic() >= trim_at && !inner.stopped() {
            trim_at = handle.monotonic() + TRIM_AFTER.as_nanos() as u64;
            let inner = inner.clone();
            handle.spawn(async move { inner.trim().await });
        }
        if handle.monotonic() >= checkpoint_at {
            checkpoint_at = handle.monotonic() + CHECKPOINT_AFTER.as_nanos() as u64;
            inner.checkpoint_wanted.set(true);
            inner.clean_kick.notify_all();
        }
    }
}

/// What the ticker found.
enum Tick {
    /// Nothing that time would change.
    Idle,
    Busy,
    /// A mark that freed blocks wait for is written, and nothing else will flush it.
    MarkWritten,
}

impl Inner {
    /// Asks for a flush of what is not stable, and for a mark when freed blocks wait for one.
    fn tick(&self) -> Tick {
        self.end_quarantine();
        let mut state = self.state.borrow_mut();
        let unstable = state.marks.stable < state.marks.newest;
        if unstable {
            state.unstable_bytes = 0;
            let newest = state.marks.newest;
            state.marks.want(newest);
        }
        let changing = unstable || state.arena.not_clean() > 0;
        let mut tick = match changing || state.space.trim_wanted() {
            true => Tick::Busy,
            false => Tick::Idle,
        };
        if let Some((lsn, strip)) = state.space.quarantined_up_to()
            && (lsn > state.marks.persisted || strip > state.strip_persisted)
        {
            tick = Tick::Busy;
            let stable = lsn <= state.marks.stable && strip <= state.strip_done;
            if state.wal.mark_written(lsn, strip) {
                tick = Tick::MarkWritten;
            } else if stable && !state.wal.mark_sealed(lsn, strip) {
                state.wal.want_mark();
            }
        }
        drop(state);
        self.submit_kick.notify_all();
        self.flush_kick.notify_all();
        tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_leave_room_for_others_at_every_size_of_memory() {
        let sizes = [(32, 24), (64, 56), (104, 96), (768, 96), (1024, 127), (1 << 20, 512)];
        for (budget, pins) in sizes {
            assert_eq!(pins_max(budget), pins, "{budget} buckets");
            assert!(pins_max(budget) <= budget - UNPINNED, "the semaphore can give them");
        }
    }
}
