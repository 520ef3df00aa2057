"""The budget: two sides on one ruler, measured once, and no cause leaves a trace in the process."""

import collections

import numpy as np
import pytest
import torch
from gpytorch.kernels import RBFKernel

from gpbook_utils import budget, explorer, plots
from gpbook_utils.budget import cause, causes, largest, measure
from gpbook_utils.models import ExactModel, marginal_likelihood

SLOW = {causes.instructions, causes.optimiser, causes.batch_order, causes.q_start, causes.grown_order}
QUICK = [c for c in causes.CAUSES if c not in SLOW]
# What these change is the order of a sum at most, and on some machine both sides may have the same bits.
MAY_BE_EQUAL = {causes.row_order, causes.threads, causes.instructions, causes.grad_mode}


@cause("twice as large", "test", chapter=1)
def doubled(dtype):
    K = torch.eye(3, dtype=dtype)
    return {"prior": K, "mean": K[0]}, {"prior": 2 * K, "mean": K[0]}


def test_a_cause_is_measured_by_quantity():
    assert measure(doubled) == {"prior": 1.0, "mean": 0.0} == measure(doubled, torch.float32)
    assert largest(doubled) == 1.0
    assert (doubled.name, doubled.family, doubled.chapter) == ("twice as large", "test", 1)


def test_a_cause_is_measured_once():
    calls = []

    def counted(dtype):
        calls.append(dtype)
        return {"mean": torch.ones(1, dtype=dtype)}, {"mean": torch.ones(1, dtype=dtype)}

    assert [measure(counted), measure(counted), measure(counted, torch.float32)] == [{"mean": 0.0}] * 3
    assert calls == list(budget.FORMATS)
    measure(counted).clear()  # what a reader does to an answer is not what is kept
    assert measure(counted) == {"mean": 0.0} and calls == list(budget.FORMATS)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (lambda dtype: {"prior": torch.ones(1)}, "must return two dictionaries; .* returned dict"),
        (lambda dtype: ({}, {}), "must have the same names among prior"),
        (lambda dtype: ({"prior": torch.ones(1)}, {"mean": torch.ones(1)}), r"got \['prior'\] and \['mean'\]"),
        (lambda dtype: ({"other": torch.ones(1)}, {"other": torch.ones(1)}), "among prior, covariance, mean"),
        (lambda dtype: ({"prior": torch.ones(1)}, {"prior": torch.tensor([float("nan")])}), "NaN"),
        ("shared likelihood", "cause must be a function of a format; got 'shared likelihood'"),
    ],
)
def test_bad_sides(sides, message):
    with pytest.raises(ValueError, match=message):
        measure(sides)


def test_a_format_in_which_the_cause_does_not_exist():
    with pytest.raises(ValueError, match="dtype must be a format in which 'a Python float assigned' exists"):
        measure(causes.assigned_float, torch.float32)


def state():
    return torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()


@pytest.mark.parametrize("one", QUICK, ids=lambda c: c.sides.__name__)
def test_a_cause_leaves_no_trace_and_differs_unless_it_is_a_control(one):
    before = state()
    for dtype in one.formats:
        sides = one(dtype)
        assert state() == before
        assert all(not tensor.requires_grad for side in sides for tensor in side.values())
        assert one in MAY_BE_EQUAL or (largest(one, dtype) == 0) == (one.family == causes.NULL)


@pytest.mark.parametrize("dtype", budget.FORMATS)
def test_a_date_in_years_ad_costs_what_rounding_its_year_costs(dtype):
    """The cause against the kernel of inputs that have passed the format at 2012, all else in float64."""
    x = causes.points(torch.float64)[0]
    rounded = (x + 2012).to(dtype).double() - 2012
    K, moved = (torch.exp(-0.5 * ((z - z.mT) / 0.25) ** 2) for z in (x, rounded))
    assert measure(causes.years_ad, dtype)["prior"] == pytest.approx(
        float((moved - K).norm() / K.norm()), rel=0.1, abs=0
    )


def test_the_yardstick_is_one_per_cent_of_the_noise_variance():
    a, b = causes.yardstick(torch.float64)
    for side, noise in ((a, 0.25), (b, 1.01 * 0.25)):
        expected = causes.says(causes.gp(torch.float64, noise=noise))
        for name, value in side.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("one", "n"),
    [(causes.threads, 731), (causes.jitter, 366), (causes.probes, 801), (causes.aliased, 366), (causes.years_ad, 122)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_cause_has_as_many_data_as_it_says(one, n, monkeypatch):
    sizes, init = set(), ExactModel.__init__

    def counted(self, x, *args, **options):
        sizes.add(len(x))
        init(self, x, *args, **options)

    monkeypatch.setattr(ExactModel, "__init__", counted)
    one(torch.float32)
    assert sizes == {n}


@pytest.mark.parametrize(
    ("one", "runs"),
    [
        (causes.learning_rate, [(0.05, 50), (0.1, 50)]),
        (causes.stopping, [(0.1, 50), (0.1, 100)]),
        (causes.adam_seed, [(0.1, 50)] * 2),
        (causes.column, [(0.1, 50)] * 2),
        (causes.shared_likelihood, [(0.1, 50)] * 2),
        (causes.shared_kernel, [(0.1, 50)] * 3),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_two_trainings_differ_in_what_the_cause_names(one, runs, monkeypatch):
    """The rate and the number of steps of each Adam."""
    causes._trained.cache_clear(), causes._after.cache_clear()
    taken, step = collections.Counter(), torch.optim.Adam.step

    def counted(self, closure=None):
        taken[self] += 1
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    one(torch.float32)
    assert sorted((adam.param_groups[0]["lr"], steps) for adam, steps in taken.items()) == runs


@pytest.mark.parametrize(("one", "differs"), [(causes.batch_order, "orders"), (causes.q_start, "seeds")])
def test_two_members_differ_in_one_kind_of_chance(one, differs, monkeypatch):
    given, asked = {}, []

    class Ends:
        def model(self, member):
            asked.append(member)
            return {}, None

    monkeypatch.setattr(causes, "fit_minibatches", lambda *_, **options: given.update(options) or Ends())
    monkeypatch.setattr(causes, "sparse_says", dict)
    monkeypatch.setattr(causes, "_variational", causes._variational.__wrapped__)
    one(torch.float64)
    assert {name for name in ("orders", "seeds") if len({given[name][member] for member in asked}) > 1} == {differs}


def test_seven_points_of_a_gp_end_at_two_optima():
    short, long = (causes.seven(start) for start in (1.0, 10.0))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.sort(10 * rng.random(7) - 5)).unsqueeze(-1)
    kernel = RBFKernel().double()
    kernel.lengthscale = torch.tensor(1.0, dtype=torch.float64)
    system = kernel(x).to_dense().detach() + 0.1 * torch.eye(7)
    y = torch.linalg.cholesky(system) @ torch.from_numpy(rng.standard_normal(7))
    for model in (short, long):
        torch.testing.assert_close((model.train_inputs[0], model.train_targets), (x, y))
        marginal_likelihood(model).backward()
        slopes = [p.grad.abs().max() for p in model.parameters() if p.requires_grad]
        assert len(slopes) == 2 and max(slopes) < 1e-6
    assert long.covar_module.lengthscale > 2 * short.covar_module.lengthscale


def test_the_clamp_is_seen_where_only_the_unit_is_another():
    (plain,), (clamped,) = (side.values() for side in causes.clamp(torch.float64))
    expected = 1e-12 * causes.says(causes.gp(torch.float64))["covariance"].diagonal()
    torch.testing.assert_close(plain, expected, rtol=1e-6, atol=0)
    assert (clamped > 10 * plain).all() and len(clamped.unique()) == 1


def test_names_and_chapters():
    names = [c.name for c in causes.CAUSES]
    assert len(set(names)) == len(names) == 38
    assert all(1 <= c.chapter <= 10 for c in causes.CAUSES)


def test_a_failing_process_is_no_measurement(monkeypatch):
    causes._elsewhere.cache_clear()
    monkeypatch.setattr(causes, "LOWERED", {"PYTHONPATH": "nowhere", "PYTHONHOME": "nowhere"})
    with pytest.raises(RuntimeError, match="the process failed under"):
        causes.instructions(torch.float64)
    causes._elsewhere.cache_clear()


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "show", lambda fig, **texts: figures.append(fig))
    return figures


def test_the_chart_has_a_row_for_each_cause_and_a_panel_for_each_format(drawn):
    budget.chart([doubled, causes.assigned_float, doubled], alt="Rows.", caption="Rows.")
    (fig,) = drawn
    axes = fig.axes
    assert [ax.get_title() for ax in axes] == ["float64", "float32"]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert not any(label.get_visible() for label in axes[1].get_yticklabels())  # rows are named once
    assert labels[:3] == ["twice as large", "twice as large", "a Python float assigned"]  # by family
    assert labels[3:] == ["test", causes.PROGRAM]
    bold = [label.get_text() for label in axes[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == labels[3:]
    powers = [f"$10^{{{power}}}$" for power in (-15, -10, -5, 0)]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["equal", *powers]
    marks = [line for line in axes[1].lines if len(line.get_xdata()) == 1]
    assert len(marks) == 4  # an assigned float is nothing in float32
    at_the_edge = [line for line in marks if line.get_markerfacecolor() == "white"]
    assert [float(line.get_xdata()[0]) for line in at_the_edge] == [axes[1].get_xlim()[0]] * 2


def test_what_a_chart_refuses(drawn):
    with pytest.raises(ValueError, match="causes is empty"):
        budget.chart([], alt="Rows.", caption="Rows.")
    with pytest.raises(ValueError, match=r"quantities\[1\] must be one of 'prior', .*; got 'gradient'"):
        budget.chart([doubled], alt="Rows.", caption="Rows.", quantities=["prior", "gradient"])


@pytest.fixture
def explored(monkeypatch):
    given = {}
    monkeypatch.setattr(
        explorer, "show", lambda values, panels, **more: given.update(values=values, panels=panels, **more)
    )
    return given


def test_the_explorer_shows_each_quantity_and_format_in_turn(explored):
    budget.explore({"one": [doubled, causes.assigned_float]}, alt="Rows.", caption="Rows.")
    symbols = ["K", "Σ", "mean", "likelihood"]
    assert explored["values"] == [f"{name}, {dtype}" for dtype in ("float64", "float32") for name in symbols]
    (panel,) = explored["panels"]
    assert panel.frames == 8
    assert panel._settings["yticklabels"] == ["a Python float assigned", "twice as large"]  # from the lower end
    assert explored["text"][2] == "posterior mean: 1 of 2 causes leave it equal in every bit."
    assert explored["text"][6] == "posterior mean: 1 of 1 causes leave it equal in every bit."
    (_, grey), (_, filled), (_, hollow) = panel._items
    at = [{int(row): value for row, value in zip(frame["y"], frame["x"], strict=True)} for frame in filled]
    assert at[0] == {1: 1.0, 0: measure(causes.assigned_float)["prior"]} and at[6] == {-9: 1.0}
    assert [list(frame["y"]) for frame in hollow] == [[-9]] * 2 + [[1]] + [[-9]] * 3 + [[1]] + [[-9]]
    assert [list(frame["y"]) for frame in grey] == [[1, 0]] * 4 + [[1]] * 4


def test_what_the_explorer_refuses(explored):
    with pytest.raises(ValueError, match=r"panels\['none'\] must be at least one cause"):
        budget.explore({"none": []}, alt="Rows.", caption="Rows.")
    with pytest.raises(ValueError, match=r"panels\['one'\]\[0\] must be a Cause"):
        budget.explore({"one": ["row order"]}, alt="Rows.", caption="Rows.")
