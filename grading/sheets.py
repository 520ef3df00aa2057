"""Fills marks into the table of a learning platform: Canvas's gradebook export, or Moodle's grading worksheet.

``python -m grading.sheets EXPORT.csv GRADES.csv COLUMN`` prints the table with the scores in ``COLUMN``. Rows are
matched by the platform's own number of the student, which it puts into the names of the files that were handed in. A
cell that a spreadsheet would take for a formula is made a text.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from pathlib import Path

KEYS = ("ID", "Identifier")  # Canvas: 4711; Moodle: Participant 4711
FINAL = ("graded", "flagged")  # in both, nothing waits for a person and nothing is by an older version
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # the wide ones too, which some spreadsheets take for the others


def harmless(cell: str) -> str:
    """The text of a cell, which no spreadsheet computes.

    >>> harmless("=HYPERLINK(1)"), harmless("-3.5"), harmless("-"), harmless("late")
    ("'=HYPERLINK(1)", '-3.5', '-', 'late')
    """
    is_number = re.fullmatch(r"[+-]?[0-9.,]*", cell)
    return f"'{cell}" if _FORMULA.match(cell) and not is_number else cell


def fill(export: str, grades: str, column: str, statuses=("graded",)) -> tuple[str, list[str]]:
    r"""The platform's table with marks.

    Args:
        export: the text of the platform's table.
        grades: the text of ``grades.csv``.
        column: the heading of the column to fill, or its beginning: Canvas adds a number to it.
        statuses: which rows of ``grades.csv`` go in, "graded" and "flagged" at most: sums of the others may change.

    Returns:
        The filled table, and sentences about students who were left out.

    Raises:
        ValueError: if there is no such column, more than one, or none that identifies students; if two rows are of one
            number.

    >>> grades = "student,score,max,status,flags\nada_4711,70,100,graded,\n"
    >>> text, left_out = fill("Student,ID,Homework 1 (99)\nAda,4711,\n", grades, "Homework 1")
    >>> print(text, end="")
    Student,ID,Homework 1 (99)
    Ada,4711,70
    """
    if not set(statuses) <= set(FINAL):
        raise ValueError(f"only marks with the status {' or '.join(FINAL)} are final; got {', '.join(statuses)}")
    export = export.lstrip("\ufeff")
    first = export.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    table = list(csv.reader(io.StringIO(export), delimiter=delimiter))
    heading = table[0] if table else []
    key = next((heading.index(name) for name in KEYS if name in heading), None)
    if key is None:
        raise ValueError(f"the table needs a column {' or '.join(KEYS)}; it has {heading}")
    exact = [place for place, name in enumerate(heading) if name == column]
    places = exact or [place for place, name in enumerate(heading) if name.startswith(column)]
    if len(places) != 1:
        raise ValueError(f"the table needs one column {column!r}; it has {len(places)}, of {heading}")
    rows: dict[str, dict] = {}
    for row in csv.DictReader(io.StringIO(grades)):
        other = rows.setdefault(row["student"].rsplit("_", 1)[-1], row)
        if other is not row:
            raise ValueError(f"two rows have one number: {other['student']} and {row['student']}; whose is it?")
    left_out = [f"{row['student']}: {row['status']}" for row in rows.values() if row["status"] not in statuses]
    seen: dict[str, str] = {}
    for line in table[1:]:
        number = re.search(r"\d+$", line[key].strip()) if len(line) > key else None
        if number and (other := seen.setdefault(number[0], ", ".join(line[:2]))) != ", ".join(line[:2]):
            raise ValueError(f"two rows of the table have one number: {other} and {', '.join(line[:2])}; whose is it?")
        row = rows.pop(number[0], None) if number else None
        if row and row["status"] in statuses:
            line[places[0]] = row["score"]
    left_out += [f"{row['student']}: not in the table" for row in rows.values() if row["status"] in statuses]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", delimiter=delimiter)
    writer.writerows([harmless(cell) for cell in line] for line in table)
    return text.getvalue(), left_out


def main(argv=None) -> int:
    """The command; 1 and a message if a table is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m grading.sheets", description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path, help="the platform's table")
    parser.add_argument("grades", type=Path, help="grades.csv")
    parser.add_argument("column", help="the heading of the column to fill")
    parser.add_argument("--status", nargs="+", default=["graded"], choices=FINAL, help="which marks are final")
    options = parser.parse_args(argv)
    try:
        export, grades = (path.read_text(encoding="utf-8-sig") for path in (options.export, options.grades))
        text, left_out = fill(export, grades, options.column, options.status)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    print(*(f"Left out: {sentence}" for sentence in left_out), sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
