//! Extended attributes: limits, flags, and that they go where their inode goes.

mod common;

use common::*;
use dfs::{RenameFlags, SetAttr, XattrSet};

#[test]
fn values_come_back_and_flags_mean_what_they_say() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let ctime = dfs.getattr(f).await.unwrap().ctime;
        assert_eq!(errno(dfs.getxattr(f, b"user.a").await), libc::ENODATA);
        let replace = dfs.setxattr(f, b"user.a", b"1", XattrSet::Replace, false).await;
        assert_eq!(errno(replace), libc::ENODATA);
        dfs.setxattr(f, b"user.a", b"1", XattrSet::Create, false).await.unwrap();
        let create = dfs.setxattr(f, b"user.a", b"2", XattrSet::Create, false).await;
        assert_eq!(errno(create), libc::EEXIST);
        dfs.setxattr(f, b"user.a", b"", XattrSet::Replace, false).await.unwrap();
        assert_eq!(dfs.getxattr(f, b"user.a").await.unwrap(), "");
        dfs.setxattr(f, b"security.x", b"3", XattrSet::Any, false).await.unwrap();
        dfs.setxattr(f, b"trusted.y", b"4", XattrSet::Any, false).await.unwrap();
        assert_eq!(
            dfs.listxattr(f, ROOT_USER).await.unwrap(),
            &b"security.x\0trusted.y\0user.a\0"[..]
        );
        dfs.removexattr(f, b"user.a").await.unwrap();
        assert_eq!(errno(dfs.removexattr(f, b"user.a").await), libc::ENODATA);
        assert!(dfs.getattr(f).await.unwrap().ctime > ctime);
    });
}

#[test]
fn limits_have_their_own_errno() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        let any = XattrSet::Any;
        let (big, biggest) = (vec![1; 65_537], vec![2; 65_536]);
        assert_eq!(errno(dfs.setxattr(f, b"user.a", &big, any, false).await), libc::E2BIG);
        dfs.setxattr(f, b"user.a", &biggest, any, false).await.unwrap();
        assert_eq!(dfs.getxattr(f, b"user.a").await.unwrap(), biggest);
        let long = [&b"user."[..], &[b'n'; 251]].concat();
        assert_eq!(errno(dfs.setxattr(f, &long, b"", any, false).await), libc::ERANGE);
        dfs.setxattr(f, &long[..255], b"", any, false).await.unwrap();
        let other = dfs.setxattr(f, b"system.other", b"", any, false).await;
        assert_eq!(errno(other), libc::EOPNOTSUPP);
        assert_eq!(errno(dfs.getxattr(f, b"other.a").await), libc::EOPNOTSUPP);
    });
}

#[test]
fn a_thousand_large_xattrs_move_with_their_file() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"data").await;
        let d = directory(&dfs, root, "d").await;
        for ino in [f, d] {
            for i in 0..1000 {
                let value = vec![i as u8; if i < 5 { 65_536 } else { i }];
                let name = format!("user.{i}");
                dfs.setxattr(ino, name.as_bytes(), &value, XattrSet::Any, false).await.unwrap();
            }
        }
        let plain = RenameFlags::default();
        dfs.rename(root, b"f", d, b"g", plain).await.unwrap();
        dfs.rename(root, b"d", root, b"e", plain).await.unwrap();
        let dfs = mount(&container).await;
        for ino in [f, d] {
            assert_eq!(dfs.getxattr(ino, b"user.999").await.unwrap(), vec![231; 999]);
            assert_eq!(dfs.getxattr(ino, b"user.3").await.unwrap(), vec![3; 65_536]);
            let list = dfs.listxattr(ino, ROOT_USER).await.unwrap();
            assert_eq!(list.iter().filter(|byte| **byte == 0).count(), 1000);
        }
        assert_eq!(lookup(&dfs, d, "g").await.unwrap().ino, f);
        assert_eq!(lookup(&dfs, root, "e").await.unwrap().ino, d);
        assert_eq!(dfs.lookup(d, b"..").await.unwrap().attr.ino, root);
        assert_eq!(dfs.getattr(f).await.unwrap().nlink, 1);
        dfs.unlink(d, b"g").await.unwrap();
        dfs.rmdir(root, b"e").await.unwrap();
        let dfs = mount(&container).await;
        assert_eq!(errno(dfs.getattr(f).await), libc::ESTALE);
        assert_eq!(errno(dfs.getattr(d).await), libc::ESTALE);
    });
}

#[test]
fn attributes_for_administrators_are_listed_for_them_only() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        dfs.setxattr(f, b"trusted.t", b"1", XattrSet::Any, false).await.unwrap();
        dfs.setxattr(f, b"user.u", b"2", XattrSet::Any, false).await.unwrap();
        assert_eq!(dfs.listxattr(f, ROOT_USER).await.unwrap(), &b"trusted.t\0user.u\0"[..]);
        assert_eq!(dfs.listxattr(f, USER).await.unwrap(), &b"user.u\0"[..]);
    });
}

#[test]
fn capabilities_go_with_the_bytes_they_were_given_for() {
    on_a_new_filesystem(|dfs| async move {
        let name = b"security.capability";
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"1234").await;
        let g = file_with(&dfs, root, "g", b"1234").await;
        for change in 0..5 {
            dfs.setxattr(f, name, b"cap", XattrSet::Any, false).await.unwrap();
            let chmod = SetAttr { mode: Some(0o755), ..SetAttr::default() };
            dfs.setattr(f, chmod).await.unwrap();
            assert_eq!(dfs.getxattr(f, name).await.unwrap(), "cap");
            match change {
                0 => write(&dfs, f, 1, b"x").await,
                1 => {
                    let size = SetAttr { size: Some(3), ..SetAttr::default() };
                    dfs.setattr(f, size).await.map(|_| ()).unwrap();
                }
                2 => {
                    let owner = SetAttr { uid: Some(3), ..SetAttr::default() };
                    dfs.setattr(f, owner).await.map(|_| ()).unwrap();
                }
                3 => dfs.fallocate(f, 0, 0, 10, false).await.unwrap(),
                _ => assert_eq!(dfs.copy_file_range((g, 0), (f, 0), 2, false).await, Ok(2)),
            }
            assert_eq!(errno(dfs.getxattr(f, name).await), libc::ENODATA, "change {change}");
            assert_eq!(dfs.listxattr(f, ROOT_USER).await.unwrap(), "");
        }
    });
}

#[test]
fn a_removed_directory_has_none_left() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let d = directory(&dfs, root, "d").await;
        dfs.setxattr(d, b"user.a", b"1", XattrSet::Any, false).await.unwrap();
        dfs.open(d, libc::O_RDONLY).await.unwrap();
        dfs.rmdir(root, b"d").await.unwrap();
        assert_eq!(errno(dfs.getxattr(d, b"user.a").await), libc::ENODATA);
        assert_eq!(dfs.listxattr(d, USER).await.unwrap(), "");
        let set = dfs.setxattr(d, b"user.a", b"1", XattrSet::Any, false).await;
        assert_eq!(errno(set), libc::ESTALE);
    });
}
