//! The operations of a device: those under way, each in a slot, and those that wait for one.
//!
//! # Invariants
//! 1. An operation under way is in its slot from before its engine knows of it until its answer is taken.
//! 2. At most as many operations are under way as there are slots; the rest wait in the order in which they were started.

use std::collections::VecDeque;
use std::io;

use super::operation::{Operation, Step};

pub(super) struct Slots {
    slots: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    queue: VecDeque<Operation>,
    /// Whether the device is known to support discards, or not known not to.
    pub discards: bool,
}

impl Slots {
    pub fn new(count: usize) -> Self {
        Self {
            slots: (0..count).map(|_| None).collect(),
            vacant: (0..count).rev().collect(),
            queue: VecDeque::new(),
            discards: true,
        }
    }

    pub fn add(&mut self, operation: Operation) {
        self.queue.push_back(operation);
    }

    /// Puts the next waiting operation into a slot, if there are both.
    pub fn begin(&mut self) -> Option<(usize, &mut Operation)> {
        if self.queue.is_empty() {
            return None;
        }
        let slot = self.vacant.pop()?;
        let operation = self.queue.pop_front().expect("not empty");
        assert!(self.slots[slot].is_none(), "a vacant slot is empty");
        Some((slot, self.slots[slot].insert(operation)))
    }

    /// The operation whose answer is about to be taken.
    pub fn under_way(&mut self, slot: usize) -> &mut Operation {
        self.slots[slot].as_mut().expect("one answer for each operation")
    }

    /// Takes the answer to the operation in `slot`.
    pub fn answer(&mut self, slot: usize, result: i32) {
        let operation = self.slots[slot].take().expect("one answer for each operation");
        self.vacant.push(slot);
        match operation.answer(result) {
            Step::Complete => {}
            Step::Continue(operation) => self.queue.push_front(operation),
            Step::NoDiscard => self.discards = false,
        }
    }

    pub fn any_under_way(&self) -> bool {
        self.vacant.len() < self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        !self.any_under_way() && self.queue.is_empty()
    }

    /// Fails everything. The buffers of what is under way are never used again, since the engine may still write to them.
    pub fn abandon(&mut self, error: &io::Error) {
        for (slot, place) in self.slots.iter_mut().enumerate() {
            if let Some(operation) = place.take() {
                operation.abandon(copy_of(error));
                self.vacant.push(slot);
            }
        }
        for operation in self.queue.drain(..) {
            operation.fail(copy_of(error));
        }
    }
}

pub(super) fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}
