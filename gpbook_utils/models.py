"""The Gaussian processes of the book, in plain GPyTorch."""

from __future__ import annotations

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel, PeriodicKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from torch import Tensor


class ExactModel(gpytorch.models.ExactGP):
    """An exact GP with a constant mean.

    Args:
        x: training inputs of shape (n, d).
        y: training targets of shape (n,), in the same format and on the same device as ``x``.
        kernel: the prior covariance function; a new RBF kernel by default.
        likelihood: observation noise; a new Gaussian likelihood by default, so that models share none by accident.

    Raises:
        ValueError: if ``x`` or ``y`` is empty, has another shape, or holds NaN or infinite entries, or if their formats
            or devices differ. GPyTorch itself accepts targets of shape (n, 1), and takes them for n data sets.

    >>> x = torch.linspace(0, 1, 5).unsqueeze(-1)
    >>> ExactModel(x, x.squeeze(-1)).covar_module(x).shape
    torch.Size([5, 5])
    """

    def __init__(
        self, x: Tensor, y: Tensor, kernel: Kernel | None = None, likelihood: GaussianLikelihood | None = None
    ):
        _check_data(x, y)
        kernel = RBFKernel() if kernel is None else kernel
        batch_shape = kernel.batch_shape  # empty, unless the kernel stands for a batch of them
        super().__init__(x, y, GaussianLikelihood(batch_shape=batch_shape) if likelihood is None else likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch_shape)
        self.covar_module = kernel
        self.to(x)

    def forward(self, x: Tensor) -> MultivariateNormal:
        """The prior at ``x``, of shape (m, d)."""
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def trend_and_season() -> Kernel:
    r"""A smooth trend plus a yearly cycle, for inputs in years.

    :math:`k(x, x') = s_1 \exp(-\tfrac12 (x-x')^2/\ell_1^2) + s_2 \exp(-2 \sin^2(\pi(x-x')/p)/\ell_2)`, with
    GPyTorch's parametrisation of the periodic kernel. A new object at each call. The trend starts at
    :math:`\ell_1` = 10 years; the period :math:`p` is one year and is not trained; the rest starts at the defaults.

    >>> trend_and_season().kernels[1].base_kernel.period_length.item()
    1.0
    """
    trend, season = ScaleKernel(RBFKernel()), ScaleKernel(PeriodicKernel())
    trend.base_kernel.lengthscale = torch.tensor(10.0)
    season.base_kernel.period_length = torch.tensor(1.0)
    season.base_kernel.raw_period_length.requires_grad_(False)
    return trend + season


def prior_covariance(model: gpytorch.models.GP, x: Tensor) -> Tensor:
    """The prior covariance matrix K(x, x) of the latent function, of shape (m, m): the kernel, no data, no noise.

    Raises:
        ValueError: if ``model`` has no ``covar_module``.

    >>> x = torch.zeros(2, 1)
    >>> prior_covariance(ExactModel(x, torch.zeros(2)), x)
    tensor([[1., 1.],
            [1., 1.]])
    """
    if not hasattr(model, "covar_module"):
        raise ValueError(f"model must have a covar_module; got {type(model).__name__} without one")
    with torch.no_grad():
        return model.covar_module(x).to_dense()


def posterior(model: gpytorch.models.ExactGP, x: Tensor) -> MultivariateNormal:
    """The posterior of the latent function at ``x``, of shape (m, d), computed afresh, without gradients.

    Caches of earlier predictions are dropped first, and the model and its likelihood are left in evaluation mode.

    >>> x = torch.linspace(0, 1, 3).unsqueeze(-1)
    >>> posterior(ExactModel(x, torch.zeros(3)), x).mean
    tensor([0., 0., 0.])
    """
    model.train()
    model.eval()
    with torch.no_grad(), gpytorch.settings.debug(False):  # else it warns wherever x is the training inputs
        return model(x)


def marginal_likelihood(model: gpytorch.models.ExactGP) -> Tensor:
    """Log marginal likelihood of the training data, in nats per datum: a scalar. The model is left in training mode.

    This is GPyTorch's ``ExactMarginalLogLikelihood``, which divides by n and adds the log density of priors.

    >>> x = torch.linspace(0, 1, 3).unsqueeze(-1)
    >>> marginal_likelihood(ExactModel(x, torch.zeros(3))).shape
    torch.Size([])
    """
    model.train()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    return objective(model(*model.train_inputs), model.train_targets)


def bitwise_equal(a: gpytorch.models.ExactGP, b: gpytorch.models.ExactGP, x: Tensor) -> dict[str, bool]:
    """The null control: are two exact GPs equal in every bit of what they say about ``x``, of shape (m, d)?

    Returns:
        A truth value each for ``"prior"`` (covariance), ``"posterior"`` (mean and covariance) and ``"likelihood"``
        (marginal, of the training data). Both models are left in training mode.

    >>> x = torch.linspace(0, 1, 3).unsqueeze(-1)
    >>> bitwise_equal(ExactModel(x, torch.zeros(3)), ExactModel(x, torch.ones(3)), x)
    {'prior': True, 'posterior': False, 'likelihood': False}
    """
    p, q = posterior(a, x), posterior(b, x)
    return {
        "prior": torch.equal(prior_covariance(a, x), prior_covariance(b, x)),
        "posterior": torch.equal(p.mean, q.mean) and torch.equal(p.covariance_matrix, q.covariance_matrix),
        "likelihood": torch.equal(marginal_likelihood(a), marginal_likelihood(b)),
    }


def _check_data(x: Tensor, y: Tensor) -> None:
    for name, tensor, shape in (("x", x, "(n, d)"), ("y", y, "(n,)")):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor of shape {shape}; got {_kind(tensor)}")
        if tensor.numel() == 0:
            raise ValueError(f"{name} is empty: shape {tuple(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has NaN or infinite entries")
    if x.dim() != 2 or y.dim() != 1 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"x must have shape (n, d) and y shape (n,); got {tuple(x.shape)} and {tuple(y.shape)}"
            + (". Call y.squeeze(-1)" if y.dim() == 2 and y.shape[-1] == 1 else "")
        )
    if x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            f"x and y must have one dtype and device; got {x.dtype} on {x.device} and {y.dtype} on {y.device}"
        )


def _kind(thing) -> str:
    return str(thing.dtype) if isinstance(thing, Tensor) else type(thing).__name__
