"""Errors of the user's call, read into causes: what made the matrix indefinite, and which argument does not fit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace

import gpytorch
import torch
from gpytorch.kernels import GridInterpolationKernel
from torch import Tensor, nn

from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.asking import dtype_of
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import Case, Experiment, Trial, reading_after
from gpbook_utils.diagnose.readings import CALL_MEAN, CALLS, MEAN, PRIOR
from gpbook_utils.diagnose.rounding import system_of
from gpbook_utils.diagnose.tree import modules_of

ALL = {MEAN: math.inf}
CALL = dict.fromkeys(CALLS, math.inf)
INDEFINITE = ("NotPSDError", "NanError", "not positive definite", "not positive-definite")


def message(case: Case) -> str:
    """The error of the call, or empty."""
    for reading in (case.before, case.fresh):
        for name in (CALL_MEAN, MEAN):
            if name in reading.failures:
                return reading.failures[name]
    return ""


def _indefinite(case: Case) -> Iterator[Trial]:
    """A matrix that is not positive definite: by how much, what makes it so, and what would mend it."""
    text = " ".join(case.fresh.failures.values()) + message(case)
    if not any(word in text for word in INDEFINITE):
        return
    side, dtype = case.subject, str(dtype_of(case.subject.model)).removeprefix("torch.")
    said = [dtype]
    K = system_of(side)
    if K is not None and K.shape[-1] <= 2000 and torch.isfinite(K).all():
        values = torch.linalg.eigvalsh((K + K.mT) / 2)
        said.append(f"least eigenvalue {float(values.min()):.1e} of {float(values.max()):.1e}")
    noise = getattr(side.likelihood, "noise", None)
    if isinstance(noise, Tensor):
        said.append(f"noise {float(noise.detach().min()):.1e}")
    said += filter(None, [repeated_rows(side.model)])
    yield Trial("", ", ".join(said), "positive definite", effect=ALL, detail=_mended(case, noise))


def repeated_rows(model: nn.Module) -> str:
    """How many training inputs stand there more than once, or nearly so, or empty."""
    alone = _alone(model)
    if alone is None:
        return ""
    exactly, nearly = (int((~kept).sum()) for kept in alone)
    said = f"{exactly or nearly} of {len(alone[0])} rows {'' if exactly else 'nearly '}repeat another"
    more = f", {nearly - exactly} nearly" if 0 < exactly < nearly else ""
    return said + more if nearly else ""


def _alone(model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Of the training inputs the rows that repeat no earlier one; and those that are not close to one.

    Close is a hundredth of the distance that as many rows on a grid have.
    """
    inputs = getattr(model, "train_inputs", None)
    if not inputs or inputs[0].dim() != 2 or len(inputs[0]) > 2000:
        return None
    rows = torch.cat([part.detach().cpu().double() for part in inputs if part.dim() == 2], -1)
    span = rows.amax(0) - rows.amin(0)
    rows = (rows / span)[:, span > 0]
    spacing = len(rows) ** (-1 / max(1, rows.shape[-1]))
    apart = torch.cdist(rows, rows, p=math.inf).fill_diagonal_(math.inf)
    return tuple(~(apart <= least).tril(-1).any(-1) for least in (0.0, 0.01 * spacing))  # type: ignore[return-value]


def _mended(case: Case, noise: object) -> str:
    """What of a finer format, a larger noise and fewer rows makes the call work."""
    said = []
    if dtype_of(case.subject.model) != torch.float64:
        finer = reading_after(case.subject, lambda replica: replica.to(torch.float64), only=(MEAN,))
        works = MEAN in finer.values
        said.append("In float64 the call works." if works else "In float64 it raises too.")
    for floor in (1e-6, 1e-4, 1e-2):
        if not isinstance(noise, Tensor) or float(noise.detach().min()) >= floor:
            continue

        def raised(replica: Replica, floor: float = floor) -> None:
            likelihood = replica.of(case.subject.likelihood)
            for module in likelihood.modules():
                raw = private.parameters(module).get("raw_noise")
                constraint = private.constraint_of(module, "raw_noise")
                if raw is not None and constraint is not None:
                    raw.data.copy_(constraint.inverse_transform(torch.full_like(raw, floor)))
                elif isinstance(module.__dict__.get("noise"), Tensor):
                    module.__dict__["noise"] = module.__dict__["noise"].clamp_min(floor)

        if MEAN in reading_after(case.subject, raised, only=(MEAN,)).values:
            said.append(f"With a noise of {floor:g} it works.")
            break
    if (alone := _alone(case.subject.model)) is not None and not alone[1].all():
        kept = alone[1]

        def thinned(replica: Replica) -> None:
            copy = replica.of(case.subject.model)
            copy.__dict__["train_inputs"] = tuple(part[kept] for part in copy.train_inputs)
            copy.train_targets = copy.train_targets[..., kept]

        if MEAN in reading_after(case.subject, thinned, only=(MEAN,)).values:
            said.append(f"With {int(kept.sum())} rows, none of them close to another, it works.")
    return " ".join(said)


def _number_of_inputs(case: Case) -> Iterator[Trial]:
    """More or fewer tensors in x than ``forward`` takes."""
    if "argument" not in message(case):
        return
    try:
        parameters = inspect.signature(case.subject.model.forward).parameters.values()
    except (TypeError, ValueError):
        return
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return
    most = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = [p for p in most if p.default is p.empty]
    came = len(case.subject.inputs)
    if not len(least) <= came <= len(most):
        text = f"{came} tensor{'s' * (came != 1)}: {message(case)}"
        yield Trial("x", text, f"forward takes {', '.join(p.name for p in most)}", effect=ALL)


def _columns(case: Case) -> Iterator[Trial]:
    """Another number of columns than the training inputs have, or one that the kernel cannot take."""
    words = ("dimensionality", "shapes cannot be multiplied", "must match the size", "Expected size", "ard_num_dims")
    if any(word in message(case) for word in words):
        shape = tuple(case.subject.inputs[0].shape)
        inputs = getattr(case.subject.model, "train_inputs", None)
        held = f"training inputs {tuple(inputs[0].shape)}" if inputs else "shapes that fit"
        yield Trial("x", f"x {shape}: {message(case)}", held, effect=ALL)


def _grid(case: Case) -> Iterator[Trial]:
    """Rows of x outside the grid of an interpolated kernel."""
    if "out of bounds for the specified grid" in message(case):
        paths = [path for path, m in modules_of(case.subject.model) if isinstance(m, GridInterpolationKernel)]
        yield Trial(paths[0] if paths else "", message(case), "a grid that holds x", effect=ALL)


def _noise(case: Case) -> Iterator[Trial]:
    """A likelihood that was given no noise."""
    text = message(case) or " ".join(case.fresh.failures.values())
    fixed = isinstance(case.subject.likelihood, gpytorch.likelihoods.FixedNoiseGaussianLikelihood)
    if "noise" in text and fixed:
        yield Trial("likelihood.noise", text, "noise of these points", effect=ALL)


def _unbatched(case: Case) -> Iterator[Trial]:
    """Parameters of a batch of models, such as samples, beside the training data of one."""
    model = case.subject.model
    prior = case.fresh.values.get(PRIOR)
    shape = () if prior is None else prior.shape[:-2]
    inputs, targets = getattr(model, "train_inputs", None), getattr(model, "train_targets", None)
    if not message(case) or not shape or not inputs or targets is None or targets.dim() > 1 or inputs[0].dim() > 2:
        return

    def expanded(replica: Replica) -> None:
        copy = replica.of(model)
        copy.__dict__["train_inputs"] = tuple(part.expand(*shape, *part.shape[-2:]).clone() for part in inputs)
        copy.train_targets = targets.expand(*shape, targets.shape[-1]).clone()

    before, after = tuple(inputs[0].shape), (*shape, *inputs[0].shape[-2:])
    batch = tuple(part.expand(*shape, *part.shape[-2:]) for part in case.subject.inputs)
    trial = Trial("train_inputs", f"shape {before}", f"shape {after}", change=expanded, inputs=batch, call=True)
    if CALL_MEAN in case.read(trial).values:
        detail = f"The parameters are those of a batch of {tuple(shape)} models. {message(case)}"
        yield replace(trial, effect=CALL, detail=detail)


def _other(case: Case) -> Iterator[Trial]:
    """An error that nothing else explains, or that only GPyTorch's debug checks raise."""
    answers = MEAN in case.fresh.values
    if not case.found and (CALL_MEAN if answers else MEAN) in case.fresh.failures:
        detail = "Without the checks of gpytorch.settings.debug it answers, which need not be what was meant."
        said = f"{case.subject.asked()} raised {message(case)}"
        yield Trial("", said, "", effect=CALL if answers else ALL, detail=detail if answers else "")


CHECKED = (Experiment("training-data", _unbatched), Experiment("call-raises", _other))
RAISED = (
    Experiment("not-positive-definite", _indefinite, unless=("not-finite", "mixed-dtype", "length")),
    Experiment("number-of-inputs", _number_of_inputs),
    Experiment("outside-grid", _grid),
    Experiment("noise-not-given", _noise, unless=("not-positive-definite", "length")),
    Experiment(
        "shape-of-x",
        _columns,
        unless=("not-positive-definite", "number-of-inputs", "length", "mixed-dtype", "noise-not-given"),
    ),  # fmt: skip
    Experiment("call-raises", _other),
)
