//! Paths that stand for containers: which one a path shows.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use daos_server::control::{Failure, FailureKind};
use dfs::uns::{self, EntryPoint};

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
