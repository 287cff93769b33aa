//! One mounted container: what every call works with, and how it begins and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use daos_client::Container;
use daos_types::{BLOCK_BYTES, Epoch};

use crate::atime::Atimes;
use crate::budget::Budget;
use crate::cache::Cache;
use crate::handles::Handles;
use crate::lock::Lock;
use crate::names::Names;
use crate::numbers::Numbers;
use crate::superblock::{self, Superblock};
use crate::table::Table;
use crate::{Error, Ino, Result};

const INODES_MAX_DEFAULT: usize = 262_144;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Refuse every change.
    pub read_only: bool,
    /// Mount a snapshot (implies `read_only`).
    pub epoch: Option<Epoch>,
    /// Keep inode records and sizes in memory. Right while this mount is the container's only writer.
    pub cache_attributes: bool,
    /// Bytes of file data to keep in memory, with `cache_attributes`; 0: none.
    pub cache_bytes: usize,
    /// How many inodes to remember, with whom else has this.
    pub budget: Arc<Budget>,
    /// Most open files.
    pub handles_max: usize,
    /// Reads move access times, by the rule of relatime.
    pub atime: bool,
    /// Owner of the root directory, if the filesystem is made now.
    pub owner: (u32, u32),
    /// Bytes of a chunk of a file, if the filesystem is made now: a multiple of 4096.
    pub chunk_bytes: u64,
    /// Nanoseconds since the Unix epoch; tests bring their own.
    pub clock: fn() -> u64,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            epoch: None,
            cache_attributes: true,
            cache_bytes: 0,
            budget: Budget::new(INODES_MAX_DEFAULT),
            handles_max: 1 << 20,
            atime: true,
            owner: (0, 0),
            chunk_bytes: superblock::CHUNK_BYTES_DEFAULT,
            clock: system_clock,
        }
    }
}

fn system_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// One mounted container.
pub struct Dfs {
    pub(crate) container: Container,
    pub(crate) read_only: bool,
    snapshot: bool,
    pub(crate) cache_attributes: bool,
    pub(crate) superblock: Superblock,
    pub(crate) table: Table,
    pub(crate) cache: Cache,
    pub(crate) names: Names,
    pub(crate) handles: Handles,
    pub(crate) numbers: Numbers,
    /// Names this mount's orphans: a number that it leased at its start and gives to no inode. 0: read-only.
    pub(crate) lease: u64,
    /// Reads move access times.
    pub(crate) atime: bool,
    pub(crate) atimes: Atimes,
    /// One rename at a time moves a directory to another parent (rename.rs).
    pub(crate) moving: Lock,
    /// Until then, what the kernel knows outlives its last name (unlink.rs).
    pub(crate) keep_known_until: AtomicU64,
    clock: fn() -> u64,
    latest: AtomicU64,
}

impl Dfs {
    /// Mounts the filesystem in `container`. An empty container gets one, unless the mount is read-only.
    pub async fn mount(container: Container, options: MountOptions) -> Result<Arc<Self>> {
        let container = match options.epoch {
            Some(epoch) => container.at(epoch),
            None => container,
        };
        let read_only = options.read_only || options.epoch.is_some();
        let superblock = match Superblock::read(&container).await {
            Err(Error::NotFormatted) if !read_only => {
                Self::format(&container, &options).await?;
                Superblock::read(&container).await?
            }
            read => read?,
        };
        let mut dfs = Self::new(container, superblock, &options);
        if !dfs.read_only {
            dfs.lease = dfs.numbers.next().await?.counter();
            dfs.reclaim_orphans().await?;
        }
        Ok(Arc::new(dfs))
    }

    async fn format(container: &Container, options: &MountOptions) -> Result<()> {
        if options.chunk_bytes == 0 || options.chunk_bytes % BLOCK_BYTES as u64 != 0 {
            return Err(Error::Invalid("a chunk is a multiple of 4096 bytes"));
        }
        let root = superblock::root_record(
            Ino::root(container.id()),
            options.owner.0,
            options.owner.1,
            options.chunk_bytes,
            (options.clock)(),
        );
        Superblock::format(container, &root).await
    }

    fn new(container: Container, superblock: Superblock, options: &MountOptions) -> Self {
        let read_only = options.read_only || options.epoch.is_some() || superblock.read_only;
        Self {
            numbers: Numbers::new(container.clone()),
            container,
            read_only,
            snapshot: options.epoch.is_some(),
            atime: options.atime && !read_only,
            atimes: Atimes::default(),
            cache_attributes: options.cache_attributes,
            superblock,
            table: Table::new(options.budget.clone()),
            names: Names::new(match options.cache_attributes {
                true => options.budget.inodes_max(),
                false => 0,
            }),
            cache: Cache::new(if options.cache_attributes { options.cache_bytes } else { 0 }),
            handles: Handles::new(options.handles_max),
            lease: 0,
            moving: Lock::default(),
            clock: options.clock,
            keep_known_until: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }

    /// Everything on stable media; inodes that have neither name nor handle are reclaimed.
    pub async fn unmount(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.store_atimes(1).await;
        self.reclaim_orphans().await?;
        self.sync().await
    }

    /// Everything acknowledged is on stable media.
    pub async fn sync(&self) -> Result<()> {
        Ok(self.container.client().sync().await?)
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Ino {
        Ino::root(self.container.id())
    }

    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    /// Whether it remembers inodes: nobody else changes them.
    #[must_use]
    pub fn caches_attributes(&self) -> bool {
        self.cache_attributes
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn clock(&self) -> u64 {
        (self.clock)()
    }

    /// Now, in nanoseconds; later than every time that this mount said before.
    pub(crate) fn now(&self) -> u64 {
        let clock = self.clock();
        let before = self.latest.fetch_max(clock, Ordering::Relaxed);
        if before < clock {
            return clock;
        }
        // The clock stands still, or went back.
        self.latest.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ours, by container; `.` and `..` are not stored.
    pub(crate) fn own(&self, ino: Ino) -> Result<()> {
        if ino.container() == self.container.id() { Ok(()) } else { Err(Error::Stale) }
    }
}
