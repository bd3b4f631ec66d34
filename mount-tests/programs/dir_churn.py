#!/usr/bin/env python3
"""A large directory read while it changes: what is neither created nor removed appears exactly once.

usage: dir_churn.py DIR REF [ENTRIES]

What: ENTRIES (default 200,000) entries stay while another process creates, removes and renames others; the
directory is read with large and small buffers (a small one continues after every few entries), and each
entry that stays must appear once, "." and ".." once, a name that came or went at most once (each is used
only once), inode numbers and types as lstat gives them. Then, quiet: a rewound descriptor shows the
directory as it is now, seekdir returns to where telldir was, and entries are removed while they are read,
as rm -rf does, until none is left.
How:  getdents64 by ctypes; names of 8 to 255 bytes, files and some directories, links and fifos.
Limits: Linux with glibc 2.30 or later. REF is not used.
"""

import ctypes
import os
import signal
import stat
import struct

import verdict

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir64.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = [ctypes.c_void_p]
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
# inode, offset of the next entry, length of this one, type; the name follows.
DIRENT = struct.Struct("<QqHB")
# The first takes a few entries at a time, the second is what glibc's readdir uses.
BUFFERS = [1 << 11, 1 << 15, 1 << 20]


def staying_name(number):
    # Lengths vary so that buffers end at every possible place; one name in a thousand is as long as can be.
    length = 255 if number % 1000 == 7 else 8 + number * 7 % 60
    return (b"%08d" % number).ljust(length, b"x")


def create_staying(path, number):
    name = os.path.join(path, staying_name(number))
    kind = number % 500
    if kind == 1:
        os.mkdir(name)
    elif kind == 2:
        os.symlink(b"nowhere", name)
    elif kind == 3:
        os.mkfifo(name)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def churn(path):
    """Creates, renames and removes, each name once, keeping some hundred at a time, until it is killed."""
    number = 0
    while True:
        os.close(os.open(os.path.join(path, b"come %d" % number), os.O_CREAT | os.O_WRONLY, 0o644))
        if number >= 100:
            os.rename(
                os.path.join(path, b"come %d" % (number - 100)), os.path.join(path, b"go %d" % (number - 100))
            )
        if number >= 300:
            os.unlink(os.path.join(path, b"go %d" % (number - 300)))
        number += 1


def entries(descriptor, buffer_bytes):
    buffer = ctypes.create_string_buffer(buffer_bytes)
    while True:
        got = LIBC.getdents64(descriptor, buffer, ctypes.c_size_t(buffer_bytes))
        verdict.check(got >= 0, f"getdents64 failed: {os.strerror(ctypes.get_errno())}")
        if got == 0:
            return
        data, at = buffer.raw[:got], 0
        while at < got:
            inode, _, length, kind = DIRENT.unpack_from(data, at)
            end = data.index(b"\0", at + 19)
            yield data[at + 19 : end], inode, kind
            at += length


def read_once(path, count, buffer_bytes, descriptor=None):
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY) if descriptor is None else descriptor
    seen = {}
    for name, inode, kind in entries(opened, buffer_bytes):
        verdict.check(name not in seen, f"{name!r} appeared twice in one reading of {os.fsdecode(path)}")
        seen[name] = inode, kind
    if descriptor is None:
        os.close(opened)
    missing = [n for n in range(count) if staying_name(n) not in seen]
    verdict.check(
        not missing, f"{len(missing)} entries that stayed were not seen, the first is number {missing[:1]}"
    )
    verdict.check(b"." in seen and b".." in seen, "'.' or '..' was not seen")
    return seen


def as_lstat_says(path, seen, count):
    for number in {*range(0, count, 97), *range(min(count, 10))}:
        name = staying_name(number)
        found = os.lstat(os.path.join(path, name))
        inode, kind = seen[name]
        verdict.check(
            inode == found.st_ino, f"{name!r} is inode {inode} in its directory and {found.st_ino} to lstat"
        )
        # d_type is the type bits of the mode; 0 says that the file system does not tell.
        verdict.check(
            kind in (0, stat.S_IFMT(found.st_mode) >> 12), f"{name!r} has type {kind} in its directory"
        )


def rewound(path, count):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    read_once(path, count, 1 << 15, descriptor)
    late = os.path.join(path, b"late")
    os.close(os.open(late, os.O_CREAT | os.O_WRONLY, 0o644))
    os.lseek(descriptor, 0, os.SEEK_SET)
    verdict.check(
        b"late" in read_once(path, count, 1 << 15, descriptor), "a rewound directory misses a new entry"
    )
    os.unlink(late)
    os.lseek(descriptor, 0, os.SEEK_SET)
    verdict.check(
        b"late" not in read_once(path, count, 1 << 15, descriptor),
        "a rewound directory shows a removed entry",
    )
    os.close(descriptor)


def sought(path):
    """Every thousandth place that telldir names is returned to, last one first."""
    stream = LIBC.opendir(path)

    def following():
        entry = LIBC.readdir64(stream)
        return None if not entry else ctypes.string_at(entry + 19)

    places, number = [], 0
    while True:
        place, name = LIBC.telldir(stream), following()
        if name is None:
            break
        if number % 1000 == 0:
            places.append((place, name))
        number += 1
    for place, name in reversed(places):
        LIBC.seekdir(stream, place)
        found = following()
        verdict.check(found == name, f"seekdir led to {found!r} and not to {name!r}")
    LIBC.closedir(stream)


def remove_while_reading(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    removed = set()
    for name, _, _ in entries(descriptor, 1 << 15):
        if name in (b".", b".."):
            continue
        verdict.check(name not in removed, f"{name!r} was removed and appeared again")
        removed.add(name)
        full = os.path.join(path, name)
        os.rmdir(full) if stat.S_ISDIR(os.lstat(full).st_mode) else os.unlink(full)
    os.close(descriptor)
    left = os.listdir(path)
    verdict.check(not left, f"{len(left)} entries were passed over while others were removed")
    os.rmdir(path)
    return len(removed)


def main():
    directory, _, numbers = verdict.directories("DIR REF [ENTRIES]", optional=1)
    count = numbers[0] if numbers else 200_000
    path = os.fsencode(directory / "large")
    os.mkdir(path)
    for number in range(count):
        create_staying(path, number)
    child = os.fork()
    if child == 0:
        try:
            churn(path)
        finally:
            os._exit(1)
    came = 0
    for buffer_bytes in BUFFERS:
        came += len(read_once(path, count, buffer_bytes)) - count - 2
    ended, _ = os.waitpid(child, os.WNOHANG)
    verdict.check(ended == 0, "the process that changes the directory failed")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    as_lstat_says(path, read_once(path, count, 1 << 15), count)
    rewound(path, count)
    sought(path)
    removed = remove_while_reading(path)
    verdict.succeed(
        f"{count} entries seen once in each of {len(BUFFERS)} readings beside {came} that came and went,"
        f" {removed} removed while read"
    )


main()
