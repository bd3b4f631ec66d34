#!/usr/bin/env python3
"""Zip and npz archives: writers that go back into their own headers.

usage: zip_npz.py DIR REF

What: zipfile (from known names, streamed with unknown sizes, appended to after reopening, to an unseekable
file) and numpy's savez, savez_compressed and save, each written into DIR and REF and compared byte by byte.
How:  zipfile writes a member's header first and comes back with its size and checksum when it is closed,
so these are overwrites far behind the end of a growing file. The archives in DIR are then read and tested
by the libraries that wrote them.
Limits: about 12 MB in each directory; dates in the archives are fixed, so their bytes can be compared.
"""

import random
import zipfile

import verdict

verdict.libraries("numpy")
import numpy  # noqa: E402

DATE = (2020, 2, 20, 20, 20, 20)


def contents(seed, count):
    """Half random, half text, so that compression has something to do and something it cannot do."""
    source = random.Random(seed)
    return source.randbytes(count // 2) + (b"%d all work and no play\n" % seed) * (count // 50)


def write_zip(path, compression):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for i in range(20):
            member = zipfile.ZipInfo(f"member/{i}", DATE)
            member.compress_type = compression
            archive.writestr(member, contents(i, 1 << (i % 18)))
    # Appending starts where the directory of the archive was, and overwrites it.
    with zipfile.ZipFile(path, "a", compression) as archive:
        member = zipfile.ZipInfo("streamed", DATE)
        member.compress_type = compression
        with archive.open(member, "w", force_zip64=True) as stream:
            for i in range(200):
                stream.write(contents(i, 10_007))


class Unseekable:
    """A file that only moves forward, as a pipe does: zipfile then writes descriptors behind the data."""

    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)

    def write(self, data):
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def write_forward(path):
    unseekable = Unseekable(path)
    with zipfile.ZipFile(unseekable, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(10):
            archive.writestr(zipfile.ZipInfo(f"forward/{i}", DATE), contents(i, 50_000))
    unseekable.file.close()


def arrays():
    source = numpy.random.default_rng(7)
    return {
        "doubles": source.standard_normal((300, 1000)),
        "halves": source.standard_normal(70_001).astype(numpy.float16),
        "fortran": numpy.asfortranarray(source.integers(0, 1 << 40, (501, 77))),
        "nothing": numpy.zeros((0, 5)),
        "scalar": numpy.float32(2.5),
        "text": numpy.array(["a", "bc", "def"] * 1000),
    }


def write_all(directory):
    for name, compression in ("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED):
        write_zip(directory / f"{name}.zip", compression)
    write_forward(directory / "forward.zip")
    numpy.savez(directory / "plain.npz", **arrays())
    numpy.savez_compressed(directory / "small.npz", **arrays())
    for name, array in arrays().items():
        numpy.save(directory / f"{name}.npy", array)


def read_all(directory):
    for path in sorted(directory.glob("*.zip")) + sorted(directory.glob("*.npz")):
        with zipfile.ZipFile(path) as archive:
            verdict.check(archive.testzip() is None, f"{path} has a member with a wrong checksum")
    for name, array in arrays().items():
        for archive in "plain", "small":
            with numpy.load(directory / f"{archive}.npz") as loaded:
                verdict.check(numpy.array_equal(loaded[name], array), f"{name} of {archive}.npz reads wrong")
        for mode in None, "r":
            if mode and array.size == 0:
                continue
            loaded = numpy.load(directory / f"{name}.npy", mmap_mode=mode)
            verdict.check(numpy.array_equal(loaded, array), f"{name}.npy reads wrong with mmap_mode {mode}")


def main():
    directory, reference, _ = verdict.directories()
    write_all(directory)
    write_all(reference)
    files, size = verdict.same_files(directory, reference)
    read_all(directory)
    verdict.succeed(f"{files} archives and arrays, {size >> 20} MiB, are the same")


main()
