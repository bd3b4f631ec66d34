#!/usr/bin/env python3
"""Stores through shared mappings: after close, after rename, after unlink, beside read and write.

usage: memmap_test.py DIR REF

What: each case makes a file, stores into it through a mapping that outlives the descriptor, the name or
both, and says what the file must hold; the same is done in REF and compared, and both with what was meant.
Checked with the mapping in place (by read through a new descriptor), after it is gone, and by a process that
starts afterwards. numpy.memmap covers the same from the side of a library.
How:  cases run in a process of their own which ends by os._exit without unmapping, so that the kernel
takes the mappings down; half of the cases call msync and half never do.
Limits: about 50 MB in each directory. What a backing holds after a drain is for the caller to compare: with
KEEP=1 the files stay.
"""

import ctypes
import mmap
import os
import pathlib
import shutil

import verdict

verdict.libraries("numpy")
import numpy  # noqa: E402

SIZE = 3 * (1 << 20) + 12_345
# Places to store at: first and last byte, both sides of a page's and of a huge page's end.
PLACES = [0, 1, 4095, 4096, 65_535, 65_536, (1 << 20) - 1, (1 << 21) - 1, 1 << 21, SIZE - 1]


def base(size=SIZE):
    return numpy.arange(size, dtype=numpy.uint32).astype(numpy.uint8).tobytes()


def expected(rounds):
    data = bytearray(base())
    for number in range(1, rounds + 1):
        for place in PLACES:
            data[place] = (number * 37 + place) & 0xFF
    return bytes(data)


def store(mapping, number):
    for place in PLACES:
        mapping[place] = (number * 37 + place) & 0xFF


def mapped(path):
    """A new file with the base contents, mapped shared; the descriptor is closed already."""
    path.write_bytes(base())
    descriptor = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(descriptor, SIZE)
    os.close(descriptor)
    return mapping


def seen(path, rounds, where):
    verdict.check(path.read_bytes() == expected(rounds), f"{path} does not show {where}")


def after_close(directory):
    path = directory / "after_close"
    mapping = mapped(path)
    store(mapping, 1)
    seen(path, 1, "what was stored after the close")


def after_rename(directory):
    path, renamed = directory / "before_rename", directory / "after_rename"
    mapping = mapped(path)
    store(mapping, 1)
    path.rename(renamed)
    store(mapping, 2)
    seen(renamed, 2, "what was stored after the rename")


def after_rename_over(directory):
    """The mapped file loses its name to another; its mapping stays its own, the other stays untouched."""
    path, other = directory / "over", directory / "over.new"
    mapping = mapped(path)
    other.write_bytes(base())
    other.rename(path)
    store(mapping, 1)
    seen(path, 0, "the contents renamed over it")
    verdict.check(mapping[:] == expected(1), "the mapping of a file renamed over lost its contents")


def after_unlink(directory):
    path = directory / "unlinked"
    mapping = mapped(path)
    path.unlink()
    path.write_bytes(base())
    store(mapping, 1)
    store(mapping, 2)
    seen(path, 0, "the contents of the new file of that name")
    verdict.check(mapping[:] == expected(2), "the mapping of an unlinked file lost its contents")


def after_link(directory):
    path, linked = directory / "first_name", directory / "second_name"
    mapping = mapped(path)
    os.link(path, linked)
    path.unlink()
    store(mapping, 1)
    seen(linked, 1, "what was stored after the first name was gone")


def after_directory_rename(directory):
    inside = directory / "directory"
    inside.mkdir()
    mapping = mapped(inside / "file")
    inside.rename(directory / "renamed_directory")
    store(mapping, 1)
    seen(directory / "renamed_directory" / "file", 1, "what was stored after its directory was renamed")


def with_msync(directory):
    path = directory / "msync"
    mapping = mapped(path)
    store(mapping, 1)
    mapping.flush()
    store(mapping, 2)
    mapping.flush(4096, 4096)
    seen(path, 2, "what was stored around msync")


def beside_read_and_write(directory):
    path = directory / "coherent"
    mapping = mapped(path)
    store(mapping, 1)
    descriptor = os.open(path, os.O_RDWR)
    for place in PLACES:
        value = bytes([(2 * 37 + place) & 0xFF])
        before = os.pread(descriptor, 1, place)
        verdict.check(before == bytes([mapping[place]]), f"pread at {place} does not see the store")
        os.pwrite(descriptor, value, place)
        verdict.check(mapping[place] == value[0], f"the mapping at {place} does not see the pwrite")
    os.close(descriptor)


def two_processes(directory):
    """Two mappings of one file by two openings: each sees the stores of the other."""
    path = directory / "two"
    mine = mapped(path)

    def other():
        descriptor = os.open(path, os.O_RDWR)
        theirs = mmap.mmap(descriptor, SIZE)
        os.close(descriptor)
        assert theirs[0] == mine[0]
        store(theirs, 1)

    verdict.in_another_process(other)
    verdict.check(mine[:] == expected(1), "the stores of another process do not show in the mapping")


def grown_and_cut(directory):
    """A mapping made before the file grew shows the new bytes; a cut and regrown tail reads as zeros."""
    path = directory / "grown"
    path.write_bytes(base(1 << 20))
    descriptor = os.open(path, os.O_RDWR)
    os.ftruncate(descriptor, 2 << 20)
    mapping = mmap.mmap(descriptor, 2 << 20)
    mapping[(2 << 20) - 1] = 9
    os.ftruncate(descriptor, 5000)
    os.ftruncate(descriptor, 2 << 20)
    verdict.check(mapping[4999] == 4999 & 0xFF, "the byte before the cut changed")
    verdict.check(not any(mapping[5000:]), "bytes beyond the cut came back after growing again")
    mapping[8000] = 7
    os.close(descriptor)
    data = bytearray(2 << 20)
    data[:5000] = base(5000)
    data[8000] = 7
    verdict.check(path.read_bytes() == bytes(data), f"{path} holds other bytes than its mapping")


def hole_filled(directory):
    """Stores into a sparse file through a mapping."""
    path = directory / "sparse"
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    descriptor = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(descriptor, 16 << 20)
    os.close(descriptor)
    for place in range(0, 16 << 20, (1 << 20) + 4096):
        mapping[place] = 1
    data = path.read_bytes()
    verdict.check(
        sum(data) == 16 and data[(1 << 20) + 4096] == 1, "stores into holes do not show in the file"
    )


def private(directory):
    """A private mapping changes nothing and keeps what it changed."""
    path = directory / "private"
    path.write_bytes(base())
    descriptor = os.open(path, os.O_RDONLY)
    mapping = mmap.mmap(descriptor, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    store(mapping, 1)
    seen(path, 0, "its contents untouched by a private mapping")


def read_into_own_mapping(directory):
    """read into, and write from, a mapping of the same file: both end in page faults inside the call."""
    path = directory / "into_itself"
    mapping = mapped(path)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    descriptor = os.open(path, os.O_RDWR)
    for call, at, offset in (libc.pread, 1 << 20, 0), (libc.pwrite, 1 << 20, 2 << 20):
        moved = call(
            descriptor, ctypes.c_void_p(address + at), ctypes.c_size_t(65_536), ctypes.c_long(offset)
        )
        verdict.check(
            moved == 65_536, f"a transfer from a mapping of the same file moved {moved} of 65536 bytes"
        )
    os.close(descriptor)
    data = bytearray(base())
    data[1 << 20 : (1 << 20) + 65_536] = data[:65_536]
    data[2 << 20 : (2 << 20) + 65_536] = data[:65_536]
    verdict.check(
        path.read_bytes() == bytes(data), "transfers from a mapping of the same file left other bytes"
    )


def library(directory):
    """numpy.memmap, created, reopened, its file renamed and removed below it."""
    path = directory / "array"
    array = numpy.memmap(path, numpy.float64, "w+", shape=(500, 1000))
    array[:] = numpy.arange(500_000).reshape(500, 1000)
    array.flush()
    path.rename(directory / "array.renamed")
    array[17] = -1
    again = numpy.memmap(directory / "array.renamed", numpy.float64, "r+", shape=(500, 1000))
    verdict.check(bool((again[17] == -1).all()), "a second memmap does not see the first one's stores")
    again[18] = -2
    verdict.check(bool((array[18] == -2).all()), "the first memmap does not see the second one's stores")
    copied = numpy.memmap(directory / "gone", numpy.int32, "w+", shape=(1000,))
    (directory / "gone").unlink()
    copied[:] = 5
    verdict.check(int(copied.sum()) == 5000, "a memmap of a removed file lost its contents")


CASES = [
    after_close,
    after_rename,
    after_rename_over,
    after_unlink,
    after_link,
    after_directory_rename,
    with_msync,
    beside_read_and_write,
    two_processes,
    grown_and_cut,
    hole_filled,
    private,
    read_into_own_mapping,
    library,
]
# What each case leaves, by the number of rounds of stores it holds.
LEFT = {
    "after_close": 1,
    "after_rename": 2,
    "over": 0,
    "unlinked": 0,
    "second_name": 1,
    "renamed_directory/file": 1,
    "msync": 2,
    "coherent": 2,
    "two": 1,
    "private": 0,
}


def main():
    directory, reference, _ = verdict.directories()
    for case in CASES:
        for place in directory, reference:
            verdict.in_another_process(case, place)
    files, _ = verdict.same_files(directory, reference)
    for name, rounds in LEFT.items():
        seen(directory / name, rounds, "what its case stored, in a process that came later")
    # A copy reads by other calls than the rest: sendfile or copy_file_range.
    copied = pathlib.Path(shutil.copy(directory / "after_rename", directory / "copy"))
    seen(copied, 2, "what was stored, in a copy")
    verdict.succeed(f"{len(CASES)} cases left {files} files that are the same")


main()
