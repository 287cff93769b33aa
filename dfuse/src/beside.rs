//! Snapshots beside the mount that a daemon was started for: mounted by it when a second `dfuse --snap` asks, because one process
//! holds a store.
//!
//! # Invariants
//! 1. The unmount of one ends nothing else; the end of the daemon takes all of them away, in use or not.
//! 2. What such a mount shows of other containers (entry points in the snapshot) is kept nowhere: they change without it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use daos_client::Client;
use daos_server::control::{Answer, Ask, Failure, FailureKind};
use daos_server::{Door, mounts};
use daos_types::{ContainerId, Epoch};
use futures_lite::future::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::daemon::{self, DRAIN_PATIENCE};
use crate::error::Error;
use crate::exec::Executor;
use crate::fuse::{self, Mounted, Requests, Unmounted, Unmounter};
use crate::mountpoint::{self, Verdict};
use crate::namespace::Namespace;
use crate::options::{MountFlags, Settings};
use crate::signals::Signals;

/// Mounts of one daemon.
const SNAPSHOTS_MAX: usize = 64;

/// One mount, as the control socket tells of it and asks it.
pub struct View {
    pub settings: Settings,
    pub snapshot: Option<Epoch>,
    pub namespace: Arc<Namespace>,
    pub executor: Executor,
    pub requests: Arc<Requests>,
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
        let (executor, requests) = (mounted.executor(), mounted.requests());
        Self { settings, snapshot, namespace, executor, requests, device: mounted.device() }
    }
}

/// What a second dfuse asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    mountpoint: std::path::PathBuf,
    pool: String,
    container: String,
    snap: String,
    threads: usize,
    caching: bool,
    cache: Option<u64>,
    flags: MountFlags,
}

struct Served {
    view: Arc<View>,
    unmounter: Mutex<Unmounter>,
}

/// The snapshots that this daemon has mounted beside.
pub struct Beside {
    client: Client,
    /// Of the daemon's own mount.
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    served: Vec<Arc<Served>>,
}

impl Beside {
    pub fn new(client: Client, settings: Settings) -> Arc<Self> {
        Arc::new(Self { client, settings, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn views(&self) -> Vec<Arc<View>> {
        self.state().served.iter().map(|served| served.view.clone()).collect()
    }

    /// Where a snapshot of `container` is mounted, that of `epoch` if one is asked for.
    pub fn shows(&self, container: ContainerId, epoch: Option<Epoch>) -> Option<String> {
        let shows = |view: &Arc<View>| {
            view.namespace.containers.root().id() == container
                && (epoch.is_none() || view.snapshot == epoch)
        };
        let view = self.views().into_iter().find(shows)?;
        let at = view.settings.mountpoint.display();
        Some(match epoch {
            Some(_) => format!("mounted on {at}"),
            None => format!("mounted on {at}, as a snapshot"),
        })
    }

    /// Mounts what `arguments` ask for; the sentence for who asked.
    pub fn mount(self: &Arc<Self>, arguments: serde_json::Value) -> Result<String, Failure> {
        let request: Request = serde_json::from_value(arguments)
            .map_err(|e| Failure::new(FailureKind::Protocol, e.to_string()))?;
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
        // Held until it is served: at the end every one is taken away.
        let mut state = self.state();
        if state.closed {
            return Err(Failure::new(FailureKind::Stopped, "the store is being unmounted"));
        }
        if state.served.len() >= SNAPSHOTS_MAX {
            let why = format!("{SNAPSHOTS_MAX} snapshots are mounted, and more cannot be");
            return Err(Failure::new(FailureKind::Failed, why));
        }
        let container = block_on(async {
            self.client.pool(&settings.pool).await?.container(&settings.container).await
        })?;
        let snap = settings.snap.as_deref().expect("set above");
        let epoch = block_on(daos_server::find_snapshot(&container, snap))?.epoch;
        let client = self.client.clone();
        let namespace = daemon::open_namespace(&settings, client, container, Some(epoch), true)
            .map_err(failed)?;
        let mounted = daemon::mount(&settings, namespace.clone()).map_err(failed)?;
        let greeting = daemon::greeting(&settings, None);
        let served = self.serve(settings, epoch, namespace, mounted);
        state.served.push(served.map_err(failed)?);
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
        for served in &served {
            let at = served.view.settings.mountpoint.display();
            let mut unmounter = served.unmounter.lock().unwrap_or_else(PoisonError::into_inner);
            match unmounter.unmount() {
                Ok(Unmounted::Cleanly) => tracing::info!("{at} is unmounted too"),
                Ok(Unmounted::Detached) => {
                    tracing::warn!(
                        "{at} is unmounted too; programs with open files get errors now"
                    );
                }
                Err(e) => tracing::error!("{at} cannot be unmounted: {e}"),
            }
        }
        for served in &served {
            served.view.executor.close();
            served.view.executor.drain(DRAIN_PATIENCE);
        }
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
