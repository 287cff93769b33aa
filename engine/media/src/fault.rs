//! A device that loses power, tears, rots, misdirects, fails and stalls, as a seed decides, around any other device.
//!
//! Writes stay in here until a flush makes them stable: only then do they reach the inner device, which is
//! therefore always *what would be there after a power cut*, but for the part of the unflushed writes that a cut
//! leaves. [`FaultDevice::cut`] freezes the device; [`FaultDevice::survivor`] then applies that part, chosen by
//! the seed sector by sector, and hands back the inner device to open again.
//!
//! # Invariants
//! 1. `cached` holds every write that is not stable, oldest first; a read sees them over the inner device.
//! 2. A flush moves to the inner device exactly the writes that were complete when it was called.
//! 3. Once cut, no operation succeeds and nothing changes but by `survivor`.
//! 4. Nothing overlaps a write in flight but reads (rule 4 of the contract): the device panics at its caller.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use daos_xstream::{Handle, Random, sync::Event};

use crate::IoBuf;
use crate::device::{Device, How, Io, SECTOR_BYTES, check_range};

const SECTOR: usize = SECTOR_BYTES as usize;

/// Kinds of operations, for aiming faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    Allocate,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Fails with this errno. A failed write leaves some of its sectors; a failed flush leaves the writes
    /// before it readable, but no later flush makes them stable.
    Fail(i32),
    /// Takes this much longer.
    Stall(Duration),
    /// Power goes at this operation, which is in flight then.
    Cut,
    /// A write reports success and is not there.
    Lose,
    /// A write reports success and is at this offset instead.
    Misdirect(u64),
}

/// Operations so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub allocates: u64,
}

/// See the module.
pub struct FaultDevice(Rc<Inner>);

struct Inner {
    device: Rc<dyn Device>,
    handle: Handle,
    random: RefCell<Random>,
    latency_max: Cell<Duration>,
    counts: Cell<Counts>,
    aimed: RefCell<Vec<Aimed>>,
    cached: RefCell<Vec<Cached>>,
    writes_begun: Cell<u64>,
    /// Invariant 3.
    cut: Event,
}

/// A fault that waits for its operation.
struct Aimed {
    kind: Kind,
    /// The count of that kind at which it strikes.
    at: u64,
    fault: Fault,
}

/// A write that is not stable.
struct Cached {
    id: u64,
    offset: u64,
    data: Bytes,
    state: CachedState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CachedState {
    InFlight,
    Complete,
    /// A flush of it failed, or it failed itself: no flush makes it stable any more.
    Doomed,
}

impl Cached {
    fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.offset < offset + len && offset < self.offset + self.data.len() as u64
    }
}

impl FaultDevice {
    /// Without faults aimed at it, it differs from `device` only in what a cut leaves.
    #[must_use]
    pub fn new(device: Rc<dyn Device>, handle: Handle, seed: u64) -> Rc<Self> {
        Rc::new(Self(Rc::new(Inner {
            device,
            handle,
            random: RefCell::new(Random::from_seed(seed)),
            latency_max: Cell::new(Duration::ZERO),
            counts: Cell::default(),
            aimed: RefCell::default(),
            cached: RefCell::default(),
            writes_begun: Cell::new(0),
            cut: Event::new(),
        })))
    }

    /// Every operation from now on takes a random time up to this.
    pub fn set_latency_max(&self, latency_max: Duration) {
        self.0.latency_max.set(latency_max);
    }

    /// `fault` strikes the `nth` operation of `kind` from now; 1 is the next.
    pub fn aim(&self, kind: Kind, nth: u64, fault: Fault) {
        assert!(nth > 0);
        let at = *self.0.count(kind, &mut self.0.counts.get()) + nth;
        self.0.aimed.borrow_mut().push(Aimed { kind, at, fault });
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts.get()
    }

    /// Power goes now.
    pub fn cut(&self) {
        self.0.cut.set();
    }

    /// Set once power is gone.
    #[must_use]
    pub fn was_cut(&self) -> Event {
        self.0.cut.clone()
    }

    /// Flips the bits of `mask` in the byte at `address`, wherever its newest content is.
    ///
    /// # Errors
    /// Those of the inner device.
    pub async fn rot(&self, address: u64, mask: u8) -> io::Result<()> {
        if self.0.rot_cached(address, mask) {
            return Ok(());
        }
        let sector = address - address % SECTOR_BYTES;
        let mut buffer = self.0.device.read(IoBuf::zeroed(SECTOR), sector, How::Buffered).await?;
        buffer[(address - sector) as usize] ^= mask;
        self.0.device.write(buffer.into_bytes(), sector, How::Buffered).await
    }

    /// What is on the media after the cut: for every sector, its stable content or that of one of the unflushed writes
    /// of it. The same seed and history leave the same.
    ///
    /// # Errors
    /// Those of the inner device.
    ///
    /// # Panics
    /// When there was no cut.
    pub async fn survivor(&self) -> io::Result<Rc<dyn Device>> {
        assert!(self.0.cut.is_set(), "only a cut decides what survives");
        let cached = self.0.cached.take();
        let survivors = choose_survivors(&cached, &mut self.0.random.borrow_mut());
        for (offset, sector) in survivors {
            // One at a time: sectors of two writes may be the same.
            self.0.device.write(sector, offset, How::Buffered).await?;
        }
        self.0.device.flush().await?;
        Ok(self.0.device.clone())
    }
}

/// Which sectors of which unflushed writes reach the media, in the order to apply them.
fn choose_survivors(cached: &[Cached], random: &mut Random) -> Vec<(u64, Bytes)> {
    // Out of 8: cuts that lose or keep nearly everything find other mistakes than fair ones.
    let keep = [0, 1, 4, 7, 8][random.below(5) as usize];
    let whole_writes = random.one_in(2);
    let mut order: Vec<&Cached> = cached.iter().collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut survivors = Vec::new();
    for write in order {
        let write_kept = random.below(8) < keep;
        for start in (0..write.data.len()).step_by(SECTOR) {
            let kept = if whole_writes { write_kept } else { random.below(8) < keep };
            if kept {
                survivors
                    .push((write.offset + start as u64, write.data.slice(start..start + SECTOR)));
            }
        }
    }
    survivors
}

impl Inner {
    fn count<'a>(&self, kind: Kind, counts: &'a mut Counts) -> &'a mut u64 {
        match kind {
            Kind::Read => &mut counts.reads,
            Kind::Write => &mut counts.writes,
            Kind::Flush => &mut counts.flushes,
            Kind::Discard => &mut counts.discards,
            Kind::Allocate => &mut counts.allocates,
        }
    }

    /// Counts an operation that begins; the fault that strikes it, if one does.
    fn begin(&self, kind: Kind, offset: u64, len: u64) -> io::Result<Option<Fault>> {
        check_range(self.device.size(), offset, len)?;
        self.check_power()?;
        let mut counts = self.counts.get();
        let count = self.count(kind, &mut counts);
        *count += 1;
        let now = *count;
        self.counts.set(counts);
        let mut aimed = self.aimed.borrow_mut();
        let struck = aimed.iter().position(|aimed| aimed.kind == kind && aimed.at == now);
        let fault = struck.map(|index| aimed.remove(index).fault);
        if fault == Some(Fault::Cut) {
            self.cut.set();
        }
        Ok(fault)
    }

    fn check_power(&self) -> io::Result<()> {
        if self.cut.is_set() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "power is gone"));
        }
        Ok(())
    }

    /// The time an operation takes, and the fault that ends it.
    async fn pass(&self, fault: Option<Fault>) -> io::Result<()> {
        let mut wait = match self.latency_max.get().as_nanos() as u64 {
            0 => Duration::ZERO,
            max_ns => Duration::from_nanos(self.random.borrow_mut().below(max_ns + 1)),
        };
        if let Some(Fault::Stall(longer)) = fault {
            wait += longer;
        }
        if wait > Duration::ZERO {
            self.handle.sleep(wait).await;
        }
        self.check_power()?;
        match fault {
            Some(Fault::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Invariant 4.
    fn check_overlap(&self, offset: u64, len: u64) {
        let cached = self.cached.borrow();
        let in_flight =
            |other: &&Cached| other.state == CachedState::InFlight && other.overlaps(offset, len);
        if let Some(other) = cached.iter().find(in_flight) {
            panic!(
                "{len} bytes at {offset} overlap a write in flight of {} bytes at {}",
                other.data.len(),
                other.offset
            );
        }
    }

    /// Puts a write into the cache; its id there.
    fn cache(&self, data: Bytes, offset: u64) -> u64 {
        let id = self.writes_begun.get();
        self.writes_begun.set(id + 1);
        let write = Cached { id, offset, data, state: CachedState::InFlight };
        self.cached.borrow_mut().push(write);
        id
    }

    fn finish_write(&self, id: u64, result: &io::Result<()>) {
        if self.cut.is_set() {
            return; // Stays in flight: some of it may survive.
        }
        let mut cached = self.cached.borrow_mut();
        let index = cached
            .iter()
            .position(|write| write.id == id)
            .expect("a write in flight is neither flushed, nor discarded, nor overwritten");
        if result.is_ok() {
            cached[index].state = CachedState::Complete;
            return;
        }
        // Some sectors were written, and nobody knows which.
        let failed = cached.remove(index);
        let mut random = self.random.borrow_mut();
        for start in (0..failed.data.len()).step_by(SECTOR) {
            if random.one_in(2) {
                cached.push(Cached {
                    id,
                    offset: failed.offset + start as u64,
                    data: failed.data.slice(start..start + SECTOR),
                    state: CachedState::Doomed,
                });
            }
        }
    }

    /// Lays unflushed writes over what the inner device has.
    fn overlay(&self, buffer: &mut [u8], offset: u64) {
        let len = buffer.len() as u64;
        for write in self.cached.borrow().iter().filter(|write| write.overlaps(offset, len)) {
            let start = write.offset.max(offset);
            let end = (write.offset + write.data.len() as u64).min(offset + len);
            let from = (start - write.offset) as usize..(end - write.offset) as usize;
            buffer[(start - offset) as usize..(end - offset) as usize]
                .copy_from_slice(&write.data[from]);
        }
    }

    fn rot_cached(&self, address: u64, mask: u8) -> bool {
        let mut cached = self.cached.borrow_mut();
        let Some(write) = cached.iter_mut().rev().find(|write| write.overlaps(address, 1)) else {
            return false;
        };
        let mut data = BytesMut::from(&write.data[..]);
        data[(address - write.offset) as usize] ^= mask;
        write.data = data.freeze();
        true
    }

    /// Invariant 2: `complete` are the ids that were complete when the flush was called.
    async fn stabilize(&self, complete: Vec<u64>) -> io::Result<()> {
        for id in complete {
            // Several parts, if a discard cut it; none, if another flush was faster.
            while let Some((offset, data)) = self.next_part(id) {
                let len = data.len() as u64;
                self.device.write(data, offset, How::Buffered).await?;
                self.check_power()?;
                // Older doomed writes of the same sectors are overwritten for good now.
                self.trim_cached(id + 1, offset, len);
            }
        }
        self.device.flush().await
    }

    /// A part of write `id` that a flush may make stable.
    fn next_part(&self, id: u64) -> Option<(u64, Bytes)> {
        let cached = self.cached.borrow();
        let part =
            cached.iter().find(|write| write.id == id && write.state == CachedState::Complete)?;
        Some((part.offset, part.data.clone()))
    }

    fn complete_ids(&self) -> Vec<u64> {
        let cached = self.cached.borrow();
        cached
            .iter()
            .filter(|write| write.state == CachedState::Complete)
            .map(|write| write.id)
            .collect()
    }

    fn doom(&self, ids: &[u64]) {
        for write in self.cached.borrow_mut().iter_mut() {
            if ids.contains(&write.id) {
                write.state = CachedState::Doomed;
            }
        }
    }

    /// Takes a range out of the unflushed writes older than `id`.
    fn trim_cached(&self, id: u64, offset: u64, len: u64) {
        let end = offset + len;
        let mut cached = self.cached.borrow_mut();
        let (touched, mut kept): (Vec<_>, Vec<_>) =
            cached.drain(..).partition(|write| write.id < id && write.overlaps(offset, len));
        for write in touched {
            let write_end = write.offset + write.data.len() as u64;
            let part = |from: u64, to: u64| Cached {
                id: write.id,
                offset: from,
                data: write
                    .data
                    .slice((from - write.offset) as usize..(to - write.offset) as usize),
                state: write.state,
            };
            if write.offset < offset {
                kept.push(part(write.offset, offset));
            }
            if end < write_end {
                kept.push(part(end, write_end));
            }
        }
        kept.sort_by_key(|write| write.id); // Stable: invariant 1.
        *cached = kept;
    }
}

impl Device for FaultDevice {
    fn size(&self) -> u64 {
        self.0.device.size()
    }

    fn read(&self, buffer: IoBuf, offset: u64, how: How) -> Io<IoBuf> {
        self.start(Kind::Read, offset, buffer.len() as u64, |inner, fault| async move {
            inner.pass(fault).await?;
            let mut buffer = inner.device.read(buffer, offset, how).await?;
            inner.check_power()?;
            inner.overlay(&mut buffer, offset);
            Ok(buffer)
        })
    }

    fn write(&self, data: Bytes, offset: u64, _how: How) -> Io<()> {
        self.start(Kind::Write, offset, data.len() as u64, |inner, fault| {
            let id = match fault {
                _ if data.is_empty() => None,
                Some(Fault::Lose) => None,
                Some(Fault::Misdirect(to)) => Some(inner.cache(data, to)),
                _ => {
                    inner.check_overlap(offset, data.len() as u64);
                    Some(inner.cache(data, offset))
                }
            };
            async move {
                let result = inner.pass(fault).await;
                if let Some(id) = id {
                    inner.finish_write(id, &result);
                }
                result
            }
        })
    }

    fn flush(&self) -> Io<()> {
        self.start(Kind::Flush, 0, 0, |inner, fault| {
            let complete = inner.complete_ids();
            if let Some(Fault::Fail(_)) = fault {
                // Told once, to this flush: one that is in flight beside it succeeds without them.
                inner.doom(&complete);
            }
            async move {
                inner.pass(fault).await?;
                inner.stabilize(complete).await
            }
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Io<()> {
        self.start(Kind::Discard, offset, len, |inner, fault| {
            inner.check_overlap(offset, len);
            inner.trim_cached(u64::MAX, offset, len);
            async move {
                inner.pass(fault).await?;
                inner.device.discard(offset, len).await
            }
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> Io<()> {
        self.start(Kind::Allocate, offset, len, |inner, fault| async move {
            inner.pass(fault).await?;
            inner.device.allocate(offset, len).await
        })
    }

    fn describe(&self) -> String {
        format!("faults around {}", self.0.device.describe())
    }
}

impl FaultDevice {
    /// Begins an operation now and runs the rest of it as a task of its own.
    fn start<T: 'static, F>(
        &self,
        kind: Kind,
        offset: u64,
        len: u64,
        operation: impl FnOnce(Rc<Inner>, Option<Fault>) -> F,
    ) -> Io<T>
    where
        F: Future<Output = io::Result<T>> + 'static,
    {
        let fault = match self.0.begin(kind, offset, len) {
            Ok(fault) => fault,
            Err(error) => return Io::complete(Err(error)),
        };
        let (sender, io) = Io::in_flight();
        let operation = operation(self.0.clone(), fault);
        drop(self.0.handle.spawn(async move { sender.send(operation.await) }));
        io
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDevice;
    use daos_xstream::sim;

    const SIZE: u64 = 1 << 20;

    fn sectors(count: usize, byte: u8) -> Bytes {
        Bytes::from(vec![byte; count * SECTOR])
    }

    async fn read(device: &dyn Device, sector: u64, count: usize) -> Vec<u8> {
        let buffer = IoBuf::zeroed(count * SECTOR);
        device.read(buffer, sector * SECTOR_BYTES, How::Buffered).await.unwrap().to_vec()
    }

    /// One byte for each sector, which must be uniform: a sector is never torn.
    async fn sector_bytes(device: &dyn Device, sector: u64, count: usize) -> Vec<u8> {
        let bytes = read(device, sector, count).await;
        let uniform = |sector: &[u8]| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "torn sector");
            sector[0]
        };
        bytes.chunks(SECTOR).map(uniform).collect()
    }

    fn with_device<T: 'static, F: Future<Output = T> + 'static>(
        seed: u64,
        test: impl FnOnce(Rc<FaultDevice>, Handle) -> F,
    ) -> T {
        sim::run(seed, |handle| {
            test(FaultDevice::new(MemDevice::new(SIZE), handle.clone(), seed), handle)
        })
    }

    #[test]
    fn flushed_writes_survive_a_cut_and_others_tear_in_every_way() {
        let mut outcomes = std::collections::HashSet::new();
        for seed in 0..200 {
            let outcome = with_device(seed, |device, _| async move {
                device.write(sectors(4, 1), 0, How::Buffered).await.unwrap();
                device.flush().await.unwrap();
                device.write(sectors(2, 2), 4 * SECTOR_BYTES, How::Buffered).await.unwrap();
                device.cut();
                assert!(device.flush().await.is_err());
                let survivor = device.survivor().await.unwrap();
                assert_eq!(sector_bytes(&*survivor, 0, 4).await, [1; 4]);
                sector_bytes(&*survivor, 4, 2).await
            });
            outcomes.insert(outcome);
        }
        assert_eq!(outcomes, [vec![0, 0], vec![0, 2], vec![2, 0], vec![2, 2]].into());
    }

    #[test]
    fn an_older_of_two_unflushed_writes_may_be_what_survives() {
        let survivors: std::collections::HashSet<u8> = (0..200)
            .map(|seed| {
                with_device(seed, |device, _| async move {
                    device.write(sectors(1, 1), 0, How::Direct).await.unwrap();
                    device.write(sectors(1, 2), 0, How::Direct).await.unwrap();
                    assert_eq!(sector_bytes(&*device, 0, 1).await, [2]);
                    device.cut();
                    sector_bytes(&*device.survivor().await.unwrap(), 0, 1).await[0]
                })
            })
            .collect();
        assert_eq!(survivors, [0, 1, 2].into());
    }

    #[test]
    fn a_flush_does_not_cover_writes_in_flight() {
        let lost = (0..100).any(|seed| {
            with_device(seed, |device, handle| async move {
                device.aim(Kind::Write, 1, Fault::Stall(Duration::from_millis(5)));
                let write = device.write(sectors(1, 1), 0, How::Buffered);
                device.flush().await.unwrap();
                write.await.unwrap();
                handle.sleep(Duration::from_secs(1)).await;
                device.cut();
                sector_bytes(&*device.survivor().await.unwrap(), 0, 1).await == [0]
            })
        });
        assert!(lost);
    }

    #[test]
    fn a_cut_strikes_at_the_nth_write_and_nothing_succeeds_after() {
        with_device(1, |device, _| async move {
            device.aim(Kind::Write, 2, Fault::Cut);
            device.write(sectors(1, 1), 0, How::Buffered).await.unwrap();
            assert!(!device.was_cut().is_set());
            assert!(device.write(sectors(1, 2), 512, How::Buffered).await.is_err());
            device.was_cut().wait().await;
            assert!(device.read(IoBuf::zeroed(512), 0, How::Buffered).await.is_err());
            assert_eq!(device.counts(), Counts { writes: 2, ..Default::default() });
        });
    }

    #[test]
    fn operations_under_way_fail_when_power_goes() {
        with_device(1, |device, _| async move {
            device.set_latency_max(Duration::from_millis(10));
            let write = device.write(sectors(1, 1), 0, How::Buffered);
            let read = device.read(IoBuf::zeroed(512), 512, How::Buffered);
            device.cut();
            assert!(write.await.is_err());
            assert!(read.await.is_err());
        });
    }

    #[test]
    fn errors_are_those_aimed_and_a_failed_flush_dooms_what_it_covered() {
        let lost = (0..100).any(|seed| {
            with_device(seed, |device, _| async move {
                device.aim(Kind::Allocate, 1, Fault::Fail(28));
                let error = device.allocate(0, SIZE).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                device.aim(Kind::Flush, 1, Fault::Fail(5));
                device.write(sectors(1, 1), 0, How::Buffered).await.unwrap();
                assert_eq!(device.flush().await.unwrap_err().raw_os_error(), Some(5));
                device.flush().await.unwrap();
                assert_eq!(sector_bytes(&*device, 0, 1).await, [1], "still readable");
                device.write(sectors(1, 3), 512, How::Buffered).await.unwrap();
                device.flush().await.unwrap();
                device.cut();
                let found = sector_bytes(&*device.survivor().await.unwrap(), 0, 2).await;
                assert_eq!(found[1], 3);
                found[0] == 0
            })
        });
        assert!(lost);
    }

    #[test]
    fn a_rewrite_of_a_doomed_sector_is_stable_again() {
        for seed in 0..50 {
            with_device(seed, |device, _| async move {
                device.aim(Kind::Flush, 1, Fault::Fail(5));
                device.write(sectors(3, 1), 0, How::Buffered).await.unwrap();
                assert!(device.flush().await.is_err());
                device.write(sectors(1, 2), 512, How::Buffered).await.unwrap();
                device.flush().await.unwrap();
                assert_eq!(sector_bytes(&*device, 0, 3).await, [1, 2, 1]);
                device.cut();
                let survivor = device.survivor().await.unwrap();
                assert_eq!(sector_bytes(&*survivor, 0, 3).await[1], 2);
            });
        }
    }

    #[test]
    fn a_failed_write_leaves_any_of_its_sectors() {
        let outcomes: std::collections::HashSet<_> = (0..100)
            .map(|seed| {
                with_device(seed, |device, _| async move {
                    device.aim(Kind::Write, 1, Fault::Fail(5));
                    assert!(device.write(sectors(2, 1), 0, How::Buffered).await.is_err());
                    sector_bytes(&*device, 0, 2).await
                })
            })
            .collect();
        assert_eq!(outcomes.len(), 4);
    }

    #[test]
    fn rot_lost_and_misdirected_writes_are_silent() {
        with_device(1, |device, _| async move {
            device.write(sectors(2, 1), 0, How::Buffered).await.unwrap();
            device.flush().await.unwrap();
            device.rot(700, 0x10).await.unwrap();
            device.write(sectors(1, 1), 1024, How::Buffered).await.unwrap();
            device.rot(1024, 0x80).await.unwrap();
            let bytes = read(&*device, 0, 3).await;
            assert_eq!((bytes[699], bytes[700], bytes[1024]), (1, 0x11, 0x81));
            device.aim(Kind::Write, 1, Fault::Misdirect(8192));
            device.aim(Kind::Write, 2, Fault::Lose);
            device.write(sectors(1, 7), 4096, How::Buffered).await.unwrap();
            device.write(sectors(1, 8), 4096, How::Buffered).await.unwrap();
            assert_eq!(sector_bytes(&*device, 8, 1).await, [0]);
            assert_eq!(sector_bytes(&*device, 16, 1).await, [7]);
        });
    }

    #[test]
    #[should_panic(expected = "overlap a write in flight")]
    fn overlapping_writes_in_flight_are_refused() {
        with_device(1, |device, _| async move {
            let _first = device.write(sectors(2, 1), 0, How::Buffered);
            let _second = device.write(sectors(2, 1), 512, How::Buffered);
        });
    }

    #[test]
    fn the_same_seed_leaves_the_same() {
        let image = |seed| {
            with_device(seed, |device, _| async move {
                for sector in 0..20 {
                    let byte = sector as u8 + 1;
                    let offset = sector * SECTOR_BYTES;
                    device.write(sectors(1, byte), offset, How::Buffered).await.unwrap();
                }
                device.cut();
                sector_bytes(&*device.survivor().await.unwrap(), 0, 20).await
            })
        };
        assert_eq!(image(9), image(9));
    }
}
