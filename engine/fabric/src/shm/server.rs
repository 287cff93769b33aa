//! The server's end of one client's memory.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use super::layout::{
    BODY_AT, BODY_BYTES_MAX, BODY_LEN_AT, READY_AT, SERVER_AT, Shape, WORDS, WORDS_AT,
};
use super::region::Region;
use super::{ANSWERED, ASLEEP, AWAKE, GONE, REQUESTED, SERVING, WAITING, state, wait};

#[derive(Debug)]
pub struct Server {
    region: Region,
    /// Slots that are being served, in memory that the client cannot write: he cannot have one served twice at once.
    serving: AtomicU64,
}

/// A request that was taken out of its slot, which owes an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub slot: usize,
    /// Of the body.
    pub len: usize,
}

impl Server {
    /// Memory for a new client, and what it is mapped by.
    ///
    /// # Errors
    /// Those of the kernel when there is no memory or no descriptor left.
    pub fn new(shape: Shape) -> io::Result<(Self, OwnedFd)> {
        let (region, memory) = Region::create(shape)?;
        Ok((Self { region, serving: AtomicU64::new(0) }, memory))
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.region.shape()
    }

    /// A word that the client has set.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        assert!(index < WORDS);
        self.region.word(WORDS_AT + 4 * index).load(Acquire)
    }

    /// From now on the client rings. True: there is nothing to do, and that can be waited for.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.region.word(SERVER_AT).store(ASLEEP, Relaxed);
        // Between the word and the look for calls (invariant 3).
        fence(SeqCst);
        self.region.long(READY_AT).load(Relaxed) == 0
    }

    /// From now on it does not need to.
    pub fn awake(&self) {
        self.region.word(SERVER_AT).store(AWAKE, Relaxed);
    }

    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.region.long(READY_AT).load(Relaxed) != 0
    }

    /// Every request that is ready, in the order of slots: `take` gets it with its body.
    pub fn take(&self, mut take: impl FnMut(Taken, &[u8])) {
        let mut ready = self.region.long(READY_AT).swap(0, AcqRel);
        while ready != 0 {
            let slot = ready.trailing_zeros() as usize;
            ready &= ready - 1;
            if slot >= self.shape().slots || self.serving.load(Acquire) & 1 << slot != 0 {
                continue;
            }
            let mut body = [0; BODY_BYTES_MAX];
            if let Some(len) = self.begin(slot, &mut body) {
                take(Taken { slot, len }, &body[..len]);
            }
        }
    }

    fn begin(&self, slot: usize, body: &mut [u8; BODY_BYTES_MAX]) -> Option<usize> {
        let state = state(&self.region, slot);
        let mut now = state.load(Acquire);
        loop {
            if now & !WAITING != REQUESTED {
                return None;
            }
            match state.compare_exchange_weak(now, SERVING | now & WAITING, AcqRel, Acquire) {
                Ok(_) => break,
                Err(other) => now = other,
            }
        }
        self.serving.fetch_or(1 << slot, AcqRel);
        let at = Shape::slot_at(slot);
        let len = self.region.word(at + BODY_LEN_AT).load(Relaxed) as usize;
        let len = len.min(BODY_BYTES_MAX);
        self.region.get(at + BODY_AT, &mut body[..len]);
        Some(len)
    }

    /// The data that came with a request; what does not fit into a slot is not there.
    #[must_use]
    pub fn data(&self, slot: usize, at: usize, len: usize) -> Vec<u8> {
        let mut data = Vec::new();
        if let Some(at) = self.data_at(slot, at, len) {
            self.region.append(at, len, &mut data);
        }
        data
    }

    /// Data for the answer: as much as fits, which is told.
    pub fn put_data(&self, slot: usize, at: usize, data: &[u8]) -> usize {
        let room = self.shape().data_bytes.saturating_sub(at);
        let data = &data[..data.len().min(room)];
        if let Some(at) = self.data_at(slot, at, data.len()) {
            self.region.put(at, data);
        }
        data.len()
    }

    fn data_at(&self, slot: usize, at: usize, len: usize) -> Option<usize> {
        let shape = self.shape();
        let fits = at.checked_add(len).is_some_and(|end| end <= shape.data_bytes);
        fits.then(|| shape.data_at(slot) + at)
    }

    /// Ends a call.
    ///
    /// # Panics
    /// When `body` is longer than [`BODY_BYTES_MAX`].
    pub fn answer(&self, slot: usize, body: &[u8]) {
        assert!(body.len() <= BODY_BYTES_MAX);
        let at = Shape::slot_at(slot);
        self.region.put(at + BODY_AT, body);
        self.region.word(at + BODY_LEN_AT).store(body.len() as u32, Relaxed);
        self.serving.fetch_and(!(1 << slot), AcqRel);
        let state = state(&self.region, slot);
        if state.swap(ANSWERED, AcqRel) & WAITING != 0 {
            wait::wake(state);
        }
    }
}

impl Drop for Server {
    /// Whoever waits looks up within a moment.
    fn drop(&mut self) {
        self.region.word(SERVER_AT).store(GONE, Release);
    }
}
