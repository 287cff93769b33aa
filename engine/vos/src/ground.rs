//! The newest view of one container as the operations of a transaction see and change it.
//!
//! Two implementations: a plan (drafts over a view; nothing is stored) and a transaction.

use std::cell::RefCell;

use daos_types::{Dkey, Epoch, Error, ObjectId};
use smallvec::{SmallVec, smallvec};

use crate::array::{Edit, Moment};
use crate::key::{self, DkeyHash, KeyBuf, Ordering, Place, Probe};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::record::{Record, dkey_record};
use crate::supply::{Filled, Need, Supply};

/// Most records that one operation removes one by one, and most bytes of them; more are detached.
pub(crate) const RECORDS_MAX: usize = 192;
const REMOVE_BYTES_MAX: usize = 48 << 10;

pub(crate) trait Ground {
    fn moment(&self) -> Moment;
    fn hash(&self) -> DkeyHash;

    /// Where dkeys were found so far. Every change of an object's keys is told to it.
    fn places(&self) -> &Places;

    /// The object's map; an empty one when there is no object.
    fn kv(&self, object: ObjectId) -> Result<Box<dyn Kv + '_>, Abort>;

    /// Does the object have a record?
    fn has_record(&self, object: ObjectId) -> Result<bool, Abort>;

    /// Carries out an edit. A put makes the object's record if there is none.
    fn apply(&mut self, object: ObjectId, edit: Edit) -> Result<(), Abort>;

    /// The object's arrays changed now. It has a record.
    fn touch(&mut self, object: ObjectId) -> Result<(), Abort>;

    /// The object and its record go.
    fn remove_object(&mut self, object: ObjectId) -> Result<(), Abort>;

    /// Everything with `from <= key < to` goes, however much it is.
    fn detach(&mut self, object: ObjectId, from: &[u8], to: Option<&[u8]>) -> Result<(), Abort>;

    /// The blocks that answer a need.
    fn supply(&self, need: Need) -> Result<Vec<Filled>, Abort>;

    /// Where a dkey is; `None`: it is not there.
    fn place(&self, object: ObjectId, dkey: &Dkey) -> Result<Option<Place>, Abort> {
        let ordering = Ordering::of(object)?;
        match key::place_of(ordering, dkey)? {
            Some(place) => Ok(Some(place)),
            None => Ok(self.probe(object, dkey)?.place()),
        }
    }

    /// Looks for a hashed dkey, once.
    fn probe(&self, object: ObjectId, dkey: &Dkey) -> Result<Probe, Abort> {
        if let Some(known) = self.places().known(object, dkey) {
            return Ok(known);
        }
        let probe = key::probe(&*self.kv(object)?, self.hash(), dkey.as_bytes())?;
        self.places().found(object, dkey, probe);
        Ok(probe)
    }

    /// Where a dkey is or goes; a new one gets its record. True: nothing is there yet.
    fn place_or_new(&mut self, object: ObjectId, dkey: &Dkey) -> Result<(Place, bool), Abort> {
        let ordering = Ordering::of(object)?;
        if let Some(place) = key::place_of(ordering, dkey)? {
            return Ok((place, !self.has_record(object)?));
        }
        match self.probe(object, dkey)? {
            Probe::Found(order) => Ok((Place::of_number(order), false)),
            Probe::Free(order) => {
                let place = Place::of_number(order);
                let record = dkey_record(self.moment().epoch, dkey.as_bytes());
                let puts = smallvec![(place.dkey_record(), record)];
                self.apply(object, Edit { puts, ..Edit::default() })?;
                self.places().found(object, dkey, Probe::Found(order));
                Ok((place, true))
            }
            Probe::Full => Err(Error::NoSpace.into()),
        }
    }

    /// A dkey whose last value has gone goes, too.
    fn drop_if_empty(&mut self, object: ObjectId, place: &Place) -> Result<(), Abort> {
        if Ordering::of(object)? != Ordering::Hash {
            return Ok(());
        }
        let kv = self.kv(object)?;
        if key::dkey_exists(&*kv, place)? {
            return Ok(());
        }
        let key = place.dkey_record();
        let Some(value) = kv.get(&key)? else { return Ok(()) };
        drop(kv);
        let mut edit = Edit::default();
        edit.remove(key, &value)?;
        self.apply(object, edit)
    }
}

/// Most places that are remembered: a transaction of a filesystem has to do with fewer dkeys.
const PLACES_MAX: usize = 4;

/// Where the hashed dkeys of a transaction were found: conditions and operations name the same ones.
#[derive(Default)]
pub(crate) struct Places(RefCell<SmallVec<[(ObjectId, Dkey, Probe); PLACES_MAX]>>);

impl Places {
    fn known(&self, object: ObjectId, dkey: &Dkey) -> Option<Probe> {
        let places = self.0.borrow();
        let here = places.iter().find(|(of, name, _)| *of == object && name == dkey);
        here.map(|(_, _, probe)| *probe)
    }

    fn found(&self, object: ObjectId, dkey: &Dkey, probe: Probe) {
        let mut places = self.0.borrow_mut();
        if places.len() < PLACES_MAX {
            places.push((object, dkey.clone(), probe));
        }
    }

    /// Dkeys of the object may have come or gone.
    pub fn forget(&self, object: ObjectId) {
        self.0.borrow_mut().retain(|(of, _, _)| *of != object);
    }

    /// An edit is carried out. A removal may take any dkey away; a dkey record takes what was free, and no dkey's place.
    pub fn applied(&self, object: ObjectId, edit: &Edit) {
        if !edit.removes.is_empty() {
            self.forget(object);
        } else if edit.puts.iter().any(|(key, _)| key::is_dkey_record(key)) {
            let stays = |probe: &Probe| matches!(probe, Probe::Found(_));
            self.0.borrow_mut().retain(|(of, _, probe)| *of != object || stays(probe));
        }
    }
}

impl Edit {
    /// Notes that the record of `key` goes.
    pub fn remove(&mut self, key: KeyBuf, value: &[u8]) -> Result<(), Error> {
        let record = Record::decode(value).ok_or(STRANGE)?;
        self.stored_bytes -= record.stored_bytes() as i64;
        self.hidden.push((key.clone(), record));
        self.removes.push(key);
        Ok(())
    }
}

/// The supply of a ground that is only looked at otherwise.
pub(crate) struct Supplier<'a>(pub &'a dyn Ground);

impl Supply for Supplier<'_> {
    fn supply(&mut self, need: Need) -> Result<Vec<Filled>, Abort> {
        self.0.supply(need)
    }
}

/// Buckets are verified when they are read: such a record is a defect of ours, not of the device.
pub(crate) const STRANGE: Error = Error::Invalid("a stored record is not of this version's format");

/// The removal of every record with `from <= key < to`; `None`: they are more than [`RECORDS_MAX`].
pub(crate) fn remove_all(
    kv: &dyn Kv,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Option<Edit>, Abort> {
    let pairs = kv.range(from, to, RECORDS_MAX + 1)?;
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pairs.len() > RECORDS_MAX || bytes > REMOVE_BYTES_MAX {
        return Ok(None);
    }
    let mut edit = Edit::default();
    for (key, value) in pairs {
        edit.remove(KeyBuf::from_vec(key), &value)?;
    }
    Ok(Some(edit))
}

/// The epoch that a plan works with: after everything that is stored.
pub(crate) const PLAN_EPOCH: Epoch = Epoch(u64::MAX - 1);
