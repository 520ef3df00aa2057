"""Many stochastic variational GPs trained at once, each with its own start and its own order of minibatches.

Members of a batch are independent, but a batch rounds differently from a loop over single models, and training an SVGP
amplifies rounding: on the plateau that it leaves first, one ulp in an inducing point grows to another path. So the
batch agrees with the loop to rounding in the first steps, and later differs from it no more than the loop differs from
its own one-ulp twin. That control is :func:`one_ulp` with :func:`fit_alone`; no equality is claimed beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import gpytorch
import joblib
import torch
from torch import Tensor
from tqdm import tqdm

from gpbook_utils import arguments, private
from gpbook_utils.conditions import computing
from gpbook_utils.models import check_data
from gpbook_utils.training.batches import BatchLoss, Layout, MakeModel, build, parameters_of
from gpbook_utils.training.restarts import Restarts, run

INDUCING_POINTS = "variational_strategy.inducing_points"
_BLOCK = 512  # data in one evaluation of the loss over all data


@dataclass(frozen=True, eq=False, repr=False)
class Minibatches(Restarts):
    """Where each of R members ended, and how it went there.

    Attributes:
        losses: shape (R,), the negative ELBO of all data in nats per datum at the end; NaN for a member that failed.
        slopes: shape (R,), the largest component of its gradient in the raw parameters.
        trajectories: values by name at the steps ``recorded``, of shape (R, len(recorded), ...), and ``"loss"``, that
            of the minibatch to come; NaN where a member has failed.
        recorded: the number of steps taken when the trajectories were written.
        averaged: the same ends with the raw parameters averaged over the last steps, if that was asked for.
        jittered: stays empty; GPyTorch warns when it adds jitter, and does not say to which member.

    The other attributes are those of :class:`gpbook_utils.training.restarts.Restarts`.
    """

    recorded: Tensor | None = None
    averaged: Restarts | None = None


def fit_minibatches(
    make_model: MakeModel,
    x: Tensor,
    y: Tensor,
    starts: dict[str, Tensor],
    *,
    batch_size: int,
    orders: Sequence[int] | None,
    seeds: Sequence[int] | None = None,
    steps: int = 500,
    lr: float = 0.01,
    average: int = 0,
    record: int | None = None,
    workers: int = 1,
    members: int = 64,
    progress: bool | None = None,
) -> Minibatches:
    """Train R stochastic variational GPs with Adam, as batches of models.

    What could be chance is named apart: ``starts`` are numbers, ``seeds`` decide the random start of q(u), ``orders``
    the order of the minibatches. No global generator is read or moved. The same arguments give the same result, bit by
    bit, for any number of workers; ``members`` changes the rounding (see the module).

    Args:
        make_model: called with a ``batch_shape``, ``torch.Size([b])`` for a batch and ``torch.Size([])`` for a single
            model; returns an ``ApproximateGP`` and its likelihood. It must give the ``batch_shape`` to every kernel,
            mean, likelihood and variational distribution, and the inducing points as many dimensions. To hold inducing
            points, turn their ``requires_grad`` off: as a buffer they could not differ between members.
        x: training inputs of shape (n, d).
        y: training targets of shape (n,).
        starts: values by name, each of shape (R,) or (R, *shape), as for
            :func:`gpbook_utils.training.restarts.fit_restarts`;
            ``"variational_strategy.inducing_points"`` has shape (R, m, d).
        batch_size: data in a minibatch, from 1 to n. The last one of an epoch is smaller if n is no multiple.
        orders: a seed for each member. Its minibatches are those of ``DataLoader(data, batch_size, shuffle=True,
            generator=torch.Generator().manual_seed(order))``. ``None``: the order of the data, in every epoch.
        seeds: a seed for each member. Its q(u) starts where GPyTorch puts it after ``torch.manual_seed(seed)``, at the
            prior with a little noise in the mean. ``None``: at the prior, without noise.
        steps: the number of Adam steps, one minibatch each.
        lr: learning rate.
        average: over how many of the last steps the raw parameters are averaged for ``averaged``; 0 is none.
        record: write trajectories every so many steps; by default about twenty times.
        workers: single-threaded processes over which the batches are spread; 1 stays in this process.
        members: the members of a batch.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        A :class:`Minibatches`. A member that fails (not positive definite, or not finite) stops there; its reason is in
        ``failures``, and the others go on.

    Raises:
        ValueError: for a value out of range, data or starts that do not fit, a model that does not batch, or one with
            priors, which GPyTorch's ELBO would add up over the members.

    >>> from gpytorch.kernels import RBFKernel
    >>> from gpbook_utils.models import VariationalModel
    >>> x = torch.linspace(0, 1, 30).double().unsqueeze(-1)
    >>> def make_model(batch_shape):
    ...     model = VariationalModel(x[::10], RBFKernel(batch_shape=batch_shape))
    ...     return model, model.likelihood
    >>> z = torch.stack([x[:3], x[-3:]])
    >>> result = fit_minibatches(make_model, x, torch.sin(6 * x).squeeze(-1), {INDUCING_POINTS: z},
    ...                          batch_size=10, orders=[0, 0], steps=9)
    >>> result.losses.shape, result.failures
    (torch.Size([2]), {})
    """
    settings = _settings(x, y, batch_size, steps, lr)
    settings["average"] = arguments.whole("average", average, 0, steps)
    settings["record"] = arguments.optional(arguments.whole, "record", record) or max(1, steps // 20)
    workers, members = arguments.whole("workers", workers), arguments.whole("members", members)
    arguments.optional(arguments.flag, "progress", progress)
    layout, rows, orders = _begin(make_model, x, starts, orders, seeds)
    with tqdm(total=len(rows) * steps, unit="step", disable=None if progress is None else not progress) as bar:
        serial = workers == 1 or len(rows) <= members
        tick, dtype = {"tick": bar.update} if serial else {}, torch.get_default_dtype()
        tasks = [
            joblib.delayed(_train)(
                make_model, x, y, rows[part], [orders[i] for i in part], members, settings, dtype, **tick
            )
            for part in torch.arange(len(rows)).split(members)
        ]
        parts = []
        for part in run(tasks, workers):
            parts.append(part)
            bar.update(0 if serial else part.rows.shape[1] * steps)
    return _collect(parts, layout, _Started(make_model), steps)


def fit_alone(
    member: int,
    make_model: MakeModel,
    x: Tensor,
    y: Tensor,
    starts: dict[str, Tensor],
    *,
    batch_size: int,
    orders: Sequence[int] | None,
    seeds: Sequence[int] | None = None,
    steps: int = 500,
    lr: float = 0.01,
) -> tuple[gpytorch.Module, gpytorch.Module, Tensor]:
    """One member of a :func:`fit_minibatches` with these arguments, in the plain loop that a reader would write.

    Returns:
        The model, its likelihood, and the loss of each minibatch before its step, of shape (steps,).

    Raises:
        ValueError: as :func:`fit_minibatches`.
    """
    settings = _settings(x, y, batch_size, steps, lr)
    layout, rows, orders = _begin(make_model, x, starts, orders, seeds)
    arguments.whole("member", member, 0, len(rows) - 1)
    model, likelihood = build(_Started(make_model), torch.Size())
    layout.write(rows[member], parameters_of(model, likelihood))
    objective = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=len(y))
    optimiser = torch.optim.Adam(objective.parameters(), lr=settings["lr"])
    losses = []
    for _, batch in zip(range(steps), batches(len(y), batch_size, orders[member]), strict=False):
        optimiser.zero_grad()
        loss = -objective(model(x[batch]), y[batch])
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return model, likelihood, torch.stack(losses)


def one_ulp(starts: dict[str, Tensor], name: str = INDUCING_POINTS) -> dict[str, Tensor]:
    """The starts with every number of one parameter moved up by one ulp: the smallest other start there is.

    Raises:
        ValueError: if ``starts`` has no tensor or list of numbers under that name.

    >>> float(one_ulp({"z": torch.ones(1).double()}, "z")["z"]) == 1 + 2**-52
    True
    """
    if arguments.line("name", name) not in arguments.mapping("starts", starts):
        raise ValueError(f"starts must have the name {name!r}; it has {', '.join(starts) or 'none'}")
    value = torch.as_tensor(starts[name])
    return {**starts, name: torch.nextafter(value, torch.full_like(value, math.inf))}


def batches(n: int, batch_size: int, order: int | None) -> Iterator[Tensor]:
    """The row numbers of one minibatch after the other, without end, as ``DataLoader`` with this seed gives them.

    Each epoch is a new permutation of the n rows. ``None``: the order of the data.

    >>> [batch.tolist() for _, batch in zip(range(3), batches(5, 3, order=None))]
    [[0, 1, 2], [3, 4], [0, 1, 2]]
    """
    generator = None if order is None else torch.Generator().manual_seed(order)
    while True:
        if generator is None:
            rows = torch.arange(n)
        else:
            torch.empty((), dtype=torch.int64).random_(generator=generator)  # DataLoader's seed for its workers
            rows = torch.randperm(n, generator=generator)
            torch.randperm(n, generator=generator)  # drawn by RandomSampler too, and not used
        yield from rows.split(batch_size)


class VariationalLoss(BatchLoss):
    """The negative ELBO per datum of a batch of SVGPs, GPyTorch's ``VariationalELBO``, with its gradient by autograd.

    It is called with rows of parameters and with the minibatch of each member, of shapes (b, k, d) and (b, k).
    """

    def __init__(self, make_model: MakeModel, layout: Layout, members: int, num_data: int):
        super().__init__(_Started(make_model), layout, members)
        self.num_data = num_data

    def _objective(self, model, likelihood):
        objective = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=self.num_data)
        return lambda x, y: (-objective(model(x), y), {}, set())

    def of_all(self, rows: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient over all data, block by block: the mean over the data of the blocks' means."""
        loss, gradient = rows.new_zeros(len(rows)), torch.zeros_like(rows)
        for x_block, y_block in zip(x.split(_BLOCK), y.split(_BLOCK), strict=True):
            data = (part.expand(len(rows), *part.shape) for part in (x_block, y_block))
            of_block, slope, *_ = self(rows, *data)
            loss += of_block * (len(y_block) / len(y))
            gradient += slope * (len(y_block) / len(y))
        return loss, gradient


@dataclass(frozen=True)
class _Started:
    """``make_model`` with q(u) marked as started, so that GPyTorch's first call does not overwrite it at random."""

    make_model: MakeModel

    def __call__(self, batch_shape: torch.Size):
        made = self.make_model(batch_shape)
        if isinstance(made, tuple) and hasattr(made[0], "variational_strategy"):
            made[0].variational_strategy.variational_params_initialized.fill_(1)
        return made


@dataclass
class _Part:
    """What a batch of members did: raw parameters of shape (k, b, width) and losses of shape (k, b) at k steps."""

    rows: Tensor
    losses: Tensor
    recorded: list[int]
    failures: dict[int, tuple[str, int]]  # the reason and the step
    ends: list[tuple[Tensor, Tensor, Tensor]]  # of the last iterate, and of the average: rows, losses, slopes


def _settings(x, y, batch_size, steps, lr) -> dict:
    check_data(x, y)
    return {
        "batch_size": arguments.whole("batch_size", batch_size, 1, len(y)),
        "steps": arguments.whole("steps", steps),
        "lr": arguments.real("lr", lr, above=0),
    }


def _begin(make_model, x, starts, orders, seeds) -> tuple[Layout, Tensor, list]:
    """The layout of the models, the raw parameters of all members before the first step, and their orders."""
    model, likelihood = build(make_model, torch.Size())
    if (q := private.q_of(getattr(model, "variational_strategy", None))) is None:
        raise ValueError(
            f"make_model must return an ApproximateGP with a variational strategy; got {type(model).__name__}"
        )
    priors = [name for part in (model, likelihood) for name, *_ in part.named_priors()]
    if priors:
        raise ValueError(
            f"make_model must return a model without priors, which an ELBO of a batch adds up; got {priors[0]}"
        )
    layout = Layout(make_model)
    rows = layout.rows(starts)
    orders = [None] * len(rows) if orders is None else arguments.wholes("orders", orders, len(rows))
    seeds = [None] * len(rows) if seeds is None else arguments.wholes("seeds", seeds, len(rows))
    strategy, parameters = model.variational_strategy, parameters_of(model, likelihood)
    if x.dtype != layout.dtype or x.shape[-1] != strategy.inducing_points.shape[-1]:
        raise ValueError(
            f"x must have the format and columns of the inducing points, {layout.dtype} and "
            f"{strategy.inducing_points.shape[-1]}; got {x.dtype} and {x.shape[-1]}"
        )
    open_slots = [
        (slot, parameter)
        for slot, parameter in zip(layout.slots, parameters, strict=True)
        if any(parameter is other for other in q.parameters()) and not set(slot.spellings) & set(starts)
    ]
    noise = q.mean_init_std
    for row, seed in zip(rows, seeds, strict=True):
        layout.write(row, parameters)
        private.clear_cache(strategy)
        q.mean_init_std = 0.0 if seed is None else noise
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed or 0)
            q.initialize_variational_distribution(strategy.prior_distribution)
        for slot, parameter in open_slots:
            row[slot.columns] = parameter.detach().flatten()
    return layout, rows, orders


def _train(
    make_model,
    x,
    y,
    rows: Tensor,
    orders: list,
    members: int,
    settings: dict,
    dtype,
    tick: Callable = lambda count: None,
) -> _Part:
    """Train some members in one thread, here or in a worker; nothing global is different afterwards."""
    with computing(1, dtype):
        loss = VariationalLoss(make_model, Layout(make_model), members, len(y))
        return _steps(loss, x, y, rows, orders, tick, **settings)


def _steps(loss, x, y, rows: Tensor, orders: list, tick, *, batch_size, steps, lr, average, record) -> _Part:
    """Adam treats every number alike, so on the matrix of all members each has its own state."""
    here = rows.clone().requires_grad_()
    here.grad = torch.zeros_like(rows)
    stepper = torch.optim.Adam([here], lr=lr)
    streams = [batches(len(y), batch_size, order) for order in orders]
    recorded = sorted({*range(0, steps, record), steps})
    path = rows.new_full((len(recorded), *rows.shape), torch.nan)
    losses = rows.new_full((len(recorded), len(rows)), torch.nan)
    total = torch.zeros_like(rows)
    alive = torch.arange(len(rows))
    failures: dict[int, tuple[str, int]] = {}
    end = rows.clone()
    for step in range(steps + 1):
        now = here.detach()[alive]
        end[alive] = now
        if step > steps - average:
            total[alive] += now
        batch = torch.stack([next(stream) for stream in streams])[alive]
        value, here.grad[alive], problems, _ = loss(now, x[batch], y[batch])
        if step in recorded:
            path[recorded.index(step), alive], losses[recorded.index(step), alive] = now, value
        for place, reason in problems.items():
            failures[int(alive[place])] = f"{reason}, at step {step}", step
            here.grad[alive[place]] = 0
        if problems:
            alive = alive[[place not in problems for place in range(len(alive))]]
        if not len(alive):
            break
        if step < steps:
            stepper.step()
            tick(len(rows))
    ends = [_end(loss, final, alive, x, y) for final in ([end, total / average] if average else [end])]
    return _Part(path, losses, recorded, failures, ends)


def _end(loss: VariationalLoss, rows: Tensor, alive: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, and their loss and slope over all data; NaN for members that are no longer alive."""
    losses, slopes = rows.new_full((2, len(rows)), torch.nan)
    if len(alive):
        losses[alive], gradient = loss.of_all(rows[alive], x, y)
        slopes[alive] = torch.where(losses[alive].isnan(), torch.nan, gradient.abs().amax(1))
    return rows, losses, slopes


def _collect(parts: list[_Part], layout: Layout, make_model: MakeModel, steps: int) -> Minibatches:
    path = torch.cat([part.rows for part in parts], 1).transpose(0, 1)
    count, failures, last = 0, {}, torch.full((path.shape[0],), steps)
    for part in parts:
        for member, (reason, step) in part.failures.items():
            failures[count + member], last[count + member] = reason, step
        count += part.rows.shape[1]
    trajectories = {**layout.values(path), "loss": torch.cat([part.losses for part in parts], 1).T}
    found = []
    for ends in zip(*(part.ends for part in parts), strict=True):
        rows, losses, slopes = (torch.cat(pieces) for pieces in zip(*ends, strict=True))
        reasons = {
            member: failures.get(member, "the loss of all data is not finite, at the end")
            for member in losses.isnan().nonzero().flatten().tolist()
        }
        found.append(
            Restarts(
                parameters=layout.values(rows),
                losses=losses,
                slopes=slopes,
                steps=last,
                trajectories=trajectories,
                failures=reasons,
                jittered=[],
                _raw=rows,
                _make_model=make_model,
            )
        )
    end, averaged = found[0], found[1] if found[1:] else None
    return Minibatches(**vars(end), recorded=torch.tensor(parts[0].recorded), averaged=averaged)
