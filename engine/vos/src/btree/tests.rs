//! Trees against a `BTreeMap` over long random sequences, with faults at any access, and their redo cost.

use super::{Reached, Tree, TreeCheck, TreeCounts};
use crate::kv::{KvMut, MapKv, TREE_KEY_MAX, VALUE_MAX};
use crate::kv_model::{Faulty, Mix, change, pairs_of, rerun_with_faults, touched};
use crate::pages::{Abort, BucketId, Pages, PagesMut};
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
            let mix = Mix { grow: step % 4000 < 2500, value_max: VALUE_MAX };
            change(&mut random, mix, &mut tree.edit(&mut pages), &mut model).unwrap();
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

#[test]
fn a_rerun_after_faults_does_the_same() {
    for seed in 100..104 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let mut pages = MemoryPages::new();
        let tree = Tree::create(&mut pages).unwrap();
        let mut model = MapKv::new();
        for step in 0..900 {
            let mix = Mix { grow: step < 700, value_max: VALUE_MAX };
            rerun_with_faults(&mut random, &mut pages, &mut model, |random, pages, model| {
                change(random, mix, &mut tree.edit(pages), model)
            });
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
fn random_keys_leave_leaves_three_quarters_full() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let mut random = Random::new(5);
    let mut redo_bytes = 0;
    for _ in 0..20_000 {
        let key = [&random.next().to_be_bytes()[..], b"name"].concat();
        redo_bytes += redo(&mut pages, |pages| tree.put(pages, &key, &[9; 100]).unwrap());
    }
    let counts = check(&pages, tree);
    eprintln!("fill {} %, redo {}", counts.fill_percent(), redo_bytes / 20_000);
    assert!(counts.fill_percent() >= 75, "{counts:?}");
    assert!(redo_bytes / 20_000 <= 112 + 200, "{}", redo_bytes / 20_000);
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
fn a_change_touches_few_buckets_however_high_the_tree() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    let mut random = Random::new(8);
    // Separators of 1100 bytes: a fan-out of 14.
    let key = |number: u64| [&[b'k'; 1100][..], &number.to_be_bytes(), &[b'z'; 80]].concat();
    let (mut put_max, mut remove_max) = (0, 0);
    let mut lost = Vec::new();
    for _ in 0..6000 {
        let (key, value) = (key(random.below(4000)), vec![1; random.below(4000) as usize]);
        put_max = put_max.max(touched(&mut pages, |pages| tree.put(pages, &key, &value)));
    }
    let counts = check(&pages, tree);
    assert!(counts.height >= 4, "{counts:?}");
    let mut detach_max = 0;
    for step in 0..200 {
        let from = random.below(4000);
        let range = (key(from), key(from + 1 + random.below(if step < 190 { 20 } else { 300 })));
        let detach = |pages: &mut Faulty| {
            let trees = tree.detach_range(pages, &range.0, Some(&range.1))?;
            lost.extend(trees);
            Ok(())
        };
        detach_max = detach_max.max(touched(&mut pages, detach));
    }
    assert!(detach_max <= 20, "{detach_max}");
    for part in lost {
        while !part.pop_last(&mut pages, 1000).unwrap().is_empty() {}
        pages.free(part.root).unwrap();
    }
    check(&pages, tree);
    for _ in 0..6000 {
        let key = key(random.below(4000));
        let remove = |pages: &mut Faulty| tree.remove(pages, &key).map(|_| ());
        remove_max = remove_max.max(touched(&mut pages, remove));
    }
    check(&pages, tree);
    eprintln!("height {}: {put_max}, {remove_max}, {detach_max}", counts.height);
    assert!(put_max <= 15, "{put_max}");
    assert!(remove_max <= 15, "{remove_max}");
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
        assert!(pages.redo_bytes - cost <= 40_000, "{}", pages.redo_bytes - cost);
        let mut found = Vec::new();
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
fn any_bytes_are_checked_without_a_panic() {
    let mut random = Random::new(21);
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    for number in 0..100_u64 {
        tree.put(&mut pages, &number.to_be_bytes(), &[4; 100]).unwrap();
    }
    for round in 0..3000 {
        // Garbage all over, or a few bytes of it in what was a leaf.
        let mut damaged = pages.clone();
        let writes = if round % 10 == 0 { 4000 } else { 1 + random.below(6) };
        for _ in 0..writes {
            let at = 64 + random.below(if writes > 6 { 16_320 } else { 240 }) as usize;
            damaged.write(tree.root, at, &[random.below(256) as u8]).unwrap();
        }
        // As a leaf: a child that is no bucket would be the store's to refuse.
        damaged.write(tree.root, 64, &[0]).unwrap();
        let mut check = TreeCheck::new(tree, "tree");
        check.run(&damaged, &mut Reached::default(), &mut |_, _| ()).unwrap();
    }
}

#[test]
fn oversized_keys_and_values_are_refused() {
    let mut pages = MemoryPages::new();
    let tree = Tree::create(&mut pages).unwrap();
    for (key, value) in
        [(vec![], vec![]), (vec![1; TREE_KEY_MAX + 1], vec![]), (vec![1], vec![0; VALUE_MAX + 1])]
    {
        assert!(matches!(tree.put(&mut pages, &key, &value), Err(Abort::Error(_))));
    }
    assert!(tree.is_empty(&pages).unwrap());
}
