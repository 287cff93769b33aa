//! Does the transport carry what the kernel says? Requests with no name of their own in libc, and what outlives a mount.
#![allow(unsafe_code)] // name_to_handle_at(2)

mod support;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use support::TestMount;

const DEFAULT_ACL: &str = "system.posix_acl_default";

fn tmpfile(dir: &Path, flags: OFlags) -> OwnedFd {
    let flags = OFlags::TMPFILE | OFlags::RDWR | flags;
    rustix::fs::open(dir, flags, Mode::from_raw_mode(0o640)).unwrap()
}

fn link(file: &OwnedFd, to: &Path) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path, CWD, to, AtFlags::SYMLINK_FOLLOW)
}

#[test]
fn a_file_without_a_name_can_be_given_one() {
    require_fuse!();
    let mount = TestMount::of_model();
    let file = tmpfile(&mount.path(), OFlags::empty());
    assert_eq!(rustix::io::write(&file, b"nameless").unwrap(), 8);
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    link(&file, &mount.join("named")).unwrap();
    assert_eq!(fs::read(mount.join("named")).unwrap(), b"nameless");
    let metadata = fs::metadata(mount.join("named")).unwrap();
    assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (1, 0o640));
    let file = tmpfile(&mount.path(), OFlags::EXCL);
    assert_eq!(link(&file, &mount.join("never")).unwrap_err(), Errno::NOENT);
    assert!(!mount.join("never").exists());
}

#[test]
fn statx_tells_when_a_file_was_born() {
    require_fuse!();
    let mount = TestMount::of_model();
    let before = SystemTime::now() - Duration::from_secs(1);
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    let born = fs::metadata(&path).unwrap().created().unwrap();
    assert!(born >= before && born <= SystemTime::now() + Duration::from_secs(1), "{born:?}");
    fs::write(&path, "later").unwrap();
    let times = |flags| {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(CWD, &path, flags, mask).unwrap();
        assert!(StatxFlags::from_bits_retain(stat.stx_mask).contains(mask));
        assert_eq!(stat.stx_size, 5);
        (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec, stat.stx_mtime.tv_sec)
    };
    assert_eq!(times(AtFlags::STATX_FORCE_SYNC), times(AtFlags::STATX_DONT_SYNC));
    assert_eq!(fs::metadata(&path).unwrap().created().unwrap(), born);
    rustix::fs::mknodat(
        CWD,
        mount.join("null"),
        rustix::fs::FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        rustix::fs::makedev(300, 70_000),
    )
    .unwrap();
    assert_eq!(fs::metadata(mount.join("null")).unwrap().rdev(), rustix::fs::makedev(300, 70_000));
}

/// `u::rwx,u:7:rwx,g::r-x,m::rwx,o::---` as the xattr holds it (version 2; tag, permissions, id).
fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, permissions, id) in
        [(1u16, 7u16, nobody), (2, 7, 7), (4, 5, nobody), (0x10, 7, nobody), (0x20, 0, nobody)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn the_umask_counts_unless_a_default_acl_decides() {
    require_fuse!();
    let mount = TestMount::of_model();
    for dir in ["plain", "acl"] {
        fs::create_dir(mount.join(dir)).unwrap();
    }
    rustix::fs::setxattr(mount.join("acl"), DEFAULT_ACL, &acl(), XattrFlags::empty()).unwrap();
    // The umask is the process's: a child has its own.
    let script = "umask 077 && cd \"$0\" && : >plain/f && mkdir plain/d && mkfifo plain/p && \
                  : >acl/f && mkdir acl/d && mkfifo acl/p";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(mount.path()).status();
    assert!(status.unwrap().success());
    let mode = |name: &str| fs::symlink_metadata(mount.join(name)).unwrap().mode() & 0o777;
    assert_eq!([mode("plain/f"), mode("plain/d"), mode("plain/p")], [0o600, 0o700, 0o600]);
    // Its entries and the mode asked for, with no umask in between.
    assert_eq!([mode("acl/f"), mode("acl/d"), mode("acl/p")], [0o660, 0o770, 0o660]);
    let mut room = vec![0; 100];
    let inherited = rustix::fs::getxattr(mount.join("acl/d"), DEFAULT_ACL, &mut room[..]).unwrap();
    assert_eq!(room[..inherited], acl()[..]);
}

#[test]
fn a_remount_changes_what_is_allowed() {
    require_fuse!();
    let mount = TestMount::of_model();
    fs::write(mount.join("f"), "kept").unwrap();
    dfuse::fuse::remount(&mount.path(), &support::FLAGS, true).unwrap();
    assert_eq!(fs::write(mount.join("f"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"kept");
    dfuse::fuse::remount(&mount.path(), &support::FLAGS, false).unwrap();
    fs::write(mount.join("f"), "changed").unwrap();
}

/// `struct file_handle` with room for any handle.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn handle_of(path: &Path) -> FileHandle {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount = 0;
    let to = (&raw mut handle).cast();
    // SAFETY: the path ends with NUL, `to` has the room that its first field says, `mount` is an int.
    let done =
        unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), to, &raw mut mount, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    handle
}

fn open_by_handle(mount: &Path, handle: &mut FileHandle) -> std::io::Result<File> {
    let mount = File::open(mount)?;
    let handle = (&raw mut *handle).cast();
    // SAFETY: a handle that name_to_handle_at made, in the same place.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), handle, libc::O_RDONLY) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given to us.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[test]
fn handles_lead_to_files_after_a_remount() {
    require_fuse!();
    let container = support::model_container();
    let mount = TestMount::with(support::dfs_of(&container), |_| {});
    fs::create_dir_all(mount.join("a/b")).unwrap();
    fs::write(mount.join("a/b/f"), "by handle").unwrap();
    fs::write(mount.join("gone"), "").unwrap();
    let mut file = handle_of(&mount.join("a/b/f"));
    let mut directory = handle_of(&mount.join("a/b"));
    let mut root = handle_of(&mount.path());
    let mut gone = handle_of(&mount.join("gone"));
    fs::rename(mount.join("a"), mount.join("moved")).unwrap();
    fs::remove_file(mount.join("gone")).unwrap();
    drop(mount);
    let mount = TestMount::with(support::dfs_of(&container), |_| {});
    let mut text = String::new();
    open_by_handle(&mount.path(), &mut file).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "by handle");
    let directory = open_by_handle(&mount.path(), &mut directory).unwrap();
    // Its way up is found again too.
    let shown = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap();
    assert_eq!(shown, mount.path().canonicalize().unwrap().join("moved/b"));
    assert_eq!(open_by_handle(&mount.path(), &mut root).unwrap().metadata().unwrap().ino(), 1);
    let lost = open_by_handle(&mount.path(), &mut gone).unwrap_err();
    assert_eq!(lost.raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn a_listing_of_a_changing_directory_has_every_name_that_stays_once() {
    require_fuse!();
    let mount = TestMount::of_model();
    let dir = mount.join("dir");
    fs::create_dir(&dir).unwrap();
    for i in 0..5000 {
        File::create(dir.join(format!("stays{i}"))).unwrap();
    }
    for pass in 0..3 {
        let mut seen = BTreeSet::new();
        for (n, entry) in fs::read_dir(&dir).unwrap().enumerate() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("stays") {
                assert!(seen.insert(name.clone()), "{name} came twice");
            }
            if n % 50 == 0 {
                File::create(dir.join(format!("new{pass}.{n}"))).unwrap();
                let _ = fs::remove_file(dir.join(format!("new{pass}.{}", n.saturating_sub(100))));
            }
        }
        assert_eq!(seen.len(), 5000);
    }
}

#[test]
fn a_write_asks_for_no_capability() {
    require_fuse!();
    let (mount, requests) = TestMount::counted();
    let path = mount.join("f");
    fs::write(&path, "").unwrap();
    for i in 0..100u8 {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[i], u64::from(i)).unwrap();
    }
    let count = |kind: &str| {
        let counts = requests.counts();
        counts.iter().find(|(name, _)| *name == kind).map_or(0, |(_, count)| *count)
    };
    assert_eq!(count("WRITE"), 100);
    assert!(count("GETXATTR") <= 1, "{:?}", requests.counts());
    assert_eq!(count("FLUSH"), 1, "asked for once");
    assert!(count("OPENDIR") <= 1);
}

#[test]
fn the_kernel_reads_ahead_as_far_as_one_request_carries() {
    require_fuse!();
    let mount = TestMount::of_model();
    let device = rustix::fs::stat(mount.path()).unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let kib = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
    assert_eq!(kib.trim(), "1024");
}
