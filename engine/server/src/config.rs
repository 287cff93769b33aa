//! What an engine is told at its start.

use std::path::PathBuf;

/// Memory for metadata when nothing is said: all of a store with some hundred thousand small files.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// Largest size of a new store when nothing is said.
pub const SIZE_BYTES_DEFAULT_MAX: u64 = 64 << 30;

/// What an acknowledged change survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncMode {
    /// A power cut.
    Always,
    /// The death of the process; a power cut once it was synced or is older than a second.
    #[default]
    Posix,
}

/// An engine's settings.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// A directory with the store's files, or a block device that is the store.
    pub path: PathBuf,
    /// Who opens it, for those who find it locked: "dfuse on /mnt/daos".
    pub holder: String,
    /// Make the store if there is none.
    pub create: bool,
    pub read_only: bool,
    /// Bytes of a new store; `None`: 64 GiB or 80 % of what is free, whichever is less; a block device whole.
    pub size: Option<u64>,
    /// Bytes of memory for metadata buckets.
    pub memory: u64,
    pub sync: SyncMode,
}

impl EngineConfig {
    /// Opens an existing store at `path` for reading and writing.
    pub fn new(path: impl Into<PathBuf>, holder: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            holder: holder.into(),
            create: false,
            read_only: false,
            size: None,
            memory: MEMORY_BYTES_DEFAULT,
            sync: SyncMode::default(),
        }
    }
}
