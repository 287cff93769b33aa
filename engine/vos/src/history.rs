//! The past of a container: what overwrites and punches hid while a snapshot could see it.
//!
//! # On disk
//! One map per container that ever had a snapshot:
//! ```text
//! object id (16) shard (4) 00 end (8)                    -> the object's record as it was until `end`
//! object id (16) shard (4) 01 object key  epoch (8)      -> end (8, little-endian), record as of record.rs
//! object id (16) shard (4) 02 end (8)  tree (4)          -> nothing: a tree of records that were hidden together
//! object id (16) shard (4) 03 end (8)  tree (4)          -> the same, its keys as the object table has them
//! ```
//! All numbers in keys are big-endian. FORMAT.md, "History".
//!
//! # Invariants
//! 1. A record of epoch `e` and end `n` is here only while a snapshot `s` with `e <= s < n` exists, or a sweep is due.
//! 2. At one epoch, newest view and history together show every object key at most once, and no block twice.
//! 3. The state of an object's record at `s` is the first one here with `end > s`; without one, the newest.

use std::ops::ControlFlow;

use daos_types::{Epoch, ObjectId};

use crate::btree::Tree;
use crate::draft::Walk;
use crate::kv::{Kv, Pair, Seek, Visit, after_prefix};
use crate::object::Keys;
use crate::pages::{Abort, BucketId};
use crate::record::epoch_of;

const OBJECT: u8 = 0;
const RECORD: u8 = 1;
const TREE: u8 = 2;
const WHOLE_TREE: u8 = 3;
/// Versions that a snapshot does not see, one after the other, before it is worth a search for the one that it sees.
const VERSIONS_PASSED: u32 = 4;

/// Begins everything of one object in the history.
#[derive(Clone, Debug)]
pub(crate) struct ObjectPrefix([u8; 20]);

impl ObjectPrefix {
    pub fn new(object: ObjectId, shard: u32) -> Self {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&object.to_bytes());
        bytes[16..].copy_from_slice(&shard.to_be_bytes());
        Self(bytes)
    }

    /// The key of the object's state until `end`.
    pub fn state_key(&self, end: Epoch) -> Vec<u8> {
        [&self.0[..], &[OBJECT], &end.0.to_be_bytes()].concat()
    }

    /// The key of a hidden record.
    pub fn record_key(&self, key: &[u8], epoch: Epoch) -> Vec<u8> {
        [&self.0[..], &[RECORD], key, &epoch.0.to_be_bytes()].concat()
    }

    /// The key of a tree of records that were hidden together.
    pub fn tree_key(&self, end: Epoch, tree: Tree, keys: Keys) -> Vec<u8> {
        let kind = if keys == Keys::Own { TREE } else { WHOLE_TREE };
        [&self.0[..], &[kind], &end.0.to_be_bytes(), &tree.root.0.to_be_bytes()].concat()
    }

    /// The trees of records that were hidden after `epoch`.
    pub fn trees_after(&self, history: &dyn Kv, epoch: Epoch) -> Result<Vec<(Tree, Keys)>, Abort> {
        let mut trees = Vec::new();
        for kind in [TREE, WHOLE_TREE] {
            let prefix = [&self.0[..], &[kind]].concat();
            let from = [prefix.as_slice(), &(epoch.0 + 1).to_be_bytes()].concat();
            history.scan(&from, &mut |key, _| match parse(key) {
                Some(HistoryKey::Tree { tree, keys, .. }) if key.starts_with(&prefix) => {
                    trees.push((tree, keys));
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            })?;
        }
        Ok(trees)
    }

    fn records(&self, key: &[u8]) -> Vec<u8> {
        [&self.0[..], &[RECORD], key].concat()
    }

    /// The state that was the object's at `epoch`, if it is not the newest.
    pub fn state_at(&self, history: &dyn Kv, epoch: Epoch) -> Result<Option<Vec<u8>>, Abort> {
        let prefix = [&self.0[..], &[OBJECT]].concat();
        let mut state = None;
        history.scan(&self.state_key(Epoch(epoch.0 + 1)), &mut |key, value| {
            if key.starts_with(&prefix) {
                state = Some(value.to_vec());
            }
            ControlFlow::Break(())
        })?;
        Ok(state)
    }
}

/// What a key of the history names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HistoryKey<'a> {
    State { object: [u8; 20], end: Epoch },
    Record { object: [u8; 20], key: &'a [u8], epoch: Epoch },
    Tree { object: [u8; 20], end: Epoch, tree: Tree, keys: Keys },
}

pub(crate) fn parse(key: &[u8]) -> Option<HistoryKey<'_>> {
    let (object, rest) = key.split_first_chunk::<20>()?;
    let (&kind, rest) = rest.split_first()?;
    if kind == TREE || kind == WHOLE_TREE {
        let keys = if kind == TREE { Keys::Own } else { Keys::Whole };
        let (end, root) = rest.split_first_chunk::<8>()?;
        let root = u32::from_be_bytes(root.try_into().ok()?);
        let tree = Tree { root: BucketId(root) };
        let end = Epoch(u64::from_be_bytes(*end));
        return Some(HistoryKey::Tree { object: *object, end, tree, keys });
    }
    let (key, epoch) = rest.split_last_chunk::<8>()?;
    let epoch = Epoch(u64::from_be_bytes(*epoch));
    match kind {
        OBJECT if key.is_empty() => Some(HistoryKey::State { object: *object, end: epoch }),
        RECORD => Some(HistoryKey::Record { object: *object, key, epoch }),
        _ => None,
    }
}

/// The value of a state: `None`, there was no object.
pub(crate) fn encode_state(data_epoch: Option<Epoch>) -> Vec<u8> {
    match data_epoch {
        Some(epoch) => [&[1], &epoch.0.to_le_bytes()[..]].concat(),
        None => vec![0],
    }
}

pub(crate) fn decode_state(value: &[u8]) -> Option<Option<Epoch>> {
    match *value {
        [0] => Some(None),
        [1, ref epoch @ ..] => Some(Some(Epoch(u64::from_le_bytes(epoch.try_into().ok()?)))),
        _ => None,
    }
}

/// The value of a hidden record.
pub(crate) fn hidden(end: Epoch, record: &[u8]) -> Vec<u8> {
    [&end.0.to_le_bytes(), record].concat()
}

/// End and record of a hidden record's value.
pub(crate) fn split_hidden(value: &[u8]) -> Option<(Epoch, &[u8])> {
    let (end, record) = value.split_first_chunk()?;
    Some((Epoch(u64::from_le_bytes(*end)), record))
}

/// An object's map as it was at a snapshot: what is still in the newest view, and what the history kept.
pub(crate) struct AtSnapshot<'a> {
    /// The object's own map, and the trees that were detached from it since.
    pub newest: Vec<Box<dyn Kv + 'a>>,
    pub history: &'a dyn Kv,
    pub object: ObjectPrefix,
    pub epoch: Epoch,
}

impl AtSnapshot<'_> {
    fn is_visible(&self, value: &[u8]) -> bool {
        epoch_of(value).is_some_and(|epoch| epoch <= self.epoch)
    }

    /// The next pair of a walk that is visible, under its object key.
    fn next(&self, walk: &mut Walk<'_>, hidden: bool) -> Result<Option<Pair>, Abort> {
        let mut passed = 0;
        while let Some((key, value)) = walk.next()? {
            if !hidden {
                if self.is_visible(&value) {
                    return Ok(Some((key, value)));
                }
                continue;
            }
            let (Some(HistoryKey::Record { key, epoch, .. }), Some((end, record))) =
                (parse(&key), split_hidden(&value))
            else {
                continue;
            };
            if end > self.epoch && self.is_visible(record) {
                return Ok(Some((key.to_vec(), record.to_vec())));
            }
            passed += 1;
            if passed == VERSIONS_PASSED {
                self.skip_versions(walk, key, epoch)?;
                passed = 0;
            }
        }
        Ok(None)
    }

    /// Past the versions of a key that the snapshot does not see, which may be very many: to the only one that it can
    /// see, or to the next key. The walk has just passed the version of `epoch`.
    fn skip_versions(&self, walk: &mut Walk<'_>, key: &[u8], epoch: Epoch) -> Result<(), Abort> {
        let newer = self.object.record_key(key, Epoch(self.epoch.0 + 1));
        let is_older = epoch <= self.epoch;
        walk.skip_to(match (walk.is_back(), is_older) {
            (true, false) => newer,
            (true, true) => self.object.record_key(key, Epoch::ZERO),
            (false, false) => self.object.record_key(key, Epoch::MAX),
            (false, true) => {
                let newest = self.history.seek(&newer, Seek::Lt)?;
                match newest {
                    Some((found, _)) if found > self.object.record_key(key, epoch) => found,
                    _ => self.object.record_key(key, Epoch::MAX),
                }
            }
        });
        Ok(())
    }

    /// Walks all maps at once; the last one is the history's.
    fn merge(
        &self,
        mut walks: Vec<Walk<'_>>,
        back: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), Abort> {
        let last = walks.len() - 1;
        let mut heads = Vec::with_capacity(walks.len());
        for (index, walk) in walks.iter_mut().enumerate() {
            heads.push(self.next(walk, index == last)?);
        }
        loop {
            let keys = heads.iter().enumerate();
            let there = keys.filter_map(|(index, head)| Some((&head.as_ref()?.0, index)));
            let first = if back { there.max() } else { there.min() };
            let Some((_, index)) = first else { return Ok(()) };
            let next = self.next(&mut walks[index], index == last)?;
            let (key, value) =
                std::mem::replace(&mut heads[index], next).expect("it was the first one");
            if visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }

    fn up(&self, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let bound = to.map(<[u8]>::to_vec);
        let newest = self.newest.iter();
        let mut walks: Vec<Walk<'_>> =
            newest.map(|kv| Walk::up(&**kv, from.to_vec(), bound.clone())).collect();
        let all = self.object.records(b"");
        let end = to.map_or_else(|| after_prefix(&all), |to| Some(self.object.records(to)));
        walks.push(Walk::up(self.history, self.object.records(from), end));
        self.merge(walks, false, &mut |key, value| {
            // A key that `from` begins sorts by its epoch against the rest of `from`.
            if key < from { ControlFlow::Continue(()) } else { visit(key, value) }
        })
    }

    fn down(
        &self,
        below: Option<&[u8]>,
        floor: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Abort> {
        let bound = floor.map(<[u8]>::to_vec);
        // No object key begins with so many 0xff: a number has 8 of them, an escaped group is followed by at most 9.
        let newest_below = below.map_or_else(|| vec![0xff; 32], <[u8]>::to_vec);
        let newest = self.newest.iter();
        let mut walks: Vec<Walk<'_>> =
            newest.map(|kv| Walk::down(&**kv, newest_below.clone(), bound.clone())).collect();
        let all = self.object.records(b"");
        let top = || after_prefix(&all).expect("a prefix of an object has an end");
        let hidden_below = below.map_or_else(top, |below| self.object.records(below));
        let hidden_floor = self.object.records(floor.unwrap_or_default());
        walks.push(Walk::down(self.history, hidden_below, Some(hidden_floor)));
        self.merge(walks, true, visit)
    }
}

impl Kv for AtSnapshot<'_> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        let mut seen = false;
        for newest in &self.newest {
            newest.with(key, &mut |value| {
                seen = self.is_visible(value);
                if seen {
                    with(value);
                }
            })?;
            if seen {
                return Ok(true);
            }
        }
        let below = self.object.record_key(key, Epoch(self.epoch.0 + 1));
        let prefix = self.object.records(key);
        let mut found = false;
        self.history.scan_back(Some(&below), &mut |found_key, value| {
            if found_key.len() == below.len()
                && found_key.starts_with(&prefix)
                && let Some((end, record)) = split_hidden(value)
                && end > self.epoch
            {
                found = true;
                with(record);
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.up(from, None, visit)
    }

    fn scan_up_to(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.up(from, Some(to), visit)
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.down(below, None, visit)
    }

    fn scan_down_to(&self, below: &[u8], floor: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.down(Some(below), Some(floor), visit)
    }
}
