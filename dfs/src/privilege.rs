//! What makes a program run with more rights than its caller has, set-id bits and `security.capability`, and that both go when
//! somebody changes the program. Who may keep set-id bits (CAP_FSETID) is the kernel's to say; capabilities stay for nobody.

use std::sync::Arc;

use daos_types::rpc::Op;

use crate::change::{Change, Place};
use crate::keys;
use crate::lock::How;
use crate::mount::Dfs;
use crate::record::{Record, flag};
use crate::table::Inode;
use crate::xattr::CAPABILITY;
use crate::{Result, SetAttr};

/// What a change takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    pub(crate) set_id: bool,
    pub(crate) capability: bool,
}

impl Lost {
    /// By a change of bytes; `set_id`: by somebody who may not keep set-id bits.
    pub(crate) fn by_bytes(set_id: bool) -> Self {
        Self { set_id, capability: true }
    }

    pub(crate) fn by_setattr(set: &SetAttr) -> Self {
        // A change of nothing is `chown(-1, -1)`: the kernel sends no other.
        let nothing = *set == SetAttr { kill_priv: set.kill_priv, ..SetAttr::default() };
        let chown = set.uid.is_some() || set.gid.is_some() || nothing;
        Self {
            set_id: set.kill_priv || chown && set.mode.is_none(),
            capability: chown || set.size.is_some(),
        }
    }

    fn is_there(self, record: &Record) -> bool {
        self.set_id && without_set_id(record.mode) != record.mode || self.takes_capability(record)
    }

    /// A directory runs nothing: it keeps what it has.
    fn takes_capability(self, record: &Record) -> bool {
        let runs = record.mode & libc::S_IFMT != libc::S_IFDIR;
        self.capability && runs && record.has(flag::CAPABILITY)
    }

    /// Takes it from `record`, which `change` is about to store at `place`.
    pub(crate) fn take(self, record: &mut Record, place: &Place, change: &mut Change) {
        if self.set_id {
            record.mode = without_set_id(record.mode);
        }
        if self.takes_capability(record) {
            record.flags &= !flag::CAPABILITY;
            change.push(Op::PunchAkey(place.key(keys::xattr_akey(CAPABILITY))));
        }
    }
}

impl Dfs {
    /// Before a write: `lost` goes, if it is there. The caller has no turn.
    pub(crate) async fn lose(&self, inode: &Arc<Inode>, lost: Lost) -> Result<()> {
        if !lost.is_there(&self.file(inode).await?.record) {
            return Ok(());
        }
        Box::pin(async {
            let _turn = inode.turn(How::Exclusive).await;
            self.change_attr(inode, SetAttr::default(), lost).await
        })
        .await
    }
}

/// A mode after a change that POSIX does not trust: set-id bits of what can run go.
fn without_set_id(mode: u32) -> u32 {
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return mode;
    }
    let runs_for_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    let gone = libc::S_ISUID | if runs_for_group { libc::S_ISGID } else { 0 };
    mode & !gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ino;
    use crate::record::tests::sample;

    fn after(mode: u32, lost: Lost) -> (u32, u32) {
        let mut record = Record { mode: libc::S_IFREG | mode, flags: flag::CAPABILITY, ..sample() };
        lost.take(&mut record, &Place::table(Ino(1)), &mut Change::new());
        (record.mode & 0o7777, record.flags)
    }

    #[test]
    fn chown_takes_set_id_bits() {
        let chown = SetAttr { uid: Some(5), ..SetAttr::default() };
        let lost = Lost::by_setattr(&chown);
        assert_eq!(after(0o6755, lost), (0o755, 0));
        // Set-gid without group execution marks mandatory locking, not set-gid.
        assert_eq!(after(0o6745, lost), (0o2745, 0));
        // To nobody else: `chown(-1, -1)`.
        let nothing = SetAttr::default();
        assert_eq!(after(0o6755, Lost::by_setattr(&nothing)), (0o755, 0));
        let with_mode = Lost::by_setattr(&SetAttr { mode: Some(0o4755), ..chown });
        assert_eq!(after(0o4755, with_mode), (0o4755, 0));
    }

    #[test]
    fn chown_of_a_directory_takes_nothing() {
        let mode = libc::S_IFDIR | 0o6755;
        let mut record = Record { mode, flags: flag::CAPABILITY, ..sample() };
        let lost = Lost::by_setattr(&SetAttr { uid: Some(5), ..SetAttr::default() });
        lost.take(&mut record, &Place::table(Ino(1)), &mut Change::new());
        assert_eq!((record.mode, record.flags), (mode, flag::CAPABILITY));
    }

    #[test]
    fn who_may_keep_set_id_bits_keeps_no_capabilities() {
        assert_eq!(after(0o6755, Lost::by_bytes(false)), (0o6755, 0));
        assert_eq!(after(0o6755, Lost::by_bytes(true)), (0o755, 0));
        let chmod = SetAttr { mode: Some(0o755), ..SetAttr::default() };
        assert_eq!(after(0o755, Lost::by_setattr(&chmod)), (0o755, flag::CAPABILITY));
    }
}
