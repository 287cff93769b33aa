//! Rename: a whole entry, its xattrs with it, to another name, as one transaction. The inode's mtime stays.
//!
//! # No loops
//! A directory that moves to another parent must not move below itself. The ancestors of the new parent are walked, and the
//! transaction proves by the counter `MOVES` that no directory changed its parent since before the walk; it raises the
//! counter itself. So the proof holds at any depth and against other clients. `Dfs::moving` only keeps the moves of one
//! mount from making each other try again.
//!
//! # Order
//! `moving`, then the exclusive turns of the inodes in the order of their numbers.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::rpc::{Condition, Op};

use crate::change::{Change, Place, TRIES_MAX};
use crate::keys;
use crate::load::{Extras, Named, With};
use crate::lock::{How, Lock};
use crate::lookup::{check_new_name, check_old_name};
use crate::mount::Dfs;
use crate::record::Record;
use crate::superblock::Superblock;
use crate::table::{Home, Inode, Loaded, turns};
use crate::{Error, Ino, Kind, RenameFlags, Result, Time};

/// What a rename has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The inodes that have another name: their ctime has moved.
    pub inodes: [Option<Ino>; 2],
    /// What has lost a name.
    pub replaced: Option<Ino>,
}

/// One side of a rename.
#[derive(Clone, Copy)]
struct Name<'a> {
    parent: Ino,
    name: &'a [u8],
}

impl Dfs {
    /// A directory that stands for a container is not replaced (`IsEntryPoint`).
    pub async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<Moved> {
        let to = Name { parent: new_parent, name: new_name };
        self.rename_name(Name { parent, name }, to, flags, None).await
    }

    /// As `rename`, also over the directory `allowed`: the caller has seen that with it nothing is lost.
    pub async fn rename_allowing(
        &self,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        flags: RenameFlags,
        allowed: Ino,
    ) -> Result<Moved> {
        let to = Name { parent: new_parent, name: new_name };
        self.rename_name(Name { parent, name }, to, flags, Some(allowed)).await
    }

    async fn rename_name(
        &self,
        from: Name<'_>,
        to: Name<'_>,
        flags: RenameFlags,
        allowed: Option<Ino>,
    ) -> Result<Moved> {
        self.writable()?;
        check_old_name(from.name)?;
        match check_new_name(to.name) {
            Err(Error::Exists) => return Err(Error::Invalid("`.` and `..` cannot be renamed")),
            checked => checked?,
        }
        for attempt in 0..TRIES_MAX {
            if let Some(moved) = self.try_rename(from, to, flags, allowed, attempt == 0).await? {
                return Ok(moved);
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    /// `None`: what was read, or `remembered`, is old.
    async fn try_rename(
        &self,
        from: Name<'_>,
        to: Name<'_>,
        flags: RenameFlags,
        allowed: Option<Ino>,
        remembered: bool,
    ) -> Result<Option<Moved>> {
        let known = self.remembered_whole(from.parent, from.name).filter(|_| remembered);
        let source = match known {
            Some(source) => Some(source),
            None => self.named(from.parent, from.name, With::Extras).await?,
        };
        let Some(source) = source else {
            self.directory(from.parent).await?;
            return Err(Error::NoEntry);
        };
        let target = match self.names.cannot_be(to.parent, to.name) {
            true => None,
            false => self.named(to.parent, to.name, With::Extras).await?,
        };
        if target.is_none() {
            self.directory(to.parent).await?;
        }
        if !judge(&source, target.as_ref(), flags)? {
            return Ok(Some(Moved::default()));
        }
        if let Some(target) = target.as_ref().filter(|_| !flags.exchange) {
            self.check_no_entry_point(target, allowed).await?;
        }
        let inode = self.inode(source.ino())?;
        let other = target.as_ref().map(|target| self.inode(target.ino())).transpose()?;
        let mut change = Change::new();
        let other_ino = other.as_ref().map(|other| other.ino);
        let (exchanged, replaced) = match flags.exchange {
            true => (other_ino, None),
            false => (None, other_ino),
        };
        let moves = from.parent != to.parent && some_directory(&source, target.as_ref(), flags);
        let moving = match moves {
            true => {
                Some(self.prove_no_loop(&mut change, &source, target.as_ref(), flags, to).await?)
            }
            false => None,
        };
        let turns = turns(&inode, other.as_ref()).await;
        let now = self.now();
        let deltas = deltas(&source, target.as_ref(), flags, to);
        change.expect_record(&source.place(), &source.entry);
        let settle = match (target, other) {
            (Some(target), Some(other)) if flags.exchange => {
                self.exchange(&mut change, (&source, &inode), (&target, &other), now)
            }
            (target, other) => {
                let replaced = target.as_ref().zip(other.as_ref());
                self.replace(&mut change, (&source, &inode), to, replaced, flags, now)
            }
        };
        change.stamp(from.parent, now);
        if to.parent != from.parent {
            change.stamp(to.parent, now);
        }
        change.count_subdirectories(from.parent, deltas.0);
        change.count_subdirectories(to.parent, deltas.1);
        let naming = [
            self.table.get(from.parent).naming(now, deltas.0),
            self.table.get(to.parent).naming(now, deltas.1),
        ];
        self.names.may_come(to.parent, to.name);
        let done = change.commit(&self.container).await?;
        if let Some(epoch) = done {
            naming.into_iter().for_each(|naming| naming.done(epoch));
            self.names.learn(to.parent, to.name, inode.ino);
            settle.into_iter().for_each(|settle| settle());
        } else {
            inode.doubt();
            other_doubts(&self.table.known(to.parent));
        }
        drop((turns, moving));
        Ok(done.map(|_| Moved { inodes: [Some(inode.ino), exchanged], replaced }))
    }

    /// The source takes the target's name; what had it loses it.
    fn replace(
        &self,
        change: &mut Change,
        (source, inode): (&Named, &Arc<Inode>),
        to: Name<'_>,
        replaced: Option<(&Named, &Arc<Inode>)>,
        flags: RenameFlags,
        now: u64,
    ) -> Vec<Settle> {
        let place = Place::entry(to.parent, to.name);
        change.demand_directory(to.parent);
        let mut settle: Vec<Settle> = Vec::new();
        let mut old_extras = Extras::new();
        match replaced {
            Some((target, other)) => {
                change.expect_record(&target.place(), &target.entry);
                let left = self.drop_name(change, other, target, now);
                settle.push(Box::new(move || left.settle()));
                old_extras.clone_from(&target.extras);
            }
            None => {
                let (object, dkey) = (place.object, place.dkey.clone());
                let absent = Condition::DkeyAbsent { object, dkey };
                match flags.no_replace {
                    true => change.demand(absent, Error::Exists),
                    false => change.expect(absent),
                }
            }
        }
        change.punch(&source.place());
        settle.push(carry(change, (source, inode), to, &old_extras, now));
        settle
    }

    /// Source and target take each other's name.
    fn exchange(
        &self,
        change: &mut Change,
        (source, inode): (&Named, &Arc<Inode>),
        (target, other): (&Named, &Arc<Inode>),
        now: u64,
    ) -> Vec<Settle> {
        change.expect_record(&target.place(), &target.entry);
        let (from, to) = (name_of(source), name_of(target));
        vec![
            carry(change, (source, inode), to, &target.extras, now),
            carry(change, (target, other), from, &source.extras, now),
        ]
    }

    /// See "No loops" above. The guard keeps other moves of this mount waiting.
    async fn prove_no_loop(
        &self,
        change: &mut Change,
        source: &Named,
        target: Option<&Named>,
        flags: RenameFlags,
        to: Name<'_>,
    ) -> Result<Moving<'_>> {
        self.moving.acquire(How::Exclusive).await;
        let moving = Moving(&self.moving);
        let key = Superblock::counters().key(keys::MOVES);
        let Some(old) = self.container.fetch_single(key.clone()).await? else {
            return Err(damaged("is missing"));
        };
        let count = old.as_ref().try_into().map_err(|_| damaged("has another length"))?;
        let next = u64::from_le_bytes(count).wrapping_add(1).to_le_bytes();
        if source.kind() == Kind::Directory {
            self.check_not_below(to.parent, source.ino()).await?;
        }
        if let Some(target) = target
            && flags.exchange
            && target.kind() == Kind::Directory
        {
            self.check_not_below(source.parent, target.ino()).await?;
        }
        change.expect(Condition::Equals { key: key.clone(), offset: 0, bytes: old });
        change.put_single(key, Bytes::copy_from_slice(&next));
        Ok(moving)
    }

    /// `directory` is not `ancestor` and not below it.
    async fn check_not_below(&self, directory: Ino, ancestor: Ino) -> Result<()> {
        let mut at = directory;
        loop {
            if at == ancestor {
                return Err(Error::Invalid("a directory cannot be moved below itself"));
            }
            if at == self.root() {
                return Ok(());
            }
            at = self.parent(at).await?;
        }
    }
}

type Settle = Box<dyn FnOnce() + Send>;

/// Holds `Dfs::moving`.
struct Moving<'a>(&'a Lock);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.release(How::Exclusive);
    }
}

fn name_of(named: &Named) -> Name<'_> {
    Name { parent: named.parent, name: &named.name }
}

fn other_doubts(parent: &Option<Arc<Inode>>) {
    if let Some(parent) = parent {
        parent.doubt();
    }
}

/// Whether there is something to do; what POSIX refuses is an error.
fn judge(source: &Named, target: Option<&Named>, flags: RenameFlags) -> Result<bool> {
    let Some(target) = target else {
        return if flags.exchange { Err(Error::NoEntry) } else { Ok(true) };
    };
    if flags.no_replace {
        return Err(Error::Exists);
    }
    if source.ino() == target.ino() {
        return Ok(false);
    }
    match (flags.exchange, source.kind(), target.kind()) {
        (true, _, _) | (false, Kind::Directory, Kind::Directory) => Ok(true),
        (false, Kind::Directory, _) => Err(Error::NotDirectory),
        (false, _, Kind::Directory) => Err(Error::IsDirectory),
        (false, _, _) => Ok(true),
    }
}

/// How many subdirectories more the source's parent and the target's get; if they are one, the second number says it.
fn deltas(source: &Named, target: Option<&Named>, flags: RenameFlags, to: Name<'_>) -> (i64, i64) {
    let is_directory = |named: &Named| i64::from(named.kind() == Kind::Directory);
    let (comes, was) = (is_directory(source), target.map_or(0, is_directory));
    match (source.parent == to.parent, flags.exchange) {
        (true, true) => (0, 0),
        (true, false) => (0, -was),
        (false, true) => (was - comes, comes - was),
        (false, false) => (-comes, comes - was),
    }
}

/// Whether what gets another name is a directory.
fn some_directory(source: &Named, target: Option<&Named>, flags: RenameFlags) -> bool {
    source.kind() == Kind::Directory
        || flags.exchange && target.is_some_and(|target| target.kind() == Kind::Directory)
}

/// Puts the entry at `to`, over `old_extras` of what was there.
fn carry(
    change: &mut Change,
    (named, inode): (&Named, &Arc<Inode>),
    to: Name<'_>,
    old_extras: &Extras,
    now: u64,
) -> Settle {
    let place = Place::entry(to.parent, to.name);
    let old = &*named.loaded.record;
    let record = Record { version: old.version + 1, ctime: Time::from_nanos(now), ..old.clone() };
    for (akey, _) in old_extras {
        if !named.extras.iter().any(|(kept, _)| kept == akey) {
            change.push(Op::PunchAkey(place.key(akey.clone())));
        }
    }
    change.put_extras(&place, &named.extras);
    let (gone, come) = if named.in_table() {
        let table = Place::table(record.ino);
        change.expect_record(&table, old);
        change.put_record(&table, &record);
        change.put_record(&place, &record.reference());
        (keys::name_akey(named.parent, &named.name), keys::name_akey(to.parent, to.name))
    } else {
        change.put_record(&place, &record);
        (keys::back_akey(named.parent, &named.name), keys::back_akey(to.parent, to.name))
    };
    change.punch_pointer(record.oid, gone);
    change.put_pointer(record.oid, come);
    let home = match named.in_table() {
        true => Home::Table,
        false => Home::Entry { parent: to.parent, name: Bytes::copy_from_slice(to.name) },
    };
    let (inode, loaded) = (Arc::clone(inode), Loaded { home, record: Arc::new(record) });
    Box::new(move || inode.learn(loaded))
}

fn damaged(why: &'static str) -> Error {
    Error::Damaged { what: "counter of moved directories", whose: "the superblock".into(), why }
}
