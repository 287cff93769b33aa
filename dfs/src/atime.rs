//! Access times, by the rule that Linux calls relatime, decided on the READ, READDIR or READLINK that is seen.
//!
//! A new access time is noted, shown at once, and stored with those of other inodes by one transaction, so that reading a tree
//! costs few changes. A crash may lose the last ones that were noted; nothing else depends on them.
//!
//! # Invariants
//! 1. An inode with a noted time is in `noted`, which keeps it in the table.
//! 2. A time that was set by utimens is not overwritten by one that was noted before.

use std::sync::{Arc, Mutex};

use crate::change::{Change, Place, TRIES_MAX};
use crate::load::attr;
use crate::mount::Dfs;
use crate::record::Record;
use crate::table::{Facts, Home, Inode, Loaded};
use crate::{Attr, Error, Handle, Kind, Result, Time};

/// A time that is as old as this is renewed, in seconds.
const OLD: i64 = 24 * 3600;
/// Inodes whose times one transaction stores.
const BATCH: usize = 24;

/// Inodes with a time that is not stored yet.
#[derive(Default)]
pub(crate) struct Atimes {
    noted: Mutex<Vec<Arc<Inode>>>,
}

impl Atimes {
    /// Some of them, if there are at least `count`.
    fn take(&self, count: usize) -> Vec<Arc<Inode>> {
        let mut noted = self.noted.lock().expect("no code panics while it holds this mutex");
        let at = if noted.len() >= count { noted.len().min(BATCH) } else { 0 };
        noted.drain(..at).collect()
    }

    fn push(&self, inode: &Arc<Inode>) {
        let mut noted = self.noted.lock().expect("no code panics while it holds this mutex");
        noted.push(Arc::clone(inode));
    }
}

/// Whether a read at `now` renews the access time.
fn is_due(attr: &Attr, now: Time) -> bool {
    attr.atime <= attr.mtime
        || attr.atime <= attr.ctime
        || now.sec.saturating_sub(attr.atime.sec) >= OLD
}

impl Dfs {
    /// Whether the next read of an inode renews its access time, as far as is known. `flags` are those of its open.
    pub(crate) fn atime_is_due(&self, inode: &Inode, loaded: &Loaded, flags: i32) -> bool {
        if !self.atime || flags & libc::O_NOATIME != 0 || loaded.home == Home::Gone {
            return false;
        }
        let facts = match loaded.record.kind() {
            Kind::File | Kind::Directory => inode.size_facts(),
            _ => Some(Facts::File(Default::default())),
        };
        // Of a file that nobody asked about the kernel has no attributes, and so hardly any pages.
        facts.is_none_or(|facts| self.is_due(inode, loaded, facts))
    }

    fn is_due(&self, inode: &Inode, loaded: &Loaded, facts: Facts) -> bool {
        let shown = inode.shown(attr(loaded, facts));
        is_due(&shown, Time::from_nanos(self.clock()))
    }

    /// Bytes, entries or the target of `inode` were read; by `handle`, if it is not 0. True: see to
    /// [`Self::store_enough_atimes`], after the inode's turn.
    pub(crate) fn was_read(
        &self,
        inode: &Arc<Inode>,
        loaded: &Loaded,
        facts: Facts,
        handle: Handle,
    ) -> bool {
        if !self.atime || loaded.home == Home::Gone || !self.is_due(inode, loaded, facts) {
            return false;
        }
        let open = self.handles.get(inode.ino, handle);
        if open.is_ok_and(|open| open.flags & libc::O_NOATIME != 0) {
            return false;
        }
        if inode.note_read(Time::from_nanos(self.now())) {
            self.atimes.push(inode);
        }
        true
    }

    /// Stores noted times, if there are enough for a transaction. Not for a caller who has an inode's turn: on a full store it
    /// takes seconds.
    pub(crate) async fn store_enough_atimes(&self) {
        // Where others write too, they see it at once.
        let enough = if self.cache_attributes { BATCH } else { 1 };
        Box::pin(self.store_atimes(enough)).await;
    }

    /// Stores noted times while there are at least `enough`. A read does not fail because its time could not be stored.
    pub(crate) async fn store_atimes(&self, enough: usize) {
        loop {
            let inodes = self.atimes.take(enough.max(1));
            if inodes.is_empty() {
                return;
            }
            match self.store_together(&inodes).await {
                Ok(true) => {}
                // Each alone would wait for space as long as all of them did. They show what is stored.
                Err(error) if is_for_all(&error) => {
                    inodes.iter().for_each(|inode| inode.forget_read());
                }
                _ => self.store_each(&inodes).await,
            }
        }
    }

    /// False: one of the records is not as it was believed to be.
    async fn store_together(&self, inodes: &[Arc<Inode>]) -> Result<bool> {
        let mut change = Change::new();
        let mut stored = Vec::with_capacity(inodes.len());
        for inode in inodes {
            let loaded = self.load(inode).await?;
            if let Some(next) = self.with_noted(&mut change, inode, &loaded) {
                stored.push((inode, next));
            }
        }
        if stored.is_empty() {
            return Ok(true);
        }
        let done = change.commit(&self.container).await?.is_some();
        if done {
            stored.into_iter().for_each(|(inode, next)| inode.stored_read(next));
        }
        Ok(done)
    }

    async fn store_each(&self, inodes: &[Arc<Inode>]) {
        for inode in inodes {
            if self.store_alone(inode).await.is_err() {
                inode.forget_read();
            }
        }
    }

    async fn store_alone(&self, inode: &Arc<Inode>) -> Result<()> {
        for _ in 0..TRIES_MAX {
            if self.store_together(std::slice::from_ref(inode)).await? {
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Adds to `change` what stores the inode's noted time. `None`: there is none, or nowhere to store it.
    fn with_noted(&self, change: &mut Change, inode: &Inode, old: &Loaded) -> Option<Loaded> {
        let atime = inode.noted_read()?;
        let Some(place) = Place::of(&old.home, inode.ino, self.lease) else {
            inode.forget_read();
            return None;
        };
        let version = old.record.version + 1;
        let record = Record { version, atime, ..Record::clone(&old.record) };
        change.expect_record(&place, &old.record);
        change.put_record(&place, &record);
        Some(Loaded { home: old.home.clone(), record: Arc::new(record) })
    }
}

/// Whether what was answered to a change of several inodes would be answered to one of each.
fn is_for_all(error: &Error) -> bool {
    use daos_types::Error as Engine;
    matches!(error, Error::Engine(Engine::NoSpace | Engine::Quota | Engine::Latched { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    #[test]
    fn atime_is_renewed_after_a_change_and_after_a_day() {
        let at = |sec| Time { sec, nsec: 0 };
        let with = |atime, mtime, ctime| {
            let record =
                Record { atime: at(atime), mtime: at(mtime), ctime: at(ctime), ..sample() };
            let loaded = Loaded { home: Home::Table, record: Arc::new(record) };
            attr(&loaded, Facts::File(Default::default()))
        };
        let now = at(1_000_000);
        assert!(is_due(&with(900_000, 1_000_000, 5), now), "read before it was written");
        assert!(is_due(&with(900_000, 5, 950_000), now), "read before it was changed");
        assert!(is_due(&with(950_000, 950_000, 5), now), "as it was made");
        assert!(!is_due(&with(950_000, 5, 5), now));
        assert!(is_due(&with(1_000_000 - OLD, 5, 5), now), "a day ago");
    }
}
