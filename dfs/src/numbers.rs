//! Inode numbers, from blocks leased by one transaction each. What a crash leaves of a block is never used.
//!
//! # Invariants
//! 1. A number is given out at most once in the life of a container.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use daos_client::Container;
use daos_types::rpc::Condition;

use crate::change::{Change, TRIES_MAX};
use crate::lock::{How, Lock};
use crate::superblock::Superblock;
use crate::{Error, Ino, Result, keys};

/// Numbers in one lease.
const LEASE_COUNT: u64 = 4096;
/// The counter is 48 bits wide.
const COUNTER_MAX: u64 = (1 << 48) - 1;

pub(crate) struct Numbers {
    container: Container,
    left: Mutex<Range<u64>>,
    leasing: Lock,
}

impl Numbers {
    pub(crate) fn new(container: Container) -> Self {
        Self { container, left: Mutex::new(0..0), leasing: Lock::default() }
    }

    fn left(&self) -> MutexGuard<'_, Range<u64>> {
        self.left.lock().expect("no code panics while it holds this mutex")
    }

    pub(crate) async fn next(&self) -> Result<Ino> {
        if let Some(counter) = self.left().next() {
            return Ok(self.ino(counter));
        }
        self.leasing.acquire(How::Exclusive).await;
        let leased = Held(&self.leasing);
        let mut next = self.left().next();
        while next.is_none() {
            let block = self.lease().await?;
            let mut left = self.left();
            *left = block;
            next = left.next();
        }
        drop(leased);
        Ok(self.ino(next.expect("the loop ends with a number")))
    }

    fn ino(&self, counter: u64) -> Ino {
        Ino::new(self.container.id(), counter)
    }

    async fn lease(&self) -> Result<Range<u64>> {
        let key = Superblock::counters().key(keys::NEXT_INO);
        for _ in 0..TRIES_MAX {
            let Some(old) = self.container.fetch_single(key.clone()).await? else {
                return Err(damaged("is missing"));
            };
            let start = old.as_ref().try_into().map_err(|_| damaged("has another length"))?;
            let start = u64::from_le_bytes(start);
            let end = start + LEASE_COUNT;
            if end > COUNTER_MAX {
                return Err(Error::Engine(daos_types::Error::NoSpace));
            }
            let mut change = Change::new();
            change.expect(Condition::Equals { key: key.clone(), offset: 0, bytes: old });
            change.put_single(key.clone(), Bytes::copy_from_slice(&end.to_le_bytes()));
            if change.commit(&self.container).await?.is_some() {
                return Ok(start..end);
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }
}

struct Held<'a>(&'a Lock);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release(How::Exclusive);
    }
}

fn damaged(why: &'static str) -> Error {
    Error::Damaged { what: "counter of inode numbers", whose: "the superblock".into(), why }
}
