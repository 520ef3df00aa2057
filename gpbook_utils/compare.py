r"""The ruler: how far apart two matrices or two Gaussians are, against what rounding explains.

Two results can be *bitwise equal*, differ by as much as *rounding explains*, or differ by *more*. Rounding is judged by
:math:`2\,n\,u\,\kappa` times the magnitude of the terms, for two computations that each solve a system of size
:math:`n` with condition number :math:`\kappa` in a format with unit roundoff :math:`u`. This is a rule of thumb of the
theorem's form :math:`c_n u \kappa` (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd edition, section
10.1.1), whose proved constant is larger still; errors that are seen lie nearer to :math:`u \kappa`. So a difference
above it asks for another cause. It takes the inputs as exact: rounded inputs far from the origin move a kernel's
entries by more, and the ruler then says so.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from gpbook_utils import arguments

EQUAL, ROUNDING, MORE = "bitwise equal", "rounding explains it", "more than rounding explains"
_VERDICTS = (EQUAL, ROUNDING, MORE)  # from best to worst


@dataclass(frozen=True)
class Comparison:
    """How far ``b`` is from ``a``. Prints as one line, renders as a small table.

    Of two Gaussians the covariance matrices are measured, and the means beside them.

    Attributes:
        verdict: *bitwise equal* (``0.0`` and ``-0.0`` count as equal), *rounding explains it* or *more than rounding
            explains*; of two Gaussians the worse of the covariance's and the mean's.
        max_abs: largest absolute difference of two entries, in the unit of the entries.
        relative: Frobenius norm of the difference over the Frobenius norm of ``a``.
        ulps: ``max_abs`` in units in the last place of the largest entry of ``a``.
        rounding: the largest absolute difference that rounding explains (see the module).
        kl: Kullback–Leibler divergence of the two Gaussians in nats, or ``None``.
        kl_note: why ``kl`` is ``None``; empty otherwise.
        shift: largest difference of the two means, in standard deviations of ``a``; ``None`` for plain matrices.
    """

    verdict: str
    max_abs: float
    relative: float
    ulps: float
    rounding: float
    kl: float | None = None
    kl_note: str = "not asked for: two matrices, not two Gaussians"
    shift: float | None = None

    @property
    def equal(self) -> bool:
        """Whether every entry has the same value, bit for bit; of two Gaussians also of the mean."""
        return self.verdict == EQUAL

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
        if self.equal:
            return EQUAL
        return f"{self.verdict}: " + ", ".join(f"{name} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>' for name, value in self._rows()
        )
        return f'<table class="gp-table"><caption>{self.verdict}</caption><tbody>{rows}</tbody></table>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        # In a notebook the plain text is compared between machines, so it carries the verdict without digits.
        return {"text/plain": self.verdict, "text/html": self._repr_html_()}


def compare(
    a,
    b,
    *,
    condition_number: float = 1.0,
    size: int | None = None,
    scale: float | None = None,
    computed_in: torch.dtype | None = None,
) -> Comparison:
    """Measure how far ``b`` is from ``a``.

    Args:
        a: a tensor of shape (n,) or (n, m), or a Gaussian (``torch`` or ``gpytorch`` ``MultivariateNormal``) with mean
            of shape (n,), of which the covariance matrix is compared, and the mean beside it.
        b: the same kind, shape and format as ``a``.
        condition_number: that of the linear system which was solved to obtain ``a`` and ``b``; 1 where entries were
            computed one by one, as for a prior covariance matrix.
        size: number of unknowns of that system; by default the number of rows of ``a``.
        scale: magnitude of the terms that were added up, where the result is much smaller than they are. A posterior
            covariance is prior minus reduction: give the prior variance. Default: the largest entry of ``a`` or ``b``.
        computed_in: the coarser of the formats in which ``a`` and ``b`` were computed, where that is not the format
            they are in: cast a float32 result to float64 to compare it with one, and say ``torch.float32`` here.

    Returns:
        A :class:`Comparison`; differences are computed in float64.

    Raises:
        ValueError: for empty, NaN or infinite entries, unequal shapes, formats or devices, formats that are not
            floating point, one matrix and one Gaussian, ``condition_number`` below 1, or ``size`` or ``scale`` not
            positive.

    >>> K = torch.eye(2, dtype=torch.float64)
    >>> compare(K, K.clone())
    bitwise equal
    >>> compare(K, K + 1e-3).verdict
    'more than rounding explains'
    """
    if isinstance(a, MultivariateNormal) != isinstance(b, MultivariateNormal):
        raise ValueError(
            f"a and b must both be matrices or both be Gaussians; got {type(a).__name__} and {type(b).__name__}"
        )
    context = {
        # An infinite condition number is an answer: then rounding may have done anything.
        "condition_number": arguments.real("condition_number", condition_number, least=1, finite=False),
        "size": arguments.optional(arguments.real, "size", size, least=1),
        "scale": arguments.optional(arguments.real, "scale", scale, above=0),
        "computed_in": arguments.optional(arguments.format, "computed_in", computed_in),
    }
    if not isinstance(a, MultivariateNormal):
        return _compare_tensors("", a, b, **context)
    K_a, K_b = covariance(a, "a"), covariance(b, "b")
    matrices = _compare_tensors("the covariance of ", K_a, K_b, **context)
    means = _compare_tensors("the mean of ", a.mean, b.mean, **context | {"scale": None})
    deviation = _wide(K_a).diagonal().clamp_min(0).sqrt()
    shifts = (_wide(a.mean) - _wide(b.mean)).abs() / deviation
    kl, note = kl_divergence(a, b)
    return replace(
        matrices,
        verdict=max(matrices.verdict, means.verdict, key=_VERDICTS.index),
        kl=kl,
        kl_note=note,
        shift=float(shifts.nan_to_num(nan=0.0, posinf=math.inf).max()),  # 0/0: equal means, no variance
    )


def kl_divergence(a: MultivariateNormal, b: MultivariateNormal) -> tuple[float | None, str]:
    r"""Kullback–Leibler divergence KL(a ‖ b) of two Gaussians, in nats.

    With :math:`L_a L_a^\top` and :math:`L_b L_b^\top` the two covariances, :math:`s_i` the singular values of
    :math:`L_b^{-1} L_a` and :math:`d = L_b^{-1}(\mu_a - \mu_b)`, it is
    :math:`\tfrac12 \sum_i (s_i^2 - 1 - \log s_i^2) + \tfrac12 \lVert d \rVert^2`. Each term is non-negative, so equal
    Gaussians give zero up to rounding, and never less.

    Returns:
        The divergence and an empty note, or ``None`` and the reason where a covariance is not positive definite in
        float64, or the divergence too large for it. No jitter is added: a divergence of two other Gaussians would
        answer another question.

    Raises:
        ValueError: if an argument is not one Gaussian, they differ in size, or hold NaN or infinite entries.

    >>> unit = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    >>> shifted = MultivariateNormal(torch.ones(2).double(), torch.eye(2).double())
    >>> kl_divergence(unit, shifted)
    (1.0, '')
    """
    matrices = {name: covariance(gaussian, name) for name, gaussian in (("a", a), ("b", b))}
    if matrices["a"].shape != matrices["b"].shape:
        sizes = " and ".join(str(len(K)) for K in matrices.values())
        raise ValueError(f"a and b must have the same number of variables; got {sizes}")
    factors = []
    for name, K in matrices.items():
        factor, failed_at = torch.linalg.cholesky_ex((_wide(K) + _wide(K).mT) / 2)
        if failed_at:
            return None, f"the covariance of {name} is not positive definite (Cholesky stops at row {int(failed_at)})"
        factors.append(factor)
    L_a, L_b = factors
    difference = _wide(_checked("the mean of a", a.mean, "(n,)")) - _wide(_checked("the mean of b", b.mean, "(n,)"))
    ratios = torch.linalg.svdvals(torch.linalg.solve_triangular(L_b, L_a, upper=False))
    excess = (ratios - 1) * (ratios + 1)
    # Near one, the logarithm of 1 + excess loses nothing; far from one, the square may have lost the ratio.
    terms = torch.where(excess.abs() < 0.5, excess - torch.log1p(excess.clamp_min(-0.5)), excess - 2 * ratios.log())
    distance = torch.linalg.solve_triangular(L_b, difference.unsqueeze(-1), upper=False).square().sum()
    divergence = float(0.5 * (terms.sum() + distance))
    if not math.isfinite(divergence):
        return None, "the two Gaussians are too far apart for float64"
    return divergence, ""


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
    K = _wide(_symmetric("K", K))
    eigenvalues = torch.linalg.eigvalsh((K + K.mT) / 2)
    return float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else math.inf


def unit_roundoff(dtype: torch.dtype) -> float:
    r"""Unit roundoff :math:`u` of a floating-point format: half the distance from 1 to the next number.

    >>> unit_roundoff(torch.float64) == 2**-53
    True
    """
    return torch.finfo(arguments.format("dtype", dtype)).eps / 2


def ulp(magnitude: float, dtype: torch.dtype) -> float:
    """The unit in the last place of ``magnitude``: the distance to the next larger number of ``dtype``.

    Raises:
        ValueError: if ``magnitude`` is negative, NaN or infinite, or ``dtype`` no floating-point format.

    >>> ulp(1.0, torch.float64) == 2**-52
    True
    >>> ulp(0.75, torch.float32) == 2**-24
    True
    """
    magnitude, format = arguments.real("magnitude", magnitude, least=0), torch.finfo(arguments.format("dtype", dtype))
    exponent = math.frexp(max(magnitude, format.tiny))[1] - 1  # below tiny, numbers are equally spaced
    return math.ldexp(format.eps, exponent)


def covariance(gaussian: MultivariateNormal, name: str = "gaussian") -> Tensor:
    """The covariance matrix of a Gaussian, of shape (n, n), detached from the graph.

    Raises:
        ValueError: if ``gaussian`` is not a Gaussian or is a batch of them, or the matrix is empty, not symmetric, or
            holds NaN or infinite entries. The message calls the argument ``name``.

    >>> covariance(MultivariateNormal(torch.zeros(1), torch.eye(1)))
    tensor([[1.]])
    """
    arguments.instance(arguments.line("name", name), gaussian, MultivariateNormal, "a MultivariateNormal")
    if gaussian.mean.dim() != 1:
        raise ValueError(
            f"{name} must be one Gaussian, not a batch or several tasks; "
            f"its mean has shape {tuple(gaussian.mean.shape)}"
        )
    return _symmetric(f"the covariance of {name}", gaussian.covariance_matrix)


def _compare_tensors(name: str, a, b, *, condition_number, size, scale, computed_in) -> Comparison:
    a, b = (_checked(f"{name}{which}", tensor, "(n,) or (n, m)") for which, tensor in (("a", a), ("b", b)))
    for what in ("shape", "dtype", "device"):
        of_a, of_b = getattr(a, what), getattr(b, what)
        if of_a != of_b:
            hint = ". Cast one of them, and name the coarser format as computed_in" if what == "dtype" else ""
            raise ValueError(
                f"{name}a and {name}b must have the same {what}; got "
                + " and ".join(str(tuple(value) if what == "shape" else value) for value in (of_a, of_b))
                + hint
            )
    wide_a, wide_b = _wide(a), _wide(b)
    largest = float(torch.maximum(wide_a.abs().max(), wide_b.abs().max()))
    # Divided by the largest entry, so that no norm overflows or vanishes.
    unit = largest or 1.0
    difference = wide_a / unit - wide_b / unit
    norm = float((wide_a / unit).norm())
    max_abs = float((wide_a - wide_b).abs().max())
    format = torch.finfo(computed_in or a.dtype)
    one_rounding = max(format.eps / 2 * (scale or largest), format.tiny * format.eps / 2)
    rounding = 2 * (size or float(len(a))) * condition_number * one_rounding
    unequal = ROUNDING if max_abs <= rounding else MORE
    return Comparison(
        verdict=EQUAL if torch.equal(wide_a, wide_b) else unequal,
        max_abs=max_abs,
        relative=float(difference.norm()) / norm if norm else (0.0 if max_abs == 0 else math.inf),
        ulps=max_abs / ulp(float(wide_a.abs().max()), computed_in or a.dtype),
        rounding=rounding,
    )


def _wide(tensor: Tensor) -> Tensor:
    """A detached float64 copy on the CPU: some accelerators have no float64."""
    return tensor.detach().cpu().double()


def _symmetric(name: str, K) -> Tensor:
    K = _checked(name, K, "(n, n)")
    asymmetry = float((K - K.mT).abs().max())
    if asymmetry > 1e-2 * float(K.abs().max()):  # rounding of an ill-conditioned float32 posterior stays below this
        raise ValueError(f"{name} must be symmetric; it differs from its transpose by up to {asymmetry:.3g}")
    return K


def _checked(name: str, tensor, shape: str) -> Tensor:
    lazy = hasattr(tensor, "to_dense") and not isinstance(tensor, Tensor)  # GPyTorch's lazily evaluated matrices
    return arguments.tensor(name, tensor.to_dense() if lazy else tensor, shape).detach()
