#!/usr/bin/env python3
"""Stream files and their consumer groups: one check after the other of all that they promise.

usage: stream_groups.py DIR REF [CHECK...]

What: stream_view.py's checks of the file that is appended to and read; then those here, of `x.stream@GROUP`:
waiting (read, poll, select, epoll, signals, Ctrl-C, SIGKILL), what a read gives (whole records, as many as
fit), who is given what (sharing, order, redelivery), `+eof`, names, and what rename and unlink do. Each
line says how a check went; all are run, whatever failed. CHECKs are words of the names of those to run.
How:  see checks.py; another process appends while one waits.
Limits: where the file system has no groups, what any file can show is checked, and the test is skipped.
Framing is `line`. No check takes longer than 60 seconds.
"""

import errno
import mmap
import os
import pty
import random
import select
import signal
import statistics
import subprocess
import sys
import time

import checks
import stream_view
import streams
import verdict
from checks import ended, expect, fork, refused, succeeded, within
from streams import (
    AT_ONCE_SECONDS, PAUSE_SECONDS, Member, append, append_later, by_epoll, by_poll, by_select, drain, give,
    group_path, interrupted_read, lines, wakes,
)

# The promise is 50 ms, as a median: others use this machine too.
INTERRUPT_SECONDS = 0.05
KILL_SECONDS = 5
# One request of FUSE: a longer read is several, which must not acknowledge one another.
REQUEST_BYTES = 1 << 20


def blocked(path, without=()):
    """A child that waits in a read of a group, and ends well when it was given something.

    `without` are members whose descriptors it must not share.
    """
    ready, said = os.pipe()

    def wait():
        for other in without:
            other.close()
        member = Member(path)
        os.write(said, b".")
        expect(os.read(member.descriptor, 1 << 16) != b"", "a blocked read ended with nothing")

    child = fork(wait)
    os.read(ready, 1)
    time.sleep(0.1)
    expect(ended(child, 0) is None, "a read at the tail did not wait")
    return child


# --- waiting ----------------------------------------------------------------------------------------------


def an_append_wakes_a_blocked_read(stream, _reference):
    append(stream)
    with Member(stream) as member:
        for number in range(3):
            record = b"record %d\n" % number
            begin = time.monotonic()
            child = append_later(PAUSE_SECONDS, stream, record)
            give(member, record, "what was appended")
            took = time.monotonic() - begin
            expect(took > PAUSE_SECONDS * 0.9, f"a read at the tail returned after {took:.3f} s")
            expect(took < PAUSE_SECONDS + 1, f"a read woke {took - PAUSE_SECONDS:.3f} s after the append")
            succeeded(child, AT_ONCE_SECONDS, "the appending process")


def every_blocked_member_is_woken(stream, _reference):
    append(stream)
    children = [blocked(stream) for _ in range(4)]
    for number in range(4):
        append(stream, b"%d\n" % number)
        time.sleep(0.1)
    for child in children:
        succeeded(child, AT_ONCE_SECONDS, "one of four blocked members, given four records")


def a_nonblocking_read_at_the_tail_says_again(stream, _reference):
    append(stream)
    with Member(stream, nonblocking=True) as member:
        expect(member.try_read() is None, "an empty stream gave something")
        append(stream, b"one\n")
        give(member, b"one\n", "after an append")
        expect(member.try_read() is None, "the tail gave something")
        expect(member.try_read() is None, "the tail gave something the second time")


def an_append_wakes_poll(stream, _reference):
    wakes(stream, by_poll, [stream] * 3)


def an_append_wakes_select(stream, _reference):
    wakes(stream, by_select, [stream] * 3)


def an_append_wakes_epoll(stream, _reference):
    wakes(stream, by_epoll(), [stream] * 3)


def what_comes_back_wakes_poll(stream, _reference):
    append(stream, b"one\n")
    first, second = Member(stream), Member(stream, nonblocking=True)
    give(first, b"one\n", "the first member")
    poller = select.poll()
    poller.register(second, select.POLLIN)
    expect(not poller.poll(200), "poll sees a record that another member holds")
    first.close()
    expect(poller.poll(AT_ONCE_SECONDS * 1000), "poll was not woken by what a member gave back")
    give(second, b"one\n", "what was given back")


def expect_interrupted(stream, number, send):
    append(stream)
    with Member(stream) as member:
        took = sorted(interrupted_read(member, number, send) for _ in range(7))
        median = statistics.median(took)
        expect(median <= INTERRUPT_SECONDS, f"interrupted after {median * 1000:.0f} ms (median of 7)")
        expect(took[-1] < 2, f"interrupted after {took[-1]:.1f} s once")
        child = append_later(PAUSE_SECONDS, stream, b"after\n")
        signal.signal(number, signal.SIG_IGN)
        give(member, b"after\n", "after it was interrupted")
        succeeded(child, AT_ONCE_SECONDS, "the appending process")


def sigalrm_interrupts_a_read(stream, _reference):
    def send():
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return time.monotonic() + 0.2

    expect_interrupted(stream, signal.SIGALRM, send)


def sigusr1_interrupts_a_read(stream, _reference):
    def send():
        parent, at = os.getpid(), time.monotonic() + 0.2

        def wait_and_kill():
            time.sleep(max(0, at - time.monotonic()))
            os.kill(parent, signal.SIGUSR1)

        fork(wait_and_kill)
        return at

    expect_interrupted(stream, signal.SIGUSR1, send)


def many_signals_lose_no_record(stream, _reference):
    append(stream)
    count = 400

    def write():
        source = random.Random(3)
        for line in lines(0, count):
            append(stream, line)
            time.sleep(source.random() * 0.006)

    got = []
    with Member(stream) as member:
        signal.signal(signal.SIGVTALRM, lambda *_: None)
        signal.signal(signal.SIGUSR2, lambda *_: None)
        parent = os.getpid()

        def disturb():
            source = random.Random(4)
            while os.getppid() == parent:
                os.kill(parent, signal.SIGUSR2)
                time.sleep(source.random() * 0.003)

        disturber, writer = fork(disturb), fork(write)
        with within(30, "reading under signals"):
            while b"".join(got).count(b"\n") < count:
                got.append(os.read(member.descriptor, 4096))
        os.kill(disturber, signal.SIGKILL)
        succeeded(writer, AT_ONCE_SECONDS, "the appending process")
    expect(b"".join(got) == b"".join(lines(0, count)), "records are missing, twice or out of order")


def control_c_ends_a_reader(stream, _reference):
    append(stream)
    child, terminal = pty.fork()
    if child == 0:
        # Whoever runs this in the background may have it ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvp("cat", ["cat", group_path(stream, "g")])
    status = None
    try:
        time.sleep(0.5)
        expect(ended(child, 0) is None, "cat of a group at the tail did not wait")
        begin = time.monotonic()
        os.write(terminal, b"\x03")
        status = ended(child, KILL_SECONDS)
        expect(status is not None, f"Ctrl-C did not end cat within {KILL_SECONDS} s")
        expect(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT, f"cat ended with {status}")
        expect(time.monotonic() - begin < 1, f"Ctrl-C took {time.monotonic() - begin:.1f} s")
    finally:
        os.close(terminal)
        if status is None:
            os.kill(child, signal.SIGKILL)


def sigkill_ends_a_blocked_reader(stream, _reference):
    append(stream)
    children = [blocked(stream) for _ in range(3)]
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        status = ended(child, KILL_SECONDS)
        expect(status is not None, f"a blocked reader is not dead {KILL_SECONDS} s after SIGKILL")
    append(stream, b"after\n")
    with Member(stream) as member:
        give(member, b"after\n", "the next member")


# --- what a read gives ------------------------------------------------------------------------------------


def only_whole_records_are_given(stream, _reference):
    writer = os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with Member(stream, nonblocking=True) as member:
        os.write(writer, b"half")
        time.sleep(0.1)
        expect(member.try_read() is None, "half a record was given")
        os.write(writer, b" and half\nnext")
        give(member, b"half and half\n", "once its end was there")
        expect(member.try_read() is None, "the beginning of the next record was given")
        os.write(writer, b"\n\n\nlast\n")
        give(member, b"next\n\n\nlast\n", "with empty lines")
        expect(stream.read_bytes() == b"half and half\nnext\n\n\nlast\n", "the file holds other bytes")
    os.close(writer)


def a_read_gives_as_many_as_fit(stream, _reference):
    records = lines(0, 1000)
    append(stream, *records)
    with Member(stream) as member:
        at = 0
        for size, count in (4096, 409), (10, 1), (19, 1), (20, 2), (25, 2), (5000, 500), (65536, 85):
            data = member.read(size)
            wanted = b"".join(records[at : at + count])
            expect(data == wanted, f"a read of {size} bytes gave {len(data)} in place of {len(wanted)}")
            at += count


def a_read_larger_than_a_request_acknowledges_nothing(stream, _reference):
    # Aligned buffers and records that fill a request to its last byte: the kernel asks again by itself.
    everything = b"".join(lines(0, 2 * REQUEST_BYTES // 16, width=15))
    append(stream, *(everything[at : at + 65536] for at in range(0, len(everything), 65536)))
    member = Member(stream)
    buffer = mmap.mmap(-1, 4 * REQUEST_BYTES)
    with within(AT_ONCE_SECONDS, "a read of 4 MiB where 2 MiB are"):
        count = os.readv(member.descriptor, [buffer])
    expect(count % 16 == 0 and buffer[:count] == everything[:count], "it gave other bytes")
    member.close()
    with Member(stream) as member:
        data = member.read(4096)
        expect(data == everything[:4096], f"after it was closed, its batch is not given again: {data[:32]}")


def a_record_longer_than_the_buffer_is_refused_and_kept(stream, _reference):
    long = b"x" * 5000 + b"\n"
    append(stream, b"a\n", long, b"b\n")
    with Member(stream) as member:
        data = member.read(100)
        expect(data == b"a\n", f"a read before a long record gave {data}")
        for _ in range(2):
            refused([errno.EMSGSIZE], "a read of 100 bytes at a record of 5001", member.read, 100)
        refused([errno.EMSGSIZE], "a read of 5000 bytes at a record of 5001", member.read, 5000)
        data = member.read(8192)
        expect(data == long + b"b\n", f"with room it gave {len(data)} bytes in place of {len(long) + 2}")
    with Member(stream, "other", nonblocking=True) as member:
        give(member, b"a\n" + long + b"b\n", "another group")


# --- who is given what ------------------------------------------------------------------------------------


def what_is_not_acknowledged_at_close_is_given_again(stream, _reference):
    records = lines(0, 30)
    append(stream, *records)
    with Member(stream) as first:
        for at in 0, 10:
            expect(first.read(100) == b"".join(records[at : at + 10]), "the first member was given others")
    waiting = Member(stream)
    data = waiting.read(1000)
    expect(data.startswith(records[10]), f"after a close the batch is not given again: {data[:20]}")
    data += waiting.read(1000) if len(data) < 200 else b""
    expect(data == b"".join(records[10:]), "not in order, or not all")
    waiting.close()
    expect(b"".join(records[10:]).endswith(drain(stream)), "acknowledged ones were given again")


def what_is_given_back_wakes_a_blocked_member(stream, _reference):
    append(stream, b"one\n")
    member = Member(stream)
    give(member, b"one\n", "the first member")
    child = blocked(stream, without=[member])
    member.close()
    succeeded(child, AT_ONCE_SECONDS, "a blocked member, when another closed with a batch")


def what_a_killed_member_held_is_given_again(stream, _reference):
    records = lines(0, 40)
    append(stream, *records)
    ready, said = os.pipe()

    def hold():
        member = Member(stream)
        os.read(member.descriptor, 100)
        os.read(member.descriptor, 100)
        os.write(said, b".")
        time.sleep(60)

    child = fork(hold)
    os.read(ready, 1)
    with Member(stream) as other:
        data = b""
        while len(data) < 200:
            data += other.read(200 - len(data))
        expect(data == b"".join(records[20:40]), f"beside a member that holds 10 to 19, another got {data}")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        give(other, b"".join(records[10:20]), "what the killed member held")
    expect(drain(stream) == b"".join(records[10:20]), "what another held at its close is not given again")
    expect(drain(stream) == b"", "all was acknowledged, and something is given")


def a_descriptor_shared_by_fork_is_one_member(stream, _reference):
    append(stream, *lines(0, 4))
    member = Member(stream)

    def read_in_child():
        expect(os.read(member.descriptor, 10) == lines(0, 1)[0], "the child was given another record")

    succeeded(fork(read_in_child), AT_ONCE_SECONDS, "a forked child that reads")
    expect(member.read(10) == lines(1, 2)[0], "its end gave a batch back that it shared")
    member.close()


def members_share_the_records_in_order(stream, _reference):
    records = lines(0, 2000)
    append(stream, *records)
    members = [Member(stream, eof=True) for _ in range(4)]
    given = [[] for _ in members]
    source = random.Random(5)
    done = set()
    while len(done) < len(members):
        which = source.randrange(len(members))
        data = members[which].read(source.choice((10, 100, 333)))
        done.discard(which) if data else done.add(which)
        given[which] += data.splitlines(keepends=True)
    for part in given:
        expect(part == sorted(part), "a member was given records out of order")
        expect(part, "a member was given nothing")
    together = [record for part in given for record in part]
    expect(len(together) == len(records), f"{len(together)} were given in place of {len(records)}")
    expect(sorted(together) == records, "some were given twice, others not at all")


def groups_do_not_know_each_other(stream, _reference):
    records = lines(0, 100)
    append(stream, *records[:50])
    with Member(stream, "one") as one, Member(stream, "two", nonblocking=True) as two:
        expect(one.read(500) == b"".join(records[:50]), "the first group was given others")
        expect(two.try_read(100) == b"".join(records[:10]), "the second group was given others")
        append(stream, *records[50:])
        expect(one.read(1000) == b"".join(records[50:]), "the first group did not go on")
    expect(drain(stream, "two") == b"".join(records), "the second group's batch was not given again, and all")
    expect(drain(stream, "one") == b"".join(records[50:]), "the first group's last batch was not given again")
    expect(drain(stream, "late") == b"".join(records), "a new group does not begin with the earliest record")


def eof_ends_at_the_tail(stream, _reference):
    append(stream)
    with Member(stream, eof=True) as member:
        expect(member.read() == b"", "an empty stream gave something")
        append(stream, b"one\n", b"two\n")
        expect(member.read_to_end() == b"one\ntwo\n", "after appends it gave others")
        expect(member.read() == b"", "it gave something at the tail")
        append(stream, b"three\n")
        give(member, b"three\n", "after the next append")
        expect(member.read() == b"", "it gave something at the tail")
    with Member(stream, nonblocking=True) as member:
        expect(member.try_read() is None, "what it acknowledged at its end is given to its group again")
    append(stream, *lines(0, 5000))
    for wanted in b"".join(lines(0, 5000)), b"":
        said = subprocess.run(
            ["cat", group_path(stream, "g", eof=True)], stdout=subprocess.PIPE, timeout=20, check=True
        )
        expect(said.stdout == wanted, f"cat gave {len(said.stdout)} bytes in place of {len(wanted)}")
    with open(group_path(stream, "text", eof=True), encoding="ascii") as file:
        expect(sum(1 for _ in file) == 5003, "Python's open() read another number of lines")


def eight_writers_are_read_whole_and_in_order(stream, _reference):
    append(stream)
    each = 1000
    writers = [fork(stream_view.append_numbered, stream, w, each) for w in range(stream_view.WRITERS)]
    wanted = sum(len(stream_view.numbered(w, n)) for w in range(stream_view.WRITERS) for n in range(each))
    got, size = [], 0
    with Member(stream) as member, within(40, "reading behind eight writers"):
        while size < wanted:
            got.append(os.read(member.descriptor, 1 << 16))
            expect(got[-1].endswith(b"\n"), "a read ended within a record")
            size += len(got[-1])
    for writer in writers:
        succeeded(writer, AT_ONCE_SECONDS, "a process that appends")
    stream_view.expect_numbered(b"".join(got), each)


# --- names ------------------------------------------------------------------------------------------------


def other_names_of_groups_are_refused(stream, _reference):
    append(stream, b"one\n")
    for name in "x" * 65, "x" * 300, ".hidden", "..", "two words", "a@b", "\u00e4", "a\n":
        refused(
            [errno.EINVAL, errno.ENAMETOOLONG],
            f"a group called {name[:70]!r}",
            os.open,
            group_path(stream, name),
            os.O_RDONLY,
        )
    for name in "x" * 64, "a", "trainer-1.b_C", "0":
        with Member(stream, name, nonblocking=True) as member:
            give(member, b"one\n", f"a group called {name}")


def a_group_of_no_stream_is_not_there(stream, _reference):
    plain = stream.with_name("plain.log")
    append(plain, b"one\n")
    for path in plain, stream, stream.with_name("missing.stream"):
        refused([errno.ENOENT], f"a group of {path.name}", os.open, group_path(path, "g"), os.O_RDONLY)
    expect(not stream.exists(), "looking for a group made a stream")


def a_group_cannot_be_written(stream, _reference):
    append(stream, b"one\n")
    drain(stream)
    numbers = [errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS, errno.EBADF, errno.EOPNOTSUPP]

    def write():
        descriptor = os.open(group_path(stream, "g"), os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"two\n")

    refused(numbers, "a write to a group", write)
    expect(stream.read_bytes() == b"one\n", "it changed the stream")


def rm_removes_a_group(stream, _reference):
    append(stream, *lines(0, 10))
    expect(drain(stream) == b"".join(lines(0, 10)), "the group was given others")
    expect(drain(stream) == b"", "the group was given something twice")
    subprocess.run(["rm", group_path(stream, "g")], check=True, timeout=AT_ONCE_SECONDS)
    expect(drain(stream) == b"".join(lines(0, 10)), "after rm the group does not begin again")
    expect(stream.read_bytes() == b"".join(lines(0, 10)), "rm of a group changed the stream")


def rename_takes_groups_along(stream, _reference):
    renamed = stream.with_name("renamed.stream")
    append(stream, *lines(0, 10))
    with Member(stream) as member:
        member.read(50)
        member.read(10)
    os.rename(stream, renamed)
    refused([errno.ENOENT], "the group at the old name", os.open, group_path(stream, "g"), os.O_RDONLY)
    append(renamed, *lines(10, 12))
    expect(drain(renamed) == b"".join(lines(5, 12)), "under the new name the group does not go on")
    append(stream, b"a new one\n")
    expect(drain(stream) == b"a new one\n", "the old name's new stream has a group that knows other records")


def unlink_takes_groups_along(stream, _reference):
    append(stream, *lines(0, 10))
    drain(stream)
    child = blocked(stream)
    os.unlink(stream)
    refused([errno.ENOENT], "a group of a removed stream", os.open, group_path(stream, "g"), os.O_RDONLY)
    os.kill(child, signal.SIGTERM)
    expect(ended(child, KILL_SECONDS) is not None, "a reader of a removed stream is not ended by SIGTERM")
    append(stream, b"again\n")
    expect(drain(stream) == b"again\n", "a new stream's group knows the one that was removed")


GROUPS = [
    an_append_wakes_a_blocked_read,
    every_blocked_member_is_woken,
    a_nonblocking_read_at_the_tail_says_again,
    an_append_wakes_poll,
    an_append_wakes_select,
    an_append_wakes_epoll,
    what_comes_back_wakes_poll,
    sigalrm_interrupts_a_read,
    sigusr1_interrupts_a_read,
    many_signals_lose_no_record,
    control_c_ends_a_reader,
    sigkill_ends_a_blocked_reader,
    only_whole_records_are_given,
    a_read_gives_as_many_as_fit,
    a_read_larger_than_a_request_acknowledges_nothing,
    a_record_longer_than_the_buffer_is_refused_and_kept,
    what_is_not_acknowledged_at_close_is_given_again,
    what_is_given_back_wakes_a_blocked_member,
    what_a_killed_member_held_is_given_again,
    a_descriptor_shared_by_fork_is_one_member,
    members_share_the_records_in_order,
    groups_do_not_know_each_other,
    eof_ends_at_the_tail,
    eight_writers_are_read_whole_and_in_order,
    other_names_of_groups_are_refused,
    a_group_of_no_stream_is_not_there,
    a_group_cannot_be_written,
    rm_removes_a_group,
    rename_takes_groups_along,
    unlink_takes_groups_along,
]


def main():
    words = sys.argv[3:]
    del sys.argv[3:]
    directory, reference, _ = verdict.directories("DIR REF [CHECK...]", optional=1)
    served = streams.served(directory)
    known = stream_view.PLAIN + (stream_view.STREAM + GROUPS if served else [])
    chosen = [c for c in known if not words or any(word in c.__name__.replace("_", " ") for word in words)]
    verdict.check(chosen or not served, f"no check has {words} in its name")
    failed = checks.run(chosen, directory, reference)
    verdict.check(not failed, f"{len(failed)} of {len(chosen)} checks failed: {'; '.join(failed)}")
    if not served:
        verdict.skip(f"no consumer groups in {sys.argv[1]} ({len(chosen)} checks of plain files passed)")
    verdict.succeed(f"{len(chosen)} checks of stream files and groups")


main()
