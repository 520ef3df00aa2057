"""The modules of a model, also those that hide in plain attributes, and the caches in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gpytorch
from gpytorch.kernels import Kernel
from torch import nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import raw_inputs, revert_inputs


def modules_of(root: Any) -> Iterator[tuple[str, nn.Module]]:
    """All modules below ``root`` with their dotted paths, each once; also those that hide in plain attributes."""
    seen: set[int] = set()

    def visit(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield path, module
        for name, child in private.modules(module).items():
            if child is not None:
                yield from visit(child, f"{path}.{name}" if path else name)
        for name, value in module.__dict__.items():
            if name in private.OF_EVERY_MODULE:  # no place where modules hide
                continue
            for suffix, hidden in _hidden(value):
                yield from visit(hidden, f"{path}.{name}{suffix}" if path else name + suffix)

    if root is not None:
        yield from visit(root, "")


def _hidden(value: Any) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield "", value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, nn.Module):
                yield f"[{index}]", item
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, nn.Module):
                yield f"[{key!r}]", item


def caches_of(root: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The filled caches below ``root``: dotted path, and a function that empties this one."""
    return caches_in(modules_of(root))


def caches_in(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, Callable[[], None]]]:
    """The filled caches of some modules, as :func:`caches_of`."""
    for path, module in modules:
        prefix = f"{path}." if path else ""
        for cache, empty in ((private.prediction_strategy.name, None), (private.memoized.name, {})):
            if module.__dict__.get(cache):
                yield prefix + cache, functools.partial(module.__dict__.update, {cache: empty})
        if raw_inputs(module) is not getattr(module, "train_inputs", None):  # were transformed, perhaps by another
            yield prefix + "train_inputs", functools.partial(revert_inputs, module)
        keeps = isinstance(module, Kernel | private.VariationalStrategy)
        names = [name for name in module.__dict__ if keeps and name.startswith(private.CACHED)]
        if names:
            yield prefix + names[0], functools.partial(_forget, module, names)


def _forget(module: nn.Module, names: list[str]) -> None:
    for name in names:
        module.__dict__.pop(name, None)


def drop_caches(*roots: Any) -> None:
    """Empty all caches of a private copy, and leave all modes as they are."""
    for root in roots:
        if root is None:
            continue
        modules = list(modules_of(root))
        modes = [module.training for _, module in modules]
        for _, empty in list(caches_in(modules)):
            empty()
        for _, module in modules:
            if isinstance(module, gpytorch.Module):
                private.clear_cache(module)()
        for (_, module), mode in zip(modules, modes, strict=True):
            module.training = mode
