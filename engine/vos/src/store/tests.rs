//! The store as a whole, on devices that behave.

use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use ::bytes::Bytes;
use daos_media::{Device, FaultDevice, How, IoBuf, MemDevice};
use daos_types::{BLOCK_BYTES, Error, StoreId, TargetId};
use daos_xstream::{Handle, sim};

use super::*;
use crate::pages::{Abort, BucketId, BucketKind, Pages, PagesMut};

const DEVICE_BYTES: u64 = 48 << 20;

pub(super) fn options(sync: Sync) -> OpenOptions {
    OpenOptions { target: TargetId(0), memory_buckets: 64, sync, read_only: false }
}

pub(super) async fn format(device: &Rc<dyn Device>, handle: &Handle) {
    let store = StoreId(uuid::Uuid::from_u128(u128::from(handle.random_u64())));
    let options = FormatOptions { store, wal_bytes: Some(1 << 20) };
    Store::format(device.clone(), handle.clone(), options).await.unwrap();
}

/// A new device with an open store.
async fn fresh(handle: &Handle, sync: Sync) -> (Rc<dyn Device>, Store) {
    let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
    format(&device, handle).await;
    let store = Store::open(device.clone(), handle.clone(), options(sync)).await.unwrap();
    (device, store)
}

/// As `fresh`, over faults that the test aims.
async fn faulty(handle: &Handle, seed: u64, sync: Sync) -> (Rc<FaultDevice>, Store) {
    faulty_of(DEVICE_BYTES, handle, seed, sync).await
}

async fn faulty_of(bytes: u64, handle: &Handle, seed: u64, sync: Sync) -> (Rc<FaultDevice>, Store) {
    let inner: Rc<dyn Device> = MemDevice::new(bytes);
    format(&inner, handle).await;
    let device = FaultDevice::new(inner, handle.clone(), seed);
    let store = Store::open(device.clone(), handle.clone(), options(sync)).await.unwrap();
    (device, store)
}

async fn reopen(device: &Rc<dyn Device>, handle: &Handle) -> Store {
    Store::open(device.clone(), handle.clone(), options(Sync::Posix)).await.unwrap()
}

async fn put(store: &Store, bucket: BucketId, at: usize, bytes: &[u8]) -> Lsn {
    let put = |tx: &mut Tx<'_>| tx.write(bucket, at, bytes);
    store.transact(TxOptions::default(), put).await.unwrap().lsn
}

async fn get(store: &Store, bucket: BucketId, at: usize, len: usize) -> Vec<u8> {
    store.view(|view| Ok(view.page(bucket)?[at..at + len].to_vec())).await.unwrap().0
}

fn counter(store: &Store, name: &str) -> u64 {
    store.counters().iter().find(|(other, _)| *other == name).unwrap().1
}

#[test]
fn what_was_stopped_is_there_again_without_replay() {
    sim::run(1, |handle| async move {
        let (device, store) = fresh(&handle, Sync::Posix).await;
        let root = store.root();
        let made = store
            .transact(TxOptions::default(), |tx| {
                let bucket = tx.alloc(BucketKind::Node)?;
                tx.write(bucket, 1000, b"hello")?;
                tx.copy_within(bucket, 1000, 2000, 5)?;
                tx.write(root, 64, &bucket.0.to_le_bytes())?;
                Ok(bucket)
            })
            .await
            .unwrap();
        store.acknowledged(made.lsn).await.unwrap();
        store.stop().await.unwrap();
        let store = reopen(&device, &handle).await;
        assert_eq!(get(&store, made.value, 2000, 5).await, b"hello");
        assert_eq!(counter(&store, "records_replayed"), 0);
        let kind = store.view(|view| view.kind(made.value)).await.unwrap().0;
        assert_eq!(kind, BucketKind::Node);
    });
}

#[test]
fn what_was_acknowledged_survives_the_process() {
    for sync in [Sync::Posix, Sync::Always] {
        sim::run(2, move |handle| async move {
            let (device, store) = fresh(&handle, sync).await;
            let root = store.root();
            for index in 0..200_u64 {
                let lsn = put(&store, root, 64 + index as usize * 8, &index.to_le_bytes()).await;
                store.acknowledged(lsn).await.unwrap();
            }
            drop(store);
            let store = reopen(&device, &handle).await;
            for index in 0..200_u64 {
                let found = get(&store, root, 64 + index as usize * 8, 8).await;
                assert_eq!(found, index.to_le_bytes());
            }
            assert!(counter(&store, "records_replayed") > 0);
        });
    }
}

#[test]
fn an_aborted_run_leaves_nothing() {
    sim::run(3, |handle| async move {
        let (_, store) = fresh(&handle, Sync::Posix).await;
        let root = store.root();
        put(&store, root, 64, b"before").await;
        let (space, newest) = (store.space(), store.newest());
        let error = store
            .transact(TxOptions::default(), |tx| {
                tx.write(root, 64, b"after!")?;
                tx.fill(root, 66, 2, b'x')?;
                tx.copy_within(root, 64, 65, 4)?;
                let bucket = tx.alloc(BucketKind::Node)?;
                tx.write(bucket, 64, b"lost")?;
                tx.free(bucket)?;
                Err::<(), _>(Abort::Error(Error::Invalid("on purpose")))
            })
            .await
            .unwrap_err();
        assert_eq!(error, Error::Invalid("on purpose"));
        assert_eq!(get(&store, root, 64, 6).await, b"before");
        assert_eq!((store.space(), store.newest()), (space, newest));
    });
}

#[test]
fn more_buckets_than_memory_are_evicted_and_come_back() {
    for seed in 0..5 {
        sim::run(seed, |handle| async move {
            let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
            format(&device, &handle).await;
            let small = OpenOptions { memory_buckets: 32, ..options(Sync::Posix) };
            let store = Store::open(device.clone(), handle.clone(), small).await.unwrap();
            let mut buckets = Vec::new();
            for index in 0..300_u64 {
                let made = store.transact(TxOptions::default(), |tx| {
                    let bucket = tx.alloc(BucketKind::Node)?;
                    tx.write(bucket, 64, &index.to_le_bytes())?;
                    Ok(bucket)
                });
                buckets.push(made.await.unwrap().value);
            }
            // Several operations at once, each over more buckets than can stay.
            let tasks: Vec<_> = (0..4)
                .map(|task| {
                    let (store, buckets) = (store.clone(), buckets.clone());
                    handle.spawn(async move {
                        for step in 0..20 {
                            let some: Vec<_> = (0..20)
                                .map(|n| buckets[(n * 13 + step * 7 + task) % 300])
                                .collect();
                            let done = store.transact(TxOptions::default(), |tx| {
                                for bucket in &some {
                                    let at = 100 + task * 8;
                                    tx.write(*bucket, at, &(step as u64).to_le_bytes())?;
                                }
                                Ok(())
                            });
                            done.await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            assert!(counter(&store, "buckets_resident") <= 32);
            assert!(counter(&store, "buckets_evicted") > 500);
            drop(store);
            let store = reopen(&device, &handle).await;
            for (index, bucket) in buckets.iter().enumerate() {
                let found = get(&store, *bucket, 64, 8).await;
                assert_eq!(found, (index as u64).to_le_bytes());
            }
        });
    }
}

#[test]
fn data_is_read_from_its_buffer_then_from_the_device_and_verified() {
    sim::run(4, |handle| async move {
        let (device, store) = faulty(&handle, 4, Sync::Always).await;
        device.set_latency_max(Duration::from_millis(2));
        let reservation = store.reserve(3, TxOptions::default()).await.unwrap();
        let run = reservation.runs()[0];
        assert_eq!(run.blocks, 3);
        let data = Bytes::from((0..3 * BLOCK_BYTES).map(|n| (n / 7) as u8).collect::<Vec<_>>());
        let write = store.write_data(run, data.clone()).unwrap();
        assert_eq!(store.read_data(run.addr, write.csums()).await.unwrap(), data);
        let done = store
            .transact(TxOptions::default(), |tx| {
                tx.publish(&reservation, run)?;
                tx.depend(&write);
                Ok(())
            })
            .await
            .unwrap();
        store.acknowledged(done.lsn).await.unwrap();
        drop(reservation);
        assert_eq!(counter(&store, "data_writes_in_flight"), 0);
        let second = BlockAddr(run.addr.0 + 1);
        let found = store.read_data(second, &write.csums()[1..]).await.unwrap();
        assert_eq!(found, data[BLOCK_BYTES..]);
        device.rot(second.byte_address() + 5, 1).await.unwrap();
        let error = store.read_data(run.addr, write.csums()).await.unwrap_err();
        let Error::Damaged(damage) = error else { panic!("{error}") };
        assert_eq!(damage.address, second.byte_address());
        assert_eq!(damage.expected, write.csums()[1]);
    });
}

#[test]
fn a_cancelled_reservation_comes_back_after_its_write_completed() {
    sim::run(5, |handle| async move {
        let (device, store) = faulty(&handle, 4, Sync::Posix).await;
        let free = store.space().free_blocks;
        device.set_latency_max(Duration::from_millis(2));
        let reservation = store.reserve(2, TxOptions::default()).await.unwrap();
        let run = reservation.runs()[0];
        store.write_data(run, Bytes::from(vec![1; 2 * BLOCK_BYTES])).unwrap();
        drop(reservation);
        assert_eq!(store.space().free_blocks, free - 2);
        handle.sleep(Duration::from_millis(5)).await;
        assert_eq!(store.space().free_blocks, free);
    });
}

#[test]
fn space_fills_to_no_space_and_deletes_make_it_usable_again() {
    for sync in [Sync::Posix, Sync::Always] {
        sim::run(6, move |handle| async move {
            let (_, store) = fresh(&handle, sync).await;
            let before = store.space();
            let mut kept = Vec::new();
            let error = loop {
                let reservation = match store.reserve(100, TxOptions::default()).await {
                    Ok(reservation) => reservation,
                    Err(error) => break error,
                };
                let publish = |tx: &mut Tx<'_>| {
                    for run in reservation.runs() {
                        tx.publish(&reservation, *run)?;
                    }
                    Ok(())
                };
                store.transact(TxOptions::default(), publish).await.unwrap();
                kept.extend_from_slice(reservation.runs());
            };
            assert_eq!(error, Error::NoSpace);
            assert!(store.space().free_blocks < 100);
            let held = store.read_guard();
            let free = TxOptions { claim: Claim::GiveBack, ..TxOptions::default() };
            for runs in kept.chunks(10) {
                let done =
                    store.transact(free, |tx| runs.iter().try_for_each(|run| tx.free_blocks(*run)));
                done.await.unwrap();
            }
            assert_eq!(store.space().free_blocks, before.free_blocks);
            let refused = store.reserve(1000, TxOptions::default()).await.err();
            assert_eq!(refused, Some(Error::NoSpace), "a reader may still see the freed blocks");
            drop(held);
            store.reserve(1000, TxOptions::default()).await.unwrap();
        });
    }
}

#[test]
fn a_device_that_fails_a_write_latches_the_store() {
    sim::run(7, |handle| async move {
        let (device, store) = faulty(&handle, 4, Sync::Posix).await;
        let root = store.root();
        let before = put(&store, root, 64, b"before").await;
        store.acknowledged(before).await.unwrap();
        device.aim(daos_media::Kind::Write, 1, daos_media::Fault::Fail(libc_eio()));
        let lost = put(&store, root, 100, b"lost").await;
        let error = store.acknowledged(lost).await.unwrap_err();
        assert!(matches!(error, Error::Latched { .. }), "{error}");
        store.acknowledged(before).await.unwrap();
        assert_eq!(get(&store, root, 64, 6).await, b"before");
        let refused = store.transact(TxOptions::default(), |_| Ok(())).await.unwrap_err();
        assert!(matches!(refused, Error::Latched { .. }));
        assert!(store.latched().unwrap().contains("log"));
        assert!(store.stop().await.is_err());
    });
}

#[test]
fn a_flush_that_fails_beside_another_one_acknowledges_nothing() {
    for seed in 0..80 {
        sim::run(seed, move |handle| async move {
            let (device, store) = faulty(&handle, seed, Sync::Posix).await;
            let root = store.root();
            device.set_latency_max(Duration::from_millis(2));
            device.aim(daos_media::Kind::Flush, 1 + seed % 20, daos_media::Fault::Fail(libc_eio()));
            let other = store.clone();
            handle.spawn(async move { while other.checkpoint().await.is_ok() {} });
            let mut forced = 0;
            for n in 1..200_u32 {
                let put = |tx: &mut Tx<'_>| tx.write(root, 100, &n.to_le_bytes());
                if store.transact(TxOptions::default(), put).await.is_err()
                    || store.force().await.is_err()
                {
                    break;
                }
                forced = n;
            }
            assert!(store.latched().is_some() && forced < 199);
            device.cut();
            drop(store);
            let store = reopen(&device.survivor().await.unwrap(), &handle).await;
            let found = get(&store, root, 100, 4).await;
            let found = u32::from_le_bytes(found.try_into().unwrap());
            assert!(found >= forced, "{forced} was forced, {found} is there");
        });
    }
}

fn libc_eio() -> i32 {
    5
}

#[test]
fn read_only_writes_nothing_and_shows_everything() {
    sim::run(8, |handle| async move {
        let (device, store) = fresh(&handle, Sync::Posix).await;
        let root = store.root();
        let lsn = put(&store, root, 64, b"in the log only").await;
        store.acknowledged(lsn).await.unwrap();
        drop(store);
        let watch = FaultDevice::new(device, handle.clone(), 1);
        let read_only = OpenOptions { read_only: true, ..options(Sync::Posix) };
        let store = Store::open(watch.clone(), handle.clone(), read_only).await.unwrap();
        assert_eq!(get(&store, root, 64, 15).await, b"in the log only");
        let refused = store.transact(TxOptions::default(), |_| Ok(())).await.unwrap_err();
        assert_eq!(refused, Error::ReadOnly);
        store.stop().await.unwrap();
        assert_eq!(watch.counts().writes, 0);
        assert_eq!(watch.counts().flushes, 0);
    });
}

#[test]
fn the_wal_goes_around_many_times() {
    for seed in 0..3 {
        sim::run(seed, |handle| async move {
            let (device, store) = fresh(&handle, Sync::Posix).await;
            let root = store.root();
            let mut last = Vec::new();
            for index in 0..600_u32 {
                let bytes = vec![index as u8; 8000];
                put(&store, root, 64 + index as usize % 100, &bytes).await;
                last = get(&store, root, 64, 9000).await;
            }
            assert!(counter(&store, "wal_bytes_written") > 3 << 20, "the ring is 1 MiB");
            store.force().await.unwrap();
            drop(store);
            let store = reopen(&device, &handle).await;
            assert_eq!(get(&store, root, 64, 9000).await, last);
        });
    }
}

#[test]
fn a_full_host_is_no_space_and_no_latch() {
    sim::run(9, |handle| async move {
        let (device, store) = faulty_of(160 << 20, &handle, 4, Sync::Posix).await;
        for nth in 1..100 {
            device.aim(daos_media::Kind::Allocate, nth, daos_media::Fault::Fail(28));
        }
        let mut kept = Vec::new();
        let error = loop {
            match store.reserve(256, TxOptions::default()).await {
                Ok(reservation) => kept.push(reservation),
                Err(error) => break error,
            }
        };
        assert_eq!(error, Error::NoSpace);
        assert!(kept.len() >= 58, "what the host had promised is there: {} MiB", kept.len());
        assert!(store.space().reserve_blocks >= 4 * 256, "but for what is kept for deletes");
        let gives_back = TxOptions { claim: Claim::GiveBack, ..TxOptions::default() };
        drop(store.reserve(2 * 256, gives_back).await.unwrap());
        assert!(kept.len() < 140);
        assert_eq!(store.latched(), None);
        let root = store.root();
        let lsn = put(&store, root, 64, b"goes on").await;
        store.acknowledged(lsn).await.unwrap();
        kept.clear();
        store.reserve(256, TxOptions::default()).await.unwrap();
    });
}

#[test]
fn a_stop_lets_nothing_write_after_it() {
    for seed in 0..40 {
        sim::run(seed, move |handle| async move {
            // It panics when writes overlap.
            let (device, store) = faulty(&handle, seed, Sync::Posix).await;
            device.set_latency_max(Duration::from_micros(50));
            let root = store.root();
            put(&store, root, 64, b"kept").await;
            // As the cleaner does when the log is half full or fifteen seconds have passed.
            store.inner.checkpoint_wanted.set(true);
            store.inner.clean_kick.notify_all();
            store.stop().await.unwrap();
            let writes = device.counts().writes;
            handle.sleep(Duration::from_secs(1)).await;
            assert_eq!(device.counts().writes, writes);
            device.set_latency_max(Duration::ZERO);
            let store = reopen(&(device.clone() as Rc<dyn Device>), &handle).await;
            assert_eq!(get(&store, root, 64, 4).await, b"kept");
        });
    }
}

#[test]
fn a_clean_end_leaves_no_log_to_read() {
    sim::run(12, |handle| async move {
        let inner: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
        let id = StoreId(uuid::Uuid::from_u128(3));
        let format = FormatOptions { store: id, wal_bytes: Some(16 << 20) };
        Store::format(inner.clone(), handle.clone(), format).await.unwrap();
        let mut reads = Vec::new();
        for clean in [true, false, true] {
            let device = FaultDevice::new(inner.clone(), handle.clone(), 4);
            let store =
                Store::open(device.clone(), handle.clone(), options(Sync::Posix)).await.unwrap();
            reads.push(device.counts().reads);
            let root = store.root();
            let lsn = put(&store, root, 64, b"kept").await;
            store.acknowledged(lsn).await.unwrap();
            if clean {
                store.stop().await.unwrap();
            } else {
                drop(store);
                handle.sleep(Duration::from_secs(2)).await;
            }
        }
        let [formatted, after_clean, after_crash] = reads[..] else { unreachable!() };
        assert!(formatted < 20 && after_clean < 20, "{reads:?}");
        assert!(after_crash >= 64, "all of the ring is looked at: {reads:?}");
        let store = reopen(&inner, &handle).await;
        assert_eq!(get(&store, store.root(), 64, 4).await, b"kept");
    });
}

#[test]
fn an_idle_store_comes_to_rest() {
    sim::run(10, |handle| async move {
        let (_, store) = fresh(&handle, Sync::Posix).await;
        let root = store.root();
        for index in 0..50 {
            let made = store.transact(TxOptions::default(), |tx| tx.alloc(BucketKind::Node));
            let bucket = made.await.unwrap().value;
            store.transact(TxOptions::default(), |tx| tx.free(bucket)).await.unwrap();
            put(&store, root, 64 + index, b"x").await;
        }
        handle.sleep(Duration::from_secs(60)).await;
        assert_eq!(counter(&store, "blocks_quarantined"), 0);
        assert_eq!(counter(&store, "buckets_dirty"), 0);
        let before = store.counters();
        handle.sleep(Duration::from_secs(600)).await;
        assert_eq!(store.counters(), before, "nothing happens when nothing is asked");
    });
}

#[test]
fn a_transaction_that_is_too_large_changes_nothing() {
    sim::run(11, |handle| async move {
        let (_, store) = fresh(&handle, Sync::Posix).await;
        let root = store.root();
        let space = store.space();
        let large = store.transact(TxOptions::default(), |tx| {
            (0..20).try_for_each(|n| tx.write(root, 64, &[n; 10_000]))
        });
        assert!(matches!(large.await, Err(Error::TooLarge { .. })));
        let many = store.transact(TxOptions::default(), |tx| {
            (0..100).try_for_each(|_| tx.alloc(BucketKind::Node).map(drop))
        });
        assert!(matches!(many.await, Err(Error::TooLarge { .. })));
        assert_eq!(get(&store, root, 64, 100).await, [0; 100]);
        assert_eq!(store.space(), space);
    });
}

/// What a small update costs: `cargo test --release -p daos-vos small_updates -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn small_updates_per_second_of_cpu() {
    const TASKS: usize = 64;
    const STEPS: usize = 5000;
    let config = daos_xstream::XstreamConfig::default();
    daos_xstream::Xstream::run(&config, |handle| async move {
        let device: Rc<dyn Device> = MemDevice::new(512 << 20);
        let store = StoreId(uuid::Uuid::from_u128(1));
        let format = FormatOptions { store, wal_bytes: Some(64 << 20) };
        Store::format(device.clone(), handle.clone(), format).await.unwrap();
        let large = OpenOptions { memory_buckets: 8192, ..options(Sync::Posix) };
        let store = Store::open(device, handle.clone(), large).await.unwrap();
        let mut buckets = Vec::new();
        for _ in 0..2000 {
            let made = store.transact(TxOptions::default(), |tx| tx.alloc(BucketKind::Node));
            buckets.push(made.await.unwrap().value);
        }
        let buckets = Rc::new(buckets);
        let (start, cpu) = (std::time::Instant::now(), cpu_ns());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, buckets) = (store.clone(), buckets.clone());
                handle.spawn(async move {
                    for step in 0..STEPS {
                        let pick = |n: usize| buckets[(task * 31 + step * 17 + n * 911) % 2000];
                        let done = store.transact(TxOptions::default(), |tx| {
                            let (leaf, other) = (pick(0), pick(1));
                            tx.copy_within(leaf, 200, 360, 2000)?;
                            tx.write(leaf, 200, &[step as u8; 160])?;
                            tx.write(leaf, 64, &[1; 12])?;
                            tx.write(other, 100, &[task as u8; 24])
                        });
                        let lsn = done.await.unwrap().lsn;
                        store.acknowledged(lsn).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        let count = (TASKS * STEPS) as u64;
        let (wall, cpu) = (start.elapsed(), cpu_ns() - cpu);
        println!("{} ns of CPU each, {:?} in all, {:?}", cpu / count, wall, store.counters());
    })
    .unwrap();
}

/// Time on a CPU of this thread.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_fixed_bucket_that_was_put_right_is_written_again() {
    sim::run(13, |handle| async move {
        let (device, store) = faulty(&handle, 13, Sync::Posix).await;
        let open = || Store::open(device.clone(), handle.clone(), options(Sync::Posix));
        let root = store.root();
        store.stop().await.unwrap();
        for bucket in [root, BucketId(root.0 - 1)] {
            let at = bucket.byte_address() + 9000;
            for bit in 0..4 {
                device.rot(at + bit, 1).await.unwrap();
                let store = open().await.unwrap();
                get(&store, root, 64, 1).await;
                handle.sleep(Duration::from_millis(100)).await;
            }
            let store = open().await.unwrap();
            assert_eq!(store.scrub_fixed().await.unwrap().0, []);
            // Memory may have it, or not.
            for bit in 0..4 {
                device.rot(at + bit, 2).await.unwrap();
                let found = store.scrub_fixed().await.unwrap().0;
                assert_eq!(found.len(), 1, "{found:?}");
                assert_eq!(found[0].address, bucket.byte_address());
                assert_eq!(store.scrub_fixed().await.unwrap().0, []);
            }
            device.rot(at, 4).await.unwrap();
            let read_only = OpenOptions { read_only: true, ..options(Sync::Posix) };
            let other = Store::open(device.clone(), handle.clone(), read_only).await.unwrap();
            assert_eq!(other.scrub_fixed().await.unwrap().0.len(), 1, "told once");
            store.stop().await.unwrap();
        }
    });
}

#[test]
fn cancelled_blocks_that_are_still_being_written_are_worth_waiting_for() {
    sim::run(14, |handle| async move {
        let (device, store) = faulty(&handle, 4, Sync::Posix).await;
        assert!(!store.wait_for_frees(store.frees()).await.unwrap());
        device.set_latency_max(Duration::from_millis(2));
        let reservation = store.reserve(2, TxOptions::default()).await.unwrap();
        store.write_data(reservation.runs()[0], Bytes::from(vec![1; 2 * BLOCK_BYTES])).unwrap();
        let seen = store.frees();
        drop(reservation);
        assert_eq!(store.frees(), seen, "they are not free yet");
        assert!(store.wait_for_frees(seen).await.unwrap());
        assert!(!store.wait_for_frees(store.frees()).await.unwrap());
    });
}

#[test]
fn an_opening_returns_space_in_pieces() {
    sim::run(15, |handle| async move {
        let (device, store) = faulty_of(900 << 20, &handle, 4, Sync::Posix).await;
        handle.sleep(Duration::from_secs(1)).await;
        let discarded = counter(&store, "bytes_discarded");
        assert!(
            discarded > 700 << 20 && device.counts().discards >= discarded >> 28,
            "{discarded}"
        );
    });
}

#[test]
fn mending_that_is_dropped_half_way_is_not_under_way_any_more() {
    sim::run(9, |handle| async move {
        let (_device, store) = fresh(&handle, Sync::Posix).await;
        store.inner.mended.borrow_mut().push(store.root());
        let mut context = Context::from_waker(Waker::noop());
        let mut one = Box::pin(store.mend_fixed_places());
        let mut other = Box::pin(store.mend_fixed_places());
        assert!(one.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert_eq!(store.inner.mending.get(), 1, "the other one goes on");
        drop(other);
        assert_eq!(store.inner.mending.get(), 0);
        store.mend_fixed_places().await.unwrap();
        assert!(store.inner.mended.borrow().is_empty());
    });
}

#[test]
fn a_store_of_a_newer_version_is_told_by_number_and_left_as_it_is() {
    const HEADERS: u64 = 8192;
    for slot in 0..2 {
        sim::run(slot, move |handle| async move {
            let (device, store) = fresh(&handle, Sync::Posix).await;
            put(&store, store.root(), 64, b"kept").await;
            store.stop().await.unwrap();
            // One slot is enough, also with a flipped bit: the other is of before the newer program came.
            let at = HEADERS + slot * 4096;
            let mut image = device.read(IoBuf::zeroed(512), at, How::Buffered).await.unwrap();
            image[24..28].copy_from_slice(&(header::VERSION + 3).to_le_bytes());
            let csum = daos_types::crc32c(&image[8..]);
            image[4..8].copy_from_slice(&csum.0.to_le_bytes());
            image[100] ^= u8::from(slot == 1);
            device.write(image.into_bytes(), at, How::Buffered).await.unwrap();
            // A copy of the label would be put right, were it not for that.
            device.write(vec![0; 512].into(), 0, How::Buffered).await.unwrap();

            let whole = || device.read(IoBuf::zeroed(DEVICE_BYTES as usize), 0, How::Buffered);
            let before = whole().await.unwrap();
            for read_only in [false, true] {
                let options = OpenOptions { read_only, ..options(Sync::Posix) };
                let refused = Store::open(device.clone(), handle.clone(), options).await;
                let refused = refused.err().unwrap().to_string();
                let versions = (header::VERSION + 3, header::VERSION);
                let text = format!(
                    "version {} of its structures, and this program reads up to {}: use a newer one",
                    versions.0, versions.1
                );
                assert!(refused.contains(&text), "{refused}");
            }
            assert!(*whole().await.unwrap() == *before, "something was written");
        });
    }
}

#[test]
fn a_flush_that_is_dropped_keeps_its_turn_and_its_failure() {
    for seed in 0..20 {
        sim::run(seed, move |handle| async move {
            let (device, store) = faulty(&handle, seed, Sync::Posix).await;
            let root = store.root();
            let lsn = put(&store, root, 64, b"written").await;
            store.acknowledged(lsn).await.unwrap();
            device.set_latency_max(Duration::from_millis(2));
            let before = device.counts().flushes;
            device.aim(daos_media::Kind::Flush, 1, daos_media::Fault::Fail(libc_eio()));
            let mut dropped = Box::pin(store.inner.flush());
            let mut context = Context::from_waker(Waker::noop());
            let pending = dropped.as_mut().poll(&mut context).is_pending();
            drop(dropped);
            // Whatever it lost is not stable, and the next one does not say so.
            let next = store.inner.flush().await;
            assert!(matches!(next, Err(Error::Latched { .. })), "{next:?}, pending: {pending}");
            assert_eq!(device.counts().flushes, before + 1, "none after it");
        });
    }
}
