//! What the ways of a transfer cost on a file or block device: `latency PATH`. The device is overwritten; a file that is not
//! there is made and removed again.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use daos_media::{Device, How, IoBuf, OpenOptions, UringDevice, create_file};
use daos_xstream::{Handle, Random, Xstream, XstreamConfig};

const SIZE: u64 = 256 << 20;

fn main() {
    let path = PathBuf::from(std::env::args().nth(1).expect("usage: latency PATH"));
    let made = !path.exists();
    if made {
        create_file(&path, SIZE).unwrap();
    }
    println!("{:<44} {:>9} {:>9} {:>11}", "", "p50 us", "p99 us", "per second");
    raw_writes(&path);
    let ring_only =
        OpenOptions { read_inline_bytes_max: 0, write_inline_bytes_max: 0, ..Default::default() };
    let inline = OpenOptions {
        read_inline_bytes_max: 1 << 20,
        write_inline_bytes_max: 1 << 20,
        ..Default::default()
    };
    for (name, options) in [("inline", inline), ("ring", ring_only)] {
        let path = path.clone();
        Xstream::run(&XstreamConfig::default(), |handle| async move {
            let device = UringDevice::open(&path, &handle, &options).unwrap();
            buffered(name, device, handle).await;
        })
        .unwrap();
    }
    let direct_path = path.clone();
    Xstream::run(&XstreamConfig::default(), |handle| async move {
        let device = UringDevice::open(&direct_path, &handle, &OpenOptions::default()).unwrap();
        direct(device, handle).await;
    })
    .unwrap();
    if made {
        std::fs::remove_file(&path).unwrap();
    }
}

fn report(name: &str, mut nanoseconds: Vec<u64>, total: std::time::Duration) {
    nanoseconds.sort_unstable();
    let at = |percent: usize| nanoseconds[nanoseconds.len() * percent / 100] as f64 / 1000.0;
    let rate = nanoseconds.len() as f64 / total.as_secs_f64();
    println!("{name:<44} {:>9.1} {:>9.1} {rate:>11.0}", at(50), at(99));
}

fn raw_writes(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut random = Random::from_seed(1);
    let data = vec![1; 4096];
    let mut times = Vec::new();
    let all = Instant::now();
    for _ in 0..20_000 {
        let offset = random.below(SIZE / 4096) * 4096;
        let start = Instant::now();
        rustix::io::pwrite(file.as_fd(), &data, offset).unwrap();
        times.push(start.elapsed().as_nanos() as u64);
    }
    report("raw pwrite 4 KiB", times, all.elapsed());
    file.sync_all().unwrap();
}

/// `count` operations, `depth` at a time.
async fn measure<F: Future<Output = ()> + 'static>(
    name: &str,
    handle: &Handle,
    depth: u64,
    count: u64,
    operation: impl Fn(u64) -> F + 'static,
) {
    let operation = Rc::new(operation);
    let all = Instant::now();
    let workers: Vec<_> = (0..depth)
        .map(|worker| {
            let operation = operation.clone();
            handle.spawn(async move {
                let mut random = Random::from_seed(worker);
                let mut times = Vec::new();
                for _ in 0..count / depth {
                    let start = Instant::now();
                    operation(random.next_u64()).await;
                    times.push(start.elapsed().as_nanos() as u64);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await);
    }
    report(name, times, all.elapsed());
}

fn place(random: u64, len: u64) -> u64 {
    random % (SIZE / len) * len
}

async fn buffered(name: &str, device: Rc<UringDevice>, handle: Handle) {
    for (kib, depth, count) in [(4, 1, 20_000), (4, 16, 40_000), (64, 1, 4000), (256, 1, 1000)] {
        let len = kib << 10;
        let data = IoBuf::zeroed(len as usize).into_bytes();
        let writer = device.clone();
        let what = format!("{name}: buffered write {kib} KiB, depth {depth}");
        measure(&what, &handle, depth, count, move |random| {
            let io = writer.write(data.clone(), place(random, len), How::Buffered);
            async { io.await.unwrap() }
        })
        .await;
        device.flush().await.unwrap();
        let reader = device.clone();
        let what = format!("{name}: cached read {kib} KiB, depth {depth}");
        measure(&what, &handle, depth, count, move |random| {
            let buffer = IoBuf::zeroed(len as usize);
            let io = reader.read(buffer, place(random, len), How::Buffered);
            async { drop(io.await.unwrap()) }
        })
        .await;
    }
}

async fn direct(device: Rc<UringDevice>, handle: Handle) {
    for (kib, depth, count) in [(4, 1, 10_000), (4, 32, 40_000), (16, 1, 5000), (16, 32, 20_000)] {
        let len = kib << 10;
        let data = IoBuf::zeroed(len as usize).into_bytes();
        let writer = device.clone();
        let what = format!("direct write {kib} KiB, depth {depth}");
        measure(&what, &handle, depth, count, move |random| {
            let io = writer.write(data.clone(), place(random, len), How::Direct);
            async { io.await.unwrap() }
        })
        .await;
        let reader = device.clone();
        let what = format!("direct read {kib} KiB, depth {depth}");
        measure(&what, &handle, depth, count, move |random| {
            let io = reader.read(IoBuf::zeroed(len as usize), place(random, len), How::Direct);
            async { drop(io.await.unwrap()) }
        })
        .await;
    }
    let flusher = device.clone();
    measure("write 4 KiB and flush, depth 1", &handle, 1, 200, move |random| {
        let (device, data) = (flusher.clone(), IoBuf::zeroed(4096).into_bytes());
        async move {
            device.write(data, place(random, 4096), How::Buffered).await.unwrap();
            device.flush().await.unwrap();
        }
    })
    .await;
}
