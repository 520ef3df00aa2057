"""Many starts of one model, trained at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gpytorch
import joblib
import numpy as np
import torch
from greenlet import getcurrent, greenlet
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from gpbook_utils import arguments
from gpbook_utils.conditions import computing
from gpbook_utils.training.batches import ExactLoss, Layout, MakeModel, build, parameters_of

STEPWISE = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True, eq=False, repr=False)
class Restarts:
    """Where each of R starts ended, and how it went there.

    Values are what the model computes with, a lengthscale for example, not GPyTorch's raw parameter. Names are as one
    reads them from the model: ``"covar_module.lengthscale"``, ``"likelihood.noise"``. A parameter that is a single
    number has shape (R,), others (R, *shape).

    Attributes:
        parameters: the values at the end of each start, by name.
        losses: shape (R,), the negative log marginal likelihood in nats per datum at the end; NaN for a start that
            failed.
        slopes: shape (R,), the largest component of the loss's gradient in the raw parameters at the end. It is small
            at an optimum.
        steps: shape (R,), the number of steps taken.
        trajectories: values by name, and ``"loss"``, before the first step and after each, of shape
            (R, most steps + 1, ...); NaN where a start has stopped.
        failures: the reason, for each start that failed.
        jittered: the starts for which GPyTorch's jitter was added to the covariance on the way.
    """

    parameters: dict[str, Tensor]
    losses: Tensor
    slopes: Tensor
    steps: Tensor
    trajectories: dict[str, Tensor]
    failures: dict[int, str]
    jittered: list[int]
    _raw: Tensor
    _make_model: MakeModel

    @property
    def best(self) -> int:
        """The start with the lowest loss; the first of equals.

        Raises:
            ValueError: if all starts failed.
        """
        if len(self.failures) == len(self.losses):
            raise ValueError(f"all {len(self.losses)} starts failed; the first because {self.failures[0]}")
        return int(self.losses.nan_to_num(torch.inf).argmin())

    def model(self, start: int | slice | list[int]) -> tuple[gpytorch.Module, gpytorch.Module]:
        """A model and its likelihood with the parameters at the end of one start, in training mode.

        Of several starts, given as a slice or a list: one batch of models.

        Raises:
            ValueError: if there is no such start.
        """
        count = len(self._raw)
        if not isinstance(start, slice):
            for one in start if isinstance(start, list) else [start]:
                arguments.whole("start", one, -count, count - 1)
        raw = self._raw[start]
        if not raw.numel():
            raise ValueError(f"start must name at least one of {count}; got {start!r}")
        made = build(self._make_model, raw.shape[:-1])
        Layout(self._make_model).write(raw, parameters_of(*made))
        return made

    def __repr__(self) -> str:
        count = len(self.losses)
        text = f"{count} start{'s' * (count != 1)}, {len(self.failures)} failed"
        if len(self.failures) < count:
            text += f"; lowest loss {self.losses[self.best]:.6g} from start {self.best}"
        return text


def fit_restarts(
    make_model: MakeModel,
    starts: dict[str, Tensor],
    *,
    steps: int = 200,
    lr: float = 0.1,
    optimizer: str = "adam",
    tol: float = 1e-5,
    workers: int = 1,
    closed_form: bool = True,
    members: int | None = None,
    progress: bool | None = None,
) -> Restarts:
    """Train one exact GP from many starts, as batches of models.

    Each start goes where it would go alone, up to rounding: the starts share no parameter, no optimiser state and no
    failure. With ``"adam"`` and ``"sgd"`` all take the same number of steps; with ``"lbfgs"``, which is SciPy's
    L-BFGS-B without bounds, a start leaves the batch when it has converged, and it fails only if it has no loss where
    it begins: on the way it turns back from points without one. The same starts give the same result, bit
    by bit, for any number of workers.

    Args:
        make_model: called with a ``batch_shape``, ``torch.Size([b])`` for a batch and ``torch.Size([])`` for a single
            model; returns the model and its likelihood. It must pass the ``batch_shape`` to every kernel, mean and
            likelihood. The data are those of the model.
        starts: values by name, each of shape (R,) for a single number or (R, *shape). Names are those of
            ``model.initialize``: ``"covar_module.lengthscale"`` for a value, ``"covar_module.raw_lengthscale"`` for a
            raw parameter. A parameter that is not named starts where ``make_model`` puts it.
        steps: the number of steps, or the largest number of iterations of L-BFGS.
        lr: learning rate; L-BFGS has none.
        optimizer: ``"adam"``, ``"sgd"`` or ``"lbfgs"``.
        tol: L-BFGS stops when no component of the gradient in the raw parameters is larger, or when the loss changes by
            less than the square of it.
        workers: single-threaded processes over which the batches are spread; 1 stays in this process.
        closed_form: see :class:`gpbook_utils.training.batches.ExactLoss`.
        members: starts in a batch; by default as many as keep the covariance matrices in a processor's cache.
        progress: show a progress bar; by default only on a terminal.

    Raises:
        ValueError: for a value out of range, starts that do not fit the model, or a model that does not batch.

    >>> from gpbook_utils.models import ExactModel
    >>> x = torch.linspace(0, 1, 9).double().unsqueeze(-1)
    >>> def make_model(batch_shape):
    ...     kernel = gpytorch.kernels.RBFKernel(batch_shape=batch_shape)
    ...     model = ExactModel(x, torch.sin(6 * x).squeeze(-1), kernel)
    ...     return model, model.likelihood
    >>> result = fit_restarts(make_model, {"covar_module.lengthscale": torch.tensor([0.1, 1.0])}, optimizer="lbfgs")
    >>> result.losses.shape, result.failures
    (torch.Size([2]), {})
    """
    lr, tol = arguments.real("lr", lr, above=0), arguments.real("tol", tol, above=0)
    steps, workers = arguments.whole("steps", steps), arguments.whole("workers", workers)
    arguments.one_of("optimizer", optimizer, [*STEPWISE, "lbfgs"])
    arguments.flag("closed_form", closed_form)
    arguments.optional(arguments.flag, "progress", progress)
    arguments.optional(arguments.whole, "members", members)
    model, _ = build(make_model, torch.Size())
    if not isinstance(model, gpytorch.models.ExactGP):
        raise ValueError(f"make_model must return an ExactGP; got {type(model).__name__}")
    layout = Layout(make_model)
    rows = layout.rows(starts)
    members = members or batch_size(model.train_targets.shape[-1])
    settings = {"steps": steps, "lr": lr, "optimizer": optimizer, "tol": tol}
    share = members if optimizer in STEPWISE else 2 * members  # L-BFGS refills places that have become free
    tasks = [
        joblib.delayed(_train)(make_model, part, members, closed_form, settings, torch.get_default_dtype())
        for part in rows.split(share)
    ]
    paths = []
    with tqdm(total=len(rows), unit="start", disable=None if progress is None else not progress) as bar:
        for part in run(tasks, workers):
            paths += part
            bar.update(len(part))
    return _collect(paths, layout, make_model)


def batch_size(n: int) -> int:
    """How many n × n matrices of float64 are best together: 2.6 MB, which a processor's caches hold, and at most 64.

    >>> [batch_size(n) for n in (10, 50, 100, 200, 400)]
    [64, 64, 32, 8, 2]
    """
    return max(1, min(64, 320_000 // n**2))


@dataclass
class _Path:
    """What one start did: raw parameters of shape (steps + 1, width), and losses of shape (steps + 1,)."""

    rows: Tensor
    losses: Tensor
    slope: float
    failure: str | None
    jittered: bool


def _train(make_model, rows: Tensor, members: int, closed_form: bool, settings: dict, dtype) -> list[_Path]:
    """Train some starts in one thread, here or in a worker; nothing global is different afterwards."""
    with computing(1, dtype), threadpool_limits(1, "blas"):  # SciPy's BLAS has threads of its own
        loss = ExactLoss(make_model, Layout(make_model), members, closed_form)
        if settings["optimizer"] in STEPWISE:
            return _stepwise(loss, rows, STEPWISE[settings["optimizer"]], settings["lr"], settings["steps"])
        return _lbfgs(loss, rows, members, settings["tol"], settings["steps"])


def _stepwise(loss, rows: Tensor, optimizer, lr: float, steps: int) -> list[_Path]:
    """An optimiser that treats every number alike, on the matrix of all starts: each start has its own state."""
    here = rows.clone().requires_grad_()
    here.grad = torch.zeros_like(rows)
    stepper = optimizer([here], lr=lr)
    trajectory = rows.new_empty(steps + 1, *rows.shape)
    losses = rows.new_full((steps + 1, len(rows)), torch.nan)
    alive = torch.arange(len(rows))
    last = [steps] * len(rows)
    failures: dict[int, str] = {}
    jittered: set[int] = set()
    for step in range(steps + 1):
        trajectory[step] = here.detach()
        losses[step, alive], here.grad[alive], problems, helped = loss(trajectory[step, alive])
        jittered |= {int(alive[place]) for place in helped}
        for place, reason in problems.items():
            start = int(alive[place])
            failures[start], last[start] = f"{reason}, at step {step}", step
            here.grad[start] = 0
        alive = alive[[place not in problems for place in range(len(alive))]] if problems else alive
        if not len(alive):
            break
        if step < steps:
            stepper.step()
    slopes = here.grad.abs().amax(1)
    return [
        _Path(
            trajectory[: last[start] + 1, start].clone(),
            losses[: last[start] + 1, start].clone(),
            torch.nan if start in failures else slopes[start].item(),
            failures.get(start),
            start in jittered,
        )
        for start in range(len(rows))
    ]


def _lbfgs(loss, rows: Tensor, members: int, tol: float, steps: int) -> list[_Path]:
    """SciPy's L-BFGS-B for each start, many of them asking for their losses together.

    Each minimisation runs in a greenlet, which pauses where SciPy wants to know the loss. When all are waiting, one
    batch answers them. Whenever a minimisation ends, the next start takes its place.
    """
    paths: dict[int, _Path] = {}
    waiting: dict[int, tuple[greenlet, np.ndarray]] = {}
    queue = iter(range(len(rows)))
    while len(paths) < len(rows):
        while len(waiting) < members and (start := next(queue, None)) is not None:
            runner = greenlet(_minimise)
            waiting[start] = runner, runner.switch(getcurrent(), rows[start], tol, steps)
        points = torch.from_numpy(np.stack([x for _, x in waiting.values()])).to(rows.dtype)
        losses, gradients, problems, jittered = loss(points)
        losses, gradients = losses.double().tolist(), gradients.double().numpy()
        for place, (start, (runner, _)) in enumerate(list(waiting.items())):
            heard = runner.switch(losses[place], gradients[place], problems.get(place), place in jittered)
            if runner.dead:
                paths[start] = heard
                del waiting[start]
            else:
                waiting[start] = runner, heard
    return [paths[start] for start in range(len(rows))]


def _minimise(hub: greenlet, row: Tensor, tol: float, steps: int) -> _Path:
    """L-BFGS-B from one start; where it wants to know the loss, it asks ``hub``.

    It turns back from points without a loss as from a wall. Beside one, SciPy can end too early: after twenty losses on
    one line it gives up, and what it found there with it, and a line that only grazes the wall looks like convergence.
    So where it ends on a line that met a wall, it starts again from the lowest point seen, without the memory of
    earlier steps, until that gains no more than what counts as convergence.
    """
    x = row.double().numpy()
    loss, gradient, problem, jittered = hub.switch(x)
    if problem is not None:
        return _Path(row.unsqueeze(0), row.new_tensor([loss]), np.nan, f"{problem}, at step 0", jittered)
    path = [(loss, x, gradient)]
    lowest = path[0]  # of the last of the path and what was seen since
    wall = 0  # the length of the path when a wall was met last

    def arrive(intermediate_result):
        nonlocal lowest
        lowest = float(intermediate_result.fun), intermediate_result.x.copy(), gradient
        path.append(lowest)

    def ask(x):
        nonlocal gradient, jittered, lowest, wall
        loss, here, slope = path[-1]
        if np.array_equal(x, here):
            gradient = slope
            return loss, slope
        value, gradient, problem, helped = hub.switch(x)
        jittered |= helped
        if problem is not None:
            wall = len(path)
            # As high as the line would have fallen: SciPy's line search turns back to a ninth of the step. From a much
            # higher wall it turns back to a step that is lost in rounding. One no higher than the loss here, as
            # rounding would leave it, SciPy would take for a step down.
            return max(loss + abs(slope @ (x - here)), np.nextafter(loss, np.inf)), np.zeros_like(x)
        if value < lowest[0]:
            lowest = value, x.copy(), gradient
        return value, gradient

    change = tol**2  # close to an optimum the loss is above it by the gradient squared, in units of the curvature
    before = np.inf
    while wall >= len(path) - 1 and before - path[-1][0] > change * max(1, abs(path[-1][0])) and len(path) <= steps:
        before = path[-1][0]
        options = {"gtol": tol, "ftol": change, "maxiter": steps + 1 - len(path)}
        minimize(ask, path[-1][1], jac=True, method="L-BFGS-B", callback=arrive, options=options)
        if wall == len(path) and lowest is not path[-1]:
            path.append(lowest)
    losses, points, gradients = zip(*path, strict=True)
    rows = torch.from_numpy(np.stack(points)).to(row.dtype)
    return _Path(rows, rows.new_tensor(losses), float(np.abs(gradients[-1]).max()), None, jittered)


def run(tasks: list, workers: int) -> Iterator:
    """The results of joblib's delayed tasks, in their order, from so many single-threaded processes."""
    if workers == 1 or len(tasks) == 1:
        for function, arguments, options in tasks:
            yield function(*arguments, **options)
    else:
        with joblib.parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
            yield from joblib.Parallel(return_as="generator")(tasks)


def _collect(paths: list[_Path], layout: Layout, make_model: MakeModel) -> Restarts:
    raw = pad_sequence([path.rows for path in paths], batch_first=True, padding_value=torch.nan)
    losses = pad_sequence([path.losses for path in paths], batch_first=True, padding_value=torch.nan)
    ends = torch.stack([path.rows[-1] for path in paths])
    failures = {start: path.failure for start, path in enumerate(paths) if path.failure}
    final = torch.stack([path.losses[-1] for path in paths])
    final[list(failures)] = torch.nan
    return Restarts(
        parameters=layout.values(ends),
        losses=final,
        slopes=torch.tensor([path.slope for path in paths], dtype=layout.dtype),
        steps=torch.tensor([len(path.losses) - 1 for path in paths]),
        trajectories={**layout.values(raw), "loss": losses},
        failures=failures,
        jittered=[start for start, path in enumerate(paths) if path.jittered],
        _raw=ends,
        _make_model=make_model,
    )
