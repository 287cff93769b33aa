//! From an inode number to its record and facts: out of memory, from its home, or by its back pointer.
//!
//! # Order
//! Nothing here takes a turn on an inode; callers that need a record to stay as it is do.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{FetchPart, Fetched, ObjectInfo, Value};
use daos_types::{Akey, ObjectId};

use crate::change::{Place, TRIES_MAX};
use crate::keys::{self, Pointer};
use crate::mount::Dfs;
use crate::record::{RECORD_BYTES_MAX, Record};
use crate::table::{Facts, Home, Inode, Loaded};
use crate::{Attr, Error, Ino, Kind, Result, Time};

/// A name's entry with everything beside it, and the inode that it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) parent: Ino,
    pub(crate) name: Bytes,
    /// As it is in the directory; a reference if the inode is in the table.
    pub(crate) entry: Record,
    /// Symlink target and xattrs in the entry, if they were asked for.
    pub(crate) extras: Vec<(Akey, Bytes)>,
    pub(crate) loaded: Loaded,
}

impl Named {
    pub(crate) fn ino(&self) -> Ino {
        self.entry.ino
    }

    pub(crate) fn kind(&self) -> Kind {
        self.entry.kind()
    }

    pub(crate) fn place(&self) -> Place {
        Place::entry(self.parent, &self.name)
    }

    pub(crate) fn in_table(&self) -> bool {
        self.entry.is_reference()
    }
}

/// Which neighbours of a record come with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum With {
    Record,
    /// Symlink target and xattrs.
    Extras,
}

impl Dfs {
    pub(crate) fn inode(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.own(ino)?;
        Ok(self.table.get(ino))
    }

    /// The entry `name` of a directory, and where it leads. `None`: there is none.
    pub(crate) async fn named(
        &self,
        parent: Ino,
        name: &[u8],
        with: With,
    ) -> Result<Option<Named>> {
        self.own(parent)?;
        for _ in 0..TRIES_MAX {
            let place = Place::entry(parent, name);
            let Some((entry, extras)) = self.fetch_record(&place, with).await? else {
                return Ok(None);
            };
            let name = Bytes::copy_from_slice(name);
            let loaded = if entry.is_reference() {
                let table = Place::table(entry.ino);
                match self.fetch_record(&table, With::Record).await? {
                    Some((record, _)) if record.nlink > 0 => {
                        Loaded { home: Home::Table, record: Arc::new(record) }
                    }
                    // The last name went between the two reads.
                    _ => continue,
                }
            } else {
                let home = Home::Entry { parent, name: name.clone() };
                Loaded { home, record: Arc::new(entry.clone()) }
            };
            return Ok(Some(Named { parent, name, entry, extras, loaded }));
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// As `named`, out of memory: the entry as own changes left it, if it is known that nothing else is in it. What follows from it
    /// is proved by conditions, or answers a lookup that ran beside the change.
    pub(crate) fn remembered(&self, parent: Ino, name: &[u8]) -> Option<Named> {
        let inode = self.table.known(self.names.hint(parent, name)?)?;
        let loaded = inode.loaded()?;
        let Home::Entry { parent: of, name: called } = &loaded.home else { return None };
        if *of != parent || *called != name || !self.cache_attributes {
            return None;
        }
        let entry = Record::clone(&loaded.record);
        Some(Named { parent, name: called.clone(), entry, extras: Extras::new(), loaded })
    }

    /// One of the names of an inode in the table, if the hint is right: only conditions can tell, so nothing may be refused on
    /// its word.
    pub(crate) fn remembered_reference(&self, parent: Ino, name: &[u8]) -> Option<Named> {
        let inode = self.table.known(self.names.hint(parent, name)?)?;
        let loaded = inode.loaded().filter(|loaded| loaded.home == Home::Table)?;
        let entry = loaded.record.reference();
        let name = Bytes::copy_from_slice(name);
        Some(Named { parent, name, entry, extras: Extras::new(), loaded })
    }

    /// As `remembered`, for who takes the whole entry away: with extras that nobody knows there is none.
    pub(crate) fn remembered_whole(&self, parent: Ino, name: &[u8]) -> Option<Named> {
        let plain = |named: &Named| !named.entry.may_have_xattrs() && named.kind() != Kind::Symlink;
        self.remembered(parent, name).filter(plain)
    }

    async fn fetch_record(&self, place: &Place, with: With) -> Result<Option<(Record, Extras)>> {
        let part = record_part(place, with);
        match self.container.fetch(vec![part]).await?.pop() {
            Some(Fetched::Akeys(akeys)) => read_record(place, akeys),
            _ => Err(Error::Protocol { asked: "record" }),
        }
    }

    /// A record and the symlink target beside it, of one moment.
    pub(crate) async fn fetch_target(
        &self,
        place: &Place,
    ) -> Result<Option<(Record, Option<Bytes>)>> {
        let target = FetchPart::Single(place.key(Akey::from(keys::SYMLINK)));
        let parts = vec![record_part(place, With::Record), target];
        let mut fetched = self.container.fetch(parts).await?.into_iter();
        match (fetched.next(), fetched.next()) {
            (Some(Fetched::Akeys(akeys)), Some(Fetched::Single(target))) => {
                Ok(read_record(place, akeys)?.map(|(record, _)| (record, target)))
            }
            _ => Err(Error::Protocol { asked: "symlink" }),
        }
    }

    /// Symlink target and xattrs of an inode that is at `place`.
    pub(crate) async fn fetch_extras(&self, place: &Place, prefix: &[u8]) -> Result<Extras> {
        let part = FetchPart::Akeys {
            object: place.object,
            dkey: place.dkey.clone(),
            prefix: Bytes::copy_from_slice(prefix),
            array_bytes_max: 0,
        };
        match self.container.fetch(vec![part]).await?.pop() {
            Some(Fetched::Akeys(akeys)) => Ok(singles(akeys)),
            _ => Err(Error::Protocol { asked: "xattrs" }),
        }
    }

    /// The newest record of an inode and where it is.
    pub(crate) async fn load(&self, inode: &Inode) -> Result<Loaded> {
        if let Some(loaded) = inode.loaded() {
            if self.cache_attributes || loaded.home == Home::Gone {
                return Ok(loaded);
            }
        }
        // Apart: nearly every call's future has one of these in it.
        Box::pin(self.load_afresh(inode)).await
    }

    async fn load_afresh(&self, inode: &Inode) -> Result<Loaded> {
        for _ in 0..TRIES_MAX {
            let home = match inode.home() {
                Some(home) => home,
                None => self.resolve(inode.ino).await?,
            };
            let Some(place) = Place::of(&home, inode.ino, self.lease) else {
                return inode.loaded().ok_or(Error::Stale);
            };
            match self.fetch_record(&place, With::Record).await? {
                Some((record, _)) if record.ino == inode.ino && !record.is_reference() => {
                    // Its last name may have gone since `home` was learned.
                    let home = match home {
                        Home::Table if record.nlink == 0 => Home::TableOrphan,
                        home => home,
                    };
                    let loaded = Loaded { home, record: Arc::new(record) };
                    inode.learn_fetched(loaded.clone());
                    return Ok(loaded);
                }
                // It moved after we learned where it is.
                _ if home.is_named() => inode.doubt(),
                _ => return Err(Error::Stale),
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Where the record of an inode is that nobody here has seen, or that moved: its own object says so.
    async fn resolve(&self, ino: Ino) -> Result<Home> {
        if ino == self.root() {
            return Ok(Home::Root);
        }
        let candidates = [keys::directory_oid(ino), keys::file_oid(ino)];
        let back = |oid: &ObjectId| FetchPart::Akeys {
            object: *oid,
            dkey: keys::self_dkey(*oid),
            prefix: Bytes::from_static(keys::BACK_PREFIX),
            array_bytes_max: 0,
        };
        let mut parts: Vec<FetchPart> = candidates.iter().map(back).collect();
        // Its last name may be going at this moment: it is open, and here it is.
        parts.push(record_part(&Place::orphan(self.lease, ino), With::Record));
        let mut fetched = self.container.fetch(parts).await?;
        let Some(Fetched::Akeys(orphan)) = fetched.pop() else {
            return Err(Error::Protocol { asked: "orphan" });
        };
        for fetched in fetched {
            let Fetched::Akeys(akeys) = fetched else {
                return Err(Error::Protocol { asked: "back pointer" });
            };
            match akeys.first().and_then(|(akey, _)| Pointer::of(akey)) {
                Some(Pointer::Back(parent, name)) => return Ok(Home::Entry { parent, name }),
                Some(Pointer::InTable) => return Ok(Home::Table),
                _ => {}
            }
        }
        if orphan.is_empty() { Err(Error::Stale) } else { Ok(Home::Orphan) }
    }

    /// The record of a directory; another kind of inode is an error.
    pub(crate) async fn directory(&self, ino: Ino) -> Result<Loaded> {
        let loaded = self.load(&*self.inode(ino)?).await?;
        match (loaded.record.kind(), &loaded.home) {
            (Kind::Directory, Home::Gone) => Err(Error::NoEntry),
            (Kind::Directory, _) => Ok(loaded),
            _ => Err(Error::NotDirectory),
        }
    }

    /// Size, data epoch and space, or what stands for them.
    pub(crate) async fn facts(&self, inode: &Inode, loaded: &Loaded) -> Result<Facts> {
        if loaded.home == Home::Gone {
            return Ok(Facts::File(ObjectInfo::default()));
        }
        if self.cache_attributes
            && let Some(facts) = inode.facts()
        {
            return Ok(facts);
        }
        Box::pin(self.fetch_facts(inode, loaded)).await
    }

    async fn fetch_facts(&self, inode: &Inode, loaded: &Loaded) -> Result<Facts> {
        let generation = inode.generation();
        let mut parts = Vec::new();
        facts_parts(&loaded.record, &mut parts);
        let fetched = match parts.is_empty() {
            true => Vec::new(),
            false => self.container.fetch(parts).await?,
        };
        let facts = read_facts(&loaded.record, &mut fetched.into_iter())?;
        inode.learn_facts(generation, facts);
        Ok(facts)
    }

    pub(crate) async fn attr(&self, inode: &Inode) -> Result<Attr> {
        let loaded = self.load(inode).await?;
        self.attr_of(inode, &loaded).await
    }

    pub(crate) async fn attr_of(&self, inode: &Inode, loaded: &Loaded) -> Result<Attr> {
        let facts = self.facts(inode, loaded).await?;
        Ok(inode.shown(attr(loaded, facts)))
    }
}

pub(crate) type Extras = Vec<(Akey, Bytes)>;

fn record_part(place: &Place, with: With) -> FetchPart {
    FetchPart::Akeys {
        object: place.object,
        dkey: place.dkey.clone(),
        prefix: match with {
            With::Record => Bytes::from_static(keys::INODE.as_bytes()),
            With::Extras => Bytes::new(),
        },
        array_bytes_max: RECORD_BYTES_MAX,
    }
}

fn read_record(place: &Place, akeys: Vec<(Akey, Value)>) -> Result<Option<(Record, Extras)>> {
    let found = akeys.iter().find(|(akey, _)| akey.as_bytes() == keys::INODE.as_bytes());
    let Some((_, value)) = found else { return Ok(None) };
    let record = decode(place, value)?;
    Ok(Some((record, singles(akeys))))
}

/// The record in a value that was listed or fetched from `place`.
pub(crate) fn decode(place: &Place, value: &Value) -> Result<Record> {
    let (Value::Array(bytes) | Value::Single(bytes)) = value;
    Record::decode(bytes, || format!("{} {:?}", place.object, place.dkey))
}

fn singles(akeys: Vec<(Akey, Value)>) -> Extras {
    let single = |(akey, value)| match value {
        Value::Single(bytes) => Some((akey, bytes)),
        Value::Array(_) => None,
    };
    akeys.into_iter().filter_map(single).collect()
}

/// Appends what must be fetched to know an inode's facts.
pub(crate) fn facts_parts(record: &Record, parts: &mut Vec<FetchPart>) {
    match record.kind() {
        Kind::File => parts.push(object_part(record.oid)),
        Kind::Directory => {
            for akey in [keys::SUBDIRECTORIES, keys::STAMP] {
                parts.push(FetchPart::Single(keys::self_key(record.oid, akey.into())));
            }
        }
        _ => {}
    }
}

pub(crate) fn object_part(oid: ObjectId) -> FetchPart {
    FetchPart::Object { object: oid, akey: keys::DATA.into() }
}

/// Reads the answers to [`facts_parts`].
pub(crate) fn read_facts(
    record: &Record,
    fetched: &mut impl Iterator<Item = Fetched>,
) -> Result<Facts> {
    match record.kind() {
        Kind::File => Ok(Facts::File(read_object(fetched.next())?)),
        Kind::Directory => {
            let subdirectories = read_number(fetched.next())?;
            let stamp = read_number(fetched.next())?;
            Ok(Facts::Directory { subdirectories, stamp })
        }
        _ => Ok(Facts::File(ObjectInfo::default())),
    }
}

pub(crate) fn read_object(fetched: Option<Fetched>) -> Result<ObjectInfo> {
    match fetched {
        Some(Fetched::Object(info)) => Ok(info.unwrap_or_default()),
        _ => Err(Error::Protocol { asked: "object's record" }),
    }
}

fn read_number(fetched: Option<Fetched>) -> Result<u64> {
    let Some(Fetched::Single(value)) = fetched else {
        return Err(Error::Protocol { asked: "number" });
    };
    let Some(value) = value else { return Ok(0) };
    let bytes = value.as_ref().try_into().map_err(|_| Error::Damaged {
        what: "number",
        whose: "a directory".into(),
        why: "it has another length",
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// One past the last byte that was written: what the object says, in bytes of the file.
pub(crate) fn data_end(record: &Record, info: &ObjectInfo) -> u64 {
    let (dkey, end) = info.array_end;
    match dkey.checked_sub(1) {
        None => 0,
        Some(chunk) => chunk.saturating_mul(record.chunk_bytes).saturating_add(end),
    }
}

pub(crate) fn file_size(record: &Record, info: &ObjectInfo) -> u64 {
    record.size_floor.max(data_end(record, info))
}

/// What `stat` of a directory calls its size, and the space it takes, whatever is in it: the truth would be a question to the
/// engine after every name.
const DIRECTORY_SIZE: u64 = 4096;
/// Preferred I/O of what has no chunks.
const BLKSIZE: u32 = 4096;

pub(crate) fn attr(loaded: &Loaded, facts: Facts) -> Attr {
    let record = &*loaded.record;
    let kind = record.kind();
    let (changed, stored_bytes) = match facts {
        Facts::File(info) => (info.data_epoch.0, info.stored_bytes),
        Facts::Directory { stamp, .. } => (stamp, DIRECTORY_SIZE),
    };
    let size = match (kind, facts) {
        (Kind::File, Facts::File(info)) => file_size(record, &info),
        (Kind::Directory, _) => DIRECTORY_SIZE,
        (Kind::Symlink, _) => record.value_len,
        _ => 0,
    };
    let gone = !loaded.home.is_named();
    let nlink = match facts {
        _ if gone => 0,
        Facts::Directory { subdirectories, .. } => {
            u32::try_from(subdirectories.saturating_add(2)).unwrap_or(u32::MAX)
        }
        Facts::File(_) => record.nlink,
    };
    let touched = changed > record.mtime_epoch;
    Attr {
        ino: record.ino,
        kind,
        mode: record.mode,
        nlink,
        uid: record.uid,
        gid: record.gid,
        rdev: record.rdev,
        size,
        blocks: stored_bytes.div_ceil(512),
        blksize: match kind {
            Kind::File => u32::try_from(record.chunk_bytes).unwrap_or(1 << 20).min(1 << 20),
            _ => BLKSIZE,
        },
        atime: record.atime,
        mtime: if touched { Time::from_nanos(changed) } else { record.mtime },
        ctime: record.ctime.max(Time::from_nanos(changed)),
        btime: Time::from_nanos(record.btime),
    }
}

#[cfg(test)]
mod tests {
    use daos_types::Epoch;

    use super::*;
    use crate::record::tests::sample;

    fn shown(record: Record, info: ObjectInfo) -> Attr {
        attr(&Loaded { home: Home::Table, record: Arc::new(record) }, Facts::File(info))
    }

    #[test]
    fn size_is_the_floor_or_the_end_of_the_data() {
        let record = Record { size_floor: 10, ..sample() };
        let info = ObjectInfo { array_end: (2, 7), ..ObjectInfo::default() };
        assert_eq!(shown(record.clone(), info).size, (1 << 20) + 7);
        assert_eq!(shown(record, ObjectInfo::default()).size, 10);
    }

    #[test]
    fn data_written_after_utimens_shows_its_own_time() {
        let record = Record { mtime_epoch: 50, ..sample() };
        let at = |epoch| ObjectInfo { data_epoch: Epoch(epoch), ..ObjectInfo::default() };
        assert_eq!(shown(record.clone(), at(50)).mtime, record.mtime);
        assert_eq!(shown(record.clone(), at(51)).mtime, Time::from_nanos(51));
    }

    #[test]
    fn blocks_round_up() {
        let info = ObjectInfo { stored_bytes: 513, ..ObjectInfo::default() };
        assert_eq!(shown(sample(), info).blocks, 2);
    }
}
