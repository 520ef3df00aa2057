"""The book's data: small tables of real measurements, with units, source and licence."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from gpbook_utils import arguments


@dataclass(frozen=True, eq=False)  # two tables of tensors have no one truth value
class Table:
    """Inputs and one output; real tables are in the order of time.

    Attributes:
        x: shape (n, d), in the unit ``x_unit``; of several inputs, names and units stand in one text, with commas.
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


def load(name: str, dtype: torch.dtype = torch.float64, *, inputs: Sequence[str] = ("time",)) -> Table:
    """Load a table by name: ``"co2"`` or ``"seattle"``.

    ``"co2"`` is the atmospheric carbon dioxide at Mauna Loa, monthly means of weekly averages, 1958 to 2001.
    ``"seattle"`` is the daily maximum temperature in Seattle, 2012 to 2015.

    Args:
        name: of the table.
        dtype: floating-point format; values are read in float64 and cast afterwards.
        inputs: the columns of x, in this order. Seattle has ``"time"``, ``"minimum"`` (of the temperature),
            ``"wind"`` and ``"precipitation"``; CO2 has ``"time"``.

    Raises:
        ValueError: for an unknown name or input, or a ``dtype`` that is not floating point.

    >>> table = load("co2")
    >>> table.x.shape, table.y_unit
    (torch.Size([521, 1]), 'ppm')
    >>> load("seattle", inputs=["time", "wind"]).x_unit
    'year, m/s'
    """
    arguments.format("dtype", dtype)
    columns, y, description = _TABLES[arguments.one_of("name", name, _TABLES)]()
    wanted = arguments.items("inputs", [inputs] if isinstance(inputs, str) else inputs)
    known = all(isinstance(input, str) and input in columns for input in wanted)
    arguments.need(wanted and known, "inputs", f"among {', '.join(map(repr, columns))} for {name!r}", inputs)
    values, names, units = zip(*(columns[input] for input in wanted), strict=True)
    return Table(
        x=torch.stack([torch.tensor(column, dtype=torch.float64) for column in values], dim=-1).to(dtype),
        y=torch.tensor(y, dtype=torch.float64).to(dtype),
        x_name=", ".join(names),
        x_unit=", ".join(units),
        **description,
    )


LAYOUTS = ("box", "clusters")


def synthetic(
    layout: str,
    n: int,
    d: int,
    *,
    seed: int = 0,
    lengthscale: float = 0.3,
    noise: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> Table:
    r"""A smooth function of d inputs, observed with noise at n points of the unit cube.

    The function is a sum of 64 cosines, random Fourier features of an RBF kernel of unit variance [Rahimi and Recht
    2007]. All draws are NumPy's, so every machine gets the same x, bit for bit, and the same y up to rounding.

    Args:
        layout: ``"box"``, uniform in the cube; or ``"clusters"``, five Gaussian clusters with a standard deviation of
            0.03 around uniform centres.
        n: number of points.
        d: number of inputs.
        seed: of all draws.
        lengthscale: of the function, in the unit of the inputs.
        noise: standard deviation of the observations.
        dtype: floating-point format; values are drawn in float64 and cast afterwards.

    Raises:
        ValueError: for an unknown layout, or a number out of range.

    >>> synthetic("clusters", 100, 3).x.shape
    torch.Size([100, 3])
    """
    arguments.one_of("layout", layout, LAYOUTS)
    n, d, seed = (arguments.whole(k, v, least) for k, v, least in (("n", n, 1), ("d", d, 1), ("seed", seed, 0)))
    lengthscale, noise = arguments.real("lengthscale", lengthscale, above=0), arguments.real("noise", noise, least=0)
    arguments.format("dtype", dtype)
    draw = np.random.default_rng(seed)
    x = draw.uniform(size=(n, d))
    if layout == "clusters":
        centres = draw.uniform(size=(5, d))
        x = centres[draw.integers(5, size=n)] + 0.03 * draw.standard_normal((n, d))
    frequencies = draw.standard_normal((d, 64)) / lengthscale
    phases = draw.uniform(0, 2 * np.pi, 64)
    f = np.cos(x @ frequencies + phases).sum(1) / math.sqrt(32)
    return Table(
        x=torch.from_numpy(x).to(dtype),
        y=torch.from_numpy(f + noise * draw.standard_normal(n)).to(dtype),
        x_name=", ".join(f"input {k + 1}" for k in range(d)),
        x_unit=", ".join(["1"] * d),
        y_name="a smooth function with noise",
        y_unit="1",
        source=f"drawn by this package: {layout}, seed {seed}",
        licence="public domain",
    )


_Columns = dict[str, tuple[list[float], str, str]]  # values, name and unit, by the name that load takes


def _co2() -> tuple[_Columns, list[float], dict[str, str]]:
    months: dict[tuple[int, int], list[float]] = {}
    for row in _rows("mauna_loa_co2_weekly.csv"):
        day = date.fromisoformat(row["date"])
        months.setdefault((day.year, day.month), []).append(float(row["co2_ppm"]))
    columns = {"time": ([year + (month - 0.5) / 12 for year, month in months], "time", "year")}
    description = {
        "y_name": "atmospheric CO2 at Mauna Loa",
        "y_unit": "ppm",
        "source": "Keeling and Whorf 2004, Trends, CDIAC, as shipped by statsmodels",
        "licence": "public domain",
    }
    return columns, [sum(week) / len(week) for week in months.values()], description


def _seattle() -> tuple[_Columns, list[float], dict[str, str]]:
    start = date(2012, 1, 1)
    rows = _rows("seattle_daily_weather.csv")
    days = [(date.fromisoformat(row["date"]) - start).days / 365.25 for row in rows]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    columns = {
        "time": (days, "time since 1 January 2012", "year"),
        "minimum": (column("temp_min_c"), "daily minimum temperature", "°C"),
        "wind": (column("wind_m_s"), "wind speed", "m/s"),
        "precipitation": (column("precipitation_mm"), "precipitation", "mm"),
    }
    description = {
        "y_name": "daily maximum temperature in Seattle",
        "y_unit": "°C",
        "source": "NOAA, as shipped by vega-datasets",
        "licence": "public domain",
    }
    return columns, column("temp_max_c"), description


_TABLES = {"co2": _co2, "seattle": _seattle}


def _rows(file_name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files("gpbook_utils").joinpath("tables", file_name).read_text("utf-8").splitlines()))
