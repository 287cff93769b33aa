"""Makes a tree with one or more of every kind of entry, the same for the same seed.

usage: mktree.py DIR [FILES [SEED]]
"""

import os
import random
import socket
import sys

SIZES = [0, 1, 100, 4095, 4096, 4097, 20_000, 70_000, 300_000]


def main():
    root = sys.argv[1]
    files = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    os.makedirs(root)
    os.umask(0)
    dirs = [root]
    while len(dirs) < files // 12:
        path = os.path.join(rng.choice(dirs), f"dir-{len(dirs)}")
        os.mkdir(path, rng.choice([0o755, 0o750, 0o700, 0o1777, 0o2775]))
        dirs.append(path)
    made, links = [], []
    for i in range(files):
        path = os.path.join(rng.choice(dirs), rng.choice(["file-{}", "ein dätei {}", ".hidden{}", "x" * 200 + "{}"]).format(i))
        with open(path, "wb") as f:
            f.write(rng.randbytes(min(rng.choice(SIZES), rng.choice(SIZES))))
        os.chmod(path, rng.choice([0o644, 0o600, 0o755, 0o444, 0o4755]))
        if os.getuid() == 0 and rng.random() < 0.2:
            mode = os.stat(path).st_mode
            os.chown(path, rng.randrange(2000), rng.randrange(2000))
            os.chmod(path, mode & 0o7777)
        made.append(path)
    for i in range(files // 20):
        os.link(rng.choice(made), os.path.join(rng.choice(dirs), f"hard-{i}"))
        links.append(os.path.join(rng.choice(dirs), f"soft-{i}"))
        os.symlink(rng.choice(["../file-1", "nowhere", "/etc/passwd", "x" * 1000]), links[-1])
    os.mkfifo(os.path.join(root, "fifo"))
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(root)
        s.bind("socket")
        os.chdir(here)
    if os.getuid() == 0:
        os.mknod(os.path.join(root, "null"), 0o020666, os.makedev(1, 3))
    with open(os.path.join(root, "sparse"), "wb") as f:
        for at in (0, 1 << 20, 9 << 20):
            f.seek(at)
            f.write(rng.randbytes(5000))
        f.truncate(20 << 20)
    for path in rng.sample(made, files // 20) + rng.sample(dirs, 3):
        try:
            for i in range(rng.randrange(1, 4)):
                os.setxattr(path, f"user.attribute{i}", rng.randbytes(rng.choice([0, 10, 500])))
        except OSError:
            pass  # where the tree is made has none; whoever compares sees it on both sides
    special = [os.path.join(root, name) for name in ("fifo", "socket", "null", "sparse")]
    for path in made + links + special + sorted(dirs, reverse=True):
        if not os.path.lexists(path):
            continue
        t = rng.randrange(10**9, 17 * 10**8) * 10**9 + rng.randrange(10**9)
        os.utime(path, ns=(t, t), follow_symlinks=False)


main()
