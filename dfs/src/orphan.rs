//! Inodes without a name: kept while they are open, reclaimed at the last close (or when the kernel forgets them, if they were kept for
//! somebody who is about to open them; unlink.rs), or by the next mount after a crash.
//!
//! # Invariants
//! 1. An inode without a name is in the orphan object from the transaction that takes its last name to the one that
//!    removes its data.

use daos_types::ObjectId;
use daos_types::rpc::{ListedDkey, Op};

use crate::change::{Change, Place};
use crate::keys;
use crate::load::decode;
use crate::lock::How;
use crate::mount::Dfs;
use crate::pages::Dkeys;
use crate::record::Record;
use crate::table::{Home, Inode, Loaded};
use crate::{Error, Ino, Result};

/// Orphans reclaimed by one transaction.
const BATCH: usize = 12;

impl Dfs {
    /// The last handle of an inode was closed.
    pub(crate) async fn last_close(&self, inode: &std::sync::Arc<Inode>) -> Result<()> {
        let _turn = inode.turn(How::Exclusive).await;
        // Somebody may have opened it again, or given it a name.
        let orphan = matches!(inode.home(), Some(Home::Orphan | Home::TableOrphan));
        let is_wanted = inode.opens() > 0 || self.keeps_known() && inode.lookups() > 0;
        if is_wanted || !orphan || self.read_only {
            return Ok(());
        }
        let Some(Loaded { home, record }) = inode.loaded() else { return Ok(()) };
        let mut change = Change::new();
        let place = Place::orphan(self.lease, inode.ino);
        reclaim(&mut change, &place, inode.ino, record.oid, home == Home::TableOrphan);
        change.commit(&self.container).await?;
        let mut record = Record::clone(&record);
        record.version += 1;
        inode.learn(Loaded { home: Home::Gone, record: record.into() });
        inode.change_facts(|_| None);
        Ok(())
    }

    /// Reclaims what other mounts left, and what nobody has open at this one. What damage keeps from being reclaimed waits, by name,
    /// until it is mended: space is no reason to mount nothing.
    pub(crate) async fn reclaim_orphans(&self) -> Result<()> {
        let mut listing =
            Dkeys::of(&self.container, keys::ORPHANS_OID, &[keys::INODE]).by(BATCH as u32);
        loop {
            let orphans = match listing.next().await {
                Ok(Some(orphans)) => orphans,
                Ok(None) => return Ok(()),
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "orphans behind this are not reclaimed");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            match self.reclaim_all(&orphans).await {
                Err(error) if error.is_damage() => {}
                done => {
                    done?;
                    continue;
                }
            }
            for orphan in &orphans {
                match self.reclaim_all(std::slice::from_ref(orphan)).await {
                    Err(error) if error.is_damage() => {
                        let ino = keys::orphan_of(&orphan.dkey).map(|(_, ino)| ino.to_string());
                        let ino = ino.unwrap_or_else(|| format!("{:?}", orphan.dkey));
                        tracing::error!(ino, %error, "an orphan is not reclaimed");
                    }
                    done => done?,
                }
            }
        }
    }

    async fn reclaim_all(&self, orphans: &[ListedDkey]) -> Result<()> {
        let mut change = Change::new();
        for orphan in orphans {
            self.reclaim_listed(&mut change, orphan)?;
        }
        change.commit(&self.container).await.map(drop)
    }

    fn reclaim_listed(&self, change: &mut Change, orphan: &ListedDkey) -> Result<()> {
        let damaged =
            |why| Error::Damaged { what: "orphan", whose: format!("{:?}", orphan.dkey), why };
        let (lease, ino) =
            keys::orphan_of(&orphan.dkey).ok_or(damaged("its dkey is no orphan's"))?;
        if lease == self.lease && self.table.known(ino).is_some_and(|inode| inode.opens() > 0) {
            return Ok(());
        }
        let place = Place { object: keys::ORPHANS_OID, dkey: orphan.dkey.clone() };
        let (_, value) = orphan.values.first().ok_or(damaged("it has no record"))?;
        let record = decode(&place, value)?;
        reclaim(change, &place, ino, record.oid, record.is_reference());
        Ok(())
    }
}

fn reclaim(change: &mut Change, place: &Place, ino: Ino, oid: ObjectId, in_table: bool) {
    change.push(Op::PunchObject { object: oid });
    if in_table {
        change.punch(&Place::table(ino));
    }
    change.punch(place);
}
