"""Compares results with the list of expected failures.

usage: judge.py RESULTS EXPECTED        RESULTS: suite::name, ok / FAILED / skipped, reason, separated by tabs
Prints what differs and, last, 'N passed, N failed, N skipped'; names of failures go to the file $FAILURES.
"""

import os
import sys


def main():
    expected = {}
    for line in open(sys.argv[2]):
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.strip().partition(" ")
            expected[name] = reason.strip()
    results = [line.rstrip("\n").split("\t", 2) for line in open(sys.argv[1])]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures, known, mended = [], 0, []
    for name, status, reason in results:
        if status == "ok":
            counts["passed"] += 1
            if name in expected:
                mended.append(name)
        elif status == "skipped":
            counts["skipped"] += 1
            print(f"skipped: {name}: {reason}")
        elif name in expected:
            known += 1
        else:
            counts["failed"] += 1
            failures.append(name)
            print(f"FAILED  {name}\n        | {reason}")
    gone = sorted(set(expected) - {name for name, _, _ in results})
    for name in mended:
        print(f"passes now, take it off tests/posix/expected.txt: {name}")
    for name in gone:
        print(f"was not run, though tests/posix/expected.txt names it: {name}")
    if known:
        print(f"{known} failed as tests/posix/expected.txt expects")
        counts["skipped"] += known
    if "FAILURES" in os.environ:
        with open(os.environ["FAILURES"], "a") as f:
            f.writelines(f"posix: {name}\n" for name in failures)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(1 if failures else 0)


main()
