//! Parse, one call, reply.
//!
//! # Invariants
//! 1. Node 1 is the root directory and the root directory is node 1, in every direction; other nodes are inode numbers.
//! 2. The kernel's count of an inode grows only by answers that were sent: entries of READDIRPLUS are remembered when they
//!    are in the reply, before it is sent.
//!
//! # Not implemented, on purpose
//! getlk, setlk, flock: the kernel then keeps locks itself, interruptible and with EDEADLK. access: permissions are checked by the
//! kernel. opendir and releasedir while directories may be cached: cookies need no handle, and ENOSYS tells the kernel not to ask.
//! ioctl, poll, bmap: answered by fuser with ENOSYS, by the kernel with ENOTTY and the like.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dfs::{
    Attr, Caller, DirEntry, Entry, Error, Handle, Ino, Kind, Opened, RenameFlags, Result, Seek,
    SetAttr, XattrSet,
};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{ROOT_NODE, file_attr, file_type, no_attr, set_time};
use super::requests::Requests;
use super::session::REQUEST_BYTES_MAX;
use crate::exec::Executor;
use crate::ops::{Caching, CopyRange, DataCaching, Filesystem, Write};

/// Generation of every inode: numbers are never used again.
const GENERATION: Generation = Generation(0);
/// Background requests (read-ahead, asynchronous direct I/O, releases) that the kernel keeps in flight.
const BACKGROUND_MAX: u16 = 64;
/// Entries asked for at once. fuser does not say how much the kernel has room for (a page, or as much as the program gave, mostly 32 KiB,
/// which is 200 entries with attributes): what does not fit is asked for again. With attributes they are two engine requests per 21.
const ENTRIES_NAMED: usize = 256;
const ENTRIES_WITH_ATTRIBUTES: usize = 42;

pub struct Adapter<F> {
    view: View<F>,
    executor: Executor,
    requests: Arc<Requests>,
}

/// What a request carries along while it waits.
struct View<F> {
    fs: Arc<F>,
    root: Ino,
    caching: bool,
}

impl<F> Clone for View<F> {
    fn clone(&self) -> Self {
        Self { fs: self.fs.clone(), root: self.root, caching: self.caching }
    }
}

impl<F: Filesystem> View<F> {
    fn ino(&self, node: INodeNo) -> Ino {
        if node.0 == ROOT_NODE { self.root } else { Ino(node.0) }
    }

    fn node(&self, ino: Ino) -> INodeNo {
        INodeNo(if ino == self.root { ROOT_NODE } else { ino.0 })
    }

    fn attr(&self, attr: &Attr) -> FileAttr {
        file_attr(attr, self.node(attr.ino))
    }

    fn caching_of(&self, ino: Ino) -> Caching {
        if self.caching { self.fs.caching(ino) } else { Caching::NONE }
    }

    /// Of a name.
    fn entry_ttl(&self, attr: &Attr) -> Duration {
        let caching = self.caching_of(attr.ino);
        if attr.kind == Kind::Directory { caching.dentry_dir } else { caching.dentry }
    }

    fn open_flags(&self, ino: Ino, opened: &Opened) -> FopenFlags {
        let caching = self.caching_of(ino);
        match caching.data {
            DataCaching::Not if !caching.direct_io_disable => FopenFlags::FOPEN_DIRECT_IO,
            DataCaching::Kept | DataCaching::For(_) if opened.keep_cache => {
                FopenFlags::FOPEN_KEEP_CACHE
            }
            _ => FopenFlags::empty(),
        }
    }
}

impl<F: Filesystem> Adapter<F> {
    pub fn new(fs: Arc<F>, executor: Executor, requests: Arc<Requests>, caching: bool) -> Self {
        let root = fs.root();
        Self { view: View { fs, root, caching }, executor, requests }
    }

    fn ino(&self, node: INodeNo) -> Ino {
        self.view.ino(node)
    }

    fn fs(&self) -> Arc<F> {
        self.view.fs.clone()
    }

    fn empty(&self, reply: ReplyEmpty, call: impl Future<Output = Result<()>> + Send + 'static) {
        self.executor.spawn(async move {
            match call.await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn entry(&self, reply: ReplyEntry, call: impl Future<Output = Result<Entry>> + Send + 'static) {
        let view = self.view.clone();
        self.executor.spawn(async move {
            match call.await {
                Ok(e) => reply.entry(&view.entry_ttl(&e.attr), &view.attr(&e.attr), GENERATION),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn attr(&self, reply: ReplyAttr, call: impl Future<Output = Result<Attr>> + Send + 'static) {
        let view = self.view.clone();
        self.executor.spawn(async move {
            match call.await {
                Ok(attr) => reply.attr(&view.caching_of(attr.ino).attr, &view.attr(&attr)),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn data(&self, reply: ReplyData, call: impl Future<Output = Result<Bytes>> + Send + 'static) {
        self.executor.spawn(async move {
            match call.await {
                Ok(data) => reply.data(&data),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn written(
        &self,
        reply: ReplyWrite,
        call: impl Future<Output = Result<usize>> + Send + 'static,
    ) {
        self.executor.spawn(async move {
            match call.await {
                Ok(len) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    /// A value, its size, or ERANGE if the caller's buffer is too small (xattr(7)).
    fn xattr(
        &self,
        size: u32,
        reply: ReplyXattr,
        call: impl Future<Output = Result<Bytes>> + Send + 'static,
    ) {
        self.executor.spawn(async move {
            match call.await {
                Ok(value) if size == 0 => reply.size(value.len() as u32),
                Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
                Ok(value) => reply.data(&value),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }
}

/// What the kernel is asked for. Not asked for: WRITEBACK_CACHE, with which the kernel would acknowledge writes that
/// were never seen here; AUTO_INVAL_DATA, which drops cached pages at each change of mtime: all changes pass here; ATOMIC_O_TRUNC,
/// with which a program that runs is truncated by an open with O_RDONLY | O_TRUNC before the kernel answers ETXTBSY.
fn wanted(caching: bool) -> InitFlags {
    let mut flags = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_READDIRPLUS_AUTO;
    if caching {
        flags |= InitFlags::FUSE_CACHE_SYMLINKS;
    } else {
        flags |= InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
    }
    flags
}

fn errno(error: &Error) -> Errno {
    let number = error.errno();
    if matches!(number, libc::EIO | libc::EUCLEAN | libc::EPROTO | libc::ENOTCONN) {
        tracing::error!("a request failed: {error}");
    }
    Errno::from_i32(number)
}

fn caller(request: &Request) -> Caller {
    Caller::new(request.uid(), request.gid())
}

fn maker(request: &Request, umask: u32) -> Caller {
    Caller { umask, ..caller(request) }
}

/// Whether set-id bits go when this caller truncates, allocates or copies. fuser does not pass FATTR_KILL_SUIDGID on, by which the kernel says that the
/// caller lacks CAP_FSETID; root has it, as a rule, and others have not.
fn kill_priv(request: &Request) -> bool {
    request.uid() != 0
}

fn owned(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

impl<F: Filesystem> fuser::Filesystem for Adapter<F> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = wanted(self.view.caching) & config.capabilities();
        config.add_capabilities(wanted).map_err(|_| io::Error::other("capabilities changed"))?;
        // The nearest that the kernel allows is fine for each of these.
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        tracing::debug!(?wanted, "connected to the kernel");
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.requests.count(1); // LOOKUP
        let (view, parent, name) = (self.view.clone(), self.ino(parent), owned(name));
        self.executor.spawn(async move {
            match view.fs.lookup(parent, &name).await {
                Ok(e) => reply.entry(&view.entry_ttl(&e.attr), &view.attr(&e.attr), GENERATION),
                // Cached as absent.
                Err(Error::NoEntry) if !view.caching_of(parent).ndentry.is_zero() => {
                    reply.entry(&view.caching_of(parent).ndentry, &no_attr(), GENERATION);
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.requests.count(2); // FORGET
        self.view.fs.forget(self.ino(ino), lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.requests.count(3); // GETATTR
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.attr(reply, async move { fs.getattr(ino).await });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.requests.count(4); // SETATTR
        let changes = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            kill_priv: size.is_some() && kill_priv(request),
        };
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.attr(reply, async move { fs.setattr(ino, changes).await });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.requests.count(5); // READLINK
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.data(reply, async move { fs.readlink(ino).await });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.requests.count(8); // MKNOD
        let (fs, parent, name) = (self.fs(), self.ino(parent), owned(name));
        let caller = maker(request, umask);
        self.entry(reply, async move { fs.mknod(parent, &name, mode, rdev, caller).await });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.requests.count(9); // MKDIR
        let (fs, parent, name) = (self.fs(), self.ino(parent), owned(name));
        let caller = maker(request, umask);
        self.entry(reply, async move { fs.mkdir(parent, &name, mode, caller).await });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.requests.count(6); // SYMLINK
        let (fs, parent, name) = (self.fs(), self.ino(parent), owned(name));
        let (target, caller) = (owned(target.as_os_str()), caller(request));
        self.entry(reply, async move { fs.symlink(parent, &name, &target, caller).await });
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.requests.count(13); // LINK
        let (fs, ino, parent, name) = (self.fs(), self.ino(ino), self.ino(parent), owned(name));
        self.entry(reply, async move { fs.link(ino, parent, &name).await });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(10); // UNLINK
        let (fs, parent, name) = (self.fs(), self.ino(parent), owned(name));
        self.empty(reply, async move { fs.unlink(parent, &name).await });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(11); // RMDIR
        let (fs, parent, name) = (self.fs(), self.ino(parent), owned(name));
        self.empty(reply, async move { fs.rmdir(parent, &name).await });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.requests.count(12); // RENAME
        let Some(flags) = RenameFlags::from_bits(flags.bits()) else {
            return reply.error(Errno::EINVAL);
        };
        let (fs, parent, to_parent) = (self.fs(), self.ino(parent), self.ino(to_parent));
        let (name, to_name) = (owned(name), owned(to_name));
        self.empty(
            reply,
            async move { fs.rename(parent, &name, to_parent, &to_name, flags).await },
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.requests.count(14); // OPEN
        let (view, ino) = (self.view.clone(), self.ino(ino));
        self.executor.spawn(async move {
            match view.fs.open(ino, flags.0).await {
                Ok(opened) => {
                    reply.opened(FileHandle(opened.handle.0), view.open_flags(ino, &opened))
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.requests.count(35); // CREATE
        let (view, parent, name) = (self.view.clone(), self.ino(parent), owned(name));
        let caller = maker(request, umask);
        self.executor.spawn(async move {
            match view.fs.create(parent, &name, mode, flags, caller).await {
                Ok((entry, opened)) => reply.created(
                    &view.entry_ttl(&entry.attr),
                    &view.attr(&entry.attr),
                    GENERATION,
                    FileHandle(opened.handle.0),
                    view.open_flags(entry.attr.ino, &opened),
                ),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.requests.count(15); // READ
        let (fs, ino, handle) = (self.fs(), self.ino(ino), Handle(handle.0));
        self.data(reply, async move { fs.read(ino, handle, offset, size as usize).await });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.requests.count(16); // WRITE
        // The kernel's pages have their place already; only the write of a program goes to the end.
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let write = Write {
            ino: self.ino(ino),
            handle: Handle(handle.0),
            offset,
            data: Bytes::copy_from_slice(data),
            append: flags.0 & libc::O_APPEND != 0 && !from_cache,
            sync: flags.0 & (libc::O_SYNC | libc::O_DSYNC) != 0 && !from_cache,
            kill_priv: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        let fs = self.fs();
        self.written(reply, async move { fs.write(write).await });
    }

    /// Nothing is kept back: every write has had its answer. From the first ENOSYS on the kernel does not ask at a close any
    /// more; it still writes out mapped pages there and reports their errors.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.requests.count(25); // FLUSH
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.requests.count(18); // RELEASE
        let (fs, ino, handle) = (self.fs(), self.ino(ino), Handle(handle.0));
        self.empty(reply, async move { fs.release(ino, handle).await });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.requests.count(20); // FSYNC
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.empty(reply, async move { fs.fsync(ino, datasync).await });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.requests.count(27); // OPENDIR
        if self.view.caching {
            // From then on the kernel opens directories itself and caches what they list, until it changes them.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::empty());
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.requests.count(28); // READDIR
        let (view, ino) = (self.view.clone(), self.ino(ino));
        self.executor.spawn(async move {
            let listed = list(&view, ino, offset, false, |entry| {
                let name = OsStr::from_bytes(&entry.name);
                !reply.add(view.node(entry.ino), entry.cookie, file_type(entry.kind), name)
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.requests.count(44); // READDIRPLUS
        let (view, ino) = (self.view.clone(), self.ino(ino));
        self.executor.spawn(async move {
            let listed = list(&view, ino, offset, true, |entry| {
                let name = OsStr::from_bytes(&entry.name);
                let node = view.node(entry.ino);
                let ttl = entry.attr.as_ref().map_or(Duration::ZERO, |attr| view.entry_ttl(attr));
                let attr = match &entry.attr {
                    Some(attr) => view.attr(attr),
                    // `.` and `..`: the kernel takes their number and kind, and does not count them.
                    None => FileAttr { ino: node, kind: file_type(entry.kind), ..no_attr() },
                };
                let full = reply.add(node, entry.cookie, name, &ttl, &attr, GENERATION);
                if !full && entry.attr.is_some() {
                    view.fs.remember(entry.ino);
                }
                !full
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn fsyncdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.requests.count(30); // FSYNCDIR
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.empty(reply, async move { fs.fsync(ino, datasync).await });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.requests.count(17); // STATFS
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.executor.spawn(async move {
            match fs.statfs(ino).await {
                Ok(s) => {
                    let unit = u64::from(s.block_bytes.max(1));
                    reply.statfs(
                        s.capacity / unit,
                        s.free / unit,
                        s.available / unit,
                        s.inodes,
                        s.inodes_free,
                        s.block_bytes,
                        s.name_bytes_max,
                        s.block_bytes,
                    );
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.requests.count(21); // SETXATTR
        let Some(set) = XattrSet::from_bits(flags) else { return reply.error(Errno::EINVAL) };
        let (fs, ino, name, value) = (self.fs(), self.ino(ino), owned(name), value.to_vec());
        self.empty(reply, async move { fs.setxattr(ino, &name, &value, set, false).await });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.requests.count(22); // GETXATTR
        let (fs, ino, name) = (self.fs(), self.ino(ino), owned(name));
        self.xattr(size, reply, async move { fs.getxattr(ino, &name).await });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.requests.count(23); // LISTXATTR
        let (fs, ino, caller) = (self.fs(), self.ino(ino), caller(request));
        self.xattr(size, reply, async move { fs.listxattr(ino, caller).await });
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.requests.count(24); // REMOVEXATTR
        let (fs, ino, name) = (self.fs(), self.ino(ino), owned(name));
        self.empty(reply, async move { fs.removexattr(ino, &name).await });
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        self.requests.count(34); // ACCESS
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.requests.count(43); // FALLOCATE
        let (fs, ino, kill) = (self.fs(), self.ino(ino), kill_priv(request));
        self.empty(reply, async move { fs.fallocate(ino, mode, offset, len, kill).await });
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.requests.count(46); // LSEEK
        let seek = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let (fs, ino) = (self.fs(), self.ino(ino));
        self.executor.spawn(async move {
            match fs.lseek(ino, offset, seek).await {
                Ok(found) => reply.offset(found as i64),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.requests.count(47); // COPY_FILE_RANGE
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = (self.ino(from), self.ino(to));
        // The reply counts in 32 bits.
        let len = len.min(1 << 30);
        let kill_priv = kill_priv(request);
        let range = CopyRange { from, from_offset, to, to_offset, len, kill_priv };
        let fs = self.fs();
        self.written(reply, async move { fs.copy_file_range(range).await });
    }
}

/// Gives entries to `add` until it has no room or there are no more.
async fn list<F: Filesystem>(
    view: &View<F>,
    ino: Ino,
    mut after: u64,
    with_attributes: bool,
    mut add: impl FnMut(&DirEntry) -> bool,
) -> Result<()> {
    let entries_max = if with_attributes { ENTRIES_WITH_ATTRIBUTES } else { ENTRIES_NAMED };
    let mut any = false;
    loop {
        let entries = match view.fs.readdir(ino, after, entries_max, with_attributes).await {
            Ok(entries) => entries,
            // What is there already is an answer; the next call meets the error again.
            Err(_) if any => return Ok(()),
            Err(e) => return Err(e),
        };
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.cookie;
        for entry in &entries {
            if !add(entry) {
                return Ok(());
            }
            any = true;
        }
    }
}
