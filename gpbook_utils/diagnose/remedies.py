"""Remedies as code, with the reader's paths and values; each line is tried on a copy before it is printed."""

from __future__ import annotations

import ast
import contextlib
import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import gpytorch
import torch
from torch import Tensor, nn

from gpbook_utils.diagnose.asking import dtype_of, number_of_data
from gpbook_utils.diagnose.contents import overlapping
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import Case, moved, settled
from gpbook_utils.diagnose.memory import shared_by
from gpbook_utils.diagnose.naming import code_path
from gpbook_utils.diagnose.readings import CALLS, POSTERIOR_OF, Reading, Subject, distance, read
from gpbook_utils.diagnose.report import Finding, sizes
from gpbook_utils.diagnose.rounding import Rounding
from gpbook_utils.diagnose.state import differences

DATA = {
    "no-training-data", "training-inputs", "training-targets", "training-data", "scaled-inputs", "scaled-targets",
    "rounded-data", "row-order", "target-shape",
}  # fmt: skip
TENSORS = {
    "parameter", "raw-vs-constrained", "rounded-float", "column-order", "buffer", "inducing-points",
    "random-features", "network-weights", "fixed-noise",
}  # fmt: skip
ITERATED = "with gpytorch.settings.max_cholesky_size({n}):\n    ...  # train and predict here, every model"
# For what one model has by itself: its name, the place of the finding, the number of its training points.
ALONE = {
    "mode": "{place}.eval()",
    "stale-cache": "{name}.train(), {name}.eval()",
    "target-shape": "{name}.set_train_data(targets={name}.train_targets.squeeze(-1), strict=False)",
    "mixed-dtype": "{name}.double()",
    "other-likelihood": "{place} = {name}.likelihood",
    "shared-with-data": "{place}.data = {place}.data.clone()",
    "random-probes": ITERATED,
    "cholesky-switch": ITERATED,
    "love": "with gpytorch.settings.fast_pred_var(False):\n    ...  # predict here",
    "grad-mode": "with torch.no_grad():\n    ...  # predict here",
}
ATTRIBUTES = {"attribute", "jitter", "active-dims", "state-outside-state-dict"}


@dataclass
class Place:
    """One place in two models, of which one is to be made as the other: how it is written, and what stands there."""

    giver: str
    taker: str
    source: Any
    target: Any
    leaf: str

    @property
    def here(self) -> str:
        """The place in the model that takes."""
        return self.taker + code_path(self.leaf)

    @property
    def there(self) -> str:
        """The place in the model that gives."""
        return self.giver + code_path(self.leaf)


def resolve(root: Any, path: str) -> Any:
    """What stands at a dotted path, also one with indices.

    Raises:
        AttributeError: if there is nothing.
    """
    for part in path.replace("[", ".").replace("]", "").split("."):
        if part:
            root = root[int(part)] if part.isdigit() and not hasattr(root, part) else getattr(root, part)
    return root


def _place(source: Subject, target: Subject, where: str) -> Place | None:
    """Where a finding lies, in both models; likelihoods that are no part of a model are arguments of their own."""
    roots: list[Any]
    roots, names = [source.model, target.model], [source.name, target.name]
    if where.startswith("likelihood") and getattr(source.model, "likelihood", None) is not source.likelihood:
        roots = [source.likelihood, target.likelihood]
        names = [name.replace("model", "likelihood") for name in names]
        where = where.removeprefix("likelihood").removeprefix(".")
    path, _, leaf = where.rpartition(".")
    try:
        owners = [resolve(root, path) for root in roots]
    except (AttributeError, IndexError, KeyError):
        return None
    return Place(names[0] + code_path(path), names[1] + code_path(path), owners[0], owners[1], leaf)


def _candidates(source: Subject, target: Subject, finding: Finding) -> Iterator[str]:
    """Lines that may make the target as the source, best first."""
    place = _place(source, target, finding.where)
    if finding.cause == "mode":
        where = "" if finding.where == "training" else code_path(finding.where)
        yield f"{'model_b' if finding.a == 'evaluation' else 'model_a'}{where}.eval()"
    elif finding.cause == "dtype":
        lines = f"{target.name}.double()\n{target.name}.load_state_dict({source.name}.state_dict())"
        if getattr(source.model, "train_inputs", None) and getattr(target.model, "train_inputs", None):
            yield f"{lines}\n{target.name}.set_train_data({source.name}.train_inputs, {source.name}.train_targets)"
        yield lines
        yield f"{target.name}.double()"
    elif place is None or not place.leaf:
        return
    elif finding.cause == "shared-parameters":
        yield f"{place.here} = copy.deepcopy({place.here})"
    elif finding.cause in DATA:
        yield from _data(place)
    elif finding.cause == "requires-grad":
        yield f"{place.here}.requires_grad_({getattr(place.source, place.leaf).requires_grad})"
    elif finding.cause in ("input-transform", "outcome-transform"):
        yield from _transform(place)
    else:
        yield from _values(place, finding.cause)


def _data(place: Place) -> Iterator[str]:
    p, q, from_, to = place.source, place.target, place.giver, place.taker
    if p.train_inputs is None or p.train_targets is None:
        p, q, from_, to = q, p, to, from_
    line = f"{to}.set_train_data({from_}.train_inputs, {from_}.train_targets, strict=False)"
    if hasattr(p, "input_transform") or hasattr(q, "input_transform"):
        line = f"{from_}.train(), {to}.train()\n{line}\n{from_}.eval(), {to}.eval()"
    yield line


def _transform(place: Place) -> Iterator[str]:
    there = hasattr(place.source, place.leaf)
    line = f"{place.here} = copy.deepcopy({place.there})" if there else f"del {place.here}"
    data = f"{place.taker}.set_train_data({place.giver}.train_inputs, {place.giver}.train_targets, strict=False)"
    yield f"{place.giver}.train(), {place.taker}.train()\n{line}\n{data}\n{place.giver}.eval(), {place.taker}.eval()"


def _values(place: Place, cause: str) -> Iterator[str]:
    if cause in ATTRIBUTES:
        value = getattr(place.source, place.leaf, None)
        if isinstance(value, int | float | str | bool | torch.Size | tuple):
            yield f"{place.here} = {value!r}"
        yield f"{place.here} = copy.deepcopy({place.there})"
    if cause in TENSORS:
        if not hasattr(place.target, place.leaf):
            return  # stands elsewhere, below a part that only one model has
        yield from _property(place)
        yield f"{place.here}.data.copy_({place.there})"
    if isinstance(place.target, nn.Module):
        if isinstance(getattr(place.target, place.leaf, None), nn.Module):
            yield f"{place.here}.load_state_dict({place.there}.state_dict())"
        yield f"{place.here} = copy.deepcopy({place.there})"
    if cause in ("prior", "constraint", "shape", "structure") and "." in place.taker:
        yield f"{place.taker} = copy.deepcopy({place.giver})"
        outer = [name.rpartition(".")[0] for name in (place.taker, place.giver)]
        if "." in outer[0]:
            yield f"{outer[0]} = copy.deepcopy({outer[1]})"


def _property(place: Place) -> Iterator[str]:
    """The constrained value: as a number, as a tensor where float32 would round it, and as the other's."""
    name = place.leaf.removeprefix("raw_")
    if name == place.leaf or getattr(getattr(type(place.target), name, None), "fset", None) is None:
        return
    here, there = place.taker, place.giver
    if name == "noise" and re.search(r"(^likelihood(_[ab])?|\.likelihood)\.noise_covar$", here):
        here, there = here.removesuffix(".noise_covar"), there.removesuffix(".noise_covar")
    value = getattr(place.source, name, None)
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
    """Copies of the arguments under their names, for lines of code to run on; what they share, the copies share."""

    def __init__(self, *sides: Subject):
        roots = iter(Replica(*(root for side in sides for root in (side.model, side.likelihood))).roots)
        self.sides = [replace(side, model=next(roots), likelihood=next(roots)) for side in sides]
        self.names: dict[str, Any] = {"torch": torch, "gpytorch": gpytorch, "copy": copy}
        for side in self.sides:
            self.names |= {side.name: side.model, side.name.replace("model", "likelihood"): side.likelihood}
        self.own = [side.likelihood is getattr(side.model, "likelihood", self) for side in self.sides]

    def run(self, code: str) -> bool:
        """Whether the lines ran."""
        try:
            exec(code, self.names)
        except Exception:
            return False
        return True

    def now(self) -> list[Subject]:
        """The copies as the lines left them."""
        return [replace(side, likelihood=getattr(side.model, "likelihood", None)) if own else side
                for side, own in zip(self.sides, self.own, strict=True)]  # fmt: skip

    def agree(self, finding: Finding) -> bool:
        """Whether the two are equal where a finding lies: tensors up to some roundings, what else by its difference."""
        a, b = self.now()
        try:
            p, q = (resolve(side.model, finding.where) for side in (a, b))
        except (AttributeError, IndexError, KeyError):
            return True
        if not (isinstance(p, Tensor) and isinstance(q, Tensor)):
            return (finding.cause, finding.where) not in {(d.cause, d.where) for d in differences(a, b)}
        close = 4 * max(torch.finfo(t.dtype).eps if t.is_floating_point() else 0.0 for t in (p, q))
        return p.shape == q.shape and bool(torch.allclose(p, q.to(p), rtol=close, atol=close))


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


def cured(
    a: Subject, b: Subject, findings: tuple[Finding, ...], names: list[str], rounding: Rounding, fresh: list[Reading]
) -> tuple[tuple[Finding, ...], str]:
    """The findings of two models with their lines of code, and what all of them leave, one after the other."""
    finest = min((a, b), key=lambda side: torch.finfo(dtype_of(side.model)).eps)
    onto_a = finest is b and any(finding.cause == "dtype" for finding in findings)
    copies, mended = _Copies(a, b), []
    lines: list[str] = []
    for finding in findings:
        code, copies = _line(copies, finding, onto_a, lines)
        mended.append(replace(finding, code=code))
        lines += [code] * bool(code)
    if not lines:
        return tuple(mended), ""
    what = "this line" if sum(len(ast.parse(line).body) for line in lines) == 1 else "these lines"
    what += ", one after the other," if len(lines) > 1 else ""
    shared = [finding.code for finding in mended if finding.cause == "shared-parameters"]
    if shared == lines:
        still = shared_by(*copies.now())
        return tuple(mended), "" if still else f"Tried on copies: with {what} nothing is shared."
    calls = any(name in CALLS for name in names)
    touched = [any(re.search(rf"{side.name}\b", line.partition(" = ")[0]) for line in lines) for side in (a, b)]
    with settled(a, b) if any(line.startswith("with ") for line in lines) else contextlib.nullcontext():
        now = zip(copies.now(), touched, fresh, strict=True)
        after = [read(side, *side.replica().roots) if touch or calls or shared else old for side, touch, old in now]
    left = moved(after[0], after[1], rounding, names)
    result = f"this is left: {sizes(left)}" if left else "the difference is gone"
    return tuple(mended), f"Tried on copies: with {what} {result}."


def _line(copies: _Copies, finding: Finding, onto_a: bool, lines: list[str]) -> tuple[str, _Copies]:
    """The first code that mends a finding on copies, after the lines before it; and the copies after it."""
    a, b = copies.now()
    name, _, where = finding.where.partition(": ")
    if name in (a.name, b.name):
        codes: Iterable[str] = _alone(name, replace(finding, where=where), number_of_data(a.model))
    else:
        codes = map(folded, _candidates(*((b, a) if onto_a else (a, b)), finding))
    for code in codes:
        after = _Copies(a, b)
        if code.startswith("with "):
            return ("" if code in lines else code), copies
        if after.run(code) and after.agree(finding):
            return code, after
    return "", copies


def _alone(name: str, finding: Finding, n: int) -> Iterator[str]:
    """Lines for what one model has by itself."""
    place = name + code_path("" if finding.where == "training" else finding.where)
    code = ALONE.get(finding.cause, "").format(name=name, place=place, n=n)
    if finding.cause == "grad-mode" and finding.b != "torch.no_grad()":
        code = ""
    if finding.cause == "setting" and finding.b in ("None", "True", "False"):  # a switch
        code = f"with {finding.where}({finding.a == 'False'}):\n    ...  # train and predict here"
    if code:
        yield code


def cured_alone(case: Case, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings of one model with the lines of code that help on a copy, alone, and run after those before them."""
    side, copies = case.subject, _Copies(case.subject)
    mended, lines = [], [""]
    for finding in findings:
        code = next(_alone(side.name, finding, number_of_data(side.model)), "")
        if code in lines or not (code.startswith("with ") or _helps(case, code, finding) and copies.run(code)):
            code = ""
        lines.append(code)
        mended.append(replace(finding, code=code))
    return tuple(mended)


def _helps(case: Case, code: str, finding: Finding) -> bool:
    """Whether the line runs on a copy, and the call is then the posterior that the model has without the fault."""
    copies = _Copies(case.subject)
    if not copies.run(code):
        return False
    (side,) = copies.now()
    if finding.cause == "shared-with-data":
        return not overlapping(side)
    after = read(side, *side.replica().roots)
    if finding.cause not in ("mode", "stale-cache"):
        return any(distance(name, case.fresh, after) > 0 for name in finding.effect)
    clean = [(call, case.fresh.under(call, posterior)) for call, posterior in POSTERIOR_OF.items()]
    return all(distance(call, after, reading) <= case.rounding.level(call) for call, reading in clean)
