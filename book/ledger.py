"""The ledger: every claim on every machine, and the folk answer sentence by sentence.

``python -m book.ledger chapters/*.ipynb`` prints the verdicts that are stored in notebooks; ``--json`` is for programs.
Nothing here imports torch, so that the page is built, and verdicts are read, in a moment.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from statistics import mode

from book import stored_claims
from gpbook_utils import claims

MARKS = {claims.HOLDS: "✓", claims.REFUTED: "✗", claims.UNOBSERVABLE: "○", "stale": "~", None: ""}
UNDECIDED = "not decided yet"
LEFT = '<td style="text-align: left">'  # JupyterLab sets table cells flush right
RELEASES = {"Python": "python", "torch": "torch", "GPyTorch": "gpytorch", "NumPy": "numpy"}  # in a fingerprint
JUDGEMENTS = (claims.HOLDS, "holds within a range", claims.REFUTED)  # of a sentence of the folk answer


class Ledger:
    """Claims × machines.

    Args:
        book: the claims of the chapters, as :func:`book.stored_claims.read_all` returns them.
        records: the machines, as :func:`gpbook_utils.machines.records.load` returns them.
        titles: what to call a chapter, by the name of its file; the name itself where there is none.
    """

    def __init__(self, book: list[dict], records: list[dict], titles: dict[str, str] | None = None):
        self.book, self.records, self.titles = book, records, titles or {}

    def __repr__(self) -> str:
        lines = [f"{len(self.book)} claims, {len(self.records)} machines"]
        for record in self.records:
            lines.append(f"{record['machine']}: {_tally(verdict_in(record, claim) for claim in self.book)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        machines = range(1, len(self.records) + 1)
        rows = "".join(
            f'<tr><th scope="row">{number}</th>{LEFT}{html.escape(_description(record))}</td>'
            f"{LEFT}{_tally(verdict_in(record, claim) for claim in self.book)}</td></tr>"
            for number, record in zip(machines, self.records, strict=True)
        )
        head = '<th scope="col"></th><th scope="col">machine</th><th scope="col">its verdicts</th>'
        overview = f"<p>{self._machines()}.</p>{_table('', head, f'<tbody>{rows}</tbody>')}"
        folds = []
        for chapter, of_chapter in groupby(self.book, key=lambda claim: claim["chapter"]):
            of_chapter = list(of_chapter)
            checks = [claim for claim in of_chapter if claim["kind"] == claims.CHECK]
            inside = self._matrix([claim for claim in of_chapter if claim not in checks])
            if checks:
                inside += f"<details><summary>{_count(len(checks), 'check')}</summary>{self._matrix(checks)}</details>"
            title = html.escape(self.titles.get(chapter, chapter))
            line = f"{title} <small>{self._summary(of_chapter)}</small>"
            folds.append(f"<details><summary>{line}</summary>{inside}</details>")
        return overview + "".join(folds)

    def _machines(self) -> str:
        """How many processors were asked, and in how many settings: one computer is several machines."""
        processors = {record["fingerprint"]["cpu"] for record in self.records}
        return f"{_count(len(processors), 'processor')} in {_count(len(self.records), 'setting')}"

    def _asked(self, some: list[dict]) -> list[tuple[int, dict]]:
        """The machines that ran any of these claims, with their numbers."""
        ids = {claim["id"] for claim in some}
        return [(number, record) for number, record in enumerate(self.records, 1) if ids & record["claims"].keys()]

    def _matrix(self, some: list[dict]) -> str:
        """Claims × the machines that ran any of them, these under the name of their processor."""
        asked = self._asked(some)
        names, settings = '<td colspan="2"></td>', '<th scope="col">claim</th><th scope="col">book</th>'
        for processor, group in groupby(asked, key=lambda item: item[1]["fingerprint"]["cpu"]):
            alike = list(group)
            names += f'<th scope="colgroup" colspan="{len(alike)}">{html.escape(processor)}</th>'
            for number, record in alike:
                settings += f'<th scope="col">{number}<small>{html.escape(self._setting(record))}</small></th>'
        head = f"{names}</tr><tr>{settings}" if asked else settings
        rows = "".join(self._row(claim, [record for _, record in asked]) for claim in some)
        return _table(" gp-ledger", head, f"<tbody>{rows}</tbody>")

    def _setting(self, record: dict) -> str:
        """What tells it from the other settings of its processor; releases that most records have go without saying."""
        found = record["fingerprint"]
        branch = found["switches"].get("MKL_CBWR", "").lower()
        releases = [
            f"{name} {found[key]}"
            for name, key in RELEASES.items()
            if found[key] != mode(other["fingerprint"][key] for other in self.records)
        ]
        return ", ".join(filter(None, [found["aten"], _count(found["threads"], "thread"), branch, *releases]))

    def _summary(self, some: list[dict]) -> str:
        """How many claims these are, and where one of them does anything but hold."""
        asked, exceptions = self._asked(some), []
        for name, verdicts in [
            ("the book", [claim["verdict"] for claim in some]),
            *((f"machine {number}", [verdict_in(record, claim) for claim in some]) for number, record in asked),
        ]:
            if others := [verdict for verdict in verdicts if verdict != claims.HOLDS]:
                exceptions.append(f"{name}: {_tally(others)}")
        fate = "; ".join(exceptions) or f"all hold here and on {_count(len(asked), 'machine')}"
        return f"{_count(len(some), 'claim')}; {fate}"

    def _row(self, claim: dict, asked: list[dict]) -> str:
        there = [(verdict_in(record, claim), record["claims"].get(claim["id"], {})) for record in asked]
        cells = [_cell(claim["verdict"], claim["measured"])]
        cells += [_cell(verdict, entry.get("measured", "")) for verdict, entry in there]
        sentence = f'<span id="ledger-{claim["id"]}">{html.escape(claim["sentence"])}</span>'
        return f"<tr>{LEFT}{sentence}</td>{''.join(cells)}</tr>"


class FolkAnswer:
    """The sentences of the answer that circulates, each with a verdict and the claims that decide it.

    A verdict stands only while all of its claims hold; otherwise the sentence is shown as not decided, with the reason.

    Args:
        book: the claims of the chapters.
        sentences: dictionaries with ``id``, ``sentence``, ``judgement`` (one of :data:`JUDGEMENTS`), ``range`` (where
            it applies), ``why`` and ``claims`` (ids); by default the book's own table.

    Raises:
        ValueError: if a sentence is decided by a claim that no chapter makes, or is judged in other words.
    """

    def __init__(self, book: list[dict], sentences: list[dict] | None = None):
        self.rows = []
        verdicts = {claim["id"]: claim["verdict"] for claim in book}
        for row in sentences if sentences is not None else folk_sentences():
            if unknown := [id for id in row["claims"] if id not in verdicts]:
                raise ValueError(f"sentence {row['id']} is decided by {unknown}, which no chapter claims")
            if row["judgement"] not in JUDGEMENTS:
                raise ValueError(
                    f"sentence {row['id']} is judged {row['judgement']!r}; say {', '.join(map(repr, JUDGEMENTS))}"
                )
            fallen = [id for id in row["claims"] if verdicts[id] != claims.HOLDS]
            if fallen:
                row = row | {"judgement": UNDECIDED, "range": "", "why": f"{', '.join(fallen)} must hold first"}
            elif not row["claims"]:
                row = row | {"judgement": UNDECIDED, "range": "", "why": ""}
            self.rows.append(row)

    def __repr__(self) -> str:
        return "\n".join(f"{row['id']:4}{row['judgement']:22}{row['sentence']}" for row in self.rows)

    def _repr_html_(self) -> str:
        return "".join(
            f'<div class="gp-claim" data-verdict="{row["judgement"]}">'
            f'<span class="gp-sentence">{row["id"]}. {html.escape(row["sentence"])}</span> '
            f'<span class="gp-verdict">{html.escape(row["judgement"])}</span>'
            f'<dl class="gp-measured">{_entry("range", html.escape(row["range"]))}'
            f"{_entry('why', html.escape(row['why']))}"
            f"{_entry('decided by', ', '.join(map(_link, row['claims'])))}</dl></div>"
            for row in self.rows
        )


def folk_sentences() -> list[dict]:
    """The sentences of the folk answer, paraphrased, with the verdict that the named claims carry.

    >>> folk_sentences()[0]["id"]
    'F1'
    """
    table = Path(__file__).with_name("folk_answer.toml").read_text(encoding="utf-8")
    return [{"range": "", "why": "", "claims": [], **row} for row in tomllib.loads(table)["sentence"]]


def verdict_in(record: dict, claim: dict) -> str | None:
    """What ``record`` says of a claim of the book: a verdict, ``"stale"``, or ``None`` if it was never run there.

    A verdict is stale when what :func:`gpbook_utils.claims.digest` hashes has changed since.

    >>> claim = {"id": "a-claim", "kind": "finding", "bound": ""}
    >>> verdict_in({"claims": {"a-claim": {"verdict": "holds", "digest": "of another sentence"}}}, claim)
    'stale'
    """
    entry = record["claims"].get(claim["id"])
    if entry is None:
        return None
    return entry["verdict"] if entry["digest"] == claims.digest(claim) else "stale"


def main(arguments: list[str] | None = None) -> int:
    """Print the verdicts stored in notebooks. Exit status 1 if a claim is refuted, 2 if a notebook can't be read."""
    parser = argparse.ArgumentParser(prog="python -m book.ledger", description=main.__doc__)
    parser.add_argument("notebook", nargs="+", help="an executed notebook")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    options = parser.parse_args(arguments)
    try:
        found = stored_claims.read_all(options.notebook)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        widths = [max((len(c[key]) for c in found), default=0) for key in ("chapter", "verdict", "id")]
        for c in found:
            print(f"{c['chapter']:{widths[0]}}  {c['verdict']:{widths[1]}}  {c['id']:{widths[2]}}  {c['sentence']}")
        count = {verdict: sum(c["verdict"] == verdict for c in found) for verdict in claims.VERDICTS}
        print(f"{len(found)} claims: " + ", ".join(f"{n} {verdict}" for verdict, n in count.items()))
    return int(any(c["verdict"] == claims.REFUTED for c in found))


def _description(record: dict) -> str:
    """What tells this machine from the others, in one line."""
    fingerprint = record["fingerprint"]
    switches = " ".join(f"{name}={value}" for name, value in fingerprint["switches"].items())
    words = [
        f"{fingerprint['cpu']} ({fingerprint['architecture']}, {fingerprint['system']})",
        f"ATen {fingerprint['aten']}",
        fingerprint["blas"],
        _count(fingerprint["threads"], "thread"),
        f"GPU {fingerprint['gpu']}",
        *(f"{name} {fingerprint[key]}" for name, key in RELEASES.items()),
        *([switches] if switches else []),
    ]
    return f"{', '.join(words)}; recorded {record['date']}"


def _link(id: str) -> str:
    """To the claim's row in the ledger, which opens its fold."""
    return f'<a href="#ledger-{id}"><code>{id}</code></a>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tally(verdicts: Iterable[str | None]) -> str:
    """How often each verdict occurs, as words."""
    count = Counter(verdict or "not run" for verdict in verdicts)
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(count.items()))


def _table(kind: str, head: str, body: str) -> str:
    """A table in a box that scrolls sideways where it must."""
    return (
        f'<div class="gp-scroll" style="overflow-x: auto"><table class="gp-table{kind}"><colgroup><col></colgroup>'
        f"<thead><tr>{head}</tr></thead>{body}</table></div>"
    )


def _entry(term: str, text: str) -> str:
    return f"<dt>{term}</dt><dd>{text}</dd>" if text else ""


def _cell(verdict: str | None, measured: str = "") -> str:
    """The verdict, and below it in small type what was measured there, so that the spread between machines shows."""
    spoken = verdict or "not run"
    mark = f'<span role="img" aria-label="{spoken}" title="{spoken}">{MARKS[verdict]}</span>'
    digits = f"<small>{html.escape(measured)}</small>" if measured else ""
    return f'<td data-verdict="{spoken}">{mark}{digits}</td>'


if __name__ == "__main__":
    sys.exit(main())
