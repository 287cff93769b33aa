"""Many processes in one tree at once: what each of them was told must fit together, and the tree must be sound afterwards.

usage: concurrency.py [--long] [--seed N] [WORD...]     WORD: run only the claims with one of these words in their names
"""

import argparse
import ctypes
import errno
import json
import os
import random
import stat
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import Results, Store, need  # noqa: E402

PROCESSES = 8
NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
# What somebody may be told because of what others did meanwhile. Anything else is a defect.
RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EPERM}
libc = ctypes.CDLL(None, use_errno=True)


def rename2(old, new, flags):
    if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


def together(count, work, *arguments):
    """Runs `work(number, *arguments)` in as many processes; their answers. A process that fails or hangs fails the claim."""
    children = []
    for number in range(count):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                answer = {"answer": work(number, *arguments)}
            except BaseException:  # noqa: BLE001 - told to the parent
                answer = {"error": traceback.format_exc()}
            with os.fdopen(writer, "w") as out:
                json.dump(answer, out)
            os._exit(0)
        os.close(writer)
        children.append((pid, reader))
    answers = []
    for pid, reader in children:
        with os.fdopen(reader) as said:
            text = said.read()
        os.waitpid(pid, 0)
        answers.append(json.loads(text) if text else {"error": f"process {pid} died"})
    for answer in answers:
        need("error" not in answer, answer.get("error"))
    return [answer["answer"] for answer in answers]


class Walker:
    """One of the processes of random operations. It counts what it was told."""

    def __init__(self, number, base, seed):
        self.number, self.base = number, base
        self.rng = random.Random(f"{seed}/{number}")
        self.counts = dict.fromkeys(("ops", "races", "names", "replaced_at_most", "files"), 0)
        self.open = []
        self.serial = 0

    def path(self):
        """A place in the tree: few names, so that all meet."""
        depth = self.rng.choice((1, 1, 2, 2, 3))
        return self.base + "".join(f"/{self.rng.choice('abcde')}" for _ in range(depth))

    def run(self, seconds):
        end = time.monotonic() + seconds
        steps = (self.create, self.mkdir, self.unlink, self.rmdir, self.rename, self.noreplace, self.exchange,
                 self.link, self.symlink, self.look, self.list, self.held)
        while time.monotonic() < end:
            step = self.rng.choice(steps)
            self.counts["ops"] += 1
            try:
                step()
            except OSError as error:
                need(error.errno in RACES, f"{step.__name__}: {errno.errorcode.get(error.errno)}: {error}")
                self.counts["races"] += 1
        for fd, token in self.open:
            need(os.pread(fd, 100, 0) == token, f"{token} is not in its file any more")
            os.close(fd)
        return self.counts

    def create(self):
        self.serial += 1
        token = f"{self.number}.{self.serial}".encode()
        fd = os.open(self.path(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        self.counts["names"] += 1
        self.counts["files"] += 1
        need(os.write(fd, token) == len(token), "a short write")
        self.open.append((fd, token))
        if len(self.open) > 30:
            old, token = self.open.pop(self.rng.randrange(len(self.open)))
            need(os.pread(old, 100, 0) == token, f"{token} is not in its file any more")
            os.close(old)

    def mkdir(self):
        os.mkdir(self.path())
        self.counts["names"] += 1

    def symlink(self):
        os.symlink("t" * self.rng.randrange(1, 200), self.path())
        self.counts["names"] += 1

    def link(self):
        os.link(self.path(), self.path(), follow_symlinks=False)
        self.counts["names"] += 1

    def unlink(self):
        os.unlink(self.path())
        self.counts["names"] -= 1

    def rmdir(self):
        os.rmdir(self.path())
        self.counts["names"] -= 1

    def rename(self):
        # It may take the place of something, or be a name of the same file: then both stay.
        os.rename(self.path(), self.path())
        self.counts["replaced_at_most"] += 1

    def noreplace(self):
        rename2(self.path(), self.path(), NOREPLACE)

    def exchange(self):
        rename2(self.path(), self.path(), EXCHANGE)

    def look(self):
        found = os.lstat(self.path())
        need(found.st_nlink >= 0 and found.st_ino > 0, f"{found}")

    def list(self):
        path = os.path.dirname(self.path())
        names = os.listdir(path)
        need(len(names) == len(set(names)), f"{path} lists {sorted(names)}")

    def held(self):
        if self.open:
            fd, token = self.rng.choice(self.open)
            need(os.pread(fd, 100, 0) == token, f"{token} is not in its file any more")
            need(os.fstat(fd).st_size == len(token), "its size")


def survey(base):
    """Every name below `base`; what is wrong with them is an AssertionError."""
    names, inodes = {}, {}
    pending = [base]
    while pending:
        directory = pending.pop()
        entries = list(os.scandir(directory))
        need(len(entries) == len({entry.name for entry in entries}), f"{directory} lists a name twice")
        below = 0
        for entry in entries:
            found = os.lstat(entry.path)
            need(found.st_ino == entry.inode(), f"{entry.path}: number {found.st_ino}, listed as {entry.inode()}")
            kind = (entry.is_dir(follow_symlinks=False), entry.is_symlink())
            need(kind == (stat.S_ISDIR(found.st_mode), stat.S_ISLNK(found.st_mode)), f"{entry.path}: its kind")
            names[entry.path[len(base):]] = (found.st_ino, found.st_mode, found.st_nlink, found.st_size)
            inodes.setdefault(found.st_ino, []).append((entry.path, found))
            if stat.S_ISDIR(found.st_mode):
                below += 1
                pending.append(entry.path)
        links = os.lstat(directory).st_nlink
        need(links == 2 + below, f"{directory}: {links} links, {below} directories in it")
    tokens = set()
    for paths in inodes.values():
        found = paths[0][1]
        if stat.S_ISDIR(found.st_mode):
            need(len(paths) == 1, f"a directory with two names: {paths}")
            continue
        need(found.st_nlink == len(paths), f"{paths[0][0]}: {found.st_nlink} links, {len(paths)} names")
        if stat.S_ISREG(found.st_mode):
            data = open(paths[0][0], "rb").read()
            need(data not in tokens or not data, f"{data} is in two files")
            tokens.add(data)
    return names


class Concurrency:
    def __init__(self, store, seed, seconds):
        self.store, self.mnt, self.seed, self.seconds = store, store.mnt, seed, seconds

    def random_operations(self):
        base = f"{self.mnt}/tree"
        os.mkdir(base)
        work = lambda number: Walker(number, base, self.seed).run(self.seconds)
        counts = together(PROCESSES, work)
        total = {key: sum(count[key] for count in counts) for key in counts[0]}
        names = survey(base)
        most, least = total["names"], total["names"] - total["replaced_at_most"]
        need(least <= len(names) <= most, f"{len(names)} names, {least} to {most} by what was answered")
        self.store.again()
        after = survey(base)
        other = sorted((name[-20:], len(name), names.get(name), after.get(name)) for name in names.keys() | after.keys() if names.get(name) != after.get(name))
        need(not other, f"before and after a remount: {other[:10]}")
        need(total["ops"] > 500 * self.seconds / 20, f"only {total}")
        return f"{total['ops']} operations, {total['races']} of them too late, {len(names)} names left"

    def loops(self):
        """a into b while b goes into a: one of them at most."""
        base = f"{self.mnt}/loops"
        rounds = 60 if self.seconds < 30 else 400
        os.mkdir(base)

        def work(number, names, turn):
            mine = names[number % len(names)]
            other = names[(number + 1) % len(names)]
            try:
                os.rename(f"{base}/{mine}", f"{base}/{other}/x{turn}")
                return True
            except OSError as error:
                need(error.errno in (errno.EINVAL, errno.ENOENT), f"{error}")
                return False

        moved_all = 0
        for turn in range(rounds):
            names = [f"{turn}.{part}" for part in range(2 + turn % 3)]
            for name in names:
                os.mkdir(f"{base}/{name}")
            moved = together(len(names), work, names, turn)
            need(not all(moved), f"round {turn}: all of {names} went into each other")
            need(any(moved), f"round {turn}: nobody moved")
            left = sum(1 for _ in os.walk(base)) - 1
            need(left == len(names), f"round {turn}: {left} of {len(names)} directories can be reached")
            moved_all += sum(moved)
            for directory, _, _ in os.walk(base, topdown=False):
                if directory != base:
                    os.rmdir(directory)
        os.rmdir(base)
        return f"{moved_all} renames in {rounds} rounds"

    def readdir(self):
        """Who lists sees once what stays, whatever comes and goes."""
        base = f"{self.mnt}/listed"
        os.mkdir(base)
        stays = {f"stays-{index}" for index in range(3000)}
        for name in stays:
            os.mkdir(f"{base}/{name}") if name.endswith("7") else os.close(os.open(f"{base}/{name}", os.O_CREAT))
        seconds = self.seconds / 2

        def work(number):
            rng, end, rounds = random.Random(f"{self.seed}/{number}"), time.monotonic() + seconds, 0
            mine = set()
            while time.monotonic() < end:
                rounds += 1
                if number < 3:
                    listed = [entry.name for entry in os.scandir(base)]
                    need(len(listed) == len(set(listed)), "a name came twice")
                    missed = stays - set(listed)
                    need(not missed, f"{len(missed)} that stayed were not listed, as {sorted(missed)[:3]}")
                    continue
                name = f"{base}/goes-{number}-{rng.randrange(300)}"
                if name in mine and rng.random() < 0.4:
                    os.rename(name, name + "r")
                    os.rename(name + "r", name)
                elif name in mine:
                    os.unlink(name)
                    mine.discard(name)
                else:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL))
                    mine.add(name)
            return rounds

        rounds = together(6, work)
        return f"{sum(rounds[:3])} listings of 3000 names during {sum(rounds[3:])} changes"

    def appenders(self):
        path = f"{self.mnt}/appended"
        os.close(os.open(path, os.O_CREAT))
        seconds = self.seconds / 4

        def work(number):
            rng, end, serial = random.Random(f"{self.seed}/{number}"), time.monotonic() + seconds, 0
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            while time.monotonic() < end:
                line = f"{number} {serial} ".ljust(rng.choice((20, 100, 5000)), "x") + "\n"
                need(os.write(fd, line.encode()) == len(line), "a short append")
                serial += 1
            os.close(fd)
            return serial

        counts = together(PROCESSES, work)
        seen = [0] * PROCESSES
        with open(path) as file:
            for line in file:
                number, serial, rest = line.split(" ", 2)
                need(seen[int(number)] == int(serial), f"process {number}: {serial} instead of {seen[int(number)]}")
                need(rest.strip("x\n") == "", "a torn line")
                seen[int(number)] += 1
        need(seen == counts, f"{seen} lines, {counts} were acknowledged")
        os.unlink(path)
        return f"{sum(counts)} lines"

    def exchanges(self):
        base = f"{self.mnt}/exchanged"
        os.mkdir(base)
        places = [f"{base}/{index}" for index in range(10)]
        for index, place in enumerate(places):
            os.mkdir(place)
            for inside in range(5):
                with open(f"{place}/{inside}", "w") as file:
                    file.write(f"{index}.{inside}")
        seconds = self.seconds / 4

        def work(number):
            rng, end, done = random.Random(f"{self.seed}/{number}"), time.monotonic() + seconds, 0
            while time.monotonic() < end:
                try:
                    if rng.random() < 0.3:
                        rename2(rng.choice(places), rng.choice(places), EXCHANGE)
                    else:
                        one = f"{rng.choice(places)}/{rng.randrange(5)}"
                        rename2(one, f"{rng.choice(places)}/{rng.randrange(5)}", EXCHANGE)
                    done += 1
                except OSError as error:
                    # A directory and what is in it cannot be exchanged; all names are always there.
                    need(error.errno == errno.EINVAL, f"{error}")
            return done

        done = together(PROCESSES, work)
        found = sorted(open(f"{place}/{inside}").read() for place in places for inside in range(5))
        need(found == sorted(f"{i}.{j}" for i in range(10) for j in range(5)), f"{found}")
        survey(base)
        return f"{sum(done)} exchanges"

    def same_name(self):
        """O_EXCL is a lock: one has it at a time, and what it writes is its own."""
        path = f"{self.mnt}/lock"
        seconds = self.seconds / 4

        def work(number):
            end, held, tries = time.monotonic() + seconds, 0, 0
            while time.monotonic() < end:
                tries += 1
                try:
                    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
                except FileExistsError:
                    continue
                mine = f"{number}/{held}".encode()
                os.write(fd, mine)
                need(open(path, "rb").read() == mine, "somebody else's lock")
                need(os.fstat(fd).st_nlink == 1 and os.stat(path).st_ino == os.fstat(fd).st_ino, "it is the one that was made")
                os.unlink(path)
                need(os.fstat(fd).st_nlink == 0, "it is gone")
                os.close(fd)
                held += 1
            return held

        held = together(PROCESSES, work)
        need(not os.path.exists(path), "the last one let go")
        need(min(held) >= 0 and sum(held) > 20, f"{held}")
        return f"{sum(held)} times"

    def replaced(self):
        """rename over a name that is read all the time: there is always one of the versions, whole."""
        path = f"{self.mnt}/replaced"
        body = "v" * 20_000
        with open(path, "w") as file:
            file.write("0.0" + body)
        seconds = self.seconds / 4

        def work(number):
            end, rounds = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                rounds += 1
                if number < 3:
                    with open(f"{path}.{number}", "w") as file:
                        file.write(f"{number}.{rounds}{body}")
                    os.rename(f"{path}.{number}", path)
                else:
                    # The kernel looks the name up and opens what it found, twice. Who replaces it in between both times makes
                    # that ESTALE (dfs/SEMANTICS.md, open).
                    data = None
                    for _ in range(5):
                        try:
                            data = open(path).read()
                            break
                        except OSError as error:
                            need(error.errno == errno.ESTALE, f"{error}")
                    need(data is not None, "ESTALE five times")
                    need(data.endswith(body) and len(data) < len(body) + 12, f"{len(data)} bytes: {data[:20]}")
            return rounds

        rounds = together(PROCESSES, work)
        os.unlink(path)
        return f"{sum(rounds[:3])} versions, {sum(rounds[3:])} reads"

    def sound(self):
        need("panicked" not in self.store.log() and "latched" not in self.store.log(), self.store.log()[-500:])
        self.store.check()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    results = Results("concurrency", options.words)
    store = Store("--size=4G")
    try:
        claims = Concurrency(store, options.seed, 60 if options.long else 16)
        results.run_all(
            ("random_operations_of_many_leave_a_sound_tree", claims.random_operations),
            ("renames_do_not_make_a_loop", claims.loops),
            ("a_listing_has_what_stays_once", claims.readdir),
            ("appends_are_whole_and_in_order", claims.appenders),
            ("exchanges_lose_nothing", claims.exchanges),
            ("one_name_is_made_by_one", claims.same_name),
            ("a_replaced_name_is_always_there", claims.replaced),
            ("the_store_is_sound_afterwards", claims.sound),
        )
    finally:
        store.end()
    results.end()


main()
