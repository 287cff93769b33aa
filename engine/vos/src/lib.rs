//! The versioned object store of one target.
#![forbid(unsafe_code)]

pub mod kv;
pub mod pages;
