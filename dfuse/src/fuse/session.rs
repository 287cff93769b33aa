//! A mount's session: from the handshake to the kernel's last request.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::abi;
use super::adapter::Adapter;
use super::buffer::Buffers;
use super::channel::Device;
use super::mount::Mount;
use super::notify;
use super::reply::{Nodes, Reply};
use super::request::{Malformed, Operation, Request, parse};
use super::requests::Requests;
use crate::door::{self, Desk};
use crate::exec::Executor;
use crate::notices::Notices;
use crate::ops::Filesystem;
use crate::options::MountFlags;

/// Largest request: what one READ or WRITE carries.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const PAGE_BYTES: u32 = 4096;
/// How far the kernel reads ahead of a sequential reader.
const READ_AHEAD_KIB: u32 = 1024;
/// Background requests (read-ahead, asynchronous direct I/O, releases) that the kernel keeps in flight.
const BACKGROUND_MAX: u16 = 64;
/// Large writes whose data is in the buffer that they came in; further ones are copied.
const LENT_MAX: usize = 16;

#[derive(Clone, Debug)]
pub struct FuseConfig {
    pub mountpoint: PathBuf,
    /// Shown as the source of the mount.
    pub source: String,
    pub threads: usize,
    pub requests_max: usize,
    pub read_only: bool,
    pub flags: MountFlags,
    /// Off: the kernel may keep nothing, whatever the filesystem says.
    pub caching: bool,
    /// Programs under the interception library come in beside the kernel.
    pub door: bool,
}

/// A mounted filesystem whose requests nobody answers until [`Mounted::run`].
pub struct Mounted<F: Filesystem> {
    fs: Arc<F>,
    adapter: Adapter<F>,
    desk: Option<Arc<Desk>>,
    executor: Executor,
    notices: Option<Arc<Notices>>,
    nodes: Nodes,
    requests: Arc<Requests>,
    mount: Arc<Mount>,
    channels: Vec<Arc<Device>>,
    dialect: Dialect,
}

impl<F: Filesystem> Mounted<F> {
    pub fn new(fs: Arc<F>, config: &FuseConfig) -> io::Result<Self> {
        let mount = Arc::new(Mount::new(config)?);
        let dialect = shake_hands(mount.device(), config)?;
        if let Err(e) = mount.raise_read_ahead(READ_AHEAD_KIB) {
            tracing::debug!("reading ahead stays at the kernel's default: {e}");
        }
        let mut channels = vec![mount.device().clone()];
        while channels.len() < config.threads {
            channels.push(Arc::new(mount.device().another(false)?));
        }
        let executor = Executor::new(config.requests_max);
        let desk = config.door.then(Desk::new).transpose()?.map(Arc::new);
        let (notices, nodes) = (fs.notices(), Nodes { root: fs.root() });
        let adapter = Adapter::new(fs.clone(), executor.clone(), config.caching, desk.clone());
        let requests = Arc::default();
        Ok(Self { fs, adapter, desk, executor, notices, nodes, requests, mount, channels, dialect })
    }

    pub fn executor(&self) -> Executor {
        self.executor.clone()
    }

    /// `st_dev` of what is in it.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.mount.number()
    }

    /// Where programs come in beside the kernel.
    pub fn desk(&self) -> Option<Arc<Desk>> {
        self.desk.clone()
    }

    /// What the kernel has asked for so far.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// Unmounts from another thread; [`Mounted::run`] then returns.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter { mount: self.mount.clone() }
    }

    /// Answers requests until the filesystem is unmounted.
    pub fn run(self) -> io::Result<()> {
        let payload_bytes_max = REQUEST_BYTES_MAX as usize;
        let buffers = Arc::new(Buffers::new(payload_bytes_max, self.channels.len() + LENT_MAX));
        let device = self.mount.device().clone();
        thread::scope(|scope| {
            let _closing = self.notices.as_deref().map(Closing);
            let _closed = self.desk.as_deref().map(ClosingDesk);
            if let (Some(desk), Some(notices)) = (&self.desk, &self.notices) {
                let (desk, notices) = (desk.clone(), notices.clone());
                let (device, nodes) = (device.clone(), self.nodes);
                let kernel = self.adapter.given().map(|(directories, inodes)| door::Kernel {
                    directories,
                    inodes,
                    send: Box::new(move |notice| notify::send(&device, nodes, notice)),
                });
                let (fs, executor) = (self.fs, self.executor);
                let deaf_until = std::cell::Cell::new(None);
                let serve = door::Serve { desk, fs, executor, notices, kernel, deaf_until };
                let serve = move || serve.run();
                thread::Builder::new().name("door".into()).spawn_scoped(scope, serve)?;
            }
            if let Some(notices) = self.notices.as_deref() {
                let nodes = self.nodes;
                let send = move |notice: &_| {
                    let _known = notify::send(&device, nodes, notice);
                };
                let serve = move || notices.serve(send);
                thread::Builder::new().name("notices".into()).spawn_scoped(scope, serve)?;
            }
            let mut threads = Vec::new();
            for (number, device) in self.channels.into_iter().enumerate() {
                let thread = Thread {
                    device,
                    adapter: self.adapter.clone(),
                    buffers: buffers.clone(),
                    requests: self.requests.clone(),
                    dialect: self.dialect,
                };
                let named = thread::Builder::new().name(format!("fuse-{number}"));
                match named.spawn_scoped(scope, move || thread.serve()) {
                    Ok(thread) => threads.push(thread),
                    Err(e) if number == 0 => return Err(e),
                    Err(e) => tracing::warn!("{number} threads have to do: {e}"),
                }
            }
            // A thread that fails leaves its work to the others; all have failed when the connection has.
            let ended = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            });
            ended.fold(Ok(()), Result::and)
        })
    }
}

/// However a session ends, nobody waits for its notices then.
struct Closing<'a>(&'a Notices);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Nor does a program wait at its door.
struct ClosingDesk<'a>(&'a Desk);

impl Drop for ClosingDesk<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One that reads requests.
struct Thread<F: Filesystem> {
    device: Arc<Device>,
    adapter: Adapter<F>,
    buffers: Arc<Buffers>,
    requests: Arc<Requests>,
    dialect: Dialect,
}

impl<F: Filesystem> Thread<F> {
    fn serve(self) -> io::Result<()> {
        let mut buffer = self.buffers.get().expect("there is one for each thread");
        while let Some(len) = self.device.receive(buffer.room())? {
            let reply = |unique| Reply::new(self.device.clone(), unique);
            match parse(buffer.request(len), self.dialect.long_setxattr) {
                Ok(Request { header, operation: Operation::Write(write) }) => {
                    self.requests.count(header.opcode);
                    let data = self.buffers.own(&mut buffer, write.data);
                    self.adapter.write(header.node, &write.arguments, data, reply(header.unique));
                }
                Ok(Request { header, operation: Operation::Forget(forgets) }) => {
                    self.requests.count(header.opcode);
                    self.adapter.forget(forgets);
                }
                Ok(Request { header, operation }) => {
                    self.requests.count(header.opcode);
                    self.adapter.dispatch(&header, operation, reply(header.unique));
                }
                Err(Malformed::Body { header, what }) => {
                    tracing::error!(?header, "the kernel sent a request that is {what}");
                    reply(header.unique).error(libc::EIO);
                }
                Err(Malformed::Headless) => {
                    tracing::error!("the kernel sent {len} bytes, which are no request");
                }
            }
        }
        Ok(())
    }
}

/// What was agreed on that changes how requests are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dialect {
    long_setxattr: bool,
}

/// What the kernel is asked for. Not asked for: WRITEBACK_CACHE, with which the kernel would acknowledge writes that were never seen
/// here; AUTO_INVAL_DATA, which drops cached pages at each change of mtime: all changes pass here; ATOMIC_O_TRUNC, with which a program
/// that runs is truncated by an open with O_RDONLY | O_TRUNC before the kernel answers ETXTBSY.
fn wanted(config: &FuseConfig) -> u64 {
    use abi::init;
    let mut flags = init::ASYNC_READ
        | init::ASYNC_DIO
        | init::BIG_WRITES
        | init::DIRECT_IO_ALLOW_MMAP
        | init::DONT_MASK
        | init::DO_READDIRPLUS
        | init::EXPLICIT_INVAL_DATA
        | init::EXPORT_SUPPORT
        | init::HANDLE_KILLPRIV_V2
        | init::MAX_PAGES
        | init::NO_OPENDIR_SUPPORT
        | init::PARALLEL_DIROPS
        // The kernel then checks permissions, also where nobody asked it to.
        | init::POSIX_ACL
        | init::READDIRPLUS_AUTO
        | init::SETXATTR_EXT;
    if config.caching {
        flags |= init::CACHE_SYMLINKS;
    }
    flags
}

/// Answers INIT, the first request of every mount.
fn shake_hands(device: &Arc<Device>, config: &FuseConfig) -> io::Result<Dialect> {
    let gone = || io::Error::other("the mount went before it was ready");
    let mut buffers = Buffers::new(REQUEST_BYTES_MAX as usize, 1).get().expect("one was allowed");
    loop {
        let len = device.receive(buffers.room())?.ok_or_else(gone)?;
        let (header, asked) = match parse(buffers.request(len), true) {
            Ok(Request { header, operation: Operation::Init(asked) }) => (header, asked),
            Ok(Request { header, .. }) | Err(Malformed::Body { header, .. }) => {
                Reply::new(device.clone(), header.unique).error(libc::EIO);
                continue;
            }
            Err(Malformed::Headless) => return Err(io::Error::other("the kernel talks nonsense")),
        };
        let reply = Reply::new(device.clone(), header.unique);
        match agree(&asked, wanted(config)) {
            Ok(Agreed::NewerMajor(answer)) => reply.value(&answer),
            Ok(Agreed::On(answer, dialect)) => {
                tracing::debug!(?asked, ?answer, "connected to the kernel");
                reply.value(&answer);
                return Ok(dialect);
            }
            Err(e) => {
                reply.error(libc::EPROTO);
                return Err(io::Error::other(e));
            }
        }
    }
}

enum Agreed {
    /// The kernel will ask again in our version.
    NewerMajor(abi::InitOut),
    On(abi::InitOut, Dialect),
}

fn agree(asked: &abi::InitIn, wanted: u64) -> Result<Agreed, String> {
    let (major, minor) = (asked.major, asked.minor);
    let ours = abi::InitOut { major: abi::VERSION, minor: abi::MINOR_MAX, ..Default::default() };
    if major > abi::VERSION {
        return Ok(Agreed::NewerMajor(ours));
    }
    if major < abi::VERSION || minor < abi::MINOR_MIN {
        let (least, oldest) = (abi::VERSION, abi::MINOR_MIN);
        return Err(format!(
            "the kernel speaks FUSE {major}.{minor}; {least}.{oldest} (Linux 5.4) is the oldest that works"
        ));
    }
    let mut offered = u64::from(asked.flags);
    if offered & abi::init::INIT_EXT != 0 {
        offered |= u64::from(asked.flags2) << 32;
    }
    let flags = offered & (wanted | abi::init::INIT_EXT);
    let answer = abi::InitOut {
        minor: minor.min(abi::MINOR_MAX),
        // The kernel takes the lower of its own and this.
        max_readahead: REQUEST_BYTES_MAX,
        flags: flags as u32,
        flags2: (flags >> 32) as u32,
        max_background: BACKGROUND_MAX,
        congestion_threshold: BACKGROUND_MAX / 4 * 3,
        max_write: REQUEST_BYTES_MAX,
        time_gran: 1,
        max_pages: (REQUEST_BYTES_MAX / PAGE_BYTES) as u16,
        ..ours
    };
    let dialect = Dialect { long_setxattr: flags & abi::init::SETXATTR_EXT != 0 };
    Ok(Agreed::On(answer, dialect))
}

/// Takes the mount away.
pub struct Unmounter {
    mount: Arc<Mount>,
}

/// How a mount went.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmounted {
    Cleanly,
    /// Programs had files open: the mount is out of sight, and their next call fails.
    Detached,
}

impl Unmounter {
    pub fn unmount(&mut self) -> io::Result<Unmounted> {
        match self.mount.unmount() {
            Ok(()) => return Ok(Unmounted::Cleanly),
            Err(e) => tracing::info!("the mount is in use ({e}): it is detached"),
        }
        self.mount.detach()?;
        Ok(Unmounted::Detached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(minor: u32, flags: u64) -> abi::InitIn {
        let (flags, flags2) = (flags as u32, (flags >> 32) as u32);
        abi::InitIn { major: 7, minor, flags, flags2, ..Default::default() }
    }

    fn agreed(asked: &abi::InitIn, wanted: u64) -> (abi::InitOut, Dialect) {
        match agree(asked, wanted) {
            Ok(Agreed::On(answer, dialect)) => (answer, dialect),
            _ => panic!("no agreement"),
        }
    }

    #[test]
    fn only_what_both_sides_have_is_agreed_on() {
        use abi::init::*;
        let wanted = SETXATTR_EXT | POSIX_ACL | DIRECT_IO_ALLOW_MMAP;
        let offered = SETXATTR_EXT | ASYNC_READ | INIT_EXT | DIRECT_IO_ALLOW_MMAP | 1 << 60;
        let (answer, dialect) = agreed(&asked(45, offered), wanted);
        let flags = u64::from(answer.flags) | u64::from(answer.flags2) << 32;
        assert_eq!(flags, SETXATTR_EXT | INIT_EXT | DIRECT_IO_ALLOW_MMAP);
        assert!(dialect.long_setxattr);
        assert_eq!(answer.minor, 45);
    }

    #[test]
    fn older_kernels_are_spoken_to_in_their_words() {
        use abi::init::*;
        // Without INIT_EXT the second word is not there.
        let (answer, dialect) = agreed(&asked(31, DIRECT_IO_ALLOW_MMAP), u64::MAX);
        assert_eq!((answer.minor, answer.flags2, dialect), (31, 0, Dialect::default()));
        assert!(agree(&asked(30, 0), 0).is_err_and(|e| e.contains("Linux 5.4")));
        let newer = abi::InitIn { major: 8, ..asked(0, 0) };
        assert!(matches!(agree(&newer, 0), Ok(Agreed::NewerMajor(answer)) if answer.major == 7));
    }
}
