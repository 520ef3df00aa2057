"""Private copies of a model that keep its faults: caches, shared memory, modes and hidden attributes.

``copy.deepcopy`` will not do. It raises for a variational model that was called with gradients (its cache holds tensors
of the graph), drops an exact GP's prediction strategy and so cures the stale cache that is to be found, lets the
copy of an ``InducingPointKernel`` share the original's likelihood, and gives overlapping tensors memory of their own.
"""

from __future__ import annotations

import collections
import copy
import enum
import functools
import logging
import types
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpbook_utils.diagnose import private

_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type, range, slice, torch.dtype, torch.device, torch.Size,
    torch.layout, torch.memory_format, types.ModuleType, types.BuiltinFunctionType, types.CodeType, enum.Enum,
    logging.Logger, property, type(...), type(NotImplemented),
)  # fmt: skip


class Replica:
    """A faithful private copy of one or several objects, and the way from each original part to its copy.

    Args:
        *roots: copied together, so that what they share in memory is shared by the copies too.

    >>> from torch import nn
    >>> layer = nn.Linear(1, 1)
    >>> replica = Replica(layer)
    >>> replica.roots[0] is replica.of(layer), replica.of(layer.weight) is layer.weight
    (True, False)
    """

    def __init__(self, *roots: Any):
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # kept alive, for an id names an object only while it lives
        self._storages: dict[int, torch.UntypedStorage] = {}
        self.roots = tuple(self.of(root) for root in roots)

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> None:
        """Bring the roots, which are modules or none, to a format and a device."""
        for root in self.roots:
            if root is not None:
                root.to(dtype=dtype, device=device)

    def place(self, original: Any, substitute: Any) -> None:
        """From now on ``substitute`` stands for ``original``."""
        self._originals.append(original)
        self._copies[id(original)] = substitute

    def of(self, thing: Any) -> Any:
        """The copy that stands for ``thing``, the same one whenever it is asked for again."""
        if type(thing) in _ATOMS or isinstance(thing, _ATOMS):
            return thing
        if id(thing) in self._copies:
            return self._copies[id(thing)]
        return self._made(thing)

    def _made(self, thing: Any) -> Any:
        if isinstance(thing, Tensor):
            return self._done(thing, self._tensor(thing))
        if isinstance(thing, np.ndarray):
            return self._done(thing, thing.copy())
        if isinstance(thing, dict):
            return self._dict(thing)
        if isinstance(thing, list | collections.deque):
            new = self._done(thing, copy.copy(thing))
            new.clear()
            new.extend(self.of(item) for item in thing)
            return new
        if isinstance(thing, tuple):
            items = [self.of(item) for item in thing]
            new = type(thing)(*items) if hasattr(thing, "_fields") else tuple(items)
            return self._done(thing, new)
        if isinstance(thing, set | frozenset):
            return self._done(thing, type(thing)(self.of(item) for item in thing))
        if isinstance(thing, types.FunctionType):
            return self._done(thing, self._function(thing))
        if isinstance(thing, types.MethodType):
            return self._done(thing, types.MethodType(thing.__func__, self.of(thing.__self__)))
        if isinstance(thing, functools.partial):
            parts = (thing.func, thing.args, thing.keywords)
            func, args, keywords = (self.of(part) for part in parts)
            return self._done(thing, functools.partial(func, *args, **keywords))
        if isinstance(thing, weakref.ref):
            referent = thing()
            return self._done(thing, thing if referent is None else weakref.ref(self.of(referent)))
        return self._object(thing)

    def _done(self, original: Any, new: Any) -> Any:
        self.place(original, new)
        return new

    def _tensor(self, tensor: Tensor) -> Tensor:
        with torch.no_grad():
            if tensor.layout != torch.strided or type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
                new = tensor.detach().clone()
            else:
                storage = tensor.untyped_storage()
                key = private.address(storage)
                if key not in self._storages:
                    self._originals.append(tensor)
                    self._storages[key] = storage.clone()
                new = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                new.set_(self._storages[key], tensor.storage_offset(), tensor.shape, tensor.stride())
        if isinstance(tensor, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        elif tensor.is_leaf and tensor.is_floating_point():
            new.requires_grad_(tensor.requires_grad)
        return new

    def _dict(self, old: dict) -> dict:
        if type(old) in (dict, collections.OrderedDict):
            new = type(old)()
        else:
            new = copy.copy(old)  # keeps the kind: with a default, or of one's own
            new.clear()
        self.place(old, new)
        for key, value in old.items():
            new[self.of(key)] = self.of(value)
        return new

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """The function itself, unless it has closed over a part of the model."""
        if not function.__closure__:
            return function
        contents = [contents_of(cell) for cell in function.__closure__]
        if all(isinstance(content, (*_ATOMS, types.FunctionType)) for content in contents):
            return function
        self.place(function, function)  # a closure may hold itself
        cells = tuple(
            types.CellType() if content is EMPTY else types.CellType(self.of(content)) for content in contents
        )
        new = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
        )
        new.__kwdefaults__ = function.__kwdefaults__
        new.__dict__.update(function.__dict__)
        return new

    def _object(self, thing: Any) -> Any:
        attributes = getattr(thing, "__dict__", None)
        if isinstance(thing, torch.jit.ScriptModule | torch.Generator | np.random.Generator) or attributes is None:
            try:
                return self._done(thing, copy.deepcopy(thing))
            except Exception:
                return self._done(thing, thing)  # a lock, an open file: no state of a Gaussian process
        try:
            new = self._done(thing, object.__new__(type(thing)))
        except TypeError:
            return self._done(thing, copy.copy(thing))
        for name in _slots(type(thing)):
            if hasattr(thing, name):
                object.__setattr__(new, name, self.of(getattr(thing, name)))
        for name, value in list(attributes.items()):
            new.__dict__[name] = self.of(value)
        return new


EMPTY = object()


def contents_of(cell: types.CellType) -> Any:
    """What a function has closed over, or ``EMPTY``."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def _slots(cls: type) -> list[str]:
    names = [name for base in cls.__mro__ for name in _as_tuple(base.__dict__.get("__slots__", ()))]
    return [name for name in names if name not in ("__dict__", "__weakref__") and not name.startswith("__")]


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
