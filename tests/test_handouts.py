"""Does a student get everything that is needed, and nothing that is secret?"""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import sample_course as course
from nbformat import v4

from book import handouts
from book.theme.handouts import service_links

ROOT = Path(__file__).parents[1]
GRADER = ROOT / ".venv-grading" / "bin"
# All but the room that needs more than students install.
PACKAGE_FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gpbook_utils").rglob("*.py")}
PACKAGE_FILES = {path for path in PACKAGE_FILES if not path.startswith("gpbook_utils/sweeps/")}
ASKED, PINNED = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "requirements.txt"))
ASSIGNMENTS = [ROOT / "assignments" / name for name in handouts.names()]


@pytest.fixture
def student():
    return handouts.student_version(course.source(), "sample.ipynb")


@pytest.fixture
def assignments(tmp_path):
    course.write_assignment(tmp_path / "assignments")
    return tmp_path / "assignments"


def by_id(notebook):
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


# The student's notebook

# What nbgrader 0.9.6 wrote for the sample. It finds by them whether a student left an answer as it was.
CHECKSUMS = {
    "imports": "9c802e00cff477f1cf26f1548a6f2ad4",
    "q1": "a1bf16cff4dfe51ffd3c8206c859a744",
    "q1_check": "81d62ce729fc9270492814c154dad0b3",
    "q1_a": "d49dfaab62ff54ec809990d140588d97",
    "q1_b": "023e0b03e07f7ca24a9787ba322b5e4d",
    "q2_words": "4efe4e6282fb13c524db28a7dc10e042",
}


def test_what_the_student_sees(student):
    cells = by_id(student)
    assert cells["q1"].source == (
        "def relative_distance(a, b):\n"
        '    """Relative Frobenius distance; `relative_distance(a, a)` is 0."""\n'
        "    # YOUR CODE HERE\n    raise NotImplementedError()"
    )
    assert cells["q1_b"].source == "# Marked after handing in: other scales."
    assert cells["q2_words"].source == "YOUR ANSWER HERE" and "attachments" not in cells["q2_words"]
    same = {"imports", "q1_check", "q1_a"}
    assert all(cells[id].source == cell.source for id, cell in by_id(course.source()).items() if id in same)


def test_a_region_may_stand_anywhere_in_a_cell_and_more_than_once():
    text = "if x:\n\t### BEGIN SOLUTION\n\ty = 1\n\t### END SOLUTION\nz = 2\n# BEGIN SOLUTION\nw = 3\n# END SOLUTION\nv"
    cell = course.special(v4.new_code_cell(text), "q1", "solution")
    released = handouts.student_version(v4.new_notebook(cells=[cell])).cells[0].source
    stub = "# YOUR CODE HERE\n{0}raise NotImplementedError()"
    assert released == "if x:\n\t" + stub.format("\t") + "\nz = 2\n" + stub.format("") + "\nv"


def test_metadata_holds_what_nbgrader_needs_and_no_rule(student):
    assert "gpbook" not in json.dumps(student.metadata) + json.dumps([cell.metadata for cell in student.cells])
    cells = by_id(student)
    assert {id: cell.metadata.get("editable", True) for id, cell in cells.items()} == {
        "imports": False, "q1": True, "q1_check": False, "q1_a": False, "q1_b": False, "q2_words": True,
    }  # fmt: skip
    assert all(cell.metadata.deletable is False for cell in cells.values())
    assert cells["q1_a"].metadata.nbgrader.points == 40 and cells["q1_a"].metadata.nbgrader.cell_type == "code"
    assert {id: cell.metadata.nbgrader.checksum for id, cell in cells.items()} == CHECKSUMS


@pytest.mark.parametrize("folder", ASSIGNMENTS or [None], ids=lambda folder: folder.name if folder else "sample")
def test_nbgrader_releases_the_same_cells(folder, assignments, tmp_path):
    """But for what it forgets: rules of marking, and pictures of a model answer."""
    folder = folder or assignments / "sample"
    shutil.copytree(folder, tmp_path / "source" / folder.name)
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'gpbook'\n")
    subprocess.run(
        [GRADER / "python", "-m", "nbgrader", "generate_assignment", folder.name, "--create"],
        cwd=tmp_path, capture_output=True, check=True,
        # The book's folder may have a name that the locale "C" can't read.
        env={**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    theirs = nbformat.read(tmp_path / "release" / folder.name / f"{folder.name}.ipynb", as_version=4).cells
    for cell in theirs:
        cell.metadata.pop("gpbook", None)
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.pop("attachments", None)
    ours = handouts.load(folder.name, folder.parent).cells
    assert len(ours) == len(theirs) >= 9
    assert [dict(cell) for cell in ours] == [dict(cell) for cell in theirs]


def test_other_metadata_stays_behind():
    notebook = course.source()
    notebook.metadata["gpbook"] = {"package_code": "1"}
    notebook.cells[0].metadata.update(tags=["kept"], execution={"iopub.status.busy": "2026"}, note="the answer is c")
    released = handouts.student_version(notebook)
    assert set(released.metadata) == {"kernelspec"} and dict(released.cells[0].metadata) == {"tags": ["kept"]}


def test_the_source_is_left_as_it_is():
    notebook = course.source()
    before = json.dumps(notebook)
    nbformat.validate(handouts.student_version(notebook))
    assert json.dumps(notebook) == before


def edit(wanted, old="", new="", **metadata):
    """A change of one cell of the sample: of its text, and of its nbgrader metadata."""

    def change(notebook):
        cell = by_id(notebook)[wanted]
        assert old in cell.source
        cell.source = cell.source.replace(old, new) if old else cell.source + new
        cell.metadata.nbgrader.update(metadata)

    return change


def stored(**fields):
    return lambda notebook: notebook.cells[3].update(fields)


STREAM = v4.new_output("stream", text="1e-7")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit("q1", course.SOLUTION.rstrip("\n"), "def f(): ..."), "cell 4 (q1: 'def f(): ...'): is a solution; put"),
        (edit("q2_words", course.WORDS, "The scale."), "cell 9 (q2_words: 'The scale.'): is a solution; put"),
        (edit("q1", "    ### END SOLUTION"), "BEGIN SOLUTION has no END SOLUTION after it"),
        (edit("q1", "    ### BEGIN SOLUTION\n"), "END SOLUTION has no BEGIN SOLUTION before it"),
        (edit("q1", "    return", "    ### BEGIN SOLUTION\n    return"), "BEGIN SOLUTION follows BEGIN SOLUTION"),
        (edit("q1", "    return", "    ### BEGIN HIDDEN TESTS\n"), "BEGIN HIDDEN TESTS follows BEGIN SOLUTION"),
        (edit("q1", "### END SOLUTION", "### END HIDDEN TESTS"), "END HIDDEN TESTS has no BEGIN HIDDEN TESTS"),
        (edit("q1_b", "### END HIDDEN TESTS"), "BEGIN HIDDEN TESTS has no END HIDDEN TESTS after it"),
        (edit("q1_b", "### BEGIN HIDDEN TESTS"), "END HIDDEN TESTS has no BEGIN HIDDEN TESTS before it"),
        (edit("q1", new="\n### BEGIN SOLTION\nx = 1"), "would keep '### BEGIN SOLTION'; correct the marker"),
        (edit("q1_b", new="\n# begin hidden tests\nx = 1"), "would keep '# begin hidden tests'"),
        (edit("q1_b", new="\n### BEGIN  HIDDEN TESTS\nx = 1"), "would keep '### BEGIN  HIDDEN TESTS'"),
        (edit("q1_a", new="\n### BEGIN MARK SCHEME"), "would keep '### BEGIN MARK SCHEME'"),
        (edit("q1", solution=False), "holds a solution; set \"solution\": true"),
        (edit("q1_b", grade=False), "holds hidden tests; it has to be graded"),
        (edit("q1_b", solution=True), "is a solution; put"),
        (edit("q1_a", "answer(", "print("), "cell 6 (q1_a: 'print(\"q1_a\""),
        (edit("q1_a", "answer(", "print("), "is graded; it needs hidden tests or a call of answer"),
        (edit("q1_a", "answer(", "# answer("), "is graded; it needs hidden tests or a call of answer"),
        (edit("q1_a", grade_id="q1_b"), "has no grade_id of its own: 'q1_b' is taken"),
        (edit("q1_check", grade_id=""), "has no grade_id of its own: '' is empty"),
        (lambda notebook: by_id(notebook)["q1_a"].metadata.nbgrader.pop("points"), 'is graded; set "points"'),
        (edit("q2_words", new="\n![](attachment:model.png)"), "shows an attachment, which goes"),
        (stored(outputs=[STREAM]), "cell 4 (q1: 'def relative_distance(a, b):'): stores outputs"),
        (stored(execution_count=4), "stores outputs or an execution count; clear them"),
    ],
)  # fmt: skip
def test_what_cannot_be_released_is_refused_and_named(change, says):
    notebook = course.source()
    change(notebook)
    with pytest.raises(handouts.HandoutError) as caught:
        handouts.student_version(notebook, "sample.ipynb")
    assert str(caught.value).startswith("sample.ipynb, cell ") and says in str(caught.value)


def test_facts(student):
    assert handouts.facts(student) == handouts.Facts("Equal or not: a sample", "60 to 90 minutes", 100, 70)
    assert str(handouts.facts(student)) == "60 to 90 minutes, 100 points, 70 of them marked by machine"


# The zip


def test_what_the_zip_holds(assignments, tmp_path):
    path = handouts.write_zip("sample", tmp_path / "out", assignments)
    assert path == tmp_path / "out" / "sample.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        inside = set(archive.namelist())
        assert {name for name in inside if "/gpbook_utils/" not in name} == {
            f"sample/{name}" for name in ("sample.ipynb", "table.csv", "README.txt", "requirements.txt", "LICENSE")
        }
        package = {name.removeprefix("sample/") for name in inside if name.endswith(".py")}
        assert package == PACKAGE_FILES
        assert archive.read("sample/table.csv") == b"x,y\n1,2\n"
        readme = archive.read("sample/README.txt").decode()
        assert readme.startswith("Equal or not: a sample\n======================\n") and "sample.ipynb" in readme
        assert "{" not in readme and max(map(len, readme.splitlines())) <= 120
        assert b"\ntorch==" in b"\n" + archive.read("sample/requirements.txt")
    assert path.stat().st_size < 400_000


def test_the_zip_is_the_same_byte_for_byte(assignments, tmp_path):
    first = handouts.write_zip("sample", tmp_path / "1", assignments).read_bytes()
    for path in assignments.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert handouts.write_zip("sample", tmp_path / "2", assignments).read_bytes() == first
    (assignments / "sample" / "table.csv").write_text("x,y\n1,3\n")
    assert handouts.write_zip("sample", tmp_path / "3", assignments).read_bytes() != first


def test_litter_stays_behind(assignments):
    before = handouts.contents("sample", assignments).keys()
    for litter in (
        ".ipynb_checkpoints/sample-checkpoint.ipynb",
        "__pycache__/mutants.cpython-311.pyc",
        ".table.csv.part",
    ):
        path = assignments / "sample" / litter
        path.parent.mkdir(exist_ok=True)
        path.write_text("secret")
    assert handouts.contents("sample", assignments).keys() == before


@pytest.mark.parametrize("name", ["solution.py", "sample.nbconvert.ipynb", "notes.md", "more/mutants.py", "README.txt"])
def test_a_file_that_is_not_known_to_be_data_is_refused(assignments, tmp_path, name):
    path = assignments / "sample" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("the answer is c")
    with pytest.raises(handouts.HandoutError, match=f"sample/{name}: is not known to be for students"):
        handouts.write_zip("sample", tmp_path / "out", assignments)
    assert not (tmp_path / "out").exists()


def test_the_unpacked_notebook_takes_the_package_beside_it(assignments, tmp_path):
    with zipfile.ZipFile(handouts.write_zip("sample", tmp_path, assignments)) as archive:
        archive.extractall(tmp_path / "home")
    question = (
        "import gpbook_utils.models, gpbook_utils.data; print(gpbook_utils.__file__, len(gpbook_utils.data.__doc__))"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = tmp_path / "home" / "sample"
    result = subprocess.run([sys.executable, "-c", question], cwd=where, env=env, capture_output=True, text=True)
    assert result.stdout.startswith(str(where / "gpbook_utils")), result.stderr


def test_the_requirements_cover_what_the_package_imports():
    """Directly, or as what JupyterLab and the kernel bring along."""
    brought = {"IPython"}
    kept = handouts.requirements(ASKED, PINNED, "students")
    known = {line.split("==")[0].replace("-", "_") for line in kept.splitlines()} | {"PIL", "sklearn"} | brought
    assert {"torch", "gpytorch", "ipykernel", "jupyterlab"} <= known and "jupyter_book" not in known
    imported = set()
    for path in PACKAGE_FILES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.split(".")[0] for name in names}
    assert "torch" in imported
    assert imported - set(sys.stdlib_module_names) - {"gpbook_utils"} <= known


def test_students_get_what_their_group_asks_for_whatever_the_comments_say():
    kept = handouts.requirements(ASKED, PINNED, "students")
    names = [line.split("==")[0] for line in kept.splitlines()]
    assert {"torch", "scipy", "matplotlib", "jupyterlab"} <= {*names}
    assert not {"dask", "distributed", "pandas", "cloudpickle", "pytest", "jupyter-book"} & {*names}
    reworded = "".join(line for line in PINNED.splitlines(keepends=True) if not line.startswith("#"))
    assert handouts.requirements(ASKED, "# Another heading\n" + reworded, "students") == kept
    without_tools = handouts.requirements(ASKED, PINNED).splitlines()
    assert names[len(without_tools) :] == ["ipykernel", "jupyterlab"] and kept.splitlines()[:-2] == without_tools
    with pytest.raises(KeyError, match="teachers"):
        handouts.requirements(ASKED, PINNED, "teachers")


# The command


def run(*arguments):
    command = [sys.executable, "-m", "book.handouts", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_says_where_and_what(assignments, tmp_path, capsys):
    options = ["--assignments", str(assignments), "--folder", str(tmp_path / "out")]
    assert handouts.main(["sample", *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{tmp_path / 'out' / 'sample.zip'}, ") and printed[0].endswith(" kB, holds")
    assert "  sample/sample.ipynb" in printed and printed[-1].startswith("  sample/gpbook_utils/ (")
    assert handouts.main(options) == 0
    assert capsys.readouterr().out.split(maxsplit=1) == ["sample", "Equal or not: a sample\n"]
    assert handouts.main(["smaple", *options]) == 2
    assert capsys.readouterr().err == "there is no assignment 'smaple'; there are: sample\n"


def test_the_command_refuses_in_words(assignments, tmp_path, capsys):
    (assignments / "sample" / "solution.py").write_text("")
    assert handouts.main(["sample", "--assignments", str(assignments), "--folder", str(tmp_path / "out")]) == 1
    assert "solution.py: is not known" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_all_of_them_for_a_branch(assignments, tmp_path):
    course.write_assignment(assignments, "second")
    assert handouts.main(["--all", str(tmp_path / "branch"), "--assignments", str(assignments)]) == 0
    written = {path.relative_to(tmp_path / "branch").as_posix() for path in (tmp_path / "branch").rglob("*")}
    assert {"sample/sample.ipynb", "second/second.ipynb", "second/gpbook_utils/models.py", "runtime.txt"} <= written
    needed = (tmp_path / "branch" / "requirements.txt").read_text()
    assert needed.startswith("--extra-index-url https://") and "\ntorch==" in needed and "jupyterlab" not in needed


def test_nothing_heavy_is_imported():
    question = "import sys, book.handouts; print({'torch', 'numpy', 'nbgrader'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == "set()\n", result.stderr


# Links to services


def test_without_a_repository_there_is_no_link_to_a_service():
    assert service_links("audit", "", "https://hub.example.org") == {}


def test_links_to_services():
    links = service_links("audit", "https://github.com/owner/book", "https://hub.example.org")
    assert links == {
        "Binder": "https://mybinder.org/v2/gh/owner/book/handouts?labpath=audit%2Faudit.ipynb",
        "JupyterHub": "https://hub.example.org/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgithub.com%2Fowner%2Fbook"
        "&branch=handouts&urlpath=lab%2Ftree%2Fbook%2Faudit%2Faudit.ipynb",
        "Colab": "https://colab.research.google.com/github/owner/book/blob/handouts/audit/audit.ipynb",
    }


def test_another_host_has_no_colab_and_without_a_hub_there_is_a_form():
    links = service_links("audit", "https://example.org/owner/book")
    assert links["Binder"].startswith("https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fowner%2Fbook/handouts?")
    assert links["JupyterHub"].startswith("https://nbgitpuller.readthedocs.io/en/latest/link.html?repo=https%3A")
    assert "Colab" not in links


# Secrets


def test_what_is_secret_in_the_sample(assignments):
    found = course.secrets(assignments / "sample", public=["if a.shape != b.shape:"])
    assert found == {
        'raise ValueError("two shapes, <no> & \\"one\\" distance")',
        "return torch.linalg.norm(a - b) / torch.linalg.norm(a) # über alles",
        "tiny = 1e-9 torch.ones(3, 3, dtype=torch.float64)",
        'answer("q1b", distance=relativedistance(tiny, 3 tiny))',
        "The relative distance does not change when both are scaled.",
        "One point for a - b, one for saying that the scale cancels.",
        "![](attachment:model.png)",
        '"distance": {"rtol": 1e-06}',
        '"distance": {"rtol": 3e-06}',
        "return (a - b).norm() / a.norm()",
    }


@pytest.mark.parametrize("folder", ASSIGNMENTS or [None], ids=lambda folder: folder.name if folder else "sample")
def test_no_secret_is_in_the_zip(folder, assignments, tmp_path):
    folder = folder or assignments / "sample"
    lines = course.secrets(folder, course.public_texts())
    assert len(lines) >= 8
    handouts.write_zip(folder.name, tmp_path / "out", folder.parent)
    looked, found = course.search(tmp_path / "out", lines)
    assert looked[".py"] == len(PACKAGE_FILES) and looked[".ipynb"] == 1 and looked[".txt"] >= 2
    assert found == []


LINE = 'if a < b and name == "über":  # the *secret*'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "page.html",
            '<pre><span class="k">if</span> a &lt; b <span>and</span> name == &quot;über&quot;:  # the *secret*</pre>',
        ),
        (
            "page.html",
            '<p>if a &lt; b and name == &#8220;x</p>\n<p>if a &lt; b and\nname == "über": # the <em>secret</em></p>',
        ),
        ("page.md.txt", f"    {LINE}\n"),
        ("searchindex.js", "Search.setIndex(" + json.dumps({"terms": LINE}) + ")"),
        ("sample.ipynb", json.dumps({"source": ["x = 1\n", LINE + "\n"]}, ensure_ascii=False)),
        ("sample.zip/a/sample.ipynb", json.dumps({"source": f"x = 1\n    {LINE}\n"})),
        ("sample.zip/a/table.csv", LINE),
        ("notes", f"See {LINE}"),
    ],
)
def test_a_secret_is_found_in_each_kind_of_file(tmp_path, name, content):
    file, _, entry = name.partition("/")
    if entry:
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            archive.writestr(entry, content)
    else:
        (tmp_path / file).write_text(content)
    looked, found = course.search(tmp_path, {course.plain(LINE), "another line that is secret"})
    assert found == [f"{name}: {course.plain(LINE)}"] and looked.total() == 1
