//! Where a store lies, and where its lock and control socket are.
//!
//! A directory holds `lock`, `control` and one file per target, `target-0`. A block device is the target itself; its
//! lock and socket are under `/run/daosfs`, by the device's number, so that every name of the device finds the same.
//!
//! # Invariants
//! 1. A file has the name `target-0` from when its format is finished: it is made and formatted as `target-0.new`. So a
//!    `target-0` that is empty was a store once, and is never formatted; an unfinished `target-0.new` never was.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use daos_types::ByteSize;

use crate::config::{EngineConfig, SIZE_BYTES_DEFAULT_MAX};
use crate::error::{Error, Result};

const LOCK: &str = "lock";
const CONTROL: &str = "control";
const TARGET: &str = "target-0";
const TARGET_NEW: &str = "target-0.new";
const RUN_DIRECTORY: &str = "/run/daosfs";
/// Smallest store that is made: less is filled by a few files.
const SIZE_BYTES_MIN: u64 = 64 << 20;
/// What 32-bit bucket numbers reach.
const SIZE_BYTES_MAX: u64 = 64 << 40;

/// A store's place, found or to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the user named it, absolute.
    pub path: PathBuf,
    pub lock: PathBuf,
    pub control: PathBuf,
    /// File or device of the one target.
    pub target: PathBuf,
    pub block_device: bool,
}

impl Place {
    /// Looks at what `path` is. With `create`, a directory that is not there is made.
    pub fn find(path: &Path, create: bool) -> Result<Self> {
        let path = std::path::absolute(path).map_err(Error::io("finding", path))?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Self::in_directory(path)),
            Ok(found) if found.file_type().is_block_device() => {
                Self::on_device(path, found.rdev(), Path::new(RUN_DIRECTORY))
            }
            Ok(_) => Err(Error::WrongKind { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                make_directory(&path)?;
                Ok(Self::in_directory(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoStore { path }),
            Err(source) => Err(Error::Io { what: "looking at", path, source }),
        }
    }

    fn in_directory(path: PathBuf) -> Self {
        Self {
            lock: path.join(LOCK),
            control: path.join(CONTROL),
            target: path.join(TARGET),
            path,
            block_device: false,
        }
    }

    fn on_device(path: PathBuf, device: u64, run: &Path) -> Result<Self> {
        if !run.is_dir() {
            make_directory(run)?;
        }
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Self {
            lock: run.join(format!("{number}.lock")),
            control: run.join(format!("{number}.control")),
            target: path.clone(),
            path,
            block_device: true,
        })
    }

    /// A directory with other things in it is not made a store by accident; one without a store is not touched
    /// unless one is to be made. Called before the lock is there.
    pub(crate) fn check(&self, create: bool) -> Result<()> {
        if self.block_device || self.target.exists() {
            return Ok(());
        }
        if !create {
            return Err(Error::NoStore { path: self.path.clone() });
        }
        let ours = [LOCK, CONTROL, TARGET_NEW, "control.new", "dfuse.log", "lost+found"];
        let entries = fs::read_dir(&self.path).map_err(Error::io("reading", &self.path))?;
        for entry in entries {
            let name = entry.map_err(Error::io("reading", &self.path))?.file_name();
            if !ours.iter().any(|ours| name == *ours) {
                let found = name.to_string_lossy().into_owned();
                return Err(Error::Foreign { path: self.path.clone(), found });
            }
        }
        Ok(())
    }

    /// Makes sure that the target has a file, which may have to be formatted; its size.
    pub(crate) fn prepare(&self, config: &EngineConfig) -> Result<u64> {
        if self.block_device {
            return self.device_bytes(config);
        }
        match fs::metadata(&self.target) {
            Ok(found) if found.len() > 0 => return Ok(found.len()),
            Ok(_) => return Err(Error::Emptied { file: self.target.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::Io { what: "looking at", path: self.target.clone(), source });
            }
        }
        if !config.create || config.read_only {
            return Err(Error::NoStore { path: self.path.clone() });
        }
        let size = match config.size {
            Some(size) if size < SIZE_BYTES_MIN => {
                return Err(too_small(size, "give a larger --size"));
            }
            Some(size) if size > SIZE_BYTES_MAX => {
                return Err(Error::TooLarge {
                    max: ByteSize(SIZE_BYTES_MAX),
                    found: ByteSize(size),
                });
            }
            Some(size) => size,
            None => default_size(free_bytes(&self.path)?)?,
        };
        self.make_file(size)?;
        Ok(size)
    }

    /// A sparse file, in the place of one whose format did not finish. Blocks come when they are needed.
    fn make_file(&self, size: u64) -> Result<()> {
        let new = self.new_file();
        let size = size.next_multiple_of(4096);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing", &new)(error));
            }
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&new);
        let file = file.map_err(Error::io("making", &new))?;
        file.set_len(size).map_err(Error::io("sizing", &new))?;
        file.sync_all().map_err(Error::io("syncing", &new))
    }

    fn new_file(&self) -> PathBuf {
        self.path.join(TARGET_NEW)
    }

    /// After `prepare`: the file that is to be formatted, if the target has none that was.
    pub(crate) fn unformatted(&self) -> Option<PathBuf> {
        (!self.block_device && !self.target.exists()).then(|| self.new_file())
    }

    /// The file that was made is formatted: it gets its name (invariant 1).
    pub(crate) fn formatted(&self) -> Result<()> {
        let named = rustix::fs::renameat_with(
            rustix::fs::CWD,
            self.new_file(),
            rustix::fs::CWD,
            &self.target,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        named.map_err(|error| Error::io("naming", &self.target)(error.into()))?;
        sync_directory(&self.path)
    }

    fn device_bytes(&self, config: &EngineConfig) -> Result<u64> {
        use std::io::Seek;
        let mut device = File::open(&self.target).map_err(Error::io("opening", &self.target))?;
        let whole = device.seek(io::SeekFrom::End(0)).map_err(Error::io("sizing", &self.target))?;
        match config.size {
            Some(size) if size != whole => {
                Err(Error::DeviceSize { path: self.path.clone(), whole: ByteSize(whole) })
            }
            _ => Ok(whole),
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(Error::io("making", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(Error::io("opening", path))?;
    directory.sync_all().map_err(Error::io("syncing", path))
}

fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("asking for space in", path)(error.into()))?;
    Ok(found.f_bavail * found.f_frsize)
}

fn default_size(free: u64) -> Result<u64> {
    let size = (free / 5 * 4).min(SIZE_BYTES_DEFAULT_MAX) & !0xfffff;
    if size < SIZE_BYTES_MIN { Err(too_small(size, "free some space there")) } else { Ok(size) }
}

fn too_small(found: u64, advice: &'static str) -> Error {
    Error::TooSmall { min: ByteSize(SIZE_BYTES_MIN), found: ByteSize(found), advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_store_is_64_gib_or_most_of_what_is_free() {
        assert_eq!(default_size(1 << 40).unwrap(), 64 << 30);
        assert_eq!(default_size(10 << 30).unwrap(), 8 << 30);
        assert!(matches!(default_size(1 << 20), Err(Error::TooSmall { .. })));
    }

    #[test]
    fn directory_is_made_private_and_its_file_sparse() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/store");
        assert!(matches!(Place::find(&path, false), Err(Error::NoStore { .. })));
        let place = Place::find(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let mut config = EngineConfig::new(&path, "test");
        assert!(matches!(place.prepare(&config), Err(Error::NoStore { .. })));
        config.create = true;
        config.size = Some(1 << 30);
        assert_eq!(place.prepare(&config).unwrap(), 1 << 30);
        let made = place.unformatted().unwrap();
        let file = fs::metadata(&made).unwrap();
        assert_eq!((file.len(), file.blocks()), (1 << 30, 0));
        // As long as it is not formatted it is made anew; a store that is there keeps its size.
        place.check(true).unwrap();
        config.size = Some(2 << 30);
        assert_eq!(place.prepare(&config).unwrap(), 2 << 30);
        place.formatted().unwrap();
        config.size = Some(1 << 30);
        assert_eq!(place.prepare(&config).unwrap(), 2 << 30);
        assert_eq!((place.unformatted(), made.exists()), (None, false));
        fs::remove_file(&place.target).unwrap();
        config.size = Some(65 << 40);
        assert!(matches!(place.prepare(&config), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn directory_of_something_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::find(root.path(), true).unwrap();
        fs::write(root.path().join("dfuse.log"), "an attempt that failed").unwrap();
        place.check(true).unwrap();
        assert!(matches!(place.check(false), Err(Error::NoStore { .. })));
        fs::write(root.path().join("thesis.tex"), "x").unwrap();
        let error = place.check(true).unwrap_err().to_string();
        assert!(error.contains("thesis.tex"), "{error}");
        fs::write(root.path().join("file"), "x").unwrap();
        let wrong = Place::find(&root.path().join("file"), true);
        assert!(matches!(wrong, Err(Error::WrongKind { .. })));
    }

    #[test]
    fn device_has_its_files_by_number() {
        let run = tempfile::tempdir().unwrap();
        let device = rustix::fs::makedev(252, 16);
        let place = Place::on_device("/dev/vdb".into(), device, run.path()).unwrap();
        assert_eq!(place.lock, run.path().join("252:16.lock"));
        assert_eq!(place.target, Path::new("/dev/vdb"));
    }
}
