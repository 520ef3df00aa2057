"""Run the code cells of a notebook once, and changed ones from the first that differs.

The *trunk* is a process that runs the cells as they stand. Before the first cell in which a *branch* differs it
forks, and the branch goes on with its own cells, from the objects and generators as the trunk has left them. Each
runs in an IPython shell, in the notebook's folder, with one thread, two processes at a time. No cell sees a GPU,
since a process that has used one can't be forked.

A cell that takes too long ends its process. A process ends with the one that started it, and what its cells have
started with it. Trunk and branches share files, except for temporary ones. Threads are not forked, and GNU's OpenMP
waits for them for ever: a branch can't compute with several threads after the trunk has.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

PRELOAD = ["torch", "gpytorch", "matplotlib.pyplot", "IPython", "gpbook_utils.claims"]
PARALLEL = 2  # processes that compute


@dataclass(frozen=True)
class Branch:
    """The cells of a changed notebook, and the indices of the first and the last to run."""

    cells: Sequence[str]
    first: int
    last: int


@dataclass(frozen=True)
class Outcome:
    """What came of running some cells: the verdict on each claim, or the problem if they didn't run to their end."""

    verdicts: dict[str, str]
    seconds: float = 0.0
    problem: str = ""


def run(
    cells: Sequence[str], branches: Sequence[Branch], folder: Path, *, timeout: float
) -> tuple[Outcome, list[Outcome]]:
    """Run cells up to the last that a branch asks for, and the branches.

    Args:
        cells: the sources of the code cells.
        branches: at least one.
        folder: where the cells run.
        timeout: how many seconds a cell may take.

    Returns:
        What came of the trunk, without its seconds, and of each branch; nothing is decided in a branch that the
        trunk didn't reach.
    """
    context = multiprocessing.get_context("forkserver")  # it has imported the slow libraries, and has not used them
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory(prefix="forks-") as scratch:
        scratch = Path(scratch)
        reader, writer = context.Pipe(duplex=False)
        trunk = context.Process(target=_run_trunk, args=(cells, branches, folder, scratch, timeout, writer))
        trunk.start()
        writer.close()  # now the trunk and its branches alone hold it
        try:
            exits = dict(_until_closed(reader))
        finally:
            _end_group(trunk)
            list(_until_closed(reader))  # the branches end with the trunk
        outcomes = [
            _outcome(scratch / str(n), exits[n], timeout) if n in exits else Outcome({}) for n in range(len(branches))
        ]
        return _outcome(scratch / "trunk", trunk.exitcode, timeout), outcomes


def _until_closed(reader: Connection) -> Iterator[tuple[int, int]]:
    with suppress(EOFError, OSError):  # OSError: the writer was killed while it wrote
        while True:
            yield reader.recv()


def _end_group(process: multiprocessing.process.BaseProcess) -> None:
    """End a run, and whatever processes its cells started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # where it has no group of its own yet
    process.join()


def _outcome(place: Path, code: int, timeout: float) -> Outcome:
    log, verdicts, seconds = (
        file.read_text("utf-8", errors="replace") if (file := place / name).exists() else ""
        for name in ("log", "verdicts", "seconds")
    )
    if code == -signal.SIGALRM:
        return Outcome({}, problem=f"a cell did not end within {timeout:g} s")
    if code:
        return Outcome({}, problem=f"the process ended with exit code {code}\n{log[-4000:]}")
    claims = map(json.loads, verdicts.splitlines())
    return Outcome({claim["id"]: claim["verdict"] for claim in claims}, float(seconds or 0))


# In the new processes.


def _run_trunk(
    cells: Sequence[str], branches: Sequence[Branch], folder: Path, scratch: Path, timeout: float, writer: Connection
) -> None:
    """Run the cells as they stand and fork the branches on the way; tell the writer how each ended."""
    _settle(scratch / "trunk")
    os.environ.pop("GPBOOK_GUARD", None)
    os.environ.update(MPLBACKEND="agg", CUDA_VISIBLE_DEVICES="")  # a process that has used a GPU can't be forked
    os.chdir(folder)
    sys.path.insert(0, "")
    shell, fork, running = _shell(), multiprocessing.get_context("fork"), {}

    def wait_for_all_but(few: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # waiting may take longer than a cell
        while True:
            for number in [n for n, process in running.items() if not process.is_alive()]:
                _end_group(running[number])
                writer.send((number, running.pop(number).exitcode))
            if len(running) <= few:
                break
            time.sleep(0.05)
        signal.setitimer(signal.ITIMER_REAL, timeout)

    try:
        for i in range(max(branch.last for branch in branches) + 1):
            for number, branch in enumerate(branches):
                if branch.first == i:
                    wait_for_all_but(PARALLEL - 1)
                    arguments = (shell, branch, scratch / str(number), timeout)
                    running[number] = fork.Process(target=_run_branch, args=arguments)
                    running[number].start()
            wait_for_all_but(PARALLEL - 1)
            _run_cell(shell, i, cells[i], timeout)
    finally:
        wait_for_all_but(0)


def _run_branch(shell, branch: Branch, place: Path, timeout: float) -> None:
    start = time.monotonic()
    _settle(place)
    for i in range(branch.first, branch.last + 1):
        _run_cell(shell, i, branch.cells[i], timeout)
    (place / "seconds").write_text(str(time.monotonic() - start))


def _settle(place: Path) -> None:
    """Give this process a group, which ends as one and with its parent, and a folder for what it says and writes."""
    os.setsid()
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    place.mkdir()
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(GPBOOK_VERDICTS=str(place / "verdicts"), IPYTHONDIR=str(place), TMPDIR=str(place))
    tempfile.tempdir = None  # TMPDIR is looked up again


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _shell():
    """An IPython shell that shows nothing."""
    import matplotlib
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            """No window here."""

        def showtraceback(self, *arguments, **options):
            """The engine reports errors."""

    matplotlib.use("agg")
    torch.set_num_threads(1)
    shell = Shell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.display_formatter.active_types = ["text/plain"]
    return shell


def _run_cell(shell, number: int, source: str, timeout: float) -> None:
    """Run a cell; a process whose cell takes too long is ended by the alarm."""
    signal.setitimer(signal.ITIMER_REAL, timeout)
    result = shell.run_cell(source)
    if error := result.error_before_exec or result.error_in_exec:
        error.add_note(f"in code cell {number + 1}")
        sys.stdout.flush()
        traceback.print_exception(error)
        sys.exit(1)  # SystemExit and KeyboardInterrupt of a cell are failures like any other
