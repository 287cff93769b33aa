"""Clients of the door that mean harm, and clients that die: what they leave behind in the daemon, and what honest programs beside them notice.

usage: DAOS_TEST_SEED=N DAOS_TEST_SECONDS=N tests/interception/run garbage     replays one, for longer than the three seconds of every day
"""

import array
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from program import HERE, LIBRARY, Worker
from store import need

# dfuse/FORMAT.md and engine/fabric/FORMAT.md
IOCTL_PASS, PASS_BYTES = 0x806044D0, 96
READY_AT, SERVER_AT, WORDS_AT, PAGE = 64, 128, 256, 4096
SLOT_BYTES, BODY_LEN_AT, BODY_AT = 1024, 4, 64
REQUESTED, WAITING = 2, 256
ASK_BYTES = 32
DATA_BYTES = 1 << 20


class Attacker:
    """One connection to the door after the other; nothing that it says is right, or all but a little."""

    def __init__(self, mountpoint, seed):
        self.chance = random.Random(seed)
        self.path, self.file, self.token = f"{mountpoint}/hostile{seed}", None, (0, 0)
        root = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        passed = bytearray(PASS_BYTES)
        fcntl.ioctl(root, IOCTL_PASS, passed)
        os.close(root)
        length = struct.unpack_from("<I", passed, 12)[0]
        self.name = b"\0" + bytes(passed[32:32 + length])
        self.socket = self.memory = None
        self.tokens = 0
        os.makedirs(self.path + ".d", exist_ok=True)

    def come(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(2)
        self.socket.connect(self.name)
        fds = array.array("i")
        _, ancillary, _, _ = self.socket.recvmsg(16, socket.CMSG_SPACE(4))
        for _, _, data in ancillary:
            fds.frombytes(data[:4])
        if not fds:
            raise OSError("it is not let in")
        self.memory = mmap.mmap(fds[0], os.fstat(fds[0]).st_size)
        os.close(fds[0])
        self.slots = struct.unpack_from("<I", self.memory, 8)[0]
        self.socket.setblocking(False)
        # The wild are soon shown out; what the others ask can be understood, and is wrong.
        self.is_wild = self.chance.random() < 0.5
        self.open()

    def open(self):
        """A file of its own, as the library does it."""
        self.put(WORDS_AT, struct.pack("<II", 1, threading.get_native_id()))
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        passed = bytearray(PASS_BYTES)
        fcntl.ioctl(self.file, IOCTL_PASS, passed)
        self.token = struct.unpack_from("<QQ", passed, 16)
        self.tokens += self.token != (0, 0)

    def go(self):
        if self.file is not None:
            os.close(self.file)
            self.file = None
        if self.socket:
            self.socket.close()
        if self.memory:
            self.memory.close()
        self.socket = self.memory = None

    def word(self):
        chance = self.chance
        return chance.choice([0, 1, 2, 3, 4, 255, 256, 258, 259, 260, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 32) - 1, chance.getrandbits(32)])

    def put(self, at, data):
        self.memory[at:at + len(data)] = data

    def data_at(self, slot):
        return PAGE + -(-self.slots * SLOT_BYTES // PAGE) * PAGE + slot * DATA_BYTES

    def ask(self):
        """A request, mostly of a kind that there is, of which any part may be wrong."""
        chance, slot = self.chance, self.chance.randrange(self.slots)
        at = PAGE + slot * SLOT_BYTES
        token = self.token if chance.random() < 0.9 else (chance.getrandbits(64), chance.getrandbits(64))
        is_odd = self.is_wild and chance.random() < 0.02
        if chance.random() < 0.4:
            body = self.change(slot)
        else:
            kind = self.word() if is_odd else chance.choice([1, 2, 3])
            body = struct.pack("<IIQQQ", kind, self.word(), chance.getrandbits(chance.choice([12, 30, 64])), *token)
        if is_odd:
            body += chance.randbytes(chance.randrange(900))
        self.put(at + BODY_AT, body)
        self.put(at + BODY_LEN_AT, struct.pack("<I", self.word() if is_odd else len(body)))
        self.put(at, struct.pack("<I", chance.choice([REQUESTED, REQUESTED | WAITING, REQUESTED, self.word()])))
        bits = 1 << slot if chance.random() < 0.8 else chance.getrandbits(64)
        self.put(READY_AT, struct.pack("<Q", bits))

    def change(self, slot):
        """A change of names: in its own directory, which it has entered, or in others', with names that may be none."""
        chance = self.chance
        directories = [os.stat(path).st_ino for path in (self.path + ".d", os.path.dirname(self.path), os.path.join(os.path.dirname(self.path), "victim"))]
        if chance.random() < 0.2:  # An xattr, of which any part may be wrong.
            name, xattr = chance.choice([b"a", b"kept", b"..", b"."]), chance.choice([b"user.a", b"user.a\0\0b", b"user.", b"trusted.x", b"user.daos", b"user." + b"x" * 300])
            self.put(self.data_at(slot), name + xattr + b"value")
            return struct.pack("<IIIIHHIQQ", 27, 0, 5, 0, len(name), len(xattr), 0, os.stat(self.path + ".d").st_ino, 0)
        names = [chance.choice([b"a", b"b", b"kept", b"..", b".", b"a/b", b"a\0b", b"x" * 255, b"x" * 300, b"../victim/kept", b""]) for _ in range(2)]
        self.put(self.data_at(slot), b"".join(names))
        lengths = [len(name) if chance.random() < 0.95 else chance.getrandbits(16) for name in names]
        if chance.random() < 0.1:
            token = chance.randbytes(16)
            try:
                os.setxattr(self.path + ".d", "user.daosfs.door", token)
            except OSError:
                pass
            return struct.pack("<IIIIHHI", 16, 0, 0, 0, 0, 0, 0) + token
        where = [chance.choice(directories + [chance.getrandbits(64)] if chance.random() < 0.3 else directories[:1]) for _ in names]
        return struct.pack("<IIIIHHIQQ", chance.randrange(17, 29), self.word(), self.word(), self.word(), *lengths, 0, *where)

    def garbage(self):
        """Bytes anywhere: heads of slots, words, the header, data."""
        chance = self.chance
        if not self.is_wild:
            self.put(PAGE + chance.randrange(self.slots) * SLOT_BYTES, struct.pack("<I", self.word()))
            self.put(chance.choice([READY_AT, SERVER_AT]), chance.randbytes(4))
            return
        where = chance.choice([(0, PAGE), (PAGE, self.slots * SLOT_BYTES), (READY_AT, 8), (SERVER_AT, 4), (WORDS_AT, 256), (0, len(self.memory))])
        at = where[0] + chance.randrange(where[1])
        self.put(at, chance.randbytes(min(chance.choice([1, 4, 8, 64, 5000]), len(self.memory) - at)))

    def say(self):
        """Rings, messages of any size, and descriptors that nobody asked for."""
        chance = self.chance
        message = chance.choice([b"!", b"!", chance.randbytes(chance.randrange(2000))])
        fds = array.array("i", [self.file] * chance.choice([0, 0, 1, 3, 20]))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        for _ in range(chance.choice([1, 1, 5, 100])):
            self.socket.sendmsg([message], ancillary)

    def step(self):
        if self.socket is None:
            self.come()
        chance = self.chance.random()
        try:
            if chance < 0.01:
                self.socket.send(b"")
                self.go()
            elif chance < 0.6:
                self.ask()
                self.socket.send(b"!")
                if chance < 0.2:
                    time.sleep(0.0003)  # So that it is taken before the next.
            elif chance < 0.85:
                self.garbage()
            else:
                self.say()
        except BlockingIOError:
            pass
        except OSError:
            self.go()  # It was shown out.


def attack(mountpoint, seed, seconds):
    attacker, end, steps, shown_out = Attacker(mountpoint, seed), time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        try:
            attacker.step()
            steps += 1
        except OSError:
            shown_out += 1
            attacker.go()
            time.sleep(0.01)
    attacker.go()
    print(json.dumps({"steps": steps, "refused": shown_out, "tokens": attacker.tokens}))


def text(path):
    with open(path) as file:
        return file.read()


class Hostile:
    def __init__(self, tests):
        self.tests, self.store = tests, tests.store

    def state(self):
        """What the daemon holds: descriptors, maps of clients' memory, clients and files at the door, open handles."""
        pid = self.store.pid()
        with open(f"/proc/{pid}/maps") as maps:
            regions = sum("daosfs-door" in line for line in maps)
        query = self.store.daos("filesystem", "query")
        return {"descriptors": self.store.descriptors(), "regions": regions, "clients": query["door"]["clients"], "files": query["door"]["files"], "in flight": query["requests_in_flight"]}

    def settled(self, before):
        """The daemon holds no more than before, soon."""
        end = time.monotonic() + 20
        while (after := self.state()) and any(after[what] > before[what] for what in before):
            need(time.monotonic() < end, f"{after} after it, {before} before")
            time.sleep(0.1)

    def garbage(self):
        """Clients that write anything anywhere, beside one that works: the daemon lives, holds nothing of theirs afterwards, and the honest one is right."""
        seed = int(os.environ.get("DAOS_TEST_SEED", random.randrange(1 << 32)))
        seconds = float(os.environ.get("DAOS_TEST_SECONDS", 3))
        pid, before, path = self.store.pid(), self.state(), self.tests.path()
        victim = f"{self.store.mnt}/victim"
        os.makedirs(victim, exist_ok=True)
        with open(f"{victim}/kept", "w") as kept:
            kept.write("kept")
        kept_at, root_at = os.stat(f"{victim}/kept"), os.stat(self.store.mnt)
        attackers = [[sys.executable, os.path.join(HERE, "hostile.py"), self.store.mnt, str(seed + number), str(seconds)] for number in range(4)]
        try:
            with Worker() as honest:
                honest.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644); log = os.open({path!r} + 'log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)")
                calls = self.tests.calls()
                honest.do(
                    "import time, random\nwrong, rounds = [], 0\ndef work(seconds):\n    global rounds\n    end, data = time.monotonic() + seconds, bytearray(400_000)\n"
                    "    while time.monotonic() < end and not wrong:\n        at, size, byte = random.randrange(200_000), 1 + random.randrange(150_000), random.randrange(256)\n"
                    "        data[at:at + size] = bytes([byte]) * size\n        if os.pwrite(fd, bytes([byte]) * size, at) != size: wrong.append('short')\n"
                    "        at, size = random.randrange(200_000), 1 + random.randrange(150_000)\n        have = os.pread(fd, size, at)\n"
                    "        if have != bytes(data[at:at + size])[:len(have)]: wrong.append('bytes')\n        os.write(log, b'%09d\\n' % rounds); rounds += 1"
                )
                running = [subprocess.Popen(attacker, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for attacker in attackers]
                honest.do(f"work({seconds + 1})")
                told = []
                for process in running:
                    out, err = process.communicate(timeout=seconds + 60)
                    need(process.returncode == 0, err)
                    told.append(json.loads(out))
                need(honest.do("wrong") == [], f"the honest program read {honest.do('wrong')}")
                rounds = honest.do("rounds")
                need(rounds >= 20, f"it came only {rounds} times to something")
                self.tests.used(calls, 2 * rounds)
                need(text(path + "log") == "".join(f"{n:09}\n" for n in range(rounds)), "its log")
            now = os.stat(f"{victim}/kept")
            need((now.st_mode, now.st_uid, now.st_ctime_ns) == (kept_at.st_mode, kept_at.st_uid, kept_at.st_ctime_ns) and not os.listxattr(f"{victim}/kept"), "attributes in a directory that nobody has entered were changed")
            need(os.listdir(victim) == ["kept"] and text(f"{victim}/kept") == "kept", "a directory that nobody has entered was changed")
            now = os.stat(self.store.mnt)
            need((now.st_mode, now.st_uid) == (root_at.st_mode, root_at.st_uid) and not os.listxattr(self.store.mnt), "the root was changed")
            for base, directories, files in os.walk(self.store.mnt):
                for name in directories + files:
                    os.listxattr(f"{base}/{name}", follow_symlinks=False)  # They can be listed.
            root = os.listdir(self.store.mnt)
            need(not {"a", "b", "kept", "x" * 255} & set(root), f"the root was changed: {root}")
            inside = {name for entry in root if entry.endswith(".d") and entry.startswith("hostile") for name in os.listdir(f"{self.store.mnt}/{entry}")}
            # A wrong length makes other names of what was said, which are names as well.
            need(all(0 < len(name) <= 255 and not set(name) & {"/", "\0"} and name not in {".", ".."} for name in inside), f"names that are none: {inside}")
            need(os.path.exists(f"/proc/{pid}") and self.store.pid() == pid, "the daemon has died")
            need(all(attacker["steps"] > 50 and attacker["tokens"] for attacker in told), f"{told}")
            log = self.store.log()
            need("nonsense at the door" in log, "nobody was shown out")
            asked = self.tests.calls() - calls - 3 * rounds
            need(asked > 20, f"the attackers asked for {asked} things: {told}")
            need("panicked" not in log, log[log.find("panicked") - 500:][:1500])
            self.settled(before)
            return f"{sum(attacker['steps'] for attacker in told)} steps of {len(told)} attackers, {asked} calls, {rounds} rounds beside them"
        except BaseException:
            print(f"replay: DAOS_TEST_SEED={seed} DAOS_TEST_SECONDS={seconds:g} tests/interception/run garbage")
            raise

    def deaths(self):
        """200 programs that are killed at a random moment under load, some with children: the daemon holds nothing of them afterwards."""
        seed = int(os.environ.get("DAOS_TEST_SEED", random.randrange(1 << 32)))
        chance, before, begun, running, started = random.Random(seed), self.state(), self.tests.calls(), [], 0
        inodes = self.store.daos("filesystem", "query")["space"]["inodes"]
        directory = self.tests.path()
        os.mkdir(directory)
        try:
            with Worker() as honest:
                honest.do(f"fd = os.open({directory!r} + '/honest', os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
                while started < 200 or running:
                    while started < 200 and len(running) < 12:
                        path = f"{directory}/{started % 20}"
                        script = os.path.join(HERE, "mortal.py")
                        env = {**os.environ, "LD_PRELOAD": LIBRARY}
                        process = subprocess.Popen([sys.executable, script, path, str(chance.getrandbits(32))], env=env, start_new_session=True, stderr=subprocess.DEVNULL)
                        running.append((time.monotonic() + chance.choice([0.03, 0.3, 1]) * chance.random(), process))
                        started += 1
                    now = time.monotonic()
                    for when, process in [one for one in running if one[0] <= now]:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
                        running.remove((when, process))
                    block = bytes([started % 256]) * 5000
                    need(honest.do(f"os.pwrite(fd, bytes([{started % 256}]) * 5000, 0)") == 5000, "a short write")
                    need(honest.bytes("os.pread(fd, 5000, 0)") == block, "the honest program's bytes")
            calls = self.tests.used(begun, 2000) - begun
            self.settled(before)
            for name in os.listdir(directory):
                os.remove(f"{directory}/{name}")
            os.rmdir(directory)
            end = time.monotonic() + 10
            while (now := self.store.daos("filesystem", "query")["space"]["inodes"]) > inodes:
                need(time.monotonic() < end, f"{now} inodes, {inodes} before")
                time.sleep(0.1)
            return f"{calls} calls"
        except BaseException:
            print(f"replay: DAOS_TEST_SEED={seed} tests/interception/run die")
            raise
        finally:
            for _, process in running:
                process.kill()
                process.wait()


def claims(tests):
    hostile = Hostile(tests)
    yield "garbage at the door harms nobody", hostile.garbage
    yield "200 programs that die leave nothing behind", hostile.deaths


if __name__ == "__main__":
    attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
