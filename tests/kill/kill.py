"""Kills the daemon under load, mounts again, and asks for everything that was acknowledged.

Each worker owns a directory, makes random changes in it and keeps a model of what was acknowledged: a system call that
returned. The daemon dies by SIGKILL at a random moment; at most one call of each worker is then in doubt, and may have
happened or not (a write: each of its bytes is the old or the new one). Everything else must be there, to the byte.

usage: kill.py STATE [--rounds N] [--workers N] [--seed N] [--check COMMAND]
STATE is that of scripts/mount.sh. Exit code 0 when nothing is missing.
"""

import argparse
import errno
import os
import random
import subprocess
import sys
import threading
import time

MOUNT_SH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/mount.sh")
FILES_MAX = 40
FILE_BYTES_MAX = 300_000
REMOUNT_SECONDS_MAX = 2.0
DAEMON_IS_GONE = (errno.ENOTCONN, errno.ECONNABORTED)


class Missing(Exception):
    """Something acknowledged is not there, or something is there that nobody made."""


class Node:
    """A file, whatever names lead to it."""

    def __init__(self, data=b"", mode=0o644):
        self.data = bytearray(data)
        self.mode = mode
        self.xattrs = {}


class Worker(threading.Thread):
    """`names` is the model: path in the worker's directory -> Node, "dir", or a symlink's target as str."""

    def __init__(self, number, base, seed):
        super().__init__(daemon=True)
        self.number = number
        self.base = os.path.join(base, f"worker{number}")
        self.rng = random.Random(f"{seed}/{number}")
        self.names = {}
        self.doubt = None
        self.ops = 0
        self.stop = False
        self.failure = None

    # What the thread does

    def run(self):
        try:
            while not self.stop:
                self.step()
                self.ops += 1
        except BaseException as error:
            if not (isinstance(error, OSError) and error.errno in DAEMON_IS_GONE):
                self.failure = error  # nothing but the kill may end a worker: the main thread reports it

    def path(self, name):
        return os.path.join(self.base, name)

    def step(self):
        files = [n for n, v in self.names.items() if isinstance(v, Node)]
        ops = [self.op_create] if len(files) < 3 else [
            self.op_create, self.op_create, self.op_write, self.op_write, self.op_append, self.op_append, self.op_truncate,
            self.op_rename, self.op_rename, self.op_unlink, self.op_link, self.op_symlink, self.op_mkdir, self.op_rmdir,
            self.op_chmod, self.op_setxattr, self.op_exchange_by_three, self.op_save,
        ]
        if len(files) >= FILES_MAX:
            ops = [self.op_unlink]
        self.rng.choice(ops)(files)

    def changes(self, alternatives, call):
        """Runs `call`; while it is in doubt the model may be any of `alternatives` (functions that change a copy)."""
        self.doubt = alternatives
        result = call()
        self.doubt = None
        return result

    def fresh(self, kind):
        folders = [""] + [n + "/" for n, v in self.names.items() if v == "dir"]
        return f"{self.rng.choice(folders)}{kind}{self.rng.randrange(1_000_000_000)}"

    def set(self, name, value):
        self.changes([("set", name, value)], self.call)
        self.names[name] = value

    def bytes(self, limit):
        return self.rng.randbytes(self.rng.choice([1, 100, 4096, self.rng.randrange(1, limit), self.rng.randrange(1, limit)]))

    def maybe_sync(self, fd):
        if self.rng.random() < 0.2:
            (os.fsync if self.rng.random() < 0.5 else os.fdatasync)(fd)

    def op_create(self, _files):
        name = self.fresh("file")
        fd = self.changes([("set", name, Node())], lambda: os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        try:
            self.names[name] = Node()
            self.write(fd, name, 0, self.bytes(100_000))
            self.maybe_sync(fd)
        finally:
            os.close(fd)

    def write(self, fd, name, offset, data, append=False):
        node = self.names[name]
        done = self.changes([("write", name, offset, data)],
                            lambda: os.write(fd, data) if append else os.pwrite(fd, data, offset))
        put(node.data, offset, data[:done])
        if done < len(data):
            # The kernel cuts a write into requests: the daemon died after some of them, and the next one is in doubt.
            self.doubt = [("write", name, offset + done, data[done:])]
            raise OSError(errno.ENOTCONN, "a write was cut short")

    def op_write(self, files):
        name = self.rng.choice(files)
        size = len(self.names[name].data)
        fd = os.open(self.path(name), os.O_RDWR | (os.O_SYNC if self.rng.random() < 0.1 else 0))
        try:
            self.write(fd, name, min(self.rng.randrange(size + 5000), FILE_BYTES_MAX), self.bytes(60_000))
            self.maybe_sync(fd)
        finally:
            os.close(fd)

    def op_append(self, files):
        name = self.rng.choice(files)
        size = len(self.names[name].data)
        if size > FILE_BYTES_MAX:
            return
        fd = os.open(self.path(name), os.O_WRONLY | os.O_APPEND)
        try:
            self.write(fd, name, size, self.bytes(20_000), append=True)
            self.maybe_sync(fd)
        finally:
            os.close(fd)

    def op_truncate(self, files):
        name = self.rng.choice(files)
        size = self.rng.randrange(len(self.names[name].data) + 10_000)
        self.changes([("truncate", name, size)], lambda: os.truncate(self.path(name), size))
        cut(self.names[name].data, size)

    def op_rename(self, files):
        old = self.rng.choice(files)
        new = self.rng.choice(files) if self.rng.random() < 0.4 else self.fresh("moved")
        if self.names[old] is self.names.get(new):
            return  # names of one file: POSIX keeps both
        self.changes([("rename", old, new)], lambda: os.rename(self.path(old), self.path(new)))
        self.names[new] = self.names.pop(old)

    def op_exchange_by_three(self, files):
        """What editors do: write beside, sync, rename over, sync the directory."""
        name = self.rng.choice(files)
        beside = os.path.join(os.path.dirname(name), f"beside{self.rng.randrange(10**9)}")
        data = self.bytes(50_000)
        fd = self.changes([("set", beside, Node())], lambda: os.open(self.path(beside), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        try:
            self.names[beside] = Node()
            self.write(fd, beside, 0, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.changes([("rename", beside, name)], lambda: os.rename(self.path(beside), self.path(name)))
        self.names[name] = self.names.pop(beside)

    def op_save(self, files):
        """Truncate on open and write again, which is the risky way."""
        name = self.rng.choice(files)
        fd = self.changes([("truncate", name, 0)], lambda: os.open(self.path(name), os.O_RDWR | os.O_TRUNC))
        try:
            cut(self.names[name].data, 0)
            self.write(fd, name, 0, self.bytes(30_000))
        finally:
            os.close(fd)

    def op_unlink(self, files):
        name = self.rng.choice(files)
        self.changes([("remove", name)], lambda: os.unlink(self.path(name)))
        del self.names[name]

    def op_link(self, files):
        old, new = self.rng.choice(files), self.fresh("link")
        self.changes([("link", old, new)], lambda: os.link(self.path(old), self.path(new)))
        self.names[new] = self.names[old]

    def op_symlink(self, _files):
        links = [n for n, v in self.names.items() if isinstance(v, str) and v != "dir"]
        if len(links) > 10:
            name = self.rng.choice(links)
            self.changes([("remove", name)], lambda: os.unlink(self.path(name)))
            del self.names[name]
            return
        name, target = self.fresh("soft"), "x" * self.rng.randrange(1, 300)
        self.changes([("set", name, target)], lambda: os.symlink(target, self.path(name)))
        self.names[name] = target

    def op_mkdir(self, _files):
        if sum(v == "dir" for v in self.names.values()) > 8:
            return
        name = self.fresh("dir")
        self.changes([("set", name, "dir")], lambda: os.mkdir(self.path(name)))
        self.names[name] = "dir"

    def op_rmdir(self, _files):
        empty = [n for n, v in self.names.items() if v == "dir" and not any(o.startswith(n + "/") for o in self.names)]
        if empty:
            name = self.rng.choice(empty)
            self.changes([("remove", name)], lambda: os.rmdir(self.path(name)))
            del self.names[name]

    def op_chmod(self, files):
        name, mode = self.rng.choice(files), self.rng.choice([0o600, 0o644, 0o755, 0o640])
        self.changes([("chmod", name, mode)], lambda: os.chmod(self.path(name), mode))
        self.names[name].mode = mode

    def op_setxattr(self, files):
        name, value = self.rng.choice(files), self.rng.randbytes(self.rng.randrange(200))
        self.changes([("xattr", name, value)], lambda: os.setxattr(self.path(name), "user.kill", value))
        self.names[name].xattrs["user.kill"] = value

    # What is asked after the mount

    def verify(self):
        """Compares the directory with the model; what was in doubt is settled by what is there."""
        found = {}
        for folder, dirs, files in os.walk(self.base, onerror=unreadable):
            for name in dirs + files:
                full = os.path.join(folder, name)
                found[os.path.relpath(full, self.base)] = full
        reasons = []
        for doubt in [None] + (self.doubt or []):
            try:
                names, loose = imagine(self.names, doubt)
                settled = compare(names, loose, found)
                self.names, self.doubt = settled, None
                return
            except Missing as missing:
                reasons.append(f"{'had it not happened' if doubt is None else f'had {describe(doubt)} happened'}: {missing}")
        raise Missing(f"worker {self.number} after {self.ops} calls: " + "; ".join(reasons))


def unreadable(error):
    raise Missing(f"a directory cannot be read: {error}")


def describe(doubt):
    return " ".join(f"<{len(p)} bytes>" if isinstance(p, bytes) else "<file>" if isinstance(p, Node) else str(p) for p in doubt)


def put(data, offset, piece):
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset:offset + len(piece)] = piece


def cut(data, size):
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def imagine(names, doubt):
    """The model as it is had the call in doubt happened. `loose`: (node, old, new) where each byte may be of either."""
    names = dict(names)
    if doubt is None:
        return names, None
    verb, name, *rest = doubt
    if verb == "set":
        names[name] = rest[0]
    elif verb == "remove":
        del names[name]
    elif verb == "rename":
        names[rest[0]] = names.pop(name)
    elif verb == "link":
        names[rest[0]] = names[name]
    else:
        old = names[name]
        new = Node(old.data, old.mode)
        new.xattrs = dict(old.xattrs)
        if verb == "write":
            put(new.data, rest[0], rest[1])
        elif verb == "truncate":
            cut(new.data, rest[0])
        elif verb == "chmod":
            new.mode = rest[0]
        elif verb == "xattr":
            new.xattrs["user.kill"] = rest[0]
        names = {n: new if v is old else v for n, v in names.items()}
        if verb == "write":
            return names, (new, bytes(old.data))
    return names, None


def compare(names, loose, found):
    """Raises Missing at the first difference between the model and what is there."""
    for name in found:
        if name not in names:
            raise Missing(f"{name} is there and should not be")
    inodes = {}
    for name, value in names.items():
        if name not in found:
            raise Missing(f"{name} is not there")
        full = found[name]
        st = os.lstat(full)
        if isinstance(value, str):
            if value == "dir":
                ok = os.path.isdir(full) and not os.path.islink(full)
            else:
                ok = os.path.islink(full) and os.readlink(full) == value
            if not ok:
                raise Missing(f"{name} is not what was made")
            continue
        links = sum(v is value for v in names.values())
        if st.st_nlink != links:
            raise Missing(f"{name} has {st.st_nlink} links, should have {links}")
        if inodes.setdefault(id(value), st.st_ino) != st.st_ino:
            raise Missing(f"{name} is not the same file as its other names")
        if st.st_mode & 0o7777 != value.mode:
            raise Missing(f"{name} has mode {st.st_mode & 0o7777:o}, should have {value.mode:o}")
        for attribute, expected in value.xattrs.items():
            try:
                got = os.getxattr(full, attribute)
            except OSError as error:
                raise Missing(f"{name}: xattr {attribute}: {error}") from None
            if got != expected:
                raise Missing(f"{name}: xattr {attribute} differs")
        with open(full, "rb") as f:
            data = f.read()
        if st.st_size != len(data):
            raise Missing(f"{name}: stat says {st.st_size} bytes, read gives {len(data)}")
        if loose and value is loose[0]:
            check_mixed(name, data, bytes(value.data), loose[1])
            value.data = bytearray(data)
        elif data != value.data:
            raise Missing(f"{name}: {difference(data, value.data)}")
    return names


def difference(got, expected):
    if len(got) != len(expected):
        return f"{len(got)} bytes, should be {len(expected)}"
    at = next(i for i in range(len(got)) if got[i] != expected[i])
    wrong = sum(a != b for a, b in zip(got, expected))
    zeros = all(b == 0 for b in got[at:at + 512])
    return f"{wrong} of {len(got)} bytes differ, the first at {at}" + (" (zeros)" if zeros else "")


def check_mixed(name, got, new, old):
    if not len(old) <= len(got) <= len(new):
        raise Missing(f"{name}: {len(got)} bytes, should be between {len(old)} and {len(new)}")
    for at, byte in enumerate(got):
        if byte != new[at] and byte != (old[at] if at < len(old) else 0):
            raise Missing(f"{name}: byte {at} is neither that before nor that after a write that was not acknowledged")


def mount_sh(verb, state):
    done = subprocess.run([MOUNT_SH, verb, state], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"scripts/mount.sh {verb}: {done.stderr.strip()}")
    return done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    args = parser.parse_args()
    print(f"seed {args.seed}: repeat with tests/kill/run --seed {args.seed} (moments and loads; not the scheduler)", flush=True)
    rng = random.Random(args.seed)
    os.umask(0o022)
    base = os.path.join(args.state, "mnt", "kill")
    kind = open(os.path.join(args.state, "kind")).read().strip()
    os.mkdir(base)
    workers = []
    for number in range(args.workers):
        os.mkdir(os.path.join(base, f"worker{number}"))
        workers.append(Worker(number, base, args.seed))
    slowest, calls = 0.0, 0
    for number in range(args.rounds):
        again = []
        for worker in workers:
            next_worker = Worker(worker.number, base, f"{args.seed}/{number}")
            next_worker.names = worker.names
            again.append(next_worker)
        workers = again
        for worker in workers:
            worker.start()
        time.sleep(rng.uniform(0.05, 1.0))
        if kind != "dfuse":  # nothing to kill: this tries the test itself
            for worker in workers:
                worker.stop = True
        mount_sh("kill", args.state)
        for worker in workers:
            worker.stop = kind != "dfuse"
            worker.join(60)
            if worker.is_alive():
                sys.exit(f"round {number}: worker {worker.number} hangs in a call although the daemon is dead")
            if worker.failure:
                sys.exit(f"round {number}: worker {worker.number}, {describe((worker.doubt or [['no call in doubt']])[0])}: {worker.failure!r}")
        begin = time.monotonic()
        mount_sh("again", args.state)
        seconds = time.monotonic() - begin
        slowest = max(slowest, seconds)
        done = sum(worker.ops for worker in workers)
        calls += done
        try:
            for worker in workers:
                worker.verify()
        except Missing as missing:
            sys.exit(f"round {number} (seed {args.seed}): {missing}")
        print(f"  kill {number + 1:3}: {done:5} changes acknowledged, mounted again in {seconds:.2f} s, nothing missing", flush=True)
        if seconds > REMOUNT_SECONDS_MAX:
            sys.exit(f"round {number}: it took {seconds:.2f} s to mount again, more than {REMOUNT_SECONDS_MAX} s")
    if calls < args.rounds * 20:
        sys.exit(f"only {calls} changes in {args.rounds} rounds: that proves nothing")
    print(f"{args.rounds} kills, {calls} changes acknowledged, slowest mount {slowest:.2f} s")


main()
