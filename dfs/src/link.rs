//! More names for one inode. The second name moves the inode to the inode table, for good; each name is then a reference,
//! and the inode's own object lists them all.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::Akey;
use daos_types::rpc::FetchPart;
use daos_types::rpc::Fetched;

use crate::change::{Change, Place, TRIES_MAX};
use crate::keys::{self, Pointer};
use crate::load::Extras;
use crate::lock::How;
use crate::lookup::check_new_name;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::{Home, Inode, Loaded};
use crate::{Entry, Error, Ino, Kind, LINKS_MAX, Result, Time};

impl Dfs {
    /// One name more for `ino`, which is no directory.
    pub async fn link(&self, ino: Ino, new_parent: Ino, new_name: &[u8]) -> Result<Entry> {
        self.writable()?;
        check_new_name(new_name)?;
        self.own(new_parent)?;
        let inode = self.inode(ino)?;
        let turn = inode.turn(How::Exclusive).await;
        for _ in 0..TRIES_MAX {
            let loaded = self.load(&inode).await?;
            check_linkable(&loaded)?;
            self.directory(new_parent).await?;
            let now = self.now();
            let mut change = Change::new();
            change.demand_directory(new_parent);
            change.demand_no_entry(new_parent, new_name);
            change.stamp(new_parent, now);
            let next =
                self.add_name(&mut change, &inode, &loaded, (new_parent, new_name), now).await?;
            self.names.may_come(new_parent, new_name);
            let naming = self.table.get(new_parent).naming(now, 0);
            if let Some(epoch) = change.commit(&self.container).await? {
                naming.done(epoch);
                self.names.learn(new_parent, new_name, ino);
                inode.learn(next);
                drop(turn);
                let entry = Entry { attr: self.attr(&inode).await? };
                self.remember(ino, 1);
                return Ok(entry);
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Adds to `change` the entry `new` and what it means for the inode.
    async fn add_name(
        &self,
        change: &mut Change,
        inode: &Inode,
        old: &Loaded,
        new: (Ino, &[u8]),
        now: u64,
    ) -> Result<Loaded> {
        let mut record = Record::clone(&old.record);
        record.version += 1;
        record.ctime = Time::from_nanos(now);
        record.nlink += 1;
        record.flags &= !flag::LINKABLE;
        let home = match &old.home {
            Home::Orphan => return self.name_orphan(change, old, record, new).await,
            Home::Entry { parent, name } => {
                let place = Place::entry(*parent, name);
                let plain = !old.record.may_have_xattrs() && old.record.kind() != Kind::Symlink;
                let extras = match plain {
                    true => Extras::new(),
                    false => self.fetch_extras(&place, b"").await?,
                };
                change.expect_record(&place, &old.record);
                move_to_table(change, &record, (*parent, name), &extras);
                Home::Table
            }
            _ => {
                let table = Place::table(inode.ino);
                change.expect_record(&table, &old.record);
                change.put_record(&table, &record);
                Home::Table
            }
        };
        change.put_record(&Place::entry(new.0, new.1), &record.reference());
        change.put_pointer(record.oid, keys::name_akey(new.0, new.1));
        Ok(Loaded { home, record: Arc::new(record) })
    }

    /// The first name of an inode that was made without one.
    async fn name_orphan(
        &self,
        change: &mut Change,
        old: &Loaded,
        record: Record,
        (parent, name): (Ino, &[u8]),
    ) -> Result<Loaded> {
        let orphan = Place::orphan(self.lease, record.ino);
        let entry = Place::entry(parent, name);
        let extras = self.fetch_extras(&orphan, b"").await?;
        change.expect_record(&orphan, &old.record);
        change.put_record(&entry, &record);
        change.put_extras(&entry, &extras);
        change.put_pointer(record.oid, keys::back_akey(parent, name));
        change.punch(&orphan);
        let home = Home::Entry { parent, name: Bytes::copy_from_slice(name) };
        Ok(Loaded { home, record: Arc::new(record) })
    }

    /// Every name of an inode in the inode table, from its own object.
    pub(crate) async fn names(&self, record: &Record) -> Result<Vec<(Ino, Bytes)>> {
        let part = FetchPart::Akeys {
            object: record.oid,
            dkey: keys::self_dkey(record.oid),
            prefix: Bytes::new(),
            array_bytes_max: 0,
        };
        let Some(Fetched::Akeys(akeys)) = self.container.fetch(vec![part]).await?.pop() else {
            return Err(Error::Protocol { asked: "names" });
        };
        let name = |(akey, _): &(Akey, _)| match Pointer::of(akey) {
            Some(Pointer::Name(parent, name)) => Some((parent, name)),
            _ => None,
        };
        Ok(akeys.iter().filter_map(name).collect())
    }

    /// The parent of a directory whose record is in the inode table.
    pub(crate) async fn parent_by_name(&self, directory: Ino) -> Result<Ino> {
        let loaded = self.directory(directory).await?;
        let names = self.names(&loaded.record).await?;
        names.first().map(|(parent, _)| *parent).ok_or(Error::Stale)
    }
}

fn check_linkable(loaded: &Loaded) -> Result<()> {
    if loaded.record.kind() == Kind::Directory {
        return Err(Error::NotPermitted("directories have one name"));
    }
    match loaded.home {
        Home::Gone | Home::TableOrphan => return Err(Error::NoEntry),
        Home::Orphan if loaded.record.flags & flag::LINKABLE == 0 => return Err(Error::NoEntry),
        _ => {}
    }
    if loaded.record.nlink >= LINKS_MAX { Err(Error::TooManyLinks) } else { Ok(()) }
}

/// Moves an inode from its entry to the inode table; the entry stays, as a reference.
pub(crate) fn move_to_table(
    change: &mut Change,
    record: &Record,
    (parent, name): (Ino, &[u8]),
    extras: &Extras,
) {
    let entry = Place::entry(parent, name);
    let table = Place::table(record.ino);
    change.put_record(&table, record);
    change.put_extras(&table, extras);
    // Overwritten in place, not punched: the entry keeps its cookie.
    change.put_record(&entry, &record.reference());
    for (akey, _) in extras {
        change.push(daos_types::rpc::Op::PunchAkey(entry.key(akey.clone())));
    }
    change.punch_pointer(record.oid, keys::back_akey(parent, name));
    change.put_pointer(record.oid, keys::in_table_akey());
    change.put_pointer(record.oid, keys::name_akey(parent, name));
}
