"""The causes of the book, each as two sides that differ in nothing else; :mod:`gpbook_utils.budget` measures them.

One problem serves nearly all: every twelfth day of four years of Seattle's temperatures, a GP with hyperparameters near
those that training finds, and forty days to predict. "Trained" means fifty steps of Adam on the full batch from
GPyTorch's defaults. Where a cause needs more data or another model, its function says so.
"""

from __future__ import annotations

import copy
import io
import math
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from gpytorch import settings
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import InducingPointKernel, RBFKernel, RFFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.models import ApproximateGP, ExactGP
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor

from gpbook_utils import arguments, inducing
from gpbook_utils.budget import measuring
from gpbook_utils.budget.measuring import Cause, Sides, cause
from gpbook_utils.conditions import computing
from gpbook_utils.data import load
from gpbook_utils.machines.machine import COMPATIBLE, LOWERED, run_in
from gpbook_utils.models import (
    ExactModel,
    SparseModel,
    VariationalModel,
    marginal_likelihood,
    posterior,
    prior_covariance,
    set_optimal_q,
)
from gpbook_utils.training import fit, fit_in_turns, fit_restarts
from gpbook_utils.training.minibatches import INDUCING_POINTS, Minibatches, fit_minibatches

NULL, ROUNDING, SETTING = "null controls", "rounding and hardware", "settings of the library"
TRAINING, SPARSE, PROGRAM = "training", "inducing points", "the program"
DOUBLE = (torch.float64,)


# The common problem -------------------------------------------------------------------------------


def points(dtype: torch.dtype, step: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs in years since 2012, and standardised temperatures, of every ``step``-th day.

    >>> x, y = points(torch.float32)
    >>> x.shape, y.dtype
    (torch.Size([122, 1]), torch.float32)
    """
    arguments.format("dtype", dtype)
    arguments.whole("step", step)
    table = load("seattle")
    return table.x[::step].to(dtype), table.standardised[::step].to(dtype)


def stars(dtype: torch.dtype) -> Tensor:
    """Forty days to predict, in the first two years."""
    arguments.format("dtype", dtype)
    return torch.linspace(0.05, 2.15, 40, dtype=torch.float64).unsqueeze(-1).to(dtype)


def gp(
    dtype: torch.dtype,
    data: tuple[Tensor, Tensor] | None = None,
    *,
    lengthscale: float = 0.25,
    outputscale: float = 1.0,
    noise: float = 0.25,
    floor: float = 1e-4,
) -> ExactModel:
    """The common exact GP, of these data or of every twelfth day.

    Args:
        dtype: its format; hyperparameters are set as tensors of that format.
        data: inputs in years of shape (n, 1) and targets of shape (n,).
        lengthscale: in years.
        outputscale: a variance, in the unit of the targets squared.
        noise: a variance.
        floor: the least noise variance that the likelihood allows.

    Raises:
        ValueError: as :class:`gpbook_utils.models.ExactModel`, or for a number that is not positive.

    >>> round(gp(torch.float32, noise=0.5).likelihood.noise.item(), 5)
    0.5
    """
    arguments.format("dtype", dtype)
    numbers = {"lengthscale": lengthscale, "outputscale": outputscale, "noise": noise, "floor": floor}
    lengthscale, outputscale, noise, floor = (arguments.real(*number, above=0) for number in numbers.items())
    arguments.need(floor <= noise, "floor", f"at most the noise, {noise:g}", floor)
    data = points(dtype) if data is None else data
    arguments.need(isinstance(data, tuple) and len(data) == 2, "data", "a pair of inputs and targets", data)
    x, y = data
    model = ExactModel(x, y, ScaleKernel(RBFKernel()), GaussianLikelihood(noise_constraint=GreaterThan(floor)))
    model.covar_module.base_kernel.lengthscale = torch.tensor(lengthscale, dtype=dtype)
    model.covar_module.outputscale = torch.tensor(outputscale, dtype=dtype)
    model.likelihood.noise = torch.tensor(noise, dtype=dtype)
    return model


def fresh(dtype: torch.dtype, kernel=None, likelihood=None) -> ExactModel:
    """A GP of the common data at GPyTorch's defaults."""
    return ExactModel(*points(dtype), ScaleKernel(RBFKernel()) if kernel is None else kernel, likelihood)


@cache
def _trained(dtype: torch.dtype) -> ExactModel:
    model = fresh(dtype)
    fit(model, steps=50)
    return model


def trained(dtype: torch.dtype) -> ExactModel:
    """A copy of the common GP after fifty steps of Adam."""
    arguments.format("dtype", dtype)
    return copy.deepcopy(_trained(dtype))


def says(model) -> dict[str, Tensor]:
    """What a GP of the common data says of the common points."""
    arguments.instance("model", model, ExactGP, "an exact GP")
    dtype = model.train_targets.dtype
    return measuring.says(model, points(dtype)[0], stars(dtype))


def _gaussian(predicted: MultivariateNormal) -> dict[str, Tensor]:
    return {"covariance": predicted.covariance_matrix.detach(), "mean": predicted.mean.detach()}


def _two_seeds(side: Callable[[], dict[str, Tensor]]) -> Sides:
    """One side under each of two states of torch's random generator, which is restored."""

    def after(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return side()

    with torch.random.fork_rng(devices=[]):
        return after(0), after(1)


@contextmanager
def _quiet():
    """Without the warnings about jitter and clamped variances, where these are what is measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        yield


def _only(side: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: side[name] for name in names}


def sparse_says(model) -> dict[str, Tensor]:
    """What a variational GP of the common data says of the common points: prior and posterior."""
    arguments.instance("model", model, ApproximateGP, "a variational GP")
    dtype = model.covar_module.dtype
    return {"prior": prior_covariance(model, points(dtype)[0]), **_gaussian(posterior(model, stars(dtype)))}


# Null controls ------------------------------------------------------------------------------------


@cause("the same thing twice", NULL, chapter=1)
def twice(dtype: torch.dtype) -> Sides:
    """Two models, built by two equal lines."""
    return says(gp(dtype)), says(gp(dtype))


@cause("Adam, another global seed", NULL, chapter=5)
def adam_seed(dtype: torch.dtype) -> Sides:
    """Full-batch training under two states of torch's random generator, which is restored."""

    def side():
        model = fresh(dtype)
        fit(model, steps=50)
        return says(model)

    return _two_seeds(side)


# Rounding and hardware ----------------------------------------------------------------------------


@cause("row order of the data", ROUNDING, chapter=7)
def row_order(dtype: torch.dtype) -> Sides:
    """The training rows reversed; the prior is brought back into order before it is compared."""
    x, y = points(dtype)
    a, b = gp(dtype), gp(dtype, (x.flip(0), y.flip(0)))
    turned = measuring.says(b, x.flip(0), stars(dtype))
    return says(a), turned | {"prior": turned["prior"].flip(0, 1)}


@cause("two threads for one", ROUNDING, chapter=9)
def threads(dtype: torch.dtype) -> Sides:
    """Every second day, so that the products are large enough to be split; the number of threads is restored."""
    with computing(1):
        a = says(gp(dtype, points(dtype, step=2)))
    with computing(2):
        return a, says(gp(dtype, points(dtype, step=2)))


@cache
def _elsewhere() -> dict[torch.dtype, dict[str, Tensor]]:
    """What the common GP says in a process with an old instruction set and one thread."""
    code = "from gpbook_utils.budget.causes import _report; _report()"
    return torch.load(io.BytesIO(run_in(LOWERED | COMPATIBLE, code)), weights_only=True)


def _report() -> None:
    """In that process: write the sides to standard output."""
    torch.save({dtype: says(gp(dtype)) for dtype in measuring.FORMATS}, sys.stdout.buffer)


@cause("an old instruction set", ROUNDING, chapter=9)
def instructions(dtype: torch.dtype) -> Sides:
    """This process against one in which ATen and MKL may use their oldest instructions, and one thread."""
    return says(gp(dtype)), _elsewhere()[dtype]


@cause("gradients on, two lengthscales", ROUNDING, chapter=7)
def grad_mode(dtype: torch.dtype) -> Sides:
    """The prior of a kernel with two lengthscales, with and without ``torch.no_grad``."""
    x = points(dtype)[0]
    x, kernel = torch.cat([x, x % 1], -1), RBFKernel(ard_num_dims=2).to(dtype)
    with torch.no_grad():
        quiet = kernel(x).to_dense()
    return {"prior": quiet}, {"prior": kernel(x).to_dense().detach()}


@cause("float32 for float64", ROUNDING, chapter=7, formats=[torch.float32])
def single(dtype: torch.dtype) -> Sides:
    """The whole computation in float32 against float64."""
    b = says(gp(dtype))
    return says(gp(torch.float64)), {name: value.double() for name, value in b.items()}


@cause("years AD for years since 2012", ROUNDING, chapter=7)
def years_ad(dtype: torch.dtype) -> Sides:
    """The same days counted from another origin, before the cast."""
    (x, y), far = points(torch.float64), stars(torch.float64)
    moved = (x + 2012).to(dtype)
    return says(gp(dtype)), measuring.says(gp(dtype, (moved, y.to(dtype))), moved, (far + 2012).to(dtype))


@cause("a far date in the call", ROUNDING, chapter=7)
def far_date(dtype: torch.dtype) -> Sides:
    """A date in the year 9999 among those to predict, whose row is then dropped."""
    model, sentinel = gp(dtype), torch.full((1, 1), 7988.0, dtype=dtype)
    alone, together = (posterior(model, x) for x in (stars(dtype), torch.cat([stars(dtype), sentinel])))
    return _gaussian(alone), _gaussian(together[:40])


@cause("a Python float assigned", PROGRAM, chapter=2, formats=DOUBLE)
def assigned_float(dtype: torch.dtype) -> Sides:
    """A lengthscale of 0.3, as a tensor and as a float, which GPyTorch rounds to float32."""
    a, b = gp(dtype, lengthscale=0.3), gp(dtype)
    b.covar_module.base_kernel.lengthscale = 0.3
    return says(a), says(b)


@cause("the noise floor, made in float32", ROUNDING, chapter=2, formats=DOUBLE)
def noise_floor(dtype: torch.dtype) -> Sides:
    """The least noise of a default likelihood against the number 1e-4."""
    a, b = gp(dtype, noise=1e-4, floor=1e-6), gp(dtype)
    b.likelihood.noise_covar.raw_noise.data.fill_(-1e3)  # where softplus is zero
    return says(a), says(b)


# Settings of the library --------------------------------------------------------------------------


def _many(dtype: torch.dtype) -> ExactModel:
    """The first 801 days: one more than GPyTorch factorises."""
    x, y = points(dtype, step=1)
    return gp(dtype, (x[:801], y[:801]))


def _covariance(model) -> dict[str, Tensor]:
    return _gaussian(posterior(model, stars(model.train_targets.dtype)))


@cause("801 points, likelihood twice", SETTING, chapter=6)
def probes(dtype: torch.dtype) -> Sides:
    """One model of 801 points, asked for its likelihood under two seeds; the generator is restored."""
    model = _many(dtype)
    return _two_seeds(torch.no_grad()(lambda: {"likelihood": marginal_likelihood(model).reshape(1)}))


@cause("801 points, iterative solves", SETTING, chapter=6)
def iterative(dtype: torch.dtype) -> Sides:
    """Cholesky against GPyTorch's default for 801 points."""
    with settings.max_cholesky_size(801):
        exact = _covariance(_many(dtype))
    return exact, _covariance(_many(dtype))


@cause("801 points, LOVE twice", SETTING, chapter=6)
def love(dtype: torch.dtype) -> Sides:
    """Lanczos variance estimates under two seeds; the generator is restored."""
    with settings.fast_pred_var():
        return _two_seeds(lambda: _only(_covariance(_many(dtype)), "covariance"))


def under_jitters(dtype: torch.dtype, noise: float) -> Sides:
    """Two settings of the jitter that a failed Cholesky factorisation gets, at this noise; every fourth day."""

    def side(value: float) -> dict[str, Tensor]:
        with _quiet(), settings.cholesky_jitter(value, value):
            return _covariance(gp(dtype, points(dtype, step=4), noise=noise, floor=1e-20))

    return side(1e-6), side(1e-4)


@cause("jitter for hardly any noise", SETTING, chapter=8)
def jitter(dtype: torch.dtype) -> Sides:
    """No noise to speak of, so that the factorisation fails and the jitter decides."""
    return under_jitters(dtype, noise=1e-18)


@cause("a variance below the clamp", SETTING, chapter=8)
def clamp(dtype: torch.dtype) -> Sides:
    """Variances of targets in a large unit: the diagonal of the matrix against ``variance``, which has a floor."""
    x, y = points(dtype)
    unit = {torch.float64: 1e-6, torch.float32: 1e-4}[dtype]
    model = gp(dtype, (x, unit * y), outputscale=unit**2, noise=unit**2 / 4, floor=1e-20)
    predicted = posterior(model, stars(dtype))
    with _quiet():
        clamped = predicted.variance
    return {"covariance": predicted.covariance_matrix.diagonal()}, {"covariance": clamped}


# Training -----------------------------------------------------------------------------------------


@cache
def _after(dtype: torch.dtype, *, steps: int, lr: float = 0.1) -> dict[str, Tensor]:
    model = fresh(dtype)
    fit(model, steps=steps, lr=lr)
    return says(model)


@cause("half the learning rate", TRAINING, chapter=3)
def learning_rate(dtype: torch.dtype) -> Sides:
    """Fifty steps at rates 0.1 and 0.05."""
    return says(trained(dtype)), _after(dtype, steps=50, lr=0.05)


@cause("fifty steps for a hundred", TRAINING, chapter=3)
def stopping(dtype: torch.dtype) -> Sides:
    """Where training stops."""
    return _after(dtype, steps=100), says(trained(dtype))


@cause("Adam for L-BFGS", TRAINING, chapter=3)
def optimiser(dtype: torch.dtype) -> Sides:
    """L-BFGS to the optimum against a hundred steps of Adam."""
    return optimum(dtype), _after(dtype, steps=100)


def optimum(dtype: torch.dtype) -> dict[str, Tensor]:
    """What the common GP says where L-BFGS ends, from GPyTorch's defaults."""
    arguments.format("dtype", dtype)

    def make_model(batch_shape):
        model = fresh(dtype, _batched(batch_shape))
        return model, model.likelihood

    start = {"likelihood.noise": torch.tensor([0.5], dtype=dtype)}
    model, _ = fit_restarts(make_model, start, optimizer="lbfgs", tol=1e-7).model(0)
    return says(model)


def seven(lengthscale: float) -> ExactModel:
    """Seven points from a GP (chapter 3), trained to an optimum from a lengthscale and a noise variance of a half."""
    lengthscale = arguments.real("lengthscale", lengthscale, above=0)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.sort(rng.uniform(-5, 5, 7))).unsqueeze(-1)
    K = torch.exp(-0.5 * (x - x.mT) ** 2) + 0.1 * torch.eye(7, dtype=x.dtype)
    y = torch.linalg.cholesky(K) @ torch.from_numpy(rng.standard_normal(7))

    def make_model(batch_shape):
        model = ExactModel(x, y, RBFKernel(batch_shape=batch_shape))
        model.mean_module.requires_grad_(False)
        return model, model.likelihood

    start = {"covar_module.lengthscale": torch.tensor([lengthscale]), "likelihood.noise": torch.tensor([0.5])}
    return fit_restarts(make_model, start, optimizer="lbfgs", tol=1e-7).model(0)[0]


@cause("a start at another optimum", TRAINING, chapter=3, formats=DOUBLE)
def two_optima(dtype: torch.dtype) -> Sides:
    """Seven points from two starts, each trained until the gradient vanishes."""
    a, b = (seven(start) for start in (1.0, 10.0))
    x, line = a.train_inputs[0], torch.linspace(-6, 6, 40, dtype=dtype).unsqueeze(-1)
    return measuring.says(a, x, line), measuring.says(b, x, line)


@cache
def _variational(dtype: torch.dtype) -> Minibatches:
    """Three SVGPs of every fourth day: one, one with another order of minibatches, one with another start of q(u)."""
    x, y = points(dtype, step=4)
    z = inducing.random(x, 15, seed=0).expand(3, -1, -1)
    return fit_minibatches(
        _make_variational(z[0]), x, y, {INDUCING_POINTS: z}, batch_size=64, seeds=[0, 0, 1], orders=[0, 1, 0],
        steps=250, lr=0.02,
    )  # fmt: skip


def _batched(batch_shape: torch.Size) -> ScaleKernel:
    return ScaleKernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape)


def _make_variational(z: Tensor):
    def make_model(batch_shape):
        model = VariationalModel(z, _batched(batch_shape))
        return model, model.likelihood

    return make_model


@cause("minibatch order, SVGP", TRAINING, chapter=5)
def batch_order(dtype: torch.dtype) -> Sides:
    """An SVGP under two orders of its minibatches, all else equal."""
    a, b = (sparse_says(_variational(dtype).model(member)[0]) for member in (0, 1))
    return a, b


@cause("seed of q(u), SVGP", TRAINING, chapter=5)
def q_start(dtype: torch.dtype) -> Sides:
    """An SVGP under two seeds of its variational distribution, all else equal."""
    a, b = (sparse_says(_variational(dtype).model(member)[0]) for member in (0, 2))
    return a, b


@cause("row order, SVGP trained", TRAINING, chapter=10)
def grown_order(dtype: torch.dtype) -> Sides:
    """An SVGP trained on the full batch, whose rows come in two orders: a sum in real numbers is the same."""
    x, y = points(dtype)
    z = inducing.random(x, 15, seed=0).expand(2, -1, -1)
    runs = fit_minibatches(
        _make_variational(z[0]), x, y, {INDUCING_POINTS: z}, batch_size=len(x), orders=[0, 1], steps=400, lr=0.02
    )
    a, b = (sparse_says(runs.model(member)[0]) for member in (0, 1))
    return a, b


# Inducing points ----------------------------------------------------------------------------------


def sparse(dtype: torch.dtype, seed: int, m: int = 10, jitter: float | None = None) -> VariationalModel:
    """An SVGP with the common hyperparameters, random inducing points and the optimal q(u)."""
    (x, y), other = points(dtype), gp(dtype)
    model = VariationalModel(inducing.random(x, m, seed=seed), other.covar_module, other.likelihood, jitter=jitter)
    set_optimal_q(model, x, y)
    return model


@cause("inducing points, SVGP", SPARSE, chapter=4)
def inducing_svgp(dtype: torch.dtype) -> Sides:
    """Two draws of ten inducing points, nothing trained."""
    return sparse_says(sparse(dtype, seed=0)), sparse_says(sparse(dtype, seed=1))


@cause("inducing points, SGPR", SPARSE, chapter=4)
def inducing_sgpr(dtype: torch.dtype) -> Sides:
    """Two draws of ten inducing points in the kernel itself."""

    def side(seed: int) -> dict[str, Tensor]:
        (x, y), other = points(dtype), gp(dtype)
        return says(SparseModel(x, y, inducing.random(x, 10, seed=seed), other.covar_module, other.likelihood))

    return side(0), side(1)


@cause("jitter of the inducing points", SPARSE, chapter=4)
def variational_jitter(dtype: torch.dtype) -> Sides:
    """GPyTorch's jitter for float64 against that for float32, on twenty points."""
    a, b = (sparse(dtype, seed=0, m=20, jitter=value) for value in (1e-6, 1e-4))
    return sparse_says(a), sparse_says(b)


@cause("random features, two seeds", SPARSE, chapter=2)
def random_features(dtype: torch.dtype) -> Sides:
    """The prior of a kernel that draws fifty random features; the generator is restored."""

    @torch.no_grad()
    def side():
        kernel = RFFKernel(num_samples=50, num_dims=1).to(dtype)
        kernel.lengthscale = torch.tensor(0.25, dtype=dtype)
        return {"prior": kernel(points(dtype)[0]).to_dense()}

    return _two_seeds(side)


# The program --------------------------------------------------------------------------------------


@cause("one likelihood for two models", PROGRAM, chapter=1)
def shared_likelihood(dtype: torch.dtype) -> Sides:
    """Two models trained in turn, holding one likelihood."""
    one = GaussianLikelihood()
    a, b = fresh(dtype, likelihood=one), fresh(dtype, likelihood=one)
    fit_in_turns(a, b, steps=50)
    return says(a), says(b)


@cause("one kernel for two models", PROGRAM, chapter=2)
def shared_kernel(dtype: torch.dtype) -> Sides:
    """A model trained alone, and one whose kernel another model trains as well."""
    a, b = (fresh(dtype, kernel) for kernel in [ScaleKernel(RBFKernel())] * 2)
    fit_in_turns(a, b, steps=50)
    return says(trained(dtype)), says(a)


@cause("inducing points that are the data", PROGRAM, chapter=4)
def aliased(dtype: torch.dtype) -> Sides:
    """SGPR whose inducing points are a slice of the inputs, trained, against one with a clone."""

    def side(own: bool) -> dict[str, Tensor]:
        x, y = (t.clone() for t in points(dtype, step=4))
        z, noise = x[::24], GaussianLikelihood()
        kernel = InducingPointKernel(ScaleKernel(RBFKernel()), z.clone() if own else z, noise)
        model = ExactModel(x, y, kernel, noise)
        with _quiet():
            fit(model, steps=20)
            return measuring.says(model, x, stars(dtype))

    return side(True), side(False)


@cause("raw value for constrained", PROGRAM, chapter=2)
def raw_value(dtype: torch.dtype) -> Sides:
    """A quarter assigned to the raw lengthscale."""
    model = gp(dtype)
    model.covar_module.base_kernel.raw_lengthscale.data.fill_(0.25)
    return says(gp(dtype)), says(model)


@cause("outputscale left at its default", PROGRAM, chapter=2)
def default_outputscale(dtype: torch.dtype) -> Sides:
    """An outputscale of log 2, which a fresh ``ScaleKernel`` has, for one."""
    return says(gp(dtype)), says(gp(dtype, outputscale=math.log(2)))


@cause("training mode for evaluation", PROGRAM, chapter=2)
def mode(dtype: torch.dtype) -> Sides:
    """What a model call returns: the posterior at the training inputs, or the prior."""
    model, x = gp(dtype), points(dtype)[0]
    evaluated = posterior(model, x)
    with torch.no_grad():
        return _gaussian(evaluated), _gaussian(model.train()(x))


@cause("y for f", PROGRAM, chapter=2)
def f_or_y(dtype: torch.dtype) -> Sides:
    """The latent function against observations of it, in the prior and in the posterior."""
    model = gp(dtype)
    f = says(model)
    eye, sigma2 = torch.eye(len(f["prior"]), dtype=dtype), model.likelihood.noise.detach()
    y = {"prior": f["prior"] + sigma2 * eye, "covariance": f["covariance"] + sigma2 * eye[:40, :40], "mean": f["mean"]}
    return _only(f, *y), y


@cause("targets of shape (n, 1)", PROGRAM, chapter=2)
def column(dtype: torch.dtype) -> Sides:
    """Fifty steps on targets that GPyTorch takes for n data sets."""
    model = fresh(dtype)
    y = model.train_targets
    model.set_train_data(targets=y.unsqueeze(-1), strict=False)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(50):
        adam.zero_grad()
        (-marginal_likelihood(model).mean()).backward()
        adam.step()
    model.set_train_data(targets=y, strict=False)
    return says(trained(dtype)), says(model)


@cause("a stale cache", PROGRAM, chapter=2)
def stale(dtype: torch.dtype) -> Sides:
    """A lengthscale edited after a prediction, with and without ``train(); eval()``."""
    used = gp(dtype, lengthscale=1.0)
    posterior(used, stars(dtype))
    used.covar_module.base_kernel.lengthscale = torch.tensor(0.25, dtype=dtype)
    with torch.no_grad():
        predicted = used(stars(dtype))
    return _only(says(gp(dtype)), "covariance", "mean"), _gaussian(predicted)


@cause("a state_dict without the data", PROGRAM, chapter=2)
def no_data(dtype: torch.dtype) -> Sides:
    """A model that was loaded from a file and given no data: it predicts the prior."""
    loaded = gp(dtype)
    loaded.train_inputs = loaded.train_targets = None
    loaded.load_state_dict(gp(dtype).state_dict())
    with torch.no_grad():
        predicted = loaded.eval()(stars(dtype))
    side = {"prior": prior_covariance(loaded, points(dtype)[0]), **_gaussian(predicted)}
    return _only(says(gp(dtype)), *side), side


@cause("noise variance off by 1 %", "yardstick", chapter=7)
def yardstick(dtype: torch.dtype) -> Sides:
    """No mistake that anybody would notice: a scale to read the others by."""
    return says(gp(dtype)), says(gp(dtype, noise=0.2525))


CAUSES = tuple(found for found in list(globals().values()) if isinstance(found, Cause))  # as they stand here
