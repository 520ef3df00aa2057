"""Where inducing points stand: at random rows, at the centres of k-means, or where the greedy rule puts them.

Each function returns a new tensor of shape (m, d), in the format and on the device of ``x``: never a view of the data,
so that training the inducing points can't move the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from gpbook_utils import arguments

TIE = 1e-9  # conditional variances this close, relative to the prior's largest, count as equal


def random(x: Tensor, m: int, *, seed: int) -> Tensor:
    """``m`` rows of ``x``, of shape (n, d), drawn without replacement with NumPy's portable generator.

    Raises:
        ValueError: if ``x`` is not a finite matrix, ``m`` not between 1 and n, or ``seed`` no whole number.

    >>> random(torch.arange(4.0).unsqueeze(-1), 4, seed=0).sum()
    tensor(6.)
    """
    m, seed = _check(x, m), arguments.whole("seed", seed, 0)
    return x[np.random.default_rng(seed).choice(len(x), m, replace=False)].clone()


def k_means(x: Tensor, m: int, *, seed: int) -> Tensor:
    """The ``m`` centres of scikit-learn's k-means (one run from a k-means++ start): in general no rows of ``x``.

    Raises:
        ValueError: as :func:`random`, and if ``x`` has fewer than ``m`` distinct rows.

    >>> k_means(torch.tensor([[0.0], [2.0], [8.0]]), 2, seed=0).sort(dim=0).values
    tensor([[1.],
            [8.]])
    """
    m, seed = _check(x, m), arguments.whole("seed", seed, 0, 2**32 - 1)
    rows = x.detach().double().cpu().numpy()
    if (distinct := len(np.unique(rows, axis=0))) < m:
        raise ValueError(f"m must be at most the number of distinct rows of x; got {m} for {distinct} rows")
    centres = KMeans(n_clusters=m, n_init=1, random_state=seed).fit(rows).cluster_centers_
    return torch.as_tensor(centres).to(x)


def greedy(x: Tensor, m: int, kernel: Callable[[Tensor, Tensor], Tensor], *, seed: int | None = None) -> Tensor:
    r"""Rows of ``x``, each where the variance given those chosen before is largest: a pivoted Cholesky factorisation.

    With the first :math:`j` chosen, column :math:`j` of the factor is :math:`(k(X, z_j) - L_{:,<j} L_{z_j,<j}^\top) /
    v_j^{1/2}`, and the conditional variances :math:`v` lose its square. The rule needs the kernel, but no targets; it
    takes O(n m²) operations. Burt, Rasmussen and van der Wilk (2020) recommend it as a start.

    Args:
        x: candidates of shape (n, d).
        m: how many to choose.
        kernel: takes (n, d) and (1, d) to a covariance of shape (n, 1): a GPyTorch kernel, for example.
        seed: variances within ``TIE`` of the largest are ties, for another machine may round them the other way. They
            go to the first row; with a seed, to the first in a random order.

    Returns:
        The chosen rows in the order of choice: the first k of them are the choice for m = k.

    Raises:
        ValueError: as :func:`random`; and if fewer than ``m`` rows have more than ``TIE`` of the prior variance left.

    >>> from gpytorch.kernels import RBFKernel
    >>> greedy(torch.linspace(0, 1, 5).unsqueeze(-1), 3, RBFKernel()).squeeze(-1)
    tensor([0.0000, 1.0000, 0.5000])
    """
    m, seed = _check(x, m), arguments.optional(arguments.whole, "seed", seed, 0)
    arguments.function("kernel", kernel, "(n, d)", "(1, d)")
    order = torch.arange(len(x)) if seed is None else torch.as_tensor(np.random.default_rng(seed).permutation(len(x)))
    candidates = x.detach()[order.to(x.device)]
    factor = candidates.new_zeros(len(x), m)
    chosen: list[int] = []
    with torch.no_grad():
        # The prior variance, for kernels without a way to ask for the diagonal alone: that of small blocks.
        variance = torch.cat([_dense(kernel(block, block)).diagonal() for block in candidates.split(256)])
        tie = TIE * variance.max()
        for j in range(m):
            largest = variance.max()
            if not largest > tie:
                raise ValueError(f"m must be at most {j}: given {j} rows, no row has variance left; got {m}")
            pivot = int((variance >= largest - tie).nonzero()[0])
            chosen.append(pivot)
            column = _dense(kernel(candidates, candidates[pivot : pivot + 1])).squeeze(-1)
            factor[:, j] = (column - factor[:, :j] @ factor[pivot, :j]) / variance[pivot].sqrt()
            variance = (variance - factor[:, j] ** 2).clamp_min(0)
            variance[pivot] = 0
    return candidates[chosen]


def _dense(covariance) -> Tensor:
    dense = covariance.to_dense() if hasattr(covariance, "to_dense") else covariance
    return arguments.tensor("kernel(x, x)", dense, "(n, m)")


def _check(x: Tensor, m: int) -> int:
    arguments.tensor("x", x, "(n, d)")
    return arguments.whole("m", m, 1, len(x))
