"""Rounding to formats, against bit patterns worked out by hand, torch's own casts, and arithmetic in fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from gpbook_utils.compare import unit_roundoff
from gpbook_utils.precision import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORMATS,
    TF32,
    cholesky,
    exact_sum,
    ordered_sum,
    round_to,
    rounder,
    solve_lower,
)

DTYPES = {FLOAT64: torch.float64, FLOAT32: torch.float32, FLOAT16: torch.float16, BFLOAT16: torch.bfloat16}


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def from_bits(*patterns):
    """float32 numbers with these bits, in float64."""
    return torch.from_numpy(np.array(patterns, dtype=np.uint32).view(np.float32).astype(np.float64))


def bits(x):
    return [f"{pattern:08x}" for pattern in x.numpy().astype(np.float32).view(np.uint32).tolist()]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0x3F801000, 0x3F800000),  # 1 + 2^-11, a tie: to the even 1
        (0x3F803000, 0x3F804000),  # 1 + 3 * 2^-11, a tie: up to the even 1 + 2^-9
        (0x3F801001, 0x3F802000),  # just above a tie
        (0x3F800FFF, 0x3F800000),  # just below one
        (0x3F802000, 0x3F802000),  # 1 + 2^-10 is a TF32 number
        (0x3FFFF000, 0x40000000),  # all ones and a tie: carries into the exponent
        (0xBFFFF000, 0xC0000000),
        (0x7F7FE000, 0x7F7FE000),  # the largest number
        (0x7F7FEFFF, 0x7F7FE000),
        (0x7F7FF000, 0x7F800000),  # carries into infinity
        (0x00001000, 0x00000000),  # subnormal, half of the smallest: a tie to zero
        (0x00001001, 0x00002000),
        (0x00003000, 0x00004000),
        (0x007FF000, 0x00800000),  # subnormal that carries into the smallest normal
        (0x80001000, 0x80000000),  # to minus zero
        (0x80000000, 0x80000000),
        (0x7F800000, 0x7F800000),
        (0xFF800000, 0xFF800000),
    ],
)
def test_tf32_by_hand(before, after):
    assert bits(round_to(from_bits(before), TF32)) == [f"{after:08x}"]


def test_nan_stays():
    for format in FORMATS:
        assert round_to(numbers(math.nan, 1.0), format).isnan().tolist() == [True, False]


def test_half_precision_by_hand():
    x = numbers(2**-25, 2**-25 * 1.0001, 3 * 2**-25, 65519.99, 65520.0, 1 + 2**-11 + 2**-40)
    assert round_to(x, FLOAT16).tolist() == [0, 2**-24, 2**-23, 65504, math.inf, 1 + 2**-10]
    x = numbers(1 + 2**-8, 1 + 3 * 2**-8, 2012.0, -3.4e38, 2**-134, 2**-134 * 1.01)
    assert round_to(x, BFLOAT16).tolist() == [1, 1 + 2**-6, 2016, -math.inf, 0, 2**-133]


def test_beyond_every_exponent():
    assert round_to(numbers(1.7e308, -1.7976931348623157e308, 5e-324), FLOAT32).tolist() == [math.inf, -math.inf, 0]


def test_casts_of_torch():
    rng = np.random.default_rng(0)
    wide = torch.from_numpy(rng.standard_normal(20_000) * 10.0 ** rng.integers(-50, 45, 20_000))
    assert torch.equal(round_to(wide, FLOAT32), wide.float().double())
    for format in (FLOAT16, BFLOAT16):  # from float32: torch's cast from float64 rounds twice
        assert torch.equal(round_to(wide.float(), format), wide.float().to(DTYPES[format]).double())
    assert torch.equal(round_to(wide, FLOAT64), wide)


def test_constants_agree_with_torch():
    for format, dtype in DTYPES.items():
        assert format.unit_roundoff == unit_roundoff(dtype)
        assert format.max == torch.finfo(dtype).max
    assert TF32.unit_roundoff == FLOAT16.unit_roundoff and TF32.max < FLOAT32.max


def test_the_result_is_new_and_detached():
    x = numbers(1.0, 2.0).requires_grad_()
    rounded = round_to(x, FLOAT64)
    rounded[0] = 5
    assert x.tolist() == [1, 2] and not rounded.requires_grad
    assert rounder(FLOAT16)(torch.tensor(1 / 3, dtype=torch.float64)).shape == ()


def spd(n, seed=0):
    A = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, n)))
    return A @ A.mT + torch.eye(n)


def test_cholesky_has_the_bits_of_float32_loops():
    A = round_to(spd(12), FLOAT32)
    rest, L = A.numpy().astype(np.float32), np.zeros((12, 12), dtype=np.float32)
    for j in range(12):
        L[j, j] = np.sqrt(rest[j, j])
        for i in range(j + 1, 12):
            L[i, j] = rest[i, j] / L[j, j]
        for i in range(j + 1, 12):
            for k in range(j + 1, 12):
                rest[i, k] -= L[i, j] * L[k, j]
    assert np.array_equal(cholesky(A, FLOAT32).numpy(), L.astype(np.float64))


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_factor_and_solve_obey_highams_bounds(format):
    n, u = 20, format.unit_roundoff
    A = round_to(spd(n) + n * torch.eye(n), format)
    L, b = cholesky(A, format), round_to(torch.linspace(-1, 1, n, dtype=torch.float64), format)
    gamma = (n + 1) * u / (1 - (n + 1) * u)
    assert ((L @ L.mT - A).abs() <= gamma * L.abs() @ L.abs().mT + 1e-14).all()
    for transpose in (False, True):
        x = solve_lower(L, b, format, transpose=transpose)
        T = L.mT if transpose else L
        assert ((T @ x - b).abs() <= gamma * T.abs() @ x.abs() + 1e-14).all()
        columns = solve_lower(L, torch.stack([b, -b], 1), format, transpose=transpose)
        assert torch.equal(columns[:, 0], x) and torch.equal(columns[:, 1], -x)


def test_not_positive_definite():
    A = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-3]], dtype=torch.float64)
    assert cholesky(A, FLOAT32) is not None
    assert cholesky(A, BFLOAT16) is None  # there the last entry is one
    assert cholesky(-torch.eye(2), FLOAT64) is None


def test_ordered_sum_has_numpys_bits():
    terms = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 200)))
    for format, dtype in ((FLOAT32, np.float32), (FLOAT16, np.float16)):
        running = np.add.accumulate(round_to(terms, format).numpy().astype(dtype), axis=-1)
        assert torch.equal(ordered_sum(terms, format), torch.from_numpy(running[:, -1].astype(np.float64)))


def test_exact_sum_is_exact_and_has_no_order():
    rng = np.random.default_rng(2)
    terms = rng.standard_normal(300) * 10.0 ** rng.integers(-20, 20, 300)
    exact = float(sum(map(Fraction, terms.tolist())))
    for _ in range(5):
        assert exact_sum(torch.from_numpy(rng.permutation(terms))) == exact
    assert exact_sum([1.0, 2**-11], TF32) == 1 and exact_sum(numbers(1.0, 2**-10), TF32) == 1 + 2**-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: round_to(torch.tensor([1]), TF32), "x must be a dense .*; got Tensor of torch.int64"),
        (lambda: round_to(1.0, TF32), "x must be a dense floating-point tensor; got 1.0"),
        (lambda: round_to(numbers(1.0), torch.float16), "format must be one of .*BFLOAT16; got torch.float16"),
        (lambda: rounder("TF32"), "format must be one of .*; got 'TF32'"),
        (lambda: cholesky(numbers(1.0), TF32), r"A must have shape \(n, n\); got \(1,\)"),
        (lambda: cholesky(torch.eye(2) * 1e5, FLOAT16), "A must be finite in float16"),
        (lambda: solve_lower(torch.eye(2), numbers(1.0), TF32), "B must have 2 rows"),
        (lambda: solve_lower(torch.ones(2, 3), numbers(1.0, 2.0), TF32), r"L must have shape \(n, n\); got \(2, 3\)"),
        (lambda: solve_lower(torch.eye(2) * 1e-10, numbers(1.0, 2.0), FLOAT16), "L must have no zero"),
        (lambda: ordered_sum(torch.tensor(1.0), TF32), "terms must have at least one dimension"),
        (lambda: ordered_sum(torch.ones(3, 0), TF32), r"at least one entry; got \(3, 0\)"),
        (lambda: exact_sum(torch.ones(2, 2)), r"terms must have shape \(n,\); got \(2, 2\)"),
        (lambda: exact_sum([1.0, math.nan]), "terms must be finite"),
        (lambda: exact_sum([1.7e308, 1.7e308]), "sum that float64 can hold: .*overflow"),
        (lambda: exact_sum([1.0], "float32"), "format must be one of"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
