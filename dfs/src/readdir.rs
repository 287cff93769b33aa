//! Listings. The cookie of an entry is the cursor of its dkey: stable for as long as the entry exists, over remounts too.

use std::sync::Arc;

use bytes::Bytes;
use daos_client::Page;
use daos_types::rpc::{Cursor, FetchPart, Fetched, ListedDkey, OPS_MAX};

use crate::change::Place;
use crate::keys;
use crate::load::{attr, decode, facts_parts, read_facts};
use crate::mount::Dfs;
use crate::record::RECORD_BYTES_MAX;
use crate::table::{Facts, Home, Loaded};
use crate::{DirEntry, Error, Handle, Ino, Kind, Result};

/// Cookies of `.` and `..`.
const SELF: u64 = 1;
const PARENT: u64 = 2;
/// Entries of one reply of the engine.
const PAGE_MAX: usize = 512;
const PAGE_BYTES_MAX: u32 = 1 << 20;
/// Facts of an inode take at most so many parts of a fetch.
const FACTS_PARTS_MAX: usize = 2;

impl Dfs {
    /// At most `max` entries after cookie `after` (0: from the start); none at the end. Needs no handle.
    pub async fn readdir(&self, ino: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>> {
        Ok(self.list(ino, after, max).await?.into_iter().map(|(entry, _)| entry).collect())
    }

    /// As `readdir`, with the attributes of each entry but `.` and `..`; what vanished meanwhile has none.
    pub async fn readdir_plus(&self, ino: Ino, after: u64, max: usize) -> Result<Vec<DirEntry>> {
        // What is listed may be older than what is known of an inode when it is shown.
        let _fetching = self.table.fetching();
        let mut listed = self.list(ino, after, max).await?;
        self.follow_references(&mut listed).await?;
        let mut entries = Vec::with_capacity(listed.len());
        for batch in listed.chunks(OPS_MAX / FACTS_PARTS_MAX) {
            self.show(batch, &mut entries).await?;
        }
        Ok(entries)
    }

    async fn list(&self, ino: Ino, after: u64, max: usize) -> Result<Vec<Listed>> {
        let loaded = match self.directory(ino).await {
            // Removed, but still open: it has no entries, not even its own.
            Err(Error::NoEntry) => return Ok(Vec::new()),
            loaded => loaded?,
        };
        if after == 0 {
            let inode = self.inode(ino)?;
            let facts = self.facts(&inode, &loaded).await?;
            if self.was_read(&inode, &loaded, facts, Handle(0)) {
                self.store_enough_atimes().await;
            }
        }
        let max = max.max(1);
        let mut entries = Vec::new();
        if after < SELF {
            entries.push((own_entry(SELF, b".", ino), None));
        }
        if after < PARENT && entries.len() < max {
            entries.push((own_entry(PARENT, b"..", self.parent(ino).await?), None));
        }
        let mut after = if after <= PARENT { Cursor::Start } else { Cursor::Number(after) };
        while entries.len() < max {
            let entries_max = (max - entries.len()).min(PAGE_MAX) as u32;
            let page = Page { after, entries_max, bytes_max: PAGE_BYTES_MAX };
            let akeys = vec![keys::INODE.into()];
            let oid = loaded.record.oid;
            let listed = self.container.list_dkeys(oid, akeys, RECORD_BYTES_MAX, page).await?;
            for dkey in &listed.dkeys {
                entries.extend(entry(ino, oid, dkey)?);
            }
            match listed.dkeys.last() {
                Some(last) if !listed.end => after = last.cursor.clone(),
                _ => break,
            }
        }
        Ok(entries)
    }

    /// References become what they refer to; one whose inode has gone meanwhile stays without attributes.
    async fn follow_references(&self, listed: &mut [Listed]) -> Result<()> {
        let mut references: Vec<&mut Listed> = listed
            .iter_mut()
            .filter(|(_, loaded)| loaded.as_ref().is_some_and(|it| it.record.is_reference()))
            .collect();
        for batch in references.chunks_mut(OPS_MAX) {
            let part = |(entry, _): &&mut Listed| {
                let place = Place::table(entry.ino);
                FetchPart::Akeys {
                    object: place.object,
                    dkey: place.dkey,
                    prefix: Bytes::from_static(keys::INODE.as_bytes()),
                    array_bytes_max: RECORD_BYTES_MAX,
                }
            };
            let fetched = self.container.fetch(batch.iter().map(part).collect()).await?;
            for ((entry, loaded), fetched) in batch.iter_mut().map(|it| &mut **it).zip(fetched) {
                let Fetched::Akeys(akeys) = fetched else {
                    return Err(Error::Protocol { asked: "records" });
                };
                *loaded = match akeys.first() {
                    None => None,
                    Some((_, value)) => {
                        let record = decode(&Place::table(entry.ino), value)?;
                        Some(Loaded { home: Home::Table, record: Arc::new(record) })
                    }
                };
            }
        }
        Ok(())
    }

    /// Adds attributes to a batch, with one fetch for those that nobody knows yet.
    async fn show(&self, batch: &[Listed], entries: &mut Vec<DirEntry>) -> Result<()> {
        let mut parts = Vec::new();
        let mut plans = Vec::with_capacity(batch.len());
        for (_, loaded) in batch {
            plans.push(loaded.as_ref().map(|loaded| {
                let inode = self.table.get(loaded.record.ino);
                if let Home::Entry { parent, name } = &loaded.home {
                    self.names.learn(*parent, name, inode.ino);
                }
                inode.learn_fetched(loaded.clone());
                let generation = inode.generation();
                let known = inode.facts().filter(|_| self.cache_attributes);
                if known.is_none() {
                    facts_parts(&loaded.record, &mut parts);
                }
                (inode, generation, known)
            }));
        }
        let fetched = match parts.is_empty() {
            true => Vec::new(),
            false => self.container.fetch(parts).await?,
        };
        let mut fetched = fetched.into_iter();
        for ((entry, loaded), plan) in batch.iter().zip(plans) {
            let mut entry = entry.clone();
            if let (Some(loaded), Some((inode, generation, known))) = (loaded, plan) {
                let facts: Facts = match known {
                    Some(facts) => facts,
                    None => {
                        let facts = read_facts(&loaded.record, &mut fetched)?;
                        inode.learn_facts(generation, facts);
                        facts
                    }
                };
                entry.attr = Some(inode.shown(attr(loaded, facts)));
            }
            entries.push(entry);
        }
        Ok(())
    }
}

/// An entry, and the record beside it.
type Listed = (DirEntry, Option<Loaded>);

fn own_entry(cookie: u64, name: &'static [u8], ino: Ino) -> DirEntry {
    DirEntry { cookie, name: Bytes::from_static(name), ino, kind: Kind::Directory, attr: None }
}

/// A listed dkey as an entry; `None` for the directory's own.
fn entry(parent: Ino, oid: daos_types::ObjectId, listed: &ListedDkey) -> Result<Option<Listed>> {
    let name = Bytes::copy_from_slice(listed.dkey.as_bytes());
    if name == keys::SELF.as_bytes() {
        return Ok(None);
    }
    let Cursor::Number(cookie) = listed.cursor else {
        return Err(Error::Protocol { asked: "listing" });
    };
    let place = Place { object: oid, dkey: listed.dkey.clone() };
    let record = listed.values.first().map(|(_, value)| decode(&place, value));
    let Some(Ok(record)) = record else {
        // Damage is an error of the one who looks this name up, not of those who list its directory.
        let ino = Ino::nobody(parent.container());
        let entry = DirEntry { cookie, name, ino, kind: Kind::File, attr: None };
        return Ok(Some((entry, None)));
    };
    let entry =
        DirEntry { cookie, name: name.clone(), ino: record.ino, kind: record.kind(), attr: None };
    let home = Home::Entry { parent, name };
    Ok(Some((entry, Some(Loaded { home, record: Arc::new(record) }))))
}
