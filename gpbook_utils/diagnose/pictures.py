"""Figures of several reports: how small a fault is found, and which quantities each cause moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np

from gpbook_utils import plots
from gpbook_utils.compare import Comparison
from gpbook_utils.diagnose.report import Report


def doses(series: Mapping[str, Mapping[float, Report]], quantity: str, *, xlabel: str, alt: str, caption: str) -> None:
    """Show what faults of growing dose do to one quantity, filled where the diagnosis found a cause.

    The dotted line is what rounding explains of the quantity: the median over the series. A difference of exactly zero
    has no place on a logarithmic axis and is left out.

    Args:
        series: name of a line to its reports, by the dose, which is positive.
        quantity: a key of the reports' ``quantities``, such as ``"posterior mean"``.
        xlabel: what the dose is.
        alt: as in :func:`gpbook_utils.plots.show`.
        caption: as in :func:`gpbook_utils.plots.show`.

    Raises:
        ValueError: if there is no report, a dose is not positive, or a report can't compare the quantity.
    """
    if not series or not all(series.values()):
        raise ValueError("series is empty: give at least one line with one report")
    fig, ax = plots.figure(height=3.4)
    for colour, marker, (name, reports) in zip(cycle(plots.PALETTE), cycle("os^D"), series.items()):
        found = [(dose, _measured(name, report, quantity), bool(report.findings)) for dose, report in reports.items()]
        if not all(dose > 0 for dose, _, _ in found):
            raise ValueError(f"the doses of {name!r} must be positive; got {list(reports)}")
        seen = [(dose, size, named) for dose, size, named in found if size > 0]
        ax.loglog([dose for dose, _, _ in seen], [size for _, size, _ in seen], color=colour, lw=1.2, label=name)
        for dose, size, named in seen:
            ax.scatter(dose, size, marker=marker, edgecolor=colour, facecolor=colour if named else "white", zorder=3)
        level = np.median([report.quantities[quantity].level for report in reports.values()])
        ax.axhline(level, color=colour, linestyle=":", linewidth=1.2)
    ax.set(xlabel=xlabel, ylabel=f"change of the {quantity}")
    ax.legend()
    plots.show(fig, alt=alt, caption=caption)


def effects(reports: Sequence[Report], names: Sequence[str], *, alt: str, caption: str) -> None:
    """Show a table of the causes in some reports against the quantities ``names``, shaded by effect.

    Raises:
        ValueError: if no report has a finding, or ``names`` is empty.
    """
    found = [finding for report in reports for finding in report.findings]
    if not found or not names:
        raise ValueError(f"reports and names must hold a finding and a quantity; got {len(found)} and {len(names)}")
    sizes = np.array([[finding.effect.get(name, 0.0) for name in names] for finding in found])
    depth = np.log10(np.clip(sizes, 1e-7, 1.0))
    fig, ax = plots.figure(height=1.0 + 0.3 * len(found))
    ax.imshow(np.where(sizes > 0, depth, np.nan), cmap="Blues", vmin=-10, vmax=1, aspect="auto")
    for (i, j), size in np.ndenumerate(sizes):
        label = "all" if math.isinf(size) else f"{size:.0e}" if size else "·"
        ink = "white" if size and depth[i, j] > -2 else "black"
        ax.text(j, i, label, ha="center", va="center", fontsize=9, color=ink)
    ax.set_yticks(range(len(found)), [finding.cause for finding in found])
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    ax.tick_params(length=0)
    plots.show(fig, alt=alt, caption=caption)


def _measured(name: str, report: Report, quantity: str) -> float:
    compared = report.quantities.get(quantity)
    if compared is None or not isinstance(compared.before, Comparison):
        said = "it has no such quantity" if compared is None else compared.before
        raise ValueError(f"a report of {name!r} must compare the {quantity!r}; {said}")
    return compared.before.relative
