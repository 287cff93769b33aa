//! Memory that a device may read or write: owned, aligned, lent by value and given back.
//!
//! Buffers come from a pool shared by all threads: the allocator returns blocks of 128 KiB and more to the kernel each time,
//! and faulting their pages in again costs more than the transfer.
//!
//! # Invariants
//! 1. `start` is aligned to [`BUFFER_ALIGN`] and valid for `capacity` initialized bytes, owned by one value alone: an [`IoBuf`] or
//!    the pool.
//! 2. `len <= capacity`; an empty buffer owns no memory.
//! 3. The pool holds at most [`POOL_BYTES_MAX`].
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Alignment of every [`IoBuf`]: a page, which is enough for O_DIRECT on every Linux block device.
pub const BUFFER_ALIGN: usize = 4096;

/// Most memory that waits for its next use.
const POOL_BYTES_MAX: usize = 32 << 20;
/// Capacities are multiples of this; of buffers that are kept, powers of two.
const CAPACITY_MIN: usize = 4096;
/// Larger buffers are not kept.
const POOLED_MAX: usize = 4 << 20;
const CLASSES: usize = (POOLED_MAX / CAPACITY_MIN).ilog2() as usize + 1;

/// A buffer for device I/O.
pub struct IoBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: an IoBuf owns its bytes alone (invariant 1), as a Box<[u8]> does.
unsafe impl Send for IoBuf {}
// SAFETY: shared access only reads, as with Box<[u8]>.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let (mut buffer, zero) = Self::take(len);
        if !zero {
            buffer.fill(0);
        }
        buffer
    }

    /// A buffer to be overwritten as a whole: its content is whatever an earlier one held.
    #[must_use]
    pub fn scratch(len: usize) -> Self {
        Self::take(len).0
    }

    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::scratch(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// The same memory as shared, immutable bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// A buffer, and whether it is all zeros.
    fn take(len: usize) -> (Self, bool) {
        if len == 0 {
            return (Self { start: NonNull::dangling(), len, capacity: 0 }, true);
        }
        let capacity = if len <= POOLED_MAX {
            len.next_power_of_two().max(CAPACITY_MIN)
        } else {
            len.next_multiple_of(CAPACITY_MIN)
        };
        if let Some(Memory(start)) = Pool::lock().take(capacity) {
            return (Self { start, len, capacity }, false);
        }
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        (Self { start, len, capacity }, true)
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BUFFER_ALIGN)
            .expect("an I/O buffer is far below isize::MAX")
    }
}

impl Default for IoBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if self.capacity > 0 && !Pool::lock().put(self.capacity, Memory(self.start)) {
            // SAFETY: allocated in `take` with this very layout, and owned by this value (invariant 1).
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: invariants 1 and 2; the dangling pointer of an empty buffer is non-null and aligned for bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: invariants 1 and 2, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

/// Memory that no buffer uses.
struct Memory(NonNull<u8>);

// SAFETY: it is owned by this value alone (invariant 1).
unsafe impl Send for Memory {}

struct Pool {
    /// By capacity: 4 KiB, 8 KiB, ...
    classes: [Vec<Memory>; CLASSES],
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { classes: [const { Vec::new() }; CLASSES], bytes: 0 });

impl Pool {
    fn lock() -> MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: too large to keep.
    fn class(&mut self, capacity: usize) -> Option<&mut Vec<Memory>> {
        self.classes.get_mut((capacity / CAPACITY_MIN).ilog2() as usize)
    }

    fn take(&mut self, capacity: usize) -> Option<Memory> {
        let memory = self.class(capacity)?.pop()?;
        self.bytes -= capacity;
        Some(memory)
    }

    /// False: the pool does not want it, and the caller still owns the memory.
    fn put(&mut self, capacity: usize, memory: Memory) -> bool {
        if self.bytes + capacity > POOL_BYTES_MAX {
            return false;
        }
        match self.class(capacity) {
            Some(class) => class.push(memory),
            None => return false,
        }
        self.bytes += capacity;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero_and_keep_what_is_written() {
        for round in 0..2 {
            for len in [0, 1, 512, 4096, 4097, 100_000, 5 << 20] {
                let mut buffer = IoBuf::zeroed(len);
                assert_eq!(buffer.len(), len);
                assert!(buffer.iter().all(|byte| *byte == 0), "round {round}");
                buffer.fill(7);
                let bytes = buffer.into_bytes();
                assert!(len == 0 || (bytes.as_ptr() as usize).is_multiple_of(BUFFER_ALIGN));
                assert_eq!(bytes, vec![7; len]);
            }
        }
    }

    #[test]
    fn buffers_alive_at_once_never_share_memory_and_the_pool_is_bounded() {
        let threads: Vec<_> = (0..4u8)
            .map(|thread| {
                std::thread::spawn(move || {
                    let mut held = Vec::new();
                    for number in 0..2000usize {
                        let mut buffer = IoBuf::scratch(4096 << (number % 7));
                        buffer.fill(thread);
                        held.push(buffer);
                        if held.len() > 40 {
                            let buffer = held.swap_remove(number * 7 % 40);
                            assert!(buffer.iter().all(|byte| *byte == thread));
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(Pool::lock().bytes <= POOL_BYTES_MAX);
    }
}
