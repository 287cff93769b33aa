//! Listings of dkeys and objects, and the extents of arrays, in steps of bounded size.

use std::collections::BTreeSet;

use daos_types::rpc::{Cursor, Extents, List, ListWhat, Listed, ListedDkey, Reply};
use daos_types::{ContainerId, Epoch, ObjectId, Result};
use daos_xstream::Stage;

use crate::commit::SHARD;
use crate::gather::{ExtentPage, Page};
use crate::ground::STRANGE;
use crate::history::{HistoryKey, decode_state, parse};
use crate::kv::Kv;
use crate::object::ObjectKey;
use crate::pages::Abort;
use crate::store::{Lsn, View};
use crate::vos::Vos;

const OBJECT_BYTES: u32 = 16;
const OBJECTS_STEP: usize = 256;

impl Vos {
    pub(crate) async fn list(&self, list: &List) -> Result<Reply> {
        match list.what {
            ListWhat::Dkeys { object, .. } => self.list_dkeys(list, object).await,
            ListWhat::Objects => self.list_objects(list).await,
        }
    }

    async fn list_dkeys(&self, list: &List, object: ObjectId) -> Result<Reply> {
        let _guard = self.store.read_guard();
        let mut page = Page::default();
        let mut newest = Lsn::ZERO;
        while !page.end && !page.full {
            let step = |pages: &View<'_>| {
                self.check_view(pages, list.container, list.epoch)?;
                let mut page = page.clone();
                let place = (list.container, object, list.epoch);
                self.object_at(pages, place, false, |object| object.list(list, &mut page))?;
                Ok(page)
            };
            let (next, lsn) = self.store.view(step).await?;
            (page, newest) = (next, newest.max(lsn));
        }
        Stage::Pull.enter();
        let mut listed = Listed { end: page.end, ..Listed::default() };
        for entry in page.entries {
            let mut values = Vec::with_capacity(entry.values.len());
            for (akey, source) in entry.values {
                values.push((akey, self.value(&source).await?));
            }
            listed.dkeys.push(ListedDkey { cursor: entry.cursor, dkey: entry.dkey, values });
        }
        Stage::Reply.enter();
        self.store.acknowledged(newest).await?;
        Ok(Reply::Listed(listed))
    }

    async fn list_objects(&self, list: &List) -> Result<Reply> {
        let max = list.entries_max.min((list.bytes_max / OBJECT_BYTES).max(1)) as usize;
        let mut listed = Listed { end: true, ..Listed::default() };
        let mut after = match &list.after {
            Cursor::Key(key) => object_after(key),
            _ => None,
        };
        let mut newest = Lsn::ZERO;
        loop {
            let step = |pages: &View<'_>| {
                self.check_view(pages, list.container, list.epoch)?;
                self.objects_at(pages, list.container, list.epoch, after)
            };
            let ((some, next), lsn) = self.store.view(step).await?;
            newest = newest.max(lsn);
            listed.objects.extend(some);
            if next.is_none() || listed.objects.len() > max {
                break;
            }
            after = next;
        }
        listed.end = listed.objects.len() <= max;
        listed.objects.truncate(max);
        self.store.acknowledged(newest).await?;
        Ok(Reply::Listed(listed))
    }

    /// The next objects after one, in order, and where to go on.
    fn objects_at(
        &self,
        pages: &View<'_>,
        container: ContainerId,
        epoch: Epoch,
        after: Option<ObjectId>,
    ) -> Result<(Vec<ObjectId>, Option<ObjectId>), Abort> {
        let key = after.map(|after| ObjectKey::new(container, after, SHARD));
        let newest = self.roots.objects.list(pages, container, key, OBJECTS_STEP)?;
        let newest: Vec<ObjectId> = newest.into_iter().map(|(key, _)| key.oid()).collect();
        let next = newest.last().copied().filter(|_| newest.len() == OBJECTS_STEP);
        let history = self.roots.container(pages, container)?.history;
        let (Some(history), true) = (history, epoch != Epoch::MAX) else {
            return Ok((newest, next));
        };
        let (first, last) = (after.unwrap_or(ObjectId::from_bytes([0; 16])), next);
        let passed = first..=last.unwrap_or(ObjectId::from_bytes([0xff; 16]));
        self.roots.check_losses(pages, self.store.target(), (container, epoch), &passed)?;
        // What has no state in the history is there now as it was then; the others say so themselves.
        let mut there: BTreeSet<[u8; 16]> = BTreeSet::new();
        let last = next.map(|object| object.to_bytes());
        for object in newest {
            there.insert(object.to_bytes());
        }
        let mut from = after.map_or(vec![0], |after| next_object(after).to_vec());
        let history = history.view(pages);
        while let Some((key, value)) = history.seek(&from, crate::kv::Seek::Ge)? {
            let Some(HistoryKey::State { object, end }) = parse(&key) else {
                // Records of an object without a state that counts: on to the next object.
                let object = ObjectId::from_bytes(key[..16].try_into().expect("object ids"));
                from = next_object(object).to_vec();
                continue;
            };
            let id: [u8; 16] = object[..16].try_into().expect("16 bytes");
            if last.is_some_and(|last| id > last) {
                break;
            }
            if end <= epoch {
                from = [&key[..], &[0]].concat();
                continue;
            }
            match decode_state(&value).ok_or(STRANGE)? {
                Some(_) => there.insert(id),
                None => there.remove(&id),
            };
            from = next_object(ObjectId::from_bytes(id)).to_vec();
        }
        Ok((there.into_iter().map(ObjectId::from_bytes).collect(), next))
    }

    pub(crate) async fn extents(&self, asked: &Extents) -> Result<Reply> {
        let mut page = ExtentPage::default();
        let mut newest = Lsn::ZERO;
        while !page.end {
            let step = |pages: &View<'_>| {
                self.check_view(pages, asked.container, asked.epoch)?;
                let mut page = page.clone();
                let place = (asked.container, asked.object, asked.epoch);
                self.object_at(pages, place, false, |object| object.extents(asked, &mut page))?;
                Ok(page)
            };
            let (next, lsn) = self.store.view(step).await?;
            (page, newest) = (next, newest.max(lsn));
        }
        page.extents.truncate(asked.extents_max as usize);
        self.store.acknowledged(newest).await?;
        Ok(Reply::Extents(page.extents))
    }
}

/// The last object id that a cursor has passed.
fn object_after(key: &[u8]) -> Option<ObjectId> {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    let id = u128::from_be_bytes(bytes);
    // A cursor that is no whole id lies before the first id that begins with it.
    let passed = if key.len() < 16 { id.checked_sub(1)? } else { id };
    Some(ObjectId::from_bytes(passed.to_be_bytes()))
}

fn next_object(object: ObjectId) -> [u8; 16] {
    u128::from_be_bytes(object.to_bytes()).saturating_add(1).to_be_bytes()
}
