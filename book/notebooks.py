"""Notebooks: run a chapter from top to bottom and store it only when it is complete.

``python -m book.notebooks run`` runs every chapter, ``run 01`` one of them. A stored chapter carries
a hash of its code cells and one of the modules that they reach, so that :func:`is_stale` can tell when its outputs no
longer belong to its code.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book import stored_claims
from gpbook_utils import claims, reach
from gpbook_utils.files import PACKAGE, replace_file

LEDGER = "verdicts.ipynb"
README_FIGURE = "readme-figure.png"  # beside the chapter that makes it

# Jupyter writes more here, and it differs between patch releases of Python.
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}


class ChapterError(RuntimeError):
    """A chapter did not run to its end, or must not be stored; its file is as it was."""


def chapters(folder: str | Path) -> list[Path]:
    """The chapters in ``folder`` in reading order: ``NN_name.ipynb`` by number, then the ledger.

    >>> chapters("no such folder")
    []
    """
    folder = Path(folder)
    numbered = [path for path in folder.glob("*.ipynb") if re.match(r"\d\d_", path.name)]
    return sorted(numbered) + [path for path in [folder / LEDGER] if path.exists()]


def select(folder: str | Path, wanted: str = "") -> list[Path]:
    """The chapters that ``wanted`` means: a number (``1``, ``01``), a name, or "" for all.

    Raises:
        ValueError: if no chapter is meant; the message lists those that exist.
    """
    found = chapters(folder)
    if not found:
        raise ValueError(f"{folder}: no chapters NN_name.ipynb here; run this from the top folder of the book")
    if not wanted:
        return found
    stem = wanted.rpartition("/")[2].removesuffix(".ipynb")
    meant = [path for path in found if stem in _names(path)]
    if not meant:
        names = ", ".join(path.stem for path in found)
        raise ValueError(f"there is no chapter {wanted!r}; there are: {names}")
    return meant


def read(path: str | Path) -> NotebookNode:
    """The notebook in the file ``path``, validated.

    Raises:
        ValueError: if the file can't be read or is not a notebook of format 4.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        version = json.loads(text)["nbformat"]
        if version != 4:
            raise ValueError(f"notebook format {version}, needed 4")
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, nbformat.ValidationError) as error:
        reason = f"{type(error).__name__}: {_first_line(str(error))}"
        advice = "restore it from version control"
        raise ValueError(f"{path}: is not a Jupyter notebook ({reason}); {advice}") from error
    return notebook


def title(path: str | Path) -> str:
    """The first heading of the notebook in the file ``path``; the file's name where it has none."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return heading[1].strip()
    return Path(path).stem


def chapter_hash(notebook: NotebookNode) -> str:
    """SHA-256 of the code cells' sources, in hexadecimal: prose may change without making outputs stale."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def reached_hash(notebook: NotebookNode, sources: reach.Sources | None = None) -> str:
    """SHA-256 of the modules of this book that the code cells reach, and of the tables that these read.

    Args:
        notebook: whose code cells to follow.
        sources: the modules; by default, as they are on disk now.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return (sources or reach.Sources()).hash(set().union(*map(reach.imported, cells)))


def is_stale(notebook: NotebookNode) -> str | None:
    """Why the stored outputs do not belong to today's code, or ``None`` if they do.

    >>> is_stale(nbformat.v4.new_notebook())
    'it was never stored by `make run`'
    """
    stored = notebook.metadata.get("gpbook", {})
    if "package_code" in stored:  # a hash of the whole package, of the first edition of this file
        return "it was stored by an older `make run`, which did not say what its code reaches"
    if not {"chapter_code", "reached_code"} <= stored.keys():
        return "it was never stored by `make run`"
    if stored["chapter_code"] != chapter_hash(notebook):
        return "its code cells changed after they were run"
    if stored["reached_code"] != reached_hash(notebook):
        return "a module that it imports, or one that this imports, changed after it was run"
    return None


def execute(notebook: NotebookNode, folder: str | Path, timeout: float = 600, name: str = "notebook") -> NotebookNode:
    """A copy of ``notebook`` with the outputs of a fresh kernel of this Python that ran in ``folder``.

    Args:
        notebook: what to run; it is left as it is.
        folder: the working folder of the kernel.
        timeout: seconds that one cell may take.
        name: what error messages call the notebook.

    Raises:
        ChapterError: at the first cell that fails; names the cell's number, its first line and the error.
    """
    from nbclient import NotebookClient  # here, so that hashing and linting start fast
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = deepcopy(notebook)
    position = 0

    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        nonlocal position
        position = cell_index

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=_kernel_of_this_python(),
        resources={"metadata": {"path": str(folder)}},
        timeout=timeout,
        startup_timeout=300,  # a busy machine
        on_cell_start=on_cell_start,
        # Tags that let a cell fail or be skipped have no effect: what is stored has run.
        force_raise_errors=True,
        skip_cells_with_tag="",
        store_widget_state=False,
        coalesce_streams=True,
    )
    try:
        with tempfile.TemporaryDirectory() as no_settings:
            client.execute(env=kernel_environment(no_settings))
    # After Ctrl-C nbclient stops the kernel and then trips over its own clean-up: the AssertionError.
    # One that a cell raises arrives as a CellExecutionError.
    except (CellExecutionError, CellTimeoutError, DeadKernelError, AssertionError, RuntimeError) as error:
        if isinstance(error, CellExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        elif isinstance(error, CellTimeoutError):
            reason = f"took longer than {timeout:g} s"
        else:
            reason = "the kernel died or was stopped" + (f" ({error})" if type(error) is RuntimeError else "")
        where = f"cell {position + 1} ({_first_line(notebook.cells[position].source)!r})"
        raise ChapterError(f"{name}: {where} failed: {reason}") from error
    return notebook


def kernel_environment(no_settings: str | Path) -> dict[str, str]:
    """This process's environment, with what makes a chapter say the same on every machine.

    Args:
        no_settings: an empty folder, for IPython: a reader's start-up files could change how pandas writes a table.
    """
    # matplotlib says on stderr, which is compared, that it makes a list of fonts, and a folder where the home can't be
    # written. It does both here, and leaves the folder's name in MPLCONFIGDIR.
    import matplotlib.font_manager  # noqa: F401

    def added(name: str, first: str, separator: str) -> str:
        return separator.join([first, *filter(None, [os.environ.get(name)])])

    return {
        **os.environ,  # after the import, which may have changed it
        "IPYTHONDIR": str(no_settings),
        # The kernel imports the very modules that :func:`reached_hash` reads.
        "PYTHONPATH": added("PYTHONPATH", str(PACKAGE.parent), os.pathsep),
        # Shown since torch 2.15, when linear_operator is imported.
        "PYTHONWARNINGS": added("PYTHONWARNINGS", "ignore:`torch.jit.script` is deprecated:FutureWarning", ","),
    }


def run(path: str | Path, timeout: float = 600, allow_refuted: bool = False) -> None:
    """Run the chapter in the file ``path`` and, when all went well, replace the file in one step.

    Running an unchanged chapter whose outputs are deterministic leaves the file as it is, byte for byte.

    Raises:
        ValueError: if the file is not a notebook.
        ChapterError: if a cell fails, a claim is refuted (unless ``allow_refuted``), or the file was edited
            meanwhile.
    """
    path = Path(path).resolve()
    notebook, before = read(path), path.read_bytes()
    reached_code = reached_hash(notebook)  # now: a module may be edited while the chapter runs
    executed = execute(notebook, path.parent, timeout, name=path.name)
    decided = stored_claims.from_notebook(executed, path.stem)
    refuted = [c for c in decided if c["verdict"] == claims.REFUTED]
    if refuted and not allow_refuted:
        lines = [f"{c['id']}: {c['sentence']} (measured {c['measured'] or 'false'})" for c in refuted]
        raise ChapterError(f"{path.name}: not stored, this run refutes\n  " + "\n  ".join(lines))
    if path.read_bytes() != before:
        raise ChapterError(f"{path.name}: not stored, the file was edited while it ran; run it again")
    tidy(executed)
    executed.metadata["gpbook"] = {"chapter_code": chapter_hash(executed), "reached_code": reached_code}
    text = nbformat.writes(executed)
    replace_file(path, text if text.endswith("\n") else text + "\n")
    if picture := readme_figure(executed):
        replace_file(path.with_name(README_FIGURE), picture)


def readme_figure(notebook: NotebookNode) -> bytes | None:
    """The picture that the cell tagged ``readme-figure`` shows, as png; ``None`` if there is no such cell."""
    for cell in notebook.cells:
        if "readme-figure" in cell.metadata.get("tags", []):
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run chapters and store them. Exit status 1 if one fails, 2 if there is none of that name."""
    parser = argparse.ArgumentParser(prog="python -m book.notebooks", description=main.__doc__)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("chapter", nargs="?", default="", help="a number or a name; all chapters if left out")
    parser.add_argument("--folder", default="chapters", help="where the chapters are (default: %(default)s)")
    parser.add_argument("--allow-refuted", action="store_true", help="store chapters that refute a claim")
    options = parser.parse_args(arguments)
    try:
        selected = select(options.folder, options.chapter)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for path in selected:
        start = time.perf_counter()
        try:
            run(path, allow_refuted=options.allow_refuted)
        except (OSError, ValueError, ChapterError) as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{path.stem:32} {time.perf_counter() - start:6.1f} s", flush=True)
    return 0


def _names(path: Path) -> set[str]:
    number, _, name = path.stem.partition("_")
    return {path.stem, number, number.lstrip("0"), name} - {""}


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def tidy(notebook: dict) -> None:
    """Remove what would differ between two runs of the same code, and what an editor adds."""
    notebook["metadata"] |= {"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        for added in ("execution", "collapsed"):  # times of a run; "collapsed" says what `outputs_hidden` says
            cell["metadata"].pop(added, None)


def _kernel_of_this_python() -> type:
    """A kernel manager that ignores installed kernel specifications, which may name another Python."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class KernelOfThisPython(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _without_installed_specifications(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

        @default("transport_encryption")
        def _encrypted_where_possible(self) -> str:
            return "auto"  # otherwise each kernel warns that it talks in the clear

    return KernelOfThisPython


if __name__ == "__main__":
    sys.exit(main())
