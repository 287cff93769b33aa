//! Power cuts at every write of a workload, and what must be there afterwards.
//!
//! The opinion that is held here: a log of what each transaction did, by LSN. After a cut the store must be exactly what
//! some prefix of that log makes, at least as long as what was forced; every block must be allocated that the
//! prefix refers to, and no other.
//!
//! A failure prints its case; run it alone with
//! `STORE_CRASH=<sync>,<seed>,<write>,<second write> cargo test -p daos-vos power_cut`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use ::bytes::Bytes;
use daos_media::{Device, Fault, FaultDevice, Kind, MemDevice};
use daos_types::{BLOCK_BYTES, Csum, Error, Place, Result};
use daos_xstream::{Handle, Random, sim};

use super::tests::{format, options};
use super::*;
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind, Pages, PagesMut};

const DEVICE_BYTES: u64 = 32 << 20;
/// Four segments of space: buckets and data have to share them, and it fills up.
const CROWDED_BYTES: u64 = 13 << 20;
const CLIENTS: u32 = 3;
const STEPS: u32 = 50;
/// Buckets and runs that a client owns at most.
const SLOTS: u32 = 16;

/// What one transaction did. Slots are (client, number).
#[derive(Clone, Debug)]
enum Done {
    Made { slot: (u32, u32), bucket: BucketId, seed: u64 },
    Changed { slot: (u32, u32), seed: u64 },
    Freed { slot: (u32, u32) },
    Wrote { slot: (u32, u32), runs: Vec<(BlockRun, Vec<Csum>)>, seed: u64 },
    Dropped { slot: (u32, u32) },
}

/// The state that a prefix of the log makes.
#[derive(Default)]
struct Expected {
    buckets: HashMap<(u32, u32), (BucketId, Vec<u8>)>,
    data: HashMap<(u32, u32), (Vec<(BlockRun, Vec<Csum>)>, u64)>,
}

impl Expected {
    fn after(log: &BTreeMap<Lsn, Done>, newest: Lsn) -> Self {
        let mut expected = Self::default();
        for done in log.range(..=newest).map(|(_, done)| done.clone()) {
            match done {
                Done::Made { slot, bucket, seed } => {
                    let mut bytes = vec![0; BUCKET_BYTES];
                    change(&mut bytes, seed);
                    expected.buckets.insert(slot, (bucket, bytes));
                }
                Done::Changed { slot, seed } => {
                    change(&mut expected.buckets.get_mut(&slot).unwrap().1, seed);
                }
                Done::Freed { slot } => drop(expected.buckets.remove(&slot)),
                Done::Wrote { slot, runs, seed } => {
                    expected.data.insert(slot, (runs, seed));
                }
                Done::Dropped { slot } => drop(expected.data.remove(&slot)),
            }
        }
        expected
    }
}

/// One change of a bucket, as `change` and `change_in` both understand it.
struct Change {
    at: usize,
    bytes: Vec<u8>,
    moved: (usize, usize, usize),
    filled: (usize, usize, u8),
}

impl Change {
    fn of(seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let mut range = |max: u64| {
            let len = random.below(max) as usize + 1;
            let room = BUCKET_BYTES - BUCKET_HEADER_BYTES - len;
            (BUCKET_HEADER_BYTES + random.below(room as u64 + 1) as usize, len)
        };
        let (at, len) = range(3000);
        let (from, moved) = range(2000);
        let (fill_at, filled) = range(500);
        let room = BUCKET_BYTES - BUCKET_HEADER_BYTES - moved;
        let to = BUCKET_HEADER_BYTES + random.below(room as u64) as usize;
        let bytes = (0..len).map(|_| random.next_u64() as u8).collect();
        Self { at, bytes, moved: (from, to, moved), filled: (fill_at, filled, seed as u8) }
    }
}

fn change(page: &mut [u8], seed: u64) {
    let change = Change::of(seed);
    page[change.at..][..change.bytes.len()].copy_from_slice(&change.bytes);
    let (from, to, len) = change.moved;
    page.copy_within(from..from + len, to);
    let (at, len, byte) = change.filled;
    page[at..at + len].fill(byte);
}

fn change_in(tx: &mut Tx<'_>, bucket: BucketId, seed: u64) -> Result<(), crate::pages::Abort> {
    let change = Change::of(seed);
    tx.write(bucket, change.at, &change.bytes)?;
    let (from, to, len) = change.moved;
    tx.copy_within(bucket, from, to, len)?;
    let (at, len, byte) = change.filled;
    tx.fill(bucket, at, len, byte)
}

fn data_of(seed: u64, blocks: u32) -> Bytes {
    let mut random = Random::from_seed(seed);
    let words = blocks as usize * BLOCK_BYTES / 8;
    (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect::<Vec<_>>().into()
}

/// What happened to a store, as its clients know it.
#[derive(Default)]
struct History {
    log: RefCell<BTreeMap<Lsn, Done>>,
    /// Known to be on stable media, answered.
    forced: Cell<Lsn>,
    answered: Cell<Lsn>,
}

struct Client {
    store: Store,
    history: Rc<History>,
    number: u32,
    random: Random,
    buckets: BTreeMap<u32, BucketId>,
    data: BTreeMap<u32, Vec<BlockRun>>,
    always: bool,
    /// Most blocks of data at a time.
    blocks_max: u64,
}

impl Client {
    async fn run(mut self, steps: u32) -> Result<()> {
        for _ in 0..steps {
            match self.step().await {
                Ok(()) | Err(Error::NoSpace) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        let slot = self.random.below(u64::from(SLOTS)) as u32;
        let seed = self.random.next_u64();
        let lsn = match self.random.below(10) {
            0..5 => self.step_bucket(slot, seed).await?,
            _ => self.step_data(slot, seed).await?,
        };
        if self.random.one_in(20) {
            self.store.checkpoint().await?;
        }
        match self.random.below(8) {
            0 => {
                let newest = self.store.newest();
                self.store.force().await?;
                self.history.forced.set(self.history.forced.get().max(newest));
            }
            1..6 => {
                self.store.acknowledged(lsn).await?;
                self.history.answered.set(self.history.answered.get().max(lsn));
                if self.always {
                    self.history.forced.set(self.history.forced.get().max(lsn));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&self, lsn: Lsn, done: Done) -> Lsn {
        let before = self.history.log.borrow_mut().insert(lsn, done);
        assert!(before.is_none(), "an LSN is given out once");
        lsn
    }

    async fn step_bucket(&mut self, number: u32, seed: u64) -> Result<Lsn> {
        let slot = (self.number, number);
        let options = TxOptions::default();
        let Some(&bucket) = self.buckets.get(&number) else {
            let made = self.store.transact(options, |tx| {
                let bucket = tx.alloc(BucketKind::Node)?;
                change_in(tx, bucket, seed)?;
                Ok(bucket)
            });
            let made = made.await?;
            self.buckets.insert(number, made.value);
            return Ok(self.note(made.lsn, Done::Made { slot, bucket: made.value, seed }));
        };
        if seed.is_multiple_of(5) {
            let lsn = self.store.transact(options, |tx| tx.free(bucket)).await?.lsn;
            self.buckets.remove(&number);
            return Ok(self.note(lsn, Done::Freed { slot }));
        }
        let lsn = self.store.transact(options, |tx| change_in(tx, bucket, seed)).await?.lsn;
        Ok(self.note(lsn, Done::Changed { slot, seed }))
    }

    async fn step_data(&mut self, number: u32, seed: u64) -> Result<Lsn> {
        let slot = (self.number, number);
        let old = self.data.get(&number).cloned().unwrap_or_default();
        if !old.is_empty() && seed.is_multiple_of(4) {
            let free = |tx: &mut Tx<'_>| old.iter().try_for_each(|run| tx.free_blocks(*run));
            let lsn = self.store.transact(TxOptions::default(), free).await?.lsn;
            self.data.remove(&number);
            return Ok(self.note(lsn, Done::Dropped { slot }));
        }
        let blocks = self.random.below(self.blocks_max) as u32 + 1;
        let reservation = self.store.reserve(blocks, TxOptions::default()).await?;
        let data = data_of(seed, blocks);
        let mut writes = Vec::new();
        let mut at = 0;
        for run in reservation.runs() {
            let bytes = data.slice(at..at + run.bytes() as usize);
            at += bytes.len();
            writes.push(self.store.write_data(*run, bytes)?);
        }
        if self.random.one_in(8) {
            // The client gave up: nothing of it may stay allocated.
            return Ok(Lsn::ZERO);
        }
        let written = self.store.transact(TxOptions::default(), |tx| {
            for write in &writes {
                tx.publish(&reservation, write.run())?;
                tx.depend(write);
            }
            old.iter().try_for_each(|run| tx.free_blocks(*run))
        });
        let lsn = written.await?.lsn;
        self.data.insert(number, reservation.runs().to_vec());
        let runs = writes.iter().map(|write| (write.run(), write.csums().to_vec())).collect();
        Ok(self.note(lsn, Done::Wrote { slot, runs, seed }))
    }
}

fn small(sync: Sync) -> OpenOptions {
    OpenOptions { memory_buckets: 32, ..options(sync) }
}

fn crowded(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

fn device_for(seed: u64) -> Rc<dyn Device> {
    MemDevice::new(if crowded(seed) { CROWDED_BYTES } else { DEVICE_BYTES })
}

/// Lets clients work until they are done or power is gone.
async fn work(store: &Store, handle: &Handle, history: &Rc<History>, seed: u64, sync: Sync) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                store: store.clone(),
                history: history.clone(),
                number,
                random: Random::from_seed(seed ^ u64::from(number) << 32),
                buckets: BTreeMap::new(),
                data: BTreeMap::new(),
                always: sync == Sync::Always,
                blocks_max: if crowded(seed) { 60 } else { 9 },
            };
            handle.spawn(client.run(STEPS))
        })
        .collect();
    for client in clients {
        match client.await {
            Ok(()) | Err(Error::Latched { .. } | Error::Device { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Asserts that the store is what some prefix of the history makes, at least up to `least`.
async fn check(store: &Store, history: &History, least: Lsn) {
    let newest = store.newest();
    assert!(newest >= least, "{least:?} was forced or answered, {newest:?} is there");
    let expected = Expected::after(&history.log.borrow(), newest);
    let mut recount = store.recount();
    for (slot, (bucket, bytes)) in &expected.buckets {
        let read = store.view(|view| Ok(view.page(*bucket)?[BUCKET_HEADER_BYTES..].to_vec()));
        let found = read.await.unwrap_or_else(|error| panic!("{slot:?}: {error}")).0;
        assert!(found == bytes[BUCKET_HEADER_BYTES..], "{slot:?}, {bucket:?} has other content");
        recount.add(bucket.run(), "a bucket");
    }
    for (slot, (runs, seed)) in &expected.data {
        let blocks = runs.iter().map(|(run, _)| run.blocks).sum();
        let data = data_of(*seed, blocks);
        let mut at = 0;
        for (run, csums) in runs {
            let read = store.read_data(run.addr, csums).await;
            let found = read.unwrap_or_else(|error| panic!("{slot:?}: {error}"));
            assert!(found == data[at..at + found.len()], "{slot:?} has other data");
            at += found.len();
            recount.add(*run, "data");
        }
    }
    let report = store.check_space(recount).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!(store.check_device().await.unwrap(), Vec::<String>::new());
}

/// A case: where power goes in the workload and, counted from there, in the recovery.
#[derive(Clone, Copy, Debug)]
struct Case {
    sync: Sync,
    seed: u64,
    write: u64,
    second: u64,
}

/// Prints how to run the case again, if the test fails in it.
struct Replay(Case);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Case { sync, seed, write, second } = self.0;
            eprintln!(
                "replay: STORE_CRASH={sync:?},{seed},{write},{second} cargo test -p daos-vos power_cut"
            );
        }
    }
}

/// Runs a case; the answer is the number of writes that the workload made.
fn run_case(case: Case) -> u64 {
    let _replay = Replay(case);
    sim::run(case.seed, move |handle| async move {
        let device = device_for(case.seed);
        format(&device, &handle).await;
        let fault = FaultDevice::new(device, handle.clone(), case.seed ^ case.write);
        fault.set_latency_max(Duration::from_micros(50));
        let store = Store::open(fault.clone(), handle.clone(), small(case.sync)).await.unwrap();
        let before = fault.counts().writes;
        if case.write > 0 {
            fault.aim(Kind::Write, case.write, Fault::Cut);
        }
        let history = Rc::new(History::default());
        work(&store, &handle, &history, case.seed, case.sync).await;
        let writes = fault.counts().writes - before;
        if case.write == 0 {
            check(&store, &history, store.newest()).await;
        }
        if std::env::var_os("STORE_CRASH").is_some() {
            eprintln!("{:?}", store.counters());
        }
        fault.cut();
        drop(store);
        let survivor = fault.survivor().await.unwrap();
        let survivor = cut_in_recovery(survivor, &handle, case).await;
        let shown = match case.write % 4 {
            0 => Some(look(survivor.clone(), &handle, &history, case).await),
            _ => None,
        };
        let store = Store::open(survivor.clone(), handle.clone(), small(case.sync));
        let store = store.await.unwrap_or_else(|error| panic!("{error}"));
        assert!(shown.is_none_or(|shown| shown == store.newest()), "{shown:?} was shown");
        check(&store, &history, history.forced.get()).await;
        go_on(&store, survivor, &handle, case).await;
        writes
    })
}

/// Opens with a power cut at the recovery's write `second`; what survived.
async fn cut_in_recovery(device: Rc<dyn Device>, handle: &Handle, case: Case) -> Rc<dyn Device> {
    if case.second == 0 {
        return device;
    }
    let fault = FaultDevice::new(device, handle.clone(), case.seed ^ case.second);
    fault.aim(Kind::Write, case.second, Fault::Cut);
    let opened = Store::open(fault.clone(), handle.clone(), small(case.sync)).await;
    drop(opened);
    fault.cut();
    fault.survivor().await.unwrap()
}

/// Looks at what survived without changing it; the newest change that is shown.
async fn look(device: Rc<dyn Device>, handle: &Handle, history: &History, case: Case) -> Lsn {
    let watch = FaultDevice::new(device, handle.clone(), 1);
    let read_only = OpenOptions { read_only: true, ..small(case.sync) };
    let store = Store::open(watch.clone(), handle.clone(), read_only).await.unwrap();
    check(&store, history, history.forced.get()).await;
    let counts = watch.counts();
    assert_eq!((counts.writes, counts.flushes, counts.allocates), (0, 0, 0));
    store.newest()
}

/// What survived is a store like any other: it takes changes, and gives them back after a stop.
async fn go_on(store: &Store, device: Rc<dyn Device>, handle: &Handle, case: Case) {
    let root = store.root();
    let put = store.transact(TxOptions::default(), |tx| tx.write(root, 64, b"after"));
    let put = put.await.unwrap();
    store.acknowledged(put.lsn).await.unwrap();
    store.clone().stop().await.unwrap();
    let store = Store::open(device, handle.clone(), small(case.sync)).await.unwrap();
    let found = store.view(|view| Ok(view.page(root)?[64..69].to_vec())).await.unwrap().0;
    assert_eq!(found, b"after");
    store.stop().await.unwrap();
}

fn given_case() -> Option<Case> {
    let text = std::env::var("STORE_CRASH").ok()?;
    let parts: Vec<&str> = text.split(',').collect();
    let number = |index: usize| parts[index].parse().expect("STORE_CRASH=sync,seed,write,second");
    let sync = if parts[0] == "Always" { Sync::Always } else { Sync::Posix };
    Some(Case { sync, seed: number(1), write: number(2), second: number(3) })
}

#[test]
fn after_a_power_cut_at_any_write_a_prefix_with_all_that_was_forced_is_there() {
    if let Some(case) = given_case() {
        run_case(case);
        return;
    }
    for (sync, seed) in [(Sync::Posix, 1), (Sync::Always, 2), (Sync::Posix, 3)] {
        let writes = run_case(Case { sync, seed, write: 0, second: 0 });
        assert!(writes > 100, "the workload is long enough to be worth it: {writes}");
        for write in 1..=writes {
            run_case(Case { sync, seed, write, second: write % 7 });
        }
    }
}

/// `STORE_CRASH_SEEDS=1000..5000` for a soak.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("STORE_CRASH_SEEDS") else { return 100..160 };
    let (from, to) = text.split_once("..").expect("STORE_CRASH_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn after_a_power_cut_in_other_orders_too() {
    if given_case().is_some() {
        return;
    }
    for seed in seeds() {
        let sync = if seed % 2 == 0 { Sync::Posix } else { Sync::Always };
        let mut random = Random::from_seed(seed);
        let (write, second) = (random.below(250) + 1, random.below(12));
        run_case(Case { sync, seed, write, second });
    }
}

#[test]
fn answered_changes_survive_the_death_of_the_process() {
    for seed in 0..10 {
        sim::run(seed, move |handle| async move {
            let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
            format(&device, &handle).await;
            let device = FaultDevice::new(device, handle.clone(), seed);
            device.set_latency_max(Duration::from_micros(50));
            let open = || Store::open(device.clone(), handle.clone(), small(Sync::Posix));
            let store = open().await.unwrap();
            let history = Rc::new(History::default());
            work(&store, &handle, &history, seed, Sync::Posix).await;
            drop(store);
            // What the process had given to the kernel is still carried out.
            handle.sleep(Duration::from_secs(1)).await;
            check(&open().await.unwrap(), &history, history.answered.get()).await;
        });
    }
}

#[test]
fn a_power_cut_while_a_dead_process_is_followed_loses_nothing_forced() {
    for seed in 0..60 {
        sim::run(seed, move |handle| async move {
            let device = device_for(seed);
            format(&device, &handle).await;
            let device = FaultDevice::new(device, handle.clone(), seed);
            device.set_latency_max(Duration::from_micros(50));
            let open = || Store::open(device.clone(), handle.clone(), small(Sync::Posix));
            let store = open().await.unwrap();
            let history = Rc::new(History::default());
            work(&store, &handle, &history, seed, Sync::Posix).await;
            drop(store);
            handle.sleep(Duration::from_millis(100)).await;
            // Now much is in the kernel's cache only, and recovery reads it there.
            device.aim(Kind::Write, seed % 40 + 1, Fault::Cut);
            let opened = open().await;
            device.cut();
            drop(opened);
            let survivor = device.survivor().await.unwrap();
            let store = Store::open(survivor, handle.clone(), small(Sync::Posix)).await;
            let store = store.unwrap_or_else(|error| panic!("{error}"));
            check(&store, &history, history.forced.get()).await;
        });
    }
}

#[test]
fn what_is_two_seconds_old_survives_a_power_cut_in_every_mode() {
    for seed in 0..5 {
        sim::run(seed, move |handle| async move {
            let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
            format(&device, &handle).await;
            let device = FaultDevice::new(device, handle.clone(), seed);
            let store = Store::open(device.clone(), handle.clone(), small(Sync::Posix));
            let store = store.await.unwrap();
            let history = Rc::new(History::default());
            work(&store, &handle, &history, seed, Sync::Posix).await;
            let newest = store.newest();
            handle.sleep(Duration::from_secs(2)).await;
            device.cut();
            drop(store);
            let survivor = device.survivor().await.unwrap();
            let store = Store::open(survivor, handle.clone(), small(Sync::Posix)).await.unwrap();
            check(&store, &history, newest).await;
        });
    }
}

/// Where the log begins in these stores.
const RING: u64 = 8 << 20;

/// A crashed store whose log has 20 blocks, each a change of the same 8 bytes (at 64) of its root, to 0, 1, ... 19.
async fn log_of_20_blocks(handle: &Handle) -> (Rc<dyn Device>, BucketId) {
    let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
    format(&device, handle).await;
    let store = Store::open(device.clone(), handle.clone(), options(Sync::Posix)).await.unwrap();
    let root = store.root();
    for index in 0..20_u64 {
        let put = |tx: &mut Tx<'_>| tx.write(root, 64, &index.to_le_bytes());
        store.transact(TxOptions::default(), put).await.unwrap();
        store.force().await.unwrap();
    }
    (device, root)
}

#[test]
fn one_flipped_bit_of_the_log_costs_nothing_and_is_reported() {
    for seed in 0..40 {
        sim::run(seed, move |handle| async move {
            let (device, root) = log_of_20_blocks(&handle).await;
            let fault = FaultDevice::new(device.clone(), handle.clone(), seed);
            let (block, bit) = (handle.random_u64() % 20, handle.random_u64() % 8);
            let address = RING + block * 4096 + handle.random_u64() % 4096;
            fault.rot(address, 1 << bit).await.unwrap();
            let store = Store::open(device, handle.clone(), options(Sync::Posix)).await.unwrap();
            let page = store.view(|view| Ok(view.page(root)?[64..72].to_vec())).await;
            assert_eq!(page.unwrap().0, 19_u64.to_le_bytes());
            let findings = store.check_device().await.unwrap();
            let named = format!("Wal at byte {}", RING + block * 4096);
            assert!(findings.iter().any(|finding| finding.contains(&named)), "{findings:?}");
        });
    }
}

#[test]
fn damage_of_the_log_below_its_mark_is_reported_not_skipped() {
    let mut reported = 0;
    for seed in 0..40 {
        let damaged = sim::run(seed, move |handle| async move {
            let (device, root) = log_of_20_blocks(&handle).await;
            // The last has no proof after it.
            let fault = FaultDevice::new(device.clone(), handle.clone(), seed);
            let block = handle.random_u64() % 20;
            fault.rot(RING + block * 4096 + handle.random_u64() % 4096, 0x41).await.unwrap();
            match Store::open(device, handle.clone(), options(Sync::Posix)).await {
                Err(OpenError::Engine(Error::Damaged(damage))) => {
                    assert_eq!(damage.place, Place::Wal);
                    assert_eq!(damage.address, RING + block * 4096);
                    true
                }
                Err(error) => panic!("{error}"),
                Ok(store) => {
                    assert_eq!(block, 19, "only what nothing proves may be taken for a torn end");
                    let page = store.view(|view| Ok(view.page(root)?[64..72].to_vec())).await;
                    assert_eq!(page.unwrap().0, 18_u64.to_le_bytes());
                    false
                }
            }
        });
        reported += u32::from(damaged);
    }
    assert!(reported > 30);
}

#[test]
fn damage_of_data_below_the_mark_harms_only_that_read() {
    sim::run(3, |handle| async move {
        let device: Rc<dyn Device> = MemDevice::new(DEVICE_BYTES);
        format(&device, &handle).await;
        let open = || Store::open(device.clone(), handle.clone(), options(Sync::Posix));
        let store = open().await.unwrap();
        let reservation = store.reserve(1, TxOptions::default()).await.unwrap();
        let run = reservation.runs()[0];
        let write = store.write_data(run, data_of(1, 1)).unwrap();
        let publish = |tx: &mut Tx<'_>| {
            tx.depend(&write);
            tx.publish(&reservation, run)
        };
        store.transact(TxOptions::default(), publish).await.unwrap();
        store.force().await.unwrap();
        let root = store.root();
        let put = |tx: &mut Tx<'_>| tx.write(root, 64, b"later");
        store.transact(TxOptions::default(), put).await.unwrap();
        store.force().await.unwrap();
        drop(reservation);
        drop(store);
        let fault = FaultDevice::new(device.clone(), handle.clone(), 1);
        fault.rot(run.addr.byte_address() + 7, 1).await.unwrap();
        let store = open().await.unwrap();
        let error = store.read_data(run.addr, write.csums()).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(damage) if damage.place == Place::Data));
        let page = store.view(|view| Ok(view.page(root)?[64..69].to_vec())).await.unwrap();
        assert_eq!(page.0, b"later");
    });
}
