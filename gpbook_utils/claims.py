"""Claims: sentences that a notebook cell decides, on whatever machine it runs.

A claim is a sentence of the prose, a link to ``#claim-id``; a cell decides it where the evidence is::

    decide("exact-gp-equal", torch.equal(K_a, K_b))
    decide("float32-error", within(error, 1e-8, 1e-5, reason="the unit roundoff is 6e-8; few roundings add up"))

A decision displays itself. Its plain text is portable: the verdict and the id, and a measured number only when the
claim is refuted. Its HTML adds what this machine measured. A third form, JSON, lets programs read it back. Chapters of
the first edition's form carry their sentences in the code: ``claim(id, sentence, check)``.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gpbook_utils import arguments

HOLDS, REFUTED, UNOBSERVABLE = VERDICTS = ("holds", "refuted", "not observable here")
FINDING, CHECK = "finding", "check"
MIME = "application/vnd.gpbook.claim+json"
LEFT = '<td style="text-align: left">'  # JupyterLab sets table cells flush right
_MARKS = {HOLDS: "✓ ", REFUTED: "✗ ", UNOBSERVABLE: "○ "}  # seen without colour, and without the book's styles


class GuardError(AssertionError):
    """A claim holds, but so narrowly that another machine could refute it (author's guard mode only)."""


@dataclass(frozen=True)
class Check:
    """The outcome of comparing a measurement with a bound.

    ``verdict`` is one of *holds*, *refuted* and *not observable here*; ``slack`` is the factor by which the
    measurement, or for :func:`near` its error, may still move before the verdict changes (``None`` without a number).
    """

    verdict: str
    measured: str = ""
    bound: str = ""
    reason: str = ""
    slack: float | None = None


def near(measured, reference: float, *, rtol: float, reason: str) -> Check:
    """The measured number equals ``reference`` within the relative tolerance ``rtol``.

    >>> near(51.62, 51.6, rtol=1e-2, reason="the next term of the series is a hundredth").verdict
    'holds'
    """
    measured, reference = _measured(measured), arguments.real("reference", reference)
    rtol = arguments.real("rtol", rtol, above=0)
    if reference == 0:
        raise ValueError("reference must not be zero in near(); use below() instead")
    error = abs(measured - reference) / abs(reference)
    slack = rtol / error if error > 0 else math.inf
    return _check(error <= rtol, f"{measured:.6g}", f"{reference:g} within {rtol:g} relative", reason, slack)


def within(measured, low: float, high: float, *, reason: str) -> Check:
    """The measured positive number lies in the band from ``low`` to ``high``.

    >>> within(3e-7, 1e-8, 1e-5, reason="a few units in the last place").slack > 3
    True
    """
    measured, low = _measured(measured), arguments.real("low", low, above=0)
    high = arguments.real("high", high, above=low)
    slack = min(measured / low, high / measured) if measured > 0 else 0.0
    return _check(low <= measured <= high, f"{measured:.3g}", f"{low:g} to {high:g}", reason, slack)


def below(measured, bound: float, *, reason: str) -> Check:
    """The measured number is smaller than the positive ``bound``.

    >>> below(2e-16, 1e-12, reason="n times the unit roundoff").verdict
    'holds'
    """
    measured, bound = _measured(measured), arguments.real("bound", bound, above=0)
    slack = bound / measured if measured > 0 else math.inf
    return _check(measured < bound, f"{measured:.3g}", f"below {bound:g}", reason, slack)


def above(measured, bound: float, *, reason: str) -> Check:
    """The measured number is larger than the positive ``bound``.

    >>> above(0.06, 1e-3, reason="probes are drawn anew at every call").verdict
    'holds'
    """
    measured, bound = _measured(measured), arguments.real("bound", bound, above=0)
    return _check(measured > bound, f"{measured:.3g}", f"above {bound:g}", reason, measured / bound)


def exponent(x, y, expected: float, *, tol: float, reason: str) -> Check:
    """The exponent p of a law y = c·x^p, by least squares on the logarithms, lies within ``tol`` of ``expected``.

    Args:
        x: at least three positive numbers, not all equal.
        y: as many numbers; a law is refuted if one is not positive.
        expected: the exponent of the law.
        tol: the largest error.
        reason: a mechanism or a derivation.

    >>> exponent([1, 10, 100], [2, 200, 20000], 2, tol=0.1, reason="y is twice the square of x").measured
    '2'
    """
    expected, tol = arguments.real("expected", expected), arguments.real("tol", tol, above=0)
    xs = [arguments.real(f"x[{n}]", value, above=0) for n, value in enumerate(arguments.items("x", x))]
    ys = [arguments.real(f"y[{n}]", value, finite=False) for n, value in enumerate(arguments.items("y", y))]
    arguments.need(len(set(xs)) > 1 and len(xs) > 2, "x", "at least three numbers, not all equal", xs)
    arguments.need(len(ys) == len(xs), "y", f"{len(xs)} numbers, one for each x", ys)
    found = all(0 < number < math.inf for number in ys)  # where nothing moved there is no law
    slope = statistics.linear_regression(*([math.log(n) for n in ns] for ns in (xs, ys))).slope if found else math.nan
    error = abs(slope - expected)
    slack = tol / error if error > 0 else math.inf
    return _check(error <= tol, f"{slope:.3g}", f"exponent {expected:g} within {tol:g}", reason, slack)


def unobservable(reason: str) -> Check:
    """This machine can't decide the claim: no GPU, one core, an instruction set that it lacks.

    >>> unobservable("no GPU").verdict
    'not observable here'
    """
    return Check(UNOBSERVABLE, reason=arguments.line("reason", reason))


@dataclass(frozen=True)
class Claim:
    """A sentence with its id and the check that decided it."""

    id: str
    sentence: str
    check: Check

    def __repr__(self) -> str:
        return f"[{self.check.verdict}] {self.id}: {self.sentence}{self._detail()}"

    def _detail(self) -> str:
        """What a refuted claim measured."""
        if self.check.verdict != REFUTED or not self.check.measured:
            return ""
        return f" (measured {self.check.measured}; needed {self.check.bound})"

    def to_json(self) -> dict:
        """What is stored in the notebook for programs: every field, flat, in strict JSON."""
        check = asdict(self.check)
        if check["slack"] is not None and not math.isfinite(check["slack"]):
            check["slack"] = None
        return {"id": self.id, "sentence": self.sentence, **check}

    def _repr_html_(self) -> str:
        verdict, check = html.escape(self.check.verdict), self.check
        rows = [("measured here", check.measured), ("bound", check.bound), ("why", check.reason)]
        details = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows if text)
        return (
            f'<div class="gp-claim" data-verdict="{verdict}" id="claim-{self.id}">'
            f'<strong class="gp-verdict">{_MARKS[check.verdict]}{verdict}</strong> '
            f'<span class="gp-sentence">{html.escape(self.sentence)}</span>'
            + (f'<dl class="gp-measured">{details}</dl>' if details else "")
            + "</div>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: self.to_json()}


@dataclass(frozen=True)
class Decision(Claim):
    """An outcome whose sentence stands in prose, or, for a check, here."""

    kind: str

    def __repr__(self) -> str:
        return f"[{self.check.verdict}] {self.id}{self._detail()}"

    def to_json(self) -> dict:
        """As for a claim, and with the kind."""
        return {**super().to_json(), "kind": self.kind}

    def _repr_html_(self) -> str:
        verdict, check = html.escape(self.check.verdict), self.check
        numbers = [f"{name} {text}" for name, text in (("measured", check.measured), ("bound", check.bound)) if text]
        return (
            f'<div class="gp-decision" data-verdict="{verdict}" id="claim-{self.id}">'
            f'<strong class="gp-verdict">{_MARKS[check.verdict]}{verdict}</strong> <code>{self.id}</code> '
            f"{html.escape('; '.join(numbers) or check.reason)}</div>"
        )


_decided: dict[str, Claim] = {}


def claim(id: str, sentence: str, check) -> None:
    """Decide a claim and display it.

    Args:
        id: lower-case words joined by hyphens, unique in the book. Deciding the same id again replaces the claim.
        sentence: one sentence, ending with a full stop.
        check: a truth value (``bool`` or a zero-dimensional boolean array), or the result of :func:`near`,
            :func:`within`, :func:`below`, :func:`above` or :func:`unobservable`.

    Raises:
        ValueError: if an argument is not of that form.
        GuardError: in the author's guard mode (environment variable ``GPBOOK_GUARD``, a factor), if a numeric bound
            holds by less than that factor.

    >>> claim("two-is-even", "Two is even.", 2 % 2 == 0)
    [holds] two-is-even: Two is even.
    >>> claim("pi-small", "Pi is less than three.", below(3.14159, 3, reason="an example of a claim that falls"))
    [refuted] pi-small: Pi is less than three. (measured 3.14; needed below 3)
    """
    _settle(Claim(_id(id), _whole("sentence", id, sentence), _outcome("check", id, check)))


def decide(id: str, outcome, *, check: str | None = None) -> None:
    """Decide a sentence of the prose, which links to it as ``[sentence](#claim-id)``, and display the outcome.

    Args:
        id: lower-case words joined by hyphens, unique in the book. Deciding the same id again replaces the decision.
        outcome: a truth value (``bool`` or a zero-dimensional boolean array), or the result of :func:`near`,
            :func:`within`, :func:`below`, :func:`above`, :func:`exponent` or :func:`unobservable`.
        check: for what holds the argument together without a sentence in the prose (a null control, code that equals
            the library's): its sentence, ending with a full stop. It is recorded and sabotaged like a finding.

    Raises:
        ValueError, GuardError: as :func:`claim`.

    >>> decide("two-even", 2 % 2 == 0)
    [holds] two-even
    >>> decide("pi-small", below(3.14159, 3, reason="an example that falls"), check="Pi is less than three.")
    [refuted] pi-small (measured 3.14; needed below 3)
    """
    kind = FINDING if check is None else CHECK
    sentence = "" if check is None else _whole("check", id, check)
    _settle(Decision(_id(id), sentence, _outcome("outcome", id, outcome), kind))


def _settle(decided: Claim) -> None:
    """Keep, log and display a decision, unless the guard finds it too narrow."""
    id, check, guard = decided.id, decided.check, _guard_factor()
    if check.verdict == HOLDS and check.slack is not None and check.slack < guard:
        raise GuardError(
            f"claim {id!r} holds by a factor {check.slack:.2g} only, the guard asks for {guard:g}: "
            f"measured {check.measured}, bound {check.bound}. Widen the bound with a reason, or sharpen the experiment"
        )
    _decided[id] = decided
    if log := os.environ.get("GPBOOK_VERDICTS"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(decided.to_json(), allow_nan=False) + "\n")
    _display(decided)


class ClaimTable:
    """Claims as a table: one line a claim in plain text, a table with this machine's numbers in HTML."""

    def __init__(self, claims: Iterable[Claim]):
        self.claims = arguments.items("claims", claims)
        for place, one in enumerate(self.claims):
            arguments.instance(f"claims[{place}]", one, Claim, "a Claim")

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.claims)) or "no claim has been decided yet"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr data-verdict="{c.check.verdict}">'
            f'{LEFT}<strong class="gp-verdict">{_MARKS[c.check.verdict]}{c.check.verdict}</strong></td>'
            f"{LEFT}{html.escape(c.sentence)}</td>{LEFT}{html.escape(c.check.measured)}</td>"
            f"{LEFT}{html.escape(c.check.bound)}</td></tr>"
            for c in self.claims
        )
        names = ("verdict", "claim", "measured here", "bound")
        head = "".join(f'<th scope="col" style="text-align: left">{name}</th>' for name in names)
        return f'<table class="gp-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def table() -> None:
    """Display every claim that this notebook has decided so far, in the order of the first decision."""
    _display(ClaimTable(_decided.values()))


def digest(stored: dict) -> str:
    """A short hash of what was decided: id, kind and bound. A record with another hash is stale.

    A sentence of the prose may be worded anew; one that says more than before gets a new id. The hash of a claim of the
    first edition's form is made of its sentence and bound.

    >>> digest({"id": "two-even", "kind": "finding", "bound": ""})
    'c0200cb7fec2'
    """
    arguments.mapping("stored", stored, keys=("bound",))
    said = [stored["id"], stored["kind"]] if "kind" in stored else [stored["sentence"]]
    return hashlib.sha256("\n".join([*said, stored["bound"]]).encode()).hexdigest()[:12]


def _check(holds: bool, measured: str, bound: str, reason: str, slack: float) -> Check:
    arguments.line(f"the reason of the bound {bound!r}", reason)
    return Check(HOLDS if holds else REFUTED, measured, bound, reason, slack)


def _measured(value) -> float:
    """May be NaN or infinite, since a sabotaged cell may measure that."""
    return arguments.real("measured", value, finite=False)


def _id(id) -> str:
    joined = isinstance(id, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id)
    return arguments.need(joined, "id", "lower-case words joined by hyphens, such as 'exact-gp-equal'", id)


def _whole(name: str, id: str, sentence) -> str:
    if not arguments.line(f"the {name} of claim {id!r}", sentence).endswith("."):
        raise ValueError(f"the {name} of claim {id!r} must end with a full stop; got {sentence!r}")
    return sentence


def _outcome(name: str, id: str, check) -> Check:
    if isinstance(check, Check):
        return check
    is_boolean_scalar = getattr(check, "ndim", None) == 0 and str(getattr(check, "dtype", "")).endswith("bool")
    if isinstance(check, bool) or is_boolean_scalar:
        return Check(HOLDS if check else REFUTED)
    raise ValueError(
        f"the {name} of claim {id!r} must be a truth value, near(...), within(...) or the like; "
        f"got {type(check).__name__}: {arguments.short(check)}"
    )


def _guard_factor() -> float:
    text = os.environ.get("GPBOOK_GUARD") or "0"
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"the environment variable GPBOOK_GUARD must be a number such as 3; got {text!r}")
    return float(text)


def _display(thing) -> None:
    from IPython.display import display  # here, so that reading verdicts back needs no notebook machinery

    display(thing)
