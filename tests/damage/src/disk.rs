//! A disk, what is where on it, and a machine that boots from it.

use std::rc::Rc;
use std::sync::Arc;

use daos_client::{Client, Container};
use daos_media::{Device, How, IoBuf, MemDevice};
use daos_types::TargetId;
use daos_types::rpc::Finding;
use daos_vos::{OpenError, OpenOptions, Store, Sync, Vos, VosOptions};
use daos_xstream::Handle;
use dfs::{Dfs, MountOptions};

/// What a byte of the disk belongs to, as far as its address and the magic number before it tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    Label,
    Header,
    Strip,
    Wal,
    /// The segment table and the root.
    Fixed,
    Bucket,
    Data,
}

const STRIP_AT: u64 = 1 << 20;
const WAL_AT: u64 = 8 << 20;
const BUCKET: u64 = 16384;
const BLOCK: u64 = 4096;
/// Buckets that each store begins with: the table and the root.
const FIXED: u64 = 2;

/// Blocks that hold anything, with what they are: 4 KiB each, 16 KiB for buckets.
pub async fn regions(disk: &MemDevice, space_at: u64) -> Vec<(Region, u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < disk.size() {
        let bytes = disk.read(IoBuf::zeroed(BUCKET as usize), at, How::Buffered).await;
        let bytes = bytes.expect("a disk in memory");
        if at >= space_at && bytes.starts_with(b"dBKT") {
            let fixed = at < space_at + FIXED * BUCKET;
            found.push((if fixed { Region::Fixed } else { Region::Bucket }, at, BUCKET));
        } else {
            for (index, block) in bytes.chunks(BLOCK as usize).enumerate() {
                let address = at + index as u64 * BLOCK;
                if block.iter().any(|byte| *byte != 0) {
                    found.push((region(address, space_at), address, BLOCK));
                }
            }
        }
        at += BUCKET;
    }
    found
}

fn region(address: u64, space_at: u64) -> Region {
    match address {
        0..8192 => Region::Label,
        8192..STRIP_AT => Region::Header,
        STRIP_AT..WAL_AT => Region::Strip,
        _ if address < space_at => Region::Wal,
        _ => Region::Data,
    }
}

/// Flips bits of one byte.
pub async fn flip(disk: &MemDevice, address: u64, mask: u8) {
    let sector = address - address % 512;
    let mut bytes = disk.read(IoBuf::zeroed(512), sector, How::Buffered).await.expect("in memory");
    bytes[(address - sector) as usize] ^= mask;
    disk.write(bytes.into_bytes(), sector, How::Buffered).await.expect("in memory");
}

/// A store that was opened, and the way to its filesystem.
pub struct Machine {
    pub vos: Rc<Vos>,
    pub client: Client,
}

impl Machine {
    pub async fn open(
        disk: Rc<dyn Device>,
        handle: &Handle,
        read_only: bool,
    ) -> Result<Self, OpenError> {
        let options =
            OpenOptions { target: TargetId(0), memory_buckets: 256, sync: Sync::Posix, read_only };
        let store = Store::open(disk, handle.clone(), options).await?;
        let vos = Vos::open(store, handle.clone(), VosOptions::default()).await?;
        let client = Client::new(vec![daos_server::serve_local(handle, vos.clone())]);
        Ok(Self { vos, client })
    }

    pub async fn container(&self) -> daos_types::Result<Container> {
        self.client.pool("default").await?.container("home").await
    }

    /// Reads as programs do; writes nothing.
    pub async fn mount(&self) -> dfs::Result<Arc<Dfs>> {
        let options = MountOptions { read_only: true, ..MountOptions::default() };
        Dfs::mount(self.container().await?, options).await
    }
}

/// Every finding of a whole scrub.
pub async fn scrub(client: &Client) -> daos_types::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut scrub = client.scrub();
    while let Some(step) = scrub.step(1 << 20).await? {
        found.extend(step.findings);
    }
    Ok(found)
}

/// Until one of both is done.
pub async fn race(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    futures_lite::future::or(one, other).await;
}
