"""Many models of one class as one batch: their parameters as rows of a matrix, their losses and gradients at once.

A batch of GPyTorch models is one model with a ``batch_shape``. Here its trainable numbers are laid out as a matrix, one
row for each member, so that an optimiser needs to know nothing about GPyTorch: :class:`Layout` names the columns, and
:class:`ExactLoss` maps a matrix to one loss and one gradient for each row.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import gpytorch
import torch
from gpytorch.constraints import Interval
from linear_operator.operators import AddedDiagLinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from gpbook_utils import arguments, private

REASONS = {
    NanError: "the covariance has NaN entries",
    NotPSDError: "the covariance is not positive definite",
    torch.linalg.LinAlgError: "the covariance is not positive definite",
}
MakeModel = Callable[[torch.Size], tuple[gpytorch.Module, gpytorch.Module]]


@dataclass(frozen=True)
class Slot:
    """One parameter of a model, and its columns in the matrix.

    Attributes:
        name: as one reads it from the model, for example ``"covar_module.lengthscale"``.
        spellings: all names that mean it; the first is that of ``named_parameters()``.
        shape: in a model without a batch.
        columns: its place in a row.
        constraint: between the raw parameter and the value, if there is one.
    """

    name: str
    spellings: tuple[str, ...]
    shape: torch.Size
    columns: slice
    constraint: Interval | None

    def value(self, raw: Tensor) -> Tensor:
        """From raw numbers to the values that the model computes with."""
        return raw if self.constraint is None else self.constraint.transform(raw)


class Layout:
    """Which columns of a matrix are which parameters of the models that ``make_model`` builds.

    Args:
        make_model: as for :func:`gpbook_utils.training.restarts.fit_restarts`.

    Raises:
        ValueError: if ``make_model`` does not return a model and its likelihood, or if a parameter of the batch has no
            dimension for the members.
    """

    def __init__(self, make_model: MakeModel):
        single, pair = (build(make_model, torch.Size(shape)) for shape in ([], [2]))
        batched = {name: parameter for name, parameter, _ in _named(*pair)}
        self.slots: list[Slot] = []
        self.dtype = next(single[0].parameters()).dtype
        self.width = 0
        default = []
        for name, parameter, constraint in _named(*single):
            shape = getattr(batched.get(name), "shape", None)
            if shape != (2, *parameter.shape):
                raise ValueError(
                    f"make_model(batch_shape) must give every parameter a leading dimension for the members; {name} "
                    f"has shape {tuple(parameter.shape)} alone and {shape and tuple(shape)} in a batch of two. "
                    "Pass batch_shape=batch_shape to every kernel, mean and likelihood"
                )
            columns = slice(self.width, self.width + parameter.numel())
            self.slots.append(Slot(_public(name), _spellings(name), parameter.shape, columns, constraint))
            self.width = columns.stop
            default.append(parameter.detach().flatten())
        self.default = torch.cat(default)

    def rows(self, starts: dict[str, Tensor]) -> Tensor:
        """The raw parameters of all starts, of shape (number of starts, width); what is not named keeps its default.

        Raises:
            ValueError: for an empty ``starts``, an unknown name, a parameter named twice, a wrong shape, different
                numbers of starts, or values that are not finite or violate the parameter's constraint.
        """
        arguments.need(isinstance(starts, dict) and starts, "starts", "a non-empty dictionary of tensors", starts)
        spelt = {spelling: slot for slot in self.slots for spelling in slot.spellings}
        rows = self.default.new_empty(0, self.width)
        seen: dict[str, str] = {}
        for name, given in starts.items():
            if name not in spelt:
                raise ValueError(
                    f"starts names {name!r}; the model's parameters are {', '.join(s.name for s in self.slots)}"
                )
            slot = spelt[name]
            if slot.name in seen:
                raise ValueError(f"starts names one parameter twice: {seen[slot.name]!r} and {name!r}")
            seen[slot.name] = name
            try:
                value = torch.as_tensor(given, dtype=self.dtype).detach()
            except (TypeError, ValueError, RuntimeError):
                value = arguments.need(False, f"starts[{name!r}]", "a tensor of numbers", given)
            if value.dim() == 0 or len(value) == 0:
                raise ValueError(f"starts[{name!r}] must have one entry for each start; got shape {tuple(value.shape)}")
            if not len(rows):
                rows = self.default.repeat(len(value), 1)
            if len(value) != len(rows) or value[0].numel() != slot.shape.numel():
                raise ValueError(
                    f"starts[{name!r}] must have shape {(len(rows), *slot.shape)}; got {tuple(value.shape)}"
                )
            raw = value
            if name != slot.spellings[0] and slot.constraint is not None:
                raw = slot.constraint.inverse_transform(value)
            bad = ~torch.isfinite(raw).flatten(1).all(1) if raw.dim() > 1 else ~torch.isfinite(raw)
            if bad.any():
                first = int(bad.nonzero()[0])
                needed = "finite" + ("" if slot.constraint is None else f" and satisfy {slot.constraint}")
                raise ValueError(f"starts[{name!r}] must be {needed}; start {first} is {value[first].tolist()}")
            rows[:, slot.columns] = raw.reshape(len(rows), -1)
        return rows

    def values(self, raw: Tensor) -> dict[str, Tensor]:
        """From raw rows, of shape (..., width), to values by name, of shape (..., *shape), or (...) for one number."""
        result = {}
        for slot in self.slots:
            value = slot.value(raw[..., slot.columns])
            shape = () if slot.shape.numel() == 1 else slot.shape
            result[slot.name] = value.reshape(*raw.shape[:-1], *shape).clone()
        return result

    def write(self, raw: Tensor, parameters: list[Tensor]) -> None:
        """Copy raw rows into the parameters of a batch of models, or one row into those of a single one."""
        with torch.no_grad():
            for slot, parameter in zip(self.slots, parameters, strict=True):
                parameter.copy_(raw[..., slot.columns].reshape(parameter.shape))


def parameters_of(model: gpytorch.Module, likelihood: gpytorch.Module) -> list[Tensor]:
    """All parameters, in the order of :class:`Layout`."""
    return [parameter for _, parameter, _ in _named(model, likelihood)]


class GaussianLoss(torch.autograd.Function):
    r"""-log N(r | 0, K + D) for a batch, D diagonal, with its gradient in closed form.

    The gradient with respect to K is :math:`\tfrac12 (A^{-1} - \alpha\alpha^\top)` with :math:`A = K + D` and
    :math:`\alpha = A^{-1} r` [Rasmussen and Williams 2006, equation 5.9], so nothing is differentiated through the
    Cholesky factorisation. A member whose factor is NaN has a NaN loss and gradient, and touches no other.
    """

    @staticmethod
    def forward(ctx, factor: Tensor, covariance: Tensor, diagonal: Tensor, residual: Tensor) -> Tensor:
        """``factor`` is the lower Cholesky factor of A, computed without a graph; D is given by its diagonal."""
        half_way = torch.linalg.solve_triangular(factor, residual.unsqueeze(-1), upper=False)
        alpha = torch.linalg.solve_triangular(factor.mT, half_way, upper=True).squeeze(-1)
        ctx.save_for_backward(factor, alpha)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return ((residual * alpha).sum(-1) + log_det + residual.shape[-1] * math.log(2 * math.pi)) / 2

    @staticmethod
    def backward(ctx, upstream: Tensor):
        """Gradients for K, the diagonal of D, and r."""
        factor, alpha = ctx.saved_tensors
        half = upstream[..., None, None] / 2
        # LAPACK's inverse lies in memory by columns; its transpose, which is equal, by rows, as K and all that made K.
        gradient = torch.cholesky_inverse(factor).mT.mul_(half)
        gradient.baddbmm_(half * alpha.unsqueeze(-1), alpha.unsqueeze(-2), alpha=-1)
        return None, gradient, gradient.diagonal(dim1=-2, dim2=-1), alpha * upstream.unsqueeze(-1)


class BatchLoss:
    """Losses and gradients of a batch of models, row by row; a subclass says which loss, in ``_loss``.

    That takes a model, its likelihood and ``data``, and returns a loss for each member, the reasons of those that
    failed, and the members that got jitter.

    Models are built for a few batch sizes only and kept; a batch between two sizes is filled up with copies.

    Args:
        make_model, layout: which models, and where their parameters are.
        members: the largest batch.
    """

    _loss: Callable[..., tuple[Tensor, dict[int, str], set[int]]]

    def __init__(self, make_model: MakeModel, layout: Layout, members: int):
        self.make_model, self.layout, self.members = make_model, layout, members
        self.models: dict[int, tuple] = {}

    def __call__(self, rows: Tensor, *data: Tensor) -> tuple[Tensor, Tensor, dict[int, str], set[int]]:
        """Losses of shape (b,) and gradients of shape (b, width) at ``rows`` of shape (b, width).

        ``data``, each of shape (b, ...), go to ``_loss``: what each member has of its own beside its parameters.
        Also returns, for each row whose loss is NaN, the reason, and the rows to whose covariance GPyTorch's jitter was
        added, as it is whenever a factorisation fails at first.
        """
        count = len(rows)
        step = max(1, self.members // 8)
        size = max(count, min(-(-count // step) * step, self.members))
        if size not in self.models:
            model, likelihood = build(self.make_model, torch.Size([size]))
            self.models[size] = model.train(), likelihood.train(), parameters_of(model, likelihood)
        model, likelihood, parameters = self.models[size]
        padded, *filled = (_fill(part, size) for part in (rows, *data))
        self.layout.write(padded, parameters)
        try:
            with torch.enable_grad(), gpytorch.settings.debug(False):  # debug compares the inputs with themselves
                loss, problems, jittered = self._loss(model, likelihood, *filled)
                if loss.shape != (size,):
                    raise ValueError(f"a batch of {size} models must have {size} losses; got shape {tuple(loss.shape)}")
                free = [parameter for parameter in parameters if parameter.requires_grad]
                found = iter(torch.autograd.grad(loss.sum(), free, allow_unused=True))
        except tuple(REASONS) as error:  # GPyTorch's own objective, which does not say of which member
            return self._one_by_one(rows, *data) if count > 1 else self._failed(rows, error)
        gradient = torch.zeros_like(padded)
        for slot, parameter in zip(self.layout.slots, parameters, strict=True):
            part = next(found) if parameter.requires_grad else None
            if part is not None:
                gradient[:, slot.columns] = part.reshape(size, -1)
        loss, gradient = loss.detach()[:count], gradient[:count]
        problems = {row: reason for row, reason in problems.items() if row < count}
        for row in (~(loss.isfinite() & gradient.isfinite().all(-1))).nonzero().flatten().tolist():
            problems.setdefault(row, "the loss or its gradient is not finite")
            loss[row] = torch.nan
        return loss, gradient, problems, {row for row in jittered if row < count}

    def _one_by_one(self, *parts: Tensor) -> tuple[Tensor, Tensor, dict[int, str], set[int]]:
        alone = zip(*(part.split(1) for part in parts), strict=True)
        losses, gradients, problems, _ = zip(*(self(*member) for member in alone), strict=True)
        reasons = {place: problem[0] for place, problem in enumerate(problems) if problem}
        return torch.cat(losses), torch.cat(gradients), reasons, set()

    @staticmethod
    def _failed(row: Tensor, error: Exception) -> tuple[Tensor, Tensor, dict[int, str], set[int]]:
        return row.new_full((1,), torch.nan), torch.zeros_like(row), {0: REASONS[type(error)]}, set()


class ExactLoss(BatchLoss):
    """The negative log marginal likelihood per datum of a batch of exact GPs, and its gradient, row by row.

    It is what GPyTorch's ``ExactMarginalLogLikelihood`` computes, priors and added loss terms included, by Cholesky for
    any number of data.

    Args:
        make_model, layout, members: as for :class:`BatchLoss`.
        closed_form: the gradient in closed form, or else GPyTorch's own objective and automatic differentiation, which
            is slower, and with one member gives exactly the numbers of a plain loop.
    """

    def __init__(self, make_model: MakeModel, layout: Layout, members: int, closed_form: bool = True):
        super().__init__(make_model, layout, members)
        self.closed_form = closed_form

    def _loss(self, model, likelihood) -> tuple[Tensor, dict[int, str], set[int]]:
        if not self.closed_form:
            objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
            return -objective(model(*model.train_inputs), model.train_targets), {}, set()
        with gpytorch.settings.lazily_evaluate_kernels(False):  # all of K is needed, at once
            observed = likelihood(model(*model.train_inputs))
        covariance, diagonal = split(observed.lazy_covariance_matrix)
        residual = model.train_targets - observed.mean
        system = covariance.detach().clone()
        system.diagonal(dim1=-2, dim2=-1).add_(diagonal.detach())
        factor, problems, jittered = factorise(system)
        log_density = -GaussianLoss.apply(factor, covariance, diagonal.expand_as(residual), residual)
        if any(True for _ in model.named_priors()) or any(True for _ in model.added_loss_terms()):
            objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
            log_density = private.with_other_terms(objective, log_density)
        return -log_density / residual.shape[-1], problems, jittered


def _fill(part: Tensor, size: int) -> Tensor:
    """``part``, of shape (b, ...), with copies of its last member up to (size, ...)."""
    return torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])


def factorise(covariance: Tensor) -> tuple[Tensor, dict[int, str], set[int]]:
    """Cholesky factors of a batch of shape (b, n, n), each member on its own.

    A member that is not positive definite gets GPyTorch's jitter, as it would alone; if that does not help, or if it
    has NaN entries, its factor is NaN.

    Returns:
        The factors, the reason for each member without one, and the members to which jitter was added.

    >>> factor, problems, jittered = factorise(torch.stack([torch.eye(2), -torch.eye(2)]))
    >>> factor[0].diagonal().tolist(), problems
    ([1.0, 1.0], {1: 'the covariance is not positive definite'})
    """
    factor, info = torch.linalg.cholesky_ex(covariance)
    problems, jittered = {}, set()
    for member in info.nonzero().flatten().tolist():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the jitter, which the caller learns of
                factor[member] = psd_safe_cholesky(covariance[member])
            jittered.add(member)
        except (NanError, NotPSDError) as error:
            problems[member] = REASONS[type(error)]
            factor[member] = torch.nan
    return factor, problems, jittered


def split(covariance) -> tuple[Tensor, Tensor]:
    """A covariance as a dense matrix plus a diagonal, of shapes (b, n, n) and (b, n); without building a sum."""
    if isinstance(covariance, AddedDiagLinearOperator):
        matrix, diagonal = private.terms(covariance)
        return matrix.to_dense(), diagonal.diagonal(dim1=-2, dim2=-1)
    dense = covariance.to_dense()
    return dense, dense.new_zeros(dense.shape[:-1])


def build(make_model: MakeModel, batch_shape: torch.Size) -> tuple[gpytorch.Module, gpytorch.Module]:
    """Call ``make_model``; the global random generator is left as it was.

    Raises:
        ValueError: if it is no function of a batch shape, or does not return a model and a likelihood.
    """
    arguments.function("make_model", make_model, "batch_shape")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = make_model(batch_shape)
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(part, gpytorch.Module) for part in made):
        raise ValueError(
            f"make_model(batch_shape) must return a GPyTorch model and its likelihood; got {arguments.short(made)}"
        )
    return made


def _named(model: gpytorch.Module, likelihood: gpytorch.Module):
    """(name, parameter, constraint) for all parameters; those of a separate likelihood start with ``likelihood.``."""
    yield from model.named_parameters_and_constraints()
    if getattr(model, "likelihood", None) is not likelihood:
        for name, parameter, constraint in likelihood.named_parameters_and_constraints():
            yield f"likelihood.{name}", parameter, constraint


def _spellings(name: str) -> tuple[str, ...]:
    head, _, last = name.rpartition(".")
    value = f"{head}.{last.removeprefix('raw_')}".removeprefix(".")
    return tuple(dict.fromkeys([name, value, _public(name)]))


def _public(name: str) -> str:
    """``likelihood.noise_covar.raw_noise`` is what a reader calls ``likelihood.noise``."""
    head, _, last = name.rpartition(".")
    value = last.removeprefix("raw_")
    if value == "noise":
        head = head.removesuffix("noise_covar").removesuffix(".")
    return f"{head}.{value}".removeprefix(".")
