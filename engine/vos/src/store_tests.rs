//! Trees and objects over a real store with the least memory: evicted, reloaded, rerun, replayed, checked.

use std::cell::RefCell;
use std::rc::Rc;

use daos_media::MemDevice;
use daos_types::{ContainerId, ObjectClass, ObjectId, ObjectType, StoreId};
use daos_xstream::{Handle, sim};

use crate::btree::{Reached, Tree, TreeCheck};
use crate::flat;
use crate::kv::{Kv, MapKv, Pair};
use crate::kv_model::{Mix, change, pairs_of};
use crate::object::{Body, Object, ObjectKey, ObjectTable, Record};
use crate::pages::{Abort, BUCKET_HEADER_BYTES, BucketId, Pages, PagesMut};
use crate::reclaim::{Entry, EntryBody, Reclaim, roots as roots_of};
use crate::testing::{self, Random};
use crate::{Claim, FormatOptions, MEMORY_BUCKETS_MIN, Store, Tx, TxOptions};

const DEVICE_BYTES: u64 = 64 << 20;
const RECLAIM: TxOptions = TxOptions { claim: Claim::GiveBack, background: true };

async fn open(device: &Rc<MemDevice>, handle: &Handle) -> Store {
    Store::open(device.clone(), handle.clone(), testing::options(MEMORY_BUCKETS_MIN)).await.unwrap()
}

/// A store with an object table and a reclaim list, whose roots stand in the root bucket.
async fn fresh(handle: &Handle) -> (Rc<MemDevice>, Store) {
    let device = MemDevice::new(DEVICE_BYTES);
    let store = StoreId(uuid::Uuid::from_u128(u128::from(handle.random_u64())));
    let options = FormatOptions { store, wal_bytes: Some(1 << 20) };
    Store::format(device.clone(), handle.clone(), options).await.unwrap();
    let store = open(&device, handle).await;
    let root = store.root();
    let make = |tx: &mut Tx<'_>| {
        for at in [0, 4] {
            let tree = Tree::create(tx)?;
            tx.write(root, BUCKET_HEADER_BYTES + at, &tree.root.0.to_le_bytes())?;
        }
        Ok(())
    };
    store.transact(TxOptions::default(), make).await.unwrap();
    (device, store)
}

fn roots<P: Pages>(pages: &P, root: BucketId) -> Result<(ObjectTable, Reclaim), Abort> {
    let page = pages.page(root)?;
    let tree = |at: usize| {
        let at = BUCKET_HEADER_BYTES + at;
        let root = page[at..at + 4].try_into().expect("4 bytes");
        Tree { root: BucketId(u32::from_le_bytes(root)) }
    };
    Ok((ObjectTable { tree: tree(0) }, Reclaim { tree: tree(4) }))
}

fn object(table: ObjectTable, lo: u64) -> Object {
    table.object(ContainerId(1), ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, lo), 0)
}

/// One random change of an object and its model, in a transaction of its own.
async fn change_once(store: &Store, random: &mut Random, mix: Mix, (lo, model): (u64, &mut MapKv)) {
    let root = store.root();
    let (random_before, model_before) = (random.clone(), model.clone());
    let run = |tx: &mut Tx<'_>| {
        *random = random_before.clone();
        *model = model_before.clone();
        let (table, _) = roots(tx, root)?;
        if lo % 3 == 0 {
            // As a store of version 4 has it.
            object(table, lo).make_tree(tx)?;
        }
        change(random, mix, &mut object(table, lo).edit(tx), model)
    };
    let lsn = store.transact(TxOptions::default(), run).await.unwrap().lsn;
    if random.below(10) == 0 {
        store.acknowledged(lsn).await.unwrap();
    }
}

/// Compares every object with its model, a part in each view: all of one may be more than the memory holds.
async fn compare(store: &Store, models: &[Rc<RefCell<MapKv>>]) {
    let root = store.root();
    for (lo, model) in models.iter().enumerate() {
        let (mut from, mut found) = (Vec::new(), Vec::new());
        loop {
            let some = store.view(|view| {
                let (table, _) = roots(view, root)?;
                object(table, lo as u64).view(view)?.range(&from, None, 20)
            });
            let (some, _) = some.await.unwrap();
            let Some((last, _)) = some.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            found.extend(some);
        }
        assert_eq!(found, pairs_of(&*model.borrow()), "object {lo}");
    }
}

/// Walks all trees, each bucket in a view of its own; the number of pairs of objects, and of buckets.
async fn check(store: &Store) -> (usize, usize) {
    let root = store.root();
    let ((table, reclaim), _) = store.view(|view| roots(view, root)).await.unwrap();
    let mut reached = Reached::default();
    let (mut trees, mut pairs) = (Vec::new(), 0);
    let objects = walk(store, table.tree, &mut reached).await;
    for (key, value) in objects {
        let (_, rest) = ObjectKey::split(&key).unwrap();
        if !rest.is_empty() {
            pairs += 1;
            continue;
        }
        match Record::parse(&value).unwrap().body {
            Body::Spread => {}
            Body::Tree(tree) => trees.push(tree),
            Body::Flat(run) => {
                flat::verify(run).unwrap();
                pairs += flat::count(run);
            }
        }
    }
    for (_, value) in walk(store, reclaim.tree, &mut reached).await {
        match Entry::parse(&value).unwrap().body {
            EntryBody::Trees(roots) => trees.extend(roots_of(roots)),
            EntryBody::Run(run) => pairs += flat::count(run),
            EntryBody::Container(_) => {}
        }
    }
    for tree in trees {
        pairs += walk(store, tree, &mut reached).await.len();
    }
    (pairs, reached.len())
}

async fn walk(store: &Store, tree: Tree, reached: &mut Reached) -> Vec<Pair> {
    let mut check = TreeCheck::new(tree, "tree");
    let mut pairs = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| pairs.push((key.to_vec(), value.to_vec()));
    while store.view(|view| check.step(view, reached, &mut visit)).await.unwrap().0 {}
    assert_eq!(check.findings, [""; 0]);
    pairs
}

async fn reclaim_all(store: &Store, pairs_max: usize) -> usize {
    let root = store.root();
    let mut pairs = 0;
    loop {
        let step = |tx: &mut Tx<'_>| {
            let (table, reclaim) = roots(tx, root)?;
            reclaim.step(tx, table, pairs_max)
        };
        let Some(reclaimed) = store.transact(RECLAIM, step).await.unwrap().value else {
            return pairs;
        };
        pairs += reclaimed.pairs.len();
    }
}

#[test]
fn objects_equal_maps_with_the_least_memory_and_after_crashes() {
    const OBJECTS: u64 = 6;
    for seed in 0..2 {
        eprintln!("seed {seed}");
        sim::run(seed, move |handle| async move {
            let (mut device, mut store) = fresh(&handle).await;
            let (_, buckets_at_first) = check(&store).await;
            store.force().await.unwrap();
            let free_at_first = store.space().free_blocks;
            let models: Vec<_> =
                (0..OBJECTS).map(|_| Rc::new(RefCell::new(MapKv::new()))).collect();
            for round in 0..4 {
                // Every object has a task that changes it; they compete for the memory.
                let tasks: Vec<_> = (0..OBJECTS)
                    .map(|lo| {
                        let (store, model) = (store.clone(), models[lo as usize].clone());
                        handle.spawn(async move {
                            let mut random = Random::new(seed * 1000 + round * 100 + lo);
                            for step in 0..180 {
                                let value_max = if lo < 2 { 60 } else { 1500 };
                                let mix = Mix { grow: step < 150, value_max };
                                let mut now = model.borrow().clone();
                                change_once(&store, &mut random, mix, (lo, &mut now)).await;
                                *model.borrow_mut() = now;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
                store.acknowledged(store.newest()).await.unwrap();
                if round % 2 == 0 {
                    // What is there at this moment is what a dead process leaves: its tasks would go on.
                    device = device.copy();
                    drop(store);
                } else {
                    store.stop().await.unwrap();
                }
                store = open(&device, &handle).await;
                compare(&store, &models).await;
                let pairs = models.iter().map(|model| model.borrow().len()).sum::<usize>();
                let (found, buckets) = check(&store).await;
                assert_eq!(found, pairs);
                assert!(round < 3 || buckets > 50, "{buckets} buckets are no challenge");
            }

            let root = store.root();
            for lo in 0..OBJECTS {
                let detach = |tx: &mut Tx<'_>| {
                    let (table, reclaim) = roots(tx, root)?;
                    object(table, lo).detach(tx, reclaim, 0)
                };
                store.transact(RECLAIM, detach).await.unwrap();
            }
            let pairs = models.iter().map(|model| model.borrow().len()).sum::<usize>();
            assert_eq!(check(&store).await.0, pairs);
            assert_eq!(reclaim_all(&store, 10).await, pairs);
            assert_eq!(check(&store).await, (0, buckets_at_first));
            store.force().await.unwrap();
            store.checkpoint().await.unwrap();
            store.checkpoint().await.unwrap();
            assert_eq!(store.space().free_blocks, free_at_first);
            store.stop().await.unwrap();
        });
    }
}
