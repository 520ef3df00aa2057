"""Sentences that stand in prose and are decided by cells: read from Markdown with the page's own parser.

A claimed sentence is the text of a link, ``[A model of 801 points gives two likelihoods](#claim-n801-differs).`` A
bare ``#claim-id`` is the sentence itself, exactly once in the book; its title, if it has one, says in full what a
clause can't say alone. ``NN_name.ipynb#claim-id`` mentions a sentence that stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

CONFIG = Path(__file__).resolve().parents[1] / "_config.yml"
ANCHOR = "#claim-"


@dataclass(frozen=True)
class Mention:
    """A link to a claim.

    Attributes:
        id: of the claim.
        text: the linked words, as a reader sees them; maths stands between dollars.
        title: of the link; the whole sentence where the words are a clause.
        file: the notebook that decides the claim; empty for the sentence itself.
        line: of the Markdown, from 1.
        heading: whether the link stands in a heading, where it may not.
    """

    id: str
    text: str
    title: str
    file: str
    line: int
    heading: bool = False

    @property
    def sentence(self) -> str:
        """What the ledger says: the title, or the linked words with a capital and a full stop.

        >>> Mention("a", "at 800 it gives one", "", "", 1).sentence
        'At 800 it gives one.'
        """
        said = self.title or self.text
        return said[:1].upper() + said[1:] + ("" if said.endswith((".", "?", "!")) else ".")


def mentions(markdown: str) -> list[Mention]:
    r"""The links to claims in a Markdown text, in order.

    >>> [(m.id, m.text, m.file) for m in mentions("See [one\nlikelihood $p$](#claim-a) and [it](01_x.ipynb#claim-b).")]
    [('a', 'one likelihood $p$', ''), ('b', 'it', '01_x.ipynb')]
    """
    found: list[Mention] = []
    inside = ""
    for token in parser().parse(markdown):
        if token.type == "heading_open":
            inside = "heading"
        elif token.type == "heading_close":
            inside = ""
        elif token.type == "inline":
            line = token.map[0] + 1 if token.map else 1
            found += _of_inline(token.children or [], line, bool(inside))
    return found


def _of_inline(tokens: list[Token], line: int, heading: bool) -> Iterator[Mention]:
    link, words = None, []
    for token in tokens:
        if token.type == "link_open":
            link, words = token, []
        elif token.type == "link_close" and link:
            file, anchor, id = str(link.attrGet("href")).partition(ANCHOR)
            if anchor:
                text = " ".join("".join(words).split())
                yield Mention(id, text, str(link.attrGet("title") or ""), file, line, heading)
            link = None
        elif link:
            words.append(_as_read(token))


def _as_read(token: Token) -> str:
    """What a token of running text shows."""
    if token.type == "math_inline":
        return f"${token.content}$"
    return " " if token.type in ("softbreak", "hardbreak") else token.content


@cache
def parser() -> MarkdownIt:
    """The parser of the rendered page: MyST with the extensions that ``_config.yml`` names."""
    extensions = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["parse"]["myst_enable_extensions"]
    return create_md_parser(MdParserConfig(enable_extensions=set(extensions)), RendererHTML)
