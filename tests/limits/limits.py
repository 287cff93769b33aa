"""The limits, from both sides: what is allowed works, what is one more has the errno that POSIX gives it.

With --long the figures are the full ones; without, the expensive ones are smaller (it says which) so that two busy cores
need about four minutes.

usage: limits.py [--long] [WORD...]     WORD: run only the claims with one of these words in their names
"""

import errno
import os
import resource
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import Results, Skipped, Store, need, refused  # noqa: E402

LONG = "--long" in sys.argv
FILES = 1_000_000 if LONG else 50_000
LINKS = 100_000 if LONG else 10_000
CONTAINERS = 1_000 if LONG else 100
SNAPSHOTS = 1_000 if LONG else 100
# Small files, and the memory for metadata that their daemon is given.
SMALL_FILES, MEMORY_MIB = (1_000_000, 128) if LONG else (100_000, 16)
OPEN = 10_000
XATTRS = 1_000
MIB = 1 << 20
TIB = 1 << 40
SIZE_MAX = (1 << 63) - 1


def rate(count, start):
    return f"{count / (time.monotonic() - start):.0f}/s"


class Limits:
    def __init__(self, store):
        self.store = store
        self.mnt = store.mnt

    def names(self):
        for call in (self.make_file, os.mkdir, lambda path: os.symlink("x", path), os.mkfifo):
            path = f"{self.mnt}/" + "n" * 255
            call(path)
            need(os.listdir(self.mnt).count("n" * 255) == 1, "a name of 255 bytes is listed")
            (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
            refused(errno.ENAMETOOLONG, call, f"{self.mnt}/" + "n" * 256)
        other = "\u00e9" * 127 + "x"  # 255 bytes
        self.make_file(f"{self.mnt}/{other}")
        os.rename(f"{self.mnt}/{other}", f"{self.mnt}/" + "m" * 255)
        refused(errno.ENAMETOOLONG, os.rename, f"{self.mnt}/" + "m" * 255, f"{self.mnt}/" + "m" * 256)
        refused(errno.ENAMETOOLONG, os.link, f"{self.mnt}/" + "m" * 255, f"{self.mnt}/" + "m" * 256)
        refused(errno.ENAMETOOLONG, os.stat, f"{self.mnt}/" + "m" * 256)
        os.unlink(f"{self.mnt}/" + "m" * 255)

    @staticmethod
    def make_file(path):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def paths(self):
        """The kernel takes paths of 4095 bytes; trees may be far deeper."""
        path, parts = self.mnt, []
        while len(path) < 4095 - 260:
            path += "/" + "p" * 200
            os.mkdir(path)
            parts.append(path)
        last = path + "/" + "q" * (4095 - len(path) - 1)
        need(len(last) == 4095, f"{len(last)} bytes")
        if len(last) - len(path) - 1 > 255:
            path += "/" + "r" * 100
            os.mkdir(path)
            parts.append(path)
            last = path + "/" + "q" * (4095 - len(path) - 1)
        self.make_file(last)
        need(os.stat(last).st_size == 0, "a path of 4095 bytes")
        refused(errno.ENAMETOOLONG, os.stat, last + "q")
        os.symlink("s" * 4095, f"{self.mnt}/link")
        need(os.readlink(f"{self.mnt}/link") == "s" * 4095, "a symlink of 4095 bytes")
        refused(errno.ENAMETOOLONG, os.symlink, "s" * 4096, f"{self.mnt}/link2")
        os.unlink(f"{self.mnt}/link")
        os.unlink(last)
        for part in reversed(parts):
            os.rmdir(part)
        # Deeper than a path can say, step by step.
        top = os.getcwd()
        depth = 1000
        os.chdir(self.mnt)
        for _ in range(depth):
            os.mkdir("deep")
            os.chdir("deep")
        self.make_file("bottom")
        need(os.stat("bottom").st_nlink == 1, "at the bottom")
        os.unlink("bottom")
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("deep")
        os.chdir(top)
        return f"{depth} directories deep"

    def many_files(self):
        base, count = f"{self.mnt}/many", FILES
        os.mkdir(base)
        said = []
        start = time.monotonic()
        directory = os.open(base, os.O_RDONLY)
        for index in range(count):
            os.close(os.open(f"f{index:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=directory))
        said.append(f"create {rate(count, start)}")
        start = time.monotonic()
        seen = set(os.listdir(base))
        need(len(seen) == count and "f0000000" in seen and f"f{count - 1:07}" in seen, f"{len(seen)} of {count} are listed")
        said.append(f"list {rate(count, start)}")
        os.close(directory)
        self.store.again()
        directory = os.open(base, os.O_RDONLY)
        start = time.monotonic()
        step = max(1, count // 20_000)
        for index in range(0, count, step):
            os.stat(f"f{index * 7919 % count:07}", dir_fd=directory)
        said.append(f"look up cold {rate(count // step, start)}")
        refused(errno.ENOENT, os.stat, f"f{count:07}", dir_fd=directory)
        start = time.monotonic()
        found = sum(1 for entry in os.scandir(base) if entry.stat(follow_symlinks=False).st_nlink == 1)
        need(found == count, f"{found} of {count} with attributes")
        said.append(f"ls -l {rate(count, start)}")
        refused(errno.ENOTEMPTY, os.rmdir, base)
        start = time.monotonic()
        for index in range(count):
            os.unlink(f"f{index:07}", dir_fd=directory)
        said.append(f"delete {rate(count, start)}")
        need(os.listdir(base) == [], "it is empty")
        os.close(directory)
        os.rmdir(base)
        said.append(f"daemon {self.store.resident_bytes() >> 20} MiB")
        return f"{count} files: " + ", ".join(said)

    @staticmethod
    def memory():
        """Beside what metadata may take, half of it for what is known of inodes, and 64 MiB for everything else."""
        store = Store("--size=16G", f"--memory={MEMORY_MIB}M")
        bound = MEMORY_MIB * 3 // 2 + 64
        said = []

        def look(what):
            resident = store.resident_bytes() >> 20
            said.append(f"{what} {resident}")
            need(resident <= bound, f"{resident} MiB resident after {what}; {bound} are the bound")

        try:
            base = f"{store.mnt}/small"
            os.mkdir(base)
            for index in range(SMALL_FILES):
                if index % 10_000 == 0:
                    os.mkdir(f"{base}/{index // 10_000}")
                fd = os.open(f"{base}/{index // 10_000}/{index}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                os.write(fd, bytes(4096))
                os.close(fd)
            look("create")
            names = sum(len(files) for _, _, files in os.walk(base))
            need(names == SMALL_FILES, f"{names} of {SMALL_FILES} are listed")
            look("list")
            for index in range(SMALL_FILES):
                need(os.stat(f"{base}/{index // 10_000}/{index}").st_size == 4096, "it is as long as it was written")
            look("stat")
            store.again()
            found = subprocess.run(["find", base, "-type", "f", "-size", "4k", "-printf", "."], check=True, capture_output=True)
            need(len(found.stdout) == SMALL_FILES, f"find finds {len(found.stdout)} of {SMALL_FILES}")
            look("find after a remount")
        finally:
            store.end()
        return f"{SMALL_FILES} files of 4 KiB with --memory {MEMORY_MIB}M, MiB resident: {', '.join(said)}; at most {bound}"

    def sparse(self):
        path = f"{self.mnt}/sparse"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, TIB)
        need(os.fstat(fd).st_size == TIB and os.fstat(fd).st_blocks == 0, "1 TiB without a block")
        for at in (0, TIB // 3, TIB - 5):
            os.pwrite(fd, b"there", at)
        need(os.fstat(fd).st_blocks * 512 <= 64 << 10, f"{os.fstat(fd).st_blocks} blocks")
        need(os.pread(fd, 5, TIB - 5) == b"there" and os.pread(fd, 5, TIB // 2) == bytes(5), "data and holes")
        need(os.lseek(fd, 5, os.SEEK_DATA) // 4096 == TIB // 3 // 4096, "SEEK_DATA")
        need(os.lseek(fd, TIB // 3, os.SEEK_HOLE) < TIB // 3 + 8192, "SEEK_HOLE")
        os.ftruncate(fd, TIB // 3 + 2)
        os.ftruncate(fd, TIB)
        need(os.pread(fd, 5, TIB // 3) == b"th\0\0\0", "what was cut off stays so")
        os.close(fd)
        os.unlink(path)

    def offsets(self):
        path = f"{self.mnt}/far"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"x", SIZE_MAX - 1)
        need(os.fstat(fd).st_size == SIZE_MAX, f"{os.fstat(fd).st_size}")
        need(os.pread(fd, 1, SIZE_MAX - 1) == b"x", "the last byte that there can be")
        refused(errno.EINVAL, os.pwrite, fd, b"y", SIZE_MAX)  # the kernel's own: offsets end there
        refused(errno.EINVAL, os.pwrite, fd, b"zz", SIZE_MAX - 1)
        need(os.lseek(fd, 0, os.SEEK_DATA) >= SIZE_MAX - 4096, "SEEK_DATA over 8 EiB")
        os.ftruncate(fd, 1 << 62)
        need(os.fstat(fd).st_blocks == 0, "cut off")
        os.ftruncate(fd, SIZE_MAX)
        need(os.pread(fd, 1, SIZE_MAX - 1) == b"\0", "zeros")
        os.close(fd)
        os.unlink(path)

    def allocated(self):
        """Space that is allocated and never written: a file of it answers as fast as any."""
        path = f"{self.mnt}/allocated"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        length = 6 << 30
        os.posix_fallocate(fd, 0, length)
        need(os.fstat(fd).st_blocks * 512 >= length, "it has its blocks")
        os.pwrite(fd, b"x", 100)
        os.close(fd)
        self.store.again()
        start = time.monotonic()
        need(os.stat(path).st_size == length, "its size after a remount")
        cold = time.monotonic() - start
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        start = time.monotonic()
        for _ in range(20):
            os.write(fd, b"appended")
            need(os.fstat(fd).st_size > length, "it grows")
        each = (time.monotonic() - start) / 20
        os.close(fd)
        os.truncate(path, 1 << 30)
        os.unlink(path)
        # Thousands of holes, filled by one call.
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        holes = 8000
        for index in range(holes):
            os.pwrite(fd, b"d" * 4096, index * 8192)
        os.posix_fallocate(fd, 0, holes * 8192)
        need(os.fstat(fd).st_blocks * 512 >= holes * 8192, "the holes have blocks")
        need(os.pread(fd, 8192, 8192 * 77) == b"d" * 4096 + bytes(4096), "what was there stays")
        os.close(fd)
        os.unlink(path)
        need(cold < 1 and each < 0.1, f"stat {cold:.3f} s, append {each:.3f} s")
        return f"6 GiB: first stat {cold * 1000:.1f} ms, append and stat {each * 1000:.1f} ms"

    def links(self):
        base, count = f"{self.mnt}/links", LINKS
        os.mkdir(base)
        self.make_file(f"{base}/0")
        start = time.monotonic()
        for index in range(1, count):
            os.link(f"{base}/0", f"{base}/{index}")
        said = f"link {rate(count, start)}"
        need(os.stat(f"{base}/{count // 2}").st_nlink == count, "all are counted")
        self.store.again()
        need(os.stat(f"{base}/{count - 1}").st_nlink == count, "all are counted after a remount")
        with open(f"{base}/7", "w") as file:
            file.write("seen by all")
        need(open(f"{base}/{count - 1}").read() == "seen by all", "one file")
        start = time.monotonic()
        for index in range(count):
            os.unlink(f"{base}/{index}")
        os.rmdir(base)
        return f"{count} links: {said}, unlink {rate(count, start)}"

    def open_files(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < OPEN + 100:
            raise Skipped(f"a process may open {hard} files here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN + 100, hard))
        base, before = f"{self.mnt}/open", self.store.descriptors()
        os.mkdir(base)
        files = []
        try:
            for index in range(OPEN):
                files.append(os.open(f"{base}/{index}", os.O_RDWR | os.O_CREAT))
            for index in range(0, OPEN, 97):
                os.unlink(f"{base}/{index}")
            for index, fd in enumerate(files):
                os.pwrite(fd, str(index).encode(), 0)
            for index, fd in enumerate(files):
                need(os.pread(fd, 10, 0) == str(index).encode(), f"file {index}")
            opened = self.store.descriptors()
        finally:
            for fd in files:
                os.close(fd)
        subprocess.run(["rm", "-rf", base], check=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        need(opened <= before + 20, f"the daemon has {opened} descriptors, {before} before")
        return f"{OPEN} files, {opened} descriptors of the daemon"

    def attributes(self):
        path = f"{self.mnt}/attributes"
        self.make_file(path)
        value = bytes(range(256)) * 256
        os.setxattr(path, "user.large", value)
        need(os.getxattr(path, "user.large") == value, "64 KiB")
        refused(errno.E2BIG, os.setxattr, path, "user.larger", value + b"x")
        os.setxattr(path, "user." + "n" * 250, b"")
        refused(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"")
        os.removexattr(path, "user." + "n" * 250)
        start = time.monotonic()
        names = {"user.large"}
        for index in range(1, XATTRS):
            # The kernel returns at most 64 KiB of names.
            os.setxattr(path, f"user.{index:04}", value[: 60 << 10] if index % 20 == 0 else b"v%d" % index)
            names.add(f"user.{index:04}")
        said = rate(XATTRS, start)
        need(set(os.listxattr(path)) == names, "all are listed")
        self.store.again()
        need(set(os.listxattr(path)) == names, "all are listed after a remount")
        os.rename(path, path + "2")
        need(os.getxattr(path + "2", "user.0020") == value[: 60 << 10], "they move")
        need(os.getxattr(path + "2", "user.0999") == b"v999", "they move")
        os.unlink(path + "2")
        return f"{XATTRS} xattrs: set {said}"

    def containers(self):
        count, start = CONTAINERS, time.monotonic()
        for index in range(count):
            self.store.daos("container", "create", f"c{index}")
        said = f"create {rate(count, start)}"
        start = time.monotonic()
        listed = self.store.daos("container", "list")
        listed = listed if isinstance(listed, list) else listed["containers"]
        need(len(listed) >= count, f"{len(listed)} are listed")
        said += f", list {(time.monotonic() - start) * 1000:.0f} ms"
        self.store.kill()
        for index in range(count):
            self.store.daos("container", "destroy", f"c{index}")
        return f"{count} containers: {said}"

    def snapshots(self):
        if not self.store.has_command("container", "create-snap"):
            raise Skipped("this daos has no create-snap")
        count, start = SNAPSHOTS, time.monotonic()
        path = f"{self.mnt}/versions"
        for index in range(count):
            with open(path, "w") as file:
                file.write(f"version {index}")
            self.store.daos("container", "create-snap", "home", "--snap", f"s{index}")
        said = f"create {rate(count, start)}"
        need(len(self.store.daos("container", "list-snap", "home")) >= 1, "they are listed")
        self.store.kill()
        start = time.monotonic()
        for index in range(count):
            self.store.daos("container", "destroy-snap", "home", "--snap", f"s{index}")
        need(open(path).read() == f"version {count - 1}", "the newest stays")
        os.unlink(path)
        return f"{count} snapshots: {said}, destroy {rate(count, start)}"

    def sound(self):
        need("panicked" not in self.store.log() and "latched" not in self.store.log(), self.store.log()[-500:])
        self.store.check()


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    results = Results("limits", words)
    store = Store("--size=16G")
    try:
        limits = Limits(store)
        results.run_all(
            ("names_have_255_bytes", limits.names),
            ("paths_have_4095_bytes_and_trees_are_deeper", limits.paths),
            ("a_sparse_file_has_a_tebibyte", limits.sparse),
            ("offsets_reach_8_exbibytes", limits.offsets),
            ("allocated_space_is_answered_for_fast", limits.allocated),
            ("a_file_has_many_links", limits.links),
            ("many_files_are_open", limits.open_files),
            ("xattrs_are_large_and_many", limits.attributes),
            ("containers_are_many", limits.containers),
            ("snapshots_are_many", limits.snapshots),
            ("a_directory_has_many_files", limits.many_files),
            ("memory_is_bounded_whatever_the_number_of_files", limits.memory),
            ("the_store_is_sound_afterwards", limits.sound),
        )
    finally:
        store.end()
    results.end()


main()
