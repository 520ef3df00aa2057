"""fit_restarts: each start goes where it would go alone, and what fails, fails alone."""

import functools

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel, PeriodicKernel, RBFKernel, ScaleKernel
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.warnings import NumericalWarning
from scipy.optimize import minimize
from threadpoolctl import threadpool_info, threadpool_limits

from gpbook_utils.models import ExactModel, marginal_likelihood
from gpbook_utils.training import fit, fit_restarts, stationary
from gpbook_utils.training.batches import ExactLoss, GaussianLoss, Layout, factorise
from gpbook_utils.training.restarts import _minimise, batch_size
from gpbook_utils.training.stationary import Covariances, Stationary

RNG = np.random.default_rng(0)
X = torch.linspace(0, 10, 40, dtype=torch.float64).unsqueeze(-1)
Y = torch.sin(X).squeeze(-1) + 0.3 * torch.tensor(RNG.standard_normal(40))
LENGTHSCALE, NOISE = "covar_module.base_kernel.lengthscale", "likelihood.noise"
R, STEPS = 9, 15
STARTS = {
    LENGTHSCALE: torch.tensor(np.exp(RNG.uniform(-2, 2, R))),
    NOISE: torch.tensor(np.exp(RNG.uniform(-4, 0, R))),
}


def make_model(batch_shape, x=X, y=Y):
    kernel = ScaleKernel(RBFKernel(ard_num_dims=x.shape[-1], batch_shape=batch_shape), batch_shape=batch_shape)
    model = ExactModel(x, y, kernel)
    return model, model.likelihood


def poison(K, scale):
    """NaN where the outputscale is between 5 and 50, indefinite beyond."""
    scale = scale.detach().reshape(*scale.shape, 1, 1)
    return K * torch.where(scale > 50, -1.0, torch.where(scale > 5, torch.nan, 1.0))


class PoisonedKernel(ScaleKernel):
    def forward(self, *args, **kwargs):
        return poison(super().forward(*args, **kwargs).to_dense(), self.outputscale)


class PoisonedModel(ExactModel):
    """Gives GPyTorch a matrix instead of a lazy one, so that torch factorises it, all members in one call."""

    def forward(self, x):
        K = poison(self.covar_module(x).to_dense(), self.covar_module.outputscale)
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), K + 1e-6 * torch.eye(len(x)))


def make_poisoned(batch_shape, model=ExactModel, kernel=PoisonedKernel, y=Y):
    model = model(X, y, kernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape))
    return model, model.likelihood


def make_dense(batch_shape):
    return make_poisoned(batch_shape, PoisonedModel, ScaleKernel)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    def state():
        return torch.get_default_dtype(), torch.get_num_threads(), blas_threads(), gpytorch.settings.debug.on()

    before, random = state(), torch.get_rng_state()
    yield
    assert before == state() and torch.equal(random, torch.get_rng_state())


@functools.cache
def alone(start):
    """What a reader would write: one model, one optimiser, in a loop. In one thread, as the engine works."""
    model, likelihood = make_model(torch.Size())
    model.covar_module.base_kernel.lengthscale = STARTS[LENGTHSCALE][start]
    likelihood.noise = STARTS[NOISE][start]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = fit(model, steps=STEPS)
    torch.set_num_threads(threads)
    return losses, model


# Measured: at most 2e-14 at the end of the steps, in losses of order one and parameters of order one. The closed form
# rounds differently; the bound also allows for another processor's rounding, and is far below a step of 0.1.
CLOSED_FORM = {"rtol": 0, "atol": 1e-11}


@pytest.mark.parametrize("members", [1, 4, 16, None])
def test_every_start_goes_where_it_would_go_alone(members):
    result = fit_restarts(make_model, STARTS, steps=STEPS, members=members)
    for start in range(R):
        losses, model = alone(start)
        torch.testing.assert_close(result.trajectories["loss"][start, :-1], losses, **CLOSED_FORM)
        end = {name: value[start] for name, value in result.parameters.items()}
        assert set(end) == {LENGTHSCALE, NOISE, "covar_module.outputscale", "mean_module.constant"}
        torch.testing.assert_close(end[NOISE], model.likelihood.noise.detach()[0], **CLOSED_FORM)
        torch.testing.assert_close(
            end[LENGTHSCALE], model.covar_module.base_kernel.lengthscale[0, 0].detach(), **CLOSED_FORM
        )
        torch.testing.assert_close(result.losses[start], -marginal_likelihood(model).detach(), **CLOSED_FORM)


@pytest.mark.parametrize("members", [1, 4])
def test_without_the_closed_form_small_batches_are_the_loop_bit_by_bit(members):
    result = fit_restarts(make_model, STARTS, steps=STEPS, members=members, closed_form=False)
    for start in range(R):
        losses, model = alone(start)
        assert torch.equal(result.trajectories["loss"][start, :-1], losses)
        assert torch.equal(result.parameters[NOISE][start], model.likelihood.noise.detach()[0])


def test_the_gradient_in_closed_form():
    layout = Layout(make_model)
    rows = layout.rows(STARTS)
    loss, gradient, problems, jittered = ExactLoss(make_model, layout, R)(rows)
    assert not problems and not jittered
    by_autograd = ExactLoss(make_model, layout, R, closed_form=False)(rows)
    torch.testing.assert_close((loss, gradient), by_autograd[:2], rtol=1e-10, atol=1e-12)
    for column in range(rows.shape[1]):
        step = torch.zeros_like(rows)
        step[:, column] = 1e-5
        high, low = (ExactLoss(make_model, layout, R)(rows + sign * step)[0] for sign in (1, -1))
        torch.testing.assert_close(gradient[:, column], (high - low) / 2e-5, rtol=1e-6, atol=1e-8)


PLANE = torch.stack([X.squeeze(-1), X.squeeze(-1).cos()], -1)


class Halved(RBFKernel):
    """Not the kernel that its class suggests."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) / 2


class Warped(ExactModel):
    """A kernel of inputs that are trained with it."""

    def __init__(self, x, y, kernel):
        super().__init__(x, y, kernel)
        self.register_parameter("power", torch.nn.Parameter(torch.zeros(*kernel.batch_shape, 1, 1).to(x)))

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x + self.power * x**2))


def scaled(leaf, *args, batch_shape, **options):
    return ScaleKernel(leaf(*args, batch_shape=batch_shape, **options), batch_shape=batch_shape)


USUAL = {
    "rbf": lambda b: RBFKernel(batch_shape=b),
    "rbf, ard": lambda b: scaled(RBFKernel, batch_shape=b, ard_num_dims=2),
    "rbf, one input": lambda b: scaled(RBFKernel, batch_shape=b, active_dims=(1,)),
    "matern 1/2": lambda b: scaled(MaternKernel, 0.5, batch_shape=b),
    "matern 3/2": lambda b: scaled(MaternKernel, 1.5, batch_shape=b),
    "matern 3/2, ard": lambda b: scaled(MaternKernel, 1.5, batch_shape=b, ard_num_dims=2),
    "matern 5/2": lambda b: scaled(MaternKernel, 2.5, batch_shape=b),
    "matern 5/2, ard": lambda b: scaled(MaternKernel, 2.5, batch_shape=b, ard_num_dims=2),
    "sum": lambda b: (
        scaled(RBFKernel, batch_shape=b, active_dims=(1,)) + MaternKernel(1.5, batch_shape=b, ard_num_dims=2)
    ),
    "scaled product": lambda b: ScaleKernel(
        RBFKernel(batch_shape=b, active_dims=(0,)) * scaled(MaternKernel, 2.5, batch_shape=b), batch_shape=b
    ),
}
OTHERS = {
    "periodic": lambda b: scaled(PeriodicKernel, batch_shape=b),
    "a sum with it": lambda b: RBFKernel(batch_shape=b) + PeriodicKernel(batch_shape=b),
    "subclass": lambda b: scaled(Halved, batch_shape=b),
    "matern 1/2, ard": lambda b: scaled(MaternKernel, 0.5, batch_shape=b, ard_num_dims=2),
}


def of_kernel(kernel, model=ExactModel):
    def make(batch_shape):
        made = model(PLANE, Y, kernel(batch_shape))
        return made, made.likelihood

    return make


def some_rows(layout, count=7):
    generator = torch.Generator().manual_seed(1)
    return layout.default + 0.7 * torch.randn(count, layout.width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", USUAL)
def test_usual_kernels_have_a_faster_way_with_the_same_numbers(name, monkeypatch):
    make = of_kernel(USUAL[name])
    layout = Layout(make)
    rows = some_rows(layout)
    fast = ExactLoss(make, layout, 7)
    found = fast(rows)
    assert fast.covariances.kept and not found[2]
    monkeypatch.setattr(Covariances, "can", lambda *_: False)
    general = ExactLoss(make, layout, 7)
    # Measured: up to 2e-14 in losses and 8e-13 in gradients.
    for loss, gradient, *_ in (general(rows), ExactLoss(make, layout, 7, closed_form=False)(rows)):
        torch.testing.assert_close(found[0], loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(found[1], gradient, rtol=1e-9, atol=1e-11)
    assert not general.covariances.kept


@pytest.mark.parametrize(("name", "model"), [*((name, ExactModel) for name in OTHERS), ("rbf", Warped)])
def test_other_kernels_are_gpytorchs(name, model):
    make = of_kernel({**USUAL, **OTHERS}[name], model)
    layout = Layout(make)
    rows = some_rows(layout)
    loss = ExactLoss(make, layout, 7)
    found = loss(rows)
    assert not loss.covariances.kept and not found[2]
    by_autograd = ExactLoss(make, layout, 7, closed_form=False)(rows)
    torch.testing.assert_close(found[:2], by_autograd[:2], rtol=1e-7, atol=1e-9)  # 1e-8 is in matern 1/2 itself


class Penalty(gpytorch.mlls.AddedLossTerm):
    def __init__(self, value):
        self.value = value

    def loss(self, *_):
        return -self.value


class Penalised(ExactModel):
    """Its forward adds a term to the loss, as that of a sparse model does."""

    def __init__(self, x, y, kernel):
        super().__init__(x, y, kernel)
        self.register_added_loss_term("penalty")

    def forward(self, x):
        self.update_added_loss_term("penalty", Penalty(self.covar_module.lengthscale.flatten()))
        return super().forward(x)


def test_added_loss_terms_count():
    make, plain = of_kernel(USUAL["rbf"], Penalised), of_kernel(USUAL["rbf"])
    layout = Layout(make)
    rows = some_rows(layout)
    found, by_autograd, without = (
        ExactLoss(*which)(rows)[:2]
        for which in ((make, layout, 7), (make, layout, 7, False), (plain, Layout(plain), 7))
    )
    torch.testing.assert_close(found, by_autograd, rtol=1e-9, atol=1e-11)
    assert (found[0] > without[0] + 1e-4).all()


def test_the_faster_way_knows_its_limits(monkeypatch):
    kernel, covariances = RBFKernel(batch_shape=torch.Size([2]), ard_num_dims=2), Covariances()
    assert not covariances.can(kernel, PLANE) and covariances.can(kernel.double(), PLANE)
    assert not covariances.can(kernel, PLANE[:, :1]) and not covariances.can(kernel, PLANE.expand(2, 40, 2))
    assert not covariances.can(kernel, PLANE.clone().requires_grad_())
    assert not covariances.can(RBFKernel(batch_shape=torch.Size([2, 3])).double(), PLANE)
    monkeypatch.setattr(stationary, "_MOST", 40 * 40 * 2 - 1)
    assert not covariances.can(kernel, PLANE)


@pytest.mark.filterwarnings("ignore:The last_dim_is_batch argument is deprecated:DeprecationWarning")
def test_the_faster_way_is_for_a_kernel_at_the_same_points():
    kernel, loss = RBFKernel(batch_shape=torch.Size([2])).double(), ExactLoss(make_model, Layout(make_model), 2)
    for matrix in (kernel(PLANE, PLANE + 1), kernel(PLANE, last_dim_is_batch=True)):
        assert torch.equal(loss._dense(matrix), matrix.to_dense()) and not loss.covariances.kept
    loss._dense(kernel(PLANE))
    assert loss.covariances.kept


def test_squared_differences_are_those_of_the_points_at_hand():
    kernel, covariances = RBFKernel(batch_shape=torch.Size([2])).double(), Covariances()
    for x in [PLANE, PLANE + 1, 2 * PLANE, *(PLANE[:k] for k in range(1, 20)), PLANE]:
        torch.testing.assert_close(covariances(kernel, x), kernel(x).to_dense(), rtol=0, atol=1e-13)
        assert len(covariances.kept) <= 8
    assert len(covariances.kept) == 8  # for as many parts of a kernel, which are asked for in turn


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, np.inf])
def test_the_gradient_of_a_stationary_kernel(nu):
    squares = (PLANE[:4].T.unsqueeze(-1) - PLANE[:4].T.unsqueeze(-2)).square().flatten(1)
    weights = torch.tensor([[1.0, 2.0], [0.1, 0.2], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[1.0], [2.0], [0.3]], dtype=torch.float64, requires_grad=True)
    at = weights, scale
    assert torch.autograd.gradcheck(lambda w, s: Stationary.apply(squares, w, s, nu), at)


def test_the_gradient_of_a_gaussian_for_any_symmetric_matrix():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64).requires_grad_()
    diagonal = (torch.rand(3, 6, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
    residual = torch.randn(3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    scales = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)  # each member has its own place in what is wanted
    loss, problems, jittered = GaussianLoss.apply(root @ root.mT, diagonal, residual)
    assert not problems and not jittered
    normal = torch.distributions.MultivariateNormal(torch.zeros(6).double(), root @ root.mT + diagonal.diag_embed())
    expected = -normal.log_prob(residual)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    parts = root, diagonal, residual
    found, wanted = (torch.autograd.grad((scales * value).sum(), parts) for value in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_both_ways_end_at_the_same_optima(monkeypatch):
    options = {"optimizer": "lbfgs", "tol": 1e-7}
    fast = fit_restarts(make_model, STARTS, **options)
    monkeypatch.setattr(Covariances, "can", lambda *_: False)
    general = fit_restarts(make_model, STARTS, **options)
    torch.testing.assert_close(fast.losses, general.losses, rtol=0, atol=2e-12)


def test_lbfgs_ends_at_optima_and_leaves_the_batch():
    result = fit_restarts(make_model, STARTS, optimizer="lbfgs", tol=1e-7, members=4)
    assert not result.failures and (result.slopes <= 1e-6).all()
    assert result.steps.unique().numel() > 1  # each stopped when it was done
    for start in range(R):
        steps = int(result.steps[start])
        path = result.trajectories["loss"][start]
        assert path[: steps + 1].diff().max() <= 1e-12 and path[steps + 1 :].isnan().all()
        assert path[steps] == result.losses[start]
        model, _ = result.model(start)
        assert -marginal_likelihood(model).item() == pytest.approx(result.losses[start].item(), rel=1e-10)
    by_adam = fit_restarts(make_model, {LENGTHSCALE: [1.0]}, steps=600, lr=0.1)
    assert result.losses.min().item() == pytest.approx(by_adam.losses[0].item(), abs=1e-9)
    assert result.best == int(result.losses.argmin()) and f"start {result.best}" in repr(result)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_what_fails_fails_alone(optimizer):
    scales = torch.ones(R, dtype=torch.float64)
    sound = fit_restarts(make_poisoned, {**STARTS, "covar_module.outputscale": scales}, steps=10, optimizer=optimizer)
    scales = scales.clone()
    scales[3], scales[7] = 10, 100
    result = fit_restarts(make_poisoned, {**STARTS, "covar_module.outputscale": scales}, steps=10, optimizer=optimizer)
    assert set(result.failures) == {3, 7}
    assert result.failures[3].startswith("the covariance has NaN entries, at ")
    assert result.failures[7].startswith("the covariance is not positive definite, at ")
    others = [start for start in range(R) if start not in result.failures]
    torch.testing.assert_close(result.losses[others], sound.losses[others], rtol=0, atol=1e-9)
    for start in (3, 7):
        assert result.losses[start].isnan() and result.slopes[start].isnan() and result.steps[start] == 0
        assert result.parameters["covar_module.outputscale"][start] == pytest.approx(scales[start].item())
    assert result.best not in result.failures and "2 failed" in repr(result)


@pytest.mark.filterwarnings("ignore:A not p.d.:linear_operator.utils.warnings.NumericalWarning")  # GPyTorch's own
@pytest.mark.parametrize(("make", "closed_form"), [(make_poisoned, False), (make_dense, True), (make_dense, False)])
def test_what_fails_as_a_whole_batch_is_tried_one_by_one(make, closed_form):
    starts = {"covar_module.outputscale": [1.0, 100.0, 10.0, 2.0]}
    result = fit_restarts(make, starts, steps=2, closed_form=closed_form)
    assert set(result.failures) == {1, 2} and result.losses[[0, 3]].isfinite().all()
    assert result.failures[1] == "the covariance is not positive definite, at step 0"
    single = fit_restarts(make, {"covar_module.outputscale": [2.0]}, steps=2, closed_form=closed_form)
    torch.testing.assert_close(result.losses[3:], single.losses, rtol=0, atol=1e-11)
    pair = fit_restarts(make, {"covar_module.outputscale": [100.0, 2.0]}, steps=2, closed_form=closed_form)
    assert set(pair.failures) == {0}
    torch.testing.assert_close(pair.losses[1:], single.losses, rtol=0, atol=1e-11)


def test_what_fails_on_the_way_keeps_its_path():
    def make(batch_shape):  # large targets draw the outputscale upwards, over 5 in one of the starts
        return make_poisoned(batch_shape, y=10 * Y)

    result = fit_restarts(make, {"covar_module.outputscale": [0.1, 4.0]}, steps=15)
    steps = int(result.steps[1])
    assert 0 not in result.failures and 0 < steps < 15 and f"at step {steps}" in result.failures[1]
    assert (
        result.trajectories["loss"][1, :steps].isfinite().all() and result.trajectories["loss"][1, steps:].isnan().all()
    )


def test_a_line_search_turns_back_from_what_fails():
    def make(batch_shape):  # the optimum is behind the poison
        return make_poisoned(batch_shape, y=10 * Y)

    # Last bits decide how a line search ends beside a wall. Here they come from the starts, not from the processor.
    ulps = 1 + torch.finfo(torch.float64).eps * torch.arange(-12, 13)
    result = fit_restarts(make, {"covar_module.outputscale": torch.cat([0.1 * ulps, 4 * ulps])}, optimizer="lbfgs")
    assert not result.failures and (result.steps > 0).all()
    for start, path in enumerate(result.trajectories["loss"]):
        assert path[: result.steps[start] + 1].isfinite().all()
    scale = result.parameters["covar_module.outputscale"]
    assert (scale <= 5).all() and (scale > 5 - 1e-6).all()


class Barrier:
    """A loss that falls along its second number, ever more slowly, up to a wall; asked as a batch is."""

    def __init__(self, wall):
        self.wall = wall

    def beyond(self, x):
        return x[1] >= self.wall

    def loss(self, x):
        rest = 0.01 * np.exp(-x[1])
        value = 1 + 0.5 * (x[0] - 1) ** 2 + rest * (1 + x[0] ** 2)
        return value, np.array([x[0] - 1 + 2 * rest * x[0], -rest * (1 + x[0] ** 2)])

    def switch(self, x):
        if self.beyond(x):
            return np.nan, np.zeros_like(x), "behind the wall", False
        return *self.loss(x), None, False


class Bowl(Barrier):
    """A quadratic, of condition up to 10,000, whose lowest point lies outside the ball in which it has a value."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        self.matrix = axes @ np.diag(10 ** rng.uniform(-2, 2, 3)) @ axes.T
        centre = rng.standard_normal(3)
        self.centre = 5 * centre / np.linalg.norm(centre)
        self.radius = rng.uniform(0.2, 2)

    def beyond(self, x):
        return x @ x >= self.radius**2

    def loss(self, x):
        off = x - self.centre
        return 0.5 * off @ self.matrix @ off, self.matrix @ off


@pytest.mark.parametrize("start", [0.0, 2.0, 4.0])
def test_a_start_that_ends_at_a_wall_has_not_failed(start):
    for wall in np.linspace(7.5, 8.5, 51):
        path = _minimise(Barrier(wall), torch.tensor([5.0, start], dtype=torch.float64), 1e-7, 400)
        assert path.failure is None and path.losses.isfinite().all() and (path.losses.diff() <= 0).all()
        assert (path.rows[:, 1] < wall).all()
        # Measured: up to 3e-11 from the wall, where no step goes along it, and 1.2e-3 and 7e-7 from the lowest point.
        assert wall - path.rows[-1, 1] < 1e-9 and abs(path.rows[-1, 0] - 1) < 1e-2
        assert path.losses[-1].item() == pytest.approx(1 + 0.02 * np.exp(-wall), abs=1e-5)


@pytest.mark.parametrize("seed", range(60))
def test_beside_a_wall_no_step_down_is_left(seed):
    bowl, tol = Bowl(seed), 1e-5
    path = _minimise(bowl, torch.zeros(3, dtype=torch.float64), tol, 400)
    end = path.rows[-1].numpy()
    loss, gradient = bowl.loss(end)
    assert path.failure is None and path.losses[-1] == loss and path.slope == np.abs(gradient).max()
    steps = [end - 2.0**-k * gradient for k in range(-10, 50)]
    lower = min(bowl.loss(x)[0] for x in [end, *steps] if not bowl.beyond(x))
    # Measured: up to 1e-11; the square of the tolerance counts as convergence.
    assert loss - lower <= 10 * tol**2 * max(1, loss)


def test_fewer_steps_are_the_beginning_of_more():
    for seed in range(10):
        whole = _minimise(Bowl(seed), torch.zeros(3, dtype=torch.float64), 1e-7, 400)
        for steps in range(1, len(whole.losses)):
            part = _minimise(Bowl(seed), torch.zeros(3, dtype=torch.float64), 1e-7, steps)
            assert torch.equal(part.rows, whole.rows[: steps + 1])
            assert torch.equal(part.losses, whole.losses[: steps + 1])


class Rough(Bowl):
    """A bowl without an edge, whose values are rough where its slope is not: SciPy gives up lines in it."""

    def beyond(self, x):
        return False

    def loss(self, x):
        value, slope = super().loss(x)
        return value + 1e-6 * np.sin(1e9 * x.sum()), slope


def test_without_a_wall_it_is_scipy_bit_by_bit():
    ends = set()
    for seed in range(20):
        rough, points, tol = Rough(seed), [np.zeros(3)], 1e-7
        options = {"gtol": tol, "ftol": tol**2, "maxiter": 400}
        end = minimize(rough.loss, points[0], jac=True, method="L-BFGS-B", callback=points.append, options=options)
        path = _minimise(rough, torch.zeros(3, dtype=torch.float64), tol, 400)
        assert np.array_equal(path.rows, points) and path.losses.tolist() == [rough.loss(x)[0] for x in points]
        assert path.slope == np.abs(end.jac).max()
        ends.add(end.message.partition(":")[0])
    assert "ABNORMAL" in ends


def test_all_fail():
    result = fit_restarts(make_poisoned, {"covar_module.outputscale": [100.0, 100.0]}, steps=2)
    assert len(result.failures) == 2 and repr(result) == "2 starts, 2 failed"
    with pytest.raises(ValueError, match="all 2 starts failed; the first because the covariance is not positive"):
        _ = result.best


def test_jitter_is_gpytorchs_and_is_reported():
    K = torch.ones(3, 3, dtype=torch.float64) - 1e-9 * torch.eye(3, dtype=torch.float64)
    good = torch.eye(3, dtype=torch.float64)
    factor, problems, jittered = factorise(torch.stack([K, good, -good, torch.nan * good]))
    assert jittered == {0} and set(problems) == {2, 3} and torch.equal(factor[1], good)
    with pytest.warns(NumericalWarning):
        assert torch.equal(factor[0].triu(), psd_safe_cholesky(K).mT)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs"])
def test_same_starts_same_result(optimizer):
    options = {"steps": 20, "optimizer": optimizer, "members": 4}
    one, two, spread = (fit_restarts(make_model, STARTS, **options, workers=workers) for workers in (1, 1, 2))
    for other in (two, spread):
        assert torch.equal(one.losses, other.losses) and torch.equal(one.slopes, other.slopes)
        for name, path in one.trajectories.items():
            assert torch.equal(path.nan_to_num(-1), other.trajectories[name].nan_to_num(-1))


def test_every_spelling_of_a_name():
    raw = make_model(torch.Size())[1].noise_covar.raw_noise_constraint.inverse_transform(STARTS[NOISE])
    spellings = [
        {NOISE: STARTS[NOISE]},
        {NOISE: STARTS[NOISE].unsqueeze(-1)},
        {"likelihood.noise_covar.noise": STARTS[NOISE]},
        {"likelihood.noise_covar.raw_noise": raw},
        {"likelihood.noise": STARTS[NOISE].tolist()},
    ]
    results = [fit_restarts(make_model, starts, steps=2) for starts in spellings]
    for result in results:
        assert torch.equal(result.losses, results[0].losses)
        torch.testing.assert_close(result.trajectories[NOISE][:, 0], STARTS[NOISE], rtol=1e-12, atol=0)


def test_vectors_fixed_parameters_and_priors():
    x = torch.cat([X, X.flip(0) ** 2 / 10], -1)

    def make(batch_shape):
        model, likelihood = make_model(batch_shape, x)
        kernel = model.covar_module.base_kernel
        kernel.register_prior("prior", gpytorch.priors.GammaPrior(3.0, 6.0), "lengthscale")
        kernel.double()
        model.covar_module.raw_outputscale.requires_grad_(False)
        return model, likelihood

    lengthscales = torch.tensor([[1.0, 2.0], [0.5, 3.0], [2.0, 1.0]], dtype=torch.float64)
    starts = {LENGTHSCALE: lengthscales.unsqueeze(1), "covar_module.outputscale": [1.0, 2.0, 3.0]}
    result = fit_restarts(make, starts, steps=5)
    assert result.parameters[LENGTHSCALE].shape == (3, 1, 2) and result.trajectories[LENGTHSCALE].shape == (3, 6, 1, 2)
    torch.testing.assert_close(result.parameters["covar_module.outputscale"], torch.tensor([1.0, 2.0, 3.0]).double())
    for start in range(3):
        model, _ = make(torch.Size())
        model.covar_module.base_kernel.lengthscale = lengthscales[start]
        model.covar_module.outputscale = torch.tensor(start + 1.0).double()
        torch.testing.assert_close(result.trajectories["loss"][start, :-1], fit(model, steps=5), **CLOSED_FORM)


def test_float32_stays_float32():
    result = fit_restarts(lambda b: make_model(b, X.float(), Y.float()), STARTS, optimizer="lbfgs", tol=1e-3)
    assert result.losses.dtype == result.parameters[NOISE].dtype == torch.float32 and not result.failures


def test_progress_is_silent_unless_asked_for(capsys):
    fit_restarts(make_model, {NOISE: [0.1]}, steps=1)
    assert capsys.readouterr() == ("", "")
    fit_restarts(make_model, {NOISE: [0.1]}, steps=1, progress=True)
    assert "1/1" in capsys.readouterr().err


def test_batches_fit_a_cache():
    assert [batch_size(n) for n in (1, 50, 200, 399, 400, 401, 5000)] == [64, 64, 8, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ({}, "non-empty dictionary"),
        (torch.ones(3), "non-empty dictionary"),
        ({"lengthscale": [1.0]}, f"names 'lengthscale'; the model's parameters are .*{LENGTHSCALE}"),
        ({NOISE: torch.ones(3), LENGTHSCALE: torch.ones(4)}, r"must have shape \(3, 1, 1\); got \(4,\)"),
        ({NOISE: torch.ones(3, 2)}, r"must have shape \(3, 1\); got \(3, 2\)"),
        ({NOISE: "text"}, r"starts\['likelihood.noise'\] must be a tensor of numbers; got 'text'"),
        ({NOISE: 1.0}, "one entry for each start"),
        ({NOISE: []}, "one entry for each start"),
        ({NOISE: [0.1, float("nan")]}, "must be finite.*; start 1 is nan"),
        ({NOISE: [0.1, 1e-9]}, r"satisfy GreaterThan\(1.000E-04\); start 1 is 1"),
        ({LENGTHSCALE: [-1.0]}, r"satisfy Positive\(\); start 0 is -1"),
        ({NOISE: [0.1], "likelihood.noise_covar.raw_noise": [0.1]}, "one parameter twice"),
    ],
)
def test_bad_starts(starts, message):
    with pytest.raises(ValueError, match=message):
        fit_restarts(make_model, starts)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"optimizer": "newton"}, "optimizer must be one of 'adam', 'sgd', 'lbfgs'; got 'newton'"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"lr": 0}, "lr must be one finite real number, above 0"),
        ({"tol": -1}, "tol must be one finite real number, above 0"),
        ({"workers": 0}, "workers must be a whole number"),
        ({"members": True}, "members must be a whole number"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        fit_restarts(make_model, STARTS, **option)


def test_models_that_do_not_batch():
    def unbatched(batch_shape):
        return make_model(torch.Size())

    with pytest.raises(ValueError, match=r"leading dimension for the members; .* Pass batch_shape=batch_shape"):
        fit_restarts(unbatched, STARTS)
    with pytest.raises(ValueError, match="must return a GPyTorch model and its likelihood; got"):
        fit_restarts(lambda batch_shape: make_model(batch_shape)[0], STARTS)
    with pytest.raises(ValueError, match="must return an ExactGP; got RBFKernel"):
        fit_restarts(
            lambda b: (RBFKernel(batch_shape=b), gpytorch.likelihoods.GaussianLikelihood(batch_shape=b)), STARTS
        )


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_training_runs_in_one_thread_of_every_blas(optimizer):
    seen = set()

    class Watched(ExactModel):
        def forward(self, x):
            seen.update(blas_threads())
            return super().forward(x)

    def watched(batch_shape):
        model = Watched(X, Y, RBFKernel(batch_shape=batch_shape))
        return model, model.likelihood

    with threadpool_limits(2, "blas"):
        fit_restarts(watched, {"covar_module.lengthscale": torch.tensor([1.0])}, optimizer=optimizer, steps=2)
    assert seen == {1}
