//! The C library's own functions behind our names, and raw system calls for when they are not known yet.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// The function of this name that comes after ours; null when there is none.
pub(crate) struct Real {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub(crate) fn get(&self) -> *mut c_void {
        let found = self.found.load(Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name is a C string; dlsym only looks it up. Hooks that run before `prepare` come here, too.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Relaxed);
        found
    }
}

/// Sets what `errno` says, and makes -1.
pub(crate) fn fail(errno: i32) -> isize {
    // SAFETY: the C library's errno of this thread is always there.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Runs before main: nothing is looked up by name in a signal handler later.
extern "C" fn prepare() {
    for real in crate::hooks::REALS {
        let _found = real.get();
    }
    crate::fds::inherit();
    if crate::environment::is_bypassed() {
        crate::doors::stay_away();
    } else {
        crate::report::prepare();
    }
    // SAFETY: handlers of ours, which only change atomics.
    unsafe { libc::pthread_atfork(Some(around_fork), Some(around_fork), Some(in_child)) };
}

/// Before and after, for what another thread opens in between.
extern "C" fn around_fork() {
    crate::fds::share_all();
}

extern "C" fn in_child() {
    crate::fds::inherit();
    crate::fds::nobody_moves();
    crate::fds::share_all();
    crate::doors::leave();
    crate::directories::leave();
    crate::report::inherit();
}

extern "C" fn finish() {
    crate::report::print();
}

#[used]
#[unsafe(link_section = ".init_array")]
static PREPARE: extern "C" fn() = prepare;
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;
