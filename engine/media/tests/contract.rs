//! Does every device keep the contract of `Device`? One suite over all of them.

use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use daos_media::{
    Access, Device, FaultDevice, How, IoBuf, MemDevice, OpenError, OpenOptions, UringDevice,
    create_file,
};
use daos_xstream::{Handle, Random, Xstream, XstreamConfig, sim};

const SIZE: u64 = 8 << 20;

/// The same content in plain memory.
struct Model(Vec<u8>);

impl Model {
    fn range(&mut self, offset: u64, len: usize) -> &mut [u8] {
        &mut self.0[offset as usize..][..len]
    }
}

fn filled(random: &mut Random, len: usize) -> IoBuf {
    let mut buffer = IoBuf::zeroed(len);
    buffer.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.next_u64().to_le_bytes()));
    buffer
}

fn how(random: &mut Random) -> How {
    if random.one_in(2) { How::Buffered } else { How::Direct }
}

async fn read(device: &dyn Device, offset: u64, len: usize, how: How) -> IoBuf {
    device.read(IoBuf::zeroed(len), offset, how).await.unwrap()
}

/// A random range in a part of the device, mostly of whole pages, now and then of sectors.
fn random_range(random: &mut Random, part: std::ops::Range<u64>) -> (u64, usize) {
    let unit = if random.one_in(4) { 512 } else { 4096 };
    let units = (part.end - part.start) / unit;
    let start = random.below(units);
    let count = 1 + random.below((units - start).min(64));
    (part.start + start * unit, (count * unit) as usize)
}

async fn suite(device: Rc<dyn Device>, handle: Handle) {
    println!("{}", device.describe());
    assert_eq!(device.size(), SIZE);
    fresh_content_is_zeros(&*device).await;
    let model = random_writes_are_read_back(&device, &handle).await;
    what_is_outside_is_refused(&*device).await;
    flush_allocate_and_discard_touch_nothing_else(&*device, model).await;
    an_operation_runs_though_nobody_waits(&*device, &handle).await;
}

async fn fresh_content_is_zeros(device: &dyn Device) {
    let bytes = read(device, 0, SIZE as usize, How::Buffered).await;
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert!(read(device, SIZE - 4096, 4096, How::Direct).await.iter().all(|byte| *byte == 0));
}

/// Eight tasks, each in a part of its own, so that many operations are in flight and none overlap.
async fn random_writes_are_read_back(device: &Rc<dyn Device>, handle: &Handle) -> Model {
    let part_bytes = SIZE / 8;
    let tasks: Vec<_> = (0..8u64)
        .map(|part| {
            let device = device.clone();
            let bounds = part * part_bytes..(part + 1) * part_bytes;
            handle.spawn(async move {
                let mut random = Random::from_seed(part);
                let mut model = Model(vec![0; SIZE as usize]);
                for _ in 0..60 {
                    let (offset, len) = random_range(&mut random, bounds.clone());
                    let data = filled(&mut random, len).into_bytes();
                    // Now and then from memory that is not aligned.
                    let data = if random.one_in(4) {
                        bytes::Bytes::from([&[0], &data[..]].concat()).slice(1..)
                    } else {
                        data
                    };
                    model.range(offset, len).copy_from_slice(&data);
                    device.write(data, offset, how(&mut random)).await.unwrap();
                    let (offset, len) = random_range(&mut random, bounds.clone());
                    let found = read(&*device, offset, len, how(&mut random)).await;
                    assert!(*found == *model.range(offset, len), "{len} bytes at {offset} differ");
                }
                model.range(bounds.start, part_bytes as usize).to_vec()
            })
        })
        .collect();
    let mut model = Model(Vec::new());
    for task in tasks {
        model.0.extend(task.await);
    }
    assert!(*read(&**device, 0, SIZE as usize, How::Direct).await == *model.0);
    model
}

async fn what_is_outside_is_refused(device: &dyn Device) {
    for (offset, len) in
        [(SIZE, 512), (SIZE - 512, 1024), (u64::MAX - 511, 512), (1, 512), (0, 100)]
    {
        let buffer = || IoBuf::zeroed(len as usize);
        let results = [
            device.read(buffer(), offset, How::Buffered).await.map(drop),
            device.write(buffer().into_bytes(), offset, How::Direct).await,
            device.write_out(offset, len).await,
            device.discard(offset, len).await,
            device.allocate(offset, len).await,
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "{len} at {offset}");
        }
    }
    device.write(bytes::Bytes::new(), 512, How::Buffered).await.unwrap();
    assert!(read(device, 512, 0, How::Buffered).await.is_empty());
}

async fn flush_allocate_and_discard_touch_nothing_else(device: &dyn Device, mut model: Model) {
    device.write_out(0, SIZE).await.unwrap();
    device.flush().await.unwrap();
    device.allocate(0, SIZE).await.unwrap();
    assert!(*read(device, 0, SIZE as usize, How::Buffered).await == *model.0);
    let (start, len) = (1 << 20, 1 << 20);
    device.discard(start, len).await.unwrap();
    device.write(vec![7; 8192].into(), start + 4096, How::Direct).await.unwrap();
    model.range(start + 4096, 8192).fill(7);
    device.flush().await.unwrap();
    let found = read(device, 0, SIZE as usize, How::Buffered).await;
    assert!(found[..start as usize] == model.0[..start as usize]);
    let end = (start + len) as usize;
    assert!(found[end..] == model.0[end..]);
    let rewritten = start as usize + 4096..start as usize + 12288;
    assert!(found[rewritten.clone()] == model.0[rewritten]);
}

async fn an_operation_runs_though_nobody_waits(device: &dyn Device, handle: &Handle) {
    drop(device.write(vec![9; 1 << 20].into(), 0, How::Direct));
    for _ in 0..1000 {
        handle.sleep(Duration::from_millis(1)).await;
        let found = read(device, (1 << 20) - 4096, 4096, How::Buffered).await;
        if found.iter().all(|byte| *byte == 9) {
            return;
        }
    }
    panic!("a write whose future was dropped never happened");
}

fn on_xstream<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Handle) -> F) -> T {
    Xstream::run(&XstreamConfig::default(), main).unwrap()
}

fn uring_suite(path: &Path, options: OpenOptions) {
    let path = path.to_owned();
    on_xstream(|handle| async move {
        suite(UringDevice::open(&path, &handle, &options).unwrap(), handle).await;
    });
}

fn uring_file_suite(directory: &Path, options: OpenOptions) {
    let directory = tempfile::tempdir_in(directory).unwrap();
    let path = directory.path().join("device");
    create_file(&path, SIZE).unwrap();
    uring_suite(&path, options);
}

#[test]
fn memory() {
    sim::run(1, |handle| suite(MemDevice::new(SIZE), handle));
}

#[test]
fn faults_around_memory() {
    for seed in 0..5 {
        sim::run(seed, |handle| {
            let device = FaultDevice::new(MemDevice::new(SIZE), handle.clone(), seed);
            device.set_latency_max(Duration::from_micros(100));
            suite(device, handle)
        });
    }
}

#[test]
fn uring_on_a_file() {
    uring_file_suite(&std::env::temp_dir(), OpenOptions::default());
}

#[test]
fn uring_on_a_file_through_the_ring_alone_one_at_a_time() {
    let options = OpenOptions {
        depth: 1,
        read_inline_bytes_max: 0,
        write_inline_bytes_max: 0,
        ..Default::default()
    };
    uring_file_suite(&std::env::temp_dir(), options);
}

#[test]
fn workers_on_a_file() {
    uring_file_suite(&std::env::temp_dir(), OpenOptions { ring: false, ..Default::default() });
    let through_workers_alone = OpenOptions {
        ring: false,
        depth: 2,
        read_inline_bytes_max: 0,
        write_inline_bytes_max: 0,
        ..Default::default()
    };
    uring_file_suite(&std::env::temp_dir(), through_workers_alone);
}

#[test]
fn uring_on_a_file_without_o_direct() {
    uring_file_suite(&std::env::temp_dir(), OpenOptions { direct: false, ..Default::default() });
}

#[test]
fn uring_on_tmpfs() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        println!("skipped: no tmpfs at /dev/shm");
        return;
    }
    uring_file_suite(shm, OpenOptions::default());
}

/// A loop device over a new file; detached when dropped.
struct Loop {
    device: String,
    _directory: tempfile::TempDir,
}

impl Loop {
    fn new(bytes: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().join("backing");
        create_file(&path, bytes).map_err(|error| error.to_string())?;
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&path)
            .output()
            .map_err(|error| format!("losetup: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        let device = String::from_utf8_lossy(&output.stdout).trim().into();
        Ok(Self { device, _directory: directory })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.device]).status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be detached", self.device);
        }
    }
}

#[test]
fn uring_on_a_block_device() {
    let device = match Loop::new(SIZE) {
        Ok(device) => device,
        Err(reason) => {
            println!("skipped: no loop device ({reason})");
            return;
        }
    };
    let path = Path::new(&device.device).to_owned();
    uring_suite(&path, OpenOptions::default());
    assert!(Command::new("blkdiscard").args(["-z", &device.device]).status().unwrap().success());
    uring_suite(&path, OpenOptions { ring: false, ..Default::default() });
    on_xstream(|handle| async move {
        let first = UringDevice::open(&path, &handle, &OpenOptions::default()).unwrap();
        assert!(first.describe().starts_with("block device"));
        let second = UringDevice::open(&path, &handle, &OpenOptions::default());
        assert!(matches!(second, Err(OpenError::Busy { .. })), "opened exclusively");
    });
}

#[test]
fn what_was_in_flight_at_the_end_is_there_when_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    create_file(&path, SIZE).unwrap();
    let options = OpenOptions { depth: 2, ..Default::default() };
    on_xstream(|handle| async move {
        let device = UringDevice::open(&path, &handle, &options).unwrap();
        for megabyte in 0..8 {
            drop(device.write(vec![5; 1 << 20].into(), megabyte << 20, How::Direct));
        }
        drop(device);
        let again = UringDevice::open(&path, &handle, &options).unwrap();
        let bytes = read(&*again, 0, SIZE as usize, How::Buffered).await;
        assert!(bytes.iter().all(|byte| *byte == 5));
    });
}

#[test]
fn a_read_only_device_reads_and_refuses_to_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    create_file(&path, SIZE).unwrap();
    let options = OpenOptions { access: Access::ReadOnly, ..Default::default() };
    on_xstream(|handle| async move {
        let device = UringDevice::open(&path, &handle, &options).unwrap();
        read(&*device, 0, 4096, How::Direct).await;
        device.flush().await.unwrap();
        let refused = [
            device.write(vec![1; 512].into(), 0, How::Buffered).await,
            device.discard(0, 4096).await,
            device.allocate(0, 4096).await,
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        }
    });
}

#[test]
fn a_full_host_is_told_by_allocate_and_by_writes_that_had_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"];
    let mounted = Command::new("mount").args(mount).arg(directory.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: cannot mount a small tmpfs");
        return;
    }
    let path = directory.path().join("device");
    let outcome = std::panic::catch_unwind(|| {
        create_file(&path, SIZE).unwrap();
        on_xstream(|handle| async move {
            let device = UringDevice::open(&path, &handle, &OpenOptions::default()).unwrap();
            device.allocate(0, 1 << 20).await.unwrap();
            let full = device.allocate(1 << 20, 4 << 20).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
            for how in [How::Buffered, How::Direct] {
                let full = device.write(vec![1; 4 << 20].into(), 1 << 20, how).await.unwrap_err();
                assert_eq!(full.kind(), ErrorKind::StorageFull);
            }
            device.write(vec![2; 1 << 20].into(), 0, How::Buffered).await.unwrap();
        });
    });
    let unmounted = Command::new("umount").arg(directory.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    outcome.unwrap();
}

#[test]
fn an_idle_device_uses_no_cpu() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    create_file(&path, SIZE).unwrap();
    let cpu_time = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let used = on_xstream(|handle| async move {
        let device = UringDevice::open(&path, &handle, &OpenOptions::default()).unwrap();
        device.write(vec![1; 4096].into(), 0, How::Direct).await.unwrap();
        let before = cpu_time();
        handle.sleep(Duration::from_millis(200)).await;
        Duration::try_from(cpu_time() - before).unwrap()
    });
    assert!(used < Duration::from_millis(5), "200 ms of idling used {used:?}");
}
