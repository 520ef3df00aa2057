r"""What rounding does to a model's quantities: measured by moving every number by one unit in its last place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose.asking import (
    LARGE,
    answer_of,
    core,
    data_of,
    dtype_of,
    is_sampled,
    number_of_data,
    observed,
    speaks_posterior,
    strategy_of,
)
from gpbook_utils.diagnose.readings import (
    CALL_COVARIANCE,
    CALL_MEAN,
    CALLS,
    MEAN,
    ONE_NUMBER,
    POSTERIOR_OF,
    PREDICTIVE_MEAN,
    PRIOR,
    Reading,
    Subject,
    distance,
    names,
    read,
    wide,
)
from gpbook_utils.diagnose.tree import drop_caches


@dataclass(frozen=True)
class Rounding:
    r"""What rounding does to a model's quantities.

    Attributes:
        dtype: the coarsest format that is computed in.
        condition_number: of the matrix that is solved with: the training covariance with noise, or that of the
            inducing points with jitter; 1 if there is none, infinity if it is not positive definite.
        levels: for each quantity the relative difference that rounding explains: the smaller of
            :math:`2 n u \kappa` times the cancellation (see :mod:`gpbook_utils.compare`), and thirty times what is
            measured when every parameter and training value is moved by one unit in its last place. Instead of
            :math:`2 n u` stands thirty times what is so measured of the prior, where that is more: inputs far from zero
            are rounded by more than u of a lengthscale.
        bounded: whether ``condition_number`` is an upper bound, as of matrices with more than 500 rows.
    """

    dtype: torch.dtype
    condition_number: float
    levels: dict[str, float]
    bounded: bool = False

    @property
    def format(self) -> str:
        """The name of the format."""
        return str(self.dtype).removeprefix("torch.")

    def level(self, name: str) -> float:
        """That of one quantity."""
        return self.levels.get(name, 0.0)

    def of(self, names: Iterable[str]) -> Rounding:
        """The same with the levels of these quantities alone."""
        return replace(self, levels={name: self.level(name) for name in names})


DRAWS, MARGIN = 2, 30
MAX_EIGEN = 500  # rows of a matrix whose eigenvalues are computed


def rounding_of(subject: Subject, base: Reading) -> Rounding:
    """Measure what rounding does to a model; ``base`` is its reading."""
    dtype = dtype_of(subject.model, subject.inputs[0].dtype)
    u = unit_roundoff(dtype)
    kappa, size = _condition(subject)
    moved: dict[str, float] = {}
    for draw in range(DRAWS if number_of_data(subject.model) <= LARGE else 1):
        replica = subject.replica()
        model, likelihood = replica.roots
        drop_caches(model, likelihood)
        _nudge(model, likelihood, draw)
        reading = read(subject, model, likelihood, call=False)
        for name in names(reading):
            step = distance(name, base, reading)
            if math.isfinite(step):
                moved[name] = max(moved.get(name, 0.0), step)
    levels = {}
    for name in names(base):
        if name in CALLS:
            continue
        value = base.values.get(name)
        rows = 1 if value is None else max(value.shape[-1] if value.dim() else 1, size)
        floor = 2 * rows * (_more(subject.model) * u + _stops(subject.model))
        # Entries of K are known to u only near zero: u times the distance in lengthscales, as measured, is more.
        entries = max(floor, MARGIN * moved.get(PRIOR, 0.0))
        theory = entries * (1.0 if name == PRIOR else kappa * _cancellation(base, name))
        levels[name] = max(floor, min(theory, MARGIN * moved.get(name, 0.0)))
    for call, posterior in POSTERIOR_OF.items():
        # In training mode the call is the prior.
        as_prior = subject.model.training and not speaks_posterior(subject.model) and call == CALL_COVARIANCE
        levels[call] = levels.get(PRIOR if as_prior else posterior, 0.0)
    return Rounding(dtype, kappa, levels, size > MAX_EIGEN)


def _more(model: Any) -> int:
    """How many times as many roundings there are: a transform and back."""
    return 8 if speaks_posterior(model) else 1


def _stops(model: Any) -> float:
    """Where a solver of the model's own stops, in any format: that of BoTorch's models of preferences, at 1e-12."""
    solves = isinstance(model, gpytorch.models.ExactGP) or strategy_of(model) is not None
    return 2.0**-37 if speaks_posterior(model) and not solves else 0.0


def _cancellation(base: Reading, name: str) -> float:
    """A posterior covariance is prior minus reduction: what is left may be much smaller than the terms."""
    prior, value = base.values.get(PRIOR), base.values.get(name)
    if prior is None or value is None or name in ONE_NUMBER or name in (MEAN, CALL_MEAN, PREDICTIVE_MEAN):
        return 1.0
    norm = float(value.norm())
    return max(1.0, float(prior.norm()) / norm) if norm else math.inf


def _nudge(model, likelihood, draw: int) -> None:
    generator = torch.Generator().manual_seed(draw)
    tensors = {id(p): p.data for root in (model, likelihood) if root is not None for p in root.parameters()}
    tensors |= {id(tensor): tensor for tensor in data_of(model).values()}
    for tensor in tensors.values():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        signs = 2.0 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
        moved = tensor.detach() * (1 + signs.to(tensor) * torch.finfo(tensor.dtype).eps)
        try:
            tensor.detach().copy_(moved)
        except RuntimeError:
            continue  # an expanded tensor: its entries are one number


def system_of(subject: Subject) -> Tensor | None:
    """The matrices that the model solves with, in float64; none where there are none, or they cannot be had."""
    model, likelihood = subject.replica().roots
    drop_caches(model, likelihood)
    if is_sampled(model):
        return None
    try:
        with torch.no_grad(), gpytorch.settings.debug(False):
            if isinstance(model, gpytorch.models.ExactGP) and model.train_inputs is not None:
                model.train()
                prior: Any = answer_of(model(*model.train_inputs)).gaussian
                prior = prior if likelihood is None else observed(likelihood, prior, model.train_inputs)
                K = prior.covariance_matrix
            elif (strategy := strategy_of(model)) is not None:
                while not hasattr(strategy, "inducing_points"):
                    strategy = strategy.base_variational_strategy
                K = core(model.eval()).forward(strategy.inducing_points).covariance_matrix
                K = K + getattr(strategy, "jitter_val", 0.0) * torch.eye(K.shape[-1]).to(K)
            else:
                return None
            return wide(K).reshape(-1, *K.shape[-2:])[:8]  # of a batch, the first eight
    except Exception:
        return None


def _condition(subject: Subject) -> tuple[float, int]:
    """Condition number and size of the matrix that the model solves with."""
    K = system_of(subject)
    if K is None:
        has = isinstance(subject.model, gpytorch.models.ExactGP) or strategy_of(subject.model) is not None
        has |= speaks_posterior(subject.model)
        return (math.inf if has and getattr(subject.model, "train_inputs", ()) is not None else 1.0), 1
    n = K.shape[-1]
    try:
        if n <= MAX_EIGEN:
            values = torch.linalg.eigvalsh((K + K.mT) / 2)
            worst = (values[:, -1] / values[:, 0]).max() if (values[:, 0] > 0).all() else torch.tensor(math.inf)
            return float(worst), n
        least = K.diagonal(dim1=-2, dim2=-1).min() * unit_roundoff(dtype_of(subject.model))
        noise = getattr(subject.likelihood, "noise", None)
        if isinstance(noise, Tensor):
            least = torch.maximum(least, noise.detach().min().cpu().double())
        return float(K.abs().sum(-1).max() / least), n
    except RuntimeError:
        return math.inf, n
