"""Claims: sentences that a notebook cell decides, on whatever machine it runs.

A claim is a sentence of the prose, a link to ``#claim-id``; a cell decides it where the evidence is::

    decide("exact-gp-equal", torch.equal(K_a, K_b))
    decide("float32-error", within(error, 1e-8, 1e-5, reason="the unit roundoff is 6e-8; few roundings add up"))

A decision displays itself. Its plain text is portable: the verdict and the id, and a measured number only when the
claim is refuted. Its HTML adds what this machine measured. A third form, JSON, lets programs read it back.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
import statistics
from dataclasses import asdict, dataclass

from gpbook_utils import arguments

HOLDS, REFUTED, UNOBSERVABLE = VERDICTS = ("holds", "refuted", "not observable here")
FINDING, CHECK = "finding", "check"
MIME = "application/vnd.gpbook.claim+json"
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
class Decision:
    """The check that decided a claim; the sentence of a finding stands in prose, that of a check here."""

    id: str
    sentence: str
    check: Check
    kind: str

    def __repr__(self) -> str:
        check, numbers = self.check, ""
        if check.verdict == REFUTED and check.measured:
            numbers = f" (measured {check.measured}; needed {check.bound})"
        return f"[{check.verdict}] {self.id}{numbers}"

    def to_json(self) -> dict:
        """What is stored in the notebook for programs: every field, flat, in strict JSON."""
        check = asdict(self.check)
        if check["slack"] is not None and not math.isfinite(check["slack"]):
            check["slack"] = None
        return {"id": self.id, "sentence": self.sentence, **check, "kind": self.kind}

    def _repr_html_(self) -> str:
        verdict, check = html.escape(self.check.verdict), self.check
        numbers = [f"{name} {text}" for name, text in (("measured", check.measured), ("bound", check.bound)) if text]
        return (
            f'<div class="gp-decision" data-verdict="{verdict}" id="claim-{self.id}">'
            f'<strong class="gp-verdict">{_MARKS[check.verdict]}{verdict}</strong> <code>{self.id}</code> '
            f"{html.escape('; '.join(numbers) or check.reason)}</div>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: self.to_json()}


def decide(id: str, outcome, *, check: str | None = None) -> None:
    """Decide a sentence of the prose, which links to it as ``[sentence](#claim-id)``, and display the outcome.

    Args:
        id: lower-case words joined by hyphens, unique in the book.
        outcome: a truth value (``bool`` or a zero-dimensional boolean array), or the result of :func:`near`,
            :func:`within`, :func:`below`, :func:`above`, :func:`exponent` or :func:`unobservable`.
        check: for what holds the argument together without a sentence in the prose (a null control, code that equals
            the library's): its sentence, ending with a full stop. It is recorded and sabotaged like a finding.

    Raises:
        ValueError: if an argument is not of that form.
        GuardError: in the author's guard mode (environment variable ``GPBOOK_GUARD``, a factor), if a numeric bound
            holds by less than that factor.

    >>> decide("two-even", 2 % 2 == 0)
    [holds] two-even
    >>> decide("pi-small", below(3.14159, 3, reason="an example that falls"), check="Pi is less than three.")
    [refuted] pi-small (measured 3.14; needed below 3)
    """
    kind = FINDING if check is None else CHECK
    sentence = "" if check is None else _whole(id, check)
    decision = Decision(_id(id), sentence, _outcome(id, outcome), kind)
    found, guard = decision.check, _guard_factor()
    if found.verdict == HOLDS and found.slack is not None and found.slack < guard:
        raise GuardError(
            f"claim {id!r} holds by a factor {found.slack:.2g} only, the guard asks for {guard:g}: "
            f"measured {found.measured}, bound {found.bound}. Widen the bound with a reason, or sharpen the experiment"
        )
    if log := os.environ.get("GPBOOK_VERDICTS"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(decision.to_json(), allow_nan=False) + "\n")
    from IPython.display import display  # here, so that reading verdicts back needs no notebook machinery

    display(decision)


def digest(stored: dict) -> str:
    """A short hash of what was decided: id, kind and bound. A record with another hash is stale.

    A sentence may be worded anew; one that says more than before gets a new id.

    >>> digest({"id": "two-even", "kind": "finding", "bound": ""})
    'c0200cb7fec2'
    """
    arguments.mapping("stored", stored, keys=("id", "kind", "bound"))
    return hashlib.sha256("\n".join([stored["id"], stored["kind"], stored["bound"]]).encode()).hexdigest()[:12]


def _check(holds: bool, measured: str, bound: str, reason: str, slack: float) -> Check:
    arguments.line(f"the reason of the bound {bound!r}", reason)
    return Check(HOLDS if holds else REFUTED, measured, bound, reason, slack)


def _measured(value) -> float:
    """May be NaN or infinite, since a sabotaged cell may measure that."""
    return arguments.real("measured", value, finite=False)


def _id(id) -> str:
    joined = isinstance(id, str) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id)
    return arguments.need(joined, "id", "lower-case words joined by hyphens, such as 'exact-gp-equal'", id)


def _whole(id: str, sentence) -> str:
    if not arguments.line(f"the check of claim {id!r}", sentence).endswith("."):
        raise ValueError(f"the check of claim {id!r} must end with a full stop; got {sentence!r}")
    return sentence


def _outcome(id: str, outcome) -> Check:
    if isinstance(outcome, Check):
        return outcome
    is_boolean_scalar = getattr(outcome, "ndim", None) == 0 and str(getattr(outcome, "dtype", "")).endswith("bool")
    if isinstance(outcome, bool) or is_boolean_scalar:
        return Check(HOLDS if outcome else REFUTED)
    raise ValueError(
        f"the outcome of claim {id!r} must be a truth value, near(...), within(...) or the like; "
        f"got {type(outcome).__name__}: {arguments.short(outcome)}"
    )


def _guard_factor() -> float:
    text = os.environ.get("GPBOOK_GUARD") or "0"
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"the environment variable GPBOOK_GUARD must be a number such as 3; got {text!r}")
    return float(text)
