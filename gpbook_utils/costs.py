"""What a computation costs: operations, which are the same on every machine, and seconds, which are this machine's."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What :func:`measure` saw.

    Attributes:
        result: what the function returned.
        operations: floating-point operations, a multiplication and an addition counted as two.
        seconds: wall time of a second call, without the counting.
    """

    result: object
    operations: int
    seconds: float

    def products(self, n: int) -> float:
        """The operations in products of an n × n matrix with a vector, which take 2n² each.

        >>> Cost(None, 1600, 0.0).products(20)
        2.0
        """
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        return self.operations / (2 * n**2)


def measure(function: Callable[[], object]) -> Cost:
    """Call ``function`` twice: once to count its operations, once to time it.

    Counted are the operations of matrix products, and of Cholesky factorisations (n³/3), solves with them (2n² for each
    right-hand side) and triangular solves (n² for each): those of which a Gaussian process needs n times more than of
    any other. The factorisation's count is that of Golub and Van Loan, *Matrix Computations*, section 4.2.

    Returns:
        The :class:`Cost`, with the result of the first call.

    Raises:
        ValueError: if ``function`` is not callable.

    >>> A = torch.eye(30)
    >>> measure(lambda: A @ A[:, :1]).operations  # 2n² for one product
    1800
    >>> measure(lambda: torch.linalg.cholesky(A)).operations  # n³/3
    9000
    """
    if not callable(function):
        raise ValueError(f"function must be callable without arguments; got {function!r}")
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        result = function()
    start = time.perf_counter()
    function()
    return Cost(result, counter.get_total_flops(), time.perf_counter() - start)


class Table:
    """Named rows of numbers. Plain text names rows and columns only; HTML shows what this machine measured.

    Raises:
        ValueError: if ``rows`` is empty, or a row has other columns than the first.

    >>> Table({"Cholesky": {"seconds": 0.0123}})
    1 row (Cholesky), 1 column (seconds)
    """

    def __init__(self, rows: Mapping[str, Mapping[str, float]]):
        if not rows:
            raise ValueError("rows is empty: give at least one")
        self.rows = {name: dict(row) for name, row in rows.items()}
        self.columns = list(next(iter(self.rows.values())))
        for name, row in self.rows.items():
            if list(row) != self.columns:
                raise ValueError(f"row {name!r} must have the columns {self.columns}; got {list(row)}")

    def __repr__(self) -> str:
        return ", ".join(
            f"{len(names)} {kind}{'s' * (len(names) != 1)} ({'; '.join(names)})"
            for kind, names in (("row", list(self.rows)), ("column", self.columns))
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("", *self.columns))
        body = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th>'
            + "".join(f"<td>{_number(value)}</td>" for value in row.values())
            + "</tr>"
            for name, row in self.rows.items()
        )
        return f'<table class="gp-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _number(value: float) -> str:
    """Two digits, with an exponent only where the number is very small."""
    value = float(f"{float(value):.2g}")
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = max(1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.1e}" if digits > 5 else f"{value:,.{digits}f}"


_FORMULAS = {  # of the shapes (..., n, n) of a matrix and (..., n, columns) of right-hand sides
    torch.ops.aten.linalg_cholesky_ex: lambda a, *_, **options: math.prod(a) * a[-1] // 3,
    torch.ops.aten.cholesky_solve: lambda b, *_, **options: 2 * math.prod(b) * b[-2],
    torch.ops.aten.linalg_solve_triangular: lambda a, b, *_, **options: math.prod(b) * b[-2],
}
