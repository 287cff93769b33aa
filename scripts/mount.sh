#!/usr/bin/env bash
# Mounts a filesystem for the tests, so that each can be tried on one that is known to be good.
#
# usage: scripts/mount.sh up STATE [KIND [dfuse option...]]   KIND: dfuse (default), ext4, tmpfs, null, or an existing directory
#        scripts/mount.sh again STATE     unmount and mount the same store
#        scripts/mount.sh kill STATE      kill -9 the daemon (nothing to kill on the others) and clear its dead mount
#        scripts/mount.sh down STATE      unmount; the store stays
#        scripts/mount.sh alive STATE     true when it answers
#        scripts/mount.sh check STATE     unmount and verify the store
#
# STATE is a directory: mnt (the mount point), store or image, kind, options, pid and log of the daemon.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# Programs that are tested under a library call this; the daemon is not tested under it.
unset LD_PRELOAD

[ $# -ge 2 ] || { sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
verb=$1 state=$2
shift 2
mnt=$state/mnt
kind=dfuse
[ ! -e "$state/kind" ] || kind=$(cat "$state/kind")

# The daemon stays in the foreground, so that its pid is known and nothing else is ever killed.
start_dfuse() {
    local options=() pid
    mapfile -t options <"$state/options"
    [ -x "$release/dfuse" ] || die "no $release/dfuse: cargo build --release first"
    setsid "$release/dfuse" --foreground --embedded "$state/store" "${options[@]}" "$mnt" \
        >>"$state/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$state/pid"
    for _ in $(seq 1000); do
        is_alive "$mnt" && return
        kill -0 "$pid" 2>/dev/null || die "dfuse ended: $(tail -n 5 "$state/log")"
        sleep 0.02
    done
    die "dfuse did not mount in 20 s: $(tail -n 5 "$state/log")"
}

# The FUSE door with an in-memory tree behind it: what benches compare with. Nothing of it outlives its mount.
start_null() {
    [ -x "$release/examples/null" ] || die "no $release/examples/null: cargo build --release -p dfuse --example null first"
    rm -f "$state/requests"
    setsid "$release/examples/null" "$mnt" --requests "$state/requests" >>"$state/log" 2>&1 </dev/null &
    echo $! >"$state/pid"
    for _ in $(seq 500); do
        is_mounted "$mnt" && return
        sleep 0.02
    done
    die "the null filesystem did not mount: $(tail -n 5 "$state/log")"
}

# wait_gone PID SECONDS
wait_gone() {
    local _
    for _ in $(seq $(($2 * 50))); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.02
    done
    return 1
}

unmount() {
    is_mounted "$mnt" || return 0
    umount "$mnt" 2>/dev/null || { sleep 1; umount "$mnt"; } || umount -l "$mnt"
}

start() {
    case $kind in
    dfuse) start_dfuse ;;
    null) start_null ;;
    ext4) mount -o loop "$state/image" "$mnt" ;;
    tmpfs) mount -t tmpfs -o size=8g tmpfs "$mnt" ;;
    esac
}

stop() {
    case $kind in
    dfuse | null)
        unmount
        [ ! -e "$state/pid" ] || wait_gone "$(cat "$state/pid")" 30 ||
            die "dfuse (pid $(cat "$state/pid")) still runs 30 s after its unmount"
        rm -f "$state/pid"
        ;;
    ext4 | tmpfs) unmount ;;
    esac
}

case $verb in
up)
    kind=${1:-dfuse}
    [ $# -eq 0 ] || shift
    mkdir -p "$state"
    chmod 755 "$state"
    case $kind in
    dfuse | ext4 | tmpfs | null) mkdir -p "$mnt" ;;
    *)
        [ -d "$kind" ] || die "neither a kind of filesystem nor a directory: $kind"
        [ -e "$mnt" ] || ln -s "$(cd "$kind" && pwd)" "$mnt"
        kind=directory
        ;;
    esac
    echo "$kind" >"$state/kind"
    printf '%s\n' "${@:---size=16G}" >"$state/options"
    if [ "$kind" = ext4 ] && [ ! -e "$state/image" ]; then
        truncate -s 16G "$state/image"
        mkfs.ext4 -q -F -E lazy_itable_init=1 "$state/image"
    fi
    start
    ;;
again)
    [ "$kind" != tmpfs ] || exit 0 # nothing of it would be left
    stop
    start
    ;;
kill)
    [ "$kind" = dfuse ] || exit 0
    if [ -e "$state/pid" ]; then
        kill -9 "$(cat "$state/pid")" 2>/dev/null || true
        wait_gone "$(cat "$state/pid")" 10 || die "dfuse does not die"
        rm -f "$state/pid"
    fi
    is_mounted "$mnt" && umount -l "$mnt"
    exit 0
    ;;
down) stop ;;
alive)
    case $kind in
    directory) [ -d "$mnt/." ] ;;
    *) is_alive "$mnt" ;;
    esac
    ;;
check)
    stop
    [ "$kind" != dfuse ] || "$release/daos" filesystem check --embedded "$state/store"
    ;;
*) die "no such verb: $verb" ;;
esac
