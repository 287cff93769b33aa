"""Programs under libpil4dfs.so that do what a test tells them."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from store import RELEASE, need  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.join(RELEASE, "libpil4dfs.so")


class Worker:
    """A Python under the library that does what it is told."""

    def __init__(self, **environment):
        env = {**os.environ, "LD_PRELOAD": LIBRARY, **environment}
        command = [sys.executable, os.path.join(HERE, "worker.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(20)

    def tell(self, text):
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()

    def hear(self):
        answer = json.loads(self.process.stdout.readline() or '{"failed": "it has ended"}')
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        need("failed" not in answer, answer.get("failed"))
        return answer["value"]

    def do(self, text):
        self.tell(text)
        return self.hear()

    def bytes(self, text):
        return bytes.fromhex(self.do(text))
