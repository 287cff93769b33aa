# Containers as a user has them: attributes, a quota, snapshots that are mounted, directories that show other containers, chunk sizes.
. "$(dirname "$0")/lib.sh"
[ "$KIND" = dfuse ] || skip "only for dfuse"
[ "$(id -u)" = 0 ] || skip "needs root"
need python3 setfattr getfattr
cd "$OUTSIDE"
# A comma in the store's path is no option of the mount. Other stores are mounted too, so it is always named.
store=$OUTSIDE/a,store mnt=$OUTSIDE/mnt dfuse=$RELEASE/dfuse
mkdir "$mnt"
daos() { "$RELEASE/daos" --embedded "$store" "$@"; }
mounted() { awk -v d="$mnt" '$2 == d { f = 1 } END { exit !f }' /proc/self/mounts; }
up() { "$dfuse" --embedded "$store" "$mnt" "$@" >out 2>&1 || fail "mount $*: $(cat out)"; }
down() { umount "$mnt"; }
clean() { ! mounted || umount -l "$mnt"; }
trap clean EXIT
code() { local c=0; "$@" >out 2>&1 || c=$?; echo "$c"; }

up --size 1G
daos container set-attr --path "$mnt" dfuse-attr-time:5s,dfuse-data-cache:otoc
same "an attribute" "$(daos container get-attr --path "$mnt" dfuse-attr-time --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["response"]["dfuse-attr-time"])')" 5s
same "a bad value" "$(code daos container set-attr --path "$mnt" dfuse-attr-time:soon)" 1
grep -q '30s, 5m, 1h or 1d' out || fail "what to write is not said: $(cat out)"
daos container del-attr --path "$mnt" dfuse-attr-time,dfuse-data-cache
daos container set-prop default home quota:500M,1000
daos container get-prop default home | grep -q 'inodes 1000' || fail "the quota is not shown"
daos container set-prop default home quota:0,0

# snapshots
mkdir mnt/d && echo one >mnt/d/file && ln mnt/d/file mnt/d/second
daos container create-snap default home --snap first >/dev/null
echo two >mnt/d/file && rm mnt/d/second && mkdir mnt/later
daos container list-snap default home | grep -q first || fail "the snapshot is not listed"
refused "$dfuse" --embedded "$store" "$OUTSIDE/other" --snap first
mkdir other && "$dfuse" --embedded "$store" "$OUTSIDE/other" --snap first >out 2>&1 || fail "beside: $(cat out)"
same "a file at the snapshot, beside" "$(cat other/d/file)" one
same "the file now" "$(cat mnt/d/file)" two
daos fs query other | grep -q 'snapshot *first' || fail "a path in the snapshot asks for another mount"
refused touch other/d/file
same "destroying what is mounted beside" "$(code daos container destroy-snap default home --snap first)" 5
diff -r other mnt >out && fail "the snapshot and the live container are the same"
fusermount3 -u other
same "the live mount goes on" "$(cat mnt/d/file)" two
# In the foreground it stays until it is unmounted.
"$dfuse" --foreground --embedded "$store" "$OUTSIDE/other" --snap first >out 2>&1 &
for _ in $(seq 100); do [ ! -e other/d/file ] || break; sleep 0.1; done
kill -TERM $! && wait $! || fail "in the foreground: $(cat out)"
[ ! -e other/d/file ] || fail "a signal left the snapshot mounted"
down
up --snap first
same "a file at the snapshot" "$(cat mnt/d/file)" one
same "its links" "$(stat -c %h mnt/d/second)" 2
[ ! -e mnt/later ] || fail "a later directory is in the snapshot"
refused touch mnt/d/file
same "destroying what is mounted" "$(code daos container destroy-snap --path "$mnt" --snap first)" 5
down
up
same "the file now" "$(cat mnt/d/file)" two
daos container destroy-snap default home --snap first >/dev/null
daos container list-snap default home | grep -q first && fail "a destroyed snapshot is listed"

# a directory shows another container
daos container create --path mnt/data --type POSIX >/dev/null
[ -d mnt/data ] || fail "the entry point is not there at once"
ls mnt | grep -qx data || fail "the entry point is not listed at once"
python3 "$here/mktree.py" mnt/data/tree >/dev/null 2>&1 || { mkdir mnt/data/tree && seq 1000 >mnt/data/tree/numbers; }
cp -a mnt/data/tree "$OUTSIDE/tree"
refused ln mnt/data/tree mnt/x
mv mnt/data/tree mnt/moved-out && mv mnt/moved-out mnt/data/tree
same_tree mnt/data/tree "$OUTSIDE/tree"
getfattr --only-values -n user.daos mnt/data | grep -q '^DAOS.POSIX://' || fail "the entry point has no user.daos"
daos container query --path mnt/data/tree >/dev/null
daos container set-attr --path mnt/data dfuse-dentry-time:0
same "an attribute of the outer container" "$(daos container list-attrs --path mnt --json | tr -d ' \n' | grep -o '"response":\[\]')" '"response":[]'
down
up
same_tree mnt/data/tree "$OUTSIDE/tree"
refused rmdir mnt/data
# handles of files and directories in it, as NFS has them
mkdir -p mnt/data/h/sub && echo by handle >mnt/data/h/file
handles() { python3 "$here/handles.py" open "$OUTSIDE/handles" mnt; }
numbers() { stat -c %i mnt/data/h/file mnt/data/h/sub mnt/data; }
python3 "$here/handles.py" take "$OUTSIDE/handles" mnt/data/h/file mnt/data/h/sub mnt/data
before=$(numbers)
same "by handle" "$(handles | cut -d' ' -f1)" "$before"
down
up
# A file's needs nobody who has come down to it; a directory's does, to know what is above.
same "a file by its handle after a remount" "$(handles | sed -n 1p)" "$(echo "$before" | head -n 1) by handle"
same "numbers after a remount" "$(numbers)" "$before"
echo 2 >/proc/sys/vm/drop_caches
same "by handle, after a remount" "$(handles | cut -d' ' -f1)" "$before"
same "a container's root by its handle" "$(handles | tail -n 1)" "$(stat -c %i mnt/data) h tree"
rm -r mnt/data/h
same "a removed file by its handle" "$(handles | sed -n 1,2p | tr '\n' ' ')" "ESTALE ESTALE "
# a second way to it, a loop, a container that has gone
daos container create default inner --path mnt/data/inner >/dev/null
echo deep >mnt/data/inner/file
daos container link home --path mnt/data/inner/loop >/dev/null
same "listing a loop" "$(code ls mnt/data/inner/loop)" 2
rmdir mnt/data/inner/loop
daos container link inner --path mnt/again >/dev/null
same "the same container" "$(cat mnt/again/file)" deep
rmdir mnt/again && fail "a container with a file went with an empty directory"
rm mnt/data/inner/file
rmdir mnt/again
daos container query inner >/dev/null || fail "rmdir of an entry point destroyed its container"
echo deep >mnt/data/inner/file
daos container destroy inner >/dev/null
refused cat mnt/data/inner/file
rmdir mnt/data/inner || fail "the entry point of a container that has gone cannot be removed"
same "a directory inside" "$(code daos container destroy --path mnt/data/tree)" 1
daos container destroy --path mnt/data >/dev/null
[ ! -e mnt/data ] || fail "destroy --path left the directory"
same "containers at the end" "$(daos container list --json | grep -c '"label"')" 1

# object classes: those of one engine
for refused in "--oclass RP_2G1" "--file-oclass EC_4P1GX" "--file-oclass S1" "--dir-oclass SX" "--oclass nonsense"; do
    # shellcheck disable=SC2086
    same "$refused" "$(code daos container create default classes $refused)" 2
    grep -qE 'use S[1X]' out || fail "what can be used is not said: $(cat out)"
done
daos container create default classes --oclass SX --file-oclass sx --dir-oclass S1 >/dev/null
daos container query default classes | grep -q 'class of files *SX' || fail "the class is not shown"
daos container destroy default classes >/dev/null
mkdir mnt/classes && echo x >mnt/classes/file
daos fs get-attr mnt/classes | grep -q 'class *S1' || fail "a directory's class is not shown"
daos fs get-attr mnt/classes/file | grep -q 'class *SX' || fail "a file's class is not shown"
same "a class that is not there" "$(code daos fs set-attr mnt/classes/new --oclass RP_3GX)" 1
grep -q 'use SX' out || fail "what can be used is not said: $(cat out)"
[ ! -e mnt/classes/new ] || fail "a refused class left a file"
daos fs set-attr mnt/classes/new --oclass SX >/dev/null && [ -e mnt/classes/new ] || fail "set-attr makes no file"
rm -r mnt/classes

# check and scrub of what is mounted; --repair wants it for itself
daos container create default second --path mnt/second >/dev/null && echo x >mnt/second/file
daos container create default third >/dev/null
daos fs check mnt >out || fail "check: $(cat out)"
grep -q 'filesystem default/home' out && grep -q 'filesystem default/second: 1 directories, 1 files' out || fail "check looks at $(cat out)"
daos fs scrub mnt >out 2>&1 || fail "scrub: $(cat out)"
same "repair of a mounted store" "$(code daos fs check --repair mnt)" 5
grep -q 'fusermount3 -u' out || fail "what to do is not said: $(cat out)"
down
for _ in $(seq 100); do [ "$(code daos pool list)" = 0 ] && break; sleep 0.1; done
daos fs check --repair >out || fail "repair: $(cat out)"
up
same "after a repair of what was sound" "$(cat mnt/second/file)" x
daos container destroy --path mnt/second >/dev/null
daos container destroy third >/dev/null

# chunk sizes
mkdir mnt/big && daos fs set-attr mnt/big --chunk-size 4M >/dev/null
echo x >mnt/big/file
daos fs get-attr mnt/big/file | grep -q '4.00 MiB' || fail "a file does not get its directory's chunk size"
same "of a file with data" "$(code daos fs set-attr mnt/big/file -z 64K)" 1
daos fs set-attr mnt/new -z 64K >/dev/null
head -c 300000 /dev/urandom >mnt/new && cp mnt/new "$OUTSIDE/new"
daos fs reset-attr mnt/big >/dev/null
daos fs get-attr mnt/big | grep -q '1.00 MiB' || fail "reset-attr does not go back to the container's"
down
up --size 2G
grep -q 'passed over' out || fail "a size that is not the store's is passed over in silence"
cmp mnt/new "$OUTSIDE/new"
daos fs get-attr mnt/new | grep -q '64.0 KiB' || fail "a chunk size does not outlive the mount"
down
for _ in $(seq 100); do [ "$(code daos pool list --embedded "$store")" = 0 ] && break; sleep 0.1; done
daos fs check --embedded "$store" >/dev/null || fail "check: $(daos fs check --embedded "$store")"
for wrong in "--size 65T" "--memory 0"; do
    # shellcheck disable=SC2086
    "$dfuse" --embedded "$OUTSIDE/no-store" "$mnt" $wrong >out 2>&1 && fail "$wrong is taken"
    grep -qE 'at most 64.0 TiB|at least 1.00 MiB' out || fail "$wrong: $(cat out)"
done
exit 0
