//! What people say about a container: its properties (label, quota), which are in its record, and attributes, which the
//! store only keeps.

use std::ops::ControlFlow;

use daos_types::rpc::{ATTRIBUTES_MAX, Quota, Reply};
use daos_types::{ContainerId, Error, Noun, PoolId, Result};

use crate::kv::{Kv, KvMut};
use crate::pages::{Abort, Pages, PagesMut};
use crate::roots::Roots;
use crate::store::{Claim, Tx, TxOptions, View};
use crate::vos::Vos;

const ATTRIBUTE: u8 = 2;

fn prefix(id: ContainerId) -> [u8; 3] {
    let [high, low] = id.0.to_be_bytes();
    [high, low, ATTRIBUTE]
}

fn key(id: ContainerId, name: &str) -> Vec<u8> {
    [&prefix(id), name.as_bytes()].concat()
}

impl Roots {
    fn attributes<P: Pages + ?Sized>(
        &self,
        pages: &P,
        id: ContainerId,
    ) -> Result<Vec<(String, String)>, Abort> {
        let prefix = prefix(id);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut found = Vec::new();
        self.containers.view(pages).scan(&prefix, &mut |key, value| {
            let Some(name) = key.strip_prefix(&prefix) else { return ControlFlow::Break(()) };
            found.push((text(name), text(value)));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Of a container that is being destroyed.
    pub fn remove_attributes<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        id: ContainerId,
    ) -> Result<(), Abort> {
        let removed = self.containers.edit(pages).remove_prefix(&prefix(id), ATTRIBUTES_MAX + 1)?;
        assert!(removed.len() <= ATTRIBUTES_MAX, "a container has at most {ATTRIBUTES_MAX}");
        Ok(())
    }

    fn set_props(
        &self,
        tx: &mut Tx<'_>,
        (pool, id): (PoolId, ContainerId),
        label: Option<&str>,
        quota: Option<Quota>,
    ) -> Result<(), Abort> {
        let mut record = self.container_in(tx, pool, id)?;
        if let Some(label) = label {
            let all = self.all_containers(tx)?;
            if all.iter().any(|(i, r)| *i != id && r.pool == pool && r.label == label) {
                return Err(Error::Exists(Noun::Container).into());
            }
            record.label = label.to_owned();
        }
        record.quota = quota.unwrap_or(record.quota);
        self.put_container(tx, id, &record)
    }

    fn set_attributes(
        &self,
        tx: &mut Tx<'_>,
        id: ContainerId,
        attributes: &[(String, Option<String>)],
    ) -> Result<(), Abort> {
        self.container(tx, id)?;
        for (name, value) in attributes {
            match value {
                Some(value) => self.containers.put(tx, &key(id, name), value.as_bytes())?,
                None if self.containers.remove(tx, &key(id, name))? => {}
                None => return Err(Error::NonExistent(Noun::Attribute).into()),
            }
        }
        if self.attributes(tx, id)?.len() > ATTRIBUTES_MAX {
            let max = ATTRIBUTES_MAX as u64;
            return Err(Error::TooLarge { what: "number of attributes", max }.into());
        }
        Ok(())
    }
}

impl Vos {
    pub(crate) async fn container_set_props(
        &self,
        pool: PoolId,
        id: ContainerId,
        label: Option<String>,
        quota: Option<Quota>,
    ) -> Result<Reply> {
        let set = |tx: &mut Tx<'_>| self.roots.set_props(tx, (pool, id), label.as_deref(), quota);
        // A full store is when a quota is most wanted.
        let options = TxOptions { claim: Claim::GiveBack, ..TxOptions::default() };
        let done = self.store.transact(options, set).await?;
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Done)
    }

    pub(crate) async fn container_set_attributes(
        &self,
        id: ContainerId,
        attributes: Vec<(String, Option<String>)>,
    ) -> Result<Reply> {
        let set = |tx: &mut Tx<'_>| self.roots.set_attributes(tx, id, &attributes);
        let done = self.store.transact(TxOptions::default(), set).await?;
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Done)
    }

    pub(crate) async fn container_attributes(&self, id: ContainerId) -> Result<Reply> {
        let list = |pages: &View<'_>| {
            self.roots.container(pages, id)?;
            self.roots.attributes(pages, id)
        };
        let (attributes, lsn) = self.store.view(list).await?;
        self.store.acknowledged(lsn).await?;
        Ok(Reply::Attributes(attributes))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use daos_media::MemDevice;
    use daos_types::rpc::{
        ATTRIBUTE_BYTES_MAX, ContainerInfo, ContainerUsage, Fetch, FetchPart, Fetched, KeyRef, Op,
        Request, Transact,
    };
    use daos_types::{Dkey, Epoch, ObjectClass, ObjectId, ObjectType, StoreId};
    use daos_xstream::{Handle, sim};
    use uuid::Uuid;

    use super::*;
    use crate::container::SNAPSHOTS_MAX;
    use crate::store::{FormatOptions, Store};
    use crate::testing;
    use crate::vos::VosOptions;

    const POOL: PoolId = PoolId(Uuid::from_u128(2));
    const ID: ContainerId = ContainerId(1);

    async fn open(device: &Rc<MemDevice>, handle: &Handle) -> Rc<Vos> {
        let store =
            Store::open(device.clone(), handle.clone(), testing::options(64)).await.unwrap();
        Vos::open(store, handle.clone(), VosOptions::default()).await.unwrap()
    }

    async fn fixture(handle: &Handle) -> (Rc<MemDevice>, Rc<Vos>) {
        let device = MemDevice::new(64 << 20);
        let options = FormatOptions { store: StoreId(Uuid::from_u128(1)), wal_bytes: None };
        Store::format(device.clone(), handle.clone(), options).await.unwrap();
        let vos = open(&device, handle).await;
        vos.handle(Request::PoolCreate { id: POOL, label: "p".into() }).await.unwrap();
        for label in ["a", "b"] {
            let (id, uuid, label) = (ContainerId(0), Uuid::new_v4(), label.into());
            let info = ContainerInfo { id, uuid, label, created: Epoch::ZERO };
            vos.handle(Request::ContainerCreate { pool: POOL, info }).await.unwrap();
        }
        (device, vos)
    }

    async fn usage(vos: &Vos) -> ContainerUsage {
        match vos.handle(Request::ContainerQuery { pool: POOL, id: ID }).await.unwrap() {
            Reply::ContainerUsage(usage) => usage,
            other => panic!("{other:?}"),
        }
    }

    async fn attributes(vos: &Vos) -> Vec<(String, String)> {
        match vos.handle(Request::ContainerAttributes { container: ID }).await.unwrap() {
            Reply::Attributes(attributes) => attributes,
            other => panic!("{other:?}"),
        }
    }

    async fn set(vos: &Vos, attributes: Vec<(String, Option<String>)>) -> Result<Reply> {
        vos.handle(Request::ContainerSetAttributes { container: ID, attributes }).await
    }

    async fn is_sound(vos: &Vos) {
        match vos.handle(Request::Check { repair: false }).await.unwrap() {
            Reply::Checked(report) => assert_eq!(report.findings, Vec::<String>::new()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn properties_outlive_the_process_and_leave_each_other_alone() {
        sim::run(1, |handle| async move {
            let (device, vos) = fixture(&handle).await;
            let change = |label: Option<&str>, quota| Request::ContainerSetProps {
                pool: POOL,
                id: ID,
                label: label.map(str::to_owned),
                quota,
            };
            assert_eq!(usage(&vos).await.quota, Quota::default());
            let quota = Quota { bytes: 10 << 30, inodes: 100_000 };
            vos.handle(change(None, Some(quota))).await.unwrap();
            vos.handle(change(Some("renamed"), None)).await.unwrap();
            let taken = vos.handle(change(Some("b"), Some(Quota::default()))).await;
            assert_eq!(taken.unwrap_err(), Error::Exists(Noun::Container));
            // No clean end: what was answered is in the WAL.
            drop(vos);
            let vos = open(&device, &handle).await;
            let found = usage(&vos).await;
            assert_eq!((found.info.label.as_str(), found.quota), ("renamed", quota));
            vos.handle(change(None, Some(Quota::default()))).await.unwrap();
            assert_eq!(usage(&vos).await.quota, Quota::default());
            is_sound(&vos).await;
        });
    }

    #[test]
    fn growth_past_the_quota_is_refused_and_nothing_else_is() {
        sim::run(1, |handle| async move {
            let (device, vos) = fixture(&handle).await;
            let limit = |bytes, inodes| Request::ContainerSetProps {
                pool: POOL,
                id: ID,
                label: None,
                quota: Some(Quota { bytes, inodes }),
            };
            let object = |n| ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, n);
            let key = |n| KeyRef::new(object(n), Dkey::from_u64(1), "0");
            let transact = |op| {
                Request::Transact(Transact { container: ID, conditions: Vec::new(), ops: vec![op] })
            };
            let write = |n, offset: u64, blocks: usize| {
                let data = vec![n as u8 + 1; blocks * 4096].into();
                transact(Op::UpdateArray { key: key(n), offset: offset * 4096, data })
            };
            vos.handle(limit(100 * 4096, 3)).await.unwrap();
            vos.handle(write(0, 0, 60)).await.unwrap();
            assert_eq!(vos.handle(write(0, 60, 41)).await.unwrap_err(), Error::Quota);
            vos.handle(write(0, 60, 40)).await.unwrap();
            assert_eq!(usage(&vos).await.stored_bytes, 100 * 4096, "to the last byte");
            vos.handle(write(0, 10, 50)).await.unwrap();
            let more = Op::Allocate { key: key(0), offset: 100 * 4096, len: 1 };
            assert_eq!(vos.handle(transact(more)).await.unwrap_err(), Error::Quota);
            // A quota below what is there only keeps it from growing.
            vos.handle(limit(4096, 1)).await.unwrap();
            vos.handle(write(0, 99, 1)).await.unwrap();
            assert_eq!(vos.handle(write(0, 100, 1)).await.unwrap_err(), Error::Quota);
            let cut = Op::PunchRange { key: key(0), offset: 10, len: u64::MAX - 10 };
            vos.handle(transact(cut)).await.unwrap();
            drop(vos);
            let vos = open(&device, &handle).await;
            vos.handle(limit(10 * 4096, 2)).await.unwrap();
            vos.handle(write(1, 0, 1)).await.unwrap();
            assert_eq!(vos.handle(write(2, 0, 1)).await.unwrap_err(), Error::Quota);
            vos.handle(transact(Op::PunchObject { object: object(0) })).await.unwrap();
            vos.handle(write(2, 0, 1)).await.unwrap();
            is_sound(&vos).await;
        });
    }

    #[test]
    fn one_of_many_snapshots_is_read_with_little_memory() {
        sim::run(1, |handle| async move {
            let (device, vos) = fixture(&handle).await;
            vos.stop().await.unwrap();
            drop(vos);
            let store =
                Store::open(device.clone(), handle.clone(), testing::options(32)).await.unwrap();
            let vos = Vos::open(store, handle.clone(), VosOptions::default()).await.unwrap();
            let object = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
            let key = KeyRef::new(object, Dkey::from_u64(1), "0");
            let mut epochs = Vec::new();
            for version in 0..SNAPSHOTS_MAX {
                let data = vec![version as u8; 1000].into();
                let ops = vec![Op::UpdateArray { key: key.clone(), offset: 0, data }];
                let write = Transact { container: ID, conditions: Vec::new(), ops };
                vos.handle(Request::Transact(write)).await.unwrap();
                let name = Some(format!("{version:040}"));
                match vos.handle(Request::SnapshotCreate { container: ID, name }).await.unwrap() {
                    Reply::Snapshot(made) => epochs.push(made.epoch),
                    other => panic!("{other:?}"),
                }
            }
            let more = Request::SnapshotCreate { container: ID, name: None };
            assert!(matches!(vos.handle(more).await, Err(Error::TooLarge { .. })));
            for (version, epoch) in epochs.iter().enumerate().step_by(97) {
                let part = FetchPart::Array { key: key.clone(), offset: 0, len: 4096 };
                let fetch = Fetch { container: ID, epoch: *epoch, parts: vec![part] };
                match vos.handle(Request::Fetch(fetch)).await.unwrap() {
                    Reply::Fetched(found) => {
                        let mut bytes = vec![version as u8; 1000];
                        bytes.resize(4096, 0);
                        assert_eq!(found, [Fetched::Array(bytes.into())]);
                    }
                    other => panic!("{other:?}"),
                }
            }
            is_sound(&vos).await;
            vos.handle(Request::ContainerDestroy { pool: POOL, id: ID }).await.unwrap();
            is_sound(&vos).await;
        });
    }

    #[test]
    fn overwriters_of_a_full_store_wait_for_readers_instead_of_giving_up() {
        sim::run(1, |handle| async move {
            let (_, vos) = fixture(&handle).await;
            let object = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
            let write = |chunk: u64, byte: u8| {
                let key = KeyRef::new(object, Dkey::from_u64(chunk), "0");
                let op = Op::UpdateArray { key, offset: 0, data: vec![byte; 1 << 20].into() };
                Request::Transact(Transact { container: ID, conditions: vec![], ops: vec![op] })
            };
            let mut chunks = 0;
            while vos.handle(write(chunks, 1)).await.is_ok() {
                chunks += 1;
            }
            for round in 2..5 {
                let guard = vos.store().read_guard();
                let reader = handle.clone();
                handle.spawn(async move {
                    reader.sleep(std::time::Duration::from_secs(3)).await;
                    drop(guard);
                });
                for chunk in 0..chunks.min(8) {
                    vos.handle(write(chunk, round)).await.unwrap();
                }
            }
            assert_eq!(vos.handle(write(chunks, 1)).await.unwrap_err(), Error::NoSpace);
            is_sound(&vos).await;
        });
    }

    #[test]
    fn who_waits_for_space_keeps_no_dkey_from_others() {
        sim::run(1, |handle| async move {
            let (_, vos) = fixture(&handle).await;
            let vos = std::rc::Rc::new(vos);
            let object = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
            let key = |chunk: u64| KeyRef::new(object, Dkey::from_u64(chunk), "0");
            let request = |op: Op| {
                Request::Transact(Transact { container: ID, conditions: vec![], ops: vec![op] })
            };
            let write = |chunk: u64, byte: u8| {
                let data = vec![byte; 1 << 20].into();
                request(Op::UpdateArray { key: key(chunk), offset: 0, data })
            };
            let mut chunks = 0;
            while vos.handle(write(chunks, 1)).await.is_ok() {
                chunks += 1;
            }
            let guard = vos.store().read_guard();
            let writers: Vec<_> = (0..chunks.min(8))
                .map(|chunk| {
                    let (vos, write) = (vos.clone(), write(chunk, 2));
                    handle.spawn(async move { vos.handle(write).await })
                })
                .collect();
            handle.sleep(std::time::Duration::from_secs(1)).await;
            let before = handle.monotonic();
            for chunk in 0..chunks.min(8) {
                let there = Op::Allocate { key: key(chunk), offset: 0, len: 1 << 20 };
                vos.handle(request(there)).await.unwrap();
            }
            assert!(handle.monotonic() - before < 1_000_000_000, "they waited for a writer");
            drop(guard);
            for writer in writers {
                writer.await.unwrap();
            }
            is_sound(&vos).await;
        });
    }

    #[test]
    fn attributes_outlive_the_process_and_go_with_their_container() {
        sim::run(1, |handle| async move {
            let (device, vos) = fixture(&handle).await;
            let all: Vec<_> = (0..ATTRIBUTES_MAX)
                .map(|n| (format!("name-{n:02}"), Some("v".repeat(ATTRIBUTE_BYTES_MAX - n))))
                .collect();
            set(&vos, all.clone()).await.unwrap();
            let more = set(&vos, vec![("one.more".into(), Some("x".into()))]).await;
            assert!(matches!(more, Err(Error::TooLarge { .. })), "{more:?}");
            let half = vec![("name-00".into(), None), ("none".into(), None)];
            let refused = set(&vos, half).await;
            assert_eq!(refused.unwrap_err(), Error::NonExistent(Noun::Attribute));
            drop(vos);
            let vos = open(&device, &handle).await;
            let found = attributes(&vos).await;
            let expected: Vec<_> = all.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
            assert_eq!(found, expected, "a change with a mistake in it changes nothing");
            let change = vec![("name-00".into(), None), ("name-01".into(), Some(String::new()))];
            set(&vos, change).await.unwrap();
            let found = attributes(&vos).await;
            assert_eq!(found.len(), ATTRIBUTES_MAX - 1);
            assert_eq!(found[0], ("name-01".into(), String::new()));
            is_sound(&vos).await;
            vos.handle(Request::ContainerDestroy { pool: POOL, id: ID }).await.unwrap();
            is_sound(&vos).await;
        });
    }
}
