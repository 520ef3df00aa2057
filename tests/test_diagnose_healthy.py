"""False alarms: models and pairs that are healthy must give no finding, and nothing unexplained."""

import copy
import pickle

import gpytorch
import pytest
import torch
from diagnosed import (
    Approximate,
    N,
    approximate,
    batch,
    data,
    deep,
    exact,
    grid,
    hadamard,
    independent_tasks,
    loaded,
    matern,
    multitask,
    scaled,
    sparse,
    trained,
    variational,
)
from gpytorch.kernels import LinearKernel, MaternKernel, PeriodicKernel, RBFKernel, RQKernel, ScaleKernel
from gpytorch.variational import (
    CholeskyVariationalDistribution,
    DeltaVariationalDistribution,
    MeanFieldVariationalDistribution,
    NaturalVariationalDistribution,
    UnwhitenedVariationalStrategy,
    VariationalStrategy,
)

from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.models import ExactModel, trend_and_season


def fixed_noise():
    x, y = data()
    noise = torch.linspace(0.05, 0.2, N, dtype=torch.float64)
    model = ExactModel(x, y, likelihood=gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise))
    return model.eval()


def with_priors():
    kernel = RBFKernel(lengthscale_prior=gpytorch.priors.GammaPrior(3.0, 6.0))
    return exact(ScaleKernel(kernel, outputscale_prior=gpytorch.priors.NormalPrior(1.0, 0.5)))


def bounded():
    return exact(RBFKernel(lengthscale_constraint=gpytorch.constraints.Interval(0.01, 2.0)))


def float32():
    return exact(dtype=torch.float32)


def standardised():
    model = exact()
    targets = model.train_targets
    model.set_train_data(targets=(targets - targets.mean()) / targets.std())
    return model


MODELS = {
    "rbf": exact,
    "scaled": scaled,
    "matern 5/2": matern,
    "matern 3/2": lambda: matern(1.5),
    "matern 1/2": lambda: matern(0.5),
    "ard": lambda: exact(RBFKernel(ard_num_dims=3), d=3),
    "ard matern": lambda: matern(2.5, d=2),
    "sum": lambda: exact(ScaleKernel(RBFKernel()) + ScaleKernel(MaternKernel(1.5)), noise=0.1),
    "product": lambda: exact(RBFKernel() * PeriodicKernel()),
    "rational quadratic": lambda: exact(RQKernel()),
    "linear": lambda: exact(LinearKernel()),
    "trend and season": lambda: exact(trend_and_season()),
    "float32": float32,
    "float32 matern": lambda: matern(1.5, dtype=torch.float32),
    "small noise": lambda: exact(noise=1e-3),
    "fixed noise": fixed_noise,
    "priors": with_priors,
    "bounded": bounded,
    "standardised": standardised,
    "sparse": sparse,
    "variational": variational,
    "variational float32": lambda: variational(dtype=torch.float32),
    "fixed inducing points": lambda: variational(learn_inducing_locations=False),
    "trained variational": approximate,
    "unwhitened": lambda: approximate(UnwhitenedVariationalStrategy),
    "mean field": lambda: approximate(distribution=MeanFieldVariationalDistribution),
    "delta": lambda: approximate(distribution=DeltaVariationalDistribution),
    "natural": lambda: approximate(distribution=NaturalVariationalDistribution),
    "multitask": multitask,
    "batch": batch,
    "deep": deep,
    "independent tasks": independent_tasks,
    "hadamard": hadamard,
}


# The rest of the copies are made by `make test-deep`.
FEW = ("scaled", "float32", "sparse", "variational", "unwhitened", "multitask", "batch", "deep", "fixed noise")
COPIED = [name if name in FEW else pytest.param(name, marks=pytest.mark.deep) for name in MODELS]


def x_of(name):
    if name == "ard":
        return grid(d=3)
    if name == "ard matern":
        return grid(d=2)
    if name == "hadamard":
        return grid(), torch.arange(12).unsqueeze(-1) % 2
    return grid(dtype=torch.float32 if "float32" in name else torch.float64)


def assert_healthy(report):
    assert report.findings == () and report.unexplained == {}, str(report)
    assert report.verdict.startswith("equal up to rounding") and report.compared


def called(model, x):
    """The model after a prediction, with its caches filled."""
    output = model(*x) if isinstance(x, tuple) else model(x)
    output.mean.sum()
    output.covariance_matrix.sum()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_healthy_model_agrees_with_itself_before_and_after_a_prediction(name):
    model, x = MODELS[name](), x_of(name)
    assert_healthy(check_model(model, x))
    assert_healthy(check_model(called(model, x), x))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_one_built_alike_are_equal(name):
    a, b, x = MODELS[name](), MODELS[name](), x_of(name)
    assert_healthy(explain_difference(a, called(b, x), x))


@pytest.mark.parametrize("name", COPIED)
def test_a_model_and_its_copy_from_a_pickle_are_equal(name):
    a, x = MODELS[name](), x_of(name)
    assert_healthy(explain_difference(called(a, x), pickle.loads(pickle.dumps(MODELS[name]())), x))


@pytest.mark.parametrize("name", [name for name in COPIED if name != "sparse"])
def test_a_model_and_its_deep_copy_are_equal(name):
    a, x = MODELS[name](), x_of(name)
    assert_healthy(explain_difference(a, copy.deepcopy(a), x))


@pytest.mark.parametrize("name", ["rbf", "scaled", "sum", "ard", "multitask", "batch", "deep", "sparse"])
def test_a_trained_model_is_healthy_and_equal_to_one_that_loads_its_state(name):
    model, x = trained(MODELS[name]()), x_of(name)
    assert_healthy(check_model(model, x))
    assert_healthy(explain_difference(model, loaded(model, MODELS[name]), x))


@pytest.mark.parametrize("name", ["variational", "unwhitened", "mean field", "natural", "independent tasks"])
def test_a_variational_model_and_one_that_loads_its_state_are_equal(name):
    model = MODELS[name]()
    assert_healthy(explain_difference(model, loaded(model, MODELS[name]), x_of(name)))


@pytest.mark.parametrize("name", ["float32", "float32 matern", "variational float32"])
def test_float32_to_float64_and_back_changes_nothing(name):
    a, b, x = MODELS[name](), MODELS[name](), x_of(name)
    assert_healthy(explain_difference(a, called(b, x).double().float(), x))


def test_two_trainings_alike_end_equal():
    assert_healthy(explain_difference(trained(scaled()), trained(scaled()), grid()))


def test_rows_in_another_order_are_equal_up_to_rounding():
    a, b = exact(), exact()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    b.set_train_data(b.train_inputs[0][order], b.train_targets[order])
    report = explain_difference(a, b, grid())
    assert_healthy(report)
    assert "row-order" in report.notes[0]


def test_terms_of_a_sum_in_another_order_are_equal_up_to_rounding():
    a, b = exact(RBFKernel() + MaternKernel(1.5)), exact(MaternKernel(1.5) + RBFKernel())
    assert_healthy(explain_difference(a, b, grid()))


def test_a_value_that_went_through_its_inverse_transform_is_equal_up_to_rounding():
    a, b = exact(), exact()
    b.covar_module.lengthscale = b.covar_module.lengthscale.detach().clone()
    assert_healthy(explain_difference(a, b, grid()))


def test_shared_training_data_is_no_fault():
    x, y = data()
    assert_healthy(explain_difference(ExactModel(x, y).eval(), ExactModel(x, y).eval(), x[:5] + 0.01))


def test_classes_that_are_defined_twice_with_equal_code_are_one_class():
    def define():
        class Model(gpytorch.models.ExactGP):
            def __init__(self):
                x, y = data()
                super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
                self.mean_module = gpytorch.means.ConstantMean()
                self.covar_module = RBFKernel()

            def forward(self, x):
                return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

        return Model().double().eval()

    assert_healthy(explain_difference(define(), define(), grid()))


def test_inducing_points_that_are_overwritten_by_loading_do_not_matter():
    # cornellius-gp/gpytorch#1216: a maintainer says that any inducing points do, if a state is loaded afterwards.
    a = variational()
    b = variational(z=torch.zeros(8, 1, dtype=torch.float64), fitted=False)
    b.load_state_dict(a.state_dict())
    assert_healthy(explain_difference(a, b, grid()))


def test_parameters_without_effect_are_named_in_a_note_only():
    a, b = exact(), exact()
    b.covar_module.ignored = 3.0
    report = explain_difference(a, b, grid())
    assert_healthy(report)
    assert "covar_module.ignored" in " ".join(report.notes)


def test_a_model_and_itself_are_equal():
    model = exact()
    report = explain_difference(model, model, grid())
    assert_healthy(report)
    assert "same object" in report.notes[0]


def test_predicting_at_the_training_inputs_is_healthy():
    assert_healthy(check_model(exact(), data()[0]))


def test_one_row_and_a_vector_are_inputs_too():
    assert_healthy(check_model(exact(), grid(1)))
    assert_healthy(check_model(exact(), grid().squeeze(-1)))


def test_unfitted_exact_models_in_training_mode_are_equal():
    assert_healthy(explain_difference(ExactModel(*data()), ExactModel(*data()), data()[0]))


def test_a_likelihood_beside_the_model_is_used():
    from gpytorch.likelihoods import GaussianLikelihood

    def make():
        torch.manual_seed(2)
        model = Approximate(VariationalStrategy, CholeskyVariationalDistribution)
        del model.likelihood
        model.eval()(grid()).mean.sum()
        return model

    x, y = data()
    likelihoods = [GaussianLikelihood().double() for _ in range(2)]
    options = {"y": y, "likelihood_a": likelihoods[0], "likelihood_b": likelihoods[1]}
    report = explain_difference(make(), make(), x, **options)
    assert_healthy(report)
    assert "ELBO" in report.quantities
    likelihoods[1].noise = torch.tensor(0.01).double()
    report = explain_difference(make(), make(), x, **options)
    assert [(f.cause, f.where) for f in report.findings] == [("parameter", "likelihood.noise_covar.raw_noise")]
    assert "ELBO" in report.findings[0].effect
