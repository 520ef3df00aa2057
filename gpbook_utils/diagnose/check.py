"""Does one model agree with itself? With its caches dropped, in another mode, with another seed, on fewer rows?"""

from __future__ import annotations

import contextlib

from torch import Tensor, nn

from gpbook_utils.diagnose.causes import ROOTS
from gpbook_utils.diagnose.circumstances import CALLED, FILLED, STALE, at_default, held_caches
from gpbook_utils.diagnose.contents import HELD, PLAIN, unseen
from gpbook_utils.diagnose.experiments import Case, beyond_cholesky, exact, moved, reading_after, run
from gpbook_utils.diagnose.guard import changed_settings, undisturbed
from gpbook_utils.diagnose.inputs import members, subject
from gpbook_utils.diagnose.numerics import NUMERICAL, unknown_noise
from gpbook_utils.diagnose.progress import progress
from gpbook_utils.diagnose.raised import CHECKED, RAISED, message
from gpbook_utils.diagnose.readings import (
    CALL_MEAN,
    CALLS,
    MEAN,
    ONE_NUMBER,
    POSTERIOR_OF,
    PREDICTIVE,
    Reading,
    Subject,
    distance,
    names,
    read,
)
from gpbook_utils.diagnose.remedies import cured_alone
from gpbook_utils.diagnose.report import Finding, Report
from gpbook_utils.diagnose.rounding import rounding_of
from gpbook_utils.diagnose.ruler import merged, missing, others_failed, quantity, ranked, with_warnings
from gpbook_utils.diagnose.scales import SCALED

EXACT = {"max_cholesky_size", "fast_computations", "fast_pred_var"}  # what experiments.exact() sets
SWITCHED = "random-probes", "cholesky-switch"
TITLE, SIDES = "one model, with itself", ("now", "repaired")


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
        model: an exact or approximate GP; called as it is, with its mode and caches. Of a model with ``posterior``, as
            BoTorch's, that is what is asked; of a list of models each member.
        x: inputs of shape (m, d) or (..., m, d), or a tuple of them, in the model's format. Of more than 1,000 rows,
            or more than 250,000 divided by the number of training points, some are taken, and the report says so.
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
    parts = members("model", model, x, likelihood)
    if parts:
        reports = {m.name: check_model(m.model, m.x, y=y, likelihood=m.likelihood) for m in parts}
        return merged(reports, f"{len(parts)} models, each with itself")
    side, notes = subject("model", model, x, y, likelihood)
    with undisturbed(), progress():
        before = read(side, *side.replica().roots)
        report = _checked(side, before, notes)
    return with_warnings(report, [side], [before])


def case_of(side: Subject, before: Reading, beyond: bool) -> Case:
    """A model with the readings that the experiments start from; ``beyond``: the calm one is computed by itself."""
    held = any(True for _ in held_caches(side))
    fresh = reading_after(side, call=True) if held else before
    with contextlib.ExitStack() as stack:
        for context in exact() if beyond else ():
            stack.enter_context(context)
        calm = reading_after(side) if beyond else fresh
        rounding = rounding_of(side, calm)
    return Case(side, before, fresh, calm, rounding)


def _checked(side: Subject, before: Reading, notes: list[str]) -> Report:
    case = case_of(side, before, beyond_cholesky(side))
    run(case, (*STALE, *HELD))
    if MEAN in case.fresh.values:
        run(case, (*CALLED, *CHECKED))
        random = [f for f in case.found if f.cause in ("random-call", "random-features")]
        # What changes between two equal calls tells nothing of their circumstances.
        if not any(f.effect.keys() - {*ONE_NUMBER} for f in random):
            run(case, (*FILLED, *NUMERICAL, *SCALED, *PLAIN))
    else:
        run(case, RAISED)
    if message(case):
        notes.append(f"{side.asked()} raised {message(case)}")
    notes += unseen(side)
    failed = others_failed(side, case.fresh)
    if failed and not case.found:
        broken = [name for name in case.fresh.failures if name not in CALLS]
        case.found.append(Finding("call-raises", "", "; ".join(failed), "", dict.fromkeys(broken, float("inf"))))
    return _report(case, [*notes, *failed])


def _report(case: Case, notes: list[str]) -> Report:
    before, rounding = case.before, case.rounding
    calm = beyond_cholesky(case.subject) and not changed_settings().keys() - EXACT
    usual = calm or not (case.found or changed_settings() or beyond_cholesky(case.subject))
    clean = case.calm if usual else _clean(case.subject)
    if before.values.keys() - {*CALLS} - clean.values.keys():
        clean = case.fresh  # the exact settings raise where the model's own do not
    shown = [name for name in names(before) if name not in CALLS]
    quantities = {name: quantity(name, (before, clean), (clean, clean), rounding, SIDES) for name in shown}
    for call, posterior in POSTERIOR_OF.items():
        called = before.under(posterior, call)
        if distance(posterior, called, clean) > rounding.level(posterior):
            quantities[call] = quantity(posterior, (called, clean), (clean, clean), rounding, SIDES)
    rest = {} if case.found else moved(before, clean, rounding, shown)
    absent = missing(shown, before)
    if why := unknown_noise(case.subject):
        absent[PREDICTIVE] = why
        quantities.pop(PREDICTIVE, None)
    # Whoever calls a model in training mode at its training inputs trains it: then probes are the answer, not the mode.
    trains = case.subject.model.training and CALL_MEAN in before.values
    findings = cured_alone(case, ranked(case.found, (*ROOTS, *SWITCHED) if trains else ROOTS))
    rows = case.subject.inputs[0].shape[-2]
    return Report(findings, quantities, rest, rounding.of(shown), tuple(notes), TITLE, rows, absent, sides=SIDES)


def _clean(side: Subject) -> Reading:
    """The reading of a copy without any fault that lies in how it is called."""
    with contextlib.ExitStack() as stack:
        for context in (*map(at_default, changed_settings().values()), *exact()):
            stack.enter_context(context)
        return reading_after(side)
