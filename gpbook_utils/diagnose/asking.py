"""How a model is asked, and what its answer is: what its user sees, through transforms, and taken out of a tuple."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gpytorch
import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor, nn

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.diagnose import private


class Answer(NamedTuple):
    """What a model said of x.

    Attributes:
        mean: of shape (..., m), tasks beside each other.
        covariance: of shape (..., m, m); diagonal where the answer knows variances only; none for a bare tensor.
        gaussian: the normal distribution that was found in it, or none.
        said: what the mean and the covariance are if not those of a normal distribution, or empty.
    """

    mean: Tensor
    covariance: Tensor | None
    gaussian: MultivariateNormal | None
    said: str = ""


def speaks_posterior(model: Any) -> bool:
    """Whether users ask ``model.posterior(x, observation_noise=...)``, as BoTorch's do, and not ``model(x)``."""
    ask = getattr(model, "posterior", None)
    if not callable(ask):
        return False
    if any(base.__module__.startswith("botorch.") for base in type(model).__mro__):
        return True
    try:
        return "observation_noise" in inspect.signature(ask).parameters
    except (TypeError, ValueError):
        return False


def by_posterior(model: Any, inputs: tuple[Tensor, ...]) -> bool:
    """Whether this call goes through ``posterior``."""
    return len(inputs) == 1 and speaks_posterior(model)


def call_of(name: str, model: Any, inputs: tuple[Tensor, ...]) -> str:
    """The call as its user writes it."""
    return f"{name}.posterior(x)" if by_posterior(model, inputs) else f"{name}(x)"


def ask(model: Any, inputs: tuple[Tensor, ...]) -> Any:
    """The user's call."""
    return model.posterior(*inputs) if by_posterior(model, inputs) else model(*inputs)


def prepared(model: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """X as the model's ``forward`` takes it in evaluation mode: through its input transform."""
    if by_posterior(model, inputs) and hasattr(model, "transform_inputs"):
        return (model.transform_inputs(inputs[0]),)
    return inputs


def core(model: Any) -> Any:
    """The GPyTorch model, which some models hold in an attribute ``model``."""
    inner = getattr(model, "model", None)
    return inner if not isinstance(model, gpytorch.models.GP) and isinstance(inner, gpytorch.models.GP) else model


def strategy_of(model: Any) -> Any:
    """The variational strategy, or none."""
    return getattr(core(model), "variational_strategy", None)


def is_sampled(model: Any) -> bool:
    """Whether its parameters are samples of a Markov chain, which ``train()`` would discard."""
    return hasattr(model, "pyro_model")


def revert_inputs(*roots: Any) -> None:
    """Put the untransformed training inputs of a private copy back; ``eval()`` transforms them again."""
    for root in roots:
        if root is None or raw_inputs(root) is getattr(root, "train_inputs", None):
            continue
        root.__dict__["train_inputs"] = raw_inputs(root)
        root.__dict__[private.TRANSFORMED] = False


def raw_inputs(model: Any) -> tuple[Tensor, ...] | None:
    """The training inputs as the user gave them; those that are there, where rows were appended to transformed ones."""
    inputs = getattr(model, "train_inputs", None)
    original = getattr(model, private.ORIGINAL, None)
    if not inputs or original is None or not getattr(model, private.TRANSFORMED, False):
        return inputs
    return (original,) if original.shape[-2] == inputs[0].shape[-2] else inputs


def observed(likelihood: Any, latent: MultivariateNormal, inputs: tuple[Tensor, ...]) -> Any:
    """The distribution of y; a likelihood whose noise depends on x is given x too."""
    try:
        return likelihood(latent)
    except Exception:
        return likelihood(latent, *inputs)


def answer_of(result: Any) -> Answer:
    """Mean and covariance of what a call returned.

    Raises:
        TypeError: if it holds nothing that has a mean.
    """
    said = ""
    if isinstance(result, tuple | list | Mapping):
        for where, item in _items(result):
            try:
                found = answer_of(item)
            except TypeError:
                continue
            said = f"entry {where} of the {type(result).__name__} that it returns"
            return Answer(found.mean, found.covariance, found.gaussian, said)
    gaussian = result if isinstance(result, MultivariateNormal) else getattr(result, "distribution", None)
    if isinstance(gaussian, MultivariateNormal):
        if isinstance(gaussian, MultitaskMultivariateNormal):
            return Answer(gaussian.mean.flatten(-2), _by_points(gaussian), gaussian, said)
        return Answer(gaussian.mean, gaussian.covariance_matrix, gaussian, said)
    if isinstance(result, Tensor):
        return Answer(result, None, None, "the tensor that it returns")
    if isinstance(getattr(result, "probs", None), Tensor):
        return Answer(result.probs, None, None, "probabilities")
    if isinstance(getattr(result, "mean", None), Tensor):
        return _spread(result)
    raise TypeError(f"it returned {type(result).__name__}, which has no mean")


def _by_points(gaussian: MultitaskMultivariateNormal) -> Tensor:
    """The covariance with the tasks of a point beside each other, as they are in the flattened mean."""
    covariance = gaussian.covariance_matrix
    if private.interleaved(gaussian, True):
        return covariance
    m, tasks = gaussian.mean.shape[-2:]
    order = torch.arange(m * tasks, device=covariance.device).reshape(tasks, m).T.flatten()
    return covariance[..., order, :][..., order]


def _items(result: Any) -> Iterator[tuple[str, Any]]:
    pairs = result.items() if isinstance(result, Mapping) else enumerate(result)
    # A distribution before a tensor, which may be anything.
    return iter(sorted(((repr(k), v) for k, v in pairs), key=lambda pair: isinstance(pair[1], Tensor)))


def _spread(result: Any) -> Answer:
    """Mean and variance of a distribution that is not normal, such as a log-normal posterior."""
    mean = result.mean
    flat = mean.flatten(-2) if not isinstance(result, torch.distributions.Distribution) and mean.dim() > 1 else mean
    try:
        variance = result.variance.reshape(flat.shape)
    except Exception:
        return Answer(flat, None, None, "a mean alone")
    return Answer(flat, torch.diag_embed(variance), None, f"variances alone, of a {type(result).__name__}")


def inner_gps(module: nn.Module) -> list[str]:
    """Where a module that is no Gaussian process holds some: dotted paths, outermost first."""
    found: list[str] = []
    for path, child in module.named_modules():
        if isinstance(child, gpytorch.models.GP) and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return found


def far_out(x: Tensor) -> Tensor:
    """How far each row of x lies from the median row, in standard deviations of its column; over batches the most."""
    flat = x.detach().double().reshape(-1, *x.shape[-2:])
    median = flat.median(dim=-2, keepdim=True).values
    spread = flat.std(dim=-2, keepdim=True, correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    return ((flat - median) / spread).abs().amax(dim=-1).amax(dim=0)


LARGE = 500  # numbers that an exact GP is conditioned on, above which a diagnosis makes fewer readings


def data_of(model: Any) -> dict[str, Tensor]:
    """The training data of a model, by name; nothing without."""
    inputs, targets = getattr(model, "train_inputs", None) or (), getattr(model, "train_targets", None)
    found = {f"train_inputs[{index}]" if index else "train_inputs": part for index, part in enumerate(inputs)}
    return found if targets is None else found | {"train_targets": targets}


def number_of_data(model: nn.Module) -> int:
    """How many numbers an exact GP is conditioned on, tasks included; zero without training data."""
    targets = data_of(model).get("train_targets")
    if targets is None:
        return 0
    return max(targets.shape[-1], targets.shape[-2] * targets.shape[-1] if targets.dim() > 1 else 0)


def dtype_of(model: nn.Module, default: torch.dtype | None = None) -> torch.dtype:
    """The coarsest floating-point format of a model's parameters and training data."""
    tensors = [*model.parameters(), *(getattr(model, "train_inputs", None) or ())]
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max(dtypes, key=unit_roundoff) if dtypes else (default or torch.get_default_dtype())
