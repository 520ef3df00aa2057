"""Why do two models differ? Differences are exchanged on private copies, and what then goes is measured."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gpbook_utils.diagnose.guard import undisturbed
from gpbook_utils.diagnose.inputs import both_subjects
from gpbook_utils.diagnose.readings import (
    CALL_COVARIANCE,
    CALL_MEAN,
    CALLS,
    COVARIANCE,
    MEAN,
    PRIOR,
    Reading,
    Rounding,
    Subject,
    distance,
    drop_caches,
    names,
    read,
    rounding_of,
)
from gpbook_utils.diagnose.report import Finding, Report, others_failed, quantity, ranked, with_warnings
from gpbook_utils.diagnose.selfcheck import randomness, reading_after, settled, shared_between, stale_caches
from gpbook_utils.diagnose.state import Difference, differences


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
        model_a: an exact or approximate GP, fitted or not; called as it is, with its mode and caches.
        model_b: the other one.
        x: inputs of shape (m, d) or (..., m, d), or a tuple of them for a model of several inputs, in the format of
            one of the models. Of more than 1,000 rows, or more than a million divided by the number of training
            points, some are taken, and the report says so.
        y: targets at x of shape (m,), for the ELBO of approximate GPs; without them their KL term is compared.
        likelihood_a: that of ``model_a``, where it is no attribute of it.
        likelihood_b: that of ``model_b``.

    Returns:
        A :class:`Report`: findings, most influential first, and each quantity before and after.

    Raises:
        ValueError: if an argument is not what it should be, or neither model can be evaluated at ``x``; the message
            names the model and the call.

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
    a, b, notes = both_subjects(model_a, model_b, x, y, likelihood_a, likelihood_b)
    if model_a is model_b:
        notes.append("model_a and model_b are the same object")
    with undisturbed():
        before = [read(side, *side.replica().roots) for side in (a, b)]
        report = _explained(a, b, before, notes)
    return with_warnings(report, [a, b], before)


def _explained(a: Subject, b: Subject, before: list[Reading], notes: list[str]) -> Report:
    for side, reading in zip((a, b), before, strict=True):
        if CALL_MEAN in reading.failures:
            notes.append(f"{side.name}(x) raised {reading.failures[CALL_MEAN]}")
        notes += others_failed(side, reading)
    if all(not reading.values for reading in before):
        reason = next(iter(before[0].failures.values()), "it returned no Gaussian")
        raise ValueError(f"neither model can be evaluated at x; {a.name}(x) raised {reason}")
    with settled(a, b):
        calm = [reading_after(side) for side in (a, b)]
        rounding = _joint(*(rounding_of(side, reading) for side, reading in zip((a, b), calm, strict=True)))
    findings: list[Finding] = []
    fresh = []
    for side, reading in zip((a, b), before, strict=True):
        found, clean = stale_caches(side, reading, rounding)
        findings += [_of(side, finding) for finding in found]
        fresh.append(clean)
    for side, reading, settled_reading in zip((a, b), fresh, calm, strict=True):
        if not any(finding.where.endswith("max_cholesky_size") for finding in findings):  # of both: one setting
            found = randomness(side, reading, rounding, settled_reading)
            findings += [_of(side, f) for f in found if f.cause not in {g.cause for g in findings}]
    if a.model is not b.model:
        with settled(a, b):
            findings += shared_between(a, b, calm[1], rounding)

    measured = _shown(names(*before), (*before, *fresh), rounding)
    with settled(a, b):
        calls = any(name in CALLS for name in measured)
        fresh = [reading_after(side, call=calls) for side in (a, b)] if calls else calm
        return _attributed(a, b, before, fresh, measured, rounding, findings, notes)


def _attributed(
    a: Subject,
    b: Subject,
    before: list[Reading],
    fresh: list[Reading],
    measured: list[str],
    rounding: Rounding,
    findings: list[Finding],
    notes: list[str],
) -> Report:
    """Exchange the differences in state, and report with what was found before."""
    state = differences(a, b)
    unequal = {name: distance(name, *before) for name in measured}
    unequal = {name: size for name, size in unequal.items() if size > rounding.levels.get(name, 0.0)}
    unequal_fresh = any(distance(name, *fresh) > rounding.levels.get(name, 0.0) for name in measured)
    last = fresh[0]
    if unequal or unequal_fresh:
        effects, last = _exchanged(a, b, state, fresh, measured)
        for difference, effect in zip(state, effects, strict=True):
            effect = {name: size for name, size in effect.items() if size > rounding.levels.get(name, 0.0)}
            if not effect:
                continue
            cause, described, detail = difference.cause, (difference.a, difference.b), ""
            noisy = _noise_in_code(a, b, difference, fresh) if cause in ("model-class", "forward-code") else ""
            if noisy:
                cause, detail = "latent-against-observed", f"{noisy} adds the noise."
                described = ("f", "y") if noisy == b.name else ("y", "f")
            findings.append(Finding(cause, difference.where, *described, effect, detail))
    rest = {name: distance(name, last, fresh[1]) for name in measured}
    rest = {name: size for name, size in rest.items() if size > rounding.levels.get(name, 0.0)}
    without = [d for d in state if not any(d.where == f.where and d.cause == f.cause for f in findings)]
    for said, unknown in (("differ", False), ("could not be compared, but are", True)):
        those = [d for d in without if (d.cause == "not-compared") is unknown]
        if those:
            listed = ", ".join(f"{d.where or '(model)'} ({d.cause})" for d in those[:6])
            more = f" and {len(those) - 6} more" if len(those) > 6 else ""
            notes.append(f"these {said} without effect on these quantities at this x: {listed}{more}")
    return Report(
        ranked(findings),
        {name: quantity(name, tuple(before), (last, fresh[1]), rounding) for name in measured},
        rest,
        replace(rounding, levels={n: rounding.levels.get(n, 0.0) for n in measured}),
        tuple(notes),
        "two models",
    )


def _exchanged(
    a: Subject, b: Subject, state: list[Difference], fresh: list[Reading], measured: list[str]
) -> tuple[list[dict[str, float]], Reading]:
    """For each difference how far it moves each quantity, and the first model's reading after all of them."""
    calls = any(name in CALLS for name in measured)
    effects: list[dict[str, float]] = [dict.fromkeys(measured, 0.0) for _ in state]

    def reading_of(side: Subject, changes) -> Reading:
        replica = side.replica()
        drop_caches(*replica.roots)
        try:
            for change in changes:
                change(replica)
        except Exception as error:
            return Reading(failures={"exchange": f"{type(error).__name__}: {error}"})
        return read(side, *replica.roots, call=calls)

    def note(effect, before: Reading, after: Reading) -> None:
        if "exchange" in after.failures:
            return
        for name in measured:
            effect[name] = max(effect[name], distance(name, before, after))

    alone = [reading_of(a, [difference.onto_a]) for difference in state]
    for difference, effect, reading in zip(state, effects, alone, strict=True):
        note(effect, fresh[0], reading)
        note(effect, fresh[1], reading_of(b, [difference.onto_b]))
    # Then together, one after the other: what another fault masks shows here.
    sequence = sorted(range(len(state)), key=lambda i: (state[i].order, -min(max(effects[i].values()), 1e300)))
    last, done = fresh[0], []
    for index in sequence:
        reading = reading_of(a, [state[i].onto_a for i in (*done, index)]) if done else alone[index]
        if "exchange" in reading.failures:
            continue
        done.append(index)
        note(effects[index], last, reading)
        last = reading
    return effects, last


def _shown(all_names: list[str], readings, rounding: Rounding) -> list[str]:
    """The quantities to show: a call only where it is not the posterior anyhow."""
    shown = [name for name in all_names if name not in CALLS]
    for call, posterior in ((CALL_MEAN, MEAN), (CALL_COVARIANCE, COVARIANCE)):
        for reading in readings:
            pair = Reading(values={call: reading.values[posterior]} if posterior in reading.values else {})
            if call in all_names and distance(call, reading, pair) > rounding.levels.get(posterior, 0.0):
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
    return Finding(finding.cause, mark, *there, finding.effect, finding.detail)


def _noise_in_code(a: Subject, b: Subject, difference: Difference, fresh: list[Reading]) -> str:
    """Is the difference that other code makes the noise on the diagonal of the prior? Then which model has it?"""
    replica = a.replica()
    drop_caches(*replica.roots)
    try:
        difference.onto_a(replica)
    except Exception:
        return ""
    after = read(a, *replica.roots, call=False, only=(PRIOR, COVARIANCE))
    noises = [getattr(side.likelihood, "noise", None) for side in (a, b)]
    noises = [float(noise) for noise in noises if isinstance(noise, Tensor) and noise.numel() == 1]
    for name in (PRIOR, COVARIANCE):
        p, q = fresh[0].values.get(name), after.values.get(name)
        if p is None or q is None or p.shape != q.shape or torch.equal(p, q):
            continue
        gap = q - p
        diagonal = gap.diagonal(dim1=-2, dim2=-1)
        constant = float(diagonal.mean())
        rest = gap - torch.diag_embed(torch.full_like(diagonal, constant))
        multiple = float(rest.norm() / gap.norm()) <= 1e-3
        if multiple and any(abs(abs(constant) - noise) <= 1e-3 * noise for noise in noises):
            return "model_b" if constant > 0 else "model_a"
        return ""
    return ""
