"""Kinds of models that the diagnosis was not made with: no false alarm, the planted fault first, nothing disturbed."""

import pytest
import torch
from kinds import GPYTORCH, HAS_BOTORCH, posterior_models
from test_diagnose_untouched import assert_same, snapshot

from gpbook_utils.diagnose import check_model, explain_difference

KINDS = {**GPYTORCH, **{f"BoTorch: {n}": kind for n, kind in (posterior_models().items() if HAS_BOTORCH else ())}}


def built(make):
    torch.manual_seed(0)
    try:
        return make()
    except ImportError as error:  # BoTorch's fully Bayesian models ask for JAX
        pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_healthy_model_of_a_new_kind_raises_no_alarm_and_stays_as_it_is(name):
    make, at, _ = KINDS[name]
    model, twin, x = built(make), built(make), at()
    before = snapshot(model, twin, x)
    report, pair = check_model(model, x), explain_difference(model, twin, x)
    for said in (report, pair):
        assert said.findings == () and said.unexplained == {} and said.compared, str(said)
    assert_same(before, snapshot(model, twin, x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_one_fault_in_a_model_of_a_new_kind_comes_first(name):
    make, at, plant = KINDS[name]
    healthy, faulty = built(make), built(make)
    cause, where = plant(faulty)
    report = explain_difference(healthy, faulty, at())
    assert report.findings and report.unexplained == {}, str(report)
    first = report.findings[0]
    assert cause in (None, first.cause) and (where is None or first.where.startswith(where.rpartition(".")[0])), str(
        report
    )


def test_there_are_forty_kinds():
    assert not HAS_BOTORCH or len(KINDS) >= 40
