#!/usr/bin/env bash
# The original pjdfstest (C and shell, 8,827 assertions), as root, on DIR.
#
# usage: PJDFSTEST_DIR=CHECKOUT pjdfstest-original.sh DIR [TEST...]
#
# What: runs the suite of an already built checkout with prove, prints the totals and, for each failing
#       assertion, its file, number and what was tried. TESTs are paths below CHECKOUT/tests (rename,
#       open/07.t); without them the whole suite runs.
# How:  the suite asks df for the type of the file system and leaves out what it does not expect there; for
#       a mount of ours to get all that ext4 gets, it is told PJDFSTEST_FS (default ext4) by a df of
#       our own. Files run PJDFSTEST_JOBS at a time (default 2: the suite mostly sleeps and forks).
#       The output is kept in PJDFSTEST_LOG when that is set.
# Limits: the checkout is not part of this repository; PJDFSTEST_DIR names it, and without it the test is
#       skipped. Cases for FreeBSD alone (chflags, posix_fallocate, birth times) pass without being tried.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 1 ] || usage "DIR [TEST...]"
[ -n "${PJDFSTEST_DIR:-}" ] || skip "PJDFSTEST_DIR does not name a built checkout of the original pjdfstest"
[ -x "$PJDFSTEST_DIR/pjdfstest" ] || skip "there is no built pjdfstest in $PJDFSTEST_DIR"
need prove perl
[ "$(id -u)" = 0 ] || skip "pjdfstest needs root"
suite=$(realpath -- "$PJDFSTEST_DIR")
directories "$1"
shift

scratch=$(mktemp -d) || fail "cannot make a directory for the log"
log=${PJDFSTEST_LOG:-$scratch/log}
type=${PJDFSTEST_FS:-ext4}
mkdir "$scratch/bin"
cat >"$scratch/bin/df" <<DF
#!/bin/sh
[ "\$*" = "-PT ." ] || exec $(command -v df) "\$@"
printf 'Filesystem Type 1024-blocks Used Available Capacity Mounted\nnone $type 1 0 1 0%% /\n'
DF
chmod +x "$scratch/bin/df"

tests=("$suite/tests")
[ $# -eq 0 ] || tests=("${@/#/$suite/tests/}")
# prove forgets which assertion failed and why, so each file's own lines are kept beside the log.
mkdir "$scratch/tap"
cat >"$scratch/keep" <<'KEEP'
#!/bin/bash
set -o pipefail
name=${1#"$SUITE/tests/"}
/bin/sh "$1" 2>&1 | tee "$TAP/${name//\//_}"
KEEP
chmod +x "$scratch/keep"
(cd "$WORK" && umask 022 && export PATH="$scratch/bin:$PATH" SUITE="$suite" TAP="$scratch/tap" &&
    nice prove -r -j "${PJDFSTEST_JOBS:-2}" -e "$scratch/keep" "${tests[@]}") >"$log" 2>&1
status=$?
totals=$(grep -E '^Files=' "$log" | tail -n 1)
if [ -z "$totals" ]; then
    tail -n 20 "$log" >&2
    fail "prove ended with status $status before its totals"
fi
if [ "$status" != 0 ]; then
    sed -n '/^Test Summary Report/,/^Files=/p' "$log"
    cd "$scratch/tap" || fail "the lines of the tests are gone"
    failed=$(cat ./* | grep '^not ok' | grep -vc '# TODO')
    grep -H '^not ok' -- * | grep -v '# TODO' | head -n 200
    rm -rf "$scratch"
    fail "$failed assertions failed; $totals"
fi
rm -rf "$scratch"
pass "$totals"
