"""Figures: alternative text is demanded, bytes repeat, bad input is named."""

import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from gpbook_utils import plots

WORDS = {"alt": "A sentence that says what is seen.", "caption": "A sentence that says what to conclude."}


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(plots, "display", lambda thing, **options: outputs.append((thing, options)))
    return outputs


def test_a_figure_carries_its_text_and_repeats_byte_for_byte(shown):
    for _ in range(2):
        plots.curves([1, 10], {"a line": [1e-3, 1]}, xlabel="x", ylabel="y", **WORDS)
    (first, options), (caption, _), (second, _), _ = shown
    assert first["image/png"] == second["image/png"]
    assert first["text/plain"] == WORDS["alt"] and caption.data == WORDS["caption"]
    metadata = options["metadata"]["image/png"]
    picture = Image.open(io.BytesIO(first["image/png"]))
    assert metadata["alt"] == WORDS["alt"] and picture.width == 2 * metadata["width"]


def test_every_kind_of_figure(shown):
    plots.matrices({"one": np.eye(3), "two": np.ones((3, 3))}, **WORDS)
    plots.ruler({"equal": 0.0, "large": 0.5}, **WORDS)
    runs = {"gap": {"a": np.ones((3, 2)), "b": [[1.0, 2.0]], "c": torch.ones(3, 2)}}
    dashed = {"gap": {"b": [[3.0, 4.0]], "c": torch.ones(3, 2)}}
    plots.bands([10, 20], runs, dashed=dashed, xlabel="m", **WORDS)
    assert len(shown) == 6


def test_a_large_difference_keeps_its_label_on_the_picture(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "show", lambda fig, **_: drawn.append(fig))
    plots.ruler({"small": 1e-3, "large": 5e4}, **WORDS)
    assert drawn[0].axes[0].get_xlim()[1] > 5e4  # matplotlib leaves out the label of a point off the axes


def test_only_an_exact_zero_is_hollow_and_equal(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "show", lambda fig, **_: drawn.append(fig))
    plots.ruler({"equal": 0.0, "tiny": 1e-300, "large": 0.5}, **WORDS)
    (ax,) = drawn[0].axes
    faces = [mpl.colors.to_hex(marks.get_facecolor()[0]) for marks in ax.collections]
    assert faces == ["#ffffff", plots.BLUE.lower(), plots.BLUE.lower()]
    assert [text.get_text() for text in ax.texts] == ["equal", "1e-300", "5e-01"]
    assert [marks.get_offsets()[0, 0] for marks in ax.collections] == [1e-17, 1e-17, 0.5]


def test_the_reader_s_style_is_left_alone(shown):
    before = dict(mpl.rcParams)
    plots.ruler({"equal": 0.0}, **WORDS)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.ruler({"a": 1.0}, alt="a.png", caption=WORDS["caption"]), "alt must be a sentence"),
        (lambda: plots.ruler({"a": 1.0}, alt=WORDS["alt"], caption=""), "caption must be a sentence"),
        (lambda: plots.ruler({}, **WORDS), "differences"),
        (lambda: plots.ruler({"a": float("nan")}, **WORDS), "differences"),
        (lambda: plots.ruler({"a": -1.0}, **WORDS), "differences"),
        (lambda: plots.matrices({}, **WORDS), "titled is empty"),
        (lambda: plots.matrices({"a": np.ones(3)}, **WORDS), "'a' must be a matrix"),
        (lambda: plots.matrices({"a": np.full((2, 2), np.nan)}, **WORDS), "'a' must be a matrix"),
        (lambda: plots.curves([1, 2], {"a": [1]}, xlabel="", ylabel="", **WORDS), "a must hold 2 positive"),
        (lambda: plots.curves([1, 2], {"a": [1, 0]}, xlabel="", ylabel="", **WORDS), "a must hold 2 positive"),
        (lambda: plots.curves([1, 2], {}, xlabel="", ylabel="", **WORDS), "series is empty"),
        (lambda: plots.bands([1, 2], {}, xlabel="", **WORDS), "panels is empty"),
        (lambda: plots.bands([1, 2], {"p": {}}, xlabel="", **WORDS), "panels is empty"),
        (lambda: plots.bands([1, 2], {"p": {"a": [[1]]}}, xlabel="", **WORDS), "'a' in 'p' must hold positive"),
        (lambda: plots.bands([1, 2], {"p": {"a": [[1, -1]]}}, xlabel="", **WORDS), "'a' in 'p' must hold positive"),
        (
            lambda: plots.bands([1], {"p": {"a": [[1]]}}, dashed={"p": {"b": [[1]]}}, xlabel="", **WORDS),
            "dashed 'b' in 'p' has no series",
        ),
        (lambda: plots.figure(0), "columns must be a positive integer"),
    ],
)
def test_bad_input(shown, draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert not shown


def test_a_labelled_table_shows_its_labels_and_names():
    fig, axes = plots.grid(1, 1, width=3, height=2)
    plots.labelled(axes[0][0], [[0, 1]], [["=", "2e-7"]], ["K"], ["one", "two"])
    assert [text.get_text() for text in axes[0][0].texts] == ["=", "2e-7"]
    assert [tick.get_text() for tick in axes[0][0].get_xticklabels()] == ["one", "two"]
    with pytest.raises(ValueError, match=r"shape \(1, 2\) of the names.*got \(1, 2\) and \(1, 1\)"):
        plots.labelled(axes[0][0], [[0, 1]], [["="]], ["K"], ["one", "two"])
    with pytest.raises(ValueError, match="at least one cell"):
        plots.labelled(axes[0][0], [[]], [[]], ["K"], [])
    plots.plt.close(fig)
