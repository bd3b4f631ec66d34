#!/usr/bin/env python3
"""SQLite with rollback journals and write-ahead log under four concurrent writers, one of them killed.

usage: sqlite_wal.py DIR REF [SECONDS]

What: for each journal, four processes insert rows and move money between accounts for SECONDS (default 2)
while a fifth reads; one writer is killed in the middle and another takes over. Then the rows must be those
that were reported as committed (and at most one more of the killed one), the sum of money what it was, and
integrity_check content. A single writer with the same statements in DIR and REF must give the same bytes.
How:  every writer reports each commit on a pipe after it returned. Journals: delete, truncate, persist, wal,
wal read through a mapping (mmap_size); all with synchronous=full but one. Locks are fcntl locks, the
index of the log is a shared mapping.
Limits: at most some 20 MB a database. Python's own sqlite3 library.
"""

import os
import random
import signal
import sqlite3
import struct
import time

import verdict

WRITERS = 4
ACCOUNTS = 100
MONEY = 1000
# Waiting for locks is not a failure before this; a stuck lock is.
BUSY_SECONDS = 60
REPORT = struct.Struct("<II")

KINDS = {
    "delete": ["journal_mode=delete", "synchronous=full"],
    "truncate": ["journal_mode=truncate", "synchronous=full"],
    "persist": ["journal_mode=persist", "synchronous=normal"],
    "wal": ["journal_mode=wal", "synchronous=full", "wal_autocheckpoint=50"],
    "wal_mapped": ["journal_mode=wal", "synchronous=full", "mmap_size=67108864", "wal_autocheckpoint=200"],
}


def connect(path, pragmas):
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    for pragma in pragmas:
        connection.execute(f"pragma {pragma}").fetchall()
    return connection


def prepare(path, pragmas):
    connection = connect(path, pragmas)
    connection.execute("create table rows(writer integer, number integer, body blob, unique(writer, number))")
    connection.execute("create table accounts(id integer primary key, money integer)")
    connection.executemany("insert into accounts values(?, ?)", [(i, MONEY) for i in range(ACCOUNTS)])
    connection.close()


def write_rows(path, pragmas, writer, deadline, report):
    source = random.Random(writer)
    connection = connect(path, pragmas)
    number = 0
    while time.monotonic() < deadline:
        connection.execute("begin immediate")
        connection.execute(
            "insert into rows values(?, ?, ?)",
            (writer, number, source.randbytes(source.choice((10, 500, 6000)))),
        )
        giver, taker = source.randrange(ACCOUNTS), source.randrange(ACCOUNTS)
        connection.execute("update accounts set money = money - 1 where id = ?", (giver,))
        connection.execute("update accounts set money = money + 1 where id = ?", (taker,))
        connection.execute("commit")
        os.write(report, REPORT.pack(writer, number))
        number += 1
    connection.close()


def read_rows(path, pragmas, deadline):
    connection = connect(path, pragmas)
    while time.monotonic() < deadline:
        connection.execute("begin")
        (total,) = connection.execute("select sum(money) from accounts").fetchone()
        verdict.check(
            total == ACCOUNTS * MONEY, f"a reader of {path} saw {total} in place of {ACCOUNTS * MONEY}"
        )
        gaps = connection.execute(
            "select writer from rows group by writer having max(number) + 1 != count(*)"
        )
        verdict.check(not gaps.fetchall(), f"a reader of {path} saw a writer's rows with a gap")
        connection.execute("commit")
    connection.close()


def start(function, *arguments):
    child = os.fork()
    if child == 0:
        function(*arguments)
        os._exit(0)
    return child


def load(path, pragmas, seconds):
    """Runs the writers and the reader; returns each writer's reported number of rows."""
    prepare(path, pragmas)
    receive, report = os.pipe()
    begin = time.monotonic()
    writers = [start(write_rows, path, pragmas, w, begin + seconds, report) for w in range(WRITERS)]
    reader = start(read_rows, path, pragmas, begin + seconds)
    time.sleep(seconds / 2)
    os.kill(writers[0], signal.SIGKILL)
    os.waitpid(writers[0], 0)
    writers[0] = start(write_rows, path, pragmas, WRITERS, begin + seconds, report)
    os.close(report)
    committed = {}
    while True:
        data = os.read(receive, REPORT.size)
        if not data:
            break
        writer, number = REPORT.unpack(data)
        committed[writer] = number + 1
    os.close(receive)
    for child in [*writers, reader]:
        verdict.check(os.waitpid(child, 0)[1] == 0, f"a writer or reader of {path} failed")
    return committed


def verify(path, committed):
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    result = connection.execute("pragma integrity_check").fetchall()
    verdict.check(result == [("ok",)], f"integrity_check of {path} says {result[:3]}")
    (total,) = connection.execute("select sum(money) from accounts").fetchone()
    verdict.check(total == ACCOUNTS * MONEY, f"{path} holds {total} in place of {ACCOUNTS * MONEY}")
    for writer in range(WRITERS + 1):
        numbers = [
            n
            for (n,) in connection.execute(
                "select number from rows where writer=? order by number", (writer,)
            )
        ]
        known = committed.get(writer, 0)
        # The killed writer may have committed a row it had no time to report.
        allowed = (known, known + 1) if writer == 0 else (known,)
        verdict.check(numbers == list(range(len(numbers))), f"rows of writer {writer} in {path} have gaps")
        verdict.check(
            len(numbers) in allowed,
            f"{path} has {len(numbers)} rows of writer {writer}, who committed {known}",
        )
    source = {}
    for writer, number, body in connection.execute(
        "select writer, number, body from rows order by writer, number"
    ):
        source.setdefault(writer, random.Random(writer))
        wanted = source[writer].randbytes(source[writer].choice((10, 500, 6000)))
        source[writer].randrange(ACCOUNTS), source[writer].randrange(ACCOUNTS)
        verdict.check(body == wanted, f"row {number} of writer {writer} in {path} holds other bytes")
    connection.close()


def write_alone(path, pragmas):
    source = random.Random(99)
    connection = connect(path, pragmas)
    connection.execute("create table t(a integer primary key, b text, c blob)")
    connection.execute("create index i on t(b)")
    for _ in range(30):
        connection.execute("begin")
        for _ in range(100):
            connection.execute(
                "insert or replace into t values(?, ?, ?)",
                (source.randrange(5000), str(source.random()), source.randbytes(300)),
            )
        connection.execute("delete from t where a % 17 = ?", (source.randrange(17),))
        connection.execute("commit")
    connection.execute("begin")
    connection.execute("delete from t")
    connection.execute("rollback")
    connection.execute("vacuum")
    connection.close()


def main():
    directory, reference, numbers = verdict.directories("DIR REF [SECONDS]", optional=1)
    seconds = numbers[0] if numbers else 2
    rows = 0
    for kind, pragmas in KINDS.items():
        path = directory / f"{kind}.db"
        committed = load(path, pragmas, seconds)
        verdict.in_another_process(verify, path, committed)
        rows += sum(committed.values())
        for place in directory, reference:
            verdict.in_another_process(write_alone, place / f"{kind}.alone.db", pragmas)
        verdict.same_bytes(directory / f"{kind}.alone.db", reference / f"{kind}.alone.db")
    verdict.succeed(f"{len(KINDS)} journals, {rows} rows of {WRITERS} writers")


main()
