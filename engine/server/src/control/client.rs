//! The asking side of the control socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::protocol::{
    Answer, Ask, Failure, FailureKind, LINE_BYTES_MAX, protocol, read_answer, write_ask,
};

/// How long an answer may take that needs no work; a process that is stopped is found out sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a process that does not answer is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });

/// A connection to the process that holds a store.
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// `None`: nobody listens there.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some(parent) = path.parent() else { return Ok(None) };
        let nobody = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        let connected = File::open(parent).and_then(|directory| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            UnixStream::connect(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
        });
        match connected {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) if nobody(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        let lost = |error: io::Error| {
            let message = format!("the connection to the engine's process was lost: {error}");
            Failure::new(FailureKind::Stopped, message)
        };
        let began = Instant::now();
        self.stream.get_mut().set_read_timeout(Some(LOOK_EVERY)).map_err(lost)?;
        self.stream.get_mut().write_all(write_ask(ask).as_bytes()).map_err(lost)?;
        let mut line = Vec::new();
        loop {
            let left = LINE_BYTES_MAX + 1 - line.len();
            let mut bounded = (&mut self.stream).take(left as u64);
            match bounded.read_until(b'\n', &mut line) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(lost(error)),
            }
            self.look_at_the_other_side(began.elapsed(), ask)?;
        }
        match line.last() {
            Some(b'\n') => read_answer(&line),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Some(_) if line.len() > LINE_BYTES_MAX => Err(protocol("the answer does not end")),
            Some(_) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Why there will be no answer, or not soon.
    fn look_at_the_other_side(&self, waited: Duration, ask: &Ask) -> Result<(), Failure> {
        if let Some(failure) = self.stopped() {
            return Err(failure);
        }
        match self.peer() {
            Some(pid) if !ask.may_take_long() && waited > PATIENCE => {
                let message = format!(
                    "process {pid}, which holds the store, has not answered for {} s; its log may say why",
                    waited.as_secs()
                );
                Err(Failure::new(FailureKind::Failed, message))
            }
            _ => Ok(()),
        }
    }

    fn peer(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(self.stream.get_ref());
        Some(peer.ok()?.pid.as_raw_nonzero().get())
    }

    /// That the process at the other side is stopped, if it is.
    pub(crate) fn stopped(&self) -> Option<Failure> {
        let pid = self.peer().filter(|pid| is_stopped(*pid))?;
        let message = format!(
            "process {pid}, which holds the store, is stopped and answers nobody; `kill -CONT {pid}` lets it go on"
        );
        Some(Failure::new(FailureKind::Failed, message))
    }

    /// Waits until the other side has closed the connection: after [`Ask::Stop`], until it has stopped.
    pub fn wait_for_end(mut self) {
        let _closed_or_lost = io::copy(&mut self.stream, &mut io::sink());
    }
}

/// By a signal, or by a debugger.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name, in parentheses, may hold anything.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_is_stopped_is_named() {
        let child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn();
        let mut child = child.expect("sleep is everywhere");
        let pid = rustix::process::Pid::from_child(&child);
        assert!(!is_stopped(pid.as_raw_nonzero().get()));
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !is_stopped(pid.as_raw_nonzero().get()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_stopped(pid.as_raw_nonzero().get()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_answer_may_come_late_and_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let answer = crate::control::protocol::write_answer(Ok(Answer::Done));
            let (first, rest) = answer.as_bytes().split_at(5);
            stream.write_all(first).unwrap();
            std::thread::sleep(LOOK_EVERY + LOOK_EVERY / 2);
            stream.write_all(rest).unwrap();
        });
        let mut connection = Connection::open(&path).unwrap().unwrap();
        assert_eq!(connection.ask(&Ask::Sync), Ok(Answer::Done));
        server.join().unwrap();
    }
}
