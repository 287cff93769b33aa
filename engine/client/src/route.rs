//! Which target a dkey lies on. Pure functions.
//!
//! An object has as many shards as its class has groups, at most one per target (SX: as many as there are targets). Its
//! first shard is on a target chosen by its id, the others on the targets that follow. `u64` dkeys go round the
//! shards, so that a large file uses all of them evenly; other dkeys are spread by a hash of their bytes.

use daos_types::rpc::{Condition, FetchPart, KeyRef, Op};
use daos_types::{Dkey, ObjectId, ObjectType};

/// A target's place in the client's list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetIndex(pub usize);

/// The target of a dkey among `targets`.
#[must_use]
pub fn target_of(object: ObjectId, dkey: &Dkey, targets: usize) -> TargetIndex {
    let shards = shards(object, targets) as u64;
    let shard = match (object.object_type(), dkey.to_u64()) {
        (Some(ObjectType::DkeyUint64 | ObjectType::ArrayByte), Some(number)) => number % shards,
        _ => mix(dkey.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv)) % shards,
    };
    TargetIndex((first(object, targets) + shard as usize) % targets)
}

/// Every target that may hold a part of an object.
pub(crate) fn targets_of(object: ObjectId, targets: usize) -> impl Iterator<Item = TargetIndex> {
    let first = first(object, targets);
    (0..shards(object, targets)).map(move |shard| TargetIndex((first + shard) % targets))
}

fn shards(object: ObjectId, targets: usize) -> usize {
    let groups = (object.class().0 & 0xffff) as usize;
    groups.clamp(1, targets)
}

fn first(object: ObjectId, targets: usize) -> usize {
    let bytes = object.to_bytes();
    (mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv)) % targets as u64) as usize
}

fn fnv(state: u64, byte: &u8) -> u64 {
    (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Spreads FNV's weak high bits: the finish of MurmurHash3.
fn mix(mut state: u64) -> u64 {
    state = (state ^ state >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ state >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ state >> 33
}

/// What a part of a request needs: one dkey's target, or all that hold a part of an object.
pub(crate) enum Needs<'a> {
    Dkey(ObjectId, &'a Dkey),
    Object(ObjectId),
}

impl Needs<'_> {
    pub(crate) fn of_condition(condition: &Condition) -> Needs<'_> {
        match condition {
            Condition::DkeyExists { object, dkey } | Condition::DkeyAbsent { object, dkey } => {
                Needs::Dkey(*object, dkey)
            }
            Condition::AkeyExists(key)
            | Condition::AkeyAbsent(key)
            | Condition::Equals { key, .. } => Needs::of_key(key),
            Condition::Empty { object, .. } | Condition::ArrayEnd { object, .. } => {
                Needs::Object(*object)
            }
        }
    }

    pub(crate) fn of_op(op: &Op) -> Needs<'_> {
        match op {
            Op::UpdateSingle { key, .. }
            | Op::UpdateArray { key, .. }
            | Op::Allocate { key, .. }
            | Op::PunchRange { key, .. }
            | Op::PunchAkey(key)
            | Op::Add { key, .. } => Needs::of_key(key),
            Op::PunchDkey { object, dkey } => Needs::Dkey(*object, dkey),
            Op::PunchDkeysFrom { object, .. } | Op::PunchObject { object } => {
                Needs::Object(*object)
            }
        }
    }

    pub(crate) fn of_part(part: &FetchPart) -> Needs<'_> {
        match part {
            FetchPart::Single(key) | FetchPart::Array { key, .. } => Needs::of_key(key),
            FetchPart::Akeys { object, dkey, .. } => Needs::Dkey(*object, dkey),
            FetchPart::Object { object, .. } => Needs::Object(*object),
        }
    }

    fn of_key(key: &KeyRef) -> Needs<'_> {
        Needs::Dkey(key.object, &key.dkey)
    }

    pub(crate) fn targets(&self, targets: usize) -> Vec<TargetIndex> {
        match self {
            Self::Dkey(object, dkey) => vec![target_of(*object, dkey, targets)],
            Self::Object(object) => targets_of(*object, targets).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_types::ObjectClass;

    fn object(kind: ObjectType, class: ObjectClass, lo: u64) -> ObjectId {
        ObjectId::new(kind, class, 0, lo)
    }

    #[test]
    fn one_target_holds_everything() {
        for lo in 0..100 {
            let oid = object(ObjectType::MultiHashed, ObjectClass::SX, lo);
            assert_eq!(target_of(oid, &"a".into(), 1), TargetIndex(0));
        }
    }

    #[test]
    fn object_of_one_group_stays_on_one_target_and_objects_spread() {
        let mut objects_on = [0; 5];
        for lo in 0..1000 {
            let oid = object(ObjectType::MultiHashed, ObjectClass::S1, lo);
            let target = target_of(oid, &"a".into(), 5);
            assert_eq!(target, target_of(oid, &"b".into(), 5));
            objects_on[target.0] += 1;
        }
        assert!(objects_on.iter().all(|objects| (150..250).contains(objects)), "{objects_on:?}");
    }

    #[test]
    fn chunks_of_a_wide_file_go_round_all_targets() {
        let oid = object(ObjectType::ArrayByte, ObjectClass::SX, 1);
        let mut targets: Vec<_> =
            (1..=5).map(|chunk| target_of(oid, &Dkey::from_u64(chunk), 5)).collect();
        targets.sort();
        assert_eq!(targets, (0..5).map(TargetIndex).collect::<Vec<_>>());
    }

    #[test]
    fn every_dkey_lies_on_a_target_of_its_object() {
        for lo in 0..50 {
            let oid = object(ObjectType::MultiHashed, ObjectClass(1 << 24 | 2), lo);
            let targets: Vec<_> = targets_of(oid, 7).collect();
            assert_eq!(targets.len(), 2);
            for name in 0..50u32 {
                let dkey = Dkey::from(name.to_string().into_bytes());
                assert!(targets.contains(&target_of(oid, &dkey, 7)));
            }
        }
    }
}
