//! What a repair could not save of the past: objects that snapshots made before it may not show any more.
//!
//! A bucket that is cut out of a tree took with it what only the snapshots saw, or what they still saw of the newest view. What is left of
//! such an object would read as if it were all, so its reads at those snapshots are damage instead.
//!
//! # On disk
//! The container table; FORMAT.md, "Container table":
//! ```text
//! number (2, big-endian) 03 first object (16) epoch (8, big-endian) -> last object (16)
//!                                           bucket's byte address (8) checksum expected (4), found (4)
//! ```
//!
//! # Invariants
//! 1. A loss is written in the transaction that takes the reference to the bucket away, or before it. So it is where that bucket
//!    had losses in it: then everything is lost to the snapshots before.
//! 2. A loss of epoch `e` says nothing of snapshots `s >= e`, and goes with the last snapshot before `e`.

use std::ops::{ControlFlow, RangeInclusive};

use daos_types::{ContainerId, Csum, Damage, Epoch, Error, ObjectId, Place, TargetId};

use crate::container::ContainerRecord;
use crate::ground::STRANGE;
use crate::kv::{Kv, KvMut};
use crate::pages::{Abort, Pages, PagesMut};
use crate::roots::Roots;

const LOSS: u8 = 3;
const VALUE_BYTES: usize = 32;
/// Losses of a container that are kept apart; one more, and they are one that covers everything.
const LOSSES_MAX: usize = 64;

/// Objects that are lost to the snapshots before a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub objects: RangeInclusive<ObjectId>,
    pub before: Epoch,
    /// The bucket that they were lost with.
    pub address: u64,
    pub expected: Csum,
    pub found: Csum,
}

/// Begins the keys of a container's losses.
pub(crate) fn prefix(id: ContainerId) -> [u8; 3] {
    let [high, low] = id.0.to_be_bytes();
    [high, low, LOSS]
}

impl Loss {
    fn key(&self, id: ContainerId) -> Vec<u8> {
        let first = self.objects.start().to_bytes();
        [&prefix(id)[..], &first, &self.before.0.to_be_bytes()].concat()
    }

    fn value(&self) -> Vec<u8> {
        let last = self.objects.end().to_bytes();
        let (expected, found) = (self.expected.0.to_le_bytes(), self.found.0.to_le_bytes());
        [&last[..], &self.address.to_le_bytes(), &expected, &found].concat()
    }

    /// Of what follows a container's number and the kind in a key, and the value.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (first, before) = key.split_first_chunk::<16>()?;
        let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
        let (last, rest) = value.split_first_chunk::<16>()?;
        let (address, rest) = rest.split_first_chunk()?;
        let (expected, found) = rest.split_first_chunk()?;
        let sum = |bytes: [u8; 4]| Csum(u32::from_le_bytes(bytes));
        Some(Self {
            objects: ObjectId::from_bytes(*first)..=ObjectId::from_bytes(*last),
            before: Epoch(u64::from_be_bytes(before.try_into().ok()?)),
            address: u64::from_le_bytes(*address),
            expected: sum(*expected),
            found: sum(found.try_into().ok()?),
        })
    }

    fn damage(&self, target: TargetId) -> Error {
        let &Self { address, expected, found, .. } = self;
        Error::Damaged(Box::new(Damage {
            pool: None,
            target,
            place: Place::Bucket,
            address,
            expected,
            found,
        }))
    }

    /// Is any of these objects lost at a snapshot of this epoch?
    fn concerns(&self, objects: &RangeInclusive<ObjectId>, epoch: Epoch) -> bool {
        epoch < self.before
            && self.objects.start() <= objects.end()
            && objects.start() <= self.objects.end()
    }
}

impl Roots {
    fn losses<P: Pages + ?Sized>(&self, pages: &P, id: ContainerId) -> Result<Vec<Loss>, Abort> {
        let prefix = prefix(id);
        let (mut all, mut strange) = (Vec::new(), false);
        self.containers.view(pages).scan(&prefix, &mut |key, value| {
            let Some(key) = key.strip_prefix(&prefix) else { return ControlFlow::Break(()) };
            match Loss::decode(key, value) {
                Some(loss) => all.push(loss),
                None => strange = true,
            }
            ControlFlow::Continue(())
        })?;
        if strange { Err(STRANGE.into()) } else { Ok(all) }
    }

    /// Damage, if any of these objects is lost at a snapshot.
    pub fn check_losses<P: Pages + ?Sized>(
        &self,
        pages: &P,
        target: TargetId,
        (id, epoch): (ContainerId, Epoch),
        objects: &RangeInclusive<ObjectId>,
    ) -> Result<(), Abort> {
        let losses = self.losses(pages, id)?;
        match losses.iter().find(|loss| loss.concerns(objects, epoch)) {
            Some(loss) => Err(loss.damage(target).into()),
            None => Ok(()),
        }
    }

    /// Notes a loss, if a snapshot could see what was lost.
    pub fn add_loss<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        (id, record): (ContainerId, &ContainerRecord),
        loss: &Loss,
    ) -> Result<(), Abort> {
        let mut loss = loss.clone();
        if self.losses(pages, id)?.len() >= LOSSES_MAX {
            self.containers.edit(pages).remove_prefix(&prefix(id), LOSSES_MAX)?;
            loss.objects = all_objects();
        }
        self.put_loss(pages, (id, record), &loss)
    }

    /// As `add_loss`, whatever others there are: it does not read them.
    pub fn put_loss<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        (id, record): (ContainerId, &ContainerRecord),
        loss: &Loss,
    ) -> Result<(), Abort> {
        if record.newest_snapshot == Epoch::ZERO || record.newest_snapshot >= loss.before {
            return Ok(());
        }
        self.containers.put(pages, &loss.key(id), &loss.value())
    }

    /// Losses that concern no snapshot any more: `oldest` is the oldest that is left.
    pub fn remove_losses<P: PagesMut + ?Sized>(
        &self,
        pages: &mut P,
        id: ContainerId,
        oldest: Option<Epoch>,
    ) -> Result<(), Abort> {
        for loss in self.losses(pages, id)? {
            if oldest.is_none_or(|oldest| loss.before <= oldest) {
                self.containers.remove(pages, &loss.key(id))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn all_objects() -> RangeInclusive<ObjectId> {
    ObjectId::from_bytes([0; 16])..=ObjectId::from_bytes([0xff; 16])
}

/// The object that a key begins with, or as much of it as there is.
pub(crate) fn object_of(key: &[u8]) -> ObjectId {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    ObjectId::from_bytes(bytes)
}

/// The objects of keys from `low` up to `high`, which begin with objects.
pub(crate) fn objects_of(low: &[u8], high: Option<&[u8]>) -> RangeInclusive<ObjectId> {
    let last = high.map_or(*all_objects().end(), object_of);
    object_of(low)..=last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_comes_back_from_its_bytes_and_concerns_what_it_covers() {
        let object =
            |last| ObjectId::from_bytes([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 5, last]);
        let loss = Loss {
            objects: object(3)..=object(5),
            before: Epoch(70),
            address: 16384,
            expected: Csum(1),
            found: Csum(2),
        };
        let (key, value) = (loss.key(ContainerId(1)), loss.value());
        assert_eq!(Loss::decode(&key[3..], &value).as_ref(), Some(&loss));
        assert_eq!(Loss::decode(&key[4..], &value), None);
        assert_eq!(Loss::decode(&key[3..], &value[1..]), None);
        let concerns = |from, to, epoch| loss.concerns(&(object(from)..=object(to)), Epoch(epoch));
        assert!(concerns(3, 3, 69) && concerns(5, 5, 1) && concerns(1, 9, 69));
        assert!(!concerns(3, 5, 70) && !concerns(1, 2, 1) && !concerns(6, 9, 1));
    }

    #[test]
    fn parts_of_keys_stand_for_all_objects_that_they_may_begin() {
        assert_eq!(objects_of(b"", None), all_objects());
        let low = ObjectId::from_bytes(*b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(objects_of(b"abc", Some(b"abd and much more than sixteen")), {
            low..=ObjectId::from_bytes(*b"abd and much mor")
        });
    }
}
