//! Attributes and xattrs of what has a name, at the door: of a directory that the client has entered.
//!
//! Who may look for names in a directory may stat what is there, and list xattrs. What else is asked is done for the owner, where it takes no
//! capability; of others it is the kernel's.

use bytes::Bytes;
use daos_types::door::Answer;
use daos_types::door::inodes::{
    ATTRIBUTES_BYTES, Attributes, Of, OfInode, Set, SetTime, Stat, Time,
};
use dfs::{
    Attr, Caller, Credentials, Error, Ino, Kind, Result, Right, SetAttr, XATTR_NAME_BYTES_MAX,
    XattrSet,
};
use smallvec::SmallVec;

use super::Owed;
use super::Serve;
use super::names::{Finished, counted};
use crate::exec::Credit;
use crate::fuse::{Nodes, errno};
use crate::ops::Filesystem;

/// Xattrs of files and directories that are their owners' alone.
const XATTR_PREFIX: &[u8] = b"user.";
/// Of these, dfs makes something else, and tells the kernel.
const XATTR_PREFIX_OF_OURS: &[u8] = b"user.daos";

/// What is asked, with what it means.
struct Asked {
    what: Of,
    follows: bool,
    at: Ino,
    name: Bytes,
    /// What comes after the name.
    more: Bytes,
}

enum Verdict {
    Done,
    /// It is done, with this to be put into the slot.
    Data(Bytes),
    /// The same, of which only the length is wanted.
    Length(usize),
    /// There is more than the caller has room for.
    NoRoom,
    /// Nothing was done, because of what the name is.
    ThisIsTheKernels,
    /// Nothing was done, because of who asks.
    InDoubt,
}

impl<F: Filesystem> Serve<F> {
    pub(super) fn of_inode(&self, owed: Owed, credit: Credit, asked: OfInode) {
        let nodes = Nodes { root: self.fs.root() };
        let by = owed.client.thread(asked.thread);
        let Some(asked) = Asked::of(&owed, asked, nodes) else {
            return owed.pay(Answer::Failed(libc::ESTALE as u32));
        };
        let (fs, desk) = (self.fs.clone(), self.desk.clone());
        self.executor.spawn_with(credit, async move {
            let mut inodes = SmallVec::new();
            let answer = match carry_out(&*fs, &owed.client.who, &asked, nodes, &mut inodes).await {
                Ok(Verdict::Done) => Answer::Done(0),
                Ok(Verdict::Data(data)) => {
                    Answer::Done(owed.client.server.put_data(owed.slot, 0, &data) as u32)
                }
                Ok(Verdict::Length(bytes)) => Answer::Done(bytes as u32),
                Ok(Verdict::NoRoom) => Answer::Failed(libc::ERANGE as u32),
                Ok(Verdict::ThisIsTheKernels) => Answer::NotThis,
                Ok(Verdict::InDoubt) => Answer::Kernel,
                Err(error) => Answer::Failed(errno(&error) as u32),
            };
            if inodes.is_empty() {
                return owed.pay(answer);
            }
            let (directories, names) = Default::default();
            desk.finish(Finished {
                owed,
                answer,
                by,
                directories,
                inodes,
                names,
                again_until: None,
            });
        });
    }
}

impl Asked {
    /// `None`: the client has not entered this directory, or this is no name.
    fn of(owed: &Owed, asked: OfInode, nodes: Nodes) -> Option<Self> {
        let OfInode { what, at, follows, .. } = asked;
        let at_bytes = usize::from(at.bytes);
        let more = match what {
            Of::Stat | Of::ListXattr { .. } => 0,
            Of::SetAttr => ATTRIBUTES_BYTES,
            Of::GetXattr { name, .. } | Of::RemoveXattr { name } => name.into(),
            Of::SetXattr { name, value, .. } => usize::from(name).checked_add(value as usize)?,
        };
        let server = &owed.client.server;
        let bytes =
            at_bytes.checked_add(more).filter(|bytes| *bytes <= server.shape().data_bytes)?;
        let mut name = Bytes::from(server.data(owed.slot, 0, bytes));
        if name.len() != bytes || name[..at_bytes].contains(&0) {
            return None;
        }
        // The kernel gives neither of these to anybody, and no NUL.
        if name[..at_bytes] == *b"." || name[..at_bytes] == *b".." {
            return None;
        }
        let more = name.split_off(at_bytes);
        let at = nodes.ino(at.directory);
        owed.client.entered.has(at, right(what)).then_some(Self { what, follows, at, name, more })
    }
}

/// In the directory.
fn right(what: Of) -> Right {
    if what.changes() { Right::Change } else { Right::Search }
}

/// `changed`: what it has changed; also when that has failed, because what such a call has done is not known.
async fn carry_out<F: Filesystem>(
    fs: &F,
    who: &Credentials,
    asked: &Asked,
    nodes: Nodes,
    changed: &mut SmallVec<[Ino; 2]>,
) -> Result<Verdict> {
    let Asked { what, follows, at, ref name, ref more } = *asked;
    if !fs.surely_may(at, who, right(what)).await? {
        return Ok(Verdict::InDoubt);
    }
    let inode = counted(fs, fs.lookup(at, name)).await?.attr;
    let ino = inode.ino;
    if follows && inode.kind == Kind::Symlink {
        return Ok(Verdict::ThisIsTheKernels);
    }
    let is_users = |name: &[u8]| {
        let is_name = name.len() <= XATTR_NAME_BYTES_MAX && !name.contains(&0);
        is_name && name.starts_with(XATTR_PREFIX) && !name.starts_with(XATTR_PREFIX_OF_OURS)
    };
    Ok(match what {
        Of::Stat => Verdict::Data(Bytes::copy_from_slice(&stat(&inode, nodes).encode())),
        Of::SetAttr => {
            let set = Attributes::decode(more).ok_or(Error::Invalid("these are no attributes"))?;
            let set = set_attr(&set);
            if set == SetAttr::default() || !who.surely_may_set(&inode, &set) {
                return Ok(Verdict::ThisIsTheKernels);
            }
            changed.push(ino);
            fs.setattr(ino, set).await?;
            Verdict::Done
        }
        Of::GetXattr { room, .. } => {
            if !is_users(more) || !who.surely_may_use_xattrs(&inode, 4) {
                return Ok(Verdict::ThisIsTheKernels);
            }
            fit(fs.getxattr(ino, more).await?, room)
        }
        Of::ListXattr { room } => {
            fit(fs.listxattr(ino, Caller::new(who.uid, who.gid)).await?, room)
        }
        Of::SetXattr { name, set, .. } => {
            let (name, value) = more.split_at(name.into());
            if !is_users(name) || !who.surely_may_use_xattrs(&inode, 2) {
                return Ok(Verdict::ThisIsTheKernels);
            }
            let set = match set {
                Set::Any => XattrSet::Any,
                Set::Create => XattrSet::Create,
                Set::Replace => XattrSet::Replace,
            };
            changed.push(ino);
            fs.setxattr(ino, name, value, set, false).await?;
            Verdict::Done
        }
        Of::RemoveXattr { .. } => {
            if !is_users(more) || !who.surely_may_use_xattrs(&inode, 2) {
                return Ok(Verdict::ThisIsTheKernels);
            }
            changed.push(ino);
            fs.removexattr(ino, more).await?;
            Verdict::Done
        }
    })
}

fn fit(value: Bytes, room: u32) -> Verdict {
    match room as usize {
        0 => Verdict::Length(value.len()),
        room if room < value.len() => Verdict::NoRoom,
        _ => Verdict::Data(value),
    }
}

fn stat(inode: &Attr, nodes: Nodes) -> Stat {
    let time = |time: dfs::Time| Time { sec: time.sec, nsec: time.nsec };
    Stat {
        inode: nodes.node(inode.ino),
        size: inode.size,
        blocks: inode.blocks,
        mode: inode.mode,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: inode.blksize,
        atime: time(inode.atime),
        mtime: time(inode.mtime),
        ctime: time(inode.ctime),
        btime: time(inode.btime),
    }
}

fn set_attr(set: &Attributes) -> SetAttr {
    let time = |time: SetTime| match time {
        SetTime::Now => dfs::SetTime::Now,
        SetTime::To(Time { sec, nsec }) => dfs::SetTime::To(dfs::Time { sec, nsec }),
    };
    SetAttr {
        mode: set.mode,
        uid: set.uid,
        gid: set.gid,
        atime: set.atime.map(time),
        mtime: set.mtime.map(time),
        ..SetAttr::default()
    }
}
