#!/usr/bin/env bash
# fio with verification: what was written is read back and its checksums compared.
#
# usage: fio_verify.sh DIR [REF [CASE...]]
#
# What: sequential and random writes, overwrites, through a mapping, with O_DIRECT, by several jobs, in sizes
#       of 512 B to 1 MiB and odd ones, each verified by crc32c in the same process and most once more by a
#       process that comes later. REF is not used.
# How:  each case is one line of CASES below: its name and fio's options. All are run, or those named. Cases
#       whose engine the kernel refuses (io_uring in a container) are named in the last line.
# Limits: at most 64 MiB a case, removed after it. Reads are checked, allocation is not.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 1 ] || usage "DIR [REF [CASE...]]"
need fio
directories "$1"
shift $(($# < 2 ? $# : 2))
wanted=" $* "

CASES='
sequential    --rw=write --bs=128k --size=64m --ioengine=psync
small         --rw=write --bs=4k --size=16m --ioengine=psync
odd           --rw=write --bs=3001 --size=8102700 --ioengine=psync
random        --rw=randwrite --bs=4k --size=32m --ioengine=psync
mixed         --rw=randwrite --bsrange=512-128k --bs_unaligned --norandommap --size=32m --ioengine=psync
overwrite     --rw=randwrite --bs=8k --size=16m --overwrite=1 --loops=3 --ioengine=psync
read_write    --rw=randrw --bs=16k --size=32m --overwrite=1 --ioengine=psync
vectors       --rw=randwrite --bs=64k --size=32m --ioengine=pvsync
mapped        --rw=write --bs=64k --size=32m --ioengine=mmap
mapped_random --rw=randwrite --bs=4k --size=32m --ioengine=mmap
mapped_fsync  --rw=randwrite --bs=4k --size=8m --ioengine=mmap --fsync=64
synced        --rw=randwrite --bs=16k --size=8m --ioengine=psync --fdatasync=16 --end_fsync=1
osync         --rw=write --bs=64k --size=8m --ioengine=psync --sync=1
direct        --rw=write --bs=1m --size=64m --direct=1 --ioengine=psync
direct_random --rw=randwrite --bs=4k --size=16m --direct=1 --ioengine=libaio --iodepth=16
direct_sector --rw=randwrite --bs=512 --size=2m --direct=1 --ioengine=psync
libaio        --rw=randwrite --bs=16k --size=32m --ioengine=libaio --iodepth=8
io_uring      --rw=randwrite --bs=16k --size=32m --ioengine=io_uring --iodepth=16
uring_direct  --rw=randwrite --bs=64k --size=32m --direct=1 --ioengine=io_uring --iodepth=16
jobs          --rw=randwrite --bs=16k --size=8m --numjobs=8 --ioengine=psync
threads       --rw=write --bs=64k --size=8m --numjobs=8 --thread --ioengine=psync
many_files    --rw=write --bs=4k --size=16m --nrfiles=512 --openfiles=20 --ioengine=psync
preallocated  --rw=randwrite --bs=32k --size=32m --fallocate=posix --ioengine=psync
kept_size     --rw=write --bs=32k --size=32m --fallocate=keep --ioengine=psync
grown         --rw=write --bs=32k --size=32m --fallocate=truncate --ioengine=psync
append        --rw=write --bs=10000 --size=16000000 --file_append=1 --ioengine=psync
spliced       --rw=write --bs=64k --size=16m --ioengine=splice
'
REFUSED='engine .* not loadable|Operation not permitted|io_queue_init|Function not implemented'
log=$(mktemp) || fail "cannot make a log file"
verified=0 refused=
run() {
    nice fio --name="$name" --directory="$WORK" --verify=crc32c --verify_fatal=1 --randseed=4711 \
        --verify_state_save=0 --fallocate=none --group_reporting --output-format=terse "$@" >"$log" 2>&1 &&
        ! grep -q 'verify: bad' "$log"
}
while read -r name options; do
    [ -n "$name" ] && [[ $wanted =~ ^\ +$ || $wanted == *" $name "* ]] || continue
    # shellcheck disable=SC2206 # the options are words
    options=($options)
    if ! run "${options[@]}"; then
        if grep -qE "$REFUSED" "$log" && ! grep -q 'verify: bad' "$log"; then
            refused+=" $name"
            continue
        fi
        grep -v '^3;' "$log" | tail -n 20 >&2
        fail "case $name: ${options[*]}"
    fi
    # Blocks that overlap, mixed reads, appends and repeats cannot be checked by fio afterwards: a later
    # process does not know which write came last.
    case $name in
        mixed | overwrite | read_write | append) ;;
        *)
            if ! run "${options[@]}" --verify_only; then
                grep -v '^3;' "$log" | tail -n 20 >&2
                fail "case $name, read by a later process"
            fi
            ;;
    esac
    rm -rf "${WORK:?}"/* || fail "cannot remove the files of case $name"
    verified=$((verified + 1))
done <<<"$CASES"
rm -f "$log"
if [ "$verified" = 0 ] && [ -z "$refused" ]; then
    rm -rf "$WORK"
    usage "DIR [REF [CASE...]]: no case is called$wanted"
fi
pass "$verified cases verified${refused:+, refused by the kernel:$refused}"
