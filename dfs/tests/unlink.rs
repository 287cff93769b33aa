//! Names that go: data of open files stays until the last close, and nothing stays after a crash.

mod common;

use common::*;
use daos_client::{Container, Page};
use daos_types::rpc::Cursor;
use dfs::{RenameFlags, XattrSet};

async fn objects(container: &Container) -> usize {
    let page = Page { after: Cursor::Start, entries_max: 10_000, bytes_max: 1 << 20 };
    container.list_objects(page).await.unwrap().objects.len()
}

#[test]
fn an_open_file_lives_on_without_its_name() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let before = objects(&container).await;
        let (f, handle) = file(&dfs, root, "f").await;
        dfs.setxattr(f, b"user.k", b"v", XattrSet::Any, false).await.unwrap();
        write(&dfs, f, 0, b"data").await;
        dfs.unlink(root, b"f").await.unwrap();
        assert_eq!(errno(lookup(&dfs, root, "f").await), libc::ENOENT);
        // Another file of that name is another file.
        file_with(&dfs, root, "f", b"other").await;
        dfs.unlink(root, b"f").await.unwrap();
        assert_eq!(read(&dfs, f, 0, 9).await, "data");
        write(&dfs, f, 4, b"more").await;
        let attr = dfs.getattr(f).await.unwrap();
        assert_eq!((attr.size, attr.nlink), (8, 0));
        assert_eq!(dfs.getxattr(f, b"user.k").await.unwrap(), "v");
        dfs.setxattr(f, b"user.l", b"w", XattrSet::Any, false).await.unwrap();
        assert_eq!(errno(dfs.link(f, root, b"back").await), libc::ENOENT);
        let second = dfs.open(f, libc::O_RDONLY).await.unwrap().handle;
        dfs.release(f, handle).await.unwrap();
        assert_eq!(read(&dfs, f, 0, 9).await, "datamore");
        dfs.release(f, second).await.unwrap();
        assert_eq!(errno(dfs.open(f, libc::O_RDONLY).await), libc::ESTALE);
        assert_eq!(objects(&container).await, before + 1, "only the orphan object is left");
    });
}

#[test]
fn what_was_open_at_a_crash_is_reclaimed_by_the_next_mount() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let before = objects(&container).await;
        for i in 0..40 {
            let name = format!("f{i}");
            let (f, _handle) = file(&dfs, root, &name).await;
            write(&dfs, f, 0, b"data").await;
            if i % 2 == 0 {
                dfs.link(f, root, b"second").await.unwrap();
                dfs.unlink(root, b"second").await.unwrap();
            }
            dfs.unlink(root, name.as_bytes()).await.unwrap();
        }
        assert!(objects(&container).await > before + 40);
        drop(dfs);
        let dfs = mount(&container).await;
        // The orphan object and the inode table have no entries, but were used.
        assert!(objects(&container).await <= before + 2);
        assert_eq!(names(&dfs, root).await, Vec::<String>::new());
    });
}

#[test]
fn a_replaced_open_file_lives_on_too() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let (f, handle) = file(&dfs, root, "f").await;
        write(&dfs, f, 0, b"old").await;
        file_with(&dfs, root, "g", b"new").await;
        dfs.rename(root, b"g", root, b"f", RenameFlags::default()).await.unwrap();
        assert_eq!(read(&dfs, f, 0, 9).await, "old");
        let now = lookup(&dfs, root, "f").await.unwrap().ino;
        assert_eq!(read(&dfs, now, 0, 9).await, "new");
        dfs.release(f, handle).await.unwrap();
        assert_eq!(errno(dfs.open(f, libc::O_RDONLY).await), libc::ESTALE);
    });
}

#[test]
fn who_comes_too_late_to_open_does_not_the_second_time() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let replace = async |bytes: &[u8]| {
            let new = file_with(&dfs, root, "new", bytes).await;
            dfs.rename(root, b"new", root, b"f", RenameFlags::default()).await.unwrap();
            new
        };
        replace(b"0").await;
        let before = objects(&container).await;
        let first = dfs.lookup(root, b"f").await.unwrap().attr.ino;
        replace(b"1").await;
        assert_eq!(errno(dfs.open(first, libc::O_RDONLY).await), libc::ESTALE);
        // As the kernel does then: it looks up once more, and opens what it finds.
        let second = dfs.lookup(root, b"f").await.unwrap().attr.ino;
        replace(b"2").await;
        dfs.unlink(root, b"f").await.unwrap();
        let opened = dfs.open(second, libc::O_RDONLY).await.unwrap();
        assert_eq!(read(&dfs, second, 0, 9).await, "1");
        assert_eq!(dfs.getattr(second).await.unwrap().nlink, 0);
        // Another one that has looked it up may still come.
        dfs.release(second, opened.handle).await.unwrap();
        let opened = dfs.open(second, libc::O_RDONLY).await.unwrap();
        dfs.release(second, opened.handle).await.unwrap();
        // What `file_with` remembered is nobody's any more either.
        while !dfs.forget(second, 1) {}
        assert!(dfs.is_forsaken(second));
        dfs.forgotten(second).await.unwrap();
        assert_eq!(errno(dfs.open(second, libc::O_RDONLY).await), libc::ESTALE);
        dfs.unmount().await.unwrap();
        let left = objects(&container).await;
        assert!(left <= before, "{left} objects, {before} with the file and no orphans");
    });
}

#[test]
fn a_file_made_without_a_name_may_get_one() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let before = objects(&container).await;
        let rdwr = libc::O_RDWR;
        let (entry, opened) = dfs.tmpfile(root, 0o600, rdwr, USER).await.unwrap();
        let (f, handle) = (entry.attr.ino, opened.handle);
        assert_eq!(entry.attr.nlink, 0);
        write(&dfs, f, 0, b"x").await;
        let linked = dfs.link(f, root, b"named").await.unwrap();
        assert_eq!(linked.attr.nlink, 1);
        dfs.release(f, handle).await.unwrap();
        assert_eq!(read(&dfs, lookup(&dfs, root, "named").await.unwrap().ino, 0, 9).await, "x");
        let excl = rdwr | libc::O_EXCL;
        let (entry, opened) = dfs.tmpfile(root, 0o600, excl, USER).await.unwrap();
        assert_eq!(errno(dfs.link(entry.attr.ino, root, b"no").await), libc::ENOENT);
        dfs.release(entry.attr.ino, opened.handle).await.unwrap();
        let (_, _handle) = dfs.tmpfile(root, 0o600, rdwr, USER).await.unwrap();
        mount(&container).await;
        assert_eq!(objects(&container).await, before + 2, "the file and the orphan object");
    });
}

#[test]
fn nothing_is_left_of_what_was_removed() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let before = objects(&container).await;
        for i in 0..20 {
            let d = directory(&dfs, root, &format!("d{i}")).await;
            let f = file_with(&dfs, d, "f", b"data").await;
            dfs.link(f, d, b"g").await.unwrap();
            dfs.symlink(d, b"s", b"t", USER).await.unwrap();
            for name in [&b"f"[..], b"g", b"s"] {
                dfs.unlink(d, name).await.unwrap();
            }
            dfs.rmdir(root, format!("d{i}").as_bytes()).await.unwrap();
        }
        assert_eq!(objects(&container).await, before + 1, "the inode table");
        assert_eq!(dfs.getattr(root).await.unwrap().nlink, 2);
    });
}
