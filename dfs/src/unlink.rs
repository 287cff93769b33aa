//! Names that go: unlink, rmdir, and the part of rename that replaces a name.
//!
//! The last name of an inode that is open leaves an orphan (orphan.rs); of one that is not, nothing. For a while after somebody came
//! too late to open what a name had led to, an inode that the kernel knows is left as well: who comes for the second time, which
//! the kernel does by itself, does not come too late again however often the name changes.
//!
//! # Order
//! The inode's exclusive turn is held from the look at its open count to the end of the transaction, so that no open
//! comes between.

use std::sync::Arc;

use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::load::{Named, With};
use crate::lookup::check_old_name;
use crate::mount::Dfs;
use crate::record::Record;
use crate::table::{Home, Inode, Loaded};
use crate::{Error, Ino, Kind, Result, Time, uns};

/// What the loss of a name leaves of the inode; known to the table when the transaction is through.
pub(crate) struct Left {
    inode: Arc<Inode>,
    loaded: Loaded,
}

impl Left {
    pub(crate) fn settle(self) {
        self.inode.learn(self.loaded);
        if self.inode.home() == Some(Home::Gone) {
            self.inode.change_facts(|_| None);
        }
    }
}

impl Dfs {
    /// Answers what has lost the name; so do the others here.
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        self.take_away(parent, name, false, None).await
    }

    /// A directory that stands for a container is refused (`IsEntryPoint`).
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        self.take_away(parent, name, true, None).await
    }

    /// As `rmdir`, also of the directory `allowed`: the caller has seen that with it nothing is lost.
    pub async fn rmdir_allowing(&self, parent: Ino, name: &[u8], allowed: Ino) -> Result<Ino> {
        self.take_away(parent, name, true, Some(allowed)).await
    }

    async fn take_away(
        &self,
        parent: Ino,
        name: &[u8],
        directory: bool,
        allowed: Option<Ino>,
    ) -> Result<Ino> {
        self.writable()?;
        check_old_name(name)?;
        for attempt in 0..TRIES_MAX {
            let remembered = match attempt {
                0 => self.remembered_for_removal(parent, name, directory),
                _ => None,
            };
            let named = match remembered {
                Some(named) => Some(named),
                None => Box::pin(self.named(parent, name, With::Extras)).await?,
            };
            let Some(named) = named else {
                self.directory(parent).await?;
                return Err(Error::NoEntry);
            };
            match (named.kind(), directory) {
                (Kind::Directory, false) => return Err(Error::IsDirectory),
                (Kind::Directory, true) | (_, false) => {}
                (_, true) => return Err(Error::NotDirectory),
            }
            self.check_no_entry_point(&named, allowed).await?;
            let inode = self.inode(named.ino())?;
            let turn = inode.turn(crate::lock::How::Exclusive).await;
            let now = self.now();
            let mut change = Change::new();
            change.expect_record(&named.place(), &named.entry);
            let left = self.drop_name(&mut change, &inode, &named, now);
            change.punch(&named.place());
            change.stamp(parent, now);
            change.count_if_directory(named.kind(), parent, -1);
            let subdirectories = -i64::from(named.kind() == Kind::Directory);
            let naming = self.table.get(parent).naming(now, subdirectories);
            if let Some(epoch) = change.commit(&self.container).await? {
                naming.done(epoch);
                left.settle();
                return Ok(inode.ino);
            }
            drop(turn);
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Costs nothing: the xattrs of an entry come with it.
    pub(crate) async fn check_no_entry_point(
        &self,
        named: &Named,
        allowed: Option<Ino>,
    ) -> Result<()> {
        let ino = named.ino();
        let plain = named.kind() != Kind::Directory || !named.loaded.record.may_have_xattrs();
        if plain || allowed == Some(ino) {
            return Ok(());
        }
        let text = match named.in_table() {
            true => Box::pin(self.entry_point(ino)).await?,
            false => {
                let key = keys::xattr_akey(uns::XATTR.as_bytes());
                let found = named.extras.iter().find(|(akey, _)| *akey == key);
                found.map(|(_, text)| text.clone())
            }
        };
        text.map_or(Ok(()), |text| Err(Error::IsEntryPoint { ino, text }))
    }

    fn remembered_for_removal(&self, parent: Ino, name: &[u8], directory: bool) -> Option<Named> {
        let fits = |named: &Named| !directory && named.kind() != Kind::Directory;
        let reference = || self.remembered_reference(parent, name).filter(fits);
        self.remembered_whole(parent, name).or_else(reference)
    }

    /// Adds to `change` what the loss of this name means for the inode; the entry itself is the caller's to punch. The caller
    /// holds the inode's exclusive turn.
    pub(crate) fn drop_name(
        &self,
        change: &mut Change,
        inode: &Arc<Inode>,
        named: &Named,
        now: u64,
    ) -> Left {
        let old = &*named.loaded.record;
        let mut record = Record {
            version: old.version + 1,
            ctime: Time::from_nanos(now),
            nlink: old.nlink.saturating_sub(1),
            ..old.clone()
        };
        if old.kind() == Kind::Directory {
            change.demand_empty(old.ino);
            record.nlink = 0;
        }
        let home = if named.in_table() {
            self.drop_table_name(change, inode, named, &record)
        } else {
            self.drop_only_name(change, inode, named, &record)
        };
        let loaded = Loaded { home, record: Arc::new(record) };
        Left { inode: Arc::clone(inode), loaded }
    }

    fn drop_only_name(
        &self,
        change: &mut Change,
        inode: &Inode,
        named: &Named,
        record: &Record,
    ) -> Home {
        if !self.keeps_data(inode, record) {
            change.push(daos_types::rpc::Op::PunchObject { object: record.oid });
            return Home::Gone;
        }
        let orphan = Place::orphan(self.lease, record.ino);
        change.put_record(&orphan, record);
        change.put_extras(&orphan, &named.extras);
        change.punch_pointer(record.oid, keys::back_akey(named.parent, &named.name));
        Home::Orphan
    }

    fn drop_table_name(
        &self,
        change: &mut Change,
        inode: &Inode,
        named: &Named,
        record: &Record,
    ) -> Home {
        let table = Place::table(record.ino);
        change.expect_record(&table, &named.loaded.record);
        if record.nlink == 0 && !self.keeps_data(inode, record) {
            change.push(daos_types::rpc::Op::PunchObject { object: record.oid });
            change.punch(&table);
            return Home::Gone;
        }
        change.put_record(&table, record);
        change.punch_pointer(record.oid, keys::name_akey(named.parent, &named.name));
        if record.nlink > 0 {
            return Home::Table;
        }
        change.put_record(&Place::orphan(self.lease, record.ino), &record.reference());
        Home::TableOrphan
    }

    /// Whether somebody may still read and write what has no name any more: who has it open, or has just looked it up to open it.
    fn keeps_data(&self, inode: &Inode, record: &Record) -> bool {
        let is_wanted = inode.opens() > 0 || self.keeps_known() && inode.lookups() > 0;
        record.kind() != Kind::Directory && is_wanted
    }
}
