"""Checked prose: sentences in Markdown, decisions in cells, and both on the page."""

import contextlib
import io
import json
import math
import re

import nbformat
import pytest
from nbformat import v4
from playwright.sync_api import sync_playwright
from test_book import ROOT, build, require_browser, write_sample

from book import ledger, lint, prose, stored_claims
from book.pdf import FLAGS
from gpbook_utils import claims
from gpbook_utils.claims import above, decide, exponent, unobservable

WHY = "probes are drawn anew at every call"
TEXT = """\
Ask twice: [a model of 801 points gives two likelihoods](#claim-differs); [at 800 it gives
one $p|y$](#claim-equal "A model of 800 points, asked twice, gives one likelihood."), as
[chapter 1](01_other.ipynb#claim-elsewhere) says. [On a GPU too](#claim-gpu).
"""


def outcome(id, check, kind=claims.FINDING, sentence=""):
    check = check if isinstance(check, claims.Check) else claims.Check(claims.HOLDS if check else claims.REFUTED)
    return v4.new_output("display_data", claims.Decision(id, sentence, check, kind)._repr_mimebundle_())


def cell(*outputs, source="decide(...)", count=1):
    return v4.new_code_cell(source, execution_count=count, outputs=list(outputs))


OUTCOMES = [
    outcome("differs", above(3e-3, 1e-5, reason=WHY)),
    outcome("equal", True),
    outcome("gpu", unobservable("no GPU")),
    outcome("control", True, claims.CHECK, "The control draws no random number."),
]


def notebook_of(*markdown, outputs=OUTCOMES, source="decide(...)"):
    cells = [*map(v4.new_markdown_cell, markdown), cell(*outputs, source=source)]
    return v4.new_notebook(cells=cells)


# Decisions.


@pytest.mark.parametrize(
    ("check", "text"),
    [(True, "[holds] it\n"), (above(1, 2, reason=WHY), "[refuted] it (measured 1; needed above 2)\n")],
)
def test_a_decision_is_one_portable_line(check, text, capsys):
    decide("it", check)
    decide("it", check, check="It is so.")
    assert capsys.readouterr().out == text * 2


def test_what_a_decision_stores(monkeypatch, tmp_path):
    monkeypatch.setenv("GPBOOK_VERDICTS", str(tmp_path / "log"))
    with contextlib.redirect_stdout(io.StringIO()):
        decide("a", above(3, 1, reason=WHY))
        decide("b", True, check="It is so.")
    a, b = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (a["kind"], a["sentence"], a["measured"], a["bound"]) == ("finding", "", "3", "above 1")
    assert (b["kind"], b["sentence"], b["verdict"]) == ("check", "It is so.", "holds")


def test_bad_decisions_are_refused():
    for arguments, message in [
        (("Two words", True), "id must be"),
        (("a", 1), "truth value"),
        (("a", True, "No full stop"), "full stop"),
        (("a", True, ""), "check of claim 'a'"),
    ]:
        id, check, *sentence = arguments
        with pytest.raises(ValueError, match=message):
            decide(id, check, **({"check": sentence[0]} if sentence else {}))


def test_the_guard_watches_decisions(monkeypatch):
    monkeypatch.setenv("GPBOOK_GUARD", "3")
    with pytest.raises(claims.GuardError, match="'a' holds by a factor 2 only"):
        decide("a", above(2, 1, reason=WHY))


def test_the_digest_is_made_of_id_kind_and_bound():
    one = {"id": "a", "kind": "finding", "bound": "below 1", "sentence": "One."}
    assert claims.digest(one) == claims.digest(one | {"sentence": "Another."})
    others = [one | change for change in ({"id": "b"}, {"kind": "check"}, {"bound": "below 2"})]
    assert len({claims.digest(stored) for stored in [one, *others]}) == 4


def test_an_exponent_is_the_slope_of_the_logarithms():
    x = [1, 10, 100, 1000]
    assert exponent(x, [3 * v**-0.5 for v in x], -0.5, tol=0.01, reason=WHY).measured == "-0.5"
    near = exponent(x, [v**1.1 for v in x], 1, tol=0.3, reason=WHY)
    assert near.verdict == claims.HOLDS and near.slack == pytest.approx(3)
    assert exponent(x, [v**1.4 for v in x], 1, tol=0.3, reason=WHY).verdict == claims.REFUTED


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 0, 1], [math.nan, 1, 1], [-1, -1, -1], [math.inf, 1, 1]])
def test_where_nothing_moved_there_is_no_law(y):
    assert exponent([1, 2, 3], y, 0, tol=1, reason=WHY).verdict == claims.REFUTED


@pytest.mark.parametrize(
    ("x", "y", "tol", "message"),
    [
        ([1, 2], [1, 2], 1, "at least three"),
        ([1, 2, 3], [1, 2], 1, "y must be 3 numbers"),
        ([2, 2, 2], [1, 2, 3], 1, "not all equal"),
        ([0, 1, 2], [1, 2, 3], 1, r"x\[0\] must be one finite real number, above 0"),
        ([1, 2, math.inf], [1, 2, 3], 1, r"x\[2\] must be one finite"),
        ([1, 2, 3], [1, 2, 3], 0, "tol must be"),
        ([1, 2, 3], ["a", 2, 3], 1, r"y\[0\] must be one real number"),
    ],
)
def test_bad_exponents_are_refused(x, y, tol, message):
    with pytest.raises(ValueError, match=message):
        exponent(x, y, 1, tol=tol, reason=WHY)


# Sentences.


def test_sentences_are_read_as_the_page_reads_them():
    found = {mention.id: mention for mention in prose.mentions(TEXT)}
    assert found["differs"].sentence == "A model of 801 points gives two likelihoods."
    assert found["equal"].sentence == "A model of 800 points, asked twice, gives one likelihood."
    assert found["equal"].text == "at 800 it gives one $p|y$"
    assert found["elsewhere"].file == "01_other.ipynb" and not found["gpu"].file


@pytest.mark.parametrize(
    "text",
    ["`[code](#claim-a)`", "```\n[code](#claim-a)\n```", "[other](#section)", "![image](#claim-a)", "$[x](#claim-a)$"],
)
def test_what_is_no_sentence(text):
    assert prose.mentions(text) == []


def test_stored_claims_join_the_prose(tmp_path, capsys):
    path = tmp_path / "01_x.ipynb"
    nbformat.write(notebook_of(TEXT), path)
    read = {claim["id"]: claim for claim in stored_claims.read(path)}
    assert read["differs"]["sentence"] == "A model of 801 points gives two likelihoods."
    assert read["control"]["sentence"] == "The control draws no random number."
    assert ledger.main([str(path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(c["id"], c["kind"], c["verdict"], c["chapter"]) for c in listed][2:] == [
        ("gpu", "finding", "not observable here", "01_x"),
        ("control", "check", "holds", "01_x"),
    ]


# The lint.


def problems(*markdown, outputs=OUTCOMES, source="decide(...)", rule=lint.sentences):
    return "\n".join(rule(ROOT / "chapters" / "01_new.ipynb", notebook_of(*markdown, outputs=outputs, source=source)))


def test_a_chapter_in_checked_prose_passes():
    for rule in lint.PROSE_RULES:
        assert problems(TEXT, rule=rule) == ""


def test_the_rules_of_checked_prose_hold_for_notebooks():
    assert {*lint.PROSE_RULES} <= {*lint.rules_for(ROOT / "01_new.ipynb")}
    assert not {*lint.PROSE_RULES} & {*lint.rules_for(ROOT / "intro.md")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT + "[Again](#claim-differs).", "'differs' stands in cell 1 already; write 01_new.ipynb#claim-differs"),
        (TEXT + "[Nobody](#claim-nobody).", "'nobody' is decided by no cell here"),
        (TEXT.replace("[On a GPU too](#claim-gpu)", "On a GPU too"), "'gpu' has no sentence in the prose"),
        (TEXT.replace("[On a GPU too]", "# [On a GPU too]"), "stands in a heading"),
        (TEXT + "<details><summary>[x](01_new.ipynb#claim-gpu)</summary>\n\ny\n\n</details>", "in a <summary>"),
    ],
)
def test_sentences_and_decisions_belong_together(text, says):
    text = text.replace(" # [On", "\n\n# [On")
    assert says in problems(text)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("a ninth of the value, on which machines agree", "how a bound was chosen"),
        ("thirty times the measured spread", "how a bound was chosen"),
        ("a model of 800 days loses 0.0123 of it", "repeats what was measured, 0.0123"),
    ],
)
def test_a_reason_is_a_mechanism(reason, says):
    assert says in problems(TEXT, outputs=[outcome("a", above(0.0123, 1e-3, reason=reason))], rule=lint.mechanisms)


def test_a_deciding_cell_shows_nothing_else():
    printed = v4.new_output("stream", text="1\n")
    assert "shows something else" in problems(TEXT, outputs=[*OUTCOMES, printed], rule=lint.deciding_cells)


def test_code_fits_the_page():
    assert "81 columns, 80 fit the page" in problems(TEXT, source="x" * 81, rule=lint.width)
    assert problems(TEXT, source="x" * 80, rule=lint.width) == ""


def test_a_number_in_a_sentence_is_one_of_its_decision():
    path = ROOT / "chapters" / "01_new.ipynb"
    text = "[Up to 1234 points nothing differs](#claim-equal)."
    assert lint.numbers_in_prose(path, notebook_of(text, source='decide("equal", n == 1234)')) == []
    assert "1234 is typed" in lint.numbers_in_prose(path, notebook_of(text, source='decide("equal", n == 12)'))[0]


def test_a_mention_of_another_chapter_leads_to_a_claim():
    here, there = ROOT / "chapters" / "02_here.ipynb", ROOT / "chapters" / "01_there.ipynb"
    book = {there: notebook_of(TEXT), here: notebook_of("[x](01_there.ipynb#claim-gpu), [y](01_there.ipynb#claim-no)")}
    (problem, *others) = (line for line in lint.mentioned_claims(book) if "elsewhere" not in line)
    assert "01_there.ipynb makes no claim 'no'" in problem and not others


# The page.


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder of a built book of one page in checked prose, with a record of one machine."""
    folder = tmp_path_factory.mktemp("checked")
    table = "| law |\n|---|\n| [no $p$](intro.ipynb#claim-equal) |"
    source = write_sample(
        folder / "source",
        v4.new_markdown_cell(TEXT.replace("01_other.ipynb#claim-elsewhere", "intro.ipynb#claim-differs")),
        v4.new_markdown_cell(table),
        cell(*OUTCOMES),
    )
    stored = stored_claims.read(source / "intro.ipynb")
    (source / "records").mkdir()
    for name, measured in (("a", "0.002"), ("b", "0.004")):
        entries = {c["id"]: {"verdict": "holds", "measured": measured, "digest": claims.digest(c)} for c in stored}
        (source / "records" / f"{name}.json").write_text(json.dumps({"machine": name, "claims": entries}))
    result = build(source, folder)
    assert result.returncode == 0, result.stdout[-6000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=require_browser(driver), args=FLAGS)
        yield browser
        browser.close()


def test_a_sentence_without_a_decision_stops_the_build(tmp_path):
    source = write_sample(tmp_path / "source", v4.new_markdown_cell("[Nobody](#claim-nobody) says so."))
    result = build(source, tmp_path)
    assert result.returncode and "no cell decides the claim 'nobody'" in result.stdout


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scripts", [True, False])
def test_the_evidence_opens_by_mouse_and_keyboard(page, browser, width, scripts):
    context = browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=scripts)
    tab = context.new_page()
    tab.goto((page / "intro.html").as_uri())
    mark, evidence = tab.locator(".gp-mark").first, tab.locator("#evidence-differs")
    assert not evidence.is_visible()
    mark.click()
    assert evidence.is_visible()
    words, shown, box = (item.bounding_box() for item in (tab.locator(".gp-claimed").first, evidence, mark))
    below = shown["y"] >= box["y"] + box["height"] - 1
    assert below and shown["x"] >= 0 and shown["x"] + shown["width"] <= width
    assert words["y"] + words["height"] <= shown["y"] + 8
    text = evidence.inner_text()
    for part in ("holds", "measured here", "0.003", "above 1e-05", WHY, "2 of 2 recorded machines, 0.002 to 0.004"):
        assert part in text
    tab.keyboard.press("Escape")
    assert not evidence.is_visible()
    mark.focus()
    tab.keyboard.press("Enter")
    assert evidence.is_visible()
    context.close()


def test_what_a_listener_hears(page, browser):
    tab = browser.new_page()
    tab.goto((page / "intro.html").as_uri())
    names = [button.get_attribute("aria-label") for button in tab.locator(".gp-mark").all()]
    assert names == [
        "holds; evidence 1",
        "holds; evidence 2",
        "holds; evidence 1",
        "not observable here; evidence 3",
        "holds; evidence 2",
    ]
    size = tab.evaluate("() => getComputedStyle(document.querySelector('.gp-mark'), '::after').width")
    assert float(size.removesuffix("px")) >= 24
    tab.close()


def test_a_claimed_sentence_reads_as_text(page):
    html = (page / "intro.html").read_text()
    assert re.search(
        r'<span class="gp-claimed">a model of 801 points gives two <span class="gp-tail">likelihoods<button', html
    )
    assert html.count('id="claim-differs"') == html.count('id="evidence-differs"') == 1
    assert "How this is decided: differs, equal, gpu, control" in html
    assert "What this page claims: 3 findings and 1 check" in html


def test_print_shows_numbers_and_notes(page, browser):
    tab = browser.new_page()
    tab.goto((page / "intro.html").as_uri())
    tab.emulate_media(media="print")
    assert not tab.locator(".gp-mark").first.is_visible() and tab.locator(".gp-note").first.is_visible()
    assert [note.inner_text() for note in tab.locator(".gp-note").all()] == ["1", "2", "1", "3", "2"]
    tab.close()


def test_in_jupyterlab_a_decision_is_a_line_to_which_a_sentence_leads():
    html = OUTCOMES[0]["data"]["text/html"]
    assert 'id="claim-differs"' in html and "measured 0.003; bound above 1e-05" in html
    assert "style=" not in html
