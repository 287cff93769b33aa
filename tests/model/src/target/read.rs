//! Fetches, listings and extents of the model, over one view.

use daos_types::rpc::{
    Cursor, ExtentInfo, Extents, FetchPart, Fetched, KeyRef, List, ListWhat, Listed, ListedDkey,
    ObjectInfo, Value,
};
use daos_types::{Akey, Error, ObjectId, Result};

use super::view::{Held, Order, Stored, View};

/// Answers one part of a fetch. `newest`: not at a snapshot.
pub fn fetch(view: &View, seed: u64, newest: bool, part: &FetchPart) -> Result<Fetched> {
    Ok(match part {
        FetchPart::Single(key) => Fetched::Single(match view.value(seed, key) {
            None => None,
            Some(Stored::Single(bytes)) => Some(bytes.clone()),
            Some(Stored::Array(_)) => return Err(Error::Invalid("the akey holds an array")),
        }),
        FetchPart::Array { key, offset, len } => fetch_array(view, seed, key, *offset, *len)?,
        FetchPart::Akeys { object, dkey, prefix, array_bytes_max } => {
            let held = view.find(seed, *object, dkey).map(|(_, held)| held);
            let akeys = held.into_iter().flat_map(|held| &held.akeys);
            let named = akeys.filter(|(akey, _)| akey.as_bytes().starts_with(prefix));
            Fetched::Akeys(
                named.map(|(akey, value)| (akey.clone(), value.head(*array_bytes_max))).collect(),
            )
        }
        FetchPart::Object { object, akey } => {
            let record = view.records.get(object);
            Fetched::Object(record.map(|data_epoch| ObjectInfo {
                data_epoch: *data_epoch,
                array_end: view.array_end(*object, akey),
                stored_bytes: if newest { view.stored_bytes(*object) } else { 0 },
            }))
        }
    })
}

fn fetch_array(view: &View, seed: u64, key: &KeyRef, offset: u64, len: u64) -> Result<Fetched> {
    match view.value(seed, key) {
        None => Ok(Fetched::Array(vec![0; len as usize].into())),
        Some(Stored::Single(_)) => Err(Error::Invalid("the akey holds a single value")),
        Some(Stored::Array(array)) => Ok(Fetched::Array(array.read(offset, len))),
    }
}

pub fn list(view: &View, list: &List) -> Listed {
    match &list.what {
        ListWhat::Dkeys { object, akeys, array_bytes_max } => {
            list_dkeys(view, list, *object, akeys, *array_bytes_max)
        }
        ListWhat::Objects => list_objects(view, list),
    }
}

fn list_dkeys(view: &View, list: &List, object: ObjectId, akeys: &[Akey], head: u64) -> Listed {
    let mut room = Room::new(list);
    let mut listed = Listed { end: true, ..Listed::default() };
    for (order, held) in view.dkeys_of(object).filter(|(order, _)| is_after(order, &list.after)) {
        let entry = ListedDkey {
            cursor: order.cursor(),
            dkey: held.dkey.clone(),
            values: values(held, akeys, head),
        };
        if !room.takes(entry_bytes(&entry)) {
            listed.end = false;
            break;
        }
        listed.dkeys.push(entry);
    }
    listed
}

fn list_objects(view: &View, list: &List) -> Listed {
    let mut room = Room::new(list);
    let mut listed = Listed { end: true, ..Listed::default() };
    for object in view.records.keys() {
        let passed = match &list.after {
            Cursor::Key(key) => object.to_bytes().as_slice() <= key,
            _ => false,
        };
        if passed {
            continue;
        }
        if !room.takes(16) {
            listed.end = false;
            break;
        }
        listed.objects.push(*object);
    }
    listed
}

fn is_after(order: &Order, after: &Cursor) -> bool {
    match (order, after) {
        (Order::Number(number), Cursor::Number(after)) => number > after,
        (Order::Bytes(bytes), Cursor::Key(after)) => bytes > after,
        _ => true,
    }
}

/// The values of those of `akeys` that are there, in the order in which they were asked for.
fn values(held: &Held, akeys: &[Akey], head: u64) -> Vec<(Akey, Value)> {
    let found =
        akeys.iter().filter_map(|akey| Some((akey.clone(), held.akeys.get(akey)?.head(head))));
    found.collect()
}

fn entry_bytes(entry: &ListedDkey) -> u64 {
    let value_bytes = |value: &Value| match value {
        Value::Single(bytes) | Value::Array(bytes) => bytes.len(),
    };
    let values =
        entry.values.iter().map(|(akey, value)| akey.as_bytes().len() + value_bytes(value));
    (entry.dkey.as_bytes().len() + values.sum::<usize>()) as u64
}

/// What still fits into a listing.
struct Room {
    entries: u64,
    bytes: u64,
    empty: bool,
}

impl Room {
    fn new(list: &List) -> Self {
        Self { entries: list.entries_max.into(), bytes: list.bytes_max.into(), empty: true }
    }

    fn takes(&mut self, bytes: u64) -> bool {
        let fits = self.empty || (self.entries > 0 && bytes <= self.bytes);
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        fits
    }
}

pub fn extents(view: &View, asked: &Extents) -> Vec<ExtentInfo> {
    let mut found = Vec::new();
    for (order, held) in view.dkeys_of(asked.object) {
        let (Order::Number(dkey), Some(Stored::Array(array))) =
            (order, held.akeys.get(&asked.akey))
        else {
            continue;
        };
        if *dkey < asked.dkey {
            continue;
        }
        let from = if *dkey == asked.dkey { asked.offset } else { 0 };
        let ranges = array.ranges(from).into_iter();
        found.extend(ranges.map(|(offset, len, written)| ExtentInfo {
            dkey: *dkey,
            offset,
            len,
            written,
        }));
        if found.len() >= asked.extents_max as usize {
            found.truncate(asked.extents_max as usize);
            break;
        }
    }
    found
}
