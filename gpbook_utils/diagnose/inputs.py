"""The arguments of a diagnosis, checked: an error names the argument, what came and what is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import gpytorch
import torch
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import dtype_of, far_out, inner_gps, number_of_data, speaks_posterior, strategy_of
from gpbook_utils.diagnose.naming import code_path
from gpbook_utils.diagnose.readings import Subject

MAX_ROWS = 1000
MAX_ENTRIES = 250_000  # of the covariance between the rows of x and the training points
OUTERMOST = 10  # rows that are kept in any case: a fault may lie in one far point


def subject(name: str, model, x, y, likelihood) -> tuple[Subject, list[str]]:
    """One model with what is needed to call it, and notes for the report; raises ``ValueError``."""
    (made,), notes = _subjects({name: (model, likelihood)}, x, y)
    return made, notes


def both_subjects(model_a, model_b, x, y, likelihood_a, likelihood_b) -> tuple[Subject, Subject, list[str]]:
    """Two models with what is needed to call them, and notes for the report; raises ``ValueError``."""
    (a, b), notes = _subjects({"model_a": (model_a, likelihood_a), "model_b": (model_b, likelihood_b)}, x, y)
    return a, b, notes


def _subjects(named: dict[str, tuple[Any, Any]], x, y) -> tuple[list[Subject], list[str]]:
    inputs, targets = _inputs(x, y)
    notes: list[str] = []
    models = {name: opened(name, model, notes) for name, (model, _) in named.items()}
    for name, model in models.items():
        _check_model(name, model)
    columns = [_columns(model) for model in models.values()]
    if None not in columns and len(set(columns)) > 1:
        raise ValueError(
            f"model_a and model_b must have the same input dimension; got {columns[0]} and {columns[1]} columns"
        )
    made = [_subject(name, model, inputs, targets, named[name][1]) for name, model in models.items()]
    _check_format(made)
    made, sampled = _sampled(made)
    return made, notes + sampled


class Member(NamedTuple):
    """One model of a list: how the reader calls it, and what it is asked with."""

    name: str
    model: Any
    x: Any
    likelihood: Any


def members(name: str, model: Any, x: Any, likelihood: Any = None) -> list[Member]:
    """The models of a list of models, or nothing; a list is taken apart, since its members share nothing.

    GPyTorch's lists take one x for each member, BoTorch's the same for all.
    """
    models = getattr(model, "models", None)
    if not isinstance(models, nn.ModuleList) or isinstance(
        model, gpytorch.models.ExactGP | gpytorch.models.ApproximateGP
    ):
        return []
    own = likelihood if likelihood is not None else getattr(model, "likelihood", None)
    each = list(getattr(own, "likelihoods", None) or [None] * len(models))
    parts = list(x) if isinstance(x, tuple | list) and len(x) == len(models) else [x] * len(models)
    return [
        Member(f"{name}.models[{i}]", one, parts[i], each[i] if i < len(each) else None) for i, one in enumerate(models)
    ]


def paired(name_a: str, a: Any, name_b: str, b: Any, x: Any) -> list[tuple[Member, Member]]:
    """The members of two lists beside each other; of one list, the outputs of the other model beside them.

    Raises:
        ValueError: if they cannot be paired.
    """
    mine, others = members(name_a, a, x), members(name_b, b, x)
    if not mine and not others:
        return []
    sides = []
    for name, model, own, other in ((name_a, a, mine, others), (name_b, b, others, mine)):
        if own or not other:
            sides.append(own)
            continue
        subset, outputs = getattr(model, "subset_output", None), getattr(model, "num_outputs", 1)
        if subset is None or outputs != len(other):
            raise ValueError(
                f"{name} must be a list of {len(other)} models too, or one of as many outputs; pass a member"
            )
        sides.append([Member(f"{name}.subset_output([{i}])", subset([i]), m.x, None) for i, m in enumerate(other)])
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{name_a} and {name_b} must hold as many models; got {len(sides[0])} and {len(sides[1])}")
    return list(zip(*sides, strict=True))


def opened(name: str, model: Any, notes: list[str]) -> Any:
    """The model in a wrapper that changes no answer: torch.compile's and those that spread a batch over devices."""
    while isinstance(model, nn.Module) and not isinstance(model, gpytorch.models.GP):
        inner = private.modules(model).get(private.COMPILED)
        attribute = private.COMPILED
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner, attribute = private.modules(model).get("module"), "module"
        if inner is None:
            break
        notes.append(f"{name} is a {type(model).__name__}: its {attribute} is what was diagnosed")
        model = inner
    return model


def _check_model(name: str, model: Any) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, gpytorch.likelihoods.Likelihood):
        raise ValueError(f"{name} must be a GPyTorch model; got {type(model).__name__}{_within(name, model)}")
    if not private.parameters.held_by(model):
        raise ValueError(f"{name} was not initialised: super().__init__ was not called")
    if not isinstance(model, gpytorch.models.GP) and not speaks_posterior(model):
        raise ValueError(
            f"{name} must be a GPyTorch model, an ExactGP or ApproximateGP; got {type(model).__name__}"
            + _within(name, model)
        )
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f"{name} must have values; its tensors are on the device meta")


def _within(name: str, model: Any) -> str:
    """Which attribute to pass instead, of something that holds Gaussian processes."""
    found = [name + code_path(path) for path in inner_gps(model)] if isinstance(model, nn.Module) else []
    if isinstance(model, list | tuple):
        found = [f"{name}[{i}]" for i, item in enumerate(model) if isinstance(item, gpytorch.models.GP)]
    return f": pass {' or '.join(found)}" if found else ""


def _subject(name: str, model: Any, inputs: tuple[Tensor, ...], targets: Tensor | None, likelihood: Any) -> Subject:
    if likelihood is not None and not isinstance(likelihood, gpytorch.likelihoods.Likelihood):
        raise ValueError(f"the likelihood of {name} must be a GPyTorch Likelihood; got {type(likelihood).__name__}")
    columns = _columns(model)
    if len(inputs) == 1 and columns is not None and inputs[0].shape[-1] != columns:
        raise ValueError(f"x must have {columns} columns, as {name} was built with; got {inputs[0].shape[-1]}")
    own = getattr(model, "likelihood", None)
    return Subject(
        name, model, own if isinstance(own, gpytorch.likelihoods.Likelihood) else likelihood, inputs, targets
    )


def _inputs(x, y) -> tuple[tuple[Tensor, ...], Tensor | None]:
    parts = x if isinstance(x, tuple | list) else (x,)
    for part in parts:
        if not isinstance(part, Tensor):
            raise ValueError(f"x must be a tensor of shape (m, d), or a tuple of tensors; got {type(part).__name__}")
        if part.dim() == 0 or part.numel() == 0:
            raise ValueError(f"x must have shape (m, d) with at least one row; got {tuple(part.shape)}")
        if part.layout != torch.strided or part.is_meta:
            raise ValueError(f"x must be a dense tensor with values; got layout {part.layout} on device {part.device}")
        if part.is_floating_point() and not torch.isfinite(part).all():
            raise ValueError("x has NaN or infinite entries")
    if not parts or not parts[0].is_floating_point():
        raise ValueError(f"x must be floating-point; got {parts[0].dtype if parts else 'an empty tuple'}")
    inputs = tuple(part.detach().unsqueeze(-1) if part.dim() == 1 else part.detach() for part in parts)
    rows = inputs[0].shape[-2]
    if y is not None:
        if not isinstance(y, Tensor) or not y.is_floating_point():
            raise ValueError(
                f"y must be a floating-point tensor of shape (m,); got {getattr(y, 'dtype', type(y).__name__)}"
            )
        if y.shape[0 if y.dim() == 1 else -1] != rows and y.shape[:1] != (rows,):
            raise ValueError(f"y must have one value for each of the {rows} rows of x; got shape {tuple(y.shape)}")
        if y.dim() > 1 and y.shape[-1] == 1:  # would be broadcast to m data sets
            raise ValueError(f"y must have shape (m,), or a column for each task; got {tuple(y.shape)}")
        if not torch.isfinite(y).all():
            raise ValueError("y has NaN or infinite entries")
    return inputs, None if y is None else y.detach()


def _sampled(subjects: list[Subject]) -> tuple[list[Subject], list[str]]:
    """The same with fewer rows of x where there are so many that a diagnosis would take minutes, and a note of it."""
    x, y = subjects[0].inputs[0], subjects[0].targets
    rows = x.shape[-2]
    points = max(1, *(number_of_data(side.model) for side in subjects))
    most = max(MAX_ROWS // 10, min(MAX_ROWS, MAX_ENTRIES // points))
    if rows <= most or any(part.shape[-2] != rows for part in subjects[0].inputs):
        return subjects, []
    step = -(-rows // most)
    kept = torch.zeros(rows, dtype=torch.bool)
    kept[::step] = True
    kept[far_out(x).topk(OUTERMOST).indices.cpu()] = True
    kept = kept.nonzero().squeeze(-1)
    inputs = tuple(part[..., kept.to(part.device), :] for part in subjects[0].inputs)
    # Targets have their rows first, a task last: as they came.
    y = None if y is None else y[kept.to(y.device)] if y.shape[0] == rows else y[..., kept.to(y.device)]
    note = f"x has {rows} rows; one in {step} was taken and the {OUTERMOST} farthest out: {len(kept)} in all"
    return [replace(side, inputs=inputs, targets=y, rows=kept) for side in subjects], [note]


def _columns(model) -> int | None:
    """How many columns of x the model was built for, where that can be told."""
    if speaks_posterior(model):
        return None  # a transform may take more or fewer
    train_inputs = getattr(model, "train_inputs", None)
    if train_inputs:
        return train_inputs[0].shape[-1]
    strategy = strategy_of(model)
    while strategy is not None:
        points = getattr(strategy, "inducing_points", None)
        if isinstance(points, Tensor):
            return points.shape[-1]
        strategy = getattr(strategy, "base_variational_strategy", None)
    return None


def _check_format(subjects: list[Subject]) -> None:
    x = subjects[0].inputs[0]
    formats = [dtype_of(side.model, x.dtype) for side in subjects]
    devices = [next((p.device for p in side.model.parameters()), x.device) for side in subjects]
    named = [f"{side.name} is in {f} on {d}" for side, f, d in zip(subjects, formats, devices, strict=True)]
    tensors = [t for s in subjects for t in (*s.model.parameters(), *(getattr(s.model, "train_inputs", None) or ()))]
    if x.dtype not in formats and x.dtype not in {tensor.dtype for tensor in tensors}:
        raise ValueError(f"x must be in the model's format; got {x.dtype}, and {' and '.join(named)}")
    if x.device not in devices:
        raise ValueError(f"x must be on the model's device; got {x.device}, and {' and '.join(named)}")
