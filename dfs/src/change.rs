//! A change of the namespace while it is put together: what it read and must still hold, and what then changes.
//!
//! Every condition says what its failure means: read again, or an answer to the user.

use std::sync::Arc;

use bytes::Bytes;
use daos_client::Container;
use daos_types::rpc::{Condition, KeyRef, OPS_MAX, Op};
use daos_types::{Akey, Dkey, Epoch, ObjectId};

use crate::keys;
use crate::lock::How;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::{Home, Loaded};
use crate::{Error, Ino, Kind, Result, Time};

/// How often a call reads again and tries again before it answers [`Error::Contended`].
pub(crate) const TRIES_MAX: u32 = 64;

/// Where a record is stored: the object and dkey under which `DFS_INODE` and its neighbours are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) object: ObjectId,
    pub(crate) dkey: Dkey,
}

impl Place {
    pub(crate) fn entry(parent: Ino, name: &[u8]) -> Self {
        Self { object: keys::directory_oid(parent), dkey: Dkey::from(name) }
    }

    pub(crate) fn table(ino: Ino) -> Self {
        Self { object: keys::TABLE_OID, dkey: Dkey::from_u64(ino.0) }
    }

    pub(crate) fn orphan(lease: u64, ino: Ino) -> Self {
        Self { object: keys::ORPHANS_OID, dkey: keys::orphan_dkey(lease, ino) }
    }

    pub(crate) fn root() -> Self {
        Self { object: keys::SUPERBLOCK_OID, dkey: Dkey::from(keys::ROOT) }
    }

    /// `None`: the inode is gone, nothing is stored.
    pub(crate) fn of(home: &Home, ino: Ino, lease: u64) -> Option<Self> {
        Some(match home {
            Home::Root => Self::root(),
            Home::Entry { parent, name } => Self::entry(*parent, name),
            Home::Table | Home::TableOrphan => Self::table(ino),
            Home::Orphan => Self::orphan(lease, ino),
            Home::Gone => return None,
        })
    }

    pub(crate) fn key(&self, akey: impl Into<Akey>) -> KeyRef {
        KeyRef { object: self.object, dkey: self.dkey.clone(), akey: akey.into() }
    }
}

/// What it means when a condition does not hold.
#[derive(Clone, Debug)]
enum Else {
    ReadAgain,
    Answer(Error),
}

/// Conditions and ops of one transaction.
#[derive(Default)]
pub(crate) struct Change {
    conditions: Vec<Condition>,
    otherwise: Vec<Else>,
    ops: Vec<Op>,
}

impl Change {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn require(&mut self, condition: Condition, otherwise: Else) {
        self.conditions.push(condition);
        self.otherwise.push(otherwise);
    }

    /// If `condition` does not hold, what was read is old.
    pub(crate) fn expect(&mut self, condition: Condition) {
        self.require(condition, Else::ReadAgain);
    }

    /// If `condition` does not hold, `error` is the answer.
    pub(crate) fn demand(&mut self, condition: Condition, error: Error) {
        self.require(condition, Else::Answer(error));
    }

    /// The record at `place` is still the one that was read.
    pub(crate) fn expect_record(&mut self, place: &Place, read: &Record) {
        let (offset, bytes) = Record::proof(&read.encode());
        self.expect(Condition::Equals { key: place.key(keys::INODE), offset, bytes });
    }

    /// The directory exists: entries may be made in it.
    pub(crate) fn demand_directory(&mut self, ino: Ino) {
        let object = keys::directory_oid(ino);
        let exists = Condition::DkeyExists { object, dkey: keys::self_dkey(object) };
        self.demand(exists, Error::NoEntry);
    }

    pub(crate) fn demand_no_entry(&mut self, parent: Ino, name: &[u8]) {
        let place = Place::entry(parent, name);
        let absent = Condition::DkeyAbsent { object: place.object, dkey: place.dkey };
        self.demand(absent, Error::Exists);
    }

    pub(crate) fn demand_empty(&mut self, directory: Ino) {
        let object = keys::directory_oid(directory);
        let except = vec![keys::self_dkey(object)];
        self.demand(Condition::Empty { object, except }, Error::NotEmpty);
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub(crate) fn put_record(&mut self, place: &Place, record: &Record) {
        let key = place.key(keys::INODE);
        self.push(Op::UpdateArray { key, offset: 0, data: record.encode() });
    }

    pub(crate) fn put_single(&mut self, key: KeyRef, value: Bytes) {
        self.push(Op::UpdateSingle { key, value });
    }

    /// Singles (symlink target, xattrs) that go along with a record.
    pub(crate) fn put_extras(&mut self, place: &Place, extras: &[(Akey, Bytes)]) {
        for (akey, value) in extras {
            self.put_single(place.key(akey.clone()), value.clone());
        }
    }

    pub(crate) fn punch(&mut self, place: &Place) {
        self.push(Op::PunchDkey { object: place.object, dkey: place.dkey.clone() });
    }

    /// Says in the inode's own object something about its names; the value of such an akey is empty.
    pub(crate) fn put_pointer(&mut self, oid: ObjectId, akey: Akey) {
        self.put_single(keys::self_key(oid, akey), Bytes::new());
    }

    pub(crate) fn punch_pointer(&mut self, oid: ObjectId, akey: Akey) {
        self.push(Op::PunchAkey(keys::self_key(oid, akey)));
    }

    /// Names in `directory` change at `now`.
    pub(crate) fn stamp(&mut self, directory: Ino, now: u64) {
        let key = keys::self_key(keys::directory_oid(directory), keys::STAMP.into());
        self.put_single(key, Bytes::copy_from_slice(&now.to_le_bytes()));
    }

    /// `directory` has `delta` subdirectories more.
    pub(crate) fn count_subdirectories(&mut self, directory: Ino, delta: i64) {
        if delta == 0 {
            return;
        }
        let key = keys::self_key(keys::directory_oid(directory), keys::SUBDIRECTORIES.into());
        self.push(Op::Add { key, delta });
    }

    pub(crate) fn count_if_directory(&mut self, kind: Kind, directory: Ino, delta: i64) {
        if kind == Kind::Directory {
            self.count_subdirectories(directory, delta);
        }
    }

    /// Does it, all or nothing. `None`: what was read is old, nothing changed.
    pub(crate) async fn commit(self, container: &Container) -> Result<Option<Epoch>> {
        Ok(self.commit_and_tell(container).await?.map(|(epoch, _)| epoch))
    }

    /// As `commit`; with the stored bytes of the first operation's object, if they are known now.
    pub(crate) async fn commit_and_tell(
        self,
        container: &Container,
    ) -> Result<Option<(Epoch, Option<u64>)>> {
        assert!(self.conditions.len() <= OPS_MAX && self.ops.len() <= OPS_MAX);
        let mut transaction = container.transaction();
        for condition in self.conditions {
            transaction.require(condition);
        }
        for op in self.ops {
            transaction.push(op);
        }
        match transaction.commit_and_tell().await {
            Ok(done) => Ok(Some(done)),
            Err(daos_types::Error::Condition { index }) => {
                match self.otherwise.get(index as usize) {
                    Some(Else::ReadAgain) => Ok(None),
                    Some(Else::Answer(error)) => Err(error.clone()),
                    None => Err(Error::Protocol { asked: "transaction" }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}
impl Dfs {
    /// Changes the record of an inode to what `what` makes of it, with what that adds to the transaction; again while others change
    /// it. `adds`: name and length of an xattr that may come beside it.
    pub(crate) async fn change_record(
        &self,
        ino: Ino,
        adds: Option<(&[u8], usize)>,
        what: impl Fn(&mut Change, &Place, &mut Record) -> Result<()>,
    ) -> Result<()> {
        let inode = self.inode(ino)?;
        let _turn = inode.turn(How::Exclusive).await;
        for _ in 0..TRIES_MAX {
            let mut old = self.load(&inode).await?;
            if let Some((name, len)) = adds
                && let Some(moved) = self.make_room(&inode, &old, name, len).await?
            {
                old = moved;
            }
            let place = Place::of(&old.home, ino, self.lease).ok_or(Error::Stale)?;
            let mut record = Record {
                version: old.record.version + 1,
                ctime: Time::from_nanos(self.now()),
                ..Record::clone(&old.record)
            };
            let mut change = Change::new();
            change.expect_record(&place, &old.record);
            what(&mut change, &place, &mut record)?;
            if adds.is_some() {
                record.flags |= flag::XATTRS;
            }
            change.put_record(&place, &record);
            if change.commit(&self.container).await?.is_some() {
                inode.learn(Loaded { home: old.home, record: Arc::new(record) });
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }
}
