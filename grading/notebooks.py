"""Puts a student's answers into the assignment's own notebook.

What is run and marked has the assignment's cells in the assignment's order, whatever was deleted, doubled, moved or
edited: from the student come the answers, and the cells that the student added.
"""

from __future__ import annotations

import copy
import re

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

_ANY, _CODED = re.compile(".*", re.DOTALL), re.compile(r"[A-Za-z0-9+/=\s]*")
SHOWN = {
    **dict.fromkeys(("text/plain", "text/html", "text/markdown", "text/latex"), _ANY),
    **dict.fromkeys(("image/png", "image/jpeg"), _CODED),
}
LARGEST = 1_000_000  # characters of all cells; an honest notebook has a twentieth
WITHOUT_ANSWER = "# There was no answer cell with this name in what was handed in."


def grade_id(cell) -> str | None:
    """The name of a special cell of the assignment, and ``None`` for any other."""
    metadata = cell.get("metadata")
    mark = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = mark.get("grade_id") if isinstance(mark, dict) else None
    return name if isinstance(name, str) else None


def is_answer(cell) -> bool:
    """Whether the student writes this cell of the source."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def probes(source) -> dict:
    """The cells of the source that are marked by comparison, by their grade id."""
    return {
        grade_id(cell): cell
        for cell in source.cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade")
    }


def points(source) -> float:
    """What a perfect submission has."""
    return sum(c.metadata.nbgrader.points for c in source.cells if c.metadata.get("nbgrader", {}).get("grade"))


def merge(source, submitted) -> tuple:
    """The notebook to run, and what is strange about the submission.

    Args:
        source: the assignment's notebook with solutions and hidden tests.
        submitted: the student's, of format 4.

    Returns:
        A notebook in which every special cell of ``source`` stands once, in its order, the answers with the student's
        text; and sentences about special cells that were missing or changed.

    Raises:
        ValueError: if no special cell of the assignment is in it, or more text than anybody writes.
    """
    if sum(len(_text(cell)) for cell in submitted.cells) > LARGEST:
        raise ValueError(f"its cells hold more than {LARGEST:,} characters")
    special = {grade_id(cell): cell for cell in source.cells if grade_id(cell)}
    first, after, current = {}, {None: []}, None
    for cell in submitted.cells:
        name = grade_id(cell)
        if name in special and name not in first:
            first[name], current = cell, name
            after.setdefault(name, [])
        else:
            after[current].append(_plain(cell))
    if not first:
        raise ValueError("no cell of this assignment is in the notebook; is it another one?")
    merged, changed = copy.deepcopy(source), []
    merged.cells = list(after[None])
    for name, cell in special.items():
        own = copy.deepcopy(cell)
        if is_answer(cell):
            own.source = _text(first[name]) if name in first else WITHOUT_ANSWER
        elif name in first and cell.metadata.nbgrader.get("grade") and not _is_released(first[name], cell):
            changed.append(name)
        if own.cell_type == "code":
            own.outputs, own.execution_count = [], None
        merged.cells += [own, *after.get(name, [])]
    for number, cell in enumerate(merged.cells):
        cell.id = f"cell-{number}"
    strange = {
        "missing cells": [name for name in special if name not in first],
        "changed marked cells, of which the assignment's own were run": changed,
    }
    return merged, [f"{what}: {', '.join(names)}" for what, names in strange.items() if names]


def kept(submitted):
    """What a later run needs of a hand-in: its cells with their names, without outputs."""
    cells = []
    for cell in submitted.cells:
        plain = _plain(cell)
        if name := grade_id(cell):
            plain.metadata["nbgrader"] = {"grade_id": name}
        cells.append(plain)
    return new_notebook(cells=cells)


def _is_released(cell, source_cell) -> bool:
    """Whether the student's copy of a locked cell holds nothing that the assignment's does not."""
    lines = {line.strip() for line in source_cell.source.splitlines()}
    return all(line.strip() in lines for line in _text(cell).splitlines())


def _plain(cell):
    """A student's own cell without anything that could make it a marked one."""
    new = new_code_cell if cell.get("cell_type") == "code" else new_markdown_cell
    return new(_text(cell))


def _text(cell) -> str:
    return text(cell.get("source", ""))


def text(value) -> str:
    """A text of a notebook's file, which may stand there in lines; nothing in it that no file can hold."""
    value = "".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return value.encode("utf-8", "replace").decode("utf-8")


def shown(output):
    """An output with what a page may show of it: texts and pictures, without metadata and without other kinds."""
    kind = output["output_type"]
    if kind == "stream":
        name = "stderr" if output["name"] == "stderr" else "stdout"
        return new_output("stream", name=name, text=text(output["text"]))
    if kind == "error":
        lines = [text(line) for line in output["traceback"]]
        return new_output("error", ename=text(output["ename"]), evalue=text(output["evalue"]), traceback=lines)
    data = {name: text(value) for name, value in output["data"].items() if name in SHOWN}
    return new_output("display_data", {name: value for name, value in data.items() if SHOWN[name].fullmatch(value)})
