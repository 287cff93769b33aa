//! Why an engine did not start or stop: texts say what to do.

use std::io;
use std::path::PathBuf;

use daos_types::ByteSize;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The caller is wrong.
    #[error(
        "the store in {path} is in use by process {pid} ({holder}); stop that one first, or use the store through it"
    )]
    Held { path: PathBuf, pid: u32, holder: String },
    #[error(
        "Permission denied: the store in {path} is another user's; run this as that user, who has it mounted, or as root"
    )]
    NotYours { path: PathBuf },
    #[error("there is no store in {path}; `dfuse --embedded {path} MOUNTPOINT` makes one")]
    NoStore { path: PathBuf },
    #[error(
        "{path} holds no store ({found}); `dfuse --embedded {path} MOUNTPOINT` makes one where nothing else is"
    )]
    NoStoreOn { path: PathBuf, found: String },
    #[error(
        "{file} is empty, and a store's file never is: what was in it is gone, and it is not made a new store. Put a backup in its place, or remove it to begin anew"
    )]
    Emptied { file: PathBuf },
    #[error(
        "{path} is not empty and holds no store ({found} is in it); name an empty directory or a new one"
    )]
    Foreign { path: PathBuf, found: String },
    #[error("{path} is neither a directory nor a block device; name one of these")]
    WrongKind { path: PathBuf },
    #[error(
        "{path} is in use by another process or by the system (mounted, or part of another device); unmount or stop that first"
    )]
    DeviceBusy { path: PathBuf },
    #[error("there is no pool '{pool}' in the store; `daos pool list` shows those there are")]
    NoPool { pool: String },
    #[error(
        "there is no container '{container}' in pool '{pool}'; `daos container create {pool} {container}` makes it"
    )]
    NoContainer { pool: String, container: String },
    #[error("a store needs at least {min}, and {found} were given; {advice}")]
    TooSmall { min: ByteSize, found: ByteSize, advice: &'static str },
    #[error("a store is at most {max}, and {found} were asked for; give a smaller --size")]
    TooLarge { max: ByteSize, found: ByteSize },
    #[error("a block device is used whole, and {path} has {whole}; leave out --size")]
    DeviceSize { path: PathBuf, whole: ByteSize },

    // The world failed.
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("no thread for the target: {0}")]
    Thread(io::Error),
    #[error("the store in {path} cannot be opened: {reason}")]
    Open { path: PathBuf, reason: String },
    // What repairs need to begin with, too.
    #[error(
        "the store in {path} cannot be opened: {reason}; nothing of it can be read without that, not by a repair either: put a backup in its place"
    )]
    Damaged { path: PathBuf, reason: String },
    /// The store itself answers.
    #[error(transparent)]
    Engine(#[from] daos_types::Error),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
