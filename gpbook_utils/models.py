"""The Gaussian processes of the book, in plain GPyTorch."""

from __future__ import annotations

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import InducingPointKernel, Kernel, PeriodicKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood, Likelihood
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy
from torch import Tensor


class ExactModel(gpytorch.models.ExactGP):
    """An exact GP with a constant mean.

    Args:
        x: training inputs of shape (n, d).
        y: training targets of shape (n,), in the same format and on the same device as ``x``.
        kernel: the prior covariance function; a new RBF kernel by default.
        likelihood: observation noise; a new Gaussian likelihood by default, so that models share none by accident.

    Kernel and likelihood are moved in place to the format and device of ``x``.

    Raises:
        ValueError: if ``x`` or ``y`` is empty, has another shape, or holds NaN or infinite entries, or if their formats
            or devices differ, or if ``kernel`` or ``likelihood`` is something else. GPyTorch itself accepts targets of
            shape (n, 1), and broadcasts them to n data sets. A call in training mode at other inputs than the training
            inputs is a ``ValueError`` too.

    >>> x = torch.linspace(0, 1, 5).unsqueeze(-1)
    >>> ExactModel(x, x.squeeze(-1)).covar_module(x).shape
    torch.Size([5, 5])
    """

    def __init__(
        self, x: Tensor, y: Tensor, kernel: Kernel | None = None, likelihood: GaussianLikelihood | None = None
    ):
        check_data(x, y)
        for name, part, kind in (("kernel", kernel, Kernel), ("likelihood", likelihood, Likelihood)):
            if part is not None and not isinstance(part, kind):
                raise ValueError(f"{name} must be an instance of a GPyTorch {kind.__name__}; got {part!r}")
        kernel = RBFKernel() if kernel is None else kernel
        batch_shape = kernel.batch_shape  # empty, unless the kernel stands for a batch of them
        super().__init__(x, y, GaussianLikelihood(batch_shape=batch_shape) if likelihood is None else likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch_shape)
        self.covar_module = kernel
        self.to(x)

    def __call__(self, *inputs: Tensor, **options) -> MultivariateNormal:
        """The prior at the training inputs in training mode, the posterior at any inputs in evaluation mode."""
        if self.training and not all(map(torch.equal, inputs, self.train_inputs)):
            raise ValueError(
                "the model is in training mode and x is not its training inputs; call eval() for the posterior at x"
            )
        return super().__call__(*inputs, **options)

    def forward(self, x: Tensor) -> MultivariateNormal:
        """The prior at ``x``, of shape (m, d)."""
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


class SparseModel(ExactModel):
    """Sparse GP regression (SGPR, Titsias 2009): an exact GP whose kernel is the Nyström approximation from ``z``.

    Its :func:`marginal_likelihood` is Titsias' collapsed bound per datum, at the optimal q(u).

    Args:
        x: training inputs of shape (n, d).
        y: training targets of shape (n,).
        z: inducing points of shape (m, d); copied, for GPyTorch's kernel would hold and train this very tensor.
        kernel: the prior covariance function that is approximated; a new RBF kernel by default.
        likelihood: observation noise; a new Gaussian likelihood by default.

    Raises:
        ValueError: as :class:`ExactModel`, and for a ``z`` that is not a finite matrix like ``x``.

    >>> x = torch.linspace(0, 1, 5).unsqueeze(-1)
    >>> SparseModel(x, x.squeeze(-1), x[::2]).covar_module.inducing_points.shape
    torch.Size([3, 1])
    """

    def __init__(
        self, x: Tensor, y: Tensor, z: Tensor, kernel: Kernel | None = None, likelihood: Likelihood | None = None
    ):
        check_data(x, y)
        _check_inducing(z, x)
        likelihood = GaussianLikelihood() if likelihood is None else likelihood
        base = RBFKernel() if kernel is None else kernel
        super().__init__(x, y, InducingPointKernel(base, z.detach().clone(), likelihood), likelihood)


class VariationalModel(gpytorch.models.ApproximateGP):
    """A sparse variational GP (SVGP, Hensman et al. 2013): whitened, with a full covariance of q(u).

    The data are not part of it. Its ``covar_module`` is the kernel itself, so the prior does not depend on ``z``.

    Args:
        z: inducing points of shape (m, d); copied.
        kernel: the prior covariance function; a new RBF kernel by default. If it stands for a batch of kernels, the
            model stands for a batch of models, each with inducing points of its own that start at ``z``.
        likelihood: observation noise; a new Gaussian likelihood by default.
        learn_inducing_locations: whether ``z`` is a parameter.
        jitter: added to the diagonals of the inducing block and of the data block; GPyTorch's default depends on the
            format, 1e-6 in float64 and 1e-4 in float32.

    Raises:
        ValueError: for a ``z`` that is not a finite matrix.

    >>> VariationalModel(torch.zeros(1, 1))(torch.zeros(3, 1)).mean.shape
    torch.Size([3])
    """

    def __init__(
        self,
        z: Tensor,
        kernel: Kernel | None = None,
        likelihood: GaussianLikelihood | None = None,
        *,
        learn_inducing_locations: bool = True,
        jitter: float | None = None,
    ):
        check_inputs("z", z)
        kernel = RBFKernel() if kernel is None else kernel
        batch_shape = kernel.batch_shape
        super().__init__(
            VariationalStrategy(
                self,
                z.detach().expand(*batch_shape, *z.shape),
                CholeskyVariationalDistribution(len(z), batch_shape),
                learn_inducing_locations=learn_inducing_locations,
                jitter_val=jitter,
            )
        )
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch_shape)
        self.covar_module = kernel
        self.likelihood = GaussianLikelihood(batch_shape=batch_shape) if likelihood is None else likelihood
        self.to(z)

    forward = ExactModel.forward


@torch.no_grad()
def set_optimal_q(model: VariationalModel, x: Tensor, y: Tensor) -> None:
    r"""Give q(u) its optimum for these data, with everything else held: no training, hence nothing left to converge.

    With :math:`LL^\top = K_{ZZ} + \text{jitter}`, :math:`A = L^{-1} K_{ZX}` and :math:`B = I + AA^\top/\sigma^2`, the
    whitened optimum has covariance :math:`B^{-1}` and mean :math:`B^{-1} A (y - \mu) / \sigma^2` (Titsias 2009,
    equation 10, in whitened coordinates).

    Args:
        model: its variational parameters are changed in place.
        x: training inputs of shape (n, d).
        y: training targets of shape (n,).

    Raises:
        ValueError: as :class:`ExactModel`, and if the data do not suit the inducing points.
    """
    check_data(x, y)
    strategy, noise = model.variational_strategy, model.likelihood.noise
    z = strategy.inducing_points
    _check_inducing(z, x)
    eye = torch.eye(len(z)).to(z)
    L = torch.linalg.cholesky(prior_covariance(model, z) + strategy.jitter_val * eye)
    A = torch.linalg.solve_triangular(L, model.covar_module(z, x).to_dense(), upper=False)
    B = torch.linalg.cholesky(eye + A @ A.mT / noise)
    mean = torch.cholesky_solve((A @ (y - model.mean_module(x)) / noise).unsqueeze(-1), B).squeeze(-1)
    q = strategy._variational_distribution
    q.variational_mean.copy_(mean)
    q.chol_variational_covar.copy_(torch.linalg.cholesky(torch.cholesky_inverse(B)))
    strategy.variational_params_initialized.fill_(1)  # else the first call would overwrite them


def variational_bound(model: VariationalModel, x: Tensor, y: Tensor) -> Tensor:
    """The ELBO of all data, in nats per datum: a scalar. The model is left in training mode.

    Raises:
        ValueError: as :class:`ExactModel`.
    """
    check_data(x, y)
    model.train()
    return gpytorch.mlls.VariationalELBO(model.likelihood, model, num_data=len(y))(model(x), y)


def trend_and_season() -> Kernel:
    r"""A smooth trend plus a yearly cycle, for inputs in years.

    :math:`k(x, x') = s_1 \exp(-\tfrac12 (x-x')^2/\ell_1^2) + s_2 \exp(-2 \sin^2(\pi(x-x')/p)/\ell_2)`, with
    GPyTorch's parametrisation of the periodic kernel. A new object at each call. The trend starts at
    :math:`\ell_1` = 10 years; the period :math:`p` is one year, to float32, and is not trained; the rest starts at the
    defaults.

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
        ValueError: if ``model`` has no kernel ``covar_module``, or ``x`` is not a finite matrix in the model's format.

    >>> x = torch.zeros(2, 1)
    >>> prior_covariance(ExactModel(x, torch.zeros(2)), x)
    tensor([[1., 1.],
            [1., 1.]])
    """
    if not isinstance(getattr(model, "covar_module", None), Kernel):
        raise ValueError(f"model must have a kernel, its covar_module; got {type(model).__name__} without one")
    _check_format(x, model.covar_module.dtype, model.covar_module.device)
    with torch.no_grad():
        return model.covar_module(x).to_dense()


def posterior(model: gpytorch.models.GP, x: Tensor) -> MultivariateNormal:
    """The posterior of the latent function at ``x``, of shape (m, d), computed afresh, without gradients.

    Caches of earlier predictions are dropped first, and the model and its likelihood are left in evaluation mode.

    Raises:
        ValueError: if ``model`` is neither an exact GP with training data of shapes (n, d) and (n,) nor a variational
            one, or ``x`` is not a finite matrix in its format and with its number of columns.

    >>> x = torch.linspace(0, 1, 3).unsqueeze(-1)
    >>> posterior(ExactModel(x, torch.zeros(3)), x).mean
    tensor([0., 0., 0.])
    """
    if isinstance(model, gpytorch.models.ApproximateGP):
        inputs = model.variational_strategy.inducing_points
    else:
        _check_exact(model)
        inputs = model.train_inputs[0]
    _check_format(x, inputs.dtype, inputs.device, inputs.shape[-1])
    model.train()
    model.eval()
    with torch.no_grad(), gpytorch.settings.debug(False):  # else it warns wherever x is the training inputs
        return model(x)


def marginal_likelihood(model: gpytorch.models.ExactGP) -> Tensor:
    """Log marginal likelihood of the training data, in nats per datum: a scalar. The model is left in training mode.

    This is GPyTorch's ``ExactMarginalLogLikelihood``, which divides by n and adds the log density of priors. It is one
    number for each data set; targets of shape (n, 1) are broadcast to n of them, each repeating one target.

    Raises:
        ValueError: if ``model`` is not an exact GP with training data.

    >>> x = torch.linspace(0, 1, 3).unsqueeze(-1)
    >>> marginal_likelihood(ExactModel(x, torch.zeros(3))).shape
    torch.Size([])
    """
    _check_exact(model, batch=True)
    model.train()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    return objective(model(*model.train_inputs), model.train_targets)


def bitwise_equal(a: gpytorch.models.ExactGP, b: gpytorch.models.ExactGP, x: Tensor) -> dict[str, bool]:
    """The null control: are two exact GPs equal in every bit of what they say about ``x``, of shape (m, d)?

    Raises:
        ValueError: as :func:`posterior`.

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


def _check_exact(model, batch: bool = False) -> None:
    if not isinstance(model, gpytorch.models.ExactGP) or model.train_inputs is None:
        raise ValueError(f"model must be an exact GP with training data; got {type(model).__name__}")
    targets = tuple(model.train_targets.shape)
    if len(targets) != 1 and not batch:
        raise ValueError(
            f"model must have targets of shape (n,); got {targets}: GPyTorch broadcasts those to n data sets"
        )


def _check_format(x: Tensor, dtype: torch.dtype, device: torch.device, columns: int | None = None) -> None:
    check_inputs("x", x)
    if x.dtype != dtype or x.device != device:
        raise ValueError(f"x must be in the model's format, {dtype} on {device}; got {x.dtype} on {x.device}")
    if columns not in (None, x.shape[1]):
        raise ValueError(f"x must have {columns} columns as the training inputs; got {x.shape[1]}")


def check_inputs(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a finite, non-empty floating-point matrix; ``name`` is for the message."""
    _check_tensor(name, x, "(n, d)")
    if x.dim() != 2:
        raise ValueError(f"{name} must have shape (n, d); got {tuple(x.shape)}")


def _check_inducing(z: Tensor, x: Tensor) -> None:
    check_inputs("z", z)
    if z.shape[1] != x.shape[1] or z.dtype != x.dtype or z.device != x.device:
        raise ValueError(
            f"z and x must agree in columns, dtype and device; got {z.shape[1]} {z.dtype} on {z.device} "
            f"and {x.shape[1]} {x.dtype} on {x.device}"
        )


def _check_tensor(name: str, tensor: Tensor, shape: str) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor of shape {shape}; got {_kind(tensor)}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has NaN or infinite entries")


def check_data(x: Tensor, y: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` and ``y`` are finite, of shapes (n, d) and (n,), and of one format."""
    _check_tensor("x", x, "(n, d)")
    _check_tensor("y", y, "(n,)")
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
