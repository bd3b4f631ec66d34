#!/usr/bin/env python3
"""Loads all safetensors files of a directory into GPU memory, several times, and tells how fast that was.

    aimss mount --gpu-memory 16G /models /mnt/fast
    examples/load_safetensors.py /mnt/fast/llama --rounds 3

Nothing in it knows aimss: `safetensors` maps the files. Beside a plain directory (--against) the rounds alternate.
Needs PyTorch and safetensors; without a GPU it loads into host memory, and says so.
"""

import argparse
import pathlib
import statistics
import time

import torch
from safetensors.torch import load_file


def load(directory, device):
    """Bytes a second of one round."""
    begun, size = time.perf_counter(), 0
    for path in sorted(directory.glob("*.safetensors")):
        for tensor in load_file(path, device=device).values():
            size += tensor.numel() * tensor.element_size()
    if device == "cuda":
        torch.cuda.synchronize()
    if size == 0:
        raise SystemExit(f"{directory}: there is no file *.safetensors")
    return size / (time.perf_counter() - begun), size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path, help="a plain directory with the same files")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("into " + (torch.cuda.get_device_name() if device == "cuda" else "host memory: there is no GPU"))
    directories = [arguments.directory] + ([arguments.against] if arguments.against else [])
    rates = {directory: [] for directory in directories}
    for _ in range(arguments.rounds):
        for directory in directories:
            rate, size = load(directory, device)
            rates[directory].append(rate)
    for directory, seen in rates.items():
        each = " ".join(f"{rate / 1e9:.2f}" for rate in seen)
        print(f"{directory}: {size / 2**20:.0f} MiB, median {statistics.median(seen) / 1e9:.2f} GB/s ({each})")


if __name__ == "__main__":
    main()
