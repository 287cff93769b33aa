//! The C signatures: each makes its arguments into safe ones, and goes on to the C library if nothing was done.
//!
//! # Safety
//! Every hook is called as the function of the C library whose name it has: pointers are what that function's manual page says.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::transmute;

use libc::{gid_t, iovec, mode_t, off_t, size_t, ssize_t, timespec, timeval, uid_t, utimbuf};

use crate::c::{
    Memory, STATX_KNOWN, at, memory, one, room, seconds, stat_of, statx_of, times, times_of,
};
use crate::data::{self, At};
use crate::directories::Parent;
use crate::inodes::{self, Path};
use crate::real::{Real, fail};
use crate::stats::{self, Answered};
use crate::text::Text;
use crate::{Done, Outcome, doors, fds, names, opening, report};

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
    FSYNC = c"fsync";
    FDATASYNC = c"fdatasync";
    CHMOD = c"chmod";
    FCHMODAT = c"fchmodat";
    CHOWN = c"chown";
    LCHOWN = c"lchown";
    FCHOWNAT = c"fchownat";
    UTIMENSAT = c"utimensat";
    UTIMES = c"utimes";
    LUTIMES = c"lutimes";
    FUTIMESAT = c"futimesat";
    UTIME = c"utime";
    SETXATTR = c"setxattr";
    LSETXATTR = c"lsetxattr";
    GETXATTR = c"getxattr";
    LGETXATTR = c"lgetxattr";
    LISTXATTR = c"listxattr";
    LLISTXATTR = c"llistxattr";
    REMOVEXATTR = c"removexattr";
    LREMOVEXATTR = c"lremovexattr";
    SETUID = c"setuid";
    SETGID = c"setgid";
    SETEUID = c"seteuid";
    SETEGID = c"setegid";
    SETREUID = c"setreuid";
    SETREGID = c"setregid";
    SETRESUID = c"setresuid";
    SETRESGID = c"setresgid";
    SETFSUID = c"setfsuid";
    SETFSGID = c"setfsgid";
    SETGROUPS = c"setgroups";
    INITGROUPS = c"initgroups";
    CAPSET = c"capset";
    CHROOT = c"chroot";
    UNSHARE = c"unshare";
    SETNS = c"setns";
    STAT = c"stat";
    LSTAT = c"lstat";
    FSTATAT = c"fstatat";
    STATX = c"statx";
    XSTAT = c"__xstat";
    LXSTAT = c"__lxstat";
    FXSTATAT = c"__fxstatat";
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

fn done<T: TryFrom<isize>>(done: Done, bypass: impl FnOnce() -> T) -> T {
    let result = match done {
        Some(Ok(value)) => value as isize,
        Some(Err(errno)) => fail(errno),
        None => return bypass(),
    };
    T::try_from(result).unwrap_or_else(|_| bypass())
}

/// A path of the program; `None`: it can only be the kernel's.
fn text(path: *const c_char) -> Option<Text> {
    if doors::are_there() { Text::of(path) } else { None }
}

/// A path that is to be looked at, if that may be the door's.
fn looked_at(path: *const c_char) -> Option<Text> {
    if stats::are_looked_at() { text(path) } else { None }
}

/// The door of the directory that a path is in.
fn door(dir: c_int, path: *const c_char) -> Option<usize> {
    let path = text(path)?;
    doors::door_of(Parent::find(dir, &path)?.device)
}

/// A path is opened.
fn opened(path: *const c_char) {
    if let Some(path) = looked_at(path) {
        stats::opens(&path);
    }
}

/// What stat(2) answers: into the program's buffer, by whoever knows it.
fn stat_into(
    to: *mut libc::stat,
    answered: Option<Result<Answered, i32>>,
    bypass: impl FnOnce() -> c_int,
) -> c_int {
    match answered {
        Some(Ok(answered)) => {
            // SAFETY: as stat(2) has it.
            unsafe { to.write(stat_of(&answered)) };
            0
        }
        Some(Err(errno)) => fail(errno) as c_int,
        None => {
            let done = bypass();
            if done == 0 {
                // SAFETY: the kernel has just written there.
                stats::seen(unsafe { (*to).st_dev });
            }
            done
        }
    }
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
        opened(path);
        opening::open(flags, || door(libc::AT_FDCWD, path), || call!(OPEN, fn(*const c_char, c_int, mode_t) -> c_int, path, flags, mode))
    }
    fn openat openat64 (dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        opened(path);
        opening::open(flags, || door(dir, path), || {
            call!(OPENAT, fn(c_int, *const c_char, c_int, mode_t) -> c_int, dir, path, flags, mode)
        })
    }
    fn creat creat64 (path: *const c_char, mode: mode_t) -> c_int {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
        opening::open(flags, || door(libc::AT_FDCWD, path), || call!(OPEN, fn(*const c_char, c_int, mode_t) -> c_int, path, flags, mode))
    }
    fn __open_2 __open64_2 (path: *const c_char, flags: c_int) -> c_int {
        opened(path);
        opening::open(flags, || door(libc::AT_FDCWD, path), || call!(OPEN_2, fn(*const c_char, c_int) -> c_int, path, flags))
    }
    fn __openat_2 __openat64_2 (dir: c_int, path: *const c_char, flags: c_int) -> c_int {
        opened(path);
        opening::open(flags, || door(dir, path), || call!(OPENAT_2, fn(c_int, *const c_char, c_int) -> c_int, dir, path, flags))
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
        let outcome = read_into(fd, memory(parts.as_ptr(), 1), At::Offset);
        result(outcome, || call!(READ, fn(c_int, *mut c_void, size_t) -> ssize_t, fd, buffer, len))
    }
    fn __read_chk (fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t {
        let parts = one(buffer, len);
        // Where there is less room than that, the C library ends the program.
        let outcome = if len > room { Outcome::Bypass(None) } else { read_into(fd, memory(parts.as_ptr(), 1), At::Offset) };
        result(outcome, || {
            call!(READ_CHK, fn(c_int, *mut c_void, size_t, size_t) -> ssize_t, fd, buffer, len, room)
        })
    }
    fn write __write (fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
        let parts = one(buffer.cast_mut(), len);
        let outcome = write_from(fd, memory(parts.as_ptr(), 1), At::Offset);
        result(outcome, || call!(WRITE, fn(c_int, *const c_void, size_t) -> ssize_t, fd, buffer, len))
    }
    fn pread pread64 __pread64 (fd: c_int, buffer: *mut c_void, len: size_t, offset: off_t) -> ssize_t {
        let parts = one(buffer, len);
        let outcome = read_into(fd, memory(parts.as_ptr(), 1), At::Position(offset));
        result(outcome, || {
            call!(PREAD, fn(c_int, *mut c_void, size_t, off_t) -> ssize_t, fd, buffer, len, offset)
        })
    }
    fn __pread_chk __pread64_chk (fd: c_int, buffer: *mut c_void, len: size_t, offset: off_t, room: size_t) -> ssize_t {
        let parts = one(buffer, len);
        let outcome = if len > room { Outcome::Bypass(None) } else { read_into(fd, memory(parts.as_ptr(), 1), At::Position(offset)) };
        result(outcome, || {
            call!(PREAD_CHK, fn(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t, fd, buffer, len, offset, room)
        })
    }
    fn pwrite pwrite64 __pwrite64 (fd: c_int, buffer: *const c_void, len: size_t, offset: off_t) -> ssize_t {
        let parts = one(buffer.cast_mut(), len);
        let outcome = write_from(fd, memory(parts.as_ptr(), 1), At::Position(offset));
        result(outcome, || {
            call!(PWRITE, fn(c_int, *const c_void, size_t, off_t) -> ssize_t, fd, buffer, len, offset)
        })
    }
    fn readv (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        // The memory of a descriptor that is not the door's is not looked at.
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, memory(parts, count), At::Offset) };
        result(outcome, || call!(READV, fn(c_int, *const iovec, c_int) -> ssize_t, fd, parts, count))
    }
    fn writev (fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, memory(parts, count), At::Offset) };
        result(outcome, || call!(WRITEV, fn(c_int, *const iovec, c_int) -> ssize_t, fd, parts, count))
    }
    fn preadv preadv64 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, memory(parts, count), At::Position(offset)) };
        result(outcome, || {
            call!(PREADV, fn(c_int, *const iovec, c_int, off_t) -> ssize_t, fd, parts, count, offset)
        })
    }
    fn pwritev pwritev64 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        let outcome = if fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, memory(parts, count), At::Position(offset)) };
        result(outcome, || {
            call!(PWRITEV, fn(c_int, *const iovec, c_int, off_t) -> ssize_t, fd, parts, count, offset)
        })
    }
    fn preadv2 preadv64v2 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        // What the flags ask for is the kernel's to do.
        let outcome = if flags != 0 || fds::known(fd).is_none() { Outcome::Bypass(None) } else { read_into(fd, memory(parts, count), at(offset)) };
        result(outcome, || {
            call!(PREADV2, fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t, fd, parts, count, offset, flags)
        })
    }
    fn pwritev2 pwritev64v2 (fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        if flags != 0 {
            data::tell_size(fd);
        }
        let outcome = if flags != 0 || fds::known(fd).is_none() { Outcome::Bypass(None) } else { write_from(fd, memory(parts, count), at(offset)) };
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
        let outcome = text(path).and_then(|path| names::unlink(libc::AT_FDCWD, &path, false));
        done(outcome, || call!(UNLINK, fn(*const c_char) -> c_int, path))
    }
    fn unlinkat (dir: c_int, path: *const c_char, flags: c_int) -> c_int {
        let known = flags & !libc::AT_REMOVEDIR == 0;
        let text = text(path).filter(|_| known);
        let outcome = text.and_then(|path| names::unlink(dir, &path, flags & libc::AT_REMOVEDIR != 0));
        done(outcome, || call!(UNLINKAT, fn(c_int, *const c_char, c_int) -> c_int, dir, path, flags))
    }
    fn rmdir (path: *const c_char) -> c_int {
        let outcome = text(path).and_then(|path| names::unlink(libc::AT_FDCWD, &path, true));
        done(outcome, || call!(RMDIR, fn(*const c_char) -> c_int, path))
    }
    fn remove (path: *const c_char) -> c_int {
        // The C library's tells a directory by that error.
        let outcome = text(path).and_then(|path| names::unlink(libc::AT_FDCWD, &path, false)).filter(|done| *done != Err(libc::EISDIR));
        done(outcome, || call!(REMOVE, fn(*const c_char) -> c_int, path))
    }
    fn mkdir (path: *const c_char, mode: mode_t) -> c_int {
        let outcome = text(path).and_then(|path| names::mkdir(libc::AT_FDCWD, &path, mode));
        done(outcome, || call!(MKDIR, fn(*const c_char, mode_t) -> c_int, path, mode))
    }
    fn mkdirat (dir: c_int, path: *const c_char, mode: mode_t) -> c_int {
        let outcome = text(path).and_then(|path| names::mkdir(dir, &path, mode));
        done(outcome, || call!(MKDIRAT, fn(c_int, *const c_char, mode_t) -> c_int, dir, path, mode))
    }
    fn symlink (target: *const c_char, path: *const c_char) -> c_int {
        let both = text(target).zip(text(path));
        let outcome = both.and_then(|(target, path)| names::symlink(&target, libc::AT_FDCWD, &path));
        done(outcome, || call!(SYMLINK, fn(*const c_char, *const c_char) -> c_int, target, path))
    }
    fn symlinkat (target: *const c_char, dir: c_int, path: *const c_char) -> c_int {
        let both = text(target).zip(text(path));
        let outcome = both.and_then(|(target, path)| names::symlink(&target, dir, &path));
        done(outcome, || call!(SYMLINKAT, fn(*const c_char, c_int, *const c_char) -> c_int, target, dir, path))
    }
    fn link (path: *const c_char, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let cwd = libc::AT_FDCWD;
        let outcome = both.and_then(|(path, to)| names::link((cwd, &path), (cwd, &to), 0));
        done(outcome, || call!(LINK, fn(*const c_char, *const c_char) -> c_int, path, to_path))
    }
    fn linkat (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char, flags: c_int) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.and_then(|(path, to)| names::link((dir, &path), (to_dir, &to), flags));
        done(outcome, || call!(LINKAT, fn(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int, dir, path, to_dir, to_path, flags))
    }
    fn rename (path: *const c_char, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let cwd = libc::AT_FDCWD;
        let outcome = both.and_then(|(path, to)| names::rename((cwd, &path), (cwd, &to), 0));
        done(outcome, || call!(RENAME, fn(*const c_char, *const c_char) -> c_int, path, to_path))
    }
    fn renameat (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.and_then(|(path, to)| names::rename((dir, &path), (to_dir, &to), 0));
        done(outcome, || call!(RENAMEAT, fn(c_int, *const c_char, c_int, *const c_char) -> c_int, dir, path, to_dir, to_path))
    }
    fn renameat2 (dir: c_int, path: *const c_char, to_dir: c_int, to_path: *const c_char, flags: c_uint) -> c_int {
        let both = text(path).zip(text(to_path));
        let outcome = both.and_then(|(path, to)| names::rename((dir, &path), (to_dir, &to), flags));
        done(outcome, || call!(RENAMEAT2, fn(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int, dir, path, to_dir, to_path, flags))
    }
    fn fsync (fd: c_int) -> c_int {
        done(data::sync(fd, false), || call!(FSYNC, fn(c_int) -> c_int, fd))
    }
    fn fdatasync (fd: c_int) -> c_int {
        done(data::sync(fd, true), || call!(FDATASYNC, fn(c_int) -> c_int, fd))
    }
    fn chmod (path: *const c_char, mode: mode_t) -> c_int {
        let outcome = text(path).and_then(|path| inodes::chmod(Path::here(&path, true), mode));
        done(outcome, || call!(CHMOD, fn(*const c_char, mode_t) -> c_int, path, mode))
    }
    fn fchmodat (dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int {
        let outcome = text(path).and_then(|path| inodes::chmod(Path::at(dir, &path, flags)?, mode));
        done(outcome, || call!(FCHMODAT, fn(c_int, *const c_char, mode_t, c_int) -> c_int, dir, path, mode, flags))
    }
    fn chown (path: *const c_char, uid: uid_t, gid: gid_t) -> c_int {
        let outcome = text(path).and_then(|path| inodes::chown(Path::here(&path, true), uid, gid));
        done(outcome, || call!(CHOWN, fn(*const c_char, uid_t, gid_t) -> c_int, path, uid, gid))
    }
    fn lchown (path: *const c_char, uid: uid_t, gid: gid_t) -> c_int {
        let outcome = text(path).and_then(|path| inodes::chown(Path::here(&path, false), uid, gid));
        done(outcome, || call!(LCHOWN, fn(*const c_char, uid_t, gid_t) -> c_int, path, uid, gid))
    }
    fn fchownat (dir: c_int, path: *const c_char, uid: uid_t, gid: gid_t, flags: c_int) -> c_int {
        let outcome = text(path).and_then(|path| inodes::chown(Path::at(dir, &path, flags)?, uid, gid));
        done(outcome, || call!(FCHOWNAT, fn(c_int, *const c_char, uid_t, gid_t, c_int) -> c_int, dir, path, uid, gid, flags))
    }
    fn utimensat (dir: c_int, path: *const c_char, to: *const timespec, flags: c_int) -> c_int {
        let outcome = text(path).and_then(|path| inodes::set_times(Path::at(dir, &path, flags)?, || times(to)));
        done(outcome, || call!(UTIMENSAT, fn(c_int, *const c_char, *const timespec, c_int) -> c_int, dir, path, to, flags))
    }
    fn utimes (path: *const c_char, to: *const timeval) -> c_int {
        let outcome = text(path).and_then(|path| inodes::set_times(Path::here(&path, true), || times_of(to)));
        done(outcome, || call!(UTIMES, fn(*const c_char, *const timeval) -> c_int, path, to))
    }
    fn lutimes (path: *const c_char, to: *const timeval) -> c_int {
        let outcome = text(path).and_then(|path| inodes::set_times(Path::here(&path, false), || times_of(to)));
        done(outcome, || call!(LUTIMES, fn(*const c_char, *const timeval) -> c_int, path, to))
    }
    fn futimesat (dir: c_int, path: *const c_char, to: *const timeval) -> c_int {
        let outcome = text(path).and_then(|path| inodes::set_times(Path::at(dir, &path, 0)?, || times_of(to)));
        done(outcome, || call!(FUTIMESAT, fn(c_int, *const c_char, *const timeval) -> c_int, dir, path, to))
    }
    fn utime (path: *const c_char, to: *const utimbuf) -> c_int {
        let outcome = text(path).and_then(|path| inodes::set_times(Path::here(&path, true), || Some(seconds(to))));
        done(outcome, || call!(UTIME, fn(*const c_char, *const utimbuf) -> c_int, path, to))
    }
    fn setxattr (path: *const c_char, name: *const c_char, value: *const c_void, len: size_t, flags: c_int) -> c_int {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| {
            inodes::set_xattr(Path::here(&path, true), &name, room(value.cast_mut(), len)?, flags)
        });
        done(outcome, || call!(SETXATTR, fn(*const c_char, *const c_char, *const c_void, size_t, c_int) -> c_int, path, name, value, len, flags))
    }
    fn getxattr (path: *const c_char, name: *const c_char, value: *mut c_void, len: size_t) -> ssize_t {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| {
            inodes::get_xattr(Path::here(&path, true), &name, room(value, len)?)
        });
        done(outcome, || call!(GETXATTR, fn(*const c_char, *const c_char, *mut c_void, size_t) -> ssize_t, path, name, value, len))
    }
    fn listxattr (path: *const c_char, list: *mut c_char, len: size_t) -> ssize_t {
        let outcome = text(path).and_then(|path| inodes::list_xattrs(Path::here(&path, true), room(list.cast(), len)?));
        done(outcome, || call!(LISTXATTR, fn(*const c_char, *mut c_char, size_t) -> ssize_t, path, list, len))
    }
    fn removexattr (path: *const c_char, name: *const c_char) -> c_int {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| inodes::remove_xattr(Path::here(&path, true), &name));
        done(outcome, || call!(REMOVEXATTR, fn(*const c_char, *const c_char) -> c_int, path, name))
    }
    fn lsetxattr (path: *const c_char, name: *const c_char, value: *const c_void, len: size_t, flags: c_int) -> c_int {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| {
            inodes::set_xattr(Path::here(&path, false), &name, room(value.cast_mut(), len)?, flags)
        });
        done(outcome, || call!(LSETXATTR, fn(*const c_char, *const c_char, *const c_void, size_t, c_int) -> c_int, path, name, value, len, flags))
    }
    fn lgetxattr (path: *const c_char, name: *const c_char, value: *mut c_void, len: size_t) -> ssize_t {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| {
            inodes::get_xattr(Path::here(&path, false), &name, room(value, len)?)
        });
        done(outcome, || call!(LGETXATTR, fn(*const c_char, *const c_char, *mut c_void, size_t) -> ssize_t, path, name, value, len))
    }
    fn llistxattr (path: *const c_char, list: *mut c_char, len: size_t) -> ssize_t {
        let outcome = text(path).and_then(|path| inodes::list_xattrs(Path::here(&path, false), room(list.cast(), len)?));
        done(outcome, || call!(LLISTXATTR, fn(*const c_char, *mut c_char, size_t) -> ssize_t, path, list, len))
    }
    fn lremovexattr (path: *const c_char, name: *const c_char) -> c_int {
        let outcome = text(path).zip(text(name)).and_then(|(path, name)| inodes::remove_xattr(Path::here(&path, false), &name));
        done(outcome, || call!(LREMOVEXATTR, fn(*const c_char, *const c_char) -> c_int, path, name))
    }
    fn stat stat64 (path: *const c_char, to: *mut libc::stat) -> c_int {
        let answered = looked_at(path).and_then(|path| stats::stat(Path::here(&path, true)));
        stat_into(to, answered, || call!(STAT, fn(*const c_char, *mut libc::stat) -> c_int, path, to))
    }
    fn lstat lstat64 (path: *const c_char, to: *mut libc::stat) -> c_int {
        let answered = looked_at(path).and_then(|path| stats::stat(Path::here(&path, false)));
        stat_into(to, answered, || call!(LSTAT, fn(*const c_char, *mut libc::stat) -> c_int, path, to))
    }
    fn fstatat fstatat64 (dir: c_int, path: *const c_char, to: *mut libc::stat, flags: c_int) -> c_int {
        let answered = looked_at(path).and_then(|path| stats::stat(Path::at(dir, &path, flags & !libc::AT_NO_AUTOMOUNT)?));
        stat_into(to, answered, || call!(FSTATAT, fn(c_int, *const c_char, *mut libc::stat, c_int) -> c_int, dir, path, to, flags))
    }
    // What programs call that were linked with an older C library: versions of `stat`, of which there is one here.
    fn __xstat __xstat64 (version: c_int, path: *const c_char, to: *mut libc::stat) -> c_int {
        let answered = looked_at(path).filter(|_| version == 1).and_then(|path| stats::stat(Path::here(&path, true)));
        stat_into(to, answered, || call!(XSTAT, fn(c_int, *const c_char, *mut libc::stat) -> c_int, version, path, to))
    }
    fn __lxstat __lxstat64 (version: c_int, path: *const c_char, to: *mut libc::stat) -> c_int {
        let answered = looked_at(path).filter(|_| version == 1).and_then(|path| stats::stat(Path::here(&path, false)));
        stat_into(to, answered, || call!(LXSTAT, fn(c_int, *const c_char, *mut libc::stat) -> c_int, version, path, to))
    }
    fn __fxstatat __fxstatat64 (version: c_int, dir: c_int, path: *const c_char, to: *mut libc::stat, flags: c_int) -> c_int {
        let answered = looked_at(path).filter(|_| version == 1).and_then(|path| stats::stat(Path::at(dir, &path, flags & !libc::AT_NO_AUTOMOUNT)?));
        stat_into(to, answered, || call!(FXSTATAT, fn(c_int, c_int, *const c_char, *mut libc::stat, c_int) -> c_int, version, dir, path, to, flags))
    }
    fn statx (dir: c_int, path: *const c_char, flags: c_int, asked: c_uint, to: *mut libc::statx) -> c_int {
        let known = flags & libc::AT_STATX_FORCE_SYNC == 0 && asked & !STATX_KNOWN == 0;
        let path_flags = flags & !(libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT);
        let answered = looked_at(path).filter(|_| known).and_then(|path| stats::stat(Path::at(dir, &path, path_flags)?));
        match answered {
            Some(Ok(answered)) => {
                // SAFETY: as statx(2) has it: there is room for one where `to` points.
                unsafe { to.write(statx_of(&answered, asked)) };
                0
            }
            Some(Err(errno)) => fail(errno) as c_int,
            None => {
                let done = call!(STATX, fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int, dir, path, flags, asked, to);
                if done == 0 {
                    // SAFETY: the kernel has just written there.
                    let to = unsafe { &*to };
                    stats::seen(libc::makedev(to.stx_dev_major, to.stx_dev_minor));
                }
                done
            }
        }
    }
    fn setuid (uid: uid_t) -> c_int {
        doors::leave_all();
        call!(SETUID, fn(uid_t) -> c_int, uid)
    }
    fn setgid (gid: gid_t) -> c_int {
        doors::leave_all();
        call!(SETGID, fn(gid_t) -> c_int, gid)
    }
    fn seteuid (uid: uid_t) -> c_int {
        doors::leave_all();
        call!(SETEUID, fn(uid_t) -> c_int, uid)
    }
    fn setegid (gid: gid_t) -> c_int {
        doors::leave_all();
        call!(SETEGID, fn(gid_t) -> c_int, gid)
    }
    fn setreuid (uid: uid_t, effective: uid_t) -> c_int {
        doors::leave_all();
        call!(SETREUID, fn(uid_t, uid_t) -> c_int, uid, effective)
    }
    fn setregid (gid: gid_t, effective: gid_t) -> c_int {
        doors::leave_all();
        call!(SETREGID, fn(gid_t, gid_t) -> c_int, gid, effective)
    }
    fn setresuid (uid: uid_t, effective: uid_t, saved: uid_t) -> c_int {
        doors::leave_all();
        call!(SETRESUID, fn(uid_t, uid_t, uid_t) -> c_int, uid, effective, saved)
    }
    fn setresgid (gid: gid_t, effective: gid_t, saved: gid_t) -> c_int {
        doors::leave_all();
        call!(SETRESGID, fn(gid_t, gid_t, gid_t) -> c_int, gid, effective, saved)
    }
    fn setfsuid (uid: uid_t) -> c_int {
        doors::leave_all();
        call!(SETFSUID, fn(uid_t) -> c_int, uid)
    }
    fn setfsgid (gid: gid_t) -> c_int {
        doors::leave_all();
        call!(SETFSGID, fn(gid_t) -> c_int, gid)
    }
    fn setgroups (count: size_t, groups: *const gid_t) -> c_int {
        doors::leave_all();
        call!(SETGROUPS, fn(size_t, *const gid_t) -> c_int, count, groups)
    }
    fn initgroups (user: *const c_char, gid: gid_t) -> c_int {
        doors::leave_all();
        call!(INITGROUPS, fn(*const c_char, gid_t) -> c_int, user, gid)
    }
    fn capset (header: *mut c_void, data: *const c_void) -> c_int {
        doors::leave_all();
        call!(CAPSET, fn(*mut c_void, *const c_void) -> c_int, header, data)
    }
    fn chroot (path: *const c_char) -> c_int {
        doors::leave_all();
        call!(CHROOT, fn(*const c_char) -> c_int, path)
    }
    fn unshare (flags: c_int) -> c_int {
        doors::leave_all();
        call!(UNSHARE, fn(c_int) -> c_int, flags)
    }
    fn setns (fd: c_int, kind: c_int) -> c_int {
        doors::leave_all();
        call!(SETNS, fn(c_int, c_int) -> c_int, fd, kind)
    }
    fn _exit _Exit (status: c_int) -> ! {
        report::print();
        call!(EXIT_NOW, fn(c_int) -> !, status)
    }
}
