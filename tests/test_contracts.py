"""The rules between rooms: they are what the package says of itself, and a breach of each is found."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gpbook_utils

ROOT = Path(__file__).parents[1]
ROOMS = ("gpbook_utils", "book", "grading")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_the_package_says_of_itself_what_the_contract_demands():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert re.search("::\n\n(.*?)\n\n", gpbook_utils.__doc__, re.DOTALL)[1].split("\n") == [
        "    " + line for line in layers
    ]


def test_every_room_says_first_what_lives_there_and_what_it_may_touch():
    for room in ROOMS:
        for package in (ROOT / room).rglob("__init__.py"):
            text = package.read_text(encoding="utf-8")
            assert re.match(r'"""[^\n]+\.\n', text), f"{package} must open with a sentence"
            assert package.parent.name in {"gpbook_utils", "theme"} or re.search(r"This\sroom", text), package


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("gpbook_utils/data.py", "from book import ledger", "The package knows nothing"),
        ("gpbook_utils/diagnose/state.py", "def f():\n    from grading import cage", "The package knows nothing"),
        ("gpbook_utils/compare.py", "from gpbook_utils.models import fit", "Layers"),
        ("gpbook_utils/training/batches.py", "from gpbook_utils import inducing", "Layers"),
        ("gpbook_utils/diagnose/report.py", "from gpbook_utils import plots", "The diagnosis imports compare only"),
        ("gpbook_utils/training/batches.py", "from gpbook_utils.training import restarts", "No circles"),
        ("gpbook_utils/new.py", "", "Layers"),
        ("grading/judge.py", "from gpbook_utils import models", "The autograder"),
        ("book/handouts.py", "from grading import cage", "The making of the book"),
    ],
)
def test_a_breach_is_found(tmp_path, module, line, broken):
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("static", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / module, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = subprocess.run([LINT_IMPORTS, "--no-cache", "--no-logo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert re.search(rf"^{broken}[^.]* BROKEN\b", done.stdout, re.MULTILINE), done.stdout
