"""A class hands in, and gets what is due: from a folder of files to ``grades.csv``, in real cages."""

import contextlib
import csv
import io
import os
import platform
import queue
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import assignment_runs
import grading_class
import nbformat
import psutil
import pytest

from book import handouts
from grading import assignment, cage, notebooks, seccomp, sheets, submissions, watch

ROOT = Path(__file__).parents[1]
GRADER = ROOT / ".venv-grading/bin"
LIMITS = ("--seconds", "5", "--gigabytes", "2")
BUSY = "import time; end = time.process_time() + {}; any(time.process_time() > end for _ in iter(int, 1))"  # seconds
caged = pytest.mark.skipif(sys.platform != "linux", reason="the cage needs Linux")


def of_the_class(test):
    """Mark a test of ``term``, which is made once: a worker that runs one of them runs all."""
    return caged(pytest.mark.deep(pytest.mark.xdist_group("class")(test)))


def grade(*arguments, path=f"{GRADER}:{os.environ['PATH']}", **environment):
    """The command behind ``make grade``, in the grader's own environment."""
    command = [GRADER / "python", "-m", "grading", *map(str, arguments)]
    environment = {**os.environ, "PATH": path, "TOKEN": "a secret of the grader", **environment}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def rows(course):
    with open(course / "results" / grading_class.NAME / "grades.csv", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def term(tmp_path_factory):
    """A graded class: the folder of the course, what each should get, the arguments of the command, what it said."""
    folder = tmp_path_factory.mktemp("term")
    wanted = grading_class.write_class(folder / "handed_in")
    kept = ["--course", folder / "course", "--assignments", grading_class.write_assignment(folder / "assignments")]
    (folder / "temporary").mkdir()
    collected = folder / "course/submitted/no_words/small"
    collected.mkdir(parents=True)
    (collected / "timestamp.txt").write_text("yesterday evening")
    done = grade(grading_class.NAME, folder / "handed_in", *kept, *LIMITS, TMPDIR=str(folder / "temporary"))
    assert done.returncode == 0, done.stderr
    return folder, wanted, kept, done


@of_the_class
def test_everybody_gets_the_marks_that_are_due(term):
    folder, wanted, _, _ = term
    got = {name: (float(row["score"]), row["status"]) for name, row in rows(folder / "course").items()}
    assert set(got) == set(wanted)
    different = {
        name: (got[name], wanted[name])
        for name in wanted
        if got[name][0] != wanted[name][0] or wanted[name][1] not in ("any", got[name][1])
    }
    assert not different
    assert {row["max"] for row in rows(folder / "course").values()} == {"100"}


@of_the_class
@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("loops_on", "cell q1_a was still running after 5 s of computing"),
        ("sleeps", "cell q1_a was still running after 15 s by the clock"),
        ("hogs", "took more memory"),
        ("forks", "took more memory or processes"),
        ("floods", "displayed more than 2,000,000 characters"),
        ("garbage", "sent something that is no message"),
        ("many_answers", "q1_a gave 3 answers"),
        ("patches_input", "q1_b gave something that the book's answer() does not write"),
        ("deleted", "missing cells: q1_a, q2;"),
        ("edited", "changed marked cells, of which the assignment's own were run: q1_b"),
        ("curiemarie_12", "late, by the name of the file"),
        ("near", "to mark by hand: q1_a, q1_b, q3_words"),
        ("bomb", "the notebook is larger than 20 MB"),
        ("link", "is a link"),
        ("two", "several notebooks: a.ipynb, b.ipynb"),
        ("other", "no cell of this assignment is in the notebook"),
        ("rar", "is no notebook, zip or folder: rar.rar"),
        ("damaged", "cannot be read: error: Error -3 while decompressing data"),
        ("long_words", "its cells hold more than 1,000,000 characters"),
        ("a-b-80f8c6", "to mark by hand"),
    ],
)
def test_what_is_strange_is_said(term, student, said):
    assert said in rows(term[0] / "course")[student]["flags"]


@of_the_class
def test_nothing_survives_a_cage(term):
    for process in psutil.process_iter(["cmdline"]):
        assert "gpbook-left-behind" not in (process.info["cmdline"] or [])
    groups = watch.CGROUPS.glob("**/gpbook-*")  # named after the process that made them
    assert not [group for group in groups if not psutil.pid_exists(int(group.name.split("-")[1]))]
    assert not list((term[0] / "temporary").iterdir())


@of_the_class
def test_feedback_tells_the_marks_and_no_hidden_line(term):
    pages = {path.stem: path.read_text("utf-8") for path in (term[0] / "course/results/small/feedback").glob("*.html")}
    assert set(pages) == set(term[1])
    for page in pages.values():
        assert "-1.25" not in re.sub("<style.*?</style>", "", page, flags=re.DOTALL)
        assert grading_class.SECRET not in page
        assert "hacked'</script>" not in page
    assert "Right." in pages["right"]
    assert "Not right: total differs by" in pages["special_cased"]
    assert "The cell failed: NameError" in pages["unsolved"]
    assert "Not marked: there is no notebook in it" in pages["empty"]


@of_the_class
def test_a_course_stays_small_whatever_is_displayed(term):
    files = [path for path in (term[0] / "course").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if "chatters" in str(path)) < 80e6
    assert all(path.stat().st_size < 64 * 2**20 for path in files)


@of_the_class
def test_a_second_command_does_nothing_again_and_takes_up_hand_marks(term):
    folder, _, kept, _ = term
    course = folder / "course"
    before, runs = rows(course), {path: path.stat().st_mtime_ns for path in (course / "runs/small").iterdir()}
    mark = (
        "from nbgrader.api import Gradebook\n"
        f"with Gradebook('sqlite:///{course}/gradebook.db', 'gpbook') as book:\n"
        "    for cell, score in (('q3_words', 25), ('q1_a', 10), ('q1_b', 0)):\n"
        "        grade = book.find_grade(cell, 'small', 'small', 'near')\n"
        "        grade.manual_score, grade.needs_manual_grade = score, False\n"
        "    book.db.commit()\n"
    )
    subprocess.run([GRADER / "python", "-c", mark], check=True)
    done = grade(grading_class.NAME, folder / "handed_in", *kept, *LIMITS)
    # What could not be read is looked at again; it costs nothing.
    assert "0 to run" in done.stdout
    after = rows(course)
    assert {path: path.stat().st_mtime_ns for path in (course / "runs/small").iterdir()} == runs
    assert (after["near"]["score"], after["near"]["status"]) == ("75", "graded")
    assert {name: row for name, row in after.items() if name != "near"} == {
        name: row for name, row in before.items() if name != "near"
    }
    assert "25.0 / 30.0" in (course / "results/small/feedback/near.html").read_text("utf-8")


@of_the_class
def test_nbgraders_own_button_executes_nothing(term):
    """A person who presses "autograde" in nbgrader's pages is told to use the cage, and no mark changes."""
    folder, _, kept, _ = term
    course = folder / "course"
    before = rows(course)
    collected = course / "submitted/right/small"
    collected.mkdir(parents=True)
    touched = folder / "executed"
    submitted = grading_class.handed_in(total=f"open({str(touched)!r}, 'w')\n{grading_class.TOTAL}")
    nbformat.write(submitted, collected / "small.ipynb")
    command = ["nbgrader", "autograde", "small", "--student", "right", "--force"]
    environment = {**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert "this notebook was not run in a cage; use `make grade`" in done.stderr
    assert not touched.exists()
    assert grade(grading_class.NAME, *kept).returncode == 0
    assert rows(course) == before


@caged
def test_without_bubblewrap_nothing_is_graded(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    (tmp_path / "in").mkdir()
    nbformat.write(grading_class.handed_in(), tmp_path / "in/student.ipynb")
    only = tmp_path / "bin"
    only.mkdir()
    for program in ("sh", "prlimit"):
        (only / program).symlink_to(shutil.which(program))
    kept = ["--course", tmp_path / "course", "--assignments", folder]
    done = grade(grading_class.NAME, tmp_path / "in", *kept, path=str(only))
    assert done.returncode == 1
    assert "Nothing was graded: the program 'bwrap' is missing" in done.stderr
    assert "apt-get install bubblewrap" in done.stderr
    assert not (tmp_path / "course").exists()


@caged
def test_a_solution_that_fails_grades_nobody(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    broken = grading_class.source()
    grading_class.cell(broken, "q2").source = "### BEGIN SOLUTION\nraise ValueError('no')\n### END SOLUTION"
    nbformat.write(broken, folder / "small/small.ipynb")
    (tmp_path / "in").mkdir()
    nbformat.write(grading_class.handed_in(), tmp_path / "in/ada.ipynb")
    done = grade(grading_class.NAME, tmp_path / "in", "--course", tmp_path / "course", "--assignments", folder)
    assert done.returncode == 1
    assert "the solution of small does not run here: the solution does not answer q2_a" in done.stderr
    assert "NameError" in done.stderr
    assert not list((tmp_path / "course").glob("runs/small/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense", "."], "A needs the name of an assignment, one of .*small; got 'nonsense'"),
        (["", "."], "A needs the name of an assignment"),
        (["../small", "."], "A needs the name"),
        (["small", "no/such/folder"], "SUBMISSIONS needs a folder .* got no/such/folder"),
        (["small", "{empty}"], "there is no notebook, zip or folder in"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    (tmp_path / "empty").mkdir()
    arguments = [text.format(empty=tmp_path / "empty") for text in arguments]
    done = grade(*arguments, "--course", tmp_path / "course", "--assignments", folder)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "course").exists()


def test_without_hand_ins_the_command_says_what_it_needs(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    done = grade("small", "--course", tmp_path / "course", "--assignments", folder)
    assert "no hand-ins of small yet: SUBMISSIONS=folder says where they are" in done.stdout, done.stderr


@caged
@pytest.mark.deep
def test_an_interrupted_command_goes_on_where_it_was(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    (tmp_path / "in").mkdir()
    for number in range(8):
        nbformat.write(grading_class.handed_in(), tmp_path / f"in/student-{number}.ipynb")
    kept = ["small", tmp_path / "in", "--course", tmp_path / "course", "--assignments", folder]
    command = [GRADER / "python", "-m", "grading", *map(str, kept)]
    environment = {**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}"}
    for wanted, how in ((2, signal.SIGKILL), (5, signal.SIGINT)):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run behind a shell
        )
        while len(list((tmp_path / "course/runs/small").glob("*.json"))) < wanted:
            assert process.poll() is None
            time.sleep(0.05)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(how) if how == signal.SIGKILL else os.killpg(process.pid, how)  # Ctrl-C reaches all
        said = process.communicate()[1].decode()
        assert (said.startswith("Stopped."), "Traceback" in said) == (how == signal.SIGINT, False), said
        assert not psutil.wait_procs(started, timeout=20)[1]  # nothing survives: no cage, no kernel
    done_before = {path: path.read_bytes() for path in (tmp_path / "course/runs/small").glob("*.json")}
    assert 5 <= len(done_before) < 8
    done = grade(*kept)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in done_before} == done_before
    assert [row["score"] for row in rows(tmp_path / "course").values()] == ["70"] * 8


@caged
@pytest.mark.deep
def test_whoever_the_grader_failed_is_run_again_from_what_was_kept(tmp_path):
    folder, fails = grading_class.write_assignment(tmp_path / "assignments"), tmp_path / "bin/prlimit"
    for path in (tmp_path / "in", fails.parent):
        path.mkdir()
    nbformat.write(grading_class.handed_in(), tmp_path / "in/ada.ipynb")
    kept = ["--course", tmp_path / "course", "--assignments", folder]
    assert grade("small", tmp_path / "in", *kept).returncode == 0
    # It starts the solution's program, and not the next.
    once = tmp_path / "once"
    fails.write_text(f'#!/bin/sh\n[ -e {once} ] && exit 1\n: > {once}\nexec {shutil.which("prlimit")} "$@"\n')
    fails.chmod(0o755)
    path = f"{fails.parent}:{GRADER}:{os.environ['PATH']}"
    assert grade("small", *kept, "--again", "ada", path=path).returncode == 0
    assert rows(tmp_path / "course")["ada"]["status"] == "failed-to-run"
    assert grade("small", *kept, "--again", "ada").returncode == 0
    assert rows(tmp_path / "course")["ada"]["score"] == "70"


@caged
@pytest.mark.deep
def test_marks_of_two_versions_are_told_apart_and_made_one(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    kept = ["--course", tmp_path / "course", "--assignments", folder, "--seconds", "5"]
    for when, students in (("in", ("ada", "bob")), ("late", ("eve",))):
        (tmp_path / when).mkdir()
        for student in students:
            total = "def total(x):\n    return float(len(x))" if student == "bob" else grading_class.TOTAL
            handed_in = grading_class.handed_in(total, words="YOUR ANSWER HERE")
            nbformat.write(handed_in, tmp_path / when / f"{student}.ipynb")

    def seen():
        return {name: (row["score"], row["status"]) for name, row in rows(tmp_path / "course").items()}

    assert grade("small", tmp_path / "in", *kept).returncode == 0
    assert seen() == {"ada": ("70", "graded"), "bob": ("50", "graded")}
    changed = grading_class.source()
    hidden = grading_class.cell(changed, "q1_b")
    hidden.source = hidden.source.replace("[-1.25, 3.0, 0.5]", "[1.25, 1.0, 0.75]")  # what bob guesses is right there
    nbformat.write(changed, folder / "small/small.ipynb")
    done = grade("small", tmp_path / "late", *kept)
    assert seen() == {"ada": ("70", "older"), "bob": ("50", "older"), "eve": ("70", "graded")}
    assert "2 of 3 have marks by an older version of small" in done.stdout
    assert "make grade A=small AGAIN=older" in done.stdout
    table = (tmp_path / "course/results/small/grades.csv").read_text()
    assert "older version" in table
    (tmp_path / "in/ada.ipynb").unlink()  # the hand-ins themselves are kept
    done = grade("small", *kept, "--again", "older")
    assert seen() == {"ada": ("70", "graded"), "bob": ("70", "graded"), "eve": ("70", "graded")}, done.stderr
    assert "1 of 2  " in done.stdout
    # What is damaged is one row, and the same command mends it; what is forgotten is gone.
    (tmp_path / "course/runs/small/bob.json").write_text("{")
    grade("small", *kept)
    assert seen()["bob"] == ("0", "failed-to-run")
    grade("small", tmp_path / "in", *kept)
    assert seen()["bob"] == ("70", "graded")
    done = grade("small", *kept, "--forget", "ada", "bop")
    assert (done.returncode, "FORGET: nothing is kept of bop, and nothing was removed" in done.stderr) == (1, True)
    assert set(seen()) == {"ada", "bob", "eve"}
    assert grade("small", *kept, "--forget", "bob").returncode == 0
    assert set(seen()) == {"ada", "eve"}
    assert not list((tmp_path / "course").rglob("*bob*"))
    with contextlib.closing(sqlite3.connect(tmp_path / "course/gradebook.db")) as book:
        assert {student for (student,) in book.execute("select id from student")} == {"ada", "eve"}
    done = grade("small", *kept, "--again", "bob")
    assert (done.returncode, "AGAIN: there is no run of bob" in done.stderr) == (1, True)


@caged
@pytest.mark.deep
def test_feedback_goes_back_through_the_exchange_whoever_handed_in_otherwise(tmp_path):
    """As the guide says it; some hand-ins came by mail, and one has no time that the exchange could have written."""
    folder, home, root = (
        grading_class.write_assignment(tmp_path / "assignments"),
        tmp_path / "home",
        tmp_path / "exchange",
    )
    course = tmp_path / "course"
    for path in (home, root, course / "submitted/aaa/small", course / "release/small", tmp_path / "mail"):
        path.mkdir(parents=True)
    root.chmod(0o777)
    environment = {**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}", "HOME": str(home)}
    options = [f"--Exchange.root={root}", "--course=gpbook"]

    def nbgrader(command, cwd):
        done = subprocess.run(
            ["nbgrader", command, "small", *options], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    nbformat.write(handouts.student_version(grading_class.source()), course / "release/small/small.ipynb")
    nbgrader("release_assignment", course)
    nbgrader("fetch_assignment", home)
    nbformat.write(grading_class.handed_in(words="By exchange."), home / "small/small.ipynb")
    nbgrader("submit", home)
    nbgrader("collect", course)
    nbformat.write(grading_class.handed_in(), course / "submitted/aaa/small/small.ipynb")
    (course / "submitted/aaa/small/timestamp.txt").write_text("yesterday evening")
    (course / "submitted/aaa/small/submission_secret.txt").write_text("0" * 128)
    nbformat.write(grading_class.handed_in(), tmp_path / "mail/bob.ipynb")
    kept = ["--course", course, "--assignments", folder]
    assert grade("small", course / "submitted", *kept).returncode == 0
    assert grade("small", tmp_path / "mail", *kept).returncode == 0
    assert len(rows(course)) == 3
    nbgrader("release_feedback", course)
    nbgrader("fetch_feedback", home)
    (page,) = home.glob("small/feedback/*/small.html")
    assert "By exchange." in page.read_text(encoding="utf-8")


@caged
@pytest.mark.deep
def test_an_assignment_with_other_cells_is_refused_with_a_way_out(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    kept = ["--course", tmp_path / "course", "--assignments", folder]
    (tmp_path / "in").mkdir()
    nbformat.write(grading_class.handed_in(), tmp_path / "in/ada.ipynb")
    assert grade("small", tmp_path / "in", *kept).returncode == 0
    changed = grading_class.source()
    grading_class.cell(changed, "q2_b").metadata.nbgrader.grade_id = "q2_c"
    nbformat.write(changed, folder / "small/small.ipynb")
    done = grade("small", tmp_path / "in", *kept)
    assert done.returncode == 1
    assert "cells were added, removed or" in done.stderr
    assert "Traceback" not in done.stderr


@caged
@pytest.mark.deep
def test_a_hog_takes_no_classmates_marks(tmp_path):
    """What computes a second is not stopped because others compute, and who was stopped by the clock is run alone."""
    folder = grading_class.write_assignment(tmp_path / "assignments")
    (tmp_path / "in").mkdir()
    busy = f"def total(x):\n    {BUSY.format(1)}\n    return sum(x.tolist())"
    hog = grading_class.SPIN + grading_class.TOTAL
    for number in range(2):
        nbformat.write(grading_class.handed_in(hog), tmp_path / f"in/hog-{number}.ipynb")
        nbformat.write(grading_class.handed_in(busy), tmp_path / f"in/honest-{number}.ipynb")
    kept = ["--course", tmp_path / "course", "--assignments", folder, "--seconds", "4"]
    assert grade("small", tmp_path / "in", *kept).returncode == 0
    got = rows(tmp_path / "course")
    assert [got[f"honest-{number}"]["score"] for number in range(2)] == ["70", "70"]
    assert {got[f"honest-{number}"]["flags"] for number in range(2)} == {"to mark by hand: q3_words"}


@caged
def test_two_commands_do_not_work_on_one_course(tmp_path):
    import fcntl

    folder = grading_class.write_assignment(tmp_path / "assignments")
    (tmp_path / "course").mkdir()
    with open(tmp_path / "course/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = grade("small", "--course", tmp_path / "course", "--assignments", folder)
    assert done.returncode == 1
    assert "Another `make grade` is at work" in done.stderr


def test_marks_are_of_the_version_that_ran_though_the_notebook_is_edited_meanwhile(tmp_path):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    (name,) = handouts.names(folder)
    before = assignment.Assignment(name, folder, watch.Limits())
    version = before.version
    before.path.write_text(before.path.read_text(encoding="utf-8").replace("rtol", "atol"), encoding="utf-8")
    assert before.version == version != assignment.Assignment(name, folder, watch.Limits()).version


@caged
@pytest.mark.parametrize(("where", "stopped"), [("imports", []), ("q2_check", ["q2_check"])])
def test_what_an_assignment_prepares_may_take_longer_than_an_answer(tmp_path, where, stopped):
    folder = grading_class.write_assignment(tmp_path / "assignments")
    one = assignment.Assignment("small", folder, watch.Limits(cell=1))
    grading_class.cell(one.source, where).source += f"\n{BUSY.format(3)}"
    said = one.run()["said"]
    assert [sentence.split()[1] for sentence in said] == stopped


@caged
def test_the_groups_of_a_killed_grader_are_removed_by_the_next():
    if not (watch.CGROUPS / "memory").is_dir() or not os.access(watch.CGROUPS / "memory", os.W_OK):
        pytest.skip("no right to make control groups of version 1")
    gone = subprocess.Popen(["true"])
    gone.wait()
    groups = [watch.CGROUPS / kind / f"gpbook-{gone.pid}-1" for kind in ("memory", "pids")]
    sleeper = subprocess.Popen(["sleep", "300"])
    for group in groups:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(sleeper.pid))
    with watch.limited(watch.Limits()):
        assert not any(group.exists() for group in groups)
    assert sleeper.wait(timeout=5) == -signal.SIGKILL


# The book's own assignments


def real(name, environment=None, *, solved=True):
    """Score, sentences and points of an assignment's solution, or of its unsolved version, against its solution."""
    one = assignment.Assignment(name, assignment.FOLDER, watch.Limits())
    one.solve()
    outcome = one.run(one.source if solved else handouts.load(name), environment)
    automatic = sum(cell.metadata.nbgrader.points for cell in notebooks.probes(one.source).values())
    missed = {name: mark for name, mark in outcome["marks"].items() if not mark["score"]}
    return sum(mark["score"] or 0 for mark in outcome["marks"].values()), automatic, missed, outcome["said"]


@caged
@pytest.mark.parametrize("name", ["equal_or_not"])
def test_one_real_solution_has_all_marks_and_the_unsolved_one_none(name):
    score, automatic, missed, said = real(name)
    assert (score, missed, said) == (automatic, {}, [])
    assert real(name, solved=False)[0] == 0


OTHER_MACHINES = {
    "lowered": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "two threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
}


@caged
@pytest.mark.deep
@pytest.mark.parametrize("machine", OTHER_MACHINES)
@pytest.mark.parametrize("name", assignment_runs.NAMES)
def test_a_solution_has_all_marks_on_another_machine_too(name, machine):
    score, automatic, missed, said = real(name, OTHER_MACHINES[machine])
    assert (score, missed, said) == (automatic, {}, [])


@caged
@pytest.mark.deep
@pytest.mark.parametrize("name", assignment_runs.NAMES)
def test_an_unsolved_assignment_has_no_marks(name):
    assert real(name, solved=False)[0] == 0


# Parts, without a cage


def test_a_cell_that_is_not_the_assignments_never_becomes_a_marked_one():
    source = grading_class.source()
    submitted = grading_class.handed_in(own=[("q1", "1"), ("q2", "2")])
    submitted.cells[-1].metadata["nbgrader"]["points"] = 10**6
    merged, said = notebooks.merge(source, submitted)
    assert not said
    assert notebooks.points(merged) == notebooks.points(source) == 100
    ids = [notebooks.grade_id(cell) for cell in merged.cells]
    assert [name for name in ids if name] == [notebooks.grade_id(c) for c in source.cells if notebooks.grade_id(c)]
    assert merged.cells[ids.index("q1") + 1].source == "1"
    for name in ("q1_a", "q1_b", "q2_b", "imports"):
        assert grading_class.cell(merged, name).source == grading_class.cell(source, name).source
    assert grading_class.SECRET not in nbformat.writes(merged)


def test_a_missing_answer_is_not_filled_from_the_solution():
    submitted = grading_class.handed_in()
    submitted.cells = [cell for cell in submitted.cells if notebooks.grade_id(cell) not in ("q1", "q3_words")]
    merged, said = notebooks.merge(grading_class.source(), submitted)
    assert said == ["missing cells: q1, q3_words"]
    assert "SOLUTION" not in grading_class.cell(merged, "q1").source
    assert "commute" not in nbformat.writes(merged)


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("ada.ipynb", "ada"),
        ("x; rm -rf.ipynb", "x-rm--rf-b09a10"),
        ("=HYPERLINK(1).ipynb", "HYPERLINK-1-bd32d5"),
        ("Zoë Müller.ipynb", "Zoë-Müller-d6e575"),
        ("Zoë.ipynb", "Zoë"),
        ("Rene\u0301.ipynb", "René"),
        ("हिन्दी.ipynb", "हिन्दी"),
        ("ADA.IPYNB", "ADA"),
        ("ada.ipynb.txt", "ada.ipynb"),
        ("n" * 240 + ".ipynb", "n" * 100 + "-0c441b"),
        ("eve_99_123_x_4711_assignsubmission_file_small.ipynb", "eve_99"),
        ("ada_4711_99_bob_12_assignsubmission_file_.ipynb", "ada_4711"),
        ("Ada Lovelace_99_assignsubmission_file_eve_12_assignsubmission_file_.ipynb", "Ada-Lovelace_99"),
        ("Ada Lovelace_99_assignsubmission_onlinetext", "Ada-Lovelace_99"),
        ("ada_12345_67890_small.ipynb", "ada_12345"),
        ("ada_LATE_12345_67890_small-2.ipynb", "ada_12345"),
        ("Ada Lovelace_99_assignsubmission_file_small.ipynb", "Ada-Lovelace_99"),
        ("*.ipynb", "nobody-684888"),
    ],
)
def test_names_of_students_are_safe(tmp_path, name, student):
    (tmp_path / name).write_text("{}")
    (tmp_path / "z").mkdir()
    found, _ = submissions.collect(tmp_path, "small")
    assert {one.student for one in found} == {student, "z"}


def test_two_names_never_become_one_student(tmp_path):
    names = ["a!b", "a?b", "a b", "a-b", "a--b", "-a-b", "A-b", "a\u00a0b", "a_b", "a.b", "é", "e\u0301x"]
    names += ["n" * 120, "n" * 121]
    for name in names:
        (tmp_path / f"{name}.ipynb").touch()
    found, _ = submissions.collect(tmp_path, "small")
    assert len({one.student for one in found}) == len(names)
    assert all(len(one.student.encode()) < 120 for one in found)


def test_a_name_that_both_platforms_could_have_given_is_read_as_the_folders_others(tmp_path):
    """A student of Moodle may be called what a file of Canvas is called."""
    (tmp_path / "x_1_2_y_4711_assignsubmission_file_small.ipynb").touch()
    assert [one.student for one in submissions.collect(tmp_path, "small")[0]] == ["x_1"]
    (tmp_path / "Ada Lovelace_4712_assignsubmission_file_small.ipynb").touch()
    assert [one.student for one in submissions.collect(tmp_path, "small")[0]] == ["Ada-Lovelace_4712", "x_1_2_y_4711"]


def test_a_row_for_everything_that_came_in(tmp_path):
    """One folder named like the assignment hides no other entry, and what can't be read has a reason."""
    (tmp_path / "ada/small").mkdir(parents=True)
    for name in ("ada/small/small.ipynb", "bob.ZIP", "cyd.IPYNB", "dan.rar", "eve.ipynb.txt", "fay.ipynb", ".DS_Store"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "gus.ipynb")
    found, left = submissions.collect(tmp_path, "small")
    assert [one.student for one in found] == ["ada", "bob", "cyd", "dan", "eve.ipynb", "fay", "gus"]
    assert left == [".DS_Store: passed over"]
    reasons = {"dan": "no notebook, zip or folder", "eve.ipynb": "no notebook", "gus": "is no file"}
    reasons |= {"bob": "not a zip file", "cyd": "was it cut off"}
    for student, reason in reasons.items():
        (path,) = [one.path for one in found if one.student == student]
        with pytest.raises((submissions.Unreadable, zipfile.BadZipFile), match=reason):
            submissions.read(path, "small")


def test_a_file_beside_a_students_notebook_does_not_take_its_place(tmp_path):
    for number, name in enumerate(["Ada_1_assignsubmission_file_small.ipynb", "Ada_1_assignsubmission_file_notes.pdf"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    ((one,), _) = submissions.collect(tmp_path, "small")
    assert one.path.suffix == ".ipynb"
    assert one.said == ("not looked at: Ada_1_assignsubmission_file_notes.pdf",)


def test_a_folder_that_nbgraders_exchange_collected_is_understood(tmp_path):
    for student, name in (("ada", "small"), ("ada", "other"), ("bob", "other")):
        (tmp_path / student / name).mkdir(parents=True)
        (tmp_path / student / name / f"{name}.ipynb").write_text(f"{student} {name}")
    found, left = submissions.collect(tmp_path, "small")
    assert [(one.student, submissions._bytes(one.path, "small")) for one in found] == [("ada", b"ada small")]
    assert left == ["bob: holds other assignments only"]


def test_the_newest_of_two_hand_ins_counts(tmp_path):
    for number, name in enumerate(["ada_1_20_small.ipynb", "ada_1_10_small-1.ipynb"]):
        (tmp_path / name).write_text(f"{number}")
        os.utime(tmp_path / name, (number, number))
    ((one,), _) = submissions.collect(tmp_path, "small")
    assert one.path.read_text() == "1"
    assert "more than once" in one.said[0]


def test_a_cage_without_the_books_environment_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(cage, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(cage.shutil, "which", lambda name: name)
    with pytest.raises(cage.NoCage, match="make book"):
        cage.check()


class ConnectsLate:
    """A kernel's client whose kernel answers at once, while its channel of outputs connects at the third request."""

    requests = 0

    def kernel_info(self):
        self.requests += 1

    def get_shell_msg(self, timeout):
        return {}

    def get_iopub_msg(self, timeout):
        if self.requests < 3:
            raise queue.Empty
        return {}


def test_a_kernel_is_ready_when_its_outputs_arrive_too():
    client, lasting = ConnectsLate(), subprocess.Popen(["sleep", "60"])
    try:
        cage.Kernel(client, lasting).wait_until_ready()
    finally:
        lasting.kill()
        lasting.wait()
    assert client.requests == 3


@caged
@pytest.mark.parametrize("way", ["links", "a linked folder"])
def test_a_python_that_was_reached_through_links_starts_in_a_cage(monkeypatch, tmp_path, way):
    real = Path(sys._base_executable).resolve()
    for name in ("first", "second", "sockets"):
        (tmp_path / name).mkdir()
    if way == "links":
        (tmp_path / "second" / "python3").symlink_to(real)
        python = tmp_path / "first" / "python"
        python.symlink_to("../second/python3")
    else:
        (tmp_path / "first" / "minor").symlink_to(real.parents[1])
        python = tmp_path / "first" / "minor" / "bin" / real.name
    (tmp_path / "first" / "diary").touch()
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    monkeypatch.setattr(cage, "PYTHON", tmp_path / "env" / "bin" / "python")
    cage.check()
    question = f"import os, socket, sys; print(sys.prefix, os.listdir({str(tmp_path / 'first')!r}))"
    command = [*cage._walls(tmp_path / "sockets"), cage.PYTHON, "-c", question]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert seen == f"{tmp_path / 'env'} {['python' if way == 'links' else 'minor']}\n"


def test_a_gradebook_is_made_where_the_book_lies_in_a_folder_of_any_name_and_under_any_locale(tmp_path):
    question = (
        "import sys; from nbgrader.api import Gradebook; from grading.gradebook import Course\n"
        "Gradebook(Course(sys.argv[1]).config.CourseDirectory.db_url, 'gpbook').close()"
    )
    (packages,) = GRADER.parent.glob("lib/python3.*/site-packages")
    (tmp_path / "Bücher").symlink_to(packages)  # from which nbgrader is imported
    environment = {**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}", "LC_ALL": "C"}
    environment["PYTHONPATH"] = f"{ROOT}:{tmp_path / 'Bücher'}"
    command = [GRADER / "python", "-c", question, tmp_path / "für alle"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "für alle" / "gradebook.db").exists()


def test_control_groups_of_both_versions_get_the_limits(monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "CGROUPS", tmp_path)
    for kind in ("memory", "pids"):
        (tmp_path / kind).mkdir()
    groups = watch._groups(watch.Limits(memory=123, tasks=45))
    assert [(group / name).read_text() for group in groups for name in sorted(os.listdir(group))] == ["123", "45"]
    for kind in ("cpu", "cpuacct"):  # often one folder with two names
        (tmp_path / kind).symlink_to("memory")
    *_, cpu, also = watch._groups(watch.Limits())
    assert (cpu / "cpu.cfs_quota_us").read_text() == (also / "cpu.cfs_period_us").read_text() == "100000"
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    (group,) = watch._groups(watch.Limits(memory=123, tasks=45))
    assert {name: (group / name).read_text() for name in os.listdir(group)} == {
        "memory.max": "123",
        "memory.swap.max": "0",
        "pids.max": "45",
        "cpu.max": "100000 100000",
    }
    (group / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert watch.Watched([group], watch.Limits()).computed() == 2.5


@caged
def test_the_watch_alone_ends_a_cage_that_takes_too_much(monkeypatch, tmp_path):
    """Where no control group can be made, as for most people who are not root."""
    monkeypatch.setattr(watch, "CGROUPS", tmp_path / "none")
    hog = "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nbig = bytearray(2**27); time.sleep(60)"
    with watch.limited(watch.Limits(memory=2**28)) as watched:
        assert watched.enter == []
        process = subprocess.Popen([sys.executable, "-c", hog], start_new_session=True)
        watched.start(process)
        assert process.wait(timeout=30) == -signal.SIGKILL
    os.killpg(process.pid, signal.SIGKILL)  # the cage's namespace does this for its own


@caged
@pytest.mark.parametrize("groups", [True, False])
def test_what_a_cage_computes_is_counted_with_its_children(monkeypatch, tmp_path, groups):
    if not groups:
        monkeypatch.setattr(watch, "CGROUPS", tmp_path / "none")
    elif not watch.has_groups():
        pytest.skip("no right to make control groups")
    child = f"import os\nos.fork()\n{BUSY.format(0.6)}\ntime.sleep(9)"
    with watch.limited(watch.Limits()) as watched:
        process = subprocess.Popen([*watched.enter, sys.executable, "-c", child], start_new_session=True)
        watched.start(process)
        end = time.monotonic() + 30
        while watched.computed() < 1.2 and time.monotonic() < end:
            time.sleep(0.05)
        assert 1.2 <= watched.computed() < 3
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@caged
def test_calls_that_reach_beyond_a_cage_are_shut(tmp_path):
    """Keys, sockets of virtual machines, memory that nobody maps; the names of other cages' keys."""
    numbers = [seccomp.SHUT[platform.machine()][name] for name in ("keyctl", "add_key", "memfd_create", "shmget")]
    question = (
        "import ctypes, socket\ncall = ctypes.CDLL(None, use_errno=True)\n"
        f"print([(call.syscall(n, 0, 0, 0, 0), ctypes.get_errno())[1] for n in {numbers}])\n"
        "for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_VSOCK):\n"
        "    try: socket.socket(family).close(); print('made')\n"
        "    except OSError as error: print(error.errno)\n"
        "try: print(open('/proc/keys').read())\n"
        "except OSError as error: print('closed')\n"
    )
    (tmp_path / "s").mkdir()
    with seccomp.program() as shut:
        command = [*cage._walls(tmp_path / "s", shut=shut), cage.PYTHON, "-c", question]
        done = subprocess.run(command, capture_output=True, text=True, pass_fds=[shut])
    assert done.stdout.split("\n") == ["[38, 38, 38, 38]", "made", "made", "38", "closed", ""], done.stderr


@pytest.mark.parametrize("machine", seccomp.SHUT)
def test_a_filter_jumps_within_itself(machine):
    code = seccomp.assembled(machine)
    steps = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    assert all(at + 1 + max(yes, no) < len(steps) for at, (code, yes, no, _) in enumerate(steps) if code & 7 == 5)
    assert steps[-1][0] == 0x06


GRADES = "student,score,max,status,flags\nada_11,70,100,graded,\nbob_12,40,100,flagged,late\neve_99,1,100,graded,\n"


@pytest.mark.parametrize(
    ("export", "column", "filled"),
    [
        ("Student,ID,Section,Homework 1 (4)\nAda,11,A,\nBob,12,A,\n", "Homework 1", "Ada,11,A,70\nBob,12,A,\n"),
        ("\ufeffIdentifier,Full name,Grade\nParticipant 11,Ada,\nParticipant 12,Bob,5\n", "Grade", "11,Ada,70\n"),
    ],
)
def test_marks_go_into_the_tables_of_canvas_and_moodle(export, column, filled):
    text, left_out = sheets.fill(export, GRADES, column)
    assert filled in text
    assert left_out == ["bob_12: flagged", "eve_99: not in the table"]
    assert "40" in sheets.fill(export, GRADES, column, ("graded", "flagged"))[0]


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ("", "needs a column ID or Identifier"),
        ("Name,Grade\n", "needs a column ID or Identifier"),
        ("ID,Mark\n", "needs one column 'Grade'; it has 0"),
        ("ID,Grade 1,Grade 2\n", "needs one column 'Grade'; it has 2"),
    ],
)
def test_a_table_that_is_none_is_refused(export, message):
    with pytest.raises(ValueError, match=message):
        sheets.fill(export, GRADES, "Grade")


def test_a_table_with_semicolons_stays_one():
    text, _ = sheets.fill("Identifier;Full name;Grade\nParticipant 11;Lovelace, Ada;\n", GRADES, "Grade")
    assert text == "Identifier;Full name;Grade\nParticipant 11;Lovelace, Ada;70\n"


def test_one_number_on_two_rows_is_refused_with_both_named():
    doubled = GRADES + "ada-l_11,10,100,graded,\n"
    with pytest.raises(ValueError, match="two rows have one number: ada_11 and ada-l_11"):
        sheets.fill("Student,ID,Grade\nAda,11,\n", doubled, "Grade")
    with pytest.raises(ValueError, match="two rows of the table have one number: Ada, 11 and Eve, 11"):
        sheets.fill("Student,ID,Grade\nAda,11,\nEve,11,\n", GRADES, "Grade")


@pytest.mark.parametrize("status", ["needs-hand-marking", "older", "failed-to-run"])
def test_a_sum_that_may_change_is_never_exported(status):
    with pytest.raises(ValueError, match="only marks with the status graded or flagged are final"):
        sheets.fill("Student,ID,Grade\nAda,11,\n", GRADES, "Grade", ("graded", status))


FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r\n=1", "＝1+1", "=", "--1")


@pytest.mark.parametrize("cell", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(cell):
    text, _ = sheets.fill(f'Student,ID,Grade,Note\n"{cell}",11,,"{cell}"\n', GRADES, "Grade")
    ((name, _, grade, note),) = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert (name, grade, note) == (f"'{cell}", "70", f"'{cell}")
