# Sparse files: cp --sparse, SEEK_HOLE, fallocate, punch, du; nothing is filled that was not written.
. "$(dirname "$0")/lib.sh"
truncate -s 1G hole && same "blocks of a hole" "$(stat -c %b hole)" 0
for at in 0 300 900; do dd if=/dev/urandom of=hole bs=1M seek=$at count=1 conv=notrunc status=none; done
blocks=$(stat -c %b hole)
[ "$blocks" -ge 6144 ] && [ "$blocks" -le 6400 ] || fail "3 MiB in a 1 GiB file use $blocks blocks"
cp --sparse=always hole always && cmp hole always && [ "$(stat -c %b always)" -le 6400 ]
cp hole auto && [ "$(stat -c %b auto)" -le 6400 ] && cmp hole auto # by SEEK_DATA
cp --sparse=never --reflink=never <(head -c 3000000 /dev/zero) full && [ "$(stat -c %b full)" -ge 5800 ]
head -c 3000000 /dev/zero | cp --sparse=always /dev/stdin zeros && [ "$(stat -c %b zeros)" -le 16 ] && cmp full zeros
python3 - <<'P'
import os
fd = os.open("hole", os.O_RDONLY)
at, data = 0, []
while True:
    try: start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == 6, e
        break
    at = os.lseek(fd, start, os.SEEK_HOLE); data.append((start >> 20, at >> 20))
assert data == [(0, 1), (300, 301), (900, 901)], data
assert os.lseek(fd, 0, os.SEEK_HOLE) == 1 << 20 and os.lseek(fd, 950 << 20, os.SEEK_HOLE) == 950 << 20
P
touch allocated && fallocate -l 64M -n allocated && same "size with -n" "$(stat -c %s allocated)" 0
[ "$(stat -c %b allocated)" -ge 131072 ] || fail "fallocate allocated $(stat -c %b allocated) blocks"
fallocate -l 10M grown && same "size" "$(stat -c %s grown)" 10485760 && cmp -n 10485760 grown /dev/zero
fallocate -p -o 1M -l 8M full 2>/dev/null || fail "punch"
[ "$(stat -c %b full)" -le 3000 ] || fail "a punch freed nothing: $(stat -c %b full) blocks"
cmp -n 3000000 full /dev/zero && same "size after punch" "$(stat -c %s full)" 3000000
same "du" "$(du -B1 --apparent-size hole | cut -f1)" 1073741824
[ "$(du -k hole | cut -f1)" -le 3200 ] || fail "du counts holes"
tar -Scf - hole | tar -xf - -C "$(mktemp -d -p .)" && cmp hole tmp.*/hole
[ "$(stat -c %b tmp.*/hole)" -le 6400 ] || fail "tar -S filled the holes"
