"""Looks at one hand-in: reads it, runs it in the cage and decides its marks.

``python -m grading.one JOB RESULT`` is the program that the command starts for each of them, in a process of its own
with limits, so that whatever a file holds and whatever a kernel sends can stop this program at most.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path

import nbformat

from grading import execute, judge, notebooks, submissions, watch

READING = 60  # seconds to read a hand-in, and again to judge it


def main(job: str, result: str) -> None:
    """Do what the file ``job`` says and write the file ``result``."""
    order = json.loads(Path(job).read_text(encoding="utf-8"))
    order["source"] = nbformat.from_dict(order["source"])
    Path(result).write_text(json.dumps(outcome(order)), encoding="utf-8")


def outcome(order: dict) -> dict:
    """What is known of a hand-in in the end.

    Returns:
        ``failed`` and why, or the ``notebook`` that ran, with what a page may show of its outputs; its ``marks``, or
        for the solution the answers that are ``wanted``; what is to be ``said``, whether it would end so
        ``alone`` too, the ``seconds`` that it took, and the cells that were ``handed_in``.
    """
    source, name, given = order["source"], order["name"], order["handed_in"]
    try:
        with _within(READING, "while it was read"):
            if given is None:
                submitted = merged = source
                said: list[str] = []
            else:
                is_path = isinstance(given, str)
                submitted = submissions.read(Path(given), name) if is_path else nbformat.from_dict(given)
                merged, said = notebooks.merge(source, submitted)
    except (submissions.Unreadable, ValueError) as error:
        return {"failed": notebooks.text(error)[:300]}
    except Exception as error:  # a damaged file makes anything of its reader
        return {"failed": f"cannot be read: {type(error).__name__}: {notebooks.text(error)[:300]}"}
    started = time.monotonic()
    files, limits = [Path(file) for file in order["files"]], watch.Limits(**order["limits"])
    print("while it ran", file=sys.stderr)
    try:
        stopped, alone = execute.run(merged, files, order["sockets"], limits, order["environment"])
    except RuntimeError as error:  # no kernel
        return {"failed": str(error), "alone": False}
    known = {"notebook": merged, "alone": alone, "seconds": round(time.monotonic() - started, 1)}
    with _within(READING, "while it was judged"):
        if given is None:
            try:
                return {**known, "said": stopped, "wanted": judge.expected(source, merged)}
            except ValueError as error:
                return {"failed": str(error)}
        marks = judge.marks(source, merged, order["wanted"])
        said += [*stopped, *(mark.strange for mark in marks.values() if mark.strange)]
        for cell in merged.cells:
            if cell.cell_type == "code":
                cell.outputs = [one for output in cell.outputs if (one := _shown(output))]
        decided = {grade_id: {"score": mark.score, "why": notebooks.text(mark.why)} for grade_id, mark in marks.items()}
        kept = notebooks.kept(submitted)
    return {**known, "said": [notebooks.text(sentence) for sentence in said], "marks": decided, "handed_in": kept}


def _shown(output):
    with contextlib.suppress(Exception):  # a kernel sends what it likes
        return notebooks.shown(output)


@contextlib.contextmanager
def _within(seconds: int, what: str):
    """End this program after some seconds, whatever it does; ``what`` is the last that it says."""
    print(what, file=sys.stderr, flush=True)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
