"""A program under the library that works until it is killed. usage: mortal.py FILE SEED"""

import os
import random
import sys
import threading

path, chance = sys.argv[1], random.Random(int(sys.argv[2]))


def work():
    flags = [os.O_RDWR | os.O_DIRECT, os.O_WRONLY, os.O_WRONLY | os.O_APPEND]
    while True:
        fd = os.open(path, chance.choice(flags) | os.O_CREAT, 0o644)
        for _ in range(chance.randrange(30)):
            size = chance.choice([1, 100, 5000, 200_000])
            os.pwrite(fd, b"m" * size, chance.randrange(100_000))
            os.write(fd, b"n" * size)
            if os.fstat(fd).st_size > 5_000_000:
                os.truncate(path, 0)
        os.close(fd)


if chance.random() < 0.2:
    os.fork()
for _ in range(chance.randrange(3)):
    threading.Thread(target=work, daemon=True).start()
work()
