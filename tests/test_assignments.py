"""Every assignment: the solution has all marks, an unsolved one none, and wrong answers lose what they should."""

import functools
import re

import assignment_runs as runs
import pytest

from book import handouts, new_assignment
from grading import notebooks

EVERY = [*runs.NAMES, runs.TEMPLATE]
everyday = pytest.mark.parametrize("name", EVERY)
# These train models in many of their answers, so the wrong ones are tried by `make test-deep`.
LONG = {"audit", "initialisation"}
thorough = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.deep if name in LONG else ()) for name in EVERY]
)
load = functools.cache(runs.load)


@functools.cache
def solved(name):
    """What the whole solution notebook gives, run from top to bottom."""
    return runs.run(load(name))


@functools.cache
def alone(name, question, answer=None):
    """What the cells of one question give, with ``answer`` in place of the solution."""
    assignment = load(name)
    return runs.run(assignment, assignment.cells_of(question), {question: answer} if answer else None)


def questions(name):
    return list(load(name).marked("solution"))


def hidden(cell):
    return "### BEGIN HIDDEN TESTS" in cell.source


def test_a_new_assignment_is_a_copy_of_the_template_that_the_book_lists(tmp_path):
    for part in ("_toc.yml", "chapters/assignments.md", "chapters/assignments/audit.md"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((handouts.BOOK / part).read_bytes())
    new_assignment.create("two_twins", tmp_path)
    assert handouts.names(tmp_path / "assignments") == ["two_twins"]
    student = handouts.load("two_twins", tmp_path / "assignments")
    assert handouts.facts(student) == handouts.Facts("Two twins", "30 minutes", points=100, automatic=80)
    entries = re.findall(r"- file: (.*)", (handouts.BOOK / "_toc.yml").read_text())
    last = [place for place, entry in enumerate(entries) if entry.startswith("chapters/assignments/")][-1]
    entries.insert(last + 1, "chapters/assignments/two_twins")
    assert re.findall(r"- file: (.*)", (tmp_path / "_toc.yml").read_text()) == entries
    before = (handouts.BOOK / "chapters/assignments.md").read_text()
    listed = re.search(r"^```{handouts} (.*)$", before, re.MULTILINE)[1]
    assert (tmp_path / "chapters/assignments.md").read_text() == before.replace(listed, f"{listed} two_twins")
    assert "{handout} two_twins" in (tmp_path / "chapters" / "assignments" / "two_twins.md").read_text()
    for name, what in (
        ("two_twins", "taken"),
        (runs.TEMPLATE, "taken"),
        ("Two twins", "lower-case"),
        ("", "lower-case"),
    ):
        with pytest.raises(ValueError, match=what):
            new_assignment.create(name, tmp_path)


@everyday
def test_every_special_cell_is_in_the_graders_format(name):
    seen = []
    for cell in load(name).cells:
        if mark := cell.metadata.get("nbgrader"):
            lacking = {"grade", "solution", "locked", "task", "grade_id", "schema_version"} - set(mark)
            assert not lacking, f"{mark.get('grade_id')}: its metadata lack {lacking}"
            assert mark.schema_version == 3
            assert mark.grade_id not in seen, f"two cells have the grade_id {mark.grade_id}; was one copied?"
            assert mark.locked != mark.solution, f"{mark.grade_id}: either locked or a solution"
            assert ("points" in mark) == mark.grade, f"{mark.grade_id}: points where there are marks, and only there"
            seen.append(mark.grade_id)
        if cell.cell_type == "code":
            said = f"{cell.metadata.get('nbgrader', {}).get('grade_id', cell.source[:60])}: save it without outputs"
            assert not cell.outputs, said
            assert cell.execution_count is None, said


@everyday
def test_points_add_to_a_hundred_and_most_are_automatic(name):
    points = {
        role: sum(c.metadata.nbgrader.points for c in load(name).marked(role).values()) for role in ("probe", "words")
    }
    assert sum(points.values()) == 100, points
    assert 70 <= points["probe"] <= 85, points


def test_an_assignment_goes_out_when_what_it_speaks_of_has_been_taught():
    """By the table of weeks in the guide for instructors."""
    taught, known = set(), {}
    guide = (runs.FOLDER.parent / "chapters" / "instructors.md").read_text(encoding="utf-8")
    for week in re.findall(r"^\| \d+ \| .*$", guide, flags=re.MULTILINE):
        taught |= set(re.findall(r"\]\(0?(\d+)_\w+\.ipynb\)", week))
        known |= {
            name: set(taught) for name in re.findall(r"hand out (?:the )?\[[^]]*\]\(assignments/(\w+)\.md\)", week)
        }
    assert {"audit", "equal_or_not", "initialisation", "stochastic"} <= set(known)
    for name in known:
        text = " ".join(cell.source for cell in load(name).cells)
        spoken = set(re.findall(r"\d+", " ".join(re.findall(r"[Cc]hapters? (\d+(?:(?:,| and| to) \d+)*)", text))))
        assert spoken, name
        assert spoken <= known[name], (name, spoken - known[name])


@everyday
def test_every_question_has_a_check_probes_and_wrong_answers(name):
    tried = runs.mutants(name).MUTANTS
    assert set(tried) == set(questions(name))
    for question in questions(name):
        assert question + "_check" in load(name).marked("check")
        assert load(name).probes(question)
        assert len(tried[question]) >= 2
    assert {p for q in questions(name) for p in load(name).probes(q)} == set(load(name).marked("probe"))
    assert any(hidden(cell) for cell in load(name).marked("probe").values())


def test_a_change_replaces_what_occurs_once():
    assert runs.changed("mean = a.sum() / n", {"a.sum()": "b.sum()", "/ n": "/ (n - 1)"}) == "mean = b.sum() / (n - 1)"
    for missing in ("c.sum()", "a"):
        with pytest.raises(ValueError, match="must replace what occurs once; .* occurs (0|2) times"):
            runs.changed("mean = a.sum() / n", {missing: ""})


@everyday
def test_a_hidden_probe_shows_nothing(name):
    for cell in load(name).marked("probe").values():
        if hidden(cell):
            open_text = re.sub(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", "", cell.source, flags=re.DOTALL)
            assert all(line.startswith("#") for line in open_text.splitlines() if line.strip()), cell.source


@everyday
def test_every_value_of_a_probe_has_a_rule(name):
    for probe in load(name).marked("probe"):
        got = solved(name)[probe]
        said = f"{probe}: its cell has to call answer({probe!r}, ...)" if got is None else f"{probe}: {got!r}"
        assert isinstance(got, dict), said
        rules = load(name).rules(probe)
        assert set(got) == set(rules), f"{probe} hands over {[*got]}; in its metadata are rules for {[*rules]}"


@everyday
def test_the_solution_runs_from_top_to_bottom(name):
    failed = {cell: found for cell, found in solved(name).items() if isinstance(found, Exception)}
    assert not failed


@everyday
def test_a_solution_needs_no_other_answer_and_gives_the_same_again(name):
    """So an unanswered question costs only its own marks."""
    for question in questions(name):
        again = alone(name, question)
        for probe in load(name).probes(question):
            assert runs.is_right(again[probe], solved(name)[probe], load(name).rules(probe)), (probe, again[probe])


@everyday
def test_an_unsolved_question_has_no_marks(name):
    for cell in filter(notebooks.is_answer, handouts.load(name, runs.place(name).parent).cells):
        question = notebooks.grade_id(cell)
        if question not in questions(name):
            continue
        got = alone(name, question, cell.source)
        assert isinstance(got[question + "_check"], Exception)
        for probe in load(name).probes(question):
            assert isinstance(got[probe], Exception), probe


EMPTY = ("None", "[]", "()", "{}", "0.0", "float('nan')", "''", "torch.zeros(0)", "(0.0, 0.0)", "(0.0, 0.0, 0.0)")


@thorough
def test_an_empty_answer_has_no_marks(name):
    for question in questions(name):
        text = load(name).marked("solution")[question].source
        for empty in EMPTY if text.startswith("def ") else ():
            heading = text.partition("(")[0]
            got = alone(name, question, f"{heading}(*arguments, **options):\n    return {empty}\n")
            for probe in load(name).probes(question):
                right = runs.is_right(got[probe], solved(name)[probe], load(name).rules(probe))
                assert not right, (question, empty, probe, got[probe])


def test_what_passes_the_visible_check_is_judged_on_its_content():
    """The review's cases: lists in place of tensors, a tuple in place of a list, a dictionary's values."""
    for name, question, how in (
        ("equal_or_not", "q6", "lambda given: {key: torch.as_tensor(value).tolist() for key, value in given.items()}"),
        ("equal_or_not", "q4", "tuple"),
        ("stochastic", "q2", "lambda given: given.tolist()"),
        ("stochastic", "q3", "lambda given: dict(enumerate(given)).values()"),
    ):
        solution = load(name).marked("solution")[question].source
        function = solution.partition("(")[0].removeprefix("def ")
        form = "def in_form(right, form):\n    return lambda *a, **k: form(right(*a, **k))\n"
        got = alone(name, question, f"{solution}\n\n\n{form}\n\n{function} = in_form({function}, {how})\n")
        assert got[question + "_check"] is None, got[question + "_check"]
        for probe in load(name).probes(question):
            assert runs.is_right(got[probe], solved(name)[probe], load(name).rules(probe)), (probe, got[probe])


@thorough
def test_every_wrong_answer_loses_marks_by_a_margin(name):
    for question, tried in runs.mutants(name).MUTANTS.items():
        for mistake, source in tried.items():
            got, probes = alone(name, question, source), load(name).probes(question)
            lost = [p for p in probes if runs.is_wrong(got[p], solved(name)[p], load(name).rules(p))]
            assert lost, (question, mistake, got)


@thorough
def test_every_hidden_probe_catches_what_the_student_cannot_see(name):
    for question, tried in runs.mutants(name).MUTANTS.items():
        probes = load(name).probes(question)
        for probe in filter(lambda p: hidden(probes[p]), probes):
            seen = {}
            for mistake, source in tried.items():
                got = alone(name, question, source)
                wrong = [p for p in probes if not runs.is_right(got[p], solved(name)[p], load(name).rules(p))]
                wrong += [question + "_check"] if got[question + "_check"] is not None else []
                seen[mistake] = [p for p in wrong if p == probe or p not in probes or not hidden(probes[p])]
            said = f"no wrong answer passes all that is visible of {question} and fails {probe}; these fail in {seen}"
            assert [probe] in seen.values(), said


@thorough
def test_other_right_answers_keep_all_marks(name):
    for question, tried in runs.mutants(name).ACCEPTED.items():
        assert question in questions(name)
        for difference, source in tried.items():
            got = alone(name, question, source)
            assert got[question + "_check"] is None, (question, difference, got[question + "_check"])
            for probe in load(name).probes(question):
                assert runs.is_right(got[probe], solved(name)[probe], load(name).rules(probe)), (difference, got[probe])
