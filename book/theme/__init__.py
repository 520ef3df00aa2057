"""The Sphinx extension that makes the rendered book work offline, readable and honest about its figures.

What it adds to Jupyter Book:

- maths as MathML, written at build time (:mod:`book.theme.mathml`);
- figures with their alternative text, width and caption, and a rule that no image goes without
  (:mod:`book.theme.figures`);
- folded answers that need no script (:mod:`book.theme.folds`);
- a search that leads to sections, also without a server (:mod:`book.theme.search`);
- links to the glossary, and what a term or a reading is in the link's title (:mod:`book.theme.notes`);
- a page for each assignment, made from the student's notebook, and its download (:mod:`book.theme.handouts`);
- one style sheet, one short script, the maths font and an icon, all served from the book itself;
- of the theme's styles and icons, those that the book uses (:mod:`book.theme.lighten`);
- a hint in each downloaded chapter where the package is missing (:mod:`book.theme.downloads`);
- a description and a card for each page, and a page for an address that is none (:mod:`book.theme.share`);
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

from book.theme import downloads, evidence, figures, folds, handouts, lighten, mathml, notes, search, share

STATIC, TEMPLATES = (Path(__file__).parent / name for name in ("static", "templates"))
# Extensions that Jupyter Book always loads: live code from another host, and folds that need a script.
REPLACED = ("sphinx_thebe", "sphinx_togglebutton")


def repository_options(url: str) -> dict[str, object]:
    """Theme options that link each page to its source and to the issue tracker, and each chapter to where it runs.

    Args:
        url: address of the repository, ``https://host/owner/name``; empty for a book without such links.

    Raises:
        ConfigError: if the address has another form.
    """
    if not url:
        return {}
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", url):
        raise ConfigError(f"GPBOOK_REPOSITORY is {url!r}; it needs the form https://host/owner/name, or to be unset")
    provider = next((name for name in ("gitlab", "bitbucket") if name in url), "github")
    launch = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
    return {
        "repository_url": url,
        "repository_provider": provider,
        "repository_branch": os.environ.get("GPBOOK_BRANCH", "main"),
        "use_repository_button": True,
        "use_issues_button": True,
        "use_source_button": True,
        # Services that open a notebook of a repository on GitHub.
        "launch_buttons": launch if url.startswith("https://github.com/") else {},
    }


def configure(app: Sphinx, config: Config) -> None:
    """Serve our files, link the repository if there is one, and leave out live code."""
    config.html_static_path.append(str(STATIC))
    config.templates_path.insert(0, str(TEMPLATES))  # before those that the theme adds
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


def drop_idle_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Keep each script of a page once, as extensions register some twice, and none that has nothing to do there."""
    seen = set() if "sd-tab-" in context.get("body", "") else {"_static/design-tabs.js"}
    kept = []
    for script in context.get("script_files", []):
        key = str(script.filename or script.attributes.get("body"))
        if key not in seen and not key.startswith("let toggle"):  # of the folds that are replaced
            seen.add(key)
            kept.append(script)
    context["script_files"] = kept


def mend_body(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Say to screen readers what the eye sees, where Sphinx and MyST-NB say something else."""
    body = context.get("body", "")
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')  # a deprecated role; a list has to hold items
    body = body.replace(' aria-label="Toggle hidden content"', "")  # it would hide the line that is read
    context["body"] = re.sub(r"<th\b[^>]*>(?:\s|<p>\s*</p>)*</th>", "<td></td>", body)  # an empty header names nothing


def setup(app: Sphinx) -> dict[str, object]:
    """Register everything with Sphinx."""
    app.add_config_value("book_theme_digest", digest(), "env")
    app.connect("config-inited", configure)
    app.connect("html-page-context", drop_idle_scripts, priority=900)
    app.connect("html-page-context", mend_body)
    app.add_css_file("book.css", priority=900)
    app.add_js_file("book.js", loading_method="defer")
    downloads.setup(app)
    evidence.setup(app)
    mathml.setup(app)
    figures.setup(app)
    folds.setup(app)
    handouts.setup(app)
    lighten.setup(app)
    notes.setup(app)
    search.setup(app)
    share.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
