//! An object: the handle for changing and reading one at a time. Changes of several objects are a [`Transaction`].

use bytes::Bytes;
use daos_types::rpc::{ExtentInfo, KeyRef, Listed, ObjectInfo, Op};
use daos_types::{Akey, Dkey, Epoch, ObjectId, Result};

use crate::container::{Container, Page};
use crate::transaction::Transaction;

/// An object of a container. Having a handle does not mean that the object has a record.
#[derive(Clone, Debug)]
pub struct Object {
    container: Container,
    id: ObjectId,
}

impl Object {
    pub(crate) fn new(container: Container, id: ObjectId) -> Self {
        Self { container, id }
    }

    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.id
    }

    #[must_use]
    pub fn key(&self, dkey: impl Into<Dkey>, akey: impl Into<Akey>) -> KeyRef {
        KeyRef::new(self.id, dkey, akey)
    }

    pub fn transaction(&self) -> Transaction {
        self.container.transaction()
    }

    pub async fn update_single(
        &self,
        dkey: impl Into<Dkey>,
        akey: impl Into<Akey>,
        value: impl Into<Bytes>,
    ) -> Result<Epoch> {
        let key = self.key(dkey, akey);
        self.change(Op::UpdateSingle { key, value: value.into() }).await
    }

    pub async fn update_array(
        &self,
        dkey: impl Into<Dkey>,
        akey: impl Into<Akey>,
        offset: u64,
        data: impl Into<Bytes>,
    ) -> Result<Epoch> {
        let key = self.key(dkey, akey);
        self.change(Op::UpdateArray { key, offset, data: data.into() }).await
    }

    pub async fn punch_dkey(&self, dkey: impl Into<Dkey>) -> Result<Epoch> {
        self.change(Op::PunchDkey { object: self.id, dkey: dkey.into() }).await
    }

    pub async fn punch_akey(&self, dkey: impl Into<Dkey>, akey: impl Into<Akey>) -> Result<Epoch> {
        self.change(Op::PunchAkey(self.key(dkey, akey))).await
    }

    /// The object and its record go.
    pub async fn punch(&self) -> Result<Epoch> {
        self.change(Op::PunchObject { object: self.id }).await
    }

    async fn change(&self, op: Op) -> Result<Epoch> {
        let mut transaction = self.transaction();
        transaction.push(op);
        transaction.commit().await
    }

    pub async fn fetch_single(
        &self,
        dkey: impl Into<Dkey>,
        akey: impl Into<Akey>,
    ) -> Result<Option<Bytes>> {
        self.container.fetch_single(self.key(dkey, akey)).await
    }

    pub async fn fetch_array(
        &self,
        dkey: impl Into<Dkey>,
        akey: impl Into<Akey>,
        offset: u64,
        len: u64,
    ) -> Result<Bytes> {
        self.container.fetch_array(self.key(dkey, akey), offset, len).await
    }

    pub async fn query(&self, akey: impl Into<Akey>) -> Result<Option<ObjectInfo>> {
        self.container.fetch_object(self.id, akey.into()).await
    }

    pub async fn list_dkeys(&self, akeys: Vec<Akey>, page: Page) -> Result<Listed> {
        self.container.list_dkeys(self.id, akeys, 0, page).await
    }

    pub async fn extents(
        &self,
        akey: impl Into<Akey>,
        from: (u64, u64),
        extents_max: u32,
    ) -> Result<Vec<ExtentInfo>> {
        self.container.extents(self.id, akey.into(), from, extents_max).await
    }
}
