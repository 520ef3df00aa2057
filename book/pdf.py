"""The whole book as one tagged PDF, printed at once from the built pages.

The pages of ``_build/html`` become one document (``pdf.js``), which Chromium prints twice: the second time with the
page numbers of the contents. PDFs of single pages, merged, would have lost their tags.

    python -m book.pdf _build/html _build/gpbook.pdf
"""

import os
import re
import shutil
import sys
import tomllib
from html import escape
from pathlib import Path

from playwright.sync_api import Playwright, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, TextStringObject

HERE = Path(__file__).parent
INSTALL = "sudo apt-get install chromium, or: python -m playwright install --with-deps chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPS = ("Google Chrome", "Chromium")
# The browser itself must not call home either, or its own requests would be taken for the page's.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # what a page asks of any other host fails
]
TITLE = "Same Hyperparameters, Different Covariance"
SUBTITLE = "A tested guide to reproducible Gaussian processes in GPyTorch"
SHELL = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
{styles}</head><body>{body}</body></html>"""


def find_browser(playwright: Playwright) -> str | None:
    """Path of a Chromium: the one CHROMIUM names, the system's, or Playwright's own; None if there is none."""
    if named := os.environ.get("CHROMIUM"):
        return named if Path(named).exists() else None
    apps = [f"/Applications/{app}.app/Contents/MacOS/{app}" for app in MAC_APPS]
    candidates = [*map(shutil.which, NAMES), *apps, playwright.chromium.executable_path]
    return next((path for path in candidates if path and Path(path).exists()), None)


def project() -> dict:
    """What pyproject.toml says of the book."""
    return tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def cover() -> str:
    """The first page: title, author, version and licence, as pyproject.toml and the licence say them."""
    imprint = [
        f"Version {project()['version']}",
        "Text and figures: Creative Commons Attribution 4.0 International. Code: MIT.",
        "Each finding is decided by a cell of its chapter; the numbers behind sentences lead to the evidence at the "
        "chapter’s end. Deciding cells and folded code are in the notebooks.",
    ]
    lines = "".join(f"<p>{escape(line)}</p>" for line in imprint)
    author = escape(project()["authors"][0]["name"])
    return (
        f'<div class="gp-cover"><div><p class="gp-title">{TITLE}</p><p class="gp-subtitle">{SUBTITLE}</p>'
        f'<p class="gp-subtitle">{author}</p></div><div class="gp-imprint">{lines}</div></div>'
    )


def starts(pdf: Path) -> dict[str, int]:
    """On which page, counted from one, each named place of a PDF lies."""
    reader = PdfReader(pdf)
    return {
        name.removeprefix("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def with_page_numbers(body: str, pages: dict[str, int]) -> str:
    """The document with the numbers of the contents filled in.

    >>> with_page_numbers('<a href="#a" class="gp-entry"><span>A</span><span class="gp-page">000</span>', {"a": 7})
    '<a href="#a" class="gp-entry"><span>A</span><span class="gp-page">7</span>'
    """
    pattern = r'(<a href="#([\w-]+)" class="gp-entry">.*?<span class="gp-page">)000'
    return re.sub(pattern, lambda found: f"{found[1]}{pages[found[2]]}", body)


def mend(pdf: Path, headings: list[str]) -> int:
    """Give the bookmarks the words of the headings, and the PDF its author; returns the number of pages.

    Chromium doubles the words of a heading that it moves to the next page, and drops the blank where one breaks.

    Raises:
        ValueError: if there is not one bookmark a heading.
    """
    writer = PdfWriter(pdf, incremental=True)  # what is not changed stays as it was printed
    at, found = writer.root_object["/Outlines"].get("/First"), []
    while at:
        item = at.get_object()
        found.append(item)
        at = item.get("/First") or next_after(item)
    if len(found) != len(headings):
        raise ValueError(f"{pdf} has {len(found)} bookmarks for {len(headings)} headings; each needs one")
    for item, words in zip(found, headings, strict=True):
        item[NameObject("/Title")] = TextStringObject(words)
    writer.add_metadata({"/Author": project()["authors"][0]["name"], "/Subject": SUBTITLE})
    writer.write(pdf)
    return len(writer.pages)


def next_after(item: dict) -> object:
    """The bookmark that follows one without bookmarks below it; None after the last."""
    while item and "/Next" not in item:
        item = item["/Parent"].get_object() if "/Parent" in item else None
    return item and item["/Next"]


def write(pages: Path, target: Path) -> int:
    """Print the built book.

    Args:
        pages: folder of the built book, ``_build/html``.
        target: where the PDF goes; the document it is printed from stays beside it, as ``.html``.

    Returns:
        The number of its pages.

    Raises:
        FileNotFoundError: if the book is not built, or there is no Chromium.
    """
    start = pages.resolve() / "intro.html"
    if not start.exists():
        raise FileNotFoundError(f"{pages} holds no built book: say make book first")
    document = target.resolve().with_suffix(".html")
    document.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        path = find_browser(playwright)
        if path is None:
            raise FileNotFoundError(f"no Chromium found, which prints the book; install one: {INSTALL}")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(color_scheme="light")
        page.goto(start.as_uri())
        links = page.eval_on_selector_all(".bd-links a.reference", "all => all.map(a => a.getAttribute('href'))")
        addresses = ["intro.html", *links]
        texts = {address: (start.parent / address).read_text(encoding="utf-8") for address in addresses}
        made = page.evaluate((HERE / "pdf.js").read_text(encoding="utf-8"), texts)
        sheets = [f'<link rel="stylesheet" href="{href}">' for href in [*made["styles"], (HERE / "pdf.css").as_uri()]]
        body = made["body"].replace('<div class="gp-cover"></div>', cover())
        for numbers in (False, True):
            body = with_page_numbers(body, starts(target)) if numbers else body
            document.write_text(SHELL.format(title=TITLE, styles="\n".join(sheets), body=body), encoding="utf-8")
            page.goto(document.as_uri())
            page.evaluate("Promise.all([document.fonts.ready, ...[...document.images].map(image => image.decode())])")
            page.pdf(path=target, tagged=True, outline=True, prefer_css_page_size=True, print_background=True)
        words = "all => all.map(heading => heading.textContent.trim().replace(/\\s+/g, ' '))"
        headings = page.eval_on_selector_all("h1, h2, h3, h4, h5, h6", words)
        browser.close()
    return mend(target, headings)


if __name__ == "__main__":
    book, pdf = map(Path, sys.argv[1:])
    try:
        count = write(book, pdf)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"The book: {pdf.resolve()} ({count} pages)")
