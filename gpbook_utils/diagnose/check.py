"""Does one model agree with itself? With its caches dropped, in another mode, with another seed, on fewer rows?"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import gpytorch
from torch import Tensor, nn

from gpbook_utils.diagnose import selfcheck
from gpbook_utils.diagnose.guard import changed_settings, undisturbed
from gpbook_utils.diagnose.inputs import subject
from gpbook_utils.diagnose.readings import (
    CALL_COVARIANCE,
    CALL_MEAN,
    CALLS,
    COVARIANCE,
    MEAN,
    ONE_NUMBER,
    Reading,
    Subject,
    distance,
    drop_caches,
    names,
    number_of_data,
    read,
    rounding_of,
)
from gpbook_utils.diagnose.report import Finding, Report, others_failed, quantity, ranked, with_warnings

EXACT = {"max_cholesky_size", "fast_computations", "fast_pred_var"}  # what selfcheck.exact() sets


def check_model(
    model: nn.Module,
    x: Tensor | tuple[Tensor, ...],
    *,
    y: Tensor | None = None,
    likelihood: nn.Module | None = None,
) -> Report:
    """Find the causes for which one GPyTorch model does not agree with itself at ``x``.

    Private copies of the model are called again with one thing changed: without caches, in evaluation mode, with
    another seed, with default settings, with Cholesky instead of iterations, under ``torch.no_grad()``, on half of the
    rows, with targets of the right shape, with memory of their own. What then changes beyond rounding is a finding. The
    model is left as it is. A model that is called in training mode, where it gives its prior, is a finding too.

    Args:
        model: an exact or approximate GP; called as it is, with its mode and caches.
        x: inputs of shape (m, d) or (..., m, d), or a tuple of them, in the model's format. Of more than 1,000 rows,
            or more than a million divided by the number of training points, some are taken, and the report says so.
        y: targets at x, for the ELBO of an approximate GP.
        likelihood: the model's, where it is no attribute of it.

    Returns:
        A :class:`Report`; a finding's ``a`` is what the model has, its ``b`` what it would have without the fault.

    Raises:
        ValueError: if an argument is not what it should be; the message names it, what came and what is needed.

    >>> import torch
    >>> from gpbook_utils.models import ExactModel
    >>> x = torch.linspace(0, 1, 5).unsqueeze(-1)
    >>> model = ExactModel(x, x.squeeze(-1)).eval()
    >>> mean = model(x + 0.1).mean
    >>> check_model(model, x + 0.1).verdict
    'equal up to rounding: nothing to explain'
    >>> model.covar_module.lengthscale = 0.1
    >>> [(finding.cause, finding.where) for finding in check_model(model, x + 0.1).findings]
    [('stale-cache', 'prediction_strategy')]
    """
    side, notes = subject("model", model, x, y, likelihood)
    with undisturbed():
        before = read(side, *side.replica().roots)
        report = _checked(side, before, notes)
    return with_warnings(report, [side], [before])


def _checked(side: Subject, before: Reading, notes: list[str]) -> Report:
    settled = number_of_data(side.model) > gpytorch.settings.max_cholesky_size.value()
    with selfcheck.settled(side):
        calm = selfcheck.reading_after(side)
        rounding = rounding_of(side, calm)
    stale, fresh = selfcheck.stale_caches(side, before, rounding)
    findings = [
        *stale,
        *selfcheck.no_data(side),
        *selfcheck.not_finite(side, fresh),
        *selfcheck.mixed_dtype(side, fresh),
        *selfcheck.target_shape(side, fresh, rounding),
        *selfcheck.shared_memory(side, rounding),
    ]
    if MEAN in fresh.values:
        as_called = (selfcheck.mode, selfcheck.settings)
        by_size = (selfcheck.randomness, selfcheck.cholesky_switch)
        numerical = (
            selfcheck.grad_mode,
            selfcheck.batch_dependence,
            selfcheck.resolution,
            selfcheck.jitter,
            selfcheck.clamped,
            selfcheck.hidden_state,
        )
        found = [finding for experiment in as_called for finding in experiment(side, fresh, rounding)]
        found += [finding for experiment in by_size for finding in experiment(side, fresh, rounding, calm)]
        random = [finding for finding in found if finding.cause in ("random-call", "random-features")]
        if any(finding.effect.keys() - ONE_NUMBER for finding in random):
            numerical = ()  # what changes between two equal calls tells nothing of their circumstances
        with selfcheck.settled(side):
            found += [finding for experiment in numerical for finding in experiment(side, calm, rounding)]
            for rounded in selfcheck.rounded_floats(side, calm, rounding):  # the model agrees with itself all the same
                notes.append(f"{rounded.where} is {rounded.a}: a Python float, rounded to float32 on its way in")
        for finding in found:
            if (finding.cause, finding.where) not in {(f.cause, f.where) for f in findings}:
                findings.append(finding)
    elif not findings:
        reason = fresh.failures.get(MEAN, "it returned no Gaussian")
        findings.append(Finding("call-raises", "", f"model(x) raised {reason}", "", {MEAN: float("inf")}))
    if MEAN not in fresh.values and MEAN in fresh.failures:
        notes.append(f"model(x) raised {fresh.failures[MEAN]}")
    failed = others_failed(side, fresh)
    if failed and not findings:
        broken = [name for name in fresh.failures if name not in CALLS]
        findings.append(Finding("call-raises", "", "; ".join(failed), "", dict.fromkeys(broken, float("inf"))))
    notes += failed

    clean = calm if settled and not changed_settings().keys() - EXACT else _clean(side)
    shown = [name for name in names(before) if name not in CALLS]
    quantities = {name: quantity(name, (before, clean), (clean, clean), rounding) for name in shown}
    for call, posterior in ((CALL_MEAN, MEAN), (CALL_COVARIANCE, COVARIANCE)):
        called = Reading({posterior: before.values[call]} if call in before.values else {}, before.failures)
        if distance(posterior, called, clean) > rounding.levels.get(posterior, 0.0):
            quantities[call] = quantity(posterior, (called, clean), (clean, clean), rounding)
    levels = {name: rounding.levels.get(name, 0.0) for name in shown}
    rest = {} if findings else {n: distance(n, before, clean) for n in shown}
    rest = {name: size for name, size in rest.items() if size > levels[name]}
    short = replace(rounding, levels=levels)
    return Report(ranked(findings), quantities, rest, short, tuple(notes), "one model, with itself")


def _clean(side: Subject) -> Reading:
    """The reading of a copy without any fault that lies in how it is called."""
    replica = side.replica()
    drop_caches(*replica.roots)
    for fields in changed_settings().values():
        for (cls, field), (_, default) in fields.items():
            setattr(cls, field, default)
    with contextlib.ExitStack() as stack:
        for context in selfcheck.exact():
            stack.enter_context(context)
        return read(side, *replica.roots, call=False)
