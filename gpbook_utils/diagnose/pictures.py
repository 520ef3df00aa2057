"""A figure of several reports: how small a fault is found."""

from __future__ import annotations

from collections.abc import Mapping
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


def _measured(name: str, report: Report, quantity: str) -> float:
    compared = report.quantities.get(quantity)
    if compared is None or not isinstance(compared.before, Comparison):
        said = "it has no such quantity" if compared is None else compared.before
        raise ValueError(f"a report of {name!r} must compare the {quantity!r}; {said}")
    return compared.before.relative
