r"""Usual kernels in few passes over a batch of n × n matrices, with their gradients in closed form.

The kernels are RBF and Matérn, with one lengthscale or one for each input, scaled, added and multiplied. Each is a
function of :math:`q_{ij} = \sum_k w_k (x_{ik} - x_{jk})^2` with :math:`w_k = 1 / \ell_k^2`. The squared differences do
not change while hyperparameters are trained: they are kept, and one matrix product gives q for all members.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from gpytorch.kernels import AdditiveKernel, Kernel, MaternKernel, ProductKernel, RBFKernel, ScaleKernel
from torch import Tensor

LEAVES = RBFKernel, MaternKernel
_MOST = 20_000_000  # squared differences kept for one kernel: 160 MB


class Stationary(torch.autograd.Function):
    """s f(q) for a batch of kernels, with q as the module says."""

    @staticmethod
    def forward(ctx, squares: Tensor, weights: Tensor, scale: Tensor, nu: float) -> Tensor:
        """Covariances of shape (b, n * n), from shapes (d, n * n), (b, d) and (b, 1); ``nu`` is infinite for RBF."""
        value, ctx.factor, slope = profile(squares, weights, nu)
        ctx.save_for_backward(squares, scale, value, slope)
        return value * scale

    @staticmethod
    def backward(ctx, upstream: Tensor):
        """Gradients for w, by the chain rule through q, and for s."""
        squares, scale, value, slope = ctx.saved_tensors
        product = upstream * value
        of_scale = product.sum(-1, keepdim=True)
        if slope is not None:
            product = torch.mul(upstream, slope, out=product)
        return None, ctx.factor * scale * (product @ squares.mT), of_scale, None


def profile(squares: Tensor, weights: Tensor, nu: float) -> tuple[Tensor, float, Tensor | None]:
    """f(q), and f'(q) as a number times a matrix, or times f(q) if there is none.

    [Rasmussen and Williams 2006, equations 4.9, 4.14 and 4.17, with r² / l² = q]

    >>> value, factor, slope = profile(torch.tensor([[2.0]]), torch.tensor([[1.0]]), math.inf)
    >>> torch.allclose(value, torch.tensor(-1.0).exp()), factor, slope
    (True, -0.5, None)
    """
    if nu == math.inf:
        return torch.mm(-0.5 * weights, squares).exp_(), -0.5, None
    a = torch.mm(2 * nu * weights, squares).sqrt_()
    decay = torch.exp(-a)
    if nu == 0.5:  # no slope at q = 0: all differences are 0 there, and so is what it is multiplied with
        return decay, -0.5, decay / a.masked_fill_(a == 0, torch.inf)
    linear = (1 + a) * decay
    if nu == 1.5:
        return linear, -1.5, decay
    return torch.addcmul(linear, a.square_(), decay, value=1 / 3), -5 / 6, linear


class Covariances:
    """Covariances of a batch of usual kernels at the same points."""

    def __init__(self):
        self.kept: list[tuple[Tensor, bool, Tensor]] = []

    def can(self, kernel: Kernel, x: Tensor) -> bool:
        """Whether every part of the kernel is usual, and ``x`` is a matrix with the kernel's active columns only."""
        if type(kernel) is ScaleKernel:
            return kernel.raw_outputscale.dim() == 1 and self.can(kernel.base_kernel, x)
        if type(kernel) in (AdditiveKernel, ProductKernel):
            return all(self.can(part, _active(part, x)) for part in kernel.kernels)
        if type(kernel) not in LEAVES or x.dim() != 2 or x.requires_grad or len(x) * x.numel() > _MOST:
            return False
        *batch, one, inputs = kernel.raw_lengthscale.shape
        if len(batch) != 1 or one != 1 or inputs not in (1, x.shape[-1]) or kernel.raw_lengthscale.dtype != x.dtype:
            return False
        # With a lengthscale for each input, GPyTorch's distance of a point from itself is not 0 but 1e-8. Its numbers
        # count, and only this kernel, which has a kink there, shows the difference.
        return inputs == 1 or getattr(kernel, "nu", None) != 0.5

    def __call__(self, kernel: Kernel, x: Tensor) -> Tensor:
        """A new tensor of shape (b, n, n) that nothing else holds, not even a graph."""
        if type(kernel) is AdditiveKernel:
            return reduce(torch.add, (self(part, _active(part, x)) for part in kernel.kernels))
        if type(kernel) is ProductKernel:
            return reduce(torch.mul, (self(part, _active(part, x)) for part in kernel.kernels))
        if type(kernel) in LEAVES:
            return self._scaled(kernel, x, torch.ones_like(kernel.lengthscale[:, 0, :1]))
        scale, base = kernel.outputscale.unsqueeze(-1), kernel.base_kernel
        if type(base) in LEAVES:
            return self._scaled(base, x, scale)
        return self(base, x) * scale.unsqueeze(-1)

    def _scaled(self, kernel: RBFKernel | MaternKernel, x: Tensor, scale: Tensor) -> Tensor:
        weights = kernel.lengthscale.squeeze(-2) ** -2
        squares = self._squares(x, weights.shape[-1] == 1)
        flat = Stationary.apply(squares, weights, scale, getattr(kernel, "nu", math.inf))
        return flat.unflatten(-1, (len(x), len(x)))

    def _squares(self, x: Tensor, total: bool) -> Tensor:
        """Squared differences of shape (d, n * n), or their total over the inputs, of shape (1, n * n)."""
        for known, of_total, squares in self.kept:
            if of_total == total and known.shape == x.shape and torch.equal(known, x):
                return squares
        squares = (x.mT.unsqueeze(-1) - x.mT.unsqueeze(-2)).square_().flatten(1)
        squares = squares.sum(0, keepdim=True) if total else squares
        self.kept = [*self.kept[-7:], (x, total, squares)]  # for so many parts of a kernel
        return squares


def _active(kernel: Kernel, x: Tensor) -> Tensor:
    return x if kernel.active_dims is None else x.index_select(-1, kernel.active_dims)
