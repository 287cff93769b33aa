//! POSIX meaning over the engine's objects: files, directories, links, names, times, space.
//!
//! One [`Dfs`] is one mounted container. Every call is an `async fn` whose future is `Send`; its errors carry an
//! errno ([`Error::errno`]), chosen in `error.rs` and nowhere else. What each call does is in `SEMANTICS.md`, what is
//! stored in `FORMAT.md`.
//!
//! A call's future is to be polled to its end: dropped before, its change may still happen, and what this mount remembers of the
//! inode may be old.
//!
//! # Not here
//! Permission checks (the kernel's, by `default_permissions`; `access.rs` is for who does not come through it), locks (the kernel's), path walks, FUSE.
#![forbid(unsafe_code)]

mod access;
mod acl;
mod atime;
mod attr;
mod attributes;
mod budget;
mod cache;
mod change;
mod check;
mod copy;
mod create;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod handles;
mod io;
mod keys;
mod layout;
mod link;
mod load;
mod lock;
mod lookup;
mod mount;
mod names;
mod numbers;
mod open;
mod orphan;
mod pages;
mod privilege;
mod query;
mod readdir;
mod record;
mod rename;
mod repair;
mod space;
mod superblock;
mod table;
mod types;
mod unlink;
pub mod uns;
mod whose;
mod xattr;

pub use access::{Credentials, Right};
pub use attributes::{CachingAttributes, DataCache};
pub use budget::Budget;
pub use check::{Report, check};
pub use error::{Error, Result};
pub use io::Appended;
pub use layout::Layout;
pub use lock::{How, Lock};
pub use mount::{Dfs, MountOptions};
pub use query::Status;
pub use rename::Moved;
pub use repair::{Repaired, repair};
pub use table::INODE_BYTES_MAX;
pub use types::{
    Attr, Caller, DirEntry, Entry, FILE_BYTES_MAX, Handle, Ino, Kind, LINKS_MAX, NAME_BYTES_MAX,
    Opened, RenameFlags, Seek, SetAttr, SetTime, Space, TARGET_BYTES_MAX, Time,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrSet,
};
pub use whose::{Whose, whose};
