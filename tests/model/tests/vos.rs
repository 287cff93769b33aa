//! Does the object store equal sorted maps over long random sequences of requests: reopened, killed, with little memory,
//! with snapshots, with colliding hashes, on a full device, with many requests at once?
//!
//! Every run is made from a seed and printed with its replay command when it fails:
//! `DAOS_TEST_SEEDS=SEED..SEED+1 cargo test -p daos-model --test vos NAME`. More seeds: `DAOS_TEST_SEEDS=0..1000`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use daos_media::{Device, MemDevice};
use daos_model::ModelTarget;
use daos_types::rpc::{
    CheckReport, Condition, ContainerInfo, Cursor, Extents, Fetch, FetchPart, Fetched, KeyRef,
    List, ListWhat, Listed, Op, Reply, Request, Transact, Value,
};
use daos_types::{
    Akey, ContainerId, Dkey, Epoch, Error, ObjectClass, ObjectId, ObjectType, PoolId, Result,
    StoreId, TargetId,
};
use daos_vos::{FormatOptions, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::{Handle, sim};
use uuid::Uuid;

/// What a run is like.
#[derive(Clone, Copy)]
struct Config {
    steps: u32,
    device_bytes: u64,
    memory_buckets: usize,
    hash_bits: u32,
    snapshots: bool,
    /// Sizes of writes and counts of keys are multiplied by this.
    scale: u64,
    /// Requests at once, each worker with objects of its own.
    workers: u32,
    sync: Sync,
}

const PLAIN: Config = Config {
    steps: 400,
    device_bytes: 256 << 20,
    memory_buckets: 4096,
    hash_bits: 55,
    snapshots: false,
    scale: 1,
    workers: 1,
    sync: Sync::Posix,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, len: u64) -> Bytes {
        let seed = self.next();
        (0..len)
            .map(|i| (seed.wrapping_mul(i / 97 + 1) >> 40) as u8 | 1)
            .collect::<Vec<u8>>()
            .into()
    }
}

/// Seeds of a test: as many as it names, or those of `DAOS_TEST_SEEDS`.
fn seeds(count: u64) -> Range<u64> {
    let Ok(asked) = std::env::var("DAOS_TEST_SEEDS") else { return 0..count };
    let (from, to) = asked.split_once("..").expect("DAOS_TEST_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn each_seed(name: &str, count: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(count) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            let next = seed + 1;
            eprintln!(
                "replay: DAOS_TEST_SEEDS={seed}..{next} cargo test -p daos-model --test vos {name}"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

const POOL: PoolId = PoolId(Uuid::from_u128(7));
const CONTAINERS: u16 = 2;

struct Run {
    config: Config,
    handle: Handle,
    device: RefCell<Rc<MemDevice>>,
    vos: RefCell<Rc<Vos>>,
    model: RefCell<ModelTarget>,
    /// Epochs of the model, and ours.
    epochs: RefCell<BTreeMap<Epoch, Epoch>>,
    snapshots: RefCell<Vec<(ContainerId, Epoch)>>,
    /// Newest epoch since the store was opened: one that changed nothing is forgotten with the process.
    last_epoch: Cell<Epoch>,
    /// Changes refused for lack of space.
    refused: Cell<u32>,
}

async fn open(device: &Rc<MemDevice>, handle: &Handle, config: Config) -> Rc<Vos> {
    let options = OpenOptions {
        target: TargetId(0),
        memory_buckets: config.memory_buckets,
        sync: config.sync,
        read_only: false,
    };
    let device: Rc<dyn Device> = device.clone();
    let store = Store::open(device, handle.clone(), options).await.expect("the store opens");
    let options = VosOptions { hash_bits: config.hash_bits };
    Vos::open(store, handle.clone(), options).await.expect("the objects open")
}

impl Run {
    async fn new(config: Config, handle: Handle) -> Rc<Self> {
        let device = MemDevice::new(config.device_bytes);
        let options = FormatOptions { store: StoreId(Uuid::from_u128(1)), wal_bytes: None };
        Store::format(device.clone(), handle.clone(), options).await.expect("formats");
        let vos = open(&device, &handle, config).await;
        let ticks = Cell::new(0);
        let clock = move || {
            ticks.set(ticks.get() + 1);
            ticks.get()
        };
        let run = Rc::new(Self {
            config,
            handle,
            device: RefCell::new(device),
            vos: RefCell::new(vos),
            model: RefCell::new(ModelTarget::new(3, clock)),
            epochs: RefCell::default(),
            snapshots: RefCell::default(),
            last_epoch: Cell::new(Epoch::ZERO),
            refused: Cell::new(0),
        });
        run.same(Request::PoolCreate { id: POOL, label: "pool".into() }).await.expect("a pool");
        for number in 1..=CONTAINERS {
            let info = ContainerInfo {
                id: ContainerId(0),
                uuid: Uuid::from_u128(number.into()),
                label: format!("c{number}"),
                created: Epoch::ZERO,
            };
            run.same(Request::ContainerCreate { pool: POOL, info }).await.expect("a container");
        }
        run
    }

    fn vos(&self) -> Rc<Vos> {
        self.vos.borrow().clone()
    }

    /// Asks both and compares their answers. What only the store refuses (space, size) the model does not see.
    async fn same(&self, request: Request) -> Result<Reply> {
        let vos = self.vos();
        if std::env::var("DAOS_TEST_TRACE").is_ok() {
            let mut line = format!("{request:?}");
            line.truncate(300);
            eprintln!("{line}");
        }
        let ours = vos.handle(request.clone()).await;
        let may_refuse = |error: &Error| {
            matches!(error, Error::NoSpace | Error::TooLarge { .. })
                || matches!(error, Error::Invalid(why) if why.contains("punch so much"))
        };
        if let Err(error) = &ours
            && may_refuse(error)
            && matches!(request, Request::Transact(_) | Request::SnapshotCreate { .. })
        {
            let full = u32::from(*error == Error::NoSpace);
            self.refused.set(self.refused.get() + full);
            return ours;
        }
        let model = self.model.borrow_mut().handle(self.to_model(&request));
        if let (
            Request::Transact(transact),
            Ok(Reply::Transacted { stored_bytes: Some(told), .. }),
        ) = (&request, &ours)
        {
            self.told_stored_bytes(transact, *told).await;
        }
        match (&ours, &model) {
            (Ok(ours), Ok(model)) => self.compare(&request, ours, model),
            (Err(Error::Invalid(_)), Err(Error::Invalid(_))) => {}
            (Err(ours), Err(model)) => assert_eq!(ours, model, "{request:?}"),
            _ => panic!("{request:?}: {ours:?}, but the model {model:?}"),
        }
        ours
    }

    /// What a transaction tells of its first object is what a fetch says.
    async fn told_stored_bytes(&self, transact: &Transact, told: u64) {
        let object = transact.ops[0].object();
        let part = FetchPart::Object { object, akey: "none".into() };
        let fetch = Fetch { container: transact.container, epoch: Epoch::MAX, parts: vec![part] };
        match self.vos().handle(Request::Fetch(fetch)).await {
            Ok(Reply::Fetched(parts)) => match &parts[..] {
                [Fetched::Object(Some(info))] => assert_eq!(info.stored_bytes, told),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// The request with the model's epochs.
    fn to_model(&self, request: &Request) -> Request {
        let mut request = request.clone();
        let epoch = match &mut request {
            Request::Fetch(fetch) => &mut fetch.epoch,
            Request::List(list) => &mut list.epoch,
            Request::Extents(extents) => &mut extents.epoch,
            Request::SnapshotDestroy { epoch, .. } => epoch,
            _ => return request,
        };
        let epochs = self.epochs.borrow();
        if let Some((model, _)) = epochs.iter().find(|(_, ours)| *ours == epoch) {
            *epoch = *model;
        }
        drop(epochs);
        request
    }

    fn compare(&self, request: &Request, ours: &Reply, model: &Reply) {
        match (ours, model) {
            (Reply::Done, Reply::Done) => {}
            (Reply::Transacted { epoch: ours, .. }, Reply::Transacted { epoch: model, .. }) => {
                self.note_epoch(*ours, *model);
            }
            (Reply::Container(ours), Reply::Container(model)) => {
                self.note_epoch(ours.created, model.created);
                assert_eq!((ours.id, ours.uuid, &ours.label), (model.id, model.uuid, &model.label));
            }
            (Reply::Snapshot(ours), Reply::Snapshot(model)) => {
                self.note_epoch(ours.epoch, model.epoch);
                assert_eq!(ours.name, model.name);
            }
            (Reply::Snapshots(ours), Reply::Snapshots(model)) => {
                let named = |(a, b): (&daos_types::rpc::SnapshotInfo, _)| self.is_epoch(a.epoch, b);
                assert_eq!(ours.len(), model.len());
                assert!(ours.iter().zip(model.iter().map(|s| s.epoch)).all(named));
            }
            (Reply::Fetched(ours), Reply::Fetched(model)) => {
                assert_eq!(ours.len(), model.len());
                for (part, (ours, model)) in ours.iter().zip(model).enumerate() {
                    assert!(
                        self.is_same(ours, model),
                        "part {part} of {request:?}: {ours:?}, but {model:?}"
                    );
                }
            }
            (Reply::Extents(ours), Reply::Extents(model)) => {
                assert_eq!(ours, model, "{request:?}");
            }
            (Reply::ContainerUsage(ours), Reply::ContainerUsage(model)) => {
                assert_eq!((ours.objects, ours.snapshots), (model.objects, model.snapshots));
                assert!(ours.stored_bytes >= model.stored_bytes, "{ours:?}, but {model:?}");
            }
            (Reply::Pools(ours), Reply::Pools(model)) => assert_eq!(ours, model),
            (Reply::Containers(ours), Reply::Containers(model)) => {
                assert_eq!(ours.len(), model.len());
            }
            _ => panic!("{request:?}: {ours:?}, but the model {model:?}"),
        }
    }

    fn note_epoch(&self, ours: Epoch, model: Epoch) {
        let mut epochs = self.epochs.borrow_mut();
        if self.config.workers == 1 {
            assert!(self.last_epoch.replace(ours) < ours, "epochs grow");
        }
        epochs.insert(model, ours);
    }

    fn is_epoch(&self, ours: Epoch, model: Epoch) -> bool {
        model == Epoch::ZERO && ours == model || self.epochs.borrow().get(&model) == Some(&ours)
    }

    fn is_same(&self, ours: &Fetched, model: &Fetched) -> bool {
        match (ours, model) {
            (Fetched::Object(Some(ours)), Fetched::Object(Some(model))) => {
                ours.array_end == model.array_end
                    && self.is_epoch(ours.data_epoch, model.data_epoch)
                    && ours.stored_bytes >= model.stored_bytes
            }
            _ => ours == model,
        }
    }

    async fn listed(
        &self,
        list: &List,
        from_model: bool,
    ) -> Vec<(Dkey, Cursor, Vec<(Akey, Value)>)> {
        let mut list = list.clone();
        let mut found: Vec<(Dkey, Cursor, Vec<(Akey, Value)>)> = Vec::new();
        loop {
            let request = Request::List(list.clone());
            let reply = if from_model {
                let request = self.to_model(&request);
                self.model.borrow_mut().handle(request)
            } else {
                self.vos().handle(request).await
            };
            let Ok(Reply::Listed(Listed { dkeys, end, .. })) = reply else {
                panic!("{list:?}: {reply:?}");
            };
            assert!(dkeys.len() <= list.entries_max as usize && (end || !dkeys.is_empty()));
            found.extend(dkeys.into_iter().map(|d| (d.dkey, d.cursor, d.values)));
            if end {
                return found;
            }
            list.after = found.last().expect("checked above").1.clone();
        }
    }

    async fn same_listing(&self, list: &List) {
        let mut ours = self.listed(list, false).await;
        let mut model = self.listed(list, true).await;
        let cursors: Vec<u64> = ours
            .iter()
            .filter_map(
                |(_, cursor, _)| if let Cursor::Number(n) = cursor { Some(*n) } else { None },
            )
            .collect();
        assert!(cursors.is_sorted_by(|a, b| a < b), "cursors grow");
        let ListWhat::Dkeys { object, .. } = list.what else { unreachable!() };
        if object.object_type() == Some(ObjectType::MultiHashed) {
            assert!(cursors.iter().all(|cursor| *cursor >= 3 && *cursor < 1 << 63));
            for all in [&mut ours, &mut model] {
                all.iter_mut().for_each(|entry| entry.1 = Cursor::Start);
                all.sort_by(|a, b| a.0.cmp(&b.0));
            }
        }
        assert_eq!(ours, model, "{list:?}");
    }

    async fn same_objects(&self, container: ContainerId, epoch: Epoch, page: u32) {
        let mut list = List {
            container,
            epoch,
            what: ListWhat::Objects,
            after: Cursor::Start,
            entries_max: page,
            bytes_max: 1 << 20,
        };
        let whole = Request::List(List { entries_max: 10_000, ..list.clone() });
        let model = self.model.borrow_mut().handle(self.to_model(&whole));
        let Ok(Reply::Listed(model)) = model else { panic!("{model:?}") };
        let mut ours = Vec::new();
        loop {
            let reply = self.vos().handle(Request::List(list.clone())).await;
            let Ok(Reply::Listed(listed)) = reply else { panic!("{reply:?}") };
            ours.extend(listed.objects);
            if listed.end {
                break;
            }
            list.after = Cursor::Key(ours.last().expect("progress").to_bytes().to_vec().into());
        }
        assert_eq!(ours, model.objects, "objects at {epoch}");
    }

    /// The store dies, or stops, and is opened again; then everything must be sound.
    async fn reopen(&self, kill: bool) {
        if kill {
            // What is on the device at this moment is what a dead process leaves.
            let copy = self.device.borrow().copy();
            *self.device.borrow_mut() = copy;
        } else {
            self.vos().stop().await.expect("stops");
        }
        let device = self.device.borrow().clone();
        let vos = open(&device, &self.handle, self.config).await;
        *self.vos.borrow_mut() = vos;
        self.last_epoch.set(Epoch::ZERO);
    }

    async fn check(&self) -> CheckReport {
        for _ in 0..1000 {
            let reply = self.vos().handle(Request::Check { repair: false }).await;
            match reply {
                Ok(Reply::Checked(report)) => {
                    assert!(report.findings.is_empty(), "{:#?}", report.findings);
                    return report;
                }
                Err(Error::Invalid(_)) => self.handle.yield_now().await,
                other => panic!("{other:?}"),
            }
        }
        panic!("the store does not come to rest");
    }
}

/// Makes requests about some objects.
struct Generator {
    random: Random,
    config: Config,
    container: ContainerId,
    objects: Vec<ObjectId>,
    /// Where the last write of an array ended.
    end: Option<(KeyRef, u64)>,
}

impl Generator {
    fn new(seed: u64, worker: u32, config: Config) -> Self {
        let kinds = [
            ObjectType::MultiHashed,
            ObjectType::ArrayByte,
            ObjectType::MultiHashed,
            ObjectType::DkeyUint64,
            ObjectType::DkeyLexical,
            ObjectType::ArrayByte,
        ];
        let object = |(index, kind): (usize, ObjectType)| {
            ObjectId::new(kind, ObjectClass::S1, worker, index as u64)
        };
        Self {
            random: Random(seed * 1_000_003 + u64::from(worker)),
            config,
            container: ContainerId(1),
            objects: kinds.into_iter().enumerate().map(object).collect(),
            end: None,
        }
    }

    fn object(&mut self) -> ObjectId {
        let index = self.random.below(self.objects.len() as u64);
        self.objects[index as usize]
    }

    fn numbered(&mut self) -> ObjectId {
        let index = [1, 3, 5][self.random.below(3) as usize];
        self.objects[index]
    }

    fn dkey(&mut self, object: ObjectId) -> Dkey {
        let keys = 10 * self.config.scale;
        match object.object_type() {
            Some(ObjectType::ArrayByte | ObjectType::DkeyUint64) => {
                let number = match self.random.below(12) {
                    0 => u64::MAX,
                    1 => 0,
                    _ => self.random.below(4 + self.config.scale),
                };
                Dkey::from_u64(number)
            }
            _ => {
                let number = self.random.below(keys);
                let long = if number % 7 == 0 { 500 } else { (number % 11) as usize };
                format!("{}{number}", "k".repeat(long)).into_bytes().into()
            }
        }
    }

    fn key(&mut self) -> KeyRef {
        let object = self.object();
        let dkey = self.dkey(object);
        let akeys: [&'static str; 4] = ["single", "x:1", "x:long-name", "array"];
        // Kinds mostly keep to their akeys; now and then they clash.
        KeyRef { object, dkey, akey: akeys[self.random.below(4) as usize].into() }
    }

    fn single_key(&mut self) -> KeyRef {
        let mut key = self.key();
        if key.akey == "array".into() && !self.random.chance(3) {
            key.akey = "single".into();
        }
        key
    }

    fn array_key(&mut self) -> KeyRef {
        let mut key = self.key();
        if !self.random.chance(3) {
            key.akey = "array".into();
        }
        key
    }

    fn range(&mut self) -> (u64, u64) {
        let scale = self.config.scale;
        let mut offset = match self.random.below(8) {
            0 => 0,
            1 => (1 << 47) + self.random.below(10_000),
            _ => self.random.below(40_000 * scale),
        };
        if self.random.chance(40) {
            offset -= offset % 4096;
        }
        let len = match self.random.below(7) {
            0 => 1 + self.random.below(20),
            1 | 2 => 1 + self.random.below(1500),
            3 => 4096 * (1 + self.random.below(8 * scale)),
            4 => 1 + self.random.below(40_000 * scale),
            _ => 1 + self.random.below(6000),
        };
        (offset, len.min(1 << 20))
    }

    fn op(&mut self) -> Op {
        let update = 30 + self.random.below(40);
        match self.random.below(100) {
            n if n < 25 => {
                let len = match self.random.below(8) {
                    0 => 0,
                    1 => 1000 + self.random.below(60),
                    2 => 1 + self.random.below(9000),
                    3 if self.random.chance(20) => 1 + self.random.below(200_000),
                    _ => self.random.below(120),
                };
                Op::UpdateSingle { key: self.single_key(), value: self.random.bytes(len) }
            }
            n if n < update => {
                let (offset, len) = self.range();
                let here = (self.array_key(), offset);
                let goes_on = self.random.chance(30);
                let (key, offset) = self.end.take().filter(|_| goes_on).unwrap_or(here);
                self.end = Some((key.clone(), offset + len));
                Op::UpdateArray { key, offset, data: self.random.bytes(len) }
            }
            n if n < update + 8 => {
                let (offset, len) = self.range();
                Op::Allocate { key: self.array_key(), offset, len }
            }
            n if n < update + 16 => {
                let (offset, len) = self.range();
                let len = if self.random.chance(30) { u64::MAX - offset } else { len };
                Op::PunchRange { key: self.array_key(), offset, len }
            }
            n if n < update + 19 => Op::PunchAkey(self.key()),
            n if n < update + 22 => {
                let object = self.object();
                Op::PunchDkey { object, dkey: self.dkey(object) }
            }
            n if n < update + 24 => {
                Op::PunchDkeysFrom { object: self.numbered(), from: self.random.below(6) }
            }
            n if n < update + 25 => Op::PunchObject { object: self.object() },
            _ => {
                let delta = self.random.below(100) as i64 - 50;
                let mut key = self.single_key();
                if !self.random.chance(5) {
                    key.akey = "count".into();
                }
                Op::Add { key, delta }
            }
        }
    }

    fn condition(&mut self, run: &Run) -> Condition {
        let key = self.key();
        let (object, dkey) = (key.object, key.dkey.clone());
        match self.random.below(8) {
            0 => Condition::DkeyExists { object, dkey },
            1 => Condition::DkeyAbsent { object, dkey },
            2 => Condition::AkeyExists(key),
            3 => Condition::AkeyAbsent(key),
            4 => Condition::Empty { object, except: vec![dkey, self.dkey(object)] },
            5 => {
                let object = self.numbered();
                let info = self.ask(run, FetchPart::Object { object, akey: "array".into() });
                let Some(Fetched::Object(info)) = info else { return Condition::AkeyExists(key) };
                let (dkey, end) = info.map(|info| info.array_end).unwrap_or_default();
                let wrong = u64::from(self.random.chance(20));
                Condition::ArrayEnd { object, akey: "array".into(), dkey, end: end + wrong }
            }
            _ => {
                let (offset, bytes) = match self.ask(run, FetchPart::Single(key.clone())) {
                    Some(Fetched::Single(Some(value))) => (0, value),
                    _ => {
                        let (offset, len) = self.range();
                        let key = key.clone();
                        match self.ask(run, FetchPart::Array { key, offset, len: len.min(9000) }) {
                            Some(Fetched::Array(bytes)) => (offset, bytes),
                            _ => (0, Bytes::from_static(b"else")),
                        }
                    }
                };
                let keep = bytes.len() - self.random.below(bytes.len() as u64 / 2 + 1) as usize;
                let mut bytes = bytes.slice(..keep).to_vec();
                if self.random.chance(20) {
                    bytes.push(1);
                }
                Condition::Equals { key, offset, bytes: bytes.into() }
            }
        }
    }

    /// What the model says, to make conditions that hold.
    fn ask(&self, run: &Run, part: FetchPart) -> Option<Fetched> {
        let fetch = Fetch { container: self.container, epoch: Epoch::MAX, parts: vec![part] };
        match run.model.borrow_mut().handle(Request::Fetch(fetch)) {
            Ok(Reply::Fetched(mut fetched)) => fetched.pop(),
            _ => None,
        }
    }

    fn transact(&mut self, run: &Run) -> Request {
        let conditions = if self.random.chance(30) { 1 + self.random.below(3) } else { 0 };
        let conditions = (0..conditions).map(|_| self.condition(run)).collect();
        let ops = 1 + if self.random.chance(40) { self.random.below(5) } else { 0 };
        let ops: Vec<Op> = (0..ops).map(|_| self.op()).collect();
        Request::Transact(Transact { container: self.container, conditions, ops })
    }

    fn part(&mut self) -> FetchPart {
        match self.random.below(6) {
            0 => FetchPart::Single(self.single_key()),
            1 => {
                let object = self.object();
                let prefix = if self.random.chance(50) { "x:" } else { "" };
                FetchPart::Akeys {
                    object,
                    dkey: self.dkey(object),
                    prefix: Bytes::from_static(prefix.as_bytes()),
                    array_bytes_max: self.random.below(9000),
                }
            }
            2 => FetchPart::Object { object: self.object(), akey: "array".into() },
            _ => {
                let (offset, len) = self.range();
                FetchPart::Array { key: self.array_key(), offset, len: len.min(100_000) }
            }
        }
    }

    fn fetch(&mut self, epoch: Epoch) -> Request {
        let parts = 1 + self.random.below(4);
        let parts = (0..parts).map(|_| self.part()).collect();
        Request::Fetch(Fetch { container: self.container, epoch, parts })
    }

    fn list(&mut self, epoch: Epoch) -> List {
        let akeys = if self.random.chance(50) {
            vec!["single".into(), "array".into(), "x:1".into()]
        } else {
            Vec::new()
        };
        let what = ListWhat::Dkeys {
            object: self.object(),
            akeys,
            array_bytes_max: self.random.below(5000),
        };
        List {
            container: self.container,
            epoch,
            what,
            after: Cursor::Start,
            entries_max: 1 + self.random.below(12) as u32,
            bytes_max: 1 + self.random.below(20_000) as u32,
        }
    }

    fn extents(&mut self, epoch: Epoch) -> Request {
        Request::Extents(Extents {
            container: self.container,
            epoch,
            object: self.numbered(),
            akey: "array".into(),
            dkey: self.random.below(4),
            offset: self.random.below(3) * self.random.below(30_000),
            extents_max: 1 + self.random.below(12) as u32,
        })
    }
}

/// One step: a request, or something that happens to the store.
async fn step(run: &Run, generator: &mut Generator) {
    let alone = run.config.workers == 1;
    if run.config.snapshots && alone {
        generator.container = ContainerId(1 + generator.random.below(CONTAINERS.into()) as u16);
    }
    let container = generator.container;
    let epoch = {
        let snapshots = run.snapshots.borrow();
        let here: Vec<Epoch> =
            snapshots.iter().filter(|(id, _)| *id == container).map(|(_, epoch)| *epoch).collect();
        let pick = generator.random.below(2 * here.len() as u64 + 1) as usize;
        here.get(pick).copied().unwrap_or(Epoch::MAX)
    };
    match generator.random.below(100) {
        0..=54 => {
            if let Err(Error::NoSpace) = run.same(generator.transact(run)).await {
                delete_something(run, generator).await;
            }
        }
        55..=79 => drop(run.same(generator.fetch(epoch)).await),
        80..=87 => run.same_listing(&generator.list(epoch)).await,
        88..=91 => drop(run.same(generator.extents(epoch)).await),
        92 if alone => {
            run.same_objects(container, epoch, 1 + generator.random.below(4) as u32).await;
        }
        93 if alone => {
            drop(run.same(Request::ContainerQuery { pool: POOL, id: container }).await);
        }
        94 if run.config.snapshots && alone => snapshot(run, generator).await,
        95 if run.config.snapshots && alone => destroy_snapshot(run, generator).await,
        96 if alone => {
            run.reopen(generator.random.chance(50)).await;
            if generator.random.chance(40) {
                run.check().await;
            }
        }
        97 => drop(run.same(Request::Sync).await),
        _ => {}
    }
}

/// Deletes work on a full device.
async fn delete_something(run: &Run, generator: &mut Generator) {
    let object = generator.object();
    let op = match generator.random.below(4) {
        0 => Op::PunchDkey { object, dkey: generator.dkey(object) },
        1 => {
            let (offset, len) = generator.range();
            Op::PunchRange { key: generator.array_key(), offset, len }
        }
        _ => Op::PunchObject { object },
    };
    let container = generator.container;
    let request = Transact { container, conditions: Vec::new(), ops: vec![op] };
    let deleted = run.same(Request::Transact(request)).await;
    assert!(!matches!(deleted, Err(Error::NoSpace)), "a delete works on a full device");
}

async fn snapshot(run: &Run, generator: &mut Generator) {
    let container = generator.container;
    if run.snapshots.borrow().len() < 5 {
        let name = generator.random.chance(50).then(|| "named".to_owned());
        if let Ok(Reply::Snapshot(made)) =
            run.same(Request::SnapshotCreate { container, name }).await
        {
            run.snapshots.borrow_mut().push((container, made.epoch));
        }
    }
    run.same(Request::SnapshotList { container }).await.expect("lists");
}

async fn destroy_snapshot(run: &Run, generator: &mut Generator) {
    let count = run.snapshots.borrow().len() as u64;
    if count > 0 && generator.random.chance(60) {
        let index = generator.random.below(count) as usize;
        let (container, epoch) = run.snapshots.borrow_mut().swap_remove(index);
        run.same(Request::SnapshotDestroy { container, epoch }).await.expect("destroys");
    }
}

/// Everything that the requests can show, of every object.
async fn compare_all(run: &Run, generator: &mut Generator, epoch: Epoch) {
    for object in generator.objects.clone() {
        let list = List {
            container: generator.container,
            epoch,
            what: ListWhat::Dkeys { object, akeys: Vec::new(), array_bytes_max: 0 },
            after: Cursor::Start,
            entries_max: 100,
            bytes_max: 1 << 20,
        };
        run.same_listing(&list).await;
        let all = run.listed(&list, false).await;
        for (dkey, ..) in all {
            let prefix = Bytes::new();
            let parts = vec![FetchPart::Akeys { object, dkey, prefix, array_bytes_max: 100_000 }];
            let fetch = Fetch { container: generator.container, epoch, parts };
            run.same(Request::Fetch(fetch)).await.expect("fetches");
        }
        let parts = vec![FetchPart::Object { object, akey: "array".into() }];
        let fetch = Fetch { container: generator.container, epoch, parts };
        run.same(Request::Fetch(fetch)).await.expect("fetches");
    }
}

/// How many changes the store refused for lack of space.
fn run(seed: u64, config: Config) -> u32 {
    sim::run(seed, move |handle| async move {
        let run = Run::new(config, handle.clone()).await;
        let mut workers = Vec::new();
        for worker in 0..config.workers {
            let run = run.clone();
            workers.push(handle.spawn(async move {
                let mut generator = Generator::new(seed, worker, config);
                for _ in 0..config.steps / config.workers {
                    step(&run, &mut generator).await;
                }
                generator
            }));
        }
        for worker in workers {
            let mut generator = worker.await;
            compare_all(&run, &mut generator, Epoch::MAX).await;
        }
        run.check().await;
        run.reopen(true).await;
        run.check().await;
        finish(&run, seed).await;
        run.refused.get()
    })
}

/// Takes everything away; then nothing may be left.
async fn finish(run: &Run, seed: u64) {
    let mut generator = Generator::new(seed, 0, run.config);
    let snapshots = run.snapshots.take();
    for (container, epoch) in snapshots {
        generator.container = container;
        compare_all(run, &mut generator, epoch).await;
        run.same(Request::SnapshotDestroy { container, epoch }).await.expect("destroys");
    }
    for number in 1..=CONTAINERS {
        let id = ContainerId(number);
        run.same(Request::ContainerDestroy { pool: POOL, id }).await.expect("destroys");
    }
    for _ in 0..10_000 {
        let report = run.check().await;
        if (report.objects, report.blocks) == (0, 0) {
            return;
        }
        run.handle.sleep(Duration::from_millis(1)).await;
    }
    panic!("space of destroyed containers does not come back");
}

#[test]
fn requests_equal_the_model() {
    each_seed("requests_equal_the_model", 30, |seed| _ = run(seed, PLAIN));
}

#[test]
fn requests_equal_the_model_with_snapshots() {
    let config = Config { snapshots: true, ..PLAIN };
    each_seed("requests_equal_the_model_with_snapshots", 30, |seed| _ = run(seed, config));
}

#[test]
fn requests_equal_the_model_with_32_buckets() {
    let config = Config { memory_buckets: 32, snapshots: true, scale: 30, steps: 300, ..PLAIN };
    each_seed("requests_equal_the_model_with_32_buckets", 8, |seed| _ = run(seed, config));
}

#[test]
fn requests_equal_the_model_with_colliding_hashes() {
    let config = Config { hash_bits: 1, scale: 8, snapshots: true, ..PLAIN };
    each_seed("requests_equal_the_model_with_colliding_hashes", 8, |seed| _ = run(seed, config));
}

#[test]
fn requests_equal_the_model_many_at_once() {
    let config = Config { workers: 6, steps: 900, memory_buckets: 64, scale: 8, ..PLAIN };
    each_seed("requests_equal_the_model_many_at_once", 10, |seed| _ = run(seed, config));
}

#[test]
fn requests_equal_the_model_when_acknowledged_means_stable() {
    let config = Config { sync: Sync::Always, steps: 150, ..PLAIN };
    each_seed("requests_equal_the_model_when_acknowledged_means_stable", 4, |seed| {
        _ = run(seed, config)
    });
}

#[test]
fn space_of_a_punched_object_comes_back_while_nobody_asks_for_it() {
    sim::run(1, |handle| async move {
        let run = Run::new(PLAIN, handle).await;
        let vos = run.vos();
        let free = async || match vos.handle(Request::Query).await {
            Ok(Reply::Usage(usage)) => {
                assert!((1..4 << 20).contains(&usage.metadata), "{} of metadata", usage.metadata);
                usage.free
            }
            other => panic!("{other:?}"),
        };
        let object = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 1, 1);
        let key = |chunk| KeyRef { object, dkey: Dkey::from_u64(chunk), akey: "0".into() };
        let transact = async |op| {
            let container = ContainerId(1);
            let request = Transact { container, conditions: vec![], ops: vec![op] };
            vos.handle(Request::Transact(request)).await.expect("there is room");
        };
        let at_first = free().await;
        let data = Bytes::from(vec![7; 1 << 20]);
        for chunk in 1..=64 {
            transact(Op::UpdateArray { key: key(chunk), offset: 0, data: data.clone() }).await;
        }
        let full = free().await;
        assert!(full + (64 << 20) <= at_first, "{full} of {at_first} is free");
        transact(Op::PunchObject { object }).await;
        run.handle.sleep(Duration::from_secs(5)).await;
        let after = free().await;
        assert!(after + (1 << 20) >= at_first, "{after} of {at_first} is free again");
    });
}

#[test]
fn requests_equal_the_model_on_a_full_device() {
    let config = Config { device_bytes: 16 << 20, scale: 40, steps: 600, ..PLAIN };
    for (memory_buckets, count) in [(4096, 6), (32, 2)] {
        let config = Config { memory_buckets, ..config };
        each_seed("requests_equal_the_model_on_a_full_device", count, |seed| {
            assert!(run(seed, config) > 0, "the device was never full");
        });
    }
}

/// An array in very many extents, then changes that cover all of them at once.
async fn large_punches(run: &Run, seed: u64) {
    let mut generator = Generator::new(seed, 0, run.config);
    let object = generator.objects[1];
    let container = generator.container;
    let change = async |ops: Vec<Op>| {
        let request = Transact { container, conditions: Vec::new(), ops };
        run.same(Request::Transact(request)).await
    };
    let key = |dkey| KeyRef { object, dkey: Dkey::from_u64(dkey), akey: "array".into() };
    let show = async |epoch| {
        for dkey in 0..4u64 {
            let parts = (0..8)
                .map(|n| FetchPart::Array { key: key(dkey), offset: n << 19, len: 1 << 19 })
                .collect();
            let fetch = Fetch { container, epoch, parts };
            run.same(Request::Fetch(fetch)).await.expect("fetches");
            let akey = "array".into();
            let parts = vec![FetchPart::Object { object, akey }];
            run.same(Request::Fetch(Fetch { container, epoch, parts })).await.expect("fetches");
            let asked = Extents {
                container,
                epoch,
                object,
                akey: "array".into(),
                dkey,
                offset: 0,
                extents_max: 3000,
            };
            run.same(Request::Extents(asked)).await.expect("extents");
        }
    };
    for round in 0..6u64 {
        for dkey in 0..4u64 {
            for group in 0..16u64 {
                let ops = (0..32u64).map(|n| {
                    let offset = (group * 32 + n) * 8192 + generator.random.below(5000);
                    let len = 1 + generator.random.below(3000);
                    Op::UpdateArray { key: key(dkey), offset, data: generator.random.bytes(len) }
                });
                change(ops.collect()).await.expect("writes");
            }
        }
        if run.config.snapshots {
            let made = run.same(Request::SnapshotCreate { container, name: None }).await;
            let Ok(Reply::Snapshot(made)) = made else { panic!("{made:?}") };
            run.snapshots.borrow_mut().push((container, made.epoch));
        }
        let (offset, len) = (generator.random.below(9000), 4 << 20);
        let ops = match (round + seed) % 6 {
            0 => vec![Op::PunchRange { key: key(1), offset, len: len - 20_000 }],
            1 => vec![Op::PunchDkeysFrom { object, from: 1 }],
            2 => vec![Op::UpdateArray { key: key(2), offset, data: generator.random.bytes(len) }],
            3 => vec![Op::PunchObject { object }],
            4 => vec![
                Op::PunchRange { key: key(0), offset, len: u64::MAX - offset },
                Op::PunchDkeysFrom { object, from: 1 },
                Op::UpdateSingle {
                    key: KeyRef { akey: "size".into(), ..key(0) },
                    value: Bytes::new(),
                },
            ],
            _ => vec![Op::PunchAkey(key(3)), Op::Allocate { key: key(1), offset, len: 200_000 }],
        };
        let changed = change(ops).await;
        assert!(changed.is_ok(), "round {round}: {changed:?}");
        show(Epoch::MAX).await;
        run.check().await;
        run.reopen(round % 2 == 0).await;
    }
    let snapshots = run.snapshots.borrow().clone();
    for (_, epoch) in snapshots {
        show(epoch).await;
    }
}

#[test]
fn large_punches_equal_the_model() {
    for (memory_buckets, snapshots) in [(32, false), (4096, false), (4096, true)] {
        let config = Config { memory_buckets, snapshots, ..PLAIN };
        each_seed("large_punches_equal_the_model", 2, move |seed| {
            sim::run(seed, move |handle| async move {
                let run = Run::new(config, handle).await;
                large_punches(&run, seed).await;
                finish(&run, seed).await;
            });
        });
    }
}

/// A log, an unpacking: each write goes on where the last one ended, in the middle of a block.
#[test]
fn who_goes_on_where_the_last_write_ended_needs_no_plan() {
    each_seed("who_goes_on_where_the_last_write_ended_needs_no_plan", 20, |seed| {
        sim::run(seed, move |handle| async move {
            let run = Run::new(PLAIN, handle.clone()).await;
            let mut random = Random(seed);
            let object = Generator::new(seed, 0, PLAIN).objects[1];
            let key = KeyRef { object, dkey: Dkey::from_u64(1), akey: "array".into() };
            let transact = |op| {
                Request::Transact(Transact {
                    container: ContainerId(1),
                    conditions: Vec::new(),
                    ops: vec![op],
                })
            };
            let plans = |run: &Run| {
                let counters = run.vos().counters();
                counters
                    .into_iter()
                    .find(|(name, _)| *name == "plans")
                    .map_or(0, |(_, count)| count)
            };
            let mut end = 0;
            for step in 0..300 {
                let len = match random.below(4) {
                    0 => 1 + random.below(40),
                    1 => 1 + random.below(1500),
                    2 => 1 + random.below(6000),
                    _ => 10_240,
                };
                let data = random.bytes(len);
                let op = Op::UpdateArray { key: key.clone(), offset: end, data };
                run.same(transact(op)).await.expect("a write");
                end += len;
                // What changes the end in another way is found out by the commit.
                if step > 150 && random.chance(20) {
                    let start = end - random.below(end.min(6000));
                    let op = match random.below(3) {
                        0 => Op::PunchRange {
                            key: key.clone(),
                            offset: start,
                            len: u64::MAX - start,
                        },
                        1 => Op::Allocate { key: key.clone(), offset: end, len: 5000 },
                        _ => Op::UpdateArray {
                            key: key.clone(),
                            offset: start,
                            data: random.bytes(7),
                        },
                    };
                    if matches!(op, Op::PunchRange { .. }) {
                        end = start;
                    }
                    run.same(transact(op)).await.expect("another change");
                } else if step <= 150 {
                    assert_eq!(plans(&run), 0, "step {step}");
                }
            }
            assert!(plans(&run) > 0, "the second half has what needs a plan");
            let part = FetchPart::Array { key, offset: 0, len: end + 10_000 };
            for kill in [false, true] {
                let (container, parts) = (ContainerId(1), vec![part.clone()]);
                let fetch = Fetch { container, epoch: Epoch::MAX, parts };
                run.same(Request::Fetch(fetch)).await.expect("all of it");
                run.check().await;
                run.reopen(kill).await;
            }
        });
    });
}

#[test]
fn partial_writes_at_once_lose_nothing() {
    const TASKS: u64 = 5;
    const STRIPE: u64 = 700;
    const BYTES: u64 = TASKS * STRIPE * 20;
    each_seed("partial_writes_at_once_lose_nothing", 10, |seed| {
        sim::run(seed, move |handle| async move {
            let run = Run::new(PLAIN, handle.clone()).await;
            let object = Generator::new(seed, 0, PLAIN).objects[1];
            let key = KeyRef { object, dkey: Dkey::from_u64(1), akey: "array".into() };
            let expected = Rc::new(RefCell::new(vec![0u8; BYTES as usize]));
            let mut tasks = Vec::new();
            for task in 0..TASKS {
                let (run, key, expected) = (run.clone(), key.clone(), expected.clone());
                tasks.push(handle.spawn(async move {
                    let mut random = Random(seed * 100 + task);
                    for _ in 0..60 {
                        // Stripes of one task are nobody else's, but blocks are shared.
                        let stripe = random.below(20) * TASKS + task;
                        let start = stripe * STRIPE + random.below(STRIPE);
                        let len = 1 + random.below((stripe + 1) * STRIPE - start);
                        let data = random.bytes(len);
                        let range = start as usize..(start + len) as usize;
                        let key = key.clone();
                        let op = match random.below(5) {
                            0 => Op::Allocate { key, offset: start, len },
                            1 => {
                                expected.borrow_mut()[range].fill(0);
                                Op::PunchRange { key, offset: start, len }
                            }
                            _ => {
                                expected.borrow_mut()[range].copy_from_slice(&data);
                                Op::UpdateArray { key, offset: start, data }
                            }
                        };
                        let container = ContainerId(1);
                        let transact =
                            Transact { container, conditions: Vec::new(), ops: vec![op] };
                        let vos = run.vos();
                        vos.handle(Request::Transact(transact)).await.expect("writes");
                    }
                }));
            }
            for task in tasks {
                task.await;
            }
            for kill in [false, true] {
                let parts = vec![FetchPart::Array { key: key.clone(), offset: 0, len: BYTES }];
                let fetch = Fetch { container: ContainerId(1), epoch: Epoch::MAX, parts };
                let reply = run.vos().handle(Request::Fetch(fetch)).await;
                let Ok(Reply::Fetched(fetched)) = reply else { panic!("{reply:?}") };
                let expected = Fetched::Array(expected.borrow().clone().into());
                assert!(fetched == [expected], "bytes were lost");
                run.check().await;
                run.reopen(kill).await;
            }
        });
    });
}
