//! Paths that stand for containers: which one a path shows, and how one is made and removed.
//!
//! In a mount the daemon makes it, and tells the kernel.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use daos_server::control::{Ask, Failure, FailureKind};
use daos_server::mounts::{self, Mount};
use dfs::uns::{self, EntryPoint};
use rustix::fs::XattrFlags;
use serde_json::json;

use crate::store::Store;

type Result<T> = std::result::Result<T, Failure>;

/// Pool and container that `path` lies in: those of the nearest entry point above, or of the mount.
pub fn container_at(path: &Path) -> Result<(String, String)> {
    let shown = path.display();
    let real = path
        .canonicalize()
        .map_err(|e| Failure::new(FailureKind::NotFound, format!("{shown}: {e}")))?;
    for ancestor in real.ancestors() {
        if let Some(point) = entry_point(ancestor)? {
            return Ok((point.pool, point.container));
        }
    }
    let message = format!(
        "{shown} is in no container: neither it nor a directory above is an entry point or in a mount of dfuse"
    );
    Err(Failure::new(FailureKind::NotFound, message))
}

/// The entry point that `path` is itself.
pub fn entry_point(path: &Path) -> Result<Option<EntryPoint>> {
    let failed =
        |why: String| Failure::new(FailureKind::Invalid, format!("{}: {why}", path.display()));
    match read_xattr(path).map_err(|e| failed(e.to_string()))? {
        None => Ok(None),
        Some(text) => EntryPoint::parse(&text).map(Some).map_err(|e| failed(e.to_string())),
    }
}

/// `None`: it has none, or its filesystem knows no xattrs.
fn read_xattr(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0; 4096];
    match rustix::fs::getxattr(&path, uns::XATTR, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let text = format!("{what} {}", path.display());
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => FailureKind::NotFound,
            io::ErrorKind::AlreadyExists => FailureKind::Exists,
            io::ErrorKind::ReadOnlyFilesystem => FailureKind::ReadOnly,
            io::ErrorKind::StorageFull => FailureKind::NoSpace,
            _ => FailureKind::Failed,
        };
        Failure::new(kind, format!("{text}: {error}"))
    }
}

/// Nothing may be there yet, and it must be a place to make a directory in.
pub fn check_new(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let message = format!("{} is there already; name a directory that is not", path.display());
        return Err(Failure::new(FailureKind::Exists, message));
    }
    let parent = parent(path)?;
    let found = parent.metadata().map_err(failed("looking at", parent))?;
    match found.is_dir() {
        true => Ok(()),
        false => Err(failed("looking at", parent)(io::ErrorKind::NotADirectory.into())),
    }
}

fn parent(path: &Path) -> Result<&Path> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(_)) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        (Some(parent), Some(_)) => Ok(parent),
        _ => {
            let message = format!("{} names no directory that could be made", path.display());
            Err(Failure::new(FailureKind::Invalid, message))
        }
    }
}

/// Makes `path`, a directory that shows the container.
pub fn link(store: &mut Store, path: &Path, point: &EntryPoint, mode: u32) -> Result<()> {
    check_new(path)?;
    match mounts::containing(parent(path)?).filter(Mount::is_dfuse) {
        Some(mount) => link_in_mount(store, &mount, path, point, mode),
        None => link_elsewhere(path, point, mode),
    }
}

fn link_in_mount(
    store: &mut Store,
    mount: &Mount,
    path: &Path,
    point: &EntryPoint,
    mode: u32,
) -> Result<()> {
    if !store.is_at(&mount.source) {
        let message = format!(
            "{} is in a mount of another store, {}; a mount shows containers of its own store only",
            path.display(),
            mount.source.display()
        );
        return Err(Failure::new(FailureKind::Invalid, message));
    }
    let directory = parent(path)?;
    let inode = directory.metadata().map_err(failed("looking at", directory))?.ino();
    let name = path.file_name().expect("it has a parent").as_bytes();
    let arguments = json!({
        "parent": inode,
        "name": name,
        "mode": mode,
        "uid": rustix::process::geteuid().as_raw(),
        "gid": rustix::process::getegid().as_raw(),
        "pool": point.pool,
        "container": point.container,
        "device": mount.device,
    });
    store.ask(Ask::Filesystem { verb: "link".into(), arguments }).map(drop).map_err(|failure| {
        Failure::new(failure.kind, format!("making {}: {}", path.display(), failure.message))
    })
}

fn link_elsewhere(path: &Path, point: &EntryPoint, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(failed("making", path))?;
    let name = CString::new(path.as_os_str().as_bytes()).expect("it was made, so it has no NUL");
    let text = point.to_string();
    let set = rustix::fs::setxattr(&name, uns::XATTR, text.as_bytes(), XattrFlags::CREATE);
    set.map_err(|error| {
        let what = match error {
            rustix::io::Errno::NOTSUP => "the filesystem takes no user xattrs; marking",
            _ => "marking",
        };
        let failure = failed(what, path)(error.into());
        match std::fs::remove_dir(path) {
            Ok(()) => failure,
            Err(left) => {
                Failure::new(failure.kind, format!("{} ({left}, so it stays)", failure.message))
            }
        }
    })
}

/// The directory of an entry point that can be removed together with its container.
pub fn removable(path: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(failed("looking at", path))?;
    let refused = |why: &str| {
        let message = format!("{} {why}; name the container instead of a path", path.display());
        Err(Failure::new(FailureKind::Invalid, message))
    };
    if mounts::at(&real).is_some() {
        return refused("is a mountpoint");
    }
    match entry_point(&real)? {
        Some(_) => Ok(real),
        None => refused("is in a container but shows none itself"),
    }
}

/// Removes the directory of an entry point whose container is gone.
pub fn remove(directory: &Path) -> Result<()> {
    std::fs::remove_dir(directory)
        .map_err(failed("the container is destroyed; removing", directory))
}
