#!/usr/bin/env python3
"""Compares two trees in everything a program can see of them, and prints every difference.

usage: compare_trees.py A B [--ignore FIELD]...

What: names, types, contents, modes, owners, modification times to the nanosecond, device numbers, targets
of symbolic links, extended attributes (POSIX ACLs are two of them) and which names are hard links to one
file. A and B themselves are compared as well. Exits 0 when they are equal, 1 when not, 2 when it cannot tell.
How:  walks A and B with names as bytes; a hard link is compared by the first name of its file in each tree.
FIELD is one of: mode, owner, mtime, xattr, links, size (of directories it is never compared).
Limits: sparse allocation, access and change times and inode numbers are not compared. Root sees all of the
attributes, others only some. Trees must stay as they are meanwhile.
"""

import argparse
import errno
import os
import stat
import sys

BLOCK_BYTES = 1 << 20
# Smaller files are read whole, holes and all, so that holes are seen to read as zeros.
HOLES_FROM_BYTES = 64 << 20
FIELDS = ["mode", "owner", "mtime", "xattr", "links", "size"]
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def walk(root):
    """Every entry below `root` by its name relative to it (b"" for itself), with what lstat says."""
    found = {b"": os.lstat(root)}
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as listing:
            for entry in listing:
                name = os.path.join(directory, entry.name)
                found[name] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
    return found


def links(tree):
    """For each name of a file with several, the first name of that file."""
    first = {}
    return {
        name: first.setdefault((status.st_dev, status.st_ino), name)
        for name, status in sorted(tree.items())
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    }


def attributes(path):
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def next_data(descriptor, offset, size):
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: there is no data from here on. Anything else: take all of it for data.
        return size if error.errno == errno.ENXIO else offset


def read_fully(descriptor, offset):
    """A block, short only at the end of the file: reads may be short anywhere."""
    data = os.pread(descriptor, BLOCK_BYTES, offset)
    while data and len(data) < BLOCK_BYTES:
        more = os.pread(descriptor, BLOCK_BYTES - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def first_difference(path_a, path_b, size):
    """The offset of the first byte that differs, or None. What is a hole in both is not read."""
    a, b = os.open(path_a, os.O_RDONLY), os.open(path_b, os.O_RDONLY)
    try:
        offset = 0
        while True:
            if size > HOLES_FROM_BYTES:
                offset = max(offset, min(next_data(a, offset, size), next_data(b, offset, size)))
            x, y = read_fully(a, offset), read_fully(b, offset)
            if x != y:
                return offset + next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
            if not x:
                return None
            offset += len(x)
    finally:
        os.close(a)
        os.close(b)


def differences(root_a, root_b, ignored):
    a, b = walk(root_a), walk(root_b)
    for name in sorted(a.keys() - b.keys()):
        yield name, "is only in the first"
    for name in sorted(b.keys() - a.keys()):
        yield name, "is only in the second"
    links_a, links_b = links(a), links(b)
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        path_a, path_b = (os.path.join(root, name) if name else root for root in (root_a, root_b))
        kind = stat.S_IFMT(one.st_mode)
        if kind != stat.S_IFMT(other.st_mode):
            yield name, f"type: {TYPES[kind]} and {TYPES[stat.S_IFMT(other.st_mode)]}"
            continue
        if stat.S_IMODE(one.st_mode) != stat.S_IMODE(other.st_mode) and "mode" not in ignored:
            yield name, f"mode: {stat.S_IMODE(one.st_mode):04o} and {stat.S_IMODE(other.st_mode):04o}"
        if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid) and "owner" not in ignored:
            yield name, f"owner: {one.st_uid}:{one.st_gid} and {other.st_uid}:{other.st_gid}"
        if one.st_mtime_ns != other.st_mtime_ns and "mtime" not in ignored:
            yield name, f"mtime: {one.st_mtime_ns} and {other.st_mtime_ns} ns"
        if "links" not in ignored and links_a.get(name) != links_b.get(name):
            yield name, f"hard link: of {shown(links_a.get(name))} and of {shown(links_b.get(name))}"
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != other.st_rdev:
            yield name, f"device: {one.st_rdev:#x} and {other.st_rdev:#x}"
        if "xattr" not in ignored:
            yield from attribute_differences(name, attributes(path_a), attributes(path_b))
        if kind == stat.S_IFLNK and os.readlink(path_a) != os.readlink(path_b):
            yield name, f"target: {shown(os.readlink(path_a))} and {shown(os.readlink(path_b))}"
        if kind == stat.S_IFREG:
            if one.st_size != other.st_size and "size" not in ignored:
                yield name, f"size: {one.st_size} and {other.st_size}"
            elif links_a.get(name, name) == name or links_a.get(name) != links_b.get(name):
                # The other names of a file that has been compared need no second reading.
                offset = first_difference(path_a, path_b, one.st_size)
                if offset is not None:
                    yield name, f"contents: from byte {offset} on"


def attribute_differences(name, one, other):
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield name, f"attribute {key}: {one.get(key)!r} and {other.get(key)!r}"


def shown(name):
    return "none" if name is None else ascii(name)[2:-1] if name else "."


def main():
    parser = argparse.ArgumentParser(usage="compare_trees.py A B [--ignore FIELD]...")
    parser.add_argument("trees", nargs=2, type=os.fsencode)
    parser.add_argument("--ignore", action="append", choices=FIELDS, default=[])
    arguments = parser.parse_args()
    count = 0
    try:
        for name, difference in differences(*arguments.trees, set(arguments.ignore)):
            print(f"{shown(name)}: {difference}")
            count += 1
    except OSError as error:
        print(f"compare_trees.py: cannot compare: {error}", file=sys.stderr)
        sys.exit(2)
    if count:
        print(
            f"compare_trees.py: FAILED: {count} differences between {shown(arguments.trees[0])}"
            f" and {shown(arguments.trees[1])}",
            file=sys.stderr,
        )
        sys.exit(1)


main()
