//! Why a mount did not come about. Each says what to do, for a person at a terminal.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or fstab is wrong.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Mountpoint(String),
    #[error("the dead mount at {at} cannot be cleared: {source}; try: umount -l {at}")]
    DeadMount { at: PathBuf, source: io::Error },
    #[error("{0}{advice}", advice = repairing(.0))]
    Store(#[from] daos_server::Error),
    #[error("the filesystem in container '{container}' cannot be mounted: {source}{}", mending(.store, .source))]
    Filesystem { store: PathBuf, container: String, source: dfs::Error },
    #[error("mounting at {at} failed: {source}{}", advice(.source))]
    Mount { at: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}

fn repairing(error: &daos_server::Error) -> &'static str {
    match error {
        daos_server::Error::Engine(daos_types::Error::Damaged(_)) => {
            "; `daos fs check --repair --embedded` with the store's directory mends what can be mended"
        }
        _ => "",
    }
}

fn mending(store: &Path, error: &dfs::Error) -> String {
    match error.is_damage() {
        true => format!(
            "; `daos fs check --repair --embedded {}` mends what can be mended",
            store.display()
        ),
        false => String::new(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    match (device.map_err(|e| e.kind()), error.kind()) {
        (Err(io::ErrorKind::NotFound), _) => {
            " (there is no /dev/fuse; a container must be given it: --device /dev/fuse --cap-add SYS_ADMIN)"
        }
        (Err(io::ErrorKind::PermissionDenied), _) => {
            " (this user may not open /dev/fuse; root can allow it: chmod 666 /dev/fuse)"
        }
        (_, io::ErrorKind::NotFound) => " (users need fusermount3: apt-get install fuse3)",
        (_, io::ErrorKind::PermissionDenied) => {
            " (mounting for other users needs root, or user_allow_other in /etc/fuse.conf)"
        }
        _ => "",
    }
}

impl Error {
    pub fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
