"""Which tensors lie in one memory, within a model, with its data, and between two models."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import moved, shift
from gpbook_utils.diagnose.readings import Reading, Subject, read
from gpbook_utils.diagnose.report import Finding
from gpbook_utils.diagnose.rounding import Rounding
from gpbook_utils.diagnose.tree import drop_caches, modules_of


def _memory(tensor: Tensor) -> tuple[int, int, int] | None:
    """Storage, first and last byte; none for an empty tensor or one without plain storage."""
    if str(tensor.layout) != "torch.strided" or not tensor.numel():
        return None
    reach = sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    first = int(tensor.storage_offset()) * tensor.itemsize
    return private.address(tensor.untyped_storage()), first, first + (reach + 1) * tensor.itemsize


def overlap(s: Tensor, t: Tensor) -> bool:
    """Whether two tensors share memory."""
    a, b = _memory(s), _memory(t)
    if a is None or b is None or s.data_ptr() == 0:
        return False
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether several entries are one number in memory."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def trainable(*roots: Any) -> dict[str, nn.Parameter]:
    """The parameters that training would move: of a model, and of its likelihood."""
    found, seen = {}, set()
    for prefix, root in zip(("", "likelihood"), roots, strict=True):
        for path, module in modules_of(root):
            for name, parameter in private.parameters(module).items():
                if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    found[".".join(filter(None, (prefix, path, name)))] = parameter
    return found


def tensors_of(*roots: Any) -> dict[str, Tensor]:
    """Parameters, buffers and training data, of models within the model too."""
    found: dict[str, Tensor] = dict(trainable(*roots))
    for root in roots:
        for path, module in modules_of(root):
            prefix = f"{path}." if path else ""
            own = (*private.parameters(module).items(), *private.buffers(module).items())
            found |= {prefix + name: t for name, t in own if t is not None}
            inputs, targets = getattr(module, "train_inputs", None), getattr(module, "train_targets", None)
            if isinstance(inputs, tuple | list):
                found |= {f"{prefix}train_inputs[{i}]": t for i, t in enumerate(inputs) if isinstance(t, Tensor)}
            found |= {f"{prefix}train_targets": targets} if isinstance(targets, Tensor) else {}
    return found


def shared_by(a: Subject, b: Subject) -> dict[str, nn.Parameter]:
    """The parameters of the first model that lie in memory of the second."""
    others = tensors_of(b.model, b.likelihood).values()
    return {path: p for path, p in trainable(a.model, a.likelihood).items() if any(overlap(p, t) for t in others)}


def shared_between(a: Subject, b: Subject, fresh_b: Reading, rounding: Rounding) -> list[Finding]:
    """Do two models share memory that training one of them would change? If so, what does that do to the other?"""
    shared = shared_by(a, b)
    if not shared:
        return []
    joint = Replica((a.model, a.likelihood, b.model, b.likelihood))
    _, _, model, likelihood = joint.roots[0]
    drop_caches(model, likelihood)
    for parameter in shared.values():
        shift(joint.of(parameter).data)
    effect = moved(fresh_b, read(b, model, likelihood, call=False), rounding)
    detail = (
        f"{len(shared)} of {len(trainable(a.model, a.likelihood))} trainable parameters of model_a are shared; "
        "the effect is that of changing them by a hundredth."
    )
    where = _common(list(shared))
    return [Finding("shared-parameters", where, "the same object", "the same object", effect, detail)]


def _common(paths: list[str]) -> str:
    """The path of the smallest module that holds all of them, or the path itself."""
    if len(paths) == 1:
        parts = paths[0].split(".")
        return ".".join(parts[:-1]) if parts[-1].startswith("raw_") and len(parts) > 1 else paths[0]
    split = [path.split(".") for path in paths]
    common = []
    for level in zip(*split, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common) or ", ".join(dict.fromkeys(parts[0] for parts in split))
