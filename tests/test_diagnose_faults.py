"""One fault at a time: the cause, where it is, what the two have, and what the report says of it."""

import copy
import math

import gpytorch
import pytest
import torch
from diagnosed import (
    N,
    approximate,
    batch,
    data,
    deep,
    exact,
    found,
    grid,
    hadamard,
    independent_tasks,
    matern,
    multitask,
    scaled,
    sparse,
    variational,
)
from gpytorch.constraints import GreaterThan, Interval
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import InducingPointKernel, MaternKernel, RBFKernel, RFFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.variational import MeanFieldVariationalDistribution, UnwhitenedVariationalStrategy

from gpbook_utils.diagnose import CAUSES, check_model, explain_difference
from gpbook_utils.models import ExactModel


def first(a, b, x=None):
    report = explain_difference(a, b, grid() if x is None else x)
    assert report.findings, str(report)
    assert report.unexplained == {}, str(report)
    return report.findings[0].cause, report.findings[0].where, len(report.findings)


def edited(model, edit):
    edit(model)
    return model


def set_raw(model):
    model.covar_module.raw_lengthscale.data.fill_(0.2)


def constrain(model):
    model.covar_module.register_constraint("raw_lengthscale", GreaterThan(0.1))


def give_prior(model):
    prior = gpytorch.priors.GammaPrior(3.0, 6.0)
    model.covar_module.register_prior("lengthscale_prior", prior.double(), "lengthscale")


def forget_data(model):
    model.train_inputs = model.train_targets = None


def fewer_data(model):
    model.set_train_data(model.train_inputs[0][:20], model.train_targets[:20], strict=False)


def scale_inputs(model):
    model.set_train_data(2 * model.train_inputs[0] - 1)


def scale_targets(model):
    model.set_train_data(targets=model.train_targets / model.train_targets.std())


def column_of_targets(model):
    model.train_targets = model.train_targets.unsqueeze(-1)


def predict_then_edit(model):
    model(grid()).mean.sum()
    model.covar_module.lengthscale = torch.tensor(0.5).double()


def new_noise(model):
    model.likelihood.noise = torch.tensor(0.2).double()


def python_float(model):
    model.covar_module.lengthscale = 0.2  # torch.as_tensor makes a float32 of it


def double_scale(model):
    model.covar_module.raw_outputscale.data.fill_(1.0)
    model.train()
    model.eval()


def move_rows(model):
    model.set_train_data(targets=model.train_targets.flip(0))


# The base, the edit of the second model, and the one finding to be made.
PAIRS = {
    "lengthscale": (exact, lambda m: setattr(m.covar_module, "lengthscale", torch.tensor(0.3).double()),
                    "parameter", "covar_module.raw_lengthscale"),
    "noise": (exact, new_noise, "parameter", "likelihood.noise_covar.raw_noise"),
    "mean": (exact, lambda m: m.mean_module.initialize(constant=0.5), "parameter", "mean_module.raw_constant"),
    "raw": (exact, set_raw, "raw-vs-constrained", "covar_module.raw_lengthscale"),
    "rounded": (exact, python_float, "rounded-float", "covar_module.raw_lengthscale"),
    "constraint": (exact, constrain, "constraint", "covar_module.raw_lengthscale"),
    "prior": (exact, give_prior, "prior", "covar_module.lengthscale_prior"),
    "smoothness": (matern, lambda m: setattr(m.covar_module, "nu", 1.5), "attribute", "covar_module.nu"),
    "mode": (exact, lambda m: m.train(), "mode", "training"),
    "no data": (exact, forget_data, "no-training-data", "train_inputs"),
    "fewer data": (exact, fewer_data, "training-data", "train_inputs"),
    "scaled inputs": (exact, scale_inputs, "scaled-inputs", "train_inputs"),
    "scaled targets": (exact, scale_targets, "scaled-targets", "train_targets"),
    "other targets": (exact, move_rows, "training-targets", "train_targets"),
    "target shape": (exact, column_of_targets, "target-shape", "train_targets"),
    "outputscale": (scaled, lambda m: setattr(m.covar_module, "outputscale", 2.0), "parameter",
                    "covar_module.raw_outputscale"),
    "network": (deep, lambda m: [p.data.mul_(1.1) for p in m.feature_extractor.parameters()], "network-weights",
                "feature_extractor"),
    "task covariance": (multitask, lambda m: m.covar_module.task_covar_module.covar_factor.data.mul_(2.0),
                        "parameter", "covar_module.task_covar_module.covar_factor"),
    "one of a batch": (batch, lambda m: m.covar_module.raw_outputscale.data[1].fill_(1.0), "parameter",
                       "covar_module.raw_outputscale"),
    "inducing points": (variational, lambda m: m.variational_strategy.inducing_points.data.mul_(0.8),
                        "inducing-points", "variational_strategy.inducing_points"),
    "q(u)": (variational, lambda m: m.variational_strategy._variational_distribution.variational_mean.data.mul_(0.5),
             "variational-distribution", "variational_strategy._variational_distribution"),
    "jitter": (variational, lambda m: setattr(m.variational_strategy, "jitter_val", 1e-2), "jitter",
               "variational_strategy._jitter_val"),
    "sparse inducing points": (sparse, lambda m: m.covar_module.inducing_points.data.mul_(0.7), "inducing-points",
                               "covar_module.inducing_points"),
    "wrapped strategy": (independent_tasks, double_scale, "parameter", "covar_module.raw_outputscale"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_difference_is_found_alone_and_its_removal_leaves_nothing(name):
    make, edit, cause, where = PAIRS[name]
    report = explain_difference(make(), edited(make(), edit), grid())
    assert [(f.cause, f.where) for f in report.findings] == [(cause, where)], str(report)
    assert report.unexplained == {}
    for quantity in report.quantities.values():  # a call in training mode raises, in both models then
        after = quantity.after
        alike = after.startswith(("both raised", "neither")) if isinstance(after, str) else "more" not in after.verdict
        assert alike, after


@pytest.mark.parametrize("name", PAIRS)
def test_a_difference_is_found_from_either_side(name):
    make, edit, cause, where = PAIRS[name]
    assert first(edited(make(), edit), make()) == (cause, where, 1)


def test_a_stale_cache_is_found_where_the_parameters_agree():
    report = explain_difference(exact(lengthscale=0.5), edited(exact(), predict_then_edit), grid())
    assert [(f.cause, f.where) for f in report.findings] == [("stale-cache", "model_b: prediction_strategy")]
    assert set(report.findings[0].effect) == {"your call: mean"}  # the covariance is computed afresh


def test_other_kernels_and_missing_ones():
    report = explain_difference(exact(RBFKernel()), exact(MaternKernel(2.5)), grid())
    assert [(f.cause, f.where) for f in report.findings] == [("structure", "covar_module")]
    assert set(found(explain_difference(exact(), exact(MaternKernel(2.5)), grid()))) == {"structure", "parameter"}
    assert first(exact(RBFKernel()), scaled())[:2] == ("missing-scale-kernel", "covar_module")
    a, b = exact(RBFKernel()), scaled()
    b.covar_module.base_kernel.lengthscale = 0.1
    report = explain_difference(a, b, grid())
    assert set(found(report)) == {"missing-scale-kernel", "parameter"} and report.unexplained == {}
    a, b = exact(RBFKernel() + MaternKernel(2.5)), exact(RBFKernel() + MaternKernel(2.5) + MaternKernel(0.5))
    assert first(a, b) == ("structure", "covar_module.kernels.2", 1)


def test_columns_in_another_order():
    def make(values):
        model = exact(RBFKernel(ard_num_dims=3), d=3)
        model.covar_module.lengthscale = torch.tensor(values).double()
        return model

    report = explain_difference(make([0.1, 0.2, 0.4]), make([0.4, 0.1, 0.2]), grid(d=3))
    assert found(report) == ["column-order"]
    other = exact(RBFKernel(active_dims=(1,)), d=3)
    assert first(exact(RBFKernel(active_dims=(0,)), d=3), other, grid(d=3))[0] == "active-dims"


def test_formats_differ():
    report = explain_difference(exact(), exact(dtype=torch.float32), grid())
    assert found(report) == ["dtype"] and report.unexplained == {}
    report = explain_difference(exact(), edited(exact(dtype=torch.float32), new_noise), grid())
    assert set(found(report)) == {"dtype", "parameter"}


def test_a_shared_likelihood_comes_first():
    likelihood = GaussianLikelihood().double()
    a, b = (ExactModel(*data(), likelihood=likelihood).eval() for _ in range(2))
    b.covar_module.lengthscale = torch.tensor(0.3).double()
    report = explain_difference(a, b, grid())
    assert found(report) == ["shared-parameters", "parameter"]
    assert report.findings[0].where == "likelihood.noise_covar"
    assert report.findings[0].effect["predictive covariance"] > 1e-3
    kernel = RBFKernel()
    a, b = (ExactModel(*data(), kernel).eval() for _ in range(2))
    report = explain_difference(a, b, grid())
    assert found(report) == ["shared-parameters"]
    exec(report.findings[0].code, {"copy": copy, "model_a": a, "model_b": b})
    assert b.covar_module is not a.covar_module and found(explain_difference(a, b, grid())) == []


def test_deepcopy_of_a_sparse_model_is_not_independent_of_it():
    model = sparse()
    twin = copy.deepcopy(model)
    report = explain_difference(model, twin.eval(), grid())
    assert found(report) == ["shared-parameters"] and "likelihood" in report.findings[0].where
    assert not copy.deepcopy(model).covar_module.likelihood is not model.likelihood


def test_noise_in_the_forward_of_one_model():
    class Observed(ExactModel):
        def forward(self, x):
            prior = super().forward(x)
            return MultivariateNormal(prior.mean, prior.lazy_covariance_matrix.add_jitter(self.likelihood.noise.item()))

    observed = Observed(*data()).eval()
    report = explain_difference(ExactModel(*data()).eval(), observed, grid())
    assert found(report)[0] == "latent-against-observed" and (report.findings[0].a, report.findings[0].b) == ("f", "y")

    class Predictive(ExactModel):
        def __call__(self, *inputs, **options):
            output = super().__call__(*inputs, **options)
            return output if self.training else self.likelihood(output)

    assert found(explain_difference(ExactModel(*data()).eval(), Predictive(*data()).eval(), grid()))[0] == (
        "latent-against-observed"
    )


def test_equal_names_with_other_code():
    def define(factor):
        class Model(ExactModel):
            scale = factor

            def forward(self, x):
                return MultivariateNormal(self.mean_module(x), self.covar_module(self.scale * x))

        return Model(*data()).eval()

    assert first(define(1.0), define(2.0))[0] == "forward-code"


def test_unknown_parts_are_compared_too():
    class Warp(torch.nn.Module):
        def __init__(self, power):
            super().__init__()
            self.register_buffer("power", torch.tensor(power).double())
            self.table = torch.linspace(1, 2, 3).double()

        def forward(self, x):
            return x.clamp_min(1e-3) ** self.power * self.table[1]

    class Warped(ExactModel):
        def __init__(self, power):
            super().__init__(*data())
            self.warp = Warp(power)

        def forward(self, x):
            return super().forward(self.warp(x))

    assert first(Warped(1.0).eval(), Warped(1.5).eval()) == ("buffer", "warp.power", 1)
    b = Warped(1.0).eval()
    b.warp.table = torch.linspace(1, 3, 3).double()
    assert first(Warped(1.0).eval(), b) == ("state-outside-state-dict", "warp.table", 1)


def test_variational_families():
    whitened, plain = approximate(), approximate(UnwhitenedVariationalStrategy)
    plain.load_state_dict(whitened.state_dict(), strict=False)
    report = explain_difference(whitened, plain, grid())
    assert found(report)[0] == "variational-strategy" and report.unexplained == {}
    report = explain_difference(whitened, approximate(distribution=MeanFieldVariationalDistribution), grid())
    assert "variational-distribution" in found(report) and report.unexplained == {}
    assert found(explain_difference(exact(), variational(), grid()))[0] == "model-class"
    a, b = exact(RBFKernel()), sparse()
    b.covar_module.base_kernel.raw_lengthscale.data.zero_()
    assert "structure" in found(explain_difference(a, b, grid()))


def test_a_number_of_inducing_points():
    a = variational()
    b = variational(z=torch.linspace(0, 1, 12, dtype=torch.float64).unsqueeze(-1))
    report = explain_difference(a, b, grid())
    assert found(report) == ["inducing-points"] and report.unexplained == {}
    assert "together with variational_strategy._variational_distribution" in report.findings[0].detail


def test_many_differences_are_grouped_and_all_explained():
    def make(seed):
        torch.manual_seed(seed)
        model = exact(sum((ScaleKernel(RBFKernel()) for _ in range(14)), ScaleKernel(RBFKernel())))
        for parameter in model.parameters():
            parameter.data.add_(torch.rand_like(parameter))
        return model

    report = explain_difference(make(0), make(1), grid())
    assert 2 <= len(report.findings) <= 24 and report.unexplained == {}


def test_two_different_ways_to_two_tasks():
    a, b = hadamard(), hadamard()
    b.task_covar_module.raw_var.data.fill_(1.0)
    x = (grid(), torch.zeros(12, 1, dtype=torch.long))
    assert first(a, b, x) == ("parameter", "task_covar_module.raw_var", 1)


# One model ---------------------------------------------------------------------------------------------------------


def causes(model, x=None):
    return [(f.cause, f.where) for f in check_model(model, grid() if x is None else x).findings]


@pytest.mark.parametrize("make", [exact, sparse, variational, multitask, batch, deep])
def test_stale_caches_of_every_kind(make):
    model = make()
    model(grid()).covariance_matrix.sum()
    assert causes(model) == []
    for name, parameter in model.named_parameters():
        if "lengthscale" in name:
            parameter.data.add_(1.0)
    assert [cause for cause, _ in causes(model)] == ["stale-cache"]
    model.train()
    model.eval()
    assert causes(model) == []


def test_training_mode_is_found_in_any_part():
    assert causes(exact().train()) == [("mode", "training")]
    model = sparse()
    model.covar_module.train()
    assert causes(model) == [("mode", "covar_module")]
    dropout = deep()
    dropout.feature_extractor.append(torch.nn.Dropout(0.5).train())
    assert causes(dropout)[0] == ("mode", "feature_extractor.3")


def test_targets_as_a_column():
    report = check_model(edited(exact(), column_of_targets), grid())
    assert found(report) == ["target-shape"]
    assert report.findings[0].b == f"shape ({N},)"


def test_memory_shared_with_data_and_within_the_model():
    x, y = data()
    model = ExactModel(x, y).eval()
    kernel = InducingPointKernel(RBFKernel(), model.train_inputs[0][:8], model.likelihood).double()
    model.covar_module = kernel.eval()
    report = check_model(model, grid())
    assert found(report) == ["shared-with-data"] and report.findings[0].effect["train_inputs"] > 1e-3
    kernel = RBFKernel()
    assert causes(exact(kernel + kernel)) == [("shared-within-model", "covar_module.kernels")]
    model = scaled()
    model.mean_module.raw_constant = torch.nn.Parameter(model.covar_module.raw_outputscale.data)
    assert [cause for cause, _ in causes(model)] == ["shared-within-model"]


def test_settings_that_change_the_answer_and_those_that_do_not():
    with gpytorch.settings.skip_posterior_variances():
        assert causes(exact()) == [("setting", "gpytorch.settings.skip_posterior_variances")]
    with gpytorch.settings.fast_pred_var(), gpytorch.settings.memory_efficient():
        assert causes(exact()) == []
    small = gpytorch.settings.max_cholesky_size(5), gpytorch.settings.max_root_decomposition_size(3)
    with gpytorch.settings.fast_pred_var(), small[0], small[1]:
        assert "love" in [cause for cause, _ in causes(exact())]


def test_random_answers():
    with gpytorch.settings.max_cholesky_size(10), gpytorch.settings.num_trace_samples(3):
        report = check_model(exact(noise=0.3), grid())
        assert "random-probes" in found(report)
    assert causes(variational(fitted=False)) == [
        ("random-initialisation", "variational_strategy._variational_distribution")
    ]

    class Noisy(ExactModel):
        def forward(self, x):
            return MultivariateNormal(self.mean_module(x) + torch.randn(len(x)), self.covar_module(x))

    assert found(check_model(Noisy(*data()).eval(), grid()))[0] == "random-call"
    assert "random-features" in [cause for cause, _ in causes(exact(RFFKernel(num_samples=4)))]


def test_iterations_that_stop_early():
    with gpytorch.settings.max_cholesky_size(10), gpytorch.settings.eval_cg_tolerance(0.5):
        assert "cholesky-switch" in [cause for cause, _ in causes(exact(noise=1e-3))]


def test_one_far_point_in_the_call():
    x = grid(dtype=torch.float32)
    x[7] = 1e4
    report = check_model(exact(dtype=torch.float32), x)
    assert ("batch-dependence", "x[7]") in [(f.cause, f.where) for f in report.findings]


def test_a_layer_that_normalises_over_the_call():
    class Normalised(ExactModel):
        def forward(self, x):
            return super().forward((x - x.mean(-2, keepdim=True)) / x.std(-2, keepdim=True))

    assert causes(Normalised(*data()).eval())[0][0] == "batch-dependence"


def test_code_paths_and_digits_of_the_inputs():
    x = grid(d=2, dtype=torch.float32)
    assert ("grad-mode", "torch.no_grad") in causes(matern(0.5, d=2, dtype=torch.float32), x)
    far = exact(dtype=torch.float32)
    far.set_train_data(far.train_inputs[0] + 1e4)
    assert "far-from-origin" in [cause for cause, _ in causes(far, grid(dtype=torch.float32) + 1e4)]


def test_jitter_and_clamps():
    x, _ = data(dtype=torch.float32)
    quiet = GaussianLikelihood(noise_constraint=GreaterThan(1e-8))
    quiet.noise = 1e-6
    near = ExactModel(*data(dtype=torch.float32), likelihood=quiet).eval()
    assert "variance-clamped" in [cause for cause, _ in causes(near, x)]
    model = variational(jitter=0.05)
    assert ("jitter", "variational_strategy.jitter_val") in causes(model)


def test_state_that_no_state_dict_carries():
    class Hidden(ExactModel):
        def __init__(self):
            super().__init__(*data())
            self.stretch = torch.tensor(1.3).double()
            self.layers = [torch.nn.Linear(1, 1).double()]

        def forward(self, x):
            return super().forward(self.layers[0](self.stretch * x))

    assert set(causes(Hidden().eval())) == {
        ("state-outside-state-dict", "stretch"),
        ("state-outside-state-dict", "layers[0]"),
    }


def test_broken_models_are_named():
    assert causes(edited(exact(), forget_data)) == [("no-training-data", "train_inputs")]
    model = exact()
    model.covar_module.raw_lengthscale.data.fill_(math.nan)
    assert causes(model)[0] == ("not-finite", "covar_module.raw_lengthscale")
    model = exact()
    for part in (model.likelihood, model.covar_module, model.mean_module):
        part.float()
    assert causes(model)[0][0] == "mixed-dtype"


# The report --------------------------------------------------------------------------------------------------------


def test_the_report_says_it_in_text_and_in_html():
    report = explain_difference(exact(), exact(lengthscale=0.4), grid())
    text, page = str(report), report._repr_html_()
    for word in ("parameter", "covar_module.raw_lengthscale", "0.4", "remedy", "chapter 2", "prior covariance"):
        assert word in text
    assert "<table" in page and "covar_module.raw_lengthscale" in page
    plain = report._repr_mimebundle_()["text/plain"]
    assert plain == "1. parameter at covar_module.raw_lengthscale"
    finding = report.findings[0]
    assert (
        finding.chapter == 2 and finding.remedy and finding.explanation and 0 < finding.effect["prior covariance"] < 1
    )


def test_an_equal_pair_says_so_with_its_level_of_rounding():
    text = str(explain_difference(exact(), exact(), grid()))
    assert "equal up to rounding: nothing to explain" in text
    assert "float64" in text and "condition number" in text and "rounding explains relative differences up to" in text


def test_what_cannot_be_attributed_is_reported_with_its_size():
    """A difference that depends on which object is called lies in no state."""
    counter = iter([1.0, 2.0] * 1000)

    class Moody(ExactModel):
        def __init__(self):
            super().__init__(*data())
            self.mood = object.__new__(Mood)

        def forward(self, x):
            prior = super().forward(x)
            return MultivariateNormal(prior.mean, prior.lazy_covariance_matrix * self.mood.value())

    values = {}

    class Mood:
        __slots__ = ()

        def __deepcopy__(self, memo):
            return self

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

        def value(self):
            return values[id(self)]

    a, b = Moody().eval(), Moody().eval()
    values[id(a.mood)], values[id(b.mood)] = next(counter), next(counter)
    report = explain_difference(a, b, grid())
    assert report.findings == () and report.unexplained["prior covariance"] == pytest.approx(0.5)
    assert report.verdict.startswith("no cause found; unexplained: prior covariance 5.0e-01")


class Ambiguous:
    """As a table of pandas: its comparison with another one is no truth value."""

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        raise ValueError("the truth value is ambiguous")

    __hash__ = None


class Tabled(ExactModel):
    """A model whose prior depends on such a thing."""

    def __init__(self, factor):
        super().__init__(*data(), RBFKernel())
        self.table = Ambiguous(factor)

    def forward(self, x):
        prior = super().forward(x)
        return MultivariateNormal(prior.mean, self.table.factor * prior.lazy_covariance_matrix)


def test_what_cannot_be_compared_is_not_said_to_be_the_same():
    report = explain_difference(Tabled(1.0).eval(), Tabled(2.0).eval(), grid())
    (finding,) = report.findings
    assert (finding.cause, finding.where) == ("not-compared", "table")
    assert finding.a == "Ambiguous, == raised ValueError: the truth value is ambiguous"
    assert finding.effect["prior covariance"] == pytest.approx(0.5) and report.unexplained == {}


def test_what_cannot_be_compared_and_has_no_effect_is_in_a_note():
    report = explain_difference(Tabled(1.0).eval(), Tabled(1.0).eval(), grid())
    assert report.findings == ()
    assert report.notes == (
        "these could not be compared, but are without effect on these quantities at this x: table (not-compared)",
    )


def test_every_cause_is_explained():
    for slug, cause in CAUSES.items():
        assert slug == slug.lower() and " " not in slug
        assert cause.explanation and cause.remedy.endswith(".") and 1 <= cause.chapter <= 12


def test_thirty_roundings_are_told_from_three_hundred():
    """Targets apart by what three hundred roundings do, on a system whose condition number would explain more."""

    def with_targets(shift):
        model = exact(lengthscale=0.5, noise=2e-4)
        model.train_targets = model.train_targets + shift
        return model

    report = explain_difference(with_targets(0.0), with_targets(1e-10), grid())
    assert found(report) == ["training-targets"]
    effect, theory = report.findings[0].effect["posterior mean"], 2 * N * 2**-53 * report.rounding.condition_number
    assert report.rounding.levels["posterior mean"] < effect < theory
    assert explain_difference(with_targets(0.0), with_targets(1e-12), grid()).findings == ()


def test_the_prior_of_a_model_is_not_asked_of_its_mode():
    report = explain_difference(exact().train(), exact(), data()[0])
    assert found(report) == ["mode"]
    assert set(report.findings[0].effect) == {"your call: mean", "your call: covariance"}


def test_bounds_that_agree_in_value_are_no_difference_in_the_posterior():
    a = exact(RBFKernel(lengthscale_constraint=Interval(0.01, 2.0)), noise=0.1)
    b = exact(noise=0.1)
    a.covar_module.lengthscale = torch.tensor(0.2, dtype=torch.float64)
    report = explain_difference(a, b, grid())
    assert report.findings == () and "constraint" in " ".join(report.notes)


# Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda: (exact(), exact(RBFKernel(), d=2), grid()),
            "model_a and model_b must have the same input dimension",
        ),
        (lambda: (exact(), exact(), grid(d=2)), "x must have 1 columns, as model_a was built with; got 2"),
        (lambda: (exact(), exact(), grid(dtype=torch.float32)), "x must be in the model's format; got torch.float32"),
        (lambda: (exact(), exact(), grid() * math.nan), "x has NaN"),
        (lambda: (exact(), exact(), torch.zeros(0, 1).double()), "at least one row"),
        (lambda: (exact(), exact(), [1.0, 2.0]), "x must be a tensor"),
        (lambda: (exact(), exact(), torch.arange(3)), "x must be floating-point; got torch.int64"),
        (lambda: (exact(), GaussianLikelihood(), grid()), "model_b must be a GPyTorch model; got GaussianLikelihood"),
        (lambda: (None, exact(), grid()), "model_a must be a GPyTorch model; got NoneType"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        explain_difference(*arguments())


def test_bad_arguments_of_a_single_model_are_named():
    with pytest.raises(ValueError, match=r"model must be a GPyTorch model; got list: pass model\[0\] or model\[1\]"):
        check_model([exact(), exact()], grid())
    with pytest.raises(ValueError, match="y must have one value for each of the 12 rows"):
        check_model(variational(), grid(), y=torch.zeros(3).double())
    with pytest.raises(ValueError, match="the likelihood of model must be"):
        check_model(variational(), grid(), likelihood=exact())


def test_one_model_that_raises_is_named_and_compared_as_far_as_it_goes():
    class Broken(ExactModel):
        def forward(self, x):
            raise KeyError("no such column")

    report = explain_difference(exact(), Broken(*data(), RBFKernel()).eval(), grid())
    assert "model_b(x) raised KeyError: 'no such column'" in " ".join(report.notes)
    assert found(report)[0] == "model-class"


def test_rows_of_a_large_x_are_sampled_and_the_report_says_so():
    report = check_model(exact(), torch.linspace(0, 1, 2500, dtype=torch.float64).unsqueeze(-1))
    assert "x has 2500 rows; one in 3 was taken and the 10 farthest out: 840 in all" in report.notes
