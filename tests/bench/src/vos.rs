//! vos alone, on a device in memory: what the store costs by itself.
//!
//! A small file is what dfs makes of one: an entry of 200 bytes in a directory's object and 4 KiB in the file's own.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use daos_media::{Device, How, IoBuf, MemDevice};
use daos_types::rpc::{ContainerInfo, Fetch, FetchPart, KeyRef, Op, Reply, Request, Transact};
use daos_types::{
    BLOCK_BYTES, ContainerId, Dkey, Epoch, ObjectClass, ObjectId, ObjectType, PoolId, StoreId,
    TargetId,
};
use daos_vos::{FormatOptions, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::{Handle, Xstream, XstreamConfig};

use crate::Scale;
use crate::io::Rng;
use crate::report::{Report, Unit};

/// The column of the report.
pub const COLUMN: &str = "vos";
const DEVICE_BYTES: u64 = 8 << 30;
/// 256 MiB of metadata: all of it stays resident.
const MEMORY_BUCKETS: usize = 16_384;
const BUCKET_BYTES: u64 = 16_384;
const ENTRY_BYTES: usize = 200;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub fn measure(scale: Scale, report: &mut Report) {
    let config = XstreamConfig { name: "bench".into(), ..XstreamConfig::default() };
    let measured = Xstream::run(&config, |handle| async move {
        all(handle, scale).await.map_err(|e| e.to_string())
    });
    match measured.unwrap_or_else(|error: io::Error| Err(error.to_string())) {
        Ok(rows) => {
            rows.into_iter().for_each(|(name, value, unit)| report.put(COLUMN, name, value, unit))
        }
        Err(error) => report.error(COLUMN, "vos", error),
    }
}

type Row = (&'static str, f64, Unit);

async fn all(handle: Handle, scale: Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let device = MemDevice::new(DEVICE_BYTES);
    let raw = raw_writes(&*device, scale).await?;
    rows.push(("media write of 4 KiB, one after the other", raw, Unit::PerSecond));
    let vos = open(MemDevice::new(DEVICE_BYTES), &handle).await?;
    let container = container(&vos, &handle).await?;

    let before = counters(&vos).await?;
    let files = scale.files as u64;
    let rate = each(&handle, &vos, files, 1, move |i| small_file(container, i)).await?;
    let after = counters(&vos).await?;
    rows.push(("small files: entry and 4 KiB, one update", rate, Unit::PerSecond));
    rows.push(("  of media write", rate / raw, Unit::Ratio));
    let per = |name: &str| (after(name) - before(name)) / files as f64;
    rows.push(("  redo record bytes per update", per("wal_record_bytes"), Unit::Bytes));
    rows.push(("  WAL bytes written per update", per("wal_bytes_written"), Unit::Bytes));
    let Reply::Checked(check) = vos.handle(Request::Check { repair: false }).await? else {
        return Err("not a check's answer".into());
    };
    let metadata = check.buckets as f64 * BUCKET_BYTES as f64 / files as f64;
    rows.push(("  metadata bytes per 4 KiB file", metadata, Unit::Bytes));

    let before = counters(&vos).await?;
    let more = files * 2;
    let rate = each(&handle, &vos, files, 16, move |i| small_file(container, i + more)).await?;
    let after = counters(&vos).await?;
    rows.push(("small files, 16 at a time", rate, Unit::PerSecond));
    let per = |name: &str| (after(name) - before(name)) / files as f64;
    rows.push(("  WAL bytes written per update, 16", per("wal_bytes_written"), Unit::Bytes));

    let pages = 4096_u64;
    let rate = each(&handle, &vos, pages, 1, move |i| page(container, i)).await?;
    rows.push(("appending 4 KiB to one object", rate, Unit::PerSecond));
    let mut rng = Rng(3);
    let order: Vec<u64> = (0..files).map(|_| rng.next() % pages).collect();
    let again = order.clone();
    let rate = each(&handle, &vos, files, 1, move |i| page(container, again[i as usize])).await?;
    rows.push(("overwriting 4 KiB at random", rate, Unit::PerSecond));
    let rate =
        each(&handle, &vos, files, 1, move |i| read_page(container, order[i as usize])).await?;
    rows.push(("fetching 4 KiB at random", rate, Unit::PerSecond));
    let mut rng = Rng(5);
    let order: Vec<u64> = (0..files).map(|_| rng.next() % files).collect();
    let rate =
        each(&handle, &vos, files, 1, move |i| read_entry(container, order[i as usize])).await?;
    rows.push(("fetching an entry", rate, Unit::PerSecond));
    vos.stop().await?;
    Ok(rows)
}

async fn raw_writes(device: &dyn Device, scale: Scale) -> Result<f64> {
    let data = IoBuf::zeroed(BLOCK_BYTES).into_bytes();
    let begin = Instant::now();
    for i in 0..scale.files as u64 {
        device.write(data.clone(), i * BLOCK_BYTES as u64, How::Buffered).await?;
    }
    Ok(scale.files as f64 / begin.elapsed().as_secs_f64())
}

async fn open(device: Rc<MemDevice>, handle: &Handle) -> Result<Rc<Vos>> {
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

fn block(seed: u64) -> Bytes {
    let mut data = vec![0; BLOCK_BYTES];
    Rng(seed + 1).fill(&mut data[..64]);
    data.into()
}

fn small_file(container: ContainerId, number: u64) -> Request {
    let ops = vec![
        Op::UpdateSingle { key: entry_key(number), value: vec![7; ENTRY_BYTES].into() },
        Op::UpdateArray { key: bytes_key(file(number), 0), offset: 0, data: block(number) },
    ];
    Request::Transact(Transact { container, conditions: Vec::new(), ops })
}

const LARGE: u64 = u64::MAX;
const CHUNK_PAGES: u64 = 256;

fn page(container: ContainerId, number: u64) -> Request {
    let key = bytes_key(file(LARGE), number / CHUNK_PAGES);
    let offset = number % CHUNK_PAGES * BLOCK_BYTES as u64;
    let ops = vec![Op::UpdateArray { key, offset, data: block(number) }];
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
