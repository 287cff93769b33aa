//! Operations that take values away.

use daos_types::rpc::{ARRAY_OFFSET_MAX, KeyRef};
use daos_types::{Dkey, ObjectId};

use crate::array::{self, Edit};
use crate::ground::{Ground, remove_all};
use crate::key::{AkeyPrefix, Place, starts_with};
use crate::pages::Abort;
use crate::record::BLOCK;
use crate::update::change;

/// Most extents that an operation changes one by one.
pub(crate) const EXTENTS_MAX: usize = 64;

/// Makes a range of an array a hole.
pub(crate) fn punch_range(
    ground: &mut dyn Ground,
    op: usize,
    key: &KeyRef,
    (offset, len): (u64, u64),
) -> Result<(), Abort> {
    if let Some(place) = ground.place(key.object, &key.dkey)? {
        let prefix = place.akey(&key.akey);
        let end = offset.saturating_add(len).min(ARRAY_OFFSET_MAX);
        let start = offset.min(end);
        let done = change(ground, key, |kv, supply, now| {
            array::punch(kv, now, &prefix, (op, start, end), EXTENTS_MAX, supply)
        })?;
        if !done {
            detach_inside(ground, key, &prefix, (start, end))?;
            let done = change(ground, key, |kv, supply, now| {
                array::punch(kv, now, &prefix, (op, start, end), EXTENTS_MAX, supply)
            })?;
            assert!(done, "few extents are left");
        }
        ground.drop_if_empty(key.object, &place)?;
    }
    if ground.has_record(key.object)? {
        ground.touch(key.object)?;
    }
    Ok(())
}

/// Detaches the extents that lie wholly in a range that holds many.
pub(crate) fn detach_inside(
    ground: &mut dyn Ground,
    key: &KeyRef,
    prefix: &AkeyPrefix,
    (start, end): (u64, u64),
) -> Result<(), Abort> {
    let (from, to) = (start.div_ceil(BLOCK), end / BLOCK);
    let ends = array::around(&*ground.kv(key.object)?, prefix, to, to, 2)?;
    let across = ends.iter().find(|extent| extent.block < to && to < extent.end_block());
    let to = across.map_or(to, |extent| extent.block);
    if from >= to {
        return Ok(());
    }
    ground.detach(key.object, &prefix.array(from * BLOCK), Some(&prefix.array(to * BLOCK)))
}

pub(crate) fn punch_akey(ground: &mut dyn Ground, key: &KeyRef) -> Result<(), Abort> {
    let Some(place) = ground.place(key.object, &key.dkey)? else { return Ok(()) };
    let prefix = place.akey(&key.akey);
    punch_keys(ground, key.object, &prefix.single(), Some(&prefix.end()))?;
    ground.drop_if_empty(key.object, &place)
}

pub(crate) fn punch_dkey(
    ground: &mut dyn Ground,
    object: ObjectId,
    dkey: &Dkey,
) -> Result<(), Abort> {
    let Some(place) = ground.place(object, dkey)? else { return Ok(()) };
    punch_keys(ground, object, &place.dkey_record(), Some(&place.end()))
}

pub(crate) fn punch_dkeys_from(
    ground: &mut dyn Ground,
    object: ObjectId,
    from: u64,
) -> Result<(), Abort> {
    punch_keys(ground, object, &Place::of_number(from).akeys(), None)?;
    if ground.has_record(object)? {
        ground.touch(object)?;
    }
    Ok(())
}

pub(crate) fn punch_object(ground: &mut dyn Ground, object: ObjectId) -> Result<(), Abort> {
    if ground.has_record(object)? { ground.remove_object(object) } else { Ok(()) }
}

fn punch_keys(
    ground: &mut dyn Ground,
    object: ObjectId,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<(), Abort> {
    let edit: Option<Edit> = remove_all(&*ground.kv(object)?, from, to)?;
    match edit {
        Some(edit) => ground.apply(object, edit),
        None => ground.detach(object, from, to),
    }
}

/// Is there a value under this akey?
pub(crate) fn akey_exists(ground: &dyn Ground, key: &KeyRef) -> Result<bool, Abort> {
    let Some(place) = ground.place(key.object, &key.dkey)? else { return Ok(false) };
    starts_with(&*ground.kv(key.object)?, &place.akey(&key.akey).0)
}
