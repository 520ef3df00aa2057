"""Does the set-up say what is wrong and what to do, and never leave a half-made environment that looks whole?"""

import importlib.metadata
import os
import re
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
def environment(monkeypatch):
    """The part that starts under any Python."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("environment")


@pytest.fixture
def install(environment):
    """The part that does the work."""
    return importlib.import_module("install")


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
    said = environment.wrong_python(version)
    assert said.startswith(
        f"This is Python {version[0]}.{version[1]} ({sys.executable}); the book needs Python 3.11 to"
    )


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_a_right_python_passes(environment, version):
    assert environment.wrong_python(version) is None


@pytest.mark.parametrize(
    ("programs", "advice"),
    [
        ({}, "Install one, then:  make book PYTHON=python3.13"),
        ({"python3.12": 0}, "You have one:  make book PYTHON=python3.12"),
        # A version manager puts a program on the path that says "not installed".
        ({"python3.13": 127, "python3.11": 0}, "You have one:  make book PYTHON=python3.11"),
    ],
)
def test_another_python_is_proposed_if_it_runs(environment, monkeypatch, tmp_path, programs, advice):
    for name, status in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.wrong_python((3, 9, 6)).splitlines()[1] == advice


def test_a_proposed_python_is_of_its_version(environment):
    assert environment.answers(sys.executable, sys.version_info[1])
    assert not environment.answers(sys.executable, sys.version_info[1] + 1)


def test_the_script_starts_under_other_pythons(tmp_path):
    """Under every other Python of this machine, from 2.7: those on the path, and those of pyenv."""
    named = ["python2.7", *(f"python3.{minor}" for minor in (*range(6, 11), *range(14, 20)))]
    candidates = [*filter(None, map(shutil.which, named)), *Path.home().glob(".pyenv/versions/[23].*/bin/python")]
    tried = 0
    for python in candidates:
        question = "import sys; sys.exit((3, 11) <= sys.version_info < (3, 14))"
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


SYSTEMS = {  # system, processor, macOS, library of C
    "Debian 12": ("Linux", "x86_64", "", ("glibc", "2.36")),
    "Red Hat 8 on Arm": ("Linux", "aarch64", "", ("glibc", "2.28")),
    "macOS 14": ("Darwin", "arm64", "14.0", ("", "")),
    "macOS 26": ("Darwin", "arm64", "26.1", ("", "")),
    "macOS 15 for an old Python": ("Darwin", "arm64", "10.16", ("", "")),
    "Ubuntu 18.04": ("Linux", "x86_64", "", ("glibc", "2.27")),
    "Alpine": ("Linux", "x86_64", "", ("", "")),
    "Linux on 32 bits": ("Linux", "i686", "", ("glibc", "2.36")),
    "macOS 13": ("Darwin", "arm64", "13.7.8", ("", "")),
    "Intel macOS": ("Darwin", "x86_64", "15.1", ("", "")),
    "Windows": ("Windows", "AMD64", "", ("", "")),
}
TOO_OLD = {
    "Ubuntu 18.04": "glibc 2.27 on x86_64",
    "Alpine": "Linux  on x86_64",
    "Linux on 32 bits": "glibc 2.36 on i686",
    "macOS 13": "macOS 13.7.8 on arm64",
    "Intel macOS": "macOS 15.1 on x86_64",
    "Windows": "Windows  on AMD64",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_without_torch_is_named_before_anything_is_made(install, monkeypatch, tmp_path, capsys, name):
    system, machine, mac, library = SYSTEMS[name]
    monkeypatch.chdir(tmp_path)
    for function, answer in {"system": system, "machine": machine, "mac_ver": (mac, ("",) * 3, machine)}.items():
        monkeypatch.setattr(install.platform, function, lambda answer=answer: answer)
    monkeypatch.setattr(install.platform, "libc_ver", lambda: library)
    monkeypatch.setattr(install, "make", lambda *arguments: None)
    assert install.main([]) == (name in TOO_OLD)
    said = capsys.readouterr().err
    if name in TOO_OLD:
        assert f"This is {TOO_OLD[name]}.\nThe book needs Python 3.11 to 3.13 on Linux" in said
        assert "macOS 14 or later" in said and "glibc 2.28 or later" in said
    assert not list(tmp_path.iterdir())


def test_a_python_without_venv_is_named(install, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(install.Problem, match="(?s)cannot make environments.*apt-get install python3"):
        install.check_modules()


@pytest.mark.parametrize(
    "torch, system, needed", [("default", "Linux", 12), ("cpu", "Linux", 4), ("default", "Darwin", 4)]
)
def test_a_full_disk_is_named_with_what_is_needed(install, monkeypatch, torch, system, needed):
    monkeypatch.setattr(install.platform, "system", lambda: system)
    install.check_space(torch, needed * 1e9)
    with pytest.raises(install.Problem, match=f"1.5 GB free; installing needs {needed} GB") as caught:
        install.check_space(torch, 1.5e9)
    assert ("TORCH=cpu" in str(caught.value)) == (needed == 12)


def test_a_full_disk_stops_before_anything_is_made(install, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert install.main([]) == 1
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
def test_what_pip_says_is_explained(install, log, message):
    assert message in install.explain(log)


def test_no_network_is_explained_and_leaves_nothing_that_looks_ready(book):
    result = set_up(book, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert result.returncode != 0
    assert "the package index does not answer" in result.stderr
    assert "Traceback" not in result.stderr
    log = book / ".venv" / "install.log"
    assert str(log) in result.stderr
    assert "iniconfig" in log.read_text(encoding="utf-8")
    assert not (book / ".venv" / "ready").exists()


def test_an_interrupted_installation_is_taken_up_again(install, monkeypatch, tmp_path):
    ready = tmp_path / "ready"
    monkeypatch.setattr(install, "is_usable", lambda python: True)
    for interruption in (install.Problem("no network"), KeyboardInterrupt()):
        ready.write_text("from an earlier time", encoding="utf-8")

        def interrupted(command, log, error=interruption):
            raise error

        monkeypatch.setattr(install, "run", interrupted)
        assert install.main(["--folder", str(tmp_path)]) == 1
        assert not ready.exists()

    commands = []
    monkeypatch.setattr(install, "run", lambda command, log: commands.append(command))
    assert install.main(["--folder", str(tmp_path), "--torch", "cpu"]) == 0
    assert "torch: cpu" in ready.read_text(encoding="utf-8")
    assert "constraints.txt" in commands[0]
    assert (install.CPU_INDEX in commands[0]) == (sys.platform == "linux")
    assert commands[1][3:] == ["--disable-pip-version-check", "--retries=3", "uninstall", "--yes", "gpbook"]
    assert commands[2][-1] == "check"
    assert "--no-build-isolation" in commands[3] and "--no-deps" in commands[3]
    assert [commands[3][i + 1] for i, word in enumerate(commands[3]) if word == "--editable"] == [
        "./.", "./book", "./grading"
    ]  # fmt: skip


def test_a_damaged_environment_is_not_usable(install, tmp_path):
    assert install.is_usable(sys.executable)
    assert not install.is_usable(str(tmp_path / "absent"))
    damaged = tmp_path / "python"
    damaged.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    damaged.chmod(0o755)
    assert not install.is_usable(str(damaged))


# An odd place


def linked_environment(folder, like, python):
    """An environment of ``python`` whose packages are those of the environment ``like``, but for the book's own."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (theirs,), (ours,) = (list(Path(at).glob("lib/python3.*/site-packages")) for at in (like, folder))
    for entry in theirs.iterdir():
        if "gpbook" not in entry.name and entry.name != "__pycache__":
            (ours / entry.name).symlink_to(entry)


@pytest.mark.deep
@pytest.mark.skipif(sys.platform != "linux", reason="needs a way to give up root's rights")
def test_the_book_is_set_up_and_tested_in_an_odd_place(tmp_path):
    """Spaces and umlauts, a home that nobody can write, the locale C, no git, Python through links, no network."""
    book, home = tmp_path / "Ein Ort für Bücher", tmp_path / "home"
    left_out = shutil.ignore_patterns(".git", ".venv*", "_build", "course", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, book, ignore=left_out)
    home.mkdir(mode=0o555)
    (book / "course").mkdir()
    (book / "course" / "solution.py").write_text(
        "import os", encoding="utf-8"
    )  # what `make grade` leaves is not linted
    for name, target in (("python3", sys._base_executable), ("python", "python3")):
        (tmp_path / name).symlink_to(target)
    for folder in (".venv", ".venv-grading"):
        linked_environment(book / folder, ROOT / folder, tmp_path / "python")
    (book / ".venv/bin/ruff").symlink_to(ROOT / ".venv/bin/ruff")
    # As pip writes a script of an environment whose path the first line can't name.
    head = f"#!/bin/sh\n'''exec' '{book}/.venv/bin/python' \"$0\" \"$@\"\n' '''\n"
    for script in ("lint-imports", "mypy"):
        code = (ROOT / ".venv/bin" / script).read_text(encoding="utf-8").split("\n", 1)[1]
        (book / ".venv/bin" / script).write_text(head + code, encoding="utf-8")
        (book / ".venv/bin" / script).chmod(0o755)
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "LC_ALL": "C",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    # Root without its rights can't write where it is forbidden to.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    sound = "tests/test_strictness.py::test_a_sound_session_passes_and_is_counted"
    part = f"gpbook_utils/compare.py {sound} chapters/verdicts.ipynb chapters/08_conditioning.ipynb"
    command = [*plain, "make", "test", f"PYTHON={tmp_path / 'python'}", f"T={part}"]
    done = subprocess.run(command, cwd=book, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d cells of 2 notebooks, \d+ doctests and 2 unit tests ran", done.stdout)
    for folder in (".venv", ".venv-grading"):
        assert (book / folder / "ready").exists()
    assert not list(home.iterdir())


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


# What other environments and platforms bring along is pinned too


ENVIRONMENTS = {
    "the book": (sys.prefix, "requirements.txt"),
    "the grader": (ROOT / ".venv-grading", "requirements-grading.txt"),
}
PLATFORMS = {
    "Linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "Linux on Arm": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}


@pytest.fixture(params=ENVIRONMENTS)
def installed(request):
    """What an environment was made from, its pins, and its distributions by name."""
    folder, asked = ENVIRONMENTS[request.param]
    (packages,) = Path(folder).glob("lib/python3.*/site-packages")
    found = {canonicalize_name(each.name): each for each in importlib.metadata.distributions(path=[str(packages)])}
    return asked, pins("constraints.txt") | pins(asked), found


def test_what_the_book_asks_for_is_a_constraint_too():
    """The grader, and students, take these packages as well."""
    assert pins("requirements.txt").items() <= pins("constraints.txt").items()


def brought(asked, found, there):
    """The names of all packages that the file ``asked`` brings to an environment whose markers are ``there``."""
    todo, reached = {(name, "") for name in pins(asked)}, set()
    while todo:
        name, extra = todo.pop()
        reached.add((name, extra))
        # What is for other platforms only is not installed here; nothing is known of what it brings along.
        for text in (found[name].requires or []) if name in found else []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({**there, "extra": extra}):
                todo |= {(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)} - reached
    return {name for name, _ in reached}


def test_every_installed_package_has_its_pinned_version(installed):
    asked, pinned, found = installed
    here = {name: found[name].version.partition("+")[0] for name in brought(asked, found, {})}
    assert len(here) > 50
    assert here.items() <= pinned.items()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_another_platform_brings_along_is_pinned(installed, platform, python):
    asked, pinned, found = installed
    there = {**PLATFORMS[platform], "python_version": python, "python_full_version": f"{python}.9"}
    assert brought(asked, found, there) <= pinned.keys()
