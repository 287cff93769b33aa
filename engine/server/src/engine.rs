//! The engine: a locked store with its targets running.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use daos_client::{Client, Container};
use daos_types::{Error as TypesError, Noun};
use daos_xstream::{Handle, Lending, XstreamConfig};
use futures_lite::future::block_on;

use crate::config::EngineConfig;
use crate::control::ControlServer;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::place::Place;
use crate::service::{Handler, NoHandler, Services};
use crate::stats::TargetStats;
use crate::target::{Backend, StatsReader, Target};

/// A target runs on its callers' threads while its own one sleeps.
#[allow(unsafe_code)]
fn lending() -> Lending {
    // SAFETY: what runs on a target is `Target`, `Vos` or a model in tests, `UringDevice` and the fabric's service. None
    // of them has thread-local state or keeps a mutex's guard (or a tracing span entered) across an await; the model and vos
    // use no system objects; the device's ring takes entries from any holder of the turn and is entered by the xstream's
    // own thread alone, or by whoever drops it last (`media/src/uring/ring.rs`: not SINGLE_ISSUER); its workers, the
    // mailbox and the oneshots are made for several threads. Nothing of it but what is `Send` leaves the target: the
    // compiler sees to that for threads, and thread-local storage is not used.
    unsafe { Lending::to_guests() }
}

/// A running engine. Stopped by [`Engine::stop`], at the latest when dropped.
pub struct Engine {
    running: Arc<Running>,
    targets: Mutex<Vec<Target>>,
    /// Released last, when the targets have stopped.
    lock: Mutex<Option<Lock>>,
}

/// What others may hold while the engine runs, and keep when it has stopped: then its client answers `Stopped`.
pub(crate) struct Running {
    pub(crate) place: Place,
    pub(crate) config: EngineConfig,
    pub(crate) bytes: u64,
    pub(crate) client: Client,
    stats: Vec<StatsReader>,
}

impl Running {
    pub(crate) fn stats(&self) -> Vec<TargetStats> {
        self.stats.iter().map(StatsReader::report).collect()
    }
}

impl Engine {
    /// Locks the store, makes it if the configuration says so, recovers it, and serves it. Returns when requests are
    /// answered. Blocks; not for an xstream.
    pub fn start(config: EngineConfig) -> Result<Self> {
        Self::start_with(config, crate::open::open)
    }

    /// As `start`, with the model target in the place of the store: nothing is kept.
    #[cfg(any(test, feature = "model"))]
    pub fn start_model(config: EngineConfig) -> Result<Self> {
        Self::start_with(config, |handle, _, place| async move {
            if place.unformatted().is_some() {
                place.formatted()?;
            }
            crate::model::open(handle).await
        })
    }

    /// As `start`, with another backend in the place of the store.
    pub(crate) fn start_with<B, F>(
        config: EngineConfig,
        open: impl FnOnce(Handle, EngineConfig, Place) -> F + Send + 'static,
    ) -> Result<Self>
    where
        B: Backend,
        F: Future<Output = Result<B>> + 'static,
    {
        let place = Place::find(&config.path, config.create && !config.read_only)?;
        place.check(config.create && !config.read_only)?;
        let lock = Lock::take(&place, &config.holder)?;
        let bytes = place.prepare(&config)?;
        let xstream = XstreamConfig {
            name: "target-0".into(),
            lending: lending(),
            ..XstreamConfig::default()
        };
        let (its_config, its_place) = (config.clone(), place.clone());
        let target = Target::start(xstream, move |handle| open(handle, its_config, its_place));
        let target = target.map_err(Error::Thread)??;
        let client = Client::new(vec![target.caller()]);
        let running = Running { place, config, bytes, client, stats: vec![target.stats()] };
        Ok(Self {
            running: Arc::new(running),
            targets: Mutex::new(vec![target]),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// The way to this engine's targets. It may outlive the engine and then answers `Stopped`.
    #[must_use]
    pub fn client(&self) -> Client {
        self.running.client.clone()
    }

    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.running.config
    }

    /// Bytes of the store's file or device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.running.bytes
    }

    /// The store's place, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.running.place.path
    }

    /// A container by the names of its pool and itself, labels or UUIDs; with `create` (and a store that is not read-only),
    /// both are made if they are not there. Blocks; not for an xstream.
    pub fn container(&self, pool: &str, container: &str, create: bool) -> Result<Container> {
        let create = create && !self.running.config.read_only;
        let opened = block_on(async {
            if create {
                let pool = self.running.client.pool_or_create(pool).await?;
                return pool.container_or_create(container).await;
            }
            self.running.client.pool(pool).await?.container(container).await
        });
        opened.map_err(|error| match error {
            TypesError::NonExistent(Noun::Pool) => Error::NoPool { pool: pool.into() },
            TypesError::NonExistent(Noun::Container) => {
                Error::NoContainer { pool: pool.into(), container: container.into() }
            }
            error => error.into(),
        })
    }

    /// Answers what people ask; without a handler, as a process that only has the engine.
    #[must_use]
    pub fn services(&self, handler: Option<Arc<dyn Handler>>) -> Services {
        Services::new(self.running.clone(), handler.unwrap_or_else(|| Arc::new(NoHandler)))
    }

    /// Opens the control socket, for as long as the returned value is kept. Drop that before the engine stops.
    pub fn serve_control(&self, handler: Arc<dyn Handler>) -> Result<ControlServer> {
        ControlServer::start(self.services(Some(handler)))
    }

    /// Answers what is in flight, brings the store to stable media, and unlocks it. Blocks; not for an xstream. The
    /// second time does nothing.
    pub fn stop(&self) -> Result<()> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stopped = Ok(());
        for mut target in targets.drain(..) {
            stopped = stopped.and(target.stop());
        }
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(stopped?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the engine did not stop cleanly; its store will be recovered when it is opened");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Answer, Ask, FailureKind};
    use crate::door::Door;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    fn config(path: &Path) -> EngineConfig {
        EngineConfig { create: true, size: Some(1 << 30), ..EngineConfig::new(path, "the test") }
    }

    fn engine(path: &Path) -> Result<Engine> {
        Engine::start_model(config(path))
    }

    /// A process with container 1 mounted.
    #[derive(Default)]
    struct Mounted(std::sync::atomic::AtomicBool);

    impl Handler for Mounted {
        fn in_use(&self, container: daos_types::ContainerId) -> Option<String> {
            (container.0 == 1).then(|| "mounted on /mnt/test".into())
        }

        fn filesystem(
            &self,
            verb: &str,
            arguments: serde_json::Value,
        ) -> Result<serde_json::Value, crate::control::Failure> {
            Ok(serde_json::json!({ "verb": verb, "arguments": arguments }))
        }

        fn stop(&self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn second_engine_is_refused_until_the_first_has_stopped() {
        let root = tempfile::tempdir().unwrap();
        let first = engine(root.path()).unwrap();
        let refused = engine(root.path()).err().expect("the first holds the lock").to_string();
        assert!(
            refused.contains(&format!("process {} (the test)", std::process::id())),
            "{refused}"
        );
        first.stop().unwrap();
        engine(root.path()).unwrap().stop().unwrap();
        first.stop().unwrap();
    }

    #[test]
    fn commands_go_through_the_process_that_holds_the_store() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path()).unwrap();
        engine.container("default", "home", true).unwrap();
        let handler = Arc::new(Mounted::default());
        let control = engine.serve_control(handler.clone()).unwrap();
        let mut door = Door::open(EngineConfig::new(root.path(), "daos")).unwrap();
        assert!(door.is_daemon());
        let Answer::About(about) = door.ask(Ask::About).unwrap() else { panic!() };
        assert_eq!((about.pid, about.holder.as_str()), (std::process::id(), "the test"));
        let home = |container: &str| (String::from("default"), String::from(container));
        let (pool, container) = home("home");
        let in_use = door.ask(Ask::ContainerDestroy { pool, container }).unwrap_err();
        assert_eq!(in_use.kind, FailureKind::InUse);
        assert!(in_use.message.contains("/mnt/test"), "{in_use}");
        let (pool, label) = home("other");
        door.ask(Ask::ContainerCreate { pool: pool.clone(), label: label.clone() }).unwrap();
        let again = door.ask(Ask::ContainerCreate { pool: pool.clone(), label }).unwrap_err();
        assert_eq!(again.kind, FailureKind::Exists);
        let answer = door.ask(Ask::ContainerList { pool: pool.clone() }).unwrap();
        assert!(matches!(answer, Answer::Containers(containers) if containers.len() == 2));
        let answer = door.ask(Ask::PoolQuery { pool: pool.clone() }).unwrap();
        assert!(
            matches!(answer, Answer::Pool(details) if details.containers == 2 && details.capacity > 0)
        );
        door.ask(Ask::ContainerDestroy { pool, container: "other".into() }).unwrap();
        let verb = String::from("query");
        let asked = door.ask(Ask::Filesystem { verb, arguments: 7.into() }).unwrap();
        assert_eq!(asked, Answer::Filesystem(serde_json::json!({"verb": "query", "arguments": 7})));
        let Answer::Stats(stats) = door.ask(Ask::Stats).unwrap() else { panic!() };
        assert!(stats[0].requests.iter().any(|kind| kind.name == "container-create"));
        door.ask(Ask::Stop).unwrap();
        // The answer goes out first; what ends the process comes after it.
        let begin = std::time::Instant::now();
        while !handler.0.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(
                begin.elapsed() < std::time::Duration::from_secs(10),
                "nobody was told to stop"
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(control);
        door.wait_for_end();
        assert!(!engine.path().join("control").exists());
    }

    #[test]
    fn garbage_on_the_control_socket_gets_an_error_line_each() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path()).unwrap();
        let _control = engine.serve_control(Arc::new(NoHandler)).unwrap();
        let mut stream = UnixStream::connect(root.path().join("control")).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut answer = || {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            line
        };
        let deep = [b"[".repeat(100_000), b"\n".to_vec()].concat();
        let garbage: [&[u8]; 7] = [
            b"nonsense\n",
            b"\xff\xfe\x00\x01\n",
            b"{}\n",
            b"{\"version\":1}\n",
            b"{\"version\":99,\"request\":\"about\"}\n",
            b"{\"version\":1,\"request\":\"pool-query\",\"arguments\":[1]}\n",
            &deep,
        ];
        for line in garbage {
            stream.write_all(line).unwrap();
            let answer = answer();
            assert!(answer.contains("\"kind\":\"protocol\""), "{answer}");
        }
        stream.write_all(b"{\"version\":1,\"request\":\"pool-list\"}\n").unwrap();
        assert_eq!(answer(), "{\"version\":1,\"answer\":\"pools\",\"value\":[]}\n");
        let endless = vec![b'x'; crate::control::LINE_BYTES_MAX + 1];
        stream.write_all(&endless).unwrap();
        assert!(answer().contains("at most"));
        assert_eq!(answer(), "");
        // A caller that goes away in the middle of a line harms nobody.
        UnixStream::connect(root.path().join("control")).unwrap().write_all(b"{\"ver").unwrap();
        let mut door = Door::open(EngineConfig::new(root.path(), "daos")).unwrap();
        door.ask(Ask::Sync).unwrap();
    }

    #[test]
    fn socket_is_the_owners_and_works_below_a_long_path() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("d".repeat(120)).join("e".repeat(120));
        let engine = engine(&path).unwrap();
        let control = engine.serve_control(Arc::new(NoHandler)).unwrap();
        let mode = std::fs::metadata(path.join("control")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Door::open(EngineConfig::new(&path, "daos")).unwrap().is_daemon());
        drop(control);
        assert!(!path.join("control").exists());
        // What a killed daemon leaves behind is replaced.
        std::fs::write(path.join("control.new"), "x").unwrap();
        std::os::unix::net::UnixListener::bind(root.path().join("stale")).unwrap();
        std::fs::rename(root.path().join("stale"), path.join("control")).unwrap();
        let _control = engine.serve_control(Arc::new(NoHandler)).unwrap();
        assert!(Door::open(EngineConfig::new(&path, "daos")).unwrap().is_daemon());
    }

    #[test]
    fn holder_without_a_socket_is_named_to_the_door() {
        let root = tempfile::tempdir().unwrap();
        let _engine = engine(root.path()).unwrap();
        let refused = Door::open(EngineConfig::new(root.path(), "daos")).err().unwrap();
        assert!(matches!(refused, Error::Held { .. }), "{refused}");
    }

    #[test]
    fn container_that_is_not_there_is_made_or_named() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path()).unwrap();
        let error =
            |pool, container| engine.container(pool, container, false).unwrap_err().to_string();
        assert!(error("default", "home").contains("pool 'default'"));
        let made = engine.container("default", "home", true).unwrap();
        let found = engine.container("default", &made.info().uuid.to_string(), false).unwrap();
        assert_eq!(made.id(), found.id());
        assert!(error("default", "work").contains("container 'work'"));
        assert!(engine.container("default", "no/slash", true).is_err());
    }
}
