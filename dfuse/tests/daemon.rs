//! Does the daemon begin and end as it should, whoever asks for it, and is everything there the next time?

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use daos_server::mounts;
use support::site::{DFUSE, Daemon, SIZE, Site, end, holder, kill, text, unmount};

/// A file written before a `stop` is there after the next start.
fn survives(stop: impl Fn(&Site, &Daemon)) {
    let site = Site::new();
    let daemon = site.start();
    fs::write(site.mnt().join("file"), "kept").unwrap();
    fs::create_dir_all(site.mnt().join("a/b/c")).unwrap();
    stop(&site, &daemon);
    daemon.wait();
    let again = site.start();
    assert_ne!(again.pid, daemon.pid);
    assert_eq!(fs::read_to_string(site.mnt().join("file")).unwrap(), "kept");
    assert!(site.mnt().join("a/b/c").is_dir());
    end(&site, &again);
}

#[test]
fn fusermount_stops_it_cleanly() {
    require_fuse!();
    survives(|site, _| unmount("fusermount3", &["-u"], site));
}

#[test]
fn umount_stops_it_cleanly() {
    require_fuse!();
    survives(|site, _| unmount("umount", &[], site));
}

#[test]
fn sigterm_stops_it_cleanly() {
    require_fuse!();
    survives(|site, daemon| {
        kill(daemon.pid, "TERM");
        daemon.wait();
        assert!(!site.is_mounted());
        let log = fs::read_to_string(site.store().join("dfuse.log")).unwrap();
        assert!(log.contains("SIGTERM") && log.contains("stopped"), "{log}");
    });
}

#[test]
fn killed_it_leaves_a_dead_mount_that_the_next_one_clears() {
    require_fuse!();
    survives(|site, daemon| {
        kill(daemon.pid, "KILL");
        daemon.wait();
        assert!(fs::metadata(site.mnt()).is_err(), "the mount is dead");
    });
}

#[test]
fn sigterm_with_files_open_stops_it_all_the_same() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let file = File::create(site.mnt().join("open")).unwrap();
    kill(daemon.pid, "TERM");
    daemon.wait();
    assert!(!site.is_mounted());
    assert!(file.sync_all().is_err(), "the file's daemon is gone");
    drop(file);
    let again = site.start();
    assert!(site.mnt().join("open").exists());
    end(&site, &again);
}

#[test]
fn a_busy_mount_is_not_unmounted_and_goes_on() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let file = File::create(site.mnt().join("open")).unwrap();
    let output = Command::new("umount").arg(site.mnt()).output().unwrap();
    assert!(!output.status.success());
    fs::write(site.mnt().join("other"), "works").unwrap();
    drop(file);
    end(&site, &daemon);
}

#[test]
fn mount_follows_unmount_at_once() {
    require_fuse!();
    let site = Site::new();
    for round in 0..5 {
        let _daemon = site.start();
        fs::write(site.mnt().join(format!("{round}")), "x").unwrap();
        unmount("umount", &[], &site);
    }
    let _daemon = site.start();
    assert_eq!(fs::read_dir(site.mnt()).unwrap().count(), 5);
}

#[test]
fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let other = site.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let output =
        Command::new(DFUSE).arg("--embedded").arg(site.store()).arg(&other).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("process {}", daemon.pid)), "{}", text(&output));
    let same = site.dfuse(&[]);
    assert_eq!(same.status.code(), Some(1));
    assert!(text(&same).contains("mounted already, by dfuse"), "{}", text(&same));
    assert!(site.is_mounted());
}

#[test]
fn a_wrong_command_line_and_a_wrong_place_have_their_own_codes() {
    require_fuse!();
    let run = |args: &[&str]| {
        let output = Command::new(DFUSE).args(args).output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, said) = run(&["/s", "/m", "-o", "frobnicate"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("'frobnicate'"));
    assert_eq!(run(&["--no-such-flag"]).0, Some(2));
    let (code, said) = run(&["--embedded", "/tmp/dfuse-test-none", "/tmp/dfuse-test-none-mnt"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("does not exist") && said.contains("mkdir"), "{said}");
    assert!(!Path::new("/tmp/dfuse-test-none").exists());
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("fstab") && help.contains("--disable-caching"));
    assert!(run(&["--version"]).1.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    require_fuse!();
    let site = Site::new();
    fs::create_dir(site.store()).unwrap();
    fs::write(site.store().join("thesis.tex"), "text").unwrap();
    let output = site.dfuse(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("thesis.tex"), "{}", text(&output));
    assert_eq!(fs::read_dir(site.store()).unwrap().count(), 1, "not even a log");
}

#[test]
fn read_only_makes_nothing_and_changes_nothing() {
    require_fuse!();
    let site = Site::new();
    let refused = site.dfuse(&["--read-only"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(!site.store().exists());
    let daemon = site.start();
    fs::write(site.mnt().join("f"), "kept").unwrap();
    end(&site, &daemon);
    let daemon = site.start_with(&["--read-only"]);
    assert_eq!(fs::read_to_string(site.mnt().join("f")).unwrap(), "kept");
    assert!(fs::write(site.mnt().join("g"), "").is_err());
    end(&site, &daemon);
}

#[test]
fn a_store_on_a_read_only_filesystem_can_be_mounted_read_only() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    fs::write(site.mnt().join("file"), "kept").unwrap();
    end(&site, &daemon);
    let mount = |args: &[&str]| {
        let output = Command::new("mount").args(args).arg(site.store()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    mount(&["--bind", site.store().to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro"]);
    let refused = site.dfuse(&[]);
    let read = site.dfuse(&["--read-only"]);
    let found = fs::read_to_string(site.mnt().join("file"));
    let unmounted = Command::new("umount").arg(site.mnt()).status();
    // The daemon may be ending still.
    let until = Instant::now() + Duration::from_secs(20);
    while !Command::new("umount").arg(site.store()).status().unwrap().success() {
        assert!(Instant::now() < until, "the store stays in use");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(read.status.success(), "{}", text(&read));
    assert_eq!(found.unwrap(), "kept");
    assert!(unmounted.unwrap().success());
}

#[test]
fn sizes_that_cannot_be_or_are_not_the_store_s_are_told() {
    require_fuse!();
    let site = Site::new();
    let start = |args: &[&str]| {
        let mut command = Command::new(DFUSE);
        command.arg("--embedded").arg(site.store()).arg(site.mnt()).args(args);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), text(&output))
    };
    let (code, said) = start(&["--size", "65T"]);
    assert!(code == 1 && said.contains("at most 64.0 TiB"), "{said}");
    let (code, said) = start(&["--memory", "0"]);
    assert!(code == 2 && said.contains("at least 1.00 MiB"), "{said}");
    let daemon = site.start();
    end(&site, &daemon);
    let (code, said) = start(&["--size", "2G"]);
    assert!(code == 0 && said.contains("passed over, this one has 1.00 GiB"), "{said}");
    let daemon = Daemon { pid: holder(&site.store()).unwrap() };
    end(&site, &daemon);
}

#[test]
fn in_the_foreground_it_stays_until_interrupted() {
    require_fuse!();
    let site = Site::new();
    let mut child = Command::new(DFUSE)
        .arg("--foreground")
        .arg("--embedded")
        .arg(site.store())
        .arg(site.mnt())
        .args(["--size", SIZE])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !site.is_mounted() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::write(site.mnt().join("f"), "x").unwrap();
    kill(child.id(), "INT");
    assert!(child.wait().unwrap().success());
    assert!(!site.is_mounted());
}

#[test]
fn mount_and_fstab_can_call_it() {
    require_fuse!();
    let site = Site::new();
    let bin = Path::new(DFUSE).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // What mount(8) runs for -t fuse.dfuse; it would look for dfuse in the system's own directories only.
    let output = Command::new("mount.fuse3")
        .arg(site.store())
        .arg(site.mnt())
        .args(["-t", "fuse.dfuse", "-o", "rw,size=1G,noatime,sync=always,_netdev,x-test=1"])
        .env("PATH", path)
        .output();
    let Ok(output) = output else {
        eprintln!("Skipped(mount.fuse3 is not installed)");
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    let mount = mounts::at(&site.mnt()).unwrap();
    assert!(mount.is_dfuse() && mount.source == site.store());
    fs::write(site.mnt().join("f"), "x").unwrap();
    let daemon = Daemon { pid: holder(&site.store()).unwrap() };
    end(&site, &daemon);
}

#[test]
fn mount_can_make_it_read_only_and_writable_again() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let bin = Path::new(DFUSE).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // By itself, through the helper with what mount(8) finds listed with the mount, and by our own name.
    let by_kernel = |how: &str| {
        let options = format!("remount,{how}");
        Command::new("mount").args(["-i", "-o", &options]).arg(site.mnt()).output().unwrap()
    };
    let by_helper = |how: &str| {
        let listed = "relatime,user_id=0,group_id=0,default_permissions,allow_other";
        Command::new("mount.fuse3")
            .arg(site.store())
            .arg(site.mnt())
            .args(["-t", "fuse.dfuse", "-o", &format!("{listed},remount,{how}")])
            .env("PATH", &path)
            .output()
            .unwrap()
    };
    if Command::new("mount.fuse3").arg("--version").output().is_err() {
        eprintln!("Skipped(mount.fuse3 is not installed)");
        return;
    }
    let file = site.mnt().join("f");
    for remount in [&by_kernel as &dyn Fn(&str) -> Output, &by_helper] {
        let output = remount("ro");
        assert!(output.status.success(), "{}", text(&output));
        let refused = fs::write(&file, "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        let output = remount("rw");
        assert!(output.status.success(), "{}", text(&output));
        fs::write(&file, "x").unwrap();
        assert!(fs::metadata(&file).unwrap().is_file());
    }
    let elsewhere = Command::new(DFUSE).args(["/s", "/", "-o", "remount,ro"]).output().unwrap();
    assert!(!elsewhere.status.success() && text(&elsewhere).contains("no dfuse is mounted"));
    end(&site, &daemon);
}

#[test]
fn a_user_mounts_by_fusermount() {
    require_fuse!();
    let user = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command
    };
    let fuse = user("sh").args(["-c", "command -v fusermount3 && : <>/dev/fuse"]).output();
    if !fuse.is_ok_and(|output| output.status.success()) {
        eprintln!("Skipped(users have no fusermount3, no /dev/fuse or no setpriv)");
        return;
    }
    let site = Site::new();
    std::os::unix::fs::chown(site.mnt(), Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::chown(site.dir.path(), Some(65534), Some(65534)).unwrap();
    // A copy: what cargo builds may be where users cannot go.
    let program = site.dir.path().join("dfuse");
    fs::copy(DFUSE, &program).unwrap();
    let output = user(program.to_str().unwrap())
        .arg("--embedded")
        .arg(site.store())
        .arg(site.mnt())
        .args(["--size", SIZE])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let daemon = Daemon { pid: holder(&site.store()).unwrap() };
    let within =
        |script: &str| user("sh").args(["-c", script, "sh"]).arg(site.mnt()).output().unwrap();
    let output = within("umask 027 && echo hi >$1/f && stat -c %a $1/f && cat $1/f");
    assert_eq!(text(&output), "640\nhi\n");
    assert!(mounts::at(&site.mnt()).unwrap().is_dfuse());
    let output = within("fusermount3 -u $1");
    assert!(output.status.success(), "{}", text(&output));
    daemon.wait();
}

#[test]
fn a_pool_and_a_container_of_ones_own() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start_with(&["mine", "data"]);
    fs::write(site.mnt().join("in-data"), "").unwrap();
    end(&site, &daemon);
    let daemon = site.start_with(&["mine", "other"]);
    assert_eq!(fs::read_dir(site.mnt()).unwrap().count(), 0);
    end(&site, &daemon);
    let daemon = site.start_with(&["--pool", "mine", "--container", "data"]);
    assert!(site.mnt().join("in-data").exists());
    end(&site, &daemon);
}

#[test]
fn a_process_that_is_told_to_go_leaves_no_request_unanswered() {
    require_fuse!();
    let site = Site::new();
    let daemon = site.start();
    let mnt = site.mnt();
    let writer = std::thread::spawn(move || {
        let mut done = 0;
        for n in 0.. {
            if fs::write(mnt.join(format!("f{n}")), "data").is_err() || !mnt.join("f0").exists() {
                break;
            }
            done = n;
        }
        done
    });
    std::thread::sleep(Duration::from_millis(200));
    kill(daemon.pid, "TERM");
    daemon.wait();
    let done = writer.join().unwrap();
    // What the writer made after the mount was gone lies in the bare directory.
    for entry in fs::read_dir(site.mnt()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _again = site.start();
    for n in 0..done {
        assert_eq!(fs::read_to_string(site.mnt().join(format!("f{n}"))).unwrap(), "data", "f{n}");
    }
}

#[test]
fn space_of_a_removed_file_comes_back_by_itself() {
    require_fuse!();
    let site = Site::new();
    let _daemon = site.start();
    let used = || {
        let space = rustix::fs::statvfs(site.mnt()).unwrap();
        (space.f_blocks - space.f_bfree) * space.f_frsize
    };
    let before = used();
    fs::write(site.mnt().join("big"), vec![3; 64 << 20]).unwrap();
    assert!(used() >= before + (64 << 20));
    fs::remove_file(site.mnt().join("big")).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while used() > before + (1 << 20) {
        assert!(Instant::now() < until, "{} bytes are still used", used() - before);
        std::thread::sleep(Duration::from_millis(50));
    }
}
