//! Rebuilding what can be rebuilt of a filesystem that nobody uses.
//!
//! Everything is read first: names, records, the inode table, orphans, and what each object says of its own names. From that it is
//! decided what the filesystem is to be, and what differs is written.
//!
//! # What is believed
//! A record with a right checksum, then a record in which one flipped bit is put right, then the object: it knows its names (back
//! pointers) and its data. What was only in a record that is lost (mode, owner, times) gets defaults that open nothing to anybody.
//!
//! # Order
//! Each step is one transaction, and leaves nothing that a repair begun afterwards does not mend: records and entries first, then
//! pointers, then counts. So a crash in the middle costs only the time.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use daos_client::{Container, Page};
use daos_types::rpc::{Cursor, FetchPart, Fetched, OPS_MAX, Op, Value};
use daos_types::{Akey, Dkey, ObjectId};

use crate::change::{Change, Place};
use crate::keys::{self, Pointer};
use crate::load::decode;
use crate::lookup::check_name;
use crate::pages::{self, Dkeys};
use crate::record::{RECORD_BYTES_MAX, Record, flag};
use crate::superblock::{self, Superblock};
use crate::{Error, Ino, Kind, Result};

const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Repaired {
    /// One sentence for each thing that was mended.
    pub mended: Vec<String>,
    /// Inodes that are in `/lost+found` now.
    pub lost_and_found: u64,
}

/// Mends a filesystem that nobody has mounted. A sound one is not changed.
///
/// # Errors
/// Those of the targets: damage below the filesystem has to be mended before.
pub async fn repair(container: &Container, now: u64) -> Result<Repaired> {
    let mut repair = Repair {
        container: container.clone(),
        now,
        chunk_bytes: superblock::CHUNK_BYTES_DEFAULT,
        next_ino: 0,
        made: None,
        done: Repaired::default(),
    };
    let objects = pages::objects(&repair.container).await?;
    if objects.is_empty() {
        return Err(Error::NotFormatted);
    }
    repair.superblock().await?;
    let mut facts = repair.gather(&objects).await?;
    repair.counters(&facts).await?;
    let tree = repair.decide(&mut facts).await?;
    repair.write_pointers(&facts, &tree).await?;
    repair.write_counts(&facts, &tree).await?;
    Ok(repair.done)
}

type Name = (Ino, Bytes);

/// An entry as it is stored.
struct Entry {
    name: Name,
    /// The record, if it can be believed.
    record: Option<Record>,
    /// It is as it should be on the device.
    whole: bool,
    is_symlink: Option<u64>,
}

#[derive(Default)]
struct Facts {
    /// What each object says of its names; and a directory of its subdirectories.
    pointers: HashMap<ObjectId, Vec<Pointer>>,
    subdirectories: HashMap<Ino, Option<u64>>,
    /// Directories that have an object, with the root.
    directories: HashSet<Ino>,
    entries: Vec<Entry>,
    table: BTreeMap<Ino, Option<Record>>,
    /// dkey, lease and inode if the dkey can be read, and the record.
    orphans: Vec<(Dkey, Option<Ino>, Option<Record>)>,
    /// Objects that are no inode's.
    strange: Vec<ObjectId>,
    ino_max: u64,
}

/// An inode as it is to be.
struct Node {
    record: Record,
    in_table: bool,
    names: Vec<Name>,
}

type Tree = BTreeMap<Ino, Node>;

struct Repair {
    container: Container,
    now: u64,
    chunk_bytes: u64,
    next_ino: u64,
    /// `/lost+found`, if it was made here: its object knows its name already.
    made: Option<Ino>,
    done: Repaired,
}

fn show(name: &Name) -> String {
    format!("{:?} of directory {}", name.1.escape_ascii().to_string(), name.0)
}

/// A number of 8 bytes, little-endian.
fn number(value: Option<&Bytes>) -> Option<u64> {
    Some(u64::from_le_bytes(value?.as_ref().try_into().ok()?))
}

impl Repair {
    fn ino(&self, counter: u64) -> Ino {
        Ino::new(self.container.id(), counter)
    }

    fn root(&self) -> Ino {
        Ino::root(self.container.id())
    }

    async fn mend(&mut self, what: String, change: Change) -> Result<()> {
        change.commit(&self.container).await?;
        self.done.mended.push(what);
        Ok(())
    }

    async fn superblock(&mut self) -> Result<()> {
        match Superblock::read(&self.container).await {
            Ok(superblock) => self.chunk_bytes = superblock.chunk_bytes,
            Err(Error::NotFormatted) => {
                let change = Superblock::rewrite(self.chunk_bytes);
                self.mend("the superblock was lost; it has its defaults again".into(), change)
                    .await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Every name, record and pointer.
    async fn gather(&mut self, objects: &[ObjectId]) -> Result<Facts> {
        let mut facts = Facts { ino_max: Ino::ROOT_COUNTER, ..Facts::default() };
        let mut own = Vec::new();
        for oid in objects {
            if [keys::SUPERBLOCK_OID, keys::TABLE_OID, keys::ORPHANS_OID].contains(oid) {
                continue;
            }
            match self.inode_of(*oid) {
                Some((ino, is_directory)) => {
                    facts.ino_max = facts.ino_max.max(ino.counter());
                    own.push(*oid);
                    if is_directory {
                        facts.directories.insert(ino);
                    }
                }
                None => facts.strange.push(*oid),
            }
        }
        facts.directories.insert(self.root());
        for batch in own.chunks(OPS_MAX) {
            self.gather_pointers(&mut facts, batch).await?;
        }
        let directories: Vec<Ino> = facts.directories.iter().copied().collect();
        for directory in directories {
            self.gather_entries(&mut facts, directory).await?;
        }
        self.gather_table(&mut facts).await?;
        self.gather_orphans(&mut facts).await?;
        Ok(facts)
    }

    /// Whose object it is, and whether that is a directory.
    fn inode_of(&self, oid: ObjectId) -> Option<(Ino, bool)> {
        if oid == keys::directory_oid(self.root()) {
            return Some((self.root(), true));
        }
        let ino = self.ino(oid.lo);
        let is_known = oid.lo > Ino::ROOT_COUNTER && ino.counter() == oid.lo;
        match oid {
            _ if !is_known => None,
            _ if oid == keys::directory_oid(ino) => Some((ino, true)),
            _ if oid == keys::file_oid(ino) => Some((ino, false)),
            _ => None,
        }
    }

    async fn gather_pointers(&self, facts: &mut Facts, oids: &[ObjectId]) -> Result<()> {
        let part = |oid: &ObjectId| FetchPart::Akeys {
            object: *oid,
            dkey: keys::self_dkey(*oid),
            prefix: Bytes::new(),
            array_bytes_max: 0,
        };
        let fetched = self.container.fetch(oids.iter().map(part).collect()).await?;
        for (oid, fetched) in oids.iter().zip(fetched) {
            let Fetched::Akeys(akeys) = fetched else {
                return Err(Error::Protocol { asked: "back pointers" });
            };
            let pointers = akeys.iter().filter_map(|(akey, _)| Pointer::of(akey)).collect();
            facts.pointers.insert(*oid, pointers);
            if let Some((ino, true)) = self.inode_of(*oid) {
                let stored = akeys.iter().find_map(|(akey, value)| match value {
                    Value::Single(value) if akey.as_bytes() == keys::SUBDIRECTORIES.as_bytes() => {
                        Some(number(Some(value)))
                    }
                    _ => None,
                });
                facts.subdirectories.insert(ino, stored.unwrap_or(Some(0)));
            }
        }
        Ok(())
    }

    async fn gather_entries(&self, facts: &mut Facts, directory: Ino) -> Result<()> {
        let oid = keys::directory_oid(directory);
        let mut listing = Dkeys::of(&self.container, oid, &[keys::INODE, keys::SYMLINK]);
        while let Some(dkeys) = listing.next().await? {
            for dkey in &dkeys {
                if dkey.dkey.as_bytes() == keys::SELF.as_bytes() {
                    continue;
                }
                let place = Place { object: oid, dkey: dkey.dkey.clone() };
                let value = |name: &str| {
                    let named = |(akey, _): &&(Akey, Value)| akey.as_bytes() == name.as_bytes();
                    dkey.values.iter().find(named).map(|(_, value)| value)
                };
                let (record, whole) = self.believe(&place, value(keys::INODE));
                let is_symlink = match value(keys::SYMLINK) {
                    Some(Value::Single(target)) => Some(target.len() as u64),
                    _ => None,
                };
                let name = (directory, Bytes::copy_from_slice(dkey.dkey.as_bytes()));
                if let Some(record) = &record {
                    facts.ino_max = facts.ino_max.max(record.ino.counter());
                }
                facts.entries.push(Entry { name, record, whole, is_symlink });
            }
        }
        Ok(())
    }

    /// The record, if it or what a flipped bit left of it can be believed; and whether it is whole.
    fn believe(&self, place: &Place, value: Option<&Value>) -> (Option<Record>, bool) {
        let Some(value) = value else { return (None, false) };
        let sound = |record: &Record| {
            record.ino.container() == self.container.id()
                && record.oid == keys::oid(record.ino, record.kind())
        };
        if let Ok(record) = decode(place, value) {
            let whole = sound(&record);
            return (Some(record).filter(|_| whole), whole);
        }
        let mended = match value {
            Value::Array(bytes) => Record::mended(bytes).filter(sound),
            Value::Single(_) => None,
        };
        (mended, false)
    }

    async fn gather_table(&self, facts: &mut Facts) -> Result<()> {
        let mut listing = Dkeys::of(&self.container, keys::TABLE_OID, &[keys::INODE]);
        while let Some(dkeys) = listing.next().await? {
            for dkey in &dkeys {
                let Some(ino) = dkey.dkey.to_u64().map(Ino) else { continue };
                let place = Place::table(ino);
                let value = dkey.values.first().map(|(_, value)| value);
                let (record, whole) = self.believe(&place, value);
                let record = record.filter(|record| record.ino == ino && !record.is_reference());
                facts.ino_max = facts.ino_max.max(ino.counter());
                // A mended record is written below as one that differs.
                let record = record.map(|record| match whole {
                    true => record,
                    false => Record { version: 0, ..record },
                });
                facts.table.insert(ino, record);
            }
        }
        Ok(())
    }

    async fn gather_orphans(&self, facts: &mut Facts) -> Result<()> {
        let mut listing = Dkeys::of(&self.container, keys::ORPHANS_OID, &[keys::INODE]);
        while let Some(dkeys) = listing.next().await? {
            for dkey in &dkeys {
                let place = Place { object: keys::ORPHANS_OID, dkey: dkey.dkey.clone() };
                let ino = keys::orphan_of(&dkey.dkey).map(|(_, ino)| ino);
                let value = dkey.values.first().map(|(_, value)| value);
                let (record, whole) = self.believe(&place, value);
                let record = record.filter(|record| whole && Some(record.ino) == ino);
                facts.orphans.push((dkey.dkey.clone(), ino, record));
            }
        }
        Ok(())
    }

    /// Inode numbers that are in use are never given out again.
    async fn counters(&mut self, facts: &Facts) -> Result<()> {
        let counters = Superblock::counters();
        let stored = self.container.fetch_single(counters.key(keys::NEXT_INO)).await?;
        let next = number(stored.as_ref()).filter(|next| *next > facts.ino_max);
        self.next_ino = next.unwrap_or(facts.ino_max + 1);
        if next.is_none() {
            let mut change = Change::new();
            let value = Bytes::copy_from_slice(&self.next_ino.to_le_bytes());
            change.put_single(counters.key(keys::NEXT_INO), value);
            let what = format!("the next inode number is {} now", self.next_ino);
            self.mend(what, change).await?;
        }
        let moves = self.container.fetch_single(counters.key(keys::MOVES)).await?;
        if number(moves.as_ref()).is_none() {
            let mut change = Change::new();
            change.put_single(counters.key(keys::MOVES), Bytes::from_static(&[0; 8]));
            self.mend("the counter of moves was lost; it begins again".into(), change).await?;
        }
        Ok(())
    }

    /// A record of which only the object is left.
    fn default_record(&self, ino: Ino, is_directory: bool, symlink: Option<u64>) -> Record {
        let base = superblock::root_record(ino, 0, 0, self.chunk_bytes, self.now);
        let (mode, oid) = match (is_directory, symlink) {
            (true, _) => (libc::S_IFDIR | 0o700, keys::directory_oid(ino)),
            (false, Some(_)) => (libc::S_IFLNK | 0o777, keys::file_oid(ino)),
            (false, None) => (libc::S_IFREG | 0o600, keys::file_oid(ino)),
        };
        let chunk_bytes = if is_directory { 0 } else { self.chunk_bytes };
        let value_len = symlink.unwrap_or(0);
        // Xattrs that are beside it shall be seen.
        let flags = flag::XATTRS;
        // Data keeps the time that it has of its own.
        let mtime_epoch = 0;
        let class = oid.class().0;
        Record { mode, oid, class, chunk_bytes, value_len, flags, mtime_epoch, ..base }
    }

    /// What the filesystem is to be; entries, records, table and orphans are written so.
    async fn decide(&mut self, facts: &mut Facts) -> Result<Tree> {
        let mut tree = Tree::new();
        self.root_record(facts, &mut tree).await?;
        self.take_entries(facts, &mut tree).await?;
        self.take_table(facts, &mut tree).await?;
        self.take_orphans(facts, &mut tree).await?;
        self.take_lost(facts, &mut tree).await?;
        self.break_loops(facts, &mut tree).await?;
        self.write_links(&mut tree).await?;
        Ok(tree)
    }

    async fn root_record(&mut self, facts: &mut Facts, tree: &mut Tree) -> Result<()> {
        let place = Place::root();
        let part = FetchPart::Akeys {
            object: place.object,
            dkey: place.dkey.clone(),
            prefix: Bytes::from_static(keys::INODE.as_bytes()),
            array_bytes_max: RECORD_BYTES_MAX,
        };
        let value = match self.container.fetch(vec![part]).await?.pop() {
            Some(Fetched::Akeys(akeys)) => akeys.into_iter().next().map(|(_, value)| value),
            _ => return Err(Error::Protocol { asked: "record" }),
        };
        let (record, whole) = self.believe(&place, value.as_ref());
        let root = self.root();
        let record = record.filter(|record| record.ino == root && record.kind() == Kind::Directory);
        let lost = record.is_none();
        let mut record = record
            .unwrap_or_else(|| superblock::root_record(root, 0, 0, self.chunk_bytes, self.now));
        if lost || !whole {
            record.version += 1;
            let what = if lost {
                "the root directory's record was lost; it has defaults"
            } else {
                "the root directory's record had a flipped bit; it was put right"
            };
            self.mend(what.into(), put(&place, &record)).await?;
        }
        facts.directories.insert(root);
        tree.insert(root, Node { record, in_table: false, names: vec![(root, Bytes::new())] });
        Ok(())
    }

    /// Names by the records in their entries.
    async fn take_entries(&mut self, facts: &mut Facts, tree: &mut Tree) -> Result<()> {
        let (mut later, mut references) = (Vec::new(), Vec::new());
        for entry in std::mem::take(&mut facts.entries) {
            let fits = check_name(&entry.name.1).is_ok() && entry.name.1 != b".."[..];
            match &entry.record {
                _ if !fits => {
                    let mut change = Change::new();
                    change.punch(&Place::entry(entry.name.0, &entry.name.1));
                    let what = format!("entry {}: no such name can be; removed", show(&entry.name));
                    self.mend(what, change).await?;
                }
                None => later.push(entry),
                Some(record) if record.is_reference() => references.push(entry),
                Some(record) => {
                    let record = record.clone();
                    self.take_single(facts, tree, entry, record).await?;
                }
            }
        }
        for entry in references {
            let Some(reference) = entry.record.clone() else { continue };
            self.take_reference(facts, tree, entry, &reference).await?;
        }
        for entry in later {
            self.rebuild_entry(facts, tree, entry).await?;
        }
        Ok(())
    }

    async fn take_single(
        &mut self,
        facts: &Facts,
        tree: &mut Tree,
        entry: Entry,
        mut record: Record,
    ) -> Result<()> {
        let (ino, name) = (record.ino, entry.name);
        let backs = facts.pointers.get(&record.oid);
        let points_here =
            |name: &Name| backs.is_some_and(|p| p.contains(&Pointer::Back(name.0, name.1.clone())));
        let second = tree.get(&ino).map(|node| node.names[0].clone());
        if let Some(first) = second {
            // The inode knows which of both is its name.
            let (keep, gone) = if points_here(&name) { (&name, &first) } else { (&first, &name) };
            let mut change = Change::new();
            change.punch(&Place::entry(gone.0, &gone.1));
            let what = format!("inode {ino} had two entries; {} is removed", show(gone));
            if keep == &name {
                tree.insert(ino, Node { record, in_table: false, names: vec![name.clone()] });
            }
            return self.mend(what, change).await;
        }
        if !entry.whole {
            record.version += 1;
            let what = format!("entry {}: a flipped bit was put right", show(&name));
            self.mend(what, put(&Place::entry(name.0, &name.1), &record)).await?;
        }
        tree.insert(ino, Node { record, in_table: false, names: vec![name] });
        Ok(())
    }

    async fn take_reference(
        &mut self,
        facts: &mut Facts,
        tree: &mut Tree,
        entry: Entry,
        reference: &Record,
    ) -> Result<()> {
        let (ino, name) = (reference.ino, entry.name);
        let place = Place::entry(name.0, &name.1);
        if tree.get(&ino).is_none_or(|node| !node.in_table) {
            let single = tree.remove(&ino);
            let stored = facts.table.remove(&ino).flatten();
            let there = facts.pointers.contains_key(&reference.oid);
            if stored.is_none() && single.is_none() && !there {
                let mut change = Change::new();
                change.punch(&place);
                let what =
                    format!("entry {}: nothing is left of inode {ino}; removed", show(&name));
                return self.mend(what, change).await;
            }
            let mended = stored.as_ref().is_none_or(|record| record.version == 0);
            let mut names = Vec::new();
            let record = match (stored, single) {
                (Some(record), single) => {
                    // An entry that holds the record too becomes a reference.
                    names.extend(single.into_iter().flat_map(|single| single.names));
                    record
                }
                (None, Some(single)) => {
                    names.extend(single.names);
                    single.record
                }
                (None, None) => Record {
                    mode: reference.mode & libc::S_IFMT | 0o600,
                    ..self.default_record(ino, reference.kind() == Kind::Directory, None)
                },
            };
            let mut change = Change::new();
            if mended {
                let record = Record { version: record.version + 1, ..record.clone() };
                put_into(&mut change, &Place::table(ino), &record);
            }
            for name in &names {
                put_into(&mut change, &Place::entry(name.0, &name.1), &record.reference());
            }
            if mended || !names.is_empty() {
                let what = format!("inode {ino}: its record in the inode table was rebuilt");
                self.mend(what, change).await?;
            }
            tree.insert(ino, Node { record, in_table: true, names });
        }
        let node = tree.get_mut(&ino).expect("inserted above");
        let right = node.record.reference();
        if !entry.whole || right != *reference {
            let what = format!("entry {}: its reference was rebuilt", show(&name));
            node.names.push(name);
            return self.mend(what, put(&place, &right)).await;
        }
        node.names.push(name);
        Ok(())
    }

    /// An entry of which the record is lost: the inode whose object says that this is its name.
    async fn rebuild_entry(
        &mut self,
        facts: &mut Facts,
        tree: &mut Tree,
        entry: Entry,
    ) -> Result<()> {
        let name = entry.name;
        let place = Place::entry(name.0, &name.1);
        let back = Pointer::Back(name.0, name.1.clone());
        let one_of = Pointer::Name(name.0, name.1.clone());
        let claims = facts.pointers.iter().find_map(|(oid, pointers)| {
            let (ino, is_directory) = self.inode_of(*oid)?;
            let single = pointers.contains(&back);
            (single || pointers.contains(&one_of)).then_some((ino, is_directory, single))
        });
        match claims {
            Some((ino, is_directory, true)) if !tree.contains_key(&ino) => {
                let record = self.default_record(ino, is_directory, entry.is_symlink);
                let what = format!(
                    "entry {}: its record was lost; rebuilt from its object, with default mode and owner",
                    show(&name)
                );
                self.mend(what, put(&place, &record)).await?;
                tree.insert(ino, Node { record, in_table: false, names: vec![name] });
                Ok(())
            }
            Some((ino, is_directory, false)) => {
                let reference = self.default_record(ino, is_directory, None).reference();
                let entry = Entry { name, record: None, whole: false, is_symlink: None };
                self.take_reference(facts, tree, entry, &reference).await
            }
            _ => {
                let mut change = Change::new();
                change.punch(&place);
                let what = format!("entry {}: nothing is left of its inode; removed", show(&name));
                self.mend(what, change).await
            }
        }
    }

    /// Records of the inode table that no reference leads to.
    async fn take_table(&mut self, facts: &mut Facts, tree: &mut Tree) -> Result<()> {
        let orphaned: HashSet<Ino> = facts
            .orphans
            .iter()
            .filter(|(_, _, record)| record.as_ref().is_some_and(Record::is_reference))
            .filter_map(|(_, ino, _)| *ino)
            .collect();
        for (ino, record) in std::mem::take(&mut facts.table) {
            if orphaned.contains(&ino) && record.is_some() {
                continue;
            }
            if tree.contains_key(&ino) || record.is_none() {
                // The entry has the record, or nothing has: then the object is looked at below.
                let mut change = Change::new();
                change.punch(&Place::table(ino));
                let what = format!("inode {ino}: a record in the inode table is removed");
                self.mend(what, change).await?;
                continue;
            }
            let Some(record) = record else { continue };
            self.into_lost_and_found(facts, tree, Node { record, in_table: true, names: vec![] })
                .await?;
        }
        Ok(())
    }

    async fn take_orphans(&mut self, facts: &mut Facts, tree: &mut Tree) -> Result<()> {
        for (dkey, ino, record) in std::mem::take(&mut facts.orphans) {
            let named = ino.is_some_and(|ino| tree.contains_key(&ino));
            match (&record, ino) {
                (Some(record), _) if !named => {
                    // It waits for the next mount.
                    facts.pointers.remove(&record.oid);
                }
                _ => {
                    let mut change = Change::new();
                    change.punch(&Place { object: keys::ORPHANS_OID, dkey });
                    if let Some(ino) = ino.filter(|_| !named) {
                        for oid in [keys::directory_oid(ino), keys::file_oid(ino)] {
                            if facts.pointers.remove(&oid).is_some() {
                                change.push(Op::PunchObject { object: oid });
                                facts.directories.remove(&ino);
                            }
                        }
                    }
                    let ino = ino.map_or("with a strange number".into(), |ino| ino.to_string());
                    self.mend(format!("orphan {ino}: its record is removed"), change).await?;
                }
            }
        }
        Ok(())
    }

    /// Objects that no name leads to: back to the name that they know, or into `/lost+found`.
    async fn take_lost(&mut self, facts: &mut Facts, tree: &mut Tree) -> Result<()> {
        let mut lost: Vec<ObjectId> = facts
            .pointers
            .keys()
            .filter(|oid| self.inode_of(**oid).is_some_and(|(ino, _)| !tree.contains_key(&ino)))
            .copied()
            .collect();
        lost.sort();
        let mut taken: HashSet<Name> =
            tree.values().flat_map(|node| node.names.iter().cloned()).collect();
        for oid in lost {
            let Some((ino, is_directory)) = self.inode_of(oid) else { continue };
            let pointers = facts.pointers.get(&oid).cloned().unwrap_or_default();
            if pointers.is_empty() && self.is_bare(oid, is_directory).await? {
                let mut change = Change::new();
                change.push(Op::PunchObject { object: oid });
                facts.pointers.remove(&oid);
                facts.directories.remove(&ino);
                self.mend(format!("object {oid}: it holds nothing; removed"), change).await?;
                continue;
            }
            let record = self.default_record(ino, is_directory, None);
            let back = pointers.into_iter().find_map(|pointer| match pointer {
                Pointer::Back(parent, name) | Pointer::Name(parent, name) => Some((parent, name)),
                Pointer::InTable => None,
            });
            let back = back.filter(|name| {
                let fits = check_name(&name.1).is_ok() && name.1 != b".."[..];
                fits && facts.directories.contains(&name.0) && !taken.contains(name)
            });
            let Some(name) = back else {
                let node = Node { record, in_table: false, names: vec![] };
                self.into_lost_and_found(facts, tree, node).await?;
                continue;
            };
            let what = format!(
                "inode {ino} has lost its entry; it is {} again, with default mode and owner",
                show(&name)
            );
            self.mend(what, put(&Place::entry(name.0, &name.1), &record)).await?;
            taken.insert(name.clone());
            tree.insert(ino, Node { record, in_table: false, names: vec![name] });
        }
        for oid in std::mem::take(&mut facts.strange) {
            self.done.mended.push(format!("object {oid} is no inode's; it is left as it is"));
        }
        Ok(())
    }

    /// Nothing is in the object.
    async fn is_bare(&self, oid: ObjectId, is_directory: bool) -> Result<bool> {
        if is_directory {
            let page = Page { after: Cursor::Start, entries_max: 1, bytes_max: 1 << 10 };
            let listed = self.container.list_dkeys(oid, vec![], 0, page).await?;
            return Ok(listed.dkeys.is_empty());
        }
        let info = self.container.fetch_object(oid, keys::DATA.into()).await?;
        Ok(info.is_none_or(|info| info.stored_bytes == 0 && info.array_end == (0, 0)))
    }

    /// Directories that the root does not lead to: what is in a loop is cut out of it.
    async fn break_loops(&mut self, facts: &Facts, tree: &mut Tree) -> Result<()> {
        loop {
            let mut children: HashMap<Ino, Vec<Ino>> = HashMap::new();
            for (ino, node) in &*tree {
                if node.record.kind() == Kind::Directory && *ino != self.root() {
                    children.entry(node.names[0].0).or_default().push(*ino);
                }
            }
            let (mut reached, mut todo) = (HashSet::new(), vec![self.root()]);
            while let Some(ino) = todo.pop() {
                reached.insert(ino);
                todo.extend(children.remove(&ino).unwrap_or_default());
            }
            let lost = tree.iter().find(|(ino, node)| {
                node.record.kind() == Kind::Directory && !reached.contains(ino)
            });
            let Some(ino) = lost.map(|(ino, _)| *ino) else { return Ok(()) };
            let node = tree.remove(&ino).expect("found above");
            let mut change = Change::new();
            for name in &node.names {
                change.punch(&Place::entry(name.0, &name.1));
            }
            self.mend(format!("directory {ino} was in a loop; it is cut out of it"), change)
                .await?;
            let node = Node { names: vec![], ..node };
            self.into_lost_and_found(facts, tree, node).await?;
        }
    }

    async fn into_lost_and_found(
        &mut self,
        facts: &Facts,
        tree: &mut Tree,
        mut node: Node,
    ) -> Result<()> {
        let parent = self.lost_and_found(facts, tree).await?;
        let ino = node.record.ino;
        let name: Name = (parent, Bytes::from(format!("#{ino}")));
        node.record.nlink = 1;
        node.record.version += 1;
        let mut change = Change::new();
        match node.in_table {
            true => {
                put_into(&mut change, &Place::table(ino), &node.record);
                put_into(&mut change, &Place::entry(parent, &name.1), &node.record.reference());
            }
            false => put_into(&mut change, &Place::entry(parent, &name.1), &node.record),
        }
        node.names = vec![name];
        tree.insert(ino, node);
        self.done.lost_and_found += 1;
        self.mend(format!("inode {ino} has lost its name; it is in /lost+found"), change).await
    }

    /// The directory for what has no name; made if there is none.
    async fn lost_and_found(&mut self, facts: &Facts, tree: &mut Tree) -> Result<Ino> {
        let root = self.root();
        let at = |name: &Name| name.0 == root && name.1 == LOST_AND_FOUND;
        let there = tree.values().find(|node| node.names.iter().any(at));
        if let Some(node) = there.filter(|node| node.record.kind() == Kind::Directory) {
            return Ok(node.record.ino);
        }
        // Something else may have that name.
        let name = (0..).map(|n| match n {
            0 => Bytes::from_static(LOST_AND_FOUND),
            n => Bytes::from(format!("lost+found.{n}")),
        });
        let is_free = |name: &Bytes| {
            !tree.values().any(|node| node.names.iter().any(|n| n.0 == root && n.1 == *name))
        };
        let name = name.into_iter().find(is_free).expect("some name is free");
        let mut ino = self.ino(self.next_ino);
        while facts.directories.contains(&ino) {
            ino = self.ino(ino.counter() + 1);
        }
        self.next_ino = ino.counter() + 1;
        self.made = Some(ino);
        let mut record = self.default_record(ino, true, None);
        record.flags = 0;
        let mut change = Change::new();
        let next = Bytes::copy_from_slice(&self.next_ino.to_le_bytes());
        change.put_single(Superblock::counters().key(keys::NEXT_INO), next);
        put_into(&mut change, &Place::entry(root, &name), &record);
        change.put_pointer(record.oid, keys::back_akey(root, &name));
        change.count_subdirectories(root, 1);
        let shown = name.escape_ascii().to_string();
        tree.insert(ino, Node { record, in_table: false, names: vec![(root, name)] });
        self.mend(format!("/{shown} was made"), change).await?;
        Ok(ino)
    }

    /// Link counts.
    async fn write_links(&mut self, tree: &mut Tree) -> Result<()> {
        let root = self.root();
        for (ino, node) in tree {
            let names = node.names.len() as u32;
            if node.record.nlink == names || *ino == root {
                continue;
            }
            let what =
                format!("inode {ino} has {names} names, its link count was {}", node.record.nlink);
            node.record.nlink = names;
            node.record.version += 1;
            let place = match node.in_table {
                true => Place::table(*ino),
                false => Place::entry(node.names[0].0, &node.names[0].1),
            };
            self.mend(what, put(&place, &node.record)).await?;
        }
        Ok(())
    }

    /// What each object says of its names.
    async fn write_pointers(&mut self, facts: &Facts, tree: &Tree) -> Result<()> {
        for (ino, node) in tree {
            let mut expected: Vec<Pointer> = Vec::new();
            match node.in_table {
                false => {
                    let (parent, name) = node.names[0].clone();
                    expected.push(Pointer::Back(parent, name));
                }
                true => {
                    expected.push(Pointer::InTable);
                    let name = |(parent, name): &Name| Pointer::Name(*parent, name.clone());
                    expected.extend(node.names.iter().map(name));
                }
            }
            let oid = node.record.oid;
            let known = facts.pointers.get(&oid);
            let found = known.map_or(&[][..], Vec::as_slice);
            let mut ops = Vec::new();
            for wrong in found.iter().filter(|pointer| !expected.contains(pointer)) {
                ops.push(Op::PunchAkey(keys::self_key(oid, akey_of(wrong))));
            }
            for missing in expected.iter().filter(|pointer| !found.contains(pointer)) {
                let key = keys::self_key(oid, akey_of(missing));
                ops.push(Op::UpdateSingle { key, value: Bytes::new() });
            }
            if ops.is_empty() || self.made == Some(*ino) {
                continue;
            }
            // The last ones are those that are missing: what it already knows is never all taken first.
            for batch in ops.rchunks(OPS_MAX) {
                let mut change = Change::new();
                batch.iter().cloned().for_each(|op| change.push(op));
                change.commit(&self.container).await?;
            }
            self.done.mended.push(format!("inode {ino} knows its names again"));
        }
        Ok(())
    }

    /// Subdirectory counts.
    async fn write_counts(&mut self, facts: &Facts, tree: &Tree) -> Result<()> {
        let mut counts: HashMap<Ino, u64> = HashMap::new();
        let directories: Vec<Ino> = tree
            .iter()
            .filter(|(_, node)| node.record.kind() == Kind::Directory)
            .map(|(ino, _)| *ino)
            .collect();
        for ino in directories.iter().filter(|ino| **ino != self.root()) {
            *counts.entry(tree[ino].names[0].0).or_default() += 1;
        }
        for ino in directories {
            let counted = counts.get(&ino).copied().unwrap_or(0);
            let key = keys::self_key(keys::directory_oid(ino), keys::SUBDIRECTORIES.into());
            let stored = match self.container.fetch_single(key.clone()).await? {
                None => Some(0),
                Some(value) => number(Some(&value)),
            };
            if stored == Some(counted) {
                continue;
            }
            let before = facts.subdirectories.get(&ino).copied().flatten();
            let before = before.map_or("nothing".into(), |count| count.to_string());
            let mut change = Change::new();
            change.put_single(key, Bytes::copy_from_slice(&counted.to_le_bytes()));
            let what =
                format!("directory {ino} has {counted} subdirectories, its count was {before}");
            self.mend(what, change).await?;
        }
        Ok(())
    }
}

fn akey_of(pointer: &Pointer) -> Akey {
    match pointer {
        Pointer::InTable => keys::in_table_akey(),
        Pointer::Back(parent, name) => keys::back_akey(*parent, name),
        Pointer::Name(parent, name) => keys::name_akey(*parent, name),
    }
}

fn put(place: &Place, record: &Record) -> Change {
    let mut change = Change::new();
    put_into(&mut change, place, record);
    change
}

/// Instead of whatever is there: a longer one leaves nothing.
fn put_into(change: &mut Change, place: &Place, record: &Record) {
    change.push(Op::PunchAkey(place.key(keys::INODE)));
    change.put_record(place, record);
}
