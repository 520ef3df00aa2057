"""What a model says about x: its quantities, read from a private copy, and how far two readings are apart."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor, nn

from gpbook_utils.diagnose.asking import (
    Answer,
    answer_of,
    ask,
    by_posterior,
    call_of,
    core,
    is_sampled,
    observed,
    prepared,
    speaks_posterior,
    strategy_of,
)
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.guard import drew_since, seed, states
from gpbook_utils.diagnose.progress import step
from gpbook_utils.diagnose.tree import caches_in, drop_caches, modules_of

PRIOR, MEAN, COVARIANCE = "prior covariance", "posterior mean", "posterior covariance"
PREDICTIVE, PREDICTIVE_MEAN = "predictive covariance", "predictive mean"
LIKELIHOOD, ELBO, KL = "log marginal likelihood", "ELBO", "KL of q(u) from p(u)"
CALL_MEAN, CALL_COVARIANCE = "your call: mean", "your call: covariance"
CALLS = (CALL_MEAN, CALL_COVARIANCE)
POSTERIOR_OF = {CALL_MEAN: MEAN, CALL_COVARIANCE: COVARIANCE}
ONE_NUMBER = (LIKELIHOOD, ELBO, KL)
ALL = (PRIOR, MEAN, COVARIANCE, PREDICTIVE, PREDICTIVE_MEAN, *ONE_NUMBER, *CALLS)


@dataclass(frozen=True)
class Subject:
    """A model under diagnosis, with what is needed to call it.

    Attributes:
        name: how messages call it: ``model``, ``model_a`` or ``model_b``.
        model: the model itself, which nobody writes to.
        likelihood: its own, or the one that came beside it, or none.
        inputs: the tensors of x, in the model's format.
        targets: for a variational model, of the rows of x; or none.
        rows: which rows of the caller's x these are; none if they are all.
    """

    name: str
    model: nn.Module
    likelihood: nn.Module | None
    inputs: tuple[Tensor, ...]
    targets: Tensor | None = None
    rows: Tensor | None = None

    def replica(self) -> Replica:
        """A private copy; model and likelihood are copied together."""
        return Replica(self.model, self.likelihood)

    def asked(self) -> str:
        """The user's call as text."""
        return call_of(self.name, self.model, self.inputs)


@dataclass
class Reading:
    """The quantities of one model at x, each a detached float64 tensor on the CPU.

    Attributes:
        values: the quantities that there are.
        failures: the errors of those that could not be computed.
        absent: why others are not there.
        said: what a value is where it is not what its name says, such as variances alone.
        warnings: what was warned of.
        drew: whether random numbers were drawn.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    warnings: list[warnings.WarningMessage] = field(default_factory=list)
    drew: bool = False

    def under(self, name: str, other: str) -> Reading:
        """One of its quantities, ``other``, under the name of another."""
        return Reading({name: self.values[other]} if other in self.values else {}, self.failures)


def read(subject: Subject, model, likelihood, *, call: bool = True, number: int = 0, only=None) -> Reading:
    """Read the quantities of a private copy, which this uses up.

    Args:
        subject: whose copy it is; gives x, y and the name.
        model: the private copy.
        likelihood: the copy of the likelihood that came with it, or none.
        call: whether to read first what the user's call gives, with the mode, the caches and the settings as they are.
        number: the seed that every call starts from, so that two readings draw the same numbers.
        only: names of the quantities that are needed; by default all are read. For others no call is made.
    """
    needed = set(ALL if only is None else only)
    needed |= {posterior for mine, posterior in POSTERIOR_OF.items() if call and mine in needed}
    reader = _Reader(subject, model, likelihood, number)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = reader.call() if call else None
        with gpytorch.settings.debug(False):
            reader.evaluation(fresh=posterior is None)
            if needed & {MEAN, COVARIANCE, PREDICTIVE, PREDICTIVE_MEAN}:
                posterior = reader.posterior(posterior)
            if PRIOR in needed:
                reader.prior()
            if needed & {PREDICTIVE, PREDICTIVE_MEAN}:
                reader.predictive(posterior)
            if needed & set(ONE_NUMBER):
                reader.objective()
    reader.reading.warnings = caught
    step()
    return reader.reading


class _Reader:
    """Reads one private copy, from the user's call to the objective of training."""

    def __init__(self, subject: Subject, model, likelihood, number: int):
        self.name, self.model, self.likelihood, self.number = subject.name, model, likelihood, number
        self.rows = subject.rows
        self.inputs, self.targets = (_cast(value, model) for value in (subject.inputs, subject.targets))
        self.reading = Reading()

    def _answer(self, mean: str | None, covariance: str, call: Callable[[], Any]) -> Answer | None:
        """Ask, and keep mean and covariance under these names, or the error."""
        seed(self.number)
        before = states()
        try:
            answer = answer_of(call())
            if answer.said:
                self.reading.said[covariance] = answer.said
            found = {mean: wide(answer.mean)} if mean is not None else {}
            if answer.covariance is None:
                self.reading.absent[covariance] = f"{answer.said or 'the answer'} has no covariance"
            else:
                found[covariance] = wide(answer.covariance)
            self.reading.values |= found
            return answer
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self.reading.failures |= {name: text for name in (mean, covariance) if name is not None}
            return None
        finally:
            self.reading.drew |= drew_since(before)

    def call(self) -> Answer | None:
        """The user's call under the user's settings. In evaluation mode and without caches it is the posterior too."""
        modules = list(modules_of(self.model))
        plain = next(caches_in(modules), None) is None and not any(module.training for _, module in modules)
        # A call in training mode may change buffers, such as running means, that the posterior then depends on.
        held = [] if plain else [*modules, *modules_of(self.likelihood)]
        buffers = [(b, b.clone()) for _, module in held for b in module.buffers(recurse=False)]
        with self._its_training_inputs():
            answer = self._answer(CALL_MEAN, CALL_COVARIANCE, lambda: ask(self.model, self.inputs))
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        return answer if plain else None

    @contextlib.contextmanager
    def _its_training_inputs(self) -> Iterator[None]:
        """In training mode an exact GP takes its training inputs only: of these it has the rows taken of x."""
        held, rows = getattr(self.model, "train_inputs", None), self.rows
        if rows is None or not self.model.training or not held or len(held) != len(self.inputs):
            yield
            return
        taken = tuple(part[..., rows[rows < part.shape[-2]].to(part.device), :] for part in held)
        if all(map(torch.equal, taken, self.inputs)):
            self.model.__dict__["train_inputs"] = taken
        try:
            yield
        finally:
            self.model.__dict__["train_inputs"] = held

    def evaluation(self, fresh: bool) -> None:
        """Drop the caches; evaluation mode also for modules that ``eval()`` does not reach."""
        if fresh:
            drop_caches(self.model, self.likelihood)
        for root in (self.model, self.likelihood):
            if root is not None:
                root.eval()
                for _, module in modules_of(root):
                    module.training = False

    def posterior(self, called: Answer | None) -> Answer | None:
        if called is None:
            return self._answer(MEAN, COVARIANCE, lambda: ask(self.model, self.inputs))
        kinds: list[dict[str, Any]] = [self.reading.values, self.reading.absent, self.reading.said]
        for kind in kinds:
            kind.update({answer: kind[mine] for mine, answer in POSTERIOR_OF.items() if mine in kind})
        return called

    def prior(self) -> None:
        gp = core(self.model)
        if gp is self.model and not isinstance(gp, gpytorch.models.GP):
            self.reading.absent[PRIOR] = "it is no Gaussian process of GPyTorch"
            return
        self._answer(None, PRIOR, lambda: gp.forward(*prepared(self.model, self.inputs)))
        if PRIOR in self.reading.failures and MEAN in self.reading.values and speaks_posterior(self.model):
            self.reading.absent[PRIOR] = f"forward alone raised {self.reading.failures.pop(PRIOR)}"

    def predictive(self, posterior: Answer | None) -> None:
        """The distribution of y; of one that is no normal distribution the mean, as of probabilities."""
        latent, reading = None if posterior is None else posterior.gaussian, self.reading
        if by_posterior(self.model, self.inputs):
            call = lambda: self.model.posterior(*self.inputs, observation_noise=True)  # noqa: E731
        elif self.likelihood is None:
            reading.absent[PREDICTIVE] = f"no likelihood is known: pass {self.name.replace('model', 'likelihood')}="
            return
        elif latent is None:
            reading.absent[PREDICTIVE] = "there is no posterior to add noise to"
            return
        else:
            call = lambda: observed(self.likelihood, latent, self.inputs)  # noqa: E731
        number, self.number = self.number, 0  # a likelihood that samples is no random model
        answer = self._answer(PREDICTIVE_MEAN, PREDICTIVE, call)
        self.number = number
        if PREDICTIVE_MEAN in reading.failures:
            reading.absent[PREDICTIVE] = f"it raised {reading.failures.pop(PREDICTIVE)}"
            del reading.failures[PREDICTIVE_MEAN]
        elif answer is None or answer.gaussian is not None or by_posterior(self.model, self.inputs):
            reading.values.pop(PREDICTIVE_MEAN, None)
        else:  # of classes or counts nobody asks the covariance
            reading.absent.pop(PREDICTIVE, None)
            reading.said.pop(PREDICTIVE, None)

    def objective(self) -> None:
        name, compute = self._objective()
        if name is None or compute is None:
            return
        seed(self.number)
        before = states()
        try:
            self.reading.values[name] = wide(compute())
        except Exception as error:
            self.reading.failures[name] = f"{type(error).__name__}: {error}"
        self.reading.drew |= drew_since(before)

    def _objective(self) -> tuple[str | None, Callable[[], Tensor] | None]:
        model, likelihood, gp = self.model, self.likelihood, core(self.model)
        if isinstance(gp, gpytorch.models.ExactGP):
            if is_sampled(model):
                self.reading.absent[LIKELIHOOD] = "train() would discard the samples of a fully Bayesian model"
            elif gp.train_inputs is None or gp.train_targets is None or likelihood is None:
                self.reading.absent[LIKELIHOOD] = "there are no training data"
            else:
                return LIKELIHOOD, self._likelihood
        elif strategy_of(model) is not None:
            name = KL if self.targets is None or likelihood is None else ELBO
            return name, (self._kl if name == KL else self._elbo)
        return None, None

    def _likelihood(self) -> Tensor:
        model = self.model
        model.train()
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(self.likelihood, model)
        output = model(*model.train_inputs)
        if not isinstance(output, MultivariateNormal):
            output = answer_of(output).gaussian
        try:
            return objective(output, model.train_targets)
        except Exception:  # as observed()
            return objective(output, model.train_targets, *model.train_inputs)

    def _kl(self) -> Tensor:
        self._trained()
        return strategy_of(self.model).kl_divergence()

    def _elbo(self) -> Tensor:
        output = self._trained()
        n = self.targets.shape[-1]
        return gpytorch.mlls.VariationalELBO(self.likelihood, core(self.model), num_data=n)(output, self.targets)

    def _trained(self) -> Any:
        drop_caches(self.model)
        self.model.train()
        return self.model(*self.inputs)


def _cast(value, model):
    """X or y in the format of a copy, which may have been given another one than the original has."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if value is None or parameter is None or len({p.dtype for p in model.parameters()}) > 1:
        return value
    if isinstance(value, tuple):
        return tuple(_cast(part, model) for part in value)
    return value.to(parameter.device, parameter.dtype if value.is_floating_point() else value.dtype)


def rows_of(value: Tensor, rows: Tensor, m: int, *, matrix: bool) -> Tensor:
    """The part of a mean or covariance of m inputs that is of some rows, with all tasks."""
    tasks = value.shape[-1] // m
    kept = (rows.unsqueeze(-1) * tasks + torch.arange(tasks)).flatten()
    return value[..., kept, :][..., kept] if matrix else value[..., kept]


def wide(tensor: Tensor) -> Tensor:
    """A detached copy in float64 on the CPU."""
    return tensor.detach().cpu().double().clone()


def distance(name: str, a: Reading, b: Reading) -> float:
    """How far two readings of one quantity are apart: Frobenius norm of the difference over that of the larger.

    Of a likelihood, whose natural unit is one nat, the absolute difference where it is below one. Infinity where the
    shapes differ, only one of the two could be computed, or only one is finite.
    """
    p, q = a.values.get(name), b.values.get(name)
    if p is None and q is None:
        return 0.0
    if p is None or q is None or p.shape != q.shape:
        return math.inf
    if p is q or torch.equal(p, q):
        return 0.0
    sizes = float(p.norm()), float(q.norm())
    if all(map(math.isfinite, sizes)) and 1e-100 < max(sizes) < 1e100:  # all entries finite, no square overflows
        return float((p - q).norm()) / max(*sizes, math.sqrt(p.numel()) if name in ONE_NUMBER else 0.0)
    both = torch.isfinite(p) & torch.isfinite(q)
    if not torch.equal(torch.where(both, 0.0, p).nan_to_num(nan=7.0), torch.where(both, 0.0, q).nan_to_num(nan=7.0)):
        return math.inf
    p, q = p[both], q[both]
    if torch.equal(p, q):
        return 0.0
    unit = float(torch.maximum(p.abs().max(), q.abs().max()))
    norm = max(float((p / unit).norm()), float((q / unit).norm()))
    if name in ONE_NUMBER:
        norm = max(norm, math.sqrt(p.numel()) / unit)
    return float((p / unit - q / unit).norm()) / norm


def names(*readings: Reading) -> list[str]:
    """All quantities that one of the readings has, or failed to have, in a fixed order."""
    return [name for name in ALL if any(name in r.values or name in r.failures for r in readings)]
