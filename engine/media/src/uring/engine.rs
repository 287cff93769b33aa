//! What carries out the operations that may wait for the device: a ring, or workers where the kernel gives no ring.

use std::io;
use std::os::fd::OwnedFd;

use super::open::{Files, OpenOptions};
use super::operation::Operation;
use super::ring::Ring;
use super::workers::Workers;

pub(super) trait Engine {
    fn start(&mut self, operation: Operation);
    /// Hands over what was started and takes what is complete; true if there is cause to look again.
    fn turn(&mut self) -> bool;
    fn pending(&self) -> bool;
    /// Whether something was started that only a turn hands over.
    fn queued(&self) -> bool;
    /// Whether the device is known to support discards, or not known not to.
    fn discards(&self) -> bool;
    /// Whether it can begin to write out what is in the page cache.
    fn writes_out(&self) -> bool;
    /// A descriptor that is readable when a turn would take something.
    fn event(&self) -> io::Result<OwnedFd>;
    /// Waits until everything that was started is complete, and lets go of the files.
    fn finish(&mut self);
}

/// The best engine that there is, and its name, with the reason if it is not the ring.
pub(super) fn choose(
    files: &Files,
    options: &OpenOptions,
) -> io::Result<(Box<dyn Engine>, String)> {
    let why = if options.ring {
        match Ring::new(options.depth, files) {
            Ok(ring) => return Ok((Box::new(ring), "io_uring".into())),
            Err(error) => error.to_string(),
        }
    } else {
        "not wanted".into()
    };
    let workers = Workers::new(options.depth, files)?;
    Ok((Box::new(workers), format!("worker threads (no io_uring: {why})")))
}
