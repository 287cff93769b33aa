#!/usr/bin/env bash
# From a clean checkout to a mounted filesystem. Running it again is harmless.
#
# usage: scripts/quickstart.sh [MOUNTPOINT]      default: ~/daosfs
# The store is in $DAOSFS_DIR, default ~/.local/share/daosfs.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

case ${1:-} in -*) sed -n '4,5s/^# \{0,1\}//p' "$0"; exit 2 ;; esac
mountpoint=${1:-$HOME/daosfs}
store=${DAOSFS_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/daosfs}
mkdir -p "$store"
# A mount whose daemon is gone answers nothing: clear it, or nothing can be mounted there.
if is_mounted "$(realpath -ms "$mountpoint")" && ! is_alive "$(realpath -ms "$mountpoint")"; then
    mountpoint=$(realpath -ms "$mountpoint")
    say "$mountpoint is a mount whose daemon is gone: unmounting it"
    fusermount3 -uz "$mountpoint" 2>/dev/null || as_root umount -l "$mountpoint"
fi
mkdir -p "$mountpoint"
mountpoint=$(realpath "$mountpoint")

if is_alive "$mountpoint" && is_mounted "$mountpoint"; then
    say "$mountpoint is mounted already; nothing was changed"
else
    need_packages fuse3 build-essential
    [ -e /dev/fuse ] || as_root modprobe fuse || die "this kernel has no FUSE (/dev/fuse is missing)"
    need_cargo
    say "building (the first time this takes a few minutes)"
    cargo build --release -p dfuse -p daos-cli
    "$release/dfuse" --embedded "$store" "$mountpoint"
fi

cat <<TEXT

  Mounted at $mountpoint, stored in $store.

  Try       cp -a $root/scripts $mountpoint/ && ls -la $mountpoint/scripts
            git clone $root $mountpoint/clone
            kill -9 \$(pidof dfuse); $0 $mountpoint
  Look      $release/daos pool query --embedded $store
            $release/daos filesystem query --embedded $store
  Stop      fusermount3 -u $mountpoint
  Again     $release/dfuse --embedded $store $mountpoint
TEXT
