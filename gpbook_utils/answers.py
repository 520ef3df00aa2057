"""Answers: what a marked cell of an assignment hands over, and how it is compared with the solution's.

A marked cell computes with the student's functions and emits what came out::

    answer("q1_a", distance=distance(first, second), same=same(first, second))

It decides nothing. The grader runs the solution in the same way and compares the two answers in its own process, which
the student's program cannot reach. An answer is JSON, so reading one runs no code. Only NumPy is needed to judge.
"""

from __future__ import annotations

import json
import math

import numpy as np

from gpbook_utils import arguments

MIME = "application/vnd.gpbook.answer+json"
RIGHT, NEAR, WRONG = VERDICTS = ("right", "near", "wrong")
NEAR_MISS = 30  # times the tolerance; what lies beyond is wrong, what lies between is for a person to look at
MOST_CHARACTERS = 1_000_000  # of one answer; far more than an assignment asks for
RULES = {"rtol", "atol", "rtol32"}
_KINDS = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def answer(name: str, /, **values) -> None:
    """Emit ``values`` as the answer of the marked cell ``name``.

    Args:
        name: the cell's grade id.
        values: truth values, integers, texts, ``None``, numbers, arrays and tensors of numbers, and lists, tuples and
            dictionaries of these. Tensors are detached and copied from whatever device they are on.

    Raises:
        ValueError: if a value is none of these, or the answer is larger than 1,000,000 characters.

    >>> answer("q1_a", distance=0.25, same=False)
    answer q1_a: distance = 0.25, same = False
    """
    arguments.line("name", name)
    encoded = {key: _named(key, encode, value) for key, value in values.items()}
    data = {"name": name, "values": encoded}
    if len(json.dumps(data)) > MOST_CHARACTERS:
        raise ValueError(f"answer {name}: the values are too large, {MOST_CHARACTERS:,} characters at most as JSON")
    text = ", ".join(f"{key} = {arguments.cut(repr(value), 60)}" for key, value in values.items())
    _display(_Shown({MIME: data, "text/plain": f"answer {name}: {text}"}))


def encode(value):
    """The value in terms of JSON; numbers with a fraction and arrays carry their precision and shape.

    Raises:
        ValueError: if there is no such form.

    >>> encode(np.array([1.0, np.nan], dtype="float32"))
    {'dtype': 'float32', 'shape': [2], 'values': [1.0, 'nan']}
    >>> encode((True, 3, "c"))
    [True, 3, 'c']
    """
    if _is_plain(value):
        return value
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"keys": {key: encode(item) for key, item in value.items()}}
    if hasattr(value, "detach") and str(value.layout) == "torch.strided" and not value.is_meta:
        value = value.detach().cpu()
        # NumPy has no bfloat16; widening to float32 changes no number.
        value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    kinds, needed = (float, np.ndarray, np.generic), "a number, text, array or dense tensor, or a list of these"
    array = np.asarray(arguments.instance("value", value, kinds, needed))
    arguments.need(array.dtype.kind in _KINDS, "value", "of real numbers or truth values", value)
    if array.ndim == 0 and array.dtype.kind != "f":
        return array.item()
    dtype = array.dtype.name if array.dtype.kind == "f" else _KINDS[array.dtype.kind]
    numbers = [item if math.isfinite(item) else str(item) for item in array.ravel().tolist()]
    return {"dtype": dtype, "shape": list(array.shape), "values": numbers}


def decode(data):
    """The inverse of :func:`encode`: numbers with a fraction and arrays as NumPy arrays. Trusts nothing.

    Raises:
        ValueError: if ``data`` is not what :func:`encode` returns.

    >>> decode({"dtype": "float64", "shape": [2, 1], "values": [1.0, "inf"]})
    array([[ 1.],
           [inf]])
    """
    if _is_plain(data):
        return data
    if isinstance(data, list):
        return [decode(item) for item in data]
    if isinstance(data, dict) and set(data) == {"keys"} and isinstance(data["keys"], dict):
        return {key: decode(item) for key, item in data["keys"].items()}
    encoded = isinstance(data, dict) and set(data) == {"dtype", "shape", "values"}
    arguments.need(encoded, "data", "an encoded value", data)
    dtype, shape, values = data["dtype"], data["shape"], data["values"]
    if dtype not in ("float16", "float32", "float64", "int64", "bool"):
        raise ValueError(f"not the precision of an answer: {arguments.short(dtype)}")
    if not (isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) and len(shape) <= 8):
        raise ValueError(f"not the shape of an array: {arguments.short(shape)}")
    if not (isinstance(values, list) and len(values) == math.prod(shape)):
        raise ValueError(f"an array of shape {arguments.short(shape)} needs {math.prod(shape)} values")
    allowed = {"bool": (bool,), "int64": (int,)}.get(dtype, (int, float))
    numbers = [_SPECIAL.get(item, item) if isinstance(item, str) and dtype[0] == "f" else item for item in values]
    if not all(type(item) in allowed for item in numbers):
        raise ValueError(f"an array of {dtype} holds something else")
    try:
        return np.array(numbers, dtype=dtype).reshape(shape)
    except OverflowError as error:
        raise ValueError(f"an array of {dtype} holds a number outside its range") from error


def judge(got, expected, rule: dict) -> tuple[str, str]:
    """Compare one encoded value of a student with the solution's.

    Args:
        got: what the student's cell emitted, as :func:`encode` would write it, or anything else.
        expected: what the solution emitted.
        rule: ``{}`` for equality; ``rtol`` and ``atol`` for numbers, which are right if none is further from the
            solution's than ``atol + rtol * max|expected|``; ``rtol32`` in place of ``rtol`` for answers in float32.
            Numbers in a list or tuple count as the array of them.

    Returns:
        "right", "near" (within 30 tolerances: a person decides) or "wrong", and why, in words for the student. They
        tell the size of the difference, and never the solution's value.

    Raises:
        ValueError: if the rule, or the expected value, is not one.

    >>> judge(encode(0.5), encode(0.500001), {"rtol": 1e-5})
    ('right', '')
    >>> judge(encode(0.5), encode(0.6), {"rtol": 1e-5})
    ('wrong', 'differs by 1.7e-01 of the largest expected number; 1.0e-05 is allowed')
    """
    if not (isinstance(rule, dict) and set(rule) <= RULES and all(_is_fraction(size) for size in rule.values())):
        raise ValueError(f"a rule is {{}} or holds some of {sorted(RULES)}, each between 0 and 1; got {rule}")
    wanted = _named("expected", decode, expected)
    try:
        found = decode(got)
    except (ValueError, RecursionError) as error:
        return WRONG, f"cannot be read: {error}"
    return _judge(found, wanted, rule)


def _judge(found, wanted, rule) -> tuple[str, str]:
    found = _in_the_form_of(found, wanted)
    if isinstance(wanted, (list, dict)):
        return _judge_many(found, wanted, rule)
    if isinstance(wanted, np.ndarray) or (rule and type(wanted) is int):
        return _judge_numbers(found, np.asarray(wanted), rule)
    if isinstance(found, np.ndarray) and found.ndim == 0:
        found = found.item()
    if isinstance(found, float) and type(wanted) is int:
        return (RIGHT, "") if found == wanted else (WRONG, "is another number")
    if type(found) is not type(wanted):
        return WRONG, f"is {_kind(found)}, and {_kind(wanted)} is needed"
    return (RIGHT, "") if found == wanted else (WRONG, f"is another {_kind(wanted).split(' ', 1)[-1]}")


def _in_the_form_of(found, wanted):
    """A list of numbers as an array, or the other way round, where the solution has the other: the content counts."""
    if isinstance(wanted, np.ndarray) and wanted.ndim and isinstance(found, list):
        try:
            array = np.asarray(found)
        except ValueError:  # rows of unequal lengths
            return found
        return array if array.dtype.kind in _KINDS else found
    if isinstance(wanted, list) and isinstance(found, np.ndarray) and found.ndim:
        return [row if row.ndim or row.dtype.kind == "f" else row.item() for row in map(np.asarray, found)]
    return found


def _judge_many(found, wanted, rule) -> tuple[str, str]:
    """The worst of the judgements of all items."""
    if type(found) is not type(wanted):
        return WRONG, f"is {_kind(found)}, and {_kind(wanted)} is needed"
    if isinstance(wanted, dict):
        if set(found) != set(wanted):
            return WRONG, f"has the keys {sorted(found)}, and {sorted(wanted)} are needed"
        pairs = [(key, found[key], wanted[key]) for key in wanted]
    else:
        if len(found) != len(wanted):
            return WRONG, f"has {len(found)} items, and {len(wanted)} are needed"
        pairs = [(place, *pair) for place, pair in enumerate(zip(found, wanted, strict=True), start=1)]
    judged = [(key, *_judge(one, other, rule)) for key, one, other in pairs]
    key, verdict, why = max(judged, key=lambda item: VERDICTS.index(item[1]), default=("", RIGHT, ""))
    return verdict, why and f"item {key} {why}"


def _judge_numbers(found, wanted: np.ndarray, rule) -> tuple[str, str]:
    if type(found) is int:
        found = np.asarray(found)
    if not isinstance(found, np.ndarray):
        return WRONG, f"is {_kind(found)}, and {_kind(wanted)} is needed"
    if found.shape != wanted.shape:
        return WRONG, f"has shape {found.shape}, and {wanted.shape} is needed"
    if (found.dtype.kind == "b") != (wanted.dtype.kind == "b"):
        return WRONG, f"holds {found.dtype} values, and {wanted.dtype} values are needed"
    if not rule:
        return (RIGHT, "") if np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f") else (WRONG, "differs")
    precise, finite = wanted.astype(float), np.isfinite(wanted)
    if not np.array_equal(np.where(finite, 0.0, precise), np.where(np.isfinite(found), 0.0, found), equal_nan=True):
        return WRONG, "is not finite, or finite, in other places"
    single = found.dtype in (np.float16, np.float32)
    rtol = rule["rtol32"] if single and "rtol32" in rule else rule.get("rtol", 0.0)
    scale = np.abs(precise[finite]).max(initial=0.0)
    allowed = rule.get("atol", 0.0) + rtol * scale
    error = np.abs(found.astype(float)[finite] - precise[finite]).max(initial=0.0)
    if error <= allowed:
        return RIGHT, ""
    # Relative to the solution's scale, so that the sentence tells no number of the solution's.
    why = "is not zero"
    if scale:
        why = f"differs by {error / scale:.1e} of the largest expected number; {allowed / scale:.1e} is allowed"
    return (NEAR if error <= NEAR_MISS * allowed else WRONG), why


def _display(shown) -> None:
    from IPython.display import display  # here, so that judging needs NumPy only

    display(shown)


class _Shown:
    """Something that Jupyter displays as the given bundle, and plain Python as its text."""

    def __init__(self, bundle):
        self.bundle = bundle

    def __repr__(self):
        return self.bundle["text/plain"]

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.bundle


def _is_plain(value) -> bool:
    """Whether it stands for itself in JSON."""
    if type(value) is int and abs(value) >= 2**63:
        raise ValueError("an integer must have at most 63 bits, as value or as data")
    return value is None or isinstance(value, (bool, int, str))


def _named(name: str, convert, value):
    try:
        return convert(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _is_fraction(size) -> bool:
    return isinstance(size, float) and 0 < size < 1


def _kind(value) -> str:
    """What ``value`` is, with its article, for a sentence."""
    if isinstance(value, np.ndarray):
        return "a number" if value.ndim == 0 else f"an array of shape {value.shape}"
    names = {bool: "a truth value", int: "an integer", str: "a text", list: "a list", dict: "a dictionary"}
    return names.get(type(value), "nothing")
