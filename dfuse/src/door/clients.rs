//! Who has come to the door.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use daos_fabric::shm::{Server, Shape, WORDS};
use daos_types::door::{WORD_OPENING, WORD_THREADS};
use dfs::Credentials;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg,
    sockopt::socket_peercred,
};
use smallvec::SmallVec;

use super::names::Entered;
use crate::exec::lock;
use crate::fuse::Thread;

/// Calls of one client at once, and data of each: 16 MiB of addresses, of which only what is used takes memory.
const SHAPE: Shape = Shape { slots: 16, data_bytes: 1 << 20 };
/// Processes that use the door at once; the next one goes through the kernel.
const CLIENTS_MAX: usize = 256;
/// Of one user but root.
const CLIENTS_OF_USER_MAX: usize = 128;
/// Threads of a client that are known to be its.
const THREADS_MAX: usize = 64;
/// Rings that are heard at a time: others want to be heard too.
const RINGS_MAX: usize = 16;

/// A process, from its connection to its end.
pub struct Client {
    pub server: Server,
    socket: OwnedFd,
    /// As the kernel says who has connected.
    pub pid: u32,
    pub uid: u32,
    /// As whom it changes names.
    pub who: Credentials,
    pub entered: Entered,
    /// Numbers of threads that it has, or had.
    threads: Mutex<SmallVec<[u32; 4]>>,
    /// It is not served any more.
    is_out: AtomicBool,
}

impl Client {
    /// Makes its memory and hands it over.
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let peer = socket_peercred(&socket)?;
        let (server, memory) = Server::new(SHAPE)?;
        let fds = [memory.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "there is room for one");
        let version = daos_types::door::VERSION.to_le_bytes();
        sendmsg(&socket, &[io::IoSlice::new(&version)], &mut control, SendFlags::NOSIGNAL)?;
        let (pid, uid) = (peer.pid.as_raw_nonzero().get() as u32, peer.uid.as_raw());
        // Numbers of users and groups are said and shown here as they are.
        let users = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user"));
        if users(&pid.to_string())? != users("self")? {
            let why = "it is in another user namespace";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let groups = peer_groups(socket.as_fd())?;
        let who = Credentials { uid, gid: peer.gid.as_raw(), groups };
        let (entered, threads, is_out) = Default::default();
        Ok(Self { server, socket, pid, uid, who, entered, threads, is_out })
    }

    /// Readable when the client has rung, or has gone.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in that it has rung; false: it has gone.
    pub fn hear(&self) -> bool {
        let mut ring = [0; 8];
        for _ in 0..RINGS_MAX {
            match rustix::net::recv(&self.socket, &mut ring, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// One of its threads, by the number that it says; somebody, if it has none by that number here.
    pub fn thread(&self, number: u32) -> Thread {
        let mut threads = lock(&self.threads);
        if threads.contains(&number) {
            return Thread(number);
        }
        if !std::path::Path::new(&format!("/proc/{}/task/{number}", self.pid)).exists() {
            return Thread::SEVERAL;
        }
        if threads.len() == THREADS_MAX {
            threads.clear();
        }
        threads.push(number);
        Thread(number)
    }

    pub fn is_out(&self) -> bool {
        self.is_out.load(Relaxed)
    }

    /// Whether it says that this thread is opening a file for the door. A lie costs nobody but the thread's process its pages in the kernel, and
    /// nobody is believed about another user's.
    fn is_opening(&self, thread: u32, uid: u32) -> bool {
        (self.uid == uid || self.uid == 0)
            && self.server.word(WORD_OPENING) > 0
            && (WORD_THREADS..WORDS).any(|word| self.server.word(word) == thread)
    }
}

#[derive(Default)]
pub struct Clients(RwLock<Vec<Arc<Client>>>);

impl Clients {
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add(&self, socket: OwnedFd) -> io::Result<()> {
        let mut clients = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX {
            return Err(io::Error::other(format!("{CLIENTS_MAX} processes use the door already")));
        }
        let client = Client::new(socket)?;
        let of_user = clients.iter().filter(|other| other.uid == client.uid).count();
        if client.uid != 0 && of_user >= CLIENTS_OF_USER_MAX {
            let uid = client.uid;
            return Err(io::Error::other(format!(
                "{of_user} processes of user {uid} use the door already"
            )));
        }
        clients.push(Arc::new(client));
        Ok(())
    }

    pub fn remove(&self, gone: &Arc<Client>) {
        gone.is_out.store(true, Relaxed);
        let mut clients = self.0.write().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| !Arc::ptr_eq(client, gone));
    }

    /// Whether a thread is opening a file for the door.
    pub fn are_opening(&self, thread: u32, uid: u32) -> bool {
        let clients = self.0.read().unwrap_or_else(PoisonError::into_inner);
        thread != 0 && clients.iter().any(|client| client.is_opening(thread, uid))
    }

    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Supplementary groups of who has connected (`SO_PEERGROUPS`, unix(7)).
#[allow(unsafe_code)]
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let room = size_of_val(groups.as_slice());
        let mut bytes = room as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes to where `groups` is, which has as many.
        let asked = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<u32>();
        match asked {
            0 => {
                groups.truncate(needed);
                return Ok(groups);
            }
            _ if needed > groups.len() => groups.resize(needed, 0),
            _ => return Err(io::Error::last_os_error()),
        }
    }
}
