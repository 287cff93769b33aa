//! Random changes to an ordered map and to its model, and reruns of them after faults.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::btree::Fingers;
use crate::kv::{KEY_MAX, Kv, KvMut, MapKv, Seek};
use crate::pages::{Abort, BucketId, BucketKind, Pages, PagesMut};
use crate::testing::{MemoryPages, Random};

/// What changes are made of.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    /// More puts than removals.
    pub grow: bool,
    pub value_max: usize,
}

pub(crate) fn pairs_of(map: &dyn Kv) -> Vec<(Vec<u8>, Vec<u8>)> {
    map.range(b"", None, usize::MAX).unwrap()
}

/// Keys of several families, so that prefixes, lengths and orders vary; one has separators so long that trees get high.
fn random_key(random: &mut Random) -> Vec<u8> {
    let number = random.below(1000);
    match random.below(8) {
        0 => number.to_be_bytes().to_vec(),
        1 => format!("directory/entry-{number}").into_bytes(),
        2 => [vec![7; 200], (number * 7919 % 1000).to_be_bytes().to_vec()].concat(),
        3 => vec![b'x'; 1 + number as usize * (KEY_MAX - 1) / 999],
        4 => [&[0xff; 30][..], &(number as u16).to_le_bytes()].concat(),
        _ => [&[b'l'; 1100][..], &(number as u16).to_be_bytes(), &[b'z'; 90]].concat(),
    }
}

fn random_value(random: &mut Random, value_max: usize) -> Vec<u8> {
    let len = match random.below(20) {
        0 => value_max as u64,
        1..=3 => random.below(value_max as u64),
        4 => 0,
        _ => random.below(150.min(value_max as u64)),
    };
    let byte = random.below(3) as u8;
    (0..len).map(|at| if at % 7 == 0 { random.below(4) as u8 } else { byte }).collect()
}

/// One random change, made to both; what they answer is the same.
pub(crate) fn change(
    random: &mut Random,
    mix: Mix,
    tree: &mut dyn KvMut,
    model: &mut MapKv,
) -> Result<(), Abort> {
    let key = random_key(random);
    let puts = if mix.grow { 72 } else { 15 };
    match random.below(100) {
        0..10 => look(&key, tree, model),
        10..18 => {
            let Some(value) = MapKv::get(model, &key).cloned() else { return Ok(()) };
            let at = random.below(value.len() as u64 + 1) as usize;
            let bytes: Vec<u8> = value[at..].iter().take(9).map(|byte| byte ^ 0x55).collect();
            tree.patch(&key, at, &bytes)?;
            model.patch(&key, at, &bytes)
        }
        18..19 => {
            let (other, max) =
                (random_key(random), random.below(if mix.grow { 8 } else { 40 }) as usize);
            let to = (random.below(3) > 0).then_some(other.as_slice());
            let removed = tree.remove_range(&key, to, max)?;
            assert_eq!(removed, model.remove_range(&key, to, max)?);
            Ok(())
        }
        roll if roll < 19 + puts => {
            let value = random_value(random, mix.value_max);
            tree.put(&key, &value)?;
            model.put(&key, &value)
        }
        _ => {
            // A key that is there, or one that is not.
            let there = random.below(4) > 0;
            let next = model.seek(&key, Seek::Ge)?.filter(|_| there).map_or(key, |(key, _)| key);
            assert_eq!(tree.remove(&next)?, model.remove(&next).is_some());
            Ok(())
        }
    }
}

/// Every way to read answers the same.
pub(crate) fn look(key: &[u8], tree: &dyn Kv, model: &MapKv) -> Result<(), Abort> {
    assert_eq!(tree.get(key)?, Kv::get(model, key)?);
    for seek in [Seek::Ge, Seek::Gt, Seek::Le, Seek::Lt] {
        assert_eq!(tree.seek(key, seek)?, model.seek(key, seek)?, "{seek:?}");
    }
    let some = |map: &dyn Kv, below| -> Result<_, Abort> {
        let mut pairs = Vec::new();
        map.scan_back(below, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            if pairs.len() < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(pairs)
    };
    assert_eq!(some(tree, Some(key))?, some(model, Some(key))?);
    assert_eq!(some(tree, None)?, some(model, None)?);
    assert_eq!(tree.range(key, None, 20)?, Kv::range(model, key, None, 20)?);
    Ok(())
}

/// Buckets of which any access may say that it is not resident.
pub(crate) struct Faulty {
    pages: MemoryPages,
    /// Accesses until the next fault.
    left: Cell<u64>,
    touched: RefCell<HashSet<BucketId>>,
}

impl Faulty {
    fn new(pages: MemoryPages, left: u64) -> Self {
        Self { pages, left: Cell::new(left), touched: RefCell::default() }
    }

    fn access(&self, bucket: BucketId) -> Result<(), Abort> {
        let left = self.left.get();
        if left == 0 {
            return Err(Abort::Fault(bucket));
        }
        self.left.set(left - 1);
        self.touched.borrow_mut().insert(bucket);
        Ok(())
    }
}

impl Pages for Faulty {
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort> {
        self.access(bucket)?;
        self.pages.page(bucket)
    }
    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort> {
        self.access(bucket)?;
        self.pages.kind(bucket)
    }
    fn fingers(&self) -> &Fingers {
        self.pages.fingers()
    }
}

impl PagesMut for Faulty {
    fn write(&mut self, bucket: BucketId, at: usize, bytes: &[u8]) -> Result<(), Abort> {
        self.access(bucket)?;
        self.pages.write(bucket, at, bytes)
    }
    fn copy_within(
        &mut self,
        bucket: BucketId,
        from: usize,
        to: usize,
        len: usize,
    ) -> Result<(), Abort> {
        self.access(bucket)?;
        self.pages.copy_within(bucket, from, to, len)
    }
    fn fill(&mut self, bucket: BucketId, at: usize, len: usize, byte: u8) -> Result<(), Abort> {
        self.access(bucket)?;
        self.pages.fill(bucket, at, len, byte)
    }
    fn alloc(&mut self, kind: BucketKind) -> Result<BucketId, Abort> {
        self.access(BucketId(0))?;
        self.pages.alloc(kind)
    }
    fn free(&mut self, bucket: BucketId) -> Result<(), Abort> {
        self.access(bucket)?;
        self.pages.free(bucket)
    }
    fn lift_fingers(&mut self) {
        self.pages.lift_fingers();
    }
}

/// Makes one change again and again, each time with more accesses before a fault, until it ends; keeps what the last run did.
pub(crate) fn rerun_with_faults<M: Clone>(
    random: &mut Random,
    pages: &mut MemoryPages,
    model: &mut M,
    mut change: impl FnMut(&mut Random, &mut Faulty, &mut M) -> Result<(), Abort>,
) {
    let mut patience = random.below(40);
    let (random_before, model_before) = (random.clone(), model.clone());
    loop {
        let mut faulty = Faulty::new(pages.clone(), patience);
        (*random, *model) = (random_before.clone(), model_before.clone());
        match change(random, &mut faulty, model) {
            Ok(()) => {
                *pages = faulty.pages;
                return;
            }
            Err(Abort::Fault(_)) => patience = patience * 2 + 1,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Buckets that `change` touches.
pub(crate) fn touched(
    pages: &mut MemoryPages,
    change: impl FnOnce(&mut Faulty) -> Result<(), Abort>,
) -> usize {
    let mut faulty = Faulty::new(std::mem::take(pages), u64::MAX);
    change(&mut faulty).unwrap();
    *pages = faulty.pages;
    faulty.touched.into_inner().len()
}
