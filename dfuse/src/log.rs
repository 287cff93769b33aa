//! Where the daemon's words go: the terminal in the foreground; in the background a file, once the store is known to be
//! ours (a log in a directory that turns out to be somebody's photos would be a nuisance).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Kept while there is no file yet.
const HELD_BYTES_MAX: usize = 64 << 10;

/// A log that starts in memory and moves to a file.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Sink>>);

enum Sink {
    Terminal,
    Held(Vec<u8>),
    File(File),
}

impl Log {
    /// Installs the log for the process. `DFUSE_LOG` (as `RUST_LOG`) says how much, `info` if nothing does.
    #[must_use]
    pub fn install(foreground: bool) -> Self {
        let sink = if foreground { Sink::Terminal } else { Sink::Held(Vec::new()) };
        let log = Self(Arc::new(Mutex::new(sink)));
        let filter = EnvFilter::try_from_env("DFUSE_LOG").unwrap_or_else(|_| "info".into());
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        // Fails when a test of the same process has installed one.
        let _ = tracing::subscriber::set_global_default(subscriber);
        std::panic::set_hook(Box::new(|info| tracing::error!("panic: {info}")));
        log
    }

    /// From now on into `path`, with what was held back; nothing changes in the foreground.
    pub fn move_to(&self, path: &Path) -> io::Result<()> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::Held(held) = &*sink {
            let mut file = File::options().create(true).append(true).open(path)?;
            file.write_all(held)?;
            *sink = Sink::File(file);
        }
        Ok(())
    }
}

/// `dfuse.log` in a store's directory; for a device a file of its name where logs go.
#[must_use]
pub fn path_for(store: &Path) -> PathBuf {
    let flags = rustix::fs::statvfs(store).map(|found| found.f_flag);
    let read_only = flags.is_ok_and(|f| f.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if store.is_dir() && !read_only {
        return store.join("dfuse.log");
    }
    let name = store.to_string_lossy().trim_start_matches('/').replace('/', "-");
    let dir = Path::new("/var/log");
    let root = rustix::process::geteuid().is_root();
    let dir = if root && dir.is_dir() { dir.to_path_buf() } else { std::env::temp_dir() };
    dir.join(format!("dfuse-{name}.log"))
}

impl Write for &Log {
    /// Never an error: what cannot be written (the disk of the log is full, the terminal is gone) is lost, and the daemon goes on.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Terminal => drop(io::stderr().write_all(bytes)),
            Sink::File(file) => drop(file.write_all(bytes)),
            Sink::Held(held) => {
                if held.len() + bytes.len() <= HELD_BYTES_MAX {
                    held.extend_from_slice(bytes);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Log;

    fn make_writer(&'a self) -> &'a Log {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_the_file_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log(Arc::new(Mutex::new(Sink::Held(Vec::new()))));
        (&log).write_all(b"early\n").unwrap();
        log.move_to(&path).unwrap();
        (&log).write_all(b"late\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "early\nlate\n");
    }

    #[test]
    fn a_full_disk_loses_words_and_no_more() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let log = Log(Arc::new(Mutex::new(Sink::File(full))));
        assert_eq!((&log).write(b"lost").unwrap(), 4);
    }

    #[test]
    fn a_store_in_a_directory_keeps_its_log_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(path_for(dir.path()), dir.path().join("dfuse.log"));
        assert!(path_for(Path::new("/dev/none")).ends_with("dfuse-dev-none.log"));
    }
}
