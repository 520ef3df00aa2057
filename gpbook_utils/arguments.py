"""Checks of arguments: every message says which argument is wrong, what is needed, and what came.

Each takes the name and the value of an argument and returns the value, a number as a plain one. All raise
``ValueError``, for a wrong type too. torch is imported only where a tensor or a format is asked for.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from numbers import Integral

LARGEST = 2**63 - 1


def short(value, most: int = 80) -> str:
    """``repr`` on one line, cut where it is long; of a tensor or an array its format and shape.

    >>> short(["a"] * 30, most=12)
    "['a', 'a'..."
    """
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        layout = str(getattr(value, "layout", "")).replace("torch.strided", "")
        return f"{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)} {layout}".strip()
    return cut(repr(value), most)


def cut(text: str, most: int = 80) -> str:
    """A text on one line, of so many characters at most."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def wrong(name: str, needed: str, value) -> ValueError:
    """The error to raise for an argument."""
    return ValueError(f"{name} must be {needed}; got {short(value)}")


def instance(name: str, value, kind, needed: str):
    """An instance of a class, or of one of several; ``needed`` says it in words."""
    if not isinstance(value, kind):
        raise wrong(name, needed, value)
    return value


def optional(check, name: str, value, *more, **options):
    """``None``, or what ``check`` asks for."""
    return None if value is None else check(name, value, *more, **options)


def flag(name: str, value) -> bool:
    """A truth value."""
    return instance(name, value, bool, "True or False")


def whole(name: str, value, least: int = 1, most: int = LARGEST) -> int:
    """A whole number, no truth value, from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        span = f"at least {least}" if most == LARGEST else f"from {least} to {most}"
        raise wrong(name, f"a whole number, {span}", value)
    return int(value)


def items(name: str, values) -> list:
    """The items of a list, a range, a tensor of one dimension, or anything else to iterate over, but a text."""
    fits = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    if (
        not fits
        or len(getattr(values, "shape", "x")) != 1
        or "strided" not in str(getattr(values, "layout", "strided"))
    ):
        raise wrong(name, "a list", values)
    return values.tolist() if hasattr(values, "tolist") else list(values)


def wholes(name: str, values, count: int, most: int = LARGEST) -> list[int]:
    """So many whole numbers that are not negative, in a list, a range or a tensor."""
    found = items(name, values)
    if len(found) != count or not all(
        isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value <= most for value in found
    ):
        span = "not negative" if most == LARGEST else f"from 0 to {most}"
        raise wrong(name, f"whole numbers, {span}, {count} of them", found)
    return [int(value) for value in found]


def real(name: str, value, *, above: float = -math.inf, least: float = -math.inf, finite: bool = True) -> float:
    """One real number, also of NumPy or in a tensor; if not ``finite``, also an infinity, or NaN if without bounds."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = None
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    fits = number is not None and (math.isfinite(number) or not finite)
    if not fits or (bounds and not (number > above and number >= least)):
        raise wrong(name, ", ".join([f"one {'finite ' * finite}real number", *bounds]), value)
    return number


def line(name: str, value) -> str:
    """One line of text that is not empty."""
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise wrong(name, "one non-empty line of text", value)
    return value


def one_of(name: str, value, choices: Iterable[str]) -> str:
    """One of some texts."""
    if not isinstance(value, str) or value not in choices:
        raise wrong(name, f"one of {', '.join(map(repr, choices))}", value)
    return value


def mapping(name: str, value, kind: type | tuple = object, keys: Iterable[str] = ()) -> Mapping:
    """A dictionary from texts to instances of ``kind``, with these keys among its own."""
    fits = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())
    if not fits or not set(keys) <= set(value):
        raise wrong(name, f"a dictionary of named things{' such as ' * bool(keys)}{', '.join(keys)}", value)
    return value


def function(name: str, value, /, *taken: str, **named):
    """A function, or an object that can be called, of so many arguments by place and these by name; no class."""
    needed = f"a function of {', '.join([*taken, *named]) or 'no argument'}"
    if not callable(value) or isinstance(value, type):
        raise wrong(name, needed, value)
    try:
        signature = inspect.signature(getattr(value, "forward", value))  # of a module of torch
    except (TypeError, ValueError):  # compiled code may have none
        return value
    try:
        signature.bind(*taken, **named)
    except TypeError as error:
        raise ValueError(f"{name} must be {needed}; it is {getattr(value, '__name__', value)}{signature}") from error
    return value


def format(name: str, value):
    """A floating-point format of torch."""
    import torch

    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise wrong(name, "a floating-point format such as torch.float64", value)
    return value


def tensor(name: str, value, shape: str = "", *, any_entries: bool = False):
    """A dense floating-point tensor, of a shape such as ``"(n,) or (n, m)"``; ``"(n, n)"`` is a square.

    It must have entries, and finite ones, unless ``any_entries`` will do.
    """
    import torch

    dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    if not dense or not value.is_floating_point() or value.dtype.itemsize < 2:
        raise wrong(name, f"a dense floating-point tensor{' of shape ' * bool(shape)}{shape}", value)
    sizes, named = tuple(value.shape), [re.findall(r"\w", one) for one in shape.split(" or ")]
    if shape and not any(len(n) == len(sizes) and len({*zip(n, sizes, strict=True)}) == len({*n}) for n in named):
        raise ValueError(f"{name} must have shape {shape}; got {sizes}")
    if value.numel() == 0 and not any_entries:
        raise ValueError(f"{name} is empty: shape {sizes}")
    if not any_entries and (bad := int((~torch.isfinite(value)).sum())):
        raise ValueError(f"{name} has {bad} NaN or infinite entries of {value.numel()}")
    return value
