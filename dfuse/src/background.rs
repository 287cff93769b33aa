//! Going to the background: the command starts itself again as the daemon, waits until that is mounted or has failed,
//! says which, and ends with its exit code.
//!
//! The daemon's standard output is the pipe on which it reports, one line each: `progress TEXT`, `failed TEXT`,
//! `mounted TEXT`. It is a new process, not a fork: threads start only in it.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Said once when the daemon takes longer than this, and again as often.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the daemon says how it goes.
pub struct Reporter {
    /// False in the foreground: to the terminal.
    pipe: bool,
}

impl Reporter {
    #[must_use]
    pub fn new(daemon_child: bool) -> Self {
        Self { pipe: daemon_child }
    }

    pub fn progress(&self, text: &str) {
        self.say("progress", text);
    }

    pub fn failed(&self, text: &str) {
        self.say("failed", text);
    }

    /// An error means that nobody waits for the mount any more.
    pub fn mounted(&self, text: &str) -> io::Result<()> {
        if !self.pipe {
            eprintln!("dfuse: {text}");
            return Ok(());
        }
        let mut out = io::stdout();
        writeln!(out, "mounted {}", one_line(text))?;
        out.flush()
    }

    fn say(&self, word: &str, text: &str) {
        if !self.pipe {
            eprintln!("dfuse: {text}");
            return;
        }
        // Nobody may be listening; the log has it too.
        let mut out = io::stdout();
        let _ = writeln!(out, "{word} {}", one_line(text)).and_then(|()| out.flush());
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// In the daemon, once it is mounted: no terminal, no pipe, no directory is held.
pub fn detach() -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

/// In the daemon, first of all: out of the terminal's session, so that its Ctrl-C is not ours.
pub fn leave_session() {
    // Fails only for a process group's leader, which a child of the command is not.
    let _ = rustix::process::setsid();
    // In lists of processes; it would be `exe`, by how it was started.
    let _ = rustix::thread::set_name(c"dfuse");
}

/// In the command: starts the daemon and waits for its word.
pub fn start() -> ExitCode {
    match start_child() {
        Ok(child) => wait_for(child),
        Err(e) => {
            eprintln!("dfuse: the daemon cannot be started: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start_child() -> io::Result<Child> {
    // Not by name: the file may have been replaced or be outside PATH.
    Command::new("/proc/self/exe")
        .arg0("dfuse")
        .arg("--daemon-child")
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

fn wait_for(mut child: Child) -> ExitCode {
    let output = child.stdout.take().expect("standard output was asked for as a pipe");
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut doing = String::from("starting");
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => match line.split_once(' ') {
                Some(("mounted", text)) => {
                    println!("dfuse: {text}");
                    return ExitCode::SUCCESS;
                }
                Some(("failed", text)) => {
                    eprintln!("dfuse: {}", text.replace("\\n", "\n"));
                    let _ = child.wait();
                    return ExitCode::FAILURE;
                }
                Some(("progress", text)) => doing = text.into(),
                _ => {}
            },
            Err(RecvTimeoutError::Timeout) if io::stderr().is_terminal() => {
                eprintln!("dfuse: {doing} ({} s)", start.elapsed().as_secs());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let end = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
                eprintln!("dfuse: the daemon ended before it had mounted ({end})");
                return ExitCode::FAILURE;
            }
        }
    }
}
