//! Snapshots beside the mount that a daemon was started for: mounted by it when a second `dfuse --snap` asks, because one process
//! holds a store.
//!
//! # Invariants
//! 1. The unmount of one ends nothing else; the end of the daemon takes all of them away, in use or not.
//! 2. Nothing is mounted that is being destroyed, nor destroyed while it is mounted: both are claimed, under one lock, before they
//!    begin. That lock is never held while anything is waited for: a mountpoint may hang (a dead NFS, a FUSE that does not
//!    answer), and hangs only who is there.
//! 3. What such a mount shows of other containers (entry points in the snapshot) is kept nowhere: they change without it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use daos_client::Client;
use daos_server::control::{Answer, Ask, Failure, FailureKind};
use daos_server::{Claim, Door, mounts};
use daos_types::{ContainerId, Epoch};
use dfs::Budget;
use futures_lite::future::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::daemon::{self, DRAIN_PATIENCE};
use crate::door::Desk;
use crate::error::Error;
use crate::exec::Executor;
use crate::fuse::{self, Mounted, Requests, Unmounted, Unmounter};
use crate::mountpoint::{self, Verdict};
use crate::namespace::Namespace;
use crate::options::{MountFlags, Settings};
use crate::signals::Signals;

/// Mounts of one daemon.
const SNAPSHOTS_MAX: usize = 64;
/// For mountpoints that do not answer, when the daemon ends: their mounts lose their connection with it.
const HANGING_PATIENCE: Duration = Duration::from_secs(5);

/// What a mount beside shows: a snapshot, or with none any of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub container: ContainerId,
    pub snapshot: Option<Epoch>,
}

impl Shown {
    fn covers(self, other: Self) -> bool {
        self.container == other.container
            && (self.snapshot.is_none() || self.snapshot == other.snapshot)
    }
}

/// One mount, as the control socket tells of it and asks it.
pub struct View {
    pub settings: Settings,
    pub snapshot: Option<Epoch>,
    pub namespace: Arc<Namespace>,
    pub executor: Executor,
    pub requests: Arc<Requests>,
    /// Where programs come in beside the kernel.
    pub desk: Option<Arc<Desk>>,
    /// `st_dev` of what is in it.
    pub device: Option<(u32, u32)>,
}

impl View {
    pub fn new(
        settings: Settings,
        snapshot: Option<Epoch>,
        namespace: Arc<Namespace>,
        mounted: &Mounted<Namespace>,
    ) -> Self {
        let (executor, requests, desk) = (mounted.executor(), mounted.requests(), mounted.desk());
        let device = mounted.device();
        Self { settings, snapshot, namespace, executor, requests, desk, device }
    }
}

/// What a second dfuse asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    mountpoint: PathBuf,
    pool: String,
    container: String,
    snap: String,
    threads: usize,
    caching: bool,
    cache: Option<u64>,
    flags: MountFlags,
    /// The mount namespace in which `mountpoint` means what it says.
    #[serde(default)]
    namespace: Option<(u64, u64)>,
}

struct Served {
    view: Arc<View>,
    unmounter: Mutex<Unmounter>,
}

impl Served {
    fn shown(&self) -> Shown {
        let container = self.view.namespace.containers.root().id();
        Shown { container, snapshot: self.view.snapshot }
    }
}

/// Something that is about to happen to what is shown.
struct Plan {
    number: u64,
    shown: Shown,
    /// `None`: it is to be destroyed.
    mountpoint: Option<PathBuf>,
}

/// A plan that stands until this is dropped.
pub struct Claimed {
    beside: Arc<Beside>,
    number: u64,
}

impl Claim for Claimed {}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.beside.state().plans.retain(|plan| plan.number != self.number);
        self.beside.planned.notify_all();
    }
}

/// The snapshots that this daemon has mounted beside.
pub struct Beside {
    client: Client,
    /// Of the daemon's own mount.
    settings: Settings,
    /// What it knows of inodes, and they with it.
    budget: Arc<Budget>,
    state: Mutex<State>,
    /// A plan has ended.
    planned: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    served: Vec<Arc<Served>>,
    plans: Vec<Plan>,
    last_plan: u64,
}

impl State {
    /// Those that are being mounted.
    fn mounting(&self) -> impl Iterator<Item = (Shown, &PathBuf)> {
        self.plans.iter().filter_map(|plan| Some((plan.shown, plan.mountpoint.as_ref()?)))
    }
}

impl Beside {
    pub fn new(client: Client, settings: Settings, budget: Arc<Budget>) -> Arc<Self> {
        let (state, planned) = (Mutex::default(), Condvar::new());
        Arc::new(Self { client, settings, budget, state, planned })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn views(&self) -> Vec<Arc<View>> {
        self.state().served.iter().map(|served| served.view.clone()).collect()
    }

    /// Where this is mounted, or about to be.
    pub fn shows(&self, shown: Shown) -> Option<String> {
        shows(&self.state(), shown)
    }

    /// Keeps this from being mounted; or says where it is.
    pub fn claim_to_destroy(self: &Arc<Self>, shown: Shown) -> Result<Claimed, String> {
        let mut state = self.state();
        match shows(&state, shown) {
            Some(how) => Err(how),
            None => Ok(self.plan(&mut state, shown, None)),
        }
    }

    fn claim_to_mount(self: &Arc<Self>, shown: Shown, at: &Path) -> Result<Claimed, Failure> {
        let mut state = self.state();
        if state.closed {
            return Err(stopped());
        }
        if state.served.len() + state.mounting().count() >= SNAPSHOTS_MAX {
            let why = format!("{SNAPSHOTS_MAX} snapshots are mounted, and more cannot be");
            return Err(Failure::new(FailureKind::Failed, why));
        }
        let dooms = |plan: &Plan| plan.mountpoint.is_none() && plan.shown.covers(shown);
        if state.plans.iter().any(dooms) {
            return Err(Failure::new(FailureKind::InUse, "the snapshot is being destroyed"));
        }
        Ok(self.plan(&mut state, shown, Some(at.to_owned())))
    }

    fn plan(
        self: &Arc<Self>,
        state: &mut State,
        shown: Shown,
        mountpoint: Option<PathBuf>,
    ) -> Claimed {
        state.last_plan += 1;
        let number = state.last_plan;
        state.plans.push(Plan { number, shown, mountpoint });
        Claimed { beside: self.clone(), number }
    }

    /// Mounts what `arguments` ask for; the sentence for who asked.
    pub fn mount(self: &Arc<Self>, arguments: serde_json::Value) -> Result<String, Failure> {
        let request: Request = serde_json::from_value(arguments)
            .map_err(|e| Failure::new(FailureKind::Protocol, e.to_string()))?;
        if let (Some(theirs), Some(ours)) = (request.namespace, mount_namespace())
            && theirs != ours
        {
            let why = format!(
                "process {} holds the store and is in another mount namespace (another container, or another `unshare -m`): what it mounts would not be seen at {} here. Mount the snapshot from there",
                std::process::id(),
                request.mountpoint.display()
            );
            return Err(Failure::new(FailureKind::Failed, why));
        }
        let settings = Settings {
            mountpoint: request.mountpoint,
            pool: request.pool,
            container: request.container,
            snap: Some(request.snap),
            threads: request.threads,
            caching: request.caching,
            cache: request.cache,
            flags: request.flags,
            ..self.settings.clone()
        };
        let failed = |why: Error| Failure::new(FailureKind::Failed, why.to_string());
        mountpoint::apart(&settings.store, &settings.mountpoint)
            .map_err(|why| failed(Error::Mountpoint(why)))?;
        if let Verdict::Refused(why) = mountpoint::judge(&settings.mountpoint) {
            return Err(failed(Error::Mountpoint(why)));
        }
        let container = block_on(async {
            self.client.pool(&settings.pool).await?.container(&settings.container).await
        })?;
        let snap = settings.snap.as_deref().expect("set above");
        let find = || block_on(daos_server::find_snapshot(&container, snap));
        let epoch = find()?.epoch;
        let shown = Shown { container: container.id(), snapshot: Some(epoch) };
        let claim = self.claim_to_mount(shown, &settings.mountpoint)?;
        // It may have been destroyed before it was claimed; from now on it is not.
        find()?;
        let client = self.client.clone();
        let (budget, at) = (self.budget.clone(), Some(epoch));
        let namespace = daemon::open_namespace(&settings, client, budget, container, at, true)
            .map_err(failed)?;
        let mounted = daemon::mount(&settings, namespace.clone()).map_err(failed)?;
        let greeting = daemon::greeting(&settings, None);
        let mut state = self.state();
        if state.closed {
            drop(state);
            // The mount goes with it, and then the claim that `close` waits for.
            drop(mounted);
            return Err(stopped());
        }
        let served = self.serve(settings, epoch, namespace, mounted);
        state.served.push(served.map_err(failed)?);
        drop(state);
        drop(claim);
        tracing::info!("{greeting}");
        Ok(greeting)
    }

    fn serve(
        self: &Arc<Self>,
        settings: Settings,
        epoch: Epoch,
        namespace: Arc<Namespace>,
        mut mounted: Mounted<Namespace>,
    ) -> Result<Arc<Served>, Error> {
        let unmounter = Mutex::new(mounted.unmounter());
        let view = View::new(settings, Some(epoch), namespace, &mounted);
        let served = Arc::new(Served { view: Arc::new(view), unmounter });
        let (beside, ended) = (Arc::downgrade(self), served.clone());
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let how = mounted.run();
                end(&beside, &ended, how);
            })
            .map_err(Error::system("starting a thread"))?;
        Ok(served)
    }

    /// Takes all of them away. Requests in flight are answered before this returns, as far as they are by then.
    pub fn close(&self) {
        let served = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.served)
        };
        let until = Instant::now() + HANGING_PATIENCE;
        let (done, gone) = mpsc::channel();
        for served in &served {
            let (served, done) = (served.clone(), done.clone());
            let unmount = move || {
                unmount(&served);
                let _nobody_waits = done.send(());
            };
            if let Err(e) = std::thread::Builder::new().name("unmount".into()).spawn(unmount) {
                tracing::error!("a snapshot stays mounted: no thread to unmount it: {e}");
            }
        }
        drop(done);
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let unmounted = served.iter().take_while(|_| gone.recv_timeout(left(until)).is_ok());
        let hanging = served.len() - unmounted.count();
        // What is being mounted is taken away by who does it.
        let is_mounting = |state: &mut State| state.mounting().next().is_some();
        let waited = self.planned.wait_timeout_while(self.state(), left(until), is_mounting);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let hanging = hanging + state.mounting().count();
        drop(state);
        if hanging > 0 {
            tracing::error!("{hanging} mountpoints of snapshots do not answer: going on without");
        }
        for served in &served {
            served.view.executor.close();
            served.view.executor.drain(DRAIN_PATIENCE);
        }
    }
}

fn shows(state: &State, shown: Shown) -> Option<String> {
    let as_what = if shown.snapshot.is_none() { ", as a snapshot" } else { "" };
    let served = state.served.iter().find(|served| shown.covers(served.shown()));
    if let Some(served) = served {
        return Some(format!("mounted on {}{as_what}", served.view.settings.mountpoint.display()));
    }
    let (_, at) = state.mounting().find(|(mounting, _)| shown.covers(*mounting))?;
    Some(format!("being mounted on {}{as_what}", at.display()))
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Stopped, "the store is being unmounted")
}

/// Of this process; `None` where there is no /proc.
fn mount_namespace() -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata("/proc/self/ns/mnt").ok()?;
    Some((found.dev(), found.ino()))
}

fn unmount(served: &Served) {
    let at = served.view.settings.mountpoint.display();
    let mut unmounter = served.unmounter.lock().unwrap_or_else(PoisonError::into_inner);
    match unmounter.unmount() {
        Ok(Unmounted::Cleanly) => tracing::info!("{at} is unmounted too"),
        Ok(Unmounted::Detached) => {
            tracing::warn!("{at} is unmounted too; programs with open files get errors now");
        }
        Err(e) => tracing::error!("{at} cannot be unmounted: {e}"),
    }
}

/// Of the session, on its own thread.
fn end(beside: &Weak<Beside>, served: &Arc<Served>, how: io::Result<()>) {
    let at = served.view.settings.mountpoint.display();
    match how {
        Ok(()) => tracing::info!("{at} is unmounted"),
        Err(e) => tracing::error!("{at}: the connection to the kernel is lost: {e}"),
    }
    served.view.executor.close();
    served.view.executor.drain(DRAIN_PATIENCE);
    if let Err(e) = block_on(served.view.namespace.containers.unmount()) {
        tracing::error!("{at}: unmounting the filesystem: {e}");
    }
    if let Some(beside) = beside.upgrade() {
        beside.state().served.retain(|other| !Arc::ptr_eq(other, served));
    }
}

/// Asks the process that holds the store to mount the snapshot that `settings` name; the sentence for the user. `None`: nobody holds
/// the store, or not for long.
pub fn ask(settings: &Settings) -> Result<Option<String>, Error> {
    let Some(snap) = settings.snap.clone() else { return Ok(None) };
    let Some(mut holder) = Door::holder(&settings.store)? else { return Ok(None) };
    let request = Request {
        mountpoint: settings.mountpoint.clone(),
        pool: settings.pool.clone(),
        container: settings.container.clone(),
        snap,
        threads: settings.threads,
        caching: settings.caching,
        cache: settings.cache,
        flags: settings.flags,
        namespace: mount_namespace(),
    };
    let arguments = serde_json::to_value(request)
        .map_err(|e| Error::Usage(format!("{}: {e}", settings.mountpoint.display())))?;
    match holder.ask(&Ask::Filesystem { verb: "mount".into(), arguments }) {
        Ok(Answer::Filesystem(said)) if mountpoint::is_dfuse(&settings.mountpoint) => {
            Ok(Some(said.as_str().unwrap_or("mounted").to_owned()))
        }
        Ok(_) => Err(Error::Usage(format!(
            "the process that holds {} has mounted the snapshot, but not where this process sees it: it is in another container or mount namespace",
            settings.store.display()
        ))),
        Err(failure) if failure.kind == FailureKind::Stopped => Ok(None),
        Err(failure) => Err(Error::Usage(failure.message)),
    }
}

/// In the foreground: stays until the mount that another process serves is gone; a signal takes it away.
pub fn watch(at: &Path, signals: Signals) -> Result<(), Error> {
    let failed = Error::system("watching the mount");
    let table = std::fs::File::open("/proc/self/mounts").map_err(failed)?;
    let taken = at.to_path_buf();
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if let Err(e) = fuse::detach(&taken) {
                tracing::error!("{} cannot be unmounted: {e}", taken.display());
            }
        }
    });
    while mountpoint::is_dfuse(at) {
        // The kernel tells of changes so.
        let mut changed = [PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI)];
        match poll(&mut changed, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::System { what: "watching the mount", source: e.into() }),
        }
    }
    Ok(())
}

/// Whether every mount of the store is one that goes with its daemon's own.
pub fn only_snapshots(store: &Path) -> bool {
    mounts::all().iter().filter(|m| m.is_dfuse() && m.source == store).all(|m| m.read_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    use daos_model::spawn_model;
    use serde_json::json;

    /// The daemon of a container `home` with a snapshot `monday`, and what a second dfuse asks of it.
    fn fixture() -> (Arc<Beside>, Shown, serde_json::Value) {
        let client = Client::new(vec![spawn_model()]);
        let shown = block_on(async {
            let pool = client.pool_or_create("default").await.unwrap();
            let home = pool.container_or_create("home").await.unwrap();
            let monday = home.snapshot_create(Some("monday".into())).await.unwrap();
            Shown { container: home.id(), snapshot: Some(monday.epoch) }
        });
        let args = ["--embedded", "/nowhere/store", "/nowhere/mnt"];
        let settings = crate::options::tests::settings(&args).unwrap();
        let request = Request {
            mountpoint: std::env::temp_dir(),
            pool: "default".into(),
            container: "home".into(),
            snap: "monday".into(),
            threads: 1,
            caching: true,
            cache: None,
            flags: settings.flags,
            namespace: mount_namespace(),
        };
        let beside = Beside::new(client, settings, Budget::new(100));
        (beside, shown, serde_json::to_value(request).unwrap())
    }

    #[test]
    fn what_is_being_destroyed_is_not_mounted_and_the_other_way_round() {
        let (beside, shown, request) = fixture();
        let container = Shown { snapshot: None, ..shown };
        for destroyed in [shown, container] {
            let claim = beside.claim_to_destroy(destroyed).unwrap();
            let refused = beside.mount(request.clone()).unwrap_err();
            assert_eq!(refused.kind, FailureKind::InUse, "{refused}");
            drop(claim);
            let claim = beside.claim_to_mount(shown, Path::new("/mnt/old")).unwrap();
            let how = beside.claim_to_destroy(destroyed).err().unwrap();
            assert!(how.starts_with("being mounted on /mnt/old"), "{how}");
            drop(claim);
        }
        let other = Shown { container: ContainerId(77), snapshot: shown.snapshot };
        let _claim = beside.claim_to_mount(shown, Path::new("/mnt/old")).unwrap();
        assert!(beside.claim_to_destroy(other).is_ok());
    }

    #[test]
    fn who_waits_for_a_mountpoint_keeps_nobody_waiting() {
        let (beside, shown, _) = fixture();
        let claim = beside.claim_to_mount(shown, Path::new("/mnt/hangs")).unwrap();
        assert!(beside.views().is_empty() && beside.shows(shown).is_some());
        let ended = std::thread::spawn({
            let beside = beside.clone();
            move || beside.close()
        });
        while !beside.state().closed {
            std::thread::yield_now();
        }
        // It is waited for, but not for ever, and what comes after it is refused.
        assert!(!ended.is_finished());
        let late = beside.claim_to_mount(shown, Path::new("/mnt/late")).err().unwrap();
        assert_eq!(late.kind, FailureKind::Stopped);
        drop(claim);
        ended.join().unwrap();
    }

    #[test]
    fn another_mount_namespace_is_refused_by_name() {
        let (beside, _, mut request) = fixture();
        request["namespace"] = json!([1, 2]);
        let refused = beside.mount(request).unwrap_err();
        assert!(refused.message.contains("another mount namespace"), "{refused}");
    }
}
