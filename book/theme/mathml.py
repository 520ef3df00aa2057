r"""Maths as MathML, written while the book is built.

The browser then needs no script and no other host to show a formula, and a screen reader gets its structure.
A formula that the converter does not understand stops the strict build, with the page and line.
"""

import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

log = logging.getLogger(__name__)
converter = LatexToMathML(fancy_error=False)


def to_mathml(latex: str, *, display: bool) -> str:
    r"""Return the MathML of a formula.

    The book numbers its equations itself, so environments that would number their rows become their plain
    counterparts, and rows without an environment are aligned.

    Raises:
        LatexError: if the formula cannot be converted.

    >>> to_mathml("x^2", display=False)
    '<math><msup><mi>x</mi><mn>2</mn></msup></math>'
    """
    latex = latex.strip()
    latex = re.sub(r"\\(begin|end)\{align\*?\}", r"\\\1{aligned}", latex)
    latex = re.sub(r"\\(begin|end)\{gather\*?\}", r"\\\1{gathered}", latex)
    latex = re.sub(r"\\(begin|end)\{equation\*?\}", "", latex)
    if display and has_loose_rows(latex):
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    return converter.convert_with_local_state(latex, displaystyle=display)


def has_loose_rows(latex: str) -> bool:
    r"""Whether a row break stands outside every environment.

    >>> has_loose_rows(r"a &= b \\ c &= d"), has_loose_rows(r"\begin{cases} a \\ b \end{cases}")
    (True, False)
    """
    depth = 0
    for token in re.findall(r"\\begin\b|\\end\b|\\\\", latex):
        depth += {r"\begin": 1, r"\end": -1}.get(token, 0)
        if token == r"\\" and depth == 0:
            return True
    return False


def convert(node: nodes.Element, *, display: bool) -> str:
    """Convert a maths node; a failure becomes a warning at the node's place, an error in the strict build."""
    try:
        return to_mathml(node.astext(), display=display)
    except LatexError as error:
        log.warning("cannot convert the formula %r to MathML: %s", node.astext(), error, location=node, type="gpbook")
        return f"<code>{nodes.unescape(node.astext())}</code>"


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in running text."""
    self.body.append(convert(node, display=False))
    raise nodes.SkipNode


def visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on its own line, with its number if it has one."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    self.body.append(f'<div class="gp-formula">{convert(node, display=True)}</div>')
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Offer the renderer to Sphinx under the name that ``_config.yml`` asks for."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
