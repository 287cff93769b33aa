//! Who may change names, as far as that can be said without the kernel. Whatever comes through the kernel was judged by it
//! (`default_permissions`); who comes another way is asked about here, and sent to the kernel in doubt.
//!
//! # Not here
//! Capabilities, access control lists, other people's files in sticky directories: these are in doubt.

use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::{Attr, Ino, Kind, Result};

/// Somebody, as the kernel knew him when he came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Write and search permission, of one class.
const CHANGE: u32 = 0o3;

impl Dfs {
    /// Whether `who` surely may make, remove and rename names in `directory`. False: the kernel is to say.
    pub async fn surely_may_change(&self, directory: Ino, who: &Credentials) -> Result<bool> {
        Ok(who.surely_may_change(&self.directory(directory).await?.record))
    }
}

impl Credentials {
    fn surely_may_change(&self, directory: &Record) -> bool {
        let owns = directory.uid == self.uid;
        if directory.has(flag::ACL) || directory.mode & libc::S_ISVTX != 0 && !owns {
            return false;
        }
        let in_group = directory.gid == self.gid || self.groups.contains(&directory.gid);
        let class = match (owns, in_group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        directory.mode >> class & CHANGE == CHANGE
    }

    /// Whether he surely may give a file another name (`fs.protected_hardlinks`).
    #[must_use]
    pub fn surely_may_link(&self, file: &Attr) -> bool {
        file.kind == Kind::File && file.uid == self.uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use crate::record::tests::sample;

    fn may(who: (u32, u32, &[u32]), mode: u32, flags: u32) -> bool {
        let who = Credentials { uid: who.0, gid: who.1, groups: who.2.to_vec() };
        let mode = libc::S_IFDIR | mode;
        who.surely_may_change(&Record { mode, flags, uid: 5, gid: 50, ..sample() })
    }

    #[test]
    fn the_class_that_somebody_is_in_decides_alone() {
        for (who, class) in
            [((5, 1, &[50u32][..]), 6), ((6, 50, &[]), 3), ((6, 1, &[2, 50]), 3), ((6, 1, &[2]), 0)]
        {
            for bits in 0..8 {
                let others = 0o777 & !(0o7 << class);
                assert_eq!(may(who, bits << class, 0), bits & 3 == 3, "{who:?} {bits}");
                assert_eq!(may(who, bits << class | others, 0), bits & 3 == 3, "{who:?} {bits}");
            }
        }
    }

    #[test]
    fn capabilities_lists_and_sticky_directories_are_in_doubt() {
        assert!(!may((0, 0, &[]), 0o755, 0), "root may, if it has CAP_DAC_OVERRIDE");
        assert!(!may((5, 50, &[]), 0o770, flag::ACL));
        assert!(!may((6, 6, &[]), 0o1777, 0));
        assert!(may((5, 6, &[]), 0o1777, 0), "the owner of the directory");
    }

    #[test]
    fn only_files_of_ones_own_are_surely_linked() {
        let who = Credentials { uid: 5, ..Credentials::default() };
        let attr = Attr {
            ino: Ino(1),
            kind: Kind::File,
            mode: libc::S_IFREG,
            nlink: 1,
            uid: 5,
            gid: 5,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            btime: Time::default(),
        };
        assert!(who.surely_may_link(&attr));
        assert!(!who.surely_may_link(&Attr { uid: 6, ..attr }));
        assert!(!who.surely_may_link(&Attr { kind: Kind::Symlink, ..attr }));
    }
}
