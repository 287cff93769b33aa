//! The flat form of an object: all its pairs in one run of bytes, searched from the start, each key short of what it
//! shares with the one before.
//!
//! Pure functions: a change is a [`Splice`] of the run, which the object table makes in place.
//!
//! # Invariants
//! 1. Keys increase; `shared` is exactly what a key has in common with the one before, 0 for the first.
//! 2. What a run would take in a leaf of its own, keys whole, is at most [`EXPANDED_MAX`]: it is spread in one transaction, or was
//!    made a tree of one bucket.
//!
//! # On disk
//! ```text
//! shared (varint)  suffix length (varint)  suffix  value length (varint)  value
//! ```
//! FORMAT.md, "Flat run".

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::kv::{Pair, Visit};

/// Most bytes of the pairs of a run with whole keys, [`PAIR_COST`] each.
pub(crate) const EXPANDED_MAX: usize = 12 << 10;
const PAIR_COST: usize = 8;

/// A change of a run: `removed` bytes at `at` are replaced.
#[derive(Debug)]
pub(crate) struct Splice {
    pub at: usize,
    pub removed: usize,
    pub inserted: Vec<u8>,
}

/// One pair of a run.
#[derive(Clone, Copy)]
struct Entry<'r> {
    start: usize,
    shared: usize,
    suffix: &'r [u8],
    /// Where the value's length begins.
    value_len_at: usize,
    value_at: usize,
    value: &'r [u8],
}

impl Entry<'_> {
    fn end(&self) -> usize {
        self.value_at + self.value.len()
    }
}

/// Where a key is in a run, or where it belongs.
enum Found<'r> {
    Here(Entry<'r>),
    /// Before `next`, or at the end of the run; what it shares with its neighbours.
    Absent {
        at: usize,
        shared: usize,
        next: Option<(Entry<'r>, usize)>,
    },
}

fn varint(run: &[u8], at: &mut usize) -> Option<usize> {
    let low = *run.get(*at)?;
    *at += 1;
    if low < 0x80 {
        return Some(low.into());
    }
    let high = *run.get(*at)?;
    *at += 1;
    Some(usize::from(low & 0x7f) | usize::from(high) << 7)
}

fn push_varint(bytes: &mut Vec<u8>, value: usize) {
    debug_assert!(value < 1 << 15);
    if value < 0x80 {
        bytes.push(value as u8);
    } else {
        bytes.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    }
}

/// The entry at `start`; `None`: the bytes are no entry.
fn parse(run: &[u8], start: usize) -> Option<Entry<'_>> {
    let mut at = start;
    let shared = varint(run, &mut at)?;
    let suffix_len = varint(run, &mut at)?;
    let suffix = run.get(at..at + suffix_len)?;
    at += suffix_len;
    let value_len_at = at;
    let value_len = varint(run, &mut at)?;
    let value = run.get(at..at + value_len)?;
    Some(Entry { start, shared, suffix, value_len_at, value_at: at, value })
}

fn entries(run: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let entry = (at < run.len()).then(|| parse(run, at).expect("a run consists of entries"))?;
        at = entry.end();
        Some(entry)
    })
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Never puts a key together: how much of `key` the last entry matched says how the next one compares.
fn find<'r>(run: &'r [u8], key: &[u8]) -> Found<'r> {
    let mut matched = 0;
    for entry in entries(run) {
        match entry.shared.cmp(&matched) {
            // As unlike the key as the entry before, so below it too.
            Ordering::Greater => {}
            // Above the entry before where that still was like the key, so above the key.
            Ordering::Less => {
                let next = Some((entry, entry.shared));
                return Found::Absent { at: entry.start, shared: matched, next };
            }
            Ordering::Equal => {
                let rest = &key[matched..];
                let common = common_prefix(entry.suffix, rest);
                match entry.suffix[common..].cmp(&rest[common..]) {
                    Ordering::Less => matched += common,
                    Ordering::Equal => return Found::Here(entry),
                    Ordering::Greater => {
                        let next = Some((entry, matched + common));
                        return Found::Absent { at: entry.start, shared: matched, next };
                    }
                }
            }
        }
    }
    Found::Absent { at: run.len(), shared: matched, next: None }
}

/// The value of `key`: where it begins and its bytes.
pub(crate) fn value<'r>(run: &'r [u8], key: &[u8]) -> Option<(usize, &'r [u8])> {
    match find(run, key) {
        Found::Here(entry) => Some((entry.value_at, entry.value)),
        Found::Absent { .. } => None,
    }
}

/// Inserts `key` or replaces its value.
pub(crate) fn put(run: &[u8], key: &[u8], value: &[u8]) -> Splice {
    let mut inserted = Vec::with_capacity(key.len() + value.len() + 16);
    match find(run, key) {
        Found::Here(entry) => {
            push_varint(&mut inserted, value.len());
            inserted.extend_from_slice(value);
            Splice { at: entry.value_len_at, removed: entry.end() - entry.value_len_at, inserted }
        }
        Found::Absent { at, shared, next } => {
            push_key(&mut inserted, shared, &[&key[shared..]]);
            push_varint(&mut inserted, value.len());
            inserted.extend_from_slice(value);
            let Some((next, next_shared)) = next else {
                return Splice { at, removed: 0, inserted };
            };
            // The next key shares more with this one than with the one before.
            push_key(&mut inserted, next_shared, &[&next.suffix[next_shared - next.shared..]]);
            Splice { at, removed: next.value_len_at - at, inserted }
        }
    }
}

fn push_key(bytes: &mut Vec<u8>, shared: usize, suffix: &[&[u8]]) {
    push_varint(bytes, shared);
    push_varint(bytes, suffix.iter().map(|part| part.len()).sum());
    suffix.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// Takes out the first `max` pairs of `from <= key < to`; `None`: there are none.
pub(crate) fn remove_range(
    run: &[u8],
    from: &[u8],
    to: Option<&[u8]>,
    max: usize,
) -> Option<(Splice, Vec<Pair>)> {
    let (mut key, mut before) = (Vec::new(), Vec::new());
    let mut removed = Vec::new();
    let mut start = 0;
    for entry in entries(run) {
        key.truncate(entry.shared);
        key.extend_from_slice(entry.suffix);
        let inside = key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to);
        if inside && removed.len() < max {
            if removed.is_empty() {
                start = entry.start;
            }
            removed.push((key.clone(), entry.value.to_vec()));
        } else if removed.is_empty() {
            before.clone_from(&key);
        } else {
            let shared = common_prefix(&before, &key);
            let mut inserted = Vec::new();
            push_key(&mut inserted, shared, &[&key[shared..]]);
            let removed_bytes = entry.value_len_at - start;
            return Some((Splice { at: start, removed: removed_bytes, inserted }, removed));
        }
    }
    let splice = Splice { at: start, removed: run.len() - start, inserted: Vec::new() };
    (!removed.is_empty()).then_some((splice, removed))
}

/// Bytes that the pairs take in a leaf, keys whole.
pub(crate) fn expanded(run: &[u8]) -> usize {
    entries(run)
        .map(|entry| expanded_pair(entry.shared + entry.suffix.len(), entry.value.len()))
        .sum()
}

/// What one pair adds to [`expanded`].
pub(crate) fn expanded_pair(key_len: usize, value_len: usize) -> usize {
    PAIR_COST + key_len + value_len
}

pub(crate) fn count(run: &[u8]) -> usize {
    entries(run).count()
}

/// All pairs in order.
pub(crate) fn pairs(run: &[u8]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    scan(run, b"", &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    pairs
}

pub(crate) fn scan(run: &[u8], from: &[u8], visit: &mut Visit<'_>) {
    let mut key = Vec::with_capacity(64);
    for entry in entries(run) {
        key.truncate(entry.shared);
        key.extend_from_slice(entry.suffix);
        if key.as_slice() >= from && visit(&key, entry.value).is_break() {
            return;
        }
    }
}

pub(crate) fn scan_back(run: &[u8], below: Option<&[u8]>, visit: &mut Visit<'_>) {
    // Keys lean on the ones before them, so the way back is written down on the way there.
    let mut keys = Vec::with_capacity(256);
    let mut found: Vec<(std::ops::Range<usize>, &[u8])> = Vec::with_capacity(32);
    for entry in entries(run) {
        let shared = found.last().map_or(0, |(key, _)| key.start)..;
        let start = keys.len();
        keys.extend_from_within(shared.start..shared.start + entry.shared);
        keys.extend_from_slice(entry.suffix);
        if below.is_some_and(|below| &keys[start..] >= below) {
            break;
        }
        found.push((start..keys.len(), entry.value));
    }
    for (key, value) in found.into_iter().rev() {
        if visit(&keys[key], value).is_break() {
            return;
        }
    }
}

/// What is wrong with a run that may be anything.
pub(crate) fn verify(run: &[u8]) -> Result<(), &'static str> {
    let mut key: Vec<u8> = Vec::new();
    let mut at = 0;
    while at < run.len() {
        let entry = parse(run, at).ok_or("a flat run ends inside of an entry")?;
        if entry.shared > key.len() {
            return Err("a key of a flat run shares more than there is");
        }
        let next = [&key[..entry.shared], entry.suffix].concat();
        if at > 0 && next <= key {
            return Err("keys of a flat run are not in order");
        }
        if common_prefix(&key, &next) != entry.shared {
            return Err("a key of a flat run shares less than it could");
        }
        key = next;
        at = entry.end();
    }
    if expanded(run) > EXPANDED_MAX {
        return Err("a flat run is longer than it may be");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kv, KvMut, MapKv};
    use crate::testing::Random;

    fn apply(run: &mut Vec<u8>, splice: Splice) {
        run.splice(splice.at..splice.at + splice.removed, splice.inserted);
    }

    #[test]
    fn a_run_equals_a_map_over_random_changes() {
        for seed in 0..20 {
            eprintln!("seed {seed}");
            let mut random = Random::new(seed);
            let (mut run, mut model) = (Vec::new(), MapKv::new());
            for _ in 0..800 {
                let digits = random.below(7);
                let key: Vec<u8> = (0..=digits).map(|_| b'a' + random.below(3) as u8).collect();
                if random.below(5) < 3 {
                    let value = vec![random.below(256) as u8; random.below(300) as usize / 2];
                    let splice = put(&run, &key, &value);
                    apply(&mut run, splice);
                    model.put(&key, &value).unwrap();
                } else {
                    let to = [&key[..], b"bb"].concat();
                    let to = (random.below(2) == 0).then_some(to.as_slice());
                    let removed = remove_range(&run, &key, to, 3);
                    let expected = model.remove_range(&key, to, 3).unwrap();
                    assert_eq!(removed.is_some(), !expected.is_empty());
                    if let Some((splice, pairs)) = removed {
                        assert_eq!(pairs, expected);
                        apply(&mut run, splice);
                    }
                }
                if expanded(&run) <= EXPANDED_MAX {
                    verify(&run).unwrap();
                }
                assert_eq!(pairs(&run), Kv::range(&model, b"", None, usize::MAX).unwrap());
                assert_eq!(
                    value(&run, &key).map(|(_, value)| value.to_vec()),
                    Kv::get(&model, &key).unwrap()
                );
                let mut back = Vec::new();
                scan_back(&run, Some(&key), &mut |key, value| {
                    back.push((key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                });
                back.reverse();
                assert_eq!(back, Kv::range(&model, b"", Some(&key), usize::MAX).unwrap());
            }
        }
    }

    #[test]
    fn any_bytes_are_verified_without_a_panic() {
        let mut random = Random::new(3);
        let mut sound = 0;
        for _ in 0..20_000 {
            let len = random.below(12);
            let run: Vec<u8> = (0..len).map(|_| random.below(4) as u8).collect();
            if verify(&run).is_ok() {
                sound += 1;
                assert_eq!(pairs(&run).len(), count(&run));
            }
        }
        assert!(sound > 100);
    }
}
