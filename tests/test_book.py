"""The rendered book: strict, offline, readable by everybody; and each of the checks that say so, seen failing.

Three things are looked at: the book itself, a sample book of one page that holds each kind of content, and
pages of a few lines that each break one rule.
"""

import base64
import gzip
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import matplotlib
import nbformat
import pytest
import sample_course as course
from browser import QuietHandler, broken_links, look_at, require_browser, serve, visit
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from nbformat import v4
from playwright.sync_api import sync_playwright
from sphinx.errors import ConfigError

from book import handouts, wheel
from book.pdf import FLAGS, find_browser
from book.theme import downloads, lighten, make_font, repository_options, share
from book.theme.figures import ImageTags, problem_with_alt
from book.theme.handouts import service_links
from book.theme.mathml import has_loose_rows, to_mathml
from gpbook_utils import plots

ROOT = Path(__file__).parents[1]
SCHEMES = ("light", "dark")
# A white pixel, stretched where it is shown.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2cQAAAABJRU5ErkJggg=="
ALT = "Two curves that part at the right edge."
LIVE = f'<div class="gp-explorer"><img alt="{ALT}" src="data:image/png;base64,{PIXEL}"></div>'


def build(source: Path, output: Path, **environment: str) -> subprocess.CompletedProcess:
    """Build a book strictly, in an environment in which nothing can import torch."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "torch.py").write_text("raise ImportError('the build of the book imports torch')\n")
    env = {key: value for key, value in os.environ.items() if not key.startswith("GPBOOK_")} | environment
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(output), env.get("PYTHONPATH")]))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "-W", "-n", "--keep-going"]
    return subprocess.run(
        [*command, str(source), "--path-output", str(output)],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def display(meta: dict | None = None, **data: str):
    """A stored output; ``text_plain`` stands for text/plain, and so on."""
    return v4.new_output(
        "display_data", {key.replace("_", "/"): value for key, value in data.items()}, metadata=meta or {}
    )


def write_sample(folder: Path, *cells) -> Path:
    """Write a book of one notebook with the configuration of the real one."""
    (folder / "chapters").mkdir(parents=True, exist_ok=True)
    (folder / "chapters" / "references.bib").write_text("")
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "book").symlink_to(ROOT / "book")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# A sample\n\nIts zygomorphic text."), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "intro.ipynb")
    return folder


def code(*outputs, tags: tuple = ()):
    return v4.new_code_cell("show()", execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)})


@pytest.fixture(scope="module")
def playwright():
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright):
    browser = playwright.chromium.launch(executable_path=require_browser(playwright), args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the built book."""
    output = tmp_path_factory.mktemp("book")
    wheel.build(output / "_build" / "html" / "_static")  # as `make book` does
    result = build(ROOT, output)
    assert result.returncode == 0, result.stdout[-6000:]
    return output / "_build" / "html"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The folder of a built book with one page, for a repository on GitHub."""
    folder = tmp_path_factory.mktemp("sample")
    claim = '<div class="gp-claim" data-verdict="{0}"><span class="gp-verdict">{0}</span> '
    claim += '<span class="gp-sentence">S.</span> <dl class="gp-measured"><dt>bound</dt><dd>1e-16</dd></dl></div>'
    verdicts = ("holds", "refuted", "not observable here")
    wide = "<table class='gp-table'><tr>" + "<td>a-rather-long-word</td>" * 20 + "</tr></table>"
    figure = {"image/png": {"alt": ALT, "width": 320}}
    source = write_sample(
        folder / "source",
        v4.new_markdown_cell("In a line $x'$, and\n\n$$\na &= b \\\\ c &= \\tfrac12\n$$ (rows)\n\nas {eq}`rows` says."),
        code(
            display(figure, **{"image/png": PIXEL, "text/plain": ALT}),
            display(**{"text/markdown": "What $x$ **shows**."}),
        ),
        code(
            display(figure, **{"image/png": PIXEL, "text/plain": ALT, "text/html": LIVE}),
            display(**{"text/markdown": "Drag it, and see."}),
        ),
        code(*[display(**{"text/html": claim.format(v), "application/vnd.gpbook.claim+json": {}}) for v in verdicts]),
        code(display(**{"text/html": wide})),
        code(display(**{"text/plain": "folded output"}), tags=("hide-cell",)),
        v4.new_markdown_cell("```{admonition} Answer\n:class: tip dropdown\nThe answer is folded.\n```"),
        v4.new_markdown_cell("```python\n" + "wide = 1  # " * 40 + "\n```\n\n$$" + "x + " * 100 + "y$$"),
    )
    published = {
        "GPBOOK_REPOSITORY": "https://github.com/owner/name",
        "GPBOOK_ADDRESS": "https://owner.github.io/name/",
    }
    result = build(source, folder, **published)
    assert result.returncode == 0, result.stdout[-6000:]
    return folder / "_build" / "html"


def build_course(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Build a book with an assignment, ``sample``, and with the page of another that is missing."""
    source = write_sample(folder / "source")
    if not (source / "assignments").exists():
        course.write_assignment(source / "assignments")
    pages = ["chapters/assignments", "chapters/assignments/sample", "chapters/assignments/absent"]
    (source / "chapters" / "assignments").mkdir()
    (source / "chapters" / "assignments.md").write_text("# Assignments\n\n```{handouts}\n```\n")
    for page in pages[1:]:
        (source / f"{page}.md").write_text(f"```{{handout}} {Path(page).name}\n```\n")
    toc = "".join(f"  - file: {page}\n" for page in pages)
    (source / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{toc}")
    return build(source, folder, **environment)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """The folder of a built book with an assignment, for a repository on GitHub."""
    folder = tmp_path_factory.mktemp("lessons")
    result = build_course(folder, GPBOOK_REPOSITORY="https://github.com/owner/book")
    assert result.returncode == 0, result.stdout[-6000:]
    return folder / "_build" / "html"


def open_page(browser, folder: Path, name: str, check, **options):
    """Open a page of a folder in a fresh context and return what ``check(page)`` and the visit find."""
    with serve(folder) as address, browser.new_context(reduced_motion="reduce", **options) as context:
        page, problems = visit(context, f"{address}/{name}")
        found = check(page)
        return problems + (found or [])


# The book


# The sample page is looked at in the dark too, and for every rule at both widths; every page, in the deep tests.
@pytest.mark.parametrize(
    ("scheme", "everything"),
    [("light", False), *(pytest.param(scheme, True, marks=pytest.mark.deep) for scheme in SCHEMES)],
)
def test_every_page(browser, book, scheme, everything):
    pages = sorted(path.relative_to(book) for path in book.rglob("*.html") if "_static" not in path.parts)
    assert len(pages) >= 5
    problems = []
    with serve(book) as address, browser.new_context(color_scheme=scheme, reduced_motion="reduce") as context:
        for name in pages:
            page, seen = visit(context, f"{address}/{name}")
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            # Code is thousands of coloured words, in the same few colours on every page: looked at on one.
            seen += look_at(page, name.name.startswith("01_"), everything)
            page.close()
            problems += [f"{name}: {problem}" for problem in seen]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["intro.html", "chapters/01_same_covariance.html"])
def test_no_text_of_a_figure_is_below_9_pixels_on_a_phone(browser, book, name):
    def check(page):
        images = page.query_selector_all("article .gp-pan img")
        assert images
        for image in images:
            # The least that matplotlib writes in the book's style is an exponent, at 0.7 of the text.
            with plots.style():
                least = 0.7 * matplotlib.rcParams["font.size"] / 72 * plots._PIXELS_PER_INCH
            padding, stored = "parseFloat(getComputedStyle(image).paddingLeft)", "image.naturalWidth / 2"
            assert least * image.evaluate(f"image => (image.clientWidth - 2 * {padding}) / ({stored})") >= 9
            box = image.query_selector("xpath=..")
            if box.evaluate("box => box.scrollWidth > box.clientWidth"):
                assert box.get_attribute("tabindex") == "0" and box.get_attribute("aria-label")

    assert open_page(browser, book, name, check, viewport={"width": 390, "height": 900}) == []


def test_every_image_keeps_its_place(book):
    images = [tag for path in book.rglob("*.html") for tag in ImageTags(path.read_text()).found]
    assert len(images) >= 5
    assert all(int(image["width"]) > 0 and int(image["height"]) > 0 for image in images)


def test_the_book_is_light(browser, book):
    """In kB, compressed as a server does: a first visit, a second page, a figure."""

    def weight(path: Path) -> float:
        packed = path.suffix in (".png", ".woff", ".woff2")
        return len(path.read_bytes() if packed else gzip.compress(path.read_bytes(), 6)) / 1000

    heavy = []
    with serve(book) as address:
        for chapter in ["intro", *(f"chapters/{path.stem}" for path in (book / "chapters").glob("[0-9][0-9]_*.html"))]:
            with browser.new_context() as context:
                page, problems = visit(context, f"{address}/{chapter}.html")
                asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
                assert problems == []
            files = [book / urlparse(name).path.removeprefix("/") for name in asked]
            figures = [path for path in files if path.parent.name == "_images"]
            own = weight(book / f"{chapter}.html")
            first = own + sum(weight(path) for path in files if path not in figures)
            # All that a page loads after another one: itself, and the font of maths if the other had no formula.
            later = own + weight(book / "_static" / "fonts" / "stix-two-math.woff2")
            heavy += [f"{chapter}: {first:.0f} kB at first, {later:.0f} later"] if first > 300 or later > 150 else []
            heavy += [f"{chapter}: {path.name}" for path in figures if weight(path) > 40]
    assert not heavy, heavy


def test_a_solution_is_folded_once_and_under_its_name(book):
    solutions = []
    for path in (book / "chapters").glob("[0-9][0-9]_*.html"):
        page = BeautifulSoup(path.read_text(), "html.parser")
        code = [pre for pre in page.select(".cell_input pre") if pre.text.startswith("# Solution")]
        solutions += [[fold.summary.text.split()[0] for fold in pre.find_parents("details")] for pre in code]
    assert len(solutions) > 30 and all(folds == ["Solution"] for folds in solutions)


# What a reader meets of a chapter, as shares of its height: each piece owns the page down to the next.
READING = """() => {
  const article = document.querySelector("article"), end = article.getBoundingClientRect().bottom;
  const kinds = {
    figures: "figure, .gp-explorer",
    code: ".cell_input pre",
    output: ".cell_output:not(:has(figure)), table, details",
    prose: "p, h1, h2, h3, ul, ol, blockquote, div.math, .admonition",
  };
  const pieces = [];
  const walk = element => {
    for (const child of element.children) {
      const kind = Object.keys(kinds).find(name => child.matches(kinds[name]));
      if (!child.checkVisibility() || !child.getBoundingClientRect().height) continue;
      if (kind) pieces.push({kind, top: child.getBoundingClientRect().top, element: child});
      else walk(child);
    }
  };
  walk(article);
  const top = pieces[0].top, found = {screens: (end - top) / innerHeight, figures: 0, code: 0, output: 0, prose: 0};
  pieces.forEach(({kind, top: here}, n) => {
    found[kind] += ((n + 1 < pieces.length ? pieces[n + 1].top : end) - here) / (end - top);
  });
  found.first = (pieces.find(piece => piece.kind === "figures").top - top) / innerHeight;
  const cut = ({kind, element}) => kind === "code" && element.scrollWidth > element.clientWidth + 1;
  found.clipped = pieces.filter(cut).length;
  return found;
}"""


def test_an_article_is_read_as_one(browser, book):
    # Browsers set the same text a line or two longer, hence the tenth of a screen.
    limits = {"screens": (0, 14.1), "prose": (0.4, 1), "figures": (0.15, 1), "first": (0, 2), "clipped": (0, 0)}
    names = sorted(path.name for path in (book / "chapters").glob("*.html") if re.match(r"0[1-9]|1[0-2]", path.name))
    assert names
    beyond = {}
    with serve(book) as address, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        for name in names:
            page, problems = visit(context, f"{address}/chapters/{name}")
            found = page.evaluate(READING)
            beyond |= {f"{name}: {what}": found[what] for what, (least, most) in limits.items()
                       if not least <= found[what] <= most}  # fmt: skip
    assert not beyond


def test_every_icon_and_sign_has_its_glyph(browser, book):
    def icons(page):
        font = TTFont(book / "_static" / lighten.ICONS / "fa-solid-900.woff")
        asked = page.evaluate(
            "[...document.querySelectorAll('[class*=fa-]')].map(icon => getComputedStyle(icon, '::before').content)"
        )
        assert len(asked) >= 10 and {ord(sign.strip('"')) for sign in asked} <= set(font.getBestCmap())

    open_page(browser, book, "chapters/01_same_covariance.html", icons)
    formulas = [html.unescape(re.sub("<[^>]*>", "", formula)) for path in book.rglob("*.html")
                for formula in re.findall(r"<math.*?</math>", path.read_text(), re.S)]  # fmt: skip
    missing = {sign for formula in formulas for sign in formula if ord(sign) not in make_font.codes()} - {"\n"}
    assert len(formulas) > 100 and not missing, f"make the font anew (book/theme/make_font.py) with {missing}"


def test_links_of_the_book(book):
    assert broken_links(book) == []


def test_no_dead_repository_link(book):
    for path in book.rglob("*.html"):
        text = path.read_text()
        assert not any(host in text for host in ("mybinder.org", "colab.research", "git-pull?", "nbgitpuller."))
        assert "repository-button" not in path.read_text()
        assert "executablebooks/jupyter-book" not in path.read_text()


def test_no_outside_address_is_loaded(book):
    """Also what a browser would only fetch later: scripts, styles and fonts name no other host."""
    for path in book.rglob("*.html"):
        for line in path.read_text().splitlines():
            if "<script" in line or "<link" in line:
                assert "http" not in line.replace("http-equiv", ""), f"{path.name}: {line.strip()[:200]}"


def test_no_secret_of_an_assignment_is_in_the_book(book):
    names = handouts.names()
    lines = set().union(*(course.secrets(ROOT / "assignments" / name, course.public_texts()) for name in names))
    assert len(lines) >= 20 * len(names)
    looked, found = course.search(book, lines)
    assert looked[".html"] >= 20 and looked[".js"] >= 5 and looked[".ipynb"] >= 13 + len(names) and looked[".md"] >= 8
    assert len(list(book.glob("assignments/*.zip"))) == len(names)
    assert found == []


# A book with an assignment


def test_no_secret_is_in_a_book_with_an_assignment(lessons, tmp_path):
    lines = course.secrets(course.write_assignment(tmp_path))
    assert len(lines) == 11
    looked, found = course.search(lessons, lines)
    assert found == []
    assert looked[".html"] >= 6 and looked[".ipynb"] == 2 and looked[".py"] > 20  # one notebook is the page's own
    text = "".join(path.read_text() for path in lessons.rglob("*.html"))
    assert "zygomorphic" in text and "relative_distance" not in text


def test_the_page_of_an_assignment_says_what_the_notebook_says(browser, lessons):
    def check(page):
        assert page.inner_text("h1").startswith("Equal or not: a sample")
        assert "60 to 90 minutes" in page.inner_text("article")
        with page.expect_download() as download:
            page.click("a[download]")
        assert download.value.suggested_filename == "sample.zip"
        assert download.value.path().read_bytes() == (lessons / "assignments" / "sample.zip").read_bytes()
        links = page.eval_on_selector_all("#get-the-notebook a", "all => all.map(link => link.href)")
        assert set(service_links("sample", "https://github.com/owner/book").values()) <= set(links)
        return look_at(page)

    assert open_page(browser, lessons, "chapters/assignments/sample.html", check) == []
    assert broken_links(lessons) == []


def test_the_overview_lists_what_there_is_and_a_missing_one_says_so(browser, lessons):
    def check(page):
        assert page.locator("article li").all_inner_texts() == [
            "Equal or not: a sample: 60 to 90 minutes, 100 points, 70 of them marked by machine"
        ]

    assert open_page(browser, lessons, "chapters/assignments.html", check) == []
    assert "does not hold the assignment" in (lessons / "chapters" / "assignments" / "absent.html").read_text()


def test_build_refuses_an_assignment_that_would_leak(tmp_path):
    folder = course.write_assignment(tmp_path / "source" / "assignments")
    (folder / "sample.ipynb").write_text((folder / "sample.ipynb").read_text().replace("### END SOLUTION", "### END"))
    result = build_course(tmp_path)
    assert result.returncode != 0
    assert "sample.ipynb, cell 4 (q1" in result.stdout and "BEGIN SOLUTION has no END SOLUTION" in result.stdout
    assert not list(tmp_path.rglob("*.zip"))


# One page with each kind of content


def test_pages_of_assignments_are_read_again_when_one_changes_or_comes(tmp_path):
    assert build_course(tmp_path).returncode == 0
    folder = tmp_path / "source" / "assignments"
    lists, page = (tmp_path / "_build/html/chapters" / name for name in ("assignments.html", "assignments/sample.html"))
    assert "0 added, 2 changed" in build(tmp_path / "source", tmp_path).stdout  # the list, and what may come
    notebook = folder / "sample" / "sample.ipynb"
    notebook.write_text(notebook.read_text().replace("60 to 90 minutes", "61 to 90 minutes"))
    shutil.copytree(folder / "sample", folder / "absent")
    (folder / "absent" / "sample.ipynb").rename(folder / "absent" / "absent.ipynb")
    assert build(tmp_path / "source", tmp_path).returncode == 0
    assert "61 to 90 minutes" in page.read_text() and "61 to 90 minutes" in (page.parent / "absent.html").read_text()
    assert "61 to 90 minutes" in lists.read_text() and "60 to 90 minutes" not in lists.read_text()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sample_page(browser, sample, scheme):
    assert open_page(browser, sample, "intro.html", look_at, color_scheme=scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_search_finds_a_rare_word(browser, sample, scheme):
    def search(page):
        page.wait_for_selector(".bd-search-container mark")
        assert page.inner_text(".bd-search-container li a") == "A sample"
        return look_at(page)

    assert open_page(browser, sample, "search.html?q=zygomorphic", search, color_scheme=scheme) == []


def test_figure_has_alt_width_caption_and_number(browser, sample):
    def check(page):
        figure = page.query_selector("figure.gp-figure")
        image = figure.query_selector("img")
        assert image.get_attribute("alt") == ALT
        assert image.bounding_box()["width"] == 320
        caption = figure.query_selector("figcaption")
        assert caption.inner_text().startswith("Fig. 1")
        assert caption.query_selector("math") and caption.query_selector("strong").inner_text() == "shows"
        assert page.inner_text("article").count("What") == 1

    open_page(browser, sample, "intro.html", check)


def test_an_explorer_is_a_figure_and_keeps_its_caption(browser, sample):
    def check(page):
        figure = page.query_selector("figure.gp-figure:has(.gp-explorer)")
        assert figure.query_selector_all("img").__len__() == 1
        assert figure.query_selector("figcaption").inner_text().endswith("Drag it, and see.")
        assert page.inner_text("article").count("Drag it") == 1
        numbers = [caption.inner_text().split()[1] for caption in page.query_selector_all("figcaption")]
        assert numbers == [str(n + 1) for n in range(len(numbers))]  # its picture for print counts for none

    open_page(browser, sample, "intro.html", check)


def test_equation_has_its_number_and_its_anchor(browser, sample):
    def check(page):
        number = page.query_selector("#equation-rows .eqno").inner_text()
        assert number.startswith("(1)")
        assert page.query_selector_all("#equation-rows mtr").__len__() == 2
        assert page.query_selector("p a[href='#equation-rows']").inner_text() == "(1)"

    open_page(browser, sample, "intro.html", check)


def test_claims_show_and_their_record_does_not(browser, sample):
    def check(page):
        assert [card.get_attribute("data-verdict") for card in page.query_selector_all(".gp-claim")] == [
            "holds", "refuted", "not observable here",
        ]  # fmt: skip
        colours = {
            card.evaluate("card => getComputedStyle(card).backgroundColor")
            for card in page.query_selector_all(".gp-claim")
        }
        assert len(colours) == 3

    open_page(browser, sample, "intro.html", check)


@pytest.mark.parametrize(("fold", "inside"), [("details.gp-fold", "p"), ("details.hide", "pre")])
def test_folds_open_by_keyboard(browser, sample, fold, inside):
    def check(page):
        content = page.locator(fold).locator(inside).last
        assert not content.is_visible()
        page.locator(f"{fold} > summary").focus()
        page.keyboard.press("Enter")
        assert content.is_visible()
        page.keyboard.press("Space")
        assert not content.is_visible()

    open_page(browser, sample, "intro.html", check)


def test_a_link_opens_the_fold_that_it_leads_into(browser, book):
    def check(page):
        link = page.locator("a[href^='#ledger-']").first
        target = page.locator(link.get_attribute("href"))
        assert not target.is_visible()
        link.click()
        target.wait_for(state="visible")

    assert open_page(browser, book, "chapters/verdicts.html", check) == []


def test_what_scrolls_sideways_can_be_reached_by_keyboard(browser, sample):
    def check(page):
        boxes = page.locator(".gp-formula, .cell_output .output, pre")
        wide = boxes.evaluate_all("all => all.filter(box => box.scrollWidth > box.clientWidth)")
        assert len(wide) >= 3
        assert boxes.evaluate_all("all => all.every(box => box.scrollWidth <= box.clientWidth || box.tabIndex === 0)")

    open_page(browser, sample, "intro.html", check, viewport={"width": 390, "height": 900})


def test_print_opens_the_folds(browser, sample):
    def check(page):
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.get_by_text("The answer is folded.").is_visible()
        assert page.get_by_text("folded output").is_visible()
        assert not page.locator(".bd-sidebar-primary").is_visible()
        assert page.locator("article > :last-child > summary").inner_text() == "Answer 1"
        assert page.get_by_text("Answer 1 stands at the end.").is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen")
        assert not page.get_by_text("The answer is folded.").is_visible()
        assert page.locator("article section details > summary").get_by_text("Answer", exact=True).count() == 1
        assert not page.get_by_text("stands at the end").count()

    open_page(browser, sample, "intro.html", check)


def test_nothing_is_cut_in_print(browser, book):
    def check(page):
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        tables = page.locator(".gp-scroll:has(.gp-ledger)")
        assert tables.count() > 5
        return tables.evaluate_all("all => all.filter(box => box.scrollWidth > box.clientWidth).map(box => 'cut')")

    # As wide as A4 between its margins.
    assert open_page(browser, book, "chapters/verdicts.html", check, viewport={"width": 680, "height": 1000}) == []


def test_the_slider_of_an_explorer_stays_in_sight_on_a_phone(browser, book):
    def check(page):
        page.wait_for_selector(".gp-stage input")
        slider, panels = page.locator(".gp-stage input"), page.locator(".gp-stage svg")
        assert slider.bounding_box()["y"] < panels.first.bounding_box()["y"]
        panels.last.evaluate("panel => scrollBy(0, panel.getBoundingClientRect().top - 100)")
        assert 0 < slider.bounding_box()["y"] < 200

    name, phone = "chapters/03_where_training_starts.html", {"width": 390, "height": 844}
    assert open_page(browser, book, name, check, viewport=phone) == []


def test_a_published_page_leads_to_its_source_and_to_where_it_runs(sample):
    page = (sample / "intro.html").read_text()
    for address in (
        "https://github.com/owner/name",
        "https://github.com/owner/name/blob/main/intro.ipynb",
        "https://github.com/owner/name/issues/new",
        "https://mybinder.org/v2/gh/owner/name/main",
        "https://colab.research.google.com/github/owner/name/blob/main/intro.ipynb",
    ):
        assert f'href="{address}' in page, address


def test_a_page_says_what_a_card_shows(sample, book):
    page = (sample / "intro.html").read_text()
    assert '<meta property="og:url" content="https://owner.github.io/name/intro.html" />' in page
    assert '<meta property="og:image" content="https://owner.github.io/name/_images/readme-figure.png" />' in page
    assert (book / share.PICTURE).exists()
    pages = [path.read_text() for path in [book / "intro.html", *(book / "chapters").glob("*.html")]]
    found = [re.search(r'<meta name="description" content="([^"]{60,})" />', text) for text in pages]
    assert all(found) and len({one[1] for one in found}) == len(pages)


def test_a_downloaded_chapter_without_the_package_says_what_to_install(book, sample):
    name = "chapters/01_same_covariance.ipynb"
    ours, theirs = (nbformat.read(folder / name, 4).cells for folder in (ROOT, book / "_sources"))
    (added,) = [cell for cell in theirs if cell.id == downloads.CELL]
    first = next(cell for cell in theirs if cell.cell_type == "code")
    assert first == added and [cell for cell in theirs if cell != added] == ours
    bare = subprocess.run([sys.executable, "-I", "-S", "-c", added.source], capture_output=True, text=True)
    assert bare.stderr.endswith(f"{downloads.install_line('')}\n"), bare.stderr
    assert subprocess.run([sys.executable, "-c", added.source], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("address", ["https://owner.github.io/name", "http://example.org/", "example.org/"])
def test_address_of_another_form(address, monkeypatch):
    monkeypatch.setenv("GPBOOK_ADDRESS", address)
    with pytest.raises(ConfigError, match="https://host/path/"):
        share.configure(None, None)


@pytest.mark.parametrize("lost", ["nothing.html", "chapters/nothing.html", "chapters/a/b/nothing.html"])
def test_a_lost_reader_finds_home_from_any_depth(browser, book, lost, monkeypatch):
    def not_found(handler, code, *rest):
        handler.send_response(200)  # the browser would report the status as an error
        handler.end_headers()
        handler.wfile.write((book / "404.html").read_bytes())

    monkeypatch.setattr(QuietHandler, "send_error", not_found)

    def check(page):
        assert page.inner_text("h1") == "No such page"
        page.click("a >> text=first page")
        page.wait_for_url("**/intro.html")
        assert "Covariance" in page.inner_text("h1")

    assert open_page(browser, book, lost, check) == []


# What the strict build refuses


def test_build_refuses_images_without_alternative_text_and_unknown_maths(tmp_path):
    source = write_sample(
        tmp_path / "source",
        code(display(**{"image/png": PIXEL})),
        v4.new_markdown_cell("![](pixel.png)\n\n<img src='raw.png'>\n\n$\\nosuchcommand$"),
        code(display(**{"text/html": "<img src='html.png' alt='plot'>"})),
    )
    (source / "pixel.png").write_bytes(base64.b64decode(PIXEL))
    result = build(source, tmp_path)
    assert result.returncode != 0
    assert result.stdout.count("the alternative text of image") == 4
    assert "pixel.png is missing" in result.stdout
    assert "raw.png is missing" in result.stdout
    assert "html.png has fewer than 3 words" in result.stdout
    assert "nosuchcommand" in result.stdout


@pytest.mark.parametrize(
    ("alt", "problem"),
    [
        (None, "is missing"),
        ("  ", "is missing"),
        ("a.png", "names a file"),
        ("Plot", "has fewer than 3 words"),
        (ALT, None),
    ],
)
def test_alternative_texts(alt, problem):
    assert problem_with_alt(alt) == problem


def test_image_tags_are_found_in_html():
    assert [tag.get("alt") for tag in ImageTags("<p><img alt='x'><IMG src=a></p>").found] == ["x", None]


def test_maths_converter():
    assert to_mathml("x^2", display=False) == "<math><msup><mi>x</mi><mn>2</mn></msup></math>"
    for environment in ("align", "align*", "aligned"):
        assert "<mtr>" in to_mathml(rf"\begin{{{environment}}} a &= b \\ c &= d \end{{{environment}}}", display=True)
    assert to_mathml(r"\begin{equation} a \end{equation}", display=True) == to_mathml("a", display=True)
    assert has_loose_rows(r"a \\ b") and not has_loose_rows(r"\begin{cases} a \\ b \end{cases}")


@pytest.mark.parametrize(
    "url", ["example.org/a/b", "http://example.org/a/b", "https://example.org/a", "https://e.org/a/b?c"]
)
def test_repository_address_of_another_form(url):
    with pytest.raises(ConfigError, match="https://host/owner/name"):
        repository_options(url)


# Each check of the browser, seen failing

PAGE = "<!doctype html><html lang=en><title>T</title><link rel=icon href='data:,'><main><h1>T</h1>{}</main></html>"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<p>Nothing is wrong.</p>", None),
        (
            "<img src='https://example.org/a.png' alt='A picture from elsewhere.'>",
            "outside request: https://example.org/a.png",
        ),
        ("<style>@import url(https://example.org/a.css)</style>", "outside request: https://example.org/a.css"),
        ("<script>fetch('https://example.org/a').catch(() => 0)</script>", "outside request: https://example.org/a"),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<script>nothing()</script>", "script error: nothing is not defined"),
        ("<script src=missing.js></script>", "status 404"),
        (f"<img src='data:image/png;base64,{PIXEL}'>", "alternative text is missing"),
        ("<img src='data:image/png,' alt='A picture that is broken.'>", "image does not load"),
        (r"<p>\(x^2\)</p>", "raw maths"),
        ("<p>$$x$$</p>", "raw maths"),
        ("<p>so $x_1$ it is</p>", "raw maths"),
        (r"<p>\begin{align}</p>", "raw maths"),
        ("<math></math>", "empty formula"),
        ("<math><merror><mtext>no</mtext></merror></math>", "maths error"),
        ("<div style='width: 1000px'>wide</div>", "wider than 390 px"),
        ("<div style='width: 2000px'>wide</div>", "wider than 1280 px"),
        ("<p style='color: #aaa; background: #fff'>pale</p>", "axe color-contrast"),
        ("<button></button>", "axe button-name"),
        ("</main><p>Outside of every landmark.</p><main>", "axe region"),
        ("<table><tr><th></th></tr><tr><td>1</td></tr></table>", "axe empty-table-header"),
        ("<details><summary aria-label='Toggle'>Answer</summary>No.</details>", "axe label-content-name-mismatch"),
        ("<details><summary>More</summary><button></button></details>", "axe button-name"),
    ],
)
def test_checks_can_fail(browser, tmp_path, body, problem):
    (tmp_path / "page.html").write_text(PAGE.format(body))
    problems = open_page(browser, tmp_path, "page.html", look_at)
    if problem is None:
        assert problems == []
    else:
        assert any(seen.startswith(problem) for seen in problems), problems


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        "<a href='b.html#there'></a><a href='b.html#not'></a><a href='c.html'></a><a href='#x'></a>"
    )
    (tmp_path / "b.html").write_text("<p id=there><a href='https://example.org/'></a><a href='a.html'></a>")
    assert broken_links(tmp_path) == [
        "a.html: no anchor for b.html#not", "a.html: no file for c.html", "a.html: no anchor for #x",
    ]  # fmt: skip


def test_missing_browser_fails_in_ci_and_skips_elsewhere(playwright, monkeypatch, tmp_path):
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    assert find_browser(playwright) is None
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Chromium found"):
        require_browser(playwright)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        require_browser(playwright)
