"""Checks of a built page in a real browser. Each check returns what is wrong with the page, in words."""

import contextlib
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, Playwright

from book.pdf import INSTALL, find_browser
from book.theme.figures import problem_with_alt

WIDTHS = (1280, 390)  # a desk, a phone


def require_browser(playwright: Playwright) -> str:
    """Path of a Chromium; without one the test is skipped, and fails where CI=true."""
    if path := find_browser(playwright):
        return path
    message = f"no Chromium found (CHROMIUM={os.environ.get('CHROMIUM', '')!r}); install one: {INSTALL}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps no log."""

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free local port; yields its address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def visit(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    """Open a page and wait until it and its fonts are there.

    Requests to any other host are reported (FLAGS let them fail), as are failed requests and errors of scripts.
    The list keeps filling while the page is open.
    """
    host = urlparse(url).netloc
    problems: list[str] = []
    page = context.new_page()

    def local_only(request):
        if urlparse(request.url).scheme not in ("data", "blob") and urlparse(request.url).netloc != host:
            problems.append(f"outside request: {request.url}")

    page.on("request", local_only)

    def errors(message):
        # A page without an icon of its own, such as the redirect of index.html, makes the browser look for one.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            problems.append(f"console: {message.text}")

    page.on("console", errors)
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    page.on("websocket", lambda socket: problems.append(f"outside request: {socket.url}"))
    page.on("response", lambda r: r.status >= 400 and problems.append(f"status {r.status}: {r.url}"))
    page.goto(url)
    page.wait_for_function(
        # A page that only redirects, as index.html does, is not there yet.
        "document.readyState === 'complete' && document.fonts.status === 'loaded'"
        " && !document.querySelector('meta[http-equiv=Refresh]')"
    )
    return page, problems


def raw_maths(page: Page) -> list[str]:
    """TeX that a reader would see as such, and formulas without an extent."""
    return page.evaluate(
        r"""() => {
          const found = [];
          const tex = /\\\(|\\\[|\$\$|\$[^$\n]+\$|\\[a-zA-Z]{2,}/;
          const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (texts.nextNode()) {
            const node = texts.currentNode;
            if (node.parentElement.closest("pre, code, script, style, noscript")) continue;
            if (tex.test(node.data)) found.push("raw maths: " + node.data.trim().slice(0, 80));
          }
          for (const formula of document.querySelectorAll("math")) {
            if (formula.querySelector("merror")) found.push("maths error: " + formula.textContent);
            const box = formula.getBoundingClientRect();
            if (formula.checkVisibility() && !(box.width && box.height)) found.push("empty formula");
          }
          return found;
        }"""
    )


def overflow(page: Page) -> list[str]:
    """Whether the page as a whole scrolls sideways, and what sticks out."""
    return page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= width) return [];
          const scrolls = (element) => element !== document.body
            && (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
          const wide = [...document.querySelectorAll("body *")].filter(
            (element) => element.getBoundingClientRect().right > width + 1 && !scrolls(element.parentElement));
          const names = wide.slice(0, 3).map((element) => element.tagName + "." + element.className);
          return [`wider than ${width} px: ${names.join(", ")}`];
        }"""
    )


def images(page: Page) -> list[str]:
    """Images that do not show, or that do not say what they show."""
    problems = []
    for image in page.query_selector_all("img:not(.bd-header-article img)"):  # the theme's own stand beside their name
        source = image.get_attribute("src") or ""
        if problem := problem_with_alt(image.get_attribute("alt"), source):
            problems.append(f"alternative text {problem}: {source[:80]}")
        if not image.evaluate("image => image.decode().then(() => image.naturalWidth > 0, () => false)"):
            problems.append(f"image does not load: {source[:80]}")
    return problems


def barriers(page: Page, code: bool = True, colours: bool = True) -> list[str]:
    """Findings of axe-core of any impact, with folded parts open; the page is good for nothing else afterwards.

    Args:
        page: the page.
        code: contrast of every word of code too; else code is looked at in one colour.
        colours: contrast too, which takes three quarters of the time.
    """
    # axe places every element of a page before it looks at any. A formula is many small ones without a rule of their
    # own, code is thousands of coloured words, and of a table's rows that differ in words alone one is enough.
    page.evaluate(
        """code => {
          for (const fold of document.querySelectorAll("details")) fold.open = true;
          for (const formula of document.querySelectorAll("math")) {
            const words = document.createElement("span"), { width, height } = formula.getBoundingClientRect();
            words.textContent = formula.textContent;
            words.style = `display: inline-block; width: ${width}px; height: ${height}px; overflow: hidden`;
            formula.replaceWith(words);
          }
          for (const table of document.querySelectorAll("table")) {
            const known = new Set();
            for (const row of [...table.rows]) {
              const shape = row.outerHTML.replace(/>[^<]+/g, ">w").replace(/ (id|href|title|value)="[^"]*"/g, "");
              if (known.has(shape)) row.remove();
              known.add(shape);
            }
          }
          if (!code) for (const box of document.querySelectorAll("pre")) box.textContent = box.textContent;
        }""",
        code,
    )
    options = {
        "resultTypes": ["violations"],
        "preload": False,  # axe would fetch the style sheets again, by wrong addresses
        "rules": {"color-contrast": {"enabled": colours}, "label-content-name-mismatch": {"enabled": True}},
    }
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"axe {rule['id']} ({rule['impact']}): {node['target']} {node['html'][:120]}"
        for rule in found
        for node in rule["nodes"][:3]
    ]


def look_at(page: Page, code: bool = True, everything: bool = True) -> list[str]:
    """Run every check, on a desk and on a phone.

    Args:
        page: the page; it is good for nothing else afterwards.
        code: contrast of every word of code too.
        everything: contrast on the phone too, where colours are those of the desk, but menus differ.
    """
    problems = images(page) + raw_maths(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        problems += overflow(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        problems += barriers(page, code, colours=everything or width == max(WIDTHS))
    return problems


class Anchors(HTMLParser):
    """The ids of a page and the addresses that it links to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(value for key in ("id", "name") if (value := values.get(key)))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


def broken_links(folder: Path) -> list[str]:
    """Links between the pages below a folder that lead to no file or to no anchor."""
    pages = {
        path.resolve(): Anchors(path.read_text()) for path in folder.rglob("*.html") if "_static" not in path.parts
    }
    problems = []
    for path, page in pages.items():
        for link in page.links:
            if urlparse(link).scheme or link.startswith("//"):
                continue
            address, anchor = urldefrag(link)
            target = (path.parent / unquote(urlparse(address).path)).resolve() if address else path
            if not target.is_file():
                problems.append(f"{path.name}: no file for {link}")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                problems.append(f"{path.name}: no anchor for {link}")
    return problems
