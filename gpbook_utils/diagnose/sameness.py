"""Whether two values are the same, as far as one can see without calling them."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import gpytorch
import numpy as np
import torch
from torch import Tensor, nn

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import contents_of

HOOKS = {private.forward_hooks.name, private.forward_pre_hooks.name}
# Plain attributes that are no state of the model: what every module carries, caches, data (compared by themselves).
INTERNAL = {
    *private.OF_EVERY_MODULE - HOOKS, "train_inputs", private.train_targets.name, "train_targets",
    private.distance_module.name, private.pdist_support.name, "num_outputs", private.ORIGINAL, private.TRANSFORMED,
}  # fmt: skip


def tensor_names(p: nn.Module, q: nn.Module) -> list[str]:
    """The names of parameters and buffers that one of two modules has."""
    found: dict[str, None] = {}
    for side in (p, q):
        for name in (*private.parameters(side), *private.buffers(side)):
            found[name] = None
    return list(found)


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer, or none."""
    value = private.parameters(module).get(name)
    return private.buffers(module).get(name) if value is None else value


def same_tensor(u: Tensor | None, v: Tensor | None) -> bool:
    """Whether two tensors are equal, in format and place too; NaN equals NaN."""
    if u is None or v is None:
        return u is v
    if u is v:
        return True
    if u.shape != v.shape or u.dtype != v.dtype or u.device != v.device:
        return False
    u, v = u.detach(), v.detach()
    return torch.equal(u, v) or torch.equal(u.nan_to_num(), v.nan_to_num()) and torch.equal(u.isnan(), v.isnan())


def close(u: Tensor | None, v: Tensor | None) -> bool:
    """Whether two tensors in different formats, or on different devices, are equal in the coarser format."""
    if u is None or v is None or u.shape != v.shape:
        return False
    if u.dtype == v.dtype and u.device == v.device:
        return False
    if not (u.is_floating_point() and v.is_floating_point()):
        return u.dtype == v.dtype and torch.equal(u.detach().cpu(), v.detach().cpu())
    coarse = max(u.dtype, v.dtype, key=unit_roundoff)
    s, t = (tensor.detach().cpu().to(coarse).double() for tensor in (u, v))
    error = (s - t).abs()
    # A few units in the last place: a raw parameter has passed an inverse transform in either format.
    return bool((error <= 8 * unit_roundoff(coarse) * torch.maximum(s.abs(), t.abs()).clamp_min(1.0)).all()
                or torch.equal(s, t))  # fmt: skip


def rounding_apart(u: Tensor | None, v: Tensor | None) -> bool:
    """Whether two tensors of one format differ by some units in the last place of the largest entry."""
    if u is None or v is None or u.shape != v.shape or u.dtype != v.dtype or not u.is_floating_point() or not u.numel():
        return False
    s, t = (tensor.detach().cpu().double() for tensor in (u, v))
    return bool((s - t).abs().max() <= 64 * unit_roundoff(u.dtype) * torch.maximum(s.abs(), t.abs()).max())


def same_or_close(u, v) -> bool:
    """Whether two tensors, or tuples of them, are equal in the coarser of two formats."""
    if u is None or v is None:
        return u is v
    if isinstance(u, tuple | list):
        return len(u) == len(v) and all(map(same_or_close, u, v))
    return same_tensor(u, v) or close(u, v)


def same_constraint(c, d) -> bool:
    """Whether two constraints have one class, range and transform."""
    if c is None or d is None:
        return c is d
    if c is d:
        return True
    if type(c) is not type(d):
        return False
    if not all(same_or_close(tensor_of(c, name), tensor_of(d, name)) for name in ("lower_bound", "upper_bound")):
        return False
    return is_same(private.transform_of(c), private.transform_of(d))


class NotCompared(Exception):
    """Two values could not be compared: whether they are the same is not known."""


def is_same(u: Any, v: Any) -> bool:
    """Whether two values are known to be the same."""
    try:
        return equal(u, v)
    except NotCompared:
        return False


def equal(u: Any, v: Any, depth: int = 0) -> bool:
    """Whether two values of an attribute are the same, as far as one can see without calling them.

    Raises:
        NotCompared: if their own comparison raises.
    """
    if u is v:
        return True
    for kind, compare in _KINDS.items():
        if isinstance(u, kind) and isinstance(v, kind):
            return compare(u, v, depth)
    if type(u) is not type(v) and not (isinstance(u, int | float) and isinstance(v, int | float)):
        return False
    if depth > 6:
        return True
    for kind, compare in _CONTAINERS.items():
        if isinstance(u, kind):
            return compare(u, v, depth + 1)
    if hasattr(u, "__dict__") and getattr(type(u), "__eq__") is getattr(object, "__eq__"):  # noqa: B009
        return equal(vars(u), vars(v), depth + 1)
    try:
        return bool(u == v) or (isinstance(u, float) and math.isnan(u) and math.isnan(v))
    except Exception as error:
        raise NotCompared(f"== raised {type(error).__name__}: {error}") from error


def _equal_arrays(u: np.ndarray, v: np.ndarray) -> bool:
    return u.shape == v.shape and u.dtype == v.dtype and bool(np.array_equal(u, v, equal_nan=u.dtype.kind in "fc"))


def _equal_priors(u: Any, v: Any, depth: int) -> bool:
    state = [{n: t for n, t in side.__dict__.items() if n not in INTERNAL} for side in (u, v)]
    tensors = [(private.buffers(side), private.parameters(side)) for side in (u, v)]
    return equal(state[0], state[1], depth) and equal(tensors[0], tensors[1], depth)


# What is compared in a way of its own, first whatever the classes, then of two values of one class.
_KINDS: dict[type, Callable[[Any, Any, int], bool]] = {
    Tensor: lambda u, v, depth: same_tensor(u, v) or close(u, v),
    np.ndarray: lambda u, v, depth: _equal_arrays(u, v),
    types.FunctionType: lambda u, v, depth: same_function(u, v),
    types.MethodType: lambda u, v, depth: same_function(u.__func__, v.__func__),
    functools.partial: lambda u, v, depth: all(
        equal(getattr(u, part), getattr(v, part), depth + 1) for part in ("func", "args", "keywords")
    ),
}
_CONTAINERS: dict[Any, Callable[[Any, Any, int], bool]] = {
    dict: lambda u, v, depth: u.keys() == v.keys() and all(equal(u[key], v[key], depth) for key in u),
    (list, tuple): lambda u, v, depth: len(u) == len(v) and all(equal(*pair, depth) for pair in zip(u, v, strict=True)),
    gpytorch.priors.Prior: _equal_priors,
    nn.Module: lambda u, v, depth: True,  # modules are compared where they stand
}


def same_function(f: Callable, g: Callable) -> bool:
    """Whether two Python functions have the same code, defaults and closed-over values.

    >>> same_function(lambda x: x + 1, lambda y: y + 1), same_function(lambda x: x + 1, lambda x: x + 2)
    (True, False)
    """
    if f is g:
        return True
    if not (isinstance(f, types.FunctionType) and isinstance(g, types.FunctionType)):
        return type(f) is type(g) and not callable(getattr(f, "__code__", None))
    cells = [[contents_of(cell) for cell in function.__closure__ or ()] for function in (f, g)]
    cells = [[value for value in values if not isinstance(value, type)] for values in cells]
    return (
        _code(f.__code__) == _code(g.__code__) and equal(cells[0], cells[1]) and equal(f.__defaults__, g.__defaults__)
    )


def _code(code: types.CodeType) -> tuple:
    constants = tuple(_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, constants, code.co_names


def same_class(c: Any, d: Any) -> bool:
    """Whether two classes do the same: one class, or two whose own methods have equal code and equal library bases."""
    return c is d or _same_classes(c, d)


@functools.cache
def _same_classes(c: Any, d: Any) -> bool:
    if c.__module__ == d.__module__ == "torch.nn.utils.parametrize":  # made anew for each module
        return c.__name__ == d.__name__ and same_class(c.__mro__[1], d.__mro__[1])
    library = ("gpytorch.", "torch.", "builtins", "abc", "linear_operator.")
    bases = [[base for base in cls.__mro__ if base.__module__.startswith(library)] for cls in (c, d)]
    if bases[0] != bases[1] or bases[0][0] in (c, d):
        return False
    members = []
    for cls in (c, d):
        own: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if base not in bases[0]:
                own |= vars(base)
        members.append({name: value for name, value in own.items() if not name.startswith("__") or name == "__call__"})
    members = [{n: v for n, v in own.items() if n != "_abc_impl"} for own in members]
    if members[0].keys() != members[1].keys():
        return False
    for name, u in members[0].items():
        v = members[1][name]
        if isinstance(u, property) and isinstance(v, property):
            u, v = u.fget, v.fget
        if isinstance(u, staticmethod | classmethod) and type(u) is type(v):
            u, v = u.__func__, v.__func__
        if not is_same(u, v):
            return False
    return True
