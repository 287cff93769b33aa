# mmap, shared and private: coherent with read and write, across processes, past the end, after truncate.
. "$(dirname "$0")/lib.sh"
need python3
python3 - <<'P'
import mmap, os, signal

PAGE = mmap.PAGESIZE
fd = os.open("file", os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b"a" * (10 * PAGE + 100))
shared = mmap.mmap(fd, 0)
private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
assert shared[:5] == b"aaaaa" and len(shared) == 10 * PAGE + 100

shared[PAGE:PAGE + 4] = b"MAPS"
assert os.pread(fd, 4, PAGE) == b"MAPS", "read does not see a shared mapping's store"
os.pwrite(fd, b"writ", 2 * PAGE)
assert shared[2 * PAGE:2 * PAGE + 4] == b"writ", "a shared mapping does not see a write"
private[3 * PAGE:3 * PAGE + 4] = b"PRIV"
assert os.pread(fd, 4, 3 * PAGE) == b"aaaa", "a private store went to the file"

# another process, another descriptor
if (pid := os.fork()) == 0:
    other = os.open("file", os.O_RDWR)
    m = mmap.mmap(other, 0)
    ok = m[PAGE:PAGE + 4] == b"MAPS"
    m[4 * PAGE:4 * PAGE + 5] = b"child"
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
assert shared[4 * PAGE:4 * PAGE + 5] == b"child" and os.pread(fd, 5, 4 * PAGE) == b"child"

# stores reach the file by msync, by close, and stay after both
shared[5 * PAGE:5 * PAGE + 4] = b"sync"; shared.flush()
shared[6 * PAGE:6 * PAGE + 4] = b"last"; shared.close(); os.close(fd)
with open("file", "rb") as f:
    data = f.read()
assert data[5 * PAGE:5 * PAGE + 4] == b"sync" and data[6 * PAGE:6 * PAGE + 4] == b"last"
assert len(data) == 10 * PAGE + 100

# a mapping outlives its name; beyond the end is SIGBUS; a hole reads zeros and fills
fd = os.open("gone", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 0); os.unlink("gone")
assert m[:PAGE] == bytes(PAGE)
m[500_000:500_007] = b"in hole"; m.flush()
assert os.pread(fd, 7, 500_000) == b"in hole"
os.ftruncate(fd, 3 * PAGE)
if (pid := os.fork()) == 0:
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    m[4 * PAGE]
    os._exit(0)
assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGBUS, "no SIGBUS past the end"
P
