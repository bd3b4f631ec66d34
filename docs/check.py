#!/usr/bin/env python3
"""Checks the documents: every relative link leads somewhere, lines are ASCII and not longer than 110 columns, and
the tests that they name as docs/semantics.md says are there.

Tables and links are let be long: they can't be wrapped.
"""

import pathlib
import re
import subprocess
import sys

COLUMNS_MAX = 110
top = pathlib.Path(__file__).resolve().parent.parent
names = subprocess.run(["git", "ls-files", "*.md"], cwd=top, check=True, capture_output=True, text=True).stdout.split()
bad = []
for name in names:
    page = top / name
    for number, line in enumerate(page.read_text().splitlines(), 1):
        at = f"{name}:{number}"
        if not line.isascii():
            bad.append(f"{at}: not ASCII")
        if len(line) > COLUMNS_MAX and not line.lstrip().startswith("|") and "](" not in line:
            bad.append(f"{at}: {len(line)} columns")
        for target in re.findall(r"\]\(([^)#\s]+)", line):
            if "://" not in target and not (page.parent / target).exists():
                bad.append(f"{at}: {target} leads nowhere")

FOLDERS = {"engine": "engine/", "mount": "mount-tests/", "fs": "fs/", "tools": "tools/", None: ""}
sources = subprocess.run(["git", "ls-files", "*.rs"], cwd=top, check=True, capture_output=True, text=True).stdout.split()
# `CRATE: SUITE::TEST`, `CRATE: SUITE`, `SUITE::TEST`, or the test alone, if it has more words than other things have.
TEST = re.compile(r"(?:(engine|mount|fs|tools): )?(?:([a-z0-9_]+)::)?([a-z0-9_]+)")
SCRIPT = re.compile(r"(?:program: )?(\w+\.(?:py|sh))")


def is_there(crate, suite, test):
    """Whether a function or a module of that name is in a file or folder of that name."""
    suite, test = (suite, test) if suite or not crate else (test, "")
    within = (name for name in sources if name.startswith(FOLDERS[crate]))
    within = (name for name in within if not suite or suite in name.removesuffix(".rs").split("/"))
    return any(re.search(rf"\b(fn|mod) {test}\b", (top / name).read_text()) for name in within)


for name in ["docs/failure-model.md", "docs/semantics.md"]:
    for span in sorted(set(re.findall(r"`([^`]+)`", " ".join((top / name).read_text().split())))):
        if script := SCRIPT.fullmatch(span):
            found = (top / "mount-tests/programs" / script[1]).exists()
        elif (test := TEST.fullmatch(span)) and (test[1] or test[2] or test[3].count("_") >= 3):
            found = is_there(*test.groups())
        else:
            found = "/" not in span or not span.endswith(".rs") or (top / span).exists()
        if not found:
            bad.append(f"{name}: there is no `{span}`")
print("\n".join(bad) or f"{len(names)} documents, all links and tests lead somewhere")
sys.exit(bool(bad))
