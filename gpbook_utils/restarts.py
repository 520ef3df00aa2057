"""Many starts of one model, trained at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import gpytorch
import joblib
import numpy as np
import torch
from greenlet import getcurrent, greenlet
from scipy.optimize import minimize
from torch import Tensor
from tqdm import tqdm

from gpbook_utils.batches import ExactLoss, Layout, MakeModel, build

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
    _raw: Tensor = field(default=None)
    _make_model: MakeModel = field(default=None)

    @property
    def best(self) -> int:
        """The start with the lowest loss; the first of equals.

        Raises:
            ValueError: if all starts failed.
        """
        if len(self.failures) == len(self.losses):
            raise ValueError(f"all {len(self.losses)} starts failed; the first because {self.failures[0]}")
        return int(self.losses.nan_to_num(torch.inf).argmin())

    def model(self, start: int) -> tuple[gpytorch.Module, gpytorch.Module]:
        """A model and its likelihood with the parameters at the end of one start, in training mode."""
        made = build(self._make_model, torch.Size())
        Layout(self._make_model).write(self._raw[start], *made)
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
    failure. With ``"adam"`` and ``"sgd"`` all take the same number of steps; with ``"lbfgs"``, which is SciPy's L-BFGS-B
    without bounds, a start leaves the batch when it has converged. The same starts give the same result, bit by bit,
    for any number of workers.

    Args:
        make_model: called with a ``batch_shape``, ``torch.Size([b])`` for a batch and ``torch.Size([])`` for a single
            model; returns the model and its likelihood. It must pass the ``batch_shape`` to every kernel, mean and
            likelihood. The data are those of the model.
        starts: values by name, each of shape (R,) for a single number or (R, *shape). Names are those of
            ``model.initialize``: ``"covar_module.lengthscale"`` for a value, ``"covar_module.raw_lengthscale"`` for a raw
            parameter. A parameter that is not named starts where ``make_model`` puts it.
        steps: the number of steps, or the largest number of iterations of L-BFGS.
        lr: learning rate; L-BFGS has none.
        optimizer: ``"adam"``, ``"sgd"`` or ``"lbfgs"``.
        tol: L-BFGS stops when no component of the gradient in the raw parameters is larger, or when the loss changes by
            less than the square of it.
        workers: single-threaded processes over which the batches are spread; 1 stays in this process.
        closed_form: see :class:`gpbook_utils.batches.ExactLoss`.
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
    _check(steps, lr, optimizer, tol, workers, members)
    layout = Layout(make_model)
    rows = layout.rows(starts)
    model, _ = build(make_model, torch.Size())
    if not isinstance(model, gpytorch.models.ExactGP):
        raise ValueError(f"make_model must return an ExactGP; got {type(model).__name__}")
    members = members or batch_size(model.train_targets.shape[-1])
    settings = {"steps": steps, "lr": lr, "optimizer": optimizer, "tol": tol}
    share = members if optimizer in STEPWISE else 2 * members  # L-BFGS refills places that have become free
    tasks = [
        joblib.delayed(_train)(make_model, part, members, closed_form, settings, torch.get_default_dtype())
        for part in rows.split(share)
    ]
    paths = []
    with tqdm(total=len(rows), unit="start", disable=None if progress is None else not progress) as bar:
        for part in _run(tasks, workers):
            paths += part
            bar.update(len(part))
    return _collect(paths, layout, make_model)


def batch_size(n: int) -> int:
    """How many n × n matrices of float64 stay in a processor's cache together: about 1.3 MB, and at most 64 of them.

    >>> [batch_size(n) for n in (10, 50, 100, 200, 400)]
    [64, 64, 16, 4, 1]
    """
    return max(1, min(64, 160_000 // n**2))


@dataclass
class _Path:
    """What one start has done so far."""

    rows: list[Tensor]
    losses: list[float]
    slope: float = float("nan")
    failure: str | None = None
    jittered: bool = False


def _train(make_model, rows: Tensor, members: int, closed_form: bool, settings: dict, dtype) -> list[_Path]:
    """Train some starts in one thread; nothing global is different afterwards."""
    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    try:
        loss = ExactLoss(make_model, Layout(make_model), members, closed_form)
        if settings["optimizer"] in STEPWISE:
            return _stepwise(loss, rows, STEPWISE[settings["optimizer"]], settings["lr"], settings["steps"])
        return _lbfgs(loss, rows, members, settings["tol"], settings["steps"])
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])


def _stepwise(loss, rows: Tensor, optimizer, lr: float, steps: int) -> list[_Path]:
    """An optimiser that treats every number alike, on the matrix of all starts: each start has its own state."""
    rows = rows.clone().requires_grad_()
    stepper = optimizer([rows], lr=lr)
    rows.grad = torch.zeros_like(rows)
    paths = [_Path([], []) for _ in rows]
    for step in range(steps + 1):
        alive = [start for start, path in enumerate(paths) if path.failure is None]
        if not alive:
            break
        here = rows.detach().clone()
        losses, gradient, problems, jittered = loss(here if len(alive) == len(here) else here[alive])
        rows.grad[alive] = gradient
        for place, start in enumerate(alive):
            path = paths[start]
            path.rows.append(here[start])
            path.losses.append(losses[place])
            path.jittered |= place in jittered
            if place in problems:
                path.failure = f"{problems[place]}, at step {step}"
                rows.grad[start] = 0
            if step == steps:
                path.slope = gradient[place].abs().max()
        if step < steps:
            stepper.step()
    return paths


def _lbfgs(loss, rows: Tensor, members: int, tol: float, steps: int) -> list[_Path]:
    """SciPy's L-BFGS-B for each start, all of them asking for losses together.

    Each minimisation runs in a greenlet, which stops where SciPy wants the loss somewhere. When all wait, one batch
    answers them.
    """
    paths = [_Path([], []) for _ in rows]
    hub = getcurrent()

    def run(start: int):
        path = paths[start]
        trouble = None
        evaluations = 0

        def ask(x):
            nonlocal trouble, evaluations
            value, gradient, problem, jittered = hub.switch(x)
            path.jittered |= jittered
            evaluations += 1
            if problem is None:
                if not path.rows:
                    record(x, value)
                return value, gradient
            trouble = f"{problem}, at evaluation {evaluations}"
            if not path.rows:
                raise ArithmeticError
            return path.losses[-1] + 1e3 * (1 + abs(path.losses[-1])), np.zeros_like(x)  # the line search turns back

        def record(x, value):
            path.rows.append(torch.tensor(x, dtype=rows.dtype))
            path.losses.append(value)

        def after_iteration(intermediate_result):
            record(intermediate_result.x, intermediate_result.fun)

        try:
            options = {"gtol": tol, "ftol": tol**2, "maxiter": steps}
            end = minimize(
                ask,
                rows[start].double().numpy(),
                jac=True,
                method="L-BFGS-B",
                callback=after_iteration,
                options=options,
            )
            path.slope = np.abs(end.jac).max()
            if not end.success and end.status != 1:
                path.failure = trouble
        except ArithmeticError:
            path.failure = trouble
            record(rows[start].numpy(), float("nan"))

    waiting: dict[int, tuple[greenlet, np.ndarray]] = {}
    queue = iter(range(len(rows)))
    while True:
        while len(waiting) < members and (start := next(queue, None)) is not None:
            runner = greenlet(run)
            waiting[start] = runner, runner.switch(start)
        if not waiting:
            return paths
        points = torch.from_numpy(np.stack([x for _, x in waiting.values()])).to(rows.dtype)
        losses, gradient, problems, jittered = loss(points)
        losses, gradient = losses.double().tolist(), gradient.double().numpy()
        for place, (start, (runner, _)) in enumerate(list(waiting.items())):
            x = runner.switch((losses[place], gradient[place], problems.get(place), place in jittered))
            if runner.dead:
                del waiting[start]
            else:
                waiting[start] = runner, x


def _run(tasks: list, workers: int) -> Iterator[list[_Path]]:
    """The results of the tasks, in their order."""
    if workers == 1 or len(tasks) == 1:
        for function, arguments, options in tasks:
            yield function(*arguments, **options)
    else:
        with joblib.parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
            yield from joblib.Parallel(return_as="generator")(tasks)


def _collect(paths: list[_Path], layout: Layout, make_model: MakeModel) -> Restarts:
    longest = max(len(path.losses) for path in paths)
    raw = torch.full((len(paths), longest, layout.width), torch.nan, dtype=layout.dtype)
    losses = torch.full((len(paths), longest), torch.nan, dtype=layout.dtype)
    for start, path in enumerate(paths):
        raw[start, : len(path.rows)] = torch.stack(path.rows)
        losses[start, : len(path.losses)] = torch.as_tensor(path.losses)
    ends = torch.stack([path.rows[-1] for path in paths])
    return Restarts(
        parameters=layout.values(ends),
        losses=torch.tensor(
            [torch.nan if path.failure else float(path.losses[-1]) for path in paths], dtype=layout.dtype
        ),
        slopes=torch.tensor([float(path.slope) for path in paths], dtype=layout.dtype),
        steps=torch.tensor([len(path.losses) - 1 for path in paths]),
        trajectories={**layout.values(raw), "loss": losses},
        failures={start: path.failure for start, path in enumerate(paths) if path.failure},
        jittered=[start for start, path in enumerate(paths) if path.jittered],
        _raw=ends,
        _make_model=make_model,
    )


def _check(steps, lr, optimizer, tol, workers, members) -> None:
    known = [*STEPWISE, "lbfgs"]
    if optimizer not in known:
        raise ValueError(f"optimizer must be one of {', '.join(map(repr, known))}; got {optimizer!r}")
    for name, value in (("steps", steps), ("workers", workers), ("members", 1 if members is None else members)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}")
    for name, value in (("lr", lr), ("tol", tol)):
        if not value > 0:
            raise ValueError(f"{name} must be positive; got {value!r}")
