//! A filesystem and the tree that it should equal, and random calls to both.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use daos_model::posix::{ACCESS_ACL, Answer, DEFAULT_ACL, PosixTree, ROOT};
use dfs::{Attr, Caller, Dfs, Handle, Ino, RenameFlags, Seek, SetAttr, SetTime, Time, XattrSet};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// Files stay shorter than this.
const SIZE_MAX: u64 = 50_000;

/// xorshift64*: enough to choose calls.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let first = self.below(250) as u8;
        (0..len).map(|i| first.wrapping_add(i as u8) | 1).collect()
    }
}

pub struct Pair {
    random: Random,
    tree: PosixTree,
    dfs: Arc<Dfs>,
    /// The filesystem's number of each inode of the tree.
    inos: BTreeMap<usize, Ino>,
    opens: Vec<(usize, Handle)>,
    /// How often each call worked, and was refused alike.
    done: BTreeMap<&'static str, (u64, u64)>,
}

fn errno<T>(result: &dfs::Result<T>) -> i32 {
    result.as_ref().err().map_or(0, dfs::Error::errno)
}

impl Pair {
    pub fn new(seed: u64, dfs: Arc<Dfs>) -> Self {
        let inos = BTreeMap::from([(ROOT, dfs.root())]);
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (tree, opens) = (PosixTree::default(), Vec::new());
        Self { random, tree, dfs, inos, opens, done: BTreeMap::new() }
    }

    pub fn done(self) -> BTreeMap<&'static str, (u64, u64)> {
        self.done
    }

    fn ino(&self, id: usize) -> Ino {
        self.inos[&id]
    }

    /// Both worked, or both were refused for the same reason.
    fn same<T, U>(
        &mut self,
        call: &'static str,
        ours: &dfs::Result<T>,
        theirs: &Answer<U>,
    ) -> bool {
        let expected = theirs.as_ref().err().copied().unwrap_or(0);
        assert_eq!(errno(ours), expected, "{call}: errno (0 is success)");
        let counts = self.done.entry(call).or_default();
        if expected == 0 {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
        expected == 0
    }

    /// Any inode; every other time one of the oldest, so that much happens to a few.
    fn any(&mut self) -> usize {
        let few = if self.random.below(2) == 0 { 5 } else { usize::MAX };
        let ids: Vec<usize> = self.tree.ids().take(few).collect();
        self.random.pick(&ids)
    }

    fn kind(&mut self, kind: u32) -> usize {
        let ids: Vec<usize> =
            self.tree.ids().filter(|id| self.tree.node(*id).kind() == kind).collect();
        if ids.is_empty() { self.any() } else { self.random.pick(&ids) }
    }

    fn directory(&mut self) -> usize {
        // Now and then something that is none, if it has a name.
        if self.random.below(20) == 0 { self.named() } else { self.kind(libc::S_IFDIR) }
    }

    fn file(&mut self) -> usize {
        if self.random.below(20) == 0 { self.named() } else { self.kind(libc::S_IFREG) }
    }

    fn named(&mut self) -> usize {
        let ids: Vec<usize> = self.tree.ids().filter(|id| self.tree.node(*id).nlink > 0).collect();
        self.random.pick(&ids)
    }

    fn name(&mut self) -> &'static [u8] {
        self.random.pick(&NAMES).as_bytes()
    }

    fn offset(&mut self) -> u64 {
        match self.random.below(3) {
            0 => self.random.below(SIZE_MAX / 4096) * 4096,
            1 => self.random.below(SIZE_MAX),
            _ => self.random.below(9000),
        }
    }

    pub async fn step(&mut self) {
        match self.random.below(28) {
            0..=3 => self.make().await,
            4 => self.link().await,
            5 | 6 => self.unlink().await,
            7 => self.rmdir().await,
            8..=10 => self.rename().await,
            11 => self.setattr().await,
            12 => self.truncate().await,
            13..=15 => self.write().await,
            16 | 17 => self.read().await,
            18 => self.fallocate().await,
            19 => self.seek().await,
            20 => self.set_xattr().await,
            21 => self.get_xattr().await,
            22 => self.copy().await,
            25 | 26 => self.set_acl().await,
            23 => self.open().await,
            24 => self.close().await,
            _ => self.lookup().await,
        }
    }

    async fn make(&mut self) {
        let (parent, name) = (self.directory(), self.name());
        let mode = self.random.below(0o10000) as u32;
        let (uid, gid) = (self.random.below(3) as u32, self.random.below(3) as u32);
        let umask = self.random.pick(&[0, 0o022, 0o077]);
        let caller = Caller { uid, gid, umask };
        let at = self.ino(parent);
        let dfs = Arc::clone(&self.dfs);
        let (call, made, kind, target) = match self.random.below(6) {
            0..=1 => {
                let made = dfs.mkdir(at, name, mode, caller).await;
                ("mkdir", made, libc::S_IFDIR | mode, &b""[..])
            }
            2 => {
                let target = self.random.pick(&[&b"t"[..], b"../a", b"/x/y"]);
                let made = dfs.symlink(at, name, target, caller).await;
                ("symlink", made, libc::S_IFLNK | 0o777, target)
            }
            3 => {
                let mode = libc::S_IFIFO | mode;
                ("mknod", dfs.mknod(at, name, mode, 0, caller).await, mode, &b""[..])
            }
            _ => {
                let mode = libc::S_IFREG | mode;
                let flags = libc::O_RDWR | libc::O_EXCL;
                let made = dfs.create(at, name, mode, flags, caller).await;
                let made = match made {
                    Ok((entry, opened)) => {
                        dfs.release(entry.attr.ino, opened.handle).await.map(|()| entry)
                    }
                    Err(error) => Err(error),
                };
                ("create", made, mode, &b""[..])
            }
        };
        let theirs = self.tree.make(parent, name, kind, (uid, gid), 0, target, umask);
        if self.same(call, &made, &theirs) {
            let (entry, id) = (made.unwrap(), theirs.unwrap());
            self.inos.insert(id, entry.attr.ino);
            self.same_attr(id, &entry.attr);
        }
    }

    async fn link(&mut self) {
        let (id, parent, name) = (self.any(), self.directory(), self.name());
        let ours = self.dfs.link(self.ino(id), self.ino(parent), name).await;
        let theirs = self.tree.link(id, parent, name);
        if self.same("link", &ours, &theirs) {
            self.same_attr(id, &ours.unwrap().attr);
        }
    }

    async fn unlink(&mut self) {
        let (parent, name) = (self.directory(), self.name());
        let ours = self.dfs.unlink(self.ino(parent), name).await;
        let theirs = self.tree.unlink(parent, name);
        self.same("unlink", &ours, &theirs);
    }

    async fn rmdir(&mut self) {
        let (parent, name) = (self.directory(), self.name());
        let ours = self.dfs.rmdir(self.ino(parent), name).await;
        let theirs = self.tree.rmdir(parent, name);
        self.same("rmdir", &ours, &theirs);
    }

    async fn rename(&mut self) {
        let (parent, name) = (self.directory(), self.name());
        let (new_parent, new_name) = (self.directory(), self.name());
        let (call, flags) = match self.random.below(5) {
            0 => ("rename no_replace", RenameFlags { no_replace: true, exchange: false }),
            1 => ("rename exchange", RenameFlags { no_replace: false, exchange: true }),
            _ => ("rename", RenameFlags::default()),
        };
        let (from, to) = (self.ino(parent), self.ino(new_parent));
        let ours = self.dfs.rename(from, name, to, new_name, flags).await.map(drop);
        let (from, to) = ((parent, name), (new_parent, new_name));
        let theirs = self.tree.rename(from, to, flags.no_replace, flags.exchange);
        self.same(call, &ours, &theirs);
    }

    async fn setattr(&mut self) {
        let id = self.any();
        let mode = self.random.below(0o10000) as u32;
        let seconds = self.random.below(1 << 33) as i64 - (1 << 31);
        let (call, set) = match self.random.below(3) {
            0 => {
                self.tree.chmod(id, mode);
                ("chmod", SetAttr { mode: Some(mode), ..SetAttr::default() })
            }
            1 => {
                self.tree.chown(id, mode, mode + 1);
                ("chown", SetAttr { uid: Some(mode), gid: Some(mode + 1), ..SetAttr::default() })
            }
            _ => {
                self.tree.utimens(id, seconds);
                let time = SetTime::To(Time { sec: seconds, nsec: 7 });
                ("utimens", SetAttr { mtime: Some(time), ..SetAttr::default() })
            }
        };
        let ours = self.dfs.setattr(self.ino(id), set).await;
        if self.same(call, &ours, &Ok(())) {
            self.same_attr(id, &ours.unwrap());
        }
    }

    async fn truncate(&mut self) {
        let (id, size) = (self.file(), self.offset());
        let kill_priv = self.random.below(2) == 0;
        let set = SetAttr { size: Some(size), kill_priv, ..SetAttr::default() };
        let ours = self.dfs.setattr(self.ino(id), set).await;
        let theirs = self.tree.truncate(id, size as usize, kill_priv);
        if self.same("truncate", &ours, &theirs) {
            self.same_attr(id, &ours.unwrap());
        }
    }

    async fn write(&mut self) {
        let (id, offset) = (self.file(), self.offset());
        let len = 1 + self.random.below(20_000);
        let data = self.random.bytes(len);
        let append = self.random.below(4) == 0 && self.tree.node(id).data.len() < 40_000;
        let bytes = Bytes::from(data.clone());
        let kill = self.random.below(2) == 0;
        let ours = self.dfs.write(self.ino(id), Handle(0), offset, bytes, append, kill).await;
        let theirs = match append {
            true => self.tree.append(id, &data, kill),
            false => self.tree.write(id, offset as usize, &data, kill),
        };
        if self.same(if append { "append" } else { "write" }, &ours, &theirs) {
            assert_eq!(ours.unwrap(), data.len());
        }
    }

    async fn read(&mut self) {
        let (id, offset, len) = (self.file(), self.offset(), self.random.below(30_000));
        let ours = self.dfs.read(self.ino(id), Handle(0), offset, len as usize).await;
        let theirs = self.tree.read(id, offset as usize, len as usize).map(<[u8]>::to_vec);
        if self.same("read", &ours, &theirs) {
            assert!(ours.unwrap() == theirs.unwrap(), "read of {len} at {offset}");
        }
    }

    async fn fallocate(&mut self) {
        let (id, offset, len) = (self.file(), self.offset(), 1 + self.random.below(20_000));
        let (at, many) = (offset as usize, len as usize);
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let kill = self.random.below(2) == 0;
        let (call, mode, zeroes, keeps) = match self.random.below(5) {
            0 => ("allocate", 0, false, false),
            1 => ("allocate keep", keep, false, true),
            2 => ("zero range", libc::FALLOC_FL_ZERO_RANGE, true, false),
            _ => ("punch", libc::FALLOC_FL_PUNCH_HOLE | keep, true, true),
        };
        let theirs = self.tree.allocate(id, at, many, zeroes, keeps, kill);
        let ours = self.dfs.fallocate(self.ino(id), mode, offset, len, kill).await;
        self.same(call, &ours, &theirs);
    }

    async fn seek(&mut self) {
        let (id, offset) = (self.file(), self.offset());
        if self.tree.node(id).kind() != libc::S_IFREG {
            return;
        }
        let data = self.tree.node(id).data.clone();
        let (start, size) = (offset as usize, data.len());
        let found = self.dfs.lseek(self.ino(id), offset, Seek::Data).await;
        let hole = self.dfs.lseek(self.ino(id), offset, Seek::Hole).await;
        if start >= size {
            assert_eq!((errno(&found), errno(&hole)), (libc::ENXIO, libc::ENXIO));
            return;
        }
        let until = match found {
            Ok(found) => found as usize,
            Err(error) => {
                assert_eq!(error.errno(), libc::ENXIO);
                size
            }
        };
        assert!(data[start..until].iter().all(|byte| *byte == 0), "a hole with data in it");
        let hole = hole.unwrap() as usize;
        assert!(hole <= size && (hole == size || data[hole] == 0), "no hole at {hole}");
        self.done.entry("lseek").or_default().0 += 1;
    }

    async fn set_xattr(&mut self) {
        let id = self.any();
        let name = self.xattr();
        if self.random.below(4) == 0 {
            let ours = self.dfs.removexattr(self.ino(id), name.as_bytes()).await;
            let theirs = self.tree.remove_xattr(id, name.as_bytes());
            self.same("removexattr", &ours, &theirs);
            return;
        }
        let len = self.random.pick(&[0, 10, 300, 5000, 20_000]);
        let value = self.random.bytes(len);
        let flags = self.random.pick(&[0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
        let how = XattrSet::from_bits(flags).unwrap();
        let ours = self.dfs.setxattr(self.ino(id), name.as_bytes(), &value, how, false).await;
        let theirs = self.tree.set_xattr(id, name.as_bytes(), &value, flags);
        self.same("setxattr", &ours, &theirs);
    }

    fn xattr(&mut self) -> String {
        match self.random.below(12) {
            0 => "security.capability".into(),
            n => format!("user.{n}"),
        }
    }

    /// A list that is valid: with somebody named, with a mask alone, or minimal.
    fn acl(&mut self) -> Vec<u8> {
        let (named, masked) = self.random.pick(&[(true, true), (false, true), (false, false)]);
        let mut acl = vec![2, 0, 0, 0];
        for tag in [1_u8, 2, 4, 8, 0x10, 0x20] {
            if matches!(tag, 2 | 8) && !named || tag == 0x10 && !masked {
                continue;
            }
            let id = if matches!(tag, 2 | 8) { 7 } else { u32::MAX };
            acl.extend_from_slice(&[tag, 0, self.random.below(8) as u8, 0]);
            acl.extend_from_slice(&id.to_le_bytes());
        }
        acl
    }

    async fn set_acl(&mut self) {
        let (id, acl, kill) = (self.any(), self.acl(), self.random.below(2) == 0);
        let any = XattrSet::Any;
        if self.random.below(3) > 0 {
            let ours = self.dfs.setxattr(self.ino(id), ACCESS_ACL, &acl, any, kill).await;
            let theirs = self.tree.set_acl(id, &acl, kill);
            self.same("setfacl", &ours, &theirs);
            return;
        }
        let id = self.directory();
        if self.random.below(3) > 0 {
            let ours = self.dfs.setxattr(self.ino(id), DEFAULT_ACL, &acl, any, kill).await;
            let theirs = self.tree.set_default_acl(id, &acl);
            self.same("setfacl -d", &ours, &theirs);
        } else {
            let ours = self.dfs.removexattr(self.ino(id), DEFAULT_ACL).await;
            // One that is not there can be taken away.
            let theirs = self.tree.remove_xattr(id, DEFAULT_ACL).or(Ok(()));
            self.same("setfacl -k", &ours, &theirs);
        }
    }

    async fn get_xattr(&mut self) {
        let id = self.any();
        let name = self.xattr();
        let ours = self.dfs.getxattr(self.ino(id), name.as_bytes()).await;
        let value = self.tree.node(id).xattrs.get(name.as_bytes());
        let theirs = value.cloned().ok_or(libc::ENODATA);
        if self.same("getxattr", &ours, &theirs) {
            assert!(ours.unwrap() == theirs.unwrap());
        }
    }

    async fn copy(&mut self) {
        let (from, to) = (self.kind(libc::S_IFREG), self.kind(libc::S_IFREG));
        let (from_offset, to_offset) = (self.offset(), self.offset());
        let len = 1 + self.random.below(20_000);
        let is_file = |id| self.tree.node(id).kind() == libc::S_IFREG;
        if !is_file(from) || !is_file(to) {
            return;
        }
        let (source, target) = (self.ino(from), self.ino(to));
        let kill = self.random.below(2) == 0;
        let copied =
            self.dfs.copy_file_range((source, from_offset), (target, to_offset), len, kill);
        let ours = copied.await;
        let (source, target) = ((from, from_offset as usize), (to, to_offset as usize));
        let theirs = self.tree.copy(source, target, len as usize, kill);
        if self.same("copy_file_range", &ours, &theirs) {
            assert_eq!(ours.unwrap(), theirs.unwrap());
        }
    }

    async fn open(&mut self) {
        let id = self.kind(libc::S_IFREG);
        let ours = self.dfs.open(self.ino(id), libc::O_RDONLY).await;
        if self.same("open", &ours, &Ok(())) {
            self.opens.push((id, ours.unwrap().handle));
            self.tree.open(id);
        }
    }

    async fn close(&mut self) {
        if self.opens.is_empty() {
            return;
        }
        let at = self.random.below(self.opens.len() as u64) as usize;
        let (id, handle) = self.opens.swap_remove(at);
        let ours = self.dfs.release(self.ino(id), handle).await;
        self.tree.close(id);
        self.same("release", &ours, &Ok(()));
    }

    async fn lookup(&mut self) {
        let (parent, name) = (self.directory(), self.name());
        let ours = self.dfs.lookup(self.ino(parent), name).await;
        let theirs = self.tree.lookup(parent, name);
        if self.same("lookup", &ours, &theirs) {
            let (id, attr) = (theirs.unwrap(), ours.unwrap().attr);
            self.same_attr(id, &attr);
            self.dfs.forget(attr.ino, self.random.below(3));
        }
    }

    fn same_attr(&self, id: usize, attr: &Attr) {
        let node = self.tree.node(id);
        assert_eq!(attr.ino, self.ino(id), "inode number");
        assert_eq!(attr.mode, node.mode, "mode of {id}");
        assert_eq!((attr.uid, attr.gid, attr.rdev), (node.uid, node.gid, node.rdev));
        assert_eq!(attr.nlink, node.nlink, "links of {id}");
        match node.kind() {
            libc::S_IFREG => assert_eq!(attr.size, node.data.len() as u64, "size of {id}"),
            libc::S_IFLNK => assert_eq!(attr.size, node.target.len() as u64),
            _ => {}
        }
        if let Some(seconds) = node.mtime {
            assert_eq!(attr.mtime, Time { sec: seconds, nsec: 7 }, "mtime of {id}");
        }
        assert!(attr.blocks < 10_000, "{} blocks", attr.blocks);
    }

    /// Everything that can be seen of both is the same.
    pub async fn compare(&self) {
        for id in self.tree.ids() {
            let (node, ino) = (self.tree.node(id), self.ino(id));
            self.same_attr(id, &self.dfs.getattr(ino).await.unwrap());
            match node.kind() {
                libc::S_IFREG => {
                    let data = self.dfs.read(ino, Handle(0), 0, 1 << 20).await.unwrap();
                    assert!(data == node.data, "data of {id}");
                }
                libc::S_IFLNK => assert_eq!(self.dfs.readlink(ino).await.unwrap(), node.target),
                libc::S_IFDIR => self.compare_directory(id).await,
                _ => {}
            }
            self.compare_xattrs(id).await;
        }
    }

    async fn compare_directory(&self, id: usize) {
        let (node, ino) = (self.tree.node(id), self.ino(id));
        let whole = self.dfs.readdir_plus(ino, 0, 1000).await.unwrap();
        let (own, rest) = whole.split_at(2);
        assert_eq!((own[0].ino, own[1].ino), (ino, self.ino(node.parent)), "`.` and `..`");
        let mut found = BTreeMap::new();
        for entry in rest {
            let attr = entry.attr.expect("nothing goes meanwhile");
            assert_eq!((entry.ino, entry.kind), (attr.ino, attr.kind));
            self.same_attr(node.entries[&entry.name[..]], &attr);
            found.insert(entry.name.to_vec(), entry.ino);
        }
        let expected: BTreeMap<_, _> =
            node.entries.iter().map(|(name, id)| (name.clone(), self.ino(*id))).collect();
        assert_eq!(found, expected, "entries of {id}");
        let mut paged = Vec::new();
        let mut after = 0;
        loop {
            let page = self.dfs.readdir(ino, after, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.cookie;
            paged.extend(page);
        }
        let names = |all: &[dfs::DirEntry]| -> Vec<Bytes> {
            all.iter().map(|entry| entry.name.clone()).collect()
        };
        assert_eq!(names(&paged), names(&whole), "the same, two at a time");
    }

    async fn compare_xattrs(&self, id: usize) {
        let (node, ino) = (self.tree.node(id), self.ino(id));
        let listed = self.dfs.listxattr(ino, Caller::default()).await.unwrap();
        let mut names: Vec<&[u8]> =
            listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let expected: Vec<&[u8]> = node.xattrs.keys().map(Vec::as_slice).collect();
        assert_eq!(names, expected, "xattrs of {id}");
        for (name, value) in &node.xattrs {
            assert!(self.dfs.getxattr(ino, name).await.unwrap() == *value);
        }
    }

    pub async fn check(&self) {
        let report = self.dfs.check(|_| {}).await.unwrap();
        assert_eq!(report.findings, Vec::<String>::new());
        let nodes: Vec<_> = self.tree.ids().map(|id| self.tree.node(id)).collect();
        let count =
            |kind| nodes.iter().filter(|node| node.kind() == kind && node.nlink > 0).count() as u64;
        assert_eq!(report.directories, count(libc::S_IFDIR));
        assert_eq!(report.files, count(libc::S_IFREG));
        assert_eq!(report.symlinks, count(libc::S_IFLNK));
        assert_eq!(report.others, count(libc::S_IFIFO));
        let orphans = nodes.iter().filter(|node| node.nlink == 0).count() as u64;
        assert_eq!(report.orphans, orphans);
    }

    /// A clean end, or one of which nothing was told to the filesystem.
    pub async fn unmount(&mut self, clean: bool) {
        if clean {
            for (id, handle) in std::mem::take(&mut self.opens) {
                self.dfs.release(self.ino(id), handle).await.unwrap();
                self.tree.close(id);
            }
            self.dfs.unmount().await.unwrap();
        }
        self.opens.clear();
        self.tree.remount();
    }

    pub fn mounted(&mut self, dfs: Arc<Dfs>) {
        self.dfs = dfs;
    }
}
