"""POSIX as Linux programs rely on it, where pjdfstest and fsx do not look. Each function marked @check is one claim.

usage: checks.py STATE [NAME...]     STATE is that of scripts/mount.sh
Prints name, ok / FAILED / skipped and a reason, separated by tabs. Each check runs in a process and a directory of its own.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback

MOUNT_SH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/mount.sh")
STATE = sys.argv[1]
CHECKS = []
SECONDS_MAX = 120
libc = ctypes.CDLL(None, use_errno=True)


def check(function):
    CHECKS.append(function)
    return function


class Skip(Exception):
    pass


# What the checks are written with


def same(what, got, expected):
    assert got == expected, f"{what}: got {got!r}, expected {expected!r}"


def refused(number, call, *args, **kwargs):
    try:
        result = call(*args, **kwargs)
    except OSError as error:
        expected = number if isinstance(number, tuple) else (number,)
        names = "/".join(errno.errorcode[n] for n in expected)
        assert error.errno in expected, f"{call.__name__}{args}: got {errno.errorcode[error.errno]}, expected {names}"
        return
    raise AssertionError(f"{call.__name__}{args}: returned {result!r}, expected {number}")


def c_call(name, *args):
    function = getattr(libc, name)
    function.restype = ctypes.c_long
    result = function(*args)
    if result in (-1, 0xFFFFFFFF):  # an int of -1 comes as the latter
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def renameat2(old, new, flags):
    return c_call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags))


def fallocate(fd, mode, offset, length):
    return c_call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def link_descriptor(fd, name):
    return c_call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, name.encode(), 0x400)


def make(name, data=b"", mode=0o644):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data) if data else None
    return fd


def put(name, data=b""):
    os.close(make(name, data))


def slurp(name):
    with open(name, "rb") as f:
        return f.read()


def child(function, *args):
    """Runs `function` in a process of its own; its AssertionError is ours."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r)
            function(*args)
            os._exit(0)
        except BaseException:
            os.write(w, traceback.format_exc(limit=3).encode()[-4000:])
            os._exit(1)
    os.close(w)

    def wait():
        text = b""
        while piece := os.read(r, 4096):
            text += piece
        os.close(r)
        code = os.waitpid(pid, 0)[1]
        assert code == 0, f"in the child: {text.decode()} (status {code})"
    return wait


def as_user(function, *args, uid=12345, gid=12345, groups=()):
    if os.getuid() != 0:
        raise Skip("needs root to become another user")

    def become():
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        function(*args)
    child(become)()


def remount():
    os.chdir("/")
    done = subprocess.run([MOUNT_SH, "again", STATE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"remount: {done.stderr}"
    kind = open(f"{STATE}/kind").read().strip()
    if kind == "tmpfs":
        raise Skip("tmpfs does not outlive its mount")
    os.chdir(WORK)


def getdents(fd, size=4096):
    """(ino, cookie, type, name) of each entry that one getdents64 gives."""
    buffer = ctypes.create_string_buffer(size)
    n = c_call("syscall", ctypes.c_long(217), fd, buffer, size)
    at, entries = 0, []
    while at < n:
        ino, cookie, length, kind = struct.unpack_from("=QqHB", buffer, at)
        name = buffer.raw[at + 19:at + length].split(b"\0")[0].decode("utf-8", "surrogateescape")
        entries.append((ino, cookie, kind, name))
        at += length
    return entries


def listing(path, size=4096):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    entries = []
    while piece := getdents(fd, size):
        entries += piece
    os.close(fd)
    return entries


# Names and directories


@check
def names_of_255_bytes_are_kept_and_256_refused():
    for name in ["n" * 255, "ü" * 127 + "x", "\udcff" * 255]:
        put(name)
        assert os.path.exists(name) and name in os.listdir(".")
        os.unlink(name)
    for call in (lambda n: os.open(n, os.O_CREAT), os.mkdir, os.stat, os.unlink, os.rmdir, lambda n: os.symlink("x", n)):
        refused(errno.ENAMETOOLONG, call, "n" * 256)
    put("f")
    refused(errno.ENAMETOOLONG, os.rename, "f", "n" * 256)
    refused(errno.ENAMETOOLONG, os.link, "f", "n" * 256)


@check
def a_listing_has_dot_dotdot_and_every_entry_once_with_its_number_and_kind():
    os.mkdir("d")
    os.mkdir("d/dir"), put("d/file"), os.symlink("x", "d/link"), os.mkfifo("d/fifo")
    got = {name: (ino, kind) for ino, _, kind, name in listing("d")}
    same("names", sorted(got), [".", "..", "dir", "fifo", "file", "link"])
    for name, (ino, kind) in got.items():
        st = os.lstat(f"d/{name}")
        same(f"d_ino of {name}", ino, st.st_ino)
        same(f"d_type of {name}", kind, st.st_mode >> 12)


@check
def five_thousand_entries_are_listed_once_each_with_any_buffer():
    os.mkdir("d")
    names = {f"entry-{i}" for i in range(5_000)}
    for name in names:
        put(f"d/{name}")
    for size in (280, 4096, 1 << 17):
        got = [e[3] for e in listing("d", size)]
        same(f"entries with a buffer of {size}", len(got), len(names) + 2)
        same("names", set(got) - {".", ".."}, names)
    same("after unlink of all", [os.unlink(f"d/{n}") for n in names] and os.listdir("d"), [])
    os.rmdir("d")


@check
def entries_that_stay_are_listed_once_while_others_come_and_go():
    os.mkdir("d")
    stay = {f"stay-{i}" for i in range(600)}
    for i, name in enumerate(sorted(stay)):
        put(f"d/{name}")
        put(f"d/go-{i}")
    fd = os.open("d", os.O_RDONLY)
    seen, turn = [], 0
    while piece := getdents(fd, 600):
        seen += [e[3] for e in piece]
        if turn < 600:
            os.unlink(f"d/go-{turn}"), put(f"d/come-{turn}"), os.rename(f"d/come-{turn}", f"d/came-{turn}")
        turn += 1
    got = [n for n in seen if n.startswith("stay-")]
    same("twice", sorted({n for n in got if got.count(n) > 1}), [])
    same("missed", sorted(stay - set(got)), [])


@check
def a_cookie_leads_back_to_its_place_also_after_unlinks():
    os.mkdir("d")
    for i in range(500):
        put(f"d/e{i}")
    entries = listing("d")
    fd = os.open("d", os.O_RDONLY)
    for at in (0, 1, 2, 100, 250, 498):
        os.lseek(fd, entries[at][1], os.SEEK_SET)
        same(f"after seek to the cookie of entry {at}", getdents(fd)[0][3], entries[at + 1][3])
    os.unlink(f"d/{entries[250][3]}"), os.unlink(f"d/{entries[251][3]}")
    os.lseek(fd, entries[250][1], os.SEEK_SET)
    # POSIX leaves open whether this stream still shows what went after its opendir.
    same("after its entry is gone", next(e[3] for e in getdents(fd) if os.path.exists(f"d/{e[3]}")), entries[252][3])
    os.lseek(fd, 0, os.SEEK_SET)
    same("rewound", len([e for e in iter(lambda: getdents(fd), []) for _ in e]), 500)


@check
def numbers_cookies_and_attributes_are_the_same_after_remount():
    os.makedirs("d/sub/subsub")
    for i in range(300):
        fd = make(f"d/f{i}", os.urandom(i * 37))
        os.fchmod(fd, 0o600 + i % 64), os.close(fd)
    os.symlink("target" * 20, "d/soft"), os.link("d/f1", "d/hard"), os.mkfifo("d/fifo")
    if os.getuid() == 0:
        os.mknod("d/dev", stat.S_IFCHR | 0o600, os.makedev(300, 70000)), os.chown("d/f2", 77, 88)
    os.utime("d/f3", ns=(123456789012345678, 987654321098765432))
    os.setxattr("d/f4", "user.k", b"v" * 1000)
    os.truncate("d/f5", 1 << 30)

    def picture():
        entries = listing("d", 1 << 16)
        stats = {}
        for _, _, _, name in entries:
            st = os.lstat(f"d/{name}")
            stats[name] = [getattr(st, f) for f in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size",
                                                    "st_mtime_ns", "st_ctime_ns")]
            if not stat.S_ISDIR(st.st_mode):  # a directory's blocks are what its entries take at the moment
                stats[name].append(st.st_blocks)
        return entries, stats, slurp("d/f299"), os.readlink("d/soft"), os.getxattr("d/f4", "user.k"), os.stat("d/sub/..").st_ino

    before = picture()
    remount()
    after = picture()
    ours = [e for e in before[0] if e[3] != ".."], [e for e in after[0] if e[3] != ".."]
    same("numbers, cookies and order", ours[0], ours[1])
    for name in before[1]:
        if name != "..":
            same(f"attributes of {name}", after[1][name], before[1][name])
    same("contents", after[2:], before[2:])


@check
def file_handles_lead_to_files_after_remount():
    put("f", b"by handle")
    os.mkdir("d")

    def handle(path):
        buffer = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
        mount_id = ctypes.c_int()
        c_call("name_to_handle_at", AT_FDCWD, path.encode(), buffer, ctypes.byref(mount_id), 0)
        return buffer
    f, d = handle("f"), handle("d")

    def opened(h, flags):
        top = os.open(f"{STATE}/mnt", os.O_RDONLY)
        try:
            return c_call("open_by_handle_at", top, h, flags)
        finally:
            os.close(top)
    fd = opened(f, os.O_RDONLY)
    same("read by handle", os.read(fd, 100), b"by handle")
    os.close(fd)
    remount()
    fd = opened(f, os.O_RDONLY)
    same("read by handle after remount", os.read(fd, 100), b"by handle")
    same("the same file", os.fstat(fd).st_ino, os.stat("f").st_ino)
    os.close(fd)
    fd = opened(d, os.O_RDONLY | os.O_DIRECTORY)
    same("a directory's parent", os.stat("..", dir_fd=fd).st_ino, os.stat(".").st_ino)
    os.close(fd)
    os.unlink("f")
    refused(errno.ESTALE, opened, f, os.O_RDONLY)


@check
def an_empty_directory_goes_and_a_used_one_stays():
    os.makedirs("d/e")
    refused((errno.ENOTEMPTY, errno.EEXIST), os.rmdir, "d")
    fd = os.open("d/e", os.O_RDONLY)
    os.rmdir("d/e")
    try:
        same("a removed directory that is open", [e for e in getdents(fd) if e[3] not in (".", "..")], [])
    except FileNotFoundError:
        pass  # Linux's own filesystems answer this
    refused(errno.ENOENT, os.open, "x", os.O_CREAT, dir_fd=fd)
    same("its links", os.fstat(fd).st_nlink, 0)
    refused(errno.ENODATA, os.getxattr, fd, "user.none")
    os.close(fd)
    refused(errno.EINVAL, os.rmdir, "d/.")
    refused(errno.ENOTDIR, os.rmdir, (put("f"), "f")[1])
    refused((errno.EISDIR, errno.EPERM), os.unlink, "d")


@check
def directories_count_their_subdirectories():
    os.mkdir("d")
    same("links of an empty directory", os.stat("d").st_nlink, 2)
    for i in range(3):
        os.mkdir(f"d/s{i}")
    put("d/file")
    same("with three inside", os.stat("d").st_nlink, 5)
    os.rmdir("d/s0"), os.rename("d/s1", "s1")
    same("with one inside", os.stat("d").st_nlink, 3)
    os.mkdir("e"), os.rename("e", "d/s2")
    same("after a rename over one", os.stat("d").st_nlink, 3)


# Links


@check
def hard_links_are_one_file():
    os.mkdir("d")
    put("a", b"one")
    for i in range(100):
        os.link("a", f"d/l{i}")
    same("links", os.stat("a").st_nlink, 101)
    with open("d/l50", "ab") as f:
        f.write(b" two")
    os.chmod("d/l7", 0o600), os.setxattr("d/l8", "user.x", b"y")
    same("through another name", (slurp("a"), os.stat("a").st_mode & 0o777, os.getxattr("a", "user.x")), (b"one two", 0o600, b"y"))
    same("number", len({os.stat(f"d/l{i}").st_ino for i in range(100)} | {os.stat("a").st_ino}), 1)
    os.unlink("a")
    for i in range(99):
        os.unlink(f"d/l{i}")
    same("the last name", (slurp("d/l99"), os.stat("d/l99").st_nlink), (b"one two", 1))
    refused((errno.EPERM, errno.EISDIR), os.link, "d", "e")
    refused(errno.EEXIST, os.link, "d/l99", "d/l99")


@check
def symlinks_keep_their_target_and_loops_are_found():
    for target in ("x", "y" * 59, "z" * 4095):
        os.symlink(target, "l")
        same("readlink", os.readlink("l"), target)
        same("size", os.lstat("l").st_size, len(target))
        os.unlink("l")
    os.symlink("b", "a"), os.symlink("a", "b")
    refused(errno.ELOOP, os.stat, "a")
    os.symlink("nowhere", "n")
    refused(errno.ELOOP, os.open, "n", os.O_RDONLY | os.O_NOFOLLOW)
    refused(errno.EEXIST, os.open, "n", os.O_CREAT | os.O_EXCL)
    os.close(os.open("n", os.O_CREAT, 0o600))
    assert os.path.exists("nowhere")
    os.link("n", "n2", follow_symlinks=False)
    same("a link to a symlink", (os.readlink("n2"), os.lstat("n").st_nlink), ("nowhere", 2))


@check
def fifos_sockets_and_devices_work():
    os.mkfifo("fifo")
    w = child(lambda: open("fifo", "w").write("through"))
    same("fifo", open("fifo").read(), "through")
    w()
    s = socket.socket(socket.AF_UNIX)
    s.bind("socket")
    assert stat.S_ISSOCK(os.stat("socket").st_mode)
    if os.getuid() != 0:
        raise Skip("device nodes need root")
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open("null", "r+b", buffering=0) as f:
        same("null", (f.write(b"gone"), f.read()), (4, b""))
    os.mknod("big", stat.S_IFBLK | 0o600, os.makedev(4000, 1000000))
    st = os.stat("big")
    same("device number", (os.major(st.st_rdev), os.minor(st.st_rdev)), (4000, 1000000))


# Rename


@check
def rename_replaces_in_one_step():
    put("a", b"new"), put("b", b"old")
    fd = os.open("b", os.O_RDONLY)
    inode = os.stat("a").st_ino
    os.rename("a", "b")
    same("the name", (slurp("b"), os.stat("b").st_ino), (b"new", inode))
    same("the file that was there, still open", (os.read(fd, 10), os.fstat(fd).st_nlink), (b"old", 0))
    os.link("b", "c"), os.rename("b", "c")
    assert os.path.exists("b") and os.path.exists("c"), "rename between names of one file must do nothing"
    stop = time.monotonic() + 1

    def swap():
        while time.monotonic() < stop:
            put("t", b"x"), os.rename("t", "target")
    put("target")
    wait = child(swap)
    while time.monotonic() < stop:
        os.stat("target")  # never ENOENT
    wait()


@check
def a_name_that_is_replaced_all_the_time_can_be_opened_all_the_time():
    stop = time.monotonic() + 4

    def replace(number):
        while time.monotonic() < stop:
            put(f"t{number}", b"x"), os.rename(f"t{number}", "name")
    put("name", b"x")
    waits = [child(replace, number) for number in range(2)]
    while time.monotonic() < stop:
        with open("name", "rb", buffering=0) as file:
            same("what was read", file.read(9), b"x")
    for wait in waits:
        wait()


@check
def rename_refuses_what_posix_refuses():
    os.makedirs("d/e/f"), os.mkdir("full"), put("full/x"), put("file"), os.mkdir("empty")
    refused(errno.EINVAL, os.rename, "d", "d/e/f/g")
    refused((errno.ENOTEMPTY, errno.EEXIST), os.rename, "d", "full")
    refused(errno.EISDIR, os.rename, "file", "empty")
    refused(errno.ENOTDIR, os.rename, "empty", "file")
    refused(errno.ENOENT, os.rename, "nothing", "file")
    refused((errno.ENOTEMPTY, errno.EEXIST), os.rename, "d/e/f", "d")
    refused((errno.EBUSY, errno.EINVAL), os.rename, "d/.", "x")
    os.rename("d", "empty")
    same("over an empty directory", sorted(os.listdir(".")), ["empty", "file", "full"])


@check
def a_directory_moved_knows_its_new_parent():
    os.makedirs("a/d"), os.mkdir("b"), put("a/d/file", b"inside")
    fd = os.open("a/d", os.O_RDONLY)
    os.rename("a/d", "b/d")
    same("..", os.stat("b/d/..").st_ino, os.stat("b").st_ino)
    same(".. by descriptor", os.stat("..", dir_fd=fd).st_ino, os.stat("b").st_ino)
    same("d_ino of ..", {e[3]: e[0] for e in listing("b/d")}[".."], os.stat("b").st_ino)
    same("links", (os.stat("a").st_nlink, os.stat("b").st_nlink), (2, 3))
    same("contents", slurp("b/d/file"), b"inside")
    os.chdir("b/d")
    same("getcwd", os.getcwd()[-4:], "/b/d")


@check
def noreplace_and_exchange():
    put("a", b"A"), put("b", b"B"), os.makedirs("d/in"), os.mkdir("x")
    refused(errno.EEXIST, renameat2, "a", "b", NOREPLACE)
    renameat2("a", "c", NOREPLACE)
    renameat2("c", "b", EXCHANGE)
    same("files", (slurp("b"), slurp("c")), (b"A", b"B"))
    renameat2("b", "d", EXCHANGE)
    same("file and directory", (os.listdir("b"), slurp("d")), (["in"], b"A"))
    same(".. inside", os.stat("b/in/..").st_ino, os.stat("b").st_ino)
    put("x/f", b"deep")
    renameat2("b", "x/f", EXCHANGE)
    same("over directories", (slurp("b"), os.listdir("x/f"), os.stat("x").st_nlink), (b"deep", ["in"], 3))
    same("..", os.stat("x/f/..").st_ino, os.stat("x").st_ino)
    refused(errno.ENOENT, renameat2, "b", "nothing", EXCHANGE)
    refused(errno.EINVAL, renameat2, "x", "x/f", EXCHANGE)
    refused(errno.EINVAL, renameat2, "b", "c", EXCHANGE | NOREPLACE)


@check
def exchange_and_noreplace_work_over_every_pair_of_kinds():
    def file(name):
        put(name, name.encode())

    def full(name):
        os.mkdir(name), put(name + "/in")

    def bound(name):
        socket.socket(socket.AF_UNIX).bind(name)
    kinds = {"file": file, "dir": os.mkdir, "full": full, "link": lambda name: os.symlink("x", name), "fifo": os.mkfifo, "socket": bound}
    if os.getuid() == 0:
        kinds["device"] = lambda name: os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkdir("p"), os.mkdir("q")
    for one, make_one in kinds.items():
        for two, make_two in kinds.items():
            for place in ("p", "q"):
                make_one("p/a"), make_two(place + "/b")
                a, b = os.lstat("p/a"), os.lstat(place + "/b")
                refused(errno.EEXIST, renameat2, "p/a", place + "/b", NOREPLACE)
                renameat2("p/a", place + "/b", EXCHANGE)
                got = os.lstat("p/a"), os.lstat(place + "/b")
                same(f"{one} and {two}", [(st.st_ino, st.st_mode) for st in got], [(b.st_ino, b.st_mode), (a.st_ino, a.st_mode)])
                for name in ("p/a", place + "/b"):
                    shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)
    same("links", (os.stat("p").st_nlink, os.stat("q").st_nlink), (2, 2))


@check
def directories_never_end_up_below_themselves_however_they_race():
    stop = time.monotonic() + 3

    def mover(names):
        n = 0
        while time.monotonic() < stop:
            for old, new in names:
                try:
                    os.rename(old, new)
                    n += 1
                except OSError as error:
                    assert error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP), error
    os.makedirs("a/x"), os.makedirs("b/y"), os.mkdir("c")
    waits = [child(mover, [("a", "b/y/a"), ("b/y/a", "a"), ("a/x/b", "b")]),
             child(mover, [("b", "a/x/b"), ("a/x/b", "b"), ("b/y/a", "a")]),
             child(mover, [("c", "a/x/c"), ("a/x/c", "b/y/c"), ("b/y/c", "c")])]
    for wait in waits:
        wait()
    seen = sorted(os.path.basename(path) for path, _, _ in os.walk(".") if path != ".")
    same("each is there once", seen, ["a", "b", "c", "x", "y"])


# Open and gone


@check
def a_file_unlinked_while_open_is_whole_until_the_last_close():
    fd = make("f", b"x" * 200_000)
    second = os.open("f", os.O_RDONLY)
    os.unlink("f")
    same("links", os.fstat(fd).st_nlink, 0)
    os.pwrite(fd, b"tail", 300_000), os.fchmod(fd, 0o600), os.ftruncate(fd, 300_002), os.fsync(fd)
    same("size", os.fstat(second).st_size, 300_002)
    same("read", (os.pread(second, 3, 199_999), os.pread(second, 9, 299_999)), (b"x\0\0", b"\0ta"))
    put("f", b"another")
    assert os.stat("f").st_ino != os.fstat(fd).st_ino
    os.close(second)
    same("after one of two closes", os.pread(fd, 2, 300_000), b"ta")
    m = mmap.mmap(fd, 4096)
    os.close(fd)
    same("mapped", m[:2], b"xx")


@check
def space_of_an_unlinked_open_file_comes_back_at_close():
    fd = make("f")
    before = os.statvfs(".").f_bfree
    for _ in range(32):
        os.write(fd, os.urandom(1 << 20))
    os.fsync(fd), os.unlink("f")
    block = os.statvfs(".").f_frsize
    assert (before - os.statvfs(".").f_bfree) * block > 24 << 20, "it does not count while it is open"
    os.close(fd)
    for _ in range(100):
        if (before - os.statvfs(".").f_bfree) * block < 4 << 20:
            return
        time.sleep(0.1)
    raise AssertionError(f"{(before - os.statvfs('.').f_bfree) * block} bytes still used 10 s after close")


@check
def a_temporary_file_without_a_name_can_be_linked_later():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"unnamed")
    same("links", os.fstat(fd).st_nlink, 0)
    link_descriptor(fd, "named")
    same("linked", (slurp("named"), os.stat("named").st_nlink), (b"unnamed", 1))


@check
def an_unlinked_file_cannot_be_linked_again():
    fd = make("f", b"x")
    os.unlink("f")
    refused(errno.ENOENT, link_descriptor, fd, "g")


# Data


@check
def appends_of_four_processes_all_survive():
    put("log")

    def append(who):
        fd = os.open("log", os.O_WRONLY | os.O_APPEND)
        for i in range(500):
            record = f"{who} {i:06} ".encode() + bytes([65 + who]) * (i % 97) + b"\n"
            same("write", os.write(fd, record), len(record))
        os.close(fd)
    for wait in [child(append, who) for who in range(4)]:
        wait()
    lines = slurp("log").split(b"\n")
    same("after the last newline", lines.pop(), b"")
    same("records", len(lines), 2000)
    for who in range(4):
        own = [line for line in lines if line.startswith(b"%d " % who)]
        same("order and bytes of one process", own, [f"{who} {i:06} ".encode() + bytes([65 + who]) * (i % 97) for i in range(500)])


@check
def append_ignores_the_offset_also_after_truncate_and_with_pwrite():
    fd = make("f", b"12345")
    a = os.open("f", os.O_RDWR | os.O_APPEND)
    os.lseek(a, 0, os.SEEK_SET), os.write(a, b"6")
    same("append", slurp("f"), b"123456")
    os.ftruncate(fd, 2), os.write(a, b"3")
    same("after truncate", slurp("f"), b"123")
    os.pwrite(a, b"4", 0)  # Linux appends here
    same("pwrite on O_APPEND", slurp("f"), b"1234")
    same("position", os.lseek(a, 0, os.SEEK_CUR), 3)


@check
def holes_read_as_zeros_and_cost_no_blocks():
    fd = make("f")
    os.pwrite(fd, b"end", 5 << 30)
    st = os.fstat(fd)
    same("size", st.st_size, (5 << 30) + 3)
    assert 0 < st.st_blocks <= 64, f"{st.st_blocks} blocks for 3 bytes"
    same("in the hole", os.pread(fd, 5000, 1 << 30), bytes(5000))
    same("across its end", os.pread(fd, 100, (5 << 30) - 2), b"\0\0end")
    os.ftruncate(fd, 0)
    same("after truncate", (os.fstat(fd).st_blocks, os.fstat(fd).st_size), (0, 0))
    os.ftruncate(fd, 1 << 40)
    same("longer", (os.fstat(fd).st_blocks, os.fstat(fd).st_size, os.pread(fd, 3, 1 << 39)), (0, 1 << 40, bytes(3)))


@check
def blocks_count_what_is_stored():
    fd = make("f")
    for i in range(64):
        os.write(fd, os.urandom(1 << 16))
    os.fsync(fd)
    blocks = os.fstat(fd).st_blocks
    assert 8192 <= blocks <= 8192 + 128, f"{blocks} blocks for 4 MiB"
    os.ftruncate(fd, 1 << 20)
    assert 2048 <= os.fstat(fd).st_blocks <= 2048 + 64, f"{os.fstat(fd).st_blocks} blocks after truncate to 1 MiB"
    same("st_blksize is sane", os.fstat(fd).st_blksize in [1 << n for n in range(9, 24)], True)


@check
def what_truncate_cut_off_does_not_come_back():
    fd = make("f", b"a" * 10_000)
    for size in (5000, 4096, 100, 1):
        os.ftruncate(fd, size), os.ftruncate(fd, 10_000)
        same(f"beyond {size}", os.pread(fd, 10_000, 0), b"a" * size + bytes(10_000 - size))
        os.pwrite(fd, b"a" * 10_000, 0)
    os.ftruncate(fd, 10), os.pwrite(fd, b"z", 50)
    same("a write past the end", os.pread(fd, 100, 0), b"a" * 10 + bytes(40) + b"z")


@check
def seek_finds_data_and_holes():
    fd = make("f")
    for at in (1 << 20, 8 << 20):
        os.pwrite(fd, os.urandom(1 << 16), at)
    os.ftruncate(fd, 10 << 20)
    data = lambda at: os.lseek(fd, at, os.SEEK_DATA)
    hole = lambda at: os.lseek(fd, at, os.SEEK_HOLE)
    same("hole at 0", hole(0), 0)
    same("first data", data(0), 1 << 20)
    same("inside data", data((1 << 20) + 5), (1 << 20) + 5)
    same("its end", hole(1 << 20), (1 << 20) + (1 << 16))
    same("second data", data(3 << 20), 8 << 20)
    refused(errno.ENXIO, data, 9 << 20)
    same("hole at the end", hole(9 << 20), 9 << 20)
    refused(errno.ENXIO, hole, 10 << 20)
    refused(errno.ENXIO, data, 11 << 20)


@check
def fallocate_keeps_extends_punches_and_zeroes():
    fd = make("f", b"d" * 100_000)
    fallocate(fd, KEEP_SIZE, 0, 1 << 20)
    same("size kept", os.fstat(fd).st_size, 100_000)
    assert os.fstat(fd).st_blocks >= 2048, "nothing was allocated"
    fallocate(fd, 0, 0, 200_000)
    same("extended", (os.fstat(fd).st_size, os.pread(fd, 2, 99_999)), (200_000, b"d\0"))
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 10_001, 50_000)
    same("punched", os.pread(fd, 50_002, 10_000), b"d" + bytes(50_000) + b"d")
    same("size after punch", os.fstat(fd).st_size, 200_000)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 1 << 30, 4096)
    fallocate(fd, ZERO_RANGE, 70_000, 10)
    same("zeroed", os.pread(fd, 12, 69_999), b"d" + bytes(10) + b"d")
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, 199_000, 50_000)
    same("size after zero with keep", os.fstat(fd).st_size, 200_000)
    refused((errno.EOPNOTSUPP, errno.EINVAL), fallocate, fd, PUNCH_HOLE, 0, 4096)
    refused(errno.EINVAL, fallocate, fd, 0, 0, 0)
    refused(errno.EBADF, fallocate, os.open("f", os.O_RDONLY), 0, 0, 10)
    os.posix_fallocate(fd, 0, 300_000)
    same("posix_fallocate", os.fstat(fd).st_size, 300_000)


@check
def random_changes_of_every_kind_leave_the_bytes_they_should():
    """As fsx, with what it lacks: zero ranges, allocation with and without the size, O_DIRECT, all mixed with mappings."""
    seed = int.from_bytes(os.urandom(4), "little")
    rng, fd, shadow, most = random.Random(seed), make("f"), bytearray(), 300_000
    direct = os.open("f", os.O_RDWR | os.O_DIRECT)
    done = []

    def grow(end):
        shadow.extend(bytes(max(0, end - len(shadow))))

    def span():
        at = rng.randrange(most)
        return at, 1 + rng.randrange(min(60_000, most - at))

    def write(at, n):
        data = rng.randbytes(n)
        os.pwrite(fd, data, at), grow(at + n)
        shadow[at:at + n] = data

    def write_direct(at, n):
        at, page = at & ~4095, mmap.mmap(-1, 8192)
        page[:] = rng.randbytes(8192)
        os.pwritev(direct, [page], at), grow(at + 8192)
        shadow[at:at + 8192] = page[:]

    def truncate(at, n):
        os.ftruncate(fd, at), grow(at)
        del shadow[at:]

    def change(mode):
        def run(at, n):
            fallocate(fd, mode, at, n)
            if not mode & KEEP_SIZE:
                grow(at + n)
            if mode & (PUNCH_HOLE | ZERO_RANGE):
                shadow[at:at + n] = bytes(len(shadow[at:at + n]))
        return run

    def store(at, n):
        if at + n > len(shadow):
            return
        m = mmap.mmap(fd, len(shadow))
        m[at:at + n] = shadow[at:at + n] = rng.randbytes(n)
        rng.random() < 0.5 and m.flush()
        m.close()

    def copy(at, n):
        to = rng.randrange(most)
        if at < to + n and to < at + n or at >= len(shadow):
            return
        n = os.copy_file_range(fd, fd, n, at, to)
        grow(to + n)
        shadow[to:to + n] = shadow[at:at + n]

    def look(at, n):
        same("read", os.pread(fd, n, at) == bytes(shadow[at:at + n]), True)
        if shadow:
            m = mmap.mmap(fd, len(shadow), prot=mmap.PROT_READ)
            same("mapped", m[at:at + n] == bytes(shadow[at:at + n]), True)
            m.close()
    calls = {"write": write, "direct": write_direct, "truncate": truncate, "store": store, "copy": copy, "look": look, "punch": change(PUNCH_HOLE | KEEP_SIZE),
             "zero": change(ZERO_RANGE), "zero keep": change(ZERO_RANGE | KEEP_SIZE), "allocate": change(0), "allocate keep": change(KEEP_SIZE)}
    for _ in range(1500):
        name, (at, n) = rng.choice(list(calls)), span()
        done.append((name, at, n))
        try:
            calls[name](at, n)
            same("size", os.fstat(fd).st_size, len(shadow))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, after {done[-6:]}: {error}") from None
    same(f"seed {seed}: all of it", slurp("f") == bytes(shadow), True)


@check
def ranges_that_cannot_be_collapsed_or_inserted_are_refused_by_name():
    if open(f"{STATE}/kind").read().strip() != "dfuse":
        raise Skip("only what is ours is refused")
    fd = make("f", b"d" * 100_000)
    for mode in (COLLAPSE, INSERT, UNSHARE, COLLAPSE | KEEP_SIZE, PUNCH_HOLE, 0x1000):
        refused(errno.EOPNOTSUPP, fallocate, fd, mode, 0, 4096)
    same("untouched", slurp("f"), b"d" * 100_000)


@check
def data_and_holes_are_found_after_every_change():
    fd, M = make("f"), 1 << 20

    def layout():
        """(start, end) of each run of data."""
        runs, at = [], 0
        while True:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO, error
                return runs
            end = os.lseek(fd, at, os.SEEK_HOLE)
            runs.append((at, end))
            at = end
    os.pwrite(fd, os.urandom(4 * M), 0)
    same("written", layout(), [(0, 4 * M)])
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, M, M)
    same("punched", layout(), [(0, M), (2 * M, 4 * M)])
    os.ftruncate(fd, 3 * M), os.ftruncate(fd, 8 * M)
    same("cut and extended", layout(), [(0, M), (2 * M, 3 * M)])
    os.pwrite(fd, os.urandom(M), 6 * M)
    same("written far off", layout(), [(0, M), (2 * M, 3 * M), (6 * M, 7 * M)])
    m = mmap.mmap(fd, 8 * M)
    m[5 * M:5 * M + 4096] = b"m" * 4096
    m.flush(), m.close()
    same("stored through a mapping", layout(), [(0, M), (2 * M, 3 * M), (5 * M, 5 * M + 4096), (6 * M, 7 * M)])
    os.unlink("f")
    same("without a name", layout()[-1], (6 * M, 7 * M))


@check
def copy_file_range_stops_at_the_end_and_copies_what_holes_read_as():
    a, b = make("a", b"x" * 1000), make("b", b"y" * 5000)
    same("across the end", os.copy_file_range(a, b, 4000, 500, 100), 500)
    same("what was there stays", slurp("b"), b"y" * 100 + b"x" * 500 + b"y" * 4400)
    same("beyond the end", os.copy_file_range(a, b, 10, 1000, 0), 0)
    os.ftruncate(a, 3 << 20), os.pwrite(a, b"tail", 3 << 20)
    left, at = (3 << 20) + 4, 0
    while left:
        n = os.copy_file_range(a, b, left, at, at)
        assert n > 0
        at, left = at + n, left - n
    same("with a hole", slurp("b") == slurp("a"), True)
    same("extends", os.copy_file_range(a, b, 4, 3 << 20, 10 << 20), 4)
    same("leaves a hole", os.pread(b, 6, (10 << 20) - 2), b"\0\0tail")
    refused(errno.EBADF, os.copy_file_range, a, os.open("b", os.O_RDONLY), 10, 0, 0)
    refused(errno.EBADF, os.copy_file_range, a, os.open("b", os.O_WRONLY | os.O_APPEND), 10, 0, 0)


@check
def copy_file_range_copies_between_and_within_files():
    source = os.urandom(300_000)
    a, b = make("a", source), make("b")
    left, at = len(source), 0
    while left:
        n = os.copy_file_range(a, b, left, at, at)
        assert n > 0
        at, left = at + n, left - n
    same("copied", slurp("b"), source)
    same("at the end", os.copy_file_range(a, b, 100, 300_000, 0), 0)
    n = os.copy_file_range(b, b, 1000, 0, 200_001)
    same("within", os.pread(b, n, 200_001), source[:n])
    refused(errno.EINVAL, os.copy_file_range, b, b, 1000, 0, 500)


@check
def vectors_positions_and_short_reads():
    fd = make("f")
    same("writev", os.writev(fd, [b"abc", b"", b"defg"]), 7)
    same("pwritev", os.pwritev(fd, [b"XY", b"Z"], 2), 3)
    parts = [bytearray(2), bytearray(100)]
    same("preadv", (os.preadv(fd, parts, 1), bytes(parts[0]), bytes(parts[1][:4])), (6, b"bX", b"YZfg"))
    same("at the end", os.pread(fd, 10, 7), b"")
    same("position", os.lseek(fd, 0, os.SEEK_CUR), 7)
    same("RWF_DSYNC", os.pwritev(fd, [b"!"], 7, os.RWF_DSYNC), 1)
    refused(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    same("seek past the end", os.lseek(fd, 100, os.SEEK_END), 108)


@check
def direct_io_is_coherent_with_buffered_io():
    fd = make("f", b"b" * 65536)
    os.fsync(fd)
    try:
        direct = os.open("f", os.O_RDWR | os.O_DIRECT)
    except OSError as error:
        raise Skip(f"O_DIRECT: {error}") from None
    page = mmap.mmap(-1, 8192)
    page[:] = b"D" * 8192
    same("pwrite", os.pwritev(direct, [page], 4096), 8192)
    same("buffered read after direct write", os.pread(fd, 8194, 4095), b"b" + b"D" * 8192 + b"b")
    os.pwrite(fd, b"BUF", 4096)
    same("preadv", os.preadv(direct, [page], 4096), 8192)
    same("direct read after buffered write", page[:4], b"BUFD")


@check
def offsets_reach_beyond_a_tebibyte_and_end_with_efbig():
    fd = make("f")
    same("write", os.pwrite(fd, b"far", 1 << 42), 3)
    same("read", os.pread(fd, 10, 1 << 42), b"far")
    same("size", os.fstat(fd).st_size, (1 << 42) + 3)
    # The greatest offset: refused by name, or it works.
    try:
        os.ftruncate(fd, (1 << 63) - 1)
        same("greatest size", os.fstat(fd).st_size, (1 << 63) - 1)
        os.ftruncate(fd, 0)
    except OSError as error:
        assert error.errno in (errno.EFBIG, errno.EINVAL), error
    for offset in (1 << 48, 1 << 56, (1 << 63) - 2):
        try:
            os.pwrite(fd, b"x", offset)
            same(f"read at {offset}", os.pread(fd, 1, offset), b"x")
        except OSError as error:
            assert error.errno in (errno.EFBIG, errno.EINVAL), error


@check
def open_flags_mean_what_they_say():
    put("f", b"data"), os.mkdir("d")
    refused(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL)
    refused(errno.ENOTDIR, os.open, "f", os.O_DIRECTORY)
    refused(errno.EISDIR, os.open, "d", os.O_WRONLY)
    refused(errno.ENOTDIR, os.open, "f/x", os.O_RDONLY)
    refused(errno.ENOENT, os.open, "nothing/x", os.O_CREAT)
    refused(errno.EBADF, os.write, os.open("f", os.O_RDONLY), b"x")
    refused(errno.EBADF, os.read, os.open("f", os.O_WRONLY), 1)
    os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    same("O_TRUNC", os.stat("f").st_size, 0)
    path = os.open("f", os.O_PATH)
    same("O_PATH", os.fstat(path).st_ino, os.stat("f").st_ino)
    refused(errno.EBADF, os.read, path, 1)


@check
def a_running_program_is_neither_written_nor_truncated():
    shutil.copyfile("/bin/sleep", "program"), os.chmod("program", 0o755)
    size = os.stat("program").st_size
    running = subprocess.Popen(["./program", "20"])
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC):
        refused(errno.ETXTBSY, os.open, "program", flags)
    refused(errno.ETXTBSY, os.truncate, "program", 0)
    same("its size", os.stat("program").st_size, size)
    running.kill(), running.wait()
    os.truncate("program", 0)


@check
def every_way_to_sync_returns():
    fd = make("f", b"x")
    os.fsync(fd), os.fdatasync(fd)
    d = os.open(".", os.O_RDONLY)
    os.fsync(d)
    c_call("syncfs", fd)
    c_call("sync_file_range", fd, ctypes.c_long(0), ctypes.c_long(0), 7)
    os.sync()
    for flag in (os.O_SYNC, os.O_DSYNC):
        s = os.open("f", os.O_WRONLY | flag)
        same("write", os.write(s, b"synced"), 6)


# Mapped files


@check
def a_mapping_and_read_and_write_see_the_same_bytes():
    fd = make("f", bytes(3 * 4096))
    m = mmap.mmap(fd, 0)
    m[10:13] = b"map"
    same("read", os.pread(fd, 3, 10), b"map")
    os.pwrite(fd, b"wri", 5000)
    same("mapping", m[5000:5003], b"wri")
    other = os.open("f", os.O_RDWR)
    n = mmap.mmap(other, 0)
    n[4096:4099] = b"two"
    same("another mapping", (m[4096:4099], os.pread(fd, 3, 4096)), (b"two", b"two"))
    os.ftruncate(fd, 4096)
    same("after truncate", os.pread(fd, 9000, 0)[10:13], b"map")
    os.ftruncate(fd, 3 * 4096)
    same("after regrowth", m[4096:4099], bytes(3))


@check
def two_processes_share_what_they_map_and_what_they_write():
    fd = make("f", bytes(2 << 20))
    m = mmap.mmap(fd, 2 << 20)
    r, w = os.pipe()
    back, forth = os.pipe()

    def other():
        mine = os.open("f", os.O_RDWR)
        n = mmap.mmap(mine, 2 << 20)
        for i in range(100):
            os.read(r, 1)
            at = (i * 20_011) % (2 << 20)
            same(f"round {i}: what the other stored", (n[at], os.pread(mine, 1, at)), (i + 1, bytes([i + 1])))
            os.pwrite(mine, bytes([255 - i]), at)
            os.write(forth, b"1")
    wait = child(other)
    for i in range(100):
        at = (i * 20_011) % (2 << 20)
        m[at] = i + 1
        os.write(w, b"1"), os.read(back, 1)
        same(f"round {i}: what the other wrote", (m[at], os.pread(fd, 1, at)), (255 - i, bytes([255 - i])))
    wait()


@check
def a_mapping_shows_zeros_past_the_end_and_growth_shows_them_too():
    fd = make("f", b"a" * 100)
    m = mmap.mmap(fd, 100)
    os.pwrite(fd, b"b", 4000)
    same("grown by a write", os.pread(fd, 4000, 0), b"a" * 100 + bytes(3900))
    same("and in the mapping", m[:100], b"a" * 100)
    os.ftruncate(fd, 50), os.ftruncate(fd, 4001)
    same("cut and grown", os.pread(fd, 5000, 0), b"a" * 50 + bytes(3951))
    m = mmap.mmap(fd, 4001)
    same("a new mapping", m[:], b"a" * 50 + bytes(3951))


@check
def bytes_stored_past_the_end_through_a_mapping_do_not_become_data():
    fd = make("f", b"a" * 100)
    libc.mmap.restype = ctypes.c_void_p  # Python's own mappings end with the file
    p = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, fd, ctypes.c_long(0))
    ctypes.memmove(p + 200, b"ghost", 5)
    os.ftruncate(fd, 1000)
    same("bytes 200..205", os.pread(fd, 5, 200), bytes(5))


@check
def mmap_stores_change_mtime_and_survive_remount():
    fd = make("f", bytes(8192))
    os.utime("f", ns=(10**18, 10**18))
    m = mmap.mmap(fd, 0)
    m[5000:5004] = b"kept"
    m.flush(), m.close(), os.close(fd)
    assert os.stat("f").st_mtime_ns > 10**18, "mtime did not change by a store and msync"
    remount()
    same("after remount", slurp("f")[5000:5004], b"kept")


# Locks


def lock(fd, kind, start=0, length=0, command=None):
    data = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(fd, command if command is not None else fcntl.F_SETLK, data))


AGAIN = (errno.EAGAIN, errno.EACCES)
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38


@check
def fcntl_locks_exclude_other_processes_by_range():
    fd = make("f", b"x" * 100)
    lock(fd, fcntl.F_WRLCK, 10, 10), lock(fd, fcntl.F_RDLCK, 50, 10)

    def other():
        mine = os.open("f", os.O_RDWR)
        for args in ((fcntl.F_WRLCK, 0, 0), (fcntl.F_RDLCK, 19, 1), (fcntl.F_WRLCK, 50, 1)):
            refused(AGAIN, lock, mine, *args)
        lock(mine, fcntl.F_RDLCK, 50, 5), lock(mine, fcntl.F_WRLCK, 20, 30)
        kind, _, start, length, pid = lock(mine, fcntl.F_WRLCK, 0, 100, fcntl.F_GETLK)
        same("getlk", (kind, start, length, pid), (fcntl.F_WRLCK, 10, 10, os.getppid()))
    child(other)()
    lock(fd, fcntl.F_UNLCK, 12, 2)

    def middle():
        mine = os.open("f", os.O_RDWR)
        lock(mine, fcntl.F_WRLCK, 12, 2)
        refused(AGAIN, lock, mine, fcntl.F_WRLCK, 11, 1)
    child(middle)()
    os.close(os.open("f", os.O_RDONLY))  # closing any descriptor of the file drops the process's locks
    child(lambda: lock(os.open("f", os.O_RDWR), fcntl.F_WRLCK))()


@check
def a_waiting_fcntl_lock_is_granted_interrupted_or_refused_as_a_deadlock():
    fd = make("f", b"xx")
    lock(fd, fcntl.F_WRLCK, 0, 1)
    r, w = os.pipe()

    def waiter():
        mine = os.open("f", os.O_RDWR)
        lock(mine, fcntl.F_WRLCK, 1, 1)
        os.write(w, b"1")
        lock(mine, fcntl.F_WRLCK, 0, 1, fcntl.F_SETLKW)  # until we let go
    wait = child(waiter)
    os.read(r, 1), time.sleep(0.3)
    refused(errno.EDEADLK, lock, fd, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW)
    lock(fd, fcntl.F_UNLCK, 0, 1)
    wait()
    lock(fd, fcntl.F_WRLCK)

    def interrupted():
        class Alarm(Exception):
            pass

        def ring(*_):
            raise Alarm
        signal.signal(signal.SIGALRM, ring), signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            lock(os.open("f", os.O_RDWR), fcntl.F_WRLCK, 0, 0, fcntl.F_SETLKW)
            raise AssertionError("a lock was given twice")
        except Alarm:
            pass
    child(interrupted)()


@check
def ofd_locks_belong_to_the_open_file():
    a, b = make("f", b"x"), os.open("f", os.O_RDWR)
    lock(a, fcntl.F_WRLCK, 0, 10, OFD_SETLK)
    refused(AGAIN, lock, b, fcntl.F_WRLCK, 5, 1, OFD_SETLK)
    kind, _, start, length, pid = lock(b, fcntl.F_WRLCK, 0, 0, OFD_GETLK)
    same("getlk", (kind, start, length, pid), (fcntl.F_WRLCK, 0, 10, -1))
    os.close(os.open("f", os.O_RDONLY))
    refused(AGAIN, lock, b, fcntl.F_WRLCK, 5, 1, OFD_SETLK)
    duplicate = os.dup(a)
    os.close(a)
    refused(AGAIN, lock, b, fcntl.F_WRLCK, 5, 1, OFD_SETLK)
    os.close(duplicate)
    lock(b, fcntl.F_WRLCK, 5, 1, OFD_SETLK)


@check
def flock_excludes_shares_and_ends_with_its_open_file():
    a, b = make("f"), os.open("f", os.O_RDONLY)
    fcntl.flock(a, fcntl.LOCK_SH), fcntl.flock(b, fcntl.LOCK_SH)
    refused(AGAIN, fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(b, fcntl.LOCK_UN), fcntl.flock(a, fcntl.LOCK_EX)
    refused(AGAIN, fcntl.flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB)
    wait = child(lambda: (os.close(a), fcntl.flock(os.open("f", os.O_RDONLY), fcntl.LOCK_EX)))
    time.sleep(0.2), os.close(a)
    wait()
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock(os.open("f", os.O_RDWR), fcntl.F_WRLCK)  # the two kinds do not see each other


# Attributes and permissions


def times(path):
    st = os.lstat(path)
    return st.st_mtime_ns, st.st_ctime_ns


@check
def mtime_and_ctime_change_with_what_posix_says():
    fd = make("f", b"x")
    os.mkdir("d")
    # call, path, does mtime change, does ctime change
    table = [
        (lambda: os.write(fd, b"more"), "f", True, True),
        (lambda: os.ftruncate(fd, 3), "f", True, True),
        (lambda: os.fchmod(fd, 0o600), "f", False, True),
        (lambda: os.setxattr("f", "user.a", b"b"), "f", False, True),
        (lambda: os.link("f", "g"), "f", False, True),
        (lambda: os.unlink("g"), "f", False, True),
        (lambda: os.rename("f", "h") or os.rename("h", "f"), "f", False, True),
        (lambda: os.pread(fd, 1, 0), "f", False, False),
        (lambda: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 1), "f", True, True),
        (lambda: put("d/x"), "d", True, True),
        (lambda: os.rename("d/x", "d/y"), "d", True, True),
        (lambda: os.unlink("d/y"), "d", True, True),
        (lambda: os.mkdir("d/z"), "d", True, True),
        (lambda: os.rmdir("d/z"), "d", True, True),
        (lambda: os.symlink("t", "d/s"), "d", True, True),
        (lambda: os.listdir("d"), "d", False, False),
        (lambda: os.chmod("d", 0o700), "d", False, True),
    ]
    for number, (call, path, m, c) in enumerate(table):
        before = times(path)
        time.sleep(0.02)
        now = time.time_ns()
        call()
        after = times(path)
        same(f"row {number}: mtime, ctime of {path} changed", (after[0] != before[0], after[1] != before[1]), (m, c))
        for changed, value in ((m, after[0]), (c, after[1])):
            assert not changed or abs(value - now) < 2 * 10**9, f"row {number}: the new time is {(value - now) / 1e9} s off"
        same(f"row {number}: a second look", times(path), after)


@check
def times_are_set_to_the_nanosecond_from_1902_to_2446_and_stay():
    put("f")
    for seconds in (-(1 << 31) + 1, -1, 0, 1, (1 << 31) + 5, 15_000_000_000):
        ns = seconds * 10**9 + 123456789
        os.utime("f", ns=(ns, ns + 1))
        st = os.stat("f")
        same(f"at {seconds}", (st.st_atime_ns, st.st_mtime_ns), (ns, ns + 1))
    fd = os.open("f", os.O_WRONLY)
    os.write(fd, b"x"), os.utime("f", ns=(1, 2)), os.close(fd)
    same("set after a write, before close", os.stat("f").st_mtime_ns, 2)
    now, omit = (1 << 30) - 1, (1 << 30) - 2
    spec = lambda a, m: struct.pack("qqqq", 0, a, 0, m)
    c_call("utimensat", AT_FDCWD, b"f", spec(omit, now), 0)
    st = os.stat("f")
    same("UTIME_OMIT", st.st_atime_ns, 1)
    assert abs(st.st_mtime_ns - time.time_ns()) < 2 * 10**9, "UTIME_NOW"


OLD, OLDER = 10**18, 9 * 10**17
DAY = 24 * 3600 * 10**9


def atime(path):
    return os.lstat(path).st_atime_ns


@check
def atime_follows_reads_as_relatime():
    put("f", b"x" * 10)
    os.utime("f", ns=(OLDER, OLD))  # atime older than mtime: the next read renews it
    slurp("f")
    assert atime("f") > OLD, f"atime is still {atime('f')}"
    first = atime("f")
    same("a second look", atime("f"), first)
    slurp("f")
    same("a second read", atime("f"), first)
    recent = time.time_ns() - DAY // 2
    time.sleep(0.02), os.utime("f", ns=(recent, OLDER))
    # ctime is younger than atime, so this is due by Linux's rule as well
    slurp("f")
    assert atime("f") > recent, "older than ctime"


@check
def atime_is_renewed_by_every_way_to_read_and_by_nothing_else():
    def renewed(what, read, path="f", expected=True):
        os.utime(path, ns=(OLDER, OLD), follow_symlinks=False)
        read()
        same(what, atime(path) > OLD, expected)

    put("f", b"x" * 10), os.mkdir("d"), put("d/x"), os.symlink("f", "l")

    def mapped():
        fd = os.open("f", os.O_RDONLY)
        m = mmap.mmap(fd, 10, prot=mmap.PROT_READ)
        m[0], m.close(), os.close(fd)
    renewed("open", lambda: os.close(os.open("f", os.O_RDONLY)), expected=False)
    renewed("stat", lambda: os.stat("f"), expected=False)
    renewed("read", lambda: slurp("f"))
    renewed("a mapping", mapped)
    renewed("listing", lambda: os.listdir("d"), "d")
    renewed("lookup", lambda: os.stat("d/x"), "d", False)
    renewed("readlink", lambda: os.readlink("l"), "l")

    def quiet():
        q = os.open("f", os.O_RDONLY | os.O_NOATIME)
        os.read(q, 10), os.close(q)
    renewed("O_NOATIME", quiet, expected=False)


@check
def atimes_outlive_a_remount():
    put("f", b"x" * 10)
    os.utime("f", ns=(OLDER, OLD))
    slurp("f")
    seen, ctime = atime("f"), os.stat("f").st_ctime_ns
    remount()
    same("atime, ctime", (atime("f"), os.stat("f").st_ctime_ns), (seen, ctime))


@check
def xattrs_follow_their_flags_and_sizes():
    put("f")
    os.setxattr("f", "user.one", b"1", os.XATTR_CREATE)
    refused(errno.EEXIST, os.setxattr, "f", "user.one", b"2", os.XATTR_CREATE)
    refused(errno.ENODATA, os.setxattr, "f", "user.two", b"2", os.XATTR_REPLACE)
    os.setxattr("f", "user.one", b"", os.XATTR_REPLACE)
    same("empty", os.getxattr("f", "user.one"), b"")
    refused(errno.ENODATA, os.getxattr, "f", "user.two")
    refused(errno.ENODATA, os.removexattr, "f", "user.two")
    os.setxattr("f", "user." + "n" * 250, b"long name")
    same("list", sorted(x for x in os.listxattr("f") if x.startswith("user.")), ["user." + "n" * 250, "user.one"])
    big = os.urandom(65536)
    try:
        os.setxattr("f", "user.big", big)
        same("64 KiB", os.getxattr("f", "user.big"), big)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.E2BIG) and open(f"{STATE}/kind").read().strip() != "dfuse", error
    refused((errno.E2BIG, errno.ERANGE), os.setxattr, "f", "user.huge", bytes(65537))
    buffer = ctypes.create_string_buffer(4)
    os.setxattr("f", "user.one", b"12345")
    refused(errno.ERANGE, c_call, "getxattr", b"f", b"user.one", buffer, ctypes.c_size_t(4))
    same("size asked", c_call("getxattr", b"f", b"user.one", None, ctypes.c_size_t(0)), 5)
    refused((errno.EOPNOTSUPP, errno.EPERM), os.setxattr, "f", "nonsense.x", b"1")
    os.removexattr("f", "user.one")
    assert "user.one" not in os.listxattr("f")
    os.symlink("f", "l")
    refused((errno.EPERM, errno.EOPNOTSUPP), os.setxattr, "l", "user.x", b"1", follow_symlinks=False)
    os.mkdir("d"), os.setxattr("d", "user.x", b"dir")
    same("directory", os.getxattr("d", "user.x"), b"dir")
    if os.getuid() == 0:
        os.setxattr("f", "trusted.t", b"t")
        same("trusted", os.getxattr("f", "trusted.t"), b"t")

        def plain():
            refused((errno.ENODATA, errno.EPERM), os.getxattr, "f", "trusted.t")
            refused((errno.EPERM, errno.EACCES), os.setxattr, "f", "user.x", b"1")
        as_user(plain)


@check
def a_thousand_attributes_of_64_kib_stay_with_their_file():
    if open(f"{STATE}/kind").read().strip() != "dfuse":
        raise Skip("the others have smaller limits")
    put("f"), os.mkdir("d")
    value = os.urandom(65536)
    for i in range(1000):
        os.setxattr("f", f"user.{i:03}", value[i:] + value[:i])
    os.rename("f", "d/g"), os.link("d/g", "h")
    remount()
    same("names", sorted(os.listxattr("h")), [f"user.{i:03}" for i in range(1000)])
    for i in (0, 1, 499, 998, 999):
        same(f"value {i}", os.getxattr("d/g", f"user.{i:03}") == value[i:] + value[:i], True)
    for i in range(1000):
        os.removexattr("h", f"user.{i:03}")
    same("none left", os.listxattr("d/g"), [])


@check
def attributes_have_the_limits_and_owners_that_linux_gives_them():
    put("f"), os.mkfifo("p"), os.symlink("f", "l")
    refused(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"1")
    refused(errno.E2BIG, os.setxattr, "f", "user.a", bytes(65537))
    refused(errno.EPERM, os.setxattr, "p", "user.x", b"1")
    refused(errno.EPERM, os.setxattr, "l", "user.x", b"1", follow_symlinks=False)
    refused(errno.EOPNOTSUPP, os.setxattr, "f", "nonsense.x", b"1")
    refused(errno.EOPNOTSUPP, os.getxattr, "f", "nonsense.x")
    os.setxattr("f", "user.a", b"12345")
    small = ctypes.create_string_buffer(3)
    refused(errno.ERANGE, c_call, "getxattr", b"f", b"user.a", small, ctypes.c_size_t(3))
    refused(errno.ERANGE, c_call, "listxattr", b"f", small, ctypes.c_size_t(3))
    same("list size", c_call("listxattr", b"f", None, ctypes.c_size_t(0)), len("user.a") + 1)
    if os.getuid() == 0:
        os.setxattr("f", "trusted.t", b"t"), os.setxattr("p", "trusted.t", b"t"), os.setxattr("l", "trusted.t", b"t", follow_symlinks=False)
        os.chmod(".", 0o755), os.chmod("f", 0o666)

        def plain():
            same("listed", os.listxattr("f"), ["user.a"])
            refused(errno.EPERM, os.setxattr, "f", "trusted.t", b"1")
            refused(errno.ENODATA, os.getxattr, "f", "trusted.t")
            os.setxattr("f", "user.b", b"mine")
            refused(errno.EPERM, os.setxattr, "f", "security.x", b"1")
        as_user(plain)


def acl(*entries):
    """The xattr of an ACL: (tag, permissions, id) with tag u, g, m, o; an id of None is the owner, the group."""
    tags = {("u", True): 1, ("u", False): 2, ("g", True): 4, ("g", False): 8, ("m", True): 16, ("o", True): 32}
    body = b"".join(struct.pack("<HHI", tags[tag, who is None], bits, 0xFFFFFFFF if who is None else who) for tag, bits, who in entries)
    return struct.pack("<I", 2) + body


ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


@check
def acls_decide_who_may_do_what():
    put("f", b"secret"), os.chmod("f", 0o600), os.chmod(".", 0o755)
    os.setxattr("f", ACCESS, acl(("u", 6, None), ("u", 4, 12345), ("g", 0, None), ("g", 6, 777), ("m", 6, None), ("o", 0, None)))
    same("mode", os.stat("f").st_mode & 0o777, 0o660)

    def reader():
        same("read", slurp("f"), b"secret")
        refused(errno.EACCES, os.open, "f", os.O_WRONLY)
        refused(errno.EPERM, os.setxattr, "f", ACCESS, acl(("u", 7, None), ("g", 7, None), ("o", 7, None)))
    as_user(reader)
    as_user(lambda: os.close(os.open("f", os.O_RDWR)), uid=4, gid=777)
    as_user(lambda: os.close(os.open("f", os.O_RDWR)), uid=4, gid=4, groups=(777,))
    as_user(lambda: refused(errno.EACCES, os.open, "f", os.O_RDONLY), uid=4, gid=4)
    os.chmod("f", 0o640)  # the mask
    as_user(lambda: refused(errno.EACCES, os.open, "f", os.O_RDWR), uid=4, gid=777)
    as_user(lambda: same("read", slurp("f"), b"secret"), uid=4, gid=777)
    os.removexattr("f", ACCESS)
    as_user(lambda: refused(errno.EACCES, os.open, "f", os.O_RDONLY))


@check
def acls_are_inherited_and_outlive_links_renames_and_remounts():
    os.mkdir("d"), os.chmod("d", 0o777), os.chmod(".", 0o755)
    default = acl(("u", 7, None), ("u", 6, 5), ("g", 5, None), ("m", 7, None), ("o", 0, None))
    os.setxattr("d", DEFAULT, default)

    def inside():
        os.umask(0o077)
        os.close(os.open("d/f", os.O_CREAT | os.O_RDWR, 0o666))
        os.mkdir("d/sub", 0o777), os.mkfifo("d/fifo", 0o640), os.symlink("f", "d/link")
    as_user(inside)
    expected = acl(("u", 6, None), ("u", 6, 5), ("g", 5, None), ("m", 6, None), ("o", 0, None))
    os.rename("d/f", "g"), os.link("g", "h")
    renameat2("h", "d/sub", EXCHANGE), renameat2("h", "d/sub", EXCHANGE)
    for _ in range(2):
        same("of a file", (os.getxattr("g", ACCESS), os.getxattr("h", ACCESS), os.stat("g").st_mode & 0o777), (expected, expected, 0o660))
        same("of a directory", (os.getxattr("d/sub", DEFAULT), os.stat("d/sub").st_mode & 0o777), (default, 0o770))
        same("of a fifo", os.stat("d/fifo").st_mode & 0o777, 0o640)
        refused((errno.ENODATA, errno.EOPNOTSUPP), os.getxattr, "d/link", ACCESS, follow_symlinks=False)
        same("listed", sorted(x for x in os.listxattr("d/sub") if x.startswith("system")), [ACCESS, DEFAULT])
        remount()
    refused(errno.EACCES, os.setxattr, "g", DEFAULT, default)
    refused(errno.EINVAL, os.setxattr, "g", ACCESS, acl(("u", 7, None)))
    os.setxattr("g", ACCESS, acl(("u", 6, None), ("g", 4, None), ("o", 0, None)))
    same("a minimal list is the mode", (os.stat("g").st_mode & 0o777, ACCESS in os.listxattr("g")), (0o640, False))


@check
def an_acl_by_somebody_outside_the_group_clears_set_gid():
    put("f"), os.chown("f", 12345, 999), os.chmod("f", 0o2755), os.chmod(".", 0o755)
    wide = acl(("u", 7, None), ("u", 5, 5), ("g", 5, None), ("m", 5, None), ("o", 5, None))
    as_user(lambda: os.setxattr("f", ACCESS, wide))
    same("by a stranger to the group", os.stat("f").st_mode & 0o7777, 0o755)
    os.chmod("f", 0o2755)
    as_user(lambda: os.setxattr("f", ACCESS, wide), groups=(999,))
    same("by a member", os.stat("f").st_mode & 0o7777, 0o2755)


@check
def set_gid_goes_with_a_chmod_by_somebody_outside_the_group():
    put("f"), os.chown("f", 12345, 999), os.chmod(".", 0o755)
    as_user(lambda: os.chmod("f", 0o2755))
    same("by a stranger to the group", os.stat("f").st_mode & 0o7777, 0o755)
    as_user(lambda: os.chmod("f", 0o2755), groups=(999,))
    same("by a member", os.stat("f").st_mode & 0o7777, 0o2755)
    os.mkdir("g"), os.chown("g", 0, 999), os.chmod("g", 0o2777)
    as_user(lambda: os.close(os.open("g/f", os.O_CREAT, 0o2775)))
    same("nor is it made", os.stat("g/f").st_mode & 0o7777, 0o755)


@check
def privileges_fall_at_every_change_of_bytes_by_somebody_else():
    put("source", b"y" * 10), os.chmod("source", 0o644), os.chmod(".", 0o755)
    changes = {
        "fallocate": lambda fd: fallocate(fd, 0, 0, 100),
        "punch": lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 1),
        "copy_file_range": lambda fd: os.copy_file_range(os.open("source", os.O_RDONLY), fd, 10, 0, 0),
        "pwrite": lambda fd: os.pwrite(fd, b"z", 0),
        "ftruncate": lambda fd: os.ftruncate(fd, 1),
        "O_TRUNC": lambda fd: os.open("f", os.O_WRONLY | os.O_TRUNC),
    }
    for name, change in changes.items():
        put("f", b"x" * 10), os.chmod("f", 0o6777)
        os.setxattr("f", "security.capability", CAPABILITY)
        as_user(lambda: change(os.open("f", os.O_RDWR)))
        same(f"mode after {name}", os.stat("f").st_mode & 0o7777, 0o777)
        refused(errno.ENODATA, os.getxattr, "f", "security.capability")
        os.unlink("f")


@check
def capabilities_fall_at_every_change_of_bytes_even_by_root():
    def direct(fd):
        page = mmap.mmap(-1, 4096)
        os.pwritev(os.open("f", os.O_WRONLY | os.O_DIRECT), [page], 0)
    for name, change in {
        "pwrite": lambda fd: os.pwrite(fd, b"z", 0),
        "O_DIRECT": direct,
        "ftruncate": lambda fd: os.ftruncate(fd, 1),
        "chown": lambda fd: os.fchown(fd, 5, 5),
        "fallocate": lambda fd: fallocate(fd, 0, 0, 5000),
    }.items():
        put("f", b"x" * 10), os.chmod("f", 0o755)
        os.setxattr("f", "security.capability", CAPABILITY)
        fd = os.open("f", os.O_RDWR)
        os.fchmod(fd, 0o711)
        same("chmod keeps them", len(os.getxattr("f", "security.capability")), 20)
        change(fd)
        refused(errno.ENODATA, os.getxattr, "f", "security.capability")
        os.close(fd), os.unlink("f")


@check
def privileges_fall_at_a_write_by_somebody_else():
    put("f", b"x")
    os.chmod("f", 0o6777)
    as_user(lambda: os.close(os.open("f", os.O_WRONLY)))
    same("after open", os.stat("f").st_mode & 0o7777, 0o6777)
    as_user(lambda: os.write(os.open("f", os.O_WRONLY), b"y"))
    same("after a write", os.stat("f").st_mode & 0o7777, 0o777)
    os.chmod("f", 0o6777)
    as_user(lambda: os.truncate("f", 0))
    same("after truncate", os.stat("f").st_mode & 0o7777, 0o777)
    os.chmod("f", 0o6755), os.chown("f", 5, 5)
    same("after chown by root", os.stat("f").st_mode & 0o7777, 0o755)
    os.chmod("f", 0o6755), os.chown("f", -1, -1)
    same("after chown to nobody else", os.stat("f").st_mode & 0o7777, 0o755)
    os.chmod("f", 0o6755), as_user(lambda: refused(errno.EPERM, os.chown, "f", -1, -1))
    same("after chown by a stranger", os.stat("f").st_mode & 0o7777, 0o6755)
    cap = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr("f", "security.capability", cap)
    os.write(os.open("f", os.O_WRONLY), b"z")
    refused(errno.ENODATA, os.getxattr, "f", "security.capability")


@check
def permissions_are_those_of_the_mode_for_every_caller():
    os.mkdir("d", 0o755), put("d/f", b"secret"), os.chmod("d/f", 0o640), os.chmod("d", 0o750), os.chown("d", 0, 777), os.chown("d/f", 0, 777)
    os.chmod(".", 0o755)

    def stranger():
        refused(errno.EACCES, os.open, "d/f", os.O_RDONLY)
        refused(errno.EACCES, os.listdir, "d")
        refused(errno.EACCES, os.mkdir, "x")
        refused(errno.EPERM, os.chmod, "d", 0o777)
        refused(errno.EPERM, os.chown, "d", 12345, -1)
        refused(errno.EACCES, os.rename, "d", "e")
        same("access", os.access("d", os.R_OK), False)

    def member():
        same("read", slurp("d/f"), b"secret")
        refused(errno.EACCES, os.open, "d/f", os.O_WRONLY)
        refused(errno.EACCES, os.unlink, "d/f")
    as_user(stranger)
    as_user(member, groups=(777,))
    as_user(member, gid=777)


@check
def sticky_setgid_and_umask():
    os.mkdir("t"), os.chmod("t", 0o1777), put("t/root")

    def plain():
        refused((errno.EPERM, errno.EACCES), os.unlink, "t/root")
        refused((errno.EPERM, errno.EACCES), os.rename, "t/root", "t/x")
        put("t/own"), os.unlink("t/own")
    as_user(plain)
    os.mkdir("g"), os.chown("g", 0, 999), os.chmod("g", 0o2777)

    def inside():
        os.umask(0o027)
        put("g/f"), os.mkdir("g/d")
        os.close(os.open("g/e", os.O_CREAT, 0o777))
    as_user(inside)
    same("group of a file", (os.stat("g/f").st_gid, os.stat("g/f").st_uid), (999, 12345))
    same("group and setgid of a directory", (os.stat("g/d").st_gid, os.stat("g/d").st_mode & 0o7777), (999, 0o2750))
    same("umask", os.stat("g/e").st_mode & 0o777, 0o750)


@check
def statvfs_is_plausible_and_counts_files():
    v = os.statvfs(".")
    same("f_namemax", v.f_namemax, 255)
    assert 0 < v.f_bavail <= v.f_bfree <= v.f_blocks, v
    assert v.f_frsize in (512, 1024, 4096, 8192, 16384, 65536), v
    before = v.f_bfree * v.f_frsize
    fd = make("f")
    for _ in range(16):
        os.write(fd, os.urandom(1 << 20))
    os.fsync(fd)
    used = before - os.statvfs(".").f_bfree * v.f_frsize
    assert 15 << 20 <= used <= 24 << 20, f"16 MiB written, {used} bytes used"


@check
def changes_are_seen_through_another_name_and_another_process_at_once():
    put("f", b"1")
    fd = os.open("f", os.O_RDONLY)
    same("read", os.pread(fd, 10, 0), b"1")
    for i in range(200):
        child_done = child(lambda: os.write(os.open("f", os.O_WRONLY | os.O_TRUNC), b"%d" % i)) if i % 50 == 0 else None
        if child_done:
            child_done()
        else:
            w = os.open("f", os.O_WRONLY | os.O_TRUNC)
            os.write(w, b"%d" % i), os.close(w)
        same("content", os.pread(fd, 10, 0), b"%d" % i)
        same("size", os.stat("f").st_size, len(str(i)))
    refused(errno.ENOENT, os.stat, "later")  # a negative entry
    child(lambda: put("later"))()
    os.stat("later")


@check
def inotify_and_poll_work():
    fd = c_call("inotify_init1", 0)
    c_call("inotify_add_watch", fd, b".", 0x100)
    put("made")
    assert select.select([fd], [], [], 5)[0], "no event for a create"
    assert b"made" in os.read(fd, 4096)
    p = select.poll()
    p.register(os.open("made", os.O_RDWR), select.POLLIN | select.POLLOUT)
    same("poll on a file", p.poll(0)[0][1], select.POLLIN | select.POLLOUT)


@check
def a_read_only_remount_refuses_changes():
    mnt = f"{STATE}/mnt"
    put("f", b"x")
    if not os.path.ismount(mnt) or os.getuid() != 0:
        raise Skip("not a mount of our own")
    subprocess.run(["mount", "-i", "-o", "remount,ro", mnt], check=True)
    try:
        for call in (lambda: put("g"), lambda: os.unlink("f"), lambda: os.mkdir("d"), lambda: os.chmod("f", 0o600),
                     lambda: os.setxattr("f", "user.x", b""), lambda: os.truncate("f", 0), lambda: os.utime("f")):
            refused(errno.EROFS, call)
        same("read", slurp("f"), b"x")
    finally:
        subprocess.run(["mount", "-i", "-o", "remount,rw", mnt], check=True)
    put("g")


@check
def paths_of_4095_bytes_work_and_4096_are_refused():
    put("f", b"here")
    path = lambda length: "./" * ((length - 1) // 2) + ("/" if length % 2 == 0 else "") + "f"
    same("lengths", (len(path(4095)), len(path(4094)), len(path(4096))), (4095, 4094, 4096))
    same("4095 bytes", slurp(path(4095)), b"here")
    refused(errno.ENAMETOOLONG, os.open, path(4096), os.O_RDONLY)
    os.symlink(path(4095), "l")
    same("a symlink of 4095", (os.readlink("l"), slurp("l")), (path(4095), b"here"))
    refused(errno.ENAMETOOLONG, os.symlink, path(4096), "m")


@check
def statx_tells_when_an_inode_was_born():
    before = time.time_ns()
    put("f"), os.mkdir("d"), os.symlink("f", "l")
    after = time.time_ns()

    def born(path):
        buffer = ctypes.create_string_buffer(256)
        c_call("statx", AT_FDCWD, path.encode(), 0x100, 0xFFF, buffer)
        mask, = struct.unpack_from("<I", buffer, 0)
        assert mask & 0x800, f"{path} has no birth time"
        sec, nsec = struct.unpack_from("<qI", buffer, 80)
        return sec * 10**9 + nsec
    first = {path: born(path) for path in ("f", "d", "l")}
    for path, at in first.items():
        assert before - 20 * 10**6 <= at <= after, f"{path} was born {(at - before) / 1e9} s after it was made"
    time.sleep(0.02), put("f", b"x"), os.chmod("f", 0o600), os.utime("f", ns=(1, 1)), os.rename("f", "g")
    same("born once", born("g"), first["f"])
    remount()
    same("after remount", born("g"), first["f"])


@check
def what_is_written_with_o_sync_or_fsync_survives_the_daemon():
    if open(f"{STATE}/kind").read().strip() != "dfuse":
        raise Skip("there is no daemon")
    for flag in (os.O_SYNC, os.O_DSYNC):
        fd = os.open(f"f{flag}", os.O_WRONLY | os.O_CREAT | flag)
        os.write(fd, b"synced"), os.close(fd)
    fd = make("g", b"data")
    os.fdatasync(fd), os.close(fd)
    os.chdir("/")
    subprocess.run([MOUNT_SH, "kill", STATE], check=True), subprocess.run([MOUNT_SH, "again", STATE], check=True)
    os.chdir(WORK)
    same("after kill -9", [slurp(name) for name in sorted(os.listdir("."))], [b"synced", b"synced", b"data"])


@check
def deep_trees_and_long_paths_work():
    here = os.getcwd()
    for i in range(60):
        os.mkdir("d" * 100), os.chdir("d" * 100)
    put("bottom", b"deep")
    same("at the bottom", slurp("bottom"), b"deep")
    os.chdir(here)
    shutil.rmtree("d" * 100)
    refused(errno.ENAMETOOLONG, os.stat, "x/" * 2100)


# Running the checks


def attempt(function):
    """ok / FAILED / skipped and a reason. In a process of its own, with a time limit."""
    global WORK
    WORK = os.path.join(STATE, "mnt", "checks", function.__name__)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        os.setpgid(0, 0)
        try:
            os.umask(0o022)
            os.makedirs(WORK)
            os.chdir(WORK)
            function()
            os.write(w, b"ok\t")
        except Skip as reason:
            os.write(w, f"skipped\t{reason}".encode())
        except BaseException as error:
            text = str(error) or repr(error)
            where = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.name == function.__name__]
            os.write(w, f"FAILED\tline {where[-1] if where else '?'}: {type(error).__name__}: {text}".encode()[:1500])
        os._exit(0)
    os.close(w)
    ready, _, _ = select.select([r], [], [], SECONDS_MAX)
    text = os.read(r, 2000).decode("utf-8", "replace") if ready else f"FAILED\tran out of time ({SECONDS_MAX} s)"
    os.close(r)
    for _ in range(2):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for _ in range(50):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.1)
    return (text or "FAILED\tdied without a word").replace("\n", " | ").split("\t", 1)


def main():
    wanted = sys.argv[2:]
    for function in CHECKS:
        if wanted and function.__name__ not in wanted:
            continue
        status, reason = attempt(function)
        print(f"{function.__name__}\t{status}\t{reason}", flush=True)
        if subprocess.run([MOUNT_SH, "alive", STATE]).returncode:
            print(f"{function.__name__}_leaves_the_daemon_alive\tFAILED\tthe filesystem does not answer", flush=True)
            subprocess.run([MOUNT_SH, "kill", STATE])
            subprocess.run([MOUNT_SH, "again", STATE], check=True)


main()
