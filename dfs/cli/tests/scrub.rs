//! Does `daos fs scrub` tell damage by the file's path, whoever holds the store?

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use daos_server::NoHandler;
use dfs::{Caller, Dfs, Handle, MountOptions};
use serde_json::Value;
use support::{daos, open, out};

const PATTERN: &[u8] = b"a file's bytes that are nowhere else, sixty-four of them and more.";

/// A store with `/d/f`, which has a block that begins with the pattern.
fn store_with_a_file(dir: &Path) {
    let engine = open(dir);
    let container = engine.container("default", "home", true).unwrap();
    futures_lite::future::block_on(async {
        let dfs = Dfs::mount(container, MountOptions::default()).await.unwrap();
        let user = Caller::default();
        let d = dfs.mkdir(dfs.root(), b"d", 0o755, user).await.unwrap().attr.ino;
        let (file, opened) = dfs.create(d, b"f", 0o644, libc::O_RDWR, user).await.unwrap();
        let mut data = PATTERN.to_vec();
        data.resize(40_000, 7);
        dfs.write(file.attr.ino, Handle(0), 0, Bytes::from(data), false, false).await.unwrap();
        dfs.release(file.attr.ino, opened.handle).await.unwrap();
        dfs.unmount().await.unwrap();
    });
    engine.stop().unwrap();
}

/// Flips a bit of the pattern on the device; its address.
fn damage(dir: &Path) -> u64 {
    let files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    for path in files.iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(path).unwrap();
        let blocks = bytes.chunks(4096).position(|block| block.starts_with(PATTERN));
        if let Some(block) = blocks {
            let address = block as u64 * 4096;
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_at(&[PATTERN[0] ^ 4], address).unwrap();
            return address;
        }
    }
    panic!("the data lies nowhere");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn damaged_data_is_named_by_its_file_and_a_sound_store_has_none() {
    let dir = tempfile::tempdir().unwrap();
    store_with_a_file(dir.path());
    let sound = daos(&["fs", "scrub"], dir.path());
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(out(&sound).contains("everything was read: no damage was found"), "{}", out(&sound));
    let address = damage(dir.path());
    let found = daos(&["fs", "scrub"], dir.path());
    assert_eq!(found.status.code(), Some(6), "{found:?}");
    let text = out(&found);
    assert!(text.contains("data: /d/f: damage: pool "), "{text}");
    assert!(text.contains(&format!("target 0, Data at byte {address}: expected")), "{text}");
    let found = daos(&["--json", "fs", "scrub"], dir.path());
    let lines = lines(&out(&found));
    let finding = &lines.iter().find(|line| line["finding"].is_object()).unwrap()["finding"];
    assert_eq!((&finding["path"], &finding["address"]), (&"/d/f".into(), &address.into()));
    assert!(finding["pool"].is_string() && finding["container"].is_u64(), "{finding}");
    assert_ne!(finding["expected"], finding["found"]);
    let last = lines.last().unwrap();
    assert_eq!((&last["error"], &last["status"]), (&serde_json::Value::Null, &6.into()));
    let summary = &last["response"];
    assert_eq!((&summary["findings"], &summary["complete"]), (&1.into(), &true.into()));
    assert!(summary["bytes"].as_u64().unwrap() > 40_000, "{summary}");
}

#[test]
fn a_check_tells_whose_data_is_damaged_and_a_repair_does_not_call_it_mended() {
    let dir = tempfile::tempdir().unwrap();
    store_with_a_file(dir.path());
    damage(dir.path());
    for arguments in
        [&["fs", "check"][..], &["fs", "check", "--repair"], &["fs", "check", "--repair"]]
    {
        let found = daos(arguments, dir.path());
        assert_eq!(found.status.code(), Some(6), "{found:?}");
        let text = out(&found);
        assert!(text.contains("default/home: /d/f: damage: target 0, Data at byte "), "{text}");
        assert!(text.contains("cannot be rebuilt; restore the file") && !text.contains("mended"));
    }
}

#[test]
fn a_store_that_is_held_is_scrubbed_through_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    store_with_a_file(dir.path());
    damage(dir.path());
    let engine = open(dir.path());
    let control = engine.serve_control(Arc::new(NoHandler)).unwrap();
    let found = daos(&["fs", "scrub"], dir.path());
    assert_eq!(found.status.code(), Some(6), "{found:?}");
    // The holder has no filesystem that could tell a path.
    assert!(out(&found).contains("data: object "), "{}", out(&found));
    drop(control);
    engine.stop().unwrap();
}

#[test]
fn ctrl_c_ends_a_scrub_with_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    store_with_a_file(dir.path());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_daos"));
    // So slow that it does not end by itself.
    command.args(["fs", "scrub", "--rate", "1K", "--embedded"]).arg(dir.path());
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(out(&output).contains("stopped before its end: no damage was found"), "{output:?}");
}

#[test]
fn a_scrub_at_no_bytes_a_second_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    store_with_a_file(dir.path());
    let refused = daos(&["fs", "scrub", "--rate", "0"], dir.path());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("--rate") && text.contains("would never end"), "{text}");
}
