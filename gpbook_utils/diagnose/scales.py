"""Rows of the table: training data in units that the model, as its parameters are, was not made for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gpbook_utils.diagnose.asking import data_of, number_of_data
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.experiments import VISIBLE, Case, Effect, Experiment, Trial
from gpbook_utils.diagnose.readings import COVARIANCE, LIKELIHOOD, MEAN, Reading
from gpbook_utils.diagnose.rounding import system_of


def _collapsed(case: Case) -> Iterator[Trial]:
    """Training inputs that are few numbers, though the order of the rows says that they were more."""
    model = case.subject.model
    data = [tensor.detach() for tensor in data_of(model).values()]
    if [tensor.dim() for tensor in data] != [2, 1]:
        return
    x, y = (tensor.double() for tensor in data)
    if len(x) != len(y) or len(x) < 8:
        return
    groups, of, counts = torch.unique(x, dim=0, return_inverse=True, return_counts=True)
    if 2 * len(groups) > len(x) or not (_in_order(y, of, counts) or _at_the_last_place(groups)):
        return

    def spread(replica: Replica) -> None:
        replica.to(torch.float64)  # in a coarser format there may be no numbers between
        new = x.clone()
        for column in range(x.shape[-1]):
            steps = groups[:, column].unique().diff()
            step = float(steps[steps > 0].min()) if (steps > 0).any() else 0.0
            for group in range(len(groups)):
                rows = (of == group).nonzero().squeeze(-1)
                new[rows, column] += step * (torch.arange(len(rows)).to(new) / len(rows) - 0.5)
        replica.of(model).__dict__["train_inputs"] = (new,)

    text = f"{len(groups)} distinct of {len(x)} rows"
    yield Trial("train_inputs", text, "distinct rows", change=spread, only=(MEAN, COVARIANCE), least=VISIBLE)


def _in_order(y: Tensor, of: Tensor, counts: Tensor) -> bool:
    """Whether targets at equal inputs go on where the row before left off: von Neumann's ratio, 2 of random order."""
    steps, around, free = 0.0, 0.0, 0
    for group in counts.argsort(descending=True)[:64].tolist():
        rows = y[of == group]
        if len(rows) > 3:
            steps += float(rows.diff().square().mean()) * len(rows)
            around += float((rows - rows.mean()).square().sum())
            free += len(rows)
    return free >= 12 and steps < 0.7 * around


def _at_the_last_place(rows: Tensor) -> bool:
    """Whether a column's numbers lie as far apart as float32 has any, far from the origin."""
    for column in rows.T:
        values = column.unique()
        if len(values) < 2 or not torch.equal(values.float().double(), values):
            continue
        gap, largest = float(values.diff().min()), float(values.abs().max())
        if math.frexp(gap)[0] == 0.5 and 2**21 < largest / gap <= 2**24 and gap != 1:
            return True
    return False


def _unscaled(case: Case) -> Iterator[Trial]:
    """Targets that the model holds for impossible: scaled to mean zero and variance one they would fit far better."""
    model, base = case.subject.model, case.calm.values.get(LIKELIHOOD)
    targets = data_of(model).get("train_targets")
    if base is None or base.numel() != 1 or targets is None or targets.dim() != 1 or len(targets) < 4:
        return
    y = targets.detach()
    mean, deviation = float(y.mean()), float(y.std())
    if not (math.isfinite(mean) and deviation > 0):
        return

    def scaled(replica: Replica) -> None:
        replica.of(model).train_targets = (y - mean) / deviation

    text = f"mean {mean:.4g}, standard deviation {deviation:.4g}"
    yield Trial("train_targets", text, "mean 0, standard deviation 1", change=scaled, only=(LIKELIHOOD,))


def _fits_better(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """Ten nats for each target: nothing that a noise or a lengthscale would mend."""
    model: Any = case.subject.model
    y, after = model.train_targets, case.read(trial).values.get(LIKELIHOOD)
    if after is None:
        return None
    gain = float(after - base.values[LIKELIHOOD]) - math.log(float(y.std()))
    return {LIKELIHOOD: gain} if gain > 10 else None


def _unrelated(case: Case) -> Iterator[Trial]:
    """Training inputs so far apart, against the lengthscale, that each row is unrelated to every other."""
    model, base = case.subject.model, case.calm.values.get(LIKELIHOOD)
    inputs, K = data_of(model).get("train_inputs"), system_of(case.subject)
    if base is None or base.numel() != 1 or inputs is None or inputs.dim() != 2 or K is None or K.shape[-1] < 8:
        return
    others = (K[0] - torch.diag_embed(K[0].diagonal())).abs() / K[0].diagonal().min()
    nearest = float(others.amax(-1).median())
    x = inputs.detach()
    low, high = x.min(0).values, x.max(0).values

    def scaled(replica: Replica) -> None:
        held = replica.of(model)
        held.__dict__["train_inputs"] = ((x - low) / (high - low).clamp_min(1e-12), *held.train_inputs[1:])

    if nearest < 1e-3:
        text = f"{float(low.min()):.4g} to {float(high.max()):.4g}, of the nearest row the covariance is {nearest:.1g}"
        yield Trial("train_inputs", text, "between 0 and 1", change=scaled, only=(LIKELIHOOD,))


def _knows_more(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """Five nats for all targets together: then what the rows have in common is more than chance."""
    after = case.read(trial).values.get(LIKELIHOOD)
    gain = 0.0 if after is None else float(after - base.values[LIKELIHOOD])
    return {LIKELIHOOD: gain} if gain * number_of_data(case.subject.model) > 5 else None


SCALED = (
    Experiment("collapsed-inputs", _collapsed, settled=True),
    Experiment("unscaled-targets", _unscaled, _fits_better, settled=True),
    Experiment("unscaled-inputs", _unrelated, _knows_more, settled=True),
)
