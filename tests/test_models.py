"""Data, models and training: what they promise, and what bad input gets."""

import math

import gpytorch
import pytest
import torch

from gpbook_utils import data
from gpbook_utils.models import (
    ExactModel,
    bitwise_equal,
    marginal_likelihood,
    posterior,
    prior_covariance,
    trend_and_season,
)
from gpbook_utils.training import fit, fit_in_turns

X = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(-1)
Y = torch.sin(6 * X).squeeze(-1)


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    yield
    after = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_tables():
    co2, seattle = data.load("co2"), data.load("seattle", dtype=torch.float32)
    assert co2.x.shape == (521, 1) and co2.y.shape == (521,) and co2.x.dtype == torch.float64
    assert seattle.x.shape == (1461, 1) and seattle.y.dtype == torch.float32
    for table in (co2, seattle):
        assert (table.x.diff(dim=0) > 0).all() and torch.isfinite(table.y).all()
        assert table.source and table.licence == "public domain" and table.y_unit in repr(table)
        assert abs(table.standardised.mean()) < 1e-5 and table.standardised.std() == pytest.approx(1, rel=1e-5)
    assert co2.y.min() > 300 and co2.y.max() < 400  # ppm, 1958 to 2001
    assert co2.x[0] == pytest.approx(1958 + 2.5 / 12)
    assert seattle.x[366] == pytest.approx(366 / 365.25)  # 2012 was a leap year


def test_bad_tables():
    with pytest.raises(ValueError, match="name must be one of 'co2', 'seattle'; got 'co3'"):
        data.load("co3")
    with pytest.raises(ValueError, match="name must be one of"):
        data.load(["co2"])
    for dtype in (torch.int64, "float64"):
        with pytest.raises(ValueError, match="dtype"):
            data.load("co2", dtype=dtype)


def test_several_inputs_of_the_weather():
    table = data.load("seattle", inputs=["time", "minimum", "wind", "precipitation"])
    alone = data.load("seattle")
    assert table.x.shape == (1461, 4) and torch.equal(table.x[:, :1], alone.x) and torch.equal(table.y, alone.y)
    assert table.x[1].tolist()[1:] == [2.8, 4.5, 10.9] and table.x_unit == "year, °C, m/s, mm"
    assert torch.equal(data.load("seattle", inputs=["wind", "time"]).x, table.x[:, [2, 0]])
    assert alone.x.stride() == (1, 1) and table.x.is_contiguous()
    for wrong in ([], ["humidity"], "humidity", [1]):
        with pytest.raises(ValueError, match="inputs must be among 'time', 'minimum'"):
            data.load("seattle", inputs=wrong)
    with pytest.raises(ValueError, match="inputs must be among 'time' for 'co2'"):
        data.load("co2", inputs=["wind"])


@pytest.mark.parametrize("layout", data.LAYOUTS)
def test_synthetic_tables(layout):
    table, again = (data.synthetic(layout, 400, 3, seed=1) for _ in range(2))
    assert table.x.shape == (400, 3) and torch.equal(table.x, again.x) and torch.equal(table.y, again.y)
    assert not torch.equal(table.x, data.synthetic(layout, 400, 3, seed=2).x)
    gaps = torch.cdist(table.x, table.x).fill_diagonal_(torch.inf).amin(1).median()
    assert gaps < 0.04 if layout == "clusters" else gaps > 0.04  # five clusters are dense, a box is not
    smooth = data.synthetic(layout, 400, 3, seed=1, noise=0)
    assert 0.05 < (table.y - smooth.y).std() < 0.15 and torch.equal(smooth.x, table.x)
    assert data.synthetic(layout, 5, 2, dtype=torch.float32).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("layout", "n", "d", "options", "says"),
    [
        ("ball", 5, 2, {}, "layout must be one of 'box', 'clusters'; got 'ball'"),
        ("box", 0, 2, {}, "n must be a whole number, at least 1"),
        ("box", 5, 0, {}, "d must be a whole number, at least 1"),
        ("box", 5, 2, {"lengthscale": 0}, "lengthscale must be one finite real number, above 0"),
        ("box", 5, 2, {"noise": -1}, "noise must be one finite real number, at least 0"),
    ],
)
def test_bad_synthetic_tables_are_refused(layout, n, d, options, says):
    with pytest.raises(ValueError, match=says):
        data.synthetic(layout, n, d, **options)


def test_models_share_nothing_by_default():
    a, b = ExactModel(X, Y), ExactModel(X, Y)
    assert not {id(p) for p in a.parameters()} & {id(p) for p in b.parameters()}


@pytest.mark.parametrize("kernel", [gpytorch.kernels.RBFKernel, trend_and_season])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_null_control(kernel, dtype):
    a, b = (ExactModel(X.to(dtype), Y.to(dtype), kernel()) for _ in range(2))
    assert all(bitwise_equal(a, b, X.to(dtype)).values())
    fit_in_turns(a, b, steps=5)
    assert all(bitwise_equal(a, b, X.to(dtype)).values())
    b.likelihood.noise = 2 * b.likelihood.noise.detach()
    assert bitwise_equal(a, b, X.to(dtype)) == {"prior": True, "posterior": False, "likelihood": False}


def test_trend_and_season_starts_as_its_formula_says():
    """Ten years and one year; outputscales and the season's lengthscale are GPyTorch's default, log 2."""
    model, default = ExactModel(X, Y, trend_and_season()), math.log(2)
    gap = X - X.mT
    season = torch.exp(-2 * torch.sin(math.pi * gap) ** 2 / default)
    K = default * torch.exp(-((gap / 10) ** 2) / 2) + default * season
    torch.testing.assert_close(prior_covariance(model, X), K, rtol=1e-6, atol=0)  # defaults are set in float32


def test_trend_and_season_keeps_its_year():
    model = ExactModel(X, Y, trend_and_season())
    fit(model, steps=3)
    assert model.covar_module.kernels[1].base_kernel.period_length.item() == pytest.approx(1, abs=1e-6)
    assert model.covar_module.kernels[0].base_kernel.lengthscale.item() != 10


def test_the_marginal_likelihood_is_the_density_of_the_targets():
    model = ExactModel(X, Y)
    system = prior_covariance(model, X) + model.likelihood.noise.detach() * torch.eye(8)
    density = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=X.dtype), system).log_prob(Y)
    assert marginal_likelihood(model).item() == pytest.approx(density.item() / 8, rel=1e-12)


def test_the_posterior_is_the_textbook_formula_and_never_stale():
    model = ExactModel(X, Y)
    posterior(model, X)
    model.covar_module.lengthscale = 0.3  # after a prediction: GPyTorch's caches would be stale
    K = prior_covariance(model, X)
    gain = K @ torch.linalg.inv(K + model.likelihood.noise.detach() * torch.eye(8))
    result = posterior(model, X)
    assert torch.allclose(result.mean, gain @ Y, atol=1e-10)
    assert torch.allclose(result.covariance_matrix, K - gain @ K, atol=1e-10)


def test_training_in_turns_is_training_alone_unless_something_is_shared():
    a, b, alone = ExactModel(X, Y), ExactModel(X, Y), ExactModel(X, Y)
    losses = fit_in_turns(a, b, steps=10)
    assert torch.equal(losses[:, 0], fit(alone, steps=10)) and torch.equal(losses[:, 0], losses[:, 1])
    assert losses.shape == (10, 2) and losses[-1, 0] < losses[0, 0]
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    c, d = ExactModel(X, Y, likelihood=likelihood), ExactModel(X, Y, likelihood=likelihood)
    fit_in_turns(c, d, steps=10)
    assert not torch.equal(prior_covariance(c, X), prior_covariance(d, X))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y.unsqueeze(-1), r"Call y.squeeze\(-1\)"),
        (X.squeeze(-1), Y, r"x must have shape \(n, d\)"),
        (X, Y[:3], r"got \(8, 1\) and \(3,\)$"),
        (X[:3], Y, r"got \(3, 1\) and \(8,\)$"),
        (X, Y[:1], r"got \(8, 1\) and \(1,\)$"),  # squeezing would not help
        (X, Y.expand(2, 8).mT, r"got \(8, 1\) and \(8, 2\)$"),
        (X[:0], Y[:0], "x is empty"),
        (X, Y.float(), "one dtype"),
        (X.int(), Y, "x must be a dense floating-point tensor; got Tensor of torch.int32"),
        (X.numpy(), Y, "x must be a dense floating-point tensor; got ndarray"),
        (X, Y / 0, "y has 8 NaN or infinite entries of 8"),
    ],
)
def test_bad_data(x, y, message):
    with pytest.raises(ValueError, match=message):
        ExactModel(x, y)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.float(), "x must be in the model's format, torch.float64"),
        (X.squeeze(-1), r"x must have shape \(n, d\); got \(8,\)"),
        (X.tolist(), r"x must be a dense floating-point tensor of shape \(n, d\); got \[\["),
        (X / 0, "x has 8 NaN or infinite entries"),
        (X.expand(8, 2), "x must have 1 columns"),
    ],
)
def test_bad_inputs(x, message):
    with pytest.raises(ValueError, match=message):
        posterior(ExactModel(X, Y), x)


def test_bad_models():
    class Plain(gpytorch.models.ExactGP):
        pass

    for function in (lambda m: posterior(m, X), marginal_likelihood):
        for model in (torch.nn.Identity(), None, Plain(None, None, gpytorch.likelihoods.GaussianLikelihood())):
            with pytest.raises(ValueError, match="model must be an exact GP with training data"):
                function(model)
    with pytest.raises(ValueError, match=r"targets of shape \(n,\); got \(8, 1\)"):
        posterior(Plain(X, Y.unsqueeze(-1), gpytorch.likelihoods.GaussianLikelihood()), X)
    for options in ({"kernel": "rbf"}, {"kernel": gpytorch.kernels.RBFKernel}, {"likelihood": "a"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be an instance of a GPyTorch"):
            ExactModel(X, Y, **options)


def test_the_wrong_mode_is_named():
    with pytest.raises(ValueError, match="the model is in training mode and x is not its training inputs; call eval"):
        ExactModel(X, Y)(X + 1)


def test_bad_training():
    model = ExactModel(X, Y)
    before = [p.clone() for p in model.parameters()]
    wrong = [{"steps": 0}, {"steps": 2.0}, {"steps": True}, {"lr": 0}, {"lr": -1}, {"lr": math.inf}, {"lr": "a"}]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            fit(model, **options)
    with pytest.raises(ValueError, match="at least one model"):
        fit_in_turns()
    with pytest.raises(ValueError, match="model 1 must be an exact GP with training data; got Identity"):
        fit_in_turns(model, torch.nn.Identity())
    with pytest.raises(ValueError, match="model 0 has no parameter to train"):
        fit(ExactModel(X, Y).requires_grad_(False))
    assert all(map(torch.equal, before, model.parameters()))


def test_a_loss_that_is_not_finite_is_named():
    model = ExactModel(X, Y)
    model.mean_module.constant.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the loss of model 0 at step 0"):
        fit(model, steps=2)


def test_a_model_without_a_kernel():
    with pytest.raises(ValueError, match="model must be a GP with a kernel"):
        prior_covariance(torch.nn.Identity(), X)
