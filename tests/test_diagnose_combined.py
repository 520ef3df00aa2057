"""Two and three faults at once: all are found, also where one hides another, and nothing is left unexplained."""

import itertools

import gpytorch
import pytest
import torch
from diagnosed import Approximate, data, exact, found, grid, variational
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.variational import CholeskyVariationalDistribution, VariationalStrategy

from gpbook_utils.diagnose import check_model, explain_difference


def base():
    kernel = ScaleKernel(MaternKernel(2.5))
    model = exact(kernel, noise=0.1)
    kernel.base_kernel.lengthscale = torch.tensor(0.3, dtype=torch.float64)
    return model


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def lengthscale(model):
    model.covar_module.base_kernel.lengthscale = number(0.5)


def outputscale(model):
    model.covar_module.outputscale = number(1.7)


def noise(model):
    model.likelihood.noise = number(0.3)


def mean(model):
    model.mean_module.initialize(constant=0.4)


def smoothness(model):
    model.covar_module.base_kernel.nu = 1.5


def prior(model):
    gamma = gpytorch.priors.GammaPrior(3.0, 6.0).double()
    model.covar_module.register_prior("outputscale_prior", gamma, "outputscale")


def constraint(model):
    model.covar_module.base_kernel.register_constraint("raw_lengthscale", GreaterThan(0.05))


def targets(model):
    model.set_train_data(targets=model.train_targets.flip(0))


def inputs(model):
    model.set_train_data(model.train_inputs[0] * 1.5 - 0.1)


def column(model):
    model.train_targets = model.train_targets.unsqueeze(-1)


def no_data(model):
    model.train_inputs = model.train_targets = None


def training(model):
    model.train()


def single(model):
    model.float()


def stale(model):
    """Made last: a prediction, and an edit after it that is taken back by hand only in the parameters."""
    old = model.mean_module.raw_constant.detach().clone()
    model.mean_module.raw_constant.data.add_(1.0)
    model(grid(dtype=model.covar_module.raw_outputscale.dtype)).mean.sum()
    model.mean_module.raw_constant.data.copy_(old)


FAULTS = {
    "lengthscale": (lengthscale, "covar_module.base_kernel.raw_lengthscale"),
    "outputscale": (outputscale, "covar_module.raw_outputscale"),
    "noise": (noise, "likelihood.noise_covar.raw_noise"),
    "mean": (mean, "mean_module.raw_constant"),
    "smoothness": (smoothness, "covar_module.base_kernel.nu"),
    "prior": (prior, "covar_module.outputscale_prior"),
    "targets": (targets, "train_targets"),
    "inputs": (inputs, "train_inputs"),
    "no data": (no_data, "train_inputs"),
    "column": (column, "train_targets"),
    "training": (training, "training"),
    "single": (single, ""),
    "stale": (stale, "model_b: prediction_strategy"),
}
# These cannot be had together: one data set in two ways, a column that cannot be predicted from, the prior.
EXCLUDED = [
    {"no data", "targets"},
    {"no data", "inputs"},
    {"no data", "column"},
    {"no data", "stale"},
    {"column", "targets"},
    {"column", "stale"},
    {"training", "stale"},
]
PAIRS = [set(pair) for pair in itertools.combinations(FAULTS, 2) if set(pair) not in EXCLUDED]
TRIPLES = [set(t) for t in itertools.combinations(FAULTS, 3) if not any(excluded <= set(t) for excluded in EXCLUDED)]


def faulty(names):
    model = base()
    for name, (make, _) in FAULTS.items():  # in this order, the stale cache last
        if name in names:
            make(model)
    return model


def assert_all_found(names):
    report = explain_difference(base(), faulty(names), data()[0])
    places = {finding.where for finding in report.findings}
    missing = {name for name in names if FAULTS[name][1] not in places}
    assert not missing, f"missing {missing}\n{report}"
    assert len(report.findings) == len(names), f"too many\n{report}"
    assert report.unexplained == {}, str(report)


@pytest.mark.parametrize("names", PAIRS[::3], ids=lambda names: " and ".join(sorted(names)))
def test_two_faults_are_both_found(names):
    assert_all_found(names)


@pytest.mark.deep
@pytest.mark.parametrize("names", [p for i, p in enumerate(PAIRS) if i % 3], ids=lambda n: " and ".join(sorted(n)))
def test_every_other_pair_of_faults_is_found(names):
    assert_all_found(names)


@pytest.mark.parametrize("names", TRIPLES[::30], ids=lambda names: " and ".join(sorted(names)))
def test_three_faults_are_all_found(names):
    assert_all_found(names)


@pytest.mark.deep
@pytest.mark.parametrize("names", TRIPLES[5::12], ids=lambda names: " and ".join(sorted(names)))
def test_more_triples_of_faults_are_found(names):
    assert_all_found(names)


def test_faults_on_both_sides_are_found():
    a, b = faulty({"noise", "stale"}), faulty({"lengthscale", "targets"})
    report = explain_difference(a, b, grid())
    assert {f.where for f in report.findings} == {
        "model_a: prediction_strategy",
        "likelihood.noise_covar.raw_noise",
        "covar_module.base_kernel.raw_lengthscale",
        "train_targets",
    }
    assert report.unexplained == {}


def test_a_fault_that_another_hides_is_found():
    """Without training data neither noise nor a prior on it moves anything the second model says."""
    report = explain_difference(base(), faulty({"no data", "noise"}), grid())
    assert set(found(report)) == {"no-training-data", "parameter"}


def test_two_faults_that_cancel_have_no_effect_together_and_are_named_in_a_note():
    """Half the values twice as far scaled: the prior is the same."""
    a, b = base(), base()
    b.mean_module.raw_constant.data.fill_(0.0)
    kernel = b.covar_module.base_kernel
    raw = kernel.raw_lengthscale_constraint.inverse_transform(kernel.lengthscale.detach())
    kernel.register_constraint("raw_lengthscale", GreaterThan(number(0.1)))
    kernel.lengthscale = a.covar_module.base_kernel.lengthscale.detach()
    assert not torch.equal(kernel.raw_lengthscale.detach(), raw)
    report = explain_difference(a, b, grid())
    assert report.findings == () and "raw_lengthscale (constraint)" in " ".join(report.notes)


def test_combinations_in_variational_models():
    a, b = variational(), variational()
    b.variational_strategy.inducing_points.data.mul_(0.9)
    b.covar_module.lengthscale = number(0.3)
    b.variational_strategy._variational_distribution.variational_mean.data.mul_(0.8)
    report = explain_difference(a, b, grid())
    assert set(found(report)) == {"inducing-points", "parameter", "variational-distribution"}
    assert report.unexplained == {}


def test_combinations_in_one_model():
    model = base()
    model(grid()).mean.sum()
    noise(model)
    model.covar_module.kernel_table = None
    with gpytorch.settings.skip_posterior_variances():
        assert set(found(check_model(model, grid()))) == {"stale-cache", "setting"}
    torch.manual_seed(0)
    unfitted = Approximate(VariationalStrategy, CholeskyVariationalDistribution)
    unfitted.eval()
    twin = Approximate(VariationalStrategy, CholeskyVariationalDistribution).eval()
    twin.covar_module.outputscale = 2.0
    report = explain_difference(unfitted, twin, grid())
    assert {"random-initialisation", "parameter"} == set(found(report))
