//! What dfs answers instead of a result, and the one place of the project that chooses an errno.

use daos_types as engine;

use crate::uns::Broken;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // The caller is wrong, in POSIX's words.
    #[error("no such file or directory")]
    NoEntry,
    #[error("the name exists already")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("name longer than {max} bytes")]
    NameTooLong { max: usize },
    #[error("invalid: {0}")]
    Invalid(&'static str),
    #[error("operation not permitted: {0}")]
    NotPermitted(&'static str),
    #[error("permission denied: {0}")]
    Denied(&'static str),
    #[error("no such extended attribute")]
    NoAttribute,
    #[error("extended attribute value larger than {max} bytes")]
    AttributeTooLarge { max: usize },
    #[error("extended attribute name longer than {max} bytes")]
    AttributeName { max: usize },
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    #[error("too many links")]
    TooManyLinks,
    #[error("file would be too large")]
    FileTooLarge,
    #[error("offset past the end, or no data or hole there")]
    NoSuchRange,
    #[error("the inode is gone")]
    Stale,
    #[error("no such handle")]
    BadHandle,
    #[error("in two containers")]
    CrossContainer,
    /// A directory stands for a container that cannot be shown.
    #[error("entry point: {0}")]
    EntryPoint(crate::uns::Broken),
    /// A directory that stands for a container would be taken away.
    #[error("{ino} is the entry point of another container")]
    IsEntryPoint { ino: crate::Ino, text: bytes::Bytes },
    #[error("read-only filesystem")]
    ReadOnly,

    // A bound of ours, or too much company.
    #[error("too many open files (at most {max})")]
    TooManyOpen { max: usize },
    #[error("others kept changing the same names; gave up after {tries} tries")]
    Contended { tries: u32 },

    // Not a container that this version can serve.
    #[error("the container holds no filesystem")]
    NotFormatted,
    #[error("the container holds something that is not a filesystem of this project: {0}")]
    Foreign(String),
    #[error("the filesystem was made by a newer version: {0}")]
    Newer(String),

    /// A record that does not decode: dfs's own bytes are damaged.
    #[error("damage: {what} of {whose}: {why}")]
    Damaged { what: &'static str, whose: String, why: &'static str },
    /// The engine's answer, in its own words.
    #[error("{0}")]
    Engine(engine::Error),
    /// The engine answered with a body of another kind.
    #[error("the engine answered a {asked} with something else")]
    Protocol { asked: &'static str },
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl Error {
    /// Bytes are not what they were: of what was asked for, and of nothing else.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Engine(engine::Error::Damaged(_)))
    }

    /// The number that system calls answer with.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEntry => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty | Self::IsEntryPoint { .. } => libc::ENOTEMPTY,
            Self::NameTooLong { .. } => libc::ENAMETOOLONG,
            Self::Invalid(_) => libc::EINVAL,
            Self::NotPermitted(_) => libc::EPERM,
            Self::Denied(_) => libc::EACCES,
            Self::NoAttribute => libc::ENODATA,
            Self::AttributeTooLarge { .. } => libc::E2BIG,
            Self::AttributeName { .. } => libc::ERANGE,
            Self::NotSupported(_) => libc::EOPNOTSUPP,
            Self::TooManyLinks => libc::EMLINK,
            Self::FileTooLarge => libc::EFBIG,
            Self::NoSuchRange => libc::ENXIO,
            Self::Stale => libc::ESTALE,
            Self::BadHandle => libc::EBADF,
            Self::CrossContainer => libc::EXDEV,
            Self::EntryPoint(Broken::Gone) => libc::ENOLINK,
            Self::EntryPoint(Broken::Loop) => libc::ELOOP,
            Self::EntryPoint(Broken::Unreadable) => libc::EUCLEAN,
            Self::ReadOnly => libc::EROFS,
            Self::TooManyOpen { .. } => libc::ENFILE,
            Self::Contended { .. } => libc::EAGAIN,
            Self::NotFormatted | Self::Foreign(_) => libc::EINVAL,
            Self::Newer(_) => libc::EPROTONOSUPPORT,
            Self::Damaged { .. } => libc::EUCLEAN,
            Self::Engine(error) => engine_errno(error),
            Self::Protocol { .. } => libc::EPROTO,
        }
    }
}

fn engine_errno(error: &engine::Error) -> i32 {
    match error {
        // Conditions are dfs's own; one that reaches the user was not understood where it was sent.
        engine::Error::Condition { .. } => libc::EAGAIN,
        engine::Error::NonExistent(_) => libc::ENOENT,
        engine::Error::Exists(_) => libc::EEXIST,
        engine::Error::Invalid(_) => libc::EINVAL,
        engine::Error::TooLarge { .. } => libc::EFBIG,
        engine::Error::SeveralTargets => libc::EOPNOTSUPP,
        engine::Error::ReadOnly => libc::EROFS,
        engine::Error::NoSpace => libc::ENOSPC,
        engine::Error::Quota => libc::EDQUOT,
        engine::Error::Latched { .. } | engine::Error::Device { .. } => libc::EIO,
        engine::Error::Stopped => libc::ENOTCONN,
        engine::Error::Damaged(_) => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_is_enospc_and_damage_is_never_success() {
        assert_eq!(Error::from(engine::Error::NoSpace).errno(), libc::ENOSPC);
        assert_eq!(Error::from(engine::Error::Quota).errno(), libc::EDQUOT);
        let damaged = Error::Damaged { what: "record", whose: "x".into(), why: "y" };
        assert_eq!(damaged.errno(), libc::EUCLEAN);
        assert!(damaged.is_damage() && !Error::NoEntry.is_damage());
        assert_eq!(Error::Contended { tries: 1 }.errno(), libc::EAGAIN);
    }
}
