"""The whole state of two models side by side, and for each difference the way to take it over from the other.

Nothing here knows a kernel by name. Both trees are walked together: classes, parameters, buffers, constraints, priors,
plain attributes, modes, training data and format, so that a module that nobody has heard of is compared as well.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, ScaleKernel
from torch import Tensor, nn

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.readings import Subject, dtype_of, modules_of

Change = Callable[[Replica], None]

_HOOKS = {private.forward_hooks.name, private.forward_pre_hooks.name}
# Plain attributes that are no state of the model: what every module carries, caches, data (compared by themselves).
_INTERNAL = {
    *private.OF_EVERY_MODULE - _HOOKS, "train_inputs", private.train_targets.name, "train_targets",
    private.distance_module.name, private.pdist_support.name, "num_outputs",
}  # fmt: skip
MANY = 24  # more differences than this are grouped by module


@dataclass
class Difference:
    """One thing that two models do not share.

    Attributes:
        cause: a slug of :mod:`gpbook_utils.diagnose.causes`.
        where: dotted path in the models.
        a: what the first model has, in a few words.
        b: what the second model has.
        onto_a: makes a private copy of the first model take the second's.
        onto_b: the reverse.
        order: differences of lower order are taken over first.
    """

    cause: str
    where: str
    a: str
    b: str
    onto_a: Change
    onto_b: Change
    order: int = 2


def differences(a: Subject, b: Subject) -> list[Difference]:
    """All differences in state between two models; those of value last, those of structure first."""
    walk = _Walk(a, b)
    walk.modules(a.model, b.model, "", None)
    if a.likelihood is not None and b.likelihood is not None:
        walk.modules(a.likelihood, b.likelihood, "likelihood", None)
    walk.modes()
    walk.gradients()
    walk.data()
    walk.format()
    return sorted(_grouped(walk.found), key=lambda difference: difference.order)


class _Walk:
    def __init__(self, a: Subject, b: Subject):
        self.a, self.b = a, b
        self.found: list[Difference] = []
        self.pairs: list[tuple[nn.Module, nn.Module, str]] = []
        self.seen: set[tuple[int, int]] = set()
        self.close: list[tuple[nn.Module, nn.Module, str]] = []  # tensors that are equal in the coarser format

    def add(self, cause: str, where: str, a: str, b: str, one_way: Callable, p: Any, q: Any, order: int = 2) -> None:
        """``one_way(replica, own, other, pairs)`` makes the copy of ``own`` take over what ``other`` has."""
        forth = functools.partial(one_way, own=p, other=q, pairs=self.pairs)
        back = functools.partial(one_way, own=q, other=p, pairs=_Swapped(self.pairs))
        self.found.append(Difference(cause, where, a, b, forth, back, order))

    # Modules ------------------------------------------------------------------------------------------------------

    def modules(self, p: nn.Module, q: nn.Module, path: str, slot: tuple | None) -> None:
        """Compare two modules that stand at the same place; ``slot`` is (parent of p, parent of q, name)."""
        if (id(p), id(q)) in self.seen or p is q:
            self.pairs.append((p, q, path))
            return
        wrapped = self._wrapped(p, q, path, slot)
        if wrapped is not None:
            self.modules(*wrapped, path, None)
            return
        self.seen.add((id(p), id(q)))
        self.pairs.append((p, q, path))
        same = same_class(type(p), type(q))
        if not same:
            strategy = isinstance(p, private.VariationalStrategy) and isinstance(q, private.VariationalStrategy)
            cause = "model-class" if slot is None else "variational-strategy" if strategy else "structure"
            if isinstance(p, private.VariationalDistribution):
                cause = "variational-distribution"
            if slot is None and type(p).__name__ == type(q).__name__:
                cause = "forward-code"
            self.add(cause, path, _class(p), _class(q), _take_class, p, q, order=0)
        if isinstance(p, private.VariationalDistribution) and same:
            self._distribution(p, q, path, slot)
            return
        names, before = _tensor_names(p, q), len(self.found)
        self._parameters(p, q, path, names, same)
        shapes = [difference for difference in self.found[before:] if difference.order == 1]
        self._priors(p, q, path)
        if same:
            self._attributes(p, q, path, shapes)
        self._children(p, q, path, same)

    def _wrapped(self, p, q, path, slot):
        """Does one of the two lack a kernel around the other, such as a ScaleKernel?"""
        if slot is None or not (isinstance(p, Kernel) and isinstance(q, Kernel)) or same_class(type(p), type(q)):
            return None
        inner_p, inner_q = (private.modules(side).get("base_kernel") for side in (p, q))
        if inner_q is not None and same_class(type(p), type(inner_q)):
            outer, pair, lacks = q, (p, inner_q), ("no ", "")
        elif inner_p is not None and same_class(type(inner_p), type(q)):
            outer, pair, lacks = p, (inner_p, q), ("", "no ")
        else:
            return None
        name = type(outer).__name__
        detail = f" (outputscale {_show(outer.outputscale)})" if isinstance(outer, ScaleKernel) else ""
        described = [lack + name + ("" if lack else detail) for lack in lacks]
        cause = "missing-scale-kernel" if isinstance(outer, ScaleKernel) else "structure"
        parent_p, parent_q, key = slot

        def change(parent, own_outer, own, other_outer, pairs, replica):
            _set_child(replica.of(parent), key, _new_wrapper(replica, own_outer, own, other_outer, pairs))

        mine = (p, q) if outer is p else (None, None)
        forth = functools.partial(change, parent_p, mine[0], pair[0], None if outer is p else q, self.pairs)
        back = functools.partial(
            change, parent_q, q if outer is q else None, pair[1], p if outer is p else None, _Swapped(self.pairs)
        )
        self.found.append(Difference(cause, path, *described, forth, back, 0))
        return pair

    def _distribution(self, p, q, path, slot) -> None:
        """q(u) is one thing: its mean, its covariance, and whether they have been initialised."""
        strategies = slot[:2] if slot else (None, None)
        names = [name for name in _tensor_names(p, q) if not _same_tensor(_tensor(p, name), _tensor(q, name))]
        flags = [private.started.name] if slot and all(map(_has_flag, strategies)) else []
        flags = [f for f in flags if not torch.equal(*(private.buffers(strategy)[f] for strategy in strategies))]
        # Equal in the coarser of two formats: that is a matter of the format.
        self.close += [(p, q, name) for name in names if _close(_tensor(p, name), _tensor(q, name))]
        names = [name for name in names if not _close(_tensor(p, name), _tensor(q, name))]
        plain = [
            name for name in (p.__dict__.keys() | q.__dict__.keys()) - _INTERNAL if name != private.mean_init_std.name
        ]
        plain = [name for name in plain if not _same(p.__dict__.get(name), q.__dict__.get(name))]
        if not names and not flags and not plain:
            return

        def change(replica, own, other, pairs):
            for name in names:
                _take_tensor(replica, own[0], other[0], pairs, name=name)
            for name in plain:
                _take_attribute(replica, own[0], other[0], pairs, name=name)
            for name in flags:
                _take_tensor(replica, own[1], other[1], pairs, name=name)

        described = [
            ", ".join(_show(_tensor(side, name), name) for name in names)
            + ("" if not flags else f", initialised: {bool(private.started(strategy))}")
            for side, strategy in zip((p, q), strategies, strict=True)
        ]
        self.add("variational-distribution", path, *described, change, (p, strategies[0]), (q, strategies[1]))

    def _parameters(self, p, q, path, names, same: bool) -> None:
        for name in names:
            here = f"{path}.{name}" if path else name
            u, v = _tensor(p, name), _tensor(q, name)
            constraints = [private.constraint_of(side, name) for side in (p, q)]
            other_bounds = not _same_constraint(*constraints)
            if name == private.started.name and isinstance(p, private.VariationalStrategy):
                continue
            if not same and (u is None or v is None):
                continue  # the class brings it along
            if other_bounds:
                parts = [name, private.constraint_name(name)]
                described = [_constrained(side, name) + f", {_show_constraint(c)}" for side, c in
                             zip((p, q), constraints, strict=True)]  # fmt: skip
                self.add("constraint", here, *described, functools.partial(_take_both, names=parts), p, q)
            elif not _same_tensor(u, v):
                if _close(u, v):
                    self.close.append((p, q, name))
                    continue
                cause = _kind_of_value(p, q, name, u, v)
                described = [_constrained(side, name) for side in (p, q)]
                order = 1 if u is None or v is None or u.shape != v.shape else 2
                self.add(cause, here, *described, functools.partial(_take_tensor, name=name), p, q, order)

    def _priors(self, p, q, path) -> None:
        mine, others = private.priors(p, {}), private.priors(q, {})
        for name in sorted(mine.keys() | others.keys()):
            u, v = (priors.get(name, (None, None))[:2] for priors in (mine, others))  # a prior, and of what it is
            if not _same(u, v):
                here = f"{path}.{name}" if path else name
                described = [_show_prior(side[0]) for side in (u, v)]
                if _same(u[0], v[0]):
                    described[1] += ", of another function of the parameters"
                self.add("prior", here, *described, functools.partial(_take_prior, name=name), p, q)

    def _attributes(self, p, q, path, shapes) -> None:
        """Plain attributes; the numbers that go with a parameter of another shape are taken over together with it."""
        missing, sizes = object(), []
        tensors = set(_tensor_names(p, q))  # a bias that is None is an attribute in one of the two
        for name in sorted((p.__dict__.keys() | q.__dict__.keys()) - _INTERNAL - tensors):
            if name.startswith(private.CACHED):
                continue
            u, v = p.__dict__.get(name, missing), q.__dict__.get(name, missing)
            if name in _HOOKS:  # under numbers that are counted through the process
                u, v = (list(value.values()) for value in (u, v))
            if isinstance(u, nn.Module) and isinstance(v, nn.Module):
                if id(u) not in (id(self.a.model),):
                    self.modules(u, v, f"{path}.{name}" if path else name, None)
                continue
            if isinstance(u, list | tuple) and isinstance(v, list | tuple) and len(u) == len(v):
                for index, (s, t) in enumerate(zip(u, v, strict=True)):
                    if isinstance(s, nn.Module) and isinstance(t, nn.Module):
                        self.modules(s, t, f"{path}.{name}[{index}]" if path else f"{name}[{index}]", None)
            problem = ""
            try:
                if _equal(u, v):
                    continue
            except NotCompared as error:
                problem = str(error)
            if shapes and all(value is None or isinstance(value, _SIZES) for value in (u, v)):
                change = functools.partial(_take_attribute, name=name)
                for difference in shapes:
                    _accompany(difference, change, p, q, self.pairs)
                sizes.append((name, u, v))
                continue
            here = f"{path}.{name}" if path else name
            described = ["absent" if value is missing else _show(value) for value in (u, v) if not problem]
            hidden = any(isinstance(value, Tensor | np.ndarray) for value in (u, v))
            cause = "jitter" if "jitter" in name else "state-outside-state-dict" if hidden else "attribute"
            if problem:
                cause, described = "not-compared", [f"{type(value).__name__}, {problem}" for value in (u, v)]
            self.add(cause, here, *described, functools.partial(_take_attribute, name=name), p, q)
        if sizes and len(shapes) > 1:  # one number of mixtures, and so several parameters of another shape
            (name, u, v), joined = sizes[0], _joined((shapes[0].cause, path), shapes)
            joined.a, joined.b = f"{name} {_show(u)}", f"{name} {_show(v)}"
            self.found = [difference for difference in self.found if difference not in shapes] + [joined]

    def _children(self, p, q, path, same: bool) -> None:
        priors = private.priors(p, {}).keys() | private.priors(q, {}).keys()
        mine, others = private.modules(p), private.modules(q)
        for name in dict.fromkeys((*mine, *others)):
            u, v = mine.get(name), others.get(name)
            if name in priors or isinstance(u, Interval) or isinstance(v, Interval):
                continue
            here = f"{path}.{name}" if path else name
            if u is not None and v is not None:
                self.modules(u, v, here, (p, q, name))
            elif (u is None) != (v is None) and same:
                described = ["absent" if child is None else _class(child) for child in (u, v)]
                self.add("structure", here, *described, functools.partial(_take_child, name=name), p, q, 0)

    # The model as a whole -----------------------------------------------------------------------------------------

    def modes(self) -> None:
        unequal = [
            (p, q, path) for p, q, path in self.pairs if p.training != q.training and not isinstance(p, Interval)
        ]
        if not unequal:
            return
        p, q, path = unequal[0]

        def change(replica, own, other, pairs):
            for mine, others, _ in pairs:
                replica.of(mine).training = others.training

        described = ["training" if side.training else "evaluation" for side in (p, q)]
        self.add("mode", path or "training", *described, change, p, q, 3)

    def gradients(self) -> None:
        """Whether parameters ask for gradients: some kernels then take another code path."""
        unequal = []
        for p, q, path in self.pairs:
            mine, others = private.parameters(p), private.parameters(q)
            for name in mine.keys() & others.keys():
                u, v = mine[name], others[name]
                if u is not None and v is not None and u.requires_grad != v.requires_grad:
                    unequal.append((p, q, name, f"{path}.{name}" if path else name))
        if not unequal:
            return

        def change(replica, own, other, pairs):
            for p, q, name, _ in unequal:
                mine, others = (p, q) if own is self.a.model else (q, p)
                theirs = private.parameters(others)[name]
                private.parameters(replica.of(mine))[name].requires_grad_(theirs.requires_grad)

        p, q, name, where = unequal[0]
        described = [f"requires_grad {private.parameters(side)[name].requires_grad}" for side in (p, q)]
        self.add("requires-grad", where, *described, change, self.a.model, self.b.model)

    def data(self) -> None:
        p, q = self.a.model, self.b.model
        inputs = [getattr(side, "train_inputs", None) for side in (p, q)]
        targets = [getattr(side, "train_targets", None) for side in (p, q)]
        if all(value is None for value in (*inputs, *targets)):
            return
        equal_inputs, equal_targets = _same_or_close(*inputs), _same_or_close(*targets)
        if equal_inputs and equal_targets:
            return
        shapes = [_shapes(i, t) for i, t in zip(inputs, targets, strict=True)]
        if any(value is None for value in (*inputs, *targets)):
            described = ["none" if i is None else f"{len(t)} points" for i, t in zip(inputs, targets, strict=True)]
            self.add("no-training-data", "train_inputs", *described, _take_data, p, q, 1)
        elif _row_order(inputs, targets):
            described = [f"first row {_show(i[0][..., 0, :])}" for i in inputs]
            self.add("row-order", "train_inputs", *described, _take_data, p, q)
        elif shapes[0][0] == shapes[1][0] and shapes[0][1] != shapes[1][1]:
            described = [f"shape {tuple(t.shape)}" for t in targets]
            change = functools.partial(_take_data, part="train_targets")
            self.add("target-shape", "train_targets", *described, change, p, q, 1)
            if not equal_inputs:
                self._inputs(inputs, p, q)
        elif shapes[0] != shapes[1]:
            described = [f"{tuple(i[0].shape)}, {tuple(t.shape)}" for i, t in zip(inputs, targets, strict=True)]
            self.add("training-data", "train_inputs", *described, _take_data, p, q, 1)
        else:
            if not equal_inputs:
                self._inputs(inputs, p, q)
            if not equal_targets:
                cause = "training-targets"
                if _rounded(*targets):
                    cause = "rounded-data"
                elif not _near(*targets) and _affine(*targets):
                    cause = "scaled-targets"
                change = functools.partial(_take_data, part="train_targets")
                self.add(cause, "train_targets", *map(_show, targets), change, p, q)

    def _inputs(self, inputs, p, q) -> None:
        change = functools.partial(_take_data, part="train_inputs")
        self.add(_kind_of_data(inputs), "train_inputs", *(_show(side[0]) for side in inputs), change, p, q)

    def format(self) -> None:
        p, q = self.a.model, self.b.model
        formats = [dtype_of(side) for side in (p, q)]
        devices = [_device(side) for side in (p, q)]
        if formats[0] == formats[1] and devices[0] == devices[1]:
            return
        close = self.close

        def change(replica, own, other, pairs):
            index = 1 if own is self.a.model else 0
            for root in replica.roots:
                if root is not None:
                    root.to(dtype=formats[index], device=devices[index])
            for mine, others, name in close:
                if own is not self.a.model:
                    mine, others = others, mine
                _take_tensor(replica, mine, others, pairs, name=name)
            for part in ("train_inputs", "train_targets"):
                values = [getattr(side, part, None) for side in (self.a.model, self.b.model)]
                if all(value is not None for value in values) and _same_or_close(*values):
                    _take_data(replica, own, other, pairs, part=part)

        cause = "dtype" if formats[0] != formats[1] else "device"
        described = [str(f).removeprefix("torch.") + f" on {d}" for f, d in zip(formats, devices, strict=True)]
        self.add(cause, "", *described, change, p, q, 1)


class _Swapped:
    """Pairs of modules seen from the other side."""

    def __init__(self, pairs):
        self._pairs = pairs

    def __iter__(self):
        return ((q, p, path) for p, q, path in self._pairs)


_SIZES = (int, torch.Size, list, tuple)  # ard_num_dims, num_mixtures, grid_sizes


def _accompany(difference: Difference, change: Callable, p, q, pairs) -> None:
    """Let another change go with a difference, in both directions."""
    forth, back = difference.onto_a, difference.onto_b

    def onto_a(replica: Replica) -> None:
        forth(replica)
        change(replica, p, q, pairs)

    def onto_b(replica: Replica) -> None:
        back(replica)
        change(replica, q, p, _Swapped(pairs))

    difference.onto_a, difference.onto_b = onto_a, onto_b


# Taking over -------------------------------------------------------------------------------------------------------


def _translated(replica: Replica, pairs, thing: Any, inside: nn.Module | None = None) -> Any:
    """A private copy of something of the other model, in which the other model's parts are this copy's parts."""
    copier = Replica()
    own = {id(module) for _, module in modules_of(inside)} if inside is not None else set()
    for mine, others, _ in pairs:
        if id(others) not in own:
            copier.place(others, replica.of(mine))
    return copier.copy(thing)


def _take_tensor(replica: Replica, own, other, pairs, *, name: str) -> None:
    target, source = replica.of(own), _tensor(other, name)
    for kind in (private.parameters, private.buffers):
        if name in kind(target) or name in kind(own):
            break
    else:
        kind = private.parameters if name in private.parameters(other) else private.buffers
    container = kind(target)
    old = container.get(name)
    if source is None:
        if name in other.__dict__:
            container.pop(name, None)
            target.__dict__[name] = other.__dict__[name]
        else:
            container[name] = None
        return
    target.__dict__.pop(name, None)  # None, where the other has a tensor
    value = source.detach().clone()
    if old is not None:
        value = value.to(device=old.device, dtype=old.dtype if old.is_floating_point() else value.dtype)
        if isinstance(old, nn.Parameter):
            old.data = value  # new memory, the same parameter: ties remain, shared memory does not
            return
    container[name] = nn.Parameter(value, source.requires_grad) if kind is private.parameters else value


def _take_both(replica: Replica, own, other, pairs, *, names: list[str]) -> None:
    _take_tensor(replica, own, other, pairs, name=names[0])
    _take_child(replica, own, other, pairs, name=names[1])


def _take_child(replica: Replica, own, other, pairs, *, name: str) -> None:
    child = private.modules(other).get(name)
    _set_child(replica.of(own), name, None if child is None else _translated(replica, pairs, child, child))


def _set_child(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    if child is None:
        private.modules(parent).pop(name, None)
        private.constraints(parent, {}).pop(name, None)
        return
    private.modules(parent)[name] = child
    if isinstance(child, Interval):
        private.constraints(parent, {})[name] = child
    tensor = next(parent.parameters(), None)
    if tensor is not None and tensor.is_floating_point():
        child.to(tensor.dtype)


def _take_prior(replica: Replica, own, other, pairs, *, name: str) -> None:
    target = replica.of(own)
    if name not in private.priors(other):
        private.priors(target).pop(name, None)
        private.modules(target).pop(name, None)
        return
    entry = _translated(replica, pairs, private.priors(other)[name])
    private.priors(target)[name] = entry
    if name in private.modules(other):
        private.modules(target)[name] = entry[0]


def _take_attribute(replica: Replica, own, other, pairs, *, name: str) -> None:
    target = replica.of(own)
    if name in other.__dict__:
        target.__dict__[name] = _translated(replica, pairs, other.__dict__[name])
    else:
        target.__dict__.pop(name, None)


def _take_class(replica: Replica, own, other, pairs) -> None:
    """The other's class and what only it has; what both have, and is of one kind and shape, stays."""
    target = replica.of(own)
    shell = _translated(replica, pairs, other, other)
    for kind in (private.parameters, private.buffers):
        for name, value in kind(shell).items():
            old = kind(target).get(name)
            if old is not None and value is not None and old.shape == value.shape:
                kind(shell)[name] = old
    for name, child in list(private.modules(shell).items()):
        old = private.modules(target).get(name)
        if old is not None and child is not None and (same_class(type(old), type(child)) or _walked(own, other, name)):
            private.modules(shell)[name] = old
            if name in private.constraints(shell, {}):
                private.constraints(shell)[name] = old
    for name in ("train_inputs", private.train_targets.name, "training"):
        if name in target.__dict__:
            shell.__dict__[name] = target.__dict__[name]
    # The same object with another content, for others refer to it.
    target.__dict__.clear()
    target.__dict__.update(shell.__dict__)
    target.__class__ = type(shell)
    for module in list(modules_of(target)):
        for name, value in module[1].__dict__.items():
            if value is shell:
                module[1].__dict__[name] = target


def _walked(own, other, name: str) -> bool:
    """Whether the two children of that name are compared by themselves."""
    return not isinstance(private.modules(other).get(name), Interval)


def _new_wrapper(replica: Replica, own_outer, own, other_outer, pairs) -> nn.Module:
    if own_outer is not None:
        return replica.of(own)  # the wrapper goes
    wrapper = _translated(replica, [pair for pair in pairs if pair[0] is not own], other_outer, other_outer)
    private.modules(wrapper)["base_kernel"] = replica.of(own)
    wrapper.training = replica.of(own).training
    return wrapper


def _take_data(replica: Replica, own, other, pairs, *, part: str | None = None) -> None:
    target = replica.of(own)
    reference = next(iter(target.parameters()), None)

    def moved(tensor):
        if tensor is None:
            return None
        like = reference if reference is not None and tensor.is_floating_point() else tensor
        return tensor.detach().clone().to(device=like.device, dtype=like.dtype)

    if part in (None, "train_inputs"):
        inputs = getattr(other, "train_inputs", None)
        target.__dict__["train_inputs"] = None if inputs is None else tuple(moved(tensor) for tensor in inputs)
    if part in (None, "train_targets"):
        target.__dict__[private.train_targets.name] = moved(getattr(other, "train_targets", None))


# Comparing ---------------------------------------------------------------------------------------------------------


def _tensor_names(p: nn.Module, q: nn.Module) -> list[str]:
    found = {}
    for side in (p, q):
        for name in (*private.parameters(side), *private.buffers(side)):
            found[name] = None
    return list(found)


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    value = private.parameters(module).get(name)
    return private.buffers(module).get(name) if value is None else value


def _same_tensor(u: Tensor | None, v: Tensor | None) -> bool:
    if u is None or v is None:
        return u is v
    if u is v:
        return True
    if u.shape != v.shape or u.dtype != v.dtype or u.device != v.device:
        return False
    u, v = u.detach(), v.detach()
    return torch.equal(u, v) or torch.equal(u.nan_to_num(), v.nan_to_num()) and torch.equal(u.isnan(), v.isnan())


def _close(u: Tensor | None, v: Tensor | None) -> bool:
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


def _same_or_close(u, v) -> bool:
    if u is None or v is None:
        return u is v
    if isinstance(u, tuple | list):
        return len(u) == len(v) and all(map(_same_or_close, u, v))
    return _same_tensor(u, v) or _close(u, v)


def _same_constraint(c, d) -> bool:
    if c is None or d is None:
        return c is d
    if c is d:
        return True
    if type(c) is not type(d):
        return False
    if not all(_same_or_close(_tensor(c, name), _tensor(d, name)) for name in ("lower_bound", "upper_bound")):
        return False
    return _same(private.transform_of(c), private.transform_of(d))


class NotCompared(Exception):
    """Two values could not be compared: whether they are the same is not known."""


def _same(u: Any, v: Any) -> bool:
    """Whether two values are known to be the same."""
    try:
        return _equal(u, v)
    except NotCompared:
        return False


def _equal(u: Any, v: Any, depth: int = 0) -> bool:
    """Whether two values of an attribute are the same, as far as one can see without calling them.

    Raises:
        NotCompared: if their own comparison raises.
    """
    if u is v:
        return True
    if isinstance(u, Tensor) and isinstance(v, Tensor):
        return _same_tensor(u, v) or _close(u, v)
    if isinstance(u, np.ndarray) and isinstance(v, np.ndarray):
        return u.shape == v.shape and u.dtype == v.dtype and bool(np.array_equal(u, v, equal_nan=u.dtype.kind in "fc"))
    if isinstance(u, types.FunctionType) and isinstance(v, types.FunctionType):
        return same_function(u, v)
    if isinstance(u, types.MethodType) and isinstance(v, types.MethodType):
        return same_function(u.__func__, v.__func__)
    if isinstance(u, functools.partial) and isinstance(v, functools.partial):
        return all(_equal(getattr(u, part), getattr(v, part), depth + 1) for part in ("func", "args", "keywords"))
    if type(u) is not type(v) and not (isinstance(u, int | float) and isinstance(v, int | float)):
        return False
    if depth > 6:
        return True
    if isinstance(u, dict):
        return u.keys() == v.keys() and all(_equal(u[key], v[key], depth + 1) for key in u)
    if isinstance(u, list | tuple):
        return len(u) == len(v) and all(_equal(s, t, depth + 1) for s, t in zip(u, v, strict=True))
    if isinstance(u, gpytorch.priors.Prior):
        state = [{n: t for n, t in side.__dict__.items() if n not in _INTERNAL} for side in (u, v)]
        tensors = [(private.buffers(side), private.parameters(side)) for side in (u, v)]
        return _equal(state[0], state[1], depth + 1) and _equal(tensors[0], tensors[1], depth + 1)
    if isinstance(u, nn.Module):
        return True  # modules are compared where they stand
    if hasattr(u, "__dict__") and type(u).__eq__ is object.__eq__:
        return _equal(vars(u), vars(v), depth + 1)
    try:
        return bool(u == v) or (isinstance(u, float) and math.isnan(u) and math.isnan(v))
    except Exception as error:
        raise NotCompared(f"== raised {type(error).__name__}: {error}") from error


def same_function(f: Callable, g: Callable) -> bool:
    """Whether two Python functions have the same code, defaults and closed-over values.

    >>> same_function(lambda x: x + 1, lambda y: y + 1), same_function(lambda x: x + 1, lambda x: x + 2)
    (True, False)
    """
    if f is g:
        return True
    if not (isinstance(f, types.FunctionType) and isinstance(g, types.FunctionType)):
        return type(f) is type(g) and not callable(getattr(f, "__code__", None))
    cells = [[cell.cell_contents for cell in function.__closure__ or () if not _empty(cell)] for function in (f, g)]
    cells = [[value for value in values if not isinstance(value, type)] for values in cells]
    return (
        _code(f.__code__) == _code(g.__code__) and _equal(cells[0], cells[1]) and _equal(f.__defaults__, g.__defaults__)
    )


def _empty(cell) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _code(code: types.CodeType) -> tuple:
    constants = tuple(_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, constants, code.co_names


@functools.cache
def same_class(c: type, d: type) -> bool:
    """Whether two classes do the same: one class, or two whose own methods have equal code and equal library bases."""
    if c is d:
        return True
    if c.__module__ == d.__module__ == "torch.nn.utils.parametrize":  # made anew for each module
        return c.__name__ == d.__name__ and same_class(c.__mro__[1], d.__mro__[1])
    library = ("gpytorch.", "torch.", "builtins", "abc", "linear_operator.")
    bases = [[base for base in cls.__mro__ if base.__module__.startswith(library)] for cls in (c, d)]
    if bases[0] != bases[1] or bases[0][0] in (c, d):
        return False
    members = []
    for cls in (c, d):
        own = {}
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
        if not _same(u, v):
            return False
    return True


# Naming ------------------------------------------------------------------------------------------------------------


def _kind_of_value(p, q, name, u, v) -> str:
    if "inducing_points" in name:
        return "inducing-points"
    if name == "active_dims":
        return "active-dims"
    if u is None or v is None:
        return "structure"
    if u.shape != v.shape:
        return "shape" if name in private.parameters(p) else "buffer"
    if name == private.random_weights.name:
        return "random-features"
    if not isinstance(p, gpytorch.Module):
        return "network-weights" if name in private.parameters(p) else "buffer"
    if not u.is_floating_point():
        return "buffer"
    constraint = private.constraint_of(p, name)
    s, t = u.detach().cpu().double(), v.detach().cpu().double()
    if constraint is not None:
        constrained = [private.constraint_of(side, name).transform(w).detach().cpu().double() for side, w in
                       ((p, u), (q, v))]  # fmt: skip
        if torch.allclose(s, constrained[1], rtol=1e-5, atol=0) or torch.allclose(t, constrained[0], rtol=1e-5, atol=0):
            return "raw-vs-constrained"
        if u.dtype == v.dtype == torch.float64 and torch.equal(constrained[0].float(), constrained[1].float()):
            return "rounded-float"
    elif u.dtype == v.dtype == torch.float64 and torch.equal(s.float(), t.float()):
        return "rounded-float"
    if s.numel() > 1 and torch.equal(s.flatten().sort().values, t.flatten().sort().values):
        return "column-order"
    return "parameter" if name in private.parameters(p) else "buffer"


def _kind_of_data(inputs) -> str:
    p, q = (torch.cat([t.detach().cpu().double() for t in side], -1) for side in inputs)
    if p.shape != q.shape:
        return "training-inputs"
    if torch.equal(p.sort(-1).values, q.sort(-1).values):
        return "column-order"
    if all(map(_rounded, *inputs)):
        return "rounded-data"
    if _near(p, q):
        return "training-inputs"
    columns = zip(p.reshape(-1, p.shape[-1]).T, q.reshape(-1, q.shape[-1]).T, strict=True)
    return "scaled-inputs" if all(_affine(s, t) for s, t in columns) else "training-inputs"


def _rounded(s: Tensor, t: Tensor) -> bool:
    """Whether two tensors of one format are the same numbers, but for those of one having passed a coarser format."""
    formats = [torch.float32, torch.bfloat16, torch.float16] if s.dtype == torch.float64 else [torch.bfloat16]
    formats += [torch.float16] * (s.dtype == torch.float32)
    if s.dtype != t.dtype or s.shape != t.shape or s.dtype not in (torch.float64, torch.float32):
        return torch.equal(s, t)
    return any(torch.equal(s.to(coarse).to(t), t) or torch.equal(t.to(coarse).to(s), s) for coarse in formats)


def _near(s: Tensor, t: Tensor) -> bool:
    """Whether two data sets differ by less than a thousandth of their spread: no shift or scale that one would see."""
    s, t = (side.detach().cpu().double() for side in (s, t))
    return s.shape == t.shape and float((s - t).abs().max()) < 1e-3 * float(s.std(correction=0))


def _affine(s: Tensor, t: Tensor) -> bool:
    """Whether one vector is a shifted and scaled copy of the other."""
    s, t = (side.detach().cpu().double().flatten() for side in (s, t))
    if len(s) < 3 or s.std() == 0 or t.std() == 0:
        return torch.equal(s, t)
    s, t = ((side - side.mean()) / side.std() for side in (s, t))
    return bool(torch.allclose(s, t, rtol=0, atol=1e-4) or torch.allclose(s, -t, rtol=0, atol=1e-4))


def _row_order(inputs, targets) -> bool:
    """Whether the two data sets hold the same rows in another order."""
    if len(inputs[0]) != len(inputs[1]) or any(t.dim() != 1 for t in targets) or targets[0].shape != targets[1].shape:
        return False
    if any(s.shape != t.shape or s.dim() != 2 for s, t in zip(*inputs, strict=True)):
        return False
    tables = [
        torch.cat([*(s.detach().cpu().double() for s in side), target.detach().cpu().double().unsqueeze(-1)], -1)
        for side, target in zip(inputs, targets, strict=True)
    ]
    rows = [sorted(map(tuple, table.tolist())) for table in tables]
    return rows[0] == rows[1]


def _shapes(inputs, targets):
    return inputs and [tuple(i.shape) for i in inputs], None if targets is None else tuple(targets.shape)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _has_flag(strategy) -> bool:
    return strategy is not None and private.started.name in private.buffers(strategy)


def _class(module: nn.Module) -> str:
    return type(module).__name__


def _constrained(module: nn.Module, name: str) -> str:
    value = _tensor(module, name)
    constraint = private.constraint_of(module, name)
    if value is None or constraint is None:
        return _show(value)
    short = name.removeprefix("raw_")
    return f"{short} {_show(constraint.transform(value))} (raw {_show(value)})"


def _show_constraint(constraint) -> str:
    return "unconstrained" if constraint is None else repr(constraint)


def _show_prior(prior) -> str:
    if prior is None:
        return "none"
    parts = [f"{name} {_show(value)}" for name, value in prior.named_buffers()]
    return type(prior).__name__ + (f" ({', '.join(parts)})" if parts else "")


def _show(value: Any, name: str = "") -> str:
    """A value in a few words; a tensor of many numbers by its shape and norm."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        digits = "{:.10g}" if value.dtype == torch.float64 else "{:.6g}"
        if not value.is_floating_point():
            digits = "{}"
        if value.numel() == 1:
            text = digits.format(value.item())
        elif value.numel() <= 4:
            text = "[" + ", ".join(digits.format(number) for number in value.flatten().tolist()) + "]"
        else:
            norm = float(value.double().norm()) if not value.is_complex() else math.nan
            text = f"shape {tuple(value.shape)}, norm {norm:.6g}"
        return f"{name} {text}".strip()
    if isinstance(value, types.FunctionType | type):
        return value.__qualname__
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _grouped(found: list[Difference]) -> list[Difference]:
    """Network weights by network, and if there are very many differences all values by module."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    depth = 12
    while True:
        groups.clear()
        for index, difference in enumerate(found):
            parts = difference.where.split(".")
            if difference.cause == "network-weights":
                key = (difference.cause, parts[0])
            elif difference.order == 2 and depth < 12:
                key = ("values", ".".join(parts[: min(depth, len(parts))]))
            else:
                key = (difference.cause, f"{difference.where}#{index}")
            groups.setdefault(key, []).append(difference)
        if len(groups) <= MANY or depth == 1:
            break
        depth = depth - 1 if depth < 12 else max(len(d.where.split(".")) for d in found) - 1 or 1
    return [members[0] if len(members) == 1 else _joined(key, members) for key, members in groups.items()]


def _joined(key: tuple[str, str], members: list[Difference]) -> Difference:
    cause = members[0].cause if len({m.cause for m in members}) == 1 else "parameter"

    def onto_a(replica):
        for member in members:
            member.onto_a(replica)

    def onto_b(replica):
        for member in members:
            member.onto_b(replica)

    size = f"{len(members)} tensors"
    return Difference(cause, key[1], size, size, onto_a, onto_b, max(m.order for m in members))
