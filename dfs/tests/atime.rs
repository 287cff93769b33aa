//! Access times: moved by reads as relatime says, shown at once, stored in time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use daos_client::{Client, Container};
use daos_model::spawn_model_refusing;
use daos_types::Error;
use daos_types::rpc::Request;
use dfs::{Dfs, Ino, MountOptions, SetAttr, SetTime, Time};

const DAY: u64 = 24 * 3600 * 1_000_000_000;
/// Later than the engine's clock, which gives files their mtime.
static CLOCK: AtomicU64 = AtomicU64::new(30_000 * DAY);

fn options() -> MountOptions {
    MountOptions { clock: || CLOCK.load(Ordering::Relaxed), ..MountOptions::default() }
}

async fn atime(dfs: &Dfs, ino: Ino) -> Time {
    dfs.getattr(ino).await.unwrap().atime
}

async fn set_old(dfs: &Dfs, ino: Ino) -> Time {
    let old = Time { sec: 1000, nsec: 5 };
    let set = SetAttr { atime: Some(SetTime::To(old)), ..SetAttr::default() };
    assert_eq!(dfs.setattr(ino, set).await.unwrap().atime, old);
    old
}

async fn on_each(container: Container, test: impl AsyncFn(&Dfs)) {
    for cache_attributes in [true, false] {
        let options = MountOptions { cache_attributes, ..options() };
        let dfs = Dfs::mount(container.clone(), options).await.unwrap();
        test(&dfs).await;
        dfs.unmount().await.unwrap();
    }
}

#[test]
fn the_first_read_after_a_change_moves_atime_and_the_second_does_not() {
    block_on(on_each(block_on(container()), async |dfs| {
        let name = format!("f{}", CLOCK.fetch_add(1000, Ordering::Relaxed));
        let f = file_with(dfs, dfs.root(), &name, b"bytes").await;
        let old = set_old(dfs, f).await;
        let opened = dfs.open(f, libc::O_RDONLY).await.unwrap();
        assert!(!opened.keep_cache, "a read must be seen");
        dfs.read(f, opened.handle, 0, 5).await.unwrap();
        let new = atime(dfs, f).await;
        assert!(new > old);
        assert_eq!(dfs.lookup(dfs.root(), name.as_bytes()).await.unwrap().attr.atime, new);
        let shown = dfs.readdir_plus(dfs.root(), 2, 100).await.unwrap();
        assert_eq!(shown.iter().find(|e| e.ino == f).unwrap().attr.unwrap().atime, new);
        CLOCK.fetch_add(DAY / 2, Ordering::Relaxed);
        assert!(dfs.open(f, libc::O_RDONLY).await.unwrap().keep_cache);
        read(dfs, f, 0, 5).await;
        assert_eq!(atime(dfs, f).await, new);
        CLOCK.fetch_add(DAY, Ordering::Relaxed);
        read(dfs, f, 0, 5).await;
        assert!(atime(dfs, f).await > new, "it was more than a day old");
    }));
}

#[test]
fn listings_and_links_that_are_read_have_an_atime_too() {
    block_on(on_each(block_on(container()), async |dfs| {
        let stamp = CLOCK.fetch_add(1000, Ordering::Relaxed);
        let d = directory(dfs, dfs.root(), &format!("d{stamp}")).await;
        let s = dfs.symlink(d, b"s", b"target", USER).await.unwrap().attr.ino;
        let (old, _) = (set_old(dfs, d).await, set_old(dfs, s).await);
        dfs.lookup(d, b"s").await.unwrap();
        assert_eq!(atime(dfs, d).await, old, "a lookup is no read");
        dfs.readdir(d, 0, 10).await.unwrap();
        dfs.readlink(s).await.unwrap();
        assert!(atime(dfs, d).await > old && atime(dfs, s).await > old);
    }));
}

#[test]
fn atimes_are_there_after_an_unmount_and_what_utimens_says_holds() {
    on_a_container(|container| async move {
        let dfs = Dfs::mount(container.clone(), options()).await.unwrap();
        let mut files = Vec::new();
        for i in 0..60 {
            let f = file_with(&dfs, dfs.root(), &format!("f{i}"), b"bytes").await;
            read(&dfs, f, 0, 5).await;
            files.push((f, atime(&dfs, f).await));
        }
        let (set, _) = files[59];
        let old = set_old(&dfs, set).await;
        dfs.link(files[58].0, dfs.root(), b"second").await.unwrap();
        dfs.unlink(dfs.root(), b"f57").await.unwrap();
        let ctime = dfs.getattr(files[3].0).await.unwrap().ctime;
        dfs.unmount().await.unwrap();
        let dfs = Dfs::mount(container, options()).await.unwrap();
        for (f, noted) in files.iter().take(57).chain(&files[58..59]) {
            assert_eq!(atime(&dfs, *f).await, *noted);
        }
        assert_eq!(atime(&dfs, set).await, old);
        assert_eq!(dfs.getattr(files[3].0).await.unwrap().ctime, ctime, "atime is no change");
        assert!(dfs.check(|_| {}).await.unwrap().is_sound());
    });
}

#[test]
fn who_wants_no_atimes_gets_none() {
    on_a_container(|container| async move {
        let dfs = Dfs::mount(container.clone(), options()).await.unwrap();
        let f = file_with(&dfs, dfs.root(), "f", b"bytes").await;
        let old = set_old(&dfs, f).await;
        let opened = dfs.open(f, libc::O_RDONLY | libc::O_NOATIME).await.unwrap();
        assert!(opened.keep_cache);
        dfs.read(f, opened.handle, 0, 5).await.unwrap();
        assert_eq!(atime(&dfs, f).await, old);
        dfs.unmount().await.unwrap();
        for options in [
            MountOptions { atime: false, ..options() },
            MountOptions { read_only: true, ..options() },
        ] {
            let dfs = Dfs::mount(container.clone(), options).await.unwrap();
            assert!(dfs.open(f, libc::O_RDONLY).await.unwrap().keep_cache);
            read(&dfs, f, 0, 5).await;
            assert_eq!(atime(&dfs, f).await, old);
            dfs.unmount().await.unwrap();
        }
    });
}

#[test]
fn a_full_store_is_asked_once_for_many_atimes() {
    const OPEN: u64 = u64::MAX;
    let refused = Arc::new(AtomicU64::new(OPEN));
    let counter = Arc::clone(&refused);
    let model = spawn_model_refusing(move |request| {
        let full =
            matches!(request, Request::Transact(_)) && counter.load(Ordering::SeqCst) != OPEN;
        full.then(|| {
            counter.fetch_add(1, Ordering::SeqCst);
            Error::NoSpace
        })
    });
    block_on(async {
        let pool = Client::new(vec![model]).pool_or_create("default").await.unwrap();
        let container = pool.container_or_create("home").await.unwrap();
        let dfs = Dfs::mount(container, options()).await.unwrap();
        let mut files = Vec::new();
        for i in 0..24 {
            let f = file_with(&dfs, dfs.root(), &format!("f{i}"), b"bytes").await;
            files.push((f, set_old(&dfs, f).await));
        }
        refused.store(0, Ordering::SeqCst);
        for (f, _) in &files {
            assert_eq!(read(&dfs, *f, 0, 5).await, "bytes");
        }
        assert_eq!(refused.swap(OPEN, Ordering::SeqCst), 1);
        for (f, old) in &files {
            assert_eq!(atime(&dfs, *f).await, *old, "what is stored is shown");
        }
        dfs.unmount().await.unwrap();
    });
}
