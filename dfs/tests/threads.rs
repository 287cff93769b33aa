//! Many at once: whatever threads do to one tree, it stays sound, and what a mount remembers is what is stored.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use dfs::{Caller, Dfs, Handle, Ino, MountOptions, RenameFlags, SetAttr, XattrSet};

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }
}

/// Errors that somebody may get whose names others change.
fn may_be(result: dfs::Result<()>, call: &str) {
    let expected = [
        0,
        libc::ENOENT,
        libc::EEXIST,
        libc::ENOTEMPTY,
        libc::EISDIR,
        libc::ENOTDIR,
        libc::EINVAL,
        libc::ESTALE,
        libc::EPERM,
        libc::ENODATA,
    ];
    assert!(expected.contains(&errno(result.clone())), "{call}: {result:?}");
}

/// A directory up to three names below the root, as far as they lead.
async fn somewhere(dfs: &Dfs, random: &mut Random) -> Ino {
    let mut at = dfs.root();
    for _ in 0..random.below(4) {
        match dfs.lookup(at, random.name()).await {
            Ok(entry) if entry.attr.kind == dfs::Kind::Directory => at = entry.attr.ino,
            _ => break,
        }
    }
    at
}

async fn step(dfs: &Dfs, random: &mut Random, open: &mut Vec<(Ino, Handle)>) {
    let (parent, name) = (somewhere(dfs, random).await, random.name());
    let caller = Caller::default();
    match random.below(12) {
        0 | 1 => may_be(dfs.mkdir(parent, name, 0o755, caller).await.map(drop), "mkdir"),
        2 | 3 => match dfs.create(parent, name, 0o644, libc::O_RDWR, caller).await {
            Ok((entry, opened)) => open.push((entry.attr.ino, opened.handle)),
            Err(error) => may_be(Err(error), "create"),
        },
        4 => may_be(dfs.unlink(parent, name).await.map(|_gone| ()), "unlink"),
        5 => may_be(dfs.rmdir(parent, name).await.map(|_gone| ()), "rmdir"),
        6 | 7 => {
            let (to, new_name) = (somewhere(dfs, random).await, random.name());
            let exchange = random.below(3) == 0;
            let flags = RenameFlags { no_replace: false, exchange };
            may_be(dfs.rename(parent, name, to, new_name, flags).await.map(drop), "rename");
        }
        8 => {
            let (from, other) = (somewhere(dfs, random).await, random.name());
            match dfs.lookup(from, other).await {
                Ok(entry) => {
                    let linked = dfs.link(entry.attr.ino, parent, name).await;
                    may_be(linked.map(drop), "link");
                }
                Err(error) => may_be(Err(error), "lookup"),
            }
        }
        9 => match dfs.lookup(parent, name).await {
            Ok(entry) => {
                let (ino, mode) = (entry.attr.ino, random.below(0o1000) as u32);
                let chmod = SetAttr { mode: Some(mode), ..SetAttr::default() };
                may_be(dfs.setattr(ino, chmod).await.map(drop), "chmod");
                let value = vec![1; random.below(6000) as usize];
                may_be(
                    dfs.setxattr(ino, b"user.x", &value, XattrSet::Any, false).await,
                    "setxattr",
                );
            }
            Err(error) => may_be(Err(error), "lookup"),
        },
        10 if !open.is_empty() => {
            let (ino, _) = open[random.below(open.len() as u64) as usize];
            let data = Bytes::from(vec![7; 1 + random.below(9000) as usize]);
            let append = random.below(2) == 0;
            let written = dfs.write(ino, Handle(0), random.below(9000), data, append, false).await;
            assert!(written.is_ok(), "write to an open file: {written:?}");
        }
        _ if !open.is_empty() => {
            let (ino, handle) = open.swap_remove(random.below(open.len() as u64) as usize);
            dfs.release(ino, handle).await.unwrap();
        }
        _ => {}
    }
}

/// Every inode that has a name: what the mount says of it is what a new one says.
async fn compare(old: &Dfs, new: &Dfs, directory: Ino) {
    assert_eq!(old.getattr(directory).await, new.getattr(directory).await, "{directory}");
    let entries = old.readdir_plus(directory, 0, 1000).await.unwrap();
    let others = new.readdir_plus(directory, 0, 1000).await.unwrap();
    assert_eq!(entries, others);
    for entry in entries.iter().skip(2) {
        assert_eq!(entry.attr, Some(new.getattr(entry.ino).await.unwrap()));
        if entry.kind == dfs::Kind::Directory {
            Box::pin(compare(old, new, entry.ino)).await;
        }
    }
}

/// As the kernel does at the end; what it kept alive goes.
async fn forget_all(dfs: &Dfs) {
    for counter in 0..20_000 {
        let ino = Ino::new(dfs.root().container(), counter);
        if dfs.forget(ino, u64::MAX) {
            dfs.forgotten(ino).await.unwrap();
        }
    }
}

#[test]
fn random_calls_of_many_threads_leave_a_sound_tree() {
    for (seed, cache_attributes) in [(1, true), (2, true), (3, true), (4, false)] {
        let container = block_on(container());
        let budget = dfs::Budget::new(64);
        let options = MountOptions { cache_attributes, budget, ..MountOptions::default() };
        let dfs = block_on(Dfs::mount(container.clone(), options)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dfs = Arc::clone(&dfs);
                scope.spawn(move || {
                    let mut random = Random(0x1234_5678 + seed * 1000 + thread);
                    let mut open = Vec::new();
                    for _ in 0..1500 {
                        block_on(step(&dfs, &mut random, &mut open));
                    }
                    for (ino, handle) in open {
                        block_on(dfs.release(ino, handle)).unwrap();
                    }
                });
            }
        });
        block_on(async {
            forget_all(&dfs).await;
            let report = dfs.check(|_| {}).await.unwrap();
            assert_eq!(report.findings, Vec::<String>::new());
            assert_eq!(report.orphans, 0);
            assert!(report.files + report.directories > 5, "{report:?}");
            let only = MountOptions { read_only: true, ..MountOptions::default() };
            let new = Dfs::mount(container.clone(), only).await.unwrap();
            compare(&dfs, &new, dfs.root()).await;
        });
    }
}
