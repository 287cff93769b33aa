//! dfs in this process, on a store of its own: the ceiling of every way to it.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use daos_client::Guest;
use daos_server::{Engine, EngineConfig};
use dfs::{Caller, Dfs, Handle, Ino, MountOptions, RenameFlags, SetAttr};
use futures_lite::future::block_on;

use crate::calls::Calls;

const OWNER: Caller = Caller::new(0, 0);
const ENTRIES_MAX: usize = 256;

pub struct Inside {
    dfs: Arc<Dfs>,
    engine: Engine,
    folder: Ino,
}

/// As dfuse does it: what sleeps is run on the thread that has work for it.
fn wait<T>(call: impl Future<Output = dfs::Result<T>>) -> io::Result<T> {
    let mut call = pin!(call);
    let guest = Guest::enter();
    let polled = poll_fn(|context| {
        loop {
            match call.as_mut().poll(context) {
                Poll::Pending if guest.help() => {}
                polled => return polled,
            }
        }
    });
    block_on(polled).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

impl Inside {
    pub fn start(store: &Path) -> io::Result<Self> {
        let mut config = EngineConfig::new(store, "daos-bench");
        (config.create, config.size) = (true, Some(16 << 30));
        let engine = Engine::start(config).map_err(io::Error::other)?;
        let container = engine.container("default", "home", true).map_err(io::Error::other)?;
        let dfs = wait(Dfs::mount(container, MountOptions::default()))?;
        let folder = wait(dfs.mkdir(dfs.root(), b"bench", 0o755, OWNER))?.attr.ino;
        Ok(Self { dfs, engine, folder })
    }

    pub fn stop(self) -> io::Result<()> {
        wait(self.dfs.unmount())?;
        self.engine.stop().map_err(io::Error::other)
    }

    /// To be forgotten again.
    fn ino(&self, name: &str) -> io::Result<Ino> {
        Ok(wait(self.dfs.lookup(self.folder, name.as_bytes()))?.attr.ino)
    }
}

impl Calls for Inside {
    type Handle = (Ino, Handle);

    fn open(&self, name: &str, writes: bool, _: bool) -> io::Result<(Ino, Handle)> {
        let ino = self.ino(name)?;
        let flags = if writes { libc::O_WRONLY } else { libc::O_RDONLY };
        let opened = wait(self.dfs.open(ino, flags));
        self.dfs.forget(ino, 1);
        Ok((ino, opened?.handle))
    }

    fn read(&self, (ino, handle): &(Ino, Handle), buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let read = wait(self.dfs.read(*ino, *handle, at, buffer.len()))?;
        buffer[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    fn write(&self, (ino, handle): &(Ino, Handle), bytes: &[u8], at: u64) -> io::Result<()> {
        let data = Bytes::copy_from_slice(bytes);
        let written = wait(self.dfs.write(*ino, *handle, at, data, false, false))?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn sync(&self, (ino, _): &(Ino, Handle)) -> io::Result<()> {
        wait(self.dfs.fsync(*ino, true))
    }

    fn close(&self, (ino, handle): (Ino, Handle)) -> io::Result<()> {
        wait(self.dfs.release(ino, handle))
    }

    fn create(&self, name: &str) -> io::Result<(Ino, Handle)> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let call = self.dfs.create(self.folder, name.as_bytes(), 0o644, flags, OWNER);
        let (entry, opened) = wait(call)?;
        self.dfs.forget(entry.attr.ino, 1);
        Ok((entry.attr.ino, opened.handle))
    }

    fn stat(&self, name: &str) -> io::Result<()> {
        self.dfs.forget(self.ino(name)?, 1);
        Ok(())
    }

    fn readdir(&self) -> io::Result<u64> {
        let (mut after, mut entries) = (2, 0);
        loop {
            let some = wait(self.dfs.readdir(self.folder, after, ENTRIES_MAX))?;
            let Some(last) = some.last() else { return Ok(entries) };
            (after, entries) = (last.cookie, entries + some.len() as u64);
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let flags = RenameFlags::from_bits(0).expect("no flag is a set of flags");
        wait(self.dfs.rename(self.folder, from, self.folder, to, flags)).map(drop)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        wait(self.dfs.unlink(self.folder, name.as_bytes())).map(|_gone| ())
    }

    fn mkdir(&self, name: &str) -> io::Result<()> {
        let made = wait(self.dfs.mkdir(self.folder, name.as_bytes(), 0o755, OWNER))?;
        self.dfs.forget(made.attr.ino, 1);
        Ok(())
    }

    fn rmdir(&self, name: &str) -> io::Result<()> {
        wait(self.dfs.rmdir(self.folder, name.as_bytes())).map(|_gone| ())
    }

    fn chmod(&self, name: &str, mode: u32) -> io::Result<()> {
        let ino = self.ino(name)?;
        let mode = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let done = wait(self.dfs.setattr(ino, mode)).map(drop);
        self.dfs.forget(ino, 1);
        done
    }
}
