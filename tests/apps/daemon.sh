# dfuse as a daemon: background, signals, unmount, a second daemon, read-only, mount(8), a dead mount, sync always.
. "$(dirname "$0")/lib.sh"
[ "$KIND" = dfuse ] || skip "only for dfuse"
[ "$(id -u)" = 0 ] || skip "needs root"
cd "$OUTSIDE"
store=$OUTSIDE/store mnt=$OUTSIDE/mnt
mkdir mnt
dfuse=$RELEASE/dfuse
mounted() { awk -v d="$mnt" '$2 == d { f = 1 } END { exit !f }' /proc/self/mounts; }
holder() { # the pid, as a second daemon is told it
    mkdir -p other
    { "$dfuse" --embedded "$store" "$OUTSIDE/other" 2>&1 || true; } | grep -oE '(pid|process) [0-9]+' | grep -o '[0-9]*' | head -n 1
}
gone() { # PID: within 20 s
    for _ in $(seq 200); do
        grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status" || return 0
        sleep 0.1
    done
    fail "dfuse ($1) still runs 20 s after it was told to stop"
}
clean() { ! mounted || umount -l "$mnt"; }
trap clean EXIT

# background: back when mounted, with the terminal free
"$dfuse" --embedded "$store" "$mnt" --size 1G >out 2>&1 </dev/null || fail "mount: $(cat out)"
mounted || fail "back, but not mounted"
echo kept >mnt/file
pid=$(holder)
[ -n "$pid" ] || fail "a second daemon is not told the pid of the first"
echo "$pid" >>"$OUTSIDE/pids"
refused "$dfuse" --embedded "$store" "$OUTSIDE/other"
refused "$dfuse" --embedded "$OUTSIDE/elsewhere" "$OUTSIDE/no-such-mountpoint"
refused "$dfuse" --embedded /etc/passwd "$OUTSIDE/other"
[ "$(ps -o tty= -p "$pid" | tr -d ' ')" = '?' ] || fail "the daemon keeps a terminal"

# SIGTERM, SIGINT, umount, fusermount3: all stop it cleanly
kill -TERM "$pid" && gone "$pid"
mounted && fail "SIGTERM left the mount"
for how in INT umount fusermount3; do
    "$dfuse" --embedded "$store" "$mnt" >out 2>&1 || fail "mount before $how: $(cat out)"
    same "the file is there before $how" "$(cat mnt/file)" kept
    pid=$(holder) && echo "$pid" >>"$OUTSIDE/pids"
    case $how in
    INT) kill -INT "$pid" ;;
    umount) umount "$mnt" ;;
    fusermount3) fusermount3 -u "$mnt" ;;
    esac
    gone "$pid"
    if mounted; then fail "$how left the mount"; fi
done

# a dead mount is cleared by the next mount at the same place
"$dfuse" --embedded "$store" "$mnt" >out 2>&1
pid=$(holder) && echo "$pid" >>"$OUTSIDE/pids"
echo before-kill >mnt/killed
kill -9 "$pid" && gone "$pid"
refused stat -f mnt
"$dfuse" --embedded "$store" "$mnt" >out 2>&1 || fail "mount over a dead mount: $(cat out)"
same "after kill -9" "$(cat mnt/killed)" before-kill
same "mounts at the place" "$(awk -v d="$mnt" '$2 == d' /proc/self/mounts | wc -l)" 1
pid=$(holder) && echo "$pid" >>"$OUTSIDE/pids" && umount "$mnt" && gone "$pid"

# read-only, and the options of mount(8)
"$dfuse" --embedded "$store" "$mnt" --read-only >out 2>&1 || fail "read-only: $(cat out)"
same "read" "$(cat mnt/file)" kept
for c in 'echo x >mnt/new' 'rm mnt/file' 'mkdir mnt/d' 'chmod 600 mnt/file' 'echo x >>mnt/file'; do
    (eval "$c") 2>err && fail "read-only, and this worked: $c"
    grep -q 'Read-only file system' err || fail "read-only, $c says: $(cat err)"
done
pid=$(holder) && echo "$pid" >>"$OUTSIDE/pids" && umount "$mnt" && gone "$pid"
link=/usr/local/bin/dfuse
if [ ! -e $link ] && ln -s "$dfuse" $link; then
    trap 'rm -f $link; clean' EXIT
    mount -t fuse.dfuse "$store" "$mnt" -o sync=always,noatime 2>out || fail "mount -t fuse.dfuse: $(cat out)"
    echo always >mnt/always && same "sync=always" "$(cat mnt/always)" always
    pid=$(holder) && echo "$pid" >>"$OUTSIDE/pids" && umount "$mnt" && gone "$pid"
    rm -f $link
    trap clean EXIT
fi

# foreground, by Ctrl-C; another pool and container in the same store; without the kernel's caches
setsid "$dfuse" --foreground --disable-caching --embedded "$store" "$mnt" mypool data >out 2>&1 &
pid=$!
echo $pid >>"$OUTSIDE/pids"
for _ in $(seq 100); do ! mounted || break; sleep 0.1; done
same "an empty container" "$(ls mnt | wc -l)" 0
for i in $(seq 50); do echo "$i" >"mnt/f$i"; done && same "files" "$(cat mnt/f* | sort -n | tail -n 1)" 50
kill -INT $pid && gone $pid
mounted && fail "Ctrl-C left the mount"
"$RELEASE/daos" filesystem check --embedded "$store" >out 2>&1 || fail "check: $(tail -n 5 out)"
