//! The memory that two processes share: made by the server, sealed so that nobody can shrink it, mapped by both.
//!
//! # Invariants
//! 1. The region has the size of its shape for as long as it is mapped: the seals that forbid any other are checked before the map.
//! 2. The other side may write any byte at any time. So words are atomics, and everything else is copied, in or out, and
//!    never borrowed: nothing here is ever a `&[u8]`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::layout::*;

const SEALS: SealFlags = SealFlags::from_bits_retain(
    SealFlags::SHRINK.bits() | SealFlags::GROW.bits() | SealFlags::SEAL.bits(),
);

#[derive(Debug)]
pub(super) struct Region {
    base: NonNull<u8>,
    shape: Shape,
}

// SAFETY: the region is memory that both processes write; every access is by atomics or by copies (invariant 2).
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// New memory of zeros with its header, and the descriptor by which the other side maps it.
    pub(super) fn create(shape: Shape) -> io::Result<(Self, OwnedFd)> {
        let shape = shape.check()?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(c"daosfs-door", flags)?;
        rustix::fs::ftruncate(&memory, shape.region_bytes() as u64)?;
        rustix::fs::fcntl_add_seals(&memory, SEALS)?;
        let region = Self::map(memory.as_fd(), shape)?;
        region.put(MAGIC_AT, &MAGIC.to_le_bytes());
        region.put(VERSION_AT, &VERSION.to_le_bytes());
        region.put(SLOTS_AT, &(shape.slots as u32).to_le_bytes());
        region.put(DATA_BYTES_AT, &(shape.data_bytes as u32).to_le_bytes());
        Ok((region, memory))
    }

    /// What another process has made.
    pub(super) fn open(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let other = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if !rustix::fs::fcntl_get_seals(memory)?.contains(SEALS) {
            return Err(other("the memory is not sealed"));
        }
        let mut header = [0; 16];
        if rustix::io::pread(memory, &mut header, 0)? < header.len() {
            return Err(other("the memory has no header"));
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        if (word(MAGIC_AT), word(VERSION_AT)) != (MAGIC, VERSION) {
            return Err(other("the memory has another layout"));
        }
        let shape =
            Shape { slots: word(SLOTS_AT) as usize, data_bytes: word(DATA_BYTES_AT) as usize };
        let shape = shape.check()?;
        if rustix::fs::fstat(memory)?.st_size as usize != shape.region_bytes() {
            return Err(other("the memory has another size than its header says"));
        }
        Self::map(memory, shape)
    }

    fn map(memory: BorrowedFd<'_>, shape: Shape) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                shape.region_bytes(),
                access,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).expect("the kernel does not map the zero page");
        Ok(Self { base, shape })
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// A child of fork() does not get the memory: it would share its parent's calls.
    pub(super) fn keep_from_children(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping; the advice changes nothing in this process.
        unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().cast(),
                self.shape.region_bytes(),
                rustix::mm::Advice::LinuxDontFork,
            )?;
        }
        Ok(())
    }

    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.shape.region_bytes()));
        // SAFETY: the range is inside the mapping, as was just asserted.
        unsafe { self.base.as_ptr().add(at) }
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4));
        // SAFETY: aligned (the mapping begins at a page), inside the mapping, valid for as long as `self`; every access of both
        // sides to words is atomic.
        unsafe { AtomicU32::from_ptr(self.at(at, 4).cast()) }
    }

    pub(super) fn long(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8));
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.at(at, 8).cast()) }
    }

    pub(super) fn put(&self, at: usize, bytes: &[u8]) {
        // SAFETY: both ranges are valid for `bytes.len()`; the other side may write there too, which makes the bytes any bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(at, bytes.len()), bytes.len()) }
    }

    pub(super) fn get(&self, at: usize, room: &mut [u8]) {
        // SAFETY: as in `put`.
        unsafe { ptr::copy_nonoverlapping(self.at(at, room.len()), room.as_mut_ptr(), room.len()) }
    }

    /// As `get`, at the end of a vector, without making it zeros first.
    pub(super) fn append(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        to.reserve(len);
        // SAFETY: there is room for `len` bytes behind the vector's, and they are written before its length says so.
        unsafe {
            ptr::copy_nonoverlapping(self.at(at, len), to.as_mut_ptr().add(to.len()), len);
            to.set_len(to.len() + len);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this is the mapping, whole, and nobody borrows from it any more. Failing, it stays, which harms nobody.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.shape.region_bytes()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { slots: 3, data_bytes: 8192 };

    #[test]
    fn both_sides_see_the_same_bytes_and_words() {
        let (ours, memory) = Region::create(SHAPE).unwrap();
        let theirs = Region::open(memory.as_fd()).unwrap();
        assert_eq!(theirs.shape(), SHAPE);
        ours.put(SHAPE.data_at(2), b"data");
        let mut room = [0; 4];
        theirs.get(SHAPE.data_at(2), &mut room);
        assert_eq!(&room, b"data");
        theirs.word(WORDS_AT).store(7, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ours.word(WORDS_AT).load(std::sync::atomic::Ordering::Relaxed), 7);
    }

    #[test]
    fn what_can_shrink_or_is_garbled_is_not_mapped() {
        let memory = rustix::fs::memfd_create(c"other", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&memory, 1 << 20).unwrap();
        assert!(Region::open(memory.as_fd()).is_err(), "it could be cut off below us");
        rustix::fs::fcntl_add_seals(&memory, SEALS).unwrap();
        assert!(Region::open(memory.as_fd()).is_err(), "zeros");
        let (ours, memory) = Region::create(SHAPE).unwrap();
        for (at, word) in
            [(SLOTS_AT, 0u32), (SLOTS_AT, 65), (DATA_BYTES_AT, 5), (DATA_BYTES_AT, 4096)]
        {
            let mut before = [0; 4];
            ours.get(at, &mut before);
            ours.put(at, &word.to_le_bytes());
            assert!(Region::open(memory.as_fd()).is_err(), "{at} {word}");
            ours.put(at, &before);
        }
        assert!(rustix::fs::ftruncate(&memory, 4096).is_err(), "sealed");
    }

    #[test]
    #[should_panic(expected = "region_bytes")]
    fn nothing_outside_of_the_region_is_touched() {
        let (ours, _memory) = Region::create(SHAPE).unwrap();
        ours.put(SHAPE.region_bytes() - 1, &[0; 2]);
    }
}
