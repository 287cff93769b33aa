#!/usr/bin/env bash
# Installs what is missing and runs every test; the last line is 'N passed, N failed, N skipped'.
#
# usage: scripts/test.sh [--long] [SUITE...]
#   SUITE   rust, fuzz, apps, kill, posix, full, quota, limits, concurrency, interception, preload (all of these when none is named), lint, soak
#   --long  the long forms: more rounds, larger data, more seeds
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root" || exit 1

long=() suites=()
while [ $# -gt 0 ]; do
    case $1 in
    --long) long=(--long) ;;
    lint | rust | fuzz | apps | kill | posix | full | quota | limits | concurrency | interception | preload | soak) suites+=("$1") ;;
    *) sed -n '4,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ ${#suites[@]} -gt 0 ] || suites=(rust fuzz apps kill posix full quota limits concurrency interception preload)
wanted() { [[ " ${suites[*]} " == *" $1 "* ]]; }

scratch=$(mktemp -d)
export COUNTS=$scratch/counts FAILURES=$scratch/failures
: >"$COUNTS" >"$FAILURES"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
count() { echo "$1 $2 $3" >>"$COUNTS"; }
failure() {
    count 0 1 0
    echo "$1" >>"$FAILURES"
}
tools=$root/target/tools

# A pjdfstest or fsx that is there already is taken as it is.
need_tools() {
    [ -x "$tools/bin/pjdfstest" ] && [ -x "$tools/bin/fsx" ] && return
    step "building pjdfstest and fsx"
    CARGO_TARGET_DIR=$root/target/tools-build cargo install --quiet --locked --root "$tools" pjdfstest@0.2.2 fsx@0.3.2
}

# rust_tests : the tests of the workspace; their counts are the sums of cargo's lines.
rust_tests() {
    local log=$scratch/rust.log
    step "rustfmt"
    if cargo fmt --all --check >"$scratch/fmt" 2>&1; then count 1 0 0; else
        head -n 40 "$scratch/fmt"
        failure "rust: cargo fmt --all --check"
    fi
    step "cargo test --workspace"
    cargo test --workspace --no-fail-fast 2>&1 | tee "$log"
    local code=${PIPESTATUS[0]}
    awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$log" >>"$COUNTS"
    sed -n 's/^test \(.*\) \.\.\. FAILED$/rust: \1/p' "$log" >>"$FAILURES"
    if [ "$code" != 0 ] && ! grep -q '^test .* \.\.\. FAILED$' "$log"; then
        failure "rust: cargo test ended with $code"
    fi
}

# lint : not among the suites that run by themselves, because it compiles everything once more.
lint() {
    step "clippy"
    if cargo clippy --workspace --all-targets --quiet -- -D warnings >"$scratch/clippy" 2>&1; then count 1 0 0; else
        tail -n 60 "$scratch/clippy"
        failure "rust: cargo clippy --workspace --all-targets"
    fi
}

step "what is needed"
need_cargo
packages=(build-essential)
if [ "$(id -u)" = 0 ] && [ -e /dev/fuse ]; then
    packages+=(fuse3 python3 python3-venv fio rsync git sqlite3 postgresql tmux vim acl attr e2fsprogs procps util-linux)
fi
need_packages "${packages[@]}"

if wanted lint; then lint; fi
if wanted rust; then rust_tests; fi
if wanted fuzz; then step "tests/fuzz" && tests/fuzz/run "${long[@]}"; fi

# preload : tests/posix and tests/apps once more, with the programs under libpil4dfs.so; of those that have nothing new to say, only in the long form.
preload() {
    local names=(acl coreutils compile descriptors fio git mmap postgres python rsync sparse sqlite tar) suites=(check pjdfstest fsx)
    [ ${#long[@]} = 0 ] || names=() suites=()
    step "tests/posix --preload"
    tests/posix/run "${long[@]}" --preload "${suites[@]}"
    step "tests/apps --preload"
    tests/apps/run "${long[@]}" --preload "${names[@]}"
}

# mounted SUITE... : those that want a mount; each in its folder below tests.
mounted() {
    local suite names=()
    for suite in "$@"; do ! wanted "$suite" || names+=("$suite"); done
    [ ${#names[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || [ ! -e /dev/fuse ]; then
        count 0 0 1
        echo "skipped: ${names[*]}: they need root and /dev/fuse"
        return
    fi
    step "cargo build --release"
    if ! cargo build --release -p dfuse -p daos-cli -p pil4dfs; then
        failure "cargo build --release"
        return
    fi
    for suite in "${names[@]}"; do
        [ "$suite" = preload ] || step "tests/$suite"
        [[ " posix preload " != *" $suite "* ]] || need_tools
        case $suite in
        preload) preload ;;
        *) "tests/$suite/run" "${long[@]}" ;;
        esac
    done
}
mounted apps kill posix full quota limits concurrency interception preload soak

read -r passed failed skipped < <(awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$COUNTS")
if [ -s "$FAILURES" ]; then
    step "what failed"
    cat "$FAILURES"
fi
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
