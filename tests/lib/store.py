"""A mounted store for the tests that are written in Python: up, down, kill, its daemon's numbers; and how results are told.

Everything goes through scripts/mount.sh, so that a daemon is only ever ended by the pid that it was started with.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
MOUNT_SH = os.path.join(ROOT, "scripts/mount.sh")
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
DAOS = os.path.join(RELEASE, "daos")
BLOCK = 4096


class Store:
    """One store in a directory of its own (or in the one that is given), mounted at `mnt`."""

    def __init__(self, *options, kept_in=None):
        parent = os.environ.get("DAOSFS_TEST_DIR", "/var/tmp")
        self.base = tempfile.mkdtemp(prefix="daosfs-", dir=parent)
        self.state = os.path.join(self.base, "s")
        self.mnt = os.path.join(self.state, "mnt")
        self.path = os.path.join(self.state, "store")
        if kept_in:
            os.makedirs(self.state)
            os.symlink(kept_in, self.path)
        self.sh("up", self.state, "dfuse", *options)

    def sh(self, verb, state, *more):
        done = subprocess.run([MOUNT_SH, verb, state, *more], capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"mount.sh {verb}: {done.stdout}{done.stderr}")
        return done.stdout

    def again(self):
        self.sh("again", self.state)

    def kill(self):
        """kill -9 of the daemon, and a new one."""
        self.sh("kill", self.state)
        self.sh("again", self.state)

    def check(self):
        """Unmounts and verifies the store; what the checker says."""
        return self.sh("check", self.state)

    def end(self):
        """Whatever state it is in."""
        for verb in ("down", "kill"):
            try:
                self.sh(verb, self.state)
                break
            except (RuntimeError, subprocess.TimeoutExpired):
                continue
        subprocess.run(["umount", "-l", self.mnt], capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)

    def daos(self, *arguments):
        """The reply of a `daos` command; RuntimeError with its message and status when it failed."""
        done = subprocess.run([DAOS, *arguments, "--embedded", self.path, "--json"], capture_output=True, text=True, timeout=120)
        try:
            reply = json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"daos {' '.join(arguments)}: {done.stdout}{done.stderr}") from None
        if reply["status"] != 0:
            raise RuntimeError(f"daos {' '.join(arguments)}: {reply['error']}")
        return reply["response"]

    def has_command(self, *arguments):
        return subprocess.run([DAOS, *arguments, "--help"], capture_output=True).returncode == 0

    def log(self):
        with open(os.path.join(self.state, "log"), errors="replace") as log:
            return log.read()

    # The daemon's numbers

    def pid(self):
        with open(os.path.join(self.state, "pid")) as pid:
            return int(pid.read())

    def resident_bytes(self):
        with open(f"/proc/{self.pid()}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid()}/fd"))

    # Space

    def space(self):
        """Bytes of the filesystem: all, free, and free to users."""
        found = os.statvfs(self.mnt)
        return tuple(blocks * found.f_frsize for blocks in (found.f_blocks, found.f_bfree, found.f_bavail))

    def available(self):
        return self.space()[2]

    def wait_available(self, bytes_, seconds=10):
        """Waits until so much is available; what is."""
        end = time.monotonic() + seconds
        while True:
            found = self.available()
            if found >= bytes_ or time.monotonic() > end:
                return found
            time.sleep(0.05)


class Skipped(Exception):
    """A test that cannot run here, with its reason."""


class Results:
    """Runs claims, prints a line for each, and counts them for scripts/test.sh."""

    def __init__(self, suite, only):
        self.suite, self.only = suite, only
        self.passed = self.failed = self.skipped = 0

    def run(self, claim, test, *arguments):
        if self.only and not any(word in claim for word in self.only):
            return
        start = time.monotonic()
        try:
            said = test(*arguments)
        except Skipped as reason:
            self.skipped += 1
            print(f"skipped {claim}: {reason}", flush=True)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the claim does not hold
            self.failed += 1
            trace = "".join(traceback.format_exc(limit=-3))
            close_files_of(error)
            print(f"FAILED  {claim}: {error!r}\n{trace}", flush=True)
            if "FAILURES" in os.environ:
                with open(os.environ["FAILURES"], "a") as failures:
                    failures.write(f"{self.suite}: {claim}: {error!r:.2000}\n")
            return
        self.passed += 1
        print(f"ok      {claim} ({time.monotonic() - start:.1f} s){': ' + said if said else ''}", flush=True)

    def run_all(self, *claims):
        """Each is a claim and its test."""
        for claim, test in claims:
            self.run(claim, test)

    def end(self):
        print(f"{self.suite}: {self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        if "COUNTS" in os.environ:
            with open(os.environ["COUNTS"], "a") as counts:
                counts.write(f"{self.passed} {self.failed} {self.skipped}\n")
        sys.exit(1 if self.failed or not self.passed + self.skipped else 0)


def close_files_of(error):
    """What a claim that failed has left open: it would keep the store from being unmounted."""
    error.__traceback__ = error.__context__ = None
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd > 2 and os.path.isfile(f"/proc/self/fd/{fd}") and "/mnt/" in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass


def at_once(count, work, seconds=120):
    """Runs work(0) to work(count - 1), each in a thread, until all have ended. What the first one raised that failed is raised here."""
    failures = []

    def run(number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        need(not thread.is_alive(), "somebody hangs")
    if failures:
        raise failures[0]


def need(holds, what):
    """An assertion that no option of the interpreter takes away."""
    if not holds:
        raise AssertionError(what)


def refused(number, call, *arguments, **keywords):
    """The call must fail with this errno."""
    try:
        call(*arguments, **keywords)
    except OSError as error:
        need(error.errno == number, f"{call.__name__}: {errno.errorcode[error.errno]} instead of {errno.errorcode[number]}")
        return
    raise AssertionError(f"{call.__name__} succeeded instead of {errno.errorcode[number]}")
