"""``python -m book.new_assignment NAME`` makes a new assignment out of ``book/template``, and its page in the book."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from book import handouts

TEMPLATE = Path(__file__).parent / "template"
PAGE = """\
% The page is the first cell of assignments/{name}/{name}.ipynb; book/theme/handouts.py adds where to get it.

```{{handout}} {name}
```
"""
NEXT = """\
assignments/{name}/{name}.ipynb  questions, solutions and hidden tests: edit it in `make lab`
assignments/{name}/mutants.py    wrong answers, and other right ones

A copy of the template, which passes its tests. Exchange one question at a time, and run
    make test T="tests/test_assignments.py -k {name}"
"Write an assignment" in CONTRIBUTING.md says what the cells' metadata mean."""


def create(name: str, book: Path = handouts.BOOK) -> None:
    """Copy the template, write the page, and enter it in the table of contents and in the list of assignments.

    Raises:
        ValueError: if ``name`` is not lower-case letters, digits and underscores, or is taken.
    """
    folder = book / "assignments" / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name: lower-case letters, digits and underscores, a letter first, are needed; got {name!r}")
    if folder.exists() or name == TEMPLATE.name:
        raise ValueError(f"name: {name!r} is taken")
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    notebook = (folder / f"{TEMPLATE.name}.ipynb").rename(folder / f"{name}.ipynb")
    text = notebook.read_text(encoding="utf-8").replace("# TITLE", f"# {name.replace('_', ' ').capitalize()}")
    notebook.write_text(text, encoding="utf-8")
    (book / "chapters" / "assignments" / f"{name}.md").write_text(PAGE.format(name=name), encoding="utf-8")
    _after_the_last(r"^( *- file: chapters/assignments/)\w+\n", rf"\g<1>{name}\n", book / "_toc.yml")
    _after_the_last(r"^```\{handouts\}.*", f" {name}", book / "chapters" / "assignments.md")


def _after_the_last(pattern: str, addition: str, path: Path) -> None:
    """Write ``addition``, which may speak of the groups, after the last place where ``pattern`` is found."""
    text = path.read_text(encoding="utf-8")
    last = list(re.finditer(pattern, text, re.MULTILINE))[-1]
    path.write_text(text[: last.end()] + last.expand(addition) + text[last.end() :], encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Make it and say what to do next; exit status 2 if the name can't be."""
    parser = argparse.ArgumentParser(prog="python -m book.new_assignment", description=main.__doc__)
    parser.add_argument("name")
    name = parser.parse_args(arguments).name
    try:
        create(name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(NEXT.format(name=name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
