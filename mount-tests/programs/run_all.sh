#!/usr/bin/env bash
# Runs every test of this directory on DIR and prints a table.
#
# usage: run_all.sh DIR REF [TEST...]
#
# What: each TEST (a script's name; without any, all of them) with its result, its seconds and its last line;
#       exits 1 when one failed or ran too long. What a failed test said is printed below the table.
# How:  one after another, in the order of the list below. These can be changed from outside:
#         FSX_OPS (100000)  FSX_SEED (1)  ENTRIES (200000, of dir_churn.py)  COMMITS (400, of git_tree.sh)
#         FILES (8000, of tree.sh)  SOAK_SECONDS (600, of stream_soak.py)
#         LIMIT_SECONDS (1800, for each test)  NO_SKIPS=1 (a skipped test fails)
#       and what the tests themselves read: PJDFSTEST_DIR, PJDFSTEST_REMOUNT, AIMSS_TEST_TOOLS, KEEP.
# Limits: DIR and REF need 3 GB of room. A test that hangs in the kernel cannot be ended, and is then said to
#       be left behind.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 2 ] || usage "DIR REF [TEST...]"
dir=$1 ref=$2
shift 2
[ -d "$dir" ] && [ -d "$ref" ] || usage "DIR REF [TEST...]: both must be directories"
ops=${FSX_OPS:-100000} seed=${FSX_SEED:-1}

# A name, then the command. fsx: mappings that are kept; none kept, so that files become quiet at every close;
# whole pages, without msync; a file of many huge pages.
pages="opsize.align=4096 opsize.min=4096 flen=1048576 nomsyncafterwrite=true"
TESTS=(
    "pjdfstest.sh          pjdfstest.sh $dir $ref"
    "pjdfstest-original.sh pjdfstest-original.sh $dir"
    "fsx                   fsx.sh $dir $ops $seed"
    "fsx_quiet             fsx.sh $dir $ops $seed weights.mapread=0 weights.close_open=20"
    "fsx_pages             fsx.sh $dir $ops $seed $pages"
    "fsx_large             fsx.sh $dir $((ops / 10 + 1)) $seed flen=33554432 opsize.max=2097152"
    "zip_npz.py            zip_npz.py $dir $ref"
    "memmap_test.py        memmap_test.py $dir $ref"
    "lmdb_test.py          lmdb_test.py $dir $ref"
    "hdf5_test.py          hdf5_test.py $dir $ref"
    "safetensors_test.py   safetensors_test.py $dir $ref"
    "torch_save.py         torch_save.py $dir $ref"
    "sqlite_wal.py         sqlite_wal.py $dir $ref"
    "concurrent_append.py  concurrent_append.py $dir $ref"
    "dir_churn.py          dir_churn.py $dir $ref ${ENTRIES:-200000}"
    "fio_verify.sh         fio_verify.sh $dir $ref"
    "git_tree.sh           git_tree.sh $dir $ref ${COMMITS:-400}"
    "tree.sh               tree.sh $dir $ref ${FILES:-8000}"
    "stream_groups.py      stream_groups.py $dir $ref"
    "stream_partitions.py  stream_partitions.py $dir $ref ${AIMSS_BIN:-aimss}"
    "stream_programs.sh    stream_programs.sh $dir $ref"
    "stream_soak.py        stream_soak.py $dir $ref --seconds ${SOAK_SECONDS:-600}"
)

said=$(mktemp -d) || fail "cannot make a directory for what the tests say"
failed=0 ran=0 skipped=0
printf '%-22s %-8s %8s  %s\n' test result seconds said
for line in "${TESTS[@]}"; do
    # Words are split at spaces: directories with spaces in their names do not pass.
    read -r name script arguments <<<"$line"
    if [ $# -gt 0 ]; then
        [[ " $* " == *" $name "* || " $* " == *" $script "* ]] || continue
    fi
    begin=$EPOCHREALTIME
    # shellcheck disable=SC2086 # the arguments are words
    timeout --kill-after=30 "${LIMIT_SECONDS:-1800}" "$HERE/$script" $arguments >"$said/$name" 2>&1 </dev/null
    status=$?
    seconds=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    case $status in
        0) result=pass; ran=$((ran + 1)) ;;
        77) result=skipped; skipped=$((skipped + 1)) ;;
        124 | 137) result="too long"; failed=$((failed + 1)) ;;
        *) result=FAILED; failed=$((failed + 1)) ;;
    esac
    last=$(grep -E "^(skipped: |$script: (ok|FAILED): )" "$said/$name" | tail -n 1 |
        sed "s/^skipped: //; s/^$script: [a-zA-Z]*: //")
    printf '%-22s %-8s %8s  %s\n' "$name" "$result" "$seconds" "${last:-ended with status $status}"
    [[ $result = FAILED || $result = "too long" ]] || rm -f "$said/$name"
done
[ $((ran + failed + skipped)) -gt 0 ] || { rm -rf "$said"; usage "DIR REF [TEST...]: no test is called $*"; }
for output in "$said"/*; do
    [ -e "$output" ] || continue
    echo "== ${output##*/} said (its last 60 lines):"
    tail -n 60 "$output"
done
rm -rf "$said"
[ "$failed" = 0 ] || fail "$failed of $((ran + failed + skipped)) tests failed"
[ "${NO_SKIPS:-0}" = 0 ] || [ "$skipped" = 0 ] || fail "$skipped tests were skipped, and none may be"
pass "$ran tests passed, $skipped were skipped"
