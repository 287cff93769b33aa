//! Memory that a device may read or write: owned, aligned, lent by value and given back.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytes::Bytes;

/// Alignment of every [`IoBuf`]: a page, which is enough for O_DIRECT on every Linux block device.
pub const BUFFER_ALIGN: usize = 4096;

/// A buffer for device I/O.
///
/// # Invariants
/// 1. `start` is aligned to [`BUFFER_ALIGN`] and valid for `len` initialized bytes, owned by this value alone.
/// 2. An empty buffer owns no memory.
pub struct IoBuf {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an IoBuf owns its bytes alone (invariant 1), as a Box<[u8]> does.
unsafe impl Send for IoBuf {}
// SAFETY: shared access only reads, as with Box<[u8]>.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len }
    }

    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// The same memory as shared, immutable bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BUFFER_ALIGN).expect("an I/O buffer is far below isize::MAX")
    }
}

impl Default for IoBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, and owned by this value (invariant 1).
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
        }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: invariant 1; the dangling pointer of an empty buffer is non-null and aligned for bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: invariant 1, and `&mut self` is exclusive.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero_and_keep_what_is_written() {
        for len in [0, 1, 512, 4096, 100_000] {
            let mut buffer = IoBuf::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            let bytes = buffer.into_bytes();
            assert!(len == 0 || (bytes.as_ptr() as usize).is_multiple_of(BUFFER_ALIGN));
            assert_eq!(bytes, vec![7; len]);
        }
    }
}
