#!/usr/bin/env bash
# fsx (crates.io): random operations on one file, each read compared with what was written.
#
# usage: fsx.sh DIR OPS SEED [KEY=VALUE...]
#
# What: OPS operations of every kind fsx knows on Linux: read, write, mapped reads and writes, truncate both
#       ways, hole punching, fallocate, copy_file_range, sendfile, fadvise, msync, fsync, close and reopen.
# How:  KEY=VALUE changes a line of the settings below (flen=4194304, opsize.align=4096, weights.mapread=0,
#       nomsyncafterwrite=true). fsx is started anew for every SLICE operations (default 50,000), with the
#       seeds SEED, SEED+1 and so on, because it never unmaps what it maps for reading and a process may
#       hold 65,530 mappings. Those kept mappings outlive each close, so a run with the default settings
#       tests just that; weights.mapread=0 tests files that become quiet between close and open.
#       sibling=true makes a file of such a name first, so that aimss knows what to expect and passes the one
#       under test through to memory; otherwise it is of unknown size and lives in the backing's page cache.
#       A run is repeated by the same arguments. What fsx says and the contents it expected are shown or
#       left in a directory named on failure.
# Limits: one process, one file. SEED is a number up to 2^63.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 3 ] || usage "DIR OPS SEED [KEY=VALUE...]"
need fsx
ops=$2 seed=$3
[[ $ops =~ ^[1-9][0-9]*$ && $seed =~ ^[0-9]+$ ]] || usage "DIR OPS SEED [KEY=VALUE...] with numbers"
directories "$1"
shift 3

# Sizes: the file is small enough that operations overlap all the time, and ends on no page. A fallocate of
# no bytes is an error, hence the minimum of 1. Syncs are rare: each costs a disk write on a durable mount.
declare -A setting=(
    [flen]=262133 [nomsyncafterwrite]=false [sibling]=false
    [opsize.min]=1 [opsize.max]=65536 [opsize.align]=1
    [weights.close_open]=3 [weights.read]=10 [weights.write]=10 [weights.mapread]=5 [weights.mapwrite]=10
    [weights.truncate]=5 [weights.invalidate]=1 [weights.fsync]=0.2 [weights.fdatasync]=0.2
    [weights.posix_fallocate]=3 [weights.punch_hole]=5 [weights.sendfile]=3 [weights.posix_fadvise]=2
    [weights.copy_file_range]=5
)
for pair in "$@"; do
    key=${pair%%=*}
    [[ $pair == *=* && -n ${setting[$key]:-} ]] ||
        usage "DIR OPS SEED [KEY=VALUE...]: no setting is called $key"
    setting[$key]=${pair#*=}
done
# With an alignment, fsx asks for a fallocate of no bytes near the end of the file and takes the error for
# a failure of the file system, so there is none then.
[ "${setting[opsize.align]}" = 1 ] || setting[weights.posix_fallocate]=0

sibling=${setting[sibling]}
unset "setting[sibling]"

artifacts=$(mktemp -d) || fail "cannot make a directory for what fsx leaves"
for section in "" opsize weights; do
    [ -z "$section" ] || echo "[$section]"
    for key in "${!setting[@]}"; do
        # A key without a dot belongs to no section.
        [ "${key%"${key##*.}"}" = "${section:+$section.}" ] && echo "${key##*.} = ${setting[$key]}"
    done
done >"$artifacts/fsx.toml"

[ "$sibling" = false ] || head -c 262133 /dev/zero >"$WORK/file-0"
done_ops=0 slice_seed=$seed
while [ "$done_ops" -lt "$ops" ]; do
    slice=$((ops - done_ops))
    [ "$slice" -le "${SLICE:-50000}" ] || slice=${SLICE:-50000}
    if ! nice fsx -f "$artifacts/fsx.toml" -N "$slice" -S "$slice_seed" -P "$artifacts" "$WORK/file-1" \
        >"$artifacts/log" 2>&1; then
        tail -n 40 "$artifacts/log" >&2
        cp "$WORK/file-1" "$artifacts/file.found"
        fail "mismatch or error with seed $slice_seed in the $slice operations after $done_ops" \
            "(settings, log, expected and found contents: $artifacts)"
    fi
    done_ops=$((done_ops + slice))
    slice_seed=$((slice_seed + 1))
done
rm -rf "$artifacts"
pass "$ops operations, seed $seed"
