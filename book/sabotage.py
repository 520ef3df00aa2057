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
    whole = true                  # optional: run from the first cell on, see below
    [[sabotage.change]]           # instead of replace and by: several changes at once
    replace = "a = a.double()"
    by = "a = a.float()"
    [[sabotage.change]]
    replace = "b = b.double()"
    by = "b = b.float()"

    [not_sabotaged_here]          # only claims that are stored as "not observable here"; stands at the end
    gpu-equal = "needs a GPU"

Falling means the verdict *refuted*: an exception is a failure of the test, and so is a text that the chapter
no longer contains. The chapter runs once, unchanged, and every claim must hold there, or be not observable on
this machine, which is reported. Before the first cell that a sabotage changes the process forks (see ``forks``),
and the branch runs the changed cells up to the last of the claims that are to fall. They all share the files
that cells write, and a branch hangs if it computes with several threads after the cells before it did. A sabotage
where one of these matters needs ``whole``.

``python -m book.sabotage chapters/01_name.ipynb [claim ...]`` applies a chapter's sabotages, or those of the
claims named, and says what each does.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from book.forks import Branch, Outcome, run
from gpbook_utils.claims import HOLDS, MIME, REFUTED, UNOBSERVABLE

ROOT = Path(__file__).resolve().parents[1]
PLANS = ROOT / "tests" / "sabotage"
CHAPTERS = ROOT / "chapters"
TIMEOUT = 300.0  # seconds for one cell; a whole chapter takes less than 60 on two quiet cores, and CI is not quiet
LITERAL_CLAIM = re.compile(r"""\bdecide\(\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Sabotage:
    """A change of a chapter's code, and the claims that it must refute."""

    why: str
    refutes: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]  # (text, what replaces it)
    whole: bool = False

    def apply(self, cells: Sequence[str]) -> tuple[list[str], int]:
        """The changed code, and the index of the first cell to run.

        Raises:
            ValueError: if a text to replace doesn't occur exactly once.
        """
        cells, changed = list(cells), []
        for old, new in self.changes:
            where = [i for i, cell in enumerate(cells) for _ in range(cell.count(old))]
            if len(where) != 1:
                raise ValueError(
                    f"sabotage {self.why!r}: the text to replace must occur exactly once in the chapter's "
                    f"code, it occurs {len(where)} times: {old!r}"
                )
            cells[where[0]] = cells[where[0]].replace(old, new)
            changed += where
        return cells, 0 if self.whole else min(changed)


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
class Result:
    """What came of one sabotage; ``problem`` is empty where every claim fell."""

    sabotage: Sabotage
    branch: Branch
    seconds: float
    problem: str
    unobservable: list[str]  # claims that this machine can't decide, so nothing can refute them here

    def __str__(self) -> str:
        fate = "FAILED " if self.problem else "skipped" if self.unobservable else "refuted"
        cells = f"cells {self.branch.first + 1:2} to {self.branch.last + 1:2}"
        note = f" [not observable on this machine: {', '.join(self.unobservable)}]" if self.unobservable else ""
        what = f"{', '.join(self.sabotage.refutes)}  ({self.sabotage.why}){note}"
        return f"{fate} {self.seconds:6.1f} s  {cells}  {what}" + (f"\n{self.problem}" if self.problem else "")


# Reading a chapter and its plan.


def read_chapter(path: str | Path) -> Chapter:
    """The code cells of a notebook and its claims: those in the code, and those among the stored outputs."""
    path = Path(path).resolve()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells, cell_of, verdicts = [], {}, {}
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        cell_of |= dict.fromkeys(LITERAL_CLAIM.findall(source), len(cells))
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
        _check(content, "the file", {}, {"sabotage": list, "not_sabotaged_here": dict})
        reasons = content.get("not_sabotaged_here", {})
        _check(reasons, "[not_sabotaged_here]", dict.fromkeys(reasons, str))
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
    name = f"sabotage {table.get('why', '(without why)')!r}" if isinstance(table, dict) else "a sabotage"
    change = {"replace": str, "by": str}
    several = isinstance(table, dict) and "change" in table
    _check(table, name, {"why": str, "refutes": list, **({"change": list} if several else change)}, {"whole": bool})
    for part in table.get("change", ()):
        _check(part, f"a change of {name}", change)
    changes = tuple((part["replace"], part["by"]) for part in table.get("change", [table]))
    if nothing := [(old, new) for old, new in changes if old in ("", new)]:
        raise ValueError(f"{name} replaces what changes nothing: {nothing}")
    refutes = table["refutes"]
    if not refutes or not changes or not all(isinstance(id, str) for id in refutes):
        raise ValueError(f"{name} needs at least one change and one claim id in refutes; got {refutes!r}")
    return Sabotage(table["why"], tuple(refutes), changes, table.get("whole", False))


def _check(table: dict, where: str, required: dict[str, type], optional: dict[str, type] | None = None) -> None:
    """Check that a TOML table has the required keys and no unknown ones, each of its type."""
    known = required | (optional or {})
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table; got {table!r}")
    if unknown := sorted(set(table) - set(known)):
        raise ValueError(f"{where} has unknown keys {unknown}; known are {sorted(known)}")
    if missing := sorted(set(required) - set(table)):
        raise ValueError(f"{where} lacks {missing}")
    for key, value in table.items():
        if not isinstance(value, known[key]):
            raise ValueError(f"{key} of {where} must be a {known[key].__name__}; got {value!r}")


# Applying it.


def apply_all(chapter: Chapter, plan: Plan, *, timeout: float = TIMEOUT) -> list[Result]:
    """Run a chapter once, and each of its sabotages from the first cell that it changes; two processes at a time.

    A cell may take ``timeout`` seconds.

    Raises:
        ValueError: if the plan doesn't fit the chapter.
    """
    if wrong := problems(chapter, plan):
        raise ValueError("\n".join(wrong))
    if not plan.sabotages:
        return []
    branches = []
    for sabotage in plan.sabotages:
        cells, first = sabotage.apply(chapter.cells)
        branches.append(Branch(cells, first, max(chapter.cell_of[id] for id in sabotage.refutes)))
    before, after = run(chapter.cells, branches, chapter.folder, timeout=timeout)
    return [_judge(*which, before) for which in zip(plan.sabotages, branches, after, strict=True)]


def _judge(sabotage: Sabotage, branch: Branch, after: Outcome, before: Outcome) -> Result:
    unobservable = [id for id in sabotage.refutes if before.verdicts.get(id) == UNOBSERVABLE]

    def unless(verdict: str, outcome: Outcome) -> dict[str, str]:
        found = {id: outcome.verdicts.get(id, "undecided") for id in sabotage.refutes if id not in unobservable}
        return {id: got for id, got in found.items() if got != verdict}

    problem = ""
    if before.problem:
        problem = f"the unchanged chapter must run up to the last claim: {before.problem}"
    elif wrong := unless(HOLDS, before):
        problem = f"unchanged, the chapter must see the claims hold; got {wrong}"
    elif after.problem:
        problem = f"the sabotaged cells must run to their end: {after.problem}"
    elif wrong := unless(REFUTED, after):
        problem = f"must be refuted under this sabotage; got {wrong}"
    return Result(sabotage, branch, after.seconds, problem, unobservable)


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
