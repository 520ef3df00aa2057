"""Runs an assignment's cells in this process, with other answers in place of its solutions."""

import contextlib
import io
import warnings
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

import nbformat
import torch

from book import handouts, new_assignment
from gpbook_utils import answers
from grading.notebooks import grade_id

FOLDER = handouts.ASSIGNMENTS
NAMES = handouts.names()
TEMPLATE = new_assignment.TEMPLATE.name  # it passes what every assignment passes


@dataclass
class Assignment:
    """A source notebook by its parts; a question ``q1`` has the cells ``q1``, ``q1_check`` and ``q1_a``, ``q1_b``..."""

    name: str
    cells: list = field(repr=False)

    def role(self, cell) -> str:
        """One of "text", "given", "plain", "solution", "check", "probe", "words"."""
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade"):
            return "probe" if cell.cell_type == "code" else "words"
        if cell.cell_type == "markdown":
            return "text"
        if mark.get("solution"):
            return "solution"
        if not mark.get("locked"):
            return "plain"
        return "check" if mark["grade_id"].endswith("_check") else "given"

    def marked(self, role: str) -> dict:
        """The cells of this role by their grade id."""
        return {c.metadata.nbgrader.grade_id: c for c in self.cells if self.role(c) == role}

    def probes(self, question: str) -> dict:
        return {name: cell for name, cell in self.marked("probe").items() if name.startswith(question + "_")}

    def rules(self, probe: str) -> dict:
        return self.marked("probe")[probe].metadata.get("gpbook", {}).get("answers", {})

    def cells_of(self, question: str) -> list:
        """What is given, and this question's own cells: no other question's answer."""
        own = {question, question + "_check", *self.probes(question)}
        return [c for c in self.cells if self.role(c) == "given" or grade_id(c) in own]


def place(name: str) -> Path:
    """The folder that holds the assignment's notebook."""
    return new_assignment.TEMPLATE if name == TEMPLATE else FOLDER / name


def load(name: str) -> Assignment:
    return Assignment(name, nbformat.read(place(name) / f"{name}.ipynb", as_version=4).cells)


def mutants(name: str):
    """The module ``mutants.py`` of an assignment, with every answer written out.

    There an answer is a text, or a dictionary of changes to the solution.
    """
    spec = util.spec_from_file_location(f"mutants_{name}", place(name) / "mutants.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    solutions = load(name).marked("solution")
    for tried in (module.MUTANTS, module.ACCEPTED):
        for question, given in tried.items():
            right = solutions[question].source
            tried[question] = {what: a if isinstance(a, str) else changed(right, a) for what, a in given.items()}
    return module


def changed(text: str, changes: dict[str, str]) -> str:
    """A text with each key of ``changes``, in their order, replaced by its value.

    Raises:
        ValueError: if one does not occur exactly once.

    >>> changed("a + b", {"a": "2 * a", "+": "-"})
    '2 * a - b'
    """
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(
                f"a change must replace what occurs once; {old!r} occurs {text.count(old)} times in\n{text}"
            )
        text = text.replace(old, new)
    return text


def run(assignment: Assignment, cells=None, instead: dict[str, str] | None = None) -> dict:
    """Execute code cells in a fresh namespace; a cell that fails stops no other, as in the grader.

    Args:
        cells: which; all of them by default.
        instead: source by grade id, in place of the cell's own.

    Returns:
        By grade id: the answer's values for a probe, ``None`` for another cell, and the exception for one that failed.
    """
    found, namespace = {}, {"__name__": "__main__"}
    here, display = Path.cwd(), answers._display
    defaults = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with contextlib.chdir(place(assignment.name)), warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.set_num_threads(1)
            for cell in assignment.cells if cells is None else cells:
                if cell.cell_type == "code":
                    name = grade_id(cell) or cell.id
                    found[name] = _execute((instead or {}).get(name, cell.source), name, namespace)
    finally:
        answers._display = display
        torch.set_default_dtype(defaults[0])
        torch.set_num_threads(defaults[1])
        assert Path.cwd() == here
    return found


def _execute(source, name, namespace):
    emitted = []
    answers._display = lambda shown: emitted.append(shown.bundle[answers.MIME])
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, f"<{name}>", "exec"), namespace)
    except Exception as error:  # whatever a student's answer raises
        return error
    return emitted[0]["values"] if len(emitted) == 1 and emitted[0]["name"] == name else None


def verdicts(got, expected: dict, rules: dict, margin: float = 1.0) -> dict[str, str]:
    """The verdict of every value of one probe; all wrong if the cell failed. ``margin`` widens the tolerances."""
    if not isinstance(got, dict):
        return dict.fromkeys(rules, answers.WRONG)
    wide = {name: {key: min(size * margin, 0.99) for key, size in rule.items()} for name, rule in rules.items()}
    return {name: answers.judge(got.get(name), expected[name], wide[name])[0] for name in rules}


def is_right(got, expected: dict, rules: dict) -> bool:
    return set(verdicts(got, expected, rules).values()) == {answers.RIGHT}


def is_wrong(got, expected: dict, rules: dict) -> bool:
    """Whether some value misses by at least 100 tolerances."""
    return answers.WRONG in verdicts(got, expected, rules, margin=100 / answers.NEAR_MISS).values()
