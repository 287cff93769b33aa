//! A mount: from the mountpoint to the kernel's last request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{MountOption, Session, SessionACL};

use super::adapter::Adapter;
use super::requests::Requests;
use crate::exec::Executor;
use crate::mountpoint;
use crate::ops::Filesystem;
use crate::options::MountFlags;

/// Largest request: what one READ or WRITE carries.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// How far the kernel reads ahead of a sequential reader.
const READ_AHEAD_KIB: u32 = 2048;

#[derive(Clone, Debug)]
pub struct FuseConfig {
    pub mountpoint: PathBuf,
    /// Shown as the source of the mount.
    pub source: String,
    pub threads: usize,
    pub requests_max: usize,
    pub read_only: bool,
    pub flags: MountFlags,
    /// Off: the kernel may keep nothing, whatever the filesystem says.
    pub caching: bool,
}

/// A mounted filesystem whose requests nobody answers until [`Mounted::run`].
pub struct Mounted<F: Filesystem> {
    session: Session<Adapter<F>>,
    executor: Executor,
    requests: Arc<Requests>,
    mountpoint: PathBuf,
}

impl<F: Filesystem> Mounted<F> {
    pub fn new(fs: Arc<F>, config: &FuseConfig) -> io::Result<Self> {
        let executor = Executor::new(config.requests_max);
        let requests = Arc::<Requests>::default();
        let adapter = Adapter::new(fs, executor.clone(), requests.clone(), config.caching);
        let session = Session::new(adapter, &config.mountpoint, &fuser_config(config))?;
        if let Err(e) = mountpoint::raise_read_ahead(&config.mountpoint, READ_AHEAD_KIB) {
            tracing::debug!("reading ahead stays at the kernel's default: {e}");
        }
        Ok(Self { session, executor, requests, mountpoint: config.mountpoint.clone() })
    }

    pub fn executor(&self) -> Executor {
        self.executor.clone()
    }

    /// What the kernel has asked for so far.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// Unmounts from another thread; [`Mounted::run`] then returns.
    pub fn unmounter(&mut self) -> Unmounter {
        Unmounter { session: self.session.unmount_callable(), mountpoint: self.mountpoint.clone() }
    }

    /// Answers requests until the filesystem is unmounted.
    pub fn run(self) -> io::Result<()> {
        self.session.run()
    }
}

fn fuser_config(config: &FuseConfig) -> fuser::Config {
    let flags = &config.flags;
    let choose = |on: bool, yes: MountOption, no: MountOption| if on { yes } else { no };
    let mut options = vec![
        MountOption::FSName(config.source.clone()),
        choose(flags.suid, MountOption::Suid, MountOption::NoSuid),
        choose(flags.dev, MountOption::Dev, MountOption::NoDev),
        choose(flags.exec, MountOption::Exec, MountOption::NoExec),
        choose(config.read_only, MountOption::RO, MountOption::RW),
    ];
    options.push(if rustix::process::geteuid().is_root() {
        // mount(2) takes the subtype as an option; fuser passes its own to fusermount only.
        MountOption::CUSTOM("subtype=dfuse".into())
    } else {
        MountOption::Subtype("dfuse".into())
    });
    if flags.noatime {
        options.push(MountOption::NoAtime);
    }
    if flags.dirsync {
        options.push(MountOption::DirSync);
    }
    if flags.default_permissions {
        options.push(MountOption::DefaultPermissions);
    }
    let mut fuser = fuser::Config::default();
    fuser.mount_options = options;
    fuser.acl = if flags.allow_other { SessionACL::All } else { SessionACL::Owner };
    fuser.n_threads = Some(config.threads);
    fuser.clone_fd = true;
    fuser
}

/// Takes the mount away.
pub struct Unmounter {
    session: fuser::SessionUnmounter,
    mountpoint: PathBuf,
}

/// How a mount went.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmounted {
    Cleanly,
    /// Programs had files open: the mount is out of sight, and their next call fails.
    Detached,
}

impl Unmounter {
    pub fn unmount(&mut self) -> io::Result<Unmounted> {
        match self.session.unmount() {
            Ok(()) => return Ok(Unmounted::Cleanly),
            Err(e) => tracing::info!("the mount is in use ({e}): it is detached"),
        }
        detach(&self.mountpoint)?;
        Ok(Unmounted::Detached)
    }
}

/// Takes a mount out of sight whether it is in use or not; for users by fusermount3.
pub fn detach(mountpoint: &Path) -> io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    match unmount(mountpoint, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => {
            let status =
                std::process::Command::new("fusermount3").arg("-uz").arg(mountpoint).status()?;
            if status.success() { Ok(()) } else { Err(io::Error::other("fusermount3 -uz failed")) }
        }
        Err(e) => Err(e.into()),
    }
}
