//! The containers that a mount shows: the one it was asked for, and those that entry points in it stand for, each opened when it is
//! first come to.
//!
//! # Invariants
//! 1. A container is open once. It stays open until the mount ends or the container is destroyed.
//! 2. At most [`CONTAINERS_MAX`] are open.
//!
//! # Not here
//! What a call does in one of them (dfs), and which of them it is for (`namespace.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use daos_client::{Client, Container, Pool};
use daos_types::rpc::ContainerInfo;
use daos_types::{ContainerId, Noun};
use dfs::uns::{Broken, EntryPoint};
use dfs::{CachingAttributes, DataCache, Dfs, Error, How, Ino, Lock, MountOptions, Report, Result};

use crate::ops::{Caching, DataCaching};

const CONTAINERS_MAX: usize = 1024;
/// Closed files whose last close is remembered.
const CLOSES_MAX: usize = 1 << 16;

/// A container that is open.
pub struct Shown {
    pub dfs: Arc<Dfs>,
    container: Container,
    caching: RwLock<Caching>,
    closes: Mutex<HashMap<Ino, Uses>>,
    /// The directory that holds the entry point through which it was found first; not known of one that was found by a handle.
    above: RwLock<Option<Ino>>,
}

/// How a file is being used, while its pages may stay for a time only.
#[derive(Default)]
struct Uses {
    open: u32,
    closed: Option<Instant>,
}

impl Shown {
    /// Its attributes are not known yet: [`Self::reload`].
    pub fn new(dfs: Arc<Dfs>, container: Container, above: Option<Ino>) -> Self {
        let caching = RwLock::new(Caching::ALL);
        Self { dfs, container, caching, closes: Mutex::default(), above: RwLock::new(above) }
    }

    pub fn above(&self) -> Option<Ino> {
        *self.above.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of one whose `above` was not known, `above` is, which is not inside of it.
    fn learn_above(&self, above: Ino) {
        if self.above().is_none() {
            *self.above.write().unwrap_or_else(PoisonError::into_inner) = Some(above);
        }
    }

    pub fn id(&self) -> ContainerId {
        self.container.id()
    }

    pub fn caching(&self) -> Caching {
        if !self.dfs.caches_attributes() {
            // It changes without this mount.
            return Caching::NONE;
        }
        *self.caching.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// As an xattr would name it.
    pub fn text(&self) -> String {
        let pool = self.container.pool().id().0.to_string();
        EntryPoint { pool, container: self.container.info().uuid.to_string() }.to_string()
    }

    /// What its attributes say counts from now on.
    pub async fn reload(&self) -> Result<()> {
        let attributes = self.container.attributes().await?;
        let pairs = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (read, wrong) = CachingAttributes::read(pairs);
        let label = &self.container.info().label;
        for why in wrong {
            tracing::warn!("container {label}: an attribute is passed over: {why}");
        }
        let caching = caching_of(&read, label);
        *self.caching.write().unwrap_or_else(PoisonError::into_inner) = caching;
        Ok(())
    }

    fn closes(&self) -> std::sync::MutexGuard<'_, HashMap<Ino, Uses>> {
        self.closes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file was opened; whether the pages that the kernel has of it may still be used.
    pub fn opened(&self, ino: Ino) -> bool {
        let DataCaching::For(time) = self.caching().data else { return true };
        let mut closes = self.closes();
        let uses = closes.entry(ino).or_default();
        let fresh = uses.closed.is_some_and(|closed| closed.elapsed() < time);
        uses.open += 1;
        uses.open > 1 || fresh
    }

    /// Counted whatever holds now: the file may have been opened when pages stayed for a time only, and they may again.
    pub fn closed(&self, ino: Ino) {
        let data = self.caching().data;
        let mut closes = self.closes();
        let Some(uses) = closes.get_mut(&ino) else { return };
        uses.open = uses.open.saturating_sub(1);
        uses.closed = Some(Instant::now());
        let counts = matches!(data, DataCaching::For(time) if !time.is_zero());
        if uses.open == 0 && !counts {
            closes.remove(&ino);
        }
        if closes.len() > CLOSES_MAX {
            closes.retain(|_, uses| uses.open > 0);
        }
    }
}

/// What the kernel may keep, of a container with these attributes.
fn caching_of(attributes: &CachingAttributes, label: &str) -> Caching {
    let all = Caching::ALL;
    let direct_io_disable = attributes.direct_io_disable.unwrap_or(false);
    let data = match attributes.data {
        Some(DataCache::Off) if direct_io_disable => {
            tracing::warn!(
                "container {label}: dfuse-direct-io-disable cannot be on while dfuse-data-cache is off; data is cached"
            );
            DataCaching::Kept
        }
        Some(DataCache::Off) => DataCaching::Not,
        Some(DataCache::OpenToClose) => DataCaching::For(Duration::ZERO),
        Some(DataCache::For(time)) => DataCaching::For(time),
        Some(DataCache::On) | None => DataCaching::Kept,
    };
    Caching {
        attr: attributes.attr.unwrap_or(all.attr),
        dentry: attributes.dentry.unwrap_or(all.dentry),
        dentry_dir: attributes.dentry_dir.or(attributes.dentry).unwrap_or(all.dentry_dir),
        ndentry: attributes.ndentry.unwrap_or(all.ndentry),
        data,
        direct_io_disable,
    }
}

/// A filesystem that was checked.
#[derive(Debug, serde::Serialize)]
pub struct Checked {
    pub pool: String,
    pub container: String,
    pub report: Report,
}

/// All that are open.
pub struct Containers {
    client: Client,
    /// For those that are opened later.
    options: MountOptions,
    root: Arc<Shown>,
    others: RwLock<HashMap<ContainerId, Arc<Shown>>>,
    /// One is opened at a time (invariant 1).
    opening: Lock,
}

impl Containers {
    pub fn new(client: Client, options: MountOptions, root: Shown) -> Self {
        let (root, others) = (Arc::new(root), RwLock::default());
        Self { client, options, root, others, opening: Lock::default() }
    }

    pub fn root(&self) -> &Arc<Shown> {
        &self.root
    }

    /// If it is open.
    pub fn get(&self, id: ContainerId) -> Option<Arc<Shown>> {
        if id == self.root.id() {
            return Some(self.root.clone());
        }
        self.others.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The container of an inode, for a handle that outlived a mount too.
    pub async fn of(&self, ino: Ino) -> Result<Arc<Shown>> {
        let id = ino.container();
        match self.get(id) {
            Some(shown) => Ok(shown),
            // Apart, as all that is rare: every request's future would have room for it.
            None => Box::pin(self.open_by_number(id)).await,
        }
    }

    async fn open_by_number(&self, id: ContainerId) -> Result<Arc<Shown>> {
        for pool in self.client.pools().await? {
            let pool = self.client.pool(&pool.id.0.to_string()).await?;
            let found = pool.containers().await?.into_iter().find(|info| info.id == id);
            if let Some(info) = found {
                let container = pool.container(&info.uuid.to_string()).await?;
                return self.open(container, None, self.options.owner).await;
            }
        }
        Err(Error::Stale)
    }

    /// What an entry point in `above`, a directory of `from`, shows.
    ///
    /// # Errors
    /// `EntryPoint`: nothing, and why; others come and go.
    pub async fn behind(&self, text: &[u8], from: &Shown, above: Ino) -> Result<Arc<Shown>> {
        let point = EntryPoint::parse(text).map_err(|why| {
            tracing::warn!("the entry point {above}/...: {why}");
            Error::EntryPoint(Broken::Unreadable)
        })?;
        let container = self.find(&point).await?;
        if self.is_above(container.id(), from) {
            return Err(Error::EntryPoint(Broken::Loop));
        }
        match self.open(container, Some(above), self.options.owner).await {
            Err(Error::NotFormatted | Error::Foreign(_) | Error::Newer(_)) => {
                Err(Error::EntryPoint(Broken::Unreadable))
            }
            Ok(shown) => {
                if shown.id() != self.root.id() {
                    shown.learn_above(above);
                }
                Ok(shown)
            }
            Err(error) => Err(error),
        }
    }

    pub async fn find(&self, point: &EntryPoint) -> Result<Container> {
        let found = async {
            let pool: Pool = self.client.pool(&point.pool).await?;
            pool.container(&point.container).await
        };
        found.await.map_err(|error| match error {
            daos_types::Error::NonExistent(Noun::Pool | Noun::Container) => {
                Error::EntryPoint(Broken::Gone)
            }
            error => error.into(),
        })
    }

    /// Is `id` the container `from`, or one on the way to it?
    fn is_above(&self, id: ContainerId, from: &Shown) -> bool {
        let mut at = from.id();
        for _ in 0..=CONTAINERS_MAX {
            if at == id {
                return true;
            }
            match self.get(at).and_then(|shown| shown.above()) {
                Some(above) => at = above.container(),
                None => return id == self.root.id(),
            }
        }
        true
    }

    /// Opens a container that is not open yet; one without a filesystem gets one, which `owner` owns.
    pub async fn open(
        &self,
        container: Container,
        above: Option<Ino>,
        owner: (u32, u32),
    ) -> Result<Arc<Shown>> {
        if let Some(shown) = self.get(container.id()) {
            return Ok(shown);
        }
        self.opening.acquire(How::Exclusive).await;
        let _opening = Opening(&self.opening);
        self.open_alone(container, above, owner).await
    }

    async fn open_alone(
        &self,
        container: Container,
        above: Option<Ino>,
        owner: (u32, u32),
    ) -> Result<Arc<Shown>> {
        if let Some(shown) = self.get(container.id()) {
            return Ok(shown);
        }
        if self.len() >= CONTAINERS_MAX {
            return Err(Error::TooManyOpen { max: CONTAINERS_MAX });
        }
        let options = MountOptions { owner, ..self.options.clone() };
        let dfs = Dfs::mount(container.clone(), options).await?;
        let shown = Arc::new(Shown::new(dfs, container, above));
        shown.reload().await?;
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.insert(shown.id(), shown.clone());
        Ok(shown)
    }

    /// Those that are opened later change without this mount.
    pub fn change_elsewhere(&self) -> bool {
        !self.options.cache_attributes
    }

    pub fn len(&self) -> usize {
        1 + self.others.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Attributes have changed, or the container is gone.
    pub async fn changed(&self, id: ContainerId) {
        let Some(shown) = self.get(id) else { return };
        match shown.reload().await {
            Err(Error::Engine(daos_types::Error::NonExistent(_))) => {
                self.others.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
            Err(error) => tracing::error!("reading the attributes of container {id:?}: {error}"),
            Ok(()) => {}
        }
    }

    /// Checks every filesystem of the store as it is now, while it is in use. One that is not open is not opened meanwhile.
    pub async fn check(&self) -> Result<Vec<Checked>> {
        let mut checked = Vec::new();
        for pool in self.client.pools().await? {
            let pool = self.client.pool(&pool.id.0.to_string()).await?;
            for info in pool.containers().await? {
                if let Some(report) = self.check_one(&pool, &info).await? {
                    let (pool, container) = (pool.label().to_owned(), info.label);
                    checked.push(Checked { pool, container, report });
                }
            }
        }
        Ok(checked)
    }

    async fn check_one(&self, pool: &Pool, info: &ContainerInfo) -> Result<Option<Report>> {
        let live = |shown: &Arc<Shown>| !shown.dfs.is_snapshot();
        self.opening.acquire(How::Exclusive).await;
        let opening = Opening(&self.opening);
        if let Some(shown) = self.get(info.id).filter(live) {
            // It is open, and others may be.
            drop(opening);
            return shown.dfs.check(|_| {}).await.map(Some);
        }
        match pool.container(&info.uuid.to_string()).await {
            Ok(container) => dfs::check(&container).await,
            // Destroyed since the list was made.
            Err(daos_types::Error::NonExistent(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The end of all of them.
    pub async fn unmount(&self) -> Result<()> {
        let others: Vec<_> = {
            let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
            others.drain().map(|(_, shown)| shown).collect()
        };
        let mut ended = self.root.dfs.unmount().await;
        for shown in others {
            ended = ended.and(shown.dfs.unmount().await);
        }
        ended
    }
}

/// The turn to open a container, given back also by a call that is dropped.
struct Opening<'a>(&'a Lock);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.release(How::Exclusive);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use daos_model::spawn_model;
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    /// The container `home` of a new store, which has another, `data`.
    pub(crate) async fn two_containers() -> (Containers, Container) {
        let client = Client::new(vec![spawn_model()]);
        let pool = client.pool_or_create("default").await.unwrap();
        let home = pool.container_or_create("home").await.unwrap();
        let data = pool.container_or_create("data").await.unwrap();
        let dfs = Dfs::mount(home.clone(), MountOptions::default()).await.unwrap();
        let root = Shown::new(dfs, home, None);
        (Containers::new(client, MountOptions::default(), root), data)
    }

    fn set_data(shown: &Shown, data: DataCaching) {
        shown.caching.write().unwrap().data = data;
    }

    #[test]
    fn a_close_is_counted_whatever_the_attribute_says_meanwhile() {
        let (containers, _) = block_on(two_containers());
        let shown = containers.root();
        let ino = shown.dfs.root();
        let zero = DataCaching::For(Duration::ZERO);
        for meanwhile in [DataCaching::Kept, DataCaching::Not, zero] {
            set_data(shown, zero);
            assert!(!shown.opened(ino));
            set_data(shown, meanwhile);
            shown.closed(ino);
            set_data(shown, zero);
            assert!(!shown.opened(ino), "nobody has it open, so its pages are gone");
            assert!(shown.opened(ino), "somebody has it open");
            shown.closed(ino);
            shown.closed(ino);
            assert!(shown.closes().is_empty());
        }
    }

    #[test]
    fn a_first_look_at_a_container_that_is_dropped_keeps_nobody_waiting() {
        let (done, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            block_on(async {
                let (containers, data) = two_containers().await;
                let first = poll_once(containers.open(data.clone(), None, (0, 0))).await;
                assert!(first.is_none_or(|first| first.is_ok()));
                let _ = done.send(containers.open(data, None, (0, 0)).await.is_ok());
            });
        });
        assert_eq!(opened.recv_timeout(Duration::from_secs(20)), Ok(true));
    }

    fn read(attributes: &[(&str, &str)]) -> Caching {
        let (read, wrong) = CachingAttributes::read(attributes.iter().copied());
        assert!(wrong.is_empty(), "{wrong:?}");
        caching_of(&read, "test")
    }

    #[test]
    fn attributes_change_what_they_name_and_nothing_else() {
        let (all, second) = (Caching::ALL, Duration::from_secs(1));
        assert_eq!(read(&[]), all);
        assert_eq!(read(&[("dfuse-attr-time", "1")]), Caching { attr: second, ..all });
        let both = Caching { dentry: second, dentry_dir: second, ..all };
        assert_eq!(read(&[("dfuse-dentry-time", "1s")]), both);
        let apart = [("dfuse-dentry-time", "1"), ("dfuse-dentry-dir-time", "1m")];
        let minute = Duration::from_secs(60);
        assert_eq!(read(&apart), Caching { dentry: second, dentry_dir: minute, ..all });
        assert_eq!(read(&[("dfuse-ndentry-time", "0")]).ndentry, Duration::ZERO);
    }

    #[test]
    fn data_is_cached_as_the_attributes_say() {
        let data = |value| read(&[("dfuse-data-cache", value)]).data;
        assert_eq!(data("on"), DataCaching::Kept);
        assert_eq!(data("off"), DataCaching::Not);
        assert_eq!(data("otoc"), DataCaching::For(Duration::ZERO));
        assert_eq!(data("2m"), DataCaching::For(Duration::from_secs(120)));
        let forced = read(&[("dfuse-data-cache", "off"), ("dfuse-direct-io-disable", "on")]);
        assert_eq!((forced.data, forced.direct_io_disable), (DataCaching::Kept, true));
    }
}
