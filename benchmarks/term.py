"""Write the hand-ins of an invented class to a real assignment: good, partial, broken and hostile.

    python benchmarks/term.py equal_or_not /tmp/class
    make grade A=equal_or_not SUBMISSIONS=/tmp/class

Answers are the assignment's own solutions, and the right and wrong ones of its ``mutants.py``; names say what a
hand-in is, so that ``grades.csv`` can be read against them.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import assignment_runs as runs  # noqa: E402

from book import handouts  # noqa: E402
from grading.notebooks import grade_id  # noqa: E402

# Cells that a hostile student puts before the first question of an otherwise unsolved notebook.
HOSTILE = {
    "patches-torch": "import torch, numpy\ntorch.allclose = torch.equal = numpy.allclose = lambda *a, **k: True",
    "patches-answer": (
        "import gpbook_utils.answers as m\nfrom IPython.display import display\n"
        "m.judge = lambda *a: ('right', '')\nm.encode = lambda value: True"
    ),
    "prints-points": "print('score: 100 / 100')\n100.0",
    "rewrites-cells": (
        "get_ipython().input_transformers_cleanup.append("
        "lambda lines: ['pass\\n'] if any('answer(' in line for line in lines) else lines)"
    ),
    "reads-solutions": (
        "import pathlib\nfor path in pathlib.Path('/').glob('*/*/assignments/*/*.ipynb'): print(path.read_text())"
    ),
    "endless": "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass",
    "memory": "import numpy\nkept = [numpy.ones(2**27) for _ in range(64)]",
    "fork-bomb": "import os\nwhile True:\n    os.fork()",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)",
    "network": "import urllib.request\nurllib.request.urlopen('https://example.org', timeout=5).read()",
    "fills-disk": "for i in range(1000):\n    open(f'/tmp/{i}', 'wb').write(bytes(4 * 10**7))",
    "kills": "import os\nos.kill(1, 9); os.kill(os.getppid(), 9); os._exit(0)",
}


def hand_in(student, answers: dict[str, str], before_first: str | None = None):
    """The student's notebook with answers, by grade id, and a further cell before the first question."""
    notebook = copy.deepcopy(student)
    for cell in notebook.cells:
        cell.source = answers.get(grade_id(cell), cell.source)
    if before_first:
        first = next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == "q1")
        notebook.cells.insert(first, new_code_cell(before_first))
    return notebook


def invent(name: str, seed: int = 0) -> dict:
    """Thirty hand-ins by the student's name."""
    rng = np.random.default_rng(seed)
    student, tried = handouts.load(name), runs.mutants(name)
    right = {grade_id(c): c.source for c in runs.load(name).cells if grade_id(c) and c.metadata.nbgrader.solution}
    invented = {"good-1": hand_in(student, right)}
    for number in range(2, 7):
        own = {question: rng.choice(list(ways.values())) for question, ways in tried.ACCEPTED.items()}
        invented[f"good-{number}"] = hand_in(student, right | own)
    for number in range(1, 9):
        own = dict(right)
        for question in rng.choice(list(tried.MUTANTS), size=min(number, len(tried.MUTANTS)), replace=False):
            own[question] = str(rng.choice(list(tried.MUTANTS[question].values())))
        del own[str(rng.choice(list(own)))]
        invented[f"partial-{number}"] = hand_in(student, own)
    invented["unsolved"] = student
    invented["broken-syntax"] = hand_in(student, right | {"q1": "def ("})
    invented["broken-deleted"] = copy.deepcopy(invented["good-1"])
    invented["broken-deleted"].cells = invented["good-1"].cells[::2]
    return invented | {f"hostile-{what}": hand_in(student, {}, cell) for what, cell in HOSTILE.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=handouts.names())
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for who, notebook in invent(options.name).items():
        nbformat.write(notebook, options.folder / f"{who}.ipynb")
    whole = nbformat.writes(invent(options.name)["good-1"])
    (options.folder / "broken-cut-off.ipynb").write_text(whole[: len(whole) // 2], encoding="utf-8")
    print(len(list(options.folder.glob("*.ipynb"))), "hand-ins in", options.folder)
