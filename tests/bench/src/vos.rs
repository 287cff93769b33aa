//! vos alone, on a device in memory and one core: what the store costs by itself.
//!
//! A small file is what dfs makes of one: an entry of 200 bytes in a directory's object and 4 KiB in the file's own.

use std::io;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use daos_media::{Device, How, IoBuf, MemDevice, UringDevice};
use daos_types::rpc::{ContainerInfo, Fetch, FetchPart, KeyRef, Op, Reply, Request, Transact};
use daos_types::{
    BLOCK_BYTES, ContainerId, Dkey, Epoch, ObjectClass, ObjectId, ObjectType, PoolId, StoreId,
    TargetId,
};
use daos_vos::{FormatOptions, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::{Handle, Xstream, XstreamConfig};

use crate::bench::Scale;
use crate::cleanup;
use crate::report::{Report, Unit, VOS};
use crate::rng::Rng;

const DEVICE_BYTES: u64 = 8 << 30;
/// 512 MiB of metadata: all of it stays resident.
const MEMORY_BUCKETS: usize = 32_768;
const BUCKET_BYTES: f64 = 16_384.0;
const ENTRY_BYTES: usize = 200;
/// Memory of a device that is touched before anything is measured.
const WARM_BYTES: u64 = 1 << 30;
const DEPTHS: [u64; 2] = [1, 16];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Row = (String, f64, Unit);

pub fn measure(scale: Scale, report: &mut Report) {
    for _ in 0..scale.rounds {
        match on_xstream(move |handle| all(handle, scale.vos_operations)) {
            Ok(rows) => {
                rows.into_iter()
                    .for_each(|(name, value, unit)| report.put(VOS, &name, value, unit));
            }
            Err(error) => return report.error(VOS, "vos", error),
        }
    }
}

fn on_xstream<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
    main: impl FnOnce(Handle) -> F + Send + 'static,
) -> std::result::Result<T, String> {
    let config = XstreamConfig { name: "bench".into(), ..XstreamConfig::default() };
    let done = Xstream::run(&config, |handle| async move {
        main(handle).await.map_err(|error| error.to_string())
    });
    done.unwrap_or_else(|error: io::Error| Err(error.to_string()))
}

/// What is measured, and what each of the updates leaves: `operations` different keys.
async fn all(handle: Handle, operations: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let raw = raw_writes(&*device().await?, operations).await?;
    rows.push(("media write of 4 KiB, one after the other".to_owned(), raw, Unit::PerSecond));
    rows.push(object_bytes(&handle, operations).await?);

    let vos = open(device().await?, &handle).await?;
    let container = container(&vos, &handle).await?;
    let run = Run { vos: &vos, handle: &handle, operations };
    let buckets = buckets(&vos).await?;
    let files = move |i| small_file(container, i);
    run.updates("create with entry", 1, files, &mut rows).await?;
    let metadata = (self::buckets(&vos).await? - buckets) * BUCKET_BYTES / operations as f64;
    rows.push(("metadata bytes per 4 KiB file, in all".to_owned(), metadata, Unit::Bytes));
    let more = move |i| small_file(container, i + operations);
    run.updates("create with entry", 16, more, &mut rows).await?;

    let order = order(operations);
    for depth in DEPTHS {
        let of = order.clone();
        let value = move |i| update_value(container, of[i as usize]);
        run.updates("update a value", depth, value, &mut rows).await?;
    }
    let pages = operations.min(PAGES_MAX);
    let fill = move |i| page(container, i);
    each(&handle, &vos, pages, 16, fill).await?;
    for depth in DEPTHS {
        let of = order.clone();
        let overwrite = move |i| page(container, of[i as usize] % pages);
        run.updates("overwrite 4 KiB", depth, overwrite, &mut rows).await?;
    }
    for depth in DEPTHS {
        let of = order.clone();
        run.fetches(
            "fetch a value",
            depth,
            move |i| read_entry(container, of[i as usize]),
            &mut rows,
        )
        .await?;
        let of = order.clone();
        let read = move |i| read_page(container, of[i as usize] % pages);
        run.fetches("fetch 4 KiB", depth, read, &mut rows).await?;
    }
    vos.stop().await?;
    Ok(rows)
}

struct Run<'a> {
    vos: &'a Rc<Vos>,
    handle: &'a Handle,
    operations: u64,
}

impl Run<'_> {
    async fn updates(
        &self,
        name: &str,
        depth: u64,
        request: impl Fn(u64) -> Request + Clone + 'static,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let before = counters(self.vos).await?;
        self.fetches(name, depth, request, rows).await?;
        let after = counters(self.vos).await?;
        let (wal, record) = ("wal_bytes_written", "wal_record_bytes");
        for (what, counter) in [("WAL bytes", wal), ("redo record bytes", record)] {
            let each = (after(counter) - before(counter)) / self.operations as f64;
            rows.push((format!("  {what} per {}", at_depth(name, depth)), each, Unit::Bytes));
        }
        Ok(())
    }

    async fn fetches(
        &self,
        name: &str,
        depth: u64,
        request: impl Fn(u64) -> Request + Clone + 'static,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let rate = each(self.handle, self.vos, self.operations, depth, request).await?;
        rows.push((at_depth(name, depth), rate, Unit::PerSecond));
        Ok(())
    }
}

fn at_depth(name: &str, depth: u64) -> String {
    if depth == 1 { name.to_owned() } else { format!("{name}, {depth} at once") }
}

/// A random one of all, for each operation.
fn order(operations: u64) -> Rc<Vec<u64>> {
    let mut rng = Rng(3);
    Rc::new((0..operations).map(|_| rng.next() % operations).collect())
}

/// Metadata of a file's own object, without its name, in a store of its own.
async fn object_bytes(handle: &Handle, files: u64) -> Result<Row> {
    let vos = open(MemDevice::new(DEVICE_BYTES), handle).await?;
    let container = container(&vos, handle).await?;
    let before = buckets(&vos).await?;
    let data = move |i| {
        let ops = vec![Op::UpdateArray { key: bytes_key(file(i), 0), offset: 0, data: block() }];
        Request::Transact(Transact { container, conditions: Vec::new(), ops })
    };
    each(handle, &vos, files, 16, data).await?;
    let each = (buckets(&vos).await? - before) * BUCKET_BYTES / files as f64;
    vos.stop().await?;
    Ok(("metadata bytes per 4 KiB file, object".to_owned(), each, Unit::Bytes))
}

async fn buckets(vos: &Vos) -> Result<f64> {
    match vos.handle(Request::Check { repair: false }).await? {
        Reply::Checked(check) if check.findings.is_empty() => Ok(check.buckets as f64),
        other => Err(format!("not a sound store: {other:?}").into()),
    }
}

/// Resident memory of a process that has a store on a file open and made small files in it, all of the metadata resident. The process
/// is a new one: what other measurements left in this one does not count.
pub fn measure_memory(scale: Scale, scratch: &Path, report: &mut Report) {
    let name = "resident bytes per file, all metadata";
    let run = || -> Result<f64> {
        let files = scale.vos_operations * 2;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--resident").arg(scratch.join("resident")).arg(files.to_string());
        let output = cleanup::run(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.parse().map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
    };
    match run() {
        Ok(value) => report.put(VOS, name, value, Unit::Bytes),
        Err(error) => report.error(VOS, name, error),
    }
}

/// What the new process does: makes the files and tells the bytes of each.
pub fn resident(path: &Path, files: u64) -> std::result::Result<f64, String> {
    let path = path.to_owned();
    on_xstream(move |handle| async move {
        daos_media::create_file(&path, DEVICE_BYTES)?;
        let device = UringDevice::open(&path, &handle, &daos_media::OpenOptions::default())?;
        let vos = open(device, &handle).await?;
        let container = container(&vos, &handle).await?;
        let before = resident_bytes()?;
        each(&handle, &vos, files, 16, move |i| small_file(container, i)).await?;
        let after = resident_bytes()?;
        vos.stop().await?;
        std::fs::remove_file(&path)?;
        Ok((after - before) / files as f64)
    })
}

fn resident_bytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(kib * 1024.0)
}

/// A device whose memory is there already: what the kernel takes to make pages is no cost of the store.
async fn device() -> Result<Rc<MemDevice>> {
    let device = MemDevice::new(DEVICE_BYTES);
    let zeros = IoBuf::zeroed(1 << 20).into_bytes();
    for at in (0..WARM_BYTES).step_by(zeros.len()) {
        device.write(zeros.clone(), at, How::Buffered).await?;
    }
    Ok(device)
}

async fn raw_writes(device: &dyn Device, operations: u64) -> Result<f64> {
    let data = IoBuf::zeroed(BLOCK_BYTES).into_bytes();
    let begin = Instant::now();
    for i in 0..operations {
        device.write(data.clone(), i * BLOCK_BYTES as u64, How::Buffered).await?;
    }
    Ok(operations as f64 / begin.elapsed().as_secs_f64())
}

async fn open(device: Rc<dyn Device>, handle: &Handle) -> Result<Rc<Vos>> {
    let store = StoreId(uuid::Uuid::from_u128(1));
    let options = OpenOptions {
        target: TargetId(0),
        memory_buckets: MEMORY_BUCKETS,
        sync: Sync::Posix,
        read_only: false,
    };
    let format = FormatOptions { store, wal_bytes: None };
    Store::format(device.clone(), handle.clone(), format).await?;
    let store = Store::open(device, handle.clone(), options).await?;
    Ok(Vos::open(store, handle.clone(), VosOptions::default()).await?)
}

async fn container(vos: &Vos, handle: &Handle) -> Result<ContainerId> {
    let pool = PoolId(uuid::Uuid::from_u128(2));
    vos.handle(Request::PoolCreate { id: pool, label: "bench".into() }).await?;
    let info = ContainerInfo {
        id: ContainerId(0),
        uuid: uuid::Uuid::from_u128(3),
        label: "bench".into(),
        created: Epoch(handle.now()),
    };
    match vos.handle(Request::ContainerCreate { pool, info }).await? {
        Reply::Container(info) => Ok(info.id),
        other => Err(format!("not a container: {other:?}").into()),
    }
}

/// The counters by name; 0 for one that is not there.
async fn counters(vos: &Vos) -> Result<impl Fn(&str) -> f64> {
    let Reply::Usage(usage) = vos.handle(Request::Query).await? else {
        return Err("not a target's usage".into());
    };
    let all = usage.counters;
    Ok(move |name: &str| {
        all.iter().find(|(there, _)| there == name).map_or(0.0, |(_, n)| *n as f64)
    })
}

/// Requests a second, `depth` of them in flight.
async fn each(
    handle: &Handle,
    vos: &Rc<Vos>,
    requests: u64,
    depth: u64,
    request: impl Fn(u64) -> Request + Clone + 'static,
) -> Result<f64> {
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for lane in 0..depth {
        let (vos, request) = (vos.clone(), request.clone());
        tasks.push(handle.spawn(async move {
            for i in (lane..requests).step_by(depth as usize) {
                vos.handle(request(i)).await?;
            }
            Ok::<(), daos_types::Error>(())
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(requests as f64 / begin.elapsed().as_secs_f64())
}

fn file(number: u64) -> ObjectId {
    ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, number)
}

fn bytes_key(object: ObjectId, chunk: u64) -> KeyRef {
    KeyRef { object, dkey: Dkey::from_u64(chunk + 1), akey: "0".into() }
}

fn entry_key(number: u64) -> KeyRef {
    let directory = ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 1, 1);
    KeyRef {
        object: directory,
        dkey: format!("file{number:08}").into_bytes().into(),
        akey: "DFS_INODE".into(),
    }
}

thread_local! {
    static BLOCK: Bytes = {
        let mut data = vec![0; BLOCK_BYTES];
        Rng(1).fill(&mut data);
        data.into()
    };
    static ENTRY: Bytes = vec![7; ENTRY_BYTES].into();
}

fn block() -> Bytes {
    BLOCK.with(Bytes::clone)
}

fn entry() -> Bytes {
    ENTRY.with(Bytes::clone)
}

fn small_file(container: ContainerId, number: u64) -> Request {
    let ops = vec![
        Op::UpdateSingle { key: entry_key(number), value: entry() },
        Op::UpdateArray { key: bytes_key(file(number), 0), offset: 0, data: block() },
    ];
    Request::Transact(Transact { container, conditions: Vec::new(), ops })
}

fn update_value(container: ContainerId, number: u64) -> Request {
    let ops = vec![Op::UpdateSingle { key: entry_key(number), value: entry() }];
    Request::Transact(Transact { container, conditions: Vec::new(), ops })
}

const LARGE: u64 = u64::MAX;
const CHUNK_PAGES: u64 = 256;
const PAGES_MAX: u64 = 16_384;

fn page(container: ContainerId, number: u64) -> Request {
    let key = bytes_key(file(LARGE), number / CHUNK_PAGES);
    let offset = number % CHUNK_PAGES * BLOCK_BYTES as u64;
    let ops = vec![Op::UpdateArray { key, offset, data: block() }];
    Request::Transact(Transact { container, conditions: Vec::new(), ops })
}

fn read_page(container: ContainerId, number: u64) -> Request {
    let key = bytes_key(file(LARGE), number / CHUNK_PAGES);
    let offset = number % CHUNK_PAGES * BLOCK_BYTES as u64;
    let part = FetchPart::Array { key, offset, len: BLOCK_BYTES as u64 };
    Request::Fetch(Fetch { container, epoch: Epoch::MAX, parts: vec![part] })
}

fn read_entry(container: ContainerId, number: u64) -> Request {
    let parts = vec![FetchPart::Single(entry_key(number))];
    Request::Fetch(Fetch { container, epoch: Epoch::MAX, parts })
}
