"""Marks in nbgrader's gradebook: what the judge decided goes in, hand marks are made there, sums come out.

nbgrader never executes a submission here. Its step "execute" is replaced by :class:`AttachRun`, which puts the outputs
of the caged run in place, and "save grades" by :class:`SaveMarks`, which takes the judge's marks. The course's own
configuration file does the same for a person who presses a button in nbgrader's pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    GetGrades,
    NbGraderPreprocessor,
    OverwriteCells,
    SaveAutoGrades,
)
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from grading import notebooks, pages

# Folders of a course that are this program's own; nbgrader's "submitted" and "release" are left to its exchange.
MERGED, CHECKED = "merged", "checked"
EXCHANGED = ("timestamp.txt", "submission_secret.txt")  # by which nbgrader's exchange gives feedback back
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


class AttachRun(NbGraderPreprocessor):
    """Take the outputs of the caged run, and for a marked cell what the judge says of them."""

    def preprocess(self, nb, resources):
        """Change the notebook ``nb`` of the student and assignment that ``resources`` name."""
        place = resources["nbgrader"]
        saved = json.loads(run_file(Path.cwd(), place["assignment"], place["student"]).read_text(encoding="utf-8"))
        executed = nbformat.from_dict(saved["notebook"])
        if nb.metadata.get("gpbook") != executed.metadata.get("gpbook"):
            raise ValueError(f"{place['student']}: this notebook was not run in a cage; use `make grade`")
        for cell, ran in zip(nb.cells, executed.cells, strict=True):
            if cell.cell_type != "code":
                continue
            cell.outputs = ran.outputs
            if mark := saved["marks"].get(notebooks.grade_id(cell)):
                cell.metadata["gpbook"] = {"score": mark["score"]}
                cell.outputs = [new_output("stream", name="stdout", text=mark["why"])]
        return nb, resources


class HideTests(ClearHiddenTests):
    """Take hidden tests out of the assignment's own cells; what a student writes between such markers stays."""

    def preprocess_cell(self, cell, resources, cell_index):
        """Change ``cell`` if it is a marked cell of the assignment."""
        if notebooks.grade_id(cell) and not notebooks.is_answer(cell):
            return super().preprocess_cell(cell, resources, cell_index)
        return cell, resources


class SaveMarks(SaveAutoGrades):
    """Save the judge's marks; words, and answers that the judge leaves open, wait for a person."""

    def _add_score(self, cell, resources):
        grade = self.gradebook.find_grade(
            notebooks.grade_id(cell), self.notebook_id, self.assignment_id, self.student_id
        )
        if cell.cell_type == "code":
            grade.auto_score = cell.metadata["gpbook"]["score"]
        else:
            grade.auto_score, _ = utils.determine_grade(cell, self.log)
        # A hand mark of an earlier hand-in stays, and a person looks at it again.
        grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
        self.gradebook.db.commit()


def configure(config: Config, root: str | Path) -> None:
    """Set up nbgrader for the course in the folder ``root``."""
    if sys.flags.utf8_mode:
        # It writes paths for a program that reads them as the locale says, which may be "C".
        os.environ["LC_ALL"] = "C.UTF-8"
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.course_id = "gpbook"
    config.CourseDirectory.db_url = f"sqlite:///{Path(root).resolve()}/gradebook.db"
    config.ClearSolutions.code_stub = {"python": STUB}
    config.Autograde.sanitize_preprocessors = [OverwriteCells, CheckCellMetadata]
    config.Autograde.autograde_preprocessors = [AttachRun, SaveMarks, CheckCellMetadata]
    config.GenerateFeedback.exporter_class = pages.Page
    # Students see that there was a hidden cell, what they had for it and why, and not its inputs.
    config.GenerateFeedback.preprocessors = [GetGrades, HideTests, CSSHTMLHeaderPreprocessor]


def run_file(root: str | Path, name: str, student: str) -> Path:
    """Where the outcome of a student's caged run is kept."""
    return Path(root) / "runs" / name / f"{student}.json"


@dataclass(frozen=True)
class Total:
    """A student's marks: their sum so far, the ids of the cells that wait for a person, and all marks and comments."""

    score: float
    waiting: list[str]
    said: str


class Course:
    """The gradebook and folders of one course, in nbgrader's layout."""

    def __init__(self, root: str | Path):
        self.root = Path(root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.config = Config()
        configure(self.config, self.root)
        (self.root / "nbgrader_config.py").write_text(_CONFIG.format(book=str(Path(__file__).parents[1])))

    def add_assignment(self, name: str, source: Path) -> None:
        """Enter the assignment whose notebook is ``source`` into the gradebook, or bring it up to date.

        Raises:
            ValueError: if it has other cells than the one by which marks stand in the gradebook.
        """
        folder = self.root / "source" / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / f"{name}.ipynb")
        try:
            self._convert(GenerateAssignment, name, ".")
        except Exception as error:  # of which nbgrader tells the reason on the terminal only
            raise ValueError(
                f"Nothing was graded: nbgrader does not take {name} ({error}). If cells were added, removed or\n"
                f"renamed since it was graded, the marks of before can't stay: move {self.root} away and grade anew"
            ) from None

    def record(self, name: str, student: str, notebook) -> None:
        """Write the marks of a student's run into the gradebook, unless this run's stand there.

        Args:
            name: the assignment.
            student: who.
            notebook: what was run; its outcome is in :func:`run_file`, and its metadata say which run it is.
        """
        recorded = self.root / "autograded" / student / name / f"{name}.ipynb"
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(recorded.read_text(encoding="utf-8"))["metadata"]["gpbook"] == notebook.metadata.gpbook:
                return
        self._remove(name, student)
        folder = self.root / MERGED / student / name
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        for file in EXCHANGED:
            handed_in = self.root / "submitted" / student / name / file
            if handed_in.is_file() and not handed_in.is_symlink() and _is_plain(handed_in):
                shutil.copy(handed_in, folder)
        self._convert(Autograde, name, student)

    def feedback(self, name: str, student: str) -> str:
        """The page that the student may see, with all marks and comments so far."""
        self._convert(GenerateFeedback, name, student)
        return (self.root / "feedback" / student / name / f"{name}.html").read_text(encoding="utf-8")

    def leave_to_the_exchange(self, name: str) -> None:
        """Remove nbgrader's copies of pages that its exchange can't give back: it would stop at the first of them."""
        for folder in (self.root / "feedback").glob(f"*/{name}"):
            if not all((folder / file).is_file() for file in EXCHANGED):
                shutil.rmtree(folder)

    def total(self, name: str, student: str) -> Total:
        """A student's marks so far."""
        with Gradebook(self.config.CourseDirectory.db_url, "gpbook") as gradebook:
            work = gradebook.find_submission_notebook(name, name, student)
            waiting = sorted(grade.name for grade in work.grades if grade.needs_manual_grade)
            said = [(grade.name, grade.score) for grade in work.grades] + [(c.name, c.comment) for c in work.comments]
            return Total(work.score, waiting, repr(sorted(said, key=repr)))

    def forget(self, name: str, students: list[str]) -> None:
        """Remove all that is kept of some students' work on an assignment, their marks with it.

        Raises:
            ValueError: if nothing is kept of one of them; then nothing is removed.
        """
        with Gradebook(self.config.CourseDirectory.db_url, "gpbook") as book:
            known = {work.student.id for work in book.assignment_submissions(name)}
        known |= {path.stem for path in run_file(self.root, name, "any").parent.glob("*.json")}
        if unknown := set(students) - known:
            raise ValueError(f"FORGET: nothing is kept of {', '.join(sorted(unknown))}, and nothing was removed")
        for student in students:
            run_file(self.root, name, student).unlink(missing_ok=True)
            (self.root / "results" / name / "feedback" / f"{student}.html").unlink(missing_ok=True)
            self._remove(name, student)
            with Gradebook(self.config.CourseDirectory.db_url, "gpbook") as book, contextlib.suppress(MissingEntry):
                book.remove_submission(name, student)
                if not book.student_submissions(student):
                    book.remove_student(student)
            for folder in (MERGED, "autograded", "feedback"):
                with contextlib.suppress(OSError):  # it holds another assignment
                    (self.root / folder / student).rmdir()

    def _remove(self, name: str, student: str) -> None:
        """Remove the files that nbgrader made of a student's work."""
        for folder in (MERGED, "autograded", "feedback"):
            shutil.rmtree(self.root / folder / student / name, ignore_errors=True)

    def _convert(self, step, name: str, student: str) -> None:
        place = CourseDirectory(config=self.config, assignment_id=name, student_id=student)
        place.submitted_directory, place.release_directory = MERGED, CHECKED
        converter = step(coursedir=place, config=self.config)
        converter.force = True
        converter.log.setLevel("ERROR")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # nbgrader's own queries
            converter.start()


def _is_plain(file: Path) -> bool:
    """Whether a file of the exchange is what the exchange writes: a line of text, and for a time, one that it reads."""
    try:
        line = file.read_text(encoding="ascii").strip()
        if file.name == "timestamp.txt":
            utils.parse_utc(line)
    except ValueError:
        return False
    return len(line) <= 128  # a secret's length


_CONFIG = """\
# Written by `make grade`. nbgrader reads it here, also behind the buttons of its pages.
import sys
from pathlib import Path

c = get_config()
c.Autograde.autograde_preprocessors = []  # should the next line fail: nothing is executed outside of the cage
sys.path.insert(0, {book!r})
from grading.gradebook import configure

configure(c, Path(__file__).resolve().parent)
"""
