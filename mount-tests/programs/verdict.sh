# shellcheck shell=bash disable=SC2034
# Sourced by the shell tests here: where the tools lie, and the three ways a test ends.
#
# What: `pass` prints the one line of success, `fail` a clear sentence on stderr and exit 1, `skip` one line
#       on stdout and exit 77. `directories` checks the DIR and REF arguments and makes a scratch directory
#       of this test alone in each ($WORK and $WORK_REF), removed when the test passes and kept for a look
#       when it fails.
# Limits: bash 5, GNU coreutils.

set -uo pipefail
export LC_ALL=C
# Commands that wait for a terminal (git, ssh, apt) must fail rather than hang a test.
export GIT_TERMINAL_PROMPT=0
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_NAME=$(basename "$0")
TOOLS=${AIMSS_TEST_TOOLS:-$HOME/.cache/aimss-tests}
export PATH="$TOOLS/bin:$PATH"
WORK=
WORK_REF=

pass() {
    if [ "${KEEP:-0}" = 0 ]; then
        [ -z "$WORK" ] || rm -rf -- "$WORK" || fail "cannot remove the scratch directory $WORK"
        [ -z "$WORK_REF" ] || rm -rf -- "$WORK_REF"
    fi
    echo "$TEST_NAME: ok: $*"
    exit 0
}

fail() {
    echo "$TEST_NAME: FAILED: $*" >&2
    [ -z "$WORK" ] || echo "$TEST_NAME: left for a look: $WORK${WORK_REF:+ and $WORK_REF}" >&2
    exit 1
}

skip() {
    [ -z "$WORK" ] || rm -rf -- "$WORK"
    [ -z "$WORK_REF" ] || rm -rf -- "$WORK_REF"
    echo "skipped: $*"
    exit 77
}

usage() {
    echo "usage: $TEST_NAME $*" >&2
    exit 2
}

need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "$program is missing (install.sh installs it)"
    done
}

# directories DIR [REF]: sets WORK and WORK_REF to fresh directories inside them.
directories() {
    [ -d "$1" ] || usage "needs a directory, and $1 is none"
    WORK=$(mktemp -d "$(realpath -- "$1")/${TEST_NAME%.*}.XXXXXX") || fail "cannot make a directory in $1"
    chmod 755 "$WORK"
    if [ $# -ge 2 ]; then
        [ -d "$2" ] || usage "needs a directory, and $2 is none"
        WORK_REF=$(mktemp -d "$(realpath -- "$2")/${TEST_NAME%.*}.XXXXXX") || fail "cannot write to $2"
        chmod 755 "$WORK_REF"
    fi
}
