//! Waiting for a word of shared memory to change: a bounded spin, then the kernel.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::thread::futex;

/// Sleeps while the word is `value`, at most for `patience`; may return at any time.
pub(super) fn sleep(word: &AtomicU32, value: u32, patience: Duration) {
    let patience = futex::Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    // Woken, changed already, interrupted or over: the caller looks.
    let _ = futex::wait(word, futex::Flags::empty(), value, Some(&patience));
}

/// Wakes who sleeps on the word, in whatever process.
pub(super) fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// How a caller waits: it looks for some 30 us without a pause. For longer ones it looks on, and lets whoever else wants this CPU have it in
/// between, if they have been short lately: to sleep and to be woken costs two CPUs more than that. Then it sleeps.
#[derive(Debug)]
pub struct Patience {
    /// Average of waits beyond the first look, in nanoseconds.
    lately: AtomicU32,
}

/// Turns of the first look.
const SPINS: u32 = 1500;
/// Turns between two times that others may have the CPU.
const SPINS_MORE: u32 = 64;
/// The second look ends.
const LONGEST: Duration = Duration::from_micros(200);
/// Average waits for which it is worth it.
const SHORT_NS: u32 = 150_000;
/// What counts of a wait at most.
const COUNTED_NS: u32 = 2_000_000;

impl Patience {
    #[must_use]
    pub const fn new() -> Self {
        Self { lately: AtomicU32::new(0) }
    }

    /// Whether longer waits have been short.
    fn is_worth_it(&self) -> bool {
        self.lately.load(Relaxed) < SHORT_NS
    }

    fn waited(&self, time: Duration) {
        let ns = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX).min(COUNTED_NS);
        let lately = self.lately.load(Relaxed);
        // Of threads that note at the same time, one is lost.
        self.lately.store(lately - lately / 8 + ns / 8, Relaxed);
    }

    /// Waits until `done`; `sleep` is what does so when it takes longer, and says whether it was done.
    pub(super) fn wait(&self, done: impl Fn() -> bool, sleep: impl FnOnce() -> bool) -> bool {
        if spin(SPINS, &done) {
            return true;
        }
        let begin = Instant::now();
        let soon = || begin.elapsed() < LONGEST;
        let mut is_done = false;
        while self.is_worth_it() && !is_done && soon() {
            rustix::thread::sched_yield();
            is_done = spin(SPINS_MORE, &done);
        }
        is_done = is_done || sleep();
        self.waited(begin.elapsed());
        is_done
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

/// True as soon as `done` is, looked at for so many turns.
fn spin(spins: u32, done: impl Fn() -> bool) -> bool {
    for _ in 0..spins {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_long_sleeps_at_once_until_waits_are_short_again() {
        let patience = Patience::new();
        assert!(patience.is_worth_it());
        (0..20).for_each(|_| patience.waited(Duration::from_secs(1)));
        assert!(!patience.is_worth_it());
        assert!(patience.wait(|| false, || true));
        (0..40).for_each(|_| patience.waited(Duration::from_micros(60)));
        assert!(patience.is_worth_it());
    }

    #[test]
    fn what_is_done_soon_needs_no_sleep() {
        let begin = Instant::now();
        let done = || begin.elapsed() > Duration::from_micros(100);
        // Not in time on a machine that has other things to do.
        assert!(Patience::new().wait(done, || begin.elapsed() > LONGEST));
    }
}
