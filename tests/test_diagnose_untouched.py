"""A diagnosis changes nothing: not the models, their caches and gradients, nor generators, settings and defaults."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import gpytorch
import numpy as np
import pytest
import torch
from diagnosed import approximate, batch, data, deep, exact, grid, multitask, scaled, sparse, variational
from gpytorch.likelihoods import GaussianLikelihood

import gpbook_utils
from gpbook_utils.diagnose import check_model, explain_difference, guard
from gpbook_utils.diagnose.copying import Replica
from gpbook_utils.diagnose.guard import changed_settings, undisturbed
from gpbook_utils.models import ExactModel, VariationalModel


def snapshot(*models):
    """Every tensor, attribute and cache of the models, by identity and by bits, and all global state."""
    seen, parts = {}, []

    def visit(path, thing):
        if isinstance(thing, torch.Tensor):
            grad = None if not thing.is_leaf or thing.grad is None else thing.grad.clone()
            bits = thing.detach().clone()
            parts.append((path, id(thing), thing._version, thing.requires_grad, thing.data_ptr(), bits, grad))
            return
        if thing is None or isinstance(thing, bool | int | float | str | bytes | torch.Size | torch.dtype | type):
            parts.append((path, thing))
            return
        if id(thing) in seen:
            return
        seen[id(thing)] = thing
        parts.append((path, id(thing), type(thing)))
        if isinstance(thing, dict):
            for key, value in list(thing.items()):
                visit(f"{path}[{key!r}]", value)
        elif isinstance(thing, list | tuple | set):
            for index, value in enumerate(thing):
                visit(f"{path}[{index}]", value)
        elif hasattr(thing, "__dict__") and not callable(getattr(thing, "__code__", None)):
            for name, value in list(vars(thing).items()):
                visit(f"{path}.{name}", value)

    for index, model in enumerate(models):
        visit(str(index), model)
    state = {
        "torch": torch.get_rng_state().clone(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "settings": {name: [pair[0] for pair in fields.values()] for name, fields in changed_settings().items()},
        "threads": torch.get_num_threads(),
        "float32 matmul": torch.get_float32_matmul_precision(),
    }
    return parts, state


def assert_same(before, after):
    assert len(before[0]) == len(after[0])
    for old, new in zip(before[0], after[0], strict=True):
        assert len(old) == len(new) and old[0] == new[0]
        for p, q in zip(old[1:], new[1:], strict=True):
            if isinstance(p, torch.Tensor):
                assert torch.equal(p.nan_to_num(), q.nan_to_num()), old[0]
            else:
                assert p == q or (p != p and q != q), old[0]
    for name, value in before[1].items():
        same = value.tolist() == after[1][name].tolist() if hasattr(value, "tolist") else value == after[1][name]
        assert same, name


def with_history(model, x):
    """The model with gradients, and with caches that were filled with gradients."""
    model.train()
    inputs = model.train_inputs if hasattr(model, "train_inputs") else (x,)
    model(*inputs).mean.sum().backward()
    model.eval()
    model(x).mean.sum()
    return model


def stale(model):
    model(grid()).mean.sum()
    model.likelihood.noise = 0.5
    return model


def target_column():
    model = exact()
    model.train_targets = model.train_targets.unsqueeze(-1)
    return model


PAIRS = {
    "lengthscale": lambda: (exact(), exact(lengthscale=0.4)),
    "gradients and caches": lambda: (with_history(exact(), grid()), with_history(exact(lengthscale=0.4), grid())),
    "stale cache": lambda: (stale(exact()), exact(noise=0.5)),
    "mode": lambda: (exact().train(), exact()),
    "structure": lambda: (exact(), scaled()),
    "kernels": lambda: (exact(), exact(gpytorch.kernels.MaternKernel(1.5))),
    "target shape": lambda: (target_column(), exact()),
    "formats": lambda: (exact(), exact(dtype=torch.float32)),
    "variational, called with gradients": lambda: (with_history(variational(), grid()), variational()),
    "variational, not initialised": lambda: (variational(fitted=False), variational()),
    "sparse and exact": lambda: (with_history(sparse(), grid()), exact()),
    "multitask": lambda: (multitask(), copy.deepcopy(multitask()).train()),
    "batch": lambda: (batch(), batch()),
    "deep": lambda: (with_history(deep(), grid()), deep()),
    "trained": lambda: (approximate(), variational()),
}


@pytest.mark.parametrize("name", PAIRS)
def test_explaining_a_difference_changes_nothing(name):
    a, b = PAIRS[name]()
    x = grid()
    torch.manual_seed(1)
    torch.rand(3)
    before = snapshot(a, b, x)
    report = explain_difference(a, b, x)
    str(report), report._repr_html_()
    assert_same(before, snapshot(a, b, x))


@pytest.mark.parametrize("name", PAIRS)
def test_checking_a_model_changes_nothing(name):
    model, x = PAIRS[name]()[0], grid()
    before = snapshot(model, x)
    check_model(model, x)
    assert_same(before, snapshot(model, x))


class Raising(ExactModel):
    """A model that draws random numbers, changes a setting and then raises."""

    def forward(self, x):
        torch.rand(3)
        np.random.rand()  # noqa: NPY002
        torch.set_default_dtype(torch.float64)
        gpytorch.settings.fast_pred_var._set_state(True)
        torch.set_grad_enabled(False)
        raise RuntimeError("the reader's own error")


def test_nothing_changes_either_where_the_model_raises():
    a, b, x = Raising(*data()).eval(), Raising(*data()).eval(), grid()
    before = snapshot(a, b, x)
    report = explain_difference(a, b, x)
    assert "nothing could be compared" in report.verdict and "the reader's own error" in report.verdict
    assert_same(before, snapshot(a, b, x))
    assert [finding.cause for finding in check_model(a, x).findings] == ["call-raises"]
    assert_same(before, snapshot(a, b, x))


def test_nothing_changes_under_the_readers_own_settings_and_without_gradients():
    a, b, x = exact(), exact(lengthscale=0.4), grid()
    with gpytorch.settings.fast_pred_var(), gpytorch.settings.cholesky_jitter(1e-4, 1e-5), torch.no_grad():
        before = snapshot(a, b, x)
        explain_difference(a, b, x)
        check_model(a, x)
        assert_same(before, snapshot(a, b, x))
    assert changed_settings() == {}


CHANGED_FIRST = """
import logging, torch, gpytorch
gpytorch.settings.cholesky_jitter._set_value(1e-3, None, None)
gpytorch.settings.max_eager_kernel_size._set_value(1)
handlers = len(logging.getLogger("LinAlg (Verbose)").handlers)
with gpytorch.settings.fast_pred_var(), gpytorch.settings.fast_computations(log_prob=False):
    from gpbook_utils.diagnose.guard import changed_settings
    for name, fields in changed_settings().items():
        print(name, *fields.values())
print(*changed_settings())
assert len(logging.getLogger("LinAlg (Verbose)").handlers) == handlers
"""


def test_settings_changed_before_the_diagnosis_is_imported_are_not_taken_for_defaults():
    environment = {**os.environ, "PYTHONPATH": str(Path(gpbook_utils.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", CHANGED_FIRST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "cholesky_jitter (0.001, 1e-06)",
        "cholesky_jitter max_eager_kernel_size",
        "fast_log_prob (False, None)",
        "fast_pred_var (True, None)",
        "max_eager_kernel_size (1, 512)",
    ]


def test_every_setting_has_a_default_and_here_all_are_at_it():
    fields = {place: value for place, value in guard._values().items() if place[1] in guard._FIELDS}
    assert fields == guard._DEFAULTS and len(fields) > 50


def test_the_guard_restores_all_when_an_error_is_raised():
    before = snapshot()
    with pytest.raises(KeyError), undisturbed():
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)
        torch.set_default_dtype(torch.float64)
        gpytorch.settings.max_cholesky_size._set_value(3)
        torch.set_float32_matmul_precision("medium")
        raise KeyError
    assert_same(before, snapshot())


# Copies ------------------------------------------------------------------------------------------------------------


def test_a_replica_keeps_the_stale_cache_that_deepcopy_cures():
    model, x = stale(exact()), grid()
    replica = Replica(model).roots[0]
    assert replica.prediction_strategy is not model.prediction_strategy
    assert torch.equal(replica(x).mean, model(x).mean)
    assert not torch.equal(copy.deepcopy(model)(x).mean, model(x).mean)


def test_a_replica_can_be_had_where_deepcopy_raises():
    model, x = with_history(variational(), grid()), grid()
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    assert torch.equal(Replica(model).roots[0](x).mean, model(x).mean)


def test_a_replica_of_a_sparse_model_does_not_share_its_likelihood():
    model = sparse()
    replica = Replica(model).roots[0]
    assert replica.covar_module.likelihood is replica.likelihood
    assert replica.likelihood is not model.likelihood
    assert copy.deepcopy(model).covar_module.likelihood is model.likelihood  # what it is made to avoid


def test_a_replica_shares_memory_within_itself_as_the_original_does_and_none_with_it():
    x, y = data()
    model = ExactModel(x, y)
    model.covar_module = gpytorch.kernels.InducingPointKernel(
        gpytorch.kernels.RBFKernel(), model.train_inputs[0][:5], model.likelihood
    )
    replica = Replica(model).roots[0]
    with torch.no_grad():
        replica.covar_module.inducing_points.add_(1.0)
    assert torch.equal(replica.train_inputs[0][:5], replica.covar_module.inducing_points)
    assert torch.equal(model.train_inputs[0], x)


def test_a_replica_of_two_models_keeps_what_they_share():
    likelihood = GaussianLikelihood()
    a, b = (ExactModel(*data(), likelihood=likelihood) for _ in range(2))
    p, q = Replica(a, b).roots
    assert p.likelihood is q.likelihood and p.likelihood is not likelihood


def test_a_replica_follows_closures_hooks_and_hidden_modules():
    model = exact()
    model.register_forward_hook(lambda module, inputs, output: output)
    model.hidden = [torch.nn.Linear(1, 1)]
    layer = torch.nn.Linear(1, 1)
    model.function = lambda x: layer(x)
    replica = Replica(model).roots[0]
    assert replica.hidden[0] is not model.hidden[0]
    assert replica.function.__closure__[0].cell_contents is not layer
    replica.load_state_dict(exact(lengthscale=0.7).state_dict(), strict=False)
    assert model.covar_module.lengthscale.item() == pytest.approx(0.2)


def test_a_replica_of_a_model_with_unusual_attributes():
    model = VariationalModel(torch.zeros(2, 1))
    model.generator = torch.Generator().manual_seed(3)
    model.array = np.arange(3.0)
    model.me = model
    replica = Replica(model).roots[0]
    assert replica.me is replica
    replica.array[0] = 7.0
    assert model.array[0] == 0.0
    assert torch.equal(torch.rand(2, generator=replica.generator), torch.rand(2, generator=model.generator))
