"""The engine that sabotages claims, and every chapter's sabotages."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import nbformat
import psutil
import pytest

from book import sabotage

CHAPTERS = sorted(sabotage.CHAPTERS.glob("*.ipynb"))
IMPORTS = "from gpbook_utils.claims import decide, unobservable"
CLAIM = 'decide("two-even", x % 2 == 0, check="Two is even.")'
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


def command_line(folder, **variables):
    """How to start the command line for the chapter in a folder."""
    code = (
        "import sys; from book import sabotage; sabotage.PLANS = sabotage.Path(); "
        "sys.exit(sabotage.main(['chapter.ipynb']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(sabotage.ROOT), **variables}
    return {"args": [sys.executable, "-c", code], "cwd": folder, "env": environment}


def alive(pid):
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition, patience=30):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


# The engine.


def test_a_claim_that_falls_passes(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM)
    assert result.problem == "" and result.seconds > 0
    assert str(result).startswith("refuted") and "cells  2 to  3" in str(result)


def test_a_claim_that_still_holds_fails(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", "x = 4"))
    assert "got {'two-even': 'holds'}" in result.problem and str(result).startswith("FAILED")


def test_an_unobservable_verdict_is_not_a_fall(tmp_path):
    cell = 'decide("two-even", x == 2 or unobservable("odd"), check="Two is even.")'
    assert "not observable here" in only_result(tmp_path, IMPORTS, "x = 2", cell).problem


def test_what_this_machine_cannot_decide_is_listed(tmp_path):
    cell = 'decide("two-even", unobservable("no GPU"), check="Two is even.")'
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
    assert str(result).startswith("FAILED")


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
    assert "a cell did not end within 2 s" in result.problem
    assert time.monotonic() - start < 30
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_what_a_branch_leaves_running_is_ended(tmp_path):
    leave = "x = 3; import subprocess; left = subprocess.Popen(['sleep', '60']); open('left', 'w').write(str(left.pid))"
    assert only_result(tmp_path, IMPORTS, "x = 2", CLAIM, plan=PLAN.replace("x = 3", leave)).problem == ""
    assert not alive((tmp_path / "left").read_text())


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("import time; time.sleep(60)", "a cell did not end within 2 s"),
        ("import os; os._exit(7)", "exit code 7"),
        ("1 / 0", "ZeroDivisionError"),
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()", "did not end within 2 s"),
    ],
)
def test_an_unchanged_cell_that_hangs_dies_or_fails(tmp_path, cell, problem):
    wait = "x = 3; import os; open('branch', 'w').write(str(os.getpid()))"
    cells = [IMPORTS, "x = 2", f"if x == 2:\n    {cell}", CLAIM]
    result = only_result(tmp_path, *cells, plan=PLAN.replace("x = 3", wait), timeout=2)
    assert "the unchanged chapter must run up to the last claim" in result.problem and problem in result.problem
    written = tmp_path / "branch"  # not yet, where the trunk was faster
    pid = written.read_text() if written.exists() else ""
    assert not pid or not alive(pid)  # ended before it had written its number, or after


def test_the_claim_must_hold_before(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 5  # x = 2", CLAIM)
    assert "must see the claims hold" in result.problem and "'refuted'" in result.problem


def test_a_change_after_the_claim_refutes_nothing(tmp_path):
    result = only_result(tmp_path, IMPORTS, "x = 4 // 2", CLAIM, "x = 2")
    assert "got {'two-even': 'undecided'}" in result.problem


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
    odd = 'decide("one-odd", y % 2 == 1, check="One is odd.")'
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
    assert only_result(tmp_path, *cells, plan=PLAN).problem == ""
    assert capfd.readouterr() == ("", "")


COUNT = "with open('count', 'a') as file:\n    file.write('x')"


def test_cells_before_the_first_change_run_once(tmp_path):
    chapter = chapter_of(tmp_path, IMPORTS, COUNT, "x = 2", CLAIM)
    plan = plan_of(tmp_path, PLAN + PLAN.replace("x = 3", "x = 5"))
    assert [result.problem for result in sabotage.apply_all(chapter, plan)] == ["", ""]
    assert (tmp_path / "count").read_text() == "x"


def test_the_last_claim_of_each_is_where_it_ends(tmp_path):
    cells = [IMPORTS, "x = 2", CLAIM, COUNT, 'decide("six-even", 3 * x % 2 == 0, check="Six is even.")', "1 / 0"]
    plan = PLAN + PLAN.replace("two-even", "six-even")
    results = sabotage.apply_all(chapter_of(tmp_path, *cells), plan_of(tmp_path, plan))
    assert [(result.problem, result.branch.last) for result in results] == [("", 2), ("", 4)]
    assert (tmp_path / "count").read_text() == "xx"  # of the unchanged chapter and the second


def test_a_whole_run_begins_with_the_first_cell(tmp_path):
    plan = PLAN + "    whole = true\n"
    result = only_result(tmp_path, IMPORTS, COUNT, "x = 2", CLAIM, plan=plan)
    assert result.problem == "" and result.branch.first == 0 and (tmp_path / "count").read_text() == "xx"


def test_a_branch_goes_on_where_the_trunk_stands(tmp_path):
    cells = [
        "import random, numpy, torch\n" + IMPORTS,
        "model = torch.nn.Dropout(0.5)\nfor one in (random, numpy.random, torch):\n    one.seed()",
        "state = [random.random(), numpy.random.rand(), torch.rand(1).item()]\nmodel.eval()",
        "again = [random.random(), numpy.random.rand(), torch.rand(1).item()]\nx = 2",
        'decide("two-even", x == 2 and not model.training, check=str(again) + ".")',
    ]
    change = "x = 3; open('branch', 'w').write(str(again))"
    cells[3] += "; open('trunk', 'w').write(str(again))"
    assert only_result(tmp_path, *cells, plan=PLAN.replace("x = 3", change)).problem == ""
    assert (tmp_path / "branch").read_text() == (tmp_path / "trunk").read_text()


def test_two_processes_compute_at_a_time(tmp_path):
    busy = """
        import os, pathlib, time
        me = pathlib.Path(f"busy-{os.getpid()}")
        me.touch()
        time.sleep(0.3)
        with open("seen", "a") as file:
            file.write(f"{len(list(pathlib.Path().glob('busy-*')))} ")
        me.unlink()
    """
    cells = [IMPORTS, "x = 2", textwrap.dedent(busy) + CLAIM]
    plan = "".join(PLAN.replace("x = 3", f"x = {odd}") for odd in (3, 5, 7, 9))
    results = sabotage.apply_all(chapter_of(tmp_path, *cells), plan_of(tmp_path, plan))
    assert [result.problem for result in results] == [""] * 4
    seen = (tmp_path / "seen").read_text().split()
    assert len(seen) == 5 and max(seen) == "2"


def test_temporary_files_are_apart_and_removed(tmp_path):
    cells = [
        "import os, tempfile\ntempfile.mkdtemp()\n" + IMPORTS,
        "x = 2",
        "with open('names', 'a') as file:\n    print(tempfile.gettempdir(), os.environ['TMPDIR'], file=file)",
        "tempfile.mkdtemp()\n" + CLAIM,
    ]
    assert only_result(tmp_path, *cells).problem == ""
    names = (tmp_path / "names").read_text().split()
    assert names[0] == names[1] != names[2] == names[3] and not any(map(os.path.exists, names))


def test_no_cell_sees_a_gpu_or_waits_for_input(tmp_path):
    cell = "import os, sys; x = 2; assert not sys.stdin.read() and os.environ['CUDA_VISIBLE_DEVICES'] == ''"
    assert only_result(tmp_path, IMPORTS, cell, CLAIM).problem == ""


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(tmp_path, monkeypatch, ended):
    pids = """
        import os, subprocess, time
        here = [os.getpid(), subprocess.Popen(["sleep", "60"]).pid]
        with open(f"pids-{x}", "w") as file:
            print(*here, file=file)
        time.sleep(60)
    """
    chapter_of(tmp_path, IMPORTS, "x = 2", textwrap.dedent(pids) + CLAIM)
    plan_of(tmp_path, PLAN)
    process = subprocess.Popen(
        **command_line(tmp_path),
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run behind a shell
    )
    until(lambda: len([path for path in tmp_path.glob("pids-*") if path.read_text()]) == 2)
    process.send_signal(ended)
    assert process.wait(20) != 0
    until(lambda: not any(alive(pid) for path in tmp_path.glob("pids-*") for pid in path.read_text().split()))


# What doesn't fit is told before anything runs.


@pytest.mark.parametrize("cell", ["x = 1", "x = 2; x = 2"], ids=["missing", "twice"])
def test_a_text_that_does_not_occur_exactly_once(tmp_path, cell):
    with pytest.raises(ValueError, match="'an odd number'.* must occur exactly once .*'x = 2'"):
        only_result(tmp_path, IMPORTS, cell, CLAIM)


def test_a_claim_without_sabotage(tmp_path):
    with pytest.raises(ValueError, match="'lonely' has no sabotage"):
        only_result(tmp_path, IMPORTS, "x = 2", CLAIM, 'decide("lonely", True, check="Alone.")')


def test_a_stored_claim_without_sabotage_although_its_id_is_computed(tmp_path):
    chapter = chapter_of(tmp_path, "decide(f'a-{1}', True, check='A.')", stored=[("a-1", "holds")])
    assert sabotage.problems(chapter, sabotage.Plan()) == ["chapter: claim 'a-1' has no sabotage that refutes it"]


def test_a_chapter_without_a_file(tmp_path, monkeypatch):
    none = sabotage.read_plan(tmp_path / "absent.toml")
    assert "'two-even' has no sabotage" in sabotage.problems(chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM), none)[0]
    monkeypatch.setattr(sabotage, "run", None)  # there is nothing to run
    assert sabotage.apply_all(chapter_of(tmp_path, "1 / 0"), none) == []


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
    chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM, 'decide("lonely", True, check="Alone.")')
    plan_of(tmp_path, PLAN)
    assert sabotage.main([str(tmp_path / "chapter.ipynb")]) == 1
    assert "'lonely' has no sabotage" in capsys.readouterr().err
    assert sabotage.main([str(tmp_path / "chapter.ipynb"), "two-even"]) == 0
    assert capsys.readouterr().out.startswith("refuted")
    plan_of(tmp_path, PLAN.replace("x = 3", "x = 4"))
    assert sabotage.main([str(tmp_path / "chapter.ipynb"), "two-even"]) == 1
    assert capsys.readouterr().out.startswith("FAILED")


def test_the_command_line_knows_its_claims(tmp_path, monkeypatch, capsys):
    chapter_of(tmp_path, IMPORTS, "x = 2", CLAIM)
    plan_of(tmp_path, PLAN)
    monkeypatch.setattr(sabotage, "PLANS", tmp_path)
    assert sabotage.main([str(tmp_path / "chapter.ipynb"), "no-such-claim"]) == 1
    assert "makes no claim no-such-claim; it makes two-even" in capsys.readouterr().err


def test_the_guard_mode_is_off(tmp_path):
    narrow = 'from gpbook_utils.claims import near\ndecide("two-even", near(x, 2.1, rtol=0.1, reason="r"), check="It.")'
    chapter_of(tmp_path, IMPORTS, "x = 2", narrow)
    plan_of(tmp_path, PLAN)
    done = subprocess.run(**command_line(tmp_path, GPBOOK_GUARD="3"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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
