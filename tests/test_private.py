"""What the libraries do not document: it is there in the installed releases, and each name stands in one place only."""

import ast
import sys
from pathlib import Path

import gpytorch
import linear_operator
import pytest
import torch
from diagnosed import exact, grid, multitask, sparse, variational
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, RBFKernel, RFFKernel
from gpytorch.variational import CholeskyVariationalDistribution, UnwhitenedVariationalStrategy
from torch import nn

import gpbook_utils
from gpbook_utils import private as of_models
from gpbook_utils.diagnose import private
from gpbook_utils.diagnose.private import Private

NAMES = {name: thing for name, thing in vars(private).items() if isinstance(thing, Private)}
NAMES |= {value.name: value for value in private.VALUES}
PLACES = {Path(of_models.__file__), Path(private.__file__)}


def called(model):
    model(grid()).mean.sum()
    return model


# An object of each class, which has been in use where that is what makes an attribute.
EXAMPLES = {
    nn.Module: lambda: nn.Linear(1, 1),
    torch.UntypedStorage: lambda: torch.ones(1).untyped_storage(),
    gpytorch.Module: RBFKernel,
    Interval: lambda: Interval(0.0, 1.0),
    Kernel: RBFKernel,
    RFFKernel: lambda: RFFKernel(num_samples=2, num_dims=1),
    gpytorch.models.ExactGP: lambda: called(exact()),
    gpytorch.distributions.MultitaskMultivariateNormal: lambda: multitask()(grid()),
    private.VariationalStrategy: lambda: called(variational()).variational_strategy,
    private.VariationalDistribution: lambda: CholeskyVariationalDistribution(2),
    **{setting: lambda setting=setting: setting for setting in (
        gpytorch.settings.fast_pred_var, gpytorch.settings.max_cholesky_size, gpytorch.settings.cholesky_jitter
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_attribute_is_there(name):
    attribute = NAMES[name]
    thing = EXAMPLES[attribute.on]()
    assert thing is attribute.on or isinstance(thing, attribute.on)
    assert hasattr(thing, attribute.name), f"{attribute.name} of {attribute.on.__name__}: {attribute.why}"


def test_classes_are_those_that_others_derive_from():
    assert issubclass(nn.Dropout, private.Dropout) and issubclass(nn.Dropout2d, private.Dropout)
    assert issubclass(CholeskyVariationalDistribution, private.VariationalDistribution)
    assert issubclass(UnwhitenedVariationalStrategy, private.VariationalStrategy)
    for base in private.SETTINGS_BASES:
        assert isinstance(getattr(linear_operator.settings, base), type)


def test_registered_parts_are_those_of_the_public_names():
    layer = nn.Linear(2, 1, bias=False)
    layer.register_buffer("mask", torch.ones(1))
    hook = lambda *arguments: None  # noqa: E731
    layer.register_forward_hook(hook)
    layer.register_forward_pre_hook(hook)
    assert private.parameters(layer) == {"weight": layer.weight, "bias": None}
    assert private.buffers(layer) == {"mask": layer.mask}
    assert private.modules(nn.Sequential(layer)) == {"0": layer}
    assert [*private.forward_hooks(layer).values(), *private.forward_pre_hooks(layer).values()] == [hook, hook]
    assert private.parameters.held_by(layer) and not private.priors.held_by(layer) and private.priors(layer, {}) == {}


def test_what_gpytorch_registers_is_found_under_its_names():
    prior = gpytorch.priors.GammaPrior(2.0, 1.0)
    kernel = RBFKernel(lengthscale_prior=prior)
    constraint = kernel.raw_lengthscale_constraint
    assert private.priors(kernel)["lengthscale_prior"][0] is prior
    assert private.constraint_of(kernel, "raw_lengthscale") is constraint
    assert private.constraints(kernel)[private.constraint_name("raw_lengthscale")] is constraint
    assert private.constraint_of(nn.Linear(1, 1), "weight") is None
    raw = torch.tensor(0.3)
    assert torch.equal(private.transform_of(constraint)(raw), constraint.transform(raw))  # without bounds
    assert [name for name in vars(exact()) if private.is_data(name)] == [private.train_targets.name]
    assert private.started.name in private.buffers(variational().variational_strategy)


def test_a_call_fills_the_caches_and_clearing_empties_them():
    assert private.prediction_strategy(exact()) is None and private.prediction_strategy(called(exact())) is not None
    strategy = called(variational()).variational_strategy
    assert private.memoized(strategy)
    private.clear_cache(strategy)()
    assert not private.memoized(strategy, None)
    kernel = called(sparse()).covar_module
    assert [name for name in vars(kernel) if name.startswith(private.CACHED)]
    private.clear_cache(kernel)()
    assert not [name for name in vars(kernel) if name.startswith(private.CACHED)]


def test_one_address_for_one_memory():
    x = torch.arange(4.0)
    a, b, c = (private.address(t.untyped_storage()) for t in (x[:2], x[2:], x.clone()))
    assert a == b != c


def test_settings_are_kept_where_they_are_looked_for(monkeypatch):
    # The library does not put a jitter for float16 back when its context ends.
    monkeypatch.setattr(gpytorch.settings.cholesky_jitter, private.VALUES[-1].name, None)
    flag = gpytorch.settings.fast_pred_var
    assert private.flag_state(flag) is None and private.flag_default(flag) is flag.on() is False
    with flag():
        assert private.flag_state(flag) is True
    number, *by_format = private.VALUES
    with gpytorch.settings.max_cholesky_size(7), gpytorch.settings.cholesky_jitter(1e-1, 1e-2, 1e-3):
        assert number(gpytorch.settings.max_cholesky_size) == 7
        assert [value(gpytorch.settings.cholesky_jitter) for value in by_format] == [1e-1, 1e-2, 1e-3]


def test_what_models_and_training_use():
    model = called(variational())
    strategy = model.variational_strategy
    assert isinstance(of_models.q_of(strategy), CholeskyVariationalDistribution) and of_models.q_of(model) is None
    of_models.clear_cache(strategy)
    assert not private.memoized(strategy, None)
    model = exact().train()
    observed = model.likelihood(model(*model.train_inputs))
    matrix, diagonal = of_models.terms(observed.lazy_covariance_matrix)
    torch.testing.assert_close(matrix.to_dense() + diagonal.to_dense(), observed.covariance_matrix)
    prior = gpytorch.priors.GammaPrior(2.0, 1.0)
    model.covar_module.register_prior("p", prior, lambda module: module.lengthscale)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    expected = 3 + prior.log_prob(model.covar_module.lengthscale).sum()
    torch.testing.assert_close(of_models.with_other_terms(objective, torch.tensor(3.0).double()), expected.double())


# One place ----------------------------------------------------------------------------------------------------------

LISTED = {attribute.name for attribute in NAMES.values() if attribute.name.startswith("_")}
PYTHON = {"_fields", "_abc_impl", "_Pair"}  # of named tuples and abstract classes, and one named tuple


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.isidentifier()


def uses(source: str) -> list[str]:
    """Where a program touches a private name of a library, each as ``line: name``.

    That is an attribute with one leading underscore of anything but ``self``, ``cls`` or a module of Python, unless the
    program itself defines such a method; a text that is such a name; and an import of one. A name that is listed in
    ``diagnose/private.py`` counts also where the program has a method of that name.
    """
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)} - LISTED
    own |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    } | PYTHON
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute) and node.attr not in own:
            base = ast.unparse(node.value)
            names = [node.attr] if base not in {"self", "cls"} | sys.stdlib_module_names else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value not in own and node.value.strip("_") else []
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("gpbook_utils"):
            names = [*(alias.name for alias in node.names), *(node.module or "").split(".")]
        found += [f"{node.lineno}: {name}" for name in names if is_private(name) or name.startswith("_cached")]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "p._modules",
        "def _modules(self): return self.model._modules",
        "getattr(p, '_priors', {})",
        "module.__dict__['_memoize_cache']",
        "from torch.nn.modules.dropout import _DropoutNd",
        "from gpytorch.variational._variational_strategy import Strategy",
        "name.startswith('_cached_')",
        "f'{name}' + '_jitter_val'",
    ],
)
def test_the_rule_sees(source):
    assert uses(source)


@pytest.mark.parametrize(
    "source",
    [
        "self._modules",
        "private.modules(p)",
        "functools._lru_cache_wrapper",
        "def _draw(self): return other._draw",
        "thing.__dict__",
        "hasattr(thing, '_fields')",
        "text.lstrip('_')",
    ],
)
def test_the_rule_passes_over(source):
    assert not uses(source)


def test_private_names_of_libraries_stand_in_one_place():
    package = Path(gpbook_utils.__file__).parent
    programs = [path for path in package.rglob("*.py") if path not in PLACES]
    found = {str(path.relative_to(package)): uses(path.read_text(encoding="utf-8")) for path in programs}
    assert {path: names for path, names in found.items() if names} == {}
    assert all(uses(path.read_text(encoding="utf-8")) for path in PLACES)  # where the rule has something to see
