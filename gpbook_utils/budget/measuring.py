"""A difference budget: causes of a difference, each measured as two sides that differ in nothing else.

A *cause* is a function of a floating-point format. It returns two sides, each a dictionary of what a model says under
the names in :data:`QUANTITIES`, and :func:`measure` puts them on the ruler of :mod:`gpbook_utils.compare`. The causes
of the book are in :mod:`gpbook_utils.budget.causes`; a cause of your own is one more function::

    @cause("a longer lengthscale", "mistake", chapter=1)
    def longer(dtype):
        return says(gp(dtype)), says(gp(dtype, lengthscale=0.26))
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from gpbook_utils import arguments, explorer, plots
from gpbook_utils.compare import compare
from gpbook_utils.models import marginal_likelihood, posterior, prior_covariance

QUANTITIES = {
    "prior": "prior K",
    "covariance": "posterior covariance",
    "mean": "posterior mean",
    "likelihood": "log marginal likelihood",
}
_SYMBOLS = {"prior": "K", "covariance": "Σ", "mean": "mean", "likelihood": "likelihood"}  # where room is short
FORMATS = (torch.float64, torch.float32)
_LEFT = 1e-19  # where the figures draw an exact zero
_MARKERS = dict(zip(QUANTITIES, "os^D", strict=True))

Sides = tuple[dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Cause:
    """One cause of a difference.

    Attributes:
        name: what differs, for a figure's row.
        family: the group that it is drawn in.
        chapter: the chapter of the book that takes it apart.
        sides: a function of a format that returns the two sides.
        formats: those in which the cause exists; a number rounded to float32, say, is none in float32.
    """

    name: str
    family: str
    chapter: int
    sides: Callable[[torch.dtype], Sides]
    formats: tuple[torch.dtype, ...] = FORMATS

    def __call__(self, dtype: torch.dtype) -> Sides:
        """The two sides in a format."""
        return self.sides(dtype)


def cause(name: str, family: str, *, chapter: int, formats: Iterable[torch.dtype] = FORMATS):
    """Decorate a function of a format that returns two sides, and make it a :class:`Cause`.

    Raises:
        ValueError: unless ``name`` and ``family`` are lines of text, ``chapter`` a whole number, ``formats`` formats.
    """
    formats = tuple(arguments.format("formats", one) for one in arguments.items("formats", formats))
    named = arguments.line("name", name), arguments.line("family", family), arguments.whole("chapter", chapter)
    return lambda sides: Cause(*named, arguments.function("sides", sides, "a format"), formats)


def says(model, x: Tensor, stars: Tensor) -> dict[str, Tensor]:
    """What an exact GP says: prior covariance at ``x``, posterior at ``stars``, marginal likelihood of its data."""
    arguments.tensor("stars", stars, "(m, d)")
    predicted = posterior(model, stars)
    with torch.no_grad():
        return {
            "prior": prior_covariance(model, x),
            "covariance": predicted.covariance_matrix,
            "mean": predicted.mean,
            "likelihood": marginal_likelihood(model).detach().reshape(1),
        }


def measure(cause: Callable[[torch.dtype], Sides], dtype: torch.dtype = torch.float64) -> dict[str, float]:
    """Relative Frobenius differences of the two sides of a cause, by quantity. Measured once in a process.

    Args:
        cause: a :class:`Cause`, or a plain function of a format that returns two sides.
        dtype: the format to measure in.

    Raises:
        ValueError: if the cause does not exist in that format, or its sides are not two dictionaries of tensors that
            can be compared, under the same names of :data:`QUANTITIES`.

    >>> K = torch.eye(2)
    >>> measure(lambda dtype: ({"prior": K.to(dtype)}, {"prior": 2 * K.to(dtype)}))
    {'prior': 1.0}
    """
    arguments.function("cause", cause, "a format")
    arguments.format("dtype", dtype)
    if isinstance(cause, Cause) and dtype not in cause.formats:
        raise ValueError(f"dtype must be a format in which {cause.name!r} exists, one of {cause.formats}; got {dtype}")
    once = _measured if isinstance(cause, Hashable) else _measured.__wrapped__
    return dict(once(cause, dtype))  # a copy: what a reader does to it is not measured again


@cache
def _measured(cause: Callable[[torch.dtype], Sides], dtype: torch.dtype) -> dict[str, float]:
    sides = cause(dtype)
    if not isinstance(sides, tuple) or len(sides) != 2 or not all(isinstance(side, dict) for side in sides):
        raise ValueError(f"a cause must return two dictionaries; {_name(cause)} returned {type(sides).__name__}")
    a, b = sides
    if not a or a.keys() != b.keys() or not a.keys() <= QUANTITIES.keys():
        raise ValueError(
            f"the two sides of {_name(cause)} must have the same names among {', '.join(QUANTITIES)}; "
            f"got {sorted(a)} and {sorted(b)}"
        )
    return {quantity: compare(a[quantity], b[quantity]).relative for quantity in QUANTITIES if quantity in a}


def largest(cause: Callable[[torch.dtype], Sides], dtype: torch.dtype = torch.float64) -> float:
    """The largest of the differences that :func:`measure` finds, over all quantities."""
    return max(measure(cause, dtype).values())


def chart(
    causes: Iterable[Cause],
    *,
    alt: str,
    caption: str,
    formats: dict[str, torch.dtype] | None = None,
    quantities: Iterable[str] = tuple(QUANTITIES),
    width: float = 7.4,
) -> None:
    """Draw causes on one logarithmic axis, a row each, by family; a panel for each format, a mark for each quantity.

    An exact zero is drawn hollow at the left edge, which is labelled "equal".

    Args:
        causes: the rows; a family keeps the place of its first member.
        alt: as in :func:`gpbook_utils.plots.show`.
        caption: as in :func:`gpbook_utils.plots.show`.
        formats: titles of the panels and their formats; by default float64 and float32.
        quantities: those that are drawn.
        width: of the figure, in inches.

    Raises:
        ValueError: if there is no cause, a quantity is unknown, or an argument is of another kind.
    """
    given, quantities = arguments.items("causes", causes), arguments.items("quantities", quantities)
    formats = {"float64": torch.float64, "float32": torch.float32} if formats is None else formats
    if not arguments.mapping("formats", formats, torch.dtype):
        raise ValueError("formats is empty: name at least one")
    for name, some in (("causes", given), ("quantities", quantities)):
        if not some:
            raise ValueError(f"{name} is empty: name at least one")
    for place, one in enumerate(given):
        arguments.instance(f"causes[{place}]", one, Cause, "a Cause")
    for place, one in enumerate(quantities):
        arguments.one_of(f"quantities[{place}]", one, QUANTITIES)
    arguments.real("width", width, above=0)
    arguments.line("alt", alt), arguments.line("caption", caption)
    families = list(dict.fromkeys(cause.family for cause in given))
    ordered = sorted(given, key=lambda cause: families.index(cause.family))
    rows, heads = _places(ordered)
    fig, axes = plots.figure(len(formats), width=width, height=1.1 + 0.175 * max(rows), sharey=True, squeeze=False)
    top = 10 * max(1, *(largest(c, d) for c in ordered for d in formats.values() if d in c.formats))
    for ax, (title, dtype) in zip(axes[0], formats.items(), strict=True):
        for row, cause in zip(rows, ordered, strict=True):
            ax.axhline(row, color=plots.GREY, linewidth=0.4, alpha=0.4, zorder=0)
            if dtype in cause.formats:
                _marks(ax, row, measure(cause, dtype), quantities)
        ylim = (max(rows) + 0.8, -0.8)
        ax.set(title=title, xscale="log", xlim=(_LEFT, top), ylim=ylim, xlabel="relative difference")
        ticks = {_LEFT: "equal"} | {10.0**power: f"$10^{{{power}}}$" for power in range(-15, 1, 5)}
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.minorticks_off()
        ax.tick_params(axis="y", length=0, pad=8)
        ax.spines["left"].set_visible(False)
    axes[0][0].set_yticks([*rows, *heads.values()], [*(c.name for c in ordered), *heads], fontsize=9)
    for label in axes[0][0].get_yticklabels()[len(rows) :]:
        label.set_fontweight("bold")
    handles = [
        axes[0][0].plot([], [], _MARKERS[q], color=_colour(q), markersize=5, label=QUANTITIES[q])[0] for q in quantities
    ]
    columns = len(handles) if width > 6 else 2
    fig.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    plots.show(fig, alt=alt, caption=caption, colours=40)


def explore(panels: dict[str, Iterable[Cause]], *, alt: str, caption: str) -> None:
    """Display causes with a slider over quantities and formats: a row each, in panels that stay in place.

    A blue disc is the quantity and the format of the slider, at the left edge and hollow where both sides are equal. A
    small grey one is the largest of the four quantities in that format, so a row shows what moved when its own did not.

    Args:
        panels: titles of the panels and their causes.
        alt: as in :func:`gpbook_utils.explorer.show`.
        caption: as in :func:`gpbook_utils.explorer.show`.

    Raises:
        ValueError: if there is no panel, or one has no cause, or an argument is of another kind.
    """
    rows = {
        title: arguments.items(f"panels[{title!r}]", some)
        for title, some in arguments.mapping("panels", panels).items()
    }
    for title, some in rows.items():
        for place, one in enumerate(some):
            arguments.instance(f"panels[{title!r}][{place}]", one, Cause, "a Cause")
        arguments.need(bool(some), f"panels[{title!r}]", "at least one cause", "none")
    frames = [(quantity, dtype) for dtype in FORMATS for quantity in QUANTITIES]
    names = [f"{_SYMBOLS[quantity]}, {str(dtype).removeprefix('torch.')}" for quantity, dtype in frames]
    said = []
    for quantity, dtype in frames:
        found = [measure(c, dtype)[quantity] for some in rows.values() for c in some if _moves(c, quantity, dtype)]
        said.append(f"{QUANTITIES[quantity]}: {found.count(0)} of {len(found)} causes leave it equal in every bit.")
    drawn = [_Rows(title, some, frames) for title, some in rows.items()]
    explorer.show(names, drawn, label="Show", text=said, alt=alt, caption=caption, start=1)


def _moves(cause: Cause, quantity: str, dtype: torch.dtype) -> bool:
    """Whether a cause exists in a format and says something of a quantity."""
    return dtype in cause.formats and quantity in measure(cause, dtype)


class _Rows(explorer.Panel):
    """A panel of the explorer whose vertical axis names causes, the first one at its upper end."""

    def __init__(self, title: str, causes: list[Cause], frames: list[tuple[str, torch.dtype]]):
        count = len(causes)
        ends, ticks = (_LEFT / 10, 1e5), {_LEFT: "equal"} | {10.0**p: f"$10^{{{p}}}$" for p in (-12, -6, 0)}
        super().__init__(
            xlabel="relative difference", ylabel="", xlim=ends, ylim=(-0.8, count - 0.2), xscale="log", title=title
        )
        self._settings |= {"xticks": list(ticks), "xticklabels": list(ticks.values()), "yticks": range(count)}
        self._settings |= {"yticklabels": [cause.name for cause in reversed(causes)]}
        height = dict(zip(causes, reversed(range(count)), strict=True))
        self._discs([{height[c]: largest(c, d) for c in causes if d in c.formats} for _, d in frames], plots.GREY, 5)
        shown = [{height[c]: measure(c, d)[q] for c in causes if _moves(c, q, d)} for q, d in frames]
        for hollow in (False, True):
            some = [{row: value for row, value in found.items() if (value == 0) == hollow} for found in shown]
            self._discs(some, plots.BLUE, 9, hollow)

    def _discs(self, found: list[dict[int, float]], colour: str, size: float, hollow: bool = False) -> None:
        """One array a frame; a frame with none has a disc outside of the axes."""
        outside = {-9: 1.0}
        xs = [[max(value, _LEFT) for value in (one or outside).values()] for one in found]
        self.points(xs, [list(one or outside) for one in found], colour=colour, size=size, hollow=hollow)

    def _draw(self, ax, frames) -> None:
        super()._draw(ax, frames)
        ax.minorticks_off()
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.tick_params(axis="x", labelsize=9)
        ax.grid(axis="y", linewidth=0.4, alpha=0.4)


def _places(causes: list[Cause]) -> tuple[list[float], dict[str, float]]:
    """The height of each row, and of the heading above each family."""
    rows, heads, height = [], {}, 0.0
    for cause in causes:
        if cause.family not in heads:
            heads[cause.family] = height
            height += 1
        rows.append(height)
        height += 1
    return rows, heads


def _marks(ax, row: float, found: dict[str, float], quantities: list[str]) -> None:
    for quantity in quantities:
        if quantity in found:
            value, colour = found[quantity], _colour(quantity)
            style = {"color": colour, "markerfacecolor": colour if value else "white", "markersize": 5}
            ax.plot(max(value, _LEFT), row, _MARKERS[quantity], clip_on=False, **style)


def _colour(quantity: str) -> str:
    return plots.PALETTE[list(QUANTITIES).index(quantity)]


def _name(cause) -> str:
    return repr(getattr(cause, "name", getattr(cause, "__name__", "the cause")))
