"""The Sphinx extension that makes the rendered book work offline, readable and honest about its figures.

What it adds to Jupyter Book:

- maths as MathML, written at build time (:mod:`book.theme.mathml`);
- figures with their alternative text, width and caption, and a rule that no image goes without
  (:mod:`book.theme.figures`);
- folded answers that need no script (:mod:`book.theme.folds`);
- a search that leads to sections, also without a server (:mod:`book.theme.search`);
- a page for each assignment, made from the student's notebook, and its download (:mod:`book.theme.handouts`);
- one style sheet, one short script, the maths font and an icon, all served from the book itself;
- links to the repository, but only where ``GPBOOK_REPOSITORY`` names one.

What it takes away: scripts that would load a library from another host, that do what the browser does by itself,
or that redraw icons with 1.5 MB.
"""

import hashlib
import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

from book.theme import evidence, figures, folds, handouts, mathml, search

STATIC = Path(__file__).parent / "static"
# Extensions that Jupyter Book always loads: live code from another host, and folds that need a script.
REPLACED = ("sphinx_thebe", "sphinx_togglebutton")


def repository_options(url: str) -> dict[str, object]:
    """Theme options that link each page to its source and to the issue tracker.

    Args:
        url: address of the repository, ``https://host/owner/name``; empty for a book without such links.

    Raises:
        ConfigError: if the address has another form.
    """
    if not url:
        return {}
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", url):
        raise ConfigError(f"GPBOOK_REPOSITORY is {url!r}; it needs the form https://host/owner/name, or to be unset")
    return {
        "repository_url": url,
        "repository_provider": next((name for name in ("gitlab", "bitbucket") if name in url), "github"),
        "repository_branch": os.environ.get("GPBOOK_BRANCH", "main"),
        "use_repository_button": True,
        "use_issues_button": True,
    }


def configure(app: Sphinx, config: Config) -> None:
    """Serve our files, link the repository if there is one, and leave out live code."""
    config.html_static_path.append(str(STATIC))
    config.html_theme_options.update(repository_options(os.environ.get("GPBOOK_REPOSITORY", "").rstrip("/")))
    for module in REPLACED:
        detach(app, module)


def digest() -> str:
    """Hash of this package's files, so that a change of a style or a rule builds every page again."""
    files = sorted(path for path in STATIC.parent.rglob("*.*") if path.suffix in {".py", ".css", ".js", ".html"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def detach(app: Sphinx, module: str) -> None:
    """Unhook a loaded extension, so that it adds nothing to any page."""
    for listeners in app.events.listeners.values():
        listeners[:] = [item for item in listeners if item.handler.__module__ != module]
    name = module.removeprefix("sphinx_")
    for assets in (app.registry.css_files, app.registry.js_files):
        assets[:] = [asset for asset in assets if name not in (asset[0] or "")]


def drop_repeated_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Keep each script of a page once: Jupyter Book's extensions register some of them twice."""
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        key = str(script.filename or script.attributes.get("body"))
        if key not in seen:
            seen.add(key)
            kept.append(script)
    context["script_files"] = kept


def name_roles(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Call the entries of a bibliography what a list has to hold; the role Sphinx gives them is deprecated."""
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, object]:
    """Register everything with Sphinx."""
    app.add_config_value("book_theme_digest", digest(), "env")
    app.connect("config-inited", configure)
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("html-page-context", name_roles)
    app.add_css_file("book.css", priority=900)
    app.add_js_file("book.js", loading_method="defer")
    evidence.setup(app)
    mathml.setup(app)
    figures.setup(app)
    folds.setup(app)
    handouts.setup(app)
    search.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
