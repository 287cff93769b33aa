//! What is damaged is mended, a second check is clean, a second repair does nothing, and what was sound is as it was.

mod common;

use bytes::Bytes;
use common::*;
use daos_client::Container;
use daos_types::rpc::{KeyRef, Op};
use daos_types::{Akey, Dkey, ObjectClass, ObjectId, ObjectType};
use dfs::{Dfs, Ino, Repaired};

const NOW: u64 = 1_700_000_000_000_000_000;

fn table_oid() -> ObjectId {
    ObjectId::new(ObjectType::DkeyUint64, ObjectClass::SX, 2, 0)
}

fn superblock_oid() -> ObjectId {
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 0, 0)
}

/// /d/e, /d/f ("data"), /d/l and /m (one inode, "linked"), /s -> d/f, /empty
struct Some6 {
    d: Ino,
    e: Ino,
    f: Ino,
    linked: Ino,
    s: Ino,
}

async fn fill(container: &Container) -> Some6 {
    let dfs = mount(container).await;
    let root = dfs.root();
    let d = directory(&dfs, root, "d").await;
    let e = directory(&dfs, d, "e").await;
    let f = file_with(&dfs, d, "f", b"data").await;
    let linked = file_with(&dfs, d, "l", b"linked").await;
    dfs.link(linked, root, b"m").await.unwrap();
    let s = dfs.symlink(root, b"s", b"d/f", USER).await.unwrap().attr.ino;
    file_with(&dfs, root, "empty", b"").await;
    dfs.unmount().await.unwrap();
    Some6 { d, e, f, linked, s }
}

async fn change(container: &Container, ops: Vec<Op>) {
    let mut transaction = container.transaction();
    for op in ops {
        transaction.push(op);
    }
    transaction.commit().await.unwrap();
}

async fn findings(container: &Container) -> Vec<String> {
    mount(container).await.check(|_| {}).await.unwrap().findings
}

/// Damages, repairs, and proves that nothing is left to mend; then `verify` looks at the tree.
fn mends<F: Future<Output = ()>>(
    said: &str,
    damage: impl Fn(&Some6) -> Vec<Op>,
    verify: impl Fn(std::sync::Arc<Dfs>, Repaired) -> F,
) {
    on_a_container(|container| {
        let (damage, verify) = (&damage, &verify);
        async move {
            let some = fill(&container).await;
            change(&container, damage(&some)).await;
            let repaired = dfs::repair(&container, NOW).await.unwrap();
            let told = repaired.mended.iter().any(|mended| mended.contains(said));
            assert!(told, "{said:?} is not in {:#?}", repaired.mended);
            assert_eq!(findings(&container).await, Vec::<String>::new(), "{:#?}", repaired.mended);
            let again = dfs::repair(&container, NOW + 1).await.unwrap();
            assert_eq!(again, Repaired::default(), "a second repair finds nothing");
            let dfs = mount(&container).await;
            verify(dfs, repaired).await;
        }
    });
}

fn punch(object: ObjectId, dkey: impl Into<Dkey>) -> Op {
    Op::PunchDkey { object, dkey: dkey.into() }
}

fn key(object: ObjectId, dkey: impl Into<Dkey>, akey: &'static str) -> KeyRef {
    KeyRef { object, dkey: dkey.into(), akey: Akey::from(akey) }
}

async fn contents(dfs: &Dfs, path: &[&str]) -> Bytes {
    let mut ino = dfs.root();
    for name in path {
        ino = lookup(dfs, ino, name).await.unwrap().ino;
    }
    read(dfs, ino, 0, 100).await
}

#[test]
fn a_sound_filesystem_is_not_changed() {
    on_a_container(|container| async move {
        fill(&container).await;
        assert_eq!(dfs::repair(&container, NOW).await.unwrap(), Repaired::default());
        assert!(findings(&container).await.is_empty());
    });
}

#[test]
fn an_entry_that_is_gone_comes_back_by_the_name_that_its_object_knows() {
    mends(
        "has lost its entry; it is \"f\"",
        |some| vec![punch(directory_oid(some.d), "f")],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data");
            let d = lookup(&dfs, dfs.root(), "d").await.unwrap().ino;
            let attr = lookup(&dfs, d, "f").await.unwrap();
            assert_eq!(
                (attr.mode & 0o7777, attr.uid, attr.size),
                (0o600, 0, 4),
                "open to nobody else"
            );
        },
    );
}

#[test]
fn an_object_that_has_lost_its_name_is_in_lost_and_found() {
    let damage = |some: &Some6| {
        vec![punch(directory_oid(some.d), "f"), punch(file_oid(some.f), Dkey::from_u64(0))]
    };
    mends("it is in /lost+found", damage, |dfs, repaired| async move {
        assert_eq!(repaired.lost_and_found, 1);
        let lost = lookup(&dfs, dfs.root(), "lost+found").await.unwrap();
        assert_eq!((lost.mode & 0o7777, lost.uid), (0o700, 0));
        let found = names(&dfs, lost.ino).await;
        assert!(found.len() == 1 && found[0].starts_with('#'), "{found:?}");
        assert_eq!(&contents(&dfs, &["lost+found", &found[0]]).await[..], b"data");
    });
}

#[test]
fn a_whole_directory_that_is_lost_keeps_what_was_in_it() {
    let damage = |some: &Some6| {
        vec![
            punch(directory_oid(Ino(some.d.0 & !0xffff_ffff_ffff | 1)), "d"),
            punch(directory_oid(some.d), "."),
        ]
    };
    mends("it is in /lost+found", damage, |dfs, _| async move {
        let lost = lookup(&dfs, dfs.root(), "lost+found").await.unwrap().ino;
        let found = names(&dfs, lost).await;
        assert_eq!(&contents(&dfs, &["lost+found", &found[0], "f"]).await[..], b"data");
        let d = lookup(&dfs, lost, &found[0]).await.unwrap();
        assert_eq!((d.nlink, names(&dfs, d.ino).await.len()), (3, 3));
    });
}

#[test]
fn back_pointers_and_counts_are_rebuilt() {
    mends(
        "knows its names again",
        |some| vec![punch(file_oid(some.f), Dkey::from_u64(0))],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data");
        },
    );
    let count =
        |some: &Some6| vec![Op::Add { key: key(directory_oid(some.d), ".", "s"), delta: 5 }];
    mends("has 1 subdirectories, its count was 6", count, |_, _| async {});
    let gone = |some: &Some6| vec![punch(directory_oid(some.d), ".")];
    mends("has 1 subdirectories", gone, |dfs, _| async move {
        let d = lookup(&dfs, dfs.root(), "d").await.unwrap();
        assert_eq!(d.nlink, 3);
        directory(&dfs, d.ino, "new").await;
    });
}

#[test]
fn link_counts_follow_the_names() {
    mends(
        "has 1 names, its link count was 2",
        |some| vec![punch(directory_oid(Ino(some.d.0 & !0xffff_ffff_ffff | 1)), "m")],
        |dfs, _| async move {
            let d = lookup(&dfs, dfs.root(), "d").await.unwrap().ino;
            assert_eq!(lookup(&dfs, d, "l").await.unwrap().nlink, 1);
        },
    );
}

#[test]
fn references_without_a_record_get_one() {
    mends(
        "its record in the inode table was rebuilt",
        |some| vec![punch(table_oid(), Dkey::from_u64(some.linked.0))],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["m"]).await[..], b"linked");
            assert_eq!(&contents(&dfs, &["d", "l"]).await[..], b"linked");
            assert_eq!(lookup(&dfs, dfs.root(), "m").await.unwrap().nlink, 2);
        },
    );
}

#[test]
fn references_to_nothing_are_removed() {
    let damage = |some: &Some6| {
        vec![
            punch(table_oid(), Dkey::from_u64(some.linked.0)),
            Op::PunchObject { object: file_oid(some.linked) },
        ]
    };
    mends("nothing is left of inode", damage, |dfs, _| async move {
        assert_eq!(names(&dfs, dfs.root()).await, ["d", "empty", "s"]);
    });
}

fn rot(object: ObjectId, dkey: impl Into<Dkey>, offset: u64, bytes: &'static [u8]) -> Op {
    Op::UpdateArray { key: key(object, dkey, "DFS_INODE"), offset, data: Bytes::from_static(bytes) }
}

#[test]
fn a_record_with_a_flipped_bit_is_put_right() {
    // The lowest byte of mode 0644 is 0xa4.
    mends(
        "a flipped bit was put right",
        |some| vec![rot(directory_oid(some.d), "f", 0, &[0xa5])],
        |dfs, _| async move {
            let d = lookup(&dfs, dfs.root(), "d").await.unwrap().ino;
            let attr = lookup(&dfs, d, "f").await.unwrap();
            assert_eq!((attr.mode & 0o7777, attr.uid), (0o644, USER.uid));
        },
    );
}

#[test]
fn a_record_that_is_lost_is_rebuilt_from_its_object() {
    mends(
        "rebuilt from its object, with default mode and owner",
        |some| vec![rot(directory_oid(some.d), "f", 60, &[9; 40])],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data");
        },
    );
    let root = |some: &Some6| directory_oid(Ino(some.d.0 & !0xffff_ffff_ffff | 1));
    mends(
        "rebuilt from its object",
        move |some| vec![rot(root(some), "d", 60, &[9; 40])],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data");
        },
    );
    mends(
        "rebuilt from its object",
        move |some| vec![rot(root(some), "s", 60, &[9; 40])],
        |dfs, _| async move {
            let s = lookup(&dfs, dfs.root(), "s").await.unwrap().ino;
            assert_eq!(&dfs.readlink(s).await.unwrap()[..], b"d/f");
        },
    );
    mends(
        "its reference was rebuilt",
        |some| vec![rot(directory_oid(some.d), "l", 60, &[9; 40])],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "l"]).await[..], b"linked");
        },
    );
}

#[test]
fn an_inode_with_two_entries_keeps_the_one_that_it_knows() {
    on_a_container(|container| async move {
        let some = fill(&container).await;
        let dfs = mount(&container).await;
        let record = container
            .fetch_array(key(directory_oid(some.d), "f", "DFS_INODE"), 0, 152)
            .await
            .unwrap();
        let second = key(directory_oid(dfs.root()), "copy", "DFS_INODE");
        change(&container, vec![Op::UpdateArray { key: second, offset: 0, data: record }]).await;
        let repaired = dfs::repair(&container, NOW).await.unwrap();
        assert!(repaired.mended[0].contains("had two entries"), "{repaired:?}");
        assert!(findings(&container).await.is_empty());
        assert_eq!(names(&*mount(&container).await, dfs.root()).await, ["d", "empty", "m", "s"]);
    });
}

#[test]
fn directories_in_a_loop_are_cut_out_of_it() {
    on_a_container(|container| async move {
        let some = fill(&container).await;
        let root = mount(&container).await.root();
        let record = key(directory_oid(root), "d", "DFS_INODE");
        let record = container.fetch_array(record, 0, 152).await.unwrap();
        // /d/e/d is /d, and / has no d.
        let entry = key(directory_oid(some.e), "d", "DFS_INODE");
        let ops = vec![
            Op::UpdateArray { key: entry, offset: 0, data: record },
            punch(directory_oid(root), "d"),
        ];
        change(&container, ops).await;
        let repaired = dfs::repair(&container, NOW).await.unwrap();
        assert!(repaired.mended.iter().any(|what| what.contains("in a loop")), "{repaired:?}");
        assert_eq!(findings(&container).await, Vec::<String>::new(), "{repaired:#?}");
        assert_eq!(dfs::repair(&container, NOW + 1).await.unwrap(), Repaired::default());
        let _ = some.s;
    });
}

#[test]
fn counters_and_the_superblock_come_back() {
    mends(
        "the next inode number is",
        |_| vec![punch(superblock_oid(), "DFS_COUNTERS")],
        |dfs, _| async move {
            let new = file_with(&dfs, dfs.root(), "new", b"new").await;
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data", "{new} is nobody else");
        },
    );
    mends(
        "the superblock was lost",
        |_| vec![punch(superblock_oid(), "DFS_SB_METADATA")],
        |dfs, _| async move {
            assert_eq!(&contents(&dfs, &["d", "f"]).await[..], b"data");
        },
    );
    mends(
        "the root directory's record was lost",
        |_| vec![rot(superblock_oid(), "/", 60, &[9; 40])],
        |dfs, _| async move {
            assert_eq!(dfs.getattr(dfs.root()).await.unwrap().mode & 0o7777, 0o755);
        },
    );
}

#[test]
fn orphans_that_cannot_be_read_are_removed_and_others_wait() {
    let orphans = ObjectId::new(ObjectType::MultiHashed, ObjectClass::S1, 3, 0);
    let nonsense = Op::UpdateSingle { key: key(orphans, "nonsense", "x"), value: Bytes::new() };
    mends(
        "orphan with a strange number: its record is removed",
        move |_| vec![nonsense.clone()],
        |_, _| async {},
    );
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let (ino, _handle) = file(&dfs, dfs.root(), "open").await;
        write(&dfs, ino, 0, b"x").await;
        dfs.unlink(dfs.root(), b"open").await.unwrap();
        // Killed.
        assert_eq!(dfs::repair(&container, NOW).await.unwrap(), Repaired::default());
        assert!(names(&*mount(&container).await, dfs.root()).await.is_empty());
    });
}
