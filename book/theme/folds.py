"""Folded answers as the browser's own ``<details>``: they open by keyboard, without a script, and in print.

A ``dropdown`` admonition becomes one. Jupyter Book would fold it with a script and a button without a visible focus.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator


class fold(nodes.General, nodes.Element):  # noqa: N801  (docutils names its nodes so)
    """What is folded away."""


class fold_title(nodes.General, nodes.TextElement):  # noqa: N801
    """The line that stays."""


class FoldAdmonitions(SphinxPostTransform):
    """Turns each admonition with the class ``dropdown`` into a fold."""

    default_priority = 6

    def run(self, **kwargs: object) -> None:
        """Change the document in place."""
        for admonition in list(self.document.findall(nodes.Admonition)):
            classes = admonition.get("classes", [])
            if "dropdown" not in classes or not isinstance(admonition.children[0], nodes.title):
                continue
            title, *body = admonition.children
            kept = [name for name in classes if name not in ("dropdown", "toggle")]
            folded = fold(ids=admonition["ids"], classes=["admonition", "gp-fold", *kept])
            folded += fold_title("", "", *title.children, classes=["admonition-title"])
            folded += body
            admonition.parent.replace(admonition, folded)  # replace_self would hand the old classes on


def setup(app: Sphinx) -> None:
    """Register the nodes and the transform."""

    def visitor(tag: str) -> tuple:
        def visit(self: HTML5Translator, node: nodes.Element) -> None:
            self.body.append(self.starttag(node, tag, ""))

        def depart(self: HTML5Translator, node: nodes.Element) -> None:
            self.body.append(f"</{tag}>\n")

        return visit, depart

    app.add_node(fold, html=visitor("details"))
    app.add_node(fold_title, html=visitor("summary"))
    app.add_post_transform(FoldAdmonitions)
