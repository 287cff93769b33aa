//! Attributes and xattrs of what a path names, changed and asked for at the door.

use daos_fabric::shm::Slot;
use daos_types::door::inodes::{Attributes, Of, OfInode, Set};
use daos_types::door::names::Call;

use crate::Done;
use crate::directories::{self, Parent, Right, entered, thread};
use crate::doors::{self, Again};
use crate::text::Text;

const PERMISSIONS: u32 = 0o7777;
/// Of those that the door knows anything about.
const XATTR_PREFIX: &[u8] = b"user.";
const XATTR_NAME_BYTES_MAX: usize = 255;
const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// The inode that a path means.
#[derive(Clone, Copy)]
pub(crate) struct Path<'p> {
    pub(crate) dir: i32,
    pub(crate) path: &'p Text,
    /// What a symlink leads to is meant.
    pub(crate) follows: bool,
}

impl<'p> Path<'p> {
    /// As calls have it that know no directory.
    pub(crate) fn here(path: &'p Text, follows: bool) -> Self {
        Self { dir: libc::AT_FDCWD, path, follows }
    }

    /// `None`: flags that nobody here knows.
    pub(crate) fn at(dir: i32, path: &'p Text, flags: i32) -> Option<Self> {
        let follows = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        (flags & !libc::AT_SYMLINK_NOFOLLOW == 0).then_some(Self { dir, path, follows })
    }
}

/// Asks about a name; `more` comes after it, `get` takes the answer's data, of so many bytes.
pub(crate) fn ask(
    parent: &Parent<'_>,
    (what, follows): (Of, bool),
    more: [&[u8]; 2],
    get: impl FnOnce(&Slot<'_>, usize),
) -> Done {
    let (right, again) = match what.changes() {
        true => (Right::Change, Again::MayNot),
        false => (Right::Look, Again::May),
    };
    let directory = entered(parent, right)?;
    let door = parent.door()?;
    let asked = OfInode { what, thread: thread(), at: parent.named(), follows };
    let put = |slot: &Slot<'_>| {
        let mut at = 0;
        for piece in [parent.name, more[0], more[1]] {
            slot.put_data(at, piece);
            at += piece.len();
        }
    };
    let get = |slot: &Slot<'_>, answer| {
        if let daos_types::door::Answer::Done(bytes) = answer {
            get(slot, bytes as usize);
        }
    };
    let answer = doors::ask(door, &Call::OfInode(asked).encode(), again, put, get);
    directories::done(&[directory], answer)
}

fn change(parent: &Parent<'_>, path: Path<'_>, attributes: Attributes) -> Done {
    ask(parent, (Of::SetAttr, path.follows), [&attributes.encode(), b""], |_, _| {})
}

pub(crate) fn chmod(path: Path<'_>, mode: u32) -> Done {
    let mode = Some(mode & PERMISSIONS);
    change(&Parent::find(path.dir, path.path)?, path, Attributes { mode, ..Attributes::default() })
}

/// As chown(2): `u32::MAX` leaves one as it is.
pub(crate) fn chown(path: Path<'_>, uid: u32, gid: u32) -> Done {
    let [uid, gid] = [uid, gid].map(|id| (id != u32::MAX).then_some(id));
    // Of nothing, set-id bits may go: the kernel knows.
    uid.or(gid)?;
    change(
        &Parent::find(path.dir, path.path)?,
        path,
        Attributes { uid, gid, ..Attributes::default() },
    )
}

/// `times` are looked at if the path may be the door's; without any, the kernel is to do what that comes to.
pub(crate) fn set_times(path: Path<'_>, times: impl FnOnce() -> Option<Attributes>) -> Done {
    let parent = Parent::find(path.dir, path.path)?;
    let times = times().filter(|times| times.atime.or(times.mtime).is_some())?;
    change(&parent, path, times)
}

/// The name of an xattr that the door may know.
fn of_door(name: &Text) -> Option<&[u8]> {
    let name = name.written();
    (name.starts_with(XATTR_PREFIX) && name.len() <= XATTR_NAME_BYTES_MAX).then_some(name)
}

fn room_of(room: &[u8]) -> u32 {
    room.len().min(XATTR_VALUE_BYTES_MAX) as u32
}

/// Into `room`, as much as there is.
fn take(room: &mut [u8]) -> impl FnOnce(&Slot<'_>, usize) {
    |slot, bytes| {
        if let Some(room) = room.get_mut(..bytes) {
            slot.get_data(0, room);
        }
    }
}

pub(crate) fn get_xattr(path: Path<'_>, name: &Text, room: &mut [u8]) -> Done {
    let name = of_door(name)?;
    let what = Of::GetXattr { name: name.len() as u16, room: room_of(room) };
    let parent = Parent::find(path.dir, path.path)?;
    ask(&parent, (what, path.follows), [name, b""], take(room))
}

pub(crate) fn list_xattrs(path: Path<'_>, room: &mut [u8]) -> Done {
    let what = Of::ListXattr { room: room_of(room) };
    let parent = Parent::find(path.dir, path.path)?;
    ask(&parent, (what, path.follows), [b"", b""], take(room))
}

pub(crate) fn set_xattr(path: Path<'_>, name: &Text, value: &[u8], flags: i32) -> Done {
    let name = of_door(name)?;
    let set = match flags {
        0 => Set::Any,
        libc::XATTR_CREATE => Set::Create,
        libc::XATTR_REPLACE => Set::Replace,
        _ => return None,
    };
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return None;
    }
    let what = Of::SetXattr { name: name.len() as u16, value: value.len() as u32, set };
    let parent = Parent::find(path.dir, path.path)?;
    ask(&parent, (what, path.follows), [name, value], |_, _| {})
}

pub(crate) fn remove_xattr(path: Path<'_>, name: &Text) -> Done {
    let name = of_door(name)?;
    let what = Of::RemoveXattr { name: name.len() as u16 };
    let parent = Parent::find(path.dir, path.path)?;
    ask(&parent, (what, path.follows), [name, b""], |_, _| {})
}
