//! Listings of a container that are read whole, a page at a time.

use bytes::Bytes;
use daos_client::{Container, Page};
use daos_types::rpc::{Cursor, ListedDkey};
use daos_types::{Akey, ObjectId};

use crate::Result;
use crate::record::RECORD_BYTES_MAX;

const ENTRIES_MAX: u32 = 512;
const BYTES_MAX: u32 = 1 << 20;

/// The dkeys of an object, in their order, with the values of some akeys.
pub(crate) struct Dkeys {
    container: Container,
    object: ObjectId,
    akeys: &'static [&'static str],
    entries_max: u32,
    /// Where the next page begins, if there is one.
    after: Option<Cursor>,
}

impl Dkeys {
    pub fn of(container: &Container, object: ObjectId, akeys: &'static [&'static str]) -> Self {
        let (container, after) = (container.clone(), Some(Cursor::Start));
        Self { container, object, akeys, entries_max: ENTRIES_MAX, after }
    }

    /// With so many entries in a page, at most.
    pub fn by(self, entries_max: u32) -> Self {
        Self { entries_max, ..self }
    }

    /// The next page; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Vec<ListedDkey>>> {
        let Some(after) = self.after.take() else { return Ok(None) };
        let page = Page { after, entries_max: self.entries_max, bytes_max: BYTES_MAX };
        let akeys = self.akeys.iter().map(|akey| Akey::from(*akey)).collect();
        let listed = self.container.list_dkeys(self.object, akeys, RECORD_BYTES_MAX, page).await?;
        self.after = listed.dkeys.last().filter(|_| !listed.end).map(|last| last.cursor.clone());
        Ok(Some(listed.dkeys))
    }
}

/// Every object of the container.
pub(crate) async fn objects(container: &Container) -> Result<Vec<ObjectId>> {
    let (mut all, mut after) = (Vec::new(), Some(Cursor::Start));
    while let Some(from) = after {
        let page = Page { after: from, entries_max: ENTRIES_MAX, bytes_max: BYTES_MAX };
        let listed = container.list_objects(page).await?;
        let last = listed.objects.last().filter(|_| !listed.end);
        after = last.map(|last| Cursor::Key(Bytes::copy_from_slice(&last.to_bytes())));
        all.extend(listed.objects);
    }
    Ok(all)
}
