//! Names to inodes.

use bytes::Bytes;

use crate::load::With;
use crate::mount::Dfs;
use crate::table::Home;
use crate::{Entry, Error, Ino, NAME_BYTES_MAX, Result};

impl Dfs {
    /// The inode that `name` leads to. `.` and `..` work, for handles that outlived a mount. Counts as one `remember`.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        let ino = match name {
            b"." => parent,
            b".." => self.parent(parent).await?,
            _ => self.find(parent, name).await?,
        };
        let entry = Entry { attr: self.attr(&*self.inode(ino)?).await? };
        self.remember(ino, 1);
        Ok(entry)
    }

    pub(crate) async fn find(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        check_name(name)?;
        if let Some(named) = self.remembered(parent, name) {
            return Ok(named.ino());
        }
        if self.names.cannot_be(parent, name) {
            return Err(Error::NoEntry);
        }
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

    /// The kernel forgot `count` of what it remembered; whether nothing is left.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        self.table.forget(ino, count)
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
