# fio with verification: psync, libaio and io_uring; buffered and direct; overwrites; several jobs; mmap.
# limit: 240
. "$(dirname "$0")/lib.sh"
need fio
size=$(short_or_long 24M 512M)
job() { # NAME args...
    local name=$1
    shift
    fio --name="$name" --directory=. --filename="$name" --size="$size" --verify=crc32c --verify_fatal=1 --do_verify=1 \
        --verify_state_save=0 --aux-path="$OUTSIDE" --output="$OUTSIDE/fio.out" "$@" >"$OUTSIDE/fio.err" 2>&1 || {
        tail -n 15 "$OUTSIDE/fio.err" "$OUTSIDE/fio.out"
        fail "fio $name: $*"
    }
    rm -f "$name"
}
for engine in psync libaio io_uring; do
    for direct in 0 1; do
        job "$engine-seq-$direct" --ioengine=$engine --direct=$direct --rw=write --bs=1M --iodepth=4
        job "$engine-rand-$direct" --ioengine=$engine --direct=$direct --rw=randwrite --bs=4k --iodepth=16 --end_fsync=1
    done
done
job odd --ioengine=psync --rw=randwrite --bs=3333
job large-odd --ioengine=psync --rw=randwrite --bs=70001
job synced --ioengine=psync --rw=randwrite --bs=4k --fsync=8 --io_size=2M
job osync --ioengine=psync --rw=randwrite --bs=8k --sync=1 --io_size=2M
job vectors --ioengine=pvsync2 --rw=randwrite --bs=16k
job mapped --ioengine=mmap --rw=randwrite --bs=4k
job trimmed --ioengine=psync --rw=write --bs=64k --fallocate=native --file_append=0
fio --name=jobs --directory=. --size=8M --numjobs=4 --rw=randwrite --bs=4k --ioengine=psync --verify=md5 \
    --verify_state_save=0 --verify_fatal=1 --output="$OUTSIDE/fio.out" --aux-path="$OUTSIDE" || fail "four jobs: $(tail -n 5 "$OUTSIDE/fio.out")"
