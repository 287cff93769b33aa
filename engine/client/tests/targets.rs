//! The handles against model targets: does what holds with one target hold with several?

use bytes::Bytes;
use daos_client::{Client, Container, Page};
use daos_model::spawn_model;
use daos_types::rpc::{Condition, Cursor, KeyRef};
use daos_types::{Dkey, Epoch, Error, Noun, ObjectClass, ObjectId, ObjectType};
use futures_lite::future::block_on;

fn client(targets: usize) -> Client {
    Client::new((0..targets).map(|_| spawn_model()).collect())
}

async fn home(targets: usize) -> Container {
    let pool = client(targets).pool_or_create("default").await.unwrap();
    pool.container_or_create("home").await.unwrap()
}

fn directory(lo: u64) -> ObjectId {
    ObjectId::new(ObjectType::MultiHashed, ObjectClass::SX, 0, lo)
}

fn file(lo: u64) -> ObjectId {
    ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 0, lo)
}

#[test]
fn pools_and_containers_go_by_label_and_by_uuid() {
    for targets in [1, 3] {
        block_on(async {
            let client = client(targets);
            assert_eq!(client.pool("default").await.err(), Some(Error::NonExistent(Noun::Pool)));
            let pool = client.pool_create("default").await.unwrap();
            assert_eq!(client.pool_create("default").await.err(), Some(Error::Exists(Noun::Pool)));
            assert_eq!(client.pool(&pool.id().0.to_string()).await.unwrap().label(), "default");
            let home = pool.container_create("home").await.unwrap();
            let other = pool.container_create("other").await.unwrap();
            assert_ne!(home.id(), other.id());
            let uuid = home.info().uuid.to_string();
            assert_eq!(pool.container(&uuid).await.unwrap().id(), home.id());
            assert_eq!(pool.containers().await.unwrap().len(), 2);
            pool.container_destroy("home").await.unwrap();
            let gone = Some(Error::NonExistent(Noun::Container));
            assert_eq!(pool.container(&uuid).await.err(), gone);
            assert_eq!(pool.container_destroy("home").await.err(), gone);
            assert!(matches!(pool.container_create("a/b").await.err(), Some(Error::Invalid(_))));
        });
    }
}

#[test]
fn listing_over_several_targets_sees_every_dkey_once_in_order() {
    for targets in [1, 2, 5] {
        block_on(async {
            let home = home(targets).await;
            let object = home.object(directory(1));
            for name in 0..200u32 {
                let dkey = Dkey::from(format!("name{name}").into_bytes());
                object.update_single(dkey, "a", "v").await.unwrap();
            }
            let (mut seen, mut after) = (Vec::new(), Cursor::Start);
            loop {
                let page = Page { after: after.clone(), entries_max: 7, bytes_max: 1000 };
                let listed = object.list_dkeys(vec![], page).await.unwrap();
                assert!(listed.dkeys.iter().all(|entry| entry.cursor > after));
                assert!(listed.dkeys.is_sorted_by_key(|entry| entry.cursor.clone()));
                seen.extend(listed.dkeys.iter().map(|entry| entry.dkey.clone()));
                if listed.end {
                    break;
                }
                after = listed.dkeys.last().unwrap().cursor.clone();
            }
            assert_eq!(seen.len(), 200);
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 200);
        });
    }
}

#[test]
fn file_over_several_targets_reads_back_and_knows_its_end() {
    for targets in [1, 2, 5] {
        block_on(async {
            let home = home(targets).await;
            let object = home.object(file(1));
            for chunk in 1..=20u64 {
                let data = vec![chunk as u8; 10];
                object.update_array(Dkey::from_u64(chunk), "0", 5, data).await.unwrap();
            }
            let info = object.query("0").await.unwrap().unwrap();
            assert_eq!((info.array_end, info.stored_bytes), ((20, 15), 200));
            let parts = (1..=20).map(|chunk| daos_types::rpc::FetchPart::Array {
                key: KeyRef::new(object.id(), Dkey::from_u64(chunk), "0"),
                offset: 5,
                len: 1,
            });
            let fetched = home.fetch(parts.collect()).await.unwrap();
            for (index, part) in fetched.into_iter().enumerate() {
                let byte = Bytes::from(vec![index as u8 + 1]);
                assert_eq!(part, daos_types::rpc::Fetched::Array(byte));
            }
            let mut from = (0, 0);
            let mut seen = Vec::new();
            while let Some(extent) = {
                let found = object.extents("0", from, 3).await.unwrap();
                seen.extend(found.iter().map(|extent| extent.dkey));
                found.last().copied()
            } {
                from = (extent.dkey, extent.offset + extent.len);
            }
            assert_eq!(seen, (1..=20).collect::<Vec<_>>());
        });
    }
}

#[test]
fn transaction_over_several_targets_is_refused_by_name() {
    block_on(async {
        let home = home(2).await;
        let on = |index| {
            (0..).map(directory).find(|oid| home.target_of(*oid, &"d".into()).0 == index).unwrap()
        };
        let (a, b) = (on(0), on(1));
        let mut transaction = home.transaction();
        transaction.update_single(KeyRef::new(a, "d", "a"), "1");
        transaction.update_single(KeyRef::new(b, "d", "a"), "1");
        assert_eq!(transaction.commit().await, Err(Error::SeveralTargets));
        assert_eq!(home.fetch_single(KeyRef::new(a, "d", "a")).await, Ok(None));
        let mut transaction = home.transaction();
        transaction.require(Condition::DkeyAbsent { object: b, dkey: "d".into() });
        transaction.update_single(KeyRef::new(b, "d", "a"), "1");
        transaction.commit().await.unwrap();
    });
}

#[test]
fn snapshot_handle_reads_the_past_and_changes_nothing() {
    block_on(async {
        let home = home(1).await;
        let key = KeyRef::new(directory(1), "d", "a");
        home.object(directory(1)).update_single("d", "a", "old").await.unwrap();
        let snapshot = home.snapshot_create(Some("before".into())).await.unwrap();
        home.object(directory(1)).update_single("d", "a", "new").await.unwrap();
        let past = home.at(snapshot.epoch);
        assert_eq!(past.fetch_single(key.clone()).await.unwrap().unwrap(), "old");
        assert_eq!(home.fetch_single(key.clone()).await.unwrap().unwrap(), "new");
        let mut transaction = past.transaction();
        transaction.update_single(key, "x");
        assert_eq!(transaction.commit().await, Err(Error::ReadOnly));
        assert_eq!(home.at(Epoch(1)).query().await.unwrap().snapshots, 1);
        home.snapshot_destroy(snapshot.epoch).await.unwrap();
        assert!(home.snapshots().await.unwrap().is_empty());
    });
}

#[test]
fn futures_may_move_between_threads() {
    fn send<T: Send>(_: T) {}
    let client = client(1);
    send(client.pool_or_create("default"));
    block_on(async {
        let home = home(1).await;
        send(home.transaction().commit());
        send(home.fetch(vec![]));
        send(home.list_objects(Page { after: Cursor::Start, entries_max: 1, bytes_max: 1 }));
    });
}
