//! What a fetch or listing finds in the maps of objects, before any device is read.
//!
//! # Not here
//! Reading blocks and making replies: fetch.rs, list.rs.

use std::ops::ControlFlow;

use daos_types::rpc::{Cursor, ExtentInfo, Extents, FetchPart, KeyRef, List, ListWhat, ObjectInfo};
use daos_types::{Akey, Dkey, Epoch, Error, ObjectId};

use crate::array;
use crate::condition::{array_end, dkey_at};
use crate::ground::STRANGE;
use crate::key::{self, AkeyPrefix, DkeyHash, Ordering, Part, Place, parse};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::pieces::{Piece, pieces, single_pieces};

/// The bytes of a value: how many, and where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub len: usize,
    pub pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(crate) enum SourceOf {
    Single(Source),
    Array(Source),
}

impl SourceOf {
    pub fn len(&self) -> usize {
        match self {
            Self::Single(source) | Self::Array(source) => source.len,
        }
    }
}

/// What answers one part of a fetch.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Single(Option<Source>),
    Array(Source),
    Akeys(Vec<(Akey, SourceOf)>),
    Object(Option<ObjectInfo>),
}

/// An object's record, as far as readers see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectState {
    pub data_epoch: Epoch,
    pub stored_bytes: u64,
}

/// An object at one moment.
pub(crate) struct ObjectAt<'a> {
    pub object: ObjectId,
    pub hash: DkeyHash,
    pub kv: &'a dyn Kv,
    /// `None`: it has no record.
    pub state: Option<ObjectState>,
}

impl ObjectAt<'_> {
    fn prefix(&self, key: &KeyRef) -> Result<Option<AkeyPrefix>, Abort> {
        let place = key::find(self.kv, self.hash, Ordering::of(self.object)?, &key.dkey)?;
        Ok(place.map(|place| place.akey(&key.akey)))
    }

    pub fn find(&self, part: &FetchPart) -> Result<Found, Abort> {
        match part {
            FetchPart::Single(key) => Ok(Found::Single(match self.prefix(key)? {
                Some(prefix) => self.single(&prefix)?,
                None => None,
            })),
            FetchPart::Array { key, offset, len } => {
                let pieces = match self.prefix(key)? {
                    Some(prefix) => array_pieces(self.kv, &prefix, *offset, *len)?,
                    None => Vec::new(),
                };
                Ok(Found::Array(Source { len: *len as usize, pieces }))
            }
            FetchPart::Akeys { dkey, prefix, array_bytes_max, .. } => {
                self.akeys(dkey, prefix, *array_bytes_max).map(Found::Akeys)
            }
            FetchPart::Object { akey, .. } => self.info(akey).map(Found::Object),
        }
    }

    fn single(&self, prefix: &AkeyPrefix) -> Result<Option<Source>, Abort> {
        let mut found = Ok(None);
        self.kv.scan_up_to(&prefix.single(), &prefix.end(), &mut |key, value| {
            found = match prefix.part(key) {
                Some(Part::Single) => {
                    single_pieces(value).map(|(len, pieces)| Some(Source { len, pieces }))
                }
                Some(Part::Extent(_)) => Err(Error::Invalid("the akey holds an array").into()),
                None => Ok(None),
            };
            ControlFlow::Break(())
        })?;
        found
    }

    fn info(&self, akey: &Akey) -> Result<Option<ObjectInfo>, Abort> {
        let Some(state) = self.state else { return Ok(None) };
        let numbered = Ordering::of(self.object)? == Ordering::Number;
        let array_end = if numbered { array_end(self.kv, akey)? } else { (0, 0) };
        let ObjectState { data_epoch, stored_bytes } = state;
        Ok(Some(ObjectInfo { data_epoch, array_end, stored_bytes }))
    }

    /// The value of an akey, an array up to its end or `head` bytes.
    fn value(&self, prefix: &AkeyPrefix, head: u64) -> Result<Option<SourceOf>, Abort> {
        let mut found = Ok(None);
        let mut is_array = false;
        self.kv.scan_up_to(&prefix.single(), &prefix.end(), &mut |key, value| {
            match prefix.part(key) {
                Some(Part::Single) => found = single_pieces(value).map(Some),
                Some(Part::Extent(_)) => is_array = true,
                None => {}
            }
            ControlFlow::Break(())
        })?;
        if is_array {
            let len = array::end(self.kv, prefix)?.min(head);
            let pieces = array_pieces(self.kv, prefix, 0, len)?;
            return Ok(Some(SourceOf::Array(Source { len: len as usize, pieces })));
        }
        Ok(found?.map(|(len, pieces)| SourceOf::Single(Source { len, pieces })))
    }

    fn akeys(&self, dkey: &Dkey, begin: &[u8], head: u64) -> Result<Vec<(Akey, SourceOf)>, Abort> {
        let ordering = Ordering::of(self.object)?;
        let Some(place) = key::find(self.kv, self.hash, ordering, dkey)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut from = place.akeys();
        while let Some(akey) = next_akey(self.kv, ordering, &place, &from)? {
            let prefix = place.akey(&akey);
            if akey.as_bytes().starts_with(begin)
                && let Some(value) = self.value(&prefix, head)?
            {
                found.push((akey, value));
            }
            from = prefix.end();
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Adds the entries of a listing after its cursor, until the page or this step is full.
    pub fn list(&self, asked: &List, page: &mut Page) -> Result<(), Abort> {
        let ListWhat::Dkeys { akeys, array_bytes_max, .. } = &asked.what else {
            return Err(Error::Invalid("this is no listing of dkeys").into());
        };
        let ordering = Ordering::of(self.object)?;
        let mut step_bytes = 0;
        let mut from = page.from(&asked.after, ordering);
        while let Some(place) = next_place(self.kv, ordering, &from)? {
            from = place.end().into_vec();
            let dkey = dkey_at(self.kv, ordering, &place)?.ok_or(STRANGE)?;
            if !key::dkey_exists(self.kv, &place)? {
                continue;
            }
            let mut values = Vec::new();
            for akey in akeys {
                if let Some(value) = self.value(&place.akey(akey), *array_bytes_max)? {
                    values.push((akey.clone(), value));
                }
            }
            let cursor = cursor_of(&place, &dkey);
            let bytes = page.push(asked, Entry { cursor, dkey, values });
            step_bytes += bytes.unwrap_or(STEP_BYTES);
            if step_bytes >= STEP_BYTES || page.full {
                return Ok(());
            }
        }
        page.end = true;
        Ok(())
    }

    /// Adds extents from the page's place on, until enough are there or this step is full.
    pub fn extents(&self, asked: &Extents, page: &mut ExtentPage) -> Result<(), Abort> {
        let mut from = match page.next.take() {
            Some(next) => next,
            None => self.first_extent(asked)?,
        };
        let mut records = 0;
        let mut more = None;
        self.kv.scan(&std::mem::take(&mut from), &mut |key, value| {
            if records == STEP_RECORDS || page.is_full(asked) {
                more = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            records += 1;
            if let Some(parsed) = parse(Ordering::Number, key)
                && let Some((akey, Part::Extent(offset))) = parsed.akey
                && akey == asked.akey.as_bytes()
                && let Some(number) = parsed.place.first_chunk()
            {
                page.push(asked, u64::from_be_bytes(*number), &array::decode(offset, value));
            }
            ControlFlow::Continue(())
        })?;
        page.end = more.is_none() || page.is_full(asked);
        page.next = more;
        Ok(())
    }

    /// The key of the first extent that reaches past the place that was asked for.
    fn first_extent(&self, asked: &Extents) -> Result<Vec<u8>, Abort> {
        let prefix = Place::of_number(asked.dkey).akey(&asked.akey);
        let offset = asked.offset.min(daos_types::rpc::ARRAY_OFFSET_MAX);
        let mut first = Place::of_number(asked.dkey).akeys().into_vec();
        self.kv.scan_back(Some(&prefix.array(offset + 1)), &mut |key, _| {
            if let Some(Part::Extent(_)) = prefix.part(key) {
                first = key.to_vec();
            }
            ControlFlow::Break(())
        })?;
        Ok(first)
    }
}

/// Bytes of entries that one step of a listing gathers: a step runs without waiting.
const STEP_BYTES: usize = 64 << 10;
const STEP_RECORDS: usize = 512;

/// A dkey of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub cursor: Cursor,
    pub dkey: Dkey,
    pub values: Vec<(Akey, SourceOf)>,
}

/// The part of a listing that goes into one reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub entries: Vec<Entry>,
    bytes: u64,
    /// No more fits.
    pub full: bool,
    /// Nothing comes after the last entry.
    pub end: bool,
}

impl Page {
    fn from(&self, after: &Cursor, ordering: Ordering) -> Vec<u8> {
        let after = self.entries.last().map_or(after, |entry| &entry.cursor);
        match (after, ordering) {
            (Cursor::Number(number), _) => Place::of_number(*number).end().into_vec(),
            (Cursor::Key(key), Ordering::Lexical) => Place::of_lexical(key).end().into_vec(),
            _ => vec![0],
        }
    }

    /// The bytes that the entry takes; `None`: it does not fit.
    fn push(&mut self, asked: &List, entry: Entry) -> Option<usize> {
        let values = entry.values.iter().map(|(akey, value)| akey.as_bytes().len() + value.len());
        let bytes = entry.dkey.as_bytes().len() + values.sum::<usize>();
        let after = self.bytes + bytes as u64;
        let has_room = self.entries.len() < asked.entries_max as usize
            && (after <= u64::from(asked.bytes_max) || self.entries.is_empty());
        if !has_room {
            self.full = true;
            return None;
        }
        self.bytes = after;
        self.entries.push(entry);
        Some(bytes)
    }
}

/// Extents that go into one reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtentPage {
    pub extents: Vec<ExtentInfo>,
    next: Option<Vec<u8>>,
    pub end: bool,
}

impl ExtentPage {
    /// One more than asked for: the last one may still grow.
    fn is_full(&self, asked: &Extents) -> bool {
        self.extents.len() > asked.extents_max as usize
    }

    fn push(&mut self, asked: &Extents, dkey: u64, extent: &array::Extent) {
        let first = if dkey == asked.dkey { asked.offset } else { 0 };
        for (start, end, written) in extent.body.spans() {
            let (start, end) = ((extent.offset() + start).max(first), extent.offset() + end);
            if start >= end {
                continue;
            }
            match self.extents.last_mut() {
                Some(last)
                    if (last.dkey, last.offset + last.len, last.written)
                        == (dkey, start, written) =>
                {
                    last.len += end - start;
                }
                _ => {
                    self.extents.push(ExtentInfo { dkey, offset: start, len: end - start, written })
                }
            }
        }
    }
}

fn array_pieces(
    kv: &dyn Kv,
    prefix: &AkeyPrefix,
    offset: u64,
    len: u64,
) -> Result<Vec<Piece>, Abort> {
    pieces(kv, prefix, offset, len).map_err(|abort| match abort {
        Abort::Error(Error::Invalid(_)) => Error::Invalid("the akey holds a single value").into(),
        other => other,
    })
}

fn next_place(kv: &dyn Kv, ordering: Ordering, from: &[u8]) -> Result<Option<Place>, Abort> {
    crate::condition::next_place(kv, ordering, from)
}

fn next_akey(
    kv: &dyn Kv,
    ordering: Ordering,
    place: &Place,
    from: &[u8],
) -> Result<Option<Akey>, Abort> {
    let mut found = None;
    kv.scan_up_to(from, &place.end(), &mut |key, _| {
        if let Some(parsed) = parse(ordering, key)
            && *parsed.place == *place.0
            && let Some((akey, _)) = parsed.akey
        {
            found = Some(Akey::from(akey));
        }
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn cursor_of(place: &Place, dkey: &Dkey) -> Cursor {
    match place.number() {
        // A lexical place is never 8 bytes long: its groups have 9.
        Some(number) => Cursor::Number(number),
        None => Cursor::Key(bytes::Bytes::copy_from_slice(dkey.as_bytes())),
    }
}
