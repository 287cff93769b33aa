//! Changes of names: unlink, rename and their like, at the door when the kernel has found the directory (`directories.rs`).
//!
//! dfuse knows who may change what is in a directory, as long as this thread is whom it knows; and where something is mounted over a name is
//! looked at here (`mounts.rs`). Directories that are renamed are the kernel's.

use daos_types::door::names::{Call, Change, Name, What};
use rustix::fs::{Mode, OFlags};

use crate::directories::{self, Directory, Parent, Right, entered, thread};
use crate::doors::{self, Again};
use crate::text::Text;
use crate::{Done, report};

/// Asks the door to change something; `first` and `second` are the names, or a name and a symlink's target. `parents` have been entered.
fn change(
    parents: [&Parent<'_>; 2],
    directories: [&Directory; 2],
    change: Change,
    second: &[u8],
) -> Done {
    let first = parents[0].name;
    let put = |slot: &daos_fabric::shm::Slot<'_>| {
        slot.put_data(0, first);
        slot.put_data(first.len(), second);
    };
    let door = parents[0].door()?;
    if parents[1].mount != parents[0].mount {
        parents[1].door()?;
    }
    let call = Call::Change(change).encode();
    let answer = doors::ask(door, &call, Again::MayNot, put, |_, _| {});
    let done = directories::done(&directories, answer);
    report::count_done(&done, row(change.what));
    done
}

/// Where a report counts it.
fn row(what: What) -> usize {
    match what {
        What::Unlink => report::UNLINK,
        What::Rmdir => report::RMDIR,
        What::Mkdir { .. } => report::MKDIR,
        What::Symlink | What::Link => report::LINK,
        What::Rename { .. } => report::RENAME,
    }
}

pub(crate) fn unlink(dir: i32, path: &Text, directory: bool) -> Done {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent, Right::Change)?;
    let what = if directory { What::Rmdir } else { What::Unlink };
    let asked = Change { what, thread: thread(), at: parent.named(), to: Name::default() };
    change([&parent; 2], [entered; 2], asked, b"")
}

pub(crate) fn mkdir(dir: i32, path: &Text, mode: u32) -> Done {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent, Right::Change)?;
    let umask = umask()?;
    let what = What::Mkdir { mode, umask };
    let asked = Change { what, thread: thread(), at: parent.named(), to: Name::default() };
    change([&parent; 2], [entered; 2], asked, b"")
}

pub(crate) fn symlink(target: &Text, dir: i32, path: &Text) -> Done {
    let parent = Parent::find(dir, path)?;
    let entered = entered(&parent, Right::Change)?;
    let target = target.written();
    if target.is_empty() {
        return None;
    }
    let to = Name { bytes: target.len() as u16, ..Name::default() };
    let asked = Change { what: What::Symlink, thread: thread(), at: parent.named(), to };
    change([&parent; 2], [entered; 2], asked, target)
}

pub(crate) fn link((dir, path): (i32, &Text), (to_dir, to_path): (i32, &Text), flags: i32) -> Done {
    // The door links files only, so it is the same whether a symlink would be followed.
    if flags & !libc::AT_SYMLINK_FOLLOW != 0 {
        return None;
    }
    let (at, to) = (Parent::find(dir, path)?, Parent::find(to_dir, to_path)?);
    let (at_entered, to_entered) = both_entered(&at, &to)?;
    let asked = Change { what: What::Link, thread: thread(), at: at.named(), to: to.named() };
    change([&at, &to], [at_entered, to_entered], asked, to.name)
}

pub(crate) fn rename(
    (dir, path): (i32, &Text),
    (to_dir, to_path): (i32, &Text),
    flags: u32,
) -> Done {
    let no_replace = flags & libc::RENAME_NOREPLACE != 0;
    if flags & !libc::RENAME_NOREPLACE != 0 {
        return None;
    }
    let (at, to) = (Parent::find(dir, path)?, Parent::find(to_dir, to_path)?);
    let (at_entered, to_entered) = both_entered(&at, &to)?;
    let what = What::Rename { no_replace };
    let asked = Change { what, thread: thread(), at: at.named(), to: to.named() };
    change([&at, &to], [at_entered, to_entered], asked, to.name)
}

fn both_entered(
    at: &Parent<'_>,
    to: &Parent<'_>,
) -> Option<(&'static Directory, &'static Directory)> {
    if at.device != to.device {
        return None;
    }
    // Both count, also when the first is not entered yet.
    let (at, to) = match at.inode == to.inode {
        true => (entered(at, Right::Change), None),
        false => (entered(at, Right::Change), Some(entered(to, Right::Change))),
    };
    let at = at?;
    Some((at, to.unwrap_or(Some(at))?))
}

/// The umask of this moment, which umask(2) does not tell without changing it. It costs less than a request.
fn umask() -> Option<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = rustix::fs::open(c"/proc/thread-self/status", flags, Mode::empty()).ok()?;
    let mut room = [0; 512];
    let len = rustix::io::read(&status, &mut room).ok()?;
    let line = room[..len].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"Umask:"))?;
    let digits = std::str::from_utf8(&line[b"Umask:".len()..]).ok()?.trim();
    u32::from_str_radix(digits, 8).ok()
}
