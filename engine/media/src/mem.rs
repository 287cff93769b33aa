//! A device in memory. Every operation is complete when it returns; nothing survives the process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::IoBuf;
use crate::device::{Device, How, Io, SECTOR_BYTES, check_range};

/// Unit of memory: what was never written costs nothing.
const PAGE_BYTES: u64 = 16384;

/// A sparse device in memory; absent pages are zeros.
pub struct MemDevice {
    size: u64,
    pages: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl MemDevice {
    /// # Panics
    /// When `size` is not a multiple of [`SECTOR_BYTES`].
    #[must_use]
    pub fn new(size: u64) -> Rc<Self> {
        assert_eq!(size % SECTOR_BYTES, 0, "a device has whole sectors");
        Rc::new(Self { size, pages: RefCell::default() })
    }

    /// A device of its own with the same content.
    #[must_use]
    pub fn copy(&self) -> Rc<Self> {
        Rc::new(Self { size: self.size, pages: self.pages.clone() })
    }

    fn read_into(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, buffer.len() as u64)?;
        let pages = self.pages.borrow();
        for (page, within, range) in pieces(offset, buffer.len()) {
            let len = range.len();
            match pages.get(&page) {
                Some(bytes) => buffer[range].copy_from_slice(&bytes[within..within + len]),
                None => buffer[range].fill(0),
            }
        }
        Ok(())
    }

    fn write_from(&self, data: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, data.len() as u64)?;
        let mut pages = self.pages.borrow_mut();
        for (page, within, range) in pieces(offset, data.len()) {
            let bytes = pages
                .entry(page)
                .or_insert_with(|| vec![0; PAGE_BYTES as usize].into_boxed_slice());
            bytes[within..within + range.len()].copy_from_slice(&data[range]);
        }
        Ok(())
    }
}

/// Cuts a range of the device at page borders: page, offset in it, and which bytes of the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let piece = (PAGE_BYTES as usize - within).min(len - done);
        let range = done..done + piece;
        done += piece;
        Some((at / PAGE_BYTES, within, range))
    })
}

impl Device for MemDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, mut buffer: IoBuf, offset: u64, _how: How) -> Io<IoBuf> {
        Io::complete(self.read_into(&mut buffer, offset).map(|()| buffer))
    }

    fn write(&self, data: Bytes, offset: u64, _how: How) -> Io<()> {
        Io::complete(self.write_from(&data, offset))
    }

    fn flush(&self) -> Io<()> {
        Io::complete(Ok(()))
    }

    fn discard(&self, offset: u64, len: u64) -> Io<()> {
        let checked = check_range(self.size, offset, len);
        if checked.is_ok() {
            let whole = offset.div_ceil(PAGE_BYTES)..(offset + len) / PAGE_BYTES;
            self.pages.borrow_mut().retain(|page, _| !whole.contains(page));
        }
        Io::complete(checked)
    }

    fn allocate(&self, offset: u64, len: u64) -> Io<()> {
        Io::complete(check_range(self.size, offset, len))
    }

    fn describe(&self) -> String {
        format!("memory, {} bytes", self.size)
    }
}
