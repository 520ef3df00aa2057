"""Checked prose on the page: a claimed sentence, a small button behind it, and the evidence that the button opens.

In Markdown a claimed sentence is a link to ``#claim-id`` (:mod:`book.prose`). Here the link becomes plain text and a
native popover button, which needs no script; in print the mark is a number, and the evidence stands at the end of the
chapter.
A claim that no cell decides is a warning, which stops the strict build.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from book import stored_claims
from book.theme.folds import fold, fold_title
from gpbook_utils.claims import CHECK, HOLDS, REFUTED, UNOBSERVABLE, digest

log = logging.getLogger(__name__)
MARKS = {HOLDS: "✓", REFUTED: "✗", UNOBSERVABLE: "○"}
PREFIX = "claim-"


class claimed(nodes.General, nodes.Inline, nodes.TextElement):  # noqa: N801  (docutils names its nodes so)
    """Words that a cell decides."""


class mark(nodes.General, nodes.Inline, nodes.TextElement):  # noqa: N801
    """The last of these words, with the button behind it."""


class FindSentences(SphinxTransform):
    """Turns each link to a claim into claimed words, and keeps what the page's notebook has decided."""

    default_priority = 870  # before MyST resolves targets within the page, which would not find these

    def apply(self, **kwargs: object) -> None:
        """Change the document in place."""
        name = self.env.docname
        decisions = decisions_of(self.env)
        path = Path(self.env.doc2path(name))
        if path.suffix == ".ipynb":
            stored = stored_claims.from_notebook(json.loads(path.read_text(encoding="utf-8")), path.stem)
            decisions.update({claim["id"]: {**claim, "page": name} for claim in stored})
            for record in recorded(self.env):
                self.env.note_dependency(str(record))
        for link in list(self.document.findall(nodes.reference)):
            uri = link.get("refuri", "")
            if link.get("id_link") and uri.startswith(f"#{PREFIX}"):
                self._replace(link, uri[1:])
        for link in list(self.document.findall(addnodes.pending_xref)):
            if (link.get("reftargetid") or "").startswith(PREFIX):
                # Another notebook decides it: this page is built anew when that one changes.
                self.env.note_dependency(self.env.doc2path(link["reftarget"]))
                self._replace(link, link["reftargetid"])

    @staticmethod
    def _replace(link: nodes.Element, target: str) -> None:
        words = [child for child in link.children if child.astext()]
        if len(words) == 1 and isinstance(words[0], nodes.inline):  # MyST's wrapper of a cross-reference's text
            words = words[0].children
        link.replace_self(claimed("", "", *words, claim=target.removeprefix(PREFIX)))


class FoldDecisions(SphinxTransform):
    """Folds each cell that decides under a line that names what it decides; in JupyterLab it stays open."""

    default_priority = 401

    def apply(self, **kwargs: object) -> None:
        """Change the document in place."""
        for cell in [n for n in self.document.findall(nodes.container) if n.get("nb_element") == "cell_code"]:
            if "tag_hide-cell" in cell["classes"]:  # a solution, which is folded under its own name
                continue
            shown = "".join(raw.astext() for raw in cell.findall(nodes.raw) if "html" in raw["format"])
            if ids := re.findall(rf'class="gp-decision"[^>]* id="{PREFIX}([\w-]+)"', shown):
                folded = fold(classes=["gp-fold", "gp-deciding"])
                folded += fold_title("", f"How this is decided: {', '.join(ids)}")
                cell.replace_self(folded)
                folded += cell


class ShowEvidence(SphinxPostTransform):
    """Numbers the claimed words of a page and appends the evidence, once a claim."""

    default_priority = 5
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        """Change the document in place."""
        number: dict[str, int] = {}
        decisions = decisions_of(self.env)
        for place in list(self.document.findall(claimed)):
            id = place["claim"]
            if id not in decisions:
                log.warning("no cell decides the claim %r", id, location=place, type="gpbook")
                place.replace_self(place.children)
                continue
            place["number"] = number.setdefault(id, len(number) + 1)
            place["verdict"] = decisions[id]["verdict"]
            keep_together(place)
        here = [c for c in decisions.values() if c["page"] == self.env.docname and "kind" in c]
        if not number and not here:
            return
        records = [json.loads(path.read_text(encoding="utf-8")) for path in recorded(self.env)]
        link = {c["id"]: self._address(c) for c in decisions.values()}
        popovers = "".join(popover(decisions[id], link[id], records) for id in number)
        findings = sorted((c for c in here if c["kind"] != CHECK), key=lambda c: number.get(c["id"], 0))
        checks = [c for c in here if c["kind"] == CHECK]
        elsewhere = [decisions[id] for id in number if decisions[id] not in here]
        block = notes([*findings, *elsewhere], checks, number, records) + popovers
        section = next(iter(self.document.findall(nodes.section)), self.document)
        section += nodes.raw("", block, format="html")

    def _address(self, claim: dict) -> str:
        page = claim["page"]
        target = "" if page == self.env.docname else self.app.builder.get_relative_uri(self.env.docname, page)
        return f"{target}#{PREFIX}{claim['id']}"


def keep_together(place: nodes.Element) -> None:
    """Put the last word of the claimed words into a node of its own, which does not part from its mark."""
    last = place.children[-1]
    if isinstance(last, nodes.Text):
        head, space, tail = last.astext().rpartition(" ")
        place.replace(last, nodes.Text(head + space))
        last = nodes.Text(tail)
    else:
        place.remove(last)
    place += mark("", "", last, **{key: place[key] for key in ("claim", "number", "verdict")})


def decisions_of(env: BuildEnvironment) -> dict[str, dict]:
    """What the notebooks of the book have decided, by id; kept between builds."""
    if not hasattr(env, "gpbook_decisions"):
        env.gpbook_decisions = {}
    return env.gpbook_decisions


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what a page has decided; Sphinx calls this before it reads the page again."""
    decisions = decisions_of(env)
    for id in [id for id, claim in decisions.items() if claim["page"] == docname]:
        del decisions[id]


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    """Take over what a process that read some of the pages has found."""
    decisions_of(env).update({id: claim for id, claim in decisions_of(other).items() if claim["page"] in docnames})


def recorded(env: BuildEnvironment) -> list[Path]:
    """The records of machines; a page that shows their span is built anew when one comes."""
    return sorted((Path(env.srcdir) / "records").glob("*.json"))


def span(claim: dict, records: list[dict]) -> str:
    """What the recorded machines say of a claim: how many hold, and from where to where they measured.

    >>> claim = {"id": "a", "kind": "finding", "bound": "below 1"}
    >>> entry = {"verdict": "holds", "digest": digest(claim)}
    >>> records = [{"claims": {"a": entry | {"measured": measured}}} for measured in ("0.25", "0.5")]
    >>> span(claim, records)
    '2 of 2 recorded machines, 0.25 to 0.5'
    >>> span(claim, [])
    ''
    """
    entries = [record["claims"].get(claim["id"]) for record in records]
    entries = [entry for entry in entries if entry and entry["digest"] == digest(claim)]
    if not entries:
        return ""
    text = f"{sum(entry['verdict'] == HOLDS for entry in entries)} of {len(entries)} recorded machines"
    numbers = sorted({entry["measured"] for entry in entries if entry["measured"]}, key=float)
    return f"{text}, {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else text


def rows(claim: dict, records: list[dict]) -> str:
    """The evidence as the body of a description list."""
    found = [
        ("measured here", claim["measured"]),
        ("bound", claim["bound"]),
        ("why", claim.get("reason", "")),
        ("holds on", span(claim, records)),
    ]
    return "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in found if text)


def popover(claim: dict, address: str, records: list[dict]) -> str:
    """The evidence that a mark opens."""
    id, verdict = claim["id"], claim["verdict"]
    return (
        f'<div popover class="gp-evidence" id="evidence-{id}" role="dialog" aria-label="Evidence: {id}" '
        f'data-verdict="{verdict}"><strong class="gp-verdict">{MARKS[verdict]} {verdict}</strong> <code>{id}</code>'
        f'<dl>{rows(claim, records)}</dl><a href="{address}">The deciding cell</a></div>'
    )


def notes(findings: list[dict], checks: list[dict], number: dict[str, int], records: list[dict]) -> str:
    """A folded list of the chapter's claims; in print the numbered notes."""

    def item(claim: dict) -> str:
        at, verdict = number.get(claim["id"]), claim["verdict"]
        return (
            f'<li{f" value={at!r}" if at else ""} data-verdict="{verdict}">{html.escape(claim["sentence"])} '
            f'<strong class="gp-verdict">{MARKS[verdict]} {verdict}</strong><dl>{rows(claim, records)}</dl></li>'
        )

    count = f"{len(findings)} finding{'s' * (len(findings) != 1)}"
    listed = f'<ol class="gp-notes">{"".join(map(item, findings))}</ol>'
    if checks:
        count += f" and {len(checks)} check{'s' * (len(checks) != 1)}"
        listed += (
            "<p>Checks hold the argument together; the text needs no sentence for them.</p>"
            f'<ul class="gp-notes">{"".join(map(item, checks))}</ul>'
        )
    return f"<details><summary>What this page claims: {count}</summary>{listed}</details>"


def visit(self: HTML5Translator, node: claimed) -> None:
    """Open the claimed words."""
    self.body.append('<span class="gp-claimed">')


def depart(self: HTML5Translator, node: claimed) -> None:
    """Close them."""
    self.body.append("</span>")


def visit_mark(self: HTML5Translator, node: mark) -> None:
    """Open the last word and its mark, which stay on one line."""
    self.body.append('<span class="gp-tail">')


def depart_mark(self: HTML5Translator, node: mark) -> None:
    """Write the button, and the number that stands for it in print."""
    verdict, number = node["verdict"], node["number"]
    self.body.append(
        f'<button type="button" class="gp-mark" popovertarget="evidence-{node["claim"]}" data-verdict="{verdict}" '
        f'aria-label="{verdict}; evidence {number}"><span aria-hidden="true">{MARKS[verdict]}</span></button>'
        f'<sup class="gp-note">{number}</sup></span>'
    )


def skip(self: object, node: nodes.Element) -> None:
    """In other formats the words are enough."""


def setup(app: Sphinx) -> None:
    """Register the node and both transforms."""
    app.add_node(claimed, html=(visit, depart), latex=(skip, skip), text=(skip, skip))
    app.add_node(mark, html=(visit_mark, depart_mark), latex=(skip, skip), text=(skip, skip))
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.add_transform(FindSentences)
    app.add_transform(FoldDecisions)
    app.add_post_transform(ShowEvidence)
