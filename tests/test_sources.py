"""The hash of what a function depends on: it moves with everything that could move a result, and with nothing else."""

import dataclasses
import enum
import functools
import importlib
import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch

from gpbook_utils import compare, data, machines, reach
from gpbook_utils.data import load
from gpbook_utils.diagnose import CAUSES
from gpbook_utils.sweeps import sources
from gpbook_utils.sweeps.sources import source_hash


def defined(source, **names):
    """The function ``f`` that a notebook with this source defines."""
    space = {"__name__": "__main__", "torch": torch, "np": np, "math": math, "functools": functools} | names
    exec(compile(textwrap.dedent(source), "a cell", "exec"), space)
    return space["f"]


USUAL = """
    scale = 2.0
    x = torch.linspace(0, 1, 5)
    table = {"a": [1, (2, 3)], "b": {4, 5}}

    def helper(value, power=2):
        return scale * value ** power

    class Shape:
        sides = 4

        def area(self):
            return helper(self.sides)

        @property
        def name(self):
            return "square"

    def f(n, seed, *, offset=1):
        def inner(y):
            return y in {"p", "q", "r"} and n
        try:
            return helper(n) + x.sum() + Shape().area() + table["a"][0] + offset, inner
        except ValueError:
            return math.pi
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale = 2.0", "scale = 3.0"),
        ("scale = 2.0", "scale = 2"),
        ("0, 1, 5", "0, 1, 6"),
        ("linspace(0, 1, 5)", "linspace(0, 1, 5, dtype=torch.float64)"),
        ("linspace(0, 1, 5)", "linspace(0, 1, 5, requires_grad=True)"),
        ("(2, 3)", "(2, 4)"),
        ("(2, 3)", "[2, 3]"),
        ("{4, 5}", "{4, 6}"),
        ("power=2", "power=3"),
        ("value ** power", "value + power"),
        ("sides = 4", "sides = 5"),
        ("helper(self.sides)", "helper(-self.sides)"),
        ('"square"', '"circle"'),
        ("offset=1", "offset=2"),
        ('"r"}', '"s"}'),
        ("and n", "or n"),
        ("except ValueError", "except KeyError"),
        ("math.pi", "math.e"),
        ("class Shape:", "class Shape(dict):"),
        ("        @property\n", ""),
    ],
)
def test_a_change_that_matters(old, new):
    assert USUAL.count(old) == 1
    assert source_hash(defined(USUAL)) != source_hash(defined(USUAL.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("and n", "and  n  # a comment"),
        ("    scale = 2.0\n", "    unused = 7\n    scale = 2.0\n"),
        ("    scale = 2.0\n", "\n\n    scale = 2.0\n"),
        ('"p", "q"', '"q", "p"'),
    ],
)
def test_a_change_that_does_not(old, new):
    assert source_hash(defined(USUAL)) == source_hash(defined(USUAL.replace(old, new)))


def test_it_is_the_same_in_another_process_and_after_a_journey():
    here = source_hash(defined(USUAL))
    assert source_hash(cloudpickle.loads(cloudpickle.dumps(defined(USUAL)))) == here
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_sources as t; "
    program += "print(t.source_hash(t.defined(t.USUAL)))"
    for seed in "01":
        child = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert child.stdout.strip() == here, child.stderr


def closing_over(value):
    return lambda seed: value


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: float
    note: object = None


KEYABLE = {
    "numbers": (1, 2),
    "signs of zero": (0.0, -0.0),
    "kinds of one": (1, True),
    "texts": ("a", b"a"),
    "arrays": (np.zeros(2), np.zeros((2, 1))),
    "formats": (np.zeros(2), np.zeros(2, dtype="f4")),
    "scalars": (np.float64(1), np.float32(1)),
    "tensors": (torch.zeros(2), torch.zeros(2).bfloat16()),
    "entries": (torch.zeros(2), torch.tensor([0.0, -0.0])),
    "dtypes": (torch.float32, torch.float64),
    "order of a dictionary": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "enumerations": (Colour.RED, Colour.BLUE),
    "data": (Point(1.0), Point(2.0)),
    "data within": (Point(1.0, [1]), Point(1.0, [2])),
    "tables": (load("co2"), load("seattle")),
    "classes": (torch.optim.Adam, torch.optim.SGD),
    "functions": (torch.exp, torch.sin),
    "ufuncs": (np.exp, np.sin),
    "methods": (Point(1.0).__eq__, Point(2.0).__eq__),
    "partials": (functools.partial(max, 1), functools.partial(max, 2)),
    "made by a library": (torch.func.vmap(closing_over(1)), torch.func.vmap(closing_over(2))),
    "closures within closures": (closing_over(closing_over(1)), closing_over(closing_over(2))),
    "nothing": (None, ...),
    "ranges": (range(3), range(4)),
    "paths": (Path("a"), Path("b")),
    "modules": (math, random),
}


@pytest.mark.parametrize("pair", KEYABLE.values(), ids=KEYABLE)
def test_values_that_a_function_reads(pair):
    one, other = map(closing_over, pair)
    assert source_hash(one) != source_hash(other)
    journey = cloudpickle.loads(cloudpickle.dumps(one))
    assert source_hash(one) == source_hash(closing_over(pair[0])) == source_hash(journey)


@pytest.mark.parametrize(
    "value",
    [
        torch.nn.Linear(1, 1),
        torch.Generator(),
        np.random.default_rng(0),
        np.random.default_rng(0).normal,
        random.Random(0),
        threading.Lock(),
        iter([1]),
        object(),
        [object()],
        {"a": object()},
        torch.eye(2).to_sparse(),
        np.array([object()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_hash_is_refused_by_its_name(value):
    with pytest.raises(ValueError, match="the function reads .*value.* inside the function|use a list or an array"):
        source_hash(closing_over(value))


def test_a_cached_function_is_what_it_caches():
    one, other = (closing_over(functools.lru_cache(closing_over(value))) for value in (1, 2))
    assert source_hash(one) != source_hash(other)


def test_a_notebook_and_a_script_agree():
    """IPython has an open of its own, and Python looks up methods in another way if the import is in another cell."""
    from IPython.core.interactiveshell import _modified_open

    imports = "import os\nimport math\n"
    source = """
        def f(n, seed):
            with open("a") as file:
                for line in file:
                    if math.isnan(n):
                        continue
                    math.sin(seed)
            return os.path.join("a", "b").upper()
    """
    notebook = defined(source, os=os, open=_modified_open)
    script = defined(imports + textwrap.dedent(source))
    assert notebook.__code__.co_code != script.__code__.co_code
    assert source_hash(notebook) == source_hash(script)


def test_functions_that_call_each_other():
    source = """
        def even(n):
            return n == 0 or odd(n - 1)
        def odd(n):
            return n != 0 and even(n - 1)
        def f(n, seed):
            return even(n)
    """
    changed = source.replace("n != 0", "n > 0")
    assert source_hash(defined(source)) == source_hash(defined(source)) != source_hash(defined(changed))


def test_a_module_of_ones_own(tmp_path, monkeypatch):
    """Edited files count, also those that another one imports; what is edited and not loaded again does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_below.py").write_text("value = 1\n")
    (tmp_path / "own_above.py").write_text("import own_below\ndef helper():\n    return own_below.value\n")
    seen = set()
    for edit in ("value = 1\n", "value = 22\n"):
        (tmp_path / "own_below.py").write_text(edit)
        for name in ("own_below", "own_above"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module("own_above")
        seen.add(source_hash(defined("def f(seed):\n    return m.helper()", m=module)))
        seen.add(source_hash(defined("def f(seed):\n    return helper()", helper=module.helper)))
    for name in ("own_below", "own_above"):
        del sys.modules[name]
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("function", "edited", "counts"),
    [
        (defined("def f(seed): return compare(seed)", compare=compare.compare), "compare.py", True),
        (defined("def f(seed): return compare(seed)", compare=compare.compare), "costs.py", False),
        (defined("def f(seed): return m.load(seed)", m=data), "tables/seattle_daily_weather.csv", True),
        (defined("def f(seed): return m.load(seed)", m=data), "compare.py", False),
        (defined("def f(seed):\n    from gpbook_utils import data"), "tables/seattle_daily_weather.csv", True),
        (defined("def f(seed):\n    from gpbook_utils.inducing import greedy"), "inducing.py", True),
        (defined("def f(seed):\n    from gpbook_utils.inducing import greedy"), "data.py", False),
        (defined("def f(seed):\n    def g():\n        import gpbook_utils.training\n    g()"), "models.py", True),
        (defined("def f(seed): return run('from gpbook_utils import costs')", run=print), "costs.py", True),
        (defined("def f(seed): return m.machine.probe()", m=machines), "machines/machine.py", True),
        (defined("def f(seed): return c[0]", c=next(iter(CAUSES.values()))), "diagnose/causes.py", True),
        (defined("def f(seed): return seed"), "compare.py", False),
    ],
)
def test_the_modules_of_the_package_that_a_function_reaches_count(tmp_path, monkeypatch, function, edited, counts):
    shutil.copytree(reach.ROOT / "gpbook_utils", tmp_path / "gpbook_utils")
    monkeypatch.setattr(sources, "IMPORTED", reach.Sources(tmp_path))
    before = source_hash(function)
    with open(tmp_path / "gpbook_utils" / edited, "a", encoding="utf-8") as file:
        file.write("\nedited = 1\n")
    assert source_hash(function) == before  # what is imported is not what was edited later
    monkeypatch.setattr(sources, "IMPORTED", reach.Sources(tmp_path))
    assert (source_hash(function) != before) == counts


def test_what_a_module_of_ones_own_imports_of_the_package_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_late.py").write_text("def helper():\n    from gpbook_utils import costs\n")
    function = defined("def f(seed):\n    return m.helper()", m=importlib.import_module("own_late"))
    del sys.modules["own_late"]
    before = source_hash(function)
    edited = reach.Sources()
    edited.modules["gpbook_utils.costs"] = "gpbook_utils", b"edited = 1"
    monkeypatch.setattr(sources, "IMPORTED", edited)
    assert source_hash(function) != before


def test_the_version_of_a_library_counts(monkeypatch):
    import scipy.optimize

    function = defined("def f(seed):\n    return minimize(seed)", minimize=scipy.optimize.minimize)
    before = source_hash(function)
    monkeypatch.setattr(scipy, "__version__", "0.1")
    assert source_hash(function) != before


CLASSES = """
    import abc, dataclasses, enum, typing
    import gpytorch

    class Colour(enum.Flag):
        RED = 1

    @dataclasses.dataclass
    class Data:
        x: float = 1.0
        y: list = dataclasses.field(default_factory=list)

        def method(self):
            return 7

    class Pair(typing.NamedTuple):
        a: int = 1

    class Model(gpytorch.models.ExactGP):
        def forward(self, x):
            return super().forward(x * 2)

    class Abstract(abc.ABC):
        __slots__ = ("q",)

        @abc.abstractmethod
        def method(self):
            pass

    class Concrete(Abstract):
        @property
        def three(self):
            return 3

        @classmethod
        def method(cls):
            return super().method()

    def f(seed):
        return Colour.RED, Data(), Pair(), Model, Concrete
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RED = 1", "RED = 2"),
        ("= 1.0", "= 2.0"),
        ("default_factory=list", "default_factory=set"),
        ("return 7", "return 8"),
        ("a: int = 1", "a: int = 2"),
        ("x * 2", "x * 3"),
        ("models.ExactGP", "models.ApproximateGP"),
        ("            pass", "            return 4"),
        ("return 3", "return 4"),
        ("@classmethod", "@staticmethod"),
    ],
)
def test_classes_of_a_notebook(old, new):
    one, other = defined(CLASSES), defined(CLASSES.replace(old, new))
    assert CLASSES.count(old) == 1 and source_hash(one) != source_hash(other)
    assert source_hash(one) == source_hash(defined(CLASSES)) == source_hash(cloudpickle.loads(cloudpickle.dumps(one)))


def test_what_is_no_function():
    with pytest.raises(ValueError, match="function must be callable; got int: 3"):
        source_hash(3)
