"""The book under other releases: ``make record RELEASES="oldest newest"`` records it in an environment for each."""

import os
import re
from pathlib import Path

import nox

# A name; the Python; what is installed in place of the pins; the one chapter that is recorded, or all of them.
RELEASES = {
    "oldest": ("3.11", ["torch==2.9.1", "gpytorch==1.14.3", "numpy==2.2.6", "scipy==1.15.3", "pandas==2.3.3"], ""),
    "newest": ("3.12", ["torch==2.15.0", "numpy==2.5.5", "scipy==1.18.1"], ""),
    "python-3.13": ("3.13", [], ""),
    # Older than the book can be run with: what the library did then, by programs that use nothing else.
    **{
        f"gpytorch-{release}": ("3.11", [f"gpytorch=={release}"], "21_upstream")
        for release in ("1.11", "1.13", "1.14.3", "1.15.1")
    },
}
UNUSED = ("botorch", "gpbook")  # botorch asks for one release of GPyTorch, and no chapter for botorch
CUDA = ("cuda-", "nvidia-", "triton")  # what PyPI's torch brings along differs from release to release

nox.options.envdir = "_build/releases"
nox.options.sessions = []


@nox.session(reuse_venv=True)
@nox.parametrize(("python", "others", "chapter"), [nox.param(*what, id=name) for name, what in RELEASES.items()])
def record(session, others, chapter):
    """Record the chapters under one of RELEASES; what a release refutes is news, no failure."""
    replaced = {_name(pin): pin for pin in others}
    unpinned = (*UNUSED, *(CUDA if "torch" in replaced else ()))
    pins = Path(session.create_tmp())
    for file in ("requirements.txt", "constraints.txt"):
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        kept = [replaced.get(_name(line), line) for line in lines if not _name(line).startswith(unpinned)]
        (pins / file).write_text("\n".join(kept), encoding="utf-8")
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"] if os.environ.get("TORCH") == "cpu" else []
    session.install(*index, "-r", str(pins / "requirements.txt"), "-c", str(pins / "constraints.txt"))
    search_path = {"PYTHONPATH": str(Path.cwd())}
    session.run("python", "-m", "book.records", *filter(None, [chapter]), env=search_path, success_codes=[0, 1])


def _name(requirement):
    """What a line of a requirements file names, in small letters."""
    return re.match(r"[\w.-]*", requirement.strip())[0].lower()
