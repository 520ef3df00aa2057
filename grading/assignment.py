"""One assignment on this machine: its notebook, its solution's answers, and the way from a hand-in to its marks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path

import nbformat

from grading import cage, execute, notebooks, watch

FOLDER = cage.ROOT / "assignments"
PATIENCE = 120.0  # seconds beyond a submission's own limit, for starting kernels
OWN_MEMORY = 2 * 2**30  # bytes, of the program that reads one hand-in and what its kernel sends
OWN_FILE = 64 * 2**20  # bytes, of what that program leaves


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
        content = self.path.read_bytes()
        self.source = nbformat.reads(content.decode("utf-8"), as_version=4)
        own = (self.path.name, "mutants.py")
        self.files = [path for path in sorted(self.path.parent.iterdir()) if path.is_file() and path.name not in own]
        # A hash of all that marks depend on, but for the hand-in. Taken once: the files may change while students run.
        parts = [content, *(file.read_bytes() for file in self.files)]
        self.version = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
        self.limits = limits
        self.wanted: dict = {}

    @property
    def points(self) -> float:
        """What a perfect submission has."""
        return notebooks.points(self.source)

    def solve(self) -> None:
        """Run the solution in the cage.

        Raises:
            Refused: if the solution does not answer its own marked cells.
        """
        outcome = self.run()
        if "failed" in outcome:
            raise Refused(f"Nothing was graded: the solution of {self.name} does not run here: {outcome['failed']}")
        self.wanted = outcome["wanted"]

    def run(self, handed_in=None, environment=None) -> dict:
        """What came out of a hand-in, or of the solution.

        Args:
            handed_in: a path, or a notebook; ``None`` for the solution.
            environment: further environment variables for the kernel.

        Returns:
            What :mod:`grading.one` says, or ``failed`` and why.
        """
        with tempfile.TemporaryDirectory(prefix="gpbook-") as scratch:
            sockets, job, result = Path(scratch, "s"), Path(scratch, "job.json"), Path(scratch, "result.json")
            sockets.mkdir()
            order = {"name": self.name, "source": self.source, "files": [str(file) for file in self.files]}
            order |= {"handed_in": os.fspath(handed_in) if isinstance(handed_in, Path) else handed_in}
            order |= {"wanted": self.wanted, "limits": asdict(self.limits), "environment": environment or {}}
            job.write_text(json.dumps({**order, "sockets": str(sockets)}), encoding="utf-8")
            program = [sys.executable, "-m", "grading.one", str(job), str(result)]
            sizes = [f"--data={OWN_MEMORY}:unlimited", f"--fsize={OWN_FILE}"]
            most = execute.PATIENCE * self.limits.total + PATIENCE
            try:
                done = subprocess.run(
                    cage.apart(["prlimit", *sizes, *program], str(sockets)),
                    cwd=cage.ROOT,
                    env={**os.environ, "PYTHONPATH": str(cage.ROOT)},
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C reaches the command, which ends this, and not this first
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=most,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return {"failed": f"was still running after {most:.0f} s", "alone": False}
            if done.returncode or not result.exists():
                last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
                return {"failed": f"the program that looks at it ended ({last[:300]})", "alone": False}
            return json.loads(result.read_text(encoding="utf-8"))

    def grade(self, handed_in, said=(), key: str | None = None) -> dict:
        """Run one submission and decide its marks.

        Args:
            handed_in: the path of what a student handed in, or the notebook that an earlier run has kept.
            said: what is known of it.
            key: by which it is known again.
        """
        outcome = self.run(handed_in)
        if "failed" in outcome and not outcome.get("alone", True):
            key = None  # it was the grader's fault, so that it is run again
        if "notebook" in outcome:
            outcome["notebook"]["metadata"]["gpbook"] = {"run": uuid.uuid4().hex}
        known = {"key": key, "version": self.version, "max": self.points}
        return {**outcome, **known, "said": [*said, *outcome.get("said", [])], "known": [*said]}

    def key(self, digest: str) -> str:
        """What the outcome depends on: the hand-in with this digest, and the assignment."""
        return f"{digest} {self.version}"
