//! Objects of both forms against maps, their reclaim to the last bucket, and what they cost.

use std::collections::BTreeMap;

use daos_types::{ContainerId, Epoch, ObjectClass, ObjectId, ObjectType};

use crate::btree::{Reached, Tree, TreeCheck, TreeCounts};
use crate::flat;
use crate::kv::{Kv, KvMut, MapKv, Pair};
use crate::kv_model::{Mix, change, pairs_of, rerun_with_faults};
use crate::object::{Body, Detached, Object, ObjectHeader, ObjectKey, ObjectTable, Record};
use crate::pages::{Abort, PagesMut};
use crate::reclaim::{Contents, Reclaim};
use crate::testing::{MemoryPages, Random};

const CONTAINER: ContainerId = ContainerId(3);

fn oid(lo: u64) -> ObjectId {
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, lo)
}

/// An object table and a reclaim list.
fn store() -> (MemoryPages, ObjectTable, Reclaim) {
    let mut pages = MemoryPages::new();
    let table = ObjectTable { tree: Tree::create(&mut pages).unwrap() };
    let reclaim = Reclaim { tree: Tree::create(&mut pages).unwrap() };
    (pages, table, reclaim)
}

/// Flat, tree or spread, as the record says.
fn form(pages: &MemoryPages, object: Object, table: ObjectTable) -> usize {
    let record = table.tree.value(pages, object.key().as_bytes()).unwrap().unwrap();
    match Record::parse(record).unwrap().body {
        Body::Flat(_) => 0,
        Body::Tree(_) => 1,
        Body::Spread => 2,
    }
}

fn is_flat(pages: &MemoryPages, object: Object, table: ObjectTable) -> bool {
    form(pages, object, table) == 0
}

/// Every bucket is reached once from the table and the objects' trees (the reclaim list being empty).
fn check(pages: &MemoryPages, table: ObjectTable, reclaim: Reclaim) -> TreeCounts {
    let mut reached = Reached::default();
    let mut trees = vec![reclaim.tree];
    let mut spread = None;
    let mut counts = TreeCheck::new(table.tree, "objects");
    counts
        .run(pages, &mut reached, &mut |key, value| {
            let (key, rest) = ObjectKey::split(key).unwrap();
            if !rest.is_empty() {
                assert_eq!(spread, Some(key), "its record is before it");
                return;
            }
            spread = None;
            match Record::parse(value).unwrap().body {
                Body::Flat(run) => flat::verify(run).unwrap(),
                Body::Tree(tree) => trees.push(tree),
                Body::Spread => spread = Some(key),
            }
        })
        .unwrap();
    let mut findings = counts.findings;
    for tree in trees {
        let mut check = TreeCheck::new(tree, "object");
        check.run(pages, &mut reached, &mut |_, _| ()).unwrap();
        findings.extend(check.findings);
    }
    findings.extend(reached.compare(pages.live()));
    assert!(findings.is_empty(), "{findings:?}");
    counts.counts
}

#[test]
fn objects_equal_maps_over_random_changes() {
    let mut forms = [0; 3];
    for seed in 0..10 {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let (mut pages, table, reclaim) = store();
        let mut models: BTreeMap<u64, MapKv> = BTreeMap::new();
        for step in 0..4000 {
            let lo = random.below(12);
            let object = table.object(CONTAINER, oid(lo), 0);
            if random.below(60) == 0 {
                let detached = object.detach(&mut pages, reclaim, 20).unwrap();
                let model = models.remove(&lo);
                assert_eq!(detached == Detached::Absent, model.is_none());
                let found = drain(&mut pages, table, reclaim, 13, detached);
                let expected = model.map_or(vec![], |model| model.into_iter().collect());
                assert_eq!(found, expected);
                continue;
            }
            let mix = Mix { grow: true, value_max: if lo < 6 { 60 } else { 2000 } };
            if models.contains_key(&lo) || random.below(2) == 0 {
                assert_eq!(object.create(&mut pages).unwrap(), !models.contains_key(&lo));
                let model = models.entry(lo).or_default();
                change(&mut random, mix, &mut object.edit(&mut pages), model).unwrap();
                assert_eq!(pairs_of(&object.view(&pages).unwrap()), pairs_of(model));
                forms[form(&pages, object, table)] += 1;
                if lo % 3 == 0 && random.below(9) == 0 {
                    object.make_tree(&mut pages).unwrap();
                }
            } else {
                assert_eq!(pairs_of(&object.view(&pages).unwrap()), []);
                assert_eq!(object.header(&pages).unwrap(), None);
            }
            if step % 100 == 0 {
                check(&pages, table, reclaim);
            }
        }
        for &lo in models.keys() {
            table.object(CONTAINER, oid(lo), 0).detach(&mut pages, reclaim, 0).unwrap();
        }
        let found = drain(&mut pages, table, reclaim, 50, Detached::Absent);
        assert_eq!(found.len(), models.values().map(BTreeMap::len).sum::<usize>());
        assert_eq!(check(&pages, table, reclaim).pairs, 0);
    }
    assert!(forms.iter().all(|seen| *seen > 1000), "flat, tree, spread: {forms:?}");
}

/// What was detached at once, and all that the reclaim list gives.
fn drain(
    pages: &mut MemoryPages,
    table: ObjectTable,
    reclaim: Reclaim,
    max: usize,
    detached: Detached,
) -> Vec<Pair> {
    let mut found = match detached {
        Detached::Gone { pairs, .. } => pairs,
        Detached::Absent => Vec::new(),
    };
    while let Some(reclaimed) = reclaim.step(pages, table, max).unwrap() {
        assert!(reclaimed.pairs.len() <= max);
        assert_eq!(reclaimed.contents, Contents::Object);
        found.extend(reclaimed.pairs);
    }
    // Those of a spread object have its key before their own.
    for (key, _) in &mut found {
        if key.starts_with(&CONTAINER.0.to_be_bytes()) {
            key.drain(..22);
        }
    }
    found.sort();
    found
}

#[test]
fn an_object_changed_among_faults_is_the_same() {
    let mut random = Random::new(77);
    let (mut pages, table, reclaim) = store();
    let mut model = MapKv::new();
    let object = table.object(CONTAINER, oid(1), 0);
    object.create(&mut pages).unwrap();
    for step in 0..600 {
        let mix = Mix { grow: step % 200 < 150, value_max: 200 };
        rerun_with_faults(&mut random, &mut pages, &mut model, |random, pages, model| {
            change(random, mix, &mut object.edit(pages), model)
        });
        check(&pages, table, reclaim);
    }
    assert_eq!(pairs_of(&object.view(&pages).unwrap()), pairs_of(&model));
}

#[test]
fn a_header_is_changed_in_place() {
    let (mut pages, table, _) = store();
    let object = table.object(CONTAINER, oid(9), 1);
    let header = ObjectHeader { data_epoch: Epoch(1 << 60), stored_bytes: 8192 };
    object.set_header(&mut pages, header).unwrap();
    assert_eq!(object.header(&pages).unwrap(), Some(header));
    object.edit(&mut pages).put(b"k", b"v").unwrap();
    let before = pages.redo_bytes;
    let header = ObjectHeader { data_epoch: Epoch((1 << 60) + 77), stored_bytes: 8192 };
    object.set_header(&mut pages, header).unwrap();
    assert!(pages.redo_bytes - before <= 10, "{}", pages.redo_bytes - before);
    assert_eq!(object.header(&pages).unwrap(), Some(header));
    assert_eq!(object.view(&pages).unwrap().get(b"k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn a_container_is_listed_and_destroyed_by_itself() {
    let (mut pages, table, reclaim) = store();
    let neighbours = [ContainerId(2), ContainerId(4)];
    for container in [CONTAINER, neighbours[0], neighbours[1]] {
        for lo in 0..300 {
            let object = table.object(container, oid(lo), 0);
            for number in 0..if lo == 7 { 900_u64 } else { 3 } {
                object.edit(&mut pages).put(&number.to_be_bytes(), &[1; 40]).unwrap();
            }
        }
    }
    let all = table.list(&pages, CONTAINER, None, 1000).unwrap();
    assert_eq!(all.len(), 300);
    assert!(all.iter().zip(0..).all(|((key, _), lo)| key.oid() == oid(lo) && key.shard() == 0));
    let some = table.list(&pages, CONTAINER, Some(all[249].0), 20).unwrap();
    assert_eq!(some[..], all[250..270]);

    let before = pages.redo_bytes;
    reclaim.add_container(&mut pages, CONTAINER).unwrap();
    assert!(pages.redo_bytes - before < 100);
    assert!(reclaim.holds_container(&pages, CONTAINER).unwrap());
    let found = drain(&mut pages, table, reclaim, 64, Detached::Absent);
    assert_eq!(found.len(), 299 * 3 + 900);
    assert!(!reclaim.holds_container(&pages, CONTAINER).unwrap());
    assert_eq!(table.list(&pages, CONTAINER, None, 1000).unwrap(), []);
    for container in neighbours {
        assert_eq!(table.list(&pages, container, None, 1000).unwrap().len(), 300);
    }
    check(&pages, table, reclaim);
}

#[test]
fn a_long_object_is_truncated_at_once() {
    let (mut pages, table, reclaim) = store();
    let object = table.object(CONTAINER, oid(1), 0);
    for number in 0..30_000_u64 {
        object.edit(&mut pages).put(&number.to_be_bytes(), &[1; 40]).unwrap();
    }
    let before = pages.redo_bytes;
    let from = 1000_u64.to_be_bytes();
    object.detach_range(&mut pages, reclaim, &from, None).unwrap();
    // What the leaves at both ends have of it is written again.
    assert!(pages.redo_bytes - before < 32_000, "{}", pages.redo_bytes - before);
    assert_eq!(pairs_of(&object.view(&pages).unwrap()).len(), 1000);
    let removed = drain(&mut pages, table, reclaim, 100, Detached::Absent);
    assert_eq!(removed.len(), 29_000);
    check(&pages, table, reclaim);

    let small = table.object(CONTAINER, oid(2), 0);
    for number in 0..9_u64 {
        small.edit(&mut pages).put(&number.to_be_bytes(), &[1; 40]).unwrap();
    }
    let to = 7_u64.to_be_bytes();
    small.detach_range(&mut pages, reclaim, &3_u64.to_be_bytes(), Some(&to)).unwrap();
    let step = reclaim.step(&mut pages, table, 9).unwrap().unwrap();
    assert_eq!(step.pairs.len(), 4);
    assert_eq!(pairs_of(&small.view(&pages).unwrap()).len(), 5);
    check(&pages, table, reclaim);
}

/// Records of a value of `len` bytes with what the semantics put before it: epoch and kind.
fn record(len: usize) -> Vec<u8> {
    vec![0xa5; 9 + len]
}

#[test]
fn small_files_and_their_entries_stay_within_their_budget() {
    const FILES: u64 = 3000;
    let (mut pages, table, reclaim) = store();
    let directory = table.object(CONTAINER, oid(0), 0);
    let mut random = Random::new(4);
    let mut redo_bytes = 0;
    for number in 1..=FILES {
        let before = pages.redo_bytes;
        // The entry: its name, and its inode record of 160 bytes.
        let order = (random.next() >> 1).to_be_bytes();
        let name = format!("file-{number:05}");
        let mut entries = directory.edit(&mut pages);
        entries.put(&[&order[..], &[0]].concat(), name.as_bytes()).unwrap();
        let inode = [&order[..], &[1, 0, 9], b"DFS_INODE", &[0]].concat();
        entries.put(&inode, &record(160)).unwrap();
        // The file: a back pointer, then one block.
        let id = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, number);
        let file = table.object(CONTAINER, id, 0);
        let back = [&0_u64.to_be_bytes()[..], &[1, 0, 1], b"p", &[0]].concat();
        file.edit(&mut pages).put(&back, &record(8 + name.len())).unwrap();
        let chunk = &1_u64.to_be_bytes();
        let extent = [&chunk[..], &[1, 0, 1], b"0", &[1], &[0; 8]].concat();
        file.edit(&mut pages).put(&extent, &record(4 + 6 + 4)).unwrap();
        let header = ObjectHeader { data_epoch: Epoch(number), stored_bytes: 4096 };
        file.set_header(&mut pages, header).unwrap();
        redo_bytes += pages.redo_bytes - before;
    }
    check(&pages, table, reclaim);
    // The files alone: what their pairs are in the table without the directory's.
    let whole = pages.live().count() as u64;
    directory.detach(&mut pages, reclaim, 0).unwrap();
    drain(&mut pages, table, reclaim, 50, Detached::Absent);
    let per_object = pages.live().count() as u64 * 16384 / FILES;
    let both = whole * 16384 / FILES;
    eprintln!(
        "{per_object} bytes per object, {both} with its entry, {} of redo",
        redo_bytes / FILES as usize
    );
    assert!(per_object <= 150, "{per_object} bytes of buckets per object");
    assert!(both <= 450, "{both} bytes of buckets per object and entry");
    assert!(redo_bytes / (FILES as usize) <= 1200, "{}", redo_bytes / FILES as usize);
}

/// Bytes of a file of 4 KiB with its entry and its part of the directory, in directories of so many, of which so many are filled
/// at the same time.
fn bytes_per_file(files_per_directory: u64, at_once: u64) -> u64 {
    const FILES: u64 = 6000;
    let (mut pages, table, reclaim) = store();
    // Another container is behind this one.
    table.object(ContainerId(CONTAINER.0 + 1), oid(0), 0).create(&mut pages).unwrap();
    let mut random = Random::new(files_per_directory);
    let root = table.object(CONTAINER, oid(0), 0);
    let enter = |pages: &mut MemoryPages, directory: Object, random: &mut Random, name: &str| {
        let order = (random.next() >> 1).to_be_bytes();
        let mut entries = directory.edit(pages);
        entries.put(&[&order[..], &[0]].concat(), &record(name.len())).unwrap();
        let inode = [&order[..], &[1, 0, 9], b"DFS_INODE", &[0]].concat();
        entries.put(&inode, &record(160)).unwrap();
        let header =
            ObjectHeader { data_epoch: Epoch(random.next()), stored_bytes: random.below(1 << 40) };
        directory.set_header(pages, header).unwrap();
    };
    let (group, mut log_max) = (files_per_directory * at_once, 0);
    let files = FILES / group * group;
    for number in 0..files {
        let before = pages.redo_bytes;
        let parent = number / group * at_once + number % at_once + 1;
        let directory = table.object(CONTAINER, oid(parent), 0);
        if number % group < at_once {
            enter(&mut pages, root, &mut random, &format!("directory-{parent:05}"));
        }
        let name = format!("file-{number:05}");
        enter(&mut pages, directory, &mut random, &name);
        // The file: a back pointer, then one block.
        let id = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, number);
        let file = table.object(CONTAINER, id, 0);
        let back = [&0_u64.to_be_bytes()[..], &[1, 0, 1], b"p", &[0]].concat();
        file.edit(&mut pages).put(&back, &record(8 + name.len())).unwrap();
        let chunk = &1_u64.to_be_bytes();
        let extent = [&chunk[..], &[1, 0, 1], b"0", &[1], &[0; 8]].concat();
        file.edit(&mut pages).put(&extent, &record(4 + 6 + 4)).unwrap();
        let header = ObjectHeader { data_epoch: Epoch(number), stored_bytes: 4096 };
        file.set_header(&mut pages, header).unwrap();
        log_max = log_max.max(pages.redo_bytes - before);
    }
    // All of it can be one transaction, whose record has at most 128 KiB.
    assert!(log_max <= 64 << 10, "{log_max} bytes of log");
    let fill = check(&pages, table, reclaim).fill_percent();
    let log = pages.redo_bytes as u64 / files;
    eprintln!(
        "{files_per_directory} files, {at_once} at once: {log} bytes of log, at most {log_max}, {fill} % full"
    );
    pages.live().count() as u64 * 16384 / files
}

#[test]
fn files_stay_within_their_budget_however_many_a_directory_has() {
    let sizes = [8, 12, 16, 20, 24, 32, 40, 50, 64, 75, 100, 128, 200, 300, 500, 1000];
    for at_once in [1, 3] {
        let bytes = sizes.map(|size| (size, bytes_per_file(size, at_once)));
        eprintln!("{at_once} at once: {bytes:?}");
        for (size, bytes) in bytes {
            assert!(bytes <= 450, "{bytes} bytes with {size} files per directory");
        }
    }
}

#[test]
fn oversized_pairs_are_refused_before_anything_changes() {
    let (mut pages, table, reclaim) = store();
    let object = table.object(CONTAINER, oid(1), 0);
    let refused = object.edit(&mut pages).put(b"k", &[0; 4097]);
    assert!(matches!(refused, Err(Abort::Error(_))));
    assert_eq!(object.header(&pages).unwrap(), None);
    // The largest that is not refused lies behind the record.
    object.edit(&mut pages).put(b"k", &[0; 4096]).unwrap();
    assert!(!is_flat(&pages, object, table));
    pages.fill(table.tree.root, 16000, 0, 0).unwrap();
    check(&pages, table, reclaim);
}
