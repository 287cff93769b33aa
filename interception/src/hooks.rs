//! The C signatures: each makes its arguments into safe ones, and goes on to the C library if nothing was done.
//!
//! # Safety
//! Every hook is called as the function of the C library whose name it has: pointers are what that function's manual page says.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::transmute;

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::data::{self, At, Parts};
use crate::real::{Real, fail};
use crate::text::Text;
use crate::{Outcome, doors, fds, names, opening, report};

macro_rules! reals {
    ($($name:ident = $text:literal;)*) => {
        $(static $name: Real = Real::new($text);)*
        /// All of them, to be looked up before main.
        pub(crate) static REALS: &[&Real] = &[$(&$name),*];
    };
}

reals! {
    OPEN = c"open";
    OPENAT = c"openat";
    OPEN_2 = c"__open_2";
    OPENAT_2 = c"__openat_2";
    CLOSE = c"close";
    CLOSE_RANGE = c"close_range";
    CLOSEFROM = c"closefrom";
    DUP = c"dup";
    DUP2 = c"dup2";
    DUP3 = c"dup3";
    FCNTL = c"fcntl";
    READ = c"read";
    WRITE = c"write";
    PREAD = c"pread";
    PWRITE = c"pwrite";
    READV = c"readv";
    WRITEV = c"writev";
    PREADV = c"preadv";
    PWRITEV = c"pwritev";
    PREADV2 = c"preadv2";
    PWRITEV2 = c"pwritev2";
    COPY_FILE_RANGE = c"copy_file_range";
    READ_CHK = c"__read_chk";
    PREAD_CHK = c"__pread_chk";
    POSIX_SPAWN = c"posix_spawn";
    POSIX_SPAWNP = c"posix_spawnp";
    SYSTEM = c"system";
    POPEN = c"popen";
    EXIT_NOW = c"_exit";
    UNLINK = c"unlink";
    UNLINKAT = c"unlinkat";
    RMDIR = c"rmdir";
    REMOVE = c"remove";
    MKDIR = c"mkdir";
    MKDIRAT = c"mkdirat";
    SYMLINK = c"symlink";
    SYMLINKAT = c"symlinkat";
    LINK = c"link";
    LINKAT = c"linkat";
    RENAME = c"rename";
    RENAMEAT = c"renameat";
    RENAMEAT2 = c"renameat2";
}

/// The C library's function, called with these arguments.
macro_rules! call {
    ($real:ident, fn($($type:ty),*) -> $answer:ty, $($argument:expr),*) => {{
        // SAFETY: dlsym found it by its name, whose signature this is; the arguments are the caller's own.
        unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $answer>($real.get())($($argument),*) }
    }};
}

fn result(outcome: Outcome, bypass: impl FnOnce() -> ssize_t) -> ssize_t {
    match outcome {
        Outcome::Done(bytes) => bytes as ssize_t,
        Outcome::Failed(errno) => fail(errno),
        Outcome::Bypass(_turn) => bypass(),
    }
}

fn done(outcome: Outcome, bypass: impl FnOnce() -> c_int) -> c_int {
    match outcome {
        Outcome::Done(_) => 0,
        Outcome::Failed(errno) => fail(errno) as c_int,
        Outcome::Bypass(_) => bypass(),
    }
}

/// A path of the program; `None`: it can only be the kernel's.
fn text(path: *const c_char) -> Option<Text> {
    if doors::are_there() { Text::of(path) } else { None }
}

/// The memory of one call: parts of it, each where the program says.
struct Memory<'m>(&'m [iovec]);

impl Memory<'_> {
    /// Goes through the pieces of `from..from + len`: where each is, how long, and how far from `from`.
    fn pieces(&self, from: usize, len: usize, mut piece: impl FnMut(*mut u8, usize, usize)) {
        let (mut skip, mut done) = (from, 0);
        for part in self.0 {
            if skip >= part.iov_len {
                skip -= part.iov_len;
                continue;
            }
            let here = (part.iov_len - skip).min(len - done);
            piece(part.iov_base.cast::<u8>().wrapping_add(skip), here, done);
            (skip, done) = (0, done + here);
            if done == len {
                return;
            }
        }
    }
}

impl Parts for Memory<'_> {
    fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.iov_len).sum()
    }

    fn read(&self, from: usize, len: usize, take: &mut dyn FnMut(usize, &[u8])) {
        self.pieces(from, len, |base, len, at| {
            // SAFETY: the program gave this memory to be read for as long as the call takes.
            take(at, unsafe { std::slice::from_raw_parts(base, len) });
        });
    }

    fn fill(&mut self, from: usize, len: usize, fill: &mut dyn FnMut(usize, &mut [u8])) {
        self.pieces(from, len, |base, len, at| {
            // SAFETY: the program gave this memory to be written for as long as the call takes; its bytes are any bytes.
            fill(at, unsafe { std::slice::from_raw_parts_mut(base, len) });
        });
    }
}

/// `None`: what the program says of its parts is wrong, which the kernel is to tell it.
unsafe fn memory<'m>(parts: *const iovec, count: c_int) -> Option<Memory<'m>> {
    let count = usize::try_from(count)
        .ok()
        .filter(|count| (1..=libc::UIO_MAXIOV as usize).contains(count))?;
    // SAFETY: the program says that so many are there.
    let parts = unsafe { std::slice::from_raw_parts(parts, count) };
    let bytes = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.iov_len))?;
    (bytes <= isize::MAX as usize && parts.iter().all(|part| !part.iov_base.is_null()))
        .then_some(Memory(parts))
}

fn one(base: *mut c_void, len: size_t) -> [iovec; 1] {
    [iovec { iov_base: base, iov_len: len }]
}

/// As preadv2(2) has it.
fn at(offset: off_t) -> At {
    if offset == -1 { At::Offset } else { At::Position(offset) }
}

fn read_into(fd: c_int, parts: Option<Memory<'_>>, at: At) -> Outcome {
    parts.map_or(Outcome::Bypass(None), |mut parts| data::read(fd, &mut parts, at))
}

fn write_from(fd: c_int, parts: Option<Memory<'_>>, at: At) -> Outcome {
    parts.map_or(Outcome::Bypass(None), |parts| data::write(fd, &parts, at))
}

macro_rules! hooks {
    ($($(#[$doc:meta])* fn $($name:ident)+ ($($argument:ident: $type:ty),* $(,)?) -> $answer:ty $body:block)*) => {
        $(hooks!(@each [$($name)+] ($($argument: $type),*) -> $answer $body);)*
    };
    (@each [$($name:ident)+] $arguments:tt -> $answer:ty $body:block) => {
        $(hooks!(@one $name $arguments -> $answer $body);)+
    };
    (@one $name:ident ($($argument:ident: $type:ty),*) -> $answer:ty $body:block) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $answer $body
    };
}

hooks! {
    fn open open64 (path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        opening::open(flags, || call!(OPEN, fn(*const c_char, c_int, mode_t) -> c_int, path, flags, mode))
    }
    fn openat openat64 (dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        opening::open(flags, || {
            call!(OPENAT, fn(c_int, *const c_char, c_int, mode_t) -> c_int, dir, path, flags, mode)
        })
    }
    fn creat creat64 (path: *const c_char, mode: mode_t) -> c_int {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        opening::open(flags, || call!(OPEN, fn(*const c_char, c_int, mode_t) -> c_int, path, flags, mode))
    }
    fn __open_2 __open64_2 (path: *const c_char, flags: c_int) -> c_int {
        opening::open(flags, || call!(OPEN_2, fn(*const c_char, c_int) -> c_int, path, flags))
    }
    fn __openat_2 __openat64_2 (dir: c_int, path: *const c_char, flags: c_int) -> c_int {
        opening::open(flags, || call!(OPENAT_2, fn(c_int, *const c_char, c_int) -> c_int, dir, path, flags))
    }
    fn close __close (fd: c_int) -> c_int {
        fds::forget(fd);
        call!(CLOSE, fn(c_int) -> c_int, fd)
    }
    fn close_range (first: c_uint, last: c_uint, flags: c_int) -> c_int {
        fds::forget_range(first, last);
        call!(CLOSE_RANGE, fn(c_uint, c_uint, c_int) -> c_int, first, last, flags)
    }
    fn closefrom (first: c_int) -> () {
        fds::forget_range(first.max(0) as u32, u32::MAX);
        call!(CLOSEFROM, fn(c_int) -> (), first)
    }
    fn dup (fd: c_int) -> c_int {
        let new = call!(DUP, fn(c_int) -> c_int, fd);
        fds::duplicated(fd, new);
        new
    }
    fn dup2 __dup2 (fd: c_int, new: c_int) -> c_int {
        if fd != new {
            fds::forget(new);
        }
        let done = call!(DUP2, fn(c_int, c_int) -> c_int, fd, new);
        fds::duplicated(fd, done);
        done
    }
    fn dup3 (fd: c_int, new: c_int, flags: c_int) -> c_int {
        if fd != new {
            fds::forget(new);
        }
        let done = call!(DUP3, fn(c_int, c_int, c_int) -> c_int, fd, new, flags);
        fds::duplicated(fd, done);
        done
    }
    fn fcntl fcntl64 (fd: c_int, command: c_int, argument: usize) -> c_int {
        let answer = call!(FCNTL, fn(c_int, c_int, usize) -> c_int, fd, command, argument);
        if command == libc::F_DUPFD || command == libc::F_DUPFD_CLOEXEC {
            fds::duplicated(fd, answer);
        }
        answer
    }
    fn read __read (fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
        let parts = one(buffer, len);
        // SAFETY: these are ours, of the program's memory.
        let outcome = read_into(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Offset);
        result(outcome, || call!(READ, fn(c_int, *mut c_void, size_t) -> ssize_t, fd, buffer, len))
    }
    fn __read_chk (fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t {
        let parts = one(buffer, len);
        // SAFETY: as in `read`; where there is less room than that, the C library ends the program.
        let outcome = if len > room { Outcome::Bypass(None) } else { read_into(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Offset) };
        result(outcome, || {
            call!(READ_CHK, fn(c_int, *mut c_void, size_t, size_t) -> ssize_t, fd, buffer, len, room)
        })
    }
    fn write __write (fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
        let parts = one(buffer.cast_mut(), len);
        // SAFETY: as in `read`; it is only read from.
        let outcome = write_from(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Offset);
        result(outcome, || call!(WRITE, fn(c_int, *const c_void, size_t) -> ssize_t, fd, buffer, len))
    }
    fn pread pread64 __pread64 (fd: c_int, buffer: *mut c_void, len: size_t, offset: off_t) -> ssize_t {
        let parts = one(buffer, len);
        // SAFETY: as in `read`.
        let outcome = read_into(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Position(offset));
        result(outcome, || {
            call!(PREAD, fn(c_int, *mut c_void, size_t, off_t) -> ssize_t, fd, buffer, len, offset)
        })
    }
    fn __pread_chk __pread64_chk (fd: c_int, buffer: *mut c_void, len: size_t, offset: off_t, room: size_t) -> ssize_t {
        let parts = one(buffer, len);
        // SAFETY: as in `__read_chk`.
        let outcome = if len > room { Outcome::Bypass(None) } else { read_into(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Position(offset)) };
        result(outcome, || {
            call!(PREAD_CHK, fn(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t, fd, buffer, len, offset, room)
        })
    }
    fn pwrite pwrite64 __pwrite64 (fd: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
        let parts = one(buffer.cast_mut(), len);
        // SAFETY: as in `write`.
        let outcome = write_from(fd, unsafe { memory(parts.as_ptr(), 1) }, At::Position(offset));
        result(outcome, || {
            call!(PWRITE, fn(c_int, *const c_void, size_t, off_t) -> ssize_t, fd, buffer, len, offset)
        })
    }
    fn readv (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: the program says that they are there. A descriptor that is not the door's is not looked at.
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, unsafe { memory(parts, count) }, At::Offset) };
        result(outcome, || call!(READV, fn(c_int, *const iovec, c_int) -> ssize_t, fd, parts, count))
    }
    fn writev (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: as in `readv`.
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, unsafe { memory(parts, count) }, At::Offset) };
        result(outcome, || call!(WRITEV, fn(c_int, *const iovec, c_int) -> ssize_t, fd, parts, count))
    }
    fn preadv preadv64 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        // SAFETY: as in `readv`.
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, unsafe { memory(parts, count) }, At::Position(offset)) };
        result(outcome, || {
            call!(PREADV, fn(c_int, *const iovec, c_int, off_t) -> ssize_t, fd, parts, count, offset)
        })
    }
    fn pwritev pwritev64 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        // SAFETY: as in `readv`.
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, unsafe { memory(parts, count) }, At::Position(offset)) };
        result(outcome, || {
            call!(PWRITEV, fn(c_int, *const iovec, c_int, off_t) -> ssize_t, fd, parts, count, offset)
        })
    }
    fn preadv2 preadv64v2 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        // SAFETY: as in `readv`. What the flags ask for is the kernel's to do.
        let outcome = if flags != 0 || fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, unsafe { memory(parts, count) }, at(offset)) };
        result(outcome, || {
            call!(PREADV2, fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t, fd, parts, count, offset, flags)
        })
    }
    fn pwritev2 pwritev64v2 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        if flags != 0 {
            data::tell_size(fd);
        }
        // SAFETY: as in `preadv2`.
        let outcome = if flags != 0 || fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, unsafe { memory(parts, count) }, at(offset)) };
        result(outcome, || {
            call!(PWRITEV2, fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t, fd, parts, count, offset, flags)
        })
    }
    fn copy_file_range (from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t, len: size_t, flags: c_uint) -> ssize_t {
        data::tell_size(from);
        call!(COPY_FILE_RANGE, fn(c_int, *mut off_t, c_int, *mut off_t, size_t, c_uint) -> ssize_t, from, from_offset, to, to_offset, len, flags)
    }
    // A system call, and not the C library's: an allocator may ask for memory while names are looked up.
    fn mmap mmap64 (address: *mut c_void, len: size_t, access: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void {
        data::tell_size(fd);
        // SAFETY: the arguments are the caller's own.
        unsafe { libc::syscall(libc::SYS_mmap, address, len, access as libc::c_long, flags as libc::c_long, fd as libc::c_long, offset) as *mut c_void }
    }
    fn posix_spawn (pid: *mut c_void, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const c_void, environment: *const c_void) -> c_int {
        fds::share_all();
        let made = call!(POSIX_SPAWN, fn(*mut c_void, *const c_char, *const c_void, *const c_void, *const c_void, *const c_void) -> c_int, pid, path, actions, attributes, arguments, environment);
        fds::share_all();
        made
    }
    fn posix_spawnp (pid: *mut c_void, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const c_void, environment: *const c_void) -> c_int {
        fds::share_all();
        let made = call!(POSIX_SPAWNP, fn(*mut c_void, *const c_char, *const c_void, *const c_void, *const c_void, *const c_void) -> c_int, pid, path, actions, attributes, arguments, environment);
        fds::share_all();
        made
    }
    fn system (command: *const c_char) -> c_int {
        fds::share_all();
        let made = call!(SYSTEM, fn(*const c_char) -> c_int, command);
        fds::share_all();
        made
    }
    fn popen (command: *const c_char, mode: *const c_char) -> *mut c_void {
        fds::share_all();
        let made = call!(POPEN, fn(*const c_char, *const c_char) -> *mut c_void, command, mode);
        fds::share_all();
        made
    }
    fn unlink (path: *const c_char) -> c_int {
        let outcome = text(path).map_or(Outcome::Bypass(None), |path| names::unlink(libc::AT_FDCWD, &path, false));
        done(outcome, || call!(UNLINK, fn(*const c_char) -> c_int, path))
    }
    fn unlinkat (dir: c_int, path: *const c_char, flags: c_int) -> c_int {
        let known = flags & !libc::AT_REMOVEDIR == 0;
        let text = text(path).filter(|_| known);
        let outcome = text.map_or(Outcome::Bypass(None), |path| names::unlink(dir, &path, flags & libc::AT_REMOVEDIR != 0));
        done(outcome, || call!(UNLINKAT, fn(c_int, *const c_char, c_int) -> c_int, dir, path, flags))
    }
    fn rmdir (path: *const c_char) -> c_int {
        let outcome = text(path).map_or(Outcome::Bypass(None), |path| names::unlink(libc::AT_FDCWD, &path, true));
        done(outcome, || call!(RMDIR, fn(*const c_char) -> c_int, path))
    }
    fn remove (path: *const c_char) -> c_int {
        let outcome = text(path).map_or(Outcome::Bypass(None), |path| names::unlink(libc::AT_FDCWD, &path, false));
        done(outcome, || call!(REMOVE, fn(*const c_char) -> c_int, path))
    }
    fn mkdir (path: *const c_char, mode: mode_t) -> c_int {
        let outcome = text(path).map_or(Outcome::Bypass(None), |path| names::mkdir(libc::AT_FDCWD, &path, mode));
        done(outcome, || call!(MKDIR, fn(*const c_char, mode_t) -> c_int, path, mode))
    }
    fn mkdirat (dir: c_int, path: *const c_char, mode: mode_t) -> c_int {
        let outcome = text(path).map_or(Outcome::Bypass(None), |path| names::mkdir(dir, &path, mode));
        done(outcome, || call!(MKDIRAT, fn(c_int, *const c_char, mode_t) -> c_int, dir, path, mode))
    }
    fn symlink (target: *const c_char, path: *const c_char) -> c_int {
        let both = text(target).zip(text(path));
        let outcome = both.map_or(Outcome::Bypass(None), |(target, path)| names::symlink(&target, libc::AT_FDCWD, &path));
        done(outcome, || call!(SYMLINK, fn(*const c_char, *const c_char) -> c_int, target, path))
    }
    fn symlinkat (target: *const c_char, dir: c_int, path: *const c_char) -> c_int {
        let both = text(target).zip(text(path));
        let outcome = both.map_or(Outcome::Bypass(None), |(target, path)| names::symlink(&target, dir, &path));
        done(outcome, || call!(SYMLINKAT, fn(*const c_char, c_int, *const c_char) -> c_int, target, dir, path))
    }
    fn link (path: *const c_char, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let cwd = libc::AT_FDCWD;
        let outcome = both.map_or(Outcome::Bypass(None), |(path, to)| names::link(cwd, &path, cwd, &to, 0));
        done(outcome, || call!(LINK, fn(*const c_char, *const c_char) -> c_int, path, to_path))
    }
    fn linkat (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char, flags: c_int) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.map_or(Outcome::Bypass(None), |(path, to)| names::link(dir, &path, to_dir, &to, flags));
        done(outcome, || call!(LINKAT, fn(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int, dir, path, to_dir, to_path, flags))
    }
    fn rename (path: *const c_char, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let cwd = libc::AT_FDCWD;
        let outcome = both.map_or(Outcome::Bypass(None), |(path, to)| names::rename(cwd, &path, cwd, &to, 0));
        done(outcome, || call!(RENAME, fn(*const c_char, *const c_char) -> c_int, path, to_path))
    }
    fn renameat (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.map_or(Outcome::Bypass(None), |(path, to)| names::rename(dir, &path, to_dir, &to, 0));
        done(outcome, || call!(RENAMEAT, fn(c_int, *const c_char, c_int, *const c_char) -> c_int, dir, path, to_dir, to_path))
    }
    fn renameat2 (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char, flags: c_uint) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.map_or(Outcome::Bypass(None), |(path, to)| names::rename(dir, &path, to_dir, &to, flags));
        done(outcome, || call!(RENAMEAT2, fn(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int, dir, path, to_dir, to_path, flags))
    }
    fn _exit _Exit (status: c_int) -> ! {
        report::print();
        call!(EXIT_NOW, fn(c_int) -> !, status)
    }
}
