//! An in-memory tree with no storage behind it: the ceiling that benches compare the daemon with.
//!
//! # Not here
//! Meaning beyond what benches and the adapter's tests use: no xattrs, no space accounting, no times but now.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dfs::{
    Appended, Attr, Caller, Credentials, DirEntry, Entry, Error, Handle, Ino, Kind, Moved, Opened,
    RenameFlags, Result, Right, Seek, SetAttr, SetTime, Space, Time, XattrSet,
};

use crate::ops::{Caching, CopyRange, Filesystem, Write};

const ROOT: Ino = Ino(1);
const BLOCK_BYTES: u32 = 4096;

pub struct Null {
    nodes: RwLock<HashMap<Ino, Arc<Mutex<Node>>>>,
    next: AtomicU64,
}

struct Node {
    attr: Attr,
    body: Body,
}

enum Body {
    File(Vec<u8>),
    Directory {
        parent: Ino,
        entries: BTreeMap<u64, (Vec<u8>, Ino)>,
        by_name: HashMap<Vec<u8>, u64>,
        next: u64,
    },
    Symlink(Bytes),
    Other,
}

impl Default for Null {
    fn default() -> Self {
        let null = Self { nodes: RwLock::default(), next: AtomicU64::new(ROOT.0 + 1) };
        let attr = attr(ROOT, libc::S_IFDIR | 0o755, Caller::new(0, 0));
        null.put(Node { attr, body: directory(ROOT) });
        null
    }
}

fn directory(parent: Ino) -> Body {
    // 1 and 2 are the cookies of `.` and `..`.
    Body::Directory { parent, entries: BTreeMap::new(), by_name: HashMap::new(), next: 3 }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() }
}

fn opened(ino: Ino) -> Opened {
    Opened { handle: Handle(ino.0), keep_cache: true }
}

fn attr(ino: Ino, mode: u32, caller: Caller) -> Attr {
    let now = now();
    let kind = Kind::of_mode(mode).unwrap_or(Kind::File);
    Attr {
        ino,
        kind,
        mode: if kind == Kind::Symlink { mode } else { mode & !caller.umask },
        nlink: if kind == Kind::Directory { 2 } else { 1 },
        uid: caller.uid,
        gid: caller.gid,
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: BLOCK_BYTES,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    }
}

fn lock(node: &Mutex<Node>) -> MutexGuard<'_, Node> {
    node.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    fn set_size(&mut self, size: u64) {
        self.attr.size = size;
        self.attr.blocks = size.div_ceil(512);
        self.attr.mtime = now();
    }

    fn data(&mut self) -> Result<&mut Vec<u8>> {
        match &mut self.body {
            Body::File(data) => Ok(data),
            Body::Directory { .. } => Err(Error::IsDirectory),
            _ => Err(Error::Invalid("not a file")),
        }
    }

    fn find(&self, name: &[u8]) -> Result<Ino> {
        match &self.body {
            Body::Directory { entries, by_name, .. } => {
                let cookie = by_name.get(name).ok_or(Error::NoEntry)?;
                Ok(entries[cookie].1)
            }
            _ => Err(Error::NotDirectory),
        }
    }

    fn insert(&mut self, name: &[u8], ino: Ino) -> Result<()> {
        match &mut self.body {
            Body::Directory { entries, by_name, next, .. } => {
                if by_name.contains_key(name) {
                    return Err(Error::Exists);
                }
                entries.insert(*next, (name.to_vec(), ino));
                by_name.insert(name.to_vec(), *next);
                *next += 1;
                self.attr.mtime = now();
                Ok(())
            }
            _ => Err(Error::NotDirectory),
        }
    }

    fn remove(&mut self, name: &[u8]) -> Result<Ino> {
        match &mut self.body {
            Body::Directory { entries, by_name, .. } => {
                let cookie = by_name.remove(name).ok_or(Error::NoEntry)?;
                let (_, ino) = entries.remove(&cookie).expect("every name has an entry");
                self.attr.mtime = now();
                Ok(ino)
            }
            _ => Err(Error::NotDirectory),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(&self.body, Body::Directory { entries, .. } if entries.is_empty())
    }
}

impl Null {
    fn node(&self, ino: Ino) -> Result<Arc<Mutex<Node>>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&ino).cloned().ok_or(Error::Stale)
    }

    fn put(&self, node: Node) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node.attr.ino, Arc::new(Mutex::new(node)));
    }

    fn entry(&self, ino: Ino) -> Result<Entry> {
        Ok(Entry { attr: lock(&*self.node(ino)?).attr })
    }

    fn make(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        body: Body,
        caller: Caller,
    ) -> Result<Entry> {
        let ino = Ino(self.next.fetch_add(1, Ordering::Relaxed));
        let mut node = Node { attr: attr(ino, mode, caller), body };
        if let Body::Symlink(target) = &node.body {
            node.attr.size = target.len() as u64;
        }
        let entry = Entry { attr: node.attr };
        lock(&*self.node(parent)?).insert(name, ino)?;
        self.put(node);
        Ok(entry)
    }

    fn drop_link(&self, ino: Ino) -> Result<()> {
        let node = self.node(ino)?;
        let mut node = lock(&node);
        node.attr.nlink = node.attr.nlink.saturating_sub(1);
        Ok(())
    }
}

impl Filesystem for Null {
    fn root(&self) -> Ino {
        ROOT
    }
    fn caching(&self, _: Ino) -> Caching {
        Caching::ALL
    }
    fn remember(&self, _: Ino) {}

    /// Inodes without names go when the kernel forgets them, which is after their last close.
    fn forget(&self, ino: Ino, _: u64) -> bool {
        let gone = self.node(ino).is_ok_and(|node| lock(&node).attr.nlink == 0);
        if gone {
            self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(&ino);
        }
        false
    }

    async fn surely_may(&self, _: Ino, _: &Credentials, _: Right) -> Result<bool> {
        Ok(false)
    }

    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        let ino = lock(&*self.node(parent)?).find(name)?;
        self.entry(ino)
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(lock(&*self.node(ino)?).attr)
    }

    async fn setattr(&self, ino: Ino, changes: SetAttr) -> Result<Attr> {
        let node = self.node(ino)?;
        let mut node = lock(&node);
        if let Some(mode) = changes.mode {
            node.attr.mode = node.attr.mode & libc::S_IFMT | mode & 0o7777;
        }
        node.attr.uid = changes.uid.unwrap_or(node.attr.uid);
        node.attr.gid = changes.gid.unwrap_or(node.attr.gid);
        if let Some(size) = changes.size {
            node.data()?.resize(size as usize, 0);
            node.set_size(size);
        }
        let time = |set: SetTime| match set {
            SetTime::Now => now(),
            SetTime::To(time) => time,
        };
        node.attr.atime = changes.atime.map_or(node.attr.atime, time);
        node.attr.mtime = changes.mtime.map_or(node.attr.mtime, time);
        node.attr.ctime = now();
        Ok(node.attr)
    }

    async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        match &lock(&*self.node(ino)?).body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::Invalid("not a symlink")),
        }
    }

    async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        _rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let file = Kind::of_mode(mode) == Some(Kind::File);
        let body = if file { Body::File(Vec::new()) } else { Body::Other };
        self.make(parent, name, mode, body, caller)
    }

    async fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: Caller) -> Result<Entry> {
        self.make(parent, name, mode | libc::S_IFDIR, directory(parent), caller)
    }

    async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        let body = Body::Symlink(Bytes::copy_from_slice(target));
        self.make(parent, name, libc::S_IFLNK | 0o777, body, caller)
    }

    async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry> {
        lock(&*self.node(parent)?).insert(name, ino)?;
        lock(&*self.node(ino)?).attr.nlink += 1;
        self.entry(ino)
    }

    async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        let ino = lock(&*self.node(parent)?).remove(name)?;
        self.drop_link(ino)?;
        Ok(ino)
    }

    async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        let parent = self.node(parent)?;
        let ino = lock(&parent).find(name)?;
        let child = self.node(ino)?;
        if !lock(&child).is_empty() {
            return Err(Error::NotEmpty);
        }
        lock(&parent).remove(name)?;
        lock(&child).attr.nlink = 0;
        Ok(ino)
    }

    async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        to_parent: Ino,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<Moved> {
        if flags.exchange {
            return Err(Error::NotSupported("exchange"));
        }
        let target = lock(&*self.node(to_parent)?).find(to_name).ok();
        if target.is_some() && flags.no_replace {
            return Err(Error::Exists);
        }
        let ino = lock(&*self.node(parent)?).remove(name)?;
        let to = self.node(to_parent)?;
        if let Some(target) = target {
            lock(&to).remove(to_name)?;
            self.drop_link(target)?;
        }
        lock(&to).insert(to_name, ino)?;
        Ok(Moved { inodes: [Some(ino), None], replaced: target })
    }

    async fn open(&self, ino: Ino, flags: i32) -> Result<Opened> {
        if flags & libc::O_TRUNC != 0 {
            self.setattr(ino, SetAttr { size: Some(0), ..SetAttr::default() }).await?;
        }
        Ok(opened(ino))
    }

    async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        _flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let mode = mode & !libc::S_IFMT | libc::S_IFREG;
        let entry = self.make(parent, name, mode, Body::File(Vec::new()), caller)?;
        Ok((entry, opened(entry.attr.ino)))
    }

    async fn tmpfile(&self, _: Ino, mode: u32, _: i32, caller: Caller) -> Result<(Entry, Opened)> {
        let ino = Ino(self.next.fetch_add(1, Ordering::Relaxed));
        let mode = mode & !libc::S_IFMT | libc::S_IFREG;
        let mut node = Node { attr: attr(ino, mode, caller), body: Body::File(Vec::new()) };
        node.attr.nlink = 0;
        let entry = Entry { attr: node.attr };
        self.put(node);
        Ok((entry, opened(ino)))
    }

    async fn read(&self, ino: Ino, _: Handle, offset: u64, len: usize) -> Result<Bytes> {
        let node = self.node(ino)?;
        let mut node = lock(&node);
        let data = node.data()?;
        let start = (offset as usize).min(data.len());
        let end = start.saturating_add(len).min(data.len());
        Ok(Bytes::copy_from_slice(&data[start..end]))
    }

    async fn write(&self, write: Write) -> Result<usize> {
        Ok(self.append(write).await?.bytes)
    }

    async fn append(&self, write: Write) -> Result<Appended> {
        let node = self.node(write.ino)?;
        let mut node = lock(&node);
        let data = node.data()?;
        let start = if write.append { data.len() } else { write.offset as usize };
        let end = start + write.data.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(&write.data);
        let size = data.len() as u64;
        node.set_size(size);
        Ok(Appended { bytes: write.data.len(), end: end as u64 })
    }

    async fn release(&self, _: Ino, _: Handle) -> Result<()> {
        Ok(())
    }
    async fn fsync(&self, _: Ino, _: bool) -> Result<()> {
        Ok(())
    }

    async fn readdir(
        &self,
        ino: Ino,
        after: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirEntry>> {
        let mut list = Vec::new();
        {
            let node = self.node(ino)?;
            let node = lock(&node);
            let Body::Directory { parent, entries, .. } = &node.body else {
                return Err(Error::NotDirectory);
            };
            let dots = [(1, &b"."[..], ino), (2, &b".."[..], *parent)];
            for (cookie, name, ino) in dots.into_iter().filter(|d| d.0 > after) {
                let name = Bytes::from_static(name);
                list.push(DirEntry { cookie, name, ino, kind: Kind::Directory, attr: None });
            }
            for (&cookie, (name, ino)) in entries.range(after + 1..).take(entries_max) {
                let name = Bytes::copy_from_slice(name);
                list.push(DirEntry { cookie, name, ino: *ino, kind: Kind::File, attr: None });
            }
        }
        for entry in list.iter_mut().filter(|e| e.cookie > 2) {
            let attr = self.entry(entry.ino)?.attr;
            entry.kind = attr.kind;
            entry.attr = with_attributes.then_some(attr);
        }
        Ok(list)
    }

    async fn statfs(&self, _: Ino) -> Result<Space> {
        let bytes = 1 << 40;
        Ok(Space {
            capacity: bytes,
            free: bytes,
            available: bytes,
            block_bytes: BLOCK_BYTES,
            inodes: 1 << 20,
            inodes_free: 1 << 20,
            name_bytes_max: 255,
        })
    }

    async fn setxattr(&self, _: Ino, _: &[u8], _: &[u8], _: XattrSet, _: bool) -> Result<()> {
        Err(Error::NotSupported("xattrs"))
    }
    async fn getxattr(&self, _: Ino, _: &[u8]) -> Result<Bytes> {
        Err(Error::NoAttribute)
    }
    async fn listxattr(&self, _: Ino, _: Caller) -> Result<Bytes> {
        Ok(Bytes::new())
    }
    async fn removexattr(&self, _: Ino, _: &[u8]) -> Result<()> {
        Err(Error::NoAttribute)
    }
    async fn fallocate(&self, _: Ino, _: i32, _: u64, _: u64, _: bool) -> Result<()> {
        Err(Error::NotSupported("fallocate"))
    }

    async fn lseek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        let size = lock(&*self.node(ino)?).attr.size;
        match seek {
            _ if offset >= size => Err(Error::NoSuchRange),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    async fn copy_file_range(&self, _: CopyRange) -> Result<usize> {
        Err(Error::NotSupported("copy_file_range"))
    }
}
