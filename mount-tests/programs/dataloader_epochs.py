#!/usr/bin/env python3
"""Epochs of an image folder, read as a training reads it: PyTorch's DataLoader with worker processes.

usage: dataloader_epochs.py DIR [--files N] [--bytes N] [--epochs N] [--workers N] [--make] [--seed N]

What: DIR/class-KKK/image-NNNNNN.jpg, 200 files a class, of random bytes (`--make` writes them and exits). Each
      epoch shuffles all files anew; a worker opens, reads and closes a file and hands its bytes over as a
      tensor; the main process reads the number that each begins with, so that nothing is left out.
How:  prints a line of JSON: seconds of each epoch, bytes of an epoch, files a second. Fails (exit 1) if an
      epoch has not read every file once, whole.
Limits: needs torch (install.sh torch); no decoding of images, so the figures are about reading.
"""

import argparse
import json
import os
import sys
import time

import verdict

if "--make" not in sys.argv:
    verdict.libraries("torch", interpreter="/usr/bin/python3")

CLASS_FILES = 200


def paths_of(root, files):
    return [f"{root}/class-{i // CLASS_FILES:03}/image-{i:06}.jpg" for i in range(files)]


def make(paths, size):
    block = os.urandom(size)
    for number, path in enumerate(paths):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            # Each file begins with its own number, so that a wrong one is seen.
            file.write(number.to_bytes(8, "little") + block[8:])


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("dir")
    ask.add_argument("--files", type=int, default=20_000)
    ask.add_argument("--bytes", type=int, default=100 << 10)
    ask.add_argument("--epochs", type=int, default=3)
    ask.add_argument("--workers", type=int, default=4)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--make", action="store_true")
    asked = ask.parse_args()
    paths = paths_of(asked.dir, asked.files)
    if asked.make:
        make(paths, asked.bytes)
        return
    import torch

    class Folder(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            with open(paths[index], "rb") as file:
                return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)

    torch.set_num_threads(1)
    order = torch.Generator().manual_seed(asked.seed)
    loader = torch.utils.data.DataLoader(
        Folder(), batch_size=64, shuffle=True, num_workers=asked.workers, generator=order,
        persistent_workers=True, collate_fn=list)
    seconds = []
    for epoch in range(asked.epochs):
        start, seen = time.monotonic(), set()
        for batch in loader:
            for image in batch:
                if len(image) != asked.bytes:
                    verdict.fail(f"epoch {epoch}: a file has {len(image)} bytes instead of {asked.bytes}")
                seen.add(int.from_bytes(bytes(image[:8].tolist()), "little"))
        seconds.append(time.monotonic() - start)
        if len(seen) != asked.files:
            verdict.fail(f"epoch {epoch}: {len(seen)} of {asked.files} files were read")
    print(json.dumps({
        "seconds": [round(s, 3) for s in seconds],
        "bytes": asked.files * asked.bytes,
        "files_per_second": [round(asked.files / s, 1) for s in seconds],
    }))


if __name__ == "__main__":
    main()
