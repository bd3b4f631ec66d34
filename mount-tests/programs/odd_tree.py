#!/usr/bin/env python3
"""Makes a small tree of everything odd a file system must carry; tree.sh copies it about.

usage: odd_tree.py NEW_DIRECTORY

What: names that are no UTF-8, of 255 bytes, with newlines, leading dashes and every other byte; hard links
across directories; symbolic links that dangle, loop and are as long as they may be; fifos, sockets and
devices; every set of special mode bits; owners beyond 16 bits; attributes in three namespaces, one of them
large; access and default ACLs; sparse files, one beyond 4 GiB; nanosecond times before 1970 and after 2038;
a path of 3,000 bytes.
How:  the same tree at every call (but for what a default ACL inherits, nothing depends on the caller).
Limits: root, for owners, devices and the trusted and security namespaces. Times stay within what ext4 keeps
(1901 to 2446). Sockets are left out of archives by tar; tree.sh knows.
"""

import os
import socket
import struct
import sys

GIB = 1 << 30
SECOND_NS = 1_000_000_000
# POSIX ACLs as the kernel takes them: version 2, then entries of tag, permissions and id.
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 1, 2, 4, 8, 16, 32
NOBODY_ID = 0xFFFFFFFF


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def write(name, data=b"contents\n"):
    with open(name, "wb") as file:
        file.write(data)


def names():
    os.mkdir(b"names")
    os.chdir(b"names")
    everything = bytes(b for b in range(1, 256) if b != ord("/"))
    for name in (
        b"-rf",
        b"--help",
        b" leading space",
        b"trailing space ",
        b"new\nline\n",
        b"\xff\xfe\xf0not utf-8",
        b"tab\tand\rreturn",
        b"back\\slash",
        b"*",
        b"?",
        b"[a]",
        b"$HOME",
        b"`id`",
        b"'quotes\"",
        b"...",
        b".hidden",
        b"#hash#",
        b"~",
        b"%s%n",
        b"\xe2\x80\xae right to left",
        b"CON",
        b"a:b",
        b"x" * 255,
        b"\xff" * 255,
        everything[:127],
        everything[127:],
        b"UPPER",
        b"upper",
        b"e\xcc\x81",
        b"\xc3\xa9",
    ):
        write(name, b"named " + name)
    os.mkdir(b"y" * 255)
    write(b"y" * 255 + b"/" + b"z" * 255)
    os.chdir(b"..")
    os.mkdir(b"deep")
    here = os.open(".", os.O_RDONLY)
    os.chdir(b"deep")
    for level in range(20):
        part = (b"%02d" % level).ljust(148, b"d")
        os.mkdir(part)
        os.chdir(part)
    write(b"bottom")
    os.fchdir(here)
    os.close(here)


def hard_links():
    os.makedirs(b"links/a/b")
    os.mkdir(b"links/c")
    write(b"links/first", b"linked\n" * 1000)
    for name in b"links/a/second", b"links/a/b/third", b"links/c/fourth":
        os.link(b"links/first", name)
    os.symlink(b"target of a linked link", b"links/symbolic")
    os.link(b"links/symbolic", b"links/symbolic too", follow_symlinks=False)
    write(b"links/alone")
    write(b"links/empty", b"")
    os.link(b"links/empty", b"links/c/empty")


def symbolic_links():
    os.mkdir(b"symbolic")
    for name, target in (
        (b"dangling", b"no/such/file"),
        (b"absolute", b"/etc/passwd"),
        (b"self", b"self"),
        (b"up", b"../links/first"),
        (b"directory", b".."),
        (b"long", b"t/" * 2047 + b"e"),
        (b"inline", b"i" * 59),
        (b"just not inline", b"j" * 60),
        (b"odd", b"\xff\n \\"),
    ):
        os.symlink(target, b"symbolic/" + name)


def special_files():
    os.mkdir(b"special")
    os.mkfifo(b"special/fifo", 0o640)
    os.mknod(b"special/null", 0o20666, os.makedev(1, 3))
    os.mknod(b"special/wide", 0o60600, os.makedev(300, 70_000))
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(b"special")
    listener.bind("socket")
    os.chdir(here)
    listener.close()


def modes_and_owners():
    os.mkdir(b"modes")
    for mode in (0, 0o1, 0o400, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o2640, 0o4755, 0o4711, 0o6755, 0o7777):
        name = b"modes/file %04o" % mode
        write(name)
        os.chown(name, 1000 + mode, 100_000)
        os.chmod(name, mode)
        os.mkdir(b"modes/directory %04o" % mode)
        os.chmod(b"modes/directory %04o" % mode, mode)
    write(b"modes/owner")
    os.chown(b"modes/owner", 4_000_000_000, 3_999_999_999)
    os.symlink(b"owner", b"modes/owned link")
    os.lchown(b"modes/owned link", 65_534, 12)


def attributes():
    os.mkdir(b"attributes")
    for name in b"attributes/file", b"attributes/empty":
        write(name)
    os.setxattr(b"attributes/file", b"user.text", b"some text")
    os.setxattr(b"attributes/file", b"user.bytes", bytes(range(256)))
    os.setxattr(b"attributes/file", b"user.none", b"")
    os.setxattr(b"attributes/file", b"user." + b"n" * 200, b"long name")
    os.setxattr(b"attributes/file", b"user.name \xff\n", b"odd name")
    os.setxattr(b"attributes/file", b"trusted.aimss", b"trusted")
    write(b"attributes/large")
    # ext4 keeps one block of attributes a file: 4 KiB with its headers.
    os.setxattr(b"attributes/large", b"user.large", b"L" * 3500)
    os.setxattr(b"attributes", b"user.directory", b"of a directory")
    write(b"attributes/capable")
    # cap_net_raw, permitted and effective, in the form of version 2.
    os.setxattr(
        b"attributes/capable", b"security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    )
    os.mkdir(b"acl")
    users = [
        (ACL_USER_OBJ, 7, NOBODY_ID),
        (ACL_USER, 6, 1234),
        (ACL_USER, 0, 65_534),
        (ACL_GROUP_OBJ, 5, NOBODY_ID),
        (ACL_GROUP, 4, 77),
        (ACL_MASK, 7, NOBODY_ID),
        (ACL_OTHER, 1, NOBODY_ID),
    ]
    write(b"acl/file")
    os.setxattr(b"acl/file", b"system.posix_acl_access", acl(*users))
    os.mkdir(b"acl/directory")
    os.setxattr(b"acl/directory", b"system.posix_acl_access", acl(*users))
    os.setxattr(b"acl/directory", b"system.posix_acl_default", acl(*users))
    write(b"acl/directory/heir")
    os.mkdir(b"acl/directory/heiress")


def sparse_files():
    os.mkdir(b"sparse")
    for name, size, places in (
        (b"hole", 1 << 20, ()),
        (b"middle", 8 << 20, (3 << 20,)),
        (b"edges", 5 << 20, (0, (5 << 20) - 1)),
        (b"odd", 1_234_567, (4095, 70_001)),
        (b"beyond 4 GiB", 4 * GIB + 12_345, (0, 4 * GIB - 1, 4 * GIB + 12_000)),
    ):
        with open(b"sparse/" + name, "wb") as file:
            file.truncate(size)
            for place in places:
                file.seek(place)
                file.write(b"!")


def times():
    os.mkdir(b"times")
    for number, nanoseconds in enumerate(
        (
            0,
            1,
            -1,
            999_999_999,
            123_456_789_987_654_321,
            -2_000_000_000 * SECOND_NS + 7,
            2_147_483_647 * SECOND_NS + 999_999_999,
            2_147_483_648 * SECOND_NS,
            4_294_967_296 * SECOND_NS + 5,
            15_000_000_000 * SECOND_NS + 1,
        )
    ):
        for name in b"times/file %d" % number, b"times/directory %d" % number, b"times/link %d" % number:
            if b"file" in name:
                write(name)
            elif b"link" in name:
                os.symlink(b"x", name)
            else:
                os.mkdir(name)
            os.utime(name, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


def main():
    if len(sys.argv) != 2:
        print("usage: odd_tree.py NEW_DIRECTORY", file=sys.stderr)
        sys.exit(2)
    os.umask(0o022)
    os.mkdir(sys.argv[1])
    os.chdir(sys.argv[1])
    for part in (
        names,
        hard_links,
        symbolic_links,
        special_files,
        modes_and_owners,
        attributes,
        sparse_files,
        times,
    ):
        part()


main()
