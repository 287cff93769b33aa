//! `daos filesystem scrub`: drives the store's scrub step by step, shows how far it is, and tells what it finds with the file's path.
//!
//! The store remembers nothing of a scrub: it ends when nobody asks for the next step.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use daos_server::control::{Answer, Ask, Failure, FailureKind, ScrubFinding, ScrubStep};
use daos_types::ByteSize;
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use crate::commands::unexpected;
use crate::output;
use crate::status;
use crate::store::Store;

/// What one step reads.
const STEP_BYTES: u64 = 1 << 20;
/// Beside users of a mount, a scrub works at most one part in so many of the time.
const SHARE: u32 = 4;
const TICK: Duration = Duration::from_millis(500);
/// Where nobody watches a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Exit code when it was stopped before its end and had found nothing.
const STOPPED: u8 = 130;

#[derive(Args, Debug)]
pub struct How {
    /// A path in the mount, or the store
    pub path: Option<std::path::PathBuf>,
    /// Bytes to read each second at most [default: a quarter of the time when the store is mounted, all of it otherwise]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<ByteSize>,
}

fn rate(text: &str) -> Result<ByteSize, String> {
    match text.parse()? {
        ByteSize(0) => {
            Err("at no bytes each second it would never end; leave out --rate for its own pace"
                .into())
        }
        rate => Ok(rate),
    }
}

struct Scrub {
    as_json: bool,
    started: Instant,
    spoke: Instant,
    terminal: bool,
    bytes: u64,
    /// What there is to read, about.
    of: u64,
    findings: u64,
}

/// Runs to its end or to Ctrl-C; the exit code.
pub fn run(path: Option<&Path>, how: &How, as_json: bool) -> Result<u8, Failure> {
    // Before the store has threads: they inherit it.
    let interrupted = interrupted();
    let mut store = Store::open(path, true)?;
    let mut scrub = Scrub::new(as_json, used(&mut store)?);
    let whole = scrub.all(&mut store, how, &interrupted);
    let closed = store.close();
    scrub.end_line();
    let whole = whole?;
    closed?;
    let code = match (scrub.findings, whole) {
        (0, true) => status::DONE,
        (0, false) => STOPPED,
        _ => status::DAMAGED,
    };
    scrub.summary(whole, code);
    Ok(code)
}

/// Set by Ctrl-C; a second one ends the process as ever.
fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    if set.thread_block().is_ok() {
        let told = flag.clone();
        std::thread::spawn(move || {
            while set.wait().is_ok() {
                if told.swap(true, Ordering::SeqCst) {
                    std::process::exit(i32::from(STOPPED));
                }
            }
        });
    }
    flag
}

/// Bytes that are in use.
fn used(store: &mut Store) -> Result<u64, Failure> {
    let pools = match store.ask(Ask::PoolList)? {
        Answer::Pools(pools) => pools,
        other => return Err(unexpected(&other)),
    };
    let Some(pool) = pools.into_iter().next() else { return Ok(0) };
    match store.ask(Ask::PoolQuery { pool: pool.uuid.to_string() }) {
        Ok(Answer::Pool(pool)) => Ok(pool.used),
        Ok(other) => Err(unexpected(&other)),
        // Its tables may be what is damaged.
        Err(failure) if failure.kind == FailureKind::Damaged => Ok(0),
        Err(failure) => Err(failure),
    }
}

impl Scrub {
    fn new(as_json: bool, of: u64) -> Self {
        let now = Instant::now();
        let terminal = io::stderr().is_terminal();
        Self { as_json, started: now, spoke: now, terminal, bytes: 0, of, findings: 0 }
    }

    /// Whether it came to the end.
    fn all(&mut self, store: &mut Store, how: &How, stop: &AtomicBool) -> Result<bool, Failure> {
        let mut place = String::new();
        loop {
            if stop.load(Ordering::SeqCst) {
                return Ok(false);
            }
            let began = Instant::now();
            let step = self.step(store, place, how)?;
            self.progress();
            let Some(next) = step.next else { return Ok(true) };
            place = next;
            let until = Instant::now() + self.pause(began.elapsed(), store.is_mounted(), how);
            while !stop.load(Ordering::SeqCst) && Instant::now() < until {
                std::thread::sleep(until.saturating_duration_since(Instant::now()).min(TICK / 5));
                self.progress();
            }
        }
    }

    fn step(&mut self, store: &mut Store, place: String, how: &How) -> Result<ScrubStep, Failure> {
        let bytes_max = how.rate.map_or(STEP_BYTES, |rate| STEP_BYTES.min(rate.0 / 4));
        let step = match store.ask(Ask::Scrub { place, bytes_max })? {
            Answer::Scrubbed(step) => step,
            other => return Err(unexpected(&other)),
        };
        self.bytes += step.bytes;
        for finding in &step.findings {
            let path = match (finding.container, finding.object) {
                (Some(container), Some(object)) => Some(store.whose(container, object)?),
                _ => None,
            };
            self.tell(finding, path.as_deref());
        }
        Ok(step)
    }

    fn pause(&self, worked: Duration, mounted: bool, how: &How) -> Duration {
        match how.rate {
            Some(ByteSize(rate)) => {
                let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
                due.saturating_sub(self.started.elapsed())
            }
            None if mounted => worked * (SHARE - 1),
            None => Duration::ZERO,
        }
    }

    fn tell(&mut self, finding: &ScrubFinding, path: Option<&str>) {
        self.findings += 1;
        if self.as_json {
            let mut value = json!({ "finding": finding });
            value["finding"]["path"] = path.into();
            return line(&value);
        }
        self.end_line();
        let path = path.map_or(String::new(), |path| format!(": {path}"));
        print(&format!("{}{path}: {}\n", finding.what, finding.message));
    }

    fn progress(&mut self) {
        if self.as_json && self.spoke.elapsed() >= 2 * TICK {
            self.spoke = Instant::now();
            line(&json!({ "progress": {
                "bytes": self.bytes, "of": self.of, "findings": self.findings,
            } }));
        } else if !self.as_json
            && self.spoke.elapsed() >= if self.terminal { TICK } else { LINE_EVERY }
        {
            self.spoke = Instant::now();
            let share = (self.bytes * 100).checked_div(self.of).unwrap_or(0).min(99);
            let text = format!(
                "daos: scrubbed {} of about {} ({share} %), {} findings",
                ByteSize(self.bytes),
                ByteSize(self.of),
                self.findings
            );
            if self.terminal {
                eprint!("\r\x1b[K{text}");
                let _ = io::stderr().flush();
            } else {
                eprintln!("{text}");
            }
        }
    }

    fn end_line(&self) {
        if self.terminal && !self.as_json {
            eprint!("\r\x1b[K");
        }
    }

    fn summary(&self, whole: bool, code: u8) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.as_json {
            let summary = json!({
                "bytes": self.bytes, "findings": self.findings, "complete": whole, "seconds": seconds,
            });
            return line(&output::answer(&summary, None, code));
        }
        let end = if whole { "everything was read" } else { "stopped before its end" };
        let found = match self.findings {
            0 => "no damage was found".to_owned(),
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        };
        print(&format!("{} in {seconds:.1} s, {end}: {found}\n", ByteSize(self.bytes)));
    }
}

fn line(value: &Value) {
    print(&format!("{value}\n"));
}

/// Nobody reads it: then nothing can be said about that either.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
