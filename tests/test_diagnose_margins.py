"""Where a diagnosis draws its lines: rounding and faults, causes of one look, and what nobody can see."""

import gpytorch
import pytest
import torch
from diagnosed import data, exact, found, grid
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from kinds import HAS_BOTORCH, D, Exact
from test_diagnose_population import drawn

from gpbook_utils.diagnose import check_model, explain_difference

pytestmark = pytest.mark.filterwarnings("ignore")
with_botorch = pytest.mark.skipif(not HAS_BOTORCH, reason="BoTorch is not installed")

# Rounding ------------------------------------------------------------------------------------------------------------


def dated(dtype, lengthscale=0.3):
    """Thirteen years, written AD: the inputs are seven thousand lengthscales from zero."""
    x = torch.linspace(2000, 2013, 43, dtype=dtype).unsqueeze(-1)
    model = Exact(x, torch.sin(x.squeeze(-1)), RBFKernel()).to(dtype).eval()
    model.covar_module.lengthscale = torch.tensor(lengthscale, dtype=dtype)
    return model, x[::2] + 0.15


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_inputs_far_from_zero_are_rounded_in_the_prior_too(dtype):
    """Chapter 7: an entry of K errs by u times the distance from zero in lengthscales; and so a posterior by more."""
    (a, x), (b, _) = dated(dtype), dated(dtype)
    b.covar_module.raw_lengthscale.data.mul_(1 + torch.finfo(dtype).eps)
    report = explain_difference(a, b, x)
    moved, u = report.quantities["prior covariance"].before.relative, torch.finfo(dtype).eps / 2
    assert moved > 4 * 43 * u and report.findings == () and report.unexplained == {}
    b.covar_module.lengthscale = torch.tensor(0.31, dtype=dtype)
    assert found(explain_difference(a, b, x)) == ["parameter"]
    assert "prior covariance" in explain_difference(a, b, x).findings[0].effect


def test_of_inputs_near_zero_the_prior_is_known_to_some_roundings():
    assert check_model(exact(), grid()).rounding.levels["prior covariance"] < 4 * 30 * 2**-53


# Names of one look ---------------------------------------------------------------------------------------------------


def named(first, change, dtype=D):
    """What the lengthscales of two kernels are called, of which one was changed."""
    from gpbook_utils.diagnose.naming import kind_of_value

    a, b = (RBFKernel().to(dtype) for _ in range(2))
    for kernel in (a, b):
        kernel.lengthscale = torch.tensor(first, dtype=dtype)
    with torch.no_grad():
        change(b)
    return [kind_of_value(*pair, "raw_lengthscale", *(k.raw_lengthscale for k in pair)) for pair in ((a, b), (b, a))]


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("value", [0.3, 2.0, 12.0, 2000.0])  # of which a softplus leaves the last two as they are
@pytest.mark.parametrize("ulps", [1, 16, 256])
def test_a_few_units_in_the_last_place_are_neither_float32_nor_a_softplus(value, ulps, dtype):
    dose = 1 + ulps * torch.finfo(dtype).eps
    assert named(value, lambda kernel: kernel.raw_lengthscale.mul_(dose), dtype) == 2 * ["parameter"]


@pytest.mark.parametrize("value", [0.1, 0.3, 12.1, 1999.9])
def test_a_python_float_and_a_raw_value_are_named_from_either_side(value):
    assert named(value, lambda kernel: setattr(kernel, "lengthscale", value)) == 2 * ["rounded-float"]
    if value < 5:
        assert named(value, lambda kernel: kernel.raw_lengthscale.fill_(value)) == 2 * ["raw-vs-constrained"]


def test_values_that_look_alike_are_said_to_differ():
    a, b = exact(noise=1e-4), exact(noise=1e-4)
    b.covar_module.raw_lengthscale.data.mul_(1 + 2e-11)
    (finding,) = explain_difference(a, b, grid()).findings
    assert finding.cause == "parameter" and finding.a == finding.b
    assert "They are apart by 2.0e-11 of their size." in finding.explanation


# Real, though it looks like a false alarm ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [pytest.param(71, marks=with_botorch), 255])
def test_the_population_has_variances_below_the_floor_of_float32(seed):
    """Linear kernels near the origin: float64 confirms the variance that float32's ``.variance`` does not show."""
    model, x = drawn(seed)
    (finding,) = check_model(model, x).findings
    assert (finding.cause, finding.where) == ("variance-clamped", "gpytorch.settings.min_variance")
    wide = drawn(seed)[0].double().eval()
    with torch.no_grad():
        least = (wide.posterior if hasattr(wide, "posterior") else wide)(x.double()).variance.min()
    assert least < 0.5 * gpytorch.settings.min_variance.value(torch.float32)
    assert check_model(wide, x.double()).findings == ()


# What cannot be seen, and what decides --------------------------------------------------------------------------------


@with_botorch
def test_of_a_loaded_outcome_transform_a_model_by_itself_says_what_it_cannot_show():
    from botorch.models import SingleTaskGP

    x, y = data(n=12)
    loaded, healthy = (SingleTaskGP(x[:-1], y[:-1, None], outcome_transform=None) for _ in range(2))
    assert check_model(healthy.eval(), grid()).notes == ()
    full, loaded = SingleTaskGP(x, 40 * y[:, None]), SingleTaskGP(x[:-1], y[:-1, None])
    torch.nn.Module.load_state_dict(loaded, full.state_dict())
    report = check_model(loaded.eval(), grid())
    (note,) = report.notes
    assert report.findings == () and note.startswith("not covered: whether means and stdvs of outcome_transform belong")


def test_clustered_rows_that_are_no_exact_repeats_are_counted_and_tried_without():
    x, y = data(n=40, dtype=torch.float32)
    x, y = torch.cat([x, x + 1e-6]), torch.cat([y, y])

    def model(x, y):
        likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-12))
        likelihood.noise = 1e-11
        kernel = ScaleKernel(gpytorch.kernels.MaternKernel(0.5))
        kernel.outputscale, kernel.base_kernel.lengthscale = 400.0, 1.0
        return Exact(x, y, kernel, likelihood).eval()

    (finding,) = check_model(model(x, y), grid(dtype=torch.float32)).findings
    assert finding.cause == "not-positive-definite" and "40 of 80 rows nearly repeat another" in finding.a
    assert "With 40 rows, none of them close to another, it works." in finding.detail
