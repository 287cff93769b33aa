//! Who may look for names and change them, and attributes, as far as that can be said without the kernel. Whatever comes through the kernel was judged by it
//! (`default_permissions`); who comes another way is asked about here, and sent to the kernel in doubt.
//!
//! # Not here
//! Capabilities, access control lists, other people's files in sticky directories: these are in doubt.

use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::{Attr, Ino, Kind, Result, SetAttr};

/// Somebody, as the kernel knew him when he came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What somebody would do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Use what has a name there.
    Search,
    /// Make, remove and rename names.
    Change,
}

impl Right {
    /// Permission bits that it takes, of one class.
    const fn bits(self) -> u32 {
        match self {
            Self::Search => 0o1,
            Self::Change => 0o3,
        }
    }
}

impl Dfs {
    /// Whether `who` surely may do this in `directory`. False: the kernel is to say.
    ///
    /// # Errors
    /// `NoEntry`, `NotDirectory`; those of loading it.
    pub async fn surely_may(
        &self,
        directory: Ino,
        who: &Credentials,
        right: Right,
    ) -> Result<bool> {
        Ok(who.surely_may(&self.directory(directory).await?.record, right))
    }
}

impl Credentials {
    fn surely_may(&self, directory: &Record, right: Right) -> bool {
        let owns = directory.uid == self.uid;
        let is_sticky = directory.mode & libc::S_ISVTX != 0 && right == Right::Change;
        if directory.has(flag::ACL) || is_sticky && !owns {
            return false;
        }
        let class = match (owns, self.is_in(directory.gid)) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        directory.mode >> class & right.bits() == right.bits()
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Whether he surely may change attributes of this inode so: of his own, and to what takes no capability.
    #[must_use]
    pub fn surely_may_set(&self, inode: &Attr, set: &SetAttr) -> bool {
        let sets_gid = set.mode.is_some_and(|mode| mode & libc::S_ISGID != 0);
        self.surely_owns(inode)
            && set.uid.is_none_or(|uid| uid == inode.uid)
            && set.gid.is_none_or(|gid| self.is_in(gid))
            && (!sets_gid || self.is_in(inode.gid))
    }

    /// Whether he surely may use `user.*` xattrs of this inode; `bits`: 4 to read them, 2 to change them.
    #[must_use]
    pub fn surely_may_use_xattrs(&self, inode: &Attr, bits: u32) -> bool {
        self.surely_owns(inode) && inode.mode >> 6 & bits == bits
    }

    fn surely_owns(&self, inode: &Attr) -> bool {
        matches!(inode.kind, Kind::File | Kind::Directory) && inode.uid == self.uid
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
        who.surely_may(&Record { mode, flags, uid: 5, gid: 50, ..sample() }, Right::Change)
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
    fn who_may_search_need_not_write() {
        let who = Credentials { uid: 6, gid: 6, groups: vec![] };
        let may = |mode: u32, flags, right| {
            let mode = libc::S_IFDIR | mode;
            who.surely_may(&Record { mode, flags, uid: 5, gid: 50, ..sample() }, right)
        };
        assert!(may(0o751, 0, Right::Search) && !may(0o751, 0, Right::Change));
        assert!(may(0o1777, 0, Right::Search), "sticky");
        assert!(!may(0o776, 0, Right::Search) && !may(0o751, flag::ACL, Right::Search));
    }

    fn file() -> Attr {
        Attr {
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
        }
    }

    #[test]
    fn attributes_of_ones_own_are_changed_if_that_takes_no_capability() {
        let who = Credentials { uid: 5, gid: 50, groups: vec![51] };
        let own = Attr { gid: 51, mode: libc::S_IFREG | 0o600, ..file() };
        let may = |of: &Attr, set| who.surely_may_set(of, &set);
        let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
        let owner = |uid, gid| SetAttr { uid, gid, ..SetAttr::default() };
        assert!(may(&own, mode(0o4755)) && may(&own, mode(0o2755)));
        assert!(!may(&Attr { gid: 7, ..own }, mode(0o2755)), "it would lose the set-gid bit");
        assert!(may(&Attr { gid: 7, ..own }, mode(0o755)));
        assert!(!may(&Attr { uid: 6, ..own }, mode(0o755)));
        assert!(!may(&Attr { kind: Kind::Symlink, ..own }, mode(0o755)));
        assert!(may(&own, owner(Some(5), Some(50))) && may(&own, owner(None, Some(51))));
        assert!(!may(&own, owner(Some(6), None)) && !may(&own, owner(None, Some(52))));
        assert!(who.surely_may_use_xattrs(&own, 4) && who.surely_may_use_xattrs(&own, 2));
        assert!(!who.surely_may_use_xattrs(&Attr { mode: libc::S_IFREG | 0o477, ..own }, 2));
        assert!(!who.surely_may_use_xattrs(&Attr { uid: 0, mode: 0o777, ..own }, 4));
    }

    #[test]
    fn only_files_of_ones_own_are_surely_linked() {
        let who = Credentials { uid: 5, ..Credentials::default() };
        let attr = file();
        assert!(who.surely_may_link(&attr));
        assert!(!who.surely_may_link(&Attr { uid: 6, ..attr }));
        assert!(!who.surely_may_link(&Attr { kind: Kind::Symlink, ..attr }));
    }
}
