//! What a bench leaves behind when it is told to stop: nothing. Mounts, daemons, children and files are known here.
//!
//! # Order
//! [`watch`] before the first thread and the first child: they inherit the mask, so that only the waiting thread is told.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::mounted::script;

const REMOVE_TRIES: usize = 30;

struct Left {
    scratch: Option<PathBuf>,
    /// Kind and state directory.
    mounts: Vec<(String, PathBuf)>,
    child: Option<Pid>,
}

static LEFT: Mutex<Left> = Mutex::new(Left { scratch: None, mounts: Vec::new(), child: None });

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on Ctrl-C and the like clean up and end the process.
pub fn watch(scratch: &Path) -> io::Result<()> {
    left().scratch = Some(scratch.to_owned());
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    thread::spawn(move || {
        if let Ok(signal) = set.wait() {
            eprintln!("daos-bench: {signal}: cleaning up");
            clear();
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Holds the lock to the end: nothing new is remembered any more.
fn clear() {
    let left = left();
    if let Some(child) = left.child {
        let _ = killpg(child, Signal::SIGKILL);
    }
    for (kind, state) in &left.mounts {
        let verb = if kind == "dfuse" { "kill" } else { "down" };
        let _ = Command::new(script()).arg(verb).arg(state).stdin(Stdio::null()).status();
    }
    if let Some(scratch) = &left.scratch {
        // Who has just been killed may still be busy in there.
        for _ in 0..REMOVE_TRIES {
            if fs::remove_dir_all(scratch).is_ok() || !scratch.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    // The other threads must not go on and mount again.
    std::mem::forget(left);
}

pub fn remember(kind: &str, state: &Path) {
    left().mounts.push((kind.to_owned(), state.to_owned()));
}

pub fn forget(state: &Path) {
    left().mounts.retain(|(_, other)| other != state);
}

/// Runs a command in a process group of its own, which ends with the bench.
pub fn run(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = {
        let mut left = left();
        let child = command.spawn()?;
        left.child = i32::try_from(child.id()).ok().map(Pid::from_raw);
        child
    };
    let output = child.wait_with_output();
    left().child = None;
    output
}
