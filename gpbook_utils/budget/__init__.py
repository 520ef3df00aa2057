"""The difference budget: causes of a difference, each measured on one ruler.

This room may touch every other but ``diagnose`` and ``sweeps``. The causes of the book are in
:mod:`gpbook_utils.budget.causes`.
"""

from gpbook_utils.budget.measuring import (
    FORMATS,
    QUANTITIES,
    Cause,
    Sides,
    cause,
    chart,
    explore,
    largest,
    measure,
    says,
)

__all__ = ["FORMATS", "QUANTITIES", "Cause", "Sides", "cause", "chart", "explore", "largest", "measure", "says"]
