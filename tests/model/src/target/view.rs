//! What one container holds at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{Cursor, KeyRef, Value};
use daos_types::{Akey, Dkey, Epoch, Error, ObjectId, ObjectType, Result};

use super::array::Array;

/// A place in the order of an object's dkeys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Hashed and `u64` dkeys.
    Number(u64),
    /// Lexical dkeys.
    Bytes(Bytes),
}

impl Order {
    pub fn cursor(&self) -> Cursor {
        match self {
            Self::Number(number) => Cursor::Number(*number),
            Self::Bytes(bytes) => Cursor::Key(bytes.clone()),
        }
    }

    fn first(kind: ObjectType) -> Self {
        if kind == ObjectType::DkeyLexical { Self::Bytes(Bytes::new()) } else { Self::Number(0) }
    }
}

/// A dkey with its values; never without one.
#[derive(Clone, Debug)]
pub struct Held {
    pub dkey: Dkey,
    pub akeys: BTreeMap<Akey, Stored>,
}

#[derive(Clone, Debug)]
pub enum Stored {
    Single(Bytes),
    Array(Array),
}

impl Stored {
    /// The value as listings show it: arrays their first bytes up to their end.
    pub fn head(&self, array_bytes_max: u64) -> Value {
        match self {
            Self::Single(bytes) => Value::Single(bytes.clone()),
            Self::Array(array) => Value::Array(array.read(0, array.end().min(array_bytes_max))),
        }
    }

    pub fn stored_bytes(&self) -> u64 {
        match self {
            Self::Single(bytes) => bytes.len() as u64,
            Self::Array(array) => array.stored_bytes(),
        }
    }
}

/// All objects of a container. A clone of it is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Data epoch of every object that has a record.
    pub records: BTreeMap<ObjectId, Epoch>,
    pub dkeys: BTreeMap<(ObjectId, Order), Arc<Held>>,
}

impl View {
    /// The dkeys of an object, in their order.
    pub fn dkeys_of(
        &self,
        object: ObjectId,
    ) -> impl DoubleEndedIterator<Item = (&Order, &Arc<Held>)> {
        let mut after = object.to_bytes();
        let next = u128::from_be_bytes(after).wrapping_add(1);
        after = next.to_be_bytes();
        let first = Order::first(kind(object));
        let end = (ObjectId::from_bytes(after), Order::Number(0));
        self.dkeys.range((object, first)..end).map(|((_, order), held)| (order, held))
    }

    /// Where a dkey is, if it is there.
    pub fn find(&self, seed: u64, object: ObjectId, dkey: &Dkey) -> Option<(Order, &Held)> {
        candidates(seed, object, dkey).find_map(|order| {
            let (key, held) = self.dkeys.get_key_value(&(object, order))?;
            (held.dkey == *dkey).then(|| (key.1.clone(), held.as_ref()))
        })
    }

    /// Where a new dkey goes: the first free place.
    pub fn place(&self, seed: u64, object: ObjectId, dkey: &Dkey) -> Result<Order> {
        let mut free = candidates(seed, object, dkey)
            .filter(|order| !self.dkeys.contains_key(&(object, order.clone())));
        free.next().ok_or(Error::NoSpace)
    }

    pub fn value(&self, seed: u64, key: &KeyRef) -> Option<&Stored> {
        self.find(seed, key.object, &key.dkey)?.1.akeys.get(&key.akey)
    }

    /// Greatest dkey with written bytes under `akey`, and their end there; (0, 0) when there is none.
    pub fn array_end(&self, object: ObjectId, akey: &Akey) -> (u64, u64) {
        let ends = self.dkeys_of(object).rev().filter_map(|(order, held)| {
            match (order, held.akeys.get(akey)) {
                (Order::Number(number), Some(Stored::Array(array))) => Some((*number, array.end())),
                _ => None,
            }
        });
        let numbered = matches!(kind(object), ObjectType::DkeyUint64 | ObjectType::ArrayByte);
        ends.filter(|_| numbered).find(|(_, end)| *end > 0).unwrap_or((0, 0))
    }

    pub fn stored_bytes(&self, object: ObjectId) -> u64 {
        let values = self.dkeys_of(object).flat_map(|(_, held)| held.akeys.values());
        values.map(Stored::stored_bytes).sum()
    }
}

pub fn kind(object: ObjectId) -> ObjectType {
    object.object_type().expect("requests with unknown object types are refused")
}

/// The places that a dkey may have, in the order in which they are tried.
fn candidates(seed: u64, object: ObjectId, dkey: &Dkey) -> impl Iterator<Item = Order> {
    let single = match kind(object) {
        ObjectType::DkeyUint64 | ObjectType::ArrayByte => {
            Some(Order::Number(dkey.to_u64().expect("u64 dkeys have 8 bytes")))
        }
        ObjectType::DkeyLexical => Some(Order::Bytes(Bytes::copy_from_slice(dkey.as_bytes()))),
        ObjectType::MultiHashed => None,
    };
    let base = hash(seed, dkey.as_bytes()) & 0x7fff_ffff_ffff_ff00;
    let hashed = (0..256).map(move |low| base | low).filter(|number| *number >= 3);
    let hashed = if single.is_none() { Some(hashed.map(Order::Number)) } else { None };
    single.into_iter().chain(hashed.into_iter().flatten())
}

/// FNV-1a with a finish that spreads its bits. Not the store's hash: nothing may depend on which it is.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}
