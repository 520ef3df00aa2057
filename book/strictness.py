"""What a test session of the book demands beyond passing tests.

The root's ``conftest.py`` registers it, so that it watches every session.

- What a claim measured on this machine is not compared with what is stored; its plain text is.
- No test may be expected to fail: nbval marks the cells after a dead kernel so, and they would go unseen.
- A session over the chapters must find notebooks.
- A claim that this machine's record decided must not become "not observable here".

The session ends with a count of what ran. With pytest-xdist (`-n 2`) workers run the tests, each in a session of its
own, and tell the controlling session what they found.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from book.notebooks import kernel_environment
from gpbook_utils.claims import MIME, UNOBSERVABLE

# These two carry the numbers of the machine that ran the chapter.
NOT_COMPARED = ("text/html", MIME)


class Strictness:
    """Watches one session: what it collects, what it runs, and what the chapters' kernels log."""

    def __init__(self, config):
        self.config = config
        self.root = config.rootpath
        self.collected_cells = 0
        self.ran = Counter()
        self.notebooks = set()
        self.problems = []
        self.folder = tempfile.TemporaryDirectory(prefix="gpbook-")
        self.log = Path(self.folder.name, "verdicts.jsonl")  # to which the chapters' kernels append what they decide
        self.log.touch()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        if not isinstance(item, IPyNbCell):
            return (yield)
        # nbval starts the kernel here, and the kernel inherits the environment.
        with pytest.MonkeyPatch.context() as patch:
            for name, value in kernel_environment(self.folder.name).items():
                patch.setenv(name, value)
            patch.setenv("GPBOOK_VERDICTS", str(self.log))
            return (yield)

    def pytest_collectstart(self, collector):
        if isinstance(collector, IPyNbFile):
            collector.skip_compare += NOT_COMPARED

    def pytest_itemcollected(self, item):
        self.collected_cells += isinstance(item, IPyNbCell)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = f"an expected failure is a failure here: {report.wasxfail or 'no reason given'}"
            del report.wasxfail
        report.kind = kind(item)
        return report

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and not report.skipped:
            self.ran[report.kind] += 1
            if report.kind == "cell":
                self.notebooks.add(report.nodeid.split("::")[0])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        told = getattr(node, "workeroutput", {})  # a worker that died tells nothing; its test has failed
        self.collected_cells += told.get("collected_cells", 0)
        self.problems += told.get("lost_claims", [])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        verdicts = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        self.folder.cleanup()
        lost = lost_claims(verdicts, self.root / "records")
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput |= {"collected_cells": self.collected_cells, "lost_claims": lost}
            return (yield)
        self.problems += lost
        if self.asks_for_chapters() and not self.collected_cells:
            self.problems.append("no notebook was found in chapters/")
        if self.problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def asks_for_chapters(self):
        """Whether an argument of this session is the folder of the chapters, or holds it."""
        chapters = self.root / "chapters"
        here = self.config.invocation_params.dir
        asked = {(here / str(argument).split("::")[0]).resolve() for argument in self.config.args}
        return not asked.isdisjoint([chapters, *chapters.parents])

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("the book")
        terminalreporter.line(
            f"{self.ran['cell']} cells of {len(self.notebooks)} notebooks, "
            f"{self.ran['doctest']} doctests and {self.ran['unit test']} unit tests ran"
        )
        for problem in self.problems:
            terminalreporter.line(f"FAILED: {problem}", red=True)


def kind(item):
    """What a test is, in a word or two."""
    if isinstance(item, IPyNbCell):
        return "cell"
    return "unit test" if isinstance(item, pytest.Function) else "doctest"


def lost_claims(verdicts, records):
    """One sentence for each claim that is unobservable although this machine's record decided it.

    ``verdicts`` are the claims as the kernels logged them; ``records`` is the folder of the records.
    """
    unobservable = {entry["id"] for entry in verdicts if entry["verdict"] == UNOBSERVABLE}
    if not unobservable:
        return []
    from gpbook_utils.machines.records import of_this_machine  # here, since it imports torch

    decided = {}
    for record in of_this_machine(records):
        claims = record["claims"].items()
        decided |= {id: f"{record['machine']}.json" for id, claim in claims if claim["verdict"] != UNOBSERVABLE}
    return [
        f"claim {id!r} is {UNOBSERVABLE}, but records/{decided[id]} shows that this machine decided it"
        for id in sorted(unobservable & decided.keys())
    ]
