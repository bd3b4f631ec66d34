#!/usr/bin/env python3
"""Writers append to a stream, members of groups read it and are killed at random: no record is lost.

usage: stream_soak.py DIR REF [--seconds 600] [--writers 8] [--members 8] [--groups 2] [--rate 250] [--seed N]

What: each writer appends numbered lines for SECONDS, RATE a second on average, with a checksum each; MEMBERS
processes, dealt to the groups, read them and write each batch down in REF before they come back for more.
Members are killed or made to close and replaced all the while. When the writers are done, the members read
on until their group has everything. Then, from the stream's plain bytes and what was written down:
  1. the file holds each writer's lines, whole, in order, and nothing else;
  2. each batch is a stretch of the file: whole records, none invented;
  3. each group saw each record;
  4. a batch that a member came back after was not given to anyone again: what was seen twice was the last
     batch of a member that was ended;
  5. each member was given its batches in order; back it went only for what an ended member gave back.
A table says for each group and writer how often the sequence numbers were seen.
How:  a batch is written down behind a line with its length, by one plain append; one that a kill cut short
counts as not seen. Members pause at random between reading, writing down and coming back, so that kills
fall on each. Two writers open the stream for each append; some writes carry several lines.
Limits: appends' and kills' times are not repeated by the same seed, only their pattern. About 100 bytes
a record in DIR and as many for each group in REF: 250 MB in 600 seconds. Where there are no groups, the
writers and the plain bytes are tested, for at most 5 seconds, and the test is skipped.
"""

import argparse
import array
import bisect
import contextlib
import itertools
import os
import random
import signal
import sys
import time
import zlib

import checks
import streams
import verdict

READ_BYTES = (200, 4096, 65536, 1 << 20)
# After the writers' end: no new batch for so long means that the members are at the tail ...
QUIET_SECONDS = 2
# ... and what is missing after so long is lost.
PATIENCE_SECONDS = 60
KILL_SECONDS = 5


def line(writer, number):
    body = b"w%d %d " % (writer, number) + b"." * (40 + (writer * 31 + number * 17) % 80)
    return body + b" %08x\n" % zlib.crc32(body)


# --- processes --------------------------------------------------------------------------------------------


def write(path, writer, options, begin, report):
    source = random.Random(f"{options.seed} writer {writer}")
    descriptor, number = None, 0
    while time.monotonic() < begin + options.seconds:
        if descriptor is None or writer < 2:
            if descriptor is not None:
                os.close(descriptor)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        together = source.choice((1, 1, 1, 1, 2, 30))
        data = b"".join(line(writer, number + n) for n in range(together))
        written = os.write(descriptor, data)
        checks.expect(written == len(data), f"a write of {len(data)} bytes wrote {written}")
        number += together
        ahead = begin + number / options.rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead * source.uniform(0.5, 1.5))
    os.write(report, b"%d %d\n" % (writer, number))


class Close(Exception):
    """The member was told to close, by SIGTERM."""


def close(_signal, _frame):
    raise Close


def read(path, group, notes, seed, ending):
    """A member; `ending` ones read to the tail and end."""
    source = random.Random(seed)
    signal.signal(signal.SIGTERM, close)
    try:
        member = streams.Member(path, group, eof=ending)
        written = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        while True:
            data = os.read(member.descriptor, source.choice(READ_BYTES))
            if not data:
                break
            pause(source)
            # A signal's exception must not come between the bytes and the end of the write.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            head = b"#%d\n" % len(data)
            os.writev(written, [head, data])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            pause(source)
    except Close:
        pass


def pause(source):
    if source.random() < 0.2:
        time.sleep(source.random() * 0.01)


class Members:
    """The members (and writers) that run, and the files that members who ran have written."""

    def __init__(self, path, reference, options):
        self.path, self.reference, self.options = path, reference, options
        self.names = [f"group-{g}" for g in range(options.groups)]
        self.notes = {name: [] for name in self.names}
        self.ends = dict.fromkeys(self.names, 0)
        self.kills, self.closes = 0, 0
        self.running = {}
        self.writers = []
        self.started = 0

    def start(self, slot, ending=False):
        group = self.names[slot % len(self.names)]
        notes = self.reference / f"{group}.member-{self.started:06}"
        seed = f"{self.options.seed} member {self.started}"
        child = checks.fork(read, self.path, group, notes, seed, ending)
        self.started += 1
        self.notes[group].append(notes)
        self.running[slot] = child

    def end(self, slot, kill):
        child = self.running.pop(slot)
        self.ends[self.names[slot % len(self.names)]] += 1
        self.kills, self.closes = self.kills + kill, self.closes + (not kill)
        os.kill(child, signal.SIGKILL if kill else signal.SIGTERM)
        status = checks.ended(child, KILL_SECONDS)
        what = "SIGKILL" if kill else "SIGTERM"
        checks.expect(status is not None, f"a member still runs {KILL_SECONDS} s after {what}")
        # SIGTERM may come before the member is ready for it.
        wanted = [signal.SIGKILL] if kill else [0, signal.SIGTERM]
        checks.expect(status in wanted, f"a member ended with status {status} after {what}")

    def look(self):
        """Fails if one ended by itself."""
        for child in self.running.values():
            status = checks.ended(child, 0)
            checks.expect(status is None, f"a member ended by itself with status {status}")

    def bytes_written(self):
        return sum(n.stat().st_size for notes in self.notes.values() for n in notes if n.exists())

    def stop(self):
        """None of them is left behind, whatever failed."""
        for child in [*self.running.values(), *self.writers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


# --- what came of it --------------------------------------------------------------------------------------


class Written:
    """The stream's plain bytes: where each record is, and whose."""

    def __init__(self, data, counts):
        self.data = data
        self.starts = array.array("Q")
        # The record at each place in the file, by writer: records[w][s] is the place of line s of w.
        self.records = [array.array("Q") for _ in counts]
        at = 0
        for place, text in enumerate(data.splitlines(keepends=True)):
            writer = int(text[1:].split(b" ", 1)[0]) if text[1:2].isdigit() else -1
            known = 0 <= writer < len(counts)
            wanted = line(writer, len(self.records[writer])) if known else b""
            checks.expect(
                text == wanted,
                f"the stream holds {text[:60]} at byte {at} in place of {wanted[:60] or 'a record'}",
            )
            self.records[writer].append(place)
            self.starts.append(at)
            at += len(text)
        held = [len(records) for records in self.records]
        checks.expect(held == counts, f"the stream holds {held} records of the writers, who wrote {counts}")

    def stretch(self, batch, whose):
        """The places of a batch's records, from and until."""
        checks.expect(batch.endswith(b"\n"), f"{whose} was given half a record: {batch[-60:]}")
        first = batch[: batch.index(b"\n") + 1]
        fields = first.split(b" ")
        try:
            place = self.records[int(fields[0][1:])][int(fields[1])]
        except (ValueError, IndexError):
            raise checks.Failed(f"{whose} was given what nobody wrote: {first[:80]}") from None
        at = self.starts[place]
        checks.expect(
            self.data[at : at + len(batch)] == batch,
            f"{whose} was given a batch of {len(batch)} bytes that is no stretch of the stream at {at}",
        )
        return place, bisect.bisect_left(self.starts, at + len(batch))


def batches(notes):
    """What a member wrote down; a batch that its end cut short was not."""
    data = notes.read_bytes() if notes.exists() else b""
    at = 0
    while at < len(data):
        head = data.find(b"\n", at)
        if head < 0:
            return
        length = int(data[at + 1 : head])
        if head + 1 + length > len(data):
            return
        yield data[head + 1 : head + 1 + length]
        at = head + 1 + length


class Seen:
    """How often one group saw each record."""

    def __init__(self, written, group, notes):
        count = len(written.starts)
        # Differences: what begins and ends at each place.
        all_of, acknowledged = array.array("l", [0]) * (count + 1), array.array("l", [0]) * (count + 1)
        self.backward, self.batches = 0, 0
        for member in notes:
            until, last = 0, None
            for batch in batches(member):
                stretch = written.stretch(batch, f"{group}'s {member.name}")
                self.backward += stretch[0] < until
                until = stretch[1]
                self.batches += 1
                if last:
                    add(acknowledged, last)
                add(all_of, stretch)
                last = stretch
        self.times = array.array("l", itertools.accumulate(all_of))[:-1]
        self.acknowledged = array.array("l", itertools.accumulate(acknowledged))[:-1]

    def missing(self):
        return sum(1 for times in self.times if times == 0)


def add(differences, stretch):
    differences[stretch[0]] += 1
    differences[stretch[1]] -= 1


def table(written, seen):
    print(f"{'group':<10}{'writer':>7}{'numbers':>16}{'once':>10}{'twice':>8}{'3 times':>8}{'more':>6}"
          f"{'missing':>8}  first missing")  # fmt: skip
    for group, times in seen.items():
        for writer, records in enumerate(written.records):
            of = [times.times[place] for place in records]
            missing = next((str(number) for number, count in enumerate(of) if count == 0), "-")
            none, once, twice, thrice = (of.count(times) for times in range(4))
            more = len(of) - none - once - twice - thrice
            print(f"{group:<10}{writer:>7}{f'0 to {len(of) - 1}':>16}{once:>10}{twice:>8}{thrice:>8}"
                  f"{more:>6}{none:>8}  {missing}")  # fmt: skip
    sys.stdout.flush()


def judge(written, seen, members):
    for group, times in seen.items():
        missing = times.missing()
        checks.expect(missing == 0, f"{group} has not seen {missing} of {len(written.starts)} records")
        again = sum(1 for count in times.acknowledged if count > 1)
        checks.expect(again == 0, f"{group} was given {again} records again that it had acknowledged")
        # Each end gives back one batch, for which each member may go back once.
        allowed = members.ends[group] * -(-members.options.members // members.options.groups)
        checks.expect(
            times.backward <= allowed,
            f"members of {group} went back {times.backward} times; {allowed} at most are due to ended ones",
        )


# --- the test ---------------------------------------------------------------------------------------------


def soak(path, reference, options, served):
    members = Members(path, reference, options)
    source = random.Random(f"{options.seed} kills")
    streams.append(path)
    try:
        counts = run(path, members, source, options, served)
        if not served:
            Written(path.read_bytes(), counts)
            return f"{sum(counts)} records of {options.writers} writers are whole in the plain bytes"
        wait_for_the_tail(members)
        written = Written(path.read_bytes(), counts)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = {group: Seen(written, group, notes) for group, notes in members.notes.items()}
            if not any(times.missing() for times in seen.values()) or time.monotonic() > deadline:
                break
            time.sleep(1)
        if not any(times.missing() for times in seen.values()):
            nothing_is_left(members)
        table(written, seen)
        judge(written, seen, members)
    finally:
        members.stop()
    duplicates = sum(times.times[p] - 1 for times in seen.values() for p in range(len(written.starts)))
    return (
        f"{len(written.starts)} records of {options.writers} writers, {members.kills} kills and "
        f"{members.closes} closes of members, {options.groups} groups saw each; {duplicates} seen again"
    )


def run(path, members, source, options, served):
    """Writers and members, until the writers end; returns how many lines each writer wrote."""
    receive, report = os.pipe()
    begin = time.monotonic()
    writers = [checks.fork(write, path, w, options, begin, report) for w in range(options.writers)]
    members.writers = list(writers)
    os.close(report)
    if served:
        for slot in range(options.members):
            members.start(slot)
    while served and time.monotonic() < begin + options.seconds:
        time.sleep(source.random() * 0.4)
        members.look()
        slot = source.randrange(options.members)
        members.end(slot, kill=source.random() < 0.7)
        if source.random() < 0.2:
            time.sleep(source.random())
        members.start(slot)
    for writer in writers:
        status = checks.ended(writer, options.seconds + PATIENCE_SECONDS)
        checks.expect(status == 0, "a writer is stuck" if status is None else "a writer failed")
        members.writers.remove(writer)
    counts = [0] * options.writers
    with os.fdopen(receive, "rb") as reports:
        for said in reports:
            writer, number = said.split()
            counts[int(writer)] = int(number)
    return counts


def wait_for_the_tail(members):
    before, since = -1, 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < since + QUIET_SECONDS or before < 0:
        members.look()
        checks.expect(time.monotonic() < deadline, "the members are still given records long after the last")
        now = members.bytes_written()
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.1)


def nothing_is_left(members):
    """The members are ended at the tail; their groups must then have nothing more to give."""
    for slot in list(members.running):
        members.end(slot, kill=False)
    for group in members.names:
        data = streams.drain(members.path, group)
        checks.expect(not data, f"{group} gives {len(data)} bytes after all was acknowledged: {data[:60]}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.splitlines()[2][len("usage: ") :])
    parser.add_argument("dir")
    parser.add_argument("ref")
    for name, default in ("seconds", 600), ("writers", 8), ("members", 8), ("groups", 2), ("rate", 250):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    directory, reference = verdict.scratch(options.dir, options.ref)
    print(f"seed {options.seed}", flush=True)
    served = streams.served(directory)
    if not served:
        options.seconds = min(options.seconds, 5)
    try:
        told = soak(directory / "x.stream", reference, options, served)
    except checks.Failed as failure:
        verdict.fail(f"{failure} (seed {options.seed})")
    if not served:
        verdict.skip(f"no consumer groups in {options.dir} ({told})")
    verdict.succeed(f"{told} (seed {options.seed})")


main()
