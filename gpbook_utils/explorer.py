"""The explorer: a slider over frames that were computed beforehand, in a page that needs no kernel and no library.

A chapter describes panels, and :func:`show` displays them with a slider that picks the frame::

    map = Panel(xlabel="lengthscale", ylabel="noise variance", xlim=(0.1, 100), ylim=(1e-3, 10), xscale="log", ...)
    map.line(paths_x, paths_y)        # one array a frame: moves with the slider
    map.points(optima_x, optima_y)    # one array of numbers: stays
    explorer.show(starts, [map, ...], label="start", text=sentences, alt="...", caption="...")

Matplotlib draws each panel. Where scripts run, as an SVG that holds what moves once for each frame, of which a script
of a few lines shows one. In print, without scripts, and where notebooks are only viewed, as a png of a few frames.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from IPython.display import Markdown, display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpbook_utils import plots
from gpbook_utils.plots import BLUE

LARGEST = 120_000  # bytes of HTML
STILL = "This picture is still. A slider moves it where scripts run; in JupyterLab, once its cell has been run."

_STYLE = """
.gp-explorer > :is(img, p) { display: none !important; }
.gp-explorer .gp-panels { display: flex; flex-wrap: wrap; gap: 12px; }
.gp-explorer svg { flex: 1 1 300px; min-width: 0; max-width: 460px; height: auto; box-sizing: border-box; }
.gp-explorer svg { padding: 6px; border-radius: 4px; background: #fff; }
.gp-explorer svg * { stroke-linejoin: round; }
.gp-explorer svg :is(text, tspan) { font-family: "DejaVu Sans", Verdana, sans-serif !important; }
.gp-explorer label { display: block; margin: 10px 0 0; }
.gp-explorer input { display: block; width: 100%; min-height: 28px; margin: 4px 0 0; }
.gp-explorer p.gp-said { min-height: 3em; margin: 4px 0; }
@media print { .gp-explorer > img { display: block !important; } .gp-explorer .gp-stage { display: none; } }
"""

# The live part is built by the script, so that a viewer that strips scripts shows the picture and nothing else; so does
# a browser from before 2023, which can't unpack it.
_SCRIPT = """
(async script => {
  const root = script.parentElement;
  const packed = Uint8Array.from(atob(root.querySelector("script").textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const state = await new Response(stream).json();
  root.insertAdjacentHTML("beforeend", state.stage);
  const stage = root.lastElementChild;
  const [input, value, said] = ["input", ".gp-value", ".gp-said"].map(part => stage.querySelector(part));
  const moving = stage.querySelectorAll("[data-frame]");
  const show = () => {
    const frame = input.value;
    moving.forEach(element => { element.style.display = element.dataset.frame === frame ? "" : "none"; });
    value.textContent = state.values[frame];
    said.textContent = state.text[frame];
    input.setAttribute("aria-valuetext", state.values[frame] + ". " + state.text[frame]);
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", event => event.stopPropagation());
  show();
})(document.currentScript);
"""


class Panel:
    """One pair of axes, and what is drawn in it, in the order of the calls.

    An array that is given once stays; a sequence with one array for each frame moves with the slider.

    Args:
        xlabel, ylabel: names of the axes, with their unit.
        xlim, ylim: their ends, the lower one first; what lies outside is not seen.
        xscale, yscale: ``"linear"`` or ``"log"``.
        title: a few words above the axes.

    Attributes:
        frames: the number of frames, or ``None`` while nothing moves.

    Raises:
        ValueError: for limits that are not two increasing finite numbers, or not positive on a logarithmic axis; or
            for another scale.

    >>> panel = Panel(xlabel="x", ylabel="y", xlim=(0, 1), ylim=(0, 1))
    >>> panel.line([0, 1], [[0, 1], [1, 0], [0, 0]])
    >>> panel.frames
    3
    """

    def __init__(
        self,
        *,
        xlabel: str,
        ylabel: str,
        xlim: tuple[float, float],
        ylim: tuple[float, float],
        xscale: str = "linear",
        yscale: str = "linear",
        title: str = "",
    ):
        for name, limits, scale in (("x", xlim, xscale), ("y", ylim, yscale)):
            ends = np.asarray(limits, dtype=float)
            if scale not in ("linear", "log"):
                raise ValueError(f"{name}scale must be 'linear' or 'log'; got {scale!r}")
            if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
                raise ValueError(f"{name}lim must be two finite numbers, the smaller first; got {limits!r}")
            if scale == "log" and ends[0] <= 0:
                raise ValueError(f"{name}lim must be positive on a logarithmic axis; got {limits!r}")
        self.title, self.ylabel = title, ylabel
        self.frames: int | None = None
        self._settings = {"xscale": xscale, "yscale": yscale, "xlim": xlim, "ylim": ylim}
        self._settings |= {"xlabel": xlabel, "ylabel": ylabel, "title": title}
        self._items: list[tuple[Callable[..., Artist], list[dict]]] = []

    def line(self, x, y, *, colour: str = BLUE, label: str = "", width: float = 2, dashed: bool = False) -> None:
        """Draw a line through the points, or one for each frame.

        Args:
            x: shape (m,), or a sequence with an array for each frame, whose lengths may differ.
            y: the same.
            colour: as ``#rrggbb``.
            label: in the key; empty for none.
            width: in pixels.
            dashed: broken, so that it does not depend on its colour.

        Raises:
            ValueError: if x and y do not match, hold NaN or infinite numbers, or numbers that a logarithmic axis can't
                show; or if another item has another number of frames.
        """
        style = {"linewidth": 0.9 * width, "linestyle": "--" if dashed else "-"}
        self._add(lambda ax, x, y: ax.plot(x, y, color=colour, label=label, **style)[0], colour, x=x, y=y)

    def band(self, x, low, high, *, colour: str = BLUE, label: str = "") -> None:
        """Draw the area between two lines, pale. Arguments and errors as for :meth:`line`."""
        style = {"color": colour, "label": label, "alpha": 0.2, "linewidth": 0}
        self._add(lambda ax, x, low, high: ax.fill_between(x, low, high, **style), colour, x=x, low=low, high=high)

    def points(self, x, y, *, colour: str = BLUE, label: str = "", size: float = 7, hollow: bool = False) -> None:
        """Draw discs of ``size`` pixels across, hollow on demand. Arguments and errors as for :meth:`line`."""
        style = {"markersize": 0.7 * size, "markerfacecolor": "white" if hollow else colour, "markeredgewidth": 1.5}
        self._add(lambda ax, x, y: ax.plot(x, y, "o", color=colour, label=label, **style)[0], colour, x=x, y=y)

    def image(self, values, *, cmap: str = "cividis", low: float | None = None, high: float | None = None) -> None:
        """Fill the axes with coloured cells of equal size on the screen.

        Args:
            values: shape (rows, columns), or (frames, rows, columns) to move. The first row is at the lower end of y.
            cmap: name of a colour map of matplotlib.
            low: the value at its lower end; by default the smallest of ``values``.
            high: the value at its upper end; by default the largest.

        Raises:
            ValueError: for another shape, NaN or infinite values, an unknown colour map, or ``low`` not below ``high``.
        """
        cells = np.asarray(values, dtype=float)
        if cells.ndim not in (2, 3) or cells.size == 0 or not np.isfinite(cells).all():
            raise ValueError(
                f"values must be finite, of shape (rows, columns) or (frames, rows, columns); got {cells.shape}"
            )
        if cmap not in mpl.colormaps:
            raise ValueError(f"cmap must be the name of a colour map of matplotlib; got {cmap!r}")
        low, high = cells.min() if low is None else low, cells.max() if high is None else high
        if not low < high:
            raise ValueError(f"the colours need low < high; got {low} and {high}")

        def draw(ax: Axes, cells) -> Artist:
            # In the coordinates of the axes, so that a logarithmic axis does not bend it.
            place: dict[str, Any] = {"extent": (0, 1, 0, 1), "transform": ax.transAxes, "aspect": "auto"}
            return ax.imshow(cells, cmap, vmin=low, vmax=high, interpolation="none", origin="lower", **place)

        self._append(draw, [{"cells": part} for part in (cells if cells.ndim == 3 else cells[None])])

    def _add(self, draw: Callable[..., Artist], colour: str, **given) -> None:
        """Check the coordinates of an item, and sort them by frame."""
        if not mpl.colors.is_color_like(colour) or not str(colour).startswith("#"):
            raise ValueError(f"colour must be written as '#rrggbb'; got {colour!r}")
        parts = {name: _by_frame(name, values) for name, values in given.items()}
        counts = {len(frames) for frames in parts.values()} - {1}
        if len(counts) > 1:
            raise ValueError(f"{', '.join(parts)} move over different numbers of frames: {sorted(counts)}")
        data = []
        for frame in range(max(counts, default=1)):
            arrays = {name: frames[frame if len(frames) > 1 else 0] for name, frames in parts.items()}
            sizes = {name: array.size for name, array in arrays.items()}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"the arrays of frame {frame} must have one length; got {sizes}")
            for name, array in arrays.items():
                if self._settings["xscale" if name == "x" else "yscale"] == "log" and not (array > 0).all():
                    raise ValueError(f"{name} must be positive on a logarithmic axis; frame {frame} has {array.min()}")
            data.append(arrays)
        self._append(draw, data)

    def _append(self, draw: Callable[..., Artist], data: list[dict]) -> None:
        if len(data) > 1:
            if self.frames not in (None, len(data)):
                raise ValueError(f"this moves over {len(data)} frames, what was drawn before over {self.frames}")
            self.frames = len(data)
        self._items.append((draw, data))

    def _draw(self, ax: Axes, frames: Sequence[int]) -> None:
        """Draw what stays, and what moves in each of ``frames``, with the frame in its id."""
        for draw, data in self._items:
            for frame in frames if len(data) > 1 else [0]:
                artist = draw(ax, **data[frame])
                artist.set_zorder(2)  # one for all, so that they lie in the order of the calls
                if len(data) > 1:
                    artist.set_gid(f"frame-{frame}")
                    if frame != frames[0]:
                        artist.set_label("")  # one entry in the key
        ax.set(**self._settings)
        if ax.get_legend_handles_labels()[0]:
            below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 3.6}
            ax.legend(**below, ncols=3, columnspacing=1, handlelength=1.4)

    def _svg(self, alt: str, salt: str) -> str:
        """The panel with all its frames; ``salt`` tells its ids from those of others on the page."""
        nameless = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with plots.style(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
            fig, axes = plots.grid(1, 1, width=4.2, height=3.6)
            self._draw(axes[0][0], range(self.frames or 1))
            fig.savefig(buffer := io.StringIO(), format="svg", transparent=True, metadata=nameless)
            plots.plt.close(fig)
        # A file may style all that it holds, and give everything a name; a part of a page may not.
        svg = re.sub(r"<style.*?</style>", "", buffer.getvalue(), flags=re.S)
        svg = re.sub(r' id="frame-(\d+)"', r' data-frame="\1"', svg[svg.index("<svg") :])
        used = set(re.findall(r"#(\w+)", svg))
        svg = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in used else "", svg)
        # Four digits place a point to a tenth of a pixel.
        svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d+", lambda x: f"{float(x[0]):.4g}", tag[0]), svg)
        return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def show(
    values: Sequence,
    panels: Sequence[Panel],
    *,
    label: str,
    text: Sequence[str],
    alt: str,
    caption: str,
    start: int = 0,
    stills: Sequence[int] | None = None,
) -> None:
    """Display panels with a slider over their frames, then the caption.

    Args:
        values: one for each frame, shown beside the slider: numbers, or short texts.
        panels: what to draw; together they move over ``len(values)`` frames.
        label: what the slider sets, in a few words.
        text: one for each frame: what is seen there, in a sentence. It stands below the slider and is read aloud.
        alt: what the whole shows, for readers who can't see it: at least one full sentence.
        caption: what to conclude, in Markdown.
        start: the frame that is shown first.
        stills: the frames of the picture for print, one below the other; by default the first one shown.

    Raises:
        ValueError: if ``alt``, ``caption`` or a ``text`` is no sentence, a count does not match the number of frames, a
            frame does not exist, nothing moves, or the HTML exceeds 120 kB.
    """
    values = [value if isinstance(value, str) else f"{value:.3g}" for value in values]
    count = len(values)
    if count < 2:
        raise ValueError(f"values must name at least 2 frames; got {count}")
    if not panels or all(panel.frames is None for panel in panels):
        raise ValueError("panels must hold at least one thing that moves; give it one array for each frame")
    for position, panel in enumerate(panels):
        if panel.frames not in (None, count):
            raise ValueError(f"panel {position} moves over {panel.frames} frames, values names {count}")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label must say what the slider sets; got {label!r}")
    if len(text) != count:
        raise ValueError(f"text needs a sentence for each of the {count} frames; got {len(text)}")
    plots.check_sentences(alt=alt, caption=caption, **{f"text of frame {i}": said for i, said in enumerate(text)})
    stills = [start] if stills is None else list(stills)
    for frame in [start, *stills]:
        if frame not in range(count):
            raise ValueError(f"there is no frame {frame!r}; the {count} frames are numbered from 0")
    if not stills:
        raise ValueError("stills is empty: name at least one frame for print")
    with plots.style():
        png, width = plots.encode(_stills(panels, label, values, stills), density=1.5, colours=128)
    page = _page(panels, label, values, text, alt, start, png)
    if len(page.encode()) > LARGEST:
        raise ValueError(
            f"the explorer takes {len(page.encode()) / 1000:.0f} kB, {LARGEST / 1000:.0f} are allowed "
            f"({len(png) / 750:.0f} of them for print): use fewer frames, points, cells or stills"
        )
    bundle = {"text/html": page, "image/png": png, "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt, "width": width}})
    display(Markdown(caption))


def _page(panels, label, values, text, alt, start, png) -> str:
    pairs = enumerate(panels)
    drawn = "".join(panel._svg(f"{panel.title or panel.ylabel}: {alt}", f"{i} {alt}") for i, panel in pairs)
    stage = (
        f'<div class="gp-stage"><style>{_STYLE}</style><div class="gp-panels">{drawn}</div>'
        f"<label>{html.escape(label)}: <strong class='gp-value'></strong>"
        f'<input type="range" min="0" max="{len(values) - 1}" value="{start}" data-lm-suppress-shortcuts="true">'
        '</label><p class="gp-said"></p></div>'
    )
    state = json.dumps({"stage": stage, "values": values, "text": list(text)}).encode()
    return (
        f'<div class="gp-explorer"><img alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}" style="max-width:100%"><p>{STILL}</p>'
        f'<script type="application/gzip">{base64.b64encode(gzip.compress(state, mtime=0)).decode()}</script>'
        f"<script>{_SCRIPT}</script></div>"
    )


def _stills(panels, label, values, stills) -> Figure:
    fig, axes = plots.grid(len(stills), len(panels), width=3.5 * len(panels), height=2.9 * len(stills))
    for row, frame in zip(axes, stills, strict=True):
        for ax, panel in zip(row, panels, strict=True):
            panel._draw(ax, [frame])
        row[0].annotate(
            f"{label}: {values[frame]}", (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    return fig


def _by_frame(name: str, values) -> list[np.ndarray]:
    """One array for each frame, or a single one for numbers, which stay."""
    try:
        frames = [np.asarray(value, dtype=float) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, or one array of numbers for each frame: {error}") from error
    if frames and all(frame.ndim == 0 for frame in frames):
        frames = [np.array(frames)]
    if any(frame.ndim != 1 for frame in frames):
        raise ValueError(f"{name} must be an array of shape (m,), or hold one of shape (m,) for each frame")
    if not frames or not all(frame.size and np.isfinite(frame).all() for frame in frames):
        raise ValueError(f"{name} must hold finite numbers in every frame; got {values}")
    return frames
