"""Assignments in the rendered book: a page each, an overview, and the zips that students download.

Title, goals, time and points are those of the student's notebook, read while the book is built, so a page can't say
anything else than what the student gets. ``{handout} NAME`` is one assignment, ``{handouts}`` the list of all.
"""

import html
import os
from pathlib import Path
from urllib.parse import quote, urlencode

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book import handouts

log = logging.getLogger(__name__)

# The repository itself holds the solutions. Services that open notebooks from it are sent to this branch, which
# holds what `python -m book.handouts --all` writes; the workflow publishes it with the book.
BRANCH = "handouts"
GENERATOR = "https://nbgitpuller.readthedocs.io/en/latest/link.html"


def service_links(name: str, repository: str, hub: str = "") -> dict[str, str]:
    """Addresses at which services open the student's notebook, by the name of the service.

    Args:
        name: the assignment.
        repository: ``https://host/owner/name``; without it no service can find the notebook.
        hub: address of a JupyterHub with nbgitpuller; without it the form that makes such links is named instead.
    """
    if not repository:
        return {}
    notebook = f"{name}/{name}.ipynb"
    on_github = repository.startswith("https://github.com/")
    path = repository.removeprefix("https://github.com/")
    source = f"gh/{path}" if on_github else f"git/{quote(repository, safe='')}"
    pull = {"repo": repository, "branch": BRANCH, "urlpath": f"lab/tree/{repository.rpartition('/')[2]}/{notebook}"}
    links = {
        "Binder": f"https://mybinder.org/v2/{source}/{BRANCH}?labpath={quote(notebook, safe='')}",
        "JupyterHub": (f"{hub}/hub/user-redirect/git-pull" if hub else GENERATOR) + "?" + urlencode(pull),
    }
    if on_github:
        links["Colab"] = f"https://colab.research.google.com/github/{path}/blob/{BRANCH}/{notebook}"
    return links


def link(words: str, address: str, more: str = "") -> str:
    """A link as HTML: of one in Markdown, MyST would escape the address twice."""
    return f'<a href="{html.escape(address)}"{more}>{words}</a>'


def how_to_get(name: str, repository: str, hub: str, to_top: str) -> str:
    """The part of a page that says where the notebook is, in Markdown; ``to_top`` leads to the book's top folder."""
    download = link(f"{name}.zip", f"{to_top}assignments/{name}.zip", " download")
    links = service_links(name, repository, hub)
    text = [
        "## Get the notebook",
        f"Download {download}. It holds the notebook, the package `gpbook_utils`, the requirements, and a README that "
        "says how to start and how to hand in.",
    ]
    if links:
        at_hub = "open it on the course's hub" if hub else "make a link for it"
        text += [
            f"- Binder needs no installation: {link('open it in Binder', links['Binder'])}, and download it before you "
            "leave, since Binder keeps nothing.",
            f"- A JupyterHub with nbgitpuller fetches it: {link(at_hub, links['JupyterHub'])}.",
        ]
    if "Colab" in links:
        text += [
            f"- Colab opens the notebook alone: {link('open it in Colab', links['Colab'])}, and run this in a new "
            "first cell. If Colab then asks for a restart, restart and run the cell again.",
            f"```text\n!git clone -q --depth 1 -b {BRANCH} {repository} /content/{BRANCH}\n"
            f"%cd /content/{BRANCH}/{name}\n%pip install -q -r requirements.txt\n```",
        ]
    return "\n\n".join(text)


class Handout(SphinxDirective):
    """The page of one assignment: the first cell of the student's notebook, and where to get it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the page; where the assignment is missing, a page that says so."""
        titles = {"allow_section_headings": True}
        name, assignments = self.arguments[0], folder(self.env.app)
        if name not in handouts.names(assignments):
            self.env.note_reread()  # it may come
            return self.parse_text_to_nodes(
                f"# {name}\n\nThis copy of the book does not hold the assignment.", **titles
            )
        self.env.note_dependency(str(assignments / name / f"{name}.ipynb"))
        try:
            first = handouts.first_cell(handouts.load(name, assignments))
        except ValueError as error:
            raise self.error(str(error)) from error
        to_top = "../" * self.env.docname.count("/")
        where = how_to_get(name, self.config.gpbook_repository, self.config.gpbook_hub, to_top)
        return self.parse_text_to_nodes(f"{first}\n\n{where}\n", **titles)


class Handouts(SphinxDirective):
    """A list of the assignments, one line each, with links to their pages in the folder ``assignments``.

    Its arguments are the names in the order of the course; an assignment that is not named follows after them.
    """

    optional_arguments = 99

    def run(self) -> list[nodes.Node]:
        """Return the list; without assignments, a sentence."""
        self.env.note_reread()  # assignments come and go
        assignments = folder(self.env.app)
        try:
            known = handouts.names(assignments)
            names = [*(name for name in self.arguments if name in known), *sorted(set(known) - set(self.arguments))]
            found = {name: handouts.facts(handouts.load(name, assignments)) for name in names}
        except ValueError as error:
            raise self.error(str(error)) from error
        lines = [f"- [{one.title or name}](assignments/{name}.md): {one}" for name, one in found.items()]
        return self.parse_text_to_nodes("\n".join(lines) or "This copy of the book holds no assignments.")


def folder(app: Sphinx) -> Path:
    """Where the sources of the assignments are."""
    return Path(app.srcdir) / "assignments"


def write_zips(app: Sphinx, exception: Exception | None) -> None:
    """Put the zip of each assignment into the built book."""
    if exception or app.builder.format != "html":
        return
    for name in handouts.names(folder(app)):
        try:
            handouts.write_zip(name, Path(app.outdir) / "assignments", folder(app))
        except ValueError as error:
            log.warning("%s", error, type="gpbook")


def setup(app: Sphinx) -> None:
    """Register the directives, and the addresses they link to: a page is read again when one changes."""
    app.add_config_value("gpbook_repository", os.environ.get("GPBOOK_REPOSITORY", "").rstrip("/"), "env")
    app.add_config_value("gpbook_hub", os.environ.get("GPBOOK_HUB", "").rstrip("/"), "env")
    app.add_directive("handout", Handout)
    app.add_directive("handouts", Handouts)
    app.connect("build-finished", write_zips)
