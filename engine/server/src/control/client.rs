//! The asking side of the control socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::protocol::{
    Answer, Ask, Failure, FailureKind, LINE_BYTES_MAX, protocol, read_answer, write_ask,
};

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
        self.stream.get_mut().write_all(write_ask(ask).as_bytes()).map_err(lost)?;
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_BYTES_MAX as u64 + 1);
        bounded.read_until(b'\n', &mut line).map_err(lost)?;
        match line.last() {
            Some(b'\n') => read_answer(&line),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Some(_) if line.len() > LINE_BYTES_MAX => Err(protocol("the answer does not end")),
            Some(_) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Waits until the other side has closed the connection: after [`Ask::Stop`], until it has stopped.
    pub fn wait_for_end(mut self) {
        let _closed_or_lost = io::copy(&mut self.stream, &mut io::sink());
    }
}
