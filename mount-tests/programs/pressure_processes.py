#!/usr/bin/env python3
"""Many processes that write, append, map, read, rename and remove files, together more than memory holds.

usage: pressure_processes.py DIR REF [--processes N] [--seconds N] [--group BYTES --daemon PID]

What: each process has a directory of its own and a seed; it makes files of 4 KiB to 16 MiB of content that follows
      from a number, appends to them, renames them, reads them back (some through a mapping) and removes the
      oldest once it has 8. Whatever it reads is compared. At the end what is left is compared once more.
How:  `--group BYTES --daemon PID` puts the processes and the daemon of the mount into one memory cgroup with that
      limit. The parent asks for the mount's attributes twice a second; an answer that takes longer than 30 s fails,
      as does a process that was killed. REF is not used.
Limits: needs root for `--group`. Seeds are printed; what processes do depends on time as well.
"""

import argparse
import mmap
import os
import pathlib
import random
import signal
import sys
import time

import verdict

BLOCK = bytes(range(256)) * 4096  # 1 MiB
KEPT = 8
ANSWER_SECONDS = 30


def content(number, size):
    """What a file of a number and a size holds; a different place of the block for each."""
    at = number * 7919 % len(BLOCK)
    turned = BLOCK[at:] + BLOCK[:at]
    whole, rest = divmod(size, len(turned))
    return turned * whole + turned[:rest]


def compare(path, number, size, mapped):
    expected = content(number, size)
    with open(path, "rb") as file:
        if mapped:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                same = view[:] == expected
        else:
            same = file.read() == expected
    if not same:
        raise ValueError(f"{path} does not hold what was written (number {number}, {size} bytes)")


def one_process(directory, seed, until):
    draw = random.Random(seed)
    os.mkdir(directory)
    files, number = [], 0
    while time.monotonic() < until:
        number += 1
        path, size = f"{directory}/file-{number}", int(4096 * 2 ** (draw.random() * 12))
        data = content(number, size)
        first = draw.randrange(size) if draw.random() < 0.3 else size
        with open(path, "wb") as file:
            for at in range(0, first, 1 << 20):
                file.write(data[at:min(first, at + (1 << 20))])
            if draw.random() < 0.05:
                file.flush()
                os.fsync(file.fileno())
        if first < size:
            with open(path, "ab") as file:
                file.write(data[first:])
        if draw.random() < 0.3:
            renamed = f"{directory}/renamed-{number}"
            os.rename(path, renamed)
            path = renamed
        files.append((path, number, size))
        compare(*draw.choice(files), mapped=draw.random() < 0.3)
        if len(files) > KEPT:
            os.unlink(files.pop(0)[0])
    for file in files:
        compare(*file, mapped=False)
    return number


def make_group(limit, daemon):
    old = pathlib.Path("/sys/fs/cgroup/memory")
    version_one = (old / "memory.limit_in_bytes").exists()
    root = old if version_one else pathlib.Path("/sys/fs/cgroup")
    group = root / f"aimss-pressure-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_one else "memory.max")).write_text(str(limit))
    except OSError as error:
        verdict.skip(f"a memory cgroup can't be made: {error}")
    for pid in (os.getpid(), daemon):
        (group / "cgroup.procs").write_text(str(pid))
    return root, group


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("dir")
    ask.add_argument("ref", nargs="?")
    ask.add_argument("--processes", type=int, default=100)
    ask.add_argument("--seconds", type=float, default=600)
    ask.add_argument("--group", type=int)
    ask.add_argument("--daemon", type=int)
    asked = ask.parse_args()
    home = f"{asked.dir}/pressure-{os.getpid()}"
    os.mkdir(home)
    group = make_group(asked.group, asked.daemon) if asked.group else None
    seed = int(time.time())
    print(f"seed {seed}, {asked.processes} processes, {asked.seconds:.0f} s", flush=True)
    until = time.monotonic() + asked.seconds
    children = {}
    for place in range(asked.processes):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                one_process(f"{home}/{place}", seed + place, until)
                status = 0
            except BaseException as error:  # whatever it is, the parent must know
                print(f"process {place}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(status)
        children[pid] = place
    failed, slowest = [], 0.0
    signal.signal(signal.SIGALRM, lambda *_: verdict.fail(f"the mount did not answer for {ANSWER_SECONDS} s"))
    while children:
        signal.alarm(ANSWER_SECONDS)
        start = time.monotonic()
        os.statvfs(asked.dir)
        os.stat(home)
        slowest = max(slowest, time.monotonic() - start)
        signal.alarm(0)
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG) if children else (0, 0)
            if pid == 0:
                break
            place = children.pop(pid)
            if status != 0:
                failed.append(f"{place} ({os.waitstatus_to_exitcode(status)})")
        if time.monotonic() > until + 600:
            verdict.fail(f"{len(children)} processes did not end within 10 minutes of their time")
        time.sleep(0.5)
    if group:
        root, directory = group
        for pid in (os.getpid(), asked.daemon):
            (root / "cgroup.procs").write_text(str(pid))
        directory.rmdir()
    verdict.check(not failed, f"these processes failed or were killed: {', '.join(failed)}")
    import shutil
    shutil.rmtree(home)
    verdict.succeed(f"{asked.processes} processes, {asked.seconds:.0f} s; slowest answer {slowest * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
