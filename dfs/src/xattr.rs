//! Extended attributes: single values beside the inode record.
//!
//! An entry carries few of them, because rename moves them with it in one transaction; an inode with more, or with large
//! ones, moves to the inode table, as at its second name.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{Condition, Op};

use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::link::move_to_table;
use crate::load::Extras;
use crate::lock::How;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::{Home, Inode, Loaded};
use crate::{Error, Ino, Result, Time, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrSet};

/// Xattrs that an entry carries, and their values' bytes.
const ENTRY_XATTRS_MAX: usize = 8;
const ENTRY_XATTR_BYTES_MAX: usize = 16 << 10;

impl Dfs {
    /// `kill_sgid`: the set-gid bit goes with this change (of an ACL, by a caller without rights over the group).
    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        how: XattrSet,
        _kill_sgid: bool,
    ) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::AttributeTooLarge { max: XATTR_VALUE_BYTES_MAX });
        }
        let akey = keys::xattr_akey(name);
        let value = Bytes::copy_from_slice(value);
        self.change_xattrs(
            ino,
            |change, place| {
                let key = place.key(akey.clone());
                match how {
                    XattrSet::Any => {}
                    XattrSet::Create => {
                        change.demand(Condition::AkeyAbsent(key.clone()), Error::Exists)
                    }
                    XattrSet::Replace => {
                        change.demand(Condition::AkeyExists(key.clone()), Error::NoAttribute);
                    }
                }
                change.put_single(key, value.clone());
            },
            Some((name, value.len())),
        )
        .await
    }

    pub async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        let akey = keys::xattr_akey(name);
        self.change_xattrs(
            ino,
            |change, place| {
                let key = place.key(akey.clone());
                change.demand(Condition::AkeyExists(key.clone()), Error::NoAttribute);
                change.push(Op::PunchAkey(key));
            },
            None,
        )
        .await
    }

    /// Commits `what` where the inode's xattrs are. `adds`: name and length of one that may come.
    async fn change_xattrs(
        &self,
        ino: Ino,
        what: impl Fn(&mut Change, &Place),
        adds: Option<(&[u8], usize)>,
    ) -> Result<()> {
        let inode = self.inode(ino)?;
        let _turn = inode.turn(How::Exclusive).await;
        for _ in 0..TRIES_MAX {
            let mut old = self.load(&inode).await?;
            if let Some((name, len)) = adds
                && let Some(moved) = self.make_room(&inode, &old, name, len).await?
            {
                old = moved;
            }
            let place = Place::of(&old.home, ino, self.lease).ok_or(Error::Stale)?;
            let record = Record {
                version: old.record.version + 1,
                ctime: Time::from_nanos(self.now()),
                flags: old.record.flags | flag::XATTRS,
                ..Record::clone(&old.record)
            };
            let mut change = Change::new();
            change.expect_record(&place, &old.record);
            change.put_record(&place, &record);
            what(&mut change, &place);
            if change.commit(&self.container).await?.is_some() {
                inode.learn(Loaded { home: old.home, record: Arc::new(record) });
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Moves an inode to the inode table if its entry cannot carry one more xattr; its new home then.
    async fn make_room(
        &self,
        inode: &Inode,
        old: &Loaded,
        name: &[u8],
        len: usize,
    ) -> Result<Option<Loaded>> {
        let Home::Entry { parent, name: entry } = &old.home else { return Ok(None) };
        let place = Place::entry(*parent, entry);
        let extras = match old.record.may_have_xattrs() || len > ENTRY_XATTR_BYTES_MAX {
            true => self.fetch_extras(&place, b"").await?,
            false => return Ok(None),
        };
        if entry_can_carry(&extras, name, len) {
            return Ok(None);
        }
        let record = Record { version: old.record.version + 1, ..Record::clone(&old.record) };
        let mut change = Change::new();
        change.expect_record(&place, &old.record);
        move_to_table(&mut change, &record, (*parent, entry), &extras);
        if change.commit(&self.container).await?.is_none() {
            // The transaction that follows fails on the same condition and reads again.
            return Ok(None);
        }
        let moved = Loaded { home: Home::Table, record: Arc::new(record) };
        inode.learn(moved.clone());
        Ok(Some(moved))
    }

    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Bytes> {
        check_name(name)?;
        let inode = self.inode(ino)?;
        let akey = keys::xattr_akey(name);
        for _ in 0..TRIES_MAX {
            let loaded = self.load(&inode).await?;
            if !loaded.record.may_have_xattrs() {
                return Err(Error::NoAttribute);
            }
            let place = Place::of(&loaded.home, ino, self.lease).ok_or(Error::Stale)?;
            if let Some(value) = self.container.fetch_single(place.key(akey.clone())).await? {
                return Ok(value);
            }
            if self.still_there(&inode, &loaded).await? {
                return Err(Error::NoAttribute);
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Names, each ended by a NUL.
    pub async fn listxattr(&self, ino: Ino) -> Result<Bytes> {
        let inode = self.inode(ino)?;
        for _ in 0..TRIES_MAX {
            let loaded = self.load(&inode).await?;
            if !loaded.record.may_have_xattrs() {
                return Ok(Bytes::new());
            }
            let place = Place::of(&loaded.home, ino, self.lease).ok_or(Error::Stale)?;
            let xattrs = self.fetch_extras(&place, keys::XATTR).await?;
            if self.still_there(&inode, &loaded).await? {
                return Ok(names(&xattrs));
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Whether the inode is still where it was when its xattrs were looked for.
    async fn still_there(&self, inode: &Inode, loaded: &Loaded) -> Result<bool> {
        Ok(self.load(inode).await?.home == loaded.home)
    }
}

fn names(xattrs: &Extras) -> Bytes {
    let mut names = Vec::new();
    for (akey, _) in xattrs {
        names.extend_from_slice(&akey.as_bytes()[keys::XATTR.len()..]);
        names.push(0);
    }
    names.into()
}

fn entry_can_carry(extras: &Extras, name: &[u8], len: usize) -> bool {
    let akey = keys::xattr_akey(name);
    let others = extras.iter().filter(|(other, _)| *other != akey);
    let xattrs = others.filter(|(other, _)| other.as_bytes().starts_with(keys::XATTR));
    let (count, bytes) =
        xattrs.fold((1, len), |(count, bytes), (_, value)| (count + 1, bytes + value.len()));
    count <= ENTRY_XATTRS_MAX && bytes <= ENTRY_XATTR_BYTES_MAX
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(Error::AttributeName { max: XATTR_NAME_BYTES_MAX });
    }
    if name.starts_with(b"system.") {
        return Err(Error::NotSupported("system.* attributes"));
    }
    let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if prefixes.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix)) {
        Ok(())
    } else {
        Err(Error::NotSupported("attributes other than user.*, trusted.* and security.*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_known_prefix() {
        assert!(check_name(b"user.a").is_ok());
        assert!(check_name(b"security.capability").is_ok());
        assert!(matches!(check_name(b"system.posix_acl_access"), Err(Error::NotSupported(_))));
        assert!(check_name(b"user.").is_err());
        assert!(check_name(b"plain").is_err());
    }

    #[test]
    fn an_entry_carries_few_and_small_xattrs() {
        let extra = |i: usize, len| {
            (keys::xattr_akey(format!("user.{i}").as_bytes()), Bytes::from(vec![0; len]))
        };
        let few: Extras = (0..7).map(|i| extra(i, 10)).collect();
        assert!(entry_can_carry(&few, b"user.new", 10));
        assert!(!entry_can_carry(&few, b"user.new", 16 << 10));
        let full: Extras = (0..8).map(|i| extra(i, 10)).collect();
        assert!(!entry_can_carry(&full, b"user.new", 10));
        assert!(entry_can_carry(&full, b"user.3", 10));
    }
}
