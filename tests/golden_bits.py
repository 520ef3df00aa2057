"""What chapter 9's computations give, to rounding, on every machine; ``python tests/golden_bits.py`` writes it down.

A hash can be compared with those of the same machine only. Here each result is two numbers that all of its entries
decide, so that a change of what is computed shows on a machine without a record too.
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
import torch

from gpbook_utils.machines import bits

PATH = Path(__file__).with_suffix(".toml")


def sketch(value):
    """The products of a result with two fixed vectors of random numbers."""
    value = value.double().flatten().numpy()
    return [float(row @ value) for row in np.random.default_rng(2).standard_normal((2, len(value)))]


def allowed(name):
    """How far a sketch may be off on another machine, in units of the size of the result.

    Cholesky factors of K + noise·I, whose condition number is at most n/noise + 1, carry the unit roundoff times that.
    Four times this is at least ten times as much as the results of four environments of one processor differ.
    """
    if name.endswith("bfloat16"):
        return 0.01  # two units in the last of its eight digits
    noise = float(name.partition(" at ")[2].partition(",")[0] or 0.1)
    roundoff = torch.finfo(torch.float32 if name.endswith("float32") else torch.float64).eps / 2
    return max(1e-9, 4 * roundoff * 366 / noise)


def differing(results, golden):
    """The names of the results that are not what is written down."""
    differing = sorted(results.keys() ^ golden.keys())
    for name in results.keys() & golden.keys():
        size = float(results[name].double().norm())
        if max(abs(a - b) for a, b in zip(sketch(results[name]), golden[name], strict=True)) > allowed(name) * size:
            differing.append(name)
    return differing


def read():
    """The edition that is written down, and its sketches by the names of the results."""
    content = tomllib.loads(PATH.read_text(encoding="utf-8"))
    return content["edition"], content["sketches"]


def write():
    results = bits.computations()
    if PATH.exists() and read()[0] == bits.EDITION and (names := differing(results, read()[1])):
        sys.exit(
            f"{', '.join(names)}: not what edition {bits.EDITION} computes; raise EDITION in {bits.__file__} first. "
            f"If a new release of a library changed it, not the book: delete {PATH.name}"
        )
    lines = [f'"{name}" = {sketch(value)}' for name, value in results.items()]
    PATH.write_text(f'edition = "{bits.EDITION}"\n\n[sketches]\n' + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
