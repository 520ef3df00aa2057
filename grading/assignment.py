"""One assignment on this machine: its notebook, its solution's answers, and the way from a hand-in to its marks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from grading import cage, execute, judge, notebooks, submissions, watch

FOLDER = cage.ROOT / "assignments"
PATIENCE = 120.0  # seconds beyond a submission's own limit, for starting kernels
OWN_MEMORY = 2 * 2**30  # bytes, of the program that reads what one kernel sends


class Refused(Exception):
    """Nothing was graded; the message says why."""


class Assignment:
    """One assignment: its source notebook, its data files, and what the solution answers on this machine."""

    def __init__(self, name: str, folder: Path, limits: watch.Limits):
        self.name = name
        self.path = folder / name / f"{name}.ipynb"
        if not self.path.is_file():
            known = ", ".join(sorted(path.parent.name for path in folder.glob("*/*.ipynb")))
            raise Refused(f"A needs the name of an assignment, one of {known}; got {name!r}")
        self.source = nbformat.read(self.path, as_version=4)
        own = (self.path.name, "mutants.py")
        self.files = [path for path in sorted(self.path.parent.iterdir()) if path.is_file() and path.name not in own]
        self.limits = limits
        self.wanted: dict = {}

    def solve(self) -> None:
        """Run the solution in the cage.

        Raises:
            Refused: if the solution does not answer its own marked cells.
        """
        outcome = self.run(self.source)
        try:
            if "failed" in outcome:
                raise ValueError(outcome["failed"])
            self.wanted = judge.expected(self.source, nbformat.from_dict(outcome["notebook"]))
        except ValueError as error:
            raise Refused(f"Nothing was graded: the solution of {self.name} does not run here: {error}") from None

    def run(self, notebook, environment=None) -> dict:
        """What came out of running ``notebook`` in a cage, or ``failed`` and why."""
        with tempfile.TemporaryDirectory(prefix="gpbook-") as scratch:
            sockets, job, result = Path(scratch, "s"), Path(scratch, "job.json"), Path(scratch, "result.json")
            sockets.mkdir()
            job.write_text(execute.job(notebook, self.files, str(sockets), self.limits, environment), encoding="utf-8")
            program = [sys.executable, "-m", "grading.execute", str(job), str(result)]
            try:
                done = subprocess.run(
                    cage.apart(["prlimit", f"--data={OWN_MEMORY}:unlimited", *program], str(sockets)),
                    cwd=cage.ROOT,
                    env={**os.environ, "PYTHONPATH": str(cage.ROOT)},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.limits.total + PATIENCE,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return {"failed": f"was still running after {self.limits.total + PATIENCE:.0f} s"}
            if done.returncode or not result.exists():
                last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
                return {"failed": f"the program that runs it ended with {done.returncode}: {last[:300]}"}
            return json.loads(result.read_text(encoding="utf-8"))

    def grade(self, submission: submissions.Submission, key: str) -> dict:
        """Run one submission and decide its marks."""
        if submission.data is None:
            return {"key": key, "failed": submission.said[-1], "said": list(submission.said[:-1])}
        try:
            merged, strange = notebooks.merge(self.source, submissions.parse(submission.data))
            merged.metadata["gpbook"] = {"key": key}
        except (submissions.Unreadable, ValueError) as error:
            return {"key": key, "failed": str(error), "said": list(submission.said)}
        outcome = self.run(merged)
        said = [*submission.said, *strange, *outcome.pop("said", [])]
        if "failed" in outcome:
            return {"key": key, "said": said, **outcome}
        decided = judge.marks(self.source, nbformat.from_dict(outcome["notebook"]), self.wanted)
        said += [mark.strange for mark in decided.values() if mark.strange]
        marks = {name: {"score": mark.score, "why": mark.why} for name, mark in decided.items()}
        return {"key": key, "said": said, "marks": marks, **outcome}

    def key(self, submission: submissions.Submission) -> str:
        """What the outcome depends on: the hand-in and the assignment."""
        parts = [submission.data or b"", self.path.read_bytes(), *(file.read_bytes() for file in self.files)]
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
