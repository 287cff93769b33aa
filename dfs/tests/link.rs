//! Hard links: one inode under many names.

mod common;

use common::*;
use dfs::{SetAttr, XattrSet};

#[test]
fn all_names_show_one_inode() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let d = directory(&dfs, root, "d").await;
        let f = file_with(&dfs, root, "a", b"one").await;
        dfs.setxattr(f, b"user.k", b"v", XattrSet::Any, false).await.unwrap();
        let cookie = dfs.readdir(root, 2, 10).await.unwrap();
        let linked = dfs.link(f, d, b"b").await.unwrap().attr;
        assert_eq!((linked.ino, linked.nlink), (f, 2));
        assert_eq!(dfs.readdir(root, 2, 10).await.unwrap(), cookie, "cookies stay");
        let set = SetAttr { mode: Some(0o600), uid: Some(9), ..SetAttr::default() };
        dfs.setattr(f, set).await.unwrap();
        write(&dfs, f, 3, b"two").await;
        let dfs = mount(&container).await;
        let (a, b) = (lookup(&dfs, root, "a").await.unwrap(), lookup(&dfs, d, "b").await.unwrap());
        assert_eq!(a, b);
        assert_eq!((a.nlink, a.uid, a.mode & 0o7777, a.size), (2, 9, 0o600, 6));
        assert_eq!(dfs.getxattr(f, b"user.k").await.unwrap(), "v");
        let plus = dfs.readdir_plus(d, 2, 10).await.unwrap();
        assert_eq!(plus[0].attr, Some(b));
        dfs.unlink(root, b"a").await.unwrap();
        let left = lookup(&dfs, d, "b").await.unwrap();
        assert_eq!((left.ino, left.nlink), (f, 1));
        assert!(left.ctime > b.ctime);
        assert_eq!(read(&dfs, f, 0, 9).await, "onetwo");
        dfs.unlink(d, b"b").await.unwrap();
        assert_eq!(errno(dfs.open(f, 0).await), libc::ESTALE);
    });
}

#[test]
fn symlinks_and_devices_can_have_two_names() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let s = dfs.symlink(root, b"s", b"target", USER).await.unwrap().attr;
        dfs.link(s.ino, root, b"t").await.unwrap();
        dfs.unlink(root, b"s").await.unwrap();
        assert_eq!(dfs.readlink(s.ino).await.unwrap(), "target");
        assert_eq!(lookup(&dfs, root, "t").await.unwrap().size, 6);
        let fifo = dfs.mknod(root, b"p", libc::S_IFIFO | 0o600, 0, USER).await.unwrap().attr;
        assert_eq!(dfs.link(fifo.ino, root, b"q").await.unwrap().attr.nlink, 2);
    });
}

#[test]
fn many_links_from_many_sides_are_all_counted() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"").await;
        let links = |prefix: char| {
            let dfs = dfs.clone();
            async move {
                for i in 0..30 {
                    dfs.link(f, root, format!("{prefix}{i}").as_bytes()).await.unwrap();
                }
                for i in 0..10 {
                    dfs.unlink(root, format!("{prefix}{i}").as_bytes()).await.unwrap();
                }
            }
        };
        futures_lite::future::zip(links('a'), links('b')).await;
        assert_eq!(dfs.getattr(f).await.unwrap().nlink, 41);
        assert_eq!(names(&dfs, root).await.len(), 41);
    });
}
