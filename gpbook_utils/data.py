"""The book's data: small tables of real measurements, with units, source and licence."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

import torch
from torch import Tensor

from gpbook_utils import arguments


@dataclass(frozen=True, eq=False)  # two tables of tensors have no one truth value
class Table:
    """One input and one output, in the order of the input.

    Attributes:
        x: shape (n, 1), in the unit ``x_unit``.
        y: shape (n,), in the unit ``y_unit``.
        x_name, x_unit, y_name, y_unit: for axes.
        source, licence: where the measurements come from, and what may be done with them.
    """

    x: Tensor
    y: Tensor
    x_name: str
    x_unit: str
    y_name: str
    y_unit: str
    source: str
    licence: str

    def __repr__(self) -> str:
        axes = f"{self.y_name} ({self.y_unit}) against {self.x_name} ({self.x_unit})"
        return f"{axes}, {len(self.y)} rows. Source: {self.source}"

    @property
    def standardised(self) -> Tensor:
        """``y`` with its mean subtracted, divided by its standard deviation; shape (n,), without a unit."""
        return (self.y - self.y.mean()) / self.y.std()


def load(name: str, dtype: torch.dtype = torch.float64) -> Table:
    """Load a table by name: ``"co2"`` or ``"seattle"``.

    ``"co2"`` is the atmospheric carbon dioxide at Mauna Loa, monthly means of weekly averages, 1958 to 2001.
    ``"seattle"`` is the daily maximum temperature in Seattle, 2012 to 2015.

    Args:
        name: of the table.
        dtype: floating-point format; values are read in float64 and cast afterwards.

    Raises:
        ValueError: for an unknown name, or a ``dtype`` that is not floating point.

    >>> table = load("co2")
    >>> table.x.shape, table.y_unit
    (torch.Size([521, 1]), 'ppm')
    """
    arguments.format("dtype", dtype)
    x, y, description = _TABLES[arguments.one_of("name", name, _TABLES)]()
    return Table(
        x=torch.tensor(x, dtype=torch.float64).unsqueeze(-1).to(dtype),
        y=torch.tensor(y, dtype=torch.float64).to(dtype),
        **description,
    )


def _co2() -> tuple[list[float], list[float], dict[str, str]]:
    months: dict[tuple[int, int], list[float]] = {}
    for row in _rows("mauna_loa_co2_weekly.csv"):
        day = date.fromisoformat(row["date"])
        months.setdefault((day.year, day.month), []).append(float(row["co2_ppm"]))
    x = [year + (month - 0.5) / 12 for year, month in months]
    y = [sum(week) / len(week) for week in months.values()]
    description = {
        "x_name": "time",
        "x_unit": "year",
        "y_name": "atmospheric CO2 at Mauna Loa",
        "y_unit": "ppm",
        "source": "Keeling and Whorf 2004, Trends, CDIAC, as shipped by statsmodels",
        "licence": "public domain",
    }
    return x, y, description


def _seattle() -> tuple[list[float], list[float], dict[str, str]]:
    start = date(2012, 1, 1)
    rows = _rows("seattle_daily_weather.csv")
    x = [(date.fromisoformat(row["date"]) - start).days / 365.25 for row in rows]
    y = [float(row["temp_max_c"]) for row in rows]
    description = {
        "x_name": "time since 1 January 2012",
        "x_unit": "year",
        "y_name": "daily maximum temperature in Seattle",
        "y_unit": "°C",
        "source": "NOAA, as shipped by vega-datasets",
        "licence": "public domain",
    }
    return x, y, description


_TABLES = {"co2": _co2, "seattle": _seattle}


def _rows(file_name: str) -> list[dict[str, str]]:
    with files("gpbook_utils").joinpath("tables", file_name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
