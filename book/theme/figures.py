"""Figures of the rendered book: alternative text, size, caption, and no image without a description.

``gpbook_utils.plots.show`` stores a figure as two outputs: the image, with ``alt`` and ``width`` in its metadata,
and a caption in Markdown. On the page the two become one ``<figure>``. An explorer (``gpbook_utils.explorer``) is such
a figure with a second form in HTML, which a page prefers.
"""

import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from docutils import nodes
from myst_nb.core.render import MimeData, MimeRenderPlugin, NbElementRenderer
from PIL import Image
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

log = logging.getLogger(__name__)

CLAIM_TYPE = "application/vnd.gpbook.claim+json"
EXPLORER = 'class="gp-explorer"'
FEWEST_WORDS = 3


class FigureRenderer(MimeRenderPlugin):
    """Renders a stored png whose output metadata describes it; leaves every other output to MyST-NB.

    A claim's machine-readable form is left off the page: the verdict card beside it says the same in words.
    """

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> None | list[nodes.Element]:
        """Return a figure node, nothing for a claim's record, or None for an output that is not ours."""
        if data.mime_type == CLAIM_TYPE:
            return []
        described = data.output_metadata.get("image/png", {})
        if inline or not described.get("alt"):
            return None
        name = f"figure-{data.cell_index}-{data.output_index}"
        if data.mime_type == "text/html" and EXPLORER in data.string:
            return [nodes.figure("", *renderer.render_text_html(data), ids=[name + "-live"], classes=["gp-figure"])]
        if data.mime_type != "image/png":
            return None
        # MyST-NB writes the file and takes the width (in CSS pixels) from the same metadata.
        images = renderer.render_image(data)
        images[0]["alt"] = described["alt"]
        return [nodes.figure("", *images, ids=[name], classes=["gp-figure"])]


class JoinCaptions(SphinxTransform):
    """Moves the Markdown output that follows a figure into the figure, as its caption; into each form that it has."""

    default_priority = 400  # while the page is read: Sphinx then numbers the figure, since it has a caption

    def apply(self, **kwargs: object) -> None:
        """Change the document in place."""
        found = [figure for figure in self.document.findall(nodes.figure) if "gp-figure" in figure["classes"]]
        for output in dict.fromkeys(figure.parent.parent for figure in found):
            forms_of_it = [figure for figure in found if figure.parent.parent is output]
            live = [figure for figure in forms_of_it if figure["ids"][0].endswith("-live")]
            follower = output.next_node(siblings=True, descend=False)
            forms = follower.children if follower else []
            caption = next((form for form in forms if form.get("mime_type") == "text/markdown"), None)
            if caption is None:
                continue
            follower.parent.remove(follower)
            for figure in live or forms_of_it:  # only what is shown, so that an explorer counts once
                first, *rest = [child.deepcopy() for child in caption.children]
                figure += nodes.caption(first.rawsource, "", *first.children)
                if rest:
                    figure += nodes.legend("", *rest)


def problem_with_alt(alt: str | None, uri: str = "") -> str | None:
    """What is wrong with an image's alternative text, or None.

    >>> problem_with_alt("Two curves that part at 800 points.")
    >>> problem_with_alt("plot.png")
    'names a file'
    """
    alt = (alt or "").strip()
    if not alt:
        return "is missing"
    if alt == uri or re.fullmatch(r"\S+\.(png|jpe?g|svg|gif|webp)", alt, re.IGNORECASE):
        return "names a file"
    if len(alt.split()) < FEWEST_WORDS:
        return f"has fewer than {FEWEST_WORDS} words"
    return None


class ImageTags(HTMLParser):
    """Collects the attributes of the ``<img>`` tags in a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an image's attributes."""
        if tag == "img":
            self.found.append(dict(attrs))


def require_alternative_text(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Warn about each image on a page that does not say what it shows; the strict build stops on it."""
    images = [(node, node.get("alt"), node["uri"]) for node in doctree.findall(nodes.image)]
    for node in doctree.findall(nodes.raw):
        if "html" in node.get("format", ""):
            images += [(node, tag.get("alt"), tag.get("src") or "") for tag in ImageTags(node.astext()).found]
    for node, alt, uri in images:
        if problem := problem_with_alt(alt, uri):
            name = PurePosixPath(urlparse(uri).path).name[:40]
            log.warning("the alternative text of image %s %s", name, problem, location=node, type="gpbook")


def place_images(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Give each image its size, so that nothing below moves when it comes, and a box in which a phone pans it.

    Scaled to a phone's width, the text in a figure would be too small to read.
    """
    files = {name: path for path, name in getattr(app.builder, "images", {}).items()}

    def place(tag: re.Match) -> str:
        (image,) = ImageTags(tag[0]).found
        source, style = image.get("src") or "", image.get("style") or ""
        packed = source.startswith("data:")
        try:
            name = unquote(PurePosixPath(source).name)
            with Image.open(
                io.BytesIO(b64decode(source.partition(",")[2])) if packed else Path(app.srcdir, files[name])
            ) as picture:
                width, height = picture.size
        except (KeyError, OSError, ValueError):
            log.warning("the size of image %s is unknown", source[:40], location=pagename, type="gpbook")
            return tag[0]
        shown = int(found[1]) if (found := re.search(r"(?:^|[; ])width: (\d+)px", style)) else width
        sized = f'<img width="{shown}" height="{round(height * shown / width)}"{tag[0].removeprefix("<img")}'
        return sized if packed else f'<span class="gp-pan">{sized}</span>'

    context["body"] = re.sub(r"<img\b[^>]*>", place, context.get("body", ""))


def setup(app: Sphinx) -> None:
    """Register the caption transform, the sizes and the rule."""
    app.add_transform(JoinCaptions)
    app.connect("html-page-context", place_images)
    app.connect("doctree-resolved", require_alternative_text)
