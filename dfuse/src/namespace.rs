//! What a mount shows: a container, and where a directory of it is an entry point, another container in its place. Each call
//! goes to the container that its inode is in.
//!
//! # Invariants
//! 1. A name leads to an entry point's own directory only if what it stands for cannot be shown. Nothing can be found or made in
//!    that directory then, but it can be removed.
//! 2. Nothing is in two containers: rename and link between them are EXDEV.
//! 3. Nothing is made or looked for in a directory that became an entry point while the kernel knows it: it would be hidden later.
//!    ESTALE makes the kernel look the name up again, which leads to the container.
//! 4. An entry point whose container has something in it is not removed as an empty directory.
//! 5. What changes otherwise than by a call of the kernel is told to it (`notices.rs`) after it has changed: entry points that come and
//!    go, and what may be kept for a shorter time than was said.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use daos_types::ContainerId;
use dfs::uns::{self, Broken, EntryPoint};
use dfs::{
    Appended, Attr, Caller, Credentials, DirEntry, Entry, Error, Handle, Ino, Kind, Moved, Opened,
    RenameFlags, Result, Right, Seek, SetAttr, Space, XattrSet,
};

use crate::containers::{Containers, Shown};
use crate::notices::{Notice, Notices};
use crate::ops::{Caching, CopyRange, DataCaching, Filesystem, Write};

/// Of a directory, the cookie of `..`: what comes after it is in it.
const PARENT_COOKIE: u64 = 2;

/// Entry points that are remembered.
const DOORS_MAX: usize = 1 << 16;

pub struct Namespace {
    pub containers: Containers,
    pub notices: Arc<Notices>,
    /// Entry points that somebody has gone through, and where they lead.
    doors: RwLock<HashMap<Ino, ContainerId>>,
    /// Entry points that show nothing.
    broken: RwLock<HashMap<Ino, Broken>>,
    /// Directories that became entry points while the kernel knew them as what they were.
    covered: RwLock<HashSet<Ino>>,
}

impl Namespace {
    pub fn new(containers: Containers) -> Self {
        Self {
            containers,
            notices: Arc::default(),
            doors: RwLock::default(),
            broken: RwLock::default(),
            covered: RwLock::default(),
        }
    }

    async fn at(&self, ino: Ino) -> Result<Arc<Shown>> {
        self.containers.of(ino).await
    }

    /// As `at`, of a directory in which something is looked for or changed.
    async fn inside(&self, directory: Ino) -> Result<Arc<Shown>> {
        match self.broken(directory) {
            Some(why) => Err(Error::EntryPoint(why)),
            None => self.at(directory).await,
        }
    }

    /// As `inside`, of a directory in which a name is made or looked for.
    async fn seen(&self, directory: Ino) -> Result<Arc<Shown>> {
        let shown = self.inside(directory).await?;
        self.check_seen(directory)?;
        Ok(shown)
    }

    fn check_seen(&self, directory: Ino) -> Result<()> {
        let covered = self.covered.read().unwrap_or_else(PoisonError::into_inner);
        if covered.contains(&directory) { Err(Error::Stale) } else { Ok(()) }
    }

    /// Whether this changed anything.
    fn set_covered(&self, ino: Ino, covers: bool) -> bool {
        let mut covered = self.covered.write().unwrap_or_else(PoisonError::into_inner);
        if covers { covered.insert(ino) } else { covered.remove(&ino) }
    }

    fn broken(&self, ino: Ino) -> Option<Broken> {
        self.broken.read().unwrap_or_else(PoisonError::into_inner).get(&ino).copied()
    }

    fn set_broken(&self, ino: Ino, why: Option<Broken>) {
        if why == self.broken(ino) {
            return;
        }
        let mut broken = self.broken.write().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(broken.insert(ino, why)),
            None => drop(broken.remove(&ino)),
        }
    }

    /// What `found`, in `parent`, shows: itself, if it is no entry point or a broken one.
    async fn cross(&self, shown: &Shown, parent: Ino, found: Attr) -> Result<Attr> {
        if found.kind != Kind::Directory {
            return Ok(found);
        }
        match shown.dfs.entry_point(found.ino).await? {
            Some(text) => Box::pin(self.enter(shown, parent, found, &text)).await,
            None => Ok(found),
        }
    }

    async fn enter(&self, shown: &Shown, parent: Ino, found: Attr, text: &[u8]) -> Result<Attr> {
        match self.containers.behind(text, shown, parent).await {
            Ok(behind) => {
                self.set_broken(found.ino, None);
                self.set_door(found.ino, behind.id());
                behind.dfs.getattr(behind.dfs.root()).await
            }
            Err(Error::EntryPoint(why)) => {
                self.set_broken(found.ino, Some(why));
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    fn set_door(&self, ino: Ino, to: ContainerId) {
        let known =
            self.doors.read().unwrap_or_else(PoisonError::into_inner).get(&ino) == Some(&to);
        if known {
            return;
        }
        let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
        if doors.len() < DOORS_MAX {
            doors.insert(ino, to);
        } else {
            tracing::warn!("more than {DOORS_MAX} entry points: a change behind {ino} is not told");
        }
    }

    fn forget_door(&self, ino: Ino) {
        self.doors.write().unwrap_or_else(PoisonError::into_inner).remove(&ino);
    }

    /// The entry points of a container, by all their names.
    async fn doors_of(&self, container: ContainerId) -> Vec<(Ino, Ino, Bytes)> {
        let doors: Vec<Ino> = {
            let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
            doors.iter().filter(|(_, to)| **to == container).map(|(ino, _)| *ino).collect()
        };
        let mut found = Vec::new();
        for door in doors {
            // One that is gone, or whose own container is, has no name that the kernel could know.
            let names = async { self.at(door).await?.dfs.names_of(door).await };
            let names = names.await.unwrap_or_default();
            found.extend(names.into_iter().map(|(parent, name)| (door, parent, name)));
        }
        found
    }

    /// Attributes of a container have changed, or it is gone: what the kernel believes of it for too long is taken back. Not on a
    /// thread that answers the kernel.
    pub async fn changed(&self, container: ContainerId) {
        let Some(before) = self.containers.get(container).map(|shown| shown.caching()) else {
            return;
        };
        self.containers.changed(container).await;
        match self.containers.get(container) {
            Some(shown) => self.tell_times(&shown, before).await,
            None => {
                for (door, parent, name) in self.doors_of(container).await {
                    self.forget_door(door);
                    self.notices.push(Notice::Name { parent, name });
                    self.notices.push(Notice::Content(parent));
                }
            }
        }
    }

    /// What was kept as `before` said, and is to be kept for less.
    async fn tell_times(&self, shown: &Shown, before: Caching) {
        let now = shown.caching();
        let content = now.data != before.data && now.data != DataCaching::Kept;
        let names = now.dentry < before.dentry || now.dentry_dir < before.dentry_dir;
        if !content && !names && now.attr >= before.attr {
            return;
        }
        for ino in shown.dfs.looked_up() {
            if content {
                self.notices.push(Notice::Content(ino));
            } else if now.attr < before.attr {
                self.notices.push(Notice::Attributes(ino));
            }
            if names {
                // What has no name any more needs no notice.
                for (parent, name) in shown.dfs.names_of(ino).await.unwrap_or_default() {
                    self.notices.push(Notice::NameTime { parent, name });
                }
            }
        }
        if names {
            for (_, parent, name) in self.doors_of(shown.id()).await {
                self.notices.push(Notice::NameTime { parent, name });
            }
        }
    }

    /// A name of this directory leads somewhere else now. On any thread.
    async fn tell_place(&self, shown: &Shown, directory: Ino) {
        for (parent, name) in shown.dfs.names_of(directory).await.unwrap_or_default() {
            let told = self.notices.offer(Notice::Name { parent, name });
            if !(told && self.notices.offer(Notice::Content(parent))) {
                tracing::warn!("too many notices wait: the kernel is not told of {directory}");
            }
        }
    }

    /// Whether an entry point in `parent`, which is to be taken away, shows nothing that would be lost.
    async fn check_removal(&self, shown: &Shown, parent: Ino, text: &[u8]) -> Result<()> {
        match self.containers.behind(text, shown, parent).await {
            Ok(behind) => {
                let inside = behind.dfs.readdir(behind.dfs.root(), PARENT_COOKIE, 1).await?;
                if inside.is_empty() { Ok(()) } else { Err(Error::NotEmpty) }
            }
            Err(Error::EntryPoint(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn is_root(&self, ino: Ino) -> bool {
        ino == Ino::root(ino.container())
    }

    /// Sets the xattr of an entry point, on what may not be one: a root, a directory with something in it.
    async fn cover(
        &self,
        shown: &Shown,
        ino: Ino,
        value: &[u8],
        set: XattrSet,
        kill_sgid: bool,
    ) -> Result<()> {
        if self.is_root(ino) {
            return Err(Error::NotPermitted("the root of a container says which it is"));
        }
        let name = uns::XATTR.as_bytes();
        if shown.dfs.getattr(ino).await?.kind != Kind::Directory {
            return shown.dfs.setxattr(ino, name, value, set, kill_sgid).await;
        }
        EntryPoint::parse(value)
            .map_err(|_| Error::Invalid("write DAOS.POSIX://POOL/CONTAINER"))?;
        // Before it is seen to be empty.
        let newly = self.set_covered(ino, true);
        let done = match shown.dfs.readdir(ino, PARENT_COOKIE, 1).await {
            Ok(inside) if inside.is_empty() => {
                shown.dfs.setxattr(ino, name, value, set, kill_sgid).await
            }
            Ok(_) => Err(Error::NotEmpty),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.tell_place(shown, ino).await,
            Err(_) if newly => drop(self.set_covered(ino, false)),
            Err(_) => {}
        }
        done
    }

    /// Makes an entry point for a container, which gets a filesystem if it has none.
    pub async fn link(
        &self,
        (parent, name): (Ino, &[u8]),
        mode: u32,
        caller: Caller,
        point: &EntryPoint,
    ) -> Result<()> {
        let shown = self.seen(parent).await?;
        let container = self.containers.find(point).await?;
        let owner = (caller.uid, caller.gid);
        self.containers.open(container, Some(parent), owner).await?;
        let made = shown.dfs.mkdir(parent, name, mode, caller).await?.attr.ino;
        let text = point.to_string();
        // Whoever has come to the directory meanwhile is told; what he may have made in it is not hidden.
        let set = self.cover(&shown, made, text.as_bytes(), XattrSet::Any, false).await;
        self.forget(made, 1);
        if set.is_err() {
            shown.dfs.rmdir(parent, name).await?;
            self.notices.push(Notice::Name { parent, name: Bytes::copy_from_slice(name) });
            self.notices.push(Notice::Content(parent));
        }
        set
    }
}

fn together(a: Ino, b: Ino) -> Result<()> {
    if a.container() == b.container() { Ok(()) } else { Err(Error::CrossContainer) }
}

impl Namespace {
    /// `..` of a container's root: through which entry point somebody has come, and where that is now.
    async fn lookup_above(&self, root: Ino) -> Result<Entry> {
        let doors = self.doors_of(root.container()).await;
        let above = match doors.first() {
            Some((_, above, _)) => *above,
            None => self.at(root).await?.above().ok_or(Error::Stale)?,
        };
        self.at(above).await?.dfs.lookup(above, b".").await
    }
}

impl Namespace {
    /// `forget` tells whether the kernel knows nothing of it any more.
    fn forget_by(&self, ino: Ino, forget: impl FnOnce(&dfs::Dfs) -> bool) -> bool {
        let shown = self.containers.get(ino.container());
        let last = shown.as_ref().is_none_or(|shown| forget(&shown.dfs));
        if last {
            self.set_broken(ino, None);
            self.set_covered(ino, false);
        }
        last && shown.is_some_and(|shown| shown.dfs.is_forsaken(ino))
    }
}

impl Filesystem for Namespace {
    fn root(&self) -> Ino {
        self.containers.root().dfs.root()
    }
    fn caching(&self, ino: Ino) -> Caching {
        if self.broken(ino).is_some() {
            return Caching::NONE;
        }
        self.containers.get(ino.container()).map_or(Caching::NONE, |shown| shown.caching())
    }
    fn changes_elsewhere(&self) -> bool {
        self.containers.change_elsewhere()
    }
    fn opens(&self, ino: Ino) -> u64 {
        self.containers.get(ino.container()).map_or(0, |shown| shown.dfs.opens(ino))
    }
    fn notices(&self) -> Option<Arc<Notices>> {
        Some(self.notices.clone())
    }
    fn remember(&self, ino: Ino) {
        if let Some(shown) = self.containers.get(ino.container()) {
            shown.dfs.remember(ino, 1);
        }
    }
    fn is_looked_up(&self, ino: Ino) -> bool {
        self.containers.get(ino.container()).is_some_and(|shown| shown.dfs.is_looked_up(ino))
    }
    fn unremember(&self, ino: Ino) -> bool {
        self.forget_by(ino, |dfs| dfs.unremember(ino))
    }
    fn forget(&self, ino: Ino, lookups: u64) -> bool {
        self.forget_by(ino, |dfs| dfs.forget(ino, lookups))
    }
    async fn forgotten(&self, ino: Ino) {
        if let Some(shown) = self.containers.get(ino.container()) {
            Filesystem::forgotten(&*shown.dfs, ino).await;
        }
    }
    async fn surely_may(&self, directory: Ino, who: &Credentials, right: Right) -> Result<bool> {
        self.at(directory).await?.dfs.surely_may(directory, who, right).await
    }
    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        if name == b".." && self.is_root(parent) && parent != Filesystem::root(self) {
            return Box::pin(self.lookup_above(parent)).await;
        }
        let shown = match name {
            b"." | b".." => self.at(parent).await?,
            _ => self.seen(parent).await?,
        };
        let entry = shown.dfs.lookup(parent, name).await?;
        if name == b"." || name == b".." {
            return Ok(entry);
        }
        match self.cross(&shown, parent, entry.attr).await {
            Ok(attr) if attr.ino == entry.attr.ino => Ok(entry),
            Ok(attr) => {
                self.remember(attr.ino);
                shown.dfs.forget(entry.attr.ino, 1);
                Ok(Entry { attr })
            }
            Err(error) => {
                shown.dfs.forget(entry.attr.ino, 1);
                Err(error)
            }
        }
    }
    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.at(ino).await?.dfs.getattr(ino).await
    }
    async fn setattr(&self, ino: Ino, changes: SetAttr) -> Result<Attr> {
        self.at(ino).await?.dfs.setattr(ino, changes).await
    }
    async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        self.at(ino).await?.dfs.readlink(ino).await
    }
    async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        self.seen(parent).await?.dfs.mknod(parent, name, mode, rdev, caller).await
    }
    async fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, caller: Caller) -> Result<Entry> {
        self.seen(parent).await?.dfs.mkdir(parent, name, mode, caller).await
    }
    async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        self.seen(parent).await?.dfs.symlink(parent, name, target, caller).await
    }
    async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry> {
        together(ino, parent)?;
        self.seen(parent).await?.dfs.link(ino, parent, name).await
    }
    async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        self.inside(parent).await?.dfs.unlink(parent, name).await
    }
    async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        let shown = self.inside(parent).await?;
        match shown.dfs.rmdir(parent, name).await {
            Err(Error::IsEntryPoint { ino, text }) => {
                self.check_removal(&shown, parent, &text).await?;
                shown.dfs.rmdir_allowing(parent, name, ino).await?;
                self.forget_door(ino);
                Ok(ino)
            }
            done => done,
        }
    }
    async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        to_parent: Ino,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<Moved> {
        together(parent, to_parent)?;
        let shown = self.inside(parent).await?;
        self.check_seen(to_parent)?;
        if flags.exchange {
            self.check_seen(parent)?;
        }
        match shown.dfs.rename(parent, name, to_parent, to_name, flags).await {
            Err(Error::IsEntryPoint { ino, text }) => {
                self.check_removal(&shown, to_parent, &text).await?;
                let (from, to) = ((parent, name), (to_parent, to_name));
                let moved = shown.dfs.rename_allowing(from, to, flags, ino).await?;
                self.forget_door(ino);
                Ok(moved)
            }
            done => done,
        }
    }
    async fn open(&self, ino: Ino, flags: i32) -> Result<Opened> {
        let shown = self.at(ino).await?;
        let mut opened = shown.dfs.open(ino, flags).await?;
        opened.keep_cache &= shown.opened(ino);
        Ok(opened)
    }
    async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let shown = self.seen(parent).await?;
        let (entry, mut opened) = shown.dfs.create(parent, name, mode, flags, caller).await?;
        opened.keep_cache &= shown.opened(entry.attr.ino);
        Ok((entry, opened))
    }
    async fn tmpfile(
        &self,
        parent: Ino,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let shown = self.seen(parent).await?;
        let (entry, mut opened) = shown.dfs.tmpfile(parent, mode, flags, caller).await?;
        opened.keep_cache &= shown.opened(entry.attr.ino);
        Ok((entry, opened))
    }
    async fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize) -> Result<Bytes> {
        self.at(ino).await?.dfs.read(ino, handle, offset, len).await
    }
    async fn write(&self, write: Write) -> Result<usize> {
        Filesystem::write(&*self.at(write.ino).await?.dfs, write).await
    }
    async fn append(&self, write: Write) -> Result<Appended> {
        Filesystem::append(&*self.at(write.ino).await?.dfs, write).await
    }
    async fn release(&self, ino: Ino, handle: Handle) -> Result<()> {
        let shown = self.at(ino).await?;
        shown.closed(ino);
        shown.dfs.release(ino, handle).await
    }
    async fn fsync(&self, ino: Ino, data_only: bool) -> Result<()> {
        self.at(ino).await?.dfs.fsync(ino, data_only).await
    }
    async fn readdir(
        &self,
        ino: Ino,
        after: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirEntry>> {
        let shown = self.inside(ino).await?;
        let listed = Filesystem::readdir(&*shown.dfs, ino, after, entries_max, with_attributes);
        let mut entries = listed.await?;
        for entry in &mut entries {
            let Some(attr) = entry.attr else { continue };
            // What cannot be shown now is looked up by whoever comes to it, and gets its error then.
            entry.attr = self.cross(&shown, ino, attr).await.ok();
            entry.ino = entry.attr.map_or(entry.ino, |attr| attr.ino);
        }
        Ok(entries)
    }
    async fn statfs(&self, ino: Ino) -> Result<Space> {
        self.at(ino).await?.dfs.statfs().await
    }
    async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        set: XattrSet,
        kill_sgid: bool,
    ) -> Result<()> {
        let shown = self.at(ino).await?;
        if name == uns::XATTR.as_bytes() {
            return self.cover(&shown, ino, value, set, kill_sgid).await;
        }
        shown.dfs.setxattr(ino, name, value, set, kill_sgid).await
    }
    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        let shown = self.at(ino).await?;
        if self.is_root(ino) && name == uns::XATTR.as_bytes() {
            return Ok(shown.text().into());
        }
        shown.dfs.getxattr(ino, name).await
    }
    async fn listxattr(&self, ino: Ino, caller: Caller) -> Result<Bytes> {
        self.at(ino).await?.dfs.listxattr(ino, caller).await
    }
    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let uncovers = name == uns::XATTR.as_bytes();
        if self.is_root(ino) && uncovers {
            return Err(Error::NotPermitted("the root of a container says which it is"));
        }
        let shown = self.at(ino).await?;
        shown.dfs.removexattr(ino, name).await?;
        if uncovers {
            self.set_covered(ino, false);
            self.set_broken(ino, None);
            self.forget_door(ino);
            self.tell_place(&shown, ino).await;
        }
        Ok(())
    }
    async fn fallocate(
        &self,
        ino: Ino,
        mode: i32,
        offset: u64,
        len: u64,
        kill_priv: bool,
    ) -> Result<()> {
        self.at(ino).await?.dfs.fallocate(ino, mode, offset, len, kill_priv).await
    }
    async fn lseek(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64> {
        self.at(ino).await?.dfs.lseek(ino, offset, seek).await
    }
    async fn copy_file_range(&self, range: CopyRange) -> Result<usize> {
        together(range.from, range.to)?;
        let shown = self.at(range.from).await?;
        Filesystem::copy_file_range(&*shown.dfs, range).await
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::containers::tests::two_containers;

    const USER: Caller = Caller::new(0, 0);

    async fn set(namespace: &Namespace, ino: Ino, text: &[u8]) -> Result<()> {
        namespace.setxattr(ino, uns::XATTR.as_bytes(), text, XattrSet::Any, false).await
    }

    #[test]
    fn nothing_is_made_in_a_directory_that_became_an_entry_point() {
        block_on(async {
            let namespace = Namespace::new(two_containers().await.0);
            let root = Filesystem::root(&namespace);
            let d = namespace.mkdir(root, b"d", 0o755, USER).await.unwrap().attr.ino;
            let make = async || namespace.mkdir(d, b"x", 0o755, USER).await.map(drop);
            make().await.unwrap();
            let text = b"DAOS.POSIX://default/data";
            assert_eq!(set(&namespace, d, text).await, Err(Error::NotEmpty));
            namespace.rmdir(d, b"x").await.unwrap();
            set(&namespace, d, text).await.unwrap();
            assert_eq!(make().await, Err(Error::Stale));
            let created = namespace.create(d, b"x", 0o644, libc::O_RDWR, USER).await;
            assert_eq!(created.err(), Some(Error::Stale));
            namespace.mkdir(root, b"e", 0o755, USER).await.unwrap();
            let moved = namespace.rename(root, b"e", d, b"e", RenameFlags::default()).await;
            assert_eq!(moved, Err(Error::Stale));
            // The kernel looks again, and comes to the container; it still knows the directory.
            let shown = namespace.lookup(root, b"d").await.unwrap().attr.ino;
            assert_ne!(shown.container(), d.container());
            namespace.mkdir(shown, b"x", 0o755, USER).await.unwrap();
            assert_eq!(make().await, Err(Error::Stale));
            namespace.removexattr(d, uns::XATTR.as_bytes()).await.unwrap();
            make().await.unwrap();
        });
    }

    #[test]
    fn what_an_inode_cannot_show_is_known_until_its_last_lookup_is_forgotten() {
        block_on(async {
            let namespace = Namespace::new(two_containers().await.0);
            let root = Filesystem::root(&namespace);
            let d = namespace.mkdir(root, b"d", 0o755, USER).await.unwrap().attr.ino;
            set(&namespace, d, b"DAOS.POSIX://default/gone").await.unwrap();
            assert_eq!(namespace.lookup(root, b"d").await.unwrap().attr.ino, d);
            let inside = async || namespace.lookup(d, b"x").await.err();
            let gone = Some(Error::EntryPoint(Broken::Gone));
            assert_eq!(inside().await, gone);
            namespace.forget(d, 1);
            assert_eq!(inside().await, gone, "one of two lookups is left");
            assert!(namespace.check_seen(d).is_err());
            namespace.forget(d, 1);
            assert_eq!(namespace.broken(d), None);
            assert!(namespace.check_seen(d).is_ok());
        });
    }
}
