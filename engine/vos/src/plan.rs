//! A transaction decided over drafts: what blocks it needs, before anything is changed.

use std::cell::RefCell;
use std::collections::HashMap;

use daos_types::{Csum, Epoch, Error, ObjectId};

use crate::array::{Edit, Moment};
use crate::draft::{Changes, Draft, Range, Without};
use crate::ground::{Ground, Places};
use crate::key::DkeyHash;
use crate::kv::{Kv, MapKv};
use crate::pages::Abort;
use crate::supply::{Filled, Need, PLANNED};

/// The objects of a container as they are.
pub(crate) trait Objects {
    /// The object's map; an empty one when there is no object.
    fn kv(&self, object: ObjectId) -> Result<Box<dyn Kv + '_>, Abort>;
    fn has_record(&self, object: ObjectId) -> Result<bool, Abort>;
}

const PUNCHED_TOO_MUCH: Error =
    Error::Invalid("a transaction cannot punch so much of an object that it has changed before");

/// What a plan changed of one object.
#[derive(Default)]
struct ObjectDraft {
    changes: Changes,
    detached: Vec<Range>,
    /// The object is not the stored one any more.
    is_new: bool,
    has_record: Option<bool>,
}

pub(crate) struct Plan<'a> {
    objects: &'a dyn Objects,
    moment: Moment,
    hash: DkeyHash,
    places: Places,
    drafts: HashMap<ObjectId, ObjectDraft>,
    needs: RefCell<Needs>,
    /// By how much what is stored grows; what is detached is not counted.
    stored_bytes: i64,
}

#[derive(Default)]
struct Needs {
    needs: Vec<Need>,
    planned: u64,
}

impl<'a> Plan<'a> {
    pub fn new(objects: &'a dyn Objects, moment: Moment, hash: DkeyHash) -> Self {
        Self {
            objects,
            moment,
            hash,
            places: Places::default(),
            drafts: HashMap::new(),
            needs: RefCell::default(),
            stored_bytes: 0,
        }
    }

    /// Whether all of it takes the place of something that it gives back.
    pub fn replaces(&self) -> bool {
        self.stored_bytes <= 0 && self.moment.snapshot == Epoch::ZERO
    }

    pub fn into_needs(self) -> Vec<Need> {
        self.needs.into_inner().needs
    }
}

impl Ground for Plan<'_> {
    fn moment(&self) -> Moment {
        self.moment
    }

    fn hash(&self) -> DkeyHash {
        self.hash
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn kv(&self, object: ObjectId) -> Result<Box<dyn Kv + '_>, Abort> {
        let Some(draft) = self.drafts.get(&object) else { return self.objects.kv(object) };
        let mut below: Box<dyn Kv + '_> =
            if draft.is_new { Box::new(MapKv::new()) } else { self.objects.kv(object)? };
        if !draft.detached.is_empty() {
            below = Box::new(Without { below, ranges: &draft.detached });
        }
        Ok(Box::new(Draft { below, changes: &draft.changes }))
    }

    fn has_record(&self, object: ObjectId) -> Result<bool, Abort> {
        match self.drafts.get(&object).and_then(|draft| draft.has_record) {
            Some(has_record) => Ok(has_record),
            None => self.objects.has_record(object),
        }
    }

    fn apply(&mut self, object: ObjectId, edit: Edit) -> Result<(), Abort> {
        self.places.applied(object, &edit);
        self.stored_bytes += edit.stored_bytes;
        let draft = self.drafts.entry(object).or_default();
        draft.changes.extend(edit.removes.into_iter().map(|key| (key.into_vec(), None)));
        if !edit.puts.is_empty() {
            draft.has_record = Some(true);
        }
        let puts = edit.puts.into_iter().map(|(key, value)| (key.into_vec(), Some(value)));
        draft.changes.extend(puts);
        Ok(())
    }

    fn touch(&mut self, _: ObjectId) -> Result<(), Abort> {
        Ok(())
    }

    fn remove_object(&mut self, object: ObjectId) -> Result<(), Abort> {
        self.places.forget(object);
        let gone = ObjectDraft { is_new: true, has_record: Some(false), ..Default::default() };
        self.drafts.insert(object, gone);
        Ok(())
    }

    fn detach(&mut self, object: ObjectId, from: &[u8], to: Option<&[u8]>) -> Result<(), Abort> {
        self.places.forget(object);
        let (from, to) = (from.to_vec(), to.map(<[u8]>::to_vec));
        self.supply(Need::Count { object, from: from.clone(), to: to.clone() })?;
        let draft = self.drafts.entry(object).or_default();
        let in_range = |key: &Vec<u8>| from <= *key && to.as_ref().is_none_or(|to| key < to);
        if draft.is_new || draft.changes.keys().any(in_range) {
            return Err(PUNCHED_TOO_MUCH.into());
        }
        draft.detached.push((from, to));
        Ok(())
    }

    fn supply(&self, need: Need) -> Result<Vec<Filled>, Abort> {
        let mut needs = self.needs.borrow_mut();
        let blocks = need.blocks();
        let start = need.at().unwrap_or(PLANNED + needs.planned);
        needs.planned += u64::from(blocks);
        let csums = if matches!(need, Need::Unwritten { .. }) {
            Vec::new()
        } else {
            vec![Csum::default(); blocks as usize]
        };
        needs.needs.push(need);
        Ok(vec![Filled { start, blocks, csums }])
    }
}
