//! An ordered map with changes that are not in it: what planning works on.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::kv::{Kv, Visit};
use crate::pages::Abort;

/// Pairs that a merging scan takes from below at once.
const BATCH: usize = 16;

/// Changes of a map. `None`: removed.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A map as it would be with some changes.
pub(crate) struct Draft<'a> {
    pub below: Box<dyn Kv + 'a>,
    pub changes: &'a Changes,
}

impl Kv for Draft<'_> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        match self.changes.get(key) {
            Some(Some(value)) => {
                with(value);
                Ok(true)
            }
            Some(None) => Ok(false),
            None => self.below.with(key, with),
        }
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        if self.changes.is_empty() {
            return self.below.scan(from, visit);
        }
        let mut changes = self.changes.range(from.to_vec()..).peekable();
        let mut done = false;
        self.below.scan(from, &mut |key, value| {
            while let Some((changed, new)) =
                changes.next_if(|(changed, _)| changed.as_slice() <= key)
            {
                let stop = new.as_ref().is_some_and(|new| visit(changed, new).is_break());
                if stop {
                    done = true;
                    return ControlFlow::Break(());
                }
                if changed == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            done = flow.is_break();
            flow
        })?;
        while let (false, Some((key, new))) = (done, changes.next()) {
            done = new.as_ref().is_some_and(|new| visit(key, new).is_break());
        }
        Ok(())
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        if self.changes.is_empty() {
            return self.below.scan_back(below, visit);
        }
        let end = below.map_or(Bound::Unbounded, |below| Bound::Excluded(below.to_vec()));
        let range = self.changes.range((Bound::Unbounded, end));
        let mut changes = range.rev().peekable();
        let mut done = false;
        self.below.scan_back(below, &mut |key, value| {
            while let Some((changed, new)) =
                changes.next_if(|(changed, _)| changed.as_slice() >= key)
            {
                let stop = new.as_ref().is_some_and(|new| visit(changed, new).is_break());
                if stop {
                    done = true;
                    return ControlFlow::Break(());
                }
                if changed == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            done = flow.is_break();
            flow
        })?;
        while let (false, Some((key, new))) = (done, changes.next()) {
            done = new.as_ref().is_some_and(|new| visit(key, new).is_break());
        }
        Ok(())
    }
}

/// A map without some ranges of its keys.
pub(crate) struct Without<'a> {
    pub below: Box<dyn Kv + 'a>,
    /// `from <= key < to`.
    pub ranges: &'a [Range],
}

/// `from <= key`, and `key < to` if there is a `to`.
pub(crate) type Range = (Vec<u8>, Option<Vec<u8>>);

impl Without<'_> {
    fn range_of(&self, key: &[u8]) -> Option<&Range> {
        let holds =
            |(from, to): &&Range| from.as_slice() <= key && to.as_deref().is_none_or(|to| key < to);
        self.ranges.iter().find(holds)
    }
}

impl Kv for Without<'_> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        if self.range_of(key).is_some() { Ok(false) } else { self.below.with(key, with) }
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        let mut from = from.to_vec();
        loop {
            let mut skip = None;
            self.below.scan(&from, &mut |key, value| match self.range_of(key) {
                Some((_, to)) => {
                    skip = Some(to.clone());
                    ControlFlow::Break(())
                }
                None => visit(key, value),
            })?;
            match skip {
                Some(Some(to)) => from = to,
                _ => return Ok(()),
            }
        }
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        let mut below = below.map(<[u8]>::to_vec);
        loop {
            let mut skip = None;
            self.below.scan_back(below.as_deref(), &mut |key, value| match self.range_of(key) {
                Some((from, _)) => {
                    skip = Some(from.clone());
                    ControlFlow::Break(())
                }
                None => visit(key, value),
            })?;
            match skip {
                Some(from) => below = Some(from),
                None => return Ok(()),
            }
        }
    }
}

/// A borrowed map where an owned one is wanted.
#[cfg(test)]
pub(crate) struct Borrowed<'a>(pub &'a dyn Kv);

#[cfg(test)]
impl Kv for Borrowed<'_> {
    fn with(&self, key: &[u8], with: &mut dyn FnMut(&[u8])) -> Result<bool, Abort> {
        self.0.with(key, with)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.0.scan(from, visit)
    }

    fn scan_back(&self, below: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), Abort> {
        self.0.scan_back(below, visit)
    }
}

/// Pairs of a map, upwards, taken in batches so that two maps can be walked together.
pub(crate) struct Walk<'a> {
    kv: &'a dyn Kv,
    batch: std::collections::VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Where the next batch begins; `None`: there is none.
    next: Option<Vec<u8>>,
    /// Keys at (upwards) or below (downwards) it are not wanted.
    bound: Option<Vec<u8>>,
    back: bool,
}

impl<'a> Walk<'a> {
    /// Every pair from `from` up, to `to`.
    pub fn up(kv: &'a dyn Kv, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        Self { kv, batch: Default::default(), next: Some(from), bound: to, back: false }
    }

    /// Every pair below `below`, downwards, to `floor`.
    pub fn down(kv: &'a dyn Kv, below: Vec<u8>, floor: Option<Vec<u8>>) -> Self {
        Self { kv, batch: Default::default(), next: Some(below), bound: floor, back: true }
    }

    pub fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, Abort> {
        if self.batch.is_empty() {
            self.fill()?;
        }
        Ok(self.batch.pop_front())
    }

    /// Goes on from here: upwards at this key, downwards below it. It lies ahead.
    pub fn skip_to(&mut self, at: Vec<u8>) {
        self.batch.clear();
        self.next = Some(at);
    }

    pub fn is_back(&self) -> bool {
        self.back
    }

    fn fill(&mut self) -> Result<(), Abort> {
        let Some(at) = self.next.take() else { return Ok(()) };
        let (batch, bound, back) = (&mut self.batch, self.bound.as_deref(), self.back);
        let mut full = false;
        let mut take = |key: &[u8], value: &[u8]| {
            if bound.is_some_and(|bound| (key < bound) == back) {
                return ControlFlow::Break(());
            }
            batch.push_back((key.to_vec(), value.to_vec()));
            full = batch.len() == BATCH;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        if self.back {
            self.kv.scan_back(Some(&at), &mut take)?;
        } else {
            self.kv.scan(&at, &mut take)?;
        }
        if full {
            let mut next = self.batch.back().expect("the batch is full").0.clone();
            if !self.back {
                next.push(0);
            }
            self.next = Some(next);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KvMut, MapKv, Seek};

    #[test]
    fn draft_equals_a_map_with_the_same_changes() {
        let mut seed = 3u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let below: MapKv =
                (0..random(20)).map(|_| (vec![random(30) as u8], vec![random(9) as u8])).collect();
            let mut expected = below.clone();
            let (from, to) = (random(30) as u8, random(30) as u8);
            let ranges = [(vec![from], (to > 20).then(|| vec![to])), (vec![3], Some(vec![5]))];
            expected.retain(|key, _| {
                let in_first = key[0] >= from && (to <= 20 || key[0] < to);
                !in_first && !(3..5).contains(&key[0])
            });
            let mut changes = Changes::new();
            for _ in 0..random(20) {
                let key = [random(30) as u8];
                if random(2) == 0 {
                    changes.insert(key.to_vec(), Some(b"new".to_vec()));
                    KvMut::put(&mut expected, &key, b"new").unwrap();
                } else {
                    changes.insert(key.to_vec(), None);
                    KvMut::remove(&mut expected, &key).unwrap();
                }
            }
            let without = Without { below: Box::new(Borrowed(&below)), ranges: &ranges };
            let draft = Draft { below: Box::new(without), changes: &changes };
            for at in 0..31u8 {
                for seek in [Seek::Ge, Seek::Gt, Seek::Le, Seek::Lt] {
                    assert_eq!(
                        draft.seek(&[at], seek).unwrap(),
                        Kv::seek(&expected, &[at], seek).unwrap()
                    );
                }
                let all = Kv::range(&draft, &[at], None, 100).unwrap();
                assert_eq!(all, Kv::range(&expected, &[at], None, 100).unwrap());
                let mut walk = Walk::up(&draft, vec![at], None);
                let walked: Vec<_> = std::iter::from_fn(|| walk.next().unwrap()).collect();
                assert_eq!(all, walked);
                let mut down = Walk::down(&draft, vec![at], None);
                let walked: Vec<_> = std::iter::from_fn(|| down.next().unwrap()).collect();
                let below = expected.range(..vec![at]).rev();
                assert!(below.map(|(k, v)| (k.clone(), v.clone())).eq(walked));
            }
        }
    }
}
