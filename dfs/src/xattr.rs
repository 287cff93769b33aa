//! Extended attributes: single values beside the inode record.
//!
//! An entry carries few of them, because rename moves them with it in one transaction; an inode with more, or with large
//! ones, moves to the inode table, as at its second name.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{Condition, KeyRef, Op};

use crate::acl::{self, Acl};
use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::link::move_to_table;
use crate::load::Extras;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::{Home, Inode, Loaded};
use crate::{
    Caller, Error, Ino, Kind, Result, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrSet,
};

/// What a program may do whoever runs it.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
/// Xattrs that an entry carries, and their values' bytes.
const ENTRY_XATTRS_MAX: usize = 8;
const ENTRY_XATTR_BYTES_MAX: usize = 16 << 10;

impl Dfs {
    /// `kill_sgid`: whoever sets an access ACL is not in the file's group, so its set-gid bit goes.
    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        how: XattrSet,
        kill_sgid: bool,
    ) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::AttributeTooLarge { max: XATTR_VALUE_BYTES_MAX });
        }
        match name {
            acl::ACCESS => return self.set_access_acl(ino, Acl::parse(value)?, kill_sgid).await,
            acl::DEFAULT => return self.set_default_acl(ino, Acl::parse(value)?).await,
            _ => {}
        }
        let akey = keys::xattr_akey(name);
        let value = Bytes::copy_from_slice(value);
        let adds = Some((name, value.len()));
        self.change_record(ino, adds, |change, place, record| {
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
            record.flags |= flag_of(name);
            Ok(())
        })
        .await
    }

    /// Lists are stored only where they say more than the mode, which always says what it can of them.
    async fn set_access_acl(&self, ino: Ino, acl: Option<Acl>, kill_sgid: bool) -> Result<()> {
        let akey = keys::xattr_akey(acl::ACCESS);
        let stored = acl.as_ref().filter(|acl| !acl.is_minimal()).map(Acl::encode);
        let adds = stored.as_ref().map(|value| (acl::ACCESS, value.len()));
        self.change_record(ino, adds, |change, place, record| {
            if record.kind() == Kind::Symlink {
                return Err(Error::NotSupported("ACLs of symlinks"));
            }
            if let Some(acl) = &acl {
                record.mode = record.mode & !0o777 | acl.permissions();
                record.mode &= if kill_sgid { !libc::S_ISGID } else { !0 };
            }
            self.put_list(change, place.key(akey.clone()), record, flag::ACL, stored.as_ref());
            Ok(())
        })
        .await
    }

    async fn set_default_acl(&self, ino: Ino, acl: Option<Acl>) -> Result<()> {
        let akey = keys::xattr_akey(acl::DEFAULT);
        let stored = acl.as_ref().map(Acl::encode);
        let adds = stored.as_ref().map(|value| (acl::DEFAULT, value.len()));
        self.change_record(ino, adds, |change, place, record| {
            if record.kind() != Kind::Directory && stored.is_some() {
                return Err(Error::Denied("only directories have default ACLs"));
            }
            let key = place.key(akey.clone());
            self.put_list(change, key, record, flag::DEFAULT_ACL, stored.as_ref());
            Ok(())
        })
        .await
    }

    /// Stores a list, or takes it away.
    fn put_list(
        &self,
        change: &mut Change,
        key: KeyRef,
        record: &mut Record,
        flag: u32,
        list: Option<&Bytes>,
    ) {
        match list {
            Some(list) => {
                change.put_single(key, list.clone());
                record.flags |= flag;
                self.superblock.announce_acls(change);
            }
            None if record.has(flag) => {
                change.push(Op::PunchAkey(key));
                record.flags &= !flag;
            }
            None => {}
        }
    }

    /// The list that is stored beside a record. `None`: none is, or not any more.
    pub(crate) async fn stored_acl(&self, place: &Place, name: &[u8]) -> Result<Option<Acl>> {
        let key = place.key(keys::xattr_akey(name));
        let Some(value) = self.container.fetch_single(key).await? else { return Ok(None) };
        let damaged = |why| Error::Damaged {
            what: "POSIX ACL",
            whose: format!("{} {:?}", place.object, place.dkey),
            why,
        };
        match Acl::parse(&value) {
            Ok(Some(acl)) => Ok(Some(acl)),
            Ok(None) => Err(damaged("it has no entries")),
            Err(_) => Err(damaged("it is not valid")),
        }
    }

    pub async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        if (name == acl::ACCESS || name == acl::DEFAULT) && !self.has_list(ino, name).await? {
            // As if an empty list was set, which is no error.
            return Ok(());
        }
        let akey = keys::xattr_akey(name);
        self.change_record(ino, None, |change, place, record| {
            let key = place.key(akey.clone());
            change.demand(Condition::AkeyExists(key.clone()), Error::NoAttribute);
            change.push(Op::PunchAkey(key));
            record.flags &= !flag_of(name);
            Ok(())
        })
        .await
    }

    async fn has_list(&self, ino: Ino, name: &[u8]) -> Result<bool> {
        let inode = self.inode(ino)?;
        Ok(self.load(&inode).await?.record.has(flag_of(name)))
    }

    /// Moves an inode to the inode table if its entry cannot carry one more xattr; its new home then.
    pub(crate) async fn make_room(
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
            // The kernel asks for lists whenever somebody is not the owner.
            let flag = flag_of(name);
            if !loaded.record.may_have_xattrs() || flag != 0 && !loaded.record.has(flag) {
                return Err(Error::NoAttribute);
            }
            // Of a removed directory, which somebody has open still, nothing is left.
            let place = Place::of(&loaded.home, ino, self.lease).ok_or(Error::NoAttribute)?;
            if let Some(value) = self.container.fetch_single(place.key(akey.clone())).await? {
                return Ok(value);
            }
            if self.still_there(&inode, &loaded).await? {
                return Err(Error::NoAttribute);
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Names, each ended by a NUL. What is for administrators only they see.
    pub async fn listxattr(&self, ino: Ino, caller: Caller) -> Result<Bytes> {
        let inode = self.inode(ino)?;
        for _ in 0..TRIES_MAX {
            let loaded = self.load(&inode).await?;
            if !loaded.record.may_have_xattrs() {
                return Ok(Bytes::new());
            }
            let Some(place) = Place::of(&loaded.home, ino, self.lease) else {
                return Ok(Bytes::new());
            };
            let xattrs = self.fetch_extras(&place, keys::XATTR).await?;
            if self.still_there(&inode, &loaded).await? {
                return Ok(names(&xattrs, caller.uid == 0));
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// Whether the inode is still where it was when its xattrs were looked for.
    async fn still_there(&self, inode: &Inode, loaded: &Loaded) -> Result<bool> {
        Ok(self.load(inode).await?.home == loaded.home)
    }
}

fn names(xattrs: &Extras, trusted: bool) -> Bytes {
    let mut names = Vec::new();
    for (akey, _) in xattrs {
        let name = &akey.as_bytes()[keys::XATTR.len()..];
        if name.starts_with(b"trusted.") && !trusted {
            continue;
        }
        names.extend_from_slice(name);
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

/// The record's flag that says for certain whether an attribute of this name is there; 0: no flag does.
fn flag_of(name: &[u8]) -> u32 {
    match name {
        acl::ACCESS => flag::ACL,
        acl::DEFAULT => flag::DEFAULT_ACL,
        CAPABILITY => flag::CAPABILITY,
        _ => 0,
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(Error::AttributeName { max: XATTR_NAME_BYTES_MAX });
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(());
    }
    let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if prefixes.contains(&name) {
        return Err(Error::Invalid("an attribute has a name behind its prefix"));
    }
    if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        Ok(())
    } else {
        Err(Error::NotSupported(
            "attributes other than user.*, trusted.*, security.* and POSIX ACLs",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_known_prefix() {
        assert!(check_name(b"user.a").is_ok());
        assert!(check_name(b"security.capability").is_ok());
        assert!(check_name(b"system.posix_acl_access").is_ok());
        assert!(matches!(check_name(b"system.other"), Err(Error::NotSupported(_))));
        assert!(matches!(check_name(b"user."), Err(Error::Invalid(_))));
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
