//! A word on standard error for whoever waits longer than two seconds.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);

/// Speaks until it is dropped.
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// On a terminal one line that counts; elsewhere one line.
    pub fn start(doing: String) -> Self {
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let terminal = io::stderr().is_terminal();
            let mut wait = PATIENCE;
            let mut spoken = false;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if terminal {
                    eprint!("\rdaos: {doing} ({} s)", start.elapsed().as_secs());
                    let _ = io::stderr().flush();
                } else if !spoken {
                    eprintln!("daos: {doing} ...");
                }
                (spoken, wait) = (true, TICK);
            }
            if spoken && terminal {
                eprint!("\r\x1b[K");
            }
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
