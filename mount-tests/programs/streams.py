"""Imported by the tests of stream files: appending to them, and reading them as a member of a group.

What: `append` writes records by one write each; `Member` is one open descriptor of `PATH@GROUP`; `give`,
`wakes` and `interrupted_read` check what one is given, what wakes it and what ends its wait; `served` says
whether a directory's file system has groups at all.
"""

import errno
import os
import select
import signal
import time

from checks import Failed, expect, fork, succeeded, within

# How long what should happen at once may take on a machine that others use too.
AT_ONCE_SECONDS = 5
# What another process waits before it appends.
PAUSE_SECONDS = 0.3


def append(path, *records):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for record in records:
        written = os.write(descriptor, record)
        expect(written == len(record), f"a write of {len(record)} bytes to {path} wrote {written}")
    os.close(descriptor)


def append_later(seconds, path, *records):
    """Appends from another process, after a pause; returns its id."""

    def pause_and_append():
        time.sleep(seconds)
        append(path, *records)

    return fork(pause_and_append)


def lines(first, end, width=9):
    """The lines of the numbers from `first` to before `end`, each `width` + 1 bytes long."""
    return [b"%0*d\n" % (width, number) for number in range(first, end)]


def group_path(path, group, eof=False):
    return f"{path}@{group}{'+eof' if eof else ''}"


def served(directory):
    """Whether appending in `directory` makes streams that have groups."""
    path = directory / "probe.stream"
    append(path, b"probe\n")
    try:
        os.close(os.open(group_path(path, "probe"), os.O_RDONLY))
        os.unlink(group_path(path, "probe"))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    finally:
        path.unlink()
    return True


class Member:
    """One open descriptor of a group."""

    def __init__(self, path, group="g", eof=False, nonblocking=False):
        self.name = group_path(path, group, eof)
        self.descriptor = os.open(self.name, os.O_RDONLY | (os.O_NONBLOCK if nonblocking else 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.descriptor

    def read(self, size=1 << 16, seconds=AT_ONCE_SECONDS):
        """The next records; fails if none come in time."""
        with within(seconds, f"a read of {self.name}"):
            return os.read(self.descriptor, size)

    def try_read(self, size=1 << 16):
        """The next records of a non-blocking member, or None where it is told to come again."""
        try:
            return os.read(self.descriptor, size)
        except BlockingIOError:
            return None

    def read_to_end(self, size=1 << 16, seconds=30):
        """All that a `+eof` member is given until it ends."""
        with within(seconds, f"reading {self.name} to its end"):
            return b"".join(iter(lambda: os.read(self.descriptor, size), b""))

    def close(self):
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def drain(path, group="g", size=1 << 16):
    """What a group still has to be given, acknowledged."""
    with Member(path, group, eof=True) as member:
        return member.read_to_end(size)


def give(member, wanted, what):
    data = member.read()
    expect(data == wanted, f"{what}: {data[:80]} ({len(data)} bytes) in place of {wanted[:80]}")


def by_poll(descriptor, seconds):
    """Whether there is something to read within that time; so are the next two."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def by_select(descriptor, seconds):
    return bool(select.select([descriptor], [], [], seconds)[0])


def by_epoll():
    """One that stays registered."""
    pollers = {}

    def waits(descriptor, seconds):
        if descriptor not in pollers:
            pollers[descriptor] = select.epoll()
            pollers[descriptor].register(descriptor, select.EPOLLIN)
        return bool(pollers[descriptor].poll(seconds))

    return waits


def wakes(stream, waits, paths):
    """A member of `stream`, which has nothing else, sees by `waits` what is appended to each of `paths`."""
    append(paths[0], b"first\n")
    with Member(stream, nonblocking=True) as member:
        expect(waits(member.descriptor, 1), "it does not see that there is a record already")
        give(member, b"first\n", "what was there")
        for number, path in enumerate(paths):
            expect(member.try_read() is None, "the tail gave something")
            expect(not waits(member.descriptor, 0), "it sees something at the tail")
            expect(not waits(member.descriptor, 0.2), "it woke with nothing to read")
            begin = time.monotonic()
            child = append_later(PAUSE_SECONDS, path, b"%d\n" % number)
            expect(waits(member.descriptor, AT_ONCE_SECONDS), "it was not woken by an append")
            took = time.monotonic() - begin
            expect(took > PAUSE_SECONDS * 0.9, f"it woke after {took:.3f} s, before the append")
            expect(took < PAUSE_SECONDS + 1, f"it woke {took - PAUSE_SECONDS:.3f} s after the append")
            give(member, b"%d\n" % number, "after it woke")
            succeeded(child, AT_ONCE_SECONDS, "the appending process")


class Interrupted(Exception):
    pass


def interrupt(_signal, _frame):
    raise Interrupted


def interrupted_read(member, number, send):
    """Seconds from the signal, which `send` arranges for a time that it returns, to the end of the read."""
    signal.signal(number, interrupt)
    at = send()
    try:
        data = os.read(member.descriptor, 4096)
    except Interrupted:
        return time.monotonic() - at
    raise Failed(f"a read at the tail gave {data[:40]} in place of being interrupted")
