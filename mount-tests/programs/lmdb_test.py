#!/usr/bin/env python3
"""LMDB: a database that lives in a shared mapping, written by pwrite or by stores, kept by msync.

usage: lmdb_test.py DIR REF

What: the same transactions in DIR and in REF, in each of LMDB's ways to write (write with fdatasync, a
writable mapping with msync, either without sync but for one at the end). After each, another process opens
the database anew and compares every record and the order of keys with a plain dictionary; the records of
DIR and REF are compared through their dumps.
How:  three generations of processes a database: one writes and ends without closing (as a killed program
does), one reads while a writer runs, one verifies. The map grows in the middle (ftruncate under a mapping).
Limits: 4 databases of some 10 MB. Bytes are not compared (LMDB leaves old memory in unused parts of a
page). Locking is by a mapped lock file and fcntl, both on the file system under test.
"""

import hashlib
import os
import random

import verdict

verdict.libraries("lmdb")
import lmdb  # noqa: E402

MAP_BYTES = 8 << 20
MAP_BYTES_GROWN = 64 << 20
TRANSACTIONS = 60

WAYS = {
    "write": {},
    "mapped": {"writemap": True},
    "mapped_nosync": {"writemap": True, "sync": False, "map_async": True},
    "nosync": {"sync": False, "metasync": False},
}


def transactions(seed):
    """Puts and deletes, with values from nothing to several pages (LMDB keeps those outside its tree)."""
    source = random.Random(seed)
    for _ in range(TRANSACTIONS):
        yield [
            (
                b"key %06d" % source.randrange(5000),
                None if source.random() < 0.2 else source.randbytes(source.choice((0, 9, 150, 700, 9000))),
            )
            for _ in range(60)
        ]


def expected(seed):
    records = {}
    for batch in transactions(seed):
        for key, value in batch:
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value
    return records


def write(path, seed, options):
    environment = lmdb.open(str(path), map_size=MAP_BYTES, **options)
    for number, batch in enumerate(transactions(seed)):
        if number == TRANSACTIONS // 2:
            environment.set_mapsize(MAP_BYTES_GROWN)
        with environment.begin(write=True) as transaction:
            for key, value in batch:
                if value is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, value)
    aborted = environment.begin(write=True)
    aborted.put(b"aborted", b"must not appear")
    aborted.abort()
    environment.sync(True)
    # The process ends here by os._exit, with the environment open.


def verify(path, seed):
    records = expected(seed)
    with lmdb.open(str(path), map_size=MAP_BYTES_GROWN, readonly=True) as environment:
        with environment.begin() as transaction:
            found = list(transaction.cursor())
    verdict.check([key for key, _ in found] == sorted(records), f"{path} holds other keys than were written")
    for key, value in found:
        verdict.check(value == records[key], f"{path} holds another value than was written for {key!r}")


def read_while_written(path, seed, options):
    """A reader's transaction keeps seeing its own moment while another process commits."""
    # An open database does not survive a fork, so the writer is forked first and waits to be told.
    told, tell = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.read(told, 1)
        write_more(path, options)
        os._exit(0)
    with lmdb.open(str(path), map_size=MAP_BYTES_GROWN, readonly=True) as environment:
        with environment.begin() as transaction:
            before = dict(transaction.cursor())
            os.write(tell, b"1")
            verdict.check(os.waitpid(writer, 0)[1] == 0, f"the writer beside a reader of {path} failed")
            verdict.check(dict(transaction.cursor()) == before, f"a reader of {path} saw a later commit")
        with environment.begin() as transaction:
            verdict.check(transaction.get(b"more") == b"m" * 5000, f"a reader of {path} missed a commit")
    verdict.check(before == expected(seed), f"{path} holds other records than were written")
    verdict.in_another_process(remove_more, path, options)


def write_more(path, options):
    environment = lmdb.open(str(path), map_size=MAP_BYTES_GROWN, **options)
    for number in range(200):
        with environment.begin(write=True) as transaction:
            transaction.put(b"more", b"m" * 5000)
            transaction.put(b"more %d" % number, b"n" * 500)
    environment.sync(True)


def remove_more(path, options):
    environment = lmdb.open(str(path), map_size=MAP_BYTES_GROWN, **options)
    with environment.begin(write=True) as transaction:
        for key in [b"more"] + [b"more %d" % number for number in range(200)]:
            verdict.check(transaction.delete(key), f"{path} lost {key!r}")
    environment.close()


def digest(path):
    total = hashlib.sha256()
    with lmdb.open(str(path), map_size=MAP_BYTES_GROWN, readonly=True) as environment:
        with environment.begin() as transaction:
            for key, value in transaction.cursor():
                total.update(b"%d %d " % (len(key), len(value)) + key + value)
    return total.hexdigest()


def main():
    directory, reference, _ = verdict.directories()
    for seed, (way, options) in enumerate(WAYS.items()):
        for place in directory, reference:
            path = place / way
            verdict.in_another_process(write, path, seed, options)
            verdict.in_another_process(verify, path, seed)
            verdict.in_another_process(read_while_written, path, seed, options)
            verdict.in_another_process(verify, path, seed)
        verdict.check(digest(directory / way) == digest(reference / way), f"the dumps of {way} differ")
        # A backup reads the database by its own calls and must be a database itself.
        with lmdb.open(str(directory / way), map_size=MAP_BYTES_GROWN) as environment:
            os.mkdir(directory / f"{way}.copy")
            environment.copy(str(directory / f"{way}.copy"), compact=True)
        verdict.in_another_process(verify, directory / f"{way}.copy", seed)
    verdict.succeed(f"{len(WAYS)} databases hold what was written, {len(expected(0))} records the first")


main()
