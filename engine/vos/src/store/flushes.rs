//! Whose turn it is to flush the device.
//!
//! # Invariants
//! 1. One flush is in flight at a time, and none begins before it is known how the one before it ended: of several the device tells only
//!    one that it failed (rule 5 of its contract).
//! 2. That holds whoever waits: a flush that is dropped half-way goes on in the device, and keeps its turn until it has ended. That it
//!    failed is told to the next one.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use daos_media::{Device, Io};
use daos_xstream::Handle;
use daos_xstream::sync::{Permit, Semaphore};

/// The flushes of one device.
pub(super) struct Flushes {
    one: Semaphore,
    failed: Rc<Cell<Option<io::Error>>>,
}

impl Default for Flushes {
    fn default() -> Self {
        Self { one: Semaphore::new(1), failed: Rc::default() }
    }
}

impl Flushes {
    pub(super) async fn turn(&self, handle: &Handle) -> Turn {
        let turn = Some(self.one.acquire(1).await);
        Turn { turn, io: None, failed: self.failed.clone(), handle: handle.clone() }
    }
}

pub(super) struct Turn {
    /// Gone when the turn is left to a task.
    turn: Option<Permit>,
    /// The flush that is in flight.
    io: Option<Io<()>>,
    /// How one ended for which nobody waited.
    failed: Rc<Cell<Option<io::Error>>>,
    handle: Handle,
}

impl Turn {
    pub(super) async fn flush(&mut self, device: &dyn Device) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let io = self.io.insert(device.flush());
        let ended = poll_fn(|context| Pin::new(&mut *io).poll(context)).await;
        self.io = None;
        ended
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (Some(io), Some(turn)) = (self.io.take(), self.turn.take()) else { return };
        let failed = self.failed.clone();
        self.handle.spawn(async move {
            if let Err(error) = io.await {
                failed.set(Some(error));
            }
            drop(turn);
        });
    }
}
