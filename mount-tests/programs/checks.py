"""Imported by tests of many small checks: runs each in a process of its own, and says how each went.

What: a check is a function that takes a file's path on the mount and one in the reference directory, both in
directories of its own. It calls `expect` for what must hold; its name, underscores as spaces, is what is
printed. `run` runs them all, so that one failure doesn't hide the next, and returns the names of the failed.
How:  a check runs in a process group of its own, which is killed when the check ends or takes too long, with
all helpers that it forked. `within` gives a part of a check its own limit and its own message.
Limits: a process that hangs in the kernel can't be ended; it is left behind, and the next check runs.
"""

import contextlib
import os
import signal
import sys
import time
import traceback


class Failed(Exception):
    """What a check expected did not hold."""


def expect(holds, sentence):
    if not holds:
        raise Failed(sentence)


@contextlib.contextmanager
def within(seconds, what):
    """Fails the check if the block takes longer; needs system calls that signals interrupt."""

    def too_long(_signal, _frame):
        raise Failed(f"{what}: not within {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refused(numbers, what, function, *arguments):
    """Expects `function` to fail with one of the errno `numbers`."""
    names = " or ".join(os.strerror(number) for number in numbers)
    try:
        result = function(*arguments)
    except OSError as error:
        expect(error.errno in numbers, f"{what}: {error.strerror} in place of {names}")
    else:
        raise Failed(f"{what}: worked ({result!r}) in place of {names}")


def fork(function, *arguments):
    """Runs `function` in a child, which ends with status 0 if it returns; returns the child's id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        function(*arguments)
        status = 0
    except Failed as failure:
        print(failure, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child, seconds):
    """The status of a child that ends within `seconds`, else None."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def succeeded(child, seconds, what):
    """Expects a child to end well within `seconds`."""
    status = ended(child, seconds)
    if status is None:
        os.kill(child, signal.SIGKILL)
        raise Failed(f"{what}: not done within {seconds} s")
    expect(status == 0, f"{what}: failed (status {status})")


def run(checks, directory, reference, limit_seconds=60):
    failed = []
    for check in checks:
        name = check.__name__.replace("_", " ")
        for place in directory, reference:
            (place / check.__name__).mkdir()

        def alone(check=check):
            os.setpgid(0, 0)
            check(directory / check.__name__ / "x.stream", reference / check.__name__ / "x.stream")

        begin = time.monotonic()
        child = fork(alone)
        status = ended(child, limit_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if status is None:
            print(f"{name}: took more than {limit_seconds} s", file=sys.stderr)
            left = ended(child, 5) is None
            print(f"{name}: {'cannot be' if left else 'was'} killed", file=sys.stderr)
        verdict = "ok" if status == 0 else "FAILED"
        print(f"{verdict:<7}{time.monotonic() - begin:6.2f} s  {name}", flush=True)
        if status != 0:
            failed.append(name)
    return failed
