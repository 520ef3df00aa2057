"""Models that nobody asked the tool about when it was written: each with one fault, and a twin without it."""

import functools
import math
import warnings

import gpytorch
import pytest
import torch
from diagnosed import Approximate, Deep, data, exact, found, grid, hadamard, scaled, variational
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.kernels import (
    AdditiveStructureKernel,
    ArcKernel,
    CosineKernel,
    GridInterpolationKernel,
    Kernel,
    LCMKernel,
    MaternKernel,
    PiecewisePolynomialKernel,
    PolynomialKernel,
    RBFKernel,
    RBFKernelGrad,
    RFFKernel,
    ScaleKernel,
    SpectralMixtureKernel,
)
from gpytorch.likelihoods import (
    BernoulliLikelihood,
    DirichletClassificationLikelihood,
    FixedNoiseGaussianLikelihood,
    GaussianLikelihood,
    MultitaskGaussianLikelihood,
    StudentTLikelihood,
)
from gpytorch.means import ConstantMean, ConstantMeanGrad, LinearMean, MultitaskMean, ZeroMean
from gpytorch.models import ExactGP
from gpytorch.priors import GammaPrior, LogNormalPrior
from gpytorch.variational import (
    CholeskyVariationalDistribution,
    LMCVariationalStrategy,
    TrilNaturalVariationalDistribution,
    VariationalStrategy,
)
from torch import nn

from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.models import ExactModel


def number(*values):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def edit(make, change):
    """Two ways to the model: as it is, and after ``change(model)``."""

    def changed():
        model = make()
        change(model)
        return model

    return make, changed


def mixture(number_of_mixtures=3):
    kernel = SpectralMixtureKernel(num_mixtures=number_of_mixtures).double()
    kernel.mixture_means = torch.linspace(0.5, 2.0, number_of_mixtures).double().reshape(-1, 1, 1)
    return exact(kernel)


def features(seed):
    torch.manual_seed(seed)
    return exact(ScaleKernel(RFFKernel(num_samples=6, num_dims=1)).double())


def interpolated(size=16):
    return exact(GridInterpolationKernel(RBFKernel(), grid_size=size, grid_bounds=[(-0.1, 1.1)]).double())


def on_columns(first, second):
    return exact(RBFKernel(active_dims=first) * MaternKernel(1.5, active_dims=second), d=3)


class Warped(Kernel):
    """A kernel of one's own, with a buffer, a dictionary and a function."""

    has_lengthscale = True

    def __init__(self, power=1.0, stretch=2.0, function=torch.sin):
        super().__init__()
        self.register_buffer("power", torch.tensor(power))
        self.options = {"stretch": stretch}
        self.function = function

    def forward(self, x1, x2, diag=False, **options):
        x1, x2 = (self.function(self.options["stretch"] * x.clamp_min(1e-3) ** self.power) for x in (x1, x2))
        return self.covar_dist(x1, x2, square_dist=True, diag=diag).div(-2 * self.lengthscale[0, 0] ** 2).exp()


class Calling(ExactModel):
    """A model whose forward calls something else on x first."""

    def __init__(self, before):
        super().__init__(*data())
        self.before = before

    def forward(self, x):
        return super().forward(self.before(x))


def stretch(x, by):
    return by * x


def hooked(by=None):
    layer = nn.Linear(1, 1).double()
    layer.weight.data.fill_(1.0), layer.bias.data.zero_()
    if by is not None:
        layer.register_forward_hook(functools.partial(lambda module, inputs, output, by: by * output, by=by))
    return Calling(layer).eval()


def parametrised():
    torch.manual_seed(0)
    return Calling(nn.utils.parametrizations.weight_norm(nn.Linear(1, 1).double())).eval()


class Stacked(ExactModel):
    """Its mean is the prediction of another exact GP."""

    def __init__(self, lengthscale):
        super().__init__(*data())
        self.other = exact(lengthscale=lengthscale)

    def forward(self, x):
        prior = super().forward(x)
        return MultivariateNormal(self.other.eval()(x).mean, prior.lazy_covariance_matrix)


class Tasks(ExactGP):
    """Two outputs with any kernel and mean."""

    def __init__(self, kernel, mean=None):
        x, y = data()
        super().__init__(x, torch.stack([y, y.cos()], -1), MultitaskGaussianLikelihood(num_tasks=2))
        self.mean_module = mean or MultitaskMean(ConstantMean(), 2)
        self.covar_module = kernel

    def forward(self, x):
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


def coregionalised():
    torch.manual_seed(1)
    return Tasks(LCMKernel([RBFKernel(), MaternKernel(1.5)], num_tasks=2, rank=1)).double().eval()


class Mixed(gpytorch.models.ApproximateGP):
    """Three outputs that mix two latent functions."""

    def __init__(self):
        shape = torch.Size([2])
        z = torch.linspace(0.1, 0.9, 4, dtype=torch.float64).unsqueeze(-1).repeat(2, 1, 1)
        inner = VariationalStrategy(self, z, CholeskyVariationalDistribution(4, batch_shape=shape))
        super().__init__(LMCVariationalStrategy(inner, num_tasks=3, num_latents=2))
        self.mean_module = ConstantMean(batch_shape=shape)
        self.covar_module = ScaleKernel(RBFKernel(batch_shape=shape), batch_shape=shape)

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def initialised(model):
    """After a call, by which q(u) is drawn, with a fixed mean of it."""
    torch.manual_seed(1)
    model.train()
    model(grid())
    return model.eval()


def classifier(likelihood=BernoulliLikelihood, distribution=CholeskyVariationalDistribution):
    torch.manual_seed(1)
    model = Approximate(distribution=distribution, m=6)
    model.likelihood = likelihood().double()
    return initialised(model)


class Classes(ExactGP):
    def __init__(self, epsilon=0.01):
        x, y = data()
        options = {"alpha_epsilon": epsilon, "learn_additional_noise": True, "dtype": torch.float64}
        likelihood = DirichletClassificationLikelihood((y > 0).long(), **options)
        super().__init__(x, likelihood.transformed_targets, likelihood)
        self.mean_module = ConstantMean(batch_shape=torch.Size([2]))
        self.covar_module = RBFKernel(batch_shape=torch.Size([2]))

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def fixed_noise(factor=1.0):
    x, y = data()
    noise = factor * torch.linspace(0.05, 0.2, len(y), dtype=torch.float64)
    return ExactModel(x, y, likelihood=FixedNoiseGaussianLikelihood(noise)).eval()


def heteroskedastic():
    x, y = data()
    noise = gpytorch.likelihoods.noise_models.HeteroskedasticNoise(ExactModel(x, y.square().add(0.01).log()).eval())
    likelihood = gpytorch.likelihoods.gaussian_likelihood._GaussianLikelihoodBase(noise_covar=noise)
    return ExactModel(x, y, likelihood=likelihood).eval()


def with_layer(*layers):
    torch.manual_seed(0)
    model = Deep()
    model.feature_extractor.extend(layers)
    return model.double().eval()


def with_mean(mean):
    model = exact()
    model.mean_module = mean.double()
    for parameter in model.mean_module.parameters():
        parameter.data.fill_(0.7)
    return model


def with_prior(prior, closure="lengthscale"):
    model = exact()
    model.covar_module.register_prior("own_prior", prior.double(), closure)
    return model


def log_of(module):
    return module.lengthscale.log().exp().square()


def through_float32(model):
    model.set_train_data(*(t.float().double() for t in (model.train_inputs[0], model.train_targets)))


# A twin without the fault, one with it, and the one finding to be made: its cause and place.
CASES = {
    "mixture": (*edit(mixture, lambda m: m.covar_module.raw_mixture_means.data[1].add_(0.3)),
                "parameter", "covar_module.raw_mixture_means"),
    "number of mixtures": (mixture, lambda: mixture(4), "shape", "covar_module"),
    "random features": (lambda: features(0), lambda: features(1),
                        "random-features", "covar_module.base_kernel.randn_weights"),
    "interpolation grid": (interpolated, lambda: interpolated(24), "buffer", "covar_module.grid_0"),
    "interpolated kernel": (*edit(interpolated, lambda m: m.covar_module.base_kernel.raw_lengthscale.data.add_(1)),
                            "parameter", "covar_module.base_kernel.raw_lengthscale"),
    "product on columns": (lambda: on_columns((0,), (1,)), lambda: on_columns((0,), (2,)),
                           "active-dims", "covar_module.kernels.1.active_dims"),
    "additive structure": (*edit(lambda: exact(AdditiveStructureKernel(RBFKernel(), num_dims=3), d=3),
                                 lambda m: m.covar_module.base_kernel.raw_lengthscale.data.add_(1)),
                           "parameter", "covar_module.base_kernel.raw_lengthscale"),
    "noise, and equal lengthscales in one or three": (lambda: exact(RBFKernel(ard_num_dims=3), d=3), lambda: exact(
        RBFKernel(), d=3, noise=0.3), "parameter", "likelihood.noise_covar.raw_noise"),
    "cosine": (*edit(lambda: exact(CosineKernel()), lambda m: setattr(m.covar_module, "period_length", number(0.9))),
               "parameter", "covar_module.raw_period_length"),
    "arc": (*edit(lambda: exact(ArcKernel(MaternKernel(2.5), ard_num_dims=3), d=3),
                  lambda m: m.covar_module.raw_angle.data.add_(0.7)), "parameter", "covar_module.raw_angle"),
    "degree": (lambda: exact(PolynomialKernel(2)), lambda: exact(PolynomialKernel(3)),
               "attribute", "covar_module.power"),
    "smoothness": (lambda: exact(PiecewisePolynomialKernel(q=2)), lambda: exact(PiecewisePolynomialKernel(q=0)),
                   "attribute", "covar_module.q"),
    "buffer of a kernel": (lambda: exact(Warped()), lambda: exact(Warped(power=1.5)), "buffer", "covar_module.power"),
    "dictionary": (lambda: exact(Warped()), lambda: exact(Warped(stretch=3.0)), "attribute", "covar_module.options"),
    "function": (lambda: exact(Warped()), lambda: exact(Warped(function=torch.tanh)),
                 "attribute", "covar_module.function"),
    "partial": (lambda: Calling(functools.partial(stretch, by=1.0)).eval(),
                lambda: Calling(functools.partial(stretch, by=1.5)).eval(), "attribute", "before"),
    "hook": (hooked, lambda: hooked(1.5), "attribute", "before._forward_hooks"),
    "other hook": (lambda: hooked(1.2), lambda: hooked(1.5), "attribute", "before._forward_hooks"),
    "parametrisation": (*edit(parametrised, lambda m: m.before.parametrizations.weight.original0.data.mul_(50)),
                        "network-weights", "before.parametrizations.weight.original0"),
    "a model in the model": (lambda: Stacked(0.2).eval(), lambda: Stacked(0.4).eval(),
                             "parameter", "other.covar_module.raw_lengthscale"),
    "coregionalisation": (*edit(coregionalised, lambda m: m.covar_module.covar_module_list[1].task_covar_module
                                .covar_factor.data.mul_(2)),
                          "parameter", "covar_module.covar_module_list.1.task_covar_module.covar_factor"),
    "derivatives": (*edit(lambda: Tasks(RBFKernelGrad(), ConstantMeanGrad()).double().eval(),
                          lambda m: setattr(m.covar_module, "lengthscale", number(0.3))),
                    "parameter", "covar_module.raw_lengthscale"),
    "latent functions": (*edit(lambda: initialised(Mixed().double()),
                               lambda m: m.variational_strategy.lmc_coefficients.data.mul_(1.5)),
                         "parameter", "variational_strategy.lmc_coefficients"),
    "classification": (*edit(classifier, lambda m: m.variational_strategy.inducing_points.data.mul_(0.8)),
                       "inducing-points", "variational_strategy.inducing_points"),
    "degrees of freedom": (*edit(lambda: classifier(StudentTLikelihood),
                                 lambda m: setattr(m.likelihood, "deg_free", number(9.0))),
                           "parameter", "likelihood.raw_deg_free"),
    "likelihood": (lambda: classifier(StudentTLikelihood), lambda: classifier(GaussianLikelihood),
                   "structure", "likelihood"),
    "natural parameters": (*edit(lambda: classifier(distribution=TrilNaturalVariationalDistribution),
                                 lambda m: m.variational_strategy._variational_distribution.natural_vec.data.add_(1)),
                           "variational-distribution", "variational_strategy._variational_distribution"),
    "noise of classes": (*edit(lambda: Classes().double().eval(), lambda m: m.likelihood.second_noise_covar.raw_noise
                               .data.add_(2)), "parameter", "likelihood.second_noise_covar.raw_noise"),
    "fixed noise": (fixed_noise, lambda: fixed_noise(2.0), "fixed-noise", "likelihood.noise_covar.noise"),
    "noise model": (*edit(heteroskedastic, lambda m: m.likelihood.noise_covar.noise_model.covar_module
                          .raw_lengthscale.data.add_(1)),
                    "parameter", "likelihood.noise_covar.noise_model.covar_module.raw_lengthscale"),
    "running variance": (*edit(lambda: with_layer(nn.BatchNorm1d(2)),
                           lambda m: m.feature_extractor[3].running_var.copy_(number(0.5, 2.0))),
                     "buffer", "feature_extractor.3.running_var"),
    "activation": (lambda: with_layer(nn.Tanh()), lambda: with_layer(nn.Sigmoid()),
                   "structure", "feature_extractor.3"),
    "batch normalisation trains": (*edit(lambda: with_layer(nn.BatchNorm1d(2)), lambda m: m.feature_extractor.train()),
                                   "mode", "feature_extractor"),
    "slope of the mean": (*edit(lambda: with_mean(LinearMean(1)), lambda m: m.mean_module.weights.data.add_(1)),
                          "parameter", "mean_module.weights"),
    "no intercept": (lambda: with_mean(LinearMean(1)), lambda: with_mean(LinearMean(1, bias=False)),
                     "structure", "mean_module.bias"),
    "no mean": (lambda: with_mean(ConstantMean()), lambda: with_mean(ZeroMean()), "structure", "mean_module"),
    "numbers of a prior": (lambda: with_prior(GammaPrior(2.0, 3.0)), lambda: with_prior(GammaPrior(4.0, 3.0)),
                           "prior", "covar_module.own_prior"),
    "class of a prior": (lambda: with_prior(GammaPrior(2.0, 3.0)), lambda: with_prior(LogNormalPrior(0.0, 1.0)),
                         "prior", "covar_module.own_prior"),
    "what a prior is of": (lambda: with_prior(GammaPrior(2.0, 3.0)), lambda: with_prior(GammaPrior(2.0, 3.0), log_of),
                           "prior", "covar_module.own_prior"),
}  # fmt: skip
THREE_COLUMNS = ("product on columns", "additive structure", "noise, and equal lengthscales in one or three", "arc")
DEEP = ("arc", "degree", "smoothness", "cosine", "other hook", "interpolated kernel", "class of a prior", "no mean")
PARAMETERS = [pytest.param(name, marks=pytest.mark.deep) if name in DEEP else name for name in CASES]


@pytest.mark.filterwarnings("ignore")  # a warning that is an error would be a note
@pytest.mark.parametrize("name", PARAMETERS)
def test_one_fault_in_an_invented_model_is_found_and_its_twin_is_healthy(name):
    healthy, faulty, cause, where = CASES[name]
    x = grid(d=3 if name in THREE_COLUMNS else 1)
    y = {"y": x[:, 0]} if name in ("degrees of freedom", "likelihood") else {}
    twins = explain_difference(healthy(), healthy(), x, **y)
    assert (twins.findings, twins.unexplained) == ((), {}), str(twins)
    assert all("GPInputWarning" in note for note in twins.notes), str(twins)  # fixed noise, of other points
    assert check_model(healthy(), x, **y).findings == ()
    report = explain_difference(healthy(), faulty(), x, **y)
    assert [(f.cause, f.where) for f in report.findings] == [(cause, where)], str(report)
    assert report.unexplained == {}, str(report)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_it_is_found_from_the_other_side_too(name):
    healthy, faulty, cause, where = CASES[name]
    x = grid(d=3 if name in THREE_COLUMNS else 1)
    y = {"y": x[:, 0]} if name in ("degrees of freedom", "likelihood") else {}
    report = explain_difference(faulty(), healthy(), x, **y)
    assert [(f.cause, f.where) for f in report.findings] == [(cause, where)], str(report)
    assert report.unexplained == {}, str(report)


def test_a_size_goes_with_its_parameter():
    """Of ard_num_dims and the lengthscales neither can be exchanged alone: they are one finding."""
    a, b = exact(RBFKernel(ard_num_dims=2), d=2), exact(d=2, lengthscale=0.3)
    a.covar_module.lengthscale = number(0.2, 0.5)
    report = explain_difference(a, b, grid(d=2))
    assert [(f.cause, f.where) for f in report.findings] == [("shape", "covar_module.raw_lengthscale")]
    assert report.unexplained == {} and math.isfinite(report.findings[0].size)


def test_data_that_passed_a_coarser_format_are_rounded_not_scaled():
    report = explain_difference(*(make() for make in edit(exact, through_float32)), grid())
    assert set(found(report)) == {"rounded-data"} and {f.where for f in report.findings} == {
        "train_inputs", "train_targets"}  # fmt: skip
    other = exact()
    other.set_train_data(targets=other.train_targets + 1e-4 * torch.rand(30, generator=torch.Generator()).double())
    assert found(explain_difference(exact(), other, grid())) == ["training-targets"]


def test_equal_functions_in_another_form_are_equal():
    def kernels():
        return RBFKernel(), MaternKernel(1.5), PolynomialKernel(2)

    (a, b, c), (p, q, r) = kernels(), kernels()
    assert explain_difference(exact((a + b) + c), exact(p + (q + r)), grid()).findings == ()
    one = scaled()
    one.covar_module.outputscale, one.covar_module.base_kernel.lengthscale = number(1.0), number(0.2)
    assert explain_difference(exact(), one, grid()).findings == ()

    class Mine(RBFKernel):
        pass

    assert explain_difference(exact(RBFKernel()), exact(Mine()), grid()).findings == ()


def test_dropout_is_named_in_the_mode_and_in_the_training_objective():
    model = with_layer(nn.Dropout(0.3))
    report = check_model(model, grid())
    assert [(f.cause, f.where) for f in report.findings] == [("random-call", "feature_extractor.3")]
    assert set(report.findings[0].effect) == {"log marginal likelihood"} and "0.3" in report.findings[0].a
    model.feature_extractor.train()
    assert found(check_model(model, grid()))[0] == "mode"


@pytest.mark.filterwarnings("ignore")
def test_a_cache_of_a_model_in_the_model_is_found():
    model = Stacked(0.2).eval()
    model(grid()).mean.sum()
    model.other.covar_module.lengthscale = number(0.4)
    assert [(f.cause, f.where) for f in check_model(model, grid()).findings] == [
        ("stale-cache", "other.prediction_strategy")
    ]


def test_features_that_were_drawn_are_not_blamed_for_what_the_forward_draws():
    torch.manual_seed(0)
    model = Calling(lambda x: x + 0.1 * torch.randn(()).double())
    model.covar_module = RFFKernel(num_samples=6, num_dims=1).double()
    assert found(check_model(model.eval(), grid())) == ["random-call"]
    model.covar_module = RFFKernel(num_samples=6).double()  # these are still to be drawn
    assert found(check_model(model.eval(), grid())) == ["random-call"]
    model.before = functools.partial(stretch, by=1.0)
    assert [(f.cause, f.where) for f in check_model(model, grid()).findings] == [("random-features", "covar_module")]


def test_an_interpolation_grid_that_is_laid_over_the_call_depends_on_it():
    model = exact(GridInterpolationKernel(RBFKernel(), grid_size=16, num_dims=1).double())
    assert found(check_model(model, grid())) == ["batch-dependence"]


# Errors --------------------------------------------------------------------------------------------------------------


class Failing(ExactModel):
    """Raises where ``when(self, x)``."""

    def __init__(self, when):
        super().__init__(*data())
        self.when = when

    def forward(self, x):
        if self.when(self, x):
            raise KeyError("no such column")
        return super().forward(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (exact(), grid().to("meta")), "x must be a dense tensor with values; got .* device meta"),
        (lambda: (exact(), grid().to_sparse()), "x must be a dense tensor with values; got layout torch.sparse_coo"),
        (lambda: (exact().to("meta"), grid()), "model must have values; its tensors are on the device meta"),
        (lambda: (exact(), grid().half()), "x must be in the model's format; got torch.float16, and model is in"),
        (lambda: (exact(), grid().numpy()), "x must be a tensor .* got ndarray"),
        (lambda: (exact(), ()), "got an empty tuple"),
        (lambda: (exact(), torch.zeros(3, 0).double()), r"at least one row; got \(3, 0\)"),
        (lambda: (nn.Linear(1, 1), grid()), "model must be a GPyTorch model, an ExactGP or ApproximateGP; got Linear"),
        (lambda: (ExactModel.__new__(ExactModel), grid()), "model was not initialised"),
    ],
)
def test_what_cannot_be_called_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_model(*arguments())


def test_both_models_are_looked_at_before_they_are_compared():
    with pytest.raises(ValueError, match="model_a must be a list of 1 models too"):
        explain_difference(exact(), gpytorch.models.IndependentModelList(exact()), grid())
    with pytest.raises(ValueError, match="model_b must have values"):
        explain_difference(exact(), exact().to("meta"), grid())


@pytest.mark.parametrize(
    ("y", "message"),
    [(torch.zeros(12, 1), r"y must have shape \(m,\), or"), (torch.full((12,), math.nan), "y has NaN")],
)
def test_targets_that_would_be_broadcast_or_are_not_finite_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        check_model(variational(), grid(), y=y.double())


def test_a_model_that_raises_only_in_training_is_named_with_the_quantity():
    report = check_model(Failing(lambda model, x: model.training).eval(), grid())
    assert found(report) == ["call-raises"]
    assert report.findings[0].a == "the log marginal likelihood of model raised KeyError: 'no such column'"
    broken = Failing(lambda model, x: model.training).eval()
    notes = explain_difference(Failing(lambda model, x: False).eval(), broken, grid()).notes
    assert "the log marginal likelihood of model_b raised KeyError: 'no such column'" in notes


def test_inputs_that_the_forward_cannot_take_are_a_finding_with_the_error():
    for model, x, takes in ((exact(), (grid(), grid()), "x"), (hadamard(), grid(), "x, tasks")):
        report = check_model(model, x)
        assert found(report) == ["number-of-inputs"] and report.findings[0].b == f"forward takes {takes}"
        assert "posterior mean" in report.missing


def test_a_warning_that_the_readers_filters_make_an_error_is_named_and_does_not_stop_the_diagnosis():
    class Warning_(ExactModel):
        def forward(self, x):
            warnings.warn("an old way to say it", FutureWarning, stacklevel=2)
            return super().forward(x)

    models = [Warning_(*data()).eval() for _ in range(2)]
    models[1].likelihood.noise = 0.3
    said = "model_b warns FutureWarning: an old way to say it; your warning filters make an error of it"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = explain_difference(*models, grid())
        assert found(report) == ["parameter"] and said in " ".join(report.notes)
        warnings.simplefilter("ignore")
        assert explain_difference(*models, grid()).notes == ()


def test_a_filter_within_the_model_that_raises_is_named():
    class Strict(ExactModel):
        def forward(self, x):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.warn("not allowed here", stacklevel=2)

    report = check_model(Strict(*data()).eval(), grid())
    assert found(report) == ["call-raises"] and "UserWarning: not allowed here" in report.findings[0].a


# Many rows -----------------------------------------------------------------------------------------------------------


def test_the_farthest_row_of_a_large_x_is_kept_and_named_by_its_number():
    x = torch.rand(2500, 1, generator=torch.Generator().manual_seed(0))
    x[1234] = 1e6
    report = check_model(exact(dtype=torch.float32), x)
    assert ("batch-dependence", "x[1234]") in [(f.cause, f.where) for f in report.findings]


def test_beside_many_training_points_fewer_rows_are_taken():
    model = exact()
    many = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    from gpbook_utils.diagnose.inputs import subject

    assert subject("model", model, many[:900], None, None)[1] == []
    model.train_inputs, model.train_targets = (many,), many[:, 0]
    side, notes = subject("model", model, many[:900], None, None)
    assert 100 <= len(side.inputs[0]) <= 110 and notes == [
        f"x has 900 rows; one in 9 was taken and the 10 farthest out: {len(side.rows)} in all"
    ]
    assert torch.equal(side.inputs[0], many[:900][side.rows])
