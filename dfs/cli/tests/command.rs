//! Does the command say and return what scripts and people rely on?

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use daos_server::NoHandler;
use serde_json::Value;
use support::{daos, json, open, out, store};

/// The same answers whether a process holds the store or nobody does.
fn works(dir: &Path) {
    let (code, pools) = json(&["pool", "list"], dir);
    assert_eq!((code, &pools["status"], &pools["error"]), (0, &0.into(), &Value::Null));
    assert_eq!(pools["response"][0]["label"], "default");
    let (_, pool) = json(&["pool", "query"], dir);
    let bytes = |name: &str| pool["response"][name].as_u64().unwrap();
    assert_eq!(bytes("capacity"), bytes("used") + bytes("free") + bytes("reserve"));
    assert_eq!(daos(&["cont", "create", "default", "scratch"], dir).status.code(), Some(0));
    let (code, again) = json(&["cont", "create", "scratch"], dir);
    assert_eq!((code, again["kind"].as_str()), (4, Some("exists")));
    let list = out(&daos(&["container", "list"], dir));
    assert!(list.starts_with("CONTAINER") && list.contains("\nscratch "), "{list}");
    let (_, query) = json(&["cont", "query", "scratch"], dir);
    assert_eq!(query["response"]["label"], "scratch");
    let uuid = query["response"]["uuid"].as_str().unwrap();
    assert_eq!(daos(&["cont", "query", "default", uuid], dir).status.code(), Some(0));
    assert_eq!(daos(&["cont", "destroy", "scratch"], dir).status.code(), Some(0));
    let (code, gone) = json(&["cont", "query", "scratch"], dir);
    assert_eq!(
        (code, gone["kind"].as_str(), &gone["response"]),
        (3, Some("not-found"), &Value::Null)
    );
    assert_eq!(json(&["pool", "query", "nosuch"], dir).0, 3);
    let (code, check) = json(&["fs", "check"], dir);
    assert_eq!((code, check["response"]["findings"].as_array().unwrap().len()), (0, 0), "{check}");
    assert_eq!(daos(&["fs", "sync"], dir).status.code(), Some(0));
}

#[test]
fn a_store_that_nobody_holds_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    works(dir.path());
}

#[test]
fn a_store_that_is_held_is_asked_through_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let engine = open(dir.path());
    let control = engine.serve_control(Arc::new(NoHandler)).unwrap();
    works(dir.path());
    drop(control);
    engine.stop().unwrap();
}

#[test]
fn a_path_that_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let (code, error) = json(&["pool", "list"], &none);
    assert_eq!(code, 3);
    assert!(error["error"].as_str().unwrap().contains("none"), "{error}");
    let output = daos(&["pool", "list"], dir.path());
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("daos: ") && said.contains("no store"), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "looking makes nothing");
}

#[test]
fn a_wrong_command_line_is_two_also_as_json() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_daos")).args(["pool", "fly", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((value["kind"].as_str(), value["status"].as_i64()), (Some("usage"), Some(2)));
    let output = Command::new(env!("CARGO_BIN_EXE_daos")).args(["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).contains("Exit codes"));
}

#[test]
fn filesystems_of_a_store_that_nobody_holds_are_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let container = engine.container("default", "home", true).unwrap();
    futures_lite::future::block_on(async {
        let dfs = dfs::Dfs::mount(container, dfs::MountOptions::default()).await.unwrap();
        dfs.mkdir(dfs.root(), b"d", 0o755, dfs::Caller::default()).await.unwrap();
        dfs.unmount().await.unwrap();
    });
    engine.stop().unwrap();
    let (code, check) = json(&["fs", "check"], dir.path());
    let filesystem = &check["response"]["filesystems"][0];
    assert_eq!((code, filesystem["container"].as_str()), (0, Some("home")), "{check}");
    assert_eq!(filesystem["report"]["directories"], 2);
}
