"""Reads what students handed in: a notebook, zip or folder for each, also as Canvas and Moodle export them.

Nothing here is executed or unpacked to disk. What is wrong with one hand-in is said of this one, and stops no other.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat

LARGEST = 20 * 2**20  # bytes of one notebook; figures included, an honest one has a tenth
CANVAS = re.compile(r"(?P<who>[^_]+)_(?P<late>LATE_)?(?P<id>\d+)_\d+_.+\.(?:ipynb|zip)", re.IGNORECASE)
MOODLE = re.compile(r"(?P<who>.+)_(?P<id>\d+)_assignsubmission_file.*", re.IGNORECASE)
PASSED_OVER = {".ipynb_checkpoints", "__MACOSX"}


class Unreadable(Exception):
    """A hand-in that cannot be read; the message says why."""


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    Attributes:
        student: the name used in the gradebook, with the learning platform's number where it gave one.
        data: the notebook's bytes, or ``None``.
        said: what a grader should know; if ``data`` is ``None``, why.
    """

    student: str
    data: bytes | None
    said: tuple[str, ...] = ()


def collect(folder: str | Path, name: str) -> list[Submission]:
    """Everything in ``folder`` for the assignment ``name``, in the order of the students' names.

    Args:
        folder: a folder, or a zip that a learning platform exported: notebooks, zips and folders, one for each student.
        name: of the assignment, which decides if somebody handed in several notebooks.

    Raises:
        ValueError: if there is no such folder, or nothing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"SUBMISSIONS needs a folder with one notebook, zip or folder for each student; got {folder}")
    entries = sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix in (".ipynb", ".zip"))
    entries = [path for path in entries if not path.name.startswith(".") and path.name not in PASSED_OVER]
    if not entries:
        raise ValueError(f"SUBMISSIONS: there is no notebook, zip or folder in {folder}")
    found: dict[str, Submission] = {}
    for path in sorted(entries, key=lambda entry: entry.lstat().st_mtime):
        student, said = _student(path)
        if student in found:
            said += (f"handed in more than once; the newest, {path.name}, was taken",)
        try:
            found[student] = Submission(student, _notebook(path, name), said)
        except (Unreadable, OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            found[student] = Submission(student, None, (*said, str(error) or type(error).__name__))
    return [found[student] for student in sorted(found)]


def parse(data: bytes):
    """The notebook in ``data``, of format 4.

    Raises:
        Unreadable: if it is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
            cells = [cell for cell in notebook.cells if isinstance(cell, dict) and "cell_type" in cell]
    except Exception as error:  # a file from outside: whatever it does to the reader
        raise Unreadable(
            f"the notebook cannot be read ({type(error).__name__}); was it cut off, or saved as text?"
        ) from None
    notebook.cells = [nbformat.from_dict(cell) for cell in cells]
    return notebook


def _student(path: Path) -> tuple[str, tuple[str, ...]]:
    """The student's name, and what the file's name tells besides."""
    known = MOODLE.fullmatch(path.name) or CANVAS.fullmatch(path.name)
    if known is None:
        return _slug(path.stem if path.is_file() else path.name), ()
    late = ("late, by the name of the file",) if known.groupdict().get("late") else ()
    return _slug(f"{known['who']}_{known['id']}"), late


def _slug(name: str) -> str:
    """A name that is safe as a folder and in nbgrader's patterns."""
    return re.sub(r"[^\w.@+-]+", "-", name).strip("-+@.") or "nobody"


def _notebook(path: Path, name: str) -> bytes:
    if path.is_symlink():
        raise Unreadable("is a link, and links are not followed")
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
        inner = [file for file in files.values() if file.suffix == ".zip"]
        if not any(key.endswith(".ipynb") for key in files) and len(inner) == 1:
            return _notebook(inner[0], name)
        chosen = files[_choose(files, name)]
        if chosen.is_symlink():
            raise Unreadable("is a link, and links are not followed")
        with chosen.open("rb") as stream:
            return _limited(stream)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(_choose(archive.namelist(), name)) as stream:
            return _limited(stream)
    with path.open("rb") as stream:
        return _limited(stream)


def _choose(files, name: str) -> str:
    """The one file that is this assignment's notebook."""
    notebooks = [file for file in files if file.endswith(".ipynb") and not PASSED_OVER & set(PurePosixPath(file).parts)]
    named = [file for file in notebooks if PurePosixPath(file).name.startswith(name)]
    chosen = named if len(notebooks) > 1 and named else notebooks
    if len(chosen) == 1:
        return chosen[0]
    raise Unreadable(f"several notebooks: {', '.join(chosen[:5])}" if chosen else "there is no notebook in it")


def _limited(stream) -> bytes:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unreadable(f"the notebook is larger than {LARGEST // 2**20} MB")
    return data
