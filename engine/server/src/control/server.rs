//! The engine's side of the control socket: a thread that accepts, and one for each connection.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::protocol::{
    Answer, Ask, Failure, FailureKind, LINE_BYTES_MAX, protocol, read_ask, write_answer,
};
use crate::error::{Error, Result};
use crate::service::Services;

/// Connections at one time; a further one is told to come back.
const CONNECTIONS_MAX: usize = 32;

/// Answers on the socket until dropped.
pub struct ControlServer {
    path: PathBuf,
    listener: UnixListener,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    services: Services,
    stopping: AtomicBool,
    connections: Mutex<Vec<Connection>>,
    last_id: AtomicU64,
}

struct Connection {
    id: u64,
    stream: UnixStream,
}

impl ControlServer {
    /// Binds the control socket of the engine's store, over one that a dead engine has left.
    pub fn start(services: Services) -> Result<Self> {
        let path = services.control_path().to_owned();
        let listener = bind(&path).map_err(Error::io("making the control socket", &path))?;
        let shared = Arc::new(Shared {
            services,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            last_id: AtomicU64::new(0),
        });
        let accepting = listener.try_clone().map_err(Error::io("duplicating", &path))?;
        let acceptor_shared = shared.clone();
        let acceptor = std::thread::Builder::new().name("control".into());
        let acceptor = acceptor.spawn(move || accept(&accepting, &acceptor_shared));
        let acceptor = acceptor.map_err(Error::Thread)?;
        Ok(Self { path, listener, shared, acceptor: Some(acceptor) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // While the lock of the store is held nobody else has a socket here.
        let _gone_already = fs::remove_file(&self.path);
        // Wakes the acceptor.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            tracing::warn!(%error, "the control socket does not shut down");
            return;
        }
        let acceptor = self.acceptor.take().expect("only drop takes it");
        if acceptor.join().is_err() {
            tracing::error!("the control thread panicked");
        }
        for connection in self.shared.connections().iter() {
            let _gone_already = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket appears under its name with its mode set. The path goes through a descriptor, because the paths of
/// sockets are short (108 bytes) and those of stores need not be.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = File::open(path.parent().expect("a control socket lies in a directory"))?;
    let name = path.file_name().expect("a control socket has a name").to_string_lossy();
    let new = PathBuf::from(format!("/proc/self/fd/{}/{name}.new", directory.as_raw_fd()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted.and_then(|(stream, _)| begin(stream, shared)) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "a control connection was not taken");
                // Out of descriptors or threads: others may give some back.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}

fn begin(mut stream: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    let id = shared.last_id.fetch_add(1, Ordering::Relaxed);
    {
        let mut connections = shared.connections();
        if connections.len() >= CONNECTIONS_MAX {
            let busy = Failure::new(FailureKind::Failed, "too many control connections; try again");
            return stream.write_all(write_answer(Err(busy)).as_bytes());
        }
        connections.push(Connection { id, stream: stream.try_clone()? });
    }
    let serving = shared.clone();
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        // A caller that goes away in the middle of a line or an answer is nobody's error.
        let _gone = serve(&stream, &serving);
        serving.connections().retain(|connection| connection.id != id);
    });
    if thread.is_err() {
        shared.connections().retain(|connection| connection.id != id);
    }
    thread.map(drop)
}

fn serve(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > LINE_BYTES_MAX {
            let failure = protocol(format!("a line has at most {LINE_BYTES_MAX} bytes"));
            return reply(stream, Err(failure));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match read_ask(&line) {
            Ok(Ask::Stop) => {
                // The answer first: afterwards this process may be gone.
                reply(stream, Ok(Answer::Done))?;
                shared.services.stop();
            }
            Ok(ask) => reply(stream, shared.services.answer(ask))?,
            Err(failure) => reply(stream, Err(failure))?,
        }
    }
}

fn reply(mut stream: &UnixStream, answer: Result<Answer, Failure>) -> io::Result<()> {
    stream.write_all(write_answer(answer).as_bytes())
}
