"""Rows of the table: what a model holds. Data, formats, targets, memory, and parts that should be one object."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gpytorch
import torch
from gpytorch.kernels import AdditiveKernel, ProductKernel
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import data_of, is_sampled, raw_inputs
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import Case, Effect, Experiment, Trial, shift
from gpbook_utils.diagnose.memory import overlap, overlaps_itself, tensors_of, trainable
from gpbook_utils.diagnose.readings import MEAN, Reading, Subject, distance, names
from gpbook_utils.diagnose.tree import drop_caches, modules_of


def _no_data(case: Case) -> Iterator[Trial]:
    """An exact GP without training data answers with its prior."""
    model = case.subject.model
    if isinstance(model, gpytorch.models.ExactGP) and model.train_inputs is None:
        yield Trial("train_inputs", "none", "", effect={})


def _not_finite(case: Case) -> Iterator[Trial]:
    """NaN or infinite parameters and data, where what the model says is not finite either.

    A raw noise of minus infinity alone is not a finding: it is how GPyTorch stores a noise that is set to its bound.
    """
    masked = gpytorch.settings.observation_nan_policy.value() != "ignore"
    broken = [name for name, value in case.fresh.values.items() if not torch.isfinite(value).all()]
    if not broken and not case.fresh.failures:
        return
    seen = set()
    for where, tensor in tensors_of(case.subject.model, case.subject.likelihood).items():
        bounds = where.endswith(("lower_bound", "upper_bound"))
        hidden = masked and where.endswith("train_targets")
        if bounds or hidden or id(tensor) in seen or not tensor.is_floating_point():
            continue
        seen.add(id(tensor))
        bad = int((~torch.isfinite(tensor.detach())).sum())
        if bad:
            text = f"{bad} of {tensor.numel()} entries"
            yield Trial(where, text, "finite", effect=dict.fromkeys(broken or [MEAN], math.inf))


def _formats(case: Case) -> Iterator[Trial]:
    """Parameters and data in several formats: does the call work, or change, when all are in the finest?"""
    model = case.subject.model
    by_dtype: dict[torch.dtype, list[str]] = {}
    for path, held in (dict(model.named_parameters()) | data_of(model)).items():
        if held.is_floating_point():
            by_dtype.setdefault(held.dtype, []).append(path)
    if len(by_dtype) < 2:
        return
    few = min(by_dtype.values(), key=len)

    def cast(replica: Replica) -> None:
        replica.to(min(by_dtype, key=lambda dtype: torch.finfo(dtype).eps))

    listed = "; ".join(f"{str(d).removeprefix('torch.')}: {len(paths)} tensors" for d, paths in by_dtype.items())
    yield Trial(few[0], listed, "one format", change=cast)


def _any_bit(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """Whatever changes at all."""
    after = case.read(trial)
    return {name: size for name in names(after) if (size := distance(name, base, after)) > 0} or None


def _column(case: Case) -> Iterator[Trial]:
    """Have the targets the shape of the prior at the training inputs?"""
    model = case.subject.model
    data = data_of(model)
    if len(data) < 2 or is_sampled(model):
        return
    copy = case.subject.replica().roots[0]
    drop_caches(copy)
    try:
        with gpytorch.settings.debug(False):
            wanted = tuple(copy.train().forward(*copy.train_inputs).mean.shape)
    except Exception:
        return
    came = tuple(data["train_targets"].shape)
    if came != (*wanted, 1):
        return

    def squeeze(replica: Replica) -> None:
        replica.of(model).train_targets = replica.of(model).train_targets.squeeze(-1)

    yield Trial("train_targets", f"shape {came}", f"shape {wanted}", change=squeeze)


def _lengths(case: Case) -> Iterator[Trial]:
    """Have inputs, targets and fixed noise one length?"""
    model = case.subject.model
    inputs, targets = getattr(model, "train_inputs", None), getattr(model, "train_targets", None)
    if not inputs or targets is None:
        return
    n = inputs[0].shape[-2] if inputs[0].dim() > 1 else len(inputs[0])
    sizes = {f"train_inputs[{i}]": t.shape[-2] for i, t in enumerate(inputs) if i and t.dim() > 1}
    if n not in targets.shape:
        sizes["train_targets"] = targets.shape[-1]
    for where, size in sizes.items():
        if size not in (n, 1) and MEAN not in case.fresh.values:
            yield Trial(where, f"{size} values", f"{n}, as training inputs", effect={MEAN: math.inf})
    for path, module in modules_of(case.subject.likelihood):
        noise = module.__dict__.get("noise")
        if isinstance(noise, Tensor) and noise.dim() and noise.shape[-1] not in (n, 1):

            def filled(replica: Replica, module: nn.Module = module, noise: Tensor = noise) -> None:
                replica.of(module).__dict__["noise"] = noise.mean(-1, keepdim=True).expand(*noise.shape[:-1], n).clone()

            where = f"likelihood.{path}.noise" if path else "likelihood.noise"
            yield Trial(where, f"{noise.shape[-1]} values", f"{n}, as training inputs", change=filled, only=(MEAN,))


def _appended(case: Case) -> Iterator[Trial]:
    """Rows of training inputs that were appended to transformed ones without a transform."""
    model: Any = case.subject.model
    inputs: Any = getattr(model, "train_inputs", None)
    original = getattr(model, private.ORIGINAL, None)
    appended = getattr(model, private.TRANSFORMED, False) and id(raw_inputs(model)) == id(inputs)
    if not inputs or original is None or not appended:
        return
    n = original.shape[-2]
    if inputs[0].shape[-2] <= n:
        return

    def transform(replica: Replica) -> None:
        copy = replica.of(model)
        rows = copy.train_inputs[0]
        with torch.no_grad():
            added = copy.input_transform.preprocess_transform(rows[..., n:, :])
        copy.__dict__["train_inputs"] = (torch.cat([rows[..., :n, :], added], -2),)

    rows = inputs[0].shape[-2] - n
    yield Trial(f"train_inputs[0][{n}:]", f"{rows} rows as they came", "transformed as the others", change=transform)


def _other_likelihood(case: Case) -> Iterator[Trial]:
    """A part of the model that holds another likelihood than the model, as the copy of a sparse kernel does."""
    own = case.subject.likelihood
    if own is None:
        return
    for path, module in modules_of(case.subject.model):
        held = private.modules(module).get("likelihood")
        if not path or held is None or held is own or isinstance(module, gpytorch.models.GP):
            continue

        def join(replica: Replica, module: nn.Module = module) -> None:
            private.modules(replica.of(module))["likelihood"] = replica.of(own)

        yield Trial(f"{path}.likelihood", "a likelihood of its own", "the model's likelihood", change=join)


def _with_data(case: Case) -> Iterator[Trial]:
    """Would training the model move its data, or x?"""
    side = case.subject
    for path, parameter, hit in overlapping(side):
        joint = Replica((side.model, side.likelihood, *hit.values(), parameter))
        shift(joint.of(parameter).data)
        sizes = {name: _relative(tensor, joint.of(tensor)) for name, tensor in hit.items()}
        moved = ", ".join(f"{name} by {size:.1e} (relative)" for name, size in sizes.items())
        detail = f"Changing the parameter by a hundredth moves {moved}."
        yield Trial(path, f"memory of {', '.join(hit)}", "its own memory", effect=sizes, detail=detail)


def overlapping(side: Subject) -> list[tuple[str, Tensor, dict[str, Tensor]]]:
    """The parameters that lie in memory of data or x, each with its path and with what it shares memory."""
    data = {"x": side.inputs[0]} | data_of(side.model)
    hits = [(path, p, {name: t for name, t in data.items() if overlap(p, t)})
            for path, p in trainable(side.model, side.likelihood).items()]  # fmt: skip
    return [hit for hit in hits if hit[2]]


def _within(case: Case) -> Iterator[Trial]:
    """Would training one parameter move another?"""
    for path, module in modules_of(case.subject.model):
        if isinstance(module, AdditiveKernel | ProductKernel):
            kernels = list(module.kernels)
            twice = [k for i, k in enumerate(kernels) if any(k is other for other in kernels[:i])]
            if twice and any(p.requires_grad for p in twice[0].parameters()):
                where = f"{path}.kernels" if path else "kernels"
                yield Trial(where, f"one {type(twice[0]).__name__} twice", "two", effect={})
    own = trainable(case.subject.model, case.subject.likelihood)
    paths = list(own)
    for i, path in enumerate(paths):
        mates = [other for other in paths[:i] if overlap(own[path], own[other])]
        if mates or overlaps_itself(own[path]):
            what = f"memory of {mates[0]}" if mates else "entries that are one number in memory"
            yield Trial(path, what, "its own memory", effect={})


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / a.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _plain(case: Case) -> Iterator[Trial]:
    """Tensors and modules in plain attributes of the reader's own classes: do they change the answer?"""
    roots = [root for root in (case.subject.model, case.subject.likelihood) if root is not None]
    registered = {id(module) for root in roots for module in root.modules()}
    hidden: list[str] = []
    for path, module in modules_of(case.subject.model):
        if any(path.startswith(f"{outer}.") for outer in hidden):
            continue
        hidden += [path] * (id(module) not in registered)
        for name, values in _hidden_tensors(module, id(module) in registered).items():

            def moved(replica: Replica, values: list[Any] = values) -> None:
                for value in values:
                    shift(replica.of(value).data)

            where = ".".join(filter(None, (path, name)))
            yield Trial(where, "a plain attribute", "registered", change=moved)


def _hidden_tensors(module: nn.Module, registered: bool) -> dict[str, list[Any]]:
    """By attribute the tensors of a module that no state_dict carries; of a hidden module its parameters."""
    if not registered:
        parameters = list(module.parameters())
        return {"": parameters} if parameters else {}
    if type(module).__module__.startswith(("gpytorch.", "torch.", "linear_operator.", "botorch.")):
        return {}
    return {
        name: [value]
        for name, value in module.__dict__.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not private.is_data(name)
        and name != private.ORIGINAL
    }  # fmt: skip


def unseen(side: Subject) -> list[str]:
    """A note of what one model cannot show of itself."""
    transform = getattr(side.model, "outcome_transform", None)
    learnt = [name for name, _ in transform.named_buffers() if not name.startswith("_")] if transform else []
    if not learnt:
        return []
    return [
        f"not covered: whether {' and '.join(learnt)} of outcome_transform belong to these targets, which {side.name} "
        "keeps transformed only, as after load_state_dict of a model of other data; explain_difference with a model "
        "that was built on these data shows it"
    ]


HELD = (
    Experiment("no-training-data", _no_data),
    Experiment("not-finite", _not_finite),
    Experiment("mixed-dtype", _formats, _any_bit),
    Experiment("target-shape", _column),
    Experiment("length", _lengths),
    Experiment("skipped-transform", _appended),
    Experiment("other-likelihood", _other_likelihood),
    Experiment("shared-with-data", _with_data),
    Experiment("shared-within-model", _within),
)
PLAIN = (Experiment("state-outside-state-dict", _plain, settled=True),)
