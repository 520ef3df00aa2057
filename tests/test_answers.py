"""Answers survive the way to the grader unchanged, and their comparison is fair, strict and trusts nothing."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from gpbook_utils import answers


def there_and_back(value):
    return answers.decode(json.loads(json.dumps(answers.encode(value), allow_nan=False)))


@pytest.mark.parametrize("value", [True, False, 0, -7, 2**62, "c", "", None, [1, "a", None], {"a": [True]}, [], {}])
def test_plain_values_come_back_as_they_were(value):
    assert there_and_back(value) == value
    assert type(there_and_back(value)) is type(value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_come_back_with_every_bit(dtype):
    array = np.random.default_rng(0).normal(size=(3, 0, 2) if dtype == "float16" else (3, 2)).astype(dtype)
    back = there_and_back(array)
    assert back.dtype == dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_numbers_that_are_not_finite_come_back():
    back = there_and_back(np.array([math.nan, math.inf, -math.inf, -0.0]))
    assert np.array_equal(back, [math.nan, math.inf, -math.inf, 0.0], equal_nan=True)
    assert math.copysign(1, back[3]) == -1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor(True), True),
        (np.int32(3), 3),
        (torch.tensor(4), 4),
        ((1, 2), [1, 2]),
        (torch.ones(2, requires_grad=True), [1.0, 1.0]),
        (torch.ones(2, dtype=torch.bfloat16), [1.0, 1.0]),
        (np.float64(0.5), 0.5),
    ],
)
def test_what_the_field_uses_is_understood(value, plain):
    assert np.array_equal(there_and_back(value), plain)


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, 1j, np.array(["a"]), np.array([1j]), lambda: 1, 2**70])
def test_what_has_no_form_is_refused_by_name(value):
    with pytest.raises(ValueError, match="distance: "):
        answers.answer("q1_a", distance=value)


def test_a_large_answer_is_refused():
    with pytest.raises(ValueError, match=r"answer q1_a: .* too large, 1,000,000 characters"):
        answers.answer("q1_a", matrix=np.random.default_rng(0).normal(size=(300, 300)))


@pytest.mark.parametrize(
    "data",
    [
        {"dtype": "object", "shape": [], "values": [1]},
        {"dtype": ["float64"], "shape": [], "values": [1]} | {"dtype": "complex128"},
        {"dtype": "float64", "shape": [2], "values": [1.0]},
        {"dtype": "float64", "shape": [10**9, 10**9], "values": []},
        {"dtype": "float64", "shape": [-1], "values": []},
        {"dtype": "float64", "shape": [True], "values": [1.0]},
        {"dtype": "float64", "shape": "2", "values": [1.0, 2.0]},
        {"dtype": "float64", "shape": [1], "values": ["1.0"]},
        {"dtype": "float64", "shape": [1], "values": [[1.0]]},
        {"dtype": "float64", "shape": [1], "values": [10**400]},
        {"dtype": "int64", "shape": [1], "values": [2**70]},
        {"dtype": "bool", "shape": [1], "values": [1]},
        {"dtype": "float64", "shape": [1]},
        {"__reduce__": ["os.system", "true"]},
        {"keys": [1]},
        2**70,
        1.5,
    ],
)
def test_a_forged_answer_is_wrong_and_harms_nobody(data):
    with pytest.raises(ValueError):
        answers.decode(data)
    assert answers.judge(data, answers.encode(1.0), {"rtol": 0.5})[0] == answers.WRONG


def test_an_endlessly_nested_answer_is_wrong():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert answers.judge(nested, answers.encode(1.0), {"rtol": 0.5})[0] == answers.WRONG


def judged(got, expected, **rule):
    return answers.judge(answers.encode(got), answers.encode(expected), rule)


def test_one_scale_for_the_whole_array():
    expected = np.array([1000.0, 1e-6])
    assert judged(expected + [0.0, 1e-4], expected, rtol=1e-6) == ("right", "")
    verdict, why = judged(expected + [0.0, 1e-2], expected, rtol=1e-6)
    assert verdict == "near"
    assert why == "differs by 1.0e-05 of the largest expected number; 1.0e-06 is allowed"
    assert judged(expected + [0.1, 0.0], expected, rtol=1e-6)[0] == "wrong"


@pytest.mark.parametrize("times, verdict", [(0.99, "right"), (1.01, "near"), (29.9, "near"), (30.1, "wrong")])
def test_right_near_and_wrong_lie_side_by_side(times, verdict):
    assert judged(1.0 + times * 1e-6, 1.0, rtol=1e-6)[0] == verdict


def test_float32_has_its_own_tolerance_where_allowed():
    expected, rounded = np.float64(0.1), np.float32(0.1 * (1 + 1e-6))
    assert judged(rounded, expected, rtol=1e-9)[0] == "wrong"
    assert judged(rounded, expected, rtol=1e-9, rtol32=1e-5)[0] == "right"
    assert judged(np.float64(rounded), expected, rtol=1e-9, rtol32=1e-5)[0] == "wrong"


@pytest.mark.parametrize(
    ("got", "expected", "why"),
    [
        (np.ones((3, 1)), np.ones(3), r"has shape \(3, 1\), and \(3,\) is needed"),
        ("1.0", 1.0, "is a text, and a number is needed"),
        (None, np.ones(2), r"is nothing, and an array of shape \(2,\) is needed"),
        (np.array([math.nan, 1.0]), np.ones(2), "not finite"),
        (np.array([True, True]), np.ones(2), "bool values"),
        (math.inf, 1.0, "not finite"),
        (True, 1.0, "is a truth value"),
    ],
)
def test_another_kind_of_value_is_wrong_and_why_is_said(got, expected, why):
    verdict, said = judged(got, expected, rtol=1e-3)
    assert verdict == "wrong"
    assert re.search(why, said), said


@pytest.mark.parametrize(
    ("got", "expected", "verdict"),
    [
        ("c", "c", "right"),
        ("b", "c", "wrong"),
        (True, True, "right"),
        (1, True, "wrong"),
        (3.0, 3, "right"),
        (3.5, 3, "wrong"),
        (["a", "b"], ["a", "b"], "right"),
        (["b", "a"], ["a", "b"], "wrong"),
        (["a"], ["a", "b"], "wrong"),
        ({"a": 1}, {"a": 1}, "right"),
        ({"a": 1, "b": 2}, {"a": 1}, "wrong"),
        (np.array([1, 2]), np.array([1, 2]), "right"),
        (None, "c", "wrong"),
    ],
)
def test_without_a_tolerance_only_the_same_is_right(got, expected, verdict):
    assert judged(got, expected)[0] == verdict


FORMS = {
    "list": lambda array: array.tolist(),
    "tuple": lambda array: tuple(map(tuple, array.tolist())) if array.ndim > 1 else tuple(array.tolist()),
    "rows": list,
    "array": lambda array: array,
    "tensor": torch.from_numpy,
    "tensors": lambda array: list(torch.from_numpy(array)),
}


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("expected", FORMS)
@pytest.mark.parametrize(
    "array", [np.array([0.5, 2.0]), np.array([[1, 2], [3, 4]]), np.array([True, False]), np.array([[0.1], [1e-9]])]
)
def test_the_content_counts_and_not_what_holds_it(given, expected, array):
    rule = {"rtol": 1e-6} if array.dtype.kind == "f" else {}
    assert judged(FORMS[given](array), FORMS[expected](array), **rule) == ("right", "")
    other = ~array if array.dtype == bool else array + np.ones_like(array)
    assert judged(FORMS[given](other), FORMS[expected](array), **rule)[0] == "wrong"


OTHERS = ([], [1.0], [[1.0, 2.0]], ["a", "b"], [1.0, None], [[1.0], [2.0, 3.0]], "ab", [1.0, 2.0, 3.0])


@pytest.mark.parametrize("got", OTHERS)
@pytest.mark.parametrize("expected", [np.array([1.0, 2.0]), [1.0, 2.0]])
def test_a_list_that_holds_something_else_is_wrong(got, expected):
    assert judged(got, expected, rtol=1e-6)[0] == "wrong"


def test_an_integer_will_do_where_a_number_is_needed():
    assert judged(2, 2.0, rtol=1e-6)[0] == "right"
    assert judged(2.0, 2, rtol=1e-6)[0] == "right"


def test_the_worst_item_of_a_list_counts():
    verdict, why = judged([1.0, 2.1], [1.0, 2.0], rtol=1e-6)
    assert (verdict, why[:6]) == ("wrong", "item 2")


def test_nothing_in_the_reason_tells_the_expected_value():
    assert judged(0.0, 123.456, rtol=1e-6)[1] == "differs by 1.0e+00 of the largest expected number; 1.0e-06 is allowed"
    assert "6" not in judged(5, 6)[1]
    assert "cat" not in judged("dog", "cat")[1]


@pytest.mark.parametrize(
    "rule", [{"rtol": 0.0}, {"rtol": 2.0}, {"tolerance": 0.1}, {"rtol": "1e-6"}, [], {"rtol": True}]
)
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(ValueError, match="a rule is"):
        answers.judge(1, 1, rule)


def test_judging_needs_numpy_only():
    question = "import sys; from gpbook_utils import answers, claims; print({'IPython', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", question], capture_output=True, text=True).stdout == "set()\n"
