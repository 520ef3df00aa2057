"""Ten broken models to practise on, each beside a control that was meant to be equal."""

from __future__ import annotations

import copy
from collections.abc import Callable

import gpytorch
import torch
from gpytorch.kernels import MaternKernel, ScaleKernel
from torch import Tensor

from gpbook_utils import data
from gpbook_utils.models import ExactModel, marginal_likelihood

TOLERANCE = 1e-9  # a repair leaves some 1e-15 of rounding; a number that went through float32 leaves 1e-8


def suspect(number: int) -> tuple[ExactModel, ExactModel, Tensor]:
    """A broken model, its control, and inputs of shape (20, 1), in years, to ask both about; new at every call.

    Both are models of the carbon dioxide record, of which every twelfth month is taken: 44 points, in evaluation mode.

    Raises:
        ValueError: if ``number`` is not an integer from 1 to 10.

    >>> broken, control, x = suspect(1)
    >>> x.shape
    torch.Size([20, 1])
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(_FAULTS):
        raise ValueError(f"number must be an integer from 1 to {len(_FAULTS)}; got {number!r}")
    table = data.load("co2")
    control = ExactModel((table.x - 1958)[::12], table.standardised[::12], ScaleKernel(MaternKernel(2.5))).eval()
    control.covar_module.outputscale = _wide(2.0)
    control.covar_module.base_kernel.lengthscale = _wide(5.0)
    control.likelihood.noise = _wide(0.05)
    broken = copy.deepcopy(control)
    x = torch.linspace(0.4, 59.6, 20, dtype=torch.float64).unsqueeze(-1)
    with torch.no_grad():
        _FAULTS[number - 1](broken, x)
    return broken, control, x


def cured(number: int, cure: Callable[[ExactModel, ExactModel], object]) -> bool:
    """Does ``cure(broken, control)`` make a broken model say what its control says?

    Asked are the call as the model then stands, the prior and the marginal likelihood, with plain GPyTorch and without
    :mod:`gpbook_utils.diagnose`. An untouched copy of the control is the judge, so changing the control helps nobody.

    Raises:
        ValueError: if ``number`` is none of the suspects, or ``cure`` can't be called.

    >>> cured(1, lambda broken, control: None)
    False
    """
    if not callable(cure):
        raise ValueError(f"cure must be a function of the broken model and its control; got {cure!r}")
    broken, control, x = suspect(number)
    judge = copy.deepcopy(control)
    cure(broken, control)
    try:
        said = _answers(broken, x)
    except (RuntimeError, ValueError):  # the wrong mode, format or shape
        return False
    return all(
        mine.shape == right.shape and float((mine - right).norm()) <= TOLERANCE * float(right.norm())
        for mine, right in zip(said, _answers(judge, x), strict=True)
    )


def _answers(model: ExactModel, x: Tensor) -> list[Tensor]:
    with torch.no_grad(), gpytorch.settings.debug(False):
        call, prior = model(x), model.forward(x)
        answers = [call.mean, call.covariance_matrix, prior.mean, prior.covariance_matrix, marginal_likelihood(model)]
    return [answer.detach() for answer in answers]


def _wide(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


# The faults. Reading on spoils the exercise of chapter 11.


def _column(model: ExactModel, x: Tensor) -> None:
    model.train_targets = model.train_targets.unsqueeze(-1)


def _used(model: ExactModel, x: Tensor) -> None:
    kernel = model.covar_module.base_kernel
    right = kernel.lengthscale.clone()
    kernel.lengthscale = 3 * right
    model(x).mean.sum()
    kernel.lengthscale = right


def _bare(model: ExactModel, x: Tensor) -> None:
    model.covar_module = model.covar_module.base_kernel


def _prior(model: ExactModel, x: Tensor) -> None:
    prior = gpytorch.priors.GammaPrior(2.0, 1.0).double()
    model.likelihood.noise_covar.register_prior("noise_prior", prior, "noise")


def _training(model: ExactModel, x: Tensor) -> None:
    model.train()


def _raw(model: ExactModel, x: Tensor) -> None:
    model.covar_module.raw_outputscale.fill_(2.0)


def _forgotten(model: ExactModel, x: Tensor) -> None:
    model.train_inputs = model.train_targets = None


def _single(model: ExactModel, x: Tensor) -> None:
    model.float()


def _smoothness(model: ExactModel, x: Tensor) -> None:
    model.covar_module.base_kernel.nu = 1.5


def _twice(model: ExactModel, x: Tensor) -> None:
    model.set_train_data(model.train_inputs[0] * 12)  # months
    model.likelihood.noise = _wide(0.2)


_FAULTS = (_column, _used, _bare, _prior, _training, _raw, _forgotten, _single, _smoothness, _twice)
