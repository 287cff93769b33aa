//! Do programs see a filesystem? The calls of POSIX through the kernel, over dfs on a model target.
#![allow(unsafe_code)] // mmap(2)

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use support::TestMount;

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn errno(result: std::io::Result<impl Sized>) -> i32 {
    result.err().expect("the call must fail").raw_os_error().expect("an errno")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read_back() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("file");
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &data).unwrap();
    assert!(fs::read(&path).unwrap() == data);
    let file = read_write(&path);
    file.write_all_at(b"patch", 1_234_567).unwrap();
    let mut window = [0; 9];
    file.read_exact_at(&mut window, 1_234_565).unwrap();
    assert_eq!(&window[2..7], b"patch");
    assert_eq!(fs::metadata(&path).unwrap().len(), 3_000_000);
    // Not from the page cache.
    let mut direct = Vec::new();
    let options = rustix::fs::OFlags::DIRECT;
    let mut file =
        OpenOptions::new().read(true).custom_flags(options.bits() as i32).open(&path).unwrap();
    file.read_to_end(&mut direct).unwrap();
    assert_eq!(&direct[1_234_567..1_234_572], b"patch");
    assert_eq!(direct.len(), 3_000_000);
}

#[test]
fn appends_of_many_writers_lose_nothing() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("log");
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                for n in 0..50 {
                    file.write_all(format!("{i} {n:04}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 200);
    assert!(lines.iter().all(|l| l.len() == 6));
}

#[test]
fn truncation_and_holes_read_as_zeros() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("sparse");
    let mut file = read_write(&path);
    file.set_len(10 << 20).unwrap();
    file.write_all_at(b"x", 5 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10 << 20);
    assert!(file.metadata().unwrap().blocks() < 1000, "a hole takes no space");
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data <= 5 << 20 && data >= (5 << 20) - (1 << 20), "data at {data}");
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5 << 20)).unwrap();
    assert!(hole > 5 << 20 && hole <= 6 << 20, "hole at {hole}");
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(6 << 20)).unwrap_err(),
        rustix::io::Errno::NXIO
    );
    file.set_len(3).unwrap();
    file.set_len(100).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![0; 100]);
    let reopened = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(reopened.metadata().unwrap().len(), 0);
}

#[test]
fn fallocate_reserves_and_punches() {
    require_fuse!();
    let mount = TestMount::of_model();
    let file = read_write(&mount.join("f"));
    file.write_all_at(&[7; 8192], 0).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 4096, 4096).unwrap();
    let mut data = [1; 8192];
    file.read_exact_at(&mut data, 0).unwrap();
    assert!(data[..4096].iter().all(|b| *b == 7) && data[4096..].iter().all(|b| *b == 0));
}

#[test]
fn directories_list_what_they_hold() {
    require_fuse!();
    let mount = TestMount::of_model();
    let dir = mount.join("dir");
    fs::create_dir(&dir).unwrap();
    let wanted: Vec<String> = (0..500).map(|i| format!("name-{i:04}")).collect();
    for name in &wanted {
        fs::write(dir.join(name), name).unwrap();
    }
    assert_eq!(names(&dir), wanted);
    assert_eq!(names(&dir), wanted, "also when the kernel has it cached");
    for name in wanted.iter().step_by(2) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert_eq!(names(&dir).len(), 250);
    assert_eq!(fs::remove_dir(&dir).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    let output = Command::new("ls").arg("-lia").arg(&dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 253, "{text}");
    assert!(text.contains(" .\n") && text.contains(" ..\n"));
    fs::remove_dir_all(&dir).unwrap();
    assert!(names(&mount.path()).is_empty());
}

#[test]
fn a_missing_name_appears_once_it_is_made() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("late");
    for _ in 0..2 {
        assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    }
    fs::write(&path, "here").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "here");
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(errno(fs::read_dir(mount.join("late"))), libc::ENOENT);
    fs::write(&path, "").unwrap();
    assert_eq!(errno(fs::metadata(path.join("below"))), libc::ENOTDIR);
}

#[test]
fn rename_replaces_refuses_and_exchanges() {
    require_fuse!();
    let mount = TestMount::of_model();
    let (a, b) = (mount.join("a"), mount.join("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let refused = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::EXIST);
    rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()),
        ("b".into(), "a".into())
    );
    let inode = fs::metadata(&a).unwrap().ino();
    fs::rename(&a, &b).unwrap();
    assert_eq!(names(&mount.path()), ["b"]);
    assert_eq!(fs::metadata(&b).unwrap().ino(), inode);
    fs::create_dir(mount.join("d")).unwrap();
    fs::create_dir(mount.join("d/e")).unwrap();
    assert_eq!(errno(fs::rename(mount.join("d"), mount.join("d/e/f"))), libc::EINVAL);
    fs::rename(&b, mount.join("d/e/b")).unwrap();
    assert_eq!(fs::read_to_string(mount.join("d/e/b")).unwrap(), "b");
}

#[test]
fn links_share_one_inode() {
    require_fuse!();
    let mount = TestMount::of_model();
    let (one, two) = (mount.join("one"), mount.join("two"));
    fs::write(&one, "1").unwrap();
    fs::hard_link(&one, &two).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino());
    fs::write(&two, "both").unwrap();
    assert_eq!(fs::read_to_string(&one).unwrap(), "both");
    fs::remove_file(&one).unwrap();
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    std::os::unix::fs::symlink("two", mount.join("sym")).unwrap();
    assert_eq!(fs::read_link(mount.join("sym")).unwrap(), Path::new("two"));
    assert_eq!(fs::read_to_string(mount.join("sym")).unwrap(), "both");
    assert_eq!(fs::symlink_metadata(mount.join("sym")).unwrap().len(), 3);
}

#[test]
fn an_open_file_outlives_its_name() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("gone");
    let mut file = read_write(&path);
    file.write_all(b"still here").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(File::open(&path)), libc::ENOENT);
    file.write_all_at(b"STILL", 0).unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "STILL here");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn modes_owners_and_times_are_kept() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("f");
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().mode(), 0o100_640);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode(), 0o104_711);
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
    for (sec, nsec) in [(1_000_000_000, 123_456_789), (-2, 800_000_000), (0, 1)] {
        let time = Timespec { tv_sec: sec, tv_nsec: nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (sec, nsec), "mtime");
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (sec, nsec), "atime");
    }
    let before = fs::metadata(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!(after.mtime() > before.mtime() && after.ctime() >= before.ctime());
}

#[test]
fn a_users_write_clears_set_id_bits() {
    require_fuse!();
    let mount = TestMount::of_model();
    for (script, what) in [
        ("printf x >> \"$0\"", "write"),
        ("truncate -s 1 \"$0\"", "truncate"),
        (": > \"$0\"", "open"),
    ] {
        let path = mount.join(what);
        fs::write(&path, "some").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
            .arg(&path)
            .status();
        let Ok(status) = status else {
            eprintln!("Skipped(setpriv is not installed)");
            return;
        };
        assert!(status.success(), "{what}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777, "{what}");
    }
}

#[test]
fn special_files_keep_their_kind() {
    require_fuse!();
    let mount = TestMount::of_model();
    let node = |name: &str, kind, dev| {
        rustix::fs::mknodat(CWD, mount.join(name), kind, Mode::from_raw_mode(0o600), dev).unwrap();
        fs::symlink_metadata(mount.join(name)).unwrap()
    };
    assert!(node("fifo", FileType::Fifo, 0).file_type().is_fifo());
    let null = node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    fs::write(mount.join("null"), "swallowed").unwrap();
    assert_eq!(fs::read(mount.join("null")).unwrap(), b"");
    let listener = std::os::unix::net::UnixListener::bind(mount.join("socket")).unwrap();
    let client = std::os::unix::net::UnixStream::connect(mount.join("socket")).unwrap();
    listener.accept().unwrap();
    drop(client);
    assert!(fs::symlink_metadata(mount.join("socket")).unwrap().file_type().is_socket());
}

#[test]
fn xattrs_are_set_listed_and_removed() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("f");
    fs::write(&path, "").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    set("user.one", b"1", XattrFlags::empty()).unwrap();
    set("user.two", &[9; 4000], XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.one", b"", XattrFlags::CREATE).unwrap_err(), rustix::io::Errno::EXIST);
    assert_eq!(set("user.no", b"", XattrFlags::REPLACE).unwrap_err(), rustix::io::Errno::NODATA);
    let mut value = vec![0; 5000];
    assert_eq!(rustix::fs::getxattr(&path, "user.two", &mut value[..]).unwrap(), 4000);
    let mut small = vec![0; 10];
    assert_eq!(
        rustix::fs::getxattr(&path, "user.two", &mut small[..]).unwrap_err(),
        rustix::io::Errno::RANGE
    );
    let mut list = vec![0; 200];
    let len = rustix::fs::listxattr(&path, &mut list[..]).unwrap();
    let mut listed: Vec<_> = list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    listed.sort();
    assert_eq!(listed, [&b"user.one"[..], b"user.two"]);
    rustix::fs::removexattr(&path, "user.one").unwrap();
    assert_eq!(
        rustix::fs::getxattr(&path, "user.one", &mut small[..]).unwrap_err(),
        rustix::io::Errno::NODATA
    );
}

#[test]
fn mapped_memory_and_the_file_are_one() {
    require_fuse!();
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    let mount = TestMount::of_model();
    let file = read_write(&mount.join("map"));
    file.write_all_at(&[b'a'; 10_000], 0).unwrap();
    let (prot, len) = (ProtFlags::READ | ProtFlags::WRITE, 10_000);
    // SAFETY: a new mapping of a file that nothing else in the process maps; `len` bytes of it exist.
    let memory =
        unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0).unwrap() };
    // SAFETY: the mapping above, `len` bytes, until munmap below; nothing else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), len) };
    assert!(bytes.iter().all(|b| *b == b'a'));
    bytes[5000..5005].copy_from_slice(b"hello");
    // SAFETY: the mapping above.
    unsafe { msync(memory, len, MsyncFlags::SYNC).unwrap() };
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let mut seen = vec![0; 10_000];
    let other = OpenOptions::new().read(true).custom_flags(direct).open(mount.join("map")).unwrap();
    other.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen[4998..5007], b"aahelloaa");
    file.write_all_at(b"world", 6000).unwrap();
    assert_eq!(&bytes[6000..6005], b"world");
    // SAFETY: the mapping above; `bytes` is not used after this.
    unsafe { munmap(memory, len).unwrap() };
    assert_eq!(file.metadata().unwrap().len(), 10_000);
}

#[test]
fn a_program_runs_from_it() {
    require_fuse!();
    let mount = TestMount::of_model();
    let program = mount.join("true");
    fs::copy("/bin/true", &program).unwrap();
    assert!(Command::new(&program).status().unwrap().success());
    let script = mount.join("script");
    fs::write(&script, "#!/bin/sh\necho $((6 * 7))\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&script).output().unwrap();
    assert_eq!(output.stdout, b"42\n");
}

#[test]
fn a_range_is_copied_between_files() {
    require_fuse!();
    let mount = TestMount::of_model();
    let (from, to) = (read_write(&mount.join("from")), read_write(&mount.join("to")));
    let data: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
    from.write_all_at(&data, 0).unwrap();
    let (mut from_offset, mut to_offset) = (1000, 500);
    let mut left = 150_000;
    while left > 0 {
        let copied = rustix::fs::copy_file_range(
            &from,
            Some(&mut from_offset),
            &to,
            Some(&mut to_offset),
            left,
        )
        .unwrap();
        assert!(copied > 0);
        left -= copied;
    }
    let mut copy = vec![0; 150_500];
    to.read_exact_at(&mut copy, 0).unwrap();
    assert!(copy[..500].iter().all(|b| *b == 0) && copy[500..] == data[1000..151_000]);
}

#[test]
fn locks_of_one_node_exclude_each_other() {
    require_fuse!();
    let mount = TestMount::of_model();
    let path = mount.join("lock");
    fs::write(&path, "").unwrap();
    let (one, two) = (read_write(&path), read_write(&path));
    use rustix::fs::{FlockOperation, flock};
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(
        flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap_err(),
        rustix::io::Errno::WOULDBLOCK
    );
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn the_root_is_the_root() {
    require_fuse!();
    let mount = TestMount::of_model();
    let root = fs::metadata(mount.path()).unwrap();
    assert!(root.is_dir());
    assert_eq!(root.ino(), 1);
    fs::create_dir(mount.join("d")).unwrap();
    assert_eq!(fs::metadata(mount.join("d/..")).unwrap().ino(), root.ino());
    assert_eq!(fs::metadata(mount.path()).unwrap().nlink(), 3);
    assert_eq!(fs::metadata(mount.join("d")).unwrap().nlink(), 2);
    let space = rustix::fs::statvfs(mount.path()).unwrap();
    assert!(space.f_blocks > 0 && space.f_bavail > 0 && space.f_namemax == 255);
}

#[test]
fn names_are_bytes_up_to_255_of_them() {
    require_fuse!();
    use std::os::unix::ffi::OsStrExt;
    let mount = TestMount::of_model();
    let odd = mount.path().join(std::ffi::OsStr::from_bytes(b"\xff\n\\ odd"));
    fs::write(&odd, "odd").unwrap();
    assert_eq!(fs::read_to_string(&odd).unwrap(), "odd");
    fs::write(mount.join(&"n".repeat(255)), "").unwrap();
    assert_eq!(errno(fs::write(mount.join(&"n".repeat(256)), "")), libc::ENAMETOOLONG);
}

#[test]
fn nothing_changes_through_a_read_only_mount() {
    require_fuse!();
    let dfs = support::model_dfs();
    let mount = TestMount::with(dfs.clone(), |_| {});
    fs::write(mount.join("f"), "kept").unwrap();
    drop(mount);
    let mount = TestMount::with(dfs, |c| c.read_only = true);
    assert_eq!(fs::read_to_string(mount.join("f")).unwrap(), "kept");
    assert_eq!(errno(fs::write(mount.join("g"), "")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(mount.join("f"))), libc::EROFS);
}

#[test]
fn without_caching_everything_works_too() {
    require_fuse!();
    let mount = TestMount::with(support::model_dfs(), |c| c.caching = false);
    let path = mount.join("f");
    fs::write(&path, vec![5; 300_000]).unwrap();
    assert!(fs::read(&path).unwrap() == vec![5; 300_000]);
    fs::create_dir(mount.join("d")).unwrap();
    fs::write(mount.join("d/x"), "x").unwrap();
    assert_eq!(names(&mount.join("d")), ["x"]);
    assert_eq!(names(&mount.path()), ["d", "f"]);
}
