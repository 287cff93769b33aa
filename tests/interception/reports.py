"""What programs and the daemon tell of the door: D_IL_REPORT, the list of programs that are left alone, `daos filesystem query`."""

import json
import os
import re
import subprocess
import sys

from program import LIBRARY, Worker
from store import DAOS, need

NAMES = "read write open stat opendir readdir link unlink rdlink seek mkdir rmdir rename mmap".split()


class Reports:
    def __init__(self, tests):
        self.tests = tests

    def run(self, *command, **environment):
        env = {**os.environ, "LD_PRELOAD": LIBRARY, **environment}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        need(done.returncode == 0, done.stderr)
        return done.stderr

    def text(self):
        """As pil4dfs prints it, character by character."""
        path = self.tests.path()
        said = self.run("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=12", "status=none", D_IL_REPORT="1")
        rows = [f"[{name:7}]  {dict(write=10, open=1).get(name, 0)}\n" for name in NAMES]
        expected = "libpil4dfs intercepting summary for ops on DFS:\n" + "".join(rows[:2]) + "\n" + "".join(rows[2:]) + "\n[op_sum ]  11\n"
        need(said == expected, said)
        for value in ("true", "-1"):
            need("[op_sum ]  0\n" in self.run("true", D_IL_REPORT=value), value)
        need(self.run("true", D_IL_REPORT="0") == self.run("true") == "", "nobody asked")

    def json(self):
        """A line for each process, also of one that has closed standard error, of a child, and of one that leaves by _exit."""
        path, report = self.tests.path(), os.path.join(self.tests.store.base, "report")
        environment = {"D_IL_REPORT": f"json:{report}"}
        self.run("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=12", "status=none", **environment)
        script = f"""
import os
os.close(2); os.close(1)
def use(writes):
    fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT)
    for n in range(writes): os.pwrite(fd, b'x', n)
    os.pread(fd, 1, 0)
use(5)
pid = os.fork()
if pid == 0:
    use(7)
    os._exit(0)
os.waitpid(pid, 0)
use(3)
os._exit(0)
"""
        self.run(sys.executable, "-c", script, **environment)
        with open(report) as file:
            lines = [json.loads(line) for line in file]
        need(len({line["pid"] for line in lines}) == 3, f"{lines}")
        need([line["program"] for line in lines] == ["dd"] + 2 * [os.path.basename(sys.executable)], f"{lines}")
        need([list(line) for line in lines] == 3 * [["pid", "program", *NAMES, "op_sum"]], f"{lines}")
        found = [(line["read"], line["write"], line["open"], line["op_sum"]) for line in lines]
        need(found == [(0, 10, 1, 11), (1, 7, 1, 9), (2, 8, 2, 12)], f"{found}")

    def bypassed(self):
        """Programs in the list never come to the door and say nothing."""
        def calls(program, **environment):
            before = self.tests.calls()
            said = self.run(program, "if=/dev/zero", f"of={self.tests.path()}", "bs=4k", "count=12", "status=none", D_IL_REPORT="1", **environment)
            return self.tests.calls() - before, "op_sum" in said
        need(calls("dd", D_IL_BYPASS_LIST="ls:dd:cp") == (0, False), "it is in the list")
        need(calls("/bin/dd", D_IL_BYPASS_LIST="dd") == (0, False), "also with its directory")
        need(calls("dd", D_IL_BYPASS_LIST="ddx:d:/bin/dd") == (10, True), "it is not in the list")
        need(calls("dd", D_IL_BYPASS_LIST="dd", D_IL_NO_BYPASS="1") == (10, True), "nobody looks at the list")
        need(calls("dd", D_IL_COMPATIBLE="1") == (10, True), "it always is")

    def query(self):
        """The daemon tells how often, and how long, by operation."""
        path = self.tests.path()
        before = self.tests.door()
        with Worker() as worker:
            worker.do(f"fd = os.open({path!r}, os.O_RDWR | os.O_DIRECT | os.O_CREAT, 0o644)")
            worker.do("[os.pwrite(fd, b'x' * 100, n) for n in range(40)] and [os.pread(fd, 10, n) for n in range(30)] and None")
            worker.do(f"fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND); [os.write(fd, b'x') for n in range(20)] and None")
            door = self.tests.door()
            need(door["clients"] == before["clients"] + 1 and door["files"] == before["files"] + 1, f"{door}")
        def more(operation):
            was = before["operations"].get(operation, {"count": 0})
            return door["operations"][operation]["count"] - was["count"]
        need([more(operation) for operation in ("write", "read", "append")] == [40, 30, 20], f"{door}")
        need(sum(operation["count"] for operation in door["operations"].values()) == door["calls"], f"{door}")
        for latency in door["operations"].values():
            need(500 < latency["p50_ns"] <= latency["p99_ns"] <= latency["max_ns"] < 60 * 10**9, f"{latency}")
        text = subprocess.run([DAOS, "filesystem", "query", "--embedded", self.tests.store.path], capture_output=True, text=True, timeout=60).stdout
        row = re.search(r"^append +(\d+) +([\d.]+) us +([\d.]+) us +([\d.]+) us$", text, re.MULTILINE)
        need(row and int(row[1]) == door["operations"]["append"]["count"], text)


def claims(tests):
    reports = Reports(tests)
    yield "the report is pil4dfs's", reports.text
    yield "the report in JSON has every process", reports.json
    yield "programs in the bypass list are left alone", reports.bypassed
    yield "the daemon tells calls and latencies", reports.query
