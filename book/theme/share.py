"""What others show of a page: its description, its card in a chat, and the page for an address that is none."""

import html
import os
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

LONGEST = 200  # characters of a description
PICTURE = "_images/readme-figure.png"


def describe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Add the tags from which search engines and chats make a page's card; a picture needs the book's address."""
    if doctree is None:
        return
    words = [" ".join(paragraph.astext().split()) for paragraph in doctree.findall(nodes.paragraph)]
    text = next((paragraph for paragraph in words if len(paragraph) > 60), app.config.html_title or "")
    if len(text) > LONGEST:
        text = text[:LONGEST].rpartition(" ")[0] + " …"
    title = html.unescape(re.sub("<[^>]*>", "", context.get("title", "")))
    tags = {"og:title": title, "og:description": text, "og:type": "article", "og:site_name": app.config.html_title}
    if address := app.config.html_baseurl:
        tags |= {"og:url": f"{address}{app.builder.get_target_uri(pagename)}", "og:image": f"{address}{PICTURE}"}
        tags |= {"twitter:card": "summary_large_image"}
    written = [f'<meta name="description" content="{html.escape(text)}" />']
    written += [f'<meta property="{name}" content="{html.escape(value)}" />' for name, value in tags.items()]
    context["metatags"] = context.get("metatags", "") + "\n".join(written)


def configure(app: Sphinx, config: Config) -> None:
    """Take the published book's address from ``GPBOOK_ADDRESS``, and add the page for an address that is none."""
    address = os.environ.get("GPBOOK_ADDRESS", "")
    if address and not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)*/", address):
        raise ConfigError(f"GPBOOK_ADDRESS is {address!r}; it needs the form https://host/path/, or to be unset")
    config.html_baseurl = config.html_context["gpbook_address"] = address
    config.html_additional_pages["404"] = "404.html"


def setup(app: Sphinx) -> None:
    """Register both."""
    app.connect("config-inited", configure)
    app.connect("html-page-context", describe)
