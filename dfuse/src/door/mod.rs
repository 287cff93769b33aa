//! The door beside the mount: reads and writes of programs under `libpil4dfs.so`, through memory that they share with this daemon.
//!
//! A program opens files through the kernel, which checks who may. An ioctl on the open file gives it a pass: where the door is, and a token
//! for this file. So a file descriptor is what authorizes; the door judges nothing.
//!
//! One thread serves all clients: while there are calls it looks for more for a bounded time, then it sleeps until one rings.
//!
//! # Order
//! This thread may wait for the kernel to take a notice, and the kernel for requests in progress. Nobody who answers the kernel waits for this
//! thread: what it has begun is finished by the executor without it, and it begins nothing that it cannot finish (a call takes its
//! credit before it is in flight). While it waits, other programs do, for [`NOTICE_PATIENCE`] at most.
//!
//! # On the wire
//! `dfuse/FORMAT.md`, and the fabric's.

mod clients;
mod grants;
mod inodes;
mod names;
mod stats;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daos_fabric::shm::Taken;
use daos_types::door::names::Call;
use daos_types::door::{Answer, Ask, Pass, Token};
use dfs::{Appended, Handle, Ino, Right};
use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::exec::{Credit, Executor};
use crate::fuse::errno;
use crate::notices::{Notice, Notices};
use crate::ops::{Filesystem, Write};

pub use clients::{Client, Clients};
pub use grants::{Begun, Grants, InFlight, Tagged, Written};
pub use names::{Kernel, Names};
pub use stats::{Latency, Operation, Stats};

/// For how long the thread looks for another call before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// Turns between two looks at the clock.
const TURNS: u32 = 32;
/// While there is always something to do, connections are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// For the kernel to forget what it keeps of a file.
const NOTICE_PATIENCE: Duration = Duration::from_millis(200);
/// Connections that are let in at a time.
const LET_IN_MAX: usize = 16;
/// How long nobody is let in after that failed, for want of descriptors.
const DEAF_FOR: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 64;

/// What the FUSE side and the door's thread share.
pub struct Desk {
    pub grants: Arc<Grants>,
    pub clients: Clients,
    pub names: Names,
    pub stats: Stats,
    name: Vec<u8>,
    listener: OwnedFd,
    /// Written to when the thread is to end.
    stop: OwnedFd,
    /// Written to when there is something to do for the thread, if it sleeps.
    bell: OwnedFd,
    asleep: AtomicBool,
    calls: AtomicU64,
}

impl Desk {
    pub fn new() -> io::Result<Self> {
        let Token(high, low) = random_token()?;
        let name = format!("daosfs-door-{high:016x}{low:016x}").into_bytes();
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(kind.0, kind.1, flags, None)?;
        rustix::net::bind(&listener, &SocketAddrUnix::new_abstract_name(&name)?)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (grants, clients, names, stats) = Default::default();
        let (asleep, calls) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { grants, clients, names, stats, name, listener, stop, bell, asleep, calls })
    }

    /// Ends [`serve`].
    pub fn close(&self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    /// The thread tells the kernel, and answers.
    fn finish(&self, finished: names::Finished) {
        self.names.finish(finished);
        self.wake();
    }

    /// There is something to do for the thread.
    fn wake(&self) {
        if self.asleep.swap(false, SeqCst) {
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// What an open file needs to be used here.
    pub fn pass(&self, ino: Ino, handle: Handle) -> io::Result<Pass> {
        let random = random_token()?;
        Ok(Pass::new(self.grants.token(ino, handle, || random), &self.name))
    }

    /// What an open directory needs to find the door.
    pub fn way(&self) -> Pass {
        Pass::new(None, &self.name)
    }

    /// A token for somebody who may look for names in this directory.
    pub fn to_look(&self, directory: Ino) -> io::Result<Token> {
        let token = random_token()?;
        self.names.offer(token, directory, Right::Search);
        Ok(token)
    }

    /// Calls that were taken so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }
}

fn random_token() -> io::Result<Token> {
    let mut bytes = [0u8; 16];
    let mut have = 0;
    while have < bytes.len() {
        have += rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::empty())?;
    }
    let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    Ok(Token(number(0), number(8)))
}

/// What the thread needs.
pub struct Serve<F> {
    pub desk: Arc<Desk>,
    pub fs: Arc<F>,
    pub executor: Executor,
    pub notices: Arc<Notices>,
    /// `None`: what the kernel keeps is not known, so nothing is changed past it.
    pub kernel: Option<Kernel>,
    /// Until then nobody is let in.
    pub deaf_until: Cell<Option<Instant>>,
}

impl<F: Filesystem> Serve<F> {
    /// Serves until [`Desk::close`].
    pub fn run(&self) {
        let spins = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let mut looked = Instant::now();
        loop {
            let clients = self.desk.clients.all();
            let mut busy = Instant::now();
            loop {
                if self.serve_calls(&clients) {
                    busy = Instant::now();
                } else if !spins || busy.elapsed() >= SPIN {
                    break;
                } else {
                    spin(&clients);
                }
                if looked.elapsed() >= LOOK_EVERY {
                    break;
                }
            }
            self.desk.asleep.store(true, SeqCst);
            let may_sleep = clients.iter().all(|client| client.server.may_sleep());
            let over = self.look(&clients, may_sleep && !self.desk.names.any_finished());
            self.desk.asleep.store(false, SeqCst);
            clients.iter().for_each(|client| client.server.awake());
            looked = Instant::now();
            if over {
                return;
            }
        }
    }

    /// Does what there is to do; whether there was anything.
    fn serve_calls(&self, clients: &[Arc<Client>]) -> bool {
        let mut any = self.tell_finished();
        for client in clients.iter().filter(|client| !client.is_out()) {
            let mut garbled = false;
            client.server.take(|taken, body| {
                any = true;
                self.desk.calls.fetch_add(1, Relaxed);
                match (Ask::decode(body), Call::decode(body)) {
                    (Some(ask), _) => self.call(client, taken, ask),
                    (None, Some(call)) => self.call_names(client, taken, call),
                    (None, None) => garbled = true,
                }
            });
            any |= self.tell_finished();
            if garbled {
                tracing::warn!(client.pid, "a program says nonsense at the door; it is shown out");
                self.show_out(client);
            }
        }
        any
    }

    /// What a call needs before anything of it is in flight: who has all credits may be waiting for just that.
    fn begin(
        &self,
        client: &Arc<Client>,
        taken: Taken,
        operation: Operation,
    ) -> Option<(Owed, Credit)> {
        let (desk, client, begun) = (self.desk.clone(), client.clone(), Instant::now());
        let answer = Answer::Failed(libc::EIO as u32);
        let owed = Owed { desk, client, slot: taken.slot, operation, begun, answer };
        match self.executor.credit() {
            Some(credit) => Some((owed, credit)),
            None => {
                owed.pay(Answer::NotThis);
                None
            }
        }
    }

    fn call_names(&self, client: &Arc<Client>, taken: Taken, call: Call) {
        if let Some((owed, credit)) = self.begin(client, taken, Operation::of_names(&call)) {
            self.names_call(owed, credit, call);
        }
    }

    fn call(&self, client: &Arc<Client>, taken: Taken, ask: Ask) {
        let (token, writes) = match ask {
            Ask::Read { token, .. } | Ask::Sync { token, .. } => (token, false),
            Ask::Write { token, .. } | Ask::Append { token, .. } => (token, true),
        };
        let operation = Operation::of_data(&ask);
        let Some((owed, credit)) = self.begin(client, taken, operation) else { return };
        let begun = match self.desk.grants.begin(token, writes) {
            Begun::Unprepared(ino) => {
                self.prepare(ino);
                self.desk.grants.begin(token, writes)
            }
            begun => begun,
        };
        match begun {
            Begun::Granted(in_flight) => self.carry_out(owed, ask, in_flight, credit),
            Begun::Kernel | Begun::Unprepared(_) => owed.pay(Answer::Kernel),
            Begun::NoHandle => owed.pay(Answer::Failed(libc::EBADF as u32)),
        }
    }

    /// The kernel forgets pages and attributes of a file that it alone does not change any more.
    fn prepare(&self, ino: Ino) {
        let told =
            self.notices.offer(Notice::Content(ino)) && self.notices.delivered(NOTICE_PATIENCE);
        self.desk.grants.prepared(ino, told);
    }

    fn carry_out(&self, owed: Owed, ask: Ask, in_flight: InFlight, credit: Credit) {
        let (fs, Tagged { ino, handle, .. }) = (self.fs.clone(), in_flight.of);
        match ask {
            Ask::Read { offset, len, .. } => self.executor.spawn_with(credit, async move {
                let len = (len as usize).min(owed.client.server.shape().data_bytes);
                let read = fs.read(ino, handle, offset, len).await;
                drop(in_flight);
                let done = read.map(|data| owed.client.server.put_data(owed.slot, 0, &data));
                owed.pay(counted(done));
            }),
            Ask::Write { offset, len, .. } => {
                let write = write_of(&owed, in_flight.of, Some(offset), len);
                self.executor.spawn_with(credit, async move {
                    let written = fs.write(write).await;
                    drop(in_flight);
                    owed.pay(counted(written));
                });
            }
            Ask::Sync { data_only, .. } => self.executor.spawn_with(credit, async move {
                let synced = fs.fsync(ino, data_only).await;
                drop(in_flight);
                owed.pay(counted(synced.map(|()| 0)));
            }),
            Ask::Append { len, .. } => {
                let write = write_of(&owed, in_flight.of, None, len);
                self.executor.spawn_with(credit, async move {
                    let appended = fs.append(write).await;
                    drop(in_flight);
                    owed.pay(match appended {
                        Ok(Appended { bytes, end }) => {
                            Answer::Appended { bytes: bytes as u32, end }
                        }
                        Err(error) => Answer::Failed(errno(&error) as u32),
                    });
                });
            }
        }
    }

    /// Waits for calls and connections if there is nothing else to do; true when it is over.
    fn look(&self, clients: &[Arc<Client>], may_sleep: bool) -> bool {
        let desk = &self.desk;
        let mut polled = vec![
            PollFd::new(&desk.stop, PollFlags::IN),
            PollFd::new(&desk.listener, PollFlags::IN),
            PollFd::new(&desk.bell, PollFlags::IN),
        ];
        for client in clients {
            polled.push(PollFd::from_borrowed_fd(client.socket(), PollFlags::IN));
        }
        // A listener that nobody can be let in by stays readable.
        let deaf = self.deaf_until.get().is_some_and(|until| Instant::now() < until);
        if deaf {
            polled[1] = PollFd::new(&desk.listener, PollFlags::empty());
        }
        let patience = match (may_sleep, deaf) {
            (false, _) => Some(Duration::ZERO),
            (true, true) => Some(DEAF_FOR),
            (true, false) => None,
        };
        let patience = patience.map(|patience| rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: patience.subsec_nanos().into(),
        });
        let _interrupted = poll(&mut polled, patience.as_ref());
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready[0] {
            return true;
        }
        if ready[1] {
            self.let_in();
        }
        if ready[2] {
            let _heard = rustix::io::read(&desk.bell, &mut [0; 8]);
        }
        for (client, ready) in clients.iter().zip(&ready[3..]) {
            if *ready && !client.hear() {
                self.show_out(client);
            }
        }
        false
    }

    fn let_in(&self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..LET_IN_MAX {
            match rustix::net::accept_with(self.desk.listener.as_fd(), flags) {
                Ok(socket) => match self.desk.clients.add(socket) {
                    Err(why) if why.kind() == io::ErrorKind::Unsupported => {
                        tracing::debug!("a program stays with the kernel: {why}");
                    }
                    Err(why) => tracing::warn!("a program stays with the kernel: {why}"),
                    Ok(()) => {}
                },
                Err(Errno::AGAIN) => return,
                Err(why) => {
                    tracing::warn!("nobody comes in at the door for a moment: {why}");
                    self.deaf_until.set(Some(Instant::now() + DEAF_FOR));
                    return;
                }
            }
        }
    }

    /// What it has in flight is finished; its memory goes with the last of it.
    fn show_out(&self, client: &Arc<Client>) {
        self.desk.clients.remove(client);
    }
}

/// A moment without a look at the clock.
fn spin(clients: &[Arc<Client>]) {
    for _ in 0..TURNS {
        if clients.iter().any(|client| client.server.has_calls()) {
            return;
        }
        std::hint::spin_loop();
    }
}

/// The answer of a call; dropped without another it is an I/O error, so that no program waits for ever.
struct Owed {
    desk: Arc<Desk>,
    client: Arc<Client>,
    slot: usize,
    operation: Operation,
    begun: Instant,
    answer: Answer,
}

impl Owed {
    fn pay(mut self, answer: Answer) {
        self.answer = answer;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.desk.stats.record(self.operation, self.begun.elapsed());
        self.client.server.answer(self.slot, &self.answer.encode());
    }
}

/// What a client wants to have written; without an offset it goes to the end.
fn write_of(owed: &Owed, of: Tagged, offset: Option<u64>, len: u32) -> Write {
    Write {
        ino: of.ino,
        handle: of.handle,
        offset: offset.unwrap_or(0),
        data: Bytes::from(owed.client.server.data(owed.slot, 0, len as usize)),
        append: offset.is_none(),
        sync: of.flags & (libc::O_SYNC | libc::O_DSYNC) != 0,
        kill_priv: owed.client.uid != 0,
    }
}

fn counted(done: dfs::Result<usize>) -> Answer {
    match done {
        Ok(bytes) => Answer::Done(bytes as u32),
        Err(error) => Answer::Failed(errno(&error) as u32),
    }
}
