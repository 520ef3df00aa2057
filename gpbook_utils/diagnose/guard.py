"""What a diagnosis may not disturb outside the models: random generators, settings, default dtype, warnings."""

from __future__ import annotations

import ast
import contextlib
import inspect
import random
import sys
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import gpytorch
import linear_operator
import numpy as np
import torch

from gpbook_utils.diagnose import private

# What a class of GPyTorch's settings keeps its value in.
_FIELDS = tuple(field.name for field in (private.flag_state, *private.VALUES))
_KEPT = (*_FIELDS, "probe_vectors")


def _modules() -> tuple[ModuleType, ...]:
    return linear_operator.settings, gpytorch.settings, gpytorch.beta_features


def _classes() -> list[type]:
    found = {id(thing): thing for module in _modules() for thing in vars(module).values() if inspect.isclass(thing)}
    return [cls for cls in found.values() if cls.__name__ not in private.SETTINGS_BASES]


def _values() -> dict[tuple[type, str], object]:
    return {(cls, field): getattr(cls, field) for cls in _classes() for field in _KEPT if hasattr(cls, field)}


def _written() -> dict[tuple[type, str], object]:
    """The defaults, as the sources of the libraries state them.

    The values at import may be a user's, who changed a setting first; and a second import of the libraries' modules
    would have effects of its own (one of them adds a handler to a logger). So their assignments are read.
    """
    stated = {}
    for module in _modules():
        for stated_in in (n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ClassDef)):
            for node in (node for node in stated_in.body if isinstance(node, ast.Assign)):
                if (field := ast.unparse(node.targets[0])) in _FIELDS:
                    value = eval(ast.unparse(node.value), vars(module))  # a number, a truth value or torch.double
                    stated[module.__name__, stated_in.name, field] = value
    written = {}
    for cls in _classes():
        for base in reversed(cls.__mro__):
            for field in _FIELDS:
                if (place := (base.__module__, base.__name__, field)) in stated:
                    written[cls, field] = stated[place]
    return written


_DEFAULTS = _written()
# What BoTorch sets when it is imported, and its users have not changed.
_BOTORCH = {("cholesky_max_tries", 6), ("max_cholesky_size", 4096), ("max_eager_kernel_size", 4096)}


def changed_settings() -> dict[str, dict[tuple[type, str], tuple[object, object]]]:
    """The settings of GPyTorch and linear_operator that are not at their default.

    Returns:
        For each name, the class and field that hold it, each with its value and its default.

    >>> with gpytorch.settings.fast_pred_var():
    ...     list(changed_settings())
    ['fast_pred_var']
    """
    changed: dict[str, dict] = {}
    for (cls, field), value in _values().items():
        default = _DEFAULTS.get((cls, field), value)
        if field not in _FIELDS or value == default:
            continue
        if "botorch" in sys.modules and (cls.__name__, value) in _BOTORCH:
            continue
        if field == private.flag_state.name and default is None and value == private.flag_default(cls):
            continue  # switched to what it is by default
        changed.setdefault(cls.__name__.lstrip("_"), {})[cls, field] = (value, default)
    return changed


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever happens inside, also an error: random generators, settings and defaults are afterwards as before.

    >>> before = torch.get_rng_state()
    >>> with undisturbed():
    ...     _ = torch.manual_seed(1)
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    values, dtype, grad = _values(), torch.get_default_dtype(), torch.is_grad_enabled()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    matmul = torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
            for (cls, field), value in values.items():
                if getattr(cls, field) is not value:
                    setattr(cls, field, value)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            if torch.get_float32_matmul_precision() != matmul:
                torch.set_float32_matmul_precision(matmul)


def made_errors(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Which of these warnings the filters that are in force turn into errors, each once; outside :func:`undisturbed`.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warnings.warn("old", FutureWarning)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error")
    ...     made_errors(caught)
    ['FutureWarning: old']
    """
    errors = []
    with warnings.catch_warnings(record=True):
        for warning in caught:
            try:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            except Warning as error:
                errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return list(dict.fromkeys(errors))


def told(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """What GPyTorch and its relatives warned of a call, each once.

    Not that x are the training inputs, which may be meant.
    """
    texts = []
    for warning in caught:
        text = " ".join(str(warning.message).split())
        ours = warning.category.__module__.partition(".")[0] in ("gpytorch", "linear_operator", "botorch")
        if ours and not text.startswith("The input matches"):
            texts.append(f"{warning.category.__name__}: {text[:240]}")
    return list(dict.fromkeys(texts))


def states() -> tuple[Any, ...]:
    """The states of the generators that :func:`seed` sets, to be compared with :func:`drew_since`."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return torch.default_generator.get_state(), numpy_state[1], random.getstate()


def drew_since(before: tuple[Any, ...]) -> bool:
    """Whether a random number was drawn since the states were read; on an accelerator it is not known, and yes."""
    now = states()
    same = torch.equal(before[0], now[0]) and bool((before[1] == now[1]).all()) and before[2] == now[2]
    return not same or torch.cuda.is_initialized() or torch.backends.mps.is_available()


def seed(number: int) -> None:
    """Seed every generator that a model might draw from; only inside :func:`undisturbed`."""
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(number)
    else:  # torch.manual_seed formats a traceback for each device that is not there: a fifth of a small diagnosis
        torch.default_generator.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)
