"""What a term or a reading means, said where it stands: each is a link, and its title, shown on hover, is the note.

The first time the prose of a chapter uses a term of the glossary, the word becomes a link. Words that everyday English
uses too are left to the author, who writes ``{term}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY, BIBLIOGRAPHY = "chapters/glossary", "chapters/bibliography"
EVERYDAY = {"claim", "control", "gap", "interaction", "intervention", "probe", "sabotage"}
# Text in these is no prose, or is a link already.
ELSEWHERE = (nodes.reference, nodes.title, nodes.literal, nodes.math, nodes.caption, nodes.raw, addnodes.pending_xref)


class LinkNotes(SphinxPostTransform):
    """Links the first use of each term, and gives links to terms and readings their notes."""

    default_priority = 20  # after Sphinx has resolved the references that authors wrote
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        """Change the document in place."""
        if self.env.docname in (GLOSSARY, BIBLIOGRAPHY) or not {GLOSSARY, BIBLIOGRAPHY} <= self.env.found_docs:
            return
        terms = dict(_terms(self.env))
        if self.env.doc2path(self.env.docname).endswith(".ipynb"):
            self._link({name: id for id, (name, _) in terms.items() if name not in EVERYDAY})
        targets = {(GLOSSARY, id): note for id, (_, note) in terms.items()}
        targets |= {(BIBLIOGRAPHY, id): note for id, note in _readings(self.env)}
        pages = {self.app.builder.get_relative_uri(self.env.docname, page): page for page in (GLOSSARY, BIBLIOGRAPHY)}
        for link in self.document.findall(nodes.reference):
            uri, _, anchor = link.get("refuri", "").partition("#")
            if note := targets.get((pages.get(uri), anchor)):
                link["reftitle"] = note

    def _link(self, ids: dict[str, str]) -> None:
        """Turn the first use of each term into a link."""
        left = {name.lower(): name for name in ids}
        glossary = self.app.builder.get_relative_uri(self.env.docname, GLOSSARY)
        for text in [text for text in self.document.findall(nodes.Text) if _is_prose(text)]:
            parts, rest = [], text.astext()
            while left and (found := _pattern(left.values()).search(rest)):
                id = ids[left.pop(found[1].lower())]
                parts += [nodes.Text(rest[: found.start()])]
                parts += [nodes.reference("", found[0], refuri=f"{glossary}#{id}", internal=True, classes=["gp-term"])]
                rest = rest[found.end() :]
            if parts:
                text.parent.replace(text, [*parts, nodes.Text(rest)])


def _terms(env: BuildEnvironment) -> Iterator[tuple[str, tuple[str, str]]]:
    """The anchor of each term, with the term and its note."""
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            note = next(iter(item.findall(nodes.definition))).astext()
            yield term["ids"][0], (term.astext(), " ".join(note.split()))


def _readings(env: BuildEnvironment) -> Iterator[tuple[str, str]]:
    """The anchor of each reading, with its entry."""
    for entry in env.get_doctree(BIBLIOGRAPHY).findall(nodes.citation):
        note = " ".join(next(iter(entry.findall(nodes.paragraph))).astext().split())
        yield from ((id, note) for id in entry["ids"])


def _is_prose(text: nodes.Text) -> bool:
    """Whether text stands in a paragraph, and in nothing that is no prose or a link."""
    node, inside = text.parent, False
    while node is not None:
        if isinstance(node, ELSEWHERE):
            return False
        inside = inside or isinstance(node, nodes.paragraph)
        node = node.parent
    return inside


def _pattern(names: Iterable[str]) -> re.Pattern:
    """One of these terms, the longest that fits, or its plural; an abbreviation only as it is written."""
    written = (re.escape(name) for name in sorted(names, key=len, reverse=True))
    terms = "|".join(name if name.isupper() else f"(?i:{name})" for name in written)
    return re.compile(rf"\b({terms})(?:e?s)?\b")


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> set[str]:
    """All pages, when the notes have changed."""
    return env.found_docs if {GLOSSARY, BIBLIOGRAPHY} & changed else set()


def setup(app: Sphinx) -> None:
    """Register the transform."""
    app.add_post_transform(LinkNotes)
    app.connect("env-get-outdated", outdated)
