"""The ten suspects of chapter 11: broken as meant, found by the tool, cured by one line and nothing less; figures."""

import copy

import pytest
import torch
from diagnosed import found

from gpbook_utils.diagnose import explain_difference
from gpbook_utils.diagnose.pictures import doses
from gpbook_utils.diagnose.suspects import cured, suspect


def take(part):
    return lambda broken, control: setattr(broken, part, copy.deepcopy(getattr(control, part)))


def data(broken, control):
    broken.set_train_data(control.train_inputs[0], control.train_targets, strict=False)


def single(broken, control):
    broken.double().load_state_dict(control.state_dict())
    data(broken, control)


def both(broken, control):
    data(broken, control)
    take("likelihood")(broken, control)


TRUTH = {
    1: (["target-shape"], data),
    2: (["stale-cache"], lambda broken, control: broken.train().eval()),
    3: (["missing-scale-kernel"], take("covar_module")),
    4: (["prior"], take("likelihood")),
    5: (["mode"], lambda broken, control: broken.eval()),
    6: (["raw-vs-constrained"], take("covar_module")),
    7: (["no-training-data"], data),
    8: (["dtype"], single),
    9: (["attribute"], take("covar_module")),
    10: (["scaled-inputs", "parameter"], both),
}


@pytest.mark.parametrize("number", TRUTH)
def test_a_suspect_is_named_and_cured(number):
    causes, cure = TRUTH[number]
    assert found(explain_difference(*suspect(number))) == causes
    assert cured(number, cure)
    assert not cured(number, lambda broken, control: None)


def test_half_a_cure_is_none_and_neither_is_a_spoilt_control():
    assert not cured(10, data)
    assert not cured(8, lambda broken, control: broken.double())
    assert not cured(6, lambda broken, control: control.load_state_dict(broken.state_dict()))


def test_suspects_are_new_at_every_call():
    first, control, x = suspect(2)
    control.likelihood.noise = 1.0
    x.zero_()
    second, fresh, again = suspect(2)
    assert first is not second and float(fresh.likelihood.noise.detach()) < 0.1 and again.any()


def test_no_generator_is_used():
    before = torch.get_rng_state()
    cured(3, take("covar_module"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("number", [0, 11, 1.0, True, "1", None])
def test_bad_numbers_are_named(number):
    with pytest.raises(ValueError, match="number must be an integer from 1 to 10; got"):
        suspect(number)


def test_a_cure_must_be_a_function():
    with pytest.raises(ValueError, match="cure must be a function of the broken model and its control; got 'eval'"):
        cured(1, "eval")


# Figures of reports ------------------------------------------------------------------------------------------------

SAID = {"alt": "A figure for a test, with nothing to see.", "caption": "A caption for a test of figures."}


def drawn(monkeypatch, function, *arguments, **options):
    """The figure that a function would have shown."""
    figures = []
    monkeypatch.setattr("gpbook_utils.plots.show", lambda fig, **texts: figures.append(fig))
    function(*arguments, **options, **SAID)
    return figures[0]


def test_filled_markers_are_the_reports_with_findings(monkeypatch):
    broken, control, x = suspect(6)
    reports = {1.0: explain_difference(broken, control, x), 1e-3: explain_difference(control, suspect(6)[1], x)}
    noisy = {1e-2: explain_difference(*suspect(9))}
    fig = drawn(monkeypatch, doses, {"a": reports, "b": noisy}, "posterior mean", xlabel="dose")
    filled = [tuple(dots.get_facecolor()[0]) != (1, 1, 1, 1) for dots in fig.axes[0].collections]
    assert filled == [True, True]  # the equal pair has no place on the axis


def test_figures_refuse_reports_that_they_cannot_show():
    reports = {1.0: explain_difference(*suspect(5))}
    with pytest.raises(ValueError, match="series is empty"):
        doses({}, "posterior mean", xlabel="dose", **SAID)
    with pytest.raises(ValueError, match="the doses of 'a' must be positive; got"):
        doses({"a": {-1.0: reports[1.0]}}, "posterior mean", xlabel="dose", **SAID)
    with pytest.raises(ValueError, match="a report of 'a' must compare the 'ELBO'; it has no such quantity"):
        doses({"a": reports}, "ELBO", xlabel="dose", **SAID)
    with pytest.raises(ValueError, match="a report of 'a' must compare the 'your call: mean'; a raised ValueError"):
        doses({"a": reports}, "your call: mean", xlabel="dose", **SAID)
