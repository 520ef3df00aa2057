"""The engine that sabotages claims, and every chapter's sabotages."""

import os
import subprocess
import sys
import textwrap
import time

import nbformat
import pytest

from book import sabotage, slicing

CHAPTERS = sorted(sabotage.CHAPTERS.glob("*.ipynb"))
IMPORTS = "from gpbook_utils.claims import claim, unobservable"
CLAIM = 'claim("two-even", "Two is even.", x % 2 == 0)'
PLAN = """
    [[sabotage]]
    why = "an odd number"
    refutes = ["two-even"]
    replace = "x = 2"
    by = "x = 3"
"""


def chapter_of(tmp_path, *cells, stored=()):
    """A chapter of these cells; ``stored`` are claims (id, verdict) among the outputs of the last one."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", {sabotage.MIME: {"id": id, "verdict": verdict}})
        for id, verdict in stored
    ]
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    return sabotage.read_chapter(tmp_path / "chapter.ipynb")


def plan_of(tmp_path, text):
    (tmp_path / "chapter.toml").write_text(textwrap.dedent(text))
    return sabotage.read_plan(tmp_path / "chapter.toml")


def only_result(tmp_path, *cells, plan=PLAN, **options):
    (result,) = sabotage.apply_all(chapter_of(tmp_path, *cells), plan_of(tmp_path, plan), **options)
    return result


# The engine.


def test_a_claim_that_falls_passes(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM)
    assert result.problem == "" and result.cells == 3
    assert str(result).startswith("refuted")


def test_a_claim_that_still_holds_fails(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", "x = 4"))
    assert "got {'two-even': 'holds'}" in result.problem and str(result).startswith("FAILED")


def test_an_unobservable_verdict_is_not_a_fall(tmp_path):
    cell = 'claim("two-even", "Two is even.", x == 2 or unobservable("odd"))'
    assert "not observable here" in only_result(tmp_path, IMPORTS, "x = 2", cell).problem


def test_what_this_machine_cannot_decide_is_listed(tmp_path):
    cell = 'claim("two-even", "Two is even.", unobservable("no GPU"))'
    result = only_result(tmp_path, IMPORTS, "x = 2", cell)
    assert (
        result.problem == "" and str(result).startswith("skipped") and "not observable on this machine" in str(result)
    )


def test_a_claim_left_undecided_is_not_a_fall(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", f"if x == 2:\n    {CLAIM}")
    assert "undecided" in result.problem


@pytest.mark.parametrize("by", ["x = 1 / 0", "x = undefined", "x = = 2", "raise SystemExit(0)", "x = ''"])
def test_an_exception_is_not_a_fall(tmp_path, by):
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", by))
    assert "must run to their end" in result.problem
    assert "Traceback" in result.problem and "in code cell 2" in result.problem.replace("cell 3", "cell 2")


def test_an_exception_after_the_claim_fell_fails_too(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", f"{CLAIM}\n1 / (3 - x)")
    assert "ZeroDivisionError" in result.problem


def test_a_process_that_dies_fails(tmp_path):
    by = "import os; print('last words', flush=True); os._exit(7)"
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", by))
    assert "exit code 7" in result.problem and "last words" in result.problem


def test_a_hanging_cell_is_ended_with_its_children(tmp_path):
    hang = "import subprocess; subprocess.run('sleep 4; touch late; sleep 60', shell=True)"
    start = time.monotonic()
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", hang), timeout=2)
    assert "did not end within 2 s" in result.problem
    assert time.monotonic() - start < 30
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_the_claim_must_hold_before(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 5  # x = 2", CLAIM)
    assert "must see the claims hold" in result.problem and "'refuted'" in result.problem


def test_the_unchanged_cells_must_run_to_their_end(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", f"{CLAIM}\n1 / (2 - x)")
    assert "unchanged, code cells 1, 2, 3" in result.problem and "ZeroDivisionError" in result.problem


def test_several_changes_and_claims_at_once(tmp_path):
    plan = """
        [[sabotage]]
        why = "both"
        refutes = ["two-even", "one-odd"]
        [[sabotage.change]]
        replace = "x = 2"
        by = "x = 3"
        [[sabotage.change]]
        replace = "y = 1"
        by = "y = x - 1"
    """
    odd = 'claim("one-odd", "One is odd.", y % 2 == 1)'
    assert only_result(tmp_path, IMPORTS, "x = 2", "y = 1", CLAIM, odd, plan=plan).problem == ""


def test_the_last_verdict_of_an_id_counts(tmp_path):
    cell = f"x = 3\n{CLAIM}\nx = 2\n{CLAIM}"
    assert only_result(tmp_path, IMPORTS, cell, plan=PLAN).problem == ""


def test_cells_run_as_in_a_notebook_in_the_chapters_folder(tmp_path, capfd):
    (tmp_path / "here.txt").write_text("2")
    cells = [
        "%matplotlib inline\nimport torch\nimport matplotlib.pyplot as plt\n" + IMPORTS,
        "assert get_ipython() is not None",
        "x = 2; from pathlib import Path; assert Path('here.txt').exists() and torch.get_num_threads() == 1",
        "class A: pass\nimport pickle; pickle.loads(pickle.dumps(A()))",
        "fig, ax = plt.subplots(); plt.show(); fig",
        CLAIM,
    ]
    assert only_result(tmp_path, *cells, plan=PLAN + "    whole = true\n").problem == ""
    assert capfd.readouterr() == ("", "")


def test_unchanged_cells_that_sabotages_share_run_once(tmp_path):
    count = "with open('count', 'a') as file: file.write('x')"
    chapter = chapter_of(tmp_path, IMPORTS, f"x = 2\n{count}", CLAIM)
    plan = plan_of(tmp_path, PLAN + PLAN.replace("x = 3", "x = 5"))
    assert [result.problem for result in sabotage.apply_all(chapter, plan)] == ["", ""]
    assert len((tmp_path / "count").read_text()) == 3


def test_only_needed_cells_run(tmp_path):
    marker = "open('marker', 'w').close()\nz = 1"
    result = only_result(tmp_path, IMPORTS, marker, "x = 2", "y = x", CLAIM)
    assert result.problem == "" and result.cells == 3 and not (tmp_path / "marker").exists()
    assert only_result(tmp_path, IMPORTS, marker, "x = 2", CLAIM, plan=PLAN + "    whole = true\n").cells == 4
    assert (tmp_path / "marker").exists()


def test_a_cell_that_changes_a_needed_object_runs(tmp_path):
    cells = [
        "import torch\n" + IMPORTS,
        "model = torch.nn.Dropout(0.5).eval()",
        "x = 2",
        "model.train()",
        'claim("two-even", "Training mode and two.", model.training and x == 2)',
    ]
    result = only_result(tmp_path, *cells)
    assert result.problem == "" and result.cells == 5


# What doesn't fit is told before anything runs.


@pytest.mark.parametrize("cell", ["x = 1", "x = 2; x = 2"], ids=["missing", "twice"])
def test_a_text_that_does_not_occur_exactly_once(tmp_path, cell):
    with pytest.raises(ValueError, match="'an odd number'.* must occur exactly once .*'x = 2'"):
        only_result(tmp_path, IMPORTS, cell, CLAIM)


def test_a_claim_without_sabotage(tmp_path):
    with pytest.raises(ValueError, match="'lonely' has no sabotage"):
        only_result(tmp_path, IMPORTS, "x = 2", CLAIM, 'claim("lonely", "Alone.", True)')


def test_a_stored_claim_without_sabotage_although_its_id_is_computed(tmp_path):
    chapter = chapter_of(tmp_path, "claim(f'a-{1}', 'A.', True)", stored=[("a-1", "holds")])
    assert sabotage.problems(chapter, sabotage.Plan()) == ["chapter: claim 'a-1' has no sabotage that refutes it"]


def test_a_chapter_with_claims_and_no_file(tmp_path):
    chapter = chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM)
    plan = sabotage.read_plan(tmp_path / "absent.toml")
    assert "'two-even' has no sabotage" in sabotage.problems(chapter, plan)[0]


def test_an_unknown_claim(tmp_path):
    with pytest.raises(ValueError, match="'two-even' is named in the sabotage file, and"):
        only_result(tmp_path, IMPORTS, "x = 2")


def test_only_what_is_not_observable_here_is_excused(tmp_path):
    plan = plan_of(tmp_path, '[not_sabotaged_here]\ngpu = "needs a GPU"')
    chapter = chapter_of(tmp_path, "...", stored=[("gpu", "not observable here")])
    assert sabotage.problems(chapter, plan) == []
    chapter = chapter_of(tmp_path, "...", stored=[("gpu", "holds")])
    assert "its stored verdict is not" in sabotage.problems(chapter, plan)[0]
    chapter = chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM)
    both = plan_of(tmp_path, PLAN + '[not_sabotaged_here]\ntwo-even = "no reason"')
    assert "both sabotaged and under" in sabotage.problems(chapter, both)[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("why =", "reason =", r"unknown keys \['reason'\]"),
        ("[[sabotage]]", "[[sabotages]]", r"unknown keys \['sabotages'\]"),
        ('by = "x = 3"', "", r"lacks \['by'\]"),
        ('by = "x = 3"', 'by = "x = 2"', "changes nothing"),
        ('replace = "x = 2"', 'replace = ""', "changes nothing"),
        ('["two-even"]', "[]", "at least one"),
        ('["two-even"]', "[2]", "at least one"),
        ('["two-even"]', '"two-even"', "refutes of sabotage 'an odd number' must be a list"),
        ('by = "x = 3"', 'by = "x = 3"\nwhole = 1', "whole of .* must be a bool"),
        ('by = "x = 3"', 'by = "x = 3"\nchange = []', "unknown keys"),
        ('by = "x = 3"', 'by = "x', "chapter.toml: Illegal character"),
        ("[[sabotage]]", "[not_sabotaged_here]\ngpu = 3\n[[sabotage]]", "gpu of .* must be a str"),
    ],
)
def test_a_file_of_another_form(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, textwrap.dedent(PLAN).replace(old, new))


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sabotage, "PLANS", tmp_path)
    chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM, 'claim("lonely", "Alone.", True)')
    plan_of(tmp_path, PLAN)
    assert sabotage.main([str(tmp_path / "chapter.ipynb")]) == 1
    assert "'lonely' has no sabotage" in capsys.readouterr().err
    assert sabotage.main([str(tmp_path / "chapter.ipynb"), "two-even"]) == 0
    assert capsys.readouterr().out.startswith("refuted")


def test_the_command_line_knows_its_claims(tmp_path, monkeypatch, capsys):
    chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM)
    plan_of(tmp_path, PLAN)
    monkeypatch.setattr(sabotage, "PLANS", tmp_path)
    assert sabotage.main([str(tmp_path / "chapter.ipynb"), "no-such-claim"]) == 1
    assert "makes no claim no-such-claim; it makes two-even" in capsys.readouterr().err


def test_the_guard_mode_is_off(tmp_path):
    narrow = 'from gpbook_utils.claims import near\nclaim("two-even", "Two.", near(x, 2.1, rtol=0.1, reason="r"))'
    chapter_of(tmp_path, IMPORTS, "x = 2", narrow)
    plan_of(tmp_path, PLAN)
    command = (
        "import sys; from book import sabotage; sabotage.PLANS = sabotage.Path(); "
        "sys.exit(sabotage.main(['chapter.ipynb']))"
    )
    environment = {**os.environ, "GPBOOK_GUARD": "3", "PYTHONPATH": str(sabotage.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The slices.


SETUP = (
    "import torch, gpytorch\n"
    "from gpbook_utils.models import ExactModel, posterior, prior_covariance\n"
    "from gpbook_utils.training import fit"
)
DATA = "x = torch.linspace(0, 1, 9)\ny = torch.sin(x)"
MODEL = "model = ExactModel(x, y)"


@pytest.mark.parametrize(
    "change",
    [
        "model.train()",
        "model.eval().double()",
        "model.covar_module.lengthscale = 3",
        "del model.covar_module",
        "losses = [m.train() for m in [model]]",
        "with torch.no_grad():\n    model.train()",
        "for m in [model]:\n    m.train()",
        "losses = fit(model)",
        "fit(model)",
        "mean = posterior(model, x).mean",
        "def switch(m):\n    m.train()\n    return 1\nn = switch(model)",
        "def switch():\n    model.train()\n    return 1\nn = switch()",
        "optimiser = torch.optim.Adam(model.parameters())\noptimiser.step()",
        "loss = -model(x).sum()\nloss.backward()",
        "gpytorch.settings.debug(model)",
        "models = {'a': model}\nmodels['a'].train()",
        "%%capture\nmodel.train()",
        "torch.nn.init.zeros_(model.raw)",
        "if x[0] > 0:\n    model = None",
        "torch.set_default_dtype(torch.float64)",
        "gpytorch.tune(3)",
        "torch.manual_seed(1)",
        "%matplotlib inline",
        "%%bash\necho |",
        "import warnings",
    ],
)
def test_a_cell_that_changes_the_model_or_a_setting_is_needed(change):
    assert slicing.needed([SETUP, DATA, MODEL, change, "K = model.covar_module(x)"], [4]) == [0, 1, 2, 3, 4]


def test_what_a_function_returns_may_be_what_it_looks_up():
    cells = ["model = Model()", "def get():\n    return model", "m = get()\nm.train()", "model(1)"]
    assert slicing.needed(cells, [3]) == [0, 1, 2, 3]


def test_what_a_class_looks_up_is_needed_where_it_is_used():
    cells = ["class A:\n    def m(self):\n        return later", "later = 1", "A().m()"]
    assert slicing.needed(cells, [2]) == [0, 1, 2]


def test_a_function_whose_name_is_bound_again_is_forgotten():
    cells = ["def f(x):\n    x.train()", "f = max", "m = Model()", "n = f(m)", "m(1)"]
    assert slicing.needed(cells, [4]) == [2, 4]


def test_no_builtin_function_is_changed():
    assert slicing.needed(["a = list(range(3))\na.append(1)", "b = list(range(3))"], [1]) == [1]


@pytest.mark.parametrize(
    "change",
    [
        "other = ExactModel(x, y)\nfit(other, x)",
        "other = ExactModel(x, y)\noptimiser = torch.optim.Adam(other.parameters())\noptimiser.step()",
        "from gpbook_utils.models import prior_covariance\nK = prior_covariance(model, x)\nprint(K)\ntorch.equal(K, K)",
        "def check(a):\n    assert a is not None\n\ncheck(model)",
        "z = torch.exp(model.raw)\nz += 1",
        "import copy\nother = copy.deepcopy(model)\nother.train()",
        "others = [ExactModel(a, b) for model in range(3) for a in [1] for b in [2]]\nfit(*others)",
        "n = [step() for model in range(3)]\nm = (fit(model) for model in n)",
        "fig, ax = plt.subplots()\nax.plot(x, model.raw)\nplots.show(fig)",
        "for ax in axes:\n    ax.plot(model.raw)",
        "claim('a', 'A.', model.raw == 1)",
        "torch.manual_seed(0)\nz = torch.randn(3)",
        "import expensive\nz = expensive.run(x)",
        "def f(model):\n    model.train()",
        "model = None\nmodel.train()",
    ],
)
def test_other_cells_are_not(change):
    cells = [SETUP + "\nfrom gpbook_utils import plots\nimport matplotlib.pyplot as plt", DATA, change, MODEL]
    assert slicing.needed([*cells, "K = model.covar_module(x)"], [4]) == [0, 1, 3, 4]
    if not change.startswith("model"):
        cells[2:] = [MODEL, change]
        assert slicing.needed([*cells, "K = model.covar_module(x)"], [4]) == [0, 1, 2, 4]


def test_what_a_function_looks_up_is_needed_where_it_is_called():
    cells = ["def f():\n    return g() + a", "def g():\n    return b", "a = 1", "b = 2", "c = 3", "f()"]
    assert slicing.needed(cells, [5]) == [0, 1, 2, 3, 5]
    assert slicing.needed(["class A:\n    b = a", "a = 1", "def f():\n    global a\n    a = 2", "a"], [3]) == [1, 2, 3]


@pytest.mark.parametrize("parameter", ["torch.zeros(2, requires_grad=True)", "torch.zeros(2).requires_grad_()"])
def test_a_parameter_that_an_optimiser_moves_is_no_value(parameter):
    cells = ["import torch", f"p = {parameter}", "optimiser = torch.optim.SGD([p])\noptimiser.step()", "p"]
    assert slicing.needed(cells, [3]) == [0, 1, 2, 3]


def test_the_body_of_a_cell_magic_is_read():
    assert slicing.needed(["a = 1", "%%capture\nb = a", "b"], [2]) == [0, 1, 2]


# The book.


def read_plan_of(path):
    return sabotage.read_plan(sabotage.PLANS / f"{path.stem}.toml")


def test_every_sabotage_file_has_a_chapter():
    assert {path.stem for path in sabotage.PLANS.glob("*")} <= {path.stem for path in CHAPTERS}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_sabotages_fit_the_chapter(path):
    wrong = sabotage.problems(sabotage.read_chapter(path), read_plan_of(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.deep
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_claim_is_seen_failing(path, capsys):
    results = sabotage.apply_all(sabotage.read_chapter(path), read_plan_of(path))
    with capsys.disabled():
        print("", *results, sep="\n")
    failed = [str(result) for result in results if result.problem]
    assert not failed, "\n".join(failed)
