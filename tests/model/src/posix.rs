//! An in-memory POSIX tree: what a filesystem must answer, in the fewest lines that say it. Inodes are numbered by the tree;
//! errors are errno values. Permissions are not judged, as dfs leaves them to the kernel.

use std::collections::BTreeMap;

pub type Answer<T> = Result<T, i32>;

/// An inode of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Names; of a directory: what `st_nlink` says.
    pub nlink: u32,
    pub data: Vec<u8>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub entries: BTreeMap<Vec<u8>, usize>,
    /// Of a directory.
    pub parent: usize,
    /// Seconds, if they were set and nothing changed them since.
    pub mtime: Option<i64>,
    opens: u32,
}

/// The tree. Inode 0 is the root.
#[derive(Clone, Debug)]
pub struct PosixTree {
    nodes: BTreeMap<usize, Node>,
    next: usize,
}

pub const ROOT: usize = 0;
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const CAPABILITY: &[u8] = b"security.capability";
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
pub const XATTR_ANY: i32 = 0;

fn node(mode: u32, uid: u32, gid: u32, parent: usize) -> Node {
    Node {
        mode,
        uid,
        gid,
        rdev: 0,
        nlink: if mode & libc::S_IFMT == libc::S_IFDIR { 2 } else { 1 },
        data: Vec::new(),
        target: Vec::new(),
        xattrs: BTreeMap::new(),
        entries: BTreeMap::new(),
        parent,
        mtime: None,
        opens: 0,
    }
}

impl Node {
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    fn clear_set_id(&mut self) {
        if self.is_directory() {
            return;
        }
        self.mode &= !libc::S_ISUID;
        if self.mode & libc::S_IXGRP != 0 {
            self.mode &= !libc::S_ISGID;
        }
    }
}

impl Default for PosixTree {
    fn default() -> Self {
        let root = node(libc::S_IFDIR | 0o755, 0, 0, ROOT);
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 }
    }
}

impl PosixTree {
    #[must_use]
    pub fn node(&self, id: usize) -> &Node {
        &self.nodes[&id]
    }

    #[must_use]
    pub fn exists(&self, id: usize) -> bool {
        self.nodes.contains_key(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = usize> {
        self.nodes.keys().copied()
    }

    fn at(&mut self, id: usize) -> &mut Node {
        self.nodes.get_mut(&id).expect("callers name inodes that exist")
    }

    fn directory(&self, id: usize) -> Answer<&Node> {
        match self.nodes.get(&id) {
            Some(node) if !node.is_directory() => Err(libc::ENOTDIR),
            Some(node) => Ok(node),
            None => Err(libc::ENOENT),
        }
    }

    pub fn lookup(&self, parent: usize, name: &[u8]) -> Answer<usize> {
        let directory = self.directory(parent)?;
        directory.entries.get(name).copied().ok_or(libc::ENOENT)
    }

    /// A new inode of any kind. `mode` is what was asked for, `target` a symlink's.
    pub fn make(
        &mut self,
        parent: usize,
        name: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
        rdev: u32,
        target: &[u8],
        umask: u32,
    ) -> Answer<usize> {
        let directory = self.directory(parent)?;
        if directory.nlink == 0 {
            return Err(libc::ENOENT);
        }
        if directory.entries.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let mut new = node(mode, uid, gid, parent);
        new.rdev = rdev;
        new.target = target.to_vec();
        match directory.xattrs.get(DEFAULT_ACL) {
            _ if new.kind() == libc::S_IFLNK => {}
            None => new.mode &= !umask,
            Some(default) => {
                let mut acl = default.clone();
                new.mode &= !0o777 | acl_permissions(&acl);
                acl_chmod(&mut acl, new.mode);
                if acl_is_long(&acl) {
                    new.xattrs.insert(ACCESS_ACL.to_vec(), acl);
                }
                if new.is_directory() {
                    new.xattrs.insert(DEFAULT_ACL.to_vec(), default.clone());
                }
            }
        }
        if directory.mode & libc::S_ISGID != 0 {
            new.gid = directory.gid;
            if new.is_directory() {
                new.mode |= libc::S_ISGID;
            }
        }
        let id = self.next;
        self.next += 1;
        let subdirectory = u32::from(new.is_directory());
        self.nodes.insert(id, new);
        self.enter(parent, name, id);
        self.at(parent).nlink += subdirectory;
        Ok(id)
    }

    fn enter(&mut self, parent: usize, name: &[u8], id: usize) {
        let directory = self.at(parent);
        directory.entries.insert(name.to_vec(), id);
        directory.mtime = None;
    }

    fn leave(&mut self, parent: usize, name: &[u8]) {
        let directory = self.at(parent);
        directory.entries.remove(name);
        directory.mtime = None;
    }

    pub fn link(&mut self, id: usize, parent: usize, name: &[u8]) -> Answer<()> {
        if self.node(id).is_directory() {
            return Err(libc::EPERM);
        }
        if self.node(id).nlink == 0 {
            return Err(libc::ENOENT);
        }
        if self.directory(parent)?.entries.contains_key(name) {
            return Err(libc::EEXIST);
        }
        self.enter(parent, name, id);
        self.at(id).nlink += 1;
        Ok(())
    }

    pub fn unlink(&mut self, parent: usize, name: &[u8]) -> Answer<()> {
        let id = self.lookup(parent, name)?;
        if self.node(id).is_directory() {
            return Err(libc::EISDIR);
        }
        self.leave(parent, name);
        self.lose(id);
        Ok(())
    }

    pub fn rmdir(&mut self, parent: usize, name: &[u8]) -> Answer<()> {
        let id = self.lookup(parent, name)?;
        if !self.node(id).is_directory() {
            return Err(libc::ENOTDIR);
        }
        if !self.node(id).entries.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.leave(parent, name);
        self.at(parent).nlink -= 1;
        self.nodes.remove(&id);
        Ok(())
    }

    fn lose(&mut self, id: usize) {
        let node = self.at(id);
        node.nlink -= 1;
        if node.nlink == 0 && node.opens == 0 {
            self.nodes.remove(&id);
        }
    }

    pub fn rename(
        &mut self,
        (parent, name): (usize, &[u8]),
        (new_parent, new_name): (usize, &[u8]),
        no_replace: bool,
        exchange: bool,
    ) -> Answer<()> {
        let id = self.lookup(parent, name)?;
        let old = match self.lookup(new_parent, new_name) {
            Ok(old) => Some(old),
            Err(libc::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        match old {
            None if exchange => return Err(libc::ENOENT),
            Some(_) if no_replace => return Err(libc::EEXIST),
            Some(old) if old == id => return Ok(()),
            _ => {}
        }
        if let Some(old) = old.filter(|_| !exchange) {
            match (self.node(id).is_directory(), self.node(old).is_directory()) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                _ => {}
            }
        }
        let loops = self.below(new_parent, id)
            || exchange && old.is_some_and(|old| self.below(parent, old));
        if loops {
            return Err(libc::EINVAL);
        }
        if let Some(old) = old.filter(|_| !exchange) {
            if !self.node(old).entries.is_empty() {
                return Err(libc::ENOTEMPTY);
            }
            if self.node(old).is_directory() {
                self.rmdir(new_parent, new_name)?;
            } else {
                self.unlink(new_parent, new_name)?;
            }
        }
        self.leave(parent, name);
        if let Some(old) = old.filter(|_| exchange) {
            self.leave(new_parent, new_name);
            self.enter(parent, name, old);
            self.adopt(old, new_parent, parent);
        }
        self.enter(new_parent, new_name, id);
        self.adopt(id, parent, new_parent);
        Ok(())
    }

    fn adopt(&mut self, id: usize, from: usize, to: usize) {
        if self.node(id).is_directory() {
            self.at(from).nlink -= 1;
            self.at(to).nlink += 1;
            self.at(id).parent = to;
        }
    }

    /// `directory` is `ancestor` or below it.
    fn below(&self, mut directory: usize, ancestor: usize) -> bool {
        loop {
            if directory == ancestor {
                return true;
            }
            if directory == ROOT {
                return false;
            }
            directory = self.node(directory).parent;
        }
    }

    pub fn chmod(&mut self, id: usize, mode: u32) {
        let node = self.at(id);
        node.mode = node.kind() | mode & 0o7777;
        if let Some(acl) = node.xattrs.get_mut(ACCESS_ACL) {
            acl_chmod(acl, mode);
        }
    }

    /// `acl` is valid.
    pub fn set_acl(&mut self, id: usize, acl: &[u8], kill_sgid: bool) -> Answer<()> {
        let node = self.at(id);
        if node.kind() == libc::S_IFLNK {
            return Err(libc::EOPNOTSUPP);
        }
        node.mode = node.mode & !0o777 | acl_permissions(acl);
        if kill_sgid {
            node.mode &= !libc::S_ISGID;
        }
        node.xattrs.remove(ACCESS_ACL);
        if acl_is_long(acl) {
            node.xattrs.insert(ACCESS_ACL.to_vec(), acl.to_vec());
        }
        Ok(())
    }

    pub fn set_default_acl(&mut self, id: usize, acl: &[u8]) -> Answer<()> {
        if !self.node(id).is_directory() {
            return Err(libc::EACCES);
        }
        self.at(id).xattrs.insert(DEFAULT_ACL.to_vec(), acl.to_vec());
        Ok(())
    }

    pub fn chown(&mut self, id: usize, uid: u32, gid: u32) {
        let node = self.at(id);
        (node.uid, node.gid) = (uid, gid);
        if node.kind() != libc::S_IFDIR {
            node.xattrs.remove(CAPABILITY);
        }
        node.clear_set_id();
    }

    pub fn utimens(&mut self, id: usize, seconds: i64) {
        self.at(id).mtime = Some(seconds);
    }

    fn file(&mut self, id: usize) -> Answer<&mut Node> {
        let node = self.at(id);
        match node.kind() {
            libc::S_IFREG => Ok(node),
            libc::S_IFDIR => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    /// Its bytes change, by somebody who may keep set-id bits or not.
    fn touch(&mut self, id: usize, kill: bool) {
        let node = self.at(id);
        node.xattrs.remove(CAPABILITY);
        if kill {
            node.clear_set_id();
        }
    }

    pub fn truncate(&mut self, id: usize, size: usize, kill: bool) -> Answer<()> {
        self.file(id)?;
        self.touch(id, kill);
        let file = self.file(id)?;
        file.data.resize(size, 0);
        file.mtime = None;
        Ok(())
    }

    pub fn write(&mut self, id: usize, offset: usize, bytes: &[u8], kill: bool) -> Answer<()> {
        self.file(id)?;
        self.touch(id, kill);
        let file = self.file(id)?;
        let end = offset + bytes.len();
        if file.data.len() < end {
            file.data.resize(end, 0);
        }
        file.data[offset..end].copy_from_slice(bytes);
        file.mtime = None;
        Ok(())
    }

    pub fn append(&mut self, id: usize, bytes: &[u8], kill: bool) -> Answer<()> {
        let end = self.file(id)?.data.len();
        self.write(id, end, bytes, kill)
    }

    pub fn read(&mut self, id: usize, offset: usize, len: usize) -> Answer<&[u8]> {
        let data = &self.file(id)?.data;
        let start = offset.min(data.len());
        Ok(&data[start..(offset + len).min(data.len()).max(start)])
    }

    /// Space for a range; `zero`: which reads as zeros then.
    pub fn allocate(
        &mut self,
        id: usize,
        offset: usize,
        len: usize,
        zero: bool,
        keep_size: bool,
        kill: bool,
    ) -> Answer<()> {
        self.file(id)?;
        self.touch(id, kill);
        let file = self.file(id)?;
        let end = offset + len;
        if !keep_size && file.data.len() < end {
            file.data.resize(end, 0);
            file.mtime = None;
        }
        if zero {
            let size = file.data.len();
            file.data[offset.min(size)..end.min(size)].fill(0);
            file.mtime = None;
        }
        Ok(())
    }

    pub fn copy(
        &mut self,
        (from, from_offset): (usize, usize),
        (to, to_offset): (usize, usize),
        len: usize,
        kill: bool,
    ) -> Answer<usize> {
        let overlaps = from_offset < to_offset + len && to_offset < from_offset + len;
        if from == to && overlaps {
            return Err(libc::EINVAL);
        }
        self.file(to)?;
        let bytes = self.read(from, from_offset, len)?.to_vec();
        if !bytes.is_empty() {
            self.write(to, to_offset, &bytes, kill)?;
        }
        Ok(bytes.len())
    }

    pub fn set_xattr(&mut self, id: usize, name: &[u8], value: &[u8], flags: i32) -> Answer<()> {
        let xattrs = &mut self.at(id).xattrs;
        match (flags, xattrs.contains_key(name)) {
            (libc::XATTR_CREATE, true) => return Err(libc::EEXIST),
            (libc::XATTR_REPLACE, false) => return Err(libc::ENODATA),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    pub fn remove_xattr(&mut self, id: usize, name: &[u8]) -> Answer<()> {
        self.at(id).xattrs.remove(name).map(drop).ok_or(libc::ENODATA)
    }

    pub fn open(&mut self, id: usize) {
        self.at(id).opens += 1;
    }

    pub fn close(&mut self, id: usize) {
        let node = self.at(id);
        node.opens -= 1;
        if node.opens == 0 && node.nlink == 0 {
            self.nodes.remove(&id);
        }
    }

    /// Nobody has anything open any more.
    pub fn remount(&mut self) {
        self.nodes.retain(|_, node| {
            node.opens = 0;
            node.nlink > 0
        });
    }
}

/// Entries of an ACL's xattr: 8 bytes each, after 4; the tag is the first byte, the permissions are the third.
fn acl_entry(acl: &mut [u8], tag: u8) -> Option<&mut u8> {
    acl[4..].chunks_exact_mut(8).find(|entry| entry[0] == tag).map(|entry| &mut entry[2])
}

/// Owner, mask (if there is none, the group), other.
fn acl_classes(acl: &[u8]) -> [u8; 3] {
    let mask = acl[4..].chunks_exact(8).any(|entry| entry[0] == 0x10);
    [0x01, if mask { 0x10 } else { 0x04 }, 0x20]
}

fn acl_permissions(acl: &[u8]) -> u32 {
    let mut acl = acl.to_vec();
    acl_classes(&acl.clone()).into_iter().fold(0, |mode, tag| {
        mode << 3 | u32::from(*acl_entry(&mut acl, tag).expect("the ACL is valid"))
    })
}

fn acl_chmod(acl: &mut [u8], mode: u32) {
    for (tag, shift) in acl_classes(acl).into_iter().zip([6, 3, 0]) {
        *acl_entry(acl, tag).expect("the ACL is valid") = (mode >> shift & 7) as u8;
    }
}

fn acl_is_long(acl: &[u8]) -> bool {
    acl.len() > 4 + 3 * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_outlive_their_names() {
        let mut tree = PosixTree::default();
        let id = tree.make(ROOT, b"f", libc::S_IFREG, (0, 0), 0, b"", 0).unwrap();
        tree.open(id);
        tree.unlink(ROOT, b"f").unwrap();
        tree.write(id, 2, b"x", false).unwrap();
        assert_eq!(tree.read(id, 0, 9), Ok(&b"\0\0x"[..]));
        tree.close(id);
        assert!(!tree.exists(id));
    }

    #[test]
    fn directories_do_not_move_below_themselves() {
        let mut tree = PosixTree::default();
        let a = tree.make(ROOT, b"a", libc::S_IFDIR, (0, 0), 0, b"", 0).unwrap();
        let b = tree.make(a, b"b", libc::S_IFDIR, (0, 0), 0, b"", 0).unwrap();
        assert_eq!(tree.rename((ROOT, b"a"), (b, b"c"), false, false), Err(libc::EINVAL));
        assert_eq!(tree.rename((a, b"b"), (ROOT, b"a"), false, false), Err(libc::ENOTEMPTY));
        tree.rename((a, b"b"), (ROOT, b"c"), false, false).unwrap();
        assert_eq!(tree.node(ROOT).nlink, 4);
    }
}
