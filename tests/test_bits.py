"""The fixed set of computations: the same bits again, in this process and in others, and what its hashes compare."""

import json
from pathlib import Path

import golden_bits
import numpy as np
import pytest
import torch

from book import records as written
from gpbook_utils import data
from gpbook_utils.machines import bits, machine, records

ROOT = Path(__file__).parents[1]


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


def test_what_is_computed_changes_only_with_the_edition(results):
    """On any machine, to rounding. After a change that is meant: `EDITION` in bits.py, then golden_bits.py."""
    edition, golden = golden_bits.read()
    assert golden_bits.differing(results, golden) == [] and edition == bits.EDITION


def unlike_recorded(results, folder):
    """The results whose bits this very machine, with these releases and switches, has recorded otherwise."""
    hashed = bits.hashes(results)
    here = [records.hashes(record) for record in records.load(folder) if record["machine"] == machine.identity()]
    return [name for recorded in here for name in recorded.keys() | hashed if recorded.get(name) != hashed.get(name)]


def test_the_bits_are_those_that_this_machine_recorded(results, tmp_path):
    """To the last bit, where there is such a record."""
    assert unlike_recorded(results, ROOT / "records") == []
    path = written.write([], tmp_path)
    assert unlike_recorded(results, tmp_path) == []
    record = json.loads(path.read_text())
    record["bits"]["K, float64"] = "00000000"
    path.write_text(json.dumps(record))
    assert unlike_recorded(results, tmp_path) == ["K, float64"]


@pytest.mark.parametrize(
    ("owner", "name", "other"),
    [
        (data.Table, "standardised", property(lambda table: (table.y - table.y.mean()) / table.y.std() / 2)),
        (bits, "LENGTHSCALE", 0.2500001),
        (bits, "NOISES", (1.0, 0.1, 0.01, 0.001, 0.00010001)),
        (bits, "descend", lambda gp, descend=bits.descend: descend(gp, steps=31)),
        (bits, "FORMATS", {"float32": torch.bfloat16, "float64": torch.float64}),
        (bits, "marginal_likelihood", lambda gp, f=bits.marginal_likelihood: f(gp) * (1 + 1e-8)),
    ],
)
def test_a_change_of_what_is_computed_is_seen(monkeypatch, owner, name, other):
    monkeypatch.setattr(owner, name, other)
    try:
        changed = bits.computations()
    except RuntimeError as error:  # no Cholesky factor in bfloat16
        assert "cholesky" in str(error)
    else:
        assert golden_bits.differing(changed, golden_bits.read()[1])


def test_the_golden_values_are_not_replaced_within_one_edition(monkeypatch, tmp_path):
    monkeypatch.setattr(golden_bits, "PATH", tmp_path / "golden.toml")
    golden_bits.write()
    golden_bits.write()
    monkeypatch.setattr(bits, "LENGTHSCALE", 0.3)
    with pytest.raises(SystemExit, match=r"K, float64.*raise EDITION"):
        golden_bits.write()
    monkeypatch.setattr(bits, "EDITION", "another")
    golden_bits.write()
    assert golden_bits.read()[0] == "another"


@pytest.mark.parametrize("arguments", [{"noise": 0.0}, {"noise": float("nan")}, {"step": 0}])
def test_a_model_of_bad_input(arguments):
    with pytest.raises(ValueError, match="noise must be positive and step at least 1; got"):
        bits.model(torch.float64, **arguments)


def test_nothing_is_shared_by_no_machine():
    with pytest.raises(ValueError, match="machines is empty"):
        bits.shared()
