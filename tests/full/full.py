"""A store that is filled to its last block in every way that there is.

Whatever fills it: only ENOSPC is answered (no EIO, nothing hangs), what was acknowledged can be read, also after kill -9
and a remount; deleting, truncating and reading work; the space comes back within seconds, as often as one likes; and what
`df` says is free can be written, to 1 %.

usage: full.py [--long] [WORD...]     WORD: run only the claims with one of these words in their names
"""

import ctypes
import errno
import mmap
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import BLOCK, Results, Skipped, Store, at_once, need  # noqa: E402

SIZE = 160 << 20
ROUNDS = 10
MIB = 1 << 20
RECLAIM_SECONDS = 10
PUNCH = 3


def content(name, index, length=BLOCK):
    """Bytes that name their place."""
    return (f"{name}/{index}:".encode() * (length // 4 + 1))[:length]


def only_no_space(error):
    need(error.errno == errno.ENOSPC, f"{errno.errorcode.get(error.errno)} instead of ENOSPC: {error}")


def fill_file(path, step=MIB, flags=0, limit=None):
    """Writes until ENOSPC; the bytes that were acknowledged."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    done = 0
    try:
        while limit is None or done < limit:
            data = content(path, done // step, step)
            done += os.write(fd, data)
    except OSError as error:
        only_no_space(error)
    finally:
        os.fsync(fd)
        os.close(fd)
    need(os.stat(path).st_size == done, f"{path}: {os.stat(path).st_size} bytes, {done} were acknowledged")
    return done


def verify_file(path, length, step=MIB):
    with open(path, "rb", buffering=0) as file:
        for at in range(0, length, step):
            want = min(step, length - at)
            need(file.read(want) == content(path, at // step, step)[:want], f"{path} at {at}")


def fill_small(directory, bytes_=BLOCK):
    """Small files until ENOSPC; how many are whole."""
    os.makedirs(directory)
    count = 0
    while True:
        path = f"{directory}/{count // 500}/{count}"
        try:
            if count % 500 == 0:
                os.mkdir(os.path.dirname(path))
            with open(path, "wb", buffering=0) as file:
                need(file.write(content(directory, count, bytes_)) == bytes_, "a short write of a small file")
        except OSError as error:
            only_no_space(error)
            return count
        count += 1


def verify_small(directory, count, bytes_=BLOCK, every=1):
    for index in range(0, count, every):
        with open(f"{directory}/{index // 500}/{index}", "rb") as file:
            need(file.read() == content(directory, index, bytes_), f"small file {index}")


def remove(path):
    """rm -rf without a process, so that each errno is seen."""
    if os.path.isdir(path) and not os.path.islink(path):
        for entry in os.scandir(path):
            remove(entry.path)
        os.rmdir(path)
    else:
        os.unlink(path)


class Full:
    def __init__(self, store):
        self.store = store
        self.mnt = store.mnt
        self.capacity, _, self.empty = store.space()

    def comes_back(self):
        found = self.store.wait_available(self.empty - self.capacity // 100, RECLAIM_SECONDS)
        need(found >= self.empty - self.capacity // 100, f"{found} bytes available, {self.empty} before")

    def is_full(self):
        found = self.store.available()
        need(found <= self.capacity // 100, f"df says {found} bytes, nothing can be written")

    # What it is filled by

    def large_files(self):
        written = fill_file(f"{self.mnt}/large")
        need(abs(written - self.empty) <= self.capacity // 100, f"df said {self.empty}, {written} bytes could be written")
        self.is_full()
        verify_file(f"{self.mnt}/large", written)
        self.store.kill()
        verify_file(f"{self.mnt}/large", written)
        os.truncate(f"{self.mnt}/large", written // 2)
        found = self.store.wait_available(self.empty // 2 - self.capacity // 50, RECLAIM_SECONDS)
        need(found >= self.empty // 2 - self.capacity // 50, f"{found} bytes after a truncate to half")
        verify_file(f"{self.mnt}/large", written // 2)
        remove(f"{self.mnt}/large")
        self.comes_back()
        return f"df said {self.empty >> 10} KiB, {written >> 10} KiB were written"

    def small_files(self):
        count = fill_small(f"{self.mnt}/small")
        self.is_full()
        self.store.kill()
        verify_small(f"{self.mnt}/small", count)
        # Every second file goes, and as much fits again.
        for index in range(0, count, 2):
            os.unlink(f"{self.mnt}/small/{index // 500}/{index}")
        half = count // 2 * BLOCK
        need(self.store.wait_available(half - self.capacity // 100, RECLAIM_SECONDS) >= half - self.capacity // 100, "half was deleted")
        more = fill_file(f"{self.mnt}/more")
        need(more >= half - self.capacity // 50, f"{more} of {half} freed bytes could be written")
        self.is_full()
        remove(f"{self.mnt}/small")
        remove(f"{self.mnt}/more")
        self.comes_back()
        used = self.empty / count
        return f"{count} files of 4 KiB, {used:.0f} bytes each"

    def tiny_files(self):
        count = fill_small(f"{self.mnt}/tiny", 100)
        self.is_full()
        verify_small(f"{self.mnt}/tiny", count, 100, 7)
        remove(f"{self.mnt}/tiny")
        self.comes_back()
        return f"{count} files of 100 bytes, {self.empty / count:.0f} bytes each"

    def names_and_attributes(self):
        """Directories, links, symlinks, xattrs: nothing that has data blocks of its own."""
        base = f"{self.mnt}/names"
        os.mkdir(base)
        made, kinds = [], 0
        try:
            for index in range(10**7):
                name = f"{base}/" + f"{index}-".ljust(250, "x")
                kinds = index % 4
                if kinds == 0:
                    os.mkdir(name)
                elif kinds == 1:
                    os.symlink("y" * 4000, name)
                elif kinds == 2:
                    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
                    os.setxattr(name, "user.large", b"z" * 60_000)
                else:
                    os.link(made[-1], name)
                made.append(name)
        except OSError as error:
            only_no_space(error)
        for name in made:
            os.lstat(name)
        need(sorted(os.listdir(base))[: len(made)] is not None, "it can be listed")
        need(os.getxattr(made[2], "user.large") == b"z" * 60_000, "the xattrs are there")
        self.store.kill()
        need(len(os.listdir(base)) >= len(made), "names are missing after the kill")
        remove(base)
        self.comes_back()
        return f"{len(made)} names"

    def holes(self):
        """A file of which every second block was punched out; what comes next lives in the holes."""
        path = f"{self.mnt}/punched"
        written = fill_file(path)
        fd = os.open(path, os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        punch = lambda at, length: libc.fallocate(fd, PUNCH, ctypes.c_long(at), ctypes.c_long(length))
        end = written // BLOCK * BLOCK
        for at in range(0, end, 2 * BLOCK):
            need(punch(at, BLOCK) == 0, f"punch at {at}: {os.strerror(ctypes.get_errno())}")
        freed = end // 2
        found = self.store.wait_available(freed - self.capacity // 50, RECLAIM_SECONDS)
        need(found >= freed - self.capacity // 50, f"{found} of {freed} punched bytes are available")
        more = fill_file(f"{self.mnt}/in-the-holes", 64 << 10)
        need(more >= found - self.capacity // 50, f"{more} of {found} bytes could be written into the holes")
        self.is_full()
        for at in range(0, end, 50 * BLOCK):
            need(os.pread(fd, BLOCK, at) == bytes(BLOCK), f"the hole at {at}")
            whole = content(path, (at + BLOCK) // MIB, MIB)
            inside = (at + BLOCK) % MIB
            need(os.pread(fd, BLOCK, at + BLOCK) == whole[inside : inside + BLOCK], f"beside the hole at {at}")
        verify_file(f"{self.mnt}/in-the-holes", more, 64 << 10)
        os.close(fd)
        remove(path)
        remove(f"{self.mnt}/in-the-holes")
        self.comes_back()

    def snapshots(self):
        """What overwrites leave to snapshots fills the store; without the snapshots it is free again."""
        if not self.store.has_command("container", "create-snap"):
            raise Skipped("this daos has no create-snap")
        path = f"{self.mnt}/kept"
        length = self.empty // 8 // MIB * MIB
        fill_file(path, limit=length)
        kept = [[name, None] for name in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")]
        made = 0
        fd = os.open(path, os.O_WRONLY)
        try:
            for name, _ in kept:
                self.store.daos("container", "create-snap", "home", "--snap", name)
                made += 1
                for at in range(0, length, MIB):
                    os.pwrite(fd, content(name, at // MIB, MIB), at)
            raise AssertionError("the store was never full")
        except OSError as error:
            only_no_space(error)
        except RuntimeError as error:
            need("no space" in str(error), str(error))
        finally:
            os.close(fd)
        need(made > 3, f"{made} snapshots filled it")
        os.unlink(path)  # the past may keep it, deleting still works
        for name, _ in kept[:made]:
            self.store.daos("container", "destroy-snap", "home", "--snap", name)
        self.comes_back()
        return f"{made} snapshots"

    def beside_snapshots(self):
        """What is younger than every snapshot gives its space back when it is deleted, however large it is."""
        if not self.store.has_command("container", "create-snap"):
            raise Skipped("this daos has no create-snap")
        old, length = f"{self.mnt}/old", self.empty // 3
        fill_file(old, limit=8 * MIB)
        self.store.daos("container", "create-snap", "home", "--snap", "early")
        left = self.store.available() - self.capacity // 100

        def comes_back():
            found = self.store.wait_available(left, RECLAIM_SECONDS)
            need(found >= left, f"{found} bytes available, {left} before")

        for give in (remove, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, MIB // 2), lambda path: os.rename(f"{self.mnt}/other", path)):
            open(f"{self.mnt}/other", "w").close()
            path = f"{self.mnt}/young"
            fill_file(path, limit=length)
            give(path)
            comes_back()
        # What was there stays for the snapshot; another of its name does not.
        os.unlink(old)
        fill_file(old, limit=length)
        os.unlink(old)
        comes_back()
        self.store.daos("container", "destroy-snap", "home", "--snap", "early")
        for name in ("young", "other"):
            if os.path.exists(f"{self.mnt}/{name}"):
                os.unlink(f"{self.mnt}/{name}")
        self.comes_back()

    def mmap_writers(self):
        """Pages of a mapping that cannot be stored: fsync or msync says so."""
        path = f"{self.mnt}/mapped"
        ballast = fill_file(f"{self.mnt}/ballast", limit=self.empty * 9 // 10)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        length = self.empty // 4 // BLOCK * BLOCK
        os.ftruncate(fd, length)
        told = 0
        with mmap.mmap(fd, length) as pages:
            for at in range(0, length, 64 * BLOCK):
                for inside in range(at, min(at + 64 * BLOCK, length), BLOCK):
                    pages[inside : inside + 8] = inside.to_bytes(8, "little")
                try:
                    pages.flush(at, min(64 * BLOCK, length - at))
                except OSError as error:
                    only_no_space(error)
                    told += 1
                    break
        try:
            os.fsync(fd)
        except OSError as error:
            only_no_space(error)
            told += 1
        need(told > 0, "nobody said that the pages are not stored")
        os.close(fd)
        os.unlink(path)
        verify_file(f"{self.mnt}/ballast", ballast)
        remove(f"{self.mnt}/ballast")
        self.comes_back()

    def overwriters(self):
        """A nearly full store, four who overwrite in place and two who read: nobody is told that it is full."""
        path = f"{self.mnt}/over"
        length = 16 * MIB
        fill_file(path, limit=length)
        fill_file(f"{self.mnt}/ballast", 64 << 10)
        os.truncate(f"{self.mnt}/ballast", os.stat(f"{self.mnt}/ballast").st_size - 3 * MIB)
        need(self.store.wait_available(2 * MIB, RECLAIM_SECONDS) >= 2 * MIB, "3 MiB were cut off")
        stop, counts = time.monotonic() + 8, [0] * 6

        def work(number):
            rng = random.Random(number)
            with open(path, "r+b", buffering=0) as file:
                while time.monotonic() < stop:
                    at = rng.randrange(length // MIB) * MIB
                    if number < 4:
                        os.pwrite(file.fileno(), content(path, at // MIB, MIB)[: 256 << 10], at)
                    else:
                        found = os.pread(file.fileno(), MIB, at)
                        need(found == content(path, at // MIB, MIB), f"{path} at {at}")
                    counts[number] += 1

        at_once(6, work)
        verify_file(path, length)
        remove(path)
        remove(f"{self.mnt}/ballast")
        self.comes_back()
        return f"{sum(counts[:4])} overwrites of 256 KiB, {sum(counts[4:])} reads of 1 MiB"

    def full_overwrites(self):
        """On a store without a free block, what is there can be overwritten: it gives back what it takes."""
        path = f"{self.mnt}/database"
        fill_file(path, limit=8 * MIB)
        fill_small(f"{self.mnt}/rest")
        fill_file(f"{self.mnt}/rest/last", BLOCK)
        fd = os.open(path, os.O_RDWR)
        rng = random.Random(5)
        for _ in range(1500):
            at = rng.randrange(8 * MIB // BLOCK) * BLOCK
            os.pwrite(fd, content(path, at // MIB, MIB)[at % MIB : at % MIB + BLOCK], at)
        os.fsync(fd)
        os.close(fd)
        verify_file(path, 8 * MIB)
        remove(path)
        remove(f"{self.mnt}/rest")
        self.comes_back()

    def full_of_names(self):
        """Names alone fill the store: what is there can be overwritten, and written where it is allocated."""
        path = f"{self.mnt}/database"
        fill_file(path, limit=8 * MIB)
        fill_file(f"{self.mnt}/ballast", limit=100 * MIB)
        fd = os.open(path, os.O_RDWR)
        directory, count = f"{self.mnt}/names", 0
        os.mkdir(directory)
        try:
            while True:
                os.close(os.open(f"{directory}/{'n' * 230}{count}", os.O_CREAT | os.O_WRONLY))
                count += 1
        except OSError as error:
            only_no_space(error)
        rng = random.Random(6)
        for number in range(600):
            length = (10, BLOCK, 64 << 10, MIB)[number % 4]
            at = rng.randrange(8) * MIB
            need(os.pwrite(fd, content(path, at // MIB, MIB)[:length], at) == length, "a short write")
        os.fsync(fd)
        os.close(fd)
        verify_file(path, 8 * MIB)
        for name in ("database", "ballast", "names"):
            remove(f"{self.mnt}/{name}")
        self.comes_back()
        return f"{count} names"

    def again_and_again(self):
        """Filled, killed or not, and emptied: as much fits every time."""
        sizes = []
        for turn in range(ROUNDS):
            written = 0
            for number in range(4):
                written += fill_file(f"{self.mnt}/turn{number}", limit=None if number == 3 else self.empty // 4)
            sizes.append(written)
            if turn % 3 == 2:
                self.store.kill()
            for number in range(4):
                remove(f"{self.mnt}/turn{number}")
            if turn % 2 == 0:
                self.comes_back()
        need(max(sizes) - min(sizes) <= self.capacity // 100, f"bytes that fit: {sizes}")
        return f"{min(sizes) >> 10} to {max(sizes) >> 10} KiB fit"

    def at_once(self):
        """Writers, deleters and readers at once while it is full: ENOSPC or success, and what succeeded is there."""
        stop = time.monotonic() + 8

        def work(number):
            rng, there, base = random.Random(number), {}, f"{self.mnt}/at-once-{number}"
            os.mkdir(base)
            while time.monotonic() < stop:
                index = rng.randrange(100)
                path = f"{base}/{index}"
                if index in there and rng.random() < 0.3:
                    with open(path, "rb") as file:
                        need(file.read() == content(base, index, there[index]), f"{path}")
                elif index in there and rng.random() < 0.3:
                    os.unlink(path)
                    del there[index]
                elif index not in there:
                    length = rng.choice((BLOCK, 64 << 10, MIB, 4 * MIB))
                    try:
                        with open(path, "wb", buffering=0) as file:
                            need(file.write(content(base, index, length)) <= length, "a write")
                            length = os.fstat(file.fileno()).st_size
                        there[index] = length
                    except OSError as error:
                        only_no_space(error)
                        if os.path.exists(path):
                            os.unlink(path)
            for index, length in there.items():
                with open(f"{base}/{index}", "rb") as file:
                    need(file.read() == content(base, index, length), f"{base}/{index} in the end")

        at_once(6, work)
        for number in range(6):
            remove(f"{self.mnt}/at-once-{number}")
        self.comes_back()

    def is_sound(self):
        need("latched" not in self.store.log() and "panicked" not in self.store.log(), self.store.log()[-500:])
        self.store.check()


def host_is_full():
    """The store's file lies on a host filesystem with less space than the store was promised."""
    if os.geteuid() != 0:
        raise Skipped("mounting a loop device needs root")
    base = subprocess.run(["mktemp", "-d", "/var/tmp/daosfs-host.XXXXXX"], capture_output=True, text=True, check=True).stdout.strip()
    image, host = f"{base}/image", f"{base}/host"
    store = None
    try:
        os.mkdir(host)
        with open(image, "wb") as file:
            file.truncate(320 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        done = subprocess.run(["mount", "-o", "loop", image, host], capture_output=True, text=True)
        if done.returncode != 0:
            raise Skipped(f"no loop device: {done.stderr.strip()}")
        os.mkdir(f"{host}/store")
        store = Store("--size=1G", kept_in=f"{host}/store")
        sizes = []
        for turn in range(3):
            written = fill_file(f"{store.mnt}/large")
            sizes.append(written)
            avail = store.available()
            need(avail < 16 * MIB, f"df says {avail} bytes on a full host")
            verify_file(f"{store.mnt}/large", written)
            count = 0
            try:
                for count in range(100):
                    with open(f"{store.mnt}/small{count}", "wb", buffering=0) as file:
                        file.write(content("small", count))
            except OSError as error:
                only_no_space(error)
            if turn == 1:
                store.kill()
                verify_file(f"{store.mnt}/large", written)
            for name in os.listdir(store.mnt):
                os.unlink(f"{store.mnt}/{name}")
            need(store.wait_available(written - 8 * MIB) >= written - 8 * MIB, "it comes back")
        need(max(sizes) - min(sizes) <= 8 * MIB, f"bytes that fit: {sizes}")
        need("latched" not in store.log(), store.log()[-500:])
        # What the store does not need goes back to the host.
        free = lambda: os.statvfs(host).f_bavail * os.statvfs(host).f_frsize
        end = time.monotonic() + 30
        while free() < min(sizes) // 2 and time.monotonic() < end:
            time.sleep(0.5)
        need(free() >= min(sizes) // 2, f"the host has {free()} bytes after {min(sizes)} were deleted")
        # Somebody else takes them, and the store is full, not broken.
        with open(f"{host}/other", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free() - 2 * MIB)
        written = fill_file(f"{store.mnt}/large")
        verify_file(f"{store.mnt}/large", written)
        os.unlink(f"{store.mnt}/large")
        os.unlink(f"{host}/other")
        store.check()
        return f"{min(sizes) >> 20} to {max(sizes) >> 20} MiB fit on the host, {written >> 20} beside another file"
    finally:
        if store:
            store.end()
        subprocess.run(["umount", "-l", host], capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", base])


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    results = Results("full", words)
    store = Store(f"--size={SIZE >> 20}M")
    try:
        full = Full(store)
        for claim, test in (
            ("what_is_there_is_overwritten_when_names_fill_the_store", full.full_of_names),
            ("large_files_fill_it_and_df_is_right", full.large_files),
            ("small_files_fill_it", full.small_files),
            ("tiny_files_fill_it", full.tiny_files),
            ("names_links_and_attributes_fill_it", full.names_and_attributes),
            ("holes_are_filled", full.holes),
            ("snapshots_fill_it", full.snapshots),
            ("what_no_snapshot_saw_comes_back", full.beside_snapshots),
            ("pages_of_a_mapping_fill_it_and_fsync_says_so", full.mmap_writers),
            ("overwriters_beside_readers_are_not_told_that_it_is_full", full.overwriters),
            ("what_is_there_is_overwritten_on_a_full_store", full.full_overwrites),
            ("everybody_at_once_on_a_full_store", full.at_once),
            ("it_is_filled_again_and_again", full.again_and_again),
            ("the_store_is_sound_afterwards", full.is_sound),
        ):
            results.run(claim, test)
            # A claim that failed leaves its files behind.
            for name in os.listdir(store.mnt) if os.path.ismount(store.mnt) else []:
                results.run("what_is_left_of_a_failure_goes", remove, f"{store.mnt}/{name}")
    finally:
        store.end()
    results.run("a_full_host_is_enospc_and_gets_its_space_back", host_is_full)
    results.end()


main()
