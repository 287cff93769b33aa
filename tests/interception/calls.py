"""Calls that are partly the door's and partly the kernel's: appends, flags, copies in the kernel, fsync."""

import os
import signal
import subprocess
import sys

from program import Worker
from store import need

RECORD = 1000


class Calls:
    def __init__(self, tests):
        self.tests, self.store = tests, tests.store

    def append(self):
        """Through the door from the first on, also with a position, also when O_APPEND comes later; the offset is behind what was added."""
        path = self.tests.path()
        with open(path, "wb") as file:
            file.write(b"there ")
        with Worker() as worker:
            before = self.tests.calls()
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND)")
            need(worker.do("os.write(fd, b'one ')") == 4, "a short write")
            need(worker.do("os.lseek(fd, 0, os.SEEK_CUR)") == 10, "the offset is the end")
            worker.do("os.lseek(fd, 0, 0); os.writev(fd, [b'two', b' '])")
            need(worker.do("os.lseek(fd, 0, os.SEEK_CUR)") == 14, "wherever it was before")
            need(worker.do("os.pwrite(fd, b'three ', 3)") == 6, "a short write")
            need(worker.do("os.lseek(fd, 0, os.SEEK_CUR)") == 14, "a position moves nothing")
            before = self.tests.used(before, 3)
            large = (3 << 20) + 5
            need(worker.do(f"os.write(fd, b'L' * {large})") == large, "what does not fit into a call is the kernel's")
            need(worker.do("os.lseek(fd, 0, os.SEEK_CUR)") == 20 + large, "and moves the offset to the end")
            need(worker.do("os.write(fd, b'end')") == 3, "a short write")
            worker.do("os.close(fd)")
            with open(path, "rb") as file:
                need(file.read() == b"there one two three " + b"L" * large + b"end", "its bytes")
            worker.do(f"import fcntl; fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT); os.pwrite(fd, b'T', 0)")
            before = self.tests.calls()
            worker.do("fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_DIRECT); os.write(fd, b'!')")
            worker.do("fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT); os.pwrite(fd, b'H', 1)")
            self.tests.used(before, 2)
            worker.do("os.close(fd)")
            with open(path, "rb") as file:
                data = file.read()
            need(data[:5] == b"THere" and data[-4:] == b"end!", f"{data[:5]} {data[-4:]}")

    def appenders(self):
        """Several programs and threads add records to one file, through the door, and one through the mount comes and goes: none is lost or torn."""
        path, each, programs, threads = self.tests.path(), 150, 3, 3
        workers = [Worker() for _ in range(programs)]
        before = self.tests.calls()
        try:
            for number, worker in enumerate(workers):
                worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)")
                worker.do(
                    f"def many(n):\n    for i in range({each}): os.write(fd, bytes([65 + {number * threads} + n]) * {RECORD})\n"
                    f"threads = [threading.Thread(target=many, args=(n,)) for n in range({threads})]"
                )
            for worker in workers:
                worker.tell("[t.start() for t in threads] and [t.join() for t in threads] and None")
            for worker in workers:
                worker.hear()
            self.tests.used(before, programs * threads * each)
            for worker in workers:
                worker.do(f"threads = [threading.Thread(target=many, args=(n,)) for n in range({threads})]")
                worker.tell("[t.start() for t in threads] and [t.join() for t in threads] and None")
            plain = [sys.executable, "-c", f"import os; fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND); [os.write(fd, b'z' * {RECORD}) for n in range({each})]"]
            subprocess.run(plain, check=True, timeout=60)
            for worker in workers:
                worker.hear()
        finally:
            for worker in workers:
                worker.__exit__()
        with open(path, "rb") as file:
            data = file.read()
        records = [data[at:at + RECORD] for at in range(0, len(data), RECORD)]
        need(all(len(set(record)) == 1 and len(record) == RECORD for record in records), "a torn record")
        expected = {65 + n: 2 * each for n in range(programs * threads)} | {ord("z"): each}
        found = {byte: sum(record[0] == byte for record in records) for byte in expected}
        need(found == expected and len(records) == sum(expected.values()), f"lost: {found}")

    def whole_appends(self):
        """An append of several requests is in one piece, whoever adds to the file beside it."""
        path, size = self.tests.path(), (3 << 20) + 17
        with Worker() as large, Worker() as small:
            for worker in (large, small):
                worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)")
            small.do("over = []\ndef adding():\n    while not over: os.write(fd, b's' * 100)\nthread = threading.Thread(target=adding); thread.start()")
            for _ in range(5):
                need(large.do(f"os.write(fd, b'L' * {size})") == size, "a short write")
            small.do("over.append(1); thread.join()")
        with open(path, "rb") as file:
            runs = [len(run) for run in file.read().replace(b"s", b" ").split()]
        need(sum(runs) == 5 * size and all(run % size == 0 for run in runs), f"pieces of {runs}")

    def limited(self):
        """The limit of file sizes holds for appends too."""
        path = self.tests.path()
        with Worker() as worker:
            worker.do("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644); os.write(fd, b'x' * 4000)")
            worker.do("resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))")
            need(worker.do("os.write(fd, b'y' * 4096)") == 1000, "the kernel's limit of file sizes")
        need(os.stat(path).st_size == 5000, "its size")

    def flags(self):
        """preadv2 and pwritev2 with flags are the kernel's, with its answers."""
        path = self.tests.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644); os.pwrite(fd, b'0123456789', 0)")
            before = self.tests.calls()
            need(worker.do("os.pwritev(fd, [b'ab', b'c'], 2)") == 3, "a short write")
            before = self.tests.used(before)
            need(worker.do("os.pwritev(fd, [b'AB'], 0, os.RWF_DSYNC)") == 2, "a short write")
            need(worker.do("os.pwritev(fd, [b'+'], 0, os.RWF_APPEND)") == 1, "a short write")
            need(self.tests.calls() == before, "these are not the door's")
            found = worker.bytes("os.pread(fd, 20, 0)")
            need(found == b"ABabc56789+", f"its bytes are {found}")

    def copies(self):
        """sendfile, copy_file_range and splice from and to a file of the door's."""
        path, other = self.tests.path(), self.tests.path()
        opening = "os.open({!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)"
        with Worker() as worker:
            def fresh():
                worker.do(f"a = {opening.format(path)}; b = {opening.format(other)}; os.ftruncate(a, 0); os.ftruncate(b, 0)")
                before = self.tests.calls()
                worker.do("os.pwrite(a, b'a' * 9000, 0); os.pwrite(b, b'b' * 9000, 0)")
                self.tests.used(before, 2)

            def look(text, expected):
                done = worker.do(text)
                need(done == 5000, f"{text}: {done}")
                need(worker.bytes("os.pread(b, 10000, 0)") == expected, f"{text}: what the program reads")
                worker.do("os.pwrite(b, b'!', 0); os.close(a); os.close(b)")
                with open(other, "rb") as file:
                    need(file.read() == b"!" + expected[1:], f"{text}: the file")

            inside = b"b" * 1000 + b"a" * 5000 + b"b" * 3000
            fresh()
            look("os.copy_file_range(a, b, 5000, 2000, 1000)", inside)
            fresh()
            worker.do("os.lseek(b, 1000, 0)")
            look("os.sendfile(b, a, 2000, 5000)", inside)
            fresh()
            worker.do("r, w = os.pipe(); moved = os.splice(a, w, 5000, offset_src=2000)")
            look("os.splice(r, b, 5000, offset_dst=1000)", inside)

    def durable(self):
        """What the door wrote before an fsync is there after the daemon was killed: fsync goes through the kernel and reaches dfuse."""
        path, data = self.tests.path(), os.urandom(200_000)
        with Worker() as worker:
            before = self.tests.calls()
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_DIRECT | os.O_CREAT, 0o644); data = bytes.fromhex({data.hex()!r})")
            worker.do("[os.pwrite(fd, data[at:at + 1000], at) for at in range(0, len(data), 1000)]")
            self.tests.used(before, 150)
            syncs = [self.syncs()]
            for text in ("os.fsync(fd)", "os.fdatasync(fd)"):
                worker.do(text)
                syncs.append(self.syncs())
            need(syncs[0] < syncs[1] < syncs[2], f"{syncs} times the device was asked to be synced")
            os.kill(self.store.pid(), signal.SIGKILL)
            self.store.sh("kill", self.store.state)
        self.store.again()
        with open(path, "rb") as file:
            need(file.read() == data, "what was synced")

    def syncs(self):
        """Syncs that the store has carried out for dfs."""
        targets = self.store.daos("filesystem", "query", "--stats")["targets"]
        return sum(request["count"] for target in targets for request in target["requests"] if request["name"] == "sync")


def claims(tests):
    calls = Calls(tests)
    yield "appends go through the door", calls.append
    yield "several appenders lose and tear nothing", calls.appenders
    yield "large appends are in one piece", calls.whole_appends
    yield "appends have their limit", calls.limited
    yield "flags of preadv2 and pwritev2 are the kernel's", calls.flags
    yield "copies inside the kernel are right", calls.copies
    yield "what was synced survives the daemon", calls.durable
