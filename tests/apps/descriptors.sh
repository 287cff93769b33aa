# One file by many descriptors: threads, subshells, trees of children, exec, spawned programs, a socket; every record is there once, in its place.
# limit: 240
. "$(dirname "$0")/lib.sh"
need python3
cat >"$OUTSIDE/descriptors.py" <<'P'
import fcntl, mmap, os, signal, socket, subprocess, sys, threading

RECORD = 100
rounds = int(sys.argv[1])

def record(who, n):
    return f"{who}:{n}".encode().ljust(RECORD - 1, b".") + b"\n"

def put(fd, who, count, start=0):
    for n in range(start, start + count):
        assert os.write(fd, record(who, n)) == RECORD

def new(name, flags=0):
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o644)

def holds(name, expected):
    """Each record once; those of one writer in their order."""
    data = open(name, "rb").read()
    found = [data[at:at + RECORD] for at in range(0, len(data), RECORD)]
    wanted = [record(who, n) for who, count in expected.items() for n in range(count)]
    assert sorted(found) == sorted(wanted), f"{name}: {len(set(wanted) - set(found))} of {len(wanted)} records are missing, {len(found)} are there"
    for who, count in expected.items():
        mine = [r for r in found if r.startswith(f"{who}:".encode())]
        assert mine == [record(who, n) for n in range(count)], f"{name}: the order of {who}"

def child(function):
    if (pid := os.fork()) == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return pid

def ended(*pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, "a child failed"

def threads():
    fd = new("threads")
    duplicates = [fd, os.dup(fd), fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100), fd]
    workers = [threading.Thread(target=put, args=(duplicates[i], f"t{i}", 200)) for i in range(4)]
    [w.start() for w in workers], [w.join() for w in workers]
    holds("threads", {f"t{i}": 200 for i in range(4)})

def tree():
    fd = new("tree")
    put(fd, "root", 20)
    def grandchild(who): return lambda: put(fd, who, 50)
    def middle(i):
        def run():
            put(fd, f"m{i}", 20)
            pids = [child(grandchild(f"g{i}{j}")) for j in range(2)]
            put(fd, f"m{i}", 20, 20)
            ended(*pids)
        return run
    pids = [child(middle(i)) for i in range(3)]
    put(fd, "root", 50, 20)
    ended(*pids)
    put(fd, "root", 10, 70)
    expected = {"root": 80} | {f"m{i}": 40 for i in range(3)} | {f"g{i}{j}": 50 for i in range(3) for j in range(2)}
    holds("tree", expected)

def threads_and_forks():
    fd = new("both")
    worker = threading.Thread(target=put, args=(fd, "thread", 400))
    worker.start()
    pids = [child(lambda i=i: put(fd, f"c{i}", 30)) for i in range(6)]
    ended(*pids), worker.join()
    holds("both", {"thread": 400} | {f"c{i}": 30 for i in range(6)})

def exec_():
    code = f"import os\nfor n in range(10, 30): os.write({{fd}}, f'e:{{{{n}}}}'.encode().ljust({RECORD - 1}, b'.') + b'\\n')"
    def run():
        fd = new("exec")
        put(fd, "e", 10)
        os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, "-c", code.format(fd=fd)])
    ended(child(run))
    holds("exec", {"e": 30})

def spawned():
    fd = new("spawned")
    for n in range(20):
        put(fd, "own", 5, n * 5)
        line = record("spawned", n).decode().rstrip("\n")
        if n % 2:
            subprocess.run(["echo", line], stdout=fd, check=True)
        else:
            echo = os.posix_spawn("/bin/echo", ["echo", line], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, fd, 1)])
            ended(echo)
    other = new("spawned-other")
    put(other, "o", 10)
    subprocess.run(["true"], check=True)
    put(other, "o", 10, 10)
    holds("spawned", {"own": 100, "spawned": 20})
    holds("spawned-other", {"o": 20})

def socket_():
    here, there = socket.socketpair()
    fd = new("socket")
    put(fd, "a", 10)
    def other():
        _, fds, _, _ = socket.recv_fds(there, 1, 1)
        put(fds[0], "b", 10)
        there.send(b"!")
    pid = child(other)
    socket.send_fds(here, [b"x"], [fd])
    here.recv(1)
    put(fd, "a", 10, 10)
    ended(pid)
    holds("socket", {"a": 20, "b": 10})

def changes():
    """What a descriptor is changes while it is used."""
    fd = new("changes")
    put(fd, "c", 10)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 10 * RECORD == os.fstat(fd).st_size == os.stat("changes").st_size
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    put(fd, "c", 10, 10)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.lseek(fd, 0, os.SEEK_END)
    put(fd, "c", 10, 20)
    holds("changes", {"c": 30})
    os.ftruncate(fd, 5 * RECORD)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 30 * RECORD and os.lseek(fd, 0, os.SEEK_END) == 5 * RECORD
    put(fd, "c", 10, 5)
    holds("changes", {"c": 15})
    # another file by the same number
    os.dup2(new("changes-other"), fd)
    put(fd, "d", 10)
    holds("changes", {"c": 15}), holds("changes-other", {"d": 10})
    os.close(fd)
    again = os.open("changes", os.O_WRONLY)
    os.lseek(again, 15 * RECORD, os.SEEK_SET)
    put(again, "c", 5, 15)
    with open("changes", "rb") as f:
        m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        put(again, "c", 5, 20)
        assert m[19 * RECORD:] == record("c", 19), "a mapping"
    holds("changes", {"c": 25})
    os.rename("changes", "moved"), os.link("moved", "second")
    put(again, "c", 5, 25)
    holds("second", {"c": 30})
    os.unlink("moved"), os.unlink("second")
    put(again, "c", 5, 30)
    assert os.fstat(again).st_size == 35 * RECORD and os.fstat(again).st_nlink == 0

def beside():
    """Two who have the file open by themselves, in turn."""
    open("beside", "wb").close()
    one, two = os.open("beside", os.O_WRONLY), os.open("beside", os.O_RDWR)
    for n in range(40):
        os.pwrite(one if n % 2 else two, record("x", n), n * RECORD)
        assert os.pread(two, RECORD, n * RECORD) == record("x", n)
    holds("beside", {"x": 40})

def killed():
    """A writer that is killed leaves whole records, in order, and no gap."""
    def run():
        fd = new("killed")
        put(fd, "k", 1_000_000)
    pid = child(run)
    while not os.path.exists("killed") or os.stat("killed").st_size < 20 * RECORD:
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    size = os.stat("killed").st_size
    assert size % RECORD == 0
    holds("killed", {"k": size // RECORD})

for _ in range(rounds):
    for test in (threads, tree, threads_and_forks, exec_, spawned, socket_, changes, beside, killed):
        try:
            test()
        except BaseException as error:
            print(f"{test.__name__}: {error!r}")
            raise
        # A file that is still open somewhere is not like new.
        os.closerange(3, 800)
P
python3 "$OUTSIDE/descriptors.py" "$(short_or_long 5 50)"

# the same by shells: one offset for all that a redirection is for
lines() { same "lines of $1" "$(sort -u "$1" | wc -l)" "$2" && same "bytes of $1" "$(stat -c %s "$1")" "$(sort -u "$1" | wc -c)"; }
{
    for i in $(seq 50); do
        echo "builtin $i"
        /bin/echo "program $i"
        (echo "subshell $i")
        : "$(echo "to the same $i" >&4)"
    done
} >braces 4>&1
lines braces 200
exec 5>numbered
for w in 1 2 3 4; do (for i in $(seq 50); do echo "$w $i" >&5; done) & done
for i in $(seq 50); do echo "parent $i" >&5; done
wait
exec 5>&-
lines numbered 250
seq 1000 | tee >(grep 7 >sevens) | while read -r n; do echo "$n"; done >copied
same "a pipeline" "$(cat copied)" "$(seq 1000)"
for _ in $(seq 50); do [ "$(wc -l <sevens)" = 271 ] && break; sleep 0.1; done
same "a process substitution" "$(wc -l <sevens)" 271
(dd bs=100 count=30 status=none && dd bs=100 count=30 status=none) <copied | cmp - <(head -c 6000 copied)
{ dd if=/dev/zero bs=1000 count=20 status=none; echo middle; dd if=/dev/zero bs=1000 count=20 status=none; } >parts
same "parts of one redirection" "$(stat -c %s parts) $(tr -d '\0' <parts)" "40007 middle"
