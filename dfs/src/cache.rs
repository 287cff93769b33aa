//! The data cache: pages of files in memory, shared by all threads. A read that hits is answered on the thread that asks.
//!
//! # Invariants
//! 1. A page holds what the engine would answer: it is put in only if no write that touches it was under way or came to its end
//!    since its fetch began (`Inode::cacheable`, table.rs), and every write takes its pages out before it is answered.
//! 2. Truncate and fallocate, which are alone with the inode, begin a new era of it: pages of older eras are never asked for.
//! 3. At most `bytes_max` bytes of pages are kept.
//!
//! A page knows nothing of the file's size: what lies past the end are zeros, as the engine says, and readers cut.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};

use crate::Ino;

pub(crate) const PAGE_BYTES: u64 = 16 << 10;
/// Reads longer than this neither look here nor leave anything.
const READ_BYTES_MAX: u64 = 1 << 20;
const SHARDS: usize = 16;
/// What a page costs beside its bytes.
const PAGE_COST: usize = PAGE_BYTES as usize + 128;

/// A page of an inode, in one of its eras.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    ino: Ino,
    era: u64,
    page: u64,
}

#[derive(Default)]
struct Shard {
    pages: HashMap<Key, Page>,
    /// Every page at least once, next to be looked at by eviction first.
    clock: VecDeque<Key>,
}

struct Page {
    bytes: Bytes,
    used: bool,
}

pub(crate) struct Cache {
    pages_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

/// The pages that `range` touches.
fn pages(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// `range`, out to the borders of its pages.
pub(crate) fn whole_pages(range: &Range<u64>) -> Range<u64> {
    let pages = pages(range);
    pages.start * PAGE_BYTES..pages.end * PAGE_BYTES
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            pages_max: bytes_max / PAGE_COST / SHARDS,
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Whether a read of `len` bytes has to do with the cache at all.
    pub(crate) fn takes(&self, len: u64) -> bool {
        self.pages_max > 0 && len > 0 && len <= READ_BYTES_MAX
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let spread = key.ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shard = (spread ^ key.page) as usize % SHARDS;
        self.shards[shard].lock().expect("no code panics while it holds this mutex")
    }

    fn page(&self, key: Key) -> Option<Bytes> {
        let mut shard = self.shard(&key);
        let page = shard.pages.get_mut(&key)?;
        page.used = true;
        Some(page.bytes.clone())
    }

    /// The bytes of `range`, if all its pages are here.
    pub(crate) fn read(&self, ino: Ino, era: u64, range: &Range<u64>) -> Option<Bytes> {
        let key = |page| Key { ino, era, page };
        let touched = pages(range);
        let (first, skip) = (touched.start, (range.start % PAGE_BYTES) as usize);
        let len = (range.end - range.start) as usize;
        if touched.end - first == 1 {
            return Some(self.page(key(first))?.slice(skip..skip + len));
        }
        let found = touched.map(|page| self.page(key(page))).collect::<Option<Vec<Bytes>>>()?;
        let mut joined = BytesMut::with_capacity(found.len() * PAGE_BYTES as usize);
        found.iter().for_each(|page| joined.extend_from_slice(page));
        Some(joined.freeze().slice(skip..skip + len))
    }

    /// Keeps `bytes`, whole pages from `start` on. The caller holds what makes invariant 1 true.
    pub(crate) fn keep(&self, ino: Ino, era: u64, start: u64, bytes: &Bytes) {
        let first = start / PAGE_BYTES;
        for (at, page) in bytes.chunks_exact(PAGE_BYTES as usize).enumerate() {
            let key = Key { ino, era, page: first + at as u64 };
            // A copy: a slice would keep the whole answer alive for one page of it.
            let page = Page { bytes: Bytes::copy_from_slice(page), used: false };
            let mut shard = self.shard(&key);
            if shard.pages.insert(key, page).is_none() {
                shard.clock.push_back(key);
            }
            shard.evict(self.pages_max);
        }
    }

    /// Takes out the pages that `range` touches.
    pub(crate) fn drop_range(&self, ino: Ino, era: u64, range: &Range<u64>) {
        if self.pages_max == 0 {
            return;
        }
        for page in pages(range) {
            let key = Key { ino, era, page };
            self.shard(&key).pages.remove(&key);
        }
    }
}

impl Shard {
    fn evict(&mut self, pages_max: usize) {
        while self.pages.len() > pages_max || self.clock.len() > 2 * pages_max {
            let Some(key) = self.clock.pop_front() else { return };
            match self.pages.get_mut(&key) {
                None => {}
                Some(page) if page.used => {
                    page.used = false;
                    self.clock.push_back(key);
                }
                Some(_) => {
                    self.pages.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_BYTES;

    fn filled(pages: u64) -> Bytes {
        (0..pages * P).map(|at| (at / P) as u8 + 1).collect::<Vec<u8>>().into()
    }

    #[test]
    fn what_was_kept_is_read_across_pages() {
        let cache = Cache::new(1 << 20);
        cache.keep(Ino(1), 0, P, &filled(3));
        assert_eq!(cache.read(Ino(1), 0, &(P..P + 5)).unwrap(), [1; 5][..]);
        let across = cache.read(Ino(1), 0, &(2 * P - 1..3 * P + 1)).unwrap();
        assert_eq!((across.len() as u64, across[0], across[1]), (P + 2, 1, 2));
        assert_eq!(across[across.len() - 1], 3);
        assert!(cache.read(Ino(1), 0, &(P - 1..P + 1)).is_none());
        assert!(cache.read(Ino(1), 1, &(P..P + 5)).is_none(), "another era");
        assert!(cache.read(Ino(2), 0, &(P..P + 5)).is_none(), "another inode");
    }

    #[test]
    fn dropped_pages_are_gone_and_their_neighbours_are_not() {
        let cache = Cache::new(1 << 20);
        cache.keep(Ino(1), 0, 0, &filled(3));
        cache.drop_range(Ino(1), 0, &(P + 5..P + 6));
        assert!(cache.read(Ino(1), 0, &(0..P)).is_some());
        assert!(cache.read(Ino(1), 0, &(P..P + 1)).is_none());
        assert!(cache.read(Ino(1), 0, &(2 * P..3 * P)).is_some());
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(64 * PAGE_COST);
        cache.keep(Ino(7), 0, 0, &filled(1));
        for ino in 100..10_000 {
            cache.keep(Ino(ino), 0, 0, &filled(1));
            assert!(cache.read(Ino(7), 0, &(0..1)).is_some(), "{ino}");
        }
        let pages: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().pages.len()).sum();
        assert!(pages <= 64);
        let clock: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().clock.len()).sum();
        assert!(clock <= 128);
    }
}
