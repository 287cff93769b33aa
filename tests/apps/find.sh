# find, du and df: every entry once, sizes add up, space comes back.
. "$(dirname "$0")/lib.sh"
need python3 find
python3 "$here/mktree.py" tree "$(short_or_long 1500 20000)" 3
find tree | sort >"$OUTSIDE/find"
python3 -c 'import os
print("tree")
for d, ds, fs in os.walk("tree"):
    for n in ds + fs: print(os.path.join(d, n))' | LC_ALL=C sort >"$OUTSIDE/walk"
LC_ALL=C sort "$OUTSIDE/find" | cmp - "$OUTSIDE/walk" || fail "find and os.walk differ"
same "every entry once" "$(sort "$OUTSIDE/find" | uniq -d | wc -l)" 0
ls -RU1 tree >/dev/null
total=$(find tree -type f -links 1 -printf '%s\n' | awk '{ s += $1 } END { print s }')
linked=$(find tree -type f -links +1 -printf '%i %s\n' | sort -u | awk '{ s += $2 } END { print s + 0 }')
dirs=$(find tree ! -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
same "du counts hard links once" "$(du -sB1 --apparent-size tree | cut -f1)" $((total + linked + dirs))
same "find by size" "$(find tree -type f -size +100k | wc -l)" "$(find tree -type f -printf '%s\n' | awk '$1 > 102400' | wc -l)"
same "find by type" "$(find tree -type l | wc -l)" "$(find tree -printf '%y\n' | grep -c l)"
touch now && same "find -newer" "$(find tree -newer now | wc -l)" 0
find tree -name 'file-*' -exec chmod 600 {} + && same "chmod by find" "$(find tree -name 'file-*' -type f ! -perm 600 | wc -l)" 0

# df: space goes, and comes back after rm
avail() { df --output=avail -B1M . | tail -n 1 | tr -d ' '; }
before=$(avail)
head -c 200M /dev/urandom >big && sync big
used=$((before - $(avail)))
[ $used -ge 190 ] && [ $used -le 260 ] || fail "200 MiB written, df shows $used MiB less"
rm big
for _ in $(seq 100); do [ $((before - $(avail))) -gt 10 ] || break; sleep 0.1; done
[ $((before - $(avail))) -le 10 ] || fail "df shows $((before - $(avail))) MiB still used 10 s after rm"
[ "$(df --output=iavail . | tail -n 1)" != 0 ] || fail "df -i shows no inodes"
find tree -depth -delete && [ ! -e tree ]
