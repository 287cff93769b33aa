"""Programs under libpil4dfs.so on a mount of dfuse: the same bytes, sizes and names as through the kernel, on one node, whoever looks.

usage: interception.py [WORD...]     WORD: run only the claims with one of these words in their names
"""

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time

import calls
import hostile
import inodes
import names
import reports
import symbols
from program import LIBRARY, Worker

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import Results, Skipped, Store, need  # noqa: E402

BLOCK = 4096


class Interception:
    def __init__(self, store):
        self.store, self.mnt = store, store.mnt
        self.number = 0

    def path(self):
        self.number += 1
        return f"{self.mnt}/file{self.number}"

    def door(self):
        return self.store.daos("filesystem", "query")["door"]

    def calls(self):
        return self.door()["calls"]

    def used(self, since, least=1):
        """Calls that came through the door since."""
        now = self.calls()
        need(now - since >= least, f"{now - since} calls came through the door, {least} were to")
        return now

    def dd(self):
        path, before = self.path(), self.calls()
        done = subprocess.run(
            ["dd", "if=/dev/urandom", f"of={path}", "bs=64k", "count=40", "status=none"],
            env={**os.environ, "LD_PRELOAD": LIBRARY, "D_IL_REPORT": "1"}, capture_output=True, text=True, timeout=60,
        )
        need(done.returncode == 0, done.stderr)
        need("[write  ]  38\n" in done.stderr and "op_sum" in done.stderr, done.stderr)
        self.used(before, 38)
        need(os.stat(path).st_size == 40 << 16, "the size")

    def sizes(self):
        """Writes of the door beside stat of others: never an old size or time, without an open."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
            before = self.calls()
            for block in range(50):
                worker.do(f"os.pwrite(fd, b'x' * {BLOCK}, {block * BLOCK})")
                found = os.stat(path)
                need(found.st_size == (block + 1) * BLOCK, f"block {block}: {found.st_size}")
                need(os.lstat(path).st_blocks * 512 >= found.st_size, "blocks")
            self.used(before, 50)
            worker.do("os.close(fd)")
            need(os.stat(path).st_size == 50 * BLOCK, "after the close")

    def cached_before(self):
        """Pages that the kernel kept from before are not what somebody reads afterwards."""
        path = self.path()
        with open(path, "wb") as file:
            file.write(b"old!" * 4 * BLOCK)
        with open(path, "rb") as file:
            need(file.read() == b"old!" * 4 * BLOCK, "it is cached now")
        with Worker() as worker:
            before = self.calls()
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT)")
            worker.do(f"os.pwrite(fd, b'new!' * {BLOCK}, {BLOCK})")
            self.used(before)
            expected = b"old!" * 1024 + b"new!" * BLOCK + b"old!" * (4 * BLOCK - 1024 - BLOCK)
            with open(path, "rb") as file:
                need(file.read() == expected, "while the door has it open")
            worker.do("os.close(fd)")
            with open(path, "rb") as file:
                need(file.read() == expected, "afterwards")

    def closed_then_read(self):
        path = self.path()
        with open(path, "wb") as file:
            file.write(b"old!" * BLOCK)
        with open(path, "rb") as file:
            file.read()
        with Worker() as worker:
            before = self.calls()
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT); os.pwrite(fd, b'NEW!' * {BLOCK}, 0); os.close(fd)")
            self.used(before)
        with open(path, "rb") as file:
            need(file.read() == b"NEW!" * BLOCK, "pages of before the door")

    def opened_beside(self):
        """Somebody opens it: from then on everybody goes through the kernel, and sees everything."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
            worker.do("os.pwrite(fd, b'a' * 10000, 0)")
            with open(path, "rb", buffering=0) as file:
                need(file.read() == b"a" * 10000, "written before the open")
                calls = self.calls()
                for step in range(20):
                    worker.do(f"os.pwrite(fd, b'{step:04}' * 2500, 0)")
                    need(os.pread(file.fileno(), 10000, 0) == b"%04d" % step * 2500, f"step {step}")
                need(self.calls() - calls <= 1, "the door is closed for it")
            worker.do("os.pwrite(fd, b'z', 0); os.close(fd)")
            need(open(path, "rb").read(2) == b"z0", "after all")

    def mapped(self):
        path = self.path()
        with open(path, "w+b") as file:
            file.write(b"m" * 3 * BLOCK)
            file.flush()
            with mmap.mmap(file.fileno(), 3 * BLOCK) as mapping, Worker() as worker:
                worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT)")
                worker.do(f"os.pwrite(fd, b'w' * 100, {BLOCK})")
                need(mapping[BLOCK:BLOCK + 101] == b"w" * 100 + b"m", "a write is seen in the mapping")
                mapping[0:3] = b"MMM"
                mapping.flush()
                need(open(path, "rb").read(4) == b"MMMm", "and the other way round")

    def own_map(self):
        """A mapping of the very descriptor that was written through the door."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)")
            before = self.calls()
            worker.do("os.pwrite(fd, b'1' * 8192, 0)")
            self.used(before)
            worker.do("m = mmap.mmap(fd, 8192)")
            need(worker.bytes("m[4000:4200]") == b"1" * 200, "what the door wrote")
            worker.do("os.pwrite(fd, b'2' * 100, 4096)")
            need(worker.bytes("m[4095:4197]") == b"1" + b"2" * 100 + b"1", "what was written since")
            worker.do("m[0:2] = b'mm'; m.flush()")
            need(worker.bytes("os.pread(fd, 3, 0)") == b"mm1", "what the mapping wrote")

    def offsets(self):
        """read, write and lseek of one descriptor, its duplicate and its child's copy move one offset."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)")
            before = self.calls()
            worker.do("os.write(fd, b'one'); other = os.dup(fd); os.write(other, b'two'); os.write(fd, b'three')")
            self.used(before, 3)
            need(worker.do("os.lseek(other, 0, os.SEEK_CUR)") == 11, "the duplicate is where the first is")
            worker.do("pid = os.fork()\nif pid == 0:\n    os.write(fd, b'child'); os._exit(0)\nos.waitpid(pid, 0)")
            worker.do("os.write(fd, b'parent')")
            need(open(path, "rb").read() == b"onetwothreechildparent", "all of it, in order")
            worker.do("os.lseek(fd, 3, 0)")
            need(worker.bytes("os.read(other, 8)") == b"twothree", "reads move it too")

    def children(self):
        """A child of fork is a program of its own, and its parent's death is seen although it lives."""
        path, end = self.path(), time.monotonic() + 10
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644); os.pwrite(fd, b'parent', 0)")
            before = self.calls()
            worker.do(f"pid = os.fork()\nif pid == 0:\n    f = os.open({path + 'c'!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT)\n    [os.pwrite(f, b'child', n) for n in range(50)]\n    os._exit(0)\nos.waitpid(pid, 0)")
            before = self.used(before, 50)
            worker.do("pid = os.fork()\nif pid == 0:\n    import time; os.close(fd); time.sleep(30); os._exit(0)")
            child = worker.do("pid")
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()
        try:
            while self.door()["clients"]:
                need(time.monotonic() < end, f"{self.door()} stay")
                time.sleep(0.05)
        finally:
            os.kill(child, signal.SIGKILL)

    def spawned(self):
        """What a child of vfork closes and duplicates before its exec is nothing of its parent's."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
            worker.do("[os.pwrite(fd, b'before', n * 6) for n in range(10)]")
            before = self.calls()
            worker.do("import subprocess; out = subprocess.run(['echo', 'spawned'], stdout=subprocess.PIPE).stdout; subprocess.run(['true'], stdout=fd)")
            worker.do("[os.pwrite(fd, b'after.', n * 6) for n in range(10)]")
            self.used(before, 10)
            need(worker.do("out.decode()") == "spawned\n", "the child's output")
        with open(path, "rb") as file:
            need(file.read() == b"after." * 10, "the bytes")

    def small_files(self):
        """Files that get a write or two: the kernel does them, without a word at the door; one that gets more is the door's."""
        before, path = self.calls(), self.path()
        with Worker() as worker:
            worker.do(f"os.mkdir({path!r})")
            for number in range(50):
                worker.do(f"fd = os.open({path!r} + '/{number}', os.O_WRONLY | os.O_CREAT | os.O_EXCL); os.write(fd, b'first '); os.write(fd, b'second'); os.close(fd)")
            need(self.calls() == before, "calls at the door")
            worker.do(f"fd = os.open({path!r} + '/more', os.O_WRONLY | os.O_CREAT | os.O_EXCL)")
            worker.do("[os.write(fd, b'%03d\\n' % n) for n in range(100)]")
            self.used(before, 98)
            need(open(f"{path}/more").read() == "".join(f"{n:03}\n" for n in range(100)), "its bytes")
        need(all(open(f"{path}/{n}").read() == "first second" for n in range(50)), "the small ones")

    def large(self):
        """Calls of several pieces are whole, also when the file changes hands in the middle, or more threads call than there are slots."""
        path, size = self.path(), 8 << 20
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644); data = os.urandom({size})")
            for _ in range(20):
                worker.do(f"fd2 = os.open({path!r}, os.O_RDWR | os.O_DIRECT)")
                worker.tell("os.pwrite(fd, data, 0)")
                time.sleep(random.random() / 300)
                with open(path, "rb") as beside:
                    beside.read(10)
                    need(worker.hear() == size, "a short write")
                need(worker.do("os.pread(fd, len(data), 0) == data"), "a short or wrong read")
                worker.do(f"os.close(fd); os.close(fd2); fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT)")
            worker.do(
                "short = []\ndef many():\n    for i in range(5):\n"
                "        if os.pwrite(fd, data[:4 << 20], 0) != 4 << 20 or len(os.pread(fd, 4 << 20, 0)) != 4 << 20: short.append(i)\n"
                "threads = [threading.Thread(target=many) for n in range(24)]\n[t.start() for t in threads]; [t.join() for t in threads]"
            )
            need(worker.do("short") == [], "short calls of many threads")

    def in_the_middle(self):
        """A signal handler that writes to the descriptor that is being written: both are there. A fork beside a write: the child's own files work."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_DIRECT | os.O_CREAT, 0o644); os.write(fd, b'aa'); os.write(fd, b'aa')")
            worker.do(
                "import signal\ncount = []\ndef handler(*_):\n    count.append(os.write(fd, b'h' * 10))\n"
                "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n"
                "done = sum(os.write(fd, b'w' * 3000) for n in range(1000)); signal.setitimer(signal.ITIMER_REAL, 0)"
            )
            expected = worker.do("4 + sum(count) + done")
            need(os.stat(path).st_size == expected, f"{os.stat(path).st_size} bytes of {expected}")
            worker.do(
                f"def writer():\n    for n in range(3000): os.pwrite(fd, b'x' * 100, 0); os.lseek(fd, 0, 0); os.write(fd, b'y')\n"
                f"t = threading.Thread(target=writer); t.start(); failed = []\n"
                f"for n in range(30):\n    pid = os.fork()\n    if pid == 0:\n        os.close(fd); f = os.open({path!r} + 'f', os.O_WRONLY | os.O_CREAT)\n"
                f"        [os.write(f, b'c') for i in range(5)]; os._exit(0)\n    import time; end = time.monotonic() + 5\n"
                f"    while os.waitpid(pid, os.WNOHANG)[0] == 0:\n        if time.monotonic() > end: failed.append(pid); os.kill(pid, 9); os.waitpid(pid, 0); break\n        time.sleep(0.001)\n"
                f"t.join()"
            )
            need(worker.do("failed") == [], "children that hang")

    def many_threads(self):
        """Plain writes of many threads to one descriptor: none is lost, none is torn."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
            before = self.calls()
            worker.do(
                "def many(n):\n    for i in range(200): os.write(fd, bytes([65 + n]) * 1000)\n"
                "threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]\n"
                "[t.start() for t in threads]; [t.join() for t in threads]"
            )
            self.used(before, 800)
        data = open(path, "rb").read()
        need(len(data) == 800_000, f"{len(data)} bytes")
        records = [data[at:at + 1000] for at in range(0, len(data), 1000)]
        need(all(len(set(record)) == 1 for record in records), "a torn record")
        need(all(data.count(bytes([65 + n])) == 200_000 for n in range(4)), "a lost one")

    def raw_calls(self):
        """System calls that no hook sees, on descriptors that the door knows."""
        path, other = self.path(), self.path()
        with open(other, "wb") as file:
            file.write(b"other file")
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)")
            worker.do("os.pwrite(fd, b'through the door', 0)")
            worker.do("room = ctypes.create_string_buffer(16); raw(17, fd, room, 16, 0)")
            need(worker.bytes("room.raw") == b"through the door", "pread")
            worker.do("raw(18, fd, b'BY THE KERNEL', 13, 0)")
            need(worker.bytes("os.pread(fd, 16, 0)") == b"BY THE KERNELoor", "pwrite")
            # Closed and opened behind the library's back: the number is another file's.
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_TRUNC); os.pwrite(fd, b'x', 0)")
            need(worker.do(f"raw(3, fd); raw(2, {other.encode()!r}, os.O_RDWR, 0)") is None, "close and open")
            worker.do("os.pwrite(fd, b'OTHER', 0)")
            need(open(other, "rb").read() == b"OTHER file", "the file that is open now")
            need(open(path, "rb").read() == b"x", "and not the one before")

    def limits(self):
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_DIRECT | os.O_CREAT, 0o644); os.write(fd, b'ab'); os.write(fd, b'c'); os.write(fd, b'd')")
            with open(path, "wb", buffering=0) as plain:
                for text in ["os.pread(fd, 1, 0)", "os.pwrite(fd, b'x', -1)", "os.pwrite(fd, b'x', 2**63 - 1)", "os.pwrite(fd, b'', 5)"]:
                    try:
                        number = -eval(text, {"os": os, "fd": plain.fileno()})
                    except OSError as error:
                        number = error.errno
                    try:
                        need(worker.do(text) == -number, text)
                    except OSError as error:
                        need(error.errno == number, f"{text}: {error}, but {number} from the kernel alone")
            worker.do("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
            worker.do("resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))")
            need(worker.do("os.pwrite(fd, b'y' * 4096, 4096)") == 904, "the kernel's limit of file sizes")

    def model(self):
        """Random reads, writes and truncations of O_DIRECT descriptors, against bytes in memory, with others who look in between."""
        seed = int(os.environ.get("DAOS_TEST_SEED", random.randrange(1 << 32)))
        chance, path, data = random.Random(seed), self.path(), bytearray()
        try:
            with Worker() as worker:
                before = self.calls()
                opening = f"fd = os.open({path!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)"
                worker.do(opening)
                for _ in range(1500):
                    offset, length = chance.randrange(300_000), 1 + chance.choice([20, 5000, 100_000, 1_500_000]) * chance.randrange(1000) // 1000
                    kind = chance.randrange(20)
                    if kind < 9:
                        byte = chance.randrange(256)
                        need(worker.do(f"os.pwrite(fd, bytes([{byte}]) * {length}, {offset})") == length, "a short write")
                        data.extend(bytes(max(0, offset + length - len(data))))
                        data[offset:offset + length] = bytes([byte]) * length
                    elif kind < 17:
                        need(worker.bytes(f"os.pread(fd, {length}, {offset})") == data[offset:offset + length], "what was read")
                    elif kind == 17:
                        size = chance.randrange(400_000)
                        worker.do(f"os.ftruncate(fd, {size})")
                        data = data[:size] + bytes(max(0, size - len(data)))
                    elif kind == 18:
                        need(os.stat(path).st_size == len(data), "the size")
                    else:
                        with open(path, "rb") as file:
                            need(file.read() == data, "what another reads")
                        worker.do("os.close(fd)")
                        worker.do(opening)
                self.used(before, 100)
        except BaseException:
            print(f"replay: DAOS_TEST_SEED={seed} tests/interception/run random")
            raise

    def killed(self):
        """kill -9 of programs in the middle of calls: nothing of theirs stays with the daemon."""
        subprocess.run(["sync"])
        files = self.door()["files"]
        for _ in range(25):
            with Worker() as worker:
                path = self.path()
                worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
                worker.tell("[os.pwrite(fd, b'k' * 50000, n * 50000 % 10_000_000) for n in range(100_000)]")
                time.sleep(random.random() / 20)
                worker.process.send_signal(signal.SIGKILL)
                worker.process.wait()
        end = time.monotonic() + 10
        while (door := self.door())["clients"] or door["files"] > files:
            need(time.monotonic() < end, f"{door} stay")
            time.sleep(0.05)
        descriptors = self.store.descriptors()
        need(descriptors < 40, f"{descriptors} descriptors")

    def others(self):
        """A program comes to a file only through the kernel's open: what is denied stays denied, and a token is nobody else's."""
        path = self.path()
        with open(path, "wb") as file:
            file.write(b"secret")
        os.chmod(path, 0o600)
        with Worker() as worker:
            worker.do("os.setgid(65534); os.setuid(65534)")
            try:
                worker.do(f"os.open({path!r}, os.O_RDONLY | os.O_DIRECT)")
            except OSError as error:
                need(error.errno == errno.EACCES, f"{error}")
            else:
                raise AssertionError("it opens")

    def only_here(self):
        """A program comes to the mounts that it uses, also by a symlink, and to no other."""
        other = Store()
        try:
            clients = lambda: [store.daos("filesystem", "query")["door"]["clients"] for store in (self.store, other)]
            path, link = self.path(), os.path.join(other.base, "link")
            os.symlink(other.mnt, link)
            with Worker() as worker:
                before = clients()
                worker.do("os.close(os.open('/dev/shm/daosfs-here', os.O_WRONLY | os.O_CREAT)); os.unlink('/dev/shm/daosfs-here')")
                need(clients() == before, f"{clients()}, {before} before: it uses no mount")
                worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)")
                need(clients() == [before[0] + 1, before[1]], f"{clients()}, {before} before: it uses one")
                worker.do(f"fd = os.open({link!r} + '/file', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)")
                need(clients() == [before[0] + 1, before[1] + 1], f"{clients()}, {before} before: it uses both")
                worker.do("[os.pwrite(fd, b'here', 0) for n in range(5)]")
                need(other.daos("filesystem", "query")["door"]["calls"] > 0, "its door")
        finally:
            other.end()

    def gone(self):
        """The daemon dies: the program gets the error of a dead mount, soon, and works again when it is back."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644); os.pwrite(fd, b'before', 0)")
            d = path + ".d"
            worker.do(f"os.mkdir({d!r})\nfor n in range(6): os.mkdir({d!r} + '/x'); os.rmdir({d!r} + '/x')")
            os.kill(self.store.pid(), signal.SIGKILL)
            begin = time.monotonic()
            try:
                worker.do("os.pwrite(fd, b'after', 0)")
            except OSError as error:
                need(error.errno in (errno.ENOTCONN, errno.ECONNABORTED), f"{error}")
            else:
                raise AssertionError("a write succeeded without a daemon")
            need(time.monotonic() - begin < 5, "it hung")
            self.store.sh("kill", self.store.state)
            self.store.again()
            need(open(path, "rb").read() == b"before", "what was acknowledged")
            worker.do(f"os.mkdir({d!r} + '/y'); os.chmod({d!r} + '/y', 0o700)")
            before = self.calls()
            worker.do(f"os.stat({path!r}); fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT); os.pwrite(fd, b'behind', 0)")
            need(self.calls() == before + 1, "the same program has not found the mount that came after it")
            need(open(path, "rb").read() == b"behind", "what it wrote then")
        with Worker() as worker:
            before = self.calls()
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT); os.pwrite(fd, b'AGAIN!', 0)")
            self.used(before)

    def start(self):
        """Programs that never come near a mount."""
        def seconds(**environment):
            begin = time.monotonic()
            for _ in range(100):
                subprocess.run(["/bin/true"], env={**os.environ, **environment}, check=True)
            return (time.monotonic() - begin) / 100
        plain, under = (min(seconds(**e) for _ in range(3)) for e in ({}, {"LD_PRELOAD": LIBRARY}))
        need(under - plain < 0.002, f"{(under - plain) * 1e3:.2f} ms more")
        return f"{(under - plain) * 1e3:.2f} ms more than {plain * 1e3:.2f}"

    def idle(self):
        """A program that does nothing, and a daemon that has nothing to do, use no CPU."""
        path = self.path()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644); os.pwrite(fd, b'x', 0)")
            time.sleep(1)
            def ticks(pid):
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rsplit(") ", 1)[1].split()
                return int(fields[11]) + int(fields[12])
            pids = [self.store.pid(), worker.process.pid]
            before = [ticks(pid) for pid in pids]
            time.sleep(3)
            used = [ticks(pid) - was for pid, was in zip(pids, before)]
            need(max(used) <= 6, f"{used} hundredths of a second of 3")


def main():
    results = Results("interception", sys.argv[1:])
    if not os.path.exists(LIBRARY):
        results.run("the library", lambda: (_ for _ in ()).throw(Skipped(f"no {LIBRARY}: cargo build --release -p pil4dfs")))
        results.end()
    store = Store()
    try:
        tests = Interception(store)
        results.run_all(
            ("dd writes through the door and reports it", tests.dd),
            ("sizes beside the door are never old", tests.sizes),
            ("pages that were cached before are not read after", tests.cached_before),
            ("a file that was written and closed is read anew", tests.closed_then_read),
            ("who opens it beside sees every write", tests.opened_beside),
            ("a mapping of another process sees every write", tests.mapped),
            ("a mapping of the door's own descriptor is the file", tests.own_map),
            ("one offset for duplicates and children", tests.offsets),
            ("small files are not worth a pass", tests.small_files),
            ("children are programs of their own", tests.children),
            ("a spawned program takes nothing from its parent", tests.spawned),
            ("large calls are whole", tests.large),
            ("signals and forks in the middle of a call", tests.in_the_middle),
            ("threads lose and tear nothing", tests.many_threads),
            ("raw system calls get the right answer", tests.raw_calls),
            ("errors and limits are the kernel's", tests.limits),
            ("random operations equal a model", tests.model),
            ("programs that are killed leave nothing behind", tests.killed),
            ("permissions are the kernel's", tests.others),
            *names.claims(tests),
            *inodes.claims(tests),
            *calls.claims(tests),
            *reports.claims(tests),
            *symbols.claims(tests),
            *hostile.claims(tests),
            ("start-up is not felt", tests.start),
            ("idle is idle", tests.idle),
            ("a program comes to the mounts that it uses", tests.only_here),
            ("a daemon that dies is an error and comes back", tests.gone),
        )
        results.run("the store is sound afterwards", lambda: store.check() and None)
    finally:
        store.end()
    results.end()


if __name__ == "__main__":
    main()
