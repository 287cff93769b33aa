# POSIX ACLs: kept, enforced by the kernel, inherited, and copied by rsync -A and tar.
. "$(dirname "$0")/lib.sh"
need setfacl getfacl
[ "$(id -u)" = 0 ] || skip "needs root to become other users"
echo secret >file && chmod 600 file
setfacl -m u:daemon:r file 2>"$OUTSIDE/err" || {
    grep -q 'not supported' "$OUTSIDE/err" && skip "no POSIX ACLs on this filesystem yet"
    fail "$(cat "$OUTSIDE/err")"
}
chmod 755 .
same "an ACL lets in" "$(setpriv --reuid=daemon --clear-groups cat file)" secret
refused setpriv --reuid=games --clear-groups cat file
same "mask shows as group mode" "$(stat -c %a file)" 640
chmod g= file && refused setpriv --reuid=daemon --clear-groups cat file
mkdir dir && setfacl -d -m g:games:rwx dir && touch dir/new
getfacl -p dir/new | grep -q '^group:games:rwx' || fail "the default ACL is not inherited"
cp -a file copy && same "cp -a" "$(getfacl -p copy | tail -n +2)" "$(getfacl -p file | tail -n +2)"
rsync -aA file dir rs/ && same "rsync -A" "$(getfacl -p rs/file | tail -n +2)" "$(getfacl -p file | tail -n +2)"
setfacl -b file && same "removed" "$(getfacl -pc file | grep -c daemon)" 0
