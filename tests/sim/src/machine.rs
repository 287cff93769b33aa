//! A machine whose only lasting part is its disk: boots a store and a filesystem on it, and may lose power at any write.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daos_client::Client;
use daos_media::{Device, FaultDevice, MemDevice};
use daos_types::{Result, StoreId, TargetId, rpc::CheckReport};
use daos_vos::{FormatOptions, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::Handle;
use dfs::{Dfs, MountOptions};

pub const DISK_BYTES: u64 = 64 << 20;

/// An empty disk with a store on it.
pub async fn new_disk(handle: &Handle) -> Rc<MemDevice> {
    let disk = MemDevice::new(DISK_BYTES);
    let store = StoreId(uuid::Uuid::from_u128(handle.random_u64().into()));
    let options = FormatOptions { store, wal_bytes: None };
    Store::format(disk.clone(), handle.clone(), options).await.expect("an empty disk is formatted");
    disk
}

/// A running machine.
pub struct Machine {
    pub dfs: Arc<Dfs>,
    pub client: Client,
}

/// How a machine is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub sync: Sync,
    pub memory_buckets: usize,
}

impl Machine {
    /// Recovers the store, mounts the filesystem.
    pub async fn boot(disk: Rc<dyn Device>, handle: &Handle, setup: Setup) -> Self {
        let options = OpenOptions {
            target: TargetId(0),
            memory_buckets: setup.memory_buckets,
            sync: setup.sync,
            read_only: false,
        };
        let store = Store::open(disk, handle.clone(), options).await.expect("the store opens");
        let vos = Vos::open(store, handle.clone(), VosOptions::default()).await;
        let vos = vos.expect("its trees are there");
        let client = Client::new(vec![daos_server::serve_local(handle, vos)]);
        let pool = client.pool_or_create("default").await.expect("a pool");
        let container = pool.container_or_create("home").await.expect("a container");
        let dfs = Dfs::mount(container, MountOptions::default()).await.expect("a filesystem");
        Self { dfs, client }
    }

    pub async fn check(&self) -> Result<CheckReport> {
        self.client.check(false).await
    }
}

/// Longest time that an operation of a fragile disk takes: so several are under way.
const LATENCY_MAX: Duration = Duration::from_micros(300);

/// A disk that a fault can be aimed at.
#[must_use]
pub fn fragile(disk: Rc<MemDevice>, handle: &Handle, seed: u64) -> Rc<FaultDevice> {
    let disk = FaultDevice::new(disk, handle.clone(), seed);
    disk.set_latency_max(LATENCY_MAX);
    disk
}
