"""The arithmetic under the verdicts of a diagnosis: distances, rows, ranks, and rows of the table at their edges."""

import math

import pytest
import torch
from diagnosed import data, exact, found, grid, multitask, variational
from gpytorch.kernels import RBFKernel, ScaleKernel
from kinds import HAS_BOTORCH, D, Exact

from gpbook_utils.compare import MORE, ROUNDING
from gpbook_utils.diagnose import check_model, explain_difference
from gpbook_utils.diagnose.check import case_of
from gpbook_utils.diagnose.experiments import Case, Experiment, Trial, moved, reading_after, run, shift, stills
from gpbook_utils.diagnose.guard import undisturbed
from gpbook_utils.diagnose.inputs import subject
from gpbook_utils.diagnose.readings import (
    ELBO,
    KL,
    LIKELIHOOD,
    MEAN,
    PREDICTIVE,
    Reading,
    Subject,
    _cast,
    distance,
    rows_of,
)
from gpbook_utils.diagnose.report import Finding
from gpbook_utils.diagnose.rounding import Rounding
from gpbook_utils.diagnose.ruler import missing, others_failed, quantity, ranked
from gpbook_utils.diagnose.scales import _unscaled

pytestmark = pytest.mark.filterwarnings("ignore")


def numbers(*values):
    return torch.tensor(values, dtype=D)


def readings(*values, name=MEAN):
    return [Reading({name: numbers(*value)}) for value in values]


# Distances -----------------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("p", "q", "wanted"),
    [
        ((3.0, 4.0), (3.0, 4.0), 0.0),
        ((3.0, 4.0), (3.0, 9.0), 5 / math.sqrt(90)),
        ((3.0, NAN), (3.0, NAN), 0.0),
        ((3.0, NAN), (4.0, NAN), 0.25),
        ((INF, 3.0), (INF, 4.0), 0.25),
        ((1.0, 2.0), (1.0, NAN), INF),
        ((1.0, 2.0), (1.0, INF), INF),
        ((1.0, -INF), (1.0, INF), INF),
        ((3e-200, 0.0), (4e-200, 0.0), 0.25),
        ((3e200, 0.0), (4e200, 0.0), 0.25),
        ((1.0, 2.0), (1.0, 2.0, 3.0), INF),
    ],
)
def test_a_distance_is_relative_to_the_larger_whatever_the_size_and_infinite_where_one_is_not_finite(p, q, wanted):
    for pair in (readings(p, q), readings(q, p)):
        assert distance(MEAN, *pair) == pytest.approx(wanted)


def test_a_likelihood_is_measured_in_nats_below_one():
    assert distance(LIKELIHOOD, *readings((0.01,), (0.03,), name=LIKELIHOOD)) == pytest.approx(0.02)
    assert distance(LIKELIHOOD, *readings((1e-200,), (3e-200,), name=LIKELIHOOD)) == pytest.approx(0.0, abs=1e-30)
    assert distance(LIKELIHOOD, *readings((-10.0,), (-8.0,), name=LIKELIHOOD)) == pytest.approx(0.2)
    assert distance(LIKELIHOOD, Reading(), Reading()) == 0.0 and distance(MEAN, Reading(), *readings((1.0,))) == INF


def test_rows_are_taken_with_all_their_tasks_and_in_every_batch():
    mean = torch.arange(12.0).reshape(2, 6)  # two models of three points and two tasks
    assert rows_of(mean, torch.tensor([0, 2]), 3, matrix=False).tolist() == [[0, 1, 4, 5], [6, 7, 10, 11]]
    covariance = torch.arange(36.0).reshape(1, 6, 6)
    assert rows_of(covariance, torch.tensor([1]), 3, matrix=True).tolist() == [[[14, 15], [20, 21]]]


def test_moved_is_what_is_more_than_the_level_and_more_than_the_least():
    rounding = Rounding(D, 1.0, {MEAN: 0.1})
    before, after = readings((1.0,), (0.8,))
    assert moved(before, after, rounding) == {MEAN: pytest.approx(0.2)}
    assert moved(before, after, rounding, least=0.3) == {} == moved(before, after, Rounding(D, 1.0, {MEAN: 0.3}))
    assert moved(before, after, rounding, only=(LIKELIHOOD,)) == {}


# Quantities on the ruler, and ranks ---------------------------------------------------------------------------------


def test_a_quantity_is_judged_by_its_level_and_says_what_rounding_explains_in_its_own_unit():
    p, q = readings((3.0, 4.0), (3.0, 4.5))
    for level, verdict in ((0.2, ROUNDING), (0.01, MORE)):
        said = quantity(MEAN, (p, q), (q, q), Rounding(D, 1.0, {MEAN: level}))
        assert said.before.verdict == verdict and said.level == level and said.after.equal
        assert said.before.relative == pytest.approx(0.5 / math.hypot(3.0, 4.5))
        assert said.before.rounding == pytest.approx(level * math.hypot(3.0, 4.5))


def test_what_cannot_be_put_on_the_ruler_is_said_in_words():
    rounding, raised = Rounding(D, 1.0, {}), Reading(failures={MEAN: "ValueError: no"})
    one, two, broken = readings((1.0,), (1.0, 2.0), (NAN,))
    said = [quantity(MEAN, (one, other), (one, one), rounding).before for other in (two, broken, raised, Reading())]
    assert said[0] == "different shapes: (1,) and (2,)" and said[1] == "NaN or infinite entries"
    assert said[2] == "b raised ValueError: no" and said[3] == "only one of the two has it"
    both = [quantity(MEAN, (r, r), (r, r), rounding).before for r in (raised, Reading(), broken)]
    assert both == ["both raised ValueError: no", "neither has it", "NaN or infinite entries"]


def test_roots_come_first_in_their_order_then_what_moves_most_and_a_setting_after_its_equal():
    sizes = {"setting": 1.0, "parameter": 1.0, "buffer": 3.0, "length": 0.1, "shared-with-data": 0.0, "prior": INF}
    findings = [Finding(cause, "", "", "", {MEAN: size}) for cause, size in sizes.items()]
    wanted = ["shared-with-data", "length", "prior", "buffer", "parameter", "setting"]
    assert [f.cause for f in ranked(findings)] == wanted == [f.cause for f in ranked(findings[::-1])]
    larger = [Finding("parameter", "", "", "", {MEAN: 1.0}), Finding("setting", "", "", "", {MEAN: 1.1})]
    assert ranked(larger)[0].cause == "setting"


def test_what_is_missing_is_said_once_and_errors_beside_a_posterior_are_notes():
    reading = Reading({MEAN: numbers(1.0)}, {PREDICTIVE: "ValueError: no"}, {LIKELIHOOD: "no data"})
    assert missing((MEAN, PREDICTIVE), reading) == {PREDICTIVE: "ValueError: no", LIKELIHOOD: "no data"}
    assert missing((MEAN,), reading, Reading({MEAN: numbers(2.0)})) == missing((MEAN,), reading)
    side = Subject("model", exact(), None, (grid(),))
    assert others_failed(side, reading) == ["the predictive covariance of model raised ValueError: no"]
    assert others_failed(side, Reading(failures={MEAN: "no", PREDICTIVE: "no"})) == []


# The loop ------------------------------------------------------------------------------------------------------------


def test_a_row_is_left_out_after_certain_causes_and_a_place_is_named_once():
    side, base = subject("model", exact(), grid(), None, None)[0], readings((1.0,))[0]
    case = Case(side, base, base, base, Rounding(D, 1.0, {}))
    here, nowhere = Trial("here", "a", "b", effect={MEAN: 1.0}), Trial("nowhere", "a", "b")
    asked = []

    def decide(case, trial, base):
        asked.append(trial.where)

    table = [Experiment("mode", lambda _: [here, here, nowhere], decide)]
    run(
        case, [*table, *table, Experiment("love", lambda _: [here], unless=("mode",)), Experiment("love", lambda _: [])]
    )
    assert [(f.cause, f.where, f.a, f.b) for f in case.found] == [("mode", "here", "a", "b")]
    assert asked == ["nowhere", "nowhere"]


def test_a_shift_moves_every_number_once():
    tensor = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
    shift(tensor)
    assert torch.allclose(tensor, torch.tensor([[1.02, -1.97], [0.01, 4.05]]))
    one = torch.ones(1, 1).expand(3, 2)
    shift(one)
    assert torch.allclose(one, torch.full((3, 2), 1.02))


# What is read --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_BOTORCH, reason="BoTorch is not installed")
def test_the_predictive_of_a_posterior_has_the_noise():
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan

    def make(noise):
        x, y = data()
        model = SingleTaskGP(x, y.unsqueeze(-1), outcome_transform=None)
        model.likelihood.noise_covar.register_constraint("raw_noise", GreaterThan(1e-6))
        model.likelihood.noise = noise
        return model.eval()

    values = reading_after(subject("model", make(0.3), grid(), None, None)[0]).values
    added = values[PREDICTIVE] - values["posterior covariance"]
    assert torch.allclose(added, 0.3 * torch.eye(12, dtype=D), atol=1e-6)


def test_a_variational_model_is_compared_in_kl_and_with_targets_in_its_elbo():
    a, b = variational(), variational()
    assert KL in explain_difference(a, b, grid()).quantities
    report = explain_difference(a, b, grid(), y=torch.sin(6 * grid().squeeze(-1)))
    assert ELBO in report.compared and KL not in report.quantities
    assert LIKELIHOOD in check_model(multitask(), grid()).compared


# Data in other units -------------------------------------------------------------------------------------------------


def on_times(t, y, lengthscale=3000.0):
    model = Exact(t.unsqueeze(-1), y.to(t), ScaleKernel(RBFKernel())).to(t.dtype).eval()
    model.covar_module.base_kernel.lengthscale = lengthscale
    return model, torch.linspace(float(t.min()), float(t.max()), 9, dtype=t.dtype).unsqueeze(-1)


def shuffled(t, seed=0):
    return t[torch.randperm(len(t), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("step", [128.0, 512.0])
def test_times_at_float32s_last_places_collapsed_though_their_rows_were_shuffled(step):
    t = shuffled(1.7e9 // step * step + step * torch.arange(15, dtype=D).repeat_interleave(4))
    model, x = on_times(t, torch.sin(t / 700))
    (finding,) = [f for f in check_model(model, x).findings if f.cause == "collapsed-inputs"]
    assert finding.a == "15 distinct of 60 rows"


@pytest.mark.parametrize(
    "times",
    [
        torch.arange(15, dtype=D) / 4,  # a step of a power of two, near zero
        1.7e9 + 3 * 128.0 * torch.arange(15, dtype=D),  # far, in other steps
        3e6 + torch.arange(15, dtype=D),  # far, in ones: days or numbers of things
        1.7e9 + 1024.0 * torch.arange(15, dtype=D),  # in steps that float32 could have made finer
        1.7e9 + 128.0 * torch.arange(15, dtype=D) + 0.125,  # no numbers of float32
    ],
)
def test_repeated_measurements_in_any_order_are_no_collapse(times):
    t = shuffled(times.repeat_interleave(4))
    model, x = on_times(t, torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=D))
    assert "collapsed-inputs" not in found(check_model(model, x))


def test_targets_in_order_within_a_group_tell_of_a_collapse_and_chance_does_not():
    t = torch.arange(6, dtype=D).repeat_interleave(20) / 3
    for y, causes in ((5 + torch.linspace(0, 1, 120, dtype=D), ["collapsed-inputs"]),
                      (5 + torch.rand(120, generator=torch.Generator().manual_seed(0), dtype=D), [])):  # fmt: skip
        model, x = on_times(t, y, 0.5)
        assert [c for c in found(check_model(model, x)) if c == "collapsed-inputs"] == causes


def test_inputs_that_are_related_are_scaled_though_others_would_fit_better():
    """Eight waves within a tenth: a shorter lengthscale would fit better, which training finds."""
    x = torch.linspace(0, 0.1, 40, dtype=D)
    model = Exact(x.unsqueeze(-1), torch.sin(500 * x), RBFKernel()).double().eval()
    model.covar_module.lengthscale, model.likelihood.noise = 0.05, 0.1
    assert check_model(model, x[::4].unsqueeze(-1) + 0.001).findings == ()


def test_of_two_columns_each_is_scaled_by_its_own_range():
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(60, 2, generator=generator, dtype=D)
    x, y = unit * numbers(1e4, 1e6) + numbers(5e3, -2e6), torch.sin(6 * unit[:, 0]) + unit[:, 1]
    model = Exact(x, y, RBFKernel()).double().eval()
    finding = check_model(model, x[::6] + 0.01).findings[0]
    assert finding.cause == "unscaled-inputs" and finding.b == "between 0 and 1"
    assert finding.effect[LIKELIHOOD] * len(y) > 5


# Changes that trials make --------------------------------------------------------------------------------------------


class Drawn(Exact):
    """Its mean has a draw in it, of some size."""

    size = 0.1

    def forward(self, x):
        prior = super().forward(x)
        return prior.__class__(prior.mean + self.size * torch.randn(1, dtype=D), prior.lazy_covariance_matrix)


def case_at(model):
    side = subject("model", model, grid(), None, None)[0]
    return side, case_of(side, reading_after(side, call=True), False)


def test_a_draw_is_stilled_by_what_makes_it_and_by_nothing_else():
    model = Drawn(*data(), RBFKernel()).double().eval()
    with undisturbed():
        _, case = case_at(model)
        nothing = Trial("", "", "", change=lambda replica: None)
        quiet = Trial("", "", "", change=lambda replica: setattr(replica.of(model), "size", 0.0))
        assert stills(case, nothing, case.fresh) is None and MEAN in stills(case, quiet, case.fresh)


def test_targets_are_scaled_to_mean_zero_and_variance_one():
    x, y = data()
    model = Exact(x, 500 + 100 * y, RBFKernel()).double().eval()
    with undisturbed():
        side, case = case_at(model)
        (trial,) = _unscaled(case)
        replica = side.replica()
        trial.change(replica)
    scaled = replica.of(model).train_targets
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-9) and float(scaled.std()) == pytest.approx(1)


def test_x_takes_the_format_of_a_copy_and_numbers_of_tasks_stay_integers():
    single, tasks = torch.ones(2, 1), torch.ones(2, 1, dtype=torch.long)
    assert [part.dtype for part in _cast((single, tasks), exact())] == [D, torch.long]
    assert _cast(None, exact()) is None
