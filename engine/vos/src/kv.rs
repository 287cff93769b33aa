//! An ordered map of byte keys: what an object, a tree and (in tests) a `BTreeMap` look like to the semantics.
//!
//! # Invariants
//! 1. Keys are ordered as `memcmp` orders them; a prefix sorts before what it begins.
//! 2. Keys have 1 to [`KEY_MAX`] bytes, values 0 to [`VALUE_MAX`] bytes; anything else is refused before a change.
//! 3. Iteration is by key, never by position: a scan that is taken up again after changes sees every key that
//!    was there during the whole time exactly once.
//!
//! Every call may end with [`Abort::Fault`]; the transaction is then undone and its closure runs again.

use std::ops::ControlFlow;

use crate::pages::Abort;

/// Longest key of a map, in bytes: two keys of the object model and what composes them.
pub const KEY_MAX: usize = 1200;
/// Longest key in a tree: what is before the key of an object's pair in the object table comes on top.
pub const TREE_KEY_MAX: usize = KEY_MAX + 22;
/// Longest value of a map, in bytes. Longer single values go to blocks.
pub const VALUE_MAX: usize = 4096;

/// Which neighbour of a key [`Kv::seek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The smallest key `>=` the given one.
    Ge,
    /// The smallest key `>` the given one.
    Gt,
    /// The greatest key `<=` the given one.
    Le,
    /// The greatest key `<` the given one.
    Lt,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a visitor of a scan is called with: key, value; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reading an ordered map.
pub trait Kv {
    /// Calls `with` on the value of `key`, in place; false when there is none.
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort>;

    /// Every pair with key `>= from`, upwards, until `visit` breaks.
    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort>;

    /// Every pair with key `< below` (`None`: all), downwards, until `visit` breaks.
    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort>;

    /// As [`Kv::scan`], for a visitor that breaks at keys `>= to` anyway: it may not be shown them.
    fn scan_up_to(&self, from: &[u8], _to: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.scan(from, visit)
    }

    /// As [`Kv::scan_back`], for a visitor that needs no keys below `floor`: it may be shown them or not.
    fn scan_down_to(
        &self,
        below: &[u8],
        _floor: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Abort> {
        self.scan_back(Some(below), visit)
    }

    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Abort> {
        let mut value = None;
        self.with(key, &mut |bytes| value = Some(bytes.to_vec()))?;
        Ok(value)
    }

    fn contains(&self, key: &[u8]) -> Result<bool, Abort> {
        self.with(key, &mut |_| ())
    }

    /// The neighbour of `key`, with its value.
    fn seek(&self, key: &[u8], seek: Seek) -> Result<Option<Pair>, Abort> {
        let mut found = None;
        let mut first = |k: &[u8], v: &[u8]| {
            found = Some((k.to_vec(), v.to_vec()));
            ControlFlow::Break(())
        };
        match seek {
            Seek::Ge => self.scan(key, &mut first)?,
            Seek::Gt => self.scan(key, &mut |k, v| {
                if k == key { ControlFlow::Continue(()) } else { first(k, v) }
            })?,
            Seek::Lt => self.scan_back(Some(key), &mut first)?,
            Seek::Le => {
                let here = self.get(key)?;
                if let Some(value) = here {
                    return Ok(Some((key.to_vec(), value)));
                }
                self.scan_back(Some(key), &mut first)?;
            }
        }
        Ok(found)
    }

    /// The pairs with `from <= key`, and `key < to` if there is a `to`, at most `max` of them.
    fn range(&self, from: &[u8], to: Option<&[u8]>, max: usize) -> Result<Vec<Pair>, Abort> {
        let mut pairs = Vec::new();
        if max == 0 {
            return Ok(pairs);
        }
        self.scan(from, &mut |key, value| {
            if to.is_some_and(|to| key >= to) {
                return ControlFlow::Break(());
            }
            pairs.push((key.to_vec(), value.to_vec()));
            if pairs.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(pairs)
    }
}

/// Changing an ordered map.
pub trait KvMut: Kv {
    /// Inserts `key` or replaces its value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Abort>;

    /// Removes `key`; false when it is not there.
    fn remove(&mut self, key: &[u8]) -> Result<bool, Abort>;

    /// Overwrites part of the value of `key`, which must be there and reach at least to `at + bytes.len()`.
    fn patch(&mut self, key: &[u8], at: usize, bytes: &[u8]) -> Result<(), Abort>;

    /// Removes the first `max` pairs with `from <= key`, and `key < to` if there is a `to`; returns them. Fewer
    /// than `max` means the range is empty now.
    fn remove_range(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Pair>, Abort> {
        let pairs = self.range(from, to, max)?;
        for (key, _) in &pairs {
            self.remove(key)?;
        }
        Ok(pairs)
    }

    /// [`Self::remove_range`] of every key that begins with `prefix`.
    fn remove_prefix(&mut self, prefix: &[u8], max: usize) -> Result<Vec<Pair>, Abort> {
        self.remove_range(prefix, after_prefix(prefix).as_deref(), max)
    }
}

/// The smallest key that is greater than everything that begins with `prefix`; `None`: there is none.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// The double that the semantics are tested over.
pub type MapKv = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

impl Kv for MapKv {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        Ok(MapKv::get(self, key).map(|value| with(value)).is_some())
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        let _ = MapKv::range(self, from.to_vec()..).try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let _ = match below {
            Some(below) => {
                MapKv::range(self, ..below.to_vec()).rev().try_for_each(|(k, v)| visit(k, v))
            }
            None => self.iter().rev().try_for_each(|(k, v)| visit(k, v)),
        };
        Ok(())
    }
}

impl KvMut for MapKv {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Abort> {
        assert!((1..=KEY_MAX).contains(&key.len()) && value.len() <= VALUE_MAX);
        self.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<bool, Abort> {
        Ok(MapKv::remove(self, key).is_some())
    }

    fn patch(&mut self, key: &[u8], at: usize, bytes: &[u8]) -> Result<(), Abort> {
        let value = self.get_mut(key).expect("patch of a key that is there");
        value[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seek_finds_each_neighbour() {
        let mut map = MapKv::new();
        for key in [b"b", b"d"] {
            map.put(key, b"").unwrap();
        }
        let at = |key: &[u8], seek| map.seek(key, seek).unwrap().map(|(key, _)| key[0]);
        assert_eq!(at(b"b", Seek::Ge), Some(b'b'));
        assert_eq!(at(b"b", Seek::Gt), Some(b'd'));
        assert_eq!(at(b"b", Seek::Le), Some(b'b'));
        assert_eq!(at(b"b", Seek::Lt), None);
        assert_eq!(at(b"c", Seek::Le), Some(b'b'));
        assert_eq!(at(b"e", Seek::Ge), None);
        assert_eq!(at(b"e", Seek::Lt), Some(b'd'));
    }

    #[test]
    fn after_prefix_bounds_what_begins_with_it() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
