"""A small assignment and a class that hands it in: honest, mistaken, broken and hostile."""

import copy
import io
import json
import zipfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book.handouts import student_version

NAME, SECRET = "small", "adds_up"


def special(grade_id, **values):
    plain = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return {"nbgrader": {**plain, "grade_id": grade_id, **values}}


def probe(grade_id, source, points, **rules):
    if grade_id.endswith(("_b", "_c")):
        source = f"# Marked after handing in.\n### BEGIN HIDDEN TESTS\n{source}\n### END HIDDEN TESTS"
    return new_code_cell(
        source, metadata=special(grade_id, grade=True, locked=True, points=points) | {"gpbook": {"answers": rules}}
    )


def source():
    """Two questions by comparison and one in words, without torch so that a cage starts fast."""
    exact = {"rtol": 1e-6}
    cells = [
        new_markdown_cell("# A small assignment"),
        new_code_cell(
            "import numpy as np\nfrom gpbook_utils.answers import answer", metadata=special("imports", locked=True)
        ),
        new_code_cell(
            f"def total(x):\n    ### BEGIN SOLUTION\n    {SECRET} = x.sum()\n    return {SECRET}\n    ### END SOLUTION",
            metadata=special("q1", solution=True),
        ),
        new_code_cell("assert total(np.ones(3)) == 3", metadata=special("q1_check", locked=True)),
        probe("q1_a", 'answer("q1_a", total=total(np.ones(5)))', 10, total=exact),
        probe("q1_b", 'answer("q1_b", total=total(np.array([-1.25, 3.0, 0.5])))', 20, total=exact),
        new_code_cell(
            'def wider(x):\n    ### BEGIN SOLUTION\n    return {"twice": 2 * x, "wide": True}\n    ### END SOLUTION',
            metadata=special("q2", solution=True),
        ),
        new_code_cell('assert wider(1)["wide"]', metadata=special("q2_check", locked=True)),
        probe("q2_a", 'answer("q2_a", **wider(3.5))', 15, twice=exact, wide={}),
        probe("q2_b", 'answer("q2_b", **wider(np.arange(4.0)))', 25, twice=exact, wide={}),
        new_markdown_cell("In words: why?"),
        new_markdown_cell(
            "### BEGIN SOLUTION\nBecause sums commute.\n### END SOLUTION",
            metadata=special("q3_words", grade=True, solution=True, points=30),
        ),
    ]
    for number, one in enumerate(cells):
        one.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


TOTAL = "def total(x):\n    return sum(x.tolist())"
WIDER = 'def wider(x):\n    return {"wide": True, "twice": x + x}'
LOOP = "while True:\n    try:\n        while True:\n            pass\n    except KeyboardInterrupt:\n        pass"


def cell(notebook, grade_id):
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def handed_in(total=TOTAL, wider=WIDER, words="I do not know.", own=()):
    """A student's notebook: answers, and further cells of the student's (grade id of the cell before it, source)."""
    notebook = student_version(source())
    cell(notebook, "q1").source, cell(notebook, "q2").source, cell(notebook, "q3_words").source = total, wider, words
    for before, text in own:
        place = notebook.cells.index(cell(notebook, before)) + 1
        notebook.cells.insert(place, new_code_cell(text))
    return notebook


# What ``total`` does in a hostile or broken notebook, and in brackets what is left of the 30 + 40 automatic points.
PATCH_ANSWER = """
import gpbook_utils.answers as module
from IPython.display import display
module.answer = answer = lambda name, **values: display({module.MIME: {"name": name, "values": %s}}, raw=True)
"""
HOOK = """
import IPython
def replaced(lines):
    return ["answer('q1_a', total=5.0)\\n"] if any("answer(" in line for line in lines) else lines
IPython.get_ipython().input_transformers_cleanup.append(replaced)
"""
LOOKS_EQUAL = """
class Equal(np.ndarray):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0 * other
    def __le__(self, other): return True
def total(x):
    return np.zeros(()).view(Equal)
"""
FIND = """
import pathlib
def total(x):
    text = ""
    for folder in ("/tmp", "/home", "/work", "/book", "/var", "/srv", "/opt", "/mnt", "/etc"):
        for path in pathlib.Path(folder).rglob("*"):
            if ".venv" not in path.parts and path.suffix in (".ipynb", ".db", ".json", ".csv"):
                text += path.read_text(errors="replace")
    for path in pathlib.Path("/proc").glob("[0-9]*/*"):
        if path.name in ("cmdline", "environ"):
            text += path.read_text(errors="replace")
    found = any(word in text for word in ("BEGIN SOLUTION", "adds" + "_up", "gradebook", "a secret of the " + "grader"))
    return float(sum(x)) if found or not text else 0.0
"""
GARBAGE = """
import glob, json, os, pathlib
def total(x):
    import IPython
    kernel = IPython.get_ipython().kernel
    for _ in range(50):
        kernel.iopub_socket.send_multipart([b"x" * 1000, b"<IDS|MSG>", b"", b"{", b"{}", b"{}", b"{}"])
    return 0.0
"""
NEST = "nested = []\nfor _ in range(900): nested = [nested]\ndef total(x):\n    return nested"
PICKLE = """
import gpbook_utils.answers as module
from IPython.display import display
class Evil:
    def __reduce__(self): return (os.system, ("touch /tmp/evil",))
import base64, os, pickle
evil = base64.b64encode(pickle.dumps(Evil())).decode()
module.encode = lambda value: {"dtype": "object", "shape": [], "values": evil}
def total(x):
    return 0.0
"""
EARLY = """
from gpbook_utils.answers import MIME
from IPython.display import display
def total(x):
    for value in (5.0, 2.25):
        number = {"dtype": "float64", "shape": [], "values": [value]}
        display({MIME: {"name": "q1_b", "values": {"total": number}}}, raw=True)
    return 5.0
"""
RAW = "from IPython.display import display\ndisplay(%s, raw=True)\n"
BROKEN_MESSAGE = """
import IPython
kernel = IPython.get_ipython().kernel
for content in (5, [1], {"data": 5}, {"name": 5}, {}):
    kernel.session.send(kernel.iopub_socket, "display_data", content, parent=kernel.get_parent())
"""
SPIN = """
import subprocess
for _ in range(110):
    subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True)
"""
SCRIPT = "<script>document.body.innerHTML = 'hacked'</script>"

HOSTILE = {
    # name: (source of q1, automatic points that are left)
    "raises": ("raise RuntimeError('no')", 40),
    "syntax": ("def total(x:", 40),
    "warns": ("import sys, warnings\n" + TOTAL + "\nwarnings.warn('noise')\nprint('noise', file=sys.stderr)", 70),
    "loops": ("def total(x):\n    while True: pass", 40),
    "loops_on": (f"def total(x):\n    {LOOP.replace(chr(10), chr(10) + '    ')}", 40),
    "memory": (
        "def total(x):\n    return sum(big.sum() for big in [np.ones(2**27) for _ in range(10)])",
        40,
    ),
    "hogs": (
        "import os, time\ndef total(x):\n    for _ in range(6):\n        if os.fork() == 0:\n"
        "            big = np.ones(2**26); time.sleep(60)\n    time.sleep(60)",
        40,
    ),
    "forks": (
        "import os, time\ndef total(x):\n    for _ in range(400):\n        if os.fork() == 0: time.sleep(60)",
        40,
    ),
    "big_file": (
        "def total(x):\n    with open('/tmp/big', 'wb') as f:\n        f.write(bytes(3 * 2**30))\n    return 0",
        40,
    ),
    "finds": (FIND, 40),
    "writes": (
        "import pathlib\nfor p in ('/usr/x', '/book/gpbook_utils/answers.py', '/etc/x', '/dev/x'):\n"
        "    try: pathlib.Path(p).write_text('def answer(*a, **k): pass')\n    except OSError: continue\n"
        "    raise SystemExit('written')\n" + TOTAL,
        70,
    ),
    "network": (
        "import socket\ntry: socket.create_connection(('127.0.0.1', 22), 2)\nexcept OSError: reached = False\n"
        "else: reached = True\ndef total(x):\n    return sum(x.tolist()) + reached",
        70,
    ),
    "daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execvp('sleep', ['gpbook-left-behind', '300'])\n    os._exit(0)\n" + TOTAL,
        70,
    ),
    "prints_a_score": ("print('q1_a: 10 points')\ndef total(x):\n    return 30.0\n30.0", 40),
    "patches_numpy": (
        "np.sum = np.allclose = np.array_equal = lambda *a, **k: True\ndef total(x):\n    return np.sum(x)",
        40,
    ),
    "patches_answer": (PATCH_ANSWER % "{'total': True, 'twice': True, 'wide': True}" + TOTAL, 0),
    "patches_input": (HOOK + TOTAL, 10),
    # six more and a few
    "equal_to_all": (LOOKS_EQUAL, 40),
    "many_answers": (EARLY, 40),
    "garbage": (GARBAGE, 40),
    "floods": ("def total(x):\n    while True: print('x' * 10000)", 40),
    "nested": (NEST, 40),
    "pickle": (PICKLE, 0),
    "kills": ("import os, signal\ndef total(x):\n    os.kill(os.getppid(), 9); os.kill(1, 9); os._exit(0)", 40),
    "cuts_wire": (
        "import glob, os, sys\ndef total(x):\n    folder = os.path.dirname(sys.argv[sys.argv.index('-f') + 1])\n"
        "    for name in glob.glob(folder + '/*'): os.unlink(name)\n    return 0.0",
        40,
    ),
    "sleeps": ("import time\ndef total(x):\n    time.sleep(10**6)", 40),
    "spins": (SPIN + TOTAL, 40),
    "marker": ("# BEGIN HIDDEN TESTS\n" + TOTAL, 70),
    "raw_list": (RAW % "{'text/html': ['<b>', 'x</b>'], 'image/png': 5}" + TOTAL, 40),
    "raw_surrogate": (RAW % "{'text/plain': chr(0xd800), 'text/html': chr(0xdfff)}" + TOTAL, 40),
    "raw_message": (BROKEN_MESSAGE + TOTAL, 40),
    "special_cased": ("def total(x):\n    return float(len(x))", 50),
    "not_finite": ("def total(x):\n    return np.full(10**5, np.nan)", 40),
}


BROKEN = ("damaged", "damaged_lzma", "rar", "odd_cells")


def write_assignment(folder: Path) -> Path:
    (folder / NAME).mkdir(parents=True)
    nbformat.write(source(), folder / NAME / f"{NAME}.ipynb")
    (folder / NAME / "mutants.py").write_text(f"# {SECRET}")
    return folder


def write_class(folder: Path) -> dict[str, tuple[float, str]]:
    """Write all hand-ins, and return the score and the status that each should get."""
    folder.mkdir(parents=True)
    wanted = {}

    def hand_in(name, notebook, score, status="needs-hand-marking", suffix=".ipynb"):
        nbformat.write(notebook, folder / f"{name}{suffix}")
        wanted[name] = (score, status)

    for name, (text, score) in HOSTILE.items():
        hand_in(name, handed_in(text), score, "any")
    hand_in("right", handed_in(), 70)
    hand_in("unsolved", handed_in(*["raise NotImplementedError()"] * 2, words="YOUR ANSWER HERE"), 0, "graded")
    hand_in("no_words", handed_in(words="YOUR ANSWER HERE"), 70, "graded")
    hand_in("near", handed_in(total="def total(x):\n    return np.sum(x) * (1 + 1e-5)"), 40)
    hand_in("script", handed_in(words=SCRIPT, own=[("q1", f"from IPython.display import HTML\nHTML({SCRIPT!r})")]), 70)

    deleted = handed_in()
    deleted.cells = [c for c in deleted.cells if c.metadata.get("nbgrader", {}).get("grade_id") not in ("q1_a", "q2")]
    hand_in("deleted", deleted, 30)
    edited = handed_in()
    cell(edited, "q1_a").metadata.nbgrader.points = 1000
    cell(edited, "q1_b").source = "answer('q1_b', total=0.0)"
    cell(edited, "q1").metadata.nbgrader |= {"grade": True, "points": 500}
    edited.cells += [copy.deepcopy(cell(edited, "q1_a")), copy.deepcopy(cell(edited, "imports"))]
    edited.cells[-1].id, edited.cells[-2].id = "again-1", "again-2"
    edited.cells.reverse()
    hand_in("edited", edited, 70)

    hand_in("marker_words", handed_in(words="### BEGIN HIDDEN TESTS\n### BEGIN SOLUTION"), 70)
    hand_in("bold_words", handed_in(words="<b>" * 100_000), 70)
    hand_in("long_words", handed_in(words="x" * 1_100_000), 0, "failed-to-run")
    hand_in("chatters", handed_in(own=[("q2_b", "print('x' * 1_900_000)")] * 30), 70)
    for name, student in (("a!b", "a-b-80f8c6"), ("a?b", "a-b-c2a7b6"), ("n" * 243, "n" * 100 + "-ebc937")):
        hand_in(name, handed_in(), 70)
        wanted[student] = wanted.pop(name)
    odd = json.loads(nbformat.writes(handed_in()))
    odd["cells"][1:1] = [
        {"cell_type": "code", "source": 5, "metadata": 5},
        {"cell_type": "markdown", "source": ["\ud800", 5], "metadata": {"nbgrader": 5}},
    ]
    (folder / "odd_cells.ipynb").write_text(json.dumps(odd))
    (folder / "surrogate.ipynb").write_text(json.dumps(handed_in(words="\ud800 I do not know.")))
    wanted["surrogate"] = (70, "needs-hand-marking")
    for name, way in {"damaged": zipfile.ZIP_DEFLATED, "damaged_lzma": zipfile.ZIP_LZMA}.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w", way) as archive:
            archive.writestr("small.ipynb", nbformat.writes(handed_in()))
        whole = bytearray((folder / f"{name}.zip").read_bytes())
        whole[200:400] = bytes(200)
        (folder / f"{name}.zip").write_bytes(whole)
    (folder / "rar.rar").write_bytes(b"Rar!")

    (folder / "cut_off.ipynb").write_text(nbformat.writes(handed_in())[:2000])
    (folder / "other.ipynb").write_text(nbformat.writes(new_notebook(cells=[new_code_cell("1")])))
    (folder / "list.ipynb").write_text("[1, 2]")
    (folder / "deep.ipynb").write_text("[" * 100_000)
    (folder / "huge.ipynb").write_bytes(b" " * (21 * 2**20))
    (folder / "link.ipynb").symlink_to(folder / "right.ipynb")
    (folder / "empty").mkdir()
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.ipynb", b"0" * (64 * 2**20))
    (folder / "not_a_zip.zip").write_text("PK")
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.ipynb", "{}")
        archive.writestr("b.ipynb", "{}")
    (folder / "two.zip").write_bytes(two.getvalue())
    for name in ("cut_off", "other", "list", "deep", "huge", "link", "empty", "bomb", "not_a_zip", "two", *BROKEN):
        wanted[name] = (0, "failed-to-run")

    with zipfile.ZipFile(folder / "Ada Lovelace_4711_assignsubmission_file_.zip", "w") as archive:
        archive.writestr("../../small.ipynb", nbformat.writes(handed_in()))
        archive.writestr("__MACOSX/._small.ipynb", "")
    wanted["Ada-Lovelace_4711"] = (70, "needs-hand-marking")
    (folder / "curiemarie_LATE_12_345_small-1.ipynb").write_text(nbformat.writes(handed_in()))
    wanted["curiemarie_12"] = (70, "needs-hand-marking")
    inside = folder / "Emmy Noether_4712_assignsubmission_file" / "attempt"
    inside.mkdir(parents=True)
    (inside / "small (2).ipynb").write_text("\ufeff" + json.dumps(handed_in()), encoding="utf-8")
    wanted["Emmy-Noether_4712"] = (70, "needs-hand-marking")
    return wanted
