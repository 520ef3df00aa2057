"""What models, training and sweeps touch of GPyTorch and linear_operator that these do not document, each name once.

``diagnose`` stands alone and has its own, :mod:`gpbook_utils.diagnose.private`. ``tests/test_private.py`` tries these
functions on real objects, and looks for private names elsewhere in the package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gpytorch
import linear_operator
from gpytorch.mlls import MarginalLogLikelihood
from gpytorch.variational import VariationalStrategy
from linear_operator.operators import AddedDiagLinearOperator, LinearOperator
from torch import Tensor


def q_of(strategy: VariationalStrategy) -> Any:
    """The module with the parameters of q(u), or none: the public ``variational_distribution`` is the Gaussian."""
    return getattr(strategy, "_variational_distribution", None)


def clear_cache(strategy: VariationalStrategy) -> None:
    """Forget the prior of u that parameters gave before they were written to; without a change of mode."""
    strategy._clear_cache()


def with_other_terms(objective: MarginalLogLikelihood, log_density: Tensor) -> Tensor:
    """A log density and GPyTorch's own sum of log priors and added losses, which has no name by itself."""
    return objective._add_other_terms(log_density, ())


def terms(covariance: AddedDiagLinearOperator) -> tuple[LinearOperator, LinearOperator]:
    """The matrix and the diagonal of a sum, before they are added; ``to_dense`` adds them."""
    return covariance._linear_op, covariance._diag_tensor


def settings() -> dict[tuple[str, str, str], object]:
    """What GPyTorch's and linear_operator's settings are set to: each value by module, class and attribute.

    A switch that nobody has set has its default's value.

    >>> with gpytorch.settings.max_cholesky_size(7):
    ...     settings()["linear_operator.settings", "max_cholesky_size", "_global_value"]
    7
    """
    modules = linear_operator.settings, gpytorch.settings, gpytorch.beta_features
    numbers = "_global_value", "_global_float_value", "_global_double_value", "_global_half_value"
    found: dict[tuple[str, str, str], object] = {}
    for cls in (thing for module in modules for thing in vars(module).values() if isinstance(thing, type)):
        where = cls.__module__, cls.__name__
        if hasattr(cls, "_state"):
            found[*where, "_state"] = cls.on()  # type: ignore[attr-defined]
        found |= {(*where, field): getattr(cls, field) for field in numbers if hasattr(cls, field)}
    return found


@contextmanager
def under(values: Mapping[tuple[str, str, str], object]) -> Iterator[None]:
    """Values of :func:`settings`, perhaps of another process; afterwards all of them are as they were."""
    before = settings()
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[tuple[str, str, str], object]) -> None:
    now = settings()
    for (module, cls, field), value in values.items():
        if now[module, cls, field] != value:
            setattr(getattr(sys.modules[module], cls), field, value)
