//! Signals that end the daemon, received by one thread that waits for them.
//!
//! # Order
//! [`Signals::block`] before the first thread starts: threads inherit the mask, so that only the waiting thread is told.

use nix::sys::signal::{SigSet, Signal};

pub struct Signals(SigSet);

impl Signals {
    /// Keeps the signals for [`Signals::wait`]. A lost terminal ends only what runs in one. A file that may not grow (`ulimit -f`) is
    /// an error of the write, and ends nothing.
    pub fn block(foreground: bool) -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        SigSet::from(Signal::SIGXFSZ).thread_block()?;
        if !foreground {
            set.remove(Signal::SIGHUP);
        }
        Ok(Self(set))
    }

    /// The name of the next one.
    pub fn wait(&self) -> nix::Result<&'static str> {
        self.0.wait().map(Signal::as_str)
    }
}
