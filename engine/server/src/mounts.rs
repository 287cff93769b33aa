//! Where stores are mounted on this machine, for the daemon that looks at its mountpoint and the command that is given one.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type under which dfuse's mounts are listed.
pub const FSTYPE: &str = "fuse.dfuse";

/// A mount, as /proc/self/mountinfo tells of it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `st_dev`, major and minor.
    pub device: (u32, u32),
    pub mountpoint: PathBuf,
    pub fstype: String,
    /// Of dfuse: the store.
    pub source: PathBuf,
    pub read_only: bool,
}

impl Mount {
    #[must_use]
    pub fn is_dfuse(&self) -> bool {
        self.fstype == FSTYPE
    }
}

/// Every mount, in the order of mounting.
#[must_use]
pub fn all() -> Vec<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// The topmost mount whose mountpoint is `path`.
#[must_use]
pub fn at(path: &Path) -> Option<Mount> {
    let real = resolve(path);
    all().into_iter().rev().find(|m| m.mountpoint == real)
}

/// The mount that `path` lies in.
#[must_use]
pub fn containing(path: &Path) -> Option<Mount> {
    topmost(&resolve(path))
}

/// The mount that `path` lies in if no part of it is a symbolic link; asks no filesystem.
#[must_use]
pub fn containing_as_written(path: &Path) -> Option<Mount> {
    topmost(&std::path::absolute(path).ok()?)
}

fn topmost(real: &Path) -> Option<Mount> {
    let containing = all().into_iter().rev().filter(|m| real.starts_with(&m.mountpoint));
    // Of those of one length the last listed is on top, and comes first here.
    containing.reduce(|best, m| {
        let longer = m.mountpoint.as_os_str().len() > best.mountpoint.as_os_str().len();
        if longer { m } else { best }
    })
}

/// `path` without symbolic links, also when it is a mount whose daemon has died.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match (path.parent().and_then(|p| p.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path,
    }
}

/// `36 35 98:0 /root /mountpoint options... - type source superoptions`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    let read_only = fields.next()?.split(|b| *b == b',').any(|option| option == b"ro");
    fields.find(|f| *f == b"-")?;
    let fstype = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescape(fields.next()?);
    // dfuse spells what a list of mount options cannot carry in the same way.
    let source = if fstype == FSTYPE { unescape(source.as_bytes()) } else { source };
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        mountpoint: PathBuf::from(mountpoint),
        fstype,
        source: PathBuf::from(source),
        read_only,
    })
}

/// Space, tab, newline and backslash are written as `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_mountinfo_is_understood() {
        let line = br"100 29 0:50 / /mnt/with\040space rw,nosuid shared:1 master:2 - fuse.dfuse /srv/a\134b rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, (0, 50));
        assert_eq!(mount.mountpoint, Path::new("/mnt/with space"));
        assert_eq!(mount.source, Path::new(r"/srv/a\b"));
        assert!(mount.is_dfuse() && !mount.read_only);
        let line = br"101 29 0:51 / /mnt/old ro,relatime - fuse.dfuse /srv/store ro,user_id=0";
        assert!(parse(line).unwrap().read_only);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3"), None);
    }

    #[test]
    fn path_lies_in_the_deepest_mount_above_it() {
        assert_eq!(at(Path::new("/")).unwrap().mountpoint, Path::new("/"));
        assert_eq!(containing(Path::new("/proc/self/status")).unwrap().fstype, "proc");
        assert_eq!(at(Path::new("/proc/self/status")), None);
    }
}
