"""Remedies as code, with the reader's paths and values; each line is tried on a copy before it is printed."""

from __future__ import annotations

import ast
import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gpytorch
import torch
from torch import Tensor, nn

from gpbook_utils.diagnose.experiments import Case, beyond_cholesky, exact
from gpbook_utils.diagnose.naming import code_path
from gpbook_utils.diagnose.readings import (
    CALLS,
    POSTERIOR_OF,
    Reading,
    Subject,
    distance,
    dtype_of,
    number_of_data,
    read,
)
from gpbook_utils.diagnose.report import Finding, sizes
from gpbook_utils.diagnose.rounding import Rounding

DATA = {
    "no-training-data", "training-inputs", "training-targets", "training-data", "scaled-inputs", "scaled-targets",
    "rounded-data", "row-order", "target-shape",
}  # fmt: skip
TENSORS = {
    "parameter", "raw-vs-constrained", "rounded-float", "column-order", "buffer", "inducing-points",
    "random-features", "network-weights", "fixed-noise",
}  # fmt: skip
ATTRIBUTES = {"attribute", "jitter", "active-dims", "state-outside-state-dict"}


@dataclass
class Place:
    """One place in two models: how it is written, and what stands there."""

    a: str
    b: str
    owner_a: Any
    owner_b: Any
    leaf: str

    @property
    def here(self) -> str:
        """The place in model_b."""
        return self.b + code_path(self.leaf)

    @property
    def there(self) -> str:
        """The place in model_a."""
        return self.a + code_path(self.leaf)


def resolve(root: Any, path: str) -> Any:
    """What stands at a dotted path, also one with indices.

    Raises:
        AttributeError: if there is nothing.
    """
    for part in path.replace("[", ".").replace("]", "").split("."):
        if part:
            root = root[int(part)] if part.isdigit() and not hasattr(root, part) else getattr(root, part)
    return root


def _place(a: Subject, b: Subject, where: str) -> Place | None:
    """Where a finding lies, in both models; likelihoods that are no part of a model are arguments of their own."""
    roots: list[Any]
    roots, names = [a.model, b.model], [a.name, b.name]
    if where.startswith("likelihood") and getattr(a.model, "likelihood", None) is not a.likelihood:
        roots, names = [a.likelihood, b.likelihood], [side.name.replace("model", "likelihood") for side in (a, b)]
        where = where.removeprefix("likelihood").removeprefix(".")
    path, _, leaf = where.rpartition(".")
    try:
        owners = [resolve(root, path) for root in roots]
    except (AttributeError, IndexError, KeyError):
        return None
    return Place(names[0] + code_path(path), names[1] + code_path(path), owners[0], owners[1], leaf)


def _candidates(a: Subject, b: Subject, finding: Finding) -> Iterator[str]:
    """Lines that may make model_b as model_a, best first."""
    place = _place(a, b, finding.where)
    if finding.cause == "mode":
        where = "" if finding.where == "training" else code_path(finding.where)
        trains = b if finding.a == "evaluation" else a
        yield f"{trains.name}{where}.eval()"
    elif finding.cause == "dtype":
        fine, coarse = sorted((a, b), key=lambda side: torch.finfo(dtype_of(side.model)).eps)
        lines = f"{coarse.name}.double()\n{coarse.name}.load_state_dict({fine.name}.state_dict())"
        if getattr(fine.model, "train_inputs", None) and getattr(coarse.model, "train_inputs", None):
            yield f"{lines}\n{coarse.name}.set_train_data({fine.name}.train_inputs, {fine.name}.train_targets)"
        yield lines
        yield f"{coarse.name}.double()"
    elif place is None or not place.leaf:
        return
    elif finding.cause == "shared-parameters":
        yield f"{place.here} = copy.deepcopy({place.here})"
    elif finding.cause in DATA:
        yield from _data(place)
    elif finding.cause == "requires-grad":
        yield f"{place.here}.requires_grad_({getattr(place.owner_a, place.leaf).requires_grad})"
    elif finding.cause in ("input-transform", "outcome-transform"):
        yield from _transform(place)
    else:
        yield from _values(place, finding.cause)


def _data(place: Place) -> Iterator[str]:
    p, q, from_, to = place.owner_a, place.owner_b, place.a, place.b
    if p.train_inputs is None or p.train_targets is None:
        p, q, from_, to = q, p, to, from_
    line = f"{to}.set_train_data({from_}.train_inputs, {from_}.train_targets, strict=False)"
    if hasattr(p, "input_transform") or hasattr(q, "input_transform"):
        line = f"{from_}.train(), {to}.train()\n{line}\n{from_}.eval(), {to}.eval()"
    yield line


def _transform(place: Place) -> Iterator[str]:
    there = hasattr(place.owner_a, place.leaf)
    line = f"{place.here} = copy.deepcopy({place.there})" if there else f"del {place.here}"
    data = f"{place.b}.set_train_data({place.a}.train_inputs, {place.a}.train_targets, strict=False)"
    yield f"{place.a}.train(), {place.b}.train()\n{line}\n{data}\n{place.a}.eval(), {place.b}.eval()"


def _values(place: Place, cause: str) -> Iterator[str]:
    if cause in ATTRIBUTES:
        value = getattr(place.owner_a, place.leaf, None)
        if isinstance(value, int | float | str | bool | torch.Size | tuple):
            yield f"{place.here} = {value!r}"
        yield f"{place.here} = copy.deepcopy({place.there})"
    if cause in TENSORS:
        if not hasattr(place.owner_b, place.leaf):
            return  # stands elsewhere, below a part that only one model has
        yield from _property(place)
        yield f"{place.here}.data.copy_({place.there})"
    if isinstance(place.owner_b, nn.Module):
        if isinstance(getattr(place.owner_b, place.leaf, None), nn.Module):
            yield f"{place.here}.load_state_dict({place.there}.state_dict())"
        yield f"{place.here} = copy.deepcopy({place.there})"
    if cause in ("prior", "constraint", "shape", "structure") and "." in place.b:
        yield f"{place.b} = copy.deepcopy({place.a})"
        outer = [name.rpartition(".")[0] for name in (place.b, place.a)]
        if "." in outer[0]:
            yield f"{outer[0]} = copy.deepcopy({outer[1]})"


def _property(place: Place) -> Iterator[str]:
    """The constrained value: as a number, as a tensor where float32 would round it, and as the other's."""
    name = place.leaf.removeprefix("raw_")
    if name == place.leaf or getattr(getattr(type(place.owner_b), name, None), "fset", None) is None:
        return
    here, there = place.b, place.a
    if name == "noise" and re.search(r"(^likelihood(_[ab])?|\.likelihood)\.noise_covar$", here):
        here, there = here.removesuffix(".noise_covar"), there.removesuffix(".noise_covar")
    value = getattr(place.owner_a, name, None)
    if not isinstance(value, Tensor):
        return
    value = value.detach()
    if value.numel() == 1:
        number = float(value)
        text = next((t for t in (f"{number:.6g}", f"{number:.10g}") if abs(float(t) - number) <= 1e-13 * abs(number)),
                    f"{number:.7g}" if value.dtype == torch.float32 else repr(number))  # fmt: skip
        yield f"{here}.{name} = {text}"
        yield f"{here}.{name} = torch.tensor({text}, dtype={value.dtype})"
    yield f"{here}.{name} = {there}.{name}.detach().clone()"


class _Copies:
    """Copies of the arguments under their names, for lines of code to run on."""

    def __init__(self, *sides: Subject):
        self.replicas = {side.name: side.replica() for side in sides}
        self.names: dict[str, Any] = {"torch": torch, "gpytorch": gpytorch, "copy": copy}
        for side in sides:
            model, likelihood = self.replicas[side.name].roots
            self.names |= {side.name: model, side.name.replace("model", "likelihood"): likelihood}

    def run(self, code: str) -> bool:
        """Whether the lines ran."""
        try:
            exec(code, self.names)
        except Exception:
            return False
        return True

    def reading(self, side: Subject) -> Reading:
        """What the copy says now."""
        return read(side, self.names[side.name], self.names[side.name.replace("model", "likelihood")])


def folded(code: str) -> str:
    """Lines of at most 88 columns, broken after the first bracket or the equals sign of longer ones."""
    lines = []
    for line in code.splitlines():
        head, bracket, tail = line.partition("(")
        if len(line) <= 88:
            lines.append(line)
        elif " = " in head:
            left, right = line.split(" = ", 1)
            lines += [f"{left} = (", f"    {right}", ")"]
        elif line.endswith(")") and bracket:
            lines += [f"{head}(", *(f"    {part.strip()}," for part in tail[:-1].split(", ")), ")"]
        else:
            lines.append(line)
    return "\n".join(lines)


def _works(a: Subject, b: Subject, code: str, finding: Finding) -> bool:
    """Whether a line runs, and the place is then as in the other model."""
    copies = _Copies(a, b)
    if not copies.run(code):
        return False
    try:
        mine, others = (resolve(copies.names[side.name], finding.where) for side in (a, b))
    except (AttributeError, IndexError, KeyError):
        return True
    if not (isinstance(mine, Tensor) and isinstance(others, Tensor)):
        return True
    close = 4 * torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0.0
    return mine.shape == others.shape and bool(torch.allclose(mine, others.to(mine), rtol=close, atol=close))


def cured(
    a: Subject, b: Subject, findings: tuple[Finding, ...], names: list[str], rounding: Rounding, fresh: list[Reading]
) -> tuple[tuple[Finding, ...], str]:
    """The findings of two models with their lines of code, and what all lines together leave."""
    mended, lines = [], []
    for finding in findings:
        code = next(_own(finding), "") if ": " in finding.where or finding.where in (a.name, b.name) else ""
        if not code and ": " not in finding.where:
            folds = map(folded, _candidates(a, b, finding))
            code = next((c for c in folds if _works(a, b, c, finding)), "")
        mended.append(replace(finding, code=code))
        lines += [code] * bool(code)
    if not lines:
        return tuple(mended), ""
    copies, calls = _Copies(a, b), any(name in CALLS for name in names)
    whole = sorted(lines, key=lambda line: (".train(), " in line, "deepcopy" not in line))  # parts, values, caches
    ran = all([copies.run(line) for line in whole if not line.startswith("with ")])
    with contextlib.ExitStack() as stack:
        if any(line.startswith("with ") for line in lines) and beyond_cholesky(a, b):
            for context in exact():
                stack.enter_context(context)
        touched = [any(re.search(rf"{side.name}\b", line.partition(" = ")[0]) for line in lines) for side in (a, b)]
        pairs = zip((a, b), touched, fresh, strict=True)
        after = [copies.reading(side) if touch or calls else old for side, touch, old in pairs]
    left = {name: distance(name, *after) for name in names}
    left = {name: size for name, size in left.items() if size > rounding.levels.get(name, 0.0)}
    count = sum(len(ast.parse(line).body) for line in lines)
    what = "this line" if count == 1 else "these lines"
    if not ran:
        return tuple(replace(f, code="") for f in mended), ""
    if all(finding.cause == "shared-parameters" for finding in mended if finding.code):
        return tuple(mended), ""  # copies share nothing, so that there is nothing to see on them
    if left:
        return tuple(mended), f"Tried on copies: with {what} this is left: {sizes(left)}."
    return tuple(mended), f"Tried on copies: with {what} the difference is gone."


def _own(finding: Finding) -> Iterator[str]:
    """Lines for what one of two models has by itself."""
    name, _, where = finding.where.partition(": ")
    yield from _alone(name, finding.cause, where, 0)


def _alone(name: str, cause: str, where: str, n: int) -> Iterator[str]:
    if cause == "mode":
        yield f"{name}{'' if where == 'training' else code_path(where)}.eval()"
    elif cause == "stale-cache":
        yield f"{name}.train(), {name}.eval()"
    elif cause == "target-shape":
        yield f"{name}.set_train_data(targets={name}.train_targets.squeeze(-1), strict=False)"
    elif cause == "mixed-dtype":
        yield f"{name}.double()"
    elif cause == "other-likelihood":
        yield f"{name}{code_path(where)} = {name}.likelihood"
    elif cause in ("random-probes", "cholesky-switch"):
        yield f"with gpytorch.settings.max_cholesky_size({n or 10**6}):\n    ...  # train and predict here, every model"
    elif cause == "love":
        yield "with gpytorch.settings.fast_pred_var(False):\n    ...  # predict here"


def cured_alone(case: Case, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings of one model with the lines of code that were tried and help."""
    side, mended = case.subject, []
    for finding in findings:
        code = next(_alone(side.name, finding.cause, finding.where, number_of_data(side.model)), "")
        if code and not code.startswith("with ") and not _helps(case, code, finding):
            code = ""
        mended.append(replace(finding, code=code))
    return tuple(mended)


def _helps(case: Case, code: str, finding: Finding) -> bool:
    """Whether the line runs on a copy, and the call is then the posterior that the model has without the fault."""
    copies = _Copies(case.subject)
    if not copies.run(code):
        return False
    after = copies.reading(case.subject)
    if finding.cause not in ("mode", "stale-cache"):
        return any(distance(name, case.fresh, after) > 0 for name in finding.effect)
    clean = {call: case.fresh.values[name] for call, name in POSTERIOR_OF.items() if name in case.fresh.values}
    return all(distance(call, after, Reading(clean)) <= case.rounding.levels.get(call, 0.0) for call in CALLS)
