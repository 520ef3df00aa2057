r"""The ruler: how far apart two matrices or two Gaussians are, against what rounding explains.

Two results can be *bitwise equal*, differ by as much as *rounding explains*, or differ by *more*. Rounding is judged by
:math:`n\,u\,\kappa` times the magnitude of the terms, for a computation that solves a system of size :math:`n` with
condition number :math:`\kappa` in a format with unit roundoff :math:`u`. This is a rule of thumb of the theorem's form
:math:`c_n u \kappa` (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd edition, section 10.1.1), whose
proved constant is larger still; errors that are seen lie nearer to :math:`u \kappa`. So a difference above it asks for
another cause. It takes the inputs as exact: rounded inputs far from the origin move a kernel's entries by more, and the
ruler then says so.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

EQUAL, ROUNDING, MORE = "bitwise equal", "rounding explains it", "more than rounding explains"


@dataclass(frozen=True)
class Comparison:
    """How far ``b`` is from ``a``. Prints as one line, renders as a small table.

    Attributes:
        equal: every entry has the same value, bit for bit (``0.0`` and ``-0.0`` count as equal).
        max_abs: largest absolute difference of two entries, in the unit of the entries.
        relative: Frobenius norm of the difference over the Frobenius norm of ``a``.
        ulps: ``max_abs`` in units in the last place of the largest entry of ``a``, in the coarser of the two formats.
        rounding: the largest absolute difference that rounding explains (see the module).
        kl: Kullback–Leibler divergence of the two Gaussians in nats, or ``None``.
        kl_note: why ``kl`` is ``None``; empty otherwise.
        shift: largest difference of the two means, in standard deviations of ``a``; ``None`` for plain matrices.
    """

    equal: bool
    max_abs: float
    relative: float
    ulps: float
    rounding: float
    kl: float | None = None
    kl_note: str = "not asked for: two matrices, not two Gaussians"
    shift: float | None = None

    @property
    def verdict(self) -> str:
        """One of *bitwise equal*, *rounding explains it* and *more than rounding explains*."""
        if self.equal:
            return EQUAL
        return ROUNDING if self.max_abs <= self.rounding else MORE

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("max difference", f"{self.max_abs:.2g}"),
            ("relative", f"{self.relative:.2g}"),
            ("ulps", f"{self.ulps:.2g}"),
            ("rounding explains", f"{self.rounding:.2g}"),
        ]
        if self.shift is not None:
            rows.append(("mean shift", f"{self.shift:.2g} sd"))
            rows.append(("KL", f"{self.kl:.2g} nats" if self.kl is not None else f"undefined: {self.kl_note}"))
        return rows

    def __repr__(self) -> str:
        if self.equal and not self.shift:
            return EQUAL
        return f"{self._headline}: " + ", ".join(f"{name} {value}" for name, value in self._rows())

    @property
    def _headline(self) -> str:
        return self.verdict if self.shift is None else f"covariance {self.verdict}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>' for name, value in self._rows()
        )
        return f'<table class="gp-table"><caption>{self._headline}</caption><tbody>{rows}</tbody></table>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        # In a notebook the plain text is compared between machines, so it carries the verdict without digits.
        return {"text/plain": self._headline, "text/html": self._repr_html_()}


def compare(a, b, *, condition_number: float = 1.0, scale: float | None = None) -> Comparison:
    """Measure how far ``b`` is from ``a``.

    Args:
        a: a tensor of shape (n,) or (n, m), or a Gaussian (``torch`` or ``gpytorch`` ``MultivariateNormal``) with mean
            of shape (n,), of which the covariance matrix is compared.
        b: the same kind and shape as ``a``.
        condition_number: that of the linear system which was solved to obtain ``a`` and ``b``; 1 where entries were
            computed one by one, as for a prior covariance matrix.
        scale: magnitude of the terms that were added up, where the result is much smaller than they are. A posterior
            covariance is prior minus reduction: give the prior variance. Default: the largest entry of ``a`` or ``b``.

    Returns:
        A :class:`Comparison`; differences are computed in float64.

    Raises:
        ValueError: for empty, NaN or infinite entries, unequal shapes, formats that are not floating point, one matrix
            and one Gaussian, ``condition_number`` below 1, or ``scale`` not positive.

    >>> K = torch.eye(2, dtype=torch.float64)
    >>> compare(K, K.clone())
    bitwise equal
    >>> compare(K, K + 1e-3).verdict
    'more than rounding explains'
    """
    if _is_gaussian(a) != _is_gaussian(b):
        raise ValueError(
            f"a and b must both be matrices or both be Gaussians; got {type(a).__name__} and {type(b).__name__}"
        )
    if not _is_gaussian(a):
        return _compare_tensors(a, b, condition_number, scale)
    mean_a, mean_b = _checked("the mean of a", a.mean), _checked("the mean of b", b.mean)
    K_a, K_b = covariance(a), covariance(b)
    matrices = _compare_tensors(K_a, K_b, condition_number, scale)
    deviation = K_a.diagonal().double().clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    kl, note = kl_divergence(a, b)
    return Comparison(
        equal=matrices.equal,
        max_abs=matrices.max_abs,
        relative=matrices.relative,
        ulps=matrices.ulps,
        rounding=matrices.rounding,
        kl=kl,
        kl_note=note,
        shift=float(((mean_a.double() - mean_b.double()).abs() / deviation).max()),
    )


def kl_divergence(a: MultivariateNormal, b: MultivariateNormal) -> tuple[float | None, str]:
    r"""Kullback–Leibler divergence KL(a ‖ b) of two Gaussians, in nats.

    With :math:`L_a L_a^\top` and :math:`L_b L_b^\top` the two covariances, :math:`s_i` the singular values of
    :math:`L_b^{-1} L_a` and :math:`d = L_b^{-1}(\mu_a - \mu_b)`, it is
    :math:`\tfrac12 \sum_i (s_i^2 - 1 - \log s_i^2) + \tfrac12 \lVert d \rVert^2`. Each term is non-negative, so equal
    Gaussians give zero up to rounding, and never less.

    Returns:
        The divergence and an empty note, or ``None`` and the reason where a covariance is not positive definite in
        float64. No jitter is added: a divergence of two other Gaussians would answer another question.

    >>> unit = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    >>> shifted = MultivariateNormal(torch.ones(2).double(), torch.eye(2).double())
    >>> kl_divergence(unit, shifted)
    (1.0, '')
    """
    factors = []
    for name, gaussian in (("a", a), ("b", b)):
        K = covariance(gaussian).double()
        factor, failed_at = torch.linalg.cholesky_ex((K + K.mT) / 2)
        if failed_at:
            return None, f"the covariance of {name} is not positive definite (Cholesky stops at row {int(failed_at)})"
        factors.append(factor)
    L_a, L_b = factors
    mean_difference = (a.mean.detach().double() - b.mean.detach().double()).unsqueeze(-1)
    excess = torch.linalg.svdvals(torch.linalg.solve_triangular(L_b, L_a, upper=False)) ** 2 - 1
    if (excess <= -1).any():
        return None, "the two covariances are too far apart for float64"
    distance = torch.linalg.solve_triangular(L_b, mean_difference, upper=False).square().sum()
    return float(0.5 * ((excess - torch.log1p(excess)).sum() + distance)), ""


def condition_number(K: Tensor) -> float:
    r"""Condition number of a symmetric positive definite matrix in the 2-norm, :math:`\lambda_{\max}/\lambda_{\min}`.

    Args:
        K: shape (n, n), symmetric up to rounding; its eigenvalues are computed in float64.

    Returns:
        The ratio, or infinity where the smallest computed eigenvalue is not positive.

    Raises:
        ValueError: for empty, NaN, infinite, non-square or non-symmetric input.

    >>> condition_number(torch.diag(torch.tensor([4.0, 1.0])))
    4.0
    """
    K = _checked("K", K).double()
    if K.dim() != 2 or K.shape[0] != K.shape[1]:
        raise ValueError(f"K must be a square matrix; got shape {tuple(K.shape)}")
    asymmetry = float((K - K.mT).abs().max())
    if asymmetry > 1e-2 * float(K.abs().max()):  # rounding of an ill-conditioned float32 posterior stays below this
        raise ValueError(f"K must be symmetric; K and its transpose differ by up to {asymmetry:.3g}")
    eigenvalues = torch.linalg.eigvalsh((K + K.mT) / 2)
    return float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else math.inf


def unit_roundoff(dtype: torch.dtype) -> float:
    r"""Unit roundoff :math:`u` of a floating-point format: half the distance from 1 to the next number.

    >>> unit_roundoff(torch.float64) == 2**-53
    True
    """
    return torch.finfo(dtype).eps / 2


def ulp(magnitude: float, dtype: torch.dtype) -> float:
    """The unit in the last place of ``magnitude``: the distance between neighbouring numbers of ``dtype`` there.

    >>> ulp(1.0, torch.float64) == 2**-52
    True
    >>> ulp(0.75, torch.float32) == 2**-24
    True
    """
    format = torch.finfo(dtype)
    if magnitude < format.tiny:
        return format.tiny * format.eps
    return 2.0 ** math.floor(math.log2(magnitude)) * format.eps


def covariance(gaussian: MultivariateNormal) -> Tensor:
    """The covariance matrix of a Gaussian, of shape (n, n), detached from the graph.

    Raises:
        ValueError: if it holds NaN or infinite entries, or is one of a batch of Gaussians.
    """
    matrix = _checked("the covariance matrix", gaussian.covariance_matrix)
    if matrix.dim() != 2:
        raise ValueError(
            f"a batch of Gaussians can't be compared as one; got a covariance of shape {tuple(matrix.shape)}"
        )
    return matrix


def _compare_tensors(a: Tensor, b: Tensor, condition_number: float, scale: float | None) -> Comparison:
    a, b = _checked("a", a), _checked("b", b)
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape; got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.device != b.device:
        raise ValueError(f"a and b must be on the same device; got {a.device} and {b.device}")
    if not condition_number >= 1:
        raise ValueError(f"condition_number must be at least 1; got {condition_number}")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite; got {scale}")
    coarser = max(a.dtype, b.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    wide_a, wide_b = a.double(), b.double()
    difference = wide_a - wide_b
    largest = float(torch.maximum(wide_a.abs().max(), wide_b.abs().max()))
    max_abs = float(difference.abs().max())
    norm = float(wide_a.norm())
    return Comparison(
        equal=torch.equal(wide_a, wide_b),
        max_abs=max_abs,
        relative=float(difference.norm()) / norm if norm else (0.0 if max_abs == 0 else math.inf),
        ulps=max_abs / ulp(float(wide_a.abs().max()), coarser),
        rounding=a.shape[0] * unit_roundoff(coarser) * condition_number * (largest if scale is None else scale),
    )


def _checked(name: str, tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        tensor = getattr(tensor, "to_dense", lambda: tensor)()  # GPyTorch's lazily evaluated matrices
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a torch tensor; got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be in a floating-point format; got {tensor.dtype}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} has {bad} NaN or infinite entries of {tensor.numel()}")
    return tensor.detach()


def _is_gaussian(thing) -> bool:
    return isinstance(thing, MultivariateNormal)
