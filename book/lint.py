"""Lint of the stored notebooks and pages: what nbval and the strict build let pass.

A rule is a function ``rule(path, notebook) -> list of problems``; each problem names the file, the cell
(counting all cells from 1), what is wrong and what to do. A page in Markdown counts as one cell.
``python -m book.lint`` prints all problems of the book.
"""

import ast
import base64
import html
import io
import re
import sys
import tomllib
import urllib.parse
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import nbformat
from myst_parser.mdit_to_docutils.base import default_slugify
from nbformat import NotebookNode
from PIL import Image

from book import notebooks, prose, stored_claims
from gpbook_utils import claims, explorer

ROOT = Path(__file__).parents[1]
LONGEST_CELL = 16  # lines
WIDEST = 80  # columns of code that fit the page
SYMPTOMS = "symptoms.md"  # the page that leads from what is seen to the section that explains it
# Chapters that still have the form of the first edition, claim(id, sentence, check).
FIRST_EDITION = {
    "09_machines", "12_budget",
    "verdicts",
}  # fmt: skip
LARGEST_PNG = 120_000  # bytes; the aim is 80 kB
LARGEST_NOTEBOOK = 1_000_000  # bytes
NOT_COMPARED = {
    "image/png",
    "image/jpeg",
    "text/html",
    claims.MIME,
}  # nbval skips these (book/strictness.py)
FOLDED = {"hide-input", "hide-cell"}  # tags of Jupyter Book that fold the source of a cell
PAGE_TAGS = FOLDED | {"hide-output", "readme-figure"}
PERMITTED = {"number": {"file", "number", "source"}, "tag": {"file", "cell", "tag", "reason"}}


# Reading ------------------------------------------------------------------------------------------


def documents(root: Path = ROOT) -> list[Path]:
    """Every notebook and page that is linted."""
    return sorted([*root.glob("chapters/*.ipynb"), *root.glob("chapters/*.md"), *root.glob("intro.md")])


def read(path: Path) -> NotebookNode:
    """A notebook, or a page in Markdown as a notebook of one cell."""
    if path.suffix == ".md":
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))])
    return notebooks.read(path)


def read_allowed(path: Path) -> dict[str, list[dict]]:
    """The allow-list; an entry that is incomplete, has no source or stands there twice is an error."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: is not valid TOML: {error}") from error
    for kind, entries in tables.items():
        if kind not in PERMITTED:
            raise ValueError(f"{path.name}: unknown table [[{kind}]]; known are {', '.join(PERMITTED)}")
        for position, entry in enumerate(entries):
            texts = all(isinstance(text, str) and text.strip() for text in entry.values())
            if set(entry) != PERMITTED[kind] or not texts:
                keys = ", ".join(sorted(PERMITTED[kind]))
                raise ValueError(f"{path.name}: [[{kind}]] needs {keys} as non-empty texts; got {entry}")
            if entry in entries[:position]:
                raise ValueError(f"{path.name}: this [[{kind}]] stands there twice, delete one: {entry}")
    return {kind: tables.get(kind, []) for kind in PERMITTED}


ALLOWED = read_allowed(ROOT / "tests" / "lint_allowed.toml")


def _at(path: Path, position: int, line: int | None = None) -> str:
    if path.suffix == ".md":
        return f"{path.name}, line {line}"
    return f"{path.name}, cell {position}" + (f", line {line}" if line else "")


def _cells(notebook: NotebookNode, kind: str) -> Iterator[tuple[int, NotebookNode]]:
    """The cells of one kind with their number, empty ones left out."""
    return ((n, c) for n, c in enumerate(notebook.cells, 1) if c.cell_type == kind and c.source.strip())


def _outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    return ((n, output) for n, cell in _cells(notebook, "code") for output in cell.outputs)


def _compared(notebook: NotebookNode) -> Iterator[tuple[int, str]]:
    """The texts among the outputs that nbval compares, with the number of their cell."""
    for n, output in _outputs(notebook):
        if output.output_type == "stream":
            yield n, output.text
        for mime, text in output.get("data", {}).items():
            if mime not in NOT_COMPARED:
                yield n, str(text)


def _claims(notebook: NotebookNode) -> Iterator[tuple[int, dict, str]]:
    """Each claim with the number of its cell and its stored plain text."""
    for n, output in _outputs(notebook):
        if claims.MIME in output.get("data", {}):
            yield n, output.data[claims.MIME], output.data.get("text/plain", "")


# Prose: what a reader of the page sees ------------------------------------------------------------

_UNSEEN = [
    (r"(?s:\A---\n.*?\n---\n)", ""),  # front matter
    (r"(?s:<!--.*?-->)", ""),
    (r"<sup>", "^"),  # a power, read as one
    (r"^\([\w:.-]+\)=[ ]*$", ""),  # label
    (r"^:[\w-]+:.*$", ""),  # option of a directive
    (r"^([`:]{3,}\{(?:figure|image|literalinclude|include|bibliography)\}).*$", r"\1"),
    (r"\{(?:cite[:\w]*|ref|numref|eq|doc|term|download|any)\}`(?:([^`<]*)<[^`>]*>|[^`]*)`", r"\1"),
    (r"\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", "]"),  # target of a link
    (r"^\[[^\]]+\]:\s*\S+.*$", ""),  # definition of a link
    (r"<?https?://[^\s>)]+>?", ""),
    (r"\b(?:doi:\s*)?10\.\d{4,9}/\S+", ""),
    (r"\barxiv:\s*\d{4}\.\d{4,5}(?:v\d+)?", ""),
    (r"</?[a-z][a-z0-9]*(?:\s+[\w-]+(?:=(?:\"[^\"]*\"|'[^']*'|[^\s>\"']+))?)*\s*/?>", ""),  # HTML tag
]


def visible(markdown: str) -> str:
    """Markdown without addresses, targets, keys, tags and comments; the lines keep their numbers."""
    for pattern, kept in _UNSEEN:

        def shorten(match: re.Match, kept: str = kept) -> str:
            return match.expand(kept) + "\n" * match.group().count("\n")

        markdown = re.sub(pattern, shorten, markdown, flags=re.MULTILINE | re.IGNORECASE)
    return html.unescape(markdown)


def without_code(markdown: str) -> str:
    """Markdown without code, formulas in fences, and block quotes; the lines keep their numbers."""
    lines, fences = [], []  # the open fences, innermost last, each with whether it holds code
    for line in markdown.split("\n"):
        fence = re.match(r"\s*(`{3,}|~{3,}|:{3,})\s*(.*)$", line)
        in_code = bool(fences) and fences[-1][1]
        if fence and fences and not fence[2] and fence[1].startswith(fences[-1][0]):
            fences.pop()
        elif fence and not in_code:
            is_prose = fence[1].startswith(":") or fence[2].startswith("{")
            fences.append((fence[1], not is_prose or bool(re.match(r"\{(code|math)", fence[2]))))
        in_code = in_code or bool(fences) and fences[-1][1]
        lines.append("" if in_code or line.startswith(">") else line)
    return re.sub(r"(?<!`)(`+)(?!`)[^`\n]+\1(?!`)", "", "\n".join(lines))


# Numbers ------------------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
_NUMBER = re.compile(
    r"""
    # not within float32, v1.15, AVX-512 or the number of an issue
    (?<![A-Za-z_\d\#]) (?<![A-Za-z_\d]\.) (?<![A-Za-z]-)
    (?P<digits> \d+ (?:(?:,|\{,\}|\\,|[\u2009\u202f])\d{3}(?!\d))* (?:\.\d+)* )
    (?:
        [eE](?P<e>[+−-]?\d+)(?![A-Za-z\d])
      | \s*(?:\\times|\\cdot|×|·)\s*10\s*
        (?:\^\s*\{?\s*(?P<times>[+−-]?\d+)\s*\}?|(?P<times_raised>[⁺⁻]?[⁰¹²³⁴-⁹]+))
      | (?:\s*\^\s*[{(]?\s*|\*\*(?=[\d−-]))(?P<power>[+−-]?\d+)
      | (?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]+)
    )?
    """,
    re.VERBOSE,
)


def numbers(text: str, digits: int) -> list[str]:
    """The numbers in ``text`` with an exponent or at least so many significant digits, in one notation.

    The final zeros of an integer are not significant. An exponent is written as in ``1e-16`` or ``2^-53``.
    """
    found = []
    for match in _NUMBER.finditer(re.sub(r"(\\[A-Za-z]+)(?=\d)", r"\1 ", text)):
        mantissa = re.sub(r"[^\d.]", "", match["digits"])
        scale = match["e"] or match["times"] or match["times_raised"]
        power = match["power"] or match["raised"]
        if power and mantissa == "10":
            mantissa, scale, power = "1", power, None
        if scale or power:
            exponent = int((scale or power).translate(_SUPERSCRIPT))
            found.append(f"{mantissa}{'e' if scale else '^'}{exponent}")
        elif len(_significant(mantissa)) >= digits:
            found.append(mantissa)
    return found


def _significant(mantissa: str) -> str:
    return mantissa.replace(".", "").lstrip("0") if "." in mantissa else mantissa.strip("0")


def _numbers_in_prose(path: Path, notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    for n, cell in _cells(notebook, "markdown"):
        decided = _numbers_decided(notebook, cell.source)
        for line, text in enumerate(visible(cell.source).split("\n"), 1):
            yield from ((_at(path, n, line), number) for number in numbers(text, 3) if number not in decided)


def _numbers_decided(notebook: NotebookNode, markdown: str) -> set[str]:
    """Numbers in the claimed sentences of a text that stand in the cells which decide them, too."""
    if "#claim-" not in markdown:
        return set()
    sources = {claim["id"]: notebook.cells[n - 1].source for n, claim, _ in _claims(notebook)}
    return {
        number
        for mention in prose.mentions(markdown)
        for number in set(numbers(mention.text, 3)) & set(numbers(sources.get(mention.id, ""), 1))
    }


def _numbers_in_outputs(path: Path, notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    found = [(n, number) for n, text in _compared(notebook) for number in numbers(visible(text), 4)]
    claimed = _numbers_claimed(path, notebook) if found else set()
    yield from ((_at(path, n), number) for n, number in found if number not in claimed)


def _numbers_claimed(path: Path, notebook: NotebookNode) -> set[str]:
    """Numbers in the sentences of claims, which tables repeat, also those of other chapters."""
    sentences = [claim["sentence"] for _, claim, _ in _claims(notebook)]
    for sibling in notebooks.chapters(path.parent):
        try:
            sentences += [claim["sentence"] for claim in stored_claims.read(sibling)]
        except ValueError:
            continue  # a broken sibling is reported by its own rules
    return {number for sentence in sentences for number in numbers(sentence, 1)}


def _numbers_allowed(path: Path) -> set[str]:
    return {entry["number"] for entry in ALLOWED["number"] if fnmatch(path.name, entry["file"])}


# Rules for notebooks and pages --------------------------------------------------------------------


def numbers_in_prose(path: Path, notebook: NotebookNode) -> list[str]:
    """Numbers in prose come from claims and figures; one that is typed has a source."""
    allowed = _numbers_allowed(path)
    return [
        f"{where}: the number {number} is typed; let a claim or figure show it, or add it with its source to "
        "tests/lint_allowed.toml"
        for where, number in _numbers_in_prose(path, notebook)
        if number not in allowed
    ]


def soft_words(path: Path, notebook: NotebookNode) -> list[str]:
    """Words that tell a reader that he should have known."""
    word = re.compile(r"\b(simply|just|obviously|clearly|of\s+course)\b", re.I)
    return [
        f"{_at(path, n, line)}: the word {match[0]!r}; delete it or say why"
        for n, cell in _cells(notebook, "markdown")
        for line, text in enumerate(visible(without_code(cell.source)).split("\n"), 1)
        for match in word.finditer(text)
    ]


def links(path: Path, notebook: NotebookNode) -> list[str]:
    """Links between pages name a file that exists, relative to the page."""
    found = []
    for n, cell in _cells(notebook, "markdown"):
        for line, text in enumerate(without_code(cell.source).split("\n"), 1):
            for target in re.findall(r"\]\(\s*<?([^)\s>]+)", text):
                address = urllib.parse.urlsplit(target)
                if address.scheme in {"http", "https", "mailto", "attachment"} or not (address.path or address.scheme):
                    continue
                if address.scheme or address.path.startswith("/"):
                    problem = "is absolute; write it relative to this page"
                elif not (path.parent / urllib.parse.unquote(address.path)).exists():
                    problem = "leads to no file; correct it, with the file's extension"
                else:
                    continue
                found.append(f"{_at(path, n, line)}: the link {target!r} {problem}")
    return found


def section_links(path: Path, notebook: NotebookNode) -> list[str]:
    """On the page of symptoms a link to a chapter leads to one of its sections, where the answer stands."""
    found = []
    for n, cell in _cells(notebook, "markdown"):
        for line, text in enumerate(without_code(cell.source).split("\n"), 1):
            for file, anchor in re.findall(r"\]\(\s*(\d\d_\w+\.ipynb)#?([^)\s]*)\)", text):
                if not (path.parent / file).exists():
                    continue  # the rule `links` says so
                chapter = read(path.parent / file)
                sections = [anchor for _, c in _cells(chapter, "markdown") for anchor in _sections(c.source)]
                if anchor not in sections:
                    problem = f"names no section, {anchor!r}" if anchor else "leads to the top of a chapter"
                    found.append(f"{_at(path, n, line)}: the link to {file} {problem}; give one of {sections}")
    return found


def _sections(markdown: str) -> list[str]:
    """The anchors of a text's sections, below its title: what a link may name after the ``#``."""
    tokens = prose.parser().parse(markdown)
    return [
        default_slugify("".join(part.content for part in text.children or [] if part.type in ("text", "code_inline")))
        for heading, text in zip(tokens, tokens[1:], strict=False)
        if heading.type == "heading_open" and heading.tag != "h1"
    ]


def images_in_prose(path: Path, notebook: NotebookNode) -> list[str]:
    """Images in Markdown have alternative text."""
    image = re.compile(
        r"!\[(?P<alt>[^\]]*)\]\("
        r"|^(?P<fence>`{3,}|:{3,})\{(?:figure|image)\}(?P<body>.*?)^(?P=fence)"
        r"|(?P<tag><img\b[^>]*>)",
        re.MULTILINE | re.DOTALL,
    )
    found = []
    for n, cell in _cells(notebook, "markdown"):
        for match in image.finditer(cell.source):
            if match["body"] is not None:
                alt = re.search(r"^:alt:(.*)$", match["body"], re.MULTILINE)
            elif match["tag"]:
                alt = re.search(r"\balt=[\"']([^\"']*)", match["tag"])
            else:
                alt = re.fullmatch(r"(.*)", match["alt"], re.DOTALL)
            if problem := _not_a_sentence(alt[1] if alt else ""):
                line = cell.source.count("\n", 0, match.start()) + 1
                found.append(f"{_at(path, n, line)}: the alternative text of this image {problem}")
    return found


# Rules for notebooks ------------------------------------------------------------------------------


def file_name(path: Path, notebook: NotebookNode) -> list[str]:
    """A notebook of another name would be neither run nor in the book."""
    if path.name == notebooks.LEDGER or re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name):
        return []
    return [f"{path.name}: `make run` leaves it out; rename it to NN_name.ipynb, or move it out of this folder"]


def executed(path: Path, notebook: NotebookNode) -> list[str]:
    """The notebook has run."""
    counts = [cell.execution_count for _, cell in _cells(notebook, "code")]
    if not counts:
        return [f"{path.name}: has no code cell; a page without code is a .md file"]
    return [] if any(counts) else [f"{path.name}, all cells: never executed; {_run(path)}"]


def execution_counts(path: Path, notebook: NotebookNode) -> list[str]:
    """Code cells ran from top to bottom, once each, in a fresh kernel."""
    empty = [n for n, c in enumerate(notebook.cells, 1) if c.cell_type == "code" and not c.source.strip()]
    found = [f"{_at(path, n)}: this code cell is empty; delete it" for n in empty]
    for expected, (n, cell) in enumerate(_cells(notebook, "code"), 1):
        if cell.execution_count != expected:
            return [
                *found,
                f"{_at(path, n)}: execution count {cell.execution_count}, not {expected}; {_run(path)}",
            ]
    return found


def fresh(path: Path, notebook: NotebookNode) -> list[str]:
    """The outputs belong to today's code."""
    reason = notebooks.is_stale(notebook)
    return [f"{path.name}, all cells: stale, {reason}; {_run(path)}"] if reason else []


def errors(path: Path, notebook: NotebookNode) -> list[str]:
    """No output is an exception."""
    return [
        f"{_at(path, n)}: stores the error {output.ename}: {output.evalue}; correct it, then {_run(path)}"
        for n, output in _outputs(notebook)
        if output.output_type == "error"
    ]


def figures(path: Path, notebook: NotebookNode) -> list[str]:
    """Figures are png files that decode, are small and have alternative text."""
    found = []
    for n, output in _outputs(notebook):
        for mime in sorted(mime for mime in output.get("data", {}) if mime.startswith("image/")):
            if mime != "image/png":
                found.append(f"{_at(path, n)}: a figure is stored as {mime}; use plots.show, which stores png")
                continue
            try:
                content = base64.b64decode(output.data[mime])
                Image.open(io.BytesIO(content), formats=["png"]).load()
            except Exception as error:  # Pillow raises many kinds
                found.append(f"{_at(path, n)}: a stored png does not decode ({error}); {_run(path)}")
                continue
            if len(content) > LARGEST_PNG:
                size = f"{len(content) / 1000:.0f} kB, at most {LARGEST_PNG / 1000:.0f} are allowed"
                found.append(f"{_at(path, n)}: a figure of {size}; draw less or smaller, the aim is 80 kB")
            if problem := _not_a_sentence(output.metadata.get(mime, {}).get("alt", "")):
                found.append(f"{_at(path, n)}: the alternative text of a figure {problem}")
    return found


def scripts(path: Path, notebook: NotebookNode) -> list[str]:
    """An output that runs a script is an explorer: small, with a picture beside it, and it loads nothing."""
    found = []
    for n, output in _outputs(notebook):
        page = output.get("data", {}).get("text/html", "")
        if not re.search(r"<script\b", page, re.I):
            continue
        if "image/png" not in output.data:
            found.append(f"{_at(path, n)}: a script without a picture for print; show it with gpbook_utils.explorer")
        if len(page.encode()) > explorer.LARGEST:
            stored = f"{len(page.encode()) / 1000:.0f} kB, at most {explorer.LARGEST / 1000:.0f} are allowed"
            found.append(f"{_at(path, n)}: an explorer of {stored}; use fewer frames or points")
        if match := re.search(
            r"""(?:\b(?:src|href)=\\?["']?|\burl\(|\bimport\b|\bfetch\()\s*["']?(?!data:)https?:\S*""", page
        ):
            found.append(f"{_at(path, n)}: an explorer loads something: {match[0]!r}; store it in the output")
    return found


def size(path: Path, notebook: NotebookNode) -> list[str]:
    """The file is small enough for version control."""
    stored = len(nbformat.writes(notebook).encode())
    if stored <= LARGEST_NOTEBOOK:
        return []
    n, cell = max(_cells(notebook, "code"), key=lambda item: len(str(item[1].outputs)))
    return [f"{_at(path, n)}: stores most of the notebook's {stored / 1e6:.1f} MB; shrink it, 1 MB is allowed"]


_MACHINE = {
    "a path of this machine": r"(?<![\w./<)])/[A-Za-z][\w.-]{2,}/[\w./-]+|~/\w[\w./-]*"
    r"|(?<![\w./<)])/(?:root|tmp|home)\b|\b[A-Z]:[\\/]\w[\w.-]*|file://\S+",
    "a memory address": r"\b0x[0-9a-fA-F]{6,}\b",
}
_RUN = {
    "a network address": r"\bhttps?://\S+|\blocalhost\b|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])",
    "a timing": r"\bWall time|\bCPU times|\d\s?(?:s/it|it/s)\b|\d\.\d+s\b|\d[mµμnu]s\b"
    r"|\d\s?(?:[mµμnu]?s|secs?|seconds?|min|minutes?)\b|(?<![\d:])\d{1,2}:\d\d\b",
    "a warning": r"(?i:\w*warning\b)|\bwarnings\.warn\b",
}


def machine_text(path: Path, notebook: NotebookNode) -> list[str]:
    """Text that nbval compares says nothing about this machine or this run; HTML at least no path."""
    found = []
    texts = [(n, text, _MACHINE | _RUN) for n, text in _compared(notebook)]
    for n, output in _outputs(notebook):
        if page := output.get("data", {}).get("text/html"):
            texts.append((n, re.sub(r'(?:base64,|"application/gzip">)[\w+/=\s]+', "", page), _MACHINE))
        if output.get("name") == "stderr":
            found.append(f"{_at(path, n)}: writes to stderr: {output.text.strip()[:80]!r}; remove the cause")
    for n, text, kinds in texts:
        for kind, pattern in kinds.items():
            if match := re.search(pattern, text):
                found.append(f"{_at(path, n)}: an output holds {kind}: {match[0]!r}; remove it, or show it in a figure")
    return found


def numbers_in_outputs(path: Path, notebook: NotebookNode) -> list[str]:
    """Text that nbval compares has no measured digits."""
    allowed = _numbers_allowed(path)
    return [
        f"{where}: an output holds the number {number}; show it in a claim's HTML or in a figure, or add it "
        "with its source to tests/lint_allowed.toml"
        for where, number in _numbers_in_outputs(path, notebook)
        if number not in allowed
    ]


def _marks(notebook: NotebookNode) -> Iterator[tuple[int, str, str]]:
    """Cell number, cell id and each tag or comment of nbval that is not one of the page's tags."""
    for n, cell in enumerate(notebook.cells, 1):
        marks = [tag for tag in cell.metadata.get("tags", []) if tag not in PAGE_TAGS]
        if cell.cell_type == "code":
            marks += re.findall(r"#\s*((?:NBVAL|PYTEST_VALIDATE)_\w+)", cell.source, re.I)
        yield from ((n, cell.get("id", ""), mark) for mark in marks)


def tags(path: Path, notebook: NotebookNode) -> list[str]:
    """No cell is skipped, may fail or hides its output from nbval."""
    allowed = {(e["cell"], e["tag"]) for e in ALLOWED["tag"] if fnmatch(path.name, e["file"])}
    return [
        f"{_at(path, n)}: the tag {mark!r} is none of {', '.join(sorted(PAGE_TAGS))}; remove it, or add it "
        f"with a reason and the cell id {id!r} to tests/lint_allowed.toml"
        for n, id, mark in _marks(notebook)
        if (id, mark) not in allowed
    ]


def folded(path: Path, notebook: NotebookNode) -> list[str]:
    """A cell is folded on the page exactly if it is folded in JupyterLab."""
    found = []
    for n, cell in enumerate(notebook.cells, 1):
        on_page = bool(FOLDED & set(cell.metadata.get("tags", [])))
        in_lab = bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        if on_page and not in_lab:
            found.append(f"{_at(path, n)}: folded on the page only; set the metadata jupyter.source_hidden to true")
        if in_lab and not on_page:
            found.append(f"{_at(path, n)}: folded in JupyterLab only; add the tag hide-input or hide-cell")
    return found


def cell_length(path: Path, notebook: NotebookNode) -> list[str]:
    """A code cell is read at a glance."""
    return [
        f"{_at(path, n)}: {lines} lines, {LONGEST_CELL} are allowed; split it or move a part to gpbook_utils"
        for n, cell in _cells(notebook, "code")
        if (lines := len(cell.source.strip().splitlines())) > LONGEST_CELL
    ]


def plain_python(path: Path, notebook: NotebookNode) -> list[str]:
    """Code cells are Python: no magics, no shell, no final semicolon (nbval shows the value all the same)."""
    found = []
    for n, cell in _cells(notebook, "code"):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            line = (error.text or "").strip()
            found.append(f"{_at(path, n)}: is not plain Python: {line!r}; write it without magics or shell commands")
            continue
        if "get_ipython" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
            found.append(f"{_at(path, n)}: uses get_ipython; write it in plain Python")
        if cell.source.rstrip().endswith(";"):
            found.append(f"{_at(path, n)}: ends with a semicolon; assign the value, or end with plots.show")
    return found


def claim_outputs(path: Path, notebook: NotebookNode) -> list[str]:
    """Each claim has its own id and a full sentence, is not refuted, and its text says what it decided."""
    found, first = [], {}
    for n, claim, text in _claims(notebook):
        id, sentence, verdict = claim.get("id"), claim.get("sentence", ""), claim.get("verdict")
        where = f"{_at(path, n)}: the claim {id!r}"
        if id in first:
            found.append(f"{where} is also made by cell {first[id]}; give each its own id")
        first.setdefault(id, n)
        if claim.get("kind") != claims.FINDING and not sentence.endswith("."):
            found.append(f"{where} does not end with a full stop: {sentence!r}; write a whole sentence")
        if verdict == claims.REFUTED:
            found.append(f"{where} is refuted; correct the sentence or the experiment, then {_run(path)}")
        elif text != f"[{verdict}] {id}" + ("" if "kind" in claim else f": {sentence}"):
            found.append(f"{where} is stored as {verdict!r}, but its text says {text!r}; {_run(path)}")
    return found


def _run(path: Path) -> str:
    return f"run `make run C={path.stem.partition('_')[0]}`"


def _not_a_sentence(text: str) -> str | None:
    """Why ``text`` does not tell a listener what is seen, or None."""
    text = " ".join(str(text).split())
    if not text:
        problem = "is missing"
    elif len(text) < 20 or text.count(" ") < 3 or text.startswith("<Figure"):
        problem = f"does not describe it: {text!r}"
    elif not text.endswith((".", "!", "?")):
        problem = f"is not a sentence: {text!r}"
    else:
        return None
    return f"{problem}; say in a sentence with a full stop what is seen"


# Rules for chapters in checked prose ---------------------------------------------------------------

_READ_OFF = re.compile(r"machines? agree|of the (?:value|ratio|measured)|\bmeasured\b|\bspread\b", re.I)


def in_checked_prose(path: Path) -> bool:
    """Whether a notebook has the form of the second edition: sentences in prose, decisions in cells."""
    return path.suffix == ".ipynb" and path.stem not in FIRST_EDITION


def sentences(path: Path, notebook: NotebookNode) -> list[str]:
    """Every finding has one sentence in the prose, and every sentence a decision in this notebook."""
    found, first = [], {}
    kinds = {claim["id"]: claim.get("kind") for _, claim, _ in _claims(notebook)}
    for n, cell in _cells(notebook, "markdown"):
        for mention in prose.mentions(cell.source):
            where = f"{_at(path, n, mention.line)}: the sentence of claim {mention.id!r}"
            if mention.heading:
                found.append(f"{where} stands in a heading, which names a section; put it into the text below")
            if mention.file:
                continue
            if mention.id not in kinds:
                found.append(f"{where} is decided by no cell here; decide it, or link NN_name.ipynb#claim-{mention.id}")
            if mention.id in first:
                again = f"{path.name}#claim-{mention.id}"
                found.append(f"{where} stands in cell {first[mention.id]} already; write {again} to mention it again")
            first.setdefault(mention.id, n)
        if re.search(r"<summary>[^<]*\]\([^)]*#claim-", cell.source):
            found.append(f"{_at(path, n)}: a claim in a <summary> is not shown as one; put it into the folded text")
    for n, claim, _ in _claims(notebook):
        where = f"{_at(path, n)}: the claim {claim['id']!r}"
        if "kind" not in claim:
            found.append(f"{where} is made by claim(); write its sentence into the prose, and decide() it here")
        elif claim["kind"] == claims.FINDING and claim["id"] not in first:
            found.append(f"{where} has no sentence in the prose; link one to #claim-{claim['id']}, or make it a check")
    return found


def mechanisms(path: Path, notebook: NotebookNode) -> list[str]:
    """The reason of a bound is a mechanism or a derivation; nothing in it was read off a run."""
    found = []
    for n, claim, _ in _claims(notebook):
        reason, measured = claim.get("reason", ""), claim.get("measured", "")
        where = f"{_at(path, n)}: the reason of claim {claim['id']!r}"
        if match := _READ_OFF.search(reason):
            found.append(f"{where} says {match[0]!r}, how a bound was chosen; say why the effect has this size")
        read = {number for number in numbers(reason, 2) if number in numbers(measured, 2)}
        if read:
            found.append(f"{where} repeats what was measured, {', '.join(sorted(read))}; derive it, or leave it out")
    return found


def deciding_cells(path: Path, notebook: NotebookNode) -> list[str]:
    """A cell that decides shows decisions only, since the page folds it."""
    found = []
    for n, cell in _cells(notebook, "code"):
        shown = [output for output in cell.outputs if claims.MIME not in output.get("data", {})]
        if shown and len(shown) < len(cell.outputs):
            found.append(f"{_at(path, n)}: decides claims and shows something else, which the page folds; split it")
    return found


def width(path: Path, notebook: NotebookNode) -> list[str]:
    """Code fits the page."""
    return [
        f"{_at(path, n, line)}: {len(text)} columns, {WIDEST} fit the page; break the line"
        for n, cell in _cells(notebook, "code")
        for line, text in enumerate(cell.source.split("\n"), 1)
        if len(text) > WIDEST
    ]


# Rules for the whole book -------------------------------------------------------------------------


def claim_ids(book: dict[Path, NotebookNode]) -> list[str]:
    """No two notebooks make a claim of one id."""
    found, first = [], {}
    for path, notebook in book.items():
        for n, claim, _ in _claims(notebook):
            other = first.setdefault(claim.get("id"), path)
            if other != path:
                found.append(f"{_at(path, n)}: the claim id {claim.get('id')!r} is taken by {other.name}; rename one")
    return found


def mentioned_claims(book: dict[Path, NotebookNode]) -> list[str]:
    """A claim that a page mentions is decided by the notebook that it names."""
    decided = {path.name: {claim["id"] for _, claim, _ in _claims(notebook)} for path, notebook in book.items()}
    return [
        f"{_at(path, n, mention.line)}: {mention.file or path.name} makes no claim {mention.id!r}; correct the link"
        for path, notebook in book.items()
        for n, cell in _cells(notebook, "markdown")
        for mention in prose.mentions(cell.source)
        if (mention.file or not in_checked_prose(path))
        and mention.id not in decided.get(Path(mention.file or path).name, ())
    ]


def allowances(book: dict[Path, NotebookNode]) -> list[str]:
    """Every entry of the allow-list is needed."""
    used = {"number": set(), "tag": set()}
    for path, notebook in book.items():
        loose = [*_numbers_in_prose(path, notebook), *_numbers_in_outputs(path, notebook)]
        used["number"] |= {(path.name, number) for _, number in loose}
        used["tag"] |= {(path.name, id, mark) for _, id, mark in _marks(notebook)}
    found = []
    for kind, keys in [("number", ["number"]), ("tag", ["cell", "tag"])]:
        for entry in ALLOWED[kind]:
            wanted = [entry[key] for key in keys]
            if not any(fnmatch(name, entry["file"]) and list(rest) == wanted for name, *rest in used[kind]):
                found.append(f"tests/lint_allowed.toml: nothing needs [[{kind}]] {entry} any more; delete it")
    return found


PAGE_RULES = [numbers_in_prose, soft_words, links, images_in_prose]
NOTEBOOK_RULES = [
    file_name, executed, execution_counts, fresh, errors, figures, scripts, size, machine_text, numbers_in_outputs,
    tags, folded, cell_length, plain_python, claim_outputs,
]  # fmt: skip
PROSE_RULES = [sentences, mechanisms, deciding_cells, width]  # for chapters in checked prose
BOOK_RULES = [claim_ids, mentioned_claims, allowances]


def rules_for(path: Path) -> list:
    """The rules for a notebook, or for a page in Markdown."""
    notebook = path.suffix != ".md"
    symptoms = [section_links] * (path.name == SYMPTOMS)
    return PAGE_RULES + symptoms + NOTEBOOK_RULES * notebook + PROSE_RULES * in_checked_prose(path)


def lint(root: Path = ROOT) -> list[str]:
    """The problems of the whole book; a book without notebooks is one."""
    paths = documents(root)
    if not any(path.suffix == ".ipynb" for path in paths):
        return [f"{root / 'chapters'}: has no notebook, so nothing was linted; run this from a complete checkout"]
    book, found = {}, []
    for path in paths:
        try:
            book[path] = read(path)
        except ValueError as error:
            found.append(str(error))
    found += [problem for path, nb in book.items() for rule in rules_for(path) for problem in rule(path, nb)]
    return found + [problem for rule in BOOK_RULES for problem in rule(book)]


if __name__ == "__main__":
    problems = lint()
    print(*problems, f"{len(documents())} documents, {len(problems)} problems", sep="\n")
    sys.exit(bool(problems))
