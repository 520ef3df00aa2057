"""The package alone: what its wheel holds and asks for, and whether the diagnosis runs where nothing else is."""

import ast
import email
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_namespace_packages

from book import wheel

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpbook_utils"
# What an import is called, where its distribution is called otherwise.
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn", "ipython": "IPython"}
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(built):
    with zipfile.ZipFile(built) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_bytes(archive.read(name))


def asked(metadata, extra=""):
    """The requirements of a distribution for this Python, with those of one extra."""
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]


@pytest.fixture(scope="module")
def alone(built, metadata, tmp_path_factory):
    """The Python of an environment that holds the wheel and what it asks for, and what that asks for, and no more."""
    folder = tmp_path_factory.mktemp("alone") / "environment"
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    waiting, reached = asked(metadata), set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        # A requirement may name extras, as torch's CUDA build does of its toolkit.
        new = {(name, extra) for extra in ("", *one.extras)} - reached
        if not new:
            continue
        reached |= new
        found = importlib.metadata.distribution(name)
        waiting += [requirement for _, extra in new for requirement in asked(found.metadata, extra)]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
    seen = {name for name, _ in reached}
    assert {"torch", "gpytorch", "scipy"} <= seen and not {"matplotlib", "ipython", "dask", "pandas"} & seen
    python = folder / "bin" / "python"
    # From no index, so that what it asks for has to be there, in the ranges it names.
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", built]
    result = subprocess.run(install, env=CLEAN | {"PIP_CONFIG_FILE": os.devnull}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return python


def run(python, program, folder):
    result = subprocess.run([python, "-I", "-c", program], cwd=folder, env=CLEAN, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


# What it holds


def test_it_holds_the_package_and_nothing_else(built):
    chosen = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.split(".")[0] for name in find_namespace_packages(str(ROOT), include=chosen)} == {"gpbook_utils"}
    sources = {*PACKAGE.rglob("*.py"), *PACKAGE.glob("tables/*.csv")}
    with zipfile.ZipFile(built) as archive:
        assert archive.testzip() is None
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert inside == {path.relative_to(ROOT).as_posix() for path in sources}
    assert built.stat().st_size < 300_000


def test_its_version_is_that_of_the_book(metadata):
    """One version, which the citation and the changelog repeat."""
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1]
    newest = re.search(r"^## ([\w.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert metadata["Version"] == importlib.metadata.version("gpbook") == citation == newest


def test_the_same_sources_give_the_same_bytes(built, tmp_path):
    root = tmp_path / "another place"
    root.mkdir()
    for name in wheel.SOURCES:
        wheel._copy(ROOT / name, root / name)
    for path in root.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    (root / "build" / "lib" / "gpbook_utils").mkdir(parents=True)
    (root / "build" / "lib" / "gpbook_utils" / "gone.py").write_text("")
    static = tmp_path / "static"
    static.mkdir()
    for name in ("gpbook-0.1.0-py3-none-any.whl", "search.js"):
        (static / name).touch()
    before = os.umask(0o077)
    try:
        again = wheel.build(static, root)
    finally:
        os.umask(before)
    assert again.name == built.name and again.read_bytes() == built.read_bytes()
    assert {*static.iterdir()} == {again, static / "search.js"}  # the older one went


def test_what_pip_cannot_build_is_explained(tmp_path):
    for name in wheel.SOURCES:
        wheel._copy(ROOT / name, tmp_path / name)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 3\n")
    with pytest.raises(RuntimeError, match="(?s)could not build the wheel of .*must contain .'version'."):
        wheel.build(tmp_path / "out", tmp_path)


# What it asks for


def imports(path):
    """Whatever a module imports, at its top or later, by its first name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from (name.split(".")[0] for name in names)


def test_each_module_imports_what_is_asked_for(metadata):
    """The diagnosis what the package asks for, the sweeps their extra besides, all others the extra `book`."""
    alone = {one.name for one in asked(metadata)}
    book, sweeps = ({one.name for one in asked(metadata, extra)} for extra in ("book", "sweeps"))
    looked = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        is_diagnosis = room in {"diagnose", "compare.py"} and path.stem != "pictures"
        names = alone if is_diagnosis else sweeps if room == "sweeps" else book
        known = {IMPORTED_AS.get(name, name) for name in names} | {"gpbook_utils"} | set(sys.stdlib_module_names)
        assert set(imports(path)) <= known, path
        looked |= set(imports(path))
    assert {"torch", "matplotlib", "IPython", "distributed"} <= looked


# Alone


EXPLAIN = """
import sys
import torch
from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.models import ExactModel

x = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(-1)
a, b = (ExactModel(x, torch.sin(6 * x.squeeze(-1))).eval() for _ in range(2))
print(explain_difference(a, b, x).verdict)
b.covar_module.lengthscale = 0.1
report = explain_difference(a, b, x)
print([(finding.cause, finding.where) for finding in report.findings])
print(len(str(report)) > 100, len(report._repr_html_()) > 100, list(check_model(a, x).findings))
"""


def test_a_difference_is_explained_where_nothing_else_is(alone, tmp_path):
    assert run(alone, EXPLAIN, tmp_path) == [
        "equal up to rounding: nothing to explain",
        "[('parameter', 'covar_module.raw_lengthscale')]",
        "True True []",
    ]


def test_only_the_pictures_of_the_diagnosis_need_more(alone, tmp_path):
    modules = sorted(path.stem for path in (PACKAGE / "diagnose").glob("*.py") if path.stem != "__init__")
    names = ["compare", *(f"diagnose.{name}" for name in modules)]
    program = f"""
import importlib, importlib.util
for name in {names}:
    try:
        importlib.import_module(f"gpbook_utils.{{name}}")
    except ImportError as error:
        print(name, error.name)
print([name for name in ("book", "grading", "tests") if importlib.util.find_spec(name)])
"""
    assert "suspects" in modules
    assert run(alone, program, tmp_path) == ["diagnose.pictures matplotlib", "[]"]


# In the built book


def test_make_writes_it_where_its_sources_changed_and_only_there(tmp_path):
    for name in ("Makefile", "requirements.txt", "constraints.txt", ".ci", "book", "grading", *wheel.SOURCES):
        wheel._copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()
    version = importlib.metadata.version("gpbook")
    path = tmp_path / "_build" / "html" / "_static" / f"gpbook-{version}-py3-none-any.whl"

    def make(*options):
        command = ["make", "--no-print-directory", f"BIN={Path(sys.executable).parent}", path.relative_to(tmp_path)]
        env = {key: value for key, value in CLEAN.items() if not key.startswith("MAKE")}
        result = subprocess.run([*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def is_wanted():
        return "-m book.wheel _build/html/_static" in make("--dry-run")

    assert is_wanted() and make() == f"The package alone: {path.relative_to(tmp_path)}\n" and path.is_file()
    (tmp_path / "book" / "ledger.py").write_text("")
    (tmp_path / "chapters").mkdir()
    assert not is_wanted()
    (tmp_path / "gpbook_utils" / "compare.py").write_text("X = 1\n")
    assert is_wanted()
    os.utime(path)
    assert not is_wanted()
    (tmp_path / "gpbook_utils" / "costs.py").unlink()
    assert is_wanted()
