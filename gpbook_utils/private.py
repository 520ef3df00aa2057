"""What models and training touch of GPyTorch and linear_operator that these do not document, each name once.

``diagnose`` stands alone and has its own, :mod:`gpbook_utils.diagnose.private`. ``tests/test_private.py`` tries these
functions on real objects, and looks for private names elsewhere in the package.
"""

from __future__ import annotations

from typing import Any

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
