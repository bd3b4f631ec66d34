#!/usr/bin/env python3
"""HDF5 through h5py: chunked, compressed and growing datasets, reopened and changed in place.

usage: hdf5_test.py DIR REF

What: the same files written in DIR and in REF, compared byte by byte (time stamps are off, so a file's bytes
follow from the calls), then read back by another process and compared with the arrays.
How:  groups, attributes, contiguous, chunked, gzip and scale-offset datasets, resizing, deleting and
rewriting within a file, the core driver (a file written in one go at close), the file split over several
(family), both format versions, a single writer with a concurrent reader (SWMR), and the locks HDF5 takes.
Limits: about 20 MB in each directory.
"""

import os
import subprocess
import sys
import time

import verdict

verdict.libraries("numpy", "h5py")
import h5py  # noqa: E402
import numpy  # noqa: E402

SWMR_ROWS = 200


def data(seed, shape):
    return numpy.random.default_rng(seed).standard_normal(shape)


def write_file(path, version):
    with h5py.File(path, "w", libver=version, track_order=False) as file:
        file.attrs["title"] = "a file"
        file.create_dataset("contiguous", data=data(1, (1000, 333)), track_times=False)
        file.create_dataset("chunked", data=data(2, (700, 500)), chunks=(64, 64), track_times=False)
        file.create_dataset(
            "gzip",
            data=data(3, (500, 500)),
            chunks=(50, 500),
            compression="gzip",
            shuffle=True,
            fletcher32=True,
            track_times=False,
        )
        growing = file.create_dataset(
            "growing", (0, 100), "f4", maxshape=(None, 100), chunks=(16, 100), track_times=False
        )
        for i in range(100):
            growing.resize(i + 1, axis=0)
            growing[i] = i
        group = file.create_group("deep/deeper/deepest")
        for i in range(300):
            group.create_dataset(f"small {i}", data=numpy.arange(i), track_times=False)
        file.create_dataset(
            "words", data=["some", "words", "of", "different lengths"] * 50, track_times=False
        )
    # Reopened: space is freed, reused and written in the middle.
    with h5py.File(path, "r+", libver=version) as file:
        for i in range(0, 300, 3):
            del file[f"deep/deeper/deepest/small {i}"]
        file["chunked"][100:200, 100:200] = 0
        file["contiguous"][::7, 5] = -1
        file["growing"].resize(40, axis=0)
        file.create_dataset("late", data=data(4, 50_000), track_times=False)
        file.flush()
        file["late"][:100] = 5


def verify_file(path):
    with h5py.File(path, "r") as file:
        contiguous, chunked, late = data(1, (1000, 333)), data(2, (700, 500)), data(4, 50_000)
        contiguous[::7, 5] = -1
        chunked[100:200, 100:200] = 0
        late[:100] = 5
        wanted = {
            "contiguous": contiguous,
            "chunked": chunked,
            "gzip": data(3, (500, 500)),
            "late": late,
            "growing": numpy.repeat(numpy.arange(40.0), 100).reshape(40, 100),
        }
        for name, array in wanted.items():
            verdict.check(numpy.array_equal(file[name][:], array), f"{name} of {path} reads wrong")
        small = file["deep/deeper/deepest"]
        verdict.check(len(small) == 200, f"{path} has {len(small)} small datasets instead of 200")
        for i in range(1, 300, 3):
            verdict.check(
                numpy.array_equal(small[f"small {i}"][:], numpy.arange(i)), f"small {i} reads wrong"
            )


def write_drivers(directory):
    with h5py.File(directory / "core.h5", "w", driver="core", block_size=65_536) as file:
        file.create_dataset("x", data=data(5, (1000, 100)), track_times=False)
    with h5py.File(directory / "family-%02d.h5", "w", driver="family", memb_size=1 << 20) as file:
        file.create_dataset("x", data=data(6, (1000, 500)), track_times=False)


def verify_drivers(directory):
    with h5py.File(directory / "core.h5", "r") as file:
        verdict.check(numpy.array_equal(file["x"][:], data(5, (1000, 100))), "core.h5 reads wrong")
    with h5py.File(directory / "family-%02d.h5", "r", driver="family", memb_size=1 << 20) as file:
        verdict.check(
            numpy.array_equal(file["x"][:], data(6, (1000, 500))), "the family of files reads wrong"
        )


def swmr_writer(path):
    with h5py.File(path, "w", libver="latest") as file:
        rows = file.create_dataset(
            "rows", (0, 512), "f4", maxshape=(None, 512), chunks=(8, 512), track_times=False
        )
        file.swmr_mode = True
        for i in range(SWMR_ROWS):
            rows.resize(i + 1, axis=0)
            rows[i] = i
            file.flush()


def swmr_reader(path):
    """Reads beside the writer; a row that is there holds its number or, before its flush, the fill value."""
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size == 0:
        verdict.check(time.monotonic() < deadline, f"{path} did not appear")
        time.sleep(0.001)
    seen = 0
    while seen < SWMR_ROWS:
        verdict.check(time.monotonic() < deadline, f"the reader of {path} saw {seen} of {SWMR_ROWS} rows")
        try:
            file = h5py.File(path, "r", libver="latest", swmr=True)
        except OSError:
            # The writer has not switched to SWMR yet.
            time.sleep(0.005)
            continue
        with file:
            if "rows" not in file:
                continue
            rows = file["rows"]
            rows.id.refresh()
            verdict.check(rows.shape[0] >= seen, f"{path} lost rows while it was read")
            seen = max(seen, rows.shape[0])
            # The last row may be in flight; those before it were flushed in order.
            for i in range(max(0, seen - 20), seen - 1):
                row = rows[i]
                verdict.check(bool((row == i).all()), f"row {i} of {path} shows other numbers to a reader")


def locked(path):
    """HDF5 refuses a second writer by flock; the second is a process of its own."""
    code = "import h5py, sys\ntry: h5py.File(sys.argv[1], 'r+')\nexcept OSError: sys.exit(0)\nsys.exit(3)\n"
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"}
    with h5py.File(path, "r+", locking=True):
        ended = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    verdict.check(ended.returncode == 0, f"a second writer could open {path} while it was locked")


def main():
    directory, reference, _ = verdict.directories()
    for place in directory, reference:
        for version in "earliest", "latest":
            write_file(place / f"{version}.h5", version)
            verdict.in_another_process(verify_file, place / f"{version}.h5")
        write_drivers(place)
        verdict.in_another_process(verify_drivers, place)
        reader = os.fork()
        if reader == 0:
            swmr_reader(place / "swmr.h5")
            os._exit(0)
        swmr_writer(place / "swmr.h5")
        verdict.check(os.waitpid(reader, 0)[1] == 0, "the reader beside a writer failed")
        locked(place / "earliest.h5")
    files, size = verdict.same_files(directory, reference)
    verdict.succeed(f"{files} files, {size >> 20} MiB, are the same")


main()
