# Shells and coreutils: what a person types in a day.
. "$(dirname "$0")/lib.sh"

# files and directories
mkdir -p a/b/c/d && touch a/one a/b/two
for i in $(seq 100); do echo "line $i" >>a/b/c/log; done
same "lines appended by a shell" "$(wc -l <a/b/c/log)" 100
head -c 3000000 /dev/urandom >a/random
cp a/random a/copy && cmp a/random a/copy
sha256sum a/random a/copy >sums && sha256sum --quiet -c sums
cp -a a a2 && diff -r a a2
mv a2/b a2/moved && [ -e a2/moved/c/log ] && [ ! -e a2/b ]
mv -T a2 a3 && [ -d a3/moved ] && [ ! -e a2 ]
rmdir a3/moved/c/d && refused rmdir a3
install -m 640 a/one a3/installed && same "mode by install" "$(stat -c %a a3/installed)" 640

# links
ln a/random a/hard && same "link count" "$(stat -c %h a/random)" 2
same "one inode" "$(stat -c %i a/random)" "$(stat -c %i a/hard)"
rm a/random && cmp a/hard a/copy && same "link count after rm" "$(stat -c %h a/hard)" 1
ln -s ../a/hard a/soft && same "readlink" "$(readlink a/soft)" ../a/hard && cmp a/soft a/copy
ln -sfn b a/soft && [ -d a/soft/c ]
same "realpath" "$(realpath a/soft/c)" "$(realpath a/b/c)"

# modes, owners, times
chmod 751 a/one && same "mode" "$(stat -c %a a/one)" 751
chmod u+s,g-x a/one && same "mode" "$(stat -c %a a/one)" 4741
[ "$(id -u)" != 0 ] || { chown 12:34 a/one && same "owner" "$(stat -c %u:%g a/one)" 12:34; }
touch -d '2001-02-03 04:05:06.123456789' a/one
same "mtime to the nanosecond" "$(stat -c %y a/one)" "2001-02-03 04:05:06.123456789 +0000"
touch -r a/one a/b/two && [ ! a/b/two -nt a/one ] && [ ! a/one -nt a/b/two ]
same "directory links" "$(stat -c %h a/b)" 3

# pipes, redirections, appends of several shells at once
seq 20000 | tee tee1 tee2 >/dev/null && cmp tee1 tee2
for p in 1 2 3 4; do (for i in $(seq 200); do echo "$p $i" >>together; done) & done
wait
same "lines of four appenders" "$(sort -u together | wc -l)" 800
exec 3<>together && read -r first <&3 && exec 3>&- && [ -n "$first" ]
set -o noclobber
if (echo x >together) 2>/dev/null; then fail "noclobber overwrote"; fi
set +o noclobber
sort -T . -n -S 1M --parallel=2 <(seq 200000 -1 1) >sorted && same "sort" "$(tail -n 1 sorted)" 200000
split -b 100000 a/copy piece. && cat piece.* | cmp - a/copy
dd if=a/copy of=dd bs=4097 conv=fsync status=none && cmp dd a/copy
dd if=/dev/zero of=dd bs=1 seek=1000 count=5 conv=notrunc status=none
same "size after conv=notrunc" "$(stat -c %s dd)" 3000000
truncate -s 1234567 dd && same "size" "$(stat -c %s dd)" 1234567
(sleep 0.3 && echo late >>followed) &
echo early >followed
same "tail -f" "$(timeout 5 tail -n +1 -f followed | head -n 2 | tr '\n' ' ')" "early late "
wait
mkfifo pipe && (echo through >pipe &) && same "fifo" "$(cat pipe)" through

# locks, temporary files, many names
t=$(mktemp -p . -d) && [ -d "$t" ] && rmdir "$t"
(flock 9 && sleep 0.4) 9>lock &
sleep 0.1
if flock -n lock true; then fail "flock let a second one in"; fi
wait
flock -n lock true || fail "flock kept the lock"
mkdir many && (cd many && seq -f 'f%g' 2000 | xargs touch)
same "names" "$(ls many | wc -l)" 2000
same "names by glob" "$(echo many/f1?? | wc -w)" 100
same "names by ls -f" "$(ls -f many | wc -l)" 2002
long=$(printf 'n%.0s' $(seq 255)) && touch "$long" && [ -e "$long" ] && refused touch "${long}n"
touch 'with space' $'new\nline' 'ünïcode' '*' && rm 'with space' $'new\nline' 'ünïcode' '*'
rm -rf many a3 && [ ! -e many ]
for i in $(seq 30); do mkdir deep && cd deep; done && cd "$WORK" && rm -r deep

# scripts and binaries run from it
printf '#!/bin/sh\necho "ran $1"\n' >script && chmod +x script && same "script" "$(./script x)" "ran x"
cp /bin/true true && ./true
