"""Does every public function name the argument that is wrong? A hunt with things that nobody should pass.

Functions are found by looking at the modules, so that a new one without a call in ``CALLS`` fails. Each argument is
replaced in turn by each of ``WRONG``. What fits an argument after all stands in ``FITS``, and has to be accepted;
anything else has to end in a ``ValueError`` or ``TypeError`` with the argument's name in it, and change nothing.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import tempfile
import warnings

import gpytorch
import numpy as np
import pytest
import torch

import gpbook_utils
from gpbook_utils import costs, models, plots, precision
from gpbook_utils.budget import Cause, causes
from gpbook_utils.training import fit_restarts

# Modules that no chapter imports, and what is no function of a reader's.
INSIDE = (
    r"arguments|conditions|files|private|reach|explorer|plots|diagnose.*|training\..*|budget\.measuring|sweeps\..*"
    r"|.*__main__"
)
LEFT_OUT = {
    "budget.Sides": "a type",
    "machines.machine.main": "a command line, read by argparse",
    "machines.bits.model": "what it computes is the edition of all records",
    "machines.bits.descend": "what it computes is the edition of all records",
    "machines.bits.computations": "what it computes is the edition of all records",
}
ROOT = "gpbook_utils."
WRONG = {
    "None": lambda: None,
    "text": lambda: "text",
    "bytes": lambda: b"text",
    "True": lambda: True,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "nan": lambda: np.nan,
    "inf": lambda: np.inf,
    "1j": lambda: 1j,
    "huge": lambda: 10**400,
    "object": object,
    "list": list,
    "[None]": lambda: [None],
    "dict": dict,
    "{1: 2}": lambda: {1: 2},
    "class": lambda: torch.dtype,
    "function": lambda: lambda: None,
    "module": torch.nn.Identity,
    "strings": lambda: np.array(["text"]),
    "integers": lambda: torch.tensor([1, 2]),
    "complex": lambda: torch.ones(2, 2, dtype=torch.complex64),
    "cube": lambda: torch.ones(2, 3, 4),
    "no rows": lambda: torch.ones(0, 1),
    "NaN matrix": lambda: torch.full((5, 5), np.nan).double(),
    "sparse": lambda: torch.eye(5).double().to_sparse(),
    "meta": lambda: torch.ones(5, 1, device="meta").double(),
}

X = torch.linspace(0, 1, 5).double().unsqueeze(-1)
Y = torch.sin(6 * X).squeeze(-1)
EYE = torch.eye(2, dtype=torch.float64)


def exact():
    return models.ExactModel(X, Y)


def gaussian():
    return torch.distributions.MultivariateNormal(EYE[0].clone(), EYE.clone())


def many(batch_shape):
    model = models.ExactModel(X, Y, gpytorch.kernels.RBFKernel(batch_shape=batch_shape))
    return model, model.likelihood


def many_variational(batch_shape):
    model = models.VariationalModel(X[:2], gpytorch.kernels.RBFKernel(batch_shape=batch_shape))
    return model, model.likelihood


def starts():
    return {"likelihood.noise": torch.tensor([0.5, 0.1])}


def minibatches(**more):
    made = {"make_model": many_variational, "x": X.clone(), "y": Y.clone(), "starts": starts(), "steps": 2, "lr": 0.1}
    return {**made, "batch_size": 3, "orders": [0, 1], "seeds": [0, 1], **more}


def area(width, seed):
    return {"area": width * 2.0}


def sides(dtype):
    return {"prior": EYE.to(dtype)}, {"prior": 2 * EYE.to(dtype)}


def record():
    fingerprint = {"cpu": "A", "aten": "B", "threads": 1, "switches": {}}
    return {"fingerprint": fingerprint, "bits": {"edition": "x", "K": "aa"}}


FLOAT = torch.float64
MEASURED = {"measured": 1.0, "reason": "A reason."}
FOLDER = tempfile.TemporaryDirectory()
CALLS = {
    "answers.answer": lambda: {"name": "q1_a", "values": {"distance": 0.5}},
    "answers.encode": lambda: {"value": 0.5},
    "answers.decode": lambda: {"data": 1},
    "answers.judge": lambda: {"got": 1, "expected": 1, "rule": {"rtol": 0.1}},
    "claims.near": lambda: {**MEASURED, "reference": 1.0, "rtol": 0.1},
    "claims.within": lambda: {**MEASURED, "low": 0.5, "high": 2.0},
    "claims.below": lambda: {**MEASURED, "bound": 2.0},
    "claims.above": lambda: {**MEASURED, "bound": 0.5},
    "claims.unobservable": lambda: {"reason": "no GPU"},
    "claims.decide": lambda: {"id": "a-claim", "outcome": True, "check": "A sentence."},
    "claims.exponent": lambda: {"x": [1, 2, 3], "y": [1, 4, 9], "expected": 2, "tol": 0.1, "reason": "A reason."},
    "claims.digest": lambda: {"stored": {"id": "two-even", "kind": "finding", "bound": ""}},
    "compare.compare": lambda: {
        "a": EYE.clone(), "b": EYE.clone(), "condition_number": 2.0, "size": 3, "scale": 1.0, "computed_in": FLOAT
    },
    "compare.kl_divergence": lambda: {"a": gaussian(), "b": gaussian()},
    "compare.condition_number": lambda: {"K": EYE.clone()},
    "compare.unit_roundoff": lambda: {"dtype": FLOAT},
    "compare.ulp": lambda: {"magnitude": 1.0, "dtype": FLOAT},
    "compare.covariance": lambda: {"gaussian": gaussian(), "name": "gaussian"},
    "costs.measure": lambda: {"function": lambda: EYE @ EYE},
    "costs.Table": lambda: {"rows": {"a": {"seconds": 1.0}}},
    "costs.Cost.products": lambda: {"self": costs.Cost(None, 10, 0.0), "n": 3},
    "data.load": lambda: {"name": "co2", "dtype": FLOAT, "inputs": ["time"]},
    "data.synthetic": lambda: {
        "layout": "box", "n": 5, "d": 2, "seed": 0, "lengthscale": 0.3, "noise": 0.1, "dtype": FLOAT
    },
    "inducing.random": lambda: {"x": X.clone(), "m": 2, "seed": 0},
    "inducing.k_means": lambda: {"x": X.clone(), "m": 2, "seed": 0},
    "inducing.greedy": lambda: {"x": X.clone(), "m": 2, "kernel": gpytorch.kernels.RBFKernel(), "seed": 0},
    "models.ExactModel": lambda: {"x": X.clone(), "y": Y.clone(), "kernel": None, "likelihood": None},
    "models.SparseModel": lambda: {
        "x": X.clone(), "y": Y.clone(), "z": X[:2].clone(), "kernel": None, "likelihood": None
    },
    "models.VariationalModel": lambda: {
        "z": X.clone(), "kernel": None, "likelihood": None, "learn_inducing_locations": True, "jitter": 1e-6
    },
    "models.set_optimal_q": lambda: {"model": models.VariationalModel(X[:2]), "x": X.clone(), "y": Y.clone()},
    "models.variational_bound": lambda: {"model": models.VariationalModel(X[:2]), "x": X.clone(), "y": Y.clone()},
    "models.trend_and_season": dict,
    "models.prior_covariance": lambda: {"model": exact(), "x": X.clone()},
    "models.posterior": lambda: {"model": exact(), "x": X.clone()},
    "models.marginal_likelihood": lambda: {"model": exact()},
    "models.bitwise_equal": lambda: {"a": exact(), "b": exact(), "x": X.clone()},
    "models.check_data": lambda: {"x": X.clone(), "y": Y.clone()},
    "precision.round_to": lambda: {"x": X.clone(), "format": precision.TF32},
    "precision.rounder": lambda: {"format": precision.TF32},
    "precision.cholesky": lambda: {"A": EYE.clone(), "format": precision.TF32},
    "precision.solve_lower": lambda: {"L": EYE.clone(), "B": EYE[0], "format": precision.TF32, "transpose": True},
    "precision.ordered_sum": lambda: {"terms": X.mT.clone(), "format": precision.TF32},
    "precision.exact_sum": lambda: {"terms": [1.0, 2.0], "format": precision.TF32},
    "training.fit": lambda: {"model": exact(), "steps": 1, "lr": 0.1},
    "training.fit_in_turns": lambda: {"models": (exact(),), "steps": 1, "lr": 0.1},
    "training.fit_restarts": lambda: {
        "make_model": many, "starts": starts(), "steps": 1, "lr": 0.1, "optimizer": "adam", "tol": 1e-3, "workers": 1,
        "closed_form": True, "members": 2, "progress": False,
    },
    "training.fit_minibatches": lambda: minibatches(average=1, record=1, workers=1, members=2, progress=False),
    "training.fit_alone": lambda: minibatches(member=1),
    "training.one_ulp": lambda: {"starts": {"z": X.clone()}, "name": "z"},
    "training.Restarts.model": lambda: {"self": fit_restarts(many, starts(), steps=1), "start": 0},
    "sweeps.sweep": lambda: {
        "function": area, "grid": {"width": [1]}, "seeds": [0], "folder": FOLDER.name, "workers": 1, "threads": 1,
        "retry": False, "progress": False,
    },
    "budget.cause": lambda: {"name": "a cause", "family": "test", "chapter": 1, "formats": [FLOAT]},
    "budget.measure": lambda: {"cause": sides, "dtype": FLOAT},
    "budget.largest": lambda: {"cause": sides, "dtype": FLOAT},
    "budget.says": lambda: {"model": exact(), "x": X.clone(), "stars": X.clone()},
    "budget.chart": lambda: {
        "causes": [Cause("a cause", "test", 1, sides)], "alt": "A picture of one cause.", "caption": "A caption.",
        "formats": {"float64": FLOAT}, "quantities": ["prior"], "width": 4.0,
    },
    "budget.explore": lambda: {
        "panels": {"one": [Cause("a cause", "test", 1, sides)]}, "alt": "A picture of one cause.",
        "caption": "A caption with a stop.",
    },
    "budget.causes.points": lambda: {"dtype": FLOAT, "step": 400},
    "budget.causes.stars": lambda: {"dtype": FLOAT},
    "budget.causes.gp": lambda: {
        "dtype": FLOAT, "data": (X.clone(), Y.clone()), "lengthscale": 0.5, "outputscale": 1.0, "noise": 0.5,
        "floor": 1e-4,
    },
    "budget.causes.fresh": lambda: {"dtype": FLOAT, "kernel": None, "likelihood": None},
    "budget.causes.trained": lambda: {"dtype": FLOAT},
    "budget.causes.says": lambda: {"model": causes.fresh(FLOAT)},
    "budget.causes.sparse_says": lambda: {"model": models.VariationalModel(X)},
    "budget.causes.under_jitters": lambda: {"dtype": FLOAT, "noise": 0.1},
    "budget.causes.optimum": lambda: {"dtype": FLOAT},
    "budget.causes.seven": lambda: {"lengthscale": 1.0},
    "budget.causes.sparse": lambda: {"dtype": FLOAT, "seed": 0, "m": 2, "jitter": 1e-6},
    "switches.branches": dict,
    "machines.machine.fingerprint": dict,
    "machines.machine.identity": lambda: {"print_": record()["fingerprint"]},
    "machines.machine.probe": dict,
    "machines.machine.probe_in": lambda: {"environment": {}},
    "machines.machine.run_in": lambda: {"environment": {}, "code": ""},
    "machines.machine.without_switches": dict,
    "machines.machine.lowered_environment": dict,
    "machines.machine.environments": dict,
    "machines.machine.run_in_each": lambda: {"command": ["true"]},
    "machines.bits.hashes": lambda: {"results": {"zero": EYE.clone()}},
    "machines.bits.computed_in": lambda: {"environment": {}, "first": ""},
    "machines.bits.computed_in_each": lambda: {"environments": {}},
    "machines.bits.write": lambda: {"results": {"zero": EYE.clone()}},
    "machines.bits.shared": lambda: {"machines": ({"K": "aa"},)},
    "machines.records.load": lambda: {"folder": FOLDER.name},
    "machines.records.of_this_machine": lambda: {"folder": FOLDER.name},
    "machines.records.label": lambda: {"record": record()},
    "machines.records.hashes": lambda: {"record": record()},
}  # fmt: skip
# What fits after all: a regular expression for the argument, and names in WRONG. None and True fit where they, or
# another truth value, are the default.
FITS = {
    r"answers\.(answer\.values|encode\.value)": "None, text, True, -1, 0, 1.5, nan, inf, list, [None], dict, integers, "
    "cube, no rows, NaN matrix",
    r"answers\.(decode\.data|judge\.expected)": "None, text, True, -1, 0, list, [None]",
    r"answers\.judge\.got": ", ".join(WRONG),  # whatever a student hands in
    r"answers\.judge\.rule": "dict",
    r"(answers\.answer|budget\.cause|compare\.covariance)\.(name|family)": "text",
    r"budget\.cause\.formats": "list, no rows",
    r"budget\.causes\.(gp|seven|under_jitters)\.(lengthscale|noise|outputscale)": "1.5",
    r"(budget\.causes\.sparse|models\.VariationalModel)\.jitter": "None, 0, 1.5",
    r"budget\.causes\.gp\.data": "None",
    r"budget\.chart\.width": "1.5",
    r"budget\.chart\.(alt|caption)": "text",  # of which plots.show asks more
    r"claims\.(above|below|near|within)\.measured": "-1, 0, 1.5, nan, inf",
    r"claims\.(above|below|within)\.(bound|low|high)": "1.5",
    r"claims\.near\.(reference|rtol)": "1.5",
    r"claims\.near\.reference": "-1",
    r"claims\..*\.reason|claims\.(claim|decide)\.id": "text",
    r"claims\.claim\.check|claims\.decide\.outcome": "True",
    r"claims\.exponent\.expected": "-1, 0, 1.5",
    r"claims\.exponent\.tol|data\.synthetic\.(lengthscale|noise)": "1.5",
    r"data\.synthetic\.noise": "0",
    r"compare\.compare\.condition_number": "1.5, inf",
    r"compare\.compare\.(scale|size)": "1.5",
    r"compare\.ulp\.magnitude": "0, 1.5",
    r"costs\.measure\.function": "function",
    r".*\.seed|training\.fit_alone\.member|training\.fit_minibatches\.average": "0",
    r"machines\..*\.(environments?|results|machines)|machines\.records\.hashes\.record": "dict",
    r"machines\.bits\.computed_in\.first|machines\.machine\.run_in\.code": "text",
    r"machines\.machine\.run_in_each\.command": "strings",
    r"machines\.records\..*\.folder|sweeps\.sweep\.folder": "text",
    r"precision\.(ordered_sum\.terms|round_to\.x)": "cube, no rows, NaN matrix",
    r"precision\.exact_sum\.terms": "list",
    r"sweeps\.sweep\.grid": "dict",
    r"sweeps\.sweep\.seeds": "integers",
    r"training\.Restarts\.model\.start": "-1, 0",
    r"training\.fit.*\.(lr|tol)": "1.5",
    r".*\.progress": "None, True",
    r"training\.fit_(alone|minibatches)\.(orders|seeds)": "None, integers",
}
# What fits, but starts processes or needs another argument to go with it.
NOT_TRIED = r"machines\.(bits\.computed_in|machine\.(probe_in|run_in|run_in_each))\..*|sweeps\.sweep\.grid"


def found():
    """Public functions, classes and methods, by the name that a reader imports them under."""
    for _, path, _ in pkgutil.walk_packages(gpbook_utils.__path__, ROOT):
        if re.fullmatch(INSIDE, path.removeprefix(ROOT)):
            continue
        module = importlib.import_module(path)
        for name, thing in vars(module).items():
            here = name in getattr(module, "__all__", [name] * (getattr(thing, "__module__", "") == path))
            if not here or name.startswith("_") or not hasattr(thing, "__qualname__"):
                continue
            full = f"{path}.{name}".removeprefix(ROOT)
            if not inspect.isclass(thing):
                yield full, thing
            elif not issubclass(thing, Exception):
                if not dataclasses.is_dataclass(thing):  # which the package makes, and hands out
                    yield full, thing
                for method, member in vars(thing).items():
                    takes = inspect.isfunction(member) and len(inspect.signature(member).parameters) > 1
                    if takes and not method.startswith("_") and method != "forward":  # which GPyTorch calls
                        yield f"{full}.{method}", member


FUNCTIONS = dict(found())


def call(name, arguments):
    bound = inspect.signature(FUNCTIONS[name]).bind_partial()
    bound.arguments = {key: arguments[key] for key in bound.signature.parameters if key in arguments}
    return FUNCTIONS[name](*bound.args, **bound.kwargs)


def fitting(name, argument):
    default = inspect.signature(FUNCTIONS[name]).parameters[argument].default
    fits = {"None"} if default is None else {"True"} if isinstance(default, bool) else set()
    return fits.union(*(v.split(", ") for k, v in FITS.items() if re.fullmatch(k, f"{name}.{argument}")))


def tries(name):
    """(argument, name of the wrong value, whether it fits after all)."""
    for argument in set(CALLS[name]()) - {"self"}:
        fits = fitting(name, argument)
        for label in WRONG:
            if not (label in fits and re.fullmatch(NOT_TRIED, f"{name}.{argument}")):
                yield argument, label, label in fits


def outcome(name, argument, label):
    arguments = CALLS[name]()
    kind = inspect.signature(FUNCTIONS[name]).parameters[argument].kind
    wrong = WRONG[label]()
    arguments[argument] = {kind.VAR_POSITIONAL: (wrong,), kind.VAR_KEYWORD: {argument: wrong}}.get(kind, wrong)
    before = frozen(arguments), surroundings()
    try:
        call(name, arguments)
    except (ValueError, TypeError) as error:
        said = re.search(rf"\b{argument}\b|\b{argument.removesuffix('s')}\b", str(error))
        result = "named" if said else "not named" if isinstance(error, ValueError) else "raw"
        text = f"{type(error).__name__}: {error}"
    except Exception as error:
        result, text = "raw", f"{type(error).__name__}: {error}"
    else:
        return "accepted", "no error"
    if (frozen(arguments), surroundings()) != before:
        return "changed", text
    return result, text


def frozen(thing):
    """Its content, comparable, where it is of a kind that a function could change."""
    if isinstance(thing, torch.nn.Module):
        return frozen(dict(thing.state_dict()))
    if isinstance(thing, torch.Tensor):
        return repr(thing.detach())
    if isinstance(thing, dict):
        return {key: frozen(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [frozen(value) for value in thing]
    return repr(thing)


def surroundings():
    generator = torch.get_rng_state().sum().item()
    return generator, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()


def test_every_public_function_has_a_call_here():
    assert set(CALLS) | set(LEFT_OUT) == set(FUNCTIONS)
    for name, make in CALLS.items():
        assert set(make()) == set(inspect.signature(FUNCTIONS[name]).parameters), name


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_and_changes_nothing(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "show", lambda fig, **texts: None)
    unexpected = []
    for argument, label, fits in tries(name):
        result, text = outcome(name, argument, label)
        if result != ("accepted" if fits else "named"):
            unexpected.append(f"{argument} = {label}: {result}; {text}")
    assert not unexpected, "\n".join(unexpected)


if __name__ == "__main__":
    import collections
    import contextlib
    import io
    import os

    plots.show = lambda fig, **texts: None
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())
    print(set(CALLS) ^ set(LEFT_OUT) ^ set(FUNCTIONS))
    counts = collections.Counter()
    for *one, fits in ((name, *rest) for name in CALLS for rest in tries(name)):
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(io.StringIO()):
            result, text = outcome(*one)
        counts[result, fits] += 1
        if result != ("accepted" if fits else "named"):
            print(result, one, text[:200])
    print(sum(counts.values()), counts)
