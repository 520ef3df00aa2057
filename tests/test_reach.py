"""What a chapter reaches: nothing less than what Python loads, and a change elsewhere leaves its outputs fresh."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from book import notebooks
from gpbook_utils import reach

ROOT = Path(__file__).parents[1]
CHAPTERS = {path.stem: notebooks.read(path) for path in notebooks.chapters(ROOT / "chapters")}


@pytest.fixture(scope="module")
def before():
    return hashes(ROOT)


@pytest.fixture
def copy(tmp_path):
    """The packages, to be edited."""
    for package in reach.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("static", "__pycache__"))
    return tmp_path


def hashes(root):
    sources = reach.Sources(root)
    return {name: notebooks.reached_hash(chapter, sources) for name, chapter in CHAPTERS.items()}


def reached(name, root=ROOT):
    cells = [cell.source for cell in CHAPTERS[name].cells if cell.cell_type == "code"]
    return reach.Sources(root).reached(set().union(*map(reach.imported, cells)))


def edit(root, module, old, new):
    path = root / module
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def changed(before, after):
    return {name for name in before if after[name] != before[name]}


LOADED = """
import ast, json, sys
loaded = {}
for name, cells in json.load(sys.stdin).items():
    for module in [module for module in sys.modules if module.partition(".")[0] in ("gpbook_utils", "book")]:
        del sys.modules[module]
    for cell in cells:
        exec(cell, {})
    loaded[name] = [module for module in sys.modules if module.partition(".")[0] in ("gpbook_utils", "book")]
print(json.dumps(loaded))
"""


def test_a_chapter_reaches_all_that_its_imports_load():
    """Python is asked which modules it loads; what is reached beyond them stands in functions and in texts."""
    imports = {
        name: [
            ast.unparse(node)
            for cell in chapter.cells
            if cell.cell_type == "code"
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for name, chapter in CHAPTERS.items()
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=json.dumps(imports), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    for name, loaded in json.loads(done.stdout).items():
        assert set(loaded) <= reached(name), name


def test_a_change_of_the_machinery_leaves_every_chapter_fresh(copy, before):
    """What happened to the first edition: a comment in one module, and all outputs were stale."""
    edit(
        copy, "book/handouts.py", "from __future__ import annotations\n", "from __future__ import annotations\n# new\n"
    )
    assert hashes(copy) == before
    (copy / "book" / "handouts.py").write_text("edited = 1\n")
    (copy / "gpbook_utils" / "answers.py").write_text("edited = 1\n")
    assert hashes(copy) == before


def test_comments_docstrings_and_layout_make_no_difference(copy, before):
    path = copy / "gpbook_utils" / "compare.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    tree.body[0].value.value = "Other words."
    path.write_bytes(ast.unparse(tree).replace("\n", "\r\n").encode())
    (path.parent / ".#compare.py").write_text("edited = 1\n")
    (path.parent / "tables" / ".DS_Store").write_text("litter")
    assert hashes(copy) == before


SYNTAX = """
@decorated
async def f(x: int = 1, /, *rest, key=None, **more) -> "T":
    "A docstring."
    async with a as b, c: pass
    return f"{x!r:>{key}.2f} and {x:{key}} {{}} {x=}" "tail" f"{x:}" if x else (y := lambda: (..., b"b", 1e400))
class C(B, metaclass=M):
    field: int
    print(f"{x:{widths[0]}}")
    try: x[1:2, ...] **= -1
    except* E as e: raise X from e
    match x:
        case {"k": [1, *_], **r} | C(a=None) if r: del x
"""


def test_every_version_of_python_reads_the_same():
    """So that outputs that were stored under one are not stale under another."""
    assert reach._read("", SYNTAX.encode())[0].startswith("b88a5dc83bfd")  # under 3.11, 3.12 and 3.13


def test_no_chapter_shows_a_docstring_that_may_change():
    for name, chapter in CHAPTERS.items():
        for cell in chapter.cells:
            shows = cell.cell_type == "code" and any(word in cell.source for word in ("__doc__", "help(", "getdoc("))
            assert not shows, (name, cell.source)


def test_a_change_of_compare_makes_stale_what_reaches_it(copy, before):
    edit(copy, "gpbook_utils/compare.py", "\ndef compare(\n", "\nedited = 1\n\n\ndef compare(\n")
    reach_it = {name for name in CHAPTERS if "gpbook_utils.compare" in reached(name)}
    assert changed(before, hashes(copy)) == reach_it
    assert {"01_same_covariance", "12_budget"} <= reach_it and not {"20_sweeps", "verdicts"} & reach_it


@pytest.mark.parametrize(
    "statement",
    [
        "def late():\n    import gpbook_utils.answers",
        "def late():\n    from gpbook_utils import answers as a, files",
        "def late():\n    from gpbook_utils.answers import answer",
        "def late():\n    from .answers import answer",
        "def late():\n    from . import answers",
        "def late(first):\n    run(f'import torch\\n{first}\\nfrom gpbook_utils import answers; answers.answer()')",
        "def late():\n    run([executable, '-m', 'gpbook_utils.answers'])",
    ],
)
def test_an_import_within_a_function_counts(copy, statement):
    with open(copy / "gpbook_utils" / "plots.py", "a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    before = hashes(copy)
    with open(copy / "gpbook_utils" / "answers.py", "a", encoding="utf-8") as file:
        file.write("\nedited = 1\n")
    reach_it = {name for name in CHAPTERS if "gpbook_utils.plots" in reached(name)}
    assert changed(before, hashes(copy)) == reach_it and "07_rounding" in reach_it


@pytest.mark.parametrize(
    ("cell", "counts"),
    [
        ("def f():\n    from gpbook_utils import costs", True),
        ("%time from gpbook_utils import costs", True),
        ("code = 'import torch, gpbook_utils.costs'", True),
        ("code = 'gpbook_utils'\nbook = costs", False),
        ("from costs import gpbook_utils", False),
    ],
)
def test_an_import_in_a_cell_counts_wherever_it_stands(cell, counts):
    assert ("gpbook_utils.costs" in reach.Sources().reached(reach.imported(cell))) == counts


def test_a_word_is_no_import():
    assert not reach.Sources().reached(reach.imported("x = 'book'\ny = 'the gpbook_utils.costs of it'"))


def test_a_package_counts_with_those_above_it(copy, before):
    (copy / "gpbook_utils" / "training" / "__init__.py").write_text("edited = 1\n")
    assert changed(before, hashes(copy)) == {name for name in CHAPTERS if "gpbook_utils.training" in reached(name)}
    (copy / "gpbook_utils" / "__init__.py").write_text("edited = 1\n")
    assert changed(before, hashes(copy)) == set(CHAPTERS)


@pytest.mark.parametrize("table", ["gpbook_utils/tables/seattle_daily_weather.csv", "book/folk_answer.toml"])
def test_a_change_of_a_table_counts_for_those_who_reach_its_reader(copy, before, table):
    (reader,) = (module for module, place in reach.READS.items() if table.startswith(place))
    with open(copy / table, "a", encoding="utf-8") as file:
        file.write("\n")
    readers = {name for name in CHAPTERS if reader.removesuffix(".py").replace("/", ".") in reached(name)}
    assert changed(before, hashes(copy)) == readers != set()


def test_every_file_of_the_packages_has_its_reader():
    """But for those of the theme, the printed book, JupyterLab and new assignments, and a set-up's: no chapter's."""
    sources = reach.Sources()
    read = {ROOT / place for files in sources.files.values() for place in files}
    assert all(files and module in sources.modules for module, files in sources.files.items())
    apart = {"theme", "lab", "build", "__pycache__", "template", "pyproject.toml", "pdf.css", "pdf.js"}
    for package in reach.PACKAGES:
        for path in (path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix != ".py"):
            parts = path.relative_to(ROOT / package).parts
            assert path in read or apart & set(parts) or ".egg-info" in parts[0] or path.name.startswith("."), path
    assert not any(module.startswith("book.theme") for name in CHAPTERS for module in reached(name))
