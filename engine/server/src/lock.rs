//! One engine per store: an advisory lock that dies with the process, and the name of who holds it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::place::Place;

/// Held until dropped. Whoever does not know this lock (mount, mkfs) is kept off a block device by media, which opens it
/// with `O_EXCL`.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Locks the store, or says who has it.
    pub(crate) fn take(place: &Place, holder: &str) -> Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = match file.open(&place.lock) {
            // A store on a read-only filesystem: nobody can change it, so a lock that is not there is not needed.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                let lock = File::open(&place.lock).or_else(|_| File::open(&place.path));
                let lock = lock.map_err(Error::io("opening", &place.lock))?;
                return match flock(&lock, FlockOperation::NonBlockingLockShared) {
                    Ok(()) => Ok(Self(lock)),
                    Err(error) => Err(Error::io("locking", &place.lock)(error.into())),
                };
            }
            opened => opened.map_err(Error::io("opening", &place.lock))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(place, &mut file)),
            Err(error) => return Err(Error::io("locking", &place.lock)(error.into())),
        }
        write_holder(&mut file, holder).map_err(Error::io("writing", &place.lock))?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has forked and that has not come to its exec yet has the file
        // open too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn write_holder(file: &mut File, holder: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{}\n{}\n", std::process::id(), holder.replace('\n', " ")).as_bytes())
}

fn held(place: &Place, file: &mut File) -> Error {
    // The holder may have locked the file and not yet written its name.
    for _ in 0..20 {
        if let Some((pid, holder)) = read_holder(file) {
            return Error::Held { path: place.path.clone(), pid, holder };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Error::Held { path: place.path.clone(), pid: 0, holder: "it has not said its name".into() }
}

fn read_holder(file: &mut File) -> Option<(u32, String)> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    let (pid, holder) = text.strip_suffix('\n')?.split_once('\n')?;
    Some((pid.parse().ok()?, holder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_one_is_told_the_pid_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::find(root.path(), true).unwrap();
        let lock = Lock::take(&place, "dfuse on /mnt").unwrap();
        let error = Lock::take(&place, "other").unwrap_err();
        assert!(matches!(&error, Error::Held { pid, .. } if *pid == std::process::id()));
        assert!(error.to_string().contains("dfuse on /mnt"), "{error}");
        drop(lock);
        Lock::take(&place, "other").unwrap();
    }
}
