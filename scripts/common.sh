# What the scripts share: where things are, how they speak, what they install. Source it; it does nothing by itself.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=${CARGO_TARGET_DIR:-$root/target}/release
rust_min=1.88

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# as_root COMMAND... : with sudo where we are not root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# need_packages NAME... : installs the Debian packages that are missing, and nothing when none is.
need_packages() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install: ${missing[*]} (no apt-get here to do it with)"
    say "installing ${missing[*]}"
    as_root apt-get update -q >/dev/null || die "apt-get update failed"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install: ${missing[*]}"
}

# need_cargo : a Rust toolchain that is new enough. Debian's is taken when there is none and it is new enough.
need_cargo() {
    [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    if ! command -v cargo >/dev/null; then
        local candidate=''
        candidate=$(apt-cache policy cargo 2>/dev/null | sed -n 's/ *Candidate: *//p') || true
        if version_at_least "${candidate:-0}" "$rust_min"; then
            need_packages cargo
        else
            die "no cargo here, and Debian's (${candidate:-none}) is older than $rust_min: install Rust from https://rustup.rs, then run this again"
        fi
    fi
    local have
    have=$(cargo --version | cut -d' ' -f2)
    version_at_least "$have" "$rust_min" ||
        die "cargo $have is too old, $rust_min or newer is needed: run 'rustup update', then this again"
}
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# is_mounted DIR : true also for a FUSE mount whose daemon is gone (stat fails there, the mount table knows).
is_mounted() { awk -v dir="$1" '$2 == dir { found = 1 } END { exit !found }' /proc/self/mounts; }

# is_alive DIR : mounted, and it answers. The kernel answers a plain stat from its cache, even for the dead; not this one.
is_alive() { is_mounted "$1" && timeout 10 stat -f "$1" >/dev/null 2>&1; }

# door_calls DIR : calls of programs under libpil4dfs.so that came past FUSE to the dfuse mounted at DIR, since it is mounted.
door_calls() { LD_PRELOAD='' "$release/daos" filesystem query "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["response"]["door"]["calls"])'; }
