//! Is this a place to mount on, and what is mounted there already?
//!
//! # Not here
//! Mounting itself: `fuse/`. The table of mounts: `daos_server::mounts`.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use daos_server::mounts::{self, Mount};

/// What can be done about a mountpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Free,
    /// A daemon of ours died and left this behind: nothing can be lost by clearing it.
    DeadAndOurs(Mount),
    Refused(String),
}

/// Judges `path`, which is absolute.
pub fn judge(path: &Path) -> Verdict {
    let shown = path.display();
    let mounted = mounts::at(path);
    let refused = |why: String| Verdict::Refused(why);
    match std::fs::metadata(path) {
        Err(e) if is_dead(&e) => match mounted {
            Some(mount) if mount.is_dfuse() => Verdict::DeadAndOurs(mount),
            _ => refused(format!(
                "{shown} is a dead mount (its daemon is gone: 'Transport endpoint is not connected'); \
                 clear it with: fusermount3 -uz {shown}"
            )),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => refused(format!(
            "the mountpoint {shown} does not exist; make it with: mkdir -p {shown}"
        )),
        Err(e) => refused(format!("the mountpoint {shown} cannot be used: {e}")),
        Ok(metadata) if !metadata.is_dir() => {
            refused(format!("the mountpoint {shown} is not a directory"))
        }
        Ok(_) => match mounted {
            Some(mount) if mount.fstype.starts_with("fuse") => refused(already_mounted(&mount)),
            _ => Verdict::Free,
        },
    }
}

/// A mount that hides its own store would wait for itself.
///
/// # Errors
/// The sentence for the user.
pub fn apart(store: &Path, mountpoint: &Path) -> Result<(), String> {
    // A store that does not exist yet is where its parent is.
    let real = |path: &Path| {
        let there = path.ancestors().find_map(|a| Some((a, a.canonicalize().ok()?)));
        there.map(|(a, real)| real.join(path.strip_prefix(a).expect("an ancestor")))
    };
    let (Some(under), Some(over)) = (real(store), real(mountpoint)) else { return Ok(()) };
    let shown = (store.display(), mountpoint.display());
    if under.starts_with(&over) {
        return Err(format!(
            "the mountpoint {} would hide the store {}; mount somewhere else, or move the store",
            shown.1, shown.0
        ));
    }
    if over.starts_with(&under) {
        return Err(format!(
            "the mountpoint {} is inside the store {}; mount somewhere else",
            shown.1, shown.0
        ));
    }
    Ok(())
}

fn already_mounted(mount: &Mount) -> String {
    let (at, source) = (mount.mountpoint.display(), mount.source.display());
    if mount.is_dfuse() {
        format!(
            "{at} is mounted already, by dfuse with the store {source}; unmount it with: fusermount3 -u {at}"
        )
    } else {
        let fstype = &mount.fstype;
        format!(
            "{at} is mounted already, with {source} of type {fstype}; unmount it with: umount {at}"
        )
    }
}

fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Whether a daemon has the store mounted somewhere.
pub fn is_source(store: &Path) -> bool {
    mounts::all().iter().any(|m| m.is_dfuse() && m.source == store)
}

/// Whether a dfuse is mounted at `path`.
pub fn is_dfuse(path: &Path) -> bool {
    mounts::at(path).is_some_and(|mount| mount.is_dfuse())
}

/// The store's path as a list of mount options can carry it; `mounts` reads it back.
pub fn source_name(store: &Path) -> String {
    let path = String::from_utf8_lossy(store.as_os_str().as_bytes());
    path.replace('\\', "\\134").replace('\n', "\\012").replace(',', "\\054")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_may_not_hide_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("store/inside")).unwrap();
        std::fs::create_dir_all(path("mount")).unwrap();
        std::os::unix::fs::symlink(path("store"), path("link")).unwrap();
        assert!(apart(&path("store"), &path("mount")).is_ok());
        assert!(apart(&path("mount.store"), &path("mount")).is_ok(), "names are whole");
        assert!(apart(&path("store"), &path("link")).unwrap_err().contains("would hide"));
        assert!(
            apart(&path("mount/new/store"), &path("mount")).unwrap_err().contains("would hide")
        );
        assert!(apart(&path("store"), &path("store/inside")).unwrap_err().contains("is inside"));
    }

    #[test]
    fn what_is_no_directory_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = |path: &Path| match judge(path) {
            Verdict::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(refusal(&file).contains("is not a directory"));
        assert!(refusal(&dir.path().join("none")).contains("mkdir -p"));
        assert_eq!(judge(dir.path()), Verdict::Free);
    }
}
