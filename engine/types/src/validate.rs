//! The rules of a request that can be judged without the store: sizes, counts, key lengths, object types.
//! Every target calls [`Request::validate`] first, so all refuse the same requests with the same words.
//!
//! # Not here
//! Rules that need to know what is stored (one kind of value per akey, overflow of `Add`): the target's.

use crate::rpc::{
    ARRAY_OFFSET_MAX, ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, Condition, Cursor, DATA_BYTES_MAX,
    Extents, Fetch, FetchPart, KeyRef, List, ListWhat, OPS_MAX, Op, Request, SINGLE_BYTES_MAX,
    Transact,
};
use crate::{Akey, Dkey, Error, KEY_BYTES_MAX, ObjectId, ObjectType, Result};

/// Longest label of a pool or container, and longest name of a snapshot, in bytes.
pub const LABEL_BYTES_MAX: usize = 127;

impl Request {
    /// Is this a request that some target could answer?
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Transact(transact) => check_transact(transact),
            Self::Fetch(fetch) => check_fetch(fetch),
            Self::List(list) => check_list(list),
            Self::Extents(extents) => check_extents(extents),
            Self::PoolCreate { label, .. } => check_label(label),
            Self::ContainerCreate { info, .. } => check_label(&info.label),
            Self::ContainerSetProps { label: Some(label), .. } => check_label(label),
            Self::ContainerSetAttributes { attributes, .. } => check_attributes(attributes),
            Self::SnapshotCreate { name: Some(name), .. } => check_label(name),
            _ => Ok(()),
        }
    }
}

/// Labels are 1 to [`LABEL_BYTES_MAX`] of `A-Z a-z 0-9 . _ : -`, as in DAOS.
pub fn check_label(label: &str) -> Result<()> {
    let fits = (1..=LABEL_BYTES_MAX).contains(&label.len());
    let clean = label.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    ensure(fits && clean, "a label is 1 to 127 letters, digits, '.', '_', ':' or '-'")
}

fn check_attributes(attributes: &[(String, Option<String>)]) -> Result<()> {
    bound("number of attributes", attributes.len(), ATTRIBUTES_MAX)?;
    for (name, value) in attributes {
        check_label(name).map_err(|_| {
            Error::Invalid("an attribute's name is 1 to 127 letters, digits, '.', '_', ':' or '-'")
        })?;
        bound("attribute's value", value.as_ref().map_or(0, String::len), ATTRIBUTE_BYTES_MAX)?;
    }
    Ok(())
}

fn check_transact(transact: &Transact) -> Result<()> {
    bound("number of conditions", transact.conditions.len(), OPS_MAX)?;
    bound("number of operations", transact.ops.len(), OPS_MAX)?;
    transact.conditions.iter().try_for_each(check_condition)?;
    transact.ops.iter().try_for_each(check_op)?;
    let data_bytes = transact.ops.iter().map(|op| match op {
        Op::UpdateArray { data, .. } => data.len(),
        _ => 0,
    });
    bound("array data of a transaction", data_bytes.sum(), DATA_BYTES_MAX)
}

fn check_condition(condition: &Condition) -> Result<()> {
    match condition {
        Condition::DkeyExists { object, dkey } | Condition::DkeyAbsent { object, dkey } => {
            check_dkey(*object, dkey)
        }
        Condition::AkeyExists(key) | Condition::AkeyAbsent(key) => check_key(key),
        Condition::Equals { key, offset, bytes } => {
            check_key(key)?;
            bound("condition's bytes", bytes.len(), SINGLE_BYTES_MAX)?;
            check_range(*offset, bytes.len() as u64)
        }
        Condition::Empty { object, except } => {
            bound("exceptions of a condition", except.len(), OPS_MAX)?;
            check_object(*object)?;
            except.iter().try_for_each(|dkey| check_dkey(*object, dkey))
        }
        Condition::ArrayEnd { object, akey, .. } => {
            check_numbered(*object)?;
            check_akey(akey)
        }
    }
}

fn check_op(op: &Op) -> Result<()> {
    match op {
        Op::UpdateSingle { key, value } => {
            check_key(key)?;
            bound("single value", value.len(), SINGLE_BYTES_MAX)
        }
        Op::UpdateArray { key, offset, data } => {
            check_key(key)?;
            ensure(!data.is_empty(), "an array update has data")?;
            check_range(*offset, data.len() as u64)
        }
        Op::Allocate { key, offset, len } => {
            check_key(key)?;
            ensure(*len > 0, "an allocated range is not empty")?;
            check_range(*offset, *len)
        }
        Op::PunchRange { key, .. } | Op::PunchAkey(key) | Op::Add { key, .. } => check_key(key),
        Op::PunchDkey { object, dkey } => check_dkey(*object, dkey),
        Op::PunchDkeysFrom { object, .. } => check_numbered(*object),
        Op::PunchObject { object } => check_object(*object).map(|_| ()),
    }
}

fn check_fetch(fetch: &Fetch) -> Result<()> {
    bound("number of parts", fetch.parts.len(), OPS_MAX)?;
    let mut data_bytes = 0u64;
    for part in &fetch.parts {
        match part {
            FetchPart::Single(key) => check_key(key)?,
            FetchPart::Array { key, offset, len } => {
                check_key(key)?;
                check_range(*offset, *len)?;
                data_bytes = data_bytes.saturating_add(*len);
            }
            FetchPart::Akeys { object, dkey, prefix, .. } => {
                check_dkey(*object, dkey)?;
                bound("prefix of akeys", prefix.len(), KEY_BYTES_MAX)?;
            }
            FetchPart::Object { object, akey } => {
                check_object(*object)?;
                check_akey(akey)?;
            }
        }
    }
    bound("array data of a fetch", data_bytes.try_into().unwrap_or(usize::MAX), DATA_BYTES_MAX)
}

fn check_list(list: &List) -> Result<()> {
    ensure(list.entries_max > 0, "a listing has room for one entry")?;
    let by_number = match &list.what {
        ListWhat::Dkeys { object, akeys, .. } => {
            bound("number of akeys", akeys.len(), OPS_MAX)?;
            akeys.iter().try_for_each(check_akey)?;
            check_object(*object)? != ObjectType::DkeyLexical
        }
        ListWhat::Objects => false,
    };
    let fits = match list.after {
        Cursor::Start => true,
        Cursor::Number(_) => by_number,
        Cursor::Key(_) => !by_number,
    };
    ensure(fits, "the cursor is of another kind of listing")
}

fn check_extents(extents: &Extents) -> Result<()> {
    ensure(extents.extents_max > 0, "a reply has room for one extent")?;
    check_numbered(extents.object)?;
    check_akey(&extents.akey)
}

fn check_key(key: &KeyRef) -> Result<()> {
    check_dkey(key.object, &key.dkey)?;
    check_akey(&key.akey)
}

fn check_dkey(object: ObjectId, dkey: &Dkey) -> Result<()> {
    let numbered = is_numbered(check_object(object)?);
    check_key_bytes(dkey.as_bytes())?;
    ensure(!numbered || dkey.as_bytes().len() == 8, "dkeys of this object type have 8 bytes")
}

fn check_akey(akey: &Akey) -> Result<()> {
    check_key_bytes(akey.as_bytes())
}

fn check_key_bytes(bytes: &[u8]) -> Result<()> {
    ensure(!bytes.is_empty(), "a key is not empty")?;
    bound("key", bytes.len(), KEY_BYTES_MAX)
}

fn check_object(object: ObjectId) -> Result<ObjectType> {
    object.object_type().ok_or(Error::Invalid("the object's type is not known"))
}

fn check_numbered(object: ObjectId) -> Result<()> {
    let numbered = is_numbered(check_object(object)?);
    ensure(numbered, "only objects with u64 dkeys can do this")
}

fn is_numbered(kind: ObjectType) -> bool {
    matches!(kind, ObjectType::DkeyUint64 | ObjectType::ArrayByte)
}

fn check_range(offset: u64, len: u64) -> Result<()> {
    let end = offset.checked_add(len);
    ensure(
        end.is_some_and(|end| end <= ARRAY_OFFSET_MAX),
        "the range ends beyond the largest array",
    )
}

fn bound(what: &'static str, bytes: usize, max: usize) -> Result<()> {
    if bytes > max { Err(Error::TooLarge { what, max: max as u64 }) } else { Ok(()) }
}

fn ensure(holds: bool, rule: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Invalid(rule)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerId, ObjectClass};

    fn transact(op: Op) -> Request {
        Request::Transact(Transact { container: ContainerId(1), conditions: vec![], ops: vec![op] })
    }

    fn key(kind: ObjectType, dkey: &'static str) -> KeyRef {
        let object = ObjectId::new(kind, ObjectClass::S1, 0, 1);
        KeyRef { object, dkey: dkey.into(), akey: "a".into() }
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert!(check_label("home-1.2_x:y").is_ok());
        assert!(check_label("").is_err());
        assert!(check_label(&"x".repeat(127)).is_ok());
        assert!(check_label(&"x".repeat(128)).is_err());
        assert!(check_label("a b").is_err());
        assert!(check_label("a/b").is_err());
    }

    #[test]
    fn numbered_objects_want_eight_byte_dkeys() {
        let value = bytes::Bytes::from_static(b"v");
        let update = |key| transact(Op::UpdateSingle { key, value: value.clone() }).validate();
        assert!(update(key(ObjectType::ArrayByte, "12345678")).is_ok());
        assert!(update(key(ObjectType::ArrayByte, "1234")).is_err());
        assert!(update(key(ObjectType::MultiHashed, "1234")).is_ok());
        assert!(update(key(ObjectType::MultiHashed, "")).is_err());
    }

    #[test]
    fn ranges_end_inside_the_largest_array() {
        let at = |offset, len| {
            transact(Op::Allocate { key: key(ObjectType::MultiHashed, "d"), offset, len })
                .validate()
        };
        assert!(at(ARRAY_OFFSET_MAX - 1, 1).is_ok());
        assert!(at(ARRAY_OFFSET_MAX, 1).is_err());
        assert!(at(u64::MAX, 2).is_err());
        assert!(at(0, 0).is_err());
    }

    #[test]
    fn too_much_data_is_refused_by_size_not_by_rule() {
        let data = bytes::Bytes::from(vec![0; DATA_BYTES_MAX + 1]);
        let op = Op::UpdateArray { key: key(ObjectType::MultiHashed, "d"), offset: 0, data };
        assert!(matches!(transact(op).validate(), Err(Error::TooLarge { .. })));
    }
}
