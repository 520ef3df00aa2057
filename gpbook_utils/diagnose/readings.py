"""What a model says about x: its quantities, read from a private copy, and how far two readings are apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gpytorch
import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor, nn

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.guard import seed

PRIOR, MEAN, COVARIANCE = "prior covariance", "posterior mean", "posterior covariance"
PREDICTIVE = "predictive covariance"
LIKELIHOOD, ELBO, KL = "log marginal likelihood", "ELBO", "KL of q(u) from p(u)"
CALL_MEAN, CALL_COVARIANCE = "your call: mean", "your call: covariance"
CALLS = (CALL_MEAN, CALL_COVARIANCE)
POSTERIOR_OF = {CALL_MEAN: MEAN, CALL_COVARIANCE: COVARIANCE}
ONE_NUMBER = (LIKELIHOOD, ELBO, KL)
ALL = (PRIOR, MEAN, COVARIANCE, PREDICTIVE, *ONE_NUMBER, *CALLS)


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


@dataclass
class Reading:
    """The quantities of one model at x, each a detached float64 tensor on the CPU, and what went wrong."""

    values: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: list[warnings.WarningMessage] = field(default_factory=list)


def modules_of(root) -> Iterator[tuple[str, nn.Module]]:
    """All modules below ``root`` with their dotted paths, each once; also those that hide in plain attributes."""
    seen: set[int] = set()

    def visit(module: nn.Module, path: str):
        if id(module) in seen:
            return
        seen.add(id(module))
        yield path, module
        for name, child in private.modules(module).items():
            if child is not None:
                yield from visit(child, f"{path}.{name}" if path else name)
        for name, value in module.__dict__.items():
            if name in private.OF_EVERY_MODULE:  # no place where modules hide
                continue
            for suffix, hidden in _hidden(value):
                yield from visit(hidden, f"{path}.{name}{suffix}" if path else name + suffix)

    if root is not None:
        yield from visit(root, "")


def _hidden(value) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield "", value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, nn.Module):
                yield f"[{index}]", item
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, nn.Module):
                yield f"[{key!r}]", item


def caches_of(root) -> Iterator[tuple[str, Callable[[], None]]]:
    """The filled caches below ``root``: dotted path, and a function that empties this one."""
    return _caches(modules_of(root))


def _caches(modules) -> Iterator[tuple[str, Callable[[], None]]]:
    for path, module in modules:
        prefix = f"{path}." if path else ""
        for cache, empty in ((private.prediction_strategy.name, None), (private.memoized.name, {})):
            if module.__dict__.get(cache):
                yield prefix + cache, lambda m=module, cache=cache, empty=empty: m.__dict__.update({cache: empty})
        names = [name for name in module.__dict__ if name.startswith(private.CACHED)]
        if names:
            yield f"{prefix}{names[0]}", lambda m=module, names=names: [m.__dict__.pop(n, None) for n in names]


def drop_caches(*roots) -> None:
    """Empty all caches of a private copy, and leave all modes as they are."""
    for root in roots:
        if root is None:
            continue
        modules = list(modules_of(root))
        modes = [module.training for _, module in modules]
        for _, empty in list(_caches(modules)):
            empty()
        for _, module in modules:
            if isinstance(module, gpytorch.Module):
                private.clear_cache(module)()
        for (_, module), mode in zip(modules, modes, strict=True):
            module.training = mode


def read(subject: Subject, model, likelihood, *, call: bool = True, number: int = 0, only=None) -> Reading:
    """Read the quantities of a private copy, which this uses up.

    Args:
        subject: whose copy it is; gives x, y and the name.
        model: the private copy.
        likelihood: the copy of the likelihood that came with it, or none.
        call: whether to read first what ``model(x)`` gives with the mode and the caches that the copy has.
        number: the seed that every call starts from, so that two readings draw the same numbers.
        only: names of the quantities that are needed; by default all are read. For others no call is made.
    """
    reading = Reading()
    needed = set(ALL if only is None else only)
    needed |= {posterior for mine, posterior in POSTERIOR_OF.items() if call and mine in needed}
    inputs, targets = (_cast(value, model) for value in (subject.inputs, subject.targets))
    with warnings.catch_warnings(record=True) as caught, gpytorch.settings.debug(False):
        warnings.simplefilter("always")
        # In evaluation mode and without caches the user's call is the posterior, which comes anyhow.
        modules = list(modules_of(model))
        plain = next(_caches(modules), None) is None and not any(module.training for _, module in modules)
        if call and not plain:
            # A call in training mode may change buffers, such as running means, that the posterior then depends on.
            buffers = [(buffer, buffer.clone()) for root in (model, likelihood) if root for buffer in root.buffers()]
            _gaussian(reading, CALL_MEAN, CALL_COVARIANCE, lambda: model(*inputs), number)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
        drop_caches(model, likelihood)
        model.eval()
        if likelihood is not None:
            likelihood.eval()
        posterior = None
        if needed & {MEAN, COVARIANCE, PREDICTIVE}:
            posterior = _gaussian(reading, MEAN, COVARIANCE, lambda: model(*inputs), number)
        if call and plain:
            for mine, answer in POSTERIOR_OF.items():
                for kind in (reading.values, reading.failures):
                    if answer in kind:
                        kind[mine] = kind[answer]
        if PRIOR in needed:
            _gaussian(reading, None, PRIOR, lambda: model.forward(*inputs), number)
        if PREDICTIVE in needed and likelihood is not None and posterior is not None:
            _gaussian(
                reading, None, PREDICTIVE, lambda: observed(likelihood, posterior, inputs), number, essential=False
            )
        if needed & set(ONE_NUMBER):
            _objective(reading, model, likelihood, inputs, targets, number)
    reading.warnings = caught
    return reading


def _cast(value, model):
    """X or y in the format of a copy, which may have been given another one than the original has."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if value is None or parameter is None or len({p.dtype for p in model.parameters()}) > 1:
        return value
    if isinstance(value, tuple):
        return tuple(_cast(part, model) for part in value)
    return value.to(parameter.device, parameter.dtype if value.is_floating_point() else value.dtype)


def _gaussian(reading: Reading, mean, covariance, call, number, essential=True) -> MultivariateNormal | None:
    seed(number)
    try:
        result = call()
        if not isinstance(result, MultivariateNormal):
            return None
        if mean is not None:
            reading.values[mean] = _wide(_flat(result, result.mean))
        reading.values[covariance] = _wide(result.covariance_matrix)
        return result
    except Exception as error:
        if essential:
            for name in filter(None, (mean, covariance)):
                reading.values.pop(name, None)
                reading.failures[name] = f"{type(error).__name__}: {error}"
        return None


def observed(likelihood, latent: MultivariateNormal, inputs) -> MultivariateNormal:
    """The distribution of y; a likelihood whose noise depends on x is given x too."""
    try:
        return likelihood(latent)
    except Exception:
        return likelihood(latent, *inputs)


def _flat(result: MultivariateNormal, mean: Tensor) -> Tensor:
    return mean.flatten(-2) if isinstance(result, MultitaskMultivariateNormal) else mean


def _objective(reading: Reading, model, likelihood, inputs, targets, number) -> None:
    name, compute = None, None
    if isinstance(model, gpytorch.models.ExactGP):
        if model.train_inputs is None or model.train_targets is None or likelihood is None:
            return
        name = LIKELIHOOD

        def compute():
            model.train()
            objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
            output = model(*model.train_inputs)
            try:
                return objective(output, model.train_targets)
            except Exception:  # as observed() below
                return objective(output, model.train_targets, *model.train_inputs)

    elif hasattr(model, "variational_strategy"):
        name = KL if targets is None or likelihood is None else ELBO

        def compute():
            drop_caches(model)
            model.train()
            output = model(*inputs)
            if name == KL:
                return model.variational_strategy.kl_divergence()
            return gpytorch.mlls.VariationalELBO(likelihood, model, num_data=targets.shape[-1])(output, targets)

    if name is None:
        return
    seed(number)
    try:
        reading.values[name] = _wide(compute())
    except Exception as error:
        reading.failures[name] = f"{type(error).__name__}: {error}"


def _wide(tensor: Tensor) -> Tensor:
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


def far_out(x: Tensor) -> Tensor:
    """How far each row of x lies from the median row, in standard deviations of its column; over batches the most."""
    flat = x.detach().double().reshape(-1, *x.shape[-2:])
    median = flat.median(dim=-2, keepdim=True).values
    spread = flat.std(dim=-2, keepdim=True, correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    return ((flat - median) / spread).abs().amax(dim=-1).amax(dim=0)


def number_of_data(model: nn.Module) -> int:
    """How many numbers an exact GP is conditioned on, tasks included; zero without training data."""
    targets = getattr(model, "train_targets", None)
    if targets is None:
        return 0
    return max(targets.shape[-1], targets.shape[-2] * targets.shape[-1] if targets.dim() > 1 else 0)


def names(*readings: Reading) -> list[str]:
    """All quantities that one of the readings has, or failed to have, in a fixed order."""
    return [name for name in ALL if any(name in r.values or name in r.failures for r in readings)]


def dtype_of(model: nn.Module, default: torch.dtype | None = None) -> torch.dtype:
    """The coarsest floating-point format of a model's parameters and training data."""
    tensors = [*model.parameters(), *(getattr(model, "train_inputs", None) or ())]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max(dtypes, key=unit_roundoff) if dtypes else (default or torch.get_default_dtype())


@dataclass(frozen=True)
class Rounding:
    r"""What rounding does to a model's quantities.

    Attributes:
        dtype: the coarsest format that is computed in.
        condition_number: of the matrix that is solved with: the training covariance with noise, or that of the
            inducing points with jitter; 1 if there is none, infinity if it is not positive definite.
        levels: for each quantity the relative difference that rounding explains: the smaller of
            :math:`2 n u \kappa` times the cancellation (see :mod:`gpbook_utils.compare`), and thirty times what is
            measured when every parameter and training value is moved by one unit in its last place.
        bounded: whether ``condition_number`` is an upper bound, as of matrices with more than 1,200 rows.
    """

    dtype: torch.dtype
    condition_number: float
    levels: dict[str, float]
    bounded: bool = False


DRAWS, MARGIN = 2, 30
MAX_EIGEN = 1200  # rows of a matrix whose eigenvalues are computed


def rounding_of(subject: Subject, base: Reading) -> Rounding:
    """Measure what rounding does to a model; ``base`` is its reading."""
    dtype = dtype_of(subject.model)
    u = unit_roundoff(dtype)
    kappa, size = _condition(subject)
    moved: dict[str, float] = {}
    for draw in range(DRAWS):
        replica = subject.replica()
        model, likelihood = replica.roots
        drop_caches(model, likelihood)
        _nudge(model, likelihood, draw)
        reading = read(subject, model, likelihood, call=False)
        for name in names(reading):
            step = distance(name, base, reading)
            if math.isfinite(step):
                moved[name] = max(moved.get(name, 0.0), step)
    levels = {}
    for name in names(base):
        if name in CALLS:
            continue
        value = base.values.get(name)
        rows = 1 if value is None else max(value.shape[-1] if value.dim() else 1, size)
        floor = 2 * rows * u
        theory = floor * (1.0 if name == PRIOR else kappa * _cancellation(base, name))
        levels[name] = max(floor, min(theory, MARGIN * moved.get(name, 0.0)))
    for call, posterior in POSTERIOR_OF.items():
        levels[call] = levels.get(posterior, 0.0)
    return Rounding(dtype, kappa, levels, size > MAX_EIGEN)


def _cancellation(base: Reading, name: str) -> float:
    """A posterior covariance is prior minus reduction: what is left may be much smaller than the terms."""
    prior, value = base.values.get(PRIOR), base.values.get(name)
    if prior is None or value is None or name in ONE_NUMBER or name in (MEAN, CALL_MEAN):
        return 1.0
    norm = float(value.norm())
    return max(1.0, float(prior.norm()) / norm) if norm else math.inf


def _nudge(model, likelihood, draw: int) -> None:
    generator = torch.Generator().manual_seed(draw)
    tensors = {id(p): p.data for root in (model, likelihood) if root is not None for p in root.parameters()}
    for tensor in (*(getattr(model, "train_inputs", None) or ()), getattr(model, "train_targets", None)):
        if tensor is not None:
            tensors[id(tensor)] = tensor
    for tensor in tensors.values():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        signs = 2.0 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
        moved = tensor.detach() * (1 + signs.to(tensor) * torch.finfo(tensor.dtype).eps)
        try:
            tensor.detach().copy_(moved)
        except RuntimeError:
            continue  # an expanded tensor: its entries are one number


def _condition(subject: Subject) -> tuple[float, int]:
    """Condition number and size of the matrix that the model solves with."""
    model, likelihood = subject.replica().roots
    drop_caches(model, likelihood)
    try:
        with torch.no_grad(), gpytorch.settings.debug(False):
            if isinstance(model, gpytorch.models.ExactGP) and model.train_inputs is not None:
                model.train()
                prior = model(*model.train_inputs)
                prior = prior if likelihood is None else observed(likelihood, prior, model.train_inputs)
                K = prior.covariance_matrix
            elif hasattr(model, "variational_strategy"):
                strategy = model.variational_strategy
                while not hasattr(strategy, "inducing_points"):
                    strategy = strategy.base_variational_strategy
                K = model.eval().forward(strategy.inducing_points).covariance_matrix
                K = K + getattr(strategy, "jitter_val", 0.0) * torch.eye(K.shape[-1]).to(K)
            else:
                return 1.0, 1
            K = _wide(K).reshape(-1, *K.shape[-2:])[:8]  # of a batch, the first eight
            n = K.shape[-1]
            if n <= MAX_EIGEN:
                values = torch.linalg.eigvalsh((K + K.mT) / 2)
                worst = (values[:, -1] / values[:, 0]).max() if (values[:, 0] > 0).all() else torch.tensor(math.inf)
                return float(worst), n
            least = K.diagonal(dim1=-2, dim2=-1).min() * unit_roundoff(dtype_of(subject.model))
            if likelihood is not None and hasattr(likelihood, "noise"):
                least = torch.maximum(least, likelihood.noise.min().cpu().double())
            return float(K.abs().sum(-1).max() / least), n
    except Exception:
        return math.inf, 1
