//! Trees against a `BTreeMap` over long random sequences, with faults at any access, and their redo cost.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::{Reached, Tree, TreeCheck, TreeCounts};
use crate::kv::{KEY_MAX, Kv, KvMut, MapKv, Seek, VALUE_MAX};
use crate::pages::{Abort, BucketId, BucketKind, Pages, PagesMut};
use crate::testing::{MemoryPages, Random};

/// Every node in order, every bucket reached once.
fn check(pages: &MemoryPages, tree: Tree) -> TreeCounts {
    let mut reached = Reached::default();
    let mut check = TreeCheck::new(tree, "tree");
    check.run(pages, &mut reached, &mut |_, _| ()).unwrap();
    check.findings.extend(reached.compare(pages.live()));
    assert!(check.findings.is_empty(), "{:?}", check.findings);
    assert!(check.counts.height <= 5, "height {}", check.counts.height);
    check.counts
}

fn pairs_of(map: &dyn Kv) -> Vec<(Vec<u8>, Vec<u8>)> {
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

fn random_value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => VALUE_MAX as u64,
        1..=3 => random.below(VALUE_MAX as u64),
        4 => 0,
        _ => random.below(150),
    };
    let byte = random.below(3) as u8;
    (0..len).map(|at| if at % 7 == 0 { random.below(4) as u8 } else { byte }).collect()
}

/// One random change, made to both; what they answer is the same.
fn change(
    random: &mut Random,
    grow: bool,
    tree: &mut dyn KvMut,
    model: &mut MapKv,
) -> Result<(), Abort> {
    let key = random_key(random);
    let puts = if grow { 72 } else { 15 };
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
                (random_key(random), random.below(if grow { 8 } else { 40 }) as usize);
            let to = (random.below(3) > 0).then_some(other.as_slice());
            let removed = tree.remove_range(&key, to, max)?;
            assert_eq!(removed, model.remove_range(&key, to, max)?);
            Ok(())
        }
        roll if roll < 19 + puts => {
            let value = random_value(random);
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
fn look(key: &[u8], tree: &dyn Kv, model: &MapKv) -> Result<(), Abort> {
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

#[test]
fn tree_equals_a_map_over_random_changes() {
    let mut height_max = 0;
    for seed in 0..8 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let mut pages = MemoryPages::new();
        let tree = Tree::create(&mut pages).unwrap();
        let mut model = MapKv::new();
        for step in 0..12_000 {
            let grow = step % 4000 < 2500;
            change(&mut random, grow, &mut tree.edit(&mut pages), &mut model).unwrap();
            if step % 100 == 0 {
                let counts = check(&pages, tree);
                height_max = height_max.max(counts.height);
                assert_eq!(counts.pairs, model.len() as u64);
                assert_eq!(pairs_of(&tree.view(&pages)), pairs_of(&model));
            }
        }
        eprintln!("{:?}", check(&pages, tree));
        while let Some(key) = model.keys().nth(model.len() / 2).cloned() {
            assert!(tree.remove(&mut pages, &key).unwrap());
            model.remove(&key);
        }
        let counts = check(&pages, tree);
        assert_eq!((counts.buckets, counts.pairs), (1, 0));
    }
    assert!(height_max >= 3, "the sequences reach height {height_max} only");
}

/// Buckets of which any access may say that it is not resident.
struct Faulty {
    pages: MemoryPages,
    /// Accesses until the next fault.
    left: Cell<u64>,
}

impl Faulty {
    fn access(&self, bucket: BucketId) -> Result<(), Abort> {
        let left = self.left.get();
        if left == 0 {
            return Err(Abort::Fault(bucket));
        }
        self.left.set(left - 1);
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
}

#[test]
fn a_rerun_after_faults_does_the_same() {
    for seed in 100..104 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let mut pages = MemoryPages::new();
        let tree = Tree::create(&mut pages).unwrap();
        let mut model = MapKv::new();
        for step in 0..900 {
            let (before, at_start) = (random.clone(), model.clone());
            let mut patience = random.below(40);
            loop {
                let mut faulty = Faulty { pages: pages.clone(), left: Cell::new(patience) };
                (random, model) = (before.clone(), at_start.clone());
                random.below(40);
                match change(&mut random, step < 700, &mut tree.edit(&mut faulty), &mut model) {
                    Ok(()) => {
                        pages = faulty.pages;
                        break;
                    }
                    Err(Abort::Fault(_)) => patience = patience * 2 + 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            check(&pages, tree);
        }
        assert_eq!(pairs_of(&tree.view(&pages)), pairs_of(&model));
    }
}

/// Redo bytes of what `f` does.
fn redo(pages: &mut MemoryPages, f: impl FnOnce(&mut MemoryPages)) -> usize {
    let before = pages.redo_bytes;
    f(pages);
    pages.redo_bytes - before
}

#[test]
fn appended_keys_fill_their_leaves() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let mut redo_bytes = 0;
    for number in 0..20_000_u64 {
        let key = [&[1; 14][..], &number.to_be_bytes()].concat();
        redo_bytes += redo(&mut pages, |pages| tree.put(pages, &key, &[9; 100]).unwrap());
    }
    let counts = check(&pages, tree);
    assert!(counts.fill_percent() >= 95, "{counts:?}");
    // Bucket bytes per pair of 22 + 100, prefixes truncated.
    let per_pair = counts.buckets * 16384 / 20_000;
    assert!(per_pair <= 120, "{per_pair}");
    assert!(redo_bytes / 20_000 <= 122 + 60, "{}", redo_bytes / 20_000);
}

#[test]
fn random_keys_leave_leaves_two_thirds_full() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let mut random = Random::new(5);
    let mut redo_bytes = 0;
    for _ in 0..20_000 {
        let key = [&random.next().to_be_bytes()[..], b"name"].concat();
        redo_bytes += redo(&mut pages, |pages| tree.put(pages, &key, &[9; 100]).unwrap());
    }
    let counts = check(&pages, tree);
    assert!(counts.fill_percent() >= 65, "{counts:?}");
    assert!(redo_bytes / 20_000 <= 112 + 160, "{}", redo_bytes / 20_000);
}

#[test]
fn changes_log_little_more_than_their_bytes() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let key = |number: u64| (number * 7919 % 90).to_be_bytes();
    for number in 0..80 {
        tree.put(&mut pages, &key(number), &[1; 100]).unwrap();
    }
    let cost = redo(&mut pages, |pages| tree.put(pages, &key(80), &[1; 100]).unwrap());
    assert!(cost <= 108 + 60, "insert {cost}");
    let cost = redo(&mut pages, |pages| {
        tree.edit(pages).patch(&key(40), 50, b"abcdefgh").unwrap();
    });
    assert!(cost <= 8 + 16, "patch {cost}");
    let mut value = vec![1; 100];
    value[30] = 7;
    let cost = redo(&mut pages, |pages| tree.put(pages, &key(41), &value).unwrap());
    assert!(cost <= 1 + 16, "replace by a value of the same length {cost}");
    let cost = redo(&mut pages, |pages| tree.splice(pages, &key(80), 60, 0, &[5; 40]).unwrap());
    assert!(cost <= 40 + 60, "growth of the newest value {cost}");
    let cost = redo(&mut pages, |pages| tree.splice(pages, &key(3), 60, 0, &[5; 40]).unwrap());
    assert!(cost <= 40 + 60 + 2 * 81, "growth of an old value {cost}");
    let cost = redo(&mut pages, |pages| assert!(tree.remove(pages, &key(5)).unwrap()));
    assert!(cost <= 60 + 2 * 81, "removal {cost}");
    check(&pages, tree);
}

#[test]
fn removals_give_buckets_back() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let mut random = Random::new(6);
    let keys: Vec<_> = (0..5000).map(|_| random.next().to_be_bytes()).collect();
    for key in &keys {
        tree.put(&mut pages, key, &[3; 60]).unwrap();
    }
    let full = check(&pages, tree).buckets;
    for key in &keys[..4500] {
        assert!(tree.remove(&mut pages, key).unwrap());
    }
    let left = check(&pages, tree).buckets;
    assert!(left <= full / 4, "{left} of {full} buckets for a tenth of the keys");
    for key in &keys[4500..] {
        assert!(tree.remove(&mut pages, key).unwrap());
    }
    assert_eq!(check(&pages, tree).buckets, 1);
}

#[test]
fn detached_ranges_hold_what_is_missing() {
    for seed in 0..30 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let mut pages = MemoryPages::new();
        let tree = Tree::create(&mut pages).unwrap();
        let mut model = MapKv::new();
        for _ in 0..3000 {
            let key = random.below(10_000).to_be_bytes();
            tree.put(&mut pages, &key, &[1; 200]).unwrap();
            model.put(&key, &[1; 200]).unwrap();
        }
        let (a, b) = (random.below(10_000), random.below(10_000));
        let from = a.min(b).to_be_bytes();
        let to = (seed % 3 > 0).then(|| a.max(b).to_be_bytes());
        let to = to.as_ref().map(<[u8; 8]>::as_slice);
        let expected = model.remove_range(&from, to, usize::MAX).unwrap();

        let cost = pages.redo_bytes;
        let detached = tree.detach_range(&mut pages, &from, to).unwrap();
        assert!(pages.redo_bytes - cost <= 16_000);
        let mut found = tree.remove_range(&mut pages, &from, to, 250).unwrap();
        assert!(found.len() < 250, "two leaves at most are left");
        for part in detached {
            loop {
                let pairs = part.pop_last(&mut pages, 7).unwrap();
                if pairs.is_empty() {
                    break;
                }
                found.extend(pairs);
            }
            pages.free(part.root).unwrap();
        }
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(pairs_of(&tree.view(&pages)), pairs_of(&model));
        check(&pages, tree);
    }
}

#[test]
fn a_damaged_node_is_a_finding() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    for number in 0..1000_u64 {
        tree.put(&mut pages, &number.to_be_bytes(), &[4; 100]).unwrap();
    }
    let findings = |damage: &dyn Fn(&mut MemoryPages, BucketId)| {
        let mut damaged = pages.clone();
        let leaf = pages.live().find(|bucket| pages.page(*bucket).unwrap()[64] == 0).unwrap();
        damage(&mut damaged, leaf);
        let mut check = TreeCheck::new(tree, "tree");
        check.run(&damaged, &mut Reached::default(), &mut |_, _| ()).unwrap();
        check.findings.len()
    };
    assert_eq!(findings(&|_, _| ()), 0);
    // FORMAT.md, "Tree node": level, prefix length, count, heap; then prefix and slots.
    for at in [64, 66, 67, 68, 69, 70, 71] {
        let damage = |pages: &mut MemoryPages, leaf: BucketId| {
            let byte = pages.page(leaf).unwrap()[at];
            pages.write(leaf, at, &[byte ^ 0x15]).unwrap();
        };
        assert_eq!(findings(&damage), 1, "byte {at}");
    }
    let swap = |pages: &mut MemoryPages, leaf: BucketId| {
        let page = pages.page(leaf).unwrap();
        let slots = 72 + usize::from(page[66]);
        let swapped = [page[slots + 2], page[slots + 3], page[slots], page[slots + 1]];
        pages.write(leaf, slots, &swapped).unwrap();
    };
    assert_eq!(findings(&swap), 1);
}

#[test]
fn oversized_keys_and_values_are_refused() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    for (key, value) in
        [(vec![], vec![]), (vec![1; KEY_MAX + 1], vec![]), (vec![1], vec![0; VALUE_MAX + 1])]
    {
        assert!(matches!(tree.put(&mut pages, &key, &value), Err(Abort::Error(_))));
    }
    assert!(tree.is_empty(&pages).unwrap());
}
