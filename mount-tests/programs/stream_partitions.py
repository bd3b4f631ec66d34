#!/usr/bin/env python3
"""Groups over the partitions of a stream: one check after the other of all that they promise.

usage: stream_partitions.py DIR REF AIMSS [CHECK...]

What: `x.stream` is made with partitions by AIMSS, the binary; writers append to `x.stream/0` and so on,
members open `x.stream@GROUP`. Checks of waiting (read, poll, select, epoll, signals, SIGKILL), of who is
given what (shares, order in each partition, redelivery), of `+eof`, and of what rename, unlink and a missing
partition do. Each line says how a check went; all are run, whatever failed. CHECKs are words of the names of
those to run.
How:  see checks.py; another process appends while one waits.
Limits: framing is `line`. No check takes longer than 60 seconds.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import checks
import streams
import verdict
from checks import ended, expect, fork, refused, succeeded
from streams import (
    AT_ONCE_SECONDS, PAUSE_SECONDS, Member, append, append_later, by_epoll, by_poll, by_select, drain, give,
    group_path, interrupted_read, lines, wakes,
)

KILL_SECONDS = 5
AIMSS = sys.argv[3] if len(sys.argv) > 3 else "aimss"


def make(stream, partitions, *options):
    """Makes the stream; returns the paths of its partitions."""
    command = [AIMSS, "stream", "create", str(stream), "--partitions", str(partitions), *options]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    expect(made.returncode == 0, f"{' '.join(command)}: {made.stderr}")
    return [stream / str(number) for number in range(partitions)]


# --- waiting ----------------------------------------------------------------------------------------------


def an_append_to_any_partition_wakes_a_blocked_read(stream, _reference):
    partitions = make(stream, 4)
    with Member(stream) as member:
        for number in (3, 0, 2, 2, 1, 3):
            begin = time.monotonic()
            child = append_later(PAUSE_SECONDS, partitions[number], b"%d\n" % number)
            give(member, b"%d\n" % number, f"what was appended to partition {number}")
            took = time.monotonic() - begin
            expect(PAUSE_SECONDS * 0.9 < took < PAUSE_SECONDS + 1, f"a read at the tail took {took:.3f} s")
            succeeded(child, AT_ONCE_SECONDS, "the appending process")


def a_nonblocking_read_at_the_tails_says_again(stream, _reference):
    partitions = make(stream, 3)
    with Member(stream, nonblocking=True) as member:
        expect(member.try_read() is None, "an empty stream gave something")
        append(partitions[1], b"one\n")
        append(partitions[2], b"two\n")
        give(member, b"one\n", "of partition 1")
        give(member, b"two\n", "of partition 2")
        expect(member.try_read() is None, "the tails gave something")


def an_append_wakes_poll(stream, _reference):
    wakes(stream, by_poll, make(stream, 3)[::-1])


def an_append_wakes_select(stream, _reference):
    wakes(stream, by_select, make(stream, 3)[::-1])


def an_append_wakes_epoll(stream, _reference):
    wakes(stream, by_epoll(), make(stream, 3)[::-1])


def a_signal_interrupts_a_read(stream, _reference):
    def send():
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return time.monotonic()

    partitions = make(stream, 3)
    with Member(stream) as member:
        for _ in range(3):
            took = interrupted_read(member, signal.SIGALRM, send)
            expect(took < 2, f"interrupted after {took:.1f} s")
        append(partitions[1], b"after\n")
        give(member, b"after\n", "after it was interrupted")


# --- who is given what ------------------------------------------------------------------------------------


def members_share_the_partitions(stream, _reference):
    partitions = make(stream, 4)
    for partition in partitions:
        append(partition, *lines(0, 10))
    first, second = (Member(stream, nonblocking=True) for _ in range(2))
    give(first, b"".join(lines(0, 10)), "the first member, of partition 0")
    got = [0, 0]
    for _ in range(3):
        for index, member in enumerate((second, first)):
            got[index] += len(member.try_read() or b"") // 10
    expect(got == [20, 10], f"{got[0]} and {got[1]} more records were given, in place of 20 and 10")
    with Member(stream, nonblocking=True) as idle:
        expect(idle.try_read() is None, "a third member is given what the others have")
    first.close()
    second.close()
    expect(drain(stream) == b"", "something is not acknowledged")


def who_is_too_many_takes_over(stream, _reference):
    partitions = make(stream, 1)
    append(partitions[0], b"one\n")
    first = Member(stream)
    give(first, b"one\n", "the first member")

    def wait():
        first.close()
        with Member(stream) as member:
            give(member, b"one\n", "the one that took over")

    child = fork(wait)
    time.sleep(PAUSE_SECONDS)
    expect(ended(child, 0) is None, "a member without a partition did not wait")
    first.close()
    succeeded(child, AT_ONCE_SECONDS, "a member that waits for a partition")


def what_a_killed_member_held_is_given_again(stream, _reference):
    partitions = make(stream, 2)
    for partition in partitions:
        append(partition, *lines(0, 10))
    ready, said = os.pipe()

    def hold():
        with Member(stream) as member:
            for _ in range(2):
                member.read(50)
            os.write(said, b".")
            time.sleep(60)

    child = fork(hold)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    expect(ended(child, KILL_SECONDS) is not None, "a member is not ended by SIGKILL")
    left = drain(stream)
    expect(len(left) == 150, f"{len(left)} bytes are left, in place of all but the 50 that were acknowledged")


def a_member_that_hangs_loses_its_partitions_after_the_ack_timeout(stream, _reference):
    partitions = make(stream, 2, "--ack-timeout", "1s")
    for number, partition in enumerate(partitions):
        append(partition, b"%d\n" % number)
    with Member(stream) as hangs, Member(stream) as other:
        give(hangs, b"0\n", "the one that hangs")
        give(other, b"1\n", "the other")
        begin = time.monotonic()
        give(other, b"0\n", "what the one that hangs had")
        took = time.monotonic() - begin
        expect(0.9 < took < 4, f"it came after {took:.1f} s, with an ack timeout of 1 s")
        append(partitions[0], b"more\n")
        give(other, b"more\n", "what came later")


def a_long_record_comes_by_one_read(stream, _reference):
    partitions = make(stream, 2)
    long = b"x" * (3 << 20) + b"\n"
    append(partitions[0], long)
    append(partitions[1], b"short\n")
    with Member(stream) as member:
        got = member.read(4 << 20, seconds=20)
        expect(got == long, f"a read gave {len(got)} bytes in place of {len(long)}")
        give(member, b"short\n", "behind it")


def killed_members_lose_nothing_and_order_is_kept(stream, reference):
    """Writers append numbers, members are killed at random; each number is seen, by each member in order."""
    partitions, count = make(stream, 5), 1500
    source = random.Random(11)

    def read(index):
        with Member(stream) as member, open(reference.with_name(str(index)), "ab", buffering=0) as log:
            while True:
                data = os.read(member.descriptor, 4096)
                expect(data and len(data) % 12 == 0, f"{data[:40]} is not whole records")
                log.write(data)

    writers = [fork(writes, partition, index, count) for index, partition in enumerate(partitions)]
    readers = {index: fork(read, index) for index in range(4)}
    started = len(readers)
    deadline = time.monotonic() + 45

    def seen():
        got = [set() for _ in partitions]
        for index in range(started):
            with open(reference.with_name(str(index)), "ab+") as log:
                log.seek(0)
                data = log.read()
                for begin in range(0, len(data) - len(data) % 12, 12):
                    number, value = data[begin : begin + 12].split()
                    got[int(number)].add(int(value))
        return got

    while time.monotonic() < deadline:
        time.sleep(source.random() * 0.4)
        index = source.choice(list(readers))
        child = readers.pop(index)
        os.kill(child, signal.SIGKILL)
        expect(ended(child, KILL_SECONDS) is not None, "a member is not ended by SIGKILL")
        readers[started] = fork(read, started)
        started += 1
        got = seen()
        if all(len(numbers) == count for numbers in got):
            break
    for writer in writers:
        succeeded(writer, AT_ONCE_SECONDS, "a writer")
    missing = [count - len(numbers) for numbers in seen()]
    expect(not any(missing), f"of the partitions {missing} records are missing")
    for index in range(started):
        in_order(reference.with_name(str(index)))


def writes(partition, index, count):
    for number in range(count):
        append(partition, b"%d %09d\n" % (index, number))
        time.sleep(0.002)


def in_order(log):
    """What one member saw of a partition goes up by one, but where the partition was another's meanwhile."""
    last = {}
    data = log.read_bytes()
    for begin in range(0, len(data) - len(data) % 12, 12):
        number, value = (int(word) for word in data[begin : begin + 12].split())
        before = last.get(number, -1)
        expect(value > before, f"{log}: record {value} of partition {number} came after {before}")
        last[number] = value


def eof_ends_at_the_tail_of_all(stream, _reference):
    partitions = make(stream, 3)
    for number, partition in enumerate(partitions):
        append(partition, *lines(10 * number, 10 * number + 10))
    all_lines = b"".join(lines(0, 30)).split()
    expect(sorted(drain(stream).split()) == all_lines, "+eof did not give all of all partitions")
    expect(drain(stream) == b"", "it is given again")
    append(partitions[2], b"more\n")
    expect(drain(stream) == b"more\n", "+eof does not go on where it was")


def the_group_of_a_partition_is_the_same(stream, _reference):
    partitions = make(stream, 2)
    for partition in partitions:
        append(partition, *lines(0, 3))
    expect(drain(partitions[0]) == b"".join(lines(0, 3)), "a partition has no group of its own")
    expect(drain(stream) == b"".join(lines(0, 3)), "the group over all gives what the partition's has done")


# --- names ------------------------------------------------------------------------------------------------


def a_directory_without_partitions_has_no_groups(stream, _reference):
    os.mkdir(stream)
    refused([errno.ENOENT], "a group of a directory", os.open, group_path(stream, "g"), os.O_RDONLY)
    append(stream / "0.stream", b"one\n")
    refused([errno.ENOENT], "a group of a directory", os.open, group_path(stream, "g"), os.O_RDONLY)


def other_names_of_groups_are_refused(stream, _reference):
    make(stream, 2)
    for name in ("", ".g", "g h", "a@b"):
        refused([errno.EINVAL], f"a group called '{name}'", os.open, group_path(stream, name), os.O_RDONLY)
    refused([errno.EPERM], "writing to a group", os.open, group_path(stream, "g"), os.O_WRONLY)


def a_group_asked_for_too_early_is_there_later(stream, _reference):
    refused([errno.ENOENT], "a group of nothing", os.open, group_path(stream, "g"), os.O_RDONLY)
    make(stream, 2)
    expect(drain(stream) == b"", "an empty stream gave something")


def a_missing_partition_is_told(stream, _reference):
    partitions = make(stream, 3)
    append(partitions[0], b"one\n")
    for number in (0, 2):
        aside = stream.with_name("aside")
        os.rename(partitions[number], aside)
        refused([errno.EIO], "a group without a partition", os.open, group_path(stream, "g"), os.O_RDONLY)
        for command in "info", "groups":
            told = subprocess.run([AIMSS, "stream", command, str(stream)], capture_output=True, text=True)
            expect(told.returncode == 1, f"{command} without partition {number} succeeds")
            expect(f"partition {number} of 3 is not in" in told.stderr, f"{command} says {told.stderr}")
        os.rename(aside, partitions[number])
    os.rename(partitions[1], stream.with_name("aside"))
    os.rename(partitions[2], partitions[1])
    group = group_path(stream, "g")
    refused([errno.EIO], "a group with a partition in another's place", os.open, group, os.O_RDONLY)
    os.rename(partitions[1], partitions[2])
    os.rename(stream.with_name("aside"), partitions[1])
    expect(drain(stream) == b"one\n", "with all partitions back the group does not go on")


def rm_removes_a_group(stream, _reference):
    partitions = make(stream, 2)
    for partition in partitions:
        append(partition, b"one\n")
    drain(stream)
    os.unlink(group_path(stream, "g"))
    refused([errno.ENOENT], "removing it again", os.unlink, group_path(stream, "g"))
    expect(drain(stream) == b"one\none\n", "after rm the group does not begin again")


def rename_takes_groups_along(stream, _reference):
    partitions = make(stream, 2)
    append(partitions[0], *lines(0, 3))
    drain(stream)
    renamed = stream.with_name("renamed")
    os.rename(stream, renamed)
    refused([errno.ENOENT], "the group at the old name", os.open, group_path(stream, "g"), os.O_RDONLY)
    append(renamed / "1", b"more\n")
    expect(drain(renamed) == b"more\n", "under the new name the group does not go on")


def rm_r_takes_all_along(stream, _reference):
    partitions = make(stream, 2)
    append(partitions[0], b"one\n")
    drain(stream)
    for partition in partitions:
        os.unlink(partition)
    os.rmdir(stream)
    refused([errno.ENOENT], "a group of what is gone", os.open, group_path(stream, "g"), os.O_RDONLY)
    make(stream, 3)
    append(partitions[1], b"new\n")
    expect(drain(stream) == b"new\n", "a new stream's group knows the one that was removed")


CHECKS = [
    an_append_to_any_partition_wakes_a_blocked_read,
    a_nonblocking_read_at_the_tails_says_again,
    an_append_wakes_poll,
    an_append_wakes_select,
    an_append_wakes_epoll,
    a_signal_interrupts_a_read,
    members_share_the_partitions,
    who_is_too_many_takes_over,
    what_a_killed_member_held_is_given_again,
    a_member_that_hangs_loses_its_partitions_after_the_ack_timeout,
    a_long_record_comes_by_one_read,
    killed_members_lose_nothing_and_order_is_kept,
    eof_ends_at_the_tail_of_all,
    the_group_of_a_partition_is_the_same,
    a_directory_without_partitions_has_no_groups,
    other_names_of_groups_are_refused,
    a_group_asked_for_too_early_is_there_later,
    a_missing_partition_is_told,
    rm_removes_a_group,
    rename_takes_groups_along,
    rm_r_takes_all_along,
]


def main():
    words = sys.argv[4:]
    del sys.argv[3:]
    directory, reference, _ = verdict.directories("DIR REF AIMSS [CHECK...]", optional=2)
    if not streams.served(directory):
        verdict.skip(f"no consumer groups in {sys.argv[1]}")
    if shutil.which(AIMSS) is None:
        verdict.skip(f"there is no {AIMSS}, which makes partitioned streams")
    chosen = [c for c in CHECKS if not words or any(word in c.__name__.replace("_", " ") for word in words)]
    verdict.check(chosen, f"no check has {words} in its name")
    failed = checks.run(chosen, directory, reference)
    verdict.check(not failed, f"{len(failed)} of {len(chosen)} checks failed: {'; '.join(failed)}")
    verdict.succeed(f"{len(chosen)} checks of groups over partitions")


main()
