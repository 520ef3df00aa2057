"""The fixed set of computations: the same bits again, in this process and in others, and what its hashes compare."""

import numpy as np
import pytest
import torch

from gpbook_utils import data
from gpbook_utils.machines import bits, machine


@pytest.fixture(scope="module")
def results():
    return bits.computations()


def test_the_set_repeats_in_one_process(results):
    assert bits.hashes(bits.computations()) == bits.hashes(results)


def test_another_process_of_this_setting_agrees(results, monkeypatch):
    for switch in machine.SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    here = bits.computed_in({}, f"torch.set_num_threads({torch.get_num_threads()})")
    there = bits.computed_in_each({"pair": ({}, f"torch.set_num_threads({torch.get_num_threads()})")})["pair"]
    assert bits.hashes(here) == bits.hashes(there)
    assert here.keys() == results.keys()


def test_code_runs_before_the_computations():
    with pytest.raises(RuntimeError, match="the process failed under.*\n(.|\n)*ZeroDivisionError"):
        bits.computed_in({}, "1 / 0")


def test_every_result_is_finite_and_tensors_are_of_their_format(results):
    for name, value in results.items():
        assert torch.isfinite(value).all(), name
        assert value.dtype == (torch.float64 if name.endswith("float64") else value.dtype)
    assert results["K, float32"].dtype == torch.float32


def test_the_set_leaves_no_trace():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    bits.computations()
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_dtype() == torch.float32


def test_the_kernel_is_an_rbf_of_a_quarter_of_a_year(results):
    x = data.load("seattle").x[::4].numpy()
    K = np.exp(-0.5 * ((x - x.T) / 0.25) ** 2)
    np.testing.assert_allclose(results["K, float64"].numpy(), K, rtol=0, atol=1e-12)


def test_descent_descends():
    model = bits.model(torch.float64, step=16)
    before = bits.marginal_likelihood(model).item()
    bits.descend(model)
    assert bits.marginal_likelihood(model).item() > before + 0.1


def test_hashes_see_one_bit():
    x = torch.ones(3, dtype=torch.float64)
    y = torch.nextafter(x, 2 * x)
    assert bits.hashes({"x": x}) != bits.hashes({"x": y})
    assert bits.hashes({"x": x}) == bits.hashes({"x": x.clone()})


def test_another_edition_when_the_noises_change(monkeypatch):
    before = bits.edition()
    monkeypatch.setattr(bits, "NOISES", (1.0,))
    assert bits.edition() != before


@pytest.mark.parametrize("arguments", [{"noise": 0.0}, {"noise": float("nan")}, {"step": 0}])
def test_a_model_of_bad_input(arguments):
    with pytest.raises(ValueError, match="noise must be positive and step at least 1; got"):
        bits.model(torch.float64, **arguments)


def test_nothing_is_shared_by_no_machine():
    with pytest.raises(ValueError, match="machines is empty"):
        bits.shared()
