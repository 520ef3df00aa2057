"""The budget: two sides on one ruler, measured once, and no cause leaves a trace in the process."""

import pytest
import torch

from gpbook_utils import budget, explorer, plots
from gpbook_utils.budget import cause, causes, largest, measure

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
    assert labels[:3] == ["twice as large", "twice as large", "a Python float assigned"]  # by family
    assert labels[3:] == ["test", causes.PROGRAM]
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
