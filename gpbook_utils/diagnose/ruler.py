"""Two readings on the ruler of :mod:`gpbook_utils.compare`, and what of them a report is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from gpbook_utils.compare import EQUAL, MORE, ROUNDING, Comparison, compare
from gpbook_utils.diagnose.causes import ROOTS
from gpbook_utils.diagnose.guard import made_errors, told
from gpbook_utils.diagnose.naming import cut
from gpbook_utils.diagnose.readings import ALL, CALLS, MEAN, Reading, Subject, distance
from gpbook_utils.diagnose.report import SIDES, Finding, Quantity, Report
from gpbook_utils.diagnose.rounding import Rounding


def ranked(findings: Iterable[Finding], roots: tuple[str, ...] = ROOTS) -> tuple[Finding, ...]:
    """Most influential first; causes that make other differences, ``roots``, before all."""

    def key(finding: Finding) -> tuple[int, float]:
        root = roots.index(finding.cause) if finding.cause in roots else len(roots)
        # Of two that move as much, the one that has a name of its own comes first.
        return root, -min(finding.size, 1e300) * (0.99 if finding.cause == "setting" else 1.0)

    return tuple(sorted(findings, key=key))


def missing(shown: Iterable[str], *readings: Reading) -> dict[str, str]:
    """What was not compared of these readings, and why."""
    found: dict[str, str] = {}
    for name in ALL:
        if name in CALLS or name in shown and all(name in reading.values for reading in readings):
            continue
        for reading in readings:
            why = reading.absent.get(name) or reading.failures.get(name)
            if why and name not in found:
                found[name] = cut(why, 200)
    return found


def others_failed(side: Subject, reading: Reading) -> list[str]:
    """A note for each quantity that could not be computed although the posterior could."""
    if MEAN in reading.failures:
        return []
    others = {name: text for name, text in reading.failures.items() if name not in CALLS}
    return [f"the {name} of {side.name} raised {text}" for name, text in others.items()]


def with_warnings(report: Report, sides: list[Subject], readings: list[Reading]) -> Report:
    """The report with a note of what the libraries warned, and of each warning that the caller's filters make an error.

    The latter were none here.
    """
    notes = []
    for side, reading in zip(sides, readings, strict=True):
        errors = made_errors(reading.warnings)
        notes += [
            f"{side.name} warns {text}; your warning filters make an error of it, this diagnosis did not"
            for text in errors
        ]
        notes += [f"{side.name} warns {text}" for text in told(reading.warnings) if text not in errors]
        notes += [f"the {name} of {side.name} is {said}" for name, said in reading.said.items() if name not in CALLS]
    return replace(report, notes=(*report.notes, *dict.fromkeys(notes)))


def merged(reports: dict[str, Report], title: str) -> Report:
    """The reports of the members of a list as one; a member's name stands before its paths and quantities."""
    findings = [
        replace(f, where=f"{name}.{f.where}" if f.where else name) for name, r in reports.items() for f in r.findings
    ]
    worst = max((r.rounding for r in reports.values()), key=lambda rounding: rounding.condition_number)

    def named(part: str) -> dict[str, Any]:
        return {f"{name}: {key}": v for name, r in reports.items() for key, v in getattr(r, part).items()}

    notes = [f"{name}: {note}" for name, r in reports.items() for note in r.notes]
    cures = " ".join(f"{name}: {r.cure}" for name, r in reports.items() if r.cure)
    rows = max(r.rows for r in reports.values())
    levels = {f"{name}: {key}": v for name, r in reports.items() for key, v in r.rounding.levels.items()}
    return Report(
        ranked(findings), named("quantities"), named("unexplained"), replace(worst, levels=levels),
        tuple(notes), title, rows, named("missing"), cures, next(iter(reports.values())).sides,
    )  # fmt: skip


Pair = tuple[Reading, Reading]


def quantity(name: str, before: Pair, after: Pair, rounding: Rounding, sides: tuple[str, str] = SIDES) -> Quantity:
    """One quantity of two readings on the ruler, before and after."""
    ends = [_compared(name, *pair, rounding, sides) for pair in (before, after)]
    return Quantity(ends[0], ends[1], rounding.level(name))


def _compared(name: str, a: Reading, b: Reading, rounding: Rounding, sides: tuple[str, str]) -> Comparison | str:
    if name in a.failures and name in b.failures:
        return f"both raised {cut(a.failures[name], 120)}"
    for side, reading in zip(sides, (a, b), strict=True):
        if name in reading.failures:
            return f"{side} raised {cut(reading.failures[name], 120)}"
    p, q = a.values.get(name), b.values.get(name)
    if p is None and q is None:
        return "neither has it"
    if p is None or q is None:
        return "only one of the two has it"
    if p.shape != q.shape:
        return f"different shapes: {tuple(p.shape)} and {tuple(q.shape)}"
    size = distance(name, a, b)
    if math.isinf(size) or not torch.isfinite(p).all():
        return "NaN or infinite entries"
    measured, level = compare(p.reshape(-1), q.reshape(-1), computed_in=rounding.dtype), rounding.level(name)
    # Judged by the measure of causes and levels, not entry by entry.
    verdict = EQUAL if measured.equal else ROUNDING if size <= level else MORE
    return replace(measured, verdict=verdict, relative=size, rounding=level * max(float(p.norm()), float(q.norm())))
