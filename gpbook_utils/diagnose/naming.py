"""What a difference is called, and how a value is shown."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.likelihoods.noise_models import FixedGaussianNoise
from torch import Tensor, nn

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.sameness import tensor_of

_TRANSFORMS = {"input_transform": "input-transform", "outcome_transform": "outcome-transform"}


def kind_of_class(p: nn.Module, q: nn.Module, path: str, at_root: bool) -> str:
    """Two modules of other classes at one place."""
    if isinstance(p, private.VariationalDistribution):
        return "variational-distribution"
    if at_root:
        return "forward-code" if type(p).__name__ == type(q).__name__ else "model-class"
    if isinstance(p, private.VariationalStrategy) and isinstance(q, private.VariationalStrategy):
        return "variational-strategy"
    return kind_of_child(path.rpartition(".")[2])


def kind_of_child(name: str) -> str:
    """A module that one model lacks."""
    return _TRANSFORMS.get(name, "structure")


def kind_of_attribute(p: nn.Module, name: str, u: Any, v: Any) -> str:
    """A plain attribute of another value."""
    if isinstance(p, FixedGaussianNoise) and name == "noise":
        floor = gpytorch.settings.min_fixed_noise.value(u.dtype) if isinstance(u, Tensor) else 0.0
        raised = [isinstance(value, Tensor) and bool((value <= floor).any()) for value in (u, v)]
        return "noise-clamped" if any(raised) and not all(raised) else "fixed-noise"
    if "jitter" in name:
        return "jitter"
    tensors = any(isinstance(value, Tensor | np.ndarray) for value in (u, v))
    return "state-outside-state-dict" if tensors else "attribute"


def kind_of_value(p, q, name, u, v) -> str:
    """What a tensor of another value is."""
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
    return _kind_of_number(p, q, name, u, v) if u.is_floating_point() else "buffer"


def _kind_of_number(p: nn.Module, q: nn.Module, name: str, u: Tensor, v: Tensor) -> str:
    constraint = private.constraint_of(p, name)
    s, t = u.detach().cpu().double(), v.detach().cpu().double()
    values = [s, t]
    if constraint is not None:
        transforms = [private.constraint_of(side, name) or constraint for side in (p, q)]
        values = [c.transform(w).detach().cpu().double() for c, w in zip(transforms, (u, v), strict=True)]
        if _explains(s, values[1], values) or _explains(t, values[0], values):
            return "raw-vs-constrained"
    if u.dtype == v.dtype == torch.float64:
        pairs = ((s, t), (t, s), values, values[::-1])
        if any(_explains(one.float().double(), other, (one, other)) for one, other in pairs):
            return "rounded-float"
    if s.numel() > 1 and torch.equal(s.flatten().sort().values, t.flatten().sort().values):
        return "column-order"
    return "parameter" if name in private.parameters(p) else "buffer"


def _explains(p: Tensor, q: Tensor, values: Sequence[Tensor]) -> bool:
    """Whether two tensors agree, and far better than the values do whose difference that is to explain.

    A few units in the last place are no passage through float32, and a softplus of large numbers is the numbers.
    """
    apart, largest = (values[0] - values[1]).abs().max(), values[0].abs().max()
    seen = apart > unit_roundoff(torch.float32) / 1000 * largest
    return bool(seen and torch.allclose(p, q, rtol=1e-5, atol=0) and (p - q).abs().max() <= 0.01 * apart)


def far_apart(u: Tensor, v: Tensor) -> float:
    """How far two tensors of one shape are apart, against the larger."""
    s, t = (tensor.detach().cpu().double() for tensor in (u, v))
    return float((s - t).norm() / torch.maximum(s.norm(), t.norm()))


def kind_of_data(inputs) -> str:
    """What training inputs of another value are."""
    p, q = (torch.cat([t.detach().cpu().double() for t in side], -1) for side in inputs)
    if p.shape != q.shape:
        return "training-inputs"
    if torch.equal(p.sort(-1).values, q.sort(-1).values):
        return "column-order"
    if all(map(rounded, *inputs)):
        return "rounded-data"
    if near(p, q):
        return "training-inputs"
    columns = zip(p.reshape(-1, p.shape[-1]).T, q.reshape(-1, q.shape[-1]).T, strict=True)
    return "scaled-inputs" if all(affine(s, t) for s, t in columns) else "training-inputs"


def rounded(s: Tensor, t: Tensor) -> bool:
    """Whether two tensors of one format are the same numbers, but for those of one having passed a coarser format."""
    formats = [torch.float32, torch.bfloat16, torch.float16] if s.dtype == torch.float64 else [torch.bfloat16]
    formats += [torch.float16] * (s.dtype == torch.float32)
    if s.dtype != t.dtype or s.shape != t.shape or s.dtype not in (torch.float64, torch.float32):
        return torch.equal(s, t)
    return any(torch.equal(s.to(coarse).to(t), t) or torch.equal(t.to(coarse).to(s), s) for coarse in formats)


def near(s: Tensor, t: Tensor) -> bool:
    """Whether two data sets differ by less than a thousandth of their spread: no shift or scale that one would see."""
    s, t = (side.detach().cpu().double() for side in (s, t))
    return s.shape == t.shape and float((s - t).abs().max()) < 1e-3 * float(s.std(correction=0))


def affine(s: Tensor, t: Tensor) -> bool:
    """Whether one vector is a shifted and scaled copy of the other."""
    s, t = (side.detach().cpu().double().flatten() for side in (s, t))
    if len(s) < 3 or s.std() == 0 or t.std() == 0:
        return torch.equal(s, t)
    s, t = ((side - side.mean()) / side.std() for side in (s, t))
    return bool(torch.allclose(s, t, rtol=0, atol=1e-4) or torch.allclose(s, -t, rtol=0, atol=1e-4))


def row_order(inputs, targets) -> bool:
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


def shapes_of(inputs, targets):
    """The shapes of training inputs and targets."""
    return inputs and [tuple(i.shape) for i in inputs], None if targets is None else tuple(targets.shape)


def device_of(model: nn.Module) -> torch.device:
    """Where a model lives."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def has_flag(strategy) -> bool:
    """Whether a strategy notes that q(u) was started."""
    return strategy is not None and private.started.name in private.buffers(strategy)


def constrained(module: nn.Module, name: str) -> str:
    """A parameter as its user knows it, with its raw value."""
    value = tensor_of(module, name)
    constraint = private.constraint_of(module, name)
    if value is None or constraint is None:
        return show(value)
    short = name.removeprefix("raw_")
    return f"{short} {show(constraint.transform(value))} (raw {show(value)})"


def show_prior(prior) -> str:
    """A prior in a few words."""
    if prior is None:
        return "none"
    parts = [f"{name} {show(value)}" for name, value in prior.named_buffers()]
    return type(prior).__name__ + (f" ({', '.join(parts)})" if parts else "")


def show(value: Any, name: str = "") -> str:
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
    return cut(repr(value), 60)


def code_path(path: str) -> str:
    """A dotted path as one writes it after a variable.

    >>> code_path("covar_module.kernels.0.raw_lengthscale"), code_path("")
    ('.covar_module.kernels[0].raw_lengthscale', '')
    """
    parts = (f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".") if part)
    return "".join(parts)


def cut(text: str, width: int) -> str:
    """A text on one line, cut in the middle."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    left = (width - 3) // 2
    return f"{text[:left]} … {text[len(text) - (width - 3 - left) :]}"
