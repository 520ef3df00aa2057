"""Every claim is seen failing: change the chapter's code so that the claim must fall, run it, see it fall.

For a chapter ``chapters/NN_name.ipynb`` the file ``tests/sabotage/NN_name.toml`` says how::

    [[sabotage]]
    why = "one likelihood for both models"            # what the change does, in words
    refutes = ["own-likelihoods-equal"]               # every one of these must turn to "refuted"
    replace = "likelihood_b = GaussianLikelihood()"   # occurs exactly once in the chapter's code cells
    by = "likelihood_b = likelihood_a"

    [[sabotage]]
    why = "both models in float32"
    refutes = ["exact-gp-equal", "same-prediction"]
    whole = true                  # optional: run every cell up to the last claim, not a slice
    [[sabotage.change]]           # instead of replace and by: several changes at once
    replace = "a = a.double()"
    by = "a = a.float()"
    [[sabotage.change]]
    replace = "b = b.double()"
    by = "b = b.float()"

    [not_sabotaged_here]          # only claims that are stored as "not observable here"; stands at the end
    gpu-equal = "needs a GPU"

Falling means the verdict *refuted*: an exception is a failure of the test, and so is a text that the chapter
no longer contains. Only the needed cells run (see ``slicing``); the same cells also run unchanged, and every
claim that is to fall must hold there, or be not observable on this machine, which is reported. Each run is a
fork of one process that has imported torch, with one thread, in the chapter's folder.

``python -m book.sabotage chapters/01_name.ipynb [claim ...]`` applies a chapter's sabotages, or those of the
claims named, and says what each does.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from book.slicing import needed, plain_python
from gpbook_utils.claims import HOLDS, MIME, REFUTED, UNOBSERVABLE

ROOT = Path(__file__).resolve().parents[1]
PLANS = ROOT / "tests" / "sabotage"
CHAPTERS = ROOT / "chapters"
PRELOAD = ["torch", "gpytorch", "matplotlib.pyplot", "IPython", "pytest", "gpbook_utils.claims", "book.slicing"]
TIMEOUT = 300.0  # seconds for one run; a whole chapter takes less than 60 on two quiet cores, and CI is not quiet
PARALLEL = 2


@dataclass(frozen=True)
class Sabotage:
    """A change of a chapter's code, and the claims that it must refute."""

    why: str
    refutes: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]  # (text, what replaces it)
    whole: bool = False

    def apply(self, cells: Sequence[str]) -> tuple[list[str], set[int]]:
        """The changed code, and the indices of the cells that changed.

        Raises:
            ValueError: if a text to replace doesn't occur exactly once.
        """
        cells, changed = list(cells), set()
        for old, new in self.changes:
            where = [i for i, cell in enumerate(cells) for _ in range(cell.count(old))]
            if len(where) != 1:
                raise ValueError(
                    f"sabotage {self.why!r}: the text to replace must occur exactly once in the chapter's "
                    f"code, it occurs {len(where)} times: {old!r}"
                )
            cells[where[0]] = cells[where[0]].replace(old, new)
            changed.update(where)
        return cells, changed


@dataclass(frozen=True)
class Plan:
    """The sabotages of one chapter."""

    sabotages: tuple[Sabotage, ...] = ()
    not_sabotaged_here: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """The code of a notebook and the claims that it makes."""

    name: str
    folder: Path
    cells: tuple[str, ...]  # the sources of the code cells
    cell_of: dict[str, int]  # claim id -> index of the cell that makes it
    verdicts: dict[str, str]  # claim id -> stored verdict


@dataclass(frozen=True)
class Outcome:
    """What came of running some cells."""

    verdicts: dict[str, str]
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What came of one sabotage; ``problem`` is empty where every claim fell."""

    sabotage: Sabotage
    cells: int
    seconds: float
    problem: str = ""
    unobservable: tuple[str, ...] = ()  # claims that this machine can't decide, so nothing can refute them here

    def __str__(self) -> str:
        fate = "FAILED " if self.problem else "skipped" if self.unobservable else "refuted"
        line = f"{fate} {self.seconds:6.1f} s {self.cells:3} cells  {', '.join(self.sabotage.refutes)}"
        note = f" [not observable on this machine: {', '.join(self.unobservable)}]" if self.unobservable else ""
        return f"{line}  ({self.sabotage.why}){note}" + (f"\n{self.problem}" if self.problem else "")


# Reading a chapter and its plan.


def read_chapter(path: str | Path) -> Chapter:
    """The code cells of a notebook and its claims: those in the code, and those among the stored outputs."""
    path = Path(path).resolve()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells, cell_of, verdicts = [], {}, {}
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        for id in _literal_claims(source):
            cell_of[id] = len(cells)
        for output in cell["outputs"]:
            if stored := output.get("data", {}).get(MIME):
                cell_of[stored["id"]] = len(cells)
                verdicts[stored["id"]] = stored["verdict"]
        cells.append(source)
    return Chapter(path.stem, path.parent, tuple(cells), cell_of, verdicts)


def read_plan(path: str | Path) -> Plan:
    """The sabotages of one TOML file; an absent file has none.

    Raises:
        ValueError: if the file is not of the form that this module's docstring shows.
    """
    path = Path(path)
    if not path.exists():
        return Plan()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        _only(content, {"sabotage": list, "not_sabotaged_here": dict}, {}, "the file")
        reasons = content.get("not_sabotaged_here", {})
        _only(reasons, dict.fromkeys(reasons, str), {}, "[not_sabotaged_here]")
        return Plan(tuple(map(_read_sabotage, content.get("sabotage", []))), tuple(reasons))
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def problems(chapter: Chapter, plan: Plan) -> list[str]:
    """What is wrong with a plan, without running it; empty if it fits the chapter."""
    found = []
    for sabotage in plan.sabotages:
        try:
            sabotage.apply(chapter.cells)
        except ValueError as error:
            found.append(str(error))
    covered = {id for sabotage in plan.sabotages for id in sabotage.refutes}
    excused, claims = set(plan.not_sabotaged_here), set(chapter.cell_of)
    for ids, trouble in (
        (claims - covered - excused, "has no sabotage that refutes it"),
        ((covered | excused) - claims, "is named in the sabotage file, and the chapter makes no such claim"),
        (covered & excused, "is both sabotaged and under [not_sabotaged_here]"),
        (
            {id for id in excused & claims if chapter.verdicts.get(id) != UNOBSERVABLE},
            f"is under [not_sabotaged_here], and its stored verdict is not {UNOBSERVABLE!r}",
        ),
    ):
        found += [f"claim {id!r} {trouble}" for id in sorted(ids)]
    return [f"{chapter.name}: {trouble}" for trouble in found]


def _read_sabotage(table: dict) -> Sabotage:
    if not isinstance(table, dict):
        raise ValueError(f"a sabotage must be a table [[sabotage]]; got {table!r}")
    name = f"sabotage {table.get('why', '(without why)')!r}"
    if "change" in table:
        _only(table, {"why": str, "refutes": list, "change": list}, {"whole": bool}, name, required=True)
        changes = table["change"]
    else:
        required = {"why": str, "refutes": list, "replace": str, "by": str}
        _only(table, required, {"whole": bool}, name, required=True)
        changes = [{"replace": table["replace"], "by": table["by"]}]
    for change in changes:
        _only(change, {"replace": str, "by": str}, {}, f"a change of {name}", required=True)
        if not change["replace"] or change["replace"] == change["by"]:
            raise ValueError(f"a change of {name} changes nothing: {change['replace']!r} by {change['by']!r}")
    refutes = table["refutes"]
    if not refutes or not changes or not all(isinstance(id, str) for id in refutes):
        raise ValueError(f"{name} needs at least one change and one claim id in refutes; got {refutes!r}")
    return Sabotage(
        table["why"],
        tuple(refutes),
        tuple((c["replace"], c["by"]) for c in changes),
        table.get("whole", False),
    )


def _only(table: dict, keys: dict, optional: dict, where: str, *, required: bool = False) -> None:
    """Check that a TOML table has ``keys``, each of its type, and no unknown ones."""
    known = {**keys, **optional}
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table; got {table!r}")
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"{where} has unknown keys {unknown}; known are {sorted(known)}")
    if required and (missing := sorted(set(keys) - set(table))):
        raise ValueError(f"{where} lacks {missing}")
    for key, value in table.items():
        if not isinstance(value, known[key]):
            raise ValueError(f"{key} of {where} must be a {known[key].__name__}; got {value!r}")


def _literal_claims(source: str) -> Iterable[str]:
    try:
        tree = ast.parse(plain_python(source))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="claim") | ast.Attribute(attr="claim"),
                args=[ast.Constant(value=str(id)), *_],
            ):
                yield id


# Running it.


def apply_all(chapter: Chapter, plan: Plan, *, timeout: float = TIMEOUT) -> list[Result]:
    """Apply each sabotage of a chapter, two at a time; a slice that several share runs unchanged once.

    Raises:
        ValueError: if the plan doesn't fit the chapter.
    """
    if wrong := problems(chapter, plan):
        raise ValueError("\n".join(wrong))
    with ThreadPoolExecutor(PARALLEL) as pool:
        unchanged: dict[tuple[int, ...], Future[Outcome]] = {}

        def start(cells: Sequence[str], chosen: Sequence[int]) -> Future[Outcome]:
            return pool.submit(execute, [(i, cells[i]) for i in chosen], chapter.folder, timeout=timeout)

        jobs = []
        for sabotage in plan.sabotages:
            cells, chosen = slice_of(chapter, sabotage)
            if chosen not in unchanged:
                unchanged[chosen] = start(chapter.cells, chosen)
            jobs.append((sabotage, chosen, unchanged[chosen], start(cells, chosen)))
        return [
            Result(
                sabotage,
                len(chosen),
                after.result().seconds,
                _judge(sabotage, chosen, before.result(), after.result()),
                _unobservable(sabotage, before.result()),
            )
            for sabotage, chosen, before, after in jobs
        ]


def slice_of(chapter: Chapter, sabotage: Sabotage) -> tuple[list[str], tuple[int, ...]]:
    """The changed code, and the indices of the cells to run, which serve the unchanged code as well."""
    cells, changed = sabotage.apply(chapter.cells)
    claims = {chapter.cell_of[id] for id in sabotage.refutes}
    if sabotage.whole:
        return cells, tuple(range(max(claims) + 1))
    targets = claims | {i for i in changed if i <= max(claims)}
    return cells, tuple(sorted({*needed(chapter.cells, targets), *needed(cells, targets)}))


def execute(cells: Sequence[tuple[int, str]], folder: Path, *, timeout: float = TIMEOUT) -> Outcome:
    """Run numbered cells in a fresh process, and read back the verdicts of their claims."""
    with tempfile.TemporaryDirectory(prefix="gpbook-sabotage-") as scratch:
        start = time.monotonic()
        process = _context().Process(target=_run_cells, args=(list(cells), str(folder), scratch))
        process.start()
        try:
            process.join(timeout)
            timed_out = process.is_alive()
        finally:
            _end(process)
        seconds = time.monotonic() - start
        log, verdicts, error = (Path(scratch, name) for name in ("log", "verdicts", "error"))
        found = {}
        if verdicts.exists() and not timed_out:
            found = {c["id"]: c["verdict"] for c in map(json.loads, verdicts.read_text("utf-8").splitlines())}
        problem = ""
        if timed_out:
            problem = f"the cells did not end within {timeout:g} s"
        elif error.exists():
            problem = error.read_text("utf-8")
        elif process.exitcode:
            output = log.read_text("utf-8", errors="replace") if log.exists() else ""
            problem = f"the process ended with exit code {process.exitcode}\n{output[-2000:]}"
        process.close()
    return Outcome(found, seconds, problem)


def _unobservable(sabotage: Sabotage, unchanged: Outcome) -> tuple[str, ...]:
    return tuple(id for id in sabotage.refutes if unchanged.verdicts.get(id) == UNOBSERVABLE)


def _judge(sabotage: Sabotage, chosen: Sequence[int], before: Outcome, after: Outcome) -> str:
    numbers = ", ".join(str(i + 1) for i in chosen)
    unchanged = f"unchanged, code cells {numbers} must see the claims hold (if one is missing, set whole = true)"
    if before.problem:
        return f"{unchanged}: {before.problem}"
    seen = [id for id in sabotage.refutes if id not in _unobservable(sabotage, before)]
    wrong = {id: before.verdicts.get(id, "undecided") for id in seen}
    if wrong := {id: verdict for id, verdict in wrong.items() if verdict != HOLDS}:
        return f"{unchanged}; got {wrong}"
    if after.problem:
        return f"the sabotaged cells must run to their end: {after.problem}"
    left = {id: after.verdicts.get(id, "undecided") for id in seen}
    left = {id: verdict for id, verdict in left.items() if verdict != REFUTED}
    return f"must be refuted under this sabotage; got {left}" if left else ""


def _context() -> multiprocessing.context.BaseContext:
    """Processes that fork from one which has imported the slow libraries, and has not used them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End a run, and whatever processes its cells started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def _run_cells(cells: list[tuple[int, str]], folder: str, scratch: str) -> None:
    """In the new process: run the cells in an IPython shell that shows nothing."""
    os.setsid()  # a process group of its own, which ends as one
    log = os.open(Path(scratch, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.pop("GPBOOK_GUARD", None)
    os.environ.update(GPBOOK_VERDICTS=str(Path(scratch, "verdicts")), IPYTHONDIR=scratch, MPLBACKEND="agg")
    os.chdir(folder)
    sys.path.insert(0, "")
    try:
        _run_in_shell(cells)
    except BaseException as error:  # KeyboardInterrupt and SystemExit of a cell are failures like any other
        Path(scratch, "error").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        raise SystemExit(1) from None


def _run_in_shell(cells: list[tuple[int, str]]) -> None:
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
    for number, source in cells:
        result = shell.run_cell(source)
        if error := result.error_before_exec or result.error_in_exec:
            error.add_note(f"in code cell {number + 1}")
            raise error


def main(arguments: list[str] | None = None) -> int:
    """Apply a chapter's sabotages and print what each does. Exit status 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m book.sabotage", description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("claim", nargs="*", help="only the sabotages that refute one of these claims")
    options = parser.parse_args(arguments)
    try:
        chapter, plan = read_chapter(options.notebook), read_plan(PLANS / f"{options.notebook.stem}.toml")
        if unknown := set(options.claim) - set(chapter.cell_of):
            known = ", ".join(chapter.cell_of)
            raise ValueError(f"{chapter.name} makes no claim {', '.join(sorted(unknown))}; it makes {known}")
        if options.claim:
            chosen = [s for s in plan.sabotages if set(s.refutes) & set(options.claim)]
            cells = {id: cell for id, cell in chapter.cell_of.items() if any(id in s.refutes for s in chosen)}
            chapter, plan = replace(chapter, cell_of=cells), Plan(tuple(chosen))
        results = apply_all(chapter, plan)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(*results, sep="\n")
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main())
