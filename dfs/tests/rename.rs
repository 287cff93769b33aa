//! Rename: what moves, what is replaced, what is refused, what stays.

mod common;

use common::*;
use dfs::{Dfs, Ino, RenameFlags, Result, XattrSet};

const PLAIN: RenameFlags = RenameFlags { no_replace: false, exchange: false };
const NO_REPLACE: RenameFlags = RenameFlags { no_replace: true, exchange: false };
const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true };

async fn rename(dfs: &Dfs, from: (Ino, &str), to: (Ino, &str), flags: RenameFlags) -> Result<()> {
    dfs.rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), flags).await.map(drop)
}

#[test]
fn the_whole_entry_moves_and_its_mtime_stays() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let d = directory(&dfs, root, "d").await;
        let f = file_with(&dfs, root, "f", b"data").await;
        dfs.setxattr(f, b"user.k", b"v", XattrSet::Any, false).await.unwrap();
        let before = dfs.getattr(f).await.unwrap();
        rename(&dfs, (root, "f"), (d, "g"), PLAIN).await.unwrap();
        let after = lookup(&dfs, d, "g").await.unwrap();
        assert_eq!((after.ino, after.mtime), (f, before.mtime));
        assert!(after.ctime > before.ctime);
        assert_eq!(dfs.getxattr(f, b"user.k").await.unwrap(), "v");
        assert_eq!(read(&dfs, f, 0, 9).await, "data");
        assert_eq!(errno(lookup(&dfs, root, "f").await), libc::ENOENT);
    });
}

#[test]
fn a_replaced_file_goes_and_its_xattrs_do_not_stay() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let a = file_with(&dfs, root, "a", b"a").await;
        let b = file_with(&dfs, root, "b", b"b").await;
        dfs.setxattr(b, b"user.old", b"x", XattrSet::Any, false).await.unwrap();
        dfs.setxattr(a, b"user.new", b"y", XattrSet::Any, false).await.unwrap();
        rename(&dfs, (root, "a"), (root, "b"), PLAIN).await.unwrap();
        assert_eq!(names(&dfs, root).await, ["b"]);
        assert_eq!(dfs.listxattr(a, ROOT_USER).await.unwrap(), &b"user.new\0"[..]);
        assert_eq!(errno(dfs.getxattr(a, b"user.old").await), libc::ENODATA);
        assert_eq!(dfs.getattr(b).await.unwrap().nlink, 0);
    });
}

#[test]
fn kinds_that_do_not_fit_are_refused() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let d = directory(&dfs, root, "d").await;
        directory(&dfs, root, "e").await;
        file_with(&dfs, root, "f", b"").await;
        file_with(&dfs, d, "x", b"").await;
        let refused = |from, to| {
            let dfs = &dfs;
            async move { errno(rename(dfs, (root, from), (root, to), PLAIN).await) }
        };
        assert_eq!(refused("d", "f").await, libc::ENOTDIR);
        assert_eq!(refused("f", "d").await, libc::EISDIR);
        assert_eq!(refused("e", "d").await, libc::ENOTEMPTY);
        assert_eq!(refused("no", "d").await, libc::ENOENT);
        assert_eq!(refused("f", "..").await, libc::EINVAL);
        rename(&dfs, (root, "d"), (root, "e"), PLAIN).await.unwrap();
        assert_eq!(names(&dfs, root).await, ["e", "f"]);
    });
}

#[test]
fn a_directory_does_not_move_below_itself() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let a = directory(&dfs, root, "a").await;
        let b = directory(&dfs, a, "b").await;
        let c = directory(&dfs, b, "c").await;
        for below in [a, b, c] {
            assert_eq!(errno(rename(&dfs, (root, "a"), (below, "x"), PLAIN).await), libc::EINVAL);
        }
        file_with(&dfs, root, "f", b"").await;
        assert_eq!(errno(rename(&dfs, (b, "c"), (root, "a"), EXCHANGE).await), libc::EINVAL);
        assert_eq!(errno(rename(&dfs, (root, "a"), (b, "c"), EXCHANGE).await), libc::EINVAL);
        rename(&dfs, (b, "c"), (root, "f"), EXCHANGE).await.unwrap();
        assert_eq!(dfs.lookup(c, b"..").await.unwrap().attr.ino, root);
        rename(&dfs, (root, "a"), (c, "a"), PLAIN).await.unwrap();
        assert_eq!(dfs.lookup(a, b"..").await.unwrap().attr.ino, c);
    });
}

#[test]
fn renames_that_would_together_make_a_loop_do_not_both_win() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        for round in 0..20 {
            let (x, y) = (format!("x{round}"), format!("y{round}"));
            let a = directory(&dfs, root, &x).await;
            let b = directory(&dfs, root, &y).await;
            let (one, two) = futures_lite::future::zip(
                rename(&dfs, (root, &x), (b, "in"), PLAIN),
                rename(&dfs, (root, &y), (a, "in"), PLAIN),
            )
            .await;
            let lost = errno(one) + errno(two);
            assert!(lost == libc::EINVAL || lost == libc::ENOENT, "{lost}");
        }
        assert_eq!(names(&dfs, root).await.len(), 20);
    });
}

#[test]
fn no_replace_does_not_replace() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        file_with(&dfs, root, "a", b"a").await;
        file_with(&dfs, root, "b", b"b").await;
        let refused = rename(&dfs, (root, "a"), (root, "b"), NO_REPLACE).await;
        assert_eq!(errno(refused), libc::EEXIST);
        rename(&dfs, (root, "a"), (root, "c"), NO_REPLACE).await.unwrap();
        assert_eq!(names(&dfs, root).await, ["b", "c"]);
    });
}

#[test]
fn exchange_swaps_everything() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let d = directory(&dfs, root, "d").await;
        let f = file_with(&dfs, root, "f", b"f").await;
        let s = directory(&dfs, d, "s").await;
        file_with(&dfs, s, "inside", b"").await;
        dfs.setxattr(f, b"user.f", b"1", XattrSet::Any, false).await.unwrap();
        dfs.setxattr(s, b"user.s", b"2", XattrSet::Any, false).await.unwrap();
        rename(&dfs, (root, "f"), (d, "s"), EXCHANGE).await.unwrap();
        assert_eq!(lookup(&dfs, root, "f").await.unwrap().ino, s);
        assert_eq!(lookup(&dfs, d, "s").await.unwrap().ino, f);
        assert_eq!(dfs.listxattr(f, ROOT_USER).await.unwrap(), &b"user.f\0"[..]);
        assert_eq!(dfs.listxattr(s, ROOT_USER).await.unwrap(), &b"user.s\0"[..]);
        assert_eq!(dfs.getattr(root).await.unwrap().nlink, 4);
        assert_eq!(dfs.getattr(d).await.unwrap().nlink, 2);
        let refused = rename(&dfs, (root, "f"), (root, "no"), EXCHANGE).await;
        assert_eq!(errno(refused), libc::ENOENT);
    });
}

#[test]
fn two_names_of_one_inode_stay_both() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let f = file_with(&dfs, root, "a", b"").await;
        dfs.link(f, root, b"b").await.unwrap();
        rename(&dfs, (root, "a"), (root, "b"), PLAIN).await.unwrap();
        assert_eq!(names(&dfs, root).await, ["a", "b"]);
        rename(&dfs, (root, "a"), (root, "a"), PLAIN).await.unwrap();
        rename(&dfs, (root, "a"), (root, "c"), PLAIN).await.unwrap();
        assert_eq!(names(&dfs, root).await, ["b", "c"]);
        assert_eq!(dfs.getattr(f).await.unwrap().nlink, 2);
    });
}

#[test]
fn a_symlink_that_others_exchange_is_read_whole() {
    on_a_new_filesystem(|dfs| async move {
        let mut inodes = Vec::new();
        for (name, target) in [("short", "s"), ("long", "a longer target")] {
            let made = dfs.symlink(dfs.root(), name.as_bytes(), target.as_bytes(), USER).await;
            inodes.push((made.unwrap().attr.ino, target));
        }
        let threads: Vec<_> = inodes
            .into_iter()
            .map(|(ino, target)| {
                let dfs = dfs.clone();
                std::thread::spawn(move || {
                    for _ in 0..300 {
                        let read = block_on(dfs.readlink(ino)).unwrap();
                        assert_eq!(read, target.as_bytes());
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            dfs.rename(dfs.root(), b"short", dfs.root(), b"long", EXCHANGE).await.unwrap();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
