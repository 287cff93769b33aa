//! POSIX ACLs: kept in step with the mode, inherited, and carried along.

mod common;

use common::*;
use dfs::{Caller, Dfs, Ino, RenameFlags, SetAttr, XattrSet};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const NOBODY: u32 = u32::MAX;

/// An xattr's bytes, from (tag, permissions, id).
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// u::O,u:5:rw,g::r,m::M,o::X
fn with_user(owner: u16, mask: u16, other: u16) -> Vec<u8> {
    let rest = [(4, 4, NOBODY), (0x10, mask, NOBODY), (0x20, other, NOBODY)];
    list(&[&[(1, owner, NOBODY), (2, 6, 5)][..], &rest].concat())
}

fn minimal(owner: u16, group: u16, other: u16) -> Vec<u8> {
    list(&[(1, owner, NOBODY), (4, group, NOBODY), (0x20, other, NOBODY)])
}

async fn set(dfs: &Dfs, ino: Ino, name: &[u8], value: &[u8]) -> dfs::Result<()> {
    dfs.setxattr(ino, name, value, XattrSet::Any, false).await
}

async fn mode(dfs: &Dfs, ino: Ino) -> u32 {
    dfs.getattr(ino).await.unwrap().mode & 0o7777
}

async fn chmod(dfs: &Dfs, ino: Ino, mode: u32) {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    dfs.setattr(ino, set).await.unwrap();
}

#[test]
fn a_list_and_a_mode_stay_in_step_both_ways() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        assert_eq!(errno(dfs.getxattr(f, ACCESS).await), libc::ENODATA);
        set(&dfs, f, ACCESS, &with_user(7, 6, 1)).await.unwrap();
        assert_eq!(mode(&dfs, f).await, 0o761);
        assert_eq!(dfs.getxattr(f, ACCESS).await.unwrap(), with_user(7, 6, 1));
        assert_eq!(dfs.listxattr(f, USER).await.unwrap(), &b"system.posix_acl_access\0"[..]);
        chmod(&dfs, f, 0o640).await;
        assert_eq!(dfs.getxattr(f, ACCESS).await.unwrap(), with_user(6, 4, 0));
        assert_eq!(mode(&dfs, f).await, 0o640);
    });
}

#[test]
fn a_list_that_a_mode_can_say_is_only_the_mode() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        set(&dfs, f, ACCESS, &with_user(7, 6, 1)).await.unwrap();
        set(&dfs, f, ACCESS, &minimal(7, 5, 0)).await.unwrap();
        assert_eq!(mode(&dfs, f).await, 0o750);
        assert_eq!(errno(dfs.getxattr(f, ACCESS).await), libc::ENODATA);
        assert_eq!(dfs.listxattr(f, USER).await.unwrap(), "");
    });
}

#[test]
fn removing_a_list_leaves_the_mode() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        dfs.removexattr(f, ACCESS).await.unwrap();
        dfs.removexattr(f, DEFAULT).await.unwrap();
        set(&dfs, f, ACCESS, &with_user(7, 6, 1)).await.unwrap();
        dfs.removexattr(f, ACCESS).await.unwrap();
        assert_eq!(mode(&dfs, f).await, 0o761);
        assert_eq!(errno(dfs.getxattr(f, ACCESS).await), libc::ENODATA);
        set(&dfs, f, ACCESS, &with_user(7, 6, 1)).await.unwrap();
        // What has no entries is no list.
        set(&dfs, f, ACCESS, &list(&[])).await.unwrap();
        assert_eq!(errno(dfs.getxattr(f, ACCESS).await), libc::ENODATA);
    });
}

#[test]
fn what_is_no_list_is_refused_and_so_are_lists_where_there_are_none() {
    on_a_new_filesystem(|dfs| async move {
        let root = dfs.root();
        let f = file_with(&dfs, root, "f", b"").await;
        assert_eq!(errno(set(&dfs, f, ACCESS, b"\x02\0\0\0xyz").await), libc::EINVAL);
        let no_mask = list(&[(1, 7, NOBODY), (2, 7, 5), (4, 7, NOBODY), (0x20, 7, NOBODY)]);
        assert_eq!(errno(set(&dfs, f, ACCESS, &no_mask).await), libc::EINVAL);
        assert_eq!(errno(set(&dfs, f, DEFAULT, &minimal(7, 7, 7)).await), libc::EACCES);
        let s = dfs.symlink(root, b"s", b"f", USER).await.unwrap().attr.ino;
        assert_eq!(errno(set(&dfs, s, ACCESS, &minimal(7, 7, 7)).await), libc::EOPNOTSUPP);
    });
}

#[test]
fn whoever_is_not_in_the_group_loses_set_gid_by_a_list() {
    on_a_new_filesystem(|dfs| async move {
        let f = file_with(&dfs, dfs.root(), "f", b"").await;
        chmod(&dfs, f, 0o6755).await;
        set(&dfs, f, ACCESS, &with_user(7, 5, 5)).await.unwrap();
        assert_eq!(mode(&dfs, f).await, 0o6755);
        let list = with_user(7, 5, 5);
        dfs.setxattr(f, ACCESS, &list, XattrSet::Any, true).await.unwrap();
        assert_eq!(mode(&dfs, f).await, 0o4755);
    });
}

#[test]
fn what_is_made_inherits_the_default_list_and_no_umask() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let d = directory(&dfs, dfs.root(), "d").await;
        set(&dfs, d, DEFAULT, &with_user(7, 7, 5)).await.unwrap();
        assert_eq!(mode(&dfs, d).await, 0o755, "a default list is not the directory's own");
        let user = Caller { umask: 0o077, ..USER };
        let made = dfs.create(d, b"f", 0o664, libc::O_RDWR, user).await.unwrap();
        assert_eq!(made.0.attr.mode & 0o777, 0o664);
        let sub = dfs.mkdir(d, b"sub", 0o770, user).await.unwrap().attr;
        let node = dfs.mknod(d, b"p", libc::S_IFIFO | 0o600, 0, user).await.unwrap().attr;
        let link = dfs.symlink(d, b"s", b"f", user).await.unwrap().attr;
        let temporary = dfs.tmpfile(d, 0o644, libc::O_RDWR, user).await.unwrap().0.attr;
        dfs.link(temporary.ino, d, b"t").await.unwrap();
        let dfs = mount(&container).await;
        let f = made.0.attr.ino;
        assert_eq!(dfs.getxattr(f, ACCESS).await.unwrap(), with_user(6, 6, 4));
        assert_eq!(errno(dfs.getxattr(f, DEFAULT).await), libc::ENODATA);
        assert_eq!(dfs.getxattr(sub.ino, ACCESS).await.unwrap(), with_user(7, 7, 0));
        assert_eq!(dfs.getxattr(sub.ino, DEFAULT).await.unwrap(), with_user(7, 7, 5));
        assert_eq!(dfs.getxattr(node.ino, ACCESS).await.unwrap(), with_user(6, 0, 0));
        assert_eq!(dfs.getxattr(temporary.ino, ACCESS).await.unwrap(), with_user(6, 4, 4));
        assert_eq!(dfs.listxattr(link.ino, ROOT_USER).await.unwrap(), "");
        // A default list that a mode can say is stored, and decides all the same.
        set(&dfs, d, DEFAULT, &minimal(7, 5, 0)).await.unwrap();
        let made = dfs.mknod(d, b"m", libc::S_IFREG | 0o666, 0, user).await.unwrap().attr;
        assert_eq!(made.mode & 0o777, 0o640);
        assert_eq!(dfs.listxattr(made.ino, ROOT_USER).await.unwrap(), "");
        dfs.removexattr(d, DEFAULT).await.unwrap();
        let made = dfs.mknod(d, b"u", libc::S_IFREG | 0o666, 0, user).await.unwrap().attr;
        assert_eq!(made.mode & 0o777, 0o600, "without a default list the umask counts");
        assert!(dfs.check(|_| {}).await.unwrap().is_sound());
    });
}

#[test]
fn lists_go_where_their_inode_goes() {
    on_a_container(|container| async move {
        let dfs = mount(&container).await;
        let root = dfs.root();
        let a = file_with(&dfs, root, "a", b"").await;
        let b = file_with(&dfs, root, "b", b"").await;
        let d = directory(&dfs, root, "d").await;
        set(&dfs, a, ACCESS, &with_user(7, 6, 1)).await.unwrap();
        dfs.rename(root, b"a", d, b"a", RenameFlags::default()).await.unwrap();
        let exchange = RenameFlags { exchange: true, no_replace: false };
        dfs.rename(d, b"a", root, b"b", exchange).await.unwrap();
        dfs.link(a, d, b"second").await.unwrap();
        let dfs = mount(&container).await;
        assert_eq!(dfs.getxattr(a, ACCESS).await.unwrap(), with_user(7, 6, 1));
        assert_eq!(errno(dfs.getxattr(b, ACCESS).await), libc::ENODATA);
        chmod(&dfs, a, 0o600).await;
        assert_eq!(dfs.getxattr(a, ACCESS).await.unwrap(), with_user(6, 0, 0));
        dfs.rename(root, b"b", d, b"second", RenameFlags::default()).await.unwrap();
        assert_eq!(dfs.getxattr(a, ACCESS).await.unwrap(), with_user(6, 0, 0));
    });
}
