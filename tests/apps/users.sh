# Mounts by ordinary users, for themselves and for everybody; mounts by root for one user and for all.
. "$(dirname "$0")/lib.sh"
[ "$KIND" = dfuse ] || skip "only for dfuse"
[ "$(id -u)" = 0 ] || skip "needs root"
need setpriv unshare fusermount3 python3
# In a mount namespace of its own: users, /etc/fuse.conf and /dev/fuse are as the test wants them, for nobody else.
if [ -z "${USERS_NAMESPACE:-}" ]; then
    USERS_NAMESPACE=1 exec unshare --mount --propagation private bash "$0"
fi
cd "$OUTSIDE"
umask 022
alice=20001 bob=20002 friends=20003
cp /etc/passwd passwd && printf '%s:x:%s:%s::/:/bin/sh\n' alice $alice $alice bob $bob $bob >>passwd
: >fuse.conf && mknod fuse c 10 229 && chmod 600 fuse
mount --bind passwd /etc/passwd
mount --bind fuse.conf /etc/fuse.conf
mount --bind fuse /dev/fuse
# What is tested has to be where users can reach it.
mkdir bin && cp -L "$RELEASE/dfuse" "$RELEASE/daos" bin/
dfuse=$OUTSIDE/bin/dfuse daos=$OUTSIDE/bin/daos
store=$OUTSIDE/home/store mnt=$OUTSIDE/home/mnt old=$OUTSIDE/home/old
mkdir home && chown $alice:$alice home
# as USER COMMAND... : also in the group `friends`
as() { setpriv --reuid="$1" --regid="$1" --groups="$1,$friends" "${@:2}"; }
as $alice mkdir "$mnt" "$old"
mounted() { awk -v d="$1" '$2 == d { print $4; f = 1 } END { exit !f }' /proc/self/mounts; }
pid() { head -n 1 "$store/lock"; }
gone() { # PID
    for _ in $(seq 200); do
        grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status" || return 0
        sleep 0.1
    done
    fail "dfuse ($1) still runs"
}
clean() { for d in "$mnt" "$old"; do while mounted "$d" >/dev/null; do umount -l "$d" || break; done; done; }
trap clean EXIT
# up USER [option...]
up() {
    as "$1" "$dfuse" --embedded "$store" "$mnt" "${@:2}" >out 2>&1 || fail "mount by $1 (${*:2}): $(cat out)"
    pid >>pids
}
# down USER
down() {
    local was
    was=$(pid)
    if [ "$1" = 0 ]; then umount "$mnt"; else as "$1" fusermount3 -u "$mnt"; fi
    gone "$was"
}
# denied USER COMMAND... : for want of permission, and for nothing else
denied() {
    if as "$1" "${@:2}" >out 2>&1; then fail "uid $1 may: ${*:2}"; fi
    grep -qE 'Permission denied|Operation not permitted' out || fail "uid $1, ${*:2}: $(cat out)"
}

# alice mounts for herself, once she may open /dev/fuse
if as $alice "$dfuse" --embedded "$store" "$mnt" --size 256M >out 2>&1; then fail "mounted without /dev/fuse"; fi
grep -q 'chmod 666 /dev/fuse' out || fail "what the administrator has to do is not said: $(cat out)"
chmod 666 fuse
up $alice --size 256M
options=$(mounted "$mnt")
for option in nosuid nodev user_id=$alice; do
    [[ ,$options, == *,$option,* ]] || fail "a user's mount is not $option: $options"
done
[[ $options != *allow_other* ]] || fail "a user's mount is for everybody: $options"
as $alice sh -c "umask 077 && echo mine >'$mnt/mine' && mkdir '$mnt/dir'"
same "who owns what alice makes" "$(as $alice stat -c '%u:%g %a' "$mnt/mine")" "$alice:$alice 600"
for other in $bob 0; do
    denied $other cat "$mnt/mine"
    denied $other ls "$mnt"
    denied $other touch "$mnt/theirs"
done
denied $alice chown $bob "$mnt/mine"
as $alice chgrp $friends "$mnt/mine" || fail "alice cannot give her file to a group of hers"
as $alice chmod 000 "$mnt/mine"
denied $alice cat "$mnt/mine"
as $alice chmod 640 "$mnt/mine"
# Commands are for whoever owns the store, and root.
as $alice "$daos" fs query "$mnt" >/dev/null || fail "alice cannot ask her own mount"
"$daos" container list --embedded "$store" >/dev/null || fail "root cannot ask it"
denied $bob "$daos" container list --embedded "$store"
# A snapshot beside, by the same daemon.
as $alice "$daos" container create-snap default home --snap first --embedded "$store" >/dev/null
as $alice sh -c "echo later >'$mnt/mine'"
as $alice "$dfuse" --embedded "$store" "$old" --snap first >out 2>&1 || fail "a snapshot: $(cat out)"
same "the snapshot" "$(as $alice cat "$old/mine")" mine
denied $bob ls "$old"
as $alice fusermount3 -u "$old"
same "the live mount" "$(as $alice cat "$mnt/mine")" later
if as $bob fusermount3 -u "$mnt" 2>/dev/null; then fail "bob unmounts what is alice's"; fi
down $alice
# A daemon that is killed leaves what its user can unmount.
up $alice
killed=$(pid)
kill -9 "$killed" && gone "$killed"
as $alice fusermount3 -u "$mnt" || fail "alice cannot clear her dead mount"

# alice mounts for everybody: only where the administrator lets her
if as $alice "$dfuse" --embedded "$store" "$mnt" --multi-user >out 2>&1; then fail "mounted for everybody without user_allow_other"; fi
grep -q user_allow_other out || fail "what the administrator has to do is not said: $(cat out)"
if mounted "$mnt"; then fail "a mount is left behind"; fi
echo user_allow_other >fuse.conf
up $alice --multi-user
[[ $(mounted "$mnt") == *allow_other* ]] || fail "not for everybody: $(mounted "$mnt")"
as $alice chmod 1777 "$mnt"
as $bob sh -c "umask 022 && echo bobs >'$mnt/bobs' && mkdir '$mnt/bobs.d' && ln -s x '$mnt/bobs.l'"
for made in bobs bobs.d bobs.l; do
    same "who owns $made" "$(stat -c %u:%g "$mnt/$made")" "$bob:$bob"
done
same "bob's mode" "$(stat -c %a "$mnt/bobs")" 644
as $alice cat "$mnt/bobs" >/dev/null
denied $alice sh -c "echo x >'$mnt/bobs'"
denied $bob rm -f "$mnt/mine"
same "a group of both" "$(as $bob cat "$mnt/mine")" later
denied $bob sh -c "echo x >'$mnt/mine'"
echo roots >"$mnt/roots" && chown $bob "$mnt/roots" || fail "root cannot give a file away"
same "whose it is" "$(as $bob stat -c %u "$mnt/roots")" "$bob"
down $alice

# root mounts for everybody, without being asked to
: >fuse.conf
up 0
options=$(mounted "$mnt")
[[ $options == *allow_other* && $options != *nosuid* ]] || fail "root's mount: $options"
for user in $alice $bob; do
    as $user sh -c "umask 077 && echo $user >'$mnt/by-$user'"
    same "who owns it" "$(stat -c %u:%g "$mnt/by-$user")" "$user:$user"
done
denied $alice cat "$mnt/by-$bob"
mkdir -m 2777 "$mnt/shared" && chgrp $friends "$mnt/shared" && chmod 2777 "$mnt/shared"
as $bob sh -c "umask 007 && echo x >'$mnt/shared/file'"
same "the directory's group" "$(stat -c %u:%g "$mnt/shared/file")" "$bob:$friends"
as $alice sh -c "echo y >>'$mnt/shared/file'" || fail "a supplementary group does not count"
down 0
up 0 --single-user
denied $alice ls "$mnt"
same "root's own" "$(cat "$mnt/by-$bob")" "$bob"
down 0
# What root has written in the store's directory is still alice's to mount.
chown -R $alice:$alice "$store"
up $alice
same "what is bob's is bob's" "$(as $alice stat -c %u "$mnt/by-$bob")" "$bob"
denied $alice cat "$mnt/by-$bob"
down $alice
"$daos" fs check --embedded "$store" >out || fail "check: $(cat out)"
exit 0
