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
from gpytorch.lazy import LazyEvaluatedKernelTensor
from linear_operator.operators import AddedDiagLinearOperator, LinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from gpbook_utils import arguments, private
from gpbook_utils.training.stationary import Covariances

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
    r"""-log N(r | 0, A) for a batch, with A = K + D and D diagonal, and its gradient in closed form.

    The gradient with respect to K is :math:`\tfrac12 (A^{-1} - \alpha\alpha^\top)` with :math:`\alpha = A^{-1} r`
    [Rasmussen and Williams 2006, equation 5.9], so nothing is differentiated through the Cholesky factorisation. Of the
    inverse LAPACK gives one triangle: there an entry counts twice, for its mirror image too, since K is symmetric.
    A member whose factor is NaN has a NaN loss and gradient, and touches no other.
    """

    @staticmethod
    def forward(ctx, covariance: Tensor, diagonal: Tensor, residual: Tensor):
        """The loss, and what :func:`factorise` tells of failures; ``covariance`` is overwritten."""
        covariance.diagonal(dim1=-2, dim2=-1).add_(diagonal)
        factor, problems, jittered = factorise(covariance)
        half_way = torch.linalg.solve_triangular(factor.mT, residual.unsqueeze(-1), upper=False)
        alpha = torch.linalg.solve_triangular(factor, half_way, upper=True).squeeze(-1)
        ctx.save_for_backward(factor, alpha)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        loss = ((residual * alpha).sum(-1) + log_det + residual.shape[-1] * math.log(2 * math.pi)) / 2
        return loss, problems, jittered

    @staticmethod
    def backward(ctx, upstream: Tensor, *_):
        """Gradients for K, the diagonal of D, and r."""
        factor, alpha = ctx.saved_tensors
        gradient = invert(factor).triu_()
        gradient.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        gradient.baddbmm_(alpha.unsqueeze(-1), alpha.unsqueeze(-2), alpha=-0.5).mul_(upstream[:, None, None])
        return gradient, gradient.diagonal(dim1=-2, dim2=-1), alpha * upstream.unsqueeze(-1)


class BatchLoss:
    """Losses and gradients of a batch of models, row by row; a subclass says which loss, in ``_objective``.

    That takes a model and its likelihood, and returns a function of ``data``, which returns a loss for each member, the
    reasons of those that failed, and the members that got jitter.

    Models are built for a few batch sizes only and kept; a batch between two sizes is filled up with copies.

    Args:
        make_model, layout: which models, and where their parameters are.
        members: the largest batch.
    """

    _objective: Callable[..., Callable[..., tuple[Tensor, dict[int, str], set[int]]]]

    def __init__(self, make_model: MakeModel, layout: Layout, members: int):
        self.make_model, self.layout, self.members = make_model, layout, members
        self.models: dict[int, tuple] = {}

    def __call__(self, rows: Tensor, *data: Tensor) -> tuple[Tensor, Tensor, dict[int, str], set[int]]:
        """Losses of shape (b,) and gradients of shape (b, width) at ``rows`` of shape (b, width).

        ``data``, each of shape (b, ...), go to the objective: what each member has of its own beside its parameters.
        Also returns, for each row whose loss is NaN, the reason, and the rows to whose covariance GPyTorch's jitter was
        added, as it is whenever a factorisation fails at first.
        """
        count = len(rows)
        step = max(1, self.members // 8)
        size = max(count, min(-(-count // step) * step, self.members))
        if size not in self.models:
            model, likelihood = build(self.make_model, torch.Size([size]))
            self.models[size] = self._objective(model.train(), likelihood.train()), parameters_of(model, likelihood)
        objective, parameters = self.models[size]
        padded, *filled = (_fill(part, size) for part in (rows, *data))
        self.layout.write(padded, parameters)
        try:
            with torch.enable_grad(), gpytorch.settings.debug(False):  # debug compares the inputs with themselves
                loss, problems, jittered = objective(*filled)
                if loss.shape != (size,):
                    raise ValueError(f"a batch of {size} models must have {size} losses; got shape {tuple(loss.shape)}")
                free = [parameter for parameter in parameters if parameter.requires_grad]
                found = iter(torch.autograd.grad(loss.sum(), free, materialize_grads=True))
        except tuple(REASONS) as error:  # GPyTorch's own objective, which does not say of which member
            return self._one_by_one(rows, *data) if count > 1 else self._failed(rows, error)
        parts = [next(found) if parameter.requires_grad else torch.zeros_like(parameter) for parameter in parameters]
        gradient = torch.cat([part.reshape(size, -1) for part in parts], 1)[:count]
        loss = loss.detach()[:count]
        problems = {row: reason for row, reason in problems.items() if row < count}
        for row in (~(loss + gradient.sum(-1)).isfinite()).nonzero().flatten().tolist():
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
        closed_form: the gradient of the Gaussian in closed form, and that of kernels too where
            :mod:`gpbook_utils.training.stationary` knows them; or else GPyTorch's own objective and automatic
            differentiation, which is slower, and with one member gives exactly the numbers of a plain loop. It is taken
            too for data that are not on the CPU.
    """

    def __init__(self, make_model: MakeModel, layout: Layout, members: int, closed_form: bool = True):
        super().__init__(make_model, layout, members)
        self.closed_form = closed_form
        self.covariances = Covariances()

    def _objective(self, model, likelihood):
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
        inputs, targets = model.train_inputs, model.train_targets
        if not self.closed_form or targets.device.type != "cpu":
            return lambda: (-objective(model(*inputs), targets), {}, set())

        def loss():
            observed = likelihood(model(*inputs))
            matrix, diagonal = split(observed.lazy_covariance_matrix)
            residual = targets - observed.mean
            loss, problems, jittered = GaussianLoss.apply(self._dense(matrix), diagonal.expand_as(residual), residual)
            if any(True for _ in model.named_priors()) or any(True for _ in model.added_loss_terms()):
                loss = -private.with_other_terms(objective, -loss)
            return loss / residual.shape[-1], problems, jittered

        return loss

    def _dense(self, matrix: LinearOperator) -> Tensor:
        """A covariance of shape (b, n, n) that no graph holds: by the faster way where there is one, or GPyTorch's."""
        if isinstance(matrix, LazyEvaluatedKernelTensor):
            plain = matrix.x1 is matrix.x2 and not matrix.last_dim_is_batch
            if plain and self.covariances.can(matrix.kernel, matrix.x1):
                return self.covariances(matrix.kernel, matrix.x1)
        return matrix.to_dense().clone(memory_format=torch.contiguous_format)


def _fill(part: Tensor, size: int) -> Tensor:
    """``part``, of shape (b, ...), with copies of its last member up to (size, ...)."""
    if len(part) == size:
        return part
    return torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])


def factorise(covariance: Tensor) -> tuple[Tensor, dict[int, str], set[int]]:
    """Upper Cholesky factors of a batch of shape (b, n, n), each member on its own and in its own place.

    A member that is not positive definite gets GPyTorch's jitter, as it would alone; if that does not help, or if it
    has NaN entries, its factor is NaN. Below the diagonal the covariances stay as they were: LAPACK works in its lower
    triangle, by columns, which is the upper one by rows.

    Returns:
        The factors, the reason for each member without one, and the members to which jitter was added.

    >>> factor, problems, jittered = factorise(torch.stack([torch.eye(2), -torch.eye(2)]))
    >>> factor[0].diagonal().tolist(), problems
    ([1.0, 1.0], {1: 'the covariance is not positive definite'})
    """
    potrf = get_lapack_funcs("potrf", dtype=covariance.numpy().dtype)
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    given = diagonal.clone()
    failed = [potrf(matrix.T, lower=True, clean=False, overwrite_a=True)[1] for matrix in covariance.numpy()]
    problems, jittered = {}, set()
    for member in (diagonal.sum(-1).isnan() | torch.tensor(failed).bool()).nonzero().flatten().tolist():
        lower = covariance[member].tril(-1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the jitter, which the caller learns of
                covariance[member] = psd_safe_cholesky(lower + lower.mT + given[member].diag()).mT
            jittered.add(member)
        except (NanError, NotPSDError) as error:
            problems[member] = REASONS[type(error)]
            covariance[member] = torch.nan
    return covariance, problems, jittered


def invert(factor: Tensor) -> Tensor:
    """The upper triangles of the inverses of matrices with these upper Cholesky factors, in their place."""
    potri = get_lapack_funcs("potri", dtype=factor.numpy().dtype)
    for matrix in factor.numpy():
        potri(matrix.T, lower=True, overwrite_c=True)
    return factor


def split(covariance: LinearOperator) -> tuple[LinearOperator, Tensor]:
    """A covariance as a matrix plus a diagonal, of shapes (b, n, n) and (b, n); without building a sum."""
    if isinstance(covariance, AddedDiagLinearOperator):
        matrix, diagonal = private.terms(covariance)
        return matrix, diagonal.diagonal(dim1=-2, dim2=-1)
    return covariance, torch.zeros(covariance.shape[:-1], dtype=covariance.dtype)


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
