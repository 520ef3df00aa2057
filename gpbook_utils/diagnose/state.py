"""The whole state of two models side by side, and for each difference the way to take it over from the other."""

from __future__ import annotations

import functools
from typing import Any

import gpytorch
import torch
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import dtype_of, raw_inputs
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.naming import affine, device_of, kind_of_data, near, rounded, row_order, shapes_of, show
from gpbook_utils.diagnose.readings import Subject
from gpbook_utils.diagnose.sameness import same_or_close
from gpbook_utils.diagnose.taking import take_data, take_tensor
from gpbook_utils.diagnose.walk import Difference, Walk, joined

MANY = 24  # more differences than this are grouped by module


def differences(a: Subject, b: Subject) -> list[Difference]:
    """All differences in state between two models; those of value last, those of structure first."""
    walk = Walk(a, b)
    walk.modules(a.model, b.model, "", None)
    if a.likelihood is not None and b.likelihood is not None:
        walk.modules(a.likelihood, b.likelihood, "likelihood", None)
    _modes(walk)
    _gradients(walk)
    for p, q, path in list(walk.pairs):
        if isinstance(p, gpytorch.models.ExactGP) and isinstance(q, gpytorch.models.ExactGP) and p is not q:
            _data(walk, p, q, f"{path}." if path else "")
    _format(walk)
    return sorted(_grouped(walk.found), key=lambda difference: difference.order)


def _modes(walk: Walk) -> None:
    unequal = [
        (p, q, path)
        for p, q, path in walk.pairs
        if p.training != q.training and not isinstance(p, gpytorch.constraints.Interval)
    ]
    if not unequal:
        return
    p, q, path = unequal[0]

    def change(replica: Replica, own: Any, other: Any, pairs: Any) -> None:
        for mine, others, _ in pairs:
            replica.of(mine).training = others.training

    described = ["training" if side.training else "evaluation" for side in (p, q)]
    walk.add("mode", path or "training", described, change, p, q, 3)


def _gradients(walk: Walk) -> None:
    """Whether parameters ask for gradients: some kernels then take another code path."""
    unequal = []
    for p, q, path in walk.pairs:
        mine, others = private.parameters(p), private.parameters(q)
        for name in mine.keys() & others.keys():
            u, v = mine[name], others[name]
            if u is not None and v is not None and u.requires_grad != v.requires_grad:
                unequal.append((p, q, name, f"{path}.{name}" if path else name))
    if not unequal:
        return

    def change(replica: Replica, own: Any, other: Any, pairs: Any) -> None:
        for p, q, name, _ in unequal:
            mine, others = (p, q) if own is walk.a.model else (q, p)
            theirs = private.parameters(others)[name]
            private.parameters(replica.of(mine))[name].requires_grad_(theirs.requires_grad)

    p, q, name, where = unequal[0]
    described = [f"requires_grad {private.parameters(side)[name].requires_grad}" for side in (p, q)]
    walk.add("requires-grad", where, described, change, walk.a.model, walk.b.model)


def _data(walk: Walk, p: nn.Module, q: nn.Module, prefix: str) -> None:
    """The training data of two exact GPs, the models themselves or models in them."""
    inputs: list[Any] = [raw_inputs(side) for side in (p, q)]
    targets: list[Any] = [getattr(side, "train_targets", None) for side in (p, q)]
    equal_inputs, equal_targets = same_or_close(*inputs), same_or_close(*targets)
    if equal_inputs and equal_targets:
        return
    where = prefix + "train_inputs"
    shapes = [shapes_of(i, t) for i, t in zip(inputs, targets, strict=True)]
    if any(value is None for value in (*inputs, *targets)):
        described = ["none" if i is None else f"{len(t)} points" for i, t in zip(inputs, targets, strict=True)]
        walk.add("no-training-data", where, described, take_data, p, q, 1)
    elif row_order(inputs, targets):
        described = [f"first row {show(i[0][..., 0, :])}" for i in inputs]
        walk.add("row-order", where, described, take_data, p, q)
    elif shapes[0] != shapes[1] and not _is_column(shapes):
        described = [f"{tuple(i[0].shape)}, {tuple(t.shape)}" for i, t in zip(inputs, targets, strict=True)]
        walk.add("training-data", where, described, take_data, p, q, 1)
    else:
        if not equal_inputs:
            change = functools.partial(take_data, part="train_inputs")
            walk.add(kind_of_data(inputs), where, [show(side[0]) for side in inputs], change, p, q)
        if not equal_targets:
            _targets(walk, p, q, prefix + "train_targets", targets[0], targets[1])


def _is_column(shapes: list[Any]) -> bool:
    """Whether the inputs have one shape, and the targets of one model are those of the other as a column."""
    (first, s), (second, t) = shapes
    return first == second and (s == (*t, 1) or t == (*s, 1))


def _targets(walk: Walk, p: nn.Module, q: nn.Module, where: str, u: Tensor, v: Tensor) -> None:
    change = functools.partial(take_data, part="train_targets")
    if u.shape != v.shape:
        described = [f"shape {tuple(t.shape)}" for t in (u, v)]
        walk.add("target-shape", where, described, change, p, q, 1)
        return
    transforms = [d for d in walk.found if d.cause == "outcome-transform" and d.order == 0]
    if transforms and same_or_close(_untransformed(p, u), _untransformed(q, v)):
        transforms[0].accompanied(change, p, q, walk.pairs)  # the same targets, as each of the two transforms them
        return
    cause = "rounded-data" if rounded(u, v) else "training-targets"
    if cause == "training-targets" and not near(u, v) and affine(u, v):
        cause = "scaled-targets"
    walk.add(cause, where, (show(u), show(v)), change, p, q)


def _untransformed(model: nn.Module, targets: Tensor) -> Tensor:
    """The targets before the model's outcome transform, to ten digits."""
    transform = getattr(model, "outcome_transform", None)
    columns = targets.detach().cpu().double()
    columns = columns.unsqueeze(-1) if columns.dim() == 1 else columns.mT
    try:
        if transform is not None:
            columns = Replica(transform).roots[0].eval().untransform(columns)[0].detach()
    except Exception:
        return targets
    return torch.round(columns / columns.abs().max().clamp_min(1e-300), decimals=9)


def _format(walk: Walk) -> None:
    p, q = walk.a.model, walk.b.model
    formats = [dtype_of(side) for side in (p, q)]
    devices = [device_of(side) for side in (p, q)]
    if formats[0] == formats[1] and devices[0] == devices[1]:
        return

    def change(replica: Replica, own: Any, other: Any, pairs: Any) -> None:
        index = 1 if own is walk.a.model else 0
        replica.to(formats[index], devices[index])
        for mine, others, name in walk.close:
            if own is not walk.a.model:
                mine, others = others, mine
            take_tensor(replica, mine, others, pairs, name=name)
        for part in ("train_inputs", "train_targets"):
            values = [getattr(side, part, None) for side in (walk.a.model, walk.b.model)]
            if all(value is not None for value in values) and same_or_close(*values):
                take_data(replica, own, other, pairs, part=part)

    cause = "dtype" if formats[0] != formats[1] else "device"
    described = [str(f).removeprefix("torch.") + f" on {d}" for f, d in zip(formats, devices, strict=True)]
    walk.add(cause, "", described, change, p, q, 1)


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
    return [
        members[0] if len(members) == 1 else joined(_one_cause(members), where, members)
        for (_, where), members in groups.items()
    ]


def _one_cause(members: list[Difference]) -> str:
    causes = {member.cause for member in members}
    return causes.pop() if len(causes) == 1 else "parameter"
