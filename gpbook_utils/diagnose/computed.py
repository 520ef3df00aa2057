"""What is known of the causes that lie in how something is computed."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """What a finding says of its cause: two sentences, and the number of the chapter that measures it."""

    explanation: str
    remedy: str
    chapter: int


COMPUTED = {
    "random-probes": Cause(
        "Above max_cholesky_size the likelihood is estimated with fresh random probes, so two calls on one model "
        "differ.",
        "Train and predict inside `with gpytorch.settings.max_cholesky_size(n):`. A line without `with` has no effect.",
        6,
    ),
    "cholesky-switch": Cause(
        "Above max_cholesky_size the solver is conjugate gradients, which stops early: repeatable, and wrong.",
        "Train and predict inside `with gpytorch.settings.max_cholesky_size(n):`. A line without `with` has no effect.",
        6,
    ),
    "love": Cause(
        "fast_pred_var replaces the solve by a low-rank cache.",
        "Leave it off, or float64 and a larger max_root_decomposition_size.",
        6,
    ),
    "setting": Cause(
        "A global setting is not at its default.",
        "Leave it, or set it in `with` around training and prediction of both.",
        6,
    ),
    "random-initialisation": Cause(
        "q(u) is drawn at the first call: its mean starts at random numbers.",
        "Seed before the first call, or mean_init_std=0.",
        5,
    ),
    "random-call": Cause(
        "Two calls on the same model give different numbers.",
        "Find what draws random numbers: dropout (also in the training objective of a model in evaluation mode), "
        "sampling, random features; seed before each call.",
        5,
    ),
    "grad-mode": Cause(
        "With gradients another code path is taken than under torch.no_grad().",
        "Evaluate both under torch.no_grad().",
        7,
    ),
    "batch-dependence": Cause(
        "What is said of one point depends on who else is in the call: distances are centred on the mean of the call, "
        "a layer normalises over it, or a grid is laid over its points.",
        "float64; predict far points apart from the others.",
        7,
    ),
    "outside-grid": Cause(
        "Rows of x lie outside the grid of an interpolated kernel, where it has no values.",
        "Give grid_bounds that hold training and test inputs, when building the kernel.",
        2,
    ),
    "noise-reused": Cause(
        "The likelihood has fixed noise for as many points as x has rows, and adds it in the order of the training "
        "points without a word.",
        "Pass the noise of x: likelihood(model(x), noise=...).",
        2,
    ),
    "far-from-origin": Cause(
        "The inputs are so large against the lengthscale that a unit in their last place is seen in the covariance.",
        "Subtract the origin in float64, in the line that makes the tensors, before any cast; double() comes too late.",
        7,
    ),
    "jitter-added": Cause(
        "The Cholesky factorisation failed, and jitter was added until it did not: another model was solved.",
        "float64, more noise, or fewer near-duplicate points.",
        8,
    ),
    "variance-clamped": Cause(
        "Variances below the setting min_variance are raised to it; those of the covariance matrix are not.",
        "float64; read the diagonal of the covariance matrix.",
        8,
    ),
}
