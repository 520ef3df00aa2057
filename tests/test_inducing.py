"""Inducing points and the sparse models: against textbook formulas, and what bad input gets."""

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel

from gpbook_utils import inducing
from gpbook_utils.models import (
    ExactModel,
    SparseModel,
    VariationalModel,
    marginal_likelihood,
    posterior,
    prior_covariance,
    set_optimal_q,
    variational_bound,
)
from gpbook_utils.training import fit

RNG = np.random.default_rng(0)
X = torch.tensor(RNG.uniform(size=(60, 2)))
Y = torch.sin(6 * X[:, 0]) + X[:, 1]
RULES = {
    "random": inducing.random,
    "k_means": inducing.k_means,
    "greedy": lambda x, m, seed: inducing.greedy(x, m, RBFKernel().to(x), seed=seed),
}


def kernel():
    return ScaleKernel(RBFKernel()).double()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_repeats_and_returns_no_view(rule):
    before, state = X.clone(), torch.get_rng_state()
    z = RULES[rule](X, 7, seed=1)
    assert z.shape == (7, 2) and z.dtype == X.dtype
    assert torch.equal(z, RULES[rule](X, 7, seed=1))
    assert not torch.equal(z, RULES[rule](X, 7, seed=2))
    z += 1
    assert torch.equal(X, before) and torch.equal(torch.get_rng_state(), state)
    assert RULES[rule](X.float(), 7, seed=1).dtype == torch.float32


def test_random_and_greedy_choose_different_rows():
    for rule in ("random", "greedy"):
        z = RULES[rule](X, 20, seed=0)
        assert all((row == X).all(1).any() for row in z) and len(z.unique(dim=0)) == 20


@pytest.mark.parametrize("base", [RBFKernel, MaternKernel])
def test_greedy_is_brute_force(base):
    """At each step, the row whose variance given the chosen ones is largest, computed from scratch."""
    covariance = base().double()
    covariance.lengthscale = torch.tensor(0.5, dtype=torch.float64)
    K = covariance(X).to_dense().detach()
    chosen = [0]
    for _ in range(11):
        K_z = K[chosen][:, chosen]
        variance = K.diagonal() - (K[:, chosen] @ torch.linalg.inv(K_z) * K[:, chosen]).sum(1)
        chosen.append(int(variance.argmax()))
    assert torch.equal(inducing.greedy(X, 12, covariance), X[chosen])


def test_greedy_takes_a_function_and_non_stationary_variance():
    linear = lambda p, q: p @ q.mT  # noqa: E731
    assert torch.equal(inducing.greedy(X, 1, linear)[0], X[X.square().sum(1).argmax()])
    with pytest.raises(ValueError, match="m must be at most 2: given 2 rows, no row has variance left; got 3"):
        inducing.greedy(X, 3, linear)


def test_ties_go_to_the_first_row_and_a_seed_reorders_them():
    far = torch.arange(6.0).double().unsqueeze(-1) * 100
    assert torch.equal(inducing.greedy(far, 4, kernel()), far[:4])
    assert len({float(inducing.greedy(far, 1, kernel(), seed=seed)) for seed in range(20)}) > 2


def test_k_means_ends_where_each_centre_is_a_mean():
    z = inducing.k_means(X, 5, seed=0)
    nearest = torch.cdist(X, z).argmin(1)
    for j in range(5):
        assert torch.allclose(z[j], X[nearest == j].mean(0), atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_bad_input(rule):
    for m in (0, 61, 2.0):
        with pytest.raises(ValueError, match="m must be a whole number, from 1 to 60"):
            RULES[rule](X, m, seed=0)
    with pytest.raises(ValueError, match="x has .* NaN or infinite entries"):
        RULES[rule](X / 0, 2, seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\)"):
        RULES[rule](X[:, 0], 2, seed=0)


def test_k_means_needs_distinct_rows():
    with pytest.raises(ValueError, match="number of distinct rows of x; got 2 for 1 rows"):
        inducing.k_means(torch.zeros(3, 1), 2, seed=0)


def test_sgpr_and_svgp_attain_titsias_bound():
    z = X[:9]
    sparse, svgp = SparseModel(X, Y, z, kernel()), VariationalModel(z, kernel(), jitter=1e-10)
    set_optimal_q(svgp, X, Y)
    K, K_xz = prior_covariance(svgp, X), kernel()(X, z).to_dense().detach()
    Q = K_xz @ torch.linalg.inv(prior_covariance(svgp, z)) @ K_xz.mT
    noise = sparse.likelihood.noise.item()
    density = torch.distributions.MultivariateNormal(torch.zeros(60).double(), Q + noise * torch.eye(60))
    bound = density.log_prob(Y) - (K - Q).trace() / (2 * noise)
    assert 60 * marginal_likelihood(sparse).item() == pytest.approx(bound.item(), rel=1e-6)
    assert 60 * variational_bound(svgp, X, Y).item() == pytest.approx(bound.item(), rel=1e-6)


def test_the_optimal_q_is_stationary_and_exact_with_all_points():
    model = VariationalModel(X[:9], kernel())
    set_optimal_q(model, X, Y)
    variational_bound(model, X, Y).backward()
    q = model.variational_strategy._variational_distribution
    assert q.variational_mean.grad.abs().max() < 1e-6 and q.chol_variational_covar.grad.tril().abs().max() < 1e-6
    z = X[::4]
    covariance = MaternKernel(0.5).double()
    reference = ExactModel(z, Y[::4], covariance)
    full = VariationalModel(z, covariance, jitter=1e-10)
    set_optimal_q(full, z, Y[::4])
    p, q = posterior(reference, X), posterior(full, X)
    assert torch.allclose(p.mean, q.mean, atol=1e-6)
    assert torch.allclose(p.covariance_matrix, q.covariance_matrix, atol=1e-6)


def test_inducing_points_are_copied():
    x = X.clone()
    sparse, svgp = SparseModel(x, Y, x[::10]), VariationalModel(x[::10])
    fit(sparse, steps=3)
    assert torch.equal(x, X) and not torch.equal(sparse.covar_module.inducing_points, X[::10])
    assert svgp.variational_strategy.inducing_points.data_ptr() != x.data_ptr()
    assert sparse.covar_module.likelihood is sparse.likelihood


def test_the_jitter_and_the_points_can_be_held():
    model = VariationalModel(X[:4], learn_inducing_locations=False, jitter=1e-3)
    assert model.variational_strategy.jitter_val == 1e-3
    assert not any("inducing" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (X[:3, :1], "z and x must agree in columns, dtype and device; got 1 torch.float64"),
        (X[:3].float(), "z and x must agree"),
        (X[0], r"z must have shape \(n, d\)"),
        (X[:0], "z is empty"),
        (X[:3] / 0, "z has .* NaN or infinite"),
    ],
)
def test_bad_inducing_points(z, message):
    with pytest.raises(ValueError, match=message):
        SparseModel(X, Y, z)
    with pytest.raises(ValueError, match=message):
        set_optimal_q(VariationalModel(z), X, Y)
