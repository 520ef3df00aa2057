"""The page "What you see": every row's symptom is shown and its fix is seen to work, or the row names a public source.

A test belongs to the row whose label it names: ``@row("see-nan-loss")``. Texts of errors and warnings are read from the
page, so that the page says what the pinned releases say.
"""

import copy
import functools
import io
import pickle
import re
import warnings
from pathlib import Path

import gpytorch
import numpy as np
import pytest
import sklearn.gaussian_process as sklearn_gp
import torch
from gpytorch import settings
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.kernels import (
    GridInterpolationKernel,
    IndexKernel,
    InducingPointKernel,
    MaternKernel,
    MultitaskKernel,
    PeriodicKernel,
    RBFKernel,
    RFFKernel,
    ScaleKernel,
    SpectralMixtureKernel,
)
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood, MultitaskGaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood, VariationalELBO
from gpytorch.priors import GammaPrior
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
from sklearn.gaussian_process import kernels as sklearn_kernels
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.inducing import greedy
from gpbook_utils.models import VariationalModel, set_optimal_q, variational_bound

PAGE = Path(__file__).parents[1] / "chapters" / "symptoms.md"
ROWS = {
    label: (heading, body)
    for label, heading, body in re.findall(
        r"^\((see-[\w-]+)\)=\n### (.+)\n((?:(?!^\(see-|^## ).*\n)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
}
SOURCE = re.compile(r"https://github\.com/[\w-]+/[\w-]+/(?:issues|pull)/\d+|`\w+(?:/\w+)+\.py`")
TESTS = {}


def row(label):
    """The decorated function shows the symptom of this row, and its fix."""

    def register(test):
        assert label not in TESTS, label
        TESTS[label] = test
        return test

    return register


def text(label):
    """A pattern for the message that the row's heading quotes; ``…`` stands for what varies."""
    quoted = re.search("`(?:\\w+Error: )?(.+)`", ROWS[label][0])[1]
    return "(?s)" + ".*".join(re.escape(part).replace(r"\ ", r"\s+") for part in quoted.split("…"))


# A user's program, as the tutorials write it -------------------------------------------------------


class Model(gpytorch.models.ExactGP):
    """The exact GP of GPyTorch's first tutorial; unlike the book's, it accepts whatever it is given."""

    def __init__(self, x, y, kernel=None, likelihood=None):
        super().__init__(x, y, GaussianLikelihood() if likelihood is None else likelihood)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = ScaleKernel(RBFKernel()) if kernel is None else kernel

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def points(n=20, dtype=torch.float64):
    x = torch.linspace(0, 1, n, dtype=dtype).unsqueeze(-1)
    return x, (6 * x[:, 0]).sin()


def double(*args, **kwargs):
    return Model(*args, **kwargs).double()


def loss(model):
    model.train()
    return -ExactMarginalLogLikelihood(model.likelihood, model)(model(*model.train_inputs), model.train_targets)


def train(model, steps, lr=0.1, objective=loss):
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        objective(model).backward()
        adam.step()
    return model


@torch.no_grad()
def predict(model, x):
    with settings.debug(False):
        return model.eval()(x)


def afresh(model, x):
    return predict(model.train(), x)


def kernel_matrix(kernel, x):
    return kernel(x).to_dense().detach()


def apart(a, b):
    return float((a - b).norm() / b.norm())


def of_seed(seed, make):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def seed_decides(make):
    """Whether two seeds differ and one repeats."""
    a, b, again = (of_seed(seed, make) for seed in (0, 1, 0))
    return torch.equal(a, again) and not torch.equal(a, b)


def single(value):
    return torch.tensor(value, dtype=torch.float64)


# The page -----------------------------------------------------------------------------------------


def test_the_page_has_rows_enough():
    assert len(ROWS) >= 40
    assert len(ROWS) == len(re.findall(r"^### ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("label", ROWS)
def test_every_row_says_what_moved_what_to_do_and_why(label):
    assert re.findall(r"^(\w+)\n: \S", ROWS[label][1], re.MULTILINE) == ["Moved", "Do", "Why"]


@pytest.mark.parametrize("label", ROWS)
def test_every_row_is_shown_or_names_its_source(label):
    assert label in TESTS or SOURCE.search(ROWS[label][1]), f"write a test for {label}, or name a thread"


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch says so once, of KISS-GP
@pytest.mark.parametrize("label", TESTS)
def test_row(label):
    assert label in ROWS, f"no row of the page has the label {label}"
    TESTS[label]()


def test_names_of_the_libraries_exist():
    names = set(re.findall(r"\b((?:gpytorch|torch|np\.random)\.[\w.]*\w)\(", PAGE.read_text(encoding="utf-8")))
    assert len(names) > 10
    for name in names:
        first, *rest = name.split(".")
        functools.reduce(getattr, rest, {"gpytorch": gpytorch, "torch": torch, "np": np}[first])


def test_the_tool_is_called_as_the_page_says():
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    x, y = points()
    a, b = double(x, y), double(x, y)
    for model in (a, b):
        predict(model, x + 0.01)
    a.covar_module.base_kernel.lengthscale = 0.2
    names = {"a": a, "b": b, "m": a, "x": x + 0.01}
    exec(code, names)
    assert explain_difference(a, b, x + 0.01).findings
    assert [finding.cause for finding in check_model(a, x + 0.01).findings] == ["stale-cache"]


# An error or a warning ----------------------------------------------------------------------------


def stretched(dtype, outputscale=1000.0):
    model = Model(*points(100, dtype)).to(dtype)
    model.covar_module.outputscale, model.likelihood.noise = outputscale, 1.01e-4
    return model


@row("see-not-psd")
def _():
    with pytest.raises(NotPSDError, match=text("see-not-psd")), pytest.warns(NumericalWarning):
        loss(stretched(torch.float32))
    assert loss(stretched(torch.float64)).isfinite()


@row("see-added-jitter")
def _():
    with pytest.warns(NumericalWarning) as rungs:
        loss(stretched(torch.float32, outputscale=200.0))
    assert re.search(text("see-added-jitter"), str(rungs[0].message))
    loss(stretched(torch.float64, outputscale=200.0))
    with warnings.catch_warnings(), pytest.raises(NumericalWarning):
        warnings.simplefilter("error", NumericalWarning)
        loss(stretched(torch.float32, outputscale=200.0))


@row("see-linalg-cholesky")
def _():
    K = kernel_matrix(RBFKernel().double(), points(50)[0])
    with pytest.raises(torch.linalg.LinAlgError, match=text("see-linalg-cholesky")):
        torch.linalg.cholesky(K)
    torch.linalg.cholesky(K + 1e-6 * torch.eye(len(K)))


@row("see-nan-elements")
def _():
    model = double(*points(3))
    model.covar_module.raw_outputscale.data.fill_(torch.nan)
    with pytest.raises(NanError, match=text("see-nan-elements")):
        loss(model)
    broken = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    assert broken == ["covar_module.raw_outputscale"]


@row("see-train-on-training-inputs")
def _():
    x, y = points()
    with pytest.raises(RuntimeError, match=text("see-train-on-training-inputs")):
        double(x, y)(x + 0.1)
    double(x, y).eval()(x + 0.1)
    x[3] = torch.nan
    with pytest.raises(RuntimeError, match=text("see-train-on-training-inputs")):
        double(x, y)(x)


@row("see-input-matches")
def _():
    x, y = points()
    with pytest.warns(gpytorch.utils.warnings.GPInputWarning, match=text("see-input-matches")):
        double(x, y).eval()(x)
    with settings.debug(False):
        double(x, y).eval()(x)


@row("see-dtype")
def _():
    x, y = points(dtype=torch.float32)
    with pytest.raises(RuntimeError, match=text("see-dtype")):
        predict(Model(x, y), points(5)[0])
    assert predict(Model(x.double(), y.double()).double(), points(5)[0]).mean.dtype == torch.float64


@row("see-flattening")
def _():
    x, y = points()
    with pytest.raises(RuntimeError, match=text("see-flattening")):
        predict(double(x, y[:, None]), x + 0.01)
    predict(double(x, y[:, None].squeeze(-1)), x + 0.01)


@row("see-scalar-outputs")
def _():
    x, y = points()
    with pytest.raises(RuntimeError, match=text("see-scalar-outputs")):
        loss(double(x, y[:, None])).backward()
    assert loss(double(x, y[:, None])).shape == (20,)
    loss(double(x, y[:, None].squeeze(-1))).backward()


@row("see-ard-num-dims")
def _():
    x = torch.zeros(4, 3)
    with pytest.raises(RuntimeError, match=text("see-ard-num-dims")):
        RBFKernel(ard_num_dims=2)(x).to_dense()
    RBFKernel(ard_num_dims=x.shape[-1])(x).to_dense()


@row("see-out-of-bounds")
def _():
    with pytest.raises(RuntimeError, match=text("see-out-of-bounds")):
        GaussianLikelihood().noise = 1e-5
    GaussianLikelihood(noise_constraint=GreaterThan(1e-6)).noise = 1e-5


def with_fixed_noise(noise=0.1, n=20):
    x, y = points(n)
    return double(x, y, likelihood=FixedNoiseGaussianLikelihood(torch.full((n,), noise, dtype=torch.float64))).eval()


@row("see-fixed-noise-size")
def _():
    model, x = with_fixed_noise(), points(7)[0]
    f = predict(model, x)
    with pytest.warns(gpytorch.utils.warnings.GPInputWarning, match=text("see-fixed-noise-size")):
        assert torch.equal(model.likelihood(f).variance, f.variance)
    added = model.likelihood(f, noise=torch.full((7,), 0.3, dtype=torch.float64)).variance - f.variance
    assert torch.allclose(added, single(0.3))


@row("see-small-noise")
def _():
    noise = torch.full((5,), 1e-8, dtype=torch.float64)
    with pytest.warns(NumericalWarning, match=text("see-small-noise")):
        assert not torch.equal(FixedNoiseGaussianLikelihood(noise).noise, noise)
    with settings.min_fixed_noise(double_value=1e-10):
        assert torch.equal(FixedNoiseGaussianLikelihood(noise).noise, noise)


def smooth(dtype):
    model = Model(*points(100, dtype)).to(dtype)
    model.covar_module.outputscale, model.likelihood.noise = 100.0, 2e-4
    return model


@row("see-negative-rounded")
def _():
    f = predict(smooth(torch.float32), points(100, torch.float32)[0])
    with pytest.warns(NumericalWarning, match=text("see-negative-rounded")):
        assert f.variance.min() > 0 > f.covariance_matrix.diagonal().min()
    assert predict(smooth(torch.float64), points(100)[0]).covariance_matrix.diagonal().min() > 0


@row("see-cg-terminated")
def _():
    model = double(*points(50))
    model.covar_module.base_kernel.lengthscale, model.likelihood.noise = 0.1, 2e-4
    with settings.max_cholesky_size(0), settings.cg_tolerance(1e-9), settings.max_preconditioner_size(0):
        with pytest.warns(NumericalWarning, match=text("see-cg-terminated")):
            loss(model)
        with settings.max_cholesky_size(50):
            loss(model)


@row("see-grid-bounds")
def _():
    x, y = points(30)

    def with_bounds(*bounds):
        return double(x, y, GridInterpolationKernel(RBFKernel(), grid_size=100, grid_bounds=[bounds]))

    with pytest.raises(RuntimeError, match=text("see-grid-bounds")):
        predict(with_bounds(0.0, 1.0), single([[3.0]]))
    assert predict(with_bounds(0.0, 4.0), single([[3.0]])).mean.isfinite()


@row("see-backward-twice")
def _():
    x, y = points()
    model = VariationalModel(x[::4]).eval()
    bound = VariationalELBO(model.likelihood, model, len(y))
    bound(model(x), y).backward()
    with pytest.raises(RuntimeError, match=text("see-backward-twice")):
        bound(model(x), y).backward()
    model.train()
    for _ in range(2):
        bound(model(x), y).backward()


@row("see-fantasy")
def _():
    x, y = points()
    model = double(x, y).eval()
    with pytest.raises(RuntimeError, match=text("see-fantasy")):
        model.get_fantasy_model(x[:1] + 0.01, y[:1])
    model(x + 0.01)
    assert model.get_fantasy_model(x[:1] + 0.01, y[:1]).train_targets.shape == (21,)


@row("see-cannot-modify")
def _():
    model = double(*points(5))
    with pytest.raises(RuntimeError, match=text("see-cannot-modify")):
        model.set_train_data(*points(7))
    model.set_train_data(*points(7), strict=False)
    assert loss(model).isfinite()


# A number that cannot be --------------------------------------------------------------------------


@row("see-negative-variance")
def _():
    assert predict(smooth(torch.float32), points(100, torch.float32)[0]).covariance_matrix.diagonal().min() < 0
    assert predict(smooth(torch.float64), points(100)[0]).covariance_matrix.diagonal().min() > 0


@row("see-nan-loss")
def _():
    x, y = points()
    y[3] = torch.nan
    assert loss(double(x, y)).isnan()
    keep = y.isfinite() & x.isfinite().all(-1)
    assert loss(double(x[keep], y[keep])).isfinite()


@row("see-0693")
def _():
    model = double(*points())
    for value in (model.covar_module.outputscale, model.covar_module.base_kernel.lengthscale):
        assert f"{value.item():.3f}" == "0.693"
    assert f"{model.likelihood.noise.item():.3f}" == "0.693"
    model.covar_module.outputscale = 1.0
    assert model.covar_module.outputscale.item() == 1


@row("see-noise-floor")
def _():
    x, y = points()

    def noise(likelihood):
        model = double(x, y, likelihood=likelihood)
        model.likelihood.noise = 2e-4
        return train(model, 60).likelihood.noise.item()

    assert noise(GaussianLikelihood()) > 1e-4
    assert noise(GaussianLikelihood(noise_constraint=GreaterThan(1e-6))) < 1e-4


@functools.cache
def wiggle(lengthscale):
    """A model of a quick sine, trained from this lengthscale."""
    x, _ = points(40)
    model = double(x, (40 * x[:, 0]).sin())
    model.covar_module.base_kernel.lengthscale = lengthscale
    return train(model, 150)


@row("see-constant-prediction")
def _():
    constant, right = wiggle(0.693), wiggle(0.05)
    x = constant.train_inputs[0]
    assert predict(constant, x).mean.std() < 0.01 < 1 < constant.covar_module.base_kernel.lengthscale.item()
    assert predict(right, x).mean.std() > 0.5
    assert loss(right) < loss(constant)


@row("see-loss-scale")
def _():
    model = double(*points())
    joint = model.likelihood(model(*model.train_inputs)).log_prob(model.train_targets)
    assert torch.isclose(-loss(model) * 20, joint)
    model.covar_module.base_kernel.lengthscale, model.likelihood.noise = 0.3, 1e-3
    assert loss(model) < 0


@row("see-narrow-intervals")
def _():
    x = points(200)[0]
    y = (6 * x[:, 0]).sin() + 0.3 * torch.from_numpy(np.random.default_rng(0).standard_normal(200))
    model = double(x[::2], y[::2])
    model.covar_module.base_kernel.lengthscale, model.likelihood.noise = 0.3, 0.09
    f = predict(model, x[1::2])

    def missed(distribution):
        low, high = distribution.confidence_region()
        return ((y[1::2] < low) | (y[1::2] > high)).double().mean()

    assert missed(f) > 0.3
    assert missed(model.likelihood(f)) < 0.15


@row("see-writing-ignored")
def _():
    kernel = RBFKernel().double()
    kernel.lengthscale.data.fill_(0.3)
    assert kernel.lengthscale.item() != 0.3
    kernel.lengthscale = single(0.3)
    assert abs(kernel.lengthscale.item() - 0.3) < 1e-15


@row("see-raw")
def _():
    kernel = RBFKernel()
    kernel.raw_lengthscale.data.fill_(0.3)
    assert abs(kernel.lengthscale.item() - 0.3) > 0.5
    kernel.lengthscale = 0.3
    assert abs(kernel.lengthscale.item() - 0.3) < 1e-6


@row("see-timestamps")
def _():
    t = 1.7e9 + 60 * torch.arange(5, dtype=torch.float64)
    assert len(t.float().unique()) < 5
    assert len((t - t[0]).float().unique()) == 5


@row("see-std-transformed")
def _():
    scaler = StandardScaler().fit([[10.0], [14.0], [18.0]])
    std = 0.1
    assert scaler.inverse_transform([[std]]) > scaler.mean_
    assert np.isclose(std * scaler.scale_, scaler.inverse_transform([[1 + std]]) - scaler.inverse_transform([[1]]))


# Two results differ before training ---------------------------------------------------------------

X = points(6, torch.float32)[0]


@row("see-random-kernel")
def _():
    assert seed_decides(lambda: kernel_matrix(MultitaskKernel(RBFKernel(), num_tasks=2), X))
    tasks = torch.tensor([[0], [1]])
    assert seed_decides(lambda: kernel_matrix(IndexKernel(num_tasks=2, rank=1), tasks))
    assert torch.equal(*(of_seed(seed, lambda: kernel_matrix(RBFKernel(), X)) for seed in (0, 1)))


@row("see-spectral-mixture")
def _():
    x, y = points(30, torch.float32)

    def kernel(from_data=True):
        mixture = SpectralMixtureKernel(num_mixtures=3)
        if from_data:
            mixture.initialize_from_data(x, y)
        return mixture

    assert seed_decides(lambda: kernel_matrix(kernel(), x))
    model = train(Model(x, y, kernel(from_data=False)), 5)
    assert len(model.covar_module.mixture_means.unique()) == 1


@row("see-random-features")
def _():
    assert seed_decides(lambda: kernel_matrix(RFFKernel(20, num_dims=1), X))
    late, early = RFFKernel(20), RFFKernel(20, num_dims=1)
    assert "randn_weights" in early.state_dict()
    assert "randn_weights" not in late.state_dict()


class Deep(Model):
    """A GP on features of a small network with dropout."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.network = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 2))

    def forward(self, x):
        return super().forward(self.network(x))


@row("see-deep-kernel")
def _():
    x, y = points(dtype=torch.float32)
    assert seed_decides(lambda: predict(Deep(x, y), x).mean)


@row("see-dropout")
def _():
    x, y = points(dtype=torch.float32)
    model = Deep(x, y)
    with torch.random.fork_rng():
        assert not torch.equal(model(x).covariance_matrix, model(x).covariance_matrix)
        assert torch.equal(predict(model, x).covariance_matrix, predict(model, x).covariance_matrix)


@row("see-prior-for-posterior")
def _():
    x, y = points()
    model = double(x, y)
    assert model(x).mean.std() == 0
    assert predict(model, x).mean.std() > 0.1


@row("see-diagonal")
def _():
    model = double(*points())
    f = predict(model, points()[0] + 0.01)
    difference = model.likelihood(f).covariance_matrix - f.covariance_matrix
    assert torch.allclose(difference, model.likelihood.noise * torch.eye(20, dtype=torch.float64))


@row("see-stale-mean")
def _():
    x, y = points()
    model = double(x, y)
    predict(model, x + 0.01)
    model.covar_module.base_kernel.lengthscale = 0.2
    stale, fresh = predict(model, x + 0.01), afresh(model, x + 0.01)
    assert torch.equal(stale.covariance_matrix, fresh.covariance_matrix)
    assert apart(stale.mean, fresh.mean) > 0.01
    assert model.train().eval().prediction_strategy is None


@row("see-stale-targets")
def _():
    x, y = points()
    model = double(x, y)
    before = predict(model, x + 0.01).mean
    model.train_targets = -y
    assert torch.equal(predict(model, x + 0.01).mean, before)
    model.set_train_data(targets=-y)
    assert torch.equal(predict(model, x + 0.01).mean, -before)


@row("see-scale-kernel")
def _():
    scaled, plain = ScaleKernel(RBFKernel()), RBFKernel()
    ratio = kernel_matrix(scaled, X) / kernel_matrix(plain, X)
    assert torch.allclose(ratio, torch.tensor(0.693), atol=1e-3)
    scaled.outputscale = 1.0
    assert torch.allclose(kernel_matrix(scaled, X), kernel_matrix(plain, X))


@row("see-assigned-float")
def _():
    kernel = RBFKernel().double()
    kernel.lengthscale = 0.3
    assert 1e-9 < abs(kernel.lengthscale.item() - 0.3) < 1e-7
    kernel.lengthscale = single(0.3)
    assert abs(kernel.lengthscale.item() - 0.3) < 1e-15


@row("see-active-dims")
def _():
    x = torch.tensor([[0.0, 0.3], [0.5, 0.1]])
    late = ScaleKernel(RBFKernel())
    late.base_kernel.active_dims = torch.tensor([0])
    assert torch.equal(kernel_matrix(late, x), kernel_matrix(ScaleKernel(RBFKernel()), x))
    early = kernel_matrix(ScaleKernel(RBFKernel(active_dims=[0])), x)
    assert torch.equal(early, kernel_matrix(ScaleKernel(RBFKernel()), x[:, :1]))
    assert not torch.equal(early, kernel_matrix(late, x))


@row("see-scaled-inputs")
def _():
    x, y = points()
    far = 1000 * x
    assert kernel_matrix(RBFKernel().double(), far).sum() == 20  # the identity: nothing is near
    assert predict(train(double(far, y), 100), far + 20).mean.std() < 0.1
    assert predict(train(double(x, y), 100), x + 0.02).mean.std() > 0.5


@row("see-company")
def _():
    x, y = points(50, torch.float32)
    model, here = Model(x, y), points(5, torch.float32)[0] + 0.01
    far = torch.cat([here, torch.tensor([[1e5]])])
    assert apart(predict(model, far).mean[:5], predict(model, here).mean) > 0.01
    model = Model(x.double(), y.double()).double()
    assert apart(predict(model, far.double()).mean[:5], predict(model, here.double()).mean) < 1e-4


@row("see-automatic-grid")
def _():
    x, y = points(30)
    here = single([[0.33], [0.71]])
    far = torch.cat([here, single([[30.0]])])

    def means(at, **grid):
        kernel = GridInterpolationKernel(RBFKernel(), num_dims=1, **grid)
        return predict(double(x, y, kernel), at).mean[:2]

    assert apart(means(far, grid_size=50), means(here, grid_size=50)) > 0.1
    fixed = {"grid_size": 500, "grid_bounds": [(0.0, 40.0)]}
    assert apart(means(far, **fixed), means(here, **fixed)) < 1e-6


@row("see-no-grad")
def _():
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    kernel = MaternKernel(nu=0.5, ard_num_dims=2)  # the root makes a small rounding error large
    with_gradients = kernel(x).to_dense()
    with torch.no_grad():
        without, again = kernel(x).to_dense(), kernel(x).to_dense()
    assert torch.equal(without, again)
    assert torch.equal(without.diagonal(), torch.ones(200))
    assert 1e-6 < (with_gradients - without).abs().max() < 1e-2


@row("see-fixed-noise-same-size")
def _():
    model = with_fixed_noise()
    f = predict(model, points()[0] + 5)
    assert torch.allclose(model.likelihood(f).variance - f.variance, single(0.1))
    given = model.likelihood(f, noise=torch.full((20,), 0.3, dtype=torch.float64))
    assert torch.allclose(given.variance - f.variance, single(0.3))


@row("see-noise-std")
def _():
    std, at = 0.02, points()[0]
    wrong, right = (predict(with_fixed_noise(noise), at).variance.max() for noise in (std, std**2))
    assert wrong > 5 * right


@row("see-multitask-noise")
def _():
    f = MultitaskMultivariateNormal(torch.zeros(3, 2), 1e-6 * torch.eye(6))
    both = MultitaskGaussianLikelihood(num_tasks=2)
    both.noise = 0.1
    assert both(f).variance.min() > 0.7
    both.task_noises = torch.tensor([0.2, 0.2])
    assert torch.allclose(both(f).variance, torch.tensor(0.3), atol=1e-4)
    one = MultitaskGaussianLikelihood(num_tasks=2, has_global_noise=False)
    one.task_noises = torch.tensor([0.2, 0.2])
    assert torch.allclose(one(f).variance, torch.tensor(0.2), atol=1e-4)


@row("see-inducing-points")
def _():
    x, y = points(100)
    y = (30 * x[:, 0]).sin()

    def sparse(z):
        model = VariationalModel(z)
        model.covar_module.lengthscale, model.likelihood.noise = single(0.05), single(0.01)
        set_optimal_q(model, x, y)
        return predict(model, x).mean

    def chosen(m, offset):
        kernel = RBFKernel().double()
        kernel.lengthscale = single(0.05)
        return greedy(x[offset::2], m, kernel)

    assert apart(sparse(x[:3]), sparse(x[-3:])) > 0.1
    assert apart(sparse(chosen(30, 0)), sparse(chosen(30, 1))) < 0.01


@row("see-svgp-untrained")
def _():
    x = points()[0]
    assert seed_decides(lambda: predict(VariationalModel(x[::4]), x).mean)
    a, b = (of_seed(seed, lambda: predict(VariationalModel(x[::4]), x).mean) for seed in (0, 1))
    assert (a - b).abs().max() < 0.01


# Two results differ after training ----------------------------------------------------------------


@row("see-shared-likelihood")
def _():
    x, y = points()

    def alone(shared):
        likelihood = GaussianLikelihood()
        a, b = (double(x, y, likelihood=likelihood if shared else None) for _ in range(2))
        before = b.likelihood.noise.item()
        train(a, 5)
        return b.likelihood.noise.item() == before

    assert alone(shared=False)
    assert not alone(shared=True)


def sgpr(z, x, y):
    likelihood = GaussianLikelihood()
    return double(x, y, InducingPointKernel(RBFKernel(), z, likelihood), likelihood)


@row("see-data-moved")
def _():
    x, y = points(30)
    before = x.clone()
    train(sgpr(x[::5].clone(), x, y), 3)
    assert torch.equal(x, before)
    train(sgpr(x[::5], x, y), 3)
    assert not torch.equal(x, before)


@row("see-two-optima")
def _():
    slow, fast = wiggle(0.693), wiggle(0.05)
    assert slow.covar_module.base_kernel.lengthscale > 10 * fast.covar_module.base_kernel.lengthscale
    assert loss(fast) < loss(slow)


@row("see-unfinished")
def _():
    def lengthscale(steps, lr):
        model = double(*points(), RBFKernel())
        model.likelihood.raw_noise.requires_grad_(False)
        return train(model, steps, lr).covar_module.lengthscale.item()

    assert abs(lengthscale(10, 0.1) / lengthscale(10, 0.05) - 1) > 0.05
    assert abs(lengthscale(150, 0.1) / lengthscale(150, 0.05) - 1) < 0.01


@row("see-tied-terms")
def _():
    def lengthscales(start):
        model = double(*points(), ScaleKernel(RBFKernel()) + ScaleKernel(RBFKernel()))
        model.covar_module.kernels[0].base_kernel.lengthscale = start
        train(model, 20)
        return [kernel.base_kernel.lengthscale.item() for kernel in model.covar_module.kernels]

    default = RBFKernel().lengthscale.item()
    tied, free = lengthscales(torch.tensor(default)), lengthscales(torch.tensor(3.0))
    assert abs(tied[0] - tied[1]) < 1e-3 < 1 < abs(free[0] - free[1])


@row("see-hyperprior")
def _():
    x, y = points()
    plain, informed = double(x, y, RBFKernel()), double(x, y, RBFKernel(lengthscale_prior=GammaPrior(3.0, 6.0)))
    assert torch.equal(plain(x).covariance_matrix, informed(x).covariance_matrix)
    assert loss(plain) != loss(informed)
    assert not list(plain.named_priors())
    assert list(informed.named_priors())


def epoch(loader_seed=None, drawn=0):
    x, y = points()
    torch.manual_seed(0)
    model = VariationalModel(x[::4])
    model(x)
    torch.randn(drawn)
    generator = None if loader_seed is None else torch.Generator().manual_seed(loader_seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    for batch in DataLoader(torch.utils.data.TensorDataset(x, y), 5, shuffle=True, generator=generator):
        adam.zero_grad()
        (-variational_bound(model, *batch)).backward()
        adam.step()
    return predict(model, x).mean


@row("see-svgp-runs")
def _():
    with torch.random.fork_rng():
        assert torch.equal(epoch(loader_seed=1), epoch(loader_seed=1))
        assert not torch.equal(epoch(loader_seed=1), epoch(loader_seed=2))


@row("see-one-more-draw")
def _():
    with torch.random.fork_rng():
        assert not torch.equal(epoch(), epoch(drawn=10))
        assert torch.equal(epoch(loader_seed=1), epoch(loader_seed=1, drawn=10))


@row("see-row-order-grows")
def _():
    x, y = points(40)

    def variational(order):
        model = VariationalModel(x[::2])
        model(x)
        return train(model, 100, objective=lambda m: -variational_bound(m, x[order], y[order]))

    def exact(order):
        return train(double(x[order], y[order], RBFKernel()), 100)

    def grown(make):
        covariances = (predict(of_seed(0, lambda o=order: make(o)), x + 0.01).covariance_matrix for order in orders)
        return apart(*covariances)

    orders = torch.arange(40), torch.arange(40).flip(0)
    assert grown(variational) > 1e-7
    assert grown(exact) < 1e-9


# Different after loading or copying ---------------------------------------------------------------


def saved(model):
    torch.save(model.state_dict(), file := io.BytesIO())
    file.seek(0)
    return torch.load(file)


@row("see-loaded-prior")
def _():
    x, y = points()
    model = train(double(x, y), 5)
    loaded = double(None, None)
    loaded.load_state_dict(saved(model))
    assert torch.equal(kernel_matrix(loaded.covar_module, x), kernel_matrix(model.covar_module, x))
    assert predict(loaded, x + 0.01).mean.std() == 0
    loaded.set_train_data(x, y, strict=False)
    assert torch.equal(afresh(loaded, x + 0.01).mean, afresh(model, x + 0.01).mean)


@row("see-loaded-scaled")
def _():
    x, y = points()
    centre, spread = 3 * x.mean(), 2 * x.std()
    model = train(double((x - centre) / spread, y), 5)
    loaded = double(x, y)
    loaded.load_state_dict(saved(model))
    new = x + 0.01
    assert not torch.allclose(predict(loaded, new).mean, predict(model, (new - centre) / spread).mean, atol=0.01)
    assert "scaled-inputs" in {finding.cause for finding in explain_difference(model, loaded, new).findings}
    loaded.set_train_data((x - centre) / spread, y, strict=False)
    new = (new - centre) / spread
    assert torch.equal(afresh(loaded, new).mean, afresh(model, new).mean)


@row("see-loaded-nu")
def _():
    rough, smooth = MaternKernel(nu=0.5), MaternKernel(nu=2.5)
    smooth.load_state_dict(rough.state_dict(), strict=True)
    assert not torch.allclose(kernel_matrix(smooth, X), kernel_matrix(rough, X), atol=0.01)


@row("see-not-strict")
def _():
    scaled, plain = ScaleKernel(RBFKernel()), RBFKernel()
    plain.lengthscale = 3.0
    result = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert scaled.base_kernel.lengthscale.item() != 3
    assert "raw_lengthscale" in result.unexpected_keys
    with pytest.raises(RuntimeError):
        scaled.load_state_dict(plain.state_dict())


@row("see-missing-keys")
def _():
    state = Model(*points(), RBFKernel()).state_dict()
    with pytest.raises(RuntimeError, match=text("see-missing-keys")):
        Model(*points()).load_state_dict(state)
    Model(*points(), RBFKernel()).load_state_dict(state)


@row("see-size-mismatch")
def _():
    state = Model(*points(), RBFKernel()).state_dict()
    with pytest.raises(RuntimeError, match=text("see-size-mismatch")):
        Model(*points(), RBFKernel(ard_num_dims=2)).load_state_dict(state)
    Model(*points(), RBFKernel(ard_num_dims=1)).load_state_dict(state)


@row("see-randn-weights")
def _():
    called = RFFKernel(20)
    kernel_matrix(called, X)
    with pytest.raises(RuntimeError, match=text("see-randn-weights")):
        RFFKernel(20).load_state_dict(called.state_dict())
    loaded = RFFKernel(20, num_dims=1)
    loaded.load_state_dict(called.state_dict())
    assert torch.equal(kernel_matrix(loaded, X), kernel_matrix(called, X))


@row("see-weights-only")
def _():
    x, y = points()
    model = double(x, y)
    torch.save(model, whole := io.BytesIO())
    whole.seek(0)
    with pytest.raises(pickle.UnpicklingError, match=text("see-weights-only")):
        torch.load(whole)
    torch.save({"state": model.state_dict(), "x": x, "y": y}, parts := io.BytesIO())
    parts.seek(0)
    read = torch.load(parts)
    rebuilt = double(read["x"], read["y"])
    rebuilt.load_state_dict(read["state"])
    assert torch.equal(predict(rebuilt, x + 0.01).mean, predict(model, x + 0.01).mean)


@row("see-graph-leaves")
def _():
    x = points()[0]
    model = VariationalModel(x[::4]).eval()
    model(x)
    with pytest.raises(RuntimeError, match=text("see-graph-leaves")):
        copy.deepcopy(model)
    copy.deepcopy(model.train())
    predict(model, x)
    copy.deepcopy(model)


@row("see-deepcopy")
def _():
    x, y = points()
    model = double(x, y)
    predict(model, x + 0.01)
    model.covar_module.base_kernel.lengthscale = 0.2
    copied = predict(copy.deepcopy(model), x + 0.01).mean
    assert not torch.equal(predict(model, x + 0.01).mean, copied)
    assert torch.equal(afresh(model, x + 0.01).mean, copied)


@row("see-sgpr-samples")
def _():
    x, y = points(30)
    collapsed = sgpr(x[::10].clone(), x, y)
    kernel = collapsed.covar_module
    kernel.base_kernel.lengthscale = 0.05  # three points can't explain what lies between them
    explicit = VariationalModel(kernel.inducing_points.detach(), copy.deepcopy(kernel.base_kernel))
    set_optimal_q(explicit, x, y)
    between = (x[5:6] + torch.tensor([[0.0], [1e-6]], dtype=x.dtype)).to(x)
    correlations = []
    for model in (collapsed, explicit):
        covariance = model.eval()(between).covariance_matrix
        correlations.append(covariance[0, 1] / covariance.diagonal().prod().sqrt())
    assert correlations[0] < 0.9 < 0.999 < correlations[1]


@row("see-sgpr-copy")
def _():
    x, y = points(30)
    model = sgpr(x[::5].clone(), x, y)
    before = model.likelihood.noise.item()
    copied = copy.deepcopy(model)
    assert copied.covar_module.likelihood is model.likelihood
    copied.covar_module.likelihood = copied.likelihood
    train(copied, 3)
    assert model.likelihood.noise.item() == before
    train(copy.deepcopy(model), 3)
    assert model.likelihood.noise.item() != before


@row("see-pickle-caches")
def _():
    x, y = points()
    model = double(x, y)
    predict(model, x + 0.01)
    model.covar_module.base_kernel.lengthscale = 0.2
    loaded = pickle.loads(pickle.dumps(model))
    stale = predict(loaded, x + 0.01).mean
    assert torch.equal(stale, predict(model, x + 0.01).mean)
    assert not torch.equal(stale, afresh(loaded, x + 0.01).mean)


# Another machine, another precision ---------------------------------------------------------------


@row("see-float32")
def _():
    def deviations(dtype):
        x, y = points(100, dtype)
        model = Model(x, y, likelihood=GaussianLikelihood(noise_constraint=GreaterThan(1e-9))).to(dtype)
        model.likelihood.noise = 1e-7
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)
            return predict(model, x + 0.003).covariance_matrix.diagonal().abs().double().sum()

    assert deviations(torch.float32) > 3 * deviations(torch.float64)


@row("see-svgp-jitter")
def _():
    x = points()[0]
    strategies = [VariationalModel(x.to(dtype)).variational_strategy for dtype in (torch.float32, torch.float64)]
    assert np.isclose(strategies[0].jitter_val, 100 * strategies[1].jitter_val)
    assert VariationalModel(x.float(), jitter=1e-6).variational_strategy.jitter_val == 1e-6


@row("see-threads")
def _():
    x, y = points(400)
    model, threads = double(x, y), torch.get_num_threads()
    model.likelihood.noise = 1e-3
    kappa = 1 + 0.693 * 400 / 1e-3
    try:
        said = []
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            said.append(afresh(model, x + 0.001).covariance_matrix)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(said[0], said[2])
    assert apart(said[1], said[0]) < 8 * 2**-53 * kappa


@row("see-randn-size")
def _():
    fifteen, sixteen = (of_seed(0, lambda n=n: torch.randn(n)) for n in (15, 16))
    assert not (fifteen == sixteen[:15]).any()
    fifteen, sixteen = (np.random.default_rng(0).standard_normal(n) for n in (15, 16))
    assert (fifteen == sixteen[:15]).all()


@row("see-deterministic")
def _():
    def said():
        return predict(double(*points(200)), points(50)[0] + 0.001).covariance_matrix

    before = said()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(said(), before)
    finally:
        torch.use_deterministic_algorithms(False)


# More than 800 points: the limit is lowered, to be quick; see-801-likelihood says that it is 800 ----

LIMIT = 60


def asked(model, times=2):
    with torch.no_grad():
        return [loss(model).item() for _ in range(times)]


@row("see-801-likelihood")
def _():
    assert settings.max_cholesky_size.value() == 800
    model = double(*points(801))
    with torch.random.fork_rng():
        assert len(set(asked(model))) == 2
        with settings.max_cholesky_size(801):
            assert len(set(asked(model))) == 1


@row("see-801-training")
def _():
    def trained():
        return train(double(*points(LIMIT + 1)), 3).covar_module.base_kernel.lengthscale.item()

    with torch.random.fork_rng(), settings.max_cholesky_size(LIMIT):
        assert trained() != trained()
        assert of_seed(0, trained) == of_seed(0, trained)
        with settings.max_cholesky_size(LIMIT + 1):
            assert trained() == trained()


@row("see-801-posterior")
def _():
    x, y = points(801)
    model = double(x, y)
    model.likelihood.noise = 2e-4
    said, again = (afresh(model, x[:20] + 3e-4).covariance_matrix for _ in range(2))
    with settings.max_cholesky_size(801):
        exact = afresh(model, x[:20] + 3e-4).covariance_matrix
    assert torch.equal(said, again)
    assert apart(said, exact) > 1
    assert torch.linalg.eigvalsh(said).min() < -1e-6


def observed(m):
    model = double(*points(10))
    model.likelihood.noise = single(0.1)
    model.eval()
    return model.likelihood(predict(model, points(m)[0]))


@row("see-801-test-samples")
def _():
    def noise(m):
        """Its variance, from differences of neighbours."""
        sample = of_seed(0, lambda: observed(m).sample())
        return float((sample[1:] - sample[:-1]).var() / 2)

    assert abs(noise(800) - 0.1) < 0.02
    assert noise(801) < 0.001
    assert (observed(801).variance > 0.1).all()
    with settings.max_cholesky_size(801):
        assert abs(noise(801) - 0.1) < 0.02
    with settings.ciq_samples():
        assert abs(noise(801) - 0.1) < 0.02


@row("see-801-test-density")
def _():
    x, y = points(LIMIT + 1)
    p = observed(LIMIT + 1)
    with torch.random.fork_rng(), settings.max_cholesky_size(LIMIT):
        assert p.log_prob(y) != p.log_prob(y)
        assert len({torch.distributions.Normal(p.mean, p.stddev).log_prob(y).mean().item() for _ in range(2)}) == 1


class Hadamard(Model):
    """Multitask: the second column of the inputs is the index of the task."""

    def forward(self, x):
        covariance = self.covar_module(x[:, :1]).mul(self.tasks(x[:, 1:].long()))
        return MultivariateNormal(self.mean_module(x), covariance)

    def __init__(self, x, y):
        super().__init__(x, y)
        self.tasks = IndexKernel(num_tasks=2, rank=1)


class Kronecker(gpytorch.models.ExactGP):
    """Multitask: all tasks at all inputs."""

    def __init__(self, x, y):
        super().__init__(x, y, MultitaskGaussianLikelihood(num_tasks=2))
        self.mean_module = gpytorch.means.MultitaskMean(gpytorch.means.ConstantMean(), num_tasks=2)
        self.covar_module = MultitaskKernel(RBFKernel(), num_tasks=2, rank=1)

    def forward(self, x):
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


@row("see-801-tasks")
def _():
    x, y = points(LIMIT // 2 + 1)
    index = torch.arange(2, dtype=torch.float64).repeat_interleave(len(x)).unsqueeze(-1)
    stacked = torch.cat([x.repeat(2, 1), index], 1)
    with torch.random.fork_rng(), settings.max_cholesky_size(LIMIT):
        hadamard = Hadamard(stacked, y.repeat(2)).double()
        assert len(set(asked(hadamard))) == 2
        with settings.max_cholesky_size(len(stacked)):
            assert len(set(asked(hadamard))) == 1
        assert len(set(asked(Kronecker(x, torch.stack([y, -y], -1)).double()))) == 1


@row("see-fast-pred-var")
def _():
    x, y = points(LIMIT + 1)
    model = double(x, y, MaternKernel(nu=0.5))
    model.likelihood.noise = 2e-4
    exact = afresh(model, x + 0.003).variance

    def fast(rank=5):
        with settings.fast_pred_var(), settings.max_root_decomposition_size(rank):
            return afresh(model, x + 0.003).variance

    with torch.random.fork_rng(), settings.max_cholesky_size(LIMIT):
        assert not torch.equal(fast(), fast())
        assert apart(fast(40), exact) < apart(fast(), exact)
        with settings.max_cholesky_size(LIMIT + 1):
            assert torch.equal(fast(), fast())


@row("see-2000")
def _():
    assert settings.min_preconditioning_size.value() == 2000
    model = double(*points(LIMIT + 1))

    def scatter(size):
        with settings.min_preconditioning_size(size):
            return np.std(asked(model, times=8))

    with settings.max_cholesky_size(LIMIT):
        late, early = (of_seed(0, lambda size=size: scatter(size)) for size in (LIMIT + 2, LIMIT + 1))
    assert early < late / 10


# Another library ----------------------------------------------------------------------------------


@row("see-sklearn-periodic")
def _():
    x, kernel = points(7)[0], PeriodicKernel().double()
    kernel.period_length = single(0.7)

    def difference(lengthscale):
        kernel.lengthscale = single(lengthscale)
        other = sklearn_kernels.ExpSineSquared(length_scale=0.5, periodicity=0.7)(x.numpy())
        return np.abs(kernel_matrix(kernel, x).numpy() - other).max()

    assert difference(0.5) > 0.1
    assert difference(0.5**2) < 1e-12


def regressor(alpha=0.1, **kwargs):
    x, y = points()
    kernel = sklearn_kernels.ConstantKernel(2.0) * sklearn_kernels.RBF(0.3)
    fitted = sklearn_gp.GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None, **kwargs)
    return fitted.fit(x.numpy(), (5 + 3 * y).numpy())


@row("see-sklearn-names")
def _():
    x, y = points()
    model = double(x, 5 + 3 * y)
    model.mean_module = gpytorch.means.ZeroMean()
    model.covar_module.outputscale, model.likelihood.noise = single(2.0), single(0.1)
    model.covar_module.base_kernel.lengthscale = single(0.3)
    mean, std = regressor().predict(x.numpy() + 0.01, return_std=True)
    f = predict(model, x + 0.01)
    assert np.abs(f.mean.numpy() - mean).max() < 1e-10
    assert np.abs(f.stddev.numpy() - std).max() < 1e-10


@row("see-sklearn-normalize")
def _():
    x = points()[0].numpy() + 0.01
    y = 5 + 3 * points()[1].numpy()
    plain, normalised = (regressor(normalize_y=flag).predict(x, return_std=True)[1] for flag in (False, True))
    assert (normalised > 1.5 * plain).all()
    assert np.allclose(normalised, y.std() * plain)


@row("see-sklearn-psd")
def _():
    x = np.repeat(np.linspace(0, 1, 30), 2)[:, None]
    for alpha in (0, 1e-6):
        process = sklearn_gp.GaussianProcessRegressor(sklearn_kernels.RBF(5.0), alpha=alpha, optimizer=None)
        if alpha:
            process.fit(x, x[:, 0])
        else:
            with pytest.raises(np.linalg.LinAlgError, match=text("see-sklearn-psd")):
                process.fit(x, x[:, 0])


@row("see-sklearn-bound")
def _():
    x, y = (values.numpy() for values in points())

    def fitted(low):
        kernel = sklearn_kernels.RBF() + sklearn_kernels.WhiteKernel(0.1, noise_level_bounds=(low, 1))
        return sklearn_gp.GaussianProcessRegressor(kernel).fit(x, y).log_marginal_likelihood_value_

    with pytest.warns(match=text("see-sklearn-bound")):
        narrow = fitted(1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fitted(1e-8) > narrow
