#!/usr/bin/env python3
"""Trains a small transformer and writes a checkpoint every few steps, while training goes on; then tells how long the
trainer was blocked, beside the same on another directory.

    aimss mount /data/ckpt /mnt/fast
    examples/checkpoint.py /mnt/fast/run1 --against /data/plain

Nothing in it knows aimss: `torch.save` to a path. A checkpoint is copied out of the GPU (its own stream, pinned memory),
serialised and written by a thread; the trainer waits for the copy alone, and for the thread only if the last checkpoint
is still being written. With --fsync the file is made durable, as on a plain disk it would have to be.

Needs PyTorch; without a GPU it trains on the processor, and says so.
"""

import argparse
import os
import pathlib
import statistics
import threading
import time

import torch


class Timed:
    """Adds up what each part of a checkpoint took, in seconds."""

    def __init__(self):
        self.parts = {"blocked": [], "copy": [], "serialise": [], "write": []}

    def add(self, part, seconds):
        self.parts[part].append(seconds)

    def line(self, part):
        took = self.parts[part]
        return f"{part:10} median {statistics.median(took) * 1e3:9.1f} ms   longest {max(took) * 1e3:9.1f} ms"


class Checkpointer:
    """Writes checkpoints beside the trainer."""

    def __init__(self, directory, fsync, timed):
        self.directory, self.fsync, self.timed = directory, fsync, timed
        self.directory.mkdir(parents=True, exist_ok=True)
        self.host = {}
        self.thread = None
        self.failed = None

    def save(self, step, tensors):
        """Blocks for as long as the trainer may not change what is saved."""
        begun = time.perf_counter()
        self.wait()
        copied = time.perf_counter()
        for name, tensor in tensors.items():
            if name not in self.host:
                pinned = tensor.is_cuda
                self.host[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            self.host[name].copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.timed.add("copy", time.perf_counter() - copied)
        self.thread = threading.Thread(target=self._write, args=(step,))
        self.thread.start()
        self.timed.add("blocked", time.perf_counter() - begun)

    def wait(self):
        if self.thread is not None:
            self.thread.join()
        if self.failed is not None:
            raise self.failed

    def _write(self, step):
        try:
            path = self.directory / f"step-{step:06}.pt"
            beside = path.with_suffix(".tmp")
            begun, written = time.perf_counter(), Written(beside)
            torch.save(self.host, written)
            written.close(self.fsync)
            os.replace(beside, path)
            took = time.perf_counter() - begun
            self.timed.add("write", written.seconds)
            self.timed.add("serialise", took - written.seconds)
        except Exception as error:
            self.failed = error


class Written:
    """A file that knows how long it was written to."""

    def __init__(self, path):
        self.file, self.seconds = open(path, "wb", buffering=0), 0.0

    def write(self, data):
        begun = time.perf_counter()
        data = memoryview(data).cast("B")
        done = 0
        while done < len(data):
            done += self.file.write(data[done:])
        self.seconds += time.perf_counter() - begun
        return done

    def flush(self):
        pass

    def close(self, fsync):
        begun = time.perf_counter()
        if fsync:
            os.fsync(self.file.fileno())
        self.file.close()
        self.seconds += time.perf_counter() - begun


def train(directory, arguments, device):
    """Trains, and returns what checkpoints took and how long it all was."""
    torch.manual_seed(1)
    width, layers = arguments.width, arguments.layers
    block = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True)
    model = torch.nn.TransformerEncoder(block, layers).to(device)
    optimiser = torch.optim.AdamW(model.parameters())
    timed = Timed()
    checkpointer = Checkpointer(directory, arguments.fsync, timed)
    batch = torch.randn(8, 128, width, device=device)
    begun = time.perf_counter()
    for step in range(1, arguments.steps + 1):
        optimiser.zero_grad()
        (model(batch) - batch).pow(2).mean().backward()
        optimiser.step()
        if step % arguments.every == 0:
            tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
            for number, state in enumerate(optimiser.state.values()):
                tensors |= {f"adam.{number}.{name}": value for name, value in state.items() if value.dim() > 0}
            checkpointer.save(step, tensors)
    checkpointer.wait()
    bytes_each = sum(value.numel() * value.element_size() for value in checkpointer.host.values())
    return timed, time.perf_counter() - begun, bytes_each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path, help="where checkpoints go")
    parser.add_argument("--against", type=pathlib.Path, help="another directory, for the same afterwards")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--fsync", action="store_true", help="make each checkpoint durable")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU: the processor"
    for directory in [arguments.directory] + ([arguments.against] if arguments.against else []):
        timed, took, size = train(directory, arguments, device)
        print(f"{directory}: {arguments.steps} steps in {took:.1f} s on {name}, checkpoints of {size / 2**20:.0f} MiB")
        for part in timed.parts:
            print("  " + timed.line(part))


if __name__ == "__main__":
    main()
