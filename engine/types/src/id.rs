//! Ids: pool, container, object, target. A DAOS object id is 128 bits, of which the upper 32 bits of
//! `hi` are the engine's (DAOS `daos_obj_id_t`): type (8), redundancy class (8), class metadata (16).

use std::fmt;

/// A pool's UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PoolId(pub uuid::Uuid);

/// The UUID on the label of one target's store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StoreId(pub uuid::Uuid);

/// A target's index in its engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TargetId(pub u32);

/// A container's number: pool-wide, persistent, never reused while anything refers to it; 0 is no container.
/// It is the upper 16 bits of every inode number in the container.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ContainerId(pub u16);

/// How an object's dkeys are ordered and what its akeys hold (DAOS object types, same numbers).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ObjectType {
    /// Dkeys of any bytes, listed in the order of a seeded 63-bit hash.
    MultiHashed = 0,
    /// Dkeys of 8 bytes, big-endian `u64`, listed in numeric order.
    DkeyUint64 = 2,
    /// Dkeys of any bytes, listed in byte order.
    DkeyLexical = 5,
    /// As `DkeyUint64`; the value is a byte array cut into chunks, dkey = chunk + 1 (DAOS array API).
    ArrayByte = 13,
}

/// Object class: redundancy (high byte of a u32 in DAOS) and group count. 0 = none given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ObjectClass(pub u32);

impl ObjectClass {
    /// One shard, no redundancy (DAOS OC_S1: redundancy 1, one group).
    pub const S1: Self = Self(1 << 24 | 1);
    /// All targets, no redundancy (DAOS OC_SX).
    pub const SX: Self = Self(1 << 24 | 0xffff);
}

/// A 128-bit object id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    pub hi: u64,
    pub lo: u64,
}

impl ObjectId {
    /// An id with the engine's bits filled in; the user owns `hi_user` and `lo`.
    #[must_use]
    pub const fn new(kind: ObjectType, class: ObjectClass, hi_user: u32, lo: u64) -> Self {
        let redundancy = (class.0 >> 24) as u64;
        let groups = (class.0 & 0xffff) as u64;
        Self { hi: (kind as u64) << 56 | redundancy << 48 | groups << 32 | hi_user as u64, lo }
    }

    /// The object type; `None` for a number that this version does not know.
    #[must_use]
    pub const fn object_type(self) -> Option<ObjectType> {
        match (self.hi >> 56) as u8 {
            0 => Some(ObjectType::MultiHashed),
            2 => Some(ObjectType::DkeyUint64),
            5 => Some(ObjectType::DkeyLexical),
            13 => Some(ObjectType::ArrayByte),
            _ => None,
        }
    }

    #[must_use]
    pub const fn class(self) -> ObjectClass {
        ObjectClass(((self.hi >> 48 & 0xff) << 24 | (self.hi >> 32 & 0xffff)) as u32)
    }

    /// Big-endian bytes, `hi` first: the order of the object table.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.hi.to_be_bytes());
        bytes[8..].copy_from_slice(&self.lo.to_be_bytes());
        bytes
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let wide = u128::from_be_bytes(bytes);
        Self { hi: (wide >> 64) as u64, lo: wide as u64 }
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ObjectId {
    /// `hi.lo` in decimal, as DAOS prints object ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.hi, self.lo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_id_carries_type_and_class() {
        let oid = ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 7, 9);
        assert_eq!(oid.object_type(), Some(ObjectType::ArrayByte));
        assert_eq!(oid.class(), ObjectClass::SX);
        assert_eq!(oid.hi as u32, 7);
        assert_eq!(ObjectId::from_bytes(oid.to_bytes()), oid);
    }
}
