"""Runs one notebook in the cage, from top to bottom, and writes its outputs.

A cell that fails stops no other. A cell that ends its kernel, takes too much or does not end is left out, and the rest
is run again in a fresh kernel: an endless loop costs the marks of its own question.

``python -m grading.execute JOB RESULT`` is the program that the command starts for each submission, in a process of its
own, so that whatever a kernel sends can stop this program at most.
"""

from __future__ import annotations

import json
import queue
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path

import nbformat
from nbformat.v4 import new_output, output_from_msg

from grading import cage, watch

ATTEMPTS = 8  # kernels for one submission
STRIKES = 2  # cells of one question that may be stopped before the question's other cells are left out
SHOWN = {"stream", "display_data", "execute_result", "error"}


class Stopped(Exception):
    """A cell was ended; the message says why."""


def run(notebook, files: list[Path], sockets: str, limits: watch.Limits, environment=None) -> list[str]:
    """Execute ``notebook`` and store the outputs in it.

    Args:
        notebook: a notebook of format 4; its old outputs are dropped.
        files: the assignment's data files.
        sockets: the folder for the kernel's connection.
        limits: what the submission may take.
        environment: further environment variables for the kernel.

    Returns:
        What went wrong, in sentences; empty if every cell ran to its end, with or without an error of its own.
    """
    code = {number: cell for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    left_out: dict[int, str] = {}
    said = []
    end = time.monotonic() + limits.total
    for _ in range(ATTEMPTS):
        stopped = _attempt(code, left_out, end, lambda: cage.kernel(files, sockets, limits, environment), limits)
        if stopped is None:
            break
        number, why = stopped
        left_out[number] = why
        said.append(f"{_name(code[number], number)} {why}")
        question = [n for n, cell in code.items() if _question(cell) == _question(code[number]) is not None]
        if sum(n in left_out for n in question) == STRIKES:
            left_out |= {n: "was left out after the others of its question" for n in question if n not in left_out}
        for n in left_out:
            code[n].outputs = [new_output("error", ename="Stopped", evalue=left_out[n], traceback=[left_out[n]])]
        if time.monotonic() > end:
            break
    if time.monotonic() > end:
        said.append(f"the submission took longer than {limits.total:.0f} s; what came after has no marks")
    elif stopped is not None:
        said.append(f"{ATTEMPTS} cells had to be stopped; what came after has no marks")
    return said


def _attempt(code: dict, left_out: dict, end: float, start_kernel, limits: watch.Limits) -> tuple[int, str] | None:
    """Run all cells but some in a fresh kernel; the number of a cell that had to be stopped, and why."""
    with start_kernel() as kernel:
        for number, cell in code.items():
            if number in left_out:
                continue
            cell.outputs = []
            try:
                _run_cell(kernel, cell, end, limits)
            except Stopped as reason:
                return number, str(reason)
    return None


def _run_cell(kernel: cage.Kernel, cell, end: float, limits: watch.Limits) -> None:
    """Execute one cell and keep what it displays, at most until ``end``.

    Raises:
        Stopped: if it does not end in time, displays too much, or ends the kernel.
    """
    request = kernel.client.execute(cell.source, allow_stdin=False, stop_on_error=False)
    size, patience = 0, _patience(cell, limits)
    deadline = min(end, time.monotonic() + patience)
    while True:
        if time.monotonic() > deadline:
            raise Stopped(f"was still running after {patience:.0f} s")
        try:
            message = kernel.client.get_iopub_msg(timeout=watch.LOOK)
        except queue.Empty:
            if not kernel.is_alive():
                raise Stopped("ended the kernel, or took more memory or processes than there are") from None
            continue
        except Exception as error:  # whatever the kernel has sent, this program goes on
            raise Stopped(f"sent something that is no message ({type(error).__name__})") from None
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "status" and content.get("execution_state") == "idle":
            return
        if kind in SHOWN:
            size += len(json.dumps(content))
            if size > limits.output:
                raise Stopped(f"displayed more than {limits.output:,} characters")
            cell.outputs.append(output_from_msg(message))


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


def main(job: str, result: str) -> None:
    """Run the notebook of the file ``job`` and write the file ``result``."""
    order = json.loads(Path(job).read_text(encoding="utf-8"))
    notebook = nbformat.from_dict(order["notebook"])
    files = [Path(name) for name in order["files"]]
    started = time.monotonic()
    said = run(notebook, files, order["sockets"], watch.Limits(**order["limits"]), order["environment"])
    outcome = {"notebook": notebook, "said": said, "seconds": round(time.monotonic() - started, 1)}
    Path(result).write_text(json.dumps(outcome), encoding="utf-8")


def job(notebook, files, sockets: str, limits: watch.Limits, environment=None) -> str:
    """The text of a job for :func:`main`."""
    order = {"notebook": notebook, "files": [str(file) for file in files], "sockets": sockets}
    return json.dumps({**order, "limits": asdict(limits), "environment": environment or {}})


if __name__ == "__main__":
    main(*sys.argv[1:])
