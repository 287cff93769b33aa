//! Keys inside an object: where a dkey, an akey and a piece of an array sit in its ordered map.
//!
//! # On disk
//! ```text
//! place            u64 dkeys: number (8, big-endian); hashed: order (8, big-endian); lexical: escaped bytes
//! dkey record      place 00                                   hashed dkeys only
//! single value     place 01 len(akey) (2, big-endian) akey 00
//! array extent     place 01 len(akey) (2, big-endian) akey 01 offset (8, big-endian)
//! ```
//! FORMAT.md, "Keys inside an object".
//!
//! # Invariants
//! 1. All records of a dkey are neighbours; of an akey, too; the dkey record comes first, extents in order of offset.
//! 2. No key is longer than [`KEY_MAX`] less what the history adds to it.
//! 3. The order of a hashed dkey is at least [`ORDER_MIN`] and below 2^63, and stays the same while the dkey exists.
//!
//! # Not here
//! Values: record.rs. Keys of the history: history.rs.

use daos_types::{Akey, Dkey, Error, KEY_BYTES_MAX, ObjectId, ObjectType};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::kv::{KEY_MAX, Kv, after_prefix};
use crate::pages::Abort;

/// What the history puts around an object key: object id, shard, kind, epoch.
pub(crate) const HISTORY_KEY_BYTES: usize = 16 + 4 + 1 + 8;
/// Cursors below this are never given to a hashed dkey: 0 is the start, 1 and 2 are `.` and `..`.
pub(crate) const ORDER_MIN: u64 = 3;
/// Dkeys that may share one hash.
const COLLISIONS_MAX: u64 = 256;

const DKEY: u8 = 0;
const AKEY: u8 = 1;
const SINGLE: u8 = 0;
const ARRAY: u8 = 1;

const ESCAPE_GROUP: usize = 8;
const ESCAPED_MAX: usize = (KEY_BYTES_MAX / ESCAPE_GROUP + 1) * (ESCAPE_GROUP + 1);
const _: () = assert!(ESCAPED_MAX + 1 + 2 + KEY_BYTES_MAX + 1 + 8 + HISTORY_KEY_BYTES <= KEY_MAX);

/// The seeded hash that orders dkeys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DkeyHash {
    pub seed: u64,
    /// Bits of the hash that are used; fewer than 55 only in tests, to make collisions.
    pub bits: u32,
}

impl DkeyHash {
    /// May a dkey have this order?
    pub fn allows(self, dkey: &[u8], order: u64) -> bool {
        let base = self.base(dkey);
        order >= ORDER_MIN && (base..base + COLLISIONS_MAX).contains(&order)
    }

    /// The first order that a dkey may have; it has this or one of the 255 after it.
    fn base(self, dkey: &[u8]) -> u64 {
        let hash = xxh3_64_with_seed(dkey, self.seed);
        (hash >> (64 - self.bits)) << 8
    }
}

/// How an object orders its dkeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    Number,
    Hash,
    Lexical,
}

impl Ordering {
    pub fn of(object: ObjectId) -> Result<Self, Error> {
        match object.object_type() {
            Some(ObjectType::MultiHashed) => Ok(Self::Hash),
            Some(ObjectType::DkeyUint64 | ObjectType::ArrayByte) => Ok(Self::Number),
            Some(ObjectType::DkeyLexical) => Ok(Self::Lexical),
            None => Err(Error::Invalid("the object's type is not known")),
        }
    }
}

/// A key, mostly without memory of its own.
pub(crate) type KeyBuf = SmallVec<[u8; 64]>;

/// The beginning of all keys of one dkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub KeyBuf);

impl Place {
    pub fn of_number(number: u64) -> Self {
        Self(KeyBuf::from_slice(&number.to_be_bytes()))
    }

    pub fn of_lexical(dkey: &[u8]) -> Self {
        let mut bytes = KeyBuf::with_capacity(dkey.len() + dkey.len() / ESCAPE_GROUP + 10);
        escape(dkey, &mut bytes);
        Self(bytes)
    }

    /// Number or order; `None` for lexical places.
    pub fn number(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.0.as_slice().try_into().ok()?))
    }

    pub fn dkey_record(&self) -> KeyBuf {
        self.with(&[DKEY])
    }

    /// Begins the keys of all akeys.
    pub fn akeys(&self) -> KeyBuf {
        self.with(&[AKEY])
    }

    /// Begins the keys of one akey.
    pub fn akey(&self, akey: &Akey) -> AkeyPrefix {
        let akey = akey.as_bytes();
        let mut prefix = KeyBuf::with_capacity(self.0.len() + 3 + akey.len() + 9);
        prefix.extend_from_slice(&self.0);
        prefix.push(AKEY);
        prefix.extend_from_slice(&(akey.len() as u16).to_be_bytes());
        prefix.extend_from_slice(akey);
        AkeyPrefix(prefix)
    }

    /// The smallest key after everything of this dkey.
    pub fn end(&self) -> KeyBuf {
        self.with(&[AKEY + 1])
    }

    fn with(&self, tail: &[u8]) -> KeyBuf {
        joined(&self.0, tail)
    }
}

/// The beginning of all keys of one akey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AkeyPrefix(pub KeyBuf);

impl AkeyPrefix {
    pub fn single(&self) -> KeyBuf {
        joined(&self.0, &[SINGLE])
    }

    pub fn array(&self, offset: u64) -> KeyBuf {
        let mut key = joined(&self.0, &[ARRAY]);
        key.extend_from_slice(&offset.to_be_bytes());
        key
    }

    /// Begins the keys of the akey's extents.
    #[cfg(test)]
    pub fn extents(&self) -> KeyBuf {
        joined(&self.0, &[ARRAY])
    }

    /// The smallest key after everything of this akey.
    pub fn end(&self) -> KeyBuf {
        joined(&self.0, &[ARRAY + 1])
    }

    /// What a key that begins with this prefix names.
    pub fn part(&self, key: &[u8]) -> Option<Part> {
        part(key.strip_prefix(self.0.as_slice())?)
    }
}

fn joined(start: &[u8], tail: &[u8]) -> KeyBuf {
    let mut key = KeyBuf::with_capacity(start.len() + tail.len() + 8);
    key.extend_from_slice(start);
    key.extend_from_slice(tail);
    key
}

/// What a key names under its akey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Single,
    Extent(u64),
}

fn part(tail: &[u8]) -> Option<Part> {
    match *tail {
        [SINGLE] => Some(Part::Single),
        [ARRAY, ref offset @ ..] => Some(Part::Extent(u64::from_be_bytes(offset.try_into().ok()?))),
        _ => None,
    }
}

/// A key of an object, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub place: &'a [u8],
    /// `None`: the dkey record.
    pub akey: Option<(&'a [u8], Part)>,
}

/// Is it the key of a hashed dkey's own record? Of an object with other dkeys the answer means nothing.
pub(crate) fn is_dkey_record(key: &[u8]) -> bool {
    key.len() == 9 && key[8] == DKEY
}

/// Takes a key apart; `None` if it is none of this format.
pub(crate) fn parse(ordering: Ordering, key: &[u8]) -> Option<Parsed<'_>> {
    let place_bytes = match ordering {
        Ordering::Number | Ordering::Hash => 8,
        Ordering::Lexical => escaped_bytes(key)?,
    };
    let (place, rest) = key.split_at_checked(place_bytes)?;
    match *rest {
        [DKEY] if ordering == Ordering::Hash => Some(Parsed { place, akey: None }),
        [AKEY, high, low, ref tail @ ..] => {
            let akey_bytes = u16::from_be_bytes([high, low]) as usize;
            let (akey, tail) = tail.split_at_checked(akey_bytes)?;
            Some(Parsed { place, akey: Some((akey, part(tail)?)) })
        }
        _ => None,
    }
}

/// The place of a dkey that needs no look; `None`: it is hashed.
pub(crate) fn place_of(ordering: Ordering, dkey: &Dkey) -> Result<Option<Place>, Abort> {
    match ordering {
        Ordering::Number => Ok(Some(Place::of_number(number_of(dkey)?))),
        Ordering::Lexical => Ok(Some(Place::of_lexical(dkey.as_bytes()))),
        Ordering::Hash => Ok(None),
    }
}

/// Where a dkey is, if it is there, or (numbers and lexical dkeys) where it would be.
pub(crate) fn find(
    kv: &dyn Kv,
    hash: DkeyHash,
    ordering: Ordering,
    dkey: &Dkey,
) -> Result<Option<Place>, Abort> {
    if let Some(place) = place_of(ordering, dkey)? {
        return Ok(Some(place));
    }
    Ok(probe(kv, hash, dkey.as_bytes())?.place())
}

/// Does the dkey have a value?
pub(crate) fn dkey_exists(kv: &dyn Kv, place: &Place) -> Result<bool, Abort> {
    starts_with(kv, &place.akeys())
}

/// Is there a key that begins with `prefix`?
pub(crate) fn starts_with(kv: &dyn Kv, prefix: &[u8]) -> Result<bool, Abort> {
    let mut found = false;
    let end = after_prefix(prefix).expect("a prefix ends in a kind, which is small");
    kv.scan_up_to(prefix, &end, &mut |key, _| {
        found = key.starts_with(prefix);
        std::ops::ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The dkey that a lexical place stands for.
pub(crate) fn unescape(place: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(place.len());
    for group in place.chunks(ESCAPE_GROUP + 1) {
        let (&used, group) = group.split_last()?;
        bytes.extend_from_slice(group.get(..(used as usize).min(ESCAPE_GROUP))?);
    }
    Some(bytes)
}

/// What a look for a hashed dkey found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Found(u64),
    /// Not there; the smallest order that is free.
    Free(u64),
    Full,
}

impl Probe {
    /// Where the dkey is.
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Found(order) => Some(Place::of_number(order)),
            Self::Free(_) | Self::Full => None,
        }
    }
}

/// Looks for a hashed dkey.
pub(crate) fn probe(kv: &dyn Kv, hash: DkeyHash, dkey: &[u8]) -> Result<Probe, Abort> {
    let base = hash.base(dkey);
    let end = base + COLLISIONS_MAX;
    let mut free = base.max(ORDER_MIN);
    let mut from = free;
    let to = Place::of_number(end).dkey_record();
    loop {
        let mut next = None;
        kv.scan_up_to(&Place::of_number(from).dkey_record(), &to, &mut |key, value| {
            next = key.first_chunk().map(|order| {
                let is_dkey = crate::record::dkey_of(value) == Some(dkey);
                (u64::from_be_bytes(*order), key.len() == 9 && is_dkey)
            });
            std::ops::ControlFlow::Break(())
        })?;
        match next {
            Some((order, true)) if order < end => return Ok(Probe::Found(order)),
            Some((order, false)) if order < end => {
                if order == free {
                    free += 1;
                }
                from = order + 1;
            }
            _ if free < end => return Ok(Probe::Free(free)),
            _ => return Ok(Probe::Full),
        }
    }
}

fn number_of(dkey: &Dkey) -> Result<u64, Error> {
    dkey.to_u64().ok_or(Error::Invalid("dkeys of this object type have 8 bytes"))
}

/// Groups of 8 bytes, each followed by how many of them count, 9 when another group follows: sorts as the bytes do.
fn escape(bytes: &[u8], out: &mut KeyBuf) {
    let mut groups = bytes.chunks(ESCAPE_GROUP).peekable();
    while let Some(group) = groups.next() {
        out.extend_from_slice(group);
        out.resize(out.len() + ESCAPE_GROUP - group.len(), 0);
        let more = groups.peek().is_some();
        out.push(if more { ESCAPE_GROUP as u8 + 1 } else { group.len() as u8 });
    }
}

fn escaped_bytes(key: &[u8]) -> Option<usize> {
    let groups = key.chunks_exact(ESCAPE_GROUP + 1);
    let last =
        groups.map(|group| group[ESCAPE_GROUP]).position(|used| used as usize <= ESCAPE_GROUP)?;
    Some((last + 1) * (ESCAPE_GROUP + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KvMut, MapKv};
    use crate::record::dkey_record;
    use daos_types::Epoch;

    fn hash(bits: u32) -> DkeyHash {
        DkeyHash { seed: 1, bits }
    }

    #[test]
    fn escaped_keys_sort_as_their_bytes_and_come_back() {
        let mut keys: Vec<Vec<u8>> = vec![vec![0], vec![0, 0], vec![1], vec![255; 8], vec![255; 9]];
        for len in 1..40 {
            keys.push((0..len).map(|i| (i * 7 % 3) as u8).collect());
            keys.push(vec![0; len]);
        }
        keys.sort();
        keys.dedup();
        let places: Vec<Place> = keys.iter().map(|key| Place::of_lexical(key)).collect();
        assert!(places.is_sorted_by(|a, b| a.0 < b.0));
        for (key, place) in keys.iter().zip(&places) {
            assert_eq!(unescape(&place.0).as_ref(), Some(key));
            let record = place.akey(&"a".into()).array(5);
            let parsed = parse(Ordering::Lexical, &record).unwrap();
            assert_eq!(parsed.place, &place.0[..]);
            assert_eq!(parsed.akey, Some((b"a".as_slice(), Part::Extent(5))));
        }
    }

    #[test]
    fn longest_keys_fit() {
        let place = Place::of_lexical(&[0; KEY_BYTES_MAX]);
        let key = place.akey(&vec![1; KEY_BYTES_MAX].into()).array(u64::MAX);
        assert!(key.len() + HISTORY_KEY_BYTES <= KEY_MAX);
    }

    #[test]
    fn keys_of_a_dkey_are_neighbours_in_the_documented_order() {
        let place = Place::of_number(7);
        let akey = place.akey(&"a".into());
        let keys =
            [place.dkey_record(), place.akeys(), akey.single(), akey.array(0), akey.array(9)];
        assert!(keys.is_sorted());
        assert!(keys[4] < akey.end() && akey.end() < place.end());
        assert!(place.end() < Place::of_number(8).dkey_record());
        assert_eq!(akey.part(&keys[4]), Some(Part::Extent(9)));
        assert_eq!(parse(Ordering::Hash, &keys[0]).unwrap().akey, None);
        assert_eq!(parse(Ordering::Number, &keys[0]), None);
    }

    #[test]
    fn colliding_dkeys_keep_their_orders_and_fill_gaps() {
        let mut map = MapKv::new();
        let dkeys: Vec<Dkey> = (0..200u32).map(|i| i.to_be_bytes().to_vec().into()).collect();
        let put = |map: &mut MapKv, dkey: &Dkey| {
            let Probe::Free(order) = probe(map, hash(1), dkey.as_bytes()).unwrap() else {
                panic!("a new dkey finds an order that is free");
            };
            let place = Place::of_number(order);
            let record = dkey_record(Epoch(1), dkey.as_bytes());
            map.put(&place.dkey_record(), &record).unwrap();
            map.put(&place.akey(&"a".into()).single(), b"x").unwrap();
            place
        };
        let places: Vec<Place> = dkeys.iter().map(|dkey| put(&mut map, dkey)).collect();
        for (dkey, place) in dkeys.iter().zip(&places) {
            assert!(place.number().unwrap() >= ORDER_MIN);
            let found = find(&map, hash(1), Ordering::Hash, dkey).unwrap();
            assert_eq!(found.as_ref(), Some(place));
        }
        let gone = &places[17];
        map.remove(&gone.dkey_record()[..]).unwrap();
        map.remove(&gone.akey(&"a".into()).single()[..]).unwrap();
        assert_eq!(find(&map, hash(1), Ordering::Hash, &dkeys[17]).unwrap(), None);
        assert_eq!(find(&map, hash(1), Ordering::Hash, &dkeys[150]).unwrap().unwrap(), places[150]);
        assert_eq!(put(&mut map, &dkeys[17]), *gone);
    }

    #[test]
    fn too_many_collisions_are_refused() {
        let mut map = MapKv::new();
        for i in 0..600u32 {
            let dkey: Dkey = i.to_be_bytes().to_vec().into();
            match probe(&map, hash(1), dkey.as_bytes()).unwrap() {
                Probe::Free(order) => {
                    let record = dkey_record(Epoch(1), dkey.as_bytes());
                    map.put(&Place::of_number(order).dkey_record(), &record).unwrap();
                }
                Probe::Full => return assert!(i >= 256),
                Probe::Found(_) => panic!("it is not there"),
            }
        }
        panic!("two hashes do not hold 600 dkeys");
    }
}
