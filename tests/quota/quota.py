"""A container with a quota, through its mount: EDQUOT for what would grow past it, and for nothing else.

usage: quota.py [WORD...]     WORD: run only the claims with one of these words in their names
"""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import BLOCK, Results, Skipped, Store, at_once, need, refused  # noqa: E402

MIB = 1 << 20


class Quota:
    def __init__(self, store):
        self.store, self.mnt = store, store.mnt

    def set(self, bytes_, inodes):
        self.store.daos("container", "set-prop", "default", "home", f"quota:{bytes_},{inodes}")

    def fill(self, path, step=256 << 10):
        """Writes until EDQUOT; bytes written."""
        done = 0
        with open(path, "ab", buffering=0) as file:
            while True:
                try:
                    done += file.write(b"q" * step)
                except OSError as error:
                    need(error.errno == errno.EDQUOT, f"{error}")
                    os.fsync(file.fileno())
                    return done

    def bytes_(self):
        self.set(64 * MIB, 0)
        size, free, available = self.store.space()
        need(size == 64 * MIB, f"df shows {size} bytes in all")
        written = self.fill(f"{self.mnt}/file")
        written += self.fill(f"{self.mnt}/file", BLOCK)
        need(abs(written - available) <= 64 << 10, f"df said {available}, {written} bytes could be written")
        need(self.store.available() < 64 << 10, f"df says {self.store.available()} bytes")
        need(self.store.space()[0] == size, "the size stays")
        return f"{written} bytes of {available}"

    def no_growth(self):
        """At the quota: what does not grow goes on."""
        path = f"{self.mnt}/file"
        with open(path, "r+b", buffering=0) as file:
            need(file.write(b"o" * MIB) == MIB, "overwrite")
            os.fsync(file.fileno())
            need(os.pread(file.fileno(), 4, MIB - 2) == b"ooqq", "read")
            refused(errno.EDQUOT, os.posix_fallocate, file.fileno(), 64 * MIB, 8 * MIB)
        os.chmod(path, 0o600)
        os.utime(path, (1, 2))
        os.rename(path, path + "-with-a-name-that-is-much-longer-than-before")
        os.rename(path + "-with-a-name-that-is-much-longer-than-before", path)
        os.truncate(path, os.stat(path).st_size - 8 * MIB)
        need(8 * MIB - (64 << 10) <= self.store.available() <= 8 * MIB + (64 << 10), "a truncate counts at once")
        self.fill(path)
        os.unlink(path)
        need(self.store.available() > 63 * MIB, "so does a delete")

    def inodes(self):
        # Objects of the filesystem's own that come with the first of their kind, and count.
        os.close(os.open(f"{self.mnt}/linked", os.O_CREAT))
        os.link(f"{self.mnt}/linked", f"{self.mnt}/linked2")
        with open(f"{self.mnt}/linked", "rb"):
            os.unlink(f"{self.mnt}/linked")
            os.unlink(f"{self.mnt}/linked2")
        self.set(0, 500)
        found = os.statvfs(self.mnt)
        need(found.f_files <= 500, f"df -i shows {found.f_files}")
        os.mkdir(f"{self.mnt}/many")
        made = 0
        try:
            for made in range(1000):
                os.close(os.open(f"{self.mnt}/many/{made}", os.O_CREAT))
        except OSError as error:
            need(error.errno == errno.EDQUOT, f"{error}")
        need(480 <= made <= 500 and abs(made + 1 - found.f_ffree) <= 2, f"{made} files, df -i said {found.f_ffree}")
        need(os.statvfs(self.mnt).f_ffree <= 1, "df -i says so")
        refused(errno.EDQUOT, os.mkdir, f"{self.mnt}/one-more")
        with open(f"{self.mnt}/many/7", "wb") as file:
            file.write(b"x" * MIB)  # bytes are not limited
        os.link(f"{self.mnt}/many/7", f"{self.mnt}/many/link")  # no inode
        for index in range(10):
            os.unlink(f"{self.mnt}/many/{index}")
        os.mkdir(f"{self.mnt}/one-more")
        return f"{made} files, df -i said {found.f_ffree}"

    def below_usage(self):
        """A quota below what is there only keeps it from growing."""
        self.set(0, 0)
        with open(f"{self.mnt}/big", "wb") as file:
            file.write(b"b" * 20 * MIB)
        self.set(10 * MIB, 100)
        need(self.store.available() == 0, f"df says {self.store.available()}")
        refused(errno.EDQUOT, self.write_some, f"{self.mnt}/big")
        refused(errno.EDQUOT, os.mkdir, f"{self.mnt}/no")
        need(open(f"{self.mnt}/big", "rb").read(3) == b"bbb", "reading")
        for name in os.listdir(f"{self.mnt}/many"):
            os.unlink(f"{self.mnt}/many/{name}")
        os.rmdir(f"{self.mnt}/many")
        os.truncate(f"{self.mnt}/big", 5 * MIB)
        self.write_some(f"{self.mnt}/big")
        os.mkdir(f"{self.mnt}/yes")
        self.store.kill()
        need(self.store.space()[0] == 10 * MIB, "the quota survives a kill")
        self.fill(f"{self.mnt}/big")
        used = self.store.space()[0] - self.store.space()[1]
        need(used <= 10 * MIB, f"{used} bytes are used")
        self.set(0, 0)
        self.write_some(f"{self.mnt}/big")

    @staticmethod
    def write_some(path):
        with open(path, "ab", buffering=0) as file:
            file.write(b"s" * 64 * 1024)

    def at_once(self):
        """Many writers do not get past it together."""
        os.unlink(f"{self.mnt}/big")
        self.set(32 * MIB, 0)
        at_once(8, lambda number: self.fill(f"{self.mnt}/at-once-{number}", 100_000))
        stored = sum(os.stat(f"{self.mnt}/at-once-{number}").st_blocks * 512 for number in range(8))
        need(31 * MIB <= stored <= 32 * MIB, f"{stored} bytes are stored")
        for number in range(8):
            os.unlink(f"{self.mnt}/at-once-{number}")

    def sound(self):
        self.set(0, 0)
        self.store.check()


def main():
    results = Results("quota", [word for word in sys.argv[1:] if not word.startswith("--")])
    store = Store("--size=512M")
    try:
        if not store.has_command("container", "set-prop"):
            raise Skipped("this daos has no set-prop")
        quota = Quota(store)
        results.run_all(
            ("bytes_are_limited_and_df_shows_the_quota", quota.bytes_),
            ("what_does_not_grow_goes_on_at_the_quota", quota.no_growth),
            ("inodes_are_limited", quota.inodes),
            ("a_quota_below_what_is_there_keeps_it_from_growing", quota.below_usage),
            ("writers_do_not_get_past_it_together", quota.at_once),
            ("the_store_is_sound_afterwards", quota.sound),
        )
    finally:
        store.end()
    results.end()


main()
