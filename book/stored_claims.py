"""The claims that are stored in executed notebooks, read back without running anything."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from book import prose
from gpbook_utils.claims import MIME, VERDICTS


def from_notebook(notebook: dict, chapter: str) -> list[dict]:
    """The claims among the outputs of a notebook (as parsed JSON), in order, each with its ``chapter``.

    A finding's sentence is read from the notebook's prose; it is empty where no sentence links to it.

    Raises:
        ValueError: if a code cell was never executed, a stored claim is damaged, or two outputs carry the same id.

    >>> from_notebook({"cells": []}, "01_empty")
    []
    """
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    if any(cell.get("execution_count") is None for cell in code):
        raise ValueError(f"{chapter}: has code cells that were never executed; run `make run C={chapter}` first")
    found: dict[str, dict] = {}
    for output in (output for cell in code for output in cell["outputs"]):
        if stored := output.get("data", {}).get(MIME):
            missing = [key for key in ("id", "sentence", "verdict", "measured", "bound", "kind") if key not in stored]
            if missing or stored["verdict"] not in VERDICTS:
                raise ValueError(f"{chapter}: a stored claim is damaged; run the chapter again. It says {stored!r}")
            if stored["id"] in found:
                raise ValueError(f"{chapter}: two cells make the claim {stored['id']!r}; give each its own id")
            found[stored["id"]] = {**stored, "chapter": chapter}
    said = sentences(notebook)
    for claim in found.values():
        claim["sentence"] = claim["sentence"] or said.get(claim["id"], "")
    return list(found.values())


def sentences(notebook: dict) -> dict[str, str]:
    """The claimed sentences in the prose of a notebook, by id; the first of each.

    >>> cell = {"cell_type": "markdown", "source": "[Two is *even*](#claim-two-even), as [told](00_x.ipynb#claim-a)."}
    >>> sentences({"cells": [cell]})
    {'two-even': 'Two is even.'}
    """
    prosaic = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    found: dict[str, str] = {}
    for mention in (mention for text in prosaic for mention in prose.mentions(text) if not mention.file):
        found.setdefault(mention.id, mention.sentence)
    return found


def read(path: str | Path) -> list[dict]:
    """The claims that are stored in the notebook file ``path``.

    Returns:
        One dictionary a claim with at least ``id``, ``kind``, ``sentence``, ``verdict``, ``measured``, ``bound`` and
        ``chapter``.

    Raises:
        ValueError: if the file is not a notebook, or was never executed.
    """
    path = Path(path)
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is not a Jupyter notebook ({error})") from error
    try:
        notebook["nbformat"] + len(notebook["cells"] + [])  # a number and a list
        return from_notebook(notebook, path.stem)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is not a Jupyter notebook ({type(error).__name__}: {error})") from error


def read_all(paths: Iterable[str | Path]) -> list[dict]:
    """The claims of several notebooks.

    Raises:
        ValueError: if no notebook is given, one can't be read, or two of them use one claim id.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("paths is empty: name at least one notebook")
    if twice := [str(path) for path in paths if sum(path.resolve() == other.resolve() for other in paths) > 1]:
        raise ValueError(f"paths names a notebook twice: {twice}")
    everything, path_of = [], {}
    for path in paths:
        for stored in read(path):
            if (first := path_of.setdefault(stored["id"], path)) != path:
                raise ValueError(f"claim id {stored['id']!r} is used in {first} and in {path}; rename one")
            everything.append(stored)
    return everything
