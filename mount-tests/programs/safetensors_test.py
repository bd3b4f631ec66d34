#!/usr/bin/env python3
"""safetensors: checkpoints of many shards, saved, renamed into place, mapped and read.

usage: safetensors_test.py DIR REF

What: the same tensors saved in DIR and in REF by the library's own writer, compared byte by byte; read back
in another process whole, by name and by slices (which the library does from a mapping).
How:  a step is written to a directory with a temporary name, which then takes the final name, as trainers
do; the next step replaces the files of the last one by rename and leaves what is still mapped alone.
Limits: about 50 MB in each directory; numpy's side of the library.
"""

import json
import os

import verdict

verdict.libraries("numpy", "safetensors")
import numpy  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load, load_file, save_file  # noqa: E402

SHARDS = 6


def shard(step, number):
    source = numpy.random.default_rng(1000 * step + number)
    tensors = {
        f"layer.{number}.{i}": source.standard_normal((256, 512)).astype(numpy.float32) for i in range(8)
    }
    tensors[f"bias.{number}"] = source.integers(-128, 127, 1001).astype(numpy.int8)
    tensors[f"empty.{number}"] = numpy.zeros((0, 7), numpy.float16)
    return tensors


def save_step(place, step):
    final, unfinished = place / f"step-{step}", place / f".step-{step}.tmp"
    unfinished.mkdir()
    for number in range(SHARDS):
        save_file(
            shard(step, number), unfinished / f"model-{number}.safetensors", metadata={"step": str(step)}
        )
    index = {name: number for number in range(SHARDS) for name in shard(step, number)}
    (unfinished / "index.json").write_text(json.dumps(index, indent=1))
    unfinished.rename(final)


def verify_step(place, step, content):
    index = json.loads((place / f"step-{step}" / "index.json").read_text())
    for number in range(SHARDS):
        path, wanted = place / f"step-{step}" / f"model-{number}.safetensors", shard(content, number)
        for way, loaded in ("file", load_file(path)), ("bytes", load(path.read_bytes())):
            verdict.check(set(loaded) == set(wanted), f"{path} holds other tensors than were saved")
            for name, tensor in wanted.items():
                verdict.check(
                    index[name] == number and numpy.array_equal(loaded[name], tensor),
                    f"{name} of {path} reads wrong from its {way}",
                )
        with safe_open(path, framework="numpy") as opened:
            verdict.check(opened.metadata() == {"step": str(content)}, f"{path} has other metadata")
            for name in list(wanted)[:8]:
                part = opened.get_slice(name)[17:99, 100:300]
                verdict.check(
                    numpy.array_equal(part, wanted[name][17:99, 100:300]), f"a slice of {name} is wrong"
                )


def replace_while_mapped(place):
    """A reader keeps the shard it has mapped while a newer one takes its name."""
    path = place / "step-1" / "model-0.safetensors"
    with safe_open(path, framework="numpy") as opened:
        for number in range(SHARDS):
            target = place / "step-1" / f"model-{number}.safetensors"
            temporary = target.with_suffix(".new")
            save_file(shard(3, number), temporary, metadata={"step": "3"})
            temporary.replace(target)
        for name, tensor in shard(1, 0).items():
            verdict.check(
                numpy.array_equal(opened.get_tensor(name), tensor), f"{name} changed under its reader"
            )


def main():
    directory, reference, _ = verdict.directories()
    for place in directory, reference:
        for step in 1, 2:
            verdict.in_another_process(save_step, place, step)
            verdict.in_another_process(verify_step, place, step, step)
        replace_while_mapped(place)
        verdict.in_another_process(verify_step, place, 1, 3)
        verdict.check(sorted(os.listdir(place)) == ["step-1", "step-2"], f"{place} holds {os.listdir(place)}")
    files, size = verdict.same_files(directory, reference)
    verdict.succeed(f"{files} files, {size >> 20} MiB, are the same")


main()
