//! One target's object store: every request of `daos_types::rpc`, over buckets and blocks.
//!
//! # Order
//! A request holds no borrow of the store between awaits. Locks (lock.rs) come before reservations, reservations before
//! closures; nobody waits for a lock inside one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use daos_types::rpc::{Reply, Request, TargetUsage};
use daos_types::{BLOCK_BYTES, ContainerId, Result};
use daos_xstream::sync::Notify;
use daos_xstream::{Handle, Stage};

use crate::guess::Guesses;
use crate::key::DkeyHash;
use crate::lock::Locks;
use crate::roots::Roots;
use crate::store::{Store, Tx, TxOptions, View};
use crate::tail::Tails;
use crate::watch::Watches;

/// How a target's objects are kept.
#[derive(Clone, Copy, Debug)]
pub struct VosOptions {
    /// Bits of the dkey hash that are used, at most 55. Fewer make collisions: for tests.
    pub hash_bits: u32,
}

impl Default for VosOptions {
    fn default() -> Self {
        Self { hash_bits: 55 }
    }
}

pub struct Vos {
    pub(crate) store: Store,
    pub(crate) roots: Roots,
    pub(crate) handle: Handle,
    pub(crate) locks: Locks,
    pub(crate) guesses: Guesses,
    pub(crate) tails: Tails,
    pub(crate) watches: Watches,
    /// There is something to reclaim or to sweep.
    pub(crate) background: Notify,
    /// While a check runs, nothing is given back in the background.
    pub(crate) checking: Cell<bool>,
    /// How far the sweep of a container's history has come.
    pub(crate) sweeps: RefCell<HashMap<ContainerId, Vec<u8>>>,
    counts: RefCell<Vec<(&'static str, u64)>>,
    options: VosOptions,
}

impl Vos {
    /// The objects in an open store; a new store gets its first trees.
    ///
    /// # Errors
    /// Those of reading the root, or of writing it.
    pub async fn open(store: Store, handle: Handle, options: VosOptions) -> Result<Rc<Self>> {
        let bucket = store.root();
        let (found, _) = store.view(|pages: &View<'_>| Roots::read(pages, bucket)).await?;
        let roots = match found {
            Some(roots) => roots,
            None => {
                let seed = handle.random_u64();
                let create = |tx: &mut Tx<'_>| Roots::create(tx, bucket, seed);
                let done = store.transact(TxOptions::default(), create).await?;
                store.acknowledged(done.lsn).await?;
                let (roots, _) = store.view(|pages: &View<'_>| Roots::read(pages, bucket)).await?;
                roots.expect("just written")
            }
        };
        let vos = Rc::new(Self {
            store,
            roots,
            handle,
            locks: Locks::default(),
            guesses: Guesses::default(),
            tails: Tails::default(),
            watches: Watches::default(),
            background: Notify::new(),
            checking: Cell::new(false),
            sweeps: RefCell::default(),
            counts: RefCell::default(),
            options,
        });
        vos.start_background();
        Ok(vos)
    }

    /// Answers a request. Must be polled to its end: a change whose future is dropped is *unknown*.
    ///
    /// # Errors
    /// As `daos_types::Error` says.
    pub async fn handle(&self, request: Request) -> Result<Reply> {
        Stage::Admit.enter();
        request.validate()?;
        self.count(name_of(&request));
        match request {
            Request::Transact(transact) => self.transact(&transact).await,
            Request::Fetch(fetch) => self.fetch(&fetch).await,
            Request::List(list) => self.list(&list).await,
            Request::Extents(extents) => self.extents(&extents).await,
            Request::Sync => self.store.force().await.map(|()| Reply::Done),
            Request::PoolCreate { id, label } => self.pool_create(id, &label).await,
            Request::PoolList => self.pool_list().await,
            Request::ContainerCreate { pool, info } => self.container_create(pool, info).await,
            Request::ContainerDestroy { pool, id } => self.container_destroy(pool, id).await,
            Request::ContainerList { pool } => self.container_list(pool).await,
            Request::ContainerQuery { pool, id } => self.container_query(pool, id).await,
            Request::ContainerSetProps { pool, id, label, quota } => {
                self.container_set_props(pool, id, label, quota).await
            }
            Request::ContainerSetAttributes { container, attributes } => {
                self.container_set_attributes(container, attributes).await
            }
            Request::ContainerAttributes { container } => {
                self.container_attributes(container).await
            }
            Request::SnapshotCreate { container, name } => {
                self.snapshot_create(container, name).await
            }
            Request::SnapshotDestroy { container, epoch } => {
                self.snapshot_destroy(container, epoch).await
            }
            Request::SnapshotList { container } => self.snapshot_list(container).await,
            Request::Query => Ok(Reply::Usage(self.usage())),
            Request::Check { repair } => self.check(repair).await.map(Reply::Checked),
            Request::Scrub(scrub) => self.scrub(&scrub).await.map(Reply::Scrubbed),
        }
    }

    /// Leaves everything on stable media, in its place. Nothing is asked afterwards.
    ///
    /// # Errors
    /// `Latched`: what was above the commit mark is not there at the next open.
    pub async fn stop(&self) -> Result<()> {
        self.store.clone().stop().await
    }

    /// The store below, for counters and tests.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn hash(&self) -> DkeyHash {
        DkeyHash { seed: self.roots.seed, bits: self.options.hash_bits }
    }

    pub(crate) fn count(&self, name: &'static str) {
        let mut counts = self.counts.borrow_mut();
        match counts.iter_mut().find(|(there, _)| *there == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }

    /// What was asked and planned here; what the store below has counted is among what `Query` answers.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counts.borrow().clone()
    }

    fn usage(&self) -> TargetUsage {
        let space = self.store.space();
        let bytes = |blocks: u64| blocks * BLOCK_BYTES as u64;
        let store = self.store.counters().into_iter();
        let counters = self.counters().into_iter().chain(store);
        TargetUsage {
            capacity: bytes(space.capacity_blocks),
            free: bytes(space.free_blocks),
            reserve: bytes(space.reserve_blocks),
            metadata: bytes(space.metadata_blocks),
            counters: counters.map(|(name, count)| (name.to_owned(), count)).collect(),
            latched: self.store.latched().map(|reason| reason.to_string()),
        }
    }
}

/// Of a counter.
fn name_of(request: &Request) -> &'static str {
    match request {
        Request::Transact(_) => "requests_transact",
        Request::Fetch(_) => "requests_fetch",
        Request::List(_) => "requests_list",
        Request::Extents(_) => "requests_extents",
        Request::Sync => "requests_sync",
        _ => "requests_other",
    }
}
