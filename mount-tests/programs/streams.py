"""Imported by the tests of stream files: appending to them, and reading them as a member of a group.

What: `append` writes records by one write each; `Member` is one open descriptor of `PATH@GROUP`;
`served` says whether a directory's file system has groups at all.
"""

import errno
import os
import time

from checks import expect, fork, within

# How long what should happen at once may take on a machine that others use too.
AT_ONCE_SECONDS = 5


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
