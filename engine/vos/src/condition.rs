//! What must hold before a transaction for it to change anything.

use std::ops::ControlFlow;

use daos_types::rpc::{Condition, KeyRef};
use daos_types::{Akey, Dkey, Error, ObjectId};

use crate::array;
use crate::ground::{Ground, STRANGE};
use crate::key::{self, AkeyPrefix, KeyBuf, Ordering, Part, Place};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::pieces::{self, Piece};
use crate::punch::akey_exists;
use crate::record::{Body, Record, Single, dkey_of, inline_run_of, inline_single_of};

/// Whether a condition holds, or what has to be read from the device to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Known(bool),
    /// It holds if these pieces, `len` bytes, begin with the condition's bytes.
    Read {
        len: usize,
        pieces: Vec<Piece>,
    },
}

pub(crate) fn judge(ground: &dyn Ground, condition: &Condition) -> Result<Verdict, Abort> {
    let holds = match condition {
        Condition::DkeyExists { object, dkey } => dkey_exists(ground, *object, dkey)?,
        Condition::DkeyAbsent { object, dkey } => !dkey_exists(ground, *object, dkey)?,
        Condition::AkeyExists(key) => akey_exists(ground, key)?,
        Condition::AkeyAbsent(key) => !akey_exists(ground, key)?,
        Condition::Equals { key, offset, bytes } => return equals(ground, key, *offset, bytes),
        Condition::Empty { object, except } => is_empty(ground, *object, except)?,
        Condition::ArrayEnd { object, akey, dkey, end } => {
            array_end(&*ground.kv(*object)?, akey)? == (*dkey, *end)
        }
    };
    Ok(Verdict::Known(holds))
}

fn dkey_exists(ground: &dyn Ground, object: ObjectId, dkey: &Dkey) -> Result<bool, Abort> {
    match ground.place(object, dkey)? {
        Some(place) => key::dkey_exists(&*ground.kv(object)?, &place),
        None => Ok(false),
    }
}

fn equals(ground: &dyn Ground, key: &KeyRef, offset: u64, bytes: &[u8]) -> Result<Verdict, Abort> {
    let Some(place) = ground.place(key.object, &key.dkey)? else {
        return Ok(Verdict::Known(false));
    };
    let prefix = place.akey(&key.akey);
    let kv = ground.kv(key.object)?;
    let mut found = None;
    kv.scan(&prefix.single(), &mut |key, value| {
        found = prefix.part(key).map(|part| match part {
            Part::Single => Some(value.to_vec()),
            Part::Extent(_) => None,
        });
        ControlFlow::Break(())
    })?;
    match found {
        None => Ok(Verdict::Known(false)),
        Some(None) => array_equals(&*kv, &prefix, offset, bytes),
        Some(Some(_)) if offset != 0 => {
            Err(Error::Invalid("a single value is compared from its first byte").into())
        }
        Some(Some(value)) => single_equals(&value, bytes),
    }
}

fn single_equals(value: &[u8], bytes: &[u8]) -> Result<Verdict, Abort> {
    if let Some(inline) = inline_single_of(value) {
        return Ok(Verdict::Known(inline.starts_with(bytes)));
    }
    let Some(Record { body: Body::Single(Single::Blocks { len, .. }), .. }) = Record::decode(value)
    else {
        return Err(STRANGE.into());
    };
    if (len as usize) < bytes.len() {
        return Ok(Verdict::Known(false));
    }
    Ok(Verdict::Read { len: len as usize, pieces: pieces::single_pieces(value)?.1 })
}

fn array_equals(
    kv: &dyn Kv,
    prefix: &AkeyPrefix,
    offset: u64,
    bytes: &[u8],
) -> Result<Verdict, Abort> {
    let (start, end) = (offset, offset + bytes.len() as u64);
    if let Some(known) = inline_equals(kv, prefix, offset, bytes)? {
        return Ok(Verdict::Known(known));
    }
    let mut written = 0;
    kv.scan_back(Some(&prefix.array(end)), &mut |key, value| {
        let Some(Part::Extent(at)) = prefix.part(key) else { return ControlFlow::Break(()) };
        for (from, to, is_written) in array::decode(at, value).body.spans() {
            let (from, to) = ((at + from).max(start), (at + to).min(end));
            if is_written && from < to {
                written += to - from;
            }
        }
        if at <= start { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if written < end - start {
        return Ok(Verdict::Known(false));
    }
    let pieces = pieces::pieces(kv, prefix, start, end - start)?;
    Ok(Verdict::Read { len: bytes.len(), pieces })
}

/// The answer if the bytes lie in one piece in the record of the array's first block, as those of an inode do: known from metadata
/// alone, it needs no plan. `None`: look further.
fn inline_equals(
    kv: &dyn Kv,
    prefix: &AkeyPrefix,
    offset: u64,
    bytes: &[u8],
) -> Result<Option<bool>, Abort> {
    let mut known = None;
    kv.with(&prefix.array(0), &mut |value| {
        let inside = inline_run_of(value).and_then(|(start, run)| {
            let from = usize::try_from(offset).ok()?.checked_sub(start)?;
            run.get(from..from.checked_add(bytes.len())?)
        });
        known = inside.map(|stored| stored == bytes);
    })?;
    Ok(known)
}

fn is_empty(ground: &dyn Ground, object: ObjectId, except: &[Dkey]) -> Result<bool, Abort> {
    let ordering = Ordering::of(object)?;
    let mut places = Vec::with_capacity(except.len());
    for dkey in except {
        places.extend(ground.place(object, dkey)?);
    }
    let kv = ground.kv(object)?;
    let mut from = KeyBuf::from_slice(&[0]);
    // Every dkey that is met is an exception or the answer, so this ends after a few steps.
    loop {
        let Some(place) = next_place(&*kv, ordering, &from)? else { return Ok(true) };
        if !places.contains(&place) {
            return Ok(false);
        }
        from = place.end();
    }
}

/// The first dkey with a key `>= from`.
pub(crate) fn next_place(
    kv: &dyn Kv,
    ordering: Ordering,
    from: &[u8],
) -> Result<Option<Place>, Abort> {
    let mut place = None;
    kv.scan(from, &mut |key, _| {
        place = key::parse(ordering, key).map(|parsed| Place(KeyBuf::from_slice(parsed.place)));
        ControlFlow::Break(())
    })?;
    Ok(place)
}

/// The greatest dkey with written bytes under `akey` and their end there, of an object with `u64` dkeys.
pub(crate) fn array_end(kv: &dyn Kv, akey: &Akey) -> Result<(u64, u64), Abort> {
    let mut below: Option<KeyBuf> = None;
    loop {
        let mut last = None;
        kv.scan_back(below.as_deref(), &mut |key, _| {
            last = key.first_chunk().map(|number| u64::from_be_bytes(*number));
            ControlFlow::Break(())
        })?;
        let Some(number) = last else { return Ok((0, 0)) };
        let place = Place::of_number(number);
        match array::end(kv, &place.akey(akey))? {
            0 => below = Some(place.0),
            end => return Ok((number, end)),
        }
    }
}

/// The dkey of a place, from the place or from its record.
pub(crate) fn dkey_at(
    kv: &dyn Kv,
    ordering: Ordering,
    place: &Place,
) -> Result<Option<Dkey>, Abort> {
    match ordering {
        Ordering::Number => Ok(Some(place.0.to_vec().into())),
        Ordering::Lexical => Ok(key::unescape(&place.0).map(Dkey::from)),
        Ordering::Hash => {
            let mut dkey = None;
            kv.with(&place.dkey_record(), &mut |value| dkey = dkey_of(value).map(Dkey::from))?;
            Ok(dkey)
        }
    }
}
