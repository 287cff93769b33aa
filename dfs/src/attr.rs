//! getattr and setattr: chmod, chown, utimens, truncate. A change of a record proves the version that it read.

use std::sync::Arc;

use daos_types::Dkey;
use daos_types::rpc::{ObjectInfo, Op};
use futures_lite::future::zip;

use crate::acl;
use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::lock::How;
use crate::mount::Dfs;
use crate::privilege::Lost;
use crate::record::{Record, flag};
use crate::table::{Facts, Home, Inode, Loaded};
use crate::{Attr, Error, FILE_BYTES_MAX, Ino, Kind, Result, SetAttr, SetTime, Time};

/// Bits of a mode that chmod sets.
const PERMISSIONS: u32 = 0o7777;

impl Dfs {
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.attr(&*self.inode(ino)?).await
    }

    /// Changes what `set` names, all of it or nothing; except that a size and an explicit mtime together are two changes, size
    /// first.
    pub async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.writable()?;
        let inode = self.inode(ino)?;
        let turn = inode.turn(How::Exclusive).await;
        let lost = Lost::by_setattr(&set);
        if set.size.is_none() {
            // The reply shows the space, which the change does not touch: asked for at the same time.
            let loaded = self.load(&inode).await?;
            let (changed, _) =
                zip(self.change_attr(&inode, set, lost), self.facts(&inode, &loaded)).await;
            changed?;
        } else if set.size.is_some() && matches!(set.mtime, Some(SetTime::To(_))) {
            let size = SetAttr { size: set.size, ..SetAttr::default() };
            self.change_attr(&inode, size, lost).await?;
            self.change_attr(&inode, SetAttr { size: None, ..set }, lost).await?;
        } else {
            self.change_attr(&inode, set, lost).await?;
        }
        drop(turn);
        self.attr(&inode).await
    }

    /// The caller holds the exclusive turn.
    pub(crate) async fn change_attr(
        &self,
        inode: &Arc<Inode>,
        set: SetAttr,
        lost: Lost,
    ) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let old = self.load(inode).await?;
            let facts = self.times_facts(inode, &old, set).await?;
            let mut record = changed(&old.record, facts, set, self.now())?;
            let mut change = Change::new();
            let Some(place) = Place::of(&old.home, inode.ino, self.lease) else {
                // Only its handles still show it.
                inode.forget_read();
                inode.learn(Loaded { home: Home::Gone, record: Arc::new(record) });
                return Ok(());
            };
            change.expect_record(&place, &old.record);
            lost.take(&mut record, &place, &mut change);
            if !self.chmod_list(&mut change, &place, &old.record, &record).await? {
                inode.doubt();
                continue;
            }
            change.put_record(&place, &record);
            if let Some(size) = set.size {
                cut(&mut change, &record, size);
            }
            let done = change.commit(&self.container).await;
            if set.size.is_some() {
                inode.change_facts(|_| None);
                inode.new_era();
            }
            if done?.is_some() {
                if set.atime.is_some() {
                    inode.forget_read();
                }
                inode.learn(Loaded { home: old.home, record: Arc::new(record) });
                return Ok(());
            }
            inode.doubt();
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }
}

impl Dfs {
    /// Keeps the inode's ACL in step with its mode. False: it is not where it was any more.
    async fn chmod_list(
        &self,
        change: &mut Change,
        place: &Place,
        old: &Record,
        new: &Record,
    ) -> Result<bool> {
        if !new.has(flag::ACL) || old.mode & 0o777 == new.mode & 0o777 {
            return Ok(true);
        }
        let stored = Box::pin(self.stored_acl(place, acl::ACCESS)).await?;
        let Some(mut list) = stored else { return Ok(false) };
        list.chmod(new.mode);
        change.put_single(place.key(keys::xattr_akey(acl::ACCESS)), list.encode());
        Ok(true)
    }

    /// The facts that a change of times needs: the data epoch. Others need none.
    async fn times_facts(&self, inode: &Inode, loaded: &Loaded, set: SetAttr) -> Result<Facts> {
        if set.size.is_none() && set.mtime.is_none() {
            return Ok(Facts::File(ObjectInfo::default()));
        }
        match inode.size_facts() {
            Some(facts) if self.cache_attributes => Ok(facts),
            _ => self.facts(inode, loaded).await,
        }
    }
}

/// Takes away what is stored past `size`.
pub(crate) fn cut(change: &mut Change, record: &Record, size: u64) {
    let (chunk, offset) = (size / record.chunk_bytes, size % record.chunk_bytes);
    let mut from = chunk + 1;
    if offset > 0 {
        let key = data_key(record, chunk);
        change.push(Op::PunchRange { key, offset, len: u64::MAX - offset });
        from += 1;
    }
    change.push(Op::PunchDkeysFrom { object: record.oid, from });
}

/// The array of one chunk.
pub(crate) fn data_key(record: &Record, chunk: u64) -> daos_types::rpc::KeyRef {
    daos_types::rpc::KeyRef {
        object: record.oid,
        dkey: Dkey::from_u64(chunk + 1),
        akey: keys::DATA.into(),
    }
}

/// The record after a change.
fn changed(old: &Record, facts: Facts, set: SetAttr, now: u64) -> Result<Record> {
    let mut record =
        Record { version: old.version + 1, ctime: Time::from_nanos(now), ..old.clone() };
    let time = |set: SetTime| match set {
        SetTime::Now => Time::from_nanos(now),
        SetTime::To(time) => time,
    };
    if let Some(mode) = set.mode {
        record.mode = old.mode & !PERMISSIONS | mode & PERMISSIONS;
    }
    if set.uid.is_some() || set.gid.is_some() {
        record.uid = set.uid.unwrap_or(old.uid);
        record.gid = set.gid.unwrap_or(old.gid);
    }
    if let Some(size) = set.size {
        check_size(old.kind(), size)?;
        record.size_floor = size;
    }
    if let Some(atime) = set.atime {
        record.atime = time(atime);
    }
    if set.size.is_some() || set.mtime.is_some() {
        record.mtime = time(set.mtime.unwrap_or(SetTime::Now));
        record.mtime_epoch = match facts {
            Facts::File(info) => info.data_epoch.0,
            Facts::Directory { stamp, .. } => stamp.max(now),
        };
    }
    Ok(record)
}

fn check_size(kind: Kind, size: u64) -> Result<()> {
    match kind {
        Kind::File if size > FILE_BYTES_MAX => Err(Error::FileTooLarge),
        Kind::File => Ok(()),
        Kind::Directory => Err(Error::IsDirectory),
        _ => Err(Error::Invalid("only files have a size to set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    #[test]
    fn chmod_leaves_the_type_alone() {
        let chmod = SetAttr { mode: Some(libc::S_IFDIR | 0o600), ..SetAttr::default() };
        let facts = Facts::File(ObjectInfo::default());
        assert_eq!(changed(&sample(), facts, chmod, 1).unwrap().mode, libc::S_IFREG | 0o600);
    }

    #[test]
    fn every_change_raises_the_version() {
        let facts = Facts::File(ObjectInfo::default());
        let new = changed(&sample(), facts, SetAttr::default(), 1).unwrap();
        assert_eq!(new.version, sample().version + 1);
    }
}
