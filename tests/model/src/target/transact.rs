//! Transactions of the model: conditions against the state before, then ops in order, undone together on an error.

use std::sync::Arc;

use daos_types::rpc::{ARRAY_OFFSET_MAX, Condition, KeyRef, Op, Transact};
use daos_types::{Dkey, Epoch, Error, ObjectId, Result};

use super::array::Array;
use super::view::{Held, Order, Stored, View};

/// Applies a transaction to `view`, or leaves it as it was.
pub fn transact(view: &mut View, seed: u64, epoch: Epoch, request: Transact) -> Result<()> {
    for (index, condition) in request.conditions.iter().enumerate() {
        if !holds(view, seed, condition)? {
            return Err(Error::Condition { index: index as u32 });
        }
    }
    let mut draft = Draft { view, seed, epoch, undo: Vec::new() };
    for op in request.ops {
        if let Err(error) = draft.apply(op) {
            draft.roll_back();
            return Err(error);
        }
    }
    Ok(())
}

fn holds(view: &View, seed: u64, condition: &Condition) -> Result<bool> {
    let dkey_exists = |object: &ObjectId, dkey| view.find(seed, *object, dkey).is_some();
    Ok(match condition {
        Condition::DkeyExists { object, dkey } => dkey_exists(object, dkey),
        Condition::DkeyAbsent { object, dkey } => !dkey_exists(object, dkey),
        Condition::AkeyExists(key) => view.value(seed, key).is_some(),
        Condition::AkeyAbsent(key) => view.value(seed, key).is_none(),
        Condition::Equals { key, offset, bytes } => match view.value(seed, key) {
            None => false,
            Some(Stored::Single(_)) if *offset != 0 => {
                return Err(Error::Invalid("a single value is compared from its first byte"));
            }
            Some(Stored::Single(value)) => value.starts_with(bytes),
            Some(Stored::Array(array)) => {
                let len = bytes.len() as u64;
                array.is_written(*offset, len) && array.read(*offset, len) == *bytes
            }
        },
        Condition::Empty { object, except } => {
            view.dkeys_of(*object).all(|(_, held)| except.contains(&held.dkey))
        }
        Condition::ArrayEnd { object, akey, dkey, end } => {
            view.array_end(*object, akey) == (*dkey, *end)
        }
    })
}

struct Draft<'a> {
    view: &'a mut View,
    seed: u64,
    epoch: Epoch,
    /// What was there before each change, oldest first.
    undo: Vec<Undo>,
}

enum Undo {
    Record(ObjectId, Option<Epoch>),
    Dkey((ObjectId, Order), Option<Arc<Held>>),
}

impl Draft<'_> {
    fn apply(&mut self, op: Op) -> Result<()> {
        match op {
            Op::UpdateSingle { key, value } => self.update(&key, |stored| match stored {
                Some(Stored::Array(_)) => Err(OTHER_KIND),
                _ => Ok(Some(Stored::Single(value))),
            }),
            Op::UpdateArray { key, offset, data } => {
                self.change_array(&key, |array| array.write(offset, data))?;
                self.touch(key.object);
                Ok(())
            }
            Op::Allocate { key, offset, len } => {
                self.change_array(&key, |array| array.allocate(offset, offset + len))
            }
            Op::PunchRange { key, offset, len } => self.punch_range(&key, offset, len),
            Op::PunchAkey(key) => self.punch_akey(&key),
            Op::PunchDkey { object, dkey } => {
                self.punch_dkeys(object, |held| held.dkey == dkey);
                Ok(())
            }
            Op::PunchDkeysFrom { object, from } => {
                self.punch_dkeys(object, |held| held.dkey.to_u64() >= Some(from));
                self.touch_record(object);
                Ok(())
            }
            Op::PunchObject { object } => {
                self.punch_dkeys(object, |_| true);
                self.set_record(object, None);
                Ok(())
            }
            Op::Add { key, delta } => self.update(&key, |stored| add(stored, delta)),
        }
    }

    fn change_array(&mut self, key: &KeyRef, change: impl FnOnce(&mut Array)) -> Result<()> {
        self.update(key, |stored| {
            let mut array = match stored {
                Some(Stored::Single(_)) => return Err(OTHER_KIND),
                Some(Stored::Array(array)) => array,
                None => Array::default(),
            };
            change(&mut array);
            Ok((!array.is_empty()).then_some(Stored::Array(array)))
        })
    }

    fn punch_range(&mut self, key: &KeyRef, offset: u64, len: u64) -> Result<()> {
        if self.view.value(self.seed, key).is_some() {
            let end = offset.saturating_add(len).min(ARRAY_OFFSET_MAX);
            self.change_array(key, |array| array.punch(offset.min(end), end))?;
        }
        self.touch_record(key.object);
        Ok(())
    }

    fn punch_akey(&mut self, key: &KeyRef) -> Result<()> {
        if self.view.value(self.seed, key).is_none() {
            return Ok(());
        }
        self.update(key, |_| Ok(None))
    }

    fn punch_dkeys(&mut self, object: ObjectId, hit: impl Fn(&Held) -> bool) {
        let dkeys = self.view.dkeys_of(object).filter(|(_, held)| hit(held));
        let orders: Vec<Order> = dkeys.map(|(order, _)| order.clone()).collect();
        for order in orders {
            self.set_dkey((object, order), None);
        }
    }

    /// Replaces the value of a key by what `change` makes of it. `None` is no value.
    fn update(
        &mut self,
        key: &KeyRef,
        change: impl FnOnce(Option<Stored>) -> Result<Option<Stored>>,
    ) -> Result<()> {
        let (order, mut held) = self.held(key.object, &key.dkey)?;
        match change(held.akeys.remove(&key.akey))? {
            Some(stored) => held.akeys.insert(key.akey.clone(), stored),
            None => None,
        };
        let held = (!held.akeys.is_empty()).then(|| Arc::new(held));
        self.set_dkey((key.object, order), held);
        if !self.view.records.contains_key(&key.object) {
            self.set_record(key.object, Some(Epoch::ZERO));
        }
        Ok(())
    }

    fn held(&self, object: ObjectId, dkey: &Dkey) -> Result<(Order, Held)> {
        if let Some((order, held)) = self.view.find(self.seed, object, dkey) {
            return Ok((order, held.clone()));
        }
        let order = self.view.place(self.seed, object, dkey)?;
        Ok((order, Held { dkey: dkey.clone(), akeys: Default::default() }))
    }

    /// The array data of an object changes now.
    fn touch(&mut self, object: ObjectId) {
        self.set_record(object, Some(self.epoch));
    }

    /// As `touch`, if the object has a record: a punch of nothing makes none.
    fn touch_record(&mut self, object: ObjectId) {
        if self.view.records.contains_key(&object) {
            self.touch(object);
        }
    }

    fn set_record(&mut self, object: ObjectId, data_epoch: Option<Epoch>) {
        let before = match data_epoch {
            Some(epoch) => self.view.records.insert(object, epoch),
            None => self.view.records.remove(&object),
        };
        self.undo.push(Undo::Record(object, before));
    }

    fn set_dkey(&mut self, place: (ObjectId, Order), held: Option<Arc<Held>>) {
        let before = match held {
            Some(held) => self.view.dkeys.insert(place.clone(), held),
            None => self.view.dkeys.remove(&place),
        };
        self.undo.push(Undo::Dkey(place, before));
    }

    fn roll_back(&mut self) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Record(object, before) => self.set_record(object, before),
                Undo::Dkey(place, before) => self.set_dkey(place, before),
            }
        }
    }
}

const OTHER_KIND: Error = Error::Invalid("the akey holds the other kind of value");

fn add(stored: Option<Stored>, delta: i64) -> Result<Option<Stored>> {
    let old = match stored {
        None => 0,
        Some(Stored::Array(_)) => return Err(OTHER_KIND),
        Some(Stored::Single(bytes)) => {
            let bytes = bytes.as_ref().try_into();
            i64::from_le_bytes(
                bytes.map_err(|_| Error::Invalid("only a value of 8 bytes can be added to"))?,
            )
        }
    };
    let sum = old.checked_add(delta).ok_or(Error::Invalid("the sum overflows"))?;
    Ok(Some(Stored::Single(sum.to_le_bytes().to_vec().into())))
}
