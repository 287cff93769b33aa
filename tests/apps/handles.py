"""File handles as NFS servers use them. handles.py take FILE PATH...: writes them to FILE; handles.py open FILE MOUNT: opens each in
turn and prints, one line each, the number of the inode and what is in it, or the error's name."""

import ctypes
import errno
import os
import pickle
import struct
import sys

AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def called(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def take(path):
    handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
    called("name_to_handle_at", AT_FDCWD, path.encode(), handle, ctypes.byref(mount), 0)
    return handle.raw


def shown(handle, top):
    try:
        fd = called("open_by_handle_at", top, ctypes.create_string_buffer(handle, len(handle)), os.O_RDONLY)
    except OSError as error:
        return errno.errorcode[error.errno]
    number = os.fstat(fd).st_ino
    try:
        return f"{number} {os.read(fd, 100).decode().strip()}"
    except IsADirectoryError:
        return f"{number} {' '.join(sorted(os.listdir(fd)))}"
    finally:
        os.close(fd)


what, file, *paths = sys.argv[1:]
if what == "take":
    with open(file, "wb") as out:
        pickle.dump([take(path) for path in paths], out)
else:
    top = os.open(paths[0], os.O_RDONLY)
    with open(file, "rb") as kept:
        for handle in pickle.load(kept):
            print(shown(handle, top))
