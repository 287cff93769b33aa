//! Where requests are read into, and who owns the bytes of a WRITE.
//!
//! A thread reads every request into one buffer that it keeps. The data of a small WRITE is copied out of it. That of a large one
//! is not: the buffer itself goes along with the request, comes back when the last reader of the data drops it, and the
//! thread goes on with another one.
//!
//! # Invariants
//! 1. `buffers made <= buffers_max`: when all are lent, large writes are copied too.
//! 2. The data of a WRITE begins at a page boundary.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::abi;

const PAGE_BYTES: usize = 4096;
/// From this size on lending is cheaper than copying.
const LENT_BYTES_MIN: usize = 64 << 10;
/// What precedes the data of a WRITE.
const HEAD_BYTES: usize = size_of::<abi::InHeader>() + size_of::<abi::WriteIn>();
const _: () = assert!(HEAD_BYTES < PAGE_BYTES);

/// Room for one request.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new(payload_bytes_max: usize) -> Self {
        let memory = vec![0; payload_bytes_max.max(abi::READ_BYTES_MIN) + 2 * PAGE_BYTES];
        let page = memory.as_ptr().align_offset(PAGE_BYTES);
        // No offset (which align_offset may answer, but does not for bytes) costs only the alignment.
        let start = if page < PAGE_BYTES { page + PAGE_BYTES - HEAD_BYTES } else { 0 };
        Self { memory, start }
    }

    /// Where the kernel writes a request to.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// A request that was read.
    pub fn request(&self, len: usize) -> &[u8] {
        &self.memory[self.start..][..len]
    }
}

/// The buffers of a session.
pub struct Buffers {
    payload_bytes_max: usize,
    buffers_max: usize,
    pool: Mutex<Pool>,
}

struct Pool {
    made: usize,
    free: Vec<Buffer>,
}

impl Buffers {
    pub fn new(payload_bytes_max: usize, buffers_max: usize) -> Self {
        let pool = Mutex::new(Pool { made: 0, free: Vec::new() });
        Self { payload_bytes_max, buffers_max, pool }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when all are out.
    pub fn get(&self) -> Option<Buffer> {
        let mut pool = self.pool();
        if let Some(buffer) = pool.free.pop() {
            return Some(buffer);
        }
        if pool.made >= self.buffers_max {
            return None;
        }
        pool.made += 1;
        drop(pool);
        Some(Buffer::new(self.payload_bytes_max))
    }

    /// The bytes at `data` of the request in `buffer`, owned.
    pub fn own(self: &Arc<Self>, buffer: &mut Buffer, data: Range<usize>) -> Bytes {
        if data.len() >= LENT_BYTES_MIN
            && let Some(other) = self.get()
        {
            let buffer = std::mem::replace(buffer, other);
            let data = buffer.start + data.start..buffer.start + data.end;
            return Bytes::from_owner(Lent { buffer: Some(buffer), data, home: self.clone() });
        }
        Bytes::copy_from_slice(&buffer.request(data.end)[data.start..])
    }
}

/// A buffer that is with a request.
struct Lent {
    /// `None` only while it is dropped.
    buffer: Option<Buffer>,
    data: Range<usize>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.memory[self.data.clone()])
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.pool().free.extend(self.buffer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, byte: u8) {
        buffer.room().fill(byte);
    }

    #[test]
    fn data_of_a_write_is_at_a_page_boundary() {
        let mut buffer = Buffer::new(1 << 20);
        assert_eq!(buffer.room()[HEAD_BYTES..].as_ptr().align_offset(PAGE_BYTES), 0);
        assert!(buffer.room().len() >= HEAD_BYTES + (1 << 20));
        assert!(Buffer::new(0).room().len() >= abi::READ_BYTES_MIN);
    }

    #[test]
    fn large_data_is_lent_and_its_buffer_comes_back() {
        let buffers = Arc::new(Buffers::new(1 << 20, 2));
        let mut buffer = buffers.get().unwrap();
        fill(&mut buffer, 1);
        let address = buffer.request(80)[80..].as_ptr();
        let first = buffers.own(&mut buffer, 80..80 + (1 << 20));
        assert_eq!(first.as_ptr(), address, "not copied");
        fill(&mut buffer, 2);
        let second = buffers.own(&mut buffer, 80..80 + LENT_BYTES_MIN);
        fill(&mut buffer, 3);
        assert!(first.iter().all(|b| *b == 1) && second.iter().all(|b| *b == 2));
        assert!(buffers.get().is_none(), "the second was copied: two are all there are");
        drop(first);
        assert!(buffers.get().is_some());
    }

    #[test]
    fn small_data_is_copied() {
        let buffers = Arc::new(Buffers::new(1 << 20, 2));
        let mut buffer = buffers.get().unwrap();
        fill(&mut buffer, 1);
        let small = buffers.own(&mut buffer, 80..4176);
        fill(&mut buffer, 2);
        assert!(small.len() == 4096 && small.iter().all(|b| *b == 1));
    }
}
