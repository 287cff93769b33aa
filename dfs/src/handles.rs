//! Open files: which inode a handle is of, and how it was opened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::{Error, Handle, Ino, Result};

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) ino: Ino,
    /// As `open(2)`.
    pub(crate) flags: i32,
}

/// All open files, at most `max`.
pub(crate) struct Handles {
    max: usize,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

impl Handles {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, next: AtomicU64::new(1), open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().expect("no code panics while it holds this mutex")
    }

    pub(crate) fn add(&self, open: Open) -> Result<Handle> {
        let mut handles = self.open();
        if handles.len() >= self.max {
            return Err(Error::TooManyOpen { max: self.max });
        }
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        handles.insert(handle, open);
        Ok(Handle(handle))
    }

    pub(crate) fn get(&self, ino: Ino, handle: Handle) -> Result<Open> {
        let open = self.open().get(&handle.0).copied();
        open.filter(|open| open.ino == ino).ok_or(Error::BadHandle)
    }

    pub(crate) fn remove(&self, ino: Ino, handle: Handle) -> Result<Open> {
        self.get(ino, handle)?;
        self.open().remove(&handle.0).ok_or(Error::BadHandle)
    }

    pub(crate) fn len(&self) -> usize {
        self.open().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_bounded_and_belong_to_one_inode() {
        let handles = Handles::new(1);
        let open = Open { ino: Ino(5), flags: 0 };
        let handle = handles.add(open).unwrap();
        assert_eq!(handles.add(open), Err(Error::TooManyOpen { max: 1 }));
        assert_eq!(handles.get(Ino(6), handle), Err(Error::BadHandle));
        assert_eq!(handles.remove(Ino(5), handle), Ok(open));
        assert_eq!(handles.remove(Ino(5), handle), Err(Error::BadHandle));
        assert_eq!(handles.len(), 0);
    }
}
