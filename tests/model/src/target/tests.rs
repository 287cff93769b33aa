use bytes::Bytes;
use daos_types::rpc::{
    Condition, Cursor, Extents, Fetch, FetchPart, Fetched, KeyRef, List, ListWhat, Op, Reply,
    Request, Transact, Value,
};
use daos_types::{
    ContainerId, Dkey, Epoch, Error, Noun, ObjectClass, ObjectId, ObjectType, PoolId, Result,
};

use super::ModelTarget;

const HOME: ContainerId = ContainerId(1);

fn target() -> ModelTarget {
    let mut target = ModelTarget::new(1, || 1000);
    let pool = PoolId(uuid::Uuid::from_u128(1));
    target.handle(Request::PoolCreate { id: pool, label: "default".into() }).unwrap();
    let info = daos_types::rpc::ContainerInfo {
        id: ContainerId(0),
        uuid: uuid::Uuid::from_u128(2),
        label: "home".into(),
        created: Epoch::ZERO,
    };
    let created = target.handle(Request::ContainerCreate { pool, info }).unwrap();
    assert!(matches!(created, Reply::Container(info) if info.id == HOME));
    target
}

fn object(kind: ObjectType) -> ObjectId {
    ObjectId::new(kind, ObjectClass::S1, 0, 7)
}

fn file(chunk: u64) -> KeyRef {
    KeyRef { object: object(ObjectType::ArrayByte), dkey: Dkey::from_u64(chunk), akey: "0".into() }
}

fn entry(name: &'static str) -> KeyRef {
    KeyRef { object: object(ObjectType::MultiHashed), dkey: name.into(), akey: "DFS_INODE".into() }
}

fn transact(target: &mut ModelTarget, conditions: Vec<Condition>, ops: Vec<Op>) -> Result<Epoch> {
    let request = Transact { container: HOME, conditions, ops };
    match target.handle(Request::Transact(request))? {
        Reply::Transacted { epoch, .. } => Ok(epoch),
        other => panic!("{other:?}"),
    }
}

fn fetch(target: &mut ModelTarget, epoch: Epoch, part: FetchPart) -> Result<Fetched> {
    let request = Request::Fetch(Fetch { container: HOME, epoch, parts: vec![part] });
    match target.handle(request)? {
        Reply::Fetched(mut parts) => Ok(parts.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn single(key: KeyRef, value: &'static str) -> Op {
    Op::UpdateSingle { key, value: value.into() }
}

fn write(key: KeyRef, offset: u64, data: &'static str) -> Op {
    Op::UpdateArray { key, offset, data: data.into() }
}

fn info(target: &mut ModelTarget, object: ObjectId) -> Option<daos_types::rpc::ObjectInfo> {
    let part = FetchPart::Object { object, akey: "0".into() };
    match fetch(target, Epoch::MAX, part).unwrap() {
        Fetched::Object(info) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn conditions_see_the_state_before_the_first_op() {
    let mut target = target();
    let absent = |name: &'static str| Condition::DkeyAbsent {
        object: object(ObjectType::MultiHashed),
        dkey: name.into(),
    };
    let create = vec![single(entry("a"), "inode")];
    transact(&mut target, vec![absent("a")], create.clone()).unwrap();
    let failed = transact(&mut target, vec![absent("b"), absent("a")], create);
    assert_eq!(failed, Err(Error::Condition { index: 1 }));
    let equals =
        |bytes: &'static str| Condition::Equals { key: entry("a"), offset: 0, bytes: bytes.into() };
    transact(&mut target, vec![equals("ino")], vec![]).unwrap();
    assert!(transact(&mut target, vec![equals("inodes")], vec![]).is_err());
}

#[test]
fn transaction_that_fails_half_way_changes_nothing() {
    let mut target = target();
    transact(&mut target, vec![], vec![write(file(1), 0, "data")]).unwrap();
    let before = info(&mut target, file(1).object);
    let ops = vec![
        Op::PunchObject { object: file(1).object },
        single(entry("a"), "x"),
        write(entry("a"), 0, "array over single"),
    ];
    assert!(matches!(transact(&mut target, vec![], ops), Err(Error::Invalid(_))));
    assert_eq!(info(&mut target, file(1).object), before);
    assert_eq!(info(&mut target, entry("a").object), None);
    let part = FetchPart::Array { key: file(1), offset: 0, len: 5 };
    let read = fetch(&mut target, Epoch::MAX, part).unwrap();
    assert_eq!(read, Fetched::Array(Bytes::from_static(b"data\0")));
}

#[test]
fn snapshot_answers_what_was_there_when_it_was_made() {
    let mut target = target();
    transact(&mut target, vec![], vec![single(entry("a"), "old")]).unwrap();
    let request = Request::SnapshotCreate { container: HOME, name: None };
    let Reply::Snapshot(snapshot) = target.handle(request).unwrap() else { panic!() };
    transact(&mut target, vec![], vec![single(entry("a"), "new")]).unwrap();
    let mut read = |epoch| fetch(&mut target, epoch, FetchPart::Single(entry("a")));
    assert_eq!(read(snapshot.epoch), Ok(Fetched::Single(Some("old".into()))));
    assert_eq!(read(Epoch::MAX), Ok(Fetched::Single(Some("new".into()))));
    assert_eq!(read(Epoch(5)), Err(Error::NonExistent(Noun::Snapshot)));
}

#[test]
fn data_epoch_and_end_follow_array_changes_only() {
    let mut target = target();
    let object = file(1).object;
    let allocate = Op::Allocate { key: file(9), offset: 0, len: 4096 };
    transact(&mut target, vec![], vec![allocate]).unwrap();
    let allocated = info(&mut target, object).unwrap();
    assert_eq!((allocated.data_epoch, allocated.array_end), (Epoch::ZERO, (0, 0)));
    let written = transact(&mut target, vec![], vec![write(file(3), 10, "abc")]).unwrap();
    let now = info(&mut target, object).unwrap();
    assert_eq!((now.data_epoch, now.array_end), (written, (3, 13)));
    let end = Condition::ArrayEnd { object, akey: "0".into(), dkey: 3, end: 13 };
    let punched = Op::PunchDkeysFrom { object, from: 3 };
    let punched = transact(&mut target, vec![end.clone()], vec![punched]).unwrap();
    let now = info(&mut target, object).unwrap();
    assert_eq!((now.data_epoch, now.array_end, now.stored_bytes), (punched, (0, 0), 0));
    assert!(transact(&mut target, vec![end], vec![]).is_err());
}

#[test]
fn listing_in_small_steps_sees_every_dkey_once() {
    let mut target = target();
    let names: Vec<String> = (0..100).map(|n| format!("name{n}")).collect();
    for name in &names {
        let key = KeyRef { dkey: name.clone().into_bytes().into(), ..entry("x") };
        transact(&mut target, vec![], vec![single(key, "i")]).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), Cursor::Start);
    loop {
        let what = ListWhat::Dkeys {
            object: entry("x").object,
            akeys: vec!["DFS_INODE".into()],
            array_bytes_max: 0,
        };
        let list = List {
            container: HOME,
            epoch: Epoch::MAX,
            what,
            after,
            entries_max: 7,
            bytes_max: 1000,
        };
        let Reply::Listed(listed) = target.handle(Request::List(list)).unwrap() else { panic!() };
        for entry in &listed.dkeys {
            assert_eq!(entry.values, vec![("DFS_INODE".into(), Value::Single("i".into()))]);
            assert!(matches!(entry.cursor, Cursor::Number(3..=0x7fff_ffff_ffff_ffff)));
            seen.push(String::from_utf8(entry.dkey.as_bytes().to_vec()).unwrap());
        }
        if listed.end {
            break;
        }
        after = listed.dkeys.last().unwrap().cursor.clone();
    }
    seen.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn extents_tell_written_allocated_and_holes_apart() {
    let mut target = target();
    let ops = vec![
        write(file(1), 0, "ab"),
        write(file(1), 2, "cd"),
        Op::Allocate { key: file(1), offset: 0, len: 10 },
        write(file(2), 5, "x"),
    ];
    transact(&mut target, vec![], ops).unwrap();
    let asked = Extents {
        container: HOME,
        epoch: Epoch::MAX,
        object: file(1).object,
        akey: "0".into(),
        dkey: 1,
        offset: 1,
        extents_max: 10,
    };
    let Reply::Extents(found) = target.handle(Request::Extents(asked)).unwrap() else { panic!() };
    let found: Vec<_> = found
        .iter()
        .map(|extent| (extent.dkey, extent.offset, extent.len, extent.written))
        .collect();
    assert_eq!(found, [(1, 1, 3, true), (1, 4, 6, false), (2, 5, 1, true)]);
}

#[test]
fn add_counts_from_zero_and_never_wraps() {
    let mut target = target();
    let add = |delta| Op::Add { key: entry("n"), delta };
    transact(&mut target, vec![], vec![add(-3), add(5)]).unwrap();
    let read = fetch(&mut target, Epoch::MAX, FetchPart::Single(entry("n"))).unwrap();
    assert_eq!(read, Fetched::Single(Some(Bytes::copy_from_slice(&2i64.to_le_bytes()))));
    assert!(matches!(transact(&mut target, vec![], vec![add(i64::MAX)]), Err(Error::Invalid(_))));
}

#[test]
fn objects_stay_until_they_are_punched() {
    let mut target = target();
    transact(&mut target, vec![], vec![single(entry("a"), "x")]).unwrap();
    transact(&mut target, vec![], vec![Op::PunchAkey(entry("a"))]).unwrap();
    let object = entry("a").object;
    assert!(info(&mut target, object).is_some());
    let empty = Condition::Empty { object, except: vec![] };
    transact(&mut target, vec![empty], vec![Op::PunchObject { object }]).unwrap();
    assert_eq!(info(&mut target, object), None);
}
