"""Fitting the hyperparameters of exact GPs on the full batch."""

from __future__ import annotations

import gpytorch
import torch
from torch import Tensor

from gpbook_utils import arguments
from gpbook_utils.models import marginal_likelihood


def fit(model: gpytorch.models.ExactGP, *, steps: int = 100, lr: float = 0.1) -> Tensor:
    """Train an exact GP with Adam on the full batch.

    Args:
        model: an exact GP; its parameters are changed in place, and it is left in training mode.
        steps: number of Adam steps, at least 1.
        lr: learning rate, positive.

    Returns:
        The loss before each step, of shape (steps,): the negative log marginal likelihood in nats per datum.

    Raises:
        ValueError: for ``steps`` or ``lr`` out of range, or a loss that is not a finite scalar.

    >>> from gpbook_utils.models import ExactModel
    >>> x = torch.linspace(0, 1, 9).double().unsqueeze(-1)
    >>> losses = fit(ExactModel(x, torch.sin(6 * x).squeeze(-1)), steps=20)
    >>> bool(losses[-1] < losses[0])
    True
    """
    return fit_in_turns(model, steps=steps, lr=lr)[:, 0]


def fit_in_turns(*models: gpytorch.models.ExactGP, steps: int = 100, lr: float = 0.1) -> Tensor:
    """Train several exact GPs, each with its own Adam over its own parameters, one step each in turn.

    Models that share no parameter end exactly where :func:`fit` would take each of them alone. Models that do share one
    move it with every optimiser that holds it.

    Returns:
        The losses, of shape (steps, number of models), as in :func:`fit`.

    Raises:
        ValueError: as :func:`fit`, and if no model is given.
    """
    if not models:
        raise ValueError("models is empty: fit_in_turns needs at least one model")
    for turn, model in enumerate(models):
        if not isinstance(model, gpytorch.models.ExactGP) or model.train_inputs is None:
            raise ValueError(f"model {turn} must be an exact GP with training data; got {type(model).__name__}")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(f"model {turn} has no parameter to train: requires_grad is off for all of them")
    steps, lr = arguments.whole("steps", steps), arguments.real("lr", lr, above=0)
    optimisers = [torch.optim.Adam(model.parameters(), lr=lr) for model in models]
    losses = torch.empty(steps, len(models), dtype=torch.float64)
    for step in range(steps):
        for turn, (model, optimiser) in enumerate(zip(models, optimisers, strict=True)):
            optimiser.zero_grad()
            loss = -marginal_likelihood(model)
            if loss.dim() != 0 or not torch.isfinite(loss):
                got = f"shape {tuple(loss.shape)}: squeeze the targets to (n,)" if loss.dim() else loss.item()
                raise ValueError(f"the loss of model {turn} at step {step} must be one finite number; got {got}")
            loss.backward()
            optimiser.step()
            losses[step, turn] = loss.detach()
    return losses
