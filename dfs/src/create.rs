//! New inodes: mknod, mkdir, symlink, create, tmpfile. One transaction each, which proves that the directory is there and
//! the name is not.

use std::sync::Arc;

use bytes::Bytes;
use daos_types::Epoch;
use daos_types::rpc::ObjectInfo;

use crate::acl::{self, Acl};
use crate::change::{Change, Place, TRIES_MAX};
use crate::handles::Open;
use crate::keys;
use crate::load::{Extras, attr};
use crate::lock::How;
use crate::lookup::check_new_name;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::{Facts, Home, Inode, Loaded};
use crate::{Caller, Entry, Error, Handle, Ino, Kind, Opened, Result, TARGET_BYTES_MAX, Time};

/// What a new inode is, beyond its name.
struct Make<'a> {
    /// Type and permission bits; the umask is the caller's.
    mode: u32,
    rdev: u32,
    target: &'a [u8],
    caller: Caller,
}

impl Make<'_> {
    fn kind(&self) -> Kind {
        Kind::of_mode(self.mode).expect("callers set the type bits")
    }
}

/// What a new inode has of its directory.
struct Inherited {
    /// Type and permission bits that are granted.
    mode: u32,
    flags: u32,
    /// ACLs, stored beside the record.
    lists: Extras,
}

/// What is known of an inode that was just made: nothing is in it.
fn facts_of_new(kind: Kind) -> Facts {
    match kind {
        Kind::Directory => Facts::Directory { subdirectories: 0, stamp: 0 },
        _ => Facts::File(ObjectInfo::default()),
    }
}

impl Dfs {
    /// Every kind but directories and symlinks, by `mode`'s type bits (none: a file).
    pub async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let mode = if mode & libc::S_IFMT == 0 { mode | libc::S_IFREG } else { mode };
        let rdev = match Kind::of_mode(mode) {
            Some(Kind::CharDevice | Kind::BlockDevice) => rdev,
            Some(Kind::File | Kind::Fifo | Kind::Socket) => 0,
            _ => return Err(Error::Invalid("mknod makes files, fifos, sockets and devices")),
        };
        self.make(parent, name, Make { mode, rdev, target: b"", caller }).await
    }

    /// An empty directory.
    pub async fn mkdir(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<Entry> {
        let mode = mode & !libc::S_IFMT | libc::S_IFDIR;
        self.make(parent, name, Make { mode, rdev: 0, target: b"", caller }).await
    }

    pub async fn symlink(
        &self,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Entry> {
        if target.is_empty() {
            return Err(Error::NoEntry);
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Error::NameTooLong { max: TARGET_BYTES_MAX });
        }
        self.make(parent, name, Make { mode: libc::S_IFLNK | 0o777, rdev: 0, target, caller }).await
    }

    /// Makes a file and opens it. Without O_EXCL a file that is there is opened instead, and truncated by O_TRUNC.
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        self.writable()?;
        let mode = mode & !libc::S_IFMT | libc::S_IFREG;
        for _ in 0..TRIES_MAX {
            let make = Make { mode, rdev: 0, target: b"", caller };
            match self.make_open(parent, name, make, flags).await {
                Ok(created) => return Ok(created),
                Err(Error::Exists) if flags & libc::O_EXCL == 0 => {}
                Err(error) => return Err(error),
            }
            match Box::pin(self.lookup(parent, name)).await {
                Ok(entry) => return Box::pin(self.open_found(entry, flags)).await,
                // It went between the two.
                Err(Error::NoEntry) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    async fn open_found(&self, found: Entry, flags: i32) -> Result<(Entry, Opened)> {
        let ino = found.attr.ino;
        let opened = match found.attr.kind {
            Kind::Directory => Err(Error::IsDirectory),
            _ => self.open(ino, flags).await,
        };
        let shown = match opened {
            Ok(opened) => match self.getattr(ino).await {
                Ok(attr) => Ok((Entry { attr }, opened)),
                Err(error) => self.release(ino, opened.handle).await.and(Err(error)),
            },
            Err(error) => Err(error),
        };
        if shown.is_err() {
            self.forget(ino, 1);
        }
        shown
    }

    /// A file that is open from the moment that it has a name: an unlink by somebody else leaves it to the handle.
    async fn make_open(
        &self,
        parent: Ino,
        name: &[u8],
        make: Make<'_>,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let inode = self.inode(self.numbers.next().await?)?;
        let handle = self.handles.add(Open { ino: inode.ino, flags })?;
        inode.opened();
        match self.make_as(&inode, parent, name, make).await {
            Ok(entry) => Ok((entry, Opened { handle, keep_cache: true })),
            Err(error) => {
                inode.closed();
                self.handles.remove(inode.ino, handle)?;
                Err(error)
            }
        }
    }

    /// A file without a name, open; `link` may give it one, and it is gone when it is closed before.
    pub async fn tmpfile(
        &self,
        parent: Ino,
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        self.writable()?;
        let directory = self.directory(parent).await?;
        let inode = self.inode(self.numbers.next().await?)?;
        let ino = inode.ino;
        let mode = mode & !libc::S_IFMT | libc::S_IFREG;
        let make = Make { mode, rdev: 0, target: b"", caller };
        let inherited = self.inherit(parent, &directory, &make).await?;
        let mut record = self.new_record(ino, &make, &directory.record, &inherited);
        record.nlink = 0;
        if flags & libc::O_EXCL == 0 {
            record.flags |= flag::LINKABLE;
        }
        let handle = self.handles.add(Open { ino, flags })?;
        inode.opened();
        let mut change = Change::new();
        change.demand_directory(parent);
        let place = Place::orphan(self.lease, ino);
        change.put_record(&place, &record);
        change.put_extras(&place, &inherited.lists);
        if let Err(error) = self.commit_new(change).await {
            inode.closed();
            self.handles.remove(ino, handle)?;
            return Err(error);
        }
        inode.learn(Loaded { home: Home::Orphan, record: Arc::new(record) });
        let entry = Entry { attr: self.attr(&inode).await? };
        self.remember(ino, 1);
        Ok((entry, Opened { handle, keep_cache: true }))
    }

    async fn make(&self, parent: Ino, name: &[u8], make: Make<'_>) -> Result<Entry> {
        self.writable()?;
        let inode = self.inode(self.numbers.next().await?)?;
        self.make_as(&inode, parent, name, make).await
    }

    async fn make_as(
        &self,
        inode: &Arc<Inode>,
        parent: Ino,
        name: &[u8],
        make: Make<'_>,
    ) -> Result<Entry> {
        check_new_name(name)?;
        let directory = self.directory(parent).await?;
        let inherited = self.inherit(parent, &directory, &make).await?;
        let record = self.new_record(inode.ino, &make, &directory.record, &inherited);
        let facts = facts_of_new(record.kind());
        // Others see the name before we hear that it is there.
        let turn = inode.turn(How::Exclusive).await;
        let mut change = self.creation(parent, name, &record, make.target);
        change.put_extras(&Place::entry(parent, name), &inherited.lists);
        let subdirectories = i64::from(record.kind() == Kind::Directory);
        let naming = self.table.get(parent).naming(record.btime, subdirectories);
        self.names.may_come(parent, name);
        if record.kind() == Kind::Directory {
            // Before others can see it and make names in it.
            self.names.new_directory(inode.ino);
        }
        naming.done(self.commit_new(change).await?);
        self.names.learn(parent, name, inode.ino);
        let home = Home::Entry { parent, name: Bytes::copy_from_slice(name) };
        let loaded = Loaded { home, record: Arc::new(record) };
        let entry = Entry { attr: attr(&loaded, facts) };
        inode.learn(loaded);
        inode.learn_facts(inode.generation(), facts);
        drop(turn);
        self.remember(inode.ino, 1);
        Ok(entry)
    }

    fn creation(&self, parent: Ino, name: &[u8], record: &Record, target: &[u8]) -> Change {
        let place = Place::entry(parent, name);
        let mut change = Change::new();
        change.demand_directory(parent);
        change.demand_no_entry(parent, name);
        change.put_record(&place, record);
        if record.kind() == Kind::Symlink {
            change.put_single(place.key(keys::SYMLINK), Bytes::copy_from_slice(target));
        }
        change.put_pointer(record.oid, keys::back_akey(parent, name));
        change.stamp(parent, record.btime);
        change.count_if_directory(record.kind(), parent, 1);
        change
    }

    /// Every condition of a creation has an answer of its own, so there is no reading again.
    async fn commit_new(&self, change: Change) -> Result<Epoch> {
        change.commit(&self.container).await?.ok_or(Error::Contended { tries: 1 })
    }

    /// The directory's default ACL decides the mode of what is made in it, or else the umask does.
    async fn inherit(&self, parent: Ino, directory: &Loaded, make: &Make<'_>) -> Result<Inherited> {
        let kind = make.kind();
        if kind == Kind::Symlink {
            return Ok(Inherited { mode: make.mode, flags: 0, lists: Extras::new() });
        }
        let default = match directory.record.has(flag::DEFAULT_ACL) {
            true => Box::pin(self.default_acl(parent, directory.clone())).await?,
            false => None,
        };
        let Some(default) = default else {
            let mode = make.mode & !(make.caller.umask & 0o777);
            return Ok(Inherited { mode, flags: 0, lists: Extras::new() });
        };
        let (mode, access) = default.inherit(make.mode);
        let mut inherited = Inherited { mode, flags: flag::XATTRS, lists: Extras::new() };
        if !access.is_minimal() {
            inherited.flags |= flag::ACL;
            inherited.lists.push((keys::xattr_akey(acl::ACCESS), access.encode()));
        }
        if kind == Kind::Directory {
            inherited.flags |= flag::DEFAULT_ACL;
            inherited.lists.push((keys::xattr_akey(acl::DEFAULT), default.encode()));
        }
        Ok(inherited)
    }

    async fn default_acl(&self, parent: Ino, mut directory: Loaded) -> Result<Option<Acl>> {
        for _ in 0..TRIES_MAX {
            if !directory.record.has(flag::DEFAULT_ACL) {
                return Ok(None);
            }
            let place = Place::of(&directory.home, parent, self.lease).ok_or(Error::NoEntry)?;
            let acl = self.stored_acl(&place, acl::DEFAULT).await?;
            if acl.is_some() {
                return Ok(acl);
            }
            // It moved, or lost its list just now.
            self.inode(parent)?.doubt();
            directory = self.directory(parent).await?;
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }

    fn new_record(
        &self,
        ino: Ino,
        make: &Make<'_>,
        parent: &Record,
        inherited: &Inherited,
    ) -> Record {
        let kind = make.kind();
        let oid = keys::oid(ino, kind);
        let now = self.now();
        let time = Time::from_nanos(now);
        let set_gid = parent.mode & libc::S_ISGID;
        let handed_down = if kind == Kind::Directory { set_gid } else { 0 };
        Record {
            mode: inherited.mode | handed_down,
            oid,
            mtime: time,
            ctime: time,
            chunk_bytes: match (kind, parent.chunk_bytes) {
                (Kind::File | Kind::Directory, 0) => self.superblock.chunk_bytes,
                (Kind::File | Kind::Directory, of_parent) => of_parent,
                _ => 0,
            },
            class: oid.class().0,
            uid: make.caller.uid,
            gid: if set_gid != 0 { parent.gid } else { make.caller.gid },
            value_len: make.target.len() as u64,
            mtime_epoch: now,
            version: 1,
            ino,
            size_floor: 0,
            atime: time,
            nlink: 1,
            btime: now,
            flags: inherited.flags,
            rdev: make.rdev,
            tail: Bytes::new(),
        }
    }

    /// The target of a symlink.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let inode = self.inode(ino)?;
        // Of renames that come one after the other each may get in between: then they wait.
        let mut turn = None;
        for attempt in 0..TRIES_MAX {
            if attempt == 1 {
                turn = Some(inode.turn(How::Shared).await);
            }
            let loaded = self.load(&inode).await?;
            if loaded.record.kind() != Kind::Symlink {
                return Err(Error::Invalid("not a symlink"));
            }
            let place = Place::of(&loaded.home, ino, self.lease).ok_or(Error::Stale)?;
            // With the record of the same moment: another symlink may have got the name meanwhile.
            match self.fetch_target(&place).await? {
                Some((record, target)) if record.ino == ino && !record.is_reference() => {
                    let Some(target) = target.filter(|it| it.len() as u64 == record.value_len)
                    else {
                        let whose = format!("inode {ino}");
                        let why = "the target has another length";
                        return Err(Error::Damaged { what: "symlink", whose, why });
                    };
                    drop(turn);
                    let facts = facts_of_new(Kind::Symlink);
                    if self.was_read(&inode, &loaded, facts, Handle(0)) {
                        self.store_enough_atimes().await;
                    }
                    return Ok(target);
                }
                _ => inode.doubt(),
            }
        }
        Err(Error::Contended { tries: TRIES_MAX })
    }
}
