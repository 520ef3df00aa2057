"""The explorer: a slider over frames that were computed beforehand, in a page that needs no kernel and no library.

A chapter describes panels, and :func:`show` displays them with a slider that picks the frame::

    map = Panel(xlabel="lengthscale", ylabel="noise variance", xlim=(0.1, 100), ylim=(1e-3, 10), xscale="log", ...)
    map.line(paths_x, paths_y)        # one array a frame: moves with the slider
    map.points(optima_x, optima_y)    # one array of numbers: stays
    explorer.show(starts, [map, ...], label="start", text=sentences, alt="...", caption="...")

The same description makes two pictures. Where scripts run, that is an SVG for each panel, in which a script of a few
lines sets attributes. In print, without scripts, and where notebooks are only viewed, it is a png of a few frames.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from gpbook_utils import plots
from gpbook_utils.plots import BLUE

LARGEST = 120_000  # bytes of HTML
_WIDTH, _HEIGHT = 340, 290  # of a panel, in the units of its SVG
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 26, 328, 244  # of its axes
_SCALES = ("linear", "log")

_STYLE = """
.gp-explorer.live > img, .gp-explorer .gp-stage { display: none; }
.gp-explorer.live .gp-stage { display: block; }
.gp-explorer .gp-panels { display: flex; flex-wrap: wrap; gap: 12px; }
.gp-explorer .gp-panel { flex: 1 1 300px; max-width: 460px; padding: 6px; border-radius: 4px; background: #fff; }
.gp-explorer svg { display: block; width: 100%; height: auto; }
.gp-explorer svg text { font: 12px "DejaVu Sans", Verdana, sans-serif; fill: #222; }
.gp-explorer svg path { vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.gp-explorer image { image-rendering: pixelated; }
.gp-explorer .gp-keys { margin: 2px 4px; color: #222; font-size: 12px; }
.gp-explorer .gp-keys span { display: inline-block; margin-right: 12px; }
.gp-explorer .gp-keys i { display: inline-block; width: 14px; height: 4px; margin-right: 5px; vertical-align: middle; }
.gp-explorer label { display: block; margin: 10px 0 0; }
.gp-explorer input { display: block; width: 100%; min-height: 28px; margin: 4px 0 0; }
.gp-explorer p.gp-said { min-height: 3em; margin: 4px 0; }
@media print { .gp-explorer.live > img { display: block; } .gp-explorer.live .gp-stage { display: none; } }
"""

# The live part is built by the script, so that a viewer that strips scripts shows the picture and nothing else.
_SCRIPT = """
(script => {
  const root = script.parentElement;
  const state = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  root.insertAdjacentHTML("beforeend", state.stage);
  const stage = root.lastElementChild;
  const [input, value, said] = ["input", ".gp-value", ".gp-said"].map(part => stage.querySelector(part));
  const moving = stage.querySelectorAll("[data-moves]");
  const show = () => {
    const frame = Number(input.value);
    moving.forEach((element, k) => element.setAttribute(element.dataset.moves, state.moves[k][frame]));
    value.textContent = state.values[frame];
    said.textContent = state.text[frame];
    input.setAttribute("aria-valuetext", state.values[frame] + ". " + state.text[frame]);
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", event => event.stopPropagation());
  show();
  root.classList.add("live");
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
        self.xlabel, self.ylabel, self.title = xlabel, ylabel, title
        self.x = _Axis("x", xlim, xscale, _LEFT, _RIGHT)
        self.y = _Axis("y", ylim, yscale, _BOTTOM, _TOP)
        self._items: list[_Item] = []

    @property
    def frames(self) -> int | None:
        """The number of frames, or ``None`` while nothing moves."""
        return next((count for item in self._items if (count := item.frames)), None)

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
        self._add(_Line(self, {"x": x, "y": y}, colour, label, width, dashed))

    def band(self, x, low, high, *, colour: str = BLUE, label: str = "") -> None:
        """Draw the area between two lines, pale. Arguments and errors as for :meth:`line`."""
        self._add(_Band(self, {"x": x, "y": low, "high": high}, colour, label))

    def points(self, x, y, *, colour: str = BLUE, label: str = "", size: float = 7, hollow: bool = False) -> None:
        """Draw discs of ``size`` pixels across, hollow on demand. Arguments and errors as for :meth:`line`."""
        self._add(_Points(self, {"x": x, "y": y}, colour, label, size, hollow))

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
        self._add(_Cells(self, values, cmap, low, high))

    def _add(self, item: _Item) -> None:
        if item.frames and self.frames and item.frames != self.frames:
            raise ValueError(f"this moves over {item.frames} frames, what was drawn before over {self.frames}")
        self._items.append(item)

    def _svg(self, alt: str, moves: list[list[str]]) -> str:
        """The panel as SVG with its key; what moves is appended to ``moves`` in the order of the elements."""
        x, y = self.x, self.y
        box = f'x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}"'
        ticks = "".join(
            f'<path d="M{at} {_BOTTOM}v4" stroke="#666"/><text x="{at}" y="{_BOTTOM + 17}" '
            f'text-anchor="middle">{name}</text>'
            for at, name in x.ticks()
        ) + "".join(
            f'<path d="M{_LEFT} {at}h-4" stroke="#666"/><text x="{_LEFT - 7}" y="{at + 4}" '
            f'text-anchor="end">{name}</text>'
            for at, name in y.ticks()
        )
        words = (
            f'<text x="{_LEFT}" y="15">{html.escape(self.title)}</text>'
            f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(self.xlabel)}</text>'
            f'<text transform="translate(12 {(_TOP + _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(self.ylabel)}</text>"
        )
        drawn = []
        for item in self._items:
            states = item.states()
            if item.frames:
                moves.append(states)
            moving = f' data-moves="{item.attribute}"' if item.frames else ""
            drawn.append(item.element(states[0], moving))
        keys = "".join(
            f'<span><i style="background:{item.colour}"></i>{html.escape(item.label)}</span>'
            for item in self._items
            if item.label
        )
        # An inner svg clips what lies outside the axes.
        return (
            f'<div class="gp-panel"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(alt)}">'
            f'<svg {box} viewBox="{_LEFT} {_TOP} {_RIGHT - _LEFT} {_BOTTOM - _TOP}">{"".join(drawn)}</svg>'
            f'<rect {box} fill="none" stroke="#666"/>{ticks}{words}</svg>'
            + (f'<div class="gp-keys">{keys}</div>' if keys else "")
            + "</div>"
        )

    def _draw(self, ax: Axes, frame: int, *, key: bool) -> None:
        """The panel in matplotlib, with the items of one frame."""
        for item in self._items:
            item.draw(ax, frame if item.frames else 0)
        ax.set(xscale=self.x.scale, yscale=self.y.scale, xlim=self.x.limits, ylim=self.y.limits)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel, title=self.title)
        if key and any(item.label for item in self._items):
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize=9)


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
    moves: list[list[str]] = []
    drawn = "".join(panel._svg(f"{panel.title or panel.ylabel}: {alt}", moves) for panel in panels)
    stage = (
        f'<div class="gp-stage"><style>{_STYLE}</style><div class="gp-panels">{drawn}</div>'
        f"<label>{html.escape(label)}: <strong class='gp-value'></strong>"
        f'<input type="range" min="0" max="{len(values) - 1}" value="{start}" data-lm-suppress-shortcuts="true">'
        '</label><p class="gp-said"></p></div>'
    )
    state = {"stage": stage, "values": values, "text": list(text), "moves": moves}
    stored = json.dumps(state, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="gp-explorer"><img alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}" style="max-width:100%">'
        f'<script type="application/json">{stored}</script><script>{_SCRIPT}</script></div>'
    )


def _stills(panels, label, values, stills):
    columns = len(panels)
    fig, axes = plots.grid(len(stills), columns, width=3.5 * max(columns, 1), height=2.9 * len(stills))
    for row, frame in zip(axes, stills, strict=True):
        for ax, panel in zip(row, panels, strict=True):
            with plots.style():
                panel._draw(ax, frame, key=frame == stills[-1])
        row[0].annotate(
            f"{label}: {values[frame]}", (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    return fig


class _Axis:
    """Limits and scale of an axis, and where a number lies on the screen."""

    def __init__(self, name: str, limits, scale: str, start: float, end: float):
        if scale not in _SCALES:
            raise ValueError(f"{name}scale must be 'linear' or 'log'; got {scale!r}")
        ends = np.asarray(limits, dtype=float)
        if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
            raise ValueError(f"{name}lim must be two finite numbers, the smaller first; got {limits!r}")
        if scale == "log" and ends[0] <= 0:
            raise ValueError(f"{name}lim must be positive on a logarithmic axis; got {limits!r}")
        self.name, self.limits, self.scale = name, (float(ends[0]), float(ends[1])), scale
        self._ends = self._transform(ends)
        self._start, self._length = start, end - start

    def _transform(self, values: np.ndarray) -> np.ndarray:
        return np.log10(values) if self.scale == "log" else values

    def place(self, values: np.ndarray) -> np.ndarray:
        low, high = self._ends
        at = self._start + self._length * (self._transform(values) - low) / (high - low)
        return np.round(np.clip(at, -1000, 2000), 1)  # far outside is as good as infinitely far

    def edges(self, cells: int) -> np.ndarray:
        low, high = self._ends
        edges = np.linspace(low, high, cells + 1)
        return 10**edges if self.scale == "log" else edges

    def ticks(self) -> list[tuple[float, str]]:
        low, high = self.limits
        if self.scale == "linear":
            at = MaxNLocator(5).tick_values(low, high)
        else:
            few = np.log10(high / low) < 2
            at = LogLocator(subs=(1, 2, 5) if few else (1,), numticks=7).tick_values(low, high)
        at = np.array([value for value in at if low <= value <= high])
        return [(float(where), _number(value, self.scale)) for where, value in zip(self.place(at), at, strict=True)]


def _number(value: float, scale: str) -> str:
    if scale == "log" and not 1e-3 <= value <= 1e3:
        return "10" + str(round(np.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:.4g}".replace("-", "−")


class _Item:
    """Something drawn: its coordinates for each frame, or for all frames at once."""

    attribute = "d"
    label = ""

    def __init__(self, panel: Panel, given: dict, colour: str, label: str):
        if not isinstance(colour, str) or not mpl.colors.is_color_like(colour) or not colour.startswith("#"):
            raise ValueError(f"colour must be written as '#rrggbb'; got {colour!r}")
        self.panel, self.colour, self.label = panel, colour, label
        parts = {name: _by_frame(name, values) for name, values in given.items()}
        counts = {len(frames) for frames, moves in parts.values() if moves}
        if len(counts) > 1:
            raise ValueError(f"{', '.join(parts)} move over different numbers of frames: {sorted(counts)}")
        self.frames = counts.pop() if counts else None
        self.data: list[dict[str, np.ndarray]] = []
        for frame in range(self.frames or 1):
            arrays = {name: frames[frame if moves else 0] for name, (frames, moves) in parts.items()}
            sizes = {name: array.size for name, array in arrays.items()}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"the arrays of frame {frame} must have one length; got {sizes}")
            for name, array in arrays.items():
                axis = panel.x if name == "x" else panel.y
                if axis.scale == "log" and not (array > 0).all():
                    raise ValueError(f"{name} must be positive on a logarithmic axis; frame {frame} has {array.min()}")
            self.data.append(arrays)

    def states(self) -> list[str]:
        """The attribute that moves, for each frame."""
        return [self.state(arrays) for arrays in self.data]

    def _path(self, x: np.ndarray, y: np.ndarray) -> str:
        pairs = zip(self.panel.x.place(x), self.panel.y.place(y), strict=True)
        return " ".join(f"{a:g} {b:g}" for a, b in pairs)


class _Line(_Item):
    def __init__(self, panel, given, colour, label, width, dashed):
        super().__init__(panel, given, colour, label)
        self.width, self.dashed = width, dashed

    def state(self, arrays) -> str:
        return "M" + self._path(arrays["x"], arrays["y"])

    def element(self, state: str, moving: str) -> str:
        dashes = ' stroke-dasharray="6 4"' if self.dashed else ""
        return f'<path{moving} d="{state}" fill="none" stroke="{self.colour}" stroke-width="{self.width}"{dashes}/>'

    def draw(self, ax: Axes, frame: int) -> None:
        arrays = self.data[frame]
        style = "--" if self.dashed else "-"
        ax.plot(arrays["x"], arrays["y"], style, color=self.colour, linewidth=0.8 * self.width, label=self.label)


class _Band(_Item):
    def state(self, arrays) -> str:
        x = np.concatenate([arrays["x"], arrays["x"][::-1]])
        return "M" + self._path(x, np.concatenate([arrays["y"], arrays["high"][::-1]])) + "Z"

    def element(self, state: str, moving: str) -> str:
        return f'<path{moving} d="{state}" fill="{self.colour}" fill-opacity="0.2"/>'

    def draw(self, ax: Axes, frame: int) -> None:
        arrays = self.data[frame]
        options = {"color": self.colour, "alpha": 0.2, "linewidth": 0, "label": self.label}
        ax.fill_between(arrays["x"], arrays["y"], arrays["high"], **options)


class _Points(_Item):
    def __init__(self, panel, given, colour, label, size, hollow):
        super().__init__(panel, given, colour, label)
        self.size, self.hollow = size, hollow

    def state(self, arrays) -> str:
        x, y = self.panel.x.place(arrays["x"]), self.panel.y.place(arrays["y"])
        if self.hollow:  # a circle of two arcs
            r = self.size / 2
            arcs = f"a{r:g} {r:g} 0 1 0 {self.size:g} 0a{r:g} {r:g} 0 1 0 {-self.size:g} 0"
            return "".join(f"M{a - r:g} {b:g}{arcs}" for a, b in zip(x, y, strict=True))
        return "".join(f"M{a:g} {b:g}h0" for a, b in zip(x, y, strict=True))  # a line without length, with round ends

    def element(self, state: str, moving: str) -> str:
        if self.hollow:
            return f'<path{moving} d="{state}" fill="#fff" stroke="{self.colour}" stroke-width="2"/>'
        ends = f'stroke-width="{self.size}" stroke-linecap="round"'
        return f'<path{moving} d="{state}" fill="none" stroke="{self.colour}" {ends}/>'

    def draw(self, ax: Axes, frame: int) -> None:
        face = "white" if self.hollow else self.colour
        options = {"facecolor": face, "edgecolor": self.colour, "linewidth": 1.5 if self.hollow else 0}
        arrays = self.data[frame]
        ax.scatter(arrays["x"], arrays["y"], s=(0.8 * self.size) ** 2, label=self.label, zorder=3, **options)


class _Cells(_Item):
    attribute = "href"
    colour = ""

    def __init__(self, panel: Panel, values, cmap: str, low, high):
        cells = np.asarray(values, dtype=float)
        if cells.ndim not in (2, 3) or cells.size == 0 or not np.isfinite(cells).all():
            raise ValueError(
                f"values must be finite, of shape (rows, columns) or (frames, rows, columns); got {cells.shape}"
            )
        if cmap not in mpl.colormaps:
            raise ValueError(f"cmap must be the name of a colour map of matplotlib; got {cmap!r}")
        self.panel, self.cmap = panel, cmap
        self.low = cells.min() if low is None else low
        self.high = cells.max() if high is None else high
        if not self.low < self.high:
            raise ValueError(f"the colours need low < high; got {self.low} and {self.high}")
        self.frames = len(cells) if cells.ndim == 3 else None
        self.cells = cells if cells.ndim == 3 else cells[None]

    def states(self) -> list[str]:
        palette = (mpl.colormaps[self.cmap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
        states = []
        for cells in self.cells:
            level = np.clip((cells - self.low) / (self.high - self.low), 0, 1)
            picture = Image.fromarray(np.round(255 * level[::-1]).astype(np.uint8), mode="P")
            picture.putpalette(palette.tobytes())
            picture.save(buffer := io.BytesIO(), format="png", optimize=True)
            states.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
        return states

    def element(self, state: str, moving: str) -> str:
        box = f'x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}"'
        return f'<image{moving} {box} preserveAspectRatio="none" href="{state}"/>'

    def draw(self, ax: Axes, frame: int) -> None:
        cells = self.cells[frame]
        edges = self.panel.x.edges(cells.shape[1]), self.panel.y.edges(cells.shape[0])
        ax.pcolormesh(*edges, cells, cmap=self.cmap, vmin=self.low, vmax=self.high, rasterized=True)


def _by_frame(name: str, values) -> tuple[list[np.ndarray], bool]:
    """The arrays of the frames, and whether they move: one array of numbers stays."""
    try:
        frames = [np.asarray(value, dtype=float) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers, or one array of numbers for each frame: {error}") from error
    if not frames:
        raise ValueError(f"{name} is empty")
    moves = frames[0].ndim == 1
    if any(frame.ndim != moves for frame in frames):
        raise ValueError(f"{name} must be an array of shape (m,), or hold one of shape (m,) for each frame")
    arrays = frames if moves else [np.array(frames)]
    for array in arrays:
        if array.size == 0 or not np.isfinite(array).all():
            raise ValueError(f"{name} must hold finite numbers in every frame; got {array}")
    return arrays, moves
