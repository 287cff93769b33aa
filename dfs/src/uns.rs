//! The unified namespace: a directory that stands for a container, by an xattr in DAOS's words.
//!
//! `DAOS.POSIX://POOL/CONTAINER`, each a label or a UUID. DAOS writes UUIDs, and so do we.

use std::fmt;

use bytes::Bytes;

use crate::mount::Dfs;
use crate::{Error, Ino, Kind, Result};

/// Holds the text, on a directory of any filesystem.
pub const XATTR: &str = "user.daos";
/// Longest text; DAOS's bound.
pub const TEXT_BYTES_MAX: usize = 170;
const TYPE: &str = "POSIX";

/// Which container an entry point shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    pub pool: String,
    pub container: String,
}

/// Why a text names no container that can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntryPoint {
    #[error("'{0}' is not of the form DAOS.POSIX://POOL/CONTAINER")]
    Damaged(String),
    #[error("it is a container of type {0}, not POSIX")]
    OtherType(String),
}

/// Why an entry point shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("its container is not there")]
    Gone,
    #[error("its container is one that it is in")]
    Loop,
    #[error("what it says, or its container, cannot be read")]
    Unreadable,
}

impl EntryPoint {
    pub fn parse(text: &[u8]) -> Result<Self, NoEntryPoint> {
        let damaged = || NoEntryPoint::Damaged(String::from_utf8_lossy(text).into_owned());
        // DAOS's own tools may leave a NUL at the end.
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        let text = std::str::from_utf8(text).map_err(|_| damaged())?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(damaged());
        }
        let rest = text.strip_prefix("DAOS.").ok_or_else(damaged)?;
        let (kind, rest) = rest.split_once("://").ok_or_else(damaged)?;
        let (pool, container) = rest.split_once('/').ok_or_else(damaged)?;
        let named = |name: &str| daos_types::check_label(name).map_err(|_| damaged());
        named(pool)?;
        named(container.trim_end_matches('/'))?;
        if !kind.eq_ignore_ascii_case(TYPE) {
            return Err(NoEntryPoint::OtherType(kind.into()));
        }
        Ok(Self { pool: pool.into(), container: container.trim_end_matches('/').into() })
    }
}

impl fmt::Display for EntryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DAOS.{TYPE}://{}/{}", self.pool, self.container)
    }
}

impl Dfs {
    /// The text of a directory that stands for a container. Costs nothing for an inode without xattrs.
    pub async fn entry_point(&self, ino: Ino) -> Result<Option<Bytes>> {
        let loaded = self.load(&*self.inode(ino)?).await?;
        if loaded.record.kind() != Kind::Directory || !loaded.record.may_have_xattrs() {
            return Ok(None);
        }
        match Box::pin(self.getxattr(ino, XATTR.as_bytes())).await {
            Ok(text) => Ok(Some(text)),
            Err(Error::NoAttribute) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_daos_s() {
        let text = b"DAOS.POSIX://4f8a8ed7-9d1b-4d4c-9a0e-0b4a7a5d7d11/2d7d2bd0-1a34-4fd4-8ee7-3e6f5a8a1c22";
        let point = EntryPoint::parse(text).unwrap();
        assert_eq!(point.pool, "4f8a8ed7-9d1b-4d4c-9a0e-0b4a7a5d7d11");
        assert_eq!(point.to_string().as_bytes(), text);
        let labels = EntryPoint::parse(b"DAOS.POSIX://pool/home\0").unwrap();
        assert_eq!((labels.pool.as_str(), labels.container.as_str()), ("pool", "home"));
    }

    #[test]
    fn what_names_no_container_says_why() {
        for text in [
            "",
            "DAOS.POSIX:/a/b",
            "DAOS.POSIX://a",
            "DAOS.POSIX://a/",
            "POSIX://a/b",
            "DAOS.POSIX://a/b/c",
            "DAOS.POSIX:///b",
        ] {
            let error = EntryPoint::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, NoEntryPoint::Damaged(_)), "{text}");
        }
        assert!(EntryPoint::parse(&[0xff; 20]).is_err());
        let other = EntryPoint::parse(b"DAOS.HDF5://a/b").unwrap_err().to_string();
        assert!(other.contains("HDF5"), "{other}");
        let long = format!("DAOS.POSIX://{}/{}", "p".repeat(100), "c".repeat(100));
        assert!(EntryPoint::parse(long.as_bytes()).is_err());
    }
}
