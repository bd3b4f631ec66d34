#!/usr/bin/env python3
"""Eight processes append records to one file with O_APPEND: nothing lost, nothing interleaved.

usage: concurrent_append.py DIR REF [RECORDS]

What: each process appends RECORDS (default 3000) records of 20 to 9,000 bytes, each by one write. Every
record must be there once and whole, those of a process in its order, and the file must end with the last.
The same in REF, whose file must have the same length.
How:  a record carries its writer, number, length and checksum. Two of the processes open and close the file
for each record, two for every tenth, the rest keep it open; some use writev. A ninth process follows the
file while it grows and must see the same bytes, none of them twice.
Limits: about 55 MB a file. Whether appends of different machines interleave is another question.
"""

import os
import random
import struct
import time
import zlib

import verdict

WRITERS = 8
HEADER = struct.Struct("<4sIIII")
MAGIC = b"REC:"


def body(writer, number):
    source = random.Random(writer << 32 | number)
    return source.randbytes(source.choice((source.randrange(200), source.randrange(9000))))


def record(writer, number):
    data = body(writer, number)
    return HEADER.pack(MAGIC, writer, number, len(data), zlib.crc32(data)) + data


def append(path, writer, records):
    reopen_every = {0: 1, 1: 1, 2: 10, 3: 10}.get(writer, records)
    descriptor = None
    for number in range(records):
        if number % reopen_every == 0:
            if descriptor is not None:
                os.close(descriptor)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        data = record(writer, number)
        written = os.writev(descriptor, [data[:11], data[11:]]) if writer % 2 else os.write(descriptor, data)
        verdict.check(written == len(data), f"a write of {len(data)} bytes to {path} wrote {written}")
    os.close(descriptor)


def follow(path, length):
    """Reads what is there, again and again; bytes once read must stay as they are."""
    checksum, seen = 0, 0
    deadline = time.monotonic() + 300
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    while seen < length:
        verdict.check(time.monotonic() < deadline, f"a reader of {path} saw {seen} of {length} bytes")
        data = os.pread(descriptor, 1 << 20, seen)
        if not data:
            time.sleep(0.002)
        checksum, seen = zlib.crc32(data, checksum), seen + len(data)
    verdict.check(zlib.crc32(path.read_bytes()) == checksum, f"{path} changed after it was read")


def verify(path, records):
    data = memoryview(path.read_bytes())
    following = [0] * WRITERS
    at = 0
    while at < len(data):
        verdict.check(at + HEADER.size <= len(data), f"{path} ends in the middle of a record at byte {at}")
        magic, writer, number, length, checksum = HEADER.unpack_from(data, at)
        verdict.check(magic == MAGIC and writer < WRITERS, f"{path} has no record at byte {at}")
        verdict.check(
            number == following[writer],
            f"{path} has record {number} of writer {writer} at byte {at} in place of {following[writer]}",
        )
        content = data[at + HEADER.size : at + HEADER.size + length]
        verdict.check(
            len(content) == length and zlib.crc32(content) == checksum,
            f"record {number} of writer {writer} at byte {at} of {path} is not whole",
        )
        following[writer] += 1
        at += HEADER.size + length
    verdict.check(following == [records] * WRITERS, f"{path} holds {following} records of {records} each")


def main():
    directory, reference, numbers = verdict.directories("DIR REF [RECORDS]", optional=1)
    records = numbers[0] if numbers else 3000
    length = sum(len(record(w, n)) for w in range(WRITERS) for n in range(records))
    for place in directory, reference:
        path = place / "log"
        children = []
        for function, *arguments in [
            (follow, path, length),
            *((append, path, w, records) for w in range(WRITERS)),
        ]:
            child = os.fork()
            if child == 0:
                function(*arguments)
                os._exit(0)
            children.append(child)
        for child in children:
            verdict.check(os.waitpid(child, 0)[1] == 0, f"a process that used {path} failed")
        verdict.in_another_process(verify, path, records)
        verdict.check(
            path.stat().st_size == length, f"{path} has {path.stat().st_size} bytes in place of {length}"
        )
    verdict.succeed(f"{WRITERS} processes appended {WRITERS * records} records, {length >> 20} MiB")


main()
