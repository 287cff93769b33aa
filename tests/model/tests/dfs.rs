//! dfs against an in-memory POSIX tree: the same random calls, the same answers, the same tree afterwards, over remounts that
//! are clean and ones that are not. A failure names its seed; `DFS_SEED=n cargo test -p daos-model --test dfs` replays it,
//! `DFS_STEPS` sets the length.

mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use daos_client::{Client, Container};
use daos_media::MemDevice;
use daos_model::spawn_model;
use daos_server::{Engine, EngineConfig, serve_local};
use daos_types::rpc::{Reply, Request};
use daos_types::{StoreId, TargetId};
use daos_vos::{FormatOptions, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::{Handle, Xstream, XstreamConfig};
use dfs::{Budget, Dfs, MountOptions};
use futures_lite::future::block_on;

use tree::Pair;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn mount(container: &Container, seed: u64) -> Arc<Dfs> {
    let options = MountOptions {
        cache_attributes: seed % 3 != 0,
        cache_bytes: if seed % 2 == 1 { 1 << 20 } else { 0 },
        // Few chunks of few blocks make many borders; few inodes make many that were forgotten.
        chunk_bytes: 8192,
        budget: Budget::new(if seed % 2 == 0 { 16 } else { 10_000 }),
        ..MountOptions::default()
    };
    Dfs::mount(container.clone(), options).await.unwrap()
}

/// What holds the container: it may be stopped and started between two mounts.
trait Below {
    async fn container(&mut self) -> Container;
    async fn restart(&mut self);
}

async fn home(client: Client) -> Container {
    let pool = client.pool_or_create("default").await.unwrap();
    pool.container_or_create("home").await.unwrap()
}

/// The model target: nothing survives it, so it stays.
struct Model(Client);

impl Below for Model {
    async fn container(&mut self) -> Container {
        home(self.0.clone()).await
    }

    async fn restart(&mut self) {}
}

/// A store in memory, with the least memory for metadata that it works with, on the thread that runs the test.
struct InMemory {
    handle: Handle,
    device: Rc<MemDevice>,
    vos: Rc<Vos>,
}

impl InMemory {
    const TARGET: TargetId = TargetId(0);

    async fn new(handle: Handle) -> Self {
        let device = MemDevice::new(256 << 20);
        let store = StoreId(uuid::Uuid::from_u128(7));
        let options = FormatOptions { store, wal_bytes: Some(4 << 20) };
        Store::format(device.clone(), handle.clone(), options).await.unwrap();
        let vos = Self::open(&device, &handle).await;
        Self { handle, device, vos }
    }

    async fn open(device: &Rc<MemDevice>, handle: &Handle) -> Rc<Vos> {
        let options = OpenOptions {
            target: Self::TARGET,
            memory_buckets: 32,
            sync: Sync::Posix,
            read_only: false,
        };
        let store = Store::open(device.clone(), handle.clone(), options).await.unwrap();
        Vos::open(store, handle.clone(), VosOptions { hash_bits: 8 }).await.unwrap()
    }
}

impl Below for InMemory {
    async fn container(&mut self) -> Container {
        home(Client::new(vec![serve_local(&self.handle, self.vos.clone())])).await
    }

    async fn restart(&mut self) {
        let report = self.vos.handle(Request::Check { repair: false }).await.unwrap();
        let Reply::Checked(report) = report else { panic!("{report:?}") };
        assert_eq!(report.findings, Vec::<String>::new());
        self.vos.stop().await.unwrap();
        self.vos = Self::open(&self.device, &self.handle).await;
    }
}

/// The engine on files, again with little memory.
struct OnFiles {
    config: EngineConfig,
    engine: Option<Engine>,
}

impl OnFiles {
    fn new(path: &Path) -> Self {
        let config = EngineConfig {
            create: true,
            size: Some(256 << 20),
            memory: 32 * 16384,
            ..EngineConfig::new(path, "a test")
        };
        let engine = Some(Engine::start(config.clone()).unwrap());
        Self { config, engine }
    }
}

impl Below for OnFiles {
    async fn container(&mut self) -> Container {
        home(self.engine.as_ref().expect("restart starts it again").client()).await
    }

    async fn restart(&mut self) {
        drop(self.engine.take());
        self.engine = Some(Engine::start(self.config.clone()).unwrap());
    }
}

async fn run(seed: u64, steps: u64, mut below: impl Below) {
    let mut pair = Pair::new(seed, mount(&below.container().await, seed).await);
    for step in 0..steps {
        pair.step().await;
        if step % 400 == 399 {
            pair.compare().await;
            let clean = step % 800 == 799;
            pair.unmount(clean).await;
            if clean {
                below.restart().await;
            }
            pair.mounted(mount(&below.container().await, seed).await);
            pair.compare().await;
            pair.check().await;
        }
    }
    pair.compare().await;
    pair.check().await;
    assert_every_call_was_tried(&pair.done(), steps);
}

/// Runs `test` once for each seed, and names the one that fails.
fn each_seed(default: std::ops::RangeInclusive<u64>, test: impl Fn(u64, u64)) {
    let steps = setting("DFS_STEPS").unwrap_or(4000);
    for seed in setting("DFS_SEED").map_or_else(|| default.collect(), |seed| vec![seed]) {
        let test = std::panic::AssertUnwindSafe(|| test(seed, steps));
        if let Err(panic) = std::panic::catch_unwind(test) {
            eprintln!("seed {seed}: replay with DFS_SEED={seed} DFS_STEPS={steps}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A test of calls that were never made would be worthless.
fn assert_every_call_was_tried(done: &BTreeMap<&'static str, (u64, u64)>, steps: u64) {
    if steps < 2000 {
        return;
    }
    for (call, (worked, _)) in done {
        assert!(*worked > 0, "{call} never worked");
    }
}

#[test]
fn random_calls_answer_as_a_posix_tree_does() {
    each_seed(1..=6, |seed, steps| {
        block_on(run(seed, steps, Model(Client::new(vec![spawn_model()]))));
    });
}

#[test]
fn random_calls_over_a_store_in_memory_answer_as_a_posix_tree_does() {
    each_seed(1..=3, |seed, steps| {
        let config = XstreamConfig::default();
        let main = move |handle| async move { run(seed, steps, InMemory::new(handle).await).await };
        Xstream::run(&config, main).unwrap();
    });
}

#[test]
fn random_calls_over_an_engine_on_files_answer_as_a_posix_tree_does() {
    each_seed(1..=2, |seed, steps| {
        let directory = tempfile::tempdir().unwrap();
        block_on(run(seed, steps, OnFiles::new(directory.path())));
    });
}
