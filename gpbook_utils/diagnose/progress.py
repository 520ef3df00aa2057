"""A line on a terminal for whoever waits longer than two seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

PATIENCE = 2.0  # seconds
_running: list[_Line] = []


class _Line:
    """What a diagnosis has done so far; written to the terminal's error stream, and wiped at its end."""

    def __init__(self) -> None:
        self.began, self.readings, self.width = time.monotonic(), 0, 0

    def step(self) -> None:
        """One reading more."""
        self.readings += 1
        seconds = time.monotonic() - self.began
        if seconds > PATIENCE and sys.stderr is not None and sys.stderr.isatty():
            text = f"diagnosis: {'#' * min(40, self.readings)} {self.readings} readings, {seconds:.0f} s"
            self.width = max(self.width, len(text))
            print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Leave the terminal as it was."""
        if self.width:
            print(f"\r{' ' * self.width}\r", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Count the readings inside, of the outermost diagnosis only."""
    if _running:
        yield
        return
    _running.append(_Line())
    try:
        yield
    finally:
        _running.pop().wipe()


def step() -> None:
    """One reading of a model was made."""
    for line in _running:
        line.step()
