"""Costs: operations are counted as a hand would, and a table keeps its digits out of plain text."""

import pytest
import torch

from gpbook_utils import costs


@pytest.fixture
def A():
    return torch.eye(12, dtype=torch.float64) * 2


def test_operations_are_those_of_a_count_by_hand(A):
    L = torch.linalg.cholesky(A)
    expected = {
        lambda: A @ A[:, :5]: 2 * 12**2 * 5,
        lambda: torch.linalg.cholesky(A): 12**3 // 3,
        lambda: torch.cholesky_solve(A[:, :5], L): 2 * 12**2 * 5,
        lambda: torch.linalg.solve_triangular(L, A[:, :5], upper=False): 12**2 * 5,
        lambda: torch.linalg.cholesky(A.expand(3, 12, 12)): 3 * 12**3 // 3,
    }
    for function, operations in expected.items():
        assert costs.measure(function).operations == operations


def test_a_backward_pass_is_counted_too(A):
    B = A.clone().requires_grad_(True)
    forward = costs.measure(lambda: (B @ A[:, :5]).sum()).operations
    assert costs.measure(lambda: (B @ A[:, :5]).sum().backward()).operations == 2 * forward


def test_the_result_is_that_of_the_first_call_and_the_second_is_timed():
    calls = []
    cost = costs.measure(lambda: calls.append(1) or len(calls))
    assert cost.result == 1 and len(calls) == 2 and cost.seconds >= 0 and cost.operations == 0


def test_products_are_operations_over_two_n_squared(A):
    assert costs.measure(lambda: A @ A).products(12) == 12
    with pytest.raises(ValueError, match="n must be a whole number, at least 1; got 0"):
        costs.Cost(None, 1, 0.0).products(0)


def test_a_table_shows_numbers_in_html_only():
    table = costs.Table({"a < b": {"seconds": 0.01234, "nats": float("nan")}, "c": {"seconds": 12345, "nats": 0}})
    assert repr(table) == "2 rows (a < b; c), 2 columns (seconds; nats)"
    page = table._repr_html_()
    for shown in ("a &lt; b", "<td>0.012</td>", "<td>12,000</td>", "<td>nan</td>", "<td>0</td>"):
        assert shown in page


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1,200"), (-3.456, "-3.5"), (1e-8, "1.0e-08"), (0.5, "0.50"), (9.99, "10")]
)
def test_numbers_have_two_digits(value, shown):
    assert f"<td>{shown}</td>" in costs.Table({"row": {"column": value}})._repr_html_()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: costs.measure(3), "function must be a function of no argument; got 3"),
        (lambda: costs.Table({}), "rows is empty"),
        (lambda: costs.Table({"a": {"x": 1}, "b": {"y": 1}}), "row 'b' must have the columns"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
