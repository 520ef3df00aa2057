"""A diagnosis from a shell: ``python -m gpbook_utils.diagnose script.py:model_a script.py:model_b --x script.py:x``.

A place is a file and an expression in its names, such as ``script.py:models[0]``; a file runs once, as if imported. One
model is checked by itself, two are explained.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from typing import Any

from gpbook_utils.diagnose.check import check_model
from gpbook_utils.diagnose.explain import explain_difference


def _value(place: str, scripts: dict[str, dict[str, Any]]) -> Any:
    """What stands at ``script.py:name``.

    Raises:
        ValueError: if there is no such script or name.
    """
    path, colon, name = place.rpartition(":")
    if not colon or not path or not name:
        raise ValueError(f"a place must be script.py:name; got {place!r}")
    try:
        if path not in scripts:
            scripts[path] = runpy.run_path(path, run_name="diagnosed")
        return eval(name, scripts[path])
    except (FileNotFoundError, NameError, AttributeError, LookupError) as error:
        raise ValueError(f"{place!r} cannot be had: {type(error).__name__}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Print the report, as text or as JSON; returns 0 if there is nothing to explain, 1 if there is, 2 for an error."""
    parser = argparse.ArgumentParser(prog="python -m gpbook_utils.diagnose", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", metavar="script.py:model", help="one model, or two that should agree")
    parser.add_argument("--x", required=True, metavar="script.py:x", help="the inputs that both are asked about")
    parser.add_argument("--y", metavar="script.py:y", help="targets at x, for an ELBO")
    parser.add_argument("--likelihood", action="append", default=[], metavar="script.py:likelihood",
                        help="of a model that holds none; once for each model")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print Report.to_dict()")
    options = parser.parse_args(arguments)
    scripts: dict[str, dict[str, Any]] = {}
    try:
        if len(options.models) > 2 or len(options.likelihood) not in (0, len(options.models)):
            raise ValueError("give one model or two, and no likelihood or one for each model")
        models, likelihoods = ([_value(p, scripts) for p in places] for places in (options.models, options.likelihood))
        x, y = _value(options.x, scripts), None if options.y is None else _value(options.y, scripts)
        if len(models) == 1:
            report = check_model(models[0], x, y=y, likelihood=likelihoods[0] if likelihoods else None)
        else:
            a, b = likelihoods or (None, None)
            report = explain_difference(models[0], models[1], x, y=y, likelihood_a=a, likelihood_b=b)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    return int(bool(report.findings or report.unexplained or not report.compared))


if __name__ == "__main__":
    sys.exit(main())
