"""The book's figures: one style, one palette, alternative text that can't be forgotten."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's palette, without its yellow, which vanishes on white paper.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#007A5A", "#A8568A", "#6B6B6B"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, GREY)
_PIXELS_PER_INCH = 100  # on the page; stored at twice that, for dense screens


def style() -> AbstractContextManager:
    """The book's style of figures, for the time of a ``with`` block."""
    return plt.rc_context(
        {
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # shipped with matplotlib, so the same picture everywhere
            "font.size": 10.5,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def figure(columns: int = 1, *, width: float = 6.4, height: float = 3.0, **options) -> tuple[Figure, Any]:
    """A new figure in the book's style with ``columns`` axes side by side; sizes in inches."""
    with style():
        return plt.subplots(ncols=columns, figsize=(width, height), **options)


def grid(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A new figure in the book's style, and its axes of shape (rows, columns); sizes in inches."""
    return figure(columns, nrows=rows, width=width, height=height, squeeze=False)


def show(fig: Figure, *, alt: str, caption: str, colours: int = 256) -> None:
    """Display a figure as png with its alternative text, then its caption; close it.

    Args:
        fig: the figure.
        alt: what is seen, for readers who can't see it: at least one full sentence.
        caption: what to conclude, in Markdown.
        colours: in the png's palette; 32 are enough for a chart of marks and text.

    Raises:
        ValueError: if ``alt`` or ``caption`` is not a sentence ending with a full stop.
    """
    check_sentences(alt=alt, caption=caption)
    png, width = encode(fig, colours=colours)
    display({"image/png": png, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt, "width": width}})
    display(Markdown(caption))


def encode(fig: Figure, *, density: float = 2, colours: int = 256) -> tuple[bytes, int]:
    """A figure as png, with its width on the page in pixels, of which the png has ``density`` each; close it."""
    with style():  # no Software entry: it would change the bytes with every release of matplotlib
        dpi, metadata = density * _PIXELS_PER_INCH, {"Software": None}
        fig.savefig(buffer := io.BytesIO(), format="png", dpi=dpi, facecolor="white", metadata=metadata)
    width = round(fig.get_figwidth() * _PIXELS_PER_INCH)
    plt.close(fig)
    # A palette of 256 colours takes a third of the size, with no difference to see in line art.
    with Image.open(buffer) as picture:
        small = picture.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(out := io.BytesIO(), format="png", optimize=True)
    return out.getvalue(), width


def check_sentences(**texts: str) -> None:
    """Refuse a text that is not a sentence of at least 20 characters with a full stop; it is named by its keyword."""
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) < 20 or not text.rstrip().endswith("."):
            raise ValueError(f"{name} must be a sentence of at least 20 characters with a full stop; got {text!r}")


def curves(
    x, series: dict[str, Sequence[float]], *, xlabel: str, ylabel: str, alt: str, caption: str, ylim=None
) -> None:
    """Show named series of positive numbers against ``x``, both axes logarithmic.

    Raises:
        ValueError: if there is no series, or one has another length than ``x``, or a number is not positive and finite.
    """
    x = np.asarray(x, dtype=float)
    values = {name: np.asarray(ys, dtype=float) for name, ys in series.items()}
    for name, ys in {"x": x, **values}.items():
        if ys.shape != x.shape or not (np.isfinite(ys) & (ys > 0)).all():
            raise ValueError(f"{name} must hold {x.size} positive finite numbers; got {ys}")
    if not values:
        raise ValueError("series is empty: name at least one")
    fig, ax = figure(height=3.8)
    for marker, (name, ys) in zip(cycle("os^Dv"), values.items()):
        ax.loglog(x, ys, marker=marker, markersize=4.5, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=ylim)
    if len(values) > 1:
        ax.legend()
    show(fig, alt=alt, caption=caption)


def bands(
    x, panels: dict[str, dict[str, object]], *, xlabel: str, alt: str, caption: str, dashed: dict | None = None
) -> None:
    """Show repeated runs against ``x``, a panel each quantity: a line through the medians, a band over the range.

    Args:
        x: positive numbers, of shape (k,), on a logarithmic axis.
        panels: title of a panel to its series; a series is an array of positive numbers of shape (runs, k).
        xlabel: of every panel.
        alt: as in :func:`show`.
        caption: as in :func:`show`.
        dashed: further medians, in the form of ``panels``, drawn dashed in the colour of the series of that name.

    Raises:
        ValueError: if there is no panel or no series, or one has another width than ``x``, or a number is not positive
            and finite, or a dashed series has no series of its name.
    """
    x, dashed = np.asarray(x, dtype=float), dashed or {}
    if not panels or not all(panels.values()):
        raise ValueError("panels is empty: name at least one panel with one series")
    for title, series in [*panels.items(), *dashed.items()]:
        for name, runs in series.items():
            values = np.asarray(runs, dtype=float)
            if values.shape[1:] != x.shape or not (np.isfinite(values) & (values > 0)).all():
                raise ValueError(f"{name!r} in {title!r} must hold positive finite numbers, {x.size} in each row")
            if name not in panels.get(title, {}):
                raise ValueError(f"dashed {name!r} in {title!r} has no series of that name")
    fig, axes = figure(len(panels), height=3.4, squeeze=False)
    for ax, (title, series) in zip(axes[0], panels.items(), strict=True):
        for marker, colour, (name, runs) in zip(cycle("os^Dv"), cycle(PALETTE), series.items()):
            values = np.asarray(runs, dtype=float)  # tensors, too
            ax.loglog(x, np.median(values, 0), marker=marker, markersize=4.5, color=colour, label=name)
            ax.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
            if name in dashed.get(title, {}):
                ax.loglog(x, np.median(np.asarray(dashed[title][name]), 0), "--", color=colour, lw=1.2)
        ax.set(title=title, xlabel=xlabel)
        ax.set_xticks(x, [f"{value:g}" for value in x])
        ax.minorticks_off()
    axes[0][0].legend()
    show(fig, alt=alt, caption=caption, colours=24)  # pale bands have many shades


def matrices(titled: dict[str, object], *, alt: str, caption: str, ends: tuple[str, str] | None = None) -> None:
    """Show covariance matrices of one set of points side by side, each with its own colour scale from zero.

    ``ends`` labels the first and the last point on both axes.

    Raises:
        ValueError: if there is none, or if one is not a matrix of finite numbers.
    """
    if not titled:
        raise ValueError("titled is empty: give at least one matrix")
    values = {title: np.asarray(matrix, dtype=float) for title, matrix in titled.items()}
    for title, matrix in values.items():
        if matrix.ndim != 2 or not np.isfinite(matrix).all():
            raise ValueError(f"{title!r} must be a matrix of finite numbers; got shape {matrix.shape}")
    fig, axes = figure(len(values), height=2.4, squeeze=False)
    for ax, (title, matrix) in zip(axes[0], values.items(), strict=True):
        picture = ax.imshow(matrix, cmap="cividis", vmin=0, vmax=np.abs(matrix).max(), interpolation="nearest")
        ax.set(title=title)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks([0, len(matrix) - 1] if ends else [], ends if ends else [])
        fig.colorbar(picture, ax=ax, shrink=0.8)
    show(fig, alt=alt, caption=caption)


def labelled(ax: Axes, shades, labels, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a table into ``ax``: shaded cells, each with a label, and names of rows and columns.

    Args:
        ax: the axes.
        shades: numbers from 0, white, upwards, of shape (rows, columns).
        labels: texts of the same shape.
        rows: names of the rows.
        columns: names of the columns.

    Raises:
        ValueError: if ``shades`` or ``labels`` do not have a row and a column for each name.
    """
    shades, labels = np.asarray(shades, dtype=float), np.asarray(labels, dtype=object)
    if not shades.shape == labels.shape == (len(rows), len(columns)) or not shades.size:
        raise ValueError(
            f"shades and labels must have the shape {(len(rows), len(columns))} of the names, and at least one cell; "
            f"got {shades.shape} and {labels.shape}"
        )
    ax.imshow(shades, cmap="Blues", vmin=0, vmax=4 * max(1, shades.max()), aspect="auto")
    for (row, column), label in np.ndenumerate(labels):
        ax.text(column, row, label, ha="center", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=9)
    ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor", fontsize=8.5)
    ax.tick_params(length=0)


def ruler(differences: dict[str, float], *, alt: str, caption: str, floor: float = 1e-17) -> None:
    """Show named relative differences on the book's common logarithmic axis, from ``floor`` to a little above 1.

    A difference above 1 lengthens the axis, so that its label stays on the picture.
    An exact zero is drawn hollow at the left edge and labelled "equal".

    Raises:
        ValueError: if empty, or if a difference is negative, NaN or infinite.
    """
    if not differences or not all(0 <= value < math.inf for value in differences.values()):
        raise ValueError(f"differences must be non-empty, non-negative and finite; got {differences}")
    fig, ax = figure(height=0.6 + 0.45 * len(differences))
    for row, value in enumerate(differences.values()):
        shown = max(value, floor)
        ax.plot([floor, shown], [row, row], color=GREY, linewidth=1, zorder=1)
        ax.scatter(shown, row, s=55, zorder=2, facecolor=BLUE if value else "white", edgecolor=BLUE, clip_on=False)
        label = f"{value:.0e}" if value else "equal"
        ax.annotate(label, (shown, row), (8, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(differences)), list(differences))
    ax.set(xscale="log", xlim=(floor, 100 * max(1, *differences.values())), ylim=(len(differences) - 0.5, -0.5))
    ax.set_xlabel("relative difference")
    ax.set_xticks([10.0**power for power in range(-16, 1, 4)])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, pad=8)
    show(fig, alt=alt, caption=caption)
