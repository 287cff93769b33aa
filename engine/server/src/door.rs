//! The way to a store for a command: through the process that holds it, or else by opening it here.

use std::path::Path;
use std::time::{Duration, Instant};

use daos_client::Client;

use crate::config::EngineConfig;
use crate::control::{Answer, Ask, Connection, Failure};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::mounts;
use crate::place::Place;

/// How long a holder of the lock may take to open its control socket, or to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both kinds answer the same questions. What only a mounted filesystem can answer, the caller of a direct door
/// does itself over [`Door::client`].
pub enum Door {
    /// Another process holds the store.
    Daemon(Connection),
    /// This process holds it now.
    Direct(Box<Engine>),
}

fn connect(place: &Place) -> Result<Option<Connection>> {
    Connection::open(&place.control).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::NotYours { path: place.path.clone() },
        _ => Error::io("connecting to the control socket", &place.control)(error),
    })
}

impl Door {
    /// `config` is for the case that nobody holds the store.
    pub fn open(config: EngineConfig) -> Result<Self> {
        Self::open_with(&config, || Engine::start(config.clone()))
    }

    /// The way to the process that holds the store, if one does and answers.
    pub fn holder(store: &Path) -> Result<Option<Connection>> {
        match Place::find(store, false) {
            Err(Error::NoStore { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(place) => connect(&place),
        }
    }

    /// That whoever holds the store at `path`, or at what is mounted there, is stopped. Nothing in a mount is looked at: the
    /// kernel would wait for the answer, and so would we.
    #[must_use]
    pub fn stopped(path: &Path) -> Option<Failure> {
        let mount = mounts::containing_as_written(path).filter(mounts::Mount::is_dfuse);
        let store = mount.map_or(path.to_path_buf(), |mount| mount.source);
        Self::holder(&store).ok().flatten()?.stopped()
    }

    fn open_with(config: &EngineConfig, start: impl Fn() -> Result<Engine>) -> Result<Self> {
        let place = Place::find(&config.path, config.create)?;
        let begin = Instant::now();
        loop {
            if let Some(connection) = connect(&place)? {
                return Ok(Self::Daemon(connection));
            }
            match start() {
                Err(Error::Held { .. }) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                started => return Ok(Self::Direct(Box::new(started?))),
            }
        }
    }

    #[must_use]
    pub fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        match self {
            Self::Daemon(connection) => connection.ask(&ask),
            Self::Direct(engine) => engine.services(None).answer(ask),
        }
    }

    /// The targets, if the store is open in this process.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Daemon(_) => None,
            Self::Direct(engine) => Some(engine.client()),
        }
    }

    /// After [`Ask::Stop`]: waits until the daemon has closed its end.
    pub fn wait_for_end(self) {
        match self {
            Self::Daemon(connection) => connection.wait_for_end(),
            Self::Direct(engine) => drop(engine),
        }
    }

    /// Done. A store that was opened here is stopped cleanly.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Direct(engine) => engine.stop(),
        }
    }
}
