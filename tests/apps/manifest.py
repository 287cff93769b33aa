"""Prints a tree as text, one line per entry in byte order: two trees are equal when these are.

usage: manifest.py [--no-owner] [--no-times] [--no-xattrs] [--acls] DIR

Hard links show as the first path of their group. System xattrs (ACLs) are printed with --acls only.
"""

import hashlib
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}


def content(path, st):
    if stat.S_ISREG(st.st_mode):
        digest = hashlib.sha256()
        with open(path, "rb") as f:
            while piece := f.read(1 << 20):
                digest.update(piece)
        return f"{st.st_size} {digest.hexdigest()}"
    if stat.S_ISLNK(st.st_mode):
        return repr(os.readlink(path))
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        return f"{os.major(st.st_rdev)},{os.minor(st.st_rdev)}"
    return ""


def xattrs(path, acls):
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if name.startswith("user.") or acls and name.startswith("system.posix_acl"):
            found.append(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}")
    return " ".join(found)


def main():
    options = {a for a in sys.argv[1:] if a.startswith("--")}
    (root,) = [a for a in sys.argv[1:] if not a.startswith("--")]
    root = os.fsencode(root)
    paths = [root]
    for folder, dirs, files in os.walk(root):
        paths += [os.path.join(folder, name) for name in dirs + files]
    first = {}
    for path in sorted(paths):
        st = os.lstat(path)
        name = os.path.relpath(path, root).decode("utf-8", "backslashreplace")
        fields = [name, KINDS[stat.S_IFMT(st.st_mode)], oct(stat.S_IMODE(st.st_mode))]
        if "--no-owner" not in options:
            fields.append(f"{st.st_uid}:{st.st_gid}")
        if "--no-times" not in options:
            fields.append(str(st.st_mtime_ns))
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            fields.append(f"links={st.st_nlink} as {first.setdefault(st.st_ino, name)}")
        fields.append(content(path, st))
        if "--no-xattrs" not in options:
            fields.append(xattrs(path, "--acls" in options))
        print("\t".join(fields))


main()
