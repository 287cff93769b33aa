//! Stores, and the command on them.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

use daos_server::{Engine, EngineConfig};
use serde_json::Value;

pub fn daos(args: &[&str], store: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_daos"))
        .args(args)
        .arg("--embedded")
        .arg(store)
        .output()
        .unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn json(args: &[&str], store: &Path) -> (i32, Value) {
    let output = daos(&[args, &["--json"]].concat(), store);
    let value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status.code().unwrap(), value)
}

/// Makes a store with a pool and a container, and leaves it to nobody.
pub fn store(dir: &Path) {
    let engine = open(dir);
    engine.container("default", "home", true).unwrap();
    engine.stop().unwrap();
}

pub fn open(dir: &Path) -> Engine {
    let config = EngineConfig::new(dir, "a test");
    Engine::start(EngineConfig { create: true, size: Some(1 << 30), ..config }).unwrap()
}
