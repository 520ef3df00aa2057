"""What the tests of handouts share: a small assignment, and a search for its secrets in files of any kind."""

import ast
import html
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

SHORTEST = 12  # characters; a shorter line says little, and stands in many places
REGION = re.compile(r"^[^\n]*BEGIN (SOLUTION|HIDDEN TESTS)[^\n]*\n(.*?)^[^\n]*END \1[^\n]*$", re.DOTALL | re.MULTILINE)

FIRST = """\
# Equal or not: a sample

You will be able to tell a zygomorphic matrix from another.

About 60 to 90 minutes.

| question | points |
|---|---|
| 1 | 70 |
| 2 | 30 |
"""
SOLUTION = """\
def relative_distance(a, b):
    \"\"\"Relative Frobenius distance; `relative_distance(a, a)` is 0.\"\"\"
    ### BEGIN SOLUTION
    if a.shape != b.shape:
        raise ValueError("two shapes, <no> & \\"one\\" distance")
    return torch.linalg.norm(a - b) / torch.linalg.norm(a)  # über alles
    ### END SOLUTION
"""
HIDDEN = """\
# Marked after handing in: other scales.
### BEGIN HIDDEN TESTS
tiny = 1e-9 * torch.ones(3, 3, dtype=torch.float64)
answer("q1_b", distance=relative_distance(tiny, 3 * tiny))
### END HIDDEN TESTS"""
WORDS = """\
### BEGIN SOLUTION
The *relative* distance does not change when both are scaled.

- One point for `a - b`, one for saying that the scale cancels.

![](attachment:model.png)
### END SOLUTION"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2cQAAAABJRU5ErkJggg=="


def special(cell: NotebookNode, grade_id: str, roles: str, points: int = 0, **rules: dict) -> NotebookNode:
    """Give a cell the metadata of nbgrader; ``roles`` are some of the words grade, solution and locked."""
    data = {role: role in roles.split() for role in ("grade", "solution", "locked")}
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, "task": False, **data}
    if data["grade"]:
        cell.metadata.nbgrader["points"] = points
    if rules:
        cell.metadata["gpbook"] = {"answers": rules}
    return cell


def source() -> NotebookNode:
    """The source notebook of the sample: nine cells, one of each kind that an assignment has."""
    code, words = v4.new_code_cell, v4.new_markdown_cell
    cells = [
        words(FIRST),
        special(code("import torch\n\nfrom gpbook_utils.answers import answer"), "imports", "locked"),
        words("## 1 A distance\n\nWrite it."),
        special(code(SOLUTION.rstrip("\n")), "q1", "solution"),
        special(code('assert relative_distance(torch.eye(2), torch.eye(2)) == 0, "equal"'), "q1_check", "locked"),
        special(
            code('answer("q1_a", distance=relative_distance(torch.eye(2), torch.ones(2, 2)))'),
            "q1_a", "grade locked", 40, distance={"rtol": 1e-6},
        ),
        special(code(HIDDEN), "q1_b", "grade locked", 30, distance={"rtol": 3e-6}),
        words("## 2 In words\n\nDoes it see the scale?"),
        special(words(WORDS, attachments={"model.png": {"image/png": PIXEL}}), "q2_words", "grade solution", 30),
    ]  # fmt: skip
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def write_assignment(assignments: Path, name: str = "sample") -> Path:
    """Write the sample, its mutants and a table of data below the folder ``assignments``; returns its own folder."""
    folder = assignments / name
    folder.mkdir(parents=True)
    nbformat.write(source(), folder / f"{name}.ipynb")
    (folder / "mutants.py").write_text("MUTANTS = {}\nACCEPTED = {'q1': 'return (a - b).norm() / a.norm()'}\n")
    (folder / "table.csv").write_text("x,y\n1,2\n")
    return folder


def plain(text: str) -> str:
    """Text with every run of white space as one blank, and without the marks of Markdown."""
    return " ".join(re.sub(r"[*`_]", "", text).split())


def split(cell_source: str) -> tuple[str, str]:
    """The text of a cell outside its regions, and inside. By its own means: the program it tests may be wrong."""
    secret = "\n".join(match[2] for match in REGION.finditer(cell_source))
    return REGION.sub("", cell_source), secret


def secrets(folder: Path, public: Iterable[str] = ()) -> set[str]:
    """The lines of an assignment that no student may see, as ``plain`` leaves them.

    They are the lines in its solutions and hidden tests, in its mutants, and its rules of marking, except those that
    also stand in ``public`` texts or outside the regions.
    """
    cells = nbformat.read(folder / f"{folder.name}.ipynb", as_version=4).cells
    outside, inside = zip(*(split(cell.source) for cell in cells), strict=True)
    mutants = ast.walk(ast.parse((folder / "mutants.py").read_text()))
    answers = [node.value for node in mutants if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    lines = [line for text in (*inside, *answers) for line in text.splitlines()]
    rules = [cell.metadata.get("gpbook", {}).get("answers", {}) for cell in cells]
    lines += [f'"{name}": {json.dumps(rule)}' for of_cell in rules for name, rule in of_cell.items() if rule]
    known = " ".join(plain(text) for text in (*outside, *public))
    found = {plain(line.lstrip("-#>| ")) for line in lines if len(line.strip()) >= SHORTEST}
    return {line for line in found if len(line) >= SHORTEST and line not in known}


def readings(name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """What a file says, in each way that it may be meant: as it is, and with what JSON and HTML escape undone.

    Yields pairs of a name and a text; for an archive those of each file in it.
    """
    if name.endswith(".zip"):
        with zipfile.ZipFile(BytesIO(content)) as archive:
            for entry in archive.namelist():
                yield from readings(f"{name}/{entry}", archive.read(entry))
        return
    text = content.decode("utf-8", errors="replace")
    forms = [text]
    if "\\" in text:
        unquoted = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
        forms.append(unquoted.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\"))
    if name.endswith((".html", ".js", ".ipynb", ".xml")):
        forms += [html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", "", form)) for form in forms]
    yield name, "\n".join(forms)


def search(folder: Path, lines: set[str]) -> tuple[Counter, list[str]]:
    """Look for secret lines in all files below a folder.

    Returns:
        How many files of each kind were looked at, those in archives included; and what was found, in words.
    """
    looked: Counter = Counter()
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for name, text in readings(path.relative_to(folder).as_posix(), path.read_bytes()):
            looked[Path(name).suffix] += 1
            text = plain(text)
            # The scripts of the theme hold many a short line that anybody would write.
            shortest = 2 * SHORTEST if name.startswith("_static/") else SHORTEST
            found += [f"{name}: {line}" for line in sorted(lines) if len(line) >= shortest and line in text]
    return looked, found


def public_texts() -> list[str]:
    """What the book shows anyway: chapters and pages, the package, and assignments outside of their regions."""
    root = Path(__file__).parents[1]
    notebooks = [nbformat.read(path, as_version=4) for path in sorted(root.glob("chapters/*.ipynb"))]
    files = [
        path for pattern in ("*.md", "chapters/*.md", "gpbook_utils/**/*.py") for path in sorted(root.glob(pattern))
    ]
    assignments = [nbformat.read(path, as_version=4) for path in sorted(root.glob("assignments/*/*.ipynb"))]
    visible = [split(cell.source)[0] for notebook in assignments for cell in notebook.cells]
    return (
        visible
        + [cell.source for notebook in notebooks for cell in notebook.cells]
        + [path.read_text() for path in files]
    )
