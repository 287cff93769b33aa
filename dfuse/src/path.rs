//! `--path`: a directory that stands for a container says its pool and name, and in a mount of dfuse also its store.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use daos_server::mounts;
use dfs::uns::{self, EntryPoint};

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub point: EntryPoint,
    /// `None`: the directory lies on another filesystem, which knows no store.
    pub store: Option<PathBuf>,
}

/// # Errors
/// The sentence for the user.
pub fn find(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let mut text = [0; 4096];
    let text = match rustix::fs::getxattr(path, uns::XATTR, &mut text) {
        Ok(len) => &text[..len],
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {
            return Err(format!(
                "{shown} stands for no container: it has no xattr {} (daos container create --path makes a directory with one)",
                uns::XATTR
            ));
        }
        Err(e) => return Err(format!("--path {shown}: {}", std::io::Error::from(e))),
    };
    let point = EntryPoint::parse(text).map_err(|e| format!("--path {shown}: {e}"))?;
    let mount = mounts::containing(path).filter(mounts::Mount::is_dfuse);
    let Some(mount) = mount else { return Ok(Found { point, store: None }) };
    // Anybody may mount something that names this store and stands for that container.
    match std::fs::metadata(&mount.source) {
        Ok(store) if store.uid() != rustix::process::geteuid().as_raw() => Err(format!(
            "{shown} is in a mount of {}, which belongs to another user (uid {}): name the store with --embedded if it is to be trusted",
            mount.source.display(),
            store.uid()
        )),
        _ => Ok(Found { point, store: Some(mount.source) }),
    }
}
