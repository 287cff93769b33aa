//! Pools: a name for containers that share a store.
//!
//! # On disk
//! The pool table: uuid (16) -> label. FORMAT.md, "Pool table".

use std::ops::ControlFlow;

use daos_types::rpc::{PoolInfo, Reply};
use daos_types::{Error, Noun, PoolId, Result};
use uuid::Uuid;

use crate::kv::Kv;
use crate::pages::{Abort, Pages};
use crate::roots::Roots;
use crate::store::{Tx, TxOptions, View};
use crate::vos::Vos;

impl Roots {
    /// The pool must be there.
    pub fn pool<P: Pages + ?Sized>(&self, pages: &P, id: PoolId) -> Result<(), Abort> {
        let found = self.pools.value(pages, id.0.as_bytes())?;
        found.map(|_| ()).ok_or_else(|| Error::NonExistent(Noun::Pool).into())
    }

    fn all_pools<P: Pages + ?Sized>(&self, pages: &P) -> Result<Vec<PoolInfo>, Abort> {
        let mut found = Vec::new();
        self.pools.view(pages).scan(&[0], &mut |key, value| {
            let id = PoolId(Uuid::from_slice(key).expect("keys of the pool table are UUIDs"));
            found.push(PoolInfo { id, label: String::from_utf8_lossy(value).into_owned() });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

impl Vos {
    pub(crate) async fn pool_create(&self, id: PoolId, label: &str) -> Result<Reply> {
        let create = |tx: &mut Tx<'_>| {
            let taken = |there: &PoolInfo| there.id == id || there.label == label;
            if self.roots.all_pools(tx)?.iter().any(taken) {
                return Err(Error::Exists(Noun::Pool).into());
            }
            self.roots.pools.put(tx, id.0.as_bytes(), label.as_bytes())
        };
        let done = self.store.transact(TxOptions::default(), create).await?;
        self.store.acknowledged(done.lsn).await?;
        Ok(Reply::Done)
    }

    pub(crate) async fn pool_list(&self) -> Result<Reply> {
        let (pools, lsn) = self.store.view(|pages: &View<'_>| self.roots.all_pools(pages)).await?;
        self.store.acknowledged(lsn).await?;
        Ok(Reply::Pools(pools))
    }
}
