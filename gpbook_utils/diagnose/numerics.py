"""Rows of the table: rounding, jitter, floors, grids, and what the rows of one call do to one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import gpytorch
import torch
from gpytorch.likelihoods.noise_models import FixedGaussianNoise
from torch import Tensor

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import by_posterior, dtype_of, far_out
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import (
    SLIGHT,
    VISIBLE,
    Case,
    Effect,
    Experiment,
    Trial,
    moved,
    reading_after,
)
from gpbook_utils.diagnose.raised import repeated_rows
from gpbook_utils.diagnose.readings import (
    COVARIANCE,
    MEAN,
    PREDICTIVE,
    PRIOR,
    Reading,
    Subject,
    distance,
    read,
    rows_of,
)
from gpbook_utils.diagnose.rounding import rounding_of
from gpbook_utils.diagnose.tree import drop_caches, modules_of
from gpbook_utils.diagnose.walk import Difference


def _gradients(case: Case) -> Iterator[Trial]:
    on = torch.is_grad_enabled()
    mine, other = ("gradients on", "torch.no_grad()") if on else ("torch.no_grad()", "gradients on")
    yield Trial("torch.no_grad", mine, other, least=SLIGHT)


def _other_mode(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """What the other code path moves."""
    with torch.set_grad_enabled(not torch.is_grad_enabled()):
        after = reading_after(case.subject)
    return moved(base, after, case.rounding, None, trial.least) or None


def _half(case: Case) -> Iterator[Trial]:
    """Are the rows in the middle of x answered alike without the others?"""
    x = case.subject.inputs[0]
    m = x.shape[-2]
    if m < 2 or MEAN not in case.calm.values:
        return
    order = far_out(x).argsort()
    kept, others = order[: max(1, m // 2)].sort().values, order[:-1].sort().values
    few, fewer = _with_rows(case.subject, kept), _with_rows(case.subject, others)
    alone = _answers(few)
    effect = _parted(case, case.calm, m, kept, alone)
    if not effect:
        return
    level = rounding_of(few, alone).level  # without the rows whose company it is

    def beyond(effect: Effect) -> Effect:
        return {name: size for name, size in effect.items() if size > 3 * level(name)}

    if effect := beyond(effect):
        # Is it the farthest row? Then it is gone without that one.
        gone = not beyond(_parted(case, _answers(fewer), m - 1, torch.searchsorted(others, kept), alone))
        rows = case.subject.rows
        where = f"x[{int(order[-1] if rows is None else rows[order[-1]])}]" if gone else "x"
        yield Trial(where, f"{m} rows in one call", f"{len(kept)} rows", effect=effect)


def _with_rows(side: Subject, rows: Tensor) -> Subject:
    return replace(side, inputs=tuple(part[..., rows.to(part.device), :] for part in side.inputs))


def _answers(side: Subject) -> Reading:
    return reading_after(side, only=(PRIOR, MEAN, COVARIANCE))


def _parted(case: Case, base: Reading, m: int, kept: Tensor, alone: Reading) -> Effect:
    """How far some of the m rows of a reading are from the answer to these rows alone.

    Of a mean on the scale that it has at most rows, for there it may cross zero.
    """
    effect, prior = {}, alone.values.get(PRIOR)
    for name in (PRIOR, MEAN, COVARIANCE):
        value, other = base.values.get(name), alone.values.get(name)
        if value is None or other is None:
            continue
        block = rows_of(value, kept, m, matrix=name != MEAN)
        if block.shape != other.shape:
            continue
        usual = float(value.abs().median()) * math.sqrt(block.numel()) if name == MEAN else 0.0
        size = float((block - other).norm() / block.norm().clamp_min(usual))
        if size > case.slight() and beside_prior(prior, name, block, other) > case.slight():
            effect[name] = size
    return effect


def _last_place(case: Case) -> Iterator[Trial]:
    """Is one unit in the last place of the inputs seen in the prior covariance?

    Of a column of integers that the format holds exactly, such as tasks or categories, another number is another thing.
    """
    generator = torch.Generator().manual_seed(0)
    held = getattr(case.subject.model, "train_inputs", None) or ()

    def nudged(index: int, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        signs = 2.0 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
        whole = _whole(tensor)
        if index < len(held) and held[index].shape[-1] == tensor.shape[-1]:
            whole &= _whole(held[index])
        moved = tensor * (1 + signs.to(tensor) * torch.finfo(tensor.dtype).eps)
        return torch.where(whole.to(tensor.device), tensor, moved)

    inputs = tuple(nudged(index, tensor) for index, tensor in enumerate(case.subject.inputs))
    largest = float(case.subject.inputs[0].abs().max())
    text = f"entries up to {largest:.3g}"
    yield Trial("x", text, "centred inputs", inputs=inputs, only=(PRIOR,), least=VISIBLE)


def _whole(tensor: Tensor) -> Tensor:
    """Which columns hold integers that the format holds exactly, with room to spare."""
    flat = tensor.detach().reshape(-1, tensor.shape[-1]).double()
    most = 1 / torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else math.inf
    return ((flat == flat.round()).all(0) & (flat.abs().amax(0) < most / 8)).cpu()


def _seen(case: Case, trial: Trial, base: Reading) -> Effect | None:
    size = distance(PRIOR, base, case.read(trial))
    return {PRIOR: size} if trial.least < size < math.inf else None


def _added(case: Case) -> Iterator[Trial]:
    """Was jitter added to a failed factorisation?"""
    added = [text for warning in case.calm.warnings if "added jitter" in (text := str(warning.message))]
    if added:
        old = [gpytorch.settings.cholesky_jitter.value(dtype) for dtype in (torch.float32, torch.float64)]
        under = (gpytorch.settings.cholesky_jitter(10 * old[0], 10 * old[1]),)
        said = "; ".join(filter(None, (added[0][:60], repeated_rows(case.subject.model))))
        yield Trial("gpytorch.settings.cholesky_jitter", said, "no jitter", under=under)


def _jitter(case: Case) -> Iterator[Trial]:
    """Does the jitter of a variational strategy show, where it is larger than the library's?

    A whitened q(u) was trained for its jitter: with another, it answers otherwise, and neither is at fault.
    """
    usual = gpytorch.settings.variational_cholesky_jitter.value(dtype_of(case.subject.model))
    for path, module in modules_of(case.subject.model):
        if not private.jitter_value.held_by(module) or not private.started(module, None):
            continue  # no strategy, or one whose q(u) is still to be drawn
        value = float(getattr(module, "jitter_val"))  # noqa: B009
        if value <= usual:
            continue

        def less(replica: Replica, module: torch.nn.Module = module, value: float = value) -> None:
            replica.of(module).jitter_val = value / 10

        where = f"{path}.jitter_val" if path else "jitter_val"
        only = (MEAN, COVARIANCE)
        yield Trial(where, f"{value:g}", f"{value / 10:g}", change=less, only=only, least=1e-2)


def _against_prior(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """What moves, also against the prior: where next to nothing is left of a quantity, that may well be jitter."""
    after = case.read(trial)
    effect = moved(base, after, case.rounding, trial.only, trial.least)
    return {
        name: size
        for name, size in effect.items()
        if math.isfinite(size)
        and beside_prior(base.values.get(PRIOR), name, base.values[name], after.values[name]) > trial.least
    } or None


def beside_prior(prior: Tensor | None, name: str, p: Tensor, q: Tensor) -> float:
    """The size of a difference on the scale of the prior."""
    if prior is None:
        return math.inf
    scale = prior.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt().norm() if name == MEAN else prior.norm()
    return float((p - q).norm() / scale)


def _clamped(case: Case) -> Iterator[Trial]:
    """Are variances raised to the floor, while the covariance matrix has smaller ones?"""
    covariance = case.calm.values.get(COVARIANCE)
    if covariance is None or gpytorch.settings.skip_posterior_variances.on() or COVARIANCE in case.calm.said:
        return
    floor = gpytorch.settings.min_variance.value(dtype_of(case.subject.model))
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    below = diagonal < floor
    if not below.any() or not torch.isfinite(diagonal).all():
        return
    size = float((diagonal.clamp_min(floor) - diagonal).norm() / diagonal.norm().clamp_min(floor))
    if size > VISIBLE:
        text = f"{int(below.sum())} of {diagonal.numel()} below {floor:g}, least {float(diagonal.min()):.2g}"
        yield Trial("gpytorch.settings.min_variance", text, "as computed", effect={"variance": size})


def unknown_noise(subject: Subject) -> str:
    """Why a likelihood of fixed noise knows no noise at x, or empty."""
    noise, m = _fixed(subject), subject.inputs[0].shape[-2]
    if by_posterior(subject.model, subject.inputs):
        return ""  # takes the mean of the noise
    if noise is None or noise.shape[-1] in (m, 1):
        return ""
    return f"its fixed noise is that of {noise.shape[-1]} points, and x has {m}: pass noise= to the likelihood"


def _fixed(subject: Subject) -> Tensor | None:
    parts = [module for _, module in modules_of(subject.likelihood) if isinstance(module, FixedGaussianNoise)]
    second = getattr(subject.likelihood, "second_noise_covar", None)
    return parts[0].noise.detach() if parts and second is None else None


def _reused(case: Case) -> Iterator[Trial]:
    """Noise of the training points that is taken for that of x, since there are as many."""
    noise, x = _fixed(case.subject), case.subject.inputs[0]
    held = getattr(case.subject.model, "train_inputs", None)
    if noise is None or not held or noise.shape[-1] != x.shape[-2] or PREDICTIVE not in case.calm.values:
        return
    if held[0].shape == x.shape and torch.equal(held[0], x) or torch.equal(noise, noise.flip(-1)):
        return
    module = next(m for _, m in modules_of(case.subject.likelihood) if isinstance(m, FixedGaussianNoise))

    def turned(replica: Replica) -> None:
        replica.of(module).noise = noise.flip(-1).clone()

    # The posterior depends on the order too: what is added to it is compared.
    after = case.read(Trial("", "", "", change=turned, only=(COVARIANCE, PREDICTIVE)))
    if PREDICTIVE in after.values and COVARIANCE in after.values:
        added = [Reading({PREDICTIVE: r.values[PREDICTIVE] - r.values[COVARIANCE]}) for r in (case.calm, after)]
        size = distance(PREDICTIVE, *added)
        if size > VISIBLE:
            text = f"that of the {noise.shape[-1]} training points, in their order"
            yield Trial("likelihood.noise", text, "noise of x", effect={PREDICTIVE: size})


NUMERICAL = (
    Experiment("grad-mode", _gradients, _other_mode, settled=True),
    Experiment("batch-dependence", _half, settled=True),
    Experiment("far-from-origin", _last_place, _seen, settled=True),
    Experiment("jitter-added", _added, settled=True),
    Experiment("jitter", _jitter, _against_prior, settled=True),
    Experiment("variance-clamped", _clamped, settled=True),
    Experiment("noise-reused", _reused, settled=True),
)


def noise_in_code(a: Subject, b: Subject, difference: Difference, fresh: list[Reading]) -> str:
    """Is the difference that other code makes the noise on the diagonal of the prior? Then which model has it?"""
    replica = a.replica()
    drop_caches(*replica.roots)
    try:
        difference.onto_a(replica)
    except Exception:
        return ""
    after = read(a, *replica.roots, call=False, only=(PRIOR, COVARIANCE))
    held = [getattr(side.likelihood, "noise", None) for side in (a, b)]
    noises = [float(noise) for noise in held if isinstance(noise, Tensor) and noise.numel() == 1]
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
