"""``make grade A=NAME SUBMISSIONS=folder``: grade a folder of submissions.

It runs the solution and then every submission in cages, writes the marks into nbgrader's gradebook, and leaves
``grades.csv``, a page of feedback for each student and a log in the course's folder. What is done is not done again: an
interrupted command goes on where it was, and after hand marking it only brings sums and feedback up to date. Each
student's files are read, run and written in processes of their own; whatever they hold, the others have their marks.
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
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil

from gpbook_utils.files import replace_file
from grading import assignment as assignments
from grading import cage, gradebook, guarded, sheets, submissions, watch

FIELDS = ("student", "score", "max", "status", "flags")
STATUSES = ("graded", "needs-hand-marking", "flagged", "older", "failed-to-run")
GRADED, BY_HAND, FLAGGED, OLDER, FAILED = STATUSES
WITHOUT_GROUPS = (
    "Without root there are no control groups: memory and processes are looked at ten times a second, what lies in\n"
    "pipes and sockets is not counted, and submissions share the cores as the system likes. Better grade as root."
)
log = logging.getLogger("grading")


@dataclass(frozen=True)
class Todo:
    """A submission to run: of whom, the path or the kept notebook, what is known of it, and its key."""

    student: str
    handed_in: Path | dict
    said: tuple[str, ...]
    key: str | None


def grade(
    name: str, folder: str | None, root: str | Path, *, again=(), source=assignments.FOLDER, limits=None, jobs=None
) -> Path:
    """Grade what is new in ``folder``, and write ``grades.csv`` and feedback for everybody.

    Args:
        name: of the assignment.
        folder: of the submissions; ``None`` to bring sums and feedback up to date only, after hand marking.
        root: of the course: gradebook, runs, feedback.
        again: students to run again though nothing has changed; "older" stands for those whose marks are by an older
            version of the assignment, "all" for everybody.
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
    handed_in, left = submissions.collect(folder, name) if folder else ([], [])
    if handed_in or again:
        cage.check()
    Path(root).mkdir(parents=True, exist_ok=True)
    with _alone(Path(root)), _logged(Path(root, "results", name, "log.txt")):
        course = gradebook.Course(root)
        course.add_assignment(name, assignment.path)
        new = _todo(course, assignment, handed_in, again)
        for sentence in left:
            log.info("%s", sentence)
        if not (handed_in or _students(course, name)):
            log.info("There are no hand-ins of %s yet: SUBMISSIONS=folder says where they are", name)
        if handed_in or new:
            log.info("%s: %d handed in, %d to run", name, len(handed_in), len(new))
        if new:
            if not watch.has_groups():
                log.info("%s", WITHOUT_GROUPS)
            assignment.solve()
            _run(course, assignment, new, jobs or _places(limits))
        return _write(course, assignment)


def _todo(course, assignment, handed_in, again) -> list[Todo]:
    """What is to be run: what was handed in and was not run before, and what is asked for again."""
    runs = {student: _outcome(course, assignment.name, student) for student in _students(course, assignment.name)}
    chosen = {student for student, run in runs.items() if "all" in again or student in again}
    chosen |= {s for s, run in runs.items() if "older" in again and run.get("version") != assignment.version}
    todo = []
    for one in handed_in:
        try:
            key = assignment.key(one.digest())
        except (OSError, submissions.Unreadable):  # its reader says why
            key = None
        if key is None or one.student in chosen or runs.get(one.student, {}).get("key") != key:
            todo.append(Todo(one.student, one.path, one.said, key))
    in_folder = {one.student for one in handed_in}
    for student in sorted(chosen - in_folder):
        if kept := runs[student].get("handed_in"):
            key = assignment.key((runs[student].get("key") or "none").split()[0])
            todo.append(Todo(student, kept, tuple(runs[student].get("known", ())), key))
        else:
            log.info("%s: was never read, so it can't be run again without its file", student)
    if unknown := set(again) - {"all", "older"} - set(runs) - in_folder:
        raise assignments.Refused(f"AGAIN: there is no run of {', '.join(sorted(unknown))}")
    return todo


def _run(course, assignment, new, jobs: int) -> None:
    """Run and judge the new submissions, ``jobs`` at a time; those that others may have stopped, again alone."""
    stopped, ended = [], threading.Event()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        todo = {pool.submit(_one, course, assignment, one, ended): one for one in new}
        try:
            for number, future in enumerate(concurrent.futures.as_completed(todo), start=1):
                outcome, one = future.result(), todo[future]
                log.info("%d of %d  %s: %s", number, len(new), one.student, _summary(outcome))
                stopped += [] if outcome.get("alone", True) else [one]
        except BaseException:  # Ctrl-C, say: what runs is ended, and that is no outcome of it
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            raise
    for one in stopped if len(new) > 1 else []:
        log.info("again, alone  %s: %s", one.student, _summary(_one(course, assignment, one, ended)))


def _one(course, assignment, todo: Todo, ended: threading.Event) -> dict:
    """Grade one submission and keep the outcome, whatever happens, unless the command has ``ended`` meanwhile."""
    try:
        outcome = assignment.grade(todo.handed_in, todo.said, todo.key)
    except Exception as error:  # one submission's failure stops no other
        log.exception("%s", todo.student)
        outcome = {"failed": f"the grader failed: {type(error).__name__}: {error}", "said": [*todo.said]}
    if ended.is_set():
        return outcome
    if "failed" in outcome and isinstance(todo.handed_in, dict):
        outcome["handed_in"] = todo.handed_in  # so that it can be run again
    path = gradebook.run_file(course.root, assignment.name, todo.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(outcome))
    return outcome


def _write(course, assignment) -> Path:
    """Bring gradebook, ``grades.csv`` and feedback up to date with all runs; the path of ``grades.csv``."""
    folder = course.root / "results" / assignment.name
    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    rows, text = [], io.StringIO()
    for student in _students(course, assignment.name):
        outcome = _outcome(course, assignment.name, student)
        score, status, flags = _result(course, assignment, student, outcome, folder / "feedback" / f"{student}.html")
        most = outcome.get("max", assignment.points)
        rows.append([student, f"{score:g}", f"{most:g}", status, sheets.harmless("; ".join(flags))])
    course.leave_to_the_exchange(assignment.name)
    csv.writer(text, lineterminator="\n").writerows([FIELDS, *rows])
    replace_file(folder / "grades.csv", text.getvalue())
    if older := sum(row[3] == OLDER for row in rows):
        log.info(
            "%d of %d have marks by an older version of %s. To run them again by this one: make grade A=%s AGAIN=older",
            older, len(rows), assignment.name, assignment.name,
        )  # fmt: skip
    return folder / "grades.csv"


def _result(course, assignment, student: str, outcome: dict, page: Path) -> tuple[float, str, list[str]]:
    """Score, status and flags of one student, whose feedback is written to ``page`` where it has changed."""
    name, said = assignment.name, outcome.get("said", [])
    if "failed" in outcome:
        _say(page, f"Not marked: {outcome['failed']}")
        return 0.0, FAILED, [*said, outcome["failed"]]
    older = outcome.get("version") != assignment.version
    try:
        if not older:
            guarded.call(course.record, name, student, nbformat.from_dict(outcome["notebook"]))
        total = guarded.call(course.total, name, student)
    except guarded.Failed as error:
        _say(page, "Not marked: the marks could not be written.")
        return 0.0, FAILED, [*said, f"the marks could not be written: {error}"]
    if older:
        return total.score, OLDER, [*said, "marked by an older version of the assignment"]
    try:
        # A page takes a second, so it says at its end which marks and comments it was made from.
        run = outcome["notebook"]["metadata"]["gpbook"]["run"]
        made_from = f"<!-- {hashlib.sha256(f'{run} {total.said}'.encode()).hexdigest()} -->\n"
        if not (page.exists() and page.read_text(encoding="utf-8").endswith(made_from)):
            replace_file(page, guarded.call(course.feedback, name, student) + made_from)
    except guarded.Failed as error:
        _say(page, f"{total.score:g} of {outcome['max']:g} points. This page could not be made.")
        said = [*said, f"the page of feedback could not be made: {error}"]
    if total.waiting:
        return total.score, BY_HAND, [*said, f"to mark by hand: {', '.join(total.waiting)}"]
    return total.score, FLAGGED if said else GRADED, said


def _say(page: Path, sentence: str) -> None:
    head = "<!doctype html><meta charset=utf-8><meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    replace_file(page, f"{head}<title>Feedback</title><p>{html.escape(sentence)}</p>\n")


def _students(course, name: str) -> list[str]:
    return sorted(path.stem for path in gradebook.run_file(course.root, name, "any").parent.glob("*.json"))


def _outcome(course, name: str, student: str) -> dict:
    """What was kept of a student's run."""
    try:
        return json.loads(gradebook.run_file(course.root, name, student).read_text(encoding="utf-8"))
    except ValueError:
        return {"failed": "what was kept of the run is damaged; give the same command again with the file"}


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
    parser.add_argument("--again", nargs="+", default=[], metavar="STUDENT", help="run again; also: older, all")
    parser.add_argument("--forget", nargs="+", default=[], metavar="STUDENT", help="remove all that is kept of them")
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
        if options.forget:
            gradebook.Course(options.course).forget(options.assignment, options.forget)
        grades = grade(
            options.assignment,
            options.submissions,
            options.course,
            again=options.again,
            source=options.assignments,
            limits=limits,
        )
    except KeyboardInterrupt:
        print("Stopped. What was run is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except (assignments.Refused, cage.NoCage, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = list(csv.DictReader(grades.read_text(encoding="utf-8").splitlines()))
    counted = [f"{sum(row['status'] == status for row in rows)} {status}" for status in STATUSES]
    print(f"{', '.join(counted)}; {time.monotonic() - started:.0f} s\n{grades}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
