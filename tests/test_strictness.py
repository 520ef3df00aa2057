"""Does the root conftest.py fail what it should? Each rule is seen failing in a small book of its own."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

from gpbook_utils.machines import machine

ROOT = Path(__file__).parents[1]

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester):
    """An empty book with the real conftest.py."""
    pytester.makeconftest((ROOT / "conftest.py").read_text(encoding="utf-8"))
    addopts = f"--nbval --nbval-current-env --nbval-sanitize-with '{ROOT / 'tests' / 'nbval_sanitize.cfg'}'"
    pytester.makeini(f"[pytest]\naddopts = {addopts} -rfE -p no:cacheprovider")
    pytester.mkdir("chapters")
    return pytester


def write_notebook(project, name, *cells):
    """Each cell is its source, or a pair of its source and its stored outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "not-installed", "display_name": "?", "language": "python"}
    for count, cell in enumerate(cells, 1):
        source, outputs = cell if isinstance(cell, tuple) else (cell, [])
        notebook.cells.append(nbformat.v4.new_code_cell(source, execution_count=count, outputs=outputs))
    nbformat.write(notebook, project.path / "chapters" / f"{name}.ipynb")


def run(project, *arguments):
    """A session in its own process: torch and zmq do not survive being imported twice in one."""
    return project.runpytest_subprocess(*arguments)


# Tests of one session that runs all itself, and of one whose workers do.
here_and_in_workers = pytest.mark.parametrize(
    "workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["here", "workers"]
)


@here_and_in_workers
def test_a_sound_session_passes_and_is_counted(project, monkeypatch, workers):
    monkeypatch.setenv("TMPDIR", str(project.mkdir("temporary")))
    monkeypatch.delenv("GPBOOK_VERDICTS", raising=False)
    python = f"import os, sys\nassert sys.executable == {sys.executable!r}"
    write_notebook(project, "01", python, "assert os.path.exists(os.environ['GPBOOK_VERDICTS'])")
    write_notebook(project, "02", "pass")
    project.makepyfile(
        module='"""\n>>> 1 + 1\n2\n"""',
        test_unit="""
            import os, pytest
            def test_only_kernels_log(): assert "GPBOOK_VERDICTS" not in os.environ
            def test_skipped(): pytest.skip("no GPU")
        """,
    )
    result = run(project, "--doctest-modules", *workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["3 cells of 2 notebooks, 1 doctests and 1 unit tests ran"])
    assert not any(name.startswith("gpbook") for name in os.listdir(project.path / "temporary"))


@here_and_in_workers
def test_an_expected_failure_fails(project, workers):
    project.makepyfile(
        test_unit="""
            import pytest
            @pytest.mark.xfail
            def test_xfailed(): assert False
            @pytest.mark.xfail
            def test_xpassed(): pass
            def test_imperative(): pytest.xfail("not yet")
        """
    )
    result = run(project, "test_unit.py", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*an expected failure is a failure here: not yet"])


def test_a_reader_s_settings_and_home_change_no_output(project, monkeypatch):
    startup = project.mkdir("ipython") / "profile_default" / "startup" / "mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import pandas\npandas.set_option('display.max_rows', 2)")
    monkeypatch.setenv("IPYTHONDIR", str(project.path / "ipython"))
    monkeypatch.setenv("HOME", os.devnull)  # where nobody can write
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    write_notebook(
        project,
        "01",
        "import matplotlib.pyplot",
        "import pandas\nassert pandas.get_option('display.max_rows') == 60",
        "import warnings\nwarnings.warn('`torch.jit.script` is deprecated. Say so.', FutureWarning)",
    )
    assert run(project, "chapters").ret == pytest.ExitCode.OK


def test_cells_after_a_dead_kernel_fail(project):
    write_notebook(project, "01", "import os; os._exit(1)", "pass", "pass")
    result = run(project, "chapters", "--nbval-cell-timeout", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=3)


def test_the_tests_of_a_group_are_run_by_one_worker(project):
    """What a group shares is made once; xdist forgets groups silently under a pytest that it does not know."""
    project.makepyfile("""
        import os
        from pathlib import Path
        import pytest

        @pytest.mark.xdist_group("one")
        @pytest.mark.parametrize("number", range(20))
        def test_it(number):
            Path(os.environ["PYTEST_XDIST_WORKER"]).touch()
    """)
    run(project, "-n", "2", "--dist", "loadgroup").assert_outcomes(passed=20)
    assert len(list(project.path.glob("gw*"))) == 1


@pytest.mark.parametrize("arguments", [["chapters"], [], ["-p", "no:nbval", "-o", "addopts="], ["-n", "2"]])
def test_no_notebook_fails_a_session_that_asked_for_chapters(project, arguments):
    project.makepyfile(test_unit="def test_it(): pass")
    if "no:nbval" in arguments:  # there is a notebook, but nobody collects it
        write_notebook(project, "01", "pass")
    result = run(project, *arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAILED: no notebook was found in chapters/"])


def test_a_session_may_leave_the_chapters_out(project):
    project.makepyfile(test_unit="def test_it(): pass")
    assert run(project, "test_unit.py").ret == pytest.ExitCode.OK
    write_notebook(project, "01", "pass")
    assert run(project, "-k", "test_it").ret == pytest.ExitCode.OK


@here_and_in_workers
def test_a_claim_that_this_machine_decided_stays_decided(project, workers):
    now = {
        "held": "not observable here",
        "fell": "not observable here",
        "never-seen": "not observable here",
        "seen-elsewhere": "not observable here",
        "still-holds": "holds",
    }
    lines = "\n".join(json.dumps({"id": id, "verdict": verdict}) for id, verdict in now.items())
    write_notebook(project, "01", f"import os\nprint({lines!r}, file=open(os.environ['GPBOOK_VERDICTS'], 'a'))")
    assert run(project, "chapters", *workers).ret == pytest.ExitCode.OK, "without a record there is nothing to lose"

    records = project.mkdir("records")
    before = {"held": "holds", "fell": "refuted", "never-seen": "not observable here", "still-holds": "holds"}
    here = machine.fingerprint()
    elsewhere = here | {"cpu": "another"}
    for fingerprint, verdicts in ((here, before), (elsewhere, {"seen-elsewhere": "holds"})):
        name = machine.identity(fingerprint)
        entries = {id: {"verdict": verdict, "measured": "", "digest": ""} for id, verdict in verdicts.items()}
        record = {"machine": name, "date": "2026-01-01", "fingerprint": fingerprint, "claims": entries}
        (records / f"{name}.json").write_text(json.dumps(record))
    result = run(project, "chapters", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split()[2] for line in result.outlines if line.startswith("FAILED: claim")] == ["'fell'", "'held'"]
    result.stdout.fnmatch_lines(
        [f"FAILED: claim 'held' is not observable here, but records/{machine.identity(here)}.json *"]
    )


def test_what_nbval_compares(project):
    """A verdict that this machine can't observe equals "holds", never "refuted"; its own numbers are left out."""
    plain, claim = "text/plain", "application/vnd.gpbook.claim+json"
    cases = [  # stored output, output now, whether they count as equal
        ({plain: "[holds] a: B."}, {plain: "[holds] a: B."}, True),
        ({plain: "[holds] a: B."}, {plain: "[not observable here] a: B."}, True),
        ({plain: "[not observable here] a: B."}, {plain: "[holds] a: B."}, True),
        ({plain: "[holds] a: B.\n[holds] c: D."}, {plain: "[holds] a: B.\n[not observable here] c: D."}, True),
        ({plain: "x", "text/html": "1e-7"}, {plain: "x", "text/html": "2e-7"}, True),
        ({plain: "x", claim: {"slack": 4}}, {plain: "x", claim: {"slack": 5}}, True),
        ({plain: "[holds] a: B."}, {plain: "[refuted] a: B."}, False),
        ({plain: "[not observable here] a: B."}, {plain: "[refuted] a: B."}, False),
        ({plain: "[holds] a: x [not observable here]"}, {plain: "[holds] a: x [holds]"}, False),
        ({plain: "x", "text/markdown": "1e-7"}, {plain: "x", "text/markdown": "2e-7"}, False),
    ]
    cells = [
        (f"from IPython.display import display\ndisplay({now!r}, raw=True)", [display_data(stored)])
        for stored, now, _ in cases
    ]
    write_notebook(project, "01", *cells)
    result = run(project, "chapters")
    failed = {int(number) for number in re.findall(r"^FAILED chapters/01.ipynb::Cell (\d+)", str(result.stdout), re.M)}
    assert failed == {number for number, (*_, equal) in enumerate(cases) if not equal}


def display_data(data):
    return nbformat.v4.new_output("display_data", data=data)
