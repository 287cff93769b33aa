//! The contract between a store and whatever keeps its blocks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use daos_xstream::oneshot;
use daos_xstream::sync::{self, LocalReceiver, LocalSender};

use crate::IoBuf;

/// What a device writes whole or not at all, and the unit of every offset and length.
pub const SECTOR_BYTES: u64 = 512;

/// Which way bytes take. Both see the same content, in order of completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Through the page cache: complete writes survive the death of the process.
    Buffered,
    /// Past the page cache where the device can; offset, length and memory are best multiples of 4096.
    Direct,
}

/// A device of fixed size. All operations start at once, whether or not their future is polled or kept; the future only waits.
///
/// # Contract
/// 1. Offsets and lengths are multiples of [`SECTOR_BYTES`] and lie inside the device; anything else is refused with
///    `InvalidInput` and touches nothing.
/// 2. A sector is written whole or not at all. That is all that holds at a power cut for writes that are not
///    flushed: any subset of their sectors may be there, in whatever order they were written.
/// 3. [`Device::flush`] makes stable every write that *completed* before the flush was called, and no other.
/// 4. Of writes and discards in flight no two overlap: the caller sees to it. A read that overlaps one sees old or
///    new, per sector.
/// 5. An operation resolves once, when it is complete as a whole. A write that fails leaves its range undefined: old
///    or new, per sector. A flush that fails leaves undefined whether the writes before it will ever be stable, and what
///    failed is told once: to one of several flushes that are in flight together, and to none after it. (The kernel reports
///    a write-back error once per open file.) So the caller has one at a time, and believes none after a failure.
/// 6. Writing in a range that [`Device::allocate`] answered for does not fail for lack of space.
pub trait Device {
    /// In bytes; a multiple of [`SECTOR_BYTES`].
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset` on.
    fn read(&self, buffer: IoBuf, offset: u64, how: How) -> Io<IoBuf>;
    fn write(&self, data: Bytes, offset: u64, how: How) -> Io<()>;
    fn flush(&self) -> Io<()>;
    /// Begins to bring to the medium what was written there, so that the next flush finds less to do. It promises nothing, and
    /// where that cannot be begun it is done with nothing; but an error is that of a write that was written out, which no
    /// flush need tell again.
    fn write_out(&self, offset: u64, len: u64) -> Io<()> {
        Io::complete(check_range(self.size(), offset, len))
    }
    /// The content of the range is not needed any more and undefined from now on; space goes back where that is possible.
    fn discard(&self, offset: u64, len: u64) -> Io<()>;
    /// Takes the space of a range from the host.
    fn allocate(&self, offset: u64, len: u64) -> Io<()>;
    /// What it is, for people: kind, path, and which ways it takes.
    fn describe(&self) -> String;
}

/// Rule 1 of the contract.
pub(crate) fn check_range(size: u64, offset: u64, len: u64) -> io::Result<()> {
    let end = offset.checked_add(len);
    if offset.is_multiple_of(SECTOR_BYTES)
        && len.is_multiple_of(SECTOR_BYTES)
        && end.is_some_and(|end| end <= size)
    {
        return Ok(());
    }
    let text =
        format!("{len} bytes at {offset} are not whole sectors inside a device of {size} bytes");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// An operation of a device under way.
#[must_use = "an operation that nobody waits for may fail unseen"]
pub struct Io<T>(State<T>);

enum State<T> {
    Complete(Option<io::Result<T>>),
    InFlight(LocalReceiver<io::Result<T>>),
    /// Completed by another thread.
    Elsewhere(oneshot::Receiver<io::Result<T>>),
}

/// Resolves an [`Io`]; dropped without, the operation has failed.
pub type IoSender<T> = LocalSender<io::Result<T>>;

impl<T> Io<T> {
    /// An operation that is complete already.
    pub fn complete(result: io::Result<T>) -> Self {
        Self(State::Complete(Some(result)))
    }

    /// An operation that the sender completes.
    pub fn in_flight() -> (IoSender<T>, Self) {
        let (sender, receiver) = sync::oneshot();
        (sender, Self(State::InFlight(receiver)))
    }

    /// An operation that a sender on another thread completes.
    pub(crate) fn elsewhere() -> (oneshot::Sender<io::Result<T>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(State::Elsewhere(receiver)))
    }

    /// Whether awaiting it would not wait.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            State::Complete(_) => true,
            State::InFlight(receiver) => receiver.is_ready(),
            State::Elsewhere(receiver) => receiver.is_ready(),
        }
    }

    /// The result, if it is there already: then nobody needs to wait for it in a task.
    ///
    /// # Errors
    /// The operation itself, if it is still under way.
    pub fn try_complete(self) -> Result<io::Result<T>, Self> {
        match self.0 {
            State::Complete(Some(result)) => Ok(result),
            State::InFlight(receiver) => match receiver.take() {
                Some(result) => Ok(result),
                None => Err(Self(State::InFlight(receiver))),
            },
            State::Elsewhere(receiver) => match receiver.take() {
                Some(result) => Ok(result),
                None => Err(Self(State::Elsewhere(receiver))),
            },
            State::Complete(None) => Err(self),
        }
    }
}

// No field is pinned structurally.
impl<T> Unpin for Io<T> {}

impl<T> Future for Io<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let received = match &mut self.0 {
            State::Complete(result) => {
                return Poll::Ready(result.take().expect("not polled after it resolved"));
            }
            State::InFlight(receiver) => Pin::new(receiver).poll(context),
            State::Elsewhere(receiver) => Pin::new(receiver).poll(context),
        };
        received.map(|result| {
            result.unwrap_or_else(|| {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the device was closed"))
            })
        })
    }
}
