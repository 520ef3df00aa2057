"""Calls a function in a process of its own, with limits, so that what it was given can stop that process at most."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource

SECONDS = 60
LIMITS = {resource.RLIMIT_DATA: 2 * 2**30, resource.RLIMIT_FSIZE: 2**30, resource.RLIMIT_CPU: SECONDS}


class Failed(Exception):
    """The function did not return; the message says why."""


def call(function, *arguments):
    """What ``function`` returns, called in a copy of this process.

    Raises:
        Failed: if it raises an error, takes more than ``LIMITS``, or does not end in ``SECONDS``.

    >>> call(divmod, 7, 2)
    (3, 1)
    >>> call(divmod, 7, 0)
    Traceback (most recent call last):
    grading.guarded.Failed: ZeroDivisionError: integer division or modulo by zero
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_called, args=(there, function, arguments), daemon=True)
    process.start()
    there.close()
    returned, value = False, f"took longer than {SECONDS} s"
    try:
        if here.poll(SECONDS):
            returned, value = here.recv()
    except EOFError:
        process.join(1)
        value = f"ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
        here.close()
    if not returned:
        raise Failed(value)
    return value


def _called(there, function, arguments) -> None:
    for kind, most in LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        said = (True, function(*arguments))
    except BaseException as error:  # said to the caller, whatever it is
        said = (False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    there.send(said)
