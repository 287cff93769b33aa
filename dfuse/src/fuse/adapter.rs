//! A request becomes one call, its answer one reply.
//!
//! # Invariants
//! 1. Node 1 is the root directory and the root directory is node 1, in every direction; other nodes are inode numbers.
//! 2. The kernel's count of an inode grows only by answers that were sent: entries of READDIRPLUS are remembered when they
//!    are in the reply, before it is sent.
//!
//! # Not implemented, on purpose
//! getlk, setlk, flock: not agreed on, so the kernel keeps locks itself, interruptible and with EDEADLK. access: permissions are checked
//! by the kernel. flush: nothing is kept back, every write has had its answer; from the first ENOSYS on the kernel does not ask at a close
//! any more, and still writes out mapped pages there and reports their errors. opendir and releasedir where all directories may
//! be cached: cookies need no handle, and ENOSYS tells the kernel not to ask, of this mount for ever, and to cache what directories list
//! until it changes them.
//! poll, bmap, ioctls but the door's: ENOSYS, from which the kernel makes ENOTTY and the like. interrupt: ENOSYS, once: every request ends soon by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daos_types::door::{self, Token};
use dfs::{
    Attr, Caller, DirEntry, Entry, Error, Handle, Ino, Kind, Opened, RenameFlags, Result, Right,
    Seek, SetAttr, SetTime, Time, XattrSet,
};
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::abi::{self, InHeader, fattr, fopen};
use super::given::{Asked, Given, Thread};
use super::reply::{Listing, Nodes, Reply, absent, errno, statfs_out};
use super::request::{Forgets, Operation};
use crate::door::{Desk, Grants, Tagged, Written};
use crate::exec::Executor;
use crate::ops::{Caching, CopyRange, DataCaching, Filesystem, Write};

pub struct Adapter<F> {
    view: View<F>,
    executor: Executor,
}

impl<F> Clone for Adapter<F> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), executor: self.executor.clone() }
    }
}

/// What a request carries along while it waits.
struct View<F> {
    fs: Arc<F>,
    nodes: Nodes,
    caching: bool,
    /// Attributes of directories; `None`: the kernel keeps nothing, or cannot be told.
    given: Option<Arc<Given>>,
    /// Attributes of others, while names are changed past the kernel.
    given_others: Option<Arc<Given>>,
    /// `None`: there is no way but the kernel's.
    desk: Option<Arc<Desk>>,
}

/// What was so before attributes were read.
#[derive(Clone, Copy)]
struct Before {
    asked: Option<Asked>,
    /// As `asked`, of inodes that are no directories.
    asked_others: Option<Asked>,
    written: Written,
}

impl<F> Clone for View<F> {
    fn clone(&self) -> Self {
        Self {
            fs: self.fs.clone(),
            nodes: self.nodes,
            caching: self.caching,
            given: self.given.clone(),
            given_others: self.given_others.clone(),
            desk: self.desk.clone(),
        }
    }
}

/// A name that outlives the buffer that it came in.
type Name = SmallVec<[u8; 36]>;

fn owned(name: &[u8]) -> Name {
    Name::from_slice(name)
}

impl<F: Filesystem> View<F> {
    fn caching_of(&self, ino: Ino) -> Caching {
        if self.caching { self.fs.caching(ino) } else { Caching::NONE }
    }

    /// Of what was made just now, or had another name.
    fn entry_out(&self, entry: &Entry) -> abi::EntryOut {
        let caching = self.caching_of(entry.attr.ino);
        let directory = entry.attr.kind == Kind::Directory;
        let name = if directory { caching.dentry_dir } else { caching.dentry };
        let attr = if self.is_doors(entry.attr.ino) { Duration::ZERO } else { caching.attr };
        self.nodes.entry_out(entry, name, attr)
    }

    /// Whether a file is used through the door now.
    fn is_doors(&self, ino: Ino) -> bool {
        let grants = self.desk.as_ref().map(|desk| &desk.grants);
        grants.is_some_and(|grants| !grants.may_be_believed(ino, grants.written()))
    }

    /// Of what was there.
    fn found_out(&self, entry: &Entry, before: Before) -> abi::EntryOut {
        let mut found = self.entry_out(entry);
        if !self.may_be_believed(&entry.attr, before) {
            (found.attr_valid, found.attr_valid_nsec) = (0, 0);
        }
        found
    }

    /// For how long the kernel may believe attributes that were read after `before`.
    fn valid(&self, attr: &Attr, before: Before) -> Duration {
        match self.may_be_believed(attr, before) {
            true => self.caching_of(attr.ino).attr,
            false => Duration::ZERO,
        }
    }

    /// Before attributes are read for a thread.
    fn before(&self, by: Thread) -> Before {
        let written = self.desk.as_ref().map(|desk| desk.grants.written());
        let asked = self.given.as_ref().map(|given| given.asked(by));
        let others = self.given_others.as_ref().filter(|_| self.names_are_used());
        let asked_others = others.map(|given| given.asked(by));
        Before { asked, asked_others, written: written.unwrap_or_default() }
    }

    fn may_be_believed(&self, attr: &Attr, before: Before) -> bool {
        if attr.kind == Kind::Directory {
            let given = self.given.as_ref().zip(before.asked);
            return given.is_none_or(|(given, asked)| given.give(attr.ino, asked));
        }
        let others = self.given_others.as_ref().zip(before.asked_others);
        let unchanged = others.is_none_or(|(given, asked)| given.give(attr.ino, asked));
        let desk = self.desk.as_ref();
        unchanged && desk.is_none_or(|desk| desk.grants.may_be_believed(attr.ino, before.written))
    }

    /// Whether names are changed past the kernel.
    fn names_are_used(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.names.are_used())
    }

    /// Whether the thread that opens a file means to use it through the door.
    fn is_tagged(&self, header: &InHeader) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.clients.are_opening(header.pid, header.uid))
    }

    /// A file was opened; true if the kernel is to keep no pages for this handle.
    async fn let_in(&self, opened: Tagged, tagged: bool, is_new: bool) -> bool {
        let Some(desk) = &self.desk else { return false };
        let ino = opened.ino;
        if tagged {
            return desk.grants.opened(opened, is_new, || self.fs.opens(ino));
        }
        desk.grants.kernel_uses(ino).await;
        false
    }

    /// The grants, if there is anything in them.
    fn busy_grants(&self) -> Option<Arc<Grants>> {
        let grants = self.desk.as_ref().map(|desk| &desk.grants);
        grants.filter(|grants| !grants.is_idle()).cloned()
    }

    /// A thread's call has changed what is in a directory, or failed to.
    fn changed(&self, directory: Ino, by: Thread) {
        if let Some(given) = &self.given {
            given.changed(directory, by);
        }
    }

    /// The kernel is to ask for attributes again, of an inode that this call holds there.
    fn tell(&self, reply: &Reply, ino: Ino) {
        if self.given.is_some() {
            reply.tell(self.nodes, ino);
        }
    }

    fn open_out(&self, ino: Ino, opened: &Opened, is_doors: bool) -> abi::OpenOut {
        let caching = self.caching_of(ino);
        let open_flags = match caching.data {
            _ if is_doors => fopen::DIRECT_IO,
            DataCaching::Not if !caching.direct_io_disable => fopen::DIRECT_IO,
            DataCaching::Kept | DataCaching::For(_) if opened.keep_cache => fopen::KEEP_CACHE,
            _ => 0,
        };
        abi::OpenOut { handle: opened.handle.0, open_flags, backing: 0 }
    }

    fn create_out(&self, entry: &Entry, opened: &Opened, is_doors: bool) -> abi::CreateOut {
        let open = self.open_out(entry.attr.ino, opened, is_doors);
        abi::CreateOut { entry: self.entry_out(entry), open }
    }

    /// For how long the kernel may believe that a name is not in `parent`.
    fn absent_for(&self, parent: Ino) -> Duration {
        self.caching_of(parent).ndentry
    }
}

impl<F: Filesystem> Adapter<F> {
    pub fn new(fs: Arc<F>, executor: Executor, caching: bool, desk: Option<Arc<Desk>>) -> Self {
        let nodes = Nodes { root: fs.root() };
        let given = || fs.notices().filter(|_| caching).map(|notices| Given::new(notices).into());
        let (given, given_others) = (given(), given());
        Self { view: View { fs, nodes, caching, given, given_others, desk }, executor }
    }

    /// What was given to the kernel, of directories and of others; `None`: it keeps nothing, or cannot be told.
    pub fn given(&self) -> Option<(Arc<Given>, Arc<Given>)> {
        self.view.given.clone().zip(self.view.given_others.clone())
    }

    fn ino(&self, node: u64) -> Ino {
        self.view.nodes.ino(node)
    }

    fn fs(&self) -> Arc<F> {
        self.view.fs.clone()
    }

    /// Runs `call`; `answer` replies.
    fn run<T: Send + 'static>(
        &self,
        reply: Reply,
        call: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(&View<F>, Reply, T) + Send + 'static,
    ) {
        let view = self.view.clone();
        self.executor.spawn(async move {
            match call.await {
                Ok(value) => answer(&view, reply, value),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn empty(&self, reply: Reply, call: impl Future<Output = Result<()>> + Send + 'static) {
        self.run(reply, call, |_, reply, ()| reply.ok());
    }

    fn entry(&self, reply: Reply, call: impl Future<Output = Result<Entry>> + Send + 'static) {
        self.run(reply, call, |view, reply, entry| reply.value(&view.entry_out(&entry)));
    }

    fn attr(
        &self,
        by: Thread,
        reply: Reply,
        call: impl Future<Output = Result<Attr>> + Send + 'static,
    ) {
        let before = self.view.before(by);
        self.run(reply, call, move |view, reply, attr| {
            let valid = view.valid(&attr, before);
            reply.value(&view.nodes.attr_out(&attr, valid));
        });
    }

    /// Of calls that change attributes of `ino`, and for which the kernel does not guard itself against older ones that somebody asked for
    /// meanwhile (`given.rs`).
    fn touching(
        &self,
        ino: Ino,
        reply: Reply,
        call: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.run(reply, call, move |view, reply, ()| {
            view.tell(&reply, ino);
            reply.ok();
        });
    }

    /// What `call` changes in `directory` is known to be changed before it is answered.
    fn changing<T>(
        &self,
        directory: Ino,
        by: Thread,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        self.changing_both((directory, directory), by, call)
    }

    /// As `changing`, of two directories, which may be one.
    fn changing_both<T>(
        &self,
        (one, other): (Ino, Ino),
        by: Thread,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let view = self.view.clone();
        async move {
            let done = call.await;
            view.changed(one, by);
            if other != one {
                view.changed(other, by);
            }
            done
        }
    }

    fn data(&self, reply: Reply, call: impl Future<Output = Result<Bytes>> + Send + 'static) {
        self.run(reply, call, |_, reply, data| reply.data(&data));
    }

    fn created(
        &self,
        reply: Reply,
        (flags, tagged): (i32, bool),
        call: impl Future<Output = Result<(Entry, Opened)>> + Send + 'static,
    ) {
        let view = self.view.clone();
        let call = async move {
            let (entry, opened) = call.await?;
            let handle = Tagged { ino: entry.attr.ino, handle: opened.handle, flags };
            let is_doors = view.let_in(handle, tagged, true).await;
            Ok((entry, opened, is_doors))
        };
        self.run(reply, call, |view, reply, (entry, opened, is_doors)| {
            reply.value(&view.create_out(&entry, &opened, is_doors));
        });
    }

    /// The kernel counts in 32 bits.
    fn written(&self, reply: Reply, call: impl Future<Output = Result<usize>> + Send + 'static) {
        self.run(reply, call, |_, reply, len| {
            let size = u32::try_from(len).unwrap_or(u32::MAX);
            reply.value(&abi::WriteOut { size, padding: 0 });
        });
    }

    /// A value, its size, or ERANGE if the caller's buffer is too small (xattr(7)).
    fn xattr(
        &self,
        size: u32,
        reply: Reply,
        call: impl Future<Output = Result<Bytes>> + Send + 'static,
    ) {
        self.run(reply, call, move |_, reply, value| match size as usize {
            0 => reply.value(&abi::GetXattrOut { size: value.len() as u32, padding: 0 }),
            room if value.len() > room => reply.error(libc::ERANGE),
            _ => reply.data(&value),
        });
    }

    /// Every request but FORGET, which nobody waits for, and WRITE, which owns its data.
    pub fn dispatch(&self, header: &InHeader, operation: Operation<'_>, reply: Reply) {
        let (fs, ino) = (self.fs(), self.ino(header.node));
        let caller = |umask| Caller { uid: header.uid, gid: header.gid, umask };
        let by = Thread(header.pid);
        match operation {
            Operation::Lookup { name } => self.lookup(ino, name, by, reply),
            Operation::GetAttr => self.attr(by, reply, async move { fs.getattr(ino).await }),
            Operation::Statx(_) => self.statx(ino, by, reply),
            Operation::SetAttr(asked) => {
                let (changes, uid) = (changes(&asked), header.uid);
                self.attr(by, reply, async move {
                    if takes_set_id_only(&changes, uid)
                        && owner_of_set_id(&*fs, ino).await?.is_some_and(|owner| owner != uid)
                    {
                        return Err(Error::NotPermitted("the set-id bits are the owner's"));
                    }
                    fs.setattr(ino, changes).await
                });
            }
            Operation::Readlink => self.data(reply, async move { fs.readlink(ino).await }),
            Operation::Symlink { name, target } => {
                let (name, target, caller) = (owned(name), target.to_vec(), caller(0));
                let call = async move { fs.symlink(ino, &name, &target, caller).await };
                self.entry(reply, self.changing(ino, by, call));
            }
            Operation::Mknod { arguments: abi::MknodIn { mode, rdev, umask, .. }, name } => {
                let (name, caller) = (owned(name), caller(umask));
                let call = async move { fs.mknod(ino, &name, mode, rdev, caller).await };
                self.entry(reply, self.changing(ino, by, call));
            }
            Operation::Mkdir { arguments: abi::MkdirIn { mode, umask }, name } => {
                let (name, caller) = (owned(name), caller(umask));
                let call = async move { fs.mkdir(ino, &name, mode, caller).await };
                self.entry(reply, self.changing(ino, by, call));
            }
            Operation::Create { arguments: abi::CreateIn { flags, mode, umask, .. }, name } => {
                let (name, flags, caller) = (owned(name), flags as i32, caller(umask));
                // The kernel has seen that the name is free, and has not looked who may use what is there now: it is to look again.
                let taken = move |error| match error {
                    Error::Exists if flags & libc::O_EXCL == 0 => Error::Stale,
                    error => error,
                };
                let call = async move {
                    let created = fs.create(ino, &name, mode, flags | libc::O_EXCL, caller);
                    created.await.map_err(taken)
                };
                let tagged = self.view.is_tagged(header);
                self.created(reply, (flags, tagged), self.changing(ino, by, call));
            }
            Operation::Tmpfile(abi::CreateIn { flags, mode, umask, .. }) => {
                let (flags, caller) = (flags as i32, caller(umask));
                let tagged = self.view.is_tagged(header);
                let call = async move { fs.tmpfile(ino, mode, flags, caller).await };
                self.created(reply, (flags, tagged), call);
            }
            Operation::Link { node, name } => {
                let (of, name) = (self.ino(node), owned(name));
                let call = async move { fs.link(of, ino, &name).await };
                let before = self.view.before(by);
                self.run(reply, self.changing(ino, by, call), move |view, reply, entry| {
                    reply.value(&view.found_out(&entry, before));
                });
            }
            Operation::Unlink { name } => {
                let name = owned(name);
                let call = async move { fs.unlink(ino, &name).await.map(|_gone| ()) };
                self.empty(reply, self.changing(ino, by, call));
            }
            Operation::Rmdir { name } => {
                let name = owned(name);
                let call = async move { fs.rmdir(ino, &name).await.map(|_gone| ()) };
                self.empty(reply, self.changing(ino, by, call));
            }
            Operation::Rename { name, to_parent, to_name, flags } => {
                let Some(flags) = RenameFlags::from_bits(flags) else {
                    return reply.error(libc::EINVAL);
                };
                let (to, name, to_name) = (self.ino(to_parent), owned(name), owned(to_name));
                let call = async move { fs.rename(ino, &name, to, &to_name, flags).await };
                self.run(reply, self.changing_both((ino, to), by, call), |view, reply, moved| {
                    // Its ctime is a new one, against which the kernel does not guard itself either.
                    moved.inodes.into_iter().flatten().for_each(|moved| view.tell(&reply, moved));
                    reply.ok();
                });
            }
            operation => self.dispatch_open(header, operation, reply),
        }
    }

    /// What is asked of open files, listings and xattrs.
    fn dispatch_open(&self, header: &InHeader, operation: Operation<'_>, reply: Reply) {
        let (fs, ino) = (self.fs(), self.ino(header.node));
        match operation {
            Operation::Open(abi::OpenIn { flags, .. }) => {
                let (view, flags) = (self.view.clone(), flags as i32);
                let tagged = view.is_tagged(header);
                let call = async move {
                    let opened = fs.open(ino, flags).await?;
                    let handle = Tagged { ino, handle: opened.handle, flags };
                    let is_doors = view.let_in(handle, tagged, false).await;
                    Ok((opened, is_doors))
                };
                self.run(reply, call, move |view, reply, (opened, is_doors)| {
                    reply.value(&view.open_out(ino, &opened, is_doors));
                });
            }
            Operation::Read(abi::ReadIn { handle, offset, size, .. }) => {
                let (handle, len) = (Handle(handle), size as usize);
                let grants = self.view.busy_grants();
                self.data(reply, async move {
                    if let Some(grants) = grants {
                        grants.kernel_uses(ino).await;
                    }
                    fs.read(ino, handle, offset, len).await
                });
            }
            Operation::Ioctl(asked) => self.ioctl(ino, &asked, reply),
            Operation::Release(abi::ReleaseIn { handle, .. }) => {
                if let Some(desk) = &self.view.desk {
                    desk.grants.released(ino, Handle(handle));
                }
                self.empty(reply, async move { fs.release(ino, Handle(handle)).await });
            }
            Operation::Fsync(abi::FsyncIn { flags, .. }) => {
                let data_only = flags & abi::FSYNC_DATA_ONLY != 0;
                self.empty(reply, async move { fs.fsync(ino, data_only).await });
            }
            Operation::Syncfs => {
                let root = fs.root();
                self.empty(reply, async move { fs.fsync(root, false).await });
            }
            Operation::Statfs => {
                self.run(reply, async move { fs.statfs(ino).await }, |_, reply, space| {
                    reply.value(&statfs_out(&space))
                });
            }
            Operation::Opendir if self.view.caching_of(ino).data == DataCaching::Not => {
                reply.value(&abi::OpenOut::default());
            }
            // What one directory is answered with ENOSYS holds for those that are not cached, too.
            Operation::Opendir if self.view.fs.changes_elsewhere() => {
                let open_flags = fopen::CACHE_DIR | fopen::KEEP_CACHE;
                reply.value(&abi::OpenOut { open_flags, ..abi::OpenOut::default() });
            }
            Operation::Releasedir | Operation::Destroy => reply.ok(),
            Operation::Readdir(asked) => self.list(ino, &asked, None, reply),
            Operation::ReaddirPlus(asked) => {
                self.list(ino, &asked, Some(Thread(header.pid)), reply)
            }
            Operation::Fallocate(abi::FallocateIn { mode, offset, len, .. }) => {
                let (mode, kill) = (mode as i32, kill_priv(header));
                let call = async move { fs.fallocate(ino, mode, offset, len, kill).await };
                self.touching(ino, reply, call);
            }
            Operation::Lseek(asked) => self.lseek(ino, &asked, reply),
            Operation::CopyFileRange { arguments, wide } => {
                self.copy(header, &arguments, wide, reply)
            }
            Operation::SetXattr { name: door::names::XATTR, value, .. } => {
                reply.error(self.offer(ino, value));
            }
            Operation::GetXattr { size, name: door::names::XATTR } => {
                let token = self.token(ino);
                self.xattr(size, reply, async move { token });
            }
            Operation::SetXattr { flags, kill_sgid, name, value } => {
                let Some(set) = XattrSet::from_bits(flags as i32) else {
                    return reply.error(libc::EINVAL);
                };
                let (name, value) = (owned(name), value.to_vec());
                let call = async move { fs.setxattr(ino, &name, &value, set, kill_sgid).await };
                self.touching(ino, reply, call);
            }
            Operation::GetXattr { size, name } => {
                let name = owned(name);
                self.xattr(size, reply, async move { fs.getxattr(ino, &name).await });
            }
            Operation::ListXattr { size } => {
                let caller = Caller::new(header.uid, header.gid);
                self.xattr(size, reply, async move { fs.listxattr(ino, caller).await });
            }
            Operation::RemoveXattr { name } => {
                let name = owned(name);
                self.touching(ino, reply, async move { fs.removexattr(ino, &name).await });
            }
            // A second handshake is nonsense.
            Operation::Init(_) => reply.error(libc::EIO),
            _ => reply.error(libc::ENOSYS),
        }
    }

    pub fn forget(&self, forgets: Forgets<'_>) {
        for abi::ForgetOne { node, lookups } in forgets.iter() {
            let (fs, ino) = (self.fs(), self.ino(node));
            if fs.forget(ino, lookups) {
                self.executor.spawn(async move { fs.forgotten(ino).await });
            }
        }
    }

    pub fn write(&self, node: u64, asked: &abi::WriteIn, data: Bytes, reply: Reply) {
        // The kernel's pages have their place already; only the write of a program goes to the end.
        let from_cache = asked.write_flags & abi::WRITE_CACHE != 0;
        let opened_with = |flags: i32| asked.flags as i32 & flags != 0 && !from_cache;
        let write = Write {
            ino: self.ino(node),
            handle: Handle(asked.handle),
            offset: asked.offset,
            data,
            append: opened_with(libc::O_APPEND),
            sync: opened_with(libc::O_SYNC | libc::O_DSYNC),
            kill_priv: asked.write_flags & abi::WRITE_KILL_SUIDGID != 0,
        };
        let (fs, grants) = (self.fs(), self.view.busy_grants());
        self.written(reply, async move {
            // An append may be the first of several requests of one call, and nothing may come in between.
            if let Some(grants) = grants
                && (from_cache || write.append || !grants.is_tagged(write.ino, write.handle))
            {
                grants.kernel_uses(write.ino).await;
            }
            fs.write(write).await
        });
    }

    /// Of ioctls, the door's is answered: a pass for a file, and for a directory the way.
    fn ioctl(&self, ino: Ino, asked: &abi::IoctlIn, reply: Reply) {
        let desk = self.view.desk.as_ref().filter(|_| asked.command == door::IOCTL_PASS);
        let Some(desk) = desk else { return reply.error(libc::ENOTTY) };
        let pass = match asked.flags & abi::IOCTL_DIRECTORY {
            0 => desk.pass(ino, Handle(asked.handle)),
            _ => Ok(desk.way()),
        };
        match pass {
            Ok(pass) => {
                let out = abi::IoctlOut::default();
                reply.data(&[out.as_bytes(), &pass.encode()].concat());
            }
            Err(_) => reply.error(libc::ENOTTY),
        }
    }

    /// Somebody whom the kernel lets change this inode would change names in it at the door. The answer is an error in any case: nothing has
    /// changed.
    fn offer(&self, ino: Ino, token: &[u8]) -> i32 {
        let desk = self.view.desk.as_ref().filter(|_| self.view.given.is_some());
        match (desk, Token::decode(token)) {
            (Some(desk), Some(token)) => {
                desk.names.offer(token, ino, Right::Change);
                libc::EALREADY
            }
            _ => libc::EOPNOTSUPP,
        }
    }

    /// Somebody whom the kernel lets read this inode would look for names in it at the door.
    fn token(&self, ino: Ino) -> Result<Bytes> {
        let desk = self.view.desk.as_ref().filter(|_| self.view.given.is_some());
        let token = desk.and_then(|desk| desk.to_look(ino).ok()).ok_or(Error::NoAttribute)?;
        Ok(Bytes::copy_from_slice(&token.encode()))
    }

    fn lookup(&self, parent: Ino, name: &[u8], by: Thread, reply: Reply) {
        let (view, name) = (self.view.clone(), owned(name));
        let before = view.before(by);
        self.executor.spawn(async move {
            match view.fs.lookup(parent, &name).await {
                Ok(entry) => reply.value(&view.found_out(&entry, before)),
                // Cached as absent.
                Err(Error::NoEntry) if !view.absent_for(parent).is_zero() => {
                    reply.value(&absent(view.absent_for(parent)));
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    /// What we have is always the present state, whichever `AT_STATX_*_SYNC` is asked for.
    fn statx(&self, ino: Ino, by: Thread, reply: Reply) {
        let (fs, before) = (self.fs(), self.view.before(by));
        self.run(reply, async move { fs.getattr(ino).await }, move |view, reply, attr| {
            let valid = view.valid(&attr, before);
            reply.value(&view.nodes.statx_out(&attr, valid));
        });
    }

    fn lseek(&self, ino: Ino, asked: &abi::LseekIn, reply: Reply) {
        let seek = match asked.whence as i32 {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(libc::EINVAL),
        };
        let offset = asked.offset;
        if i64::try_from(offset).is_err() {
            return reply.error(libc::ENXIO);
        }
        let fs = self.fs();
        self.run(reply, async move { fs.lseek(ino, offset, seek).await }, |_, reply, offset| {
            reply.value(&abi::LseekOut { offset })
        });
    }

    fn copy(&self, header: &InHeader, asked: &abi::CopyFileRangeIn, wide: bool, reply: Reply) {
        if asked.flags != 0 {
            return reply.error(libc::EINVAL);
        }
        let range = CopyRange {
            from: self.ino(header.node),
            from_offset: asked.from_offset,
            to: self.ino(asked.to_node),
            to_offset: asked.to_offset,
            // The short answer counts in 32 bits.
            len: asked.len.min(1 << 30),
            kill_priv: kill_priv(header),
        };
        let fs = self.fs();
        let call = async move { fs.copy_file_range(range).await };
        if wide {
            self.run(reply, call, |_, reply, len| {
                reply.value(&abi::CopyFileRangeOut { len: len as u64 });
            });
        } else {
            self.written(reply, call);
        }
    }

    /// With attributes if they are for somebody.
    fn list(&self, ino: Ino, asked: &abi::ReadIn, attributes_for: Option<Thread>, reply: Reply) {
        let (view, after) = (self.view.clone(), asked.offset);
        let mut listing = Listing::new(asked.size);
        self.executor.spawn(async move {
            match list(&view, ino, after, attributes_for, &mut listing).await {
                Ok(()) => reply.data(listing.bytes()),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }
}

/// Fills `listing` until it is full or there are no more entries.
async fn list<F: Filesystem>(
    view: &View<F>,
    ino: Ino,
    mut after: u64,
    attributes_for: Option<Thread>,
    listing: &mut Listing,
) -> Result<()> {
    let with_attributes = attributes_for.is_some();
    let mut added = 0;
    loop {
        let wanted = listing.entries_wanted(with_attributes, added);
        if wanted == 0 {
            return Ok(());
        }
        let before = attributes_for.map(|by| view.before(by));
        let entries = match view.fs.readdir(ino, after, wanted, with_attributes).await {
            Ok(entries) => entries,
            // What is there already is an answer; the next call meets the error again.
            Err(_) if !listing.is_empty() => return Ok(()),
            Err(e) => return Err(e),
        };
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.cookie;
        for entry in &entries {
            if !add(view, listing, entry, before) {
                return Ok(());
            }
            added += 1;
        }
    }
}

/// `.` and `..`, and what vanished, go without attributes: the kernel takes their number and kind, and does not count them.
fn add<F: Filesystem>(
    view: &View<F>,
    listing: &mut Listing,
    entry: &DirEntry,
    with_attributes: Option<Before>,
) -> bool {
    let shown = with_attributes.map(|before| match entry.attr {
        Some(attr) => view.found_out(&Entry { attr }, before),
        None => abi::EntryOut::default(),
    });
    let node = view.nodes.node(entry.ino);
    let added = listing.add(shown.as_ref(), node, entry.cookie, entry.kind, &entry.name);
    if added && shown.is_some_and(|shown| shown.node != 0) {
        view.fs.remember(entry.ino);
    }
    added
}

/// Whether set-id bits go when this caller allocates or copies. The kernel says so (that the caller lacks CAP_FSETID) for writes and truncations
/// only; root has it, as a rule, and others have not.
fn kill_priv(header: &InHeader) -> bool {
    header.uid != 0
}

/// `chown(-1, -1)` of somebody but root, or what comes before his write. It takes set-id bits, so it is a chmod, and the kernel leaves it to us to
/// say who may.
fn takes_set_id_only(changes: &SetAttr, uid: u32) -> bool {
    let nothing = SetAttr { kill_priv: changes.kill_priv, ..SetAttr::default() };
    uid != 0 && *changes == nothing
}

/// Who alone may take the set-id bits of a file, if it has any: whoever may write to it takes them that way.
async fn owner_of_set_id<F: Filesystem>(fs: &F, ino: Ino) -> Result<Option<u32>> {
    let attr = fs.getattr(ino).await?;
    let has = attr.mode & (libc::S_ISUID | libc::S_ISGID) != 0 && attr.kind == Kind::File;
    let others_write = attr.mode & (libc::S_IWGRP | libc::S_IWOTH) != 0;
    Ok((has && !others_write).then_some(attr.uid))
}

fn changes(asked: &abi::SetAttrIn) -> SetAttr {
    let has = |flag: u32| asked.valid & flag != 0;
    let time = |set: u32, now: u32, sec: u64, nsec: u32| match (has(set), has(now)) {
        (false, _) => None,
        (true, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::To(Time { sec: sec as i64, nsec })),
    };
    SetAttr {
        mode: has(fattr::MODE).then_some(asked.mode),
        uid: has(fattr::UID).then_some(asked.uid),
        gid: has(fattr::GID).then_some(asked.gid),
        size: has(fattr::SIZE).then_some(asked.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, asked.atime, asked.atime_nsec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, asked.mtime, asked.mtime_nsec),
        kill_priv: has(fattr::KILL_SUIDGID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read as _, Seek as _, SeekFrom};

    use futures_lite::future::block_on;

    use crate::containers::tests::two_containers;
    use crate::fuse::channel::Device;
    use crate::namespace::Namespace;
    use crate::notices::Notice;

    #[test]
    fn only_what_setattr_names_is_changed() {
        let asked = abi::SetAttrIn { mode: 0o600, uid: 5, size: 9, ..Default::default() };
        assert_eq!(changes(&asked), SetAttr::default());
        let asked = abi::SetAttrIn { valid: fattr::SIZE | fattr::KILL_SUIDGID, ..asked };
        assert_eq!(
            changes(&asked),
            SetAttr { size: Some(9), kill_priv: true, ..SetAttr::default() }
        );
    }

    /// What the kernel is told while `call` is answered.
    fn told(
        namespace: &Arc<Namespace>,
        call: impl FnOnce(&Adapter<Namespace>, Reply),
    ) -> Vec<Notice> {
        let adapter = Adapter::new(namespace.clone(), Executor::new(8), true, None);
        let written = rustix::fs::memfd_create(c"device", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let device = Arc::new(Device::from(written.try_clone().unwrap()));
        let mut told = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| namespace.notices.serve(|notice| told.push(notice.clone())));
            call(&adapter, Reply::new(device, 1));
            while adapter.executor.in_flight() > 0 {
                std::thread::yield_now();
            }
            assert!(namespace.notices.delivered(Duration::from_secs(20)));
            namespace.notices.close();
        });
        let (mut file, mut written) = (std::fs::File::from(written), Vec::new());
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut written).unwrap();
        let mut rest = &written[..];
        while let Some((header, _)) = rest.split_first_chunk::<16>() {
            let number = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            if number(4) as i32 == abi::notify::INVAL_INODE {
                told.push(Notice::Attributes(Ino(u64::from_ne_bytes(
                    rest[16..24].try_into().unwrap(),
                ))));
            }
            rest = &rest[number(0) as usize..];
        }
        told
    }

    #[test]
    fn the_kernel_is_told_of_what_a_rename_has_moved() {
        let user = Caller::new(0, 0);
        for (flags, both) in [(0, false), (libc::RENAME_EXCHANGE, true)] {
            let (namespace, a, b) = block_on(async {
                let namespace = Arc::new(Namespace::new(two_containers().await.0));
                let root = Filesystem::root(&*namespace);
                let made = |name: &'static [u8]| namespace.mknod(root, name, 0o100_644, 0, user);
                let (a, b) = (made(b"a").await.unwrap(), made(b"b").await.unwrap());
                (namespace, a.attr.ino, b.attr.ino)
            });
            let told = told(&namespace, |adapter, reply| {
                let header = InHeader { node: 1, ..InHeader::default() };
                let rename = Operation::Rename { name: b"a", to_parent: 1, to_name: b"b", flags };
                adapter.dispatch(&header, rename, reply);
            });
            assert!(told.contains(&Notice::Attributes(a)), "{told:?}");
            assert_eq!(told.contains(&Notice::Attributes(b)), both, "{told:?}");
        }
    }

    #[test]
    fn times_are_given_or_now() {
        let valid = fattr::ATIME | fattr::MTIME | fattr::MTIME_NOW;
        let asked = abi::SetAttrIn {
            valid,
            atime: -2i64 as u64,
            atime_nsec: 800_000_000,
            ..Default::default()
        };
        let changes = changes(&asked);
        assert_eq!(changes.atime, Some(SetTime::To(Time { sec: -2, nsec: 800_000_000 })));
        assert_eq!(changes.mtime, Some(SetTime::Now));
        assert_eq!(changes.mode, None);
    }
}
