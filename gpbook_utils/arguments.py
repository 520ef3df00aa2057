"""Checks of arguments: every message says which argument is wrong, what is needed, and what came.

Each takes the name and the value of an argument and returns the value, a number as a plain one. All raise
``ValueError``, for a wrong type too. torch is imported only where a tensor or a format is asked for.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from numbers import Integral

LARGEST = 2**63 - 1


def short(value) -> str:
    """``repr`` on one line, cut where it is long; of a tensor or an array its format and shape."""
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        layout = str(getattr(value, "layout", "")).replace("torch.strided", "")
        return f"{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)} {layout}".strip()
    return cut(repr(value))


def cut(text: str, most: int = 80) -> str:
    """A text on one line, of so many characters at most.

    >>> cut("more than it can hold", 12)
    'more than...'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def need(holds, name: str, needed: str, value):
    """The value of an argument; ``ValueError`` unless it ``holds``."""
    if not holds:
        raise ValueError(f"{name} must be {needed}; got {short(value)}")
    return value


def optional(check, name: str, value, *more, **options):
    """``None``, or what ``check`` asks for."""
    return None if value is None else check(name, value, *more, **options)


def instance(name: str, value, kind, needed: str):
    """An instance of a class, or of one of several; ``needed`` says it in words."""
    return need(isinstance(value, kind), name, needed, value)


def flag(name: str, value) -> bool:
    """A truth value."""
    return instance(name, value, bool, "True or False")


def whole(name: str, value, least: int = 1, most: int = LARGEST) -> int:
    """A whole number, no truth value, from ``least`` to ``most``."""
    span = f"at least {least}" if most == LARGEST else f"from {least} to {most}"
    number = isinstance(value, Integral) and not isinstance(value, bool)
    return int(need(number and least <= value <= most, name, f"a whole number, {span}", value))


def items(name: str, values) -> list:
    """The items of a list, a range, a tensor, or anything else to iterate over, but of a text or a dictionary."""
    with suppress(TypeError, RuntimeError):  # also of torch, for a tensor without entries to read
        if not isinstance(values, str | bytes | Mapping):
            return list(values.tolist() if hasattr(values, "tolist") else values)
    return need(False, name, "a list", values)


def wholes(name: str, values, count: int, most: int = LARGEST) -> list[int]:
    """So many whole numbers that are not negative, in a list, a range or a tensor."""
    found = items(name, values)
    need(len(found) == count, name, f"{count} whole numbers", found)
    return [whole(f"{name}[{place}]", value, 0, most) for place, value in enumerate(found)]


def real(name: str, value, *, above: float = -math.inf, least: float = -math.inf, finite: bool = True) -> float:
    """One real number, also of NumPy or in a tensor; if not ``finite``, also an infinity, or NaN if without bounds."""
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        if not isinstance(value, str | bytes | bool):
            number = float(value.detach() if hasattr(value, "detach") else value)
            fits = math.isfinite(number) or not finite
            if fits and (not bounds or (number > above and number >= least)):
                return number
    return need(False, name, ", ".join([f"one {'finite ' * finite}real number", *bounds]), value)


def line(name: str, value) -> str:
    """One line of text that is not empty."""
    holds = isinstance(value, str) and value.strip() and "\n" not in value
    return need(holds, name, "one non-empty line of text", value)


def one_of(name: str, value, choices: Iterable[str]) -> str:
    """One of some texts."""
    return need(isinstance(value, str) and value in choices, name, f"one of {', '.join(map(repr, choices))}", value)


def mapping(name: str, value, kind: type | tuple = object, keys: Iterable[str] = ()) -> Mapping:
    """A dictionary from texts to instances of ``kind``, with these keys among its own."""
    fits = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())
    needed = f"a dictionary of named things{' such as ' * bool(keys)}{', '.join(keys)}"
    return need(fits and set(keys) <= set(value), name, needed, value)


def function(name: str, value, /, *taken: str, **named):
    """A function, or an object that can be called, of so many arguments by place and these by name; no class."""
    needed = f"a function of {', '.join([*taken, *named]) or 'no argument'}"
    need(callable(value) and not isinstance(value, type), name, needed, value)
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

    floating = isinstance(value, torch.dtype) and value.is_floating_point
    return need(floating, name, "a floating-point format such as torch.float64", value)


def tensor(name: str, value, shape: str = "", *, any_entries: bool = False):
    """A dense floating-point tensor, of a shape such as ``"(n,) or (n, m)"``; ``"(n, n)"`` is a square.

    It must have entries, and finite ones, unless ``any_entries`` will do.
    """
    import torch

    dense = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    fits = dense and value.is_floating_point() and value.dtype.itemsize > 1
    need(fits, name, f"a dense floating-point tensor{' of shape ' * bool(shape)}{shape}", value)
    sizes, named = tuple(value.shape), [re.findall(r"\w", one) for one in shape.split(" or ")]
    if shape and not any(len(n) == len(sizes) and len({*zip(n, sizes, strict=True)}) == len({*n}) for n in named):
        raise ValueError(f"{name} must have shape {shape}; got {sizes}")
    if value.numel() == 0 and not any_entries:
        raise ValueError(f"{name} is empty: shape {sizes}")
    if not any_entries and (bad := int((~torch.isfinite(value)).sum())):
        raise ValueError(f"{name} has {bad} NaN or infinite entries of {value.numel()}")
    return value
