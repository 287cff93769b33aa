//! The mount itself: made by mount(2) where that is allowed, by fusermount3 otherwise; taken away, detached, remounted.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use daos_server::mounts;
use rustix::io::Errno;
use rustix::mount::{MountFlags as Flags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use super::channel::Device;
use super::session::FuseConfig;
use crate::options::MountFlags;

const SUBTYPE: &str = "dfuse";
const FUSERMOUNT: &str = "fusermount3";

/// A mount that goes when this is dropped, unless it is gone already.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    device: Arc<Device>,
    /// `st_dev` of what is in it.
    number: Option<(u32, u32)>,
}

impl Mount {
    pub fn new(config: &FuseConfig) -> io::Result<Self> {
        let mountpoint = config.mountpoint.canonicalize()?;
        let device = match mount_directly(config, &mountpoint) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                mount_by_fusermount(config, &mountpoint)?
            }
            mounted => mounted?,
        };
        let listed = mounts::all().into_iter().rev().find(|m| m.mountpoint == mountpoint);
        Ok(Self { mountpoint, device: Arc::new(device), number: listed.map(|m| m.device) })
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub fn number(&self) -> Option<(u32, u32)> {
        self.number
    }

    /// Fails when programs are in it.
    pub fn unmount(&self) -> io::Result<()> {
        if !self.device.is_connected() {
            return Ok(());
        }
        match rustix::mount::unmount(&self.mountpoint, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => fusermount(&["-u", "-q"], &self.mountpoint),
            Err(e) => Err(e.into()),
        }
    }

    pub fn detach(&self) -> io::Result<()> {
        detach(&self.mountpoint)
    }

    /// Lets the kernel read ahead as much as one request carries: the protocol only lets a server lower the default of 128 KiB.
    pub fn raise_read_ahead(&self, kib: u32) -> io::Result<()> {
        let (major, minor) =
            self.number.ok_or_else(|| io::Error::other("the mount is not listed"))?;
        std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
    }

    /// What is at the mountpoint is this mount, whether its connection is alive or not.
    fn is_there(&self) -> bool {
        self.device.is_connected()
            || mounts::all()
                .iter()
                .any(|m| m.mountpoint == self.mountpoint && Some(m.device) == self.number)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_there()
            && self.unmount().is_err()
            && let Err(e) = self.detach()
        {
            tracing::error!("{} stays mounted: {e}", self.mountpoint.display());
        }
    }
}

/// Takes a mount out of sight whether it is in use or not; for users by fusermount3.
pub fn detach(mountpoint: &Path) -> io::Result<()> {
    match rustix::mount::unmount(mountpoint, UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount(&["-u", "-z", "-q"], mountpoint),
        Err(e) => Err(e.into()),
    }
}

/// Changes the flags of a mount that is there.
pub fn remount(mountpoint: &Path, flags: &MountFlags, read_only: bool) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(mountpoint, kernel_flags(flags, read_only), c"")?)
}

fn kernel_flags(flags: &MountFlags, read_only: bool) -> Flags {
    let mut kernel = Flags::empty();
    kernel.set(Flags::RDONLY, read_only);
    kernel.set(Flags::NOSUID, !flags.suid);
    kernel.set(Flags::NODEV, !flags.dev);
    kernel.set(Flags::NOEXEC, !flags.exec);
    kernel.set(Flags::NOATIME, flags.noatime);
    kernel.set(Flags::DIRSYNC, flags.dirsync);
    kernel
}

/// What the kernel takes as options of its own, wherever they come from.
fn access_options(flags: &MountFlags) -> String {
    let mut options = String::new();
    for (on, option) in
        [(flags.allow_other, ",allow_other"), (flags.default_permissions, ",default_permissions")]
    {
        if on {
            options.push_str(option);
        }
    }
    options
}

fn mount_directly(config: &FuseConfig, mountpoint: &Path) -> io::Result<Device> {
    let device = Device::open()?;
    let (fd, access) = (device.as_fd().as_raw_fd(), access_options(&config.flags));
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let options = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}{access}");
    let options = CString::new(options).expect("there is no NUL in it");
    let flags = kernel_flags(&config.flags, config.read_only);
    let fstype = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(&*config.source, mountpoint, &*fstype, flags, &*options)?;
    Ok(device)
}

fn mount_by_fusermount(config: &FuseConfig, mountpoint: &Path) -> io::Result<Device> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // It sends the device over the descriptor that this variable names: its standard input.
    let child = Command::new(FUSERMOUNT)
        .args(["-o", &fusermount_options(config), "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("{FUSERMOUNT}: {e}")))?;
    let received = receive_device(&ours);
    let output = child.wait_with_output()?;
    match received {
        Ok(fd) if output.status.success() => Ok(Device::from(fd)),
        Ok(_) | Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{FUSERMOUNT} failed: {}", said.trim())))
        }
    }
}

fn fusermount_options(config: &FuseConfig) -> String {
    let flags = &config.flags;
    let source = config.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("fsname={source},subtype={SUBTYPE}");
    for (on, yes, no) in [
        (config.read_only, ",ro", ",rw"),
        (flags.suid, ",suid", ",nosuid"),
        (flags.dev, ",dev", ",nodev"),
        (flags.exec, ",exec", ",noexec"),
        (flags.noatime, ",noatime", ""),
        (flags.dirsync, ",dirsync", ""),
    ] {
        options.push_str(if on { yes } else { no });
    }
    options + &access_options(flags)
}

fn receive_device(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    loop {
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::other("no device came"))
}

fn fusermount(arguments: &[&str], mountpoint: &Path) -> io::Result<()> {
    let output = Command::new(FUSERMOUNT).args(arguments).arg("--").arg(mountpoint).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{FUSERMOUNT} {} failed: {}", arguments[0], said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: MountFlags = MountFlags {
        suid: false,
        dev: false,
        exec: true,
        noatime: true,
        dirsync: false,
        allow_other: true,
        default_permissions: true,
    };

    #[test]
    fn flags_are_the_kernels() {
        let expected = Flags::RDONLY | Flags::NOSUID | Flags::NODEV | Flags::NOATIME;
        assert_eq!(kernel_flags(&FLAGS, true), expected);
    }

    #[test]
    fn a_source_with_commas_and_backslashes_stays_one_option_of_fusermount() {
        let config = FuseConfig {
            mountpoint: "/m".into(),
            source: "a,b\\c".into(),
            threads: 1,
            requests_max: 1,
            read_only: false,
            flags: FLAGS,
            caching: true,
            door: false,
        };
        assert_eq!(
            fusermount_options(&config),
            "fsname=a\\,b\\\\c,subtype=dfuse,rw,nosuid,nodev,exec,noatime,allow_other,default_permissions"
        );
    }
}
