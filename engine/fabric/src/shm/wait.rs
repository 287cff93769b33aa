//! Waiting for a word of shared memory to change: a bounded spin, then the kernel.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

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

/// True as soon as `done` is, looked at for about `spins` turns.
pub(super) fn spin(spins: u32, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..spins {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    done()
}
