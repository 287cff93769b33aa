//! Listings. The cookie of an entry is the cursor of its dkey: stable for as long as the entry exists, over remounts too.
//!
//! # Damage
//! What an entry leads to may be damaged, or lost to a snapshot: the entry is listed without attributes, and the error is of who looks it
//! up. Damage of the directory itself is an error of the listing where it comes to it, after everything that lies before.

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
            let facts = unless_damaged(self.facts(&inode, &loaded).await)?;
            if facts.is_some_and(|facts| self.was_read(&inode, &loaded, facts, Handle(0))) {
                self.store_enough_atimes().await;
            }
        }
        let max = max.max(1);
        let mut entries = Vec::new();
        if after < SELF {
            entries.push((own_entry(SELF, b".", ino), None));
        }
        if after < PARENT && entries.len() < max {
            let parent = unless_damaged(self.parent(ino).await)?;
            let parent = parent.unwrap_or(Ino::nobody(ino.container()));
            entries.push((own_entry(PARENT, b"..", parent), None));
        }
        let mut after = if after <= PARENT { Cursor::Start } else { Cursor::Number(after) };
        let mut page_max = PAGE_MAX;
        while entries.len() < max {
            let entries_max = (max - entries.len()).min(page_max);
            let page = Page {
                after: after.clone(),
                entries_max: entries_max as u32,
                bytes_max: PAGE_BYTES_MAX,
            };
            let akeys = vec![keys::INODE.into()];
            let oid = loaded.record.oid;
            let listed = self.container.list_dkeys(oid, akeys, RECORD_BYTES_MAX, page).await;
            let listed = match listed.map_err(Error::from) {
                Err(error) if error.is_damage() && entries_max > 1 => {
                    // Somewhere in these: everything before it is listed first.
                    page_max = entries_max / 2;
                    continue;
                }
                Err(error) if error.is_damage() && !entries.is_empty() => break,
                listed => listed?,
            };
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
                vec![FetchPart::Akeys {
                    object: place.object,
                    dkey: place.dkey,
                    prefix: Bytes::from_static(keys::INODE.as_bytes()),
                    array_bytes_max: RECORD_BYTES_MAX,
                }]
            };
            let fetched = self.fetch_each(batch.iter().map(part).collect()).await?;
            for ((entry, loaded), fetched) in batch.iter_mut().map(|it| &mut **it).zip(fetched) {
                let akeys = match fetched.as_deref() {
                    None => &[],
                    Some([Fetched::Akeys(akeys)]) => &akeys[..],
                    Some(_) => return Err(Error::Protocol { asked: "records" }),
                };
                let record =
                    akeys.first().map(|(_, value)| decode(&Place::table(entry.ino), value));
                let record = record.and_then(Result::ok).map(Arc::new);
                *loaded = record.map(|record| Loaded { home: Home::Table, record });
            }
        }
        Ok(())
    }

    /// Adds attributes to a batch, with one fetch for those that nobody knows yet.
    async fn show(&self, batch: &[Listed], entries: &mut Vec<DirEntry>) -> Result<()> {
        let mut asked = Vec::new();
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
                    let mut parts = Vec::new();
                    facts_parts(&loaded.record, &mut parts);
                    asked.push(parts);
                }
                (inode, generation, known)
            }));
        }
        let mut fetched = self.fetch_each(asked).await?.into_iter();
        for ((entry, loaded), plan) in batch.iter().zip(plans) {
            let mut entry = entry.clone();
            if let (Some(loaded), Some((inode, generation, known))) = (loaded, plan) {
                let facts: Option<Facts> = match known {
                    Some(facts) => Some(facts),
                    None => {
                        let fetched = fetched.next().ok_or(Error::Protocol { asked: "facts" })?;
                        let read =
                            fetched.map(|it| read_facts(&loaded.record, &mut it.into_iter()));
                        let facts = read.map_or(Ok(None), unless_damaged)?;
                        if let Some(facts) = facts {
                            inode.learn_facts(generation, facts);
                        }
                        facts
                    }
                };
                entry.attr = facts.map(|facts| inode.shown(attr(loaded, facts)));
            }
            entries.push(entry);
        }
        Ok(())
    }
}

impl Dfs {
    /// Fetches for some that have nothing to do with each other: `None` for whom that met damage.
    async fn fetch_each(&self, asked: Vec<Vec<FetchPart>>) -> Result<Vec<Option<Vec<Fetched>>>> {
        let all: Vec<FetchPart> = asked.iter().flatten().cloned().collect();
        if all.is_empty() {
            return Ok(asked.iter().map(|_| Some(Vec::new())).collect());
        }
        if let Some(fetched) = unless_damaged(self.fetch_parts(all).await)? {
            let mut fetched = fetched.into_iter();
            let mut take = |parts: &Vec<_>| fetched.by_ref().take(parts.len()).collect();
            return Ok(asked.iter().map(|parts| Some(take(parts))).collect());
        }
        let mut each = Vec::with_capacity(asked.len());
        for parts in asked {
            each.push(match parts.is_empty() {
                true => Some(Vec::new()),
                false => unless_damaged(self.fetch_parts(parts).await)?,
            });
        }
        Ok(each)
    }

    async fn fetch_parts(&self, parts: Vec<FetchPart>) -> Result<Vec<Fetched>> {
        Ok(self.container.fetch(parts).await?)
    }
}

/// What damage took is not there; everything else that fails fails.
fn unless_damaged<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is_damage() => Ok(None),
        result => result.map(Some),
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
