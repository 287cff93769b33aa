//! A transaction while it is put together: what must hold, and what then changes, all of it or nothing.

use bytes::Bytes;
use daos_types::rpc::{Condition, KeyRef, Op, Reply, Request, Transact};
use daos_types::{Akey, Dkey, Epoch, Error, ObjectId, Result};

use crate::client::unexpected;
use crate::container::Container;
use crate::route::{Needs, TargetIndex};

/// Conditions are numbered from 0 in the order in which they are added: that is the index in [`Error::Condition`].
#[must_use = "a transaction changes nothing before its commit"]
pub struct Transaction {
    container: Container,
    conditions: Vec<Condition>,
    ops: Vec<Op>,
}

impl Transaction {
    pub(crate) fn new(container: Container) -> Self {
        Self { container, conditions: Vec::new(), ops: Vec::new() }
    }

    /// Adds a condition; its index.
    pub fn require(&mut self, condition: Condition) -> u32 {
        self.conditions.push(condition);
        self.conditions.len() as u32 - 1
    }

    pub fn require_dkey(&mut self, object: ObjectId, dkey: Dkey) -> u32 {
        self.require(Condition::DkeyExists { object, dkey })
    }

    pub fn require_no_dkey(&mut self, object: ObjectId, dkey: Dkey) -> u32 {
        self.require(Condition::DkeyAbsent { object, dkey })
    }

    pub fn require_akey(&mut self, key: KeyRef) -> u32 {
        self.require(Condition::AkeyExists(key))
    }

    pub fn require_no_akey(&mut self, key: KeyRef) -> u32 {
        self.require(Condition::AkeyAbsent(key))
    }

    pub fn require_equal(&mut self, key: KeyRef, offset: u64, bytes: Bytes) -> u32 {
        self.require(Condition::Equals { key, offset, bytes })
    }

    pub fn require_empty(&mut self, object: ObjectId, except: Vec<Dkey>) -> u32 {
        self.require(Condition::Empty { object, except })
    }

    pub fn require_array_end(&mut self, object: ObjectId, akey: Akey, dkey: u64, end: u64) -> u32 {
        self.require(Condition::ArrayEnd { object, akey, dkey, end })
    }

    /// Adds a change, after those added before.
    pub fn push(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }

    pub fn update_single(&mut self, key: KeyRef, value: impl Into<Bytes>) -> &mut Self {
        self.push(Op::UpdateSingle { key, value: value.into() })
    }

    pub fn update_array(&mut self, key: KeyRef, offset: u64, data: impl Into<Bytes>) -> &mut Self {
        self.push(Op::UpdateArray { key, offset, data: data.into() })
    }

    pub fn allocate(&mut self, key: KeyRef, offset: u64, len: u64) -> &mut Self {
        self.push(Op::Allocate { key, offset, len })
    }

    pub fn punch_range(&mut self, key: KeyRef, offset: u64, len: u64) -> &mut Self {
        self.push(Op::PunchRange { key, offset, len })
    }

    pub fn punch_akey(&mut self, key: KeyRef) -> &mut Self {
        self.push(Op::PunchAkey(key))
    }

    pub fn punch_dkey(&mut self, object: ObjectId, dkey: Dkey) -> &mut Self {
        self.push(Op::PunchDkey { object, dkey })
    }

    pub fn punch_dkeys_from(&mut self, object: ObjectId, from: u64) -> &mut Self {
        self.push(Op::PunchDkeysFrom { object, from })
    }

    pub fn punch_object(&mut self, object: ObjectId) -> &mut Self {
        self.push(Op::PunchObject { object })
    }

    pub fn add(&mut self, key: KeyRef, delta: i64) -> &mut Self {
        self.push(Op::Add { key, delta })
    }

    /// Sends it. Ok: all of it holds, at the epoch returned. [`Error::Condition`]: nothing changed. [`Error::Stopped`]:
    /// unknown.
    pub async fn commit(self) -> Result<Epoch> {
        Ok(self.commit_and_tell().await?.0)
    }

    /// As [`Transaction::commit`]; with the stored bytes that the object of the first operation now has, if they are known without
    /// asking.
    pub async fn commit_and_tell(self) -> Result<(Epoch, Option<u64>)> {
        self.container.writable()?;
        let target = self.target()?;
        let Self { container, conditions, ops } = self;
        let request = Transact { container: container.id(), conditions, ops };
        match container.client().call(target, Request::Transact(request)).await? {
            // Of several targets, each knows its part.
            Reply::Transacted { epoch, stored_bytes } => {
                Ok((epoch, stored_bytes.filter(|_| container.client().targets() == 1)))
            }
            other => unexpected(&other),
        }
    }

    /// The one target that it touches; the first if it touches none.
    fn target(&self) -> Result<TargetIndex> {
        let targets = self.container.client().targets();
        if targets == 1 {
            return Ok(TargetIndex(0));
        }
        let conditions = self.conditions.iter().map(Needs::of_condition);
        let needs = conditions.chain(self.ops.iter().map(Needs::of_op));
        let mut touched = needs.flat_map(|needs| needs.targets(targets));
        let first = touched.next().unwrap_or(TargetIndex(0));
        if touched.all(|target| target == first) { Ok(first) } else { Err(Error::SeveralTargets) }
    }
}
