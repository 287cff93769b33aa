//! A file or block device, driven by io_uring on the xstream's own thread; by worker threads where the kernel gives no
//! io_uring.
//!
//! Two descriptors of the same thing: through the page cache, and past it (O_DIRECT) where that works. Small buffered
//! transfers that would only copy memory are plain system calls, because io_uring hands buffered writes to a
//! kernel thread; a small flush is done by the guest who has the xstream's turn, after it (`guests.rs`); everything else that can
//! wait for the device goes through the engine, bounded by its depth, and the rest queues.
//!
//! # Not here
//! Which way a transfer takes: the caller says ([`How`]).

mod engine;
mod guests;
mod open;
mod operation;
mod ring;
mod slots;
mod workers;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use daos_xstream::{Handle, Poll};
use rustix::io::{Errno, ReadWriteFlags};

pub use open::{Access, OpenError, OpenOptions, create_file};

use crate::IoBuf;
use crate::device::{Device, How, Io, check_range};
use engine::Engine;
use guests::Guests;
use open::{FileKind, Files};
use operation::{Kind, Operation, Route};

/// What direct transfers are aligned to, in the device and in memory. Anything else goes through the page cache.
const DIRECT_ALIGN: u64 = 4096;
/// A guest of the xstream flushes no more than this, which is mostly what it wrote itself.
const GUEST_FLUSH_BYTES_MAX: u64 = 1 << 20;

/// See the module.
pub struct UringDevice(Rc<Inner>);

struct Inner {
    files: Files,
    engine: RefCell<Box<dyn Engine>>,
    guests: Guests,
    engine_name: String,
    /// Readable when something is complete.
    event: OwnedFd,
    read_inline_bytes_max: usize,
    write_inline_bytes_max: usize,
    /// Whether the filesystem can tell that a buffered write would wait. Where it cannot (ext4), the ring would hand every
    /// such write to a worker, so it is done here even if it waits.
    nowait_writes: Cell<bool>,
    /// Written since the last flush that was started.
    unflushed_bytes: Cell<u64>,
}

impl UringDevice {
    /// Opens a regular file or a block device, exclusively, for the xstream of `handle`.
    ///
    /// # Errors
    /// When it is in use, not of these kinds, or cannot be opened.
    pub fn open(
        path: &Path,
        handle: &Handle,
        options: &OpenOptions,
    ) -> Result<Rc<Self>, OpenError> {
        let files = Files::open(path, options)?;
        let at_path = |source: io::Error| OpenError::File { path: path.into(), source };
        let (engine, engine_name) = engine::choose(&files, options).map_err(at_path)?;
        let event = engine.event().map_err(at_path)?;
        let guests = Guests::new(handle, &files).map_err(at_path)?;
        let inner = Rc::new(Inner {
            files,
            engine: RefCell::new(engine),
            guests,
            engine_name,
            event,
            read_inline_bytes_max: options.read_inline_bytes_max,
            write_inline_bytes_max: options.write_inline_bytes_max,
            nowait_writes: Cell::new(true),
            unflushed_bytes: Cell::new(0),
        });
        let poller: Rc<dyn Poll> = inner.clone();
        handle.register_poller(Rc::downgrade(&poller));
        let device = Rc::new(Self(inner));
        tracing::info!(device = device.describe(), "opened");
        Ok(device)
    }

    fn start<T>(
        &self,
        offset: u64,
        len: u64,
        route: Route,
        kind: impl FnOnce(crate::device::IoSender<T>) -> Kind,
    ) -> Io<T> {
        let (sender, io) = Io::in_flight();
        self.0.engine.borrow_mut().start(Operation::new(kind(sender), offset, len, route));
        io
    }

    /// The direct descriptor, if there is one and the transfer is aligned to it.
    fn route(&self, how: How, offset: u64, len: u64) -> Route {
        let aligned = offset.is_multiple_of(DIRECT_ALIGN) && len.is_multiple_of(DIRECT_ALIGN);
        if how == How::Direct && aligned && self.0.files.direct.is_ok() {
            Route::Direct
        } else {
            Route::Buffered
        }
    }

    fn writable(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        if self.0.files.access == Access::ReadOnly {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened read-only"));
        }
        Ok(())
    }
}

/// Whether a range needs nothing done: refused, or empty.
fn settled(checked: io::Result<()>, len: u64) -> Option<Io<()>> {
    match checked {
        Err(error) => Some(Io::complete(Err(error))),
        Ok(()) if len == 0 => Some(Io::complete(Ok(()))),
        Ok(()) => None,
    }
}

impl Device for UringDevice {
    fn size(&self) -> u64 {
        self.0.files.size
    }

    fn read(&self, mut buffer: IoBuf, offset: u64, how: How) -> Io<IoBuf> {
        let len = buffer.len() as u64;
        if let Err(error) = check_range(self.size(), offset, len) {
            return Io::complete(Err(error));
        }
        if len == 0 {
            return Io::complete(Ok(buffer));
        }
        let route = self.route(how, offset, len);
        if route == Route::Buffered
            && buffer.len() <= self.0.read_inline_bytes_max
            && read_cached(self.0.files.buffered.as_fd(), &mut buffer, offset)
        {
            return Io::complete(Ok(buffer));
        }
        self.start(offset, len, route, |sender| Kind::Read(buffer, sender))
    }

    fn write(&self, data: Bytes, offset: u64, how: How) -> Io<()> {
        let len = data.len() as u64;
        if let Some(settled) = settled(self.writable(offset, len), len) {
            return settled;
        }
        self.0.unflushed_bytes.set(self.0.unflushed_bytes.get().saturating_add(len));
        let route = self.route(how, offset, len);
        if route == Route::Buffered
            && data.len() <= self.0.write_inline_bytes_max
            && let Some(result) = self.0.write_cached(&data, offset)
        {
            return Io::complete(result);
        }
        let aligned = (data.as_ptr() as u64).is_multiple_of(DIRECT_ALIGN);
        let data = if route == Route::Direct && !aligned {
            IoBuf::copy_of(&data).into_bytes()
        } else {
            data
        };
        self.start(offset, len, route, |sender| Kind::Write(data, sender))
    }

    fn flush(&self) -> Io<()> {
        if self.0.files.access == Access::ReadOnly {
            return Io::complete(Ok(()));
        }
        let unflushed_bytes = self.0.unflushed_bytes.replace(0);
        if unflushed_bytes <= GUEST_FLUSH_BYTES_MAX && self.0.guests.claim() {
            let (sender, io) = Io::elsewhere();
            self.0.guests.flush(sender);
            return io;
        }
        self.start(0, 0, Route::Buffered, Kind::Flush)
    }

    fn write_out(&self, offset: u64, len: u64) -> Io<()> {
        if let Some(settled) = settled(self.writable(offset, len), len) {
            return settled;
        }
        let fits = u32::try_from(len).is_ok();
        if !fits || !self.0.engine.borrow().writes_out() {
            return Io::complete(Ok(()));
        }
        self.start(offset, len, Route::Buffered, Kind::WriteOut)
    }

    fn discard(&self, offset: u64, len: u64) -> Io<()> {
        if let Some(settled) = settled(self.writable(offset, len), len) {
            return settled;
        }
        if !self.0.engine.borrow().discards() {
            return Io::complete(Ok(()));
        }
        self.start(offset, len, Route::Buffered, Kind::Discard)
    }

    fn allocate(&self, offset: u64, len: u64) -> Io<()> {
        if let Some(settled) = settled(self.writable(offset, len), len) {
            return settled;
        }
        if self.0.files.kind == FileKind::Block || !self.0.files.allocates {
            return Io::complete(Ok(())); // A block device has its space; `describe` tells of the other case.
        }
        self.start(offset, len, Route::Buffered, Kind::Allocate)
    }

    fn describe(&self) -> String {
        let mut text = format!("{}, {}", self.0.files.describe(), self.0.engine_name);
        if !self.0.engine.borrow().discards() {
            text.push_str(", gives no space back (discard is not supported)");
        }
        text
    }
}

/// Fills the buffer from the page cache alone; false if not all of it is there.
fn read_cached(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> bool {
    let len = buffer.len();
    let mut parts = [IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT) == Ok(len)
}

/// Writes into the page cache on this thread, whatever that takes.
fn write_now(file: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(file, data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Inner {
    /// Writes into the page cache on this thread, if that need not wait (for memory, or because too much is dirty). `None`:
    /// all of it is to be written by the ring.
    fn write_cached(&self, data: &[u8], offset: u64) -> Option<io::Result<()>> {
        let file = self.files.buffered.as_fd();
        if !self.nowait_writes.get() {
            return Some(write_now(file, data, offset));
        }
        let parts = [IoSlice::new(data)];
        match rustix::io::pwritev2(file, &parts, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == data.len() => Some(Ok(())),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP) => {
                self.nowait_writes.set(false);
                Some(write_now(file, data, offset))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

impl Poll for Inner {
    fn poll(&self) -> bool {
        self.engine.borrow_mut().turn()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }

    fn pending(&self) -> bool {
        self.engine.borrow().pending()
    }

    fn queued(&self) -> bool {
        self.engine.borrow().queued()
    }
}

impl Drop for Inner {
    /// Operations start whether or not they are waited for; so they also end before the device is closed.
    fn drop(&mut self) {
        self.engine.get_mut().finish();
    }
}
