//! Opening what a device lives in: kind, size, descriptors, and the lock that keeps others away.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::DIRECT_ALIGN;
use crate::IoBuf;
use crate::device::SECTOR_BYTES;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub access: Access,
    /// Use O_DIRECT where it works.
    pub direct: bool,
    /// Use io_uring where the kernel gives one; worker threads otherwise.
    pub ring: bool,
    /// Most operations under way at a time.
    pub depth: u32,
    /// Largest buffered read that tries the page cache on the xstream's thread itself; 0 for none.
    pub read_inline_bytes_max: usize,
    /// Largest buffered write that is done on the xstream's thread itself; 0 for none.
    pub write_inline_bytes_max: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            direct: true,
            ring: true,
            depth: 128,
            read_inline_bytes_max: 256 << 10,
            write_inline_bytes_max: 64 << 10,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: in use by another process, or mounted", .path.display())]
    Busy { path: PathBuf },
    #[error("{}: neither a regular file nor a block device", .path.display())]
    Kind { path: PathBuf },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileKind {
    Regular,
    Block,
}

/// An open file or block device.
pub(super) struct Files {
    path: PathBuf,
    pub kind: FileKind,
    pub access: Access,
    /// Whole sectors.
    pub size: u64,
    pub buffered: File,
    /// Or why there is none.
    pub direct: Result<File, String>,
    /// Whether space can be had ahead.
    pub allocates: bool,
}

impl Files {
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let at_path = |source: io::Error| OpenError::File { path: path.into(), source };
        let file_type = std::fs::metadata(path).map_err(at_path)?.file_type();
        let kind = if file_type.is_file() {
            FileKind::Regular
        } else if file_type.is_block_device() {
            FileKind::Block
        } else {
            return Err(OpenError::Kind { path: path.into() });
        };
        let buffered = open_locked(path, kind, options.access)?;
        forget_cached(path, &buffered);
        let size =
            (&buffered).seek(SeekFrom::End(0)).map_err(at_path)? / SECTOR_BYTES * SECTOR_BYTES;
        if kind == FileKind::Block {
            // No readahead: see `Ring::direct_writes_pass_cache`. Who reads ahead is the store's users.
            rustix::fs::fadvise(&buffered, 0, None, Advice::Random)
                .map_err(|error| at_path(error.into()))?;
        }
        let direct = if options.direct {
            open_direct(path, options.access, size).map_err(|error| error.to_string())
        } else {
            Err("not wanted".into())
        };
        let allocates = kind == FileKind::Regular
            && options.access == Access::ReadWrite
            && can_allocate(&buffered).map_err(at_path)?;
        Ok(Self {
            path: path.into(),
            kind,
            access: options.access,
            size,
            buffered,
            direct,
            allocates,
        })
    }

    pub fn describe(&self) -> String {
        let kind = match self.kind {
            FileKind::Regular => "file",
            FileKind::Block => "block device",
        };
        let mut text = format!("{kind} {}, {} bytes", self.path.display(), self.size);
        match &self.direct {
            Ok(_) => text.push_str(", O_DIRECT"),
            Err(why) => text.push_str(&format!(", no O_DIRECT ({why})")),
        }
        if self.access == Access::ReadOnly {
            text.push_str(", read-only");
        } else if self.kind == FileKind::Regular && !self.allocates {
            text.push_str(", space cannot be taken ahead (fallocate is not supported)");
        }
        text
    }
}

/// Block devices: O_EXCL, which fails when it is mounted or opened so by others. Files: a lock on the open file.
fn open_locked(path: &Path, kind: FileKind, access: Access) -> Result<File, OpenError> {
    let exclusive = kind == FileKind::Block && access == Access::ReadWrite;
    let flags = if exclusive { OFlags::EXCL } else { OFlags::empty() };
    let busy = || OpenError::Busy { path: path.into() };
    let file = match open_flags(path, access, flags) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            return Err(busy());
        }
        Err(source) => return Err(OpenError::File { path: path.into(), source }),
    };
    let lock = match access {
        Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
        Access::ReadOnly => FlockOperation::NonBlockingLockShared,
    };
    match rustix::fs::flock(&file, lock) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(busy()),
        // Some network filesystems have no locks; the server's own lock file still holds.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) => {
            tracing::warn!(path = %path.display(), "the file cannot be locked against other processes");
            Ok(file)
        }
        Err(error) => Err(OpenError::File { path: path.into(), source: error.into() }),
    }
}

/// What is read from here on is what the medium has. After a failed write-back the kernel keeps the pages as if they had been written: who
/// had the file before us was told and stopped, and a recovery that reads those pages would believe what is not there.
fn forget_cached(path: &Path, file: &File) {
    if let Err(error) = rustix::fs::fdatasync(file) {
        tracing::warn!(path = %path.display(), %error, "writes before this opening failed; what reached the medium counts");
    }
    if let Err(error) = rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
        tracing::warn!(path = %path.display(), %error, "the host's cache is not dropped");
    }
}

/// Some filesystems take the flag and refuse the transfers: so the first block is read to see.
fn open_direct(path: &Path, access: Access, size: u64) -> io::Result<File> {
    let file = open_flags(path, access, OFlags::DIRECT)?;
    if size >= DIRECT_ALIGN {
        rustix::io::pread(&file, &mut IoBuf::scratch(DIRECT_ALIGN as usize)[..], 0)?;
    }
    Ok(file)
}

fn open_flags(path: &Path, access: Access, flags: OFlags) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

/// Tries with the first block, where the label is.
fn can_allocate(file: &File) -> io::Result<bool> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, 4096) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a new sparse file of `bytes`, for its owner alone, and its name stable.
///
/// # Errors
/// When the path exists, or the file cannot be made so large.
pub fn create_file(path: &Path, bytes: u64) -> Result<(), OpenError> {
    let create = || -> io::Result<()> {
        let file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(bytes)?;
        file.sync_all()?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)?.sync_all()
    };
    create().map_err(|source| OpenError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Write};

    use rustix::io::ReadWriteFlags;

    use super::*;

    #[test]
    fn what_is_no_device_or_in_use_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::default();
        let error = Files::open(directory.path(), &options).err().unwrap();
        assert!(matches!(error, OpenError::Kind { .. }));
        let null = Files::open(Path::new("/dev/null"), &options).err().unwrap();
        assert!(matches!(null, OpenError::Kind { .. }));
        let path = directory.path().join("store");
        assert!(matches!(Files::open(&path, &options), Err(OpenError::File { .. })));

        create_file(&path, 100_000).unwrap();
        assert!(create_file(&path, 100_000).is_err(), "an existing file stays");
        let files = Files::open(&path, &options).unwrap();
        assert_eq!(files.size, 99_840, "whole sectors");
        let error = Files::open(&path, &options).err().unwrap();
        assert!(error.to_string().contains("in use by another process"), "{error}");
        let reader = OpenOptions { access: Access::ReadOnly, ..options };
        assert!(matches!(Files::open(&path, &reader), Err(OpenError::Busy { .. })));
        drop(files);
        let first = Files::open(&path, &reader).unwrap();
        let _second = Files::open(&path, &reader).unwrap();
        assert!(first.describe().contains("read-only"));
    }

    #[test]
    fn opening_drops_what_the_host_has_cached() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        let cached = || {
            let mut page = [0; 4096];
            let buffers = &mut [IoSliceMut::new(&mut page)];
            rustix::io::preadv2(file.as_file(), buffers, 512 << 10, ReadWriteFlags::NOWAIT)
        };
        if cached() == Err(Errno::OPNOTSUPP) {
            eprintln!(
                "skipped: the filesystem of the temporary directory does not say what is cached"
            );
            return;
        }
        assert_eq!(cached(), Ok(4096));
        let files = Files::open(file.path(), &OpenOptions::default()).unwrap();
        assert_eq!(cached(), Err(Errno::AGAIN));
        drop(files);
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 1 << 20]);
    }
}
