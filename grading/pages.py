"""Pages that show what a student handed in: nothing on them runs, and nothing on them asks another host.

Everything that becomes HTML is cleaned after it was rendered, by nh3, with a short list of what may stay. Formulas
become MathML here, so a page of feedback has no script at all, and its policy tells the browser so.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import nh3
from jinja2 import BaseLoader, pass_context
from math_core import LatexError, LatexToMathML
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets import Bool

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
DEEPEST = 100  # elements in one another; what draws them recurses
LONGEST = 20_000  # characters of words that are rendered; a page of a book has three thousand

_PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
_ADDRESS = re.compile(r"(https?://|mailto:|#)\S*", re.IGNORECASE)
_TEXT = "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img "
_TEXT += "ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
_MATHS = "math merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt "
_MATHS += "mstyle msub msubsup msup mtable mtd mtext mtr munder munderover"
_TAGS = set(_TEXT.split()) | set(_MATHS.split())
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
    "math": {"display"},
    "mi": {"mathvariant"},
    "mo": {"form", "stretchy", "lspace", "rspace"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mspace": {"width"},
    "mtable": {"displaystyle", "scriptlevel"},
    "mtd": {"style"},
}
_formulas = LatexToMathML(fancy_error=False)


def clean(text: str) -> str:
    """HTML from a student with nothing left in it that runs, asks a host, or looks like a part of the page.

    >>> clean('<img src="http://outside/x.png" onerror="alert(1)"><b class="score">sum</b>')
    '<img><b>sum</b>'
    >>> clean('<a href="javascript:alert(1)">proof</a>')
    '<a rel="noopener noreferrer">proof</a>'
    """
    text = _encodable(text)
    cleaned = nh3.clean(
        text,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_harmless,
        url_schemes={"http", "https", "mailto", "data"},
        filter_style_properties={"text-align", "justify-items", "padding-left", "padding-right"},
    )
    return cleaned if _depth(cleaned) <= DEEPEST else plain(text)


def plain(text: str) -> str:
    """A text as it was written."""
    return f"<pre>{html.escape(_encodable(text))}</pre>"


def words(text: str) -> str:
    r"""Markdown as HTML, cleaned; formulas as MathML.

    >>> words("[proof](javascript:alert(1)) of $x^2$")
    '<p><a rel="noopener noreferrer">proof</a> of <math><msup><mi>x</mi><mn>2</mn></msup></math></p>\n'
    """
    if len(text) > LONGEST:
        return plain(text)
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return clean(MarkdownWithMath(renderer=renderer).render(_encodable(text)))


def formula(latex: str, *, display: bool) -> str:
    """A formula as MathML, or as it was written if it can't be read."""
    try:
        return _formulas.convert_with_local_state(latex.strip(), displaystyle=display)
    except LatexError:
        return f"<code>{html.escape(latex)}</code>"


class Page(HTMLExporter):
    """Writes nbgrader's pages, feedback and the one on which a person marks, with what the student gave cleaned."""

    sanitize_html = Bool(True)
    # How the text of a template is changed when it is read: before anything of a student's is in it.
    change: Callable[[str], str] = staticmethod(
        lambda text: text.replace("{{ mathjax() }}", f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">')
    )

    def default_filters(self):
        """nbconvert's, with those that make HTML of what a student gave replaced."""
        yield from super().default_filters()
        yield "markdown2html", pass_context(lambda context, text: words(text))
        yield "clean_html", clean

    def _create_environment(self):
        environment = super()._create_environment()
        environment.loader = Changed(environment.loader, self.change)
        return environment


class Changed(BaseLoader):
    """Jinja's templates from ``loader``, their texts changed by ``change``."""

    def __init__(self, loader, change):
        self.loader = loader
        self.change = change

    def get_source(self, environment, template):
        """The template's text, its file, and whether it is up to date."""
        text, *rest = self.loader.get_source(environment, template)
        return self.change(text), *rest


class _Renderer(IPythonRenderer):
    """Markdown as nbconvert reads it, with MathML and without attachments, of which nothing is kept."""

    def block_math(self, body):
        return formula(body, display=True)

    def inline_math(self, body):
        return formula(body, display=False)

    def latex_environment(self, name, body):
        name = {"align": "aligned", "gather": "gathered"}.get(name.rstrip("*"), name)
        return formula(body if name.startswith("equation") else f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def _embed_image_or_attachment(self, src):
        return src


def _harmless(tag: str, attribute: str, value: str) -> str | None:
    rule = {"src": _PICTURE, "href": _ADDRESS}.get(attribute)
    return value if rule is None or rule.fullmatch(value) else None


def _depth(cleaned: str) -> int:
    """How many elements of cleaned HTML, which closes what it opens, stand in one another."""
    depth = deepest = 0
    for closing, name in re.findall(r"<(/?)([a-z0-9]+)", cleaned):
        if name not in ("br", "hr", "img", "col"):
            depth += -1 if closing else 1
            deepest = max(deepest, depth)
    return deepest


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
