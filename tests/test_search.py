"""The search: what readers ask leads to its section, among the first three, from a folder without a server."""

import re

import pytest
from browser import barriers
from test_book import book, browser, playwright  # noqa: F401  (fixtures)

from book.theme.search import Sections

# What a reader asks: the page#section that one of the first three hits leads to, and what is shown of it (patterns).
QUERIES = {
    "NotPSDError": ("08_.*#jitter|symptoms.*#.*psd", "NotPSDError"),
    "negative variance": ("08_.*#safety-nets|symptoms.*#.*variance", "negative"),
    "801 points": ("06_.*#random-probes|symptoms", "801"),
    "different after loading": ("02_.*#kind-6|symptoms", "state_dict|load"),
    "float32 or float64": ("07_.*#rounding-what-does-float32-cost", "float32|float64"),
    "seed SVGP": ("05_.*#(minibatches-seeds|where-do-the-random)", "SVGP|seed"),
    "jitter": ("08_.*#jitter", "jitter"),
    "set threads": ("09_.*#(threads|what-each-switch)", "thread"),
    "max_cholesky_size": ("06_.*#|symptoms", "max_cholesky_size"),
    "fast_pred_var": ("06_.*#prediction|symptoms", "fast_pred_var"),
    # Other words than the book's, slips of the pen, whole questions, American spelling
    "cholesky failed": ("08_.*#(jitter|the-cliff)|symptoms", "fail"),
    "matrix not positive definite": ("08_.*#(conditioning|jitter|the-cliff)|symptoms", "positive|NotPSD"),
    "load model different predictions": ("02_.*#kind-[36]|symptoms", "load|prediction"),
    "how many restarts do I need?": ("03_.*#how-many-restarts", "restart"),
    "covarince": ("01_.*#three-covariances", "covariance"),
    "CUDA": ("09_.*#the-same-on-a-gpu|symptoms", "GPU|CUDA"),
    "optimizer": ("03_.*#the-optimiser-has-a-say", "optimiser"),
    "row order": ("12_.*#|07_.*#the-order|symptoms", "order"),
    "what is an ulp": ("glossary.*#term-ulp", "place"),
    # What a stranger typed, at eleven at night
    "loss different every call": ("symptoms.*#.*801", "801|likelihood"),
    "mean does not change after setting lengthscale": ("symptoms.*#.*(stale|mean)|02_.*#kind-3", "mean"),
    "SVGP not reproducible": ("symptoms.*#.*svgp", "SVGP"),
    "forgot eval": ("symptoms", "eval"),
    "likelihood changes from call to call": ("symptoms.*#.*801", "likelihood"),
    "default argument kernel shared": ("symptoms", "share|train"),
    "seed": ("symptoms.*#.*(svgp|seed|start)|05_.*#", "seed"),
    "CUDA out of memory": ("symptoms.*#.*out-of-memory", "memory"),
    "not reproducible": ("symptoms", "reproducible|differ"),
    "explain_difference": ("11_.*#what-to-do|symptoms|intro", "explain_difference"),
}


@pytest.fixture
def page(browser, book):  # noqa: F811
    """A chapter, opened from its folder, and what went wrong there; it may ask for no other file than the book's."""
    page = browser.new_page()
    page.problems, page.requests = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto((book / "chapters" / "02_hidden_state.html").as_uri())
    yield page
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def hits(page, query):
    """The first three hits: address, what is shown of it, and the words marked there."""
    page.fill("dialog input", "")
    page.wait_for_function("!document.querySelector('dialog li')")
    page.fill("dialog input", query)
    page.wait_for_selector("dialog li")
    return [
        (
            item.query_selector("a").get_attribute("href"),
            item.inner_text(),
            " ".join(mark.inner_text() for mark in item.query_selector_all("mark")),
        )
        for item in page.query_selector_all("dialog li")[:3]
    ]


def missed(found, place, shown):
    """Why these hits do not answer a reader; empty if they do."""
    leads_to = [address.rpartition("/")[2] for address, *_ in found]
    right = [hit for hit, at in zip(found, leads_to, strict=True) if re.match(place, at)]
    if not right:
        return [f"leads to {leads_to}"]
    return [] if re.search(shown, right[0][1], re.IGNORECASE) else [f"shows {right[0][1]!r}"]


def test_what_readers_ask_leads_to_its_section(page, book):  # noqa: F811
    page.keyboard.press("/")
    problems, unmarked = [], []
    for query, (place, shown) in QUERIES.items():
        found = hits(page, query)
        problems += [f"{query}: {problem}" for problem in missed(found, place, shown)]
        unmarked += [] if any(words for *_, words in found) else [query]
        for address, *_ in found:
            path, _, anchor = address.removeprefix(book.as_uri()).strip("/").partition("#")
            assert f'id="{anchor}"' in (book / path).read_text()
    assert not problems, "\n".join(problems)
    assert not unmarked  # at least one hit shows the words


def test_a_miss_is_one():
    found = [("file:///book/a.html#jitter", "A jitter is added.", "jitter")]
    assert missed(found, "a.*#jitter", "JITTER") == []
    assert missed(found, "b.*#jitter", "jitter") == ["leads to ['a.html#jitter']"]
    assert missed(found, "a.*#jitter", "ladder") == ["shows 'A jitter is added.'"]


def test_nothing_is_loaded_before_the_first_search(page):
    def loaded():
        return {url.rpartition("/")[2] for url in page.requests} & {"sections.js", "minisearch.js"}

    assert not loaded()
    page.keyboard.press("Control+k")
    page.keyboard.type("nothingofthiskind")
    page.get_by_text("No section has these words.").wait_for()
    assert loaded() == {"sections.js", "minisearch.js"}


def test_the_search_is_used_by_keyboard(page):
    page.keyboard.press("/")
    page.keyboard.type("jitter")
    first = page.locator("dialog li a").first
    first.wait_for()
    page.keyboard.press("ArrowDown")
    assert first.evaluate("link => link === document.activeElement")
    page.keyboard.press("ArrowUp")
    page.keyboard.type(" 1/2")  # a slash within the field is a slash
    assert page.input_value("dialog[open] input") == "jitter 1/2"
    page.keyboard.press("Escape")
    assert page.query_selector("dialog[open]") is None
    late = "field => field.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}))"
    page.eval_on_selector("dialog input", late)  # the focus may still be in the field that was closed
    page.fill("dialog input", "kind 3")
    page.wait_for_selector("dialog li a[href$='#kind-3-mode-and-cache']")
    page.click("dialog li a")
    page.wait_for_url("**/02_hidden_state.html#kind-3-mode-and-cache")
    assert page.query_selector("dialog[open]") is None  # the section is on this page, and shows


def test_enter_leads_to_the_page_of_all_hits(page):
    page.keyboard.press("/")
    page.keyboard.type("jitter")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=jitter")
    page.wait_for_selector(".bd-search-container li a")
    assert page.locator(".bd-search-container li a").count() > 5
    # The magnifier of the theme's field does not cover its first letter.
    field, icon = (
        page.query_selector(".bd-search-container input"),
        page.query_selector(".bd-search-container form > :first-child"),
    )
    padding = field.evaluate("field => parseFloat(getComputedStyle(field).paddingLeft)")
    assert field.bounding_box()["x"] + padding >= icon.bounding_box()["x"] + icon.bounding_box()["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_hits_have_no_barriers(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.keyboard.press("/")
    hits(page, "jitter")
    assert barriers(page, code=False) == []


def test_sections_are_what_a_reader_reads():
    html = """<section id=top><h1>1. Title</h1><p>One
      line.</p><table><tr><td>a</td><td>b</td></tr><tr data-verdict=holds><td>again</td></tr></table>
      <button>Copy</button><script>no</script><div class="gp-evidence">no</div><img alt="x">
      <section id=sub><h2>Sub<a class=headerlink>#</a></h2>
      <div class=gp-words hidden>as said</div><pre>x = 1\ny</pre><p>Under<br>it.</p></section>
      <p>After.</p><dl class=glossary><dt id=term-ulp>ulp</dt><dd><p>A distance.</p></dd></dl></section>"""
    assert Sections(html).found == [
        {"anchor": "top", "title": "1. Title", "text": "One line.\na b\nAfter.", "code": "", "words": ""},
        {"anchor": "sub", "title": "Sub", "text": "Under it.", "code": "x = 1\ny", "words": "as said"},
        {"anchor": "term-ulp", "title": "ulp", "text": "A distance.", "code": "", "words": ""},
    ]
