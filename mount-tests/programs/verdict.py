"""Imported by the Python tests here: their arguments, their libraries, and the three ways a test ends.

What: `directories` reads DIR and REF from the command line and makes a scratch directory of this test alone
in each, removed when the test passes and kept for a look when it fails. `libraries` restarts the test in
the interpreter that has the libraries it needs, or skips it. `check`, `fail`, `skip` and `succeed` end it:
one line on stdout on success, a sentence on stderr and status 1 on failure, status 77 when skipped.

Limits: Python 3.9 or later; forked children must leave with `os._exit`, and report through their status.
"""

import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

NAME = pathlib.Path(sys.argv[0]).name
TOOLS = pathlib.Path(os.environ.get("AIMSS_TEST_TOOLS") or pathlib.Path.home() / ".cache" / "aimss-tests")
# Set in the environment of a test that was restarted, so that it is restarted only once.
RESTARTED = "AIMSS_TEST_RESTARTED"
BLOCK_BYTES = 1 << 20

sys.dont_write_bytecode = True
_scratch = []


def succeed(sentence):
    if os.environ.get("KEEP", "0") == "0":
        for path in _scratch:
            shutil.rmtree(path)
    print(f"{NAME}: ok: {sentence}")
    sys.exit(0)


def fail(sentence):
    print(f"{NAME}: FAILED: {sentence}", file=sys.stderr)
    if _scratch:
        print(f"{NAME}: left for a look: {' and '.join(map(str, _scratch))}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def skip(reason):
    for path in _scratch:
        shutil.rmtree(path, ignore_errors=True)
    print(f"skipped: {reason}")
    sys.exit(77)


def check(holds, sentence):
    if not holds:
        fail(sentence)


def libraries(*names, interpreter=None):
    """Makes sure that `names` can be imported, by restarting in `interpreter` (the tools' own by default)."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if not missing:
        return
    interpreter = pathlib.Path(interpreter or TOOLS / "venv" / "bin" / "python")
    if RESTARTED in os.environ or not interpreter.exists():
        skip(f"{', '.join(missing)} cannot be imported (install.sh installs it)")
    os.environ[RESTARTED] = "1"
    os.execv(interpreter, [str(interpreter), *sys.argv])


def directories(arguments="DIR REF", optional=0):
    """Returns this test's directory in DIR and in REF, and the arguments after them as whole numbers."""
    given = sys.argv[1:]
    wanted = len(arguments.split())
    numbers = given[2:] if len(given) > 2 else []
    if not wanted - optional <= len(given) <= wanted or not all(n.isdigit() for n in numbers):
        print(f"usage: {NAME} {arguments}", file=sys.stderr)
        sys.exit(2)
    made = scratch(*given[:2])
    return made[0], made[1], [int(n) for n in numbers]


def scratch(*parents):
    """Makes a directory of this test alone in each of `parents`."""
    made = []
    for parent in parents:
        if not os.path.isdir(parent):
            print(f"{NAME}: needs a directory, and {parent} is none", file=sys.stderr)
            sys.exit(2)
        made.append(pathlib.Path(tempfile.mkdtemp(prefix=f"{NAME[:-3]}.", dir=os.path.abspath(parent))))
    _scratch.extend(made)
    return made


def same_bytes(path, reference):
    """Fails unless both files hold the same bytes; says where they part."""
    size, size_reference = path.stat().st_size, reference.stat().st_size
    check(size == size_reference, f"{path} has {size} bytes and {reference} has {size_reference}")
    with open(path, "rb") as a, open(reference, "rb") as b:
        offset = 0
        while True:
            x, y = a.read(BLOCK_BYTES), b.read(BLOCK_BYTES)
            if x != y:
                here = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                fail(f"{path} differs from {reference} at byte {offset + here}")
            if not x:
                check(offset == size, f"{path} says {size} bytes and gives {offset}")
                return
            offset += len(x)


def same_files(directory, reference):
    """Fails unless both directories hold the same names and bytes; returns the files' number and size."""
    names, names_reference = ({str(p.relative_to(d)) for p in d.rglob("*")} for d in (directory, reference))
    check(
        names == names_reference,
        f"names differ: {sorted(names ^ names_reference)[:10]} in only one of the two",
    )
    files = [name for name in sorted(names) if (directory / name).is_file()]
    for name in files:
        same_bytes(directory / name, reference / name)
    return len(files), sum((directory / name).stat().st_size for name in files)


def in_another_process(function, *arguments):
    """Runs `function` in a forked child, which ends without cleaning up; fails if the child does."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    check(status == 0, f"{function.__name__} failed in a process of its own")
