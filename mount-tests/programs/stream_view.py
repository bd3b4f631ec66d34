"""Imported by stream_groups.py: checks of a stream as the file that writers append to and anyone reads.

What: `PLAIN` are those that any file passes, `STREAM` those that only a stream does: what would change a
record is refused, with its bytes as they were.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import subprocess
import time
import zlib

from checks import Failed, ended, expect, fork, refused, succeeded
from streams import append, lines

WRITERS = 8
APPENDS = 20000
PUNCH_HOLE, COLLAPSE, ZERO = 0x03, 0x08, 0x10
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def same(stream, reference, when):
    data, wanted = stream.read_bytes(), reference.read_bytes()
    if data != wanted:
        at = next((i for i, (a, b) in enumerate(zip(data, wanted)) if a != b), min(len(data), len(wanted)))
        raise Failed(f"{when}: {len(data)} bytes, {len(wanted)} were meant; they part at byte {at}")


def reading_gives_the_bytes(stream, reference):
    source = random.Random(1)
    for size in [1, 10, 4095, 4096, 65536, 300000] * 3:
        record = source.randbytes(size).replace(b"\n", b" ") + b"\n"
        append(stream, record)
        append(reference, record)
        same(stream, reference, f"after an append of {size + 1} bytes")
    wanted = reference.read_bytes()
    descriptor = os.open(stream, os.O_RDONLY)
    for _ in range(300):
        at, length = source.randrange(len(wanted) + 100), source.choice((1, 511, 4096, 100000, 1 << 20))
        data = os.pread(descriptor, length, at)
        expect(data == wanted[at : at + length], f"a read of {length} bytes at {at} gives other bytes")
    expect(os.lseek(descriptor, 0, os.SEEK_END) == len(wanted), "SEEK_END leads elsewhere than to the end")
    os.close(descriptor)


def size_and_time_are_right_at_once(stream, _reference):
    append(stream)
    writer = os.open(stream, os.O_WRONLY | os.O_APPEND)
    size = 0
    for number in range(50):
        # The clock of file times is coarse: up to 10 ms behind.
        before = time.time() - 0.02
        size += os.write(writer, b"%d\n" % number)
        after = time.time() + 0.001
        for name, state in ("stat", os.stat(stream)), ("fstat", os.fstat(writer)):
            expect(state.st_size == size, f"{name} says {state.st_size} bytes after {size} were written")
            if number % 10 == 0:
                expect(
                    before <= state.st_mtime <= after,
                    f"{name} says that it was changed {state.st_mtime - after:+.3f} s from the write",
                )
        time.sleep(0.012)
    said = subprocess.run(["stat", "-c", "%s %F", stream], stdout=subprocess.PIPE, check=True).stdout
    expect(said == b"%d regular file\n" % size, f"stat(1) says {said}")
    os.close(writer)


def truncating_an_empty_one_works(stream, _reference):
    for command, wanted in (
        (': >> "$1"; : > "$1"', b""),
        ('echo first > "$1"', b"first\n"),
        ('echo second >> "$1"', b"first\nsecond\n"),
    ):
        status = subprocess.run(["bash", "-c", command, "bash", stream]).returncode
        expect(status == 0, f"the shell's {command} failed")
        expect(stream.read_bytes() == wanted, f"after {command} it holds {stream.read_bytes()}")


def a_mapping_shows_the_bytes(stream, reference):
    for path in stream, reference:
        append(path, *lines(0, 5000))
    wanted = reference.read_bytes()
    with open(stream, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        expect(mapped[:] == wanted, "a mapping shows other bytes")
        append(stream, *lines(5000, 5100))
        expect(mapped[:] == wanted, "a mapping shows other bytes after an append")
    with open(stream, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        expect(mapped[:] == wanted + b"".join(lines(5000, 5100)), "a new mapping shows other bytes")


def rename_and_unlink_take_the_bytes_along(stream, _reference):
    renamed, onto = stream.with_name("renamed.stream"), stream.with_name("onto.stream")
    append(stream, *lines(0, 100))
    append(onto, b"of another\n")
    writer = os.open(stream, os.O_WRONLY | os.O_APPEND)
    reader = os.open(stream, os.O_RDONLY)
    os.rename(stream, renamed)
    expect(not stream.exists(), "the old name is still there after a rename")
    os.write(writer, b"by the writer from before\n")
    append(renamed, b"by the new name\n")
    wanted = b"".join(lines(0, 100)) + b"by the writer from before\nby the new name\n"
    expect(renamed.read_bytes() == wanted, "other bytes under the new name")
    os.rename(renamed, onto)
    expect(onto.read_bytes() == wanted, "other bytes after a rename onto another")
    append(stream, b"a new one\n")
    expect(stream.read_bytes() == b"a new one\n", "a new one under the old name has bytes of the renamed one")
    os.unlink(onto)
    expect(not onto.exists(), "the name is still there after unlink")
    os.write(writer, b"after unlink\n")
    data = os.pread(reader, 1 << 20, 0)
    expect(data == wanted + b"after unlink\n", "who has it open reads other bytes after unlink")
    for descriptor in writer, reader:
        os.close(descriptor)
    append(onto, b"again\n")
    expect(onto.read_bytes() == b"again\n", "a new one has bytes of the one that was removed")


def numbered(writer, number):
    body = b"%d %d " % (writer, number) + b"x" * (number * 7 % 200)
    return body + b" %08x\n" % zlib.crc32(body)


def append_numbered(path, writer, count):
    descriptor = None
    for number in range(count):
        # Two writers open it for each record, two for every tenth.
        if descriptor is None or writer < 2 or (writer < 4 and number % 10 == 0):
            if descriptor is not None:
                os.close(descriptor)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        record = numbered(writer, number)
        parts = [record[:5], record[5:]] if writer % 2 else [record]
        written = os.writev(descriptor, parts)
        expect(written == len(record), f"a write of {len(record)} bytes wrote {written}")


def expect_numbered(data, count):
    """Expects `count` records of each writer in `data`, whole and in the writer's order."""
    following = [0] * WRITERS
    for at, line in enumerate(data.splitlines(keepends=True)):
        writer = int(line[:1]) if line[:1].isdigit() else 0
        expect(
            writer < WRITERS and line == numbered(writer, following[writer]),
            f"line {at} is not record {following[writer]} of writer {writer}: {line[:60]}",
        )
        following[writer] += 1
    expect(following == [count] * WRITERS, f"records of the writers: {following} in place of {count} each")


def appends_of_eight_processes_are_whole_and_in_order(stream, _reference):
    each = APPENDS // WRITERS
    writers = [fork(append_numbered, stream, writer, each) for writer in range(WRITERS)]
    for writer in writers:
        succeeded(writer, 50, "a process that appends")
    expect_numbered(stream.read_bytes(), each)


# --- what only a stream does ----------------------------------------------------------------------------


def open_and(flags, function, path):
    descriptor = os.open(path, flags)
    try:
        return function(descriptor)
    finally:
        os.close(descriptor)


def fallocate(mode):
    def call(descriptor):
        if LIBC.fallocate(descriptor, mode, 0, 4096) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return call


def changing_records_is_refused(stream, reference):
    for path in stream, reference:
        append(path, *lines(0, 2000))
    write, read_write, appending = os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND
    collapse = [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL]
    for what, numbers, flags, function in (
        ("a write at its start", [errno.EPERM], write, lambda d: os.pwrite(d, b"X", 0)),
        ("a write into its last byte", [errno.EPERM], write, lambda d: os.pwrite(d, b"XX", 19999)),
        ("a write far behind its end", [errno.EPERM], write, lambda d: os.pwrite(d, b"X", 99999)),
        ("a write by O_RDWR", [errno.EPERM], read_write, lambda d: os.write(d, b"X")),
        ("O_TRUNC", [errno.EPERM], write | os.O_TRUNC, lambda d: None),
        ("O_TRUNC with O_APPEND", [errno.EPERM], appending | os.O_TRUNC, lambda d: None),
        ("ftruncate to 0", [errno.EPERM], appending, lambda d: os.ftruncate(d, 0)),
        ("ftruncate to less", [errno.EPERM], appending, lambda d: os.ftruncate(d, 19990)),
        ("ftruncate to more", [errno.EPERM], appending, lambda d: os.ftruncate(d, 30000)),
        ("punching a hole", [errno.EPERM], appending, fallocate(PUNCH_HOLE)),
        ("punching by O_RDWR", [errno.EPERM], read_write, fallocate(PUNCH_HOLE)),
        ("zeroing a range", collapse, appending, fallocate(ZERO)),
        ("collapsing a range", collapse, appending, fallocate(COLLAPSE)),
    ):
        refused(numbers, what, open_and, flags, function, stream)
        same(stream, reference, f"after {what}")
        expect(stream.stat().st_size == 20000, f"after {what} stat says {stream.stat().st_size} bytes")
    for size in 0, 1, 40000:
        refused([errno.EPERM], f"truncate to {size}", os.truncate, stream, size)
    status = subprocess.run(["sh", "-c", ': > "$1"', "sh", stream], stderr=subprocess.DEVNULL).returncode
    expect(status != 0, "the shell's > on records worked")
    same(stream, reference, "after the shell's >")
    append(stream, b"goes on\n")
    append(reference, b"goes on\n")
    same(stream, reference, "after an append behind all that")


def a_writer_that_clears_append_still_appends(stream, reference):
    for path in stream, reference:
        append(path, *lines(0, 10))
    descriptor = os.open(stream, os.O_WRONLY | os.O_APPEND)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        os.pwrite(descriptor, b"cleared\n", 0)
        append(reference, b"cleared\n")
    except PermissionError:
        pass
    os.close(descriptor)
    same(stream, reference, "after a write without O_APPEND")


def a_writable_mapping_changes_no_record(stream, reference):
    for path in stream, reference:
        append(path, *lines(0, 1000))

    def store():
        descriptor = os.open(stream, os.O_RDWR)
        mapped = mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped[0:4] = b"XXXX"
        mapped.flush()

    # Refused at the open, at the mapping, at the store (by a signal) or without effect: all keep the records.
    quiet = os.open(os.devnull, os.O_WRONLY)

    def quietly():
        os.dup2(quiet, 2)
        store()

    child = fork(quietly)
    if ended(child, 10) is None:
        os.kill(child, signal.SIGKILL)
        raise Failed("a store into a writable mapping hangs")
    same(stream, reference, "after a store into a writable mapping")


PLAIN = [
    reading_gives_the_bytes,
    size_and_time_are_right_at_once,
    truncating_an_empty_one_works,
    a_mapping_shows_the_bytes,
    rename_and_unlink_take_the_bytes_along,
    appends_of_eight_processes_are_whole_and_in_order,
]
STREAM = [
    changing_records_is_refused,
    a_writer_that_clears_append_still_appends,
    a_writable_mapping_changes_no_record,
]
