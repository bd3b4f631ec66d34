#!/usr/bin/env bash
# The POSIX system-call suite of crates.io (pjdfstest in Rust), as root, on DIR.
#
# usage: pjdfstest.sh DIR [SECOND [PATTERN...]]
#
# What: every test case of the suite with all features a local Linux file system has switched on; prints
#       the counts of passed, failed and skipped cases and each failing name with its reason.
# How:  SECOND is a directory on another file system, for the EXDEV cases; without it, or when it lies on
#       the same one, /dev/shm or /var/tmp is taken, whichever differs. PATTERNs choose cases by part of
#       their name. The users the suite switches to (nobody and tests) are made when they are missing.
#       PJDFSTEST_REMOUNT=1 adds the EROFS cases, which remount the file system of DIR read-only: only for
#       a mount that exists for the test. The suite's own output is kept in PJDFSTEST_LOG when that is set.
# Limits: the suite has no cases on Linux for chflags, NFSv4 ACLs and birth times. ETXTBSY is tried with
#       the suite's own binary copied into DIR, so DIR must allow execution.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 1 ] || usage "DIR [SECOND [PATTERN...]]"
need pjdfstest
[ "$(id -u)" = 0 ] || skip "pjdfstest needs root"
directories "$1"
second=${2:-}
shift $(($# < 2 ? $# : 2))

getent group nogroup >/dev/null || groupadd -g 65534 nogroup || fail "cannot make the group nogroup"
getent passwd nobody >/dev/null || useradd -M -u 65534 -g nogroup nobody || fail "cannot make the user nobody"
getent passwd tests >/dev/null || useradd -M -U -s /usr/sbin/nologin tests ||
    fail "cannot make the user tests"

device() { stat -c %d -- "$1"; }
if [ -z "$second" ] || [ "$(device "$second")" = "$(device "$WORK")" ]; then
    second=
    for other in /dev/shm /var/tmp; do
        [ "$(device $other)" = "$(device "$WORK")" ] || { second=$other; break; }
    done
fi

settings=$(mktemp -d) || fail "cannot make a directory for the settings"
log=${PJDFSTEST_LOG:-$settings/log}
# A nap must be longer than the granularity of time stamps, which is a tick of the kernel: 10 ms at most.
cat >"$settings/pjdfstest.toml" <<TOML
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = $([ "${PJDFSTEST_REMOUNT:-0}" = 1 ] && echo true || echo false)

[dummy_auth]
entries = [["nobody", "$(id -gn nobody)"], ["tests", "$(id -gn tests)"]]
TOML

# The suite's users must be able to reach its directory.
parent=$WORK
while [ "$parent" != / ]; do
    parent=$(dirname "$parent")
    setpriv --reuid=nobody --clear-groups test -x "$parent" ||
        fail "the user nobody cannot pass through $parent"
done

# A socket's path must fit into 108 bytes, and the suite makes paths absolute, so it sees WORK under a short
# name, in a mount name space of its own that ends with it. A file it is to execute is copied from where others
# may read it; a missing home must not matter.
short=$(mktemp -d /tmp/pjd.XXX) && chmod 755 "$short" || fail "cannot make a directory in /tmp"
# shellcheck disable=SC2016  # expanded by the inner shell
NO_COLOR=1 unshare --mount --propagation private bash -c '
    mount --bind "$1" "$2" && cd "$2" && shift 2 && exec nice "$@"' in-short "$WORK" "$short" \
    pjdfstest -c "$settings/pjdfstest.toml" -p "$short" ${second:+-s "$second"} -- "$@" >"$log" 2>&1
status=$?
rmdir "$short"
sed -i 's/\x1b\[[0-9;]*m//g' "$log"
grep -A1 'FAILED$' "$log"
summary=$(sed -n 's/^Summary: //p' "$log")
if [ -z "$summary" ]; then
    tail -n 20 "$log" >&2
    fail "pjdfstest ended with status $status before its summary"
fi
echo "skipped cases by reason:"
grep -A1 ' skipped$' "$log" | grep -P '^\t' | sort | uniq -c
[ "$status" = 0 ] || { rm -rf "$settings"; fail "$summary"; }
rm -rf "$settings"
pass "$summary"
