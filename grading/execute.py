"""Runs one notebook in the cage, from top to bottom, and stores its outputs.

A cell that fails stops no other. A cell that ends its kernel, takes too much or does not end is left out, and the rest
is run again in a fresh kernel: an endless loop costs the marks of its own question. What counts is the time that a cell
computes, since the clock also counts what others compute.
"""

from __future__ import annotations

import json
import queue
import re
import time
from pathlib import Path

from nbformat.v4 import new_output, output_from_msg

from grading import cage, watch

ATTEMPTS = 8  # kernels for one submission
STRIKES = 2  # cells of one question that may be stopped before the question's other cells are left out
PATIENCE = 3  # times what a cell or a submission may compute, by the clock
SHOWN = {"stream", "display_data", "execute_result", "error"}


class Stopped(Exception):
    """A cell was ended; the message says why, ``alone`` whether it would be on a machine with nothing else to do."""

    def __init__(self, why: str, alone: bool = True):
        super().__init__(why)
        self.alone = alone


def run(notebook, files: list[Path], sockets: str, limits: watch.Limits, environment=None) -> tuple[list[str], bool]:
    """Execute ``notebook`` and store the outputs in it.

    Args:
        notebook: a notebook of format 4; its old outputs are dropped.
        files: the assignment's data files.
        sockets: the folder for the kernel's connection.
        limits: what the submission may take.
        environment: further environment variables for the kernel.

    Returns:
        What went wrong, in sentences, empty if every cell ran to its end, with or without an error of its own; and
        whether the same is to be expected where nothing else runs.
    """
    code = {number: cell for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    left_out: dict[int, str] = {}
    said, alone = [], True
    budget = _Budget(limits)
    for _ in range(ATTEMPTS):
        with cage.kernel(files, sockets, limits, environment) as kernel:
            stopped = _attempt(kernel, code, left_out, budget)
        if stopped is None:
            break
        number, reason = stopped
        left_out[number] = str(reason)
        alone &= reason.alone
        said.append(f"{_name(code[number], number)} {reason}")
        question = [n for n, cell in code.items() if _question(cell) == _question(code[number]) is not None]
        if sum(n in left_out for n in question) == STRIKES:
            left_out |= {n: "was left out after the others of its question" for n in question if n not in left_out}
        for n in left_out:
            code[n].outputs = [new_output("error", ename="Stopped", evalue=left_out[n], traceback=[left_out[n]])]
        if budget.is_spent():
            break
    if budget.is_spent():
        said.append(f"the submission took longer than {limits.total:.0f} s; what came after has no marks")
    elif stopped is not None:
        said.append(f"{ATTEMPTS} cells had to be stopped; what came after has no marks")
    return said, alone


class _Budget:
    """What is left of a submission's time, over all of its kernels."""

    def __init__(self, limits: watch.Limits):
        self.limits = limits
        self.end = time.monotonic() + PATIENCE * limits.total
        self.computed = 0.0

    def is_spent(self) -> bool:
        return self.computed > self.limits.total or time.monotonic() > self.end


def _attempt(kernel: cage.Kernel, code: dict, left_out: dict, budget: _Budget) -> tuple[int, Stopped] | None:
    """Run all cells but some in a fresh kernel; the number of a cell that had to be stopped, and why."""
    size = 0
    for number, cell in code.items():
        if number in left_out:
            continue
        cell.outputs = []
        try:
            size += _run_cell(kernel, cell, budget, budget.limits.outputs - size)
        except Stopped as reason:
            return number, reason
    return None


def _run_cell(kernel: cage.Kernel, cell, budget: _Budget, room: int) -> int:
    """Execute one cell and keep what it displays, ``room`` characters at most; how many there were.

    Raises:
        Stopped: if it does not end in time, displays too much, or ends the kernel.
    """
    limits, patience, room = budget.limits, _patience(cell, budget.limits), min(room, budget.limits.output)
    request = kernel.client.execute(cell.source, allow_stdin=False, stop_on_error=False)
    before, last, size = kernel.computed(), 0.0, 0
    deadline = min(budget.end, time.monotonic() + PATIENCE * patience)
    try:
        while True:
            if time.monotonic() > deadline:
                raise Stopped(f"was still running after {PATIENCE * patience:.0f} s by the clock", alone=False)
            if time.monotonic() > last + watch.LOOK:  # reading it each time would be most of what this program does
                last, used = time.monotonic(), kernel.computed() - before
                if used > patience or budget.computed + used > limits.total:
                    raise Stopped(f"was still running after {used:.0f} s of computing")
            try:
                message = kernel.client.get_iopub_msg(timeout=watch.LOOK)
            except queue.Empty:
                if not kernel.is_alive():
                    said = "ended the kernel, or took more memory or processes than there are"
                    raise Stopped(said, alone=False) from None
                continue
            size += _keep(cell, message, request)
            if size > room:
                raise Stopped(f"displayed more than {room:,} characters")
    except _Ended:
        return size
    except Stopped:
        raise
    except Exception as error:  # whatever the kernel has sent, this program goes on
        raise Stopped(f"sent something that is no message ({type(error).__name__})") from None
    finally:
        budget.computed += kernel.computed() - before


class _Ended(Exception):
    """The cell has run to its end."""


def _keep(cell, message, request) -> int:
    """Store what a message displays of the cell with this request; how many characters.

    Raises:
        _Ended: if nothing comes after it.
        Exception: of any kind, since a kernel may send anything.
    """
    if message["parent_header"].get("msg_id") != request:
        return 0
    kind, content = message["header"]["msg_type"], message["content"]
    if kind == "status" and content.get("execution_state") == "idle":
        raise _Ended
    if kind not in SHOWN:
        return 0
    cell.outputs.append(output_from_msg(message))
    return len(json.dumps(content))


def _patience(cell, limits: watch.Limits) -> float:
    """Seconds that a cell may take: what the assignment prepares, its imports above all, as many as a kernel's start.

    They are nobody's question; if a busy machine stopped them, everything after them would be without marks.
    """
    special = cell.metadata.get("nbgrader", {})
    prepares = special.get("locked") and not special.get("grade") and not re.match(r"q\d", special["grade_id"])
    return max(limits.cell, cage.START) if prepares else limits.cell


def _question(cell) -> str | None:
    """The question that a special cell belongs to: ``q1`` for ``q1``, ``q1_check`` and ``q1_a``."""
    name = cell.metadata.get("nbgrader", {}).get("grade_id")
    return name and name.split("_")[0]


def _name(cell, number: int) -> str:
    return f"cell {cell.metadata.get('nbgrader', {}).get('grade_id', number + 1)}"
