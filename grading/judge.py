"""Decides marks: compares what a submission's marked cells emitted with what the solution's did, in the same run."""

from __future__ import annotations

from dataclasses import dataclass

from gpbook_utils import answers
from grading import notebooks


@dataclass(frozen=True)
class Mark:
    """The outcome of one marked cell.

    Attributes:
        score: its points, 0, or ``None`` if a person has to decide.
        why: what the student is told.
        strange: something that an honest program does not do; otherwise empty.
    """

    score: float | None
    why: str
    strange: str = ""


def emitted(cell) -> list:
    """Everything that a cell displayed as an answer, unread."""
    bundles = [output.get("data", {}) for output in cell.outputs if output.output_type == "display_data"]
    return [bundle[answers.MIME] for bundle in bundles if isinstance(bundle, dict) and answers.MIME in bundle]


def expected(source, executed) -> dict:
    """The solution's answers, by grade id and value.

    Raises:
        ValueError: if the executed source does not answer all its marked cells, each value with a rule.
    """
    found = {}
    for name, cell in notebooks.probes(source).items():
        ran = notebooks.probes(executed)[name]
        given = emitted(ran)
        rules = cell.metadata.get("gpbook", {}).get("answers", {})
        if len(given) != 1 or given[0]["name"] != name or set(given[0]["values"]) != set(rules):
            failed = next((f"{o.ename}: {o.evalue}" for o in ran.outputs if o.output_type == "error"), "no such answer")
            raise ValueError(f"the solution does not answer {name} as its rules {sorted(rules)} say ({failed})")
        found[name] = given[0]["values"]
    return found


def marks(source, executed, wanted: dict) -> dict[str, Mark]:
    """A mark for every marked cell of ``source``.

    Args:
        source: the assignment's notebook.
        executed: the submission, merged with the source and run.
        wanted: what :func:`expected` says of the solution.
    """
    ran = notebooks.probes(executed)
    return {name: _mark(name, cell, ran[name], wanted[name]) for name, cell in notebooks.probes(source).items()}


def _mark(name, cell, ran, wanted) -> Mark:
    error = next((output for output in ran.outputs if output.output_type == "error"), None)
    given = emitted(ran)
    if len(given) > 1:
        return Mark(0.0, "There was more than one answer.", f"{name} gave {len(given)} answers")
    if error is not None:
        return Mark(0.0, f"The cell failed: {error.ename}: {_cut(error.evalue)}")
    if not given:
        return Mark(0.0, "There was no answer.")
    data = given[0]
    if not isinstance(data, dict) or data.get("name") != name or not isinstance(data.get("values"), dict):
        return Mark(0.0, "The answer cannot be read.", f"{name} gave something that the book's answer() does not write")
    judged = {key: answers.judge(data["values"].get(key), wanted[key], rule) for key, rule in _rules(cell).items()}
    verdicts = {verdict for verdict, _ in judged.values()}
    why = "; ".join(f"{key} {reason}" for key, (_, reason) in judged.items() if reason)
    if answers.WRONG in verdicts:
        return Mark(0.0, f"Not right: {why}.")
    if answers.NEAR in verdicts:
        return Mark(None, f"A near miss, which a person looks at: {why}.")
    return Mark(float(cell.metadata.nbgrader.points), "Right.")


def _rules(cell) -> dict:
    return cell.metadata.gpbook.answers


def _cut(text) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= 200 else text[:197] + "..."
