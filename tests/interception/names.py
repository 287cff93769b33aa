"""Names that are changed past the kernel: whoever looks finds what is there, and nobody may more than through the kernel."""

import contextlib
import ctypes
import errno
import os
import random
import shutil
import subprocess
import tempfile

from program import LIBRARY, Worker
from store import need

# Calls in a directory before a program enters it (PATIENCE of interception/src/names.rs), and some.
ENTERING = 6
libc = ctypes.CDLL(None, use_errno=True)


def enter(worker, directory):
    """The worker changes names in this directory until it does so at the door."""
    worker.do(f"[(os.mkdir({directory!r} + '/enter'), os.rmdir({directory!r} + '/enter')) for n in range({ENTERING})]")


def failed(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


class Names:
    def __init__(self, store, calls, prefix="names"):
        self.store, self.calls, self.prefix = store, calls, prefix
        self.number = 0

    def directory(self, mode=0o755):
        os.chmod(self.store.base, 0o755)
        self.number += 1
        path = f"{self.store.mnt}/{self.prefix}{self.number}"
        os.mkdir(path)
        os.chmod(path, mode)
        return path

    def by_door(self, worker, text, calls=1):
        """Does it, and sees that the door did."""
        before = self.calls()
        value = worker.do(text)
        need(self.calls() - before == calls, f"{text}: {self.calls() - before} calls of the door, not {calls}")
        return value

    def both_ways(self, script):
        """The lines that a script prints under the library, given `a`, and without it, given `b`; and the calls at the door."""
        outputs, before = [], self.calls()
        for sub in "ab":
            env = {**os.environ, **({"LD_PRELOAD": LIBRARY} if sub == "a" else {})}
            done = subprocess.run(["python3", "-c", script, sub], env=env, capture_output=True, text=True, timeout=120)
            need(done.returncode == 0, done.stderr)
            outputs.append(done.stdout.splitlines())
        return outputs, self.calls() - before

    def seen(self):
        """What one changes, others see at once, whatever the kernel kept: names that were there, and names that were not."""
        d = self.directory()
        with Worker() as worker:
            enter(worker, d)
            for n in range(20):
                a, b = f"{d}/a{n}", f"{d}/b{n}"
                open(a, "w").write("text")
                need(os.stat(a).st_nlink == 1 and not os.path.exists(b), "before")
                held = os.open(a, os.O_RDONLY)
                self.by_door(worker, f"os.link({a!r}, {b!r})")
                need(os.stat(a).st_nlink == os.fstat(held).st_nlink == 2, "two names")
                need(os.stat(b).st_ino == os.fstat(held).st_ino, "one file")
                self.by_door(worker, f"os.unlink({a!r})")
                need(not os.path.lexists(a) and os.fstat(held).st_nlink == 1, "the first is gone")
                time_before = os.fstat(held).st_ctime_ns
                self.by_door(worker, f"os.rename({b!r}, {a!r})")
                need(not os.path.lexists(b) and os.stat(a).st_ino == os.fstat(held).st_ino, "it has moved")
                need(os.fstat(held).st_ctime_ns > time_before, "the time of that")
                open(b, "w").write("other")
                other = os.open(b, os.O_RDONLY)
                self.by_door(worker, f"os.rename({a!r}, {b!r})")
                need(os.fstat(other).st_nlink == 0 and open(b).read() == "text", "it has replaced another")
                self.by_door(worker, f"os.unlink({b!r})")
                need(os.fstat(held).st_nlink == 0 and os.pread(held, 9, 0) == b"text", "it lives on without a name")
                need(os.listdir(d) == [], "a listing")
                self.by_door(worker, f"os.mkdir({a!r}, 0o750)")
                need(os.stat(d).st_nlink == 3 and os.stat(a).st_mode & 0o7777 == 0o750, "a directory")
                open(f"{a}/inside", "w").close()
                need(failed(lambda: worker.do(f"os.rmdir({a!r})")) == errno.ENOTEMPTY, "not empty")
                os.unlink(f"{a}/inside")
                inside, mtime = os.open(a, os.O_RDONLY | os.O_DIRECTORY), os.stat(d).st_mtime_ns
                self.by_door(worker, f"os.rmdir({a!r})")
                need(os.stat(d).st_nlink == 2 and os.stat(d).st_mtime_ns > mtime, "its parent")
                os.mkdir(b)
                need(worker.do(f"ctypes.CDLL(None).remove({b.encode()!r})") == 0 and not os.path.lexists(b), "remove(3) of a directory")
                need(os.fstat(inside).st_nlink == 0 and failed(lambda: open(f"/proc/self/fd/{inside}/x", "w")) == errno.ENOENT, "a removed directory")
                need(not os.path.lexists(b), "nothing there")
                self.by_door(worker, f"os.symlink('some/where', {b!r})")
                need(os.readlink(b) == "some/where" and os.listdir(d) == [f"b{n}"], "a symlink")
                self.by_door(worker, f"os.remove({b!r})")
                for fd in (held, other, inside):
                    os.close(fd)
            need(os.listdir(d) == [], "nothing is left")

    def by_descriptors(self):
        """By descriptors of directories, from the working directory, and between two directories."""
        d, e = self.directory(), self.directory()
        with Worker() as worker:
            enter(worker, d)
            enter(worker, e)
            worker.do(f"d, e, p = os.open({d!r}, os.O_RDONLY), os.open({e!r}, os.O_RDONLY), os.open({os.path.dirname(d)!r}, os.O_PATH)")
            name = os.path.basename(d)
            self.by_door(worker, "os.mkdir('x', dir_fd=d)")
            self.by_door(worker, f"os.mkdir('{name}/y', dir_fd=p)")
            self.by_door(worker, "os.rmdir('x', dir_fd=d)")
            open(f"{d}/f", "w").close()
            self.by_door(worker, "os.rename('f', 'g', src_dir_fd=d, dst_dir_fd=e)")
            self.by_door(worker, "os.link('g', 'f', src_dir_fd=e, dst_dir_fd=d)")
            self.by_door(worker, "os.unlink('g', dir_fd=e)")
            worker.do(f"os.chdir({d!r})")
            self.by_door(worker, "os.symlink('f', 's')")
            self.by_door(worker, "os.unlink('s')")
            self.by_door(worker, "os.rmdir('./y')")
            need(os.listdir(d) == ["f"] and os.listdir(e) == [], "what is left")

    def errors(self):
        """Every mistake has the kernel's error, and changes nothing."""
        outside = tempfile.mkdtemp(prefix="names-")
        try:
            found, before = {}, self.calls()
            for where in (self.directory(), outside):
                for make in ("f", "g"):
                    open(f"{where}/{make}", "w").close()
                os.makedirs(f"{where}/d/inside")
                os.mkdir(f"{where}/empty")
                os.symlink("f", f"{where}/s")
                os.symlink("d", f"{where}/sd")
                os.symlink("loop", f"{where}/loop")
                names = ["f", "none", "d", "empty", "s", "sd", "loop", "f/x", "none/x", "d/.", "d/..", ".", "..", "", "d/", "f/", "empty/", "none/", "loop/x", "n" * 255, "n" * 256, "d/" * 2040 + "x", "sd/inside", "s/x"]
                with Worker() as worker:
                    enter(worker, where)
                    enter(worker, f"{where}/d")
                    worker.do(f"os.chdir({where!r})")
                    worker.do("def code(call, *arguments):\n    try: call(*arguments)\n    except OSError as e: return e.errno\n    return 0\n")
                    got = {}
                    for name in names:
                        for call in ("os.unlink", "os.rmdir", "os.mkdir"):
                            if call == "os.mkdir" or name in ("d", "sd/inside", "f", "none", "f/x", "none/x", ".", "..", "", "d/.", "d/..", "f/", "none/", "loop/x", "n" * 256, "s/x") and not (call == "os.unlink" and name == "f"):
                                got[call, name] = worker.do(f"code({call}, {name!r})")
                            if call == "os.mkdir" and got[call, name] == 0:
                                os.rmdir(f"{where}/{name}")
                        got["symlink", name] = worker.do(f"code(os.symlink, 'target', {name!r})")
                        if got["symlink", name] == 0:
                            os.unlink(f"{where}/{name.rstrip('/')}")
                        for other in ("f", "d", "none", "empty", "", ".", "d/inside", "none/x", "f/x", "n" * 256):
                            done = got["link", name, other] = worker.do(f"code(os.link, {name!r}, {other!r})")
                            if done == 0 and name != other:
                                os.unlink(f"{where}/{other}")
                        for other in ("d", "d/x/y", "", ".", "none/x", "f/x", "n" * 256, "d/inside/x"):
                            if (name, other) != ("empty", "d/inside/x"):
                                done = got["rename", name, other] = worker.do(f"code(os.rename, {name!r}, {other!r})")
                                if done == 0 and os.path.lexists(f"{where}/{other}") and not os.path.lexists(f"{where}/{name}"):
                                    os.rename(f"{where}/{other}", f"{where}/{name.rstrip('/')}")
                    got["empty target"] = worker.do("code(os.symlink, '', 'new')")
                    got["long target"] = worker.do(f"code(os.symlink, 't' * 4096, 'new')")
                    got["null"] = worker.do("ctypes.CDLL(None).unlink(None)")
                    os.makedirs(f"{where}/p/q")
                    enter(worker, f"{where}/p/q")
                    open(f"{where}/p/q/file", "w").close()
                    for above in ("p", "p/q", "."):
                        got["above", above] = worker.do(f"code(os.rename, 'p/q/file', {above!r})")
                    got["far"] = worker.do("code(os.rename, 'f', '/dev/shm/daosfs-far')")
                    got["what is left"] = sorted(os.listdir(where))
                found[where] = got
            mine, kernels = found.values()
            wrong = {what: (mine[what], kernels[what]) for what in kernels if mine[what] != kernels[what]}
            need(self.calls() - before > 50, "the door was not asked")
            need(not wrong, f"not as elsewhere (mine, elsewhere): {dict(list(wrong.items())[:8])}")
        finally:
            shutil.rmtree(outside)

    def permissions(self):
        """As who you are: modes, groups, sticky directories, access control lists; the same as without the library."""
        d = self.directory(0o777)
        me, mine = 4711, 815
        cases = [
            (mode, owner, group, acl)
            for mode in (0o755, 0o775, 0o777, 0o1777, 0o700, 0o070, 0o007, 0o1775, 0o333, 0o555, 0o2775)
            for owner, group in ((me, mine), (0, mine), (0, 900), (0, 0), (me, 0))
            for acl in (None, f"u:{me}:rwx", f"u:{me}:---")
        ]
        for number, (mode, owner, group, acl) in enumerate(cases):
            path = f"{d}/{number}"
            for sub in ("/a", "/b"):
                os.makedirs(path + sub)
                for name, of in (("mine", me), ("theirs", 0)):
                    open(f"{path}{sub}/{name}", "w").close()
                    os.chown(f"{path}{sub}/{name}", of, of)
                os.chown(path + sub, owner, group)
                os.chmod(path + sub, mode)
                if acl:
                    subprocess.run(["setfacl", "-m", acl, path + sub], check=True)
        script = (
            "import os, sys\nos.setgroups([900]); os.setgid(815); os.setuid(4711)\n"
            "def code(call, *a):\n    try: call(*a)\n    except OSError as e: return e.errno\n    return 0\n"
            f"for n in range({len(cases)}):\n    p = {d!r} + f'/{{n}}/' + sys.argv[1]\n"
            "    out = [code(os.mkdir, p + f'/w{i}') for i in range(6)] + [code(os.rmdir, p + f'/w{i}') for i in range(6)]\n"
            "    out += [code(os.rename, p + '/mine', p + '/m2'), code(os.rename, p + '/theirs', p + '/t2'), code(os.link, p + '/m2', p + '/m3'), code(os.link, p + '/t2', p + '/t3')]\n"
            "    out += [code(os.unlink, p + '/' + x) for x in ('m2', 't2', 'm3', 't3', 'mine', 'theirs')] + [code(os.mkdir, p + '/new', 0o777), code(os.symlink, 'x', p + '/link')]\n"
            "    s = [os.lstat(p + x) for x in ('/new', '/link') if os.path.lexists(p + x)]\n"
            "    print(n, *out, *[(oct(x.st_mode), x.st_uid, x.st_gid) for x in s])\n"
        )
        outputs, used = self.both_ways(script)
        wrong = [(cases[n], *both) for n, both in enumerate(zip(*outputs)) if both[0] != both[1]]
        need(not wrong and len(outputs[0]) == len(cases), f"not as without: {wrong[:3]}")
        need(used > len(cases), f"only {used} calls came to the door")

    def another_user(self):
        """A thread that is somebody else now, by whatever way, makes what is his, and may what he may."""
        d = self.directory(0o777)
        with Worker() as worker:
            enter(worker, d)
            self.by_door(worker, f"os.mkdir({d!r} + '/root')")
            worker.do(f"raw(122, 4711)")  # setfsuid, which no hook sees
            worker.do(f"os.mkdir({d!r} + '/his'); os.symlink('x', {d!r} + '/link')")
            need(os.stat(f"{d}/his").st_uid == os.lstat(f"{d}/link").st_uid == 4711, "whose it is")
            os.chmod(d, 0o755)
            need(failed(lambda: worker.do(f"os.rmdir({d!r} + '/root')")) == errno.EACCES, "he may not")
            worker.do("raw(122, 0)")
            self.by_door(worker, f"os.rmdir({d!r} + '/root')")
            worker.do("os.setegid(900)")
            worker.do(f"os.mkdir({d!r} + '/group')")
            need(os.stat(f"{d}/group").st_gid == 900, "whose group")

    def modes(self):
        """The umask of the moment, set-gid directories, default lists."""
        d, g, a = self.directory(), self.directory(0o2775), self.directory()
        os.chown(g, 0, 900)
        subprocess.run(["setfacl", "-d", "-m", "u:4711:rwx,g::rx,o::-", a], check=True)
        with Worker() as worker:
            for path in (d, g, a):
                enter(worker, path)
            for umask in (0o022, 0o077, 0, 0o027):
                worker.do(f"raw(95, {umask})")
                for mode in (0o777, 0o750, 0o1777, 0o6755):
                    modes = []
                    for path in (d, g, a):
                        worker.do(f"os.mkdir({path!r} + '/new', {mode})")
                        os.umask(umask)
                        os.mkdir(f"{path}/kernel", mode)
                        os.umask(0o022)
                        modes.append([(os.stat(f"{path}/{name}").st_mode, os.stat(f"{path}/{name}").st_gid) for name in ("new", "kernel")])
                        acls = [subprocess.run(["getfacl", "-cp", f"{path}/{name}"], capture_output=True, text=True).stdout for name in ("new", "kernel")]
                        need(acls[0] == acls[1], f"{acls}")
                        for name in ("new", "kernel"):
                            os.rmdir(f"{path}/{name}")
                    need(all(new == kernel for new, kernel in modes), f"{umask:o} {mode:o}: {modes}")

    @contextlib.contextmanager
    def mounted(self, *arguments):
        subprocess.run(["mount", *arguments], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", arguments[-1]], check=True)

    def mountpoints(self):
        """What something is mounted on stays, and a mount that is made read-only is not written to."""
        d = self.directory()
        os.mkdir(f"{d}/point")
        for name in ("file", "over"):
            open(f"{d}/{name}", "w").close()
        with Worker() as worker:
            enter(worker, d)
            with self.mounted("-t", "tmpfs", "none", f"{d}/point"):
                need(failed(lambda: worker.do(f"os.rmdir({d!r} + '/point')")) == errno.EBUSY, "a directory")
            with self.mounted("--bind", "/etc/passwd", f"{d}/file"):
                for call in (f"os.unlink({d!r} + '/file')", f"os.rename({d!r} + '/over', {d!r} + '/file')", f"os.rename({d!r} + '/file', {d!r} + '/new')"):
                    need(failed(lambda: worker.do(call)) == errno.EBUSY, call)
            self.by_door(worker, f"os.rmdir({d!r} + '/point')")
            subprocess.run(["mount", "-i", "-o", "remount,ro", self.store.mnt], check=True)
            try:
                need(failed(lambda: worker.do(f"os.unlink({d!r} + '/file')")) == errno.EROFS, "read-only")
            finally:
                subprocess.run(["mount", "-i", "-o", "remount,rw", self.store.mnt], check=True)
            self.by_door(worker, f"os.unlink({d!r} + '/file')")
            os.mkdir(f"{d}/view")
            with self.mounted("--bind", d, f"{d}/view"):
                subprocess.run(["mount", "-i", "-o", "remount,bind,ro", f"{d}/view"], check=True)
                need(failed(lambda: worker.do(f"os.unlink({d!r} + '/view/over')")) == errno.EROFS, "a read-only view")
            worker.do(f"os.unlink({d!r} + '/over')")
            # In a table of its own, and with one that no hook sees.
            os.mkdir(f"{d}/point")
            worker.do("raw(272, 0x20000)")
            private = f"raw(165, b'none', b'/', None, {0x40000 | 0x4000}, None), raw(165, b'none', {d.encode()!r} + b'/point', b'tmpfs', 0, None)"
            worker.do(private)
            need(failed(lambda: worker.do(f"os.rmdir({d!r} + '/point')")) == errno.EBUSY, "mounted in a namespace of its own")
            need(os.path.isdir(f"{d}/point"), "it stays")

    def model(self):
        """Two programs under the library and one without, in turns, in one tree: it is what a model says, whoever looks."""
        seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        rng = random.Random(seed)
        d = self.directory()
        directories = ["", "/x", "/y"]
        for sub in directories[1:]:
            os.mkdir(d + sub)
        model, modes, before = {sub: {} for sub in directories}, {}, self.calls()
        with Worker() as one, Worker() as other:
            doers = [lambda text: one.do(text), lambda text: other.do(text), lambda text: eval(text, {"os": os})]
            looks = [lambda text: one.do(text), lambda text: other.do(text), lambda text: eval(text, {"os": os})]
            try:
                for step in range(1500):
                    do, look = rng.choice(doers), rng.choice(looks)
                    sub, to = rng.choice(directories), rng.choice(directories)
                    name, new = (f"{rng.choice('abcde')}" for _ in range(2))
                    path, target = f"{d}{sub}/{name}", f"{d}{to}/{new}"
                    kind = rng.choice(["file", "unlink", "mkdir", "rmdir", "rename", "link", "symlink", "chmod"])
                    here, there = model[sub], model[to]
                    expected = 0
                    if kind in ("file", "mkdir", "symlink"):
                        call = {"file": f"os.close(os.open({path!r}, os.O_CREAT | os.O_EXCL | os.O_WRONLY))", "mkdir": f"os.mkdir({path!r})", "symlink": f"os.symlink('t', {path!r})"}[kind]
                        expected = errno.EEXIST if name in here else 0
                        if not expected:
                            here[name] = (kind, step)
                    elif kind in ("unlink", "rmdir"):
                        call = f"os.{kind}({path!r})"
                        is_directory = here.get(name, ("none",))[0] == "mkdir"
                        if name not in here:
                            expected = errno.ENOENT
                        elif is_directory != (kind == "rmdir"):
                            expected = errno.EISDIR if is_directory else errno.ENOTDIR
                        else:
                            del here[name]
                    elif kind == "chmod":
                        mode = rng.choice([0o700, 0o751, 0o4755, 0o604])
                        call = f"os.chmod({path!r}, {mode})"
                        # A symlink of these leads nowhere.
                        if here.get(name, ("symlink",))[0] == "symlink":
                            expected = errno.ENOENT
                        else:
                            modes[here[name][1]] = mode
                    elif kind == "link":
                        call = f"os.link({path!r}, {target!r}, follow_symlinks=False)"
                        if name not in here:
                            expected = errno.ENOENT
                        elif new in there:
                            expected = errno.EEXIST
                        elif here[name][0] == "mkdir":
                            expected = errno.EPERM
                        else:
                            there[new] = here[name]
                    else:
                        call = f"os.rename({path!r}, {target!r})"
                        if name not in here:
                            expected = errno.ENOENT
                        elif new in there and here[name] == there[new]:
                            pass
                        elif new in there and (here[name][0] == "mkdir") != (there[new][0] == "mkdir"):
                            expected = errno.ENOTDIR if here[name][0] == "mkdir" else errno.EISDIR
                        else:
                            there[new] = here.pop(name)
                    got = failed(lambda: do(call))
                    need(got == expected, f"step {step}, {call}: {errno.errorcode.get(got, got)}, not {errno.errorcode.get(expected, expected)}")
                    seen = sorted(set(look(f"os.listdir({d + sub!r})")) - {"x", "y"})
                    need(seen == sorted(here), f"step {step}, after {call}: {seen}, not {sorted(here)}")
                    for name, (what, made) in here.items():
                        links = sum(made == other for names in model.values() for _, other in names.values())
                        st_mode, _, _, st_nlink = look(f"list(os.lstat({d + sub + '/' + name!r})[:4])")
                        need(st_mode & 0o7777 == modes.get(made, st_mode & 0o7777), f"step {step}, after {call}: {name} has mode {st_mode:o}")
                        need(st_nlink == (2 if what == "mkdir" else links), f"step {step}, after {call}: {name} has {st_nlink} links")
                need(self.calls() - before > 300, f"only {self.calls() - before} calls came to the door")
            except AssertionError as failure:
                raise AssertionError(f"{failure} (again: SEED={seed} tests/interception/run model)") from failure

    def together(self):
        """Four programs take and leave the same names in the same directories as fast as they can; then everything is as it should."""
        d = self.directory()
        script = (
            "import os, random, sys\nr = random.Random(int(sys.argv[1])); d = sys.argv[2]\n"
            "for n in range(1500):\n    a, b = (f'{d}/{r.randrange(3)}/{r.randrange(8)}' for _ in range(2))\n"
            "    try: r.choice([lambda: os.mkdir(a), lambda: os.rmdir(a), lambda: os.unlink(a), lambda: os.rename(a, b), lambda: os.link(a, b), lambda: os.symlink(a, b), lambda: open(a, 'w').close(), lambda: os.listdir(d + '/0'), lambda: os.stat(a), lambda: os.chmod(a, 0o700 + n % 64), lambda: os.setxattr(a, 'user.n', b'%d' % n), lambda: os.listxattr(a), lambda: os.utime(a)])()\n"
            "    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError): pass\n"
            "    except OSError as e:\n        if e.errno not in (39, 40, 22): raise\n"
        )
        for n in range(3):
            os.mkdir(f"{d}/{n}")
        programs = []
        for number in range(4):
            env = {**os.environ, **({"LD_PRELOAD": LIBRARY} if number < 3 else {})}
            programs.append(subprocess.Popen(["python3", "-c", script, str(random.randrange(1 << 30)), d], env=env, stderr=subprocess.PIPE, text=True))
        for program in programs:
            _, error = program.communicate(timeout=120)
            need(program.returncode == 0, f"{error}; the log ends: {self.store.log()[-2000:]}")
        shown = {}
        for n in range(3):
            for name in os.listdir(f"{d}/{n}"):
                found = os.lstat(f"{d}/{n}/{name}")
                shown[f"{n}/{name}"] = (found.st_ino, found.st_mode, found.st_nlink)
        self.store.again()
        for path, expected in shown.items():
            found = os.lstat(f"{d}/{path}")
            need((found.st_ino, found.st_mode, found.st_nlink) == expected, f"{path}: {expected} before, {found} after a remount")
        need(sum(len(os.listdir(f"{d}/{n}")) for n in range(3)) == len(shown), "names")
        for n in range(3):
            need(os.stat(f"{d}/{n}").st_nlink == 2 + sum(os.path.isdir(f"{d}/{n}/{x}") and not os.path.islink(f"{d}/{n}/{x}") for x in os.listdir(f"{d}/{n}")), "links of a directory")


def claims(tests):
    names = Names(tests.store, tests.calls)
    return (
        ("what is changed past the kernel is seen by all", names.seen),
        ("names by descriptors and from the working directory", names.by_descriptors),
        ("mistakes with names have the kernel's errors", names.errors),
        ("names are changed by whom the kernel would let", names.permissions),
        ("a thread that is another user is that user", names.another_user),
        ("what is made has the mode that the kernel would give it", names.modes),
        ("mountpoints stay and read-only is read-only", names.mountpoints),
        ("names of several programs equal a model", names.model),
        ("names under contention are what a remount shows", names.together),
    )
