"""Everything at once for a long time: the daemon's memory and descriptors must come to rest, and nothing may be lost.

The work is steady: each worker keeps about as many files as it deletes. After the first third, in which caches fill,
the daemon's resident memory may grow by 10 % or 24 MiB, whichever is more, and its descriptors not at all.

usage: soak.py [--minutes N]     30 when nothing is said
"""

import argparse
import errno
import mmap
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import Results, Store, need  # noqa: E402

MIB = 1 << 20


class Soak:
    def __init__(self, store, seconds, seed):
        self.store, self.mnt, self.seed = store, store.mnt, seed
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.failures, self.counts = [], {}

    def worker(self, name, step, number):
        rng, base = random.Random(f"{self.seed}/{name}/{number}"), f"{self.mnt}/{name}{number}"
        os.mkdir(base)
        state = {}
        try:
            while time.monotonic() < self.end and not self.failures:
                step(base, rng, state)
                self.counts[name] = self.counts.get(name, 0) + 1
        except Exception as error:  # noqa: BLE001
            self.failures.append((name, repr(error)))
        finally:
            for fd in state.get("open", []):
                os.close(fd)

    # The kinds of work. `state`: what must be there.

    def small(self, base, rng, state):
        index = rng.randrange(2000)
        path = f"{base}/{index % 20}/{index}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if index in state and rng.random() < 0.5:
            need(open(path, "rb").read() == state[index], path)
            if rng.random() < 0.5:
                os.unlink(path)
                del state[index]
        else:
            state[index] = rng.randbytes(rng.choice((10, 500, 4096, 9000)))
            with open(path, "wb") as file:
                file.write(state[index])
            if rng.random() < 0.05:
                os.setxattr(path, "user.soak", state[index][:100])

    def large(self, base, rng, state):
        index = rng.randrange(8)
        path = f"{base}/{index}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        at = rng.randrange(24) * MIB
        if rng.random() < 0.3 and (index, at) in state:
            need(os.pread(fd, MIB, at) == bytes([state[index, at]]) * MIB, f"{path} at {at}")
        elif rng.random() < 0.05:
            os.ftruncate(fd, at)
            for key in [key for key in state if key[0] == index and key[1] >= at]:
                del state[key]
        else:
            state[index, at] = rng.randrange(256)
            os.pwrite(fd, bytes([state[index, at]]) * MIB, at)
            if rng.random() < 0.1:
                os.fsync(fd)
        os.close(fd)

    def random_blocks(self, base, rng, state):
        path = f"{base}/database"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        for _ in range(20):
            block = rng.randrange(4096)
            if block in state and rng.random() < 0.5:
                need(os.pread(fd, 8, block * 4096) == state[block], f"{path} block {block}")
            else:
                state[block] = rng.randbytes(8)
                os.pwrite(fd, state[block] * 512, block * 4096)
        os.fsync(fd)
        os.close(fd)

    def mapped(self, base, rng, state):
        path = f"{base}/mapped"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 4 * MIB)
        with mmap.mmap(fd, 4 * MIB) as pages:
            for _ in range(20):
                at = rng.randrange(4 * MIB // 64) * 64
                if at in state:
                    need(pages[at : at + 8] == state[at], f"{path} at {at}")
                state[at] = rng.randbytes(8)
                pages[at : at + 8] = state[at]
            pages.flush()
        os.close(fd)

    def tree(self, base, rng, state):
        """Directories come, move and go."""
        name = f"{base}/t{rng.randrange(30)}"
        try:
            match rng.randrange(5):
                case 0:
                    os.makedirs(f"{name}/a/b")
                case 1:
                    os.rename(name, f"{base}/t{rng.randrange(30)}")
                case 2:
                    os.symlink("to" * 20, f"{name}/a/b/link{rng.randrange(9)}")
                case 3:
                    for directory, _, files in os.walk(name, topdown=False):
                        for file in files:
                            os.unlink(f"{directory}/{file}")
                        os.rmdir(directory)
                case 4:
                    sum(1 for _ in os.walk(base))
        except OSError as error:
            need(error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL), f"{error}")

    def log_file(self, base, rng, state):
        path = f"{base}/log"
        with open(path, "ab") as file:
            for _ in range(50):
                file.write(b"a line of a log that only grows until it is rotated\n")
        if os.stat(path).st_size > 8 * MIB:
            os.rename(path, path + ".1")

    def held(self, base, rng, state):
        """Open, unlinked, read, forgotten."""
        fd = os.open(f"{base}/{rng.randrange(1000)}", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"held", 0)
        try:
            os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
        state.setdefault("open", []).append(fd)
        if len(state["open"]) > 50:
            old = state["open"].pop(rng.randrange(50))
            need(os.pread(old, 4, 0) == b"held", "what was unlinked")
            os.close(old)

    def run(self):
        kinds = [
            (self.small, 2), (self.large, 1), (self.random_blocks, 1), (self.mapped, 1),
            (self.tree, 1), (self.log_file, 1), (self.held, 1),
        ]
        threads = [
            threading.Thread(target=self.worker, args=(step.__name__, step, number))
            for step, count in kinds
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        start = time.monotonic()
        samples = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(5, self.seconds / 20))
            sample = (time.monotonic() - start, self.store.resident_bytes(), self.store.descriptors(), self.store.available())
            samples.append(sample)
            print("  %4.0f s: %4d MiB resident, %d descriptors, %6d MiB available" % (
                sample[0], sample[1] >> 20, sample[2], sample[3] >> 20), flush=True)
            need(sample[0] < self.seconds + 120, "somebody hangs")
        need(not self.failures, f"{self.failures[:2]}")
        self.judge(samples)
        return f"{self.counts}"

    def judge(self, samples):
        third = len(samples) // 3
        early, late = samples[third : 2 * third], samples[2 * third :]
        before, after = max(sample[1] for sample in early), max(sample[1] for sample in late)
        need(after <= before + max(before // 10, 24 * MIB), f"resident: {before >> 20}, later {after >> 20} MiB")
        before, after = max(sample[2] for sample in early), max(sample[2] for sample in late)
        need(after <= before, f"descriptors: {before}, later {after}")

    def sound(self):
        need("panicked" not in self.store.log() and "latched" not in self.store.log(), self.store.log()[-500:])
        self.store.check()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    results = Results("soak", [])
    store = Store("--size=4G", "--memory=64M", "--cache=64M")
    try:
        soak = Soak(store, options.minutes * 60, options.seed)
        results.run("memory_and_descriptors_come_to_rest_and_nothing_is_lost", soak.run)
        results.run("the_store_is_sound_afterwards", soak.sound)
    finally:
        store.end()
    results.end()


main()
