"""Chapters as readers download them: a first cell that says what to install where the book's package is missing."""

from importlib.metadata import version
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

CELL = "needs-the-package"  # id of the cell

PROGRAM = """\
# This copy of a chapter needs the package of the book. Where it is missing:
hint = '{install}'
try:
    import gpbook_utils
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"{{missing}}. In a terminal, say\\n{{hint}}") from None\
"""


def install_line(address: str) -> str:
    """What a reader says to have the package with all that chapters need.

    Args:
        address: of the published book, with a slash at its end; empty if it is not known.

    >>> install_line("https://example.org/gp/")
    'pip install "gpbook[book] @ https://example.org/gp/_static/gpbook-...-py3-none-any.whl"'
    """
    wheel = f"_static/gpbook-{version('gpbook')}-py3-none-any.whl"
    return f'pip install "gpbook[book] @ {address or "ADDRESS_OF_THE_BOOK/"}{wheel}"'


def add_hints(app: Sphinx, exception: Exception | None) -> None:
    """Put the cell into each chapter's copy, once, when the pages are written."""
    if exception or app.builder.format != "html":
        return
    for path in sorted(Path(app.outdir, "_sources", "chapters").glob("*.ipynb")):
        chapter = nbformat.read(path, as_version=4)
        place = next((n for n, cell in enumerate(chapter.cells) if cell.cell_type == "code"), None)
        if place is None or chapter.cells[place].get("id") == CELL:
            continue
        cell = nbformat.v4.new_code_cell(PROGRAM.format(install=install_line(app.config.html_baseurl)), id=CELL)
        chapter.cells.insert(place, cell)
        nbformat.write(chapter, path)


def setup(app: Sphinx) -> None:
    """Register it."""
    app.connect("build-finished", add_hints)
