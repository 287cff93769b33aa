# What the application tests share. Each test runs in a new directory of its own on the filesystem under test; $OUTSIDE is one
# on another filesystem; $LONG is 1 for the long form. It ends with 0 (good), 77 (skipped, reason on the last line), or fails.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUTSIDE=${OUTSIDE:?run this through tests/apps/run}
LONG=${LONG:-0}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
skip() {
    echo "skipped: $*"
    exit 77
}
need() {
    local name
    for name in "$@"; do command -v "$name" >/dev/null || skip "$name is not installed"; done
}
# same WHAT GOT EXPECTED
same() { [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"; }
# refused COMMAND... : it must fail
refused() { if "$@" >/dev/null 2>&1; then fail "should have been refused: $*"; fi; }
# short_or_long N M : N, or M in the long form
short_or_long() { if [ "$LONG" = 1 ]; then echo "$2"; else echo "$1"; fi; }
# manifest DIR : one line per entry with everything that a faithful copy keeps
manifest() { python3 "$here/manifest.py" "$@"; }
# same_tree A B [manifest option...]
same_tree() {
    local a=$1 b=$2
    shift 2
    manifest "$@" "$a" >"$OUTSIDE/manifest.a"
    manifest "$@" "$b" >"$OUTSIDE/manifest.b"
    diff "$OUTSIDE/manifest.a" "$OUTSIDE/manifest.b" | head -n 20 >&2
    cmp -s "$OUTSIDE/manifest.a" "$OUTSIDE/manifest.b" || fail "$a and $b differ"
}
