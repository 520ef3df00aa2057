r"""Floating-point formats, rounding to them exactly, and sums whose order is known.

A number of a binary format is :math:`\pm m \cdot 2^e` with a mantissa of ``bits`` explicit bits after the leading one.
:func:`round_to` takes any float64 number to the nearest number of a format, ties to the even mantissa. A function that
rounds after every operation computes as hardware of that format would: for :math:`+, -, \times, \div, \sqrt{}` the
result is the correctly rounded one bit for bit, since float64 carries more than twice the digits of the narrower
formats (Figueroa, *When is double rounding innocuous?*, 1995), away from underflow. What is *not* emulated is the
inside of a matrix product or of a sum in a library: in which order it accumulates, and in which format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpbook_utils import arguments


@dataclass(frozen=True)
class Format:
    """A binary floating-point format with gradual underflow.

    Attributes:
        name: as people write it.
        bits: explicit bits of the mantissa, without the leading one.
        smallest: exponent of the smallest normal number.
        largest: exponent of the largest numbers.
    """

    name: str
    bits: int
    smallest: int
    largest: int

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number: the largest relative error of rounding a normal number.

        >>> FLOAT32.unit_roundoff == 2**-24
        True
        """
        return math.ldexp(1, -self.bits - 1)

    @property
    def max(self) -> float:
        """The largest finite number.

        >>> FLOAT16.max
        65504.0
        """
        return math.ldexp(2 - math.ldexp(1, -self.bits), self.largest)


FLOAT64 = Format("float64", 52, -1022, 1023)
FLOAT32 = Format("float32", 23, -126, 127)
TF32 = Format("TF32", 10, -126, 127)  # what some GPUs read of a float32 number in a matrix product
FLOAT16 = Format("float16", 10, -14, 15)
BFLOAT16 = Format("bfloat16", 7, -126, 127)
FORMATS = (FLOAT64, FLOAT32, TF32, FLOAT16, BFLOAT16)


def round_to(x: Tensor, format: Format) -> Tensor:
    """The nearest numbers of a format, ties to even, held in float64.

    Numbers that round beyond the largest finite one become infinite; NaN, infinities and the sign of zero stay.

    Args:
        x: a tensor of any shape in a floating-point format; it is read in float64, which loses nothing.
        format: for example :data:`TF32`.

    Returns:
        A float64 tensor of the same shape, on the same device and without gradients.

    Raises:
        ValueError: if ``x`` is no floating-point tensor or ``format`` no :class:`Format`.

    >>> round_to(torch.tensor([1 + 2**-11, 1 + 3 * 2**-11], dtype=torch.float64), TF32) == torch.tensor([1, 1 + 2**-9])
    tensor([True, True])
    """
    _check_format(format)
    wide = arguments.tensor("x", x, any_entries=True).detach().double()
    return torch.from_numpy(_round(wide.cpu().numpy(), format)).to(wide.device)


def rounder(format: Format) -> Callable[[Tensor], Tensor]:
    """:func:`round_to` for one format, as a function of one tensor: the ``r`` of a formula that rounds at each step.

    Raises:
        ValueError: if ``format`` is no :class:`Format`.

    >>> r = rounder(BFLOAT16)
    >>> r(torch.tensor([1 / 3])).item()
    0.333984375
    """
    _check_format(format)
    return lambda x: round_to(x, format)


def cholesky(A: Tensor, format: Format) -> Tensor | None:
    r"""Cholesky factorisation in which every operation is rounded to a format.

    Column by column, with the product of the column found subtracted from the rest (Higham 2002, section 10.1; the
    order of operations is one of several, and all obey the same bounds).

    Args:
        A: symmetric, of shape (n, n), floating point; its lower triangle is read and rounded first.
        format: of all numbers and operations.

    Returns:
        The lower factor in float64, of shape (n, n), or ``None`` where a pivot is not positive: in this format the
        matrix is not positive definite.

    Raises:
        ValueError: if ``A`` is not a square matrix of finite floating-point numbers.

    >>> cholesky(torch.tensor([[4.0, 2.0], [2.0, 5.0]]), FLOAT16)
    tensor([[2., 0.],
            [1., 2.]], dtype=torch.float64)
    """
    r = rounder(format)
    rest = r(arguments.tensor("A", A, "(n, n)"))
    if not torch.isfinite(rest).all():
        raise ValueError(f"A must be finite in {format.name}; it has too large entries")
    L = torch.zeros_like(rest)
    for j in range(len(rest)):
        pivot = rest[j, j]
        if not pivot > 0:
            return None
        root = r(pivot.sqrt())
        column = r(rest[j + 1 :, j] / root)
        L[j, j], L[j + 1 :, j] = root, column
        rest[j + 1 :, j + 1 :] = r(rest[j + 1 :, j + 1 :] - r(column[:, None] * column))
    return L


def solve_lower(L: Tensor, B: Tensor, format: Format, *, transpose: bool = False) -> Tensor:
    r"""Solve :math:`LX = B`, or :math:`L^\top X = B`, by substitution with every operation rounded to a format.

    Args:
        L: lower triangular, of shape (n, n), without zeros on the diagonal.
        B: of shape (n,) or (n, m).
        format: of all numbers and operations.
        transpose: whether to solve with the transpose of ``L``.

    Returns:
        A float64 tensor of the shape of ``B``.

    Raises:
        ValueError: if the shapes do not fit or the diagonal has a zero in this format.

    >>> solve_lower(torch.tensor([[2.0, 0.0], [1.0, 2.0]]), torch.tensor([2.0, 5.0]), FLOAT16)
    tensor([1., 2.], dtype=torch.float64)
    """
    r = rounder(format)
    arguments.tensor("L", L, "(n, n)", any_entries=True)
    arguments.tensor("B", B, "(n,) or (n, m)", any_entries=True)
    arguments.flag("transpose", transpose)
    if len(B) != len(L):
        raise ValueError(f"B must have {len(L)} rows, as L; got {len(B)}")
    L, rest = r(L), r(B)
    if (L.diagonal() == 0).any():
        raise ValueError(f"L must have no zero on its diagonal; it has one in {format.name}")
    if transpose:
        L = L.mT
    rest = rest if B.dim() == 2 else rest[:, None]
    order = range(len(L) - 1, -1, -1) if transpose else range(len(L))
    for j in order:
        rest[j] = r(rest[j] / L[j, j])
        ahead = slice(0, j) if transpose else slice(j + 1, None)
        rest[ahead] = r(rest[ahead] - r(L[ahead, j, None] * rest[j]))
    return rest if B.dim() == 2 else rest[:, 0]


def ordered_sum(terms: Tensor, format: Format) -> Tensor:
    r"""Add the last dimension from left to right, rounding to a format after every addition.

    One order of many, and on every machine the same one, which no library promises for ``sum``. Its error is at most
    :math:`\gamma_{n-1} \sum_i |t_i|` with :math:`\gamma_k = ku/(1 - ku)` for terms of the format (Higham 2002,
    section 4.2).

    Args:
        terms: of shape (..., n), floating point; rounded to the format first.
        format: of the partial sums.

    Returns:
        A float64 tensor of shape (...).

    Raises:
        ValueError: if ``terms`` is no floating-point tensor of at least one dimension, or ``n`` is zero.

    >>> ordered_sum(torch.tensor([[2048.0, 1.0, 1.0], [1.0, 1.0, 2048.0]]), FLOAT16)
    tensor([2048., 2050.], dtype=torch.float64)
    """
    terms = round_to(arguments.tensor("terms", terms, any_entries=True), format)
    if terms.dim() == 0 or terms.shape[-1] == 0:
        raise ValueError(f"terms must have at least one dimension with at least one entry; got {tuple(terms.shape)}")
    total = terms[..., 0]
    for column in terms.unbind(-1)[1:]:
        total = round_to(total + column, format)
    return total


def exact_sum(terms: Tensor | Iterable[float], format: Format = FLOAT64) -> float:
    """The exact sum, rounded at the end: the same number in every order.

    This is :func:`math.fsum`, which keeps every digit of the partial sums and rounds to float64; that is then rounded
    to ``format``. (For an order-free sum at full speed see Demmel and Nguyen, *Parallel Reproducible Summation*, 2015.)

    Args:
        terms: a tensor of shape (n,), floating point, or Python floats. Products of two float32 numbers are exact in
            float64, so ``exact_sum(a.double() * b.double())`` is an exact dot product of float32 vectors.
        format: of the result.

    Raises:
        ValueError: if a tensor is not of shape (n,) and floating point, or a term or the sum is NaN or infinite.

    >>> exact_sum([1e16, 1.0, -1e16]), (1e16 + 1.0) - 1e16
    (1.0, 0.0)
    """
    _check_format(format)
    if isinstance(terms, Tensor):
        terms = arguments.tensor("terms", terms, "(n,)", any_entries=True).detach().double().tolist()
    terms = arguments.items("terms", terms)
    try:
        total = math.fsum(terms)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"terms must be finite numbers, with a sum that float64 can hold: {error}") from error
    if not math.isfinite(total):
        raise ValueError("terms must be finite; there is a NaN or an infinity among them")
    return float(_round(np.array(total), format))


def _round(x: np.ndarray, format: Format) -> np.ndarray:
    """Round float64 numbers; frexp, ldexp and rint are exact, whatever the instruction set."""
    if format.bits >= 52:
        return np.array(x)
    exponent = np.frexp(x)[1] - 1
    unit = np.maximum(exponent, format.smallest) - format.bits  # below the smallest normal, equal spacing
    with np.errstate(over="ignore"):  # beyond float64 is beyond the format too
        rounded = np.ldexp(np.rint(np.ldexp(x, -unit)), unit)
    return np.where(np.abs(rounded) > format.max, np.copysign(np.inf, x), rounded)


def _check_format(format) -> None:
    names = ", ".join(known.name.upper() for known in FORMATS)
    arguments.instance("format", format, Format, f"one of gpbook_utils.precision's {names}")
