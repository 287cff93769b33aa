#!/usr/bin/env bash
# A full filesystem says ENOSPC, keeps what it has, still deletes, and takes new files afterwards.
# usage: full.sh STATE     (mounted small); prints name, ok / FAILED and a reason
set -uo pipefail
dir=$1/mnt/full
report() { printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}"; }
mkdir "$dir" && cd "$dir" || exit 1

head -c 1000000 /dev/urandom >before && sum=$(sha256sum <before)
n=0
while head -c 4000000 /dev/urandom >"file$n" 2>err.tmp; do
    n=$((n + 1))
    [ $n -lt 1000 ] || break
done 2>/dev/null
error=$(head -c 1000 /dev/zero 2>&1 | dd of=more bs=1M count=200 iflag=fullblock if=/dev/zero 2>&1 | grep -o 'No space left on device' | head -n 1)
if [ "$error" = "No space left on device" ]; then report a_full_device_says_enospc ok; else report a_full_device_says_enospc FAILED "wrote $n files of 4 MB, then: $error"; fi
if [ "$(sha256sum <before)" = "$sum" ]; then report a_full_device_keeps_what_it_has ok; else report a_full_device_keeps_what_it_has FAILED; fi

ok=1
for i in $(seq 0 $((n - 1))); do rm "file$i" || ok=0; done
rm -f more "file$n" err.tmp || ok=0
if [ $ok = 1 ]; then report a_full_device_still_deletes ok; else report a_full_device_still_deletes FAILED; fi
for _ in $(seq 50); do
    head -c 8000000 /dev/urandom >after 2>/dev/null && break
    sleep 0.2
done
if [ "$(stat -c %s after)" = 8000000 ]; then report space_is_usable_again_after_deletes ok; else report space_is_usable_again_after_deletes FAILED "$(df -h . | tail -n 1)"; fi

# many small files until it is full, then all of them away
i=0
while [ $i -lt 200000 ] && echo "small $i" >"small$i"; do i=$((i + 1)); done 2>/dev/null
find . -name 'small*' -delete
if [ "$(find . -name 'small*' | wc -l)" = 0 ] && head -c 8000000 /dev/urandom >again; then
    report many_small_files_until_full_and_away ok
else
    report many_small_files_until_full_and_away FAILED "after $i files: $(df -h . | tail -n 1)"
fi
cd / && rm -rf "$dir"
