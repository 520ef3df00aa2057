"""Why do two models differ? Differences are exchanged on private copies, and what then goes is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gpbook_utils.diagnose.asking import LARGE, number_of_data
from gpbook_utils.diagnose.causes import ROOTS
from gpbook_utils.diagnose.check import case_of
from gpbook_utils.diagnose.circumstances import ITERATED, RANDOM, STALE
from gpbook_utils.diagnose.contents import HELD
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import Case, beyond_cholesky, moved, reading_after, run, settled
from gpbook_utils.diagnose.guard import undisturbed
from gpbook_utils.diagnose.inputs import both_subjects, paired
from gpbook_utils.diagnose.memory import shared_between
from gpbook_utils.diagnose.numerics import noise_in_code, unknown_noise
from gpbook_utils.diagnose.progress import progress
from gpbook_utils.diagnose.raised import RAISED, message
from gpbook_utils.diagnose.readings import (
    CALLS,
    MEAN,
    POSTERIOR_OF,
    PREDICTIVE,
    Reading,
    Subject,
    distance,
    names,
    read,
)
from gpbook_utils.diagnose.remedies import cured
from gpbook_utils.diagnose.report import Finding, Report
from gpbook_utils.diagnose.rounding import Rounding
from gpbook_utils.diagnose.ruler import merged, missing, others_failed, quantity, ranked, with_warnings
from gpbook_utils.diagnose.scales import SCALED
from gpbook_utils.diagnose.state import differences
from gpbook_utils.diagnose.walk import Change, Difference, joined

# Of one model alone, what its user should hear of even where another model is beside it.
ALONE = tuple(r for r in (*HELD, *SCALED) if r.cause in ("skipped-transform", "other-likelihood", "collapsed-inputs"))


def explain_difference(
    model_a: nn.Module,
    model_b: nn.Module,
    x: Tensor | tuple[Tensor, ...],
    *,
    y: Tensor | None = None,
    likelihood_a: nn.Module | None = None,
    likelihood_b: nn.Module | None = None,
) -> Report:
    """Find the causes for which two GPyTorch models say different things about ``x``.

    On private copies each difference in state is exchanged alone, in both models, and then all of them one after
    the other, and it is measured how much of the difference in each quantity goes. The models are left as they are:
    parameters, modes, caches, gradients, and also the global generators and settings.

    Args:
        model_a: an exact or approximate GP, fitted or not; called as it is, with its mode and caches. Of a model with
            ``posterior``, as BoTorch's, that is what is asked; lists of models are compared member by member.
        model_b: the other one.
        x: inputs of shape (m, d) or (..., m, d), or a tuple of them for a model of several inputs, in the format of
            one of the models. Of more than 1,000 rows, or more than 250,000 divided by the number of training
            points, some are taken, and the report says so.
        y: targets at x of shape (m,), for the ELBO of approximate GPs; without them their KL term is compared.
        likelihood_a: that of ``model_a``, where it is no attribute of it.
        likelihood_b: that of ``model_b``.

    Returns:
        A :class:`Report`: findings, most influential first, and each quantity before and after. Where neither model
        can be evaluated at ``x``, its verdict says so, and why.

    Raises:
        ValueError: if an argument is not what it should be; the message names it, what came and what is needed.

    >>> import torch
    >>> from gpbook_utils.models import ExactModel
    >>> x = torch.linspace(0, 1, 5).unsqueeze(-1)
    >>> model_a, model_b = ExactModel(x, x.squeeze(-1)).eval(), ExactModel(x, x.squeeze(-1)).eval()
    >>> explain_difference(model_a, model_b, x).verdict
    'equal up to rounding: nothing to explain'
    >>> model_b.covar_module.lengthscale = 0.1
    >>> [(finding.cause, finding.where) for finding in explain_difference(model_a, model_b, x).findings]
    [('parameter', 'covar_module.raw_lengthscale')]
    """
    pairs = paired("model_a", model_a, "model_b", model_b, x)
    if pairs:
        reports = {
            p.name.removeprefix("model_a."): explain_difference(
                p.model, q.model, p.x, y=y, likelihood_a=p.likelihood, likelihood_b=q.likelihood
            )
            for p, q in pairs
        }
        return merged(reports, f"two times {len(pairs)} models")
    a, b, notes = both_subjects(model_a, model_b, x, y, likelihood_a, likelihood_b)
    outputs = [getattr(side.model, "num_outputs", 1) for side in (a, b)]
    if outputs[0] != outputs[1]:
        most = max((a, b), key=lambda side: getattr(side.model, "num_outputs", 1)).name
        notes.append(
            f"the models have {outputs[0]} and {outputs[1]} outputs: pass {most}.subset_output([i]) for one of them"
        )
    if model_a is model_b:
        notes.append("model_a and model_b are the same object")
    with undisturbed(), progress():
        before = [read(side, *side.replica().roots) for side in (a, b)]
        report = _Explanation(a, b, before, notes).report()
    return with_warnings(report, [a, b], before)


class _Explanation:
    """Two models, what is read of them, and what is found."""

    def __init__(self, a: Subject, b: Subject, before: list[Reading], notes: list[str]):
        self.a, self.b, self.before, self.notes = a, b, before, notes
        beyond = beyond_cholesky(a, b)
        self.cases = [case_of(side, reading, beyond) for side, reading in zip((a, b), before, strict=True)]
        self.rounding = _joint(*(case.rounding for case in self.cases))
        self.findings: list[Finding] = []
        self.silent = [unknown_noise(side) for side in (a, b)]

    def report(self) -> Report:
        """The steps of a diagnosis: each model by itself, shared memory, then the exchange."""
        for case in self.cases:
            self._alone(case)
        if self.a.model is not self.b.model:
            with settled(self.a, self.b):
                self.findings += shared_between(self.a, self.b, self.cases[1].calm, self.rounding)
        shown = _shown((*self.before, *(case.fresh for case in self.cases)), self.rounding)
        shown = [name for name in shown if name != PREDICTIVE or not all(self.silent)]
        with settled(self.a, self.b):
            calls = any(name in CALLS for name in shown)
            fresh = [reading_after(c.subject, call=True) if calls else c.calm for c in self.cases]
            return self._attributed(shown, fresh)

    def _alone(self, case: Case) -> None:
        """What a model has by itself: stale caches, random numbers, parts that do not fit, and errors."""
        case.rounding = self.rounding
        run(case, (*STALE, *ALONE))
        if MEAN in case.fresh.values:
            if not any(f.where.endswith("max_cholesky_size") for f in self.findings):  # of both: one setting
                run(case, (*RANDOM, *(ITERATED if self._by_iterations() else ())))
        else:
            run(case, [row for row in (*HELD, *RAISED) if row.cause in _ERRORS])
        if message(case):
            self.notes.append(f"{case.subject.asked()} raised {message(case)}")
        self.notes += others_failed(case.subject, case.before)
        known = {f.cause for f in self.findings} - {"stale-cache", *_ERRORS}
        self.findings += [_of(case.subject, f) for f in case.found if f.cause not in known]

    def _by_iterations(self) -> bool:
        """Whether the two differ otherwise than Cholesky has it."""
        calm = [case.calm for case in self.cases]
        return any(
            abs(distance(name, *self.before) - distance(name, *calm)) > 2 * self.rounding.level(name)
            for name in names(*self.before)
        )

    def _attributed(self, shown: list[str], fresh: list[Reading]) -> Report:
        """Exchange the differences in state, and report with what was found before."""
        a, b, rounding = self.a, self.b, self.rounding
        state = differences(a, b)
        exchange = _Exchange(a, b, fresh, shown)
        unequal = any(moved(p, q, rounding, shown) for p, q in (self.before, fresh))
        if unequal:
            state = exchange.run(state)
        for difference, effect in zip(state, exchange.effects, strict=False):
            effect = {name: size for name, size in effect.items() if size > rounding.level(name)}
            if effect:
                self.findings.append(self._named(difference, effect, fresh))
        if exchange.effects:
            named = any(f.cause not in _ERRORS and ": " not in f.where for f in self.findings)
            self.findings = [f for f in self.findings if not (named and f.cause in _VAGUE)]
        last = exchange.last
        alone = [f.effect for f in self.findings if ": " in f.where]  # are not exchanged
        rest = {
            name: size
            for name, size in moved(last, fresh[1], rounding, shown).items()
            if all(size > 2 * effect.get(name, 0.0) for effect in alone)
        }
        self._without_effect(state)
        trained = any(f.cause == "parameter" for f in self.findings)
        # Of a likelihood that never repeats, training finds any value.
        roots = (*ROOTS, "random-probes") if trained else ROOTS
        findings, cure = ranked(self.findings, roots), ""
        if unequal or any(f.cause == "shared-parameters" for f in findings):
            findings, cure = cured(a, b, findings, shown, rounding, fresh)
        quantities = {name: quantity(name, (self.before[0], self.before[1]), (last, fresh[1]), rounding)
                      for name in shown}  # fmt: skip
        absent = missing(shown, *self.before)
        if all(self.silent):
            absent[PREDICTIVE] = self.silent[0]
        rows = a.inputs[0].shape[-2]
        return Report(findings, quantities, rest, rounding.of(shown), tuple(self.notes), "two models",
                      rows, absent, cure)  # fmt: skip

    def _named(self, difference: Difference, effect: dict[str, float], fresh: list[Reading]) -> Finding:
        cause, described, detail = difference.cause, (difference.a, difference.b), difference.detail
        if cause in ("model-class", "forward-code") and (noisy := noise_in_code(self.a, self.b, difference, fresh)):
            cause, detail = "latent-against-observed", f"{noisy} adds the noise."
            described = ("f", "y") if noisy == self.b.name else ("y", "f")
        silent = [f"{s.name} adds none: {why}." for s, why in zip((self.a, self.b), self.silent, strict=True) if why]
        if len(silent) == 1 and difference.where.startswith("likelihood") and PREDICTIVE in effect:
            cause, detail = "noise-not-given", silent[0]
        return Finding(cause, difference.where, *described, effect, detail)

    def _without_effect(self, state: list[Difference]) -> None:
        found = {(f.cause, f.where) for f in self.findings} | {("noise-not-given", f.where) for f in self.findings}
        without = [d for d in state if (d.cause, d.where) not in found and d.where not in {w for _, w in found}]
        for said, unknown in (("differ", False), ("could not be compared, but are", True)):
            those = [d for d in without if (d.cause == "not-compared") is unknown]
            if those:
                listed = ", ".join(f"{d.where or '(model)'} ({d.cause})" for d in those[:6])
                more = f" and {len(those) - 6} more" if len(those) > 6 else ""
                self.notes.append(f"these {said} without effect on these quantities at this x: {listed}{more}")


_ERRORS = {"not-finite", "mixed-dtype", "length", *(row.cause for row in RAISED)}
_VAGUE = ("call-raises", "shape-of-x")  # where the other model can be called, what differs says more


@dataclass
class _Exchange:
    """Differences that are exchanged on copies, alone and one after the other.

    Attributes:
        effects: for each difference how far it moves each quantity.
        last: the first model's reading after all of them.
    """

    a: Subject
    b: Subject
    fresh: list[Reading]
    shown: list[str]

    def __post_init__(self) -> None:
        self.effects: list[dict[str, float]] = []
        self.last = self.fresh[0]
        self.calls = any(name in CALLS for name in self.shown)

    def run(self, state: list[Difference]) -> list[Difference]:
        """Exchange; returns the differences, of which those that only go together are one."""
        alone = [self._pair(difference) for difference in state]
        broken = [d for d, pair in zip(state, alone, strict=True) if self._breaks(*pair)]
        if len(broken) > 1 and (one := self._together(broken)) is not None:
            kept = [i for i, d in enumerate(state) if d not in broken]
            state, alone = [state[i] for i in kept] + [one], [alone[i] for i in kept] + [self._pair(one)]
            order = sorted(range(len(state)), key=lambda i: state[i].order)
            state, alone = [state[i] for i in order], [alone[i] for i in order]
        self.effects = [dict.fromkeys(self.shown, 0.0) for _ in state]
        for effect, (mine, others) in zip(self.effects, alone, strict=True):
            self._note(effect, self.fresh[0], mine)
            self._note(effect, self.fresh[1], others)
        # Then together, one after the other: what another fault masks shows here.
        done: list[int] = []
        for index in sorted(
            range(len(state)), key=lambda i: (state[i].order, -min(max(self.effects[i].values(), default=0.0), 1e300))
        ):
            changes = [state[i].onto_a for i in (*done, index)]
            reading = self._reading(self.a, changes) if done else alone[index][0]
            if "exchange" in reading.failures:
                continue
            done.append(index)
            self._note(self.effects[index], self.last, reading)
            self.last = reading
        return state

    def _pair(self, difference: Difference) -> tuple[Reading, Reading]:
        mine = self._reading(self.a, [difference.onto_a])
        large = (
            number_of_data(self.a.model) > LARGE and MEAN in mine.values
        )  # what another fault masks shows in sequence
        return mine, self.fresh[1] if large else self._reading(self.b, [difference.onto_b])

    def _breaks(self, mine: Reading, others: Reading) -> bool:
        """Whether models that can be called cannot be called after the exchange."""
        pairs = zip(self.fresh, (mine, others), strict=True)
        return any(MEAN in old.values and MEAN not in new.values for old, new in pairs)

    def _together(self, broken: list[Difference]) -> Difference | None:
        """Those that break a model alone as one, if they do not break it together."""
        first = min(broken, key=lambda d: d.order)
        one = joined(first.cause, first.where, broken, first.a, first.b)
        one.detail = "It can only be exchanged together with " + ", ".join(
            d.where or "the class of the model" for d in broken if d is not first
        ) + "."  # fmt: skip
        return None if self._breaks(*self._pair(one)) else one

    def _reading(self, side: Subject, changes: list[Change]) -> Reading:
        def exchange(replica: Replica) -> None:
            for change in changes:
                change(replica)

        try:
            return reading_after(side, exchange, call=self.calls)
        except Exception as error:
            return Reading(failures={"exchange": f"{type(error).__name__}: {error}"})

    def _note(self, effect: dict[str, float], before: Reading, after: Reading) -> None:
        if "exchange" not in after.failures:
            for name in self.shown:
                effect[name] = max(effect[name], distance(name, before, after))


def _shown(readings: tuple[Reading, ...], rounding: Rounding) -> list[str]:
    """The quantities to show: a call only where it is not the posterior anyhow."""
    everything = names(*readings[:2])
    shown = [name for name in everything if name not in CALLS]
    for call, posterior in POSTERIOR_OF.items():
        for reading in readings:
            size = distance(call, reading, reading.under(call, posterior))
            if call in everything and size > rounding.level(posterior):
                shown.append(call)
                break
    return shown


def _joint(p: Rounding, q: Rounding) -> Rounding:
    """The larger of two levels; of two formats that of the finer, so that the format itself can be the cause."""
    if p.dtype != q.dtype:
        return min(p, q, key=lambda rounding: torch.finfo(rounding.dtype).eps)
    levels = {name: max(r.levels.get(name, 0.0) for r in (p, q)) for name in p.levels | q.levels}
    worse = max(p, q, key=lambda rounding: rounding.condition_number)
    return replace(worse, levels=levels)


def _of(side: Subject, finding: Finding) -> Finding:
    mark = f"{side.name}: {finding.where}" if finding.where else side.name
    there = (finding.a, finding.b) if side.name.endswith("a") else (finding.b, finding.a)
    return replace(finding, where=mark, a=there[0], b=there[1])
