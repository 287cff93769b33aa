//! Operations that store values.

use daos_types::rpc::KeyRef;
use daos_types::{BLOCK_BYTES, Error};
use smallvec::smallvec;

use crate::array::{self, Edit, OTHER_KIND};
use crate::ground::{Ground, STRANGE, Supplier};
use crate::key::{AkeyPrefix, Part};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::punch::{EXTENTS_MAX, detach_inside};
use crate::record::{
    BLOCK, Body, INLINE_BYTES_MAX, Record, Run, Single, epoch_of, inline_run_of, inline_run_record,
    inline_single_of, single_record,
};
use crate::supply::{Need, Supply};

/// Replaces a single value whole.
pub(crate) fn update_single(
    ground: &mut dyn Ground,
    op: usize,
    key: &KeyRef,
    value: &[u8],
) -> Result<(), Abort> {
    let (place, is_new) = ground.place_or_new(key.object, &key.dkey)?;
    let prefix = place.akey(&key.akey);
    let old = if is_new { None } else { single_value(&*ground.kv(key.object)?, &prefix)? };
    let epoch = ground.moment().epoch;
    let (record, stored) = if value.len() <= INLINE_BYTES_MAX {
        (single_record(epoch, value), value.len() as i64)
    } else {
        let blocks = value.len().div_ceil(BLOCK_BYTES) as u32;
        let filled = ground.supply(Need::Single { op, blocks })?;
        let runs = filled.iter().map(|run| Run { start: run.start, blocks: run.blocks }).collect();
        let csums = filled.into_iter().flat_map(|run| run.csums).collect();
        let single = Single::Blocks { len: value.len() as u32, runs, csums };
        let record = Record { epoch, body: Body::Single(single) };
        (record.encode(), i64::from(blocks) * BLOCK_BYTES as i64)
    };
    put_single(ground, key, &prefix, old, (record, stored))
}

/// Adds to a little-endian `i64`.
pub(crate) fn add(ground: &mut dyn Ground, key: &KeyRef, delta: i64) -> Result<(), Abort> {
    let (place, is_new) = ground.place_or_new(key.object, &key.dkey)?;
    let prefix = place.akey(&key.akey);
    let old = if is_new { None } else { single_value(&*ground.kv(key.object)?, &prefix)? };
    let before = match &old {
        None => 0,
        Some(value) => {
            let bytes = inline_single_of(value).and_then(|bytes| bytes.try_into().ok());
            i64::from_le_bytes(
                bytes.ok_or(Error::Invalid("only a value of 8 bytes can be added to"))?,
            )
        }
    };
    let sum = before.checked_add(delta).ok_or(Error::Invalid("the sum overflows"))?;
    let record = single_record(ground.moment().epoch, &sum.to_le_bytes());
    put_single(ground, key, &prefix, old, (record, 8))
}

/// Writes `data` at `offset` of an array.
pub(crate) fn update_array(
    ground: &mut dyn Ground,
    op: usize,
    key: &KeyRef,
    offset: u64,
    data: &[u8],
) -> Result<(), Abort> {
    let (place, is_new) = ground.place_or_new(key.object, &key.dkey)?;
    let prefix = place.akey(&key.akey);
    if write_inline(ground, key, &prefix, is_new, (offset, data))? {
        return ground.touch(key.object);
    }
    let end = offset + data.len() as u64;
    let (from, to) = (offset / BLOCK, end.div_ceil(BLOCK));
    if to - from > EXTENTS_MAX as u64
        && array::around(&*ground.kv(key.object)?, &prefix, from, to, EXTENTS_MAX)?.len()
            == EXTENTS_MAX
    {
        detach_inside(ground, key, &prefix, (offset, end))?;
    }
    change(ground, key, |kv, supply, now| {
        array::write(kv, now, &prefix, (op, offset, data), supply).map(Some)
    })?;
    ground.touch(key.object)
}

/// A short write to where nothing is, or over all of what is inline there and no snapshot sees: its record is put, and nothing of the
/// array needs to be looked at. False: it is not so easy.
fn write_inline(
    ground: &mut dyn Ground,
    key: &KeyRef,
    prefix: &AkeyPrefix,
    is_new: bool,
    (offset, data): (u64, &[u8]),
) -> Result<bool, Abort> {
    let (now, start) = (ground.moment(), (offset % BLOCK) as usize);
    let end = start + data.len();
    if data.is_empty() || data.len() > INLINE_BYTES_MAX || end > BLOCK_BYTES {
        return Ok(false);
    }
    let at = prefix.array(offset - start as u64);
    let mut stored_bytes = data.len() as i64;
    if !is_new {
        let mut replaced = None;
        ground.kv(key.object)?.with(&at, &mut |value| {
            let covered = inline_run_of(value)
                .filter(|(from, old)| start <= *from && from + old.len() <= end)
                .filter(|_| epoch_of(value).is_some_and(|epoch| !now.is_kept(epoch)));
            replaced = covered.map(|(_, old)| old.len() as i64);
        })?;
        let Some(replaced) = replaced else { return Ok(false) };
        stored_bytes -= replaced;
    }
    let puts = smallvec![(at, inline_run_record(now.epoch, start, data))];
    ground.apply(key.object, Edit { puts, stored_bytes, ..Edit::default() })?;
    Ok(true)
}

/// Makes holes of a range allocated.
pub(crate) fn allocate(
    ground: &mut dyn Ground,
    op: usize,
    key: &KeyRef,
    (offset, len): (u64, u64),
) -> Result<(), Abort> {
    let prefix = ground.place_or_new(key.object, &key.dkey)?.0.akey(&key.akey);
    let range = (op, offset, offset + len);
    change(ground, key, |kv, supply, now| {
        array::allocate(kv, now, &prefix, range, supply).map(Some)
    })?;
    Ok(())
}

/// Decides a change of an array and carries it out; `false`: it was not decided.
pub(crate) fn change(
    ground: &mut dyn Ground,
    key: &KeyRef,
    decide: impl FnOnce(&dyn Kv, &mut dyn Supply, array::Moment) -> Result<Option<Edit>, Abort>,
) -> Result<bool, Abort> {
    let mut supply = Supplier(&*ground);
    let decided = decide(&*ground.kv(key.object)?, &mut supply, ground.moment())?;
    match decided {
        Some(edit) => ground.apply(key.object, edit).map(|()| true),
        None => Ok(false),
    }
}

/// The stored record of a single value.
pub(crate) fn single_value(kv: &dyn Kv, prefix: &AkeyPrefix) -> Result<Option<Vec<u8>>, Abort> {
    let mut found = Ok(None);
    kv.scan(&prefix.single(), &mut |key, value| {
        found = match prefix.part(key) {
            Some(Part::Single) => Ok(Some(value.to_vec())),
            Some(Part::Extent(_)) => Err(OTHER_KIND),
            None => Ok(None),
        };
        std::ops::ControlFlow::Break(())
    })?;
    Ok(found?)
}

fn put_single(
    ground: &mut dyn Ground,
    key: &KeyRef,
    prefix: &AkeyPrefix,
    old: Option<Vec<u8>>,
    (record, stored): (Vec<u8>, i64),
) -> Result<(), Abort> {
    let mut edit = Edit { stored_bytes: stored, ..Edit::default() };
    if let Some(old) = old {
        let epoch = epoch_of(&old).ok_or(STRANGE)?;
        match inline_single_of(&old) {
            Some(bytes) if !ground.moment().is_kept(epoch) => {
                edit.stored_bytes -= bytes.len() as i64;
            }
            _ => {
                edit.remove(prefix.single(), &old)?;
                edit.removes.clear();
            }
        }
    }
    edit.puts.push((prefix.single(), record));
    ground.apply(key.object, edit)
}
