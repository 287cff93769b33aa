//! A store with one of everything.

use std::rc::Rc;

use bytes::Bytes;
use daos_media::MemDevice;
use daos_sim::machine::new_disk;
use daos_sim::tree::{Tree, tree};
use daos_types::Epoch;
use daos_xstream::Handle;
use dfs::{Caller, Dfs, Handle as File, Ino, Kind, MountOptions, SetAttr, XattrSet};

use crate::Machine;

const USER: Caller = Caller::new(0, 0);
/// Small files beside the others: so many that the object table has several leaves.
pub const FILES: usize = 700;

/// Disks with the same tree on them.
pub struct Filled {
    /// Of a store that was stopped.
    pub stopped: Rc<MemDevice>,
    /// Of one whose process was killed: most of it is in the log only.
    pub killed: Rc<MemDevice>,
    /// Of one that was stopped, opened again and killed: buckets are home, and the log changes most of them.
    pub later: Rc<MemDevice>,
    pub tree: Tree,
    /// What a snapshot of an earlier moment holds.
    pub snapshot: (Epoch, Tree),
}

pub async fn filled(handle: &Handle) -> Filled {
    let disk = new_disk(handle).await;
    let Machine { vos, client } = Machine::open(disk.clone(), handle, false).await.expect("opens");
    let pool = client.pool_or_create("default").await.expect("a pool");
    let container = pool.container_or_create("home").await.expect("a container");
    let dfs = Dfs::mount(container.clone(), MountOptions::default()).await.expect("a filesystem");
    fill(&dfs).await;
    let before = tree(&dfs).await.expect("what was just written");
    let snapshot = container.snapshot_create(Some("before".into())).await.expect("a snapshot");
    change(&dfs).await;
    let now = tree(&dfs).await.expect("what was just written");
    dfs.sync().await.expect("it is stable");
    let killed = disk.copy();
    dfs.unmount().await.expect("it unmounts");
    vos.stop().await.expect("it stops");
    let stopped = disk.copy();
    let machine = Machine::open(disk.clone(), handle, false).await.expect("opens");
    let container = machine.container().await.expect("made above");
    let dfs = Dfs::mount(container, MountOptions::default()).await.expect("a filesystem");
    touch(&dfs, &now).await;
    dfs.sync().await.expect("it is stable");
    let later = disk.copy();
    Filled { stopped, killed, later, tree: now, snapshot: (snapshot.epoch, before) }
}

/// Writes all over the store what is there.
async fn touch(dfs: &Dfs, tree: &Tree) {
    for (path, node) in tree.iter().step_by(3) {
        let mut ino = dfs.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = dfs.lookup(ino, name.as_bytes()).await.expect("it is there").attr.ino;
        }
        let mode = SetAttr { mode: Some(node.mode), ..SetAttr::default() };
        dfs.setattr(ino, mode).await.expect("set");
        if node.kind == Kind::File && !node.content.is_empty() {
            write(dfs, ino, 0, node.content.clone()).await;
        }
    }
    let many = dfs.lookup(dfs.root(), b"many").await.expect("made above").attr.ino;
    for n in 0..100 {
        let name = format!("file{:04}x", n * 7);
        file(dfs, many, &name, bytes(100, n)).await;
        dfs.unlink(many, name.as_bytes()).await.expect("just made");
    }
}

async fn file(dfs: &Dfs, parent: Ino, name: &str, bytes: Vec<u8>) -> Ino {
    let created = dfs.create(parent, name.as_bytes(), 0o640, libc::O_RDWR, USER).await;
    let (entry, opened) = created.expect("a new file");
    let ino = entry.attr.ino;
    if !bytes.is_empty() {
        write(dfs, ino, 0, bytes).await;
    }
    dfs.release(ino, opened.handle).await.expect("closed");
    ino
}

async fn write(dfs: &Dfs, ino: Ino, offset: u64, bytes: Vec<u8>) {
    let written = dfs.write(ino, File(0), offset, Bytes::from(bytes), false, false).await;
    written.expect("written");
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + at / 251) as u8 | 1).collect()
}

async fn fill(dfs: &Dfs) {
    let root = dfs.root();
    for (d, sizes) in [[40, 700], [4096, 5000], [70_000, 1_100_000]].into_iter().enumerate() {
        let directory = dfs.mkdir(root, format!("d{d}").as_bytes(), 0o750, USER).await;
        let directory = directory.expect("a directory").attr.ino;
        for (f, size) in sizes.into_iter().enumerate() {
            file(dfs, directory, &format!("f{f}"), bytes(size, d + f)).await;
        }
    }
    let many = dfs.mkdir(root, b"many", 0o755, USER).await.expect("a directory").attr.ino;
    for n in 0..FILES {
        file(dfs, many, &format!("file{n:04}"), bytes(n % 400, n)).await;
    }
    let pieces = file(dfs, root, "pieces", bytes(3000, 3)).await;
    for at in 1..20 {
        write(dfs, pieces, at * 9000, bytes(2500, at as usize)).await;
    }
    let linked = file(dfs, root, "linked", bytes(9000, 4)).await;
    dfs.link(linked, many, b"other name").await.expect("a link");
    dfs.symlink(root, b"symlink", b"d1/f0", USER).await.expect("a symlink");
    dfs.mknod(root, b"fifo", libc::S_IFIFO | 0o600, 0, USER).await.expect("a fifo");
    for (name, len) in [(&b"user.small"[..], 10), (b"user.large", 20_000)] {
        dfs.setxattr(linked, name, &bytes(len, 5), XattrSet::Any, false).await.expect("an xattr");
    }
}

/// What a snapshot hides then.
async fn change(dfs: &Dfs) {
    let root = dfs.root();
    let directory = dfs.lookup(root, b"d2").await.expect("made above").attr.ino;
    let f0 = dfs.lookup(directory, b"f0").await.expect("made above").attr.ino;
    write(dfs, f0, 10_000, bytes(20_000, 99)).await;
    let many = dfs.lookup(root, b"many").await.expect("made above").attr.ino;
    for n in (0..FILES).step_by(20) {
        dfs.unlink(many, format!("file{n:04}").as_bytes()).await.expect("made above");
    }
    file(dfs, root, "later", bytes(30_000, 6)).await;
}
