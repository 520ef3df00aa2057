"""Finds what students handed in: a notebook, zip or folder for each, also as Canvas and Moodle export them.

``collect`` reads names only; ``read`` opens one hand-in, in a process of its own. Nothing here is executed or unpacked
to disk. What is wrong with one hand-in is said of this one, and stops no other.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nbformat

LARGEST = 20 * 2**20  # bytes of one notebook; figures included, an honest one has a tenth
MOST = 10_000  # files of one folder
LONGEST = 100  # bytes of a student's name
CANVAS = re.compile(r"(?P<who>[^_]+)_(?P<late>LATE_)?(?P<id>[0-9]+)_[0-9]+_.+", re.IGNORECASE | re.DOTALL)
MOODLE = re.compile(r"(?P<who>.+?)_(?P<id>[0-9]+)_assignsubmission_(?:file|onlinetext).*", re.IGNORECASE | re.DOTALL)
KINDS = (".ipynb", ".zip")
PASSED_OVER = {".ipynb_checkpoints", "__MACOSX"}


class Unreadable(Exception):
    """A hand-in that cannot be read; the message says why."""


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    Attributes:
        student: the name used in the gradebook, with the learning platform's number where it gave one.
        path: the notebook, zip or folder, unread.
        said: what a grader should know.
    """

    student: str
    path: Path
    said: tuple[str, ...] = ()

    def digest(self) -> str:
        """A hash of the file, or of all files of the folder, that says whether it is the same hand-in again."""
        return _digest(self.path)


def collect(folder: str | Path, name: str) -> tuple[list[Submission], list[str]]:
    """Everything in ``folder`` for the assignment ``name``, in the order of the students' names, and what was left.

    Args:
        folder: notebooks, zips and folders, one for each student.
        name: of the assignment.

    Returns:
        A submission for each student, also where there is nothing to read, and sentences about what is nobody's.

    Raises:
        ValueError: if there is no such folder, or nothing in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"SUBMISSIONS needs a folder with one notebook, zip or folder for each student; got {folder}")
    entries, left = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in PASSED_OVER:
            left.append(f"{said_of(path.name)}: passed over")
        elif _is_for_another(path, name):
            left.append(f"{said_of(path.name)}: holds other assignments only")
        else:
            entries.append(path)
    if not any(path.is_dir() or path.suffix.lower() in KINDS for path in entries):
        raise ValueError(f"SUBMISSIONS: there is no notebook, zip or folder in {folder}")
    first, second = _platforms(entries)
    found: dict[str, list] = {}
    for path in entries:
        known = first.fullmatch(path.name) or second.fullmatch(path.name)
        student = f"{_slug(known['who'])}_{known['id']}" if known else _name(path)
        late = ("late, by the name of the file",) if known and known.groupdict().get("late") else ()
        # What can be read comes before what can't, and then the newest.
        rank = (path.is_dir() or path.suffix.lower() in KINDS, path.lstat().st_mtime)
        found.setdefault(student, []).append((rank, path, late))
    return [_chosen(student, found[student]) for student in sorted(found)], left


def read(path: Path, name: str):
    """The notebook of the hand-in ``path`` for the assignment ``name``.

    Raises:
        Unreadable: if there is none; and whatever a damaged file makes of its reader.
    """
    return parse(_bytes(Path(path), name))


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


def said_of(name: str) -> str:
    """The name of a file as a sentence can hold it."""
    short = " ".join(os.fsencode(name).decode("utf-8", "replace").split())
    return short if len(short) <= 100 else f"{short[:97]}..."


def _chosen(student: str, entries: list) -> Submission:
    *others, (_, path, said) = sorted(entries)
    same = [other for _, other, _ in others if other.suffix.lower() in KINDS or other.is_dir()]
    if same:
        said += (f"handed in more than once; the newest, {said_of(path.name)}, was taken",)
    if rest := [other.name for _, other, _ in others if other not in same]:
        said += (f"not looked at: {', '.join(map(said_of, rest[:5]))}",)
    return Submission(student, path, said)


def _is_for_another(path: Path, name: str) -> bool:
    """Whether it is a student's folder in nbgrader's exchange, with notebooks of other assignments only."""
    if MOODLE.fullmatch(path.name) or CANVAS.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    try:
        inside = [each for each in path.iterdir() if not each.name.startswith(".")]
    except OSError:  # said of this one when it is read
        return False
    return bool(inside) and all(each.name != name and (each / f"{each.name}.ipynb").is_file() for each in inside)


def _platforms(entries: list[Path]) -> tuple[re.Pattern, re.Pattern]:
    """The patterns of names, this folder's platform first: what a student has chosen may look like the other's."""
    canvas, moodle = ({path for path in entries if form.fullmatch(path.name)} for form in (CANVAS, MOODLE))
    return (MOODLE, CANVAS) if moodle - canvas and not canvas - moodle else (CANVAS, MOODLE)


def _name(path: Path) -> str:
    """The student's name from that of a file; two names that are not the same never become one."""
    name = unicodedata.normalize("NFC", path.name if path.is_dir() else path.stem)
    slug = _slug(name)
    return slug if slug == name else f"{slug}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:6]}"


def _slug(name: str) -> str:
    """A name that is safe as a folder, in nbgrader's patterns and in a table; letters of every script stay."""
    name = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))
    kept = "".join(c if c in "_.@+-" or unicodedata.category(c)[0] in "LMN" else " " for c in name)
    short = re.sub(" +", "-", kept.strip()).encode()[:LONGEST].decode("utf-8", "ignore")
    return short.strip("-+@.") or "nobody"


def _files(folder: Path) -> dict[str, Path]:
    """All files of a folder by their path in it; links are not followed."""
    found: dict[str, Path] = {}
    for at, _, names in os.walk(folder):
        found |= {str(Path(at, name).relative_to(folder)): Path(at, name) for name in names}
        if len(found) > MOST:
            raise Unreadable(f"there are more than {MOST:,} files in it")
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    if path.is_dir() and not path.is_symlink():
        parts = [f"{name} {_digest(file)}".encode() for name, file in _files(path).items()]
    else:
        info = path.lstat()
        regular = stat.S_ISREG(info.st_mode)
        parts = [str(info.st_size).encode(), _beginning(path) if regular else b"-"]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(2 * LARGEST)


def _bytes(path: Path, name: str) -> bytes:
    if path.is_symlink():
        raise Unreadable("is a link, and links are not followed")
    if path.is_dir():
        files = _files(path / name if (path / name).is_dir() else path)
        inner = [key for key in files if key.lower().endswith(".zip")]
        if not any(key.lower().endswith(".ipynb") for key in files) and len(inner) == 1:
            return _bytes(files[inner[0]], name)
        return _bytes(files[_choose(files, name)], name)
    if not path.is_file():
        raise Unreadable("is no file")
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(_choose(archive.namelist(), name)) as stream:
            return _limited(stream)
    if path.suffix.lower() != ".ipynb":
        raise Unreadable(f"is no notebook, zip or folder: {said_of(path.name)}")
    with path.open("rb") as stream:
        return _limited(stream)


def _choose(files, name: str) -> str:
    """The one file that is this assignment's notebook."""
    parts = {file: PurePosixPath(file) for file in files}
    notebooks = [f for f, path in parts.items() if path.suffix.lower() == ".ipynb" and not PASSED_OVER & {*path.parts}]
    named = [file for file in notebooks if parts[file].name.startswith(name)]
    chosen = named if len(notebooks) > 1 and named else notebooks
    if len(chosen) == 1:
        return chosen[0]
    several = f"several notebooks: {', '.join(map(said_of, chosen[:5]))}"
    raise Unreadable(several if chosen else "there is no notebook in it")


def _limited(stream) -> bytes:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unreadable(f"the notebook is larger than {LARGEST // 2**20} MB")
    return data
