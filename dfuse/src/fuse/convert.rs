//! Between fuser's types and dfs's.

use std::time::{Duration, SystemTime};

use dfs::{Attr, Kind, SetTime, Time};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

/// The kernel's name of the root directory (FUSE_ROOT_ID, include/uapi/linux/fuse.h).
pub const ROOT_NODE: u64 = 1;

pub fn file_attr(attr: &Attr, node: INodeNo) -> FileAttr {
    FileAttr {
        ino: node,
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    }
}

/// What tells the kernel that a name does not exist, for as long as the entry's time to live: an entry for node 0.
pub fn no_attr() -> FileAttr {
    let then = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(requested_time(time)),
    }
}

/// A time that fuser parsed. Before 1970 it has subtracted the nanoseconds with the seconds instead of adding them (fuser
/// 0.18, time.rs `system_time_from_time`); undone here.
fn requested_time(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Time { sec: after.as_secs() as i64, nsec: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { sec: (before.as_secs() as i64).wrapping_neg(), nsec: before.subsec_nanos() }
        }
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    };
    whole
        .and_then(|t| t.checked_add(Duration::from_nanos(time.nsec.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_fraction() {
        // What fuser makes of -2 s + 0.8 s, that is 1.2 s before the epoch.
        let parsed = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(requested_time(parsed), Time { sec: -2, nsec: 800_000_000 });
        let shown = system_time(Time { sec: -2, nsec: 800_000_000 });
        assert_eq!(
            SystemTime::UNIX_EPOCH.duration_since(shown).unwrap(),
            Duration::new(1, 200_000_000)
        );
    }

    #[test]
    fn times_after_1970_are_themselves() {
        let time = Time { sec: 1_700_000_000, nsec: 5 };
        assert_eq!(requested_time(system_time(time)), time);
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for sec in [i64::MIN, i64::MAX] {
            let _ = system_time(Time { sec, nsec: 999_999_999 });
        }
    }
}
