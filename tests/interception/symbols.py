"""Each symbol that libpil4dfs.so takes from the C library is really taken: what its hook does is seen, and a raw system call in its place gives the same
bytes.

A row names the symbol, how the effect of its hook is looked at, and the call: one that goes through the name, one that no hook sees. A symbol
without a row and a row without a symbol are failures.
"""

import os
import subprocess

from program import LIBRARY, Worker
from store import need

FILE = b"0123456789"
NUMBER = 1000  # Of a descriptor above the library's own.

PRELUDE = """
import ctypes, errno, os
from ctypes import addressof, byref, c_char_p, c_int, c_long as off, c_size_t as size
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
FLAGS = os.O_RDWR | os.O_DIRECT
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", size)]
room = ctypes.create_string_buffer(b"?" * 10, 10)
parts = (Part * 2)(Part(addressof(room), 4), Part(addressof(room) + 4, 6))
def spawn(call, path):
    pid, arguments = c_int(), (c_char_p * 2)(b"true", None)
    assert call(byref(pid), path, None, None, arguments, None) == 0
    os.waitpid(pid.value, 0)
def popen():
    libc.popen.restype = ctypes.c_void_p
    libc.pclose(ctypes.c_void_p(libc.popen(b"true", b"r")))
def map(call):
    call.restype = ctypes.c_void_p
    at = call(None, size(3 * 4096), 1, 1, fd, off(0))
    return os.write(other, ctypes.string_at(at + 8192, 10))
def raw_mmap(*arguments):
    return raw(9, *arguments)
times = (off * 4)(5, 6, 7, 8)  # As timespec, and as timeval; as utimbuf the first two.
def raw_child():
    pid = raw(57)
    if pid == 0:
        raw(231, 0)
    os.waitpid(pid, 0)
"""

ANY = "fd, room, size(10)"
AT0 = "fd, room, size(10), off(0)"
PARTS = "fd, parts, 2"
PARTS_AT0 = "fd, parts, 2, off(0)"
CHILD = "raw_child()"

ROWS = {
    # It opens `path` (WRITER: to write only, which the kernel does at first).
    "opens": {
        "open": ("libc.open(path, FLAGS, 0o644)", "raw(2, path, FLAGS, 0o644)"),
        "open64": ("libc.open64(path, FLAGS, 0o644)", "raw(2, path, FLAGS, 0o644)"),
        "openat": ("libc.openat(AT_FDCWD, path, FLAGS, 0o644)", "raw(257, AT_FDCWD, path, FLAGS, 0o644)"),
        "openat64": ("libc.openat64(AT_FDCWD, path, FLAGS, 0o644)", "raw(257, AT_FDCWD, path, FLAGS, 0o644)"),
        "__open_2": ("libc.__open_2(path, FLAGS)", "raw(2, path, FLAGS, 0)"),
        "__open64_2": ("libc.__open64_2(path, FLAGS)", "raw(2, path, FLAGS, 0)"),
        "__openat_2": ("libc.__openat_2(AT_FDCWD, path, FLAGS)", "raw(257, AT_FDCWD, path, FLAGS, 0)"),
        "__openat64_2": ("libc.__openat64_2(AT_FDCWD, path, FLAGS)", "raw(257, AT_FDCWD, path, FLAGS, 0)"),
        "creat": ("libc.creat(path, 0o644)", "raw(85, path, 0o644)"),
        "creat64": ("libc.creat64(path, 0o644)", "raw(85, path, 0o644)"),
    },
    # It closes descriptor `number`, or all from there on.
    "closes": {
        "close": ("libc.close(number)", "raw(3, number)"),
        "__close": ("libc.__close(number)", "raw(3, number)"),
        "close_range": ("libc.close_range(number, number, 0)", "raw(436, number, number, 0)"),
        "closefrom": ("libc.closefrom(number)", "raw(436, number, -1, 0)"),
    },
    # It makes a duplicate of `fd`.
    "duplicates": {
        "dup": ("libc.dup(fd)", "raw(32, fd)"),
        "dup2": ("libc.dup2(fd, number)", "raw(33, fd, number)"),
        "__dup2": ("libc.__dup2(fd, number)", "raw(33, fd, number)"),
        "dup3": ("libc.dup3(fd, number, os.O_CLOEXEC)", "raw(292, fd, number, os.O_CLOEXEC)"),
        "fcntl": ("libc.fcntl(fd, 0, 20)", "raw(72, fd, 0, 20)"),
        "fcntl64": ("libc.fcntl64(fd, 1030, 20)", "raw(72, fd, 1030, 20)"),
    },
    # It reads the file's ten bytes from its beginning into `room`.
    "reads": {
        "read": (f"libc.read({ANY})", f"raw(0, {ANY})"),
        "__read": (f"libc.__read({ANY})", f"raw(0, {ANY})"),
        "__read_chk": (f"libc.__read_chk({ANY}, size(10))", f"raw(0, {ANY})"),
        "pread": (f"libc.pread({AT0})", f"raw(17, {AT0})"),
        "pread64": (f"libc.pread64({AT0})", f"raw(17, {AT0})"),
        "__pread64": (f"libc.__pread64({AT0})", f"raw(17, {AT0})"),
        "__pread_chk": (f"libc.__pread_chk({AT0}, size(10))", f"raw(17, {AT0})"),
        "__pread64_chk": (f"libc.__pread64_chk({AT0}, size(10))", f"raw(17, {AT0})"),
        "readv": (f"libc.readv({PARTS})", f"raw(19, {PARTS})"),
        "preadv": (f"libc.preadv({PARTS_AT0})", f"raw(295, {PARTS_AT0}, off(0))"),
        "preadv64": (f"libc.preadv64({PARTS_AT0})", f"raw(295, {PARTS_AT0}, off(0))"),
        "preadv2": (f"libc.preadv2({PARTS_AT0}, 0)", f"raw(327, {PARTS_AT0}, off(0), 0)"),
        "preadv64v2": ("libc.preadv64v2(fd, parts, 2, off(-1), 0)", "raw(327, fd, parts, 2, off(-1), off(-1), 0)"),
    },
    # It writes `room` to the file's beginning.
    "writes": {
        "write": (f"libc.write({ANY})", f"raw(1, {ANY})"),
        "__write": (f"libc.__write({ANY})", f"raw(1, {ANY})"),
        "pwrite": (f"libc.pwrite({AT0})", f"raw(18, {AT0})"),
        "pwrite64": (f"libc.pwrite64({AT0})", f"raw(18, {AT0})"),
        "__pwrite64": (f"libc.__pwrite64({AT0})", f"raw(18, {AT0})"),
        "writev": (f"libc.writev({PARTS})", f"raw(20, {PARTS})"),
        "pwritev": (f"libc.pwritev({PARTS_AT0})", f"raw(296, {PARTS_AT0}, off(0))"),
        "pwritev64": (f"libc.pwritev64({PARTS_AT0})", f"raw(296, {PARTS_AT0}, off(0))"),
        "pwritev2": (f"libc.pwritev2({PARTS_AT0}, 0)", f"raw(328, {PARTS_AT0}, off(0), 0)"),
        "pwritev64v2": ("libc.pwritev64v2(fd, parts, 2, off(-1), 0)", "raw(328, fd, parts, 2, off(-1), off(-1), 0)"),
    },
    # It goes by the size that the kernel was last told of, which the door does not tell.
    "needs the size": {
        "copy_file_range": ("libc.copy_file_range(fd, byref(off(8192)), other, None, size(10), 0)", "raw(326, fd, byref(off(8192)), other, None, size(10), 0)"),
        "mmap": ("map(libc.mmap)", "map(raw_mmap)"),
        "mmap64": ("map(libc.mmap64)", "map(raw_mmap)"),
    },
    # It makes a child, which has the offset of `fd` too.
    "makes children": {
        "posix_spawn": ("spawn(libc.posix_spawn, b'/bin/true')", CHILD),
        "posix_spawnp": ("spawn(libc.posix_spawnp, b'true')", CHILD),
        "system": ("libc.system(b'true')", CHILD),
        "popen": ("popen()", CHILD),
    },
    # It changes names in `d`, which is entered: there are `a`, and directories `e`, `f`.
    "changes names": {
        "unlink": ("libc.unlink(d + b'/a')", "raw(87, d + b'/a')"),
        "unlinkat": ("libc.unlinkat(fd, b'e', 0x200)", "raw(263, fd, b'e', 0x200)"),
        "rmdir": ("libc.rmdir(d + b'/e')", "raw(84, d + b'/e')"),
        "remove": ("libc.remove(d + b'/a')", "raw(87, d + b'/a')"),
        "mkdir": ("libc.mkdir(d + b'/new', 0o777)", "raw(83, d + b'/new', 0o777)"),
        "mkdirat": ("libc.mkdirat(fd, b'new', 0o700)", "raw(258, fd, b'new', 0o700)"),
        "symlink": ("libc.symlink(b'to', d + b'/new')", "raw(88, b'to', d + b'/new')"),
        "symlinkat": ("libc.symlinkat(b'to', fd, b'new')", "raw(266, b'to', fd, b'new')"),
        "link": ("libc.link(d + b'/a', d + b'/new')", "raw(86, d + b'/a', d + b'/new')"),
        "linkat": ("libc.linkat(fd, b'a', fd, b'new', 0)", "raw(265, fd, b'a', fd, b'new', 0)"),
        "rename": ("libc.rename(d + b'/a', d + b'/new')", "raw(82, d + b'/a', d + b'/new')"),
        "renameat": ("libc.renameat(fd, b'a', fd, b'new')", "raw(264, fd, b'a', fd, b'new')"),
        "renameat2": ("libc.renameat2(fd, b'a', fd, b'new', 1)", "raw(316, fd, b'a', fd, b'new', 1)"),
    },
    # It syncs `fd`.
    "syncs": {
        "fsync": ("libc.fsync(fd)", "raw(74, fd)"),
        "fdatasync": ("libc.fdatasync(fd)", "raw(75, fd)"),
    },
    # It changes an attribute or an xattr of `a`, which has `user.old`, in `d`, which is entered.
    "changes attributes": {
        "chmod": ("libc.chmod(d + b'/a', 0o4751)", "raw(90, d + b'/a', 0o4751)"),
        "fchmodat": ("libc.fchmodat(fd, b'a', 0o604, 0)", "raw(268, fd, b'a', 0o604)"),
        "chown": ("libc.chown(d + b'/a', 0, 0)", "raw(92, d + b'/a', 0, 0)"),
        "lchown": ("libc.lchown(d + b'/a', -1, 0)", "raw(94, d + b'/a', -1, 0)"),
        "fchownat": ("libc.fchownat(fd, b'a', 0, -1, 0x100)", "raw(260, fd, b'a', 0, -1, 0x100)"),
        "utimensat": ("libc.utimensat(fd, b'a', times, 0)", "raw(280, fd, b'a', times, 0)"),
        "utimes": ("libc.utimes(d + b'/a', times)", "raw(235, d + b'/a', times)"),
        "lutimes": ("libc.lutimes(d + b'/a', times)", "raw(280, AT_FDCWD, d + b'/a', (off * 4)(5, 6000, 7, 8000), 0x100)"),
        "futimesat": ("libc.futimesat(fd, b'a', times)", "raw(261, fd, b'a', times)"),
        "utime": ("libc.utime(d + b'/a', times)", "raw(132, d + b'/a', times)"),
        "setxattr": ("libc.setxattr(d + b'/a', b'user.new', b'value', size(5), 1)", "raw(188, d + b'/a', b'user.new', b'value', size(5), 1)"),
        "lsetxattr": ("libc.lsetxattr(d + b'/a', b'user.old', b'', size(0), 2)", "raw(189, d + b'/a', b'user.old', b'', size(0), 2)"),
        "removexattr": ("libc.removexattr(d + b'/a', b'user.old')", "raw(197, d + b'/a', b'user.old')"),
        "lremovexattr": ("libc.lremovexattr(d + b'/a', b'user.old')", "raw(198, d + b'/a', b'user.old')"),
    },
    # It asks for xattrs of `a`, which has `user.old`, into `room`.
    "asks": {
        "getxattr": ("libc.getxattr(d + b'/a', b'user.old', room, size(10))", "raw(191, d + b'/a', b'user.old', room, size(10))"),
        "lgetxattr": ("libc.lgetxattr(d + b'/a', b'user.old', room, size(10))", "raw(192, d + b'/a', b'user.old', room, size(10))"),
        "listxattr": ("libc.listxattr(d + b'/a', room, size(10))", "raw(194, d + b'/a', room, size(10))"),
        "llistxattr": ("libc.llistxattr(d + b'/a', room, size(10))", "raw(195, d + b'/a', room, size(10))"),
    },
    # It looks at `unknown`, which the kernel does not know, or has its own way to, into `found`.
    "looks": {
        **{name: (f"libc.{name}(d + unknown, found)", "raw(4, d + unknown, found)") for name in ("stat", "stat64")},
        **{name: (f"libc.{name}(d + unknown, found)", "raw(6, d + unknown, found)") for name in ("lstat", "lstat64")},
        **{name: (f"libc.{name}(fd, unknown[1:], found, 0)", "raw(262, fd, unknown[1:], found, 0)") for name in ("fstatat", "fstatat64")},
        **{name: (f"libc.{name}(1, d + unknown, found)", "raw(4, d + unknown, found)") for name in ("__xstat", "__xstat64")},
        **{name: (f"libc.{name}(1, d + unknown, found)", "raw(6, d + unknown, found)") for name in ("__lxstat", "__lxstat64")},
        **{name: (f"libc.{name}(1, fd, unknown[1:], found, 0x100)", "raw(262, fd, unknown[1:], found, 0x100)") for name in ("__fxstatat", "__fxstatat64")},
        "statx": ("libc.statx(fd, unknown[1:], 0x100, 0xfff, found)", "raw(332, fd, unknown[1:], 0x100, 0xfff, found)"),
    },
    # After it the process is somebody else, or elsewhere: nobody says anything for it any more at the door to which it came.
    "leaves": {
        "setuid": ("libc.setuid(0)", "raw(105, 0)"),
        "setgid": ("libc.setgid(0)", "raw(106, 0)"),
        "seteuid": ("libc.seteuid(0)", "raw(117, -1, 0, -1)"),
        "setegid": ("libc.setegid(0)", "raw(119, -1, 0, -1)"),
        "setreuid": ("libc.setreuid(0, 0)", "raw(113, 0, 0)"),
        "setregid": ("libc.setregid(0, 0)", "raw(114, 0, 0)"),
        "setresuid": ("libc.setresuid(0, 0, 0)", "raw(117, 0, 0, 0)"),
        "setresgid": ("libc.setresgid(0, 0, 0)", "raw(119, 0, 0, 0)"),
        "setfsuid": ("libc.setfsuid(0)", "raw(122, 0)"),
        "setfsgid": ("libc.setfsgid(0)", "raw(123, 0)"),
        "setgroups": ("libc.setgroups(size(0), None)", "raw(116, 0, None)"),
        "initgroups": ("libc.initgroups(b'root', 0)", "raw(116, 0, None)"),
        "capset": ("libc.capset(byref((c_int * 2)(0x20080522, 0)), (c_int * 6)())", "raw(126, byref((c_int * 2)(0x20080522, 0)), (c_int * 6)())"),
        "chroot": ("libc.chroot(b'/')", "raw(161, b'/')"),
        "unshare": ("libc.unshare(0x200)", "raw(272, 0x200)"),
        "setns": ("libc.setns(here, 0)", "raw(308, here, 0)"),
    },
    # It ends the program, which reports.
    "ends": {
        "_exit": ("libc._exit(7)", "raw(231, 7)"),
        "_Exit": ("libc._Exit(7)", "raw(231, 7)"),
    },
}


def exported(library):
    """Names of the functions that a library offers."""
    table = subprocess.run(["readelf", "--dyn-syms", "--wide", library], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in table.splitlines())
    return {row[7].split("@")[0] for row in rows if len(row) > 7 and row[3] in ("FUNC", "IFUNC") and row[6] != "UND"}


def libc_path():
    with open("/proc/self/maps") as maps:
        return next(line.split()[-1] for line in maps if "/libc.so" in line)


class Symbols:
    def __init__(self, tests):
        self.tests = tests

    def table(self):
        """Nothing is taken without a test, and nothing is tested that is not taken."""
        ours, rows = exported(LIBRARY), {symbol for kind in ROWS.values() for symbol in kind}
        others = ours - exported(libc_path())
        need(not others, f"the library offers {sorted(others)}, which the C library has not")
        need(not ours - rows, f"add a test for {sorted(ours - rows)}")
        need(not rows - ours, f"the library does not take {sorted(rows - ours)}")
        return f"{len(ours)} symbols"

    def worker(self, **environment):
        worker = Worker(**environment)
        worker.do(PRELUDE)
        path = self.tests.path()
        with open(path, "wb") as file:
            file.write(FILE)
        worker.do(f"path = {path.encode()!r}")
        return worker, path

    def opened(self, worker):
        """`fd`, which the door knows, at its beginning."""
        worker.do("fd = os.open(path, FLAGS); os.pwrite(fd, b'0', 0)")

    def through(self, worker, text, calls):
        """What `text` makes, and so many calls of the door."""
        before = self.tests.calls()
        value = worker.do(text)
        found = self.tests.calls() - before
        need(found == calls, f"{text}: {found} calls came through the door, not {calls}")
        return value

    def content(self, path, expected):
        with open(path, "rb") as file:
            found = file.read()
        need(found == expected, f"the file is {found}, not {expected}")

    def opens(self, symbol, call, raw):
        """What is written to it goes through the door; of a descriptor that is only written to, from the third write on."""
        writer = symbol.startswith("creat")
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                worker.do(f"fd = {text}")
                need(worker.do("fd") >= 0, "it does not open")
                if writer:
                    worker.do("os.pwrite(fd, b'01', 0); os.pwrite(fd, b'23456789', 2)")
                self.through(worker, "os.pwrite(fd, b'xy', 1)", calls)
            self.content(path, b"0xy3456789")

    def closes(self, symbol, call, raw):
        """The same file, opened behind the library's back under the same number, is nothing that the door knows. Without the hook the door is asked, and refuses."""
        for text, calls in (call, 0), (raw, 1):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do(f"number = {NUMBER}; os.dup2(fd, number); os.pwrite(number, b'1', 1)")
                worker.do(f"{text}; other = raw(2, path, FLAGS, 0); raw(33, other, number); raw(3, other)")
                self.through(worker, "os.pwrite(number, b'xy', 1)", calls)
            self.content(path, b"0xy3456789")

    def duplicates(self, symbol, call, raw):
        """The duplicate is the door's, and both move one offset."""
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do(f"number = {NUMBER}; new = {text}; os.lseek(fd, 2, 0)")
                need(worker.do("new") >= 0, "there is no duplicate")
                self.through(worker, "os.write(new, b'xy')", calls)
                worker.do("os.write(fd, b'z')")
            self.content(path, b"01xyz56789")

    def reads(self, symbol, call, raw):
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                need(self.through(worker, text, calls) == len(FILE), "a short read")
                need(worker.bytes("room.raw") == FILE, "other bytes")
                moved = 0 if "off(0)" in text else len(FILE)
                need(worker.do("os.lseek(fd, 0, 1)") == moved, "the offset")

    def writes(self, symbol, call, raw):
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do("room.raw = b'abcdefghij'")
                need(self.through(worker, text, calls) == len(FILE), "a short write")
                need(worker.bytes("os.pread(fd, 20, 0)") == b"abcdefghij", "what the program reads after it")
                moved = 0 if "off(0)" in text else len(FILE)
                need(worker.do("os.lseek(fd, 0, 1)") == moved, "the offset")
            self.content(path, b"abcdefghij")

    def needs_the_size(self, symbol, call, raw):
        """What the door has added is there. The kernel alone knows of it only after somebody has asked."""
        for text, first in (call, "None"), (raw, "os.fstat(fd) and None"):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do("other = os.open(path + b'copy', os.O_RDWR | os.O_CREAT); os.pwrite(fd, b'abcdefghij', 8192)")
                worker.do(first)
                need(self.through(worker, text, 0) == 10, "short")
            self.content(path + "copy", b"abcdefghij")

    def makes_children(self, symbol, call, raw):
        """Plain writes after it are the kernel's; those with a position are the door's still."""
        for text, calls in (call, 0), (raw, 1):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do(f"{text} and None")
                self.through(worker, "os.pwrite(fd, b'P', 5)", 1)
                self.through(worker, "os.write(fd, b'xy')", calls)
            self.content(path, b"xy234P6789")

    def changes_names(self, symbol, call, raw):
        """Both do the same, one of them at the door."""
        found = []
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                worker.do("d = path + b'd'; os.mkdir(d); [os.mkdir(d + x) for x in (b'/e', b'/f', b'/g', b'/h')]; os.close(os.open(d + b'/a', os.O_CREAT))")
                worker.do("[os.rmdir(d + x) for x in (b'/g', b'/h')]; fd = os.open(d, os.O_RDONLY)")
                need(self.through(worker, text, calls) == 0, "it fails")
                found.append([(name, *worker.do(f"list(os.lstat(d + b'/{name}'))[0::3]")[:2]) for name in worker.do("sorted(os.fsdecode(x) for x in os.listdir(d))")])
        need(found[0] == found[1], f"{found[0]} by the door, {found[1]} by the kernel")

    def syncs(self, symbol, call, raw):
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                need(self.through(worker, text, calls) == 0, "it fails")

    def leaves(self, symbol, call, raw):
        for text, calls in (call, 0), (raw, 1):
            worker, path = self.worker()
            with worker:
                self.opened(worker)
                worker.do("here = os.open('/proc/self/ns/net', os.O_RDONLY)")
                need(worker.do(text) == 0, "it fails")
                self.through(worker, "os.pwrite(fd, b'xy', 1)", calls)
            self.content(path, b"0xy3456789")

    def directory(self, worker):
        """`d`, which is entered to change it, with `a`."""
        worker.do("d = path + b'd'; os.mkdir(d); os.close(os.open(d + b'/a', os.O_CREAT)); os.setxattr(d + b'/a', 'user.old', b'text')")
        worker.do("[(os.mkdir(d + b'/g'), os.rmdir(d + b'/g')) for n in range(3)]; fd = os.open(d, os.O_RDONLY)")

    def changes_attributes(self, symbol, call, raw):
        """Both do the same, one of them at the door, and whoever looks sees it at once."""
        found = []
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.directory(worker)
                file = path + "d/a"
                before = os.stat(file)
                need(self.through(worker, text, calls) == 0, "it fails")
                after = os.stat(file)
                need(after.st_ctime_ns > before.st_ctime_ns, "the time of the change")
                times = [(new if new != old and new < 1 << 40 else None) for new, old in zip((after.st_atime_ns, after.st_mtime_ns), (before.st_atime_ns, before.st_mtime_ns))]
                found.append((oct(after.st_mode), after.st_uid, after.st_gid, times, {name: os.getxattr(file, name) for name in os.listxattr(file)}))
        need(found[0] == found[1], f"{found[0]} by the door, {found[1]} by the kernel")

    def asks(self, symbol, call, raw):
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.directory(worker)
                worker.do("for n in range(6): os.listxattr(d + b'/a')")
                got = self.through(worker, text, calls)
                expected = b"user.old\0" if "list" in symbol else b"text"
                need(got == len(expected) and worker.bytes("room.raw")[:got] == expected, f"{got} bytes, {worker.bytes('room.raw')}")

    def looks(self, symbol, call, raw):
        """What both find is the same to the last byte."""
        for text, calls in (call, 1), (raw, 0):
            worker, path = self.worker()
            with worker:
                self.directory(worker)
                # What is made at the door the kernel does not know.
                worker.do("for n in range(20): os.mkdir(d + b'/%d' % n, 0o751)")
                worker.do("for n in range(19): os.stat(d + b'/%d' % n)")
                worker.do("found = ctypes.create_string_buffer(256); unknown = b'/19'")
                need(self.through(worker, text, calls) == 0, "it fails")
                by_one = worker.bytes("found.raw")
                worker.do("ctypes.memset(found, 0, 256)")
                need(worker.do(raw) == 0, "the kernel's fails")
                need(worker.bytes("found.raw") == by_one, f"{by_one.hex()}, and the kernel says {worker.bytes('found.raw').hex()}")
                need(worker.do("os.stat(d + unknown).st_mode") == 0o40751, "its mode")

    def ends(self, symbol, call, raw):
        for text, reports in (call, True), (raw, False):
            worker, path = self.worker(D_IL_REPORT="1")
            with worker:
                self.opened(worker)
                worker.do("os.pwrite(fd, b'xy', 1)")
                worker.tell(text)
                need(worker.process.wait(20) == 7, "its status")
                said = worker.process.stderr.read()
                need(("op_sum" in said) == reports, f"it said {said!r}")
            self.content(path, b"0xy3456789")


def claims(tests):
    symbols = Symbols(tests)
    yield "every symbol that is taken has a test", symbols.table
    for kind, rows in ROWS.items():
        look = getattr(symbols, kind.replace(" ", "_"))
        for symbol, (call, raw) in rows.items():
            yield f"symbol {symbol} {kind}", lambda look=look, row=(symbol, call, raw): look(*row)
