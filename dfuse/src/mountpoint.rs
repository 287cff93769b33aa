//! Is this a place to mount on, and what is mounted there already?
//!
//! # Not here
//! Mounting itself: `fuse/`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type under which our mounts are listed.
pub const FSTYPE: &str = "fuse.dfuse";

/// A mount, as /proc/self/mountinfo tells of it (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `st_dev`, major and minor.
    pub device: (u32, u32),
    pub mountpoint: PathBuf,
    pub fstype: String,
    pub source: PathBuf,
}

/// What can be done about a mountpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Free,
    /// A daemon of ours died and left this behind: nothing can be lost by clearing it.
    DeadAndOurs(MountInfo),
    Refused(String),
}

/// Judges `path`, which is absolute.
pub fn judge(path: &Path) -> Verdict {
    let shown = path.display();
    let mounted = mount_at(path);
    let refused = |why: String| Verdict::Refused(why);
    match std::fs::metadata(path) {
        Err(e) if is_dead(&e) => match mounted {
            Some(info) if info.fstype == FSTYPE => Verdict::DeadAndOurs(info),
            _ => refused(format!(
                "{shown} is a dead mount (its daemon is gone: 'Transport endpoint is not connected'); \
                 clear it with: fusermount3 -uz {shown}"
            )),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => refused(format!(
            "the mountpoint {shown} does not exist; make it with: mkdir -p {shown}"
        )),
        Err(e) => refused(format!("the mountpoint {shown} cannot be used: {e}")),
        Ok(metadata) if !metadata.is_dir() => {
            refused(format!("the mountpoint {shown} is not a directory"))
        }
        Ok(_) => match mounted {
            Some(info) if info.fstype.starts_with("fuse") => refused(already_mounted(&info)),
            _ => Verdict::Free,
        },
    }
}

fn already_mounted(info: &MountInfo) -> String {
    let (at, source) = (info.mountpoint.display(), info.source.display());
    if info.fstype == FSTYPE {
        format!(
            "{at} is mounted already, by dfuse with the store {source}; unmount it with: fusermount3 -u {at}"
        )
    } else {
        format!(
            "{at} is mounted already, with {source} of type {}; unmount it with: umount {at}",
            info.fstype
        )
    }
}

fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// The topmost mount whose mountpoint is `path`.
pub fn mount_at(path: &Path) -> Option<MountInfo> {
    let real = resolve(path);
    mounts().into_iter().rev().find(|m| m.mountpoint == real)
}

/// `path` without symbolic links, also when it is itself a dead mount.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent().and_then(|p| p.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_path_buf(),
    }
}

fn mounts() -> Vec<MountInfo> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// `36 35 98:0 /root /mountpoint options... - type source superoptions`
fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    fields.find(|f| *f == b"-")?;
    let fstype = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescape(fields.next()?);
    Some(MountInfo {
        device: (major.parse().ok()?, minor.parse().ok()?),
        mountpoint: PathBuf::from(mountpoint),
        fstype,
        source: PathBuf::from(source),
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

/// Lets the kernel read ahead as much as one request carries: the protocol only lets a server lower the default of 128 KiB.
pub fn raise_read_ahead(mountpoint: &Path, kib: u32) -> io::Result<()> {
    let info = mount_at(mountpoint).ok_or_else(|| io::Error::other("the mount is not listed"))?;
    let (major, minor) = info.device;
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
}

/// `path` with nothing that would break a message over two lines.
pub fn source_name(store: &Path) -> String {
    String::from_utf8_lossy(store.as_os_str().as_bytes()).replace(['\n', ','], "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line = br"100 29 0:50 / /mnt/with\040space rw,nosuid shared:1 master:2 - fuse.dfuse /srv/a\134b rw,user_id=0";
        let info = parse(line).unwrap();
        assert_eq!(info.device, (0, 50));
        assert_eq!(info.mountpoint, Path::new("/mnt/with space"));
        assert_eq!((info.fstype.as_str(), info.source.as_path()), (FSTYPE, Path::new(r"/srv/a\b")));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3"), None);
    }

    #[test]
    fn the_root_is_listed() {
        assert!(mount_at(Path::new("/")).is_some());
    }

    #[test]
    fn what_is_no_directory_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = |path: &Path| match judge(path) {
            Verdict::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(refusal(&file).contains("is not a directory"));
        assert!(refusal(&dir.path().join("none")).contains("mkdir -p"));
        assert_eq!(judge(dir.path()), Verdict::Free);
    }
}
