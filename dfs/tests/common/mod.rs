//! A filesystem over the model target, and words for the tests.
#![allow(dead_code)]

use std::sync::Arc;

use bytes::Bytes;
use daos_client::{Client, Container};
use daos_model::spawn_model;
use daos_types::{ObjectClass, ObjectId, ObjectType};
use dfs::{Attr, Caller, Dfs, Handle, Ino, MountOptions, Result};
pub use futures_lite::future::block_on;

pub const ROOT_USER: Caller = Caller::new(0, 0);
pub const USER: Caller = Caller::new(1000, 100);

pub fn directory_oid(ino: Ino) -> ObjectId {
    let user = u32::from(ino.counter() == 1);
    let lo = if user == 1 { 0 } else { ino.counter() };
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, user, lo)
}

pub fn file_oid(ino: Ino) -> ObjectId {
    ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 0, ino.counter())
}

/// An empty container of a new model target.
pub async fn container() -> Container {
    let client = Client::new(vec![spawn_model()]);
    let pool = client.pool_or_create("default").await.unwrap();
    pool.container_or_create("home").await.unwrap()
}

/// Runs `test` on a new filesystem, with and without caches.
pub fn on_a_new_filesystem<F: Future<Output = ()>>(test: impl Fn(Arc<Dfs>) -> F) {
    for (cache_attributes, cache_bytes) in [(true, 0), (false, 0), (true, 1 << 20)] {
        let options = MountOptions { cache_attributes, cache_bytes, ..MountOptions::default() };
        block_on(async {
            let dfs = Dfs::mount(container().await, options).await.unwrap();
            test(Arc::clone(&dfs)).await;
            dfs.unmount().await.unwrap();
        });
    }
}

/// Runs `test` with a container, to mount it as often as it likes.
pub fn on_a_container<F: Future<Output = ()>>(test: impl Fn(Container) -> F) {
    block_on(async { test(container().await).await });
}

pub async fn mount(container: &Container) -> Arc<Dfs> {
    Dfs::mount(container.clone(), MountOptions::default()).await.unwrap()
}

pub async fn file(dfs: &Dfs, parent: Ino, name: &str) -> (Ino, Handle) {
    let (entry, opened) =
        dfs.create(parent, name.as_bytes(), 0o644, libc::O_RDWR, USER).await.unwrap();
    (entry.attr.ino, opened.handle)
}

/// A file with these bytes, closed.
pub async fn file_with(dfs: &Dfs, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
    let (ino, handle) = file(dfs, parent, name).await;
    write(dfs, ino, 0, bytes).await;
    dfs.release(ino, handle).await.unwrap();
    ino
}

pub async fn directory(dfs: &Dfs, parent: Ino, name: &str) -> Ino {
    dfs.mkdir(parent, name.as_bytes(), 0o755, USER).await.unwrap().attr.ino
}

pub async fn write(dfs: &Dfs, ino: Ino, offset: u64, bytes: &[u8]) {
    let data = Bytes::copy_from_slice(bytes);
    let written = dfs.write(ino, Handle(0), offset, data, false, false).await.unwrap();
    assert_eq!(written, bytes.len());
}

pub async fn read(dfs: &Dfs, ino: Ino, offset: u64, len: usize) -> Bytes {
    dfs.read(ino, Handle(0), offset, len).await.unwrap()
}

pub async fn lookup(dfs: &Dfs, parent: Ino, name: &str) -> Result<Attr> {
    dfs.lookup(parent, name.as_bytes()).await.map(|entry| entry.attr)
}

/// Names in a directory, sorted, without `.` and `..`.
pub async fn names(dfs: &Dfs, directory: Ino) -> Vec<String> {
    let entries = dfs.readdir(directory, 2, 100_000).await.unwrap();
    let mut names: Vec<String> =
        entries.iter().map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()).collect();
    names.sort();
    names
}

pub fn errno<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}
