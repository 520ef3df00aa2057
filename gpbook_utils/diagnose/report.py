"""What a diagnosis found, as text of a hundred columns, as a card in HTML, and as a dictionary."""

from __future__ import annotations

import html
import importlib.metadata
import math
import textwrap
from dataclasses import dataclass, field
from typing import Any

from gpbook_utils.compare import MORE, Comparison
from gpbook_utils.diagnose.causes import CAUSES, PAGES
from gpbook_utils.diagnose.naming import cut
from gpbook_utils.diagnose.rounding import Rounding

NOTHING = "equal up to rounding: nothing to explain"
WIDTH = 100
SIDES = "a", "b"


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
        code: lines that mend it, with the names of the arguments, tried on a copy; empty where there are none.
    """

    cause: str
    where: str
    a: str
    b: str
    effect: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    code: str = ""

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

    @property
    def page(self) -> str:
        """The name of that chapter's page and file."""
        return PAGES[self.chapter]

    def rows(self, sides: tuple[str, str]) -> list[tuple[str, str]]:
        """What a card says below the name of the cause."""
        rows = [(sides[0], cut(self.a, 160)), (sides[1], cut(self.b, 160)), ("moves", sizes(self.effect))]
        rows += [("why", f"{self.explanation} ({self._chapter})"), ("remedy", self.remedy)]
        return [(name, text) for name, text in rows if text]

    @property
    def _chapter(self) -> str:
        return f"chapter {self.chapter}, {self.page}"

    def _linked(self, text: str) -> str:
        """A text in HTML, with the chapter as a link to its page, which lies beside that of chapter 11."""
        link = f'<a href="{self.page}.html">chapter {self.chapter}</a>'
        return html.escape(text).replace(self._chapter, link)


@dataclass(frozen=True)
class Quantity:
    """One quantity on the ruler: ``before``, ``after`` all findings were removed, and the ``level`` of rounding.

    ``before`` and ``after`` are a :class:`gpbook_utils.compare.Comparison`, or a sentence where the two could not be
    compared. Its ``relative``, the effects of causes and ``level``, the relative difference that rounding explains, are
    in one measure: the Frobenius norm of the difference over that of the larger; of a likelihood below one nat, nats.
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
        rows: at how many rows of x.
        missing: what was not compared, and why.
        cure: what the lines of code of all findings do together, tried on a copy.
        sides: what a finding's ``a`` and ``b`` are called.
    """

    findings: tuple[Finding, ...]
    quantities: dict[str, Quantity]
    unexplained: dict[str, float]
    rounding: Rounding
    notes: tuple[str, ...] = ()
    title: str = ""
    rows: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    cure: str = ""
    sides: tuple[str, str] = SIDES

    @property
    def compared(self) -> tuple[str, ...]:
        """The quantities that could be compared."""
        return tuple(n for n, quantity in self.quantities.items() if isinstance(quantity.before, Comparison))

    @property
    def verdict(self) -> str:
        """The result in one line. "Nothing to explain" only of what was compared."""
        parts = []
        if self.findings:
            parts.append(f"{len(self.findings)} cause{'s' * (len(self.findings) > 1)} found")
        if self.unexplained:
            parts.append(("" if parts else "no cause found; ") + f"unexplained: {sizes(self.unexplained)}")
        if not self.compared:
            reasons = [*self.missing.values(), *(str(q.before) for q in self.quantities.values())]
            parts.append(f"nothing could be compared: {reasons[0] if reasons else 'no quantity is known'}")
        elif not parts:
            parts.append(NOTHING if not self.missing else f"equal up to rounding in what was compared; {self._not()}")
        return "; ".join(parts)

    def _told(self) -> dict[str, Quantity]:
        """The quantities to show: what neither model has is among what is not compared."""
        return {n: q for n, q in self.quantities.items() if not str(q.before).startswith(("both raised", "neither"))}

    def _not(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, why in self.missing.items():
            reasons.setdefault(cut(why, 160), []).append(name)
        return "not compared: " + "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())

    def _scope(self) -> list[str]:
        """What was compared, and what was not."""
        lines = []
        if self.compared:
            rows = f" at {self.rows} row{'s' * (self.rows != 1)} of x" if self.rows else ""
            lines.append(f"Compared{rows}: {', '.join(self.compared)}.")
        return lines + ([f"{self._not()[0].upper()}{self._not()[1:]}."] if self.missing else [])

    def _system(self) -> str:
        """What is computed in, and how rounding grows there."""
        most = "at most " if self.rounding.bounded else ""
        return f"{self.rounding.format}, condition number {most}{self.rounding.condition_number:.1e}"

    def _level(self) -> str:
        levels, text = self.rounding.levels, self._system()
        text += f"; rounding explains relative differences up to {sizes(levels)}" if levels else ""
        signed = f"{text}; gpbook {version()}"
        return signed if len(filled(f"({signed})")) == len(filled(f"({text})")) else text

    def __str__(self) -> str:
        lines = [*filled(f"{self.title}: {self.verdict}"), *(line for text in self._scope() for line in filled(text))]
        for number, f in enumerate(self.findings, 1):
            lines += ["", *filled(f"{number}. {f.cause} at {f.where or '(model)'}")]
            width = max(6, *map(len, self.sides))
            for name, text in f.rows(self.sides):
                lines += filled(text, f"   {name:{width}s}  ")
            lines += [f"{' ' * (width + 5)}{line}" for line in f.code.splitlines()]
        lines += ["", *filled(self.cure)] if self.cure else []
        if self._told():
            lines.append("")
            width = max(map(len, self._told()))
            for name, quantity in self._told().items():
                after = f" -> {_reading(quantity.after)}" if self.findings else ""
                lines += filled(f"{_reading(quantity.before)}{after}", f"{name.ljust(width)}  ")
        lines += [line for note in self.notes for line in filled(f"Note: {note}", indent="  ")]
        return "\n".join([*lines, *filled(f"({self._level()})")])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        escape = html.escape
        parts = [f'<p class="gp-heard">{escape(self.title)}: <strong>{escape(self.verdict)}</strong></p>']
        parts += [f'<p class="gp-aside">{escape(text)}</p>' for text in self._scope()]
        for number, f in enumerate(self.findings, 1):
            where = f"<code>{escape(f.where)}</code>" if f.where else "the model as a whole"
            details = "".join(f"<dt>{name}</dt><dd>{f._linked(text)}</dd>" for name, text in f.rows(self.sides))
            details += f"<dt>code</dt><dd><pre>{escape(f.code)}</pre></dd>" if f.code else ""
            parts.append(
                f'<div class="gp-finding"><strong>{number}. {escape(f.cause)}</strong> at {where}'
                f'<dl class="gp-measured">{details}</dl></div>'
            )
        parts += [f"<p>{escape(self.cure)}</p>"] if self.cure else []
        if self._told():
            names = ("quantity", "difference", *(("afterwards",) if self.findings else ()), "rounding explains")
            parts.append(
                '<table class="gp-table"><thead><tr>'
                + "".join(f'<th scope="col" style="text-align: left">{name}</th>' for name in names)
                + "</tr></thead><tbody>"
                + "".join(self._row(name, quantity) for name, quantity in self._told().items())
                + "</tbody></table>"
            )
        said = f"Relative differences; {self._system()}."
        parts += [f'<p class="gp-aside">{escape(text)}</p>' for text in (*self.notes, said)]
        return f'<div class="gp-report">{"".join(parts)}</div>'

    def _row(self, name: str, quantity: Quantity) -> str:
        cells = [_short(quantity.before), *([_short(quantity.after)] if self.findings else []), f"{quantity.level:.1e}"]
        left = ' style="text-align: left"'  # JupyterLab sets table cells flush right
        return (
            f'<tr><th scope="row"{left}>{html.escape(name)}</th>'
            + "".join(f"<td{left}>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # In a notebook the plain text is compared between machines, so it carries causes and no digits.
        causes = "\n".join(f"{n}. {f.cause} at {f.where or '(model)'}" for n, f in enumerate(self.findings, 1))
        left = "something is left unexplained" if self.unexplained else ""
        plain = "\n".join(filter(None, (causes, left))) or self.verdict
        return {"text/plain": plain, "text/html": self._repr_html_()}

    def to_dict(self) -> dict[str, Any]:
        """The report as numbers, texts and lists, which ``json.dumps`` takes; infinity is the text ``"all"``."""
        compared = {
            name: {"before": _plain(q.before), "after": _plain(q.after), "level": _number(q.level)}
            for name, q in self.quantities.items()
        }
        findings = [
            {
                "cause": f.cause, "where": f.where, "a": f.a, "b": f.b, "chapter": f.chapter,
                "effect": {name: _number(size) for name, size in f.effect.items()},
                "explanation": f.explanation, "remedy": f.remedy, "code": f.code,
            }
            for f in self.findings
        ]  # fmt: skip
        rounding = {"dtype": self.rounding.format, "condition number": _number(self.rounding.condition_number)}
        return {
            "title": self.title, "verdict": self.verdict, "rows": self.rows, "compared": list(self.compared),
            "not compared": dict(self.missing), "findings": findings, "cure": self.cure, "quantities": compared,
            "unexplained": {name: _number(size) for name, size in self.unexplained.items()},
            "notes": list(self.notes), "rounding": rounding, "version": version(),
        }  # fmt: skip


def filled(text: str, head: str = "", indent: str = "") -> list[str]:
    """A text in lines of at most a hundred columns, of which the later ones stand below the first one's text."""
    later = indent or " " * len(head)
    return textwrap.wrap(
        head + text, WIDTH, subsequent_indent=later, break_on_hyphens=False, drop_whitespace=True
    ) or [head]  # fmt: skip


def version() -> str:
    """That of this package, if it is installed."""
    try:
        return importlib.metadata.version("gpbook")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _reading(comparison: Comparison | str) -> str:
    if isinstance(comparison, str) or comparison.equal:
        return str(comparison)
    return f"{comparison.verdict}: relative {comparison.relative:.1e}"


def _short(comparison: Comparison | str) -> str:
    """The same in a table that shows the level of rounding beside it."""
    if isinstance(comparison, str) or comparison.equal:
        return str(comparison)
    return f"{comparison.relative:.1e}" + ("" if comparison.verdict == MORE else ", rounding")


def sizes(effect: dict[str, float]) -> str:
    """Effects in a few words."""
    return ", ".join(f"{name} {'all' if math.isinf(size) else format(size, '.1e')}" for name, size in effect.items())


def _number(number: float) -> float | str:
    return number if math.isfinite(number) else "all"


def _plain(comparison: Comparison | str) -> Any:
    if isinstance(comparison, str):
        return comparison
    return {"verdict": comparison.verdict, "relative": _number(comparison.relative)}
