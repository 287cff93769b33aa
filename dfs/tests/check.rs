//! The checker: sound filesystems have no findings, and each kind of damage has one that names it.

mod common;

use bytes::Bytes;
use common::*;
use daos_client::Container;
use daos_types::rpc::{KeyRef, Op};
use daos_types::{Akey, Dkey, ObjectClass, ObjectId, ObjectType};
use dfs::{Dfs, Ino, XattrSet};

struct Some4 {
    d: Ino,
    f: Ino,
    linked: Ino,
}

/// One of everything.
async fn fill(dfs: &Dfs) -> Some4 {
    let root = dfs.root();
    let d = directory(dfs, root, "d").await;
    directory(dfs, d, "e").await;
    let f = file_with(dfs, d, "f", b"data").await;
    let linked = file_with(dfs, d, "l", b"").await;
    dfs.link(linked, root, b"m").await.unwrap();
    dfs.symlink(root, b"s", b"d/f", USER).await.unwrap();
    dfs.mknod(root, b"p", libc::S_IFIFO, 0, USER).await.unwrap();
    for i in 0..20 {
        let name = format!("user.{i}");
        dfs.setxattr(d, name.as_bytes(), b"v", XattrSet::Any, false).await.unwrap();
    }
    Some4 { d, f, linked }
}

async fn damage(container: &Container, op: Op) {
    let mut transaction = container.transaction();
    transaction.push(op);
    transaction.commit().await.unwrap();
}

/// Runs the checker over a filesystem in which `op` was done behind its back; `expected` is in one of the findings.
fn finds(expected: &str, op: impl Fn(&Some4, &Dfs) -> Op) {
    on_a_container(|container| {
        let op = &op;
        async move {
            let dfs = mount(&container).await;
            let some = fill(&dfs).await;
            damage(&container, op(&some, &dfs)).await;
            let report = mount(&container).await.check(|_| {}).await.unwrap();
            let found = report.findings.iter().any(|finding| finding.contains(expected));
            assert!(found, "{expected:?} is not in {:#?}", report.findings);
        }
    });
}

#[test]
fn a_sound_filesystem_has_no_findings_and_right_counts() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        fill(&dfs).await;
        let (open, _handle) = file(&dfs, dfs.root(), "open").await;
        dfs.unlink(dfs.root(), b"open").await.unwrap();
        assert_eq!(dfs.getattr(open).await.unwrap().nlink, 0);
        let report = dfs.check(|_| {}).await.unwrap();
        assert!(report.is_sound(), "{:#?}", report.findings);
        assert_eq!((report.directories, report.files, report.symlinks), (3, 2, 1));
        assert_eq!((report.others, report.links, report.orphans), (1, 1, 1));
        assert_eq!((report.bytes, report.depth_max), (4, 2));
        assert!(container.snapshots().await.unwrap().is_empty());
    });
}

#[test]
fn a_lost_entry_leaves_an_object_that_is_found() {
    finds("belongs to no name", |some, _| Op::PunchDkey {
        object: directory_oid(some.d),
        dkey: Dkey::from("f"),
    });
}

#[test]
fn a_lost_back_pointer_is_found() {
    finds("does not know its name", |some, _| Op::PunchDkey {
        object: file_oid(some.f),
        dkey: Dkey::from_u64(0),
    });
}

#[test]
fn a_lost_record_of_the_inode_table_is_found() {
    finds("which the inode table does not have", |some, _| Op::PunchDkey {
        object: ObjectId::new(ObjectType::DkeyUint64, ObjectClass::SX, 2, 0),
        dkey: Dkey::from_u64(some.linked.0),
    });
}

#[test]
fn a_wrong_link_count_is_found() {
    finds("its link count is 2", |_, dfs| Op::PunchDkey {
        object: directory_oid(dfs.root()),
        dkey: Dkey::from("m"),
    });
}

#[test]
fn a_wrong_subdirectory_count_is_found() {
    finds("its count says 2", |some, _| Op::Add {
        key: KeyRef { object: directory_oid(some.d), dkey: Dkey::from("."), akey: Akey::from("s") },
        delta: 1,
    });
}

#[test]
fn a_flipped_bit_in_a_record_is_found() {
    finds("the checksum does not match", |some, _| Op::UpdateArray {
        key: KeyRef {
            object: directory_oid(some.d),
            dkey: Dkey::from("f"),
            akey: Akey::from("DFS_INODE"),
        },
        offset: 65,
        data: Bytes::from_static(&[0xff]),
    });
}

#[test]
fn numbers_that_could_be_given_twice_are_found() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        fill(&dfs).await;
        let key = KeyRef {
            object: ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, 0),
            dkey: Dkey::from("DFS_COUNTERS"),
            akey: Akey::from("NEXT_INO"),
        };
        let value = Bytes::copy_from_slice(&3_u64.to_le_bytes());
        damage(&container, Op::UpdateSingle { key, value }).await;
        let report = dfs.check(|_| {}).await.unwrap();
        assert!(report.findings.iter().any(|finding| finding.contains("next to be leased")));
    });
}

#[test]
fn a_damaged_entry_harms_only_who_looks_it_up() {
    on_a_container(|container| async move {
        let some = fill(&*mount(&container).await).await;
        let key = KeyRef {
            object: directory_oid(some.d),
            dkey: Dkey::from("f"),
            akey: Akey::from("DFS_INODE"),
        };
        let data = Bytes::from_static(&[0xff]);
        damage(&container, Op::UpdateArray { key, offset: 65, data }).await;
        let dfs = mount(&container).await;
        assert_eq!(names(&dfs, some.d).await, ["e", "f", "l"]);
        let plus = dfs.readdir_plus(some.d, 2, 10).await.unwrap();
        let shown: Vec<_> = plus.iter().filter(|entry| entry.attr.is_some()).collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(errno(lookup(&dfs, some.d, "f").await), libc::EUCLEAN);
        assert!(lookup(&dfs, some.d, "l").await.is_ok());
        file_with(&dfs, some.d, "new", b"").await;
    });
}
