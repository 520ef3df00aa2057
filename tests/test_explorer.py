"""The explorer: bad input is named, output obeys the contracts, and a browser can move the slider by keyboard."""

import base64
import gzip
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import look_at, require_browser, serve, visit
from PIL import Image
from playwright.sync_api import sync_playwright

from book.pdf import FLAGS
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


def stage(page: str) -> str:
    packed = re.search(r'<script type="application/gzip">(.*?)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))["stage"]


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
    assert not re.search(r"""\b(src|href)=["'](?!data:|#)|url\((?!#)""", first["text/html"] + stage(first["text/html"]))


def test_what_stays_is_stored_once_and_what_moves_once_a_frame(shown):
    show()
    drawn = stage(shown[0][0]["text/html"])
    for frame in range(FRAMES):
        assert drawn.count(f'data-frame="{frame}"') == 4  # band, line, ring, image
    assert drawn.count("data-frame") == 4 * FRAMES
    assert drawn.count("data:image/png") == FRAMES
    assert drawn.count("fill: #222222") == 2  # the points that stay


def test_a_panel_shares_no_name_with_another_and_styles_only_itself(shown):
    show(panels=[*panels(), *panels()], alt="A line and a matrix, of 0.123456 and 1.5 < 2.")
    drawn = stage(shown[0][0]["text/html"])
    names = re.findall(r' id="([^"]*)"', drawn)
    assert names and len(names) == len(set(names))
    assert set(re.findall(r"""#(\w+)[")]""", drawn)) >= set(names)
    assert drawn.count("<style") == 1  # matplotlib's own would style every picture of the page
    assert drawn.count("0.123456 and 1.5 &lt; 2.") == 4  # only coordinates are rounded


def test_items_lie_in_the_order_of_the_calls(shown):
    panel = Panel(**AXES)
    panel.points([1], [[0]] * FRAMES, colour="#123456")
    panel.image([[0, 1]])
    panel.line([1, 2], [0, 1], colour="#654321")
    show(panels=[panel])
    drawn = stage(shown[0][0]["text/html"])
    assert drawn.index("#123456") < drawn.index("<image") < drawn.index("#654321")


def corners(frames: bool) -> Panel:
    """Four cells with four colours of viridis; the numbers say where they belong."""
    panel = Panel(**AXES)
    cells = np.array([[0, 1], [2, 3]])  # lower left, lower right, upper left, upper right
    panel.image([cells[:, ::-1], *[cells] * (FRAMES - 1)] if frames else cells, cmap="viridis")
    panel.points([[1]] * FRAMES, [[0]] * FRAMES, size=1)
    return panel


def assert_upright(png: bytes) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    colours = (68, 1, 84), (49, 104, 142), (53, 183, 121), (253, 231, 37)
    cells = [np.abs(pixels - colour).sum(2) < 30 for colour in colours]
    assert all(0.1 < cell.mean() < 0.2 for cell in cells)  # of the picture: together they fill the axes
    places = [np.argwhere(cell).mean(0) for cell in cells]
    (low, left), (low_too, right), (high, left_too), (high_too, right_too) = places
    assert high + 20 < low and abs(high - high_too) < 5 and abs(low - low_too) < 5  # rows count downwards
    assert left + 20 < right and abs(left - left_too) < 5 and abs(right - right_too) < 5


@pytest.mark.parametrize("frames", [False, True])
def test_the_first_row_of_an_image_is_at_the_lower_end_in_print(shown, frames):
    show(panels=[corners(frames)], start=1)
    assert_upright(shown[0][0]["image/png"])


def test_an_axis_shows_its_limits_and_scale():
    figure = explorer.plots.plt.figure()
    ax = figure.subplots()
    Panel(**AXES)._draw(ax, [0])
    assert ax.get_xlim() == (0.1, 10) and ax.get_ylim() == (-1, 1)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    explorer.plots.plt.close(figure)


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
        (lambda p: p.line([], []), "x must hold finite numbers"),
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


def write_page(shown, folder):
    body = shown[0][0]["text/html"]
    shutil.copy(Path(__file__).parents[1] / "book/theme/static/book.css", folder)  # it has rules for images, too
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>T</title><link rel=icon href='data:,'>"
    main = f'<main class="bd-article"><h1>T</h1><figure>{body}</figure></main>'
    (folder / "page.html").write_text(f"{head}<link rel=stylesheet href=book.css>{main}</html>", encoding="utf-8")
    return folder


@pytest.fixture
def page_folder(shown, tmp_path):
    show(start=1)
    return write_page(shown, tmp_path)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_browser(playwright), args=FLAGS)
        yield browser
        browser.close()


def test_keys_move_every_part(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context() as context:
        page, problems = visit(context, f"{address}/page.html")
        seen = "all => all.filter(e => getComputedStyle(e).display != 'none').map(e => e.dataset.frame)"
        page.wait_for_selector(".gp-stage")
        assert page.locator("[data-frame]").evaluate_all(seen) == ["1"] * 4
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        assert page.locator("[data-frame]").evaluate_all(seen) == ["2"] * 4
        assert page.inner_text(".gp-value") == "2" and page.inner_text(".gp-said") == sentences()[2]
        page.keyboard.press("End")
        assert page.get_attribute("input", "aria-valuetext") == "4. This is the sentence of frame 4."
        assert not page.locator("img").is_visible() and not page.get_by_text(explorer.STILL).is_visible()
        assert problems + look_at(page) == []


@pytest.mark.parametrize("frames", [False, True])
def test_the_first_row_of_an_image_is_at_the_lower_end_on_the_page(chromium, shown, tmp_path, frames):
    show(panels=[corners(frames)], start=1)
    with serve(write_page(shown, tmp_path)) as address, chromium.new_context() as context:
        page, _ = visit(context, f"{address}/page.html")
        page.wait_for_selector(".gp-stage")
        assert_upright(page.locator("svg").screenshot())


def test_print_shows_the_picture(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context() as context:
        page, _ = visit(context, f"{address}/page.html")
        page.wait_for_selector(".gp-stage")
        page.emulate_media(media="print")
        assert page.locator("img").is_visible() and not page.locator("input").is_visible()
        assert not page.get_by_text(explorer.STILL).is_visible()


def test_without_scripts_the_picture_is_all_there_is(chromium, page_folder):
    with serve(page_folder) as address, chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/page.html")
        assert page.locator("img").is_visible()
        assert page.locator("input").count() == 0
        assert [line for line in page.inner_text("main").splitlines() if line] == ["T", explorer.STILL]
