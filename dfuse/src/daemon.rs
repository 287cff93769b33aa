//! One mount from its start to its end.
//!
//! # Order
//! Start: mountpoint, engine, pool and container, dfs, kernel, control socket; then the word that it is mounted. End, whatever asks for
//! it: the mount goes, requests in flight are answered, dfs is unmounted, the engine stops (which is a checkpoint).
//! What was acknowledged does not depend on any of this: the daemon may be killed between any two steps.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daos_client::{Client, Container};
use daos_server::control::ControlServer;
use daos_server::{Engine, EngineConfig, MEMORY_BYTES_DEFAULT, SyncMode};
use daos_types::{ByteSize, Epoch};
use dfs::{Budget, Dfs, MountOptions};
use futures_lite::future::block_on;

use crate::background::{self, Reporter};
use crate::beside::{self, Beside, View};
use crate::containers::{Containers, Shown};
use crate::control::Control;
use crate::error::Error;
use crate::exec::Executor;
use crate::fuse::{self, FuseConfig, Mounted, Unmounted, Unmounter};
use crate::log::{self, Log};
use crate::mountpoint::{self, Verdict};
use crate::namespace::Namespace;
use crate::options::{Settings, Sync};
use crate::signals::Signals;

/// Requests in flight: as many as the kernel and a handful of busy programs have.
const REQUESTS_MAX: usize = 512;
/// A daemon that has unmounted may still be writing its checkpoint.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(30);
/// For requests in flight when the mount is gone.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// For snapshots that go with the mount of a daemon that ends.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);
/// For the kernel's last word after an unmount. It does not come while programs have files open, which fusermount3, by which users
/// unmount, does not tell.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// What the main thread waits for.
pub enum Event {
    /// Somebody wants it to end: a signal, or a word.
    Asked(&'static str),
    /// The kernel has ended the session: somebody unmounted.
    Ended(std::io::Result<()>),
}

/// Mounts, serves, and stops.
pub fn run(settings: &Settings, reporter: &Reporter, log: &Log) -> Result<(), Error> {
    // Before any thread starts: they inherit the mask.
    let signals = Signals::block(settings.foreground)
        .map_err(|e| Error::System { what: "blocking signals", source: e.into() })?;
    mountpoint::apart(&settings.store, &settings.mountpoint).map_err(Error::Mountpoint)?;
    clear_mountpoint(&settings.mountpoint, reporter)?;
    if let Some(said) = beside::ask(settings)? {
        let _nobody_waits = reporter.mounted(&said);
        return if settings.foreground {
            beside::watch(&settings.mountpoint, signals)
        } else {
            Ok(())
        };
    }
    let engine = open_engine(settings, reporter)?;
    let log_path = log::path_for(&settings.store);
    log.move_to(&log_path).map_err(Error::system("opening the log file"))?;
    tracing::info!(?settings, "starting");
    let create = !settings.read_only && settings.snap.is_none() && !settings.existing;
    let container = engine.container(&settings.pool, &settings.container, create)?;
    let snapshot =
        settings.snap.as_deref().map(|name| find_snapshot(&container, name)).transpose()?;
    reporter.progress(&format!("mounting container {}", settings.container));
    let budget = Budget::new(inodes_max(settings));
    let client = engine.client();
    let namespace = open_namespace(settings, client, budget.clone(), container, snapshot, false)?;
    let mut mounted = mount(settings, namespace.clone())?;
    let unmounter = mounted.unmounter();
    let view = View::new(settings.clone(), snapshot, namespace.clone(), &mounted);
    let (view, snapshots) =
        (Arc::new(view), Beside::new(engine.client(), settings.clone(), budget));
    let (send, events) = mpsc::channel();
    let control =
        Control { own: view.clone(), beside: snapshots.clone(), events: Mutex::new(send.clone()) };
    let control = serve_control(&engine, control)?;
    watch(mounted, signals, &send)?;
    let greeting = greeting(settings, Some(&log_path)) + &size_note(settings, &engine);
    if reporter.mounted(&greeting).is_err() {
        let _ = send.send(Event::Asked("nobody waits for it any more"));
    } else if !settings.foreground {
        background::detach().map_err(Error::system("detaching from the terminal"))?;
    }
    serve(&events, unmounter, &view.executor, &snapshots);
    drop(control);
    stop(&namespace, &engine)
}

/// Where a store lies on a read-only filesystem there is no socket; the `daos` command opens such a store itself.
fn serve_control(engine: &Engine, control: Control) -> Result<Option<ControlServer>, Error> {
    match engine.serve_control(Arc::new(control)) {
        Err(daos_server::Error::Io { source, .. })
            if engine.config().read_only
                && source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            tracing::warn!("the store is on a read-only filesystem: there is no control socket");
            Ok(None)
        }
        served => Ok(Some(served?)),
    }
}

fn clear_mountpoint(at: &Path, reporter: &Reporter) -> Result<(), Error> {
    match mountpoint::judge(at) {
        Verdict::Free => Ok(()),
        Verdict::Refused(why) => Err(Error::Mountpoint(why)),
        Verdict::DeadAndOurs(mount) => {
            fuse::detach(&mount.mountpoint)
                .map_err(|source| Error::DeadMount { at: at.to_path_buf(), source })?;
            reporter.progress(&format!("cleared the dead mount at {}", at.display()));
            clear_mountpoint(at, reporter)
        }
    }
}

/// Starts the engine; waits for a predecessor that is not mounted any more.
fn open_engine(settings: &Settings, reporter: &Reporter) -> Result<Engine, Error> {
    reporter.progress(&format!("opening the store {}", settings.store.display()));
    let begin = Instant::now();
    let until = begin + PREDECESSOR_PATIENCE;
    let mut told = false;
    loop {
        match Engine::start(engine_config(settings)) {
            Err(daos_server::Error::Held { pid, .. })
                if Instant::now() < until
                    && (!mountpoint::is_source(&settings.store)
                        || begin.elapsed() < SNAPSHOT_PATIENCE
                            && beside::only_snapshots(&settings.store)) =>
            {
                if !told {
                    reporter
                        .progress(&format!("waiting for process {pid} to finish with the store"));
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error @ daos_server::Error::Held { .. }) if settings.snap.is_some() => {
                return Err(Error::Usage(format!(
                    "{error}. It cannot be asked to mount the snapshot beside: unmount its mount first"
                )));
            }
            started => return Ok(started?),
        }
    }
}

/// What is known of inodes, in all containers and snapshots together, takes half of what metadata may take in memory, beside it.
fn inodes_max(settings: &Settings) -> usize {
    let memory = settings.memory.unwrap_or(MEMORY_BYTES_DEFAULT) as usize;
    memory / 2 / dfs::INODE_BYTES_MAX
}

fn engine_config(settings: &Settings) -> EngineConfig {
    let holder = format!("dfuse on {}", settings.mountpoint.display());
    let mut config = EngineConfig::new(&settings.store, holder);
    let read_only = settings.read_only || settings.snap.is_some();
    config.create = !read_only && !settings.existing;
    config.read_only = read_only;
    config.size = settings.size;
    config.memory = settings.memory.unwrap_or(config.memory);
    config.sync = match settings.sync {
        Sync::Always => SyncMode::Always,
        Sync::Posix => SyncMode::Posix,
    };
    config
}

/// The epoch of a snapshot that is asked for by name or epoch.
fn find_snapshot(container: &Container, name: &str) -> Result<Epoch, Error> {
    let found = block_on(daos_server::find_snapshot(container, name));
    found.map(|snapshot| snapshot.epoch).map_err(|why| Error::Usage(why.message))
}

/// `beside`: other containers change without this mount.
pub fn open_namespace(
    settings: &Settings,
    client: Client,
    budget: Arc<Budget>,
    container: Container,
    snapshot: Option<Epoch>,
    beside: bool,
) -> Result<Arc<Namespace>, Error> {
    let options = MountOptions {
        read_only: settings.read_only || snapshot.is_some(),
        cache_attributes: true,
        atime: !settings.flags.noatime,
        cache_bytes: settings.cache.map_or(0, |bytes| bytes as usize),
        budget,
        owner: (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
        ..MountOptions::default()
    };
    let mounted = block_on(async {
        let at_snapshot = MountOptions { epoch: snapshot, ..options.clone() };
        let dfs = Dfs::mount(container.clone(), at_snapshot).await?;
        let root = Shown::new(dfs, container, None);
        root.reload().await?;
        let options = MountOptions { cache_attributes: !beside, ..options };
        Ok(Namespace::new(Containers::new(client, options, root)))
    });
    mounted.map(Arc::new).map_err(|source| Error::Filesystem {
        store: settings.store.clone(),
        container: settings.container.clone(),
        source,
    })
}

pub fn mount(settings: &Settings, namespace: Arc<Namespace>) -> Result<Mounted<Namespace>, Error> {
    let config = FuseConfig {
        mountpoint: settings.mountpoint.clone(),
        source: mountpoint::source_name(&settings.store),
        threads: settings.threads,
        requests_max: REQUESTS_MAX,
        read_only: settings.read_only || settings.snap.is_some(),
        flags: settings.flags,
        caching: settings.caching,
        door: !(settings.read_only || settings.snap.is_some()),
    };
    Mounted::new(namespace, &config)
        .map_err(|source| Error::Mount { at: settings.mountpoint.clone(), source })
}

/// A size that was asked for of a store that has another one.
fn size_note(settings: &Settings, engine: &Engine) -> String {
    match settings.size {
        Some(asked) if asked.next_multiple_of(4096) != engine.bytes() => format!(
            "; --size {} is for a new store and was passed over, this one has {}",
            ByteSize(asked),
            ByteSize(engine.bytes())
        ),
        _ => String::new(),
    }
}

pub fn greeting(settings: &Settings, log: Option<&Path>) -> String {
    let snap = settings.snap.as_ref().map(|name| format!(", snapshot {name}")).unwrap_or_default();
    let log = log.filter(|_| !settings.foreground);
    let log = log.map(|log| format!(", log {}", log.display())).unwrap_or_default();
    format!(
        "{} is mounted at {} (pool {}, container {}{snap}, process {}{log})",
        settings.store.display(),
        settings.mountpoint.display(),
        settings.pool,
        settings.container,
        std::process::id(),
    )
}

/// Starts the session's thread and the one that waits for signals.
fn watch(
    mounted: Mounted<Namespace>,
    signals: Signals,
    events: &Sender<Event>,
) -> Result<(), Error> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let ended = events.clone();
    thread("session")
        .spawn(move || ended.send(Event::Ended(mounted.run())))
        .map_err(Error::system("starting a thread"))?;
    let asked = events.clone();
    thread("signals")
        .spawn(move || {
            while let Ok(name) = signals.wait() {
                let _ = asked.send(Event::Asked(name));
            }
        })
        .map_err(Error::system("starting a thread"))?;
    Ok(())
}

/// Until the mount is gone and no request is in flight.
fn serve(
    events: &Receiver<Event>,
    mut unmounter: Unmounter,
    executor: &Executor,
    snapshots: &Beside,
) {
    match events.recv() {
        Ok(Event::Asked(by)) => {
            tracing::info!("stopping: {by}");
            match unmounter.unmount() {
                Ok(Unmounted::Cleanly) => await_end(events),
                Ok(Unmounted::Detached) => {
                    tracing::warn!("programs with open files get errors now")
                }
                Err(e) => tracing::error!("the mount cannot be taken away: {e}"),
            }
        }
        Ok(Event::Ended(Ok(()))) => tracing::info!("stopping: unmounted"),
        Ok(Event::Ended(Err(e))) => {
            tracing::error!("the connection to the kernel is lost: {e}");
            let _ = unmounter.unmount();
        }
        Err(_) => tracing::error!("no thread is left that could end the mount"),
    }
    snapshots.close();
    executor.close();
    let left = executor.drain(DRAIN_PATIENCE);
    if left > 0 {
        tracing::error!("{left} requests are still in flight; stopping without them");
    }
}

fn await_end(events: &Receiver<Event>) {
    match events.recv_timeout(FAREWELL_PATIENCE) {
        Ok(Event::Ended(Err(e))) => tracing::warn!("the connection to the kernel ended with: {e}"),
        Ok(_) | Err(RecvTimeoutError::Disconnected) => {}
        Err(RecvTimeoutError::Timeout) => tracing::warn!("programs with open files get errors now"),
    }
}

fn stop(namespace: &Namespace, engine: &Engine) -> Result<(), Error> {
    if let Err(e) = block_on(namespace.containers.unmount()) {
        tracing::error!("unmounting the filesystem: {e}");
    }
    engine.stop()?;
    tracing::info!("stopped");
    Ok(())
}
