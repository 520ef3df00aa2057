"""Handouts: the student's version of an assignment, made from its source notebook, and a zip with all that it needs.

``python -m book.handouts NAME`` writes the zip of one assignment; without a name it lists them. A source
holds solutions between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, and hidden tests between ``### BEGIN HIDDEN
TESTS`` and ``### END HIDDEN TESTS``. What can't be released for certain is refused, never guessed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import tomllib
import zipfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.notebooks import read
from gpbook_utils.files import PACKAGE, replace_file

BOOK = PACKAGE.parent
ASSIGNMENTS = BOOK / "assignments"

SOLUTION, HIDDEN = "SOLUTION", "HIDDEN TESTS"
STUBS = {"code": ["# YOUR CODE HERE", "raise NotImplementedError()"], "markdown": ["YOUR ANSWER HERE"]}
_MARKER = re.compile(f"(BEGIN|END) ({SOLUTION}|{HIDDEN})")
# What looks like a marker and is none, such as "### BEGIN SOLTION" or "# end hidden tests": its region would go out.
_LEFT_OVER = re.compile(
    r"(?:BEGIN|END)\s+(?:SOLUTION|HIDDEN|MARK)|^\s*#+\s*(?:BEGIN|END)\b"
    r"|^\s*#+\s*(?i:begin|end)\s+(?i:solution|hidden|mark)"
)
_PUBLIC_METADATA = {"nbgrader", "tags"}  # of a cell; anything else might say too much

MUTANTS = "mutants.py"
DATA = {".csv", ".json", ".npy", ".npz", ".png", ".toml", ".txt"}
NOT_FOR_STUDENTS = "sweeps"  # the room of the package that needs more than students install
DAWN = (1980, 1, 1, 0, 0, 0)  # the oldest date of a zip; any fixed one makes its bytes reproducible

README = """\
{title}
{line}

You need Python 3.11, 3.12 or 3.13, on Linux or on macOS 14 or later (Apple silicon). In this folder, make an
environment once:

    python3 -m venv .venv
    source .venv/bin/activate
    python -m pip install -r requirements.txt

On Linux, add  --extra-index-url {cpu_index}  to the last line to take the small CPU build of
PyTorch. No assignment needs a GPU.

Then, and whenever you come back:

    source .venv/bin/activate
    jupyter lab {name}.ipynb

Replace "# YOUR CODE HERE" and the line after it by your code, and "YOUR ANSWER HERE" by your words. Leave the other
cells as they are; you may add cells of your own. Keep {name}.ipynb in this folder: it takes gpbook_utils from here.

To hand in: choose Kernel, then Restart Kernel and Run All Cells. A question that you leave out stops the run; go on
with the cells after it by hand. Save, and submit {name}.ipynb, under this name, the way your course asks for.
"""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class HandoutError(ValueError):
    """An assignment can't be released; the message names the notebook, the cell and what is needed."""


@dataclass(frozen=True)
class Facts:
    """What the student's notebook says of itself.

    Attributes:
        title: its first heading.
        time: what it takes, as its first cell says ("60 to 90 minutes", "two hours"); empty if that names none.
        points: of all graded cells.
        automatic: those of cells that are not answered in words.
    """

    title: str
    time: str
    points: float
    automatic: float

    def __str__(self) -> str:
        time = f"{self.time}, " if self.time else ""
        return f"{time}{self.points:g} points, {self.automatic:g} of them marked by machine"


def names(assignments: str | Path = ASSIGNMENTS) -> list[str]:
    """The assignments in a folder, ``NAME/NAME.ipynb`` each, in alphabetical order.

    >>> names("no such folder")
    []
    """
    return sorted(path.stem for path in Path(assignments).glob("*/*.ipynb") if path.stem == path.parent.name)


def student_version(source: NotebookNode, name: str = "notebook") -> NotebookNode:
    r"""The notebook that a student gets: ``source`` without solutions, hidden tests and rules of marking.

    Cells keep nbgrader's metadata, with what its own release adds: locks, cell type and checksum.

    Args:
        source: the source notebook; it is left as it is.
        name: what messages call the notebook.

    Raises:
        HandoutError: if a solution cell has no region, a region stands in a cell of another kind, markers are
            unbalanced, nested or misspelt, a marked cell neither hides anything nor calls ``answer``, a ``grade_id`` is
            missing or used twice, or outputs are stored.

    >>> cell = nbformat.v4.new_code_cell("def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION")
    >>> cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": "q1", "grade": False, "solution": True}
    >>> print(student_version(nbformat.v4.new_notebook(cells=[cell])).cells[0].source)
    def f(x):
        # YOUR CODE HERE
        raise NotImplementedError()
    """
    student = deepcopy(source)
    student.metadata = NotebookNode({k: v for k, v in source.metadata.items() if k in {"kernelspec", "language_info"}})
    ids: set[str] = set()
    for position, cell in enumerate(student.cells, 1):
        first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        try:
            if is_special(cell) and grade_id in ids | {""}:
                raise HandoutError(f"has no grade_id of its own: {grade_id!r} is {'taken' if grade_id else 'empty'}")
            ids.add(grade_id)
            _release(cell)
        except HandoutError as error:
            where = f"{name}, cell {position} ({grade_id + ': ' if grade_id else ''}{first[:60]!r})"
            raise HandoutError(f"{where}: {error}") from None
    return student


def is_special(cell: NotebookNode) -> bool:
    """Whether nbgrader knows the cell: as a solution, as graded, or as locked."""
    return any(_is(cell, role) for role in ("solution", "grade", "locked"))


def facts(student: NotebookNode) -> Facts:
    r"""What the notebook says of its title, time and points.

    >>> facts(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One\n\nAbout 90 minutes.")]))
    Facts(title='One', time='90 minutes', points=0, automatic=0)
    """
    first = first_cell(student)
    heading = re.search(r"^# (.+)$", first, re.MULTILINE)
    time = re.search(r"(?:\d+ to )?\d+ minutes|\w+ hours?\b", first)
    graded = [cell for cell in student.cells if _is(cell, "grade")]
    return Facts(
        title=heading[1].strip() if heading else "",
        time=time[0] if time else "",
        points=sum(cell.metadata.nbgrader.get("points", 0) for cell in graded),
        automatic=sum(cell.metadata.nbgrader.get("points", 0) for cell in graded if not _is(cell, "solution")),
    )


def first_cell(student: NotebookNode) -> str:
    """The text of the first cell if it is Markdown, else nothing: title, goals, time and points."""
    return student.cells[0].source if student.cells and student.cells[0].cell_type == "markdown" else ""


def load(name: str, assignments: str | Path = ASSIGNMENTS) -> NotebookNode:
    """The student's version of the assignment ``name``.

    Raises:
        ValueError: if there is no such assignment (the message lists those that exist) or it is no notebook.
        HandoutError: if it can't be released.
    """
    found = names(assignments)
    if name not in found:
        raise ValueError(f"there is no assignment {name!r}; there are: {', '.join(found) or 'none'}")
    return student_version(read(Path(assignments) / name / f"{name}.ipynb"), f"{name}.ipynb")


def contents(name: str, assignments: str | Path = ASSIGNMENTS) -> dict[str, bytes]:
    """Every file that a student gets, by its path within the zip.

    Raises:
        ValueError: if there is no such assignment, or it is no notebook.
        HandoutError: if it can't be released, or its folder holds a file that is not known to be data.
    """
    student = load(name, assignments)
    title = facts(student).title or name
    files = {
        f"{name}.ipynb": (nbformat.writes(student).rstrip("\n") + "\n").encode(),
        "README.txt": README.format(name=name, title=title, line="=" * len(title), cpu_index=CPU_INDEX).encode(),
        "requirements.txt": requirements(*_asked_and_pinned(), tools="students").encode(),
        "LICENSE": (BOOK / "LICENSE").read_bytes(),
    }
    folder = Path(assignments) / name
    for path in _visible_files(folder):
        within = path.relative_to(folder).as_posix()
        if within in {f"{name}.ipynb", MUTANTS}:
            continue
        if path.suffix not in DATA or within in files:
            kinds = ", ".join(sorted(DATA))
            raise HandoutError(f"{name}/{within}: is not known to be for students; data files end in {kinds}")
        files[within] = path.read_bytes()
    for path in _visible_files(PACKAGE):
        if NOT_FOR_STUDENTS not in path.relative_to(PACKAGE).parts:
            files[path.relative_to(BOOK).as_posix()] = path.read_bytes()
    return {f"{name}/{within}": files[within] for within in sorted(files)}


def requirements(project: str, pins: str, tools: str = "") -> str:
    r"""The lines of the book's ``requirements.txt`` for what the package needs with its extra ``book``.

    Args:
        project: the text of ``pyproject.toml``, which names what is needed.
        pins: the text of ``requirements.txt``. What it does not name comes along with what it names.
        tools: the dependency group of ``pyproject.toml`` that is needed besides, if any.

    >>> project = '[project]\ndependencies = ["torch>=2"]\n[project.optional-dependencies]\nbook = ["scikit_learn"]\n'
    >>> requirements(project, "torch==2.1  # arrays\ndask==3\nscikit-learn==1\n")
    'torch==2.1  # arrays\nscikit-learn==1\n'
    """
    asked = tomllib.loads(project)
    needed = asked["project"]["dependencies"] + asked["project"]["optional-dependencies"]["book"]
    needed += asked["dependency-groups"][tools] if tools else []
    names = {_distribution(one) for one in needed}
    return "".join(line + "\n" for line in pins.splitlines() if _distribution(line) in names)


def write_zip(name: str, folder: str | Path, assignments: str | Path = ASSIGNMENTS) -> Path:
    """Write ``NAME.zip`` into ``folder`` and return its path; the same files give the same bytes.

    Raises:
        ValueError: if there is no such assignment, or it is no notebook.
        HandoutError: if it can't be released; nothing is written then.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in contents(name, assignments).items():
            entry = zipfile.ZipInfo(path, DAWN)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # of Unix, also where it is made on Windows
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    target = Path(folder) / f"{name}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, packed.getvalue())
    return target


def write_all(folder: str | Path, assignments: str | Path = ASSIGNMENTS) -> None:
    """Write the students' files of all assignments into ``folder``, as a branch for Binder and others holds them.

    Such services see one repository: its requirements are those of Binder, which brings its own Jupyter.

    Raises:
        HandoutError: if an assignment can't be released.
    """
    everything = {path: content for name in names(assignments) for path, content in contents(name, assignments).items()}
    needed = requirements(*_asked_and_pinned())
    everything["requirements.txt"] = f"--extra-index-url {CPU_INDEX}\n{needed}".encode()
    everything["runtime.txt"] = b"python-3.11\n"
    everything["README.md"] = (
        b"The students' versions of the book's assignments. Written by a program, on each change.\n"
    )
    for path, content in everything.items():
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def main(arguments: list[str] | None = None) -> int:
    """Write the zip of one assignment and say what is inside. Exit status 1 if it can't be released, 2 if unknown."""
    parser = argparse.ArgumentParser(prog="python -m book.handouts", description=main.__doc__)
    parser.add_argument("name", nargs="?", default="", help="the assignment; lists them if left out")
    parser.add_argument("--folder", default="_build/assignments", help="where the zip goes (default: %(default)s)")
    parser.add_argument("--all", metavar="BRANCH", help="write all, unpacked, into this folder instead")
    parser.add_argument("--assignments", default=ASSIGNMENTS, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.all:
            write_all(options.all, options.assignments)
            return 0
        if not options.name:
            for name in names(options.assignments):
                print(f"{name:20} {facts(load(name, options.assignments)).title}")
            return 0
        path = write_zip(options.name, options.folder, options.assignments)
    except HandoutError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path.resolve()}, {path.stat().st_size / 1000:.0f} kB, holds")
    with zipfile.ZipFile(path) as archive:
        inside = archive.namelist()
    package = f"{options.name}/{PACKAGE.name}/"
    for entry in inside:
        if not entry.startswith(package):
            print(f"  {entry}")
    print(f"  {package} ({sum(entry.startswith(package) for entry in inside)} files)")
    return 0


def _asked_and_pinned() -> list[str]:
    return [(BOOK / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "requirements.txt")]


def _distribution(requirement: str) -> str:
    """The name at the start of a requirement, in the one spelling that an index compares; empty for a comment."""
    return re.sub("[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def _is(cell: NotebookNode, role: str) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get(role, False))


def _release(cell: NotebookNode) -> None:
    """Turn a cell of the source into the student's, or raise a HandoutError that says what is needed."""
    solution, grade = _is(cell, "solution"), _is(cell, "grade")
    cell.source, regions = _without_regions(cell.source, STUBS.get(cell.cell_type, []))
    marked = grade and not solution
    answers = re.search(r"^[^#\n]*\banswer\(", cell.source, re.MULTILINE)
    left = next(filter(_LEFT_OVER.search, cell.source.splitlines()), "")
    for is_wrong, needed in (
        (cell.get("outputs") or cell.get("execution_count"), "stores outputs or an execution count; clear them"),
        (
            solution and SOLUTION not in regions,
            f"is a solution; put ### BEGIN and ### END {SOLUTION} around its answer",
        ),
        (SOLUTION in regions and not solution, 'holds a solution; set "solution": true in its nbgrader metadata'),
        (HIDDEN in regions and not marked, f"holds {HIDDEN.lower()}; it has to be graded, and no solution"),
        (grade and "points" not in cell.metadata.nbgrader, 'is graded; set "points" in its nbgrader metadata'),
        (marked and not answers and HIDDEN not in regions, f"is graded; it needs {HIDDEN.lower()} or a call of answer"),
        (left, f"would keep {left.strip()!r}; correct the marker, or reword the line"),
        (solution and "(attachment:" in cell.source, "shows an attachment, which goes; show it in the question's cell"),
    ):
        if is_wrong:
            raise HandoutError(needed)
    if solution:
        cell.pop("attachments", None)  # pictures of the model answer
    cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key in _PUBLIC_METADATA})
    if is_special(cell):
        _lock(cell)


def _without_regions(source: str, stub: list[str]) -> tuple[str, set[str]]:
    """A cell's text without its regions, solutions replaced by the stub at their indentation; and the kinds found."""
    kept: list[str] = []
    kinds: set[str] = set()
    inside = ""
    for line in source.split("\n"):
        marker = _MARKER.search(line)
        if not marker:
            if not inside:
                kept.append(line)
            continue
        edge, kind = marker.groups()
        if edge == "BEGIN" and inside:
            raise HandoutError(f"BEGIN {kind} follows BEGIN {inside}; END {inside} has to come first")
        if edge == "END" and inside != kind:
            raise HandoutError(f"END {kind} has no BEGIN {kind} before it")
        inside = kind if edge == "BEGIN" else ""
        kinds.add(kind)
        if edge == "BEGIN" and kind == SOLUTION:
            indentation = re.match(r"\s*", line)[0]
            kept += [indentation + text for text in stub]
    if inside:
        raise HandoutError(f"BEGIN {inside} has no END {inside} after it")
    return "\n".join(kept), kinds


def _lock(cell: NotebookNode) -> None:
    """Add what nbgrader's own release adds: who may edit, the cell's type, and a checksum that shows later edits."""
    solution, grade, data = _is(cell, "solution"), _is(cell, "grade"), cell.metadata.nbgrader
    locked = not solution and (grade or _is(cell, "locked"))
    cell.metadata["deletable"] = False
    if locked:
        cell.metadata["editable"] = False
    said = [cell.source, cell.cell_type, str(grade), str(solution), str(locked), data["grade_id"]]
    if grade:
        said.append(str(float(data["points"])))
    data["checksum"] = hashlib.md5("".join(said).encode(), usedforsecurity=False).hexdigest()
    data["cell_type"] = cell.cell_type


def _visible_files(folder: Path) -> list[Path]:
    """The files below a folder, without hidden ones and what Python and Jupyter leave behind."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


if __name__ == "__main__":
    sys.exit(main())
