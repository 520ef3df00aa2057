"""The explorer: bad input is named, output obeys the contracts, and a browser can move the slider by keyboard."""

import base64
import re

import numpy as np
import pytest
from browser import FLAGS, look_at, require_browser, serve, visit
from playwright.sync_api import sync_playwright

from gpbook_utils import explorer
from gpbook_utils.explorer import Panel

FRAMES = 5
AXES = {"xlabel": "lengthscale", "ylabel": "a < b", "xlim": (0.1, 10), "ylim": (-1, 1), "xscale": "log"}
WORDS = {
    "label": "Start",
    "alt": "A line and a matrix, which move with the slider.",
    "caption": "A sentence that says what to conclude.",
}


def panels() -> list[Panel]:
    lines, cells = Panel(**AXES, title="Curves & points"), Panel(**AXES)
    x = np.geomspace(0.1, 10, 9)
    heights = [np.sin(x * i) for i in range(FRAMES)]
    lines.band(x, [h - 0.1 for h in heights], [h + 0.1 for h in heights], label="band")
    lines.line(x, heights, colour="#D55E00", label="mean", dashed=True)
    lines.points([[1.0]] * FRAMES, [[i / 5] for i in range(FRAMES)], hollow=True)
    lines.points([1, 2], [0, 0.5], colour="#222222")
    cells.image(np.random.default_rng(0).random((FRAMES, 4, 6)))
    return [lines, cells]


def sentences() -> list[str]:
    return [f"This is the sentence of frame {i}." for i in range(FRAMES)]


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(explorer, "display", lambda thing, **options: outputs.append((thing, options)))
    return outputs


def show(**changes):
    given = {"values": range(FRAMES), "panels": panels(), "text": sentences(), **WORDS, **changes}
    explorer.show(given.pop("values"), given.pop("panels"), **given)


def test_the_output_has_three_forms_and_repeats_byte_for_byte(shown):
    show(stills=(0, 4))
    show(stills=(0, 4))
    (first, options), (caption, _), (second, _), _ = shown
    assert first == second and set(first) == {"text/html", "image/png", "text/plain"}
    assert first["text/plain"] == WORDS["alt"] == options["metadata"]["image/png"]["alt"]
    assert base64.b64encode(first["image/png"]).decode() in first["text/html"]
    assert caption.data == WORDS["caption"]
    assert len(first["text/html"]) < explorer.LARGEST
    assert not re.search(r"https?://|\bsrc=\"(?!data:)", first["text/html"])


def test_what_stays_is_stored_once_and_what_moves_once_a_frame(shown):
    show()
    page = shown[0][0]["text/html"]
    assert page.count("data-moves") - explorer._SCRIPT.count("data-moves") == 4  # band, line, ring, image
    assert page.count("data:image/png") == 1 + 1 + FRAMES  # for print; the first cells on the stage; those that move


def test_ticks():
    panel = Panel(**{**AXES, "xlim": (1e-5, 1e4)})
    names = [name for _, name in panel.x.ticks()]
    assert {"10⁻⁴", "0.01", "1", "100", "10⁴"} <= set(names)
    assert [name for _, name in panel.y.ticks()] == ["−0.8", "−0.4", "0", "0.4", "0.8"]
    assert panel.x.place(np.array([1e-5, 1e4])).tolist() == [52, 328]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"xlim": (1, 0)}, "xlim must be two finite numbers"),
        ({"ylim": (0, np.nan)}, "ylim must be two finite numbers"),
        ({"xlim": (0, 1)}, "xlim must be positive"),
        ({"yscale": "cubic"}, "yscale must be 'linear' or 'log'"),
    ],
)
def test_bad_axes(changes, problem):
    with pytest.raises(ValueError, match=problem):
        Panel(**AXES | changes)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda p: p.line([], []), "x is empty"),
        (lambda p: p.line([1, 2], [1]), "one length"),
        (lambda p: p.line([1, 2], [1, np.inf]), "y must hold finite"),
        (lambda p: p.line([0, 2], [1, 1]), "x must be positive"),
        (lambda p: p.line([1, 2], ["a", "b"]), "y must hold numbers"),
        (lambda p: p.line([1, 2], [[1, 1], 1]), "y must be an array"),
        (lambda p: p.line([[1]] * 2, [[1]] * 3), "different numbers of frames"),
        (lambda p: p.line([1], [1], colour="red"), "colour must be written"),
        (lambda p: (p.line([1], [[1]] * 2), p.points([1], [[1]] * 3)), "3 frames, what was drawn before over 2"),
        (lambda p: p.band([1, 2], [0, 0], [1]), "one length"),
        (lambda p: p.image([1, 2]), "shape"),
        (lambda p: p.image([[1, np.nan]]), "finite"),
        (lambda p: p.image([[1, 1]]), "low < high"),
        (lambda p: p.image([[1, 2]], cmap="nosuch"), "colour map"),
    ],
)
def test_bad_items(call, problem):
    with pytest.raises(ValueError, match=problem):
        call(Panel(**AXES))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"values": [1]}, "at least 2 frames"),
        ({"values": range(4), "text": sentences()[:4]}, "panel 0 moves over 5 frames, values names 4"),
        ({"panels": []}, "at least one thing that moves"),
        ({"panels": [Panel(**AXES)]}, "at least one thing that moves"),
        ({"label": " "}, "label must say"),
        ({"text": sentences()[:4]}, "text needs a sentence for each of the 5"),
        ({"text": ["short"] * FRAMES}, "text of frame 0"),
        ({"alt": ""}, "alt must be a sentence"),
        ({"caption": "No stop"}, "caption must be a sentence"),
        ({"start": 5}, "no frame 5"),
        ({"stills": [9]}, "no frame 9"),
        ({"stills": []}, "stills is empty"),
    ],
)
def test_bad_explorers(shown, changes, problem):
    with pytest.raises(ValueError, match=problem):
        show(**changes)
    assert shown == []


def test_too_large_is_refused(shown, monkeypatch):
    monkeypatch.setattr(explorer, "LARGEST", 1000)
    with pytest.raises(ValueError, match="use fewer frames"):
        show()


# In a browser


@pytest.fixture
def page_folder(shown, tmp_path):
    show(start=1)
    body = shown[0][0]["text/html"]
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>T</title><link rel=icon href='data:,'>"
    (tmp_path / "page.html").write_text(f"{head}<main><h1>T</h1>{body}</main></html>", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_browser(playwright), args=FLAGS)
        yield browser
        browser.close()


def test_keys_move_every_part(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context() as context:
        page, problems = visit(context, f"{address}/page.html")
        moving = page.locator("[data-moves]")
        before = moving.evaluate_all("all => all.map(e => e.getAttribute(e.dataset.moves))")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        after = moving.evaluate_all("all => all.map(e => e.getAttribute(e.dataset.moves))")
        assert len(after) == 4 and all(a != b for a, b in zip(after, before, strict=True))
        assert page.inner_text(".gp-value") == "2" and page.inner_text(".gp-said") == sentences()[2]
        page.keyboard.press("End")
        assert page.get_attribute("input", "aria-valuetext") == "4. This is the sentence of frame 4."
        assert not page.locator("img").is_visible()
        assert problems + look_at(page) == []


def test_print_shows_the_picture(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context() as context:
        page, _ = visit(context, f"{address}/page.html")
        page.emulate_media(media="print")
        assert page.locator("img").is_visible() and not page.locator("input").is_visible()


def test_without_scripts_the_picture_is_all_there_is(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/page.html")
        assert page.locator("img").is_visible()
        assert page.locator("input").count() == 0
        assert page.inner_text("main") == "T"
