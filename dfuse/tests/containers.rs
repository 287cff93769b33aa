//! What a mount shows beside the container that it was asked for, what the kernel keeps of it, and snapshots.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daos_server::control::{Answer, Ask, Failure, FailureKind};
use daos_server::{Door, EngineConfig, mounts};
use serde_json::json;
use support::site::{Site, end, is_mounted, kill, text, unmount};

fn try_ask(site: &Site, ask: Ask) -> Result<Answer, Failure> {
    Door::open(EngineConfig::new(site.store(), "a test")).unwrap().ask(ask)
}

fn ask(site: &Site, request: Ask) -> Answer {
    try_ask(site, request).unwrap()
}

fn set(site: &Site, name: &str, value: Option<&str>) {
    let attributes = BTreeMap::from([(name.to_owned(), value.map(str::to_owned))]);
    let (pool, container) = ("default".into(), "home".into());
    ask(site, Ask::ContainerSetAttributes { pool, container, attributes });
}

fn requests(site: &Site, kind: &str) -> u64 {
    let query = Ask::Filesystem { verb: "query".into(), arguments: json!(null) };
    match ask(site, query) {
        Answer::Filesystem(found) => found["requests"][kind].as_u64().unwrap_or(0),
        other => panic!("{other:?}"),
    }
}

/// How many requests of a kind `work` makes.
fn count(site: &Site, kind: &str, work: impl Fn()) -> u64 {
    let before = requests(site, kind);
    work();
    requests(site, kind) - before
}

fn stat(path: &Path) {
    fs::symlink_metadata(path).unwrap();
}

#[test]
fn times_of_attributes_count_at_once_and_outlive_the_mount() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let file = site.mnt().join("file");
    fs::write(&file, "x").unwrap();
    stat(&file);
    // std asks for the time of birth, too, which comes as a STATX.
    assert_eq!(count(&site, "STATX", || (0..20).for_each(|_| stat(&file))), 0, "kept for a day");
    set(&site, "dfuse-attr-time", Some("0"));
    // What the kernel was told before holds; the next answer says otherwise.
    fs::OpenOptions::new().append(true).open(&file).unwrap().set_len(2).unwrap();
    stat(&file);
    assert!(count(&site, "STATX", || (0..20).for_each(|_| stat(&file))) >= 20);
    assert_eq!(count(&site, "LOOKUP", || (0..20).for_each(|_| stat(&file))), 0, "names stay kept");
    set(&site, "dfuse-dentry-time", Some("0"));
    end(&site, &daemon);
    let daemon = site.start();
    assert!(count(&site, "LOOKUP", || (0..20).for_each(|_| stat(&file))) >= 20);
    set(&site, "dfuse-dentry-time", None);
    set(&site, "dfuse-attr-time", None);
    stat(&file);
    assert_eq!(count(&site, "LOOKUP", || (0..20).for_each(|_| stat(&file))), 0);
    end(&site, &daemon);
}

#[test]
fn what_the_kernel_holds_is_taken_back_when_it_may_hold_it_no_longer() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let (file, twice) = (site.mnt().join("file"), site.mnt().join("dir/twice"));
    fs::create_dir(site.mnt().join("dir")).unwrap();
    fs::write(&file, vec![7; 100_000]).unwrap();
    fs::hard_link(&file, &twice).unwrap();
    let stats = || [&file, &twice].into_iter().for_each(|path| stat(path));
    let read = || assert_eq!(fs::read(&file).unwrap().len(), 100_000);
    (read(), stats());
    assert_eq!(count(&site, "STATX", stats) + count(&site, "LOOKUP", stats), 0);
    assert_eq!(count(&site, "READ", read), 0);
    let open = fs::File::open(&file).unwrap();
    set(&site, "dfuse-attr-time", Some("0"));
    assert!(count(&site, "STATX", || (0..5).for_each(|_| stats())) >= 10);
    set(&site, "dfuse-dentry-time", Some("0"));
    assert!(count(&site, "LOOKUP", || (0..5).for_each(|_| stats())) >= 15, "dir, and both names");
    set(&site, "dfuse-data-cache", Some("1h"));
    assert!(count(&site, "READ", read) > 0, "also while it is open");
    drop(open);
    for name in ["dfuse-attr-time", "dfuse-dentry-time", "dfuse-data-cache"] {
        set(&site, name, None);
    }
    (read(), stats());
    assert_eq!(count(&site, "STATX", stats) + count(&site, "LOOKUP", stats), 0);
    assert_eq!(count(&site, "READ", read), 0);
    end(&site, &daemon);
}

#[test]
fn a_name_that_is_not_there_is_asked_for_as_often_as_its_attribute_says() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let none = |n: u32| {
        let path = site.mnt().join(format!("none-{n}"));
        count(&site, "LOOKUP", || (0..20).for_each(|_| assert!(!path.exists())))
    };
    assert_eq!(none(1), 1);
    set(&site, "dfuse-ndentry-time", Some("0"));
    assert_eq!(none(2), 20);
    end(&site, &daemon);
}

#[test]
fn pages_stay_go_at_the_last_close_or_are_never_kept() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let file = site.mnt().join("file");
    fs::write(&file, vec![7; 100_000]).unwrap();
    let read = || count(&site, "READ", || assert_eq!(fs::read(&file).unwrap().len(), 100_000));
    read();
    assert_eq!(read(), 0, "pages outlive the last close");
    set(&site, "dfuse-data-cache", Some("otoc"));
    assert!(read() > 0, "open to close");
    let open = fs::File::open(&file).unwrap();
    read();
    assert_eq!(read(), 0, "while it is open, pages are shared");
    drop(open);
    set(&site, "dfuse-data-cache", Some("1h"));
    read();
    assert_eq!(read(), 0, "opened again within the hour");
    set(&site, "dfuse-data-cache", Some("off"));
    assert!(read() > 0);
    assert!(read() > 0);
    end(&site, &daemon);
    let daemon = site.start_with(&["--disable-caching"]);
    set(&site, "dfuse-data-cache", Some("on"));
    assert!(read() > 0 && read() > 0, "the flag wins");
    end(&site, &daemon);
}

#[test]
fn a_snapshot_made_while_mounted_holds_everything_that_was_answered() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let file = |n: u32| site.mnt().join(format!("{n}"));
    (0..100).for_each(|n| fs::write(file(n), format!("before {n}")).unwrap());
    let (pool, container, name) = ("default", "home", "monday");
    ask(
        &site,
        Ask::SnapshotCreate {
            pool: pool.into(),
            container: container.into(),
            name: Some(name.into()),
        },
    );
    (0..50).for_each(|n| fs::write(file(n), "after").unwrap());
    (50..100).for_each(|n| fs::remove_file(file(n)).unwrap());
    let refused = site.dfuse(&["--snap", name]);
    assert!(!refused.status.success());
    end(&site, &daemon);
    let refused = site.dfuse(&["--snap", "tuesday"]);
    assert!(text(&refused).contains("no snapshot 'tuesday'"), "{}", text(&refused));
    let daemon = site.start_with(&["-o", "snap=monday"]);
    for n in 0..100 {
        assert_eq!(fs::read_to_string(file(n)).unwrap(), format!("before {n}"));
    }
    assert_eq!(fs::read_dir(site.mnt()).unwrap().count(), 100);
    let error = fs::write(site.mnt().join("new"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    end(&site, &daemon);
    let daemon = site.start();
    assert_eq!(fs::read_to_string(file(0)).unwrap(), "after");
    assert_eq!(fs::read_dir(site.mnt()).unwrap().count(), 50);
    end(&site, &daemon);
}

/// A mount with a snapshot `monday` of two files, which have changed since, and a place for another mount.
fn with_snapshot(site: &Site) -> (support::site::Daemon, std::path::PathBuf) {
    let daemon = site.start();
    let at = |name: &str| site.mnt().join(name);
    entry_point(site, &site.mnt(), "data", "data");
    fs::write(at("data/file"), "other").unwrap();
    ["kept", "gone"].iter().for_each(|name| fs::write(at(name), "before").unwrap());
    let (pool, container, name) = ("default".into(), "home".into(), Some("monday".into()));
    ask(site, Ask::SnapshotCreate { pool, container, name });
    fs::write(at("kept"), "after").unwrap();
    fs::remove_file(at("gone")).unwrap();
    let old = site.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    (daemon, old)
}

fn mount_beside(site: &Site, old: &Path) {
    let said = site.dfuse_at(old, &["--snap", "monday"]);
    assert!(said.status.success(), "{}", text(&said));
    let pid = format!("process {})", support::site::holder(&site.store()).unwrap());
    assert!(text(&said).contains(&pid), "{}", text(&said));
}

fn umount(path: &Path) {
    let output = Command::new("fusermount3").arg("-u").arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), text(&output));
}

#[test]
fn a_snapshot_is_mounted_beside_its_live_container() {
    require_fuse!();
    let site = Site::new();
    let (daemon, old) = with_snapshot(&site);
    for _ in 0..2 {
        mount_beside(&site, &old);
        for name in ["kept", "gone"] {
            assert_eq!(fs::read_to_string(old.join(name)).unwrap(), "before");
        }
        assert_eq!(errno(fs::write(old.join("new"), "x")), libc::EROFS);
        assert_eq!(fs::read_to_string(site.mnt().join("kept")).unwrap(), "after");
        // Another container is shown as it is now, whatever has been seen of it.
        for round in 0..20 {
            let now = format!("other {round}");
            fs::write(site.mnt().join("data/file"), &now).unwrap();
            assert_eq!(fs::read_to_string(old.join("data/file")).unwrap(), now);
            assert_eq!(fs::metadata(old.join("data/file")).unwrap().len(), now.len() as u64);
        }
        // Its listings too, from whoever keeps a directory open, and after one that may be kept.
        fs::read_dir(&old).unwrap().for_each(drop);
        let open = fs::File::open(old.join("data")).unwrap();
        let mut listing = rustix::fs::Dir::new(open).unwrap();
        let mut listed = || {
            listing.rewind();
            listing.by_ref().filter(|entry| entry.as_ref().unwrap().ino() > 0).count()
        };
        for n in 0..3 {
            let before = listed();
            fs::write(site.mnt().join(format!("data/more {n}")), "").unwrap();
            assert_eq!(listed(), before + 1);
            fs::remove_file(site.mnt().join(format!("data/more {n}"))).unwrap();
        }
        drop(listing);
        // It is asked for itself, and in use.
        let device = mounts::at(&old).unwrap().device;
        let verb = "query".into();
        let arguments = json!({ "device": device });
        let Answer::Filesystem(found) = ask(&site, Ask::Filesystem { verb, arguments }) else {
            panic!()
        };
        assert_eq!((&found["snapshot"], &found["read_only"]), (&json!("monday"), &json!(true)));
        assert_eq!(found["mountpoint"], json!(old));
        let (pool, container, snapshot) = ("default".into(), "home".into(), "monday".into());
        let destroyed = try_ask(&site, Ask::SnapshotDestroy { pool, container, snapshot });
        let refused = destroyed.unwrap_err();
        assert_eq!(refused.kind, FailureKind::InUse);
        assert!(refused.message.contains(old.to_str().unwrap()), "{refused}");
        let again = site.dfuse_at(&old, &["--snap", "monday"]);
        assert!(!again.status.success() && text(&again).contains("mounted already"));
        umount(&old);
        assert!(fs::read_dir(&old).unwrap().next().is_none());
        fs::write(site.mnt().join("kept"), "after").unwrap();
    }
    let none = site.dfuse_at(&old, &["--snap", "tuesday"]);
    assert!(text(&none).contains("no snapshot 'tuesday'"), "{}", text(&none));
    let none = site.dfuse_at(&old.join("none"), &["--snap", "monday"]);
    assert!(text(&none).contains("mkdir -p"), "{}", text(&none));
    end(&site, &daemon);
}

#[test]
fn who_cannot_see_a_snapshot_or_names_one_that_is_gone_is_told_so() {
    require_fuse!();
    let site = Site::new();
    let (daemon, old) = with_snapshot(&site);
    let elsewhere = Command::new("unshare")
        .args(["-m", support::site::DFUSE, "--embedded"])
        .args([&site.store(), &old])
        .args(["--snap", "monday"])
        .output()
        .unwrap();
    if !text(&elsewhere).contains("unshare:") {
        assert!(!elsewhere.status.success());
        assert!(text(&elsewhere).contains("another mount namespace"), "{}", text(&elsewhere));
    }
    assert!(!is_mounted(&old), "it was mounted where nobody sees it");
    // A command that was given a path in a snapshot is not answered for the live mount.
    mount_beside(&site, &old);
    let device = mounts::at(&old).unwrap().device;
    umount(&old);
    let asked = |device| {
        let query =
            Ask::Filesystem { verb: "query".into(), arguments: json!({ "device": device }) };
        try_ask(&site, query)
    };
    // The daemon hears of the unmount when the kernel tells it, which may be after umount(8) has ended.
    let until = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        match asked(device) {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < until, "it answers for what is not mounted any more"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(refused.kind, FailureKind::NotFound, "{refused}");
    let own = asked(mounts::at(&site.mnt()).unwrap().device).unwrap();
    let Answer::Filesystem(own) = own else { panic!() };
    assert_eq!(own["mountpoint"], json!(site.mnt()));
    end(&site, &daemon);
}

#[test]
fn the_end_of_the_live_mount_takes_its_snapshots_along() {
    require_fuse!();
    let site = Site::new();
    let (mut daemon, old) = with_snapshot(&site);
    for how in ["umount", "TERM"] {
        mount_beside(&site, &old);
        let open = fs::File::open(old.join("kept")).unwrap();
        match how {
            // The next one waits for it.
            "umount" => unmount("umount", &[], &site),
            signal => {
                kill(daemon.pid, signal);
                daemon.wait();
            }
        }
        let next = site.start();
        assert!(!is_mounted(&old));
        daemon.wait();
        assert!(std::io::read_to_string(open).is_err());
        daemon = next;
    }
    // Alone, the same command serves it itself; and a second one by that daemon.
    end(&site, &daemon);
    let alone = site.start_with(&["--snap", "monday"]);
    mount_beside(&site, &old);
    assert_eq!(fs::read_to_string(old.join("gone")).unwrap(), "before");
    umount(&old);
    end(&site, &alone);
}

#[test]
fn a_killed_daemon_leaves_mounts_that_can_be_unmounted() {
    require_fuse!();
    let site = Site::new();
    let (daemon, old) = with_snapshot(&site);
    mount_beside(&site, &old);
    kill(daemon.pid, "KILL");
    daemon.wait();
    for path in [&old, &site.mnt()] {
        assert!(matches!(errno(fs::metadata(path)), libc::ENOTCONN | libc::ECONNABORTED));
        umount(path);
    }
    let daemon = site.start();
    assert_eq!(fs::read_to_string(site.mnt().join("kept")).unwrap(), "after");
    mount_beside(&site, &old);
    kill(daemon.pid, "KILL");
    daemon.wait();
    // The next ones clear what is left.
    let daemon = site.start();
    mount_beside(&site, &old);
    assert_eq!(fs::read_to_string(old.join("gone")).unwrap(), "before");
    umount(&old);
    end(&site, &daemon);
}

#[test]
fn a_container_is_mounted_by_a_directory_that_stands_for_it() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    entry_point(&site, &site.mnt(), "data", "data");
    fs::write(site.mnt().join("data/file"), "before").unwrap();
    let (pool, container, name) = ("default".into(), "data".into(), Some("monday".into()));
    ask(&site, Ask::SnapshotCreate { pool, container, name });
    fs::write(site.mnt().join("data/file"), "after").unwrap();
    let elsewhere = site.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut value = [0; 200];
    let len = rustix::fs::getxattr(site.mnt().join("data"), "user.daos", &mut value).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&elsewhere, "user.daos", &value[..len], flags).is_err() {
        eprintln!("Skipped(the filesystem of temporary directories takes no user xattrs)");
        return;
    }
    // In a mount a path says the store too: a snapshot needs no more.
    let old = site.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    let dfuse = |args: &[&Path]| Command::new(support::site::DFUSE).args(args).output().unwrap();
    let data = site.mnt().join("data");
    let said = dfuse(&[Path::new("--path"), &data, Path::new("--snap=monday"), &old]);
    assert!(said.status.success(), "{}", text(&said));
    assert_eq!(fs::read_to_string(old.join("file")).unwrap(), "before");
    umount(&old);
    let said = dfuse(&[Path::new("--path"), &elsewhere, &old]);
    assert!(text(&said).contains("say --embedded DIR too"), "{}", text(&said));
    let said = dfuse(&[Path::new("--path"), &old, &site.mnt()]);
    assert!(text(&said).contains("stands for no container"), "{}", text(&said));
    end(&site, &daemon);
    let by_path = ["--path", elsewhere.to_str().unwrap()];
    let daemon = site.start_with(&by_path);
    assert_eq!(fs::read_to_string(site.mnt().join("file")).unwrap(), "after");
    end(&site, &daemon);
    // What is not there is not made.
    let gone = b"DAOS.POSIX://default/gone";
    rustix::fs::setxattr(&elsewhere, "user.daos", gone, flags).unwrap();
    let said = site.dfuse(&by_path);
    assert!(!said.status.success() && text(&said).contains("gone"), "{}", text(&said));
}

#[test]
fn a_check_of_a_mounted_store_looks_at_every_filesystem() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    for name in ["one", "two"] {
        entry_point(&site, &site.mnt(), name, name);
        fs::write(site.mnt().join(name).join("file"), "x").unwrap();
    }
    ask(&site, Ask::ContainerCreate { pool: "default".into(), label: "empty".into() });
    end(&site, &daemon);
    let daemon = site.start();
    // One is shown, with a file open whose name is gone; the other one is not open.
    let open = fs::File::open(site.mnt().join("one/file")).unwrap();
    fs::remove_file(site.mnt().join("one/file")).unwrap();
    for _ in 0..2 {
        let check = Ask::Filesystem { verb: "check".into(), arguments: json!(null) };
        let Answer::Filesystem(found) = ask(&site, check) else { panic!() };
        let mut all: Vec<_> = found.as_array().unwrap().iter().collect();
        all.sort_by_key(|checked| checked["container"].to_string());
        let row = |checked: &serde_json::Value| {
            let report = &checked["report"];
            assert_eq!(report["findings"], json!([]), "{checked}");
            let number = |name: &str| report[name].as_u64().unwrap();
            (checked["container"].as_str().unwrap().to_owned(), number("files"), number("orphans"))
        };
        let rows: Vec<_> = all.into_iter().map(row).collect();
        let expected = [("home", 0, 0), ("one", 0, 1), ("two", 1, 0)];
        assert_eq!(rows, expected.map(|(name, files, orphans)| (name.into(), files, orphans)));
    }
    drop(open);
    end(&site, &daemon);
}

/// Makes a container and an entry point for it, as the command does.
fn entry_point(site: &Site, directory: &Path, name: &str, label: &str) {
    let created = ask(site, Ask::ContainerCreate { pool: "default".into(), label: label.into() });
    let Answer::Container(made) = created else { panic!("{created:?}") };
    link(site, directory, name, &made.entry.uuid.to_string()).unwrap();
}

fn link(site: &Site, directory: &Path, name: &str, container: &str) -> Result<(), Failure> {
    let parent = fs::metadata(directory).unwrap().ino();
    let arguments = json!({
        "parent": parent, "name": name.as_bytes(), "mode": 0o755, "uid": 0, "gid": 0,
        "pool": "default", "container": container,
    });
    try_ask(site, Ask::Filesystem { verb: "link".into(), arguments }).map(drop)
}

fn destroy(site: &Site, label: &str) -> Result<Answer, Failure> {
    let (pool, container) = ("default".into(), label.into());
    try_ask(site, Ask::ContainerDestroy { pool, container })
}

fn list(directory: &Path) -> std::io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(directory)?.collect()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn an_entry_point_shows_the_other_container_also_after_a_remount() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let (dir, file) = (site.mnt().join("dir"), site.mnt().join("dir/data/file"));
    fs::create_dir(&dir).unwrap();
    entry_point(&site, &dir, "data", "data");
    assert_eq!(fs::read_dir(dir.join("data")).unwrap().count(), 0);
    fs::write(&file, "in the other container").unwrap();
    fs::create_dir(dir.join("data/sub")).unwrap();
    fs::write(dir.join("data/sub/deep"), "deep").unwrap();
    let ino = fs::metadata(&file).unwrap().ino();
    assert_eq!(ino >> 48, 2, "the number says which container");
    assert_eq!(fs::metadata(&dir).unwrap().ino() >> 48, 1);
    // Between containers nothing is moved or linked, only copied.
    assert_eq!(errno(fs::rename(&file, site.mnt().join("x"))), libc::EXDEV);
    assert_eq!(errno(fs::hard_link(&file, site.mnt().join("x"))), libc::EXDEV);
    assert_eq!(fs::copy(&file, site.mnt().join("x")).unwrap(), 22);
    // The listing of a directory with an entry point in it, with attributes and without.
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["data"]);
    end(&site, &daemon);
    let daemon = site.start();
    let ls = Command::new("ls").arg("-lR").arg(site.mnt()).output().unwrap();
    assert!(ls.status.success() && text(&ls).contains("deep"), "{}", text(&ls));
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the other container");
    assert_eq!(fs::metadata(&file).unwrap().ino(), ino);
    // The entry point moves like a directory.
    fs::rename(dir.join("data"), site.mnt().join("moved")).unwrap();
    assert_eq!(fs::read_to_string(site.mnt().join("moved/sub/deep")).unwrap(), "deep");
    end(&site, &daemon);
}

#[test]
fn an_entry_point_goes_only_when_nothing_is_lost_by_it() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let at = |name: &str| site.mnt().join(name);
    entry_point(&site, &site.mnt(), "data", "data");
    fs::write(at("data/file"), "x").unwrap();
    assert_eq!(errno(fs::remove_dir(at("data"))), libc::ENOTEMPTY);
    fs::create_dir(at("empty")).unwrap();
    assert_eq!(errno(fs::rename(at("empty"), at("data"))), libc::ENOTEMPTY);
    fs::remove_file(at("data/file")).unwrap();
    fs::remove_dir(at("data")).unwrap();
    assert!(!at("data").exists());
    // The container is still there and can be linked again.
    link(&site, &site.mnt(), "again", "data").unwrap();
    fs::write(at("again/file"), "y").unwrap();
    let open = fs::File::open(at("again/file")).unwrap();
    let refused = destroy(&site, "data").unwrap_err();
    assert_eq!(refused.kind, FailureKind::InUse);
    assert!(refused.message.contains("1 files open"), "{refused}");
    drop(open);
    // A close is told to the daemon in its own time.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while let Err(failure) = destroy(&site, "data") {
        assert!(failure.kind == FailureKind::InUse && until > std::time::Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::remove_dir(at("again")).unwrap();
    assert_eq!(fs::read_dir(site.mnt()).unwrap().count(), 1);
    end(&site, &daemon);
}

#[test]
fn entry_points_come_and_go_while_the_kernel_knows_their_names() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let dir = site.mnt().join("dir");
    let (data, file) = (dir.join("data"), dir.join("data/file"));
    fs::create_dir(&dir).unwrap();
    for round in 0..3 {
        // That it is not there is known now, and what is listed.
        assert!(!data.exists());
        assert_eq!((list(&dir).unwrap().len(), list(&dir).unwrap().len()), (0, 0));
        assert_eq!(fs::metadata(&dir).unwrap().nlink(), 2);
        entry_point(&site, &dir, "data", "data");
        assert_eq!(list(&dir).unwrap()[0].file_name(), "data");
        assert_eq!(fs::metadata(&dir).unwrap().nlink(), 3);
        assert_eq!(fs::metadata(&data).unwrap().ino() >> 48, 2 + round, "a container of its own");
        fs::write(&file, "x").unwrap();
        fs::rename(&data, dir.join("moved")).unwrap();
        fs::rename(dir.join("moved"), &data).unwrap();
        // With what is in it; the last close is told to the daemon in its own time.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while destroy(&site, "data").is_err() {
            assert!(until > std::time::Instant::now());
        }
        assert_eq!(errno(fs::read(&file)), libc::ENOLINK);
        assert_eq!(errno(list(&data)), libc::ENOLINK);
        fs::remove_dir(&data).unwrap();
    }
    let taken = link(&site, &site.mnt(), "dir", "home").unwrap_err();
    assert_eq!(taken.kind, FailureKind::Exists, "{taken}");
    end(&site, &daemon);
}

#[test]
fn notices_wait_for_nobody_who_waits_for_them() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let dir = site.mnt().join("dir");
    fs::create_dir(&dir).unwrap();
    entry_point(&site, &site.mnt(), "data", "data");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (dir, busy) = (&dir, &busy);
            scope.spawn(move || {
                let own = dir.join(format!("own-{n}"));
                while !busy() {
                    fs::create_dir(&own).unwrap();
                    fs::write(own.join("file"), "x").unwrap();
                    fs::remove_file(own.join("file")).unwrap();
                    fs::remove_dir(&own).unwrap();
                    let _ = (list(dir), fs::metadata(dir.join("data")), list(&dir.join("by-hand")));
                }
            });
        }
        // Also when what follows panics: a scope waits for its threads.
        struct Stop<'a>(&'a std::sync::atomic::AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        for round in 0..50 {
            link(&site, &dir, "data", "data").unwrap();
            let by_hand = dir.join("by-hand");
            fs::create_dir(&by_hand).unwrap();
            let (text, flags) = (b"DAOS.POSIX://default/data", rustix::fs::XattrFlags::empty());
            rustix::fs::setxattr(&by_hand, "user.daos", text, flags).unwrap();
            set(&site, "dfuse-attr-time", (round % 2 == 0).then_some("0"));
            set(&site, "dfuse-dentry-time", (round % 2 == 0).then_some("0"));
            fs::remove_dir(&by_hand).unwrap();
            fs::remove_dir(dir.join("data")).unwrap();
        }
    });
    assert!(list(&dir).unwrap().is_empty());
    end(&site, &daemon);
}

#[test]
fn what_is_made_after_setfattr_is_made_in_the_container() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let at = |name: &str| site.mnt().join(name);
    ask(&site, Ask::ContainerCreate { pool: "default".into(), label: "data".into() });
    fs::create_dir(at("data")).unwrap();
    let text = b"DAOS.POSIX://default/data";
    rustix::fs::setxattr(at("data"), "user.daos", text, rustix::fs::XattrFlags::empty()).unwrap();
    // The kernel holds the directory for a moment yet; what is looked for in it leads to the container at once.
    assert_eq!(errno(fs::read(at("data/file"))), libc::ENOENT);
    fs::write(at("data/file"), "seen").unwrap();
    fs::create_dir(at("data/sub")).unwrap();
    assert_eq!(fs::metadata(at("data")).unwrap().ino() >> 48, 2);
    fs::create_dir(at("later")).unwrap();
    rustix::fs::setxattr(at("later"), "user.daos", text, rustix::fs::XattrFlags::empty()).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while list(&at("later")).unwrap().len() != 2 {
        assert!(until > std::time::Instant::now(), "the kernel is not told");
    }
    assert_eq!(fs::metadata(at("data/file")).unwrap().ino() >> 48, 2);
    end(&site, &daemon);
    let daemon = site.start();
    assert_eq!(fs::read_to_string(at("data/file")).unwrap(), "seen");
    assert_eq!(list(&at("data")).unwrap().len(), 2);
    end(&site, &daemon);
}

#[test]
fn what_an_entry_point_cannot_show_has_an_error_of_its_own() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let at = |name: &str| site.mnt().join(name);
    entry_point(&site, &site.mnt(), "gone", "gone");
    entry_point(&site, &site.mnt(), "outer", "outer");
    // A loop: the mount's own container inside of another.
    link(&site, &at("outer"), "back", "home").unwrap();
    fs::create_dir(at("damaged")).unwrap();
    destroy(&site, "gone").unwrap();
    end(&site, &daemon);
    let daemon = site.start();
    assert_eq!(errno(list(&at("gone"))), libc::ENOLINK);
    assert_eq!(errno(fs::write(at("gone/x"), "x")), libc::ENOLINK);
    assert_eq!(errno(list(&at("outer/back"))), libc::ELOOP);
    let set = |name: &str, value: &str| {
        let path = at(name);
        rustix::fs::setxattr(&path, "user.daos", value.as_bytes(), rustix::fs::XattrFlags::empty())
    };
    assert_eq!(set("damaged", "DAOS.POSIX:rubbish"), Err(rustix::io::Errno::INVAL));
    assert_eq!(set("outer", "DAOS.POSIX://default/home"), Err(rustix::io::Errno::PERM));
    // All of them can be removed, and the tree around them be walked.
    let find = Command::new("find").arg(site.mnt()).output().unwrap();
    assert!(text(&find).contains("outer/back"), "{}", text(&find));
    // One of them becomes what it was.
    rustix::fs::removexattr(at("gone"), "user.daos").unwrap();
    fs::write(at("gone/x"), "x").unwrap();
    fs::remove_file(at("gone/x")).unwrap();
    fs::remove_dir(at("gone")).unwrap();
    fs::remove_dir(at("outer/back")).unwrap();
    fs::remove_dir(at("outer")).unwrap();
    end(&site, &daemon);
}

#[test]
fn containers_keep_their_own_attributes_and_say_who_they_are() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let at = |name: &str| site.mnt().join(name);
    entry_point(&site, &site.mnt(), "data", "data");
    fs::write(at("data/file"), "x").unwrap();
    fs::write(at("file"), "x").unwrap();
    let attributes = BTreeMap::from([("dfuse-attr-time".to_owned(), Some("0".to_owned()))]);
    let (pool, container) = ("default".to_owned(), "data".to_owned());
    ask(&site, Ask::ContainerSetAttributes { pool, container, attributes });
    for name in ["file", "data/file"] {
        fs::OpenOptions::new().write(true).open(at(name)).unwrap().set_len(5).unwrap();
    }
    assert!(count(&site, "STATX", || (0..20).for_each(|_| stat(&at("data/file")))) >= 20);
    stat(&at("file"));
    // std asks for the time of birth, too, which comes as a STATX.
    assert_eq!(count(&site, "STATX", || (0..20).for_each(|_| stat(&at("file")))), 0);
    let mut value = [0; 200];
    let len = rustix::fs::getxattr(at("data"), "user.daos", &mut value).unwrap();
    let said = String::from_utf8(value[..len].to_vec()).unwrap();
    let query = Ask::ContainerQuery { pool: "default".into(), container: "data".into() };
    let Answer::Container(found) = ask(&site, query) else { panic!() };
    assert!(said.starts_with("DAOS.POSIX://") && said.ends_with(&found.entry.uuid.to_string()));
    end(&site, &daemon);
}
