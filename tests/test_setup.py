"""Does the set-up say what is wrong and what to do, and never leave a half-made environment that looks whole?"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "environment.py"


@pytest.fixture
def environment():
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path):
    """A folder with the files that the set-up reads, and one small package to install."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "book/pyproject.toml", "grading/pyproject.toml", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("iniconfig\n", encoding="utf-8")
    return tmp_path


def set_up(book, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}
    # pip's own configuration files could name another index, or a folder of wheels.
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable, **variables}
    return subprocess.run(["make", ".venv/ready"], cwd=book, env=kept, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 10, 13), (3, 14, 0), (2, 7, 18), (4, 0, 0)])
def test_a_wrong_python_is_named(environment, version):
    with pytest.raises(environment.Problem, match=rf"This is Python {version[0]}\.{version[1]} .*3\.11 to 3\.13"):
        environment.check_python(version)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_a_right_python_passes(environment, version):
    environment.check_python(version)


@pytest.mark.parametrize("found", ["python3.12", None])
def test_another_python_is_proposed(environment, monkeypatch, found):
    monkeypatch.setattr(environment.shutil, "which", lambda name: name if name == found else None)
    advice = "You have one:  make book PYTHON=python3.12" if found else "Install one, then:  make book PYTHON"
    with pytest.raises(environment.Problem, match=advice):
        environment.check_python((3, 9, 6))


def test_the_script_starts_under_other_pythons(tmp_path):
    """Under every other Python 3 of this machine: those on the path, and those of pyenv."""
    named = [f"python3.{minor}" for minor in (*range(6, 11), *range(14, 20))]
    candidates = [*filter(None, map(shutil.which, named)), *Path.home().glob(".pyenv/versions/3.*/bin/python")]
    tried = 0
    for python in candidates:
        question = "import sys; sys.exit(sys.version_info < (3, 6) or (3, 11) <= sys.version_info < (3, 14))"
        if subprocess.run([python, "-c", question], capture_output=True).returncode:
            continue
        tried += 1
        result = subprocess.run([python, SCRIPT], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 1
        assert "the book needs Python 3.11 to 3.13" in result.stderr
        assert "Traceback" not in result.stderr
        assert not list(tmp_path.iterdir())
    if not tried:
        pytest.skip("no Python but those that the book supports is installed")


def test_a_python_without_venv_is_named(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(environment.Problem, match="(?s)cannot make environments.*apt-get install python3"):
        environment.check_modules()


@pytest.mark.parametrize(
    "torch, system, needed", [("default", "Linux", 12), ("cpu", "Linux", 4), ("default", "Darwin", 4)]
)
def test_a_full_disk_is_named_with_what_is_needed(environment, monkeypatch, torch, system, needed):
    monkeypatch.setattr(environment.platform, "system", lambda: system)
    environment.check_space(torch, needed * 1e9)
    with pytest.raises(environment.Problem, match=f"1.5 GB free; installing needs {needed} GB") as caught:
        environment.check_space(torch, 1.5e9)
    assert ("TORCH=cpu" in str(caught.value)) == (needed == 12)


def test_a_full_disk_stops_before_anything_is_made(environment, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert environment.main([]) == 1
    assert "0.0 GB free" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "log, message",
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("[Errno -3] Temporary failure in name resolution", "the package index does not answer"),
        ("ReadTimeoutError: Read timed out.", "the package index does not answer"),
        ("SSLError(CERTIFICATE_VERIFY_FAILED)", "the package index does not answer"),
        ("ERROR: No matching distribution found for torch==2.13.0", "The package index has no torch==2.13.0 for"),
        ("something\nERROR: quite else", "pip failed. Its last lines:\n  something\n  ERROR: quite else"),
    ],
)
def test_what_pip_says_is_explained(environment, log, message):
    assert message in environment.explain(log)


def test_no_network_is_explained_and_leaves_nothing_that_looks_ready(book):
    result = set_up(book, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert result.returncode != 0
    assert "the package index does not answer" in result.stderr
    assert "Traceback" not in result.stderr
    log = book / ".venv" / "install.log"
    assert str(log) in result.stderr
    assert "iniconfig" in log.read_text(encoding="utf-8")
    assert not (book / ".venv" / "ready").exists()


def test_an_interrupted_installation_is_taken_up_again(environment, monkeypatch, tmp_path):
    ready = tmp_path / "ready"
    monkeypatch.setattr(environment, "is_usable", lambda python: True)
    for interruption in (environment.Problem("no network"), KeyboardInterrupt()):
        ready.write_text("from an earlier time", encoding="utf-8")

        def interrupted(command, log, error=interruption):
            raise error

        monkeypatch.setattr(environment, "run", interrupted)
        assert environment.main(["--folder", str(tmp_path)]) == 1
        assert not ready.exists()

    commands = []
    monkeypatch.setattr(environment, "run", lambda command, log: commands.append(command))
    assert environment.main(["--folder", str(tmp_path), "--torch", "cpu"]) == 0
    assert "torch: cpu" in ready.read_text(encoding="utf-8")
    assert "constraints.txt" in commands[0]
    assert (environment.CPU_INDEX in commands[0]) == (sys.platform == "linux")
    assert commands[1][3:] == ["--disable-pip-version-check", "--retries=3", "uninstall", "--yes", "gpbook"]
    assert commands[2][-1] == "check"
    assert "--no-build-isolation" in commands[3] and "--no-deps" in commands[3]
    assert [commands[3][i + 1] for i, word in enumerate(commands[3]) if word == "--editable"] == [
        "./.", "./book", "./grading"
    ]  # fmt: skip


def test_a_damaged_environment_is_not_usable(environment, tmp_path):
    assert environment.is_usable(sys.executable)
    assert not environment.is_usable(str(tmp_path / "absent"))
    damaged = tmp_path / "python"
    damaged.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    damaged.chmod(0o755)
    assert not environment.is_usable(str(damaged))


# What is asked for, by pyproject.toml, and what is pinned


def pins(name):
    """The lines of a file of pins, each as (name, version)."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line]
    assert all([one.operator for one in requirement.specifier] == ["=="] for requirement in found)
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in found}


@pytest.fixture
def asked():
    """The requirements of the package, of its extras and of the dependency groups, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = {"": project["project"]["dependencies"]}
    lists |= project["project"]["optional-dependencies"] | project["dependency-groups"]
    return {name: [Requirement(line) for line in lines] for name, lines in lists.items()}


def test_whatever_is_asked_for_is_pinned_within_its_range(asked):
    known = pins("constraints.txt") | pins("requirements.txt")
    assert set(asked) == {"", "book", "sweeps", "readers", "students", "makers", "tests"}
    for name, requirements in asked.items():
        for one in requirements:
            pin = known.get(canonicalize_name(one.name))
            assert pin and one.specifier.contains(pin), f"{name}: {one} is pinned to {pin}"


def test_whatever_is_pinned_is_asked_for_by_somebody(asked):
    by_somebody = {canonicalize_name(one.name) for requirements in asked.values() for one in requirements}
    assert set(pins("requirements.txt")) <= by_somebody
    assert by_somebody - set(pins("requirements.txt")) == {"ipython"}  # the kernel brings it along


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-grading.txt"])
def test_a_package_has_one_pin(name):
    here, below = pins(name), pins("constraints.txt")
    assert len(here.keys() & below.keys()) > 3
    assert {one: version for one, version in here.items() if below.get(one, version) != version} == {}


def test_what_the_set_up_installs():
    """The package, the book's own tools with the page's entry point, and the autograder, each as a distribution."""
    entry = {one.group: one.value for one in importlib.metadata.distribution("gpbook-making").entry_points}
    assert entry == {"myst_nb.mime_renderers": "book.theme.figures:FigureRenderer"}
    assert not importlib.metadata.distribution("gpbook").entry_points
    owners = {name: set(importlib.metadata.packages_distributions()[name]) for name in ("book", "grading")}
    assert owners == {"book": {"gpbook-making"}, "grading": {"gpbook-grading"}}


def test_the_autograders_environment_has_no_torch():
    program = (
        "import importlib.util, gpbook_utils.answers, gpbook_utils.files, grading.judge\n"
        "print([name for name in ('torch', 'gpytorch', 'book') if importlib.util.find_spec(name)])"
    )
    python = ROOT / ".venv-grading" / "bin" / "python"
    result = subprocess.run([python, "-c", program], cwd="/", capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
