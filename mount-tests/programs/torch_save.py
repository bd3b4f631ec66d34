#!/usr/bin/env python3
"""torch.save and torch.load of a small training run, in the zip and in the older format.

usage: torch_save.py DIR REF

What: a seeded model is trained for some steps, its checkpoints (model, optimizer, random state) written in
DIR and in REF and compared byte by byte; another process loads one and goes on to the same weights.
How:  uses torch of the interpreter at hand, else of the tools' own, else Debian's (install.sh torch). A
checkpoint is saved to a temporary name and renamed; one file is saved over in place.
Limits: CPU only, about 25 MB in each directory. Loading from a mapping is tried where torch knows it (2.1).
"""

import inspect
import os

import verdict

verdict.libraries("torch", interpreter="/usr/bin/python3")
import torch  # noqa: E402

STEPS = 3


def trained(state=None, steps=STEPS):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(400, 800), torch.nn.ReLU(), torch.nn.Linear(800, 400))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(torch.randn(16, 400)) - 1) ** 2).mean().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}


def tensors(state):
    return {**state["model"], "random": state["random"]}


def equal(a, b):
    a, b = tensors(a), tensors(b)
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def write(place):
    torch.set_num_threads(1)
    state = trained()
    torch.save(state, place / "checkpoint.tmp")
    os.replace(place / "checkpoint.tmp", place / "checkpoint.pt")
    torch.save(state, place / "older.pt", _use_new_zipfile_serialization=False)
    with open(place / "stream.pt", "wb") as file:
        torch.save(state, file)
    torch.save({"long": torch.zeros(3_000_000)}, place / "over.pt")
    torch.save({"short": torch.arange(1000)}, place / "over.pt")


def verify(place):
    torch.set_num_threads(1)
    further = trained(steps=2 * STEPS)
    for name in "checkpoint.pt", "older.pt", "stream.pt":
        state = torch.load(place / name)
        verdict.check(equal(state, trained()), f"{place / name} loads other tensors than were saved")
        verdict.check(equal(trained(state), further), f"training goes on differently from {place / name}")
    if "mmap" in inspect.signature(torch.load).parameters:
        state = torch.load(place / "checkpoint.pt", mmap=True)
        verdict.check(equal(state, trained()), f"{place / 'checkpoint.pt'} reads wrong from a mapping")
    verdict.check(
        torch.equal(torch.load(place / "over.pt")["short"], torch.arange(1000)), "over.pt loads wrong"
    )


def main():
    directory, reference, _ = verdict.directories()
    for place in directory, reference:
        verdict.in_another_process(write, place)
        verdict.in_another_process(verify, place)
    files, size = verdict.same_files(directory, reference)
    verdict.succeed(f"{files} files, {size >> 20} MiB, are the same (torch {torch.__version__})")


main()
