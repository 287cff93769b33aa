//! The data cache: never older than what was acknowledged, whoever writes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::*;
use dfs::{Dfs, Handle, MountOptions, SetAttr};

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;

fn cached() -> Arc<Dfs> {
    let options = MountOptions { cache_bytes: 4 << 20, ..MountOptions::default() };
    block_on(async { Dfs::mount(container().await, options).await.unwrap() })
}

fn number(bytes: &[u8]) -> u64 {
    let first = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes.chunks(8).all(|word| word == &first.to_le_bytes()[..]), "a torn block");
    first
}

#[test]
fn readers_on_other_threads_never_see_less_than_was_acknowledged() {
    let dfs = cached();
    let f = block_on(file_with(&dfs, dfs.root(), "f", &vec![0; BLOCK * BLOCKS]));
    let acknowledged: Vec<AtomicU64> = (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (dfs, acknowledged) = (&dfs, &acknowledged);
            scope.spawn(move || {
                for round in 1..1500_u64 {
                    // Each block has one writer, each page has both.
                    let block = (round as usize * 7 * 2 + writer) % BLOCKS;
                    let data: Vec<u8> =
                        round.to_le_bytes().iter().copied().cycle().take(BLOCK).collect();
                    let at = (block * BLOCK) as u64;
                    block_on(write(dfs, f, at, &data));
                    acknowledged[block].store(round, Ordering::SeqCst);
                }
            });
        }
        for reader in 0..2 {
            let (dfs, acknowledged) = (&dfs, &acknowledged);
            scope.spawn(move || {
                for round in 0..4000_usize {
                    let block = (round * 5 + reader) % BLOCKS;
                    let least = acknowledged[block].load(Ordering::SeqCst);
                    let bytes = block_on(read(dfs, f, (block * BLOCK) as u64, BLOCK));
                    let seen = number(&bytes);
                    assert!(seen >= least, "block {block}: {seen} after {least}");
                }
            });
        }
    });
}

#[test]
fn what_is_cut_or_punched_is_not_remembered() {
    let dfs = cached();
    block_on(async {
        let f = file_with(&dfs, dfs.root(), "f", &vec![7; 100_000]).await;
        let all = || read(&dfs, f, 0, 200_000);
        assert_eq!(all().await, vec![7; 100_000]);
        let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
        dfs.setattr(f, size(50_000)).await.unwrap();
        dfs.setattr(f, size(100_000)).await.unwrap();
        assert_eq!(all().await[..], [vec![7; 50_000], vec![0; 50_000]].concat());
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        dfs.fallocate(f, punch, 10, 20_000, false).await.unwrap();
        assert_eq!(all().await[..30], [vec![7; 10], vec![0; 20]].concat());
        dfs.write(f, Handle(0), 0, Bytes::from_static(b"end"), true, false).await.unwrap();
        assert_eq!(read(&dfs, f, 99_999, 10).await, &b"\0end"[..]);
    });
}

#[test]
fn pages_of_an_inode_that_was_forgotten_stay_in_their_past() {
    let dfs = cached();
    block_on(async {
        let old = vec![b'A'; 64 << 10];
        let f = file_with(&dfs, dfs.root(), "f", &old).await;
        assert_eq!(&read(&dfs, f, 0, old.len()).await[..], &old[..]);
        dfs.setattr(f, SetAttr { size: Some(0), ..SetAttr::default() }).await.unwrap();
        let new = vec![b'B'; 64 << 10];
        write(&dfs, f, 0, &new).await;
        dfs.forget(f, u64::MAX);
        let again = dfs.lookup(dfs.root(), b"f").await.unwrap().attr.ino;
        assert_eq!(&read(&dfs, again, 0, new.len()).await[..], &new[..]);
    });
}
