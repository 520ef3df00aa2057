"""``make grade A=NAME SUBMISSIONS=folder``: grade a folder of submissions.

It runs the solution and then every submission in cages, writes the marks into nbgrader's gradebook, and leaves
``grades.csv``, a page of feedback for each student and a log in the course's folder. What is done is not done again: an
interrupted command goes on where it was, and after hand marking it only brings sums and feedback up to date.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import fcntl
import hashlib
import html
import io
import json
import logging
import os
import sys
import time
from pathlib import Path

import nbformat
import psutil

from gpbook_utils.files import replace_file
from grading import assignment as assignments
from grading import cage, gradebook, notebooks, submissions, watch

FIELDS = ("student", "score", "max", "status", "flags")
GRADED, BY_HAND, FLAGGED, FAILED = STATUSES = ("graded", "needs-hand-marking", "flagged", "failed-to-run")
log = logging.getLogger("grading")


def grade(
    name: str, folder: str | None, root: str | Path, *, source=assignments.FOLDER, limits=None, jobs=None
) -> Path:
    """Grade what is new in ``folder``, and write ``grades.csv`` and feedback for everybody.

    Args:
        name: of the assignment.
        folder: of the submissions; ``None`` to bring sums and feedback up to date only, after hand marking.
        root: of the course: gradebook, runs, feedback.
        source: the folder of the assignments.
        limits: what one submission may take.
        jobs: how many run at the same time; by default as many as there are cores, and free memory for.

    Returns:
        The path of ``grades.csv``.

    Raises:
        assignment.Refused, cage.NoCage, ValueError: if nothing can be graded, with the reason.
    """
    limits = limits or watch.Limits()
    assignment = assignments.Assignment(name, Path(source), limits)
    handed_in = submissions.collect(folder, name) if folder else []
    if handed_in:
        cage.check()
    Path(root).mkdir(parents=True, exist_ok=True)
    with _alone(Path(root)), _logged(Path(root, "results", name, "log.txt")):
        course = gradebook.Course(root)
        course.add_assignment(name, assignment.path)
        new = [one for one in handed_in if not _is_done(course, assignment, one)]
        if handed_in:
            log.info("%s: %d handed in, %d to run", name, len(handed_in), len(new))
        if new:
            assignment.solve()
            _run(course, assignment, new, jobs or _places(limits))
        return _write(course, assignment)


def _run(course, assignment, new, jobs: int) -> None:
    """Run and judge the new submissions, ``jobs`` at a time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        todo = {pool.submit(_one, course, assignment, one): one.student for one in new}
        try:
            for number, future in enumerate(concurrent.futures.as_completed(todo), start=1):
                log.info("%d of %d  %s: %s", number, len(new), todo[future], _summary(future.result()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one(course, assignment, submission) -> dict:
    """Grade one submission and keep the outcome, whatever happens."""
    try:
        outcome = assignment.grade(submission, assignment.key(submission))
    except Exception as error:  # one submission's failure stops no other
        log.exception("%s", submission.student)
        outcome = {"failed": f"the grader failed: {type(error).__name__}: {error}", "said": [*submission.said]}
    path = gradebook.run_file(course.root, assignment.name, submission.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(outcome))
    return outcome


def _is_done(course, assignment, submission) -> bool:
    """Whether this hand-in was run before, against the same assignment; what failed in the grader is run again."""
    return _outcome(course, assignment.name, submission.student).get("key") == assignment.key(submission)


def _write(course, assignment) -> Path:
    """Bring gradebook, ``grades.csv`` and feedback up to date with all runs; the path of ``grades.csv``."""
    folder = course.root / "results" / assignment.name
    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for path in sorted((course.root / "runs" / assignment.name).glob("*.json")):
        score, status, flags = _result(course, assignment, path.stem, folder / "feedback" / f"{path.stem}.html")
        writer.writerow([path.stem, f"{score:g}", f"{notebooks.points(assignment.source):g}", status, "; ".join(flags)])
    replace_file(folder / "grades.csv", text.getvalue())
    return folder / "grades.csv"


def _result(course, assignment, student: str, page: Path) -> tuple[float, str, list[str]]:
    """Score, status and flags of one student, whose feedback is written to ``page`` where it has changed."""
    outcome = _outcome(course, assignment.name, student)
    if "failed" in outcome:
        head = f"<!doctype html><meta charset=utf-8><title>{assignment.name}</title>"
        replace_file(page, f"{head}<p>Not marked: {html.escape(outcome['failed'])}</p>\n")
        return 0.0, FAILED, [*outcome["said"], outcome["failed"]]
    course.record(assignment.name, student, nbformat.from_dict(outcome["notebook"]))
    total = course.total(assignment.name, student)
    # A page takes a second, so it says at its end which marks and comments it was made from.
    made_from = hashlib.sha256(f"{outcome['key']} {total.said}".encode()).hexdigest()
    if not (page.exists() and page.read_text(encoding="utf-8").endswith(f"<!-- {made_from} -->\n")):
        replace_file(page, f"{course.feedback(assignment.name, student)}<!-- {made_from} -->\n")
    status = FLAGGED if outcome["said"] else BY_HAND if total.waiting else GRADED
    flags = [*outcome["said"], f"to mark by hand: {', '.join(total.waiting)}"] if total.waiting else outcome["said"]
    return total.score, status, flags


def _outcome(course, name: str, student: str) -> dict:
    """What was kept of a student's run; empty if there was none."""
    try:
        return json.loads(gradebook.run_file(course.root, name, student).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _summary(outcome: dict) -> str:
    if "failed" in outcome:
        return f"{FAILED}: {outcome['failed']}"
    scores = [mark["score"] for mark in outcome["marks"].values()]
    near = f", {scores.count(None)} near" if None in scores else ""
    said = f"  ({'; '.join(outcome['said'])})" if outcome["said"] else ""
    return f"{sum(filter(None, scores)):g} automatic points{near}, {outcome['seconds']:.0f} s{said}"


def _places(limits: watch.Limits) -> int:
    """How many submissions may run at the same time."""
    return int(max(1, min(os.cpu_count() or 1, psutil.virtual_memory().available // limits.memory)))


@contextlib.contextmanager
def _alone(root: Path):
    """Make sure that one command at a time works on a course."""
    with open(root / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise assignments.Refused(f"Another `make grade` is at work in {root}; wait until it has ended") from None
        yield


@contextlib.contextmanager
def _logged(path: Path):
    """Tell what happens on the terminal, and keep it in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept, shown = logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stdout)
    kept.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    log.setLevel(logging.INFO)
    log.handlers = [kept, shown]
    try:
        yield
    finally:
        log.handlers = []
        kept.close()


def main(argv=None) -> int:
    """The command; 0 if everything that was handed in has been dealt with."""
    parser = argparse.ArgumentParser(prog="make grade", description="Grade a folder of submissions.")
    parser.add_argument("assignment", help="the name of the assignment (A=...)")
    parser.add_argument("submissions", nargs="?", help="folder with a notebook, zip or folder for each student")
    parser.add_argument("--course", default=cage.ROOT / "course", help="where gradebook and results are kept")
    parser.add_argument("--assignments", default=assignments.FOLDER, help="where the assignments are")
    parser.add_argument("--seconds", type=float, default=watch.Limits.cell, help="what one cell may take")
    parser.add_argument(
        "--gigabytes", type=float, default=watch.Limits.memory / 2**30, help="of memory for a submission"
    )
    options = parser.parse_args(argv)
    limits = watch.Limits(cell=options.seconds, memory=int(options.gigabytes * 2**30))
    started = time.monotonic()
    try:
        grades = grade(
            options.assignment, options.submissions, options.course, source=options.assignments, limits=limits
        )
    except (assignments.Refused, cage.NoCage, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = list(csv.DictReader(grades.read_text(encoding="utf-8").splitlines()))
    counted = [f"{sum(row['status'] == status for row in rows)} {status}" for status in STATUSES]
    print(f"{', '.join(counted)}; {time.monotonic() - started:.0f} s\n{grades}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
