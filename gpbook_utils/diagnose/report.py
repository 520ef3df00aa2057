"""What a diagnosis found, as a table in text and in HTML."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field, replace

import torch

from gpbook_utils.compare import MORE, Comparison, compare, unit_roundoff
from gpbook_utils.diagnose.causes import CAUSES, ROOTS
from gpbook_utils.diagnose.guard import made_errors
from gpbook_utils.diagnose.readings import CALLS, MEAN, Reading, Rounding, Subject, distance

NOTHING = "equal up to rounding: nothing to explain"


@dataclass(frozen=True)
class Finding:
    """One cause.

    Attributes:
        cause: a short stable name, a key of ``gpbook_utils.diagnose.causes.CAUSES``.
        where: dotted path in the model; empty for the model as a whole.
        a: what the first model has; in :func:`check_model`, what the model has.
        b: what the second model has; in :func:`check_model`, what it would have without the fault.
        effect: for each quantity that it moves, by how much relative to it: the largest of the changes seen when only
            this was exchanged, in either model, and when it was exchanged after the others. Infinity where a quantity
            changes its shape or cannot be computed.
        detail: what was measured beyond that, or empty.
    """

    cause: str
    where: str
    a: str
    b: str
    effect: dict[str, float] = field(default_factory=dict)
    detail: str = ""

    @property
    def explanation(self) -> str:
        """Why it makes a difference."""
        return CAUSES[self.cause].explanation + (f" {self.detail}" if self.detail else "")

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CAUSES[self.cause].remedy

    @property
    def chapter(self) -> int:
        """The chapter that measures it."""
        return CAUSES[self.cause].chapter

    @property
    def size(self) -> float:
        """The largest of the effects."""
        return max(self.effect.values(), default=0.0)


@dataclass(frozen=True)
class Quantity:
    """One quantity on the ruler: ``before``, ``after`` all findings were removed, and the ``level`` of rounding.

    ``before`` and ``after`` are a :class:`gpbook_utils.compare.Comparison`, or a sentence where the two could not be
    compared; ``level`` is the relative difference that rounding explains.
    """

    before: Comparison | str
    after: Comparison | str
    level: float


@dataclass(frozen=True)
class Report:
    """What a diagnosis found.

    Attributes:
        findings: the causes, most influential first; those that make others, such as shared parameters, before all.
        quantities: for each quantity its :class:`Quantity`.
        unexplained: for each quantity the relative difference that is left, where that is more than rounding.
        rounding: format, condition number and level of rounding.
        notes: what else the reader should know, such as rows of x that were left out.
        title: what was diagnosed.
    """

    findings: tuple[Finding, ...]
    quantities: dict[str, Quantity]
    unexplained: dict[str, float]
    rounding: Rounding
    notes: tuple[str, ...] = ()
    title: str = ""

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.findings:
            rest = f"; unexplained: {_sizes(self.unexplained)}" if self.unexplained else ""
            return f"{len(self.findings)} cause{'s' * (len(self.findings) > 1)} found{rest}"
        if self.unexplained:
            return f"no cause found; unexplained: {_sizes(self.unexplained)}"
        return NOTHING

    def _level(self) -> str:
        levels = self.rounding.levels
        most = "at most " if self.rounding.bounded else ""
        dtype = str(self.rounding.dtype).removeprefix("torch.")
        text = f"{dtype}, condition number {most}{self.rounding.condition_number:.1e}"
        return f"{text}; rounding explains relative differences up to {_sizes(levels)}" if levels else text

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (str(number), f.cause, f.where or "(model)", f.a, f.b, _sizes(f.effect) or "-")
            for number, f in enumerate(self.findings, 1)
        ]

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.verdict}", f"({self._level()})"]
        if self.findings:
            head = ("", "cause", "where", "a", "b", "moves (relative)")
            table = [head, *self._rows()]
            widths = [min(40, max(len(row[i]) for row in table)) for i in range(len(head) - 1)]
            lines.append("")
            for row in table:
                cells = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=False)]
                lines.append("  ".join([*cells, row[-1]]).rstrip())
            lines.append("")
            for number, f in enumerate(self.findings, 1):
                lines.append(f"{number}. {f.explanation} Remedy: {f.remedy} (chapter {f.chapter})")
        if self.quantities:
            lines.append("")
            width = max(map(len, self.quantities))
            for name, quantity in self.quantities.items():
                after = f" -> {_reading(quantity.after)}" if self.findings else ""
                lines.append(f"{name.ljust(width)}  {_reading(quantity.before)}{after}")
        lines += [f"Note: {note}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        escape = html.escape
        parts = [f'<p class="gp-heard">{escape(self.title)}: <strong>{escape(self.verdict)}</strong></p>']
        for number, f in enumerate(self.findings, 1):
            where = f"<code>{escape(f.where)}</code>" if f.where else "the model as a whole"
            why = f"{f.explanation} (chapter {f.chapter})"
            rows = (("a", f.a), ("b", f.b), ("moves", _sizes(f.effect)), ("why", why), ("remedy", f.remedy))
            details = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows if text)
            parts.append(
                f'<div class="gp-finding"><strong>{number}. {escape(f.cause)}</strong> at {where}'
                f'<dl class="gp-measured">{details}</dl></div>'
            )
        if self.quantities:
            names = ("quantity", "difference", *(("afterwards",) if self.findings else ()), "rounding explains")
            parts.append(
                '<table class="gp-table"><thead><tr>'
                + "".join(f'<th scope="col" style="text-align: left">{name}</th>' for name in names)
                + "</tr></thead><tbody>"
                + "".join(self._row(name, quantity) for name, quantity in self.quantities.items())
                + "</tbody></table>"
            )
        dtype = str(self.rounding.dtype).removeprefix("torch.")
        said = f"Relative differences; {dtype}, condition number {self.rounding.condition_number:.1e}."
        parts += [f'<p class="gp-aside">{escape(text)}</p>' for text in (said, *self.notes)]
        return f'<div class="gp-report">{"".join(parts)}</div>'

    def _row(self, name: str, quantity: Quantity) -> str:
        cells = [_short(quantity.before), *([_short(quantity.after)] if self.findings else []), f"{quantity.level:.1e}"]
        left = ' style="text-align: left"'  # JupyterLab sets table cells flush right
        return (
            f'<tr><th scope="row"{left}>{html.escape(name)}</th>'
            + "".join(f"<td{left}>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        # In a notebook the plain text is compared between machines, so it carries causes and no digits.
        causes = "\n".join(f"{n}. {f.cause} at {f.where or '(model)'}" for n, f in enumerate(self.findings, 1))
        left = "something is left unexplained" if self.unexplained else ""
        plain = "\n".join(filter(None, (causes, left))) or NOTHING
        return {"text/plain": plain, "text/html": self._repr_html_()}


def ranked(findings: list[Finding]) -> tuple[Finding, ...]:
    """Most influential first; causes that make other differences before all."""

    def key(finding: Finding):
        root = ROOTS.index(finding.cause) if finding.cause in ROOTS else len(ROOTS)
        # Of two that move as much, the one that has a name of its own comes first.
        return root, -min(finding.size, 1e300) * (0.99 if finding.cause == "setting" else 1.0)

    return tuple(sorted(findings, key=key))


def others_failed(side: Subject, reading: Reading) -> list[str]:
    """A note for each quantity that could not be computed although the posterior could."""
    if MEAN in reading.failures:
        return []
    others = {name: text for name, text in reading.failures.items() if name not in CALLS}
    return [f"the {name} of {side.name} raised {text}" for name, text in others.items()]


def with_warnings(report: Report, sides: list[Subject], readings: list[Reading]) -> Report:
    """The report with a note for each warning that the caller's filters make an error: it was not one here."""
    notes = [
        f"{side.name} warns {text}; your warning filters make an error of it, this diagnosis did not"
        for side, reading in zip(sides, readings, strict=True)
        for text in made_errors(reading.warnings)
    ]
    return replace(report, notes=(*report.notes, *notes))


def quantity(
    name: str, before: tuple[Reading, Reading], after: tuple[Reading, Reading], rounding: Rounding
) -> Quantity:
    """One quantity of two readings on the ruler, before and after."""
    level = rounding.levels.get(name, 0.0)
    return Quantity(*(_compared(name, *pair, level, rounding.dtype) for pair in (before, after)), level)


def _compared(name: str, a: Reading, b: Reading, level: float, dtype: torch.dtype) -> Comparison | str:
    if name in a.failures and name in b.failures:
        return f"both raised {_cut(a.failures[name], 120)}"
    for side, reading in (("a", a), ("b", b)):
        if name in reading.failures:
            return f"{side} raised {_cut(reading.failures[name], 120)}"
    p, q = a.values.get(name), b.values.get(name)
    if p is None and q is None:
        return "neither has it"
    if p is None or q is None:
        return "only one of the two has it"
    if p.shape != q.shape:
        return f"different shapes: {tuple(p.shape)} and {tuple(q.shape)}"
    if math.isinf(distance(name, a, b)) or not torch.isfinite(p).all():
        return "NaN or infinite entries"
    flat_p, flat_q = (value.reshape(-1, value.shape[-1]) if value.dim() > 1 else value.reshape(-1) for value in (p, q))
    norm = max(float(flat_p.norm()), float(flat_q.norm()))
    # Chosen so that the ruler's bound is this quantity's level.
    scale = max(level * norm / (2 * unit_roundoff(dtype)), torch.finfo(torch.float64).tiny)
    return compare(flat_p, flat_q, size=1, scale=scale if math.isfinite(scale) else None, computed_in=dtype)


def _reading(comparison: Comparison | str) -> str:
    if isinstance(comparison, str) or comparison.equal:
        return str(comparison)
    return f"{comparison.verdict}: relative {comparison.relative:.1e}"


def _short(comparison: Comparison | str) -> str:
    """The same in a table that shows the level of rounding beside it."""
    if isinstance(comparison, str) or comparison.equal:
        return str(comparison)
    return f"{comparison.relative:.1e}" + ("" if comparison.verdict == MORE else ", rounding")


def _sizes(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} {'all' if math.isinf(size) else format(size, '.1e')}" for name, size in sizes.items())


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
