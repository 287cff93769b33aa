//! The past of a container: what overwrites and punches hid while a snapshot could see it.
//!
//! # On disk
//! One map per container that ever had a snapshot:
//! ```text
//! object id (16) shard (4) 00 end (8)                    -> the object's record as it was until `end`
//! object id (16) shard (4) 01 object key  epoch (8)      -> end (8, little-endian), record as of record.rs
//! ```
//! All numbers in keys are big-endian. FORMAT.md, "History".
//!
//! # Invariants
//! 1. A record of epoch `e` and end `n` is here only while a snapshot `s` with `e <= s < n` exists, or a sweep is due.
//! 2. At one epoch, newest view and history together show every object key at most once, and no block twice.
//! 3. The state of an object's record at `s` is the first one here with `end > s`; without one, the newest.

use std::cmp::Ordering as Cmp;
use std::ops::ControlFlow;

use daos_types::{Epoch, ObjectId};

use crate::draft::Walk;
use crate::kv::{Kv, Visit, after_prefix};
use crate::pages::Abort;
use crate::record::epoch_of;

const OBJECT: u8 = 0;
const RECORD: u8 = 1;

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
}

pub(crate) fn parse(key: &[u8]) -> Option<HistoryKey<'_>> {
    let (object, rest) = key.split_first_chunk::<20>()?;
    let (&kind, rest) = rest.split_first()?;
    let (key, epoch) = rest.split_last_chunk::<8>()?;
    let epoch = Epoch(u64::from_be_bytes(*epoch));
    match kind {
        OBJECT if key.is_empty() => Some(HistoryKey::State { object: *object, end: epoch }),
        RECORD => Some(HistoryKey::Record { object: *object, key, epoch }),
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
    pub newest: &'a dyn Kv,
    pub history: &'a dyn Kv,
    pub object: ObjectPrefix,
    pub epoch: Epoch,
}

impl AtSnapshot<'_> {
    fn is_visible(&self, value: &[u8]) -> bool {
        epoch_of(value).is_some_and(|epoch| epoch <= self.epoch)
    }

    /// The next pair of the newest view that is visible.
    fn next_newest(&self, walk: &mut Walk<'_>) -> Result<Option<(Vec<u8>, Vec<u8>)>, Abort> {
        while let Some((key, value)) = walk.next()? {
            if self.is_visible(&value) {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// The next pair of the history that is visible, under its object key.
    fn next_hidden(&self, walk: &mut Walk<'_>) -> Result<Option<(Vec<u8>, Vec<u8>)>, Abort> {
        while let Some((key, value)) = walk.next()? {
            if let (Some(HistoryKey::Record { key, .. }), Some((end, record))) =
                (parse(&key), split_hidden(&value))
                && end > self.epoch
                && self.is_visible(record)
            {
                return Ok(Some((key.to_vec(), record.to_vec())));
            }
        }
        Ok(None)
    }

    fn merge(
        &self,
        mut newest: Walk<'_>,
        mut hidden: Walk<'_>,
        back: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), Abort> {
        let mut left = self.next_newest(&mut newest)?;
        let mut right = self.next_hidden(&mut hidden)?;
        loop {
            let order = match (&left, &right) {
                (None, None) => return Ok(()),
                (Some(_), None) => Cmp::Less,
                (None, Some(_)) => Cmp::Greater,
                (Some((a, _)), Some((b, _))) if back => b.cmp(a),
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let (key, value) = if order == Cmp::Greater {
                std::mem::replace(&mut right, self.next_hidden(&mut hidden)?)
            } else {
                std::mem::replace(&mut left, self.next_newest(&mut newest)?)
            }
            .expect("the side that was compared is there");
            if visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }
}

impl Kv for AtSnapshot<'_> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        let mut seen = false;
        self.newest.with(key, &mut |value| {
            seen = self.is_visible(value);
            if seen {
                with(value);
            }
        })?;
        if seen {
            return Ok(true);
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
        let all = self.object.records(b"");
        let newest = Walk::up(self.newest, Vec::new(), from.to_vec());
        let hidden = Walk::up(self.history, all, self.object.records(from));
        self.merge(newest, hidden, false, &mut |key, value| {
            // A key that `from` begins sorts by its epoch against the rest of `from`.
            if key < from { ControlFlow::Continue(()) } else { visit(key, value) }
        })
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let all = self.object.records(b"");
        let top = |prefix: &[u8]| after_prefix(prefix).expect("a prefix of an object has an end");
        // No object key begins with so many 0xff: a number has 8 of them, an escaped group is followed by at most 9.
        let newest_below = below.map_or_else(|| vec![0xff; 32], <[u8]>::to_vec);
        let newest = Walk::down(self.newest, Vec::new(), newest_below);
        let hidden_below = below.map_or_else(|| top(&all), |below| self.object.records(below));
        let hidden = Walk::down(self.history, all, hidden_below);
        self.merge(newest, hidden, true, visit)
    }
}
