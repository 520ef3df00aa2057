"""The index of the book's search: one entry a section, so that a hit leads to its place within a page.

Written as a script, since a page that was opened from a folder may load a script but no other file. The browser loads
it with the first search (``static/search.js``), and MiniSearch (``static/scripts/minisearch.js``) searches it.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx

CALL = "gpbookSections("  # what the script calls, with the sections of each page
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
# What starts a new line of an excerpt.
BLOCKS = HEADINGS | {"p", "li", "tr", "pre", "dt", "dd", "figcaption", "summary", "div", "section", "table", "caption"}
WORDS = "gp-words"
# Elements without an end.
VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# What a reader does not read, or reads elsewhere too: the evidence of a claim stands beside its sentence.
SKIPPED_TAGS = {"script", "style", "svg", "button", "template"}
SKIPPED_CLASSES = {"headerlink", "gp-evidence", "gp-notes", "gp-note", "gp-ledger", "section-number", "toctree-wrapper"}


class Sections(HTMLParser):
    """Collects the sections of a page: of each its anchor, its title, its prose, and its code with what that printed.

    A term of the glossary is a section too. Words in a hidden element of the class ``gp-words`` are what readers say
    of a section in other words than it uses.

    >>> Sections("<section id=a><h1>Title</h1><p>Some <b>prose</b>.</p><pre>code()</pre></section>").found
    [{'anchor': 'a', 'title': 'Title', 'text': 'Some prose.', 'code': 'code()', 'words': ''}]
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self._all: list[dict[str, str]] = []
        # Each open element: its tag, the section that it belongs to, and which part of it its text is.
        self._open: list[tuple[str, dict[str, str], str]] = [("", new_section(""), "")]
        self.feed(html)

    @property
    def found(self) -> list[dict[str, str]]:
        """The sections in their order, without blank lines and repeated blanks."""
        return [
            {key: "\n".join(filter(None, map(tidy, value.splitlines()))) for key, value in section.items()}
            for section in self._all
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where the text of this element goes."""
        if tag in VOID:
            self.handle_data(" ")
            return
        _, section, part = self._open[-1]
        values = {key: value or "" for key, value in attrs}
        anchor = values.get("id", "")
        closing = (
            tag == "tr" and "data-verdict" in values
        )  # a chapter's closing table: its claims stand where they belong
        if closing or tag in SKIPPED_TAGS or SKIPPED_CLASSES & set(values.get("class", "").split()):
            part = ""
        elif anchor and (tag == "section" or (tag == "dt" and anchor.startswith("term-"))):
            section, part = new_section(anchor), "title" if tag == "dt" else "text"
            self._all.append(section)
        elif tag == "dd" and self._all and self._all[-1]["anchor"].startswith("term-"):
            section = self._all[-1]
        elif tag in HEADINGS and part and not section["title"]:
            part = "title"
        elif tag == "pre" and part:
            part = "code"
        elif WORDS in values.get("class", "").split():
            part = "words"
        self._open.append((tag, section, part))
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave the element, and any within it that was never closed."""
        self._separate(tag)
        if any(name == tag for name, *_ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Keep a text where it belongs."""
        _, section, part = self._open[-1]
        if part:
            section[part] += data if part == "code" else data.replace("\n", " ")

    def _separate(self, tag: str) -> None:
        _, section, part = self._open[-1]
        if part in ("text", "code") and tag in BLOCKS:
            section[part] += "\n"
        elif part == "text" and tag in ("td", "th"):
            section[part] += " "


def new_section(anchor: str) -> dict[str, str]:
    """A section of which nothing has been read yet."""
    return {"anchor": anchor, "title": "", "text": "", "code": "", "words": ""}


def tidy(line: str) -> str:
    """A line with single blanks.

    >>> tidy("  two   words ")
    'two words'
    """
    return " ".join(line.split())


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """Write the sections of every page as a script that calls ``gpbookSections``; only new pages are read."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    index = static / "sections.js"
    known, written = {}, 0.0
    if index.exists():
        known, written = json.loads(index.read_text(encoding="utf-8")[len(CALL) : -1]), index.stat().st_mtime
    found = {}
    for page in sorted(app.env.found_docs):
        path, address = Path(app.builder.get_outfilename(page)), app.builder.get_target_uri(page)
        new = address not in known or path.stat().st_mtime >= written
        found[address] = Sections(path.read_text(encoding="utf-8")).found if new else known[address]
    index.write_text(f"{CALL}{json.dumps(found, ensure_ascii=False, separators=(',', ':'))})", encoding="utf-8")
    for name in ("searchtools.js", "language_data.js"):  # of Sphinx's search
        (static / name).unlink(missing_ok=True)


def setup(app: Sphinx) -> None:
    """Put our search in the place of Sphinx's."""
    app.connect("builder-inited", lambda app: setattr(app.builder, "search", False))
    app.connect("html-collect-pages", lambda app: [("search", {}, "search.html")])
    app.connect("build-finished", write_index)
    app.add_js_file("search.js", loading_method="defer")
