"""fit_minibatches: each member goes where it would go alone, as far as its own one-ulp twin does."""

import gpytorch
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch.utils.data import DataLoader
from tqdm import tqdm

from gpbook_utils import data, inducing
from gpbook_utils.models import ExactModel, VariationalModel, posterior, variational_bound
from gpbook_utils.training import fit_alone, fit_minibatches, minibatches, one_ulp
from gpbook_utils.training.minibatches import batches

TABLE = data.load("seattle")
X, Y = TABLE.x[::8], TABLE.standardised[::8]
Z, MEAN = "variational_strategy.inducing_points", "variational_strategy._variational_distribution.variational_mean"
COVAR = "variational_strategy._variational_distribution.chol_variational_covar"
SCALE = "covar_module.outputscale"
M, R = 6, 4
STARTS = {Z: torch.stack([inducing.random(X, M, seed=seed) for seed in range(R)])}
OPTIONS = {"batch_size": 50, "orders": [5, 6, 7, 8], "seeds": [1, 2, 3, 4], "steps": 12, "lr": 0.1}


def make_model(batch_shape, kernel=RBFKernel):
    model = VariationalModel(X[:M], ScaleKernel(kernel(batch_shape=batch_shape), batch_shape=batch_shape))
    return model, model.likelihood


class PoisonedKernel(ScaleKernel):
    """NaN where the outputscale is below 0.5 or between 5 and 50, indefinite beyond."""

    def forward(self, *args, **kwargs):
        K = super().forward(*args, **kwargs)
        K = K if isinstance(K, torch.Tensor) else K.to_dense()
        scale = self.outputscale.detach()
        scale = scale.reshape(*scale.shape, *[1] * (1 if kwargs.get("diag") else 2))
        return K * torch.where(scale > 50, -1.0, torch.where((scale > 5) | (scale < 0.5), torch.nan, 1.0))


def make_poisoned(batch_shape):
    model = VariationalModel(X[:M], PoisonedKernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape))
    return model, model.likelihood


@pytest.fixture(autouse=True)
def global_state_is_left_alone():
    def state():
        return torch.get_default_dtype(), torch.get_num_threads(), gpytorch.settings.debug.on()

    before, random = state(), torch.get_rng_state()
    yield
    assert before == state() and torch.equal(random, torch.get_rng_state())


def fit_some(**options):
    return fit_minibatches(make_model, X, Y, STARTS, **{**OPTIONS, **options})


# Adam divides a gradient by its own size plus 1e-8, so rounding of 1e-16 in one that should be zero moves a parameter
# by up to 1e-8 learning rates a step: 5e-9 in all. Measured at most 2e-11, where a step is 0.1.
FIRST_STEPS = {"rtol": 0, "atol": 1e-8}


@pytest.mark.parametrize("members", [1, 3, 32])
def test_the_first_steps_agree_to_rounding(members):
    result = fit_some(members=members, steps=5, record=1)
    for member in range(R):
        model, likelihood, losses = fit_alone(member, make_model, X, Y, STARTS, **{**OPTIONS, "steps": 5})
        torch.testing.assert_close(result.trajectories["loss"][member, :-1], losses, **FIRST_STEPS)
        torch.testing.assert_close(
            result.parameters[Z][member], model.variational_strategy.inducing_points.detach(), **FIRST_STEPS
        )
        torch.testing.assert_close(
            result.parameters["likelihood.noise"][member], likelihood.noise.detach()[0], **FIRST_STEPS
        )
        torch.testing.assert_close(result.losses[member], -variational_bound(model, X, Y).detach(), **FIRST_STEPS)


def test_the_last_loss_is_that_of_all_data_where_these_fill_several_blocks(monkeypatch):
    """The slopes too: the blocks are weighted by their size, and the last one is short."""
    whole = fit_some()
    monkeypatch.setattr(minibatches, "_BLOCK", 50)
    assert len(Y) > 3 * 50 and len(Y) % 50
    blocks = fit_some()
    for name in ("losses", "slopes"):
        torch.testing.assert_close(getattr(blocks, name), getattr(whole, name), rtol=1e-10, atol=0)
    for member in range(R):
        model, _ = blocks.model(member)
        torch.testing.assert_close(blocks.losses[member], -variational_bound(model, X, Y).detach(), rtol=1e-10, atol=0)


def test_later_the_batch_is_as_far_from_the_loop_as_the_loop_from_its_one_ulp_twin():
    """A statement about spread, over whole paths and with a margin of 100, and not about any one number."""
    x, y, steps = TABLE.x[::4], TABLE.standardised[::4], 170

    def make(batch_shape):
        model = VariationalModel(x[:10], ScaleKernel(RBFKernel(batch_shape=batch_shape), batch_shape=batch_shape))
        return model, model.likelihood

    starts = {Z: torch.stack([inducing.random(x, 10, seed=seed) for seed in range(2)])}
    options = {"batch_size": 64, "orders": [0, 1], "seeds": [0, 1], "steps": steps, "lr": 0.03}
    paths = fit_minibatches(make, x, y, starts, **options, record=1).trajectories["loss"][:, :-1]
    control = []
    for member, path in enumerate(paths):
        alone, twin = (fit_alone(member, make, x, y, start, **options)[2] for start in (starts, one_ulp(starts)))
        control.append(float((twin - alone).abs().max()))
        assert (path - alone).abs().max() <= 100 * control[-1]
    assert max(control) > 1e-7, f"nothing was amplified, so this test shows nothing: {control}"


def test_the_orders_are_those_of_a_data_loader():
    for n, size in ((10, 3), (9, 3), (4, 4)):
        loader = DataLoader(torch.arange(n), size, shuffle=True, generator=torch.Generator().manual_seed(3))
        stream = batches(n, size, order=3)
        for _ in range(3):
            for batch in loader:
                assert torch.equal(batch, next(stream))
    assert torch.equal(next(batches(5, 5, None)), torch.arange(5))


def test_the_seeds_are_gpytorchs_start_of_q():
    result = fit_some(steps=1, record=1)
    for member, seed in enumerate(OPTIONS["seeds"]):
        model, _ = make_model(torch.Size())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model(X[:2])
        start = model.variational_strategy._variational_distribution.variational_mean.detach()
        assert torch.equal(result.trajectories[MEAN][member, 0], start) and start.abs().max() > 1e-4
    quiet = fit_some(steps=1, record=1, seeds=None)
    assert (quiet.trajectories[MEAN][:, 0] == 0).all()
    assert torch.equal(quiet.trajectories[COVAR][0, 0], torch.eye(M, dtype=X.dtype))
    named = fit_minibatches(
        make_model, X, Y, {**STARTS, MEAN: torch.ones(R, M)}, **{**OPTIONS, "steps": 1, "record": 1}
    )
    assert (named.trajectories[MEAN][:, 0] == 1).all()


def test_start_and_order_are_apart():
    same = {Z: STARTS[Z][:1].expand(R, -1, -1)}
    options = {**OPTIONS, "seeds": [1, 1, 2, 2], "orders": [5, 6, 5, 6], "record": 1, "steps": 3}
    result = fit_minibatches(make_model, X, Y, same, **options)
    mean, loss = result.trajectories[MEAN][:, 0], result.trajectories["loss"]
    assert torch.equal(mean[0], mean[1]) and torch.equal(mean[2], mean[3]) and not torch.equal(mean[0], mean[2])
    assert len(loss[:, 0].unique()) == 4
    quiet = fit_minibatches(make_model, X, Y, same, **{**options, "seeds": None})
    assert torch.equal(quiet.trajectories["loss"][0], quiet.trajectories["loss"][2])


@pytest.mark.parametrize("options", [{"workers": 2}, {}])
def test_same_arguments_same_result(options):
    one, two = fit_some(members=2, average=4), fit_some(members=2, average=4, **options)
    for a, b in ((one, two), (one.averaged, two.averaged)):
        assert torch.equal(a.losses, b.losses) and torch.equal(a.slopes, b.slopes)
        assert all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)
        assert all(torch.equal(a.trajectories[name], b.trajectories[name]) for name in a.trajectories)


def test_trajectories_are_sparse_and_averages_are_means():
    result = fit_some(average=3, record=1)
    torch.testing.assert_close(
        result.averaged.parameters[Z], result.trajectories[Z][:, -3:].mean(1), rtol=1e-14, atol=0
    )
    assert result.averaged.losses.isfinite().all() and not torch.equal(result.averaged.losses, result.losses)
    sparse = fit_some(record=5)
    assert sparse.recorded.tolist() == [0, 5, 10, 12] and sparse.averaged is None
    assert sparse.trajectories[Z].shape == (R, 4, M, 1) and sparse.trajectories["loss"].shape == (R, 4)
    assert torch.equal(sparse.trajectories[Z], result.trajectories[Z][:, [0, 5, 10, 12]])
    assert torch.equal(sparse.parameters[Z], sparse.trajectories[Z][:, -1])


def test_models_at_the_ends():
    result = fit_some()
    batch, _ = result.model([0, 2])
    for place, member in enumerate((0, 2)):
        single, _ = result.model(member)
        assert -variational_bound(single, X, Y).item() == pytest.approx(result.losses[member].item(), rel=1e-12)
        together = posterior(batch, X[:9])
        torch.testing.assert_close(together.covariance_matrix[place], posterior(single, X[:9]).covariance_matrix)
    assert result.best == int(result.losses.argmin()) and (result.slopes > 0).all()


def test_inducing_points_that_are_held():
    def make(batch_shape):
        model, likelihood = make_model(batch_shape, MaternKernel)
        model.variational_strategy.inducing_points.requires_grad_(False)
        return model, likelihood

    result = fit_minibatches(make, X, Y, STARTS, **OPTIONS)
    assert torch.equal(result.parameters[Z], STARTS[Z])


def test_what_fails_fails_alone():
    scales = torch.full((R,), 3.0, dtype=X.dtype)
    sound = fit_minibatches(make_poisoned, X, Y, {**STARTS, SCALE: scales}, **OPTIONS)
    scales = scales.clone()
    scales[1], scales[2] = 10, 100
    with pytest.warns(match="not p.d., added jitter"):  # GPyTorch's own
        result = fit_minibatches(make_poisoned, X, Y, {**STARTS, SCALE: scales}, **OPTIONS, average=2)
    assert result.failures == {
        1: "the covariance has NaN entries, at step 0",
        2: "the covariance is not positive definite, at step 0",
    }
    torch.testing.assert_close(result.losses[[0, 3]], sound.losses[[0, 3]], rtol=0, atol=1e-9)
    for end in (result, result.averaged):
        assert end.losses[[1, 2]].isnan().all() and end.slopes[[1, 2]].isnan().all() and set(end.failures) == {1, 2}
    assert result.parameters[SCALE][1] == 10 and result.steps.tolist() == [12, 0, 0, 12]
    assert result.best not in result.failures and "2 failed" in repr(result)


def test_what_fails_is_named_by_its_place_among_all_batches():
    scales = torch.tensor([3.0, 3.0, 3.0, 3.0, 10.0], dtype=X.dtype)
    result = fit_minibatches(make_poisoned, X, Y, {SCALE: scales}, batch_size=50, orders=None, steps=2, members=3)
    assert result.failures == {4: "the covariance has NaN entries, at step 0"}
    assert result.steps.tolist() == [2, 2, 2, 2, 0]


def test_what_fails_on_the_way_keeps_its_path():
    starts = {Z: STARTS[Z][:2], SCALE: torch.tensor([3.0, 0.6], dtype=X.dtype)}  # at first it falls, below 0.5 in one
    options = {"batch_size": 50, "orders": [0, 1], "steps": 6, "lr": 0.1, "record": 1}
    result = fit_minibatches(make_poisoned, X, Y, starts, **options)
    stop = int(result.steps[1])
    assert set(result.failures) == {1} and 0 < stop < 6 and f"at step {stop}" in result.failures[1]
    path = result.trajectories["loss"][1]
    assert path[:stop].isfinite().all() and path[stop:].isnan().all()
    assert result.parameters[SCALE][1] == result.trajectories[SCALE][1, stop]  # where it failed, and not farther
    second = {name: value[1:] for name, value in starts.items()}
    assert set(fit_minibatches(make_poisoned, X, Y, second, **{**options, "orders": [1]}).failures) == {0}


def test_progress_is_silent_unless_asked_for(capsys):
    fit_some(steps=2)
    assert capsys.readouterr() == ("", "")
    fit_some(steps=2, progress=True, members=2)
    assert "8/8" in capsys.readouterr().err


@pytest.mark.parametrize(("members", "workers"), [(2, 1), (R, 1), (R, 2)])
def test_progress_moves_with_every_step_in_this_process(members, workers, monkeypatch):
    moves = []

    class Bar(tqdm):
        def update(self, n=1):
            moves.extend([n] * (n > 0))

    monkeypatch.setattr(minibatches, "tqdm", Bar)
    fit_some(steps=3, members=members, workers=workers)
    assert moves == [members] * (3 * R // members)


def test_float32_stays_float32():
    def make(batch_shape):
        model = VariationalModel(X[:M].float(), RBFKernel(batch_shape=batch_shape))
        return model, model.likelihood

    result = fit_minibatches(make, X.float(), Y.float(), STARTS, **OPTIONS)
    assert result.losses.dtype == result.parameters[Z].dtype == torch.float32 and not result.failures


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number, from 1 to 183; got 0"),
        ({"batch_size": 184}, "batch_size must be a whole number, from 1 to 183; got 184"),
        ({"steps": 0}, "steps must be a whole number, at least 1; got 0"),
        ({"lr": 0}, "lr must be one finite real number, above 0; got 0"),
        ({"average": 13}, "average must be a whole number, from 0 to 12; got 13"),
        ({"record": 0}, "record must be a whole number"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"members": True}, "members must be a whole number"),
        ({"orders": [1, 2]}, r"orders must be 4 whole numbers; got \[1, 2\]"),
        ({"orders": [1, 2, 3, -1]}, r"orders\[3\] must be a whole number, at least 0; got -1"),
        ({"seeds": [0.5] * 4}, r"seeds\[0\] must be a whole number, at least 0; got 0.5"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        fit_some(**option)


def test_bad_data_starts_and_models():
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\) and y shape \(n,\)"):
        fit_minibatches(make_model, X, Y.unsqueeze(-1), STARTS, **OPTIONS)
    with pytest.raises(ValueError, match="x must have the format and columns of the inducing points"):
        fit_minibatches(make_model, X.float(), Y.float(), STARTS, **OPTIONS)
    with pytest.raises(ValueError, match=r"must have shape \(4, 6, 1\); got \(4, 5, 1\)"):
        fit_minibatches(make_model, X, Y, {Z: STARTS[Z][:, :5]}, **OPTIONS)
    with pytest.raises(ValueError, match="leading dimension for the members"):
        fit_minibatches(lambda batch_shape: make_model(torch.Size()), X, Y, STARTS, **OPTIONS)

    def exact(batch_shape):
        model = ExactModel(X, Y, RBFKernel(batch_shape=batch_shape))
        return model, model.likelihood

    with pytest.raises(ValueError, match="must return an ApproximateGP with a variational strategy; got ExactModel"):
        fit_minibatches(exact, X, Y, STARTS, **OPTIONS)

    def with_prior(batch_shape):
        kernel = RBFKernel(batch_shape=batch_shape, lengthscale_prior=gpytorch.priors.GammaPrior(3.0, 6.0))
        model = VariationalModel(X[:M], kernel)
        return model, model.likelihood

    with pytest.raises(ValueError, match="without priors.*lengthscale_prior"):
        fit_minibatches(with_prior, X, Y, STARTS, **OPTIONS)
