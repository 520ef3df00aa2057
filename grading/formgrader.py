"""``make formgrader``: nbgrader's pages to mark answers in words, in the browser, and nothing else.

The server opens no notebook, starts no kernel and no terminal, and reads and writes no file for the browser: whatever
ran on one of its pages could do no more than the person who marks. And nothing of a student's runs there: what is shown
is cleaned by ``pages``, and the policy lets only scripts run that carry a word that this server has drawn.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path

from jupyter_server.auth import Authorizer
from jupyter_server.serverapp import ServerApp
from nbgrader.server_extensions import formgrader
from nbgrader.server_extensions.formgrader import handlers
from traitlets.config import Config

from grading import pages

NONCE = secrets.token_urlsafe(16)
# nbgrader's page waits until MathJax, of which it needs nothing else, has ended.
READY = "<script>var MathJax = {Hub: {Startup: {signal: {Interest: (told) => told('End')}}}};</script>"


class Nobody(Authorizer):
    """Lets nobody use the server's own services: files, kernels, terminals; nbgrader's pages do not ask it."""

    def is_authorized(self, handler, user, action: str, resource: str) -> bool:
        """Never."""
        return False


class MarkingPage(pages.Page):
    """The page on which a person marks; scripts of nbgrader's own carry the word."""

    change = staticmethod(lambda text: with_word(text.replace("{{ mathjax() }}", READY)))


def with_word(template: str) -> str:
    """The text of one of nbgrader's templates, its scripts with the word by which the browser knows them."""
    return template.replace("<script", f'<script nonce="{NONCE}"')


def policy() -> str:
    """What the server's pages may do: scripts are nbgrader's, by address, word or hash, and all is from this server."""
    texts = [path.read_text(encoding="utf-8") for path in Path(handlers.template_path).rglob("*.*")]
    handled = {found for text in texts for found in re.findall(r'\son[a-z]+="([^"]*)"', text, re.IGNORECASE)}
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in sorted(handled)]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'nonce-{NONCE}' 'unsafe-hashes' {hashes}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _jupyter_server_extension_points():
    return [{"module": "grading.formgrader"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    formgrader.load_jupyter_server_extension(server)
    settings = server.web_app.settings
    settings["headers"] = {"Content-Security-Policy": policy()}
    settings["nbgrader_exporter"] = MarkingPage(config=settings["nbgrader_formgrader"].config)
    environment = settings["nbgrader_jinja2_env"]
    environment.loader = pages.Changed(environment.loader, with_word)


def main(course: str, *options: str) -> None:
    """Serve the pages of the course in the folder ``course``, with Jupyter's options, until the person ends it."""
    if not Path(course, "nbgrader_config.py").exists():
        sys.exit(f"There is nothing to mark in {course}: grade an assignment first (make grade)")
    os.chdir(course)
    os.environ["JUPYTER_NO_CONFIG"] = "1"  # the person's own settings could open what is shut here
    config = Config()
    config.ServerApp.jpserver_extensions = {"grading.formgrader": True}
    config.ServerApp.authorizer_class = Nobody
    config.ServerApp.terminals_enabled = False
    config.ServerApp.allow_root = True  # nothing is executed here
    config.ServerApp.default_url = "/formgrader/gradebook"
    config.ServerApp.open_browser = True
    ServerApp.launch_instance(argv=list(options), config=config)


if __name__ == "__main__":
    main(*sys.argv[1:])
