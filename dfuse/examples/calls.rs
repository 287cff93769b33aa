//! What calls of a filesystem cost below the kernel: the daemon's executor, dfs and an engine in this process, without a mount.
//!
//! `cargo run --release -p dfuse --example calls -- DIR [COUNT [WORD]]` makes a store in DIR (it must be empty or not there) and prints
//! microseconds per call; with WORD only of those whose name it is. For instructions per call, run it below `valgrind --tool=callgrind`
//! with two COUNTs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use daos_server::{Engine, EngineConfig};
use dfs::{Caller, Dfs, Ino, MountOptions, SetAttr};
use dfuse::exec::Executor;
use dfuse::ops::{Filesystem, Write};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };

struct Bench {
    dfs: Arc<Dfs>,
    executor: Executor,
    count: usize,
    only: Option<String>,
}

impl Bench {
    /// Calls `call` with 0..count, one after the other.
    fn each<F>(&self, name: &str, call: impl Fn(Arc<Dfs>, usize) -> F)
    where
        F: Future<Output = dfs::Result<()>> + Send + 'static,
    {
        if self.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let done = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        for i in 0..self.count {
            let (call, ended) = (call(self.dfs.clone(), i), done.clone());
            self.executor.spawn(async move {
                call.await.expect("the call succeeds");
                ended.fetch_add(1, SeqCst);
            });
            while done.load(SeqCst) <= i {
                std::thread::yield_now();
            }
        }
        let us = begun.elapsed().as_secs_f64() * 1e6 / self.count as f64;
        println!("{name:10} {us:7.2} us");
    }

    fn all(&self) {
        let root = self.dfs.root();
        let file = futures_lite::future::block_on(async {
            let (entry, opened) = self.dfs.create(root, b"one", 0o644, libc::O_RDWR, ROOT).await?;
            Ok::<_, dfs::Error>((entry.attr.ino, opened.handle))
        });
        let (one, handle) = file.expect("an empty store takes a file");
        self.each("chmod", move |dfs, i| async move {
            let mode = Some(0o600 | (i as u32 & 1));
            dfs.setattr(one, SetAttr { mode, ..SetAttr::default() }).await.map(drop)
        });
        let data = bytes::Bytes::from(vec![7; 4096]);
        self.each("write", move |dfs, _| {
            let write = Write {
                ino: one,
                handle,
                offset: 0,
                data: data.slice(..1000),
                append: false,
                sync: false,
                kill_priv: false,
            };
            async move { Filesystem::write(&*dfs, write).await.map(drop) }
        });
        // As tar writes: blocks of its own that begin anywhere in ours.
        let block = bytes::Bytes::from(vec![7; 10_240]);
        self.each("append", move |dfs, i| {
            let write = Write {
                ino: one,
                handle,
                offset: 1536 + 10_240 * i as u64,
                data: block.clone(),
                append: false,
                sync: false,
                kill_priv: false,
            };
            async move { Filesystem::write(&*dfs, write).await.map(drop) }
        });
        let name = |i: usize| format!("f{i}").into_bytes();
        self.each("create", move |dfs, i| async move {
            let (entry, opened) = dfs.create(root, &name(i), 0o644, libc::O_RDWR, ROOT).await?;
            dfs.release(entry.attr.ino, opened.handle).await
        });
        self.each("unlink", move |dfs, i| async move {
            let ino: Ino = dfs.lookup(root, &name(i)).await?.attr.ino;
            dfs.unlink(root, &name(i)).await?;
            dfs.forget(ino, 2);
            Ok(())
        });
        self.each("mkdir", move |dfs, i| async move {
            dfs.mkdir(root, &name(i), 0o755, ROOT).await.map(drop)
        });
        self.each("rmdir", move |dfs, i| async move {
            let ino: Ino = dfs.lookup(root, &name(i)).await?.attr.ino;
            dfs.rmdir(root, &name(i)).await?;
            dfs.forget(ino, 2);
            Ok(())
        });
    }
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let Some(store) = words.next().map(PathBuf::from) else {
        eprintln!("usage: calls DIR [COUNT [WORD]]");
        std::process::exit(2);
    };
    let count = words.next().map_or(Ok(10_000), |word| word.parse())?;
    let mut config = EngineConfig::new(&store, "calls".to_owned());
    config.create = true;
    config.size = Some(2 << 30);
    let engine = Engine::start(config)?;
    let container = engine.container("daos", "calls", true)?;
    let dfs = futures_lite::future::block_on(Dfs::mount(container, MountOptions::default()))?;
    let bench = Bench { dfs, executor: Executor::new(512), count, only: words.next() };
    bench.all();
    futures_lite::future::block_on(bench.dfs.unmount())?;
    engine.stop()?;
    Ok(())
}
