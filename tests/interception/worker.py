"""A program under the library: does what it is told, one Python expression or statement per line of its input, and answers with what came of it."""

import ctypes
import json
import mmap  # noqa: F401
import os  # noqa: F401
import sys
import threading  # noqa: F401

libc = ctypes.CDLL(None, use_errno=True)
names = {"os": os, "mmap": mmap, "threading": threading, "ctypes": ctypes}


def raw(number, *arguments):
    """A system call that no hook sees."""
    libc.syscall.restype = ctypes.c_long
    done = libc.syscall(ctypes.c_long(number), *arguments)
    if done < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return done


names["raw"] = raw
for line in sys.stdin:
    text = json.loads(line)
    try:
        try:
            code = compile(text, "told", "eval")
        except SyntaxError:
            exec(compile(text, "told", "exec"), names)
            answer = {"value": None}
        else:
            value = eval(code, names)
            answer = {"value": value.hex() if isinstance(value, (bytes, bytearray)) else value}
    except OSError as error:
        answer = {"errno": error.errno}
    except Exception as error:  # noqa: BLE001 - the test wants to know
        answer = {"failed": repr(error)}
    print(json.dumps(answer), flush=True)
