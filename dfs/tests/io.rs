//! Bytes: sizes, holes, appends, truncation, times that follow from writes, space.

mod common;

use bytes::Bytes;
use common::*;
use dfs::{FILE_BYTES_MAX, Handle, RenameFlags, Seek, SetAttr, SetTime, Time};

const CHUNK: u64 = 1 << 20;

async fn truncate(dfs: &dfs::Dfs, ino: dfs::Ino, size: u64) -> dfs::Result<dfs::Attr> {
    dfs.setattr(ino, SetAttr { size: Some(size), ..SetAttr::default() }).await
}

#[test]
fn bytes_come_back_across_chunks() {
    on_a_new_filesystem(|dfs| async move {
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let f = file_with(&dfs, dfs.root(), "f", &data).await;
        assert_eq!(dfs.getattr(f).await.unwrap().size, 3_000_000);
        assert_eq!(read(&dfs, f, 0, 4 << 20).await, data);
        assert_eq!(read(&dfs, f, CHUNK - 3, 7).await, data[(1 << 20) - 3..(1 << 20) + 4]);
        assert_eq!(read(&dfs, f, 2_999_999, 10).await, data[2_999_999..]);
        assert_eq!(read(&dfs, f, 3_000_000, 10).await, "");
        assert_eq!(read(&dfs, f, FILE_BYTES_MAX, 10).await, "");
    });
}

#[test]
fn holes_read_as_zeros_and_take_no_space() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        truncate(&dfs, f, 1 << 40).await.unwrap();
        let attr = dfs.getattr(f).await.unwrap();
        assert_eq!((attr.size, attr.blocks), (1 << 40, 0));
        assert_eq!(read(&dfs, f, 1 << 39, 4).await, [0; 4][..]);
        write(&dfs, f, 5 * CHUNK, b"x").await;
        assert_eq!(dfs.getattr(f).await.unwrap().size, 1 << 40);
        assert_eq!(read(&dfs, f, 5 * CHUNK - 1, 3).await, &b"\0x\0"[..]);
    });
}

#[test]
fn the_space_of_a_write_is_what_a_new_mount_sees() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let mut seen = Vec::new();
        for (offset, len) in [(0, 300), (100, 900), (0, 9000), (5 * CHUNK, 70_000), (4096, 1)] {
            write(&dfs, f, offset, &vec![1; len]).await;
            let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            let shown = dfs.setattr(f, chmod).await.unwrap().blocks;
            let other = mount(&container).await;
            assert_eq!(shown, other.getattr(f).await.unwrap().blocks, "{len} at {offset}");
            seen.push(shown);
        }
        assert!(seen.is_sorted() && seen[0] > 0 && seen[0] < seen[4], "{seen:?}");
    });
}

#[test]
fn truncate_cuts_and_what_is_written_later_does_not_come_back() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", &vec![7; 3 << 20]).await;
        for size in [2 * CHUNK + 5, 2 * CHUNK, CHUNK + 1, 9, 0] {
            assert_eq!(truncate(&dfs, f, size).await.unwrap().size, size);
            assert_eq!(truncate(&dfs, f, size + 10).await.unwrap().size, size + 10);
            assert_eq!(read(&dfs, f, size, 100).await, [0; 10][..]);
            truncate(&dfs, f, size).await.unwrap();
        }
        write(&dfs, f, 4, b"new").await;
        assert_eq!(read(&dfs, f, 0, 100).await, &b"\0\0\0\0new"[..]);
    });
}

#[test]
fn sizes_have_a_limit_with_a_name() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        assert_eq!(errno(truncate(&dfs, f, FILE_BYTES_MAX + 1).await), libc::EFBIG);
        truncate(&dfs, f, FILE_BYTES_MAX).await.unwrap();
        let x = Bytes::from_static(b"xy");
        let end = dfs.write(f, Handle(0), FILE_BYTES_MAX, x.clone(), false, false).await;
        assert_eq!(errno(end), libc::EFBIG);
        let short = dfs.write(f, Handle(0), FILE_BYTES_MAX - 1, x, false, false).await;
        assert_eq!(short, Ok(1));
        assert_eq!(dfs.getattr(f).await.unwrap().size, FILE_BYTES_MAX);
        assert_eq!(errno(truncate(&dfs, dfs.root(), 0).await), libc::EISDIR);
    });
}

#[test]
fn appends_from_many_sides_neither_overlap_nor_get_lost() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let append = |byte: u8| {
            let dfs = dfs.clone();
            async move {
                for _ in 0..25 {
                    let data = Bytes::from(vec![byte; 100]);
                    dfs.write(f, Handle(0), 0, data, true, false).await.unwrap();
                }
            }
        };
        let two = futures_lite::future::zip(append(1), append(2));
        futures_lite::future::zip(two, append(3)).await;
        let all = read(&dfs, f, 0, 1 << 20).await;
        assert_eq!(all.len(), 7500);
        for run in all.chunks(100) {
            assert!(run.iter().all(|byte| *byte == run[0]));
        }
        // Also past a floor that is higher than the data.
        truncate(&dfs, f, 10_000).await.unwrap();
        dfs.write(f, Handle(0), 0, Bytes::from_static(b"end"), true, false).await.unwrap();
        assert_eq!(read(&dfs, f, 9_999, 10).await, &b"\0end"[..]);
        let appended = dfs.append(f, Bytes::from_static(b"more"), false).await.unwrap();
        assert_eq!((appended.bytes, appended.end), (4, 10_007));
        assert!(dfs.append(f, Bytes::new(), false).await.is_err(), "where would that be?");
    });
}

#[test]
fn a_write_shows_in_mtime_and_utimens_hides_it_again() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let made = dfs.getattr(f).await.unwrap();
        write(&dfs, f, 0, b"x").await;
        let written = dfs.getattr(f).await.unwrap();
        assert!(written.mtime > made.mtime && written.ctime > made.ctime);
        assert_eq!(written.atime, made.atime);
        let old = Time { sec: -1000, nsec: 5 };
        let set = SetAttr { mtime: Some(SetTime::To(old)), ..SetAttr::default() };
        let set = dfs.setattr(f, set).await.unwrap();
        assert_eq!(set.mtime, old);
        assert!(set.ctime > written.ctime);
        let dfs = mount(&container).await;
        assert_eq!(dfs.getattr(f).await.unwrap(), set);
        write(&dfs, f, 0, b"y").await;
        assert!(dfs.getattr(f).await.unwrap().mtime > written.mtime);
        // Size and an old mtime in one call: the time stays.
        let both = SetAttr { size: Some(0), mtime: Some(SetTime::To(old)), ..SetAttr::default() };
        assert_eq!(dfs.setattr(f, both).await.unwrap().mtime, old);
    });
}

#[test]
fn names_show_in_the_mtime_of_their_directory() {
    on_a_new_filesystem(|dfs| async move {
        let d = directory(&dfs, dfs.root(), "d").await;
        let e = directory(&dfs, dfs.root(), "e").await;
        let mut last = dfs.getattr(d).await.unwrap();
        let mut moved = async || {
            let now = dfs.getattr(d).await.unwrap();
            assert!(now.mtime > last.mtime && now.ctime > last.ctime);
            assert_eq!(now.mtime, now.ctime);
            last = now;
        };
        let f = file_with(&dfs, d, "f", b"").await;
        moved().await;
        dfs.link(f, d, b"g").await.unwrap();
        moved().await;
        dfs.rename(d, b"g", e, b"g", RenameFlags::default()).await.unwrap();
        moved().await;
        dfs.unlink(d, b"f").await.unwrap();
        moved().await;
        let old = Time { sec: 5, nsec: 6 };
        let set = SetAttr { mtime: Some(SetTime::To(old)), ..SetAttr::default() };
        assert_eq!(dfs.setattr(d, set).await.unwrap().mtime, old);
    });
}

#[test]
fn writes_by_others_take_set_id_bits() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
        dfs.setattr(f, mode(0o6755)).await.unwrap();
        write(&dfs, f, 0, b"x").await;
        assert_eq!(dfs.getattr(f).await.unwrap().mode & 0o7777, 0o6755);
        let x = Bytes::from_static(b"x");
        dfs.write(f, Handle(0), 0, x, false, true).await.unwrap();
        assert_eq!(dfs.getattr(f).await.unwrap().mode & 0o7777, 0o755);
        dfs.setattr(f, mode(0o4755)).await.unwrap();
        let cut = SetAttr { size: Some(0), kill_priv: true, ..SetAttr::default() };
        assert_eq!(dfs.setattr(f, cut).await.unwrap().mode & 0o7777, 0o755);
    });
}

#[test]
fn fallocate_gives_space_that_reads_as_zeros() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"abc").await;
        dfs.fallocate(f, 0, 0, 3 * CHUNK, false).await.unwrap();
        let attr = dfs.getattr(f).await.unwrap();
        assert_eq!(attr.size, 3 * CHUNK);
        assert!(attr.blocks * 512 >= 3 * CHUNK, "{} blocks", attr.blocks);
        assert_eq!(read(&dfs, f, 0, 5).await, &b"abc\0\0"[..]);
        dfs.fallocate(f, libc::FALLOC_FL_KEEP_SIZE, 5 * CHUNK, 10, false).await.unwrap();
        assert_eq!(dfs.getattr(f).await.unwrap().size, 3 * CHUNK);
        // A truncate to the same size frees what lies behind it.
        let before = dfs.getattr(f).await.unwrap().blocks;
        truncate(&dfs, f, 3 * CHUNK).await.unwrap();
        assert!(dfs.getattr(f).await.unwrap().blocks < before);
    });
}

#[test]
fn holes_can_be_punched_anywhere_and_the_size_stays() {
    on_a_new_filesystem(|dfs| async move {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let f = file_with(&dfs, dfs.root(), "f", &vec![9; 3 << 20]).await;
        dfs.fallocate(f, punch, CHUNK - 10, 20, false).await.unwrap();
        let around = read(&dfs, f, CHUNK - 11, 22).await;
        assert_eq!(around[..], [&[9][..], &[0; 20], &[9]].concat());
        // To the end and past it.
        dfs.fallocate(f, punch, 100, 1 << 40, false).await.unwrap();
        assert_eq!(dfs.getattr(f).await.unwrap().size, 3 * CHUNK);
        assert_eq!(read(&dfs, f, 3 * CHUNK - 5, 100).await, [0; 5][..]);
        let hole = dfs.lseek(f, 0, Seek::Hole).await.unwrap();
        assert!((100..=4096).contains(&hole), "{hole}");
        assert_eq!(errno(dfs.lseek(f, 4096, Seek::Data).await), libc::ENXIO);
        assert_eq!(errno(dfs.fallocate(f, 0, 0, 0, false).await), libc::EINVAL);
        let collapse = dfs.fallocate(f, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096, false).await;
        assert_eq!(errno(collapse), libc::EOPNOTSUPP);
    });
}

#[test]
fn zeroed_ranges_keep_their_space() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", &vec![9; 1 << 20]).await;
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        dfs.fallocate(f, zero, 4096, 8192, false).await.unwrap();
        assert_eq!(read(&dfs, f, 4095, 3).await, &[9, 0, 0][..]);
        assert!(dfs.getattr(f).await.unwrap().blocks >= 2048);
        dfs.fallocate(f, zero, CHUNK, 10, false).await.unwrap();
        assert_eq!(dfs.getattr(f).await.unwrap().size, CHUNK + 10);
        dfs.fallocate(f, zero | libc::FALLOC_FL_KEEP_SIZE, CHUNK, 100, false).await.unwrap();
        assert_eq!(dfs.getattr(f).await.unwrap().size, CHUNK + 10);
    });
}

#[test]
fn lseek_finds_data_and_holes() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        assert_eq!(errno(dfs.lseek(f, 0, Seek::Hole).await), libc::ENXIO);
        write(&dfs, f, 2 * CHUNK, &[1; 4096]).await;
        write(&dfs, f, 2 * CHUNK + 4096, &[1; 4096]).await;
        truncate(&dfs, f, 9 * CHUNK).await.unwrap();
        dfs.fallocate(f, 0, 5 * CHUNK, 4096, false).await.unwrap();
        assert_eq!(dfs.lseek(f, 0, Seek::Data).await.unwrap(), 2 * CHUNK);
        assert_eq!(dfs.lseek(f, 0, Seek::Hole).await.unwrap(), 0);
        assert_eq!(dfs.lseek(f, 2 * CHUNK + 5, Seek::Data).await.unwrap(), 2 * CHUNK + 5);
        assert_eq!(dfs.lseek(f, 2 * CHUNK, Seek::Hole).await.unwrap(), 2 * CHUNK + 8192);
        assert_eq!(errno(dfs.lseek(f, 3 * CHUNK, Seek::Data).await), libc::ENXIO);
        assert_eq!(dfs.lseek(f, 3 * CHUNK, Seek::Hole).await.unwrap(), 3 * CHUNK);
        assert_eq!(errno(dfs.lseek(f, 9 * CHUNK, Seek::Hole).await), libc::ENXIO);
        write(&dfs, f, 9 * CHUNK - 1, b"x").await;
        assert_eq!(dfs.lseek(f, 9 * CHUNK - 1, Seek::Hole).await.unwrap(), 9 * CHUNK);
    });
}

#[test]
fn copies_stay_inside_the_filesystem() {
    on_a_new_filesystem(|dfs| async move {
        let a = file_with(&dfs, dfs.root(), "a", b"0123456789").await;
        let b = file_with(&dfs, dfs.root(), "b", b"xxxx").await;
        assert_eq!(dfs.copy_file_range((a, 2), (b, 1), 5, false).await, Ok(5));
        assert_eq!(read(&dfs, b, 0, 99).await, "x23456");
        assert_eq!(dfs.copy_file_range((a, 8), (b, 0), 100, false).await, Ok(2));
        assert_eq!(dfs.copy_file_range((a, 10), (b, 0), 100, false).await, Ok(0));
        assert_eq!(errno(dfs.copy_file_range((a, 0), (a, 5), 6, false).await), libc::EINVAL);
        assert_eq!(dfs.copy_file_range((a, 0), (a, 10), 5, false).await, Ok(5));
        assert_eq!(read(&dfs, a, 8, 99).await, "8901234");
    });
}

#[test]
fn statfs_says_what_the_store_has() {
    on_a_new_filesystem(|dfs| async move {
        let space = dfs.statfs().await.unwrap();
        assert!(space.free <= space.capacity);
        assert_eq!(space.name_bytes_max, 255);
    });
}

#[test]
fn copies_keep_large_holes() {
    on_a_new_filesystem(|dfs| async move {
        const M: u64 = 1 << 20;
        let a = file_with(&dfs, dfs.root(), "a", b"").await;
        let b = file_with(&dfs, dfs.root(), "b", &vec![7; 3 << 20]).await;
        write(&dfs, a, 2 * M, b"island").await;
        let size = SetAttr { size: Some(500 * M), ..SetAttr::default() };
        dfs.setattr(a, size).await.unwrap();
        let mut at = 0;
        let mut calls = 0;
        while at < 500 * M {
            let len = 500 * M - at;
            let copied = dfs.copy_file_range((a, at), (b, at), len, false).await.unwrap();
            assert!(copied > 0);
            at += copied as u64;
            calls += 1;
        }
        assert!(calls < 10, "{calls} calls");
        let attr = dfs.getattr(b).await.unwrap();
        assert_eq!(attr.size, 500 * M);
        assert!(attr.blocks <= 128, "{} blocks", attr.blocks);
        assert_eq!(read(&dfs, b, 2 * M - 1, 8).await, &b"\0island\0"[..]);
        assert_eq!(read(&dfs, b, 0, 1 << 20).await, vec![0; 1 << 20], "what was there is gone");
    });
}
