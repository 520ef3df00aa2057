"""Worker processes that end with the process that started them, even if it was killed."""

from __future__ import annotations

import os
import signal
import threading
import time

from gpbook_utils import arguments

PATIENCE = 0.2  # seconds between two looks

_watched: set[int] = set()


def end_with(parent: int) -> None:
    """From now on, end this process as soon as ``parent`` is no longer the process that it belongs to.

    A worker of joblib waits for its next task for minutes after its driver was killed. The system gives a process whose
    parent has died to another parent, on Linux and on macOS; a thread looks for that. What the worker computes is cut
    off, as it would be if it were killed itself.

    Raises:
        ValueError: if ``parent`` is not a process number.
    """
    arguments.whole("parent", parent)
    if os.getpid() not in _watched:  # a process that was forked has no thread of its own yet
        _watched.add(os.getpid())
        threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)
