"""The ruler, on differences whose size is known."""

import math

import gpytorch
import linear_operator
import pytest
import torch
from torch.distributions import MultivariateNormal

from gpbook_utils.compare import compare, condition_number, covariance, kl_divergence, ulp, unit_roundoff

IDENTITY = torch.eye(3, dtype=torch.float64)
ZERO = torch.zeros(3, dtype=torch.float64)


def gaussian(mean=ZERO, K=IDENTITY):
    return MultivariateNormal(mean, K)


def test_equal():
    result = compare(IDENTITY, IDENTITY.clone())
    assert result.equal and result.max_abs == result.relative == result.ulps == 0
    assert repr(result) == result.verdict == "bitwise equal"


def test_one_ulp_is_one_ulp():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        a = torch.full((4,), 1.5, dtype=dtype)
        b = a.clone()
        b[2] += torch.finfo(dtype).eps
        result = compare(a, b)
        assert result.ulps == 1 and result.verdict == "rounding explains it"


def test_known_sizes():
    result = compare(2 * IDENTITY, 2 * IDENTITY + 0.5)
    assert result.max_abs == 0.5
    assert result.relative == pytest.approx(1.5 / math.sqrt(12))
    assert result.verdict == "more than rounding explains"


def test_formats_are_compared_only_on_request():
    a, b = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float32)
    b[0] += 2**-23
    with pytest.raises(ValueError, match="same dtype; got torch.float64 and torch.float32. Cast one"):
        compare(a, b)
    result = compare(a, b.double(), computed_in=torch.float32)
    assert result.ulps == 1 and result.verdict == "rounding explains it"


def test_sizes_of_any_magnitude():
    assert compare(torch.tensor([[1.0]]), torch.tensor([[1 + 2**-23]])).verdict == "rounding explains it"
    tiny = torch.tensor([1e-7, 2e-7], dtype=torch.float16)  # subnormal: one unit apart is rounding
    assert compare(tiny, tiny + torch.tensor([6e-8, 0], dtype=torch.float16)).verdict == "rounding explains it"
    for size in (1e-200, 1e300, torch.finfo(torch.float64).max / 2):
        assert compare(IDENTITY * size, IDENTITY * size * 1.5).relative == pytest.approx(0.5)


def test_condition_number_and_scale_widen_what_rounding_explains():
    b = IDENTITY + 1e-10
    assert compare(IDENTITY, b).verdict == "more than rounding explains"
    assert compare(IDENTITY, b, condition_number=1e7).verdict == "rounding explains it"
    assert compare(IDENTITY, b, scale=1e7).verdict == "rounding explains it"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_rounding_explains_ends_at_twice_n_units(dtype):
    """2 n u times the largest entry, in matrices of several sizes: just below it is explained, just above it is not."""
    for n in (3, 50):
        a = torch.eye(n, dtype=dtype)
        for share, verdict in ((0.9, "rounding explains it"), (1.1, "more than rounding explains")):
            b = a.clone()
            b[0, 1] = share * 2 * n * unit_roundoff(dtype)
            result = compare(a, b)
            assert (result.verdict, result.rounding) == (verdict, 2 * n * unit_roundoff(dtype))


def test_zero_reference():
    assert compare(ZERO, ZERO).relative == 0
    assert compare(ZERO, ZERO + 1).relative == math.inf


def test_gaussians():
    result = compare(gaussian(), gaussian(mean=ZERO + 2))
    assert not result.equal and result.max_abs == 0 and result.shift == 2 and result.kl == pytest.approx(6)
    assert result.verdict == "more than rounding explains" and "mean shift 2 sd" in repr(result)
    assert compare(gaussian(), gaussian()).equal


def test_kl_against_torch():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(2, 5, 5, dtype=torch.float64, generator=generator)
    K = factors @ factors.mT + torch.eye(5, dtype=torch.float64)
    means = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    a, b = MultivariateNormal(means[0], K[0]), MultivariateNormal(means[1], K[1])
    expected = torch.distributions.kl_divergence(a, b).item()
    assert kl_divergence(a, b)[0] == pytest.approx(expected, rel=1e-12)


def test_kl_of_near_equals_is_not_lost_in_cancellation():
    assert kl_divergence(gaussian(), gaussian(K=IDENTITY * (1 + 1e-9)))[0] == pytest.approx(0.75e-18, rel=1e-5)


def test_kl_of_very_different_gaussians():
    narrow, wide = gaussian(K=IDENTITY * 1e-17), gaussian()
    assert kl_divergence(narrow, wide)[0] == pytest.approx(torch.distributions.kl_divergence(narrow, wide).item())
    assert kl_divergence(gaussian(K=IDENTITY * 1e300), gaussian(K=IDENTITY * 1e-300))[0] is None
    with pytest.raises(ValueError, match="b must be a MultivariateNormal; got Tensor"):
        kl_divergence(wide, IDENTITY)
    with pytest.raises(ValueError, match="the same number of variables; got 3 and 2"):
        kl_divergence(wide, MultivariateNormal(ZERO[:2], IDENTITY[:2, :2]))


def test_a_covariance_must_be_symmetric():
    lopsided = linear_operator.to_linear_operator(torch.tensor([[1.0, 0.9], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="covariance of a must be symmetric"):
        covariance(gpytorch.distributions.MultivariateNormal(torch.zeros(2), lopsided), "a")


def test_no_variance_no_shift():
    flat = gpytorch.distributions.MultivariateNormal(ZERO, linear_operator.to_linear_operator(0 * IDENTITY))
    assert compare(flat, flat).shift == 0


def test_a_variance_that_rounding_made_negative_counts_as_none():
    below_zero = linear_operator.to_linear_operator(-1e-9 * IDENTITY)
    a, b = (gpytorch.distributions.MultivariateNormal(ZERO + shift, below_zero) for shift in (0.0, 1.0))
    assert compare(a, b).shift == math.inf


def test_kl_is_undefined_with_its_reason():
    ones = linear_operator.to_linear_operator(torch.ones(3, 3, dtype=torch.float64))  # torch's own class would raise
    singular = gpytorch.distributions.MultivariateNormal(ZERO, ones)
    result = compare(gaussian(), singular)
    assert result.kl is None and "covariance of b is not positive definite" in result.kl_note
    assert "undefined" in repr(result)


def test_notebook_text_has_no_digit():
    bundle = compare(IDENTITY, IDENTITY + 0.5)._repr_mimebundle_()
    assert bundle["text/plain"] == "more than rounding explains"
    assert "0.5" in bundle["text/html"]


def test_gpytorch_lazy_matrices():
    x = torch.linspace(0, 1, 4).unsqueeze(-1)
    K = gpytorch.kernels.RBFKernel()(x)
    assert compare(K, K.to_dense()).equal


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (IDENTITY, IDENTITY[:2], r"same shape; got \(3, 3\) and \(2, 3\)$"),
        (IDENTITY, IDENTITY.float(), "same dtype; got torch.float64 and torch.float32. Cast one of them"),
        (IDENTITY, IDENTITY * math.nan, "b has 9 NaN or infinite entries"),
        (IDENTITY / 0, IDENTITY, "a has 9 NaN or infinite"),
        (IDENTITY[:0], IDENTITY[:0], "a is empty"),
        (IDENTITY.int(), IDENTITY, "a must be a dense floating-point tensor .*; got Tensor of torch.int32"),
        ([[1.0]], IDENTITY, r"a must be a dense floating-point tensor .*; got \[\[1.0\]\]"),
        (IDENTITY.to_sparse(), IDENTITY, "a must be a dense floating-point tensor .* torch.sparse_coo"),
        (torch.tensor(1.0), torch.tensor(1.0), r"a must have shape \(n,\) or \(n, m\); got \(\)"),
        (IDENTITY.expand(2, 3, 3), IDENTITY.expand(2, 3, 3), "a must have shape"),
        (gaussian(mean=ZERO), None, "both be Gaussians; got MultivariateNormal and NoneType"),
        (gaussian(), IDENTITY, "both be matrices or both be Gaussians"),
    ],
)
def test_bad_input(a, b, message):
    with pytest.raises(ValueError, match=message):
        compare(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"condition_number": 0.5},
        {"condition_number": math.nan},
        {"condition_number": None},
        {"scale": 0},
        {"scale": -1},
        {"scale": "a"},
        {"size": 0},
        {"computed_in": torch.int32},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        compare(IDENTITY, IDENTITY, **options)


def test_a_batch_of_gaussians_is_refused():
    batch = MultivariateNormal(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))
    with pytest.raises(ValueError, match="a must be one Gaussian, not a batch"):
        compare(batch, batch)


def test_condition_number():
    assert condition_number(torch.diag(torch.tensor([1e-3, 1.0, 10.0], dtype=torch.float64))) == pytest.approx(1e4)
    assert condition_number(torch.ones(2, 2, dtype=torch.float64) - 2 * torch.eye(2)) == math.inf
    assert condition_number(torch.diag(torch.tensor([-0.5, 1.0, 2.0]))) == math.inf
    for K, message in [
        (torch.ones(2, 3), r"K must have shape \(n, n\)"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
    ]:
        with pytest.raises(ValueError, match=message):
            condition_number(K)


def test_units():
    assert unit_roundoff(torch.float32) == 2**-24
    for value in (0.3, 1.0, 7.999999999999999, 1000.0, 1e-300, 5e-324):
        assert ulp(value, torch.float64) == math.nextafter(value, math.inf) - value
    assert ulp(0.0, torch.float32) == 2**-149
    with pytest.raises(ValueError, match="magnitude"):
        ulp(-1.0, torch.float32)
