//! Names to inodes.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::change::TRIES_MAX;
use crate::load::With;
use crate::lock::How;
use crate::mount::Dfs;
use crate::table::Home;
use crate::{Entry, Error, Ino, NAME_BYTES_MAX, Result};

/// How long nothing that the kernel knows goes after somebody came too late: much longer than the kernel takes to try again.
const KEEP_KNOWN_NS: u64 = 10_000_000_000;

impl Dfs {
    /// The inode that `name` leads to. `.` and `..` work, for handles that outlived a mount. Counts as one `remember`.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        let ino = match name {
            b"." => parent,
            b".." => Box::pin(self.parent(parent)).await?,
            _ if self.keeps_known() => return Box::pin(self.lookup_to_keep(parent, name)).await,
            _ => self.find(parent, name).await?,
        };
        let entry = Entry { attr: self.attr(&*self.inode(ino)?).await? };
        self.remember(ino, 1);
        Ok(entry)
    }

    /// A lookup of what is not to go before the kernel has forgotten it: no removal is half-way while it is counted.
    async fn lookup_to_keep(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        for _ in 0..TRIES_MAX {
            let inode = self.inode(self.find(parent, name).await?)?;
            let turn = inode.turn(How::Shared).await;
            if inode.home().is_some_and(|home| !home.is_named()) {
                continue;
            }
            self.remember(inode.ino, 1);
            drop(turn);
            match self.attr(&inode).await {
                Ok(attr) => return Ok(Entry { attr }),
                Err(error) => {
                    if self.forget(inode.ino, 1) {
                        self.forgotten(inode.ino).await?;
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    pub(crate) async fn find(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        check_name(name)?;
        if let Some(named) = self.remembered(parent, name) {
            return Ok(named.ino());
        }
        if self.names.cannot_be(parent, name) {
            return Err(Error::NoEntry);
        }
        Box::pin(self.find_stored(parent, name)).await
    }

    async fn find_stored(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        let _fetching = self.table.fetching();
        let Some(named) = self.named(parent, name, With::Record).await? else {
            // Nothing is found in what is no directory, too, but that has another name.
            self.directory(parent).await?;
            return Err(Error::NoEntry);
        };
        self.names.learn(parent, name, named.ino());
        self.table.get(named.ino()).learn_fetched(named.loaded.clone());
        Ok(named.ino())
    }

    /// Every name of an inode, each with the directory that it is in. None of the root, and of what has lost its last.
    pub async fn names_of(&self, ino: Ino) -> Result<Vec<(Ino, Bytes)>> {
        let loaded = self.load(&*self.inode(ino)?).await?;
        match loaded.home {
            Home::Entry { parent, name } => Ok(vec![(parent, name)]),
            Home::Table => self.names(&loaded.record).await,
            Home::Root | Home::Orphan | Home::TableOrphan | Home::Gone => Ok(Vec::new()),
        }
    }

    /// The directory that holds this one; the root holds itself.
    pub(crate) async fn parent(&self, directory: Ino) -> Result<Ino> {
        match self.directory(directory).await?.home {
            Home::Root => Ok(directory),
            Home::Entry { parent, .. } => Ok(parent),
            _ => self.parent_by_name(directory).await,
        }
    }

    /// The kernel knows `ino` by `count` names or handles more. Calls that return an [`Entry`] count 1 by themselves;
    /// entries of `readdir_plus` are to be counted when they go into a reply.
    pub fn remember(&self, ino: Ino, count: u64) {
        self.table.remember(ino, count);
    }

    /// The kernel forgot `count` of what it remembered; whether nothing is left. Then [`Dfs::forgotten`] should follow.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        self.table.forget(ino, count)
    }

    /// Whether the kernel has not forgotten all lookups of `ino`.
    pub fn is_looked_up(&self, ino: Ino) -> bool {
        self.table.is_looked_up(ino)
    }

    /// One lookup of `ino` ends whose answer nobody keeps, as the kernel does: as `forget`, but what was looked up just now stays known.
    pub fn unremember(&self, ino: Ino) -> bool {
        self.table.unremember(ino)
    }

    /// Whether nobody wants an inode without a name any more, which is there still.
    pub fn is_forsaken(&self, ino: Ino) -> bool {
        self.table.known(ino).is_some_and(|inode| inode.is_forsaken())
    }

    /// Ends an inode without a name that nobody has open and the kernel has forgotten.
    ///
    /// # Errors
    /// Those of the targets; the next mount ends it then.
    pub async fn forgotten(&self, ino: Ino) -> Result<()> {
        match self.table.known(ino) {
            Some(inode) if inode.is_forsaken() => self.last_close(&inode).await,
            _ => Ok(()),
        }
    }

    /// Somebody looked a name up and came too late to open what it had led to.
    pub(crate) fn came_late(&self) {
        self.keep_known_until.store(self.clock() + KEEP_KNOWN_NS, Ordering::Relaxed);
    }

    /// Whether what the kernel knows outlives its last name now.
    pub(crate) fn keeps_known(&self) -> bool {
        let until = self.keep_known_until.load(Ordering::Relaxed);
        until > 0 && self.clock() < until
    }
}

/// A name that an entry may have.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong { max: NAME_BYTES_MAX });
    }
    if name.is_empty() {
        return Err(Error::NoEntry);
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Err(Error::Invalid("a name has no slash and no NUL"));
    }
    Ok(())
}

/// A name that a new entry may have.
pub(crate) fn check_new_name(name: &[u8]) -> Result<()> {
    check_name(name)?;
    if name == b"." || name == b".." { Err(Error::Exists) } else { Ok(()) }
}

/// A name that can be taken away.
pub(crate) fn check_old_name(name: &[u8]) -> Result<()> {
    check_name(name)?;
    match name {
        b"." => Err(Error::Invalid("`.` cannot be removed or renamed")),
        b".." => Err(Error::NotEmpty),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_1_to_255_bytes_without_slash_and_nul() {
        assert_eq!(check_name(&[b'x'; 255]), Ok(()));
        assert_eq!(check_name(&[b'x'; 256]), Err(Error::NameTooLong { max: 255 }));
        assert_eq!(check_name(b""), Err(Error::NoEntry));
        assert!(check_name(b"a/b").is_err());
        assert!(check_name(b"a\0b").is_err());
        assert_eq!(check_new_name(b".."), Err(Error::Exists));
    }
}
