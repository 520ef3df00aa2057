"""The printed book: one tagged PDF with bookmarks, contents, page numbers and links that lead somewhere."""

import html
import re
import subprocess
import sys
import unicodedata

import pytest
from browser import require_browser
from pypdf import PdfReader
from test_book import book, browser, playwright  # noqa: F401  (fixtures)

from book import pdf

MOST_PAGES = 250
# What sticks out of the page, or is cut by a box: lost on paper.
CUT = """() => {
  const width = document.documentElement.clientWidth;
  const out = (element) => element.getBoundingClientRect().right > width + 1;
  const clipped = (element) => element.clientWidth && element.scrollWidth > element.clientWidth + 1
    && getComputedStyle(element).overflowX !== "visible";
  const found = [...document.querySelectorAll("main *")].filter((element) => out(element) || clipped(element));
  return found.map((element) => `${element.tagName}: ${element.textContent.slice(0, 60)}`);
}"""


def command(*arguments):
    """What `python -m book.pdf` says; a process of its own, since Playwright runs here already."""
    done = [sys.executable, "-m", "book.pdf", *map(str, arguments)]
    return subprocess.run(done, cwd=pdf.HERE.parent, capture_output=True, text=True)


@pytest.fixture(scope="module")
def printed(book, playwright, tmp_path_factory):  # noqa: F811
    """The PDF of the whole book, and the document that it was printed from."""
    require_browser(playwright)
    target = tmp_path_factory.mktemp("pdf") / "gpbook.pdf"
    said = command(book, target)
    assert re.fullmatch(rf"The book: {re.escape(str(target))} \(\d+ pages\)\n", said.stdout), said.stdout + said.stderr
    return PdfReader(target), target.with_suffix(".html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(printed):
    """The text of each page."""
    return [page.extract_text() for page in printed[0].pages]


def chapters(book):  # noqa: F811
    """The titles of the book's pages, in their order, as the side bar of a page lists them."""
    links = re.findall(
        r'<li class="toctree-l1[^"]*"><a[^>]*>(.*?)</a>', (book / "intro.html").read_text(encoding="utf-8")
    )
    return [html.unescape(re.sub("<[^>]*>", "", link)) for link in links]


def squeezed(words):
    """Words without blanks, of which a text that was taken from a page has others."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", words))


def problems_of(reader, text):
    """What is wrong with the pages of a PDF: too many, empty ones, numbers that lack, links that lead nowhere."""
    found = [] if len(reader.pages) <= MOST_PAGES else [f"{len(reader.pages)} pages"]
    places = {name.removeprefix("/") for name in reader.named_destinations}
    for number, page in enumerate(reader.pages, start=1):
        words = text[number - 1].split()
        if number > 1 and str(number) not in (words[0], words[-1]):
            found.append(f"page {number} has no number")
        if len(words) < 8 and not page.images:
            found.append(f"page {number} is empty")
        for note in page.get("/Annots") or []:
            link = note.get_object()
            address = link.get("/A", {}).get("/URI")
            if address and not str(address).startswith("http"):
                found.append(f"page {number} links to {address}")
            elif not address and link["/Dest"].removeprefix("/") not in places:
                found.append(f"page {number} links to {link['/Dest']}, which is not there")
    return found


@pytest.mark.deep
@pytest.mark.xdist_group("pdf")
class TestTheWholeBook:
    def test_is_tagged_and_says_what_it_is(self, printed):
        root = printed[0].trailer["/Root"]
        assert root["/MarkInfo"]["/Marked"] and root["/StructTreeRoot"]["/K"] and root["/Lang"] == "en"
        assert printed[0].metadata.title == pdf.TITLE and printed[0].metadata.author

    def test_has_no_empty_page_and_no_dead_link(self, printed, text):
        assert problems_of(printed[0], text) == []
        links = [note for page in printed[0].pages for note in page.get("/Annots") or []]
        assert len(links) > 500

    def test_has_a_bookmark_and_a_line_of_the_contents_for_every_page(self, printed, text, book):  # noqa: F811
        reader, _ = printed
        titles = chapters(book)
        assert len(titles) >= 20
        marks = [mark for mark in reader.outline if not isinstance(mark, list)]
        assert [mark.title for mark in marks] == ["Contents", pdf.TITLE, *titles]
        assert len(reader.outline) > len(marks)  # sections stand below their chapters
        contents = squeezed(text[1])
        for mark in marks[2:]:
            page = reader.get_destination_page_number(mark)
            assert f"{squeezed(mark.title)}{page + 1}" in contents
            assert squeezed(mark.title) in squeezed(text[page])[: len(mark.title) + 40]

    def test_begins_with_its_title_version_and_licence(self, text):
        for said in (pdf.TITLE, pdf.SUBTITLE, f"Version {pdf.project()['version']}", "Attribution 4.0"):
            assert squeezed(said) in squeezed(text[0])

    def test_has_what_a_reader_needs_and_nothing_that_needs_a_screen(self, printed, book):  # noqa: F811
        _, document = printed
        pages = "".join(path.read_text(encoding="utf-8") for path in (book / "chapters").glob("*.html"))
        assert document.count("<figure") == len(re.findall(r"<figure", pages)) + 1  # the landing page has one
        for gone in ("<script", "<button", "<details", "gp-deciding", "popover"):
            assert gone not in document
        notes = re.findall(r'<sup class="gp-note"><a href="#([\w-]+)">', document)
        assert len(notes) > 20 and all(f'id="{note}"' in document for note in notes)
        assert len(re.findall(r'class="gp-turn"', document)) == len(re.findall(r'class="gp-answer"', document)) > 40
        ids = re.findall(r' id="([^"]+)"', document)
        assert len(ids) == len(set(ids)) > 500

    def test_cuts_nothing_off(self, printed, browser, tmp_path):  # noqa: F811
        page = browser.new_page(viewport={"width": 642, "height": 900})  # what A4 leaves between its margins
        page.emulate_media(media="print")
        wide = printed[1].replace("</article>", "<p style='width: 700px'>wide</p></article>", 1)
        for document in (printed[1], wide):
            (tmp_path / "book.html").write_text(document, encoding="utf-8")
            page.goto((tmp_path / "book.html").as_uri())
            seen = page.evaluate(CUT)
            assert (seen == []) == (document == printed[1]), seen[:5]
        page.close()


def test_a_pdf_without_what_it_needs_is_found(browser, tmp_path):  # noqa: F811
    page = browser.new_page()
    page.set_content(
        "<p>Words and more of them, in all eight.<a href='#b'>to</a> <a href='file:///x'>x</a><h1 id=b "
        "style='break-before: page'>b</h1><a href='#b'>b</a>"
    )
    page.pdf(path=tmp_path / "a.pdf", tagged=True)
    page.close()
    reader = PdfReader(tmp_path / "a.pdf")
    text = [page.extract_text() for page in reader.pages]
    assert problems_of(reader, text) == ["page 1 links to file:///x", "page 2 has no number", "page 2 is empty"]


def test_bookmarks_get_the_words_of_the_headings(browser, tmp_path):  # noqa: F811
    page = browser.new_page()
    page.set_content("<title>T</title><h1>One</h1><h2>Two</h2><h3>Three</h3><h2>Four</h2><h1>Five</h1>")
    page.pdf(path=tmp_path / "a.pdf", tagged=True, outline=True)
    page.close()
    assert pdf.mend(tmp_path / "a.pdf", ["1", "2", "3", "4", "5"]) == 1
    one, (two, (three,), four), five = PdfReader(tmp_path / "a.pdf").outline
    assert [mark.title for mark in (one, two, three, four, five)] == ["1", "2", "3", "4", "5"]
    with pytest.raises(ValueError, match="has 5 bookmarks for 1 headings"):
        pdf.mend(tmp_path / "a.pdf", ["1"])


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    assert command(tmp_path, tmp_path / "a.pdf").stderr == f"{tmp_path} holds no built book: say make book first\n"
    (tmp_path / "intro.html").write_text("")
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert command(tmp_path, tmp_path / "a.pdf").stderr.startswith("no Chromium found, which prints the book; install")
