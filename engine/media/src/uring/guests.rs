//! Flushes, carried out by a guest of the xstream with a plain system call.
//!
//! A guest (`daos_xstream::Guest`) waits for the flush that it asked for anyway. Through the ring, that costs waking the owner's
//! thread to submit, a kernel worker, and the owner again for the completion: as much as a fast device's flush itself. So the
//! guest flushes, once it has let go of its turn and everything else that it has to do is done.
//!
//! # Invariants
//! 1. What was started here ends before the device is closed: by the guest, or by whoever closes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use daos_xstream::{Handle, oneshot};

use super::open::Files;

type Sender = oneshot::Sender<io::Result<()>>;

pub(super) struct Guests {
    handle: Handle,
    shared: Arc<Shared>,
}

struct Shared {
    flushes: Mutex<Flushes>,
    ended: Condvar,
}

struct Flushes {
    /// None once the device is closed: a guest that comes too late must not hold the file's lock against its next user.
    file: Option<Arc<File>>,
    queue: VecDeque<Sender>,
    running: usize,
    /// Somebody closes the device, and waits for what is running.
    closing: bool,
}

impl Guests {
    pub fn new(handle: &Handle, files: &Files) -> io::Result<Self> {
        let file = Some(Arc::new(files.buffered.try_clone()?));
        let flushes = Flushes { file, queue: VecDeque::new(), running: 0, closing: false };
        let shared = Arc::new(Shared { flushes: Mutex::new(flushes), ended: Condvar::new() });
        Ok(Self { handle: handle.clone(), shared })
    }

    /// Whether a guest has the turn, and can flush. [`Guests::flush`] has to follow.
    pub fn claim(&self) -> bool {
        self.handle.claim_guest()
    }

    /// Only when claimed.
    pub fn flush(&self, sender: Sender) {
        self.shared.lock().queue.push_back(sender);
        let shared = self.shared.clone();
        self.handle.leave_to_guest(move || shared.run());
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.shared.run();
        let mut flushes = self.shared.lock();
        flushes.closing = true;
        while flushes.running > 0 {
            flushes = self.shared.ended.wait(flushes).unwrap_or_else(PoisonError::into_inner);
        }
        flushes.file = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Flushes> {
        self.flushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is queued.
    fn run(&self) {
        let mut flushes = self.lock();
        while let Some(file) = flushes.file.clone()
            && let Some(sender) = flushes.queue.pop_front()
        {
            flushes.running += 1;
            drop(flushes);
            let result = file.sync_data();
            drop(file);
            sender.send(result);
            flushes = self.lock();
            flushes.running -= 1;
        }
        if flushes.closing {
            self.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use daos_xstream::{Xstream, XstreamConfig};

    use super::super::open::{OpenOptions, create_file};
    use super::*;

    #[test]
    fn closing_does_what_is_queued_and_a_late_guest_holds_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        create_file(&path, 1 << 20).unwrap();
        Xstream::run(&XstreamConfig::default(), move |handle| async move {
            let open = || Files::open(&path, &OpenOptions::default());
            let files = open().unwrap();
            let guests = Guests::new(&handle, &files).unwrap();
            let (sender, flushed) = oneshot::channel();
            let late = guests.shared.clone();
            late.lock().queue.push_back(sender);
            drop((files, guests));
            assert!(flushed.take().unwrap().is_ok());
            assert!(open().is_ok());
            late.run();
        })
        .unwrap();
    }
}
