//! Names: what each call makes, refuses and leaves.

mod common;

use common::*;
use dfs::{Kind, RenameFlags, SetAttr};

#[test]
fn a_new_filesystem_has_an_empty_root() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.getattr(dfs.root()).await.unwrap();
        assert_eq!((root.kind, root.nlink, root.mode & 0o7777), (Kind::Directory, 2, 0o755));
        assert_eq!(names(&dfs, dfs.root()).await, Vec::<String>::new());
        let own = dfs.readdir(dfs.root(), 0, 10).await.unwrap();
        let own: Vec<_> = own.iter().map(|e| (e.cookie, &e.name[..], e.ino)).collect();
        assert_eq!(own, [(1, &b"."[..], dfs.root()), (2, &b".."[..], dfs.root())]);
    });
}

#[test]
fn created_files_are_found_listed_and_kept_over_a_remount() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let ino = file_with(&dfs, dfs.root(), "a", b"hello").await;
        let before = dfs.getattr(ino).await.unwrap();
        let cookie = dfs.readdir(dfs.root(), 2, 10).await.unwrap()[0].cookie;
        dfs.unmount().await.unwrap();
        let dfs = mount(&container).await;
        let after = lookup(&dfs, dfs.root(), "a").await.unwrap();
        assert_eq!(after, before);
        assert_eq!(after.size, 5);
        assert_eq!(dfs.readdir(dfs.root(), 2, 10).await.unwrap()[0].cookie, cookie);
        assert_eq!(read(&dfs, ino, 0, 100).await, "hello");
    });
}

#[test]
fn inode_numbers_resolve_after_a_remount_without_a_lookup() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let dir = directory(&dfs, dfs.root(), "d").await;
        let file = file_with(&dfs, dir, "f", b"x").await;
        dfs.link(file, dfs.root(), b"g").await.unwrap();
        let plain = file_with(&dfs, dir, "p", b"y").await;
        let dfs = mount(&container).await;
        for ino in [dir, file, plain] {
            assert_eq!(dfs.getattr(ino).await.unwrap().ino, ino);
        }
        assert_eq!(dfs.lookup(dir, b"..").await.unwrap().attr.ino, dfs.root());
        assert_eq!(dfs.lookup(file, b".").await.unwrap().attr.ino, file);
        assert_eq!(dfs.getattr(file).await.unwrap().nlink, 2);
    });
}

#[test]
fn names_that_exist_or_do_not_are_refused() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"").await;
        let d = directory(&dfs, root, "d").await;
        assert_eq!(errno(dfs.mkdir(root, b"f", 0o755, USER).await), libc::EEXIST);
        assert_eq!(errno(dfs.mknod(root, b"d", libc::S_IFREG, 0, USER).await), libc::EEXIST);
        assert_eq!(errno(dfs.symlink(root, b"f", b"t", USER).await), libc::EEXIST);
        assert_eq!(errno(dfs.link(f, root, b"d").await), libc::EEXIST);
        assert_eq!(errno(dfs.link(d, root, b"e").await), libc::EPERM);
        assert_eq!(errno(dfs.unlink(root, b"no").await), libc::ENOENT);
        assert_eq!(errno(dfs.rmdir(root, b"no").await), libc::ENOENT);
        assert_eq!(errno(dfs.unlink(root, b"d").await), libc::EISDIR);
        assert_eq!(errno(dfs.rmdir(root, b"f").await), libc::ENOTDIR);
        assert_eq!(errno(lookup(&dfs, root, "no").await), libc::ENOENT);
        assert_eq!(errno(lookup(&dfs, f, "no").await), libc::ENOTDIR);
        assert_eq!(errno(dfs.mkdir(f, b"x", 0o755, USER).await), libc::ENOTDIR);
        let long = vec![b'x'; 256];
        assert_eq!(errno(dfs.mkdir(root, &long, 0o755, USER).await), libc::ENAMETOOLONG);
        dfs.mkdir(root, &long[..255], 0o755, USER).await.unwrap();
        let (target, longest) = (vec![b't'; 4096], vec![b't'; 4095]);
        assert_eq!(errno(dfs.symlink(root, b"l", &target, USER).await), libc::ENAMETOOLONG);
        let link = dfs.symlink(root, b"l", &longest, USER).await.unwrap().attr;
        assert_eq!(dfs.readlink(link.ino).await.unwrap(), longest);
        assert_eq!(link.size, 4095);
    });
}

#[test]
fn directories_count_their_subdirectories() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let a = directory(&dfs, root, "a").await;
        let b = directory(&dfs, root, "b").await;
        directory(&dfs, a, "x").await;
        directory(&dfs, a, "y").await;
        assert_eq!(dfs.getattr(root).await.unwrap().nlink, 4);
        assert_eq!(dfs.getattr(a).await.unwrap().nlink, 4);
        dfs.rename(a, b"x", b, b"x", RenameFlags::default()).await.unwrap();
        assert_eq!(dfs.getattr(a).await.unwrap().nlink, 3);
        assert_eq!(dfs.getattr(b).await.unwrap().nlink, 3);
        dfs.rename(a, b"y", b, b"x", RenameFlags::default()).await.unwrap();
        assert_eq!(dfs.getattr(a).await.unwrap().nlink, 2);
        assert_eq!(dfs.getattr(b).await.unwrap().nlink, 3);
        dfs.rmdir(b, b"x").await.unwrap();
        assert_eq!(dfs.getattr(b).await.unwrap().nlink, 2);
    });
}

#[test]
fn a_directory_with_entries_is_not_removed() {
    on_a_new_filesystem(|dfs| async move {
        let d = directory(&dfs, dfs.root(), "d").await;
        file_with(&dfs, d, "f", b"").await;
        assert_eq!(errno(dfs.rmdir(dfs.root(), b"d").await), libc::ENOTEMPTY);
        dfs.unlink(d, b"f").await.unwrap();
        dfs.rmdir(dfs.root(), b"d").await.unwrap();
        // Whoever still stands in it sees it empty and can make nothing in it.
        assert_eq!(dfs.getattr(d).await.unwrap().nlink, 0);
        assert_eq!(dfs.readdir(d, 0, 10).await.unwrap(), []);
        assert_eq!(errno(dfs.mkdir(d, b"x", 0o755, USER).await), libc::ENOENT);
    });
}

#[test]
fn set_gid_directories_hand_down_their_group() {
    on_a_new_filesystem(|dfs| async move {
        let d = directory(&dfs, dfs.root(), "d").await;
        let set = SetAttr { mode: Some(0o2755), gid: Some(77), ..SetAttr::default() };
        dfs.setattr(d, set).await.unwrap();
        let f = dfs.mknod(d, b"f", libc::S_IFREG | 0o644, 0, USER).await.unwrap().attr;
        let s = dfs.mkdir(d, b"s", 0o755, USER).await.unwrap().attr;
        assert_eq!((f.uid, f.gid, f.mode & 0o7777), (1000, 77, 0o644));
        assert_eq!((s.gid, s.mode & 0o7777), (77, 0o2755));
    });
}

#[test]
fn every_kind_of_inode_can_be_made() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        for (kind, name) in [
            (libc::S_IFIFO, "fifo"),
            (libc::S_IFSOCK, "socket"),
            (libc::S_IFCHR, "char"),
            (libc::S_IFBLK, "block"),
        ] {
            let rdev = 0x0105;
            let made = dfs.mknod(root, name.as_bytes(), kind | 0o600, rdev, USER).await.unwrap();
            let device = kind == libc::S_IFCHR || kind == libc::S_IFBLK;
            assert_eq!(made.attr.mode, kind | 0o600);
            assert_eq!(made.attr.rdev, if device { rdev } else { 0 });
            assert_eq!(lookup(&dfs, root, name).await.unwrap(), made.attr);
        }
        assert_eq!(errno(dfs.mknod(root, b"d", libc::S_IFDIR, 0, USER).await), libc::EINVAL);
    });
}

#[test]
fn create_opens_what_is_there() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"data").await;
        directory(&dfs, root, "d").await;
        let create = async |name: &[u8], flags| dfs.create(root, name, 0o600, flags, USER).await;
        assert_eq!(errno(create(b"f", libc::O_RDWR | libc::O_EXCL).await), libc::EEXIST);
        assert_eq!(errno(create(b"d", libc::O_RDWR).await), libc::EISDIR);
        let (entry, opened) = create(b"f", libc::O_RDWR).await.unwrap();
        assert_eq!((entry.attr.ino, entry.attr.size, entry.attr.mode & 0o777), (f, 4, 0o644));
        dfs.release(f, opened.handle).await.unwrap();
        let (entry, opened) = create(b"f", libc::O_RDWR | libc::O_TRUNC).await.unwrap();
        assert_eq!((entry.attr.ino, entry.attr.size), (f, 0));
        dfs.release(f, opened.handle).await.unwrap();
        assert_eq!(errno(dfs.release(f, opened.handle).await), libc::EBADF);
    });
}

#[test]
fn listings_miss_nothing_that_stays() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        for i in 0..200 {
            file_with(&dfs, root, &format!("stays{i}"), b"").await;
        }
        let (mut seen, mut after, mut round) = (Vec::new(), 0, 0);
        loop {
            let page = dfs.readdir(root, after, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.cookie;
            seen.extend(page.into_iter().filter(|entry| entry.name.starts_with(b"stays")));
            // What comes and goes around it.
            file_with(&dfs, root, &format!("comes{round}"), b"").await;
            if round > 1 {
                dfs.unlink(root, format!("comes{}", round - 2).as_bytes()).await.unwrap();
            }
            round += 1;
        }
        let mut names: Vec<_> = seen.iter().map(|entry| entry.name.clone()).collect();
        assert_eq!(names.len(), 200);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 200);
    });
}

#[test]
fn a_read_only_mount_changes_nothing() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let f = file_with(&dfs, dfs.root(), "f", b"data").await;
        let snapshot = container.snapshot_create(None).await.unwrap();
        write(&dfs, f, 0, b"later").await;
        file_with(&dfs, dfs.root(), "g", b"").await;
        let only = dfs::MountOptions { read_only: true, ..Default::default() };
        let dfs = dfs::Dfs::mount(container.clone(), only).await.unwrap();
        let root = dfs.root();
        assert_eq!(errno(dfs.mkdir(root, b"d", 0o755, USER).await), libc::EROFS);
        assert_eq!(errno(dfs.unlink(root, b"f").await), libc::EROFS);
        assert_eq!(errno(dfs.open(f, libc::O_RDWR).await), libc::EROFS);
        assert_eq!(errno(dfs.setattr(f, SetAttr::default()).await), libc::EROFS);
        assert_eq!(read(&dfs, f, 0, 9).await, "later");
        let then = dfs::MountOptions { epoch: Some(snapshot.epoch), ..Default::default() };
        let dfs = dfs::Dfs::mount(container.clone(), then).await.unwrap();
        assert_eq!(read(&dfs, f, 0, 9).await, "data");
        assert_eq!(names(&dfs, root).await, ["f"]);
        assert!(dfs.check(|_| {}).await.unwrap().is_sound());
    });
}
