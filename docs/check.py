#!/usr/bin/env python3
"""Checks the documents: every relative link leads somewhere, lines are ASCII and not longer than 110 columns.

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
print("\n".join(bad) or f"{len(names)} documents, all links lead somewhere")
sys.exit(bool(bad))
