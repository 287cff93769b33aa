//! Paths: those of the program, which may be anywhere or nowhere, and those that are made here.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

/// Longest path, with its NUL: longer ones are the kernel's. They are on the stack, which may be a signal handler's.
pub(crate) const BYTES_MAX: usize = 1024;
/// The unit in which memory is there or not.
const PAGE: usize = 4096;
/// Read at a time: most paths are shorter.
const STEP: usize = 256;

pub(crate) struct Text {
    bytes: [MaybeUninit<u8>; BYTES_MAX],
    len: usize,
}

impl Text {
    pub(crate) fn new() -> Self {
        Self { bytes: [MaybeUninit::uninit(); BYTES_MAX], len: 0 }
    }

    /// A string of the program, read by the kernel: `None` where there is none, and where that is not allowed.
    pub(crate) fn of(address: *const c_char) -> Option<Self> {
        let mut text = Self::new();
        let mut from = address as usize;
        loop {
            let room = &mut text.bytes[text.len..];
            let len = room.len().min(STEP).min(PAGE - from % PAGE);
            if len == 0 || !read(from, &mut room[..len]) {
                return None;
            }
            text.len += len;
            let end = text.written()[text.len - len..].iter().position(|byte| *byte == 0);
            if let Some(end) = end {
                text.len = text.len - len + end;
                return Some(text);
            }
            from += len;
        }
    }

    /// `None`: it would be too long.
    pub(crate) fn push(&mut self, more: &[u8]) -> Option<()> {
        let room = self.bytes.get_mut(self.len..self.len + more.len())?;
        for (to, from) in room.iter_mut().zip(more) {
            to.write(*from);
        }
        self.len += more.len();
        Some(())
    }

    pub(crate) fn push_number(&mut self, number: u32) -> Option<()> {
        let mut digits = [0; 10];
        let (mut at, mut left) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As the kernel takes it. `None`: it would be too long.
    pub(crate) fn c_str(&mut self) -> Option<&CStr> {
        self.push(&[0])?;
        self.len -= 1;
        CStr::from_bytes_until_nul(unsafe_bytes(&self.bytes[..=self.len])).ok()
    }

    pub(crate) fn written(&self) -> &[u8] {
        unsafe_bytes(&self.bytes[..self.len])
    }
}

fn unsafe_bytes(written: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: callers give what `push` or `read` has written.
    unsafe { std::slice::from_raw_parts(written.as_ptr().cast(), written.len()) }
}

/// Reads memory of this process that may not be there (process_vm_readv(2)).
fn read(from: usize, to: &mut [MaybeUninit<u8>]) -> bool {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: from as *mut _, iov_len: to.len() };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // All of a register: what is variadic is not widened.
    let (one, flags) = (1usize, 0usize);
    // SAFETY: the kernel writes into `to`, and only reads what `remote` says, which it looks at first.
    let read = unsafe {
        libc::syscall(
            libc::SYS_process_vm_readv,
            pid,
            &raw const local,
            one,
            &raw const remote,
            one,
            flags,
        )
    };
    usize::try_from(read) == Ok(to.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_wherever_it_is_and_nothing_where_there_is_none() {
        let long = vec![b'x'; 3 * PAGE];
        for at in [0, 1, PAGE - 2, PAGE - STEP] {
            for len in [0, 1, STEP - 1, STEP, STEP + 1, BYTES_MAX - 1] {
                let mut bytes = long.clone();
                bytes[at + len] = 0;
                let text = Text::of(bytes[at..].as_ptr().cast()).unwrap();
                assert_eq!(text.written(), &long[..len], "{at} {len}");
            }
        }
        assert!(Text::of(long.as_ptr().cast()).is_none(), "too long");
        for nowhere in [0usize, 8, usize::MAX - 5] {
            assert!(Text::of(nowhere as *const c_char).is_none());
        }
    }

    #[test]
    fn what_is_pushed_is_one_string() {
        let mut text = Text::new();
        text.push(b"/proc/self/fd/").unwrap();
        text.push_number(4_000_000_000).unwrap();
        text.push_number(0).unwrap();
        assert_eq!(text.c_str().unwrap(), c"/proc/self/fd/40000000000");
        assert!(text.push(&[b'x'; BYTES_MAX]).is_none());
    }
}
