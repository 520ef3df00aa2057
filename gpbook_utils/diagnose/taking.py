"""Taking over: what makes a private copy of one model take what the other has."""

from __future__ import annotations

from typing import Any

from gpytorch.constraints import Interval
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import raw_inputs
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.sameness import same_class, tensor_of
from gpbook_utils.diagnose.tree import modules_of


def _translated(replica: Replica, pairs, thing: Any, inside: nn.Module | None = None) -> Any:
    """A private copy of something of the other model, in which the other model's parts are this copy's parts."""
    copier = Replica()
    own = {id(module) for _, module in modules_of(inside)} if inside is not None else set()
    for mine, others, _ in pairs:
        if id(others) not in own:
            copier.place(others, replica.of(mine))
    return copier.of(thing)


def take_tensor(replica: Replica, own, other, pairs, *, name: str) -> None:
    """A parameter or buffer; a parameter keeps its object and with it what is tied to it."""
    target, source = replica.of(own), tensor_of(other, name)
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


def take_both(replica: Replica, own, other, pairs, *, names: list[str]) -> None:
    """A tensor and its constraint."""
    take_tensor(replica, own, other, pairs, name=names[0])
    take_child(replica, own, other, pairs, name=names[1])


def take_child(replica: Replica, own, other, pairs, *, name: str) -> None:
    """A module, or its absence."""
    child = private.modules(other).get(name)
    set_child(replica.of(own), name, None if child is None else _translated(replica, pairs, child, child))


def set_child(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    """Set or remove a module of a copy."""
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


def take_prior(replica: Replica, own, other, pairs, *, name: str) -> None:
    """A prior, or its absence."""
    target = replica.of(own)
    if name not in private.priors(other):
        private.priors(target).pop(name, None)
        private.modules(target).pop(name, None)
        return
    entry = _translated(replica, pairs, private.priors(other)[name])
    private.priors(target)[name] = entry
    if name in private.modules(other):
        private.modules(target)[name] = entry[0]


def take_attribute(replica: Replica, own, other, pairs, *, name: str) -> None:
    """A plain attribute, or its absence."""
    target = replica.of(own)
    if name in other.__dict__:
        target.__dict__[name] = _translated(replica, pairs, other.__dict__[name])
    else:
        target.__dict__.pop(name, None)


def take_class(replica: Replica, own, other, pairs) -> None:
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
        apart = not isinstance(private.modules(other).get(name), Interval)  # is compared by itself
        if old is not None and child is not None and (apart or same_class(type(old), type(child))):
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


def new_wrapper(replica: Replica, own_outer, own, other_outer, pairs) -> nn.Module:
    """The kernel without the kernel around it, or with one like the other model's."""
    if own_outer is not None:
        return replica.of(own)  # the wrapper goes
    wrapper = _translated(replica, [pair for pair in pairs if pair[0] is not own], other_outer, other_outer)
    private.modules(wrapper)["base_kernel"] = replica.of(own)
    wrapper.training = replica.of(own).training
    return wrapper


def take_data(replica: Replica, own, other, pairs, *, part: str | None = None) -> None:
    """Training inputs, targets or both, before any transform."""
    target = replica.of(own)
    reference = next(iter(target.parameters()), None)

    def moved(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        like = reference if reference is not None and tensor.is_floating_point() else tensor
        return tensor.detach().clone().to(device=like.device, dtype=like.dtype)

    if part in (None, "train_inputs"):
        inputs = raw_inputs(other)
        target.__dict__["train_inputs"] = None if inputs is None else tuple(moved(tensor) for tensor in inputs)
        if private.ORIGINAL in other.__dict__:
            # Transformed ones, to which rows were appended, stay as they are; others are transformed in eval().
            target.__dict__[private.ORIGINAL] = moved(other.__dict__[private.ORIGINAL])
            appended = inputs is other.train_inputs and getattr(other, private.TRANSFORMED, False)
            target.__dict__[private.TRANSFORMED] = appended
    if part in (None, "train_targets"):
        target.__dict__[private.train_targets.name] = moved(getattr(other, "train_targets", None))
