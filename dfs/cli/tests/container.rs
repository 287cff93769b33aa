//! Properties, attributes and snapshots of containers, of a store that a process holds and of one that nobody does.

mod support;

use std::path::Path;
use std::sync::Arc;

use daos_server::NoHandler;
use serde_json::{Value, json as value};
use support::{daos, json, open, out, store};

/// Runs `test` on a store that nobody holds, then on one that is held.
fn both_ways(test: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    test(dir.path());
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let engine = open(dir.path());
    let control = engine.serve_control(Arc::new(NoHandler)).unwrap();
    test(dir.path());
    drop(control);
    engine.stop().unwrap();
}

/// Runs a command that must work; the answer.
fn good(line: &str, dir: &Path) -> Value {
    let (code, answer) = json(&line.split(' ').collect::<Vec<_>>(), dir);
    assert_eq!(code, 0, "{line}: {answer}");
    answer["response"].clone()
}

/// Runs a command that must fail; exit code, kind and message.
fn bad(line: &str, dir: &Path) -> (i32, String, String) {
    let (code, answer) = json(&line.split(' ').collect::<Vec<_>>(), dir);
    assert_ne!(code, 0, "{line}: {answer}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (code, text("kind"), text("error"))
}

#[test]
fn attributes_are_set_shown_and_deleted() {
    both_ways(|dir| {
        assert_eq!(good("cont get-attr home", dir), value!({}));
        good("cont set-attr default home dfuse-attr-time:30s,owner:me", dir);
        good("container set-attr home dfuse-data-cache otoc", dir);
        let all = value!({"dfuse-attr-time": "30s", "dfuse-data-cache": "otoc", "owner": "me"});
        assert_eq!(good("cont get-attr default home", dir), all);
        assert_eq!(good("cont get-attr default home owner", dir), value!({"owner": "me"}));
        let names = value!(["dfuse-attr-time", "dfuse-data-cache", "owner"]);
        assert_eq!(good("cont list-attrs home", dir), names);
        assert_eq!(good("cont list-attr -V home", dir), all);
        let table = out(&daos(&["cont", "get-attr", "default", "home"], dir));
        assert!(table.starts_with("NAME              VALUE\ndfuse-attr-time   30s\n"), "{table}");
        good("cont del-attr home owner,dfuse-attr-time", dir);
        assert_eq!(good("cont list-attrs home", dir), value!(["dfuse-data-cache"]));
        let (code, kind, said) = bad("cont del-attr home owner", dir);
        assert_eq!((code, kind.as_str()), (3, "not-found"));
        assert!(said.contains("list-attrs"), "{said}");
        assert_eq!(bad("cont get-attr default home owner", dir).0, 3);
        assert_eq!(bad("cont get-attr none", dir).0, 3);
    });
}

#[test]
fn a_value_that_no_mount_understands_is_refused_with_what_to_write() {
    both_ways(|dir| {
        good("cont set-attr home dfuse-attr-time:1", dir);
        let (_, kind, said) = bad("cont set-attr home dfuse-attr-time:5weeks,x:y", dir);
        assert_eq!(kind, "invalid");
        assert!(said.contains("5weeks") && said.contains("30s, 5m, 1h or 1d"), "{said}");
        let (.., said) = bad("cont set-attr home dfuse-data-cache:maybe", dir);
        assert!(said.contains("on, off, otoc"), "{said}");
        let (.., said) = bad("cont set-attr home dfuse-attr-tmie:1", dir);
        assert!(said.contains("dfuse-attr-time"), "{said}");
        bad("cont set-attr home", dir);
        assert_eq!(good("cont get-attr home", dir), value!({"dfuse-attr-time": "1"}));
    });
}

#[test]
fn properties_are_set_and_shown() {
    both_ways(|dir| {
        let quota = |bytes: u64, inodes: u64| value!({"bytes": bytes, "inodes": inodes});
        assert_eq!(good("cont get-prop home", dir)["quota"], quota(0, 0));
        good("container set-prop default home quota:10G,100000", dir);
        let all =
            value!({"label": "home", "layout_type": "POSIX", "quota": quota(10 << 30, 100_000)});
        assert_eq!(good("cont get-prop default home", dir), all);
        assert_eq!(good("cont query home", dir)["quota"], quota(10 << 30, 100_000));
        let table = out(&daos(&["cont", "get-prop", "default", "home", "quota"], dir));
        assert_eq!(table, "NAME   VALUE\nquota  bytes 10.0 GiB, inodes 100000\n");
        good("cont set-prop home label:renamed", dir);
        assert_eq!(bad("cont query home", dir).0, 3);
        assert_eq!(good("cont get-prop renamed", dir)["quota"], quota(10 << 30, 100_000));
        good("cont create other", dir);
        let (code, _, said) = bad("cont set-prop other label:renamed", dir);
        assert_eq!(code, 4);
        assert!(said.contains("'renamed' already"), "{said}");
        good("cont set-prop renamed quota:0,0", dir);
        assert_eq!(good("cont get-prop renamed", dir)["quota"], quota(0, 0));
        assert!(bad("cont set-prop renamed quota:10G", dir).2.contains("quota:10G,100000"));
        assert!(bad("cont set-prop renamed rd_fac:1", dir).2.contains("rd_fac"));
    });
}

#[test]
fn snapshots_are_made_listed_and_destroyed() {
    both_ways(|dir| {
        assert_eq!(good("cont list-snap home", dir), value!([]));
        let first = good("cont create-snap default home --snap monday", dir);
        let second = good("cont create-snap home", dir);
        assert_eq!((first["name"].as_str(), &second["name"]), (Some("monday"), &Value::Null));
        assert!(first["epoch"].as_u64() < second["epoch"].as_u64());
        assert_eq!(good("cont list-snaps home", dir), value!([first, second]));
        assert_eq!(good("cont query home", dir)["snapshots"], 2);
        let (code, _, said) = bad("cont create-snap home -s monday", dir);
        assert_eq!(code, 4);
        assert!(said.contains("'monday' already"), "{said}");
        let (code, _, said) = bad("cont destroy-snap home --snap tuesday", dir);
        assert_eq!(code, 3);
        assert!(said.contains("list-snap"), "{said}");
        good(&format!("cont destroy-snap home --epc {}", second["epoch"]), dir);
        good("cont destroy-snap home --snap monday", dir);
        assert_eq!(good("cont list-snap home", dir), value!([]));
        assert_eq!(bad("cont destroy-snap home", dir).0, 2);
    });
}

/// Whether files in `dir` may have user xattrs.
fn takes_xattrs(dir: &Path) -> bool {
    let flags = rustix::fs::XattrFlags::empty();
    let takes = rustix::fs::setxattr(dir, "user.test", b"x", flags).is_ok();
    if !takes {
        eprintln!("Skipped({} takes no user xattrs)", dir.display());
    }
    takes
}

#[test]
fn a_directory_of_another_filesystem_stands_for_a_container() {
    both_ways(|dir| {
        let place = tempfile::tempdir().unwrap();
        if !takes_xattrs(place.path()) {
            return;
        }
        let path = |name: &str| place.path().join(name);
        let shown = |name: &str| path(name).display().to_string();
        let data = shown("data");
        let made = good(&format!("cont create default data --path {data} --type posix"), dir);
        let mut text = [0; 200];
        let len = rustix::fs::getxattr(path("data"), "user.daos", &mut text).unwrap();
        let (pool, uuid) = (good("pool query", dir), made["uuid"].as_str().unwrap());
        let expected = format!("DAOS.POSIX://{}/{uuid}", pool["uuid"].as_str().unwrap());
        assert_eq!(std::str::from_utf8(&text[..len]).unwrap(), expected);
        std::fs::create_dir(path("data/below")).unwrap();
        for at in [data.clone(), shown("data/below")] {
            assert_eq!(good(&format!("cont query --path {at}"), dir)["label"], "data");
        }
        good(&format!("cont set-attr --path {data} dfuse-attr-time:1"), dir);
        good(&format!("cont set-prop --path {data} quota:1G,10"), dir);
        good(&format!("cont create-snap --path {data} --snap s"), dir);
        assert_eq!(good("cont list-attrs data", dir), value!(["dfuse-attr-time"]));
        // What is in the way is refused before anything is made.
        assert_eq!(bad(&format!("cont create other --path {data}"), dir).0, 4);
        assert_eq!(bad("cont query other", dir).0, 3);
        assert_eq!(bad(&format!("cont create other --path {}", shown("a/b")), dir).0, 3);
        let below = bad(&format!("cont destroy --path {}", shown("data/below")), dir);
        assert!(below.2.contains("shows none itself"), "{}", below.2);
        std::fs::remove_dir(path("data/below")).unwrap();
        good(&format!("cont destroy --path {data}"), dir);
        assert!(!path("data").exists());
        assert_eq!(bad("cont query data", dir).0, 3);
        // A label of its own, made with everything at once; a pool's name alone is the pool.
        let auto = shown("auto");
        let line =
            format!("cont create default --path {auto} --properties quota:1G,10 --attrs a:b");
        assert_eq!(good(&line, dir)["quota"], value!({"bytes": 1 << 30, "inodes": 10}));
        assert_eq!(good(&format!("cont get-attr --path {auto}"), dir), value!({"a": "b"}));
        let bad_attrs = format!("cont create x --path {} --attrs dfuse-attr-time:x", shown("x"));
        bad(&bad_attrs, dir);
        assert!(!path("x").exists());
        // Another directory for a container that is there.
        good(&format!("cont link home --path {}", shown("home")), dir);
        assert_eq!(good(&format!("cont query --path {}", shown("home")), dir)["label"], "home");
        assert!(
            bad(&format!("cont query --path {}", place.path().display()), dir)
                .2
                .contains("in no container")
        );
    });
}
