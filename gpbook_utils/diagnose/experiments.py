"""Experiments on one model: rows of a table, and the one loop that runs them.

A row says which cause it decides, where it applies, what is changed there, and what counts as moved; what to do about
the cause stands in :mod:`gpbook_utils.diagnose.causes`. All work on private copies, inside
:func:`gpbook_utils.diagnose.guard.undisturbed`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import gpytorch
import torch
from torch import Tensor

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose.asking import LARGE, number_of_data
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.readings import Reading, Subject, distance, names, read
from gpbook_utils.diagnose.report import Finding
from gpbook_utils.diagnose.rounding import Rounding
from gpbook_utils.diagnose.tree import drop_caches

VISIBLE = 1e-4  # relative: where a fault has no other model to compare with, what nobody would see is not reported
SLIGHT = 1e-6  # relative: a square root near zero makes 1e-8 of one rounding in float64, which is nobody's fault
OTHER_SEED = 20_011

Change = Callable[[Replica], None]
Effect = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One place where a cause may lie, and how a copy is read to decide it.

    Attributes:
        where: dotted path of the place.
        a: what the model has there.
        b: what the changed copy has.
        change: what is changed in the copy; its caches are dropped before.
        under: contexts under which the copy is read.
        inputs: other inputs than the subject's.
        call: whether the user's call is read too.
        number: the seed.
        only: the quantities that are looked at; all by default.
        least: relative difference that does not count, whatever the level of rounding.
        effect: the effect, where it is known without a reading.
        detail: a sentence beside the explanation of the cause.
    """

    where: str
    a: str
    b: str
    change: Change | None = None
    under: tuple[Any, ...] = ()
    inputs: tuple[Tensor, ...] | None = None
    call: bool = False
    number: int = 0
    only: tuple[str, ...] | None = None
    least: float = 0.0
    effect: Effect | None = None
    detail: str = ""


@dataclass
class Case:
    """A model, and what was read of it so far.

    Attributes:
        subject: the model.
        before: what it says as it is.
        fresh: what it says without caches.
        calm: what it says without caches, by Cholesky whatever the size.
        rounding: what rounding does to it.
        found: the findings so far.
        seeded: what another seed moves, once that was asked.
    """

    subject: Subject
    before: Reading
    fresh: Reading
    calm: Reading
    rounding: Rounding
    found: list[Finding] = field(default_factory=list)
    seeded: Effect | None = None

    def read(self, trial: Trial) -> Reading:
        """What a copy says that was changed as the trial says."""
        side = self.subject if trial.inputs is None else replace(self.subject, inputs=trial.inputs)
        with contextlib.ExitStack() as stack:
            for context in trial.under:
                stack.enter_context(context)
            return reading_after(side, trial.change, call=trial.call, number=trial.number, only=trial.only)

    def slight(self) -> float:
        """What a square root of one rounding makes, and nobody's fault is."""
        return max(SLIGHT, math.sqrt(unit_roundoff(self.rounding.dtype)))


@dataclass(frozen=True)
class Experiment:
    """A row of the table.

    Attributes:
        cause: a key of :data:`gpbook_utils.diagnose.causes.CAUSES`.
        trials: where it applies to a case, and what is changed there; each is one experiment.
        moved: the effect of a trial, or none where nothing moved.
        unless: the row is left out if one of these causes was found.
        settled: whether it compares by Cholesky, whatever the size.
    """

    cause: str
    trials: Callable[[Case], Iterable[Trial]]
    moved: Callable[[Case, Trial, Reading], Effect | None] | None = None
    unless: tuple[str, ...] = ()
    settled: bool = False


def run(case: Case, table: Iterable[Experiment]) -> None:
    """Run the rows one after the other, and add what they find to the case."""
    for row in table:
        if any(finding.cause in row.unless for finding in case.found):
            continue
        base = case.calm if row.settled else case.fresh
        with settled(case.subject) if row.settled else contextlib.nullcontext():
            for trial in row.trials(case):
                decide = row.moved or moves
                effect = trial.effect if trial.effect is not None else decide(case, trial, base)
                if effect is None:
                    continue
                finding = Finding(row.cause, trial.where, trial.a, trial.b, effect, trial.detail)
                if (row.cause, trial.where) not in {(f.cause, f.where) for f in case.found}:
                    case.found.append(finding)


def moves(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """What the change moves beyond rounding."""
    return moved(base, case.read(trial), case.rounding, trial.only, trial.least) or None


def stills(case: Case, trial: Trial, base: Reading) -> Effect | None:
    """What differs between two seeds, if with the change it no longer does."""
    effect = seeded(case)
    if not effect or trial.change is None and not trial.under:
        return effect or None
    only = (*effect,)
    pair = [case.read(replace(trial, only=only, number=number)) for number in (0, OTHER_SEED)]
    left = moved(pair[0], pair[1], case.rounding, only)
    return None if left else effect


def seeded(case: Case) -> Effect:
    """What a second call on the same model gives otherwise, with other random numbers."""
    if case.seeded is None and number_of_data(case.subject.model) > LARGE and not case.fresh.drew:
        case.seeded = {}
    if case.seeded is None:
        case.seeded = moved(case.fresh, reading_after(case.subject, number=OTHER_SEED), case.rounding)
    return case.seeded


def moved(
    before: Reading, after: Reading, rounding: Rounding, only: Iterable[str] | None = None, least: float = 0.0
) -> Effect:
    """The quantities that two readings do not share beyond rounding, and how far they are apart."""
    sizes = {name: distance(name, before, after) for name in only or names(after)}
    return {name: size for name, size in sizes.items() if size > max(least, rounding.level(name))}


def reading_after(
    subject: Subject,
    change: Change | None = None,
    *,
    keep: bool = False,
    call: bool = False,
    number: int = 0,
    only: Iterable[str] | None = None,
) -> Reading:
    """A reading of a private copy; its caches are dropped unless ``keep``, then ``change`` is applied."""
    replica = subject.replica()
    if not keep:
        drop_caches(*replica.roots)
    if change is not None:
        change(replica)
    return read(subject, *replica.roots, call=call, number=number, only=only)


def exact() -> tuple[Any, ...]:
    """The settings with which everything is computed by Cholesky, whatever the size."""
    return (
        gpytorch.settings.max_cholesky_size(10**9),
        gpytorch.settings.fast_computations(False, False, False),
        gpytorch.settings.fast_pred_var(False),
    )


def beyond_cholesky(*subjects: Subject) -> bool:
    """Whether a matrix has more rows than max_cholesky_size."""
    return any(number_of_data(side.model) > gpytorch.settings.max_cholesky_size.value() for side in subjects)


@contextlib.contextmanager
def settled(*subjects: Subject) -> Iterator[None]:
    """Beyond max_cholesky_size everything by Cholesky: an iteration that stops early makes steps of every rounding."""
    with contextlib.ExitStack() as stack:
        if beyond_cholesky(*subjects):
            for context in exact():
                stack.enter_context(context)
        yield


def shift(tensor: Tensor) -> None:
    """Move every number by a hundredth, in place, also those of a tensor whose entries are one number in memory."""
    with torch.no_grad():
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if stride == 0 and size > 1:
                tensor = tensor.narrow(axis, 0, 1)
        tensor.add_(0.01 * (1 + tensor.abs()))
