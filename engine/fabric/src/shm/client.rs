//! The client's end: one process, any number of threads.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, fence};
use std::time::Duration;

use super::layout::{
    BODY_AT, BODY_BYTES_MAX, BODY_LEN_AT, READY_AT, SERVER_AT, Shape, WORDS, WORDS_AT,
};
use super::region::Region;
use super::wait::{self, Patience};
use super::{ANSWERED, ASLEEP, CLAIMED, FREE, GONE, REQUESTED, WAITING, state};

/// How long a wait goes before it looks whether the server is there still.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// The server is gone; whether it has done what was asked is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

#[derive(Debug)]
pub struct Client {
    pub(super) region: Region,
}

impl Client {
    /// `memory` is the server's; it is not needed afterwards.
    ///
    /// # Errors
    /// `InvalidData`: the memory is not of this layout and version.
    pub fn new(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let region = Region::open(memory)?;
        region.keep_from_children()?;
        Ok(Self { region })
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.region.shape()
    }

    /// A word beside the calls, which the server may read at any time.
    #[must_use]
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < WORDS);
        self.region.word(WORDS_AT + 4 * index)
    }

    /// A slot for one call; `None` when all are in use, or when the server has gone.
    #[must_use]
    pub fn claim(&self) -> Option<Slot<'_>> {
        if self.region.word(SERVER_AT).load(Relaxed) == GONE {
            return None;
        }
        (0..self.shape().slots).find_map(|index| {
            let state = state(&self.region, index);
            let free = state.load(Relaxed) == FREE
                && state.compare_exchange(FREE, CLAIMED, Acquire, Relaxed).is_ok();
            // Not `then_some`: a slot that is made gives another's free when it is dropped.
            free.then(|| Slot { client: self, index, abandoned: false })
        })
    }

    /// Whether the server has to be woken for a bit that was just set.
    fn has_to_ring(&self) -> bool {
        // Between the bit and the look at the server (invariant 3).
        fence(SeqCst);
        self.region.word(SERVER_AT).load(Relaxed) == ASLEEP
    }
}

/// A call of this process.
#[derive(Debug)]
pub struct Slot<'c> {
    client: &'c Client,
    pub(super) index: usize,
    /// The server may still write here: it is never free again.
    abandoned: bool,
}

impl Slot<'_> {
    fn region(&self) -> &Region {
        &self.client.region
    }

    fn data_at(&self, at: usize, len: usize) -> usize {
        let shape = self.client.shape();
        assert!(at.checked_add(len).is_some_and(|end| end <= shape.data_bytes));
        shape.data_at(self.index) + at
    }

    /// Data that goes along with the request.
    ///
    /// # Panics
    /// When it is longer than the slot's data area.
    pub fn put_data(&self, at: usize, data: &[u8]) {
        self.region().put(self.data_at(at, data.len()), data);
    }

    /// Data that came with the answer.
    ///
    /// # Panics
    /// As `put_data`.
    pub fn get_data(&self, at: usize, room: &mut [u8]) {
        self.region().get(self.data_at(at, room.len()), room);
    }

    /// Sends `body`, waits for the answer and takes it into `room`: its length. `ring` wakes a server that sleeps. `patience`
    /// is how it waits; `None`: it sleeps at once. `is_there` says whether the server still is, when it takes longer.
    ///
    /// # Errors
    /// `Lost`. The slot is not used any more then.
    ///
    /// # Panics
    /// When `body` is longer than [`BODY_BYTES_MAX`].
    pub fn call(
        &mut self,
        body: &[u8],
        room: &mut [u8; BODY_BYTES_MAX],
        patience: Option<&Patience>,
        ring: impl FnOnce(),
        is_there: impl Fn() -> bool,
    ) -> Result<usize, Lost> {
        assert!(body.len() <= BODY_BYTES_MAX);
        let at = Shape::slot_at(self.index);
        self.region().put(at + BODY_AT, body);
        self.region().word(at + BODY_LEN_AT).store(body.len() as u32, Relaxed);
        let state = state(self.region(), self.index);
        state.store(REQUESTED, Release);
        self.region().long(READY_AT).fetch_or(1 << self.index, Release);
        if self.client.has_to_ring() {
            ring();
        }
        let answered = || state.load(Acquire) == ANSWERED;
        let sleep = || self.sleep(state, is_there);
        let is_answered = match patience {
            Some(patience) => patience.wait(answered, sleep),
            None => answered() || sleep(),
        };
        if !is_answered {
            self.abandoned = true;
            return Err(Lost);
        }
        let len = self.region().word(at + BODY_LEN_AT).load(Relaxed) as usize;
        let len = len.min(BODY_BYTES_MAX);
        self.region().get(at + BODY_AT, &mut room[..len]);
        Ok(len)
    }

    /// True when it is answered.
    fn sleep(&self, state: &AtomicU32, is_there: impl Fn() -> bool) -> bool {
        loop {
            let now = state.fetch_or(WAITING, AcqRel);
            if now & !WAITING == ANSWERED {
                state.store(ANSWERED, Relaxed);
                return true;
            }
            wait::sleep(state, now | WAITING, LOOK_AFTER);
            if state.load(Acquire) == ANSWERED {
                return true;
            }
            if self.region().word(SERVER_AT).load(Relaxed) == GONE || !is_there() {
                return state.load(Acquire) == ANSWERED;
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.abandoned {
            state(self.region(), self.index).store(FREE, Release);
        }
    }
}
